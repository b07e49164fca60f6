//! Comparisons and trends: all that is computed for one report is corrected together.

use std::collections::BTreeMap;

use super::data::{Data, Samples, number};
use crate::levels::dimension;
use crate::stats::compare::{Effect, cliffs_delta, cohens_d, difference, mann_whitney, welch};
use crate::stats::correction::{benjamini_hochberg, holm};
use crate::stats::describe::mean;
use crate::stats::interval::Interval;
use crate::stats::rank::kendall;

/// One metric at one level, beside the baseline, all other settings equal.
#[derive(Debug)]
pub(super) struct Comparison {
    pub(super) metric: String,
    /// The settings that both have.
    pub(super) at: String,
    /// The level.
    pub(super) level: String,
    /// Runs at the baseline and at the level.
    pub(super) counts: (usize, usize),
    pub(super) baseline_mean: f64,
    pub(super) difference: f64,
    /// Of the difference.
    pub(super) interval: Option<Interval>,
    pub(super) d: Option<Effect>,
    pub(super) delta: Option<Effect>,
    /// Mann–Whitney, corrected: any false discovery, and share of false discoveries.
    pub(super) p: Option<Corrected>,
    /// Welch, likewise.
    pub(super) welch_p: Option<Corrected>,
}

/// A p-value, and what is left of it among many.
#[derive(Debug, Clone, Copy)]
pub(super) struct Corrected {
    pub(super) p: f64,
    pub(super) holm: f64,
    pub(super) benjamini_hochberg: f64,
}

/// Every level of the compared factor beside the baseline, for every metric that varies.
pub(super) fn comparisons(data: &Data) -> Vec<Comparison> {
    let Some((factor, baseline)) = data.compared() else { return Vec::new() };
    let confidence = data.plan.report.confidence;
    // Levels of the other factors, by their places: equal for a point and its baseline.
    let others: Vec<&String> = data.factors.keys().filter(|name| *name != factor).collect();
    let rest = |at: usize| -> Vec<Option<usize>> {
        others.iter().map(|name| data.places(name)[at]).collect()
    };
    let mut baselines = BTreeMap::new();
    for (at, settings) in data.points.iter().enumerate() {
        if settings.get(factor) == Some(baseline) {
            baselines.entry(rest(at)).or_insert(at);
        }
    }
    let mut found = Vec::new();
    for (metric, samples) in data.shown().filter(|(_, samples)| !samples.is_constant()) {
        for (at, settings) in data.points.iter().enumerate() {
            if settings.get(factor) == Some(baseline) {
                continue;
            }
            let Some(&base) = baselines.get(&rest(at)) else { continue };
            let level = data.places(factor)[at];
            let (a, b) = (&samples.points[base], &samples.points[at]);
            let (Some(baseline_mean), Some(difference)) = (mean(a), difference(a, b)) else {
                continue;
            };
            let (test, interval) = welch(a, b, confidence).unzip();
            let alone = |p: f64| Corrected { p, holm: p, benjamini_hochberg: p };
            found.push(Comparison {
                metric: metric.clone(),
                at: data.label_without(at, Some(factor)),
                level: level.map_or_else(String::new, |level| data.words(factor)[level].clone()),
                counts: (a.len(), b.len()),
                baseline_mean,
                difference,
                interval,
                d: cohens_d(a, b, confidence),
                delta: cliffs_delta(a, b, confidence),
                p: mann_whitney(a, b).map(|test| alone(test.p)),
                welch_p: test.map(|test| alone(test.p)),
            });
        }
    }
    correct(found.iter_mut().filter_map(|comparison| comparison.p.as_mut()));
    correct(found.iter_mut().filter_map(|comparison| comparison.welch_p.as_mut()));
    // What is sure leads, then the largest effects; those without spread have none that could be
    // named, but differ.
    let size = |c: &Comparison| c.delta.map_or(0.0, |delta| delta.size.abs());
    let strength = |c: &Comparison| c.d.map_or(f64::INFINITY, |d| d.size.abs());
    found.sort_by(|a, b| {
        let sure = b.is_sure().cmp(&a.is_sure());
        sure.then(size(b).total_cmp(&size(a))).then(strength(b).total_cmp(&strength(a)))
    });
    found
}

/// Below this, nothing can be said of a difference.
pub(super) const ENOUGH: usize = 3;

impl Comparison {
    /// Whether there are enough runs to say anything.
    pub(super) fn has_enough(&self) -> bool {
        self.counts.0.min(self.counts.1) >= ENOUGH
    }

    /// Whether the interval of delta excludes that there is no effect.
    pub(super) fn is_sure(&self) -> bool {
        let excludes = |delta: Effect| delta.interval.low > 0.0 || delta.interval.high < 0.0;
        self.has_enough() && self.delta.is_some_and(excludes)
    }
}

fn correct<'a>(values: impl Iterator<Item = &'a mut Corrected>) {
    let values: Vec<&mut Corrected> = values.collect();
    let p: Vec<f64> = values.iter().map(|value| value.p).collect();
    let (by_holm, by_bh) = (holm(&p), benjamini_hochberg(&p));
    for (value, (holm, bh)) in values.into_iter().zip(by_holm.into_iter().zip(by_bh)) {
        (value.holm, value.benjamini_hochberg) = (holm, bh);
    }
}

/// Whether a metric rises with a factor.
#[derive(Debug)]
pub(super) struct Trend {
    pub(super) metric: String,
    pub(super) factor: String,
    pub(super) tau: f64,
    pub(super) p: Corrected,
}

/// Kendall's tau of every metric that varies with every factor that has numbers.
pub(super) fn trends(data: &Data) -> Vec<Trend> {
    let mut found = Vec::new();
    for (metric, samples) in data.shown().filter(|(_, samples)| !samples.is_constant()) {
        for (factor, levels) in &data.factors {
            if dimension(levels).is_none() {
                continue;
            }
            if let Some(test) = kendall(&pairs(data, samples, factor)) {
                let (p, tau) = (test.p, test.statistic);
                let p = Corrected { p, holm: p, benjamini_hochberg: p };
                found.push(Trend { metric: metric.clone(), factor: factor.clone(), tau, p });
            }
        }
    }
    correct(found.iter_mut().map(|trend| &mut trend.p));
    found
}

fn pairs(data: &Data, samples: &Samples, factor: &str) -> Vec<(f64, f64)> {
    let x = |at: usize| data.points[at].get(factor).map(number);
    (0..data.points.len())
        .filter_map(|at| Some((x(at)?, &samples.points[at])))
        .flat_map(|(x, values)| values.iter().map(move |value| (x, *value)))
        .collect()
}
