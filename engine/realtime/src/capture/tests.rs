//! Captures whose files misbehave, driven by a network in exact time.

use std::io;
use std::path::Path;

use parking_lot::{Condvar, Mutex};
use pcap_file::pcapng::blocks::interface_statistics::InterfaceStatisticsOption;
use pcap_file::pcapng::{Block, PcapNgReader};
use tapestry_core::{SimTime, Streams};
use tapestry_models::{Frame, FramePool, LinkConfig, Network, NetworkBuilder, PortId};

use super::store::{Store, Way};
use super::*;
use crate::plane::PlacedEndpoint;

/// Bytes of pieces in these tests: the least there are is three of 256 KiB.
const MEMORY: usize = 1;

/// A network of one link `l` without delay between `a:eth0` and `b:eth0`, captured into what
/// `create` makes.
fn captured(
    endpoint: Option<&str>,
    directory: &Path,
    create: impl Fn() -> Create,
) -> (Network, PortId, Captures) {
    let spec =
        CaptureSpec { endpoint: endpoint.map(str::to_owned), ..CaptureSpec::new("l", directory) };
    captured_as(spec, MEMORY, create)
}

/// The same with other bounds.
fn captured_as(
    spec: CaptureSpec,
    memory: usize,
    create: impl Fn() -> Create,
) -> (Network, PortId, Captures) {
    let mut builder = NetworkBuilder::new(Streams::new(1, 0));
    let id = builder.link(LinkConfig::point_to_point("l")).unwrap();
    let port = builder.port(id, 0).unwrap();
    let endpoints = ["a:eth0", "b:eth0"]
        .map(|name| PlacedEndpoint { name: name.to_owned(), port: None })
        .into();
    let placed = Placed { name: "l".into(), worker: 0, id, endpoints };
    let clock = WallClock::start();
    let (captures, mut recorders) =
        Captures::start_with(vec![spec], &[placed], 1, clock, memory, create).unwrap();
    let mut network = builder.build();
    let recorder = recorders.remove(0).expect("the only worker has the captured link");
    network.set_trace(Some(Box::new(recorder)));
    (network, port, captures)
}

/// Sends a frame from `a` to `b`; true if it arrives.
fn crosses(network: &mut Network, at: u64, port: PortId, frame: Frame) -> bool {
    let at = SimTime::from_micros(at);
    network.handle_frame(at, port, frame);
    network.handle_timeout(at);
    network.poll_transmit().is_some()
}

/// Frames and skipped frames (from the statistics) in a file, by interface.
fn read_back(bytes: &[u8]) -> ([u64; 2], [u64; 2]) {
    let mut reader = PcapNgReader::new(bytes).unwrap();
    let (mut frames, mut dropped) = ([0; 2], [0; 2]);
    while let Some(block) = reader.next_block() {
        match block.unwrap().0 {
            Block::EnhancedPacket(packet) => frames[packet.interface_id as usize] += 1,
            Block::InterfaceStatistics(statistics) => {
                for option in statistics.options {
                    if let InterfaceStatisticsOption::IsbIfDrop(count) = option {
                        dropped[statistics.interface_id as usize] = count;
                    }
                }
            }
            _ => {}
        }
    }
    (frames, dropped)
}

/// A file in memory that takes nothing before its gate is opened.
#[derive(Clone, Default)]
struct Stalled {
    bytes: Arc<Mutex<Vec<u8>>>,
    gate: Arc<(Mutex<bool>, Condvar)>,
}

impl Stalled {
    fn create(&self) -> Create {
        let file = self.clone();
        Box::new(move |_| Ok(Box::new(file.clone())))
    }

    fn open_gate(&self) {
        *self.gate.0.lock() = true;
        self.gate.1.notify_all();
    }
}

impl Store for Stalled {
    fn write_at(&mut self, bytes: &[u8], offset: u64, _: Way) -> io::Result<()> {
        let mut open = self.gate.0.lock();
        while !*open {
            self.gate.1.wait(&mut open);
        }
        let mut file = self.bytes.lock();
        let (from, to) = (offset as usize, offset as usize + bytes.len());
        let longer = file.len().max(to);
        file.resize(longer, 0);
        file[from..to].copy_from_slice(bytes);
        Ok(())
    }

    fn set_len(&mut self, bytes: u64) -> io::Result<()> {
        self.bytes.lock().resize(bytes as usize, 0);
        Ok(())
    }
}

/// Opens the gate also when a test fails, or the end of the captures would wait for ever.
struct OpensAtTheEnd(Stalled);

impl Drop for OpensAtTheEnd {
    fn drop(&mut self) {
        self.0.open_gate();
    }
}

#[test]
fn a_writer_that_cannot_keep_up_skips_frames_and_says_how_many() {
    const FRAMES: u64 = 5_000;
    let directory = tempfile::tempdir().unwrap();
    let slow = Stalled::default();
    let (mut network, port, mut captures) = captured(None, directory.path(), || slow.create());
    let _opens = OpensAtTheEnd(slow.clone());
    for i in 0..FRAMES {
        assert!(crosses(&mut network, i, port, vec![0; 1_000].into()));
    }
    let before = captures.skipped();
    assert!(before > 0, "the pieces hold less than 2 MiB");
    // The disk recovers.
    slow.open_gate();
    let report = captures.finish().remove(0);
    let (frames, dropped) = read_back(&slow.bytes.lock());

    assert_eq!(report.error, None);
    assert_eq!(report.frames + report.skipped, 2 * FRAMES);
    assert_eq!(report.skipped, captures.skipped());
    assert!(report.skipped >= before);
    for (number, interface) in report.interfaces.iter().enumerate() {
        assert_eq!(interface.frames + interface.skipped, FRAMES, "{interface:?}");
        assert_eq!(frames[number], interface.frames);
        assert_eq!(dropped[number], interface.skipped);
    }
}

#[test]
fn large_pieces_and_files_that_rotate_lose_nothing() {
    const FRAMES: u64 = 16_000;
    const FILE_BYTES: u64 = 5 << 20;
    let directory = tempfile::tempdir().unwrap();
    let spec = CaptureSpec {
        file_bytes: FILE_BYTES,
        files: 100,
        ..CaptureSpec::new("l", directory.path())
    };
    // Memory for all of them, however slow the disk is.
    let (mut network, port, mut captures) = captured_as(spec, ALL_BYTES, create_new);
    for i in 0..FRAMES {
        let mut frame = vec![0; 60 + i as usize * 7_919 % 1_400];
        frame[14..22].copy_from_slice(&i.to_be_bytes());
        assert!(crosses(&mut network, i, port, frame.into()));
    }
    let report = captures.finish().remove(0);
    assert_eq!((report.frames, report.skipped, &report.error), (2 * FRAMES, 0, &None));
    assert!(report.files.len() > 3, "{:?}", report.files);
    let mut seen = Vec::new();
    for file in &report.files {
        let bytes = std::fs::read(file).unwrap();
        assert!(bytes.len() as u64 <= FILE_BYTES + 2_000, "{}", file.display());
        let mut reader = PcapNgReader::new(bytes.as_slice()).unwrap();
        while let Some(block) = reader.next_block() {
            let Block::EnhancedPacket(packet) = block.unwrap().0 else { continue };
            let number = u64::from_be_bytes(packet.data[14..22].try_into().unwrap());
            let at = packet.timestamp.as_nanos() as u64 - report.run_start_unix_ns;
            assert_eq!(at, number * 1_000);
            assert_eq!(packet.data.len(), 60 + number as usize * 7_919 % 1_400);
            seen.push((number, packet.interface_id));
        }
    }
    let expected: Vec<_> = (0..FRAMES).flat_map(|i| [(i, 0), (i, 1)]).collect();
    assert!(seen == expected, "every frame once at each end, in order");
}

#[test]
fn a_stalled_writer_does_not_run_the_pool_dry() {
    const LINKS_SHARE: usize = 8;
    let directory = tempfile::tempdir().unwrap();
    let slow = Stalled::default();
    let (mut network, port, captures) = captured(Some("a"), directory.path(), || slow.create());
    let _opens = OpensAtTheEnd(slow.clone());
    let mut pool = FramePool::new(1_536, LINKS_SHARE);
    for i in 0..10_000 {
        let frame = pool.copy_from(&[0; 1_500]).expect("a capture takes no buffer from the links");
        assert!(crosses(&mut network, i, port, frame));
    }
    assert!(captures.skipped() > 0);
}

/// A file without space.
struct Full;

impl Store for Full {
    fn write_at(&mut self, _: &[u8], _: u64, _: Way) -> io::Result<()> {
        Err(io::Error::from_raw_os_error(libc::ENOSPC))
    }

    fn set_len(&mut self, _: u64) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn a_full_disk_ends_the_capture_and_not_the_network() {
    const FRAMES: u64 = 1_000;
    let directory = tempfile::tempdir().unwrap();
    let create = || -> Create { Box::new(|_| Ok(Box::new(Full))) };
    let (mut network, port, mut captures) = captured(None, directory.path(), create);
    for i in 0..FRAMES {
        assert!(crosses(&mut network, i, port, vec![0; 1_000].into()));
    }
    let report = captures.finish().remove(0);
    let error = report.error.expect("the disk is full");
    assert!(error.contains("l.pcapng") && error.contains("No space left"), "{error}");
    assert_eq!((report.frames, report.bytes, report.skipped), (0, 0, 2 * FRAMES));
    assert!(report.interfaces.iter().all(|interface| interface.skipped == FRAMES));
    assert!(crosses(&mut network, FRAMES, port, vec![0; 1_000].into()));
}

#[test]
fn names_become_file_names_of_their_own() {
    assert_eq!(stem("lan", None), "lan");
    assert_eq!(stem("lan", Some("n0:eth1")), "lan@n0-eth1");
    assert_eq!(stem("../a b", None), "..%2Fa%20b");
    assert_ne!(stem("a@b", None), stem("a", Some("b")));
}
