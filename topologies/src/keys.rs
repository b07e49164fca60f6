//! The keys of the topology file.
//!
//! Purpose: the tables that the structural check, the JSON Schema, the messages about unknown keys
//! and the test of `docs/topology.md` are made from. A new key is a new line here, its decoding,
//! and its line in the reference.

mod event;
mod impairment;
pub(crate) mod plan;
mod queue;

use crate::preset;
use crate::shape::{Key, Object, Scalar, Shape};
pub(crate) use event::{ACTIONS, EVENT, SET};
use impairment::PARAMETERS;
pub(crate) use impairment::{
    BITS, CELL_BYTES, COUNT as FRAMES, DIRECTION, LOSSES, MINIMUM_BYTES, OVERHEAD_BYTES, PLAIN,
};
pub(crate) use queue::QUEUE;

const fn key(name: &'static str, shape: Shape, doc: &'static str) -> Key {
    Key { name, shape, kinds: &[], required: false, doc }
}

const fn needed(name: &'static str, shape: Shape, doc: &'static str) -> Key {
    Key { name, shape, kinds: &[], required: true, doc }
}

const fn only(
    kinds: &'static [&'static str],
    name: &'static str,
    shape: Shape,
    doc: &'static str,
) -> Key {
    Key { name, shape, kinds, required: false, doc }
}

const fn one(scalar: Scalar) -> Shape {
    Shape::Scalar(scalar)
}

const TEXT: Shape = one(Scalar::Text);
const TEXTS: Shape = Shape::OneOrMany(Scalar::Text);
const BOOL: Shape = one(Scalar::Bool);
const TIME: Shape = one(Scalar::Time);
const IPV4S: Shape = Shape::OneOrMany(Scalar::Ipv4);
const IPV6S: Shape = Shape::OneOrMany(Scalar::Ipv6);
/// A host list, or a list of them.
const HOSTS: Shape = Shape::OneOrMany(Scalar::Hosts);
const EXPECT: Shape = Shape::OneOrMany(Scalar::Expression);
/// An Ethernet payload; 68 is the least IPv4 allows (RFC 791), 65,535 the most a length field holds.
pub(crate) const MTU_SCALAR: Scalar = Scalar::Integer { min: 68, max: 65_535 };
const MTU: Shape = one(MTU_SCALAR);

/// Node kinds, in the order of the reference.
pub(crate) const KINDS: &[&str] = &["qemu", "netns", "host", "bridge", "hub", "router", "source"];
const QEMU: &[&str] = &["qemu"];
/// Kinds with a kernel of their own or a share of the host's.
pub(crate) const SYSTEMS: &[&str] = &["qemu", "netns"];
/// Kinds that run commands.
pub(crate) const SHELLS: &[&str] = &["qemu", "netns", "host", "router"];
const BRIDGE_NODE: &[&str] = &["bridge"];
const SOURCE: &[&str] = &["source"];
/// Priority of a bridge (IEEE 802.1D-1998, 9.2.5).
pub(crate) const PRIORITY: Shape = one(Scalar::Integer { min: 0, max: 65_535 });
/// More frames than this in one source are a mistake, and would fill the memory.
pub(crate) const MAX_SOURCE_FRAMES: u64 = 1_000_000;
const COUNT: Shape = one(Scalar::Integer { min: 1, max: MAX_SOURCE_FRAMES.cast_signed() });
/// Below 1536 it would be a length (IEEE 802.3, 3.2.6).
const ETHERTYPE: Shape = one(Scalar::Integer { min: 1_536, max: 65_535 });
/// Kinds with network addresses.
pub(crate) const ADDRESSED: &[&str] = &["qemu", "netns", "host", "router"];

/// The whole file.
pub(crate) static TOP: Object = Object {
    what: "a topology",
    keys: &[
        key(
            "name",
            one(Scalar::Name),
            "Name of the topology; default: the file's name without its ending.",
        ),
        key("description", TEXT, "Free text for people."),
        key(
            "include",
            TEXTS,
            "Files, relative to this one, whose params, types, nodes, links, tasks, events, metrics and expectations come first.",
        ),
        key(
            "params",
            Shape::Map { keys: Scalar::Identifier, value: &one(Scalar::Any) },
            "Parameters and their defaults, which `--set` overrides.",
        ),
        key("sync", one(Scalar::Sync), "What the run does about lateness; default `best-effort`."),
        key(
            "seed",
            one(Scalar::Integer { min: 0, max: i64::MAX }),
            "Root of all random streams; default 1.",
        ),
        key("time_limit", TIME, "Longest time of the whole run, by its own clock; default none."),
        key("verdict", Shape::Object(&VERDICT), "When a run counts as degraded or invalid."),
        key(
            "types",
            Shape::Map { keys: Scalar::Name, value: &Shape::Object(&NODE) },
            "Node types: what many nodes share.",
        ),
        key(
            "nodes",
            Shape::Map { keys: Scalar::Hosts, value: &Shape::Object(&NODE) },
            "Nodes by name or host list.",
        ),
        key(
            "links",
            Shape::List(&Shape::Object(&LINK)),
            "Links, in the order in which they take interfaces.",
        ),
        key("tasks", Shape::List(&Shape::Object(&TASK)), "Tasks, in the order they run."),
        key("events", Shape::List(&Shape::Object(&EVENT)), "Changes while the lab runs."),
        key(
            "metrics",
            Shape::Map {
                keys: Scalar::Identifier,
                value: &Shape::Either(&[one(Scalar::Expression), Shape::Object(&DERIVED)]),
            },
            "Metrics computed from others after the last task.",
        ),
        key("expect", EXPECT, "Conditions checked after the last task."),
    ],
};

/// Limits on the run's own timing truth.
pub(crate) static VERDICT: Object = Object {
    what: "verdict thresholds",
    keys: &[
        key(
            "degraded_lateness_p99",
            TIME,
            "99th percentile of lateness above which a run is degraded; default 10ms.",
        ),
        key(
            "invalid_lateness_p99",
            TIME,
            "99th percentile of lateness above which a run is invalid; default 100ms.",
        ),
        key(
            "degraded_lateness_max",
            TIME,
            "Worst lateness above which a run is degraded; default 100ms.",
        ),
        key(
            "invalid_lateness_max",
            TIME,
            "Worst lateness above which a run is invalid; default 1s.",
        ),
        key(
            "degraded_unintended_loss",
            one(Scalar::Share),
            "Share of a link's frames lost unintendedly above which a run is degraded; default 0.",
        ),
        key(
            "invalid_unintended_loss",
            one(Scalar::Share),
            "Share of a link's frames lost unintendedly above which a run is invalid; default 0.001.",
        ),
        key(
            "degraded_steal",
            one(Scalar::Share),
            "Share of CPU time stolen by the hypervisor above which a run is degraded; default 0.1.",
        ),
    ],
};

/// A node or a node type.
pub(crate) static NODE: Object = Object {
    what: "a node",
    keys: &[
        key(
            "type",
            one(Scalar::Name),
            "Type whose keys apply where this node has none of its own.",
        ),
        key("kind", one(Scalar::Word(KINDS)), "What the node is made of; default qemu."),
        only(
            QEMU,
            "image",
            TEXT,
            "Image in the image cache; default debian, the one that `tapestry image build` makes.",
        ),
        only(QEMU, "memory", one(Scalar::Bytes), "Guest memory; default 256MiB."),
        only(QEMU, "vcpus", one(Scalar::Integer { min: 1, max: 255 }), "Virtual CPUs; default 1."),
        only(
            QEMU,
            "accel",
            one(Scalar::Word(&["auto", "kvm", "tcg"])),
            "Acceleration; default auto.",
        ),
        only(QEMU, "machine", TEXT, "QEMU machine type; default pc."),
        only(
            QEMU,
            "nic",
            one(Scalar::Word(&["virtio", "e1000", "e1000e", "rtl8139", "vmxnet3"])),
            "NIC model; default virtio.",
        ),
        only(
            QEMU,
            "attach",
            one(Scalar::Word(&["auto", "tap-bridge", "socket"])),
            "How the guest's NICs reach the emulator; default auto.",
        ),
        only(QEMU, "kernel_args", TEXT, "Words appended to the kernel command line."),
        only(QEMU, "extra_args", TEXTS, "Arguments appended to QEMU's command line as they are."),
        only(
            QEMU,
            "os",
            TEXT,
            "Operating system table used for login and set-up; default the image's own.",
        ),
        only(
            QEMU,
            "boot_timeout",
            TIME,
            "Longest time from QEMU's start to a usable shell; default 120s.",
        ),
        only(
            SHELLS,
            "hostname",
            one(Scalar::HostName),
            "Host name inside the node; default its name.",
        ),
        key(
            "interfaces",
            Shape::Map { keys: Scalar::Interface, value: &Shape::Object(&INTERFACE) },
            "Settings of interfaces that links attach.",
        ),
        only(
            ADDRESSED,
            "bridges",
            Shape::Map { keys: Scalar::Interface, value: &Shape::Object(&BRIDGE) },
            "Bridges made inside the node.",
        ),
        only(ADDRESSED, "routes", Shape::List(&Shape::Object(&ROUTE)), "Static routes."),
        only(
            ADDRESSED,
            "forwarding",
            BOOL,
            "Whether the node forwards packets; default false, true for a router.",
        ),
        only(
            SHELLS,
            "init",
            TEXTS,
            "Commands run in order after boot and configuration; each must exit 0.",
        ),
        only(
            BRIDGE_NODE,
            "stp",
            BOOL,
            "Whether the bridge runs the spanning tree protocol; default false.",
        ),
        only(
            BRIDGE_NODE,
            "priority",
            PRIORITY,
            "Priority in the spanning tree protocol, where the lowest becomes root; default 32768.",
        ),
        only(
            BRIDGE_NODE,
            "ageing",
            TIME,
            "An address not seen for longer than this is forgotten; default 300s.",
        ),
        only(
            SOURCE,
            "frames",
            Shape::List(&Shape::Object(&FRAME)),
            "Frames and the instants at which they are sent.",
        ),
        only(
            SOURCE,
            "pcap",
            TEXT,
            "Capture file (pcap or pcapng), relative to this one, whose frames are sent at its pace.",
        ),
        key("position", Shape::Position, "Place in metres."),
        only(
            SYSTEMS,
            "keep",
            TEXTS,
            "Files or directories in the node that are copied into the run directory at the end.",
        ),
    ],
};

/// What a source sends once or repeatedly.
pub(crate) static FRAME: Object = Object {
    what: "a frame",
    keys: &[
        key(
            "at",
            TIME,
            "When it is sent first, counted from when all nodes are ready; default 0ms.",
        ),
        key("every", TIME, "Time from one to the next."),
        key("count", COUNT, "How often it is sent; default 1."),
        key("hex", TEXT, "Its bytes in hexadecimal, without frame check sequence."),
        key("size", one(Scalar::Bytes), "Its length, in place of `hex`: header and zeros."),
        key("to", one(Scalar::Mac), "Destination of a frame with `size`; default broadcast."),
        key("from", one(Scalar::Mac), "Source of a frame with `size`; default the interface's."),
        key("ethertype", ETHERTYPE, "Type of a frame with `size`; default 34997 (0x88b5)."),
    ],
};

/// One interface of a node.
pub(crate) static INTERFACE: Object = Object {
    what: "an interface",
    keys: &[
        key(
            "mac",
            one(Scalar::Mac),
            "Hardware address; default one derived from the node's place in the file.",
        ),
        key("ipv4", IPV4S, "IPv4 addresses; default the next free one of the link's subnet."),
        key("ipv6", IPV6S, "IPv6 addresses; default the next free one of the link's subnet."),
        key("mtu", MTU, "Largest payload of a frame in bytes; default the link's."),
    ],
};

/// A bridge inside a node.
pub(crate) static BRIDGE: Object = Object {
    what: "a bridge",
    keys: &[
        needed("ports", Shape::OneOrMany(Scalar::Interface), "Interfaces that are its ports."),
        key("stp", BOOL, "Whether it runs the spanning tree protocol; default false."),
        key("ipv4", IPV4S, "IPv4 addresses of the bridge itself."),
        key("ipv6", IPV6S, "IPv6 addresses of the bridge itself."),
    ],
};

/// A static route.
pub(crate) static ROUTE: Object = Object {
    what: "a route",
    keys: &[
        needed("to", one(Scalar::Destination), "Destination, or `default`."),
        key("via", one(Scalar::Ip), "Next hop."),
        key("dev", one(Scalar::Interface), "Interface."),
    ],
};

/// The keys of [`LINK`] that say which nodes it joins; a link has exactly one.
pub(crate) const LINK_SHAPES: &[&str] =
    &["pair", "lan", "chain", "ring", "star", "tree", "grid", "mesh"];

/// One entry of `links`.
pub(crate) static LINK: Object = Object { what: "a link", keys: &LINK_KEYS };

/// What keys of a link look like that are a direction's: `a->b`.
pub(crate) fn is_direction(key: &str) -> bool {
    key.contains("->")
}

/// The two nodes of `a->b`.
pub(crate) fn direction(key: &str) -> Option<(&str, &str)> {
    let (from, to) = key.split_once("->")?;
    Some((from.trim(), to.trim()))
}

static LINK_KEYS: [Key; LINK_OWN + PARAMETERS.len()] = {
    let mut keys = [LINK_OWN_KEYS[0]; LINK_OWN + PARAMETERS.len()];
    let mut at = 0;
    while at < keys.len() {
        keys[at] = if at < LINK_OWN { LINK_OWN_KEYS[at] } else { PARAMETERS[at - LINK_OWN] };
        at += 1;
    }
    keys
};

/// How many keys only the link as a whole has.
const LINK_OWN: usize = 16;

static LINK_OWN_KEYS: [Key; LINK_OWN] = [
    key("name", one(Scalar::Name), "Name; default made from the nodes it joins."),
    key("pair", HOSTS, "Two endpoints."),
    key("lan", HOSTS, "All endpoints on one shared link."),
    key("chain", HOSTS, "A link between each endpoint and the next."),
    key("ring", HOSTS, "A chain whose last endpoint joins the first."),
    key("star", Shape::Object(&STAR), "A link from the centre to each leaf."),
    key("tree", Shape::Object(&TREE), "A link from each node to each of its children."),
    key("grid", Shape::Object(&GRID), "Links to the right and down, row by row."),
    key("mesh", HOSTS, "A link between any two nodes."),
    key(
        "channel",
        one(Scalar::Word(&["csma", "point-to-point"])),
        "Channel model; default csma, point-to-point for two endpoints with an impairment.",
    ),
    key(
        "preset",
        one(Scalar::Word(preset::NAMES)),
        "A kind of link whose keys apply where this link has none of its own.",
    ),
    key(
        "forward",
        Shape::Object(&DIRECTION),
        "What differs from the first to the second endpoint.",
    ),
    key(
        "backward",
        Shape::Object(&DIRECTION),
        "What differs from the second to the first endpoint.",
    ),
    key("mtu", MTU, "Largest payload of a frame in bytes; default 1500."),
    key(
        "ipv4",
        Shape::Either(&[one(Scalar::Ipv4), Shape::Object(&SUBNETS4)]),
        "Subnet from which interfaces without an address get one.",
    ),
    key(
        "ipv6",
        Shape::Either(&[one(Scalar::Ipv6), Shape::Object(&SUBNETS6)]),
        "The same for IPv6.",
    ),
];

/// Nodes of a star.
pub(crate) static STAR: Object = Object {
    what: "a star",
    keys: &[
        needed("center", one(Scalar::Hosts), "The node in the centre."),
        needed("leaves", HOSTS, "The nodes around it."),
    ],
};

/// Nodes of a tree.
pub(crate) static TREE: Object = Object {
    what: "a tree",
    keys: &[
        needed("nodes", HOSTS, "Nodes level by level; the first is the root."),
        key(
            "fanout",
            one(Scalar::Integer { min: 1, max: 20_000 }),
            "Children of each node; default 2.",
        ),
    ],
};

/// Nodes of a grid.
pub(crate) static GRID: Object = Object {
    what: "a grid",
    keys: &[
        needed("nodes", HOSTS, "Nodes row by row."),
        needed("columns", one(Scalar::Integer { min: 1, max: 20_000 }), "Nodes in a row."),
    ],
};

/// A subnet for each link of a shape.
pub(crate) static SUBNETS4: Object = Object {
    what: "subnets",
    keys: &[
        needed("from", one(Scalar::Ipv4), "Network that is divided."),
        needed(
            "per_link",
            one(Scalar::Integer { min: 1, max: 32 }),
            "Prefix length of each link's subnet.",
        ),
    ],
};

/// The same for IPv6.
pub(crate) static SUBNETS6: Object = Object {
    what: "subnets",
    keys: &[
        needed("from", one(Scalar::Ipv6), "Network that is divided."),
        needed(
            "per_link",
            one(Scalar::Integer { min: 1, max: 128 }),
            "Prefix length of each link's subnet.",
        ),
    ],
};

/// One entry of `tasks`.
pub(crate) static TASK: Object = Object {
    what: "a task",
    keys: &[
        needed("name", one(Scalar::Name), "Name."),
        key(
            "run",
            Shape::Map { keys: Scalar::Hosts, value: &RUN },
            "Commands by node; they start together.",
        ),
        key("timeout", TIME, "Longest time the task may take; default 60s."),
        key("stop", TEXTS, "Background commands ended when this task ends."),
        key(
            "metrics",
            Shape::Map {
                keys: Scalar::Identifier,
                value: &Shape::Either(&[one(Scalar::Regex), Shape::Object(&METRIC)]),
            },
            "Values taken from outputs when the task has ended.",
        ),
        key("expect", EXPECT, "Conditions checked when the task has ended."),
        key("when", one(Scalar::Expression), "Condition on which the task runs; default always."),
    ],
};

static RUN: Shape = Shape::Either(&[
    TEXT,
    Shape::Object(&COMMAND),
    Shape::List(&Shape::Either(&[TEXT, Shape::Object(&COMMAND)])),
]);

/// One command.
pub(crate) static COMMAND: Object = Object {
    what: "a command",
    keys: &[
        needed("command", TEXT, "Text handed to the node's shell."),
        key("name", one(Scalar::Name), "Name for metrics and `stop`; default the node's name."),
        key("timeout", TIME, "Longest time the command may take; default the task's."),
        key("status", one(Scalar::Status), "Exit status that counts as success; default 0."),
        key("background", BOOL, "Whether it goes on behind later tasks; default false."),
        key(
            "ready",
            one(Scalar::Regex),
            "The task waits until the background command's output matches.",
        ),
    ],
};

/// A metric taken from an output.
pub(crate) static METRIC: Object = Object {
    what: "a metric",
    keys: &[
        key(
            "from",
            one(Scalar::Name),
            "Command whose output is read; default the task's only one.",
        ),
        key(
            "regex",
            one(Scalar::Regex),
            "Pattern; the value is its group `value`, else its first group.",
        ),
        key("json", one(Scalar::Pointer), "Place in an output that is one JSON document."),
        key(
            "pick",
            one(Scalar::Word(&["first", "last", "sum", "mean", "min", "max", "count"])),
            "Which match of the pattern counts; default last.",
        ),
        key("unit", TEXT, "Unit for people and reports."),
        key(
            "default",
            one(Scalar::Number),
            "Value when nothing matches; default: that is an error.",
        ),
    ],
};

/// A metric computed from others.
pub(crate) static DERIVED: Object = Object {
    what: "a metric",
    keys: &[
        needed("value", one(Scalar::Expression), "The expression."),
        key("unit", TEXT, "Unit for people and reports."),
    ],
};
