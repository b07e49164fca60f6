//! Stations that always have a frame to send share a CSMA segment as they do in ns-3 3.37.
//!
//! `tests/data/ns3-3.37-saturated.json` holds what ns-3 did, 20 runs of each scenario
//! (`benches/peers/ns3_saturated.cc` made it). Our runs draw their own random numbers, so what is
//! compared are means: of the throughput, of Jain's fairness index and of the back-offs per frame,
//! by Welch's t-test. The chance that equal models fail any of the tests is 1 % in all; seeds are
//! fixed, so the outcome is always the same.

use std::collections::BTreeMap;

use serde::Deserialize;
use statrs::distribution::{ContinuousCDF, StudentsT};
use tapestry_core::{DataRate, SimTime, Streams};
use tapestry_models::{DropReason, Frame, Framing, LinkConfig, NetworkBuilder, QueueConfig};

/// Chance that one of all comparisons fails although the models agree.
const ERROR_RATE: f64 = 0.01;
/// Runs of each scenario on our side; ns-3's are 20.
const OUR_RUNS: u64 = 8;
/// Runs that hardly vary are compared to a thousandth instead.
const RESOLUTION: f64 = 0.001;

#[derive(Debug, Deserialize)]
struct Reference {
    stations: u32,
    rate: String,
    delay_ns: u64,
    wire_bytes: usize,
    seconds: f64,
    run: u64,
    sent: Vec<u64>,
    backoffs: Vec<u64>,
}

/// Throughput in frames per second, Jain's index, back-offs per frame.
type Figures = [f64; 3];

#[test]
fn saturated_stations_share_the_medium_as_in_ns3() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/ns3-3.37-saturated.json");
    let text = std::fs::read_to_string(path).expect("the reference is there");
    let runs: Vec<Reference> = serde_json::from_str(&text).expect("the reference is JSON");
    let mut scenarios = BTreeMap::<(u32, &str), (Vec<Figures>, Vec<Figures>)>::new();
    for run in &runs {
        let (theirs, ours) = scenarios.entry((run.stations, &run.rate)).or_default();
        theirs.push(figures(run.seconds, &run.sent, &run.backoffs));
        if run.run <= OUR_RUNS {
            ours.push(simulate(run));
        }
    }
    let names = ["frames/s", "Jain's index", "back-offs per frame"];
    let each = ERROR_RATE / (scenarios.len() * names.len()) as f64;
    let mut differences = Vec::new();
    for ((stations, rate), (theirs, ours)) in &scenarios {
        for (i, name) in names.iter().enumerate() {
            let column = |runs: &[Figures]| runs.iter().map(|run| run[i]).collect::<Vec<_>>();
            let (a, b) = (Sample::of(&column(theirs)), Sample::of(&column(ours)));
            let line = format!(
                "{stations} stations, {rate}, {name}: ns-3 {:.4} ± {:.4}, ours {:.4} ± {:.4}",
                a.mean, a.deviation, b.mean, b.deviation
            );
            println!("{line}");
            if !agree(&a, &b, each) {
                differences.push(line);
            }
        }
    }
    assert!(differences.is_empty(), "{}", differences.join("\n"));
}

/// The same scenario in our model.
fn simulate(run: &Reference) -> Figures {
    let mut builder = NetworkBuilder::new(Streams::new(1, run.run));
    let until = SimTime::from_secs_f64(run.seconds).expect("a time");
    let rate: DataRate = run.rate.replace("bps", "bit/s").parse().expect("a rate");
    // More than the medium can carry: no queue ever runs empty.
    let frames = 1 + until.as_nanos() / rate.transmit_time(run.wire_bytes as u64).as_nanos();
    let config = LinkConfig {
        rate: Some(rate),
        delay: SimTime::from_nanos(run.delay_ns),
        queue: QueueConfig::frames(frames as u32),
        framing: Framing::NONE,
        ..LinkConfig::csma("segment", run.stations)
    };
    let link = builder.link(config).expect("a valid link");
    let mut network = builder.build();
    let frame = Frame::from(vec![0; run.wire_bytes]);
    for station in 0..run.stations {
        let port = network.port(link, station).expect("the station exists");
        for _ in 0..frames {
            network.handle_frame(SimTime::ZERO, port, frame.clone());
        }
    }
    network.run_until(until).expect("time advances");
    let stations = network.counters(link);
    // A frame may be given up after 1,000 retries, as in ns-3, but none found the queue full.
    assert!(stations.iter().all(|station| station.tx_dropped[DropReason::QueueFull] == 0));
    let sent: Vec<u64> = stations.iter().map(|station| station.transmitted.frames).collect();
    let backoffs: Vec<u64> = stations.iter().map(|station| station.backoffs).collect();
    figures(run.seconds, &sent, &backoffs)
}

fn figures(seconds: f64, sent: &[u64], backoffs: &[u64]) -> Figures {
    let sum = |values: &[u64]| values.iter().sum::<u64>() as f64;
    let squares: f64 = sent.iter().map(|&sent| (sent * sent) as f64).sum();
    let all = sum(sent);
    [all / seconds, all * all / (sent.len() as f64 * squares), sum(backoffs) / all]
}

struct Sample {
    mean: f64,
    deviation: f64,
    runs: f64,
}

impl Sample {
    fn of(values: &[f64]) -> Self {
        let runs = values.len() as f64;
        let mean = values.iter().sum::<f64>() / runs;
        let squares: f64 = values.iter().map(|value| (value - mean).powi(2)).sum();
        Self { mean, deviation: (squares / (runs - 1.0)).sqrt(), runs }
    }

    fn variance_of_mean(&self) -> f64 {
        self.deviation.powi(2) / self.runs
    }
}

/// Welch's t-test, two-sided.
fn agree(a: &Sample, b: &Sample, error_rate: f64) -> bool {
    let difference = (a.mean - b.mean).abs();
    if difference <= RESOLUTION * a.mean.abs() {
        return true;
    }
    let (va, vb) = (a.variance_of_mean(), b.variance_of_mean());
    let freedom = (va + vb).powi(2) / (va.powi(2) / (a.runs - 1.0) + vb.powi(2) / (b.runs - 1.0));
    let Ok(distribution) = StudentsT::new(0.0, 1.0, freedom) else { return false };
    2.0 * distribution.cdf(-difference / (va + vb).sqrt()) >= error_rate
}

#[test]
fn another_back_off_would_be_noticed() {
    let sample = |mean, deviation| Sample { mean, deviation, runs: 20.0 };
    assert!(agree(&sample(15.75, 0.064), &sample(15.77, 0.064), ERROR_RATE / 24.0));
    assert!(!agree(&sample(15.75, 0.064), &sample(15.90, 0.064), ERROR_RATE / 24.0));
    assert!(!agree(&sample(1235.0, 0.0), &sample(1240.0, 0.0), ERROR_RATE / 24.0));
}
