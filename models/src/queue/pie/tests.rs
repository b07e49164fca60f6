use super::super::tests::{Bench, datagram, random};
use super::super::{Limit, QueueConfig};
use super::*;

const fn ms(millis: u64) -> SimTime {
    SimTime::from_millis(millis)
}

fn controller(probability: f64, before: SimTime, delay: SimTime) -> Controller {
    let mut controller = Controller::new(&PieConfig::default());
    controller.burst_allowance = SimTime::ZERO;
    (controller.probability, controller.delay_before, controller.delay) =
        (probability, before, delay);
    controller
}

#[test]
fn the_probability_evolves_as_the_rfc_computes_it() {
    // 0.125 (delay − 0.015) + 1.25 (delay − before), scaled by the probability there was.
    for (probability, before, delay, expected) in [
        (0.0, ms(0), ms(30), 0.039_375 / 2_048.0),
        (0.000_005, ms(30), ms(30), 0.000_005 + 0.001_875 / 512.0),
        (0.000_05, ms(30), ms(30), 0.000_05 + 0.001_875 / 128.0),
        (0.000_5, ms(30), ms(30), 0.000_5 + 0.001_875 / 32.0),
        (0.005, ms(30), ms(30), 0.005 + 0.001_875 / 8.0),
        (0.05, ms(30), ms(30), 0.05 + 0.001_875 / 2.0),
        (0.2, ms(30), ms(30), 0.2 + 0.001_875),
        // At most 2 % up, from 10 % on.
        (0.15, ms(50), ms(100), 0.17),
        (0.05, ms(50), ms(100), 0.05 + 0.073_125 / 2.0),
        // Down without bound, to 0.
        (0.5, ms(100), ms(20), 0.5 + 0.000_625 - 0.1),
        (0.001, ms(100), ms(10), 0.0),
        // Decay without any delay.
        (0.5, ms(0), ms(0), (0.5 - 0.001_875) * 0.98),
    ] {
        let mut controller = controller(probability, before, delay);
        controller.step();
        let found = controller.probability;
        assert!((found - expected).abs() < 1e-12, "{probability} {before} {delay}: {found}");
        assert_eq!(controller.delay_before, delay);
    }
}

#[test]
fn a_burst_passes_after_a_quiet_time() {
    let mut pie = Pie::new(&PieConfig::default(), 1_500, random());
    assert_eq!(pie.controller.burst_allowance, ms(150));
    // Delay: the allowance is used up in ten updates, without any drop.
    pie.controller.delay = ms(100);
    pie.controller.catch_up(ms(140));
    assert_eq!((pie.controller.burst_allowance, pie.controller.probability), (ms(15), 0.0));
    assert!(!pie.controller.drops(100_000, &mut pie.random));
    pie.controller.catch_up(ms(400));
    assert_eq!(pie.controller.burst_allowance, SimTime::ZERO);
    assert!(pie.controller.probability > 0.0);
    // No delay: the probability falls to zero, and then there is an allowance again.
    pie.controller.delay = SimTime::ZERO;
    pie.controller.catch_up(SimTime::from_secs(60));
    assert_eq!((pie.controller.burst_allowance, pie.controller.probability), (ms(150), 0.0));
}

#[test]
fn making_up_for_updates_is_the_same_as_making_them_in_time() {
    for delay in [0, 5, 30, 300] {
        let mut prompt = controller(0.03, ms(20), ms(delay));
        let mut late = controller(0.03, ms(20), ms(delay));
        for tick in 0..2_000 {
            prompt.catch_up(ms(15 * tick));
        }
        late.catch_up(ms(15 * 1_999));
        assert_eq!((late.probability, late.next_update), (prompt.probability, prompt.next_update));
        assert_eq!(late.burst_allowance, prompt.burst_allowance);
    }
    // After a year without traffic, too, and at once.
    let mut idle = controller(0.9, ms(20), ms(0));
    idle.catch_up(SimTime::from_secs(31_536_000));
    assert!(idle.probability == 0.0);
    assert!(idle.next_update > SimTime::from_secs(31_536_000));
}

#[test]
fn the_share_of_drops_is_the_probability() {
    let mut random = random();
    let mut controller = controller(0.05, ms(20), ms(20));
    let n = 40_000;
    let drops = (0..n).filter(|_| controller.drops(50_000, &mut random)).count();
    // Binomial, 4.5 standard errors: a false alarm in 10⁵ seeds.
    let (mean, error) = (f64::from(n) * 0.05, (f64::from(n) * 0.05 * 0.95).sqrt());
    assert!((drops as f64 - mean).abs() < 4.5 * error, "{drops}");
    // Work conservation: short queues, and little delay with little probability.
    assert!((0..1_000).all(|_| !controller.drops(2_000, &mut random)));
    controller.delay_before = ms(7);
    assert!((0..1_000).all(|_| !controller.drops(50_000, &mut random)));
    controller.probability = 0.3;
    assert!((0..1_000).any(|_| controller.drops(50_000, &mut random)));
}

#[test]
fn derandomised_drops_keep_a_distance() {
    let mut random = random();
    let mut controller = controller(0.05, ms(20), ms(20));
    controller.derandomise = true;
    let mut since = 0;
    let mut gaps = Vec::new();
    while gaps.len() < 2_000 {
        since += 1;
        if controller.drops(50_000, &mut random) {
            gaps.push(since);
            since = 0;
        }
    }
    // 0.85 / 0.05 = 17 frames at least, 8.5 / 0.05 = 170 at most (one more by rounding).
    assert!(
        gaps.iter().all(|gap| (17..=171).contains(gap)),
        "{:?}",
        gaps.iter().min_by_key(|g| **g)
    );
}

#[test]
fn marks_replace_drops_up_to_the_limit() {
    for (probability, marks) in [(0.09, true), (0.11, false)] {
        let config = PieConfig { ecn: true, limit: Limit::Frames(9_000), ..PieConfig::default() };
        let mut pie = Pie::new(&config, 1_500, random());
        pie.controller = controller(probability, ms(20), ms(20));
        pie.controller.next_update = SimTime::MAX;
        let (mut marked, mut dropped) = (0, 0);
        for _ in 0..1_000 {
            pie.enqueue(
                ms(1),
                None,
                datagram(1_000, 0, 0, 2),
                &mut |_: &Frame, event| match event {
                    QueueEvent::Marked => marked += 1,
                    QueueEvent::Dropped(_) => dropped += 1,
                    _ => {}
                },
            );
        }
        assert_eq!((marked > 30, dropped > 30), (marks, !marks), "{marked} {dropped}");
        assert_eq!((marked == 0, dropped == 0), (!marks, marks));
    }
}

#[test]
fn a_full_queue_drops_whatever_the_probability() {
    let config = PieConfig { limit: Limit::Frames(3), ..PieConfig::default() };
    let mut bench = Bench::new(&QueueConfig::Pie(config));
    (0..5).for_each(|_| bench.offer(datagram(1_000, 0, 0, 0)));
    let reasons: Vec<DropReason> = bench.dropped.iter().map(|(_, reason)| *reason).collect();
    assert_eq!(reasons, [DropReason::QueueFull; 2]);
}
