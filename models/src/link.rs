//! What a link is made of: identifiers and configuration.

pub use tapestry_core::link::Framing;
use tapestry_core::link::LinkParameters;
use tapestry_core::{DataRate, SimTime};

use crate::queue::QueueConfig;

/// A link of a network, counted from 0 in the order of building.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct LinkId(pub u32);

/// A station of a link, counted through all links from 0. Where no in-process device sits on the
/// station, frames enter and leave the network there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PortId(pub u32);

/// An in-process device, counted from 0 in the order of building.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct DeviceId(pub u32);

/// The channel model of a link.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ChannelKind {
    /// Shared half-duplex medium with any number of stations.
    Csma,
    /// Full-duplex link between two stations.
    PointToPoint,
}

/// Which directions of a link something is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Direction {
    /// All of them.
    Both,
    /// What this station of a point-to-point link sends, counted from 0.
    From(u32),
}

/// Parameters of the binary exponential back-off of CSMA, with ns-3's defaults.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Backoff {
    /// Length of a slot.
    pub slot: SimTime,
    /// Fewest slots waited.
    pub min_slots: u32,
    /// Most slots waited.
    pub max_slots: u32,
    /// Retry after which the range no longer doubles; zero for never.
    pub ceiling: u32,
    /// Retries after which the frame is dropped.
    pub max_retries: u32,
}

impl Default for Backoff {
    fn default() -> Self {
        Self {
            slot: SimTime::from_micros(1),
            min_slots: 1,
            max_slots: 1_000,
            ceiling: 10,
            max_retries: 1_000,
        }
    }
}

/// A link to be built.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LinkConfig {
    /// Unique name; the random streams of the link's stations derive from it.
    pub name: String,
    /// The channel model.
    pub channel: ChannelKind,
    /// Number of stations.
    pub stations: u32,
    /// Transmission rate; `None`: serialisation takes no time.
    pub rate: Option<DataRate>,
    /// One-way propagation delay.
    pub delay: SimTime,
    /// The queue of each station, behind the frame in transmission.
    pub queue: QueueConfig,
    /// Largest payload of a frame in bytes (Ethernet header and one VLAN tag not counted).
    pub mtu: u32,
    /// Bytes on the wire.
    pub framing: Framing,
    /// Back-off parameters; only CSMA uses them.
    pub backoff: Backoff,
    /// What each station's direction does to frames, instead of `rate`, `delay` and `framing`. On
    /// CSMA, whose stations share a medium, the first counts for all.
    pub parameters: Option<Box<[LinkParameters; 2]>>,
    /// The queue of each station of a point-to-point link, instead of `queue`.
    pub queues: Option<Box<[QueueConfig; 2]>>,
}

impl LinkConfig {
    /// A point-to-point link without rate limit and delay, with ns-3's queue of 100 frames.
    pub fn point_to_point(name: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            channel: ChannelKind::PointToPoint,
            stations: 2,
            rate: None,
            delay: SimTime::ZERO,
            queue: QueueConfig::frames(100),
            mtu: 1_500,
            framing: Framing::ETHERNET,
            backoff: Backoff::default(),
            parameters: None,
            queues: None,
        }
    }

    /// A CSMA link with so many stations, without rate limit and delay, with ns-3's queue of 100
    /// frames.
    pub fn csma(name: impl Into<String>, stations: u32) -> Self {
        Self { channel: ChannelKind::Csma, stations, ..Self::point_to_point(name) }
    }
}
