//! `tapestry top` shows a living run, and says clearly when there is none.

use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

const TAPESTRY: &str = env!("CARGO_BIN_EXE_tapestry");
/// Long enough for a very busy machine.
const PATIENCE: Duration = Duration::from_mins(2);

/// A run in the background; ended when dropped.
struct Run(Child);

impl Run {
    /// A chain of namespaces with traffic that lasts longer than the test.
    fn start(directory: &Path) -> Self {
        let chain = concat!(env!("CARGO_MANIFEST_DIR"), "/topologies/chain.yaml");
        let sets = ["kind=netns", "nodes=4", "pps=500", "seconds=600"];
        let child = Command::new(TAPESTRY)
            .args(["run", "--quiet", chain, "--out"])
            .arg(directory)
            .args(sets.iter().flat_map(|set| ["--set", set]))
            .stdin(Stdio::null())
            .spawn()
            .expect("the program can be started");
        Self(child)
    }

    /// Asks the run to end as Ctrl-C does, and waits until it has.
    fn end(&mut self) {
        let pid = nix::unistd::Pid::from_raw(self.0.id().cast_signed());
        let _ = nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGINT);
        let _ = self.0.wait();
    }
}

impl Drop for Run {
    fn drop(&mut self) {
        self.end();
    }
}

fn top(run: &Path) -> Output {
    let mut command = Command::new(TAPESTRY);
    command.arg("top").arg(run).args(["--once", "--interval", "500ms"]);
    command.output().expect("the program can be started")
}

/// Why namespace labs cannot run here, if they cannot.
fn lack() -> Option<String> {
    if let Err(error) = std::fs::File::options().read(true).write(true).open("/dev/net/tun") {
        return Some(format!("/dev/net/tun: {error}"));
    }
    let unshare = |args: &[&str]| Command::new("unshare").args(args).arg("true").output();
    let flags: &[&str] = if nix::unistd::geteuid().is_root() { &["-n"] } else { &["-Ur", "-n"] };
    match unshare(flags) {
        Ok(done) if done.status.success() => {}
        Ok(done) => return Some(String::from_utf8_lossy(&done.stderr).into_owned()),
        Err(error) => return Some(format!("unshare: {error}")),
    }
    match Command::new("iperf").arg("-v").output() {
        Ok(_) => None,
        Err(error) => Some(format!("iperf: {error}")),
    }
}

/// Frames per second in the row of a direction.
fn rate(text: &str, link: &str, from: &str, to: &str) -> Option<f64> {
    text.lines().find_map(|line| {
        let mut cells = line.split_whitespace();
        let found = [cells.next()?, cells.next()?, cells.next()?, cells.next()?];
        (found == [link, from, "→", to]).then(|| cells.next()?.parse().ok())?
    })
}

#[test]
fn a_living_run_is_shown_and_a_finished_one_refused() {
    if let Some(lack) = lack() {
        println!("not run, because namespace labs cannot run here: {lack}");
        return;
    }
    let place = tempfile::tempdir().expect("a temporary directory");
    let directory = place.path().join("chain");
    let mut run = Run::start(&directory);
    let started = Instant::now();
    // The run needs a moment until it has a directory, then nodes, then traffic.
    let text = loop {
        let done = top(&directory);
        let text = String::from_utf8_lossy(&done.stdout).into_owned();
        let flows = rate(&text, "n2--n3", "n2", "n3").is_some_and(|frames| frames > 0.0);
        if done.status.success() && flows && text.contains("task 3/3 measure") {
            break text;
        }
        let why = String::from_utf8_lossy(&done.stderr).into_owned();
        assert!(run.0.try_wait().expect("our child").is_none(), "the run ended early");
        assert!(started.elapsed() < PATIENCE, "no traffic to be seen:\n{text}{why}");
    };

    assert!(text.starts_with("chain: "), "{text}");
    assert!(text.contains("4/4 nodes ready") && text.contains("verdict so far "), "{text}");
    for node in 0..4 {
        let name = format!("n{node}");
        let row = text.lines().find(|line| line.split_whitespace().next() == Some(&name));
        let row = row.unwrap_or_else(|| panic!("node {name} is missing:\n{text}"));
        assert!(row.contains("ready") && row.contains("netns"), "{row}");
        // A shell at least lives in each.
        assert!(row.contains(" MiB"), "{row}");
    }
    for link in 0..3 {
        let (from, to) = (format!("n{link}"), format!("n{}", link + 1));
        let name = format!("{from}--{to}");
        assert!(rate(&text, &name, &from, &to).is_some_and(|frames| frames > 0.0), "{text}");
        assert!(rate(&text, &name, &to, &from).is_some(), "{text}");
    }

    run.end();
    let done = top(&directory);
    let why = String::from_utf8_lossy(&done.stderr).into_owned();
    assert_eq!((done.status.code(), done.stdout.len()), (Some(1), 0), "{why}");
    assert!(why.contains("is not running"), "{why}");
}

#[test]
fn an_unknown_run_is_named() {
    let done = top(Path::new("no-such-run"));
    let why = String::from_utf8_lossy(&done.stderr).into_owned();
    assert_eq!((done.status.code(), done.stdout.len()), (Some(2), 0), "{why}");
    assert!(why.contains("no-such-run"), "{why}");
}

#[test]
fn an_interval_is_a_time_and_not_too_short() {
    for (interval, says) in [("1", "unit"), ("1ms", "100ms")] {
        let done = Command::new(TAPESTRY).args(["top", "x", "--interval", interval]).output();
        let done = done.expect("the program can be started");
        let why = String::from_utf8_lossy(&done.stderr).into_owned();
        assert_eq!(done.status.code(), Some(2), "{why}");
        assert!(why.contains(says), "{why}");
    }
}
