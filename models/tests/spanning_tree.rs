//! Bridges in a loop: with the spanning tree protocol, frames pass once, and pass again after a
//! link has failed.

mod common;

use common::{Lab, host, interface};
use tapestry_core::{SimTime, Streams};
use tapestry_models::{
    BridgeConfig, DeviceId, HostBridge, HostConfig, LinkConfig, LinkId, NetworkBuilder, Schedule,
    SpanningTreeConfig, udp_frame,
};

/// A triangle of bridges, a source at one corner and sinks at the others.
#[test]
fn a_triangle_forwards_each_frame_once() {
    let mut builder = NetworkBuilder::new(Streams::new(1, 0));
    let mut link = |name: &str| builder.link(LinkConfig::point_to_point(name)).unwrap();
    let [ab, bc, ca, a, b, c] = ["ab", "bc", "ca", "a", "b", "c"].map(&mut link);
    let port = |builder: &NetworkBuilder, id, station| builder.port(id, station).unwrap();
    for (n, ends) in
        [[(ab, 0), (ca, 1), (a, 0)], [(ab, 1), (bc, 0), (b, 0)], [(bc, 1), (ca, 0), (c, 0)]]
            .iter()
            .enumerate()
    {
        let ports = ends.map(|(id, station)| port(&builder, id, station));
        let stp = Some(SpanningTreeConfig::new([2, 0, 0, 1, 0, n as u8]));
        let config = BridgeConfig { stp, ..BridgeConfig::default() };
        builder.configured_bridge(&config, &ports).unwrap();
    }
    let address = |n: u8| ([2, 0, 0, 0, 0, n], format!("10.0.0.{n}:9").parse().unwrap());
    let broadcast = ([0xff; 6], "10.0.0.255:9".parse().unwrap());
    let schedule = Schedule::Periodic {
        start: SimTime::from_secs(1),
        interval: SimTime::from_secs(1),
        count: 200,
        frame: udp_frame(address(1), broadcast, 1_000),
    };
    builder.source("a", schedule, port(&builder, a, 1)).unwrap();
    let sinks = [("b", b), ("c", c)]
        .map(|(name, id)| builder.source(name, Schedule::sink(), port(&builder, id, 1)).unwrap());
    let mut network = builder.build();
    let big = |network: &tapestry_models::Network, sink: DeviceId| {
        // BPDUs come every two seconds, too, from the bridge before the sink.
        let received = network.source(sink).unwrap().received();
        let bpdus = (1_042 * received.frames - received.bytes) / (1_042 - 60);
        received.frames - bpdus
    };
    network.run_until(SimTime::from_millis(29_500)).unwrap();
    // Ports listen and learn for 15 s each.
    assert_eq!(sinks.map(|sink| big(&network, sink)), [0, 0]);
    network.run_until(SimTime::from_millis(49_500)).unwrap();
    assert_eq!(sinks.map(|sink| big(&network, sink)), [20, 20], "each frame once");
    let blocked: Vec<_> = (0..3)
        .flat_map(|bridge| (0..3).map(move |port| (bridge, port)))
        .filter(|&(bridge, port)| !network.bridge(DeviceId(bridge)).unwrap().forwards(port))
        .collect();
    // Bridge 0 is root; of the others, the one with the higher address blocks the link between.
    assert_eq!(blocked, [(2, 0)]);

    // The root's link to the third bridge fails. That bridge loses its carrier, so it does not wait
    // until it has heard nothing for 20 s: the blocked port listens and learns at once.
    network.set_link_up(SimTime::from_millis(49_500), LinkId(ca.0), false);
    network.run_until(SimTime::from_millis(78_500)).unwrap();
    assert!(!network.bridge(DeviceId(2)).unwrap().forwards(0), "it still learns");
    let before = big(&network, sinks[1]);
    network.run_until(SimTime::from_millis(80_500)).unwrap();
    assert!(network.bridge(DeviceId(2)).unwrap().forwards(0), "the blocked port took over");
    assert_eq!(big(&network, sinks[1]), before + 1);
    assert_eq!(big(&network, sinks[0]), 51, "the others missed nothing");

    // When the link is back, its port is the root port again, and the other one blocks at once.
    network.set_link_up(SimTime::from_millis(80_500), LinkId(ca.0), true);
    network.run_until(SimTime::from_millis(83_500)).unwrap();
    assert!(!network.bridge(DeviceId(2)).unwrap().forwards(0), "no loop");
    network.run_until(SimTime::from_millis(115_500)).unwrap();
    let before = big(&network, sinks[1]);
    network.run_until(SimTime::from_millis(120_500)).unwrap();
    assert_eq!(big(&network, sinks[1]), before + 5, "each frame once");
}

/// Two hosts with bridges inside, joined twice: a loop that only the protocol breaks.
#[test]
fn bridges_inside_hosts_break_loops() {
    let twin = |name: &str, n: u8| {
        let mut config = host(name, vec![interface(n, &[]), interface(n + 1, &[])]);
        config.bridges = vec![HostBridge {
            name: "br0".into(),
            ports: vec!["eth0".into(), "eth1".into()],
            addresses: vec![format!("10.0.0.{n}/24").parse().unwrap()],
            stp: true,
        }];
        config
    };
    let hosts: Vec<HostConfig> = vec![twin("a", 10), twin("b", 20)];
    let links =
        [0, 1].map(|i| (LinkConfig::point_to_point(format!("l{i}")), vec![("a", i), ("b", i)]));
    let mut lab = Lab::new(links.into(), hosts);
    assert_eq!(lab.run("a", "ping -c 1 -W 1 10.0.0.20").0, 1, "nothing passes yet");
    lab.pass(SimTime::from_secs(31));
    let (status, text) = lab.run("a", "ping -c 3 -i 0.1 10.0.0.20");
    assert_eq!(status, 0, "{text}");
    assert!(!text.contains("duplicates"), "{text}");
}
