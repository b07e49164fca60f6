//! Tasks: commands on many nodes that start together and end at a barrier.
//!
//! Purpose: a [`TaskRunner`] holds the shells of a lab and the commands that go on behind its tasks.
//! [`TaskRunner::run`] carries out one [`Task`] of a resolved topology, or one that the caller made
//! up while the lab runs, and returns when the last foreground command has ended:
//!
//! 1. background commands are started and, where the task asks, awaited until `ready:`;
//! 2. foreground commands are armed on all nodes side by side: delivered, each process forked and
//!    waiting for one byte;
//! 3. all are released back to back from one thread. The *start skew* is the spread of the arrival
//!    times of their opening frames, each printed by the command's own process just before its text;
//! 4. when the last has ended, background commands named in `stop:` are, and metrics are taken.
//!
//! A node that fails does not take the others' results along: its commands carry the error.
//!
//! Assumes at most one foreground command per node, as the resolved topology promises; a second one
//! on the same node reports that the node is busy. Not done here: `when:`, derived metrics and
//! `expect:`, which need the metrics of all tasks and are evaluated by the caller.

mod host;
mod metrics;
mod outcome;
mod ready;
mod runner;
mod seat;

pub use host::{HostEvent, HostProcess, HostShell, run_on_host};
pub use metrics::{MetricError, take, take_all};
pub use outcome::{CommandOutcome, MetricValue, TaskError, TaskOutcome, output_file_name};
pub use ready::pattern as ready_pattern;
pub use runner::{TaskEvent, TaskRunner};
