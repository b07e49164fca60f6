//! ICMP: echo replies, and errors about packets that cannot be delivered.

use std::net::IpAddr;

use super::packet::{ICMP, ICMPV6, Packet, checksum, transport_checksum};
use super::{Io, Sending, Stack};

/// Why a packet does not reach its destination.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Unreachable {
    Network,
    Host,
    Protocol,
    Port,
    TimeExceeded,
    /// Longer than the MTU of the next link, in bytes, and not to be fragmented.
    TooBig(u32),
}

impl Unreachable {
    /// Type, code and the word behind the checksum (RFC 792 and 1191; RFC 4443).
    fn encode(self, v6: bool) -> (u8, u8, u32) {
        match (self, v6) {
            (Self::Network, false) | (Self::TimeExceeded, true) => (3, 0, 0),
            (Self::Host, false) => (3, 1, 0),
            (Self::Protocol, false) => (3, 2, 0),
            (Self::Port, false) => (3, 3, 0),
            (Self::TooBig(mtu), false) => (3, 4, mtu & 0xffff),
            (Self::TimeExceeded, false) => (11, 0, 0),
            (Self::Network, true) => (1, 0, 0),
            (Self::Host, true) => (1, 3, 0),
            (Self::Port, true) => (1, 4, 0),
            (Self::TooBig(mtu), true) => (2, 0, mtu),
            // Unrecognised next header, at offset 6.
            (Self::Protocol, true) => (4, 1, 6),
        }
    }
}

const ECHO_REPLY: u8 = 0;
const ECHO_REQUEST: u8 = 8;
const ECHO_REQUEST_V6: u8 = 128;
const ECHO_REPLY_V6: u8 = 129;
/// Bytes of the largest error: all routers pass them (RFC 1812, 4.3.2.3; RFC 4443, 2.4 c).
const LARGEST_ERROR: [usize; 2] = [576, 1_280];

impl Stack {
    /// Handles an ICMP message to the host; whether programs should see it, too.
    pub(super) fn handle_icmp(
        &mut self,
        io: &mut Io<'_>,
        number: usize,
        packet: &Packet<'_>,
    ) -> bool {
        let message = packet.payload();
        let v6 = packet.protocol == ICMPV6;
        let sum = if v6 {
            transport_checksum(packet.source, packet.destination, ICMPV6, &[message])
        } else {
            checksum(&[message])
        };
        if sum != 0 || v6 != packet.destination.is_ipv6() {
            return false;
        }
        if v6 && self.handle_ndp(io, number, packet) {
            return false;
        }
        match message {
            [ECHO_REQUEST, 0, ..] if !v6 => {
                // Requests to all are not answered, as on Linux.
                if self.is_local(packet.destination) {
                    self.send_echo_reply(io, packet);
                }
                false
            }
            [ECHO_REQUEST_V6, 0, ..] if v6 => {
                self.send_echo_reply(io, packet);
                false
            }
            [kind, code, ..] => {
                if [kind, code] == if v6 { [&2, &0] } else { [&3, &4] } {
                    self.learn_path_mtu(io.now, message);
                }
                true
            }
            _ => false,
        }
    }

    fn send_echo_reply(&mut self, io: &mut Io<'_>, request: &Packet<'_>) {
        let Some((head, rest)) = request.payload().split_first_chunk::<4>() else { return };
        let source = Some(request.destination).filter(|&address| self.is_local(address));
        // As Linux does, with the marks that the request got on its way.
        let traffic_class = request.traffic_class;
        let to = Sending::to(request.source, request.protocol);
        let sending = Sending { source, traffic_class, ..to };
        let kind = if request.protocol == ICMP { ECHO_REPLY } else { ECHO_REPLY_V6 };
        let _ = self.send_icmp(io, &sending, [kind, head[1]], &[rest]);
    }

    /// Sends an echo request: identifier, sequence number, data.
    pub(crate) fn send_echo_request(
        &mut self,
        io: &mut Io<'_>,
        sending: &Sending,
        id: u16,
        sequence: u16,
        data: &[u8],
    ) -> Result<(), super::SendError> {
        let kind = if sending.protocol == ICMP { ECHO_REQUEST } else { ECHO_REQUEST_V6 };
        let mut head = [0; 4];
        head[..2].copy_from_slice(&id.to_be_bytes());
        head[2..].copy_from_slice(&sequence.to_be_bytes());
        self.send_icmp(io, sending, [kind, 0], &[&head, data])
    }

    /// Sends a message of this type and code; `rest` is what follows the checksum, in at most two
    /// parts.
    fn send_icmp(
        &mut self,
        io: &mut Io<'_>,
        sending: &Sending,
        [kind, code]: [u8; 2],
        rest: &[&[u8]],
    ) -> Result<(), super::SendError> {
        let source = match sending.source {
            Some(source) => source,
            None => self.source_for(sending.destination).ok_or(super::SendError::Unreachable)?,
        };
        let sending = Sending { source: Some(source), ..*sending };
        let mut parts: [&[u8]; 3] = [&[kind, code, 0, 0], &[], &[]];
        for (part, rest) in parts[1..].iter_mut().zip(rest) {
            *part = rest;
        }
        let sum = if sending.protocol == ICMPV6 {
            transport_checksum(source, sending.destination, ICMPV6, &parts)
        } else {
            checksum(&parts)
        };
        let [high, low] = sum.to_be_bytes();
        let head = [kind, code, high, low];
        parts[0] = &head;
        self.send(io, &sending, &parts)
    }

    /// Tells the sender of `original` that it was not delivered, unless nobody should be told
    /// (RFC 1122, 3.2.2; RFC 4443, 2.4 e).
    pub(crate) fn send_error(&mut self, io: &mut Io<'_>, why: Unreachable, original: &[u8]) {
        let Some(packet) = Packet::parse(original) else { return };
        let about_error = match packet.protocol {
            ICMP => !matches!(packet.payload().first(), Some(&(ECHO_REPLY | ECHO_REQUEST))),
            ICMPV6 => packet.payload().first().is_none_or(|&kind| kind < 128),
            _ => false,
        };
        let late_fragment = packet.fragment.is_some_and(|fragment| fragment.offset > 0);
        let to_all = packet.destination.is_multicast()
            || matches!(packet.destination, IpAddr::V4(v4) if v4.is_broadcast());
        if about_error || late_fragment || to_all || packet.source.is_unspecified() {
            return;
        }
        let v6 = packet.source.is_ipv6();
        let (kind, code, word) = why.encode(v6);
        let header = if v6 { 48 } else { 28 };
        let length =
            original.len().min(packet.bytes.len()).min(LARGEST_ERROR[usize::from(v6)] - header);
        let sending = Sending::to(packet.source, if v6 { ICMPV6 } else { ICMP });
        // The original may lie in the buffer that the error is about to be written to.
        let copy = original[..length].to_vec();
        let _ = self.send_icmp(io, &sending, [kind, code], &[&word.to_be_bytes(), &copy]);
    }
}

/// What an ICMP error says, as `ping` words it; `None` if the message is no error.
pub(crate) fn error_text(v6: bool, kind: u8, code: u8) -> Option<&'static str> {
    Some(match (v6, kind, code) {
        (false, 3, 0) => "Destination Net Unreachable",
        (false, 3, 1) => "Destination Host Unreachable",
        (false, 3, 2) => "Destination Protocol Unreachable",
        (false, 3, 3) => "Destination Port Unreachable",
        (false, 3, 4) => "Frag needed and DF set",
        (false, 3, _) => "Dest Unreachable",
        (false, 11, 0) => "Time to live exceeded",
        (false, 11, _) => "Frag reassembly time exceeded",
        (true, 1, 0) => "Destination unreachable: No route",
        (true, 1, 3) => "Destination unreachable: Address unreachable",
        (true, 1, 4) => "Destination unreachable: Port unreachable",
        (true, 1, _) => "Destination unreachable",
        (true, 2, _) => "Packet too big",
        (true, 3, 0) => "Time exceeded: Hop limit",
        (true, 3, _) => "Time exceeded: Defragmentation failure",
        (true, 4, _) => "Parameter problem",
        _ => return None,
    })
}

/// The identifier and sequence number of an echo reply.
pub(crate) fn echo_reply(packet: &Packet<'_>) -> Option<(u16, u16)> {
    let message = packet.payload();
    let expected = if packet.protocol == ICMP { ECHO_REPLY } else { ECHO_REPLY_V6 };
    match message {
        [kind, 0, _, _, a, b, c, d, ..] if *kind == expected => {
            Some((u16::from_be_bytes([*a, *b]), u16::from_be_bytes([*c, *d])))
        }
        _ => None,
    }
}

/// The start of the packet that an ICMP error is about: protocol, destination, payload.
pub(crate) fn original(message: &[u8]) -> Option<(u8, IpAddr, &[u8])> {
    use super::packet::{IPV6_HEADER, v4_at, v6_at};
    let inner = message.get(8..)?;
    match inner.first()? >> 4 {
        4 => {
            let header = usize::from(inner[0] & 15) * 4;
            Some((*inner.get(9)?, v4_at(inner, 16)?.into(), inner.get(header..)?))
        }
        6 => Some((*inner.get(6)?, v6_at(inner, 24)?.into(), inner.get(IPV6_HEADER..)?)),
        _ => None,
    }
}
