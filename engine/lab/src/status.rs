//! What a living run says about itself when asked: the answer to [`Request::Status`].
//!
//! Purpose: one typed value for `tapestry top` and for programs that follow a run. All counts are
//! totals since the run began, so that whoever asks twice can compute rates ([`crate::rates`]) and
//! several can ask at once. Not included: frames in flight, and figures of nodes that still boot.
//!
//! [`Request::Status`]: crate::control::Request::Status

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use tapestry_models::Drops;
use tapestry_realtime::{EndpointReport, LinkReport, PortState, Snapshot};
use tapestry_topologies::resolved::{Node, Topology};

use crate::host::CpuTicks;
use crate::machine::Machine;
use crate::node::RunningNode;
use crate::nodes::Nodes;
use crate::usage::{self, Extent, Usage};
use crate::verdict::Verdict;

/// A run at one time.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Status {
    /// Name of the topology.
    pub name: String,
    /// Since the run began, ns.
    pub elapsed_ns: u64,
    /// How far it has come.
    pub progress: Progress,
    /// All nodes, in file order.
    pub nodes: Vec<NodeStatus>,
    /// Whether another program moves the frames, so that nothing is known of links and timing.
    pub foreign: bool,
    /// Links in file order; empty where nothing is known of them.
    pub links: Vec<LinkStatus>,
    /// Timing and unintended losses; absent before the lab is ready and where nothing is known.
    pub truth: Option<Truth>,
    /// CPU time of the whole machine.
    pub host: CpuTicks,
    /// The emulator's own process.
    pub emulator: Option<Usage>,
}

/// How far a run has come.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Progress {
    /// Whether all nodes are up.
    pub ready: bool,
    /// The task that runs now.
    pub task: Option<TaskStatus>,
    /// Tasks that have ended or were left out.
    pub tasks_done: usize,
    /// All tasks.
    pub tasks: usize,
    /// What has gone wrong, oldest first.
    pub errors: Vec<String>,
}

/// A task that runs.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TaskStatus {
    /// Its name.
    pub name: String,
    /// Its commands.
    pub commands: usize,
    /// Since its start, ns.
    pub elapsed_ns: u64,
    /// Longest time it may take, ns.
    pub timeout_ns: u64,
}

/// A node.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct NodeStatus {
    /// Its name.
    pub name: String,
    /// What it is made of.
    pub kind: String,
    /// Whether it is up.
    pub state: NodeState,
    /// What its processes used; absent for in-process nodes, and before it is up.
    pub usage: Option<Usage>,
}

/// Whether a node is up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum NodeState {
    /// Its shell is gone.
    Lost,
    /// It boots or is being configured.
    Starting,
    /// It is up.
    Ready,
}

impl NodeState {
    /// The word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Lost => "lost",
            Self::Starting => "starting",
            Self::Ready => "ready",
        }
    }
}

/// A link.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LinkStatus {
    /// Its name.
    pub name: String,
    /// Whether it is up.
    pub up: bool,
    /// 99th percentile of lateness of the worker it belongs to, ns; absent if the worker has ended.
    pub lateness_p99_ns: Option<u64>,
    /// Its ends, in file order.
    pub stations: Vec<StationStatus>,
}

/// One end of a link.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StationStatus {
    /// The node.
    pub node: String,
    /// Its interface.
    pub interface: String,
    /// Why frames do not pass between link and node, if they do not: `down` or `gone`.
    pub trouble: Option<String>,
    /// Frames it put on the wire completely.
    pub sent_frames: u64,
    /// Their bytes, without frame check sequence.
    pub sent_bytes: u64,
    /// Frames that reached it.
    pub received_frames: u64,
    /// Their bytes.
    pub received_bytes: u64,
    /// Frames waiting for the wire or on their way onto it.
    pub queued: u64,
    /// Frames that have left the queue, those that did not wait included.
    pub dequeued: u64,
    /// Sum of the times that those frames were in the queue, ns.
    pub sojourn_sum_ns: u64,
    /// Frames that left the link and wait for the node to take them.
    pub pending: u64,
    /// Frames that it sent and that were lost here, by reason; reasons without any are left out.
    pub lost_sending: Vec<Loss>,
    /// Frames that were on their way to it and were lost here.
    pub lost_receiving: Vec<Loss>,
}

/// Frames lost for one reason.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Loss {
    /// The reason, as `results.json` names it.
    pub reason: String,
    /// How many.
    pub frames: u64,
    /// Whether no model, node or user meant to lose them, so that the verdict gets worse.
    pub unintended: bool,
}

/// Frames that a node sent faster than the emulator reads: lost in its interface's queue.
pub const UNREAD: &str = "unread";
/// Frames for a virtual machine that QEMU did not read in time: lost in the queue of its interface.
pub const UNREAD_BY_QEMU: &str = "unread-by-qemu";

/// How far the run can be trusted so far, and the figures behind it; counted from when all nodes
/// were up.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Truth {
    /// What the verdict would be if the run ended now.
    pub verdict: Verdict,
    /// Median of lateness, ns.
    pub lateness_p50_ns: u64,
    /// 99th percentile, ns.
    pub lateness_p99_ns: u64,
    /// Largest, ns.
    pub lateness_max_ns: u64,
    /// The event that was latest.
    pub latest_event: Option<String>,
    /// Frames that nodes sent.
    pub offered: u64,
    /// Frames lost although no model meant it.
    pub unintended: u64,
}

/// The state of all nodes of a topology.
pub(crate) fn nodes(topology: &Topology, nodes: &Nodes) -> Vec<NodeStatus> {
    let up = nodes.running();
    let extents: Vec<Extent> = up
        .iter()
        .map(|node| match &node.machine {
            Machine::Qemu(guest) => Extent::Process(guest.pid()),
            Machine::Netns { init, .. } => Extent::Namespace(*init),
        })
        .collect();
    let usages = usage::of(&extents);
    let up: BTreeMap<&str, (&RunningNode, Option<Usage>)> =
        up.iter().zip(usages).map(|(node, used)| (node.name.as_str(), (&**node, used))).collect();
    let status = |(index, node): (usize, &Node)| {
        let running = up.get(node.name.as_str());
        let state = match running {
            Some((running, _)) if running.shell.0.lost().is_some() => NodeState::Lost,
            None if node.kind.is_external() => {
                if nodes.is_off(index) {
                    NodeState::Lost
                } else {
                    NodeState::Starting
                }
            }
            // In-process nodes are there with the data plane.
            _ => NodeState::Ready,
        };
        NodeStatus {
            name: node.name.clone(),
            kind: node.kind.as_str().to_owned(),
            state,
            usage: running.and_then(|(_, used)| *used),
        }
    };
    topology.nodes.iter().enumerate().map(status).collect()
}

/// The state of all links.
pub(crate) fn links(snapshot: &Snapshot) -> Vec<LinkStatus> {
    let late: BTreeMap<&str, u64> = snapshot
        .workers
        .iter()
        .flat_map(|worker| worker.links.iter().map(|link| (link.as_str(), worker.lateness.p99_ns)))
        .collect();
    let status = |link: &LinkReport| LinkStatus {
        name: link.name.clone(),
        up: link.up,
        lateness_p99_ns: late.get(link.name.as_str()).copied(),
        stations: link.endpoints.iter().map(station).collect(),
    };
    snapshot.links.iter().map(status).collect()
}

fn station(end: &EndpointReport) -> StationStatus {
    let (node, interface) = end.endpoint.split_once(':').unwrap_or((&end.endpoint, ""));
    let intended = |reason: &str, frames| Loss { reason: reason.into(), frames, unintended: false };
    let dropped = |drops: &Drops| -> Vec<Loss> {
        let some = drops.iter().filter(|(_, frames)| *frames > 0);
        some.map(|(reason, frames)| intended(reason.as_str(), frames)).collect()
    };
    let mut lost_sending = dropped(&end.station.tx_dropped);
    let mut lost_receiving = dropped(&end.station.rx_dropped);
    if let Some(port) = &end.port {
        lost_receiving.extend(port.counters.tx_drops.iter().map(|(reason, frames)| Loss {
            unintended: reason.is_unintended(),
            ..intended(reason.as_str(), frames)
        }));
        let unread = port.reader_drops.unwrap_or(0);
        if unread > 0 {
            lost_receiving.push(Loss { unintended: true, ..intended(UNREAD_BY_QEMU, unread) });
        }
        let unread = port.interface.as_ref().map_or(0, |interface| interface.send_drops);
        if unread > 0 {
            lost_sending.push(Loss { unintended: true, ..intended(UNREAD, unread) });
        }
    }
    let state = end.port.as_ref().map_or(PortState::Up, |port| port.state);
    StationStatus {
        node: node.to_owned(),
        interface: interface.to_owned(),
        trouble: match state {
            PortState::Up => None,
            PortState::Down => Some("down".to_owned()),
            PortState::Gone => Some("gone".to_owned()),
        },
        sent_frames: end.station.transmitted.frames,
        sent_bytes: end.station.transmitted.bytes,
        received_frames: end.station.delivered.frames,
        received_bytes: end.station.delivered.bytes,
        queued: end.backlog,
        dequeued: end.station.queue.dequeued,
        sojourn_sum_ns: end.station.queue.sojourn_sum_ns,
        pending: end.port.as_ref().map_or(0, |port| port.counters.tx_pending),
        lost_sending,
        lost_receiving,
    }
}

#[cfg(test)]
mod tests {
    use tapestry_models::{Counters, DropReason};
    use tapestry_realtime::{InterfaceCounters, PortCounters, PortDrop, PortReport};

    use super::*;

    #[test]
    fn a_station_counts_each_loss_once_and_knows_who_meant_it() {
        let mut counters = Counters::default();
        counters.tx_dropped[DropReason::QueueFull] = 2;
        counters.tx_dropped[DropReason::LinkDown] = 3;
        counters.rx_dropped[DropReason::LinkDown] = 4;
        counters.transmitted.frames = 9;
        let mut port = PortCounters { tx_pending: 6, ..PortCounters::default() };
        port.tx_drops.add(PortDrop::InterfaceDown, 5);
        port.tx_drops.add(PortDrop::Backpressure, 7);
        let interface = InterfaceCounters {
            name: "tap0".into(),
            sent: 100,
            without_carrier: 0,
            send_drops: 8,
            // The port has counted it already.
            receive_drops: 5,
        };
        let port = PortReport {
            name: "t0".into(),
            state: PortState::Down,
            counters: port,
            interface: Some(interface),
            reader_drops: Some(11),
        };
        let endpoint = "n0:eth1".into();
        let end = EndpointReport { endpoint, station: counters, backlog: 1, port: Some(port) };

        let status = station(&end);
        let of = |lost: &[Loss]| -> Vec<_> {
            lost.iter().map(|l| (l.reason.clone(), l.frames, l.unintended)).collect()
        };
        let words = |lost: &[(&str, u64, bool)]| -> Vec<_> {
            lost.iter().map(|&(reason, frames, bad)| (reason.to_owned(), frames, bad)).collect()
        };
        let sending = [("queue-full", 2, false), ("link-down", 3, false), (UNREAD, 8, true)];
        assert_eq!(of(&status.lost_sending), words(&sending));
        let receiving = [
            ("link-down", 4, false),
            ("interface-down", 5, false),
            ("backpressure", 7, true),
            (UNREAD_BY_QEMU, 11, true),
        ];
        assert_eq!(of(&status.lost_receiving), words(&receiving));
        assert_eq!((status.node.as_str(), status.interface.as_str()), ("n0", "eth1"));
        assert_eq!((status.queued, status.pending, status.sent_frames), (1, 6, 9));
        assert_eq!(status.trouble.as_deref(), Some("down"));

        let in_process = EndpointReport { port: None, ..end };
        let status = station(&in_process);
        assert_eq!((status.trouble, status.pending), (None, 0));
        assert_eq!((status.lost_sending.len(), status.lost_receiving.len()), (2, 1));
    }
}
