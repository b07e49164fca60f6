//! Sources: listed and periodic frames, hosts that receive them, and networks of many.

mod common;

use common::{host, interface};
use tapestry_core::{DataRate, SimTime, Streams};
use tapestry_models::{
    DeviceChange, DeviceId, Frame, LinkConfig, Network, NetworkBuilder, Schedule, udp_frame,
};

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

/// A source of a frame each 10 ms, for 100 ms, and a link of 1 ms to a sink.
fn ticking() -> (Network, DeviceId, DeviceId) {
    let mut builder = NetworkBuilder::new(Streams::new(1, 0));
    let delay = SimTime::from_millis(1);
    let link = builder.link(LinkConfig { delay, ..LinkConfig::point_to_point("l") }).unwrap();
    let ports = [0, 1].map(|station| builder.port(link, station).unwrap());
    let interval = SimTime::from_millis(10);
    let frame = Frame::from(vec![0; 100]);
    let schedule = Schedule::Periodic { start: interval, interval, count: 10, frame };
    let source = builder.source("s", schedule, ports[0]).unwrap();
    let sink = builder.source("sink", Schedule::sink(), ports[1]).unwrap();
    (builder.build(), source, sink)
}

/// How many frames the sink has at each of these instants, in milliseconds.
fn arrivals(network: &mut Network, sink: DeviceId, instants: &[u64]) -> Vec<u64> {
    let mut seen = Vec::new();
    for &ms in instants {
        network.run_until(SimTime::from_millis(ms)).unwrap();
        seen.push(network.source(sink).unwrap().received().frames);
    }
    seen
}

#[test]
fn a_source_that_stood_still_leaves_out_what_it_missed() {
    let (mut network, source, sink) = ticking();
    assert_eq!(arrivals(&mut network, sink, &[25]), [2]);
    assert!(network.change_device(SimTime::from_millis(25), source, DeviceChange::Pause));
    assert_eq!(arrivals(&mut network, sink, &[55]), [2]);
    assert!(network.change_device(SimTime::from_millis(55), source, DeviceChange::Resume));
    // Of ten, those of 30, 40 and 50 ms are left out; the next leaves at 60 ms.
    assert_eq!(arrivals(&mut network, sink, &[60, 61, 71, 500]), [2, 3, 4, 7]);
}

#[test]
fn a_source_that_starts_anew_begins_again() {
    let (mut network, source, sink) = ticking();
    assert_eq!(arrivals(&mut network, sink, &[25]), [2]);
    assert!(network.change_device(SimTime::from_millis(25), source, DeviceChange::Kill));
    assert_eq!(arrivals(&mut network, sink, &[100]), [2]);
    assert!(network.change_device(SimTime::from_millis(100), source, DeviceChange::Restart));
    assert_eq!(arrivals(&mut network, sink, &[110, 111, 121, 500]), [2, 3, 4, 12]);
}

/// Nothing else happens in the lab: the clock of the last event is long past.
#[test]
fn a_host_that_stood_still_goes_on_now_not_in_the_past() {
    let mut builder = NetworkBuilder::new(Streams::new(1, 0));
    let delay = SimTime::from_millis(5);
    let link = builder.link(LinkConfig { delay, ..LinkConfig::point_to_point("l") }).unwrap();
    let ports = [0, 1].map(|station| builder.port(link, station).unwrap());
    let node = |builder: &mut NetworkBuilder, n: u8| {
        let address = format!("10.0.0.{n}/24");
        builder
            .host(host(&format!("n{n}"), vec![interface(n, &[&address])]), &[ports[n as usize - 1]])
    };
    let (a, b) = (node(&mut builder, 1).unwrap(), node(&mut builder, 2).unwrap());
    let mut network = builder.build();
    network.start_command(SimTime::ZERO, a, "ping -c 3 -i 0.1 10.0.0.2").unwrap();
    network.run_until(SimTime::from_millis(50)).unwrap();
    assert!(network.change_device(SimTime::from_millis(50), a, DeviceChange::Pause));
    network.run_until(SimTime::from_secs(2)).unwrap();
    assert!(network.change_device(SimTime::from_secs(2), a, DeviceChange::Resume));
    assert!(network.poll_timeout().is_some_and(|due| due >= SimTime::from_secs(2)));
    let _ = b;
}
