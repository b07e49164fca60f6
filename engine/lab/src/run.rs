//! A whole run: boot, tasks, metrics, expectations, verdict, results.
//!
//! Whatever happens, `results.json` is written whole: a run that failed or was interrupted says so
//! in its outcome, and holds what is known.

use std::os::unix::net::UnixListener;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use parking_lot::Mutex;
use tapestry_core::SimTime;
use tapestry_guests::qemu;
use tapestry_realtime::FinalReport;
use tapestry_topologies::resolved::{NodeKind, Topology};

use crate::changes::agenda::Agenda;
use crate::course::{Interruption, Known, conclude, tasks, to_json};
use crate::event::{Event, Events, Observer};
use crate::host::{CpuTicks, HostFacts, HostMeter};
use crate::lab::{Lab, LabOptions, prepare};
use crate::results::{Manifest, Outcome, Results, SCHEMA, TaskReport, WallTimes};
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
    known.lock().cut_short(&topology, events.time().elapsed(), &dir);

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
        captures: serde_json::Value::Null,
        notices_skipped: last.map_or(0, |last| last.notices_skipped),
        lateness: to_json(last.map(|last| &last.lateness)),
        pulse: to_json(last.map(|last| &last.pulse)),
        workers: to_json(last.map(|last| &last.workers)),
        virtual_seconds: None,
        host: Some(usage),
        wall: WallTimes { ready_seconds: known.ready_seconds, total_seconds: events.seconds() },
    };
    let captures = final_report.map(|report| report.captures).unwrap_or_default();
    conclude(&mut results, captures, manifest, &events, dir);
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
    manifest.data_plane = started.snapshot().map(|snapshot| {
        let workers = snapshot.workers.iter();
        workers
            .map(|worker| serde_json::json!({ "links": worker.links, "backend": worker.backend }))
            .collect()
    });
    if let Err(error) = dir.write_json("manifest.json", manifest) {
        return fail(error.to_string());
    }
    let lab = lab.insert(started);
    let shared = Shared {
        nodes: Arc::clone(&lab.nodes),
        hosts: lab.hosts.values().map(|host| (host.node().to_owned(), Arc::clone(host))).collect(),
        names: topology.nodes.iter().map(|node| node.name.clone()).collect(),
        status: Box::new(status(lab, events, known)),
        changes: Arc::clone(&lab.changes),
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

    let agenda = Agenda::new(&topology.events);
    let refused = |error: String| known.lock().errors.push(error);
    tokio::select! {
        () = tasks(topology, Tasks::new(lab, dir.path()), events, known, &agenda) => {}
        () = lab.changes.drive(&agenda, refused) => {}
        () = &mut failed => {}
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
    let (time, host, foreign) = (events.time().clone(), HostMeter::start(), lab.is_foreign());
    move || {
        let elapsed = time.elapsed();
        let elapsed_ns = nanoseconds(elapsed);
        let snapshot = snapshots();
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
                unintended: evidence.unintended(),
            }
        });
        let progress = Progress {
            ready: known.ready_seconds.is_some(),
            task: known.current.as_ref().map(|(task, since)| TaskStatus {
                name: task.name.clone(),
                commands: task.commands.len(),
                elapsed_ns: nanoseconds(elapsed.saturating_sub(*since)),
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
            nodes: status::nodes(&topology, &nodes),
            foreign,
            links: snapshot.as_ref().map(status::links).unwrap_or_default(),
            truth,
            host: CpuTicks::now(),
            emulator: usage::of_self(),
        }
    }
}

pub(crate) fn manifest(spec: &RunSpec) -> Manifest {
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
        run: spec.options.run,
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

fn nanoseconds(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

fn wall(time: SimTime) -> Duration {
    Duration::from_nanos(time.as_nanos())
}
