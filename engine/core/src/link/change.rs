//! A change of some of a direction's parameters, which leaves the others as they are.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use super::{LinkParameters, TokenBucket};

/// What a change sets, named as in topology files.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[allow(missing_docs, reason = "each is the field of `LinkParameters` of that meaning")]
pub enum Parameter {
    Rate,
    Overhead,
    Burst,
    /// The peak rate of the bucket, which stays otherwise.
    Peak,
    Trace,
    Schedule,
    Slot,
    Delay,
    Jitter,
    Reordering,
    Reorder,
    /// With whether frames are marked instead.
    Loss,
    Duplicate,
    Corrupt,
}

impl Parameter {
    /// The parameter that a key of the topology file sets.
    pub fn of_key(key: &str) -> Option<Self> {
        Some(match key {
            "rate" => Self::Rate,
            "overhead" => Self::Overhead,
            "burst" => Self::Burst,
            "peak" => Self::Peak,
            "trace" => Self::Trace,
            "schedule" => Self::Schedule,
            "slot" => Self::Slot,
            "delay" => Self::Delay,
            "jitter" => Self::Jitter,
            "reordering" => Self::Reordering,
            "reorder" => Self::Reorder,
            "loss" => Self::Loss,
            "duplicate" => Self::Duplicate,
            "corrupt" => Self::Corrupt,
            _ => return None,
        })
    }
}

/// New values for some parameters.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct ParameterChange {
    /// Which.
    pub set: BTreeSet<Parameter>,
    /// Their values; those of the others do not count.
    pub to: LinkParameters,
}

impl ParameterChange {
    /// What becomes of a direction's parameters.
    pub fn applied_to(&self, parameters: &LinkParameters) -> LinkParameters {
        let mut new = parameters.clone();
        let to = &self.to;
        for parameter in &self.set {
            match parameter {
                Parameter::Rate => new.rate = to.rate,
                Parameter::Overhead => new.framing = to.framing,
                Parameter::Burst => {
                    let peak = new.bucket.and_then(|bucket| bucket.peak);
                    new.bucket = to.bucket.map(|bucket| TokenBucket { peak, ..bucket });
                }
                Parameter::Peak => match (&mut new.bucket, to.bucket.and_then(|to| to.peak)) {
                    (Some(bucket), peak) => bucket.peak = peak,
                    (None, Some(_)) => new.bucket = to.bucket,
                    (None, None) => {}
                },
                Parameter::Trace => new.trace.clone_from(&to.trace),
                Parameter::Schedule => new.schedule.clone_from(&to.schedule),
                Parameter::Slot => new.slots.clone_from(&to.slots),
                Parameter::Delay => new.delay = to.delay,
                Parameter::Jitter => new.jitter.clone_from(&to.jitter),
                Parameter::Reordering => new.reordering = to.reordering,
                Parameter::Reorder => new.reorder.clone_from(&to.reorder),
                Parameter::Loss => {
                    new.loss.clone_from(&to.loss);
                    new.ecn = to.ecn;
                }
                Parameter::Duplicate => new.duplicate.clone_from(&to.duplicate),
                Parameter::Corrupt => new.corrupt.clone_from(&to.corrupt),
            }
        }
        new
    }
}
