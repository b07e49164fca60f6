//! An emulator that stands still: the run says so, though no event was late, and what was lost meanwhile
//! is counted.

mod common;

use std::fs;
use std::thread::sleep;
use std::time::Duration;

use common::{Place, Started, have_program, have_root, patient, wait_for};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

const PINGS: &str = r#"
nodes: { "n[0-1]": { kind: netns } }
links: [{ pair: [n0, n1], name: wire, ipv4: 10.9.0.0/24 }]
tasks:
  - { name: pings, run: { n0: "ping -q -i 0.01 -c 300 -W 30 n1" }, timeout: 60s }
"#;

/// Processes below `root`, `root` left out.
fn below(root: Pid) -> Vec<Pid> {
    let parent_of = |pid: i32| -> Option<i32> {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        stat.rsplit_once(')')?.1.split_whitespace().nth(1)?.parse().ok()
    };
    let processes = fs::read_dir("/proc").expect("/proc").filter_map(|entry| {
        let pid: i32 = entry.ok()?.file_name().to_str()?.parse().ok()?;
        let mut ancestor = pid;
        while ancestor > 1 {
            ancestor = parent_of(ancestor)?;
            if ancestor == root.as_raw() {
                return Some(Pid::from_raw(pid));
            }
        }
        None
    });
    processes.collect()
}

/// The process that holds the data plane of a run: the one with a thread that watches interfaces.
fn emulator(run: &Started) -> Pid {
    let watches = |pid: &Pid| {
        let threads = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
        let mut names = threads.filter_map(|t| fs::read_to_string(t.path().join("comm")).ok());
        names.any(|name| name.trim() == "interfaces")
    };
    wait_for("the emulator's process", || below(run.pid()).into_iter().find(watches))
}

/// Waits until a node runs this, as its words begin.
fn wait_for_process(run: &Started, words: &str) {
    let beginning = words.replace(' ', "\0").into_bytes();
    let runs = |pid: &Pid| {
        fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default().starts_with(&beginning)
    };
    wait_for(words, || below(run.pid()).iter().any(runs).then_some(()));
}

/// Stops the emulator once a node runs `words`, until `long_enough`. Before, the command might not have
/// been started, and never would be.
fn stop_meanwhile(run: &mut Started, words: &str, long_enough: impl FnOnce(&Started)) {
    run.wait_for_event("task-started", "");
    wait_for_process(run, words);
    let emulator = emulator(run);
    kill(emulator, Signal::SIGSTOP).expect("the emulator can be stopped");
    long_enough(run);
    kill(emulator, Signal::SIGCONT).expect("the emulator is still there");
}

#[test]
fn a_standstill_makes_the_verdict_worse() {
    if !have_root() || !have_program("ping") {
        return;
    }
    let mut run = Place::new().begin(PINGS);
    stop_meanwhile(&mut run, "ping -q", |_| sleep(Duration::from_millis(1_500)));
    let results = run.end().expect(3).results();
    assert_eq!(results.verdict(), "invalid");
    let reasons = results.0["verdict"]["reasons"].to_string();
    assert!(reasons.contains("stood still") && reasons.contains("`wire`"), "{reasons}");
    let worst = results.0["pulse"]["max_ns"].as_u64().expect("a lateness");
    assert!(worst > 1_000_000_000, "{worst}");
    let beats = &results.0["workers"][0]["pulse_histogram_ns"];
    let late =
        beats.as_array().expect("a histogram").iter().filter(|bucket| {
            bucket[0].as_u64() > Some(500_000_000) && bucket[1].as_u64() > Some(0)
        });
    assert!(late.count() > 0, "{beats}");
}

#[test]
fn a_standstill_beyond_the_hard_limit_ends_the_run() {
    if !have_root() || !have_program("ping") {
        return;
    }
    let mut run = Place::new().begin_with(PINGS, &["--sync", "hard-limit=500ms"]);
    stop_meanwhile(&mut run, "ping -q", |_| sleep(Duration::from_millis(1_500)));
    run.end().expect(3).says(&["the worker of link `wire`", "ms late", "hard limit is 500ms"]);
}

#[test]
fn what_was_lost_before_an_interface_was_deleted_is_not_forgotten() {
    if !have_root() || !have_program("python3") {
        return;
    }
    let topology = patient(
        r#"
nodes: { "n[0-1]": { kind: netns } }
links: [{ pair: [n0, n1], name: wire, ipv4: 10.9.0.0/24 }]
tasks:
  - name: mischief
    timeout: 60s
    run:
      n0: |
        sleep 1
        python3 - <<'END'
        import socket
        out = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
        out.bind(("eth0", 0))
        out.setsockopt(263, 20, 1)
        for _ in range(5000):
            try:
                out.send(b"\x02" * 6 + b"\x02\0\0\0\0\1" + b"\x88\xb5" + bytes(100))
            except OSError:
                pass
        END
        ip link del eth0
        sleep 1.2345
"#,
    );
    let mut run = Place::new().begin(&topology);
    // The interface is deleted then.
    stop_meanwhile(&mut run, "sleep 1", |run| wait_for_process(run, "sleep 1.2345"));
    let results = run.end().expect(3).results();
    assert_eq!(results.verdict(), "invalid");
    let reasons = results.0["verdict"]["reasons"].to_string();
    assert!(reasons.contains("n0:eth0 (sent faster than the emulator reads)"), "{reasons}");
    let ends = results.0["links"][0]["endpoints"].as_array().expect("endpoints");
    let port = &ends.iter().find(|end| end["endpoint"] == "n0:eth0").expect("n0's end")["port"];
    let lost = port["interface"]["send_drops"].as_u64().expect("a count");
    // The queue holds a thousand.
    assert!(lost >= 3000, "{port:#}");
}
