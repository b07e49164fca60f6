//! Nanoseconds a frame for each impairment of a point-to-point link, beside a plain link; a link
//! with all of them; and a delay line with a thousand and with a million frames in it.

mod burst;

use std::hint::black_box;

use burst::BURST;
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use tapestry_core::link::{
    BeyondDelay, Chance, Corruption, DeliveryTrace, Distribution, Jitter, LinkParameters, Loss,
    Reorder, Schedule, Slots, TokenBucket, Unit,
};
use tapestry_core::{ByteCount, DataRate, Probability, SimTime, Streams};
use tapestry_models::{Frame, LinkConfig, Network, NetworkBuilder, PortId, QueueConfig};

fn percent(percent: f64) -> Probability {
    Probability::from_f64(percent / 100.0).unwrap_or_default()
}

fn chance(percents: f64) -> Chance {
    let correlation = percent(25.0);
    Chance { correlation, ..Chance::independent(percent(percents)) }
}

fn plain() -> LinkParameters {
    LinkParameters::new(DataRate::from_bits_per_sec(10_000_000_000), SimTime::from_millis(1))
}

/// The name of each case and what it adds to a plain link.
fn cases() -> Vec<(&'static str, LinkParameters)> {
    let jitter = |distribution| {
        let time = SimTime::from_micros(200);
        let (correlation, beyond_delay) = (percent(25.0), BeyondDelay::Clamp);
        Some(Jitter { time, distribution, correlation, beyond_delay })
    };
    let burst = ByteCount::from_bytes(65_536);
    let bucket = Some(TokenBucket { burst, peak: DataRate::from_bits_per_sec(20_000_000_000) });
    let times: String =
        (1..=1_000).flat_map(|ms| std::iter::repeat_n(format!("{ms}\n"), 900)).collect();
    let text = "time,rate,delay,loss\n0s,10Gbit/s,1ms,1%\n1s,9Gbit/s,2ms,2%\n";
    let gilbert_elliott = Loss::GilbertElliott {
        p: percent(1.0),
        r: percent(20.0),
        bad: Probability::ONE,
        good: Probability::ZERO,
    };
    let corrupt = Some(Corruption { chance: chance(1.0), per: Unit::Frame, bits: 1 });
    let slots = Some(Slots {
        min: SimTime::from_micros(50),
        max: SimTime::from_micros(100),
        frames: None,
        bytes: None,
    });
    let reorder = Some(Reorder { chance: chance(1.0), gap: 5 });
    vec![
        ("plain", plain()),
        ("jitter-uniform", LinkParameters { jitter: jitter(Distribution::Uniform), ..plain() }),
        ("jitter-pareto", LinkParameters { jitter: jitter(Distribution::Pareto), ..plain() }),
        ("loss", LinkParameters { loss: Some(Loss::independent(percent(1.0))), ..plain() }),
        ("gilbert-elliott", LinkParameters { loss: Some(gilbert_elliott.clone()), ..plain() }),
        ("duplicate", LinkParameters { duplicate: Some(chance(1.0)), ..plain() }),
        ("corrupt", LinkParameters { corrupt, ..plain() }),
        ("reorder", LinkParameters { reorder, ..plain() }),
        ("bucket", LinkParameters { bucket, ..plain() }),
        ("slots", LinkParameters { slots, ..plain() }),
        (
            "trace",
            LinkParameters { rate: None, trace: DeliveryTrace::parse(&times).ok(), ..plain() },
        ),
        ("schedule", LinkParameters { schedule: Schedule::parse(text).ok(), ..plain() }),
        (
            "everything",
            LinkParameters {
                jitter: jitter(Distribution::ParetoNormal),
                loss: Some(gilbert_elliott),
                duplicate: Some(chance(1.0)),
                corrupt,
                reorder,
                bucket,
                slots,
                ..plain()
            },
        ),
    ]
}

fn network(parameters: &LinkParameters) -> Option<Network> {
    let mut builder = NetworkBuilder::new(Streams::new(1, 0));
    let both = Box::new([parameters.clone(), parameters.clone()]);
    // A trace lets go of what has come in a whole millisecond.
    let queue = QueueConfig::frames(10_000);
    let config = LinkConfig { queue, parameters: Some(both), ..LinkConfig::point_to_point("l") };
    builder.link(config).ok()?;
    Some(builder.build())
}

fn impairments(c: &mut Criterion) {
    let mut group = c.benchmark_group("impairments");
    group.throughput(Throughput::Elements(BURST));
    for (name, parameters) in cases() {
        let Some(network) = network(&parameters) else { continue };
        burst::bench(&mut group, name, network);
    }
    group.finish();
}

/// One frame in and one out, with so many under way.
fn delay_line(c: &mut Criterion) {
    let mut group = c.benchmark_group("delay line");
    for frames in [1_000_u64, 1_000_000] {
        let jitter = Some(Jitter::uniform(SimTime::from_micros(frames / 4)));
        let delay = SimTime::from_micros(frames);
        let parameters =
            LinkParameters { jitter, reordering: true, ..LinkParameters::new(None, delay) };
        let Some(mut network) = network(&parameters) else { continue };
        let frame = Frame::from(vec![0; 1_512]);
        let mut now = SimTime::ZERO;
        let mut step = |network: &mut Network| {
            now += SimTime::from_micros(1);
            network.handle_frame(now, PortId(0), frame.clone());
            network.handle_timeout(now);
            network.transmits().for_each(|out| drop(black_box(out)));
        };
        for _ in 0..frames * 2 {
            step(&mut network);
        }
        group.bench_function(format!("{frames} frames"), |b| b.iter(|| step(&mut network)));
    }
    group.finish();
}

criterion_group!(benches, impairments, delay_line);
criterion_main!(benches);
