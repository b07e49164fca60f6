use super::super::tests::{Bench, datagram};
use super::super::{CoDelConfig, Limit, QueueConfig};
use super::*;

fn bench(limit: u32) -> Bench {
    let codel = CoDelConfig { limit: Limit::Frames(limit), ..CoDelConfig::default() };
    Bench::new(&QueueConfig::FqCoDel(FqCoDelConfig { codel, ..FqCoDelConfig::default() }))
}

fn offer(bench: &mut Bench, flow: u8, frames: usize) {
    (0..frames).for_each(|_| bench.offer(datagram(1_000, flow, 0, 0)));
}

fn take(bench: &mut Bench, frames: usize) -> Vec<u8> {
    (0..frames).filter_map(|_| bench.take_flow()).collect()
}

#[test]
fn flows_take_turns_of_a_quantum() {
    let mut bench = bench(1_000);
    offer(&mut bench, 1, 5);
    offer(&mut bench, 2, 5);
    // A quantum of 1,514 bytes: 1,514 → 514 → −486, then the other's turn; with 1,028 → 28 → −972;
    // with 542 → −458 one frame only.
    assert_eq!(take(&mut bench, 20), [1, 1, 2, 2, 1, 1, 2, 2, 1, 2]);
}

#[test]
fn a_sparse_flow_is_served_next() {
    let mut bench = bench(1_000);
    offer(&mut bench, 1, 50);
    assert_eq!(take(&mut bench, 5), [1; 5]);
    for _ in 0..5 {
        offer(&mut bench, 2, 1);
        // Its list is empty when its turn as an old flow comes: from then on it is new again.
        assert_eq!(take(&mut bench, 5), [2, 1, 1, 1, 1]);
    }
    // One frame after the other is not sparse: it had its turn among the new ones.
    offer(&mut bench, 2, 1);
    assert_eq!(take(&mut bench, 1), [2]);
    offer(&mut bench, 2, 1);
    assert_eq!(take(&mut bench, 3), [2, 1, 1]);
}

#[test]
fn half_of_the_fattest_goes_from_its_head() {
    let mut bench = bench(10);
    offer(&mut bench, 1, 3);
    offer(&mut bench, 2, 7);
    assert_eq!(bench.dropped, []);
    // The newcomer makes flow 2 eight frames long.
    offer(&mut bench, 2, 1);
    assert_eq!((bench.len(), bench.dropped.len()), (7, 4));
    // Flow 1, although it made it overflow, keeps its frames.
    offer(&mut bench, 2, 3);
    offer(&mut bench, 1, 1);
    assert_eq!((bench.len(), bench.dropped.len()), (7, 8));
    let mut rest = take(&mut bench, 20);
    rest.sort_unstable();
    assert_eq!(rest, [1, 1, 1, 1, 2, 2, 2]);
    // At most 64 at once.
    let mut bench = self::bench(500);
    offer(&mut bench, 1, 501);
    assert_eq!((bench.len(), bench.dropped.len()), (437, 64));
}

#[test]
fn each_flow_has_its_own_codel() {
    // Flow 1 sends twice its share, flow 2 a little: only flow 1 is dropped.
    let mut bench = bench(10_000);
    for tick in 0..3_000 {
        offer(&mut bench, 1, 2);
        if tick % 10 == 0 {
            offer(&mut bench, 2, 1);
        }
        bench.pass_millis(1);
        bench.take().unwrap();
    }
    assert!(bench.dropped.len() > 100, "{}", bench.dropped.len());
    assert!(bench.dropped.iter().all(|(_, reason)| *reason == DropReason::TargetExceeded));
    let mut rest = [0; 3];
    while let Some(flow) = bench.take_flow() {
        rest[usize::from(flow)] += 1;
    }
    assert!(rest[2] <= 1, "{rest:?}");
}
