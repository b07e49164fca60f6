//! What the tests of the data plane share.
#![allow(dead_code, reason = "each test file uses its own part")]

use std::time::Duration;

use tapestry_core::SimTime;
use tapestry_models::LinkConfig;
use tapestry_realtime::{
    DataPlane, DataPlaneConfig, EndpointSpec, LinkReport, LinkSpec, MemoryEnd, MemoryPort,
    Snapshot, WallClock,
};

/// Longer than anything takes on a machine that still moves; ends a test that would hang.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// A frame with a header and this number in it.
pub(crate) fn frame(number: u32) -> Vec<u8> {
    let mut bytes = vec![0xff; 60];
    bytes[6..12].copy_from_slice(&[2, 0, 0, 0, 0, 1]);
    bytes[12..14].copy_from_slice(&0x88b5_u16.to_be_bytes());
    bytes[14..18].copy_from_slice(&number.to_be_bytes());
    bytes
}

/// The number in a frame.
pub(crate) fn number(frame: &[u8]) -> u32 {
    u32::from_be_bytes(frame[14..18].try_into().expect("a slice of four bytes"))
}

/// A point-to-point link with this delay.
pub(crate) fn pair(name: &str, delay: SimTime) -> LinkConfig {
    LinkConfig { delay, ..LinkConfig::point_to_point(name) }
}

/// A link whose ends are in the test's hands; the endpoints are `LINK-0:eth0`, `LINK-1:eth0`, ….
pub(crate) fn memory_link(config: LinkConfig) -> (LinkSpec, Vec<MemoryEnd>) {
    let (endpoints, ends) = (0..config.stations)
        .map(|station| {
            let name = format!("{}-{station}:eth0", config.name);
            let (port, end) = MemoryPort::pair(&name);
            (EndpointSpec::port(name, port), end)
        })
        .unzip();
    (LinkSpec { config, endpoints }, ends)
}

/// A data plane with one such link.
pub(crate) fn one_link(config: LinkConfig) -> (DataPlane, Vec<MemoryEnd>) {
    let (link, ends) = memory_link(config);
    let config = DataPlaneConfig::new(WallClock::start(), vec![link]);
    (DataPlane::start(config).expect("memory ports need nothing"), ends)
}

/// Waits until a snapshot satisfies `condition`.
pub(crate) fn wait_until(plane: &DataPlane, condition: impl Fn(&Snapshot) -> bool) -> Snapshot {
    let start = std::time::Instant::now();
    loop {
        let snapshot = plane.snapshot();
        if condition(&snapshot) {
            return snapshot;
        }
        assert!(start.elapsed() < PATIENCE, "waited in vain; last: {snapshot:#?}");
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// Every frame is somewhere: the equations in the documentation of `Snapshot`.
pub(crate) fn assert_accounted(snapshot: &Snapshot) {
    for link in &snapshot.links {
        let receivers = link.endpoints.len() as u64 - 1;
        for endpoint in &link.endpoints {
            let station = &endpoint.station;
            assert_eq!(
                station.offered.frames,
                station.transmitted.frames + station.tx_dropped.total() + endpoint.backlog,
                "{}: {endpoint:#?}",
                link.name
            );
            if let Some(port) = &endpoint.port {
                let counters = &port.counters;
                assert_eq!(counters.rx_frames, station.offered.frames, "{}", endpoint.endpoint);
                assert_eq!(
                    station.delivered.frames,
                    counters.tx_frames + counters.tx_drops.total() + counters.tx_pending,
                    "{}: {endpoint:#?}",
                    link.name
                );
            }
        }
        let sum = |count: fn(&tapestry_models::Counters) -> u64| -> u64 {
            link.endpoints.iter().map(|endpoint| count(&endpoint.station)).sum()
        };
        assert_eq!(
            receivers * sum(|s| s.transmitted.frames) + sum(|s| s.impaired.duplicated),
            sum(|s| s.delivered.frames) + sum(|s| s.rx_dropped.total()) + link.in_flight,
            "{link:#?}"
        );
    }
}

/// Frames delivered by all ports of a link.
pub(crate) fn delivered(link: &LinkReport) -> u64 {
    link.endpoints.iter().filter_map(|e| e.port.as_ref()).map(|p| p.counters.tx_frames).sum()
}
