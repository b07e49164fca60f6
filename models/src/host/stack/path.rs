//! Path MTUs: the longest packets that reach a destination, as routers on the way tell them.
//!
//! Purpose: what a router says in "fragmentation needed" (IPv4) or "packet too big" (IPv6) holds
//! for ten minutes, as on Linux (`ip_rt_mtu_expires`); then longer packets are tried again.
//!
//! Not modelled: probing without ICMP (RFC 8899), and Linux's lower bound of 552 bytes in IPv4.
//!
//! Reference: RFC 1191 (IPv4), RFC 8201 (IPv6).

use std::collections::BTreeMap;
use std::net::IpAddr;

use tapestry_core::SimTime;

use super::Stack;
use super::icmp::original;
use super::packet::{IPV4_HEADER, IPV6_HEADER, u16_at, u32_at};

/// Path MTUs in bytes by destination, with the time until which they hold.
#[derive(Debug, Default)]
pub(super) struct Paths {
    learnt: BTreeMap<IpAddr, (usize, SimTime)>,
}

const EXPIRY: SimTime = SimTime::from_secs(600);
/// Destinations; the one that expires first gives way.
const DESTINATIONS: usize = 1_024;
/// What all links carry, IPv4 (RFC 791) and IPv6 (RFC 8200), in bytes.
const LEAST: [usize; 2] = [68, 1_280];
/// What is assumed where a router does not say, in bytes (RFC 791: all hosts take it).
const UNSAID: usize = 576;
const TCP_HEADER: usize = 20;

impl Paths {
    /// The MTU towards a destination whose first link carries `first` bytes.
    pub(super) fn mtu(&self, now: SimTime, destination: IpAddr, first: usize) -> usize {
        match self.learnt.get(&destination) {
            Some(&(mtu, expires)) if now < expires => first.min(mtu),
            _ => first,
        }
    }
}

impl Stack {
    /// The longest packet that reaches a destination, in bytes; 0 if no route leads there.
    pub(crate) fn path_mtu(&self, now: SimTime, destination: IpAddr) -> usize {
        let interface = match self.route(destination) {
            _ if self.is_local(destination) => 0,
            Some(hop) => hop.interface,
            None => return 0,
        };
        self.paths.mtu(now, destination, self.interfaces[interface].mtu as usize)
    }

    /// Bytes of data in the largest TCP segment to a destination.
    pub(crate) fn segment_bytes(&self, now: SimTime, destination: IpAddr) -> usize {
        let header = if destination.is_ipv4() { IPV4_HEADER } else { IPV6_HEADER };
        self.path_mtu(now, destination).saturating_sub(header + TCP_HEADER).max(1)
    }

    /// Notes what a router says of a packet that was too long for its next link.
    pub(super) fn learn_path_mtu(&mut self, now: SimTime, message: &[u8]) {
        let Some((_, destination, _)) = original(message) else { return };
        let said = match destination {
            IpAddr::V4(_) => u16_at(message, 6).map(usize::from),
            IpAddr::V6(_) => u32_at(message, 4).map(|mtu| mtu as usize),
        };
        let mtu = said.filter(|&mtu| mtu > 0).unwrap_or(UNSAID);
        let mtu = mtu.max(LEAST[usize::from(destination.is_ipv6())]);
        if mtu >= self.path_mtu(now, destination) {
            return;
        }
        let learnt = &mut self.paths.learnt;
        if learnt.len() >= DESTINATIONS
            && let Some((&first, _)) = learnt.iter().min_by_key(|(_, (_, expires))| *expires)
        {
            learnt.remove(&first);
        }
        learnt.insert(destination, (mtu, now.saturating_add(EXPIRY)));
    }
}
