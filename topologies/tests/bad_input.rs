//! What is wrong with a file is said in full: every problem at once, each with its place, the
//! offending text, what was expected and, where one can be guessed, what was meant.

use std::path::Path;

use tapestry_topologies::{Diagnostics, load, load_str};

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
fn unknown_key() {
    insta::assert_snapshot!(rendered(&wrong("nodes: {a: {memroy: 1GiB}}\n")));
}

#[test]
fn wrong_type() {
    insta::assert_snapshot!(rendered(&wrong("nodes: [a, b]\nlinks: {pair: [a, b]}\n")));
    assert_one(
        "nodes: {a: {vcpus: many}}\n",
        "1 \"many\": `many` is not a whole number (key `vcpus`)",
    );
    assert_one("nodes: {a: {vcpus: 0}}\n", "1 \"0\": `0` is out of range (key `vcpus`)");
    assert_one("nodes: {a: {vcpus: [1]}}\n", "1 \"[1]\": `vcpus` cannot be a list");
    assert_one("nodes: {a: {kind: }}\n", "1 \"\": `kind` cannot be nothing");
    assert_one("nodes: {a: {position: [1]}}\n", "1 \"[1]\": `position` cannot be a list");
}

#[test]
fn missing_unit() {
    insta::assert_snapshot!(rendered(&wrong(&NET.replace("b]}", "b], delay: 5}"))));
}

#[test]
fn unknown_node_in_a_link() {
    insta::assert_snapshot!(rendered(&wrong(
        "nodes: {alice: {}, bob: {}}\nlinks: [{pair: [alice, bop]}]\n"
    )));
}

#[test]
fn duplicates() {
    assert_one(
        "nodes: {a: {}, \"[a]\": {}}\n",
        "1 \"a\": `a` is not a number or a range of numbers such as `0-9`",
    );
    assert_one(
        "nodes: {a1: {}, \"a[0-1]\": {}}\n",
        "1 \"\\\"a[0-1]\\\"\": the node `a1` is declared twice",
    );
    assert_one("nodes: {a: {}, a: {}}\n", "1 \"a\": the key `a` is written twice");
    assert_one(
        "nodes: {\"[0-1]x\": {}}\nlinks: [{name: l, pair: [0x, 1x]}, {name: l, pair: [0x, 1x]}]\n",
        "2 \"l\": there are two links named `l`",
    );
    assert_one(
        "nodes: {a: {}}\ntasks: [{name: t, run: {a: x}}, {name: t, run: {a: x}}]\n",
        "2 \"t\": there are two tasks named `t`",
    );
    assert_one(
        "params: {x: 1}\nnodes: {a: {}}\nmetrics: {x: \"${1}\"}\n",
        "3 \"x\": `x` is the name of a parameter already",
    );
}

#[test]
fn duplicate_addresses() {
    let text = r#"
nodes:
  a: {interfaces: {eth0: {mac: "02:00:00:00:00:09", ipv4: 10.0.0.1/24, ipv6: [fd00::1/64, fe80::1/64]}}}
  b: {interfaces: {eth0: {mac: "02:00:00:00:00:09", ipv4: 10.0.0.1/24, ipv6: [fd00::1/64, fe80::1/64]}}}
links: [{pair: [a, b]}]
"#;
    insta::assert_snapshot!(rendered(&wrong(text)));
}

#[test]
fn an_interface_used_twice() {
    assert_one(
        "nodes: {a: {}, b: {}, c: {}}\nlinks: [{pair: [\"a:eth3\", b]}, {pair: [\"a:eth3\", c]}]\n",
        "2 \"\\\"a:eth3\\\"\": the interface `a:eth3` is used twice",
    );
    assert_one(
        "nodes: {a: {}, b: {}}\nlinks: [{lan: [a, b, a]}]\n",
        "2 \"a\": the node `a` is twice in `lan`",
    );
}

#[test]
fn impossible_ranges() {
    insta::assert_snapshot!(rendered(&wrong_with(
        "params: {nodes: 3}\nnodes:\n  n0: {}\n  \"n[1-${nodes-2}]\": {}\n",
        &[("nodes", "1")]
    )));
    assert_one(
        "nodes: {\"n[5-2]\": {}}\n",
        "1 \"5-2\": the range `5-2` is impossible: it ends below its beginning",
    );
}

#[test]
fn huge_ranges_are_refused() {
    assert_one(
        "nodes: {\"n[0-99999999]\": {}}\n",
        "1 \"0-99999999\": `n[0-99999999]` names more than 20000 nodes, the most a topology may have",
    );
    assert_one(
        "nodes: {\"n[0-4000000000]\": {}}\n",
        "1 \"0-4000000000\": `n[0-4000000000]` names more than 20000 nodes, the most a topology may have",
    );
    let many = "nodes: {\"a[0-19999]\": {kind: hub}, \"b[0-1]\": {kind: hub}}\n";
    assert_one(many, "1 \"\\\"b[0-1]\\\"\": the topology has more than 20000 nodes");
    let mesh = "nodes: {\"a[0-19999]\": {kind: hub}}\nlinks: [{mesh: \"a[0-19999]\"}]\n";
    assert_one(mesh, "2 \"\\\"a[0-19999]\\\"\": a mesh of 20000 nodes has more than 100000 links");
}

#[test]
fn keys_of_another_kind() {
    assert_one(
        "nodes: {a: {kind: hub, memory: 1GiB}}\n",
        "1 \"memory\": `memory` does not apply to kind `hub`",
    );
    let ours = "params: {kind: hub}\nnodes: {a: {kind: \"${kind}\", memory: 1GiB}}\n";
    assert!(
        load_str("net.yaml", ours, &[], Path::new("")).is_ok(),
        "the node is written for several kinds"
    );
}

#[test]
fn parameters() {
    insta::assert_snapshot!(rendered(&wrong_with(
        "params: {nodes: 3, kind: qemu}\nnodes: {a: {}}\n",
        &[("node", "5"), ("nodes", "many")]
    )));
    assert_one(
        "params: {a: \"${b}\", b: 1}\nnodes: {a: {}}\n",
        "1 \"b\": unknown name `b` in the expression `b`",
    );
    assert_one(
        "params: {a-b: 1}\nnodes: {a: {}}\n",
        "1 \"a-b\": `a-b` is not a name that expressions can use",
    );
    assert_one(
        "params: {\"${a}\": 1}\nnodes: {a: {}}\n",
        "1 \"\\\"${a}\\\"\": `${a}` is not a name that expressions can use",
    );
    assert_one("params: {a: }\nnodes: {a: {}}\n", "1 \"\": `a` cannot be nothing");
}

#[test]
fn a_bad_expression_is_marked_inside_its_scalar() {
    let text = r"
params: {pps: 100}
nodes: {a: {}}
tasks:
  - name: send
    run:
      a: |
        echo start
        iperf -b ${ppss * 2}pps ${HOME}
";
    insta::assert_snapshot!(rendered(&wrong(text)));
    assert_one(
        "params: {n: 1}\nnodes: {\"n${n +}\": {}}\n",
        "2 \"+\": `n +` is not an expression: unexpected end of input, expected expression",
    );
    assert_one(
        "params: {n: 1}\nnodes: {\"n${n / 0}\": {}}\n",
        "2 \"n / 0\": the expression `n / 0` has no value: unable to calculate 1 / 0",
    );
    assert_one("nodes: {a: {os: \"${n\"}}\n", "1 \"${\": `${` without its `}`");
}

#[test]
fn tasks_name_what_exists() {
    let tasks = |tasks: &str| format!("nodes: {{a: {{}}, sw: {{kind: hub}}}}\ntasks:\n{tasks}\n");
    assert_one(
        &tasks("  - {name: t, run: {sw: ls}}"),
        "3 \"sw\": the node `sw` is a hub and runs no commands",
    );
    assert_one(
        &tasks("  - {name: t, stop: [x]}"),
        "3 \"x\": no background command `x` is running here",
    );
    assert_one(
        &tasks("  - {name: t, run: {a: ls}, metrics: {m: {from: b, regex: '(x)'}}}"),
        "3 \"b\": no command `b` ends in this task",
    );
    assert_one(
        &tasks("  - {name: t, run: {a: ls}, metrics: {m: 'x'}}"),
        "3 \"'x'\": the pattern `x` has no group",
    );
    assert_one(
        &tasks("  - {name: t, run: {a: ls}, metrics: {m: '(x'}}"),
        "3 \"'(x'\": `(x` is not a regular expression: unclosed group (key `m`)",
    );
    assert_one(
        &tasks("  - {name: t, run: {a: [ls, ls]}}"),
        "3 \"ls\": the node `a` has two foreground commands in one task",
    );
    assert_one(
        &tasks("  - {name: t, run: {a: ls}, metrics: {m: '(x)'}, expect: ['${n > 1}']}"),
        "3 \"n\": unknown name `n` in the expression `n > 1`",
    );
    assert_one(
        &tasks("  - {name: t, run: {a: ls}, expect: 'm > 1'}"),
        "3 \"'m > 1'\": `m > 1` is not one expression",
    );
    assert_one(&tasks("  - {run: {a: ls}}"), "3 \"{run: {a: ls}}\": a task needs the key `name`");
}

#[test]
fn links_say_what_they_join() {
    let link = |link: &str| format!("nodes: {{\"n[0-3]\": {{}}}}\nlinks: [{link}]\n");
    assert_one(
        &link("{rate: unlimited}"),
        "2 \"{rate: unlimited}\": the link does not say what it joins",
    );
    assert_one(
        &link("{pair: [n0, n1], lan: [n2, n3]}"),
        "2 \"{pair: [n0, n1], lan: [n2, n3]}\": the link has both `pair` and `lan`",
    );
    assert_one(
        &link("{pair: [n0, n1, n2]}"),
        "2 \"[n0, n1, n2]\": `pair` joins exactly 2 nodes, found 3",
    );
    assert_one(&link("{chain: n0}"), "2 \"n0\": `chain` joins at least 2 nodes, found 1");
    assert_one(
        &link("{lan: \"n[0-2]\", channel: point-to-point}"),
        "2 \"point-to-point\": a point-to-point link joins exactly two interfaces",
    );
    assert_one(
        &link("{grid: {nodes: \"n[0-3]\"}}"),
        "2 \"{nodes: \\\"n[0-3]\\\"}\": a grid needs the key `columns`",
    );
}

#[test]
fn subnets_fit() {
    let link = |link: &str| format!("nodes: {{\"n[0-3]\": {{}}}}\nlinks: [{link}]\n");
    assert_one(
        &link("{chain: \"n[0-3]\", ipv4: 10.0.0.0/24}"),
        "2 \"10.0.0.0/24\": the node `n1` would have two interfaces in the subnet `10.0.0.0/24`",
    );
    assert_one(
        &link("{lan: \"n[0-3]\", ipv4: 10.0.0.0/30}"),
        "2 \"10.0.0.0/30\": the subnet `10.0.0.0/30` has no free address left",
    );
    assert_one(
        &link("{lan: \"n[0-3]\", ipv4: 10.0.0.5/24}"),
        "2 \"10.0.0.5/24\": `10.0.0.5/24` is an address, not a subnet",
    );
    assert_one(
        &link("{chain: \"n[0-3]\", ipv4: {from: 10.0.0.0/30, per_link: 31}}"),
        "2 \"10.0.0.0/30\": `10.0.0.0/30` has fewer than 3 subnets of /31",
    );
}

#[test]
fn types_lead_somewhere() {
    assert_one("nodes: {a: {type: x}}\n", "1 \"x\": unknown type `x`");
    let looped = summary(&wrong("types: {x: {type: y}, y: {type: x}}\nnodes: {a: {type: x}}\n"));
    assert_eq!(
        looped,
        [
            "1 \"x\": types name each other in a loop: x → y → x",
            "1 \"y\": types name each other in a loop: y → x → y",
        ]
    );
}

#[test]
fn interfaces_bridges_and_routes_exist() {
    let node =
        |keys: &str| format!("nodes: {{a: {{{keys}}}, b: {{}}}}\nlinks: [{{pair: [a, b]}}]\n");
    assert_one(&node("interfaces: {eth1: {}}"), "1 \"eth1\": no link attaches `eth1` of node `a`");
    assert_one(
        &node("bridges: {br0: {ports: [eth0, eth1]}}"),
        "1 \"br0\": the bridge `br0` has a port `eth1` that `a` has not",
    );
    assert_one(
        &node("bridges: {br0: {ports: eth0}, br1: {ports: eth0}}"),
        "1 \"br1\": `eth0` of `a` is a port of `br0` already",
    );
    assert_one(
        &node("routes: [{to: default}]"),
        "1 \"{to: default}\": the route has neither `via` nor `dev`",
    );
    assert_one(
        &node("routes: [{to: 10.0.0.0/8, dev: eth7}]"),
        "1 \"{to: 10.0.0.0/8, dev: eth7}\": a route of `a` uses `eth7`, which it has not",
    );
    assert_one(
        &node("interfaces: {eth0: {mtu: 9000}}"),
        "1 \"9000\": the MTU 9000 is above the 1500 of the link `a--b`",
    );
}

#[test]
fn yaml_itself() {
    insta::assert_snapshot!(rendered(&wrong("nodes:\n  a: {kind: host\nlinks: []\n")));
    assert_one("name: a\n---\nname: b\n", "2 \"---\": the file holds more than one YAML document");
    insta::assert_snapshot!(rendered(&wrong("types: {t: &t {kind: host}}\nnodes: {a: *t}\n")));
    assert_one(
        "nodes: {a: {os: !!str x}}\n",
        "1 \"x\": YAML tags (`!name`) are not part of the format",
    );
    let bomb = format!(
        "a: &a [x, x]\n{}nodes: {{a: {{}}}}\n",
        lines(1..30, |n| format!("b{n}: &b{n} [*a, *a]"))
    );
    assert!(wrong(&bomb).problems().len() > 30);
}

#[test]
fn deep_nesting_is_refused_quickly() {
    for depth in [20, 200, 20_000] {
        for text in [
            "[".repeat(depth),
            "{a: ".repeat(depth),
            format!("nodes: {}{}", "[".repeat(depth), "]".repeat(depth)),
            lines(0..depth.min(2000), |level| format!("{}a:", " ".repeat(level))),
            "- ".repeat(depth),
            "? ".repeat(depth),
        ] {
            wrong(&text);
        }
    }
}

#[test]
fn empty_files() {
    for text in ["", "\n", "# nothing\n", "---\n", "~\n"] {
        assert_eq!(summary(&wrong(text)).len(), 1, "{text:?}");
    }
    insta::assert_snapshot!(rendered(&wrong("# nothing\n")));
    assert_one("name: x\n", "1 \"name: x\": the topology has no nodes");
}

#[test]
fn files_that_cannot_be_read() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    let message = |path: &Path| summary(&load(path, &[]).unwrap_err()).join("\n");
    assert!(message(&at("none.yaml")).contains("No such file"), "{}", message(&at("none.yaml")));
    assert!(message(folder.path()).contains("is a directory"), "{}", message(folder.path()));

    std::fs::write(at("latin1.yaml"), b"name: caf\xe9\nnodes: {a: {}}\n").unwrap();
    let text = message(&at("latin1.yaml"));
    assert!(
        text.starts_with("1 ") && text.contains("not UTF-8 text: its byte 9 is 0xe9"),
        "{text}"
    );

    let big = std::fs::File::create(at("big.yaml")).unwrap();
    big.set_len(9 << 20).unwrap();
    assert!(message(&at("big.yaml")).contains("larger than 8 MiB"));

    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt as _;
        std::fs::write(at("closed.yaml"), "nodes: {a: {}}\n").unwrap();
        std::fs::set_permissions(at("closed.yaml"), std::fs::Permissions::from_mode(0o000))
            .unwrap();
        if std::fs::read(at("closed.yaml")).is_ok() {
            eprintln!("skipped: this user may read every file");
        } else {
            assert!(message(&at("closed.yaml")).contains("Permission denied"));
        }
    }
}

#[test]
fn a_megabyte_of_random_bytes() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("random.yaml");
    // xorshift: any generator will do, as long as the test is the same each time.
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    let bytes: Vec<u8> = (0..1 << 20).map(|_| (next() >> 32) as u8).collect();
    std::fs::write(&path, &bytes).unwrap();
    assert!(!load(&path, &[]).unwrap_err().problems().is_empty());
    // The same as text: printable bytes and line breaks only.
    let text: String =
        bytes.iter().map(|b| if b % 40 == 0 { '\n' } else { char::from(b % 94 + 33) }).collect();
    wrong(&text);
}

#[test]
fn include_loops_name_the_chain() {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| std::fs::write(folder.path().join(name), text).unwrap();
    write("a.yaml", "include: [b.yaml]\nnodes: {a: {}}\n");
    write("b.yaml", "include: c.yaml\n");
    write("c.yaml", "include: [a.yaml]\n");
    let error = load(&folder.path().join("a.yaml"), &[]).unwrap_err();
    let text = summary(&error).join("\n").replace(&format!("{}/", folder.path().display()), "");
    assert_eq!(
        text,
        "1 \"a.yaml\": files include each other in a loop: a.yaml → b.yaml → c.yaml → a.yaml"
    );
    assert!(error.problems()[0].place.as_ref().unwrap().file.ends_with("c.yaml"));

    write("d.yaml", "include: [none.yaml, \"${x}\"]\nnodes: {a: {}}\n");
    let text = summary(&load(&folder.path().join("d.yaml"), &[]).unwrap_err()).join("\n");
    assert!(
        text.contains("cannot read")
            && text.contains("No such file")
            && text.contains("cannot hold expressions"),
        "{text}"
    );

    write("e.yaml", "include: f.yaml\nnodes: {a: {}}\n");
    write("f.yaml", "nodes: {a: {}}\n");
    let error = load(&folder.path().join("e.yaml"), &[]).unwrap_err();
    assert_eq!(summary(&error), ["2 \"a\": the node `a` is declared twice"]);
}

#[test]
fn problems_beyond_a_hundred_are_counted() {
    let text = lines(0..500, |n| format!("key{n}: 1"));
    let error = wrong(&text);
    assert_eq!((error.problems().len(), error.omitted()), (100, 401));
    assert_eq!(error.to_string(), "net.yaml: 501 errors, of which the first 100 are shown");
}

/// A link of 10 Mbit/s with a queue, on the third line.
fn queue(value: &str) -> String {
    format!(
        "nodes: {{a: {{}}, b: {{}}}}\nlinks:\n- {{pair: [a, b], rate: 10Mbit/s, queue: {value}}}\n"
    )
}

#[test]
fn impossible_queues() {
    for (value, expected) in [
        // Limits.
        ("0", "3 \"0\": a queue of `0` holds nothing (key `queue`)"),
        ("0B", "3 \"0B\": a queue of `0B` holds nothing (key `queue`)"),
        ("0ms", "3 \"0ms\": a queue of `0ms` holds nothing (key `queue`)"),
        ("-1", "3 \"-1\": `-1` is out of range (key `queue`)"),
        ("5000000", "3 \"5000000\": `5000000` is out of range (key `queue`)"),
        ("1.5", "3 \"1.5\": `1.5` is no length of a queue (key `queue`)"),
        ("{limit: 0B}", "3 \"0B\": a queue of `0B` holds nothing (key `limit`)"),
        ("{limit: codel}", "3 \"codel\": `codel` is no length of a queue (key `limit`)"),
        // Disciplines.
        ("coddel", "3 \"coddel\": unknown discipline `coddel` (key `queue`)"),
        ("{discipline: read}", "3 \"read\": unknown value `read` (key `discipline`)"),
        ("[codel]", "3 \"[codel]\": `queue` cannot be a list"),
        ("{discipline: codel, max: 5}", "3 \"max\": `max` is no parameter of `codel`"),
        ("{target: 5ms}", "3 \"target\": `target` is no parameter of `drop-tail`"),
        ("{discipline: pie, tarket: 5ms}", "3 \"tarket\": unknown key `tarket`"),
        // CoDel, FQ-CoDel, PIE.
        (
            "{discipline: codel, target: 100ms}",
            "3 \"100ms\": the target 100ms is not below the interval 100ms",
        ),
        ("{discipline: codel, target: 0ms}", "3 \"0ms\": `target` is zero"),
        (
            "{discipline: fq-codel, interval: 1ms}",
            "3 \"1ms\": the target 5ms is not below the interval 1ms",
        ),
        ("{discipline: fq-codel, flows: 0}", "3 \"0\": `0` is out of range (key `flows`)"),
        ("{discipline: fq-codel, quantum: 1B}", "3 \"1B\": a quantum of that size makes no turns"),
        ("{discipline: pie, update: 0ms}", "3 \"0ms\": `update` is zero"),
        ("{discipline: pie, alpha: -1}", "3 \"-1\": `alpha` is out of range"),
        ("{discipline: pie, ecn_limit: 0%}", "3 \"0%\": `ecn_limit` is zero"),
        // RED.
        (
            "{discipline: red, min: 15, max: 15}",
            "3 \"15\": the threshold `min` (15) is not below `max` (15)",
        ),
        ("{discipline: red, max: 4}", "3 \"4\": the threshold `min` (5) is not below `max` (4)"),
        ("{discipline: red, min: 5, max: 9kB}", "3 \"9kB\": `min` is in another unit than `max`"),
        ("{discipline: red, min: 5ms}", "3 \"5ms\": the threshold `min` is a time"),
        (
            "{discipline: red, max_probability: 0.1}",
            "3 \"0.1\": `0.1` has no unit; write a probability such as `1%` or `0.5%` (key `max_probability`)",
        ),
        (
            "{discipline: red, max_probability: 101%}",
            "3 \"101%\": `101%` is too large; the largest value is 100% (key `max_probability`)",
        ),
        ("{discipline: red, weight: 0%}", "3 \"0%\": `weight` is zero"),
        ("{discipline: red, mean_frame: 0B}", "3 \"0B\": no frame has that mean length"),
        // Classes.
        ("{discipline: priority, classes: []}", "3 \"[]\": the discipline has no classes"),
        (
            "{discipline: drr, classes: [{dscp: EG}]}",
            "3 \"EG\": `EG` is not a code point (key `dscp`)",
        ),
        (
            "{discipline: drr, classes: [{dscp: 64}]}",
            "3 \"64\": `64` is not a code point (key `dscp`)",
        ),
        (
            "{discipline: drr, classes: [{dscp: EF}, {dscp: [AF11, 46]}]}",
            "3 \"46\": the code point `46` is twice in `classes`",
        ),
        (
            "{discipline: drr, classes: [{dscp: EF}, {}, {limit: 5}]}",
            "3 \"{limit: 5}\": a second class without `dscp` gets no frames",
        ),
        (
            "{discipline: drr, classes: [{limit: 0}]}",
            "3 \"0\": a queue of `0` holds nothing (key `limit`)",
        ),
    ] {
        assert_one(&queue(value), expected);
    }
    // A name that is left out of the map, and one that cannot stand alone.
    for (value, expected) in [
        ("priority", "3 \"priority\": the discipline has no classes"),
        ("{discipline: priority}", "3 \"{discipline: priority}\": the discipline has no classes"),
    ] {
        assert_one(&queue(value), expected);
    }
    assert_one(
        "nodes: {a: {}, b: {}}\nlinks:\n- {pair: [a, b], queue: 20ms}\n",
        "3 \"20ms\": a queue with a limit in time is on a link without `rate`",
    );
}

#[test]
fn a_queue_is_told_what_was_meant() {
    for (value, help) in [
        ("coddel", "did you mean `codel`?"),
        ("{discipline: fq_codel}", "did you mean `fq-codel`?"),
        ("{discipline: drr, classes: [{dscp: AF44}]}", "did you mean `AF41`?"),
        ("{discipline: codel, quantum: 300B}", "it has `limit`, `target`, `interval`, `ecn`"),
    ] {
        let error = wrong(&queue(value));
        assert_eq!(error.problems()[0].help.as_deref(), Some(help), "{value}");
        assert!(!error.problems()[0].expected.is_empty());
    }
}
