//! Fragments of packets, until they are whole.
//!
//! Reference: RFC 791, RFC 8200 section 4.5, RFC 5722 (overlapping fragments void the packet).

use std::net::IpAddr;

use tapestry_core::SimTime;

use super::packet::{Fragment, Header, Packet, write_packet};

#[derive(Debug, Default)]
pub(super) struct Reassembly {
    packets: Vec<Incomplete>,
}

#[derive(Debug)]
struct Incomplete {
    key: (IpAddr, IpAddr, u8, u32),
    expires: SimTime,
    hop_limit: u8,
    /// Offset and payload, in the order of offset.
    parts: Vec<(usize, Vec<u8>)>,
    length: Option<usize>,
}

/// Packets in the making; the oldest gives way.
const PACKETS: usize = 16;
/// As on Linux (`ipfrag_time`).
const EXPIRY: SimTime = SimTime::from_secs(30);
/// Payload of the largest packet.
const LARGEST: usize = 65_515;

impl Reassembly {
    pub(super) fn poll_timeout(&self) -> Option<SimTime> {
        self.packets.first().map(|packet| packet.expires)
    }

    pub(super) fn handle_timeout(&mut self, now: SimTime) {
        self.packets.retain(|packet| packet.expires > now);
    }

    /// The whole packet, if this was the last fragment that it lacked.
    pub(super) fn add(
        &mut self,
        now: SimTime,
        packet: &Packet<'_>,
        fragment: Fragment,
    ) -> Option<Vec<u8>> {
        let Fragment { id, offset, more } = fragment;
        let key = (packet.source, packet.destination, packet.protocol, id);
        let payload = packet.payload();
        let end = offset + payload.len();
        if end > LARGEST || payload.is_empty() || more && !payload.len().is_multiple_of(8) {
            return None;
        }
        let index = self.packets.iter().position(|packet| packet.key == key).unwrap_or_else(|| {
            if self.packets.len() == PACKETS {
                self.packets.remove(0);
            }
            let (expires, hop_limit) = (now + EXPIRY, packet.hop_limit);
            self.packets.push(Incomplete {
                key,
                expires,
                hop_limit,
                parts: Vec::new(),
                length: None,
            });
            self.packets.len() - 1
        });
        let whole = &mut self.packets[index];
        let at = whole.parts.partition_point(|&(start, _)| start < offset);
        let overlaps = whole.parts.get(at).is_some_and(|&(start, _)| start < end)
            || at > 0 && whole.parts[at - 1].0 + whole.parts[at - 1].1.len() > offset;
        if overlaps {
            self.packets.remove(index);
            return None;
        }
        whole.parts.insert(at, (offset, payload.to_vec()));
        if !more {
            whole.length = Some(end);
        }
        let received: usize = whole.parts.iter().map(|(_, part)| part.len()).sum();
        if whole.length != Some(received) {
            return None;
        }
        let whole = self.packets.remove(index);
        let header = Header {
            source: packet.source,
            destination: packet.destination,
            protocol: packet.protocol,
            hop_limit: whole.hop_limit,
            id: id as u16,
            dont_fragment: false,
            traffic_class: 0,
        };
        let parts: Vec<&[u8]> = whole.parts.iter().map(|(_, part)| part.as_slice()).collect();
        let mut bytes = Vec::new();
        write_packet(&mut bytes, &header, &parts);
        Some(bytes)
    }
}
