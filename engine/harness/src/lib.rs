//! Topologies as tests of a Rust project, from `cargo test`.
//!
//! Purpose: what `tapestry test` is for a directory of files, for a test function. A topology of in-process
//! nodes is simulated in the test's own process: no root, no other program, the same to the last byte each
//! time. Others run in real time by the program `tapestry` (`$TAPESTRY`, else on `$PATH`, else beside the
//! test's `deps/`, where cargo puts programs of the same workspace), one at a time, because runs side by
//! side disturb each other's timing. Where there is none, the test says so and shows nothing.
//!
//! ```no_run
//! #[test]
//! fn files_arrive_over_a_lossy_link() {
//!     let run = tapestry_harness::scenario("topologies/lossy.yaml").set("loss", "3%").run();
//!     if let Some(run) = run.assert_passed() {
//!         assert!(run.metric("retransmissions") > 0.0);
//!     }
//! }
//! ```
//!
//! Assumes the working directory that cargo gives tests: the package's own. Not modelled: tests that run
//! as several processes (`cargo nextest`) do not wait for each other.

#![forbid(unsafe_code)]

use std::fmt::Display;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use parking_lot::Mutex;
use tapestry_lab::execution::{
    Ended, Request, TEST_SNAP_LENGTH, natural_time, run_process, simulate,
};
use tapestry_lab::failure;
use tapestry_lab::results::{Outcome, Results};
use tapestry_lab::verdict::Verdict;
use tapestry_topologies::plan::Time;
use tapestry_topologies::resolved::{NodeKind, Topology};
use tapestry_topologies::{Diagnostics, load};
use tempfile::TempDir;

/// Environment variable that names the program `tapestry`.
pub const PROGRAM: &str = "TAPESTRY";
/// Seed of scenarios that set none: a test is to show the same each time.
const SEED: u64 = 1;

/// A topology file that is to be run as a test.
#[derive(Debug, Clone)]
#[must_use = "nothing happens until it is run"]
pub struct Scenario {
    file: PathBuf,
    sets: Vec<(String, String)>,
    seed: u64,
    retries: u32,
    time_limit: Duration,
}

/// The scenario of a topology file.
pub fn scenario(file: impl Into<PathBuf>) -> Scenario {
    Scenario {
        file: file.into(),
        sets: Vec::new(),
        seed: SEED,
        retries: 2,
        time_limit: Duration::from_mins(10),
    }
}

/// Why a scenario could not be tried at all.
#[derive(Debug, thiserror::Error)]
pub enum HarnessError {
    /// The topology file is wrong.
    #[error("{}{}", .0, problems(.0))]
    Wrong(Diagnostics),
    /// The program that is to run it does not.
    #[error(
        "{} has nodes that are not in-process, and `{}` does not run ({why}): correct ${PROGRAM}, or \
         install tapestry anew",
        file.display(), program.display()
    )]
    BadProgram {
        /// The topology file.
        file: PathBuf,
        /// What was tried.
        program: PathBuf,
        /// What went wrong.
        why: String,
    },
    /// Something of the operating system.
    #[error("cannot prepare the run of {}: {source}", file.display())]
    System {
        /// The topology file.
        file: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
}

/// Each problem on a line of its own.
fn problems(wrong: &Diagnostics) -> String {
    let lines: Vec<String> =
        wrong.problems().iter().map(|problem| format!("\n  {problem}")).collect();
    lines.concat()
}

impl Scenario {
    /// Gives a parameter of the file a value, as `--set` does.
    pub fn set(mut self, name: impl Into<String>, value: impl Display) -> Self {
        self.sets.push((name.into(), value.to_string()));
        self
    }

    /// Another root of all random streams; 1 unless set.
    pub fn seed(mut self, seed: u64) -> Self {
        self.seed = seed;
        self
    }

    /// How often an inconclusive run is tried again; twice unless set. One that failed never is.
    pub fn retries(mut self, retries: u32) -> Self {
        self.retries = retries;
        self
    }

    /// Longest time of a run by the wall clock; 10 minutes unless set.
    pub fn time_limit(mut self, limit: Duration) -> Self {
        self.time_limit = limit;
        self
    }

    /// Runs it; panics with the reason if that cannot even be tried ([`HarnessError`]).
    #[track_caller]
    pub fn run(&self) -> Run {
        self.try_run().unwrap_or_else(|error| panic!("{error}"))
    }

    /// Runs it, again while it is inconclusive.
    pub fn try_run(&self) -> Result<Run, HarnessError> {
        let topology = load(&self.file, &self.sets).map_err(HarnessError::Wrong)?;
        let time = natural_time(&topology);
        let program = match time {
            Time::Virtual => None,
            Time::Realtime => {
                let not_run = |lack| Ok(Run { shown: Shown::NotRun(lack), ..Run::of(&self.file) });
                let Some(program) = program() else { return not_run(no_program()) };
                let unable = |why: String| HarnessError::BadProgram {
                    file: self.file.clone(),
                    program: program.clone(),
                    why,
                };
                if let Some(lack) = lack(&program, &topology).map_err(unable)? {
                    return not_run(lack);
                }
                Some(program)
            }
        };
        let mut attempts = 1;
        loop {
            let run = self.attempt(&topology, program.as_deref())?;
            if run.shown != Shown::Inconclusive || attempts > self.retries {
                return Ok(Run { attempts, ..run });
            }
            attempts += 1;
        }
    }

    /// Runs it once: by `program`, or without one as a simulation.
    fn attempt(&self, topology: &Topology, program: Option<&Path>) -> Result<Run, HarnessError> {
        let system = |source| HarnessError::System { file: self.file.clone(), source };
        let place = tempfile::Builder::new().prefix("tapestry-").tempdir().map_err(system)?;
        let directory = place.path().join(&topology.name);
        let request = Request {
            topology: self.file.clone(),
            sets: self.sets.clone(),
            seed: self.seed,
            directory: directory.clone(),
            time_limit: self.time_limit,
            snap_length: Some(TEST_SNAP_LENGTH),
            is_passing: false,
        };
        let (time, ended) = match program {
            Some(program) => {
                static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());
                let _turn = ONE_AT_A_TIME.lock();
                let ended = run_process(program, &request, &AtomicBool::new(false));
                (Time::Realtime, ended)
            }
            None => (Time::Virtual, simulated(&request).map_err(system)?),
        };
        let shown = match ended.outcome() {
            Outcome::Passed => Shown::Passed,
            Outcome::Inconclusive => Shown::Inconclusive,
            Outcome::Failed | Outcome::Interrupted => Shown::Failed,
        };
        let report = if shown == Shown::Passed {
            String::new()
        } else {
            failure::report(topology, time, &request, &ended)
        };
        let place = Some((place, directory));
        Ok(Run { shown, report, results: ended.results, place, ..Run::of(&self.file) })
    }
}

/// Simulates on a thread of its own: the test's may have a runtime of its own.
fn simulated(request: &Request) -> io::Result<Ended> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    std::thread::scope(|scope| {
        let simulation = scope.spawn(|| simulate(request, &runtime));
        simulation.join().map_err(|_| io::Error::other("the simulation's thread panicked"))
    })
}

/// The program `tapestry`, if there is one.
fn program() -> Option<PathBuf> {
    if let Some(named) = std::env::var_os(PROGRAM) {
        return Some(named.into());
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    let on_path = std::env::split_paths(&path).map(|directory| directory.join("tapestry"));
    on_path.chain(beside_tests()).find(|program| program.is_file())
}

/// Where cargo puts the programs of a workspace whose tests it runs: `target/debug/tapestry` for
/// `target/debug/deps/TEST`.
fn beside_tests() -> Option<PathBuf> {
    let test = std::env::current_exe().ok()?;
    Some(test.parent()?.parent()?.join("tapestry"))
}

fn no_program() -> String {
    let beside =
        beside_tests().map(|path| format!(", nor is it {}", path.display())).unwrap_or_default();
    format!(
        "there is no program tapestry: ${PROGRAM} does not name it, and it is not on $PATH{beside}; \
         install it (`cargo install --path` of Tapestry's repository)"
    )
}

/// What this machine lacks to run a topology in real time, as `tapestry doctor` says.
fn lack(program: &Path, topology: &Topology) -> Result<Option<String>, String> {
    let said =
        Command::new(program).args(["doctor", "--json"]).output().map_err(|e| e.to_string())?;
    let findings: serde_json::Value = serde_json::from_slice(&said.stdout)
        .map_err(|error| format!("its `doctor --json` printed no JSON: {error}"))?;
    let guests = topology.nodes.iter().any(|node| matches!(node.kind, NodeKind::Qemu(_)));
    let spaces = topology.nodes.iter().any(|node| matches!(node.kind, NodeKind::Netns));
    let needs = [("namespaces", true), ("TAP", spaces), ("QEMU", guests)];
    Ok(needs.iter().filter(|(_, needed)| *needed).find_map(|(need, _)| {
        let finding = findings.as_array()?.iter().find(|finding| finding["subject"] == **need)?;
        let text = finding["text"].as_str().unwrap_or_default();
        (finding["health"] == "bad").then(|| format!("{need}: {text}"))
    }))
}

/// What a run showed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Shown {
    /// All expectations hold.
    Passed,
    /// A node, a command or an expectation failed.
    Failed,
    /// The run cannot be trusted, each time it was tried.
    Inconclusive,
    /// This machine cannot run it; what it lacks.
    NotRun(String),
}

/// A scenario that was run.
#[derive(Debug)]
pub struct Run {
    /// What it showed.
    pub shown: Shown,
    /// How often it was run.
    pub attempts: u32,
    /// What a person needs to know of a run that did not pass, as `tapestry test` prints it.
    pub report: String,
    /// All results; there are none if it was not run, or crashed.
    pub results: Option<Results>,
    file: PathBuf,
    /// Gone with the run, unless it is worth a look; the run directory in it.
    place: Option<(TempDir, PathBuf)>,
}

impl Run {
    fn of(file: &Path) -> Self {
        Self {
            shown: Shown::Failed,
            attempts: 0,
            report: String::new(),
            results: None,
            file: file.to_owned(),
            place: None,
        }
    }

    /// Panics with the report unless the run passed, and then keeps the run directory. Where this machine
    /// cannot run it, says so on standard error and gives none.
    #[track_caller]
    pub fn assert_passed(mut self) -> Option<Self> {
        let file = self.file.display();
        match &self.shown {
            Shown::Passed => return Some(self),
            Shown::NotRun(lack) => {
                // Past the capture of `cargo test`, which hides what passing tests print.
                let _ = writeln!(io::stderr(), "{file}: not tested: {lack}");
                return None;
            }
            Shown::Failed | Shown::Inconclusive => {}
        }
        if let Some((place, _)) = self.place.take() {
            let _ = place.keep();
        }
        let what = match &self.shown {
            Shown::Inconclusive => {
                format!("is inconclusive, neither passed nor failed, after {} runs", self.attempts)
            }
            _ => "failed".to_owned(),
        };
        panic!("{file} {what}\n{}", self.report);
    }

    /// The value of a metric, in its unit; panics if there is none of this name.
    #[track_caller]
    pub fn metric(&self, name: &str) -> f64 {
        let metric = self.results.as_ref().and_then(|results| results.metrics.get(name));
        metric.map_or_else(|| panic!("{}: no metric {name}", self.file.display()), |m| m.value)
    }

    /// How far the run's own timing can be trusted; nothing is known of a run without results.
    pub fn verdict(&self) -> Option<&Verdict> {
        self.results.as_ref().map(|results| &results.verdict)
    }

    /// What a command of a task printed; `None` if there is no such command.
    pub fn output(&self, task: &str, command: &str) -> Option<&str> {
        let task = self.results.as_ref()?.tasks.iter().find(|it| it.name == task)?;
        let command = task.commands.iter().find(|it| it.name == command)?;
        Some(&command.output)
    }

    /// The run directory, until the run is dropped.
    pub fn directory(&self) -> Option<&Path> {
        let (_, directory) = self.place.as_ref()?;
        Some(directory)
    }
}

#[cfg(test)]
mod tests;
