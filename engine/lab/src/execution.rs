//! One topology with parameters, run to its end, and what came out of it.
//!
//! Purpose: the one place that starts runs for somebody else than a person. A simulation runs on the
//! calling thread ([`simulate`]); a run against the wall clock is a process of its own
//! ([`run_process`]), so that nothing of it can harm another run or the caller. Both leave an ordinary
//! run directory and give an [`Ended`].
//!
//! Assumes that `program` is `tapestry` itself.

use std::io::Read;
use std::os::fd::AsFd;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tapestry_topologies::plan::Time;
use tapestry_topologies::resolved::Topology;

use crate::event::Silent;
use crate::lab::{CaptureTarget, Captures, LabOptions};
use crate::results::{Outcome, Results};
use crate::run::RunSpec;
use crate::rundir::RunDir;
use crate::virtual_time;

/// What to run.
#[derive(Debug, Clone)]
pub struct Request {
    /// The topology file.
    pub topology: PathBuf,
    /// Parameters, as `--set` takes them.
    pub sets: Vec<(String, String)>,
    /// Root of its random streams.
    pub seed: u64,
    /// The run directory; must be new or empty.
    pub directory: PathBuf,
    /// Longest time by the wall clock.
    pub time_limit: Duration,
    /// Bytes of each frame that captures of all links keep; nothing is captured without.
    pub snap_length: Option<usize>,
    /// Whether the run directory is removed as soon as the run has ended; a simulation does not wait for
    /// the disk then.
    pub is_passing: bool,
}

/// How a run ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ending {
    /// By itself; `results.json` tells how.
    Completed,
    /// It took longer than its time limit and was ended, during this task if it was in one.
    TimedOut(Option<String>),
    /// Somebody asked for the end.
    Interrupted,
    /// It left no results; why, as far as it could be seen.
    Crashed(String),
}

/// What came of a run.
#[derive(Debug)]
pub struct Ended {
    /// How it ended.
    pub ending: Ending,
    /// Its results; there are none if it crashed, and may be none if it was ended.
    pub results: Option<Results>,
    /// How long it took.
    pub lasted: Duration,
}

impl Ended {
    /// Of a run that could not be tried.
    pub fn crashed(why: impl Into<String>) -> Self {
        Self { ending: Ending::Crashed(why.into()), results: None, lasted: Duration::ZERO }
    }

    /// What it showed: as its results say where it ended by itself, else `Failed`, or `Interrupted` where
    /// somebody asked for the end.
    pub fn outcome(&self) -> Outcome {
        match (&self.ending, &self.results) {
            (Ending::Interrupted, _) => Outcome::Interrupted,
            (Ending::Completed, Some(results)) => results.outcome,
            _ => Outcome::Failed,
        }
    }
}

/// Bytes of each frame that captures of tests keep: all headers.
pub const TEST_SNAP_LENGTH: usize = 256;

/// Virtual time where all nodes are in-process, else real time.
pub fn natural_time(topology: &Topology) -> Time {
    if topology.nodes.iter().any(|node| node.kind.is_external()) {
        Time::Realtime
    } else {
        Time::Virtual
    }
}

/// The command that repeats a run, for people.
pub fn command_line(request: &Request, time: Time) -> Vec<String> {
    let mut words = vec!["tapestry".to_owned(), "run".to_owned()];
    words.push(request.topology.display().to_string());
    words.extend(arguments(request, time));
    words
}

/// Words as one line that a shell reads back.
pub fn shell_words(words: &[String]) -> String {
    words.iter().map(|word| shell_word(word)).collect::<Vec<_>>().join(" ")
}

/// A word as a shell reads it back.
pub fn shell_word(text: &str) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "-_./=:,+@%".contains(c);
    if !text.is_empty() && text.chars().all(is_plain) {
        text.to_owned()
    } else {
        format!("'{}'", text.replace('\'', "'\\''"))
    }
}

fn arguments(request: &Request, time: Time) -> Vec<String> {
    let mut words = Vec::new();
    for (name, value) in &request.sets {
        words.extend(["--set".to_owned(), format!("{name}={value}")]);
    }
    if time == Time::Virtual {
        words.extend(["--time".to_owned(), "virtual".to_owned()]);
    }
    words.extend(["--seed".to_owned(), request.seed.to_string()]);
    if let Some(bytes) = request.snap_length {
        words.extend(["--capture", "all", "--snap-length", &bytes.to_string()].map(str::to_owned));
    }
    words.extend(["--out".to_owned(), request.directory.display().to_string()]);
    words
}

/// Simulates on this thread. `runtime` must be one of the current thread alone.
pub fn simulate(request: &Request, runtime: &tokio::runtime::Runtime) -> Ended {
    let begun = Instant::now();
    let ended = |ending, results| Ended { ending, results, lasted: begun.elapsed() };
    let crashed = |why: String| ended(Ending::Crashed(why), None);
    let topology = match tapestry_topologies::load(&request.topology, &request.sets) {
        Ok(topology) => topology,
        Err(wrong) => return crashed(wrong.to_string()),
    };
    let dir = match RunDir::create(Some(&request.directory), &topology.name) {
        Ok(dir) if request.is_passing => dir.passing(),
        Ok(dir) => dir,
        Err(error) => return crashed(error.to_string()),
    };
    let spec = RunSpec {
        topology,
        file: request.topology.display().to_string(),
        command: command_line(request, Time::Virtual),
        options: LabOptions {
            seed: Some(request.seed),
            captures: request.snap_length.map_or_else(Captures::default, |snap_length| Captures {
                targets: vec![CaptureTarget::All],
                snap_length,
                ..Captures::default()
            }),
            ..LabOptions::default()
        },
    };
    let run = async {
        tokio::time::timeout(request.time_limit, virtual_time::run(spec, dir, Box::new(Silent)))
            .await
    };
    // A model that breaks ends its run, not the others.
    let done = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| runtime.block_on(run)));
    match done {
        Ok(Ok(Ok(results))) if results.outcome == Outcome::Interrupted => {
            ended(Ending::Interrupted, Some(results))
        }
        Ok(Ok(Ok(results))) => ended(Ending::Completed, Some(results)),
        Ok(Ok(Err(error))) => crashed(error.to_string()),
        Ok(Err(_)) => ended(Ending::TimedOut(task_under_way(&request.directory)), None),
        Err(_) => crashed("the simulation panicked; its message is on standard error".to_owned()),
    }
}

/// How long a run may take to end after it was asked to.
const GRACE: Duration = Duration::from_secs(15);
/// How much of what a run says on standard error is kept.
const SAID: usize = 16 << 10;
/// A look at `stop` at least this often.
const LOOK: Duration = Duration::from_millis(100);

/// Runs as a process of its own and waits for its end; `stop` ends it early.
///
/// The process dies with the calling thread, which must therefore outlive this call anyway.
pub fn run_process(program: &Path, request: &Request, stop: &AtomicBool) -> Ended {
    let begun = Instant::now();
    let mut command = Command::new(program);
    command
        .arg("run")
        .arg(&request.topology)
        .args(arguments(request, Time::Realtime))
        .args(["--quiet", "--end-with-parent", &std::process::id().to_string()])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        // Ctrl-C is for the caller, which decides what becomes of its runs.
        .process_group(0);
    let mut child = match command.spawn() {
        Ok(child) => child,
        Err(error) => {
            let why = format!("cannot start {}: {error}", program.display());
            return Ended { ending: Ending::Crashed(why), results: None, lasted: begun.elapsed() };
        }
    };
    let (status, asked, said) = attend(&mut child, begun + request.time_limit, request, stop);
    let results = read_results(&request.directory);
    let ending = match (asked, &results) {
        (Some(ending), _) => ending,
        (None, Some(results)) if results.outcome == Outcome::Interrupted => Ending::Interrupted,
        (None, Some(_)) => Ending::Completed,
        (None, None) => Ending::Crashed(last_words(status, &said)),
    };
    Ended { ending, results, lasted: begun.elapsed() }
}

/// The task that a run is in, as its events tell.
fn task_under_way(directory: &Path) -> Option<String> {
    let text = std::fs::read_to_string(directory.join("events.jsonl")).ok()?;
    let mut under_way = None;
    for line in text.lines() {
        // The last line may be half written.
        let Ok(event) = serde_json::from_str::<serde_json::Value>(line) else { continue };
        match event["event"].as_str() {
            Some("task-started") => under_way = event["task"].as_str().map(str::to_owned),
            Some("task-ended") => under_way = None,
            _ => {}
        }
    }
    under_way
}

/// The results that a run directory holds.
pub fn read_results(directory: &Path) -> Option<Results> {
    serde_json::from_slice(&std::fs::read(directory.join("results.json")).ok()?).ok()
}

/// Waits for a process; says why it was asked to end, if it was, and what it said.
fn attend(
    child: &mut Child,
    deadline: Instant,
    request: &Request,
    stop: &AtomicBool,
) -> (Option<ExitStatus>, Option<Ending>, Vec<u8>) {
    let mut said = Vec::new();
    let mut stderr = child.stderr.take();
    if let Some(stderr) = &stderr {
        // Reading goes on as long as there is something, and never waits.
        let _ = fcntl(stderr, FcntlArg::F_SETFL(OFlag::O_NONBLOCK));
    }
    let pid = i32::try_from(child.id()).map(Pid::from_raw);
    let send = |signal| pid.map(|pid| kill(pid, signal));
    let mut asked: Option<(Ending, Instant)> = None;
    loop {
        // End of file comes with the end of the process: that wakes us at once.
        match &mut stderr {
            Some(pipe) => {
                let mut wait = [PollFd::new(pipe.as_fd(), PollFlags::POLLIN)];
                let timeout = PollTimeout::try_from(LOOK).unwrap_or(PollTimeout::ZERO);
                let _ = poll(&mut wait, timeout);
                if drain(pipe, &mut said) {
                    stderr = None;
                }
            }
            None => std::thread::sleep(Duration::from_millis(1)),
        }
        if let Ok(Some(status)) = child.try_wait() {
            return (Some(status), asked.map(|(ending, _)| ending), said);
        }
        let now = Instant::now();
        let reason = if asked.is_some() {
            None
        } else if stop.load(Ordering::Relaxed) {
            Some(Ending::Interrupted)
        } else if now >= deadline {
            // Asked now: a run that is ended ends its tasks, too.
            Some(Ending::TimedOut(task_under_way(&request.directory)))
        } else {
            None
        };
        match (&asked, reason) {
            (None, Some(reason)) => {
                let _ = send(Signal::SIGTERM);
                asked = Some((reason, now));
            }
            (Some((_, since)), _) if now.duration_since(*since) > GRACE => {
                let _ = child.kill();
                let status = child.wait().ok();
                return (status, asked.map(|(ending, _)| ending), said);
            }
            _ => {}
        }
    }
}

/// Reads what there is; whether the other end is closed.
fn drain(pipe: &mut impl Read, said: &mut Vec<u8>) -> bool {
    let mut buffer = [0; 4096];
    loop {
        match pipe.read(&mut buffer) {
            Ok(0) => return true,
            Ok(length) => {
                said.extend_from_slice(&buffer[..length]);
                let excess = said.len().saturating_sub(SAID);
                said.drain(..excess);
            }
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(error) => return error.kind() != std::io::ErrorKind::WouldBlock,
        }
    }
}

/// Why a process left no results.
fn last_words(status: Option<ExitStatus>, said: &[u8]) -> String {
    let said = String::from_utf8_lossy(said);
    let said = said.trim();
    let ended = match status {
        Some(status) => match (status.code(), status.signal()) {
            (Some(code), _) => format!("exit status {code}"),
            (None, Some(signal)) => format!("ended by signal {signal}"),
            (None, None) => "ended".to_owned(),
        },
        None => "ended".to_owned(),
    };
    if said.is_empty() { ended } else { format!("{ended}: {said}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_come_back_from_a_shell_as_they_were() {
        assert_eq!(shell_word("a/b-c.yaml"), "a/b-c.yaml");
        assert_eq!(shell_word(""), "''");
        let words = ["it's", "a b; $(x)", "--set", "k=v", "\\n"].map(str::to_owned);
        let line = format!("printf '%s\\n' {}", shell_words(&words));
        let said = std::process::Command::new("sh").args(["-c", &line]).output().expect("sh runs");
        assert_eq!(String::from_utf8_lossy(&said.stdout).lines().collect::<Vec<_>>(), words);
    }
}
