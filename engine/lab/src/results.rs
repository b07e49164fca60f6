//! `results.json` and `manifest.json`: what a run says about itself.
//!
//! Figures measured by the wall clock stand in `wall` objects, so that two runs in virtual time
//! with one seed can be compared byte for byte without them.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::Path;
use std::time::Duration;

use indexmap::IndexMap;
use serde::{Deserialize, Serialize};
use tapestry_guests::task::output_file_name;
use tapestry_topologies::resolved::{Command, Task, Topology};

use crate::host::{HostFacts, HostUsage};
use crate::verdict::Verdict;

/// Version of both files' layout; grows when a reader must change.
pub const SCHEMA: u32 = 1;

/// What was run, on what, by what.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Manifest {
    /// Layout of this file.
    pub schema: u32,
    /// Version of Tapestry.
    pub tapestry: String,
    /// The command line.
    pub command: Vec<String>,
    /// The topology file, as the user named it.
    pub file: String,
    /// Seed of all random streams.
    pub seed: u64,
    /// Repetition: another number gives independent draws from the same seed.
    #[serde(default)]
    pub run: u64,
    /// `realtime` or `virtual`.
    pub time: String,
    /// `best-effort` or `hard-limit=D`.
    pub sync: String,
    /// The machine.
    pub host: HostFacts,
    /// QEMU's version, if a node needs it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub qemu: Option<String>,
    /// How QEMU guests are accelerated and why, if a node needs it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub acceleration: Option<String>,
    /// How the data plane runs (workers, system interface), once it does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub data_plane: Option<serde_json::Value>,
    /// Start of the run, RFC 3339 in UTC.
    pub started: String,
    /// End of the run; null while it runs or if it was killed.
    pub ended: Option<String>,
    /// Exit status of the program; null while it runs or if it was killed.
    pub exit: Option<i32>,
    /// The topology, resolved.
    pub topology: Topology,
}

/// What came out.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Results {
    /// Layout of this file.
    pub schema: u32,
    /// Name of the topology.
    pub name: String,
    /// How far the run can be trusted.
    pub verdict: Verdict,
    /// `passed`, `failed`, `inconclusive` or `interrupted`.
    pub outcome: Outcome,
    /// Why the run failed or ended early; empty when it passed.
    pub errors: Vec<String>,
    /// Nodes with how long they took to get ready.
    pub nodes: Vec<NodeReport>,
    /// Tasks in the order they ran.
    pub tasks: Vec<TaskReport>,
    /// Metrics by name, in file order.
    pub metrics: IndexMap<String, MetricValue>,
    /// Expectations and whether they hold.
    pub expectations: Vec<ExpectationReport>,
    /// Links with their counters.
    pub links: serde_json::Value,
    /// Interfaces that went down, came back or were deleted while the data plane ran, with link,
    /// `node:interface` and time.
    pub notices: serde_json::Value,
    /// Notices beyond the number that is kept.
    #[serde(default)]
    pub notices_skipped: u64,
    /// Captures with their files and what they had to skip.
    #[serde(default, skip_serializing_if = "serde_json::Value::is_null")]
    pub captures: serde_json::Value,
    /// Lateness of events, ns.
    pub lateness: serde_json::Value,
    /// Lateness of the workers' beats, ns: one each 10 ms, so that percentiles are shares of the time.
    #[serde(default, skip_serializing_if = "serde_json::Value::is_null")]
    pub pulse: serde_json::Value,
    /// The data plane's threads: their links, lateness and its histogram.
    #[serde(default, skip_serializing_if = "serde_json::Value::is_null")]
    pub workers: serde_json::Value,
    /// The virtual time at the end of the run, seconds; absent in real time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub virtual_seconds: Option<f64>,
    /// The host's share.
    pub host: Option<HostUsage>,
    /// Figures by the wall clock.
    pub wall: WallTimes,
}

/// How a run ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    /// Everything was done and every expectation holds.
    Passed,
    /// A node, a command or an expectation failed.
    Failed,
    /// The verdict is invalid: neither passed nor failed.
    Inconclusive,
    /// A signal ended the run; what is here is partial.
    Interrupted,
}

impl Outcome {
    /// Exit status of the program.
    pub fn exit_status(self) -> i32 {
        match self {
            Self::Passed => 0,
            Self::Failed => 1,
            Self::Inconclusive => 3,
            Self::Interrupted => 130,
        }
    }
}

/// A node.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct NodeReport {
    /// Its name.
    pub name: String,
    /// What it is made of.
    pub kind: String,
    /// Whether it got ready.
    pub ready: bool,
    /// Why it failed, if it did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// From the start of its process to its first answer, seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub boot_seconds: Option<f64>,
    /// Then until configured, seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub configure_seconds: Option<f64>,
}

/// A task.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct TaskReport {
    /// Its name.
    pub name: String,
    /// Whether it ran; a task is left out when its `when` is false or an earlier one failed.
    pub ran: bool,
    /// How it ended.
    pub state: TaskState,
    /// Spread of the commands' starts, ns: latest minus earliest opening frame; absent below two
    /// commands in the foreground.
    pub start_skew_ns: Option<u64>,
    /// From the first to the last release, ns.
    pub release_span_ns: Option<u64>,
    /// From the release to the last end, seconds.
    pub seconds: f64,
    /// Its commands, and background commands that it stopped.
    pub commands: Vec<CommandReport>,
}

/// How a task ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum TaskState {
    /// Its commands ended, as expected or not.
    Ended,
    /// The run ended first; its commands are listed without results.
    Interrupted,
    /// It was left out, or the run ended before its turn.
    NotRun,
}

impl TaskReport {
    /// Of a task that the end of the run cut short after `lasted`; `nodes` are the names of all,
    /// `directory` the run's, whose `outputs/` holds what its commands had printed.
    pub fn interrupted(task: &Task, lasted: Duration, nodes: &[&str], directory: &Path) -> Self {
        let command = |command: &Command| {
            let file = format!("outputs/{}", output_file_name(&task.name, &command.name));
            let (output, output_bytes) = excerpt_of(&directory.join(&file)).unwrap_or_default();
            CommandReport {
                name: command.name.clone(),
                node: nodes.get(command.node).copied().unwrap_or_default().to_owned(),
                command: command.text.clone(),
                background: command.background,
                status: None,
                error: Some("the run ended before its task did".to_owned()),
                start_seconds: None,
                seconds: None,
                output_file: (output_bytes > 0).then_some(file),
                output,
                output_bytes,
            }
        };
        Self {
            ran: true,
            state: TaskState::Interrupted,
            seconds: lasted.as_secs_f64(),
            commands: task.commands.iter().map(command).collect(),
            ..Self::not_run(&task.name)
        }
    }

    /// Of a task that was left out.
    pub fn not_run(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            ran: false,
            state: TaskState::NotRun,
            start_skew_ns: None,
            release_span_ns: None,
            seconds: 0.0,
            commands: Vec::new(),
        }
    }
}

/// Longest output that `results.json` holds whole; `outputs/` has all of it.
const LONGEST_BYTES: usize = 64 << 10;

/// What `results.json` holds of a command's output: all of it, or its beginning and its end.
pub(crate) fn excerpt(output: String) -> String {
    if output.len() <= LONGEST_BYTES {
        return output;
    }
    let head = output.floor_char_boundary(LONGEST_BYTES / 2);
    let tail = output.ceil_char_boundary(output.len() - LONGEST_BYTES / 2);
    joined(&output[..head], (tail - head) as u64, &output[tail..])
}

fn joined(head: &str, left_out: u64, tail: &str) -> String {
    format!("{head}\n[… {left_out} bytes: see output_file …]\n{tail}")
}

/// The same of what is in a file, with its length. Of a long one only the ends are read.
fn excerpt_of(path: &Path) -> io::Result<(String, u64)> {
    const HALF_BYTES: usize = LONGEST_BYTES / 2;
    let mut file = File::open(path)?;
    let length = file.metadata()?.len();
    if length <= LONGEST_BYTES as u64 {
        let mut whole = Vec::new();
        // It may still grow.
        file.take(length).read_to_end(&mut whole)?;
        return Ok((String::from_utf8_lossy(&whole).into_owned(), length));
    }
    let mut head = vec![0; HALF_BYTES];
    file.read_exact(&mut head)?;
    file.seek(SeekFrom::Start(length - HALF_BYTES as u64))?;
    let mut tail = vec![0; HALF_BYTES];
    file.read_exact(&mut tail)?;
    // A character that is cut in two belongs to what is left out.
    let cut = head.utf8_chunks().last().map_or(0, |last| match last.invalid() {
        invalid if std::str::from_utf8(invalid).is_err_and(|e| e.error_len().is_none()) => {
            invalid.len()
        }
        _ => 0,
    });
    head.truncate(HALF_BYTES - cut);
    let is_inside = |byte: &&u8| **byte & 0xc0 == 0x80;
    let skip = tail.iter().take(3).take_while(is_inside).count();
    let left_out = length - (head.len() + tail.len() - skip) as u64;
    let text =
        joined(&String::from_utf8_lossy(&head), left_out, &String::from_utf8_lossy(&tail[skip..]));
    Ok((text, length))
}

/// A command.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct CommandReport {
    /// Its name.
    pub name: String,
    /// The node.
    pub node: String,
    /// What was run.
    pub command: String,
    /// Whether it ran in the background.
    pub background: bool,
    /// Exit status, if it ended by itself or by our signal.
    pub status: Option<u8>,
    /// Why it counts as failed, if it does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// From the start of the task, seconds.
    pub start_seconds: Option<f64>,
    /// How long it ran, seconds.
    pub seconds: Option<f64>,
    /// Output, as far as it fits; not UTF-8 bytes are shown as U+FFFD.
    pub output: String,
    /// Length of the whole output in bytes.
    pub output_bytes: u64,
    /// File in the run directory with the whole output, if there is any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub output_file: Option<String>,
}

/// A metric.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct MetricValue {
    /// The value.
    pub value: f64,
    /// Its unit; empty for a bare number.
    pub unit: String,
}

/// An expectation.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ExpectationReport {
    /// The task it belongs to; absent for the whole run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub task: Option<String>,
    /// The condition.
    pub expression: String,
    /// Whether it holds; absent if it could not be evaluated.
    pub holds: Option<bool>,
    /// Why it could not be evaluated.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// Times by the wall clock, seconds.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct WallTimes {
    /// From the start until all nodes were ready.
    pub ready_seconds: Option<f64>,
    /// The whole run.
    pub total_seconds: f64,
}

#[cfg(test)]
mod tests;
