use super::*;

const PING: &str = "params: { wanted: 5 }
nodes: { a: { kind: host }, b: { kind: host } }
links: [{ pair: [a, b], delay: 1ms, ipv4: 10.0.0.0/24 }]
tasks:
  - { name: ping, run: { a: { name: client, command: ping -c 5 b } }, metrics: { received: '(\\d) received' }, expect: '${received == wanted}' }
";

fn file(text: &str) -> (TempDir, PathBuf) {
    let place = tempfile::tempdir().expect("a directory");
    let file = place.path().join("ping.yaml");
    std::fs::write(&file, text).expect("written");
    (place, file)
}

#[test]
fn a_simulation_gives_metrics_verdict_and_outputs() {
    let (_place, file) = file(PING);
    let run = scenario(&file).run().assert_passed().expect("simulations run anywhere");
    assert_eq!((run.metric("received"), run.attempts), (5.0, 1));
    assert!(run.verdict().is_some_and(|verdict| verdict.reasons.is_empty()));
    assert!(run.output("ping", "client").is_some_and(|output| output.contains("5 received")));
    assert_eq!(run.output("ping", "nobody"), None);
    let directory = run.directory().expect("a run directory").to_owned();
    assert!(directory.join("results.json").is_file());
    drop(run);
    assert!(!directory.exists());
}

#[test]
fn a_failure_panics_with_the_report_and_keeps_the_run() {
    let (_place, file) = file(PING);
    let run = scenario(&file).set("wanted", 6).run();
    assert_eq!((&run.shown, run.attempts), (&Shown::Failed, 1));
    let directory = run.directory().expect("a run directory").to_owned();
    let failed = std::panic::catch_unwind(|| run.assert_passed()).expect_err("it failed");
    let said = failed.downcast_ref::<String>().expect("a text");
    for part in ["ping.yaml failed", "task ping", "received = 5", "wanted = 6", "tapestry run"] {
        assert!(said.contains(part), "no {part} in {said}");
    }
    assert!(directory.is_dir());
    std::fs::remove_dir_all(directory.parent().expect("a parent")).expect("removed");
}

#[test]
fn what_is_inconclusive_or_not_run_says_so() {
    let (_place, file) = file(PING);
    let inconclusive = Run { shown: Shown::Inconclusive, attempts: 3, ..Run::of(&file) };
    let said = std::panic::catch_unwind(|| inconclusive.assert_passed()).expect_err("a panic");
    let said = said.downcast_ref::<String>().expect("a text");
    assert!(said.contains("inconclusive") && said.contains("3 runs"), "{said}");
    let not_run = Run { shown: Shown::NotRun("TAP: none".to_owned()), ..Run::of(&file) };
    assert!(not_run.assert_passed().is_none());
}

#[test]
fn wrong_files_and_parameters_are_told() {
    let (_place, file) = file(PING);
    let wrong = scenario(&file).set("wnated", 6).try_run().expect_err("no such parameter");
    assert!(wrong.to_string().contains("wnated"), "{wrong}");
    let missing = scenario("nowhere.yaml").try_run().expect_err("no such file");
    assert!(missing.to_string().contains("nowhere.yaml"), "{missing}");
}
