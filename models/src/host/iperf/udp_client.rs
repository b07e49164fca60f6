//! The client's side of a UDP test.

use std::fmt::Write as _;
use std::net::{IpAddr, SocketAddr};

use tapestry_core::SimTime;

use super::options::{MIN_LENGTH, Options};
use super::report::{HEAD, HEAD_UDP, HEAD_UDP_CLIENT_ENHANCED, Line, RULE, UDP_BUFFER, buffer};
use super::{Stream, local, wire};
use crate::host::stack::packet::{Packet, UDP, u16_at};
use crate::host::{Cx, Program, Progress};

#[derive(Debug)]
pub(super) struct UdpClient {
    options: Options,
    streams: Vec<Sender>,
    start: SimTime,
    /// Number of the next datagram, from 0.
    next: u64,
    sending: bool,
    /// What follows the head of each datagram.
    body: Vec<u8>,
    headed: bool,
    report_headed: bool,
}

#[derive(Debug)]
struct Sender {
    stream: Stream,
    /// Closing datagrams sent, and when the next is due; `None` once it was answered or given up.
    closing: Option<(u32, SimTime)>,
}

/// Closing datagrams before the client gives up, and the time between them.
const TRIES: u32 = 10;
const RETRY: SimTime = SimTime::from_millis(250);

impl UdpClient {
    pub(super) fn start(
        options: Options,
        source: IpAddr,
        to: SocketAddr,
        cx: &mut Cx<'_, '_>,
    ) -> Result<Box<dyn Program>, u8> {
        let interval = options.due(1).unwrap_or(super::SHORTEST_INTERVAL).as_nanos() as f64 / 1e3;
        cx.print(format!(
            "Sending {} byte datagrams, IPG target: {interval:.2} us (kalman adjust)\n\
             UDP buffer size: {}\n{RULE}",
            options.length,
            buffer(options.window, UDP_BUFFER)
        ));
        let start = cx.now();
        let mut streams = Vec::with_capacity(options.parallel);
        for number in 1..=options.parallel {
            let from = local(cx, source);
            let stream = Stream::new(number, (from, to), start, options.interval);
            cx.print(stream.connected());
            streams.push(Sender { stream, closing: None });
        }
        let body = (0..options.length - MIN_LENGTH)
            .map(|i| if i < wire::REPORT { 0 } else { b'0' + (i % 10) as u8 })
            .collect();
        let mut this = Self {
            options,
            streams,
            start,
            next: 0,
            sending: true,
            body,
            headed: false,
            report_headed: false,
        };
        match this.handle_timeout(cx) {
            Progress::Running => Ok(Box::new(this)),
            Progress::Exited(status) => Err(status),
        }
    }

    /// When the next datagram is due.
    fn due(&self) -> SimTime {
        self.start.saturating_add(self.options.due(self.next).unwrap_or(SimTime::ZERO))
    }

    fn send(&self, cx: &mut Cx<'_, '_>, stream: &Stream, number: i64) -> Result<(), String> {
        let head = wire::head(number, cx.stack.wall_clock(cx.now()));
        let payload = [&head[..], &self.body];
        let class = self.options.traffic_class;
        let sent = cx.stack.send_udp(cx.io, stream.local, stream.remote, class, &payload);
        sent.map_err(|error| format!("write failed: {error}\n"))
    }

    /// The end of sending: closes all streams.
    fn close(&mut self, cx: &mut Cx<'_, '_>) {
        self.sending = false;
        let number = self.next.cast_signed() + 1;
        for i in 0..self.streams.len() {
            let _ = self.send(cx, &self.streams[i].stream, -number);
            let sender = &mut self.streams[i];
            sender.stream.meter.add(self.options.length);
            sender.closing = Some((1, cx.now().saturating_add(RETRY)));
        }
        let lines: Vec<Line> =
            self.streams.iter().map(|s| s.stream.meter.summary(cx.now())).collect();
        self.head(cx);
        for (sender, line) in self.streams.iter().zip(&lines) {
            self.print(cx, &sender.stream.number.to_string(), line);
            cx.print(format!("[{:3}] Sent {} datagrams\n", sender.stream.number, number + 1));
        }
        if let (Some(sum), 2..) = (Line::sum(&lines), lines.len()) {
            self.print(cx, "SUM", &sum);
            let count = lines.len();
            let sent = (number + 1) * count.cast_signed() as i64;
            cx.print(format!("[SUM-{count}] Sent {sent} datagrams\n"));
        }
    }

    fn head(&mut self, cx: &mut Cx<'_, '_>) {
        if !self.headed {
            cx.print(if self.options.enhanced { HEAD_UDP_CLIENT_ENHANCED } else { HEAD });
            self.headed = true;
        }
    }

    fn print(&self, cx: &mut Cx<'_, '_>, id: &str, line: &Line) {
        let mut text = line.text(id, self.options.format);
        if self.options.enhanced {
            let _ = write!(text, "  {}/0  {:8.0} pps", line.tally.datagrams, line.per_second());
        }
        cx.print(text + "\n");
    }

    fn intervals(&mut self, cx: &mut Cx<'_, '_>) {
        let now = cx.now();
        let lines: Vec<Line> =
            self.streams.iter_mut().filter_map(|s| s.stream.meter.next_interval(now)).collect();
        if lines.is_empty() {
            return;
        }
        self.head(cx);
        for (sender, line) in self.streams.iter().zip(&lines) {
            self.print(cx, &sender.stream.number.to_string(), line);
        }
        if let (Some(sum), 2..) = (Line::sum(&lines), lines.len()) {
            self.print(cx, "SUM", &sum);
        }
    }

    fn progress(&self) -> Progress {
        let over = !self.sending && self.streams.iter().all(|s| s.closing.is_none());
        if over { Progress::Exited(0) } else { Progress::Running }
    }
}

impl Program for UdpClient {
    fn poll_timeout(&self) -> Option<SimTime> {
        let closing = self.streams.iter().filter_map(|s| s.closing).map(|(_, at)| at).min();
        let interval = || self.streams.first().and_then(|s| s.stream.meter.poll_timeout());
        if !self.sending {
            return closing;
        }
        [Some(self.due()), interval()].into_iter().flatten().min()
    }

    fn handle_timeout(&mut self, cx: &mut Cx<'_, '_>) -> Progress {
        let now = cx.now();
        if self.sending {
            self.intervals(cx);
            while self.sending && self.due() <= now {
                if !self.options.includes(self.next, self.due() - self.start) {
                    self.close(cx);
                    break;
                }
                let number = self.next.cast_signed() + 1;
                for i in 0..self.streams.len() {
                    match self.send(cx, &self.streams[i].stream, number) {
                        Ok(()) => self.streams[i].stream.meter.add(self.options.length),
                        Err(what) => {
                            cx.print(what);
                            return Progress::Exited(1);
                        }
                    }
                }
                self.next += 1;
            }
            return self.progress();
        }
        let number = self.next.cast_signed() + 1;
        for i in 0..self.streams.len() {
            let Some((tries, _)) = self.streams[i].closing.filter(|&(_, at)| at <= now) else {
                continue;
            };
            if tries == TRIES {
                self.streams[i].closing = None;
                cx.print(format!(
                    "[{:3}] WARNING: did not receive ack of last datagram after {TRIES} tries.\n",
                    self.streams[i].stream.number
                ));
            } else {
                let _ = self.send(cx, &self.streams[i].stream, -number);
                self.streams[i].closing = Some((tries + 1, now.saturating_add(RETRY)));
            }
        }
        self.progress()
    }

    fn handle_packet(&mut self, cx: &mut Cx<'_, '_>, packet: &Packet<'_>) -> Option<Progress> {
        if packet.protocol != UDP {
            return None;
        }
        let datagram = packet.payload();
        let from = SocketAddr::new(packet.source, u16_at(datagram, 0)?);
        let port = u16_at(datagram, 2)?;
        let is_its = |s: &&mut Sender| s.stream.local.port() == port && s.stream.remote == from;
        let sender = self.streams.iter_mut().find(is_its)?;
        if sender.closing.is_some()
            && let Some((line, jitter)) = wire::parse_report(&datagram[8..])
        {
            sender.closing = None;
            let id = sender.stream.number;
            let head = if self.report_headed { "" } else { HEAD_UDP };
            self.report_headed = true;
            let report = line.datagrams(&id.to_string(), jitter, self.options.format);
            cx.print(format!("[{id:3}] Server Report:\n{head}{report}\n"));
        }
        Some(self.progress())
    }

    fn stop(&mut self, cx: &mut Cx<'_, '_>) -> Progress {
        if self.sending {
            self.close(cx);
            return self.progress();
        }
        Progress::Exited(0)
    }
}
