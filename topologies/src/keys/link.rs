//! The keys of links, which a link has besides those of each of its directions.

use super::impairment::{DIRECTION, PARAMETERS};
use super::{HOSTS, MTU, key, needed, one};
use crate::preset;
use crate::shape::{Key, Object, Scalar, Shape};

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
static STAR: Object = Object {
    what: "a star",
    keys: &[
        needed("center", one(Scalar::Hosts), "The node in the centre."),
        needed("leaves", HOSTS, "The nodes around it."),
    ],
};

/// Nodes of a tree.
static TREE: Object = Object {
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
static GRID: Object = Object {
    what: "a grid",
    keys: &[
        needed("nodes", HOSTS, "Nodes row by row."),
        needed("columns", one(Scalar::Integer { min: 1, max: 20_000 }), "Nodes in a row."),
    ],
};

/// A subnet for each link of a shape.
static SUBNETS4: Object = Object {
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
static SUBNETS6: Object = Object {
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
