//! Headers of IP, ICMP and UDP: reading them, and writing them into a buffer.
//!
//! Purpose: one view of IPv4 and IPv6 packets for delivery, forwarding and errors, so that the rest
//! of the stack does not tell the families apart more than it must. Packets are written into one
//! buffer that is used again, so none costs an allocation.
//!
//! Not modelled: IPv4 options, and IPv6 extension headers beyond skipping them.
//!
//! Reference: RFC 791, 792, 768, 8200, 4443, 1071 (checksum), 1624 (incremental update).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

pub(crate) const ICMP: u8 = 1;
pub(crate) const TCP: u8 = 6;
pub(crate) const UDP: u8 = 17;
pub(crate) const ICMPV6: u8 = 58;
const IPV6_FRAGMENT: u8 = 44;

/// Bytes of an IPv4 header without options.
pub(crate) const IPV4_HEADER: usize = 20;
/// Bytes of an IPv6 header.
pub(crate) const IPV6_HEADER: usize = 40;

/// A packet whose header is consistent.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Packet<'a> {
    /// The packet without what the link added behind it.
    pub(crate) bytes: &'a [u8],
    pub(crate) source: IpAddr,
    pub(crate) destination: IpAddr,
    pub(crate) protocol: u8,
    pub(crate) hop_limit: u8,
    /// DSCP and ECN.
    pub(crate) traffic_class: u8,
    pub(crate) dont_fragment: bool,
    pub(crate) fragment: Option<Fragment>,
    payload: usize,
}

/// The place of a fragment in its packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Fragment {
    pub(crate) id: u32,
    /// Offset of the payload, in bytes.
    pub(crate) offset: usize,
    pub(crate) more: bool,
}

impl<'a> Packet<'a> {
    /// `None` if the header is damaged or the packet incomplete.
    pub(crate) fn parse(bytes: &'a [u8]) -> Option<Self> {
        match bytes.first()? >> 4 {
            4 => Self::parse_v4(bytes),
            6 => Self::parse_v6(bytes),
            _ => None,
        }
    }

    fn parse_v4(bytes: &'a [u8]) -> Option<Self> {
        let header = usize::from(bytes[0] & 15) * 4;
        let total = usize::from(u16_at(bytes, 2)?);
        if header < IPV4_HEADER || total < header || bytes.len() < total {
            return None;
        }
        let bytes = &bytes[..total];
        if checksum(&[&bytes[..header]]) != 0 {
            return None;
        }
        let flags = u16_at(bytes, 6)?;
        let (more, offset) = (flags & 0x2000 != 0, usize::from(flags & 0x1fff) * 8);
        let id = u32::from(u16_at(bytes, 4)?);
        Some(Self {
            bytes,
            source: v4_at(bytes, 12)?.into(),
            destination: v4_at(bytes, 16)?.into(),
            protocol: bytes[9],
            hop_limit: bytes[8],
            traffic_class: bytes[1],
            dont_fragment: flags & 0x4000 != 0,
            fragment: (more || offset > 0).then_some(Fragment { id, offset, more }),
            payload: header,
        })
    }

    fn parse_v6(bytes: &'a [u8]) -> Option<Self> {
        let total = IPV6_HEADER + usize::from(u16_at(bytes, 4)?);
        let bytes = bytes.get(..total)?;
        let mut protocol = bytes[6];
        let mut payload = IPV6_HEADER;
        let mut fragment = None;
        // Hop-by-hop options, routing, destination options; a fragment's header comes last.
        while matches!(protocol, 0 | 43 | 60) {
            let header = bytes.get(payload..payload + 8)?;
            protocol = header[0];
            payload += 8 + usize::from(header[1]) * 8;
        }
        if protocol == IPV6_FRAGMENT {
            let header = bytes.get(payload..payload + 8)?;
            let field = u16_at(header, 2)?;
            let (offset, more) = (usize::from(field & !7), field & 1 != 0);
            fragment = Some(Fragment { id: u32_at(header, 4)?, offset, more });
            protocol = header[0];
            payload += 8;
        }
        if payload > total {
            return None;
        }
        Some(Self {
            bytes,
            source: v6_at(bytes, 8)?.into(),
            destination: v6_at(bytes, 24)?.into(),
            protocol,
            hop_limit: bytes[7],
            traffic_class: bytes[0] << 4 | bytes[1] >> 4,
            dont_fragment: true,
            fragment,
            payload,
        })
    }

    pub(crate) fn payload(&self) -> &'a [u8] {
        &self.bytes[self.payload..]
    }
}

/// What a packet is written from.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Header {
    pub(crate) source: IpAddr,
    pub(crate) destination: IpAddr,
    pub(crate) protocol: u8,
    pub(crate) hop_limit: u8,
    /// IPv4: identification of the packet.
    pub(crate) id: u16,
    pub(crate) dont_fragment: bool,
    /// DSCP and ECN.
    pub(crate) traffic_class: u8,
}

/// Writes header and payload, whose parts are written one behind the other, to `out`.
/// Nothing is written if the families differ or the packet would be too long for its header.
pub(crate) fn write_packet(out: &mut Vec<u8>, header: &Header, payload: &[&[u8]]) {
    out.clear();
    let length: usize = payload.iter().map(|part| part.len()).sum();
    match (header.source, header.destination) {
        (IpAddr::V4(source), IpAddr::V4(destination)) if length + IPV4_HEADER <= 0xffff => {
            let flags: u16 = if header.dont_fragment { 0x4000 } else { 0 };
            out.extend_from_slice(&[0x45, header.traffic_class]);
            out.extend_from_slice(&((length + IPV4_HEADER) as u16).to_be_bytes());
            out.extend_from_slice(&header.id.to_be_bytes());
            out.extend_from_slice(&flags.to_be_bytes());
            out.extend_from_slice(&[header.hop_limit, header.protocol, 0, 0]);
            out.extend_from_slice(&source.octets());
            out.extend_from_slice(&destination.octets());
            let sum = checksum(&[out]);
            out[10..12].copy_from_slice(&sum.to_be_bytes());
        }
        (IpAddr::V6(source), IpAddr::V6(destination)) if length <= 0xffff => {
            let class = header.traffic_class;
            out.extend_from_slice(&[0x60 | class >> 4, class << 4, 0, 0]);
            out.extend_from_slice(&(length as u16).to_be_bytes());
            out.extend_from_slice(&[header.protocol, header.hop_limit]);
            out.extend_from_slice(&source.octets());
            out.extend_from_slice(&destination.octets());
        }
        _ => return,
    }
    for part in payload {
        out.extend_from_slice(part);
    }
}

/// Takes one hop off an IPv4 or IPv6 packet, updating IPv4's checksum (RFC 1624, eqn. 3).
pub(crate) fn decrement_hop_limit(packet: &mut [u8]) {
    if packet[0] >> 4 == 6 {
        packet[7] = packet[7].saturating_sub(1);
        return;
    }
    let old = u16::from_be_bytes([packet[8], packet[9]]);
    packet[8] = packet[8].saturating_sub(1);
    let new = u16::from_be_bytes([packet[8], packet[9]]);
    let sum = u16::from_be_bytes([packet[10], packet[11]]);
    let sum = fold(u64::from(!sum) + u64::from(!old) + u64::from(new));
    packet[10..12].copy_from_slice(&(!sum).to_be_bytes());
}

/// The checksum of a UDP, TCP or `ICMPv6` payload between these addresses.
pub(crate) fn transport_checksum(
    source: IpAddr,
    destination: IpAddr,
    protocol: u8,
    parts: &[&[u8]],
) -> u16 {
    let length: usize = parts.iter().map(|part| part.len()).sum();
    let mut total = sum(parts) + u64::from(protocol) + (length as u64);
    for address in [source, destination] {
        total += match address {
            IpAddr::V4(address) => sum(&[&address.octets()]),
            IpAddr::V6(address) => sum(&[&address.octets()]),
        };
    }
    !fold(total)
}

/// The Internet checksum; all parts but the last have an even length.
pub(crate) fn checksum(parts: &[&[u8]]) -> u16 {
    !fold(sum(parts))
}

fn sum(parts: &[&[u8]]) -> u64 {
    let mut total = 0_u64;
    for part in parts {
        let (words, rest) = part.as_chunks::<4>();
        total += words.iter().map(|word| u64::from(u32::from_be_bytes(*word))).sum::<u64>();
        let (halves, rest) = rest.as_chunks::<2>();
        total += halves.iter().map(|half| u64::from(u16::from_be_bytes(*half))).sum::<u64>();
        total += rest.iter().map(|&byte| u64::from(byte) << 8).sum::<u64>();
    }
    total
}

fn fold(mut total: u64) -> u16 {
    while total > 0xffff {
        total = (total & 0xffff) + (total >> 16);
    }
    total as u16
}

pub(crate) fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    bytes.get(at..)?.first_chunk().map(|chunk| u16::from_be_bytes(*chunk))
}

pub(crate) fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..)?.first_chunk().map(|chunk| u32::from_be_bytes(*chunk))
}

pub(crate) fn v4_at(bytes: &[u8], at: usize) -> Option<Ipv4Addr> {
    bytes.get(at..)?.first_chunk::<4>().map(|octets| Ipv4Addr::from(*octets))
}

pub(crate) fn v6_at(bytes: &[u8], at: usize) -> Option<Ipv6Addr> {
    bytes.get(at..)?.first_chunk::<16>().map(|octets| Ipv6Addr::from(*octets))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The example of RFC 1071, section 3.
    #[test]
    fn checksum_of_the_rfc() {
        let data = [0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7];
        assert_eq!(!checksum(&[&data]), 0xddf2);
        assert_eq!(!checksum(&[&data[..2], &data[2..7]]), 0xdcfb);
    }

    #[test]
    fn what_is_written_is_read_and_a_hop_keeps_the_checksum_right() {
        for (source, destination) in [("10.0.0.1", "10.0.0.2"), ("fd00::1", "fd00::2")] {
            let header = Header {
                source: source.parse().unwrap(),
                destination: destination.parse().unwrap(),
                protocol: UDP,
                hop_limit: 64,
                id: 7,
                dont_fragment: false,
                traffic_class: 0,
            };
            let mut bytes = Vec::new();
            write_packet(&mut bytes, &header, &[b"head", b"payload"]);
            for hops in (0..=64).rev() {
                let mut padded = bytes.clone();
                padded.extend_from_slice(&[0xaa; 9]);
                let packet = Packet::parse(&padded).unwrap();
                assert_eq!(
                    (packet.source, packet.destination),
                    (header.source, header.destination)
                );
                assert_eq!((packet.hop_limit, packet.payload()), (hops, &b"headpayload"[..]));
                decrement_hop_limit(&mut bytes);
            }
            for cut in 0..bytes.len() {
                assert!(Packet::parse(&bytes[..cut]).is_none());
            }
        }
    }
}
