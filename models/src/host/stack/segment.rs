//! TCP segments on their way between smoltcp and the links.
//!
//! Purpose: smoltcp knows one MTU for all destinations, so the stack fits its segments to their
//! paths. The maximum segment size that SYNs announce, own and received ones, is lowered to what
//! the path carries; a segment longer than a path MTU learnt later leaves in parts, as a network
//! card with segmentation offload sends it. The parts are segments in their own right: what the
//! peer receives is the same stream of bytes.
//!
//! Reference: RFC 9293, section 3.7.1 (maximum segment size).

use super::packet::{Packet, TCP, checksum, transport_checksum, u16_at, u32_at};
use super::{Hop, Io, Stack};

const SYN: u8 = 0x02;
/// FIN and PSH, which belong to the last part only.
const LAST: u8 = 0x09;
/// Bytes of the longest headers of IPv4 or IPv6 and TCP.
const HEADERS: usize = 60 + 60;

/// Whether a packet is a TCP SYN.
pub(crate) fn is_syn(packet: &Packet<'_>) -> bool {
    packet.protocol == TCP && packet.payload().get(13).is_some_and(|flags| flags & SYN != 0)
}

/// Lowers the maximum segment size that a SYN announces to `bytes`. A damaged one stays damaged.
pub(crate) fn clamp_segment_size(packet: &mut [u8], bytes: usize) {
    let Some(parsed) = Packet::parse(packet) else { return };
    let (source, destination, tcp) = (parsed.source, parsed.destination, parsed.payload());
    let at = packet.len() - tcp.len();
    let Some(option) = segment_size_option(tcp) else { return };
    let announced = u16_at(tcp, option).map_or(0, usize::from);
    if announced <= bytes || transport_checksum(source, destination, TCP, &[tcp]) != 0 {
        return;
    }
    let tcp = &mut packet[at..];
    // Less than what was announced, so it fits.
    tcp[option..option + 2].copy_from_slice(&(bytes as u16).to_be_bytes());
    tcp[16..18].fill(0);
    let sum = transport_checksum(source, destination, TCP, &[tcp]);
    tcp[16..18].copy_from_slice(&sum.to_be_bytes());
}

/// Where the value of the option is in a segment.
fn segment_size_option(tcp: &[u8]) -> Option<usize> {
    let end = usize::from(*tcp.get(12)? >> 4) * 4;
    let mut at = 20;
    while at < end {
        match (*tcp.get(at)?, tcp.get(at + 1)) {
            (0, _) => return None,
            (1, _) => at += 1,
            (2, Some(4)) => return (at + 4 <= end.min(tcp.len())).then_some(at + 2),
            (_, Some(&length)) if length >= 2 => at += usize::from(length),
            _ => return None,
        }
    }
    None
}

impl Stack {
    /// Sends a segment in parts of at most `mtu` bytes; whether it could be divided.
    pub(super) fn send_divided(
        &mut self,
        io: &mut Io<'_>,
        hop: Hop,
        packet: &Packet<'_>,
        mtu: usize,
    ) -> bool {
        let tcp = packet.payload();
        let ip = packet.bytes.len() - tcp.len();
        let header = ip + tcp.get(12).map_or(0, |offset| usize::from(offset >> 4) * 4);
        let (Some(sequence), Some(flags), Some(id)) =
            (u32_at(tcp, 4), tcp.get(13), u16_at(packet.bytes, 4))
        else {
            return false;
        };
        let Some((head, data)) = packet.bytes.split_at_checked(header) else { return false };
        let step = mtu.saturating_sub(header);
        if step == 0 || header > HEADERS || header < ip + 20 || data.is_empty() {
            return false;
        }
        let count = data.len().div_ceil(step);
        for (index, part) in data.chunks(step).enumerate() {
            let mut own = [0; HEADERS];
            let own = &mut own[..header];
            own.copy_from_slice(head);
            let sequence = sequence.wrapping_add((index * step) as u32);
            own[ip + 4..ip + 8].copy_from_slice(&sequence.to_be_bytes());
            own[ip + 13] = if index + 1 < count { flags & !LAST } else { *flags };
            own[ip + 16..ip + 18].fill(0);
            let parts = [&own[ip..], part];
            let sum = transport_checksum(packet.source, packet.destination, TCP, &parts);
            own[ip + 16..ip + 18].copy_from_slice(&sum.to_be_bytes());
            if packet.source.is_ipv4() {
                own[2..4].copy_from_slice(&((header + part.len()) as u16).to_be_bytes());
                own[4..6].copy_from_slice(&id.wrapping_add(index as u16).to_be_bytes());
                own[10..12].fill(0);
                let sum = checksum(&[&own[..ip]]);
                own[10..12].copy_from_slice(&sum.to_be_bytes());
            } else {
                // An IPv6 packet's length does not count its first 40 bytes.
                let length = header + part.len() - super::packet::IPV6_HEADER;
                own[4..6].copy_from_slice(&(length as u16).to_be_bytes());
            }
            self.send_to_link(io, hop, &[own, part]);
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::super::packet::{Header, write_packet};
    use super::*;

    /// A SYN with an option before the maximum segment size.
    fn syn(source: &str, destination: &str, size: u16) -> Vec<u8> {
        let (source, destination) = (source.parse().unwrap(), destination.parse().unwrap());
        let mut tcp = [0; 28];
        tcp[12..14].copy_from_slice(&[7 << 4, SYN]);
        tcp[20..24].copy_from_slice(&[1, 3, 3, 7]);
        tcp[24..28].copy_from_slice(&[2, 4, (size >> 8) as u8, size as u8]);
        let sum = transport_checksum(source, destination, TCP, &[&tcp]);
        tcp[16..18].copy_from_slice(&sum.to_be_bytes());
        let header = Header {
            source,
            destination,
            protocol: TCP,
            hop_limit: 64,
            id: 1,
            dont_fragment: true,
            traffic_class: 0,
        };
        let mut bytes = Vec::new();
        write_packet(&mut bytes, &header, &[&tcp]);
        bytes
    }

    #[test]
    fn announced_sizes_are_lowered_never_raised() {
        for (from, to) in [("10.0.0.1", "10.0.0.2"), ("fd00::1", "fd00::2")] {
            let mut packet = syn(from, to, 1_460);
            clamp_segment_size(&mut packet, 2_000);
            assert_eq!(packet, syn(from, to, 1_460));
            clamp_segment_size(&mut packet, 1_360);
            assert_eq!(packet, syn(from, to, 1_360));
            assert!(is_syn(&Packet::parse(&packet).unwrap()));
            // One that was damaged on its way does not become right.
            let last = packet.len() - 1;
            packet[last] ^= 1;
            let damaged = packet.clone();
            clamp_segment_size(&mut packet, 100);
            assert_eq!(packet, damaged);
            for cut in 0..packet.len() {
                clamp_segment_size(&mut packet[..cut], 100);
            }
        }
    }
}
