//! Builds a network from links and devices.

use std::collections::BTreeSet;

use tapestry_core::{Mrg32k3a, SimTime, Streams};
use thiserror::Error;

use crate::bridge::{Bridge, BridgeConfig};
use crate::csma::{BackoffRandom, Csma};
use crate::network::{Channel, Device, DeviceKind, Link, Network, Receiver, Station};
use crate::point_to_point::PointToPoint;
use crate::queue::Queue;
use crate::{
    ChannelKind, DeviceId, Direction, Host, HostConfig, HostError, LinkConfig, LinkId, PortId,
    Schedule, SetLinkError, Source,
};

/// Collects links, then devices on their stations.
#[derive(Debug)]
pub struct NetworkBuilder {
    randomness: Randomness,
    names: BTreeSet<String>,
    hosts: BTreeSet<String>,
    largest_mtu: u32,
    links: Vec<Link>,
    stations: Vec<Station>,
    devices: Vec<Device>,
    /// Stations of CSMA links; only they have a random variable in ns-3.
    csma_stations: u64,
}

/// Where the random choices of a network come from.
#[derive(Debug, Clone, Copy)]
enum Randomness {
    Named(Streams),
    Ns3 { seed: u32, run: u64 },
}

/// Why a network cannot be built.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum BuildError {
    /// Two links share a name.
    #[error("there are two links `{link}`; rename one")]
    DuplicateLink {
        /// The name.
        link: String,
    },
    /// No model can obey the link's parameters.
    #[error(transparent)]
    Parameters(#[from] SetLinkError),
    /// The channel cannot have that many stations.
    #[error("link `{link}` has {stations} stations; {expected}")]
    Stations {
        /// The link's name.
        link: String,
        /// The number of stations as given.
        stations: u32,
        /// What the channel needs.
        expected: &'static str,
    },
    /// Two hosts share a name, and with it their random streams.
    #[error("there are two nodes `{node}`; rename one")]
    DuplicateNode {
        /// The name.
        node: String,
    },
    /// A host's configuration contradicts itself.
    #[error(transparent)]
    Host(#[from] HostError),
    /// A source has one link.
    #[error("the source `{node}` has {ports} links; give it exactly one")]
    SourcePorts {
        /// The source.
        node: String,
        /// How many links it has.
        ports: usize,
    },
    /// There is no such port.
    #[error("there is no port {port}; use the ports of links that were added")]
    NoSuchPort {
        /// The port's number.
        port: u32,
    },
    /// Two devices claim a port, or one claims it twice.
    #[error("port {port} has a device already; give each device ports of its own")]
    PortTaken {
        /// The port's number.
        port: u32,
    },
}

impl NetworkBuilder {
    /// A builder for a network whose random choices derive from `streams`: each station draws from
    /// a stream named after its link.
    pub fn new(streams: Streams) -> Self {
        Self::with_randomness(Randomness::Named(streams))
    }

    /// A builder for a network that draws the numbers that ns-3 draws with this `RngSeed` and
    /// `RngRun` (both 1 unless set) when the network's links are installed in the same order and
    /// nothing else random is installed before them. Only for comparisons with ns-3: here, adding
    /// a link changes what later ones draw.
    pub fn like_ns3(seed: u32, run: u64) -> Self {
        Self::with_randomness(Randomness::Ns3 { seed, run })
    }

    fn with_randomness(randomness: Randomness) -> Self {
        Self {
            randomness,
            names: BTreeSet::new(),
            hosts: BTreeSet::new(),
            largest_mtu: 0,
            links: Vec::new(),
            stations: Vec::new(),
            devices: Vec::new(),
            csma_stations: 0,
        }
    }

    /// Adds a link. Its stations are ports until a device takes them.
    pub fn link(&mut self, config: LinkConfig) -> Result<LinkId, BuildError> {
        let expected = match config.channel {
            ChannelKind::PointToPoint if config.stations != 2 => "a point-to-point link has two",
            ChannelKind::Csma if config.stations == 0 => "a CSMA link has at least one",
            _ => "",
        };
        if !expected.is_empty() {
            let (link, stations) = (config.name, config.stations);
            return Err(BuildError::Stations { link, stations, expected });
        }
        if !self.names.insert(config.name.clone()) {
            return Err(BuildError::DuplicateLink { link: config.name });
        }
        let LinkConfig { ref name, rate, delay, framing, stations, .. } = config;
        let streams = self.streams();
        let queue = |station: u32| {
            let path = format!("link/{name}/station/{station}");
            let own = config.queues.as_deref().and_then(|queues| queues.get(station as usize));
            let queue = own.unwrap_or(&config.queue);
            Queue::new(queue, config.mtu, || streams.stream(&path, "queue"))
        };
        let channel = match config.channel {
            ChannelKind::PointToPoint => {
                Channel::PointToPoint(PointToPoint::new(rate, delay, framing, [queue(0), queue(1)]))
            }
            ChannelKind::Csma => {
                let (randomness, first) = (self.randomness, self.csma_stations);
                self.csma_stations += u64::from(stations);
                let random = (0..stations).map(|station| match randomness {
                    Randomness::Named(streams) => {
                        let path = format!("link/{name}/station/{station}");
                        BackoffRandom::Named(Box::new(streams.stream(&path, "backoff")))
                    }
                    Randomness::Ns3 { seed, run } => {
                        BackoffRandom::Ns3(Mrg32k3a::new(seed, first + u64::from(station), run))
                    }
                });
                let stations = random.zip((0..).map(queue));
                Channel::Csma(Csma::new(rate, delay, framing, config.backoff, stations))
            }
        };
        self.largest_mtu = self.largest_mtu.max(config.mtu);
        let id = LinkId(self.links.len() as u32);
        let first_station = self.stations.len() as u32;
        let mut link = Link::new(config.name, config.mtu, first_station, stations, channel);
        if let Some([forward, backward]) = config.parameters.as_deref() {
            let directions = match config.channel {
                ChannelKind::PointToPoint => {
                    vec![(Direction::From(0), forward), (Direction::From(1), backward)]
                }
                ChannelKind::Csma => vec![(Direction::Both, forward)],
            };
            for (direction, parameters) in directions {
                link.check(direction, config.mtu, parameters)?;
                link.set(SimTime::ZERO, self.streams(), direction, parameters);
            }
        }
        self.links.push(link);
        self.stations.extend((0..stations).map(|_| Station { link: id, receiver: Receiver::Port }));
        Ok(id)
    }

    /// The port at a station of a link; `None` if there is no such link or station.
    pub fn port(&self, link: LinkId, station: u32) -> Option<PortId> {
        self.links.get(link.0 as usize)?.port(station)
    }

    /// Puts a learning bridge without spanning tree on these stations, which cease to be ports.
    pub fn bridge(&mut self, ports: &[PortId]) -> Result<DeviceId, BuildError> {
        self.configured_bridge(&BridgeConfig::default(), ports)
    }

    /// The same with a bridge of other settings.
    pub fn configured_bridge(
        &mut self,
        config: &BridgeConfig,
        ports: &[PortId],
    ) -> Result<DeviceId, BuildError> {
        self.device(DeviceKind::Bridge(Bridge::new(SimTime::ZERO, config, ports.len())), ports)
    }

    /// Puts a hub (repeats every frame on all other stations) on these stations, which cease to
    /// be ports.
    pub fn hub(&mut self, ports: &[PortId]) -> Result<DeviceId, BuildError> {
        self.device(DeviceKind::Hub, ports)
    }

    /// Puts a host or router on these stations, one per interface, which cease to be ports.
    pub fn host(&mut self, config: HostConfig, ports: &[PortId]) -> Result<DeviceId, BuildError> {
        if config.interfaces.len() != ports.len() {
            let (node, interfaces) = (config.name, config.interfaces.len());
            return Err(HostError::Ports { node, interfaces, ports: ports.len() }.into());
        }
        if !self.hosts.insert(config.name.clone()) {
            return Err(BuildError::DuplicateNode { node: config.name });
        }
        let streams = self.streams();
        self.device(DeviceKind::Host(Box::new(Host::new(config, streams)?)), ports)
    }

    /// Puts a source of frames, which is also a sink, on this station, which ceases to be a port.
    /// Its instants count from time zero.
    pub fn source(
        &mut self,
        name: impl Into<String>,
        schedule: Schedule,
        port: PortId,
    ) -> Result<DeviceId, BuildError> {
        let mut source = Source::new(name.into(), schedule);
        source.start(SimTime::ZERO);
        self.device(DeviceKind::Source(Box::new(source)), &[port])
    }

    /// The same with a source whose instants count from [`Network::start_sources`].
    pub fn waiting_source(
        &mut self,
        name: impl Into<String>,
        schedule: Schedule,
        port: PortId,
    ) -> Result<DeviceId, BuildError> {
        let source = Source::new(name.into(), schedule);
        self.device(DeviceKind::Source(Box::new(source)), &[port])
    }

    /// The network, at time zero and with all links up.
    pub fn build(self) -> Network {
        let streams = self.streams();
        Network::new(self.links, self.stations, self.devices, self.largest_mtu, streams)
    }

    /// The named streams of this network.
    fn streams(&self) -> Streams {
        match self.randomness {
            Randomness::Named(streams) => streams,
            Randomness::Ns3 { seed, run } => Streams::new(seed.into(), run),
        }
    }

    fn device(&mut self, kind: DeviceKind, ports: &[PortId]) -> Result<DeviceId, BuildError> {
        let mut seen = BTreeSet::new();
        for &PortId(port) in ports {
            match self.stations.get(port as usize).map(|station| station.receiver) {
                None => return Err(BuildError::NoSuchPort { port }),
                Some(Receiver::Port) if seen.insert(port) => {}
                Some(_) => return Err(BuildError::PortTaken { port }),
            }
        }
        let id = DeviceId(self.devices.len() as u32);
        for (i, &PortId(port)) in ports.iter().enumerate() {
            let receiver = Receiver::Device { device: id, port: i as u32 };
            self.stations[port as usize].receiver = receiver;
        }
        let stations = ports.iter().map(|port| port.0).collect();
        self.devices.push(Device::new(kind, stations));
        Ok(id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_built_is_named() {
        let mut builder = NetworkBuilder::new(Streams::new(1, 0));
        let link = builder.link(LinkConfig::point_to_point("a")).unwrap();
        assert_eq!(
            builder.link(LinkConfig::csma("a", 2)),
            Err(BuildError::DuplicateLink { link: "a".into() })
        );
        for (config, stations) in [
            (LinkConfig { stations: 3, ..LinkConfig::point_to_point("b") }, 3),
            (LinkConfig::csma("c", 0), 0),
        ] {
            assert!(matches!(
                builder.link(config),
                Err(BuildError::Stations { stations: s, .. }) if s == stations
            ));
        }
        assert_eq!(builder.port(link, 2), None);
        assert_eq!(builder.port(LinkId(1), 0), None);
        let port = builder.port(link, 1).unwrap();
        assert_eq!(builder.hub(&[port, port]), Err(BuildError::PortTaken { port: 1 }));
        assert_eq!(builder.bridge(&[PortId(9)]), Err(BuildError::NoSuchPort { port: 9 }));
        builder.bridge(&[port]).unwrap();
        assert_eq!(builder.hub(&[port]), Err(BuildError::PortTaken { port: 1 }));
    }
}
