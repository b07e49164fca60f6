//! Virtual machines end to end: the chain by each way of attaching, mixed with namespaces, and what
//! the file configures in a guest.

mod common;

use std::io::Write;

use common::{Place, have_qemu, patient, qemu_turn, says};

/// The project's yardstick.
const CHAIN: &str = include_str!("../topologies/chain.yaml");

#[test]
fn the_chain_loses_nothing_by_tap_bridge_and_by_socket() {
    if !have_qemu() {
        return;
    }
    let _turn = qemu_turn();
    for attach in ["tap-bridge", "socket"] {
        let place = Place::new();
        let attachment = format!("attach={attach}");
        let more = ["--set", &attachment, "--set", "pps=200", "--set", "seconds=3"];
        let ended = place.run_with(&patient(CHAIN), &more).expect(0);
        let results = ended.results().passed();
        let (sent, received) = (results.metric("sent"), results.metric("received"));
        // On a busy machine the guest sends fewer than asked.
        assert!((100.0..=610.0).contains(&sent), "{attach}: {sent} sent");
        let lost = sent - received;
        assert!(lost.abs() <= 1.0, "{attach}: {lost} of {sent} lost (exact to one datagram)");
        // The receiver's clock is the guest's, the client's is ours: a wrong one shows here. The
        // client takes its time to start and end, too.
        let by_guest = results.metric("server_seconds");
        let by_host = results.command("measure", "client")["seconds"].as_f64().expect("a time");
        let ratio = by_guest / by_host;
        assert!(
            (0.5..1.05).contains(&ratio),
            "{attach}: {by_guest} s by the guest, {by_host} here"
        );
        assert_eq!(results.verdict(), "valid", "{attach}: {:#}", results.0["verdict"]);
        says(&ended.text(), &["nodes     3 ready", "task      measure", "verdict   valid"]);
        let links = results.0["links"].as_array().expect("links");
        for link in links {
            let delivered = link["endpoints"][1]["station"]["delivered"]["frames"].as_u64();
            assert!(delivered.is_some_and(|frames| frames as f64 >= sent), "{attach}: {link:#}");
        }
        for node in ["n0", "n1", "n2"] {
            assert!(place.path(&format!("out/console/{node}.log")).exists(), "{attach}: {node}");
        }
        let acceleration = ended.manifest()["acceleration"].to_string();
        assert!(acceleration.contains("kvm") || acceleration.contains("tcg"), "{acceleration}");
    }
}

#[test]
fn a_guest_is_what_the_file_says_beside_a_namespace_on_one_link() {
    if !have_qemu() {
        return;
    }
    let _turn = qemu_turn();
    let place = Place::new();
    let ended = place
        .run(
            r#"
nodes:
  vm:
    kind: qemu
    hostname: machine
    memory: 192MiB
    vcpus: 2
    forwarding: true
    interfaces:
      up: { mac: "02:00:00:00:aa:01", ipv4: 10.1.0.1/24, ipv6: "fd01::1/64" }
      down: { mac: "02:00:00:00:aa:02", ipv4: 10.2.0.1/24 }
    init: [ "echo from-init > /tmp/init" ]
    keep: [ /tmp/init ]
  ns: { kind: netns, interfaces: { eth0: { ipv4: 10.1.0.2/24, ipv6: "fd01::2/64" } }, routes: [ { to: 10.2.0.0/24, via: 10.1.0.1 } ] }
  far: { kind: netns, interfaces: { eth0: { ipv4: 10.2.0.2/24 } }, routes: [ { to: default, via: 10.2.0.1 } ] }
links:
  # The names are the file's, against the order of attachment.
  - { pair: [ "far:eth0", "vm:down" ] }
  - { pair: [ "ns:eth0", "vm:up" ], channel: point-to-point, delay: 5ms }
tasks:
  - name: look
    run:
      vm: "hostname; nproc; cat /tmp/init; cat /sys/class/net/up/address /sys/class/net/down/address; ip -br -4 addr show up"
  - name: reach
    run:
      ns: "ping -c 3 -i 0.3 far && ping -6 -c 1 fd01::1 | grep -c ' 1 received'"
    metrics: { rtt: { from: ns, regex: "= [\\d.]+/([\\d.]+)/", unit: ms } }
"#,
        )
        .expect(0);
    let results = ended.results().passed();
    let look = results.output("look", "vm");
    let lines: Vec<&str> = look.lines().collect();
    assert_eq!(
        &lines[..5],
        ["machine", "2", "from-init", "02:00:00:00:aa:01", "02:00:00:00:aa:02"],
        "{look}"
    );
    says(look, &["10.1.0.1/24"]);
    says(results.output("reach", "ns"), &["3 received", "ttl=63"]);
    // 5 ms each way, and no ping is ever earlier than that; how much later is the machine's affair.
    let rtt = results.metric("rtt");
    assert!((10.0..2000.0).contains(&rtt), "{rtt} ms");
    let kept = std::fs::read_to_string(place.path("out/kept/vm/tmp/init"));
    assert_eq!(kept.expect("kept from the guest"), "from-init\n");
}

#[test]
fn attach_is_a_terminal_beside_the_run() {
    if !have_qemu() {
        return;
    }
    let _turn = qemu_turn();
    let place = Place::new();
    let mut run = place.begin(
        "nodes:\n  vm: { kind: qemu }\ntasks:\n  - { name: busy, run: { vm: sleep 1000 }, timeout: 2000s }\n",
    );
    run.wait_for_event("task-started", "busy");
    let mut command = place.tapestry(&["attach", "out", "vm"]);
    let (reader, mut writer) = std::io::pipe().expect("a pipe");
    command.stdin(std::process::Stdio::from(reader));
    let mut attached = place.start(command);
    // The shell starts with the first line; what comes before that may be lost.
    attached.wait_for("an answer from the guest", |attached| {
        writer.write_all(b"echo $((6 * 7))-on-$(hostname)\n").expect("typed");
        std::thread::sleep(std::time::Duration::from_millis(200));
        String::from_utf8_lossy(&attached.stdout()).contains("42-on-vm").then_some(())
    });
    place.call(&["attach", "out", "vm"]).expect(1).says(&["vm", "another is attached"]);
}
