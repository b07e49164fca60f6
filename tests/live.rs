//! A running lab from another terminal: exec, attach, and what `run` prints in its modes.

mod common;

use std::io::Write;
use std::process::Stdio;

use common::host::{namespace_of_children, processes_in};
use common::{Place, Started, have_root, says};
use nix::sys::signal::{Signal, kill};
use serde_json::Value;

const LONG: &str = r"
nodes:
  a: { kind: netns }
  b: { kind: netns }
links:
  - { pair: [a, b], ipv4: 10.9.0.0/24 }
tasks:
  # In the background, so that the shell is free.
  - { name: wait, run: { b: sleep 1000 }, timeout: 2000s }
";

/// A lab whose task has begun.
fn living(place: &Place) -> Started {
    let mut run = place.begin(LONG);
    run.wait_for_event("task-started", "wait");
    run
}

#[test]
fn exec_gives_output_and_status_of_the_command() {
    if !have_root() {
        return;
    }
    let place = Place::new();
    let run = living(&place);
    let ended = place.call(&["exec", "out", "a", "echo", "hello;", "exit", "7"]).expect(7);
    assert_eq!(ended.text(), "hello\n");
    let ended = place.call(&["exec", "out", "a", "ping", "-c", "1", "-q", "b"]).expect(0);
    says(&ended.text(), &["1 received"]);
    place.call(&["exec", "out", "nobody", "true"]).expect(2).says(&["no node \"nobody\"", "a, b"]);
    place
        .call(&["exec", "--timeout", "300ms", "out", "a", "sleep", "1000"])
        .expect(1)
        .says(&["sleep 1000", "took too long"]);
    // The shell is usable after that.
    assert_eq!(place.call(&["exec", "out", "a", "echo", "again"]).expect(0).text(), "again\n");
    // A node whose task goes on is busy; whoever has no time is told.
    place
        .call(&["exec", "--timeout", "300ms", "out", "b", "true"])
        .expect(1)
        .says(&["node `b` was busy", "`true` was not run"]);
    drop(run);
    // Killed; the kernel may take a moment to end the rest.
    common::wait_for("the end of the run", || {
        let ended = place.call(&["exec", "out", "a", "true"]);
        (ended.code() == 1 && ended.stderr.contains("not running")).then_some(())
    });
    for verb in
        [&["exec", "nowhere", "a", "true"][..], &["attach", "nowhere", "a"], &["top", "nowhere"]]
    {
        place.call(verb).expect(2).says(&["no run \"nowhere\""]);
    }
    place.call(&["link", "nowhere", "wire", "down"]).expect(2).says(&["no run \"nowhere\""]);
}

#[test]
fn attach_is_a_terminal_of_the_node() {
    if !have_root() {
        return;
    }
    let place = Place::new();
    let _run = living(&place);
    let mut command = place.tapestry(&["attach", "out", "a"]);
    // A pipe that stays open until the answer is there, as a terminal would.
    let (reader, mut writer) = std::io::pipe().unwrap();
    command.stdin(Stdio::from(reader));
    let mut attached = place.start(command);
    writer.write_all(b"echo $((6 * 7))-on-$(cat /proc/sys/kernel/hostname); exit\n").unwrap();
    attached.wait_for("the answer", |attached| {
        String::from_utf8_lossy(&attached.stdout()).contains("42-on-a").then_some(())
    });
    attached.end().expect(0);
}

#[test]
fn attach_watch_shows_the_console() {
    if !have_root() {
        return;
    }
    let place = Place::new();
    let _run = living(&place);
    let mut watch = place.start(place.tapestry(&["attach", "--watch", "out", "a"]));
    // The watcher may come after the first command's output: say it until it is seen.
    watch.wait_for("the console's bytes", |watch| {
        place.call(&["exec", "out", "a", "echo", "seen-on-the-console"]).expect(0);
        String::from_utf8_lossy(&watch.stdout()).contains("seen-on-the-console").then_some(())
    });
}

#[test]
fn json_and_quiet_say_what_they_promise() {
    if !have_root() {
        return;
    }
    let topology = "nodes:\n  a: { kind: netns }\ntasks:\n  - { name: t, run: { a: echo hi } }\n";
    let place = Place::new();
    let ended = place.run_with(topology, &["--json"]).expect(0);
    let printed: Value = serde_json::from_slice(&ended.stdout).expect("JSON and nothing else");
    assert_eq!(printed, ended.results().0, "what is printed is results.json");
    // Such a run has ended: nobody answers any more.
    place.call(&["exec", "out", "a", "true"]).expect(1).says(&["not running", "living run"]);
    place.call(&["attach", "out", "a"]).expect(1).says(&["not running"]);

    let place = Place::new();
    let ended = place.run_with(topology, &["--quiet"]).expect(0);
    assert_eq!((ended.text(), ended.stderr.as_str()), (String::new(), ""));

    let place = Place::new();
    let failing = topology.replace("echo hi", "exit 3");
    let ended = place.run_with(&failing, &["--quiet"]).expect(1);
    assert!(ended.text().is_empty());
    says(&ended.stderr, &["task t", "node a", "exit 3", "status 3"]);
}

#[test]
fn doctor_examines_everything() {
    let place = Place::new();
    let ended = place.call(&["doctor"]);
    says(&ended.text(), &["machine", "namespaces", "TAP", "QEMU", "KVM", "image"]);
    let findings: Value =
        serde_json::from_slice(&place.call(&["doctor", "--json"]).stdout).unwrap();
    let findings = findings.as_array().expect("a list");
    let bad = findings.iter().filter(|finding| finding["health"] == "bad").count();
    assert_eq!(ended.code(), i32::from(bad > 0), "{findings:#?}");
    for finding in findings {
        assert!(finding["health"] != "bad" || finding["mend"].is_string(), "{finding:#}");
    }
}

#[test]
fn a_lab_that_stands_still_is_told_of_and_not_waited_for() {
    if !have_root() {
        return;
    }
    let place = Place::new();
    let run = living(&place);
    // A command that takes longer than a lab may be silent is no silence.
    let ended = place.call(&["exec", "out", "a", "sleep", "6;", "echo", "slow"]).expect(0);
    assert_eq!(ended.text(), "slow\n");
    let sandbox = namespace_of_children(run.pid()).expect("a sandbox");
    let signal_all = |signal: Signal| {
        for (pid, _) in processes_in(sandbox) {
            // One that has just ended needs none.
            let _ = kill(pid, signal);
        }
    };
    signal_all(Signal::SIGSTOP);
    for request in [
        &["top", "--once", "out"][..],
        &["exec", "out", "a", "true"],
        &["link", "out", "a--b", "down"],
        &["attach", "out", "a"],
    ] {
        place.call(request).expect(1).says(&["run ", "out", "does not answer", "SIGSTOP"]);
    }
    signal_all(Signal::SIGCONT);
    assert_eq!(place.call(&["exec", "out", "a", "echo", "on"]).expect(0).text(), "on\n");
}
