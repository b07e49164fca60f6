//! Changes while a lab runs, as the topology file plans them.

use indexmap::IndexMap;
use serde::{Deserialize, Serialize};
use tapestry_core::SimTime;
use tapestry_core::link::{LinkParameters, ParameterChange};

use super::{Link, LinkIndex, NodeIndex, Queue};

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
        /// What becomes of it.
        change: Box<LinkChange>,
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

/// New values for some properties of a link; what is not named stays.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct LinkChange {
    /// What changes in each direction, as in [`Link::directions`](super::Link::directions).
    pub directions: [DirectionChange; 2],
    /// Largest payload of a frame, bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mtu: Option<u32>,
}

/// New values for some properties of one direction.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct DirectionChange {
    /// What is done to frames.
    #[serde(flatten)]
    pub parameters: ParameterChange,
    /// The sender's queue.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub queue: Option<Queue>,
}

/// What a link does to frames at some time of a run.
#[derive(Debug, Clone, PartialEq)]
pub struct LinkState {
    /// Of each direction.
    pub directions: [LinkParameters; 2],
    /// Largest payload of a frame, bytes.
    pub mtu: u32,
}

impl LinkState {
    /// With which a link starts.
    pub fn of(link: &Link) -> Self {
        let plain = || LinkParameters::new(link.rate, link.delay);
        let directions = link.directions.as_deref().cloned().unwrap_or_else(|| [plain(), plain()]);
        Self { directions, mtu: link.mtu }
    }

    /// What becomes of it.
    pub fn apply(&mut self, change: &LinkChange) {
        for (state, change) in self.directions.iter_mut().zip(&change.directions) {
            *state = change.parameters.applied_to(state);
        }
        self.mtu = change.mtu.unwrap_or(self.mtu);
    }
}
