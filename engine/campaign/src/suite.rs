//! Scenarios as tests: each topology file of a directory is run, and passes, fails, or is inconclusive.
//!
//! Purpose: `tapestry test` and the harness for `cargo test`. A scenario *passes* when its run does, *fails*
//! when a node, a command or an expectation does, and is *inconclusive* when the verdict on the run's own
//! timing is invalid; only then is it tried again, alone. Scenarios whose nodes are all in-process are
//! simulated, the others run in real time, side by side as far as the host carries them.
//!
//! Assumes each scenario is a file of its own. Files and directories whose names begin with `_` or `.` are
//! parts of scenarios, not scenarios.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use parking_lot::{Condvar, Mutex};
use tapestry_lab::execution::{Ended, Request, natural_time, run_process, simulate};
use tapestry_lab::failure;
use tapestry_lab::refuse::{Refusal, first_refusal};
use tapestry_lab::results::Outcome;
use tapestry_topologies::plan::Time;
use tapestry_topologies::resolved::{NodeKind, Topology};
use tapestry_topologies::{Diagnostics, load};

use crate::capacity::GUESTS_PER_CORE;

pub mod formats;

/// A topology file that is a test.
#[derive(Debug, Clone, PartialEq)]
pub struct Scenario {
    /// Its path below the directory that was given, without its extension.
    pub name: String,
    /// The file.
    pub file: PathBuf,
    /// Where its run directory is, below that of the suite: its name; with its extension where others are
    /// in a directory of that name.
    pub place: PathBuf,
    /// Resolved, with the parameters given.
    pub topology: Topology,
    /// How it is run.
    pub time: Time,
}

/// Why there is nothing to run.
#[derive(Debug, thiserror::Error)]
pub enum SuiteError {
    /// A path could not be read.
    #[error("cannot read {}: {source}", path.display())]
    Read {
        /// The path.
        path: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
    /// Nothing matches.
    #[error("no scenario in {}{}", path.display(), filtered(filters))]
    Empty {
        /// Where they were looked for.
        path: PathBuf,
        /// What their names had to contain.
        filters: Vec<String>,
    },
    /// Two files that reports could not tell apart.
    #[error("{} and {} would both be the scenario {name}; rename one", .files[0].display(), .files[1].display())]
    Same {
        /// The name.
        name: String,
        /// The files.
        files: [PathBuf; 2],
    },
    /// This machine cannot run one.
    #[error("scenario {name}: {refusal}")]
    Refused {
        /// The scenario.
        name: String,
        /// Why.
        refusal: Box<Refusal>,
    },
    /// Scenarios with errors, all of them.
    #[error("{} of the scenarios cannot be run", .0.len())]
    Wrong(Vec<Diagnostics>),
}

fn filtered(filters: &[String]) -> String {
    if filters.is_empty() {
        ": it has no file whose name ends in .yaml or .yml and does not begin with `_`".to_owned()
    } else {
        format!(" matches {}; `--list` without words names them", filters.join(" "))
    }
}

/// The scenarios of a directory and those below it, or one file, by name. A word of `filters` must be in
/// the name, one that begins with `!` must not; of several words without `!` one is enough.
pub fn find(
    path: &Path,
    filters: &[String],
    sets: &[(String, String)],
) -> Result<Vec<Scenario>, SuiteError> {
    let mut files = Vec::new();
    let read = |source| SuiteError::Read { path: path.to_owned(), source };
    if fs::metadata(path).map_err(read)?.is_dir() {
        collect(path, &mut Vec::new(), &mut files)?;
    } else {
        files.push(path.to_owned());
    }
    files.sort();
    let placed = files.into_iter().map(|file| {
        let below = file.strip_prefix(path).ok().filter(|below| *below != Path::new(""));
        let below = below.map_or_else(|| file.file_name().map(PathBuf::from), |b| Some(b.into()));
        (below.unwrap_or_default(), file)
    });
    let (mut scenarios, mut wrong) = (Vec::<Scenario>::new(), Vec::new());
    let mut known: BTreeMap<String, PathBuf> = BTreeMap::new();
    for (place, file) in placed {
        let name = place.with_extension("").display().to_string();
        if !matches(&name, filters) {
            continue;
        }
        if let Some(other) = known.insert(name.clone(), file.clone()) {
            return Err(SuiteError::Same { name, files: [other, file] });
        }
        match load(&file, sets) {
            Ok(topology) => {
                let time = natural_time(&topology);
                scenarios.push(Scenario { name, file, place, topology, time });
            }
            Err(diagnostics) => wrong.push(diagnostics),
        }
    }
    if !wrong.is_empty() {
        return Err(SuiteError::Wrong(wrong));
    }
    let directories: BTreeSet<PathBuf> = scenarios
        .iter()
        .flat_map(|scenario| scenario.place.ancestors().skip(1).map(Path::to_owned))
        .collect();
    for scenario in &mut scenarios {
        let name = PathBuf::from(&scenario.name);
        if !directories.contains(&name) {
            scenario.place = name;
        }
    }
    if scenarios.is_empty() {
        return Err(SuiteError::Empty { path: path.to_owned(), filters: filters.to_vec() });
    }
    Ok(scenarios)
}

/// Makes sure that this machine can run all of them.
pub fn check(scenarios: &[Scenario]) -> Result<(), SuiteError> {
    for scenario in scenarios {
        if let Some(refusal) = first_refusal(&scenario.topology, scenario.time) {
            let (name, refusal) = (scenario.name.clone(), Box::new(refusal));
            return Err(SuiteError::Refused { name, refusal });
        }
    }
    Ok(())
}

/// Files below a directory; `above` are those that lead to it, so that links do not lead in circles.
fn collect(
    directory: &Path,
    above: &mut Vec<PathBuf>,
    files: &mut Vec<PathBuf>,
) -> Result<(), SuiteError> {
    let read = |source| SuiteError::Read { path: directory.to_owned(), source };
    let place = fs::canonicalize(directory).map_err(read)?;
    if above.contains(&place) {
        return Ok(());
    }
    above.push(place);
    for entry in fs::read_dir(directory).map_err(read)? {
        let path = entry.map_err(read)?.path();
        let name = path.file_name().map(|name| name.to_string_lossy().into_owned());
        if name.is_none_or(|name| name.starts_with(['_', '.'])) {
            continue;
        }
        if path.is_dir() {
            collect(&path, above, files)?;
        } else if path
            .extension()
            .is_some_and(|extension| extension == "yaml" || extension == "yml")
        {
            files.push(path);
        }
    }
    above.pop();
    Ok(())
}

fn matches(name: &str, filters: &[String]) -> bool {
    let (without, with): (Vec<&String>, Vec<&String>) =
        filters.iter().partition(|filter| filter.starts_with('!'));
    without.iter().all(|filter| !name.contains(&filter[1..]))
        && (with.is_empty() || with.iter().any(|filter| name.contains(filter.as_str())))
}

/// How scenarios are run.
#[derive(Debug, Clone)]
pub struct Settings {
    /// `tapestry` itself.
    pub program: PathBuf,
    /// Parameters, as `--set` takes them.
    pub sets: Vec<(String, String)>,
    /// Root of all random streams.
    pub seed: u64,
    /// Most scenarios at the same time.
    pub jobs: usize,
    /// How often an inconclusive scenario is tried again.
    pub retries: u32,
    /// Longest time of each by the wall clock.
    pub time_limit: Duration,
    /// Where the run directories go, by name.
    pub directory: PathBuf,
    /// Bytes of each frame that captures of all links keep; none without.
    pub snap_length: Option<usize>,
    /// Whether run directories of scenarios that pass are kept, too.
    pub keep: bool,
}

/// What a scenario showed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Shown {
    /// All expectations hold.
    Passed,
    /// A node, a command or an expectation failed.
    Failed,
    /// The run cannot be trusted, each time it was tried.
    Inconclusive,
    /// It was not run to its end: somebody ended the suite.
    NotRun,
}

/// A scenario that was run.
#[derive(Debug, Clone, serde::Serialize)]
pub struct Tested {
    /// The scenario's name.
    pub name: String,
    /// Its file.
    pub file: PathBuf,
    /// What it showed.
    pub outcome: Shown,
    /// How often it was run.
    pub attempts: u32,
    /// How long the last attempt took, seconds.
    pub seconds: f64,
    /// Metrics of the last attempt: name, value and unit.
    pub metrics: Vec<(String, f64, String)>,
    /// What a person needs to know of a scenario that did not pass.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub report: String,
    /// The run directory, if it was kept.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub directory: Option<PathBuf>,
}

/// Runs the scenarios, and tells of each when it has ended. Gives them in their order.
///
/// `stop` ends those under way and leaves out the rest.
pub fn run(
    scenarios: &[Scenario],
    settings: &Settings,
    stop: &AtomicBool,
    news: &(dyn Fn(&Tested) + Sync),
) -> Vec<Tested> {
    let jobs = settings.jobs.clamp(1, scenarios.len().max(1));
    let room = Room { free: Mutex::new(jobs), change: Condvar::new() };
    let next = AtomicUsize::new(0);
    let done: Vec<Mutex<Option<Tested>>> = scenarios.iter().map(|_| Mutex::new(None)).collect();
    std::thread::scope(|scope| {
        for _ in 0..jobs {
            scope.spawn(|| {
                loop {
                    let index = next.fetch_add(1, Ordering::Relaxed);
                    let Some(scenario) = scenarios.get(index) else { return };
                    let share = room.enter(weight(&scenario.topology, settings.jobs).min(jobs));
                    let tested = attempt(scenario, settings, 1, stop);
                    drop(share);
                    // One that may be tried again is news only then.
                    if tested.outcome != Shown::Inconclusive || settings.retries == 0 {
                        news(&tested);
                    }
                    *done[index].lock() = Some(tested);
                }
            });
        }
    });
    let mut all: Vec<Tested> = done.into_iter().filter_map(Mutex::into_inner).collect();
    for (scenario, tested) in scenarios.iter().zip(&mut all) {
        // Alone now: nothing of ours disturbs its timing.
        while tested.outcome == Shown::Inconclusive && tested.attempts <= settings.retries {
            *tested = attempt(scenario, settings, tested.attempts + 1, stop);
            if tested.outcome != Shown::Inconclusive || tested.attempts > settings.retries {
                news(tested);
            }
        }
    }
    all
}

/// How much of the room for jobs a scenario takes: virtual machines need processors.
fn weight(topology: &Topology, jobs: usize) -> usize {
    let guests = topology.nodes.iter().filter(|node| matches!(node.kind, NodeKind::Qemu(_)));
    guests.count().div_ceil(GUESTS_PER_CORE).clamp(1, jobs.max(1))
}

/// Room for jobs.
struct Room {
    free: Mutex<usize>,
    change: Condvar,
}

/// A share of the room, given back when dropped.
struct Share<'a>(&'a Room, usize);

impl Room {
    fn enter(&self, share: usize) -> Share<'_> {
        let mut free = self.free.lock();
        self.change.wait_while(&mut free, |free| *free < share);
        *free -= share;
        Share(self, share)
    }
}

impl Drop for Share<'_> {
    fn drop(&mut self) {
        *self.0.free.lock() += self.1;
        self.0.change.notify_all();
    }
}

fn attempt(scenario: &Scenario, settings: &Settings, number: u32, stop: &AtomicBool) -> Tested {
    let directory = settings.directory.join(&scenario.place);
    let mut tested = Tested {
        name: scenario.name.clone(),
        file: scenario.file.clone(),
        outcome: Shown::NotRun,
        attempts: number,
        seconds: 0.0,
        metrics: Vec::new(),
        report: String::new(),
        directory: None,
    };
    if stop.load(Ordering::Relaxed) {
        return tested;
    }
    // What the attempt before left.
    let _ = fs::remove_dir_all(&directory);
    let request = Request {
        topology: scenario.file.clone(),
        sets: settings.sets.clone(),
        seed: settings.seed,
        directory: directory.clone(),
        time_limit: settings.time_limit,
        snap_length: settings.snap_length,
        is_passing: false,
    };
    let ended = match scenario.time {
        Time::Realtime => run_process(&settings.program, &request, stop),
        Time::Virtual => match tokio::runtime::Builder::new_current_thread().enable_all().build() {
            Ok(runtime) => simulate(&request, &runtime),
            Err(error) => Ended::crashed(format!("no runtime: {error}")),
        },
    };
    tested.seconds = ended.lasted.as_secs_f64();
    if let Some(results) = &ended.results {
        let metrics = results.metrics.iter();
        let metrics = metrics.map(|(name, m)| (name.clone(), m.value, m.unit.clone()));
        tested.metrics = metrics.collect();
    }
    tested.outcome = match ended.outcome() {
        Outcome::Passed => Shown::Passed,
        Outcome::Inconclusive => Shown::Inconclusive,
        Outcome::Failed => Shown::Failed,
        Outcome::Interrupted => Shown::NotRun,
    };
    if tested.outcome == Shown::Passed {
        if !settings.keep {
            let _ = fs::remove_dir_all(&directory);
            // And what held nothing else.
            let above = directory.ancestors().skip(1);
            let above = above.take_while(|above| *above != settings.directory);
            above.map_while(|empty| fs::remove_dir(empty).ok()).for_each(drop);
        }
    } else {
        tested.report = failure::report(&scenario.topology, scenario.time, &request, &ended);
    }
    tested.directory = directory.is_dir().then_some(directory);
    tested
}

/// The exit status of a suite: 1 if one failed, else 3 if one is inconclusive, else 130 if it was ended.
pub fn exit_status(tested: &[Tested]) -> u8 {
    let any = |outcome| tested.iter().any(|tested| tested.outcome == outcome);
    if any(Shown::Failed) {
        1
    } else if any(Shown::NotRun) {
        130
    } else if any(Shown::Inconclusive) {
        3
    } else {
        0
    }
}

#[cfg(test)]
mod tests;
