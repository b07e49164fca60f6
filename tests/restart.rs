//! Nodes that are killed, stand still and start anew while the lab runs, with real namespaces and
//! virtual machines.

mod common;

use common::{Ended, Place, Results, have_qemu, have_root, patient, qemu_turn, says};

/// Frames lost at an endpoint because its node was down.
fn unheard(results: &Results, endpoint: &str) -> u64 {
    let ends = results.0["links"].as_array().expect("links").iter();
    let mut ends = ends.flat_map(|link| link["endpoints"].as_array().expect("endpoints"));
    let end = ends.find(|end| end["endpoint"] == endpoint).expect("the endpoint");
    let at_port = end["port"]["tx_drops"]["node-down"].as_u64();
    at_port.or(end["station"]["rx_dropped"]["node-down"].as_u64()).unwrap_or(0)
}

fn run(topology: &str) -> Ended {
    Place::new().run(&patient(topology))
}

#[test]
fn a_namespace_starts_anew_with_nothing_of_what_it_was() {
    if !have_root() {
        return;
    }
    let topology = "
nodes:
  a: { kind: netns }
  b: { kind: netns, init: ip address add 10.9.0.77/24 dev eth0, bridges: { br0: { ports: [eth1] } } }
  c: { kind: netns }
links:
  - { name: wire, pair: [a, b], channel: point-to-point, delay: 1ms, ipv4: 10.9.0.0/24 }
  - { name: spare, pair: [b, c], channel: point-to-point }
tasks:
  - name: spoil
    run:
      b: 'touch /tmp/mark; ip link add odd type dummy; ip address add 10.8.0.1/24 dev eth0;
          ip link set eth0 mtu 900; ip route add 10.7.0.0/16 via 10.8.0.2; echo 1 > /proc/sys/net/ipv4/ip_forward'
  - name: traffic
    run:
      a: { command: ping -i 0.1 -c 40 -W 1 10.9.0.77, status: any }
      b: { command: echo begun; sleep 100, status: 137 }
    metrics: { received: { from: a, regex: '(\\d+) received' } }
  - name: look
    run:
      a: ping -c 2 -i 0.2 -W 5 10.9.0.77
      b: 'ls /tmp; ip -o link; ip -o -4 address; ip route; cat /proc/sys/net/ipv4/ip_forward'
  - { name: carriers, run: { b: cat /sys/class/net/eth0/carrier /sys/class/net/eth1/carrier } }
events:
  - { after: spoil, down: spare }
  - { during: traffic, at: 1s, kill: b }
  - { during: traffic, at: 2s, restart: b }
";
    let ended = run(topology).expect(0);
    let results = ended.results().passed();
    // Ten are lost while it is off; the machine may be slow to start it.
    let received = results.metric("received");
    assert!((5.0..=31.0).contains(&received), "{}", results.output("traffic", "a"));
    // Half of what is lost are requests that were sent while the neighbour was still known.
    assert!(unheard(&results, "b:eth0") >= 5, "{:#}", results.0["links"]);
    assert_eq!(results.verdict(), "valid", "{:#}", results.0["verdict"]);
    let look = results.output("look", "b");
    says(look, &["eth0", "eth1", "master br0", "10.9.0.77/24", "mtu 1500"]);
    for gone in ["mark", "odd", "10.8.0.1", "10.7.0.0"] {
        assert!(!look.contains(gone), "{gone} in {look}");
    }
    assert!(look.ends_with("0\n"), "forwards as the file says: {look}");
    assert_eq!(results.output("carriers", "b"), "1\n0\n");
}

#[test]
fn a_command_on_a_node_that_starts_anew_fails_and_says_why() {
    if !have_root() {
        return;
    }
    let topology = "
nodes: { a: { kind: netns }, b: { kind: netns } }
links: [{ pair: [a, b], ipv4: 10.9.0.0/24 }]
tasks:
  - { name: wait, run: { a: sleep 100 } }
  - { name: never, run: { b: 'true' } }
events: [{ during: wait, at: 300ms, restart: a }]
";
    let ended = run(topology).expect(1);
    ended.says(&["node `a` was restarted by event 1 at ", " s while `sleep 100` ran"]);
    let killed = topology.replace("restart", "kill").replace("sleep 100", "sleep 101");
    run(&killed)
        .expect(1)
        .says(&["node `a` was killed by event 1 at ", " s while `sleep 101` ran"]);
    // What is killed stays so.
    let later = "
nodes: { a: { kind: netns }, b: { kind: netns } }
links: [{ pair: [a, b], ipv4: 10.9.0.0/24 }]
tasks:
  - { name: first, run: { b: 'true' } }
  - { name: second, run: { a: echo here } }
events: [{ after: first, kill: a }]
";
    run(later).expect(1).says(&["node `a` was killed by event 1 at ", " s before `echo here` ran"]);
}

/// Starts that are given up half-way lose nothing: the next one finds all interfaces.
#[test]
fn restarts_may_follow_each_other_faster_than_a_node_starts() {
    if !have_root() {
        return;
    }
    let topology = "
nodes: { a: { kind: netns }, r: { kind: netns, forwarding: true }, b: { kind: netns } }
links: [{ pair: [a, r], ipv4: 10.9.0.0/24 }, { pair: [r, b], ipv4: 10.9.1.0/24 }]
tasks:
  - { name: storm, run: { a: sleep 2, r: { command: sleep 100, status: any } } }
  - { name: after, run: { a: ping -c 3 -i 0.2 -W 5 10.9.0.2, b: ping -c 3 -i 0.2 -W 5 10.9.1.2, r: cat /proc/sys/net/ipv4/ip_forward } }
events:
  - { during: storm, at: 100ms, restart: r }
  - { during: storm, at: 110ms, restart: r }
  - { during: storm, at: 130ms, restart: r }
  - { during: storm, at: 160ms, kill: r }
  - { during: storm, at: 170ms, restart: r }
  - { during: storm, at: 200ms, restart: r }
";
    for io in ["epoll", "auto"] {
        let ended = Place::new().run_with(&patient(topology), &["--io", io]).expect(0);
        let results = ended.results().passed();
        assert_eq!(results.output("after", "r"), "1\n", "{io}");
        says(results.output("after", "b"), &["3 received"]);
    }
}

#[test]
fn virtual_machines_stand_still_end_and_start_anew() {
    if !have_qemu() {
        return;
    }
    let _turn = qemu_turn();
    for attach in ["tap-bridge", "socket"] {
        let topology = "
nodes:
  vm: { memory: 128MiB, attach: WAY, init: 'echo anew > /tmp/init' }
  b: { kind: host }
  c: { kind: host }
links:
  - { name: wire, pair: [vm, b], channel: point-to-point, delay: 1ms, ipv4: 10.9.0.0/24 }
  - { name: spare, pair: [vm, c], channel: point-to-point, ipv4: 10.9.1.0/24 }
tasks:
  - name: still
    run:
      b: { command: ping -i 0.1 -c 30 -W 0.05 vm, status: any }
      vm: { command: 'read -r from x < /proc/uptime; sleep 2; read -r to x < /proc/uptime; echo $from $to', name: clock }
    metrics: { answered: { from: b, regex: '(\\d+) received' } }
  - name: dead
    run:
      vm: { command: 'touch /tmp/mark; sleep 1000', status: any }
      b: { command: ping -i 0.1 -c 20 -W 0.05 vm, status: any }
  - name: back
    run:
      vm: 'cat /tmp/init; ls /tmp; cat /sys/class/net/eth0/carrier /sys/class/net/eth1/carrier'
      b: ping -i 0.2 -c 5 -W 5 vm
events:
  - { during: still, at: 500ms, pause: vm }
  - { during: still, at: 2s, resume: vm }
  - { during: dead, at: 500ms, down: spare }
  - { during: dead, at: 500ms, kill: vm }
  - { during: dead, at: 1500ms, restart: vm }
";
        let ended = run(&topology.replace("WAY", attach)).expect(0);
        let results = ended.results().passed();
        // Fifteen requests find it standing still; a busy machine answers some others too late.
        let answered = results.metric("answered");
        assert!((1.0..=16.0).contains(&answered), "{attach}: {}", results.output("still", "b"));
        // The guest's own clock stood still as well: two seconds of sleep are two seconds to it,
        // and more than three to the world.
        let clock = results.output("still", "clock");
        let times: Vec<f64> = clock.split_whitespace().filter_map(|t| t.parse().ok()).collect();
        let [from, to] = times[..] else { panic!("{clock}") };
        assert!((1.9..3.0).contains(&(to - from)), "{attach}: {clock}");
        let seconds = results.command("still", "clock")["seconds"].as_f64().expect("a time");
        assert!(seconds >= 3.4, "{attach}: {seconds}");
        assert!(unheard(&results, "vm:eth0") >= 10, "{attach}: {:#}", results.0["links"]);
        assert_eq!(results.verdict(), "valid", "{attach}: {:#}", results.0["verdict"]);
        let back = results.output("back", "vm");
        says(back, &["anew"]);
        assert!(!back.contains("mark"), "a fresh machine: {back}");
        let carriers: Vec<&str> = back.lines().rev().take(2).map(str::trim).collect();
        assert_eq!(carriers, ["0", "1"], "{attach}: {back}");
        says(results.output("back", "b"), &["5 received"]);
        let starts = std::fs::read_to_string(ended.out.join("events.jsonl")).expect("events");
        assert_eq!(starts.matches("\"node-ready\"").count(), 2, "{starts}");
    }
}

/// What commands of a node had printed when it was killed, and what the run says of them.
fn cut_short(kind: &str) -> String {
    let topology = "
nodes: { a: { kind: host }, b: { kind: KIND } }
links: [{ name: wire, pair: [a, b], ipv4: 10.9.0.0/24 }]
tasks:
  - name: begin
    run:
      b: { name: back, background: true, ready: tick 3, command: 'i=0; while :; do i=$((i+1)); echo tick $i; sleep 0.1; done', status: 137 }
  - name: work
    run:
      a: sleep 6
      b: { name: front, command: echo front said 7; sleep 1000, status: 137 }
    stop: back
    metrics:
      said: { from: front, regex: 'said (\\d+)' }
      ticks: { from: back, regex: 'tick (\\d+)', pick: max }
events: [{ during: work, at: 100ms, set: { delay: 1ms }, link: wire }, { during: work, at: 3s, kill: b }]
"
    .replace("KIND", kind);
    let ended = run(&topology).expect(0);
    let results = ended.results().passed();
    assert_eq!(results.metric("said") as u64, 7);
    let ticks = results.metric("ticks");
    assert!(ticks >= 3.0, "{ticks}");
    assert_eq!(results.output("work", "front").trim_end(), "front said 7");
    says(results.output("work", "back"), &["tick 1\n", "tick 3\n"]);
    let whole = |name| String::from_utf8(results.output_bytes("work", name)).expect("text");
    assert_eq!(whole("front"), results.output("work", "front"));
    assert_eq!(whole("back"), results.output("work", "back"));
    assert_eq!(results.status("work", "back"), Some(137));
    topology
}

/// The same where nobody expects it.
fn cut_short_unexpectedly(topology: &str) {
    let unexpected = topology.replace(", status: 137", "").replace("tick (", "tock (");
    let ended = run(&unexpected).expect(1);
    let errors = ended.results().errors();
    let when = "node `b` was killed by event 2 at ";
    says(&errors, &[when, " s while `echo front said 7; sleep 1000` ran", " s while `i=0; while"]);
    assert!(!errors.contains(".tapestry") && !errors.contains("console"), "{errors}");
    let (results, missing) = (ended.results(), "ticks");
    assert!(results.0["metrics"][missing].is_null(), "{:#}", results.0["metrics"]);
    for name in ["front", "back"] {
        says(results.command("work", name)["error"].as_str().expect("an error"), &[when]);
    }

    let nothing = topology.replace("tick (", "tock (");
    let ended = run(&nothing).expect(1);
    says(&ended.results().errors(), &["`ticks`", "the node of `back` ended before it was printed"]);
}

#[test]
fn what_a_killed_namespace_had_printed_is_kept() {
    if have_root() {
        cut_short_unexpectedly(&cut_short("netns"));
    }
}

#[test]
fn what_a_killed_virtual_machine_had_printed_is_kept() {
    if have_qemu() {
        let _turn = qemu_turn();
        cut_short("qemu, memory: 128MiB");
    }
}

#[test]
fn what_a_killed_host_had_printed_is_kept() {
    let topology = "
nodes: { a: { kind: host }, b: { kind: host } }
links: [{ name: wire, pair: [a, b], ipv4: 10.9.0.0/24 }]
tasks:
  - { name: begin, run: { b: { name: back, background: true, ready: 'seq=1', command: ping -i 0.1 a } } }
  - { name: work, run: { a: sleep 2, b: { name: front, command: ping -i 0.1 a } }, stop: back }
events: [{ during: work, at: 1s, kill: b }]
";
    for time in ["virtual", "realtime"] {
        let ended = Place::new().run_with(&patient(topology), &["--time", time]).expect(1);
        let results = ended.results();
        let when = "node `b` was killed by event 1 at ";
        for name in ["front", "back"] {
            says(results.output("work", name), &["icmp_seq=1 "]);
            says(results.command("work", name)["error"].as_str().expect("an error"), &[when]);
        }
        says(&results.errors(), &[when, " s while `ping -i 0.1 a` ran"]);
    }
}
