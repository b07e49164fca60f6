//! The same small run, over and over.
//!
//! To reach, over 1,000 runs of two namespaces and one ping: no failure, nothing left behind
//! (processes, network interfaces, namespaces, mounts), and at most 250 ms a run beside the ping.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;
use std::time::Instant;

use anyhow::{Context, Result, bail};
use clap::Args;

/// Run a two-node ping again and again; fails if a run fails or leaves something behind
#[derive(Args)]
pub(crate) struct Repeat {
    /// How often
    #[arg(long, default_value_t = 1000)]
    runs: usize,
}

pub(crate) const LAB: &str = "\
nodes: { a: { kind: netns }, b: { kind: netns } }
links: [{ pair: [a, b], ipv4: 10.0.0.0/24 }]
tasks: [{ name: ping, run: { a: ping -c 1 10.0.0.2 }, timeout: 20s }]
";

impl Repeat {
    pub(crate) fn measure(&self, out: &Path) -> Result<()> {
        let file = out.join("repeat.yaml");
        std::fs::write(&file, LAB)?;
        let directory = out.join("repeat");
        let before = remains()?;
        let kernel_before = kernel_network_namespaces();
        let mut overheads_ms = Vec::with_capacity(self.runs);
        let mut failures = 0;
        for number in 1..=self.runs {
            if directory.exists() {
                std::fs::remove_dir_all(&directory)?;
            }
            let start = Instant::now();
            let output = Command::new("target/release/tapestry")
                .args(["run", "--json", "--out"])
                .args([&directory, &file])
                .output()
                .context("target/release/tapestry does not start")?;
            let took_ms = start.elapsed().as_secs_f64() * 1e3;
            let results: serde_json::Value =
                serde_json::from_slice(&output.stdout).unwrap_or_default();
            let ping_ms = results["tasks"][0]["commands"][0]["seconds"].as_f64().map(|s| s * 1e3);
            match ping_ms {
                Some(ping_ms) if output.status.success() => overheads_ms.push(took_ms - ping_ms),
                _ => {
                    failures += 1;
                    let said = String::from_utf8_lossy(&output.stderr);
                    eprintln!("run {number}: {}: {}", output.status, said.trim());
                }
            }
        }
        overheads_ms.sort_by(f64::total_cmp);
        let at = |share: f64| {
            let last = overheads_ms.len().saturating_sub(1) as f64;
            overheads_ms.get((last * share) as usize).copied().unwrap_or(f64::NAN)
        };
        println!(
            "{} runs, {failures} failed; beside the ping: mean {:.0} ms, p50 {:.0}, p99 {:.0}, \
             most {:.0}",
            self.runs,
            overheads_ms.iter().sum::<f64>() / overheads_ms.len().max(1) as f64,
            at(0.5),
            at(0.99),
            at(1.0)
        );
        // The kernel takes namespaces apart after the last process has gone.
        std::thread::sleep(std::time::Duration::from_secs(1));
        let after = remains()?;
        let mut leaks = 0;
        for (what, (was, is)) in before.iter().map(|(what, was)| (what, (was, after[what]))) {
            println!("{what}: {was} before, {is} after");
            leaks += usize::from(is > *was);
        }
        match kernel_before.zip(kernel_network_namespaces()) {
            Some((was, is)) => {
                println!(
                    "network namespaces, by the kernel's memory (± 64): {was} before, {is} after"
                );
                // Each run makes more than one; one left by each is a leak whatever its cause.
                leaks += usize::from(is > was + self.runs.max(64));
            }
            None => println!("not checked: namespaces nobody refers to (no /proc/slabinfo)"),
        }
        if failures + leaks > 0 {
            bail!("{failures} runs failed, {leaks} kinds of thing were left behind");
        }
        Ok(())
    }
}

/// What a run could leave behind on the host, counted.
pub(crate) fn remains() -> Result<BTreeMap<&'static str, usize>> {
    let mut namespaces = std::collections::BTreeSet::new();
    let mut processes = 0;
    for entry in std::fs::read_dir("/proc")?.flatten() {
        let path = entry.path();
        if !entry.file_name().to_string_lossy().bytes().all(|byte| byte.is_ascii_digit()) {
            continue;
        }
        let program = std::fs::read_link(path.join("exe")).unwrap_or_default();
        processes += usize::from(program.ends_with("target/release/tapestry"));
        for kind in ["net", "mnt", "pid", "ipc", "uts"] {
            namespaces.extend(std::fs::read_link(path.join("ns").join(kind)));
        }
    }
    let lines =
        |file: &str| -> Result<usize> { Ok(std::fs::read_to_string(file)?.lines().count()) };
    Ok(BTreeMap::from([
        ("processes of tapestry", processes),
        ("namespaces with a process", namespaces.len()),
        ("network interfaces", lines("/proc/self/net/dev")?),
        ("mounts", lines("/proc/self/mounts")?),
        ("namespaces pinned by a mount", pinned_namespaces()?),
        ("namespaces held by a descriptor", held_namespaces()?),
        ("descriptors of this process", std::fs::read_dir("/proc/self/fd")?.count()),
    ]))
}

/// Mounts of `nsfs` in any process's mount namespace: a namespace that has one lives on without a
/// process.
fn pinned_namespaces() -> Result<usize> {
    let mut pinned = std::collections::BTreeSet::new();
    for entry in std::fs::read_dir("/proc")?.flatten() {
        // A process that has ended meanwhile has none.
        let mounts = std::fs::read_to_string(entry.path().join("mountinfo")).unwrap_or_default();
        // The fields after the separator begin with the file system's type; the fourth of all is
        // the namespace, `net:[4026531840]`.
        pinned.extend(
            mounts
                .lines()
                .filter(|line| line.contains(" - nsfs "))
                .filter_map(|line| line.split(' ').nth(3).map(str::to_owned)),
        );
    }
    Ok(pinned.len())
}

/// Namespaces that a process holds open by a descriptor.
fn held_namespaces() -> Result<usize> {
    let mut held = std::collections::BTreeSet::new();
    for entry in std::fs::read_dir("/proc")?.flatten() {
        let descriptors = std::fs::read_dir(entry.path().join("fd")).into_iter().flatten();
        let targets = descriptors.flatten().filter_map(|fd| std::fs::read_link(fd.path()).ok());
        let name = |target: std::path::PathBuf| target.to_string_lossy().into_owned();
        let is_namespace = |name: &String| {
            ["net:[", "mnt:[", "pid:[", "ipc:[", "uts:["].iter().any(|kind| name.starts_with(kind))
        };
        held.extend(targets.map(name).filter(is_namespace));
    }
    Ok(held.len())
}

/// Network namespaces the kernel has room in use for, whatever refers to them. Each processor keeps
/// some room at hand, so this is no exact number; `None` where the kernel does not say.
pub(crate) fn kernel_network_namespaces() -> Option<usize> {
    let slabs = std::fs::read_to_string("/proc/slabinfo").ok()?;
    let line = slabs.lines().find(|line| line.starts_with("net_namespace "))?;
    line.split_whitespace().nth(1)?.parse().ok()
}
