//! What a data plane is made from.
//!
//! Purpose: plain descriptions of links, ports and in-process devices, independent of topology
//! files, so that a data plane can be built by the lab, a bench or a test alike.

use tapestry_core::{SimTime, SyncPolicy};
use tapestry_models::{
    BridgeConfig, BuildError, DeviceId, HostConfig, LinkChange, LinkConfig, NetworkBuilder, PortId,
    Schedule,
};

use crate::capture::CaptureSpec;
use crate::clock::WallClock;
use crate::port::Port;
use crate::spin::SpinPolicy;

/// Everything [`crate::DataPlane::start`] needs.
pub struct DataPlaneConfig {
    /// The links, in the order in which reports list them.
    pub links: Vec<LinkSpec>,
    /// In-process devices that links attach to.
    pub devices: Vec<DeviceSpec>,
    /// What is done about late events.
    pub sync: SyncPolicy,
    /// Largest number of worker threads; 0 means one per core. Never more than there are groups of
    /// links.
    pub workers: usize,
    /// The run's clock.
    pub clock: WallClock,
    /// Root of the random streams.
    pub seed: u64,
    /// Run number: another value gives independent draws from the same seed.
    pub run: u64,
    /// How much workers may poll instead of sleep.
    pub spin: SpinPolicy,
    /// `SCHED_FIFO` priority (1–99) of the workers; `None` leaves the normal class.
    pub realtime_priority: Option<u8>,
    /// CPUs the workers are pinned to, worker *i* to entry *i* modulo the length; empty: no
    /// pinning.
    pub pin_to: Vec<usize>,
    /// How workers move frames to and from TAPs.
    pub io: IoChoice,
    /// Most bytes of frame buffers one worker holds. Beyond it, frames stay with the nodes'
    /// interfaces until others have left.
    pub memory_limit: usize,
    /// What is captured. Each worker with a captured link may use up to 48 MiB of buffers more,
    /// for frames that wait to be written; it does so only while writing is slow.
    pub captures: Vec<CaptureSpec>,
}

impl DataPlaneConfig {
    /// Best effort, one worker per core, default spinning, normal priority, seed 1 and run 0, no
    /// captures.
    pub fn new(clock: WallClock, links: Vec<LinkSpec>) -> Self {
        Self {
            links,
            devices: Vec::new(),
            sync: SyncPolicy::BestEffort,
            workers: 0,
            clock,
            seed: 1,
            run: 0,
            spin: SpinPolicy::default(),
            realtime_priority: None,
            pin_to: Vec::new(),
            io: IoChoice::default(),
            memory_limit: DEFAULT_MEMORY_LIMIT,
            captures: Vec::new(),
        }
    }
}

/// How workers move frames to and from TAPs.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum IoChoice {
    /// What is fastest where it was measured, among what the kernel offers.
    #[default]
    Auto,
    /// io_uring (Linux 6.7); a data plane with TAPs does not start without it.
    Uring,
    /// epoll, `read` and `write`.
    Epoll,
}

/// 64 MiB: 32 thousand full frames, a tenth of a second at the rate a core can forward.
const DEFAULT_MEMORY_LIMIT: usize = 64 << 20;

/// One link.
pub struct LinkSpec {
    /// The channel model and its parameters; `stations` is set to the number of endpoints.
    pub config: LinkConfig,
    /// What is attached, in the order of the stations.
    pub endpoints: Vec<EndpointSpec>,
}

/// One end of a link.
pub struct EndpointSpec {
    /// `node:interface`, for reports.
    pub name: String,
    /// What is attached.
    pub attachment: Attachment,
    /// The interface behind the port's, in the network namespace of whoever takes snapshots, from
    /// which something else (QEMU) reads: what it drops counts too.
    pub reader: Option<String>,
}

impl EndpointSpec {
    /// An end at which a node is attached through `port`.
    pub fn port(name: impl Into<String>, port: impl Port + 'static) -> Self {
        Self { name: name.into(), attachment: Attachment::Port(Box::new(port)), reader: None }
    }

    /// An end at an in-process device.
    pub fn device(name: impl Into<String>, device: usize) -> Self {
        Self { name: name.into(), attachment: Attachment::Device(device), reader: None }
    }

    /// The same, behind whose port something reads from the interface `name`.
    #[must_use]
    pub fn read_from(self, name: impl Into<String>) -> Self {
        Self { reader: Some(name.into()), ..self }
    }
}

/// What is attached to an end of a link.
pub enum Attachment {
    /// A node outside the emulator.
    Port(Box<dyn Port>),
    /// An in-process device: index into [`DataPlaneConfig::devices`]. Its ports are numbered in the
    /// order of links and endpoints.
    Device(usize),
}

/// An in-process device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeviceSpec {
    /// Name of the node, for reports.
    pub name: String,
    /// What it does.
    pub kind: DeviceKind,
}

/// The kinds of in-process device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DeviceKind {
    /// A learning bridge.
    Bridge(BridgeConfig),
    /// A repeater.
    Hub,
    /// A host or router, on which [`DataPlane::start_command`](crate::DataPlane::start_command)
    /// runs commands; its clock shows the date. Its interfaces stand in the order in which links and endpoints attach to it.
    Host(Box<HostConfig>),
    /// A source of frames on its one link, which begins with
    /// [`DataPlane::start_sources`](crate::DataPlane::start_sources).
    Source(Schedule),
}

impl DeviceSpec {
    /// Puts the device on these ports of a network.
    pub fn build(
        self,
        builder: &mut NetworkBuilder,
        ports: &[PortId],
    ) -> Result<DeviceId, BuildError> {
        match self.kind {
            DeviceKind::Bridge(config) => builder.configured_bridge(&config, ports),
            DeviceKind::Hub => builder.hub(ports),
            DeviceKind::Host(config) => builder.host(*config, ports),
            DeviceKind::Source(schedule) => match *ports {
                [port] => builder.waiting_source(self.name, schedule, port),
                _ => Err(BuildError::SourcePorts { node: self.name, ports: ports.len() }),
            },
        }
    }
}

/// A change to a running link.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Control {
    /// Frames pass again, and interfaces have their carrier.
    LinkUp,
    /// Frames on the link are lost, and so are frames offered from now on. Interfaces of TAPs that
    /// [show it](crate::TapPort::showing_carrier) and of in-process hosts lose their carrier.
    LinkDown,
    /// Another one-way propagation delay, for frames not yet on the wire.
    Delay(SimTime),
    /// Another rate, for frames whose transmission has not begun; `None` is unlimited.
    Rate(Option<tapestry_core::DataRate>),
    /// The node at this station is off or stands still (`true`: it takes part again): frames for it
    /// are counted as [`NodeDown`](crate::PortDrop::NodeDown). Means nothing at an in-process device.
    Node {
        /// The end of the link, in the order of its endpoints.
        station: u32,
        /// Whether frames reach it.
        listens: bool,
    },
    /// Other values for some properties, for frames not yet on the wire.
    Change(Box<LinkChange>),
}
