//! How a QEMU process ends, and finding out why.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use tokio::process::Child;
use tokio::sync::{Notify, broadcast, watch};

use super::Event;
use super::stderr::Tail;

/// How a guest's QEMU process ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Exit {
    /// The node.
    pub node: String,
    /// Why.
    pub reason: ExitReason,
    /// The last lines of QEMU's standard error, often empty.
    pub stderr: String,
}

/// Why a QEMU process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ExitReason {
    /// We asked QEMU to quit, or killed it.
    Stopped,
    /// The guest switched itself off.
    PoweredOff,
    /// The guest rebooted; a panic before its kernel's panic driver is loaded looks the same.
    Rebooted,
    /// The guest's kernel panicked.
    Panicked,
    /// QEMU gave up with this exit status.
    Failed(i32),
    /// This signal ended QEMU.
    Signal(i32),
}

impl fmt::Display for Exit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let node = &self.node;
        match self.reason {
            ExitReason::Stopped => write!(f, "node `{node}`: QEMU was stopped")?,
            ExitReason::PoweredOff => write!(f, "node `{node}`: the guest switched itself off")?,
            ExitReason::Rebooted => {
                write!(f, "node `{node}`: the guest rebooted or its kernel panicked")?;
            }
            ExitReason::Panicked => write!(f, "node `{node}`: the guest's kernel panicked")?,
            ExitReason::Failed(status) => {
                write!(f, "node `{node}`: QEMU failed with exit status {status}")?;
            }
            ExitReason::Signal(signal) => {
                write!(f, "node `{node}`: QEMU was ended by signal {signal}")?;
                if let Ok(signal) = nix::sys::signal::Signal::try_from(signal) {
                    write!(f, " ({signal})")?;
                }
            }
        }
        if !self.stderr.is_empty() {
            write!(f, "; QEMU said: {}", self.stderr)?;
        }
        Ok(())
    }
}

/// Waits for the announcement.
pub(super) async fn ended(mut exit: watch::Receiver<Option<Exit>>, node: &str) -> Exit {
    match exit.wait_for(Option::is_some).await {
        Ok(exit) => exit.clone().expect("waited for it"),
        // The runtime is shutting down and took the reaper with it, which killed QEMU.
        Err(_) => Exit { node: node.into(), reason: ExitReason::Stopped, stderr: String::new() },
    }
}

/// Remembers why QEMU is about to end.
pub(super) async fn watch_shutdown(
    mut events: broadcast::Receiver<Event>,
    shutdown: watch::Sender<Option<ExitReason>>,
) {
    loop {
        match events.recv().await {
            Ok(event) if event.event == "SHUTDOWN" => {
                let reason = match event.data["reason"].as_str().unwrap_or_default() {
                    "guest-panic" => ExitReason::Panicked,
                    "guest-reset" => ExitReason::Rebooted,
                    "guest-shutdown" => ExitReason::PoweredOff,
                    _ => ExitReason::Stopped,
                };
                shutdown.send_replace(Some(reason));
            }
            Ok(_) | Err(broadcast::error::RecvError::Lagged(_)) => {}
            Err(broadcast::error::RecvError::Closed) => return,
        }
    }
}

/// Waits for the process, or kills it when told to, and announces how it ended.
pub(super) async fn reap(
    mut child: Child,
    kill: Arc<Notify>,
    mut shutdown: watch::Receiver<Option<ExitReason>>,
    pump: tokio::task::JoinHandle<()>,
    node: String,
    stderr: Tail,
    announce: watch::Sender<Option<Exit>>,
) {
    let mut killed = false;
    let status = loop {
        tokio::select! {
            status = child.wait() => break status,
            () = kill.notified() => {
                killed = true;
                // Fails only when it has ended already.
                let _ = child.start_kill();
            }
        }
    };
    // A process that QEMU started may hold the pipe; then its last words are not worth waiting for.
    const LAST_WORDS: Duration = Duration::from_secs(1);
    let _ = tokio::time::timeout(LAST_WORDS, pump).await;
    // The event travels on another stream than the exit status and may come after it. Its sender
    // goes when the monitor connection has ended, so this wait is short.
    let _ = tokio::time::timeout(LAST_WORDS, shutdown.wait_for(Option::is_some)).await;
    let said = *shutdown.borrow();
    let reason = match status {
        Ok(status) => {
            use std::os::unix::process::ExitStatusExt;
            match (status.code(), status.signal()) {
                _ if killed => ExitReason::Stopped,
                (Some(0), _) => said.unwrap_or(ExitReason::Stopped),
                (Some(status), _) => ExitReason::Failed(status),
                (None, Some(signal)) => ExitReason::Signal(signal),
                (None, None) => ExitReason::Failed(-1),
            }
        }
        Err(_) => ExitReason::Failed(-1),
    };
    announce.send_replace(Some(Exit { node, reason, stderr: stderr.text() }));
}
