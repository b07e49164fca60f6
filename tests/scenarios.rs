//! `tapestry test`: outcomes and exit statuses, reports, formats, filters, Ctrl-C; and the shipped regression
//! suite, whole as files, its quick scenarios as runs.

mod common;

use std::path::{Path, PathBuf};

use common::{Place, have_program, have_root, says};
use nix::sys::signal::Signal;
use serde_json::Value;

const PASSES: &str = "nodes: { a: { kind: host }, b: { kind: host } }
links: [{ pair: [a, b], delay: 1ms, ipv4: 10.0.0.0/24 }]
tasks:
  - { name: ping, run: { a: ping -c 3 b }, metrics: { received: '(\\d) received' }, expect: '${received == 3}' }
";

/// A directory `suite` with these files, and the program started from beside it.
fn suite(files: &[(&str, &str)]) -> Place {
    let place = Place::new();
    std::fs::create_dir(place.path("suite")).expect("a directory");
    for (name, text) in files {
        place.file(&format!("suite/{name}"), text);
    }
    place
}

fn failing() -> String {
    PASSES.replace("received == 3", "received > 3")
}

#[test]
fn exit_status_tells_passed_failed_and_wrong() {
    let place = suite(&[("a.yaml", PASSES), ("_part.yaml", "no topology")]);
    let passed = place.call(&["test", "suite"]).expect(0);
    says(&passed.text(), &["PASS", "a  received 3", "1 scenario: 1 passed"]);
    place.file("suite/b.yaml", failing());
    place.call(&["test", "suite"]).expect(1);
    place.call(&["test", "suite", "!b"]).expect(0);
    place.file("suite/c.yaml", "nods: {}");
    place.call(&["test", "suite"]).expect(2).says(&["c.yaml", "nods"]);
    place.call(&["test", "suite", "zzz"]).expect(2).says(&["zzz"]);
    place.call(&["test", "nowhere"]).expect(2).says(&["nowhere"]);
}

#[test]
fn a_failure_names_task_expectation_values_and_where_to_look() {
    let place = suite(&[("a.yaml", &failing())]);
    let failed = place.call(&["test", "suite", "--out", "out"]).expect(1).text();
    let parts = [
        "FAIL",
        "task ping: received > 3: does not hold",
        "received = 3",
        "3 received",
        "captures  out/a/captures",
        "details   out/a",
        "again     tapestry run suite/a.yaml --time virtual --seed 1",
    ];
    says(&failed, &parts);
    assert!(place.path("out/a/results.json").is_file());
}

#[test]
fn list_and_filters_name_scenarios() {
    let place = suite(&[("one.yaml", PASSES), ("two.yaml", PASSES), ("three.yaml", PASSES)]);
    let names = |filters: &[&str]| -> Vec<String> {
        let listed = place.call(&[&["test", "suite", "--list"], filters].concat()).expect(0).text();
        listed.lines().filter_map(|line| Some(line.split_whitespace().next()?.to_owned())).collect()
    };
    assert_eq!(names(&[]), ["one", "three", "two"]);
    assert_eq!(names(&["t"]), ["three", "two"]);
    assert_eq!(names(&["t", "!w"]), ["three"]);
    assert!(!place.path("runs").exists(), "--list runs nothing");
}

#[test]
fn formats_are_well_formed() {
    let place = suite(&[("a<&>.yaml", &failing()), ("b.yaml", PASSES)]);
    let arguments = ["test", "suite", "--json", "--junit", "j.xml", "--tap", "t.tap"];
    let ended = place.call(&arguments).expect(1);
    let tested: Value = serde_json::from_slice(&ended.stdout).expect("JSON");
    assert_eq!(
        (&tested[0]["outcome"], &tested[1]["outcome"]),
        (&"failed".into(), &"passed".into())
    );
    let junit = std::fs::read_to_string(place.path("j.xml")).expect("JUnit XML");
    let tags = elements(&junit);
    assert_eq!(tags.iter().filter(|tag| *tag == "testcase").count(), 2, "{junit}");
    assert_eq!(tags.iter().filter(|tag| *tag == "failure").count(), 1, "{junit}");
    let tap = std::fs::read_to_string(place.path("t.tap")).expect("TAP");
    assert!(tap.starts_with("TAP version 13\n1..2\nnot ok 1 - a<&>\n"), "{tap}");
    assert!(tap.contains("\nok 2 - b\n"), "{tap}");
}

/// The names of an XML document's elements; panics unless each is closed where it must be, and no `<` or bare
/// `&` stands in a text.
fn elements(xml: &str) -> Vec<String> {
    let (mut open, mut all) = (Vec::<String>::new(), Vec::new());
    let mut rest = xml;
    while let Some(at) = rest.find('<') {
        let text = &rest[..at];
        for entity in text.split('&').skip(1) {
            let known = ["lt;", "gt;", "amp;", "quot;", "apos;", "#"];
            assert!(known.iter().any(|known| entity.starts_with(known)), "&{entity}");
        }
        if let Some(data) = rest[at..].strip_prefix("<![CDATA[") {
            rest = &data[data.find("]]>").expect("the end of CDATA") + 3..];
            continue;
        }
        let end = at + rest[at..].find('>').expect("the end of a tag");
        let tag = &rest[at + 1..end];
        rest = &rest[end + 1..];
        assert!(!tag.contains('<'), "<{tag}>");
        if tag.starts_with(['?', '!']) {
            continue;
        }
        if let Some(name) = tag.strip_prefix('/') {
            assert_eq!(open.pop().as_deref(), Some(name), "{xml}");
            continue;
        }
        let name = tag.split([' ', '/', '\n']).next().expect("a name").to_owned();
        all.push(name.clone());
        if !tag.ends_with('/') {
            open.push(name);
        }
    }
    assert!(open.is_empty(), "not closed: {open:?}");
    all
}

#[test]
fn an_untrustworthy_run_is_inconclusive_and_tried_again() {
    if !have_root() {
        return;
    }
    // No machine is never late.
    let strict = "nodes: { 'a,b': { kind: netns } }
links: [{ pair: [a, b], delay: 1ms, ipv4: 10.0.0.0/24 }]
tasks: [{ name: ping, run: { a: ping -c 3 -i 0.05 b } }]
verdict: { degraded_lateness_p99: 1ns, invalid_lateness_p99: 1ns }
";
    let place = suite(&[("strict.yaml", strict)]);
    let ended = place.call(&["test", "suite", "--retries", "1", "--junit", "j.xml"]).expect(3);
    says(&ended.text(), &["INCONCLUSIVE", "(2 attempts)", "verdict   invalid", "1 inconclusive"]);
    let junit = std::fs::read_to_string(place.path("j.xml")).expect("JUnit XML");
    assert!(elements(&junit).contains(&"error".to_owned()), "{junit}");
}

#[test]
fn an_interrupted_suite_ends_its_runs_and_leaves_out_the_rest() {
    if !have_root() {
        return;
    }
    let long = "nodes: { a: { kind: netns } }\ntasks: [{ name: wait, run: { a: sleep 100 }, timeout: 120s }]\n";
    let place = suite(&[("a.yaml", long), ("b.yaml", PASSES)]);
    let mut started =
        place.start(place.tapestry(&["test", "suite", "--jobs", "1", "--out", "out"]));
    let out = place.path("out/a");
    started.wait_for("the task", |_| common::has_event(&out, "task-started", "wait").then_some(()));
    started.signal(Signal::SIGINT);
    let ended = started.end().expect(130);
    says(&ended.text(), &["0 passed", "2 not run"]);
}

fn regression() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("topologies/regression")
}

#[test]
fn the_regression_suite_is_valid() {
    let place = Place::new();
    let suite = regression();
    let listed = place.call(&["test", &suite.to_string_lossy(), "--list"]).expect(0).text();
    let files = std::fs::read_dir(&suite).expect("the suite");
    let files = files.filter(|entry| entry.as_ref().is_ok_and(|entry| entry.path().is_file()));
    assert_eq!(listed.lines().count(), files.count(), "{listed}");
    says(
        &listed,
        &["ospf-bird ", "ospf-frr", "bgp-bird", "babel", "spanning-tree-simulated", "virtual"],
    );
}

/// Runs scenarios of the regression suite; whether a run can be trusted is not asked on a busy machine.
fn scenarios_pass(names: &[&str]) {
    let suite = regression().to_string_lossy().into_owned();
    let ended = Place::new().call(&[&["test", &suite, "--json"], names].concat());
    assert!(matches!(ended.code(), 0 | 3), "{}\n{}", ended.text(), ended.stderr);
    let tested: Value = serde_json::from_slice(&ended.stdout).expect("JSON");
    for test in tested.as_array().expect("a list") {
        if test["outcome"] == "inconclusive" {
            common::not_tested(&format!("{}: {}", test["name"], test["report"]));
        }
    }
    assert_eq!(tested.as_array().map(Vec::len), Some(names.len()));
}

#[test]
fn simulated_scenarios_pass() {
    scenarios_pass(&["tcp-lossy-simulated", "spanning-tree-simulated"]);
}

#[test]
fn quick_scenarios_with_real_daemons_pass() {
    if !have_root() {
        return;
    }
    let needs: [(&str, &[&str]); 4] = [
        ("bgp-bird", &["bird"]),
        ("dhcp", &["dnsmasq", "udhcpc"]),
        ("http-load", &["lighttpd", "ab"]),
        ("ipv6-ra", &["radvd"]),
    ];
    let able = needs.iter().filter(|(_, programs)| programs.iter().all(|name| have_program(name)));
    let names: Vec<&str> = able.map(|(name, _)| *name).collect();
    if !names.is_empty() {
        scenarios_pass(&names);
    }
}
