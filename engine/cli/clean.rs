//! `tapestry clean`: remove what killed runs left in the run directory.

use std::path::PathBuf;

use tapestry_lab::rundir::{self, RunState};

/// Remove the run directories of runs that were killed.
///
/// Finished and living runs are never touched, nor files that a run did not write.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Where to look: a directory of runs, or one run directory
    #[arg(default_value = rundir::RUNS_ROOT)]
    root: PathBuf,
    /// Only say what would be removed
    #[arg(long)]
    dry_run: bool,
    /// Print the directories as JSON
    #[arg(long)]
    json: bool,
}

pub(crate) fn main(args: &Args) -> anyhow::Result<u8> {
    let is_run = rundir::state(&args.root).is_some();
    let runs = if is_run { vec![args.root.clone()] } else { rundir::list(&args.root) };
    let mut removed = Vec::new();
    for run in runs.into_iter().filter(|run| rundir::state(run) == Some(RunState::Dead)) {
        if args.dry_run
            || rundir::remove_dead(&run)
                .map_err(|error| anyhow::anyhow!("cannot remove {}: {error}", run.display()))?
        {
            removed.push(run);
        }
    }
    if !is_run {
        let unborn = rundir::unborn(&args.root, args.dry_run);
        removed.extend(
            unborn.map_err(|error| {
                anyhow::anyhow!("cannot clean {}: {error}", args.root.display())
            })?,
        );
    }
    if args.json {
        let report = serde_json::json!({ "dry_run": args.dry_run, "removed": removed });
        crate::say!("{}", serde_json::to_string_pretty(&report)?);
        return Ok(0);
    }
    let done = if args.dry_run { "would remove" } else { "removed" };
    for run in &removed {
        crate::say!("{done} {}", run.display());
    }
    if removed.is_empty() {
        crate::say!("nothing to clean in {}", args.root.display());
    }
    Ok(0)
}
