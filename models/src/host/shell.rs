//! The shell of a host: splits a command into programs and runs them one after another.
//!
//! Purpose: quoting as in sh, and lists with `;`, `&&` and `||`. What a host cannot do (pipes,
//! redirection, variables, background jobs) is refused with a message, never half done.

use std::collections::VecDeque;

use tapestry_core::SimTime;

use super::stack::packet::Packet;
use super::stack::{Io, Stack};
use super::{CommandId, CommandOutput, Cx, Program, Progress, ip, iperf, ping};

/// The programs that a host has.
pub const PROGRAMS: &[&str] = &["echo", "false", "iperf", "ip", "ping", "sleep", "true"];

/// Exit status of a program that is not there.
const NOT_FOUND: u8 = 127;
/// Exit status of a command that cannot be read.
const SYNTAX: u8 = 2;
/// Exit status of a program that was asked to end, as a shell reports SIGTERM.
pub(super) const TERMINATED: u8 = 143;

#[derive(Debug)]
pub(super) struct Session {
    id: CommandId,
    steps: VecDeque<Step>,
    running: Option<Box<dyn Program>>,
    status: u8,
    over: bool,
}

/// A program with its arguments, and when it runs.
#[derive(Debug, PartialEq, Eq)]
struct Step {
    when: When,
    words: Vec<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum When {
    Always,
    AfterSuccess,
    AfterFailure,
}

impl Session {
    /// Reads a command; if that fails, says why and is over.
    pub(super) fn new(id: CommandId, text: &str, stack: &mut Stack, io: &mut Io<'_>) -> Self {
        let (steps, running) = (VecDeque::new(), None);
        let mut this = Self { id, steps, running, status: 0, over: false };
        match parse(text) {
            Ok(steps) => this.steps = steps,
            Err(what) => {
                Cx { stack, io, command: id }.print(format!("sh: {what}\n"));
                this.end(io, SYNTAX);
            }
        }
        this
    }

    pub(super) fn id(&self) -> CommandId {
        self.id
    }

    pub(super) fn is_over(&self) -> bool {
        self.over
    }

    pub(super) fn poll_timeout(&self) -> Option<SimTime> {
        self.running.as_ref()?.poll_timeout()
    }

    pub(super) fn handle_timeout(&mut self, stack: &mut Stack, io: &mut Io<'_>) {
        let now = io.now;
        if self.poll_timeout().is_some_and(|due| due <= now) {
            self.with_program(stack, io, |program, cx| Some(program.handle_timeout(cx)));
        }
    }

    pub(super) fn handle_tcp(&mut self, stack: &mut Stack, io: &mut Io<'_>) {
        self.with_program(stack, io, |program, cx| Some(program.handle_tcp(cx)));
    }

    /// Whether the packet was for this session's program.
    pub(super) fn handle_packet(
        &mut self,
        stack: &mut Stack,
        io: &mut Io<'_>,
        packet: &Packet<'_>,
    ) -> bool {
        self.with_program(stack, io, |program, cx| program.handle_packet(cx, packet))
    }

    pub(super) fn stop(&mut self, stack: &mut Stack, io: &mut Io<'_>) {
        self.steps.clear();
        self.with_program(stack, io, |program, cx| Some(program.stop(cx)));
    }

    /// Lets the program do something, and goes on if that ended it.
    fn with_program(
        &mut self,
        stack: &mut Stack,
        io: &mut Io<'_>,
        act: impl FnOnce(&mut dyn Program, &mut Cx<'_, '_>) -> Option<Progress>,
    ) -> bool {
        let Some(program) = &mut self.running else { return false };
        let progress = act(program.as_mut(), &mut Cx { stack, io, command: self.id });
        if let Some(Progress::Exited(status)) = progress {
            self.running = None;
            self.status = status;
            self.advance(stack, io);
        }
        progress.is_some()
    }

    /// Starts the next program that is to run; ends the session behind the last.
    pub(super) fn advance(&mut self, stack: &mut Stack, io: &mut Io<'_>) {
        while let Some(step) = self.steps.pop_front() {
            let runs = match step.when {
                When::Always => true,
                When::AfterSuccess => self.status == 0,
                When::AfterFailure => self.status != 0,
            };
            if !runs {
                continue;
            }
            match start(&step.words, &mut Cx { stack, io, command: self.id }) {
                Ok(program) => {
                    self.running = Some(program);
                    return;
                }
                Err(status) => self.status = status,
            }
        }
        self.end(io, self.status);
    }

    fn end(&mut self, io: &mut Io<'_>, status: u8) {
        self.over = true;
        io.event(self.id, CommandOutput::Exited(status));
    }
}

/// Starts a program, or runs it and returns its exit status.
fn start(words: &[String], cx: &mut Cx<'_, '_>) -> Result<Box<dyn Program>, u8> {
    let (name, arguments) = words.split_first().map_or(("true", &[][..]), |(n, a)| (n.as_str(), a));
    match name {
        "true" | ":" => Err(0),
        "false" => Err(1),
        "echo" => {
            let (rest, end) = match arguments {
                [first, rest @ ..] if first == "-n" => (rest, ""),
                rest => (rest, "\n"),
            };
            cx.print(format!("{}{end}", rest.join(" ")));
            Err(0)
        }
        "sleep" => match duration(arguments) {
            Some(SimTime::ZERO) => Err(0),
            Some(time) => Ok(Box::new(Sleep { until: cx.now().saturating_add(time) })),
            None => {
                cx.print("sleep: expected a time such as 1, 0.5 or 2m\n");
                Err(1)
            }
        },
        "ip" => Err(ip::run(arguments, cx)),
        "iperf" => iperf::start(arguments, cx),
        "ping" | "ping6" => ping::start(arguments, name == "ping6", cx),
        _ => {
            let programs = PROGRAMS.join(", ");
            cx.print(format!("sh: {name}: not found; an in-process host has {programs}\n"));
            Err(NOT_FOUND)
        }
    }
}

#[derive(Debug)]
struct Sleep {
    until: SimTime,
}

impl Program for Sleep {
    fn poll_timeout(&self) -> Option<SimTime> {
        Some(self.until)
    }

    fn handle_timeout(&mut self, cx: &mut Cx<'_, '_>) -> Progress {
        if cx.now() < self.until { Progress::Running } else { Progress::Exited(0) }
    }

    fn stop(&mut self, _: &mut Cx<'_, '_>) -> Progress {
        Progress::Exited(TERMINATED)
    }
}

/// The sum of times with the units of `sleep(1)`: s, m, h, d.
fn duration(words: &[String]) -> Option<SimTime> {
    let mut total = SimTime::ZERO;
    for word in words {
        let (number, unit) = match word.char_indices().last() {
            Some((at, 's')) => (&word[..at], 1.0),
            Some((at, 'm')) => (&word[..at], 60.0),
            Some((at, 'h')) => (&word[..at], 3_600.0),
            Some((at, 'd')) => (&word[..at], 86_400.0),
            _ => (word.as_str(), 1.0),
        };
        total = total.saturating_add(seconds(number, unit)?);
    }
    (!words.is_empty()).then_some(total)
}

/// A number of this many seconds each.
pub(super) fn seconds(number: &str, unit: f64) -> Option<SimTime> {
    SimTime::from_secs_f64(number.parse::<f64>().ok()? * unit).ok()
}

/// Splits a command into its programs.
fn parse(text: &str) -> Result<VecDeque<Step>, String> {
    let mut steps: VecDeque<Step> = VecDeque::new();
    let mut words: Vec<String> = Vec::new();
    let mut word: Option<String> = None;
    let mut when = When::Always;
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        let next = match c {
            '\'' | '"' => {
                quoted(c, &mut chars, word.get_or_insert_default())?;
                continue;
            }
            '\\' => {
                match chars.next() {
                    Some('\n') | None => {}
                    Some(escaped) => word.get_or_insert_default().push(escaped),
                }
                continue;
            }
            '#' if word.is_none() => {
                while chars.next_if(|&c| c != '\n').is_some() {}
                continue;
            }
            '&' | '|' if chars.next_if_eq(&c).is_some() => {
                if c == '&' {
                    Some(When::AfterSuccess)
                } else {
                    Some(When::AfterFailure)
                }
            }
            ';' | '\n' => Some(When::Always),
            c if c.is_whitespace() => None,
            '&' | '|' | '<' | '>' | '(' | ')' | '`' | '$' => {
                return Err(format!("`{c}` is not supported on an in-process host; quote it"));
            }
            c => {
                word.get_or_insert_default().push(c);
                continue;
            }
        };
        words.extend(word.take());
        if let Some(next) = next {
            if !words.is_empty() {
                steps.push_back(Step { when, words: std::mem::take(&mut words) });
            } else if when != When::Always || next != When::Always {
                return Err("a program is missing beside `&&` or `||`".into());
            }
            when = next;
        }
    }
    words.extend(word);
    if !words.is_empty() {
        steps.push_back(Step { when, words });
    } else if when != When::Always {
        return Err("a program is missing behind `&&` or `||`".into());
    }
    Ok(steps)
}

fn quoted(
    quote: char,
    chars: &mut std::iter::Peekable<std::str::Chars<'_>>,
    word: &mut String,
) -> Result<(), String> {
    while let Some(c) = chars.next() {
        match c {
            c if c == quote => return Ok(()),
            '\\' if quote == '"' => match chars.next() {
                Some(escaped @ ('"' | '\\' | '$' | '`')) => word.push(escaped),
                Some('\n') | None => {}
                Some(other) => word.extend(['\\', other]),
            },
            '$' | '`' if quote == '"' => {
                return Err(format!("`{c}` is not supported on an in-process host; quote it"));
            }
            c => word.push(c),
        }
    }
    Err(format!("the quote {quote} is not closed"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &str) -> Vec<(When, String)> {
        parse(text).unwrap().into_iter().map(|s| (s.when, s.words.join("|"))).collect()
    }

    #[test]
    fn lists_and_quotes_as_in_sh() {
        assert_eq!(
            words("echo 'a b'\"c\\\"d\" e\\ f && true; false || echo '' # end"),
            [
                (When::Always, "echo|a bc\"d|e f".into()),
                (When::AfterSuccess, "true".into()),
                (When::Always, "false".into()),
                (When::AfterFailure, "echo|".into()),
            ]
        );
        assert_eq!(words("\n true ;; \n"), [(When::Always, "true".into())]);
        for wrong in ["a | b", "a & b", "a > f", "a &&", "&& a", "a && || b", "'a", "echo $x"] {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn times_have_units_and_add_up() {
        let time = |text: &str| duration(&text.split(' ').map(str::to_owned).collect::<Vec<_>>());
        assert_eq!(time("0.5"), Some(SimTime::from_millis(500)));
        assert_eq!(time("1 2m"), Some(SimTime::from_secs(121)));
        for wrong in ["", "x", "-1", "nan", "1y"] {
            assert_eq!(time(wrong), None, "{wrong}");
        }
    }
}
