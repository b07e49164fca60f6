//! What a port counted.
//!
//! Purpose: every frame that crosses the border of the emulator appears here exactly once. Towards
//! the link: all `rx_frames` are offered to the link, which itself refuses malformed ones. Towards
//! the node: `delivered by the link = tx_frames + tx_drops + tx_pending`.

use std::ops::AddAssign;

use serde::ser::SerializeMap;
use serde::{Serialize, Serializer};
use tapestry_models::Frame;

/// Why a frame that left a link did not reach the node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum PortDrop {
    /// The node's interface is administratively down.
    InterfaceDown,
    /// The node's interface was deleted, or the guest's end of the socket was closed.
    InterfaceGone,
    /// The node did not take frames fast enough and the port's queue was full.
    Backpressure,
    /// The kernel refused the frame for another reason (no memory, rejected).
    Refused,
    /// The node was off or stood still, because somebody asked for it or because it had ended.
    NodeDown,
}

impl PortDrop {
    /// All reasons, in the order of their counters.
    pub const ALL: [Self; 5] = [
        Self::InterfaceDown,
        Self::InterfaceGone,
        Self::Backpressure,
        Self::Refused,
        Self::NodeDown,
    ];

    /// The word used in `results.json`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::InterfaceDown => "interface-down",
            Self::InterfaceGone => "interface-gone",
            Self::Backpressure => "backpressure",
            Self::Refused => "refused",
            Self::NodeDown => "node-down",
        }
    }

    /// Whether the loss is the emulator's or the host's fault, not what a node or the user did.
    ///
    /// Such losses make the run's verdict worse.
    pub fn is_unintended(self) -> bool {
        matches!(self, Self::Backpressure | Self::Refused)
    }
}

/// Lost frames by reason.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct PortDrops([u64; PortDrop::ALL.len()]);

impl PortDrops {
    /// Counts one frame.
    pub fn count(&mut self, reason: PortDrop) {
        self.add(reason, 1);
    }

    /// Counts `frames` frames.
    pub fn add(&mut self, reason: PortDrop, frames: u64) {
        self.0[reason as usize] += frames;
    }

    /// Frames lost for `reason`.
    pub fn of(&self, reason: PortDrop) -> u64 {
        self.0[reason as usize]
    }

    /// Frames lost for any reason.
    pub fn total(&self) -> u64 {
        self.0.iter().sum()
    }

    /// Frames lost for reasons that [`PortDrop::is_unintended`].
    pub fn unintended(&self) -> u64 {
        PortDrop::ALL.into_iter().filter(|r| r.is_unintended()).map(|r| self.of(r)).sum()
    }

    /// The reasons with at least one frame, in the order of [`PortDrop::ALL`].
    pub fn iter(&self) -> impl Iterator<Item = (PortDrop, u64)> + '_ {
        PortDrop::ALL.into_iter().map(|r| (r, self.of(r))).filter(|(_, frames)| *frames > 0)
    }
}

impl AddAssign for PortDrops {
    fn add_assign(&mut self, other: Self) {
        for (mine, its) in self.0.iter_mut().zip(other.0) {
            *mine += its;
        }
    }
}

/// A map from reason to frames; reasons without a frame are left out.
impl Serialize for PortDrops {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        for (reason, frames) in self.iter() {
            map.serialize_entry(reason.as_str(), &frames)?;
        }
        map.end()
    }
}

/// Everything a port counted since it was made. *Received* and *sent* are the emulator's view.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct PortCounters {
    /// Frames read from the node and offered to the link.
    pub rx_frames: u64,
    /// Their bytes, as far as they fit a buffer.
    pub rx_bytes: u64,
    /// Frames delivered to the node.
    pub tx_frames: u64,
    /// Their bytes.
    pub tx_bytes: u64,
    /// Frames the link released that did not reach the node.
    pub tx_drops: PortDrops,
    /// Frames the link released that wait for the node to take them.
    pub tx_pending: u64,
}

impl PortCounters {
    pub(super) fn received(&mut self, frame: &Frame) {
        self.rx_frames += 1;
        self.rx_bytes += frame.len() as u64;
    }

    pub(super) fn sent(&mut self, frame: &Frame) {
        self.tx_frames += 1;
        self.tx_bytes += frame.len() as u64;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reasons_have_distinct_counters_and_words() {
        let mut drops = PortDrops::default();
        for (index, reason) in PortDrop::ALL.into_iter().enumerate() {
            drops.add(reason, 1 << index);
        }
        for (index, reason) in PortDrop::ALL.into_iter().enumerate() {
            assert_eq!(drops.of(reason), 1 << index);
            assert_eq!(
                serde_json::to_value(reason).unwrap(),
                serde_json::Value::from(reason.as_str())
            );
        }
        assert_eq!(drops.total(), (1 << PortDrop::ALL.len()) - 1);
        assert_eq!(drops.iter().count(), PortDrop::ALL.len());
    }

    #[test]
    fn only_reasons_that_happened_are_written() {
        let mut drops = PortDrops::default();
        drops.count(PortDrop::InterfaceDown);
        drops.add(PortDrop::Backpressure, 2);
        let json = serde_json::to_string(&drops).unwrap();
        assert_eq!(json, r#"{"interface-down":1,"backpressure":2}"#);
        assert_eq!(drops.unintended(), 2);
    }
}
