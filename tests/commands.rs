//! Commands that try to break the shell proxy: each gives its own output and status, or an error
//! that names it; never a hang, and never a mix-up with the next command.

mod common;

use common::{Place, have_qemu, have_root, qemu_turn, says};

/// What both kinds of node must survive. `SIZE` is the length of the long output in bytes.
const TORTURE: &str = r##"
name: torture
params: { kind: netns, size: 1000000 }
nodes:
  a: { kind: "${kind}" }
tasks:
  # Frames are RS key SP body US; a guess at every kind of them.
  - name: fake
    run:
      a:
        status: 5
        command: |
          for k in 0000000000000000 ffffffffffffffff; do
            for b in 'end 0' 'start 1' 'armed' 'ack 0 1' 'gone 1 0' 'ready / -'; do
              printf '\036%s %s\037' $k "$b"
            done
          done
          exit 5
  - { name: fake-next, run: { a: echo untouched } }
  - name: long
    run: { a: "yes 0123456789abcde | head -c ${size}" }
    timeout: 600s
  - { name: long-next, run: { a: echo untouched } }
  - name: binary
    run: { a: "i=0; while [ $i -lt 256 ]; do printf \"\\\\$(printf %03o $i)\"; i=$((i + 1)); done" }
  - { name: no-newline, run: { a: printf 'no newline at the end' } }
  - { name: no-newline-next, run: { a: echo untouched } }
  # A job that prints while the next commands run.
  - name: later
    run: { a: "(sleep 1; echo LATER; sleep 1; echo LATER) & echo now" }
  - { name: later-next, run: { a: "sleep 3; echo untouched" } }
  - { name: unbalanced, run: { a: { command: "echo 'never closed", status: any } } }
  - { name: unbalanced-paren, run: { a: { command: "( echo", status: any } } }
  - { name: unbalanced-next, run: { a: echo untouched } }
  - name: here
    run:
      a: |
        cat <<'EOF'
        $HOME "quoted" `not run` \
        EOF
  - { name: exit, run: { a: { command: exit 3, status: 3 } } }
  - { name: exec, run: { a: exec echo replaced } }
  - { name: errexit, run: { a: { command: "set -e; false; echo not reached", status: 1 } } }
  - { name: reads, run: { a: "cat; echo end of input" } }
  - { name: killed, run: { a: { command: "kill -9 $$", status: 137 } } }
  - { name: state, run: { a: { command: "cd /tmp; export X=1; false", status: any } } }
  - { name: state-next, run: { a: "pwd; echo \"[$${X:-unset}]\"" } }
  - { name: stderr, run: { a: "echo out; echo err >&2" } }
  - { name: unicode, run: { a: "echo 'Grüße, 世界 🌍'" } }
  - { name: empty, run: { a: ":" } }
  - { name: last, run: { a: echo untouched } }
"##;

/// Checks everything that both kinds share.
fn check(results: &common::Results, size: usize) {
    for task in results.0["tasks"].as_array().expect("tasks") {
        let name = task["name"].as_str().expect("a name");
        assert_eq!(task["ran"], true, "task {name}: {}", results.errors());
        if name.ends_with("-next") && name != "state-next" || name == "last" {
            assert_eq!(results.output(name, "a"), "untouched\n", "task {name}");
        }
    }
    let fake = results.output_bytes("fake", "a");
    assert_eq!(fake.iter().filter(|byte| **byte == 0x1e).count(), 12, "all of the fake frames");
    assert_eq!(results.status("fake", "a"), Some(5));

    let long = results.output_bytes("long", "a");
    assert_eq!(long.len(), size);
    let expected = b"0123456789abcde\n".iter().copied().cycle();
    assert!(long.iter().copied().eq(expected.take(size)), "the long output has changed");
    assert_eq!(results.command("long", "a")["output_bytes"], size);

    assert_eq!(results.output_bytes("binary", "a"), (0..=255).collect::<Vec<u8>>());
    assert_eq!(results.output("no-newline", "a"), "no newline at the end");
    assert_eq!(results.output("later", "a"), "now\n");
    assert_ne!(results.status("unbalanced", "a"), Some(0));
    assert_ne!(results.status("unbalanced-paren", "a"), Some(0));
    assert_eq!(results.output("here", "a"), "$HOME \"quoted\" `not run` \\\n");
    assert_eq!(results.output("exec", "a"), "replaced\n");
    assert_eq!(results.output("errexit", "a"), "");
    assert_eq!(results.output("reads", "a"), "end of input\n");
    assert!(!results.output("state-next", "a").contains("/tmp\n"), "cd must not carry over");
    says(results.output("state-next", "a"), &["[unset]"]);
    assert_eq!(results.output("stderr", "a"), "out\nerr\n");
    assert_eq!(results.output("unicode", "a"), "Grüße, 世界 🌍\n");
    assert_eq!(results.status("empty", "a"), Some(0));
}

#[test]
fn namespaces_survive_the_torture_list() {
    if !have_root() {
        return;
    }
    let place = Place::new();
    let size = 50_000_000;
    let set = format!("size={size}");
    let ended = place.run_with(TORTURE, &["--set", &set]).expect(0);
    check(&ended.results().passed(), size);
}

#[test]
fn virtual_machines_survive_the_torture_list() {
    if !have_qemu() {
        return;
    }
    let _turn = qemu_turn();
    let place = Place::new();
    let size = 300_000;
    let set = format!("size={size}");
    let ended = place.run_with(TORTURE, &["--set", &set, "--set", "kind=qemu"]).expect(0);
    check(&ended.results().passed(), size);
}

#[test]
fn a_command_of_64_kib_arrives_whole() {
    if !have_root() {
        return;
    }
    let place = Place::new();
    let text = "0123456789abcdef".repeat(4096);
    let ended = place
        .run(&format!(
            "nodes:\n  a: {{ kind: netns }}\ntasks:\n  - {{ name: t, run: {{ a: \"printf %s '{text}'\" }} }}\n"
        ))
        .expect(0);
    assert_eq!(ended.results().output_bytes("t", "a"), text.as_bytes());
}

#[test]
fn background_commands_are_awaited_stopped_and_measured() {
    if !have_root() {
        return;
    }
    let place = Place::new();
    let ended = place
        .run(
            r#"
nodes:
  a: { kind: netns }
  b: { kind: netns }
tasks:
  - name: begin
    run:
      a: { name: ticker, command: "echo up; i=0; while :; do i=$((i + 1)); echo tick $i; sleep 0.05; done", background: true, ready: "tick 3" }
  - name: use
    run: { b: "echo '{\"a\": {\"b\": [1, 2.5]}}'", a: "echo x=1 x=2 x=6" }
    stop: [ticker]
    metrics:
      pointed: { from: b, json: /a/b/1, unit: m }
      first: { from: a, regex: "x=(\\d+)", pick: first }
      last: { from: a, regex: "x=(\\d+)" }
      sum: { from: a, regex: "x=(\\d+)", pick: sum }
      count: { from: a, regex: "x=(\\d+)", pick: count }
      ticks: { from: ticker, regex: "tick (\\d+)" }
      absent: { from: a, regex: "y=(\\d+)", default: 9 }
    expect: [ "${ticks >= 3}" ]
  - { name: not-now, when: "${sum > 100}", run: { a: echo no } }
  - { name: now, when: "${sum == 9}", run: { a: echo yes } }
metrics:
  double: "${sum * 2}"
expect: [ "${double == 18}" ]
"#,
        )
        .expect(0);
    let results = ended.results().passed();
    for (name, value) in [
        ("pointed", 2.5),
        ("first", 1.0),
        ("last", 6.0),
        ("sum", 9.0),
        ("count", 3.0),
        ("absent", 9.0),
        ("double", 18.0),
    ] {
        assert_eq!(results.metric(name), value, "metric {name}");
    }
    assert_eq!(results.0["metrics"]["pointed"]["unit"], "m");
    says(results.output("use", "ticker"), &["up\n", "tick 3\n"]);
    assert_eq!(results.task("not-now")["ran"], false);
    assert_eq!(results.output("now", "a"), "yes\n");
    assert!(results.task("use")["start_skew_ns"].as_u64().is_some(), "two commands have a skew");
}

#[test]
fn what_fails_is_named_and_fails_the_run() {
    if !have_root() {
        return;
    }
    let run = |tasks: &str| {
        let place = Place::new();
        let ended = place.run(&format!("nodes:\n  a: {{ kind: netns }}\ntasks:\n{tasks}")).expect(1);
        let results = ended.results();
        assert_eq!(results.outcome(), "failed");
        let told = format!("{}\n{}", results.errors(), ended.text());
        told
    };
    let told = run("  - { name: t, run: { a: echo a broken thing; exit 4 } }\n");
    says(&told, &["task t", "node a", "status 4", "expected 0", "a broken thing"]);
    let told = run("  - { name: t, run: { a: echo x }, metrics: { m: { from: a, regex: 'y=(1)' } } }\n");
    says(&told, &["task t", "metric m", "y=(1)"]);
    let told = run("  - { name: t, run: { a: echo x=1 }, metrics: { m: { from: a, regex: 'x=(\\d)' } }, expect: [ '${m > 1}' ] }\n");
    says(&told, &["m > 1", "FAILS"]);
    let told = run("  - { name: t, run: { a: { command: exit 3, background: true, ready: up } } }\n");
    says(&told, &["task t", "node `a`", "status 3", "up"]);
}

#[test]
fn an_assertion_in_an_invalid_run_is_inconclusive() {
    if !have_root() {
        return;
    }
    let place = Place::new();
    // No event can be early enough for a limit of nothing.
    let ended = place
        .run(
            r#"
verdict: { degraded_lateness_p99: 0ns, invalid_lateness_p99: 0ns }
nodes:
  a: { kind: netns }
  b: { kind: netns }
links:
  - { pair: [a, b], channel: point-to-point, delay: 1ms, ipv4: 10.9.0.0/24 }
tasks:
  - { name: t, run: { a: ping -c 3 -i 0.1 b }, metrics: { m: { from: a, regex: "(\\d+) received" } }, expect: [ "${m == 0}" ] }
"#,
        )
        .expect(3);
    let results = ended.results();
    assert_eq!((results.verdict(), results.outcome()), ("invalid", "inconclusive"));
    says(&ended.text(), &["verdict   invalid: events ran late", "INCONCLUSIVE"]);
}

#[test]
fn a_hard_limit_ends_the_run_and_names_the_event() {
    if !have_root() {
        return;
    }
    let place = Place::new();
    let ended = place
        .run_with(
            r"
nodes:
  a: { kind: netns }
  b: { kind: netns }
links:
  - { pair: [a, b], name: wire, channel: point-to-point, delay: 1ms, ipv4: 10.9.0.0/24 }
tasks:
  - { name: t, run: { a: ping -c 1000 -i 0.1 b }, timeout: 200s }
",
            &["--sync", "hard-limit=1ns"],
        )
        .expect(3);
    let results = ended.results();
    assert_eq!(results.verdict(), "invalid");
    says(&results.errors(), &["wire", "late", "hard limit is 1ns"]);
}
