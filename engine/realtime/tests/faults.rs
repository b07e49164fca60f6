//! What a data plane does when something breaks: ports, guests, workers, time.

mod common;

use std::io::ErrorKind;
use std::os::unix::net::UnixDatagram;
use std::time::Duration;

use common::{PATIENCE, assert_accounted, frame, memory_link, number, one_link, pair, wait_until};
use nix::errno::Errno;
use tapestry_core::{SimTime, SyncPolicy};
use tapestry_realtime::{
    Control, ControlError, DataPlane, DataPlaneConfig, EndpointSpec, Failure, LinkReport, LinkSpec,
    MemoryPort, PortDrop, PortState, SocketPort, WallClock,
};

/// Waits for the failure without a runtime of the test's own.
fn failure_of(plane: &DataPlane) -> Option<Failure> {
    let mut watch = plane.failure();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    runtime.block_on(async {
        tokio::time::timeout(PATIENCE, watch.wait()).await.expect("a failure in time")
    })
}

#[test]
fn an_interface_that_is_down_is_reported_and_comes_back() {
    let (plane, ends) = one_link(pair("a-b", SimTime::ZERO));
    ends[1].set_fault(Some(Errno::EIO));
    for i in 0..10 {
        ends[0].send(&frame(i));
    }
    let snapshot = wait_until(&plane, |s| s.frames_offered() == 10 && !s.notices.is_empty());
    assert_accounted(&snapshot);
    let port = snapshot.links[0].endpoints[1].port.as_ref().unwrap();
    assert_eq!(port.state, PortState::Down);
    assert_eq!(port.counters.tx_drops.of(PortDrop::InterfaceDown), 10);
    // What a node does to its own interface is not the emulator's loss.
    assert_eq!(snapshot.unintended_losses(), 0);
    let notice = &snapshot.notices[0];
    assert_eq!((notice.link.as_str(), notice.endpoint.as_str()), ("a-b", "a-b-1:eth0"));
    assert_eq!(notice.state, PortState::Down);

    ends[1].set_fault(None);
    ends[0].send(&frame(11));
    assert_eq!(ends[1].receive(PATIENCE), Some(frame(11)));
    let snapshot = wait_until(&plane, |s| s.notices.len() == 2);
    assert_eq!(snapshot.notices[1].state, PortState::Up);
    plane.stop();
}

#[test]
fn a_deleted_interface_costs_no_processor_time() {
    let (plane, ends) = one_link(pair("a-b", SimTime::ZERO));
    ends[0].set_fault(Some(Errno::EBADFD));
    let gone =
        |s: &tapestry_realtime::Snapshot| s.notices.iter().any(|n| n.state == PortState::Gone);
    let before = wait_until(&plane, gone).workers[0].turns;
    std::thread::sleep(Duration::from_millis(50));
    let after = plane.snapshot().workers[0].turns;
    // A beat each 10 ms, and the snapshots.
    assert!(after - before <= 25, "{before} → {after}");
    ends[1].send(&frame(1));
    let snapshot = wait_until(&plane, |s| s.frames_offered() == 1);
    let port = snapshot.links[0].endpoints[0].port.as_ref().unwrap();
    assert_eq!(port.counters.tx_drops.of(PortDrop::InterfaceGone), 1);
    assert_accounted(&snapshot);
    plane.stop();
}

#[test]
fn a_worker_that_panics_is_named_and_the_others_go_on() {
    let (first, first_ends) = memory_link(pair("first", SimTime::ZERO));
    let (second, second_ends) = memory_link(pair("second", SimTime::ZERO));
    let mut config = DataPlaneConfig::new(WallClock::start(), vec![first, second]);
    config.workers = 2;
    let plane = DataPlane::start(config).unwrap();
    first_ends[0].send(&frame(1));
    assert!(first_ends[1].receive(PATIENCE).is_some());
    first_ends[0].panic_next();
    let failure = failure_of(&plane).expect("a panic is a failure");
    assert!(
        matches!(&failure, Failure::Panicked { links, message }
            if links == "link `first`" && message.contains("asked this port to panic")),
        "{failure}"
    );
    assert_eq!(
        plane.control("first", Control::LinkUp),
        Err(ControlError::Ended { link: "first".into() })
    );
    second_ends[0].send(&frame(2));
    assert_eq!(second_ends[1].receive(PATIENCE), Some(frame(2)));
    // What the dead worker had counted is kept.
    let snapshot = plane.snapshot();
    assert_eq!(snapshot.links[0].endpoints[0].station.offered.frames, 1);
    let report = plane.stop();
    assert_eq!(report.failure, Some(failure));
    assert_eq!(report.snapshot.links.len(), 2);
}

#[test]
fn the_hard_limit_ends_the_run_and_names_the_event() {
    let (link, ends) = memory_link(pair("strict", SimTime::from_millis(1)));
    let mut config = DataPlaneConfig::new(WallClock::start(), vec![link]);
    // Nothing happens within a nanosecond, so every event is too late.
    config.sync = SyncPolicy::HardLimit(SimTime::from_nanos(1));
    let plane = DataPlane::start(config).unwrap();
    ends[0].send(&frame(1));
    let failure = failure_of(&plane).expect("the limit is a failure");
    let Failure::HardLimit { event, late, limit, .. } = &failure else { panic!("{failure}") };
    assert!(event.contains("strict"), "{event}");
    assert!(late > limit);
    assert!(failure.to_string().contains("hard limit is 1ns"), "{failure}");
    assert_eq!(plane.stop().failure, Some(failure));
}

#[test]
fn a_generous_hard_limit_is_kept() {
    let (link, ends) = memory_link(pair("a-b", SimTime::from_millis(1)));
    let mut config = DataPlaneConfig::new(WallClock::start(), vec![link]);
    config.sync = SyncPolicy::HardLimit(SimTime::from_secs(60));
    let plane = DataPlane::start(config).unwrap();
    ends[0].send(&frame(1));
    assert!(ends[1].receive(PATIENCE).is_some());
    assert!(plane.failure().so_far().is_none());
    assert!(plane.stop().failure.is_none());
}

#[test]
fn waiting_for_a_failure_ends_with_the_data_plane() {
    let (plane, _ends) = one_link(pair("a-b", SimTime::ZERO));
    let mut watch = plane.failure();
    let waiter = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(watch.wait())
    });
    plane.stop();
    assert_eq!(waiter.join().unwrap(), None);
}

/// A link between a socketpair (whose guest's end is returned) and memory.
fn socket_link() -> (DataPlane, UnixDatagram, tapestry_realtime::MemoryEnd) {
    let (socket, guest) = SocketPort::pair("guest-socket").unwrap();
    let (memory, end) = MemoryPort::pair("memory");
    let endpoints =
        vec![EndpointSpec::port("guest:eth0", socket), EndpointSpec::port("test:eth0", memory)];
    let link = LinkSpec { config: pair("g-t", SimTime::ZERO), endpoints };
    let plane = DataPlane::start(DataPlaneConfig::new(WallClock::start(), vec![link])).unwrap();
    let guest = UnixDatagram::from(guest);
    guest.set_read_timeout(Some(PATIENCE)).unwrap();
    (plane, guest, end)
}

#[test]
fn datagrams_are_frames() {
    let (plane, guest, end) = socket_link();
    let mut buffer = [0; 2_048];
    for i in 0..200 {
        guest.send(&frame(i)).unwrap();
        assert_eq!(end.receive(PATIENCE), Some(frame(i)));
        end.send(&frame(i));
        let length = guest.recv(&mut buffer).unwrap();
        assert_eq!(buffer[..length], frame(i));
    }
    guest.send(&[]).unwrap();
    guest.send(&vec![0; 20_000]).unwrap();
    let snapshot = wait_until(&plane, |s| s.frames_offered() == 402);
    assert_eq!(snapshot.links[0].endpoints[0].station.tx_dropped.total(), 2);
    assert_accounted(&plane.stop().snapshot);
}

#[test]
fn a_guest_that_stops_reading_gets_what_fits_once_it_reads_again() {
    const SENT: u32 = 5_000;
    let (plane, guest, end) = socket_link();
    for i in 0..SENT {
        end.send(&frame(i));
    }
    let snapshot = wait_until(&plane, |s| s.frames_offered() == u64::from(SENT));
    assert_accounted(&snapshot);
    let port = snapshot.links[0].endpoints[0].port.as_ref().unwrap();
    let lost = port.counters.tx_drops.of(PortDrop::Backpressure);
    assert!(lost > 0 && port.counters.tx_pending > 0, "{port:?}");
    let mut buffer = [0; 2_048];
    for expected in 0..SENT - lost as u32 {
        let length = guest.recv(&mut buffer).unwrap();
        assert_eq!(number(&buffer[..length]), expected);
    }
    let snapshot = wait_until(&plane, |s| {
        s.links[0].endpoints[0].port.as_ref().is_some_and(|p| p.counters.tx_pending == 0)
    });
    assert_accounted(&snapshot);
    guest.set_nonblocking(true).unwrap();
    assert_eq!(guest.recv(&mut buffer).unwrap_err().kind(), ErrorKind::WouldBlock);
    plane.stop();
}

#[test]
fn a_guest_that_died_is_noticed_by_the_next_frame() {
    let (plane, guest, end) = socket_link();
    drop(guest);
    for i in 0..10 {
        end.send(&frame(i));
    }
    let snapshot = wait_until(&plane, |s| s.frames_offered() == 10 && !s.notices.is_empty());
    assert_eq!(snapshot.notices[0].endpoint, "guest:eth0");
    assert_eq!(snapshot.notices[0].state, PortState::Gone);
    let port = snapshot.links[0].endpoints[0].port.as_ref().unwrap();
    assert_eq!(port.counters.tx_drops.of(PortDrop::InterfaceGone), 10);
    assert_accounted(&plane.stop().snapshot);
}

#[test]
fn noise_from_a_guest_is_counted_and_the_link_goes_on() {
    const DATAGRAMS: u64 = 3_000;
    let (plane, guest, end) = socket_link();
    // xorshift64: any noise will do, but the same each time.
    let mut noise = 0x9e37_79b9_7f4a_7c15_u64;
    let mut draw = move || {
        noise ^= noise << 13;
        noise ^= noise >> 7;
        noise ^= noise << 17;
        noise
    };
    for _ in 0..DATAGRAMS {
        let length = (draw() % 4_000) as usize;
        let bytes: Vec<u8> = (0..length).map(|_| draw() as u8).collect();
        guest.send(&bytes).unwrap();
    }
    guest.send(&frame(7)).unwrap();
    let snapshot = wait_until(&plane, |s| s.frames_offered() == DATAGRAMS + 1);
    assert_accounted(&snapshot);
    let station = &snapshot.links[0].endpoints[0].station;
    // Some have no header, most are longer than the link takes, all others pass.
    assert!(station.tx_dropped.total() > DATAGRAMS / 2, "{station:?}");
    let passed = station.transmitted.frames;
    assert!(passed > DATAGRAMS / 4, "{station:?}");
    assert_eq!(passed + station.tx_dropped.total(), DATAGRAMS + 1);
    for _ in 1..passed {
        end.receive(PATIENCE).expect("a frame that passed");
    }
    assert_eq!(end.receive(PATIENCE), Some(frame(7)));
    assert!(plane.stop().failure.is_none());
}

#[test]
fn a_flood_costs_bounded_memory_and_leaves_the_neighbours_their_turn() {
    const FLOOD: u32 = 60_000;
    const FRAME_BYTES: usize = 1_514;
    let (flooded, flooded_ends) = memory_link(pair("flooded", SimTime::from_millis(1)));
    let (quiet, quiet_ends) = memory_link(pair("quiet", SimTime::ZERO));
    let mut config = DataPlaneConfig::new(WallClock::start(), vec![flooded, quiet]);
    config.workers = 1;
    config.memory_limit = 1 << 20;
    let plane = DataPlane::start(config).unwrap();
    // Nobody takes what is flooded: the worst case for memory.
    flooded_ends[1].set_capacity(0);
    let source = flooded_ends[0].clone();
    let flooding = std::thread::spawn(move || {
        let mut bytes = vec![0xff; FRAME_BYTES];
        bytes[6..12].copy_from_slice(&[2, 0, 0, 0, 0, 1]);
        (0..FLOOD).for_each(|_| source.send(&bytes));
    });
    for i in 0..200 {
        quiet_ends[0].send(&frame(i));
        assert_eq!(quiet_ends[1].receive(PATIENCE), Some(frame(i)), "the neighbour is served");
    }
    flooding.join().unwrap();
    let snapshot = wait_until(&plane, |s| {
        let port = s.links[0].endpoints[0].port.as_ref();
        port.is_some_and(|port| port.counters.rx_frames == u64::from(FLOOD))
            && s.links[0].in_flight == 0
    });
    assert_accounted(&snapshot);
    // What the flooded node does not take is lost by the emulator, which says so, and where.
    let port = snapshot.links[0].endpoints[1].port.as_ref().unwrap();
    let lost = port.counters.tx_drops.of(PortDrop::Backpressure);
    assert!(port.counters.tx_pending * FRAME_BYTES as u64 <= 1 << 20, "{port:?}");
    assert_eq!(snapshot.unintended_losses(), lost);
    let places: Vec<_> = snapshot.links.iter().flat_map(LinkReport::unintended).collect();
    assert!(places.iter().all(|(place, _)| place.contains("flooded-1:eth0")), "{places:?}");
    assert_eq!(lost > 0, !places.is_empty());
    assert!(plane.stop().failure.is_none());
}
