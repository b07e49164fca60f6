//! Chances: loss, duplication, corruption, reordering.

use serde::{Deserialize, Serialize};

use super::{InvalidParameters, conflict};
use crate::Probability;

/// Something that happens to some frames.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Chance {
    /// How likely it is.
    pub probability: Probability,
    /// How much one frame's fate says about the next one's.
    pub correlation: Probability,
    /// What `correlation` means.
    pub form: CorrelationForm,
}

/// What the correlation ρ of a chance p means.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum CorrelationForm {
    /// A two-state Markov chain: after a hit the next is a hit with p + ρ(1 − p), else with
    /// p(1 − ρ). The share of hits stays p and the autocorrelation at lag k is ρᵏ.
    #[default]
    Markov,
    /// netem's: xₙ = ρ·xₙ₋₁ + (1 − ρ)·u is compared with p. Since x is not uniform, the share of
    /// hits is not p: below it for small p.
    Netem,
}

/// To what a probability applies.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Unit {
    /// Each frame.
    #[default]
    Frame,
    /// Each byte of each frame.
    Byte,
    /// Each bit of each frame.
    Bit,
}

impl Unit {
    /// How many of this unit a frame of so many bytes has.
    pub const fn count(self, frame_bytes: usize) -> u64 {
        match self {
            Self::Frame => 1,
            Self::Byte => frame_bytes as u64,
            Self::Bit => frame_bytes as u64 * 8,
        }
    }
}

/// Which frames get lost.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Loss {
    /// By chance; with a unit other than the frame, if any of its units is hit (ns-3's
    /// `RateErrorModel`).
    Random {
        /// The chance.
        #[serde(flatten)]
        chance: Chance,
        /// What it applies to.
        per: Unit,
    },
    /// Two states (Gilbert–Elliott), as netem's `gemodel`.
    GilbertElliott {
        /// From the good to the bad state, per frame.
        p: Probability,
        /// From the bad to the good state, per frame.
        r: Probability,
        /// Loss in the bad state (1 − h).
        bad: Probability,
        /// Loss in the good state (1 − k).
        good: Probability,
    },
    /// Four states, as netem's `loss state`: 1 received in a gap, 2 received in a burst, 3 lost in
    /// a burst, 4 lost alone in a gap.
    FourState {
        /// From a gap into a burst.
        p13: Probability,
        /// From a burst into a gap.
        p31: Probability,
        /// From lost to received within a burst.
        p32: Probability,
        /// From received to lost within a burst.
        p23: Probability,
        /// From a gap to a single loss.
        p14: Probability,
    },
    /// Bursts of a random length (ns-3's `BurstErrorModel`): with probability `rate` a frame is
    /// the first of `min` to `max` lost ones, which may begin anew within a burst.
    Burst {
        /// How likely a burst begins at a frame.
        rate: Probability,
        /// Shortest burst, in frames, at least 1.
        min: u32,
        /// Longest burst, in frames.
        max: u32,
    },
    /// Exactly these frames, ascending, counted from 1 in the order of sending.
    Frames(Vec<u64>),
}

/// Frames with wrong bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Corruption {
    /// How likely it is.
    #[serde(flatten)]
    pub chance: Chance,
    /// What it applies to: a frame gets `bits` flipped bits, a byte one bit, a bit itself.
    pub per: Unit,
    /// Different bits flipped in a frame.
    pub bits: u32,
}

/// Frames that skip the delay and overtake those that wait it out, as netem's `reorder`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reorder {
    /// How likely it is, where the gap allows it.
    #[serde(flatten)]
    pub chance: Chance,
    /// Only a frame that follows at least `gap` − 1 frames that waited may skip; at least 1.
    pub gap: u32,
}

impl Chance {
    /// Independent for each frame.
    pub const fn independent(probability: Probability) -> Self {
        let (correlation, form) = (Probability::ZERO, CorrelationForm::Markov);
        Self { probability, correlation, form }
    }

    pub(super) fn validate(&self, key: &'static str, per: Unit) -> Result<(), InvalidParameters> {
        if self.correlation != Probability::ZERO && per != Unit::Frame {
            let reason = "cannot be correlated per byte or bit, only per frame";
            return conflict(key, reason, "`correlation` or `per`, not both");
        }
        if self.correlation == Probability::ONE {
            let reason = "cannot have a correlation of 100%: the first frame would decide all";
            return conflict(key, reason, "a correlation below 100%");
        }
        Ok(())
    }
}

impl Loss {
    /// Independent loss of frames.
    pub const fn independent(probability: Probability) -> Self {
        Self::Random { chance: Chance::independent(probability), per: Unit::Frame }
    }

    pub(super) fn validate(&self) -> Result<(), InvalidParameters> {
        match self {
            Self::Random { chance, per } => chance.validate("loss", *per),
            Self::GilbertElliott { p, r, .. }
                if *p > Probability::ZERO && *r == Probability::ZERO =>
            {
                Err(InvalidParameters::Trapped { transition: "r" })
            }
            Self::FourState { p13, p31, p32, p14, .. } => {
                let over_one =
                    |a: &Probability, b: &Probability| a.as_f64() + b.as_f64() > 1.0 + f64::EPSILON;
                if over_one(p13, p14) {
                    return Err(InvalidParameters::Transitions { first: "p13", second: "p14" });
                }
                if over_one(p31, p32) {
                    return Err(InvalidParameters::Transitions { first: "p31", second: "p32" });
                }
                if *p13 != Probability::ZERO && *p31 == Probability::ZERO {
                    return Err(InvalidParameters::Trapped { transition: "p31" });
                }
                Ok(())
            }
            Self::Burst { min: 0, .. } => {
                conflict("loss", "has bursts of no frames", "`min` of at least 1")
            }
            Self::Burst { min, max, .. } if min > max => {
                Err(InvalidParameters::BurstLength { min: *min, max: *max })
            }
            Self::GilbertElliott { .. } | Self::Burst { .. } => Ok(()),
            Self::Frames(frames) => {
                if frames.first().is_none_or(|&first| first == 0) {
                    let reason = "lists no frame, or frame 0; frames are counted from 1";
                    return conflict("loss", reason, "numbers of frames from 1 on");
                }
                if frames.windows(2).any(|pair| pair[0] >= pair[1]) {
                    return conflict("loss", "lists frames that do not ascend", "each frame once");
                }
                Ok(())
            }
        }
    }
}
