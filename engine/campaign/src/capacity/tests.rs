use tapestry_topologies::plan::Design;

use super::*;
use crate::design::tests::{list, plan};

fn needs(memory_gib: u64, guests: usize, hop_packets: f64) -> (String, Needs) {
    let needs = Needs {
        memory_bytes: memory_gib << 30,
        guests,
        hop_packets: Some(hop_packets),
        ..Needs::default()
    };
    (format!("guests={guests}"), needs)
}

#[test]
fn what_a_host_can_carry_is_not_warned_of() {
    let plan = plan(&[("a", list(&[1]))], Design::FullFactorial);
    let host = Host { cpus: 2, memory_bytes: 8 << 30 };
    assert!(warnings(host, &plan, &[needs(1, 3, 18_000.0)], 1).is_empty());
    assert!(warnings(host, &plan, &[], 1).is_empty());
}

#[test]
fn what_cannot_be_known_is_said() {
    let mut plan = plan(&[("a", list(&[1]))], Design::FullFactorial);
    let host = Host { cpus: 2, memory_bytes: 8 << 30 };
    let outside = ("-".to_owned(), Needs { is_outside: true, ..Needs::default() });
    let found = warnings(host, &plan, std::slice::from_ref(&outside), 1);
    assert!(found.len() == 1 && found[0].contains("`load:`"), "{found:?}");
    plan.load = Some("1".to_owned());
    assert!(warnings(host, &plan, &[outside], 1).is_empty());
}

#[test]
fn times_are_estimated() {
    let mut plan = plan(&[("a", list(&[1, 2]))], Design::FullFactorial);
    plan.replicates = 30;
    let needs = [10.0, 20.0].map(|longest_seconds| Needs { longest_seconds, ..Needs::default() });
    assert!((longest_seconds(&plan, &needs, 1) - 900.0).abs() < 1e-9);
    assert!((longest_seconds(&plan, &needs, 3) - 300.0).abs() < 1e-9);
    assert_eq!(left_seconds(&[], 5, 1), None);
    assert!((left_seconds(&[2.0, 4.0], 5, 2).unwrap() - 9.0).abs() < 1e-9);
    assert_eq!([40.2, 720.0, 12600.0].map(about), ["40 s", "12 min", "3.5 h"]);
}

#[test]
fn each_shortage_names_its_point() {
    let mut plan = plan(&[("a", list(&[1]))], Design::FullFactorial);
    let host = Host { cpus: 2, memory_bytes: 8 << 30 };
    let points =
        [needs(1, 2, 10.0), needs(5, 9, 10.0), needs(1, 4, 300_000.0), needs(1, 0, 240_000.0)];
    let found = warnings(host, &plan, &points, 1);
    assert_eq!(found.len(), 2, "{found:#?}");
    assert!(found[0].starts_with("processors: point guests=9"), "{found:#?}");
    assert!(found[1].starts_with("load: point guests=4"), "{found:#?}");
    let found = warnings(host, &plan, &points, 2);
    assert!(found[0].contains("memory: point guests=9 needs about 10.0 GiB, 2 runs side by side"));
    plan.replicates = 1000;
    assert!(warnings(host, &plan, &points, 1).iter().any(|line| line.starts_with("time:")));
}
