//! Each model against its theory.
//!
//! Statistical bounds are five standard errors: a right model fails one comparison in 1.7 million.
//! Seeds are fixed, so a test that passes once passes always.

// Frames are few enough for any number, times are exact, and loss, lost and last are the words.
#![allow(clippy::cast_possible_wrap, clippy::float_cmp, clippy::similar_names)]

use proptest::prelude::*;
use tapestry_core::link::{
    BeyondDelay, Chance, CorrelationForm, Corruption, DelayTable, DelayValues, Distribution, Loss,
    Unit,
};
use tapestry_core::{ByteCount, DataRate, Probability, Streams};

use super::*;
use crate::Frame;

const SIGMAS: f64 = 5.0;

fn percent(percent: f64) -> Probability {
    Probability::from_f64(percent / 100.0).unwrap()
}

fn impairer(parameters: &LinkParameters) -> Impairer {
    parameters.validate(1_500).unwrap();
    let named = Named { streams: Streams::new(7, 0), link: "l", station: 0 };
    Impairer::new(SimTime::ZERO, &named, 1_518, parameters)
}

/// What becomes of frames of so many bytes, sent one a microsecond.
fn passages(parameters: &LinkParameters, frames: u64, bytes: usize) -> Vec<Passage> {
    let mut impairer = impairer(parameters);
    let frame = Frame::from(vec![0; bytes]);
    let mut last = SimTime::ZERO;
    (0..frames).map(|i| impairer.pass(SimTime::from_micros(i), &mut last, frame.clone())).collect()
}

fn losses(loss: Loss, frames: u64, bytes: usize) -> Vec<bool> {
    let parameters = LinkParameters { loss: Some(loss), ..LinkParameters::default() };
    passages(&parameters, frames, bytes).iter().map(|passage| passage.outcome.lost).collect()
}

/// Deviations from the delay in milliseconds.
fn jitters(jitter: Jitter, frames: u64) -> Vec<f64> {
    let delay = SimTime::from_secs(100);
    let parameters = LinkParameters {
        jitter: Some(jitter),
        reordering: true,
        ..LinkParameters::new(None, delay)
    };
    let passages = passages(&parameters, frames, 60);
    let sent = (0..).map(SimTime::from_micros);
    let delays = passages.iter().zip(sent).map(|(passage, sent)| passage.arrival - sent);
    delays.map(|d| (d.as_nanos() as f64 - delay.as_nanos() as f64) / 1e6).collect()
}

fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len() as f64
}

fn variance(values: &[f64]) -> f64 {
    let mean = mean(values);
    values.iter().map(|value| (value - mean).powi(2)).sum::<f64>() / values.len() as f64
}

fn autocorrelation(values: &[f64], lag: usize) -> f64 {
    let mean = mean(values);
    let pairs = values.iter().zip(&values[lag..]);
    let covariance: f64 = pairs.map(|(a, b)| (a - mean) * (b - mean)).sum();
    covariance / values.len() as f64 / variance(values)
}

fn numbers(lost: &[bool]) -> Vec<f64> {
    lost.iter().map(|&lost| f64::from(u8::from(lost))).collect()
}

/// Lengths of the runs of losses.
fn bursts(lost: &[bool]) -> Vec<usize> {
    lost.split(|lost| !lost).map(<[bool]>::len).filter(|&len| len > 0).collect()
}

/// `inflation`: by how much correlation widens the standard error of a mean.
fn assert_share(lost: &[bool], expected: f64, inflation: f64) {
    let share = mean(&numbers(lost));
    let error = (expected * (1.0 - expected) / lost.len() as f64).sqrt() * inflation;
    assert!((share - expected).abs() < SIGMAS * error, "{share} instead of {expected} ± {error}");
}

/// Run lengths are geometric: P(L > k) = (1 − end)ᵏ.
fn assert_geometric(bursts: &[usize], end: f64) {
    for k in 0..6 {
        let expected = (1.0 - end).powi(k);
        let longer = bursts.iter().filter(|&&len| len > k as usize).count() as f64;
        let share = longer / bursts.len() as f64;
        let error = (expected * (1.0 - expected) / bursts.len() as f64).sqrt() + 1e-12;
        assert!((share - expected).abs() < SIGMAS * error, "P(L>{k}) {share}, not {expected}");
    }
}

const FRAMES: u64 = 400_000;

#[test]
fn independent_loss_has_its_rate_and_geometric_bursts() {
    let lost = losses(Loss::independent(percent(7.0)), FRAMES, 60);
    assert_share(&lost, 0.07, 1.0);
    assert_geometric(&bursts(&lost), 0.93);
    let error = 1.0 / (FRAMES as f64).sqrt();
    for lag in 1..10 {
        assert!(autocorrelation(&numbers(&lost), lag).abs() < SIGMAS * error);
    }
    assert!(losses(Loss::independent(Probability::ONE), 1_000, 60).iter().all(|&lost| lost));
    assert!(!losses(Loss::independent(Probability::ZERO), 1_000, 60).contains(&true));
}

#[test]
fn correlated_loss_keeps_its_rate_and_its_correlation_decays() {
    let chance = Chance { correlation: percent(40.0), ..Chance::independent(percent(5.0)) };
    let lost = losses(Loss::Random { chance, per: Unit::Frame }, FRAMES, 60);
    // The variance of the mean of an AR(1) process grows by (1 + ρ) / (1 − ρ).
    let inflation = (1.4_f64 / 0.6).sqrt();
    assert_share(&lost, 0.05, inflation);
    assert_geometric(&bursts(&lost), 1.0 - (0.05 + 0.4 * 0.95));
    for lag in 1..6 {
        let found = autocorrelation(&numbers(&lost), lag);
        let expected = 0.4_f64.powi(lag as i32);
        // Rare events: the error of an autocorrelation of a 0/1 process is about 1/√(n·p).
        let error = 1.0 / (FRAMES as f64 * 0.05).sqrt();
        assert!((found - expected).abs() < SIGMAS * error, "lag {lag}: {found}, not {expected}");
    }
}

#[test]
fn netems_correlated_loss_is_rarer_than_it_says() {
    // x = ρ·x' + (1 − ρ)·u is below p only if x' < p/ρ and u < p/(1 − ρ). With ρ = ½ and a
    // stationary x whose density near 0 is flatter than u's, the share is far below p.
    let chance = Chance {
        correlation: percent(50.0),
        form: CorrelationForm::Netem,
        probability: percent(10.0),
    };
    let lost = losses(Loss::Random { chance, per: Unit::Frame }, FRAMES, 60);
    let share = mean(&numbers(&lost));
    // The recurrence itself, iterated over a grid: F(x) = ∫ F((x − (1−ρ)u)/ρ) du.
    let expected = netem_share(0.1, 0.5);
    let error = (expected * (1.0 - expected) / FRAMES as f64).sqrt() * 3.0_f64.sqrt();
    assert!((share - expected).abs() < SIGMAS * error, "{share} instead of {expected}");
    assert!(expected < 0.05, "netem loses {expected} where 0.1 was asked for");
}

/// The stationary distribution function of netem's recurrence at `p`, by fixed-point iteration.
fn netem_share(p: f64, rho: f64) -> f64 {
    const GRID: usize = 500;
    let mut function: Vec<f64> = (0..=GRID).map(|i| i as f64 / GRID as f64).collect();
    for _ in 0..30 {
        let at = |x: f64| {
            let place = x.clamp(0.0, 1.0) * GRID as f64;
            let low = (place as usize).min(GRID - 1);
            function[low] + (function[low + 1] - function[low]) * (place - low as f64)
        };
        function = (0..=GRID)
            .map(|i| {
                let x = i as f64 / GRID as f64;
                let cells = (0..GRID).map(|u| (u as f64 + 0.5) / GRID as f64);
                cells.map(|u| at((x - (1.0 - rho) * u) / rho)).sum::<f64>() / GRID as f64
            })
            .collect();
    }
    function[(p * GRID as f64) as usize]
}

#[test]
fn gilbert_elliott_has_the_rate_and_the_bursts_of_its_chain() {
    let (p, r, bad, good) = (0.02, 0.25, 0.8, 0.01);
    let loss = |bad: f64, good: f64| Loss::GilbertElliott {
        p: percent(p * 100.0),
        r: percent(r * 100.0),
        bad: percent(bad * 100.0),
        good: percent(good * 100.0),
    };
    // How long the chain remembers widens the error of the mean.
    let memory: f64 = 1.0 - p - r;
    let inflation = ((1.0 + memory) / (1.0 - memory)).sqrt();
    let in_bad = p / (p + r);
    let lost = losses(loss(bad, good), FRAMES, 60);
    assert_share(&lost, in_bad * bad + (1.0 - in_bad) * good, inflation);
    let simple = losses(loss(1.0, 0.0), FRAMES, 60);
    assert_share(&simple, in_bad, inflation);
    assert_geometric(&bursts(&simple), r);
    for lag in 1..6 {
        let (found, expected) = (autocorrelation(&numbers(&simple), lag), memory.powi(lag as i32));
        let error = 1.0 / (FRAMES as f64 * in_bad).sqrt();
        assert!((found - expected).abs() < SIGMAS * error, "lag {lag}: {found}, not {expected}");
    }
}

#[test]
fn four_states_have_the_rate_of_their_chain() {
    let (p13, p31, p32, p23, p14) = (0.01, 0.2, 0.3, 0.5, 0.02);
    let loss = Loss::FourState {
        p13: percent(1.0),
        p31: percent(20.0),
        p32: percent(30.0),
        p23: percent(50.0),
        p14: percent(2.0),
    };
    // Balance: π₃ = π₁·p13/p31, π₂ = π₃·p32/p23, π₄ = π₁·p14.
    let (in3, in4) = (p13 / p31, p14);
    let in2 = in3 * p32 / p23;
    let expected = (in3 + in4) / (1.0 + in2 + in3 + in4);
    let lost = losses(loss, FRAMES, 60);
    assert_share(&lost, expected, (1.0_f64 / (p31 + p23)).sqrt() * 2.0);
    // With the defaults of netem (p32 = 0, p23 = 1, p14 = 0) it is Gilbert's model.
    let gilbert = Loss::FourState {
        p13: percent(1.0),
        p31: percent(20.0),
        p32: Probability::ZERO,
        p23: Probability::ONE,
        p14: Probability::ZERO,
    };
    let lost = losses(gilbert, FRAMES, 60);
    assert_share(&lost, 0.01 / 0.21, 3.0);
    assert_geometric(&bursts(&lost), 0.2);
}

#[test]
fn errors_per_byte_and_bit_grow_with_the_frame() {
    for (per, rate, bytes) in
        [(Unit::Bit, 1e-5, 1_500), (Unit::Byte, 1e-4, 700), (Unit::Bit, 1e-3, 60)]
    {
        let chance = Chance::independent(Probability::from_f64(rate).unwrap());
        let lost = losses(Loss::Random { chance, per }, FRAMES, bytes);
        let units = if per == Unit::Bit { bytes * 8 } else { bytes };
        assert_share(&lost, 1.0 - (1.0 - rate).powi(units as i32), 1.0);
    }
}

#[test]
fn burst_errors_have_ns3s_rate() {
    let (rate, min, max) = (0.02, 1, 4);
    let lost = losses(Loss::Burst { rate: percent(2.0), min, max }, FRAMES, 60);
    // A frame is lost if the latest burst began j frames ago and is longer than j.
    let expected: f64 = (0..4)
        .map(|j| rate * (1.0_f64 - rate).powi(j) * f64::from(max as i32 - j) / f64::from(max))
        .sum();
    assert_share(&lost, expected, 2.0);
}

#[test]
fn listed_frames_get_lost_and_no_others() {
    let lost = losses(Loss::Frames(vec![3, 7, 8]), 20, 60);
    let numbers: Vec<usize> = (1..=20).filter(|n| lost[n - 1]).collect();
    assert_eq!(numbers, [3, 7, 8]);
}

#[test]
fn jitters_have_the_moments_of_their_distributions() {
    let time = SimTime::from_millis(3);
    let of = |distribution| jitters(Jitter { distribution, ..Jitter::uniform(time) }, FRAMES);
    let assert_moments = |values: &[f64], expected_mean: f64, deviation: f64, kurtosis: f64| {
        let n = values.len() as f64;
        let (mean, found) = (mean(values), variance(values).sqrt());
        let mean_error = deviation / n.sqrt();
        assert!((mean - expected_mean).abs() < SIGMAS * mean_error, "{mean}, not {expected_mean}");
        let error = deviation * ((kurtosis - 1.0) / (4.0 * n)).sqrt();
        assert!((found - deviation).abs() < SIGMAS * error, "{found}, not {deviation}");
    };
    let uniform = of(Distribution::Uniform);
    assert_moments(&uniform, 0.0, 3.0 / 3.0_f64.sqrt(), 1.8);
    assert!(uniform.iter().all(|value| value.abs() <= 3.0));
    // Kolmogorov–Smirnov: P(D > 2.6/√n) is 2.7 in a million.
    let mut sorted = uniform.clone();
    sorted.sort_by(f64::total_cmp);
    let n = sorted.len() as f64;
    let distances = sorted.iter().enumerate().map(|(i, x)| ((x + 3.0) / 6.0 - i as f64 / n).abs());
    assert!(distances.fold(0.0, f64::max) < 2.6 / n.sqrt());
    // Moments of iproute2's own tables in units of the time: the Pareto ones are cut off at 4.
    assert_moments(&of(Distribution::Normal), -0.000_78 * 3.0, 3.0, 3.0);
    assert_moments(&of(Distribution::Pareto), -0.033_49 * 3.0, 0.819_7 * 3.0, 9.0);
    assert_moments(&of(Distribution::ParetoNormal), -0.025_3 * 3.0, 0.833_9 * 3.0, 8.0);
    // A quarter at −√3 deviations, the rest at 1/√3 of one.
    let table = DelayTable::parse("-14189 4730 4730 4730").unwrap();
    assert_moments(&of(Distribution::Table(table)), 0.0, 3.0, 2.4);
    let values = DelayValues::parse("1ms,25%\n5ms,75%").unwrap();
    let drawn = of(Distribution::Values(values));
    assert!(drawn.iter().all(|&value| value == 1.0 || value == 5.0));
    assert_share(&drawn.iter().map(|&value| value == 5.0).collect::<Vec<_>>(), 0.75, 1.0);
}

#[test]
fn correlated_jitter_is_netems_autoregression() {
    let rho: f64 = 0.6;
    let jitter = Jitter { correlation: percent(60.0), ..Jitter::uniform(SimTime::from_millis(3)) };
    let values = jitters(jitter, FRAMES);
    // Var x = (1 − ρ)/(1 + ρ) of the uniform's.
    let expected = 9.0 / 3.0 * (1.0 - rho) / (1.0 + rho);
    let found = variance(&values);
    assert!((found / expected - 1.0).abs() < 0.02, "variance {found}, not {expected}");
    for lag in 1..8 {
        let (found, expected) = (autocorrelation(&values, lag), rho.powi(lag as i32));
        let error = ((1.0 + rho * rho) / (1.0 - rho * rho) / FRAMES as f64).sqrt();
        assert!((found - expected).abs() < SIGMAS * error, "lag {lag}: {found}, not {expected}");
    }
    // Tables keep the correlation, since neighbouring draws choose neighbouring entries.
    let normal = Jitter {
        distribution: Distribution::Normal,
        correlation: percent(60.0),
        ..Jitter::uniform(SimTime::from_millis(3))
    };
    assert!(autocorrelation(&jitters(normal, FRAMES), 1) > 0.55);
}

#[test]
fn every_gap_th_frame_may_skip_the_delay() {
    let reorder = |percents: f64, gap| LinkParameters {
        reorder: Some(Reorder { chance: Chance::independent(percent(percents)), gap }),
        ..LinkParameters::new(None, SimTime::from_millis(10))
    };
    // tc-netem(8): `reorder 100% gap 5` sends every fifth frame at once.
    let always = passages(&reorder(100.0, 5), 20, 60);
    let at_once: Vec<usize> = (1..=20).filter(|n| always[n - 1].reordered).collect();
    assert_eq!(at_once, [5, 10, 15, 20]);
    assert_eq!(always[4].arrival, SimTime::from_micros(4));
    assert_eq!(always[5].arrival, SimTime::from_micros(10_005));
    let half: Vec<bool> =
        passages(&reorder(25.0, 1), FRAMES, 60).iter().map(|passage| passage.reordered).collect();
    assert_share(&half, 0.25, 1.0);
    // With a gap, the waits are gap − 1 frames and a geometric number: one in gap − 1 + 1/p.
    let gap: Vec<bool> =
        passages(&reorder(25.0, 3), FRAMES, 60).iter().map(|passage| passage.reordered).collect();
    assert_share(&gap, 1.0 / (2.0 + 4.0), 1.0);
}

fn flipped(before: &[u8], after: &[u8]) -> Vec<usize> {
    let bits = before.iter().zip(after).enumerate();
    bits.flat_map(|(at, (a, b))| {
        (0..8).filter(move |bit| (a ^ b) >> bit & 1 == 1).map(move |bit| at * 8 + bit)
    })
    .collect()
}

#[test]
fn corruption_flips_so_many_different_bits_anywhere() {
    let corrupt = |per, percents, bits| LinkParameters {
        corrupt: Some(Corruption { chance: Chance::independent(percent(percents)), per, bits }),
        ..LinkParameters::default()
    };
    let zeros = [0; 20];
    let mut places = [0_u32; 160];
    let damaged = passages(&corrupt(Unit::Frame, 40.0, 3), 40_000, 20);
    for passage in &damaged {
        let bits = flipped(&zeros, passage.outcome.frame.bytes());
        assert_eq!(bits.len(), if passage.outcome.corrupted { 3 } else { 0 });
        for bit in bits {
            places[bit] += 1;
        }
    }
    let hit: Vec<bool> = damaged.iter().map(|passage| passage.outcome.corrupted).collect();
    assert_share(&hit, 0.4, 1.0);
    // All places are equally likely: χ² with 159 degrees of freedom, mean 159, deviation 18.
    let expected = f64::from(places.iter().sum::<u32>()) / 160.0;
    let chi2: f64 = places.iter().map(|&n| (f64::from(n) - expected).powi(2) / expected).sum();
    assert!(chi2 < 159.0 + SIGMAS * 18.0, "χ² {chi2}");
    for (per, units) in [(Unit::Bit, 160.0), (Unit::Byte, 20.0)] {
        let frames = 40_000.0;
        let sum: usize = passages(&corrupt(per, 1.0, 1), 40_000, 20)
            .iter()
            .map(|passage| flipped(&zeros, passage.outcome.frame.bytes()).len())
            .sum();
        let expected = frames * units * 0.01;
        assert!((sum as f64 - expected).abs() < SIGMAS * expected.sqrt(), "{per:?}: {sum}");
    }
}

#[test]
fn ecn_marks_frames_that_can_be_marked_instead_of_losing_them() {
    let mut bytes = vec![0; 12];
    bytes.extend([0x08, 0x00, 0x45, 2]);
    bytes.resize(60, 0);
    let parameters = LinkParameters {
        loss: Some(Loss::independent(Probability::ONE)),
        ecn: true,
        ..LinkParameters::default()
    };
    let mut impairer = impairer(&parameters);
    let mut pass = |frame: Vec<u8>| {
        impairer.pass(SimTime::ZERO, &mut SimTime::ZERO.clone(), frame.into()).outcome
    };
    let marked = pass(bytes.clone());
    assert!(marked.marked && !marked.lost && marked.frame.bytes()[15] == 3);
    bytes[15] = 0;
    assert!(pass(bytes).lost);
}

/// Everything random at once.
fn all() -> LinkParameters {
    LinkParameters {
        jitter: Some(Jitter {
            distribution: Distribution::Pareto,
            beyond_delay: BeyondDelay::Clamp,
            ..Jitter::uniform(SimTime::from_millis(4))
        }),
        loss: Some(Loss::independent(percent(10.0))),
        duplicate: Some(Chance::independent(percent(10.0))),
        corrupt: Some(Corruption {
            chance: Chance::independent(percent(10.0)),
            per: Unit::Frame,
            bits: 1,
        }),
        ..LinkParameters::new(None, SimTime::from_millis(3))
    }
}

#[test]
fn models_do_not_change_each_others_draws() {
    let all_on = passages(&all(), 5_000, 60);
    let without = |change: fn(&mut LinkParameters)| {
        let mut parameters = all();
        change(&mut parameters);
        passages(&parameters, 5_000, 60)
    };
    let no_loss = without(|parameters| parameters.loss = None);
    let no_copy = without(|parameters| parameters.duplicate = None);
    let no_jitter = without(|parameters| parameters.jitter = None);
    for (i, passage) in all_on.iter().enumerate() {
        assert_eq!(passage.arrival, no_loss[i].arrival);
        assert_eq!(passage.arrival, no_copy[i].arrival);
        assert_eq!(passage.outcome.lost, no_copy[i].outcome.lost);
        assert_eq!(passage.outcome.lost, no_jitter[i].outcome.lost);
        assert_eq!(passage.outcome.corrupted, no_jitter[i].outcome.corrupted);
        if !passage.outcome.lost {
            assert_eq!(passage.outcome.duplicated, no_loss[i].outcome.duplicated);
            assert_eq!(passage.outcome.frame, no_loss[i].outcome.frame);
        }
    }
    let named = Named { streams: Streams::new(7, 0), link: "l", station: 1 };
    let mut other = Impairer::new(SimTime::ZERO, &named, 1_518, &all());
    let frame = Frame::from(vec![0; 60]);
    let mut last = SimTime::ZERO;
    let differs = (0..5_000).any(|i| {
        let passage = other.pass(SimTime::from_micros(i), &mut last, frame.clone());
        passage.arrival != all_on[i as usize].arrival
    });
    assert!(differs, "the other direction draws for itself");
}

#[test]
fn changed_parameters_leave_the_other_models_alone() {
    let mut parameters = all();
    let mut impairer = impairer(&parameters);
    let untouched = passages(&parameters, 2_000, 60);
    let frame = Frame::from(vec![0; 60]);
    let mut last = SimTime::ZERO;
    for i in 0..2_000 {
        if i == 1_000 {
            parameters.loss = Some(Loss::independent(Probability::ONE));
            impairer.set(SimTime::from_micros(i), &parameters);
        }
        let passage = impairer.pass(SimTime::from_micros(i), &mut last, frame.clone());
        assert_eq!(passage.arrival, untouched[i as usize].arrival);
        let lost = if i < 1_000 { untouched[i as usize].outcome.lost } else { true };
        assert_eq!(passage.outcome.lost, lost);
    }
}

#[test]
fn a_schedule_sets_rate_delay_and_loss_by_the_clock() {
    let text = "time,rate,delay,loss\n1s,8Mbit/s,2ms,0%\n2s,80Mbit/s,1ms,100%\n";
    let mut schedule = Schedule::parse(text).unwrap();
    schedule.repeat = Some(SimTime::from_secs(4));
    let rate = DataRate::from_bits_per_sec(800_000);
    let parameters = LinkParameters {
        schedule: Some(schedule),
        framing: tapestry_core::link::Framing::NONE,
        reordering: true,
        ..LinkParameters::new(rate, SimTime::from_millis(9))
    };
    let mut impairer = impairer(&parameters);
    let mut last = SimTime::ZERO;
    // Milliseconds of sending 1000 bytes, then of the delay.
    for (at_ms, sending, delay, lost) in [
        (0, 10_000, 9, false),
        (999, 10_000, 9, false),
        (1_000, 1_000, 2, false),
        (2_500, 100, 1, true),
        (4_100, 10_000, 9, false),
        (9_000, 1_000, 2, false),
        (14_999, 100, 1, true),
    ] {
        let now = SimTime::from_millis(at_ms);
        assert_eq!(impairer.finish(now, 1_000) - now, SimTime::from_micros(sending), "{at_ms}");
        let passage = impairer.pass(now, &mut last, vec![0; 1_000].into());
        assert_eq!(passage.arrival - now, SimTime::from_millis(delay));
        assert_eq!(passage.outcome.lost, lost);
    }
}

#[test]
fn slots_let_frames_pass_together() {
    let ms = SimTime::from_millis;
    let slots = Slots { min: ms(10), max: ms(10), frames: Some(3), bytes: None };
    let parameters = LinkParameters { slots: Some(slots), ..LinkParameters::default() };
    let mut impairer = impairer(&parameters);
    let mut last = SimTime::ZERO;
    // Sent at these milliseconds, the frames leave at those: three a slot, the fourth a slot later;
    // after a rest, a slot comes a whole interval after the first frame.
    for (sent, leaves) in [(1, 10), (2, 10), (9, 10), (10, 20), (20, 20), (45, 55), (55, 55)] {
        assert_eq!(impairer.pass(ms(sent), &mut last, vec![0; 60].into()).arrival, ms(leaves));
    }
    let bytes = Some(ByteCount::from_bytes(100));
    let slots = Slots { min: ms(1), max: ms(5), frames: None, bytes };
    let parameters = LinkParameters { slots: Some(slots), ..LinkParameters::default() };
    let all: Vec<SimTime> =
        passages(&parameters, 1_000, 60).iter().map(|passage| passage.arrival).collect();
    let mut starts = all.clone();
    starts.dedup();
    // The second frame of a slot reaches 100 bytes and ends it.
    assert_eq!(starts.len(), 500);
    let gaps = starts.windows(2).map(|pair| pair[1] - pair[0]);
    assert!(gaps.clone().all(|gap| (ms(1)..=ms(5)).contains(&gap)));
    assert!(gaps.max() > Some(ms(4)));
}

proptest! {
    #[test]
    fn frames_arrive_in_order_and_never_before_they_are_sent(
        delay in 0_u64..10_000_000,
        jitter in 0_u64..10_000_000,
        gaps in prop::collection::vec(0_u64..2_000_000, 1..200),
        shape in 0..4,
        slotted: bool,
        seed: u64,
    ) {
        let distribution = match shape {
            0 => Distribution::Uniform,
            1 => Distribution::Normal,
            2 => Distribution::Pareto,
            _ => Distribution::ParetoNormal,
        };
        let ms = SimTime::from_millis;
        let mut parameters = LinkParameters {
            jitter: Some(Jitter {
                distribution,
                beyond_delay: BeyondDelay::Clamp,
                ..Jitter::uniform(SimTime::from_nanos(jitter))
            }),
            slots: slotted.then(|| Slots { min: ms(1), max: ms(2), frames: Some(2), bytes: None }),
            ..LinkParameters::new(None, SimTime::from_nanos(delay))
        };
        for reordering in [false, true] {
            parameters.reordering = reordering;
            let named = Named { streams: Streams::new(seed, 0), link: "l", station: 0 };
            let mut impairer = Impairer::new(SimTime::ZERO, &named, 1_518, &parameters);
            let (mut now, mut last, mut previous) = (SimTime::ZERO, SimTime::ZERO, SimTime::ZERO);
            for &gap in &gaps {
                now += SimTime::from_nanos(gap);
                let arrival = impairer.pass(now, &mut last, vec![0; 60].into()).arrival;
                prop_assert!(arrival >= now);
                prop_assert!(reordering || arrival >= previous);
                if shape == 0 && reordering && !slotted {
                    prop_assert!(arrival <= now + SimTime::from_nanos(delay + jitter));
                }
                previous = arrival;
            }
        }
    }
}
