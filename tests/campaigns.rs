//! Campaigns: what a plan asks for is run exactly once, whatever interrupts it, and gives the same
//! results however many runs go on side by side.

mod common;

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::thread::sleep;
use std::time::Duration;

use common::host::{Host, namespace_of_children, processes_in};
use common::{Ended, Place, have_root, wait_for};
use nix::sys::signal::Signal;
use serde_json::Value;

/// Hosts in a row; loss makes each run different.
const NET: &str = "
params: { nodes: 2, loss: 20%, count: 5 }
nodes: { \"h[0-${nodes-1}]\": { kind: host } }
links: [{ lan: \"h[0-${nodes-1}]\", rate: 10Mbit/s, loss: \"${loss}\", ipv4: 10.0.0.0/24 }]
tasks:
  - name: ping
    run: { h0: { command: \"ping -c ${count} -i 0.2 -W 1 h1\", status: any } }
    metrics: { received: { regex: '(\\d+) received' } }
";

const PLAN: &str = "
topology: net.yaml
time: virtual
factors: { nodes: [2, 3, 4], loss: [10%, 30%] }
replicates: 10
warm_up: 1
keep: none
";

fn place(plan: &str) -> Place {
    let place = Place::new();
    place.file("net.yaml", NET);
    place.file("plan.yaml", plan);
    place
}

/// Every run with what must not depend on when and how fast it was made, links and all.
fn runs(place: &Place, campaign: &str) -> Vec<String> {
    let out = format!("{campaign}-export");
    place.call(&["campaign", "export", campaign, "--output", &out]).expect(0);
    let rows = |file: &str| -> Vec<BTreeMap<String, String>> {
        let mut reader = csv::Reader::from_path(place.path(&out).join(file)).expect("a table");
        reader.deserialize().map(|row| row.expect("a row")).collect()
    };
    let mut links: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for link in rows("links.csv") {
        let line = format!("{} {} {}", link["link"], link["endpoint"], link["counters"]);
        links.entry(link["run"].clone()).or_default().push(line);
    }
    let mut all: Vec<String> = rows("runs.csv")
        .into_iter()
        .map(|mut run| {
            let links = links.remove(&run["id"]).unwrap_or_default();
            for passing in
                ["id", "session", "started", "seconds", "ready_seconds", "cpu", "steal", "beside"]
            {
                assert!(run.remove(passing).is_some(), "{passing}");
            }
            format!("{run:?} {links:?}")
        })
        .collect();
    all.sort();
    all
}

fn status(place: &Place, campaign: &str) -> Value {
    let ended = place.call(&["campaign", "status", campaign, "--json"]).expect(0);
    serde_json::from_str(&ended.text()).expect("JSON")
}

fn counted(place: &Place, campaign: &str) -> u64 {
    status(place, campaign)["states"]["counted"].as_u64().expect("a number")
}

fn run(place: &Place, more: &[&str]) -> Ended {
    place.call(&[&["campaign", "run", "plan.yaml", "--out", "out"], more].concat())
}

#[test]
fn results_do_not_depend_on_how_many_go_on_side_by_side() {
    let place = place(PLAN);
    for jobs in ["1", "2", "5"] {
        place.call(&["campaign", "run", "plan.yaml", "--jobs", jobs, "--out", jobs]).expect(0);
        assert_eq!(counted(&place, jobs), 60);
    }
    let alone = runs(&place, "1");
    assert_eq!(alone.len(), 61, "with the warm-up run");
    assert_eq!(alone, runs(&place, "2"));
    assert_eq!(alone, runs(&place, "5"));
    assert!(alone.iter().any(|run| run.contains("\"metric.received\": \"4\"")), "{alone:#?}");
}

#[test]
fn what_is_kept_of_runs_changes_nothing_of_their_results() {
    let place = place(PLAN);
    for keep in ["none", "thin", "all"] {
        place.file("plan.yaml", PLAN.replace("keep: none", &format!("keep: {keep}")));
        place.call(&["campaign", "run", "plan.yaml", "--out", keep]).expect(0);
    }
    let stored = |keep| -> Vec<String> {
        let mut runs = runs(&place, keep);
        for run in &mut runs {
            // Where its directory is, if anything of it is left.
            let at = run.find("\"directory\"").expect("a directory");
            let end = at + run[at..].find(',').expect("more columns");
            run.replace_range(at..end, "");
        }
        runs.sort();
        runs
    };
    let none = stored("none");
    assert_eq!(none.len(), 61);
    assert!(none == stored("thin") && none == stored("all"), "results differ");
}

/// A disk of its own that runs full, by what runs leave or by the store alone; then somebody makes room.
#[test]
fn a_full_disk_ends_a_campaign_which_goes_on_when_there_is_room() {
    if !have_root() {
        return;
    }
    for (keep, replicates) in [("all", 25), ("none", 50)] {
        let plan = PLAN
            .replace("keep: none", &format!("keep: {keep}"))
            .replace("replicates: 10", &format!("replicates: {replicates}"));
        let place = place(&plan);
        run(&place, &[]).expect(0);
        let script = "
            mount -t tmpfs -o size=2m tmpfs disk || exit 91
            $1 campaign run plan.yaml --out disk/c 2>said; echo $? >code
            $1 campaign status disk/c --json >status || exit 92
            mount -o remount,size=512m disk || exit 93
            $1 campaign run plan.yaml --out disk/c --resume || exit 94
            cp -r disk/c resumed
        ";
        fs::create_dir(place.path("disk")).expect("a directory");
        let mut command = std::process::Command::new("unshare");
        command.args(["--mount", "sh", "-c", script, "sh", env!("CARGO_BIN_EXE_tapestry")]);
        command.current_dir(place.path("."));
        place.start(command).end().expect(0);
        let read = |file| fs::read_to_string(place.path(file)).expect("a file");
        assert_eq!(read("code"), "1\n", "{}", read("said"));
        common::says(&read("said"), &["the disk of", "is full", "--resume"]);
        let told: Value = serde_json::from_str(&read("status")).expect("JSON");
        let states = &told["states"];
        let counted = states["counted"].as_u64().expect("a number");
        assert!((1..6 * replicates).contains(&counted), "{keep}: {states}");
        assert_eq!(states["failed"], 0, "what the disk did is no result: {states}");
        assert_eq!(states["crashed"], 0, "what the disk did is no result: {states}");
        assert!(runs(&place, "resumed") == runs(&place, "out"), "{keep}: results differ");
    }
}

/// SIGKILL at moments that nobody chose; what was made is there once, what was not is made.
#[test]
fn a_killed_campaign_loses_nothing_and_runs_nothing_twice() {
    let plan = PLAN.replace("replicates: 10", "replicates: 40").replace("count: 5", "count: 50");
    let place = place(&plan);
    run(&place, &["--jobs", "2"]).expect(0);
    let expected = runs(&place, "out");
    assert_eq!(expected.len(), 241);
    // From a beginning that writes the first files to an end that has written the last.
    let mut pause = 5;
    let mut kills = 0;
    let mut before = 0;
    let arguments = ["campaign", "run", "plan.yaml", "--out", "killed", "--jobs", "2"];
    let has_begun =
        |place: &Place| place.call(&["campaign", "status", "killed", "--json"]).code() == 0;
    loop {
        let resume = has_begun(&place);
        let more: &[&str] = if resume { &["--resume"] } else { &[] };
        let mut campaign = place.start(place.tapestry(&[&arguments, more].concat()));
        // Delays of 5 to 155 ms, spread by a small generator: any moment is fine.
        pause = (pause * 37 + 11) % 151;
        sleep(Duration::from_millis(5 + pause));
        if campaign.has_ended() {
            campaign.end().expect(0);
            break;
        }
        campaign.signal(Signal::SIGKILL);
        drop(campaign);
        kills += 1;
        if has_begun(&place) {
            let now = counted(&place, "killed");
            assert!(now >= before, "what was made is lost: {now} after {before}");
            before = now;
        }
        // A machine too busy for 155 ms at a time shall not make this last for ever.
        if kills == 10 {
            let more: &[&str] = if has_begun(&place) { &["--resume"] } else { &[] };
            place.call(&[&arguments, more].concat()).expect(0);
            break;
        }
    }
    assert!(kills >= 1, "nothing was killed");
    assert_eq!(runs(&place, "killed"), expected);
    // Going on once more makes nothing, and looks through the whole database.
    place.call(&[&arguments[..], &["--resume"]].concat()).expect(0);
    assert_eq!(runs(&place, "killed"), expected);
}

#[test]
fn ctrl_c_keeps_everything_and_says_how_to_go_on() {
    let plan = PLAN.replace("replicates: 10", "replicates: 2000");
    let place = place(&plan);
    let arguments = ["campaign", "run", "plan.yaml", "--out", "out"];
    let campaign = place.start(place.tapestry(&arguments));
    wait_for("the first runs", || {
        let status = place.call(&["campaign", "status", "out", "--json"]);
        let begun = status.code() == 0 && counted(&place, "out") > 3;
        begun.then_some(())
    });
    assert_eq!(status(&place, "out")["running"], true);
    campaign.signal(Signal::SIGINT);
    campaign.end().expect(130).says(&["tapestry campaign run plan.yaml --resume --out out"]);
    let kept = counted(&place, "out");
    assert!(kept > 3 && status(&place, "out")["running"] == false);
    // A campaign that was begun is not begun again by mistake.
    run(&place, &[]).expect(2).says(&["--resume"]);
    assert_eq!(counted(&place, "out"), kept);
}

const PING: &str = "
params: { command: ping -c 1 10.0.0.2 }
nodes: { a: { kind: netns }, b: { kind: netns } }
links: [{ pair: [a, b], ipv4: 10.0.0.0/24 }]
tasks: [{ name: t, run: { a: \"${command}\" }, timeout: 2000s }]
";

#[test]
fn runs_against_the_wall_clock_stand_for_themselves() {
    if !have_root() {
        return;
    }
    let place = Place::new();
    place.file("net.yaml", PING);
    place.file(
        "plan.yaml",
        "
topology: net.yaml
factors: { command: [\"ping -c 1 10.0.0.2\", \"false\", \"sleep 1000\"] }
replicates: 2
time_limit: 4s
keep: thin
",
    );
    let host = Host::now();
    run(&place, &["--jobs", "2"]).expect(1).says(&["timed-out", "failed"]);
    let states = &status(&place, "out")["states"];
    let of = |state: &str| states[state].as_u64().expect("a number");
    assert_eq!((of("counted"), of("failed"), of("timed-out")), (2, 2, 2), "{states}");
    // Thin: results, but no console.
    let kept = place.path("out/runs/p00000-r00000");
    assert!(kept.join("results.json").exists() && !kept.join("console").exists());
    assert_eq!(Host::now(), host, "nothing is left on the host");
}

/// No timing is as exact as this file demands: every run is invalid, beside others and alone.
#[test]
fn invalid_runs_are_kept_repeated_and_in_no_mean() {
    if !have_root() {
        return;
    }
    let place = Place::new();
    let strict = "verdict: { degraded_lateness_p99: 1ns, invalid_lateness_p99: 1ns }\n";
    place.file("net.yaml", format!("{strict}{PING}"));
    place.file("plan.yaml", "topology: net.yaml\nreplicates: 2\nretries: 1\n");
    let ended = run(&place, &["--jobs", "2"]).expect(3);
    let ended = ended.says(&["from now on 1 at a time", "invalid: ", "will be repeated"]);
    common::says(&ended.text(), &["0 runs counted", "2 replicates without a valid run"]);
    let states = &status(&place, "out")["states"];
    assert_eq!(states["counted"], 0);
    // Of each replicate one that was repeated and one more; what had company is repeated besides.
    let invalid = states["invalid"].as_u64().expect("a number");
    assert!((4..=7).contains(&invalid), "{states}");
    place.call(&["campaign", "report", "out"]).expect(0);
    let report = fs::read_to_string(place.path("out/report.md")).expect("a report");
    common::says(&report, &["No run counts", "| invalid |", "Runs that do not count"]);
    // They stay as they are: there is nothing left to do.
    run(&place, &["--resume"]).expect(3);
    assert_eq!(status(&place, "out")["states"]["invalid"].as_u64(), Some(invalid));
}

#[test]
fn a_killed_campaign_takes_its_runs_with_it() {
    if !have_root() {
        return;
    }
    let place = Place::new();
    place.file("net.yaml", PING);
    place.file("plan.yaml", "topology: net.yaml\nparams: { command: sleep 1000 }\n");
    let arguments = ["campaign", "run", "plan.yaml", "--out", "out"];
    let campaign = place.start(place.tapestry(&arguments));
    let out = place.path("out/runs/p00000-r00000");
    let front = wait_for("the run", || {
        let started = common::has_event(&out, "task-started", "t");
        started.then(|| child_of(campaign.pid().as_raw()))?
    });
    let namespace = namespace_of_children(nix::unistd::Pid::from_raw(front)).expect("a sandbox");
    assert!(!processes_in(namespace).is_empty());
    campaign.signal(Signal::SIGKILL);
    drop(campaign);
    wait_for("the end of all its processes", || processes_in(namespace).is_empty().then_some(()));
    // The half-made run is made anew.
    assert!(out.exists());
    place.file("plan.yaml", "topology: net.yaml\nparams: { command: sleep 1000 }\nseed: 2\n");
    run(&place, &["--resume"]).expect(2).says(&["is not what"]);
}

/// The process that `parent` started.
fn child_of(parent: i32) -> Option<i32> {
    let tasks = fs::read_dir(format!("/proc/{parent}/task")).ok()?.flatten();
    let children = tasks.filter_map(|task| fs::read_to_string(task.path().join("children")).ok());
    children.collect::<String>().split_whitespace().next()?.parse().ok()
}

/// Wrong use: status 2, a message that names the place, and nothing written.
#[track_caller]
fn refused(place: &Place, arguments: &[&str], says: &[&str]) {
    place.call(arguments).expect(2).says(says);
}

#[test]
fn what_is_wrong_is_named_and_nothing_is_overwritten() {
    let place = place(PLAN);
    let with = |from: &str, to: &str| place.file("bad.yaml", PLAN.replace(from, to));
    with("nodes:", "nods:");
    refused(
        &place,
        &["campaign", "run", "bad.yaml"],
        &["bad.yaml:4:", "factor `nods`", "did you mean `nodes`?"],
    );
    with("[2, 3, 4]", "[]");
    refused(&place, &["campaign", "run", "bad.yaml"], &["grid would be empty"]);
    with("keep: none", "report: { metrics: recieved }");
    refused(&place, &["campaign", "run", "bad.yaml"], &["unknown metric `recieved`", "received"]);
    with("[2, 3, 4]", "[2, 1]");
    refused(&place, &["campaign", "run", "bad.yaml"], &["wrong at point nodes=1 loss=10%"]);
    refused(&place, &["campaign", "run", "none.yaml"], &["none.yaml"]);
    refused(
        &place,
        &["campaign", "status", "plan.yaml"],
        &["there is no campaign in campaigns/plan"],
    );
    refused(&place, &["campaign", "run", "plan.yaml", "--resume"], &["there is no campaign"]);
    assert!(!place.path("campaigns").exists(), "nothing was begun");

    run(&place, &["--quiet"]).expect(0);
    let store = place.path("out/campaign.sqlite");
    let whole = fs::read(&store).expect("the store");
    let again = ["campaign", "run", "plan.yaml", "--out", "out"];
    let resume = [&again[..], &["--resume"]].concat();
    refused(&place, &again, &["holds a campaign already"]);
    place.file("plan.yaml", PLAN.replace("replicates: 10", "replicates: 11"));
    refused(&place, &resume, &["`replicates` of the plan is not what", "out"]);
    place.call(&["campaign", "report", "out"]).expect(0);
    place.file("plan.yaml", PLAN);
    place.file("net.yaml", NET.replace("rate: 10Mbit/s", "rate: 20Mbit/s"));
    refused(&place, &resume, &["net.yaml (or a file that it includes) is not what", "out"]);
    place.file("net.yaml", NET);
    assert_eq!(fs::read(&store).expect("the store"), whole);

    // A newer layout; the number stands at byte 60 of an SQLite file.
    let mut newer = whole.clone();
    newer[60..64].copy_from_slice(&99_u32.to_be_bytes());
    damaged(&place, &store, &newer, &resume, &["layout 99", "campaign.sqlite"]);
    let mut torn = whole.clone();
    let middle = torn.len() / 2 / 4096 * 4096;
    torn[middle..middle + 2048].fill(0xa5);
    damaged(&place, &store, &torn, &resume, &["damaged", "campaign.sqlite"]);
    damaged(&place, &store, b"not a database at all, just text", &resume, &["damaged"]);
    fs::write(&store, whole).expect("the store");
    place.call(&resume).expect(0);
}

/// Refuses a store with this content, and leaves it as it is.
#[track_caller]
fn damaged(place: &Place, store: &Path, content: &[u8], arguments: &[&str], says: &[&str]) {
    fs::write(store, content).expect("the store");
    refused(place, arguments, says);
    assert_eq!(fs::read(store).expect("the store"), content);
}

#[test]
fn a_report_and_an_export_of_a_real_campaign() {
    let place = place(PLAN);
    let made = place.call(&["campaign", "run", "plan.yaml"]).expect(0);
    common::says(&made.text(), &["60 runs counted", "tapestry campaign report campaigns/plan"]);
    place.call(&["campaign", "report", "plan.yaml"]).expect(0);
    let html = fs::read_to_string(place.path("campaigns/plan/report.html")).expect("a report");
    for part in
        ["60 runs count", "received against nodes, by loss", "Effect of loss", "box-received"]
    {
        assert!(html.contains(part), "{part}");
    }
    let figure =
        ["campaign", "report", "plan.yaml", "--figure", "heat-received", "--output", "h.png"];
    place.call(&figure).expect(0);
    assert!(fs::read(place.path("h.png")).expect("a picture").starts_with(b"\x89PNG"));
    place.call(&["campaign", "export", "plan.yaml", "--format", "parquet"]).expect(0);
    let parquet = fs::read(place.path("campaigns/plan/export/runs.parquet")).expect("a table");
    assert!(parquet.starts_with(b"PAR1") && parquet.ends_with(b"PAR1"));
}

#[test]
fn the_stop_rule_saves_runs() {
    let plan = PLAN
        .replace("replicates: 10", "replicates: 30")
        .replace("10%, 30%", "0%, 30%")
        .replace("keep", "stop: { metric: received, width: 20%, at_least: 4 }\nkeep");
    let place = place(&plan);
    run(&place, &["--jobs", "1"]).expect(0);
    run_other(&place, "other", "3");
    assert_eq!(runs(&place, "out"), runs(&place, "other"));
    let lossless =
        runs(&place, "out").iter().filter(|run| run.contains("\"factor.loss\": \"0%\"")).count();
    // Three points without any spread, and the warm-up run if it is at one of them.
    assert!((12..=13).contains(&lossless), "{lossless}");
    assert!(counted(&place, "out") > 15);
}

fn run_other(place: &Place, out: &str, jobs: &str) {
    place.call(&["campaign", "run", "plan.yaml", "--out", out, "--jobs", jobs]).expect(0);
}

/// Ctrl-C while the very last runs go on: they are not there, so the campaign is not finished.
#[test]
fn ctrl_c_during_the_last_runs_is_no_end() {
    if !have_root() {
        return;
    }
    let place = Place::new();
    place.file("net.yaml", PING);
    place.file("plan.yaml", "topology: net.yaml\nparams: { command: sleep 1000 }\n");
    let campaign = place.start(place.tapestry(&["campaign", "run", "plan.yaml", "--out", "out"]));
    let out = place.path("out/runs/p00000-r00000");
    wait_for("the run", || common::has_event(&out, "task-started", "t").then_some(()));
    campaign.signal(Signal::SIGTERM);
    campaign.end().expect(130).says(&["go on with", "--resume"]);
    let status = status(&place, "out");
    assert_eq!(
        (status["remaining"].as_u64(), status["states"]["counted"].as_u64()),
        (Some(1), Some(0))
    );
}

#[test]
fn what_was_not_reached_or_not_met_is_said() {
    let place = place(
        "topology: net.yaml
time: virtual
factors: { loss: [10%, 30%] }
replicates: 3
stop: { metric: received, width: 0.001%, at_least: 2 }
",
    );
    place
        .file("net.yaml", NET.replace("    metrics", "    expect: '${received > 5}'\n    metrics"));
    let ended =
        run(&place, &[]).expect(1).says(&["the stop rule was not reached at 2 of 2 points"]);
    common::says(
        &ended.text(),
        &["6 runs counted, 0 failed", "received > 5: does not hold in 6 runs"],
    );
    let status = place.call(&["campaign", "status", "out"]).expect(0).text();
    common::says(
        &status,
        &[
            "planned   2 points, at most 6 runs",
            "left      nothing",
            "was not reached",
            "received > 5",
        ],
    );
    // A plan beside its campaign is found from elsewhere; an edited one is not believed.
    place.call(&["campaign", "run", "plan.yaml"]).expect(1);
    fs::create_dir(place.path("elsewhere")).expect("a directory");
    let plan = fs::read_to_string(place.path("plan.yaml")).expect("the plan");
    place.file("plan.yaml", plan.replace("replicates: 3", "replicates: 4"));
    let path = place.path("plan.yaml").display().to_string();
    let mut report = place.tapestry(&["campaign", "report", &path]);
    report.current_dir(place.path("elsewhere"));
    place.start(report).end().expect(0).says(&["warning: `replicates`"]);
    let report = fs::read_to_string(place.path("campaigns/plan/report.md")).expect("a report");
    common::says(&report, &["at most 3 replicates each", "The stop rule was not reached"]);
}

#[test]
fn many_failed_runs_are_counted_not_listed() {
    let place = place("topology: net.yaml\ntime: virtual\nparams: { nodes: 2 }\nreplicates: 30\n");
    place.file(
        "net.yaml",
        NET.replace("{ command: \"ping -c ${count} -i 0.2 -W 1 h1\", status: any }", "\"false\""),
    );
    let ended = run(&place, &[]).expect(1).says(&["30 runs did not count"]);
    let lines = ended.stderr.matches("run at -: failed").count();
    assert_eq!(lines, 20, "{}", ended.stderr);
    common::says(&ended.text(), &["0 runs counted, 30 failed"]);
    // Nothing counts, and that is what the report says.
    place.call(&["campaign", "report", "out"]).expect(0);
    let report = fs::read_to_string(place.path("out/report.md")).expect("a report");
    common::says(&report, &["No run counts", "| failed | 30 |", "false"]);
}
