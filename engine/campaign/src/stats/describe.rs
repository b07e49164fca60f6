//! What one sample is like.

/// Differences below this share of the values' magnitude are rounding, not spread: sums of thousands
/// of numbers and conversions of units are wrong by less, and no measurement has so many digits.
const ROUNDING: f64 = 1e-12;

/// Whether values differ by more than rounding.
pub fn has_spread(values: impl IntoIterator<Item = f64>) -> bool {
    let (mut low, mut high) = (f64::INFINITY, f64::NEG_INFINITY);
    for value in values {
        (low, high) = (low.min(value), high.max(value));
    }
    high - low > ROUNDING * low.abs().max(high.abs())
}

/// Arithmetic mean; that of equal values is their value.
pub fn mean(values: &[f64]) -> Option<f64> {
    if values.is_empty() {
        return None;
    }
    let count = values.len() as f64;
    let rough = values.iter().sum::<f64>() / count;
    // What the sum's rounding left over.
    let rest = values.iter().map(|value| value - rough).sum::<f64>() / count;
    Some(if rest.is_finite() { rough + rest } else { rough })
}

/// Standard deviation of the population a sample is from (divisor n − 1); 0 if the values differ by
/// no more than rounding, 10⁻¹² of their magnitude.
pub fn standard_deviation(values: &[f64]) -> Option<f64> {
    if values.len() < 2 {
        return None;
    }
    if !has_spread(values.iter().copied()) {
        return Some(0.0);
    }
    let mean = mean(values)?;
    // Two passes: no cancellation where the spread is small beside the mean.
    let squares: f64 = values.iter().map(|value| (value - mean).powi(2)).sum();
    Some((squares / (values.len() - 1) as f64).sqrt())
}

/// The values in ascending order.
pub fn sorted(values: &[f64]) -> Vec<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted
}

/// Quantile at `share` (0–1) of sorted values, linear between neighbours: type 7 of Hyndman and Fan
/// 1996, the default of R and `NumPy`.
pub fn quantile(sorted: &[f64], share: f64) -> Option<f64> {
    let last = sorted.len().checked_sub(1)?;
    let place = share.clamp(0.0, 1.0) * last as f64;
    let below = place.floor() as usize;
    let above = (below + 1).min(last);
    Some(sorted[below] + (sorted[above] - sorted[below]) * (place - below as f64))
}

/// Median.
pub fn median(values: &[f64]) -> Option<f64> {
    quantile(&sorted(values), 0.5)
}

/// The figures of a box plot (Tukey 1977): whiskers reach to the last value within 1.5 times the
/// distance of the quartiles.
#[derive(Debug, Clone, PartialEq)]
pub struct FiveNumbers {
    /// Lower whisker.
    pub low: f64,
    /// Quartiles.
    pub quartiles: [f64; 3],
    /// Upper whisker.
    pub high: f64,
    /// Values beyond the whiskers.
    pub outside: Vec<f64>,
}

/// The figures of a box plot.
pub fn five_numbers(values: &[f64]) -> Option<FiveNumbers> {
    let sorted = sorted(values);
    let quartiles = [quantile(&sorted, 0.25)?, quantile(&sorted, 0.5)?, quantile(&sorted, 0.75)?];
    let reach = 1.5 * (quartiles[2] - quartiles[0]);
    let fences = [quartiles[0] - reach, quartiles[2] + reach];
    let inside = |value: &&f64| (fences[0]..=fences[1]).contains(*value);
    let low = *sorted.iter().find(inside)?;
    let high = *sorted.iter().rev().find(inside)?;
    let outside = sorted.iter().copied().filter(|value| !inside(&value)).collect();
    Some(FiveNumbers { low, quartiles, high, outside })
}

/// Robust z-scores: 0.6745 times the distance from the median over the median absolute deviation.
/// Values beyond ±3.5 are suspects (Iglewicz and Hoaglin 1993). `None` if more than half of the
/// values are equal, but for rounding.
pub fn robust_z(values: &[f64]) -> Option<Vec<f64>> {
    let middle = median(values)?;
    let distances: Vec<f64> = values.iter().map(|value| (value - middle).abs()).collect();
    let deviation = median(&distances)?;
    // The third quartile of the standard normal distribution.
    const QUARTILE: f64 = 0.6745;
    (deviation > ROUNDING * middle.abs())
        .then(|| values.iter().map(|value| QUARTILE * (value - middle) / deviation).collect())
}

#[cfg(test)]
mod tests;
