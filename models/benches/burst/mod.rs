//! The load of benches that measure a link: bursts as a worker takes them from a port.

use std::hint::black_box;

use criterion::BenchmarkGroup;
use criterion::measurement::WallTime;
use tapestry_core::SimTime;
use tapestry_models::{FramePool, Network, PortId};

/// Frames that a worker takes from a port at once.
pub(crate) const BURST: u64 = 64;

/// Measures a burst of full frames over the network's first link, from filling their buffers to
/// taking out what has come to the far end; 100 µs pass between two bursts.
pub(crate) fn bench(group: &mut BenchmarkGroup<'_, WallTime>, name: &str, mut network: Network) {
    let mut pool = FramePool::new(2_048, 8_192);
    let mut now = SimTime::ZERO;
    group.bench_function(name, |b| {
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
