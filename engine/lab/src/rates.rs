//! Two answers of a living run become rates: what `tapestry top` shows.
//!
//! Purpose: pure arithmetic between two [`Status`] values of one run. Where a counter went
//! backwards (a process of a node vanished without having been waited for) the rate is 0.

use std::collections::BTreeMap;

use crate::status::{LinkStatus, Loss, NodeState, StationStatus, Status};
use crate::usage::Usage;

/// What happened between two answers, and how things stood at the later one.
#[derive(Debug, Clone, PartialEq)]
pub struct Rates {
    /// One for each station of each link, in file order.
    pub directions: Vec<Direction>,
    /// The nodes, in file order.
    pub nodes: Vec<NodeRate>,
    /// Share (0–1) of the machine's CPU time that was used.
    pub host_cpu: f64,
    /// Share (0–1) of the machine's CPU time that the hypervisor gave to others.
    pub host_steal: f64,
    /// CPU time of the emulator's own process per second of time; 1 is a whole core.
    pub emulator_cpu: Option<f64>,
}

/// What one station sends on its link.
#[derive(Debug, Clone, PartialEq)]
pub struct Direction {
    /// The link.
    pub link: String,
    /// The sending node.
    pub from: String,
    /// The receiving node, on a link of two stations.
    pub to: Option<String>,
    /// Frames sent per second.
    pub frames_per_second: f64,
    /// Bits sent per second, without frame check sequences.
    pub bits_per_second: f64,
    /// Frames waiting now: for the wire, or for the receiving node to take them.
    pub queue: u64,
    /// Mean time in the queue of the frames that left it, ns; absent if none did.
    pub sojourn_mean_ns: Option<u64>,
    /// Frames lost on this way per second, for any reason.
    pub lost_per_second: f64,
    /// Frames lost on this way since the run began. On a link of more than two stations, whose
    /// receivers lose frames of any sender, they are those lost at this station on either way.
    pub lost: Vec<Loss>,
    /// 99th percentile of lateness of the link's worker, ns.
    pub lateness_p99_ns: Option<u64>,
    /// What keeps frames from passing.
    pub trouble: Option<String>,
}

impl Direction {
    /// Frames lost since the run began, for any reason.
    pub fn lost_frames(&self) -> u64 {
        self.lost.iter().map(|loss| loss.frames).sum()
    }

    /// Whether any of them makes the verdict worse.
    pub fn has_unintended_loss(&self) -> bool {
        self.lost.iter().any(|loss| loss.unintended)
    }
}

/// What a node used.
#[derive(Debug, Clone, PartialEq)]
pub struct NodeRate {
    /// The node.
    pub name: String,
    /// What it is made of.
    pub kind: String,
    /// Whether it is up.
    pub state: NodeState,
    /// CPU time per second of time; 1 is a whole core. Absent where its processes are not known.
    pub cpu: Option<f64>,
    /// Resident memory now, bytes.
    pub memory_bytes: Option<u64>,
    /// Frames per second that it sent, over all its interfaces.
    pub sent_per_second: f64,
    /// Frames per second that reached it.
    pub received_per_second: f64,
}

/// The rates between two answers of one run. Figures that `before` lacks give rates of 0.
pub fn rates(before: &Status, now: &Status) -> Rates {
    let seconds = now.elapsed_ns.saturating_sub(before.elapsed_ns) as f64 / 1e9;
    let per_second = |before: u64, now: u64| {
        if seconds > 0.0 { now.saturating_sub(before) as f64 / seconds } else { 0.0 }
    };
    let cpu = |before: Option<Usage>, now: Option<Usage>| {
        let now = now?.cpu_ns;
        Some(per_second(before.map_or(now, |before| before.cpu_ns), now) / 1e9)
    };

    let earlier: BTreeMap<_, &StationStatus> = before
        .links
        .iter()
        .flat_map(|link| link.stations.iter().map(|station| (key(link, station), station)))
        .collect();
    let mut directions = Vec::new();
    let mut traffic: BTreeMap<&str, (f64, f64)> = BTreeMap::new();
    for link in &now.links {
        for (index, station) in link.stations.iter().enumerate() {
            let was = earlier.get(&key(link, station)).copied().unwrap_or(station);
            let frames_per_second = per_second(was.sent_frames, station.sent_frames);
            let (sent, received) = traffic.entry(&station.node).or_default();
            *sent += frames_per_second;
            *received += per_second(was.received_frames, station.received_frames);
            let to = match &link.stations[..] {
                [a, b] => Some(if index == 0 { b } else { a }),
                _ => None,
            };
            let end = to.unwrap_or(station);
            let lost = lost(station, end);
            let end_was = earlier.get(&key(link, end)).copied().unwrap_or(end);
            let lost_before = total(&was.lost_sending) + total(&end_was.lost_receiving);
            let troubles = [Some(station), to].into_iter().flatten().filter_map(|station| {
                let state = station.trouble.as_ref()?;
                Some(format!("{}:{} {state}", station.node, station.interface))
            });
            let troubles: Vec<String> = troubles.collect();
            directions.push(Direction {
                link: link.name.clone(),
                from: station.node.clone(),
                to: to.map(|to| to.node.clone()),
                frames_per_second,
                bits_per_second: per_second(was.sent_bytes, station.sent_bytes) * 8.0,
                queue: station.queued + end.pending,
                sojourn_mean_ns: sojourn_mean_ns(was, station),
                lost_per_second: per_second(lost_before, total(&lost)),
                lost,
                lateness_p99_ns: link.lateness_p99_ns,
                trouble: if link.up {
                    (!troubles.is_empty()).then(|| troubles.join(", "))
                } else {
                    Some("link down".to_owned())
                },
            });
        }
    }

    let used: BTreeMap<&str, Option<Usage>> =
        before.nodes.iter().map(|node| (node.name.as_str(), node.usage)).collect();
    let nodes = now
        .nodes
        .iter()
        .map(|node| {
            let (sent, received) = traffic.get(node.name.as_str()).copied().unwrap_or_default();
            NodeRate {
                name: node.name.clone(),
                kind: node.kind.clone(),
                state: node.state,
                cpu: cpu(used.get(node.name.as_str()).copied().flatten(), node.usage),
                memory_bytes: node.usage.map(|usage| usage.memory_bytes),
                sent_per_second: sent,
                received_per_second: received,
            }
        })
        .collect();
    let (host_cpu, host_steal) = now.host.shares_since(before.host);
    let emulator_cpu = cpu(before.emulator, now.emulator);
    Rates { directions, nodes, host_cpu, host_steal, emulator_cpu }
}

/// Mean time in the queue of the frames that left it between two states of a station.
fn sojourn_mean_ns(was: &StationStatus, now: &StationStatus) -> Option<u64> {
    let time = now.sojourn_sum_ns.checked_sub(was.sojourn_sum_ns)?;
    time.checked_div(now.dequeued.checked_sub(was.dequeued)?)
}

/// What identifies a station in a run.
fn key<'a>(link: &'a LinkStatus, station: &'a StationStatus) -> (&'a str, &'a str, &'a str) {
    (&link.name, &station.node, &station.interface)
}

/// What was lost between two stations; a reason may befall a frame at both.
fn lost(from: &StationStatus, to: &StationStatus) -> Vec<Loss> {
    let mut lost = from.lost_sending.clone();
    for loss in &to.lost_receiving {
        match lost.iter_mut().find(|known| known.reason == loss.reason) {
            Some(known) => known.frames += loss.frames,
            None => lost.push(loss.clone()),
        }
    }
    lost
}

fn total(lost: &[Loss]) -> u64 {
    lost.iter().map(|loss| loss.frames).sum()
}

#[cfg(test)]
mod tests;
