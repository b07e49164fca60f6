//! Bridges and sources: their keys, what they resolve to, and what is wrong with them.

use std::path::Path;

use tapestry_core::SimTime;
use tapestry_topologies::load_str;
use tapestry_topologies::resolved::{BridgeSettings, NodeKind, Source, Topology};

fn read(nodes: &str) -> Result<Topology, Vec<String>> {
    let text = format!(
        "nodes:\n  h: {{ kind: host }}\n  {nodes}\nlinks: [{{ pair: [d, h], ipv4: 10.0.0.0/24 }}]\n"
    );
    load_str("net.yaml", &text, &[], Path::new("")).map_err(|wrong| {
        let line = |problem: &tapestry_topologies::Problem| {
            let place = problem.place.as_ref().map_or("", |place| place.text.as_str());
            format!("{place}: {problem}; {}", problem.expected)
        };
        wrong.problems().iter().map(line).collect()
    })
}

fn source(node: &str) -> Source {
    let topology = read(node).unwrap();
    match &topology.nodes[1].kind {
        NodeKind::Source(source) => source.clone(),
        other => panic!("{other:?}"),
    }
}

#[track_caller]
fn assert_wrong(node: &str, expected: &[&str]) {
    assert_eq!(read(node).unwrap_err(), expected, "{node}");
}

#[test]
fn a_bridge_has_the_standards_settings_unless_told() {
    let settings = |node: &str| match &read(node).unwrap().nodes[1].kind {
        NodeKind::Bridge(settings) => settings.clone(),
        other => panic!("{other:?}"),
    };
    assert_eq!(settings("d: { kind: bridge }"), BridgeSettings::default());
    let told = settings("d: { kind: bridge, stp: true, priority: 4096, ageing: 15s }");
    let expected = BridgeSettings { stp: true, priority: 4_096, ageing: SimTime::from_secs(15) };
    assert_eq!(told, expected);
}

#[test]
fn wrong_settings_of_a_bridge_are_named() {
    assert_wrong(
        "d: { kind: bridge, stp: yes, priority: 65536, ageing: 0s }",
        &[
            "yes: `yes` is not a truth value (key `stp`); expected `true` or `false`",
            "65536: `65536` is out of range (key `priority`); expected a whole number from 0 to 65535",
            "0s: `ageing` is zero: nothing could ever run; expected a time above zero",
        ],
    );
    assert_wrong(
        "d: { kind: hub, stp: true }",
        &["stp: `stp` does not apply to kind `hub`; a key of kind bridge"],
    );
}

#[test]
fn frames_are_described_or_spelt_out() {
    let source = source(
        "d: { kind: source, frames: [
            { hex: 'ffffffffffff 02:00:00:00:00:09 88-B5 CAFE' },
            { at: 1ms, every: 2ms, count: 3, size: 16B, to: 02:00:00:00:00:07, ethertype: 2048 }] }",
    );
    let [hex, sized] = source.frames.as_slice() else { panic!("{source:?}") };
    assert_eq!((hex.at, hex.count), (SimTime::ZERO, 1));
    assert_eq!(hex.bytes.to_string(), "ffffffffffff02000000000988b5cafe");
    // From the interface's own address: the second node's first interface.
    assert_eq!(sized.bytes.to_string(), "02000000000702000002000008000000");
    let instants: Vec<_> = (0..sized.count).map(|number| sized.instant(number)).collect();
    assert_eq!(instants, [1, 3, 5].map(SimTime::from_millis));
}

#[test]
fn wrong_frames_are_named() {
    for (frame, expected) in [
        ("{ hex: 'ff xx' }", "x: `hex` is wrong; expected hexadecimal digits"),
        ("{ hex: 'ff f' }", "f: `hex` is wrong; expected a second digit to this one"),
        ("{ hex: 'ffff' }", "'ffff': the frame has 2 bytes; expected 14 (a header) to 65549 bytes"),
        (
            "{ size: 65550B }",
            "65550B: the frame has 65550 bytes; expected 14 (a header) to 65549 bytes",
        ),
        (
            "{ size: 1515B }",
            "1515B: the frame has 1515 bytes; expected at most 1514: a header and the link's MTU \
             of 1500",
        ),
        (
            "{ at: 1s }",
            "{ at: 1s }: the frame has neither `hex` nor `size`; expected its bytes as `hex: …`, \
             or its length as `size: 60B`",
        ),
        (
            "{ size: 60B, count: 2 }",
            "2: a frame is sent several times, but `every` is missing; expected `every: TIME` \
             beside it",
        ),
        (
            "{ hex: ffffffffffff02000000000988b5, to: 02:00:00:00:00:07 }",
            "02:00:00:00:00:07: `to` belongs to a frame with `size`; `hex` says it all",
        ),
    ] {
        assert_wrong(&format!("d: {{ kind: source, frames: [{frame}] }}"), &[expected]);
    }
    let many = "{ size: 60B, every: 1us, count: 600000 }";
    assert_wrong(
        &format!("d: {{ kind: source, frames: [{many}, {many}] }}"),
        &[&format!(
            "[{many}, {many}]: these are 1200000 frames; expected at most 1000000 of one source"
        )],
    );
}

#[test]
fn a_source_has_one_link_no_addresses_and_no_commands() {
    assert_wrong(
        "d: { kind: source, init: [true], routes: [] }",
        &[
            "init: `init` does not apply to kind `source`; a key of kind qemu, netns, host, router",
            "routes: `routes` does not apply to kind `source`; a key of kind qemu, netns, host, \
             router",
        ],
    );
    assert_wrong(
        "d: { kind: host }\n  s: { kind: source }",
        &["s: the source `s` is on 0 links; expected exactly one link"],
    );
}

#[test]
fn a_capture_that_is_none_is_named() {
    let wrong = read("d: { kind: source, pcap: Cargo.toml }").unwrap_err();
    assert!(wrong[0].starts_with("Cargo.toml: `Cargo.toml`: not a pcap file"), "{wrong:?}");
    let wrong = read("d: { kind: source, pcap: not/there.pcap }").unwrap_err();
    assert!(wrong[0].starts_with("not/there.pcap: cannot read `not/there.pcap`"), "{wrong:?}");
}
