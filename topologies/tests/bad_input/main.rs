//! What is wrong with a file is said in full: every problem at once, each with its place, the
//! offending text, what was expected and, where one can be guessed, what was meant.

mod files;
mod queues;
mod topology;

use std::path::Path;

use tapestry_topologies::{Diagnostics, load_str};

fn wrong(text: &str) -> Diagnostics {
    wrong_with(text, &[])
}

fn wrong_with(text: &str, sets: &[(&str, &str)]) -> Diagnostics {
    let sets: Vec<_> = sets.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
    match load_str("net.yaml", text, &sets, Path::new("")) {
        Ok(topology) => panic!("this must be refused: {text}\n{topology:?}"),
        Err(diagnostics) => diagnostics,
    }
}

/// As a terminal without colours shows it.
fn rendered(diagnostics: &Diagnostics) -> String {
    use miette::{GraphicalReportHandler, GraphicalTheme};
    let mut out = String::new();
    GraphicalReportHandler::new_themed(GraphicalTheme::unicode_nocolor())
        .with_width(100)
        .render_report(&mut out, diagnostics)
        .unwrap();
    out
}

/// `line text: message` of every problem.
fn summary(diagnostics: &Diagnostics) -> Vec<String> {
    diagnostics
        .problems()
        .iter()
        .map(|problem| match &problem.place {
            Some(place) => format!("{} {:?}: {}", place.line, place.text, problem.message),
            None => problem.message.clone(),
        })
        .collect()
}

/// Nodes and a link, so that only what a test adds is wrong.
const NET: &str = "nodes: {a: {}, b: {}}\nlinks: [{pair: [a, b]}]\n";

fn lines(range: std::ops::Range<usize>, line: impl Fn(usize) -> String) -> String {
    range.map(line).collect::<Vec<_>>().join("\n") + "\n"
}

/// Exactly one problem, and its line and column lead to its text.
fn assert_one(text: &str, expected: &str) {
    let error = wrong(text);
    assert_eq!(summary(&error), [expected], "{text}");
    let place = error.problems()[0].place.as_ref().unwrap();
    let line = text.lines().nth(place.line - 1).unwrap();
    let rest: String = line.chars().skip(place.column - 1).collect();
    assert!(rest.starts_with(&place.text), "{place:?} in {text}");
    assert!(text[place.offset..].starts_with(&place.text), "{place:?} in {text}");
}

#[test]
fn all_errors_come_at_once() {
    let text = r#"
name: bad example
params: {nodes: 3}
sync: strict
nodes:
  "n[0-${nodes-1}]":
    memroy: 1GiB
    vcpus: zero
  sw: {kind: hub, memory: 64MiB}
links:
  - pair: [n0, n7]
    delay: 5
  - lan: "n[0-2]"
    rate: 10Mbps/s
    cahnnel: csma
tasks:
  - name: ping
    run: {n9: ping n0}
    expect: ["${los == 0}"]
"#;
    insta::assert_snapshot!(rendered(&wrong(text)));
}

/// One error of every class: none hides another, and none is said that only follows from another.
#[test]
fn no_class_of_errors_hides_another() {
    let text = r#"name: "bad name"
params:
  broken: "${1 +}"
  bad-name: 1
  nodes: 3
  nodes: 4
types:
  t: {kind: netns, memroy: 1GiB}
nodes:
  "n[0-${nodes - 1}]": {kind: netns}
  "w[5-2]": {}
  "big[0-4000000000]": {}
  Bad_Name: {kind: netns}
  n1: {}
  p: {type: ghost, vcpus: "${broken}"}
  q: {kind: brigde}
  v: {kind: netns, interfaces: {eth9: {}, eth0: {ipv4: 10.9.0.1/24}}}
  u: {kind: netns, interfaces: {eth0: {ipv4: 10.9.0.1/24}}}
  d: {kind: netns, bridges: {br0: {ports: [eth4]}}, routes: [{to: default, dev: eth5}]}
  sw: {kind: hub, memory: 64MiB}
links:
  - {pair: [n0, nowhere], delay: "${delya}ms", rate: fast}
  - {pair: [w3, Bad_Name], ipv4: 10.1.0.0/99}
  - {pair: [v, u], delay: 5, colour: red}
  - {pair: [d, n1], name: same}
  - {pair: [n2, q], name: same}
  - {lan: "n[0-${broken}]", pair: [nobody, n1]}
  - {tree: {nodes: [n0, nothing], fanout: none}}
tasks:
  - name: one
    timeout: soon
    run:
      n0: "echo ${ipv4('v')} ${ipv4('w1')} ${ipv4('n0')} ${ipv4('elsewhere')}"
      noone: {name: server, command: "x ${missing}", background: true}
      sw: ls
    metrics:
      late: {from: absent, regex: "nogroup"}
      half: {from: server, json: pointer}
    expect: ["${late < gone}", "bare"]
  - name: one
    stop: [server, nothing]
    when: "${half < 1 and ghostly}"
metrics:
  nodes: "${1}"
  sum: "${late + half + unheard + broken}"
expect: "${sum < }"
"#;
    let error = wrong_with(text, &[("nodse", "3"), ("nodes", "many")]);
    for problem in error.problems() {
        let unplaced = problem.message.contains("--set");
        assert_eq!(problem.place.is_none(), unplaced, "{problem:?}");
    }
    insta::assert_snapshot!(summary(&error).join("\n"));
}

#[test]
fn what_is_wrong_with_a_value_is_not_said_of_what_uses_it() {
    assert_one(
        "params: {n: \"${1 +}\"}\nnodes: {\"a[0-${n}]\": {}, b: {}}\nlinks: [{pair: [a4, b]}]\nexpect: \"${n > 1}\"\n",
        "1 \"+\": `1 +` is not an expression: unexpected end of input, expected expression",
    );
    assert_one(
        "params: [n]\nnodes: {a: {vcpus: \"${n}\"}}\n",
        "1 \"[n]\": `params` cannot be a list",
    );
    assert_one(
        "nodes: {a: {}, b: {}}\nlinks: [{pair: [a, b], ipv4: 10.0.0.0/99}]\ntasks: [{name: t, run: {a: \"ping ${ipv4('b')}\"}}]\n",
        "2 \"10.0.0.0/99\": the prefix length of `10.0.0.0/99` is not a number from 0 to 32 (key `ipv4`)",
    );
    let background = "nodes: {a: {}}\ntasks:\n- {name: s, run: {\"b[3-1]\": {command: x, background: true}}}\n- {name: t, stop: b1}\n";
    assert_one(background, "3 \"3-1\": the range `3-1` is impossible: it ends below its beginning");
}

#[test]
fn reports_show_nothing_that_a_terminal_would_obey() {
    let text = "nodes:\n  \"a\\0b\": {}\n  \"\\e[31m\": {}\n  x\u{202e}y: {\u{200f}: 1}\nlinks: [{pair: [\u{202e}, b]}]\n";
    let shown = rendered(&wrong(text));
    for escaped in ["\\u{202e}", "\\u{200f}", "\\u{1b}[31m", "a\\0b"] {
        assert!(shown.contains(escaped), "{escaped} is missing:\n{shown}");
    }
    let obeyed = |c: char| {
        (c.is_control() && c != '\n')
            || matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}')
    };
    assert!(!shown.contains(obeyed), "{shown:?}");

    let tabs = rendered(&wrong("nodes: {a: {\tkind: \"net\ts\"}}\n"));
    assert!(tabs.contains("unknown value `net\\ts`") && !tabs.contains('\t'), "{tabs}");

    let long = format!("nodes: {{a: {{memroy: 1GiB, {}}}}}\n", "\u{1b}[2J ".repeat(100_000));
    let shown = rendered(&wrong(&long));
    assert!(!shown.contains(obeyed), "{shown:?}");
    assert!(shown.lines().all(|line| line.chars().count() < 400), "{shown}");
}

#[test]
fn problems_beyond_a_hundred_are_counted() {
    let text = lines(0..500, |n| format!("key{n}: 1"));
    let error = wrong(&text);
    assert_eq!((error.problems().len(), error.omitted()), (100, 401));
    assert_eq!(error.to_string(), "net.yaml: 501 errors, of which the first 100 are shown");
}
