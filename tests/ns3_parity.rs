//! The models agree with ns-3 3.37 to the nanosecond.
//!
//! `tests/data/ns3-3.37.json` holds what ns-3 did with random traffic over its point-to-point and
//! CSMA channels and over chains of CSMA links joined by bridges: when each frame arrived where,
//! and which frames a full queue dropped when. `TAPESTRY_PARITY` names another file of that kind.

use std::collections::BTreeMap;
use std::env;
use std::fs;
use std::sync::mpsc;

use serde_json::Value;
use tapestry_core::{DataRate, SimTime};
use tapestry_models::{
    DropReason, Frame, Framing, LinkConfig, LinkId, Network, NetworkBuilder, PortId, QueueConfig,
    TraceEvent, TraceRecord,
};

/// (nanosecond, node, frame)
type Happening = (u64, u64, u64);

#[derive(Debug)]
struct Scenario {
    name: String,
    channel: String,
    nodes: u64,
    rate: DataRate,
    delay: SimTime,
    queue_frames: u32,
    /// (nanosecond, node, bytes on the wire)
    sends: Vec<(u64, u64, u64)>,
    receives: Vec<Happening>,
    queue_drops: Vec<Happening>,
}

#[test]
fn arrivals_and_drops_are_those_of_ns3() {
    let default = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/ns3-3.37.json");
    let path = env::var("TAPESTRY_PARITY").unwrap_or_else(|_| default.into());
    let text = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path}: {error}"));
    let file: Value = serde_json::from_str(&text).expect("the parity file is JSON");
    let scenarios: Vec<Scenario> = list(&file).iter().map(parse).collect();
    assert!(!scenarios.is_empty(), "{path} holds no scenario");

    let mut differences = Vec::new();
    let mut compared = BTreeMap::<&str, usize>::new();
    for scenario in &scenarios {
        *compared.entry(&scenario.channel).or_default() +=
            scenario.receives.len() + scenario.queue_drops.len();
        let (receives, drops) = run(scenario);
        let kinds =
            [("receives", &receives, &scenario.receives), ("drops", &drops, &scenario.queue_drops)];
        for (what, ours, ns3s) in kinds {
            if ours != ns3s {
                let first = ours.iter().zip(ns3s).find(|(a, b)| a != b);
                differences.push(format!(
                    "{}: {} {what}, ns-3 {}; first difference (ours, ns-3): {first:?}",
                    scenario.name,
                    ours.len(),
                    ns3s.len(),
                ));
            }
        }
    }
    println!("happenings compared, by channel: {compared:?}");
    assert!(differences.is_empty(), "{}", differences.join("\n"));
}

/// Runs a scenario and returns what was received and what queues dropped.
fn run(scenario: &Scenario) -> (Vec<Happening>, Vec<Happening>) {
    let (mut network, ports) = build(scenario);
    let node_of: BTreeMap<PortId, u64> = ports.iter().map(|(&node, &port)| (port, node)).collect();

    let chain = scenario.channel == "csma-chain";
    let (dropped, drops) = mpsc::channel();
    network.set_trace(Some(Box::new(move |record: TraceRecord<'_>| {
        if record.event == TraceEvent::MacTxDrop && record.reason == Some(DropReason::QueueFull) {
            // In a chain, station 0 of link i is node i and station 1 is node i + 1.
            let before = if chain { u64::from(record.link.0) } else { 0 };
            let node = before + u64::from(record.station);
            let _ = dropped.send((record.at.as_nanos(), node, number(record.frame)));
        }
    })));

    // ns-3 scheduled all sends beforehand, so they come before other events of their instant.
    for (frame, &(at, node, bytes)) in scenario.sends.iter().enumerate() {
        let last = if node == 0 { scenario.nodes - 1 } else { 0 };
        let frame = numbered(frame as u64, node, last, bytes);
        let port = ports.get(&node).unwrap_or_else(|| panic!("node {node} has no open port"));
        network.handle_frame(SimTime::from_nanos(at), *port, frame);
    }
    network.run_until(SimTime::MAX).expect("traffic ends");

    let mut receives: Vec<Happening> = network
        .transmits()
        .map(|out| (out.due.as_nanos(), node_of[&out.port], number(&out.frame)))
        .collect();
    receives.sort_unstable();
    network.set_trace(None);
    let mut drops: Vec<Happening> = drops.iter().collect();
    drops.sort_unstable();
    (receives, drops)
}

/// The network of a scenario and the ports of the nodes that send and receive.
fn build(scenario: &Scenario) -> (Network, BTreeMap<u64, PortId>) {
    // ns-3's default seed and run.
    let mut builder = NetworkBuilder::like_ns3(1, 1);
    let configure = |link: LinkConfig| LinkConfig {
        rate: Some(scenario.rate),
        delay: scenario.delay,
        queue: QueueConfig::frames(scenario.queue_frames),
        mtu: u32::MAX,
        // The file counts bytes on the wire.
        framing: Framing::NONE,
        ..link
    };
    let nodes = scenario.nodes;
    let mut ports = BTreeMap::new();
    match scenario.channel.as_str() {
        "p2p" | "csma" => {
            let config = if scenario.channel == "p2p" {
                LinkConfig::point_to_point("link")
            } else {
                LinkConfig::csma("link", nodes as u32)
            };
            let link = builder.link(configure(config)).expect("a valid link");
            for node in 0..nodes {
                ports.insert(node, port(&builder, link, node as u32));
            }
        }
        "csma-chain" => {
            let links: Vec<LinkId> = (0..nodes - 1)
                .map(|i| configure(LinkConfig::csma(format!("link{i}"), 2)))
                .map(|config| builder.link(config).expect("a valid link"))
                .collect();
            for pair in links.windows(2) {
                let sides = [port(&builder, pair[0], 1), port(&builder, pair[1], 0)];
                builder.bridge(&sides).expect("free ports");
            }
            ports.insert(0, port(&builder, links[0], 0));
            ports.insert(nodes - 1, port(&builder, links[links.len() - 1], 1));
        }
        other => panic!("{}: unknown channel `{other}`", scenario.name),
    }
    (builder.build(), ports)
}

fn port(builder: &NetworkBuilder, link: LinkId, station: u32) -> PortId {
    builder.port(link, station).expect("the station exists")
}

/// A frame of so many bytes that carries its number behind the Ethernet header.
fn numbered(number: u64, from: u64, to: u64, bytes: u64) -> Frame {
    let address = |node: u64| [2, 0, 0, 0, 0, node as u8];
    let mut frame = vec![0; bytes as usize];
    frame[..6].copy_from_slice(&address(to));
    frame[6..12].copy_from_slice(&address(from));
    frame[14..22].copy_from_slice(&number.to_be_bytes());
    Frame::from(frame)
}

fn number(frame: &Frame) -> u64 {
    frame.bytes()[14..22].iter().fold(0, |number, &byte| number << 8 | u64::from(byte))
}

fn parse(scenario: &Value) -> Scenario {
    let name = text(scenario, "name");
    let happenings = |key: &str| {
        let mut happenings: Vec<Happening> = list(&scenario[key])
            .iter()
            .map(|h| (integer(h, "t_ns"), integer(h, "node"), integer(h, "frame")))
            .collect();
        happenings.sort_unstable();
        happenings
    };
    Scenario {
        channel: text(scenario, "channel"),
        nodes: integer(scenario, "nodes"),
        rate: DataRate::from_bits_per_sec(integer(scenario, "rate_bps")).expect("a rate"),
        delay: SimTime::from_nanos(integer(scenario, "delay_ns")),
        queue_frames: integer(scenario, "queue_frames") as u32,
        sends: list(&scenario["sends"])
            .iter()
            .map(|s| (integer(s, "t_ns"), integer(s, "node"), integer(s, "wire_bytes")))
            .collect(),
        receives: happenings("receives"),
        queue_drops: happenings("queue_drops"),
        name,
    }
}

fn list(value: &Value) -> &[Value] {
    value.as_array().unwrap_or_else(|| panic!("expected a list, found {value}"))
}

fn integer(value: &Value, key: &str) -> u64 {
    value[key].as_u64().unwrap_or_else(|| panic!("`{key}` is no whole number in {value}"))
}

fn text(value: &Value, key: &str) -> String {
    value[key].as_str().unwrap_or_else(|| panic!("`{key}` is no text in {value}")).to_owned()
}
