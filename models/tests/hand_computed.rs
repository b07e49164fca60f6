//! Cases whose times can be computed by hand.

use std::sync::mpsc;

use tapestry_core::{DataRate, SimTime, Streams};
use tapestry_models::{
    Backoff, ChannelKind, DropReason, Frame, Framing, LinkConfig, LinkId, Network, NetworkBuilder,
    PortId, QueueConfig, TraceEvent, TraceRecord,
};

fn us(micros: u64) -> SimTime {
    SimTime::from_micros(micros)
}

/// A frame that occupies the wire of an Ethernet link for `wire_bytes`, marked with `mark`.
fn frame(wire_bytes: usize, mark: u8) -> Frame {
    let mut bytes = vec![mark; wire_bytes - 4];
    bytes[12..14].copy_from_slice(&[0x08, 0x00]);
    Frame::from(bytes)
}

fn network(config: LinkConfig) -> Network {
    let mut builder = NetworkBuilder::new(Streams::new(1, 0));
    builder.link(config).unwrap();
    builder.build()
}

/// 10 Mbit/s: 1 µs is 10 bits, so 125 bytes take 100 µs.
fn ten_megabit(config: LinkConfig) -> LinkConfig {
    LinkConfig { rate: DataRate::from_bits_per_sec(10_000_000), delay: us(50), ..config }
}

const LINK: LinkId = LinkId(0);
const A: PortId = PortId(0);
const B: PortId = PortId(1);

/// What left the network: (port, mark, time due).
fn outputs(network: &mut Network) -> Vec<(u32, u8, SimTime)> {
    network.run_until(SimTime::MAX).unwrap();
    network.transmits().map(|out| (out.port.0, out.frame.bytes()[0], out.due)).collect()
}

#[test]
fn point_to_point_serialises_queues_and_delays_each_direction() {
    let mut config = ten_megabit(LinkConfig::point_to_point("l"));
    config.queue = QueueConfig::frames(2);
    let mut network = network(config);
    for mark in 0..4 {
        network.handle_frame(us(0), A, frame(125, mark));
    }
    network.handle_frame(us(10), B, frame(250, 9));
    assert_eq!(network.backlog(A), 3);
    // Frame 3 found the queue full. The other direction is not disturbed.
    assert_eq!(
        outputs(&mut network),
        [(1, 0, us(150)), (1, 1, us(250)), (0, 9, us(260)), (1, 2, us(350))]
    );
    let counters = &network.counters(LINK)[0];
    assert_eq!(counters.tx_dropped[DropReason::QueueFull], 1);
    assert_eq!((counters.offered.frames, counters.transmitted.frames), (4, 3));
    assert_eq!(network.counters(LINK)[1].delivered.bytes, 3 * 121);
}

#[test]
fn short_frames_are_padded_on_the_wire_only() {
    let mut network = network(ten_megabit(LinkConfig::point_to_point("l")));
    network.handle_frame(us(0), A, Frame::from(vec![1; 20]));
    network.run_until(SimTime::MAX).unwrap();
    let out = network.poll_transmit().unwrap();
    // 64 bytes take 51.2 µs.
    assert_eq!((out.due, out.frame.len()), (SimTime::from_nanos(101_200), 20));
}

#[test]
fn csma_is_half_duplex_and_backs_off() {
    let mut network = network(ten_megabit(LinkConfig::csma("l", 3)));
    network.handle_frame(us(0), A, frame(125, 1));
    network.handle_frame(us(30), B, frame(125, 2));
    let outputs = outputs(&mut network);
    // Busy until 150 µs: 100 of transmission, 50 of propagation. All others hear frame 1 at once.
    assert_eq!(outputs[..2], [(1, 1, us(150)), (2, 1, us(150))]);
    assert!(outputs[2..].iter().all(|&(port, mark, _)| port != 1 && mark == 2));
    // Station 1 found the medium busy, first for one slot of 1 µs, and waited whole slots.
    let arrival = outputs[2].2;
    assert_eq!(outputs[3].2, arrival);
    let started = (arrival - us(150)).as_nanos();
    assert!(started >= 150_000 && started.is_multiple_of(1_000), "started at {started} ns");
    assert!(network.counters(LINK)[1].backoffs >= 2);
    assert_eq!(network.in_flight(LINK), 0);
}

#[test]
fn csma_keeps_the_interframe_gap() {
    let config = LinkConfig { delay: us(0), ..ten_megabit(LinkConfig::csma("l", 2)) };
    let mut network = network(config);
    network.handle_frame(us(0), A, frame(125, 1));
    network.handle_frame(us(0), A, frame(125, 2));
    // 96 bit times at 10 Mbit/s are 9.6 µs.
    assert_eq!(outputs(&mut network), [(1, 1, us(100)), (1, 2, SimTime::from_nanos(209_600))]);
}

#[test]
fn csma_gives_up_after_the_last_retry_and_goes_on() {
    let backoff = Backoff { max_retries: 3, max_slots: 1, ..Backoff::default() };
    let mut network = network(LinkConfig { backoff, ..ten_megabit(LinkConfig::csma("l", 2)) });
    network.handle_frame(us(0), A, frame(125, 1));
    network.handle_frame(us(0), B, frame(125, 2));
    network.handle_frame(us(0), B, frame(125, 3));
    network.run_until(us(2)).unwrap();
    assert_eq!(network.backlog(B), 2);
    network.run_until(us(3)).unwrap();
    assert_eq!(network.counters(LINK)[1].tx_dropped[DropReason::BackoffRetriesExceeded], 1);
    assert_eq!(network.backlog(B), 1);
    assert_eq!(outputs(&mut network), [(1, 1, us(150))]);
    assert_eq!(network.counters(LINK)[1].tx_dropped.total(), 2);
}

#[test]
fn without_rate_and_delay_frames_pass_in_the_same_instant() {
    for config in [LinkConfig::csma("l", 2), LinkConfig::point_to_point("l")] {
        let mut network = network(config);
        for mark in 0..3 {
            network.handle_frame(us(7), A, frame(125, mark));
        }
        network.handle_frame(us(7), B, frame(125, 9));
        assert_eq!(network.poll_timeout(), Some(us(7)));
        network.handle_timeout(us(7));
        let marks: Vec<_> =
            network.transmits().map(|out| (out.frame.bytes()[0], out.due)).collect();
        assert_eq!(marks, [(0, us(7)), (1, us(7)), (2, us(7)), (9, us(7))]);
        assert_eq!(network.poll_timeout(), None);
    }
}

#[test]
fn an_unlimited_csma_link_is_busy_while_a_frame_propagates() {
    let mut network = network(LinkConfig { delay: us(50), ..LinkConfig::csma("l", 2) });
    network.handle_frame(us(0), A, frame(125, 1));
    network.handle_frame(us(10), B, frame(125, 2));
    let outputs = outputs(&mut network);
    assert_eq!(outputs[0], (1, 1, us(50)));
    assert!(outputs[1].0 == 0 && outputs[1].2 >= us(100));
}

#[test]
fn late_calls_do_not_change_times() {
    for config in [LinkConfig::csma("l", 2), LinkConfig::point_to_point("l")] {
        let mut network = network(ten_megabit(config));
        network.handle_frame(us(0), A, frame(125, 1));
        // Nobody called handle_timeout at 100 and 150 µs.
        network.handle_frame(us(1_000), A, frame(125, 2));
        network.handle_timeout(us(5_000));
        let due: Vec<_> = network.transmits().map(|out| out.due).collect();
        assert_eq!(due, [us(150), us(1_150)]);
    }
}

#[test]
fn frames_that_do_not_fit_are_counted() {
    let mut network = network(LinkConfig { mtu: 100, ..LinkConfig::point_to_point("l") });
    let mut tagged = vec![0; 118];
    tagged[12..14].copy_from_slice(&[0x81, 0x00]);
    for bytes in [vec![0; 114], vec![0; 115], tagged, vec![0; 13]] {
        network.handle_frame(us(0), A, Frame::from(bytes));
    }
    assert_eq!(outputs(&mut network).len(), 2);
    let dropped = network.counters(LINK)[0].tx_dropped;
    assert_eq!((dropped[DropReason::TooLong], dropped[DropReason::TooShort]), (1, 1));
}

#[test]
fn a_link_that_goes_down_loses_what_is_on_it() {
    for config in [LinkConfig::csma("l", 2), LinkConfig::point_to_point("l")] {
        let mut network = network(ten_megabit(config));
        network.handle_frame(us(0), A, frame(125, 1)); // arrives at 150
        network.handle_frame(us(0), A, frame(125, 2)); // in transmission or back-off at 120
        network.handle_frame(us(0), A, frame(125, 3)); // queued
        network.set_link_up(us(120), LINK, false);
        assert_eq!((network.backlog(A), network.in_flight(LINK)), (0, 1));
        network.handle_frame(us(130), A, frame(125, 4));
        network.set_link_up(us(140), LINK, true);
        network.handle_frame(us(140), B, frame(125, 5));
        assert_eq!(outputs(&mut network), [(0, 5, us(290))]);
        let [a, b] = network.counters(LINK) else { panic!("two stations") };
        assert_eq!(a.tx_dropped[DropReason::LinkDown], 3);
        assert_eq!(b.rx_dropped[DropReason::LinkDown], 1);
        assert_eq!(network.in_flight(LINK), 0);
    }
}

#[test]
fn changes_apply_to_what_is_not_on_the_wire_yet() {
    let mut network = network(ten_megabit(LinkConfig::point_to_point("l")));
    for mark in 1..4 {
        network.handle_frame(us(0), A, frame(125, mark));
    }
    network.set_delay(us(10), LINK, us(0));
    network.set_rate(us(110), LINK, None);
    // 1: as before. 2 began at 100 at the old rate, with the new delay. 3 starts at 200, unlimited.
    assert_eq!(outputs(&mut network), [(1, 1, us(150)), (1, 2, us(200)), (1, 3, us(200))]);
}

#[test]
fn a_shorter_delay_does_not_reorder() {
    let mut network = network(LinkConfig { delay: us(500), ..LinkConfig::point_to_point("l") });
    network.handle_frame(us(0), A, frame(125, 1));
    network.set_delay(us(1), LINK, us(10));
    network.handle_frame(us(2), A, frame(125, 2));
    network.handle_frame(us(600), A, frame(125, 3));
    assert_eq!(outputs(&mut network), [(1, 1, us(500)), (1, 2, us(500)), (1, 3, us(610))]);
}

/// Three links with a device on station 0 of each.
fn star(hub: bool) -> Network {
    let mut builder = NetworkBuilder::new(Streams::new(1, 0));
    let inner: Vec<PortId> = ["a", "b", "c"]
        .map(|name| builder.link(LinkConfig::point_to_point(name)).unwrap())
        .map(|link| builder.port(link, 0).unwrap())
        .into();
    if hub { builder.hub(&inner) } else { builder.bridge(&inner) }.unwrap();
    builder.build()
}

#[test]
fn devices_forward_between_links() {
    for hub in [false, true] {
        let mut network = star(hub);
        let frame = |to: u8, from: u8| {
            let mut bytes = vec![0; 60];
            bytes[..12].copy_from_slice(&[2, 0, 0, 0, 0, to, 2, 0, 0, 0, 0, from]);
            Frame::from(bytes)
        };
        let mut send = |port: u32, to: u8| {
            network.handle_frame(us(0), PortId(port), frame(to, port as u8));
            network.run_until(us(0)).unwrap();
            network.transmits().map(|out| out.port.0).collect::<Vec<_>>()
        };
        // The outer ports are 1, 3 and 5; addresses are named after them.
        assert_eq!(send(1, 5), [3, 5]);
        assert_eq!(send(5, 1), if hub { vec![1, 3] } else { vec![1] });
        assert_eq!(send(1, 5), if hub { vec![3, 5] } else { vec![5] });
        assert!(!network.is_open(PortId(0)) && network.is_open(PortId(1)));
    }
}

#[test]
fn a_loop_without_delay_ends_with_an_error_not_a_hang() {
    let mut builder = NetworkBuilder::new(Streams::new(1, 0));
    let links =
        ["in", "x", "y"].map(|name| builder.link(LinkConfig::point_to_point(name)).unwrap());
    let port =
        |builder: &NetworkBuilder, link, station| builder.port(links[link], station).unwrap();
    let left = [port(&builder, 0, 1), port(&builder, 1, 0), port(&builder, 2, 0)];
    let right = [port(&builder, 1, 1), port(&builder, 2, 1)];
    builder.hub(&left).unwrap();
    builder.hub(&right).unwrap();
    let mut network = builder.build();
    network.handle_frame(us(3), A, frame(125, 1));
    // In real time a call returns although there is more to do.
    network.handle_timeout(us(3));
    assert_eq!(network.poll_timeout(), Some(us(3)));
    assert!(network.events() <= Network::EVENTS_PER_CALL as u64);
    network.handle_frame(us(4), A, frame(125, 2));
    assert_eq!(network.poll_timeout(), Some(us(3)));
    network.transmits().for_each(drop);
}

#[test]
fn the_trace_tells_the_life_of_a_frame() {
    use TraceEvent::{MacRx, MacTx, MacTxBackoff, MacTxDrop, PhyRxEnd, PhyTxBegin, PhyTxEnd};
    let mut config = ten_megabit(LinkConfig::csma("l", 2));
    config.queue = QueueConfig::frames(0);
    config.framing = Framing::ETHERNET;
    assert_eq!(config.channel, ChannelKind::Csma);
    let mut network = network(config);
    let (sender, records) = mpsc::channel();
    network.set_trace(Some(Box::new(move |record: TraceRecord<'_>| {
        let mark = record.frame.bytes()[0];
        sender.send((record.at, record.station, record.event, mark, record.reason)).unwrap();
    })));
    network.handle_frame(us(0), A, frame(125, 1));
    network.handle_frame(us(0), A, frame(125, 2));
    network.handle_frame(us(149), B, frame(125, 3));
    network.run_until(SimTime::MAX).unwrap();
    network.set_trace(None);
    assert_eq!(
        records.iter().take(9).collect::<Vec<_>>(),
        [
            (us(0), 0, MacTx, 1, None),
            (us(0), 0, PhyTxBegin, 1, None),
            (us(0), 0, MacTx, 2, None),
            (us(0), 0, MacTxDrop, 2, Some(DropReason::QueueFull)),
            (us(100), 0, PhyTxEnd, 1, None),
            (us(149), 1, MacTx, 3, None),
            (us(149), 1, MacTxBackoff, 3, None),
            (us(150), 1, PhyRxEnd, 1, None),
            (us(150), 1, MacRx, 1, None),
        ]
    );
}

/// Frames of 1250 bytes take 1 ms at 10 Mbit/s: the first does not wait, the others 1 and 2 ms.
#[test]
fn time_in_the_queue_is_counted() {
    let config =
        LinkConfig { framing: Framing::NONE, ..ten_megabit(LinkConfig::point_to_point("l")) };
    let mut network = network(config);
    for _ in 0..3 {
        network.handle_frame(us(0), A, Frame::from(vec![0; 1_250]));
    }
    network.run_until(SimTime::from_secs(1)).unwrap();
    let queue = network.counters(LINK)[0].queue;
    assert_eq!((queue.longest_frames, queue.longest_bytes, queue.dequeued), (2, 2_500, 3));
    assert_eq!((queue.sojourn_sum_ns, queue.sojourn_max_ns), (3_000_000, 2_000_000));
    assert_eq!(queue.sojourn_mean_ns(), Some(1_000_000));
    let json = serde_json::to_value(queue).unwrap();
    assert_eq!(json["sojourn_mean_ns"], 1_000_000);
    assert_eq!(network.counters(LINK)[1].queue.sojourn_mean_ns(), None);
}
