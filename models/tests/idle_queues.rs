//! A queue discipline learns when its queue ran empty. CSMA has no event at the end of an interframe
//! gap for which nothing waits, and must tell it all the same, with the right time.

use tapestry_core::{DataRate, Probability, SimTime, Streams};
use tapestry_models::{
    DropReason, Frame, Limit, LinkConfig, LinkId, NetworkBuilder, PortId, QueueConfig, RedConfig,
};

/// 10 Mbit/s: a frame of 125 bytes takes 100 µs, the gap of 12 bytes 9.6 µs.
const FRAME: SimTime = SimTime::from_micros(100);
const GAP: SimTime = SimTime::from_nanos(9_600);
const PORT: PortId = PortId(0);

/// A link with a RED queue that remembers long and drops by the average alone.
fn link(config: LinkConfig) -> LinkConfig {
    let red = RedConfig {
        limit: Limit::Frames(100),
        min: 7,
        max: 8,
        max_probability: Probability::from_f64(0.0).unwrap(),
        weight: Probability::from_f64(0.1).unwrap(),
        mean_frame_bytes: 125,
        gentle: false,
        ..RedConfig::default()
    };
    let rate = DataRate::from_bits_per_sec(10_000_000);
    LinkConfig { rate, queue: QueueConfig::Red(red), ..config }
}

/// Early drops in a burst of frames that comes `idle` after the queue ran empty, which is `gap`
/// after the last frame of another burst.
fn drops(config: LinkConfig, gap: SimTime, idle: SimTime) -> u64 {
    let mut builder = NetworkBuilder::new(Streams::new(1, 0));
    builder.link(link(config)).unwrap();
    let mut network = builder.build();
    let frame = Frame::from([&[1; 12][..], &[8, 0], &[0; 107]].concat());
    let burst = |network: &mut tapestry_models::Network, at, frames| {
        let before = network.counters(LinkId(0))[0].tx_dropped[DropReason::EarlyDrop];
        for _ in 0..frames {
            network.handle_frame(at, PORT, frame.clone());
        }
        network.counters(LinkId(0))[0].tx_dropped[DropReason::EarlyDrop] - before
    };
    let lost = burst(&mut network, SimTime::ZERO, 80);
    let passed = 80 - lost;
    assert!(lost > 0 && passed > 10, "{lost} lost");
    let empty = (FRAME + gap) * passed;
    network.run_until(empty).unwrap();
    assert_eq!(network.counters(LinkId(0))[0].transmitted.frames, passed);
    burst(&mut network, empty + idle, 12)
}

#[test]
fn a_skipped_gap_counts_from_its_end() {
    let mut seen = Vec::new();
    for frames in 1..12 {
        // Idle times count in whole frames: one nanosecond decides.
        for idle in [FRAME * frames - SimTime::from_nanos(1), FRAME * frames] {
            let direct = drops(LinkConfig::point_to_point("l"), SimTime::ZERO, idle);
            let shared = drops(LinkConfig::csma("l", 2), GAP, idle);
            assert_eq!(shared, direct, "{idle} after the queue ran empty");
            seen.push(direct);
        }
    }
    let steps = seen.chunks(2).filter(|pair| pair[0] > pair[1]).count();
    assert!(steps >= 3, "the idle time makes no difference: {seen:?}");
}
