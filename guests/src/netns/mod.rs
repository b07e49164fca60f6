//! Namespace nodes: a Linux node without a virtual machine.
//!
//! Purpose: `kind: netns` — a network, PID, mount, IPC and UTS namespace per node. The node has its
//! own host name, `/etc/hosts`, `/sys`, `/tmp` and process numbers; its programs are the host's.
//! It sees the host's files under private overlays: what it writes or deletes is gone with it and
//! the host is unchanged. What is the kernel's and not the network's cannot be changed: `/sys` and
//! `/proc/sys` are read-only but for the network's part, and capabilities over the host are dropped.
//!
//! Shape: the lab runs this program's own binary once more with [`HELPER_ARGUMENT`]; that process
//! makes the namespaces, forks the node's process 1 (which only reaps), and that one starts a shell
//! on the socket it was given. Only the network namespace is there before: the lab has made it, with
//! the node's TAPs in it, and configured it. The lab talks to the shell through the same proxy as to
//! a virtual machine's console.
//!
//! Assumes the caller is inside the lab's sandbox (root, or root of its user namespace).
//!
//! Not modelled: limits on CPU and memory; devices other than the harmless ones; a kernel per node
//! (all share the host's, so kernel-wide state such as modules is shared); a prison: root in a node
//! may still mount, so software that sets out to get at the host can.
//!
//! Reference: `namespaces(7)`, `pivot_root(2)`, and the kernel's `overlayfs.rst`.

mod capabilities;
mod filesystem;
mod init;
mod kernel_files;

use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};

use nix::sched::{CloneFlags, setns};
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::process::{Child, Command};

pub use capabilities::confine;
pub use filesystem::View;
pub use init::main as helper_main;

/// First argument that makes the program the helper of a node instead of itself.
///
/// The program's `main` must look for it before anything else and, when it is there, call
/// [`helper_main`].
pub const HELPER_ARGUMENT: &str = "__node";

/// What the helper needs to know: a big-endian `u32` length and so many bytes of JSON, the first thing
/// on the socket that becomes the shell's.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeSpec {
    /// Name of the node, for messages.
    pub node: String,
    /// Host name inside.
    pub hostname: String,
    /// Content of `/etc/hosts`.
    pub hosts: String,
}

/// Why a namespace node could not be started.
#[derive(Debug, thiserror::Error)]
pub enum NetnsError {
    /// The helper process could not be started.
    #[error("node {node}: cannot start its helper {program}: {source}")]
    Spawn {
        /// The node.
        node: String,
        /// The program.
        program: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
    /// The helper could not make the node.
    #[error("node {node}: {reason}")]
    Setup {
        /// The node.
        node: String,
        /// What the helper said.
        reason: String,
    },
}

/// A running namespace node.
#[derive(Debug)]
pub struct NetnsNode {
    node: String,
    helper: Child,
    init: u32,
    view: View,
}

/// What the helper says once the node stands: one JSON line on its standard error.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Report {
    Ready { init: u32, view: View },
    Failed { reason: String },
}

/// Starts a program inside a network namespace.
///
/// A child is born in the namespace of the thread that starts it. That thread has no way back to
/// where it came from, so it is one that ends.
fn spawn_in(network: BorrowedFd<'_>, command: &mut Command) -> io::Result<Child> {
    let runtime = tokio::runtime::Handle::current();
    let spawn = || {
        let _inside = runtime.enter();
        setns(network, CloneFlags::CLONE_NEWNET)?;
        command.spawn()
    };
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().name("spawn".into()).spawn_scoped(scope, spawn)?;
        thread.join().unwrap_or_else(|_| Err(io::Error::other("the thread panicked")))
    })
}

impl NetnsNode {
    /// Starts a node in the network namespace `network` and waits until it stands; returns it and
    /// the stream its shell answers on. The namespace is the node's from then on and dies with it,
    /// once the caller has closed `network`.
    ///
    /// Must be called inside a tokio runtime.
    /// `program` is a binary whose `main` honours [`HELPER_ARGUMENT`]: for `tapestry` itself,
    /// `/proc/self/exe`.
    pub async fn start(
        program: &Path,
        spec: &NodeSpec,
        network: BorrowedFd<'_>,
    ) -> Result<(Self, UnixStream), NetnsError> {
        let node = || spec.node.clone();
        let spawn_error =
            |source| NetnsError::Spawn { node: node(), program: program.to_owned(), source };
        let (mut ours, theirs) = UnixStream::pair().map_err(spawn_error)?;
        let theirs = OwnedFd::from(theirs.into_std().map_err(spawn_error)?);
        nix::fcntl::fcntl(&theirs, nix::fcntl::FcntlArg::F_SETFL(nix::fcntl::OFlag::empty()))
            .map_err(|errno| spawn_error(errno.into()))?;
        let their_output = theirs.try_clone().map_err(spawn_error)?;
        let json = serde_json::to_vec(spec).map_err(|error| spawn_error(error.into()))?;
        let length = u32::try_from(json.len()).unwrap_or(u32::MAX);

        let mut command = Command::new(program);
        command
            .arg(HELPER_ARGUMENT)
            .stdin(Stdio::from(theirs))
            .stdout(Stdio::from(their_output))
            .stderr(Stdio::piped())
            .process_group(0)
            .kill_on_drop(true);
        let mut helper = spawn_in(network, &mut command).map_err(spawn_error)?;
        // A helper that cannot take it says why, or nothing.
        let _ = ours.write_all(&length.to_be_bytes()).await;
        let _ = ours.write_all(&json).await;
        let mut said = String::new();
        if let Some(stderr) = helper.stderr.take() {
            // The helper closes its standard error once it has reported.
            let _ = stderr.take(64 * 1024).read_to_string(&mut said).await;
        }
        let last = said.lines().last().unwrap_or_default();
        match serde_json::from_str(last) {
            Ok(Report::Ready { init, view }) => {
                Ok((Self { node: node(), helper, init, view }, ours))
            }
            Ok(Report::Failed { reason }) => Err(NetnsError::Setup { node: node(), reason }),
            Err(_) => Err(NetnsError::Setup {
                node: node(),
                reason: format!("its helper ended without a report; it said: {}", said.trim()),
            }),
        }
    }

    /// Name of the node.
    pub fn name(&self) -> &str {
        &self.node
    }

    /// Process whose namespaces are the node's, in the caller's process numbers: the node's
    /// process 1. `/proc/PID/ns/net` is its network, `/proc/PID/root` its files.
    pub fn init_pid(&self) -> u32 {
        self.init
    }

    /// How the node sees the host's files.
    pub fn view(&self) -> View {
        self.view
    }

    /// Waits until the node is gone.
    pub async fn wait(&mut self) -> io::Result<ExitStatus> {
        self.helper.wait().await
    }

    /// Ends the node and every process in it. Returns when they are gone.
    pub async fn stop(mut self) {
        // The helper's death kills process 1, and the kernel then kills the PID namespace.
        let _ = self.helper.kill().await;
    }
}
