//! Axes: what they reach over, where their marks are, and how the numbers there are written.

use std::collections::BTreeSet;

use plotters::coord::ranged1d::{BoldPoints, Ranged};
use plotters::coord::types::RangedCoordf64;

use super::text::number;

/// At most so many marks have a number.
pub(super) const MARKS: usize = 11;

/// An axis that holds values and, if it is logarithmic, their logarithms.
#[derive(Debug, Clone, Copy)]
pub(super) struct Axis {
    pub(super) low: f64,
    pub(super) high: f64,
    pub(super) log: bool,
}

impl Axis {
    /// Over values; logarithmic if they are spread over more than a factor of 30.
    pub(super) fn over(values: &[f64], may_be_log: bool) -> Self {
        let finite = values.iter().copied().filter(|value| value.is_finite());
        let low = finite.clone().fold(f64::INFINITY, f64::min);
        let high = finite.fold(f64::NEG_INFINITY, f64::max);
        if low > high {
            return Self { low: 0.0, high: 1.0, log: false };
        }
        let log = may_be_log && low > 0.0 && high / low > 30.0;
        let (low, high) = if log { (low.log10(), high.log10()) } else { (low, high) };
        let margin = if high > low { 0.05 * (high - low) } else { 0.5 * high.abs().max(1e-9) };
        Self { low: low - margin, high: high + margin, log }
    }

    /// The same from zero, where zero is near.
    pub(super) fn with_zero(self) -> Self {
        let near = !self.log && self.low > 0.0 && self.low < 0.5 * self.high;
        if near { Self { low: 0.0, ..self } } else { self }
    }

    pub(super) fn place(&self, value: f64) -> f64 {
        if self.log { value.log10() } else { value }
    }

    /// How the numbers at the marks of a linear axis are written.
    pub(super) fn numbers(&self) -> Numbers {
        Numbers::of(&self.linear_marks())
    }

    /// The numbers at the marks of a linear axis.
    pub(super) fn numbers_at_marks(&self) -> Vec<String> {
        let numbers = self.numbers();
        self.linear_marks().into_iter().map(|mark| numbers.label(mark)).collect()
    }

    fn linear_marks(&self) -> Vec<f64> {
        RangedCoordf64::from(self.low..self.high).key_points(BoldPoints(MARKS))
    }

    /// Values with a mark on a logarithmic axis: the ones that were measured if they are few, else 1, 2
    /// and 5 of each decade, or the decades alone.
    pub(super) fn marks(&self, measured: &[f64]) -> Vec<f64> {
        const FEW: usize = 10;
        let mut values = measured.to_vec();
        values.sort_by(f64::total_cmp);
        values.dedup();
        if values.len() <= FEW {
            return values;
        }
        let parts: &[f64] = if self.high - self.low > 4.0 { &[1.0] } else { &[1.0, 2.0, 5.0] };
        (self.low.floor() as i32..=self.high.ceil() as i32)
            .flat_map(|decade| parts.iter().map(move |part| part * 10_f64.powi(decade)))
            .filter(|value| (self.low..=self.high).contains(&value.log10()))
            .collect()
    }
}

/// Prefixes of units, each with its factor, the largest first; a number below 10,000 needs none.
const PREFIXES: [(f64, &str); 8] = [
    (1e12, "T"),
    (1e9, "G"),
    (1e6, "M"),
    (1e3, "k"),
    (1.0, ""),
    (1e-6, "µ"),
    (1e-9, "n"),
    (1e-12, "p"),
];

/// The prefix that suits a number: `40k`, `9000`, `0.001`, `900µ`.
fn prefix(value: f64) -> (f64, &'static str) {
    let value = value.abs();
    let from = |factor: f64| match factor {
        1e3 => 1e4,
        1.0 => 1e-3,
        factor => factor,
    };
    let fits = |(factor, _): &&(f64, &str)| value >= from(*factor);
    match PREFIXES.iter().find(fits) {
        Some(found) => *found,
        // Zero, and what is too small for any prefix.
        None => (1.0, ""),
    }
}

/// A number by itself, to so many significant digits: `40k`, `0.25`, `1.5M`.
pub(super) fn short(value: f64, digits: usize) -> String {
    let (factor, prefix) = prefix(value);
    format!("{}{prefix}", number(value / factor, digits))
}

/// How the numbers of one axis are written: with one prefix, and decimals that tell them apart.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Numbers {
    factor: f64,
    prefix: &'static str,
    decimals: u8,
}

impl Numbers {
    /// For these values: each is written to within a twentieth of the least distance between two.
    pub(super) fn of(values: &[f64]) -> Self {
        let greatest = values.iter().map(|value| value.abs()).fold(0.0, f64::max);
        let (factor, prefix) = prefix(greatest);
        let mut sorted = values.to_vec();
        sorted.sort_by(f64::total_cmp);
        let gaps = sorted.windows(2).map(|two| two[1] - two[0]);
        // Closer ones are one value, computed twice.
        let least = gaps.filter(|gap| *gap > 1e-12 * greatest).fold(f64::INFINITY, f64::min);
        let gap = if least.is_finite() { least } else { greatest } / factor;
        /// More decimals are not in an f64.
        const MOST: u8 = 15;
        let is_told = |decimals: &u8| {
            let unit = 10_f64.powi(-i32::from(*decimals));
            let error = |value: f64| (value - (value / unit).round() * unit).abs();
            sorted.iter().all(|value| error(value / factor) <= 0.05 * gap)
        };
        Self { factor, prefix, decimals: (0..MOST).find(is_told).unwrap_or(MOST) }
    }

    /// A number as the others of its axis are written, without trailing zeros.
    pub(super) fn label(&self, value: f64) -> String {
        let text = format!("{:.*}", usize::from(self.decimals), value / self.factor);
        let text = if text.contains('.') {
            text.trim_end_matches('0').trim_end_matches('.')
        } else {
            text.as_str()
        };
        match text {
            "0" | "-0" => "0".to_owned(),
            text => format!("{}{}", text.replace('-', "−"), self.prefix),
        }
    }
}

/// The numbers at marks of a logarithmic axis, in ascending order: with one prefix over less than
/// three decades, else each with the one that suits it; with so many digits as tell them apart.
pub(super) fn along_decades(values: &[f64]) -> Vec<String> {
    if let (Some(first), Some(last)) = (values.first(), values.last())
        && *last < 1e3 * first
    {
        let numbers = Numbers::of(values);
        return values.iter().map(|value| numbers.label(*value)).collect();
    }
    distinct(values, 3, |value, digits| short(*value, digits))
}

/// Each value in words with the least number of significant digits, or as many more as make all
/// differ.
pub(super) fn distinct<T>(
    values: &[T],
    least: usize,
    words: impl Fn(&T, usize) -> String,
) -> Vec<String> {
    let written =
        |digits| -> Vec<String> { values.iter().map(|value| words(value, digits)).collect() };
    let differ = |digits: &usize| {
        let known: BTreeSet<String> = written(*digits).into_iter().collect();
        known.len() == values.len()
    };
    written((least..17).find(differ).unwrap_or(17))
}

/// Text of at most so many letters. What is cut out of its middle is shown by an ellipsis: names of
/// points and levels often differ at their ends.
pub(super) fn cut(text: &str, letters: usize) -> String {
    let count = text.chars().count();
    if count <= letters {
        return text.to_owned();
    }
    let kept = letters.saturating_sub(1);
    let tail = kept / 2;
    let head: String = text.chars().take(kept - tail).collect();
    let tail: String = text.chars().skip(count - tail).collect();
    format!("{head}…{tail}")
}

#[cfg(test)]
mod tests;
