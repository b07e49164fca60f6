use super::*;

const PASSES: &str = "nodes: { a: { kind: host }, b: { kind: host } }
links: [{ pair: [a, b], delay: 1ms, ipv4: 10.0.0.0/24 }]
tasks:
  - { name: ping, run: { a: ping -c 3 b }, metrics: { received: '(\\d) received' }, expect: '${received == 3}' }
";

fn settings(directory: &Path) -> Settings {
    Settings {
        // Simulations need no program.
        program: PathBuf::from("/nonexistent"),
        sets: Vec::new(),
        seed: 1,
        jobs: 2,
        retries: 2,
        time_limit: Duration::from_mins(1),
        directory: directory.join("runs"),
        snap_length: Some(128),
        keep: false,
    }
}

fn place(files: &[(&str, &str)]) -> tempfile::TempDir {
    let place = tempfile::tempdir().expect("a directory");
    for (name, text) in files {
        let path = place.path().join(name);
        fs::create_dir_all(path.parent().expect("a parent")).expect("made");
        fs::write(path, text).expect("written");
    }
    place
}

#[test]
fn scenarios_are_found_below_and_parts_left_out() {
    let place = place(&[
        ("b.yaml", PASSES),
        ("sub/a.yml", PASSES),
        ("_parts/x.yaml", "nonsense"),
        ("_y.yaml", "nonsense"),
        ("notes.txt", "nonsense"),
    ]);
    let names = |filters: &[&str]| -> Vec<String> {
        let filters: Vec<String> = filters.iter().map(|filter| (*filter).to_owned()).collect();
        let found = find(place.path(), &filters, &[]).expect("scenarios");
        found.into_iter().map(|scenario| scenario.name).collect()
    };
    assert_eq!(names(&[]), ["b", "sub/a"]);
    assert_eq!(names(&["sub"]), ["sub/a"]);
    assert_eq!(names(&["!sub"]), ["b"]);
    assert_eq!(names(&["b", "a"]), ["b", "sub/a"]);
    let one = find(&place.path().join("b.yaml"), &[], &[]).expect("a file");
    assert_eq!((one[0].name.as_str(), one[0].time), ("b", Time::Virtual));
    let none = find(place.path(), &["zzz".to_owned()], &[]).expect_err("none").to_string();
    assert!(none.contains("zzz") && none.contains("--list"), "{none}");
}

#[test]
fn all_wrong_files_are_told_before_anything_runs() {
    let place = place(&[("a.yaml", "nods: {}"), ("b.yaml", PASSES), ("c.yaml", "links: 7")]);
    match find(place.path(), &[], &[]) {
        Err(SuiteError::Wrong(wrong)) => assert_eq!(wrong.len(), 2),
        other => panic!("{other:?}"),
    }
    let missing = find(&place.path().join("nowhere"), &[], &[]).expect_err("missing");
    assert!(missing.to_string().contains("nowhere"), "{missing}");
}

#[test]
fn links_do_not_lead_in_circles_and_names_are_unique() {
    let place = place(&[("a.yaml", PASSES), ("sub/b.yaml", PASSES)]);
    std::os::unix::fs::symlink(".", place.path().join("loop")).expect("a link");
    std::os::unix::fs::symlink("..", place.path().join("sub/up")).expect("a link");
    let found = find(place.path(), &[], &[]).expect("scenarios");
    let names: Vec<_> = found.iter().map(|scenario| scenario.name.as_str()).collect();
    assert_eq!(names, ["a", "sub/b"]);
    fs::write(place.path().join("a.yml"), PASSES).expect("written");
    let same = find(place.path(), &[], &[]).expect_err("two of one name").to_string();
    assert!(same.contains("a.yaml") && same.contains("a.yml") && same.contains("rename"), "{same}");
}

#[test]
fn a_scenario_beside_a_directory_of_its_name_leaves_it_alone() {
    let fails = PASSES.replace("== 3", "== 4");
    let place = place(&[("a.yaml", PASSES), ("a/b.yaml", &fails), ("a/c.yaml", PASSES)]);
    let scenarios = find(place.path(), &[], &[]).expect("scenarios");
    let mut settings = Settings { jobs: 1, ..settings(place.path()) };
    for keep in [false, true] {
        settings.keep = keep;
        let tested = run(&scenarios, &settings, &AtomicBool::new(false), &|_| {});
        let kept: Vec<bool> = tested
            .iter()
            .map(|tested| {
                tested.directory.as_ref().is_some_and(|it| it.join("results.json").exists())
            })
            .collect();
        assert_eq!(kept, [true, keep, keep], "{tested:#?}");
    }
    settings = Settings { directory: place.path().join("others"), keep: false, ..settings };
    run(&scenarios[1..], &settings, &AtomicBool::new(false), &|_| {});
    assert_eq!(fs::read_dir(&settings.directory).map_or(0, Iterator::count), 0);
}

#[test]
fn what_this_machine_cannot_run_is_told_before_anything_runs() {
    let image = "nodes: { a: { kind: qemu, image: of-nobody } }\n";
    let place = place(&[("a.yaml", PASSES), ("b.yaml", image)]);
    let scenarios = find(place.path(), &[], &[]).expect("scenarios");
    check(&scenarios[..1]).expect("simulations run everywhere");
    let refused = check(&scenarios).expect_err("no such image").to_string();
    assert!(refused.starts_with("scenario b: ") && refused.contains("of-nobody"), "{refused}");
}

#[test]
fn outcomes_reports_and_formats() {
    let fails = PASSES.replace("${received == 3}", "${received > 2 + wanted}");
    let fails = format!("params: {{ wanted: 40 }}\n{fails}");
    let breaks = PASSES.replace("ping -c 3 b", "echo words & more; false");
    let breaks = breaks.replace(" & more", "");
    let place = place(&[("fails.yaml", &fails), ("breaks.yaml", &breaks), ("passes.yaml", PASSES)]);
    let scenarios = find(place.path(), &[], &[]).expect("scenarios");
    let settings = settings(place.path());
    let told = Mutex::new(Vec::new());
    let tested = run(&scenarios, &settings, &AtomicBool::new(false), &|tested| {
        told.lock().push(tested.name.clone());
    });
    let outcome: Vec<_> = tested.iter().map(|t| (t.name.as_str(), t.outcome, t.attempts)).collect();
    assert_eq!(
        outcome,
        [("breaks", Shown::Failed, 1), ("fails", Shown::Failed, 1), ("passes", Shown::Passed, 1)]
    );
    assert_eq!(told.lock().len(), 3);
    assert_eq!(exit_status(&tested), 1);
    assert_eq!(exit_status(&tested[2..]), 0);
    let [breaks, fails, passes] = &tested[..] else { panic!() };
    for part in ["status", "false", "words", "task ping", "captures", "tapestry run"] {
        assert!(breaks.report.contains(part), "no {part} in {}", breaks.report);
    }
    for part in ["task ping", "received > 2 + wanted", "received = 3", "wanted = 40", "3 received"]
    {
        assert!(fails.report.contains(part), "no {part} in {}", fails.report);
    }
    assert!(fails.directory.as_ref().is_some_and(|directory| directory.is_dir()));
    assert!(passes.directory.is_none() && !settings.directory.join("passes").exists());

    let tap = formats::tap(&tested);
    assert!(tap.starts_with("TAP version 13\n1..3\nnot ok 1 - breaks\n"), "{tap}");
    assert!(tap.contains("\nok 3 - passes\n"), "{tap}");
    let junit = formats::junit("suite", &tested).expect("XML");
    for part in ["tests=\"3\"", "failures=\"2\"", "name=\"passes\"", "wanted = 40"] {
        assert!(junit.contains(part), "no {part} in {junit}");
    }
    let json: serde_json::Value =
        serde_json::from_str(&formats::json(&tested).expect("JSON")).expect("JSON");
    assert_eq!(json[1]["outcome"], "failed");
}

#[test]
fn a_suite_that_is_ended_leaves_out_the_rest() {
    let place = place(&[("a.yaml", PASSES)]);
    let scenarios = find(place.path(), &[], &[]).expect("scenarios");
    let tested = run(&scenarios, &settings(place.path()), &AtomicBool::new(true), &|_| {});
    assert_eq!(tested[0].outcome, Shown::NotRun);
    assert_eq!(exit_status(&tested), 130);
    let tap = formats::tap(&tested);
    assert!(tap.contains("1..1\nBail out!"), "a suite that was ended does not pass: {tap}");
}

/// `prove` counts `not ok # TODO` and `# SKIP` as passed.
#[test]
fn what_is_inconclusive_passes_in_no_format() {
    let tested = [Tested {
        name: "late".to_owned(),
        file: PathBuf::from("late.yaml"),
        outcome: Shown::Inconclusive,
        attempts: 3,
        seconds: 1.0,
        metrics: vec![
            ("sent".to_owned(), 3.0, String::new()),
            ("rtt".to_owned(), 2.0, "ms".to_owned()),
        ],
        report: "verdict   invalid: late\n".to_owned(),
        directory: None,
    }];
    let tap = formats::tap(&tested);
    assert!(tap.contains("\nnot ok 1 - late\n") && !tap.contains("# TODO"), "{tap}");
    assert!(tap.contains("verdict   invalid: late") && tap.contains("inconclusive"), "{tap}");
    let junit = formats::junit("suite", &tested).expect("XML");
    assert!(junit.contains("errors=\"1\"") && junit.contains("failures=\"0\""), "{junit}");
    assert!(junit.contains("name=\"sent\"") && junit.contains("name=\"rtt (ms)\""), "{junit}");
}

/// The whole report, also of a run that came to no results.
#[test]
fn a_scenario_that_takes_too_long_says_where_it_was() {
    let slow = PASSES.replace("ping -c 3 b", "ping -c 1000000000 -i 0.001 b");
    assert_ne!(slow, PASSES);
    let place = place(&[("slow.yaml", &slow)]);
    let scenarios = find(place.path(), &[], &[]).expect("scenarios");
    let settings = Settings { time_limit: Duration::from_millis(300), ..settings(place.path()) };
    let tested = run(&scenarios, &settings, &AtomicBool::new(false), &|_| {});
    assert_eq!(tested[0].outcome, Shown::Failed);
    for part in ["ended in task ping", "expected  task ping: ", "ran `ping -c 1000000000"] {
        assert!(tested[0].report.contains(part), "no {part} in {}", tested[0].report);
    }
}

/// The shipped scenarios fail when what they claim is not so.
#[test]
fn regression_scenarios_can_fail() {
    let shipped = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../topologies/regression");
    let scratch = tempfile::tempdir().expect("a directory");
    let test = |file: &Path, sets: &[(&str, &str)]| {
        let sets: Vec<_> = sets.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect();
        let scenarios = find(file, &[], &sets).expect("a scenario");
        let settings = Settings { sets, ..settings(scratch.path()) };
        let tested = run(&scenarios, &settings, &AtomicBool::new(false), &|_| {});
        (tested[0].outcome, tested[0].report.clone())
    };
    let lossy = shipped.join("tcp-lossy-simulated.yaml");
    assert_eq!(test(&lossy, &[]).0, Shown::Passed);
    for loss in ["0", "0.1", "0.2", "3"] {
        let (outcome, report) = test(&lossy, &[("link_loss_percent", loss)]);
        assert!(outcome == Shown::Failed && report.contains("throughput = "), "{loss} %: {report}");
    }
    // The loop without what cuts it.
    let parts = scratch.path().join("_parts");
    fs::create_dir(&parts).expect("a directory");
    let part = fs::read_to_string(shipped.join("_parts/bridge-loop.yaml")).expect("a part");
    let (before, rest) = part.split_once("events:\n").expect("events");
    let (_, after) = rest.split_once("\n\n").expect("what follows them");
    fs::write(parts.join("bridge-loop.yaml"), format!("{before}{after}")).expect("a file");
    let name = "spanning-tree-simulated.yaml";
    fs::copy(shipped.join(name), scratch.path().join(name)).expect("a file");
    assert_eq!(test(&shipped.join(name), &[]).0, Shown::Passed);
    let (outcome, report) = test(&scratch.path().join(name), &[]);
    assert_eq!(outcome, Shown::Failed);
    for part in ["outage > 0", "detour_rtt >= 20"] {
        assert!(report.contains(part), "no {part} in {report}");
    }
}

#[test]
fn a_heavy_scenario_takes_the_room_of_several() {
    let guests = "nodes: { 'g[0-5]': { kind: qemu } }\nlinks: [{ chain: 'g[0-5]' }]\n";
    let place = place(&[("g.yaml", guests), ("h.yaml", PASSES)]);
    let scenarios = find(place.path(), &[], &[]).expect("scenarios");
    assert_eq!(scenarios[0].time, Time::Realtime);
    assert_eq!(weight(&scenarios[0].topology, 4), 2);
    assert_eq!(weight(&scenarios[0].topology, 1), 1);
    assert_eq!(weight(&scenarios[1].topology, 4), 1);
}
