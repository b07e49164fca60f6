//! The network stack of a host: interfaces, bridges, neighbours, routes, forwarding.
//!
//! Purpose: what a kernel does below the sockets, as a state machine. Frames come in with `now`;
//! frames for other stations go out through [`Io`]; packets for programs are handed up. A router
//! is a stack that forwards.
//!
//! Assumptions: processing takes no time, so a reply leaves in the instant its request arrived.
//! Packets to the host's own addresses come back after [`LOOPBACK_DELAY`]. TCP is handled at the
//! next whole microsecond, since that is the clock of smoltcp, whose TCP this is.
//!
//! Not modelled: duplicate address detection, router advertisements, multicast membership,
//! redirects, limits on the rate of ICMP errors, `VLANs`.
//!
//! Reference: RFC 826 (ARP), 4861 (neighbour discovery), 1812 (IPv4 routers), 8200 (IPv6), 792 and
//! 4443 (ICMP); smoltcp for TCP.

mod icmp;
mod ip;
mod link;
mod neighbour;
pub(crate) mod packet;
mod path;
mod reassembly;
mod segment;

use std::collections::{BTreeMap, VecDeque};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use tapestry_core::{SimTime, Streams};

use super::config::{HostBridge, HostConfig, HostError, HostRoute, IpNetwork};
use super::tcp::Tcp;
use super::{CommandEvent, CommandId, CommandOutput};
use crate::bridge::{Bridge, BridgeConfig, SpanningTreeConfig};
use crate::{DeviceId, Frame, FramePool};

pub(crate) use icmp::{Unreachable, echo_reply, error_text, original};
pub(crate) use ip::{SendError, Sending};
use neighbour::Neighbours;
use path::Paths;
use reassembly::Reassembly;
pub(crate) use segment::{clamp_segment_size, is_syn};

/// What packets to the host's own addresses take. Greater than zero so that a program that talks
/// to itself does not stop time; about what a kernel needs.
pub(crate) const LOOPBACK_DELAY: SimTime = SimTime::from_micros(10);
/// Packets under way to the host itself; beyond it they are lost.
const LOOPBACK_PACKETS: usize = 4_096;
/// Hop limit of the packets that a host sends.
pub(crate) const HOP_LIMIT: u8 = 64;

/// What a host does to the outside while it handles something.
pub(crate) struct Io<'a> {
    pub(crate) now: SimTime,
    pub(crate) device: DeviceId,
    pub(crate) pool: &'a mut FramePool,
    /// Frames that leave, by port of the device.
    pub(crate) out: &'a mut VecDeque<(u32, Frame)>,
    pub(crate) events: &'a mut VecDeque<CommandEvent>,
    /// Frames that found no buffer.
    pub(crate) no_buffer: &'a mut u64,
}

impl Io<'_> {
    /// Tells the outside about a command.
    pub(crate) fn event(&mut self, command: CommandId, output: CommandOutput) {
        self.events.push_back(CommandEvent { command, device: self.device, at: self.now, output });
    }
}

#[derive(Debug)]
pub(crate) struct Stack {
    pub(crate) node: String,
    /// Number 0 is `lo`, number *i* + 1 sits on port *i* of the device, then come the bridges.
    pub(crate) interfaces: Vec<Interface>,
    pub(crate) routes: Vec<Route>,
    pub(crate) forwarding: bool,
    pub(crate) streams: Streams,
    /// Names that stand for addresses.
    pub(crate) names: Arc<BTreeMap<String, Vec<IpAddr>>>,
    neighbours: Neighbours,
    loopback: VecDeque<(SimTime, Vec<u8>)>,
    reassembly: Reassembly,
    paths: Paths,
    /// What the wall clock shows at the network's time zero, since 1970.
    epoch: SimTime,
    /// Made with the first TCP segment or socket.
    pub(crate) tcp: Option<Box<Tcp>>,
    /// The packet being written.
    scratch: Vec<u8>,
    /// Identification of the latest packet.
    id: u16,
    /// The latest ephemeral port given out; 0 before the first.
    ephemeral: u16,
}

#[derive(Debug)]
pub(crate) struct Interface {
    pub(crate) name: String,
    pub(crate) mac: [u8; 6],
    pub(crate) mtu: u32,
    pub(crate) addresses: Vec<IpNetwork>,
    /// Whether the administrator wants it up.
    pub(crate) up: bool,
    /// Whether its link is up.
    pub(crate) carrier: bool,
    /// The bridge whose port this is.
    pub(crate) master: Option<usize>,
    pub(crate) kind: InterfaceKind,
}

#[derive(Debug)]
pub(crate) enum InterfaceKind {
    Loopback,
    /// On this port of the device.
    Port(u32),
    Bridge(Box<InnerBridge>),
}

/// A bridge over some of the host's interfaces.
#[derive(Debug)]
pub(crate) struct InnerBridge {
    pub(crate) table: Bridge,
    /// Numbers of the interfaces.
    pub(crate) ports: Vec<usize>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Route {
    /// Host bits are zero.
    pub(crate) to: IpNetwork,
    pub(crate) via: Option<IpAddr>,
    pub(crate) interface: usize,
}

/// Where a packet goes next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Hop {
    pub(crate) interface: usize,
    pub(crate) next: IpAddr,
}

impl Interface {
    /// Whether frames pass.
    pub(crate) fn works(&self) -> bool {
        self.up && self.carrier
    }
}

impl Stack {
    /// A stack that starts at `now`.
    pub(crate) fn new(
        config: HostConfig,
        streams: Streams,
        now: SimTime,
    ) -> Result<Self, HostError> {
        let loopback = [IpAddr::from(Ipv4Addr::LOCALHOST), Ipv6Addr::LOCALHOST.into()];
        let loopback = [(loopback[0], 8), (loopback[1], 128)]
            .iter()
            .filter_map(|&(address, prefix)| IpNetwork::new(address, prefix).ok())
            .collect();
        let mut this = Self {
            node: config.name,
            interfaces: vec![Interface {
                name: "lo".into(),
                mac: [0; 6],
                mtu: 65_535,
                addresses: loopback,
                up: true,
                carrier: true,
                master: None,
                kind: InterfaceKind::Loopback,
            }],
            routes: Vec::new(),
            forwarding: config.forwarding,
            streams,
            names: config.names,
            neighbours: Neighbours::default(),
            loopback: VecDeque::new(),
            reassembly: Reassembly::default(),
            paths: Paths::default(),
            epoch: config.epoch,
            tcp: None,
            scratch: Vec::new(),
            id: 0,
            ephemeral: 0,
        };
        for (port, interface) in (0..).zip(config.interfaces) {
            this.check_name(&interface.name)?;
            let mut addresses = interface.addresses;
            addresses.push(link_local(interface.mac));
            this.interfaces.push(Interface {
                name: interface.name,
                mac: interface.mac,
                mtu: interface.mtu,
                addresses,
                up: true,
                carrier: true,
                master: None,
                kind: InterfaceKind::Port(port),
            });
        }
        for bridge in config.bridges {
            this.add_bridge(bridge, now)?;
        }
        for route in &config.routes {
            this.add_static_route(route)?;
        }
        Ok(this)
    }

    fn add_bridge(&mut self, bridge: HostBridge, now: SimTime) -> Result<(), HostError> {
        self.check_name(&bridge.name)?;
        let number = self.interfaces.len();
        let mut ports = Vec::with_capacity(bridge.ports.len());
        for name in bridge.ports {
            match self.interface_named(&name) {
                Some(port)
                    if self.interfaces[port].master.is_none()
                        && matches!(self.interfaces[port].kind, InterfaceKind::Port(_)) =>
                {
                    self.interfaces[port].master = Some(number);
                    self.interfaces[port].addresses.clear();
                    ports.push(port);
                }
                _ => {
                    let (node, user) = (self.node.clone(), bridge.name);
                    return Err(HostError::NoSuchInterface { node, interface: name, user });
                }
            }
        }
        // As Linux does: the lowest address and the smallest MTU among the ports.
        let of_ports = || ports.iter().map(|&port| &self.interfaces[port]);
        let mac = of_ports().map(|port| port.mac).min().unwrap_or([2, 0, 0, 0, 0, 0]);
        let mtu = of_ports().map(|port| port.mtu).min().unwrap_or(1_500);
        let mut addresses = bridge.addresses;
        addresses.push(link_local(mac));
        let stp = bridge.stp.then_some(SpanningTreeConfig::new(mac));
        let config = BridgeConfig { stp, ..BridgeConfig::default() };
        let table = Bridge::new(now, &config, ports.len());
        self.interfaces.push(Interface {
            name: bridge.name,
            mac,
            mtu,
            addresses,
            up: true,
            carrier: true,
            master: None,
            kind: InterfaceKind::Bridge(Box::new(InnerBridge { table, ports })),
        });
        Ok(())
    }

    fn add_static_route(&mut self, route: &HostRoute) -> Result<(), HostError> {
        let interface = match (&route.interface, route.via) {
            (Some(name), _) => self.interface_named(name).ok_or_else(|| {
                let (node, interface) = (self.node.clone(), name.clone());
                HostError::NoSuchInterface { node, interface, user: route.to.to_string() }
            })?,
            (None, Some(via)) => self.connected(via).ok_or_else(|| HostError::NoWay {
                node: self.node.clone(),
                via: via.to_string(),
            })?,
            (None, None) => {
                let (node, via) = (self.node.clone(), route.to.to_string());
                return Err(HostError::NoWay { node, via });
            }
        };
        self.routes.push(Route { to: route.to.network(), via: route.via, interface });
        Ok(())
    }

    fn check_name(&self, name: &str) -> Result<(), HostError> {
        if self.interface_named(name).is_none() {
            return Ok(());
        }
        let (node, interface) = (self.node.clone(), name.to_owned());
        Err(HostError::DuplicateInterface { node, interface })
    }

    pub(crate) fn interface_named(&self, name: &str) -> Option<usize> {
        self.interfaces.iter().position(|interface| interface.name == name)
    }

    /// The interface on whose subnet an address is.
    pub(crate) fn connected(&self, address: IpAddr) -> Option<usize> {
        let on = |interface: &Interface| {
            interface.up && interface.addresses.iter().any(|network| network.contains(address))
        };
        self.interfaces.iter().position(on)
    }

    /// The way to an address by the longest prefix; connected subnets come before static routes of
    /// the same length. `None`: unreachable.
    pub(crate) fn route(&self, destination: IpAddr) -> Option<Hop> {
        let mut best: Option<(u8, Hop)> = None;
        let mut offer = |prefix: u8, hop: Hop| {
            if best.is_none_or(|(longest, _)| prefix > longest) {
                best = Some((prefix, hop));
            }
        };
        for (number, interface) in self.interfaces.iter().enumerate() {
            if interface.up && interface.master.is_none() {
                for network in &interface.addresses {
                    if network.contains(destination) {
                        offer(network.prefix(), Hop { interface: number, next: destination });
                    }
                }
            }
        }
        for route in &self.routes {
            if route.to.contains(destination) && self.interfaces[route.interface].up {
                let next = route.via.unwrap_or(destination);
                offer(route.to.prefix(), Hop { interface: route.interface, next });
            }
        }
        best.map(|(_, hop)| hop)
    }

    /// The address from which the host sends to `destination`.
    pub(crate) fn source_for(&self, destination: IpAddr) -> Option<IpAddr> {
        if self.is_local(destination) {
            return Some(destination);
        }
        let hop = self.route(destination)?;
        self.source_on(hop.interface, destination, hop.next)
    }

    fn source_on(&self, interface: usize, destination: IpAddr, next: IpAddr) -> Option<IpAddr> {
        let usable = |network: &&IpNetwork| {
            network.address().is_ipv4() == destination.is_ipv4()
                && is_link_local(network.address()) == is_link_local(destination)
        };
        let own = &self.interfaces[interface].addresses;
        own.iter()
            .filter(usable)
            .find(|network| network.contains(next))
            .or_else(|| own.iter().find(usable))
            .or_else(|| {
                let others = self.interfaces.iter().skip(1).filter(|other| other.up);
                others.flat_map(|other| &other.addresses).find(usable)
            })
            .or_else(|| own.iter().find(|n| n.address().is_ipv4() == destination.is_ipv4()))
            .map(|network| network.address())
    }

    /// Whether an address is the host's own.
    pub(crate) fn is_local(&self, address: IpAddr) -> bool {
        let own = |interface: &Interface| {
            interface.up && interface.addresses.iter().any(|own| own.address() == address)
        };
        matches!(address, IpAddr::V4(v4) if v4.is_loopback()) || self.interfaces.iter().any(own)
    }

    /// A port for a client, 32768–60999 as on Linux: the first is drawn, then they are counted.
    pub(crate) fn ephemeral_port(&mut self, purpose: &str) -> u16 {
        const FIRST: u16 = 32_768;
        const COUNT: u16 = 28_232;
        let offset = match self.ephemeral {
            0 => (self.draw(purpose) % u64::from(COUNT)) as u16,
            last => (last - FIRST + 1) % COUNT,
        };
        self.ephemeral = FIRST + offset;
        self.ephemeral
    }

    /// What the host's clock shows, since 1970.
    pub(crate) fn wall_clock(&self, now: SimTime) -> SimTime {
        self.epoch.saturating_add(now)
    }

    /// The first number of the host's stream for a purpose.
    pub(crate) fn draw(&self, purpose: &str) -> u64 {
        use rand::RngExt;
        self.streams.stream(&format!("node/{}", self.node), purpose).random()
    }

    /// When [`handle_timeout`](Self::handle_timeout) should be called next.
    pub(crate) fn poll_timeout(&self) -> Option<SimTime> {
        let loopback = self.loopback.front().map(|&(due, _)| due);
        let tcp = self.tcp.as_ref().and_then(|tcp| tcp.poll_timeout());
        let reassembly = self.reassembly.poll_timeout();
        let bridges = self.bridges().filter_map(|bridge| bridge.table.poll_timeout()).min();
        [loopback, tcp, self.neighbours.poll_timeout(), reassembly, bridges]
            .into_iter()
            .flatten()
            .min()
    }

    /// Does what is due, but for loopback and TCP: [`next_loopback`](Self::next_loopback),
    /// [`Tcp`].
    pub(crate) fn handle_timeout(&mut self, io: &mut Io<'_>) {
        self.reassembly.handle_timeout(io.now);
        for number in 1..self.interfaces.len() {
            if let InterfaceKind::Bridge(bridge) = &mut self.interfaces[number].kind {
                bridge.table.handle_timeout(io.now);
                self.send_bpdus(io, number);
            }
        }
        self.probe_neighbours(io);
    }

    /// An interface loses or gets its carrier. Routes stay, as on Linux.
    pub(crate) fn set_carrier(&mut self, io: &mut Io<'_>, port: u32, carrier: bool) {
        let number = port as usize + 1;
        let Some(interface) = self.interfaces.get_mut(number) else { return };
        interface.carrier = carrier;
        let Some(master) = interface.master else { return };
        if let InterfaceKind::Bridge(bridge) = &mut self.interfaces[master].kind
            && let Some(port) = bridge.ports.iter().position(|&port| port == number)
        {
            bridge.table.set_carrier(io.now, port as u32, carrier);
            self.send_bpdus(io, master);
        }
    }

    /// The bridges, which stand behind the interfaces that they join.
    fn bridges(&self) -> impl Iterator<Item = &InnerBridge> {
        self.interfaces.iter().rev().map_while(|interface| match &interface.kind {
            InterfaceKind::Bridge(bridge) => Some(&**bridge),
            _ => None,
        })
    }

    /// The next packet to the host itself that is due.
    pub(crate) fn next_loopback(&mut self, now: SimTime) -> Option<Vec<u8>> {
        let due = self.loopback.front().is_some_and(|&(due, _)| due <= now);
        if due { self.loopback.pop_front().map(|(_, packet)| packet) } else { None }
    }
}

/// The link-local address that derives from a hardware address (RFC 4291, appendix A).
fn link_local(mac: [u8; 6]) -> IpNetwork {
    let mut octets = [0xfe, 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xfe, 0, 0, 0];
    octets[8..11].copy_from_slice(&mac[..3]);
    octets[13..].copy_from_slice(&mac[3..]);
    octets[8] ^= 2;
    let address = IpAddr::V6(octets.into());
    IpNetwork::new(address, 64).unwrap_or_else(|_| IpNetwork::host(address))
}

pub(crate) fn is_link_local(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(_) => false,
        IpAddr::V6(v6) => v6.is_unicast_link_local() || v6.is_multicast(),
    }
}
