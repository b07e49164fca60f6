//! The shell proxy as a state machine: bytes and `now` in; bytes, events and a deadline out.
//!
//! Purpose: [`Machine`] logs in, sets the agent up, and then carries one command at a time to its
//! exit status, whatever the console does in between. It does no I/O and never asks the time.
//!
//! ```text
//! handle_input(bytes, now)   the guest wrote
//! poll_timeout()             when to call handle_timeout at the latest
//! handle_timeout(now)        repeats what got no answer, ends what took too long
//! poll_transmit()            what to write to the guest
//! poll_event()               what happened
//! ```
//!
//! After any call, drain `poll_transmit` and `poll_event`, then ask `poll_timeout` again.
//!
//! Assumes that bytes may be lost, inserted or late, but not altered. Every wait has an end: a guest
//! that stops answering ends in [`Event::Lost`], after which the machine accepts nothing more.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use super::agent;
use super::frame::{Key, Part, Scanner};
use super::job::{Job, Next, Phase};
use super::kernel::Filter;
use super::login::{Login, Step};
use super::process::{News, Process, Ticket};
use super::watch::Watch;
use crate::os::Os;

/// How long an agent may take to answer when a line on its console looks like a panic or a restart.
const SUSPICION: Duration = Duration::from_secs(5);

/// Processes that may end in a row without having been of use.
const DEATHS: u32 = 3;

/// What happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// The agent answers; commands may be started.
    Ready,
    /// The command is delivered and its process waits to be released.
    Armed,
    /// The command's process is about to run the text.
    Started {
        /// When the opening frame began to arrive.
        at: Instant,
        /// Its process, leader of its session; 0 if it could not be made (the status tells).
        process: u32,
        /// Its number; names the output file of a background command.
        number: u32,
        /// Key of its closing frame; ends the output file of a background command.
        close: Key,
    },
    /// The command wrote this.
    Output(Vec<u8>),
    /// The foreground command ended with `status`; `timed_out` when the machine had to end it.
    Ended {
        /// Exit status as a shell reports it: 128 + signal for one that a signal ended.
        status: u8,
        /// The command took longer than its timeout and was ended.
        timed_out: bool,
    },
    /// A background command ended; may come at any time.
    BackgroundEnded {
        /// Its number, as given by [`Machine::start`].
        number: u32,
        /// Exit status as in [`Event::Ended`].
        status: u8,
    },
    /// The shell is gone for good; a command in progress will not end.
    Lost(Lost),
}

/// Why a shell is gone.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Lost {
    /// The guest closed the stream: QEMU ended, or the shell process did.
    #[error("its console was closed")]
    Closed,
    /// The console shows a panic or a restart, and the agent does not answer any more.
    #[error("it panicked, restarted or was shut down (`{line}`) and its shell is gone")]
    Trouble {
        /// The line that raised suspicion.
        line: String,
    },
    /// No answer although asked repeatedly.
    #[error("its shell does not answer ({while_})")]
    Silent {
        /// What was being waited for.
        while_: &'static str,
    },
    /// Somebody ended the node on purpose, or had it start anew.
    #[error("the node {why}")]
    Ended {
        /// What was done to it: "was killed".
        why: String,
    },
    /// The login asked for a user name again and again.
    #[error("it refuses the login; check `os:` of the node")]
    LoginRefused,
}

/// A command to start.
#[derive(Debug, Clone)]
pub struct Start {
    /// The text for the shell, without NUL and at most [`agent::COMMAND_BYTES`].
    pub text: String,
    /// Leave it running behind later commands, its output kept in the guest.
    pub background: bool,
    /// Release it as soon as it is delivered instead of waiting for [`Machine::release`].
    pub at_once: bool,
    /// Longest time from its start to its end (foreground only).
    pub timeout: Option<Duration>,
}

/// See the module's documentation.
pub struct Machine {
    state: State,
    session: Key,
    load: Key,
    keys: Box<dyn FnMut() -> Key + Send>,
    filter: Option<Filter>,
    scanner: Scanner,
    /// When the first bytes of what may be a frame arrived; the rest has yet to.
    torn_since: Option<Instant>,
    watch: Watch,
    suspicion: Option<Suspicion>,
    /// Lines for background commands, held until it is clear who reads them.
    signals: Vec<String>,
    job: Option<Job>,
    /// The process of the next command, unless `job` has it.
    process: Option<Process>,
    /// Processes that ended in a row without having been of use.
    deaths: u32,
    last_number: u32,
    directory: Option<String>,
    /// The terminal could not be made raw: it echoes, and ends lines with CR LF.
    cooked: bool,
    transmit: VecDeque<Vec<u8>>,
    events: VecDeque<Event>,
}

enum State {
    Login(Box<Login>),
    Ready,
    Lost,
}

struct Suspicion {
    line: String,
    /// Set once the agent was asked.
    until: Option<Instant>,
}

impl Machine {
    /// A machine for a console of `os`. `keys` makes unpredictable keys. If the system needs no
    /// login, the set-up line is ready to be transmitted at once.
    pub fn new(os: &'static Os, mut keys: Box<dyn FnMut() -> Key + Send>, now: Instant) -> Self {
        let (session, load) = (keys(), keys());
        let mut machine = Self {
            state: State::Login(Box::new(Login::new(os, agent::loader(os.setup, &load), now))),
            session,
            load,
            keys,
            filter: os.kernel_records.then(Filter::default),
            scanner: Scanner::default(),
            torn_since: None,
            watch: Watch::new(os),
            suspicion: None,
            signals: Vec::new(),
            job: None,
            process: None,
            deaths: 0,
            last_number: 0,
            directory: None,
            cooked: false,
            transmit: VecDeque::new(),
            events: VecDeque::new(),
        };
        machine.login(|login| login.begin(now));
        machine
    }

    /// The directory in the guest that holds the output of background commands, each in a file named
    /// by its number; absent when the guest has no writable place for it.
    pub fn directory(&self) -> Option<&str> {
        self.directory.as_deref()
    }

    /// Starts a command. Call only when [`Machine::is_idle`].
    pub fn start(&mut self, start: Start, now: Instant) {
        debug_assert!(self.is_idle(), "one command at a time");
        self.job = Some(Job::new(start, self.cooked, now));
        self.bring_together(now);
    }

    /// Whether a command can be started.
    pub fn is_idle(&self) -> bool {
        matches!(self.state, State::Ready) && self.job.is_none()
    }

    /// Releases the armed command. `written` says that the releasing byte is on its way already.
    pub fn release(&mut self, written: bool, now: Instant) {
        if let Some(job) = &mut self.job
            && job.release(now)
            && !written
        {
            self.transmit.push_back(b"\n".to_vec());
        }
    }

    /// Ends the command in progress; [`Event::Ended`] still follows unless it was not yet delivered,
    /// in which case the machine is idle at once.
    pub fn cancel(&mut self, now: Instant) {
        let Some(job) = &mut self.job else { return };
        let next = job.cancel(now);
        self.follow(next, now);
    }

    /// Sends `signal` (a name such as `TERM`) to the session of a background command's process.
    pub fn signal(&mut self, process: u32, signal: &str, now: Instant) {
        if process > 1 && !matches!(self.state, State::Lost) {
            self.signals.push(format!("k {signal} {process}\n"));
            self.send_owed(now);
        }
    }

    /// Takes what the guest wrote.
    pub fn handle_input(&mut self, bytes: &[u8], now: Instant) {
        let mut text = Vec::with_capacity(bytes.len());
        let mut records = Vec::new();
        match &mut self.filter {
            Some(filter) => filter.feed(bytes, &mut text, &mut records),
            None => text.extend_from_slice(bytes),
        }
        for record in &records {
            self.login(|login| login.handle_record(record));
            self.suspect(now, |watch| watch.line(record));
        }
        let mut torn_since = self.torn_since.take();
        self.scanner.feed(&text);
        loop {
            let mut keys = vec![self.load, self.session];
            let job = self.job.as_ref().and_then(Job::ticket);
            let process = self.process.as_ref().map(Process::ticket);
            for ticket in [job, process].into_iter().flatten() {
                keys.extend([ticket.open, ticket.close]);
            }
            match self.scanner.next_part(&keys) {
                None => break,
                Some(Part::Text(text)) => {
                    torn_since = None;
                    self.on_text(text, now);
                }
                Some(Part::Frame(key, body)) => {
                    let began = torn_since.take().unwrap_or(now);
                    self.on_frame(key, &body, began, now);
                }
            }
        }
        self.torn_since = self.scanner.is_torn().then(|| torn_since.unwrap_or(now));
    }

    /// Whether the released command has begun to say that it starts.
    pub fn is_starting(&self) -> bool {
        let phase = self.job.as_ref().map(Job::phase);
        self.torn_since.is_some() && matches!(phase, Some(Phase::Armed | Phase::Released))
    }

    /// The stream ended.
    pub fn handle_closed(&mut self) {
        let suspicion = self.suspicion.take();
        self.lose(suspicion.map_or(Lost::Closed, |s| Lost::Trouble { line: s.line }));
    }

    /// The node is being ended on purpose.
    pub fn handle_end(&mut self, why: String) {
        self.lose(Lost::Ended { why });
    }

    /// When [`Machine::handle_timeout`] is due, if ever.
    pub fn poll_timeout(&self) -> Option<Instant> {
        let state = match &self.state {
            State::Login(login) => Some(login.due()),
            State::Ready => None,
            State::Lost => return None,
        };
        let job = self.job.as_ref().and_then(Job::due);
        let process = self.process.as_ref().and_then(Process::due);
        let suspicion = self.suspicion.as_ref().and_then(|s| s.until);
        [state, job, process, suspicion].into_iter().flatten().min()
    }

    /// Repeats what got no answer and ends what took too long.
    pub fn handle_timeout(&mut self, now: Instant) {
        if let Some(suspicion) = &self.suspicion
            && suspicion.until.is_some_and(|until| now >= until)
        {
            let line = suspicion.line.clone();
            return self.lose(Lost::Trouble { line });
        }
        self.login(|login| login.handle_timeout(now));
        if let Some(process) = &mut self.process {
            let news = process.handle_timeout(now);
            self.take_news(news, now);
        }
        if let Some(job) = &mut self.job {
            let next = job.handle_timeout(now);
            self.follow(next, now);
        }
    }

    /// The next bytes for the guest.
    pub fn poll_transmit(&mut self) -> Option<Vec<u8>> {
        self.transmit.pop_front()
    }

    /// The next event.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    fn on_text(&mut self, text: Vec<u8>, now: Instant) {
        if matches!(self.state, State::Login(_)) {
            self.cooked |= find(&text, self.session.to_string().as_bytes());
            self.login(|login| login.handle_text(&text, now));
            return;
        }
        self.suspect(now, |watch| watch.text(&text));
        if let Some(job) = &mut self.job
            && let Some(output) = job.handle_text(text, now)
        {
            self.events.push_back(Event::Output(output));
        }
    }

    /// A frame that began to arrive at `began`.
    fn on_frame(&mut self, key: Key, body: &str, began: Instant, now: Instant) {
        let words: Vec<&str> = body.split(' ').collect();
        if key == self.load {
            if words == ["load"] {
                let program = agent::program(&self.session, &(self.keys)());
                self.login(|login| login.loaded(program, now));
            }
            return;
        }
        match words[..] {
            ["ready", directory, _] if matches!(self.state, State::Login(_)) => {
                self.directory = (directory != "-").then(|| directory.to_owned());
                self.login(|login| login.agent_answers(now));
                self.finish_login(false);
            }
            ["pong"] => {
                self.suspicion = None;
                self.finish_login(true);
            }
            _ => {}
        }
        if let Some(process) = &mut self.process {
            let news = process.handle_frame(key, &words, now);
            self.take_news(news, now);
        }
        if let Some(job) = &mut self.job {
            let next = job.handle_frame(key, &words, began);
            self.follow(next, now);
        }
        // After the start that the job may have to tell.
        if let (["gone", number, status], true) = (&words[..], key == self.session)
            && let (Ok(number), Ok(status)) = (number.parse(), status.parse())
        {
            self.events.push_back(Event::BackgroundEnded { number, status });
        }
        self.bring_together(now);
    }

    /// Does what the job asks for.
    fn follow(&mut self, next: Vec<Next>, now: Instant) {
        for next in next {
            match next {
                Next::Send(line) => self.send(line),
                Next::Event(event) => self.events.push_back(event),
                Next::Again => {}
                Next::Done => self.job = None,
                Next::Return => {
                    let job = self.job.take();
                    let ticket = job.as_ref().and_then(Job::ticket);
                    let background = job.is_some_and(|job| job.is_background());
                    self.process = ticket.map(|t| Process::ready(t, background, now));
                }
                Next::Lost(lost) => return self.lose(lost),
            }
        }
        self.bring_together(now);
    }

    fn take_news(&mut self, news: News, now: Instant) {
        match news {
            News::None => {}
            News::Send(line) => self.send(line),
            News::Gone => {
                self.process = None;
                self.deaths += 1;
            }
            News::Lost(lost) => return self.lose(lost),
        }
        self.bring_together(now);
    }

    /// Gives the job the process, and keeps one ready for the next.
    fn bring_together(&mut self, now: Instant) {
        if !matches!(self.state, State::Ready) {
            return;
        }
        let wanted = self.job.as_ref().map_or(Some(false), Job::wants_process);
        if let Some(background) = wanted {
            match &mut self.process {
                None => self.make_process(background, now),
                Some(process) => match process.takes() {
                    Some(kind) if kind == background => self.hand_over(now),
                    Some(_) => {
                        let line = process.dismiss(now);
                        self.deaths = 0;
                        self.send(line);
                    }
                    None => {}
                },
            }
        }
        self.send_owed(now);
    }

    fn make_process(&mut self, background: bool, now: Instant) {
        // A guest that cannot make processes, or whose `sh` is broken.
        if self.deaths > DEATHS {
            return self.lose(Lost::Silent { while_: "making a process" });
        }
        self.last_number += 1;
        let ticket = Ticket { number: self.last_number, open: (self.keys)(), close: (self.keys)() };
        let process = Process::new(ticket, background, now);
        self.send(process.request());
        self.process = Some(process);
    }

    fn hand_over(&mut self, now: Instant) {
        let Some(job) = &mut self.job else { return };
        if let Some(process) = self.process.take() {
            self.deaths = 0;
            let next = job.deliver(process.ticket(), now);
            self.follow(next, now);
        }
    }

    /// Is ready, if the agent is. `all_is_read` says that it has read all lines so far.
    fn finish_login(&mut self, all_is_read: bool) {
        if !matches!(&self.state, State::Login(login) if login.is_done(all_is_read)) {
            return;
        }
        self.state = State::Ready;
        if self.cooked {
            // Programs' lines end with CR LF here, so records cannot be told apart.
            self.filter = None;
        }
        self.events.push_back(Event::Ready);
    }

    fn login(&mut self, act: impl FnOnce(&mut Login) -> Vec<Step>) {
        let State::Login(login) = &mut self.state else {
            return;
        };
        for step in act(login) {
            match step {
                Step::Send(bytes) => self.transmit.push_back(bytes),
                Step::Lost(lost) => self.lose(lost),
            }
        }
    }

    /// Notes a line that looks like trouble and asks the agent whether it is still there.
    fn suspect(&mut self, now: Instant, look: impl FnOnce(&mut Watch) -> Option<String>) {
        let found = look(&mut self.watch);
        if let (Some(line), State::Ready, None) = (found, &self.state, &self.suspicion) {
            self.suspicion = Some(Suspicion { line, until: None });
            self.send_owed(now);
        }
    }

    /// Sends the signals and the question that are owed, once it is clear who reads: on a raw terminal
    /// bash reads ahead, so a line sent while the reader changes may end with the wrong one.
    fn send_owed(&mut self, now: Instant) {
        let is_clear = match (&self.job, &self.process) {
            (Some(job), None) => matches!(job.phase(), Phase::Armed | Phase::Running { .. }),
            (_, Some(process)) => process.takes().is_some(),
            (None, None) => false,
        };
        if !is_clear {
            return;
        }
        for line in std::mem::take(&mut self.signals) {
            self.send(line);
        }
        if let Some(suspicion) = &mut self.suspicion
            && suspicion.until.is_none()
        {
            suspicion.until = Some(now + SUSPICION);
            self.send("p\n".to_owned());
        }
    }

    fn send(&mut self, line: String) {
        if let Some(job) = &mut self.job {
            job.note_sent(line.as_bytes());
        }
        self.transmit.push_back(line.into_bytes());
    }

    fn lose(&mut self, lost: Lost) {
        if !matches!(self.state, State::Lost) {
            self.state = State::Lost;
            self.job = None;
            self.process = None;
            self.suspicion = None;
            self.transmit.clear();
            self.events.push_back(Event::Lost(lost));
        }
    }
}

fn find(haystack: &[u8], needle: &[u8]) -> bool {
    haystack.windows(needle.len()).any(|window| window == needle)
}

#[cfg(test)]
mod tests;
