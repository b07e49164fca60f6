//! Virtual machines in trouble: exit status 1 in time, an error that names the node, the cause,
//! QEMU's own words and the last console lines; and the other guests' results are kept.

mod common;

use common::{Place, Started, have_qemu, have_root, host, qemu_turn, says, script, wait_for};
use nix::sys::signal::{Signal, kill};

const ONE: &str = "nodes:\n  g: { kind: qemu }\n";

#[test]
fn qemu_is_missing_too_old_or_something_else() {
    if !have_root() {
        return;
    }
    let place = Place::new();
    place.file("lab.yaml", ONE);
    let run = |program: &str, out: &str| {
        let mut command = place.tapestry(&["run", "lab.yaml", "--out", out]);
        command.env("TAPESTRY_QEMU", program);
        place.start(command).end().expect(1)
    };
    let told = run("/nowhere/qemu", "missing").stderr;
    says(&told, &["node `g`", "/nowhere/qemu", "apt-get install qemu-system-x86"]);

    let old = script(&place, "old-qemu", "echo 'QEMU emulator version 5.2.0'");
    let told = run(&old.to_string_lossy(), "old").stderr;
    says(&told, &["node `g`", "5.2.0", "7.2"]);

    let strange = script(&place, "strange", "echo 'I am no emulator' >&2; exit 9");
    let told = run(&strange.to_string_lossy(), "no-qemu").stderr;
    says(&told, &["node `g`"]);
    assert!(told.contains("I am no emulator") || told.contains("version"), "{told}");
}

/// Guests that fail at boot, each in its way, beside one that works.
#[test]
fn boot_fails_in_each_way_and_is_told() {
    if !have_qemu() {
        return;
    }
    let _turn = qemu_turn();
    let mut run = Place::new().begin(
        r#"
nodes:
  refused: { kind: qemu, extra_args: ["-no-such-option"] }
  panics: { kind: qemu, kernel_args: "rdinit=/nowhere init=/nowhere" }
  mute: { kind: qemu, kernel_args: "rdinit=/usr/bin/sleep -- 1000", boot_timeout: 15s }
  dies: { kind: qemu, kernel_args: "rdinit=/usr/bin/sleep -- 1000" }
  good: { kind: qemu }
tasks:
  - { name: never, run: { good: echo hello } }
"#,
    );
    run.wait_for_event("node-started", "dies");
    kill_guest(&run, "dies");
    let results = run.end().expect(1).results();
    let errors = results.errors();
    says(&errors, &["node `refused`: QEMU refused", "-no-such-option: invalid option"]);
    says(&errors, &["`panics`", "last lines of its console", "Kernel panic"]);
    says(&errors, &["`dies` did not get to a shell", "signal 9 (SIGKILL)"]);
    says(&errors, &["`mute`", "no usable shell within 15s"]);
    assert_eq!(results.node("good")["ready"], true, "{errors}");
    for bad in ["refused", "panics", "mute", "dies"] {
        assert_eq!(results.node(bad)["ready"], false);
        assert!(results.node(bad)["error"].is_string(), "{:#}", results.node(bad));
    }
    assert_eq!(results.task("never")["ran"], false);
}

/// Guests that end in the middle of a task, each in its way, beside one that goes on.
#[test]
fn guests_that_end_in_a_task_are_told_and_others_go_on() {
    if !have_qemu() {
        return;
    }
    let _turn = qemu_turn();
    let mut run = Place::new().begin(
        r#"
nodes:
  panics: { kind: qemu }
  reboots: { kind: qemu }
  killed: { kind: qemu }
  orphaned: { kind: qemu }
  good: { kind: qemu }
tasks:
  - name: end
    run:
      panics: "sleep 1; echo c > /proc/sysrq-trigger; sleep 1000"
      reboots: "sleep 1; reboot -f; sleep 1000"
      killed: sleep 1000
      orphaned: "sleep 1; kill -9 -1; sleep 1000"
      good: "sleep 3; echo survived"
    timeout: 60s
  - { name: never, run: { good: echo hello } }
"#,
    );
    run.wait_for_event("task-started", "end");
    kill_guest(&run, "killed");
    let ended = run.end().expect(1);
    let results = ended.results();
    let errors = results.errors();
    says(&errors, &["`panics`", "panicked", "sysrq"]);
    says(&errors, &["`reboots`", "rebooted"]);
    says(&errors, &["`killed`", "signal 9"]);
    says(&errors, &["`orphaned`", "the shell has ended (status 137)"]);
    assert_eq!(results.output("end", "good"), "survived\n", "{errors}");
    assert_eq!(results.status("end", "good"), Some(0));
    assert_eq!(results.task("never")["ran"], false);
    assert!(ended.took.as_secs() < 90, "it took {:?}", ended.took);
}

/// Ends the QEMU process of one guest of this run, as the kernel does when memory runs out.
fn kill_guest(run: &Started, node: &str) {
    let sandbox = host::namespace_of_children(run.pid()).expect("a sandbox");
    assert_ne!(sandbox, host::own_namespace(), "the run is not in a sandbox");
    let qemu = wait_for(&format!("the process of guest {node}"), || {
        let name = format!("-name guest={node} ");
        host::processes_in(sandbox).into_iter().find(|(_, line)| line.contains(&name))
    });
    kill(qemu.0, Signal::SIGKILL).expect("the guest's process is there");
}
