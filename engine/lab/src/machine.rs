//! What a node of a running lab is made of, and how it stands still, goes on and ends.

use std::time::Duration;

use nix::sys::signal::Signal;
use tapestry_guests::netns::NetnsNode;
use tapestry_guests::qemu::{Guest, QmpCommand, QmpError};

/// What a node is made of.
#[derive(Debug)]
pub enum Machine {
    /// A virtual machine.
    Qemu(Guest),
    /// A namespace.
    Netns {
        /// Process 1 of the node.
        init: u32,
        /// The node; taken when it is stopped.
        node: tokio::sync::Mutex<Option<NetnsNode>>,
    },
}

impl Machine {
    /// How the process ended, if it has or does within a moment: for messages when the shell is
    /// gone, which is seen before the process is reaped.
    pub async fn post_mortem(&self) -> Option<String> {
        const MOMENT: Duration = Duration::from_secs(2);
        match self {
            Self::Qemu(guest) => {
                tokio::time::timeout(MOMENT, guest.wait()).await.ok().map(|exit| exit.to_string())
            }
            Self::Netns { node, .. } => {
                let mut node = node.lock().await;
                let exit = tokio::time::timeout(MOMENT, node.as_mut()?.wait()).await.ok()?.ok()?;
                Some(format!("the node's process 1 ended: {exit}"))
            }
        }
    }

    /// Has the node stand still: all of a virtual machine, the processes of a namespace.
    pub async fn pause(&self) -> Result<(), PauseError> {
        match self {
            Self::Qemu(guest) => Ok(guest.qmp().execute(QmpCommand::Stop).await.map(drop)?),
            Self::Netns { init, .. } => Ok(signal_all(*init, Signal::SIGSTOP)?),
        }
    }

    /// Has it go on.
    pub async fn resume(&self) -> Result<(), PauseError> {
        match self {
            Self::Qemu(guest) => Ok(guest.qmp().execute(QmpCommand::Cont).await.map(drop)?),
            Self::Netns { init, .. } => Ok(signal_all(*init, Signal::SIGCONT)?),
        }
    }

    /// Ends the node as if its power failed.
    pub async fn kill(&self) {
        match self {
            Self::Qemu(guest) => {
                guest.stop(Duration::ZERO).await;
            }
            Self::Netns { .. } => self.stop().await,
        }
    }

    /// Ends the node.
    pub async fn stop(&self) {
        match self {
            Self::Qemu(guest) => {
                guest.stop(Duration::from_secs(2)).await;
            }
            Self::Netns { node, .. } => {
                if let Some(node) = node.lock().await.take() {
                    node.stop().await;
                }
            }
        }
    }
}

/// Why a node did not stand still, or go on.
#[derive(Debug, thiserror::Error)]
pub enum PauseError {
    /// QEMU refused.
    #[error(transparent)]
    Qemu(#[from] QmpError),
    /// A signal could not be sent.
    #[error("cannot signal its processes: {0}")]
    Signal(#[from] std::io::Error),
}

/// Sends a signal to all processes of a namespace node, whose process 1 this is.
fn signal_all(init: u32, signal: Signal) -> std::io::Result<()> {
    let own = std::fs::read_link(format!("/proc/{init}/ns/pid"))?;
    // Twice, for a process that is just being made by one that goes on.
    for _ in 0..2 {
        for entry in std::fs::read_dir("/proc")?.flatten() {
            let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else {
                continue;
            };
            let its = std::fs::read_link(entry.path().join("ns/pid"));
            if its.is_ok_and(|its| its == own) {
                // One that has ended needs no signal.
                let _ = nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), signal);
            }
        }
    }
    Ok(())
}
