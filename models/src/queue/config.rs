//! What a queue is made of.

use tapestry_core::{Probability, SimTime};

/// The discipline of a queue and its parameters.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum QueueConfig {
    /// First in, first out; a frame that finds the queue full is dropped.
    DropTail(Limit),
    /// Random early detection.
    Red(RedConfig),
    /// Controlled delay.
    CoDel(CoDelConfig),
    /// Fair queues, each with controlled delay.
    FqCoDel(FqCoDelConfig),
    /// Proportional integral controller enhanced.
    Pie(PieConfig),
    /// Classes by DSCP, of which the first with a frame is served.
    Priority(ClassesConfig),
    /// Classes by DSCP that share the link by deficit round robin.
    Drr(ClassesConfig),
}

/// How much a queue holds behind the frame in transmission.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Limit {
    /// So many frames.
    Frames(u32),
    /// So many bytes of frames (without frame check sequence and padding).
    Bytes(u64),
    /// As many bytes as the link sends in that time at its rate, framing not counted.
    Time(SimTime),
}

/// Parameters of RED. Defaults: those of Floyd and Jacobson's paper as in ns-3 (thresholds 5 and
/// 15 frames, weight 0.2 %, 2 % at the upper threshold), gentle.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RedConfig {
    /// What the queue holds at most.
    pub limit: Limit,
    /// In what the thresholds are counted.
    pub unit: RedUnit,
    /// Average length below which no frame is dropped.
    pub min: u64,
    /// Average length at which frames are dropped with `max_probability`.
    pub max: u64,
    /// Probability of a drop at `max`; where it begins, if `adaptive`.
    pub max_probability: Probability,
    /// Share of the present length in the moving average.
    pub weight: Probability,
    /// Mean length of a frame in bytes, for idle times and thresholds in bytes.
    pub mean_frame_bytes: u32,
    /// Whether the probability rises to 1 between `max` and twice `max`, instead of at `max`.
    pub gentle: bool,
    /// Whether `max_probability` follows the average length, so that it stays half-way.
    pub adaptive: bool,
    /// Whether frames that could carry it get a mark instead of an early drop.
    pub ecn: bool,
}

/// In what RED counts its queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RedUnit {
    /// Frames.
    Frames,
    /// Bytes; a long frame is likelier to be dropped than a short one.
    Bytes,
}

/// Parameters of `CoDel`, with the defaults of RFC 8289.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CoDelConfig {
    /// What the queue holds at most.
    pub limit: Limit,
    /// Time in the queue that is acceptable.
    pub target: SimTime,
    /// How long frames may stay longer before one is dropped; a worst-case round trip.
    pub interval: SimTime,
    /// Whether frames that could carry it get a mark instead of being dropped.
    pub ecn: bool,
}

/// Parameters of FQ-CoDel, with the defaults of RFC 8290.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FqCoDelConfig {
    /// What all queues together hold at most. `target`, `interval` and `ecn` are those of each.
    pub codel: CoDelConfig,
    /// Number of queues, at least 1.
    pub flows: u32,
    /// Bytes that a queue sends in its turn, at least [`LEAST_QUANTUM`].
    pub quantum_bytes: u32,
}

/// Parameters of PIE, with the defaults of RFC 8033.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PieConfig {
    /// What the queue holds at most.
    pub limit: Limit,
    /// Time in the queue that is aimed at.
    pub target: SimTime,
    /// Time between two computations of the drop probability.
    pub update: SimTime,
    /// How long a burst passes without drops.
    pub max_burst: SimTime,
    /// Weight of the distance to the target, in millionths per second (RFC: 0.125 Hz).
    pub alpha_micro_hz: u64,
    /// Weight of the trend, in millionths per second (RFC: 1.25 Hz).
    pub beta_micro_hz: u64,
    /// Whether frames that could carry it get a mark instead of an early drop.
    pub ecn: bool,
    /// Drop probability above which frames are dropped all the same.
    pub ecn_limit: Probability,
    /// Whether drops are spaced more evenly than by chance (RFC 8033, 5.4).
    pub derandomise: bool,
}

/// Classes by DSCP.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClassesConfig {
    /// The classes, at least one, in the order of priority.
    pub classes: Vec<ClassConfig>,
    /// Class of each DSCP; a number beyond the last means the last.
    pub class_of: [u8; 64],
    /// Class of frames that carry no IP.
    pub other: u8,
}

/// One class.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClassConfig {
    /// What the class holds at most.
    pub limit: Limit,
    /// Bytes that it sends in its turn, at least [`LEAST_QUANTUM`]; only for DRR.
    pub quantum_bytes: u32,
}

/// Smaller quanta would only cost turns.
pub const LEAST_QUANTUM: u32 = 64;

impl QueueConfig {
    /// Drop-tail with room for so many frames.
    pub const fn frames(frames: u32) -> Self {
        Self::DropTail(Limit::Frames(frames))
    }
}

/// A probability, for defaults that are one.
fn probability(share: f64) -> Probability {
    Probability::from_f64(share).unwrap_or_default()
}

impl Default for RedConfig {
    fn default() -> Self {
        Self {
            limit: Limit::Frames(100),
            unit: RedUnit::Frames,
            min: 5,
            max: 15,
            max_probability: probability(0.02),
            weight: probability(0.002),
            mean_frame_bytes: 1_000,
            gentle: true,
            adaptive: false,
            ecn: false,
        }
    }
}

impl Default for CoDelConfig {
    fn default() -> Self {
        Self {
            limit: Limit::Frames(1_000),
            target: SimTime::from_millis(5),
            interval: SimTime::from_millis(100),
            ecn: false,
        }
    }
}

impl Default for FqCoDelConfig {
    fn default() -> Self {
        Self {
            codel: CoDelConfig { limit: Limit::Frames(10_240), ecn: true, ..Default::default() },
            flows: 1_024,
            quantum_bytes: 1_514,
        }
    }
}

impl Default for PieConfig {
    fn default() -> Self {
        Self {
            limit: Limit::Frames(1_000),
            target: SimTime::from_millis(15),
            update: SimTime::from_millis(15),
            max_burst: SimTime::from_millis(150),
            alpha_micro_hz: 125_000,
            beta_micro_hz: 1_250_000,
            ecn: false,
            ecn_limit: probability(0.1),
            derandomise: false,
        }
    }
}
