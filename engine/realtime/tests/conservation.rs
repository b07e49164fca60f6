//! What must hold for any traffic through a running data plane, whatever is done to it meanwhile:
//! each frame is delivered, queued, or counted once with a reason.
//!
//! The models' own properties are tested in virtual time; here the threads, bursts, control messages
//! and ports around them are.

mod common;

use std::time::Duration;

use common::{PATIENCE, assert_accounted, memory_link, wait_until};
use nix::errno::Errno;
use proptest::prelude::*;
use tapestry_core::{DataRate, SimTime};
use tapestry_models::{BridgeConfig, LinkConfig, QueueConfig};
use tapestry_realtime::{
    Control, DataPlane, DataPlaneConfig, DeviceKind, DeviceSpec, EndpointSpec, LinkSpec, MemoryEnd,
    WallClock,
};

/// Stations of the shared medium.
const STATIONS: u32 = 3;
/// Nodes: the medium's, and one behind the device.
const ENDS: usize = STATIONS as usize + 1;
const LINKS: [&str; 2] = ["lan", "wire"];

#[derive(Debug, Clone)]
enum Act {
    /// A node sends these bytes, which need not be a frame.
    Send(usize, Vec<u8>),
    Control(usize, Control),
    /// A node's interface goes down or comes back.
    Fault(usize, Option<Errno>),
    /// A node takes its frames slowly.
    Capacity(usize, usize),
    /// A node takes what there is.
    Take(usize),
}

fn acts() -> impl Strategy<Value = Vec<Act>> {
    let bytes = prop_oneof![
        // Noise of any length: nothing, half a header, more than the medium or a buffer takes.
        2 => prop::collection::vec(any::<u8>(), 0..40),
        1 => prop::collection::vec(any::<u8>(), 1_400..3_000),
        1 => Just(vec![0; 70_000]),
        // Frames between nodes, so that the bridge learns and forwards.
        4 => (0..6_u8, 0..6_u8, 0..200_usize).prop_map(|(to, from, payload)| {
            let address = |node| [2, 0, 0, 0, 0, node];
            [&address(to)[..], &address(from)[..], &[0x88, 0xb5], &vec![0; payload]].concat()
        }),
    ];
    let control = prop_oneof![
        Just(Control::LinkUp),
        Just(Control::LinkDown),
        (0..2_000_u64).prop_map(|us| Control::Delay(SimTime::from_micros(us))),
        (10..1_000_u64).prop_map(|m| Control::Rate(DataRate::from_bits_per_sec(m * 1_000_000))),
        Just(Control::Rate(None)),
    ];
    let fault = prop_oneof![Just(Some(Errno::EIO)), Just(None)];
    let act = prop_oneof![
        8 => (0..ENDS, bytes).prop_map(|(end, bytes)| Act::Send(end, bytes)),
        2 => (0..LINKS.len(), control).prop_map(|(link, control)| Act::Control(link, control)),
        1 => (0..ENDS, fault).prop_map(|(end, fault)| Act::Fault(end, fault)),
        1 => (0..ENDS, 0..4_usize).prop_map(|(end, frames)| Act::Capacity(end, frames)),
        1 => (0..ENDS).prop_map(Act::Take),
    ];
    prop::collection::vec(act, 1..120)
}

/// A shared medium and a link behind a bridge or hub, with the test as all nodes.
fn start(device: DeviceKind, queue_frames: u32) -> (DataPlane, Vec<MemoryEnd>) {
    let queue = QueueConfig::frames(queue_frames);
    let lan = LinkConfig { queue: queue.clone(), ..LinkConfig::csma(LINKS[0], STATIONS) };
    let wire = LinkConfig { queue, ..LinkConfig::csma(LINKS[1], 1) };
    let (links, ends): (Vec<LinkSpec>, Vec<Vec<MemoryEnd>>) = [lan, wire]
        .into_iter()
        .map(|config| {
            let (mut link, ends) = memory_link(config);
            link.endpoints.push(EndpointSpec::device("sw:eth0", 0));
            (link, ends)
        })
        .unzip();
    let devices = vec![DeviceSpec { name: "sw".into(), kind: device }];
    let config = DataPlaneConfig { devices, ..DataPlaneConfig::new(WallClock::start(), links) };
    (DataPlane::start(config).expect("memory ports need nothing"), ends.concat())
}

/// Takes all frames that are there.
fn drain(end: &MemoryEnd) -> u64 {
    std::iter::from_fn(|| end.receive(Duration::ZERO)).count() as u64
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn every_frame_is_delivered_queued_or_counted(
        acts in acts(),
        is_hub in any::<bool>(),
        queue_frames in 0..5_u32,
    ) {
        let device = if is_hub { DeviceKind::Hub } else { DeviceKind::Bridge(BridgeConfig::default()) };
        let (plane, ends) = start(device, queue_frames);
        let mut sent = [0; ENDS];
        let mut taken = [0; ENDS];
        for act in acts {
            match act {
                Act::Send(end, bytes) => {
                    ends[end].send(&bytes);
                    sent[end] += 1;
                }
                Act::Control(link, control) => {
                    plane.control(LINKS[link], control).unwrap();
                }
                Act::Fault(end, fault) => ends[end].set_fault(fault),
                Act::Capacity(end, frames) => ends[end].set_capacity(frames),
                Act::Take(end) => taken[end] += drain(&ends[end]),
            }
            // At any time, not only when all is over.
            assert_accounted(&plane.snapshot());
        }
        for end in &ends {
            end.set_fault(None);
            end.set_capacity(usize::MAX);
        }
        let last = wait_until(&plane, |s| {
            let is_over = |e: &tapestry_realtime::EndpointReport| {
                e.backlog == 0 && e.port.as_ref().is_none_or(|p| p.counters.tx_pending == 0)
            };
            let read: u64 = s.links.iter().flat_map(|l| &l.endpoints)
                .filter_map(|e| e.port.as_ref())
                .map(|port| port.counters.rx_frames)
                .sum();
            read == sent.iter().sum::<u64>()
                && s.links.iter().all(|l| l.in_flight == 0 && l.endpoints.iter().all(is_over))
        });
        assert_accounted(&last);
        let ports = last.links.iter().flat_map(|l| &l.endpoints).filter_map(|e| e.port.as_ref());
        for (i, port) in ports.enumerate() {
            prop_assert_eq!(port.counters.rx_frames, sent[i], "{} was read wholly", &port.name);
            let got = taken[i] + drain(&ends[i]);
            prop_assert_eq!(port.counters.tx_frames, got, "{} got what was counted", &port.name);
        }
        prop_assert!(plane.stop().failure.is_none());
    }
}

#[test]
fn the_equations_are_about_something() {
    let (plane, ends) = start(DeviceKind::Bridge(BridgeConfig::default()), 100);
    ends[0].send(&common::frame(1));
    for end in &ends[1..] {
        assert_eq!(end.receive(PATIENCE), Some(common::frame(1)), "all nodes hear a broadcast");
    }
    assert_accounted(&plane.stop().snapshot);
}
