//! Two samples side by side: how far apart they are, and whether that could be chance.

use statrs::distribution::{ContinuousCDF, Normal, StudentsT};

use super::describe::{has_spread, mean, standard_deviation};
use super::interval::Interval;
use super::rank::ranks;

/// A test's statistic and its two-sided p-value.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Test {
    /// The statistic.
    pub statistic: f64,
    /// How likely one at least as extreme is if there is no difference.
    pub p: f64,
}

/// Welch's test of equal means without equal variances (Welch 1947), and the interval of the
/// difference mean(b) − mean(a). `None` if neither sample has spread beyond rounding.
pub fn welch(a: &[f64], b: &[f64], confidence: f64) -> Option<(Test, Interval)> {
    let share = |values: &[f64]| Some(standard_deviation(values)?.powi(2) / values.len() as f64);
    let (va, vb) = (share(a)?, share(b)?);
    let error = (va + vb).sqrt();
    if error == 0.0 {
        return None;
    }
    let difference = difference(a, b)?;
    let freedom =
        (va + vb).powi(2) / (va.powi(2) / (a.len() - 1) as f64 + vb.powi(2) / (b.len() - 1) as f64);
    let distribution = StudentsT::new(0.0, 1.0, freedom).ok()?;
    let statistic = difference / error;
    let p = (2.0 * distribution.cdf(-statistic.abs())).min(1.0);
    let half = distribution.inverse_cdf(f64::midpoint(1.0, confidence)) * error;
    let interval = Interval { low: difference - half, high: difference + half };
    Some((Test { statistic, p }, interval))
}

/// How much greater the mean of `b` is; 0 if nothing differs but by rounding.
pub fn difference(a: &[f64], b: &[f64]) -> Option<f64> {
    let difference = mean(b)? - mean(a)?;
    Some(if differ(a, b) { difference } else { 0.0 })
}

/// The smaller sample of an exact test has at most this many values, as in `SciPy`.
const EXACT: usize = 8;
/// The product of the sizes in an exact test: up to it the numbers of orders are below 2⁵³, hence
/// exact, and computed in microseconds; beyond it the normal approximation is near and, in the tails,
/// careful.
const EXACT_PAIRS: usize = 2_000;

/// Mann–Whitney's test of equal distributions (Mann and Whitney 1947); the statistic is U of `b`.
/// Exact where no value occurs twice, the smaller sample has at most 8 values and the product of the
/// sizes is at most 2,000, else by the normal approximation with corrections for ties and continuity.
/// `None` if nothing differs but by rounding.
pub fn mann_whitney(a: &[f64], b: &[f64]) -> Option<Test> {
    if a.is_empty() || b.is_empty() || !differ(a, b) {
        return None;
    }
    let (na, nb) = (a.len() as f64, b.len() as f64);
    let all: Vec<f64> = a.iter().chain(b).copied().collect();
    let (ranks, ties) = ranks(&all);
    let sum: f64 = ranks[a.len()..].iter().sum();
    let statistic = sum - nb * (nb + 1.0) / 2.0;
    let greater = statistic.max(na * nb - statistic);
    let (small, large) = (a.len().min(b.len()), a.len().max(b.len()));
    if ties == 0.0 && small <= EXACT && large <= EXACT_PAIRS / small {
        let lesser = small * large - greater as usize;
        let p = (2.0 * exact_lower_tail(small, large, lesser)).min(1.0);
        return Some(Test { statistic, p });
    }
    let both = na + nb;
    let variance = na * nb / 12.0 * (both + 1.0 - ties / (both * (both - 1.0)));
    let z = (greater - na * nb / 2.0 - 0.5) / variance.sqrt();
    let p = (2.0 * Normal::standard().cdf(-z)).min(1.0);
    Some(Test { statistic, p })
}

/// Whether the values of both together differ by more than rounding.
fn differ(a: &[f64], b: &[f64]) -> bool {
    has_spread(a.iter().chain(b).copied())
}

/// P(U ≤ u) if all orders of the values are equally likely.
///
/// How many orders give each U are the coefficients of the Gaussian binomial coefficient, the product
/// of (1 − qʲ⁺ⁱ) / (1 − qⁱ) over i from 1 to `small`, with j = `large` (Andrews 1976, The Theory of
/// Partitions, chapter 3): one table of U from 0 to `u`, multiplied and divided in place.
fn exact_lower_tail(small: usize, large: usize, u: usize) -> f64 {
    let mut counts = vec![0.0_f64; u + 1];
    counts[0] = 1.0;
    let mut orders = 1.0;
    for i in 1..=small {
        for value in (large + i..=u).rev() {
            counts[value] -= counts[value - large - i];
        }
        for value in i..=u {
            counts[value] += counts[value - i];
        }
        orders *= (large + i) as f64 / i as f64;
    }
    counts.iter().sum::<f64>() / orders
}

/// An effect size and its interval.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Effect {
    /// The effect of `b` over `a`.
    pub size: f64,
    /// Its interval.
    pub interval: Interval,
}

/// Cohen's *d*, (mean(b) − mean(a)) over the pooled standard deviation, with the interval of Hedges
/// and Olkin 1985. By Cohen 1988, 0.2 is small, 0.5 medium and 0.8 large. `None` without spread
/// beyond rounding.
pub fn cohens_d(a: &[f64], b: &[f64], confidence: f64) -> Option<Effect> {
    let (na, nb) = (a.len() as f64, b.len() as f64);
    let (sa, sb) = (standard_deviation(a)?, standard_deviation(b)?);
    let pooled = (((na - 1.0) * sa.powi(2) + (nb - 1.0) * sb.powi(2)) / (na + nb - 2.0)).sqrt();
    if pooled == 0.0 {
        return None;
    }
    let size = difference(a, b)? / pooled;
    let error = ((na + nb) / (na * nb) + size.powi(2) / (2.0 * (na + nb))).sqrt();
    Some(Effect { size, interval: around(size, error, confidence) })
}

/// Cliff's delta (Cliff 1993): how much more often a value of `b` is greater than one of `a` than the
/// other way round, from −1 to 1, with the interval of its consistent variance estimate. By Romano
/// et al. 2006, 0.147 is small, 0.33 medium and 0.474 large.
///
/// Samples without any overlap have no variance of dominance, and that interval would be a point
/// whatever their size. For them its inner end is (n − z²) / (n + z²), where n is the size of the
/// smaller sample (Feng and Cliff 2004): three runs of each leave even the sign open.
///
/// Values that differ by no more than rounding are equal.
pub fn cliffs_delta(a: &[f64], b: &[f64], confidence: f64) -> Option<Effect> {
    if a.len() < 2 || b.len() < 2 {
        return None;
    }
    if !differ(a, b) && a.iter().chain(b).any(|value| *value != 0.0) {
        return cliffs_delta(&vec![0.0; a.len()], &vec![0.0; b.len()], confidence);
    }
    let (na, nb) = (a.len() as f64, b.len() as f64);
    let (rows, columns) = (dominance(b, a), dominance(a, b));
    let size = mean(&rows)?;
    // Spread of the dominance of single values, over each sample, and of pairs.
    let spread = |parts: &[f64], sign: f64| {
        parts.iter().map(|part| (sign * part - size).powi(2)).sum::<f64>()
    };
    let (by_b, by_a) = (spread(&rows, 1.0), spread(&columns, -1.0));
    let pairs = pairs_spread(a, b, size);
    let variance =
        (na.powi(2) * by_b + nb.powi(2) * by_a - pairs) / (na * nb * (na - 1.0) * (nb - 1.0));
    // Cliff's lower bound keeps an interval from vanishing.
    let variance = variance.max((1.0 - size.powi(2)) / (na * nb - 1.0)).max(0.0);
    let normal = Normal::standard().inverse_cdf(f64::midpoint(1.0, confidence));
    // His interval, which stays within −1 and 1 and need not be symmetric.
    let root = variance.sqrt() * ((1.0 - size.powi(2)).powi(2) + normal.powi(2) * variance).sqrt();
    let under = 1.0 - size.powi(2) + normal.powi(2) * variance;
    let interval = if size.abs() >= 1.0 {
        let least = na.min(nb);
        let inner = (least - normal.powi(2)) / (least + normal.powi(2));
        if size > 0.0 {
            Interval { low: inner, high: 1.0 }
        } else {
            Interval { low: -1.0, high: -inner }
        }
    } else {
        let end =
            |sign: f64| ((size - size.powi(3) + sign * normal * root) / under).clamp(-1.0, 1.0);
        Interval { low: end(-1.0), high: end(1.0) }
    };
    Some(Effect { size, interval })
}

/// For each of `values`, the share of `others` below it less the share above it.
fn dominance(values: &[f64], others: &[f64]) -> Vec<f64> {
    let others = super::describe::sorted(others);
    let count = others.len() as f64;
    let of = |value: &f64| {
        let below = others.partition_point(|other| other < value) as f64;
        let above = count - others.partition_point(|other| other <= value) as f64;
        (below - above) / count
    };
    values.iter().map(of).collect()
}

/// Sum over all pairs of (sign(b − a) − size)².
fn pairs_spread(a: &[f64], b: &[f64], size: f64) -> f64 {
    let sorted = super::describe::sorted(a);
    let count = sorted.len() as f64;
    b.iter()
        .map(|value| {
            let below = sorted.partition_point(|other| other < value) as f64;
            let above = count - sorted.partition_point(|other| other <= value) as f64;
            let equal = count - below - above;
            below * (1.0 - size).powi(2) + above * (1.0 + size).powi(2) + equal * size.powi(2)
        })
        .sum()
}

fn around(size: f64, error: f64, confidence: f64) -> Interval {
    let half = Normal::standard().inverse_cdf(f64::midpoint(1.0, confidence)) * error;
    Interval { low: size - half, high: size + half }
}

#[cfg(test)]
mod tests;
