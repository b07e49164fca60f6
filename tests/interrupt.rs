//! Ctrl-C, termination and time limits end a run cleanly, and what it knows by then is kept.

mod common;

use common::{Place, have_qemu, have_root, qemu_turn, says};
use nix::sys::signal::Signal;

/// One task that ends by itself, one that takes far longer than any test.
const TWO_TASKS: &str = r"
nodes:
  a: { kind: netns }
  b: { kind: netns }
links:
  - { pair: [a, b], ipv4: 10.9.0.0/24 }
tasks:
  - { name: short, run: { a: echo known } }
  - { name: long, run: { a: echo begun; sleep 1000 }, timeout: 2000s }
  - { name: later, run: { a: echo never } }
";

#[test]
fn ctrl_c_keeps_a_partial_run_that_says_so() {
    if !have_root() {
        return;
    }
    for signal in [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP] {
        let place = Place::new();
        let mut run = place.begin(TWO_TASKS);
        run.wait_for_event("task-started", "long");
        let printed = place.path("out/outputs/long.a.out");
        run.wait_for("its first output", |_| {
            std::fs::read(&printed).is_ok_and(|printed| printed == b"begun\n").then_some(())
        });
        run.signal(signal);
        let ended = run.end().expect(130).says(&["ending the run"]);
        says(&ended.text(), &["INTERRUPTED: the results are partial"]);
        let results = ended.results();
        assert_eq!(results.outcome(), "interrupted", "{signal}");
        assert_eq!(results.output("short", "a"), "known\n", "{signal}");
        let long = results.task("long");
        assert_eq!(long["state"], "interrupted", "{signal}: {long:#}");
        assert!(long["seconds"].as_f64().is_some_and(|seconds| seconds > 0.0), "{long:#}");
        let sleep = results.command("long", "a");
        assert_eq!(sleep["command"], "echo begun; sleep 1000", "{signal}: {sleep:#}");
        assert_eq!(sleep["output"], "begun\n", "{signal}: {sleep:#}");
        assert_eq!(sleep["output_file"], "outputs/long.a.out", "{signal}: {sleep:#}");
        assert_eq!(sleep["node"], "a", "{signal}: {sleep:#}");
        assert!(sleep["error"].is_string() && sleep["status"].is_null(), "{sleep:#}");
        assert_eq!(results.task("short")["state"], "ended", "{signal}");
        assert_eq!(results.task("later")["state"], "not-run", "{signal}");
        assert_eq!(ended.manifest()["exit"], 130, "{signal}");
        assert!(!place.path("out/lock").exists(), "{signal}: the lock must go with the run");
    }
}

#[test]
fn ctrl_c_while_nodes_come_up() {
    if !have_root() {
        return;
    }
    let place = Place::new();
    // A node whose configuration takes long: its `init` sleeps.
    let mut run = place.begin("nodes:\n  a: { kind: netns, init: [sleep 30] }\n");
    run.wait_for_event("node-started", "\"a\"");
    run.signal(Signal::SIGINT);
    let ended = run.end().expect(130);
    assert_eq!(ended.results().outcome(), "interrupted");
}

#[test]
fn ctrl_c_while_a_virtual_machine_boots() {
    if !have_qemu() {
        return;
    }
    let _turn = qemu_turn();
    // It never gets to a shell: whenever the signal comes, it boots.
    let mute = "rdinit=/usr/bin/sleep -- 1000";
    let mut run = Place::new().begin(&format!(
        "nodes:\n  g: {{ kind: qemu, kernel_args: \"{mute}\", boot_timeout: 1h }}\ntasks:\n  - {{ name: t, run: {{ g: ls }} }}\n"
    ));
    run.wait_for_event("node-started", "\"g\"");
    run.signal(Signal::SIGINT);
    let ended = run.end().expect(130);
    let results = ended.results();
    assert_eq!(results.outcome(), "interrupted");
    assert_eq!(results.task("t")["state"], "not-run");
    assert_eq!(results.node("g")["ready"], false);
}

#[test]
fn a_second_ctrl_c_ends_a_run_at_once() {
    if !have_qemu() {
        return;
    }
    let _turn = qemu_turn();
    let place = Place::new();
    // What is kept comes over the serial console, so the end of this run takes a good while.
    let mut run = place.begin(
        "nodes:
  g: { kind: qemu, keep: /big, init: head -c 7000000 /dev/urandom >/big }
tasks:
  - { name: long, run: { g: sleep 1000 }, timeout: 2000s }
",
    );
    run.wait_for_event("task-started", "long");
    run.signal(Signal::SIGINT);
    run.wait_for("the offer to end at once", |run| {
        run.stderr().contains("once more").then_some(())
    });
    run.signal(Signal::SIGINT);
    run.end().expect(130);
    // It did not wait for the rest: nothing was written of it, and the directory is a dead run's.
    assert!(!place.path("out/results.json").exists());
    says(&place.call(&["clean", "out"]).expect(0).text(), &["removed out"]);
}

#[test]
fn a_run_that_takes_longer_than_its_time_limit_fails_and_says_so() {
    if !have_root() {
        return;
    }
    let place = Place::new();
    let ended = place.run(&format!("time_limit: 2s\n{TWO_TASKS}")).expect(1);
    let results = ended.results();
    assert_eq!(results.outcome(), "failed");
    says(&results.errors(), &["time_limit", "2s", "partial"]);
    assert_eq!(results.task("long")["state"], "interrupted");
}

#[test]
fn a_command_that_takes_too_long_is_ended_and_named() {
    if !have_root() {
        return;
    }
    let place = Place::new();
    let ended = place
        .run(
            r"
nodes:
  a: { kind: netns }
  b: { kind: netns }
tasks:
  - name: late
    run:
      a: { command: sleep 1000, timeout: 500ms }
      b: echo fine
  - { name: never, run: { a: echo no } }
",
        )
        .expect(1);
    let results = ended.results();
    says(&results.errors(), &["task late", "node a", "sleep 1000", "took too long"]);
    assert_eq!(results.output("late", "b"), "fine\n", "the other node's result is kept");
    assert_eq!(results.task("never")["ran"], false, "no task follows a failed one");
}
