//! What a data plane promises about frames: delivery, order, delay, account, control.

mod common;

use std::time::Duration;

use common::{
    PATIENCE, assert_accounted, delivered, frame, memory_link, number, one_link, pair, wait_until,
};
use proptest::prelude::*;
use tapestry_core::{Clock, SimTime, SyncPolicy};
use tapestry_models::{BridgeConfig, DropReason, LinkConfig, QueueConfig};
use tapestry_realtime::{
    Control, ControlError, DataPlane, DataPlaneConfig, DeviceKind, DeviceSpec, EndpointSpec,
    LinkSpec, MemoryPort, PortDrop, StartError, WallClock,
};

const SECOND: SimTime = SimTime::from_secs(1);

#[test]
fn frames_cross_in_both_directions_and_in_order() {
    let (plane, ends) = one_link(pair("a-b", SimTime::ZERO));
    for i in 0..500 {
        ends[0].send(&frame(i));
        ends[1].send(&frame(1_000 + i));
    }
    for i in 0..500 {
        assert_eq!(ends[1].receive(PATIENCE), Some(frame(i)));
        assert_eq!(ends[0].receive(PATIENCE), Some(frame(1_000 + i)));
    }
    let report = plane.stop();
    assert!(report.failure.is_none());
    assert_accounted(&report.snapshot);
    assert_eq!(report.snapshot.frames_offered(), 1_000);
    assert_eq!(report.snapshot.unintended_losses(), 0);
    assert_eq!(delivered(&report.snapshot.links[0]), 1_000);
    assert!(report.snapshot.lateness.events >= 1_000);
}

#[test]
fn a_shared_medium_reaches_every_other_station() {
    let (plane, ends) = one_link(LinkConfig::csma("lan", 4));
    ends[2].send(&frame(7));
    for receiver in [0, 1, 3] {
        assert_eq!(ends[receiver].receive(PATIENCE), Some(frame(7)));
    }
    let report = plane.stop();
    assert_accounted(&report.snapshot);
    assert_eq!(ends[2].receive(Duration::ZERO), None);
}

#[test]
fn no_frame_is_early() {
    let delay = SimTime::from_millis(3);
    let (link, ends) = memory_link(pair("slow", delay));
    let clock = WallClock::start();
    let plane = DataPlane::start(DataPlaneConfig::new(clock, vec![link])).unwrap();
    for i in 0..50 {
        let sent = clock.now();
        ends[0].send(&frame(i));
        assert_eq!(ends[1].receive(PATIENCE).as_deref().map(number), Some(i));
        let took = clock.now() - sent;
        assert!(took >= delay, "frame {i} took {took}");
        assert!(took < SECOND * 10, "frame {i} took {took}");
    }
    let lateness = plane.stop().snapshot.lateness;
    // A timer and a departure for each frame.
    assert!(lateness.events >= 100, "{lateness:?}");
    assert!(lateness.p50_ns <= lateness.p99_ns && lateness.p99_ns <= lateness.max_ns);
    assert!(lateness.max_event.is_some());
}

#[test]
fn frames_for_a_node_that_is_down_are_counted_and_nobodys_fault() {
    let (plane, ends) = one_link(pair("a-b", SimTime::ZERO));
    let node = |listens| plane.control("a-b", Control::Node { station: 1, listens }).unwrap();
    node(false);
    for i in 0..10 {
        ends[0].send(&frame(i));
    }
    let down = |s: &tapestry_realtime::Snapshot| {
        let port = s.links[0].endpoints[1].port.as_ref().unwrap();
        port.counters.tx_drops.of(PortDrop::NodeDown)
    };
    let snapshot = wait_until(&plane, |s| down(s) == 10);
    assert_accounted(&snapshot);
    assert_eq!(snapshot.unintended_losses(), 0);
    assert_eq!(ends[1].receive(Duration::ZERO), None);
    // It is heard all the same: whether it sends is its own affair.
    ends[1].send(&frame(99));
    assert_eq!(ends[0].receive(PATIENCE), Some(frame(99)));
    node(true);
    ends[0].send(&frame(10));
    assert_eq!(ends[1].receive(PATIENCE), Some(frame(10)), "nothing from before comes late");
    let report = plane.stop();
    assert_eq!(down(&report.snapshot), 10);
    assert_accounted(&report.snapshot);
}

#[test]
fn lateness_can_be_forgotten() {
    let (plane, ends) = one_link(pair("a-b", SimTime::ZERO));
    ends[0].send(&frame(1));
    assert!(ends[1].receive(PATIENCE).is_some());
    wait_until(&plane, |s| s.lateness.events > 0);
    plane.measure(SyncPolicy::BestEffort);
    assert_eq!(plane.snapshot().lateness.events, 0);
    assert_eq!(plane.stop().snapshot.frames_offered(), 1);
}

#[test]
fn every_frame_is_accounted_for_under_overload() {
    let config = LinkConfig {
        rate: Some("1Mbit/s".parse().unwrap()),
        queue: QueueConfig::frames(10),
        ..pair("thin", SimTime::from_millis(5))
    };
    let (plane, ends) = one_link(config);
    for i in 0..2_000 {
        ends[0].send(&frame(i));
        ends[1].send(&frame(i));
        if i % 100 == 0 {
            assert_accounted(&plane.snapshot());
        }
    }
    let snapshot = wait_until(&plane, |s| s.frames_offered() == 4_000);
    assert_accounted(&snapshot);
    let dropped = snapshot.links[0].endpoints[0].station.tx_dropped[DropReason::QueueFull];
    assert!(dropped > 0);
    assert_eq!(snapshot.unintended_losses(), 0);
    let snapshot = wait_until(&plane, |s| {
        let link = &s.links[0];
        link.in_flight == 0 && link.endpoints.iter().all(|e| e.backlog == 0)
    });
    assert_accounted(&snapshot);
    assert_accounted(&plane.stop().snapshot);
}

#[test]
fn malformed_frames_are_refused_with_a_reason() {
    let (plane, ends) = one_link(pair("a-b", SimTime::ZERO));
    ends[0].send(&[]);
    ends[0].send(&[1; 13]);
    ends[0].send(&[2; 1_515]);
    ends[0].send(&vec![3; 70_000]);
    ends[0].send(&frame(1));
    assert_eq!(ends[1].receive(PATIENCE), Some(frame(1)));
    let report = plane.stop();
    assert_accounted(&report.snapshot);
    let drops = report.snapshot.links[0].endpoints[0].station.tx_dropped;
    assert_eq!((drops[DropReason::TooShort], drops[DropReason::TooLong]), (2, 2));
}

#[test]
fn a_vlan_tag_fits_and_jumbo_frames_fit_a_jumbo_link() {
    let (plane, ends) = one_link(LinkConfig { mtu: 9_000, ..pair("jumbo", SimTime::ZERO) });
    let mut tagged = vec![0; 9_018];
    tagged[12..14].copy_from_slice(&[0x81, 0]);
    ends[0].send(&tagged);
    assert_eq!(ends[1].receive(PATIENCE), Some(tagged));
    assert_accounted(&plane.stop().snapshot);
}

#[test]
fn a_link_goes_down_and_comes_back() {
    let (plane, ends) = one_link(pair("a-b", SimTime::ZERO));
    plane.control("a-b", Control::LinkDown).unwrap();
    ends[0].send(&frame(1));
    let snapshot = wait_until(&plane, |s| s.frames_offered() == 1);
    assert!(!snapshot.links[0].up);
    let drops = snapshot.links[0].endpoints[0].station.tx_dropped;
    assert_eq!(drops[DropReason::LinkDown], 1);
    plane.control("a-b", Control::LinkUp).unwrap();
    ends[0].send(&frame(2));
    assert_eq!(ends[1].receive(PATIENCE), Some(frame(2)));
    assert_eq!(
        plane.control("a-c", Control::LinkUp),
        Err(ControlError::NoSuchLink { link: "a-c".into() })
    );
    assert_accounted(&plane.stop().snapshot);
}

#[test]
fn delay_and_rate_change_while_the_link_runs() {
    let (link, ends) = memory_link(pair("a-b", SimTime::ZERO));
    let clock = WallClock::start();
    let plane = DataPlane::start(DataPlaneConfig::new(clock, vec![link])).unwrap();
    plane.control("a-b", Control::Delay(SimTime::from_millis(20))).unwrap();
    let sent = clock.now();
    ends[0].send(&frame(1));
    assert_eq!(ends[1].receive(PATIENCE), Some(frame(1)));
    assert!(clock.now() - sent >= SimTime::from_millis(20));

    plane.control("a-b", Control::Delay(SimTime::ZERO)).unwrap();
    // A frame of 60 bytes occupies 64 on the wire: 32 ms.
    plane.control("a-b", Control::Rate(Some("16kbit/s".parse().unwrap()))).unwrap();
    let sent = clock.now();
    ends[0].send(&frame(2));
    assert_eq!(ends[1].receive(PATIENCE), Some(frame(2)));
    assert!(clock.now() - sent >= SimTime::from_millis(32));
    plane.stop();
}

#[test]
fn stopping_does_not_wait_for_frames_on_the_way() {
    let (plane, ends) = one_link(pair("far", SimTime::from_secs(3_600)));
    ends[0].send(&frame(1));
    wait_until(&plane, |s| s.links[0].in_flight == 1);
    let before = std::time::Instant::now();
    let report = plane.stop();
    assert!(before.elapsed() < PATIENCE);
    assert_eq!(report.snapshot.links[0].in_flight, 1);
    assert_accounted(&report.snapshot);
}

#[test]
fn an_idle_data_plane_sleeps() {
    let (plane, _ends) = one_link(pair("a-b", SimTime::ZERO));
    let before = plane.snapshot().workers[0].turns;
    std::thread::sleep(Duration::from_millis(100));
    let after = plane.snapshot().workers[0].turns;
    // A beat each 10 ms, and the snapshots.
    assert!(after - before <= 40, "{before} → {after}");
    plane.stop();
}

#[test]
fn a_node_that_does_not_take_its_frames_costs_bounded_memory() {
    let (plane, ends) = one_link(pair("a-b", SimTime::ZERO));
    ends[1].set_capacity(0);
    for i in 0..1_000 {
        ends[0].send(&frame(i));
    }
    let snapshot = wait_until(&plane, |s| s.frames_offered() == 1_000);
    assert_accounted(&snapshot);
    let port = snapshot.links[0].endpoints[1].port.as_ref().unwrap();
    let lost = port.counters.tx_drops.of(PortDrop::Backpressure);
    assert_eq!(lost + port.counters.tx_pending, 1_000);
    assert_eq!(snapshot.unintended_losses(), lost);
    assert_eq!(snapshot.links[0].unintended(), [("a-b-1:eth0 (backpressure)".into(), lost)]);
    // It takes them again: what waited is delivered without a new frame pushing it.
    ends[1].set_capacity(usize::MAX);
    let snapshot = wait_until(&plane, |s| delivered(&s.links[0]) == 1_000 - lost);
    assert_accounted(&snapshot);
    plane.stop();
}

#[test]
fn a_full_memory_leaves_frames_with_the_node_and_loses_none() {
    let (link, ends) = memory_link(pair("a-b", SimTime::from_millis(1)));
    let mut config = DataPlaneConfig::new(WallClock::start(), vec![link]);
    config.memory_limit = 4 * 1_536;
    let plane = DataPlane::start(config).unwrap();
    for i in 0..100 {
        ends[0].send(&frame(i));
    }
    for i in 0..100 {
        assert_eq!(ends[1].receive(PATIENCE).as_deref().map(number), Some(i));
    }
    assert_accounted(&plane.stop().snapshot);
}

#[test]
fn devices_join_links_and_links_meet_in_one_worker() {
    let link = |name: &str| {
        let endpoint = format!("{name}:eth0");
        let (port, end) = MemoryPort::pair(&endpoint);
        let endpoints =
            vec![EndpointSpec::port(endpoint, port), EndpointSpec::device("switch:0", 0)];
        (LinkSpec { config: pair(name, SimTime::ZERO), endpoints }, end)
    };
    let (links, ends): (Vec<_>, Vec<_>) = ["x", "y", "z"].map(link).into_iter().unzip();
    let (other, other_ends) = memory_link(pair("apart", SimTime::ZERO));
    let mut config = DataPlaneConfig::new(WallClock::start(), links);
    config.links.push(other);
    config.devices = vec![DeviceSpec {
        name: "switch".into(),
        kind: DeviceKind::Bridge(BridgeConfig::default()),
    }];
    config.workers = 4;
    let plane = DataPlane::start(config).unwrap();
    ends[0].send(&frame(1));
    assert_eq!(ends[1].receive(PATIENCE), Some(frame(1)));
    assert_eq!(ends[2].receive(PATIENCE), Some(frame(1)));
    other_ends[0].send(&frame(2));
    assert_eq!(other_ends[1].receive(PATIENCE), Some(frame(2)));
    let report = plane.stop();
    assert_accounted_ports(&report.snapshot);
    let links: Vec<_> = report.snapshot.workers.iter().map(|w| w.links.join(" ")).collect();
    assert_eq!(links, ["x y z", "apart"]);
}

/// The equations also hold where a device sits on a station.
fn assert_accounted_ports(snapshot: &tapestry_realtime::Snapshot) {
    assert_accounted(snapshot);
    assert!(snapshot.links.iter().any(|l| l.endpoints.iter().any(|e| e.port.is_none())));
}

#[test]
fn what_cannot_start_says_why() {
    let (first, _) = memory_link(pair("twice", SimTime::ZERO));
    let (second, _) = memory_link(pair("twice", SimTime::ZERO));
    let config = DataPlaneConfig::new(WallClock::start(), vec![first, second]);
    assert!(matches!(DataPlane::start(config), Err(StartError::Build(_))));

    let endpoints = vec![EndpointSpec::device("s:0", 0), EndpointSpec::device("s:1", 0)];
    let link = LinkSpec { config: pair("loop", SimTime::ZERO), endpoints };
    let config = DataPlaneConfig::new(WallClock::start(), vec![link]);
    let error = DataPlane::start(config).err().unwrap();
    assert!(matches!(error, StartError::NoSuchDevice { device: 0, .. }), "{error}");

    let (link, _) = memory_link(pair("pinned", SimTime::ZERO));
    let mut config = DataPlaneConfig::new(WallClock::start(), vec![link]);
    config.pin_to = vec![1_000_000];
    let error = DataPlane::start(config).err().unwrap();
    assert!(matches!(error, StartError::Pin { cpu: 1_000_000, .. }), "{error}");
}

#[test]
fn a_data_plane_without_links_starts_and_stops() {
    let plane = DataPlane::start(DataPlaneConfig::new(WallClock::start(), Vec::new())).unwrap();
    assert!(plane.snapshot().links.is_empty());
    assert_eq!(plane.stop().snapshot.lateness.events, 0);
}

#[test]
fn reports_serialise() {
    let (plane, ends) = one_link(pair("a-b", SimTime::ZERO));
    ends[0].send(&frame(1));
    assert!(ends[1].receive(PATIENCE).is_some());
    let json = serde_json::to_value(plane.stop()).unwrap();
    let endpoint = &json["links"][0]["endpoints"][0];
    assert_eq!(endpoint["endpoint"], "a-b-0:eth0");
    assert_eq!(endpoint["port"]["rx_frames"], 1);
    assert_eq!(endpoint["station"]["offered"]["frames"], 1);
    assert_eq!(endpoint["port"]["state"], "up");
    assert!(json["lateness"]["p99_ns"].is_u64());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// Whatever nodes send, over links of any kind: no panic, no hang, no frame unaccounted.
    #[test]
    fn arbitrary_frames_are_survived_and_accounted(
        frames in prop::collection::vec(
            (0..4_usize, prop::collection::vec(any::<u8>(), 0..1_700)),
            0..200,
        ),
        shared: bool,
        limited: bool,
        delay_us in 0..3_000_u64,
    ) {
        let base = if shared { LinkConfig::csma("l", 4) } else { LinkConfig::point_to_point("l") };
        let config = LinkConfig {
            rate: limited.then(|| "100Mbit/s".parse().unwrap()),
            delay: SimTime::from_micros(delay_us),
            queue: QueueConfig::frames(20),
            ..base
        };
        let (plane, ends) = one_link(config);
        let count = frames.len() as u64;
        for (from, bytes) in frames {
            ends[from % ends.len()].send(&bytes);
        }
        let snapshot = wait_until(&plane, |s| s.frames_offered() == count);
        assert_accounted(&snapshot);
        let report = plane.stop();
        prop_assert!(report.failure.is_none());
        assert_accounted(&report.snapshot);
    }
}
