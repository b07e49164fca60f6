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
//! Virtual time stands beside ns-3's default simulator (`ns3_virtual.cc`): the same chains of CSMA
//! links and bridges, in hop-packets per second of wall time.
//!
//! Usage: `make bench-peers`, or `cargo bench --bench peers -- [--quick] [--only-virtual]
//! [--nodes 2,10,32] [--rounds N] [--seconds N] [--only SYSTEM]
//! [--parts critical,times,tcp,simulated] [--out DIR]`; further measurements are sub-commands
//! (`--help`).

use std::collections::BTreeMap;
use std::path::PathBuf;

use anyhow::Result;
use clap::{Parser, Subcommand, ValueEnum};
use serde::Serialize;

use measure::{critical, median, ping, systems, tcp};

mod accounts;
mod accuracy;
mod campaigns;
mod capture;
mod everything;
mod measure;
mod overload;
mod plot;
mod repeat;
mod simulation;

/// Measure Tapestry beside its peers.
#[derive(Parser)]
struct Args {
    /// One round, short runs: a smoke test, not a measurement
    #[arg(long)]
    quick: bool,
    /// Measure virtual time only
    #[arg(long)]
    only_virtual: bool,
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
    /// Only systems whose name contains this, for example `2 workers` or `ns-3`
    #[arg(long, global = true)]
    only: Option<String>,
    /// Only these parts of the comparison
    #[arg(long, value_delimiter = ',')]
    parts: Vec<Part>,
    /// What cargo passes to every bench
    #[arg(long, hide = true, global = true)]
    bench: bool,
    /// Something else than the comparison
    #[command(subcommand)]
    other: Option<Other>,
}

/// A part of the comparison.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Part {
    /// Virtual time
    Simulated,
    /// Largest offered load of which 99 % arrive
    Critical,
    /// Round-trip times
    Times,
    /// TCP through one link
    Tcp,
}

#[derive(Subcommand)]
enum Other {
    Campaigns(campaigns::Campaigns),
    Capture(capture::Capture),
    Accuracy(accuracy::Accuracy),
    Everything(everything::Everything),
    Overload(overload::Overload),
    Repeat(repeat::Repeat),
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
    if let Some(Other::Repeat(repeat)) = &args.other {
        return repeat.measure(&args.out);
    }
    if let Some(Other::Campaigns(campaigns)) = &args.other {
        return campaigns.measure(&args.out);
    }
    let mut systems = if args.only_virtual { Vec::new() } else { systems(&args.out)? };
    if let Some(only) = &args.only {
        systems.retain(|system| system.name.contains(only.as_str()));
        anyhow::ensure!(
            !systems.is_empty(),
            "no system that can be measured here is called `{only}`"
        );
    }
    match &args.other {
        Some(Other::Capture(capture)) => return capture.measure(&systems, &args.out),
        Some(Other::Overload(overload)) => return overload.measure(&systems, &args.out),
        Some(Other::Accuracy(accuracy)) => return accuracy.measure(&systems, &args.out),
        Some(Other::Everything(everything)) => return everything.measure(&systems, &args.out),
        _ => {}
    }
    let wants = |part| args.parts.is_empty() || args.parts.contains(&part);
    let simulators = if wants(Part::Simulated) {
        simulation::simulators(&args.out, if args.quick { 20_000 } else { 200_000 })?
    } else {
        Vec::new()
    };
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
        for nodes in SIMULATED_NODES {
            for simulator in &simulators {
                let hops = (simulator.run)(nodes)?;
                note(format!("simulated, N = {nodes}"), simulator.name, "hop-packets/s", hops);
            }
        }
        for &nodes in args.nodes.iter().filter(|_| wants(Part::Critical)) {
            for system in systems.iter().filter(|system| !system.times_only) {
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
        for system in systems.iter().filter(|_| wants(Part::Times)) {
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
        for system in systems.iter().filter(|system| !system.times_only && wants(Part::Tcp)) {
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
    println!("\nwritten: {}", json.display());
    if !args.only_virtual && wants(Part::Critical) {
        let svg = args.out.join("peers.svg");
        plot::critical(&figures, &svg)?;
        println!("written: {}", svg.display());
    }
    Ok(())
}

/// Lengths of the chains in virtual time.
const SIMULATED_NODES: [u32; 2] = [10, 32];

/// Medians, each with its ratio to the yardstick's: the bare forwarder, in virtual time ns-3.
fn print_medians(figures: &[Figure]) {
    println!("\n{:<28} {:<22} {:>14}  {:>8}", "figure (median)", "system", "", "ratio");
    for figure in figures {
        let bare = figures
            .iter()
            .filter(|f| ["bare forwarder", "ns-3, virtual"].contains(&f.system))
            .find(|f| f.what == figure.what)
            .map(|f| f.median);
        let ratio = bare.map_or(String::new(), |bare| format!("{:.2}", figure.median / bare));
        println!(
            "{:<28} {:<22} {:>14.3}  {ratio:>8}  {}",
            figure.what, figure.system, figure.median, figure.unit
        );
    }
}
