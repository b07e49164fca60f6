//! What a run could leave on the host, and what of it is there.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use nix::fcntl::{Flock, FlockArg};
use nix::unistd::Pid;

/// The host's own state, which no run may change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Host {
    /// Interfaces with what `ip link` says of them.
    links: Vec<String>,
    mounts: Vec<String>,
    /// Named network namespaces.
    named: Vec<String>,
}

impl Host {
    pub fn now() -> Self {
        let links = names("/sys/class/net").into_iter().map(|name| {
            let part = |file: &str| {
                let path = Path::new("/sys/class/net").join(&name).join(file);
                fs::read_to_string(path).unwrap_or_default().trim().to_owned()
            };
            let (mac, mtu, flags) = (part("address"), part("mtu"), part("flags"));
            let is_bridge = Path::new("/sys/class/net").join(&name).join("bridge").exists();
            format!("{name} {mac} mtu {mtu} flags {flags} bridge {is_bridge}")
        });
        let mounts = fs::read_to_string("/proc/self/mountinfo").expect("mountinfo");
        Self {
            links: links.collect(),
            mounts: mounts.lines().map(str::to_owned).collect(),
            named: names("/run/netns"),
        }
    }
}

fn names(directory: &str) -> Vec<String> {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    let mut names: Vec<String> =
        entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}

/// A PID namespace, by the inode the kernel gives it.
pub type Namespace = u64;

/// The PID namespace that children of `pid` are in: for a run, its sandbox once that is made.
pub fn namespace_of_children(pid: Pid) -> Option<Namespace> {
    inode(&PathBuf::from(format!("/proc/{pid}/ns/pid_for_children")))
}

/// Our own.
pub fn own_namespace() -> Namespace {
    inode(Path::new("/proc/self/ns/pid")).expect("our own PID namespace")
}

fn inode(path: &Path) -> Option<Namespace> {
    let link = fs::read_link(path).ok()?;
    link.to_str()?.strip_prefix("pid:[")?.strip_suffix(']')?.parse().ok()
}

/// All processes, by number, that are in `namespace` or in one below it, with their command lines.
pub fn processes_in(namespace: Namespace) -> Vec<(Pid, String)> {
    processes().filter(|pid| lineage(*pid).contains(&namespace)).map(describe).collect()
}

/// All processes whose environment has `text`.
pub fn processes_with(text: &str) -> Vec<(Pid, String)> {
    let has = |pid: &Pid| {
        let environment = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
        environment.split(|byte| *byte == 0).any(|entry| entry == text.as_bytes())
    };
    processes().filter(has).map(describe).collect()
}

fn processes() -> impl Iterator<Item = Pid> {
    let entries = fs::read_dir("/proc").expect("/proc").flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).map(Pid::from_raw)
}

fn describe(pid: Pid) -> (Pid, String) {
    let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    (pid, String::from_utf8_lossy(&line).replace('\0', " ").trim().to_owned())
}

/// The PID namespaces a process is in, from its own outwards. Empty for one that has ended: it has
/// no namespace any more, even while its parent has not yet taken note.
fn lineage(pid: Pid) -> BTreeSet<Namespace> {
    let mut found = BTreeSet::new();
    let mut next = File::open(format!("/proc/{pid}/ns/pid")).ok().map(OwnedFd::from);
    while let Some(namespace) = next {
        let inode = nix::sys::stat::fstat(&namespace).expect("an open file").st_ino;
        if !found.insert(inode) {
            break;
        }
        next = parent::of(namespace.as_fd());
    }
    found
}

/// The one system call that knows which namespace is in which.
mod parent {
    #![allow(unsafe_code)]

    use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

    // `ioctl_nsfs(2)`: NS_GET_PARENT.
    nix::ioctl_none!(get_parent, 0xb7, 0x2);

    /// The namespace around this one; none for the outermost that we may see.
    pub fn of(namespace: BorrowedFd) -> Option<OwnedFd> {
        // SAFETY: the call takes no argument; on success its result is a new descriptor.
        unsafe {
            let descriptor = get_parent(namespace.as_raw_fd()).ok()?;
            Some(OwnedFd::from_raw_fd(descriptor))
        }
    }
}

/// Where a run answers `exec` and `attach`, if it has said so.
pub fn socket_of(out: &Path) -> Option<String> {
    let lock = fs::read_to_string(out.join("lock")).ok()?;
    let (_mark, name) = lock.split_once('\n')?;
    (!name.is_empty()).then(|| name.to_owned())
}

/// Whether an abstract Unix socket of this name exists.
pub fn has_socket(name: &str) -> bool {
    let sockets = fs::read_to_string("/proc/net/unix").expect("/proc/net/unix");
    sockets.lines().any(|line| line.ends_with(&format!("@{name}")))
}

/// Whether somebody holds the lock of a run.
pub fn is_locked(out: &Path) -> bool {
    let Ok(file) = File::open(out.join("lock")) else { return false };
    Flock::lock(file, FlockArg::LockExclusiveNonblock).is_err()
}

/// Whether a process still holds any file below `directory` open.
pub fn is_open_below(directory: &Path) -> bool {
    processes().any(|pid| {
        let open = fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten();
        open.filter_map(|entry| fs::read_link(entry.path()).ok())
            .any(|file| file.starts_with(directory))
    })
}
