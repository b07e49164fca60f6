//! From actions to what is done to single links and nodes.
//!
//! Purpose: a link may be held down by its own `down` and by several partitions; it is up again
//! when none of them holds it.

use std::collections::BTreeSet;

use indexmap::IndexMap;
use tapestry_models::DeviceChange;
use tapestry_topologies::resolved::{Action, LinkChange, LinkIndex, NodeIndex, Topology};

/// What is done to one link or node.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Effect {
    Set {
        link: LinkIndex,
        change: Box<LinkChange>,
    },
    Carrier {
        link: LinkIndex,
        up: bool,
    },
    Node {
        node: NodeIndex,
        change: DeviceChange,
    },
    /// Groups of nodes are parted; the links that go down for it follow.
    Partition {
        groups: IndexMap<String, Vec<NodeIndex>>,
    },
    /// Partitions end; the links that come up for it follow. No group: all.
    Heal {
        groups: Vec<String>,
    },
}

/// Why links are down.
#[derive(Debug, Default)]
pub(crate) struct Holds {
    down: BTreeSet<LinkIndex>,
    cuts: Vec<(LinkIndex, [String; 2])>,
}

/// The group of nodes that a partition does not name.
const OTHERS: &str = "";

impl Holds {
    /// Whether something holds a link down.
    pub(crate) fn is_down(&self, link: LinkIndex) -> bool {
        self.down.contains(&link) || self.cuts.iter().any(|(cut, _)| *cut == link)
    }

    /// What an action does now; links that are so already are left alone.
    pub(crate) fn effects(&mut self, topology: &Topology, action: &Action) -> Vec<Effect> {
        let node = |node: &NodeIndex, change| vec![Effect::Node { node: *node, change }];
        let touched = match action {
            Action::Set { link, change } => {
                return vec![Effect::Set { link: *link, change: change.clone() }];
            }
            Action::Pause { node: at } => return node(at, DeviceChange::Pause),
            Action::Resume { node: at } => return node(at, DeviceChange::Resume),
            Action::Kill { node: at } => return node(at, DeviceChange::Kill),
            Action::Restart { node: at } => return node(at, DeviceChange::Restart),
            Action::Down { link } | Action::Up { link } | Action::Flap { link, .. } => vec![*link],
            Action::Partition { .. } | Action::Heal { .. } => {
                (0..topology.links.len()).collect::<Vec<_>>()
            }
        };
        let before: Vec<bool> = touched.iter().map(|&link| self.is_down(link)).collect();
        match action {
            Action::Up { link } => {
                self.down.remove(link);
            }
            Action::Partition { groups } => {
                let group_of = |node: NodeIndex| {
                    let found = groups.iter().find(|(_, nodes)| nodes.contains(&node));
                    found.map_or(OTHERS, |(name, _)| name.as_str()).to_owned()
                };
                for (link, ends) in topology.links.iter().map(|link| &link.endpoints).enumerate() {
                    if let [a, b] = ends.as_slice() {
                        let groups = [group_of(a.node), group_of(b.node)];
                        if groups[0] != groups[1] {
                            self.cuts.push((link, groups));
                        }
                    }
                }
            }
            Action::Heal { groups } => self.cuts.retain(|(_, between)| match groups.as_slice() {
                [] => false,
                [one] => !between.contains(one),
                several => !between.iter().all(|group| several.contains(group)),
            }),
            Action::Down { link } | Action::Flap { link, .. } => {
                self.down.insert(*link);
            }
            _ => {}
        }
        let announced = match action {
            Action::Partition { groups } => Some(Effect::Partition { groups: groups.clone() }),
            Action::Heal { groups } => Some(Effect::Heal { groups: groups.clone() }),
            _ => None,
        };
        let changed = touched.iter().zip(before).filter(|(link, was)| self.is_down(**link) != *was);
        let carriers = changed.map(|(&link, was_down)| Effect::Carrier { link, up: was_down });
        announced.into_iter().chain(carriers).collect()
    }
}
