//! Guest images: what a guest boots, made from Debian packages or imported.
//!
//! Assumptions: amd64; a build needs `apt-get`, `apt-cache` and `dpkg-deb` and reads the Debian
//! sources the machine is set up with; it needs no root and changes nothing outside the cache.
//!
//! An image is one JSON file, `images/NAME.json`, in the cache directory, which names files in
//! `store/HASH/`. The JSON file appears by rename when everything it names is on disk, so an image
//! is complete or absent.
//!
//! Not modelled: maintainer scripts do not run. What they are known to do for network programs is
//! done instead: system users, merged `/usr`.
//!
//! Reference: Debian Policy; Linux `Documentation/driver-api/early-userspace/buffer-format.rst`.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use tapestry_topologies::resolved::NicModel;

mod apt;
mod archive;
mod build;
mod disk;
mod import;
mod kernel;
mod modules;
mod store;
#[cfg(test)]
pub(crate) mod tests;
mod tree;
mod users;

pub use apt::AptError;
pub use build::{BuildOptions, Flavour, ImageError, Progress, build};
pub use import::{ImportError, ImportOptions, import};
pub use kernel::KernelError;
pub use store::{StoreError, cache_dir, find, list, remove};

/// Name of the image that `build` makes and topologies use unless told otherwise.
pub const DEFAULT_NAME: &str = "debian";

/// The line a built image prints on its console when its shell is about to start.
pub const READY_LINE: &str = "tapestry: ready";

/// What a guest boots.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Image {
    /// Name, as in a topology's `image:`.
    pub name: String,
    /// Files, as absolute paths.
    pub boot: Boot,
    /// Kernel command line; empty when the guest boots from its disk.
    pub kernel_args: String,
    /// Name of the operating system table for login and set-up.
    pub os: String,
    /// The line on the console that says a shell is about to start; unknown for imported images.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ready_line: Option<String>,
    /// NIC models it has drivers for; unknown for imported images.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub nics: Option<Vec<NicModel>>,
    /// Version by package; empty for imported images.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub packages: BTreeMap<String, String>,
    /// Packages asked for beyond the base set.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub extra_packages: Vec<String>,
    /// When it was made, RFC 3339 in UTC.
    pub built: String,
    /// SHA-256 over what it was made from, in hexadecimal.
    pub hash: String,
    /// Bytes of each file of [`Boot`], in its order: a file that was cut is found out.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub file_bytes: Vec<u64>,
    /// SHA-256 over what was asked for; equal requests need no new build.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub request: String,
}

/// The files of an image; a kernel, a disk, or both.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Boot {
    /// Linux kernel: `bzImage`, or an ELF `vmlinux` with a PVH entry.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kernel: Option<PathBuf>,
    /// Initial RAM disk.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub initrd: Option<PathBuf>,
    /// Disk; guests see it as a virtio block device and never change the file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub disk: Option<Disk>,
}

/// A disk image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Disk {
    /// The file.
    pub path: PathBuf,
    /// Its format.
    pub format: DiskFormat,
}

/// Formats of disk images.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum DiskFormat {
    /// Sectors, nothing else.
    Raw,
    /// QEMU's own.
    Qcow2,
}
