//! In-process hosts and routers, and the commands that run on them.
//!
//! Purpose: a host is a device of a [`Network`](crate::Network) with a network stack of its own:
//! Ethernet, ARP, IPv4, IPv6 with neighbour discovery, ICMP, UDP, TCP, bridges over its interfaces,
//! static routes and, for a router, forwarding. It is a state machine like the rest: the network
//! hands it frames and timers with `now` and carries its frames on, in real and in virtual time
//! alike. Nothing pends in the event queue for a host that has nothing to do.
//!
//! How it is used:
//!
//! - [`NetworkBuilder::host`](crate::NetworkBuilder::host) puts a host, described by a
//!   [`HostConfig`], on stations: interface *i* on port *i*.
//! - [`Network::start_command`](crate::Network::start_command) starts a command and returns its
//!   [`CommandId`]; [`Network::stop_command`](crate::Network::stop_command) asks it to end, as
//!   SIGINT does.
//! - [`Network::poll_command`](crate::Network::poll_command) returns, one by one and in order of
//!   time, what commands print and their exit statuses, as [`CommandEvent`]s. Poll it after every
//!   call that takes `now`.
//!
//! A command is a list of the [`PROGRAMS`], joined by `;`, `&&` and `||`, with quoting as in sh.
//! Anything else exits with status 127 and says what there is.
//!
//! Assumptions: see `stack`. Random choices (ports, identifiers, TCP's initial sequence numbers)
//! come from the streams of `node/NAME`, so that another node changes none of them.
//!
//! Not modelled: processing time, sockets' buffer limits for UDP, files, pipes, variables.
//!
//! Reference: `ping(8)`, `iperf(1)` version 2, `ip(8)`.

mod config;
mod ip;
mod iperf;
mod ping;
mod shell;
mod stack;
mod tcp;

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddrV4};

use tapestry_core::{SimTime, Streams};

pub use config::{
    HostBridge, HostConfig, HostError, HostInterface, HostRoute, InvalidPrefix, IpNetwork,
    ParseIpNetworkError,
};
pub use shell::PROGRAMS;
use shell::Session;
pub(crate) use stack::Io;
use stack::packet::{Header, Packet, UDP, transport_checksum, write_packet};
use stack::{Stack, Unreachable};

use crate::{DeviceId, Frame};

/// A command on a host, counted from 0 through all hosts of a network.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct CommandId(pub u64);

/// Something a command did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CommandEvent {
    /// The command.
    pub command: CommandId,
    /// The host it runs on.
    pub device: DeviceId,
    /// When.
    pub at: SimTime,
    /// What.
    pub output: CommandOutput,
}

/// What a command did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CommandOutput {
    /// It printed this, on its output or its error output.
    Printed(Vec<u8>),
    /// It ended with this exit status; nothing of it follows.
    Exited(u8),
}

/// A host or router.
#[derive(Debug)]
pub struct Host {
    /// What it was made from, to start it anew.
    config: HostConfig,
    stack: Stack,
    sessions: Vec<Session>,
    /// Commands that were started while the host stood still.
    waiting: Vec<(CommandId, String)>,
}

/// What a program has come to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Progress {
    Running,
    Exited(u8),
}

/// A running program. Each call may print, send and end it.
trait Program: fmt::Debug + Send {
    /// When [`handle_timeout`](Self::handle_timeout) should be called next.
    fn poll_timeout(&self) -> Option<SimTime>;

    fn handle_timeout(&mut self, cx: &mut Cx<'_, '_>) -> Progress;

    /// A UDP datagram or an ICMP message for the host; `None` if the program has no part in it.
    fn handle_packet(&mut self, _: &mut Cx<'_, '_>, _: &Packet<'_>) -> Option<Progress> {
        None
    }

    /// The state of TCP sockets may have changed.
    fn handle_tcp(&mut self, _: &mut Cx<'_, '_>) -> Progress {
        Progress::Running
    }

    /// The program is asked to end.
    fn stop(&mut self, cx: &mut Cx<'_, '_>) -> Progress;
}

/// A program's surroundings.
struct Cx<'a, 'io> {
    stack: &'a mut Stack,
    io: &'a mut Io<'io>,
    command: CommandId,
}

impl Cx<'_, '_> {
    fn now(&self) -> SimTime {
        self.io.now
    }

    fn print(&mut self, text: impl Into<String>) {
        self.io.event(self.command, CommandOutput::Printed(text.into().into_bytes()));
    }
}

impl Host {
    pub(crate) fn new(config: HostConfig, streams: Streams) -> Result<Self, HostError> {
        let stack = Stack::new(config.clone(), streams, SimTime::ZERO)?;
        Ok(Self { config, stack, sessions: Vec::new(), waiting: Vec::new() })
    }

    /// Starts anew, with nothing but its configuration.
    pub(crate) fn reset(&mut self, now: SimTime) {
        // What made a stack once does so again.
        if let Ok(stack) = Stack::new(self.config.clone(), self.stack.streams, now) {
            self.stack = stack;
        }
    }

    /// Ends all commands at once, as SIGKILL does.
    pub(crate) fn kill(&mut self, io: &mut Io<'_>) {
        const KILLED: u8 = 137;
        let sessions = self.sessions.drain(..).map(|session| session.id());
        let waiting = self.waiting.drain(..).map(|(id, _)| id);
        for id in sessions.chain(waiting) {
            io.event(id, CommandOutput::Exited(KILLED));
        }
    }

    /// An interface loses or gets its carrier.
    pub(crate) fn set_carrier(&mut self, io: &mut Io<'_>, port: u32, carrier: bool) {
        self.stack.set_carrier(io, port, carrier);
    }

    /// Starts a command once the host goes on.
    pub(crate) fn start_later(&mut self, id: CommandId, text: &str) {
        self.waiting.push((id, text.to_owned()));
    }

    /// Starts what waited for the host to go on.
    pub(crate) fn start_waiting(&mut self, io: &mut Io<'_>) {
        for (id, text) in std::mem::take(&mut self.waiting) {
            self.start_command(io, id, &text);
        }
    }

    /// The node's name.
    pub fn name(&self) -> &str {
        &self.stack.node
    }

    /// When [`handle_timeout`](Self::handle_timeout) should be called next.
    pub(crate) fn poll_timeout(&self) -> Option<SimTime> {
        let sessions = self.sessions.iter().filter_map(Session::poll_timeout).min();
        [self.stack.poll_timeout(), sessions].into_iter().flatten().min()
    }

    pub(crate) fn handle_frame(&mut self, io: &mut Io<'_>, port: u32, frame: &Frame) {
        if let Some(bytes) = self.stack.receive(io, port, frame) {
            self.deliver(io, &bytes);
        }
    }

    pub(crate) fn handle_timeout(&mut self, io: &mut Io<'_>) {
        self.stack.handle_timeout(io);
        while let Some(bytes) = self.stack.next_loopback(io.now) {
            let Some(packet) = Packet::parse(&bytes) else { continue };
            if let Some(bytes) = self.stack.deliver(io, 0, packet) {
                self.deliver(io, &bytes);
            }
        }
        for session in &mut self.sessions {
            session.handle_timeout(&mut self.stack, io);
        }
        if self.stack.poll_tcp(io) {
            for session in &mut self.sessions {
                session.handle_tcp(&mut self.stack, io);
            }
            self.stack.flush_tcp(io);
        }
        self.bury();
    }

    pub(crate) fn start_command(&mut self, io: &mut Io<'_>, id: CommandId, text: &str) {
        let mut session = Session::new(id, text, &mut self.stack, io);
        if !session.is_over() {
            session.advance(&mut self.stack, io);
            self.sessions.push(session);
            self.bury();
        }
    }

    /// Asks a command to end; false if it has ended.
    pub(crate) fn stop_command(&mut self, io: &mut Io<'_>, id: CommandId) -> bool {
        if let Some(at) = self.waiting.iter().position(|(waiting, _)| *waiting == id) {
            self.waiting.remove(at);
            io.event(id, CommandOutput::Exited(shell::TERMINATED));
            return true;
        }
        let Some(session) = self.sessions.iter_mut().find(|session| session.id() == id) else {
            return false;
        };
        session.stop(&mut self.stack, io);
        self.bury();
        true
    }

    /// Hands a packet to the program that it is for.
    fn deliver(&mut self, io: &mut Io<'_>, bytes: &[u8]) {
        let Some(packet) = Packet::parse(bytes) else { return };
        if packet.protocol == UDP && !is_sound_udp(&packet) {
            return;
        }
        let taken = self
            .sessions
            .iter_mut()
            .any(|session| session.handle_packet(&mut self.stack, io, &packet));
        if taken {
            self.bury();
        } else if packet.protocol == UDP && self.stack.is_local(packet.destination) {
            self.stack.send_error(io, Unreachable::Port, bytes);
        }
    }

    fn bury(&mut self) {
        self.sessions.retain(|session| !session.is_over());
    }
}

/// Whether a UDP datagram is complete and its checksum right or, in IPv4, absent.
fn is_sound_udp(packet: &Packet<'_>) -> bool {
    let datagram = packet.payload();
    let [.., a, b, c, d] = datagram.get(..8).unwrap_or_default() else { return false };
    let length = usize::from(u16::from_be_bytes([*a, *b]));
    let Some(datagram) = datagram.get(..length).filter(|datagram| datagram.len() >= 8) else {
        return false;
    };
    [*c, *d] == [0, 0] && packet.source.is_ipv4()
        || transport_checksum(packet.source, packet.destination, UDP, &[datagram]) == 0
}

/// A name or an address; `None` if neither.
fn resolve(stack: &Stack, text: &str, v6: Option<bool>) -> Option<IpAddr> {
    const LOCALHOST: [IpAddr; 2] =
        [IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST)];
    let fits = |address: &IpAddr| v6.is_none_or(|v6| address.is_ipv6() == v6);
    if let Ok(address) = text.parse() {
        return Some(address).filter(fits);
    }
    let known = stack.names.get(text).map(Vec::as_slice);
    let known = known.or_else(|| (text == "localhost").then_some(&LOCALHOST[..]))?;
    known.iter().copied().find(fits)
}

/// An IPv4 packet with a UDP datagram of zeros.
pub(crate) fn udp_packet(from: SocketAddrV4, to: SocketAddrV4, payload: u16) -> Vec<u8> {
    const HEADER: u16 = 8;
    let mut datagram = vec![0; usize::from(HEADER) + usize::from(payload)];
    let words = [from.port(), to.port(), HEADER.saturating_add(payload)];
    for (place, word) in datagram.as_chunks_mut::<2>().0.iter_mut().zip(words) {
        *place = word.to_be_bytes();
    }
    let (source, destination) = (IpAddr::V4(*from.ip()), IpAddr::V4(*to.ip()));
    let sum = transport_checksum(source, destination, UDP, &[&datagram]);
    datagram[6..8].copy_from_slice(&if sum == 0 { 0xffff } else { sum }.to_be_bytes());
    let header = Header {
        source,
        destination,
        protocol: UDP,
        hop_limit: stack::HOP_LIMIT,
        id: 0,
        dont_fragment: false,
        traffic_class: 0,
    };
    let mut packet = Vec::new();
    write_packet(&mut packet, &header, &[&datagram]);
    packet
}
