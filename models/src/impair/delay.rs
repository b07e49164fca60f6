//! The random part of a delay.
//!
//! Purpose: a time to add to each frame's delay, possibly negative.
//!
//! Assumptions: a distribution is a table of quantiles; a frame's draw chooses the entry. Tables
//! for the named distributions follow netem's, entry by entry, and are computed from the formulas:
//! normal Φ⁻¹(i/n); Pareto with exponent 3, ((1 − i/n)^(−1/3) − 3/2)·4/3; Pareto-normal a quarter
//! of the one and three quarters of the other, quantile by quantile. As in netem, entries are cut
//! off at ±4, so that the Pareto tail ends there and its mean is 0.03 below zero.
//!
//! Reference: tc-netem(8); `tabledist` of the kernel's `sch_netem.c`. There the entry is the draw
//! modulo the table's length, which destroys the correlation; here it is the draw's share of it.

use std::sync::LazyLock;

use statrs::distribution::{ContinuousCDF, Normal};
use tapestry_core::RandomStream;
use tapestry_core::link::{DelayTable, Distribution, Jitter};

use super::chance::Correlated;

#[derive(Debug)]
pub(super) struct JitterModel {
    source: Correlated,
    time_nanos: f64,
    shape: Shape,
}

#[derive(Debug)]
enum Shape {
    Uniform,
    Named(&'static [i16]),
    Table(DelayTable),
    /// Upper ends of the ranges of draws, and the times that they stand for in nanoseconds.
    Values(Box<[(f64, i64)]>),
}

impl JitterModel {
    pub(super) fn new(jitter: &Jitter) -> Self {
        let shape = match &jitter.distribution {
            Distribution::Uniform => Shape::Uniform,
            Distribution::Normal => Shape::Named(&NORMAL),
            Distribution::Pareto => Shape::Named(&PARETO),
            Distribution::ParetoNormal => Shape::Named(&PARETO_NORMAL),
            Distribution::Table(table) => Shape::Table(table.clone()),
            Distribution::Values(values) => {
                let mut sum = 0.0;
                let ranges = values.entries().iter().map(|(time, probability)| {
                    sum += probability.as_f64();
                    (sum, i64::try_from(time.as_nanos()).unwrap_or(i64::MAX))
                });
                Shape::Values(ranges.collect())
            }
        };
        Self {
            source: Correlated::new(jitter.correlation.as_f64()),
            time_nanos: jitter.time.as_nanos() as f64,
            shape,
        }
    }

    /// The next frame's deviation in nanoseconds; one draw.
    pub(super) fn next_nanos(&mut self, random: &mut RandomStream) -> i64 {
        let draw = self.source.next(random);
        let entry = |table: &[i16]| {
            let at = (draw * table.len() as f64) as usize;
            f64::from(table.get(at).copied().unwrap_or_default()) / f64::from(DelayTable::SCALE)
        };
        let deviation = match &self.shape {
            Shape::Uniform => 2.0 * draw - 1.0,
            Shape::Named(table) => entry(table),
            Shape::Table(table) => entry(table.entries()),
            Shape::Values(ranges) => {
                let at = ranges.partition_point(|&(end, _)| end <= draw).min(ranges.len() - 1);
                return ranges[at].1;
            }
        };
        (deviation * self.time_nanos).round() as i64
    }
}

/// netem's tables have so many entries.
const ENTRIES: usize = 4_096;

static NORMAL: LazyLock<Box<[i16]>> = LazyLock::new(|| {
    let normal = Normal::standard();
    table(|share| if share == 0.0 { f64::NEG_INFINITY } else { normal.inverse_cdf(share) })
});

static PARETO: LazyLock<Box<[i16]>> =
    LazyLock::new(|| table(|share| ((1.0 - share).powf(-1.0 / 3.0) - 1.5) * 4.0 / 3.0));

static PARETO_NORMAL: LazyLock<Box<[i16]>> = LazyLock::new(|| {
    let both = NORMAL.iter().zip(PARETO.iter());
    both.map(|(&normal, &pareto)| {
        (0.25 * f64::from(normal) + 0.75 * f64::from(pareto)).round() as i16
    })
    .collect()
});

/// The quantiles at 0/n, 1/n, … of a distribution, in netem's scale; the cast saturates.
fn table(quantile: impl Fn(f64) -> f64) -> Box<[i16]> {
    let scale = f64::from(DelayTable::SCALE);
    (0..ENTRIES).map(|i| (quantile(i as f64 / ENTRIES as f64) * scale).trunc() as i16).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_have_netems_entries() {
        // From iproute2's normal.dist, pareto.dist and paretonormal.dist: quantiles k/8 and the end.
        for (ours, theirs, tolerance) in [
            // Their normal table was made by counting, which is off by a few units in the tails.
            (&*NORMAL, [-32_768, -9_423, -5_525, -2_610, 0, 2_611, 5_526, 9_424], 4),
            (&*PARETO, [-5_461, -4_964, -4_362, -3_609, -2_622, -1_237, 955, 5_461], 1),
            (&*PARETO_NORMAL, [-12_305, -6_078, -4_652, -3_359, -1_966, -275, 2_097, 6_451], 20),
        ] {
            for (k, theirs) in theirs.into_iter().enumerate() {
                let ours = i32::from(ours[k * ENTRIES / 8]);
                assert!((ours - theirs).abs() <= tolerance, "{k}/8: {ours}, netem {theirs}");
            }
        }
        assert_eq!(PARETO[ENTRIES - 1], i16::MAX);
    }
}
