//! From power-on to a loaded agent: answers the login, types the set-up line, sends the program.
//!
//! Pure. Works by patterns at the end of what the console printed since the last answer; this is the
//! only part of the shell proxy that looks for prompts. Each answer is repeated when nothing comes
//! of it; how long a boot may take is the driver's business, not decided here.

use std::time::{Duration, Instant};

use regex::bytes::Regex;

use super::machine::Lost;
use crate::console::without_terminal_codes;
use crate::os::Os;

/// Console bytes looked at for a prompt.
const TAIL_BYTES: usize = 512;
/// Nothing came of the last answer: press Enter, and look again.
const REPEAT: Duration = Duration::from_secs(5);
/// A wrong user or password asks anew each time.
const LOGINS: u32 = 4;

/// What to do.
#[derive(Debug)]
pub(super) enum Step {
    /// Write this to the guest.
    Send(Vec<u8>),
    /// Give up.
    Lost(Lost),
}

/// See the module's documentation.
pub(super) struct Login {
    os: &'static Os,
    shell: Option<Regex>,
    name: Option<Regex>,
    password: Option<Regex>,
    panic: Option<Regex>,
    loader: String,
    tail: Vec<u8>,
    logins: u32,
    due: Instant,
    stage: Stage,
    /// Lines were repeated, and may still be unread.
    repeated: bool,
}

/// How far it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// Waiting for a prompt.
    Prompt,
    /// The set-up line was typed: what looks like a prompt now is its echo.
    Typed,
    /// The loader was sent the program.
    Loaded,
    /// The agent answers.
    Agent,
}

impl Login {
    /// A login to `os` that ends by typing `loader`.
    pub(super) fn new(os: &'static Os, loader: String, now: Instant) -> Self {
        let compile = |pattern: Option<&str>| {
            pattern.map(|p| Regex::new(p).expect("the patterns of the table compile (tested)"))
        };
        Self {
            os,
            shell: compile(os.shell),
            name: compile(os.login),
            password: compile(os.password),
            panic: compile(os.panic),
            loader,
            tail: Vec::new(),
            logins: 0,
            due: now + REPEAT,
            stage: Stage::Prompt,
            repeated: false,
        }
    }

    /// The first step: where a shell reads from the first byte on, it gets the set-up line.
    pub(super) fn begin(&mut self, now: Instant) -> Vec<Step> {
        if self.shell.is_none() {
            return self.answer(self.loader.clone().into_bytes(), now);
        }
        Vec::new()
    }

    /// When [`Login::handle_timeout`] is due.
    pub(super) fn due(&self) -> Instant {
        self.due
    }

    /// The kernel printed `record`, a line of its own.
    pub(super) fn handle_record(&mut self, record: &[u8]) -> Vec<Step> {
        let is_panic = self.panic.as_ref().is_some_and(|panic| panic.is_match(record));
        if is_panic { vec![trouble(record)] } else { Vec::new() }
    }

    /// The guest wrote `text`.
    pub(super) fn handle_text(&mut self, text: &[u8], now: Instant) -> Vec<Step> {
        if self.stage != Stage::Prompt {
            return Vec::new();
        }
        self.tail.extend_from_slice(text);
        if self.tail.len() > 4 * TAIL_BYTES + text.len() {
            let surplus = self.tail.len() - TAIL_BYTES;
            self.tail.drain(..surplus);
        }
        let clean = without_terminal_codes(&self.tail);
        let found = |pattern: &Option<Regex>| pattern.as_ref().is_some_and(|p| p.is_match(&clean));
        if let Some(panic) = &self.panic
            && let Some(at) = panic.find(&clean)
        {
            let line = clean[at.start()..].split(|&b| b == b'\n').next();
            return vec![trouble(line.unwrap_or_default())];
        }
        if found(&self.name) {
            self.logins += 1;
            if self.logins > LOGINS {
                return vec![Step::Lost(Lost::LoginRefused)];
            }
            self.answer(format!("{}\n", self.os.user).into_bytes(), now)
        } else if found(&self.password) {
            self.answer(format!("{}\n", self.os.secret).into_bytes(), now)
        } else if found(&self.shell) {
            self.stage = Stage::Typed;
            self.answer(self.loader.clone().into_bytes(), now)
        } else {
            Vec::new()
        }
    }

    /// The loader answered: the program follows. A loader may answer twice when the set-up line was
    /// repeated; the program is for the last.
    pub(super) fn loaded(&mut self, program: String, now: Instant) -> Vec<Step> {
        self.stage = Stage::Loaded;
        self.answer(program.into_bytes(), now)
    }

    /// The agent answers, but does not understand lines that were repeated for a loader or a login
    /// and are still on their way: it is asked to say when it has read them all.
    pub(super) fn agent_answers(&mut self, now: Instant) -> Vec<Step> {
        self.stage = Stage::Agent;
        if self.repeated { self.answer(b"p\n".to_vec(), now) } else { Vec::new() }
    }

    /// Whether the agent answers, and has read all lines, if it `has_said_so`.
    pub(super) fn is_done(&self, has_said_so: bool) -> bool {
        self.stage == Stage::Agent && (has_said_so || !self.repeated)
    }

    /// Nothing came of the last answer.
    pub(super) fn handle_timeout(&mut self, now: Instant) -> Vec<Step> {
        if now < self.due {
            return Vec::new();
        }
        self.repeated = true;
        if self.stage == Stage::Agent {
            return self.answer(b"p\n".to_vec(), now);
        }
        self.tail.clear();
        if std::mem::replace(&mut self.stage, Stage::Prompt) == Stage::Loaded {
            // The program was mangled: a dot ends the loader, whose shell then ends too, and the
            // login starts over if the system offers one again.
            return self.answer(b"\n.\n".to_vec(), now);
        }
        if self.shell.is_none() {
            return self.answer(self.loader.clone().into_bytes(), now);
        }
        self.answer(b"\n".to_vec(), now)
    }

    fn answer(&mut self, bytes: Vec<u8>, now: Instant) -> Vec<Step> {
        self.tail.clear();
        self.due = now + REPEAT;
        vec![Step::Send(bytes)]
    }
}

fn trouble(line: &[u8]) -> Step {
    Step::Lost(Lost::Trouble { line: String::from_utf8_lossy(line).trim().to_owned() })
}
