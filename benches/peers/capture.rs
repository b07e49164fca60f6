//! What watching costs: captures, and the ledger of lateness.
//!
//! To reach at half the critical load: with all links captured no frame skipped and at most 15 % more
//! processor time; the ledger at most 3 % of the worker's time per frame.
//!
//! Processor time is that of the emulator's threads (workers, the captures' writer), as the kernel's
//! scheduler accounts it, at the same offered load; what the kernel's own threads do to bring files to
//! the disk is not in it.

use std::collections::BTreeMap;
use std::io::Read;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use clap::Args;

use crate::measure::{System, critical, median, metric, own_processes};

/// Measure processor time with and without captures, and the ledger's share of it
#[derive(Args)]
pub(crate) struct Capture {
    /// Length of the chain
    #[arg(long, default_value_t = 2)]
    nodes: usize,
    /// Offered datagrams a second, end to end; without it half the critical load, which is searched
    #[arg(long)]
    pps: Option<f64>,
    /// Length of each run
    #[arg(long, default_value_t = 5)]
    seconds: usize,
    /// How often each case is measured
    #[arg(long, default_value_t = 3)]
    rounds: usize,
}

/// The cases and their arguments.
const CASES: [(&str, &[&str]); 3] = [
    ("no capture", &[]),
    ("whole frames", &["--capture", "all"]),
    ("128 bytes of each", &["--capture", "all", "--snap-length", "128"]),
];

impl Capture {
    pub(crate) fn measure(&self, systems: &[System], out: &Path) -> Result<()> {
        let system = systems.iter().find(|system| system.name == "tapestry, 1 worker");
        let system = system.context("there is no Tapestry among the systems")?;
        let pps = match self.pps {
            Some(pps) => pps,
            None => critical(system, self.nodes, 3, None, out)? / 2.0,
        };
        let mut costs = CASES.map(|_| Vec::new());
        let mut ledger_shares = Vec::new();
        for round in 1..=self.rounds {
            for ((name, arguments), costs) in CASES.iter().zip(&mut costs) {
                let got = self.run(system, pps, arguments, out)?;
                println!(
                    "round {round}, {name}: {:.3} µs a hop-packet, {} captured, {} skipped, \
                     {:.4} arrived",
                    got.cpu_us, got.captured, got.skipped, got.arrived
                );
                costs.push(got.cpu_us);
                if arguments.is_empty() {
                    ledger_shares.push(got.ledger_share);
                }
            }
        }
        let without = median(&costs[0]);
        println!("\nmedians of {} rounds, {pps:.0} datagrams/s, {} nodes", self.rounds, self.nodes);
        for ((name, _), costs) in CASES.iter().zip(&costs) {
            let cost = median(costs);
            println!("{name:<20} {cost:.3} µs a hop-packet ({:.2})", cost / without);
        }
        println!(
            "the ledger: at most {:.1} % of the worker's time",
            median(&ledger_shares) * 100.0
        );
        Ok(())
    }

    fn run(&self, system: &System, pps: f64, arguments: &[&str], out: &Path) -> Result<Outcome> {
        let directory = out.join("capture");
        if directory.exists() {
            std::fs::remove_dir_all(&directory)?;
        }
        let mut command = Command::new("target/release/tapestry");
        command.args(["run", "topologies/chain.yaml", "--json", "--set", "kind=netns", "--out"]);
        command.arg(&directory).args(&system.arguments).args(arguments).stdout(Stdio::piped());
        for (name, value) in
            [("nodes", self.nodes), ("pps", pps as usize), ("seconds", self.seconds)]
        {
            command.args(["--set", &format!("{name}={value}")]);
        }
        let mut run = command.spawn().context("target/release/tapestry does not start")?;
        let cpu_ns = watch_cpu(&mut run)?;
        let mut output = String::new();
        run.stdout.take().context("no standard output")?.read_to_string(&mut output)?;
        let results: serde_json::Value = serde_json::from_str(&output)?;
        let hop_packets = metric(&results, "received") * (self.nodes - 1) as f64;
        if hop_packets == 0.0 || cpu_ns == 0 {
            bail!("nothing arrived or no thread was seen; see {}", directory.display());
        }
        let captures = results["captures"].as_array().map_or(&[][..], Vec::as_slice);
        let sum = |name: &str| captures.iter().filter_map(|capture| capture[name].as_u64()).sum();
        let entries =
            results["lateness"]["events"].as_u64().context("no lateness in the results")?;
        let entry_ns = tapestry_realtime::time_per_record(2_000_000).as_nanos() as f64;
        Ok(Outcome {
            cpu_us: cpu_ns as f64 / 1e3 / hop_packets,
            captured: sum("frames"),
            skipped: sum("skipped"),
            arrived: metric(&results, "received") / metric(&results, "sent"),
            ledger_share: entries as f64 * entry_ns / cpu_ns as f64,
        })
    }
}

struct Outcome {
    cpu_us: f64,
    captured: u64,
    skipped: u64,
    arrived: f64,
    /// Time the ledger's entries would take one by one ÷ time of the emulator's threads.
    ledger_share: f64,
}

/// Waits for the end of a run; returns the nanoseconds its emulator's threads have run. They are
/// read every 20 ms, so what a thread did in its last moments is missed.
fn watch_cpu(run: &mut Child) -> Result<u64> {
    let mut threads: BTreeMap<std::path::PathBuf, u64> = BTreeMap::new();
    while run.try_wait()?.is_none() {
        for process in own_processes(run.id()) {
            let tasks = std::fs::read_dir(format!("/proc/{process}/task"));
            for task in tasks.into_iter().flatten().flatten().map(|task| task.path()) {
                // A thread that ends meanwhile keeps the figure it had.
                let text =
                    |file: &str| std::fs::read_to_string(task.join(file)).unwrap_or_default();
                let name = text("comm");
                let ran = text("schedstat").split(' ').next().and_then(|ns| ns.parse().ok());
                if let Some(ran) = ran
                    && (name.starts_with("data-plane") || name.starts_with("captures"))
                {
                    threads.insert(task, ran);
                }
            }
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    Ok(threads.values().sum())
}
