//! Sources: listed and periodic frames, hosts that receive them, and networks of many.

mod common;

use common::{Lab, host, interface};
use tapestry_core::{DataRate, SimTime, Streams};
use tapestry_models::{DeviceId, Frame, LinkConfig, Network, NetworkBuilder, Schedule, udp_frame};

/// A chain of this many links (10 Gbit/s, CSMA) joined by learning bridges, a source of 1470-byte
/// datagrams at one end, a sink at the other; devices 0 and 1 are the ends.
fn chain(links: u32, interval: SimTime, count: u64) -> Network {
    let mut builder = NetworkBuilder::new(Streams::new(1, 0));
    let ids: Vec<_> = (0..links)
        .map(|i| {
            let rate = DataRate::from_bits_per_sec(10_000_000_000);
            builder.link(LinkConfig { rate, ..LinkConfig::csma(format!("l{i}"), 2) }).unwrap()
        })
        .collect();
    let end = |n| ([2, 0, 0, 0, 0, n], format!("10.0.0.{n}:5001").parse().unwrap());
    let frame = udp_frame(end(1), end(2), 1_470);
    let schedule = Schedule::Periodic { start: SimTime::ZERO, interval, count, frame };
    let ports = |builder: &NetworkBuilder, link| [0, 1].map(|s| builder.port(link, s).unwrap());
    let (first, last) = (ports(&builder, ids[0])[0], ports(&builder, ids[ids.len() - 1])[1]);
    builder.source("n0", schedule, first).unwrap();
    builder.source("sink", Schedule::sink(), last).unwrap();
    for pair in ids.windows(2) {
        let ports = [ports(&builder, pair[0])[1], ports(&builder, pair[1])[0]];
        builder.bridge(&ports).unwrap();
    }
    builder.build()
}

#[test]
fn a_chain_carries_what_its_source_sends() {
    let mut network = chain(9, SimTime::from_micros(2), 1_000);
    network.run_until(SimTime::from_secs(1)).unwrap();
    let [sent, received] = [0, 1].map(|n| network.source(DeviceId(n)).unwrap());
    assert_eq!((sent.sent().frames, received.received().frames), (1_000, 1_000));
    assert_eq!(received.received().bytes, 1_000 * 1_512);
    assert_eq!(network.poll_timeout(), None);
}

#[test]
fn listed_frames_leave_at_their_instants_and_hosts_take_them() {
    let end = |n| ([2, 0, 0, 0, 0, n], format!("10.0.0.{n}:5001").parse().unwrap());
    let at = |ms| (SimTime::from_millis(ms), udp_frame(end(1), end(2), 100));
    let mut builder = NetworkBuilder::new(Streams::new(1, 0));
    let link = builder.link(LinkConfig::point_to_point("l")).unwrap();
    let ports = [0, 1].map(|station| builder.port(link, station).unwrap());
    let schedule =
        Schedule::Listed(vec![at(3), at(1), (SimTime::from_millis(2), Frame::from(vec![0; 20]))]);
    let source = builder.source("s", schedule, ports[0]).unwrap();
    builder.host(host("n0", vec![interface(2, &["10.0.0.2/24"])]), &ports[1..]).unwrap();
    let mut network = builder.build();
    for (ms, frames) in [(0, 0), (1, 1), (2, 2), (5, 3)] {
        network.run_until(SimTime::from_millis(ms)).unwrap();
        assert_eq!(network.source(source).unwrap().sent().frames, frames);
    }
    // Nobody listens at the port, so the host asks who the sender is, to tell it.
    assert!(network.source(source).unwrap().received().frames > 0);
}

/// What 10,000 hosts need. Figures only.
#[test]
#[ignore = "a measurement: run it alone, in release"]
fn figures() {
    for hosts in [1_000_usize, 10_000] {
        let start = std::time::Instant::now();
        let before = resident_kib();
        let mut lab = tree(hosts);
        let built = start.elapsed().as_secs_f64();
        for n in (0..hosts).filter(|n| n % SEGMENT != 0) {
            let server = address(n / SEGMENT * SEGMENT);
            lab.start_at(n, &format!("iperf -c {server} -u -l 100 -b 1pps -t 1"));
        }
        let started = start.elapsed().as_secs_f64();
        lab.pass(SimTime::from_secs(4));
        println!(
            "{hosts} hosts: {} MiB, built {built:.2} s, started {started:.2} s, ran {:.2} s",
            (resident_kib() - before) / 1_024,
            start.elapsed().as_secs_f64()
        );
    }
}

fn resident_kib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

const SEGMENT: usize = 50;

fn address(n: usize) -> String {
    format!("10.{}.{}.{}", n / 62_500, n / 250 % 250, n % 250 + 1)
}

/// Hosts on segments of 50, each below a router on one root segment; the first of each segment has
/// a server, to which the others send.
fn tree(count: usize) -> Lab {
    let mut hosts = Vec::new();
    let names: Vec<String> = (0..count).map(|n| format!("n{n}")).collect();
    let segments = count.div_ceil(SEGMENT);
    let routers: Vec<String> = (0..segments).map(|s| format!("r{s}")).collect();
    for (n, name) in names.iter().enumerate() {
        let address = format!("{}/8", address(n));
        let mut config = host(name, vec![interface(0, &[&address])]);
        config.interfaces[0].mac = [2, 0, 1, (n >> 16) as u8, (n >> 8) as u8, n as u8];
        hosts.push(config);
    }
    let mut links = Vec::new();
    for (s, router) in routers.iter().enumerate() {
        let mut ends: Vec<(&str, usize)> =
            names.iter().skip(s * SEGMENT).take(SEGMENT).map(|name| (name.as_str(), 0)).collect();
        ends.push((router, 0));
        links.push((LinkConfig::csma(format!("s{s}"), 0), ends));
        let mut config = host(router, vec![interface(0, &[]), interface(0, &[])]);
        config.interfaces[0].mac = [2, 0, 2, 0, (s >> 8) as u8, s as u8];
        config.interfaces[1].mac = [2, 0, 3, 0, (s >> 8) as u8, s as u8];
        config.forwarding = true;
        hosts.push(config);
    }
    let ends: Vec<(&str, usize)> = routers.iter().map(|name| (name.as_str(), 1)).collect();
    links.push((LinkConfig::csma("root", 0), ends));
    let mut lab = Lab::new(links, hosts);
    for n in (0..count).step_by(SEGMENT) {
        lab.start_at(n, "iperf -s -u");
    }
    lab
}
