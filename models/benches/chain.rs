//! Hop-packets per second of virtual time: chains of CSMA links at 10 Gbit/s joined by learning
//! bridges, 1470-byte UDP datagrams from one end to the other, one thread.
//!
//! `make bench-peers` measures the same chains beside ns-3.

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use tapestry_core::SimTime;

#[path = "chain/network.rs"]
mod chain;

/// Datagrams sent each time.
const DATAGRAMS: u64 = 10_000;

fn chains(c: &mut Criterion) {
    let mut group = c.benchmark_group("chain");
    for nodes in [10, 32] {
        group.throughput(Throughput::Elements(DATAGRAMS * u64::from(nodes - 1)));
        group.bench_function(format!("{nodes}-nodes"), |b| {
            b.iter_batched_ref(
                || chain::network(nodes - 1, DATAGRAMS),
                |network| {
                    network.run_until(SimTime::MAX).expect("frames end");
                    assert!(network.poll_timeout().is_none());
                },
                BatchSize::LargeInput,
            );
        });
    }
    group.finish();
}

criterion_group!(benches, chains);
criterion_main!(benches);
