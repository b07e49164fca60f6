//! A whole run in virtual time: a pure simulation of in-process nodes, as fast as the machine can.
//!
//! Purpose: the same topology, tasks, metrics, expectations and files as in real time, without wall
//! clock, namespaces or threads: one thread jumps from event to event. Two runs with the same seed
//! and run number give the same bytes in `results.json` (apart from its objects `wall` and `host`),
//! `events.jsonl`, `outputs/` and `captures/`.
//!
//! Assumes that all nodes are in-process (see [`crate::refuse`]). Node's `init:` commands run at the
//! beginning, one after another. `time_limit` and all timeouts count virtual time.
//!
//! Not modelled: processing time; `exec`, `attach` and `top`, for which a simulation is too fast.

mod changes;
mod simulation;
mod tasks;

use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use parking_lot::Mutex;
use tapestry_core::{SimTime, Streams};
use tapestry_topologies::resolved::Topology;
use tokio::sync::oneshot;

use crate::changes::agenda::Agenda;
use crate::course::{self, Interruption, Known, conclude, to_json};
use crate::event::{Event, Events, Observer};
use crate::host::HostMeter;
use crate::results::{Manifest, NodeReport, Outcome, Results, SCHEMA, TaskReport, WallTimes};
use crate::run::{RunSpec, manifest};
use crate::rundir::{RunDir, RunDirError};
use crate::verdict::{Trust, Verdict};
use changes::Plan;
use simulation::{Halt, Simulation};
use tasks::VirtualTasks;

/// How the simulation itself ended.
enum Ending {
    /// With the last task, or an error of it.
    Done,
    /// A signal ended it.
    Interrupted(&'static str),
    /// It halted.
    Halted(Halt),
}

/// Runs a topology from start to end in virtual time. Must be called inside a tokio runtime, for
/// the sake of signals.
///
/// Errors are those of the run directory itself; all others are in the results.
pub async fn run(
    spec: RunSpec,
    dir: RunDir,
    observer: Box<dyn Observer>,
) -> Result<Results, RunDirError> {
    let now = Arc::new(AtomicU64::new(0));
    let events = Events::in_virtual_time(dir.event_log()?, observer, Arc::clone(&now));
    let manifest = Manifest { time: "virtual".to_owned(), ..manifest(&spec) };
    dir.write_json("manifest.json", &manifest)?;
    let topology = &spec.topology;
    events.emit(&Event::RunStarted {
        name: topology.name.clone(),
        directory: dir.path().to_owned(),
        nodes: topology.nodes.len(),
        links: topology.links.len(),
    });

    let host = HostMeter::start();
    let known = Mutex::new(Known::default());
    let mut interruption = Interruption::listen();
    let (halted, halt) = oneshot::channel();
    let limits = [spec.options.until, topology.time_limit];
    let limit = limits.into_iter().flatten().min();
    let streams = Streams::new(manifest.seed, manifest.run);
    let captures = spec.options.captures.specs(topology, &dir.path().join("captures"));
    let agenda = Arc::new(Agenda::new(&topology.events));
    let plan = Plan::new(topology, Arc::clone(&agenda), events.clone());
    let built = Simulation::build(topology, streams, captures, limit, now, halted, plan);
    let mut simulation = match built {
        Ok(simulation) => Some(simulation),
        Err(error) => {
            known.lock().errors.push(error.to_string());
            None
        }
    };
    let ending = match &mut simulation {
        None => Ending::Done,
        Some(simulation) => tokio::select! {
            biased;
            () = body(simulation, topology, &dir, &events, &known, &agenda) => Ending::Done,
            Ok(halt) = halt => Ending::Halted(halt),
            cause = interruption.next() => Ending::Interrupted(cause),
        },
    };
    let mut verdict = Verdict { state: Trust::Valid, reasons: Vec::new() };
    match &ending {
        Ending::Done => {}
        Ending::Interrupted(cause) => {
            events.emit(&Event::Interrupted { cause: (*cause).to_owned() });
        }
        Ending::Halted(Halt::Livelock(livelock)) => {
            let why = format!("the simulation stands still: {livelock}");
            verdict = Verdict { state: Trust::Invalid, reasons: vec![why.clone()] };
            known.lock().errors.push(why);
        }
        Ending::Halted(Halt::Limit(limit)) => {
            let why = too_long(*limit, spec.options.until, &known.lock());
            known.lock().errors.push(why);
        }
    }
    let mut known = known.into_inner();
    known.cut_short(topology, events.time().elapsed(), &dir);
    if known.ready_seconds.is_none() {
        verdict.state = Trust::Invalid;
        verdict.reasons.push("the simulation did not start: nothing was measured".to_owned());
    }
    let holds = known.expectations.iter().all(|e| e.holds == Some(true));
    let outcome = if matches!(ending, Ending::Interrupted(_)) {
        Outcome::Interrupted
    } else if known.errors.is_empty() && holds {
        Outcome::Passed
    } else {
        Outcome::Failed
    };
    let links = simulation.as_ref().map(Simulation::link_reports).unwrap_or_default();
    let end = simulation.as_ref().map(|simulation| simulation.now().as_secs_f64());
    let captures = simulation.map(Simulation::finish).unwrap_or_default();
    let mut results = Results {
        schema: SCHEMA,
        name: topology.name.clone(),
        verdict,
        outcome,
        errors: known.errors,
        nodes: nodes(topology),
        tasks: known.tasks,
        metrics: known.metrics,
        expectations: known.expectations,
        links: to_json(Some(&links)),
        notices: serde_json::Value::Array(Vec::new()),
        captures: serde_json::Value::Null,
        notices_skipped: 0,
        lateness: serde_json::Value::Null,
        pulse: serde_json::Value::Null,
        workers: serde_json::Value::Null,
        virtual_seconds: end,
        host: Some(host.usage()),
        wall: WallTimes { ready_seconds: known.ready_seconds, total_seconds: events.seconds() },
    };
    conclude(&mut results, captures, manifest, &events, dir);
    Ok(results)
}

/// Everything up to the last expectation.
async fn body(
    simulation: &mut Simulation,
    topology: &Topology,
    dir: &RunDir,
    events: &Events,
    known: &Mutex<Known>,
    agenda: &Agenda,
) {
    let mut tasks = VirtualTasks::new(simulation, topology, dir.path());
    let failed = tasks.init().await;
    if !failed.is_empty() {
        let mut known = known.lock();
        for (index, error) in failed {
            let node = topology.nodes[index].name.clone();
            events.emit(&Event::NodeFailed { node, error: error.clone() });
            known.errors.push(error);
        }
        known.tasks.extend(topology.tasks.iter().map(|task| TaskReport::not_run(&task.name)));
        return;
    }
    known.lock().ready_seconds = Some(events.seconds());
    tasks.start_sources();
    events.emit(&Event::LabReady { seconds: events.time().elapsed().as_secs_f64() });
    course::tasks(topology, tasks, events, known, agenda).await;
    known.lock().errors.extend(simulation.refused_changes());
}

/// What is said of a run that came to its limit.
fn too_long(limit: SimTime, until: Option<SimTime>, known: &Known) -> String {
    let name = if until == Some(limit) { "--until" } else { "time_limit" };
    let during = known
        .current
        .as_ref()
        .map_or(String::new(), |(task, _)| format!(" in the middle of task {}", task.name));
    format!("stopped at {limit} of virtual time ({name}){during}; what is here is partial")
}

/// In-process nodes are there from the beginning.
fn nodes(topology: &Topology) -> Vec<NodeReport> {
    let report = |node: &tapestry_topologies::resolved::Node| NodeReport {
        name: node.name.clone(),
        kind: node.kind.as_str().to_owned(),
        ready: true,
        error: None,
        boot_seconds: None,
        configure_seconds: None,
    };
    topology.nodes.iter().map(report).collect()
}
