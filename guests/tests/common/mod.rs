//! Real shells behind pseudo-terminals and sockets.

// Each test program uses its part.
#![allow(dead_code, unreachable_pub)]

use std::fs::{File, Permissions};
use std::io::{Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use tapestry_guests::os;
use tapestry_guests::shell::{LoginOptions, RunOptions, Shell};
use tokio::net::UnixStream;

/// Options that end a test that hangs.
pub fn quick() -> RunOptions {
    RunOptions {
        timeout: Duration::from_mins(1),
        queue: Duration::from_mins(1),
        ..RunOptions::default()
    }
}

/// The process behind a node; ended with it.
pub struct Node(Child);

impl Node {
    /// Ends it as a crash would.
    pub fn kill(&mut self) {
        let group = Pid::from_raw(i32::try_from(self.0.id()).expect("a process id"));
        // Fails only when all of it has ended already.
        let _ = killpg(group, Signal::SIGKILL);
        self.0.wait().expect("the child is ours");
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.kill();
    }
}

/// A node named `name` that is a plain `sh` on a socket, as in a network namespace.
pub async fn node(name: &str) -> (Shell, Node) {
    let (near, far) = std::os::unix::net::UnixStream::pair().expect("a pair");
    let far = || Stdio::from(OwnedFd::from(far.try_clone().expect("descriptor")));
    let child = Command::new("sh")
        .stdin(far())
        .stdout(far())
        .stderr(far())
        .process_group(0)
        .spawn()
        .expect("sh runs");
    near.set_nonblocking(true).expect("a socket");
    let stream = UnixStream::from_std(near).expect("registered");
    let options =
        LoginOptions { console_log: None, timeout: Duration::from_secs(30), emulator: None };
    let shell = Shell::login(name, stream, &os::PLAIN, &options)
        .await
        .unwrap_or_else(|error| panic!("{error}"));
    (shell, Node(child))
}

/// Runs `test` on each shell of this machine, interactively on a pseudo-terminal.
pub fn for_each_shell(test: impl AsyncFn(Shell)) {
    for_each_shell_with(&[], test);
}

/// The same where programs of these names are these scripts.
pub fn for_each_shell_with(scripts: &[(&str, &str)], test: impl AsyncFn(Shell)) {
    let mut tried = 0;
    for command in ["dash -i", "bash --norc -i", "busybox sh -i"] {
        let mut words = command.split(' ');
        let program = words.next().expect("a word");
        let Some(path) = find_program(program) else {
            println!("not tried: {program} is not installed");
            continue;
        };
        // The agent and the commands shall run in this shell too.
        let bin = tempfile::tempdir().expect("temporary directory");
        std::os::unix::fs::symlink(path, bin.path().join("sh")).expect("a link");
        for (name, text) in scripts {
            let file = bin.path().join(name);
            std::fs::write(&file, text).expect("a script");
            std::fs::set_permissions(&file, Permissions::from_mode(0o755)).expect("a program");
        }
        println!("shell: {command}");
        let arguments: Vec<&str> = words.collect();
        let runtime = tokio::runtime::Runtime::new().expect("runtime");
        runtime.block_on(async {
            let (pty, mut child) = spawn_on_pty(program, &arguments, bin.path());
            let options = LoginOptions {
                console_log: None,
                timeout: Duration::from_secs(30),
                emulator: None,
            };
            let shell = Shell::login("n0", pty, linux(), &options)
                .await
                .unwrap_or_else(|error| panic!("{command}: {error}"));
            test(shell).await;
            // The test may have killed it, or its last handle did by closing the terminal.
            let _ = child.kill();
            child.wait().expect("the child is ours");
        });
        tried += 1;
    }
    assert!(tried > 0, "no shell here at all");
}

/// Linux behind a prompt, without the set-up that would change this machine's kernel log level.
pub fn linux() -> &'static os::Os {
    static LINUX: std::sync::OnceLock<os::Os> = std::sync::OnceLock::new();
    LINUX
        .get_or_init(|| os::Os { setup: "", ..os::find("tapestry").expect("in the table").clone() })
}

fn find_program(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|dir| dir.join(name)).find(|file| file.exists())
}

/// A child on a pseudo-terminal that is its controlling one, and a stream to the near end.
pub fn spawn_on_pty(program: &str, arguments: &[&str], bin: &Path) -> (UnixStream, Child) {
    let pty = nix::pty::openpty(None, None).expect("a pseudo-terminal");
    // Children must not inherit the near end, or the terminal never hangs up.
    let close = FcntlArg::F_SETFD(FdFlag::FD_CLOEXEC);
    fcntl(pty.master.as_fd(), close).expect("flags");
    let far = || Stdio::from(pty.slave.try_clone().expect("descriptor"));
    let mut path = bin.as_os_str().to_owned();
    path.push(":");
    path.push(std::env::var_os("PATH").unwrap_or_default());
    let child = Command::new("setsid")
        .arg("-c")
        .arg(program)
        .args(arguments)
        .env("PS1", "node$ ")
        .env("PATH", path)
        .stdin(far())
        .stdout(far())
        .stderr(far())
        .spawn()
        .expect("setsid runs");
    let (near, stream) = std::os::unix::net::UnixStream::pair().expect("a pair");
    let terminal = File::from(pty.master);
    copy(
        terminal.try_clone().expect("descriptor"),
        near.try_clone().expect("descriptor"),
        near.try_clone().expect("descriptor"),
    );
    copy(near.try_clone().expect("descriptor"), terminal, near);
    stream.set_nonblocking(true).expect("a socket");
    (UnixStream::from_std(stream).expect("registered"), child)
}

/// Copies until either side is gone, then ends the socket, so that both sides learn.
fn copy(
    mut from: impl Read + Send + 'static,
    mut to: impl Write + Send + 'static,
    socket: std::os::unix::net::UnixStream,
) {
    std::thread::spawn(move || {
        let mut burst = [0; 16 << 10];
        while let Ok(length @ 1..) = from.read(&mut burst) {
            if to.write_all(&burst[..length]).is_err() {
                break;
            }
        }
        let _ = socket.shutdown(std::net::Shutdown::Both);
    });
}
