//! `tapestry exec`: a command on a node of a running lab, from another terminal.

use std::io::Write;
use std::time::Duration;

use tapestry_core::SimTime;
use tapestry_lab::control::{self, Request};
use tapestry_lab::rundir;

/// Run a command on a node of a running lab; exits with the command's status.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// The run: its directory, its name under runs/, or `last`
    run: String,
    /// The node
    node: String,
    /// The command; several words are joined by spaces and read by the node's shell
    #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true)]
    command: Vec<String>,
    /// End the command after this time, for example 10s
    #[arg(long)]
    timeout: Option<SimTime>,
}

pub(crate) fn main(args: &Args) -> anyhow::Result<u8> {
    let run = rundir::find(&args.run)?;
    let request = Request::Exec {
        node: args.node.clone(),
        command: args.command.join(" "),
        timeout: args.timeout.map(|time| Duration::from_nanos(time.as_nanos())),
    };
    let mut out = std::io::stdout().lock();
    let status = control::ask(&run, &request, |bytes| {
        out.write_all(bytes)?;
        out.flush()
    })?;
    Ok(u8::try_from(status).unwrap_or(1))
}
