use super::*;
use crate::stats::{compare, interval};

/// The sum of ten times 0.4 is not 4, yet the values are equal.
#[test]
fn equal_values_have_no_spread() {
    let flat = [0.4; 10];
    assert_eq!(mean(&flat), Some(0.4));
    assert_eq!(standard_deviation(&flat), Some(0.0));
    assert_eq!(standard_deviation(&[0.1 + 0.2, 0.3, 0.3]), Some(0.0), "but for rounding");
    assert_eq!(standard_deviation(&[-1e-100, 1e-100]).map(|s| s > 0.0), Some(true));
}

/// What little spread there is counts.
#[test]
fn small_spread_beside_a_large_mean_is_kept() {
    let values = [1e9 + 1.0, 1e9 + 2.0, 1e9 + 3.0];
    assert!((standard_deviation(&values).unwrap() - 1.0).abs() < 1e-6);
    assert!(has_spread([1.0, 1.0 + 1e-11]) && !has_spread([1.0, 1.0 + 1e-13]));
    assert!(!has_spread([0.0, 0.0]) && !has_spread([]));
}

#[test]
fn rounding_is_no_effect() {
    let (a, b) = ([0.4; 10], [0.1 + 0.3, 0.7 - 0.3, 0.4 + 1e-16, 0.399_999_999_999_999_97]);
    assert_eq!(compare::cohens_d(&a, &b, 0.95), None);
    assert_eq!(compare::welch(&a, &b, 0.95), None);
    assert_eq!(compare::mann_whitney(&a, &b), None);
    assert_eq!(compare::difference(&a, &b), Some(0.0));
    assert_eq!(interval::bootstrap(&b, 0.95), None);
    assert_eq!(robust_z(&b), None);
    let delta = compare::cliffs_delta(&a, &b, 0.95).unwrap();
    assert!(delta.size == 0.0 && delta.interval.low < 0.0 && delta.interval.high > 0.0);
    // Levels that do differ have no standardised effect without spread, but all orders agree.
    let other = [0.5; 10];
    assert_eq!(compare::cohens_d(&a, &other, 0.95), None);
    assert!((compare::cliffs_delta(&a, &other, 0.95).unwrap().size - 1.0).abs() < 1e-12);
    assert!((compare::difference(&a, &other).unwrap() - 0.1).abs() < 1e-12);
}
