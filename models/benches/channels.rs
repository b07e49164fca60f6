//! Nanoseconds a frame over each channel, from filling its buffer to taking it out at the far end.

use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use tapestry_core::{DataRate, SimTime, Streams};
use tapestry_models::{FramePool, LinkConfig, NetworkBuilder, PortId};

/// Frames that a worker takes from a port at once.
const BURST: u64 = 64;

fn channels(c: &mut Criterion) {
    let mut group = c.benchmark_group("channels");
    group.throughput(Throughput::Elements(BURST));
    let ten_gigabit = DataRate::from_bits_per_sec(10_000_000_000);
    for (kind, link) in
        [("csma", LinkConfig::csma("l", 2)), ("point-to-point", LinkConfig::point_to_point("l"))]
    {
        for (what, rate, delay) in [
            ("unlimited", None, SimTime::ZERO),
            ("10Gbit", ten_gigabit, SimTime::ZERO),
            ("10Gbit-1ms", ten_gigabit, SimTime::from_millis(1)),
        ] {
            // A shared medium with that delay is busy for 1 ms a frame: no load to measure.
            if kind == "csma" && delay > SimTime::ZERO {
                continue;
            }
            let config = LinkConfig { rate, delay, ..link.clone() };
            let mut builder = NetworkBuilder::new(Streams::new(1, 0));
            if builder.link(config).is_err() {
                continue;
            }
            let mut network = builder.build();
            let mut pool = FramePool::new(2_048, 8_192);
            let mut now = SimTime::ZERO;
            group.bench_function(format!("{kind}/{what}"), |b| {
                b.iter(|| {
                    for _ in 0..BURST {
                        if let Ok(frame) = pool.fill(|_| Ok(1_512)) {
                            network.handle_frame(now, PortId(0), black_box(frame));
                        }
                    }
                    now += SimTime::from_micros(100);
                    network.handle_timeout(now);
                    network.transmits().for_each(|out| drop(black_box(out)));
                });
            });
        }
    }
    group.finish();
}

criterion_group!(benches, channels);
criterion_main!(benches);
