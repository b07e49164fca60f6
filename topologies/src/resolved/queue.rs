//! A link's queue, resolved.

use serde::{Deserialize, Serialize};
use tapestry_core::{ByteCount, Probability, SimTime};

/// The discipline of each interface's transmit queue, with all its parameters.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "discipline", rename_all = "kebab-case")]
pub enum Queue {
    /// First in, first out.
    DropTail {
        /// What the queue holds behind the frame in transmission.
        limit: QueueLimit,
    },
    /// Random early detection.
    Red(Red),
    /// Controlled delay (RFC 8289).
    Codel(Codel),
    /// Fair queues with controlled delay (RFC 8290).
    FqCodel(FqCodel),
    /// Proportional integral controller enhanced (RFC 8033).
    Pie(Pie),
    /// Strict priority of classes by DSCP.
    Priority {
        /// The classes, the most urgent first.
        classes: Vec<QueueClass>,
    },
    /// Deficit round robin of classes by DSCP.
    Drr {
        /// The classes.
        classes: Vec<QueueClass>,
    },
}

/// How much a queue holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum QueueLimit {
    /// So many frames.
    Frames(u32),
    /// So many bytes of frames.
    Bytes(ByteCount),
    /// As many bytes as the link's rate sends in that time.
    Time(SimTime),
}

/// Parameters of RED.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Red {
    /// What the queue holds at most.
    pub limit: QueueLimit,
    /// In what `min` and `max` are counted.
    pub unit: RedUnit,
    /// Average length below which nothing is dropped.
    pub min: u64,
    /// Average length at which `max_probability` is reached; above `min`.
    pub max: u64,
    /// Drop probability at `max`.
    pub max_probability: Probability,
    /// Weight of the present length in the average.
    pub weight: Probability,
    /// Mean frame.
    pub mean_frame: ByteCount,
    /// Whether the probability rises further up to twice `max`.
    pub gentle: bool,
    /// Whether `max_probability` adapts itself.
    pub adaptive: bool,
    /// Marks instead of early drops.
    pub ecn: bool,
}

/// What RED counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RedUnit {
    /// Frames.
    Frames,
    /// Bytes.
    Bytes,
}

/// Parameters of `CoDel`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Codel {
    /// What the queue holds at most.
    pub limit: QueueLimit,
    /// Acceptable time in the queue; below `interval`.
    pub target: SimTime,
    /// How long it may be exceeded.
    pub interval: SimTime,
    /// Marks instead of drops.
    pub ecn: bool,
}

/// Parameters of FQ-CoDel.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FqCodel {
    /// Of each queue, but for `limit`, which is that of all together.
    #[serde(flatten)]
    pub codel: Codel,
    /// Number of queues.
    pub flows: u32,
    /// Bytes a queue sends in its turn.
    pub quantum: ByteCount,
}

/// Parameters of PIE.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Pie {
    /// What the queue holds at most.
    pub limit: QueueLimit,
    /// Time in the queue aimed at.
    pub target: SimTime,
    /// Time between updates of the probability.
    pub update: SimTime,
    /// Longest burst that passes without drops.
    pub burst: SimTime,
    /// Weight of the distance to the target, 1/s.
    pub alpha: f64,
    /// Weight of the trend, 1/s.
    pub beta: f64,
    /// Marks instead of early drops.
    pub ecn: bool,
    /// Drop probability above which frames are dropped all the same.
    pub ecn_limit: Probability,
    /// Whether drops are spaced out.
    pub derandomise: bool,
}

/// A class of frames.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct QueueClass {
    /// Its code points, 0–63; empty for the class of all others.
    pub dscp: Vec<u8>,
    /// What it holds at most.
    pub limit: QueueLimit,
    /// Bytes it sends in its turn (deficit round robin).
    pub quantum: ByteCount,
}
