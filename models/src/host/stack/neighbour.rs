//! Neighbours: from IP addresses to hardware addresses, by ARP and neighbour discovery.
//!
//! Purpose: an entry is asked for when a packet needs it, three times at one-second intervals;
//! packets wait meanwhile. An entry not confirmed for a minute is used on and asked for again.
//!
//! Reference: RFC 826, RFC 4861; for the figures, Linux `arp(7)` and RFC 4861, section 10.

use std::collections::{BTreeMap, VecDeque};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use tapestry_core::SimTime;

use super::link::{BROADCAST, ETHERNET_HEADER, TYPE_ARP, TYPE_IPV6};
use super::packet::{
    Header, ICMPV6, Packet, transport_checksum, u16_at, v4_at, v6_at, write_packet,
};
use super::{Io, Stack, Unreachable};
use crate::Frame;

#[derive(Debug, Default)]
pub(super) struct Neighbours {
    entries: BTreeMap<(usize, IpAddr), Entry>,
    /// Entries being asked for.
    probing: usize,
}

#[derive(Debug)]
struct Entry {
    mac: Option<[u8; 6]>,
    confirmed: SimTime,
    probe: Option<Probe>,
    /// Frames that lack the destination address.
    waiting: VecDeque<Frame>,
}

#[derive(Debug, Clone, Copy)]
struct Probe {
    next: SimTime,
    left: u32,
}

/// Requests for an address before it counts as unreachable.
const PROBES: u32 = 3;
const PROBE_INTERVAL: SimTime = SimTime::from_secs(1);
/// How long an entry is used without being asked for again.
const REACHABLE: SimTime = SimTime::from_secs(60);
/// Frames that wait for one address; as many as on Linux (`unres_qlen`).
const WAITING: usize = 101;
/// Entries; as many as on Linux (`gc_thresh3`).
const ENTRIES: usize = 1_024;

impl Neighbours {
    pub(super) fn poll_timeout(&self) -> Option<SimTime> {
        if self.probing == 0 {
            return None;
        }
        self.entries.values().filter_map(|entry| entry.probe).map(|probe| probe.next).min()
    }

    /// Forgets all on an interface whose own address has changed, as Linux does: they must hear of it,
    /// and do with the next request.
    pub(super) fn forget(&mut self, interface: usize) {
        self.entries.retain(|&(on, _), _| on != interface);
        self.probing = self.entries.values().filter(|entry| entry.probe.is_some()).count();
    }

    /// Makes room by forgetting the entry confirmed longest ago.
    fn make_room(&mut self) {
        if self.entries.len() < ENTRIES {
            return;
        }
        let oldest = self.entries.iter().min_by_key(|(_, entry)| entry.confirmed);
        if let Some(key) = oldest.map(|(&key, _)| key)
            && let Some(entry) = self.entries.remove(&key)
        {
            self.probing -= usize::from(entry.probe.is_some());
        }
    }
}

impl Stack {
    /// Forgets the neighbours on an interface.
    pub(crate) fn forget_neighbours(&mut self, interface: usize) {
        self.neighbours.forget(interface);
    }

    /// Sends a frame to a neighbour, at once or when its hardware address is known.
    pub(super) fn send_to_neighbour(
        &mut self,
        io: &mut Io<'_>,
        interface: usize,
        next: IpAddr,
        ethertype: u16,
        packet: &[&[u8]],
    ) {
        let key = (interface, next);
        let now = io.now;
        let mut ask = None;
        let known = match self.neighbours.entries.get_mut(&key) {
            Some(Entry { mac: Some(mac), confirmed, probe, .. }) => {
                if probe.is_none() && now - *confirmed > REACHABLE {
                    *probe = Some(Probe { next: now + PROBE_INTERVAL, left: PROBES - 1 });
                    self.neighbours.probing += 1;
                    ask = Some(*mac);
                }
                Some(*mac)
            }
            _ => None,
        };
        if let Some(mac) = known {
            if let Some(frame) = self.frame(io, interface, mac, ethertype, packet) {
                self.transmit(io, interface, frame);
            }
            if ask.is_some() {
                self.ask(io, interface, next, ask);
            }
            return;
        }
        let Some(frame) = self.frame(io, interface, [0; 6], ethertype, packet) else { return };
        if !self.neighbours.entries.contains_key(&key) {
            self.neighbours.make_room();
            let probe = Some(Probe { next: now + PROBE_INTERVAL, left: PROBES - 1 });
            let entry = Entry { mac: None, confirmed: now, probe, waiting: VecDeque::new() };
            self.neighbours.entries.insert(key, entry);
            self.neighbours.probing += 1;
            self.ask(io, interface, next, None);
        }
        if let Some(entry) = self.neighbours.entries.get_mut(&key) {
            if entry.waiting.len() == WAITING {
                entry.waiting.pop_front();
            }
            entry.waiting.push_back(frame);
        }
    }

    /// Asks again for what was not answered, and gives up after the last time.
    pub(super) fn probe_neighbours(&mut self, io: &mut Io<'_>) {
        if self.neighbours.poll_timeout().is_none_or(|next| next > io.now) {
            return;
        }
        let due = |(key, entry): (&(usize, IpAddr), &Entry)| {
            entry.probe.is_some_and(|probe| probe.next <= io.now).then_some(*key)
        };
        let due: Vec<_> = self.neighbours.entries.iter().filter_map(due).collect();
        for key in due {
            let Some(entry) = self.neighbours.entries.get_mut(&key) else { continue };
            let Some(probe) = &mut entry.probe else { continue };
            if probe.left > 0 {
                probe.left -= 1;
                probe.next = io.now + PROBE_INTERVAL;
                let mac = entry.mac;
                self.ask(io, key.0, key.1, mac);
                continue;
            }
            self.neighbours.probing -= 1;
            let Some(entry) = self.neighbours.entries.remove(&key) else { continue };
            for frame in entry.waiting {
                if let Some(packet) = frame.bytes().get(ETHERNET_HEADER..) {
                    self.send_error(io, Unreachable::Host, packet);
                }
            }
        }
    }

    /// Sends a request for an address, to all or to the station that had it.
    fn ask(&mut self, io: &mut Io<'_>, number: usize, address: IpAddr, mac: Option<[u8; 6]>) {
        let Some(source) = self.source_on(number, address, address) else { return };
        match (source, address) {
            (IpAddr::V4(source), IpAddr::V4(target)) => {
                let to = mac.unwrap_or(BROADCAST);
                self.send_arp(io, number, ARP_REQUEST, source, ([0; 6], target), to);
            }
            (IpAddr::V6(source), IpAddr::V6(target)) => {
                let [.., a, b, c] = target.octets();
                let group = [0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0xff, a, b, c];
                let (to, to_mac) = match mac {
                    Some(mac) => (target, mac),
                    None => (Ipv6Addr::from(group), [0x33, 0x33, 0xff, a, b, c]),
                };
                self.send_ndp(io, number, SOLICITATION, 0, (source, to, to_mac), target);
            }
            _ => {}
        }
    }

    pub(super) fn handle_arp(&mut self, io: &mut Io<'_>, number: usize, arp: &[u8]) {
        // Ethernet, IPv4, and the lengths of their addresses.
        if arp.get(..6) != Some(&[0, 1, 8, 0, 6, 4]) {
            return;
        }
        let (Some(operation), Some(sender), Some(target)) =
            (u16_at(arp, 6), v4_at(arp, 14), v4_at(arp, 24))
        else {
            return;
        };
        let Some(mac) = arp.get(8..).and_then(|rest| rest.first_chunk::<6>()).copied() else {
            return;
        };
        let mine = self.has_address(number, target.into());
        if !sender.is_unspecified() {
            self.confirm(io, number, sender.into(), mac, mine);
        }
        if operation == ARP_REQUEST && mine {
            self.send_arp(io, number, ARP_REPLY, target, (mac, sender), mac);
        }
    }

    /// Handles a neighbour solicitation or advertisement; false if the packet is neither.
    pub(super) fn handle_ndp(
        &mut self,
        io: &mut Io<'_>,
        number: usize,
        packet: &Packet<'_>,
    ) -> bool {
        let message = packet.payload();
        let (Some(&kind), IpAddr::V6(source)) = (message.first(), packet.source) else {
            return false;
        };
        if kind != SOLICITATION && kind != ADVERTISEMENT {
            return false;
        }
        let Some(target) = v6_at(message, 8) else { return true };
        // Only neighbours send with this hop limit.
        if packet.hop_limit != 255 {
            return true;
        }
        let option = |wanted: u8| {
            let mut rest = message.get(24..)?;
            while let [found, units, ..] = *rest
                && units > 0
            {
                let length = usize::from(units) * 8;
                let option = rest.get(..length)?;
                if found == wanted {
                    return option[2..].first_chunk::<6>().copied();
                }
                rest = &rest[length..];
            }
            None
        };
        if kind == ADVERTISEMENT {
            if let Some(mac) = option(2) {
                self.confirm(io, number, target.into(), mac, false);
            }
            return true;
        }
        if !self.has_address(number, target.into()) {
            return true;
        }
        let Some(mac) = option(1) else { return true };
        self.confirm(io, number, source.into(), mac, true);
        // Solicited, override; and router, if it is one.
        let flags = 0x60 | if self.forwarding { 0x80 } else { 0 };
        self.send_ndp(io, number, ADVERTISEMENT, flags, (target, source, mac), target);
        true
    }

    fn has_address(&self, number: usize, address: IpAddr) -> bool {
        self.interfaces[number].addresses.iter().any(|own| own.address() == address)
    }

    /// Notes a neighbour's hardware address and sends what waited for it. One that nobody asked
    /// for is noted only if it is about to talk to us (`create`).
    fn confirm(
        &mut self,
        io: &mut Io<'_>,
        number: usize,
        address: IpAddr,
        mac: [u8; 6],
        create: bool,
    ) {
        let key = (number, address);
        if !self.neighbours.entries.contains_key(&key) {
            if !create {
                return;
            }
            self.neighbours.make_room();
        }
        let entry = self.neighbours.entries.entry(key).or_insert_with(|| Entry {
            mac: None,
            confirmed: io.now,
            probe: None,
            waiting: VecDeque::new(),
        });
        entry.mac = Some(mac);
        entry.confirmed = io.now;
        self.neighbours.probing -= usize::from(entry.probe.take().is_some());
        for frame in std::mem::take(&mut entry.waiting) {
            let bytes = frame.bytes();
            let ethertype = u16::from_be_bytes([bytes[12], bytes[13]]);
            let payload = [&bytes[ETHERNET_HEADER..]];
            if let Some(frame) = self.frame(io, number, mac, ethertype, &payload) {
                self.transmit(io, number, frame);
            }
        }
    }

    fn send_arp(
        &mut self,
        io: &mut Io<'_>,
        number: usize,
        operation: u16,
        source: Ipv4Addr,
        (target_mac, target): ([u8; 6], Ipv4Addr),
        to: [u8; 6],
    ) {
        let mac = self.interfaces[number].mac;
        let parts: [&[u8]; 6] = [
            &[0, 1, 8, 0, 6, 4],
            &operation.to_be_bytes(),
            &mac,
            &source.octets(),
            &target_mac,
            &target.octets(),
        ];
        if let Some(frame) = self.frame(io, number, to, TYPE_ARP, &parts) {
            self.transmit(io, number, frame);
        }
    }

    fn send_ndp(
        &mut self,
        io: &mut Io<'_>,
        number: usize,
        kind: u8,
        flags: u8,
        (source, destination, to): (Ipv6Addr, Ipv6Addr, [u8; 6]),
        target: Ipv6Addr,
    ) {
        let mut message = [0; 32];
        message[0] = kind;
        message[4] = flags;
        message[8..24].copy_from_slice(&target.octets());
        // Option: source or target link-layer address, one unit of 8 bytes.
        message[24..26].copy_from_slice(&[if kind == SOLICITATION { 1 } else { 2 }, 1]);
        message[26..32].copy_from_slice(&self.interfaces[number].mac);
        let (source, destination) = (source.into(), destination.into());
        let sum = transport_checksum(source, destination, ICMPV6, &[&message]);
        message[2..4].copy_from_slice(&sum.to_be_bytes());
        let header = Header {
            source,
            destination,
            protocol: ICMPV6,
            hop_limit: 255,
            id: 0,
            dont_fragment: true,
            traffic_class: 0,
        };
        let mut packet = std::mem::take(&mut self.scratch);
        write_packet(&mut packet, &header, &[&message]);
        if let Some(frame) = self.frame(io, number, to, TYPE_IPV6, &[&packet]) {
            self.transmit(io, number, frame);
        }
        self.scratch = packet;
    }
}

const ARP_REQUEST: u16 = 1;
const ARP_REPLY: u16 = 2;
const SOLICITATION: u8 = 135;
const ADVERTISEMENT: u8 = 136;
