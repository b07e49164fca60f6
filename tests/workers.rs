//! `--realtime-priority` and `--pin` are what the kernel then says of the workers.

mod common;

use std::fs;
use std::path::Path;

use common::host::{namespace_of_children, processes_in};
use common::{Place, have_root, not_tested, says};
use nix::sched::{CpuSet, sched_getaffinity};
use nix::unistd::Pid;

const LAB: &str = r"
nodes: { a: { kind: netns }, b: { kind: netns } }
links: [{ pair: [a, b], ipv4: 10.9.0.0/24 }]
tasks: [{ name: stay, run: { a: sleep 1000 }, timeout: 2000s }]
";

/// A worker thread, as `/proc` has it.
#[derive(Debug, PartialEq, Eq)]
struct Scheduling {
    /// `SCHED_…`.
    policy: i32,
    priority: u32,
    cpus: String,
}

/// The threads of the data plane of a run.
fn workers(run: &common::Started) -> Vec<Scheduling> {
    let sandbox = namespace_of_children(run.pid()).expect("a sandbox");
    let tasks = processes_in(sandbox).into_iter().flat_map(|(pid, _)| {
        fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten()
    });
    tasks.filter_map(|task| scheduling(&task.path())).collect()
}

fn scheduling(task: &Path) -> Option<Scheduling> {
    let read = |file: &str| fs::read_to_string(task.join(file)).ok();
    if !read("comm")?.starts_with("data-plane-") {
        return None;
    }
    // Behind the name in parentheses; `proc_pid_stat(5)` counts from 1 at the process number.
    let stat = read("stat")?;
    let fields: Vec<&str> = stat[stat.rfind(')')? + 1..].split_whitespace().collect();
    let status = read("status")?;
    let cpus = status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:"))?;
    Some(Scheduling {
        policy: fields[41 - 3].parse().ok()?,
        priority: fields[40 - 3].parse().ok()?,
        cpus: cpus.trim().to_owned(),
    })
}

/// The CPUs this process may use.
fn own_cpus() -> Vec<usize> {
    let set = sched_getaffinity(Pid::from_raw(0)).expect("our own affinity");
    (0..CpuSet::count()).filter(|cpu| set.is_set(*cpu) == Ok(true)).collect()
}

#[test]
fn workers_have_the_priority_and_the_cpu_that_were_asked_for() {
    if !have_root() {
        return;
    }
    let cpu = *own_cpus().last().expect("a CPU");
    let place = Place::new();
    let mut run = place.begin_with(LAB, &["--realtime-priority", "7", "--pin", &cpu.to_string()]);
    let refused = run.wait_for("its beginning or its end", |run| {
        let began = common::has_event(&run.out, "task-started", "stay");
        let said = String::from_utf8_lossy(&run.stdout()).into_owned() + &run.stderr();
        let refused = said.contains("cannot run workers at real-time priority 7");
        (began || refused).then_some(refused)
    });
    if refused {
        // The message says what to do, and nothing ran at another priority than asked for.
        let errors = run.end().expect(1).results().errors();
        says(&errors, &["RLIMIT_RTPRIO"]);
        not_tested(&errors);
        return;
    }
    const SCHED_FIFO: i32 = 1;
    let expected = Scheduling { policy: SCHED_FIFO, priority: 7, cpus: cpu.to_string() };
    let found = workers(&run);
    assert!(!found.is_empty(), "no data-plane thread was found");
    assert!(found.iter().all(|worker| *worker == expected), "{found:?} instead of {expected:?}");
}

#[test]
fn without_them_workers_are_as_all_other_threads() {
    if !have_root() {
        return;
    }
    let place = Place::new();
    let mut run = place.begin(LAB);
    run.wait_for_event("task-started", "stay");
    let found = workers(&run);
    assert!(!found.is_empty(), "no data-plane thread was found");
    const SCHED_OTHER: i32 = 0;
    assert!(found.iter().all(|w| (w.policy, w.priority) == (SCHED_OTHER, 0)), "{found:?}");
}

#[test]
fn a_cpu_that_is_not_there_is_named() {
    if !have_root() {
        return;
    }
    let place = Place::new();
    let ended = place.run_with(LAB, &["--pin", "1023"]);
    ended.expect(2).says(&["--pin 1023", "choose from"]);
}

/// Whether a `tapestry` of this machine holds the device that keeps cores awake.
fn cores_are_awake() -> bool {
    let processes = std::fs::read_dir("/proc").expect("proc is mounted").flatten();
    let ours = processes.filter(|process| {
        let name = std::fs::read_to_string(process.path().join("comm"));
        name.is_ok_and(|name| name.trim() == "tapestry")
    });
    let mut files = ours.filter_map(|process| std::fs::read_dir(process.path().join("fd")).ok());
    files.any(|mut files| {
        files.any(|file| {
            let target = file.and_then(|file| std::fs::read_link(file.path()));
            target.is_ok_and(|target| target.ends_with("cpu_dma_latency"))
        })
    })
}

#[test]
fn cores_stay_awake_for_as_long_as_the_run_lasts() {
    if !have_root() {
        return;
    }
    if !std::path::Path::new("/dev/cpu_dma_latency").exists() {
        not_tested("this kernel has no /dev/cpu_dma_latency");
        return;
    }
    let place = Place::new();
    let mut run = place.begin_with(LAB, &["--cores-awake"]);
    run.wait_for_event("task-started", "stay");
    assert!(cores_are_awake());
    drop(run);
    common::wait_for("the device to be given back", || (!cores_are_awake()).then_some(()));
}
