//! The machine against a guest made of a few lines of Rust, in invented time.

use proptest::prelude::*;

use super::super::process::HUHS;
use super::*;
use crate::os;

const RECORD: &[u8] = b"[   12.345678] eth0: link up [now]\r\n";

/// An agent that answers as the real one does.
#[derive(Default)]
struct Guest {
    session: String,
    load: String,
    line: Vec<u8>,
    loading: bool,
    dead: bool,
    text: String,
    armed: Option<[String; 3]>,
    /// What the current command wrote, and its last frame.
    running: Option<(u32, String)>,
    last: Option<(String, String, Option<u8>)>,
    lengths: Vec<usize>,
    /// The texts that were really started.
    runs: Vec<String>,
    /// A command that only ends when killed.
    endless: bool,
    output: Vec<u8>,
    status: u8,
}

impl Guest {
    fn take(&mut self, bytes: &[u8]) -> Vec<Vec<u8>> {
        let mut answers = Vec::new();
        for &byte in bytes {
            if byte == b'\n' {
                let line = String::from_utf8(std::mem::take(&mut self.line)).expect("ASCII");
                if !self.dead {
                    self.obey(&line, &mut answers);
                }
            } else {
                self.line.push(byte);
            }
        }
        answers
    }

    fn obey(&mut self, line: &str, answers: &mut Vec<Vec<u8>>) {
        let frame = |key: &str, body: String| format!("\x1e{key} {body}\x1f").into_bytes();
        let words: Vec<&str> = line.split(' ').collect();
        if let Some(at) = line.find("\\036") {
            self.load = line[at + 4..at + 20].to_owned();
            self.loading = true;
            return answers.push(frame(&self.load, "load".into()));
        }
        if self.loading {
            if let Some(key) = line.strip_prefix("K=") {
                self.session = key.to_owned();
            } else if line == "." {
                self.loading = false;
                answers.push(frame(&self.session, "ready /run/x setsid".into()));
            }
            return;
        }
        if let Some([number, open, close]) = self.armed.take() {
            // The command's own process reads now.
            let total = self.lengths.iter().sum::<usize>().to_string();
            match words[..] {
                ["c", index, ..] => {
                    if index == "0" {
                        self.text.clear();
                        self.lengths.clear();
                    }
                    if index.parse() == Ok(self.lengths.len()) {
                        self.text.push_str(&line[3 + index.len()..]);
                        self.lengths.push(line.len());
                    }
                    answers.push(frame(&open, format!("ack {index} {}", line.len())));
                }
                ["p"] => answers.push(frame(&open, "pong".into())),
                ["x"] => {
                    self.running = Some((77, close.clone()));
                    self.last = Some((number, close, None));
                    return answers.push(self.end(125));
                }
                ["r", length, ..] if length.parse() == Ok(line[3 + length.len()..].len()) => {
                    self.text = line[3 + length.len()..].to_owned();
                    self.start([number, open, close], answers);
                    return;
                }
                [""] | ["g", _] if words.len() == 1 || words[1] == total => {
                    self.start([number, open, close], answers);
                    return;
                }
                _ => answers.push(frame(&open, "huh".into())),
            }
            self.armed = Some([number, open, close]);
            return;
        }
        match words[..] {
            ["a", number, open, close] => {
                self.lengths.clear();
                self.armed = Some([number, open, close].map(str::to_owned));
                answers.push(frame(open, "armed".into()));
            }
            ["q", number, close] => answers.push(match &self.last {
                Some((n, _, Some(status))) if n == number => frame(close, format!("end {status}")),
                Some((n, _, None)) if n == number => {
                    frame(&self.session, format!("busy {number} 77"))
                }
                _ => frame(&self.session, format!("never {number}")),
            }),
            ["k", signal, "77"] if self.running.is_some() => {
                answers.push(self.end(if signal == "TERM" { 143 } else { 137 }));
            }
            ["p"] => answers.push(frame(&self.session, "pong".into())),
            ["x"] | ["k" | "r", ..] => {}
            _ => answers.push(frame(&self.session, "huh".into())),
        }
    }

    fn start(&mut self, [number, open, close]: [String; 3], answers: &mut Vec<Vec<u8>>) {
        self.runs.push(std::mem::take(&mut self.text));
        answers.push(format!("\x1e{open} start 77\x1f").into_bytes());
        answers.push(self.output.clone());
        self.running = Some((77, close.clone()));
        self.last = Some((number, close, None));
        if !self.endless {
            answers.push(self.end(self.status));
        }
    }

    fn end(&mut self, status: u8) -> Vec<u8> {
        let (_, close) = self.running.take().expect("running");
        if let Some(last) = &mut self.last {
            last.2 = Some(status);
        }
        format!("\x1e{close} end {status}\x1f").into_bytes()
    }
}

/// A machine, a guest and a clock.
struct Bench {
    machine: Machine,
    guest: Guest,
    now: Instant,
    begun: Instant,
    events: Vec<Event>,
}

impl Bench {
    fn new() -> Self {
        let now = Instant::now();
        let mut next = 0x1000_0000_0000_0000_u64;
        let keys = Box::new(move || {
            next += 0x0101_0101_0101_0101;
            Key::from_u64(next)
        });
        Self {
            machine: Machine::new(os::find("tapestry").expect("in the table"), keys, now),
            guest: Guest::default(),
            now,
            begun: now,
            events: Vec::new(),
        }
    }

    /// A bench whose shell is ready.
    fn ready() -> Self {
        let mut bench = Self::new();
        bench.machine.handle_input(b"tapestry: ready\r\n\x1b[6n~ # ", bench.now);
        bench.run(|answer| vec![answer]);
        assert_eq!(bench.take_events(), [Event::Ready]);
        bench
    }

    fn take_events(&mut self) -> Vec<Event> {
        std::mem::take(&mut self.events)
    }

    /// Lets both talk and time pass until the machine is idle or lost. `line` makes chunks of what
    /// the guest says; leaving some out loses them.
    fn run(&mut self, mut line: impl FnMut(Vec<u8>) -> Vec<Vec<u8>>) {
        for _ in 0..10_000 {
            while let Some(event) = self.machine.poll_event() {
                self.events.push(event);
            }
            let mut quiet = true;
            while let Some(bytes) = self.machine.poll_transmit() {
                quiet = false;
                for answer in self.guest.take(&bytes) {
                    for chunk in line(answer) {
                        self.machine.handle_input(&chunk, self.now);
                    }
                }
            }
            if !quiet {
                continue;
            }
            let is_lost = matches!(self.events.last(), Some(Event::Lost(_)));
            match self.machine.poll_timeout() {
                Some(_) if self.machine.is_idle() && self.machine.suspicion.is_none() => return,
                Some(due) if !is_lost => {
                    self.now = self.now.max(due);
                    self.machine.handle_timeout(self.now);
                }
                _ => return,
            }
        }
        panic!("no end: {:?}", self.events);
    }

    /// Starts a command as soon as the shell is ready.
    fn start_when_ready(&mut self, text: &str) {
        self.run(|answer| vec![answer]);
        assert_eq!(self.take_events(), [Event::Ready]);
        self.start(text, None);
    }

    fn start(&mut self, text: &str, timeout: Option<Duration>) {
        let start = Start { text: text.into(), background: false, at_once: true, timeout };
        self.machine.start(start, self.now);
    }

    /// Output and status of the command in the events.
    fn result(&mut self) -> (Vec<u8>, Option<(u8, bool)>) {
        let (mut output, mut end) = (Vec::new(), None);
        for event in self.take_events() {
            match event {
                Event::Output(bytes) => output.extend(bytes),
                Event::Ended { status, timed_out } => {
                    assert_eq!(end, None, "one end");
                    end = Some((status, timed_out));
                }
                _ => {}
            }
        }
        (output, end)
    }
}

#[test]
fn logs_in_with_user_and_password() {
    let now = Instant::now();
    let os = os::find("debian").expect("in the table");
    let mut machine = Machine::new(os, Box::new(|| Key::from_u64(7)), now);
    let mut say = |text: &str| {
        machine.handle_input(text.as_bytes(), now);
        machine.poll_transmit().map(|b| String::from_utf8(b).expect("ASCII"))
    };
    assert_eq!(say("Debian GNU/Linux 12 node ttyS0\r\n\r\nnode lo"), None);
    assert_eq!(say("gin: ").as_deref(), Some("root\n"));
    assert_eq!(say("root\r\nPassword: ").as_deref(), Some("root\n"));
    assert_eq!(say("\r\nLinux node 6.1.0\r\n"), None);
    assert!(say("\x1b[?2004hroot@node:~# ").is_some_and(|line| line.contains("stty raw")));
}

#[test]
fn the_echo_of_the_setup_line_is_no_prompt() {
    let now = Instant::now();
    let os = os::find("tapestry").expect("in the table");
    let mut machine = Machine::new(os, Box::new(|| Key::from_u64(7)), now);
    machine.handle_input(b"~ # ", now);
    let loader = machine.poll_transmit().expect("the set-up line");
    for byte in loader {
        machine.handle_input(&[byte], now);
    }
    assert_eq!(machine.poll_transmit(), None);
}

#[test]
fn a_wrong_password_is_given_up() {
    let now = Instant::now();
    let os = os::find("debian").expect("in the table");
    let mut machine = Machine::new(os, Box::new(|| Key::from_u64(7)), now);
    for _ in 0..10 {
        machine.handle_input(b"\r\nLogin incorrect\r\nnode login: ", now);
        machine.handle_input(b"Password: ", now);
    }
    let lost = std::iter::from_fn(|| machine.poll_event()).last();
    assert_eq!(lost, Some(Event::Lost(Lost::LoginRefused)));
}

#[test]
fn a_panic_while_booting_is_told_at_once() {
    let mut bench = Bench::new();
    let panic = b"[    1.500000] Kernel panic - not syncing: VFS: Unable to mount root fs\r\n";
    bench.machine.handle_input(panic, bench.now);
    let event = bench.machine.poll_event();
    let Some(Event::Lost(Lost::Trouble { line })) = event else {
        panic!("{event:?}");
    };
    assert!(line.contains("Unable to mount root fs"), "{line}");
}

#[test]
fn a_panic_or_a_restart_in_a_command_is_told_within_seconds() {
    for trouble in [
        &b"[   99.000000] Kernel panic - not syncing: sysrq triggered crash\r\n"[..],
        b"[    0.000000] Linux version 6.1.0\r\n",
        b"SeaBIOS (version 1.16.2)\r\n",
    ] {
        let mut bench = Bench::ready();
        bench.guest.endless = true;
        bench.start("crash", None);
        let mut told = false;
        for _ in 0..50 {
            while let Some(bytes) = bench.machine.poll_transmit() {
                for answer in bench.guest.take(&bytes) {
                    bench.machine.handle_input(&answer, bench.now);
                }
            }
            if bench.guest.runs.len() == 1 && !told {
                bench.guest.dead = true;
                bench.machine.handle_input(trouble, bench.now);
                told = true;
            }
        }
        let begun = bench.now;
        bench.run(|answer| vec![answer]);
        let last = bench.take_events().pop();
        assert!(matches!(last, Some(Event::Lost(Lost::Trouble { .. }))), "{last:?}");
        assert!(bench.now - begun <= SUSPICION);
    }
}

#[test]
fn output_that_looks_like_a_panic_does_no_harm() {
    let mut bench = Bench::ready();
    let output =
        b"Kernel panic - not syncing: example\n[    0.000000] Linux version 6.1\nnode login: ";
    bench.guest.output = output.to_vec();
    for _ in 0..3 {
        bench.start("cat log", None);
        bench.run(|answer| vec![answer]);
        assert_eq!(bench.result(), (output.to_vec(), Some((0, false))));
    }
    // Nor is it held against the guest later.
    bench.now += Duration::from_mins(1);
    bench.machine.handle_timeout(bench.now);
    assert!(bench.machine.is_idle());
}

#[test]
fn a_silent_guest_is_given_up_in_every_phase() {
    for answers in 0..4 {
        let mut bench = Bench::ready();
        bench.guest.endless = true;
        bench.start("sleep 1000", Some(Duration::from_secs(10)));
        let mut left = answers;
        bench.run(|answer| {
            if left == 0 {
                return Vec::new();
            }
            left -= 1;
            vec![answer]
        });
        let last = bench.take_events().pop();
        assert!(matches!(last, Some(Event::Lost(Lost::Silent { .. }))), "{answers}: {last:?}");
        assert!(bench.now - bench.begun < Duration::from_mins(2), "{answers}");
    }
}

/// Lets the guest be too slow to read for so many of the host's waits. Returns what is unread then.
fn starve(bench: &mut Bench, waits: usize) -> Vec<u8> {
    let mut unread = Vec::new();
    for _ in 0..waits {
        unread.extend(std::iter::from_fn(|| bench.machine.poll_transmit()).flatten());
        bench.now = bench.machine.poll_timeout().expect("a wait has an end");
        bench.machine.handle_timeout(bench.now);
    }
    unread
}

#[test]
fn lines_repeated_for_a_slow_guest_do_no_harm() {
    let mut bench = Bench::new();
    bench.machine.handle_input(b"tapestry: ready\r\n\x1b[6n~ # ", bench.now);
    let loader = bench.machine.poll_transmit().expect("the loader");
    for answer in bench.guest.take(&loader) {
        bench.machine.handle_input(&answer, bench.now);
    }
    // Minutes later the agent is there, and does not understand what was typed meanwhile.
    let unread = starve(&mut bench, 2 * HUHS as usize);
    for answer in bench.guest.take(&unread) {
        bench.machine.handle_input(&answer, bench.now);
    }
    assert_eq!(bench.machine.poll_event(), None, "lines are unread");
    bench.start_when_ready("true");
    bench.run(|answer| vec![answer]);
    assert_eq!(bench.result(), (Vec::new(), Some((0, false))));

    // The same while the process of a command is asked for, and while one is delivered.
    for waits in [3, 4] {
        bench.start("true", None);
        let unread = starve(&mut bench, waits);
        for answer in bench.guest.take(&unread) {
            bench.machine.handle_input(&answer, bench.now);
        }
        bench.run(|answer| vec![answer]);
        assert_eq!(bench.result(), (Vec::new(), Some((0, false))), "{waits}");
    }
    assert_eq!(bench.guest.runs, ["true"; 3]);
}

#[test]
fn a_guest_that_understands_nothing_is_given_up() {
    let mut bench = Bench::ready();
    bench.guest.armed = None;
    bench.start("true", None);
    let session = bench.guest.session.clone();
    bench.guest.dead = true;
    for _ in 0..=HUHS {
        bench.machine.handle_input(format!("\x1e{session} huh\x1f").as_bytes(), bench.now);
    }
    bench.run(|answer| vec![answer]);
    let last = bench.take_events().pop();
    assert!(matches!(last, Some(Event::Lost(Lost::Silent { .. }))), "{last:?}");
}

#[test]
fn a_timeout_is_told_and_the_shell_stays() {
    let mut bench = Bench::ready();
    bench.guest.endless = true;
    bench.guest.output = b"begun\n".to_vec();
    bench.start("sleep 1000", Some(Duration::from_secs(10)));
    bench.run(|answer| vec![answer]);
    assert_eq!(bench.result(), (b"begun\n".to_vec(), Some((143, true))));
    bench.guest.endless = false;
    bench.start("true", None);
    bench.run(|answer| vec![answer]);
    assert_eq!(bench.result(), (b"begun\n".to_vec(), Some((0, false))));
}

#[test]
fn a_terminal_that_cannot_be_raw_is_coped_with() {
    let mut bench = Bench::new();
    bench.machine.handle_input(b"~ # ", bench.now);
    // It echoes the program, and later every line sent while the command runs.
    let echo = |sent: &[u8]| String::from_utf8_lossy(sent).replace('\n', "\r\n").into_bytes();
    for _ in 0..3 {
        while let Some(bytes) = bench.machine.poll_transmit() {
            bench.machine.handle_input(&echo(&bytes), bench.now);
            for answer in bench.guest.take(&bytes) {
                bench.machine.handle_input(&answer, bench.now);
            }
        }
    }
    assert_eq!(bench.machine.poll_event(), Some(Event::Ready));
    assert!(bench.machine.cooked);
    bench.guest.endless = true;
    bench.guest.output = b"one\r\ntwo\r".to_vec();
    bench.start("x", Some(Duration::from_secs(4)));
    let mut output = Vec::new();
    let mut end = None;
    while end.is_none() {
        while let Some(bytes) = bench.machine.poll_transmit() {
            bench.machine.handle_input(&echo(&bytes), bench.now);
            for answer in bench.guest.take(&bytes) {
                bench.machine.handle_input(&answer, bench.now);
            }
        }
        if let Some(due) = bench.machine.poll_timeout() {
            bench.now = due;
            bench.machine.handle_timeout(due);
        }
        while let Some(event) = bench.machine.poll_event() {
            match event {
                Event::Output(bytes) => output.extend(bytes),
                Event::Ended { status, .. } => end = Some(status),
                Event::Started { .. } => {}
                other => panic!("{other:?}"),
            }
        }
    }
    assert_eq!((String::from_utf8_lossy(&output).as_ref(), end), ("one\ntwo\r", Some(143)));
}

#[test]
fn a_cancelled_command_never_runs_and_frees_the_shell() {
    for polls in 0..3 {
        let mut bench = Bench::ready();
        let start =
            Start { text: "echo x".into(), background: false, at_once: false, timeout: None };
        bench.machine.start(start, bench.now);
        for _ in 0..polls {
            if let Some(bytes) = bench.machine.poll_transmit() {
                for answer in bench.guest.take(&bytes) {
                    bench.machine.handle_input(&answer, bench.now);
                }
            }
        }
        bench.machine.cancel(bench.now);
        bench.run(|answer| vec![answer]);
        assert!(bench.guest.runs.is_empty());
        assert!(bench.machine.is_idle(), "{polls}");
    }
}

proptest! {
    /// Kernel records anywhere, chunks of any size: output and status are exact.
    #[test]
    fn records_and_chunking_change_nothing(
        output in proptest::collection::vec(any::<u8>(), 0..60),
        status in any::<u8>(),
        at in any::<proptest::sample::Index>(),
        cut in 1_usize..50,
    ) {
        // In output, CR LF after something like a time stamp would be ambiguous; see kernel.rs.
        prop_assume!(!output.contains(&b'\r'));
        let mut bench = Bench::ready();
        bench.guest.output.clone_from(&output);
        bench.guest.status = status;
        bench.start("text", None);
        bench.run(|answer| {
            let at = at.index(answer.len() + 1);
            let noisy = [&answer[..at], RECORD, &answer[at..]].concat();
            noisy.chunks(cut).map(<[u8]>::to_vec).collect()
        });
        prop_assert_eq!(bench.result(), (output, Some((status, false))));
        prop_assert_eq!(&bench.guest.runs, &["text"]);
    }

    /// Any one answer torn by noise that is no kernel record: the status is right, and the command
    /// runs exactly once.
    #[test]
    fn a_torn_answer_is_asked_for_again(
        which in 0_usize..6,
        at in any::<proptest::sample::Index>(),
        noise in proptest::collection::vec(any::<u8>(), 1..20),
    ) {
        let mut bench = Bench::ready();
        bench.guest.output = b"output\n".to_vec();
        bench.guest.status = 3;
        bench.start("text", None);
        let mut answers = 0;
        bench.run(|answer| {
            answers += 1;
            if answers != which + 1 {
                return vec![answer];
            }
            let at = at.index(answer.len());
            vec![[&answer[..at], &noise[..], &answer[at..]].concat()]
        });
        let (_, end) = bench.result();
        prop_assert_eq!(end, Some((3, false)));
        prop_assert_eq!(&bench.guest.runs, &["text"]);
    }

    /// Any one answer lost.
    #[test]
    fn a_lost_answer_is_asked_for_again(which in 0_usize..6) {
        let mut bench = Bench::ready();
        bench.guest.status = 3;
        bench.start("text", None);
        let mut answers = 0;
        bench.run(|answer| {
            answers += 1;
            if answers == which + 1 { Vec::new() } else { vec![answer] }
        });
        prop_assert_eq!(bench.result().1, Some((3, false)));
        prop_assert_eq!(&bench.guest.runs, &["text"]);
    }

    /// Garbage is never more than garbage.
    #[test]
    fn garbage_does_not_panic(chunks in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..100), 0..20)) {
        let mut bench = Bench::ready();
        bench.start("text", None);
        for chunk in &chunks {
            bench.machine.handle_input(chunk, bench.now);
        }
        bench.run(|answer| vec![answer]);
        let mut fresh = Bench::new();
        for chunk in &chunks {
            fresh.machine.handle_input(chunk, fresh.now);
        }
    }
}
