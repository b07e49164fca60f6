use tapestry_topologies::plan::Design;

use super::*;
use crate::design::tests::{list, plan};

fn needs(memory_gib: u64, guests: usize, hop_packets: f64) -> (String, Needs) {
    let needs = Needs { memory_bytes: memory_gib << 30, guests, hop_packets: Some(hop_packets) };
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
