//! What a link is made of: identifiers and configuration.

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

/// How many bytes a frame occupies on the wire beyond its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Framing {
    /// Bytes added to every frame.
    pub overhead_bytes: u32,
    /// Shorter frames are padded to this length, overhead included.
    pub min_wire_bytes: u32,
}

impl Framing {
    /// Ethernet as ns-3's CSMA model counts it: a frame check sequence of 4 bytes and padding to
    /// 64 bytes; no preamble.
    pub const ETHERNET: Self = Self { overhead_bytes: 4, min_wire_bytes: 64 };
    /// A frame occupies the wire with exactly its own bytes.
    pub const NONE: Self = Self { overhead_bytes: 0, min_wire_bytes: 0 };

    /// Bytes that a frame of `len` bytes occupies on the wire.
    pub fn wire_bytes(self, len: usize) -> u64 {
        (len as u64 + u64::from(self.overhead_bytes)).max(u64::from(self.min_wire_bytes))
    }
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
        }
    }

    /// A CSMA link with so many stations, without rate limit and delay, with ns-3's queue of 100
    /// frames.
    pub fn csma(name: impl Into<String>, stations: u32) -> Self {
        Self { channel: ChannelKind::Csma, stations, ..Self::point_to_point(name) }
    }
}
