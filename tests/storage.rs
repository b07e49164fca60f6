//! Where a run writes: nothing half-written passes for a result.

mod common;

use std::fs;
use std::process::Command;

use common::{Place, have_root, says};

const ONE: &str = "nodes:\n  a: { kind: netns }\ntasks:\n  - { name: t, run: { a: COMMAND } }\n";

#[test]
fn out_must_be_new_or_empty() {
    let place = Place::new();
    fs::create_dir(place.path("out")).unwrap();
    place.file("out/mine.txt", "keep me");
    let ended = place.run(ONE).expect(2).says(&["out", "not empty", "--out"]);
    assert!(ended.text().is_empty());
    assert_eq!(fs::read_to_string(place.path("out/mine.txt")).unwrap(), "keep me");
    assert_eq!(fs::read_dir(place.path("out")).unwrap().count(), 1, "nothing was added");
}

#[test]
fn out_must_be_possible() {
    let place = Place::new();
    place.file("file", "");
    place.file("lab.yaml", ONE);
    place.call(&["run", "lab.yaml", "--out", "file/sub"]).expect(2).says(&[
        "cannot make run directory",
        "file/sub",
        "--out",
    ]);
    // A file system that takes no directories, whoever asks.
    place
        .call(&["run", "lab.yaml", "--out", "/proc/tapestry"])
        .expect(2)
        .says(&["/proc/tapestry", "--out"]);
}

/// Runs a topology with its run directory, `run`, on a file system of `size`; `first` is what the
/// shell does there before.
fn on_small_disk(place: &Place, size: &str, first: &str, topology: &str) -> common::Ended {
    let lab = place.file("lab.yaml", topology);
    let disk = place.path("disk");
    fs::create_dir(&disk).unwrap();
    // The mount lives in a namespace of its own; what is left is copied out before it goes.
    let script = format!(
        "mount -t tmpfs -o size={size} tmpfs {disk}\n\
         (cd {disk}; {first})\n\
         {program} run {lab} --out {disk}/run; code=$?\n\
         cp -r {disk}/run {kept}; exit $code",
        disk = disk.display(),
        program = env!("CARGO_BIN_EXE_tapestry"),
        lab = lab.display(),
        kept = place.path("out").display(),
    );
    let mut command = Command::new("unshare");
    // Who is not root becomes it in a user namespace, to be allowed to mount.
    let flags = if nix::unistd::geteuid().is_root() { "-m" } else { "-rm" };
    command.args([flags, "sh", "-c", &script]);
    place.start(command).end()
}

#[test]
fn a_disk_that_fills_up_is_told_and_leaves_no_result() {
    if !have_root() {
        return;
    }
    let place = Place::new();
    // A megabyte of output onto half a megabyte of disk.
    let topology = ONE.replace("COMMAND", "\"yes | head -c 1000000\"");
    let ended = on_small_disk(&place, "512k", ":", &topology);
    assert_ne!(ended.code(), 0, "{}\n{}", ended.text(), ended.stderr);
    let said = format!("{}{}", ended.text(), ended.stderr);
    says(&said, &["No space left on device"]);
    // Either there are no results, or they are whole and do not say "passed".
    let results = place.path("out/results.json");
    if results.exists() {
        assert_ne!(ended.results().outcome(), "passed");
    }
    let left: Vec<_> = fs::read_dir(place.path("out")).unwrap().flatten().collect();
    for entry in left {
        let name = entry.file_name().into_string().unwrap();
        assert!(!name.ends_with(".partial"), "half-written {name} was left");
    }
}

#[test]
fn an_output_that_did_not_fit_is_a_failure_though_there_is_room_again() {
    if !have_root() {
        return;
    }
    let place = Place::new();
    // The disk has room for results, and for a third of the output; soon there is more.
    let first = "head -c 400000 /dev/zero > filler\n\
         (while ! [ -s run/outputs/t.a.out ]; do sleep 0.05; done; sleep 0.5; rm filler) &";
    let topology = ONE.replace("COMMAND", "\"yes | head -c 3000000\"");
    let ended = on_small_disk(&place, "1500k", first, &topology);
    assert_ne!(ended.code(), 0, "{}\n{}", ended.text(), ended.stderr);
    let said = format!("{}{}", ended.text(), ended.stderr);
    says(&said, &["No space left on device"]);
}

#[test]
fn a_full_standard_output_is_told() {
    let place = Place::new();
    place.file("lab.yaml", ONE);
    let mut command = Command::new(env!("CARGO_BIN_EXE_tapestry"));
    let full = fs::File::options().write(true).open("/dev/full").unwrap();
    command.arg("schema").stdout(full);
    let output = command.stderr(std::process::Stdio::piped()).spawn().unwrap();
    let output = output.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    says(&String::from_utf8_lossy(&output.stderr), &["standard output", "No space left"]);
}

#[test]
fn no_room_at_all_is_told_at_once() {
    if !have_root() {
        return;
    }
    let place = Place::new();
    let ended = on_small_disk(&place, "4k", ":", &ONE.replace("COMMAND", "echo hello"));
    assert_ne!(ended.code(), 0, "{}", ended.text());
    says(&ended.stderr, &["No space left on device", "--out"]);
    assert!(!place.path("out/results.json").exists());
}
