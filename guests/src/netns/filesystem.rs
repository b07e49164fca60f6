//! The file system a namespace node sees: the host's, but private.
//!
//! Each file system that is mounted on the host gets an overlay of its own whose upper layer is a
//! tmpfs of the node, so every write, rename and removal stays in the node. One that is mounted
//! read-only, or cannot be a lower layer, is bound read-only. Where the kernel refuses overlays
//! altogether (some containers), all are bound read-only and `/etc`, `/var`, `/root`, `/home` and
//! `/srv` are private copies or empty directories.
//!
//! `/proc`, `/sys`, `/dev`, `/tmp` and `/run` are the node's own in both cases, and what the host has
//! under these names does not come to light when the node unmounts them.

use std::fs;
use std::io;
use std::os::unix::fs::{DirBuilderExt, symlink};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sys::stat::{Mode, SFlag, makedev, mknod};
use nix::unistd::{chdir, pivot_root};
use serde::{Deserialize, Serialize};

use super::kernel_files::{mount_proc, mount_sys};

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

/// Kinds of file systems that hold no files of the host's, or would mount some when looked at.
const NOT_SHOWN: [&str; 20] = [
    "autofs",
    "binfmt_misc",
    "bpf",
    "cgroup",
    "cgroup2",
    "configfs",
    "debugfs",
    "devpts",
    "devtmpfs",
    "efivarfs",
    "fusectl",
    "hugetlbfs",
    "mqueue",
    "nsfs",
    "proc",
    "pstore",
    "rpc_pipefs",
    "securityfs",
    "sysfs",
    "tracefs",
];

/// Places a node never takes from the host.
const OWN: [&str; 5] = ["/proc", "/sys", "/dev", "/tmp", "/run"];

/// A file that is mounted on its own (as containers do with `/etc/resolv.conf`) is copied, up to so
/// many bytes.
const COPIED_BYTES: u64 = 1 << 20;

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
    let mounts = fs::read_to_string("/proc/self/mountinfo").map_err(FilesystemError::Mounts)?;
    let shown = shown_mounts(&mounts);
    mount_at(Some("tmpfs"), base, Some("tmpfs"), MsFlags::empty(), Some("mode=0755"))?;
    let root = base.join("root");
    make_dir(&root, 0o755)?;

    let view = match overlays(base, &root, &shown) {
        Ok(()) => View::Overlay,
        Err(_) => {
            let _ = umount2(&root, MntFlags::MNT_DETACH);
            read_only_binds(&root)?;
            View::ReadOnlyBinds
        }
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

/// A mount of the host whose files are shown.
#[derive(Debug, PartialEq, Eq)]
struct Shown {
    point: PathBuf,
    /// Flags that a remount must repeat.
    flags: MsFlags,
    writable: bool,
}

/// The mounts whose files are shown, parents before children, of `/proc/self/mountinfo`.
fn shown_mounts(mountinfo: &str) -> Vec<Shown> {
    let mut shown: Vec<Shown> = mountinfo.lines().filter_map(shown_mount).collect();
    // Of those that are mounted on one another the last is seen.
    shown.reverse();
    shown.sort_by(|a, b| a.point.cmp(&b.point));
    shown.dedup_by(|a, b| a.point == b.point);
    shown
}

/// A line of `/proc/self/mountinfo`, if the mount's files are shown.
fn shown_mount(line: &str) -> Option<Shown> {
    let (left, right) = line.split_once(" - ")?;
    let kind = right.split(' ').next()?;
    let (point, flags) = mount_flags(left)?;
    let is_writable = |options: &str| !options.split(',').any(|option| option == "ro");
    let writable = is_writable(left.split(' ').nth(5)?) && is_writable(right.split(' ').nth(2)?);
    let own = OWN.iter().any(|own| point.starts_with(own));
    (!NOT_SHOWN.contains(&kind) && !own).then_some(Shown { point, flags, writable })
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

fn overlays(base: &Path, root: &Path, shown: &[Shown]) -> Result<(), FilesystemError> {
    for (i, mount) in shown.iter().enumerate() {
        let at = root.join(mount.point.strip_prefix("/").unwrap_or(&mount.point));
        let is_root = i == 0;
        // One that another hides, or that cannot be reached any more, is not to be seen in the node
        // either.
        let Ok(kind) = fs::metadata(&mount.point) else { continue };
        if !is_root && !at.exists() {
            continue;
        }
        if !kind.is_dir() {
            if kind.is_file() && kind.len() <= COPIED_BYTES {
                fs::copy(&mount.point, &at)
                    .map_err(|source| FilesystemError::Make { path: at, source })?;
            } else {
                bind_read_only(mount, &at)?;
            }
            continue;
        }
        match overlay(base, i, mount, &at) {
            Ok(()) => {}
            Err(error) if is_root => return Err(error),
            // A file system that cannot be a lower layer.
            Err(_) => bind_read_only(mount, &at)?,
        }
        if is_root {
            // Over a whiteout, a directory of the overlay starts empty.
            for place in OWN {
                make_dir(&root.join(&place[1..]), 0o755)?;
            }
        }
    }
    Ok(())
}

/// Mounts the overlay number `i` over a mount of the host.
fn overlay(base: &Path, i: usize, mount: &Shown, at: &Path) -> Result<(), FilesystemError> {
    if !mount.writable && i > 0 {
        return bind_read_only(mount, at);
    }
    let (upper, work) = (base.join(format!("upper{i}")), base.join(format!("work{i}")));
    make_dir(&upper, 0o755)?;
    make_dir(&work, 0o755)?;
    if i == 0 {
        for place in OWN {
            // A device 0:0 in an upper layer says that the lower layers' file is gone.
            let path = upper.join(&place[1..]);
            mknod(&path, SFlag::S_IFCHR, Mode::empty(), makedev(0, 0))
                .map_err(|errno| FilesystemError::Make { path, source: errno.into() })?;
        }
    }
    let escaped = |path: &Path| {
        path.to_string_lossy().replace('\\', r"\\").replace(',', r"\,").replace(':', r"\:")
    };
    // `userxattr` lets an overlay be made inside a user namespace (Linux 5.11).
    let layers = format!(
        "lowerdir={},upperdir={},workdir={}",
        escaped(&mount.point),
        escaped(&upper),
        escaped(&work)
    );
    // A disk's device could otherwise be a file of the host's.
    let flags = MsFlags::MS_NODEV;
    mount_at(Some("overlay"), at, Some("overlay"), flags, Some(&layers)).or_else(|_| {
        let layers = format!("{layers},userxattr");
        mount_at(Some("overlay"), at, Some("overlay"), flags, Some(&layers))
    })
}

fn bind_read_only(mount: &Shown, at: &Path) -> Result<(), FilesystemError> {
    mount_at(Some(&mount.point.to_string_lossy()), at, None, MsFlags::MS_BIND, None)?;
    let read_only = MsFlags::MS_BIND | MsFlags::MS_REMOUNT | MsFlags::MS_RDONLY;
    mount_at(None, at, None, read_only | mount.flags, None)
}

/// Shows all of the host's directories read-only, on a root of the node's own.
fn read_only_binds(root: &Path) -> Result<(), FilesystemError> {
    mount_at(Some("tmpfs"), root, Some("tmpfs"), MsFlags::empty(), Some("mode=0755"))?;
    let unreadable = |source| FilesystemError::Make { path: root.to_owned(), source };
    for entry in fs::read_dir("/").map_err(unreadable)? {
        let entry = entry.map_err(unreadable)?;
        let (from, at) = (entry.path(), root.join(entry.file_name()));
        let kind = entry.file_type().map_err(unreadable)?;
        if kind.is_symlink() {
            let link = fs::read_link(&from).map_err(unreadable)?;
            symlink(link, &at).map_err(|source| FilesystemError::Make { path: at, source })?;
        } else if kind.is_dir() {
            make_dir(&at, 0o755)?;
            let written = WRITABLE.iter().find(|(name, _)| entry.file_name() == *name);
            match written {
                Some((_, true)) => copy_tree(&from, &at),
                Some(_) => {}
                None if OWN.iter().any(|own| from == Path::new(own)) => {}
                // A user namespace may only bind the host's mounts as a whole.
                None => {
                    let flags = MsFlags::MS_BIND | MsFlags::MS_REC;
                    mount_at(Some(&from.to_string_lossy()), &at, None, flags, None)?;
                }
            }
        }
    }
    remount_read_only(root)?;
    for sub in ["log", "lib", "cache", "spool", "tmp", "run"] {
        make_dir(&root.join("var").join(sub), 0o755)?;
    }
    Ok(())
}

/// Makes every mount below `at` read-only.
///
/// Each keeps its other flags: inside a user namespace they may not be dropped.
fn remount_read_only(at: &Path) -> Result<(), FilesystemError> {
    let mountinfo = fs::read_to_string("/proc/self/mountinfo").map_err(FilesystemError::Mounts)?;
    let read_only = MsFlags::MS_BIND | MsFlags::MS_REMOUNT | MsFlags::MS_RDONLY;
    for (point, kept) in mountinfo.lines().filter_map(mount_flags) {
        if point == at || !point.starts_with(at) {
            continue;
        }
        match mount_at(None, &point, None, read_only | kept, None) {
            // Another mount hides it, or nobody here may reach it.
            Err(FilesystemError::Mount {
                errno: Errno::EINVAL | Errno::ENOENT | Errno::EACCES,
                ..
            }) if point.parent() != Some(at) => {}
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
    mount_proc(root)?;
    mount_sys(root)?;
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

pub(super) fn mount_at(
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
    fn mounts_with_the_hosts_files_are_shown() {
        let line = |kind: &str, point: &str, options: &str| {
            format!("36 35 98:0 / {point} {options} master:1 - {kind} /dev/root rw,errors=continue")
        };
        let shown = |point: &str, flags, writable| {
            Some(Shown { point: PathBuf::from(point), flags, writable })
        };
        let none = MsFlags::empty();
        assert_eq!(shown_mount(&line("ext4", "/", "rw,noatime")), shown("/", none, true));
        assert_eq!(
            shown_mount(&line("squashfs", "/snap/x", "ro,nodev")),
            shown("/snap/x", MsFlags::MS_NODEV, false)
        );
        assert_eq!(shown_mount(&line("tmpfs", "/opt", "rw")), shown("/opt", none, true));
        assert_eq!(shown_mount(&line("nfs4", "/home", "rw")), shown("/home", none, true));
        assert_eq!(shown_mount(&line("proc", "/srv/proc", "rw")), None);
        assert_eq!(shown_mount(&line("ext4", "/tmp/x", "rw")), None, "the node has a /tmp");
        assert_eq!(shown_mount("nonsense"), None);
    }

    #[test]
    fn of_stacked_mounts_the_last_is_shown_and_parents_come_first() {
        let line = |point: &str, options: &str| format!("1 2 0:3 / {point} {options} - ext4 x rw");
        let text =
            [line("/b/c", "rw"), line("/b", "rw"), line("/", "rw"), line("/b", "ro")].join("\n");
        let shown = shown_mounts(&text);
        let seen: Vec<_> =
            shown.iter().map(|s| (s.point.display().to_string(), s.writable)).collect();
        assert_eq!(seen, [("/".into(), true), ("/b".into(), false), ("/b/c".into(), true)]);
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
