//! What nodes may do to their own interfaces and to the medium while traffic runs: the lab goes on,
//! nothing is lost unsaid, and what happened is named with node and link.

mod common;

use common::host::{Host, is_locked, is_open_below, processes_with};
use common::{Place, have_program, have_root, patient, says, wait_for};
use serde_json::Value;

/// Three links in a row of namespaces; the middle one's interfaces are played with. `n0` floods `n1`
/// as fast as it can, so that traffic runs all the time.
fn lab(mischief: &str) -> String {
    patient(&format!(
        r#"
nodes: {{ "n[0-2]": {{ kind: netns, forwarding: true }} }}
links:
  - {{ pair: [n0, n1], name: played, ipv4: 10.9.0.0/24 }}
  - {{ pair: [n1, n2], name: spared, ipv4: 10.9.1.0/24 }}
tasks:
  - name: flood
    run:
      n0: {{ name: flood, command: "ping -q -f 10.9.0.2", background: true, ready: PING }}
  - name: mischief
    run:
      n1: "{mischief}"
  - name: after
    stop: flood
    run:
      n2: "ping -c 3 -i 0.2 -W 20 10.9.1.1"
"#
    ))
}

/// The states that the notices tell of an endpoint, in order.
fn states(results: &common::Results, endpoint: &str) -> Vec<String> {
    let notices = results.0["notices"].as_array().expect("a list of notices");
    let of_it = notices.iter().filter(|notice| notice["endpoint"] == endpoint);
    of_it
        .map(|notice| {
            assert_eq!(notice["link"], "played", "{notice:#}");
            notice["state"].as_str().expect("a state").to_owned()
        })
        .collect()
}

/// Frames of link `link` that endpoint `end` handed over: those counted at the station are those the
/// port has, and each of them is sent, pending or dropped with a reason.
fn assert_port_accounted(results: &common::Results, link: usize, end: usize) {
    let endpoint = &results.0["links"][link]["endpoints"][end];
    let count = |value: &Value| value.as_u64().unwrap_or_else(|| panic!("{endpoint:#}"));
    let sum = |drops: &Value| drops.as_object().map_or(0, |d| d.values().map(count).sum::<u64>());
    let (station, port) = (&endpoint["station"], &endpoint["port"]);
    let arrived = count(&port["tx_frames"]) + count(&port["tx_pending"]) + sum(&port["tx_drops"]);
    assert_eq!(count(&station["delivered"]["frames"]), arrived, "{endpoint:#}");
    assert_eq!(count(&station["offered"]["frames"]), count(&port["rx_frames"]), "{endpoint:#}");
}

fn run(mischief: &str) -> Option<common::Results> {
    if !have_root() || !have_program("ping") {
        return None;
    }
    let results = Place::new().run(&lab(mischief)).expect(0).results().passed();
    for (link, end) in [(0, 0), (0, 1), (1, 0), (1, 1)] {
        assert_port_accounted(&results, link, end);
    }
    Some(results)
}

#[test]
fn an_interface_set_down_under_traffic_is_named_and_comes_back() {
    let Some(results) = run("ip link set eth0 down; sleep 1; ip link set eth0 up; sleep 1") else {
        return;
    };
    let states = states(&results, "n1:eth0");
    assert!(states.ends_with(&["down".to_owned(), "up".to_owned()]), "{states:?}");
    // What the kernel answers a frame for an interface that is down is EIO.
    let drops = &results.0["links"][0]["endpoints"][1]["port"]["tx_drops"];
    assert!(drops["interface-down"].as_u64().is_some_and(|frames| frames > 0), "{drops:#}");
}

#[test]
fn an_interface_down_for_a_moment_is_named_whether_or_not_a_frame_met_it() {
    let Some(results) = run("for i in 1 2 3; do ip link set eth0 down; ip link set eth0 up; done")
    else {
        return;
    };
    assert_eq!(states(&results, "n1:eth0"), ["down", "up"].repeat(3));
}

#[test]
fn an_interface_renamed_under_traffic_goes_on() {
    let Some(results) =
        run("ip link set eth0 down; ip link set eth0 name wan; ip link set wan up; sleep 1")
    else {
        return;
    };
    let port = &results.0["links"][0]["endpoints"][1]["port"];
    assert_eq!(port["state"], "up", "{port:#}");
    assert_eq!(port["interface"]["name"], "wan", "its counters are found by its new name");
}

#[test]
fn an_interface_deleted_under_traffic_is_named_and_the_rest_goes_on() {
    let Some(results) = run("ip link delete eth0; sleep 1") else {
        return;
    };
    let states = states(&results, "n1:eth0");
    assert_eq!(states.last().map(String::as_str), Some("gone"), "{states:?}");
}

#[test]
fn a_flood_of_noise_is_counted_to_the_last_frame_and_the_lab_goes_on() {
    if !have_root() || !have_program("python3") {
        return;
    }
    let place = Place::new();
    // The node is faster than the emulator where that has no core of its own. What is lost so is
    // allowed here, and must be counted.
    let ended = place.run(
        r#"
verdict:
  { degraded_lateness_p99: 1h, invalid_lateness_p99: 1h, degraded_lateness_max: 1h, degraded_steal: 1,
    degraded_unintended_loss: 1, invalid_unintended_loss: 1 }
nodes: { "n[0-2]": { kind: netns }, sw: { kind: bridge } }
links: [{ star: { center: sw, leaves: "n[0-2]" }, ipv4: 10.9.0.0/24 }]
tasks:
  - name: noise
    run:
      n0: |
        python3 - <<'END'
        import os, random, socket
        noise = random.Random(1)
        out = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
        out.bind(("eth0", 0))
        for _ in range(2000):
            out.send(noise.randbytes(noise.randrange(14, 1514)))
        END
        # What waits in the node's own queue has been sent by nobody yet.
        for i in $(seq 300); do
          tc -s qdisc show dev eth0 | grep -q "backlog 0b 0p" && break
          sleep 0.1
        done
  - name: after
    run: { n1: "ping -c 1 -W 20 n2" }
"#,
    );
    let results = ended.expect(0).results().passed();
    for (link, end) in [(0, 0), (1, 0), (2, 0)] {
        let endpoint = &results.0["links"][link]["endpoints"][end];
        let end = if endpoint["port"].is_null() { 1 - end } else { end };
        assert_port_accounted(&results, link, end);
    }
    let ends = results.0["links"][0]["endpoints"].as_array().expect("endpoints");
    let port = &ends.iter().find(|end| end["endpoint"] == "n0:eth0").expect("n0's end")["port"];
    let count = |value: &Value| value.as_u64().unwrap_or_else(|| panic!("{port:#}"));
    let seen = count(&port["rx_frames"]);
    let unseen = count(&port["interface"]["send_drops"]);
    assert!(seen + unseen >= 2000, "{seen} read, {unseen} lost at the interface, of 2000");
}

#[test]
fn a_worker_that_panics_ends_the_run_with_its_links_named_and_leaves_nothing() {
    /// An Ethernet frame of a ping of 1,000 bytes, which nothing else on the link has.
    const FRAME_BYTES: usize = 14 + 20 + 8 + 1_000;
    if !have_root() || !have_program("ping") {
        return;
    }
    let (place, before) = (Place::new(), Host::now());
    place.file(
        "lab.yaml",
        r#"
nodes: { "n[0-2]": { kind: netns } }
links:
  - { pair: [n0, n1], name: doomed, ipv4: 10.9.0.0/24 }
  - { pair: [n1, n2], name: spared, ipv4: 10.9.1.0/24 }
tasks:
  - { name: before, run: { n0: "ping -c 1 -W 20 10.9.0.2" } }
  - name: during
    timeout: 600s
    run:
      n0: "ping -c 1 -s 1000 -W 20 10.9.0.2; sleep 500"
      n2: "setsid sleep 500 & sleep 500"
  - { name: never, run: { n1: "true" } }
"#,
    );
    let mut command = place.tapestry(&["run", "lab.yaml", "--out", "out", "--workers", "2"]);
    let mark = format!("BAD_LUCK={}", place.path("").display());
    command.env("BAD_LUCK", place.path(""));
    command.env("TAPESTRY_PANIC_AT", format!("doomed:{FRAME_BYTES}"));
    let ended = place.start(command).end().expect(3).says(&["panicked", "`doomed`"]);
    let results = ended.results();
    says(&results.errors(), &["the worker of link `doomed` panicked", "TAPESTRY_PANIC_AT"]);
    assert_eq!(results.status("before", "n0"), Some(0));
    assert_eq!(results.task("during")["state"], "interrupted");
    assert_eq!(results.task("never")["ran"], false);
    // What the dead worker had counted is in the results.
    let offered = &results.0["links"][0]["endpoints"][0]["station"]["offered"]["frames"];
    assert!(offered.as_u64().is_some_and(|frames| frames > 0), "{offered}");

    wait_for("the end of its processes", || processes_with(&mark).is_empty().then_some(()));
    assert!(!is_locked(&place.path("out")));
    assert!(!is_open_below(&place.path("out")));
    assert_eq!(Host::now(), before);
}
