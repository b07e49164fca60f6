//! Figures of the order of values alone.

use statrs::distribution::{ContinuousCDF, Normal};

use super::compare::Test;

/// Ranks from 1, ties sharing the mean of theirs, in the order of the values; and Σ(t³ − t) over
/// groups of t equal values.
pub fn ranks(values: &[f64]) -> (Vec<f64>, f64) {
    let mut order: Vec<usize> = (0..values.len()).collect();
    order.sort_by(|a, b| values[*a].total_cmp(&values[*b]));
    let mut ranks = vec![0.0; values.len()];
    let mut ties = 0.0;
    let mut at = 0;
    while at < order.len() {
        let same = order[at..].iter().take_while(|i| values[**i] == values[order[at]]).count();
        for i in &order[at..at + same] {
            ranks[*i] = at as f64 + f64::midpoint(same as f64, 1.0);
        }
        ties += (same as f64).powi(3) - same as f64;
        at += same;
    }
    (ranks, ties)
}

/// Beyond this the exact distribution is as good as normal.
const EXACT: usize = 33;

/// Kendall's tau-b of pairs `(x, y)` (Kendall 1945), from −1 to 1: does `y` rise with `x`? The
/// p-value is exact for at most 33 pairs without ties, else by the normal approximation. `None` if
/// all `x` or all `y` are equal.
pub fn kendall(pairs: &[(f64, f64)]) -> Option<Test> {
    let count = pairs.len();
    let n = count as f64;
    let mut sorted = pairs.to_vec();
    sorted.sort_by(|a, b| a.0.total_cmp(&b.0).then(a.1.total_cmp(&b.1)));
    let all = n * (n - 1.0) / 2.0;
    let x = Ties::of(sorted.iter().map(|pair| pair.0));
    let both = Ties::of_by(sorted.iter().copied(), |a, b| a == b);
    let mut ys: Vec<f64> = sorted.iter().map(|pair| pair.1).collect();
    let discordant = inversions(&mut ys) as f64;
    let y = Ties::of(ys.iter().copied());
    let concordant = all - x.pairs - y.pairs + both.pairs - discordant;
    let under = ((all - x.pairs) * (all - y.pairs)).sqrt();
    if under == 0.0 || !under.is_finite() {
        return None;
    }
    let difference = concordant - discordant;
    let statistic = difference / under;
    if x.pairs == 0.0 && y.pairs == 0.0 && count <= EXACT {
        return Some(Test { statistic, p: exact(count, discordant.min(concordant) as usize) });
    }
    // Kendall 1970, section 5.5: variance of the difference with ties.
    let v0 = n * (n - 1.0) * (2.0 * n + 5.0);
    let v1 = 2.0 * x.pairs * 2.0 * y.pairs / (2.0 * n * (n - 1.0));
    let v2 = if count > 2 { x.v2 * y.v2 / (9.0 * n * (n - 1.0) * (n - 2.0)) } else { 0.0 };
    let variance = (v0 - x.v0 - y.v0) / 18.0 + v1 + v2;
    let p = 2.0 * Normal::standard().cdf(-(difference / variance.sqrt()).abs());
    p.is_finite().then_some(Test { statistic, p: p.min(1.0) })
}

/// Sums over groups of t equal neighbours.
#[derive(Default)]
struct Ties {
    /// t (t − 1) / 2: pairs that are tied.
    pairs: f64,
    /// t (t − 1) (2 t + 5).
    v0: f64,
    /// t (t − 1) (t − 2).
    v2: f64,
}

impl Ties {
    fn of(sorted: impl Iterator<Item = f64>) -> Self {
        Self::of_by(sorted, |a, b| a == b)
    }

    fn of_by<T: Copy>(sorted: impl Iterator<Item = T>, same: impl Fn(&T, &T) -> bool) -> Self {
        let mut ties = Self::default();
        let mut group: Option<(T, f64)> = None;
        let mut close = |group: Option<(T, f64)>| {
            if let Some((_, t)) = group {
                ties.pairs += t * (t - 1.0) / 2.0;
                ties.v0 += t * (t - 1.0) * (2.0 * t + 5.0);
                ties.v2 += t * (t - 1.0) * (t - 2.0);
            }
        };
        for value in sorted {
            match &mut group {
                Some((of, t)) if same(of, &value) => *t += 1.0,
                _ => close(group.replace((value, 1.0))),
            }
        }
        close(group);
        ties
    }
}

/// Sorts, and counts the pairs that stood in the wrong order (Knight 1966).
fn inversions(values: &mut Vec<f64>) -> u64 {
    if values.len() < 2 {
        return 0;
    }
    let mut right = values.split_off(values.len() / 2);
    let mut count = inversions(values) + inversions(&mut right);
    let left = std::mem::take(values);
    let (mut i, mut j) = (0, 0);
    while i < left.len() || j < right.len() {
        if j == right.len() || (i < left.len() && left[i] <= right[j]) {
            values.push(left[i]);
            i += 1;
        } else {
            count += (left.len() - i) as u64;
            values.push(right[j]);
            j += 1;
        }
    }
    count
}

/// Two-sided p-value if `fewer` is the smaller of the numbers of discordant and concordant pairs:
/// the share of permutations with at most so many inversions, doubled.
fn exact(count: usize, fewer: usize) -> f64 {
    let mut ways = vec![1.0_f64];
    for n in 2..=count {
        // Each further value makes from 0 to n − 1 new inversions; shares keep the numbers small.
        let mut next = vec![0.0; ways.len() + n - 1];
        for (at, share) in ways.iter().enumerate() {
            next[at..at + n].iter_mut().for_each(|to| *to += share / n as f64);
        }
        ways = next;
    }
    (2.0 * ways.iter().take(fewer + 1).sum::<f64>()).min(1.0)
}
