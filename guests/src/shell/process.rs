//! The process of the next command: made ahead, while the guest is idle.
//!
//! Pure; owned by the machine.

use std::time::{Duration, Instant};

use super::frame::Key;
use super::machine::Lost;

/// How long the agent may take to answer before the host repeats itself, doubled each time.
pub(super) const ANSWER: Duration = Duration::from_secs(2);
/// Repetitions after which the shell is given up: 2 + 4 + 8 + 16 s.
pub(super) const TRIES: u32 = 4;
/// Answers `huh` in a row after which the shell is given up. Each line that was repeated because the
/// guest was slow is one, once it reads them all; so these are no measure of time.
pub(super) const HUHS: u32 = 64;

/// What tells one process from another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Ticket {
    /// Counts up; names the output file of a background command.
    pub(super) number: u32,
    /// Key of its frames until it has started.
    pub(super) open: Key,
    /// Key of its closing frame.
    pub(super) close: Key,
}

/// What a frame meant for the process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum News {
    /// Nothing.
    None,
    /// It has ended.
    Gone,
    /// Write this to the guest.
    Send(String),
    /// The shell is given up.
    Lost(Lost),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Asked,
    Ready,
    Dismissed,
}

/// See the module's documentation.
pub(super) struct Process {
    ticket: Ticket,
    background: bool,
    state: State,
    ask_at: Instant,
    wait: Duration,
    tries: u32,
    huhs: u32,
}

impl Process {
    /// A process about to be asked for with [`Process::request`].
    pub(super) fn new(ticket: Ticket, background: bool, now: Instant) -> Self {
        let (state, wait) = (State::Asked, ANSWER);
        Self { ticket, background, state, ask_at: now + wait, wait, tries: 0, huhs: 0 }
    }

    /// A process that waits for a command already.
    pub(super) fn ready(ticket: Ticket, background: bool, now: Instant) -> Self {
        Self { state: State::Ready, ..Self::new(ticket, background, now) }
    }

    /// The line that asks for it.
    pub(super) fn request(&self) -> String {
        let verb = if self.background { 'b' } else { 'a' };
        let Ticket { number, open, close } = self.ticket;
        format!("{verb} {number} {open} {close}\n")
    }

    /// What tells it from others.
    pub(super) fn ticket(&self) -> Ticket {
        self.ticket
    }

    /// Whether it can take a command, and of which kind: in the background or not.
    pub(super) fn takes(&self) -> Option<bool> {
        (self.state == State::Ready).then_some(self.background)
    }

    /// Tells it to end without a command; gives the line for the guest.
    pub(super) fn dismiss(&mut self, now: Instant) -> String {
        self.state = State::Dismissed;
        (self.tries, self.huhs) = (0, 0);
        self.wait = ANSWER;
        self.ask_at = now + self.wait;
        "x\n".to_owned()
    }

    /// When [`Process::handle_timeout`] is due.
    pub(super) fn due(&self) -> Option<Instant> {
        (self.state != State::Ready).then_some(self.ask_at)
    }

    /// A frame with one of its keys, or one of the session.
    pub(super) fn handle_frame(&mut self, key: Key, words: &[&str], now: Instant) -> News {
        if key == self.ticket.close {
            return if matches!(words, ["end", _]) { News::Gone } else { News::None };
        }
        let is_own = key == self.ticket.open;
        match (self.state, words) {
            // Whatever it says, it is there and reads.
            (State::Asked, ["armed" | "huh"]) if is_own => {
                self.state = State::Ready;
                News::None
            }
            (State::Asked, ["huh"]) => self.say_again(self.request(), now),
            (State::Dismissed, ["huh"]) if is_own => self.say_again("x\n".to_owned(), now),
            (_, ["gone", number, _]) if number.parse() == Ok(self.ticket.number) => News::Gone,
            _ => News::None,
        }
    }

    /// Repeats what got no answer.
    pub(super) fn handle_timeout(&mut self, now: Instant) -> News {
        if now < self.ask_at {
            return News::None;
        }
        match self.state {
            State::Ready => News::None,
            State::Asked => self.repeat(self.request(), now),
            State::Dismissed => {
                let Ticket { number, close, .. } = self.ticket;
                self.repeat(format!("q {number} {close}\n"), now)
            }
        }
    }

    /// A line was not understood: perhaps this one.
    fn say_again(&mut self, line: String, now: Instant) -> News {
        self.huhs += 1;
        if self.huhs > HUHS {
            return News::Lost(Lost::Silent { while_: "making a process" });
        }
        self.ask_at = now + self.wait;
        News::Send(line)
    }

    fn repeat(&mut self, line: String, now: Instant) -> News {
        self.tries += 1;
        if self.tries > TRIES {
            return News::Lost(Lost::Silent { while_: "making a process" });
        }
        self.wait *= 2;
        self.ask_at = now + self.wait;
        News::Send(line)
    }
}
