//! What a campaign costs and survives.
//!
//! To reach: 1,000 runs of two namespaces and one ping without failure or remains, at most 250 ms a run
//! beside the ping, the campaign's memory flat (± 10 MB); 10,000 simulated runs of a chain of 10 with
//! 100 packets each at 1,000 a minute or more on 2 cores, the same with one and two side by side; a
//! report of them in 5 s; 50 times SIGKILL without a run lost or made twice.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use clap::Args;
use rand::RngExt;

use crate::repeat::{LAB, kernel_network_namespaces, remains};

const PROGRAM: &str = "target/release/tapestry";

/// Run campaigns: many namespaces in a row, many simulations, a report, fifty kills
#[derive(Args)]
pub(crate) struct Campaigns {
    /// Runs of two namespaces
    #[arg(long, default_value_t = 1_000)]
    runs: usize,
    /// Simulated runs
    #[arg(long, default_value_t = 10_000)]
    simulated: usize,
    /// SIGKILLs
    #[arg(long, default_value_t = 50)]
    kills: usize,
}

impl Campaigns {
    pub(crate) fn measure(&self, out: &Path) -> Result<()> {
        let out = out.join("campaigns");
        if out.exists() {
            std::fs::remove_dir_all(&out)?;
        }
        std::fs::create_dir_all(&out)?;
        if self.simulated > 0 {
            self.simulations(&out)?;
        }
        if self.kills > 0 {
            self.kill(&out)?;
        }
        if self.runs > 0 {
            self.namespaces(&out)?;
        }
        Ok(())
    }

    fn simulations(&self, out: &Path) -> Result<()> {
        let topology = std::fs::canonicalize("topologies/chain.yaml")?;
        let plan = out.join("simulated.yaml");
        std::fs::write(
            &plan,
            format!(
                "topology: {}\ntime: virtual\nkeep: none\nreplicates: {}\n\
                 params: {{ kind: host, seconds: 1, rate: 100Mbit/s }}\n\
                 factors: {{ nodes: [10], pps: [100] }}\n",
                topology.display(),
                self.simulated
            ),
        )?;
        let mut tables = Vec::new();
        for jobs in ["1", "2"] {
            let directory = out.join(format!("jobs-{jobs}"));
            let begun = Instant::now();
            let child = campaign(&plan, &directory, &["--jobs", jobs])?;
            let (seconds, memory) = watch(child, begun)?;
            println!(
                "{} simulated runs, --jobs {jobs}: {seconds:.1} s, {:.0} a minute; {memory}",
                self.simulated,
                self.simulated as f64 / seconds * 60.0
            );
            tables.push(lasting(&directory)?);
        }
        ensure!(tables[0] == tables[1], "results with --jobs 1 and --jobs 2 differ");
        println!("results with --jobs 1 and --jobs 2: identical ({} runs)", tables[0].len());
        let begun = Instant::now();
        call(&["campaign", "report"], &[&out.join("jobs-2")])?;
        println!("report of {} runs: {:.1} s", self.simulated, begun.elapsed().as_secs_f64());
        Ok(())
    }

    fn kill(&self, out: &Path) -> Result<()> {
        let topology = std::fs::canonicalize("topologies/chain.yaml")?;
        let plan = out.join("killed.yaml");
        // More work for each kill than the time until it, some 200 ms.
        let replicates = self.kills * 20;
        std::fs::write(
            &plan,
            format!(
                "topology: {}\ntime: virtual\nreplicates: {replicates}\nkeep: thin\n\
                 params: {{ kind: host, seconds: 1 }}\nfactors: {{ nodes: [3, 10], pps: [100] }}\n",
                topology.display(),
            ),
        )?;
        let directory = out.join("killed");
        let mut random = rand::rng();
        let mut kills = 0;
        while kills < self.kills {
            let begun = directory.join("campaign.sqlite").exists();
            let more: &[&str] = if begun { &["--resume"] } else { &[] };
            let mut child = campaign(&plan, &directory, more)?;
            std::thread::sleep(Duration::from_millis(random.random_range(1..400)));
            if child.try_wait()?.is_some() {
                // All runs are made; what is left to kill is the look at the store.
                println!("the campaign was through after {kills} kills");
                break;
            }
            child.kill()?;
            child.wait()?;
            kills += 1;
        }
        ensure!(campaign(&plan, &directory, &["--resume"])?.wait()?.success(), "resuming fails");
        let runs = lasting(&directory)?;
        ensure!(runs.len() == 2 * replicates, "{} runs instead of {}", runs.len(), 2 * replicates);
        let integrity = Command::new("sqlite3")
            .arg(directory.join("campaign.sqlite"))
            .arg("PRAGMA integrity_check")
            .output();
        // `--resume` looks itself; this is a second opinion.
        let integrity = integrity.map_or("not asked (no sqlite3)".to_owned(), |output| {
            String::from_utf8_lossy(&output.stdout).trim().to_owned()
        });
        println!("{kills} kills: {} runs, each once; integrity check: {integrity}", runs.len());
        Ok(())
    }

    fn namespaces(&self, out: &Path) -> Result<()> {
        std::fs::write(out.join("ping.yaml"), LAB)?;
        let plan = out.join("pings.yaml");
        std::fs::write(
            &plan,
            format!("topology: ping.yaml\nkeep: none\nreplicates: {}\n", self.runs),
        )?;
        let directory = out.join("pings");
        let before = remains()?;
        let kernel_before = kernel_network_namespaces();
        let begun = Instant::now();
        let (seconds, memory) = watch(campaign(&plan, &directory, &[])?, begun)?;
        println!("{} runs of two namespaces: {seconds:.0} s; {memory}", self.runs);
        call(&["campaign", "export"], &[&directory])?;
        let tasks = table(&directory.join("export/tasks.csv"))?;
        let runs = table(&directory.join("export/runs.csv"))?;
        let number = |row: &BTreeMap<String, String>, key: &str| row[key].parse::<f64>();
        let mut overheads = Vec::new();
        for (run, task) in runs.iter().zip(&tasks) {
            let commands: serde_json::Value = serde_json::from_str(&task["commands"])?;
            let ping = commands[0]["seconds"].as_f64().context("the ping's time")?;
            overheads.push((number(run, "seconds")? - ping) * 1e3);
        }
        overheads.sort_by(f64::total_cmp);
        let at = |share: f64| overheads[((overheads.len() - 1) as f64 * share) as usize];
        println!(
            "beside the ping: mean {:.0} ms, p50 {:.0}, p99 {:.0}, most {:.0}; campaign's own: {:.0} ms a run",
            overheads.iter().sum::<f64>() / overheads.len() as f64,
            at(0.5),
            at(0.99),
            at(1.0),
            (seconds - runs.iter().map(|run| number(run, "seconds")).sum::<Result<f64, _>>()?)
                / self.runs as f64
                * 1e3,
        );
        std::thread::sleep(Duration::from_secs(1));
        let after = remains()?;
        for (what, was) in &before {
            println!("{what}: {was} before, {} after", after[what]);
        }
        let leaks = before.iter().filter(|(what, was)| after[*what] > **was).count();
        if let Some((was, is)) = kernel_before.zip(kernel_network_namespaces()) {
            println!("network namespaces, by the kernel's memory (± 64): {was} before, {is} after");
        }
        let failed = runs.iter().filter(|run| run["state"] != "counted").count();
        if failed + leaks > 0 || runs.len() != self.runs {
            bail!(
                "{failed} of {} runs failed, {leaks} kinds of thing were left behind",
                runs.len()
            );
        }
        println!("{} runs, 0 failed, nothing left behind", runs.len());
        Ok(())
    }
}

fn campaign(plan: &Path, out: &Path, more: &[&str]) -> Result<Child> {
    Command::new(PROGRAM)
        .args(["campaign", "run", "--quiet"])
        .arg(plan)
        .arg("--out")
        .arg(out)
        .args(more)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .spawn()
        .context("target/release/tapestry does not start")
}

fn call(words: &[&str], paths: &[&Path]) -> Result<()> {
    let output = Command::new(PROGRAM).args(words).args(paths).output()?;
    ensure!(output.status.success(), "{words:?}: {}", String::from_utf8_lossy(&output.stderr));
    Ok(())
}

/// Waits for a campaign; how long it took, and what it held meanwhile.
fn watch(mut child: Child, begun: Instant) -> Result<(f64, String)> {
    let process = format!("/proc/{}", child.id());
    let mut samples: Vec<(f64, usize)> = Vec::new();
    let status = loop {
        if let Some(status) = child.try_wait()? {
            break status;
        }
        let status = std::fs::read_to_string(format!("{process}/status")).unwrap_or_default();
        let kib = status
            .lines()
            .find_map(|line| line.strip_prefix("VmRSS:")?.split_whitespace().next()?.parse().ok());
        let files = std::fs::read_dir(format!("{process}/fd")).map_or(0, Iterator::count);
        samples.extend(kib.map(|kib: f64| (kib / 1024.0, files)));
        std::thread::sleep(Duration::from_millis(50));
    };
    let seconds = begun.elapsed().as_secs_f64();
    ensure!(status.success(), "the campaign ended with {status}");
    // The first tenth is for warming up.
    let settled = &samples[samples.len() / 10..];
    let (first, last) =
        (settled.first().context("too short")?, settled.last().context("too short")?);
    let most = settled.iter().map(|sample| sample.0).fold(0.0, f64::max);
    let files = settled.iter().map(|sample| sample.1).max().unwrap_or(0);
    let memory = format!(
        "memory {:.1} MB at a tenth, {:.1} at the end, {most:.1} at most; at most {files} descriptors, {} at the end",
        first.0, last.0, last.1
    );
    Ok((seconds, memory))
}

fn table(path: &Path) -> Result<Vec<BTreeMap<String, String>>> {
    let mut reader = csv::Reader::from_path(path)?;
    Ok(reader.deserialize().collect::<Result<_, _>>()?)
}

/// Every run without what depends on when and how fast it was made.
fn lasting(directory: &Path) -> Result<Vec<String>> {
    call(&["campaign", "export"], &[directory])?;
    let mut runs: Vec<String> = table(&directory.join("export/runs.csv"))?
        .into_iter()
        .map(|mut run| {
            for passing in
                ["id", "session", "started", "seconds", "ready_seconds", "cpu", "steal", "beside"]
            {
                run.remove(passing);
            }
            format!("{run:?}")
        })
        .collect();
    runs.sort();
    Ok(runs)
}
