//! One command on its way through the agent: delivered, armed, released, running, ended.
//!
//! Pure; owned by the machine, which does what the returned [`Next`] say. Every phase has a deadline:
//! what got no answer is asked again in a way that cannot run a command twice, and a command that is
//! overdue is ended with TERM, then KILL.

use std::time::{Duration, Instant};

use super::agent;
use super::frame::Key;
use super::machine::{Event, Lost, Start};

/// How long the agent may take to answer before the host repeats itself, doubled each time.
const ANSWER: Duration = Duration::from_secs(2);
/// Repetitions after which the shell is given up: 2 + 4 + 8 + 16 s.
const TRIES: u32 = 4;
/// A running command that is silent this long may have lost its closing frame: ask, and ask again
/// after twice the time, at most [`ASK_MOST`].
const ASK_FIRST: Duration = Duration::from_secs(1);
const ASK_MOST: Duration = Duration::from_secs(16);
/// Status of a process that was not released, as the agent gives it.
const NOT_STARTED: u8 = 125;
/// From TERM to KILL.
const GRACE: Duration = Duration::from_secs(1);
/// From KILL to giving the shell up, with more KILLs in between: TCG guests under load are slow.
const AFTER_KILL: Duration = Duration::from_secs(10);

/// Where a command is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    /// Its pieces are being sent; `next` is not yet acknowledged.
    Sending { next: usize },
    /// All of it is there; its process is being made.
    Arming,
    /// Its process waits for the releasing byte.
    Armed,
    /// Released; the opening frame has not arrived.
    Released,
    /// The opening frame has arrived, from this process.
    Running { process: u32 },
    /// Told not to start; waiting for its end.
    Cancelled,
}

/// What the machine shall do.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// Write this to the guest.
    Send(Vec<u8>),
    /// Tell this.
    Event(Event),
    /// Start over with a new number and new keys.
    Again,
    /// The command no longer occupies the shell.
    Done,
    /// Give the shell up.
    Lost(Lost),
}

/// See the module's documentation.
pub(super) struct Job {
    start: Start,
    pieces: Vec<String>,
    number: u32,
    open: Key,
    close: Key,
    phase: Phase,
    /// When to repeat or ask, and how long to wait the next time.
    ask_at: Instant,
    wait: Duration,
    tries: u32,
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
    /// A command not yet begun.
    pub(super) fn new(
        start: Start,
        number: u32,
        open: Key,
        close: Key,
        cooked: bool,
        now: Instant,
    ) -> Self {
        Self {
            pieces: agent::pieces(&start.text),
            start,
            number,
            open,
            close,
            phase: Phase::Sending { next: 0 },
            ask_at: now + ANSWER,
            wait: ANSWER,
            tries: 0,
            overdue: None,
            ending: None,
            cooked: cooked.then(Cooked::default),
        }
    }

    /// The first line for the guest.
    pub(super) fn begin(&mut self, now: Instant) -> Vec<u8> {
        self.phase = Phase::Sending { next: 0 };
        self.ask_at = now + self.wait;
        self.pieces[0].clone().into_bytes()
    }

    /// The first line of another try, after [`Next::Again`].
    pub(super) fn begin_again(
        &mut self,
        number: u32,
        open: Key,
        close: Key,
        now: Instant,
    ) -> Vec<u8> {
        (self.number, self.open, self.close) = (number, open, close);
        self.begin(now)
    }

    /// Where the command is.
    pub(super) fn phase(&self) -> Phase {
        self.phase
    }

    /// Its number; another after [`Next::Again`].
    pub(super) fn number(&self) -> u32 {
        self.number
    }

    /// The keys of its frames.
    pub(super) fn keys(&self) -> [Key; 2] {
        [self.open, self.close]
    }

    /// When [`Job::handle_timeout`] is due.
    pub(super) fn due(&self) -> Option<Instant> {
        let ask = (self.phase != Phase::Armed).then_some(self.ask_at);
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
            Phase::Sending { .. } => vec![Next::Done],
            Phase::Arming | Phase::Armed => {
                self.phase = Phase::Cancelled;
                self.expect_answer(now);
                vec![Next::Send(b"x\n".to_vec())]
            }
            Phase::Released | Phase::Running { .. } if self.ending.is_none() => {
                self.end(false, now)
            }
            Phase::Released | Phase::Running { .. } | Phase::Cancelled => Vec::new(),
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

    /// A frame of the session or with one of the command's keys.
    pub(super) fn handle_frame(&mut self, key: Key, words: &[&str], now: Instant) -> Vec<Next> {
        if key == self.close {
            return match words {
                ["end", status] => status.parse().map_or_else(|_| Vec::new(), |s| self.ended(s)),
                _ => Vec::new(),
            };
        }
        if key == self.open {
            return match words {
                ["armed"] if self.phase == Phase::Arming => {
                    self.phase = Phase::Armed;
                    if self.start.at_once {
                        // Not sent together with the arming line: bash's `read` reads ahead on a
                        // raw terminal, so the agent would keep what is meant for the process.
                        self.release(now);
                        return vec![Next::Send(b"\n".to_vec())];
                    }
                    vec![Next::Event(Event::Armed)]
                }
                ["start", process] => self.started(process, now),
                _ => Vec::new(),
            };
        }
        match words {
            ["ack", index, length] => self.acknowledged(index, length, now),
            ["busy", number, process] if self.is_me(number) => self.started(process, now),
            // The cancelled command had not even reached the agent.
            ["never", number] if self.is_me(number) && self.phase == Phase::Cancelled => {
                self.ended(NOT_STARTED)
            }
            ["huh"] => self.not_understood(now),
            ["gone", number, _] if self.is_me(number) => {
                // A background command that died before it started.
                vec![self.start_event(0), Next::Done]
            }
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
            }
        } else if self.overdue.is_some_and(|overdue| now >= overdue) {
            next.extend(self.end(true, now));
        }
        if now >= self.ask_at && self.phase != Phase::Armed {
            next.extend(self.ask(now));
        }
        next
    }

    fn start_event(&self, process: u32) -> Next {
        Next::Event(Event::Started { process, number: self.number, close: self.close })
    }

    fn is_me(&self, number: &str) -> bool {
        number.parse() == Ok(self.number)
    }

    fn expect_answer(&mut self, now: Instant) {
        self.tries = 0;
        self.wait = ANSWER;
        self.ask_at = now + self.wait;
    }

    fn acknowledged(&mut self, index: &str, length: &str, now: Instant) -> Vec<Next> {
        let Phase::Sending { next } = self.phase else {
            return Vec::new();
        };
        if index.parse() != Ok(next) {
            return Vec::new();
        }
        if length.parse() != Ok(self.pieces[next].len() - 1) {
            // Bytes were lost on the way.
            return self.again(Vec::new(), now);
        }
        self.expect_answer(now);
        if let Some(piece) = self.pieces.get(next + 1) {
            self.phase = Phase::Sending { next: next + 1 };
            return vec![Next::Send(piece.clone().into_bytes())];
        }
        let verb = if self.start.background { 'b' } else { 'a' };
        let line = format!("{verb} {} {} {}\n", self.number, self.open, self.close);
        self.phase = Phase::Arming;
        vec![Next::Send(line.into_bytes())]
    }

    fn started(&mut self, process: &str, now: Instant) -> Vec<Next> {
        let (Ok(process), Phase::Arming | Phase::Armed | Phase::Released) =
            (process.parse(), self.phase)
        else {
            return Vec::new();
        };
        self.phase = Phase::Running { process };
        self.wait = ASK_FIRST;
        self.ask_at = now + self.wait;
        self.overdue = self.start.timeout.map(|timeout| now + timeout);
        let mut next = vec![self.start_event(process)];
        if self.ending.is_some() {
            next.extend(self.signal("TERM"));
        }
        if self.start.background {
            next.push(Next::Done);
        }
        next
    }

    fn ended(&mut self, status: u8) -> Vec<Next> {
        let mut next = Vec::new();
        match self.phase {
            Phase::Sending { .. } => return next,
            // The opening frame was lost, or the process could not be made.
            Phase::Arming | Phase::Armed | Phase::Released => {
                next.push(self.start_event(0));
            }
            Phase::Running { .. } => {
                let held = self.cooked.as_mut().map(Cooked::rest);
                next.extend(
                    held.filter(|held| !held.is_empty())
                        .map(|held| Next::Event(Event::Output(held))),
                );
            }
            Phase::Cancelled => {}
        }
        next.push(Next::Event(Event::Ended {
            status,
            timed_out: self.ending.as_ref().is_some_and(|e| e.timed_out),
        }));
        next.push(Next::Done);
        next
    }

    /// Asks for what did not come.
    fn ask(&mut self, now: Instant) -> Vec<Next> {
        let query = Next::Send(format!("q {} {}\n", self.number, self.close).into_bytes());
        if let Phase::Running { .. } = self.phase {
            self.wait = (2 * self.wait).min(ASK_MOST);
            self.ask_at = now + self.wait;
            return vec![query];
        }
        if self.phase == Phase::Arming {
            // Whoever reads next drops it: the waiting process ends, the agent knows no `x`.
            return self.again(vec![Next::Send(b"x\n".to_vec())], now);
        }
        if let Phase::Sending { .. } = self.phase {
            return self.again(Vec::new(), now);
        }
        self.tries += 1;
        if self.tries > TRIES {
            return vec![Next::Lost(Lost::Silent { while_: "starting a command" })];
        }
        self.wait *= 2;
        self.ask_at = now + self.wait;
        if self.phase == Phase::Released && self.tries == 1 {
            // The releasing byte may be lost; to anyone else an empty line means nothing.
            return vec![Next::Send(b"\n".to_vec())];
        }
        vec![query]
    }

    /// A line reached the agent in part.
    fn not_understood(&mut self, now: Instant) -> Vec<Next> {
        match self.phase {
            Phase::Sending { .. } | Phase::Arming => self.again(Vec::new(), now),
            // A signal or a question, both of which are due anew in a while.
            _ => Vec::new(),
        }
    }

    /// Delivers the command anew, unless that was tried often enough.
    fn again(&mut self, mut next: Vec<Next>, now: Instant) -> Vec<Next> {
        self.tries += 1;
        if self.tries > TRIES {
            return vec![Next::Lost(Lost::Silent { while_: "taking a command" })];
        }
        self.wait *= 2;
        self.ask_at = now + self.wait;
        next.push(Next::Again);
        next
    }

    fn end(&mut self, timed_out: bool, now: Instant) -> Vec<Next> {
        self.ending =
            Some(Ending { timed_out, kill_at: now + GRACE, give_up: now + GRACE + AFTER_KILL });
        self.signal("TERM").into_iter().collect()
    }

    fn signal(&mut self, signal: &str) -> Option<Next> {
        match self.phase {
            // 0 is the agent's own group.
            Phase::Running { process } if process > 1 => {
                Some(Next::Send(format!("k {signal} {process}\n").into_bytes()))
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
