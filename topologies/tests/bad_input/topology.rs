//! Nodes, links, parameters and tasks that do not make sense.

use std::path::Path;

use tapestry_topologies::load_str;

use crate::{NET, assert_one, rendered, summary, wrong, wrong_with};

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
