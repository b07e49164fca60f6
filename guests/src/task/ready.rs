//! Waiting until a background command says that it is ready.

use std::time::{Duration, Instant};

use regex::bytes::{Regex, RegexBuilder};

use super::outcome::TaskError;
use super::seat::SeatBackground;
use crate::shell::RunOptions;

/// How often the guest is asked. Each question costs it a process, so not much oftener.
const PAUSE: Duration = Duration::from_millis(50);
/// Bytes of output at the end of error messages.
const TAIL_BYTES: usize = 200;

/// The expression of `ready:`, with `^` and `$` at lines.
pub fn pattern(command: &str, pattern: &str) -> Result<Regex, TaskError> {
    RegexBuilder::new(pattern).multi_line(true).build().map_err(|source| TaskError::Pattern {
        command: command.to_owned(),
        source: Box::new(source),
    })
}

/// Waits until the output of `background` matches `pattern`, at most until `deadline`.
pub(super) async fn wait(
    name: &str,
    node: &str,
    background: &SeatBackground,
    pattern: &Regex,
    deadline: Instant,
) -> Result<(), TaskError> {
    let options = RunOptions::default();
    let begun = Instant::now();
    let mut output = Vec::new();
    loop {
        // Asked before the output is fetched: what it wrote before its end is then complete.
        let status = background.status();
        let more = background.output(output.len() as u64, &options);
        let more = tokio::time::timeout_at(deadline.into(), more).await;
        match more {
            Ok(more) => output.extend(more?.bytes),
            Err(_late) => {}
        }
        if pattern.is_match(&output) {
            return Ok(());
        }
        let (node, command, pattern) = (node.to_owned(), name.to_owned(), pattern.to_string());
        let tail = &output[output.len().saturating_sub(TAIL_BYTES)..];
        let tail = String::from_utf8_lossy(tail).trim().to_owned();
        if let Some(status) = status {
            return Err(TaskError::EndedEarly { node, command, pattern, status, output: tail });
        }
        if Instant::now() >= deadline {
            return Err(TaskError::NotReady {
                node,
                command,
                pattern,
                after: begun.elapsed(),
                output: tail,
            });
        }
        tokio::time::sleep(PAUSE).await;
    }
}
