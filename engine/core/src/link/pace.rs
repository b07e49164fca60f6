//! When frames may leave: bytes on the wire, token buckets, slots, traces and schedules.

use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::file::{FileError, rows};
use super::{InvalidParameters, conflict};
use crate::{ByteCount, DataRate, ParseQuantityError, Probability, SimTime};

/// How many bytes a frame occupies on the wire beyond its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Framing {
    /// Bytes added to every frame; may be negative (netem's `PACKETOVERHEAD`).
    pub overhead_bytes: i32,
    /// Shorter frames are padded to this length, overhead included.
    pub min_wire_bytes: u32,
    /// Payload of a cell; 0 where frames are not cut into cells (netem's `CELLSIZE`).
    #[serde(default)]
    pub cell_bytes: u32,
    /// Bytes added to every cell; may be negative (netem's `CELLOVERHEAD`).
    #[serde(default)]
    pub cell_overhead_bytes: i32,
}

impl Default for Framing {
    fn default() -> Self {
        Self::ETHERNET
    }
}

impl Framing {
    /// Ethernet as ns-3's CSMA model counts it: a frame check sequence of 4 bytes and padding to
    /// 64 bytes; no preamble.
    pub const ETHERNET: Self = Self::frame(4, 64);
    /// Ethernet as it occupies a real wire: preamble and start delimiter (8), padding to 64 with
    /// the frame check sequence (4), and the interframe gap (12).
    pub const ETHERNET_WIRE: Self = Self::frame(24, 84);
    /// A frame occupies the wire with exactly its own bytes.
    pub const NONE: Self = Self::frame(0, 0);
    /// ATM with AAL5 in cells of 48 bytes of payload and 5 of header, for Ethernet over ADSL with
    /// LLC encapsulation (RFC 2684, section 5.2: 10 bytes; AAL5 trailer: 8 bytes; no frame check
    /// sequence).
    pub const ATM: Self =
        Self { overhead_bytes: 18, min_wire_bytes: 0, cell_bytes: 48, cell_overhead_bytes: 5 };

    const fn frame(overhead_bytes: i32, min_wire_bytes: u32) -> Self {
        Self { overhead_bytes, min_wire_bytes, cell_bytes: 0, cell_overhead_bytes: 0 }
    }

    /// Bytes that a frame of `len` bytes occupies on the wire: at least one, and one a cell, so that
    /// no overhead, however negative, makes a rate unlimited.
    pub fn wire_bytes(self, len: usize) -> u64 {
        let bytes = (len as u64)
            .saturating_add_signed(self.overhead_bytes.into())
            .max(self.min_wire_bytes.max(1).into());
        if self.cell_bytes == 0 {
            return bytes;
        }
        let cell =
            u64::from(self.cell_bytes).saturating_add_signed(self.cell_overhead_bytes.into());
        bytes.div_ceil(self.cell_bytes.into()) * cell.max(1)
    }
}

/// A token bucket: bytes on the wire take tokens, which the link's rate fills in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct TokenBucket {
    /// The bucket's size: what may leave at once after a rest.
    pub burst: ByteCount,
    /// The rate within a burst; `None`: sending takes no time while there are tokens.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub peak: Option<DataRate>,
}

/// Slots: frames collect and go onto the wire together, as netem's `slot`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Slots {
    /// Shortest time from one slot to the next.
    pub min: SimTime,
    /// Longest time from one slot to the next.
    pub max: SimTime,
    /// Most frames in a slot; the rest wait for the next one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub frames: Option<u32>,
    /// The slot ends with the frame that reaches this many bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bytes: Option<ByteCount>,
}

impl Slots {
    pub(super) fn validate(&self) -> Result<(), InvalidParameters> {
        if self.min > self.max {
            let reason = "has a longest time that is shorter than its shortest";
            return conflict("slot", reason, "`max` of at least `min`");
        }
        if self.max == SimTime::ZERO {
            let expected = "an interval above zero, or `slot: none`";
            return conflict("slot", "has no time between its slots", expected);
        }
        if self.frames == Some(0) || self.bytes == Some(ByteCount::from_bytes(0)) {
            return conflict("slot", "lets nothing pass", "`frames` and `bytes` above zero");
        }
        Ok(())
    }
}

/// Opportunities to deliver, as mahimahi's `mm-link` reads them: each line a time in milliseconds
/// at which 1500 bytes may leave; the trace repeats, its last time being its length.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct DeliveryTrace(Arc<[u64]>);

impl DeliveryTrace {
    /// Bytes of network-layer packets that one opportunity carries.
    pub const OPPORTUNITY_BYTES: u64 = 1_500;

    /// Reads a trace. Times do not decrease, and the last is not zero.
    pub fn parse(text: &str) -> Result<Self, FileError> {
        let mut times: Vec<u64> = Vec::new();
        let mut last_row = None;
        for row in rows(text) {
            let time: u64 = row
                .text
                .parse()
                .ok()
                .filter(|&time| time <= Self::MAX_MILLIS)
                .ok_or_else(|| row.error(row.text, "a time in whole milliseconds"))?;
            if times.last().is_some_and(|&last| last > time) {
                let expected = "a time that is not before the one above it";
                return Err(row.error(row.text, expected));
            }
            times.push(time);
            last_row = Some(row);
        }
        let Some(row) = last_row else {
            let expected = "lines with a time in milliseconds, one for each 1500 bytes";
            return Err(FileError::Empty { expected });
        };
        if times.last() == Some(&0) {
            return Err(row.error(row.text, "a last time above 0, which is the trace's length"));
        }
        Ok(Self(times.into()))
    }

    /// About a year.
    const MAX_MILLIS: u64 = 1 << 35;

    /// The times in milliseconds, never empty, not decreasing.
    pub fn millis(&self) -> &[u64] {
        &self.0
    }

    /// What it allows on average, in bits of network-layer packets.
    pub fn mean_rate(&self) -> Option<DataRate> {
        let bits = self.0.len() as u128 * u128::from(Self::OPPORTUNITY_BYTES) * 8;
        let millis = u128::from(self.0.last().copied()?.max(1));
        DataRate::from_bits_per_sec(u64::try_from(bits * 1_000 / millis).ok()?)
    }

    /// Its length, after which it repeats.
    pub fn period(&self) -> SimTime {
        SimTime::from_millis(self.0.last().copied().unwrap_or(1))
    }
}

/// Rate, delay and loss by the clock. A step holds until the next one; before the first, and for
/// columns that are not there, the link's own parameters hold.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Schedule {
    /// The steps, with ascending times; never empty.
    pub steps: Arc<[Step]>,
    /// After which time the schedule begins anew; `None`: the last step holds for good.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub repeat: Option<SimTime>,
}

/// What a schedule says of the rate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ScheduledRate {
    /// Sending takes no time.
    Unlimited,
    /// This one.
    #[serde(untagged)]
    Limited(DataRate),
}

impl ScheduledRate {
    /// The rate; `None`: sending takes no time.
    pub const fn limit(self) -> Option<DataRate> {
        match self {
            Self::Unlimited => None,
            Self::Limited(rate) => Some(rate),
        }
    }
}

impl FromStr for ScheduledRate {
    type Err = ParseQuantityError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "unlimited" => Ok(Self::Unlimited),
            rate => rate.parse().map(Self::Limited),
        }
    }
}

/// One row of a [`Schedule`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Step {
    /// When it begins.
    pub time: SimTime,
    /// The rate from then on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rate: Option<ScheduledRate>,
    /// The delay from then on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub delay: Option<SimTime>,
    /// The probability of loss from then on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub loss: Option<Probability>,
}

impl Schedule {
    /// Most rows.
    pub const MAX_STEPS: usize = 1_000_000;

    /// Reads CSV with a heading: `time` and any of `rate`, `delay`, `loss`. Values have units; a
    /// rate may be `unlimited`.
    pub fn parse(text: &str) -> Result<Self, FileError> {
        const EMPTY: FileError = FileError::Empty {
            expected: "a heading such as `time,rate,delay,loss` and rows below it",
        };
        let mut rows = rows(text);
        let heading = rows.next().ok_or(EMPTY)?;
        let columns = heading.fields()?;
        for (at, column) in columns.iter().enumerate() {
            let known = ["time", "rate", "delay", "loss"].contains(column);
            if !known || columns[..at].contains(column) {
                let expected = "each of the columns `time`, `rate`, `delay`, `loss` at most once";
                return Err(heading.error(column, expected));
            }
        }
        if !columns.contains(&"time") || columns.len() < 2 {
            let expected = "the column `time` and another one";
            return Err(heading.error(heading.text, expected));
        }
        let mut steps: Vec<Step> = Vec::new();
        for row in rows {
            let fields = row.fields()?;
            if fields.len() != columns.len() {
                let expected = format!("{} values, as in the heading", columns.len());
                return Err(row.error(row.text, expected));
            }
            let mut step = Step::default();
            for (&column, &field) in columns.iter().zip(&fields) {
                match column {
                    "time" => step.time = row.parse(field)?,
                    "rate" => step.rate = Some(row.parse(field)?),
                    "delay" => step.delay = Some(row.parse(field)?),
                    _ => step.loss = Some(row.parse(field)?),
                }
            }
            if steps.last().is_some_and(|last| last.time >= step.time) {
                return Err(row.error(row.text, "a time after that of the row above"));
            }
            if steps.len() == Self::MAX_STEPS {
                return Err(row.error(row.text, "the end: a schedule has at most 1000000 rows"));
            }
            steps.push(step);
        }
        if steps.is_empty() {
            return Err(EMPTY);
        }
        Ok(Self { steps: steps.into(), repeat: None })
    }
}
