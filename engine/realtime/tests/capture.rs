//! What captures promise, as `tshark` sees it.

mod common;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use common::{PATIENCE, delivered, frame, memory_link, number, pair, wait_until};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, unshare};
use tapestry_core::SimTime;
use tapestry_models::{DropReason, LinkConfig, QueueConfig};
use tapestry_realtime::{
    CaptureError, CaptureReport, CaptureSpec, DataPlane, DataPlaneConfig, MemoryEnd, StartError,
    WallClock,
};

/// A data plane with one captured link.
fn captured(config: LinkConfig, captures: Vec<CaptureSpec>) -> (DataPlane, Vec<MemoryEnd>) {
    let (link, ends) = memory_link(config);
    let config =
        DataPlaneConfig { captures, ..DataPlaneConfig::new(WallClock::start(), vec![link]) };
    (DataPlane::start(config).unwrap(), ends)
}

/// A frame as `tshark` shows it.
#[derive(Debug)]
struct Seen {
    interface: String,
    direction: String,
    /// The run's time.
    at_ns: u64,
    length: usize,
    captured: usize,
    comment: String,
    /// The frame's bytes as captured.
    bytes: Vec<u8>,
}

const INBOUND: &str = "0x00000001";
const OUTBOUND: &str = "0x00000002";

/// The frames of a file; `None`, said aloud, where there is no `tshark`.
fn tshark(file: &Path, report: &CaptureReport) -> Option<Vec<Seen>> {
    const FIELDS: [&str; 6] = [
        "frame.interface_name",
        "frame.packet_flags_direction",
        "frame.time_epoch",
        "frame.len",
        "frame.cap_len",
        "frame.comment",
    ];
    let run = |more: &[&str]| {
        let output = Command::new("tshark").arg("-r").arg(file).args(more).output();
        let output = output.map_err(|error| eprintln!("SKIPPED: no tshark: {error}")).ok()?;
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        Some(String::from_utf8(output.stdout).unwrap())
    };
    let mut arguments = vec!["-T", "fields", "-E", "separator=|"];
    arguments.extend(FIELDS.iter().flat_map(|field| ["-e", field]));
    let lines = run(&arguments)?;
    // Whole frames as hexadecimal digits, whatever their dissection makes of them.
    let raw: serde_json::Value = serde_json::from_str(&run(&["-T", "jsonraw"])?).unwrap();
    let seen = lines.lines().zip(raw.as_array().unwrap()).map(|(line, raw)| {
        let columns: Vec<&str> = line.split('|').collect();
        let (seconds, fraction) = columns[2].split_once('.').unwrap();
        assert_eq!(fraction.len(), 9, "nanosecond resolution");
        let unix_ns = format!("{seconds}{fraction}").parse::<u64>().unwrap();
        let hex = raw["_source"]["layers"]["frame_raw"][0].as_str().unwrap_or_default();
        let digits = |at: usize| u8::from_str_radix(&hex[at..at + 2], 16).unwrap();
        Seen {
            interface: columns[0].to_owned(),
            direction: columns[1].to_owned(),
            at_ns: unix_ns - report.run_start_unix_ns,
            length: columns[3].parse().unwrap(),
            captured: columns[4].parse().unwrap(),
            comment: columns[5].to_owned(),
            bytes: (0..hex.len()).step_by(2).map(digits).collect(),
        }
    });
    Some(seen.collect())
}

#[test]
fn times_and_directions_are_the_models_own() {
    const FRAMES: u32 = 40;
    // 64 bytes on the wire at 1 Mbit/s.
    const SERIALISATION_NS: u64 = 512_000;
    const DELAY_NS: u64 = 3_000_001;
    let directory = tempfile::tempdir().unwrap();
    let config = LinkConfig {
        rate: Some("1Mbit/s".parse().unwrap()),
        ..pair("l", SimTime::from_nanos(DELAY_NS))
    };
    let (plane, ends) = captured(config, vec![CaptureSpec::new("l", directory.path())]);
    for i in 0..FRAMES {
        ends[0].send(&frame(i));
    }
    ends[1].send(&frame(FRAMES));
    for i in 0..FRAMES {
        assert_eq!(ends[1].receive(PATIENCE), Some(frame(i)));
    }
    assert_eq!(ends[0].receive(PATIENCE), Some(frame(FRAMES)));
    let report = plane.stop();
    assert_eq!(report.snapshot.captures_skipped, 0);
    let [report] = report.captures.as_slice() else { panic!("one capture") };
    assert_eq!(report.error, None);
    assert_eq!(report.files, [directory.path().join("l.pcapng")]);
    assert_eq!((report.frames, report.skipped), (u64::from(2 * FRAMES + 2), 0));
    assert_eq!(report.bytes, report.frames * 60);

    let Some(seen) = tshark(&report.files[0], report) else { return };
    assert_eq!(seen.len() as u64, report.frames);
    assert!(seen.is_sorted_by_key(|seen| seen.at_ns));
    let find = |number: u32, interface: &str, direction: &str| {
        let mut found = seen.iter().filter(|seen| {
            seen.bytes == frame(number)
                && seen.interface == interface
                && seen.direction == direction
        });
        let only = found.next().unwrap_or_else(|| panic!("{number} at {interface}: {seen:#?}"));
        assert!(found.next().is_none());
        assert!(only.comment.is_empty());
        only.at_ns
    };
    let mut idle_from = 0;
    for i in 0..FRAMES {
        let sent = find(i, "l-0:eth0", OUTBOUND);
        assert!(sent >= idle_from, "one frame at a time");
        idle_from = sent + SERIALISATION_NS;
        assert_eq!(find(i, "l-1:eth0", INBOUND), idle_from + DELAY_NS);
    }
    let (sent, received) = (find(FRAMES, "l-1:eth0", OUTBOUND), find(FRAMES, "l-0:eth0", INBOUND));
    assert_eq!(received, sent + SERIALISATION_NS + DELAY_NS);
}

#[test]
fn dropped_frames_have_a_comment_that_says_why() {
    let directory = tempfile::tempdir().unwrap();
    let config = LinkConfig {
        rate: Some("100kbit/s".parse().unwrap()),
        queue: QueueConfig::frames(2),
        ..pair("l", SimTime::ZERO)
    };
    let (plane, ends) = captured(config, vec![CaptureSpec::new("l", directory.path())]);
    for i in 0..50 {
        ends[0].send(&frame(i));
    }
    ends[0].send(&[7; 5]);
    ends[0].send(&[]);
    let snapshot = wait_until(&plane, |s| s.frames_offered() == 52);
    let drops = snapshot.links[0].endpoints[0].station.tx_dropped;
    let queue_full = drops[DropReason::QueueFull];
    assert!(queue_full > 0);
    wait_until(&plane, |s| delivered(&s.links[0]) == 50 - queue_full);
    let report = plane.stop().captures.remove(0);
    let Some(seen) = tshark(&report.files[0], &report) else { return };
    let with = |comment: &str| seen.iter().filter(|seen| seen.comment == comment).count() as u64;
    assert_eq!(with("dropped: queue-full"), queue_full);
    assert_eq!(with("dropped: too-short"), 2);
    assert_eq!(with(""), 2 * (50 - queue_full));
    let dropped = seen.iter().filter(|seen| !seen.comment.is_empty());
    for seen in dropped {
        assert_eq!((seen.interface.as_str(), seen.direction.as_str()), ("l-0:eth0", OUTBOUND));
    }
    assert!(seen.iter().any(|seen| seen.length == 0 && seen.bytes.is_empty()));
    assert!(seen.iter().any(|seen| seen.bytes == [7; 5]));
}

#[test]
fn a_snap_length_cuts_and_an_endpoint_selects() {
    let directory = tempfile::tempdir().unwrap();
    let spec = CaptureSpec {
        endpoint: Some("l-1".into()),
        snap_length: 18,
        ..CaptureSpec::new("l", directory.path())
    };
    let whole = CaptureSpec {
        endpoint: Some("l-2:eth0".into()),
        snap_length: 0,
        ..CaptureSpec::new("l", directory.path())
    };
    let (plane, ends) = captured(LinkConfig::csma("l", 3), vec![spec, whole]);
    ends[1].send(&frame(5));
    ends[2].send(&frame(6));
    for (end, expected) in [(0, 5), (0, 6), (1, 6), (2, 5)] {
        let received = ends[end].receive(PATIENCE).unwrap();
        assert_eq!(number(&received), expected);
    }
    let reports = plane.stop().captures;
    assert_eq!(reports[0].files, [directory.path().join("l@l-1.pcapng")]);
    assert_eq!(reports[1].files, [directory.path().join("l@l-2-eth0.pcapng")]);
    for (report, interface, captured) in
        [(&reports[0], "l-1:eth0", 18), (&reports[1], "l-2:eth0", 60)]
    {
        assert_eq!((report.frames, report.bytes), (2, 2 * captured as u64));
        let Some(seen) = tshark(&report.files[0], report) else { return };
        assert_eq!(seen.len(), 2);
        for seen in &seen {
            assert_eq!((seen.interface.as_str(), seen.length), (interface, 60));
            assert_eq!((seen.captured, seen.bytes.len()), (captured, captured));
            let own = number(&seen.bytes) == if interface == "l-1:eth0" { 5 } else { 6 };
            assert_eq!(seen.direction, if own { OUTBOUND } else { INBOUND });
        }
    }
}

#[test]
fn files_rotate_and_stay_within_their_bounds() {
    const FILE_BYTES: u64 = 10_000;
    let directory = tempfile::tempdir().unwrap();
    let spec =
        CaptureSpec { file_bytes: FILE_BYTES, files: 3, ..CaptureSpec::new("l", directory.path()) };
    let (plane, ends) = captured(pair("l", SimTime::ZERO), vec![spec]);
    for i in 0..500 {
        ends[0].send(&frame(i));
        assert_eq!(ends[1].receive(PATIENCE), Some(frame(i)));
    }
    let report = plane.stop().captures.remove(0);
    assert_eq!((report.frames, report.skipped, &report.error), (1_000, 0, &None));
    assert_eq!(report.files.len(), 3);
    let mut on_disk: Vec<PathBuf> =
        directory.path().read_dir().unwrap().map(|entry| entry.unwrap().path()).collect();
    let mut kept = report.files.clone();
    on_disk.sort();
    kept.sort();
    assert_eq!(on_disk, kept);
    for file in &report.files {
        let bytes = file.metadata().unwrap().len();
        assert!(bytes <= FILE_BYTES + 500, "{bytes} bytes in {}", file.display());
    }
    let mut last = None;
    let mut frames = 0;
    for file in &report.files {
        let Some(seen) = tshark(file, &report) else { return };
        frames += seen.len() as u64;
        for seen in seen.iter().filter(|seen| seen.direction == OUTBOUND) {
            let number = number(&seen.bytes);
            assert!(last.is_none_or(|last| number == last + 1), "{number} after {last:?}");
            last = Some(number);
        }
    }
    assert_eq!(last, Some(499));
    assert_eq!(frames, report.frames - report.rotated_out);
}

#[test]
fn a_capture_can_be_read_while_the_network_runs() {
    let directory = tempfile::tempdir().unwrap();
    let (plane, ends) =
        captured(pair("l", SimTime::ZERO), vec![CaptureSpec::new("l", directory.path())]);
    let file = directory.path().join("l.pcapng");
    let wait_for = |bytes: &[u8]| {
        let start = std::time::Instant::now();
        loop {
            let content = std::fs::read(&file).unwrap();
            if content.windows(bytes.len()).any(|window| window == bytes) {
                return;
            }
            assert!(start.elapsed() < PATIENCE, "the frame is not in the file");
            std::thread::sleep(Duration::from_millis(1));
        }
    };
    // With pauses long enough that the writer sleeps again, and without.
    for i in 0..20 {
        ends[0].send(&frame(i));
        wait_for(&frame(i));
        if i % 2 == 0 {
            std::thread::sleep(Duration::from_millis(10));
        }
    }
    plane.stop();
}

#[test]
fn a_capture_leaves_the_links_their_memory() {
    let directory = tempfile::tempdir().unwrap();
    let (link, ends) = memory_link(pair("l", SimTime::from_millis(1)));
    let mut config = DataPlaneConfig::new(WallClock::start(), vec![link]);
    config.memory_limit = 1;
    config.captures = vec![CaptureSpec::new("l", directory.path())];
    let plane = DataPlane::start(config).unwrap();
    for i in 0..1_000 {
        ends[0].send(&frame(i));
    }
    for i in 0..1_000 {
        assert_eq!(ends[1].receive(PATIENCE).as_deref().map(number), Some(i));
    }
    let report = plane.stop().captures.remove(0);
    assert_eq!(report.frames + report.skipped, 2_000);
}

#[test]
fn what_cannot_be_captured_says_why() {
    let directory = tempfile::tempdir().unwrap();
    let refusal = |captures: Vec<CaptureSpec>| {
        let (first, _) = memory_link(pair("l", SimTime::ZERO));
        let (second, _) = memory_link(pair("m", SimTime::ZERO));
        let links = vec![first, second];
        let config =
            DataPlaneConfig { captures, ..DataPlaneConfig::new(WallClock::start(), links) };
        match DataPlane::start(config).err() {
            Some(StartError::Capture(error)) => error,
            other => panic!("{other:?}"),
        }
    };
    let on = |link: &str| CaptureSpec::new(link, directory.path());

    let error = refusal(vec![on("x")]);
    assert!(matches!(&error, CaptureError::NoSuchLink { link, known }
        if link == "x" && known == "`l`, `m`"));
    let error = refusal(vec![CaptureSpec { endpoint: Some("n".into()), ..on("l") }]);
    assert!(matches!(&error, CaptureError::NoSuchEndpoint { endpoint, known, .. }
        if endpoint == "n" && known == "`l-0:eth0`, `l-1:eth0`"));
    let error = refusal(vec![on("m"), on("m")]);
    assert!(matches!(error, CaptureError::Twice { .. }), "{error}");

    let occupied = directory.path().join("file");
    std::fs::write(&occupied, "").unwrap();
    let error = refusal(vec![CaptureSpec::new("l", &occupied)]);
    assert!(matches!(error, CaptureError::Directory { .. }), "{error}");
    // Never overwrites what is there.
    std::fs::write(directory.path().join("l.pcapng"), "precious").unwrap();
    let error = refusal(vec![on("l")]);
    assert!(error.to_string().contains("l.pcapng"), "{error}");
    assert_eq!(std::fs::read(directory.path().join("l.pcapng")).unwrap(), b"precious");
}

/// A file system of 512 KiB fills up in the middle of a capture.
#[test]
fn a_disk_that_fills_up_ends_the_capture_with_a_readable_file() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().to_owned();
    // The mount is this thread's and its children's: the writer's too.
    let test = std::thread::spawn(move || {
        let none: Option<&str> = None;
        let tmpfs = unshare(CloneFlags::CLONE_NEWNS)
            .and_then(|()| mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none))
            .and_then(|()| mount(none, &path, Some("tmpfs"), MsFlags::empty(), Some("size=512k")));
        if let Err(errno) = tmpfs {
            return eprintln!("SKIPPED: cannot mount a small tmpfs: {errno}");
        }
        let mut captures = vec![CaptureSpec::new("l", &path)];
        let elsewhere = tempfile::tempdir().unwrap();
        captures.push(CaptureSpec {
            endpoint: Some("l-1".into()),
            ..CaptureSpec::new("l", elsewhere.path())
        });
        let (plane, ends) = captured(pair("l", SimTime::ZERO), captures);
        for i in 0..400 {
            let mut bytes = frame(i);
            bytes.resize(1_500, 0);
            ends[0].send(&bytes);
            assert_eq!(ends[1].receive(PATIENCE), Some(bytes));
        }
        let reports = plane.stop().captures;
        let (full, other) = (&reports[0], &reports[1]);
        let error = full.error.as_deref().expect("the disk is full");
        assert!(error.contains("l.pcapng") && error.contains("No space left"), "{error}");
        assert_eq!(full.frames + full.skipped, 800);
        assert!(full.frames > 0 && full.skipped > 0, "{full:?}");
        assert_eq!((other.frames, &other.error), (400, &None), "its neighbour goes on");
        if let Some(seen) = tshark(&full.files[0], full) {
            assert_eq!(seen.len() as u64, full.frames);
        }
        umount2(&path, MntFlags::MNT_DETACH).unwrap();
    });
    test.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
}
