//! The keys of nodes.

use super::{BOOL, IPV4S, IPV6S, MTU, TEXT, TEXTS, TIME, key, needed, one, only};
use crate::shape::{Object, Scalar, Shape};

/// Node kinds, in the order of the reference.
pub(crate) const KINDS: &[&str] = &["qemu", "netns", "host", "bridge", "hub", "router", "source"];
const QEMU: &[&str] = &["qemu"];
/// Kinds with a kernel of their own or a share of the host's.
const SYSTEMS: &[&str] = &["qemu", "netns"];
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
