//! The hold model: pop the earliest of 10,000 pending events and schedule another one after an
//! exponentially distributed increment. One hold is one event of a simulation.

use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use rand::RngExt;
use tapestry_core::{EventQueue, SimTime, Streams};

fn hold(c: &mut Criterion) {
    let mut group = c.benchmark_group("event_queue");
    group.throughput(Throughput::Elements(1));
    for (pending, mean_nanos) in [(10, 1e6), (10_000, 1e3), (10_000, 1e6), (1_000_000, 1e6)] {
        // Drawn beforehand: the generator is not what is measured.
        let mut random = Streams::new(1, 0).stream("bench", "increments");
        let increments: Vec<SimTime> = (0..1 << 16)
            .map(|_| -(1.0 - random.random::<f64>()).ln() * mean_nanos)
            .map(|nanos| SimTime::from_nanos(nanos as u64))
            .collect();
        let mut next = increments.iter().cycle().copied();
        let mut draw = || next.next().unwrap_or_default();

        let mut queue = EventQueue::with_capacity(pending);
        for event in 0..pending as u64 {
            queue.schedule(draw(), event);
        }
        group.bench_function(format!("hold/{pending}-pending/mean-{mean_nanos:.0}ns"), |b| {
            b.iter(|| {
                if let Some((now, event)) = queue.pop() {
                    queue.schedule(now + draw(), black_box(event));
                }
            });
        });
    }
    group.finish();
}

criterion_group!(benches, hold);
criterion_main!(benches);
