use super::*;
use crate::host::CpuTicks;
use crate::status::{NodeStatus, Progress};

const SECOND: u64 = 1_000_000_000;

fn station(node: &str, sent: (u64, u64), received: u64) -> StationStatus {
    StationStatus {
        node: node.into(),
        interface: "eth0".into(),
        trouble: None,
        sent_frames: sent.0,
        sent_bytes: sent.1,
        received_frames: received,
        received_bytes: 0,
        queued: 0,
        dequeued: 0,
        sojourn_sum_ns: 0,
        pending: 0,
        lost_sending: Vec::new(),
        lost_receiving: Vec::new(),
    }
}

fn link(name: &str, stations: Vec<StationStatus>) -> LinkStatus {
    LinkStatus { name: name.into(), up: true, lateness_p99_ns: Some(7), stations }
}

fn node(name: &str, cpu_ns: Option<u64>) -> NodeStatus {
    NodeStatus {
        name: name.into(),
        kind: "netns".into(),
        state: NodeState::Ready,
        usage: cpu_ns.map(|cpu_ns| Usage { cpu_ns, memory_bytes: 5 }),
    }
}

fn at(elapsed_ns: u64, nodes: Vec<NodeStatus>, links: Vec<LinkStatus>) -> Status {
    Status {
        name: "lab".into(),
        elapsed_ns,
        progress: Progress::default(),
        nodes,
        foreign: false,
        links,
        truth: None,
        host: CpuTicks::default(),
        emulator: None,
    }
}

fn lost(reason: &str, frames: u64, unintended: bool) -> Loss {
    Loss { reason: reason.into(), frames, unintended }
}

#[test]
fn two_directions_of_a_link_over_two_seconds() {
    let (mut a, b) = (station("a", (100, 1000), 10), station("b", (10, 100), 90));
    a.lost_sending = vec![lost("queue-full", 3, false)];
    let before = at(SECOND, vec![], vec![link("wire", vec![a.clone(), b])]);
    let mut b = station("b", (10, 100), 130);
    b.trouble = Some("down".into());
    a.lost_sending = vec![lost("queue-full", 5, false), lost("link-down", 1, false)];
    // Lost at the receiver, on the way from the sender.
    b.lost_receiving = vec![lost("refused", 2, true), lost("link-down", 1, false)];
    (a.sent_frames, a.sent_bytes, a.queued) = (150, 51_000, 4);
    b.pending = 3;
    (a.dequeued, a.sojourn_sum_ns) = (50, 1_000);
    let now =
        at(3 * SECOND, vec![node("a", None), node("b", None)], vec![link("wire", vec![a, b])]);

    let rates = rates(&before, &now);
    let [there, back] = &rates.directions[..] else { panic!("{rates:?}") };
    assert_eq!((there.from.as_str(), there.to.as_deref()), ("a", Some("b")));
    assert_eq!((back.from.as_str(), back.to.as_deref()), ("b", Some("a")));
    assert!((there.frames_per_second - 25.0).abs() < 1e-9);
    assert!((there.bits_per_second - 200_000.0).abs() < 1e-6);
    assert!((there.lost_per_second - 3.0).abs() < 1e-9);
    assert_eq!((there.queue, there.lost_frames(), there.lateness_p99_ns), (7, 9, Some(7)));
    assert_eq!((there.sojourn_mean_ns, back.sojourn_mean_ns), (Some(20), None));
    assert!(there.has_unintended_loss() && !back.has_unintended_loss());
    assert_eq!(there.lost[1], lost("link-down", 2, false));
    assert_eq!((back.queue, back.lost_frames()), (0, 0));
    assert_eq!(there.trouble.as_deref(), Some("b:eth0 down"));
    assert_eq!(there.trouble, back.trouble, "an interface that is down stops both ways");
    assert!(back.frames_per_second.abs() < 1e-9);
    let received: Vec<f64> = rates.nodes.iter().map(|node| node.received_per_second).collect();
    assert_eq!(received, [0.0, 20.0]);
}

#[test]
fn a_shared_medium_names_no_receiver_and_a_link_that_is_down_says_so() {
    let mut stations = ["a", "b", "c"].map(|name| station(name, (0, 0), 0)).to_vec();
    stations[1].lost_sending = vec![lost("link-down", 4, false)];
    stations[1].lost_receiving = vec![lost("link-down", 2, false)];
    let lan = LinkStatus { up: false, ..link("lan", stations) };
    let status = at(SECOND, vec![], vec![lan]);
    let rates = rates(&status, &status);
    assert_eq!(rates.directions.len(), 3);
    assert_eq!(rates.directions[1].lost, [lost("link-down", 6, false)], "{rates:?}");
    for direction in &rates.directions {
        assert_eq!((&direction.to, direction.trouble.as_deref()), (&None, Some("link down")));
    }
}

#[test]
fn cpu_is_in_cores_and_unknown_where_it_is_not_measured() {
    let before =
        at(0, vec![node("a", Some(SECOND)), node("new", None), node("less", Some(9))], vec![]);
    let nodes = vec![node("a", Some(4 * SECOND)), node("new", Some(8)), node("less", Some(2))];
    let mut now = at(2 * SECOND, [nodes, vec![node("model", None)]].concat(), vec![]);
    now.host = CpuTicks { busy: 3, idle: 6, steal: 1 };
    now.emulator = Some(Usage { cpu_ns: 1, memory_bytes: 1 });
    let rates = rates(&before, &now);
    let cpu: Vec<_> = rates.nodes.iter().map(|node| node.cpu).collect();
    assert_eq!(cpu, [Some(1.5), Some(0.0), Some(0.0), None]);
    assert_eq!((rates.host_cpu, rates.host_steal), (0.3, 0.1));
    assert_eq!(rates.emulator_cpu, Some(0.0), "nothing to compare with yet");
}

#[test]
fn no_time_between_two_answers_gives_no_rate() {
    let before = at(SECOND, vec![], vec![link("l", vec![station("a", (1, 1), 1)])]);
    let now = at(SECOND, vec![], vec![link("l", vec![station("a", (9, 9), 9)])]);
    let rates = rates(&before, &now);
    assert_eq!(rates.directions[0].frames_per_second.to_bits(), 0.0f64.to_bits());
}

#[test]
fn an_answer_survives_the_wire() {
    let mut end = station("a", (1, 2), 3);
    end.lost_sending = vec![lost("unread", 1, true)];
    let status = at(5, vec![node("a", Some(1))], vec![link("l", vec![end])]);
    let json = serde_json::to_vec(&status).unwrap();
    assert_eq!(serde_json::from_slice::<Status>(&json).unwrap(), status);
}
