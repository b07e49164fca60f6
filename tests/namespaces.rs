//! Namespace nodes: a network of them works end to end, and each is a machine of its own that
//! cannot touch the host's files.

mod common;

use std::fs;
use std::path::{Path, PathBuf};

use common::host::Host;
use common::{Place, have_program, have_root, patient, says};

/// The project's yardstick.
const CHAIN: &str = include_str!("../topologies/chain.yaml");

#[test]
fn the_chain_loses_nothing() {
    if !have_root() || !have_program("iperf") {
        return;
    }
    let place = Place::new();
    let more =
        ["--set", "kind=netns", "--set", "pps=100", "--set", "seconds=2", "--set", "nodes=4"];
    let ended = place.run_with(&patient(CHAIN), &more).expect(0);
    let results = ended.results().passed();
    // Two seconds of a datagram every 10 ms, or fewer on a busy machine.
    let sent = results.metric("sent");
    assert!((50.0..=204.0).contains(&sent), "{sent} sent");
    let lost = sent - results.metric("received");
    assert!(lost.abs() <= 1.0, "{lost} of {sent} lost (exact to one datagram)");
    let requested = results.metric("requested_hop_pps");
    assert!((requested - 300.0).abs() < 1e-9, "{requested}");
    let (hop_pps, pps) = (results.metric("hop_pps"), results.metric("received_pps"));
    assert!((hop_pps - 3.0 * pps).abs() < 1e-6, "{hop_pps} is not 3 hops of {pps}");
    let links = results.0["links"].as_array().expect("links");
    assert_eq!(links.len(), 3);
    for link in links {
        // Every datagram crossed every link, and nothing was dropped on the way.
        let (from, to) = (&link["endpoints"][0]["station"], &link["endpoints"][1]["station"]);
        let delivered = to["delivered"]["frames"].as_f64().expect("a count");
        assert!(delivered >= sent, "{link:#}");
        assert_eq!(from["offered"], to["delivered"], "{link:#}");
        assert_eq!(to["rx_dropped"].as_object().map(serde_json::Map::len), Some(0), "{link:#}");
    }
    says(&ended.text(), &["verdict   valid", "outcome   passed", "task      measure", "out"]);
    let manifest = ended.manifest();
    assert_eq!(manifest["exit"], 0, "{manifest:#}");
    assert_eq!(manifest["topology"]["params"]["nodes"], 4, "{manifest:#}");
}

#[test]
fn a_node_is_a_machine_of_its_own() {
    if !have_root() {
        return;
    }
    let place = Place::new();
    let ended = place.run(
        r#"
nodes:
  a: { kind: netns, hostname: first }
  b: { kind: netns }
links:
  - { pair: [a, b], ipv4: 10.9.0.0/24, ipv6: "fd09::/64" }
tasks:
  - name: facts
    run:
      a: |
        hostname || cat /proc/sys/kernel/hostname
        cat /etc/hosts
        ls /proc | grep -c '^[0-9]*$'
        ls /sys/class/net | tr '\n' ' '
        echo; ls -A /tmp | wc -l
        test -w /dev/null && test ! -e /dev/kvm && test ! -e /dev/sda && echo harmless
      b: cat /proc/sys/kernel/hostname /etc/hostname
  - name: talk
    run:
      a: ping -c 1 -W 10 b && ping -6 -c 1 -W 10 b
      b: ping -c 1 -W 10 first
  - name: apart
    run:
      a: { command: sleep 1000, name: sleeper, background: true }
      b: "! grep -l -a -s -x sleep /proc/[0-9]*/comm"
"#,
    );
    let results = ended.expect(0).results().passed();
    let facts = results.output("facts", "a");
    let mut lines = facts.lines();
    assert_eq!(lines.next(), Some("first"), "{facts}");
    says(facts, &["10.9.0.1 a first", "10.9.0.2 b", "fd09::1 a first", "fd09::2 b"]);
    let rest: Vec<&str> =
        lines.skip_while(|line| !line.bytes().all(|b| b.is_ascii_digit())).collect();
    let processes: u32 = rest[0].parse().expect("a number of processes");
    assert!((2..20).contains(&processes), "the host's processes are visible: {processes}\n{facts}");
    assert_eq!(rest[1].trim(), "eth0 lo", "{facts}");
    assert_eq!(rest[2].trim(), "0", "the node's /tmp is not its own:\n{facts}");
    assert_eq!(rest[3], "harmless", "{facts}");
    assert_eq!(results.output("facts", "b"), "b\nb\n");
}

#[test]
fn a_node_cannot_change_the_hosts_files() {
    if !have_root() {
        return;
    }
    // Not below /tmp, where the node sees nothing of the host anyway.
    let built = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let place = if built.starts_with("/tmp") { Path::new("/var/tmp") } else { built };
    let markers = tempfile::tempdir_in(place).expect("a directory");
    let at = |name: &str| markers.path().join(name);
    for name in ["overwritten", "appended", "deleted", "moved", "chmodded", "linked"] {
        fs::write(at(name), "the host's\n").expect("a marker");
    }
    fs::create_dir(at("tree")).expect("a directory");
    fs::write(at("tree/leaf"), "the host's\n").expect("a marker");
    let before = listing(&markers.path().to_owned());
    let in_tmp = tempfile::NamedTempFile::new().expect("a marker");
    fs::write(in_tmp.path(), "the host's\n").expect("a marker");
    let etc_hosts = fs::read("/etc/hosts").unwrap_or_default();
    let host = Host::now();

    // Who is not root gets no overlay from the kernel: the node sees the host's files read-only.
    let is_root = nix::unistd::geteuid().is_root();
    let (kept_markers, wanted) = if is_root {
        (format!("{0}/new, {0}/moved-away,", markers.path().display()), "0")
    } else {
        (String::new(), "any")
    };
    let place = Place::new();
    let ended = place.run(&format!(
        r"
nodes:
  a: {{ kind: netns, keep: [{kept_markers} /tmp/own, /no/such/file] }}
  b: {{ kind: netns }}
tasks:
  - name: vandal
    run:
      a:
        status: {wanted}
        command: |
          echo own > /tmp/own
          echo 6.6.6.6 evil >> /etc/hosts
          rm -f /etc/hostname
          cd {dir} || exit 1
          cat overwritten
          echo evil > overwritten
          echo evil >> appended
          rm deleted
          mv moved moved-away
          chmod 000 chmodded
          ln -sf /etc/passwd linked
          rm -rf tree
          echo mine > new
          cat overwritten new; ls
  - name: neighbour
    run:
      b: {{ status: {wanted}, command: 'ls /tmp; grep -c evil /etc/hosts; cat {dir}/overwritten' }}
  - name: after
    run:
      a: {{ status: {wanted}, command: 'grep -c evil /etc/hosts; cat {dir}/overwritten' }}
  - name: unmount
    run:
      b: mount -o remount,ro /; umount -a -l; true
",
        dir = markers.path().display(),
    ));
    let ended = ended.expect(1);
    let results = ended.results();
    let kept = |path: PathBuf| {
        let path = place.path("out/kept/a").join(path.strip_prefix("/").expect("absolute"));
        fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
    };
    // In the node all of it happened, its neighbour saw none of it …
    let (after, neighbour) = (results.output("after", "a"), results.output("neighbour", "b"));
    assert_eq!(after.lines().next(), Some("1"), "{after}");
    assert_eq!(neighbour.lines().next(), Some("0"), "{neighbour}");
    assert_eq!(kept("/tmp/own".into()), "own\n");
    if is_root {
        let said = results.output("vandal", "a");
        assert!(said.starts_with("the host's\nevil\nmine\n"), "{said}");
        assert!(!said.contains("deleted\n") && said.contains("moved-away\n"), "{said}");
        assert_eq!(after, "1\nevil\n");
        assert_eq!(neighbour, "0\nthe host's\n");
        assert_eq!(kept(at("new")), "mine\n");
        assert_eq!(kept(at("moved-away")), "the host's\n");
    }
    // … and neither did the host.
    assert_eq!(listing(&markers.path().to_owned()), before);
    assert_eq!(fs::read_to_string(in_tmp.path()).expect("the marker"), "the host's\n");
    assert_eq!(fs::read("/etc/hosts").unwrap_or_default(), etc_hosts);
    assert_eq!(Host::now(), host);
    assert_eq!(results.errors().lines().count(), 1, "{}", results.errors());
    says(&results.errors(), &["node a", "cannot keep /no/such/file"]);
}

/// Names, modes and contents of what is below a directory.
fn listing(directory: &PathBuf) -> Vec<String> {
    use std::os::unix::fs::PermissionsExt;
    let mut found = Vec::new();
    for entry in fs::read_dir(directory).expect("a directory").flatten() {
        let (path, kind) = (entry.path(), entry.file_type().expect("a type"));
        let mode = entry.metadata().expect("metadata").permissions().mode();
        if kind.is_dir() {
            found.push(format!("{} {mode:o}", path.display()));
            found.extend(listing(&path));
        } else {
            let text = fs::read_to_string(&path).expect("a text");
            found.push(format!("{} {mode:o} {kind:?} {text}", path.display()));
        }
    }
    found.sort();
    found
}

#[test]
fn daemons_live_as_long_as_their_node() {
    if !have_root() {
        return;
    }
    let place = Place::new();
    let mut run = place.begin(
        r"
nodes: { a: { kind: netns } }
tasks:
  - name: start
    # A daemon as it should be: a session of its own, no terminal, the starter gone.
    run: { a: 'setsid sleep 98765 > /dev/null 2>&1 < /dev/null & until pidof sleep > /dev/null; do :; done; echo started' }
  - name: later
    run: { a: 'pidof sleep > /dev/null && echo still there; sleep 2' }
",
    );
    run.wait_for_event("task-started", "later");
    let sandbox = common::host::namespace_of_children(run.pid()).expect("a sandbox");
    let daemons = || {
        let inside = common::host::processes_in(sandbox);
        inside.into_iter().filter(|(_, line)| line.ends_with("sleep 98765")).count()
    };
    run.wait_for("the daemon", |_| (daemons() == 1).then_some(()));
    let results = run.end().expect(0).results().passed();
    assert_eq!(results.output("start", "a"), "started\n");
    assert_eq!(results.output("later", "a"), "still there\n");
    common::wait_for("the daemon's end", || (daemons() == 0).then_some(()));
}

#[test]
fn many_nodes_come_up_and_reach_each_other() {
    if !have_root() {
        return;
    }
    let place = Place::new();
    let ended = place.run_with(
        r#"
params: { nodes: 32 }
nodes: { "n[0-${nodes-1}]": { kind: netns } }
links: [{ lan: "n[0-${nodes-1}]", ipv4: 10.7.0.0/24 }]
tasks:
  - name: all
    run: { "n[1-${nodes-1}]": "ping -c 1 -W 30 n0" }
"#,
        &["--set", "nodes=24"],
    );
    let results = ended.expect(0).results().passed();
    let commands = results.task("all")["commands"].as_array().expect("commands");
    assert_eq!(commands.len(), 23);
    assert!(commands.iter().all(|command| command["status"] == 0));
    assert!(results.task("all")["start_skew_ns"].as_u64().is_some(), "{:#}", results.task("all"));
}

#[test]
fn what_the_file_says_of_a_node_is_set_up() {
    if !have_root() {
        return;
    }
    let place = Place::new();
    let ended = place.run(
        r#"
nodes:
  left: { kind: netns, routes: [{ to: default, via: 10.0.0.2 }], init: "echo first > /tmp/init" }
  r: { kind: netns, forwarding: true, init: [mkdir /tmp/d, test -d /tmp/d] }
  right:
    kind: netns
    routes: [{ to: 10.0.0.0/24, via: 10.0.1.1 }]
    interfaces: { eth0: { mac: "02:00:00:00:be:ef", mtu: 1400 } }
  sw: { kind: netns, bridges: { br0: { ports: [eth0, eth1], ipv4: 10.0.1.99/24 } } }
links:
  - { pair: [left, r], ipv4: 10.0.0.0/24 }
  - { pair: [r, sw], ipv4: 10.0.1.0/24 }
  - { pair: [sw, right], ipv4: 10.0.1.0/24 }
tasks:
  - name: look
    run:
      left: "cat /tmp/init; ip route; ping -c 1 -W 10 right"
      right: "ip link show eth0"
      # Whether or not the host has loaded what shows bridged frames to iptables.
      sw: "ip -o link show master br0; ping -c 1 -W 10 10.0.1.1; cat /proc/sys/net/bridge/bridge-nf-call-iptables || echo 0"
"#,
    );
    let ended = ended.expect(0);
    let results = ended.results().passed();
    says(
        results.output("look", "left"),
        &["first\n", "default via 10.0.0.2", "ttl=63", " 0% packet loss"],
    );
    says(results.output("look", "right"), &["02:00:00:00:be:ef", "mtu 1400", "UP"]);
    says(results.output("look", "sw"), &["eth0", "eth1", " 0% packet loss", "\n0\n"]);
}

#[test]
fn a_node_that_cannot_be_set_up_is_named() {
    if !have_root() {
        return;
    }
    let place = Place::new();
    let ended = place.run(
        r#"
nodes:
  good: { kind: netns }
  bad: { kind: netns, init: ["true", "echo all is well; echo it is not; exit 7"] }
  lost: { kind: netns, routes: [{ to: default, via: 192.0.2.1 }] }
tasks: [{ name: never, run: { good: echo } }]
"#,
    );
    let ended = ended.expect(1).says(&["node bad", "it is not", "status 7", "node lost"]);
    let results = ended.results();
    says(&results.errors(), &["init command `echo all is well", "status 7", "node lost"]);
    assert_eq!(results.node("good")["ready"], true);
    assert_eq!(results.node("bad")["ready"], false);
    assert_eq!(results.task("never")["ran"], false);
}
