//! What a task leaves behind, in the shape of `results.json`.

use std::time::Duration;

use indexmap::IndexMap;
use serde::{Serialize, Serializer};
use tapestry_topologies::resolved::{Command, NodeIndex};

use super::host::KILLED;
use super::metrics::MetricError;
use crate::shell::{CommandError, Finished, Output, signal};

/// What became of a task. Times are nanoseconds since the runner's epoch.
#[derive(Debug, Serialize)]
pub struct TaskOutcome {
    /// The task's name.
    pub name: String,
    /// When the first command was handed out.
    pub start_ns: u64,
    /// When the last foreground command had ended and everything to be stopped was.
    pub end_ns: u64,
    /// Spread (latest − earliest) of the starts of the foreground commands; absent below two starts.
    pub start_skew_ns: Option<u64>,
    /// Time from the first releasing byte to the last: the host's part of the skew.
    pub release_span_ns: Option<u64>,
    /// The foreground commands, and the background commands that this task could not start, in the
    /// order of the file; then the background commands that it stopped.
    pub commands: Vec<CommandOutcome>,
    /// The task's metrics, in the order of the file.
    pub metrics: IndexMap<String, MetricValue>,
}

impl TaskOutcome {
    /// Whether every command did what was expected and every metric has a value.
    pub fn is_ok(&self) -> bool {
        self.commands.iter().all(CommandOutcome::is_ok)
            && self.metrics.values().all(|metric| metric.error.is_none())
    }
}

/// What became of a command.
// Independent facts of `results.json`, not states.
#[allow(clippy::struct_excessive_bools)]
#[derive(Debug, Serialize)]
pub struct CommandOutcome {
    /// The command's name in its task.
    pub name: String,
    /// The task that started it.
    pub task: String,
    /// The node's name.
    pub node: String,
    /// The node.
    #[serde(skip)]
    pub node_index: NodeIndex,
    /// The text that was run.
    pub text: String,
    /// It went on behind the task.
    pub background: bool,
    /// Exit status (128 + signal for one that a signal ended); absent if there is none.
    pub status: Option<u8>,
    /// The signal that ended it, by the shells' convention.
    pub signal: Option<u8>,
    /// It took longer than its timeout and was ended.
    pub timed_out: bool,
    /// It was ended by `stop:` or with the run, so its status says nothing.
    pub stopped: bool,
    /// The status that counts as success; absent: any.
    pub expect_status: Option<u8>,
    /// When it started.
    pub start_ns: Option<u64>,
    /// When it ended.
    pub end_ns: Option<u64>,
    /// What it wrote, as text.
    #[serde(serialize_with = "as_text")]
    pub output: Output,
    /// How many bytes it wrote.
    pub output_bytes: u64,
    /// Bytes are missing from `output`.
    pub output_truncated: bool,
    /// Why there is no result.
    #[serde(serialize_with = "as_message", skip_serializing_if = "Option::is_none")]
    pub error: Option<TaskError>,
}

impl CommandOutcome {
    /// Of a command of `task` that has not been run yet on the node of this name.
    pub fn not_run(task: &str, command: &Command, node: String) -> Self {
        Self {
            name: command.name.clone(),
            task: task.to_owned(),
            node,
            node_index: command.node,
            text: command.text.clone(),
            background: command.background,
            status: None,
            signal: None,
            timed_out: false,
            stopped: false,
            expect_status: command.expect_status,
            start_ns: None,
            end_ns: None,
            output: Output::default(),
            output_bytes: 0,
            output_truncated: false,
            error: None,
        }
    }

    /// Notes the exit status and the signal it stands for.
    pub fn set_status(&mut self, status: u8) {
        self.status = Some(status);
        self.signal = signal(status);
    }

    /// Notes what it wrote; if its file is incomplete, the command counts as failed.
    pub fn set_output(&mut self, output: Output) {
        if let Some(why) = &output.file_error {
            let (node, file, why) = (self.node.clone(), self.file_name(), why.clone());
            self.error = Some(TaskError::OutputFile { node, file, why });
        }
        self.output_bytes = output.total;
        self.output_truncated = output.is_truncated;
        self.output = output;
    }

    /// Name of the file among the outputs that takes all it writes.
    pub fn file_name(&self) -> String {
        output_file_name(&self.task, &self.name)
    }

    /// Whether it ended as expected, or was stopped as intended.
    pub fn is_ok(&self) -> bool {
        let expected = match (self.expect_status, self.status) {
            _ if self.stopped => true,
            (Some(expected), status) => status == Some(expected),
            (None, _) => true,
        };
        let sound = self.error.as_ref().is_none_or(TaskError::is_end_of_node);
        expected && !self.timed_out && sound
    }

    /// Whether its node was ended on purpose while it ran.
    pub fn lost_node(&self) -> bool {
        self.error.as_ref().is_some_and(TaskError::is_end_of_node)
    }

    /// Notes why there is no result, which became clear at `at`. A command whose node was ended on
    /// purpose counts as killed, as on an in-process host, so that the file can expect it.
    ///
    /// Where the node went while the command ran, what it had written by then counts as its output.
    pub(super) fn take_error(
        &mut self,
        mut error: TaskError,
        at: impl Fn(std::time::Instant) -> u64,
    ) {
        let cut = match &mut error {
            TaskError::Command(error) => error.cut(),
            _ => None,
        };
        if let Some(cut) = cut {
            self.start_ns = Some(at(cut.started));
            self.set_output(std::mem::take(&mut cut.output));
        }
        if error.is_end_of_node() {
            self.set_status(KILLED);
            self.stopped = false;
            self.end_ns = self.start_ns.map(|_| at(std::time::Instant::now()));
        }
        // That its file is incomplete, which setting the output has noted, needs somebody to act.
        let incomplete = self.error.take_if(|it| matches!(it, TaskError::OutputFile { .. }));
        self.error = Some(incomplete.unwrap_or(error));
    }

    pub(super) fn take_finished(
        &mut self,
        finished: Finished,
        at: impl Fn(std::time::Instant) -> u64,
    ) {
        self.set_status(finished.status);
        self.timed_out = finished.timed_out;
        self.start_ns = Some(at(finished.started));
        self.end_ns = Some(at(finished.ended));
        self.set_output(finished.output);
    }
}

/// A metric of a task.
#[derive(Debug, Serialize)]
pub struct MetricValue {
    /// The value; absent when it could not be taken.
    pub value: Option<f64>,
    /// Its unit.
    pub unit: String,
    /// Why there is no value.
    #[serde(serialize_with = "as_message", skip_serializing_if = "Option::is_none")]
    pub error: Option<MetricError>,
}

/// Why a command of a task has no result.
#[derive(Debug, thiserror::Error)]
pub enum TaskError {
    /// The shell proxy's reason.
    #[error(transparent)]
    Command(#[from] CommandError),
    /// The node has no shell: its kind has none, or it is gone.
    #[error(
        "command `{command}`: node number {node} has no shell; run commands on `qemu`, `netns` and `host` nodes only"
    )]
    NoShell {
        /// The command.
        command: String,
        /// The node.
        node: NodeIndex,
    },
    /// The file with the whole output is incomplete.
    #[error(
        "node `{node}`: outputs/{file} is incomplete: {why}; make room for the run directory, or choose another with --out"
    )]
    OutputFile {
        /// The node.
        node: String,
        /// The file's name.
        file: String,
        /// What the system says.
        why: String,
    },
    /// `ready:` is not a regular expression.
    #[error("command `{command}`: `ready:` is not a regular expression: {source}")]
    Pattern {
        /// The command.
        command: String,
        /// What is wrong.
        source: Box<regex::Error>,
    },
    /// `ready:` did not show in time.
    #[error(
        "node `{node}`: the output of `{command}` did not match `{pattern}` within {:.1} s; it ended with `{output}`",
        after.as_secs_f64()
    )]
    NotReady {
        /// The node.
        node: String,
        /// The command.
        command: String,
        /// The pattern.
        pattern: String,
        /// How long was waited.
        after: Duration,
        /// The end of the output so far.
        output: String,
    },
    /// The command ended before `ready:` showed.
    #[error(
        "node `{node}`: `{command}` ended with status {status} before its output matched `{pattern}`; it ended with `{output}`"
    )]
    EndedEarly {
        /// The node.
        node: String,
        /// The command.
        command: String,
        /// The pattern.
        pattern: String,
        /// Its status.
        status: u8,
        /// The end of its output.
        output: String,
    },
}

impl TaskError {
    /// Whether somebody ended the command's node on purpose.
    pub fn is_end_of_node(&self) -> bool {
        matches!(self, Self::Command(error) if error.is_end_of_node())
    }
}

fn as_text<S: Serializer>(output: &Output, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&output.to_text())
}

// The signature is serde's.
#[allow(clippy::ref_option)]
fn as_message<S: Serializer, E: std::error::Error>(
    error: &Option<E>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    match error {
        Some(error) => serializer.serialize_str(&error.to_string()),
        None => serializer.serialize_none(),
    }
}

/// Name of the file among the outputs that takes all that a command of a task writes.
pub fn output_file_name(task: &str, command: &str) -> String {
    format!("{task}.{command}.out").replace('/', "_")
}
