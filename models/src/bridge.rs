//! In-process layer-2 devices: the learning bridge and the hub.
//!
//! Purpose: a device sits on one station of each of several links and repeats, on the others, the
//! frames it receives on one, without delay of its own.
//!
//! Assumptions: the frame is forwarded in the instant it has been received completely.
//!
//! Not modelled: VLANs, processing time, multicast snooping. Two bridges joined by two links are a
//! loop unless they run the spanning tree protocol (`stp`).
//!
//! Reference: IEEE 802.1D-2004, 7.7–7.9; ns-3 `BridgeNetDevice` (which floods a frame whose
//! destination is on the port it came from; this one filters it, as 802.1D says).

mod stp;

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};

use tapestry_core::SimTime;

use crate::Frame;
use stp::{BPDU_ADDRESS, SpanningTree};

/// What a bridge does beyond learning.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BridgeConfig {
    /// An address not seen for longer than this is forgotten.
    pub ageing: SimTime,
    /// The spanning tree protocol, if the bridge takes part in it.
    pub stp: Option<SpanningTreeConfig>,
}

/// How a bridge takes part in the spanning tree protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SpanningTreeConfig {
    /// The bridge's own hardware address: among bridges of one priority the lowest becomes root.
    pub mac: [u8; 6],
    /// The bridge with the lowest priority becomes root.
    pub priority: u16,
}

impl BridgeConfig {
    /// An address is kept for 300 seconds (IEEE 802.1D-2004, table 7-5).
    pub const AGEING: SimTime = SimTime::from_secs(300);
}

impl Default for BridgeConfig {
    /// Without spanning tree.
    fn default() -> Self {
        Self { ageing: Self::AGEING, stp: None }
    }
}

impl SpanningTreeConfig {
    /// The priority of a bridge that was given none (IEEE 802.1D-1998, table 8-4).
    pub const PRIORITY: u16 = 0x8000;

    /// A bridge of default priority.
    pub const fn new(mac: [u8; 6]) -> Self {
        Self { mac, priority: Self::PRIORITY }
    }
}

/// A learning bridge: remembers behind which port an address was last seen.
#[derive(Debug)]
pub struct Bridge {
    ageing: SimTime,
    entries: Vec<Entry>,
    /// Place of each address in `entries`; only looked up, never iterated over.
    places: HashMap<[u8; 6], u32, BuildHasherDefault<AddressHasher>>,
    /// Places of the latest source and destination: mostly the next ones, too.
    latest: [u32; 2],
    filtered: u64,
    stp: Option<Box<SpanningTree>>,
}

#[derive(Debug, Clone, Copy)]
struct Entry {
    address: [u8; 6],
    port: u32,
    seen: SimTime,
}

/// Which of the latest places an address is compared with first.
#[derive(Debug, Clone, Copy)]
enum Role {
    Source,
    Destination,
}

/// Hashes six bytes with one multiplication. The table is
/// bounded, so a station that provokes collisions makes it slow, not large.
#[derive(Debug, Default, Clone, Copy)]
struct AddressHasher(u64);

impl Hasher for AddressHasher {
    fn write(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            self.0 = self.0 << 8 | u64::from(byte);
        }
    }

    fn finish(&self) -> u64 {
        // Fibonacci hashing; the table uses the upper bits, too.
        let product = self.0.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        product ^ product >> 32
    }
}

/// What a device does with a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Forward {
    /// Sends it out of all ports but the one it came in at.
    Flood,
    /// Sends it out of one port.
    To(u32),
    /// Keeps it to itself.
    Filter,
}

impl Bridge {
    /// Addresses remembered; beyond that unknown ones are flooded.
    const ADDRESSES: usize = 8_192;

    /// A bridge with so many ports.
    pub(crate) fn new(now: SimTime, config: &BridgeConfig, ports: usize) -> Self {
        let stp = |stp: SpanningTreeConfig| {
            Box::new(SpanningTree::new(now, stp.mac, stp.priority, ports))
        };
        Self {
            ageing: config.ageing,
            entries: Vec::new(),
            places: HashMap::default(),
            latest: [0; 2],
            filtered: 0,
            stp: config.stp.map(stp),
        }
    }

    /// Starts anew: whatever it has learned is forgotten.
    pub(crate) fn reset(&mut self, now: SimTime) {
        let stp = self.stp.take().map(|stp| Box::new(stp.anew(now)));
        *self = Self {
            ageing: self.ageing,
            entries: Vec::new(),
            places: HashMap::default(),
            latest: [0; 2],
            filtered: self.filtered,
            stp,
        };
    }

    /// A port loses or gets its carrier; see [`take_bpdus`](Self::take_bpdus). What was learned at
    /// it is forgotten when it is lost.
    pub(crate) fn set_carrier(&mut self, now: SimTime, port: u32, carrier: bool) {
        if !carrier {
            self.entries.retain(|entry| entry.port != port);
            self.index();
        }
        if let Some(stp) = &mut self.stp {
            stp.set_enabled(now, port as usize, carrier);
        }
    }

    /// Notes the places of the entries.
    fn index(&mut self) {
        let places = self.entries.iter().zip(0..);
        self.places = places.map(|(entry, place)| (entry.address, place)).collect();
    }

    /// Whether frames may leave by a port.
    pub fn forwards(&self, port: u32) -> bool {
        self.stp.as_ref().is_none_or(|stp| stp.forwards(port))
    }

    /// When [`handle_timeout`](Self::handle_timeout) should be called next.
    pub(crate) fn poll_timeout(&self) -> Option<SimTime> {
        self.stp.as_ref()?.poll_timeout()
    }

    /// Does what the spanning tree protocol has to do; see [`take_bpdus`](Self::take_bpdus).
    pub(crate) fn handle_timeout(&mut self, now: SimTime) {
        if let Some(stp) = &mut self.stp {
            stp.handle_timeout(now);
        }
    }

    /// The frames of the bridge's own that it wants to send, by port; poll it after every call.
    pub(crate) fn take_bpdus(&mut self) -> Vec<(u32, Vec<u8>)> {
        self.stp.as_mut().map_or_else(Vec::new, |stp| stp.take_out())
    }

    fn ageing(&self) -> SimTime {
        let short = self.stp.as_ref().and_then(|stp| stp.ageing());
        short.map_or(self.ageing, |short| short.min(self.ageing))
    }

    /// Frames that were not forwarded because their destination is on the side they came from, or
    /// is reserved for the bridge itself.
    pub fn filtered(&self) -> u64 {
        self.filtered
    }

    /// Learns from a frame received at `port` and says where it goes.
    pub(crate) fn receive(&mut self, now: SimTime, port: u32, frame: &Frame) -> Forward {
        let (Some(destination), Some(source)) = (frame.destination(), frame.source()) else {
            self.filtered += 1;
            return Forward::Filter;
        };
        if let Some(stp) = &mut self.stp {
            if destination == BPDU_ADDRESS {
                stp.handle_bpdu(now, port, frame.bytes());
            }
            if !stp.learns(port) {
                self.filtered += 1;
                return Forward::Filter;
            }
        }
        if !is_group(source) {
            self.learn(now, port, source);
        }
        let forward = match self.lookup(now, destination) {
            _ if is_link_local(destination) => Forward::Filter,
            Forward::To(target) if target == port || !self.forwards(target) => Forward::Filter,
            _ if !self.forwards(port) => Forward::Filter,
            forward => forward,
        };
        self.filtered += u64::from(forward == Forward::Filter);
        forward
    }

    /// Where a frame to this address goes.
    pub(crate) fn lookup(&mut self, now: SimTime, destination: [u8; 6]) -> Forward {
        if is_group(destination) {
            return Forward::Flood;
        }
        let ageing = self.ageing();
        match self.entry(destination, Role::Destination) {
            Some(entry) if now - entry.seen <= ageing => Forward::To(entry.port),
            _ => Forward::Flood,
        }
    }

    fn learn(&mut self, now: SimTime, port: u32, source: [u8; 6]) {
        if let Some(entry) = self.entry(source, Role::Source) {
            (entry.port, entry.seen) = (port, now);
            return;
        }
        if self.entries.len() >= Self::ADDRESSES {
            self.entries.retain(|entry| now - entry.seen <= self.ageing);
            self.index();
            if self.entries.len() >= Self::ADDRESSES {
                return;
            }
        }
        self.places.insert(source, self.entries.len() as u32);
        self.entries.push(Entry { address: source, port, seen: now });
    }

    #[inline]
    fn entry(&mut self, address: [u8; 6], role: Role) -> Option<&mut Entry> {
        let latest = &mut self.latest[role as usize];
        if self.entries.get(*latest as usize).is_none_or(|entry| entry.address != address) {
            *latest = *self.places.get(&address)?;
        }
        self.entries.get_mut(*latest as usize)
    }
}

/// Whether a frame to this address is for the spanning tree protocol.
pub(crate) fn is_bpdu(destination: [u8; 6]) -> bool {
    destination == BPDU_ADDRESS
}

fn is_group(address: [u8; 6]) -> bool {
    address[0] & 1 != 0
}

/// 01-80-C2-00-00-00 to -0F: never forwarded by a bridge.
fn is_link_local(address: [u8; 6]) -> bool {
    address[..5] == [0x01, 0x80, 0xc2, 0x00, 0x00] && address[5] < 0x10
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(destination: [u8; 6], source: [u8; 6]) -> Frame {
        Frame::from([&destination[..], &source[..], &[0; 48]].concat())
    }

    const A: [u8; 6] = [2, 0, 0, 0, 0, 1];
    const B: [u8; 6] = [2, 0, 0, 0, 0, 2];
    const ALL: [u8; 6] = [0xff; 6];

    #[test]
    fn learns_forwards_filters_and_forgets() {
        let mut bridge = Bridge::new(SimTime::ZERO, &BridgeConfig::default(), 3);
        let at = SimTime::from_secs;
        assert_eq!(bridge.receive(at(0), 0, &frame(B, A)), Forward::Flood);
        assert_eq!(bridge.receive(at(1), 1, &frame(A, B)), Forward::To(0));
        assert_eq!(bridge.receive(at(2), 0, &frame(B, A)), Forward::To(1));
        assert_eq!(bridge.receive(at(2), 1, &frame(B, A)), Forward::Filter);
        assert_eq!(bridge.receive(at(3), 2, &frame(A, B)), Forward::To(1));
        assert_eq!(bridge.receive(at(3), 0, &frame(ALL, A)), Forward::Flood);
        assert_eq!(bridge.receive(at(304), 0, &frame(B, A)), Forward::Flood);
        let bpdu = [0x01, 0x80, 0xc2, 0, 0, 0];
        assert_eq!(bridge.receive(at(304), 0, &frame(bpdu, A)), Forward::Filter);
        assert_eq!(bridge.receive(at(304), 0, &Frame::from(vec![1; 3])), Forward::Filter);
        assert_eq!(bridge.filtered(), 3);
    }

    #[test]
    fn addresses_are_kept_as_long_as_configured() {
        let config = BridgeConfig { ageing: SimTime::from_secs(2), stp: None };
        let mut bridge = Bridge::new(SimTime::ZERO, &config, 2);
        let at = SimTime::from_secs;
        bridge.receive(at(0), 0, &frame(B, A));
        assert_eq!(bridge.receive(at(2), 1, &frame(A, B)), Forward::To(0));
        assert_eq!(bridge.receive(at(3), 1, &frame(A, B)), Forward::Flood);
    }

    #[test]
    fn the_table_is_bounded_and_room_comes_back_with_age() {
        let mut bridge = Bridge::new(SimTime::ZERO, &BridgeConfig::default(), 3);
        let address = |n: usize| [2, 0, 0, 0, (n >> 8) as u8, n as u8];
        for n in 0..=Bridge::ADDRESSES {
            bridge.receive(SimTime::ZERO, 0, &frame(ALL, address(n)));
        }
        assert_eq!(bridge.entries.len(), Bridge::ADDRESSES);
        let last = address(Bridge::ADDRESSES);
        assert_eq!(bridge.receive(SimTime::ZERO, 1, &frame(last, A)), Forward::Flood);
        let later = SimTime::from_secs(301);
        bridge.receive(later, 0, &frame(ALL, last));
        assert_eq!(bridge.entries.len(), 1);
        assert_eq!(bridge.receive(later, 1, &frame(last, A)), Forward::To(0));
    }
}
