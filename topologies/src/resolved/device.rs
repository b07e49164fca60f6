//! In-process devices with settings of their own: bridges and sources.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use tapestry_core::SimTime;

use super::Topology;
use crate::resolved::NodeKind;

/// An in-process bridge's settings.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BridgeSettings {
    /// Whether it runs the spanning tree protocol.
    pub stp: bool,
    /// Its priority there; the lowest becomes root.
    pub priority: u16,
    /// An address not seen for longer than this is forgotten.
    pub ageing: SimTime,
}

impl Default for BridgeSettings {
    /// IEEE 802.1D: no spanning tree, priority 32768, 300 s.
    fn default() -> Self {
        Self { stp: false, priority: 32_768, ageing: SimTime::from_secs(300) }
    }
}

/// What a source sends.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Source {
    /// The frames, in the order of the file; at most a million with all repetitions.
    pub frames: Vec<SourceFrame>,
}

/// A frame that is sent once or repeatedly.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SourceFrame {
    /// When it is sent first, from when all nodes are ready.
    pub at: SimTime,
    /// Time from one to the next.
    pub every: SimTime,
    /// How often it is sent, at least once.
    pub count: u64,
    /// The frame without its check sequence.
    pub bytes: FrameBytes,
}

impl SourceFrame {
    /// When the repetition of this number, from 0, is sent; the end of time at the latest.
    pub fn instant(&self, number: u64) -> SimTime {
        let behind = self.every.as_nanos().saturating_mul(number);
        SimTime::from_nanos(self.at.as_nanos().saturating_add(behind))
    }
}

impl Topology {
    /// When the last frame of all sources is sent, from when all nodes are ready; `None` if there
    /// is no such frame.
    pub fn last_source_frame(&self) -> Option<SimTime> {
        let frames = self.nodes.iter().flat_map(|node| match &node.kind {
            NodeKind::Source(source) => source.frames.as_slice(),
            _ => &[],
        });
        frames.map(|frame| frame.instant(frame.count.saturating_sub(1))).max()
    }
}

/// Bytes of a frame; hexadecimal digits in manifests.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FrameBytes(pub Vec<u8>);

impl fmt::Display for FrameBytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl FrameBytes {
    /// Bytes from pairs of hexadecimal digits, between which blanks, `:` and `-` may stand; else
    /// the byte range of what is none, with what was expected there.
    pub fn from_hex(text: &str) -> Result<Self, (std::ops::Range<usize>, &'static str)> {
        let mut bytes = Vec::with_capacity(text.len() / 2);
        let mut high = None;
        for (at, c) in text.char_indices() {
            if c.is_ascii_whitespace() || matches!(c, ':' | '-') {
                continue;
            }
            let Some(digit) = c.to_digit(16).and_then(|digit| u8::try_from(digit).ok()) else {
                return Err((at..at + c.len_utf8(), "expected hexadecimal digits"));
            };
            match high.take() {
                None => high = Some((at, digit)),
                Some((_, high)) => bytes.push(high << 4 | digit),
            }
        }
        match high {
            None => Ok(Self(bytes)),
            Some((at, _)) => Err((at..at + 1, "expected a second digit to this one")),
        }
    }
}

impl Serialize for FrameBytes {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for FrameBytes {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::from_hex(&text).map_err(|(_, expected)| de::Error::custom(expected))
    }
}
