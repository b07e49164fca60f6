//! Commands on nodes that are a part of the emulator: in-process hosts.
//!
//! Purpose: the task runner's view of a host. There is no console and nothing to arm: a command
//! starts within one turn of the data plane, so it is started when the others are released.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::future::BoxFuture;
use parking_lot::Mutex;
use tokio::sync::{mpsc, watch};

use crate::shell::{Collector, CommandError, Cut, Finished, Output, RunOptions, brief, collector};

/// What a command on a host does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HostEvent {
    /// It printed this.
    Printed(Vec<u8>),
    /// It ended with this status; nothing of it follows.
    Exited(u8),
}

/// A command on a host. Dropped, it goes on unheard.
pub trait HostProcess: fmt::Debug + Send + Sync {
    /// What it does next; `None` behind its exit or when its host is gone. Cancel safe.
    fn event(&mut self) -> BoxFuture<'_, Option<HostEvent>>;

    /// Asks it to end, as SIGINT does.
    fn stop(&self);
}

/// A host that runs commands.
pub trait HostShell: fmt::Debug + Send + Sync {
    /// The node's name.
    fn node(&self) -> &str;

    /// Starts a command; or says why it cannot.
    fn start(&self, text: &str) -> Result<Box<dyn HostProcess>, String>;

    /// What somebody did to the host ("was killed") that ended the commands started before; the first
    /// such thing after `since`.
    fn ended(&self, since: Instant) -> Option<String>;
}

/// How long a command may take to end after it was asked to.
const GRACE: Duration = Duration::from_secs(5);
/// The status of a command whose host was ended.
pub(super) const KILLED: u8 = 137;
/// Bytes of output in which `ready:` is looked for.
const WATCHED_BYTES: usize = 1 << 20;

/// Runs a command on a host and waits for its end.
pub async fn run_on_host(
    host: &Arc<dyn HostShell>,
    text: &str,
    options: &RunOptions,
) -> Result<Finished, CommandError> {
    HostCommand::start(host, text, options)?.finish(options.timeout).await
}

/// A command under way, followed by a task of the runtime's. Dropped, it is asked to end.
#[derive(Debug)]
pub(super) struct HostCommand {
    host: Arc<dyn HostShell>,
    text: String,
    started: Instant,
    state: Arc<Mutex<State>>,
    changed: watch::Receiver<()>,
    stop: mpsc::UnboundedSender<()>,
}

#[derive(Debug)]
struct State {
    collector: Option<Collector>,
    /// The beginning of the output.
    watched: Vec<u8>,
    ended: Option<(Instant, u8)>,
}

impl HostCommand {
    pub(super) fn start(
        host: &Arc<dyn HostShell>,
        text: &str,
        options: &RunOptions,
    ) -> Result<Self, CommandError> {
        let (node, text) = (host.node().to_owned(), text.to_owned());
        let collector = Some(collector(&node, &text, options)?);
        let started = Instant::now();
        let mut process = host.start(&text).map_err(|reason| CommandError::Host {
            node,
            command: text.clone(),
            reason,
        })?;
        let state = State { collector, watched: Vec::new(), ended: None };
        let state = Arc::new(Mutex::new(state));
        let (stop, mut stopped) = mpsc::unbounded_channel();
        let (change, changed) = watch::channel(());
        let its_state = Arc::clone(&state);
        tokio::spawn(async move {
            let mut asked = false;
            loop {
                let event = tokio::select! {
                    event = process.event() => event,
                    // A handle that is gone asks it to end too.
                    _ = stopped.recv(), if !asked => {
                        asked = true;
                        process.stop();
                        continue;
                    }
                };
                let mut state = its_state.lock();
                match event {
                    Some(HostEvent::Printed(bytes)) => {
                        let room = WATCHED_BYTES.saturating_sub(state.watched.len());
                        state.watched.extend_from_slice(&bytes[..bytes.len().min(room)]);
                        if let Some(collector) = &mut state.collector {
                            collector.push(&bytes);
                        }
                    }
                    Some(HostEvent::Exited(status)) => {
                        state.ended = Some((Instant::now(), status));
                        break;
                    }
                    None => break,
                }
                drop(state);
                let _ = change.send(());
            }
        });
        Ok(Self { host: Arc::clone(host), text, started, state, changed, stop })
    }

    pub(super) fn started(&self) -> Instant {
        self.started
    }

    /// Its exit status, if it has ended.
    pub(super) fn status(&self) -> Option<u8> {
        self.state.lock().ended.map(|(_, status)| status)
    }

    /// The beginning of its output from byte `from` on.
    pub(super) fn output(&self, from: u64) -> Output {
        let state = self.state.lock();
        let from = usize::try_from(from).unwrap_or(usize::MAX).min(state.watched.len());
        Output { bytes: state.watched[from..].to_vec(), ..Output::default() }
    }

    /// Waits for its end; after `timeout` asks for it.
    pub(super) async fn finish(mut self, timeout: Duration) -> Result<Finished, CommandError> {
        let deadline = self.started + timeout;
        let left = deadline.saturating_duration_since(Instant::now());
        let timed_out = tokio::time::timeout(left, self.end()).await.is_err();
        if timed_out {
            let _ = self.stop.send(());
            // What shows whether it has ended is the state.
            let _ = tokio::time::timeout(GRACE, self.end()).await;
        }
        self.result(timed_out)
    }

    /// Asks it to end, if it has not ended, and waits.
    pub(super) async fn stop(mut self) -> Result<Finished, CommandError> {
        let _ = self.stop.send(());
        let _ = tokio::time::timeout(GRACE, self.end()).await;
        self.result(false)
    }

    /// Returns when it has ended or its host is gone.
    async fn end(&mut self) {
        while self.changed.changed().await.is_ok() {}
    }

    fn result(self, timed_out: bool) -> Result<Finished, CommandError> {
        let mut state = self.state.lock();
        let (Some((ended, status)), Some(collector)) = (state.ended, state.collector.take()) else {
            let (node, command) = (self.host.node().to_owned(), self.text.clone());
            let reason = "it did not end; its host may be gone".to_owned();
            return Err(CommandError::Host { node, command, reason });
        };
        let (started, output) = (self.started, collector.finish());
        if status == KILLED
            && let Some(why) = self.host.ended(started)
        {
            let (node, command) = (self.host.node().to_owned(), brief(&self.text));
            let cut = Some(Box::new(Cut { started, output }));
            return Err(CommandError::NodeEnded { node, command, why, ran: true, cut });
        }
        Ok(Finished { started, ended, status, timed_out, output })
    }
}
