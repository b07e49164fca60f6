//! Tasks in a lab: the task runner over the lab's shells, its outcomes as reports.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tapestry_core::SimTime;
use tapestry_guests::task::{CommandOutcome, TaskOutcome, TaskRunner};
use tapestry_realtime::Snapshot;
use tapestry_topologies::resolved::Task;
use tokio::time::Instant;

use crate::changes::agenda::Agenda;
use crate::lab::Lab;
use crate::nodes::Nodes;
use crate::results::{CommandReport, MetricValue, TaskReport, TaskState, excerpt};

/// Longest wait for the last frames of sources to leave the links; traffic may never end.
pub(crate) const DRAIN: Duration = Duration::from_secs(10);

/// Runs tasks on the nodes of a lab.
pub struct Tasks {
    nodes: Arc<Nodes>,
    runner: TaskRunner,
    /// When the last source sends its last frame; none without sources.
    sources_end: Option<Instant>,
    snapshots: Box<dyn Fn() -> Option<Snapshot> + Send + Sync>,
}

/// What a task left behind.
pub struct Done {
    /// For `results.json`.
    pub report: TaskReport,
    /// One sentence for each command that failed and each metric that has no value.
    pub errors: Vec<String>,
    /// The metrics, in the order of the file.
    pub metrics: Vec<(String, MetricValue)>,
}

/// Carries tasks out, in real or in virtual time.
pub(crate) trait Executor {
    /// Waits until what the task needs is there: nodes that start anew have come up.
    async fn prepare(&mut self, _: &Task) {}

    /// Runs one task to its end.
    async fn run(&mut self, task: &Task) -> Done;

    /// Waits until all sources have sent their last frame and no link carries any more, for the
    /// latter at most [`DRAIN`]. Returns at once where there are no sources.
    async fn drain(&mut self);

    /// Waits until the changes due by `now` have been made.
    async fn settle(&mut self, agenda: &Agenda, now: SimTime) {
        agenda.settled(now).await;
    }

    /// Ends what still runs in the background.
    async fn finish(self) -> Vec<Leftover>;
}

/// A command that ran in the background to the end of the run.
#[derive(Debug)]
pub struct Leftover {
    /// The task that started it.
    pub task: String,
    /// What became of it.
    pub report: CommandReport,
    /// Why it counts as failed, if it had ended by itself otherwise than expected.
    pub error: Option<String>,
}

impl Executor for Tasks {
    async fn prepare(&mut self, task: &Task) {
        self.nodes.settled(task.commands.iter().map(|command| command.node)).await;
    }

    async fn run(&mut self, task: &Task) -> Done {
        Tasks::run(self, task).await
    }

    async fn drain(&mut self) {
        /// How often links are looked at.
        const PAUSE: Duration = Duration::from_millis(20);
        let Some(last) = self.sources_end else { return };
        tokio::time::sleep_until(last).await;
        let carrying = || {
            let links = (self.snapshots)().map(|snapshot| snapshot.links).unwrap_or_default();
            links
                .iter()
                .any(|link| link.in_flight > 0 || link.endpoints.iter().any(|end| end.backlog > 0))
        };
        while carrying() && last.elapsed() < DRAIN {
            tokio::time::sleep(PAUSE).await;
        }
    }

    async fn finish(self) -> Vec<Leftover> {
        Tasks::finish(self).await
    }
}

impl Tasks {
    /// Tasks on the nodes that are up; the whole output of each command goes to `outputs/` in the
    /// run directory.
    pub fn new(lab: &Lab, directory: &Path) -> Self {
        let topology = lab.topology();
        let shells = lab.nodes.shells().collect();
        let outputs = Some(directory.join("outputs"));
        let runner = TaskRunner::new(shells, lab.epoch(), outputs).with_hosts(lab.hosts.clone());
        // They started when the lab was ready, a moment ago.
        let last = topology.last_source_frame();
        let sources_end =
            last.and_then(|last| Instant::now().checked_add(Duration::from_nanos(last.as_nanos())));
        Self {
            nodes: Arc::clone(&lab.nodes),
            runner,
            sources_end,
            snapshots: Box::new(lab.snapshots()),
        }
    }

    /// Runs one task to its end. May be a task the topology does not have.
    pub async fn run(&mut self, task: &Task) -> Done {
        let outcome = self.runner.run(task, &|_| {}).await;
        let mut reasons = Vec::new();
        for command in outcome.commands.iter().filter(|command| !command.is_ok()) {
            reasons.push(self.why(command).await);
        }
        Done::new(outcome, &reasons)
    }

    /// Ends what still runs in the background.
    pub async fn finish(mut self) -> Vec<Leftover> {
        for node in self.nodes.running() {
            let name = &node.name;
            if let Some(why) = node.shell.0.console().log_error() {
                tracing::warn!("console/{name}.log is incomplete: {why}");
            }
        }
        let mut left = Vec::new();
        for command in self.runner.finish(&|_| {}).await {
            let error = if command.is_ok() { None } else { Some(self.why(&command).await) };
            left.push(Leftover::new(command, error));
        }
        left
    }

    /// Why a command counts as failed, with how its node ended if it did.
    async fn why(&self, command: &CommandOutcome) -> String {
        let node = self.nodes.get(&command.node);
        let mut why = why(command);
        if let Some(node) = node
            && !command.lost_node()
            && node.shell.0.lost().is_some()
            && let Some(end) = node.machine.post_mortem().await
        {
            why = format!("{why}\n{end}");
        }
        why
    }
}

impl Leftover {
    /// From what became of the command, and why it counts as failed if it does.
    pub(crate) fn new(command: CommandOutcome, why: Option<String>) -> Self {
        let task = command.task.clone();
        let error = why.map(|why| format!("task {task}: {why}"));
        // When its task began is no longer known.
        let report = CommandReport { start_seconds: None, ..report(0, command) };
        Self { task, report, error }
    }
}

impl Done {
    /// From what became of a task, and why each of its failed commands counts as such.
    pub(crate) fn new(outcome: TaskOutcome, reasons: &[String]) -> Self {
        let task = outcome.name;
        let mut errors: Vec<String> =
            reasons.iter().map(|why| format!("task {task}: {why}")).collect();
        let mut metrics = Vec::new();
        for (name, metric) in outcome.metrics {
            match (metric.value, metric.error) {
                (Some(value), _) => metrics.push((name, MetricValue { value, unit: metric.unit })),
                // Without its command's output the metric is no news.
                (None, _) if !errors.is_empty() => {}
                (None, error) => {
                    // The error names the metric.
                    let why = error
                        .map_or_else(|| format!("metric `{name}` has no value"), |e| e.to_string());
                    errors.push(format!("task {task}: {why}"));
                }
            }
        }
        let start_ns = outcome.start_ns;
        let commands = outcome.commands.into_iter();
        let report = TaskReport {
            ran: true,
            state: TaskState::Ended,
            start_skew_ns: outcome.start_skew_ns,
            release_span_ns: outcome.release_span_ns,
            seconds: seconds(outcome.end_ns - start_ns),
            commands: commands.map(|command| report(start_ns, command)).collect(),
            name: task,
        };
        Self { report, errors, metrics }
    }
}

/// Why a command counts as failed.
pub(crate) fn why(command: &CommandOutcome) -> String {
    match (&command.error, command.status) {
        (Some(error), _) => error.to_string(),
        (None, _) if command.timed_out => {
            format!("node {}: `{}` took too long and was ended", command.node, command.text)
        }
        (None, status) => {
            let got = match (status, command.signal) {
                (_, Some(signal)) => format!("was ended by signal {signal}"),
                (Some(status), None) => format!("ended with status {status}"),
                (None, None) => "has no status".to_owned(),
            };
            let expected = command.expect_status.unwrap_or(0);
            let output = command.output.to_text();
            let skip = output.lines().count().saturating_sub(5);
            let tail: Vec<&str> = output.lines().skip(skip).collect();
            let said = if tail.is_empty() {
                "; it printed nothing".to_owned()
            } else {
                format!("; it printed last:\n{}", tail.join("\n"))
            };
            format!("node {}: `{}` {got}, expected {expected}{said}", command.node, command.text)
        }
    }
}

fn report(start_ns: u64, command: CommandOutcome) -> CommandReport {
    let error = if command.is_ok() {
        None
    } else if let Some(error) = &command.error {
        Some(error.to_string())
    } else if command.timed_out {
        Some("took too long and was ended".to_owned())
    } else {
        Some(format!("expected status {}", command.expect_status.unwrap_or(0)))
    };
    CommandReport {
        output_file: (command.output_bytes > 0).then(|| format!("outputs/{}", command.file_name())),
        name: command.name,
        node: command.node,
        command: command.text,
        background: command.background,
        status: command.status,
        error,
        start_seconds: command.start_ns.map(|at| seconds(at.saturating_sub(start_ns))),
        // An in-process command may have ended before its release was noted.
        seconds: command
            .start_ns
            .zip(command.end_ns)
            .map(|(from, to)| seconds(to.saturating_sub(from))),
        output: excerpt(command.output.to_text()),
        output_bytes: command.output_bytes,
    }
}

fn seconds(nanoseconds: u64) -> f64 {
    nanoseconds as f64 / 1e9
}
