//! What happened to the frames, counted per station.
//!
//! Every frame offered at a station is transmitted, dropped there, or still waiting; every copy
//! that a transmission sends on its way is delivered, dropped at the receiver, or still under way.

use std::ops::{Index, IndexMut};

use serde::ser::{Serialize, SerializeMap, Serializer};
use tapestry_core::SimTime;

/// Frames and their bytes (without frame check sequence and padding).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize)]
pub struct Count {
    /// Number of frames.
    pub frames: u64,
    /// Sum of their lengths in bytes.
    pub bytes: u64,
}

impl Count {
    pub(crate) fn add(&mut self, bytes: usize) {
        self.frames += 1;
        self.bytes += bytes as u64;
    }
}

/// The counters of one station: its transmitter and its receiver. On a point-to-point link the
/// transmitter's figures are those of one direction.
#[derive(Debug, Clone, PartialEq, Eq, Default, serde::Serialize)]
pub struct Counters {
    /// Frames handed to the station for transmission.
    pub offered: Count,
    /// Frames that the station put on the wire completely.
    pub transmitted: Count,
    /// Frames that the station received.
    pub delivered: Count,
    /// Times a transmission was put off because the medium was busy.
    pub backoffs: u64,
    /// The frames that went through the station's queue.
    pub queue: QueueCounters,
    /// What impairments did to frames that arrived.
    #[serde(skip_serializing_if = "Impaired::is_zero")]
    pub impaired: Impaired,
    /// Frames lost in the transmitter, by reason.
    pub tx_dropped: Drops,
    /// Frames lost before the receiver, by reason.
    pub rx_dropped: Drops,
}

/// What impairments did to frames other than losing them: on a point-to-point link counted at the
/// station that sent them, on CSMA at the one that received them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize)]
pub struct Impaired {
    /// Second copies that arrived.
    pub duplicated: u64,
    /// Frames with wrong bits; a frame and its copy count once.
    pub corrupted: u64,
    /// Frames that skipped the delay.
    pub reordered: u64,
    /// Frames with an ECN mark instead of a loss.
    pub marked: u64,
}

impl Impaired {
    fn is_zero(&self) -> bool {
        *self == Self::default()
    }
}

/// How long a station's queue became, and how long frames stayed in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct QueueCounters {
    /// Most frames that waited at once, the one in transmission not counted.
    pub longest_frames: u64,
    /// Most bytes that waited at once.
    pub longest_bytes: u64,
    /// Frames that left for the transmitter, those that did not wait included.
    pub dequeued: u64,
    /// Frames that the queue discipline marked "congestion experienced".
    pub marked: u64,
    /// Sum of the times that those frames waited, ns; saturates.
    pub sojourn_sum_ns: u64,
    /// The longest of those times, ns.
    pub sojourn_max_ns: u64,
}

impl QueueCounters {
    /// Mean time in the queue in ns over all frames that left it; `None` before the first.
    pub fn sojourn_mean_ns(&self) -> Option<u64> {
        self.sojourn_sum_ns.checked_div(self.dequeued)
    }

    pub(crate) fn enqueued(&mut self, frames: usize, bytes: u64) {
        self.longest_frames = self.longest_frames.max(frames as u64);
        self.longest_bytes = self.longest_bytes.max(bytes);
    }

    pub(crate) fn dequeued(&mut self, sojourn: SimTime) {
        let sojourn = sojourn.as_nanos();
        self.dequeued += 1;
        self.sojourn_sum_ns = self.sojourn_sum_ns.saturating_add(sojourn);
        self.sojourn_max_ns = self.sojourn_max_ns.max(sojourn);
    }
}

impl Serialize for QueueCounters {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("longest_frames", &self.longest_frames)?;
        map.serialize_entry("longest_bytes", &self.longest_bytes)?;
        map.serialize_entry("dequeued", &self.dequeued)?;
        map.serialize_entry("marked", &self.marked)?;
        map.serialize_entry("sojourn_mean_ns", &self.sojourn_mean_ns().unwrap_or_default())?;
        map.serialize_entry("sojourn_max_ns", &self.sojourn_max_ns)?;
        map.end()
    }
}

/// Why a model dropped a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum DropReason {
    /// The transmit queue was full.
    QueueFull,
    /// The queue discipline decided by chance to drop, before the queue was full.
    EarlyDrop,
    /// The frame had been in the queue for too long.
    TargetExceeded,
    /// The payload exceeds the link's MTU.
    TooLong,
    /// The frame is shorter than an Ethernet header.
    TooShort,
    /// The medium stayed busy through all back-off retries.
    BackoffRetriesExceeded,
    /// The link was down, or went down while the frame was on it.
    LinkDown,
    /// The link's loss model chose the frame.
    Loss,
    /// The in-process node that should receive it was off or stood still.
    NodeDown,
}

impl DropReason {
    /// All reasons, in the order in which they are listed.
    pub const ALL: [Self; 9] = [
        Self::QueueFull,
        Self::EarlyDrop,
        Self::TargetExceeded,
        Self::TooLong,
        Self::TooShort,
        Self::BackoffRetriesExceeded,
        Self::LinkDown,
        Self::Loss,
        Self::NodeDown,
    ];

    /// The reason as results name it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::QueueFull => "queue-full",
            Self::EarlyDrop => "early-drop",
            Self::TargetExceeded => "target-exceeded",
            Self::TooLong => "too-long",
            Self::TooShort => "too-short",
            Self::BackoffRetriesExceeded => "backoff-retries-exceeded",
            Self::LinkDown => "link-down",
            Self::Loss => "loss",
            Self::NodeDown => "node-down",
        }
    }
}

/// Dropped frames by reason. Serialises as a map of the reasons that occurred.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Drops([u64; DropReason::ALL.len()]);

impl Drops {
    /// Dropped frames, whatever the reason.
    pub fn total(&self) -> u64 {
        self.0.iter().sum()
    }

    /// Every reason with its number of frames, zeros included.
    pub fn iter(&self) -> impl Iterator<Item = (DropReason, u64)> + '_ {
        DropReason::ALL.into_iter().map(|reason| (reason, self[reason]))
    }
}

impl Index<DropReason> for Drops {
    type Output = u64;

    fn index(&self, reason: DropReason) -> &u64 {
        &self.0[reason as usize]
    }
}

impl IndexMut<DropReason> for Drops {
    fn index_mut(&mut self, reason: DropReason) -> &mut u64 {
        &mut self.0[reason as usize]
    }
}

impl Serialize for Drops {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        for (reason, frames) in self.iter().filter(|&(_, frames)| frames > 0) {
            map.serialize_entry(reason.as_str(), &frames)?;
        }
        map.end()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_has_its_own_place() {
        let mut drops = Drops::default();
        for (i, reason) in DropReason::ALL.into_iter().enumerate() {
            drops[reason] += 1 << i;
        }
        assert_eq!(drops.total(), (1 << DropReason::ALL.len()) - 1);
        assert!(drops.iter().enumerate().all(|(i, (_, frames))| frames == 1 << i));
    }

    #[test]
    fn results_list_the_reasons_that_occurred() {
        let mut counters = Counters::default();
        counters.tx_dropped[DropReason::QueueFull] = 3;
        counters.offered.add(60);
        let json = serde_json::to_value(&counters).unwrap();
        assert_eq!(json["tx_dropped"], serde_json::json!({ "queue-full": 3 }));
        assert_eq!(json["offered"], serde_json::json!({ "frames": 1, "bytes": 60 }));
    }
}
