//! The protocol under Tapestry: the path in virtual time, the program itself on network namespaces.

use tapestry_harness::{Scenario, scenario};

fn transfer() -> Scenario {
    scenario("topologies/transfer.yaml").set("program", env!("CARGO_BIN_EXE_stop-and-wait"))
}

#[test]
fn the_path_loses_what_it_is_told_to() {
    let answered = |loss: &str| {
        let run = scenario("topologies/path.yaml").set("loss", loss).run().assert_passed();
        run.expect("simulations run anywhere").metric("answered")
    };
    assert!((answered("0%") - 200.0).abs() < f64::EPSILON);
    let lossy = answered("20%");
    assert!(lossy > 90.0 && lossy < 170.0, "128 of 200 are likely, not {lossy}");
}

/// Needs root, `/dev/net/tun` and the program `tapestry`; ignored, so that `cargo test` does not ask for them
/// where a machine has only cargo: `cargo test -- --include-ignored`.
#[test]
#[ignore = "needs the program tapestry, by $TAPESTRY or on $PATH"]
fn everything_arrives_over_a_lossy_path() {
    if let Some(run) = transfer().set("loss", "5%").run().assert_passed() {
        assert!(run.metric("repeated") > 0.0);
    }
}
