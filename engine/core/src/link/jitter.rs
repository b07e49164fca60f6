//! The random part of a delay.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::file::{FileError, rows};
use super::{InvalidParameters, conflict};
use crate::{Probability, SimTime};

/// How a delay varies from frame to frame.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Jitter {
    /// Half the width of the uniform distribution; the standard deviation, roughly, of the others.
    pub time: SimTime,
    /// The shape.
    pub distribution: Distribution,
    /// ρ of netem's xₙ = ρ·xₙ₋₁ + (1 − ρ)·u, where x is the quantile that a frame's delay is.
    pub correlation: Probability,
    /// What happens to frames that would arrive before they are sent.
    pub beyond_delay: BeyondDelay,
}

/// The shape of a jitter.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Distribution {
    /// Uniform from −time to +time.
    #[default]
    Uniform,
    /// Normal with standard deviation `time`, cut off at four of them below and 3.5 above.
    Normal,
    /// Pareto with exponent 3, as netem's table has it.
    Pareto,
    /// A quarter normal, three quarters Pareto, as netem's table has it.
    ParetoNormal,
    /// The user's quantiles, in units of `time`.
    Table(DelayTable),
    /// The user's times, which are added to the delay.
    Values(DelayValues),
}

/// What happens where the jitter exceeds the delay.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum BeyondDelay {
    /// A jitter greater than the delay is refused. (Tails beyond it are still cut off at zero.)
    #[default]
    Error,
    /// A delay below zero counts as zero.
    Clamp,
}

/// Quantiles in netem's `.dist` format: whole numbers, 8192 of which are one `time`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct DelayTable(Arc<[i16]>);

/// Times and how likely each is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct DelayValues(Arc<[(SimTime, Probability)]>);

impl Jitter {
    /// Uniform from −time to +time, independent.
    pub const fn uniform(time: SimTime) -> Self {
        let (distribution, correlation) = (Distribution::Uniform, Probability::ZERO);
        Self { time, distribution, correlation, beyond_delay: BeyondDelay::Error }
    }

    pub(super) fn validate(&self) -> Result<(), InvalidParameters> {
        if self.correlation == Probability::ONE {
            let reason = "cannot have a correlation of 100%: the first frame would decide all";
            return conflict("jitter", reason, "a correlation below 100%");
        }
        Ok(())
    }
}

impl DelayTable {
    /// netem's scale: so many units are one jitter time.
    pub const SCALE: i32 = 8_192;
    /// netem's largest table.
    pub const MAX_ENTRIES: usize = 16_384;

    /// How far a table's mean may be from 0, in units of `time`: three times as far as that of
    /// netem's own tables.
    pub const MEAN_TOLERANCE: f64 = 0.1;
    /// How far its standard deviation may be from 1; netem's own tables have 0.82 to 1.00.
    pub const DEVIATION_TOLERANCE: f64 = 0.25;

    /// Reads netem's `.dist` format: numbers between blanks, lines with `#` are comments. They are
    /// quantiles, so they do not decrease, and they are normalised, so that `time` is about the
    /// standard deviation: [`MEAN_TOLERANCE`](Self::MEAN_TOLERANCE),
    /// [`DEVIATION_TOLERANCE`](Self::DEVIATION_TOLERANCE).
    pub fn parse(text: &str) -> Result<Self, FileError> {
        let mut entries = Vec::new();
        for row in rows(text) {
            for word in row.text.split_whitespace() {
                let number: i16 = word
                    .parse()
                    .map_err(|_| row.error(word, "a whole number from -32768 to 32767"))?;
                if entries.last().is_some_and(|&last| last > number) {
                    let expected = "a number of at least the one before: quantiles ascend";
                    return Err(row.error(word, expected));
                }
                entries.push(number);
                if entries.len() > Self::MAX_ENTRIES {
                    return Err(row.error(word, "the table's end: it has at most 16384 numbers"));
                }
            }
        }
        if entries.is_empty() {
            return Err(FileError::Empty { expected: "the numbers of a delay distribution" });
        }
        let share = |number: &i16| f64::from(*number) / f64::from(Self::SCALE);
        let count = entries.len() as f64;
        let mean = entries.iter().map(share).sum::<f64>() / count;
        let squares = entries.iter().map(|number| (share(number) - mean).powi(2)).sum::<f64>();
        let deviation = (squares / count).sqrt();
        let not_standard = |moment, found: f64, expected| {
            Err(FileError::NotStandard { moment, found: format!("{found:.4}"), expected })
        };
        if mean.abs() > Self::MEAN_TOLERANCE {
            return not_standard("mean", mean, "a mean from -0.1 to 0.1 times 8192");
        }
        if (deviation - 1.0).abs() > Self::DEVIATION_TOLERANCE {
            let expected = "a standard deviation from 0.75 to 1.25 times 8192";
            return not_standard("standard deviation", deviation, expected);
        }
        Ok(Self(entries.into()))
    }

    /// The quantiles, ascending, never empty.
    pub fn entries(&self) -> &[i16] {
        &self.0
    }
}

impl DelayValues {
    /// Most rows.
    pub const MAX_ENTRIES: usize = 16_384;

    /// Reads two columns: a time, and its probability in percent. A first row without digits is a
    /// heading. The probabilities add up to 100%.
    pub fn parse(text: &str) -> Result<Self, FileError> {
        let mut values = Vec::new();
        let mut sum = 0.0;
        for row in rows(text).skip_while(super::file::Row::is_heading) {
            let [time, probability] = row.columns::<2>("a time and a probability")?;
            let time: SimTime = row.parse(time)?;
            let probability: Probability = row.parse(probability)?;
            sum += probability.as_f64();
            values.push((time, probability));
            if values.len() > Self::MAX_ENTRIES {
                return Err(row.error(row.text, "the table's end: it has at most 16384 rows"));
            }
        }
        if values.is_empty() {
            return Err(FileError::Empty { expected: "rows with a time and a probability" });
        }
        // Printed probabilities are rounded; each may be off by half of the last of a few digits.
        if (sum - 1.0).abs() > 1e-6 {
            return Err(FileError::NotNormalised { percent: format!("{:.6}", sum * 100.0) });
        }
        values.sort_unstable();
        Ok(Self(values.into()))
    }

    /// Times in ascending order with their probabilities, never empty.
    pub fn entries(&self) -> &[(SimTime, Probability)] {
        &self.0
    }
}
