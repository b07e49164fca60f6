//! Two runs side by side: what differs is shown and flagged, what cannot be compared is said.

mod common;

use common::{Ended, Place, have_root, patient};
use serde_json::Value;

/// Five requests a second apart over a link whose delay is a parameter.
const PING: &str = "
params: { delay: 2ms }
nodes: { a: { kind: host }, b: { kind: host } }
links: [{ pair: [a, b], name: wire, channel: point-to-point, delay: '${delay}', ipv4: 10.0.0.0/24 }]
tasks:
  - name: ping
    run: { a: ping -c 5 -i 1 b }
    metrics: { rtt: { regex: 'mdev = ([\\d.]+)/', unit: ms } }
";

/// Runs the topology in virtual time, in the directory `out`.
fn simulate(place: &Place, out: &str, more: &[&str]) -> Ended {
    place.file("lab.yaml", PING);
    let run = ["run", "lab.yaml", "--time", "virtual", "--capture", "all", "--out", out];
    place.call(&[&run, more].concat()).expect(0)
}

fn json(place: &Place, arguments: &[&str]) -> Value {
    let compared = place.call(&[&["compare", "--json"], arguments].concat()).expect(0);
    serde_json::from_slice(&compared.stdout).expect("JSON")
}

#[test]
fn a_slower_link_shows_in_metrics_and_arrivals_but_not_in_counters() {
    let place = Place::new();
    simulate(&place, "a", &[]);
    simulate(&place, "b", &["--set", "delay=3ms"]);
    let compared = json(&place, &["a", "b"]);
    let rtt = &compared["metrics"][0];
    assert_eq!((&rtt["name"], &rtt["flagged"]), (&"rtt".into(), &true.into()));
    assert!(rtt["relative"].as_f64().is_some_and(|r| (0.45..0.55).contains(&r)), "{rtt:#}");
    assert!(rtt["half_width"].is_null() && rtt["beyond_interval"].is_null());
    let links = compared["links"].as_array().expect("counters");
    assert!(links.len() >= 12 && links.iter().all(|row| row["flagged"] == false), "{links:#?}");
    // All times count from the first frame both have, a broadcast that is 1 ms later in B. What
    // comes then is later by as much again or twice: requests that waited for no answer by nothing.
    let arrivals = &compared["arrivals"][0];
    assert_eq!((&arrivals["link"], &arrivals["frames"]), (&"wire".into(), &12.into()));
    assert_eq!((&arrivals["only_a"], &arrivals["only_b"]), (&0.into(), &0.into()));
    let p99 = arrivals["p99_ns"].as_u64().expect("a number");
    assert!((1_000_000..=3_000_000).contains(&p99), "{arrivals:#}");

    // The difference is below a higher threshold.
    assert_eq!(json(&place, &["a", "b", "--threshold", "60%"])["metrics"][0]["flagged"], false);
    let said = place.call(&["compare", "a", "b"]).expect(0).text();
    common::says(&said, &["rtt", "<--", "+50", "wire: 12 frames", "more are equal", "virtual"]);
    let same = place.call(&["compare", "a", "a"]).expect(0).text();
    assert!(!same.contains("<--") && same.contains("greatest 0.000 ms"), "{same}");
}

#[test]
fn replicates_have_a_confidence_interval() {
    let place = Place::new();
    simulate(&place, "a", &[]);
    for (name, delay) in [("b1", "2.9ms"), ("b2", "3ms"), ("b3", "3.1ms")] {
        simulate(&place, name, &["--set", &format!("delay={delay}")]);
    }
    let rtt = json(&place, &["a", "b1", "b2", "b3"])["metrics"][0].clone();
    // 5.8, 6 and 6.2 ms: standard deviation 0.2, so 4.303 x 0.2 / sqrt(3).
    assert!(rtt["half_width"].as_f64().is_some_and(|h| (h - 0.497).abs() < 0.01), "{rtt:#}");
    assert_eq!(rtt["beyond_interval"], true);
    let near = json(&place, &["b2", "b1", "b2", "b3"])["metrics"][0].clone();
    assert_eq!(near["beyond_interval"], false, "{near:#}");
}

#[test]
fn real_time_is_compared_with_virtual_time() {
    if !have_root() {
        return;
    }
    let place = Place::new();
    simulate(&place, "a", &[]);
    place.file("lab.yaml", patient(PING));
    place.call(&["run", "lab.yaml", "--capture", "all", "--out", "b"]).expect(0);
    let compared = json(&place, &["a", "b"]);
    assert_eq!(
        (&compared["a"]["time"], &compared["b"][0]["time"]),
        (&"virtual".into(), &"realtime".into())
    );
    assert_eq!(compared["missing"], Value::Array(Vec::new()));
    assert_eq!(compared["arrivals"][0]["frames"], 12, "{:#}", compared["arrivals"]);
}

#[test]
fn what_is_no_run_is_refused() {
    let place = Place::new();
    simulate(&place, "a", &[]);
    place.call(&["compare", "a", "nowhere"]).expect(2).says(&["nowhere"]);
    place.call(&["compare", "a"]).expect(2).says(&["RUN_B"]);
    place.call(&["compare", "a", "a", "--threshold", "much"]).expect(2).says(&["percent"]);
    simulate(&place, "broken", &[]);
    place.file("broken/results.json", "{}");
    place.call(&["compare", "a", "broken"]).expect(2).says(&["broken/results.json"]);
    simulate(&place, "cut", &[]);
    place.file("cut/captures/wire.pcapng", "nothing");
    place.call(&["compare", "a", "cut"]).expect(2).says(&["cut/captures/wire.pcapng"]);
    std::fs::remove_file(place.path("cut/results.json")).expect("removed");
    place.call(&["compare", "a", "cut"]).expect(2).says(&["cut/results.json", "has ended"]);
}
