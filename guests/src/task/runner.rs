//! Carries tasks out on the shells of a lab.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::future::join_all;
use tapestry_core::SimTime;
use tapestry_topologies::resolved::{Command, NodeIndex, Task};

use super::host::HostShell;
use super::metrics::take_all;
use super::outcome::{CommandOutcome, TaskError, TaskOutcome, output_file_name};
use super::ready;
use super::seat::{Seat, SeatArmed, SeatBackground, SeatRunning};
use crate::shell::line::StartLine;
use crate::shell::{RunOptions, ShellSlot};

/// What a task is doing, for a progress display.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TaskEvent<'a> {
    /// A background command has started and is ready.
    Ready {
        /// The command's name.
        command: &'a str,
    },
    /// All foreground commands are armed and have been released.
    Released {
        /// How many.
        commands: usize,
    },
    /// A command has ended.
    Ended {
        /// The command's name.
        command: &'a str,
        /// Its exit status; absent if it has none.
        status: Option<u8>,
    },
}

/// The shells of a lab and what goes on behind its tasks.
#[derive(Debug)]
pub struct TaskRunner {
    seats: BTreeMap<NodeIndex, Seat>,
    epoch: Instant,
    outputs: Option<PathBuf>,
    background: Vec<Behind>,
}

/// A background command.
#[derive(Debug)]
struct Behind {
    outcome: CommandOutcome,
    command: SeatBackground,
    task: String,
}

impl TaskRunner {
    /// A runner that counts times from `epoch`. The whole output of each command goes to a file
    /// `TASK.COMMAND.out` in the existing directory `outputs`, if given.
    pub fn new(
        shells: BTreeMap<NodeIndex, ShellSlot>,
        epoch: Instant,
        outputs: Option<PathBuf>,
    ) -> Self {
        let seats = shells.into_iter().map(|(node, shell)| (node, Seat::Shell(shell))).collect();
        Self { seats, epoch, outputs, background: Vec::new() }
    }

    /// The same with in-process hosts beside the shells.
    #[must_use]
    pub fn with_hosts(mut self, hosts: BTreeMap<NodeIndex, Arc<dyn HostShell>>) -> Self {
        self.seats.extend(hosts.into_iter().map(|(node, host)| (node, Seat::Host(host))));
        self
    }

    /// Carries out `task`; see the module's documentation. `when` has been decided by the caller.
    pub async fn run(&mut self, task: &Task, progress: &(dyn Fn(TaskEvent) + Sync)) -> TaskOutcome {
        let begun = Instant::now();
        let deadline = begun + duration(task.timeout);
        let mut commands = self.start_background(task, deadline, progress).await;
        let foreground = self.run_foreground(task, deadline, progress).await;
        commands.extend(foreground.commands);
        let stopped = self.stop(|behind| task.stop.contains(&behind.outcome.name), progress);
        commands.extend(stopped.await);
        TaskOutcome {
            name: task.name.clone(),
            start_ns: self.at(begun),
            end_ns: self.at(Instant::now()),
            start_skew_ns: foreground.start_skew.map(nanoseconds),
            release_span_ns: foreground.release_span.map(nanoseconds),
            metrics: take_all(task, &commands),
            commands,
        }
    }

    /// Stops every background command, in the order of their starts, and reports them.
    pub async fn finish(&mut self, progress: &(dyn Fn(TaskEvent) + Sync)) -> Vec<CommandOutcome> {
        self.stop(|_| true, progress).await
    }

    /// Starts the background commands, on different nodes side by side; gives those that failed.
    async fn start_background(
        &mut self,
        task: &Task,
        deadline: Instant,
        progress: &(dyn Fn(TaskEvent) + Sync),
    ) -> Vec<CommandOutcome> {
        let mut by_node: BTreeMap<NodeIndex, Vec<&Command>> = BTreeMap::new();
        for command in task.commands.iter().filter(|c| c.background) {
            by_node.entry(command.node).or_default().push(command);
        }
        let nodes = by_node.into_values().map(async |commands| {
            let mut started = Vec::new();
            for command in commands {
                let mut outcome = self.outcome(task, command);
                let result = self.start_one(task, command, deadline).await;
                let behind = match result {
                    Ok((behind, Ok(()))) => {
                        progress(TaskEvent::Ready { command: &command.name });
                        Some(behind)
                    }
                    Ok((behind, Err(error))) => {
                        outcome.error = Some(error);
                        Some(behind)
                    }
                    Err(error) => {
                        outcome.error = Some(error);
                        None
                    }
                };
                started.push((outcome, behind));
            }
            started
        });
        let started: Vec<_> = join_all(nodes).await.into_iter().flatten().collect();
        let mut failed = Vec::new();
        for (outcome, command) in started {
            match command {
                Some(command) if outcome.error.is_none() => {
                    self.background.push(Behind { outcome, command, task: task.name.clone() });
                }
                Some(command) => {
                    // Not ready: it is of no use and would only disturb.
                    let mut outcome = outcome;
                    let options = self.options(&task.name, &outcome.name, None);
                    let epoch = self.epoch;
                    match command.stop(&options).await {
                        Ok(finished) => outcome.take_finished(finished, |t| since(epoch, t)),
                        Err(error) if error.is_end_of_node() => {
                            outcome.take_error(error.into(), |t| since(epoch, t));
                        }
                        // Why it is not ready is the news.
                        Err(_) => {}
                    }
                    failed.push(outcome);
                }
                None => failed.push(outcome),
            }
        }
        failed
    }

    async fn start_one(
        &self,
        task: &Task,
        command: &Command,
        deadline: Instant,
    ) -> Result<(SeatBackground, Result<(), TaskError>), TaskError> {
        let pattern = command
            .ready
            .as_deref()
            .map(|pattern| ready::pattern(&command.name, pattern))
            .transpose()?;
        let shell = self.require_shell(command)?;
        let options = self.options(&task.name, &command.name, Some(deadline));
        let background = shell.start_background(&command.text, &options).await?;
        let ready = match pattern {
            Some(pattern) => {
                ready::wait(&command.name, shell.node(), &background, &pattern, deadline).await
            }
            None => Ok(()),
        };
        Ok((background, ready))
    }

    /// Arms and releases the foreground commands and waits for their ends.
    async fn run_foreground(
        &self,
        task: &Task,
        deadline: Instant,
        progress: &(dyn Fn(TaskEvent) + Sync),
    ) -> Foreground {
        let commands: Vec<&Command> = task.commands.iter().filter(|c| !c.background).collect();
        let mut outcomes: Vec<CommandOutcome> =
            commands.iter().map(|command| self.outcome(task, command)).collect();
        let armed = join_all(commands.iter().map(async |command| {
            let shell = self.require_shell(command)?;
            let mut options = self.options(&task.name, &command.name, Some(deadline));
            if let Some(timeout) = command.timeout {
                options.timeout = options.timeout.min(duration(timeout));
            }
            Ok::<SeatArmed, TaskError>(shell.arm(&command.text, options).await?)
        }))
        .await;
        let (running, release_span) = release(armed);
        progress(TaskEvent::Released { commands: running.iter().filter(|r| r.is_ok()).count() });
        let ends = running.into_iter().zip(&commands).map(async |(running, command)| {
            let finished = match running {
                Ok(running) => running.finish().await.map_err(TaskError::from),
                Err(error) => Err(error),
            };
            progress(TaskEvent::Ended {
                command: &command.name,
                status: finished.as_ref().ok().map(|f| f.status),
            });
            finished
        });
        let mut starts = Vec::new();
        for (outcome, end) in outcomes.iter_mut().zip(join_all(ends).await) {
            match end {
                Ok(finished) => {
                    starts.push(finished.started);
                    outcome.take_finished(finished, |t| self.at(t));
                }
                Err(error) => outcome.take_error(error, |t| self.at(t)),
            }
        }
        let skew = match (starts.iter().min(), starts.iter().max()) {
            (Some(&first), Some(&last)) if starts.len() > 1 => Some(last - first),
            _ => None,
        };
        Foreground { commands: outcomes, start_skew: skew, release_span }
    }

    /// Ends the background commands that `which` names.
    async fn stop(
        &mut self,
        which: impl Fn(&Behind) -> bool,
        progress: &(dyn Fn(TaskEvent) + Sync),
    ) -> Vec<CommandOutcome> {
        let (stopped, kept) = std::mem::take(&mut self.background).into_iter().partition(which);
        self.background = kept;
        let stopped: Vec<Behind> = stopped;
        join_all(stopped.into_iter().map(async |behind| {
            let Behind { mut outcome, command, task } = behind;
            outcome.stopped = command.status().is_none();
            outcome.start_ns = Some(self.at(command.started()));
            let options = self.options(&task, &outcome.name, None);
            match command.stop(&options).await {
                Ok(finished) => outcome.take_finished(finished, |t| self.at(t)),
                Err(error) => outcome.take_error(error.into(), |t| self.at(t)),
            }
            progress(TaskEvent::Ended { command: &outcome.name, status: outcome.status });
            outcome
        }))
        .await
    }

    fn require_shell(&self, command: &Command) -> Result<&Seat, TaskError> {
        self.seats
            .get(&command.node)
            .ok_or_else(|| TaskError::NoShell { command: command.name.clone(), node: command.node })
    }

    fn options(&self, task: &str, command: &str, deadline: Option<Instant>) -> RunOptions {
        let mut options = RunOptions {
            output_file: self
                .outputs
                .as_ref()
                .map(|directory| directory.join(output_file_name(task, command))),
            ..RunOptions::default()
        };
        if let Some(deadline) = deadline {
            let left = deadline.saturating_duration_since(Instant::now());
            options.timeout = left;
            options.queue = left;
        }
        options
    }

    fn outcome(&self, task: &Task, command: &Command) -> CommandOutcome {
        let shell = self.seats.get(&command.node);
        let node = shell.map_or_else(|| command.node.to_string(), |s| s.node().to_owned());
        CommandOutcome::not_run(&task.name, command, node)
    }

    fn at(&self, instant: Instant) -> u64 {
        since(self.epoch, instant)
    }
}

struct Foreground {
    commands: Vec<CommandOutcome>,
    start_skew: Option<Duration>,
    release_span: Option<Duration>,
}

type Results<T> = Vec<Result<T, TaskError>>;

/// Releases back to back; gives the time from before the first byte to after the last.
fn release(armed: Results<SeatArmed>) -> (Results<SeatRunning>, Option<Duration>) {
    let mut written = Vec::with_capacity(armed.len());
    let line = StartLine::new(armed.iter().flatten().filter(|a| a.can_be_held()).count());
    let begun = Instant::now();
    for armed in &armed {
        written.push(armed.as_ref().is_ok_and(|armed| armed.write(&line)));
    }
    let span = begun.elapsed();
    line.limit();
    let running: Results<SeatRunning> =
        armed.into_iter().zip(written).map(|(armed, written)| Ok(armed?.note(written)?)).collect();
    let some = running.iter().any(Result::is_ok);
    (running, some.then_some(span))
}

fn duration(time: SimTime) -> Duration {
    Duration::from_nanos(time.as_nanos())
}

fn since(epoch: Instant, instant: Instant) -> u64 {
    nanoseconds(instant.saturating_duration_since(epoch))
}

/// A run lasts less than 584 years.
fn nanoseconds(duration: Duration) -> u64 {
    duration.as_nanos() as u64
}
