//! The course of a run: its tasks in order, the metrics and expectations that follow from them, and
//! how it can be interrupted. The same in real and in virtual time.

use std::time::{Duration, SystemTime};

use indexmap::IndexMap;
use parking_lot::Mutex;
use tapestry_realtime::{CaptureReport, Snapshot};
use tapestry_topologies::expression::{self, Scope, Value};
use tapestry_topologies::resolved::{Expectation, Origin, Task, Topology};
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::changes::agenda::Agenda;
use crate::event::{Event, Events};
use crate::host::HostMeter;
use crate::results::{ExpectationReport, Manifest, MetricValue, Outcome, Results, TaskReport};
use crate::rundir::{RunDir, rfc3339};
use crate::tasks::Executor;

/// What a run has come to know, at any time.
#[derive(Default)]
pub(crate) struct Known {
    pub(crate) errors: Vec<String>,
    pub(crate) tasks: Vec<TaskReport>,
    pub(crate) metrics: IndexMap<String, MetricValue>,
    pub(crate) expectations: Vec<ExpectationReport>,
    pub(crate) ready_seconds: Option<f64>,
    /// The task that runs and the run's time at which it began, for `tapestry top`.
    pub(crate) current: Option<(Task, Duration)>,
    /// What the data plane had counted when measuring began.
    pub(crate) baseline: Option<Snapshot>,
    /// Reads the host's share since measuring began.
    pub(crate) host: Option<HostMeter>,
}

impl Known {
    /// Notes the task that was under way when the run was ended, at this time of it, and those that
    /// it did not come to.
    pub(crate) fn cut_short(&mut self, topology: &Topology, now: Duration, dir: &RunDir) {
        if let Some((task, begun)) = self.current.take() {
            let nodes = topology.nodes.iter().map(|node| node.name.as_str()).collect::<Vec<_>>();
            let lasted = now.saturating_sub(begun);
            self.tasks.push(TaskReport::interrupted(&task, lasted, &nodes, dir.path()));
        }
        let left = topology.tasks.get(self.tasks.len()..).unwrap_or_default();
        self.tasks.extend(left.iter().map(|task| TaskReport::not_run(&task.name)));
    }
}

/// All tasks in order, then what is derived from them.
///
/// Whatever it finds goes to `known` at once, so that an interrupted run keeps it.
pub(crate) async fn tasks(
    topology: &Topology,
    mut runner: impl Executor,
    events: &Events,
    known: &Mutex<Known>,
    agenda: &Agenda,
) {
    let mut scope = Scope::new();
    for (name, value) in &topology.params {
        scope.set(name, to_value(value));
    }
    let mut broken = !happen(&Origin::Lab, agenda, &mut runner, &scope, events, known).await;
    for task in &topology.tasks {
        if broken {
            known.lock().tasks.push(TaskReport::not_run(&task.name));
            continue;
        }
        if let Some(when) = &task.when {
            match condition(when, &scope) {
                Ok(true) => {}
                Ok(false) => {
                    let (task_name, when) = (task.name.clone(), when.clone());
                    events.emit(&Event::TaskSkipped { task: task_name, when });
                    known.lock().tasks.push(TaskReport::not_run(&task.name));
                    continue;
                }
                Err(why) => {
                    known.lock().errors.push(format!("task {}: when {when}: {why}", task.name));
                    broken = true;
                    continue;
                }
            }
        }
        runner.prepare(task).await;
        events.emit(&Event::TaskStarted {
            task: task.name.clone(),
            commands: task.commands.len(),
            timeout_seconds: task.timeout.as_secs_f64(),
        });
        known.lock().current = Some((task.clone(), events.time().elapsed()));
        let during = Origin::During(task.name.clone());
        broken |= !happen(&during, agenda, &mut runner, &scope, events, known).await;
        let done = runner.run(task).await;
        known.lock().current = None;
        events.emit(&Event::TaskEnded {
            task: task.name.clone(),
            start_skew_ns: done.report.start_skew_ns,
            seconds: done.report.seconds,
            failures: done.errors.clone(),
        });
        broken |= !done.errors.is_empty();
        {
            let mut known = known.lock();
            known.errors.extend(done.errors);
            known.tasks.push(done.report);
            for (name, metric) in done.metrics {
                scope.set(&name, Value::Float(metric.value));
                known.metrics.insert(name, metric);
            }
            if !broken {
                check(&task.expect, Some(&task.name), &scope, events, &mut known);
            }
        }
        if !broken {
            let after = Origin::After(task.name.clone());
            broken = !happen(&after, agenda, &mut runner, &scope, events, known).await;
        }
    }
    if !broken {
        runner.drain().await;
    }
    let unplayed = agenda.left();
    if unplayed > 0 && !broken {
        let events_word = if unplayed == 1 { "event" } else { "events" };
        let text =
            format!("{unplayed} planned {events_word} did not happen: the last task ended before");
        events.emit(&Event::Warning { text });
    }
    let left = runner.finish().await;
    let mut known = known.lock();
    for leftover in left {
        known.errors.extend(leftover.error);
        if let Some(task) = known.tasks.iter_mut().find(|task| task.name == leftover.task) {
            task.commands.push(leftover.report);
        }
    }
    for (name, derived) in &topology.metrics {
        match expression::evaluate(&derived.expression, &scope) {
            Ok(value) => match value.as_f64() {
                Some(number) => {
                    scope.set(name, value);
                    let metric = MetricValue { value: number, unit: derived.unit.clone() };
                    known.metrics.insert(name.clone(), metric);
                }
                None => known.errors.push(format!(
                    "metric {name}: `{}` gives {}, not a number",
                    derived.expression,
                    value.type_name()
                )),
            },
            // After a failure the metrics it needs are missing; the failure is the news.
            Err(_) if broken => {}
            Err(error) => known.errors.push(format!("metric {name}: {error}")),
        }
    }
    if !broken {
        check(&topology.expect, None, &scope, events, &mut known);
    }
}

/// Puts what follows from an occasion on the agenda, and waits for what is to happen at once. False
/// if an event's condition has no value.
async fn happen(
    origin: &Origin,
    agenda: &Agenda,
    runner: &mut impl Executor,
    scope: &Scope,
    events: &Events,
    known: &Mutex<Known>,
) -> bool {
    let now = events.time().elapsed().into();
    let errors = agenda.occasion(origin, now, scope);
    runner.settle(agenda, now).await;
    let sound = errors.is_empty();
    known.lock().errors.extend(errors);
    sound
}

fn check(
    expectations: &[Expectation],
    task: Option<&str>,
    scope: &Scope,
    events: &Events,
    known: &mut Known,
) {
    for expectation in expectations {
        let expression = expectation.expression.clone();
        let (holds, error) = match condition(&expression, scope) {
            Ok(holds) => (Some(holds), None),
            Err(why) => (None, Some(why)),
        };
        let task = task.map(str::to_owned);
        if let Some(holds) = holds {
            let (task, expression) = (task.clone(), expression.clone());
            events.emit(&Event::Expectation { task, expression, holds });
        }
        known.expectations.push(ExpectationReport { task, expression, holds, error });
    }
}

fn condition(expression: &str, scope: &Scope) -> Result<bool, String> {
    let value = expression::evaluate(expression, scope).map_err(|error| error.to_string())?;
    value.as_bool().ok_or_else(|| format!("gives {}, not true or false", value.type_name()))
}

fn to_value(value: &serde_json::Value) -> Value {
    match value {
        serde_json::Value::Bool(flag) => Value::Bool(*flag),
        serde_json::Value::Number(number) => match number.as_i64() {
            Some(integer) => Value::Int(integer),
            None => Value::Float(number.as_f64().unwrap_or(f64::NAN)),
        },
        serde_json::Value::String(text) => Value::Text(text.clone()),
        other => Value::Text(other.to_string()),
    }
}

/// Writes what came out, and says so. What cannot be written is an error of the run, whose results
/// the caller still has to show.
pub(crate) fn conclude(
    results: &mut Results,
    mut captures: Vec<CaptureReport>,
    mut manifest: Manifest,
    events: &Events,
    dir: RunDir,
) {
    for capture in &mut captures {
        if let Some(error) = &capture.error {
            results.errors.push(format!("capture of link {}: {error}", capture.link));
        }
        // Relative, so that a run directory can be moved.
        for file in &mut capture.files {
            if let Ok(relative) = file.strip_prefix(dir.path()) {
                *file = relative.to_owned();
            }
        }
    }
    results.captures = to_json(Some(&captures));
    if let Some(failure) = events.take_failure() {
        results.errors.push(failure.to_string());
        if results.outcome == Outcome::Passed {
            results.outcome = Outcome::Failed;
        }
    }
    let exit = results.outcome.exit_status();
    events.emit(&Event::RunEnded { verdict: results.verdict.state.as_str().to_owned(), exit });
    manifest.ended = Some(rfc3339(SystemTime::now()));
    manifest.exit = Some(exit);
    let written = dir
        .write_json("results.json", results)
        .and_then(|()| dir.write_json("manifest.json", &manifest));
    if let Err(error) = written {
        results.errors.push(error.to_string());
        if results.outcome == Outcome::Passed {
            results.outcome = Outcome::Failed;
        }
    }
    dir.release();
}

/// The signals that end a run. They are listened to from the beginning, so that none is missed
/// between two waits.
pub struct Interruption([(Option<Signal>, &'static str); 3]);

impl Interruption {
    /// Starts listening. Must be called inside a tokio runtime.
    pub fn listen() -> Self {
        let listen = |kind| signal(kind).ok();
        Self([
            (listen(SignalKind::interrupt()), "interrupted"),
            (listen(SignalKind::terminate()), "asked to terminate"),
            (listen(SignalKind::hangup()), "the terminal is gone"),
        ])
    }

    /// Waits for the next one; says what happened.
    pub async fn next(&mut self) -> &'static str {
        let signals = self.0.iter_mut().map(|(signal, cause)| {
            Box::pin(async move {
                match signal {
                    Some(signal) => signal.recv().await,
                    None => std::future::pending().await,
                };
                *cause
            })
        });
        futures::future::select_all(signals).await.0
    }
}

pub(crate) fn to_json<T: serde::Serialize>(value: Option<&T>) -> serde_json::Value {
    value.and_then(|value| serde_json::to_value(value).ok()).unwrap_or_default()
}
