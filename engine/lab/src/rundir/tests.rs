use super::*;

#[test]
fn a_run_is_alive_then_dead_then_finished() {
    let root = tempfile::tempdir().unwrap();
    let out = root.path().join("run");
    let run = RunDir::create(Some(&out), "x").unwrap();
    let manifest = |exit: Option<i32>| serde_json::json!({ "tapestry": "0.1.0", "exit": exit });
    run.write_json("manifest.json", &manifest(None)).unwrap();
    assert_eq!(state(&out), Some(RunState::Alive));
    assert!(!remove_dead(&out).unwrap(), "a living run must not be removed");

    let path = run.path().to_owned();
    drop(run);
    assert_eq!(state(&path), Some(RunState::Dead));
    fs::write(path.join("notes.txt"), "mine").unwrap();
    assert!(remove_dead(&path).unwrap());
    assert_eq!(fs::read_to_string(path.join("notes.txt")).unwrap(), "mine");
    assert_eq!(fs::read_dir(&path).unwrap().count(), 1);
    assert_eq!(state(&path), None, "a folder that is no run is left alone");

    let run = RunDir::create(Some(&root.path().join("two")), "x").unwrap();
    run.write_json("manifest.json", &manifest(Some(0))).unwrap();
    let path = run.path().to_owned();
    run.release();
    assert_eq!(state(&path), Some(RunState::Finished));
    assert!(!remove_dead(&path).unwrap());
}

#[test]
fn a_run_killed_at_any_moment_of_its_birth_is_known() {
    let root = tempfile::tempdir().unwrap();
    let at = |name: &str| root.path().join(name);
    // Marked, and nothing else yet.
    let run = RunDir::create(Some(&at("given")), "x").unwrap();
    for sub in SUBDIRECTORIES {
        fs::remove_dir(run.path().join(sub)).unwrap();
    }
    assert_eq!(state(run.path()), Some(RunState::Alive));
    let path = run.path().to_owned();
    drop(run);
    assert_eq!(state(&path), Some(RunState::Dead));
    assert!(remove_dead(&path).unwrap());
    assert!(!path.exists());

    // Made, and not marked yet.
    let (dead, lock) = fresh(root.path(), "a.b-c").unwrap();
    drop(lock);
    let (locked, lock) = fresh(root.path(), "a.b-c").unwrap();
    fs::write(locked.join(format!("{LOCK}{PARTIAL}")), "").unwrap();
    drop(lock);
    for others in ["empty", "20010909-014640", "a-20010909-014640/file", "b-1-2"] {
        fs::create_dir_all(at(others)).unwrap();
    }
    let mut expected = vec![dead.clone(), locked.clone()];
    expected.sort();
    assert_eq!(unborn(root.path(), true).unwrap(), expected);
    assert!(dead.exists() && locked.exists());
    assert_eq!(unborn(root.path(), false).unwrap(), expected);
    assert!(!dead.exists() && !locked.exists());
    assert_eq!(fs::read_dir(root.path()).unwrap().count(), 4);
    assert_eq!(unborn(&at("none"), false).unwrap(), Vec::<PathBuf>::new());
}

#[test]
fn what_others_call_manifest_or_lock_is_no_run() {
    let root = tempfile::tempdir().unwrap();
    let path = root.path();
    fs::write(path.join("manifest.json"), r#"{ "name": "a web site" }"#).unwrap();
    fs::create_dir(path.join("console")).unwrap();
    assert_eq!(state(path), None);
    fs::write(path.join(LOCK), "").unwrap();
    assert_eq!(state(path), None);
    assert!(!remove_dead(path).unwrap());
    assert_eq!(fs::read_dir(path).unwrap().count(), 3);
}

#[test]
fn out_must_be_new_or_empty_and_possible() {
    let root = tempfile::tempdir().unwrap();
    fs::write(root.path().join("file"), "").unwrap();
    let error = RunDir::create(Some(root.path()), "x").unwrap_err();
    assert!(matches!(error, RunDirError::NotEmpty { .. }), "{error}");
    let error = RunDir::create(Some(&root.path().join("file/sub")), "x").unwrap_err();
    assert!(matches!(error, RunDirError::Create { .. }), "{error}");
    assert!(error.to_string().contains("--out"), "{error}");
}

#[test]
fn two_runs_never_begin_in_one_directory() {
    let root = tempfile::tempdir().unwrap();
    // The other has opened its lock, and has not yet given it its name.
    let partial = root.path().join(format!("{LOCK}{PARTIAL}"));
    let other = |path: &Path| {
        let lock = File::create(path).unwrap();
        Flock::lock(lock, FlockArg::LockExclusiveNonblock).map_err(|(_, errno)| errno).unwrap()
    };
    let lock = other(&partial);
    let error = lock_of(root.path()).unwrap_err();
    assert!(matches!(&error, RunDirError::InUse { path } if path == root.path()), "{error}");
    drop(lock);
    lock_of(root.path()).unwrap();
}

#[test]
fn a_failed_write_leaves_no_file_that_passes_for_a_result() {
    struct Unwritable;
    impl Serialize for Unwritable {
        fn serialize<S: serde::Serializer>(&self, _: S) -> Result<S::Ok, S::Error> {
            Err(serde::ser::Error::custom("disk is full"))
        }
    }
    let root = tempfile::tempdir().unwrap();
    let run = RunDir::create(Some(&root.path().join("run")), "x").unwrap();
    let error = run.write_json("results.json", &Unwritable).unwrap_err();
    assert!(error.to_string().contains("results.json"), "{error}");
    assert!(!run.path().join("results.json").exists());
    assert!(!run.path().join(format!("results.json{PARTIAL}")).exists());
}

#[test]
fn stamps_are_sortable_utc() {
    let at = UNIX_EPOCH + std::time::Duration::from_secs(1_000_000_000);
    assert_eq!(utc_stamp(at), "20010909-014640");
    assert_eq!(rfc3339(at), "2001-09-09T01:46:40Z");
}
