//! Nanoseconds a frame through each queue discipline of a full link: in, decided on, and out.
//!
//! 5 % more comes than the link carries, so some dozens of frames wait and marks and drops happen as
//! they do under lasting overload. The link's own work (events, counters) is included; the base line
//! is `not-full`, the same link with 5 % less than it carries, where no frame waits.

use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use tapestry_core::{DataRate, SimTime, Streams};
use tapestry_models::{
    ClassConfig, ClassesConfig, CoDelConfig, FqCoDelConfig, Frame, Framing, Limit, LinkConfig,
    NetworkBuilder, PieConfig, PortId, QueueConfig, RedConfig,
};

/// Frames offered in one measurement.
const FRAMES: u64 = 64;

fn queues() -> Vec<(&'static str, QueueConfig)> {
    let class = ClassConfig { limit: Limit::Frames(40), quantum_bytes: 1_514 };
    let classes = ClassesConfig {
        classes: vec![class.clone(), class.clone(), class],
        class_of: std::array::from_fn(|dscp| (dscp % 3) as u8),
        other: 2,
    };
    let codel = CoDelConfig { limit: Limit::Frames(100), ..CoDelConfig::default() };
    let fair = FqCoDelConfig { codel: codel.clone(), ..FqCoDelConfig::default() };
    let marking = CoDelConfig { ecn: true, ..codel.clone() };
    vec![
        ("not-full", QueueConfig::frames(100)),
        ("drop-tail", QueueConfig::frames(100)),
        ("red", QueueConfig::Red(RedConfig::default())),
        ("codel", QueueConfig::CoDel(codel)),
        ("codel-ecn", QueueConfig::CoDel(marking)),
        ("fq-codel", QueueConfig::FqCoDel(fair)),
        ("pie", QueueConfig::Pie(PieConfig::default())),
        ("priority", QueueConfig::Priority(classes.clone())),
        ("drr", QueueConfig::Drr(classes)),
    ]
}

/// UDP datagrams of 1,000 bytes of 64 flows with as many code points, ECN-capable.
fn datagrams() -> Vec<Frame> {
    let datagram = |flow: u8| {
        let mut bytes = vec![0; 1_000];
        bytes[12..16].copy_from_slice(&[0x08, 0x00, 0x45, flow << 2 | 2]);
        bytes[23] = 17;
        bytes[26..38].copy_from_slice(&[10, 0, 0, 1, 10, 0, 0, 2, 16, flow, 19, 137]);
        Frame::from(bytes)
    };
    (0..64).map(datagram).collect()
}

fn disciplines(c: &mut Criterion) {
    let mut group = c.benchmark_group("queues");
    group.throughput(Throughput::Elements(FRAMES));
    for (name, queue) in queues() {
        let mut builder = NetworkBuilder::new(Streams::new(1, 0));
        let rate = DataRate::from_bits_per_sec(800_000_000);
        let link = LinkConfig::point_to_point("l");
        let link = LinkConfig { rate, queue, framing: Framing::NONE, ..link };
        if builder.link(link).is_err() {
            continue;
        }
        let mut network = builder.build();
        let frames = datagrams();
        // The link needs 10 µs for each.
        let between = SimTime::from_nanos(if name == "not-full" { 10_500 } else { 9_500 });
        let mut now = SimTime::ZERO;
        group.bench_function(name, |b| {
            b.iter(|| {
                for frame in &frames {
                    now += between;
                    network.handle_frame(now, PortId(0), black_box(frame.clone()));
                }
                network.handle_timeout(now);
                network.transmits().for_each(|out| drop(black_box(out)));
            });
        });
    }
    group.finish();
}

criterion_group!(benches, disciplines);
criterion_main!(benches);
