//! A topology of in-process nodes runs in virtual time: as fast as the machine can, with the tasks,
//! files and figures of real time, and to the last byte the same for the same seed.

mod common;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use common::{Ended, Place, have_program, have_root, patient};
use serde_json::Value;

/// Two hosts on one link of 2 ms each way.
const TWO: &str = "
nodes: { a: { kind: host }, b: { kind: host } }
links: [{ pair: [a, b], channel: point-to-point, delay: 2ms, ipv4: 10.0.0.0/24 }]
";

fn shipped(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("topologies").join(name);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Runs a topology in virtual time.
#[track_caller]
fn simulate(place: &Place, topology: &str, more: &[&str]) -> Ended {
    place.run_with(topology, &[&["--time", "virtual"], more].concat())
}

/// Everything a run directory holds that must not depend on the machine, by file.
fn lasting(out: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut files = BTreeMap::new();
    for name in ["", "outputs", "captures", "console"] {
        for entry in fs::read_dir(out.join(name)).expect("a directory").flatten() {
            let path = entry.path();
            if path.is_file() {
                let content = fs::read(&path).expect("a file");
                files.insert(path.strip_prefix(out).expect("below it").to_owned(), content);
            }
        }
    }
    // The manifest says when and where; so do these objects of the results.
    files.remove(Path::new("manifest.json")).expect("a manifest");
    let results = files.remove(Path::new("results.json")).expect("results");
    let mut results: Value = serde_json::from_slice(&results).expect("JSON");
    for machine in ["wall", "host"] {
        assert!(results.as_object_mut().expect("an object").remove(machine).is_some());
    }
    files.insert("results.json".into(), serde_json::to_vec(&results).expect("JSON"));
    files
}

#[test]
fn shipped_topologies_pass_and_repeat_to_the_last_byte() {
    let mut seen = 0;
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("topologies");
    for entry in fs::read_dir(directory).expect("topologies").flatten() {
        let name = entry.file_name().into_string().expect("a name");
        if entry.path().extension().is_none_or(|extension| extension != "yaml") {
            continue;
        }
        seen += 1;
        let topology = shipped(&name);
        let more: &[&str] = if topology.contains("\n  kind: qemu") {
            &["--set", "kind=host", "--capture", "all"]
        } else {
            &["--capture", "all"]
        };
        let run = || {
            let place = Place::new();
            let ended = simulate(&place, &topology, more).expect(0);
            let results = ended.results().passed();
            assert_eq!(results.verdict(), "valid");
            lasting(&ended.out)
        };
        let (first, second) = (run(), run());
        assert!(first.keys().any(|file| file.starts_with("captures")), "{name}: no captures");
        assert!(first.keys().eq(second.keys()), "{name}: {:?}", second.keys());
        for (file, content) in &first {
            assert!(second[file] == *content, "{name}: {} differs", file.display());
        }
    }
    assert!(seen >= 5, "{seen} topologies");
}

#[test]
fn seed_and_run_number_give_other_draws() {
    let lan = shipped("lan.yaml");
    // Stations that answer at the same time back off by chance.
    let run = |more: &[&str]| {
        let place = Place::new();
        let more = [&["--set", "kind=host", "--set", "hosts=6", "--set", "rate=1Mbit/s"], more];
        let ended = simulate(&place, &lan, &more.concat()).expect(0);
        lasting(&ended.out).remove(Path::new("results.json")).expect("results")
    };
    let draws = [&[][..], &["--seed", "7"], &["--run", "1"]].map(run);
    assert_eq!(draws[0], run(&["--seed", "1", "--run", "0"]), "1 and 0 are the defaults");
    assert!(draws[0] != draws[1] && draws[1] != draws[2] && draws[0] != draws[2]);
}

#[test]
fn the_chain_runs_the_same_tasks_in_both_times() {
    if !have_root() {
        return;
    }
    let chain = patient(&shipped("chain.yaml"));
    let set = ["--set", "kind=host", "--set", "seconds=1", "--set", "pps=100"];
    let (here, there) = (Place::new(), Place::new());
    let simulated = simulate(&here, &chain, &set).expect(0).results().passed();
    let real = there.run_with(&chain, &set).expect(0).results().passed();
    for metric in ["sent", "received", "loss", "requested_hop_pps"] {
        assert_eq!(simulated.0["metrics"][metric], real.0["metrics"][metric], "{metric}");
    }
    for results in [&simulated, &real] {
        assert_eq!(results.0["metrics"]["loss"]["value"], 0.0);
        assert_eq!(results.command("measure", "server")["background"], true);
        assert_eq!(results.status("measure", "client"), Some(0));
        let output = results.output_bytes("measure", "server");
        assert!(String::from_utf8_lossy(&output).contains("Server listening"));
    }
}

#[test]
fn hosts_in_real_time_time_out_init_and_answer_exec() {
    if !have_root() {
        return;
    }
    let place = Place::new();
    let topology = "
nodes: { a: { kind: host, init: [true] }, b: { kind: host } }
links: [{ pair: [a, b], delay: 2ms, ipv4: 10.0.0.0/24 }]
tasks: [{ name: slow, run: { a: sleep 1000 }, timeout: 3s }]
";
    let mut run = place.begin(&patient(topology));
    run.wait_for_event("task-started", "slow");
    let told = place.call(&["exec", "out", "b", "ping -c 1 a"]).expect(0);
    assert!(told.text().contains("1 received"), "{}", told.text());
    place.call(&["exec", "out", "b", "false"]).expect(1);
    let results = run.end().expect(1).results();
    let slow = results.command("slow", "a");
    assert_eq!(slow["error"], "took too long and was ended");
    let place = Place::new();
    place.run(&topology.replace("true", "false")).expect(1).says(&["node a", "`false`", "1"]);
}

#[test]
fn a_host_and_a_namespace_meet_in_one_lab() {
    if !have_root() || !have_program("ping") {
        return;
    }
    let place = Place::new();
    let topology = "
nodes: { in: { kind: host }, r: { kind: router }, out: { kind: netns, routes: [{ to: default, via: 10.0.1.1 }] } }
links:
  - { pair: [in, r], delay: 1ms, ipv4: 10.0.0.0/24 }
  - { pair: [r, out], delay: 1ms, ipv4: 10.0.1.0/24 }
tasks:
  - name: ping
    run:
      in: ip route add default via 10.0.0.2 && ping -c 3 -i 0.1 out
      out: ping -c 3 -i 0.2 in
    metrics:
      inside: { from: in, regex: '(\\d) received' }
      outside: { from: out, regex: '(\\d) received' }
    expect: ['${inside == 3}', '${outside == 3}']
";
    let results = place.run(&patient(topology)).expect(0).results().passed();
    assert_eq!(results.node("in")["ready"], true);
    assert!(results.task("ping")["start_skew_ns"].is_u64());
}

#[test]
fn a_simulation_can_be_interrupted() {
    let place = Place::new();
    let topology = format!(
        "{TWO}
tasks: [{{ name: long, run: {{ a: ping -q -i 0.001 b }}, timeout: 100000h }}]
"
    );
    let mut run = place.begin_with(&topology, &["--time", "virtual"]);
    run.wait_for_event("task-started", "long");
    run.signal(nix::sys::signal::Signal::SIGINT);
    let results = run.end().expect(130).results();
    assert_eq!(results.outcome(), "interrupted");
    assert_eq!(results.task("long")["state"], "interrupted");
}

#[test]
fn an_hour_takes_a_moment_and_times_are_exact() {
    let place = Place::new();
    let topology = format!(
        "{TWO}
tasks:
  - name: sleep
    run: {{ a: sleep 3600 }}
    timeout: 2h
  - name: ping
    run: {{ a: ping -c 3 -i 0.2 b }}
    metrics:
      rtt: {{ regex: 'mdev = ([\\d.]+)/', unit: ms }}
    expect: ['${{rtt >= 4}}', '${{rtt < 4.1}}']
"
    );
    let results = simulate(&place, &topology, &[]).expect(0).results().passed();
    assert_eq!(results.task("sleep")["seconds"], 3600.0);
    // ARP, then three echo requests 0.2 s apart; the last comes back after 4 ms.
    assert!(results.0["virtual_seconds"].as_f64().is_some_and(|t| (3600.4..3600.5).contains(&t)));
    let log = fs::read_to_string(place.path("out/events.jsonl")).expect("a log");
    let times = log.lines().map(|line| {
        let event: Value = serde_json::from_str(line).expect("JSON");
        event["t_ns"].as_u64().expect("a time")
    });
    let times: Vec<u64> = times.collect();
    assert!(times.is_sorted() && times.contains(&3_600_000_000_000), "{times:?}");
}

#[test]
fn timeouts_count_virtual_time() {
    let place = Place::new();
    let topology = format!(
        "{TWO}
tasks:
  - name: slow
    run:
      a: sleep 1000
      b: {{ command: sleep 5, timeout: 7s }}
    timeout: 60s
"
    );
    let results = simulate(&place, &topology, &[]).expect(1).results();
    assert_eq!(results.outcome(), "failed");
    assert_eq!(results.verdict(), "valid");
    assert_eq!(results.command("slow", "a")["seconds"], 60.0);
    assert_eq!(results.command("slow", "b")["seconds"], 5.0);
    common::says(&results.errors(), &["slow", "node a", "took too long"]);

    let topology = format!(
        "{TWO}
tasks:
  - name: never
    run:
      a: {{ command: ping b, background: true, ready: pigs fly }}
    timeout: 10s
"
    );
    let place = Place::new();
    let results = simulate(&place, &topology, &[]).expect(1).results();
    common::says(&results.errors(), &["pigs fly", "10.0 s", "icmp_seq=10"]);

    // A metric is taken from a background command that its task stops.
    let topology = format!(
        "{TWO}
tasks:
  - {{ name: begin, run: {{ a: {{ name: pings, command: ping -i 1 b, background: true }} }} }}
  - name: end
    run: {{ b: sleep 4.5 }}
    stop: [pings]
    metrics: {{ received: {{ from: pings, regex: '(\\d+) received' }} }}
    expect: '${{received == 5}}'
"
    );
    simulate(&Place::new(), &topology, &[]).expect(0).results().passed();
}

#[test]
fn a_run_stops_exactly_where_it_is_told_to() {
    let topology = format!("{TWO}\ntasks: [{{ name: ping, run: {{ a: ping -c 100 b }} }}]\n");
    let place = Place::new();
    let ended = simulate(&place, &topology, &["--until", "12.3s"]).expect(1);
    let results = ended.says(&["--until", "12.3", "ping", "partial"]).results();
    assert_eq!(results.0["virtual_seconds"], 12.3);
    assert_eq!(results.task("ping")["state"], "interrupted");
    assert_eq!(results.task("ping")["seconds"], 12.3);
    // Requests at 0, 1, … 12 s, each with ARP or not, and their answers.
    let station = &results.0["links"][0]["endpoints"][0]["station"];
    assert!(station["offered"]["frames"].as_u64().is_some_and(|n| n >= 13), "{station:#}");

    let place = Place::new();
    let limited = format!("{topology}\ntime_limit: 5s\n");
    simulate(&place, &limited, &[]).expect(1).says(&["time_limit", "5"]);
    // A run that ends before is none the worse for it.
    let quick = topology.replace("100", "2");
    simulate(&Place::new(), &quick, &["--until", "1min"]).expect(0).results().passed();
}

#[test]
fn a_loop_of_bridges_without_delay_is_found_and_named() {
    let place = Place::new();
    let topology = "
nodes: { a: { kind: host }, b: { kind: host }, \"s[0-2]\": { kind: bridge } }
links:
  - { ring: \"s[0-2]\" }
  - { pair: [a, s0], ipv4: 10.0.0.0/24 }
  - { pair: [b, s1], ipv4: 10.0.0.0/24 }
tasks: [{ name: ping, run: { a: ping -c 1 10.0.0.2 } }]
";
    let ended = simulate(&place, &topology.replace("10.0.0.2", "10.0.0.77"), &[]).expect(1);
    let results = ended.says(&["stands still", "on link `", "loop of bridges"]).results();
    assert_eq!(results.verdict(), "invalid");
    assert_eq!(results.task("ping")["state"], "interrupted");
}

#[test]
fn a_loop_of_bridges_with_spanning_tree_carries_each_frame_once() {
    let place = Place::new();
    // The bridges forward after two forward delays of 15 s.
    let topology = "
nodes: { a: { kind: host }, b: { kind: host }, \"s[0-2]\": { kind: bridge, stp: true } }
links:
  - { ring: \"s[0-2]\" }
  - { pair: [a, s0], ipv4: 10.0.0.0/24 }
  - { pair: [b, s1], ipv4: 10.0.0.0/24 }
tasks:
  - { name: early, run: { a: { command: ping -c 1 -W 1 b, status: 1 } } }
  - { name: settle, run: { a: sleep 31 } }
  - { name: ping, run: { a: ping -c 3 b } }
";
    let results = simulate(&place, topology, &[]).expect(0).results().passed();
    let output = results.output("ping", "a");
    assert!(output.contains("3 received, 0% packet loss"), "{output}");
    // With three equal bridges the lowest address is the root, whose links all forward; a higher
    // priority makes another the root, and the ping takes the other way round.
    let frames = |topology: &str, link: &str| {
        let results = simulate(&Place::new(), topology, &[]).expect(0).results().passed();
        let links = results.0["links"].as_array().expect("links").clone();
        let link = links.iter().find(|found| found["name"] == link).expect("the link");
        let delivered =
            |end: usize| link["endpoints"][end]["station"]["delivered"]["frames"].as_u64();
        delivered(0).expect("a number") + delivered(1).expect("a number")
    };
    let other = topology.replace(
        "s[0-2]\": { kind: bridge, stp: true }",
        "s[0-1]\": { kind: bridge, stp: true }, s2: { kind: bridge, stp: true, priority: 4096 }",
    );
    let between = "s0--s1";
    assert!(frames(topology, between) > frames(&other, between), "priority makes no difference");
}

#[test]
fn sources_send_at_their_instants_and_replay_captures() {
    let place = Place::new();
    let listed = "
nodes:
  g:
    kind: source
    frames:
      - { at: 1s, every: 100ms, count: 10, size: 100B }
      - { at: 3s, hex: 'ffffffffffff 020000000009 88b5 cafe' }
  s: { kind: source }
links: [{ pair: [g, s], channel: point-to-point, delay: 5ms, rate: 8Mbit/s, mtu: 300 }]
";
    // A frame that is too long for the link is found when the file is read.
    let too_long = listed.replace("size: 100B", "size: 600B");
    simulate(&Place::new(), &too_long, &[]).expect(2).says(&["600", "300"]);
    let ended = simulate(&place, listed, &["--capture", "g--s:s"]).expect(0);
    let results = ended.results().passed();
    let station = |end: usize| results.0["links"][0]["endpoints"][end]["station"].clone();
    assert_eq!(station(0)["offered"]["frames"], 11);
    assert_eq!(station(1)["delivered"], serde_json::json!({ "frames": 11, "bytes": 1016 }));
    // The last frame leaves at 3 s, takes 64 bytes of wire, and 5 ms.
    assert_eq!(results.0["virtual_seconds"], 3.005_064);

    // What was captured, another source sends at the same pace: first frame first.
    let capture = results.0["captures"][0]["files"][0].as_str().expect("a file").to_owned();
    let again = Place::new();
    fs::copy(place.path("out").join(capture), again.path("heard.pcapng")).expect("a capture");
    let replayed = listed.replace(
        &listed[listed.find("    frames:").expect("frames")..listed.find("  s: ").expect("s")],
        "    pcap: heard.pcapng\n",
    );
    let results = simulate(&again, &replayed, &[]).expect(0).results().passed();
    let sent = &results.0["links"][0]["endpoints"][0]["station"];
    assert_eq!(sent["offered"], serde_json::json!({ "frames": 11, "bytes": 1016 }));
    // From the first frame to the last: 2 s less what the lengths make, and 5 ms of delay.
    let end = results.0["virtual_seconds"].as_f64().expect("a time");
    assert!((2.0..2.006).contains(&end), "{end}");
}

#[test]
fn sources_take_part_in_real_time() {
    if !have_root() {
        return;
    }
    let topology = "
nodes:
  g: { kind: source, frames: [{ at: 100ms, every: 10ms, count: 20, size: 100B }] }
  h: { kind: host }
links: [{ pair: [g, h], delay: 5ms }]
";
    let results = Place::new().run(&patient(topology)).expect(0).results().passed();
    let received = &results.0["links"][0]["endpoints"][1]["station"]["delivered"];
    assert_eq!(*received, serde_json::json!({ "frames": 20, "bytes": 2000 }));
}

#[test]
fn routers_run_commands() {
    let place = Place::new();
    let topology = "
nodes:
  a: { kind: host, routes: [{ to: default, via: 10.0.0.2 }] }
  r: { kind: router, init: ip addr show }
  b: { kind: host, routes: [{ to: default, via: 10.0.1.1 }] }
links:
  - { pair: [a, r], delay: 1ms, ipv4: 10.0.0.0/24 }
  - { pair: [r, b], delay: 1ms, ipv4: 10.0.1.0/24 }
tasks:
  - name: look
    run: { r: 'ip route && ping -c 1 a && ping -c 1 b && true' }
  - name: cut
    run: { r: ip link set eth1 down }
  - name: lost
    run: { a: { command: ping -c 1 -W 1 10.0.1.2, status: 1 } }
";
    let results = simulate(&place, topology, &[]).expect(0).results().passed();
    assert!(results.output("look", "r").contains("10.0.1.0/24 dev eth1"));
}

#[test]
fn a_simulation_has_no_nodes_to_reach() {
    let place = Place::new();
    let topology = format!(
        "{TWO}\ntasks: [{{ name: long, run: {{ a: ping -q -i 0.001 b }}, timeout: 100000h }}]\n"
    );
    let mut run = place.begin_with(&topology, &["--time", "virtual"]);
    run.wait_for_event("task-started", "long");
    for verb in [&["exec", "out", "a", "true"][..], &["attach", "out", "a"], &["top", "out"]] {
        place.call(verb).expect(1).says(&["virtual time", "task", "--time realtime"]);
    }
    run.signal(nix::sys::signal::Signal::SIGINT);
    run.end().expect(130);
}

#[test]
fn what_cannot_be_simulated_is_refused_by_name() {
    let place = Place::new();
    let mixed = "
nodes: { a: { kind: host }, vm: { kind: qemu }, ns: { kind: netns } }
links: [{ lan: [a, vm, ns] }]
";
    let refused = simulate(&place, mixed, &[]).expect(2);
    assert!(refused.stderr.contains("vm, ns") && !refused.stderr.contains("a, vm"));
    let more = ["--sync", "hard-limit", "--workers", "2", "--capture", "nowhere"];
    simulate(&place, TWO, &more).expect(2).says(&["--sync", "--workers", "nowhere", "a--b"]);
    place.run_with(TWO, &["--until", "1s"]).expect(2).says(&["--until", "realtime"]);
    assert!(!place.path("out").exists(), "a refused run left a run directory");
}

#[test]
fn captures_have_the_times_of_the_simulation() {
    if !have_program("tshark") {
        return;
    }
    let place = Place::new();
    let topology = format!("{TWO}\ntasks: [{{ name: ping, run: {{ a: ping -c 2 -i 0.5 b }} }}]\n");
    let ended = simulate(&place, &topology, &["--capture", "a--b:a"]).expect(0);
    let captures = ended.results().0["captures"].clone();
    let file = captures[0]["files"][0].as_str().expect("a file").to_owned();
    let fields = ["-T", "fields", "-e", "frame.time_epoch", "-Y", "icmp.type == 8"];
    let output = std::process::Command::new("tshark")
        .arg("-r")
        .arg(place.path("out").join(file))
        .args(fields)
        .output()
        .expect("tshark");
    let times: Vec<f64> = String::from_utf8_lossy(&output.stdout)
        .lines()
        .map(|line| line.parse().expect("seconds"))
        .collect();
    // The first request waits for ARP: there and back again, at 2 ms each.
    assert_eq!(times, [0.004, 0.5], "{}", String::from_utf8_lossy(&output.stderr));
}
