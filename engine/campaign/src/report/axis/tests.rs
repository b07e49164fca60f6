use proptest::prelude::*;

use super::*;

fn labels(low: f64, high: f64) -> Vec<String> {
    Axis { low, high, log: false }.numbers_at_marks()
}

#[test]
fn digits_follow_the_step_of_the_axis() {
    assert_eq!(labels(999.0, 1_031.0), ["1000", "1005", "1010", "1015", "1020", "1025", "1030"]);
    let tens_of_thousands = labels(180_000.0, 180_041.0);
    assert_eq!(tens_of_thousands[..2], ["180k", "180.005k"], "{tens_of_thousands:?}");
    assert_eq!(labels(0.0, 1.0)[..3], ["0", "0.1", "0.2"]);
}

/// `900µ` does not stand beside `0.001`, nor `9500` beside `10k`.
#[test]
fn an_axis_has_one_prefix() {
    assert_eq!(labels(0.000_85, 0.001_15)[..2], ["0.00085", "0.0009"]);
    assert_eq!(labels(9_000.0, 11_000.0)[..2], ["9k", "9.2k"]);
    assert_eq!(labels(-2e6, 2e6).first().unwrap(), "−2M");
    assert_eq!(along_decades(&[9e-4, 1e-3, 3e-2]), ["0.0009", "0.001", "0.03"]);
    assert_eq!(along_decades(&[5e5, 1e7, 1e9]), ["500k", "10M", "1G"]);
}

#[test]
fn marks_that_are_near_each_other_differ() {
    assert_eq!(along_decades(&[1.0, 1_000_000.0, 1_001_000.0]), ["1", "1M", "1.001M"]);
    assert_eq!(along_decades(&[1_000.0, 1_001.0, 1_002.0]), ["1000", "1001", "1002"]);
}

#[test]
fn long_texts_have_an_ellipsis() {
    assert_eq!(cut("short", 5), "short");
    assert_eq!(cut("name of level 3", 8), "name…l 3");
    assert_eq!(cut("ääää", 3), "ä…ä");
    assert_eq!(cut("long", 0), "…");
}

proptest! {
    #[test]
    fn no_axis_repeats_a_label(from in -1e3..1e3_f64, power in -9..9_i32, width in -6.0..3.0_f64) {
        let low = from * 10_f64.powi(power);
        let high = low + low.abs().max(1e-9) * 10_f64.powf(width);
        let found = labels(low, high);
        let known: BTreeSet<&String> = found.iter().collect();
        prop_assert_eq!(known.len(), found.len(), "{:?}", found);
        let prefix = |label: &String| label.chars().last().filter(|c| !c.is_ascii_digit());
        let prefixes: BTreeSet<_> = found.iter().filter(|l| *l != "0").map(prefix).collect();
        prop_assert!(prefixes.len() <= 1, "{:?}", found);
    }
}
