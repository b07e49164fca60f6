//! The keys of changes while a lab runs.

use super::impairment::PARAMETERS;
use super::{HOSTS, MTU, TEXTS, TIME, key, needed, one};
use crate::shape::{Key, Object, Scalar, Shape};

/// The keys of [`EVENT`] that say what happens; an event has exactly one.
pub(crate) const ACTIONS: &[&str] =
    &["set", "down", "up", "flap", "partition", "heal", "pause", "resume", "kill", "restart"];

/// One entry of `events`.
pub(crate) static EVENT: Object = Object {
    what: "an event",
    keys: &[
        key("at", TIME, "Time at which it happens; default 0s."),
        key("during", one(Scalar::Name), "Task from whose start `at` counts."),
        key("after", one(Scalar::Name), "Task from whose end `at` counts."),
        key("when", one(Scalar::Expression), "Condition on metrics under which it happens."),
        key("link", TEXTS, "Links that `set` changes."),
        key("set", Shape::Object(&SET), "Other parameters for links; the rest stays as it is."),
        key("down", TEXTS, "Links that lose their carrier."),
        key("up", TEXTS, "Links that get their carrier back."),
        key("flap", Shape::Object(&FLAP), "Links that go down and up some times."),
        key(
            "partition",
            Shape::Map { keys: Scalar::Name, value: &HOSTS },
            "Groups of nodes between which all links go down.",
        ),
        key("heal", Shape::OneOrMany(Scalar::Name), "Groups that are joined again, or `all`."),
        key("pause", HOSTS, "Nodes that stand still."),
        key("resume", HOSTS, "Nodes that go on."),
        key("kill", HOSTS, "Nodes that end as if their power failed."),
        key("restart", HOSTS, "Nodes that start anew."),
    ],
};

/// Parameters for a link's directions.
pub(crate) static SET: Object = Object { what: "a set of parameters", keys: &SET_KEYS };

const OWN_MTU: Key =
    key("mtu", MTU, "Largest payload of a frame in bytes; at most the one it starts with.");

static SET_KEYS: [Key; PARAMETERS.len() + 3] = with_parameters([
    key("forward", Shape::Object(&super::DIRECTION), "From first to second endpoint."),
    key("backward", Shape::Object(&super::DIRECTION), "From second to first endpoint."),
    OWN_MTU,
]);

/// All of [`PARAMETERS`], then `more`.
const fn with_parameters<const MORE: usize, const ALL: usize>(more: [Key; MORE]) -> [Key; ALL] {
    let mut keys = [PARAMETERS[0]; ALL];
    let mut at = 0;
    while at < ALL {
        keys[at] = if at < PARAMETERS.len() { PARAMETERS[at] } else { more[at - PARAMETERS.len()] };
        at += 1;
    }
    keys
}

static FLAP: Object = Object {
    what: "a flap",
    keys: &[
        needed("link", TEXTS, "The links."),
        needed("down", TIME, "How long they are down each time."),
        needed("up", TIME, "How long they are up in between."),
        key(
            "times",
            one(Scalar::Integer { min: 1, max: 100_000 }),
            "How often they go down; default 1.",
        ),
    ],
};
