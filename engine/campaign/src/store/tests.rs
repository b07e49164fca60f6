use std::time::{Duration, SystemTime};

use tapestry_topologies::plan::Design;

use super::*;
use crate::design::{self, Job, Purpose, tests::list, tests::plan};
use tapestry_lab::execution::{Ended, Ending};

fn new(directory: &Path) -> Store {
    let plan = plan(&[("a", list(&[1, 2]))], Design::FullFactorial);
    let points = design::points(&plan).unwrap();
    Store::create(directory, &plan, "digest", &points, "2026-01-01T00:00:00Z").unwrap()
}

fn ended() -> Ended {
    let results = serde_json::json!({
        "schema": 1, "name": "net", "verdict": {"state": "degraded", "reasons": ["slow"]},
        "outcome": "passed", "errors": [], "nodes": [],
        "tasks": [{"name": "t", "ran": true, "state": "ended", "start_skew_ns": 5,
            "release_span_ns": null, "seconds": 0.5, "commands": [{"name": "a", "node": "a",
            "command": "true", "background": false, "status": 0, "start_seconds": 0.0,
            "seconds": 0.1, "output": "long", "output_bytes": 4}]}],
        "metrics": {"rtt": {"value": 1.5, "unit": "ms"}, "loss": {"value": 0.0, "unit": ""}},
        "expectations": [],
        "links": [{"name": "a--b", "endpoints": [{"endpoint": "a:eth0", "backlog": 3}]}],
        "notices": [], "lateness": {"p99_ns": 7}, "host": null,
        "wall": {"ready_seconds": 0.1, "total_seconds": 0.7}
    });
    Ended {
        ending: Ending::Completed,
        results: Some(serde_json::from_value(results).unwrap()),
        lasted: Duration::from_millis(700),
    }
}

fn record(store: &mut Store, replicate: u32, ended: &Ended) -> Result<(), StoreError> {
    let session = store.begin_session("now", &["tapestry".to_owned()], 1)?;
    store.record(&Record {
        session,
        job: Job { purpose: Purpose::Measure, point: 1, replicate, attempt: 0 },
        seed: u64::MAX >> 1,
        state: State::of(ended).unwrap(),
        started: SystemTime::UNIX_EPOCH,
        beside: 0,
        directory: None,
        ended,
    })
}

#[test]
fn what_is_written_is_read() {
    let place = tempfile::tempdir().unwrap();
    let mut store = new(place.path());
    record(&mut store, 0, &ended()).unwrap();
    drop(store);
    let store = Store::open(place.path()).unwrap();
    store.check().unwrap();
    assert_eq!(store.digest().unwrap(), "digest");
    assert_eq!(store.plan().unwrap().name, "test");
    assert_eq!(store.points().unwrap().len(), 2);
    let runs = store.runs().unwrap();
    let run = &runs[0];
    assert!(runs.len() == 1 && run.counts());
    assert_eq!((run.job.point, run.seed, run.verdict.as_str()), (1, u64::MAX >> 1, "degraded"));
    assert_eq!(
        (run.outcome.as_str(), run.reasons.as_slice()),
        ("passed", &["slow".to_owned()][..])
    );
    let metrics = store.metrics().unwrap();
    assert_eq!(metrics["rtt"], Metric { unit: "ms".to_owned(), values: vec![(1, 1.5)] });
    assert_eq!(store.values("rtt").unwrap(), [(1, 0, 1.5)]);
    let tasks = store.table("tasks", "run, place").unwrap();
    assert!(tasks.columns.starts_with(&["run".to_owned(), "place".to_owned(), "name".to_owned()]));
    assert!(
        format!("{:?}", tasks.rows).contains("status")
            && !format!("{:?}", tasks.rows).contains("long")
    );
    let links = store.table("link_counters", "run, link, endpoint").unwrap();
    assert!(format!("{:?}", links.rows).contains("a:eth0"));
    assert_eq!(
        (tasks.kinds[0], tasks.kinds[2], tasks.kinds[4]),
        (Kind::Integer, Kind::Text, Kind::Real)
    );
}

#[test]
fn a_run_is_there_once() {
    let place = tempfile::tempdir().unwrap();
    let mut store = new(place.path());
    record(&mut store, 0, &ended()).unwrap();
    assert!(record(&mut store, 0, &ended()).is_err());
    assert_eq!(store.runs().unwrap().len(), 1);
    assert_eq!(store.values("rtt").unwrap().len(), 1, "nothing of the second one stays");
}

#[test]
fn a_run_that_does_not_count_is_in_no_mean() {
    let place = tempfile::tempdir().unwrap();
    let mut store = new(place.path());
    let mut invalid = ended();
    if let Some(results) = &mut invalid.results {
        results.verdict.state = tapestry_lab::verdict::Trust::Invalid;
    }
    let crashed = Ended {
        ending: Ending::Crashed("signal 9".to_owned()),
        results: None,
        lasted: Duration::ZERO,
    };
    record(&mut store, 0, &invalid).unwrap();
    record(&mut store, 1, &crashed).unwrap();
    let states: Vec<State> = store.runs().unwrap().iter().map(|run| run.state).collect();
    assert_eq!(states, [State::Invalid, State::Crashed]);
    assert_eq!(store.runs().unwrap()[1].errors, ["signal 9"]);
    let late = Ended {
        ending: Ending::TimedOut(Some("load".to_owned())),
        results: None,
        lasted: Duration::from_secs(4),
    };
    record(&mut store, 2, &late).unwrap();
    let errors = store.runs().unwrap().remove(2).errors;
    assert_eq!(errors, ["in task load when the time limit ended it, after 4.0 s"]);
    assert!(store.values("rtt").unwrap().is_empty());
    assert_eq!(store.metrics().unwrap()["rtt"].values.len(), 1, "but it is kept");
    let interrupted = Ended { ending: Ending::Interrupted, ..ended() };
    assert_eq!(State::of(&interrupted), None);
}

/// Nothing of a file that cannot be used is changed.
#[track_caller]
fn refused(directory: &Path, expected: &str) {
    let before = std::fs::read(directory.join(FILE)).unwrap();
    let wrong = Store::open(directory).and_then(|store| store.check()).unwrap_err().to_string();
    assert!(wrong.contains(expected), "{wrong}");
    assert!(wrong.contains(FILE), "it names the file: {wrong}");
    assert_eq!(std::fs::read(directory.join(FILE)).unwrap(), before);
}

#[test]
fn stores_that_cannot_be_used_are_refused_and_left_alone() {
    let place = tempfile::tempdir().unwrap();
    let missing = Store::open(place.path()).unwrap_err();
    assert!(matches!(missing, StoreError::Missing { .. }), "{missing}");

    let store = new(place.path());
    store.connection.pragma_update(None, "user_version", LAYOUT + 1).unwrap();
    store.settle().unwrap();
    drop(store);
    refused(place.path(), "layout 2");

    let other = tempfile::tempdir().unwrap();
    let connection = Connection::open(other.path().join(FILE)).unwrap();
    connection.execute_batch("CREATE TABLE theirs (a)").unwrap();
    drop(connection);
    refused(other.path(), "not the store of a campaign");

    let junk = tempfile::tempdir().unwrap();
    std::fs::write(junk.path().join(FILE), "what is this?".repeat(1000)).unwrap();
    refused(junk.path(), "damaged");
}

#[test]
fn damage_in_the_middle_is_found() {
    let place = tempfile::tempdir().unwrap();
    let mut store = new(place.path());
    for replicate in 0..200 {
        record(&mut store, replicate, &ended()).unwrap();
    }
    store.settle().unwrap();
    drop(store);
    let path = place.path().join(FILE);
    let mut bytes = std::fs::read(&path).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle..middle + 4096].fill(0xff);
    std::fs::write(&path, bytes).unwrap();
    refused(place.path(), "damaged");
}

#[test]
fn a_store_that_was_never_finished_is_none() {
    let place = tempfile::tempdir().unwrap();
    // What is left by a program killed between making the file and its tables.
    std::fs::write(place.path().join(FILE), "").unwrap();
    assert!(matches!(Store::open(place.path()), Err(StoreError::Missing { .. })));
}

#[test]
fn a_full_disk_is_named() {
    let place = tempfile::tempdir().unwrap();
    let mut store = new(place.path());
    record(&mut store, 0, &ended()).unwrap();
    // SQLite reports the end of its allowed size as it reports a full disk.
    store.connection.pragma_update(None, "max_page_count", 1).unwrap();
    let mut failure = None;
    for replicate in 1..500 {
        if let Err(error) = record(&mut store, replicate, &ended()) {
            failure = Some(error);
            break;
        }
    }
    assert!(matches!(failure, Some(StoreError::Full { .. })), "{failure:?}");
    assert!(failure.unwrap().to_string().contains("--resume"));
    store.check().unwrap();
    assert!(!store.runs().unwrap().is_empty());
}

#[test]
fn a_locked_store_is_named() {
    let place = tempfile::tempdir().unwrap();
    let mut store = new(place.path());
    store.connection.busy_timeout(Duration::from_millis(10)).unwrap();
    let other = Connection::open(place.path().join(FILE)).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    let refused = record(&mut store, 0, &ended()).unwrap_err();
    assert!(matches!(refused, StoreError::Locked { .. }), "{refused}");
    assert!(refused.to_string().contains("--resume"), "{refused}");
    other.execute_batch("ROLLBACK").unwrap();
    record(&mut store, 0, &ended()).unwrap();
}

#[test]
fn missing_parts_are_found_when_a_store_is_opened() {
    for (harm, said) in [
        ("DROP VIEW counted_metrics; DROP TABLE metrics", "no table `metrics`"),
        ("DROP VIEW counted_metrics", "no view `counted_metrics`"),
        ("ALTER TABLE tasks DROP COLUMN seconds", "table `tasks` has no column `seconds`"),
        ("DELETE FROM campaign", "row of the campaign"),
        ("UPDATE campaign SET plan = '{'", "the plan cannot be read"),
    ] {
        let place = tempfile::tempdir().unwrap();
        let store = new(place.path());
        store.connection.pragma_update(None, "foreign_keys", "OFF").unwrap();
        store.connection.execute_batch(harm).unwrap();
        store.settle().unwrap();
        drop(store);
        refused(place.path(), said);
        let wrong = Store::read(place.path()).unwrap_err();
        assert!(crate::campaign::CampaignError::from(wrong).is_usage(), "{harm}");
    }
}

#[test]
fn a_store_that_cannot_be_written_is_read() {
    let place = tempfile::tempdir().unwrap();
    // Characters that mean something in a URI.
    let directory = place.path().join("a ?b#c%41");
    std::fs::create_dir(&directory).unwrap();
    let mut store = new(&directory);
    record(&mut store, 0, &ended()).unwrap();
    store.settle().unwrap();
    drop(store);
    let path = directory.join(FILE);
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_URI;
    let connection = Connection::open_with_flags(uri(&path, "immutable=1"), flags).unwrap();
    let store = Store::checked(connection, path, |_| Ok(())).unwrap();
    assert_eq!((store.runs().unwrap().len(), store.values("rtt").unwrap().len()), (1, 1));
    let left = std::fs::read_dir(&directory).unwrap().count();
    assert_eq!(left, 1, "nothing is made beside it");
}
