//! IP: delivery to the host, forwarding, and sending with fragmentation.

use std::borrow::Cow;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use thiserror::Error;

use super::icmp::Unreachable;
use super::link::{BROADCAST, TYPE_IPV4, TYPE_IPV6};
use super::packet::{
    Header, ICMP, ICMPV6, Packet, TCP, UDP, checksum, decrement_hop_limit, transport_checksum,
    write_packet,
};
use super::{HOP_LIMIT, Hop, Io, LOOPBACK_DELAY, LOOPBACK_PACKETS, Stack, is_syn};
use crate::host::tcp::Tcp;

/// Why a packet was not sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub(crate) enum SendError {
    /// No route leads there, or no address of the family is there to send from.
    #[error("Network is unreachable")]
    Unreachable,
    /// Longer than the path allows, or than a packet can be.
    #[error("Message too long")]
    TooLong,
}

/// What the header of a packet says, but for what follows from its payload.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Sending {
    /// `None`: the host chooses.
    pub(crate) source: Option<IpAddr>,
    pub(crate) destination: IpAddr,
    pub(crate) protocol: u8,
    pub(crate) hop_limit: u8,
    /// DSCP and ECN.
    pub(crate) traffic_class: u8,
}

impl Sending {
    pub(crate) fn to(destination: IpAddr, protocol: u8) -> Self {
        let hop_limit = HOP_LIMIT;
        Self { source: None, destination, protocol, hop_limit, traffic_class: 0 }
    }
}

impl Stack {
    /// A packet from a link: handles it, forwards it, or returns it for the programs.
    pub(super) fn handle_packet<'f>(
        &mut self,
        io: &mut Io<'_>,
        number: usize,
        bytes: &'f [u8],
        group: bool,
    ) -> Option<Cow<'f, [u8]>> {
        let packet = Packet::parse(bytes)?;
        if packet.source.is_multicast() || packet.destination.is_loopback() {
            return None;
        }
        if self.is_local(packet.destination) || self.is_group(number, packet.destination) {
            return self.deliver(io, number, packet);
        }
        if self.forwarding && !group && !packet.destination.is_multicast() {
            self.forward(io, number, &packet);
        }
        None
    }

    /// A packet that reached the host itself.
    pub(crate) fn deliver<'f>(
        &mut self,
        io: &mut Io<'_>,
        number: usize,
        packet: Packet<'f>,
    ) -> Option<Cow<'f, [u8]>> {
        let bytes = match packet.fragment {
            None => Cow::Borrowed(packet.bytes),
            Some(fragment) => Cow::Owned(self.reassembly.add(io.now, &packet, fragment)?),
        };
        let packet = Packet::parse(&bytes)?;
        match packet.protocol {
            TCP => {
                // What the peer announces, but no more than reaches it.
                let clamp = is_syn(&packet).then(|| self.segment_bytes(io.now, packet.source));
                let tcp = self.tcp.take().unwrap_or_else(|| Box::new(Tcp::new(self)));
                self.tcp.insert(tcp).receive(io.now, &packet, clamp);
                None
            }
            ICMP | ICMPV6 if !self.handle_icmp(io, number, &packet) => None,
            ICMP | ICMPV6 | UDP => Some(bytes),
            _ => {
                self.send_error(io, Unreachable::Protocol, packet.bytes);
                None
            }
        }
    }

    /// Whether an address is a broadcast or multicast that the host listens to.
    fn is_group(&self, number: usize, address: IpAddr) -> bool {
        let interface = &self.interfaces[number];
        match address {
            IpAddr::V4(v4) => v4.is_broadcast() || v4 == ALL_HOSTS || self.is_broadcast(number, v4),
            IpAddr::V6(v6) => {
                let octets = v6.octets();
                let solicited = |own: IpAddr| matches!(own, IpAddr::V6(own) if own.octets()[13..] == octets[13..]);
                match octets {
                    [0xff, 1 | 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1] => true,
                    [0xff, 1 | 2 | 5, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2] => self.forwarding,
                    [0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0xff, ..] => {
                        interface.addresses.iter().any(|own| solicited(own.address()))
                    }
                    _ => false,
                }
            }
        }
    }

    fn is_broadcast(&self, number: usize, address: Ipv4Addr) -> bool {
        let networks = &self.interfaces[number].addresses;
        networks.iter().any(|network| network.broadcast() == Some(address))
    }

    /// Forwards a packet that is for another host.
    fn forward(&mut self, io: &mut Io<'_>, number: usize, packet: &Packet<'_>) {
        if super::is_link_local(packet.destination) || super::is_link_local(packet.source) {
            return;
        }
        if packet.hop_limit <= 1 {
            self.send_error(io, Unreachable::TimeExceeded, packet.bytes);
            return;
        }
        let Some(hop) = self.route(packet.destination) else {
            self.send_error(io, Unreachable::Network, packet.bytes);
            return;
        };
        if matches!(packet.destination, IpAddr::V4(v4) if self.is_broadcast(hop.interface, v4)) {
            return;
        }
        if hop.interface == number && hop.interface == 0 {
            return;
        }
        let mtu = self.interfaces[hop.interface].mtu as usize;
        if packet.bytes.len() > mtu && packet.dont_fragment {
            self.send_error(io, Unreachable::TooBig(mtu as u32), packet.bytes);
            return;
        }
        let mut bytes = std::mem::take(&mut self.scratch);
        bytes.clear();
        bytes.extend_from_slice(packet.bytes);
        decrement_hop_limit(&mut bytes);
        self.transmit_packet(io, hop, &bytes, mtu);
        self.scratch = bytes;
    }

    /// Sends a payload that is written in parts.
    pub(crate) fn send(
        &mut self,
        io: &mut Io<'_>,
        sending: &Sending,
        payload: &[&[u8]],
    ) -> Result<(), SendError> {
        let Sending { destination, protocol, hop_limit, traffic_class, .. } = *sending;
        let source = match sending.source {
            Some(source) => source,
            None => self.source_for(destination).ok_or(SendError::Unreachable)?,
        };
        self.id = self.id.wrapping_add(1);
        let header = Header {
            source,
            destination,
            protocol,
            hop_limit,
            id: self.id,
            dont_fragment: false,
            traffic_class,
        };
        let mut packet = std::mem::take(&mut self.scratch);
        write_packet(&mut packet, &header, payload);
        let sent = self.output(io, &packet);
        self.scratch = packet;
        sent
    }

    /// Sends a UDP datagram.
    pub(crate) fn send_udp(
        &mut self,
        io: &mut Io<'_>,
        from: SocketAddr,
        to: SocketAddr,
        traffic_class: u8,
        payload: &[&[u8]],
    ) -> Result<(), SendError> {
        const HEADER: usize = 8;
        let length = HEADER + payload.iter().map(|part| part.len()).sum::<usize>();
        let Ok(length) = u16::try_from(length) else { return Err(SendError::TooLong) };
        let mut head = [0; HEADER];
        head[..2].copy_from_slice(&from.port().to_be_bytes());
        head[2..4].copy_from_slice(&to.port().to_be_bytes());
        head[4..6].copy_from_slice(&length.to_be_bytes());
        let mut parts: [&[u8]; 4] = [&[]; 4];
        let used = payload.len() + 1;
        let Some(rest) = parts.get_mut(1..used) else { return Err(SendError::TooLong) };
        rest.copy_from_slice(payload);
        parts[0] = &head;
        let sum = match transport_checksum(from.ip(), to.ip(), UDP, &parts[..used]) {
            0 => 0xffff,
            sum => sum,
        };
        let mut summed = head;
        summed[6..].copy_from_slice(&sum.to_be_bytes());
        parts[0] = &summed;
        let sending =
            Sending { source: Some(from.ip()), traffic_class, ..Sending::to(to.ip(), UDP) };
        self.send(io, &sending, &parts[..used])
    }

    /// Sends a whole packet of the host's own.
    pub(crate) fn output(&mut self, io: &mut Io<'_>, packet: &[u8]) -> Result<(), SendError> {
        let Some(parsed) = Packet::parse(packet) else { return Err(SendError::TooLong) };
        let destination = parsed.destination;
        if self.is_local(destination) {
            if self.loopback.len() < LOOPBACK_PACKETS {
                self.loopback.push_back((io.now + LOOPBACK_DELAY, packet.to_vec()));
            }
            return Ok(());
        }
        let hop = self.route(destination).ok_or(SendError::Unreachable)?;
        let mtu = self.interfaces[hop.interface].mtu as usize;
        let mtu = self.paths.mtu(io.now, destination, mtu);
        if packet.len() > mtu && parsed.protocol == TCP && self.send_divided(io, hop, &parsed, mtu)
        {
            return Ok(());
        }
        if packet.len() > mtu && destination.is_ipv6() {
            self.fragment_v6(io, hop, packet, mtu);
            return Ok(());
        }
        if packet.len() > mtu && parsed.dont_fragment {
            return Err(SendError::TooLong);
        }
        self.transmit_packet(io, hop, packet, mtu);
        Ok(())
    }

    /// Puts a packet on the link, in fragments of at most `mtu` bytes if IPv4 needs and allows it.
    fn transmit_packet(&mut self, io: &mut Io<'_>, hop: Hop, packet: &[u8], mtu: usize) {
        if packet.len() <= mtu {
            self.send_to_link(io, hop, &[packet]);
            return;
        }
        let header = usize::from(packet[0] & 15) * 4;
        let step = mtu.saturating_sub(header) & !7;
        if packet[0] >> 4 != 4 || step == 0 || header > packet.len() {
            return;
        }
        let field = u16::from_be_bytes([packet[6], packet[7]]);
        let (first, follows) = (usize::from(field & 0x1fff), field & 0x2000);
        let (head, payload) = packet.split_at(header);
        let count = payload.len().div_ceil(step);
        for (index, part) in payload.chunks(step).enumerate() {
            let mut own = [0; 60];
            let own = &mut own[..header];
            own.copy_from_slice(head);
            let more = if index + 1 < count { 0x2000 } else { follows };
            let field = (first + index * step / 8) as u16 & 0x1fff | more;
            own[2..4].copy_from_slice(&((header + part.len()) as u16).to_be_bytes());
            own[6..8].copy_from_slice(&field.to_be_bytes());
            own[10..12].fill(0);
            let sum = checksum(&[own]);
            own[10..12].copy_from_slice(&sum.to_be_bytes());
            self.send_to_link(io, hop, &[own, part]);
        }
    }

    /// Fragments a packet of the host's own (RFC 8200, section 4.5).
    fn fragment_v6(&mut self, io: &mut Io<'_>, hop: Hop, packet: &[u8], mtu: usize) {
        const HEADER: usize = super::packet::IPV6_HEADER;
        const FRAGMENT: usize = 8;
        let step = mtu.saturating_sub(HEADER + FRAGMENT) & !7;
        if packet.len() <= HEADER || step == 0 {
            return;
        }
        let (head, payload) = packet.split_at(HEADER);
        let count = payload.len().div_ceil(step);
        let id = u32::from(self.id).to_be_bytes();
        for (index, part) in payload.chunks(step).enumerate() {
            let mut own = [0; HEADER + FRAGMENT];
            own[..HEADER].copy_from_slice(head);
            own[4..6].copy_from_slice(&((FRAGMENT + part.len()) as u16).to_be_bytes());
            own[6] = 44;
            own[HEADER] = head[6];
            let field = (index * step) as u16 | u16::from(index + 1 < count);
            own[HEADER + 2..HEADER + 4].copy_from_slice(&field.to_be_bytes());
            own[HEADER + 4..].copy_from_slice(&id);
            self.send_to_link(io, hop, &[&own, part]);
        }
    }

    pub(super) fn send_to_link(&mut self, io: &mut Io<'_>, hop: Hop, packet: &[&[u8]]) {
        match hop.next {
            IpAddr::V4(v4) => {
                let group = if v4.is_broadcast() || self.is_broadcast(hop.interface, v4) {
                    Some(BROADCAST)
                } else if v4.is_multicast() {
                    let [_, b, c, d] = v4.octets();
                    Some([1, 0, 0x5e, b & 0x7f, c, d])
                } else {
                    None
                };
                self.send_to_station(io, hop, group, TYPE_IPV4, packet);
            }
            IpAddr::V6(v6) => {
                let [.., a, b, c, d] = v6.octets();
                let group = v6.is_multicast().then_some([0x33, 0x33, a, b, c, d]);
                self.send_to_station(io, hop, group, TYPE_IPV6, packet);
            }
        }
    }

    fn send_to_station(
        &mut self,
        io: &mut Io<'_>,
        hop: Hop,
        group: Option<[u8; 6]>,
        ethertype: u16,
        packet: &[&[u8]],
    ) {
        match group {
            None => self.send_to_neighbour(io, hop.interface, hop.next, ethertype, packet),
            Some(mac) => {
                if let Some(frame) = self.frame(io, hop.interface, mac, ethertype, packet) {
                    self.transmit(io, hop.interface, frame);
                }
            }
        }
    }
}

/// 224.0.0.1.
const ALL_HOSTS: Ipv4Addr = Ipv4Addr::new(224, 0, 0, 1);
