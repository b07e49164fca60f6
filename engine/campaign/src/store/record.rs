//! Writing runs.

use std::time::SystemTime;

use rusqlite::params;
use serde_json::{Value, json};
use tapestry_lab::results::{Outcome, Results, TaskReport};
use tapestry_lab::verdict::Trust;

use super::{Store, StoreError, error, json as to_text};
use crate::design::Job;
use tapestry_lab::execution::{Ended, Ending};

/// What a run is worth.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum State {
    /// Its metrics count: the verdict is valid or degraded, and nothing went wrong.
    Counted,
    /// A node, a command or a metric failed: what it measured is incomplete.
    Failed,
    /// Its timing cannot be trusted.
    Invalid,
    /// It took longer than the plan allows.
    TimedOut,
    /// It left no results.
    Crashed,
}

impl State {
    /// All of them.
    pub const ALL: [Self; 5] =
        [Self::Counted, Self::Failed, Self::Invalid, Self::TimedOut, Self::Crashed];

    /// Of a run that ended; `None` if it was interrupted and so never was.
    pub fn of(ended: &Ended) -> Option<Self> {
        match (&ended.ending, &ended.results) {
            (Ending::Interrupted, _) => None,
            (Ending::TimedOut(_), _) => Some(Self::TimedOut),
            (Ending::Crashed(_), _) | (Ending::Completed, None) => Some(Self::Crashed),
            (Ending::Completed, Some(results)) => Some(match results.verdict.state {
                Trust::Invalid => Self::Invalid,
                _ if results.outcome == Outcome::Inconclusive => Self::Invalid,
                // An expectation that does not hold is a result like any other.
                _ if results.errors.is_empty() => Self::Counted,
                _ => Self::Failed,
            }),
        }
    }

    /// Whether the run is to be repeated.
    pub fn is_repeated(self) -> bool {
        matches!(self, Self::Invalid | Self::Crashed)
    }

    /// The word in the store.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Counted => "counted",
            Self::Failed => "failed",
            Self::Invalid => "invalid",
            Self::TimedOut => "timed-out",
            Self::Crashed => "crashed",
        }
    }

    pub(super) fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|state| state.as_str() == text)
    }
}

/// A run that ended, to be written.
#[derive(Debug)]
pub struct Record<'a> {
    /// The session it belongs to.
    pub session: i64,
    /// Which run of the plan it was.
    pub job: Job,
    /// Its seed.
    pub seed: u64,
    /// What it is worth.
    pub state: State,
    /// When it began.
    pub started: SystemTime,
    /// How many others were under way when it began.
    pub beside: usize,
    /// Its directory relative to the campaign's, if anything of it stays.
    pub directory: Option<&'a str>,
    /// What came of it.
    pub ended: &'a Ended,
}

impl Store {
    /// Writes a run with all that belongs to it, and returns when it is on the disk.
    pub fn record(&mut self, record: &Record<'_>) -> Result<(), StoreError> {
        let path = self.path.clone();
        self.write(record).map_err(|source| error(&path, source))
    }

    fn write(&mut self, record: &Record<'_>) -> rusqlite::Result<()> {
        let results = record.ended.results.as_ref();
        let errors = wrong(record.ended);
        let word = |value: Option<Value>| value.and_then(|v| v.as_str().map(str::to_owned));
        let transaction = self.connection.transaction()?;
        transaction
            .prepare_cached(
                "INSERT INTO runs (session, point, purpose, replicate, attempt, seed, state, verdict,
                     reasons, outcome, errors, started, seconds, ready_seconds, virtual_seconds,
                     lateness_p99_ns, cpu, steal, beside, directory)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17,
                     ?18, ?19, ?20)",
            )?
            .execute(params![
                record.session,
                record.job.point.cast_signed(),
                record.job.purpose.as_str(),
                record.job.replicate,
                record.job.attempt,
                record.seed.cast_signed(),
                record.state.as_str(),
                results.map(|results| results.verdict.state.as_str()),
                to_text(&results.map(|results| results.verdict.reasons.clone()).unwrap_or_default()),
                word(results.and_then(|results| serde_json::to_value(results.outcome).ok())),
                to_text(&errors),
                humantime::format_rfc3339_millis(record.started.max(SystemTime::UNIX_EPOCH)).to_string(),
                record.ended.lasted.as_secs_f64(),
                results.and_then(|results| results.wall.ready_seconds),
                results.and_then(|results| results.virtual_seconds),
                results.and_then(|results| results.lateness["p99_ns"].as_i64()),
                results.and_then(|results| Some(results.host.as_ref()?.cpu)),
                results.and_then(|results| Some(results.host.as_ref()?.steal)),
                record.beside.cast_signed(),
                record.directory,
            ])?;
        let run = transaction.last_insert_rowid();
        if let Some(results) = results {
            let mut metric = transaction.prepare_cached(
                "INSERT INTO metrics (run, name, value, unit) VALUES (?1, ?2, ?3, ?4)",
            )?;
            for (name, value) in &results.metrics {
                let number = Some(value.value).filter(|number| number.is_finite());
                metric.execute(params![run, name, number, value.unit])?;
            }
            let mut task = transaction.prepare_cached(
                "INSERT INTO tasks (run, place, name, state, seconds, start_skew_ns, commands)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
            )?;
            for (place, report) in results.tasks.iter().enumerate() {
                task.execute(params![
                    run,
                    place.cast_signed(),
                    report.name,
                    word(serde_json::to_value(report.state).ok()),
                    report.seconds,
                    report.start_skew_ns.map(u64::cast_signed),
                    commands(report),
                ])?;
            }
            let mut counter = transaction.prepare_cached(
                "INSERT INTO link_counters (run, link, endpoint, counters) VALUES (?1, ?2, ?3, ?4)",
            )?;
            for (link, endpoint, counters) in endpoints(results) {
                counter.execute(params![run, link, endpoint, counters.to_string()])?;
            }
        }
        transaction.commit()
    }
}

/// All that went wrong in a run, what ended it first.
pub(crate) fn wrong(ended: &Ended) -> Vec<String> {
    let mut errors = Vec::new();
    match &ended.ending {
        Ending::Crashed(why) => errors.push(why.clone()),
        Ending::TimedOut(task) => {
            let lasted = ended.lasted.as_secs_f64();
            errors.push(match task {
                Some(task) => {
                    format!("in task {task} when the time limit ended it, after {lasted:.1} s")
                }
                None => format!("in no task when the time limit ended it, after {lasted:.1} s"),
            });
        }
        Ending::Completed | Ending::Interrupted => {}
    }
    let Some(results) = &ended.results else { return errors };
    errors.extend(results.errors.iter().cloned());
    for expectation in results.expectations.iter().filter(|it| it.holds != Some(true)) {
        let task = expectation.task.as_ref().map_or(String::new(), |task| format!("task {task}: "));
        errors.push(format!("{UNMET}{task}{}", expectation.expression));
    }
    errors
}

/// How the words about an expectation that does not hold begin.
pub(crate) const UNMET: &str = "expected ";

/// A task's commands without what they printed.
fn commands(report: &TaskReport) -> String {
    let commands: Vec<Value> = report
        .commands
        .iter()
        .map(|command| {
            json!({
                "name": command.name,
                "node": command.node,
                "status": command.status,
                "seconds": command.seconds,
                "error": command.error,
            })
        })
        .collect();
    Value::from(commands).to_string()
}

/// Link, endpoint and counters of every end of every link.
fn endpoints(results: &Results) -> impl Iterator<Item = (&str, &str, &Value)> {
    let links = results.links.as_array().map(Vec::as_slice).unwrap_or_default();
    links.iter().flat_map(|link| {
        let name = link["name"].as_str().unwrap_or_default();
        let ends = link["endpoints"].as_array().map(Vec::as_slice).unwrap_or_default();
        ends.iter().map(move |end| (name, end["endpoint"].as_str().unwrap_or_default(), end))
    })
}
