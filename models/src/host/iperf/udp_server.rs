//! The server's side of UDP tests.

use std::collections::VecDeque;
use std::fmt::Write as _;
use std::net::SocketAddr;

use tapestry_core::SimTime;

use super::options::Options;
use super::report::{HEAD_UDP, HEAD_UDP_ENHANCED, Line, RULE, UDP_BUFFER, buffer};
use super::{Stream, wire};
use crate::host::stack::packet::{Packet, UDP, u16_at};
use crate::host::{Cx, Program, Progress};

#[derive(Debug)]
pub(super) struct UdpServer {
    options: Options,
    receivers: Vec<Receiver>,
    /// Reports of streams that ended, for closing datagrams that are repeated.
    ended: VecDeque<(SocketAddr, SocketAddr, [u8; wire::REPORT])>,
    streams: usize,
    headed: bool,
}

#[derive(Debug)]
struct Receiver {
    stream: Stream,
    jitter_ns: f64,
    /// Latest time under way, in nanoseconds; negative where the clocks differ.
    transit_ns: Option<i64>,
    latency: Latency,
    last: SimTime,
}

/// Times under way, in nanoseconds.
#[derive(Debug, Clone, Copy)]
struct Latency {
    count: f64,
    sum: f64,
    squares: f64,
    min: f64,
    max: f64,
}

const NO_LATENCY: Latency =
    Latency { count: 0.0, sum: 0.0, squares: 0.0, min: f64::INFINITY, max: f64::NEG_INFINITY };
/// Reports kept.
const ENDED: usize = 64;
/// Streams at once; datagrams of others are dropped.
const STREAMS: usize = 1_024;

impl UdpServer {
    pub(super) fn start(options: Options, cx: &mut Cx<'_, '_>) -> Self {
        cx.print(format!(
            "{RULE}Server listening on UDP port {}\nUDP buffer size: {}\n{RULE}",
            options.port,
            buffer(options.window, UDP_BUFFER)
        ));
        let (receivers, ended) = (Vec::new(), VecDeque::new());
        Self { options, receivers, ended, streams: 0, headed: false }
    }

    fn print(&mut self, cx: &mut Cx<'_, '_>, index: usize, line: &Line) {
        let enhanced = self.options.enhanced;
        if !self.headed {
            cx.print(if enhanced { HEAD_UDP_ENHANCED } else { HEAD_UDP });
            self.headed = true;
        }
        let receiver = &self.receivers[index];
        let id = receiver.stream.number;
        let mut text = line.datagrams(&id.to_string(), receiver.jitter(), self.options.format);
        if enhanced {
            let _ = write!(text, " {} ms {:.0} pps", receiver.latency.text(), line.per_second());
        }
        text += "\n";
        if line.tally.out_of_order > 0 {
            let (from, to) = (line.from.as_secs_f64(), line.to.as_secs_f64());
            let count = line.tally.out_of_order;
            let _ = writeln!(
                text,
                "[{id:3}] {from:.4}-{to:.4} sec  {count} datagrams received out-of-order"
            );
        }
        cx.print(text);
    }

    fn receive(&mut self, cx: &mut Cx<'_, '_>, local: SocketAddr, from: SocketAddr, data: &[u8]) {
        let Some((number, sent)) = wire::parse(data) else { return };
        let is_its = |r: &Receiver| r.stream.remote == from && r.stream.local == local;
        let index = match self.receivers.iter().position(is_its) {
            Some(index) => index,
            None if number < 0 => {
                let known = self.ended.iter().find(|(l, r, _)| *l == local && *r == from);
                if let Some((_, _, report)) = known {
                    let _ = cx.stack.send_udp(cx.io, local, from, 0, &[report]);
                    return;
                }
                // Only the closing datagram came through.
                self.accept(cx, local, from)
            }
            None if self.receivers.len() == STREAMS => return,
            None => self.accept(cx, local, from),
        };
        let clock = cx.stack.wall_clock(cx.now());
        let receiver = &mut self.receivers[index];
        receiver.last = cx.now();
        receiver.note(clock, sent, number.abs(), data.len());
        if number < 0 {
            let line = self.end(cx, index);
            let receiver = self.receivers.remove(index);
            let report = wire::report(&line, receiver.jitter());
            let _ = cx.stack.send_udp(cx.io, local, from, 0, &[&report]);
            if self.ended.len() == ENDED {
                self.ended.pop_front();
            }
            self.ended.push_back((local, from, report));
        }
    }

    /// A new stream; its index.
    fn accept(&mut self, cx: &mut Cx<'_, '_>, local: SocketAddr, from: SocketAddr) -> usize {
        self.ended.retain(|(l, r, _)| (*l, *r) != (local, from));
        self.streams += 1;
        let stream = Stream::new(self.streams, (local, from), cx.now(), self.options.interval);
        cx.print(stream.connected());
        self.receivers.push(Receiver {
            stream,
            jitter_ns: 0.0,
            transit_ns: None,
            latency: NO_LATENCY,
            last: cx.now(),
        });
        self.receivers.len() - 1
    }

    /// Prints a stream's summary.
    fn end(&mut self, cx: &mut Cx<'_, '_>, index: usize) -> Line {
        let receiver = &self.receivers[index];
        let line = receiver.stream.meter.summary(receiver.last);
        self.print(cx, index, &line);
        line
    }
}

impl Receiver {
    /// A datagram that has arrived when the host's clock shows `clock`.
    fn note(&mut self, clock: SimTime, sent: SimTime, number: i64, bytes: usize) {
        self.stream.meter.add(bytes);
        self.stream.meter.number(number);
        let transit = clock.as_nanos().wrapping_sub(sent.as_nanos()).cast_signed();
        if let Some(before) = self.transit_ns.replace(transit) {
            let change = (transit.wrapping_sub(before)).unsigned_abs() as f64;
            self.jitter_ns += (change - self.jitter_ns) / 16.0;
        }
        let transit = transit as f64;
        let latency = &mut self.latency;
        latency.count += 1.0;
        latency.sum += transit;
        latency.squares += transit * transit;
        latency.min = latency.min.min(transit);
        latency.max = latency.max.max(transit);
    }

    fn jitter(&self) -> SimTime {
        SimTime::from_nanos(self.jitter_ns as u64)
    }
}

impl Latency {
    /// Average, least, most and standard deviation in milliseconds.
    fn text(&self) -> String {
        let mean = self.sum / self.count.max(1.0);
        let deviation = (self.squares / self.count.max(1.0) - mean * mean).max(0.0).sqrt();
        let ms = |ns: f64| format!("{:.3}", ns / 1e6);
        format!("{}/{}/{}/{}", ms(mean), ms(self.min), ms(self.max), ms(deviation))
    }
}

impl Program for UdpServer {
    fn poll_timeout(&self) -> Option<SimTime> {
        self.receivers.iter().filter_map(|r| r.stream.meter.poll_timeout()).min()
    }

    fn handle_timeout(&mut self, cx: &mut Cx<'_, '_>) -> Progress {
        for index in 0..self.receivers.len() {
            while let Some(line) = self.receivers[index].stream.meter.next_interval(cx.now()) {
                self.print(cx, index, &line);
            }
        }
        Progress::Running
    }

    fn handle_packet(&mut self, cx: &mut Cx<'_, '_>, packet: &Packet<'_>) -> Option<Progress> {
        let datagram = packet.payload();
        if packet.protocol != UDP || u16_at(datagram, 2)? != self.options.port {
            return None;
        }
        let from = SocketAddr::new(packet.source, u16_at(datagram, 0)?);
        let local = SocketAddr::new(packet.destination, self.options.port);
        let length = usize::from(u16_at(datagram, 4)?);
        self.receive(cx, local, from, datagram.get(8..length)?);
        Some(Progress::Running)
    }

    fn stop(&mut self, cx: &mut Cx<'_, '_>) -> Progress {
        for index in 0..self.receivers.len() {
            self.end(cx, index);
        }
        Progress::Exited(0)
    }
}
