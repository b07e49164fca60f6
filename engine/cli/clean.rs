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
}

pub(crate) fn main(args: &Args) -> anyhow::Result<u8> {
    let runs = match rundir::state(&args.root) {
        Some(_) => vec![args.root.clone()],
        None => rundir::list(&args.root),
    };
    let mut removed = 0;
    for run in runs.iter().filter(|run| rundir::state(run) == Some(RunState::Dead)) {
        if args.dry_run {
            crate::say!("would remove {}", run.display());
            removed += 1;
        } else if rundir::remove_dead(run)
            .map_err(|error| anyhow::anyhow!("cannot remove {}: {error}", run.display()))?
        {
            crate::say!("removed {}", run.display());
            removed += 1;
        }
    }
    if removed == 0 {
        crate::say!("nothing to clean in {}", args.root.display());
    }
    Ok(0)
}
