use super::super::tests::{Bench, datagram};
use super::super::{ClassConfig, Limit, QueueConfig};
use super::*;

const EF: u8 = 46;
const AF41: u8 = 34;

/// EF in class 0, AF41 in class 1, the rest in class 2.
fn config(quanta: [u32; 3]) -> ClassesConfig {
    let mut class_of = [2; 64];
    class_of[usize::from(EF)] = 0;
    class_of[usize::from(AF41)] = 1;
    let class = |quantum_bytes| ClassConfig { limit: Limit::Frames(100), quantum_bytes };
    ClassesConfig { classes: quanta.map(class).to_vec(), class_of, other: 2 }
}

/// The DSCPs of frames in the order in which they leave.
fn leave(bench: &mut Bench, frames: usize) -> Vec<u8> {
    let dscp_of = |frame: Frame| dscp(frame.bytes()).unwrap_or(99);
    (0..frames).filter_map(|_| bench.take().map(dscp_of)).collect()
}

#[test]
fn the_first_class_with_a_frame_is_served() {
    let mut bench = Bench::new(&QueueConfig::Priority(config([1_514; 3])));
    for dscp in [0, AF41, EF, 7, EF, AF41] {
        bench.offer(datagram(500, 0, dscp, 0));
    }
    // No IP: with the rest.
    bench.offer(Frame::from(vec![0; 60]));
    assert_eq!(leave(&mut bench, 3), [EF, EF, AF41]);
    bench.offer(datagram(500, 0, EF, 0));
    assert_eq!(leave(&mut bench, 9), [EF, AF41, 0, 7, 99]);
}

#[test]
fn a_full_class_takes_nothing_from_the_others() {
    let mut bench = Bench::new(&QueueConfig::Priority(config([1_514; 3])));
    (0..150).for_each(|_| bench.offer(datagram(500, 0, 0, 0)));
    (0..100).for_each(|_| bench.offer(datagram(500, 0, EF, 0)));
    assert_eq!((bench.len(), bench.dropped.len()), (200, 50));
}

#[test]
fn classes_share_by_their_quanta() {
    let mut bench = Bench::new(&QueueConfig::Drr(config([3_000, 1_000, 2_000])));
    for _ in 0..100 {
        for dscp in [EF, AF41, 0] {
            bench.offer(datagram(1_000, 0, dscp, 0));
        }
    }
    let round = [EF, EF, EF, AF41, 0, 0];
    assert_eq!(leave(&mut bench, 60), round.repeat(10));
}

#[test]
fn what_a_turn_left_over_is_kept_for_the_next() {
    let mut bench = Bench::new(&QueueConfig::Drr(config([1_000, 1_000, 1_000])));
    (0..4).for_each(|_| bench.offer(datagram(600, 0, EF, 0)));
    (0..4).for_each(|_| bench.offer(datagram(1_400, 0, AF41, 0)));
    // EF: 1000 → 400; 1400 → 800 → 200; 1200 → 600. AF41: 1000; 2000 → 600; 1600 → 200; 1200; 2200.
    assert_eq!(leave(&mut bench, 8), [EF, EF, EF, AF41, EF, AF41, AF41, AF41]);
}
