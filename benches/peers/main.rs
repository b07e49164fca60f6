//! Tapestry beside its peers: the same nodes, the same load, in one run and alternating.
//!
//! Systems: Tapestry with one and with two workers; a bare single-threaded TAP forwarder
//! (`bare.rs`); ns-3's realtime simulator (`ns3_chain.cc`) where Debian's `libns3-dev` and a C++
//! compiler are installed. All of them move the frames of the same namespaces with kernel bridges,
//! made by `tapestry run`; peers take the data plane's place with `--forwarder`.
//!
//! *Critical* is the largest offered load with at least 99 % delivered, found by doubling and
//! bisection, in hop-packets per second: end-to-end rate × (nodes − 1).
//!
//! Usage: `make bench-peers`, or `cargo bench --bench peers -- [--quick] [--nodes 2,10,32]
//! [--rounds N] [--seconds N] [--out DIR]`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};
use clap::Parser;
use serde::Serialize;

mod plot;

/// Measure Tapestry beside its peers.
#[derive(Parser)]
struct Args {
    /// One round, short runs: a smoke test, not a measurement
    #[arg(long)]
    quick: bool,
    /// Chain lengths
    #[arg(long, value_delimiter = ',', default_values_t = [2, 10, 32])]
    nodes: Vec<usize>,
    /// How often everything is measured
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// Length of each load run
    #[arg(long, default_value_t = 3)]
    seconds: usize,
    /// Where results and plot go
    #[arg(long, default_value = "target/peers")]
    out: PathBuf,
    /// What cargo passes to every bench
    #[arg(long, hide = true)]
    bench: bool,
}

/// Something that moves frames.
#[derive(Clone)]
struct System {
    name: &'static str,
    arguments: Vec<String>,
    environment: Vec<(&'static str, String)>,
    /// Whether it can delay frames.
    delays: bool,
}

/// One figure of one system, with the value of each round.
#[derive(Serialize)]
struct Figure {
    what: String,
    unit: &'static str,
    system: &'static str,
    rounds: Vec<f64>,
    median: f64,
}

fn main() -> Result<()> {
    let mut args = Args::parse();
    if args.quick {
        (args.rounds, args.seconds) = (1, 1);
        args.nodes = vec![2, 10];
    }
    std::fs::create_dir_all(&args.out)?;
    let systems = systems(&args.out)?;
    let mut table: BTreeMap<(String, &'static str), (usize, &'static str, Vec<f64>)> =
        BTreeMap::new();
    let mut order = 0;
    let mut note = |figure: String, system: &'static str, unit: &'static str, value: f64| {
        println!("{figure:<28} {system:<22} {value:>12.3} {unit}");
        order += 1;
        let entry = table.entry((figure, system)).or_insert_with(|| (order, unit, Vec::new()));
        entry.2.push(value);
    };
    // The search starts near the last round's answer.
    let mut near: BTreeMap<(&'static str, usize), f64> = BTreeMap::new();
    for round in 1..=args.rounds {
        println!("round {round} of {}", args.rounds);
        for &nodes in &args.nodes {
            for system in &systems {
                if nodes == 2 && system.name == "tapestry, 2 workers" {
                    continue; // one link is one group, and thus one worker
                }
                let start = near.get(&(system.name, nodes)).copied();
                let critical = critical(system, nodes, args.seconds, start, &args.out)?;
                near.insert((system.name, nodes), critical);
                let hops = critical * (nodes - 1) as f64;
                note(format!("critical, N = {nodes}"), system.name, "hop-packets/s", hops);
            }
        }
        for system in &systems {
            let (p50, p99) = ping(system, "0ms", if args.quick { 200 } else { 1000 }, &args.out)?;
            note("RTT p50, no delay".into(), system.name, "ms", p50);
            note("RTT p99, no delay".into(), system.name, "ms", p99);
            if system.delays {
                let count = if args.quick { 100 } else { 500 };
                let (p50, p99) = ping(system, "10ms", count, &args.out)?;
                note("RTT p50 - 20 ms".into(), system.name, "ms", p50 - 20.0);
                note("RTT p99 - 20 ms".into(), system.name, "ms", p99 - 20.0);
            }
        }
        for system in &systems {
            let rate = tcp(system, args.seconds, &args.out)?;
            note("TCP, one link".into(), system.name, "Mbit/s", rate);
        }
    }
    let mut rows: Vec<_> = table.into_iter().collect();
    rows.sort_by_key(|(_, (order, ..))| *order);
    let figures: Vec<Figure> = rows
        .into_iter()
        .map(|((figure, system), (_, unit, rounds))| Figure {
            median: median(&rounds),
            what: figure,
            unit,
            system,
            rounds,
        })
        .collect();
    print_medians(&figures);
    let json = args.out.join("peers.json");
    std::fs::write(&json, serde_json::to_string_pretty(&figures)?)?;
    let svg = args.out.join("peers.svg");
    plot::critical(&figures, &svg)?;
    println!("\nwritten: {} and {}", json.display(), svg.display());
    Ok(())
}

/// What can be measured here; says what cannot and why.
fn systems(out: &Path) -> Result<Vec<System>> {
    let system = |name, arguments: &[&str]| System {
        name,
        arguments: arguments.iter().map(|a| (*a).to_owned()).collect(),
        environment: Vec::new(),
        delays: false,
    };
    let bare = Path::new("target/release/examples/bare");
    if !bare.exists() {
        bail!("{} is missing; `make bench-peers` builds it", bare.display());
    }
    let bare = std::fs::canonicalize(bare)?;
    let mut systems = vec![
        System { delays: true, ..system("tapestry, 1 worker", &["--workers", "1"]) },
        System { delays: true, ..system("tapestry, 2 workers", &["--workers", "2"]) },
        system("bare forwarder", &["--forwarder", &bare.to_string_lossy()]),
    ];
    let ns3 = std::path::absolute(out)?.join("ns3_chain");
    let built = Command::new("g++")
        .args(["-std=c++17", "-O2", "-o"])
        .arg(&ns3)
        .arg("benches/peers/ns3_chain.cc")
        .args(["-lns3-core", "-lns3-network", "-lns3-csma", "-lns3-bridge", "-lns3-fd-net-device"])
        .output();
    match built {
        Ok(output) if output.status.success() => systems.push(System {
            delays: true,
            ..system("ns-3 realtime", &["--forwarder", &ns3.to_string_lossy()])
        }),
        _ => println!(
            "ns-3 is left out: it needs g++ and libns3-dev (apt-get install libns3-dev g++)"
        ),
    }
    Ok(systems)
}

/// Runs a topology; returns its results and run directory.
fn run(
    system: &System,
    file: &str,
    sets: &[String],
    out: &Path,
) -> Result<(serde_json::Value, PathBuf)> {
    let directory = out.join("run");
    if directory.exists() {
        std::fs::remove_dir_all(&directory)?;
    }
    let mut command = Command::new("target/release/tapestry");
    command.args(["run", file, "--json", "--out"]).arg(&directory).args(&system.arguments);
    command.envs(system.environment.iter().map(|(k, v)| (*k, v.as_str())));
    for set in sets {
        command.args(["--set", set]);
    }
    let output = command.output().context("target/release/tapestry does not start")?;
    // An overloaded run is invalid and says so by its exit status; here that is a result.
    let results = serde_json::from_slice(&output.stdout).with_context(|| {
        format!("{} over {file}: {}", system.name, String::from_utf8_lossy(&output.stderr))
    })?;
    Ok((results, directory))
}

fn metric(results: &serde_json::Value, name: &str) -> f64 {
    results["metrics"][name]["value"].as_f64().unwrap_or(0.0)
}

/// What a load gave: datagrams per second sent and received end to end.
struct Load {
    sent: f64,
    received: f64,
}

impl Load {
    fn passes(&self) -> bool {
        self.received >= 0.99 * self.sent
    }
}

fn load(system: &System, nodes: usize, pps: f64, seconds: usize, out: &Path) -> Result<Load> {
    let sets = [
        "kind=netns".to_owned(),
        format!("nodes={nodes}"),
        format!("pps={}", pps as u64),
        format!("seconds={seconds}"),
    ];
    let (results, _) = run(system, "topologies/chain.yaml", &sets, out)?;
    let per_second = |name| metric(&results, name) / seconds as f64;
    Ok(Load { sent: per_second("sent"), received: per_second("received") })
}

/// The largest end-to-end rate, packets per second, of which at least 99 % arrive.
fn critical(
    system: &System,
    nodes: usize,
    seconds: usize,
    near: Option<f64>,
    out: &Path,
) -> Result<f64> {
    const BISECTIONS: usize = 5;
    let mut passed = 0.0_f64;
    let mut offered = near.map_or(2_000.0, |near| near * 0.7);
    let mut last_passed_load = 0.0;
    let mut failed = loop {
        let got = load(system, nodes, offered, seconds, out)?;
        if got.passes() {
            passed = passed.max(got.received);
            last_passed_load = offered;
            // The sender itself cannot do more.
            if got.sent < 0.9 * offered {
                return Ok(passed);
            }
            offered *= if near.is_some() { 1.3 } else { 1.8 };
        } else if last_passed_load > 0.0 || offered < 200.0 {
            break offered;
        } else {
            offered *= 0.5;
        }
    };
    for _ in 0..BISECTIONS {
        let middle = f64::midpoint(last_passed_load, failed);
        let got = load(system, nodes, middle, seconds, out)?;
        if got.passes() {
            passed = passed.max(got.received);
            last_passed_load = middle;
        } else {
            failed = middle;
        }
    }
    Ok(passed)
}

/// Median and 99th percentile of the round-trip time over one link, ms.
fn ping(system: &System, delay: &str, count: usize, out: &Path) -> Result<(f64, f64)> {
    let mut system = system.clone();
    if delay != "0ms" {
        // ns-3 takes its delay from the environment; Tapestry from the topology.
        system.environment.push(("NS3_DELAY_NS", "10000000".to_owned()));
    }
    let sets = [format!("delay={delay}"), format!("count={count}")];
    let (_, directory) = run(&system, "benches/peers/ping.yaml", &sets, out)?;
    let text = std::fs::read_to_string(directory.join("outputs/ping.n0.out"))?;
    let mut times: Vec<f64> = text
        .lines()
        .filter_map(|line| line.split_once("time=")?.1.split(' ').next()?.parse().ok())
        .collect();
    if times.is_empty() {
        bail!("{}: no ping came back; see {}", system.name, directory.display());
    }
    times.sort_by(f64::total_cmp);
    let at = |share: f64| times[((times.len() - 1) as f64 * share).round() as usize];
    Ok((at(0.5), at(0.99)))
}

fn tcp(system: &System, seconds: usize, out: &Path) -> Result<f64> {
    let sets = [format!("seconds={}", seconds.max(2))];
    let (results, _) = run(system, "benches/peers/tcp.yaml", &sets, out)?;
    Ok(metric(&results, "mbit_per_s"))
}

fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted.get(sorted.len() / 2).copied().unwrap_or(0.0)
}

/// Medians, each with its ratio to the bare forwarder's.
fn print_medians(figures: &[Figure]) {
    println!("\n{:<28} {:<22} {:>14}  {:>8}", "figure (median)", "system", "", "to bare");
    for figure in figures {
        let bare = figures
            .iter()
            .find(|f| f.system == "bare forwarder" && f.what == figure.what)
            .map(|f| f.median);
        let ratio = bare.map_or(String::new(), |bare| format!("{:.2}", figure.median / bare));
        println!(
            "{:<28} {:<22} {:>14.3}  {ratio:>8}  {}",
            figure.what, figure.system, figure.median, figure.unit
        );
    }
}
