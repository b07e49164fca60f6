//! A whole run: boot, tasks, metrics, expectations, verdict, results.
//!
//! Whatever happens, `results.json` is written whole: a run that failed or was interrupted says so
//! in its outcome, and holds what is known.

use std::os::unix::net::UnixListener;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use indexmap::IndexMap;
use parking_lot::Mutex;
use tapestry_core::SimTime;
use tapestry_guests::qemu;
use tapestry_realtime::{FinalReport, Snapshot};
use tapestry_topologies::expression::{self, Scope, Value};
use tapestry_topologies::resolved::{Expectation, NodeKind, Task, Topology};
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::event::{Event, Events, Observer};
use crate::host::{CpuTicks, HostFacts, HostMeter};
use crate::lab::{Lab, LabOptions, prepare};
use crate::results::{
    ExpectationReport, Manifest, MetricValue, Outcome, Results, SCHEMA, TaskReport, WallTimes,
};
use crate::rundir::{RunDir, RunDirError, rfc3339};
use crate::server::{self, Shared};
use crate::status::{self, Progress, Status, TaskStatus, Truth};
use crate::tasks::Tasks;
use crate::usage;
use crate::verdict::{Evidence, Trust, judge};

/// What to run and how.
pub struct RunSpec {
    /// The resolved topology.
    pub topology: Topology,
    /// The topology file, as the user named it.
    pub file: String,
    /// The command line, for the manifest.
    pub command: Vec<String>,
    /// How to run it.
    pub options: LabOptions,
}

/// What a run has come to know, at any time.
#[derive(Default)]
struct Known {
    errors: Vec<String>,
    tasks: Vec<TaskReport>,
    metrics: IndexMap<String, MetricValue>,
    expectations: Vec<ExpectationReport>,
    ready_seconds: Option<f64>,
    /// The task that runs and when it began, for `tapestry top`.
    current: Option<(Task, Instant)>,
    /// What the data plane had counted when measuring began.
    baseline: Option<Snapshot>,
    /// Reads the host's share since measuring began.
    host: Option<HostMeter>,
}

impl Known {
    /// Notes the task that was under way when the run was ended, and those that it did not come to.
    fn cut_short(&mut self, topology: &Topology) {
        if let Some((task, begun)) = self.current.take() {
            let nodes = topology.nodes.iter().map(|node| node.name.as_str()).collect::<Vec<_>>();
            self.tasks.push(TaskReport::interrupted(&task, begun.elapsed(), &nodes));
        }
        let left = topology.tasks.get(self.tasks.len()..).unwrap_or_default();
        self.tasks.extend(left.iter().map(|task| TaskReport::not_run(&task.name)));
    }
}

/// Runs a topology from start to end. Must be called in the sandbox, inside a tokio runtime.
///
/// Errors are those of the run directory itself; all others are in the results.
pub async fn run(
    spec: RunSpec,
    dir: RunDir,
    listener: UnixListener,
    observer: Box<dyn Observer>,
) -> Result<Results, RunDirError> {
    let events = Events::new(dir.event_log()?, observer);
    let mut manifest = manifest(&spec);
    dir.write_json("manifest.json", &manifest)?;
    events.emit(&Event::RunStarted {
        name: spec.topology.name.clone(),
        directory: dir.path().to_owned(),
        nodes: spec.topology.nodes.len(),
        links: spec.topology.links.len(),
    });

    let topology = Arc::new(spec.topology.clone());
    let host = HostMeter::start();
    let known = Arc::new(Mutex::new(Known::default()));
    let mut lab = None;
    let limit = topology.time_limit.map(wall);
    let mut interruption = Interruption::listen();
    let interrupted = {
        let body = body(&spec, &topology, &dir, &mut manifest, &events, &known, listener, &mut lab);
        let limited = async {
            match limit {
                Some(limit) => tokio::time::sleep(limit).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = body => None,
            cause = interruption.next() => Some(cause),
            () = limited => {
                let limit = topology.time_limit.unwrap_or_default();
                known.lock().errors.push(format!(
                    "the run took longer than its time_limit, {limit}; what is here is partial"
                ));
                None
            }
        }
    };
    if let Some(cause) = &interrupted {
        events.emit(&Event::Interrupted { cause: (*cause).to_owned() });
        // A second request does not wait for guests.
        tokio::spawn(async move {
            interruption.next().await;
            std::process::exit(130);
        });
    }
    known.lock().cut_short(&topology);

    let mut final_report = None;
    let is_foreign = lab.as_ref().is_some_and(Lab::is_foreign);
    if let Some(lab) = &mut lab {
        let not_kept = lab.keep().await;
        known.lock().errors.extend(not_kept);
        final_report = lab.stop().await;
    }
    let known = std::mem::take(&mut *known.lock());
    let nodes = lab.map(|lab| lab.reports).unwrap_or_default();
    // Like the lateness, the host's share is that of the measurement, not of the boot.
    let usage = known.host.as_ref().unwrap_or(&host).usage();

    let last = final_report.as_ref().map(|report: &FinalReport| &report.snapshot);
    let mut evidence = Evidence::new(known.baseline.as_ref(), last, usage.steal);
    let failure = final_report.as_ref().and_then(|report| report.failure.as_ref());
    evidence.fatal.extend(failure.map(ToString::to_string));
    let mut verdict = judge(&evidence, &topology.verdict);
    // A lab that never got ready has failed, unless its timing was the reason.
    let is_inconclusive = verdict.state == Trust::Invalid;
    if known.ready_seconds.is_none() {
        verdict.state = Trust::Invalid;
        verdict.reasons.push("the lab did not get ready: nothing was measured".to_owned());
    }
    if is_foreign {
        let reason = "another program moved the frames; nothing is known of its timing and losses";
        verdict.state = verdict.state.max(Trust::Degraded);
        verdict.reasons.push(reason.to_owned());
    }
    let mut errors = known.errors;
    errors.extend(evidence.fatal);
    let holds = known.expectations.iter().all(|e| e.holds == Some(true));
    let outcome = if interrupted.is_some() {
        Outcome::Interrupted
    } else if is_inconclusive {
        Outcome::Inconclusive
    } else if errors.is_empty() && holds {
        Outcome::Passed
    } else {
        Outcome::Failed
    };
    let mut results = Results {
        schema: SCHEMA,
        name: topology.name.clone(),
        verdict,
        outcome,
        errors,
        nodes,
        tasks: known.tasks,
        metrics: known.metrics,
        expectations: known.expectations,
        links: to_json(final_report.as_ref().map(|report| &report.snapshot.links)),
        notices: to_json(final_report.as_ref().map(|report| &report.snapshot.notices)),
        captures: to_json(final_report.as_ref().map(|report| &report.captures)),
        lateness: to_json(final_report.as_ref().map(|report| &report.snapshot.lateness)),
        host: Some(usage),
        wall: WallTimes { ready_seconds: known.ready_seconds, total_seconds: events.seconds() },
    };
    for capture in final_report.iter().flat_map(|report| &report.captures) {
        if let Some(error) = &capture.error {
            results.errors.push(format!("capture of link {}: {error}", capture.link));
        }
    }
    if let Some(failure) = events.take_failure() {
        results.errors.push(failure.to_string());
        if results.outcome == Outcome::Passed {
            results.outcome = Outcome::Failed;
        }
    }
    let exit = results.outcome.exit_status();
    events.emit(&Event::RunEnded { verdict: results.verdict.state.as_str().to_owned(), exit });
    dir.write_json("results.json", &results)?;
    manifest.ended = Some(rfc3339(SystemTime::now()));
    manifest.exit = Some(exit);
    dir.write_json("manifest.json", &manifest)?;
    dir.release();
    Ok(results)
}

/// Everything up to the last expectation. Whatever it finds goes to `known` at once, so that an
/// interrupted run keeps it.
#[allow(clippy::too_many_arguments)]
async fn body(
    spec: &RunSpec,
    topology: &Arc<Topology>,
    dir: &RunDir,
    manifest: &mut Manifest,
    events: &Events,
    known: &Arc<Mutex<Known>>,
    listener: UnixListener,
    lab: &mut Option<Lab>,
) {
    let fail = |text: String| known.lock().errors.push(text);
    let (prepared, acceleration) = match prepare(topology).await {
        Ok(prepared) => prepared,
        Err(error) => return fail(error.to_string()),
    };
    manifest.acceleration = acceleration;
    let started = Lab::start(Arc::clone(topology), &spec.options, dir.path(), events.clone()).await;
    let (started, assembled) = match started {
        Ok(started) => started,
        Err(error) => return fail(error.to_string()),
    };
    manifest.data_plane = started.snapshot().map(|snapshot| to_json(Some(&snapshot.workers)));
    if let Err(error) = dir.write_json("manifest.json", manifest) {
        return fail(error.to_string());
    }
    let lab = lab.insert(started);
    let shared = Shared {
        nodes: Arc::clone(&lab.nodes),
        names: topology.nodes.iter().map(|node| node.name.clone()).collect(),
        status: Box::new(status(lab, events, known)),
    };
    // A run that is interrupted drops it too, so that nobody waits for answers of a lab that ends.
    let _server = match server::serve(listener, Arc::new(shared)) {
        Ok(server) => server,
        Err(error) => return fail(format!("cannot answer exec and attach: {error}")),
    };

    let failed = lab.failed();
    tokio::pin!(failed);
    let errors = tokio::select! {
        errors = lab.boot(assembled, prepared) => errors,
        // The evidence tells why.
        () = &mut failed => return,
    };
    if !errors.is_empty() {
        let mut known = known.lock();
        known.errors.extend(errors.iter().map(ToString::to_string));
        known.tasks.extend(topology.tasks.iter().map(|task| TaskReport::not_run(&task.name)));
        return;
    }
    known.lock().ready_seconds = Some(events.seconds());
    lab.begin_measuring();
    let baseline = lab.snapshot();
    known.lock().baseline = baseline;
    known.lock().host = Some(HostMeter::start());
    events.emit(&Event::LabReady { seconds: events.seconds() });

    tokio::select! {
        () = tasks(topology, lab, dir, events, known) => {}
        () = &mut failed => {}
    }
}

/// All tasks in order, then what is derived from them.
async fn tasks(
    topology: &Arc<Topology>,
    lab: &Lab,
    dir: &RunDir,
    events: &Events,
    known: &Arc<Mutex<Known>>,
) {
    let mut scope = Scope::new();
    for (name, value) in &topology.params {
        scope.set(name, to_value(value));
    }
    let mut runner = Tasks::new(lab, dir.path());
    let mut broken = false;
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
        events.emit(&Event::TaskStarted {
            task: task.name.clone(),
            commands: task.commands.len(),
            timeout_seconds: task.timeout.as_secs_f64(),
        });
        known.lock().current = Some((task.clone(), Instant::now()));
        let done = runner.run(task).await;
        known.lock().current = None;
        events.emit(&Event::TaskEnded {
            task: task.name.clone(),
            start_skew_ns: done.report.start_skew_ns,
            seconds: done.report.seconds,
            failures: done.errors.clone(),
        });
        broken = !done.errors.is_empty();
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
    for error in runner.finish().await {
        known.lock().errors.push(error);
    }
    let mut known = known.lock();
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

/// Answers how the run is, for `tapestry top`, as long as it lasts.
fn status(
    lab: &Lab,
    events: &Events,
    known: &Arc<Mutex<Known>>,
) -> impl Fn() -> Status + Send + Sync + 'static {
    let (topology, snapshots) = (Arc::clone(lab.topology()), lab.snapshots());
    let (nodes, known) = (Arc::clone(&lab.nodes), Arc::clone(known));
    let (start, host, foreign) = (events.start(), HostMeter::start(), lab.is_foreign());
    move || {
        let elapsed_ns = nanoseconds(start.elapsed());
        let snapshot = snapshots();
        let up = nodes.read().clone();
        let known = known.lock();
        let baseline = known.baseline.as_ref();
        let truth = snapshot.as_ref().zip(baseline).map(|(snapshot, baseline)| {
            let evidence = Evidence::new(Some(baseline), Some(snapshot), host.steal());
            let lateness = &snapshot.lateness;
            Truth {
                verdict: judge(&evidence, &topology.verdict),
                lateness_p50_ns: lateness.p50_ns,
                lateness_p99_ns: lateness.p99_ns,
                lateness_max_ns: lateness.max_ns,
                latest_event: lateness.max_event.clone(),
                offered: evidence.frames_offered,
                unintended: evidence.unintended.iter().map(|(_, frames)| frames).sum(),
            }
        });
        let progress = Progress {
            ready: known.ready_seconds.is_some(),
            task: known.current.as_ref().map(|(task, since)| TaskStatus {
                name: task.name.clone(),
                commands: task.commands.len(),
                elapsed_ns: nanoseconds(since.elapsed()),
                timeout_ns: task.timeout.as_nanos(),
            }),
            tasks_done: known.tasks.len(),
            tasks: topology.tasks.len(),
            errors: known.errors.clone(),
        };
        drop(known);
        Status {
            name: topology.name.clone(),
            elapsed_ns,
            progress,
            nodes: status::nodes(&topology, &up),
            foreign,
            links: snapshot.as_ref().map(status::links).unwrap_or_default(),
            truth,
            host: CpuTicks::now(),
            emulator: usage::of_self(),
        }
    }
}

fn manifest(spec: &RunSpec) -> Manifest {
    let topology = &spec.topology;
    let has_qemu = topology.nodes.iter().any(|node| matches!(node.kind, NodeKind::Qemu(_)));
    let qemu = has_qemu.then(|| match qemu::version(&qemu::program()) {
        Ok(version) => version.to_string(),
        Err(error) => error.to_string(),
    });
    Manifest {
        schema: SCHEMA,
        tapestry: env!("CARGO_PKG_VERSION").to_owned(),
        command: spec.command.clone(),
        file: spec.file.clone(),
        seed: spec.options.seed.unwrap_or(topology.seed),
        time: "realtime".to_owned(),
        sync: spec.options.sync.unwrap_or(topology.sync).to_string(),
        host: HostFacts::read(),
        qemu,
        acceleration: None,
        data_plane: None,
        started: rfc3339(SystemTime::now()),
        ended: None,
        exit: None,
        topology: topology.clone(),
    }
}

/// The signals that end a run. They are listened to from the beginning, so that none is missed
/// between two waits.
struct Interruption([(Option<Signal>, &'static str); 3]);

impl Interruption {
    fn listen() -> Self {
        let listen = |kind| signal(kind).ok();
        Self([
            (listen(SignalKind::interrupt()), "interrupted"),
            (listen(SignalKind::terminate()), "asked to terminate"),
            (listen(SignalKind::hangup()), "the terminal is gone"),
        ])
    }

    /// Waits for the next one; says what happened.
    async fn next(&mut self) -> &'static str {
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

fn nanoseconds(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

fn wall(time: SimTime) -> Duration {
    Duration::from_nanos(time.as_nanos())
}

fn to_json<T: serde::Serialize>(value: Option<&T>) -> serde_json::Value {
    value.and_then(|value| serde_json::to_value(value).ok()).unwrap_or_default()
}
