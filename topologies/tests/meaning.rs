//! What a file means: parameters, ranges, types, links, addresses, tasks, includes.

use std::path::Path;

use tapestry_core::{ByteCount, DataRate, SimTime, SyncPolicy};
use tapestry_topologies::{
    Accel, Attach, Channel, NodeKind, Pick, Queue, QueueLimit, RedUnit, Take, Topology, load,
    load_str,
};

fn topology(text: &str) -> Topology {
    with(text, &[])
}

fn with(text: &str, sets: &[(&str, &str)]) -> Topology {
    let sets: Vec<_> = sets.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
    load_str("net.yaml", text, &sets, Path::new(""))
        .unwrap_or_else(|wrong| panic!("{:?}", miette::Report::new(wrong)))
}

fn names(topology: &Topology) -> Vec<&str> {
    topology.nodes.iter().map(|node| node.name.as_str()).collect()
}

fn links(topology: &Topology) -> Vec<String> {
    (0..topology.links.len()).map(|at| topology.endpoint_names(at).join(" ")).collect()
}

fn ipv4(topology: &Topology) -> Vec<String> {
    let interfaces = topology.nodes.iter().flat_map(|node| &node.interfaces);
    interfaces.map(|interface| format!("{:?}", interface.ipv4)).collect()
}

#[test]
fn defaults_are_those_of_the_reference() {
    let topology = topology("nodes: {a: , b: }\nlinks: [{pair: [a, b]}]\n");
    assert_eq!((topology.name.as_str(), topology.seed, topology.time_limit), ("net", 1, None));
    assert_eq!(topology.sync, SyncPolicy::BestEffort);
    let NodeKind::Qemu(qemu) = &topology.nodes[0].kind else { panic!("qemu is the default") };
    assert_eq!((qemu.accel, qemu.attach, qemu.vcpus), (Accel::Auto, Attach::Auto, 1));
    assert_eq!(
        (qemu.image.as_str(), qemu.machine.as_str(), qemu.os.as_str()),
        ("debian", "pc", "")
    );
    assert_eq!(qemu.boot_timeout, SimTime::from_secs(120));
    let link = &topology.links[0];
    assert_eq!((link.name.as_str(), link.channel, link.rate), ("a--b", Channel::Csma, None));
    assert_eq!((link.delay, link.mtu), (SimTime::ZERO, 1500));
    assert_eq!(link.queue, Queue::DropTail { limit: QueueLimit::Frames(100) });
    assert_eq!(topology.nodes[1].interfaces[0].mac.to_string(), "02:00:00:02:00:00");
}

#[test]
fn parameters_build_on_each_other_and_set_replaces_them() {
    let text = "params: {n: 3, last: \"${n - 1}\", label: \"x${n}\"}\nnodes:\n  n[0-${last}]: {kind: netns}\n";
    assert_eq!(names(&topology(text)), ["n0", "n1", "n2"]);
    let topology = with(text, &[("n", "2"), ("label", "7")]);
    assert_eq!(names(&topology), ["n0", "n1"]);
    let params = serde_json::to_string(&topology.params).unwrap();
    assert_eq!(params, r#"{"n":2,"last":1,"label":"7"}"#);
}

#[test]
fn index_and_node_stand_for_the_node_at_hand() {
    let text = "nodes:\n  r[1-3]: {kind: netns, hostname: \"h-${node}\", position: [\"${index * 10}\", 5]}\n";
    let topology = topology(text);
    assert_eq!(topology.nodes[2].hostname, "h-r3");
    assert_eq!(topology.nodes[2].position, Some([20.0, 5.0, 0.0]));
}

#[test]
fn a_nodes_key_beats_its_types_and_a_type_its_own() {
    let text = "types:\n  big: {type: base, memory: 1GiB}\n  base: {memory: 64MiB, vcpus: 2, init: [echo base]}\n\
                nodes:\n  a: {type: big, init: echo a}\n  b: {type: base, memory: 32MiB}\n";
    let topology = topology(text);
    let memory = |at: usize| match &topology.nodes[at].kind {
        NodeKind::Qemu(qemu) => (qemu.memory.to_string(), qemu.vcpus),
        other => panic!("{other:?}"),
    };
    assert_eq!(memory(0), ("1GiB".to_owned(), 2));
    assert_eq!(memory(1), ("32MiB".to_owned(), 2));
    assert_eq!(
        (&topology.nodes[0].init[0][..], &topology.nodes[1].init[0][..]),
        ("echo a", "echo base")
    );
}

#[test]
fn shapes_join_what_they_say() {
    let of = |link: &str| {
        links(&topology(&format!("nodes: {{\"n[0-5]\": {{kind: hub}}}}\nlinks: [{{{link}}}]\n")))
    };
    assert_eq!(of("chain: \"n[0-2]\""), ["n0:eth0 n1:eth0", "n1:eth1 n2:eth0"]);
    assert_eq!(of("ring: \"n[0-2]\""), ["n0:eth0 n1:eth0", "n1:eth1 n2:eth0", "n2:eth1 n0:eth1"]);
    assert_eq!(of("lan: \"n[0-2]\""), ["n0:eth0 n1:eth0 n2:eth0"]);
    assert_eq!(
        of("star: {center: n5, leaves: [n0, \"n[2-3]\"]}"),
        ["n5:eth0 n0:eth0", "n5:eth1 n2:eth0", "n5:eth2 n3:eth0"]
    );
    assert_eq!(
        of("tree: {nodes: \"n[0-4]\"}"),
        ["n0:eth0 n1:eth0", "n0:eth1 n2:eth0", "n1:eth1 n3:eth0", "n1:eth2 n4:eth0"]
    );
    assert_eq!(
        of("grid: {nodes: \"n[0-4]\", columns: 3}"),
        [
            "n0:eth0 n1:eth0",
            "n0:eth1 n3:eth0",
            "n1:eth1 n2:eth0",
            "n1:eth2 n4:eth0",
            "n3:eth1 n4:eth1"
        ]
    );
    assert_eq!(of("mesh: \"n[0-2]\""), ["n0:eth0 n1:eth0", "n0:eth1 n2:eth0", "n1:eth1 n2:eth1"]);
}

#[test]
fn link_names_are_given_or_derived_and_unique() {
    let text = "nodes: {\"n[0-2]\": {kind: hub}}\nlinks:\n  - {pair: [n0, n1]}\n  - {pair: [n0, n1]}\n  - {lan: \"n[0-2]\"}\n  - {name: c, chain: \"n[0-2]\"}\n  - {name: p, pair: [n0, n2]}\n";
    let topology = topology(text);
    let names: Vec<&str> = topology.links.iter().map(|link| link.name.as_str()).collect();
    assert_eq!(names, ["n0--n1", "n0--n1-2", "lan0", "c-0", "c-1", "p"]);
}

#[test]
fn interfaces_keep_the_names_the_file_gives() {
    let text = "nodes: {a: {kind: netns}, b: {kind: netns}, c: {kind: netns}}\nlinks:\n  - {pair: [\"a:eth1\", b], mtu: 9000}\n  - {pair: [a, \"c:wan\"]}\n  - {pair: [a, b]}\n";
    let topology = topology(text);
    assert_eq!(links(&topology), ["a:eth1 b:eth0", "a:eth0 c:wan", "a:eth2 b:eth1"]);
    let of: Vec<_> =
        topology.nodes[0].interfaces.iter().map(|i| (i.name.as_str(), i.link, i.mtu)).collect();
    assert_eq!(
        of,
        [("eth0", 1, 1500), ("eth1", 0, 9000), ("eth2", 2, 1500)],
        "in the order of the kernel"
    );
    for (at, link) in topology.links.iter().enumerate() {
        for (endpoint, end) in link.endpoints.iter().enumerate() {
            let interface = &topology.nodes[end.node].interfaces[end.interface];
            assert_eq!(
                (interface.link, interface.endpoint),
                (at, endpoint),
                "both directions agree"
            );
        }
    }
}

#[test]
fn subnets_fill_what_has_no_address() {
    let text = "nodes:\n  a: {kind: netns, interfaces: {eth0: {ipv4: 10.0.0.2/24}}}\n  b: {kind: netns}\n  sw: {kind: bridge}\n  c: {kind: netns}\nlinks: [{lan: [c, sw, b, a], ipv4: 10.0.0.0/24, ipv6: fd00::/64}]\n";
    let topology = topology(text);
    assert_eq!(
        ipv4(&topology),
        ["[10.0.0.2/24]", "[10.0.0.1/24]", "[]", "[10.0.0.3/24]"],
        "in the order of nodes"
    );
    assert_eq!(format!("{:?}", topology.nodes[3].interfaces[0].ipv6), "[fd00::3/64]");
}

#[test]
fn each_link_of_a_shape_can_have_its_own_subnet() {
    let text = "nodes: {\"n[0-2]\": {kind: netns}}\nlinks: [{chain: \"n[0-2]\", ipv4: {from: 10.1.0.0/16, per_link: 30}, ipv6: {from: \"fd00::/48\", per_link: 64}}]\n";
    let topology = topology(text);
    assert_eq!(
        ipv4(&topology),
        ["[10.1.0.1/30]", "[10.1.0.2/30]", "[10.1.0.5/30]", "[10.1.0.6/30]"]
    );
    assert_eq!(format!("{:?}", topology.nodes[2].interfaces[0].ipv6), "[fd00:0:0:1::2/64]");
}

#[test]
fn two_bridged_links_share_a_subnet() {
    let text = "nodes: {a: {kind: netns}, sw: {kind: bridge}, b: {kind: netns}}\nlinks: [{pair: [a, sw], ipv4: 10.0.0.0/24}, {pair: [sw, b], ipv4: 10.0.0.0/24}]\n";
    assert_eq!(ipv4(&topology(text)), ["[10.0.0.1/24]", "[]", "[]", "[10.0.0.2/24]"]);
}

#[test]
fn hardware_addresses_give_way_to_those_of_the_file() {
    let text = "nodes: {a: {kind: netns}, b: {kind: netns, interfaces: {eth0: {mac: \"02:00:00:01:00:00\"}}}}\nlinks: [{pair: [a, b]}]\n";
    let topology = topology(text);
    let macs: Vec<String> =
        topology.nodes.iter().map(|node| node.interfaces[0].mac.to_string()).collect();
    assert_eq!(macs, ["02:01:00:01:00:00", "02:00:00:01:00:00"]);
}

#[test]
fn tasks_in_short_and_in_long() {
    let text = r#"
params: {n: 2}
nodes: {"h[0-1]": {kind: netns}, "g[0-1]": {kind: netns}}
links: [{lan: "h[0-1],g[0-1]", ipv4: 10.0.0.0/24}]
tasks:
  - name: serve
    run:
      h0: {name: srv, command: "serve $PORT $${HOME}", background: true, ready: listening}
  - name: go
    when: "${n > 1}"
    timeout: 2min
    run:
      "g[0-1]": echo ${node} ${index} ${ipv4('h0')} ${mac('h0', 'eth0')}
      h1:
        - {command: run, status: any, timeout: 5s}
        - {command: watch, background: true}
    stop: [srv, h1-1]
    metrics:
      a: {from: h1, json: /x, unit: ms}
      b: {from: srv, regex: 'n=(\d+)', pick: sum, default: 0}
    expect: "${a < n}"
  - name: last
    run: {h0: "true"}
    metrics: {c: '(\d+)'}
metrics:
  d: "${a + c}"
  e: {value: "${d * 2}", unit: ms}
expect: ["${e > d}", "${b == 0}"]
"#;
    let topology = topology(text);
    let (serve, go) = (&topology.tasks[0].commands[0], &topology.tasks[1]);
    assert_eq!(serve.text, "serve $PORT ${HOME}");
    assert!(
        serve.background
            && serve.expect_status == Some(0)
            && serve.ready.as_deref() == Some("listening")
    );
    let commands: Vec<_> =
        go.commands.iter().map(|c| (c.name.as_str(), c.text.as_str(), c.expect_status)).collect();
    assert_eq!(
        commands,
        [
            ("g0", "echo g0 0 10.0.0.1 02:00:00:01:00:00", Some(0)),
            ("g1", "echo g1 1 10.0.0.1 02:00:00:01:00:00", Some(0)),
            ("h1", "run", None),
            ("h1-1", "watch", Some(0)),
        ]
    );
    assert_eq!((go.timeout, go.when.as_deref()), (SimTime::from_secs(120), Some("n > 1")));
    assert_eq!(go.stop, ["srv", "h1-1"]);
    assert_eq!(go.metrics["a"].take, Take::JsonPointer("/x".to_owned()));
    assert_eq!(
        go.metrics["b"].take,
        Take::Regex { pattern: r"n=(\d+)".to_owned(), pick: Pick::Sum }
    );
    assert_eq!(go.metrics["b"].default, Some(0.0));
    assert_eq!(topology.tasks[2].metrics["c"].from, "h0");
    assert_eq!(
        (topology.metrics["e"].expression.as_str(), topology.metrics["e"].unit.as_str()),
        ("d * 2", "ms")
    );
    assert_eq!(topology.expect.len(), 2);
}

#[test]
fn routes_bridges_and_keep() {
    let text = r"
nodes:
  a:
    kind: netns
    forwarding: true
    bridges: {br0: {ports: [eth0, eth1], stp: true, ipv4: [10.0.0.1/24, 10.9.0.1/24]}}
    routes: [{to: default, via: fd00::1}, {to: 10.2.0.0/16, dev: br0}]
    keep: /var/log
  b: {kind: host}
  r: {kind: router}
links: [{pair: [a, b]}, {pair: [a, r]}]
";
    let topology = topology(text);
    let node = &topology.nodes[0];
    assert!(node.forwarding && node.bridges[0].stp && topology.nodes[2].forwarding);
    assert_eq!(format!("{:?}", node.bridges[0].ipv4), "[10.0.0.1/24, 10.9.0.1/24]");
    assert_eq!(node.routes[0].to.to_string(), "::/0");
    assert_eq!((node.routes[1].via, node.routes[1].dev.as_deref()), (None, Some("br0")));
    assert_eq!(node.keep, [Path::new("/var/log")]);
}

#[test]
fn includes_come_first_and_count_once() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir(folder.path().join("sub")).unwrap();
    let write = |name: &str, text: &str| std::fs::write(folder.path().join(name), text).unwrap();
    write(
        "main.yaml",
        "include: [sub/types.yaml, sub/more.yaml]\nparams: {rate: \"${base}Mbit/s\"}\nnodes: {b: {type: t}}\nlinks: [{pair: [a, b], rate: \"${rate}\"}]\n",
    );
    write("sub/types.yaml", "name: ignored\nparams: {base: 5}\ntypes: {t: {kind: netns}}\n");
    write("sub/more.yaml", "include: types.yaml\nnodes: {a: {type: t}}\n");
    let topology =
        load(&folder.path().join("main.yaml"), &[("base".to_owned(), "7".to_owned())]).unwrap();
    assert_eq!((topology.name.as_str(), names(&topology)), ("main", vec!["a", "b"]));
    assert_eq!(topology.links[0].rate, Some("7Mbit/s".parse::<DataRate>().unwrap()));
    let params: Vec<&String> = topology.params.keys().collect();
    assert_eq!(params, ["base", "rate"]);
}

#[test]
fn a_resolved_topology_survives_its_manifest() {
    let text = "params: {n: 2, r: 1.5, b: true}\nsync: hard-limit=20ms\ntime_limit: 90s\nnodes: {\"n[0-1]\": {}}\nlinks: [{pair: [n0, n1], rate: 10Mbit/s, ipv4: 10.0.0.0/24, ipv6: \"fd00::/64\"}]\n";
    let topology = topology(text);
    let json = serde_json::to_string(&topology).unwrap();
    assert_eq!(serde_json::from_str::<Topology>(&json).unwrap(), topology);
}

#[test]
fn twenty_thousand_nodes_are_read_in_a_breath() {
    let text = "nodes: {\"n[0-19999]\": {kind: hub, position: [\"${index}\", 0]}}\nlinks: [{chain: \"n[0-19999]\"}]\n";
    let topology = topology(text);
    assert_eq!((topology.nodes.len(), topology.links.len()), (20_000, 19_999));
    let macs: std::collections::HashSet<_> =
        topology.nodes.iter().flat_map(|node| &node.interfaces).map(|i| i.mac).collect();
    assert_eq!(macs.len(), 2 * 19_999);
}

/// The queue of a link of 10 Mbit/s with 40 ms of delay.
fn queue(value: &str) -> Queue {
    let text = format!(
        "params: {{d: codel, n: 7}}\nnodes: {{a: {{}}, b: {{}}}}\nlinks:\n- {{pair: [a, b], rate: 10Mbit/s, delay: 40ms{value}}}\n"
    );
    load_str("net.yaml", &text, &[], Path::new("")).unwrap().links[0].queue.clone()
}

#[test]
fn a_queue_is_a_bandwidth_delay_product_unless_the_file_says_otherwise() {
    let frames = |frames| Queue::DropTail { limit: QueueLimit::Frames(frames) };
    // 10 Mbit/s in 80 ms are 800,000 bits, or 65.9 frames of 1,518 bytes; 100 are the least.
    assert_eq!(queue(""), frames(100));
    for (rate, delay, expected) in [
        ("10Mbit/s", "80ms", 132),
        ("1Gbit/s", "40ms", 6_588),
        ("1Gbit/s", "0ms", 100),
        ("unlimited", "1s", 100),
        ("1Tbit/s", "10s", 1_000_000),
    ] {
        let text = format!(
            "nodes: {{a: {{}}, b: {{}}}}\nlinks: [{{pair: [a, b], rate: {rate}, delay: {delay}}}]\n"
        );
        let topology = load_str("net.yaml", &text, &[], Path::new("")).unwrap();
        assert_eq!(topology.links[0].queue, frames(expected), "{rate} {delay}");
    }
}

#[test]
fn queues_by_limit_by_name_and_by_map() {
    let drop_tail = |limit| Queue::DropTail { limit };
    assert_eq!(queue(", queue: 7"), drop_tail(QueueLimit::Frames(7)));
    assert_eq!(queue(", queue: '${n * 2}'"), drop_tail(QueueLimit::Frames(14)));
    assert_eq!(
        queue(", queue: 64KiB"),
        drop_tail(QueueLimit::Bytes(ByteCount::from_bytes(65_536)))
    );
    assert_eq!(queue(", queue: 20ms"), drop_tail(QueueLimit::Time(SimTime::from_millis(20))));
    assert_eq!(queue(", queue: {limit: 9}"), drop_tail(QueueLimit::Frames(9)));
    let Queue::Codel(codel) = queue(", queue: codel") else { panic!() };
    assert_eq!(
        (codel.target, codel.interval),
        (SimTime::from_millis(5), SimTime::from_millis(100))
    );
    assert!(!codel.ecn);
    // A discipline that is computed may stand beside the parameters of another.
    let Queue::Codel(codel) = queue(", queue: {discipline: '${d}', flows: 3, ecn: true}") else {
        panic!()
    };
    assert!(codel.ecn);
    let Queue::FqCodel(fq) = queue(", mtu: 9000, queue: {discipline: fq-codel, target: 1ms}")
    else {
        panic!()
    };
    assert_eq!((fq.flows, fq.quantum.as_bytes()), (1_024, 9_014));
    assert_eq!((fq.codel.target, fq.codel.ecn), (SimTime::from_millis(1), true));
    let Queue::Red(red) = queue(", queue: {discipline: red, adaptive: true}") else { panic!() };
    // 5 ms at 1,250 mean frames a second are 6: below the least.
    assert_eq!((red.min, red.max), (5, 15));
    assert!((red.weight.as_f64() - (1.0 - (-1.0_f64 / 1_250.0).exp())).abs() < 1e-9);
    let Queue::Red(red) = queue(", queue: {discipline: red, min: 9kB, weight: 1%}") else {
        panic!()
    };
    assert_eq!((red.unit, red.min, red.max), (RedUnit::Bytes, 9_000, 27_000));
    let text = ", queue: {discipline: drr, limit: 50, classes: [{dscp: [ef, 34]}, {quantum: 3kB}]}";
    let Queue::Drr { classes } = queue(text) else { panic!() };
    assert_eq!(classes[0].dscp, [46, 34]);
    assert_eq!((classes[0].quantum.as_bytes(), classes[1].quantum.as_bytes()), (1_514, 3_000));
    assert!(classes.iter().all(|class| class.limit == QueueLimit::Frames(50)));
}

#[test]
fn a_resolved_queue_survives_the_manifest() {
    for value in [
        "64KiB",
        "red",
        "codel",
        "fq-codel",
        "pie",
        "{discipline: priority, classes: [{dscp: EF}, {}]}",
    ] {
        let queue = queue(&format!(", queue: {value}"));
        let text = serde_json::to_string(&queue).unwrap();
        assert_eq!(serde_json::from_str::<Queue>(&text).unwrap(), queue, "{text}");
    }
}
