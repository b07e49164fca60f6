//! Frames, channels and in-process devices as pure state machines.
//!
//! Purpose: [`Network`] composes links and devices into one event-driven state machine that runs
//! unchanged against the wall clock and in virtual time. Frames go in at ports and come out at
//! ports; in between, everything is an event.
//!
//! Assumptions: frames are Ethernet without preamble and frame check sequence, as TAP devices
//! carry them. The caller passes `now`; nothing here asks the time or does I/O.
//!
//! Not modelled: speed negotiation, flow control (802.3x).
//!
//! Reference: ns-3 models `csma`, `point-to-point` and `bridge`; IEEE 802.3, 802.1D.

#![forbid(unsafe_code)]

mod bridge;
mod builder;
mod counters;
mod csma;
mod delay_line;
mod ecn;
mod event;
mod frame;
mod host;
mod impair;
mod link;
mod network;
mod point_to_point;
mod queue;
mod source;
mod trace;

pub use bridge::{Bridge, BridgeConfig, SpanningTreeConfig};
pub use builder::{BuildError, NetworkBuilder};
pub use counters::{Count, Counters, DropReason, Drops, Impaired, QueueCounters};
pub use frame::{FillError, Frame, FramePool, LentBuffer};
pub use host::{
    CommandEvent, CommandId, CommandOutput, Host, HostBridge, HostConfig, HostError, HostInterface,
    HostRoute, InvalidPrefix, IpNetwork, PROGRAMS, ParseIpNetworkError,
};
pub use link::{Backoff, ChannelKind, DeviceId, Direction, Framing, LinkConfig, LinkId, PortId};
pub use network::{
    CommandError, DeviceChange, DirectionChange, LinkChange, Livelock, Network, SetLinkError,
    Transmit,
};
pub use queue::{
    ClassConfig, ClassesConfig, CoDelConfig, FqCoDelConfig, LEAST_QUANTUM, Limit, PieConfig,
    QueueConfig, RedConfig, RedUnit,
};
pub use source::{Schedule, Source, udp_frame};
pub use trace::{Trace, TraceEvent, TraceRecord};
