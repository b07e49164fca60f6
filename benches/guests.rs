//! Virtual machines: boot, shell round trip, start skew, and the chain of three.
//!
//! Prints the figures of `docs/performance.md`; asserts nothing. Usage: `make bench-guests`.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};
use serde_json::Value;

const TAPESTRY: &str = "target/release/tapestry";

fn main() -> Result<()> {
    let out = PathBuf::from("target/bench-guests");
    std::fs::create_dir_all(&out)?;

    // The same three guests with nothing but their boot: what the machine needs for that.
    let alone = run(&out, "boot.yaml", BOOT, &["guests=3"])?;
    let slowest = boots(&alone.results).fold(0.0, f64::max);
    let chain = run_file(&out, Path::new("topologies/chain.yaml"), &["pps=1000", "seconds=10"])?;
    let first_task = chain.first_task_seconds.context("the chain had no task")?;
    println!(
        "boot          three guests alone: slowest {slowest:.2} s; chain of three, command to first \
         task: {first_task:.2} s; ratio {:.2}",
        first_task / slowest
    );
    let metric = |name: &str| chain.results["metrics"][name]["value"].as_f64().unwrap_or(f64::NAN);
    println!(
        "chain of 3    1,000 pps, 10 s: sent {}, received {}, loss {}, verdict {}",
        metric("sent"),
        metric("received"),
        metric("loss"),
        chain.results["verdict"]["state"].as_str().unwrap_or("unknown")
    );

    let one = run(&out, "trip.yaml", TRIP, &[])?;
    let mut trips: Vec<f64> = tasks(&one.results, "trip").map(|task| seconds(task) * 1e3).collect();
    println!("task          of one `true` on an idle guest: {}", spread(&mut trips, "ms"));

    let eight = run(&out, "skew.yaml", SKEW, &["guests=8"])?;
    let mut skews: Vec<f64> = tasks(&eight.results, "together")
        .filter_map(|task| task["start_skew_ns"].as_f64())
        .map(|ns| ns / 1e6)
        .collect();
    println!("start skew    over 8 guests: {}", spread(&mut skews, "ms"));
    Ok(())
}

const BOOT: &str = r#"
name: boot
params: { guests: 3 }
nodes:
  "g[0-${guests-1}]": { kind: qemu }
"#;

const TRIP: &str = r"
name: trip
nodes:
  g: { kind: qemu }
tasks:
  - { name: settle, run: { g: sleep 3 } }
  - repeat: TRIP
";

const SKEW: &str = r#"
name: skew
params: { guests: 8 }
nodes:
  "g[0-${guests-1}]": { kind: qemu }
tasks:
  - { name: settle, run: { "g[0-${guests-1}]": sleep 5 }, timeout: 120s }
  - repeat: SKEW
"#;

struct Run {
    results: Value,
    first_task_seconds: Option<f64>,
}

/// Runs a topology text; `- repeat: X` stands for fifty tasks, since a file has no loops.
fn run(out: &Path, name: &str, text: &str, sets: &[&str]) -> Result<Run> {
    let many = |name: &str, nodes: &str| -> String {
        let task = |i| format!("  - {{ name: {name}-{i}, run: {{ {nodes}: \"true\" }} }}\n");
        (0..50).map(task).collect()
    };
    let text = text
        .replace("  - repeat: TRIP\n", &many("trip", "g"))
        .replace("  - repeat: SKEW\n", &many("together", "\"g[0-${guests-1}]\""));
    let file = out.join(name);
    std::fs::write(&file, text)?;
    run_file(out, &file, sets)
}

fn run_file(out: &Path, file: &Path, sets: &[&str]) -> Result<Run> {
    let directory = out.join("run");
    if directory.exists() {
        std::fs::remove_dir_all(&directory)?;
    }
    let mut command = Command::new(TAPESTRY);
    command.arg("run").arg(file).arg("--json").arg("--out").arg(&directory);
    for set in sets {
        command.args(["--set", set]);
    }
    let output = command.output().with_context(|| format!("{TAPESTRY} does not start"))?;
    let results = serde_json::from_slice(&output.stdout).with_context(|| {
        format!("{}: {}", file.display(), String::from_utf8_lossy(&output.stderr))
    })?;
    let events = std::fs::read_to_string(directory.join("events.jsonl"))?;
    let first_task = events
        .lines()
        .filter_map(|line| serde_json::from_str::<Value>(line).ok())
        .find(|event| event["event"] == "task-started")
        .and_then(|event| event["t_ns"].as_f64());
    Ok(Run { results, first_task_seconds: first_task.map(|ns| ns / 1e9) })
}

fn boots(results: &Value) -> impl Iterator<Item = f64> {
    results["nodes"].as_array().into_iter().flatten().filter_map(|n| n["boot_seconds"].as_f64())
}

fn tasks<'a>(results: &'a Value, prefix: &'a str) -> impl Iterator<Item = &'a Value> {
    let all = results["tasks"].as_array().into_iter().flatten();
    all.filter(move |task| task["name"].as_str().is_some_and(|name| name.starts_with(prefix)))
}

/// From release to end: what a user waits for a command that does nothing.
fn seconds(task: &Value) -> f64 {
    task["seconds"].as_f64().unwrap_or(f64::NAN)
}

fn spread(values: &mut [f64], unit: &str) -> String {
    values.sort_by(f64::total_cmp);
    let at = |share: f64| values[((values.len().max(1) - 1) as f64 * share).round() as usize];
    if values.is_empty() {
        return "no figures".to_owned();
    }
    format!(
        "median {:.2} {unit}, p90 {:.2}, max {:.2} ({} times)",
        at(0.5),
        at(0.9),
        at(1.0),
        values.len()
    )
}
