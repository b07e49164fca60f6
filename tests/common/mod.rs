//! What the integration tests share: a directory to work in, the program under a watchdog, and what
//! this machine can do.
//!
//! A test starts `tapestry` as a user would and reads what a user would read. Nothing outlives a
//! test: the program is killed when its handle goes, and with it, by the program's own promise,
//! everything of its run.

// Each test program uses its part.
#![allow(dead_code, unreachable_pub)]

pub mod host;

use std::fs::{self, File};
use std::io::Write;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, OnceLock};
use std::thread::sleep;
use std::time::{Duration, Instant};

use nix::fcntl::{Flock, FlockArg};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

/// After this time a program that has not ended hangs. Nothing here takes a tenth of it.
pub const WATCHDOG: Duration = Duration::from_mins(3);

/// The least pause between two looks at something that takes its time.
const LOOK: Duration = Duration::from_millis(5);

/// Waits until `what` is there; panics with `name` when it does not come.
pub fn wait_for<T>(name: &str, mut what: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + WATCHDOG;
    loop {
        if let Some(found) = what() {
            return found;
        }
        assert!(Instant::now() < deadline, "waited {WATCHDOG:?} in vain for {name}");
        sleep(LOOK);
    }
}

/// A directory of its own for a test; the program is started in it. It goes with the last thing
/// that is known of what ran there.
#[derive(Clone)]
pub struct Place(Arc<tempfile::TempDir>);

impl Place {
    pub fn new() -> Self {
        Self(Arc::new(tempfile::tempdir().expect("a temporary directory")))
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// Writes a file and returns its path.
    pub fn file(&self, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
        let path = self.path(name);
        fs::write(&path, content).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        path
    }

    /// `tapestry ARGUMENTS` in this directory, not yet started.
    pub fn tapestry(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_tapestry"));
        command.args(arguments).current_dir(self.0.path()).stdin(Stdio::null());
        // What a user has set must not change what the tests see.
        command.env_remove("TAPESTRY_QEMU").env("NO_COLOR", "1");
        command
    }

    /// Runs `tapestry ARGUMENTS` to its end.
    pub fn call(&self, arguments: &[&str]) -> Ended {
        self.start(self.tapestry(arguments)).end()
    }

    /// Runs a topology to its end, in a run directory `out`.
    pub fn run(&self, topology: &str) -> Ended {
        self.run_with(topology, &[])
    }

    /// The same, with more arguments.
    pub fn run_with(&self, topology: &str, more: &[&str]) -> Ended {
        self.begin_with(topology, more).end()
    }

    /// Starts a topology in a run directory `out`.
    pub fn begin(&self, topology: &str) -> Started {
        self.begin_with(topology, &[])
    }

    /// The same, with more arguments.
    pub fn begin_with(&self, topology: &str, more: &[&str]) -> Started {
        self.file("lab.yaml", topology);
        let arguments = [&["run", "lab.yaml", "--out", "out"], more].concat();
        self.start(self.tapestry(&arguments))
    }

    /// Starts a command; what it says goes to files, so that it never waits for us.
    pub fn start(&self, mut command: Command) -> Started {
        let said = |name| {
            let (file, path) = tempfile::Builder::new()
                .prefix(name)
                .tempfile_in(self.0.path())
                .and_then(|file| Ok(file.keep()?))
                .expect("a file for what the program says");
            (Stdio::from(file), path)
        };
        let ((stdout, stdout_path), (stderr, stderr_path)) = (said("stdout-"), said("stderr-"));
        let child = command.stdout(stdout).stderr(stderr).spawn();
        let child = child.unwrap_or_else(|error| panic!("{command:?}: {error}"));
        let (place, out) = (self.clone(), self.path("out"));
        Started { child, stdout_path, stderr_path, out, place }
    }
}

/// A program on its way; killed when dropped.
pub struct Started {
    child: Child,
    stdout_path: PathBuf,
    stderr_path: PathBuf,
    /// Its run directory, if it was started with one.
    pub out: PathBuf,
    place: Place,
}

impl Started {
    pub fn pid(&self) -> Pid {
        Pid::from_raw(i32::try_from(self.child.id()).expect("a process id"))
    }

    pub fn signal(&self, signal: Signal) {
        kill(self.pid(), signal).expect("the child is ours and not reaped");
    }

    /// What it has said on standard output so far.
    pub fn stdout(&self) -> Vec<u8> {
        fs::read(&self.stdout_path).expect("its standard output")
    }

    /// What it has said on standard error so far.
    pub fn stderr(&self) -> String {
        let bytes = fs::read(&self.stderr_path).expect("its standard error");
        String::from_utf8_lossy(&bytes).into_owned()
    }

    pub fn has_ended(&mut self) -> bool {
        self.child.try_wait().expect("the child is ours").is_some()
    }

    /// Waits until `what` is there; panics with what the program said if it ends before.
    pub fn wait_for<T>(&mut self, name: &str, mut what: impl FnMut(&Self) -> Option<T>) -> T {
        wait_for(name, || {
            let ended = self.has_ended();
            let found = what(self);
            assert!(!ended || found.is_some(), "ended before {name}:\n{}", self.stderr());
            found
        })
    }

    /// Waits until the run's log has an event of this kind (`lab-ready`, …) that mentions `text`.
    pub fn wait_for_event(&mut self, event: &str, text: &str) {
        self.wait_for(event, |run| has_event(&run.out, event, text).then_some(()));
    }

    /// Waits for the end.
    pub fn end(mut self) -> Ended {
        let begun = Instant::now();
        let deadline = begun + WATCHDOG;
        let status = loop {
            if let Some(status) = self.child.try_wait().expect("the child is ours") {
                break status;
            }
            assert!(
                Instant::now() < deadline,
                "still running after {WATCHDOG:?}; it said:\n{}",
                self.stderr()
            );
            sleep(LOOK);
        };
        Ended {
            status,
            took: begun.elapsed(),
            stdout: self.stdout(),
            stderr: self.stderr(),
            out: self.out.clone(),
            place: self.place.clone(),
        }
    }
}

impl Drop for Started {
    fn drop(&mut self) {
        // Fails only when it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Whether the log of a run has an event of this kind that mentions `text`.
pub fn has_event(out: &Path, event: &str, text: &str) -> bool {
    let log = fs::read_to_string(out.join("events.jsonl")).unwrap_or_default();
    let kind = format!(r#""event":"{event}""#);
    log.lines().any(|line| line.contains(&kind) && line.contains(text))
}

/// A program that has ended.
pub struct Ended {
    pub status: ExitStatus,
    pub took: Duration,
    pub stdout: Vec<u8>,
    pub stderr: String,
    pub out: PathBuf,
    place: Place,
}

impl Ended {
    /// Exit status, as a shell reports it.
    pub fn code(&self) -> i32 {
        let signal = || 128 + self.status.signal().expect("ended by a signal");
        self.status.code().unwrap_or_else(signal)
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.stdout).into_owned()
    }

    /// Panics with everything that is known unless the exit status is `code`.
    #[track_caller]
    pub fn expect(self, code: i32) -> Self {
        assert_eq!(self.code(), code, "exit status\n{}\n{}", self.text(), self.stderr);
        self
    }

    /// Panics unless standard error says all of `parts`.
    #[track_caller]
    pub fn says(self, parts: &[&str]) -> Self {
        says(&self.stderr, parts);
        self
    }

    /// `results.json`.
    #[track_caller]
    pub fn results(&self) -> Results {
        let path = self.out.join("results.json");
        let text = fs::read_to_string(&path)
            .unwrap_or_else(|error| panic!("{}: {error}\n{}", path.display(), self.stderr));
        let value = serde_json::from_str(&text).expect("results.json is JSON");
        Results(value, self.out.clone(), self.place.clone())
    }

    /// `manifest.json`.
    #[track_caller]
    pub fn manifest(&self) -> Value {
        let text = fs::read_to_string(self.out.join("manifest.json")).expect("a manifest");
        serde_json::from_str(&text).expect("manifest.json is JSON")
    }
}

/// Panics unless `text` has all of `parts`.
#[track_caller]
pub fn says(text: &str, parts: &[&str]) {
    for part in parts {
        assert!(text.contains(part), "expected {part:?} in:\n{text}");
    }
}

/// `results.json` of a run.
pub struct Results(pub Value, PathBuf, Place);

impl Results {
    /// The command `name` of `task`.
    #[track_caller]
    pub fn command(&self, task: &str, name: &str) -> &Value {
        let command = self.task(task)["commands"]
            .as_array()
            .and_then(|commands| commands.iter().find(|command| command["name"] == name));
        command.unwrap_or_else(|| panic!("no command {name} in task {task}: {:#}", self.0))
    }

    #[track_caller]
    pub fn task(&self, name: &str) -> &Value {
        let tasks = self.0["tasks"].as_array().expect("a list of tasks");
        let task = tasks.iter().find(|task| task["name"] == name);
        task.unwrap_or_else(|| panic!("no task {name}: {:#}", self.0))
    }

    #[track_caller]
    pub fn node(&self, name: &str) -> &Value {
        let nodes = self.0["nodes"].as_array().expect("a list of nodes");
        let node = nodes.iter().find(|node| node["name"] == name);
        node.unwrap_or_else(|| panic!("no node {name}: {:#}", self.0))
    }

    /// What the command `name` of `task` wrote, as `results.json` has it.
    #[track_caller]
    pub fn output(&self, task: &str, name: &str) -> &str {
        self.command(task, name)["output"].as_str().expect("an output")
    }

    /// The whole output of a command, byte for byte.
    #[track_caller]
    pub fn output_bytes(&self, task: &str, name: &str) -> Vec<u8> {
        let command = self.command(task, name);
        let file = command["output_file"].as_str().unwrap_or_else(|| panic!("{command:#}"));
        let path = self.1.join(file);
        fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
    }

    #[track_caller]
    pub fn status(&self, task: &str, name: &str) -> Option<u64> {
        self.command(task, name)["status"].as_u64()
    }

    #[track_caller]
    pub fn metric(&self, name: &str) -> f64 {
        let value = self.0["metrics"][name]["value"].as_f64();
        value.unwrap_or_else(|| panic!("no metric {name}: {:#}", self.0["metrics"]))
    }

    pub fn verdict(&self) -> &str {
        self.0["verdict"]["state"].as_str().expect("a verdict")
    }

    pub fn outcome(&self) -> &str {
        self.0["outcome"].as_str().expect("an outcome")
    }

    /// All errors as one text.
    pub fn errors(&self) -> String {
        let errors = self.0["errors"].as_array().expect("a list of errors");
        errors.iter().filter_map(Value::as_str).collect::<Vec<_>>().join("\n")
    }

    /// Panics with the errors unless the run passed.
    #[track_caller]
    pub fn passed(self) -> Self {
        assert_eq!(self.outcome(), "passed", "{}\n{:#}", self.errors(), self.0["verdict"]);
        self
    }
}

/// Whether this machine can run namespace nodes; prints why not.
pub fn have_root() -> bool {
    static LACKS: OnceLock<Option<String>> = OnceLock::new();
    able(LACKS.get_or_init(|| lack(&["namespaces", "TAP"])).as_ref())
}

/// Whether this machine can run virtual machines with the default image; prints why not.
pub fn have_qemu() -> bool {
    static LACKS: OnceLock<Option<String>> = OnceLock::new();
    able(LACKS.get_or_init(|| lack(&["namespaces", "TAP", "QEMU", "image"])).as_ref())
}

/// Whether a program that nodes use is installed; prints that it is not.
pub fn have_program(name: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&path).any(|directory| directory.join(name).exists());
    if !found {
        not_tested(&format!("{name} is not installed"));
    }
    found
}

fn able(lack: Option<&String>) -> bool {
    if let Some(why) = lack {
        not_tested(why);
    }
    lack.is_none()
}

/// Says why this test does not run here; past the harness, which hides what passing tests print.
pub fn not_tested(why: &str) {
    let test = std::thread::current();
    let _ = writeln!(std::io::stderr(), "{}: not tested: {why}", test.name().unwrap_or("a test"));
}

/// The first of `needs` that `tapestry doctor` does not find good.
fn lack(needs: &[&str]) -> Option<String> {
    let said = Place::new().call(&["doctor", "--json"]);
    let findings: Value = serde_json::from_slice(&said.stdout).expect("doctor prints JSON");
    needs.iter().find_map(|need| {
        let of_need = |finding: &&Value| finding["subject"] == **need;
        match findings.as_array().expect("a list").iter().find(of_need) {
            Some(finding) if finding["health"] == "good" => None,
            Some(finding) => Some(format!("{need}: {}", finding["text"])),
            None => Some(format!("doctor says nothing of {need}")),
        }
    })
}

/// Holds the machine for tests that boot virtual machines: two at once would only be slower.
pub fn qemu_turn() -> Flock<File> {
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join("qemu.lock");
    loop {
        let file = File::create(&path).expect("a lock file");
        // It fails only when a signal comes while waiting.
        if let Ok(lock) = Flock::lock(file, FlockArg::LockExclusive) {
            return lock;
        }
    }
}

/// A topology whose verdict does not depend on how busy this machine is: it tells of losses only.
pub fn patient(topology: &str) -> String {
    let limits = "degraded_lateness_p99: 1h, invalid_lateness_p99: 1h, degraded_lateness_max: 1h, degraded_steal: 1";
    format!("{topology}\nverdict: {{ {limits} }}\n")
}

/// An executable shell script with this text.
pub fn script(place: &Place, name: &str, text: &str) -> PathBuf {
    use std::os::unix::fs::PermissionsExt;
    let path = place.file(name, format!("#!/bin/sh\n{text}\n"));
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("made executable");
    path
}
