//! Impairments measured from outside: real ping and iperf between namespaces see the delay, the
//! loss and the rate that the file asks for.
//!
//! Lower bounds are exact (nothing arrives early, nothing exceeds a rate), upper bounds allow for a
//! busy machine, and statistical ones are five standard errors wide.

mod common;

use common::{Place, have_program, have_root, patient};

const LAB: &str = r"
name: impaired
nodes:
  a: { kind: netns }
  b: { kind: netns }
links:
  - pair: [a, b]
    name: wire
    delay: 20ms
    jitter: 2ms
    loss: 5%
    ipv4: 10.0.0.0/24
    b->a: { loss: 0%, delay: 10ms }
tasks:
  - name: neighbours
    run: { b: ping -c 3 -i 0.2 -W 5 a }
  - name: ping
    run: { a: ping -c 300 -i 0.01 -W 5 -q b }
    metrics:
      rtt_min: { regex: '= ([\d.]+)/', unit: ms }
      rtt: { regex: '= [\d.]+/([\d.]+)/', unit: ms }
      received: '(\d+) received'
  - name: server
    run: { b: { command: iperf -s -u, background: true, ready: 'UDP port' } }
  - name: datagrams
    run: { a: iperf -c b -u -l 200 -b 2000pps -t 3 }
";

#[test]
fn ping_and_iperf_see_what_the_file_says() {
    if !have_root() || !have_program("ping") || !have_program("iperf") {
        return;
    }
    let place = Place::new();
    let results = place.run(&patient(LAB)).expect(0).results().passed();
    // 20 ms ± 2 there and 10 ms ± 2 back; never faster. The least round trip has an upper bound on a
    // busy machine too; how much later others are there is the machine's affair.
    let (least, mean) = (results.metric("rtt_min"), results.metric("rtt"));
    assert!((26.0..34.0).contains(&least), "least round trip {least} ms");
    assert!((29.0..150.0).contains(&mean), "mean round trip {mean} ms");
    // 5 % of 300 are 15 ± 3.8.
    let received = results.metric("received");
    assert!((266.0..=299.0).contains(&received), "{received} of 300 came back");
    let link = &results.0["links"][0]["endpoints"];
    let sent = link[0]["station"]["transmitted"]["frames"].as_f64().expect("a count");
    let lost = link[1]["station"]["rx_dropped"]["loss"].as_f64().expect("losses");
    let (share, error) = (lost / sent, (0.05_f64 * 0.95 / sent).sqrt());
    assert!(sent > 3_000.0, "only {sent} frames");
    assert!((share - 0.05).abs() < 5.0 * error, "{lost} of {sent} lost: {share} ± {error}");
    assert_eq!(link[0]["station"]["rx_dropped"].as_object().map(serde_json::Map::len), Some(0));
}

const RATE: &str = r"
name: limited
nodes:
  a: { kind: netns }
  b: { kind: netns }
links:
  - pair: [a, b]
    rate: 20Mbit/s
    burst: 32KiB
    delay: 5ms
    overhead: ethernet
    ipv4: 10.0.0.0/24
tasks:
  - name: server
    run: { b: { command: iperf -s, background: true, ready: 'TCP port' } }
  - name: stream
    run: { a: iperf -c b -t 4 -f k }
    metrics: { rate: { regex: '([\d.]+) Kbits/sec', unit: kbit/s } }
";

#[test]
fn a_stream_does_not_exceed_the_rate_and_uses_it() {
    if !have_root() || !have_program("iperf") {
        return;
    }
    let place = Place::new();
    let results = place.run(&patient(RATE)).expect(0).results().passed();
    let link = &results.0["links"][0]["endpoints"];
    let delivered = &link[1]["station"]["delivered"];
    let count = |key: &str| delivered[key].as_f64().expect("a count");
    // Of every 1538 bytes on the wire 1448 are data: 18.8 Mbit/s. What iperf's client has handed
    // to its socket but not yet sent makes its own figure larger, by 4 MB in 4 s at most.
    let wire_bits = 8.0 * (count("bytes") + 24.0 * count("frames"));
    assert!(wire_bits > 0.6 * 4.0 * 20e6, "the stream used {wire_bits} bits of 80 million");
    let rate = results.metric("rate");
    assert!((10_000.0..27_000.0).contains(&rate), "{rate} kbit/s");
}

/// A second of one opportunity a millisecond and one of a quarter of it, as a radio link has.
const TRACE: &str = r"
name: traced
nodes:
  a: { kind: netns }
  b: { kind: netns }
links:
  - pair: [a, b]
    delay: 10ms
    queue: 1000
    ipv4: 10.0.0.0/24
    a->b: { trace: radio.trace }
tasks:
  - name: server
    run: { b: { command: iperf -s, background: true, ready: 'TCP port' } }
  - name: stream
    run: { a: iperf -c b -t 6 -f k }
";

#[test]
fn a_stream_gets_what_a_trace_allows() {
    if !have_root() || !have_program("iperf") {
        return;
    }
    let place = Place::new();
    let fast = (1..=1_000).map(|ms| format!("{ms}\n"));
    let slow = (1_004..=2_000).step_by(4).map(|ms| format!("{ms}\n"));
    place.file("radio.trace", fast.chain(slow).collect::<String>());
    let results = place.run(&patient(TRACE)).expect(0).results().passed();
    let delivered = &results.0["links"][0]["endpoints"][1]["station"]["delivered"];
    let count = |key: &str| delivered[key].as_f64().expect("a count");
    let packets = count("bytes") - 14.0 * count("frames");
    // 1250 opportunities of 1500 bytes every two seconds; what was still queued at the end of the
    // stream goes on to arrive. The lower bound is for a busy machine.
    let task = results.task("stream")["seconds"].as_f64().expect("a time");
    let bound = |seconds: f64| (seconds / 2.0).ceil() * 1_250.0 * 1_500.0;
    assert!(packets <= bound(task + 3.0), "{packets} bytes in {task} s");
    assert!(packets >= 0.5 * 3.0 * 1_250.0 * 1_500.0, "{packets} bytes in {task} s");
}

/// Neighbours are told to each other: a hardware address learned from an ARP packet with wrong bits
/// would cost all packets until the kernel asks again.
const SHARED: &str = r"
name: corrupted
nodes:
  a: { kind: netns, init: ip neighbour replace 10.0.0.2 lladdr 02:00:00:02:00:00 dev eth0 nud permanent }
  b: { kind: netns, init: ip neighbour replace 10.0.0.1 lladdr 02:00:00:01:00:00 dev eth0 nud permanent }
links:
  - lan: [a, b]
    delay: 1ms
    ipv4: 10.0.0.0/24
    corrupt: { probability: 30%, bits: 3 }
tasks:
  - name: ping
    run: { a: { command: ping -c 200 -i 0.01 -w 20 -q b, status: any } }
    metrics: { sent: '(\d+) packets transmitted', received: '(\d+) received' }
";

/// Kernels check what they receive: no one repairs a checksum on the way.
#[test]
fn corrupted_packets_do_not_get_through() {
    if !have_root() || !have_program("ping") || !have_program("ip") {
        return;
    }
    let place = Place::new();
    let results = place.run(&patient(SHARED)).expect(0).results();
    // With a deadline ping goes on until 200 answers have come. Both ways are right with 49 %; three
    // bits that no checksum covers, all in the sender's address, are one case in thousands.
    let (sent, received) = (results.metric("sent"), results.metric("received"));
    let (share, error) = (received / sent, (0.49_f64 * 0.51 / sent).sqrt());
    assert!(sent > 100.0, "only {sent} were sent");
    assert!((share - 0.49).abs() < 5.0 * error + 0.01, "{received} of {sent} came back");
    let ends = &results.0["links"][0]["endpoints"];
    let corrupted = ends[1]["station"]["impaired"]["corrupted"].as_f64().expect("a count");
    assert!(corrupted > 20.0, "{corrupted}");
}
