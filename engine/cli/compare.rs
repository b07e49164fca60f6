//! `tapestry compare`: runs side by side.

use std::fmt::Write;

use tapestry_lab::compare::{CompareError, Comparison, EndedRun, Row, Side, compare};
use tapestry_lab::rundir;

use crate::USAGE;
use crate::summary::number;

/// Compare a run with one or more others: metrics, counters of links, arrival times.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// The run compared with: its directory, its name under runs/, or `last`
    run_a: String,
    /// The other run; several are replicates, whose mean is compared
    #[arg(required = true, value_name = "RUN_B")]
    runs_b: Vec<String>,
    /// Difference beyond which a value is flagged, percent
    #[arg(long, value_name = "PERCENT", default_value = "10", value_parser = percent)]
    threshold: f64,
    /// Show all counters, not only those that differ
    #[arg(long)]
    all: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// A share from a number of percent, with or without the sign.
fn percent(text: &str) -> Result<f64, String> {
    let number: Option<f64> = text.trim_end_matches('%').trim().parse().ok();
    let number = number.filter(|number| number.is_finite() && *number >= 0.0);
    number.map(|number| number / 100.0).ok_or_else(|| "expected percent, such as 10".to_owned())
}

pub(crate) fn main(args: &Args) -> anyhow::Result<u8> {
    let read = |name: &String| -> Result<EndedRun, String> {
        let directory = rundir::find(name).map_err(|error| error.to_string())?;
        EndedRun::read(&directory).map_err(|error| error.to_string())
    };
    let runs: Result<Vec<EndedRun>, String> =
        std::iter::once(&args.run_a).chain(&args.runs_b).map(read).collect();
    let compared = runs.and_then(|runs| {
        let (a, b) = runs.split_first().ok_or("no run")?;
        compare(a, b, args.threshold).map_err(|error: CompareError| error.to_string())
    });
    match compared {
        Ok(comparison) if args.json => {
            crate::say!("{}", serde_json::to_string_pretty(&comparison)?);
        }
        Ok(comparison) => crate::say!("{}", text(&comparison, args.all).trim_end()),
        Err(error) => {
            crate::tell!("error: {error}");
            return Ok(USAGE);
        }
    }
    Ok(0)
}

fn text(comparison: &Comparison, all: bool) -> String {
    let mut out = String::new();
    let side = |out: &mut String, name: &str, side: &Side| {
        let Side { directory, name: topology, time, nodes, verdict } = side;
        let directory = directory.display();
        let _ = writeln!(out, "{name}  {directory}: {topology}, {nodes}, {time}, {verdict}");
    };
    side(&mut out, "A", &comparison.a);
    for b in &comparison.b {
        side(&mut out, "B", b);
    }
    rows(&mut out, "metric", &comparison.metrics, true);
    rows(&mut out, "counter", &comparison.links, all);
    if !comparison.arrivals.is_empty() {
        let _ = writeln!(out, "\narrivals, B - A:");
    }
    for link in &comparison.arrivals {
        let millis = |ns: f64| format!("{:.3} ms", ns / 1e6);
        let _ = writeln!(
            out,
            "  {}: {} frames, median {}, 99th percentile {}, greatest {}; only in A {}, only in B {}",
            link.link,
            link.frames,
            millis(link.median_ns as f64),
            millis(link.p99_ns as f64),
            millis(link.max_ns as f64),
            link.only_a,
            link.only_b
        );
    }
    if !comparison.missing.is_empty() {
        let _ = writeln!(out, "\nnot in all runs:");
    }
    for missing in &comparison.missing {
        let _ = writeln!(out, "  {missing}");
    }
    let flagged =
        comparison.metrics.iter().chain(&comparison.links).filter(|row| row.flagged).count();
    let percent = comparison.threshold * 100.0;
    let _ = writeln!(out, "\n{flagged} of the values differ by more than {percent} %");
    out
}

fn rows(out: &mut String, title: &str, rows: &[Row], all: bool) {
    let shown: Vec<&Row> = rows.iter().filter(|row| all || row.differs()).collect();
    let same = rows.len() - shown.len();
    let width = shown.iter().map(|row| row.name.len()).max().unwrap_or(0).max(title.len());
    let _ = writeln!(out, "\n{title:width$}  {:>12}  {:>12}  difference", "A", "B");
    for row in shown {
        let difference = match row.relative {
            Some(relative) => format!("{:+.1} %", relative * 100.0),
            None => "from 0".to_owned(),
        };
        let interval = match (row.half_width, row.beyond_interval) {
            (Some(half), Some(true)) => format!(", beyond +-{} (95 %)", number(half)),
            (Some(half), _) => format!(", within +-{} (95 %)", number(half)),
            _ => String::new(),
        };
        let flag = if row.flagged { "  <--" } else { "" };
        let (a, b) = (number(row.a), number(row.b));
        let unit = if row.unit.is_empty() { String::new() } else { format!(" {}", row.unit) };
        let name = &row.name;
        let _ =
            writeln!(out, "{name:width$}  {a:>12}  {b:>12}{unit}  {difference}{interval}{flag}");
    }
    if same > 0 {
        let _ = writeln!(out, "({same} more are equal)");
    }
}
