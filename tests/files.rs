//! A topology file is checked before anything is started: what is wrong is said in full, with exit
//! status 2 and no trace of a run; what is right can be checked, drawn and varied without running.

mod common;

use std::fmt::Write;

use common::{Ended, Place, says};
use serde_json::Value;

/// Checks a file; also through `run`, which must refuse it in the same words and make nothing.
#[track_caller]
fn wrong(place: &Place, text: impl AsRef<[u8]>) -> Ended {
    place.file("lab.yaml", text);
    let refused = place.call(&["validate", "lab.yaml"]).expect(2);
    let run = place.call(&["run", "lab.yaml", "--out", "out"]).expect(2);
    assert_eq!(run.stderr, refused.stderr, "run and validate disagree");
    assert!(!place.path("out").exists(), "a refused file left a run directory");
    refused
}

#[test]
fn a_file_may_come_through_a_pipe() {
    let place = Place::new();
    let check = |text: &str| {
        let mut command = place.tapestry(&["validate", "/dev/stdin"]);
        let (from, mut to) = std::io::pipe().expect("a pipe");
        std::io::Write::write_all(&mut to, text.as_bytes()).expect("it fits the pipe");
        drop(to);
        command.stdin(from);
        place.start(command).end()
    };
    check("name: piped\nnodes: { a: { kind: hub } }\n").expect(0);
    check("name: piped\nnods: {}\n").expect(2).says(&["/dev/stdin", "nods", "2:1"]);
}

#[test]
fn everything_wrong_comes_at_once_with_line_and_column() {
    let place = Place::new();
    let refused = wrong(
        &place,
        r#"name: wrong
nodes:
  "n[0-1]":
    memroy: 1GiB
    vcpus: many
  n1: {}
  c: { interfaces: { eth0: { ipv4: 10.0.0.1/24 } } }
  d: { interfaces: { eth0: { ipv4: 10.0.0.1/24 } } }
links:
  - pair: [n0, c]
    delay: 5
  - pair: ["n0:eth7", d]
  - lan: n[3-1]
  - pair: [n0, bop]
  - pair: ["n0:eth7", d]
tasks:
  - { name: t, run: { n0: "ping ${ipv4('d')}" }, timeout: soon }
"#,
    );
    refused.says(&[
        "lab.yaml: 9 errors",
        "unknown key `memroy`",
        "did you mean `memory`?",
        "[lab.yaml:4:5]",
        "`many` is not a whole number",
        "[lab.yaml:5:12]",
        "the node `n1` is declared twice",
        "[lab.yaml:6:3]",
        "the address `10.0.0.1` belongs to `c:eth0` already",
        "[lab.yaml:8:36]",
        "`5` has no unit",
        "[lab.yaml:11:12]",
        "the range `3-1` is impossible",
        "[lab.yaml:13:12]",
        "unknown node `bop`",
        "[lab.yaml:14:16]",
        "n0:eth7",
        "[lab.yaml:15:12]",
        "`soon`",
        "[lab.yaml:17:59]",
    ]);
}

#[test]
fn files_that_are_no_topologies_are_refused() {
    let place = Place::new();
    // 1 MB of noise from a linear congruential generator: the same bytes in every run.
    let mut state = 1u64;
    let mut noise = || {
        state =
            state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 56) as u8
    };
    let bytes: Vec<u8> = std::iter::repeat_with(&mut noise).take(1_000_000).collect();
    let refused = wrong(&place, &bytes);
    assert!(refused.stderr.contains("lab.yaml"), "{}", refused.stderr);
    assert!(refused.stderr.len() < 20_000, "{} bytes of complaint", refused.stderr.len());
    let printable: Vec<u8> = bytes.iter().map(|byte| b' ' + byte % 95).collect();

    for text in ["", "null\n", "[]\n", "just words\n", "nodes: {}\n", "nodes: {a: {}}\n---\n{}\n"] {
        wrong(&place, text).says(&["lab.yaml"]);
    }
    // Nobody wants to see one line of a megabyte whole, and deep nesting must not exhaust the stack.
    for text in [
        String::from_utf8(printable).expect("ASCII"),
        "[".repeat(1_000_000),
        "nodes: ".to_owned() + &"{a: ".repeat(100_000),
    ] {
        place.file("lab.yaml", text);
        let refused = place.call(&["validate", "lab.yaml"]).expect(2).says(&["lab.yaml:1:"]);
        assert!(refused.stderr.len() < 20_000, "{} bytes of complaint", refused.stderr.len());
    }
}

#[test]
fn files_that_cannot_be_read_are_named() {
    let place = Place::new();
    place.call(&["validate", "none.yaml"]).expect(2).says(&["none.yaml"]);
    place.call(&["run", "none.yaml"]).expect(2).says(&["none.yaml"]);
    std::fs::create_dir(place.path("folder.yaml")).expect("a directory");
    place.call(&["validate", "folder.yaml"]).expect(2).says(&["folder.yaml"]);
    assert!(!place.path("runs").exists(), "a refused file left runs/");

    place.file("a.yaml", "include: b.yaml\nnodes: {a: {}}\n");
    place.file("b.yaml", "include: [c.yaml]\n");
    place.file("c.yaml", "include: a.yaml\n");
    place.call(&["validate", "a.yaml"]).expect(2).says(&["a.yaml", "b.yaml", "c.yaml", ":1:"]);
    place.file("alone.yaml", "nodes: {a: {}}\ninclude: alone.yaml\n");
    place.call(&["validate", "alone.yaml"]).expect(2).says(&["alone.yaml:2:10"]);
    place.file("lost.yaml", "nodes: {a: {}}\ninclude: gone.yaml\n");
    place.call(&["validate", "lost.yaml"]).expect(2).says(&["lost.yaml:2:10", "gone.yaml"]);
}

const CHAIN: &str = "name: two
params: { nodes: 3, kind: netns, slow: false }
nodes: { \"n[0-${nodes-1}]\": { kind: \"${kind}\" } }
links: [{ chain: \"n[0-${nodes-1}]\", ipv4: { from: 10.0.0.0/16, per_link: 24 } }]
tasks: [{ name: t, run: { n0: \"echo ${nodes} ${slow}\" } }]
";

#[test]
fn parameters_are_set_and_checked() {
    let place = Place::new();
    place.file("lab.yaml", CHAIN);
    let whole = place.call(&["validate", "lab.yaml"]).expect(0);
    says(&whole.text(), &["two: 3 nodes (3 netns), 2 links, 1 task: no errors"]);

    let set = ["validate", "lab.yaml", "--set", "nodes=5", "--set", "slow=true", "--json"];
    let resolved: Value = serde_json::from_slice(&place.call(&set).expect(0).stdout).expect("JSON");
    assert_eq!(resolved["nodes"].as_array().expect("nodes").len(), 5);
    assert_eq!(resolved["links"].as_array().expect("links").len(), 4);
    assert_eq!(resolved["tasks"][0]["commands"][0]["text"], "echo 5 true");
    let last = &resolved["nodes"][4]["interfaces"][0];
    assert_eq!(last["ipv4"][0], "10.0.3.2/24", "{last:#}");

    for (set, words) in [
        ("nodes=many", &["nodes", "many"][..]),
        ("nodse=5", &["nodse", "nodes"]),
        ("kind=vax", &["vax", "qemu", "netns", "lab.yaml:"]),
        ("slow=perhaps", &["slow", "perhaps"]),
        ("nodes", &["NAME=VALUE"]),
        ("=5", &["NAME=VALUE"]),
    ] {
        place.call(&["validate", "lab.yaml", "--set", set]).expect(2).says(words);
        place.call(&["run", "lab.yaml", "--set", set]).expect(2).says(words);
    }
}

#[test]
fn graphs_show_every_node_and_link() {
    let place = Place::new();
    place.file("lab.yaml", CHAIN);
    let dot = place.call(&["graph", "lab.yaml"]).expect(0).text();
    assert!(dot.starts_with("graph"), "{dot}");
    assert_eq!(dot.matches(" -- ").count(), 2, "{dot}");
    let mermaid = place.call(&["graph", "lab.yaml", "--format", "mermaid"]).expect(0).text();
    says(&mermaid, &["n0", "n1", "n2"]);

    let output = ["graph", "lab.yaml", "--set", "nodes=4", "--output", "lab.svg"];
    assert!(place.call(&output).expect(0).stdout.is_empty());
    let svg = std::fs::read_to_string(place.path("lab.svg")).expect("a picture");
    says(&svg, &["<svg", ">n0<", ">n3<", "</svg>"]);
    assert!(!svg.contains(">n4<"), "{svg}");

    let nowhere = ["graph", "lab.yaml", "--output", "none/lab.svg"];
    place.call(&nowhere).expect(1).says(&["none/lab.svg"]);
    place.call(&["graph", "lab.yaml", "--format", "gif"]).expect(2).says(&["gif", "svg"]);
}

#[test]
fn the_schema_knows_the_keys_that_files_may_have() {
    let schema = Place::new().call(&["schema"]).expect(0);
    let schema: Value = serde_json::from_slice(&schema.stdout).expect("a JSON Schema");
    let top = schema["properties"].as_object().expect("the keys of a file");
    for key in ["nodes", "links", "tasks", "types", "params", "include"] {
        assert!(top.contains_key(key), "{key} is missing: {top:?}");
    }
    assert!(!top.contains_key("node"), "{top:?}");
}

#[test]
fn wrong_usage_is_2_and_virtual_time_is_not_promised_to_real_nodes() {
    let place = Place::new();
    place.file("lab.yaml", CHAIN);
    for arguments in [
        &[][..],
        &["fly"],
        &["run"],
        &["run", "lab.yaml", "--fly"],
        &["run", "lab.yaml", "--sync", "hard-limit=5"],
        &["run", "lab.yaml", "--seed", "many"],
        &["run", "lab.yaml", "--realtime-priority", "100"],
        &["exec", "last", "n0"],
    ] {
        let refused = place.call(arguments).expect(2);
        assert!(
            refused.stderr.contains("Usage") || refused.stderr.contains("error"),
            "{arguments:?}"
        );
    }
    let refused = place.call(&["run", "lab.yaml", "--time", "virtual"]).expect(2);
    refused.says(&["--time virtual", "n0, n1, n2"]);
    assert!(!place.path("runs").exists(), "wrong usage left runs/");
    place.call(&["--version"]).expect(0);
}

#[test]
fn a_file_with_very_many_mistakes_stays_readable() {
    let place = Place::new();
    let mut text = String::from("nodes:\n");
    for i in 0..5_000 {
        let _ = writeln!(text, "  n{i}: {{ colour: red }}");
    }
    let refused = wrong(&place, text).says(&["5000 errors", "first 100 are shown", "`colour`"]);
    assert_eq!(refused.stderr.matches("unknown key").count(), 100);
}
