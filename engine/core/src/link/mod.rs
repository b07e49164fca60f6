//! What one direction of a link does to its frames: parameters, without the models that obey them.
//!
//! Purpose: one vocabulary for the topology file, which reads parameters, the models, which run
//! them, and whoever changes them while a lab runs. Everything is plain data with units;
//! [`LinkParameters::validate`] finds what no model can obey.
//!
//! Assumptions: a delay is one-way and belongs to one direction. Lengths are those of Ethernet
//! frames without preamble and frame check sequence.
//!
//! Not modelled: anything that depends on several links at once.
//!
//! Reference: tc-netem(8), tc-tbf(8); ns-3 error models; mahimahi's `mm-link`.

mod change;
mod file;
mod jitter;
mod loss;
mod pace;

use serde::{Deserialize, Serialize};
use thiserror::Error;

pub use change::{Parameter, ParameterChange};
pub use file::{FileError, LineError};
pub use jitter::{BeyondDelay, DelayTable, DelayValues, Distribution, Jitter};
pub use loss::{Chance, CorrelationForm, Corruption, Loss, Reorder, Unit};
pub use pace::{DeliveryTrace, Framing, Schedule, ScheduledRate, Slots, Step, TokenBucket};

use crate::{ByteCount, DataRate, SimTime};

/// Everything that can be said about one direction of a link, except its queue.
///
/// The default is a perfect wire: no rate limit, no delay, no loss.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct LinkParameters {
    /// Transmission rate, or the rate at which the token bucket fills; `None`: sending takes no
    /// time.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rate: Option<DataRate>,
    /// Bytes on the wire.
    pub framing: Framing,
    /// Shapes with bursts instead of a constant rate.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bucket: Option<TokenBucket>,
    /// Opportunities to send, instead of a rate.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub trace: Option<DeliveryTrace>,
    /// Rate, delay and loss that follow the clock.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub schedule: Option<Schedule>,
    /// Times at which frames that have been sent go onto the wire together.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub slots: Option<Slots>,
    /// Propagation delay.
    pub delay: SimTime,
    /// Random part of the delay.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub jitter: Option<Jitter>,
    /// Whether a frame with a short delay may overtake one with a long delay.
    pub reordering: bool,
    /// Frames that skip the delay.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reorder: Option<Reorder>,
    /// Frames that get lost.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub loss: Option<Loss>,
    /// Whether frames that can carry an ECN mark get one instead of being lost.
    pub ecn: bool,
    /// Frames that arrive twice.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub duplicate: Option<Chance>,
    /// Frames with wrong bits.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub corrupt: Option<Corruption>,
}

/// Parameters that no model can obey; each names the key of the topology file that is wrong.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum InvalidParameters {
    /// Some frames would have to arrive before they are sent.
    #[error(
        "a jitter of {jitter} is greater than the {}delay of {delay}; say `beyond_delay: clamp` to \
         let such frames arrive at once, or choose a smaller jitter",
        if *scheduled { "schedule's shortest " } else { "" }
    )]
    JitterBeyondDelay {
        /// The jitter's time.
        jitter: SimTime,
        /// The shortest delay that it varies.
        delay: SimTime,
        /// Whether this is a delay of the schedule.
        scheduled: bool,
    },
    /// Ways out of a state whose probabilities exceed one.
    #[error("the transitions {first} and {second} leave one state and add up to more than 100%")]
    Transitions {
        /// One transition.
        first: &'static str,
        /// The other one.
        second: &'static str,
    },
    /// A state that is entered and never left.
    #[error("`{transition}` is 0%, so a burst of losses, once begun, never ends")]
    Trapped {
        /// The transition that should leave the state.
        transition: &'static str,
    },
    /// Bursts of losses without length.
    #[error("the shortest burst of {min} frames is longer than the longest one of {max}")]
    BurstLength {
        /// Shortest burst in frames.
        min: u32,
        /// Longest burst in frames.
        max: u32,
    },
    /// A bucket that no full frame passes.
    #[error("a burst of {burst} is smaller than one frame, which takes up to {frame} on the wire")]
    BurstTooSmall {
        /// The bucket.
        burst: ByteCount,
        /// The largest frame on the wire.
        frame: ByteCount,
    },
    /// Two parameters that contradict each other, or one that lacks another.
    #[error("`{key}` {reason}")]
    Conflict {
        /// The key that is wrong.
        key: &'static str,
        /// Why.
        reason: &'static str,
        /// What would be accepted.
        expected: &'static str,
    },
}

/// Refuses a key for a `reason`, where something else is `expected`.
const fn conflict<T>(
    key: &'static str,
    reason: &'static str,
    expected: &'static str,
) -> Result<T, InvalidParameters> {
    Err(InvalidParameters::Conflict { key, reason, expected })
}

impl InvalidParameters {
    /// The key of the topology file to which this belongs.
    pub fn key(&self) -> &'static str {
        match self {
            Self::JitterBeyondDelay { .. } => "jitter",
            Self::Transitions { .. } | Self::Trapped { .. } | Self::BurstLength { .. } => "loss",
            Self::BurstTooSmall { .. } => "burst",
            Self::Conflict { key, .. } => key,
        }
    }

    /// What would be accepted, to follow "expected".
    pub fn expected(&self) -> &'static str {
        match self {
            Self::JitterBeyondDelay { .. } => "a jitter of at most the delay",
            Self::Transitions { .. } => "ways out of one state of at most 100% together",
            Self::Trapped { .. } => "a way out with a probability above 0%",
            Self::BurstLength { .. } => "`min` from 1 to `max`",
            Self::BurstTooSmall { .. } => "a burst of at least one frame",
            Self::Conflict { expected, .. } => expected,
        }
    }
}

impl LinkParameters {
    /// A link with this rate and delay that is perfect otherwise.
    pub fn new(rate: Option<DataRate>, delay: SimTime) -> Self {
        Self { rate, delay, ..Self::default() }
    }

    /// The rate of which a queue in front of this direction is told where none is in force: the
    /// rate (with a token bucket, the one at which it fills), else what the trace allows on
    /// average, else the highest rate of the schedule. `None`: sending takes no time.
    pub fn nominal_rate(&self) -> Option<DataRate> {
        let of_trace = || self.trace.as_ref().and_then(DeliveryTrace::mean_rate);
        let of_schedule = || self.steps().filter_map(|step| step.rate?.limit()).max();
        self.rate.or_else(of_trace).or_else(of_schedule)
    }

    /// Whether rate, framing and delay say it all.
    pub fn is_plain(&self) -> bool {
        let Self { rate, framing, delay, .. } = self;
        *self == Self { rate: *rate, framing: *framing, delay: *delay, ..Self::default() }
    }

    /// Whether there is nothing that a model could not obey; `mtu` is the largest payload of a
    /// frame in bytes.
    pub fn validate(&self, mtu: u32) -> Result<(), InvalidParameters> {
        self.validate_pace(mtu)?;
        let scheduled = || self.steps().filter_map(|step| step.delay);
        if let Some(jitter) = &self.jitter {
            jitter.validate()?;
            // A schedule that begins at once leaves nothing to the link's own delay.
            let replaced = self
                .steps()
                .next()
                .is_some_and(|step| step.time == SimTime::ZERO && step.delay.is_some());
            let own = (!replaced).then_some((self.delay, false));
            let delays = own.into_iter().chain(scheduled().map(|delay| (delay, true)));
            let (delay, scheduled) = delays.min().unwrap_or((self.delay, false));
            if jitter.beyond_delay == BeyondDelay::Error && jitter.time > delay {
                let jitter = jitter.time;
                return Err(InvalidParameters::JitterBeyondDelay { jitter, delay, scheduled });
            }
        }
        let delayed =
            self.delay != SimTime::ZERO || scheduled().any(|delay| delay != SimTime::ZERO);
        if self.reorder.is_some() && !delayed && self.jitter.is_none() {
            let reason = "needs a delay: without one there is nobody to overtake";
            return conflict("reorder", reason, "a `delay` as well");
        }
        if let Some(loss) = &self.loss {
            loss.validate()?;
        }
        if self.ecn && self.loss.is_none() && !self.schedules_loss() {
            let reason = "needs a loss: it says which frames get a mark";
            return conflict("ecn", reason, "a `loss` as well");
        }
        for (key, chance, per) in [
            ("duplicate", self.duplicate.as_ref(), Unit::Frame),
            ("reorder", self.reorder.as_ref().map(|reorder| &reorder.chance), Unit::Frame),
            ("corrupt", self.corrupt.as_ref().map(|c| &c.chance), self.corrupted_unit()),
        ] {
            if let Some(chance) = chance {
                chance.validate(key, per)?;
            }
        }
        if self.corrupt.as_ref().is_some_and(|c| c.bits == 0) {
            return conflict("corrupt", "flips no bit with `bits: 0`", "at least one bit");
        }
        if self.corrupt.as_ref().is_some_and(|c| c.per != Unit::Frame && c.bits != 1) {
            let reason = "takes either `bits` or `per: bit` and `per: byte`";
            return conflict("corrupt", reason, "`bits` with `per: frame` only");
        }
        Ok(())
    }

    fn validate_pace(&self, mtu: u32) -> Result<(), InvalidParameters> {
        if self.framing.cell_bytes == 0 && self.framing.cell_overhead_bytes != 0 {
            let reason = "has `cell_overhead_bytes`, and no cells that it could be added to";
            return conflict("overhead", reason, "`cell_bytes` as well");
        }
        if let Some(bucket) = &self.bucket {
            if bucket.burst == ByteCount::from_bytes(0) && bucket.peak.is_some() {
                let reason = "is the rate within a burst, and there is no `burst`";
                return conflict("peak", reason, "`burst` as well, or `peak: none`");
            }
            let Some(rate) = self.rate else {
                let reason = "needs a `rate`, at which its bucket fills";
                return conflict("burst", reason, "a `rate` as well, or `burst: none`");
            };
            if bucket.peak.is_some_and(|peak| peak < rate) {
                return conflict("peak", "is smaller than the rate", "a peak of at least the rate");
            }
            let frame = self.framing.wire_bytes(mtu as usize + FRAME_BYTES_BEYOND_MTU);
            if bucket.burst.as_bytes() < frame {
                let frame = ByteCount::from_bytes(frame);
                return Err(InvalidParameters::BurstTooSmall { burst: bucket.burst, frame });
            }
        }
        let scheduled = self.schedules_rate();
        if self.trace.is_some() {
            if self.rate.is_some() {
                let reason = "and `rate` exclude each other: the trace is the rate";
                return conflict("trace", reason, "`trace: none` or `rate: unlimited`");
            }
            if scheduled {
                let reason = "and a schedule of rates exclude each other";
                return conflict("trace", reason, "`trace: none`, or a schedule without rates");
            }
        }
        if self.bucket.is_some() && scheduled {
            let reason = "and a schedule of rates exclude each other";
            return conflict("burst", reason, "`burst: none`, or a schedule without rates");
        }
        if self.loss.is_some() && self.schedules_loss() {
            let reason = "and a schedule of losses exclude each other";
            return conflict("loss", reason, "`loss: none`, or a schedule without losses");
        }
        if let Some(slots) = &self.slots {
            slots.validate()?;
        }
        Ok(())
    }

    /// The first key that a medium shared by several stations does not have, if one is used.
    pub fn refused_on_shared_medium(&self) -> Option<&'static str> {
        [
            ("burst", self.bucket.is_some()),
            ("trace", self.trace.is_some()),
            ("schedule", self.schedule.is_some()),
            ("slot", self.slots.is_some()),
            ("jitter", self.jitter.is_some()),
            ("reordering", self.reordering),
            ("reorder", self.reorder.is_some()),
        ]
        .into_iter()
        .find_map(|(key, used)| used.then_some(key))
    }

    /// Whether the schedule says at times what gets lost.
    pub fn schedules_loss(&self) -> bool {
        self.steps().any(|step| step.loss.is_some())
    }

    /// Whether the schedule sets a rate at times.
    pub fn schedules_rate(&self) -> bool {
        self.steps().any(|step| step.rate.is_some())
    }

    /// The rows of the schedule.
    fn steps(&self) -> impl Iterator<Item = &Step> {
        self.schedule.iter().flat_map(|schedule| schedule.steps.iter())
    }

    fn corrupted_unit(&self) -> Unit {
        self.corrupt.as_ref().map_or(Unit::Frame, |corrupt| corrupt.per)
    }
}

/// Ethernet header and one VLAN tag.
const FRAME_BYTES_BEYOND_MTU: usize = 18;

#[cfg(test)]
mod tests;
