//! The sandbox: namespaces that make a lab leave no trace.
//!
//! Purpose: everything a run makes on the host — processes, TAPs, bridges, mounts — lives in
//! namespaces that die with the run, so that even `SIGKILL` needs no clean-up by us.
//!
//! Three processes: the *front* (the one the user started, in the host's namespaces) waits and
//! forwards signals; the *supervisor* is process 1 of a new PID namespace and does nothing but
//! reap; the *lab* is its child and runs everything else. When the front dies, the supervisor is
//! killed (`PR_SET_PDEATHSIG`; and end of file on a pipe covers the moment before that is armed);
//! when process 1 dies, the kernel kills the whole PID namespace; with its last process the
//! network, mount and IPC namespaces go, and with them devices, bridges, mounts and sockets.
//!
//! Reference: `pid_namespaces(7)`, `network_namespaces(7)`, `user_namespaces(7)`, `prctl(2)`.
#![allow(unsafe_code)]

use std::fs;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use nix::errno::Errno;
use nix::mount::{MsFlags, mount};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sched::{CloneFlags, unshare};
use nix::sys::signal::{SigSet, Signal, kill};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::{ForkResult, Pid, fork, getegid, geteuid, pipe2, setpgid};

/// Why the sandbox could not be made.
#[derive(Debug, thiserror::Error)]
pub enum SandboxError {
    /// The process has more than one thread.
    #[error("the sandbox must be entered before any thread is started ({0} threads are running)")]
    Threads(usize),
    /// The kernel or its settings refuse a namespace.
    #[error(
        "cannot make {what}: {errno}. Run as root (sudo), or allow user namespaces: \
         sudo sysctl -w kernel.unprivileged_userns_clone=1 user.max_user_namespaces=10000"
    )]
    Namespace {
        /// What was being made.
        what: &'static str,
        /// The kernel's answer.
        errno: Errno,
    },
    /// Some other system call failed.
    #[error("sandbox: {what} failed: {errno}")]
    System {
        /// The call.
        what: &'static str,
        /// The kernel's answer.
        errno: Errno,
    },
    /// The identity maps of the user namespace could not be written.
    #[error("sandbox: cannot write {path}: {source}. Run as root (sudo) instead")]
    IdMap {
        /// The map file.
        path: &'static str,
        /// The kernel's answer.
        source: std::io::Error,
    },
}

/// What the lab process learns about its sandbox.
#[derive(Debug, Clone, Copy)]
pub struct Sandbox {
    /// Whether a user namespace was needed (the caller is not root).
    pub user_namespace: bool,
    /// Whether `/proc` shows the sandbox's own processes.
    pub own_proc: bool,
}

const FORWARDED: [Signal; 3] = [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP];

/// Enters a new sandbox. Returns in the lab process only; the calling process becomes the front,
/// never returns, and exits with the lab's exit status (128 + signal if a signal ended it).
///
/// Must be called while the process has one thread: the child of a `fork` has only the thread
/// that called it, so locks held by others would stay locked.
pub fn enter() -> Result<Sandbox, SandboxError> {
    let threads = fs::read_dir("/proc/self/task").map_or(1, Iterator::count);
    if threads > 1 {
        return Err(SandboxError::Threads(threads));
    }
    let system = |what| move |errno| SandboxError::System { what, errno };

    let (alive, hold_alive) = pipe2(nix::fcntl::OFlag::O_CLOEXEC).map_err(system("pipe2"))?;
    // The readiness pipe tells the front why the supervisor could not finish its namespaces.
    let (ready, say_ready) = pipe2(nix::fcntl::OFlag::O_CLOEXEC).map_err(system("pipe2"))?;

    let old_mask = SigSet::thread_get_mask().map_err(system("sigprocmask"))?;
    let mut mask = SigSet::empty();
    FORWARDED.iter().chain([&Signal::SIGCHLD]).for_each(|s| mask.add(*s));
    mask.thread_block().map_err(system("sigprocmask"))?;

    let user_namespace = !geteuid().is_root();
    if user_namespace {
        enter_user_namespace()?;
    }
    unshare(CloneFlags::CLONE_NEWPID)
        .map_err(|errno| SandboxError::Namespace { what: "a PID namespace", errno })?;

    // SAFETY: one thread only (checked above), so the child may go on as a normal process.
    match unsafe { fork() }.map_err(system("fork"))? {
        ForkResult::Parent { child } => {
            drop((alive, say_ready));
            let _hold = hold_alive;
            front(child, &mask, &ready)
        }
        ForkResult::Child => {
            drop((hold_alive, ready));
            supervisor(&alive, say_ready, &mask, &old_mask, user_namespace)
        }
    }
}

/// Whether a sandbox can be made, without making one. The same rule about threads applies.
pub fn probe() -> Result<(), String> {
    // SAFETY: the child calls nothing but `unshare` and `_exit` before it ends.
    match unsafe { fork() } {
        Err(errno) => Err(format!("cannot fork: {errno}")),
        Ok(ForkResult::Child) => {
            let user =
                if geteuid().is_root() { CloneFlags::empty() } else { CloneFlags::CLONE_NEWUSER };
            let flags = CloneFlags::CLONE_NEWPID
                | CloneFlags::CLONE_NEWNET
                | CloneFlags::CLONE_NEWNS
                | CloneFlags::CLONE_NEWIPC;
            let status = unshare(user | flags).map_or_else(|errno| errno as i32, |()| 0);
            // SAFETY: ends the child at once, without running the parent's exit handlers.
            unsafe { libc::_exit(status) }
        }
        Ok(ForkResult::Parent { child }) => match waitpid(child, None) {
            Ok(WaitStatus::Exited(_, 0)) => Ok(()),
            Ok(WaitStatus::Exited(_, errno)) => {
                Err(format!("namespaces cannot be made: {}", Errno::from_raw(errno).desc()))
            }
            other => Err(format!("namespaces cannot be made: {other:?}")),
        },
    }
}

/// Maps the caller to root in a new user namespace: the right to make the other namespaces.
fn enter_user_namespace() -> Result<(), SandboxError> {
    let (uid, gid) = (geteuid(), getegid());
    unshare(CloneFlags::CLONE_NEWUSER)
        .map_err(|errno| SandboxError::Namespace { what: "a user namespace", errno })?;
    for (path, text) in [
        ("/proc/self/setgroups", "deny".to_owned()),
        ("/proc/self/uid_map", format!("0 {uid} 1")),
        ("/proc/self/gid_map", format!("0 {gid} 1")),
    ] {
        fs::write(path, text).map_err(|source| SandboxError::IdMap { path, source })?;
    }
    Ok(())
}

/// The process the user started: forwards signals and leaves with the lab's status.
fn front(supervisor: Pid, mask: &SigSet, ready: &OwnedFd) -> ! {
    let mut message = [0u8; 512];
    let length = nix::unistd::read(ready, &mut message).unwrap_or(0);
    if length > 0 {
        eprintln!("error: {}", String::from_utf8_lossy(&message[..length]));
    }
    loop {
        match mask.wait() {
            Ok(Signal::SIGCHLD) => match waitpid(supervisor, Some(WaitPidFlag::WNOHANG)) {
                Ok(WaitStatus::StillAlive) => {}
                status => {
                    tell_of_signal("the lab's supervisor", status);
                    std::process::exit(exit_code(status))
                }
            },
            Ok(signal) => {
                let _ = kill(supervisor, signal);
            }
            Err(_) => {}
        }
    }
}

/// Process 1 of the sandbox. Returns only in its child, the lab.
fn supervisor(
    alive: &OwnedFd,
    say_ready: OwnedFd,
    mask: &SigSet,
    old_mask: &SigSet,
    user_namespace: bool,
) -> Result<Sandbox, SandboxError> {
    let fail = |error: SandboxError| -> ! {
        let _ = nix::unistd::write(&say_ready, error.to_string().as_bytes());
        std::process::exit(1)
    };
    if let Err(errno) = nix::sys::prctl::set_pdeathsig(Signal::SIGKILL) {
        fail(SandboxError::System { what: "prctl(PR_SET_PDEATHSIG)", errno });
    }
    // A group of its own keeps the terminal's Ctrl-C from arriving twice.
    let _ = setpgid(Pid::from_raw(0), Pid::from_raw(0));
    let flags = CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_NEWIPC;
    if let Err(errno) = unshare(flags) {
        fail(SandboxError::Namespace { what: "network and mount namespaces", errno });
    }
    let root_private = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
    if let Err(errno) = mount(None::<&str>, "/", None::<&str>, root_private, None::<&str>) {
        fail(SandboxError::System { what: "making mounts private", errno });
    }
    // Both may be refused inside some containers; then figures that need them are left out.
    let quiet = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    let own_proc = mount(Some("proc"), "/proc", Some("proc"), quiet, None::<&str>).is_ok();
    let _ = mount(Some("sysfs"), "/sys", Some("sysfs"), quiet, None::<&str>);

    // SAFETY: still one thread; the child continues as the lab.
    match unsafe { fork() } {
        Err(errno) => fail(SandboxError::System { what: "fork", errno }),
        Ok(ForkResult::Child) => {
            if let Err(errno) = old_mask.thread_set_mask() {
                fail(SandboxError::System { what: "sigprocmask", errno });
            }
            Ok(Sandbox { user_namespace, own_proc })
        }
        Ok(ForkResult::Parent { child }) => {
            drop(say_ready);
            reap(child, alive, mask)
        }
    }
}

/// Reaps orphans, forwards signals to the lab, and ends when the lab or the front ends.
fn reap(lab: Pid, alive: &OwnedFd, mask: &SigSet) -> ! {
    let Ok(signals) = SignalFd::with_flags(mask, SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC)
    else {
        std::process::exit(1)
    };
    close_inherited(&[alive.as_raw_fd(), signals.as_raw_fd()]);
    loop {
        let mut fds = [
            PollFd::new(signals.as_fd(), PollFlags::POLLIN),
            PollFd::new(alive.as_fd(), PollFlags::POLLIN),
        ];
        let _ = poll(&mut fds, PollTimeout::NONE);
        let front_gone = fds[1].any().unwrap_or(false);
        if front_gone {
            std::process::exit(137);
        }
        while let Ok(Some(info)) = signals.read_signal() {
            match Signal::try_from(info.ssi_signo.cast_signed()) {
                Ok(signal) if signal != Signal::SIGCHLD => {
                    let _ = kill(lab, signal);
                }
                _ => {}
            }
        }
        loop {
            match waitpid(None, Some(WaitPidFlag::WNOHANG)) {
                Ok(WaitStatus::StillAlive) | Err(_) => break,
                Ok(status) if status.pid() == Some(lab) => {
                    tell_of_signal("the lab", Ok(status));
                    std::process::exit(exit_code(Ok(status)))
                }
                Ok(_) => {}
            }
        }
    }
}

/// The supervisor holds no file of the lab's, or pipes would never see their end.
fn close_inherited(keep: &[i32]) {
    let Ok(entries) = fs::read_dir("/proc/self/fd") else { return };
    let open: Vec<i32> =
        entries.flatten().filter_map(|e| e.file_name().to_str()?.parse().ok()).collect();
    for fd in open {
        if fd > 2 && !keep.contains(&fd) {
            // Closing a descriptor that the directory listing itself used answers EBADF.
            let _ = nix::unistd::close(fd);
        }
    }
}

/// Nobody else can say so: who is killed has no last words.
fn tell_of_signal(who: &str, status: nix::Result<WaitStatus>) {
    if let Ok(WaitStatus::Signaled(_, signal, _)) = status {
        eprintln!(
            "error: {who} was ended by signal {} ({signal}), so there are no results; was the \
             machine out of memory? `tapestry clean` removes what is left in its run directory",
            signal as i32
        );
    }
}

fn exit_code(status: nix::Result<WaitStatus>) -> i32 {
    match status {
        Ok(WaitStatus::Exited(_, code)) => code,
        Ok(WaitStatus::Signaled(_, signal, _)) => 128 + signal as i32,
        _ => 1,
    }
}
