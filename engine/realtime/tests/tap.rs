//! TAP interfaces in a network namespace of the test's own. Needs `/dev/net/tun` and the right to
//! make namespaces; says so where it has neither.

mod common;

use std::net::UdpSocket;
use std::process::Command;
use std::sync::mpsc;

use common::{PATIENCE, assert_accounted, frame, pair, wait_until};
use nix::sched::{CloneFlags, unshare};
use nix::unistd::gettid;
use tapestry_core::{DataRate, SimTime};
use tapestry_models::{LinkConfig, QueueConfig};
use tapestry_realtime::{
    DataPlane, DataPlaneConfig, EndpointSpec, IoChoice, LinkSpec, MemoryEnd, MemoryPort, PortDrop,
    PortState, Snapshot, TapError, TapPort, WaitBackend, WallClock,
};

/// Runs `test` with each way to move the frames of TAPs, each time on a thread in a network
/// namespace that vanishes afterwards.
fn with_each_io(name: &str, test: fn(IoChoice)) {
    in_new_namespace(name, move || test(IoChoice::Epoll));
    if !has_io_uring() {
        return eprintln!("SKIPPED {name} with io_uring: the kernel does not offer it");
    }
    in_new_namespace(name, move || test(IoChoice::Uring));
}

/// Whether the kernel offers what the back end needs: asked without it.
fn has_io_uring() -> bool {
    let disabled = std::fs::read_to_string("/proc/sys/kernel/io_uring_disabled");
    let release = nix::sys::utsname::uname().unwrap().release().to_string_lossy().into_owned();
    let mut version = release.split(['.', '-']).map_while(|part| part.parse::<u32>().ok());
    disabled.is_ok_and(|value| value.trim() == "0")
        && (version.next(), version.next()) >= (Some(6), Some(7))
}

/// Runs `test` on a thread in a network namespace that vanishes afterwards.
fn in_new_namespace(name: &str, test: impl FnOnce() + Send + 'static) {
    let thread = std::thread::spawn(move || {
        let able = unshare(CloneFlags::CLONE_NEWNET)
            .map_err(|errno| format!("cannot make a network namespace: {errno}"))
            .and_then(|()| TapPort::create("probe").map_err(|error| error.to_string()));
        if let Err(reason) = able {
            return Some(reason);
        }
        // Only the test's frames are wanted. `/proc/sys/net` is the calling thread's.
        std::fs::write("/proc/sys/net/ipv6/conf/default/disable_ipv6", "1").unwrap();
        test();
        None
    });
    match thread.join() {
        Ok(None) => {}
        Ok(Some(reason)) => eprintln!("SKIPPED {name}: {reason}"),
        Err(panic) => std::panic::resume_unwind(panic),
    }
}

/// Runs `ip` in the calling thread's namespace.
fn ip(arguments: &str) {
    let output = Command::new("ip").args(arguments.split(' ')).output().expect("iproute2");
    assert!(output.status.success(), "ip {arguments}: {}", String::from_utf8_lossy(&output.stderr));
}

/// A link between TAP `tap0` (endpoint `n0:eth0`) and memory.
fn tap_link(io: IoChoice) -> (DataPlane, MemoryEnd) {
    let tap = TapPort::create("tap0").unwrap();
    let (memory, end) = MemoryPort::pair("memory");
    let endpoints = vec![EndpointSpec::port("n0:eth0", tap), EndpointSpec::port("n1:eth0", memory)];
    let link = LinkSpec { config: pair("n0-n1", SimTime::ZERO), endpoints };
    let config = DataPlaneConfig { io, ..DataPlaneConfig::new(WallClock::start(), vec![link]) };
    let plane = DataPlane::start(config).unwrap();
    let backend = plane.snapshot().workers[0].backend;
    assert_eq!(backend == WaitBackend::IoUring, io == IoChoice::Uring);
    (plane, end)
}

/// Brings up `interface` of the calling thread's namespace with an address and a neighbour, and
/// returns a socket connected to the neighbour.
fn neighbour(interface: &str) -> UdpSocket {
    ip(&format!("addr add 10.9.0.1/24 dev {interface}"));
    ip(&format!("link set {interface} up"));
    ip(&format!("neigh add 10.9.0.2 lladdr 02:00:00:00:00:02 dev {interface}"));
    let socket = UdpSocket::bind("10.9.0.1:5000").unwrap();
    socket.connect("10.9.0.2:6000").unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    socket
}

/// The frame of a UDP datagram with its sender and receiver exchanged; checksums stay right.
fn reply(frame: &[u8]) -> Vec<u8> {
    const MAC: (usize, usize, usize) = (0, 6, 6);
    const IPV4: (usize, usize, usize) = (26, 30, 4);
    const UDP: (usize, usize, usize) = (34, 36, 2);
    let mut reply = frame.to_vec();
    for (a, b, length) in [MAC, IPV4, UDP] {
        for offset in 0..length {
            reply.swap(a + offset, b + offset);
        }
    }
    reply
}

fn echo(socket: &UdpSocket, end: &MemoryEnd, text: &str) {
    socket.send(text.as_bytes()).unwrap();
    let frame = end.receive(PATIENCE).expect("the datagram's frame");
    assert!(frame.ends_with(text.as_bytes()));
    end.send(&reply(&frame));
    let mut buffer = [0; 100];
    let length = socket.recv(&mut buffer).unwrap();
    assert_eq!(&buffer[..length], text.as_bytes());
}

fn tap_port(snapshot: &Snapshot) -> &tapestry_realtime::PortReport {
    snapshot.links[0].endpoints[0].port.as_ref().unwrap()
}

#[test]
fn a_datagram_goes_through_and_comes_back() {
    with_each_io("a_datagram_goes_through_and_comes_back", |io| {
        let (plane, end) = tap_link(io);
        let socket = neighbour("tap0");
        for i in 0..50 {
            echo(&socket, &end, &format!("datagram {i}"));
        }
        let report = plane.stop();
        assert!(report.failure.is_none());
        assert_accounted(&report.snapshot);
        let interface = tap_port(&report.snapshot).interface.as_ref().unwrap();
        assert_eq!((interface.name.as_str(), interface.sent), ("tap0", 50));
        assert_eq!(report.snapshot.unintended_losses(), 0);
    });
}

#[test]
fn an_interface_set_down_is_reported_and_comes_back() {
    with_each_io("an_interface_set_down_is_reported_and_comes_back", |io| {
        let (plane, end) = tap_link(io);
        let socket = neighbour("tap0");
        echo(&socket, &end, "before");
        ip("link set tap0 down");
        end.send(&frame(1));
        let lost = |s: &Snapshot| tap_port(s).counters.tx_drops.of(PortDrop::InterfaceDown);
        let snapshot = wait_until(&plane, |s| !s.notices.is_empty() && lost(s) == 1);
        assert_eq!(snapshot.notices[0].state, PortState::Down);
        assert_eq!(snapshot.notices[0].endpoint, "n0:eth0");
        drop(socket);
        ip("addr del 10.9.0.1/24 dev tap0");
        let socket = neighbour("tap0");
        echo(&socket, &end, "after");
        let snapshot = plane.stop().snapshot;
        assert_eq!(snapshot.notices[1].state, PortState::Up);
        assert_eq!(snapshot.notices.len(), 2, "told by traffic and by the kernel, but once");
        assert_accounted(&snapshot);
    });
}

#[test]
fn an_interface_down_for_a_moment_is_reported_though_no_frame_met_it() {
    with_each_io("an_interface_down_for_a_moment", |io| {
        let (plane, _end) = tap_link(io);
        ip("link set tap0 up");
        for _ in 0..3 {
            ip("link set tap0 down");
            ip("link set tap0 up");
        }
        // The last word of the kernel is heard, however soon the end comes.
        let snapshot = plane.stop().snapshot;
        let states: Vec<_> = snapshot.notices.iter().map(|notice| notice.state).collect();
        assert_eq!(states, [PortState::Down, PortState::Up].repeat(3));
        assert!(snapshot.notices.iter().all(|notice| notice.endpoint == "n0:eth0"));
        assert!(snapshot.notices.is_sorted_by_key(|notice| notice.time));
    });
}

#[test]
fn an_interface_that_moved_on_is_reported_by_what_meets_it() {
    with_each_io("an_interface_that_moved_on", |io| {
        let (plane, end) = tap_link(io);
        ip("link set tap0 up");
        let (tell, told) = mpsc::channel();
        let (go, gone) = mpsc::channel::<()>();
        let node = std::thread::spawn(move || {
            unshare(CloneFlags::CLONE_NEWNET).unwrap();
            tell.send(gettid()).unwrap();
            // The namespace lasts as long as this thread.
            let _ = gone.recv();
        });
        // Arrives there down.
        ip(&format!("link set tap0 netns {}", told.recv().unwrap()));
        // The kernel tells on its own time that the interface has left.
        let snapshot = wait_until(&plane, |s| {
            end.send(&frame(1));
            !s.notices.is_empty()
        });
        assert_eq!(snapshot.notices[0].state, PortState::Down);
        assert_accounted(&plane.stop().snapshot);
        drop(go);
        node.join().unwrap();
    });
}

#[test]
fn a_deleted_interface_is_reported_once_and_costs_no_processor_time() {
    with_each_io("a_deleted_interface_is_reported_once", |io| {
        let (plane, end) = tap_link(io);
        ip("link set tap0 up");
        ip("link del tap0");
        let snapshot = wait_until(&plane, |s| !s.notices.is_empty());
        assert_eq!(snapshot.notices[0].state, PortState::Gone);
        let before = snapshot.workers[0].turns;
        std::thread::sleep(std::time::Duration::from_millis(50));
        let after = plane.snapshot().workers[0].turns;
        // A beat each 10 ms, and the snapshots.
        assert!(after - before <= 20, "{before} → {after}");
        end.send(&frame(1));
        let snapshot = wait_until(&plane, |s| s.frames_offered() == 1);
        assert_eq!(tap_port(&snapshot).counters.tx_drops.of(PortDrop::InterfaceGone), 1);
        let interface = tap_port(&snapshot).interface.as_ref().expect("the last counters are kept");
        assert_eq!((interface.sent, interface.send_drops), (0, 0));
        assert_eq!(plane.stop().snapshot.notices.len(), 1);
    });
}

#[test]
fn what_an_interface_has_dropped_is_known_beyond_its_end() {
    with_each_io("what_an_interface_has_dropped_is_known_beyond_its_end", |io| {
        let (plane, end) = flooded_link(io);
        let socket = neighbour("tap0");
        const DATAGRAMS: u64 = 20_000;
        (0..DATAGRAMS).for_each(|_| drop(socket.send(&[0; 1_000])));
        // Nobody looks before the end: what the interface knows goes with it.
        ip("link del tap0");
        let snapshot = wait_until(&plane, |s| !s.notices.is_empty());
        let port = tap_port(&snapshot);
        let interface = port.interface.as_ref().expect("the last counters are kept");
        assert!(interface.send_drops > DATAGRAMS / 2, "{interface:?}");
        assert_eq!(snapshot.unintended_losses(), interface.send_drops);
        assert_eq!(snapshot.frames_offered(), port.counters.rx_frames + interface.send_drops);
        assert_eq!(plane.stop().snapshot.unintended_losses(), interface.send_drops);
        drop(end);
    });
}

#[test]
fn what_nobody_reads_behind_a_port_is_lost_and_said_so() {
    in_new_namespace("what_nobody_reads_behind_a_port_is_lost_and_said_so", || {
        // The interface that a virtual machine would read from.
        let theirs = TapPort::create("q0").unwrap();
        let (memory, end) = MemoryPort::pair("memory");
        let guest = EndpointSpec::port("n0:eth0", TapPort::create("t0").unwrap());
        let endpoints = vec![guest.read_from("q0"), EndpointSpec::port("n1:eth0", memory)];
        let links = vec![LinkSpec { config: pair("n0-n1", SimTime::ZERO), endpoints }];
        let plane = DataPlane::start(DataPlaneConfig::new(WallClock::start(), links)).unwrap();
        ip("link add b0 type bridge forward_delay 0");
        for interface in ["t0", "q0"] {
            ip(&format!("link set {interface} master b0"));
        }
        for interface in ["b0", "t0", "q0"] {
            ip(&format!("link set {interface} up"));
        }
        const FRAMES: u32 = 4_000;
        for i in 0..FRAMES {
            end.send(&frame(i));
        }
        let snapshot = wait_until(&plane, |s| tap_port(s).counters.tx_frames == u64::from(FRAMES));
        let drops = tap_port(&snapshot).reader_drops.expect("an interface behind the port");
        // Its queue holds a thousand.
        assert!(drops >= u64::from(FRAMES) / 2 && drops < u64::from(FRAMES), "{drops}");
        assert_eq!(snapshot.unintended_losses(), drops);
        let (whose, _) = &snapshot.links[0].unintended()[0];
        assert!(whose.contains("n0:eth0"), "{whose}");
        drop(theirs);
    });
}

/// The same slower than a flood and with little memory, so that frames stay at the interface.
fn flooded_link(io: IoChoice) -> (DataPlane, MemoryEnd) {
    let (memory, end) = MemoryPort::pair("memory");
    let tap = TapPort::create("tap0").unwrap();
    let endpoints = vec![EndpointSpec::port("n0:eth0", tap), EndpointSpec::port("n1:eth0", memory)];
    let config = LinkConfig {
        rate: DataRate::from_bits_per_sec(1_000_000),
        queue: QueueConfig::frames(1_000),
        ..pair("n0-n1", SimTime::ZERO)
    };
    let links = vec![LinkSpec { config, endpoints }];
    let memory_limit = 64 << 10;
    let config =
        DataPlaneConfig { io, memory_limit, ..DataPlaneConfig::new(WallClock::start(), links) };
    (DataPlane::start(config).unwrap(), end)
}

#[test]
fn every_frame_of_a_flood_is_accounted_for_when_it_is_cut_short() {
    with_each_io("every_frame_of_a_flood_is_accounted_for_when_it_is_cut_short", |io| {
        let names = ["tap0", "tap1"];
        let endpoints = names
            .map(|name| EndpointSpec::port(format!("n:{name}"), TapPort::create(name).unwrap()));
        // Slower than the flood, so that the link's queue and the pool fill up too.
        let config = LinkConfig {
            rate: DataRate::from_bits_per_sec(50_000_000),
            queue: QueueConfig::frames(100),
            ..pair("a-b", SimTime::from_millis(1))
        };
        let links = vec![LinkSpec { config, endpoints: endpoints.into() }];
        let memory_limit = 64 << 10;
        let config =
            DataPlaneConfig { io, memory_limit, ..DataPlaneConfig::new(WallClock::start(), links) };
        let plane = DataPlane::start(config).unwrap();
        ip("link set tap1 up");
        let socket = neighbour("tap0");
        const DATAGRAMS: u64 = 20_000;
        for _ in 0..DATAGRAMS {
            let _ = socket.send(&[0; 1_000]);
        }
        assert_accounted(&plane.snapshot());
        let snapshot = plane.stop().snapshot;
        assert_accounted(&snapshot);
        let [from, to] = [0, 1].map(|i| snapshot.links[0].endpoints[i].port.as_ref().unwrap());
        let [out, back] = [from, to].map(|port| port.interface.as_ref().unwrap());
        assert!(from.counters.rx_frames > 0);
        // What the kernel handed over is what was offered, even what nobody had looked at yet.
        assert_eq!(out.sent, from.counters.rx_frames);
        // The rest was lost at the interface or still waits there.
        assert!(out.sent + out.send_drops <= DATAGRAMS, "{out:?}");
        assert_eq!(to.counters.tx_pending, 0);
        assert_eq!(back.sent, to.counters.rx_frames);
    });
}

#[test]
fn a_renamed_interface_in_another_namespace_still_works_and_is_metered() {
    with_each_io("a_renamed_interface_in_another_namespace", |io| {
        let (plane, end) = tap_link(io);
        let (tell, told) = mpsc::channel();
        let (go, gone) = mpsc::channel();
        let (done, is_done) = mpsc::channel();
        let node = std::thread::spawn(move || {
            unshare(CloneFlags::CLONE_NEWNET).unwrap();
            std::fs::write("/proc/sys/net/ipv6/conf/default/disable_ipv6", "1").unwrap();
            tell.send(gettid()).unwrap();
            gone.recv().unwrap();
            ip("link set tap0 name eth7");
            let socket = neighbour("eth7");
            echo(&socket, &end, "from another namespace");
            done.send(()).unwrap();
            // The namespace lasts as long as this thread, and the TAP as long as the namespace.
            gone.recv().unwrap();
        });
        ip(&format!("link set tap0 netns {}", told.recv().unwrap()));
        go.send(()).unwrap();
        is_done.recv().unwrap();
        let snapshot = plane.stop().snapshot;
        go.send(()).unwrap();
        node.join().unwrap();
        assert_accounted(&snapshot);
        let interface = tap_port(&snapshot).interface.as_ref().unwrap();
        assert_eq!((interface.name.as_str(), interface.sent), ("eth7", 1));
    });
}

#[test]
fn frames_that_nobody_reads_are_counted_by_the_interface() {
    in_new_namespace("frames_that_nobody_reads_are_counted_by_the_interface", || {
        use tapestry_realtime::Port;
        let tap = TapPort::create("tap0").unwrap();
        let socket = neighbour("tap0");
        for _ in 0..3_000 {
            let _ = socket.send(b"unread");
        }
        ip("link set tap0 name eth7");
        let counters = tap.meter().unwrap().read().unwrap();
        assert_eq!(counters.name, "eth7");
        assert!(counters.send_drops > 0, "{counters:?}");
        assert!(counters.sent + counters.send_drops <= 3_000, "{counters:?}");
    });
}

#[test]
fn names_are_checked_and_taken_ones_refused() {
    for name in ["", "sixteen-bytes-ab", "a/b", "a b", "tap%d", ".", ".."] {
        assert!(matches!(TapPort::create(name), Err(TapError::Name { .. })), "{name}");
    }
    in_new_namespace("names_are_checked_and_taken_ones_refused", || {
        let _first = TapPort::create("tap0").unwrap();
        let error = TapPort::create("tap0").unwrap_err();
        assert!(error.to_string().contains("choose another name"), "{error}");
        assert!(matches!(TapPort::create("lo"), Err(TapError::Create { .. })));
    });
}
