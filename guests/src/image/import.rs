//! Importing a user's own kernel or disk.
//!
//! Files are copied into the cache, so later changes to the originals do not change the image; on
//! file systems that share blocks the copy costs nothing.

use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};

use super::disk;
use super::store::{self, StoreError, failed};
use super::{Boot, Disk, Image};
use crate::os;

/// What to import.
#[derive(Debug, Clone, Default)]
pub struct ImportOptions {
    /// Name of the image; one of the same name is replaced.
    pub name: String,
    /// Linux kernel (`bzImage` or PVH `vmlinux`).
    pub kernel: Option<PathBuf>,
    /// Initial RAM disk; needs a kernel.
    pub initrd: Option<PathBuf>,
    /// Disk, raw or qcow2 (found from its content). Without a kernel the guest boots from it.
    pub disk: Option<PathBuf>,
    /// Kernel command line; for a kernel it defaults to a console on the first serial port.
    pub kernel_args: Option<String>,
    /// Name of the operating system table used to log in.
    pub os: String,
}

/// Why an import failed.
#[derive(Debug, thiserror::Error)]
pub enum ImportError {
    /// Nothing to boot.
    #[error("image `{name}` needs a kernel or a disk; give `--kernel FILE` or `--disk FILE`")]
    Nothing {
        /// The image.
        name: String,
    },
    /// An initial RAM disk or kernel arguments without the kernel they are for.
    #[error("image `{name}`: {what} needs a kernel; give `--kernel FILE` too")]
    NeedsKernel {
        /// The image.
        name: String,
        /// What was given.
        what: &'static str,
    },
    /// A file is not what it is said to be.
    #[error("`{}` is no {expected}: {found}", path.display())]
    Unlike {
        /// The file.
        path: PathBuf,
        /// What it should be.
        expected: &'static str,
        /// What it looks like.
        found: String,
    },
    /// No table says how to log in.
    #[error("image `{name}`: there is no operating system table `{os}`; `--os` is one of {known}")]
    Os {
        /// The image.
        name: String,
        /// The word.
        os: String,
        /// The words there are.
        known: String,
    },
    /// The cache could not take it.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Copies a kernel, initial RAM disk or disk into the cache `cache` as an image.
pub fn import(options: &ImportOptions, cache: &Path) -> Result<Image, ImportError> {
    let name = &options.name;
    store::check_name(name)?;
    match options {
        ImportOptions { kernel: None, disk: None, initrd: None, .. } => {
            return Err(ImportError::Nothing { name: name.clone() });
        }
        ImportOptions { kernel: None, initrd: Some(_), .. } => {
            let what = "an initial RAM disk";
            return Err(ImportError::NeedsKernel { name: name.clone(), what });
        }
        ImportOptions { kernel: None, kernel_args: Some(_), .. } => {
            let what = "a kernel command line";
            return Err(ImportError::NeedsKernel { name: name.clone(), what });
        }
        _ => {}
    }
    if os::find(&options.os).is_none() {
        let known = os::names().collect::<Vec<_>>().join(", ");
        return Err(ImportError::Os { name: name.clone(), os: options.os.clone(), known });
    }
    if let Some(kernel) = &options.kernel {
        check_kernel(kernel)?;
    }
    let bootable = options.kernel.is_none();
    let format = options.disk.as_deref().map(|path| disk::format(path, bootable)).transpose()?;

    let _lock = store::lock(cache)?;
    let scratch = store::scratch(cache)?;
    let mut digests = Vec::new();
    for (file, word) in
        [(&options.kernel, "kernel"), (&options.initrd, "initrd"), (&options.disk, "disk")]
    {
        let Some(file) = file else { continue };
        let copy = scratch.path().join(word);
        fs::copy(file, &copy).map_err(failed("copy", file))?;
        let digest = File::open(&copy).and_then(store::digest).map_err(failed("read", &copy))?;
        digests.push(format!("{word} {digest}\n"));
    }
    let hash = store::digest(digests.concat().as_bytes()).map_err(failed("read", cache))?;
    let place = store::keep(cache, scratch.path(), &hash)?;
    let boot = Boot {
        kernel: options.kernel.as_ref().map(|_| place.join("kernel")),
        initrd: options.initrd.as_ref().map(|_| place.join("initrd")),
        disk: format.map(|format| Disk { path: place.join("disk"), format }),
    };
    let default_args = if boot.kernel.is_some() { "console=ttyS0 panic=-1" } else { "" };
    let mut image = Image {
        name: name.clone(),
        kernel_args: options.kernel_args.clone().unwrap_or_else(|| default_args.into()),
        os: options.os.clone(),
        boot,
        ready_line: None,
        nics: None,
        packages: std::collections::BTreeMap::new(),
        extra_packages: Vec::new(),
        built: store::now(),
        hash,
        request: String::new(),
        file_bytes: Vec::new(),
    };
    store::publish(cache, &mut image)?;
    Ok(image)
}

pub(super) fn head(path: &Path, count: u64) -> Result<Vec<u8>, StoreError> {
    let mut bytes = Vec::new();
    File::open(path)
        .and_then(|file| file.take(count).read_to_end(&mut bytes))
        .map_err(failed("read", path))?;
    Ok(bytes)
}

fn check_kernel(path: &Path) -> Result<(), ImportError> {
    let head = head(path, 0x206)?;
    let linux = head.get(0x202..0x206) == Some(b"HdrS") || head.starts_with(b"\x7fELF");
    if linux {
        return Ok(());
    }
    let found = "it has neither the signature of a bzImage nor that of an ELF file".into();
    Err(ImportError::Unlike { path: path.into(), expected: "Linux kernel for x86", found })
}
