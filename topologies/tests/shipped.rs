//! The shipped files, the schema and the reference agree with the loader.

use std::path::{Path, PathBuf};

use serde_json::Value;
use tapestry_topologies::{NodeKind, Topology, graph, load, load_str, schema};

fn shipped() -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut files: Vec<PathBuf> = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "yaml"))
        .collect();
    files.sort();
    assert!(files.len() >= 5, "{files:?}");
    files
}

fn loaded(path: &Path, sets: &[(&str, &str)]) -> Topology {
    let sets: Vec<_> = sets.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
    load(path, &sets).unwrap_or_else(|wrong| panic!("{:?}", miette::Report::new(wrong)))
}

#[test]
fn every_shipped_file_loads_and_draws() {
    for path in shipped() {
        for kind in ["qemu", "netns"] {
            let topology = loaded(&path, &[("kind", kind)]);
            assert!(
                topology.nodes.iter().all(|node| node.kind.as_str() == kind),
                "{}",
                path.display()
            );
            assert_eq!(topology.name, path.file_stem().unwrap().to_str().unwrap());
            assert!(!topology.description.is_empty() && !topology.tasks.is_empty());
            assert!(graph::svg(&topology).ends_with("</svg>\n"));
        }
    }
}

fn chain(sets: &[(&str, &str)]) -> Topology {
    loaded(&Path::new(env!("CARGO_MANIFEST_DIR")).join("chain.yaml"), sets)
}

#[test]
fn the_chains_interface_is_fixed() {
    let topology = chain(&[]);
    let params = serde_json::to_value(&topology.params).unwrap();
    let expected = serde_json::json!({
        "nodes": 3, "kind": "qemu", "pps": 2000, "seconds": 5, "size": 1470,
        "rate": "unlimited", "delay": "0ms", "attach": "tap-bridge",
    });
    assert_eq!(params, expected);
    for metric in ["sent", "received", "loss", "received_pps", "requested_hop_pps", "hop_pps"] {
        assert!(topology.metrics.contains_key(metric), "{metric}");
    }
}

#[test]
fn the_chain_works_for_any_length_and_kind() {
    for nodes in ["2", "3", "32", "250"] {
        for kind in ["qemu", "netns", "host"] {
            let topology =
                chain(&[("nodes", nodes), ("kind", kind), ("rate", "100Mbit/s"), ("delay", "2ms")]);
            let count: usize = nodes.parse().unwrap();
            assert_eq!((topology.nodes.len(), topology.links.len()), (count, count - 1));
            assert!(topology.links.iter().all(|link| link.rate.is_some()));
            let addresses: Vec<_> = topology
                .nodes
                .iter()
                .flat_map(|node| &node.interfaces)
                .flat_map(|i| &i.ipv4)
                .collect();
            assert_eq!(
                format!("{addresses:?}"),
                "[10.0.0.1/16, 10.0.0.2/16]",
                "only the ends have one"
            );
            for node in &topology.nodes[1..count - 1] {
                assert_eq!(node.interfaces.len(), 2);
                assert!(
                    matches!(node.kind, NodeKind::Bridge(_))
                        || node.bridges[0].ports == ["eth0", "eth1"]
                );
            }
            assert_eq!(
                topology.tasks[2].commands[0].text,
                "iperf -c 10.0.0.2 -u -l 1470 -b 2000pps -t 5"
            );
            assert_eq!(topology.tasks[1].commands[0].node, count - 1);
        }
    }
    let none = load(
        &Path::new(env!("CARGO_MANIFEST_DIR")).join("chain.yaml"),
        &[("nodes".to_owned(), "1".to_owned())],
    );
    assert!(none.unwrap_err().problems()[0].message.contains("impossible"));
}

/// iperf 2.1.8's own words: what the metrics' patterns take from them.
#[test]
fn the_chains_metrics_read_iperf() {
    let value = |topology: &Topology, metric: &str, output: &str| -> Option<f64> {
        let tapestry_topologies::Take::Regex { pattern, .. } =
            &topology.tasks[2].metrics[metric].take
        else {
            panic!("{metric} is a pattern")
        };
        let regex = regex::RegexBuilder::new(pattern).multi_line(true).build().unwrap();
        regex.captures_iter(output).last().map(|found| found[1].parse().unwrap())
    };
    let topology = chain(&[]);
    let client = include_str!("data/iperf-client.txt");
    let server = include_str!("data/iperf-server.txt");
    let lossy = include_str!("data/iperf-server-lossy.txt");
    let silent = include_str!("data/iperf-server-silent.txt");
    assert_eq!(value(&topology, "client_count", client), Some(504.0));
    assert_eq!(value(&topology, "server_total", server), Some(503.0));
    assert_eq!(value(&topology, "server_lost", server), Some(0.0));
    assert_eq!(value(&topology, "server_seconds", server), Some(1.002));
    assert_eq!(value(&topology, "server_total", lossy), Some(503.0));
    assert_eq!(value(&topology, "server_lost", lossy), Some(307.0));
    assert_eq!(value(&topology, "server_seconds", lossy), Some(1.0));
    for metric in ["server_total", "server_lost", "server_seconds"] {
        assert_eq!(value(&topology, metric, silent), None);
        assert!(topology.tasks[2].metrics[metric].default.is_some(), "a silent server is no error");
    }
}

/// Every object of the schema with its place.
fn objects<'s>(at: &'s Value, path: &str, found: &mut Vec<(String, &'s Value)>) {
    match at {
        Value::Object(map) => {
            if map.contains_key("properties") {
                found.push((path.to_owned(), at));
            }
            for (key, value) in map {
                objects(value, &format!("{path}/{key}"), found);
            }
        }
        Value::Array(items) => {
            for (number, value) in items.iter().enumerate() {
                objects(value, &format!("{path}/{number}"), found);
            }
        }
        _ => {}
    }
}

#[test]
fn the_schema_accepts_every_shipped_file_and_refuses_mistakes() {
    let validator = jsonschema::validator_for(&schema()).unwrap();
    for path in shipped() {
        let text = std::fs::read_to_string(&path).unwrap();
        let instance = yaml_to_json(&text);
        let wrong: Vec<String> = validator
            .iter_errors(&instance)
            .map(|error| format!("{}: {error}", error.instance_path()))
            .collect();
        assert!(wrong.is_empty(), "{}: {wrong:#?}", path.display());
    }
    for wrong in [
        "nodes: {a: {memroy: 1GiB}}",
        "nodes: [a]",
        "nodes: {a: {vcpus: many}}",
        "nodes: {a: }\nlinks: [{pair: [a, b], delay: 5}]",
        "nodes: {a: }\nlinks: [{rate: 1Mbit/s}]",
        "nodes: {a: }\nlinks: [{pair: [a, b], lan: [a, b]}]",
        "nodes: {a: }\ntasks: [{run: {a: ls}}]",
        "nodes: {a: {kind: vm}}",
    ] {
        assert!(!validator.is_valid(&yaml_to_json(wrong)), "the schema takes {wrong}");
        assert!(load_str("x.yaml", wrong, &[], Path::new("")).is_err(), "the loader takes {wrong}");
    }
}

/// Enough YAML for the schema: the loader has its own, which keeps places instead of types.
fn yaml_to_json(text: &str) -> Value {
    serde_saphyr::from_str(text).unwrap()
}

#[test]
fn the_reference_names_every_key_and_function() {
    let reference = include_str!("../../docs/topology.md");
    let schema = schema();
    let mut found = Vec::new();
    objects(&schema, "", &mut found);
    let mut keys = 0;
    for (path, object) in found {
        for key in object["properties"].as_object().unwrap().keys() {
            keys += 1;
            assert!(
                reference.contains(&format!("`{key}`")),
                "{path}: `{key}` is not in docs/topology.md"
            );
        }
    }
    assert!(keys > 80, "{keys}");
    for (function, _) in tapestry_topologies::expression::FUNCTIONS {
        assert!(
            reference.contains(&format!("`{function}")),
            "`{function}` is not in docs/topology.md"
        );
    }
}

/// The files in the reference are files: each block that begins with a comment is loaded.
#[test]
fn examples_of_the_reference_load() {
    let reference = include_str!("../../docs/topology.md");
    let mut examples = 0;
    for block in reference.split("```yaml\n").skip(1) {
        let text = block.split("```").next().unwrap();
        if text.contains("nodes:") && !text.contains('…') {
            examples += 1;
            let result = load_str("example.yaml", text, &[], Path::new(""));
            result.unwrap_or_else(|wrong| panic!("{:?}", miette::Report::new(wrong)));
        }
    }
    assert!(examples >= 4, "{examples}");
}
