//! `tapestry test`: topology files as tests.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use tapestry_campaign::suite::{self, Settings, Shown, SuiteError, Tested, formats};
use tapestry_core::SimTime;
use tapestry_lab::Interruption;
use tapestry_lab::execution::TEST_SNAP_LENGTH;
use tapestry_lab::rundir;
use tapestry_topologies::plan::Time;

use crate::files::{parse_set, tell_diagnostics};
use crate::summary::{count, number};
use crate::{FAILED, USAGE};

/// Run the topology files of a directory as tests.
///
/// Files and directories whose names begin with `_` are parts of others. Exit status: 0 all passed, 1 one
/// failed, 3 none failed but one is inconclusive, because its run cannot be trusted.
#[derive(clap::Args)]
#[allow(clippy::struct_excessive_bools, reason = "each is a flag of the command line")]
pub(crate) struct Args {
    /// A directory, or one file
    path: PathBuf,
    /// Only scenarios whose names contain one of these words; `!word`: only those that do not
    filters: Vec<String>,
    /// Give a parameter of all files a value
    #[arg(long = "set", value_name = "NAME=VALUE", value_parser = parse_set)]
    sets: Vec<(String, String)>,
    /// Most scenarios side by side [default: one a core]
    #[arg(long, short, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    jobs: Option<u16>,
    /// How often an inconclusive scenario is tried again, alone; one that failed never is
    #[arg(long, value_name = "N", default_value_t = 2)]
    retries: u32,
    /// Longest time of a scenario
    #[arg(long, value_name = "TIME", default_value = "10min")]
    time_limit: SimTime,
    /// Root of all random streams
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Directory for the run directories of scenarios that do not pass; must be new or empty
    /// [default: a new one under runs/]
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Keep the run directories of scenarios that pass, too
    #[arg(long)]
    keep: bool,
    /// Capture nothing; else the first 256 bytes of all frames, as pcapng
    #[arg(long)]
    no_capture: bool,
    /// Write JUnit XML to this file
    #[arg(long, value_name = "FILE")]
    junit: Option<PathBuf>,
    /// Write TAP to this file
    #[arg(long, value_name = "FILE")]
    tap: Option<PathBuf>,
    /// Print JSON instead of lines for people
    #[arg(long)]
    json: bool,
    /// Only name the scenarios, and how each would be run
    #[arg(long)]
    list: bool,
}

pub(crate) fn main(args: &Args) -> anyhow::Result<u8> {
    let scenarios = match suite::find(&args.path, &args.filters, &args.sets) {
        Ok(scenarios) => scenarios,
        Err(error) => {
            if let SuiteError::Wrong(wrong) = error {
                wrong.into_iter().for_each(tell_diagnostics);
            } else {
                crate::tell!("error: {error}");
            }
            return Ok(USAGE);
        }
    };
    if args.list {
        for scenario in &scenarios {
            let time = if scenario.time == Time::Virtual { "virtual" } else { "realtime" };
            let what = &scenario.topology.description;
            crate::say!("{:<28} {time:<8}  {what}", scenario.name);
        }
        return Ok(0);
    }
    if let Err(error) = suite::check(&scenarios) {
        crate::tell!("error: {error}");
        let is_usage =
            !matches!(&error, SuiteError::Refused { refusal, .. } if !refusal.is_usage());
        return Ok(if is_usage { USAGE } else { FAILED });
    }
    if args.time_limit == SimTime::ZERO {
        crate::tell!("error: --time-limit {}: nothing could ever run", args.time_limit);
        return Ok(USAGE);
    }
    // Better now than when everything has run.
    for file in args.junit.iter().chain(&args.tap) {
        let opened = std::fs::OpenOptions::new().create(true).append(true).open(file);
        if let Err(error) = opened {
            crate::tell!("error: cannot write {}: {error}", file.display());
            return Ok(USAGE);
        }
    }
    let directory = match rundir::fresh_directory(args.out.as_deref(), "test") {
        Ok(directory) => directory,
        Err(error) => {
            crate::tell!("error: {error}");
            return Ok(USAGE);
        }
    };
    let cores = || std::thread::available_parallelism().map_or(1, usize::from);
    let settings = Settings {
        program: std::env::current_exe()?,
        sets: args.sets.clone(),
        seed: args.seed,
        jobs: args.jobs.map_or_else(cores, usize::from),
        retries: args.retries,
        time_limit: Duration::from_nanos(args.time_limit.as_nanos()),
        directory: directory.clone(),
        snap_length: (!args.no_capture).then_some(TEST_SNAP_LENGTH),
        keep: args.keep,
    };
    let stop = Arc::new(AtomicBool::new(false));
    end_on_signal(&stop)?;
    let begun = Instant::now();
    let tested = suite::run(&scenarios, &settings, &stop, &|tested| {
        if !args.json {
            tell(tested);
        }
    });
    // Nothing is left to see where all passed.
    let _ = std::fs::remove_dir(&directory);
    if args.json {
        crate::say!("{}", formats::json(&tested)?);
    } else {
        conclude(&tested, begun.elapsed());
    }
    let mut code = suite::exit_status(&tested);
    let junit =
        || formats::junit(&args.path.display().to_string(), &tested).map_err(anyhow::Error::from);
    for (file, text) in
        [(&args.junit, &junit as &dyn Fn() -> _), (&args.tap, &|| Ok(formats::tap(&tested)))]
    {
        let Some(file) = file else { continue };
        let written = text().and_then(|text| Ok(std::fs::write(file, text)?));
        if let Err(error) = written {
            crate::tell!("error: cannot write {}: {error}", file.display());
            code = code.max(FAILED);
        }
    }
    Ok(code)
}

/// A line for one that has ended; behind it, why it did not pass.
fn tell(tested: &Tested) {
    let word = match tested.outcome {
        Shown::Passed => "PASS",
        Shown::Failed => "FAIL",
        Shown::Inconclusive => "INCONCLUSIVE",
        Shown::NotRun => return,
    };
    let again = match tested.attempts {
        1 => String::new(),
        attempts => format!("  ({attempts} attempts)"),
    };
    // Metrics say how well it passed.
    let metrics: Vec<String> = tested
        .metrics
        .iter()
        .map(|(name, value, unit)| {
            format!("{name} {}{}{unit}", number(*value), if unit.is_empty() { "" } else { " " })
        })
        .collect();
    crate::say!(
        "{word:<5} {:>7.1} s  {}{again}  {}",
        tested.seconds,
        tested.name,
        metrics.join(", ")
    );
    for line in tested.report.lines() {
        crate::say!("      {line}");
    }
}

fn conclude(tested: &[Tested], lasted: Duration) {
    let of = |outcome| tested.iter().filter(|tested| tested.outcome == outcome).count();
    crate::say!(
        "{}: {} passed, {} failed, {} inconclusive{} in {:.1} s",
        count(tested.len(), "scenario"),
        of(Shown::Passed),
        of(Shown::Failed),
        of(Shown::Inconclusive),
        match of(Shown::NotRun) {
            0 => String::new(),
            left => format!(", {left} not run"),
        },
        lasted.as_secs_f64()
    );
}

/// The first signal that asks for the end ends the runs under way, the second this process.
fn end_on_signal(stop: &Arc<AtomicBool>) -> anyhow::Result<()> {
    let stop = Arc::clone(stop);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    std::thread::spawn(move || {
        runtime.block_on(async {
            let mut interruption = Interruption::listen();
            loop {
                let cause = interruption.next().await;
                if stop.swap(true, Ordering::Relaxed) {
                    std::process::exit(130);
                }
                crate::tell!("{cause}: ending the runs under way; once more to leave at once");
            }
        });
    });
    Ok(())
}
