//! One command on its way: given a process, delivered, armed, released, running, ended.
//!
//! Pure; owned by the machine, which does what the returned [`Next`] say. Every phase has a deadline:
//! what got no answer is asked again in a way that cannot run a command twice, and a command that is
//! overdue is ended with TERM, then KILL.

use std::time::{Duration, Instant};

use super::agent;
use super::frame::Key;
use super::machine::{Event, Lost, Start};
use super::process::{ANSWER, HUHS, TRIES, Ticket};

/// Pieces on their way without an acknowledgement: less than a terminal holds.
const WINDOW: usize = 3;
/// A running command that is silent this long may have lost its closing frame: ask, and ask again
/// after twice the time, at most [`ASK_MOST`].
const ASK_FIRST: Duration = Duration::from_secs(1);
const ASK_MOST: Duration = Duration::from_secs(16);
/// From TERM to KILL.
const GRACE: Duration = Duration::from_secs(1);
/// From KILL to giving the shell up, with more KILLs in between: TCG guests under load are slow.
const AFTER_KILL: Duration = Duration::from_secs(10);

/// Where a command is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    /// Its process is not ready.
    Waiting,
    /// Its pieces are being sent: so many, of which so many are acknowledged.
    Sending { sent: usize, acknowledged: usize },
    /// All of it is there; its process waits for the releasing byte.
    Armed,
    /// Released; the opening frame has not arrived.
    Released,
    /// The opening frame has arrived, from this process.
    Running { process: u32 },
}

/// What the machine shall do.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// Write this to the guest.
    Send(String),
    /// Tell this.
    Event(Event),
    /// The process is gone; give the command another.
    Again,
    /// The command no longer occupies the shell.
    Done,
    /// The command is given up, but its process may take another.
    Return,
    /// Give the shell up.
    Lost(Lost),
}

/// See the module's documentation.
pub(super) struct Job {
    start: Start,
    pieces: Vec<String>,
    ticket: Option<Ticket>,
    phase: Phase,
    /// When to repeat or ask, and how long to wait the next time.
    ask_at: Instant,
    wait: Duration,
    tries: u32,
    huhs: u32,
    /// When the command, running, is overdue.
    overdue: Option<Instant>,
    ending: Option<Ending>,
    cooked: Option<Cooked>,
}

/// A command being ended.
struct Ending {
    timed_out: bool,
    kill_at: Instant,
    give_up: Instant,
}

/// The output side of a terminal that could not be made raw.
#[derive(Default)]
struct Cooked {
    /// Lines sent while the command runs; their echoes are not its output.
    echoes: Vec<Vec<u8>>,
    held: Vec<u8>,
}

impl Job {
    /// A command that has no process yet.
    pub(super) fn new(start: Start, cooked: bool, now: Instant) -> Self {
        Self {
            pieces: agent::pieces(&start.text),
            start,
            ticket: None,
            phase: Phase::Waiting,
            ask_at: now,
            wait: ANSWER,
            tries: 0,
            huhs: 0,
            overdue: None,
            ending: None,
            cooked: cooked.then(Cooked::default),
        }
    }

    /// Whether it is to run in the background, if it still needs a process.
    pub(super) fn wants_process(&self) -> Option<bool> {
        (self.phase == Phase::Waiting).then_some(self.start.background)
    }

    /// Whether it is to run in the background.
    pub(super) fn is_background(&self) -> bool {
        self.start.background
    }

    /// Here is its process.
    pub(super) fn deliver(&mut self, ticket: Ticket, now: Instant) -> Vec<Next> {
        self.ticket = Some(ticket);
        self.wait = ANSWER;
        self.send_from_the_first(now)
    }

    /// Where the command is.
    pub(super) fn phase(&self) -> Phase {
        self.phase
    }

    /// Its process, if it has one.
    pub(super) fn ticket(&self) -> Option<Ticket> {
        self.ticket
    }

    /// When [`Job::handle_timeout`] is due.
    pub(super) fn due(&self) -> Option<Instant> {
        let ask = (!matches!(self.phase, Phase::Waiting | Phase::Armed)).then_some(self.ask_at);
        let end = match &self.ending {
            Some(ending) => Some(ending.kill_at.min(ending.give_up)),
            None => self.overdue,
        };
        [ask, end].into_iter().flatten().min()
    }

    /// Notes the release; false if the command was not waiting for it.
    pub(super) fn release(&mut self, now: Instant) -> bool {
        if self.phase != Phase::Armed {
            return false;
        }
        self.phase = Phase::Released;
        self.expect_answer(now);
        true
    }

    /// Ends the command, wherever it is.
    pub(super) fn cancel(&mut self, now: Instant) -> Vec<Next> {
        match self.phase {
            Phase::Waiting => vec![Next::Done],
            Phase::Sending { .. } if !self.is_told_to_start() => vec![Next::Return],
            Phase::Armed => vec![Next::Return],
            _ if self.ending.is_none() => self.end(false, now),
            _ => Vec::new(),
        }
    }

    /// A line goes to the guest while the command may be running.
    pub(super) fn note_sent(&mut self, line: &[u8]) {
        if let (Some(cooked), Phase::Running { .. }) = (&mut self.cooked, self.phase) {
            cooked.echoes.push(line.trim_ascii_end().to_vec());
        }
    }

    /// The console's text; gives the command's output in it.
    pub(super) fn handle_text(&mut self, text: Vec<u8>, now: Instant) -> Option<Vec<u8>> {
        let Phase::Running { .. } = self.phase else {
            return None;
        };
        self.wait = ASK_FIRST;
        self.ask_at = now + self.wait;
        match &mut self.cooked {
            None => Some(text),
            Some(cooked) => Some(cooked.clean(&text)).filter(|clean| !clean.is_empty()),
        }
    }

    /// A frame with one of the process's keys, or one of the session, that began to arrive at `now`.
    pub(super) fn handle_frame(&mut self, key: Key, words: &[&str], now: Instant) -> Vec<Next> {
        let Some(ticket) = self.ticket else {
            return Vec::new();
        };
        let is_me = |number: &str| number.parse() == Ok(ticket.number);
        if key == ticket.close {
            return match words {
                ["end", status] => {
                    status.parse().map_or_else(|_| Vec::new(), |s| self.ended(s, now))
                }
                _ => Vec::new(),
            };
        }
        match words {
            ["ack", index, length] if key == ticket.open => self.acknowledged(index, length, now),
            ["start", process] if key == ticket.open => self.started(process, now),
            // Said by the process itself, so it has not started.
            ["huh"] if key == ticket.open => self.misunderstood(now),
            ["busy", number, process] if is_me(number) => self.started(process, now),
            ["gone", number, _] if is_me(number) => self.died(now),
            _ => Vec::new(),
        }
    }

    /// Repeats, asks, ends or gives up, whatever is due.
    pub(super) fn handle_timeout(&mut self, now: Instant) -> Vec<Next> {
        let mut next = Vec::new();
        if let Some(ending) = &mut self.ending {
            if now >= ending.give_up {
                return vec![Next::Lost(Lost::Silent { while_: "ending a command" })];
            }
            if now >= ending.kill_at {
                ending.kill_at = now + 2 * GRACE;
                next.extend(self.signal("KILL"));
                self.ask_soon(now);
            }
        } else if self.overdue.is_some_and(|overdue| now >= overdue) {
            next.extend(self.end(true, now));
        }
        if now >= self.ask_at {
            next.extend(self.ask(now));
        }
        next
    }

    fn expect_answer(&mut self, now: Instant) {
        (self.tries, self.huhs) = (0, 0);
        self.wait = ANSWER;
        self.ask_at = now + self.wait;
    }

    /// Whether the line that starts the command is on its way, or was.
    fn is_told_to_start(&self) -> bool {
        match self.phase {
            Phase::Sending { sent, .. } => self.start.at_once && sent == self.pieces.len(),
            Phase::Waiting | Phase::Armed => false,
            Phase::Released | Phase::Running { .. } => true,
        }
    }

    fn send_from_the_first(&mut self, now: Instant) -> Vec<Next> {
        if let Some(whole) = self.whole() {
            self.phase = Phase::Released;
            self.ask_at = now + self.wait;
            return vec![Next::Send(whole)];
        }
        self.phase = Phase::Sending { sent: 0, acknowledged: 0 };
        self.ask_at = now + self.wait;
        self.fill_window()
    }

    fn fill_window(&mut self) -> Vec<Next> {
        let Phase::Sending { sent, acknowledged } = self.phase else {
            return Vec::new();
        };
        let end = self.pieces.len().min(acknowledged + WINDOW);
        let mut lines = self.pieces[sent..end].concat();
        if self.start.at_once && end == self.pieces.len() && sent < end {
            lines.push_str(&self.go());
        }
        self.phase = Phase::Sending { sent: end, acknowledged };
        vec![Next::Send(lines)]
    }

    /// The line that brings all of a short command and starts it, if nothing else is to start it.
    fn whole(&self) -> Option<String> {
        match self.pieces.as_slice() {
            [piece] if self.start.at_once => agent::whole(piece),
            _ => None,
        }
    }

    /// The line that starts the command if all of it arrived.
    fn go(&self) -> String {
        let length: usize = self.pieces.iter().map(|piece| piece.len() - 1).sum();
        format!("g {length}\n")
    }

    fn acknowledged(&mut self, index: &str, length: &str, now: Instant) -> Vec<Next> {
        let Phase::Sending { sent, acknowledged } = self.phase else {
            return Vec::new();
        };
        if acknowledged == sent || index.parse() != Ok(acknowledged) {
            return Vec::new();
        }
        if length.parse() != Ok(self.pieces[acknowledged].len() - 1) {
            // Bytes were lost on the way.
            return self.repeat_delivery(now);
        }
        self.expect_answer(now);
        let acknowledged = acknowledged + 1;
        self.phase = Phase::Sending { sent, acknowledged };
        if acknowledged < self.pieces.len() {
            return self.fill_window();
        }
        if self.start.at_once {
            self.phase = Phase::Released;
            return Vec::new();
        }
        self.phase = Phase::Armed;
        vec![Next::Event(Event::Armed)]
    }

    fn started(&mut self, process: &str, now: Instant) -> Vec<Next> {
        let (Ok(process), Some(ticket), Phase::Sending { .. } | Phase::Armed | Phase::Released) =
            (process.parse(), self.ticket, self.phase)
        else {
            return Vec::new();
        };
        self.phase = Phase::Running { process };
        self.wait = ASK_FIRST;
        self.ask_at = now + self.wait;
        self.overdue = self.start.timeout.map(|timeout| now + timeout);
        let Ticket { number, close, .. } = ticket;
        let mut next = vec![Next::Event(Event::Started { at: now, process, number, close })];
        if self.ending.is_some() {
            next.extend(self.signal("TERM"));
        }
        if self.start.background {
            next.push(Next::Done);
        }
        next
    }

    fn ended(&mut self, status: u8, now: Instant) -> Vec<Next> {
        let mut next = Vec::new();
        match self.phase {
            Phase::Waiting | Phase::Sending { .. } if !self.is_told_to_start() => {
                return self.died(now);
            }
            Phase::Running { .. } => {
                let held = self.cooked.as_mut().map(Cooked::rest);
                next.extend(
                    held.filter(|held| !held.is_empty())
                        .map(|held| Next::Event(Event::Output(held))),
                );
            }
            // The opening frame was lost; or the process was killed while it waited, and another
            // must not get the byte that may be on its way.
            _ => next.extend(self.unseen_start(now)),
        }
        next.push(Next::Event(Event::Ended {
            status,
            timed_out: self.ending.as_ref().is_some_and(|e| e.timed_out),
        }));
        next.push(Next::Done);
        next
    }

    /// The process ended before it started the command.
    fn died(&mut self, now: Instant) -> Vec<Next> {
        if self.is_told_to_start() {
            // A background command; how it ended is told apart from its start.
            let mut next: Vec<Next> = self.unseen_start(now).into_iter().collect();
            next.push(Next::Done);
            return next;
        }
        self.ticket = None;
        self.tries += 1;
        if self.tries > TRIES {
            return vec![Next::Lost(Lost::Silent { while_: "taking a command" })];
        }
        self.phase = Phase::Waiting;
        vec![Next::Again]
    }

    fn unseen_start(&self, now: Instant) -> Option<Next> {
        let Ticket { number, close, .. } = self.ticket?;
        let started = Event::Started { at: now, process: 0, number, close };
        (!matches!(self.phase, Phase::Running { .. })).then_some(Next::Event(started))
    }

    /// Asks for what did not come.
    fn ask(&mut self, now: Instant) -> Vec<Next> {
        let Some(Ticket { number, close, .. }) = self.ticket else {
            return Vec::new();
        };
        let query = Next::Send(format!("q {number} {close}\n"));
        match self.phase {
            Phase::Waiting | Phase::Armed => Vec::new(),
            Phase::Sending { .. } => self.repeat_delivery(now),
            Phase::Running { .. } => {
                self.wait = (2 * self.wait).min(ASK_MOST);
                self.ask_at = now + self.wait;
                vec![query]
            }
            Phase::Released => {
                self.tries += 1;
                if self.tries > TRIES {
                    return vec![Next::Lost(Lost::Silent { while_: "starting a command" })];
                }
                self.wait *= 2;
                self.ask_at = now + self.wait;
                // Perhaps only the starting line was lost. The agent would not mind it.
                let again = || Next::Send(self.whole().unwrap_or_else(|| self.go()));
                vec![if self.tries == 1 { again() } else { query }]
            }
        }
    }

    /// A line was not understood: perhaps one of the delivery.
    fn misunderstood(&mut self, now: Instant) -> Vec<Next> {
        self.huhs += 1;
        self.deliver_again(self.huhs > HUHS, now)
    }

    /// Sends all pieces anew, and waits longer for an answer.
    fn repeat_delivery(&mut self, now: Instant) -> Vec<Next> {
        self.tries += 1;
        self.wait *= 2;
        self.deliver_again(self.tries > TRIES, now)
    }

    /// Sends all pieces anew, unless that was tried often enough.
    fn deliver_again(&mut self, is_enough: bool, now: Instant) -> Vec<Next> {
        if !matches!(self.phase, Phase::Sending { .. } | Phase::Released) {
            return Vec::new();
        }
        if is_enough {
            return vec![Next::Lost(Lost::Silent { while_: "taking a command" })];
        }
        if self.phase == Phase::Released {
            self.start.at_once = true;
        }
        self.send_from_the_first(now)
    }

    fn end(&mut self, timed_out: bool, now: Instant) -> Vec<Next> {
        self.ending =
            Some(Ending { timed_out, kill_at: now + GRACE, give_up: now + GRACE + AFTER_KILL });
        self.ask_soon(now);
        self.signal("TERM").into_iter().collect()
    }

    /// A command that killed what waits for it ends without a word.
    fn ask_soon(&mut self, now: Instant) {
        if let Phase::Running { .. } = self.phase {
            self.wait = ASK_FIRST;
            self.ask_at = self.ask_at.min(now + self.wait);
        }
    }

    fn signal(&mut self, signal: &str) -> Option<Next> {
        match self.phase {
            // 0 is the agent's own group.
            Phase::Running { process } if process > 1 => {
                Some(Next::Send(format!("k {signal} {process}\n")))
            }
            _ => None,
        }
    }
}

impl Cooked {
    /// `text` with LF for CR LF and without echoes; an end that may go on is held.
    fn clean(&mut self, text: &[u8]) -> Vec<u8> {
        self.held.extend_from_slice(text);
        for echo in std::mem::take(&mut self.echoes) {
            let line = [&echo[..], b"\r\n"].concat();
            match self.held.windows(line.len()).position(|w| w == line) {
                Some(at) => drop(self.held.drain(at..at + line.len())),
                None => self.echoes.push(echo),
            }
        }
        // While an echo is expected, its line must be complete to be seen.
        let keep = match self.held.iter().rposition(|&b| b == b'\n') {
            _ if self.echoes.is_empty() => usize::from(self.held.ends_with(b"\r")),
            Some(at) => self.held.len() - at - 1,
            None => self.held.len(),
        };
        let rest = self.held.split_off(self.held.len() - keep);
        let whole = std::mem::replace(&mut self.held, rest);
        line_feeds(&whole)
    }

    fn rest(&mut self) -> Vec<u8> {
        self.echoes.clear();
        line_feeds(&std::mem::take(&mut self.held))
    }
}

fn line_feeds(bytes: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(bytes.len());
    for (i, &byte) in bytes.iter().enumerate() {
        if byte != b'\r' || bytes.get(i + 1) != Some(&b'\n') {
            out.push(byte);
        }
    }
    out
}
