//! `events:` become changes of links and nodes; what is wrong with them is refused with its place
//! and what was expected.

use std::path::Path;

use tapestry_core::SimTime;
use tapestry_core::link::Parameter;
use tapestry_topologies::{
    Action, Diagnostics, LinkState, Origin, Queue, QueueLimit, Settings, Topology, load_str,
    parse_settings,
};

const NET: &str = "
nodes: { 'a,b,c': { kind: host }, vm: {} }
links:
  - { name: wire, pair: [a, b], channel: point-to-point, delay: 5ms }
  - { name: lan, lan: [a, b, c, vm] }
tasks: [{ name: t, run: { a: 'true' }, metrics: { m: '(1)' } }, { name: u, run: { a: 'true' }, metrics: { later: '(1)' } }]
events:
";

/// The same with a shape of several links.
const CHAIN: &str = "
nodes: { 'n[0-3]': { kind: host } }
links:
  - { name: c, chain: 'n[0-3]', channel: point-to-point, delay: 5ms }
  - { name: wire, pair: [n0, n3], channel: point-to-point }
events:
";

fn read(events: &str) -> Result<Topology, Diagnostics> {
    load_str("net.yaml", &format!("{NET}{events}"), &[], Path::new(""))
}

fn right(events: &str) -> Vec<tapestry_topologies::Event> {
    // A medium cannot be cut.
    let net = NET.replace("[a, b, c, vm]", "[c, vm]");
    load_str("net.yaml", &format!("{net}{events}"), &[], Path::new(""))
        .unwrap_or_else(|wrong| panic!("{:?}", miette::Report::new(wrong)))
        .events
}

/// The one problem: its text in the file and its message.
fn wrong(event: &str) -> (String, String) {
    let wrong = read(&format!("  - {event}\n")).expect_err(event);
    let [problem] = wrong.problems() else { panic!("{event}\n{:?}", miette::Report::new(wrong)) };
    let place = problem.place.as_ref().expect("a place");
    assert_eq!(place.line, 8, "{event}");
    (place.text.clone(), problem.message.clone())
}

#[test]
fn events_are_read() {
    let events = right(
        "  - { at: 1s, link: wire, set: { rate: 1Mbit/s, a->b: { loss: 1% }, backward: { delay: 7ms } } }
  - { after: t, at: 2s, flap: { link: wire, down: 1ms, up: 2ms, times: 3 } }
  - { during: t, pause: 'a,b' }
  - { when: '${m > 1}', partition: { left: a, right: b, rest: [c, vm] } }
  - { at: 3s, heal: [left, rest] }
",
    );
    assert_eq!(events.len(), 5);
    let [Action::Set { link: 0, change }] = events[0].actions.as_slice() else {
        panic!("{:?}", events[0])
    };
    let directions = change.directions.each_ref().map(|direction| &direction.parameters);
    let sets = directions.map(|change| change.set.iter().copied().collect::<Vec<_>>());
    assert_eq!(sets[0], [Parameter::Rate, Parameter::Loss]);
    assert_eq!(sets[1], [Parameter::Rate, Parameter::Delay]);
    assert_eq!(directions[1].to.delay, SimTime::from_millis(7));
    assert_eq!(events[1].from, Origin::After("t".into()));
    assert_eq!(events[1].at, SimTime::from_secs(2));
    assert_eq!(events[2].actions, [Action::Pause { node: 0 }, Action::Pause { node: 1 }]);
    assert_eq!(events[3].when.as_deref(), Some("m > 1"));
    assert_eq!(events[4].actions, [Action::Heal { groups: vec!["left".into(), "rest".into()] }]);
}

#[test]
fn queues_and_the_mtu_are_set_like_everything_else() {
    let events = right(
        "  - { at: 1s, link: wire, set: { mtu: 600, queue: 7, backward: { queue: codel } } }
  - { at: 2s, link: wire, set: { rate: 800Mbit/s, queue: { limit: 2MB }, a->b: { queue: drop-tail } } }
",
    );
    let changes = events.iter().map(|event| match event.actions.as_slice() {
        [Action::Set { link: 0, change }] => change,
        other => panic!("{other:?}"),
    });
    let [first, second]: [_; 2] = changes.collect::<Vec<_>>().try_into().expect("two");
    assert_eq!((first.mtu, second.mtu), (Some(600), None));
    let queue = |limit| Some(Queue::DropTail { limit });
    assert_eq!(first.directions[0].queue, queue(QueueLimit::Frames(7)));
    assert!(matches!(first.directions[1].queue, Some(Queue::Codel(_))));
    // The default is that of the link as it is then: 800 Mbit/s, 5 ms each way, 618 bytes a frame.
    assert_eq!(second.directions[0].queue, queue(QueueLimit::Frames(1_619)));
    let bytes = QueueLimit::Bytes(tapestry_core::ByteCount::from_bytes(2_000_000));
    assert_eq!(second.directions[1].queue, queue(bytes));
    assert!(first.directions.iter().all(|direction| direction.parameters.set.is_empty()));
}

#[test]
fn what_is_wrong_with_an_event_is_told_with_its_place() {
    for (event, text, message) in [
        ("{ at: 1s, down: wier }", "wier", "unknown link `wier`"),
        ("{ at: 1s, kill: d }", "d", "unknown node `d`"),
        ("{ after: tt, up: wire }", "tt", "unknown task `tt`"),
        ("{ at: -1s, up: wire }", "-1s", "`-1s` is negative"),
        ("{ at: 1s, link: wire, set: { spin: 1 } }", "spin", "unknown key `spin`"),
        ("{ at: 1s, link: wire, set: { queue: codle } }", "codle", "unknown discipline `codle`"),
        (
            "{ at: 1s, link: wire, set: { mtu: 9000 } }",
            "9000",
            "the link `wire` has an MTU of 1500",
        ),
        (
            "{ at: 1s, link: wire, set: { queue: 20ms } }",
            "20ms",
            "a queue with a limit in time is on a link without `rate`",
        ),
        ("{ at: 1s, link: wire, set: { loss: 101% } }", "101%", ""),
        ("{ at: 1s, link: lan, set: { jitter: 1ms } }", "1ms", "a shared medium has no `jitter`"),
        (
            "{ at: 1s, link: wire, set: { jitter: 6ms } }",
            "6ms",
            "a jitter of 6ms is greater than the delay of 5ms",
        ),
        (
            "{ at: 1s, link: wire, set: { a->c: { loss: 1% } } }",
            "a->c",
            "`a->c` is no direction of the link `wire`",
        ),
        ("{ at: 1s, set: { loss: 1% } }", "{ loss: 1% }", "`set` needs the key `link`"),
        (
            "{ at: 1s, down: wire, link: wire }",
            "wire",
            "`link` is for `set`; `down` names its links itself",
        ),
        ("{ down: wire }", "{ down: wire }", "the event does not say when it happens"),
        ("{ at: 1s }", "{ at: 1s }", "the event does not say what happens"),
        (
            "{ at: 1s, up: wire, down: wire }",
            "{ at: 1s, up: wire, down: wire }",
            "an event does one thing, found 2",
        ),
        ("{ at: 1s, heal: left }", "left", "no partition has a group `left`"),
        (
            "{ at: 1s, partition: { left: [a, b], right: [c, a] } }",
            "[c, a]",
            "the node `a` is in two groups",
        ),
        ("{ at: 1s, partition: { all: a } }", "all", "`all` stands for all groups and names none"),
        (
            "{ at: 1s, flap: { link: wire, down: 0s, up: 1s } }",
            "0s",
            "`down` is zero: nothing could ever run",
        ),
        ("{ when: '${n > 1}', up: wire }", "n", "unknown name `n` in the expression `n > 1`"),
        (
            "{ during: t, when: '${m > 1}', up: wire }",
            "'${m > 1}'",
            "the metric `m` of task `t` is not measured yet at this event",
        ),
        (
            "{ after: t, when: '${m + later > 1}', up: wire }",
            "'${m + later > 1}'",
            "the metric `later` of task `u` is not measured yet at this event",
        ),
        (
            "{ when: '${m + 1}', up: wire }",
            "'${m + 1}'",
            "`m + 1` gives a number, not true or false",
        ),
        (
            "{ after: t, when: \"${'x' if m > 1 else true}\", up: wire }",
            "\"${'x' if m > 1 else true}\"",
            "gives a text, not true or false",
        ),
        ("{ at: 1s, down: [] }", "[]", "`down` is for nothing: the list is empty"),
        ("{ at: 1s, kill: [] }", "[]", "`kill` is for nothing: the list is empty"),
        ("{ at: 1s, heal: [] }", "[]", "`heal` is for nothing: the list is empty"),
        (
            "{ at: 1s, link: [], set: { loss: 1% } }",
            "[]",
            "`set` is for nothing: the list is empty",
        ),
        ("{ at: 1s, partition: { left: [] } }", "[]", "the group `left` has no nodes"),
        (
            "{ at: 1s, link: wire, set: { peak: 2Mbit/s } }",
            "2Mbit/s",
            "`peak` is the rate within a burst, and there is no `burst`",
        ),
        ("{ at: 1s, down: 'wire,lam' }", "'wire,lam'", "unknown link `lam`"),
    ] {
        let (place, said) = wrong(event);
        assert_eq!(place, text, "{event}: {said}");
        assert!(said.contains(message), "{event}: {said}");
    }
    let medium = "{ at: 1s, partition: { left: a, right: [b, c] } }";
    assert_eq!(wrong(medium).1, "the shared medium `lan` joins nodes of several groups");
}

#[test]
fn settings_from_a_command_line_are_read_like_those_of_a_file() {
    let topology = read("").unwrap_or_else(|wrong| panic!("{wrong}"));
    let link = &topology.links[0];
    let told = |from, text, directory| {
        let settings = Settings { text, from, directory };
        parse_settings(link, &LinkState::of(link), &["a", "b"], &settings)
    };
    let settings = |text| told(None, text, Path::new(""));
    let change = settings("loss: 3%\nrate: 5Mbit/s\n").expect("right");
    let set = &change.directions[0].parameters.set;
    assert_eq!(set.iter().copied().collect::<Vec<_>>(), [Parameter::Rate, Parameter::Loss]);
    assert_eq!(change.directions[0], change.directions[1]);
    let wrong = settings("los: 3%\n").expect_err("wrong");
    assert_eq!(wrong.problems()[0].message, "unknown key `los`");
    // Directions are named as in a file.
    let change = settings("a->b: { loss: 3% }\nbackward: {delay: 1ms}\n").expect("right");
    let sets = change.directions.each_ref().map(|direction| &direction.parameters.set);
    assert_eq!(sets, [&[Parameter::Loss].into(), &[Parameter::Delay].into()]);
    let wrong = settings("a->c: { loss: 3% }\n").expect_err("wrong");
    assert_eq!(wrong.problems()[0].message, "`a->c` is no direction of the link `wire`");
    let one = told(Some(1), "loss: 3%\n", Path::new(""));
    assert!(one.expect("right").directions[0].parameters.set.is_empty());
    let there = tempfile::tempdir().expect("a directory");
    std::fs::write(there.path().join("up.trace"), "1\n").expect("a trace");
    let traced = told(None, "trace: up.trace\n", there.path()).expect("right");
    assert!(traced.directions[0].parameters.to.trace.is_some());
}

#[test]
fn what_was_set_can_be_taken_away_again() {
    let given = "rate: 1Mbit/s, burst: 9kB, peak: 2Mbit/s, slot: 1ms, jitter: 1ms, loss: 1%";
    let events = right(&format!(
        "  - {{ at: 1s, link: wire, set: {{ {given} }} }}
  - {{ at: 2s, link: wire, set: {{ peak: none }} }}
  - {{ at: 3s, link: wire, set: {{ burst: 64KiB, slot: none }} }}
  - {{ at: 4s, link: wire, set: {{ burst: none, jitter: none, loss: none, rate: unlimited }} }}
"
    ));
    let topology = read("").unwrap_or_else(|wrong| panic!("{wrong}"));
    let mut state = LinkState::of(&topology.links[0]);
    let plain = state.clone();
    let mut after = events.iter().map(|event| {
        let [Action::Set { change, .. }] = event.actions.as_slice() else { panic!("{event:?}") };
        state.apply(change);
        state.directions[0].clone()
    });
    let mut next = || after.next().expect("an event");
    assert!(next().bucket.expect("a bucket").peak.is_some());
    assert_eq!(next().bucket.expect("a bucket").peak, None);
    let third = next();
    assert_eq!(third.bucket.expect("a bucket").burst.as_bytes(), 65_536);
    assert!(third.slots.is_none() && third.jitter.is_some());
    assert_eq!(next(), plain.directions[0]);
}

#[test]
fn links_are_named_by_range_and_by_shape() {
    let links = |name: &str| {
        let text = format!("{CHAIN}  - {{ at: 1s, down: {name} }}\n");
        let topology = load_str("net.yaml", &text, &[], Path::new(""));
        let topology = topology.unwrap_or_else(|wrong| panic!("{:?}", miette::Report::new(wrong)));
        let link = |action: &Action| match action {
            Action::Down { link } => *link,
            other => panic!("{other:?}"),
        };
        topology.events[0].actions.iter().map(link).collect::<Vec<_>>()
    };
    assert_eq!(links("c"), [0, 1, 2]);
    assert_eq!(links("'c-[1-2]'"), [1, 2]);
    assert_eq!(links("'wire,c-0'"), [3, 0]);
    assert_eq!(links("[c-2, c, 'c-[0-1]']"), [2, 0, 1], "each once");
    for (other, instead) in [("name: wire", "name: c"), ("name: wire, pair:", "name: c, chain:")] {
        let taken = CHAIN.replace(other, instead);
        let wrong = load_str("net.yaml", &taken, &[], Path::new("")).expect_err("twice");
        let [problem] = wrong.problems() else { panic!("{:?}", miette::Report::new(wrong)) };
        assert_eq!(problem.message, "there are two links named `c`");
    }
}
