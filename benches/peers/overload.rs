//! Three times what can be delivered, for a minute.
//!
//! To reach: at least 0.9 of the critical rate delivered, at most 64 MB more memory, an invalid
//! verdict, and every frame accounted for.

use std::io::Read;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result};
use clap::Args;

use crate::accounts::accounts;
use crate::measure::{System, critical, metric, own_processes};

/// Offer three times the critical load and look at what comes of it
#[derive(Args)]
pub(crate) struct Overload {
    /// Length of the chain; with two, the sender is the limit
    #[arg(long, default_value_t = 10)]
    nodes: usize,
    /// Length of the overload
    #[arg(long, default_value_t = 60)]
    seconds: usize,
    /// Length of each run of the search for the critical load
    #[arg(long, default_value_t = 3)]
    search_seconds: usize,
}

impl Overload {
    pub(crate) fn measure(&self, systems: &[System], out: &Path) -> Result<()> {
        for system in systems.iter().filter(|system| system.name.starts_with("tapestry")) {
            if self.nodes == 2 && system.name.ends_with("2 workers") {
                continue;
            }
            let critical = critical(system, self.nodes, self.search_seconds, None, out)?;
            let got = self.overload(system, critical * 3.0, out)?;
            let hops = (self.nodes - 1) as f64;
            println!(
                "{}: critical {:.0} hop-packets/s; sent {:.0}, delivered {:.0} ({:.2} × critical), \
                 memory + {:.1} MB, verdict {}",
                system.name,
                critical * hops,
                got.sent * hops,
                got.received * hops,
                got.received / critical,
                got.growth_bytes as f64 / 1e6,
                got.verdict,
            );
            println!("    {}", got.accounts);
        }
        Ok(())
    }

    fn overload(&self, system: &System, pps: f64, out: &Path) -> Result<Outcome> {
        let directory = out.join("overload");
        if directory.exists() {
            std::fs::remove_dir_all(&directory)?;
        }
        let mut command = Command::new("target/release/tapestry");
        command.args(["run", "topologies/chain.yaml", "--json", "--set", "kind=netns", "--out"]);
        command.arg(&directory).args(&system.arguments).stdout(Stdio::piped());
        for (name, value) in
            [("nodes", self.nodes), ("pps", pps as usize), ("seconds", self.seconds)]
        {
            command.args(["--set", &format!("{name}={value}")]);
        }
        let mut run = command.spawn().context("target/release/tapestry does not start")?;
        let growth_bytes = watch_memory(&mut run, &directory.join("events.jsonl"))?;
        let mut output = String::new();
        run.stdout.take().context("no standard output")?.read_to_string(&mut output)?;
        let results: serde_json::Value = serde_json::from_str(&output)?;
        let sums = accounts(&results);
        let per_second = |name| metric(&results, name) / self.seconds as f64;
        Ok(Outcome {
            sent: per_second("sent"),
            received: per_second("received"),
            growth_bytes,
            verdict: results["verdict"]["state"].as_str().unwrap_or("unknown").to_owned(),
            accounts: match sums.wrong.as_slice() {
                [] => format!(
                    "every frame accounted for: {} sent = {} delivered + {} lost before the \
                     emulator + {} dropped + {} left",
                    sums.sent, sums.delivered, sums.unread, sums.dropped, sums.left
                ),
                wrong => format!("NOT ACCOUNTED FOR: {}", wrong.join("; ")),
            },
        })
    }
}

struct Outcome {
    /// Datagrams a second, end to end.
    sent: f64,
    received: f64,
    growth_bytes: u64,
    verdict: String,
    accounts: String,
}

/// Waits for the end of a run; returns by how much the memory of our processes grew from the
/// beginning of the task `measure` to its highest.
fn watch_memory(run: &mut Child, events: &Path) -> Result<u64> {
    let (mut baseline, mut highest) = (None, 0);
    while run.try_wait()?.is_none() {
        let memory = memory_below(run.id());
        let text = std::fs::read_to_string(events).unwrap_or_default();
        let measures =
            text.lines().any(|line| line.contains("task-started") && line.contains("measure"));
        if !measures {
            baseline = Some(memory);
        }
        highest = highest.max(memory);
        std::thread::sleep(Duration::from_millis(100));
    }
    Ok(highest - baseline.unwrap_or(highest))
}

/// Resident bytes of a process and of those of its descendants that run the same program: nodes'
/// commands are not ours.
fn memory_below(pid: u32) -> u64 {
    let of = |pid: u32| -> Option<u64> {
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
        let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:"))?;
        line.trim().trim_end_matches(" kB").parse().ok()
    };
    own_processes(pid).into_iter().filter_map(of).sum::<u64>() * 1024
}
