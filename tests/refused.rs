//! What can be told to be wrong before a run begins is told at once, with the value and what to do,
//! and leaves no run directory.

mod common;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;

use common::{Place, have_program, have_qemu, have_root, script};
use nix::unistd::geteuid;

/// In-process devices only: needs nothing of the machine.
const DEVICES: &str =
    "nodes: { a: { kind: bridge }, b: { kind: hub } }\nlinks: [{ pair: [a, b] }]\n";

#[test]
fn wrong_options_are_told_together() {
    let place = Place::new();
    place.file("lab.yaml", DEVICES);
    let run = |more: &[&str]| {
        let refused = place.call(&[&["run", "lab.yaml", "--out", "out"], more].concat()).expect(2);
        assert!(!place.path("out").exists(), "{more:?} left a run directory");
        refused
    };
    run(&["--pin", "0,1023", "--capture", "nowhere", "--forwarder", "no-such-program"]).says(&[
        "--pin 1023",
        "choose from 0",
        "--capture nowhere",
        "a--b",
        "--forwarder no-such-program",
        "$PATH",
    ]);
    run(&["--capture", "a--b:zz"]).says(&["--capture a--b:zz", "a:eth0", "b:eth0"]);
    run(&["--pin", "many"]).says(&["many", "--pin"]);
    for workers in ["0", "100000", "many"] {
        run(&["--workers", workers]).says(&["--workers", workers]);
    }
    run(&["--workers", "0"]).says(&["1..=1024"]);
    let plain = place.file("plain", "not executable");
    run(&["--forwarder", &plain.to_string_lossy()]).says(&["plain", "may execute"]);
    let program = script(&place, "program", "cat");
    run(&["--forwarder", &program.to_string_lossy()]).says(&["link a--b", "--forwarder"]);
}

#[test]
fn bounds_of_captures_that_bound_nothing_are_wrong_usage() {
    let place = Place::new();
    place.file("lab.yaml", DEVICES);
    let refused = |more: &[&str], parts: &[&str]| {
        place.call(&[&["run", "lab.yaml", "--out", "out"], more].concat()).expect(2).says(parts);
        assert!(!place.path("out").exists(), "{more:?} left a run directory");
    };
    for bound in [["--snap-length", "64"], ["--capture-size", "1MiB"], ["--capture-files", "2"]] {
        refused(&bound, &["--capture <WHAT>"]);
    }
    let all = ["--capture", "all"];
    refused(&[&all[..], &["--snap-length", "0"]].concat(), &["--snap-length", "0 is not in 1.."]);
    refused(&[&all[..], &["--capture-size", "0B"]].concat(), &["--capture-size", "above 0"]);
    refused(
        &[&all[..], &["--capture-files", "0"]].concat(),
        &["--capture-files", "0 is not in 1.."],
    );
    let twice = ["--capture", "a--b:a", "--capture", "a--b:a", "--capture", "a--b:a"];
    refused(&twice, &["--capture a--b:a is given twice"]);
    refused(
        &[&all[..], &["--capture", "a--b"]].concat(),
        &["--capture a--b is given twice", "`all`"],
    );
    // The same place under two names is two captures.
    place
        .call(
            &[
                &["run", "lab.yaml", "--out", "out", "--time", "virtual", "--quiet"][..],
                &["--capture", "a--b:a", "--capture", "a--b:a:eth0", "--snap-length", "64"],
            ]
            .concat(),
        )
        .expect(0);
}

#[test]
fn images_that_are_not_there_are_told_with_the_command_that_makes_one() {
    let place = Place::new();
    place.file(
        "lab.yaml",
        "nodes:\n  g: { image: nowhere }\n  \"h[0-3]\": { image: elsewhere }\n  i: { image: ../up }\n",
    );
    let mut command = place.tapestry(&["run", "lab.yaml", "--out", "out"]);
    command.env("TAPESTRY_CACHE", place.path("cache"));
    let refused = place.start(command).end().expect(2).says(&[
        "node g: there is no image `nowhere`",
        "node h0: there is no image `elsewhere`",
        "tapestry image build",
        "`../up` cannot name an image",
    ]);
    assert_eq!(refused.stderr.matches("elsewhere").count(), 1, "{}", refused.stderr);
    assert!(!place.path("out").exists());
}

#[test]
fn a_nic_that_the_image_does_not_drive_is_wrong_usage() {
    if !have_qemu() {
        return;
    }
    let place = Place::new();
    place.file("lab.yaml", "nodes: { g: { nic: e1000 }, h: {} }\nlinks: [{ pair: [g, h] }]\n");
    let refused = place.call(&["run", "lab.yaml", "--out", "out"]).expect(2);
    refused.says(&["`g`", "`debian`", "`e1000`", "--kernel generic"]);
    assert!(!place.path("out").exists());
}

/// Runs a lab of two namespaces where `before` has been done to /dev/net in a mount namespace.
fn without_tun(place: &Place, before: &str, user: &str) -> common::Ended {
    place.file(
        "lab.yaml",
        "nodes: { a: { kind: netns }, b: { kind: netns } }\nlinks: [{ pair: [a, b] }]\n",
    );
    // Whoever it runs as must be able to reach the program and the file.
    let program = place.path("tapestry");
    fs::copy(env!("CARGO_BIN_EXE_tapestry"), &program).expect("copied");
    let folder = place.path("");
    fs::set_permissions(&folder, fs::Permissions::from_mode(0o777)).expect("ours");
    let run = format!("{} run {}lab.yaml --out out", program.display(), folder.display());
    let mut command = Command::new("unshare");
    command.args(["-m", "sh", "-c", &format!("{before} && exec {user} {run}")]);
    command.current_dir(&folder);
    place.start(command).end()
}

#[test]
fn a_machine_without_taps_is_told_what_to_do() {
    if !have_root() || !have_program("unshare") || !have_program("setpriv") {
        return;
    }
    if !geteuid().is_root() {
        eprintln!("not tested: only root may hide /dev/net/tun");
        return;
    }
    let place = Place::new();
    let gone = without_tun(&place, "mount -t tmpfs none /dev/net", "").expect(1);
    gone.says(&["/dev/net/tun", "need it: a, b", "sudo modprobe tun", "attach: socket"]);
    let closed = format!(
        "cp -a /dev/net/tun {0} && chmod 0600 {0} && mount --bind {0} /dev/net/tun",
        place.path("tun").display()
    );
    let user = "setpriv --reuid=65534 --regid=65534 --clear-groups";
    let refused = without_tun(&place, &closed, user).expect(1);
    assert!(!refused.stderr.contains("user namespace"), "{}", refused.stderr);
    refused.says(&["/dev/net/tun", "Permission denied", "chmod 0666", "group", "attach: socket"]);
    assert!(!place.path("out").exists());
}
