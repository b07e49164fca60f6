//! Makes the runs of a campaign.
//!
//! Purpose: one dispatcher (the calling thread) and as many executing threads as runs may go on side
//! by side. The dispatcher alone touches the schedule and the store; a run counts when it is in the
//! store.
//!
//! Simulations do not disturb each other: as many as asked for go on side by side. Runs against the
//! wall clock do, so company that makes a verdict worse is reduced, one run at a time, and what it
//! made invalid is repeated.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime};

use crossbeam_channel::{Receiver, Sender};
use tapestry_lab::Interruption;
use tapestry_lab::results::Results;
use tapestry_lab::rundir::rfc3339;
use tapestry_lab::verdict::Trust;
use tapestry_topologies::plan::{Keep, Plan, Time};
use tokio::sync::mpsc;

use crate::campaign::{Campaign, CampaignError, RUNS};
use crate::capacity;
use crate::design::{self, Job, Purpose};
use crate::schedule::{Outcome, Schedule};
use crate::standing::{self, remember};
use crate::store::{Record, Run, State, Store, StoreError, UNMET, disk_is_full, wrong};
use tapestry_lab::execution::{Ended, Ending, Request, run_process, simulate};

/// How a campaign is run.
#[derive(Debug, Clone)]
pub struct Options {
    /// Most runs side by side.
    pub jobs: usize,
    /// `tapestry`, for runs that need a process of their own.
    pub program: PathBuf,
    /// The command line, for the store.
    pub command: Vec<String>,
}

/// What a campaign tells while it goes on.
#[derive(Debug)]
pub enum News<'a> {
    /// It begins, with so many runs to make at most.
    Begun {
        /// Runs of earlier sessions.
        done: usize,
        /// Runs to make, at most.
        remaining: usize,
    },
    /// A run ended.
    Ended {
        /// Its point.
        point: &'a str,
        /// What it is worth.
        state: State,
        /// Why, where that is not plain.
        reason: Option<&'a str>,
        /// Whether it will be repeated.
        again: bool,
        /// How many runs are left, at most.
        remaining: usize,
        /// How long they will take, seconds, once every point was tried.
        left_seconds: Option<f64>,
    },
    /// Fewer runs go on side by side from now on.
    FellBack {
        /// How many.
        jobs: usize,
        /// Why.
        reason: &'a str,
    },
    /// It was asked to end.
    Interrupted(&'a str),
}

/// How it went, earlier sessions included.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Summary {
    /// Runs whose metrics count.
    pub counted: usize,
    /// Of these, runs of which an expectation does not hold.
    pub unmet: usize,
    /// Expectations that do not hold, and in how many of these runs.
    pub expectations: BTreeMap<String, usize>,
    /// What is to be said of a stop rule that was not reached.
    pub unreached: Option<String>,
    /// Runs that failed or took too long.
    pub failed: usize,
    /// Replicates without any run that could be trusted.
    pub lacking: usize,
    /// Whether it was interrupted: there is more to do.
    pub interrupted: bool,
}

impl Summary {
    /// Exit status of the program.
    pub fn exit_status(&self) -> u8 {
        if self.interrupted {
            130
        } else if self.lacking > 0 {
            3
        } else {
            u8::from(self.failed + self.unmet > 0)
        }
    }
}

/// A job on its way to a thread.
struct Order {
    id: u64,
    request: Request,
}

/// What came back.
struct Report {
    id: u64,
    started: SystemTime,
    ended: Ended,
    /// Whether anything of the run directory is left.
    kept: bool,
    /// Whether the disk was full, which may be why the run went wrong.
    disk_was_full: bool,
}

/// A run under way.
struct Going {
    id: u64,
    job: Job,
    seed: u64,
    /// Most others at the same time.
    beside: usize,
    /// How many were allowed side by side when it began.
    allowed: usize,
}

/// Makes all runs that are not in the store yet. `news` is told what happens, on this thread.
pub fn run(
    campaign: &mut Campaign,
    options: &Options,
    news: &mut dyn FnMut(&News<'_>),
) -> Result<Summary, CampaignError> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|source| CampaignError::File { path: campaign.directory.clone(), source })?;
    let (order, orders) = crossbeam_channel::unbounded();
    let (report, reports) = mpsc::unbounded_channel();
    let stop = Arc::new(AtomicBool::new(false));
    let plan = campaign.prepared.plan.clone();
    std::thread::scope(|scope| {
        for _ in 0..options.jobs.max(1) {
            let (orders, report) = (orders.clone(), report.clone());
            let (plan, options, stop) = (&plan, options, Arc::clone(&stop));
            scope.spawn(move || execute(plan, options, &stop, &orders, &report));
        }
        drop(report);
        let dispatcher = Dispatcher { campaign, options, plan: &plan, order, stop: &stop };
        let done = runtime.block_on(dispatcher.run(reports, news));
        // Whatever ended this, no run goes on behind it.
        stop.store(true, Ordering::Relaxed);
        done
    })
}

/// The work of one thread.
fn execute(
    plan: &Plan,
    options: &Options,
    stop: &AtomicBool,
    orders: &Receiver<Order>,
    report: &mpsc::UnboundedSender<Report>,
) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    for order in orders {
        let started = SystemTime::now();
        let directory = &order.request.directory;
        let ended = match (&runtime, left_over(directory)) {
            (_, Err(why)) => Ended::crashed(why),
            (Err(error), _) => Ended::crashed(format!("no runtime: {error}")),
            (Ok(runtime), Ok(())) => match plan.time {
                _ if stop.load(Ordering::Relaxed) => {
                    Ended { ending: Ending::Interrupted, results: None, lasted: Duration::ZERO }
                }
                Time::Virtual => simulate(&order.request, runtime),
                Time::Realtime => run_process(&options.program, &order.request, stop),
            },
        };
        let went_wrong = State::of(&ended).is_some_and(|state| state != State::Counted);
        // Asked while all that the run wrote is there.
        let disk_was_full = went_wrong && disk_is_full(directory);
        let kept = thin(directory, plan.keep);
        if report.send(Report { id: order.id, started, ended, kept, disk_was_full }).is_err() {
            return;
        }
    }
}

/// Removes what a killed session left of a run.
fn left_over(directory: &Path) -> Result<(), String> {
    match fs::remove_dir_all(directory) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(format!("{}: {error}", directory.display()))
        }
        _ => Ok(()),
    }
}

/// Drops of a run directory what is not to be kept; whether anything is left.
fn thin(directory: &Path, keep: Keep) -> bool {
    match keep {
        Keep::All => {}
        Keep::Thin => {
            for sub in ["console", "outputs", "captures", "kept"] {
                let _ = fs::remove_dir_all(directory.join(sub));
            }
        }
        Keep::None => {
            let _ = fs::remove_dir_all(directory);
        }
    }
    directory.exists()
}

/// The name of a run's directory.
fn name(job: Job) -> String {
    let Job { purpose, point, replicate, attempt } = job;
    let again = if attempt > 0 { format!("-a{attempt}") } else { String::new() };
    match purpose {
        Purpose::WarmUp => format!("warm-up-{replicate}{again}"),
        Purpose::Measure => format!("p{point:05}-r{replicate:05}{again}"),
    }
}

struct Dispatcher<'a> {
    campaign: &'a mut Campaign,
    options: &'a Options,
    plan: &'a Plan,
    order: Sender<Order>,
    stop: &'a AtomicBool,
}

impl Dispatcher<'_> {
    async fn run(
        self,
        mut reports: mpsc::UnboundedReceiver<Report>,
        news: &mut dyn FnMut(&News<'_>),
    ) -> Result<Summary, CampaignError> {
        let Self { campaign, options, plan, order, stop } = self;
        let mut interruption = Interruption::listen();
        let points: Vec<String> = campaign.prepared.points.iter().map(design::describe).collect();
        let mut schedule = Schedule::new(plan, points.len(), options.jobs);
        let done = remember(&campaign.store, plan, &mut schedule)?;
        let store = &mut campaign.store;
        let now = rfc3339(SystemTime::now());
        let session = store.begin_session(&now, &options.command, options.jobs)?;
        news(&News::Begun { done, remaining: schedule.remaining() });

        let mut allowed = options.jobs.max(1);
        let mut going: Vec<Going> = Vec::new();
        let mut next_id = 0;
        let mut interrupted = false;
        let mut lasted = Vec::new();
        loop {
            while !interrupted && going.len() < allowed {
                let Some(job) = schedule.next() else { break };
                let settings = &campaign.prepared.points[job.point];
                let seed = design::seed(plan, job);
                let request = Request {
                    topology: plan.topology.clone(),
                    sets: design::sets(plan, settings),
                    seed,
                    directory: campaign.directory.join(RUNS).join(name(job)),
                    time_limit: Duration::from_nanos(plan.time_limit.as_nanos()),
                    snap_length: None,
                    is_passing: plan.keep == Keep::None,
                };
                next_id += 1;
                let beside = going.len();
                for other in &mut going {
                    other.beside = other.beside.max(beside);
                }
                going.push(Going { id: next_id, job, seed, beside, allowed });
                // The threads live as long as this does.
                let _ = order.send(Order { id: next_id, request });
            }
            if going.is_empty() {
                break;
            }
            let report = tokio::select! {
                Some(report) = reports.recv() => report,
                cause = interruption.next() => {
                    if interrupted {
                        // A second request does not wait: what is under way dies with us.
                        std::process::exit(130);
                    }
                    interrupted = true;
                    stop.store(true, Ordering::Relaxed);
                    news(&News::Interrupted(cause));
                    continue;
                }
            };
            let Some(at) = going.iter().position(|run| run.id == report.id) else { continue };
            let run = going.swap_remove(at);
            let Some(state) = State::of(&report.ended) else {
                schedule.dropped(run.job);
                let _ = fs::remove_dir_all(campaign.directory.join(RUNS).join(name(run.job)));
                // A signal may reach a simulation before it reaches us.
                if !interrupted {
                    interrupted = true;
                    stop.store(true, Ordering::Relaxed);
                    news(&News::Interrupted("interrupted"));
                }
                continue;
            };
            if report.disk_was_full {
                // It never was: on a disk with room it will be made again.
                let _ = fs::remove_dir_all(campaign.directory.join(RUNS).join(name(run.job)));
                return Err(StoreError::Full { path: campaign.directory.clone() }.into());
            }
            lasted.push(report.ended.lasted.as_secs_f64());
            let name = name(run.job);
            let directory = format!("{RUNS}/{name}");
            store.record(&Record {
                session,
                job: run.job,
                seed: run.seed,
                state,
                started: report.started,
                beside: run.beside,
                directory: report.kept.then_some(&directory),
                ended: &report.ended,
            })?;
            let had_company = run.beside > 0 && plan.time == Time::Realtime;
            let outcome = Outcome { state, had_company, value: rule_value(plan, &report.ended) };
            let again = schedule.finished(run.job, outcome);
            let reason = reason(&report.ended);
            news(&News::Ended {
                point: &points[run.job.point],
                state,
                reason: reason.as_deref(),
                again,
                remaining: schedule.remaining(),
                left_seconds: (lasted.len() >= points.len())
                    .then(|| capacity::left_seconds(&lasted, schedule.remaining(), allowed))
                    .flatten(),
            });
            let doubtful = report
                .ended
                .results
                .as_ref()
                .is_some_and(|results| results.verdict.state != Trust::Valid);
            // Runs that began together suffer together; that counts once.
            if had_company
                && (doubtful || state == State::Crashed)
                && run.allowed == allowed
                && allowed > 1
            {
                allowed -= 1;
                let reason = reason.as_deref().unwrap_or("a verdict became worse");
                news(&News::FellBack { jobs: allowed, reason });
            }
        }
        drop(order);
        let interrupted = interrupted && !schedule.is_done();
        store.settle()?;
        summary(store, plan, interrupted)
    }
}

/// The metric that the stop rule looks at.
fn rule_value(plan: &Plan, ended: &Ended) -> Option<f64> {
    let rule = plan.stop.as_ref()?;
    let value = ended.results.as_ref()?.metrics.get(&rule.metric)?.value;
    value.is_finite().then_some(value)
}

/// Why a run is not simply fine.
fn reason(ended: &Ended) -> Option<String> {
    let reasons = |results: &Results| results.verdict.reasons.first().cloned();
    wrong(ended).into_iter().next().or_else(|| ended.results.as_ref().and_then(reasons))
}

fn summary(store: &Store, plan: &Plan, interrupted: bool) -> Result<Summary, CampaignError> {
    let standing = standing::of(store, plan)?;
    let points = store.points()?;
    let mut summary = Summary {
        interrupted,
        unreached: standing.unreached_words(plan, &points),
        ..Summary::default()
    };
    let mut last = BTreeMap::new();
    for run in store.runs()? {
        if run.job.purpose == Purpose::Measure {
            last.insert((run.job.point, run.job.replicate), run);
        }
    }
    debug_assert!(last.len() <= plan.replicates as usize * points.len());
    for run in last.values() {
        match run.state {
            State::Counted => {
                summary.counted += 1;
                summary.unmet += usize::from(run.outcome == "failed");
            }
            State::Failed | State::TimedOut => summary.failed += 1,
            State::Invalid | State::Crashed => summary.lacking += 1,
        }
    }
    summary.expectations = unmet(last.values());
    Ok(summary)
}

/// Expectations that do not hold in runs that count, and in how many.
pub fn unmet<'a>(runs: impl Iterator<Item = &'a Run>) -> BTreeMap<String, usize> {
    let mut found = BTreeMap::new();
    for run in runs.filter(|run| run.counts()) {
        for expectation in run.errors.iter().filter_map(|error| error.strip_prefix(UNMET)) {
            *found.entry(expectation.to_owned()).or_default() += 1;
        }
    }
    found
}
