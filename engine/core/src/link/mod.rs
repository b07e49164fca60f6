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
pub use pace::{DeliveryTrace, Framing, Schedule, Slots, Step, TokenBucket};

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
        "a jitter of {jitter} is greater than the delay of {delay}; say `beyond_delay: clamp` to \
         let such frames arrive at once, or choose a smaller jitter"
    )]
    JitterBeyondDelay {
        /// The jitter's time.
        jitter: SimTime,
        /// The delay that it varies.
        delay: SimTime,
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
    },
}

impl InvalidParameters {
    /// The key of the topology file to which this belongs.
    pub fn key(&self) -> &'static str {
        match self {
            Self::JitterBeyondDelay { .. } => "jitter",
            Self::Transitions { .. } | Self::Trapped { .. } => "loss",
            Self::BurstTooSmall { .. } => "burst",
            Self::Conflict { key, .. } => key,
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
        let of_schedule =
            || self.schedule.as_ref()?.steps.iter().filter_map(|step| step.rate).max();
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
        let conflict = |key, reason| Err(InvalidParameters::Conflict { key, reason });
        self.validate_pace(mtu)?;
        if let Some(jitter) = &self.jitter {
            jitter.validate()?;
            let bounds = self.schedule.iter().flat_map(|schedule| schedule.steps.iter());
            let shortest = bounds.filter_map(|step| step.delay).min();
            let delay = shortest.map_or(self.delay, |shortest| shortest.min(self.delay));
            if jitter.beyond_delay == BeyondDelay::Error && jitter.time > delay {
                return Err(InvalidParameters::JitterBeyondDelay { jitter: jitter.time, delay });
            }
        }
        if self.reorder.is_some() && self.delay == SimTime::ZERO && self.jitter.is_none() {
            return conflict("reorder", "needs a delay: without one there is nobody to overtake");
        }
        if let Some(loss) = &self.loss {
            loss.validate()?;
        }
        if self.ecn && self.loss.is_none() && !self.schedules_loss() {
            return conflict("ecn", "needs a loss: it says which frames get a mark");
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
            return conflict("corrupt", "flips no bit with `bits: 0`");
        }
        if self.corrupt.as_ref().is_some_and(|c| c.per != Unit::Frame && c.bits != 1) {
            return conflict("corrupt", "takes either `bits` or `per: bit` and `per: byte`");
        }
        Ok(())
    }

    fn validate_pace(&self, mtu: u32) -> Result<(), InvalidParameters> {
        let conflict = |key, reason| Err(InvalidParameters::Conflict { key, reason });
        if let Some(bucket) = &self.bucket {
            let Some(rate) = self.rate else {
                return conflict("burst", "needs a rate, at which its bucket fills");
            };
            if bucket.peak.is_some_and(|peak| peak < rate) {
                return conflict("peak", "is smaller than the rate");
            }
            let frame = self.framing.wire_bytes(mtu as usize + FRAME_BYTES_BEYOND_MTU);
            if bucket.burst.as_bytes() < frame {
                let frame = ByteCount::from_bytes(frame);
                return Err(InvalidParameters::BurstTooSmall { burst: bucket.burst, frame });
            }
        }
        let steps = || self.schedule.iter().flat_map(|schedule| schedule.steps.iter());
        if self.trace.is_some() {
            if self.rate.is_some() {
                return conflict("trace", "and `rate` exclude each other: the trace is the rate");
            }
            if steps().any(|step| step.rate.is_some()) {
                return conflict("trace", "and a schedule of rates exclude each other");
            }
        }
        if self.bucket.is_some() && steps().any(|step| step.rate.is_some()) {
            return conflict("burst", "and a schedule of rates exclude each other");
        }
        if self.loss.is_some() && self.schedules_loss() {
            return conflict("loss", "and a schedule of losses exclude each other");
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

    fn schedules_loss(&self) -> bool {
        self.schedule
            .iter()
            .flat_map(|schedule| schedule.steps.iter())
            .any(|step| step.loss.is_some())
    }

    fn corrupted_unit(&self) -> Unit {
        self.corrupt.as_ref().map_or(Unit::Frame, |corrupt| corrupt.per)
    }
}

/// Ethernet header and one VLAN tag.
const FRAME_BYTES_BEYOND_MTU: usize = 18;

#[cfg(test)]
mod tests;
