//! Confidence intervals of means.

use rand::RngExt;
use statrs::distribution::{ContinuousCDF, Normal, StudentsT};
use tapestry_core::Streams;

use super::describe::{has_spread, mean, quantile, standard_deviation};

/// An interval that holds the true figure with a stated confidence.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Interval {
    /// Its lower end.
    pub low: f64,
    /// Its upper end.
    pub high: f64,
}

/// Student's interval of the mean (Student 1908); `confidence` is a share. Needs two values.
pub fn student(values: &[f64], confidence: f64) -> Option<Interval> {
    let (mean, deviation) = (mean(values)?, standard_deviation(values)?);
    let count = values.len() as f64;
    let t = StudentsT::new(0.0, 1.0, count - 1.0).ok()?.inverse_cdf(f64::midpoint(1.0, confidence));
    let half = t * deviation / count.sqrt();
    Some(Interval { low: mean - half, high: mean + half })
}

/// How many times a sample is drawn again.
const RESAMPLES: usize = 2_000;
/// Beyond this, Student's interval is as good and the bootstrap slow.
const LARGE: usize = 2_000;

/// Bootstrap interval of the mean, bias-corrected and accelerated (Efron 1987). It makes no
/// assumption about the distribution, but needs some ten values to be worth it. The same values give
/// the same interval: draws come from a named stream. Needs two different values.
pub fn bootstrap(values: &[f64], confidence: f64) -> Option<Interval> {
    let observed = mean(values)?;
    if values.len() > LARGE {
        return student(values, confidence);
    }
    if !has_spread(values.iter().copied()) {
        return None;
    }
    let mut random = Streams::new(values.len() as u64, 0).stream("", "campaign/bootstrap");
    let count = values.len();
    let mut means: Vec<f64> = (0..RESAMPLES)
        .map(|_| {
            let sum: f64 = (0..count).map(|_| values[random.random_range(0..count)]).sum();
            sum / count as f64
        })
        .collect();
    means.sort_by(f64::total_cmp);
    let normal = Normal::standard();
    // Bias: where the observed mean lies among the resampled ones; ties count half.
    let below = means.partition_point(|mean| *mean < observed) as f64;
    let equal = means.partition_point(|mean| *mean <= observed) as f64 - below;
    let bias = normal.inverse_cdf((below + equal / 2.0) / RESAMPLES as f64);
    // Acceleration: the skewness of the means that leave one value out.
    let left_out: Vec<f64> = values
        .iter()
        .map(|value| (observed * count as f64 - value) / (count as f64 - 1.0))
        .collect();
    let centre = mean(&left_out)?;
    let moment = |power: i32| left_out.iter().map(|mean| (centre - mean).powi(power)).sum::<f64>();
    let acceleration = moment(3) / (6.0 * moment(2).powf(1.5));
    let end = |share: f64| {
        let z = normal.inverse_cdf(share) + bias;
        let adjusted = normal.cdf(bias + z / (1.0 - acceleration * z));
        quantile(&means, adjusted).filter(|_| adjusted.is_finite())
    };
    let tail = (1.0 - confidence) / 2.0;
    Some(Interval { low: end(tail)?, high: end(1.0 - tail)? })
}
