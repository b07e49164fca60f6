//! Queue disciplines drop as much and delay as long as those of ns-3 3.37 under the same arrivals.
//!
//! `tests/data/ns3-3.37-queues.json` is what `benches/peers/ns3_queues.cc` printed; its head
//! describes the traffic. Drop-tail decides nothing by chance and must agree exactly. Others must agree within the sampling error of
//! means over eight seeds, although they differ in small things:
//!
//! - `CoDel` computes `interval / √count` exactly, ns-3 by one step of Newton's method in 16 bits
//!   from the value before, as Linux once did; so ns-3's second drop comes after 50 ms instead of
//!   71 ms, and it drops a few frames more.
//! - RED in ns-3 counts from 1 at the crossing of `min`, and never drops there; its gentle part keeps the slope of the first `max_probability` when that adapts.
//! - FQ-CoDel in ns-3 drops from the first of equally fat queues, ours from the one whose turn is next.
//! - PIE in ns-3 begins its first burst allowance at the first arrival, ours at time zero.

use std::fs;
use std::sync::{Arc, Mutex};

use serde_json::Value;
use tapestry_core::{DataRate, SimTime, Streams};
use tapestry_models::{
    CoDelConfig, FqCoDelConfig, Frame, Framing, Limit, LinkConfig, NetworkBuilder, PieConfig,
    PortId, QueueConfig, RedConfig, TraceEvent, TraceRecord,
};

const FRAME_BYTES: usize = 1_000;
const END_NS: u64 = 60_000_000_000;
const MEANS_NS: [u64; 4] = [1_333_333, 727_272, 888_888, 571_428];
const FLOWS: usize = 4;

/// What one run came to.
#[derive(Debug, Default, Clone)]
struct Outcome {
    arrivals: u64,
    drops: [u64; FLOWS],
    /// Times in the queue by flow, ns.
    delays: [Vec<u64>; FLOWS],
}

/// Figures of one seed, ours or ns-3's.
#[derive(Debug, Clone, PartialEq)]
struct Figures {
    arrivals: u64,
    drops: Vec<u64>,
    mean_delay_ns: Vec<u64>,
    p99_delay_ns: u64,
}

fn splitmix(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut z = *state;
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

fn flow_of(number: u64) -> usize {
    if number % 20 == 7 { 0 } else { 1 + (number % 3) as usize }
}

/// A UDP datagram of a flow.
fn datagram(flow: usize) -> Frame {
    let mut bytes = vec![0; FRAME_BYTES];
    bytes[12..14].copy_from_slice(&[0x08, 0x00]);
    bytes[14] = 0x45;
    bytes[23] = 17;
    bytes[26..34].copy_from_slice(&[10, 0, 0, 1, 10, 0, 0, 2]);
    bytes[34..38].copy_from_slice(&[0x10, flow as u8, 0x13, 0x89]);
    Frame::from(bytes)
}

/// Runs the traffic of a seed through a queue.
fn run(queue: &QueueConfig, seed: u64) -> Figures {
    let mut builder = NetworkBuilder::new(Streams::new(7, seed));
    let config = LinkConfig {
        rate: DataRate::from_bits_per_sec(10_000_000),
        framing: Framing::NONE,
        queue: queue.clone(),
        ..LinkConfig::point_to_point("l")
    };
    builder.link(config).expect("a valid link");
    let mut network = builder.build();
    let at_head = matches!(queue, QueueConfig::CoDel(_) | QueueConfig::FqCoDel(_));
    // The trace shows frames, and flows are told by their ports.
    let outcome = Arc::new(Mutex::new(Outcome::default()));
    let observed = Arc::clone(&outcome);
    let mut entered: [std::collections::VecDeque<SimTime>; FLOWS] = Default::default();
    network.set_trace(Some(Box::new(move |record: TraceRecord<'_>| {
        let flow = usize::from(record.frame.bytes()[35]);
        let mut noted = observed.lock().expect("no observer panics");
        match record.event {
            TraceEvent::MacTx => entered[flow].push_back(record.at),
            // Within a flow all these queues are first in, first out.
            TraceEvent::MacTxDrop => {
                noted.drops[flow] += 1;
                if at_head {
                    entered[flow].pop_front()
                } else {
                    entered[flow].pop_back()
                };
            }
            TraceEvent::PhyTxBegin => {
                let since = entered[flow].pop_front().expect("sent after it was offered");
                noted.delays[flow].push((record.at - since).as_nanos());
            }
            _ => {}
        }
    })));
    let frames: [Frame; FLOWS] = std::array::from_fn(datagram);
    let (mut random, mut now, mut arrivals) = (seed, 0, 0);
    loop {
        let mean = MEANS_NS[(now / 1_000_000_000 % 4) as usize];
        now += splitmix(&mut random) % (2 * mean);
        if now >= END_NS {
            break;
        }
        let frame = frames[flow_of(arrivals)].clone();
        network.handle_frame(SimTime::from_nanos(now), PortId(0), frame);
        arrivals += 1;
    }
    network.run_until(SimTime::MAX).expect("traffic ends");
    network.set_trace(None);
    let mut outcome = outcome.lock().expect("no observer panics").clone();
    outcome.arrivals = arrivals;
    figures(&outcome)
}

fn figures(outcome: &Outcome) -> Figures {
    let mean = |delays: &Vec<u64>| delays.iter().sum::<u64>() / (delays.len() as u64).max(1);
    let mut all = outcome.delays.concat();
    all.sort_unstable();
    Figures {
        arrivals: outcome.arrivals,
        drops: outcome.drops.to_vec(),
        mean_delay_ns: outcome.delays.iter().map(mean).collect(),
        p99_delay_ns: all[all.len() * 99 / 100],
    }
}

fn reference(name: &str) -> Vec<Figures> {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/ns3-3.37-queues.json");
    let text = fs::read_to_string(path).unwrap_or_else(|error| panic!("{path}: {error}"));
    let file: Value = serde_json::from_str(&text).expect("the reference is JSON");
    let number = |value: &Value| value.as_u64().expect("a whole number");
    let list = |value: &Value| value.as_array().expect("a list").iter().map(number).collect();
    let runs = file[name].as_array().unwrap_or_else(|| panic!("no runs of {name}"));
    let figures = runs.iter().map(|run| Figures {
        arrivals: number(&run["arrivals"]),
        drops: list(&run["drops"]),
        mean_delay_ns: list(&run["mean_delay_ns"]),
        p99_delay_ns: number(&run["p99_delay_ns"]),
    });
    figures.collect()
}

/// Our figures and ns-3's, seed by seed; the arrivals must be the same.
fn both(name: &str, queue: &QueueConfig) -> Vec<(Figures, Figures)> {
    let pairs: Vec<_> =
        (1..).zip(reference(name)).map(|(seed, ns3)| (run(queue, seed), ns3)).collect();
    assert_eq!(pairs.len(), 8);
    for (ours, ns3) in &pairs {
        assert_eq!(ours.arrivals, ns3.arrivals, "{name}: other arrivals");
    }
    pairs
}

/// Means agree within the sampling error.
fn agree(name: &str, what: &str, pairs: &[(f64, f64)]) {
    let n = pairs.len() as f64;
    // The arrivals are the same, so the differences vary less than the figures.
    let differences: Vec<f64> = pairs.iter().map(|(ours, ns3)| ours - ns3).collect();
    let mean = differences.iter().sum::<f64>() / n;
    let variance = differences.iter().map(|d| (d - mean).powi(2)).sum::<f64>() / (n - 1.0);
    let error = (variance / n).sqrt();
    let ns3 = pairs.iter().map(|(_, ns3)| ns3).sum::<f64>() / n;
    println!(
        "{name} {what}: ns-3 {ns3:.0}, ours {:+.2} % ± {:.2} %",
        100.0 * mean / ns3,
        100.0 * error / ns3
    );
    assert!(error <= 0.05 * ns3, "{name} {what}: too few samples, {ns3} ± {error}");
    assert!(mean.abs() <= SIGMAS * error, "{name} {what}: ns-3 {ns3}, ours {mean:+} ± {error}");
}

/// With 8 seeds the mean of differences is t-distributed with 7 degrees of freedom: beyond 9
/// standard errors in 4 of 10⁵ cases.
const SIGMAS: f64 = 9.0;

fn compare(name: &str, queue: &QueueConfig) {
    let pairs = both(name, queue);
    let column = |of: fn(&Figures) -> f64| -> Vec<(f64, f64)> {
        pairs.iter().map(|(ours, ns3)| (of(ours), of(ns3))).collect()
    };
    agree(name, "drops", &column(|f| f.drops.iter().sum::<u64>() as f64));
    agree(name, "sparse flow's drops", &column(|f| f.drops[0] as f64 + 1.0));
    agree(name, "mean delay", &column(|f| f.mean_delay_ns[1..].iter().sum::<u64>() as f64 / 3.0));
    agree(name, "sparse flow's mean delay", &column(|f| f.mean_delay_ns[0] as f64));
    agree(name, "99th percentile", &column(|f| f.p99_delay_ns as f64));
}

fn red(gentle: bool, adaptive: bool) -> QueueConfig {
    QueueConfig::Red(RedConfig { gentle, adaptive, ..RedConfig::default() })
}

#[test]
fn drop_tail_is_ns3s_exactly() {
    for (ours, ns3) in both("drop-tail", &QueueConfig::frames(50)) {
        assert_eq!(ours, ns3);
    }
}

#[test]
fn red_is_ns3s() {
    compare("red", &red(false, false));
    compare("red-gentle", &red(true, false));
    compare("red-adaptive", &red(true, true));
}

#[test]
fn codel_is_ns3s() {
    compare("codel", &QueueConfig::CoDel(CoDelConfig::default()));
}

fn fq_codel(limit: u32) -> QueueConfig {
    let codel = CoDelConfig { limit: Limit::Frames(limit), ..CoDelConfig::default() };
    QueueConfig::FqCoDel(FqCoDelConfig { codel, ..FqCoDelConfig::default() })
}

#[test]
fn fq_codel_is_ns3s() {
    compare("fq-codel", &fq_codel(10_240));
    compare("fq-codel-short", &fq_codel(50));
}

#[test]
fn pie_is_ns3s() {
    compare("pie", &QueueConfig::Pie(PieConfig::default()));
}
