//! Tasks in virtual time: as in real time (see `tapestry_guests::task`), but all commands of a task
//! start at the same instant, and every timeout counts virtual time.
//!
//! Background commands start one after another in the order of the file, each awaited until `ready:`
//! before the next; with real nodes those on different nodes come up side by side.

use std::path::{Path, PathBuf};
use std::time::Duration;

use tapestry_core::SimTime;
use tapestry_guests::shell::{Collector, CommandError, RunOptions};
use tapestry_guests::task::{CommandOutcome, TaskError, TaskOutcome, ready_pattern, take_all};
use tapestry_models::CommandId;
use tapestry_topologies::resolved::{Command, NodeIndex, Task, Topology};

use super::simulation::Simulation;
use crate::changes::agenda::Agenda;
use crate::tasks::{DRAIN, Done, Executor, Leftover, why};

/// How long a command may take to end after it was asked to; then its status stays unknown.
const GRACE: SimTime = SimTime::from_secs(10);
/// The signal of a command whose node was ended.
const SIGKILL: u8 = 9;
/// Bytes of output at the end of error messages.
const TAIL_BYTES: usize = 200;

/// Runs tasks on the hosts of a simulation.
pub(super) struct VirtualTasks<'a> {
    simulation: &'a mut Simulation,
    topology: &'a Topology,
    /// Where whole outputs go.
    outputs: PathBuf,
    background: Vec<Underway>,
    /// What the instants of sources count from.
    sources_since: SimTime,
}

/// A command that has been started.
struct Underway {
    outcome: CommandOutcome,
    id: CommandId,
    deadline: SimTime,
}

impl Executor for VirtualTasks<'_> {
    async fn run(&mut self, task: &Task) -> Done {
        let begun = self.simulation.now();
        let deadline = begun.saturating_add(task.timeout);
        let mut commands = Vec::new();
        for command in task.commands.iter().filter(|command| command.background) {
            commands.extend(self.start_background(task, command, deadline).await);
        }
        commands.extend(self.run_foreground(task, deadline).await);
        let stop = |underway: &Underway| task.stop.contains(&underway.outcome.name);
        commands.extend(self.stop_background(stop).await);
        let started = commands.iter().filter(|c| !c.background && c.start_ns.is_some()).count();
        let outcome = TaskOutcome {
            name: task.name.clone(),
            start_ns: begun.as_nanos(),
            end_ns: self.simulation.now().as_nanos(),
            start_skew_ns: (started > 1).then_some(0),
            release_span_ns: (started > 0).then_some(0),
            metrics: take_all(task, &commands),
            commands,
        };
        let failed = outcome.commands.iter().filter(|command| !command.is_ok());
        let reasons: Vec<String> = failed.map(why).collect();
        Done::new(outcome, &reasons)
    }

    async fn drain(&mut self) {
        let Some(last) = self.topology.last_source_frame() else { return };
        let last = self.sources_since.saturating_add(last);
        let last = last.max(self.simulation.now());
        // Once at least, for what is due at this very instant.
        loop {
            self.simulation.step(last).await;
            if self.simulation.now() >= last {
                break;
            }
        }
        let end = last.saturating_add(SimTime::from(DRAIN));
        while self.simulation.is_carrying() && self.simulation.now() < end {
            self.simulation.step(end).await;
        }
    }

    async fn settle(&mut self, _: &Agenda, _: SimTime) {
        self.simulation.make_changes();
    }

    async fn finish(mut self) -> Vec<Leftover> {
        let ended = self.stop_background(|_| true).await.into_iter();
        let leftover = |command: CommandOutcome| {
            let error = (!command.is_ok()).then(|| why(&command));
            Leftover::new(command, error)
        };
        ended.map(leftover).collect()
    }
}

impl<'a> VirtualTasks<'a> {
    /// Tasks of a topology on its simulation; the whole output of each command goes to `outputs/` in
    /// the run directory.
    pub(super) fn new(
        simulation: &'a mut Simulation,
        topology: &'a Topology,
        directory: &Path,
    ) -> Self {
        let outputs = directory.join("outputs");
        Self { simulation, topology, outputs, background: Vec::new(), sources_since: SimTime::ZERO }
    }

    /// Starts the sources of frames.
    pub(super) fn start_sources(&mut self) {
        self.sources_since = self.simulation.now();
        self.simulation.start_sources();
    }

    /// Runs the nodes' `init:` commands, one after another; a sentence for the first of each node
    /// that fails, which is its last.
    pub(super) async fn init(&mut self) -> Vec<(NodeIndex, String)> {
        let mut failed = Vec::new();
        for index in 0..self.topology.nodes.len() {
            if let Err(error) = self.init_node(index).await {
                failed.push((index, error));
            }
        }
        failed
    }

    async fn init_node(&mut self, index: NodeIndex) -> Result<(), String> {
        let node = &self.topology.nodes[index];
        for text in &node.init {
            let what = format!("node {}: init command `{text}`", node.name);
            let options = RunOptions::default();
            let output = Collector::new(options.output_limit, None)
                .map_err(|error| format!("{what}: {error}"))?;
            let id = self.simulation.start(index, text, output, false);
            let id = id.map_err(|error| format!("{what}: {error}"))?;
            let limit = SimTime::from(options.timeout);
            let deadline = self.simulation.now().saturating_add(limit);
            self.wait(&[id], deadline).await;
            let Some(process) = self.simulation.take(id) else { continue };
            let said = process.output.finish().to_text();
            match process.ended {
                Some((_, 0)) => {}
                Some((_, status)) => {
                    return Err(format!("{what} failed with status {status}; it said:\n{said}"));
                }
                None => return Err(format!("{what} took longer than {limit}")),
            }
        }
        Ok(())
    }

    /// Starts a background command; gives what became of it if it is of no use.
    async fn start_background(
        &mut self,
        task: &Task,
        command: &Command,
        deadline: SimTime,
    ) -> Option<CommandOutcome> {
        let mut outcome = CommandOutcome::not_run(&task.name, command, self.name(command.node));
        let pattern = command.ready.as_deref().map(|text| ready_pattern(&command.name, text));
        let pattern = match pattern.transpose() {
            Ok(pattern) => pattern,
            Err(error) => {
                outcome.error = Some(error);
                return Some(outcome);
            }
        };
        let id = match self.start(command, &outcome, pattern.is_some()) {
            Ok(id) => id,
            Err(error) => {
                outcome.error = Some(error);
                return Some(outcome);
            }
        };
        outcome.start_ns = Some(self.simulation.now().as_nanos());
        let begun = self.simulation.now();
        while let Some(pattern) = &pattern {
            let Some(process) = self.simulation.process(id) else { break };
            let seen = process.watched.as_deref().unwrap_or_default();
            if pattern.is_match(seen) {
                break;
            }
            let tail = || {
                let tail = &seen[seen.len().saturating_sub(TAIL_BYTES)..];
                String::from_utf8_lossy(tail).trim().to_owned()
            };
            let (node, name) = (outcome.node.clone(), command.name.clone());
            if let Some((_, status)) = process.ended {
                let (pattern, output) = (pattern.to_string(), tail());
                let error = TaskError::EndedEarly { node, command: name, pattern, status, output };
                outcome.error = Some(error);
                break;
            }
            if self.simulation.now() >= deadline {
                let (pattern, output) = (pattern.to_string(), tail());
                let after = Duration::from_nanos((self.simulation.now() - begun).as_nanos());
                outcome.error =
                    Some(TaskError::NotReady { node, command: name, pattern, after, output });
                break;
            }
            self.simulation.step(deadline).await;
        }
        if let Some(process) = self.simulation.process_mut(id) {
            process.watched = None;
        }
        let underway = Underway { outcome, id, deadline };
        if underway.outcome.error.is_none() {
            self.background.push(underway);
            return None;
        }
        // Not ready: it is of no use and would only disturb.
        self.end(vec![underway]).await.pop()
    }

    /// Starts the foreground commands at this instant and waits for their ends.
    async fn run_foreground(&mut self, task: &Task, deadline: SimTime) -> Vec<CommandOutcome> {
        let now = self.simulation.now();
        let mut all: Vec<Result<Underway, CommandOutcome>> = Vec::new();
        for command in task.commands.iter().filter(|command| !command.background) {
            let mut outcome = CommandOutcome::not_run(&task.name, command, self.name(command.node));
            let deadline =
                command.timeout.map_or(deadline, |own| now.saturating_add(own).min(deadline));
            all.push(match self.start(command, &outcome, false) {
                Ok(id) => Ok(Underway { outcome, id, deadline }),
                Err(error) => {
                    outcome.error = Some(error);
                    Err(outcome)
                }
            });
        }
        // Those whose time is up are asked to end, the others go on.
        loop {
            let running = all.iter_mut().flatten().filter(|underway| {
                !underway.outcome.timed_out && is_running(self.simulation, underway.id)
            });
            let Some(first) = running.min_by_key(|underway| underway.deadline) else { break };
            if self.simulation.now() >= first.deadline {
                first.outcome.timed_out = true;
                self.simulation.stop(first.id);
                continue;
            }
            let deadline = first.deadline;
            self.simulation.step(deadline).await;
        }
        let ids: Vec<CommandId> = all.iter().flatten().map(|underway| underway.id).collect();
        self.wait(&ids, self.simulation.now().saturating_add(GRACE)).await;
        let collect = |command| match command {
            Ok(underway) => self.collect(underway),
            Err(outcome) => outcome,
        };
        all.into_iter().map(collect).collect()
    }

    /// Ends the background commands that `which` names, in the order of their starts.
    async fn stop_background(&mut self, which: impl Fn(&Underway) -> bool) -> Vec<CommandOutcome> {
        let (stopped, kept) = std::mem::take(&mut self.background).into_iter().partition(which);
        self.background = kept;
        let mut stopped: Vec<Underway> = stopped;
        for underway in &mut stopped {
            underway.outcome.stopped = is_running(self.simulation, underway.id);
        }
        self.end(stopped).await
    }

    async fn end(&mut self, commands: Vec<Underway>) -> Vec<CommandOutcome> {
        let ids: Vec<CommandId> = commands.iter().map(|underway| underway.id).collect();
        for &id in &ids {
            self.simulation.stop(id);
        }
        self.wait(&ids, self.simulation.now().saturating_add(GRACE)).await;
        commands.into_iter().map(|underway| self.collect(underway)).collect()
    }

    /// Lets time pass until these commands have ended, at most until `deadline`.
    async fn wait(&mut self, ids: &[CommandId], deadline: SimTime) {
        while self.simulation.now() < deadline
            && ids.iter().any(|&id| is_running(self.simulation, id))
        {
            self.simulation.step(deadline).await;
        }
    }

    fn start(
        &mut self,
        command: &Command,
        outcome: &CommandOutcome,
        watched: bool,
    ) -> Result<CommandId, TaskError> {
        let path = self.outputs.join(outcome.file_name());
        let limit = RunOptions::default().output_limit;
        let output = Collector::new(limit, Some(&path)).map_err(|source| {
            let (node, command) = (outcome.node.clone(), command.name.clone());
            CommandError::OutputFile { node, command, path, source }
        })?;
        let id = self.simulation.start(command.node, &command.text, output, watched);
        id.map_err(|_| TaskError::NoShell { command: command.name.clone(), node: command.node })
    }

    /// What became of a command.
    fn collect(&mut self, underway: Underway) -> CommandOutcome {
        let Underway { mut outcome, id, .. } = underway;
        if let Some(process) = self.simulation.take(id) {
            outcome.start_ns = Some(process.started.as_nanos());
            if let Some((at, status)) = process.ended {
                outcome.end_ns = Some(at.as_nanos());
                outcome.set_status(status);
            }
            outcome.set_output(process.output.finish());
            // Nothing else kills commands here.
            if outcome.signal == Some(SIGKILL)
                && let Some(why) = self.simulation.end_of_node(outcome.node_index, process.started)
            {
                let (node, command) = (outcome.node.clone(), outcome.text.clone());
                let error = CommandError::NodeEnded { node, command, why, ran: true, cut: None };
                outcome.error = Some(error.into());
            }
        }
        outcome
    }

    fn name(&self, node: NodeIndex) -> String {
        self.topology.nodes[node].name.clone()
    }
}

fn is_running(simulation: &Simulation, id: CommandId) -> bool {
    simulation.process(id).is_some_and(|process| process.ended.is_none())
}
