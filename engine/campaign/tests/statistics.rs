//! The statistics agree with `SciPy` (values by `data/reference.py`).

use serde_json::Value;
use tapestry_campaign::stats::{compare, correction, describe, interval, rank};

fn reference() -> Value {
    serde_json::from_str(include_str!("data/statistics.json")).unwrap()
}

fn numbers(value: &Value) -> Vec<f64> {
    value.as_array().unwrap().iter().map(|number| number.as_f64().unwrap()).collect()
}

fn sample(reference: &Value, name: &Value) -> Vec<f64> {
    numbers(&reference["samples"][name.as_str().unwrap()])
}

/// Equal to seven digits (quantiles of Student's distribution are not known better), or to 1e-12.
#[track_caller]
fn same(ours: f64, theirs: &Value, what: &str) {
    let theirs = theirs.as_f64().unwrap();
    let far = (ours - theirs).abs();
    assert!(far <= 1e-7 * theirs.abs() || far < 1e-12, "{what}: {ours} and {theirs}");
}

#[test]
fn one_sample() {
    let reference = reference();
    for (name, expected) in reference["single"].as_object().unwrap() {
        let values = numbers(&reference["samples"][name]);
        same(describe::mean(&values).unwrap(), &expected["mean"], name);
        same(describe::standard_deviation(&values).unwrap(), &expected["sd"], name);
        let sorted = describe::sorted(&values);
        for (share, quantile) in expected["quantiles"].as_object().unwrap() {
            same(describe::quantile(&sorted, share.parse().unwrap()).unwrap(), quantile, share);
        }
        for (confidence, key) in [(0.95, "student95"), (0.99, "student99")] {
            let found = interval::student(&values, confidence).unwrap();
            same(found.low, &expected[key][0], name);
            same(found.high, &expected[key][1], name);
        }
        for (ours, theirs) in describe::robust_z(&values)
            .unwrap()
            .iter()
            .zip(expected["robust_z"].as_array().unwrap())
        {
            same(*ours, theirs, name);
        }
    }
}

/// Both draw at random: ours 2,000 times, `SciPy` 200,000 times.
#[test]
fn the_bootstrap_is_near() {
    let reference = reference();
    for (name, expected) in reference["single"].as_object().unwrap() {
        let values = numbers(&reference["samples"][name]);
        let found = interval::bootstrap(&values, 0.95).unwrap();
        let theirs = numbers(&expected["bca95"]);
        let width = theirs[1] - theirs[0];
        for (ours, theirs) in [(found.low, theirs[0]), (found.high, theirs[1])] {
            assert!((ours - theirs).abs() < 0.06 * width, "{name}: {found:?} and {theirs:?}");
        }
        assert_eq!(interval::bootstrap(&values, 0.95), Some(found), "the same again");
    }
}

#[test]
fn two_samples() {
    let reference = reference();
    for expected in reference["two"].as_array().unwrap() {
        let (a, b) = (sample(&reference, &expected["a"]), sample(&reference, &expected["b"]));
        let name = expected["a"].as_str().unwrap();
        let (test, difference) = compare::welch(&a, &b, 0.95).unwrap();
        same(test.statistic, &expected["welch_t"], name);
        same(test.p, &expected["welch_p"], name);
        same(difference.low, &expected["difference95"][0], name);
        same(difference.high, &expected["difference95"][1], name);
        let test = compare::mann_whitney(&a, &b).unwrap();
        same(test.statistic, &expected["mann_whitney_u"], name);
        same(test.p, &expected["mann_whitney_p"], name);
        let d = compare::cohens_d(&a, &b, 0.95).unwrap();
        same(d.size, &expected["cohens_d"], name);
        assert!(d.interval.low < d.size && d.size < d.interval.high);
        let delta = compare::cliffs_delta(&a, &b, 0.95).unwrap();
        same(delta.size, &expected["cliffs_delta"], name);
        assert!(delta.interval.low <= delta.size && delta.size <= delta.interval.high);
        assert!(delta.interval.low >= -1.0 && delta.interval.high <= 1.0);
    }
}

/// Feng and Cliff 2004: samples without overlap, by hand with z = 1.959964.
#[test]
fn samples_without_overlap_are_not_certain() {
    for (count, inner) in
        [(2, -0.315_2), (3, -0.123_0), (4, 0.020_2), (10, 0.444_9), (100, 0.926_0)]
    {
        let a: Vec<f64> = (0..count).map(f64::from).collect();
        let b: Vec<f64> = (0..count + 5).map(|value| f64::from(value) + 1000.0).collect();
        let up = compare::cliffs_delta(&a, &b, 0.95).unwrap();
        let down = compare::cliffs_delta(&b, &a, 0.95).unwrap();
        assert!((up.size - 1.0).abs() < 1e-12 && (down.size + 1.0).abs() < 1e-12);
        assert!((up.interval.low - inner).abs() < 1e-4, "{count}: {up:?}");
        assert!((up.interval.high - 1.0).abs() < 1e-12);
        assert!((down.interval.high + inner).abs() < 1e-4, "{count}: {down:?}");
    }
}

#[test]
fn correlation() {
    for expected in reference()["kendall"].as_array().unwrap() {
        let (x, y) = (numbers(&expected["x"]), numbers(&expected["y"]));
        let pairs: Vec<(f64, f64)> = x.into_iter().zip(y).collect();
        let found = rank::kendall(&pairs).unwrap();
        same(found.statistic, &expected["tau"], "tau");
        same(found.p, &expected["p"], "p");
    }
}

#[test]
fn many_comparisons() {
    let reference = reference();
    let p = numbers(&reference["p"]);
    for (ours, key) in
        [(correction::holm(&p), "holm"), (correction::benjamini_hochberg(&p), "benjamini_hochberg")]
    {
        for (ours, theirs) in ours.iter().zip(reference[key].as_array().unwrap()) {
            same(*ours, theirs, key);
        }
    }
}

#[test]
fn figures_that_do_not_exist_are_none() {
    let (none, one, flat) = ([], [1.0], [2.0, 2.0, 2.0]);
    assert_eq!(describe::mean(&none), None);
    assert_eq!(describe::standard_deviation(&one), None);
    assert_eq!(describe::quantile(&none, 0.5), None);
    assert_eq!(describe::robust_z(&flat), None);
    assert_eq!(interval::student(&one, 0.95), None);
    assert_eq!(interval::bootstrap(&flat, 0.95), None);
    assert_eq!(compare::welch(&flat, &flat, 0.95), None);
    assert_eq!(compare::cohens_d(&flat, &flat, 0.95), None);
    assert_eq!(compare::mann_whitney(&none, &flat), None);
    assert_eq!(compare::mann_whitney(&flat, &flat), None);
    assert_eq!(rank::kendall(&[(1.0, 1.0), (1.0, 2.0)]), None);
    assert!(correction::holm(&none).is_empty());
}

/// By hand: whiskers end at values, and what lies beyond 1.5 quartile distances stands alone.
#[test]
fn a_box_plot() {
    let found = describe::five_numbers(&[1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 30.0]).unwrap();
    assert_eq!(format!("{:?}", found.quartiles), "[2.75, 4.5, 6.25]");
    assert_eq!(format!("{} {}", found.low, found.high), "1 7");
    assert_eq!(format!("{:?}", found.outside), "[30.0]");
}

mod properties {
    use proptest::prelude::*;
    use tapestry_campaign::stats::{compare, correction, interval, rank};

    proptest! {
        #[test]
        fn nothing_is_ever_nan(
            a in prop::collection::vec(-1e6..1e6_f64, 0..40),
            b in prop::collection::vec(0..5_i8, 0..40),
        ) {
            let b: Vec<f64> = b.into_iter().map(f64::from).collect();
            for (x, y) in [(&a, &b), (&b, &a), (&b, &b)] {
                if let Some((test, interval)) = compare::welch(x, y, 0.95) {
                    prop_assert!((0.0..=1.0).contains(&test.p) && interval.low <= interval.high);
                }
                if let Some(test) = compare::mann_whitney(x, y) {
                    prop_assert!((0.0..=1.0).contains(&test.p));
                }
                if let Some(effect) = compare::cliffs_delta(x, y, 0.95) {
                    prop_assert!((-1.0..=1.0).contains(&effect.size));
                    prop_assert!(effect.interval.low <= effect.interval.high);
                }
                if let Some(effect) = compare::cohens_d(x, y, 0.95) {
                    prop_assert!(effect.size.is_finite());
                }
                let pairs: Vec<(f64, f64)> = x.iter().copied().zip(y.iter().copied()).collect();
                if let Some(tau) = rank::kendall(&pairs) {
                    prop_assert!(tau.statistic.abs() <= 1.0 + 1e-12 && (0.0..=1.0).contains(&tau.p));
                }
            }
            for values in [&a, &b] {
                for found in [interval::student(values, 0.9), interval::bootstrap(values, 0.9)] {
                    prop_assert!(found.is_none_or(|found| found.low <= found.high));
                }
            }
        }

        #[test]
        fn corrections_never_make_p_smaller(p in prop::collection::vec(0.0..=1.0_f64, 0..30)) {
            for adjusted in [correction::holm(&p), correction::benjamini_hochberg(&p)] {
                prop_assert!(adjusted.iter().zip(&p).all(|(q, p)| q >= p && *q <= 1.0));
            }
        }
    }
}
