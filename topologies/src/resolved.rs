//! The resolved topology: what every other room reads.
//!
//! Purpose: a topology file after parameters, expressions, ranges, types and includes have been
//! applied and every reference has been checked. Nothing here can be wrong any more: names are
//! unique, indices are in range, addresses are parsed (parse, don't validate). It serialises into
//! `manifest.json`, so a run can be repeated from its directory alone.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::PathBuf;

mod device;
mod events;
mod queue;

use indexmap::IndexMap;
use serde::{Deserialize, Serialize};
use tapestry_core::link::LinkParameters;
use tapestry_core::{ByteCount, DataRate, SimTime, SyncPolicy};

pub use device::{BridgeSettings, FrameBytes, Source, SourceFrame};
pub use events::{Action, DirectionChange, Event, LinkChange, LinkState, Origin};
pub use queue::{Codel, FqCodel, Pie, Queue, QueueClass, QueueLimit, Red, RedUnit};

/// Index into [`Topology::nodes`].
pub type NodeIndex = usize;
/// Index into [`Topology::links`].
pub type LinkIndex = usize;

/// A whole topology, ready to be assembled into a lab.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Topology {
    /// Name of the topology; also the stem of the run directory.
    pub name: String,
    /// Free text for people.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub description: String,
    /// Parameters after defaults and `--set`, in file order.
    pub params: IndexMap<String, serde_json::Value>,
    /// What the run does about lateness.
    pub sync: SyncPolicy,
    /// Root of all random streams.
    pub seed: u64,
    /// Longest time a whole run may take, if bounded; virtual time in a simulation.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub time_limit: Option<SimTime>,
    /// When a run counts as degraded or invalid.
    pub verdict: VerdictThresholds,
    /// Nodes in file order.
    pub nodes: Vec<Node>,
    /// Links in file order.
    pub links: Vec<Link>,
    /// Tasks in the order they run.
    pub tasks: Vec<Task>,
    /// Changes while the lab runs, in file order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub events: Vec<Event>,
    /// Derived metrics, evaluated after the last task, in file order.
    pub metrics: IndexMap<String, DerivedMetric>,
    /// Expectations over all metrics, checked after the last task.
    pub expect: Vec<Expectation>,
}

/// Limits on the run's own timing truth (see `docs/architecture.md`, "Time and its truth").
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct VerdictThresholds {
    /// 99th percentile of lateness above which a run is degraded.
    pub degraded_lateness_p99: SimTime,
    /// 99th percentile of lateness above which a run is invalid.
    pub invalid_lateness_p99: SimTime,
    /// Worst lateness above which a run is degraded.
    #[serde(default = "VerdictThresholds::degraded_lateness_max")]
    pub degraded_lateness_max: SimTime,
    /// Worst lateness above which a run is invalid.
    #[serde(default = "VerdictThresholds::invalid_lateness_max")]
    pub invalid_lateness_max: SimTime,
    /// Share (0–1) of a link's frames lost unintendedly above which a run is degraded.
    pub degraded_unintended_loss: f64,
    /// Share (0–1) of a link's frames lost unintendedly above which a run is invalid.
    pub invalid_unintended_loss: f64,
    /// Share (0–1) of CPU time stolen by the hypervisor above which a run is degraded.
    pub degraded_steal: f64,
}

impl VerdictThresholds {
    const fn degraded_lateness_max() -> SimTime {
        SimTime::from_millis(100)
    }

    const fn invalid_lateness_max() -> SimTime {
        SimTime::from_secs(1)
    }
}

impl Default for VerdictThresholds {
    fn default() -> Self {
        Self {
            degraded_lateness_p99: SimTime::from_millis(10),
            invalid_lateness_p99: SimTime::from_millis(100),
            degraded_lateness_max: Self::degraded_lateness_max(),
            invalid_lateness_max: Self::invalid_lateness_max(),
            degraded_unintended_loss: 0.0,
            invalid_unintended_loss: 0.001,
            degraded_steal: 0.10,
        }
    }
}

/// One node.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Node {
    /// Unique name; `[a-z0-9][a-z0-9-]*`, at most 63 bytes, so that it is a host name too.
    pub name: String,
    /// What the node is made of.
    pub kind: NodeKind,
    /// Host name inside the node (the node's name unless the file says otherwise).
    pub hostname: String,
    /// Interfaces in order `eth0`, `eth1`, … (the order of attachment unless named).
    pub interfaces: Vec<Interface>,
    /// Bridges made inside the node.
    pub bridges: Vec<Bridge>,
    /// Static routes installed in the node.
    pub routes: Vec<Route>,
    /// Whether the node forwards IPv4 and IPv6 packets between its interfaces.
    pub forwarding: bool,
    /// Commands run after boot and configuration, in order, each must exit 0.
    pub init: Vec<String>,
    /// Position for `graph` and models, in metres (x, y, z), if given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub position: Option<[f64; 3]>,
    /// Paths in the node copied into the run directory at the end.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub keep: Vec<PathBuf>,
}

/// What a node is made of.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum NodeKind {
    /// A QEMU virtual machine.
    Qemu(Qemu),
    /// A Linux network namespace with a private view of the host's file system.
    Netns,
    /// An in-process host (smoltcp).
    Host,
    /// An in-process learning bridge.
    Bridge(BridgeSettings),
    /// An in-process repeater.
    Hub,
    /// An in-process router.
    Router,
    /// An in-process source of frames.
    Source(Source),
}

impl NodeKind {
    /// Whether the node lives by the wall clock, outside of the emulator's process.
    pub fn is_external(&self) -> bool {
        matches!(self, Self::Qemu(_) | Self::Netns)
    }

    /// The word the topology file uses for this kind.
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Qemu(_) => "qemu",
            Self::Netns => "netns",
            Self::Host => "host",
            Self::Bridge(_) => "bridge",
            Self::Hub => "hub",
            Self::Router => "router",
            Self::Source(_) => "source",
        }
    }
}

/// A QEMU virtual machine's settings.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Qemu {
    /// Name of an image in the image cache (`tapestry image list`).
    pub image: String,
    /// Guest memory.
    pub memory: ByteCount,
    /// Virtual CPUs, at least 1.
    pub vcpus: u32,
    /// Acceleration.
    pub accel: Accel,
    /// QEMU machine type (`pc`, `q35`, `microvm`).
    pub machine: String,
    /// NIC model given to QEMU's `-device`.
    pub nic: NicModel,
    /// How the guest's NICs reach the emulator.
    pub attach: Attach,
    /// Kernel command line words appended to the image's own.
    pub kernel_args: String,
    /// Arguments appended to QEMU's command line as they are.
    pub extra_args: Vec<String>,
    /// Operating system table used for login and set-up (`tapestry-guests`, `os.rs`); empty: the
    /// image's own.
    pub os: String,
    /// Longest time from QEMU's start to a usable shell.
    pub boot_timeout: SimTime,
}

/// QEMU acceleration.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Accel {
    /// KVM where it really works, else TCG.
    Auto,
    /// KVM or an error that says why not.
    Kvm,
    /// QEMU's software translation.
    Tcg,
}

/// NIC model of a QEMU guest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum NicModel {
    /// virtio-net on PCI (the default).
    Virtio,
    /// Intel 82540EM.
    E1000,
    /// Intel 82574L.
    E1000e,
    /// Realtek 8139.
    Rtl8139,
    /// `VMware`'s `vmxnet3`.
    Vmxnet3,
}

/// How a QEMU guest's NICs reach the emulator.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Attach {
    /// `TapBridge` where `/dev/net/tun` opens, else `Socket`.
    Auto,
    /// QEMU's TAP and ours, joined by a kernel bridge in the lab's namespace.
    TapBridge,
    /// A datagram socketpair: no TAP, no privilege.
    Socket,
}

/// One end of a link at a node.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Interface {
    /// Name inside the node, for example `eth0`; at most 15 bytes.
    pub name: String,
    /// The link it is attached to.
    pub link: LinkIndex,
    /// Position among the link's endpoints.
    pub endpoint: usize,
    /// Hardware address, unique in the topology.
    pub mac: MacAddr,
    /// IPv4 addresses with prefix length.
    pub ipv4: Vec<Ipv4Net>,
    /// IPv6 addresses with prefix length.
    pub ipv6: Vec<Ipv6Net>,
    /// Maximum transmission unit (payload bytes of a frame).
    pub mtu: u32,
}

/// A bridge inside a node.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Bridge {
    /// Name inside the node, for example `br0`.
    pub name: String,
    /// Names of the node's interfaces that are its ports.
    pub ports: Vec<String>,
    /// Whether it runs the spanning tree protocol.
    pub stp: bool,
    /// IPv4 addresses of the bridge interface.
    pub ipv4: Vec<Ipv4Net>,
    /// IPv6 addresses of the bridge interface.
    pub ipv6: Vec<Ipv6Net>,
}

/// A static route.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Route {
    /// Destination; `0.0.0.0/0` or `::/0` for a default route.
    pub to: IpNet,
    /// Next hop; absent for an on-link route.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub via: Option<IpAddr>,
    /// Interface; absent where the kernel finds it from `via`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dev: Option<String>,
}

/// One link (channel) and the interfaces on it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Link {
    /// Unique name.
    pub name: String,
    /// The channel model.
    pub channel: Channel,
    /// Transmission rate, the first direction's; absent means unlimited (serialisation takes no
    /// time).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rate: Option<DataRate>,
    /// One-way propagation delay, the first direction's.
    pub delay: SimTime,
    /// Each interface's transmit queue, behind the frame in transmission.
    pub queue: Queue,
    /// The first and the second interface's queue, where they differ.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub queues: Option<Box<[Queue; 2]>>,
    /// Largest payload of a frame in bytes.
    pub mtu: u32,
    /// What each direction does to frames (first what the first endpoint sends), where it is more
    /// than the rate and the delay above.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub directions: Option<Box<[LinkParameters; 2]>>,
    /// The interfaces on this link, in order.
    pub endpoints: Vec<Endpoint>,
}

/// The channel model of a link.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Channel {
    /// Shared half-duplex medium, any number of stations (ns-3's CSMA).
    Csma,
    /// Full-duplex link between exactly two interfaces.
    PointToPoint,
}

/// A link's reference to a node's interface.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Endpoint {
    /// The node.
    pub node: NodeIndex,
    /// Index into the node's `interfaces`.
    pub interface: usize,
}

/// Commands that start together; ends when the last of them ends.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Task {
    /// Unique name.
    pub name: String,
    /// Commands in file order. At most one foreground command per node.
    pub commands: Vec<Command>,
    /// Longest time the task may take.
    pub timeout: SimTime,
    /// Names of background commands (of this or earlier tasks) ended when this task ends.
    pub stop: Vec<String>,
    /// Metrics taken from outputs when the task has ended, in file order.
    pub metrics: IndexMap<String, Metric>,
    /// Expectations over the metrics known when the task has ended.
    pub expect: Vec<Expectation>,
    /// Expression that must be true for the task to run; absent means always.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub when: Option<String>,
}

/// One command on one node.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Command {
    /// Unique in the task: the node's name, or what the file says.
    pub name: String,
    /// The node.
    pub node: NodeIndex,
    /// Text handed to the node's shell.
    pub text: String,
    /// Whether it goes on behind later tasks until stopped or the run ends.
    pub background: bool,
    /// For a background command: the task waits until its output matches this expression.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ready: Option<String>,
    /// Longest time this command may take (foreground only); absent: the task's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout: Option<SimTime>,
    /// Exit status that counts as success; absent means any.
    pub expect_status: Option<u8>,
}

/// A value taken from a command's output.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Metric {
    /// Name of the command in this task, or of a background command stopped by it.
    pub from: String,
    /// How the value is found.
    pub take: Take,
    /// Unit for people and reports, for example `packets/s`; empty for a bare number.
    pub unit: String,
    /// Value when nothing matches; absent means that is an error.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub default: Option<f64>,
}

/// How a metric's value is found in an output.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Take {
    /// Regular expression and which match counts; the value is the group `value`, else group 1.
    Regex {
        /// The pattern (crate `regex`, multi-line mode on).
        pattern: String,
        /// Which match: the first, the last, or an aggregate over all.
        pick: Pick,
    },
    /// JSON pointer (RFC 6901) into an output that is one JSON document.
    JsonPointer(String),
}

/// Which of several matches makes the value.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Pick {
    /// The first match.
    First,
    /// The last match (default: programs print their summary last).
    Last,
    /// The sum of all matches.
    Sum,
    /// The mean of all matches.
    Mean,
    /// The smallest match.
    Min,
    /// The largest match.
    Max,
    /// How many matches there are.
    Count,
}

/// A metric computed from others.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DerivedMetric {
    /// Expression over metrics and parameters, without `${}`.
    pub expression: String,
    /// Unit for people and reports.
    pub unit: String,
}

/// A condition on metrics.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Expectation {
    /// Boolean expression over metrics and parameters, without `${}`.
    pub expression: String,
}

/// A 48-bit hardware address.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct MacAddr(pub [u8; 6]);

/// An IPv4 address with the length of its network prefix.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Ipv4Net {
    /// The address (host bits kept).
    pub address: Ipv4Addr,
    /// Prefix length, 0–32.
    pub prefix: u8,
}

/// An IPv6 address with the length of its network prefix.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Ipv6Net {
    /// The address (host bits kept).
    pub address: Ipv6Addr,
    /// Prefix length, 0–128.
    pub prefix: u8,
}

/// A prefix of either family.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct IpNet {
    /// The address (host bits kept).
    pub address: IpAddr,
    /// Prefix length, 0–32 or 0–128.
    pub prefix: u8,
}

impl Topology {
    /// The endpoint names of a link as `node:interface`, in order.
    pub fn endpoint_names(&self, link: LinkIndex) -> Vec<String> {
        self.links[link]
            .endpoints
            .iter()
            .map(|e| {
                let node = &self.nodes[e.node];
                format!("{}:{}", node.name, node.interfaces[e.interface].name)
            })
            .collect()
    }

    /// Nodes by kind word, for summaries: `{"qemu": 3}`.
    pub fn count_by_kind(&self) -> BTreeMap<&'static str, usize> {
        let mut count = BTreeMap::new();
        for node in &self.nodes {
            *count.entry(node.kind.as_str()).or_default() += 1;
        }
        count
    }
}
