//! The client's side of a TCP test.

use std::net::{IpAddr, SocketAddr};

use smoltcp::iface::SocketHandle;
use smoltcp::socket::tcp::{CongestionControl, State};
use tapestry_core::SimTime;

use super::options::{Limit, Options, Pace};
use super::report::{Format, HEAD, Line, RULE, buffer};
use super::slow_start::SlowStart;
use super::{Stream, local};
use crate::host::{Cx, Program, Progress};

#[derive(Debug)]
pub(super) struct TcpClient {
    options: Options,
    senders: Vec<Sender>,
    start: SimTime,
    /// When the client gives up on the connections that are not there yet, or not closed yet.
    deadline: SimTime,
    headed: bool,
}

#[derive(Debug)]
struct Sender {
    stream: Stream,
    socket: SocketHandle,
    phase: Phase,
    /// Bytes handed to the socket.
    written: u64,
    start: SlowStart,
    line: Option<Line>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Connecting,
    Sending,
    /// All is written; the other side is to acknowledge it.
    Closing,
    Over,
}

/// Sender's buffer unless `-w` says otherwise, in bytes: the receiver's window is the limit.
const SEND_BUFFER: usize = 512 << 10;
/// A client receives nothing that matters.
const RECEIVE_BUFFER: usize = 4_096;
/// How long a connection may take to be made (Linux tries for about two minutes).
const CONNECT: SimTime = SimTime::from_secs(127);
/// How long the last bytes may take to be acknowledged.
const CLOSE: SimTime = SimTime::from_secs(60);

impl TcpClient {
    pub(super) fn start(
        options: Options,
        source: IpAddr,
        to: SocketAddr,
        cx: &mut Cx<'_, '_>,
    ) -> Result<Box<dyn Program>, u8> {
        let size = options.window.unwrap_or(SEND_BUFFER);
        let window = buffer(options.window, SEND_BUFFER);
        cx.print(format!("TCP window size: {window}\n{RULE}"));
        let now = cx.now();
        let mut senders = Vec::with_capacity(options.parallel);
        let segment = cx.stack.segment_bytes(now, to.ip());
        for number in 1..=options.parallel {
            let from = local(cx, source);
            let tcp = cx.stack.tcp();
            let socket = tcp.socket(RECEIVE_BUFFER, size);
            if options.reno {
                tcp.get(socket).set_congestion_control(CongestionControl::Reno);
            }
            let (own, its) = ((from.ip(), from.port()), (to.ip(), to.port()));
            let connected = tcp.connect(now, socket, own, its);
            let stream = Stream::new(number, (from, to), now, None);
            let phase = if connected { Phase::Connecting } else { Phase::Over };
            let start = SlowStart::new(segment);
            senders.push(Sender { stream, socket, phase, written: 0, start, line: None });
        }
        let deadline = now.saturating_add(CONNECT);
        let mut this = Self { options, senders, start: now, deadline, headed: false };
        match this.handle_tcp(cx) {
            Progress::Running => Ok(Box::new(this)),
            Progress::Exited(status) => Err(status),
        }
    }

    /// Whether the time to send is over.
    fn time_is_over(&self, now: SimTime) -> bool {
        matches!(self.options.limit, Limit::Time(time) if now - self.start >= time)
    }

    /// Bytes that a stream may have written by now.
    fn allowance(&self, sender: &Sender, now: SimTime) -> u64 {
        let limit = match self.options.limit {
            Limit::Bytes(bytes) => bytes,
            Limit::Time(_) => u64::MAX,
        };
        let Pace::Bits(_) = self.options.pace else { return limit };
        // Blocks whose time has come; the one behind them is not due yet.
        let length = self.options.length as u64;
        let mut blocks = sender.written / length;
        while self.due(blocks).is_some_and(|due| due <= now) && blocks * length < limit {
            blocks += 1;
        }
        limit.min(blocks * length)
    }

    fn due(&self, block: u64) -> Option<SimTime> {
        self.options.due(block).map(|due| self.start.saturating_add(due))
    }

    fn step(&mut self, cx: &mut Cx<'_, '_>, index: usize) {
        let now = cx.now();
        let time_is_over = self.time_is_over(now);
        let allowance = self.allowance(&self.senders[index], now);
        let sender = &mut self.senders[index];
        let tcp = cx.stack.tcp();
        let socket = tcp.get(sender.socket);
        if sender.phase == Phase::Connecting {
            match socket.state() {
                State::Established | State::CloseWait => {
                    sender.phase = Phase::Sending;
                    let stream = &mut sender.stream;
                    stream.meter = super::Meter::new(now, self.options.interval);
                    let text = stream.connected();
                    self.start = self.start.max(now);
                    self.deadline = SimTime::MAX;
                    cx.print(text);
                    return self.step(cx, index);
                }
                State::Closed => return self.fail(cx, index, "Connection refused"),
                _ if self.deadline <= now => return self.fail(cx, index, "Connection timed out"),
                _ => {}
            }
        }
        if sender.phase == Phase::Sending {
            let limited = matches!(self.options.limit, Limit::Bytes(_));
            let done = limited
                && sender.written >= allowance
                && match self.options.limit {
                    Limit::Bytes(bytes) => sender.written >= bytes,
                    Limit::Time(_) => false,
                };
            if done || time_is_over {
                socket.close();
                tcp.wake(now);
                sender.phase = Phase::Closing;
                self.deadline = now.saturating_add(CLOSE);
                return;
            }
            if !socket.may_send() {
                return self.fail(cx, index, "Connection reset by peer");
            }
            let before = sender.written;
            let acknowledged = before - (socket.send_queue() as u64).min(before);
            sender.start.acknowledge(now, acknowledged, before);
            let allowance = allowance.min(before + sender.start.room(before));
            while sender.written < allowance && socket.can_send() {
                let room = usize::try_from(allowance - sender.written).unwrap_or(usize::MAX);
                let sent = socket.send(|space| {
                    let length = space.len().min(room);
                    (length, length)
                });
                let Ok(length @ 1..) = sent else { break };
                sender.written += length as u64;
            }
            if sender.written > before {
                sender.start.wrote(now, sender.written);
                tcp.wake(now);
            }
        }
        self.measure(cx, index);
    }

    /// Counts what has been acknowledged; ends the stream when all of it has.
    fn measure(&mut self, cx: &mut Cx<'_, '_>, index: usize) {
        let now = cx.now();
        let sender = &mut self.senders[index];
        if sender.phase != Phase::Sending && sender.phase != Phase::Closing {
            return;
        }
        let socket = cx.stack.tcp().get(sender.socket);
        let acknowledged = sender.written - (socket.send_queue() as u64).min(sender.written);
        let new = acknowledged.saturating_sub(sender.stream.meter.total().bytes);
        if new > 0 {
            sender.stream.meter.add(new as usize);
        }
        if sender.phase == Phase::Closing {
            match socket.state() {
                State::FinWait2 | State::TimeWait | State::Closed => self.end(cx, index),
                _ if self.deadline <= now => self.end(cx, index),
                _ => {}
            }
        }
    }

    fn fail(&mut self, cx: &mut Cx<'_, '_>, index: usize, why: &str) {
        let was = self.senders[index].phase;
        if was == Phase::Connecting {
            cx.print(format!("tcp connect failed: {why}\n"));
        } else {
            cx.print(format!("write failed: {why}\n"));
        }
        self.senders[index].phase = Phase::Closing;
        if was == Phase::Connecting {
            self.senders[index].phase = Phase::Over;
            cx.stack.tcp().remove(self.senders[index].socket);
        } else {
            self.end(cx, index);
        }
    }

    /// Prints a stream's summary and frees its socket.
    fn end(&mut self, cx: &mut Cx<'_, '_>, index: usize) {
        let line = self.senders[index].stream.meter.summary(cx.now());
        self.head(cx);
        let sender = &mut self.senders[index];
        cx.print(line.text(&sender.stream.number.to_string(), self.options.format) + "\n");
        sender.line = Some(line);
        sender.phase = Phase::Over;
        cx.stack.tcp().release(cx.io.now, sender.socket);
    }

    fn head(&mut self, cx: &mut Cx<'_, '_>) {
        if !self.headed {
            cx.print(HEAD);
            self.headed = true;
        }
    }

    fn intervals(&mut self, cx: &mut Cx<'_, '_>) {
        let now = cx.now();
        let sending = |s: &&mut Sender| s.phase == Phase::Sending;
        let lines: Vec<(usize, Line)> = self
            .senders
            .iter_mut()
            .filter(sending)
            .filter_map(|s| Some((s.stream.number, s.stream.meter.next_interval(now)?)))
            .collect();
        if lines.is_empty() {
            return;
        }
        self.head(cx);
        for (number, line) in &lines {
            cx.print(line.text(&number.to_string(), self.options.format) + "\n");
        }
        let sums: Vec<Line> = lines.iter().map(|(_, line)| *line).collect();
        print_sum(cx, &sums, self.options.format);
    }
}

/// Prints what several streams did together.
fn print_sum(cx: &mut Cx<'_, '_>, lines: &[Line], format: Format) {
    if let (Some(sum), 2..) = (Line::sum(lines), lines.len()) {
        cx.print(sum.text("SUM", format) + "\n");
    }
}

impl Program for TcpClient {
    fn poll_timeout(&self) -> Option<SimTime> {
        let mut due = (self.deadline < SimTime::MAX).then_some(self.deadline);
        let mut earlier = |at: Option<SimTime>| due = [due, at].into_iter().flatten().min();
        for sender in self.senders.iter().filter(|s| s.phase == Phase::Sending) {
            earlier(sender.stream.meter.poll_timeout());
            if let Pace::Bits(_) = self.options.pace {
                earlier(self.due(sender.written.div_ceil(self.options.length as u64)));
            }
            if let Limit::Time(time) = self.options.limit {
                earlier(Some(self.start.saturating_add(time)));
            }
        }
        due
    }

    fn handle_timeout(&mut self, cx: &mut Cx<'_, '_>) -> Progress {
        for index in 0..self.senders.len() {
            self.measure(cx, index);
        }
        self.intervals(cx);
        self.handle_tcp(cx)
    }

    fn handle_tcp(&mut self, cx: &mut Cx<'_, '_>) -> Progress {
        for index in 0..self.senders.len() {
            if self.senders[index].phase != Phase::Over {
                self.step(cx, index);
            }
        }
        if self.senders.iter().any(|sender| sender.phase != Phase::Over) {
            return Progress::Running;
        }
        let lines: Vec<Line> = self.senders.iter().filter_map(|sender| sender.line).collect();
        print_sum(cx, &lines, self.options.format);
        Progress::Exited(u8::from(lines.is_empty()))
    }

    fn stop(&mut self, cx: &mut Cx<'_, '_>) -> Progress {
        for index in 0..self.senders.len() {
            self.measure(cx, index);
            match self.senders[index].phase {
                Phase::Over => {}
                Phase::Connecting => cx.stack.tcp().remove(self.senders[index].socket),
                Phase::Sending | Phase::Closing => self.end(cx, index),
            }
        }
        Progress::Exited(0)
    }
}
