//! `/proc` and `/sys` of a node: its own where namespaces divide the kernel, else read-only.
//!
//! The files of `/proc/sys/net` and `/sys/devices/virtual/net` are those of the reader's network
//! namespace, and some below `/proc/sys/kernel` those of its host name and System V IPC: they stay
//! writable. What is the whole kernel's is remounted read-only; what would tell of the host's memory
//! and keys is hidden.
//!
//! Reference: kernel `Documentation/admin-guide/sysctl/`, `namespaces(7)`; the OCI runtime
//! specification's default `readonlyPaths` and `maskedPaths`.

use std::fs;
use std::path::Path;

use nix::mount::MsFlags;

use super::filesystem::{FilesystemError, mount_at};

const QUIET: MsFlags = MsFlags::MS_NOSUID.union(MsFlags::MS_NODEV).union(MsFlags::MS_NOEXEC);

/// In `/proc`, beside what is below `sys`.
const READ_ONLY: [&str; 10] = [
    "acpi",
    "asound",
    "bus",
    "driver",
    "dynamic_debug",
    "fs",
    "irq",
    "mtrr",
    "scsi",
    "sysrq-trigger",
];

/// Files of `/proc` that read as empty.
const HIDDEN: [&str; 6] = ["kcore", "keys", "kmsg", "latency_stats", "sched_debug", "timer_list"];

/// Below `/proc/sys/kernel`: what belongs to UTS and IPC namespaces.
const OWN_SETTINGS: [&str; 10] = [
    "domainname",
    "hostname",
    "msgmax",
    "msgmnb",
    "msgmni",
    "sem",
    "shm_rmid_forced",
    "shmall",
    "shmmax",
    "shmmni",
];

/// Mounts `/proc` of the calling process's PID namespace below `root`.
pub(super) fn mount_proc(root: &Path) -> Result<(), FilesystemError> {
    let proc = root.join("proc");
    // It needs process 1's own PID namespace; where a container hides parts of the host's /proc the
    // kernel refuses, and then the outer one is bound.
    mount_at(Some("proc"), &proc, Some("proc"), QUIET, None)
        .or_else(|_| bind(Path::new("/proc"), &proc, MsFlags::MS_REC))?;
    let settings = proc.join("sys");
    for entry in fs::read_dir(&settings).into_iter().flatten().flatten() {
        // Not all of /proc/sys with a hole in it: `net` shows each network namespace its own, and
        // nodes may make namespaces.
        if entry.file_name() != "net" {
            read_only(&entry.path())?;
        }
    }
    for name in OWN_SETTINGS {
        let file = settings.join("kernel").join(name);
        if file.exists() {
            bind(&file, &file, MsFlags::empty())?;
            remount(&file, MsFlags::empty())?;
        }
    }
    for place in READ_ONLY.map(|name| proc.join(name)) {
        if place.exists() {
            read_only(&place)?;
        }
    }
    for file in HIDDEN.map(|name| proc.join(name)) {
        if file.exists() {
            bind(Path::new("/dev/null"), &file, MsFlags::empty())?;
        }
    }
    Ok(())
}

/// Mounts `/sys` of the calling process's network namespace below `root`.
pub(super) fn mount_sys(root: &Path) -> Result<(), FilesystemError> {
    let sys = root.join("sys");
    mount_at(Some("sysfs"), &sys, Some("sysfs"), QUIET, None)
        .or_else(|_| bind(Path::new("/sys"), &sys, MsFlags::MS_REC))?;
    remount(&sys, MsFlags::MS_RDONLY)?;
    // Where /sys/class/net leads.
    let interfaces = sys.join("devices/virtual/net");
    if interfaces.exists() {
        bind(&interfaces, &interfaces, MsFlags::empty())?;
        remount(&interfaces, MsFlags::empty())?;
    }
    Ok(())
}

fn read_only(at: &Path) -> Result<(), FilesystemError> {
    bind(at, at, MsFlags::empty())?;
    remount(at, MsFlags::MS_RDONLY)
}

fn bind(from: &Path, at: &Path, more: MsFlags) -> Result<(), FilesystemError> {
    mount_at(Some(&from.to_string_lossy()), at, None, MsFlags::MS_BIND | more, None)
}

fn remount(at: &Path, flags: MsFlags) -> Result<(), FilesystemError> {
    mount_at(None, at, None, MsFlags::MS_BIND | MsFlags::MS_REMOUNT | QUIET | flags, None)
}
