//! The handle to a node's shell: logging in, and starting commands.

use std::fmt;
use std::io::{Cursor, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::{mpsc, oneshot, watch};

use super::agent::COMMAND_BYTES;
use super::background::Background;
use super::command::{
    Armed, CommandError, Cut, Finished, RunOptions, Running, brief, collector, tail,
};
use super::driver::{Behind, Request, Shared, Sink, Status, spawn};
use super::line::StartLine;
use super::machine::{Lost, Start};
use crate::console::Console;
use crate::os::Os;

/// How a node's shell is reached.
#[derive(Debug, Clone)]
pub struct LoginOptions {
    /// File that takes every byte of the console.
    pub console_log: Option<PathBuf>,
    /// Longest time until commands can be run (the guest's boot included).
    pub timeout: Duration,
    /// The process that runs the guest, if it may be stopped for the milliseconds in which the other
    /// guests of a task start.
    pub emulator: Option<u32>,
}

/// Why a node has no shell.
#[derive(Debug, thiserror::Error)]
pub enum LoginError {
    /// The console log cannot be written.
    #[error("node `{node}`: cannot write its console log {}: {source}; make the directory writable", path.display())]
    Log {
        /// The node.
        node: String,
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
    /// No shell within the time given.
    #[error(
        "node `{node}` showed no usable shell within {after:?}; raise its `boot_timeout:` or check its image, `os:` and `kernel_args:`{}",
        tail(console)
    )]
    NoShell {
        /// The node.
        node: String,
        /// The time given.
        after: Duration,
        /// The last lines of its console.
        console: Vec<String>,
    },
    /// The guest died on the way.
    #[error("node `{node}` did not get to a shell: {cause}{}", tail(console))]
    Lost {
        /// The node.
        node: String,
        /// What happened.
        cause: Lost,
        /// The last lines of its console.
        console: Vec<String>,
    },
}

/// A node's shell; clones share it. When the last clone is gone, so is the stream.
#[derive(Clone)]
pub struct Shell {
    shared: Arc<Shared>,
    requests: mpsc::UnboundedSender<Request>,
    status: watch::Receiver<Status>,
    console: Console,
}

impl fmt::Debug for Shell {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Shell").field(&self.shared.node).finish()
    }
}

impl Shell {
    /// Waits for a shell on `stream` and takes it over. `node` names it in errors.
    ///
    /// Must be called inside a tokio runtime, which then also drives the shell.
    pub async fn login<S>(
        node: &str,
        stream: S,
        os: &'static Os,
        options: &LoginOptions,
    ) -> Result<Self, LoginError>
    where
        S: AsyncRead + AsyncWrite + Send + 'static,
    {
        let log = options.console_log.as_deref();
        let console = Console::open(log).map_err(|source| LoginError::Log {
            node: node.to_owned(),
            path: log.map(Path::to_path_buf).unwrap_or_default(),
            source,
        })?;
        let (shared, requests, status) = spawn(node, stream, os, console.clone(), options.emulator);
        let mut shell = Self { shared, requests, status, console };
        let ready = async {
            let status = shell.status.wait_for(|s| s.ready || s.lost.is_some()).await;
            status.map_or(Some(Lost::Closed), |status| status.lost.clone())
        };
        let outcome = tokio::time::timeout(options.timeout, ready).await;
        let node = node.to_owned();
        match outcome {
            Ok(None) => Ok(shell),
            Ok(Some(cause)) => {
                Err(LoginError::Lost { node, cause, console: shell.console.last_lines() })
            }
            Err(_) => Err(LoginError::NoShell {
                node,
                after: options.timeout,
                console: shell.console.last_lines(),
            }),
        }
    }

    /// The node's name.
    pub fn node(&self) -> &str {
        &self.shared.node
    }

    /// The node's console.
    pub fn console(&self) -> &Console {
        &self.console
    }

    /// Why the shell is gone, if it is.
    pub fn lost(&self) -> Option<Lost> {
        self.status.borrow().lost.clone()
    }

    /// Waits until the shell is gone (the guest died or was stopped) and says why.
    pub async fn wait_lost(&self) -> Lost {
        let mut status = self.status.clone();
        let found = status.wait_for(|s| s.lost.is_some()).await;
        found.ok().and_then(|s| s.lost.clone()).unwrap_or(Lost::Closed)
    }

    /// Gives the shell up because the node is ended on purpose, and waits until all its commands have
    /// been told; their error says `why` ("was killed"). A shell that is gone already stays as it is.
    pub async fn end(&self, why: &str) {
        self.request(Request::End { why: why.to_owned() });
        self.wait_lost().await;
    }

    /// Runs a command and waits for its end. Waits its turn if the node is busy.
    pub async fn run(&self, text: &str, options: &RunOptions) -> Result<Finished, CommandError> {
        let (running, _) = self.begin(text, options, false, true).await?;
        running.finish().await
    }

    /// Delivers a command, so that [`Armed::release`] starts it with one byte.
    pub async fn arm(&self, text: &str, options: &RunOptions) -> Result<Armed, CommandError> {
        let (inner, armed) = self.begin(text, options, false, false).await?;
        match armed.await {
            Ok(()) => Ok(Armed { inner }),
            Err(_) => Err(self.lost_error(text, None)),
        }
    }

    /// Starts a command that goes on behind later ones; waits for its start.
    pub async fn start_background(
        &self,
        text: &str,
        options: &RunOptions,
    ) -> Result<Background, CommandError> {
        let Some(directory) = self.status.borrow().directory.clone() else {
            return Err(CommandError::NoDirectory {
                node: self.node().to_owned(),
                command: brief(text),
            });
        };
        let (mut running, _) = self.begin(text, options, true, true).await?;
        let start = running.start().await?;
        // The foreground is free again; there is nothing to cancel.
        running.finished = None;
        let file = format!("{directory}/{}", start.number);
        let behind = Behind { process: start.process, file: file.clone(), left: None };
        self.shared.behind().insert(start.number, behind);
        Ok(Background { shell: self.clone(), text: text.to_owned(), file, start })
    }

    /// The background commands that have not been stopped: their numbers, and the files in the guest
    /// that take their outputs.
    pub fn background_outputs(&self) -> Vec<(u32, PathBuf)> {
        let behind = self.shared.behind();
        behind.iter().map(|(&number, behind)| (number, PathBuf::from(&behind.file))).collect()
    }

    /// Where the output of a background command can be read when its node is gone.
    pub fn leave_output(&self, number: u32, output: impl Read + Send + 'static) {
        if let Some(behind) = self.shared.behind().get_mut(&number) {
            behind.left = Some(Box::new(output));
        }
    }

    /// Before a node is ended on purpose: has all its commands stop, and fetches what those in the
    /// background have written, as far as that takes no longer than `longest`. The one in the
    /// foreground is told at once that the node `why` ("was killed").
    pub async fn rescue(&self, why: &str, longest: Duration) {
        let deadline = Instant::now() + longest;
        let left = || deadline.saturating_duration_since(Instant::now());
        for behind in self.shared.behind().values() {
            self.request(Request::Signal { process: behind.process, signal: "STOP" });
        }
        self.request(Request::Cut { why: why.to_owned() });
        for (number, file) in self.background_outputs() {
            let options = RunOptions { timeout: left(), queue: left(), ..RunOptions::default() };
            let fetch = format!("cat {}", file.display());
            let fetched = tokio::time::timeout(left(), self.run(&fetch, &options)).await;
            if let Ok(Ok(finished)) = fetched
                && finished.status == 0
            {
                self.leave_output(number, Cursor::new(finished.output.bytes));
            }
        }
    }

    /// Forgets a background command; gives what was rescued of its output.
    pub(super) fn take_left_behind(&self, number: u32) -> Option<Box<dyn Read + Send>> {
        self.shared.behind().remove(&number)?.left
    }

    async fn begin(
        &self,
        text: &str,
        options: &RunOptions,
        background: bool,
        at_once: bool,
    ) -> Result<(Running, oneshot::Receiver<()>), CommandError> {
        let (node, command) = (self.node().to_owned(), brief(text));
        if text.contains('\0') {
            return Err(CommandError::Nul { node, command });
        }
        if text.len() > COMMAND_BYTES {
            return Err(CommandError::TooLong {
                node,
                command,
                bytes: text.len(),
                limit: COMMAND_BYTES,
            });
        }
        let permit = Arc::clone(&self.shared.slot).acquire_owned();
        let Ok(permit) = tokio::time::timeout(options.queue, permit).await else {
            return Err(CommandError::Busy { node, command, waited: options.queue });
        };
        let permit = permit.map_err(|_| self.lost_error(text, None))?;
        let (armed, when_armed) = oneshot::channel();
        let (started, when_started) = oneshot::channel();
        let (finished, when_finished) = oneshot::channel();
        let token = self.shared.next_token.fetch_add(1, Ordering::Relaxed);
        let collector = collector(self.node(), text, options)?;
        let sink = Box::new(Sink::new(armed, started, finished, collector, permit));
        let start = Start {
            text: text.to_owned(),
            background,
            at_once,
            timeout: (!background).then_some(options.timeout),
        };
        // If the driver is gone, so are the sinks, and the receivers say so.
        self.request(Request::Start { token, start, sink });
        let running = Running {
            shell: self.clone(),
            text: text.to_owned(),
            token,
            started: Some(when_started),
            finished: Some(when_finished),
            start: None,
        };
        Ok((running, when_armed))
    }

    pub(super) fn request(&self, request: Request) {
        // A driver that is gone has published why.
        let _ = self.requests.send(request);
    }

    /// The process that runs the guest, if it can be held at a start line.
    pub(super) fn emulator(&self) -> Option<u32> {
        self.shared.emulator
    }

    /// Writes the releasing byte now, if the stream takes it.
    pub(super) fn write_release(&self, line: Option<&Arc<StartLine>>) -> bool {
        self.shared.write_release(line)
    }

    pub(super) fn background_end(&self, number: u32) -> Option<(u8, Instant)> {
        self.status.borrow().background_ends.get(&number).copied()
    }

    pub(super) async fn wait_background_end(&self, number: u32, longest: Duration) {
        let mut status = self.status.clone();
        let ended =
            status.wait_for(|s| s.lost.is_some() || s.background_ends.contains_key(&number));
        // Late or gone: the caller looks again.
        let _ = tokio::time::timeout(longest, ended).await;
    }

    pub(super) fn lost_error(&self, text: &str, cut: Option<Cut>) -> CommandError {
        let (node, command, cut) = (self.node().to_owned(), brief(text), cut.map(Box::new));
        let (lost, ending) = {
            let status = self.status.borrow();
            (status.lost.clone(), status.ending.clone())
        };
        match (lost, ending) {
            (Some(Lost::Ended { why }), _) | (None, Some(why)) => {
                CommandError::NodeEnded { node, command, why, ran: cut.is_some(), cut }
            }
            (lost, _) => {
                let (cause, console) = (lost.unwrap_or(Lost::Closed), self.console.last_lines());
                CommandError::Lost { node, command, cause, console, cut }
            }
        }
    }

    pub(super) fn silent_error(&self, text: &str, while_: &'static str) -> CommandError {
        CommandError::Lost {
            node: self.node().to_owned(),
            command: brief(text),
            cause: Lost::Silent { while_ },
            console: self.console.last_lines(),
            cut: None,
        }
    }
}
