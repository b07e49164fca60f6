//! Commands as the rest of the program sees them: armed, running, finished; and what can go wrong.

use std::fmt::Write as _;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

use super::driver::Request;
use super::frame::Key;
use super::handle::Shell;
use super::line::StartLine;
use super::machine::Lost;
use super::output::{Collector, Output};

/// How a command is run.
#[derive(Debug, Clone)]
pub struct RunOptions {
    /// Longest time from its start to its end; then its whole session is ended.
    pub timeout: Duration,
    /// Longest time to wait while the node is busy with another command.
    pub queue: Duration,
    /// Bytes of output kept in memory; beyond it the first and the last half are.
    pub output_limit: usize,
    /// File that takes the whole output.
    pub output_file: Option<PathBuf>,
}

impl Default for RunOptions {
    fn default() -> Self {
        Self {
            timeout: Duration::from_mins(1),
            queue: Duration::from_mins(1),
            output_limit: 16 << 20,
            output_file: None,
        }
    }
}

/// A command that has ended.
#[derive(Debug, Clone)]
pub struct Finished {
    /// When its opening frame arrived.
    pub started: Instant,
    /// When its closing frame arrived.
    pub ended: Instant,
    /// Exit status as a shell reports it: 128 + signal for one that a signal ended.
    pub status: u8,
    /// It took too long and was ended.
    pub timed_out: bool,
    /// What it wrote.
    pub output: Output,
}

impl Finished {
    /// The signal that ended the command, by the shells' convention; a program that itself exits
    /// with 129–192 looks the same.
    pub fn signal(&self) -> Option<u8> {
        signal(self.status)
    }
}

/// The signal in an exit status, by the shells' convention.
pub(crate) fn signal(status: u8) -> Option<u8> {
    (129..=192).contains(&status).then(|| status - 128)
}

/// What a command had done when the shell of its node went.
#[derive(Debug)]
pub struct Cut {
    /// When its opening frame had arrived.
    pub started: Instant,
    /// What it had written.
    pub output: Output,
}

/// Why a command has no result.
#[derive(Debug, thiserror::Error)]
pub enum CommandError {
    /// A shell cannot be given a NUL byte.
    #[error("node `{node}`: the command `{command}` contains a NUL byte, which no shell takes")]
    Nul {
        /// The node.
        node: String,
        /// The command's beginning.
        command: String,
    },
    /// The command exceeds what Linux takes as one argument.
    #[error(
        "node `{node}`: the command `{command}` has {bytes} bytes, more than {limit}; put it into a file of the image, or split it"
    )]
    TooLong {
        /// The node.
        node: String,
        /// The command's beginning.
        command: String,
        /// Its length.
        bytes: usize,
        /// The limit.
        limit: usize,
    },
    /// Another command occupied the node all the time.
    #[error(
        "node `{node}` was busy with another command for {:.1} s, so `{command}` was not run; wait for it or raise its timeout",
        waited.as_secs_f64()
    )]
    Busy {
        /// The node.
        node: String,
        /// The command's beginning.
        command: String,
        /// How long was waited.
        waited: Duration,
    },
    /// The output file cannot be made.
    #[error("node `{node}`: cannot write the output of `{command}` to {}: {source}; make the directory writable", path.display())]
    OutputFile {
        /// The node.
        node: String,
        /// The command's beginning.
        command: String,
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
    /// The node was starting anew all the time.
    #[error(
        "node `{node}` was starting anew for {:.1} s, so `{command}` was not run; raise the task's timeout",
        waited.as_secs_f64()
    )]
    Starting {
        /// The node.
        node: String,
        /// The command's beginning.
        command: String,
        /// How long was waited.
        waited: Duration,
    },
    /// The guest has no directory for the output of background commands.
    #[error(
        "node `{node}`: cannot run `{command}` in the background: none of /dev/shm, /run, /tmp and /var/tmp is writable there; mount a tmpfs in `init:`"
    )]
    NoDirectory {
        /// The node.
        node: String,
        /// The command's beginning.
        command: String,
    },
    /// An in-process host did not run it.
    #[error("node `{node}`: no result of `{command}`: {reason}")]
    Host {
        /// The node.
        node: String,
        /// The command.
        command: String,
        /// What happened.
        reason: String,
    },
    /// The node's shell is gone.
    #[error("node `{node}`: no result of `{command}`: {cause}{}", tail(console))]
    Lost {
        /// The node.
        node: String,
        /// The command's beginning.
        command: String,
        /// What happened to the shell.
        cause: Lost,
        /// The last lines of the console.
        console: Vec<String>,
        /// What the command had done by then, if it had started.
        cut: Option<Box<Cut>>,
    },
    /// Somebody ended the node on purpose, or had it start anew.
    #[error("node `{node}` {why} {} `{command}` ran", if *ran { "while" } else { "before" })]
    NodeEnded {
        /// The node.
        node: String,
        /// The command's beginning.
        command: String,
        /// What was done to the node: "was killed".
        why: String,
        /// Whether the command had started.
        ran: bool,
        /// What it had done by then, unless that is known already.
        cut: Option<Box<Cut>>,
    },
    /// What a background command has written could not be fetched from the node.
    #[error("node `{node}`: cannot fetch the output of `{command}`: {why}")]
    Unfetched {
        /// The node.
        node: String,
        /// The command's beginning.
        command: String,
        /// What is in the way.
        why: String,
    },
}

impl CommandError {
    /// Whether somebody ended the command's node on purpose.
    pub fn is_end_of_node(&self) -> bool {
        matches!(self, Self::NodeEnded { .. })
    }

    /// What the command had done when its node's shell went, if it had started.
    pub fn cut(&mut self) -> Option<&mut Cut> {
        match self {
            Self::Lost { cut, .. } | Self::NodeEnded { cut, .. } => cut.as_deref_mut(),
            _ => None,
        }
    }

    /// The same of another command, for whose sake this one was run, since `since`.
    pub(super) fn of(mut self, text: &str, since: Instant) -> Self {
        let mut its = brief(text);
        match &mut self {
            Self::Busy { node, waited, .. } => {
                let why = format!("another command ran for {:.1} s", waited.as_secs_f64());
                return Self::Unfetched { node: std::mem::take(node), command: its, why };
            }
            Self::Lost { command, cut, .. } | Self::NodeEnded { command, cut, .. } => {
                std::mem::swap(command, &mut its);
                *cut = Some(Box::new(Cut { started: since, output: Output::default() }));
                if let Self::NodeEnded { ran, .. } = &mut self {
                    *ran = true;
                }
            }
            Self::OutputFile { command, .. } => std::mem::swap(command, &mut its),
            _ => {}
        }
        self
    }
}

/// The last console lines as the end of a message.
pub(super) fn tail(console: &[String]) -> String {
    let mut text = String::new();
    if !console.is_empty() {
        text.push_str("\nlast lines of its console:");
        for line in console {
            let _ = write!(text, "\n  | {line}");
        }
    }
    text
}

/// The beginning of a command, for messages.
pub(crate) fn brief(text: &str) -> String {
    const CHARS: usize = 60;
    let line = text.trim().lines().next().unwrap_or_default();
    let brief: String = line.chars().take(CHARS).collect();
    if brief.len() < text.trim().len() { format!("{brief}…") } else { brief }
}

/// A command that is delivered and waits for one byte. Dropped, it is not run.
#[derive(Debug)]
pub struct Armed {
    pub(super) inner: Running,
}

impl Armed {
    /// Starts the command: writes the byte before it returns, unless the stream is full.
    pub fn release(self) -> Running {
        let written = self.write(None);
        self.note(written)
    }

    /// The byte alone. To release many, write all bytes first: the notes wake other threads.
    pub(crate) fn write(&self, line: Option<&Arc<StartLine>>) -> bool {
        self.inner.shell.write_release(line)
    }

    /// Whether its guest can be held at a [`StartLine`].
    pub(crate) fn can_be_held(&self) -> bool {
        self.inner.shell.emulator().is_some()
    }

    /// Tells the shell's driver of the release, and whether it still has to write the byte.
    pub(crate) fn note(self, written: bool) -> Running {
        let running = self.inner;
        running.shell.request(Request::Release { token: running.token, written });
        running
    }
}

/// A command on its way. Dropped, its session is ended.
#[derive(Debug)]
pub struct Running {
    pub(super) shell: Shell,
    pub(super) text: String,
    pub(super) token: u64,
    pub(super) started: Option<oneshot::Receiver<Started>>,
    pub(super) finished: Option<oneshot::Receiver<Result<Finished, Cut>>>,
    pub(super) start: Option<Started>,
}

/// What the opening frame told.
#[derive(Debug, Clone, Copy)]
pub(super) struct Started {
    pub(super) at: Instant,
    pub(super) process: u32,
    pub(super) number: u32,
    pub(super) close: Key,
}

impl Running {
    /// When the opening frame arrived; waits for it. Cancel safe.
    pub async fn started(&mut self) -> Result<Instant, CommandError> {
        Ok(self.start().await?.at)
    }

    /// The result; waits for it.
    pub async fn finish(mut self) -> Result<Finished, CommandError> {
        // Taken only when it has spoken: if the caller stops waiting, the drop cancels the command.
        let end = match &mut self.finished {
            Some(receiver) => receiver.await.ok(),
            None => None,
        };
        self.finished = None;
        match end {
            Some(Ok(finished)) => Ok(finished),
            Some(Err(cut)) => Err(self.shell.lost_error(&self.text, Some(cut))),
            None => Err(self.shell.lost_error(&self.text, None)),
        }
    }

    pub(super) async fn start(&mut self) -> Result<Started, CommandError> {
        if let Some(receiver) = &mut self.started {
            let start = receiver.await.ok();
            self.started = None;
            self.start = start;
        }
        self.start.ok_or_else(|| self.shell.lost_error(&self.text, None))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // To a command that has ended, this means nothing.
        if self.finished.is_some() {
            self.shell.request(Request::Cancel { token: self.token });
        }
    }
}

/// Collects the output of a command, into a file too if the options say so.
pub(crate) fn collector(
    node: &str,
    text: &str,
    options: &RunOptions,
) -> Result<Collector, CommandError> {
    let file = options.output_file.as_deref();
    Collector::new(options.output_limit, file).map_err(|source| CommandError::OutputFile {
        node: node.to_owned(),
        command: brief(text),
        path: file.map(PathBuf::from).unwrap_or_default(),
        source,
    })
}
