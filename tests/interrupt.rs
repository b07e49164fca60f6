//! Ctrl-C, termination and time limits end a run cleanly, and what it knows by then is kept.

mod common;

use common::{Place, have_root, says};
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
  - { name: long, run: { a: sleep 1000 }, timeout: 2000s }
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
        run.signal(signal);
        let ended = run.end().expect(130).says(&["ending the run"]);
        says(&ended.text(), &["INTERRUPTED: the results are partial"]);
        let results = ended.results();
        assert_eq!(results.outcome(), "interrupted", "{signal}");
        assert_eq!(results.output("short", "a"), "known\n", "{signal}");
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
fn a_run_that_takes_longer_than_its_time_limit_fails_and_says_so() {
    if !have_root() {
        return;
    }
    let place = Place::new();
    let ended = place.run(&format!("time_limit: 2s\n{TWO_TASKS}")).expect(1);
    let results = ended.results();
    assert_eq!(results.outcome(), "failed");
    says(&results.errors(), &["time_limit", "2s", "partial"]);
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
