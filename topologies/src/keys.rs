//! The keys of the topology file.
//!
//! Purpose: the tables that the structural check, the JSON Schema, the messages about unknown keys
//! and the test of `docs/topology.md` are made from. A new key is a new line here, its decoding,
//! and its line in the reference.

mod event;
mod impairment;
mod link;
mod node;
pub(crate) mod plan;
mod queue;

use crate::shape::{Key, Object, Scalar, Shape};
pub(crate) use event::{ACTIONS, EVENT, SET};
pub(crate) use impairment::{
    BITS, CELL_BYTES, COUNT as FRAMES, DIRECTION, LOSSES, MINIMUM_BYTES, OVERHEAD_BYTES, PLAIN,
};
pub(crate) use link::{LINK, LINK_SHAPES, direction, is_direction};
pub(crate) use node::{
    ADDRESSED, FRAME, INTERFACE, KINDS, MAX_SOURCE_FRAMES, NODE, PRIORITY, SHELLS,
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
