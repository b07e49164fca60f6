//! Nanoseconds a frame over each channel, from filling its buffer to taking it out at the far end.

mod burst;

use burst::BURST;
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use tapestry_core::{DataRate, SimTime, Streams};
use tapestry_models::{LinkConfig, NetworkBuilder};

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
            burst::bench(&mut group, &format!("{kind}/{what}"), builder.build());
        }
    }
    group.finish();
}

criterion_group!(benches, channels);
criterion_main!(benches);
