//! Links and nodes change while a lab runs: at the exact instant in virtual time, with the carrier
//! that nodes see in real time, and from another terminal.

mod common;

use std::fs;
use std::path::Path;

use common::{Ended, Place, Results, have_qemu, have_root, patient, qemu_turn, says};
use serde_json::Value;

/// The changes of a run, as events.jsonl tells them.
fn changes(out: &Path) -> Vec<Value> {
    let text = fs::read_to_string(out.join("events.jsonl")).expect("events");
    let events = text.lines().map(|line| serde_json::from_str(line).expect("JSON"));
    events.filter(|event: &Value| event["event"] == "changed").collect()
}

/// `action subject at` of each change, with milliseconds of scheduled and executed time.
fn told(out: &Path) -> Vec<String> {
    let subject = |event: &Value| {
        let name = event["link"].as_str().or(event["node"].as_str());
        let name = name.map_or_else(|| event["groups"].to_string(), str::to_owned);
        format!("{} {name}", event["action"].as_str().expect("an action"))
    };
    let tell = |event: &Value| {
        let (due, at) = (&event["scheduled_ns"], &event["executed_ns"]);
        assert_eq!(due, at, "virtual time is exact: {event}");
        assert_eq!(event["t_ns"], *at, "{event}");
        format!("{} {}", subject(event), at.as_u64().expect("a time") as f64 / 1e6)
    };
    changes(out).iter().map(tell).collect()
}

/// A metric that is a whole number.
fn count(results: &Results, name: &str) -> u64 {
    results.metric(name) as u64
}

#[track_caller]
fn simulate(place: &Place, topology: &str) -> Ended {
    place.run_with(topology, &["--time", "virtual"])
}

const PING: &str = "
nodes: { a: { kind: host }, b: { kind: host } }
links: [{ name: wire, pair: [a, b], channel: point-to-point, delay: 2ms, ipv4: 10.0.0.0/24 }]
tasks:
  - name: ping
    run: { a: { command: ping -c 20 -i 0.1 -W 0.05 b, status: any } }
    metrics:
      answers: { regex: 'time=(\\S+)', pick: count, default: 0 }
      slow: { regex: 'time=(14)\\.', pick: count, default: 0 }
      fast: { regex: 'time=(4)\\.', pick: count, default: 0 }
";

#[test]
fn changes_happen_at_their_instants_in_virtual_time() {
    let events = "
events:
  - { at: 450ms, down: wire }
  - { at: 950ms, up: wire }
  - { at: 1450ms, link: wire, set: { delay: 7ms } }
";
    let run = || {
        let place = Place::new();
        let ended = simulate(&place, &format!("{PING}{events}")).expect(0);
        let results = ended.results().passed();
        // Of the requests at 0, 100, … 1900 ms those from 500 to 900 are lost; the last five take
        // 7 ms each way, and the first one waits for ARP.
        assert_eq!([count(&results, "answers"), count(&results, "slow")], [15, 5]);
        assert_eq!(count(&results, "fast"), 9);
        let expected = ["down wire 450", "up wire 950", "set wire 1450"];
        assert_eq!(told(&ended.out), expected);
        let set = &changes(&ended.out)[2]["parameters"];
        assert_eq!(*set, serde_json::json!([{ "delay": "7ms" }, { "delay": "7ms" }]));
        fs::read(ended.out.join("events.jsonl")).expect("events")
    };
    assert_eq!(run(), run(), "the same to the last byte");
}

#[test]
fn a_link_set_in_one_direction_leaves_the_other_as_it_is() {
    let events = "
events:
  - { during: ping, at: 50ms, link: wire, set: { a->b: { loss: 100% } } }
  - { during: ping, at: 150ms, link: wire, set: { forward: { loss: 0%, delay: 12ms } } }
";
    let place = Place::new();
    let ended = simulate(&place, &format!("{PING}{events}")).expect(0);
    let results = ended.results().passed();
    // The second request is lost; from the third on it is 12 ms and 2 ms.
    assert_eq!([count(&results, "answers"), count(&results, "slow")], [19, 18]);
}

#[test]
fn queues_and_the_mtu_change_while_frames_wait() {
    let topology = r"
nodes: { a: { kind: host }, b: { kind: host } }
links: [{ name: wire, pair: [a, b], channel: point-to-point, rate: 100kbit/s, delay: 1ms, ipv4: 10.0.0.0/24 }]
tasks:
  - { name: neighbours, run: { a: ping -c 1 b } }
  - name: burst
    run: { a: { command: ping -c 50 -i 0.01 -s 1000 -W 20 b, status: any } }
  - name: long
    run: { a: { command: ping -c 3 -i 0.5 -s 1000 -W 1 b, status: 1 } }
  - { name: short, run: { a: ping -c 3 -i 0.5 -s 400 -W 1 b } }
events:
  - { during: burst, at: 600ms, link: wire, set: { a->b: { queue: 10 } } }
  - { after: burst, link: wire, set: { mtu: 600 } }
";
    let place = Place::new();
    let ended = simulate(&place, topology).expect(0);
    let results = ended.results().passed();
    let station = &results.0["links"][0]["endpoints"][0]["station"];
    // Of fifty requests of 84 ms each, eight are on their way at 600 ms and ten stay waiting.
    assert_eq!(station["tx_dropped"], serde_json::json!({ "queue-full": 32, "too-long": 3 }));
    let changes = changes(&ended.out);
    assert_eq!(changes[0]["parameters"][0]["queue"]["limit"]["frames"], 10, "{}", changes[0]);
    assert_eq!(changes[0]["parameters"][1]["queue"], Value::Null);
    assert_eq!(changes[1]["mtu"], 600);
}

#[test]
fn a_flap_a_partition_and_what_follows_from_tasks_and_results() {
    let topology = "
nodes: { 'a,b,c': { kind: host } }
links: [{ chain: 'a,b,c', name: wire, channel: point-to-point, delay: 1ms, ipv4: { from: 10.0.0.0/16, per_link: 24 } }]
tasks:
  - { name: first, run: { a: sleep 1 } }
  - { name: second, run: { a: { command: ping -c 1 -W 1 b, status: any } }, metrics: { got: '(\\d) received' } }
  - { name: third, run: { a: sleep 2 } }
events:
  - { at: 100ms, flap: { link: wire-0, down: 10ms, up: 20ms, times: 2 } }
  - { after: first, partition: { left: a, right: [b, c] } }
  - { when: '${got == 0}', heal: all }
  - { after: second, at: 1s, partition: { lonely: b } }
  - { after: second, at: 1s, down: wire-0 }
  - { after: second, at: 1500ms, heal: lonely }
  - { after: second, at: 1600ms, up: [wire-0, wire-1] }
  - { when: '${got == 1}', down: wire-1 }
";
    let place = Place::new();
    let ended = simulate(&place, topology).expect(0);
    ended.results().passed();
    let expected = [
        "down wire-0 100",
        "up wire-0 110",
        "down wire-0 130",
        "up wire-0 140",
        // The partition cuts between its groups only; the heal follows from the lost ping.
        r#"partition {"left":["a"],"right":["b","c"]} 1000"#,
        "down wire-0 1000",
        r#"heal ["all"] 2000"#,
        "up wire-0 2000",
        // Both hold the link down, so one alone does not bring it back.
        r#"partition {"lonely":["b"]} 3000"#,
        "down wire-0 3000",
        "down wire-1 3000",
        r#"heal ["lonely"] 3500"#,
        "up wire-1 3500",
        "up wire-0 3600",
    ];
    assert_eq!(told(&ended.out), expected);
    // What never came true is told.
    let events = fs::read_to_string(ended.out.join("events.jsonl")).expect("events");
    assert!(events.contains("1 planned event did not happen"), "{events}");
}

#[test]
fn what_was_set_is_taken_away_and_the_link_is_as_before() {
    let events = "
events:
  - { at: 450ms, link: wire, set: { rate: 1Mbit/s, burst: 4kB, slot: 500ms, jitter: 1ms, loss: 100% } }
  - { at: 950ms, link: wire, set: { rate: unlimited, burst: none, slot: none, jitter: none, loss: none } }
";
    let place = Place::new();
    let ended = simulate(&place, &format!("{PING}{events}")).expect(0);
    let results = ended.results().passed();
    // Five requests are lost; all others take 4 ms, except for the first, which waits for ARP.
    assert_eq!([count(&results, "answers"), count(&results, "fast")], [15, 14]);
}

#[test]
fn a_delay_of_an_event_counts_from_when_its_condition_holds() {
    let topology = "
nodes: { a: { kind: host }, b: { kind: host } }
links: [{ name: wire, pair: [a, b], channel: point-to-point, delay: 2ms, ipv4: 10.0.0.0/24 }]
tasks:
  - { name: first, run: { a: sleep 1 } }
  - { name: second, run: { a: 'echo 1; sleep 1' }, metrics: { got: '(1)' } }
  - { name: third, run: { a: sleep 2 } }
events:
  - { when: '${got == 1}', at: 300ms, down: wire }
  - { after: second, when: '${got == 1}', at: 700ms, up: wire }
  - { during: third, when: '${got == 0}', at: 100ms, down: wire }
";
    let place = Place::new();
    let ended = simulate(&place, topology).expect(0);
    ended.results().passed();
    assert_eq!(told(&ended.out), ["down wire 2300", "up wire 2700"]);
}

#[test]
fn hosts_stand_still_end_and_start_anew() {
    let topology = "
nodes:
  a: { kind: host }
  b: { kind: host, init: ip address add 10.0.0.77/24 dev eth0 }
links: [{ name: wire, pair: [a, b], channel: point-to-point, delay: 2ms, ipv4: 10.0.0.0/24 }]
tasks:
  - name: ping
    run:
      a: { command: ping -c 40 -i 0.1 -W 0.05 10.0.0.77, status: any }
      b: { command: sleep 100, status: 137 }
    metrics: { got: { from: a, regex: '(\\d+) received' } }
  - { name: back, run: { b: ip link show eth0 } }
  - { name: dark, run: { b: ip link show eth0 } }
events:
  - { at: 450ms, pause: b }
  - { at: 950ms, resume: b }
  - { at: 1450ms, kill: b }
  - { at: 2450ms, restart: b }
  - { after: back, down: wire }
";
    let place = Place::new();
    let ended = simulate(&place, topology).expect(0);
    let results = ended.results().passed();
    // Five requests are lost while it stands still, ten while it is off.
    assert_eq!(count(&results, "got"), 25, "{}", results.output("ping", "a"));
    common::says(results.output("back", "b"), &["UP,LOWER_UP", "state UP"]);
    common::says(results.output("dark", "b"), &["NO-CARRIER", "state DOWN"]);
    let expected = ["pause b 450", "resume b 950", "kill b 1450", "restart b 2450"];
    assert_eq!(told(&ended.out)[..4], expected);
}

#[test]
fn namespaces_see_the_carrier_and_their_pings_stop_and_go_on() {
    if !have_root() {
        return;
    }
    let look =
        "cat /sys/class/net/eth0/carrier; ping -c 2 -i 0.2 -W 1 b | grep -o '[0-9]* received'";
    let topology = format!(
        "
nodes: {{ 'a,b': {{ kind: netns }} }}
links: [{{ name: wire, pair: [a, b], channel: point-to-point, delay: 1ms, ipv4: 10.9.0.0/24 }}]
tasks:
  - {{ name: before, run: {{ a: \"{look}\" }} }}
  - {{ name: dark, run: {{ a: \"{look}\" }} }}
  - {{ name: after, run: {{ a: \"{look}\" }} }}
events:
  - {{ after: before, down: wire }}
  - {{ after: dark, up: wire }}
"
    );
    let place = Place::new();
    let ended = place.run(&patient(&topology)).expect(0);
    let results = ended.results().passed();
    assert_eq!(results.output("before", "a"), "1\n2 received\n");
    assert_eq!(results.output("dark", "a"), "0\n0 received\n");
    assert_eq!(results.output("after", "a"), "1\n2 received\n");
    for change in changes(&ended.out) {
        let time = |key: &str| change[key].as_u64().expect("a time");
        assert!(time("executed_ns") >= time("scheduled_ns"), "{change}");
    }
}

#[test]
fn a_namespace_stands_still_and_goes_on() {
    if !have_root() {
        return;
    }
    let topology = "
nodes: { a: { kind: netns }, b: { kind: netns } }
links: [{ pair: [a, b], ipv4: 10.9.0.0/24 }]
tasks:
  - { name: count, run: { a: { command: 'i=0; while [ $i -lt 20 ]; do sleep 0.1; i=$((i+1)); done; cut -d. -f1 /proc/uptime', name: counter }, b: 'sleep 1' } }
events:
  - { during: count, at: 500ms, pause: a }
  - { during: count, at: 4500ms, resume: a }
";
    let place = Place::new();
    let ended = place.run(&patient(topology)).expect(0);
    let results = ended.results().passed();
    // Two seconds of sleeping, and four in which nothing moved.
    let seconds = results.command("count", "counter")["seconds"].as_f64().expect("a time");
    assert!(seconds >= 5.0, "{seconds}");
}

#[test]
fn several_links_change_from_another_terminal() {
    if !have_root() {
        return;
    }
    let topology = "
nodes: { 'a,b[1-3]': { kind: netns } }
links:
  - { name: wire1, pair: [a, b1] }
  - { name: wire2, pair: [a, b2] }
  - { name: lan, lan: [a, b3] }
tasks: [{ name: wait, run: { b1: sleep 1000 }, timeout: 2000s }]
";
    let place = Place::new();
    let mut run = place.begin(topology);
    run.wait_for_event("task-started", "wait");
    let carriers = || {
        let files = [0, 1, 2].map(|number| format!("/sys/class/net/eth{number}/carrier"));
        let cat = place.call(&["exec", "out", "a", "cat", &files[0], &files[1], &files[2]]);
        cat.expect(0).text().replace('\n', "")
    };
    assert_eq!(carriers(), "111");
    place.call(&["link", "out", "wire[1-2]", "down"]).expect(0);
    assert_eq!(carriers(), "001");
    place.call(&["link", "out", "wire2,lan", "set", "loss=1%"]).expect(0);
    place.call(&["link", "out", "wire[1-3]", "up"]).expect(2).says(&["no link \"wire3\""]);
    assert_eq!(carriers(), "001", "all or nothing");
    place
        .call(&["link", "out", "wire[1-", "up"])
        .expect(2)
        .says(&["\"wire[1-\"", "names no links"]);
    place.call(&["link", "out", "lan,wire[1-2]", "up"]).expect(0);
    assert_eq!(carriers(), "111");
}

#[test]
fn links_change_from_another_terminal() {
    if !have_root() {
        return;
    }
    let topology = "
nodes: { 'a,b': { kind: netns } }
links: [{ name: wire, pair: [a, b], channel: point-to-point, delay: 1ms, ipv4: 10.9.0.0/24 }]
tasks: [{ name: wait, run: { b: sleep 1000 }, timeout: 2000s }]
";
    let place = Place::new();
    let mut run = place.begin(topology);
    run.wait_for_event("task-started", "wait");
    let carrier = || {
        let cat = place.call(&["exec", "out", "a", "cat", "/sys/class/net/eth0/carrier"]);
        cat.expect(0).text()
    };
    assert_eq!(carrier(), "1\n");
    place.call(&["link", "out", "wire", "down"]).expect(0);
    assert_eq!(carrier(), "0\n");
    place.call(&["link", "out", "wire", "up"]).expect(0);
    assert_eq!(carrier(), "1\n");
    place.call(&["link", "out", "wire", "set", "delay=150ms", "--from", "b"]).expect(0);
    let ping =
        place.call(&["exec", "out", "a", "ping", "-c", "2", "-W", "5", "b"]).expect(0).text();
    let time = ping.lines().rev().find_map(|line| line.split_once("time=")).expect("a time").1;
    let time: f64 = time.trim_end_matches(" ms").parse().expect("a number");
    assert!(time >= 151.0, "{ping}");
    let refused = |arguments: &[&str], parts: &[&str]| {
        place.call(&[&["link", "out"], arguments].concat()).expect(2).says(parts);
    };
    refused(&["nowhere", "down"], &["no link \"nowhere\"", "wire"]);
    refused(&["wire", "set", "spin=1"], &["unknown key `spin`"]);
    refused(&["wire", "set", "loss=200%"], &["loss"]);
    refused(&["wire", "set", "jitter=9ms"], &["jitter of 9ms", "delay of 1ms"]);
    refused(&["wire", "set", "loss=1%", "--from", "c"], &["no direction c", "a->b and b->a"]);
    refused(&["wire", "set", "loss=1%", "--from", "a->c"], &["no direction a->c"]);
    refused(&["wire", "set", "a->c={loss: 1%}"], &["`a->c` is no direction", "`a->b`"]);
    refused(&["wire", "set", "mtu=9000"], &["MTU of 1500", "at most"]);
    refused(&["wire", "set", "queue=20ms"], &["limit in time", "`rate`"]);
    place.call(&["link", "out", "wire", "set", "loss"]).expect(2).says(&["KEY=VALUE"]);
    let queue = "queue={discipline: codel, target: 9ms}";
    place.call(&["link", "out", "wire", "set", "mtu=600", "rate=1Mbit/s", queue]).expect(0);
    let long = ["exec", "out", "a", "ping", "-c", "1", "-W", "1", "-s", "1000", "b"];
    place.call(&long).expect(1);
    // With a rate there now is, a time means something.
    place.call(&["link", "out", "wire", "set", "queue=20ms", "--from", "a"]).expect(0);
    let both = ["a->b={jitter: none}", "backward={burst: 64KiB}"];
    place.call(&[&["link", "out", "wire", "set"][..], &both].concat()).expect(0);
    place.call(&["link", "out", "wire", "set", "rate=unlimited", "--from", "a->b"]).expect(0);
    let changes = changes(&place.path("out"));
    let actions: Vec<_> = changes.iter().map(|change| change["action"].clone()).collect();
    assert_eq!(actions, ["down", "up", "set", "set", "set", "set", "set"]);
    assert_eq!(changes[3]["parameters"][1]["queue"]["discipline"], "codel");
    let set = |at: usize| changes[at]["parameters"].clone();
    assert_eq!(set(5), serde_json::json!([{ "jitter": "none" }, { "burst": "64KiB" }]));
    assert_eq!(set(6), serde_json::json!([{ "rate": "unlimited" }, {}]));
}

#[test]
fn a_virtual_machine_sees_the_carrier() {
    if !have_qemu() {
        return;
    }
    let _turn = qemu_turn();
    let topology = "
nodes: { vm: { memory: 128MiB }, b: { kind: host } }
links: [{ name: wire, pair: [vm, b], channel: point-to-point, delay: 1ms, ipv4: 10.9.0.0/24 }]
tasks:
  - { name: before, run: { vm: cat /sys/class/net/eth0/carrier } }
  - { name: dark, run: { vm: 'n=0; until [ $(cat /sys/class/net/eth0/carrier) = 0 ] || [ $n = 50 ]; do sleep 0.1; n=$((n+1)); done; cat /sys/class/net/eth0/carrier' } }
  - { name: after, run: { vm: 'n=0; until [ $(cat /sys/class/net/eth0/carrier) = 1 ] || [ $n = 50 ]; do sleep 0.1; n=$((n+1)); done; cat /sys/class/net/eth0/carrier; ping -c 1 -W 10 10.9.0.2 > /dev/null && echo there' } }
events:
  - { after: before, down: wire }
  - { after: dark, up: wire }
";
    let place = Place::new();
    let ended = place.run(&patient(topology)).expect(0);
    let results = ended.results().passed();
    assert_eq!(results.output("before", "vm").trim(), "1");
    assert_eq!(results.output("dark", "vm").trim(), "0");
    assert_eq!(
        results.output("after", "vm").split_whitespace().collect::<Vec<_>>(),
        ["1", "there"]
    );
}

#[test]
fn a_command_says_that_an_event_ended_its_node() {
    let place = Place::new();
    let topology = "
nodes: { a: { kind: host }, b: { kind: host } }
links: [{ pair: [a, b], ipv4: 10.9.0.0/24 }]
tasks: [{ name: wait, run: { a: sleep 100 } }]
events: [{ during: wait, at: 300ms, kill: a }]
";
    let ended = place.run_with(topology, &["--time", "virtual"]).expect(1);
    let why = "task wait: node `a` was killed by event 1 at 0.3 s while `sleep 100` ran";
    says(&ended.results().errors(), &[why]);
}
