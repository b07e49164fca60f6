//! Levels of factors as quantities.
//!
//! Purpose: on axes, in trends and in the order of levels, `500kbit/s` is less than `1Mbit/s`, and
//! `100us` less than `5ms`. Texts are read as topology files read them.
//!
//! Assumes that levels of one factor are of one kind; those of a factor that mixes kinds, or has texts
//! that are no quantities, are categories and keep their order.
//!
//! Reference: `docs/topology.md`, "Text and values".

use tapestry_core::{ByteCount, DataRate, Probability, SimTime};
use tapestry_topologies::expression::Value;

/// What a level measures.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dimension {
    /// A bare number.
    Number,
    /// Bits per second.
    Rate,
    /// Seconds.
    Time,
    /// Bytes.
    Size,
    /// A share of one, written in percent.
    Share,
}

impl Dimension {
    /// The unit of its numbers; empty for bare ones.
    pub fn unit(self) -> &'static str {
        match self {
            Self::Number | Self::Share => "",
            Self::Rate => "bit/s",
            Self::Time => "s",
            Self::Size => "B",
        }
    }
}

/// A level as a number in the unit of its dimension.
pub fn quantity(level: &Value) -> Option<(Dimension, f64)> {
    if let Some(number) = level.as_f64() {
        return Some((Dimension::Number, number));
    }
    let Value::Text(text) = level else { return None };
    let number = text.parse().ok().filter(|number: &f64| number.is_finite());
    let number = number.map(|number| (Dimension::Number, number));
    let rate = || {
        let rate: DataRate = text.parse().ok()?;
        Some((Dimension::Rate, rate.bits_per_sec() as f64))
    };
    let time = || Some((Dimension::Time, text.parse::<SimTime>().ok()?.as_nanos() as f64 / 1e9));
    let size = || Some((Dimension::Size, text.parse::<ByteCount>().ok()?.as_bytes() as f64));
    let share = || Some((Dimension::Share, text.parse::<Probability>().ok()?.as_f64()));
    number.or_else(rate).or_else(time).or_else(size).or_else(share)
}

/// What all of these levels measure; `None` if they are categories.
pub fn dimension<'a>(levels: impl IntoIterator<Item = &'a Value>) -> Option<Dimension> {
    let mut dimensions = levels.into_iter().map(|level| Some(quantity(level)?.0));
    let first = dimensions.next()??;
    dimensions.all(|dimension| dimension == Some(first)).then_some(first)
}

#[cfg(test)]
mod tests;
