//! Changes while a lab runs, as the topology file plans them.

use indexmap::IndexMap;
use serde::{Deserialize, Serialize};
use tapestry_core::SimTime;
use tapestry_core::link::ParameterChange;

use super::{LinkIndex, NodeIndex};

/// One entry of `events`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Event {
    /// From when `at` counts.
    pub from: Origin,
    /// How long after that it happens.
    pub at: SimTime,
    /// Expression that must be true. Without a task it is looked at whenever a task ends, until it
    /// is true for the first time; else when the task begins or ends.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub when: Option<String>,
    /// What happens, in this order.
    pub actions: Vec<Action>,
}

/// What an event's time counts from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Origin {
    /// The lab is ready; or, with a condition, it has become true.
    Lab,
    /// The task of this name starts.
    During(String),
    /// The task of this name has ended.
    After(String),
}

/// A change of one link or node, or of all links between groups of nodes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "action")]
pub enum Action {
    /// Other parameters.
    Set {
        /// The link.
        link: LinkIndex,
        /// What changes in each direction, as in [`Link::directions`](super::Link::directions).
        directions: Box<[ParameterChange; 2]>,
    },
    /// The link loses its carrier.
    Down {
        /// The link.
        link: LinkIndex,
    },
    /// The link gets its carrier back, unless a partition holds it down.
    Up {
        /// The link.
        link: LinkIndex,
    },
    /// The link goes down and up some times.
    Flap {
        /// The link.
        link: LinkIndex,
        /// How long it is down each time.
        down: SimTime,
        /// How long it is up in between.
        up: SimTime,
        /// How often it goes down.
        times: u32,
    },
    /// All links between nodes of different groups go down; nodes in none are a group, too.
    Partition {
        /// Nodes by name of their group.
        groups: IndexMap<String, Vec<NodeIndex>>,
    },
    /// Ends partitions.
    Heal {
        /// One group: between it and all others; several: between these; none: all.
        groups: Vec<String>,
    },
    /// A node stands still.
    Pause {
        /// The node.
        node: NodeIndex,
    },
    /// A node goes on.
    Resume {
        /// The node.
        node: NodeIndex,
    },
    /// A node ends as if its power failed.
    Kill {
        /// The node.
        node: NodeIndex,
    },
    /// A node starts anew, after it was killed if it was running.
    Restart {
        /// The node.
        node: NodeIndex,
    },
}
