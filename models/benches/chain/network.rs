//! The chain that is measured: CSMA links at 10 Gbit/s joined by learning bridges, 1470-byte UDP
//! datagrams from one end to the other.

use tapestry_core::{DataRate, SimTime, Streams};
use tapestry_models::{LinkConfig, Network, NetworkBuilder, Schedule, udp_frame};

/// A chain of so many links; device 0, at one end, sends so many datagrams to device 1 at the other.
pub(crate) fn network(links: u32, datagrams: u64) -> Network {
    let mut builder = NetworkBuilder::new(Streams::new(1, 0));
    let ports: Vec<_> = (0..links)
        .map(|i| {
            let rate = DataRate::from_bits_per_sec(10_000_000_000);
            let config = LinkConfig { rate, ..LinkConfig::csma(format!("l{i}"), 2) };
            let link = builder.link(config).expect("names are unique");
            [0, 1].map(|station| builder.port(link, station).expect("there are two stations"))
        })
        .collect();
    let end = |n| ([2, 0, 0, 0, 0, n], format!("10.0.0.{n}:5001").parse().expect("an address"));
    let schedule = Schedule::Periodic {
        start: SimTime::ZERO,
        // A little longer than a frame lasts on the wire, so that no queue builds up.
        interval: SimTime::from_nanos(1_300),
        count: datagrams,
        frame: udp_frame(end(1), end(2), 1_470),
    };
    builder.source("n0", schedule, ports[0][0]).expect("a free port");
    // One frame the other way, from which the bridges learn.
    let hello = Schedule::Listed(vec![(SimTime::ZERO, udp_frame(end(2), end(1), 18))]);
    builder.source("sink", hello, ports[ports.len() - 1][1]).expect("a free port");
    for pair in ports.windows(2) {
        builder.bridge(&[pair[0][1], pair[1][0]]).expect("free ports");
    }
    builder.build()
}
