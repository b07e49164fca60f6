use super::*;

/// P(U ≤ u) by going through all orders: bit i of a word says whether value i is of the small sample.
fn by_counting(small: usize, large: usize, u: usize) -> f64 {
    let all = small + large;
    let (mut orders, mut below) = (0, 0);
    for word in (0..1_u32 << all).filter(|word| word.count_ones() as usize == small) {
        let wins = (0..all)
            .filter(|at| word >> at & 1 == 1)
            .map(|at| (0..at).filter(|other| word >> other & 1 == 0).count())
            .sum::<usize>();
        orders += 1;
        below += usize::from(wins <= u);
    }
    f64::from(below as u32) / f64::from(orders)
}

#[test]
fn exact_probabilities_are_shares_of_all_orders() {
    for (small, large) in [(1, 1), (1, 9), (2, 3), (3, 7), (5, 5), (6, 9)] {
        for u in 0..=small * large {
            let (ours, theirs) = (exact_lower_tail(small, large, u), by_counting(small, large, u));
            assert!((ours - theirs).abs() < 1e-12, "{small} {large} {u}: {ours} {theirs}");
        }
    }
}

/// Eight values above 250 others: one order of C(258, 8), on either side.
#[test]
fn the_largest_exact_test_is_exact() {
    let a: Vec<f64> = (0..250).map(f64::from).collect();
    let b: Vec<f64> = (1000..1008).map(f64::from).collect();
    let orders: f64 = (1..=8).map(|i| f64::from(250 + i) / f64::from(i)).product();
    let p = mann_whitney(&a, &b).unwrap().p;
    assert!((p * orders / 2.0 - 1.0).abs() < 1e-9, "{p}");
    let whole = exact_lower_tail(8, 250, 2_000);
    assert!((whole - 1.0).abs() < 1e-12, "all orders together: {whole}");
}

/// A few values beside ten thousand take the normal approximation: the exact table would have
/// gigabytes.
#[test]
fn large_samples_are_not_tested_exactly() {
    let a: Vec<f64> = (0..10_000).map(f64::from).collect();
    let b: Vec<f64> = (0..8).map(|at| 20_000.0 + f64::from(at)).collect();
    let test = mann_whitney(&a, &b).unwrap();
    assert!((test.statistic - 80_000.0).abs() < 1e-9);
    // z by hand: (80,000 − 40,000 − 0.5) / √(80,000 · 10,009 / 12).
    let p = 2.0 * Normal::standard().cdf(-39_999.5 / (80_000.0_f64 * 10_009.0 / 12.0).sqrt());
    assert!((test.p / p - 1.0).abs() < 1e-9, "{} and {p}", test.p);
    assert_eq!(mann_whitney(&b, &a).unwrap().p, test.p);
}
