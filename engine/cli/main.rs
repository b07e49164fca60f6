//! `tapestry`: a topology file becomes a running network.
//!
//! One module per verb. A verb returns the exit status: 0 done, 1 the run or an assertion failed,
//! 2 wrong usage or file, 3 inconclusive (the verdict is invalid), 130 interrupted.

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use tapestry_lab::control::ControlError;
use tapestry_lab::rundir::RunDirError;

/// A line on standard output. A reader that has left is no reason to end a run.
#[macro_export]
macro_rules! say {
    ($($words:tt)*) => {{
        use std::io::Write as _;
        $crate::said(writeln!(std::io::stdout(), $($words)*));
    }};
}

/// A line on standard error; likewise.
#[macro_export]
macro_rules! tell {
    ($($words:tt)*) => {{
        use std::io::Write as _;
        let _ = writeln!(std::io::stderr(), $($words)*);
    }};
}

mod attach;
mod campaign;
mod clean;
mod compare;
mod doctor;
mod exec;
mod files;
mod image;
mod link;
mod progress;
mod run;
mod summary;
mod test;
mod top;

/// A network emulator: a topology file becomes a running network.
#[derive(Parser)]
#[command(version, about, propagate_version = true)]
struct Cli {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Run a topology file
    Run(run::Args),
    /// Check a topology file and say everything that is wrong with it
    Validate(files::ValidateArgs),
    /// Draw a topology file as DOT, Mermaid or SVG
    Graph(files::GraphArgs),
    /// Print the JSON Schema of topology files, or of plans
    Schema(files::SchemaArgs),
    /// Say what this machine can do, and the command that mends each lack
    Doctor(doctor::Args),
    /// Build, import, list and remove guest images
    #[command(subcommand)]
    Image(image::Verb),
    /// Run a command on a node of a running lab
    Exec(exec::Args),
    /// Connect this terminal to a node's shell in a running lab
    Attach(attach::Args),
    /// Change a link of a running lab: take it down or up, set its parameters
    Link(link::Args),
    /// Show a running lab: links, nodes, the task, the verdict so far
    Top(top::Args),
    /// Compare runs: metrics, counters of links, arrival times
    Compare(compare::Args),
    /// Make many runs from one plan, and say what they show
    #[command(subcommand)]
    Campaign(campaign::Verb),
    /// Run the topology files of a directory as tests
    Test(test::Args),
    /// Remove the run directories of runs that were killed
    Clean(clean::Args),
}

/// Exit status for wrong usage or a wrong file.
const USAGE: u8 = 2;
/// Exit status when the run or an assertion failed.
const FAILED: u8 = 1;

/// What became of a line on standard output: a full disk must not pass for success.
fn said(written: std::io::Result<()>) {
    match written {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => {
            tell!("error: standard output: {error}");
            std::process::exit(i32::from(FAILED));
        }
        _ => {}
    }
}

fn main() -> ExitCode {
    if let Some(code) = run::node_helper() {
        return code;
    }
    // Libraries warn of what they could mend or do without.
    tracing_subscriber::fmt()
        .with_max_level(tracing_subscriber::filter::LevelFilter::WARN)
        .with_writer(std::io::stderr)
        .without_time()
        .with_target(false)
        .init();
    // clap prints wrong usage itself, with exit status 2.
    let cli = Cli::parse();
    let done = match cli.verb {
        Verb::Run(args) => run::main(&args),
        Verb::Validate(args) => files::validate(&args),
        Verb::Graph(args) => files::graph(&args),
        Verb::Schema(args) => files::schema(&args),
        Verb::Doctor(args) => doctor::main(&args),
        Verb::Image(verb) => image::main(&verb),
        Verb::Exec(args) => exec::main(&args),
        Verb::Attach(args) => attach::main(&args),
        Verb::Link(args) => link::main(&args),
        Verb::Top(args) => top::main(&args),
        Verb::Compare(args) => compare::main(&args),
        Verb::Campaign(verb) => Ok(campaign::main(&verb)),
        Verb::Test(args) => test::main(&args),
        Verb::Clean(args) => clean::main(&args),
    };
    match done {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            crate::tell!("error: {}", explain(&error));
            ExitCode::from(if is_usage(&error) { USAGE } else { FAILED })
        }
    }
}

/// Whether what the user asked for makes no sense: a run, node or link that there is not.
fn is_usage(error: &anyhow::Error) -> bool {
    matches!(error.downcast_ref(), Some(RunDirError::NoRun { .. }))
        || matches!(error.downcast_ref(), Some(ControlError::Misuse(_)))
}

/// The error and its causes. Many errors quote their cause; it is not said twice.
fn explain(error: &anyhow::Error) -> String {
    error.chain().map(ToString::to_string).fold(String::new(), |said, cause| {
        if said.is_empty() {
            cause
        } else if said.contains(&cause) {
            said
        } else {
            format!("{said}: {cause}")
        }
    })
}

#[cfg(test)]
mod tests {
    use anyhow::Context;

    #[test]
    fn a_cause_is_said_once() {
        let refused = || std::io::Error::other("refused");
        let quoting = anyhow::Error::new(refused()).context("cannot connect: refused");
        assert_eq!(super::explain(&quoting), "cannot connect: refused");
        let bare = Err::<(), _>(refused()).context("cannot connect").expect_err("an error");
        assert_eq!(super::explain(&bare), "cannot connect: refused");
    }
}
