//! The protocol under Tapestry: the path in virtual time, the program itself on network namespaces.

use std::io::{self, Write};
use std::path::Path;

use tapestry_harness::{Scenario, scenario};

/// The protocol's own program, as cargo has built it.
const PROGRAM: &str = env!("CARGO_BIN_EXE_stop-and-wait");

fn transfer() -> Scenario {
    scenario("topologies/transfer.yaml").set("program", PROGRAM)
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

/// Needs namespaces, `/dev/net/tun` and the program `tapestry`; says what is missing where it does not run.
#[test]
fn everything_arrives_over_a_lossy_path() {
    if Path::new(PROGRAM).starts_with("/tmp") {
        // Past the capture of `cargo test`.
        let _ =
            writeln!(io::stderr(), "not tested: nodes have a /tmp of their own, without {PROGRAM}");
        return;
    }
    if let Some(run) = transfer().set("loss", "5%").run().assert_passed() {
        assert!(run.metric("repeated") > 0.0);
    }
}
