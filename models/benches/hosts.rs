//! What 1,000 and 10,000 hosts in a tree need: memory and wall time for a second in which each sends one
//! datagram, and for what follows it.
#![allow(clippy::disallowed_methods, reason = "it measures")]

#[path = "../tests/common/mod.rs"]
mod common;

use common::{Lab, host, interface};
use tapestry_core::SimTime;
use tapestry_models::LinkConfig;

fn main() {
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
