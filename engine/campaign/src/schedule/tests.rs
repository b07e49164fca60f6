use std::collections::BTreeSet;

use tapestry_topologies::plan::{Design, StopRule};

use super::*;
use crate::design::tests::{list, plan};

fn plan_of(replicates: u32) -> Plan {
    Plan { replicates, ..plan(&[("a", list(&[1, 2, 3]))], Design::FullFactorial) }
}

const FINE: Outcome = Outcome { state: State::Counted, had_company: false, value: None };
const INVALID: Outcome = Outcome { state: State::Invalid, had_company: false, value: None };

/// Runs everything one after another; `outcome` says what comes of each.
fn drive(schedule: &mut Schedule<'_>, mut outcome: impl FnMut(Job) -> Outcome) -> Vec<Job> {
    let mut done = Vec::new();
    while let Some(job) = schedule.next() {
        done.push(job);
        schedule.finished(job, outcome(job));
        assert!(done.len() < 10_000, "it never ends");
    }
    done
}

#[test]
fn every_replicate_of_every_point_runs_once_block_by_block() {
    let plan = plan_of(4);
    let mut schedule = Schedule::new(&plan, 3, 1);
    assert_eq!(schedule.remaining(), 12);
    let jobs = drive(&mut schedule, |_| FINE);
    assert_eq!(jobs.len(), 12);
    for (block, jobs) in jobs.chunks(3).enumerate() {
        assert!(jobs.iter().all(|job| job.replicate as usize == block && job.attempt == 0));
        assert_eq!(jobs.iter().map(|job| job.point).collect::<BTreeSet<_>>().len(), 3);
    }
    assert!(schedule.is_done() && schedule.remaining() == 0);
}

#[test]
fn warm_up_runs_come_first_and_alone() {
    let plan = Plan { warm_up: 2, ..plan_of(1) };
    let mut schedule = Schedule::new(&plan, 3, 4);
    let warm: Vec<Job> = std::iter::from_fn(|| schedule.next()).collect();
    assert!(warm.len() == 2 && warm.iter().all(|job| job.purpose == Purpose::WarmUp));
    assert!(!schedule.is_done(), "measuring waits for their end");
    schedule.finished(warm[0], INVALID);
    schedule.finished(warm[1], FINE);
    assert_eq!(drive(&mut schedule, |_| FINE).len(), 3);
}

#[test]
fn an_invalid_run_is_repeated_so_often_and_no_more() {
    let plan = Plan { retries: 2, ..plan_of(1) };
    let mut schedule = Schedule::new(&plan, 3, 1);
    let jobs = drive(&mut schedule, |job| if job.point == 1 { INVALID } else { FINE });
    let attempts: Vec<u32> =
        jobs.iter().filter(|job| job.point == 1).map(|job| job.attempt).collect();
    assert_eq!(attempts, [0, 1, 2]);
    assert_eq!(jobs.len(), 5);
}

#[test]
fn what_company_spoils_does_not_use_up_the_retries() {
    let plan = Plan { retries: 0, ..plan_of(1) };
    let mut schedule = Schedule::new(&plan, 1, 3);
    let crowded = Outcome { had_company: true, ..INVALID };
    let jobs = drive(&mut schedule, |job| if job.attempt < 2 { crowded } else { FINE });
    assert_eq!(jobs.iter().map(|job| job.attempt).collect::<Vec<_>>(), [0, 1, 2]);
    // But even so there is an end.
    let mut schedule = Schedule::new(&plan, 1, 3);
    assert_eq!(drive(&mut schedule, |_| crowded).len(), 4);
}

#[test]
fn a_killed_campaign_goes_on_where_it_stopped() {
    let plan = Plan { warm_up: 1, ..plan_of(3) };
    let outcome = |job: Job| {
        if (job.point + job.replicate as usize + job.attempt as usize).is_multiple_of(3) {
            INVALID
        } else {
            FINE
        }
    };
    let mut whole = Schedule::new(&plan, 3, 1);
    let expected = drive(&mut whole, outcome);
    for stop in 0..=expected.len() {
        let mut resumed = Schedule::new(&plan, 3, 1);
        for job in &expected[..stop] {
            resumed.remember(*job, outcome(*job));
        }
        let mut all = expected[..stop].to_vec();
        all.extend(drive(&mut resumed, outcome));
        all.sort();
        let mut sorted = expected.clone();
        sorted.sort();
        assert_eq!(all, sorted, "killed after {stop} runs");
    }
}

#[test]
fn a_point_ends_when_its_interval_is_narrow() {
    let rule = StopRule { metric: "m".to_owned(), width: 0.05, confidence: 0.95, at_least: 3 };
    let plan = Plan { stop: Some(rule), ..plan_of(50) };
    // Point 0 hardly varies, point 1 varies by a few percent, point 2 wildly.
    let value = |job: Job| {
        let swing = if job.replicate.is_multiple_of(2) { 1.0 } else { -1.0 };
        100.0 + swing * [0.1, 4.0, 90.0][job.point]
    };
    let outcome = |job: Job| Outcome { value: Some(value(job)), ..FINE };
    let mut schedule = Schedule::new(&plan, 3, 1);
    let jobs = drive(&mut schedule, outcome);
    let count = |point| jobs.iter().filter(|job| job.point == point).count();
    assert_eq!(count(0), 3);
    // By hand: s = 4.1 or so, 2 t s / sqrt(n) <= 5 needs some 13 runs.
    assert!((10..=18).contains(&count(1)), "{}", count(1));
    assert_eq!(count(2), 50);
    assert!(schedule.is_done());
    assert_eq!(schedule.remaining(), 0, "what was spared is not to be made");
    let unreached = schedule.unreached();
    assert!(unreached.len() == 1 && unreached[0].0 == 2, "{unreached:?}");
    // s = 90.9, 2 t s / sqrt(50) = 51.7, mean 100.
    assert!((unreached[0].1.unwrap() - 0.517).abs() < 0.005, "{unreached:?}");
}

#[test]
fn the_stop_rule_waits_for_the_whole_block() {
    let rule = StopRule { metric: "m".to_owned(), width: 0.5, confidence: 0.95, at_least: 2 };
    let plan = Plan { stop: Some(rule), ..plan_of(5) };
    let mut schedule = Schedule::new(&plan, 3, 8);
    let block: Vec<Job> = std::iter::from_fn(|| schedule.next()).collect();
    assert_eq!(block.len(), 3);
    schedule.finished(block[2], FINE);
    assert_eq!(schedule.next(), None);
    schedule.finished(block[0], FINE);
    assert_eq!(schedule.next(), None);
    schedule.finished(block[1], FINE);
    assert_eq!(schedule.next().map(|job| job.replicate), Some(1));
}

/// Also the very last runs: a campaign whose end was interrupted is not done.
#[test]
fn what_was_interrupted_is_still_to_be_made() {
    let plan = plan_of(1);
    let mut schedule = Schedule::new(&plan, 3, 3);
    let jobs: Vec<Job> = std::iter::from_fn(|| schedule.next()).collect();
    assert_eq!(jobs.len(), 3);
    schedule.finished(jobs[0], FINE);
    schedule.dropped(jobs[1]);
    schedule.dropped(jobs[2]);
    assert!(!schedule.is_done() && schedule.remaining() == 2);
    let mut again = drive(&mut schedule, |_| FINE);
    again.sort();
    let mut expected = jobs[1..].to_vec();
    expected.sort();
    assert_eq!(again, expected);
    assert!(schedule.is_done());
}
