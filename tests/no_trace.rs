//! A run that is killed leaves nothing on the host but its run directory, whenever it is killed and
//! whichever of its processes; and `tapestry clean` removes that, and nothing else.

mod common;

use std::fs;
use std::path::Path;
use std::thread::sleep;
use std::time::{Duration, Instant};

use common::host::{self, Host, Namespace};
use common::{Place, Started, WATCHDOG, have_qemu, have_root, qemu_turn, says};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

/// Everything a run makes: links of several kinds, bridges in and for nodes, daemons, background
/// and foreground commands.
const NAMESPACES: &str = r#"
nodes:
  "n[0-3]": { kind: netns }
  sw: { kind: netns, bridges: { br0: { ports: [eth0, eth1] } } }
links:
  - { lan: "n[0-3]", ipv4: 10.0.0.0/24 }
  - { pair: [n0, sw] }
  - { pair: [sw, n1] }
tasks:
  - name: daemons
    run:
      n0: setsid sleep 1000 > /dev/null 2>&1 < /dev/null &
      n1: { name: server, command: sleep 1000, background: true }
      n2: touch /tmp/file; mkdir /tmp/x; mount -t tmpfs tmpfs /tmp/x
  - { name: traffic, run: { n0: ping -c 20 -i 0.05 n3, n2: sleep 1 } }
  - { name: wait, run: { n0: sleep 1000 } }
"#;

const MACHINES: &str = r"
nodes:
  g0: { kind: qemu }
  g1: { kind: qemu, attach: socket }
  n: { kind: netns }
links: [{ lan: [g0, g1, n], ipv4: 10.0.0.0/24 }]
tasks: [{ name: wait, run: { g0: sleep 1000 } }]
";

/// A run by whose end everything of it must be gone.
struct Doomed {
    run: Started,
    place: Place,
    /// An entry in the environment of the run's own processes, and of nobody else's.
    mark: String,
    host: Host,
}

/// What is known of a run just before it is killed.
struct Known {
    sandbox: Option<Namespace>,
    socket: Option<String>,
    /// The processes in its sandbox.
    inside: Vec<(Pid, String)>,
}

impl Doomed {
    fn begin(topology: &str) -> Self {
        let (place, host) = (Place::new(), Host::now());
        place.file("lab.yaml", topology);
        let mut command = place.tapestry(&["run", "lab.yaml", "--out", "out", "--quiet"]);
        let value = place.path("").display().to_string();
        command.env("NO_TRACE_OF", &value);
        let mark = format!("NO_TRACE_OF={value}");
        Self { run: place.start(command), place, mark, host }
    }

    fn look(&self) -> Known {
        let sandbox = host::namespace_of_children(self.run.pid());
        let sandbox = sandbox.filter(|namespace| *namespace != host::own_namespace());
        Known {
            sandbox,
            socket: host::socket_of(&self.run.out),
            inside: sandbox.map(host::processes_in).unwrap_or_default(),
        }
    }

    /// Waits until the kernel has ended everything; panics with what stays. `when` is for the
    /// message.
    fn leaves_nothing(self, known: &Known, when: &str) -> Place {
        self.run.end();
        let deadline = Instant::now() + WATCHDOG;
        loop {
            let left = remains(known, &self.mark, &self.host, &self.place.path("out"));
            if left.is_empty() {
                return self.place;
            }
            assert!(Instant::now() < deadline, "killed {when}, it left {left:#?}");
            sleep(Duration::from_millis(10));
        }
    }
}

/// What is still there of a run.
fn remains(known: &Known, mark: &str, host: &Host, out: &Path) -> Vec<String> {
    let mut left = Vec::new();
    let inside = known.sandbox.map(host::processes_in).unwrap_or_default();
    for (pid, line) in inside.into_iter().chain(host::processes_with(mark)) {
        left.push(format!("process {pid}: {line}"));
    }
    if let Some(socket) = known.socket.as_ref().filter(|socket| host::has_socket(socket)) {
        left.push(format!("abstract socket {socket}"));
    }
    if host::is_locked(out) {
        left.push("the lock of its run directory".into());
    }
    if host::is_open_below(out) {
        left.push("open files in its run directory".into());
    }
    let now = Host::now();
    if now != *host {
        left.push(format!("a changed host: it was {host:#?}, now it is {now:#?}"));
    }
    left
}

/// What a killed run leaves in its directory is not taken for a result, and is removed by `clean`.
fn is_cleaned(place: &Place, when: &str) {
    let out = place.path("out");
    assert!(!out.join("results.json").exists(), "killed {when}, it left results");
    if !out.join("lock").exists() {
        // It did not get to its run directory.
        return;
    }
    place.call(&["exec", "out", "n0", "true"]).expect(1).says(&["not running"]);
    let said = place.call(&["clean", "--dry-run", "out"]).expect(0).text();
    says(&said, &["would remove out"]);
    assert!(out.join("lock").exists(), "a dry run removed something");
    says(&place.call(&["clean", "out"]).expect(0).text(), &["removed out"]);
    assert!(!out.exists(), "killed {when}, `clean` left {:?}", fs::read_dir(&out));
}

/// Kills runs of `topology` at random moments between their starts and `longest`; returns how many
/// had nodes by then.
fn kill_at_random(topology: &str, times: u32, longest: Duration, seed: u64) -> u32 {
    let mut random = StdRng::seed_from_u64(seed);
    let mut with_nodes = 0;
    for _ in 0..times {
        let moment = longest.mul_f64(random.random_range(0.0..1.0));
        let when = format!("after {moment:?}");
        let doomed = Doomed::begin(topology);
        sleep(moment);
        let known = doomed.look();
        doomed.run.signal(Signal::SIGKILL);
        // The front, the supervisor and the lab are not nodes.
        with_nodes += u32::from(known.inside.len() > 2);
        let place = doomed.leaves_nothing(&known, &when);
        is_cleaned(&place, &when);
    }
    with_nodes
}

#[test]
fn namespaces_killed_at_random_moments_leave_nothing() {
    if have_root() {
        let with_nodes = kill_at_random(NAMESPACES, 17, Duration::from_millis(2500), 2);
        assert!(with_nodes > 0, "no run got far enough to leave anything");
    }
}

#[test]
fn virtual_machines_killed_at_random_moments_leave_nothing() {
    if have_qemu() {
        let _turn = qemu_turn();
        let with_nodes = kill_at_random(MACHINES, 3, Duration::from_secs(8), 2);
        assert!(with_nodes > 0, "no run got far enough to leave anything");
    }
}

#[test]
fn any_process_of_a_run_may_be_the_one_that_is_killed() {
    if !have_root() {
        return;
    }
    for victim in ["the front", "the supervisor", "the lab"] {
        let mut doomed = Doomed::begin(NAMESPACES);
        doomed.run.wait_for_event("task-started", "wait");
        let known = doomed.look();
        let front = doomed.run.pid();
        let child_of = |parent: Pid| {
            let is_child = |pid: &Pid| parent_of(*pid) == Some(parent);
            let found = known.inside.iter().map(|(pid, _)| *pid).find(is_child);
            found.unwrap_or_else(|| panic!("{parent} has no child in {:?}", known.inside))
        };
        let target = match victim {
            "the front" => front,
            "the supervisor" => child_of(front),
            _ => child_of(child_of(front)),
        };
        let has_commands = known.inside.iter().any(|(_, line)| line == "sleep 1000");
        assert!(has_commands, "no command runs: {:?}", known.inside);
        kill(target, Signal::SIGKILL).expect("it was there a moment ago");
        let ended = common::wait_for("the end of the front", || {
            doomed.run.has_ended().then(|| doomed.run.stderr())
        });
        if victim != "the front" {
            says(&ended, &["error", "signal 9"]);
        }
        let place = doomed.leaves_nothing(&known, victim);
        is_cleaned(&place, victim);
    }
}

fn parent_of(pid: Pid) -> Option<Pid> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("PPid:"))?;
    Some(Pid::from_raw(line.trim().parse().ok()?))
}

#[test]
fn a_run_that_ends_by_itself_leaves_its_results_only() {
    if !have_root() {
        return;
    }
    let mut doomed = Doomed::begin(&NAMESPACES.replace(", run: { n0: sleep 1000 }", ""));
    doomed.run.wait_for_event("task-ended", "daemons");
    let known = doomed.look();
    assert!(known.inside.len() > 10, "five nodes have processes: {:?}", known.inside);
    assert!(known.socket.as_ref().is_some_and(|socket| host::has_socket(socket)));
    assert!(host::is_locked(&doomed.run.out));
    let place = doomed.leaves_nothing(&known, "not at all");
    assert!(place.path("out/results.json").exists());
    assert!(!place.path("out/lock").exists());
}

#[test]
fn clean_touches_nothing_but_dead_runs() {
    if !have_root() {
        return;
    }
    let place = Place::new();
    let lab = "nodes: { a: { kind: netns }, b: { kind: netns } }\ntasks: [{ name: t, run: { a: SLEEP } }]\n";
    place.file("short.yaml", lab.replace("SLEEP", "echo done"));
    place.file("long.yaml", lab.replace("SLEEP", "sleep 1000"));
    let start = |file: &str, out: &str| {
        let mut run = place.start(place.tapestry(&["run", file, "--out", out]));
        run.out = place.path(out);
        run
    };
    start("short.yaml", "runs/finished").end().expect(0);
    let mut living = start("long.yaml", "runs/living");
    let mut dead = start("long.yaml", "runs/dead");
    let mut noted = start("long.yaml", "runs/noted");
    for run in [&mut living, &mut dead, &mut noted] {
        run.wait_for_event("task-started", "");
    }
    for run in [dead, noted] {
        run.signal(Signal::SIGKILL);
        let out = run.out.clone();
        run.end();
        common::wait_for("its end", || (!host::is_locked(&out)).then_some(()));
    }
    place.file("runs/noted/notes.txt", "mine");
    // What others may have there.
    for (name, content) in [
        ("site/manifest.json", r#"{ "name": "a web site", "exit": null }"#),
        ("site/console/page", "x"),
        ("locked/lock", ""),
        ("locked/console/x", "x"),
        ("notes/results.json", "{}"),
    ] {
        let path = place.path("runs").join(name);
        fs::create_dir_all(path.parent().expect("a directory")).expect("a directory");
        fs::write(path, content).expect("a file");
    }
    place.file("runs/readme", "x");
    // Killed between making its directory and marking it.
    fs::create_dir(place.path("runs/lab-20260101-000000")).expect("a directory");

    let planned = place.call(&["clean", "--dry-run", "--json"]).expect(0);
    let planned: serde_json::Value = serde_json::from_slice(&planned.stdout).expect("JSON");
    assert_eq!(planned["dry_run"], true);
    assert_eq!(planned["removed"].as_array().expect("a list").len(), 3, "{planned}");
    let said = place.call(&["clean"]).expect(0).text();
    says(&said, &["removed runs/dead", "removed runs/noted", "removed runs/lab-20260101-000000"]);
    assert_eq!(said.lines().count(), 3, "{said}");
    let mut left: Vec<_> = fs::read_dir(place.path("runs"))
        .expect("runs/")
        .flatten()
        .map(|entry| entry.file_name().into_string().expect("a name"))
        .collect();
    left.sort();
    assert_eq!(left, ["finished", "living", "locked", "noted", "notes", "readme", "site"]);
    let noted: Vec<_> = fs::read_dir(place.path("runs/noted")).expect("noted").flatten().collect();
    assert_eq!(noted.len(), 1, "{noted:?}");
    for file in ["finished/results.json", "site/console/page", "locked/console/x", "locked/lock"] {
        assert!(place.path("runs").join(file).exists(), "`clean` removed {file}");
    }
    says(&place.call(&["clean"]).expect(0).text(), &["nothing to clean"]);
    // The living run has not noticed.
    let answer = place.call(&["exec", "living", "b", "echo", "well"]).expect(0).text();
    assert_eq!(answer, "well\n");
}
