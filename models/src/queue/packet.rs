//! What queue disciplines read from a frame, and the one thing they write.
//!
//! Purpose: a packet's flow and its DSCP; the ECN mark is [`ecn`]'s. VLAN tags are looked through, IPv6
//! extension headers too.
//!
//! Assumptions: fragments have no ports, so that all of one datagram are of one flow. Frames that
//! carry no IP are of one flow for each pair of hardware addresses and type.
//!
//! Not modelled: tunnels; a packet in a packet has the flow and the DSCP of the outer one.
//!
//! Reference: RFC 791, RFC 8200, RFC 2474 (DSCP), IEEE 802.1Q.

use crate::{Frame, FramePool, ecn};

/// Where the network layer begins.
enum Layer3 {
    Ipv4(usize),
    Ipv6(usize),
    Other,
}

/// Bytes of the shortest IPv4 header, and of the IPv6 header.
const IPV4_HEADER: usize = 20;
const IPV6_HEADER: usize = 40;
/// Stacked tags beyond this are taken for payload.
const MOST_TAGS: usize = 4;

fn layer3(bytes: &[u8]) -> Layer3 {
    let mut at = 12;
    for _ in 0..=MOST_TAGS {
        let kind = bytes.get(at..at + 2).and_then(|kind| kind.first_chunk::<2>());
        match kind {
            Some([0x81 | 0x91, 0x00] | [0x88, 0xa8]) => at += 4,
            Some([0x08, 0x00]) if is_version(bytes, at + 2, 4, IPV4_HEADER) => {
                return Layer3::Ipv4(at + 2);
            }
            Some([0x86, 0xdd]) if is_version(bytes, at + 2, 6, IPV6_HEADER) => {
                return Layer3::Ipv6(at + 2);
            }
            _ => return Layer3::Other,
        }
    }
    Layer3::Other
}

fn is_version(bytes: &[u8], at: usize, version: u8, header: usize) -> bool {
    bytes.len() >= at + header && bytes[at] >> 4 == version
}

/// The differentiated services code point; `None` if the frame carries no IP.
pub(super) fn dscp(bytes: &[u8]) -> Option<u8> {
    match layer3(bytes) {
        Layer3::Ipv4(at) => Some(bytes[at + 1] >> 2),
        Layer3::Ipv6(at) => Some((bytes[at] & 0x0f) << 2 | bytes[at + 1] >> 6),
        Layer3::Other => None,
    }
}

/// A hash of the flow that the frame belongs to: addresses, protocol and ports.
pub(super) fn flow_hash(bytes: &[u8], salt: u64) -> u64 {
    let hash = Hash(salt);
    match layer3(bytes) {
        Layer3::Ipv4(at) => {
            let header = usize::from(bytes[at] & 0x0f) * 4;
            // More fragments, or an offset.
            let fragment = bytes[at + 6] & 0x3f != 0 || bytes[at + 7] != 0;
            let protocol = bytes[at + 9];
            let ports = if fragment { 0 } else { ports(bytes, at + header, protocol) };
            hash.add(word(bytes, at + 12)).add(u64::from(protocol) << 32 | ports).finish()
        }
        Layer3::Ipv6(at) => {
            let (protocol, ports) = ipv6_transport(bytes, at);
            let addresses = (0..4).fold(hash, |hash, i| hash.add(word(bytes, at + 8 + 8 * i)));
            addresses.add(u64::from(protocol) << 32 | ports).finish()
        }
        Layer3::Other => hash.add(word(bytes, 0)).add(word(bytes, 6)).finish(),
    }
}

/// The protocol behind the extension headers, and its ports.
fn ipv6_transport(bytes: &[u8], at: usize) -> (u8, u64) {
    let mut next = bytes[at + 6];
    let mut at = at + IPV6_HEADER;
    while let (0 | 43 | 60, Some(&[following, length])) =
        (next, bytes.get(at..).and_then(|rest| rest.first_chunk::<2>()))
    {
        next = following;
        at += 8 + 8 * usize::from(length);
    }
    (next, ports(bytes, at, next))
}

/// Both ports of the protocols that have them where TCP has.
fn ports(bytes: &[u8], at: usize, protocol: u8) -> u64 {
    match (protocol, bytes.get(at..).and_then(|rest| rest.first_chunk::<4>())) {
        // TCP, UDP, DCCP, SCTP, UDP-Lite.
        (6 | 17 | 33 | 132 | 136, Some(ports)) => u64::from(u32::from_be_bytes(*ports)),
        _ => 0,
    }
}

/// Eight bytes, or what there is of them.
fn word(bytes: &[u8], at: usize) -> u64 {
    let rest = bytes.get(at..).unwrap_or_default();
    match rest.first_chunk::<8>() {
        Some(word) => u64::from_be_bytes(*word),
        None => rest.iter().fold(0, |word, &byte| word << 8 | u64::from(byte)),
    }
}

#[derive(Clone, Copy)]
struct Hash(u64);

impl Hash {
    fn add(self, word: u64) -> Self {
        // The golden ratio's fraction; an odd number that spreads its input over the upper bits.
        let mixed = (self.0 ^ word).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        Self(mixed ^ mixed >> 32)
    }

    fn finish(self) -> u64 {
        self.add(0).0
    }
}

/// Sets the "congestion experienced" mark.
#[derive(Debug)]
pub(super) struct Marker {
    /// Frames are shared and never changed, so a marked one is a copy.
    copies: FramePool,
}

impl Marker {
    /// Marked frames under way at once, at most.
    const COPIES: usize = 1 << 16;
    /// Ethernet header and two VLAN tags, which the MTU does not count.
    const HEADERS: u32 = 22;
    /// The longest IP packet.
    const LONGEST: u32 = 65_575;

    /// For a link with this MTU.
    pub(super) fn new(mtu: u32) -> Self {
        let bytes = mtu.min(Self::LONGEST) + Self::HEADERS;
        Self { copies: FramePool::new((bytes as usize).next_multiple_of(64), Self::COPIES) }
    }

    /// The frame with its mark set; `Err` with the frame as it was if its transport does not
    /// understand marks.
    pub(super) fn mark(&mut self, frame: Frame) -> Result<Frame, Frame> {
        ecn::mark(&frame, &mut self.copies).ok_or(frame)
    }
}

#[cfg(test)]
mod tests;
