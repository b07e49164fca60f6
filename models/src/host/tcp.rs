//! TCP: smoltcp's sockets between the host's programs and its stack.
//!
//! Purpose: smoltcp sees a link that carries IP packets; which interface they take is the stack's
//! business. Made with the first segment or socket, so that an idle host has none of it.
//!
//! Assumptions: segments and requests are handled at the next whole microsecond, smoltcp's clock.
//! That also keeps two hosts on a link without any delay from stopping time.
//!
//! smoltcp believes in a link that carries any packet; the stack fits the segments to their paths
//! (see `stack::segment`). Segments lost before the path's MTU was known wait for the
//! retransmission timer.
//!
//! Not modelled: selective acknowledgement towards the peer's sender, timestamps, ECN.
//!
//! Reference: RFC 9293, RFC 9438 (CUBIC), smoltcp.

use std::collections::VecDeque;
use std::fmt;
use std::net::IpAddr;

use smoltcp::iface::{Config, Interface, SocketHandle, SocketSet};
use smoltcp::phy::{Device, DeviceCapabilities, Medium, RxToken, TxToken};
use smoltcp::socket::tcp::{CongestionControl, Socket, SocketBuffer, State};
use smoltcp::time::{Duration, Instant};
use smoltcp::wire::{HardwareAddress, IpCidr, Ipv4Address, Ipv6Address};
use tapestry_core::SimTime;

use super::stack::packet::Packet;
use super::stack::{Io, Stack, clamp_segment_size, is_syn};

pub(crate) struct Tcp {
    interface: Interface,
    sockets: SocketSet<'static>,
    link: Link,
    due: Option<SimTime>,
    /// Sockets that close by themselves.
    released: Vec<SocketHandle>,
}

/// Packets to and from smoltcp, and buffers to write them to.
struct Link {
    received: VecDeque<Vec<u8>>,
    sent: VecDeque<Vec<u8>>,
    spare: Vec<Vec<u8>>,
}

/// Addresses that smoltcp has room for (feature `iface-max-addr-count-8`).
const ADDRESSES: usize = 8;
/// Packets that wait for the next microsecond; beyond it they are lost.
const RECEIVED: usize = 4_096;
/// Bytes of the longest IP packet that smoltcp may write.
const MTU: usize = 65_535;
const TICK: SimTime = SimTime::from_micros(1);

impl Tcp {
    pub(crate) fn new(stack: &Stack) -> Self {
        let mut link = Link { received: VecDeque::new(), sent: VecDeque::new(), spare: Vec::new() };
        let mut config = Config::new(HardwareAddress::Ip);
        config.random_seed = stack.draw("tcp");
        let mut interface = Interface::new(config, &mut link, Instant::ZERO);
        // All ways lead to our own stack. There is room for two routes.
        let _ = interface.routes_mut().add_default_ipv4_route(Ipv4Address::new(0, 0, 0, 1));
        let any = Ipv6Address::new(0xfe80, 0, 0, 0, 0, 0, 0, 1);
        let _ = interface.routes_mut().add_default_ipv6_route(any);
        Self {
            interface,
            sockets: SocketSet::new(Vec::new()),
            link,
            due: None,
            released: Vec::new(),
        }
    }

    /// A segment for the host; if it announces a maximum segment size, at most `clamp` bytes count.
    pub(crate) fn receive(&mut self, now: SimTime, packet: &Packet<'_>, clamp: Option<usize>) {
        if self.link.received.len() == RECEIVED || !self.add_address(packet.destination) {
            return;
        }
        let mut buffer = self.link.spare.pop().unwrap_or_default();
        buffer.clear();
        buffer.extend_from_slice(packet.bytes);
        if let Some(bytes) = clamp {
            clamp_segment_size(&mut buffer, bytes);
        }
        self.link.received.push_back(buffer);
        self.wake(now);
    }

    /// Tells smoltcp that an address is the host's; false for one that no host can have.
    fn add_address(&mut self, address: IpAddr) -> bool {
        let broadcast = matches!(address, IpAddr::V4(v4) if v4.is_broadcast());
        if address.is_multicast() || address.is_unspecified() || broadcast {
            return false;
        }
        if !self.interface.has_ip_addr(address) {
            self.interface.update_ip_addrs(|addresses| {
                if addresses.len() == ADDRESSES {
                    addresses.remove(0);
                }
                let length = if address.is_ipv4() { 32 } else { 128 };
                let _ = addresses.push(IpCidr::new(address.into(), length));
            });
        }
        true
    }

    /// A socket with these buffers, in bytes.
    pub(crate) fn socket(&mut self, receive: usize, send: usize) -> SocketHandle {
        let mut socket =
            Socket::new(SocketBuffer::new(vec![0; receive]), SocketBuffer::new(vec![0; send]));
        socket.set_congestion_control(CongestionControl::Cubic);
        socket.set_nagle_enabled(false);
        // Linux acknowledges quickly at the start of a connection and every second segment.
        socket.set_ack_delay(Some(Duration::from_millis(10)));
        self.sockets.add(socket)
    }

    /// A socket's state; call [`wake`](Self::wake) after changing anything.
    pub(crate) fn get(&mut self, handle: SocketHandle) -> &mut Socket<'static> {
        self.sockets.get_mut(handle)
    }

    /// Opens a connection; false if the addresses do not allow it.
    pub(crate) fn connect(
        &mut self,
        now: SimTime,
        handle: SocketHandle,
        from: (IpAddr, u16),
        to: (IpAddr, u16),
    ) -> bool {
        if !self.add_address(from.0) || to.0.is_unspecified() || to.1 == 0 {
            return false;
        }
        let context = self.interface.context();
        let connected = self.sockets.get_mut::<Socket<'_>>(handle).connect(context, to, from);
        self.wake(now);
        connected.is_ok()
    }

    pub(crate) fn remove(&mut self, handle: SocketHandle) {
        self.sockets.remove(handle);
    }

    /// Closes a connection that nobody looks after any more, and forgets it once it is closed.
    pub(crate) fn release(&mut self, now: SimTime, handle: SocketHandle) {
        self.get(handle).close();
        self.released.push(handle);
        self.wake(now);
    }

    /// Something is to be done at the next microsecond.
    pub(crate) fn wake(&mut self, now: SimTime) {
        let next = SimTime::from_micros(now.as_nanos() / 1_000) + TICK;
        self.due = Some(self.due.map_or(next, |due| due.min(next)));
    }

    pub(crate) fn poll_timeout(&self) -> Option<SimTime> {
        self.due
    }

    fn poll(&mut self, now: SimTime) {
        let instant = Instant::from_micros((now.as_nanos() / 1_000).cast_signed());
        self.interface.poll(instant, &mut self.link, &mut self.sockets);
        let sockets = &mut self.sockets;
        self.released.retain(|&handle| {
            let state = sockets.get_mut::<Socket<'_>>(handle).state();
            let closed = matches!(state, State::Closed | State::TimeWait);
            if closed {
                sockets.remove(handle);
            }
            !closed
        });
        self.due = self.interface.poll_at(instant, &self.sockets).map(|at| {
            let at = SimTime::from_micros(u64::try_from(at.total_micros()).unwrap_or(0));
            at.max(SimTime::from_micros(now.as_nanos() / 1_000) + TICK)
        });
    }
}

impl Stack {
    /// Runs TCP if it is due; whether it was.
    pub(crate) fn poll_tcp(&mut self, io: &mut Io<'_>) -> bool {
        let due = self.tcp.as_ref().is_some_and(|tcp| tcp.due.is_some_and(|due| due <= io.now));
        if due {
            self.flush_tcp(io);
        }
        due
    }

    /// Runs TCP now and sends what it has to send.
    pub(crate) fn flush_tcp(&mut self, io: &mut Io<'_>) {
        let Some(tcp) = &mut self.tcp else { return };
        tcp.poll(io.now);
        while let Some(mut packet) = self.tcp.as_mut().and_then(|tcp| tcp.link.sent.pop_front()) {
            let syn = Packet::parse(&packet).filter(is_syn);
            if let Some(destination) = syn.map(|syn| syn.destination) {
                clamp_segment_size(&mut packet, self.segment_bytes(io.now, destination));
            }
            // A segment that finds no way is lost; TCP repeats it.
            let _ = self.output(io, &packet);
            if let Some(tcp) = &mut self.tcp {
                tcp.link.spare.push(packet);
            }
        }
    }

    /// TCP, made if it is not there yet.
    pub(crate) fn tcp(&mut self) -> &mut Tcp {
        let tcp = self.tcp.take().unwrap_or_else(|| Box::new(Tcp::new(self)));
        self.tcp.insert(tcp)
    }
}

impl fmt::Debug for Tcp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tcp").field("due", &self.due).finish_non_exhaustive()
    }
}

impl Device for Link {
    type RxToken<'a> = Received<'a>;
    type TxToken<'a> = Sent<'a>;

    fn receive(&mut self, _: Instant) -> Option<(Self::RxToken<'_>, Self::TxToken<'_>)> {
        let packet = self.received.pop_front()?;
        // Both tokens may need a buffer; the received packet goes back when it has been read.
        let buffer = self.spare.pop().unwrap_or_default();
        let Self { sent, spare, .. } = self;
        Some((Received { packet, spare }, Sent { buffer, sent }))
    }

    fn transmit(&mut self, _: Instant) -> Option<Self::TxToken<'_>> {
        let buffer = self.spare.pop().unwrap_or_default();
        Some(Sent { buffer, sent: &mut self.sent })
    }

    fn capabilities(&self) -> DeviceCapabilities {
        let mut capabilities = DeviceCapabilities::default();
        capabilities.medium = Medium::Ip;
        capabilities.max_transmission_unit = MTU;
        capabilities
    }
}

struct Received<'a> {
    packet: Vec<u8>,
    spare: &'a mut Vec<Vec<u8>>,
}

impl RxToken for Received<'_> {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, f: F) -> R {
        let result = f(&self.packet);
        self.spare.push(self.packet);
        result
    }
}

struct Sent<'a> {
    buffer: Vec<u8>,
    sent: &'a mut VecDeque<Vec<u8>>,
}

impl TxToken for Sent<'_> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, len: usize, f: F) -> R {
        let mut buffer = self.buffer;
        buffer.clear();
        buffer.resize(len, 0);
        let result = f(&mut buffer);
        self.sent.push_back(buffer);
        result
    }
}
