//! Progress of a run for people: a live line on a terminal, plain lines elsewhere.
//!
//! Goes to standard error, so that standard output carries results only.

use std::collections::HashSet;
use std::io::IsTerminal;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};
use parking_lot::Mutex;
use tapestry_lab::event::{Event, Groups, Observer};

use crate::summary::count;

/// How much is said.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verbosity {
    /// Warnings and failures only.
    Quiet,
    /// What a person wants to follow.
    Normal,
}

/// Prints events.
pub(crate) struct Progress {
    verbosity: Verbosity,
    state: Mutex<State>,
}

struct State {
    bar: ProgressBar,
    /// Errors that have been told.
    said: HashSet<String>,
    nodes: usize,
    ready: usize,
    /// Nodes that become ready from now on have started anew.
    is_lab_ready: bool,
}

impl Progress {
    pub(crate) fn new(verbosity: Verbosity) -> Self {
        let live = verbosity == Verbosity::Normal && std::io::stderr().is_terminal();
        let bar = if live { ProgressBar::new_spinner() } else { ProgressBar::hidden() };
        bar.set_style(
            ProgressStyle::with_template("{spinner} {msg} {elapsed}")
                .unwrap_or_else(|_| ProgressStyle::default_spinner()),
        );
        Self {
            verbosity,
            state: Mutex::new(State {
                bar,
                said: HashSet::new(),
                nodes: 0,
                ready: 0,
                is_lab_ready: false,
            }),
        }
    }

    /// Starts the live line (a thread of its own keeps it turning).
    fn follow(state: &State, message: String) {
        if state.bar.is_hidden() {
            return;
        }
        state.bar.reset_elapsed();
        state.bar.set_message(message);
        state.bar.enable_steady_tick(Duration::from_millis(100));
    }

    fn say(&self, state: &State, text: &str) {
        if self.verbosity == Verbosity::Normal {
            state.bar.suspend(|| crate::tell!("{text}"));
        }
    }
}

impl Progress {
    /// Tells an error at once, whatever the verbosity.
    fn tell(state: &mut State, error: &str) {
        if state.said.insert(error.to_owned()) {
            state.bar.suspend(|| crate::tell!("error: {error}"));
        }
    }

    /// Whether this error has been told, so that it need not be told again at the end.
    pub(crate) fn has_said(&self, error: &str) -> bool {
        self.state.lock().said.contains(error)
    }
}

impl Observer for Progress {
    fn observe(&self, event: &Event) {
        let mut state = self.state.lock();
        match event {
            Event::RunStarted { name, nodes, links, .. } => {
                state.nodes = *nodes;
                let (nodes, links) = (count(*nodes, "node"), count(*links, "link"));
                self.say(&state, &format!("{name}: {nodes}, {links}"));
                Self::follow(&state, format!("starting {nodes}"));
            }
            Event::NodeReady { node, boot_seconds, configure_seconds } => {
                let seconds = boot_seconds + configure_seconds;
                if state.is_lab_ready {
                    self.say(&state, &format!("  {node} ready again in {seconds:.1} s"));
                    return;
                }
                state.ready += 1;
                let count = format!("{}/{}", state.ready, state.nodes);
                self.say(&state, &format!("  {node} ready in {seconds:.1} s  [{count}]"));
                state.bar.set_message(format!("{count} nodes ready"));
            }
            Event::NodeFailed { error, .. } => Self::tell(&mut state, error),
            Event::LabReady { seconds } => {
                state.is_lab_ready = true;
                state.bar.disable_steady_tick();
                state.bar.finish_and_clear();
                self.say(&state, &format!("lab ready in {seconds:.1} s"));
            }
            Event::TaskStarted { task, commands, timeout_seconds } => {
                let text = format!("task {task}: {}", count(*commands, "command"));
                if state.bar.is_hidden() {
                    self.say(&state, &format!("{text}, at most {timeout_seconds} s"));
                }
                Self::follow(&state, text);
            }
            Event::TaskSkipped { task, when } => {
                self.say(&state, &format!("task {task}: left out, because {when} is false"));
            }
            Event::TaskEnded { task, seconds, failures, .. } => {
                state.bar.disable_steady_tick();
                state.bar.finish_and_clear();
                self.say(&state, &format!("task {task} ended after {seconds:.1} s"));
                for failure in failures {
                    Self::tell(&mut state, failure);
                }
            }
            Event::Expectation { expression, holds, .. } if !holds => {
                state.bar.suspend(|| crate::tell!("error: expected {expression}, but it is false"));
            }
            Event::Warning { text } => state.bar.suspend(|| crate::tell!("warning: {text}")),
            Event::Interrupted { cause } => {
                state.bar.suspend(|| {
                    crate::tell!("{cause}: ending the run (once more to end it at once)");
                });
            }
            Event::Changed { action, link, node, groups, .. } => {
                let subject = match (link.as_ref().or(node.as_ref()), groups) {
                    (Some(name), _) => name.clone(),
                    (None, Some(Groups::Names(names))) => names.join(", "),
                    (None, Some(Groups::Nodes(groups))) => {
                        groups.keys().map(String::as_str).collect::<Vec<_>>().join(" | ")
                    }
                    (None, None) => String::new(),
                };
                state.bar.suspend(|| crate::tell!("{action} {subject}"));
            }
            Event::NodeStarted { .. } | Event::Expectation { .. } => {}
            Event::RunEnded { .. } => {
                state.bar.disable_steady_tick();
                state.bar.finish_and_clear();
            }
        }
    }
}
