//! Commands in the background: ready or not, stopped, and their output, which stays in the guest.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::ops::Range;
use std::path::Path;
use std::time::{Duration, Instant};

use super::agent::BACKGROUND_BYTES;
use super::command::{CommandError, Cut, Finished, RunOptions, Started, collector};
use super::driver::Request;
use super::handle::Shell;
use super::output::Output;

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
        let fetch = format!("tail -c +{} {}", from + 1, self.file);
        let fetched = self.shell.run(&fetch, options).await;
        let mut output = fetched.map_err(|error| error.of(&self.text, self.start.at))?.output;
        if let Some((frame, _)) = self.closing(&output.bytes) {
            output.total -= frame.len() as u64;
            output.bytes.drain(frame);
        }
        Ok(output)
    }

    /// Ends it, with TERM and then KILL, if it has not ended; then fetches all its output.
    ///
    /// `timed_out` of the result is false; a status of 128 + 15 or 128 + 9 is the stop's doing. Where the
    /// node is gone, what was rescued of the output counts.
    pub async fn stop(self, options: &RunOptions) -> Result<Finished, CommandError> {
        let fetched = self.stop_and_fetch(options).await;
        let left = self.shell.take_left_behind(self.start.number);
        match fetched.map_err(|error| error.of(&self.text, self.start.at)) {
            Err(error @ (CommandError::Lost { .. } | CommandError::NodeEnded { .. })) => {
                self.rescued(left, error, options)
            }
            fetched => fetched,
        }
    }

    /// The end of a command whose node is gone: its own, if it had come to it, else `error` with what
    /// it had written.
    fn rescued(
        &self,
        left: Option<Box<dyn Read + Send>>,
        mut error: CommandError,
        options: &RunOptions,
    ) -> Result<Finished, CommandError> {
        let mut bytes = Vec::new();
        if let Some(left) = left {
            // What can be read counts.
            let _ = left.take(2 * BACKGROUND_BYTES).read_to_end(&mut bytes);
        }
        let closing = self.closing(&bytes);
        if let Some((frame, _)) = &closing {
            bytes.drain(frame.clone());
        }
        let mut collector = collector(self.shell.node(), &self.text, options)?;
        collector.push(&bytes);
        let output = collector.finish();
        let end = self.shell.background_end(self.start.number);
        let started = self.start.at;
        if let Some(status) = closing.map(|(_, status)| status).or(end.map(|(status, _)| status)) {
            let ended = end.map_or_else(Instant::now, |(_, at)| at);
            return Ok(Finished { started, ended, status, timed_out: false, output });
        }
        if let CommandError::Lost { cut, .. } | CommandError::NodeEnded { cut, .. } = &mut error {
            *cut = Some(Box::new(Cut { started, output }));
        }
        Err(error)
    }

    async fn stop_and_fetch(&self, options: &RunOptions) -> Result<Finished, CommandError> {
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
