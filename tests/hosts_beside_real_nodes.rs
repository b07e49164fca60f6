//! An in-process host in a real-time lab is a neighbour like any other: a namespace and a virtual
//! machine, with the real `ping` and the real iperf 2, reach it and are reached by it, over UDP and TCP.

mod common;

use common::{Place, Results, have_program, have_qemu, have_root, patient, qemu_turn};

/// `own` is in-process, `real` a system with programs of its own. In-process nodes are also called
/// by name by real ones: both know all names.
const LAB: &str = r"
params: { kind: netns }
nodes:
  own: { kind: host }
  real: { kind: '${kind}', memory: 128MiB }
links:
  - { pair: [own, real], channel: point-to-point, rate: 20Mbit/s, delay: 2ms, ipv4: 10.0.0.0/24, ipv6: 'fd00::/64' }
tasks:
  - name: ping
    run:
      own: ping -c 3 -i 0.2 real && ping -6 -c 2 -i 0.2 ${ipv6('real')}
      real: ping -c 3 -i 0.3 own && ping -6 -c 2 -i 0.3 ${ipv6('own')}
  - name: serve-udp
    run:
      own: { name: own-udp, command: iperf -s -u, background: true, ready: UDP port }
      real: { name: real-udp, command: iperf -s -u, background: true, ready: UDP port }
  - name: udp-to-real
    run: { own: iperf -c real -u -l 1000 -b 200pps -t 2 }
  - name: udp-to-own
    run: { real: iperf -c own -u -l 1000 -b 200pps -t 2 }
    stop: [own-udp, real-udp]
  - name: serve-tcp
    run:
      own: { name: own-tcp, command: iperf -s, background: true, ready: TCP port }
      real: { name: real-tcp, command: iperf -s, background: true, ready: TCP port }
  - name: tcp-to-real
    run: { own: iperf -c real -n 1M }
  - name: tcp-to-own
    run: { real: iperf -c own -n 1M }
    stop: [own-tcp, real-tcp]
";

/// All matches of a pattern's first group in what a command said, as numbers.
fn numbers(text: &str, pattern: &str) -> Vec<f64> {
    let pattern = regex::Regex::new(pattern).expect("a pattern");
    let found = pattern.captures_iter(text).map(|found| found[1].parse().expect("a number"));
    found.collect()
}

fn check(results: &Results) {
    for node in ["own", "real"] {
        let said = results.output("ping", node);
        assert_eq!(numbers(said, r"(\d+) received"), [3.0, 2.0], "{node}: {said}");
        // Twice 2 ms, and at most what a busy machine adds.
        let round_trips = numbers(said, r"time=([\d.]+) ms");
        assert!(round_trips.iter().all(|&time| time >= 4.0), "{node}: {round_trips:?}");
    }
    for (client, server, task) in
        [("own", "real-udp", "udp-to-real"), ("real", "own-udp", "udp-to-own")]
    {
        let (sent, heard) = (results.output(task, client), results.output("udp-to-own", server));
        let sent = numbers(sent, r"Sent (\d+) datagrams");
        // A machine without time to spare sends fewer than 400.
        assert!(
            matches!(sent[..], [count] if (100.0..=410.0).contains(&count)),
            "{task}: {sent:?}"
        );
        // What the server counted, and what it told the client, which prints it, too.
        let lost = numbers(heard, r"(\d+)/\s*\d+ \(");
        let total = numbers(heard, r"\d+/\s*(\d+) \(");
        assert!(!lost.is_empty() && lost.iter().all(|&lost| lost == 0.0), "{task}: {heard}");
        assert!(total.iter().all(|total| (total - sent[0]).abs() <= 1.0), "{task}: {heard}");
        let report = results.output(task, client);
        assert!(report.contains("Server Report"), "{task}: {report}");
        // A real server starts its filter with the first time under way, so the clocks must agree.
        let jitter = numbers(heard, r"([\d.]+) ms +\d+/");
        assert!(!jitter.is_empty() && jitter.iter().all(|&ms| ms < 100.0), "{task}: {jitter:?}");
    }
    for (client, server, task) in
        [("own", "real-tcp", "tcp-to-real"), ("real", "own-tcp", "tcp-to-own")]
    {
        for (who, said) in
            [(client, results.output(task, client)), (server, results.output("tcp-to-own", server))]
        {
            // iperf's own way of writing a mebibyte that it has seen whole.
            let whole = said.contains("1.00 MBytes") || said.contains("1024 KBytes");
            assert!(whole, "{task}: {who}: {said}");
            let rate = numbers(said, r"([\d.]+) Mbits/sec");
            // 20 Mbit/s carry 18.8 Mbit/s of data; the client's last bytes are not yet through.
            assert!(rate.iter().all(|rate| (0.1..=25.0).contains(rate)), "{task}: {who}: {said}");
        }
    }
}

#[test]
fn a_namespace_and_a_host_reach_each_other() {
    if !have_root() || !have_program("ping") || !have_program("iperf") {
        return;
    }
    check(&Place::new().run(&patient(LAB)).expect(0).results().passed());
}

#[test]
fn a_virtual_machine_and_a_host_reach_each_other() {
    if !have_qemu() {
        return;
    }
    let _turn = qemu_turn();
    check(
        &Place::new().run_with(&patient(LAB), &["--set", "kind=qemu"]).expect(0).results().passed(),
    );
}
