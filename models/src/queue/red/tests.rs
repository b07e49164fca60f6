use tapestry_core::Probability;

use super::super::tests::{Bench, datagram, random};
use super::super::{Limit, QueueConfig};
use super::*;

fn red(config: &RedConfig) -> Red {
    Red::new(config, 1_500, random())
}

fn share(share: f64) -> Probability {
    Probability::from_f64(share).unwrap()
}

fn fill(red: &mut Red, frames: usize) {
    for _ in 0..frames {
        red.store.push(&mut red.fifo, SimTime::ZERO, datagram(1_000, 0, 0, 0));
    }
}

#[test]
fn the_average_follows_the_queue_and_decays_while_idle() {
    let mut red = red(&RedConfig { weight: share(0.25), ..RedConfig::default() });
    let rate = DataRate::from_bits_per_sec(8_000_000);
    // Empty at first; then 8 frames: 2, 3.5, 4.625.
    red.update_average(SimTime::ZERO, rate);
    assert!(red.average == 0.0);
    fill(&mut red, 8);
    for expected in [2.0, 3.5, 4.625] {
        red.update_average(SimTime::ZERO, rate);
        assert!((red.average - expected).abs() < 1e-12, "{}", red.average);
    }
    // Nothing for 3.5 ms, in which 3 mean frames of 1 ms could have been sent: three steps with
    // an empty queue, and one for the arrival.
    while red.dequeue(SimTime::from_millis(10), &mut |_: &Frame, _| {}).is_some() {}
    red.update_average(SimTime::from_micros(13_500), rate);
    assert!((red.average - 4.625 * 0.75_f64.powi(4)).abs() < 1e-12, "{}", red.average);
}

/// Frames between drops at a fixed average.
fn gaps(red: &mut Red, drops: usize) -> Vec<f64> {
    let mut gaps = Vec::new();
    let mut since = 0.0;
    while gaps.len() < drops {
        since += 1.0;
        if red.decide(1_000) == Decision::Early {
            gaps.push(since);
            since = 0.0;
        }
    }
    gaps
}

#[test]
fn drops_are_spread_evenly_not_geometrically() {
    // Half-way between the thresholds p_b is 1 %: gaps are uniform from 1 to 99.
    let mut red = red(&RedConfig::default());
    red.average = 10.0;
    fill(&mut red, 5);
    let gaps = gaps(&mut red, 20_000);
    // The first frame above `min` has count 0, hence 100 for the first gap.
    assert!(gaps[1..].iter().all(|&gap| gap <= 99.0));
    let n = gaps.len() as f64;
    let mean = gaps.iter().sum::<f64>() / n;
    let variance = gaps.iter().map(|gap| (gap - mean).powi(2)).sum::<f64>() / n;
    // Mean 50, variance (99² − 1)/12; 4.5 standard errors, a false alarm in 10⁵ seeds.
    let expected: f64 = (99.0 * 99.0 - 1.0) / 12.0;
    assert!((mean - 50.0).abs() < 4.5 * (expected / n).sqrt(), "{mean}");
    // The fourth central moment of a uniform distribution is 1.8 times the squared variance.
    assert!((variance - expected).abs() < 4.5 * expected * (0.8 / n).sqrt(), "{variance}");
}

#[test]
fn the_probability_is_that_of_the_average() {
    // (average, gentle, p_b): uniform gaps have mean 1/(2 p_b); forced beyond.
    for (average, gentle, base) in [
        (7.5, false, Some(0.005)),
        (20.0, true, Some(0.02 + 0.98 / 3.0)),
        (15.0, false, None),
        (30.0, true, None),
    ] {
        let mut red = red(&RedConfig { gentle, ..RedConfig::default() });
        red.average = average;
        fill(&mut red, 5);
        let Some(base) = base else {
            assert!((0..100).all(|_| red.decide(1_000) == Decision::Forced));
            continue;
        };
        let base: f64 = base;
        // P(count = k) from the definition: p_b / (1 − k p_b), 1 where that exceeds 1.
        let (mut left, mut mean, mut square, mut count) = (1.0, 0.0, 0.0, 0.0);
        while left > 1e-12 {
            count += 1.0;
            let p = if count * base < 1.0 { (base / (1.0 - count * base)).min(1.0) } else { 1.0 };
            mean += count * left * p;
            square += count * count * left * p;
            left *= 1.0 - p;
        }
        let gaps = gaps(&mut red, 20_000);
        let n = gaps.len() as f64;
        let found = gaps.iter().sum::<f64>() / n;
        let error = ((square - mean * mean) / n).sqrt();
        assert!(
            (found - mean).abs() < 4.5 * error,
            "{average}: {found}, expected {mean} ± {error}"
        );
    }
}

#[test]
fn long_frames_are_likelier_to_go_where_bytes_count() {
    let config =
        RedConfig { unit: RedUnit::Bytes, min: 5_000, max: 15_000, ..RedConfig::default() };
    let mut red = red(&config);
    red.average = 10_000.0;
    fill(&mut red, 5);
    let mut dropped = [0_u32; 2];
    for i in 0..200_000 {
        let (kind, bytes) = if i % 2 == 0 { (0, 300) } else { (1, 1_500) };
        dropped[kind] += u32::from(red.decide(bytes) == Decision::Early);
    }
    // Five times as likely; shares of a binomial distribution, 4.5 standard errors.
    let all = f64::from(dropped[0] + dropped[1]);
    let found = f64::from(dropped[1]) / all;
    let expected: f64 = 5.0 / 6.0;
    assert!(
        (found - expected).abs() < 4.5 * (expected * (1.0 - expected) / all).sqrt(),
        "{dropped:?}"
    );
}

#[test]
fn the_adaptive_probability_climbs_and_falls_as_its_authors_say() {
    let mut red = red(&RedConfig { adaptive: true, weight: share(1.0), ..RedConfig::default() });
    let rate = DataRate::from_bits_per_sec(8_000_000);
    // 12 of 5 to 15 is above the middle band (9 to 11): plus a quarter, at most 0.01, each 0.5 s.
    fill(&mut red, 12);
    for expected in [0.025, 0.03125, 0.039_062_5, 0.048_828_125, 0.058_828_125] {
        red.update_average(red.adapted + SimTime::from_millis(400), rate);
        red.update_average(red.adapted + SimTime::from_millis(501), rate);
        assert!((red.max_probability - expected).abs() < 1e-12, "{}", red.max_probability);
    }
    for _ in 0..100 {
        red.update_average(red.adapted + SimTime::from_millis(501), rate);
    }
    assert!((0.5..0.51).contains(&red.max_probability), "{}", red.max_probability);
    // Below the band: times 0.9, down to 0.01.
    for _ in 0..5 {
        red.store.pop(&mut red.fifo);
    }
    red.max_probability = 0.1;
    red.update_average(red.adapted + SimTime::from_millis(501), rate);
    assert!((red.max_probability - 0.09).abs() < 1e-12);
    for _ in 0..100 {
        red.update_average(red.adapted + SimTime::from_millis(501), rate);
    }
    assert!((0.009..=0.01).contains(&red.max_probability), "{}", red.max_probability);
}

#[test]
fn marks_replace_early_drops_but_not_forced_ones() {
    let config = RedConfig {
        limit: Limit::Frames(1_000),
        weight: share(1.0),
        ecn: true,
        ..RedConfig::default()
    };
    let mut bench = Bench::new(&QueueConfig::Red(config));
    // Up to 30 frames the average is below twice `max`: marks; beyond, drops.
    (0..30).for_each(|_| bench.offer(datagram(1_000, 0, 0, 1)));
    assert_eq!((bench.len(), bench.dropped.len()), (30, 0));
    assert!(bench.marked > 5, "{}", bench.marked);
    let before = bench.marked;
    (0..30).for_each(|_| bench.offer(datagram(1_000, 0, 0, 1)));
    assert_eq!((bench.len(), bench.dropped.len(), bench.marked), (30, 30, before));
}
