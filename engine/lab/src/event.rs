//! What happens in a lab, for `events.jsonl` and for whoever watches.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use indexmap::IndexMap;
use parking_lot::Mutex;
use serde::Serialize;
use serde_json::{Map, Value};

use crate::rundir::{EventLog, RunDirError};

/// Groups of a partition.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(untagged)]
pub enum Groups {
    /// Names of nodes by name of their group: they were parted.
    Nodes(IndexMap<String, Vec<String>>),
    /// Names of groups, or `all`: they were healed.
    Names(Vec<String>),
}

/// One thing that happened.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(tag = "event", rename_all = "kebab-case")]
pub enum Event {
    /// The run has a directory and begins.
    RunStarted {
        /// Name of the topology.
        name: String,
        /// The run directory. Not in `events.jsonl`, which lies in it.
        #[serde(skip)]
        directory: PathBuf,
        /// Nodes in the topology.
        nodes: usize,
        /// Links in the topology.
        links: usize,
    },
    /// A node's process has been started.
    NodeStarted {
        /// The node.
        node: String,
        /// What it is made of, with the acceleration of a QEMU guest.
        kind: String,
    },
    /// A node's shell answers and its configuration is done.
    NodeReady {
        /// The node.
        node: String,
        /// From the start of the node's process to its first answer, seconds.
        boot_seconds: f64,
        /// Then until configured, seconds.
        configure_seconds: f64,
    },
    /// A node is gone.
    NodeFailed {
        /// The node.
        node: String,
        /// Why, with what is known.
        error: String,
    },
    /// All nodes are ready and the data plane runs.
    LabReady {
        /// From the start of the run, seconds.
        seconds: f64,
    },
    /// A task's commands are about to be armed.
    TaskStarted {
        /// The task.
        task: String,
        /// How many commands it has.
        commands: usize,
        /// Longest time it may take, seconds.
        timeout_seconds: f64,
    },
    /// A task was left out because its `when` is false.
    TaskSkipped {
        /// The task.
        task: String,
        /// The condition.
        when: String,
    },
    /// A task ended.
    TaskEnded {
        /// The task.
        task: String,
        /// Spread of its commands' starts, ns; absent below two commands in the foreground.
        start_skew_ns: Option<u64>,
        /// From the release to the last end, seconds.
        seconds: f64,
        /// Commands that failed, with why.
        failures: Vec<String>,
    },
    /// A link or node was changed: by the topology file's `events`, or from another terminal.
    Changed {
        /// What was done: `set`, `down`, `up`, `partition`, `heal`, `pause`, `resume`, `kill`,
        /// `restart`. The links that a partition takes down, or its end brings up, follow it.
        action: String,
        /// The link.
        #[serde(skip_serializing_if = "Option::is_none")]
        link: Option<String>,
        /// The node.
        #[serde(skip_serializing_if = "Option::is_none")]
        node: Option<String>,
        /// The groups that were parted or healed.
        #[serde(skip_serializing_if = "Option::is_none")]
        groups: Option<Groups>,
        /// What was set in each direction, by the keys of topology files.
        #[serde(skip_serializing_if = "Option::is_none")]
        parameters: Option<Box<[Map<String, Value>; 2]>>,
        /// The MTU that was set, bytes.
        #[serde(skip_serializing_if = "Option::is_none")]
        mtu: Option<u32>,
        /// The run's time at which it was to happen, ns; absent if it was not planned.
        #[serde(skip_serializing_if = "Option::is_none")]
        scheduled_ns: Option<u64>,
        /// The run's time at which it happened, ns.
        executed_ns: u64,
    },
    /// An expectation was checked.
    Expectation {
        /// The task, or absent for the whole run.
        #[serde(skip_serializing_if = "Option::is_none")]
        task: Option<String>,
        /// The condition.
        expression: String,
        /// Whether it holds.
        holds: bool,
    },
    /// Something a person should know.
    Warning {
        /// What.
        text: String,
    },
    /// The user or a signal asked the run to end.
    Interrupted {
        /// What asked.
        cause: String,
    },
    /// The run ended.
    RunEnded {
        /// The verdict's word.
        verdict: String,
        /// Exit status of the program.
        exit: i32,
    },
}

/// Watches a run.
pub trait Observer: Send + Sync {
    /// Called for each event, from any thread, in order of time.
    fn observe(&self, event: &Event);
}

impl<T: Observer> Observer for Arc<T> {
    fn observe(&self, event: &Event) {
        (**self).observe(event);
    }
}

/// Watches nothing.
#[derive(Debug)]
pub struct Silent;

impl Observer for Silent {
    fn observe(&self, _: &Event) {}
}

/// The time that passes in a run.
#[derive(Debug, Clone)]
pub enum RunTime {
    /// The wall clock's, since this instant.
    Wall(Instant),
    /// Virtual: nanoseconds that the simulation has come to.
    Virtual(Arc<AtomicU64>),
}

impl RunTime {
    /// Since the start of the run.
    pub fn elapsed(&self) -> Duration {
        match self {
            Self::Wall(start) => start.elapsed(),
            Self::Virtual(now) => Duration::from_nanos(now.load(Ordering::Relaxed)),
        }
    }
}

/// Hands events to the log and to the observer, stamped with the run's time.
#[derive(Clone)]
pub struct Events {
    /// The start by the wall clock, in virtual time too.
    start: Instant,
    time: RunTime,
    inner: Arc<Mutex<(EventLog, Box<dyn Observer>)>>,
}

#[derive(Serialize)]
struct Stamped<'a> {
    t_ns: u128,
    #[serde(flatten)]
    event: &'a Event,
}

impl Events {
    /// Events of a run that starts now.
    pub fn new(log: EventLog, observer: Box<dyn Observer>) -> Self {
        let start = Instant::now();
        let inner = Arc::new(Mutex::new((log, observer)));
        Self { start, time: RunTime::Wall(start), inner }
    }

    /// The same in virtual time; `now` holds the nanoseconds it has come to.
    pub fn in_virtual_time(
        log: EventLog,
        observer: Box<dyn Observer>,
        now: Arc<AtomicU64>,
    ) -> Self {
        Self { time: RunTime::Virtual(now), ..Self::new(log, observer) }
    }

    /// When the run started, by the wall clock.
    pub fn start(&self) -> Instant {
        self.start
    }

    /// Seconds since the run started, by the wall clock.
    pub fn seconds(&self) -> f64 {
        self.start.elapsed().as_secs_f64()
    }

    /// The run's time.
    pub fn time(&self) -> &RunTime {
        &self.time
    }

    /// Records an event.
    pub fn emit(&self, event: &Event) {
        let mut inner = self.inner.lock();
        inner.0.append(&Stamped { t_ns: self.time.elapsed().as_nanos(), event });
        inner.1.observe(event);
    }

    /// The first failure to write the log, if any.
    pub fn take_failure(&self) -> Option<RunDirError> {
        self.inner.lock().0.take_failure()
    }
}
