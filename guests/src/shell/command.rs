//! Commands as the rest of the program sees them: armed, running, finished; and what can go wrong.

use std::fmt::Write as _;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

use super::agent::BACKGROUND_BYTES;
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
    },
}

impl CommandError {
    /// Whether somebody ended the command's node on purpose.
    pub fn is_end_of_node(&self) -> bool {
        matches!(self, Self::Lost { cause: Lost::Ended { .. }, .. })
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
pub(super) fn brief(text: &str) -> String {
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
    pub(super) finished: Option<oneshot::Receiver<Finished>>,
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
        let finished = match &mut self.finished {
            Some(receiver) => receiver.await.ok(),
            None => None,
        };
        self.finished = None;
        finished.ok_or_else(|| self.shell.lost_error(&self.text))
    }

    pub(super) async fn start(&mut self) -> Result<Started, CommandError> {
        if let Some(receiver) = &mut self.started {
            let start = receiver.await.ok();
            self.started = None;
            self.start = start;
        }
        self.start.ok_or_else(|| self.shell.lost_error(&self.text))
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

/// From TERM to KILL when a background command is stopped.
const GRACE: Duration = Duration::from_secs(2);
/// How long the end of a killed command, or of its output, may take to show.
const SETTLE: Duration = Duration::from_secs(5);
const PAUSE: Duration = Duration::from_millis(50);

/// A command that goes on behind others; its output stays in the guest until fetched.
#[derive(Debug)]
pub struct Background {
    pub(super) shell: Shell,
    pub(super) text: String,
    pub(super) start: Started,
    pub(super) file: String,
}

impl Background {
    /// When its opening frame arrived.
    pub fn started(&self) -> Instant {
        self.start.at
    }

    /// Its exit status, if it has ended.
    pub fn status(&self) -> Option<u8> {
        self.shell.background_end(self.start.number).map(|end| end.0)
    }

    /// Its output from byte `from` (counted from 0) until now.
    pub async fn output(&self, from: u64, options: &RunOptions) -> Result<Output, CommandError> {
        let text = format!("tail -c +{} {}", from + 1, self.file);
        let mut output = self.shell.run(&text, options).await?.output;
        if let Some((frame, _)) = self.closing(&output.bytes) {
            output.total -= frame.len() as u64;
            output.bytes.drain(frame);
        }
        Ok(output)
    }

    /// Ends it, with TERM and then KILL, if it has not ended; then fetches all its output.
    ///
    /// `timed_out` of the result is false; a status of 128 + 15 or 128 + 9 is the stop's doing.
    pub async fn stop(self, options: &RunOptions) -> Result<Finished, CommandError> {
        for (signal, wait) in [("TERM", GRACE), ("KILL", SETTLE)] {
            if self.status().is_some() {
                break;
            }
            self.shell.request(Request::Signal { process: self.start.process, signal });
            self.shell.wait_background_end(self.start.number, wait).await;
        }
        let fetch = format!("cat {}", self.file);
        // With the last file goes the directory.
        let forget = format!("f={}; rm -f $f; rmdir ${{f%/*}} 2>/dev/null", self.file);
        let deadline = Instant::now() + SETTLE;
        loop {
            let mut finished = self.shell.run(&fetch, options).await?;
            let end = self.shell.background_end(self.start.number);
            let closing = self.closing(&finished.output.bytes);
            let is_cut = finished.output.total >= BACKGROUND_BYTES;
            let status = closing.as_ref().map(|c| c.1).or(end.map(|e| e.0).filter(|_| is_cut));
            if let Some(status) = status {
                if let Some((frame, _)) = closing {
                    finished.output.total -= frame.len() as u64;
                    finished.output.bytes.drain(frame);
                } else {
                    finished.output.is_truncated = true;
                    let note = "\n[… output cut in the guest …]\n";
                    finished.output.bytes.extend_from_slice(note.as_bytes());
                }
                finished.started = self.start.at;
                finished.ended = end.map_or(finished.ended, |e| e.1);
                finished.status = status;
                if let Some(file) = &options.output_file
                    && let Err(error) = self.drop_closing(file)
                {
                    finished.output.file_error = Some(error.to_string());
                }
                // The file of the output is written.
                let options = RunOptions { output_file: None, ..options.clone() };
                self.shell.run(&forget, &options).await?;
                return Ok(finished);
            }
            if Instant::now() >= deadline {
                return Err(self
                    .shell
                    .silent_error(&self.text, "a background command does not end"));
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// Takes the closing frame out of the file with the whole output.
    fn drop_closing(&self, file: &Path) -> io::Result<()> {
        /// More than children of a command write on their way out.
        const TAIL_BYTES: u64 = 1 << 20;
        let mut file = File::options().read(true).write(true).open(file)?;
        let from = file.metadata()?.len().saturating_sub(TAIL_BYTES);
        file.seek(SeekFrom::Start(from))?;
        let mut tail = Vec::new();
        file.read_to_end(&mut tail)?;
        if let Some((frame, _)) = self.closing(&tail) {
            tail.drain(frame);
            file.seek(SeekFrom::Start(from))?;
            file.write_all(&tail)?;
            file.set_len(from + tail.len() as u64)?;
        }
        Ok(())
    }

    /// Where the closing frame is in `bytes`, and the status in it. Behind it may be what children
    /// of the command wrote on their way out.
    fn closing(&self, bytes: &[u8]) -> Option<(Range<usize>, u8)> {
        let head = format!("\x1e{} end ", self.start.close);
        let start = bytes.windows(head.len()).rposition(|w| w == head.as_bytes())?;
        let rest = &bytes[start + head.len()..];
        let digits = rest.iter().position(|byte| *byte == b'\x1f')?;
        let status = std::str::from_utf8(&rest[..digits]).ok()?.parse().ok()?;
        Some((start..start + head.len() + digits + 1, status))
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
