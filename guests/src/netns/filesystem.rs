//! The file system a namespace node sees: the host's, but private.
//!
//! Each mounted file system of the host that holds files gets an overlay of its own whose upper
//! layer is a tmpfs of the node, so every write, rename and removal stays in the node. Where the
//! kernel refuses overlays (some containers), the host is bound read-only and `/etc`, `/var`,
//! `/tmp`, `/run`, `/root` and `/home` are private copies or empty directories.
//!
//! `/proc`, `/sys`, `/dev`, `/tmp` and `/run` are the node's own in both cases.

use std::fs;
use std::io;
use std::os::unix::fs::{DirBuilderExt, symlink};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::unistd::{chdir, pivot_root};
use serde::{Deserialize, Serialize};

/// How a node sees the host's files.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum View {
    /// Everything, writable, changes private.
    Overlay,
    /// Everything read-only, with private copies of the directories programs write to.
    ReadOnlyBinds,
}

/// Why the view could not be made.
#[derive(Debug, thiserror::Error)]
pub(super) enum FilesystemError {
    /// A mount was refused.
    #[error("cannot mount {what} on {}: {errno}", .at.display())]
    Mount {
        /// What was mounted.
        what: String,
        /// Where.
        at: PathBuf,
        /// The kernel's answer.
        errno: Errno,
    },
    /// A file or directory of the view could not be made.
    #[error("cannot make {}: {source}", .path.display())]
    Make {
        /// The path.
        path: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
    /// What is mounted cannot be read.
    #[error("cannot read /proc/self/mountinfo: {0}")]
    Mounts(io::Error),
    /// The new root could not be entered.
    #[error("cannot enter the node's root: {0}")]
    Pivot(Errno),
}

/// File systems whose files belong to the host and are shown in the node.
const SHOWN: [&str; 9] =
    ["ext2", "ext3", "ext4", "xfs", "btrfs", "overlay", "zfs", "f2fs", "squashfs"];

/// Places a node never takes from the host.
const OWN: [&str; 5] = ["/proc", "/sys", "/dev", "/tmp", "/run"];

/// Directories that programs expect to write to, where no overlay can be had. Those with `true`
/// start as a copy of the host's.
const WRITABLE: [(&str, bool); 5] =
    [("etc", true), ("var", false), ("root", false), ("home", false), ("srv", false)];

/// Builds the view and makes it the root of the calling process, which must be alone in new mount
/// and PID namespaces (as process 1, so that `/proc` is the node's).
pub(super) fn enter_private_view() -> Result<View, FilesystemError> {
    // Nothing may travel back to the host.
    mount_at(None, Path::new("/"), None, MsFlags::MS_REC | MsFlags::MS_PRIVATE, None)?;
    // A tmpfs over /tmp holds the layers: it exists everywhere and the node gets its own anyway.
    let base = Path::new("/tmp");
    // The list is read first: the tmpfs would be on it.
    let shown = shown_mounts();
    mount_at(Some("tmpfs"), base, Some("tmpfs"), MsFlags::empty(), Some("mode=0755"))?;
    let root = base.join("root");
    make_dir(&root, 0o755)?;

    let view = match overlays(base, &root, &shown) {
        Ok(()) => View::Overlay,
        Err(FilesystemError::Mount { .. }) => {
            let _ = umount2(&root, MntFlags::MNT_DETACH);
            read_only_binds(&root)?;
            View::ReadOnlyBinds
        }
        Err(error) => return Err(error),
    };
    own_places(&root)?;

    let old = root.join("tmp/.host");
    make_dir(&old, 0o700)?;
    pivot_root(&root, &old).map_err(FilesystemError::Pivot)?;
    chdir("/").map_err(FilesystemError::Pivot)?;
    umount2("/tmp/.host", MntFlags::MNT_DETACH).map_err(FilesystemError::Pivot)?;
    let _ = fs::remove_dir("/tmp/.host");
    Ok(view)
}

/// Mount points of the host whose files are shown, parents before children.
fn shown_mounts() -> Vec<PathBuf> {
    let mountinfo = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let mut shown: Vec<PathBuf> = mountinfo.lines().filter_map(shown_mount).collect();
    shown.sort();
    shown.dedup();
    shown
}

/// The mount point of a line of `/proc/self/mountinfo`, if its files are shown.
fn shown_mount(line: &str) -> Option<PathBuf> {
    let (left, right) = line.split_once(" - ")?;
    let kind = right.split(' ').next()?;
    let point = unescape(left.split(' ').nth(4)?);
    let own = OWN.iter().any(|own| point.starts_with(own));
    (SHOWN.contains(&kind) && !own && point.is_dir()).then_some(point)
}

/// `mountinfo` writes space, tab, newline and backslash as three octal digits.
fn unescape(text: &str) -> PathBuf {
    let mut out = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('\\') {
        out.push_str(before);
        match after.get(..3).and_then(|digits| u8::from_str_radix(digits, 8).ok()) {
            Some(byte) => {
                out.push(byte as char);
                rest = &after[3..];
            }
            None => {
                out.push('\\');
                rest = after;
            }
        }
    }
    out.push_str(rest);
    PathBuf::from(out)
}

fn overlays(base: &Path, root: &Path, shown: &[PathBuf]) -> Result<(), FilesystemError> {
    for (i, point) in shown.iter().enumerate() {
        let (upper, work) = (base.join(format!("upper{i}")), base.join(format!("work{i}")));
        make_dir(&upper, 0o755)?;
        make_dir(&work, 0o755)?;
        let at = root.join(point.strip_prefix("/").unwrap_or(point));
        let escaped = |path: &Path| {
            path.to_string_lossy().replace('\\', r"\\").replace(',', r"\,").replace(':', r"\:")
        };
        // `userxattr` lets an overlay be made inside a user namespace (Linux 5.11).
        let layers = format!(
            "lowerdir={},upperdir={},workdir={}",
            escaped(point),
            escaped(&upper),
            escaped(&work)
        );
        let plain =
            mount_at(Some("overlay"), &at, Some("overlay"), MsFlags::empty(), Some(&layers));
        if plain.is_ok() {
            continue;
        }
        let layers = format!("{layers},userxattr");
        match mount_at(Some("overlay"), &at, Some("overlay"), MsFlags::empty(), Some(&layers)) {
            Ok(()) => {}
            Err(error) if i == 0 => return Err(error),
            // A file system that cannot be a lower layer is shown read-only.
            Err(_) => read_only_bind(point, &at)?,
        }
    }
    Ok(())
}

fn read_only_binds(root: &Path) -> Result<(), FilesystemError> {
    // A user namespace may only bind the host's mounts as a whole.
    mount_at(Some("/"), root, None, MsFlags::MS_BIND | MsFlags::MS_REC, None)?;
    remount_read_only(root)?;
    for (name, copied) in WRITABLE {
        let at = root.join(name);
        if !at.is_dir() {
            continue;
        }
        mount_at(Some("tmpfs"), &at, Some("tmpfs"), MsFlags::empty(), Some("mode=0755"))?;
        if copied {
            copy_tree(&Path::new("/").join(name), &at);
        }
    }
    for sub in ["log", "lib", "cache", "spool", "tmp", "run"] {
        make_dir(&root.join("var").join(sub), 0o755)?;
    }
    Ok(())
}

fn read_only_bind(from: &Path, at: &Path) -> Result<(), FilesystemError> {
    mount_at(Some(&from.to_string_lossy()), at, None, MsFlags::MS_BIND, None)?;
    remount_read_only(at)
}

/// Makes `at` and every mount below it read-only.
///
/// Each keeps its other flags: inside a user namespace they may not be dropped.
fn remount_read_only(at: &Path) -> Result<(), FilesystemError> {
    let mountinfo = fs::read_to_string("/proc/self/mountinfo").map_err(FilesystemError::Mounts)?;
    let read_only = MsFlags::MS_BIND | MsFlags::MS_REMOUNT | MsFlags::MS_RDONLY;
    for (point, kept) in mountinfo.lines().filter_map(mount_flags) {
        if !point.starts_with(at) {
            continue;
        }
        match mount_at(None, &point, None, read_only | kept, None) {
            // Another mount hides it, or nobody here may reach it.
            Err(FilesystemError::Mount {
                errno: Errno::EINVAL | Errno::ENOENT | Errno::EACCES,
                ..
            }) if point != at => {}
            other => other?,
        }
    }
    Ok(())
}

/// The mount point of a line of `/proc/self/mountinfo`, and those of its flags that a remount must
/// repeat (times of access are kept without).
fn mount_flags(line: &str) -> Option<(PathBuf, MsFlags)> {
    let mut fields = line.split(' ').skip(4);
    let point = unescape(fields.next()?);
    let flags = fields.next()?.split(',').map(|option| match option {
        "nosuid" => MsFlags::MS_NOSUID,
        "nodev" => MsFlags::MS_NODEV,
        "noexec" => MsFlags::MS_NOEXEC,
        _ => MsFlags::empty(),
    });
    Some((point, flags.collect()))
}

/// Copies what can be read; the node starts with a usable `/etc` even where secrets are unreadable.
fn copy_tree(from: &Path, to: &Path) {
    let Ok(entries) = fs::read_dir(from) else { return };
    for entry in entries.flatten() {
        let (source, target) = (entry.path(), to.join(entry.file_name()));
        match entry.file_type() {
            Ok(kind) if kind.is_dir() && fs::create_dir(&target).is_ok() => {
                copy_tree(&source, &target);
            }
            Ok(kind) if kind.is_symlink() => {
                if let Ok(link) = fs::read_link(&source) {
                    let _ = symlink(link, target);
                }
            }
            Ok(kind) if kind.is_file() => {
                let _ = fs::copy(source, target);
            }
            _ => {}
        }
    }
}

/// `/proc`, `/sys`, `/dev`, `/tmp` and `/run` of the node.
fn own_places(root: &Path) -> Result<(), FilesystemError> {
    let quiet = MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
    for (place, mode) in [("tmp", "mode=1777"), ("run", "mode=0755"), ("dev", "mode=0755")] {
        let at = root.join(place);
        if !at.is_dir() {
            make_dir(&at, 0o755)?;
        }
        mount_at(Some("tmpfs"), &at, Some("tmpfs"), MsFlags::MS_NOSUID, Some(mode))?;
    }
    for lock in ["run/lock", "run/shm"] {
        make_dir(&root.join(lock), 0o1777)?;
    }
    // A fresh /proc needs process 1's own PID namespace; where a container hides parts of the
    // host's /proc the kernel refuses, and then the outer one is bound.
    let proc_at = root.join("proc");
    mount_at(Some("proc"), &proc_at, Some("proc"), quiet | MsFlags::MS_NOEXEC, None).or_else(
        |_| mount_at(Some("/proc"), &proc_at, None, MsFlags::MS_BIND | MsFlags::MS_REC, None),
    )?;
    let sys_at = root.join("sys");
    mount_at(Some("sysfs"), &sys_at, Some("sysfs"), quiet | MsFlags::MS_NOEXEC, None).or_else(
        |_| mount_at(Some("/sys"), &sys_at, None, MsFlags::MS_BIND | MsFlags::MS_REC, None),
    )?;
    devices(&root.join("dev"))
}

fn devices(dev: &Path) -> Result<(), FilesystemError> {
    for sub in ["pts", "shm", "net"] {
        make_dir(&dev.join(sub), 0o755)?;
    }
    for device in ["null", "zero", "full", "random", "urandom", "tty", "net/tun"] {
        let (host, at) = (Path::new("/dev").join(device), dev.join(device));
        if !host.exists() {
            continue;
        }
        fs::File::create(&at)
            .map_err(|source| FilesystemError::Make { path: at.clone(), source })?;
        mount_at(Some(&host.to_string_lossy()), &at, None, MsFlags::MS_BIND, None)?;
    }
    mount_at(Some("tmpfs"), &dev.join("shm"), Some("tmpfs"), MsFlags::empty(), Some("mode=1777"))?;
    let options = "newinstance,ptmxmode=0666,mode=0620";
    mount_at(Some("devpts"), &dev.join("pts"), Some("devpts"), MsFlags::MS_NOSUID, Some(options))?;
    for (link, target) in [
        ("ptmx", "pts/ptmx"),
        ("fd", "/proc/self/fd"),
        ("stdin", "/proc/self/fd/0"),
        ("stdout", "/proc/self/fd/1"),
        ("stderr", "/proc/self/fd/2"),
    ] {
        let path = dev.join(link);
        symlink(target, &path).map_err(|source| FilesystemError::Make { path, source })?;
    }
    Ok(())
}

fn make_dir(path: &Path, mode: u32) -> Result<(), FilesystemError> {
    match fs::DirBuilder::new().mode(mode).create(path) {
        Err(source) if source.kind() != io::ErrorKind::AlreadyExists => {
            Err(FilesystemError::Make { path: path.to_owned(), source })
        }
        _ => Ok(()),
    }
}

fn mount_at(
    what: Option<&str>,
    at: &Path,
    kind: Option<&str>,
    flags: MsFlags,
    options: Option<&str>,
) -> Result<(), FilesystemError> {
    mount(what, at, kind, flags, options).map_err(|errno| FilesystemError::Mount {
        what: what.or(kind).unwrap_or("a change of flags").to_owned(),
        at: at.to_owned(),
        errno,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_file_systems_with_the_hosts_files_are_shown() {
        let line = |kind: &str, point: &str| {
            format!(
                "36 35 98:0 / {point} rw,noatime master:1 - {kind} /dev/root rw,errors=continue"
            )
        };
        assert_eq!(shown_mount(&line("ext4", "/")), Some(PathBuf::from("/")));
        assert_eq!(shown_mount(&line("proc", "/proc")), None);
        assert_eq!(shown_mount(&line("ext4", "/tmp/x")), None, "the node has a /tmp of its own");
        assert_eq!(shown_mount("nonsense"), None);
    }

    #[test]
    fn flags_that_a_remount_must_repeat_are_found() {
        let line =
            r"36 35 98:0 / /mnt/a\040b rw,nosuid,noexec,relatime shared:1 - tmpfs x rw,nodev";
        let expected = (PathBuf::from("/mnt/a b"), MsFlags::MS_NOSUID | MsFlags::MS_NOEXEC);
        assert_eq!(mount_flags(line), Some(expected), "the file system's own flags do not count");
        assert_eq!(mount_flags("nonsense"), None);
    }

    #[test]
    fn mount_points_are_unescaped() {
        assert_eq!(unescape(r"/mnt/my\040disk"), PathBuf::from("/mnt/my disk"));
        assert_eq!(unescape(r"/a\134b\"), PathBuf::from(r"/a\b\"));
    }
}
