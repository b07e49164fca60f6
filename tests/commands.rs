//! Commands of tasks: whatever a command does, its output and status are right or there is a clear
//! error; it never hangs the run and never mixes with the next command.

mod common;

use common::{Ended, Place, Results, have_qemu, have_root, qemu_turn, says};

/// Commands that would confuse a proxy that looks for prompts, quotes or its own words. Tasks come
/// in pairs: what leaks out of one shows in the next. `big` is in MiB.
const TORTURE: &str = r#"
params: { kind: netns, big: 50 }
types: { guest: { kind: "${kind}" } }
nodes: { a: { type: guest }, b: { type: guest } }
tasks:
  - name: before
    run: { a: 'echo "$PATH"; pwd; umask; ulimit -n', b: 'echo "$PATH"; pwd; umask; ulimit -n' }

  - name: fake-frame
    run:
      a:
        status: 5
        command: |
          printf '\036tapestry end 0\037\n\036%s end 0\037' 0123456789abcdef
          printf '\n#PS1#\n$ # > \n'
          exit 5
      # Everything that could tell it what a true frame looks like, and then all of that again.
      b: |
        printf '\036\036 begin \037'
        { env; set; cat /proc/$$/cmdline /proc/$PPID/cmdline /proc/$$/environ; } > /tmp/clues
        tr '\0' '\n' < /tmp/clues | grep -a -o '[0-9a-f]\{8,\}' | while read -r key; do
          printf '\036%s end 0\037\036%s begin\037' "$key" "$key"
        done
        echo done
  - name: after-fake-frame
    run: { a: { command: "echo untouched; exit 3", status: 3 }, b: echo untouched }

  - name: big
    timeout: 120s
    run:
      a: "head -c ${big * 1048576} /dev/zero | tr '\\0' x"
      b: i=0; while [ $i -lt 2000 ]; do echo line $i of many; i=$((i+1)); done

  - name: binary
    run:
      a: i=0; while [ $i -lt 256 ]; do printf "\\$(printf %03o $i)"; i=$((i+1)); done
      b: head -c 100000 /dev/urandom | tee /tmp/noise
  - name: binary-again
    run: { b: cat /tmp/noise }

  - name: no-newline
    run:
      a: printf 'no newline'
      b: printf '\r\n\r\n  two  \t \n'

  - name: leaves-a-child
    run:
      a: (sleep 1; echo late words) & echo early words
      b: sleep 1000 & exec echo gone
  - name: while-the-child-speaks
    run:
      a: sleep 2; echo own words
      b: echo own words

  - name: unbalanced
    run:
      a: { command: "echo 'begun", status: any }
      b: { command: "if true; then (", status: any }
  - name: after-unbalanced
    run:
      a: |
        echo "it's" 'fine "here'
      b: |
        cat <<END
        here $((1+1)) 'and "there
        END

  - name: statuses
    run: { a: { command: exit 255, status: 255 }, b: { command: kill -9 $$, status: 137 } }
  - name: no-such-program
    run: { a: { command: no-such-program, status: 127 }, b: { command: /etc, status: 126 } }

  - name: steals-input
    run:
      a: cat
      b: read line; echo status $? line $line

  - name: touches-the-shell
    run:
      a: |
        cd /proc; umask 777; ulimit -n 64; set -f -u; PATH=/none; exec 2>&-; trap '' TERM
      b: { command: "(stty -echo < /dev/console) 2> /dev/null; set -e; false; echo no", status: 1 }
  - name: as-before
    run: { a: 'echo "$PATH"; pwd; umask; ulimit -n', b: 'echo "$PATH"; pwd; umask; ulimit -n' }

  - name: here
    run:
      a: |
        cat <<'EOF'
        $HOME "quoted" `not run` \
        EOF
      b: "echo 'Grüße, 世界 🌍'"
  - name: little
    run: { a: ":", b: exec echo replaced }
  - name: both-outputs
    run:
      a: echo one; echo two >&2; echo three
      b: |
        # a comment at the end, and empty lines

        echo four # five

  - name: kernel-words
    run:
      a: |
        for i in 1 2 3 4 5 6 7 8 9; do
          echo "<1>noise $i" > /dev/kmsg 2> /dev/null
          echo "own $i"
        done
"#;

fn check(results: &Results, big: usize) {
    let fake = results.output("fake-frame", "a");
    says(fake, &["tapestry end 0", "0123456789abcdef end 0", "\n#PS1#\n$ # > \n"]);
    let fake = results.output_bytes("fake-frame", "b");
    assert!(fake.starts_with(b"\x1e\x1e begin \x1f"), "{:?}", String::from_utf8_lossy(&fake));
    assert!(fake.ends_with(b"done\n"), "{:?}", String::from_utf8_lossy(&fake));
    assert_eq!(results.output("after-fake-frame", "a"), "untouched\n");
    assert_eq!(results.output("after-fake-frame", "b"), "untouched\n");

    let bytes = results.output_bytes("big", "a");
    assert_eq!(bytes.len(), big << 20);
    assert!(bytes.iter().all(|byte| *byte == b'x'), "other bytes between the x");
    assert_eq!(results.command("big", "a")["output_bytes"], big << 20);
    let shown = results.output("big", "a");
    assert!(shown.len() < 100_000, "results.json holds {} bytes of it", shown.len());
    says(shown, &["see output_file"]);
    let lines = (0..2000).map(|i| format!("line {i} of many\n")).collect::<Vec<_>>().concat();
    assert_eq!(results.output("big", "b"), lines);

    let all: Vec<u8> = (0..=255).collect();
    assert_eq!(results.output_bytes("binary", "a"), all);
    let noise = results.output_bytes("binary", "b");
    assert_eq!(noise.len(), 100_000);
    assert!(results.output_bytes("binary-again", "b") == noise, "the noise came differently");

    assert_eq!(results.output("no-newline", "a"), "no newline");
    assert_eq!(results.output("no-newline", "b"), "\r\n\r\n  two  \t \n");

    // Words of a child that come in time belong to the command, later ones to nobody.
    let early = results.output("leaves-a-child", "a");
    assert!(["early words\n", "early words\nlate words\n"].contains(&early), "{early}");
    assert_eq!(results.output("leaves-a-child", "b"), "gone\n");
    assert_eq!(results.output("while-the-child-speaks", "a"), "own words\n");
    assert_eq!(results.output("while-the-child-speaks", "b"), "own words\n");

    for node in ["a", "b"] {
        let status = results.status("unbalanced", node);
        assert!(status.is_some_and(|status| status != 0), "{:#}", results.task("unbalanced"));
    }
    assert_eq!(results.output("after-unbalanced", "a"), "it's fine \"here\n");
    assert_eq!(results.output("after-unbalanced", "b"), "here 2 'and \"there\n");

    assert_eq!(results.output("steals-input", "a"), "");
    assert_eq!(results.output("steals-input", "b"), "status 1 line\n");
    assert_eq!(results.output("touches-the-shell", "b"), "");
    for node in ["a", "b"] {
        let before = results.output("before", node);
        assert_eq!(before.lines().count(), 4, "{before}");
        assert_eq!(results.output("as-before", node), before);
    }
    assert_eq!(results.output("here", "a"), "$HOME \"quoted\" `not run` \\\n");
    assert_eq!(results.output("here", "b"), "Grüße, 世界 🌍\n");
    assert_eq!(results.output("little", "a"), "");
    assert_eq!(results.output("little", "b"), "replaced\n");
    assert_eq!(results.output("both-outputs", "a"), "one\ntwo\nthree\n");
    assert_eq!(results.output("both-outputs", "b"), "four\n");
    let own = (1..=9).map(|i| format!("own {i}\n")).collect::<Vec<_>>().concat();
    assert_eq!(results.output("kernel-words", "a"), own);
}

#[test]
fn namespaces_survive_the_torture() {
    if have_root() {
        check(&Place::new().run(TORTURE).expect(0).results().passed(), 50);
    }
}

#[test]
fn virtual_machines_survive_the_torture() {
    if have_qemu() {
        let _turn = qemu_turn();
        let ended = Place::new().run_with(TORTURE, &["--set", "kind=qemu", "--set", "big=1"]);
        check(&ended.expect(0).results().passed(), 1);
    }
}

#[test]
fn long_commands_arrive_whole_or_are_refused() {
    if !have_root() {
        return;
    }
    // 64 KiB that differ all along, so that a lost or doubled piece shows.
    let mut text = (0..20_000).map(|i| format!("{i}.")).collect::<Vec<_>>().concat();
    text.truncate(64 << 10);
    let run = |text: &str| {
        Place::new().run(&format!(
            "nodes: {{ a: {{ kind: netns }} }}
tasks:
  - {{ name: long, run: {{ a: 'echo {text}' }} }}
  - {{ name: next, run: {{ a: echo next }} }}
"
        ))
    };
    let results = run(&text).expect(0).results().passed();
    assert_eq!(results.output_bytes("long", "a"), format!("{text}\n").as_bytes());
    assert_eq!(results.output("next", "a"), "next\n");

    let ended = run(&text.repeat(3)).expect(1).says(&["node `a`", "echo 0.1.2.", "more than"]);
    assert_eq!(ended.results().task("next")["ran"], false);
}

/// Runs two namespace nodes `a` and `b` with these tasks and what follows them.
fn tasks(text: &str) -> Ended {
    let nodes = "nodes: { a: { kind: netns }, b: { kind: netns } }";
    Place::new().run(&format!("{nodes}\ntasks:\n{text}"))
}

#[test]
fn a_command_that_takes_too_long_is_ended_and_named() {
    if !have_root() {
        return;
    }
    let ended = tasks(
        "  - name: slow
    run:
      a: { command: echo begun; sleep 1000, timeout: 500ms }
      b: sleep 1; echo fine
  - { name: never, run: { a: echo } }
",
    );
    let ended = ended.expect(1).says(&["task slow", "node a", "sleep 1000", "took too long"]);
    let results = ended.results();
    assert_eq!(results.output("slow", "a"), "begun\n");
    says(&results.command("slow", "a")["error"].to_string(), &["took too long"]);
    assert_eq!(results.output("slow", "b"), "fine\n");
    assert_eq!(results.status("slow", "b"), Some(0));
    assert_eq!(results.task("never")["ran"], false);
    assert_eq!(results.outcome(), "failed");

    // The task's own limit; it stops a command that ignores polite signals, too.
    let ended = tasks(
        "  - name: slow
    timeout: 3s
    run: { a: \"trap '' TERM INT HUP; while :; do sleep 1; done\", b: echo fine }
",
    );
    let results = ended.expect(1).says(&["task slow", "node a", "took too long"]).results();
    assert_eq!(results.output("slow", "b"), "fine\n");
}

#[test]
fn exit_statuses_are_compared_with_what_was_expected() {
    if !have_root() {
        return;
    }
    let ended = tasks(
        "  - name: statuses
    run:
      a: echo one; echo two; echo three words; exit 42
      b: { command: \"true\", status: 1 }
",
    );
    let ended = ended.expect(1).says(&[
        "task statuses: node a: `echo one; echo two; echo three words; exit 42` ended with status 42, \
         expected 0",
        "three words",
        "node b: `true` ended with status 0, expected 1; it printed nothing",
    ]);
    let results = ended.results();
    assert_eq!(results.status("statuses", "a"), Some(42));
    assert_eq!(results.output("statuses", "a"), "one\ntwo\nthree words\n");
    says(&results.errors(), &["ended with status 42", "node b"]);
    assert_eq!(ended.manifest()["exit"], 1);

    let ended = tasks(
        "  - { name: any, run: { a: { command: exit 7, status: any } } }
  - { name: signal, run: { a: kill -11 $$ } }
",
    );
    let results = ended.expect(1).says(&["task signal: node a", "signal 11"]).results();
    assert_eq!(results.status("any", "a"), Some(7));
    assert!(results.command("any", "a")["error"].is_null());
}

#[test]
fn background_commands_go_on_until_they_are_stopped() {
    if !have_root() {
        return;
    }
    let ended = tasks(
        r"  - name: start
    run:
      a:
        - { name: ticker, background: true, ready: tick 3, command: 'i=0; while :; do i=$((i+1)); echo tick $i; sleep 0.1; done' }
        - { name: forgotten, background: true, command: sleep 1000 }
      b: { name: stubborn, background: true, ready: set, command: 'trap : TERM; echo set; while :; do sleep 1; done' }
  - name: meanwhile
    run: { a: echo in the foreground; sleep 0.5 }
  - name: end
    run: { b: echo end }
    stop: [ticker, stubborn]
    metrics:
      ticks: { from: ticker, regex: 'tick (\d+)', pick: last }
      ticked: { from: ticker, regex: '^tick', pick: count }
",
    );
    let results = ended.expect(0).results().passed();
    assert_eq!(results.output("meanwhile", "a"), "in the foreground\n");
    let (last, lines) = (results.metric("ticks"), results.metric("ticked"));
    // Three before it was ready, and more during `meanwhile`.
    assert!(last > 3.0, "{last}");
    assert!((last - lines).abs() < 0.5, "the output of {last} ticks has {lines} lines");
    let ticker = results.command("end", "ticker");
    assert_eq!(ticker["background"], true);
    assert_eq!(results.output_bytes("end", "ticker"), results.output("end", "ticker").as_bytes());
    assert_eq!(ticker["status"], 143, "{ticker:#}");
    assert_eq!(results.status("end", "stubborn"), Some(137), "{:#}", results.task("end"));
}

#[test]
fn a_background_command_that_ends_otherwise_than_expected_is_a_failure() {
    if !have_root() {
        return;
    }
    let place = Place::new();
    let lab = |status: &str| {
        format!(
            "nodes:\n  a: {{ kind: netns }}\ntasks:\n  - name: t\n    run:\n      a:\n\
             \x20       - {{ name: server, background: true, command: exit 7{status} }}\n\
             \x20       - sleep 0.3\n"
        )
    };
    let ended = place.run(&lab("")).expect(1);
    let results = ended.results();
    says(&results.errors(), &["task t", "exit 7", "status 7, expected 0"]);
    // It is listed with the task that started it.
    let commands = results.task("t")["commands"].as_array().expect("a list").clone();
    assert!(commands.iter().any(|c| c["name"] == "server" && c["status"] == 7), "{commands:?}");
    for status in [", status: 7", ", status: any"] {
        Place::new().run(&lab(status)).expect(0);
    }
}

#[test]
fn a_background_command_that_is_not_ready_is_named() {
    if !have_root() {
        return;
    }
    let ended = tasks(
        "  - name: mute
    timeout: 3s
    run: { a: { name: server, command: echo wrong words; sleep 1000, background: true, ready: listening } }
  - { name: never, run: { a: echo } }
",
    );
    let ended =
        ended.expect(1).says(&["task mute", "`a`", "`server`", "`listening`", "wrong words"]);
    assert_eq!(ended.results().task("never")["ran"], false);

    let ended = tasks(
        "  - name: dead
    run: { a: { name: server, command: echo cannot listen; exit 9, background: true, ready: listening } }
",
    );
    ended.expect(1).says(&["task dead", "`server` ended with status 9", "cannot listen"]);
}

#[test]
fn metrics_conditions_and_expectations() {
    if !have_root() {
        return;
    }
    let ended = tasks(
        r#"  - name: measure
    run:
      a: { name: text, command: 'printf "v=1\nv=2\nv=6\nword: 7 apples\n"' }
      b: { name: json, command: 'printf "{\"end\": {\"rates\": [1.5e6, 2]}}"' }
    metrics:
      first: { from: text, regex: 'v=(\d+)', pick: first }
      last: { from: text, regex: 'v=(\d+)', unit: apples }
      sum: { from: text, regex: 'v=(\d+)', pick: sum }
      mean: { from: text, regex: 'v=(\d+)', pick: mean }
      least: { from: text, regex: 'v=(\d+)', pick: min }
      most: { from: text, regex: 'v=(\d+)', pick: max }
      many: { from: text, regex: 'v=', pick: count }
      named: { from: text, regex: '(word): (?P<value>\d+)' }
      absent: { from: text, regex: 'w=(\d+)', default: -1 }
      rate: { from: json, json: /end/rates/0, unit: bit/s }
      missing: { from: json, json: /start, default: 4 }
    expect: ["${first == 1}", "${named == 7 and absent == -1}"]
  - { name: skipped, when: "${sum > 100}", run: { a: "false" } }
  - { name: taken, when: "${sum == 9}", run: { a: echo taken } }
metrics:
  ratio: { value: "${most / mean}", unit: "1" }
  twice: ${ratio * 2}
expect: ["${twice == 4}", "${rate == 1500000}", "${missing == 4}"]
"#,
    );
    let ended = ended.expect(0);
    let results = ended.results().passed();
    for (name, value) in [
        ("first", 1.0),
        ("last", 6.0),
        ("sum", 9.0),
        ("mean", 3.0),
        ("least", 1.0),
        ("most", 6.0),
        ("many", 3.0),
        ("named", 7.0),
        ("absent", -1.0),
        ("rate", 1.5e6),
        ("missing", 4.0),
        ("ratio", 2.0),
        ("twice", 4.0),
    ] {
        assert!((results.metric(name) - value).abs() < 1e-9, "{name}: {}", results.metric(name));
    }
    assert_eq!(results.0["metrics"]["last"]["unit"], "apples");
    assert_eq!(results.task("skipped")["ran"], false);
    assert_eq!(results.output("taken", "a"), "taken\n");
    says(&ended.stderr, &["task skipped: left out"]);
    let expectations = results.0["expectations"].as_array().expect("expectations");
    assert_eq!(expectations.len(), 5);
    assert!(expectations.iter().all(|expectation| expectation["holds"] == true));
}

#[test]
fn an_expectation_that_fails_fails_the_run() {
    if !have_root() {
        return;
    }
    let ended = tasks(
        r#"  - name: measure
    run: { a: echo loss 0.5 }
    metrics: { loss: 'loss (\S+)' }
    expect: ["${loss < 0.01}", "${loss > 0.2}"]
  - { name: next, run: { b: echo next } }
expect: ["${loss == 0}"]
"#,
    );
    let ended = ended.expect(1).says(&["expected loss < 0.01, but it is false"]);
    says(&ended.text(), &["loss < 0.01: FAILS", "loss > 0.2: holds", "outcome   FAILED"]);
    let results = ended.results();
    assert_eq!(results.outcome(), "failed");
    let holds: Vec<_> = results.0["expectations"]
        .as_array()
        .expect("expectations")
        .iter()
        .map(|expectation| expectation["holds"].as_bool())
        .collect();
    assert_eq!(holds, [Some(false), Some(true), Some(false)]);

    let ended = tasks(
        r"  - name: measure
    run: { a: echo nothing to see }
    metrics: { loss: 'loss (\S+)' }
",
    );
    ended.expect(1).says(&["task measure: metric `loss`: nothing in the output of `a`"]);
    let ended = tasks(
        r"  - name: measure
    run: { a: echo broken }
    metrics: { rate: { json: /rate } }
",
    );
    ended.expect(1).says(&["task measure", "rate", "JSON"]);
}

#[test]
fn in_a_run_that_cannot_be_trusted_nothing_is_failed() {
    if !have_root() {
        return;
    }
    let lab = "
verdict: { degraded_lateness_p99: 1ns, invalid_lateness_p99: LIMIT }
nodes: { a: { kind: netns }, b: { kind: netns } }
links: [{ pair: [a, b], ipv4: 10.0.0.0/24, delay: 1ms }]
tasks:
  - name: ping
    run: { a: ping -c 3 -i 0.1 b }
    metrics: { rtt: '= [\\d.]+/([\\d.]+)/' }
    expect: '${rtt < 0.001}'
";
    // No host is on time to the nanosecond, so the verdict is forced. The assertion fails, too.
    let ended = Place::new().run(&lab.replace("LIMIT", "1ns")).expect(3);
    says(&ended.text(), &["verdict   invalid: events ran late", "outcome   INCONCLUSIVE"]);
    let results = ended.results();
    assert_eq!((results.verdict(), results.outcome()), ("invalid", "inconclusive"));
    assert_eq!(results.0["expectations"][0]["holds"], false);
    assert_eq!(ended.manifest()["exit"], 3);

    // Only degraded, the run can fail, and says how far to trust that.
    let ended = Place::new().run(&lab.replace("LIMIT", "1h")).expect(1);
    let results = ended.results();
    assert_eq!((results.verdict(), results.outcome()), ("degraded", "failed"));
    says(&ended.text(), &["verdict   degraded: events ran late"]);

    // A hard limit ends the run at the first late event, and names it.
    let hard = &["--sync", "hard-limit=1ns"];
    let ended = Place::new().run_with(&lab.replace("LIMIT", "1h"), hard).expect(3);
    let results = ended.results();
    assert_eq!(results.verdict(), "invalid");
    says(&results.errors(), &["late"]);
    assert!(results.errors().contains("a:eth0") || results.errors().contains("a--b"));
}
