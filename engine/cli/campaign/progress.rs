//! Progress of a campaign: a live bar on a terminal, lines elsewhere.

use std::io::IsTerminal;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use tapestry_campaign::capacity::about;
use tapestry_campaign::runner::News;
use tapestry_campaign::store::State;

use crate::summary::count;

/// Without a terminal, a line this often at most.
const PAUSE: Duration = Duration::from_secs(10);
/// Runs that do not count and get a line of their own; more are counted.
const LINES: usize = 20;

pub(super) struct Progress {
    bar: ProgressBar,
    quiet: bool,
    done: u64,
    said: Instant,
    live: bool,
    /// Runs that do not count.
    wrong: usize,
}

impl Progress {
    pub(super) fn new(quiet: bool) -> Self {
        let live = !quiet && std::io::stderr().is_terminal();
        let bar = ProgressBar::new(0);
        bar.set_draw_target(if live {
            ProgressDrawTarget::stderr()
        } else {
            ProgressDrawTarget::hidden()
        });
        let template = "{bar:30} {pos}/{len} runs, {elapsed}, {eta} left  {msg}";
        bar.set_style(
            ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar()),
        );
        Self { bar, quiet, done: 0, said: Instant::now(), live, wrong: 0 }
    }

    /// Takes note of what happened.
    pub(super) fn on(&mut self, news: &News<'_>) {
        match news {
            News::Begun { done, remaining } => {
                self.bar.set_length(*remaining as u64);
                if *done > 0 && !self.quiet {
                    self.say(&format!("{} done before, {remaining} left", count(*done, "run")));
                }
            }
            News::Ended { point, state, reason, again, remaining, left_seconds } => {
                self.done += 1;
                let left = *remaining as u64;
                self.bar.set_length(self.done + left);
                self.bar.set_position(self.done);
                if *state != State::Counted {
                    self.wrong += 1;
                }
                if *state != State::Counted && self.wrong <= LINES {
                    let why = reason.map_or(String::new(), |reason| format!(": {reason}"));
                    let again = if *again { "; will be repeated" } else { "" };
                    self.say(&format!("run at {point}: {}{why}{again}", state.as_str()));
                    if self.wrong == LINES {
                        self.say("further runs that do not count are counted only; the report lists them");
                    }
                } else if !self.live && !self.quiet && (self.said.elapsed() > PAUSE || left == 0) {
                    self.said = Instant::now();
                    let time = match left_seconds {
                        Some(seconds) if left > 0 => format!(", about {}", about(*seconds)),
                        _ => String::new(),
                    };
                    self.say(&format!(
                        "{} done, {left} left{time}",
                        count(self.done as usize, "run")
                    ));
                }
                self.bar.set_message((*point).to_owned());
            }
            News::FellBack { jobs, reason } => self.say(&format!(
                "runs side by side disturb each other ({reason}): from now on {jobs} at a time"
            )),
            News::Interrupted(cause) => {
                self.say(&format!("{cause}: ending the runs under way (again: leave them)"));
            }
        }
    }

    fn say(&self, line: &str) {
        self.bar.suspend(|| crate::tell!("{line}"));
    }

    pub(super) fn end(&self) {
        self.bar.finish_and_clear();
        if self.wrong > LINES {
            crate::tell!("{} did not count", count(self.wrong, "run"));
        }
    }
}
