//! iperf between hosts: what it prints, and how fast it is.

mod common;

use common::{Lab, host, interface};
use tapestry_core::{DataRate, SimTime};
use tapestry_models::{HostConfig, LinkConfig, QueueConfig};

fn link(mbits: u64, delay_ms: u64, queue_frames: u32) -> LinkConfig {
    LinkConfig {
        rate: DataRate::from_bits_per_sec(mbits * 1_000_000),
        delay: SimTime::from_millis(delay_ms),
        queue: QueueConfig::frames(queue_frames),
        ..LinkConfig::point_to_point("l")
    }
}

fn pair(link: LinkConfig) -> Lab {
    Lab::pair(link, "10.0.0.1/24", "10.0.0.2/24")
}

/// 4,000 datagrams and the closing one; at 100 Mbit/s nothing is lost.
#[test]
fn udp_as_the_chain_runs_it() {
    let mut lab = pair(link(100, 1, 100));
    // So that the first datagram does not wait for ARP.
    lab.run("n0", "ping -c 1 10.0.0.2");
    let server = lab.start("n1", "iperf -s -u -w 2M");
    assert!(lab.commands[1].0.contains("Server listening on UDP port 5001"));
    let (status, client) = lab.run("n0", "iperf -c 10.0.0.2 -u -l 1470 -b 2000pps -t 2 -i 1");
    assert_eq!(status, 0);
    let (status, text) = lab.stop("n1", server);
    assert_eq!(status, 0);
    assert!(client.contains("Sent 4002 datagrams\n"), "{client}");
    let summary = "0.0000-2.0000 sec  5.61 MBytes  23.5 Mbits/sec   0.000 ms 0/4001 (0%)\n";
    assert!(text.contains(summary), "{text}");
    assert!(client.contains(&format!("[  1] Server Report:\n[ ID] Interval       Transfer     Bandwidth        Jitter   Lost/Total Datagrams\n[  1] {summary}")), "{client}");
    assert!(client.contains("[  1] 1.0000-2.0000 sec  2.80 MBytes  23.5 Mbits/sec\n"), "{client}");
    assert_eq!(lab.network.poll_timeout(), None);
}

#[test]
fn udp_loses_what_the_link_cannot_carry() {
    let mut lab = pair(link(1, 1, 10));
    let server = lab.start("n1", "iperf -s -u -e");
    let (_, client) = lab.run("n0", "iperf -c 10.0.0.2 -u -b 2m -t 5 -P 2 -e");
    let (_, text) = lab.stop("n1", server);
    assert!(client.contains("[SUM-2] Sent"), "{client}");
    let lost: f64 = text
        .lines()
        .filter_map(|line| line.split(" (").nth(1)?.split('%').next()?.parse::<f64>().ok())
        .sum::<f64>()
        / 2.0;
    assert!((70.0..80.0).contains(&lost), "{text}");
}

#[test]
fn nobody_there() {
    let mut lab = pair(link(100, 1, 100));
    let (status, text) = lab.run("n0", "iperf -c 10.0.0.2 -u -n 3000");
    assert_eq!(status, 0);
    assert!(
        text.contains("WARNING: did not receive ack of last datagram after 10 tries."),
        "{text}"
    );
    let (status, text) = lab.run("n0", "iperf -c 10.0.0.2 -t 1");
    assert_eq!(status, 1);
    assert!(text.contains("tcp connect failed: Connection refused"), "{text}");
    for wrong in ["iperf", "iperf -c", "iperf -s -l x", "iperf -q", "iperf -c nowhere"] {
        assert_eq!(lab.run("n0", wrong).0, 1, "{wrong}");
    }
}

fn goodput(mbits: u64, delay_ms: u64, queue: u32, options: &str) -> f64 {
    let mut lab = pair(link(mbits, delay_ms, queue));
    let server = lab.start("n1", "iperf -s -i 1");
    let (status, client) = lab.run("n0", &format!("iperf -c 10.0.0.2 -t 8 {options}"));
    assert_eq!(status, 0, "{client}");
    let (_, text) = lab.stop("n1", server);
    let rates: Vec<f64> = text
        .lines()
        .filter(|line| line.starts_with("[  1]") && line.ends_with("Mbits/sec"))
        .map(|line| line.rsplit(' ').nth(1).unwrap().parse().unwrap())
        .collect();
    assert!(rates.len() >= 8, "{text}");
    rates[3..8].iter().sum::<f64>() / 5.0
}

/// Goodput of 1,460 in 1,518 bytes: 96.2 Mbit/s. The queue holds 100 Mbit/s × 20 ms = 165 frames.
#[test]
fn tcp_fills_the_link_after_slow_start() {
    let best = 100.0 * 1_460.0 / 1_518.0;
    let cubic = goodput(100, 10, 165, "");
    assert!(cubic >= 0.94 * best, "{cubic} of {best} Mbit/s");
    let reno = goodput(100, 10, 165, "-Z reno");
    assert!(reno >= 0.94 * best, "{reno} of {best} Mbit/s");
}

#[test]
fn tcp_limits_and_parallel_streams() {
    let mut lab = pair(link(100, 1, 100));
    let server = lab.start("n1", "iperf -s");
    let (status, text) = lab.run("n0", "iperf -c 10.0.0.2 -n 1M -P 3 -w 32K");
    assert_eq!(status, 0, "{text}");
    assert_eq!(text.matches("1.00 MBytes").count(), 3, "{text}");
    assert!(text.contains("[SUM] 0.0000-0."), "{text}");
    let (status, text) = lab.run("n0", "iperf -c 10.0.0.2 -b 10m -l 10K -t 3");
    assert_eq!(status, 0, "{text}");
    assert!(text.contains("10.0 Mbits/sec") || text.contains("9.9"), "{text}");
    let (_, text) = lab.stop("n1", server);
    assert_eq!(text.matches("1.00 MBytes").count(), 3, "{text}");
    assert_eq!(text.matches("connected with 10.0.0.1").count(), 4, "{text}");
}

/// A real server takes the first datagram's time under way for jitter, so hosts send the date.
#[test]
fn datagrams_carry_the_hosts_clock() {
    let epoch = SimTime::from_secs(1_700_000_000);
    let hosts = [(1, "n0"), (2, "n1")].map(|(number, name)| HostConfig {
        // The other's clock is two seconds ahead, as `-e` shows.
        epoch: epoch + SimTime::from_secs(2 * u64::from(number - 1)),
        ..host(name, vec![interface(number, &[&format!("10.0.0.{number}/24")])])
    });
    let mut lab = Lab::new(vec![(link(100, 1, 100), vec![("n0", 0), ("n1", 0)])], hosts.into());
    lab.run("n0", "ping -c 1 10.0.0.2");
    let server = lab.start("n1", "iperf -s -u -e");
    lab.run("n0", "iperf -c 10.0.0.2 -u -b 200pps -t 1");
    let (_, text) = lab.stop("n1", server);
    assert!(text.contains(" 0.000 ms 0/201 (0%) 2001.12") && text.contains("pps"), "{text}");
}
