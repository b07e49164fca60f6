//! Tasks over several real shells: barrier, skew, background commands, and nodes that fail.

mod common;

use std::collections::BTreeMap;
use std::time::Instant;

use common::{Node, node};
use indexmap::IndexMap;
use tapestry_core::SimTime;
use tapestry_guests::task::{CommandOutcome, TaskOutcome, TaskRunner};
use tapestry_topologies::resolved::{Command, Metric, Pick, Take, Task};

fn task(name: &str, commands: Vec<Command>) -> Task {
    Task {
        name: name.into(),
        commands,
        timeout: SimTime::from_secs(60),
        stop: Vec::new(),
        metrics: IndexMap::new(),
        expect: Vec::new(),
        when: None,
    }
}

fn command(name: &str, node: usize, text: &str) -> Command {
    Command {
        name: name.into(),
        node,
        text: text.into(),
        background: false,
        ready: None,
        timeout: None,
        expect_status: Some(0),
    }
}

fn find<'a>(outcome: &'a TaskOutcome, name: &str) -> &'a CommandOutcome {
    let found = outcome.commands.iter().find(|c| c.name == name);
    found.unwrap_or_else(|| panic!("{name} in {outcome:?}"))
}

/// Runs `test` on `count` nodes of plain `sh`.
fn with_nodes(count: usize, test: impl AsyncFnOnce(TaskRunner, Vec<Node>)) {
    let runtime = tokio::runtime::Runtime::new().expect("runtime");
    runtime.block_on(async {
        let mut shells = BTreeMap::new();
        let mut nodes = Vec::new();
        for index in 0..count {
            let (shell, node) = node(&format!("n{index}")).await;
            shells.insert(index, shell.into());
            nodes.push(node);
        }
        test(TaskRunner::new(shells, Instant::now(), None), nodes).await;
    });
}

#[test]
fn commands_start_together_and_the_task_ends_with_the_last() {
    with_nodes(8, async |mut runner, _nodes| {
        let commands =
            (0..8).map(|i| command(&format!("n{i}"), i, &format!("sleep 0.{i}; echo {i}")));
        let outcome = runner.run(&task("t", commands.collect()), &|_| {}).await;
        assert!(outcome.is_ok(), "{outcome:?}");
        let starts: Vec<u64> = outcome.commands.iter().filter_map(|c| c.start_ns).collect();
        let ends: Vec<u64> = outcome.commands.iter().filter_map(|c| c.end_ns).collect();
        assert_eq!((starts.len(), ends.len()), (8, 8));
        // All run before the first ends: they were really started together.
        assert!(starts.iter().max() < ends.iter().max());
        assert!(outcome.end_ns >= *ends.iter().max().expect("eight"));
        let skew = starts.iter().max().expect("eight") - starts.iter().min().expect("eight");
        assert_eq!(outcome.start_skew_ns, Some(skew));
        for (i, command) in outcome.commands.iter().enumerate() {
            assert_eq!(command.output.to_text(), format!("{i}\n"));
        }
        println!(
            "start skew over 8 shells: {skew} ns, release span: {:?} ns",
            outcome.release_span_ns
        );
        let json = serde_json::to_value(&outcome).expect("serialises");
        assert_eq!(json["commands"][3]["output"], "3\n");
    });
}

#[test]
fn a_dead_node_does_not_take_the_others_results_along() {
    with_nodes(3, async |mut runner, mut nodes| {
        nodes[1].kill();
        let mut commands: Vec<_> =
            (0..3).map(|i| command(&format!("n{i}"), i, "echo here")).collect();
        commands.push(command("nowhere", 9, "true"));
        let outcome = runner.run(&task("t", commands), &|_| {}).await;
        assert!(!outcome.is_ok());
        assert!(find(&outcome, "n0").is_ok());
        assert!(find(&outcome, "n2").is_ok());
        let error = find(&outcome, "n1").error.as_ref().expect("dead").to_string();
        assert!(error.contains("node `n1`") && error.contains("echo here"), "{error}");
        assert!(find(&outcome, "nowhere").error.is_some());
    });
}

#[test]
fn statuses_and_timeouts_are_judged() {
    with_nodes(3, async |mut runner, _nodes| {
        let mut any = command("any", 0, "exit 3");
        any.expect_status = None;
        let bad = command("bad", 1, "exit 3");
        let mut late = command("late", 2, "echo begun; sleep 1000");
        late.timeout = Some(SimTime::from_millis(200));
        let outcome = runner.run(&task("t", vec![any, bad, late]), &|_| {}).await;
        assert!(find(&outcome, "any").is_ok());
        let bad = find(&outcome, "bad");
        assert_eq!((bad.status, bad.is_ok()), (Some(3), false));
        let late = find(&outcome, "late");
        assert!(late.timed_out && !late.is_ok());
        assert_eq!(late.output.to_text(), "begun\n");
        // The task's own timeout holds for every command.
        let mut short = task("t", vec![command("n0", 0, "sleep 1000"), command("n1", 1, "true")]);
        short.timeout = SimTime::from_millis(500);
        let outcome = runner.run(&short, &|_| {}).await;
        assert!(find(&outcome, "n0").timed_out);
        assert!(find(&outcome, "n1").is_ok());
    });
}

#[test]
fn a_server_is_ready_before_the_client_and_stopped_after_it() {
    with_nodes(2, async |mut runner, _nodes| {
        let mut server = command(
            "server",
            0,
            "sleep 0.2; echo listening; while :; do sleep 0.05; echo tick; done",
        );
        server.background = true;
        server.ready = Some("^listening$".into());
        let mut other = command("other", 0, "echo other; sleep 1000");
        other.background = true;
        let mut t = task("t", vec![server, other, command("client", 1, "echo 12 packets")]);
        t.metrics.insert(
            "packets".into(),
            Metric {
                from: "client".into(),
                take: Take::Regex { pattern: r"^(\d+) packets".into(), pick: Pick::Last },
                unit: "packets".into(),
                default: None,
            },
        );
        let outcome = runner.run(&t, &|_| {}).await;
        assert!(outcome.is_ok(), "{outcome:?}");
        assert_eq!(outcome.metrics["packets"].value, Some(12.0));
        // The server went on; the next task ends it and counts its ticks.
        let mut next = task("next", vec![command("n0", 0, "sleep 0.3")]);
        next.stop = vec!["server".into()];
        next.metrics.insert(
            "ticks".into(),
            Metric {
                from: "server".into(),
                take: Take::Regex { pattern: "^tick$".into(), pick: Pick::Count },
                unit: String::new(),
                default: None,
            },
        );
        let outcome = runner.run(&next, &|_| {}).await;
        assert!(outcome.is_ok(), "{outcome:?}");
        let server = find(&outcome, "server");
        assert!(server.stopped && server.output.to_text().starts_with("listening\ntick\n"));
        assert!(outcome.metrics["ticks"].value.expect("counted") >= 1.0);
        let rest = runner.finish(&|_| {}).await;
        assert_eq!(rest.len(), 1);
        assert_eq!(
            (rest[0].name.as_str(), rest[0].output.to_text().as_str()),
            ("other", "other\n")
        );
        assert!(runner.finish(&|_| {}).await.is_empty());
    });
}

#[test]
fn a_server_that_is_never_ready_or_dies_is_an_error() {
    with_nodes(2, async |mut runner, _nodes| {
        let mut silent = command("silent", 0, "echo hello; sleep 1000");
        silent.background = true;
        silent.ready = Some("listening".into());
        let mut dead = command("dead", 1, "echo no address; exit 4");
        dead.background = true;
        dead.ready = Some("listening".into());
        let mut t = task("t", vec![silent, dead]);
        t.timeout = SimTime::from_millis(800);
        let outcome = runner.run(&t, &|_| {}).await;
        let error = find(&outcome, "silent").error.as_ref().expect("not ready").to_string();
        assert!(error.contains("n0") && error.contains("hello"), "{error}");
        let dead = find(&outcome, "dead");
        let error = dead.error.as_ref().expect("died").to_string();
        assert!(error.contains("status 4") && error.contains("no address"), "{error}");
        assert_eq!(dead.status, Some(4));
        assert!(runner.finish(&|_| {}).await.is_empty());
        // Its early end is told also when nobody waits for it.
        let mut early = command("early", 1, "exit 4");
        early.background = true;
        let outcome =
            runner.run(&task("u", vec![early, command("n0", 0, "sleep 0.3")]), &|_| {}).await;
        assert!(outcome.is_ok());
        let rest = runner.finish(&|_| {}).await;
        assert!(!rest[0].stopped && !rest[0].is_ok());
    });
}
