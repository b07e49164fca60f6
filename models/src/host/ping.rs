//! `ping`: echo requests and what comes back, printed as iputils does.
//!
//! Assumptions: round-trip times are exact in virtual time; printed in microseconds, truncated.
//!
//! Reference: `ping(8)` of iputils; RFC 792, RFC 4443.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::net::IpAddr;

use tapestry_core::SimTime;

use super::shell::seconds;
use super::stack::packet::{ICMP, ICMPV6, Packet};
use super::stack::{Sending, echo_reply, error_text, original};
use super::{Cx, Program, Progress, resolve};

#[derive(Debug)]
pub(super) struct Ping {
    options: Options,
    source: IpAddr,
    target: IpAddr,
    id: u16,
    started: SimTime,
    next: SimTime,
    /// When it ends even if replies are missing.
    end: Option<SimTime>,
    sent: u32,
    received: u32,
    duplicates: u32,
    errors: u32,
    /// Requests without reply, by number.
    waiting: BTreeMap<u32, SimTime>,
    /// When requests were sent that have been answered, by number: further replies are duplicates.
    answered: BTreeMap<u32, SimTime>,
    /// Replies whose times count, duplicates too, as in iputils.
    timed: u32,
    min: SimTime,
    max: SimTime,
    sum_ns: u128,
    squares_ns2: u128,
    latest: SimTime,
}

#[derive(Debug, Clone, PartialEq)]
struct Options {
    target: String,
    count: Option<u32>,
    interval: SimTime,
    /// Bytes of data.
    size: usize,
    /// Longest wait for a reply behind the last request (`-W`).
    linger: SimTime,
    /// Longest run (`-w`).
    deadline: Option<SimTime>,
    hop_limit: u8,
    /// The whole byte: DSCP and ECN (`-Q`).
    traffic_class: u8,
    source: Option<String>,
    quiet: bool,
    v6: Option<bool>,
}

/// Replies that are waited for; older requests count as lost.
const WAITING: usize = 65_536;
/// iputils' shortest interval: no loop without delay.
const SHORTEST_INTERVAL: SimTime = SimTime::from_millis(1);

/// Starts `ping`, or says what is wrong and returns the exit status.
pub(super) fn start(
    arguments: &[String],
    v6: bool,
    cx: &mut Cx<'_, '_>,
) -> Result<Box<dyn Program>, u8> {
    let refuse = |cx: &mut Cx<'_, '_>, what: String| {
        cx.print(format!("ping: {what}\n"));
        Err(2)
    };
    let options = match parse(arguments, v6) {
        Ok(options) => options,
        Err(what) => return refuse(cx, what),
    };
    let Some(target) = resolve(cx.stack, &options.target, options.v6) else {
        return refuse(cx, format!("{}: Name or service not known", options.target));
    };
    let source = match &options.source {
        None => cx.stack.source_for(target),
        Some(name) => match name.parse().ok().filter(|&address| cx.stack.is_local(address)) {
            Some(address) => Some(address),
            None => {
                let addresses = cx.stack.interface_named(name).map(|number| {
                    cx.stack.interfaces[number].addresses.iter().map(|own| own.address())
                });
                let mut addresses = addresses.into_iter().flatten();
                let Some(found) = addresses.find(|own| own.is_ipv4() == target.is_ipv4()) else {
                    return refuse(cx, format!("unknown iface: {name}"));
                };
                Some(found)
            }
        },
    };
    let Some(source) = source else {
        return refuse(cx, "connect: Network is unreachable".into());
    };
    let (size, name) = (options.size, options.target.clone());
    let head = if target.is_ipv4() {
        format!("PING {name} ({target}) {size}({}) bytes of data.\n", size + 28)
    } else {
        format!("PING {name}({target}) {size} data bytes\n")
    };
    cx.print(head);
    let now = cx.now();
    let id = (cx.stack.draw("ping") as u16).wrapping_add(cx.command.0 as u16);
    let mut ping = Ping {
        end: options.deadline.map(|deadline| now.saturating_add(deadline)),
        options,
        source,
        target,
        id,
        started: now,
        next: now,
        sent: 0,
        received: 0,
        duplicates: 0,
        errors: 0,
        waiting: BTreeMap::new(),
        answered: BTreeMap::new(),
        timed: 0,
        min: SimTime::MAX,
        max: SimTime::ZERO,
        sum_ns: 0,
        squares_ns2: 0,
        latest: now,
    };
    match ping.handle_timeout(cx) {
        Progress::Running => Ok(Box::new(ping)),
        Progress::Exited(status) => Err(status),
    }
}

fn parse(arguments: &[String], v6: bool) -> Result<Options, String> {
    let mut options = Options {
        target: String::new(),
        count: None,
        interval: SimTime::from_secs(1),
        size: 56,
        linger: SimTime::from_secs(10),
        deadline: None,
        hop_limit: 64,
        traffic_class: 0,
        source: None,
        quiet: false,
        v6: v6.then_some(true),
    };
    let mut words = arguments.iter().map(String::as_str);
    while let Some(word) = words.next() {
        let Some(flags) = word.strip_prefix('-').filter(|flags| !flags.is_empty()) else {
            if !options.target.is_empty() {
                return Err(format!("one destination only, not also {word}"));
            }
            word.clone_into(&mut options.target);
            continue;
        };
        for (at, flag) in flags.char_indices() {
            match flag {
                'q' => options.quiet = true,
                'n' | 'O' | 'D' | 'U' => {}
                '4' => options.v6 = Some(false),
                '6' => options.v6 = Some(true),
                'c' | 'i' | 's' | 'W' | 'w' | 't' | 'I' | 'Q' => {
                    let rest = &flags[at + 1..];
                    let value = if rest.is_empty() { words.next() } else { Some(rest) };
                    let value = value.ok_or(format!("option requires an argument -- '{flag}'"))?;
                    set(&mut options, flag, value)
                        .ok_or(format!("invalid argument: '{value}' of -{flag}"))?;
                    break;
                }
                _ => {
                    return Err(format!(
                        "invalid option -- '{flag}'; an in-process host knows -c -i -s -W -w -t -I -Q -q -n -4 -6"
                    ));
                }
            }
        }
    }
    if options.target.is_empty() {
        return Err("usage error: Destination address required".into());
    }
    Ok(options)
}

fn set(options: &mut Options, flag: char, value: &str) -> Option<()> {
    match flag {
        'c' => options.count = Some(value.parse().ok().filter(|&count| count > 0)?),
        'i' => options.interval = seconds(value, 1.0)?.max(SHORTEST_INTERVAL),
        's' => options.size = value.parse().ok().filter(|&size| size <= 65_399)?,
        'W' => options.linger = seconds(value, 1.0)?,
        'w' => options.deadline = Some(seconds(value, 1.0)?),
        'Q' => {
            options.traffic_class = match value.strip_prefix("0x") {
                Some(digits) => u8::from_str_radix(digits, 16).ok()?,
                None => value.parse().ok()?,
            }
        }
        't' => options.hop_limit = value.parse().ok().filter(|&limit| limit > 0)?,
        _ => options.source = Some(value.to_owned()),
    }
    Some(())
}

impl Ping {
    fn send(&mut self, cx: &mut Cx<'_, '_>) {
        self.sent += 1;
        let data: Vec<u8> = (0..self.options.size).map(|i| i as u8).collect();
        let sending = Sending {
            source: Some(self.source),
            hop_limit: self.options.hop_limit,
            traffic_class: self.options.traffic_class,
            ..Sending::to(self.target, if self.target.is_ipv4() { ICMP } else { ICMPV6 })
        };
        let sequence = self.sent as u16;
        if let Err(error) = cx.stack.send_echo_request(cx.io, &sending, self.id, sequence, &data) {
            cx.print(format!("ping: sendmsg: {error}\n"));
            self.errors += 1;
        } else {
            if self.waiting.len() == WAITING {
                self.waiting.pop_first();
            }
            self.waiting.insert(self.sent, cx.now());
        }
        self.next = cx.now().saturating_add(self.options.interval);
        self.latest = cx.now();
        if self.options.count == Some(self.sent) {
            let wait = if self.received > 0 {
                self.max.saturating_add(self.max).max(self.options.interval)
            } else {
                self.options.linger
            };
            let end = cx.now().saturating_add(wait);
            self.end = Some(self.end.map_or(end, |deadline| deadline.min(end)));
        }
    }

    /// The latest request with these 16 bits as its sequence number.
    fn number(&self, sequence: u16) -> u32 {
        self.sent.wrapping_sub(u32::from((self.sent as u16).wrapping_sub(sequence)))
    }

    fn all_sent(&self) -> bool {
        self.options.count == Some(self.sent)
    }

    /// The statistics, and the exit status.
    fn finish(&mut self, cx: &mut Cx<'_, '_>) -> Progress {
        let lost = self.sent - self.received;
        let mut text = format!(
            "\n--- {} ping statistics ---\n{} packets transmitted, {} received, ",
            self.options.target, self.sent, self.received
        );
        for (count, what) in [(self.duplicates, "duplicates"), (self.errors, "errors")] {
            if count > 0 {
                let _ = write!(text, "+{count} {what}, ");
            }
        }
        let share = f64::from(lost) * 100.0 / f64::from(self.sent.max(1));
        let time = (self.latest - self.started).as_nanos() / 1_000_000;
        let _ = writeln!(text, "{}% packet loss, time {time}ms", significant(share));
        if self.received > 0 {
            let count = u128::from(self.timed);
            let mean = self.sum_ns / count;
            let variance = (self.squares_ns2 / count).saturating_sub(mean * mean);
            let milliseconds = |ns: u128| format!("{}.{:03}", ns / 1_000_000, ns / 1_000 % 1_000);
            let _ = writeln!(
                text,
                "rtt min/avg/max/mdev = {}/{}/{}/{} ms",
                milliseconds(u128::from(self.min.as_nanos())),
                milliseconds(mean),
                milliseconds(u128::from(self.max.as_nanos())),
                milliseconds(variance.isqrt()),
            );
        } else {
            text += "\n";
        }
        cx.print(text);
        Progress::Exited(u8::from(self.received == 0))
    }

    fn handle_reply(
        &mut self,
        cx: &mut Cx<'_, '_>,
        packet: &Packet<'_>,
        sequence: u16,
    ) -> Progress {
        let number = self.number(sequence);
        let (sent, mark) = if let Some(sent) = self.waiting.remove(&number) {
            self.received += 1;
            if self.answered.len() == WAITING {
                self.answered.pop_first();
            }
            self.answered.insert(number, sent);
            (sent, "")
        } else {
            self.duplicates += 1;
            let Some(&sent) = self.answered.get(&number) else { return Progress::Running };
            (sent, " (DUP!)")
        };
        let rtt = cx.now() - sent;
        self.timed += 1;
        self.min = self.min.min(rtt);
        self.max = self.max.max(rtt);
        let ns = u128::from(rtt.as_nanos());
        self.sum_ns += ns;
        self.squares_ns2 += ns * ns;
        if !self.options.quiet {
            cx.print(format!(
                "{} bytes from {}: icmp_seq={number} ttl={} time={} ms{mark}\n",
                packet.payload().len(),
                packet.source,
                packet.hop_limit,
                round_trip(rtt)
            ));
        }
        self.latest = cx.now();
        if self.all_sent() && self.waiting.is_empty() { self.finish(cx) } else { Progress::Running }
    }
}

impl Program for Ping {
    fn poll_timeout(&self) -> Option<SimTime> {
        let next = (!self.all_sent()).then_some(self.next);
        [next, self.end].into_iter().flatten().min()
    }

    fn handle_timeout(&mut self, cx: &mut Cx<'_, '_>) -> Progress {
        let now = cx.now();
        if self.end.is_some_and(|end| end <= now) {
            return self.finish(cx);
        }
        if !self.all_sent() && self.next <= now {
            self.send(cx);
            // Nothing was sent that a reply could come for.
            if self.all_sent() && self.waiting.is_empty() {
                return self.finish(cx);
            }
        }
        Progress::Running
    }

    fn handle_packet(&mut self, cx: &mut Cx<'_, '_>, packet: &Packet<'_>) -> Option<Progress> {
        if packet.protocol != ICMP && packet.protocol != ICMPV6 {
            return None;
        }
        if let Some((id, sequence)) = echo_reply(packet) {
            return (id == self.id).then(|| self.handle_reply(cx, packet, sequence));
        }
        let message = packet.payload();
        let (&kind, &code) = (message.first()?, message.get(1)?);
        let text = error_text(packet.protocol == ICMPV6, kind, code)?;
        let (protocol, destination, inner) = original(message)?;
        let id = inner.get(4..6).map(|id| u16::from_be_bytes([id[0], id[1]]));
        let sequence = inner.get(6..8).map(|s| u16::from_be_bytes([s[0], s[1]]))?;
        if protocol != packet.protocol || destination != self.target || id != Some(self.id) {
            return None;
        }
        let number = self.number(sequence);
        self.waiting.remove(&number);
        self.errors += 1;
        if !self.options.quiet {
            cx.print(format!("From {} icmp_seq={number} {text}\n", packet.source));
        }
        self.latest = cx.now();
        let over = self.all_sent() && self.waiting.is_empty();
        Some(if over { self.finish(cx) } else { Progress::Running })
    }

    fn stop(&mut self, cx: &mut Cx<'_, '_>) -> Progress {
        self.finish(cx)
    }
}

/// Milliseconds with as many places as iputils prints.
fn round_trip(rtt: SimTime) -> String {
    let micros = rtt.as_nanos() / 1_000;
    let (whole, rest) = (micros / 1_000, micros % 1_000);
    match micros {
        100_000.. => format!("{whole}"),
        10_000.. => format!("{whole}.{:01}", rest / 100),
        1_000.. => format!("{whole}.{:02}", rest / 10),
        _ => format!("{whole}.{rest:03}"),
    }
}

/// At most six significant digits, without zeros at the end.
fn significant(value: f64) -> String {
    let digits = if value >= 10.0 { 4 } else { 5 };
    let text = format!("{value:.digits$}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}
