//! `tapestry run`: run a topology file.

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use clap::ValueEnum;
use nix::sys::prctl::set_pdeathsig;
use nix::sys::signal::Signal;
use nix::unistd::{Pid, getppid};
use tapestry_core::{ByteCount, SimTime, SyncPolicy};
use tapestry_guests::schedule;
use tapestry_lab::awake::CoresAwake;
use tapestry_lab::control;
use tapestry_lab::lab::{Captures, LabOptions};
use tapestry_lab::refuse::{Refusal, refusals, settle_attachments, virtual_time_refusals};
use tapestry_lab::results::{Outcome, Results};
use tapestry_lab::run::{RunSpec, run};
use tapestry_lab::rundir::{RunDir, RunDirError};
use tapestry_lab::sandbox;
use tapestry_lab::virtual_time;
use tapestry_realtime::{CaptureSpec, CaptureTarget, IoChoice};

use crate::files::FileArgs;
use crate::progress::{Progress, Verbosity};
use crate::{FAILED, USAGE, summary};

/// Run a topology file: boot its nodes, run its tasks, judge the run.
#[derive(clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    file: FileArgs,
    /// Against the wall clock, or as an exact simulation
    #[arg(long, value_enum, default_value_t = Time::Realtime)]
    time: Time,
    /// What to do about late events: best-effort, or hard-limit[=TIME] to end the run
    #[arg(long, value_name = "POLICY")]
    sync: Option<SyncPolicy>,
    /// Root of all random streams
    #[arg(long)]
    seed: Option<u64>,
    /// Repetition: another number gives independent draws from the same seed
    #[arg(long, value_name = "N", default_value_t = 0)]
    run: u64,
    /// Stop at this virtual time at the latest, for example 10s
    #[arg(long, value_name = "TIME")]
    until: Option<SimTime>,
    /// Run directory; must be new or empty [default: a new one under runs/]
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Most worker threads of the data plane (1-1024) [default: one a core]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    workers: Option<u16>,
    /// Run the workers at this SCHED_FIFO priority (1-99)
    #[arg(long, value_name = "PRIORITY", value_parser = clap::value_parser!(u8).range(1..=99))]
    realtime_priority: Option<u8>,
    /// Let idle cores poll instead of sleep: more exact times, full power drawn (root only)
    #[arg(long)]
    cores_awake: bool,
    /// Pin the workers to these CPUs, in turn
    #[arg(long, value_name = "CPU", value_delimiter = ',')]
    pin: Vec<usize>,
    /// How workers move frames to and from network interfaces
    #[arg(long, value_enum, default_value_t = Io::Auto)]
    io: Io,
    /// Capture a link into captures/ as pcapng: all, LINK, LINK:NODE or LINK:NODE:INTERFACE
    #[arg(long = "capture", value_name = "WHAT")]
    captures: Vec<CaptureTarget>,
    /// Bytes of each frame that captures keep, at least 1 [default: whole frames]
    #[arg(long, value_name = "BYTES", requires = "captures", value_parser = at_least_one())]
    snap_length: Option<u32>,
    /// Size of a capture file before the next is begun
    #[arg(
        long, value_name = "SIZE", default_value = "64MiB", requires = "captures",
        value_parser = capture_size
    )]
    capture_size: ByteCount,
    /// Files kept of each capture, at least 1; beyond them the oldest is deleted
    #[arg(
        long, value_name = "N", default_value_t = CaptureSpec::FILES as u32, requires = "captures",
        value_parser = at_least_one()
    )]
    capture_files: u32,
    /// Let PROGRAM move the frames instead of the data plane, to compare them
    #[arg(long, value_name = "PROGRAM", hide_short_help = true)]
    forwarder: Option<String>,
    /// Die with the process PID, which must be this one's parent (for campaigns)
    #[arg(long, value_name = "PID", hide = true)]
    end_with_parent: Option<i32>,
    /// Say only what went wrong
    #[arg(long, short, conflicts_with = "json")]
    quiet: bool,
    /// Print results.json instead of a summary
    #[arg(long)]
    json: bool,
}

fn at_least_one() -> clap::builder::RangedI64ValueParser<u32> {
    clap::value_parser!(u32).range(1..)
}

fn capture_size(text: &str) -> Result<ByteCount, String> {
    let size: ByteCount = text.parse().map_err(|error| format!("{error}"))?;
    if size.as_bytes() == 0 {
        return Err("expected a size above 0, for example 64MiB".to_owned());
    }
    Ok(size)
}

/// How time passes in a run.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Time {
    /// The wall clock
    Realtime,
    /// Virtual time (needs in-process nodes only)
    Virtual,
}

/// How workers move frames to and from network interfaces.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Io {
    /// `io_uring` where the kernel offers it, else epoll
    Auto,
    /// `io_uring` or nothing (Linux 6.7)
    Uring,
    /// One system call a frame
    Epoll,
}

impl From<Io> for IoChoice {
    fn from(io: Io) -> Self {
        match io {
            Io::Auto => Self::Auto,
            Io::Uring => Self::Uring,
            Io::Epoll => Self::Epoll,
        }
    }
}

impl Args {
    fn options(&self) -> LabOptions {
        LabOptions {
            sync: self.sync,
            seed: self.seed,
            run: self.run,
            until: self.until,
            workers: self.workers.map_or(0, usize::from),
            realtime_priority: self.realtime_priority,
            cores_awake: self.cores_awake,
            pin_to: self.pin.clone(),
            io: self.io.into(),
            captures: Captures {
                targets: self.captures.clone(),
                snap_length: self
                    .snap_length
                    .map_or(CaptureSpec::SNAP_LENGTH, |bytes| bytes as usize),
                file_bytes: self.capture_size.as_bytes(),
                files: self.capture_files as usize,
            },
            forwarder: self.forwarder.clone(),
        }
    }
}

pub(crate) fn main(args: &Args) -> anyhow::Result<u8> {
    if let Some(parent) = args.end_with_parent {
        // The sandbox dies with this process; so nothing is left of a run whose campaign was killed.
        set_pdeathsig(Signal::SIGKILL)?;
        anyhow::ensure!(getppid() == Pid::from_raw(parent), "process {parent} has ended");
    }
    let mut topology = match args.file.load() {
        Ok(topology) => topology,
        Err(code) => return Ok(code),
    };
    if settle_attachments(&mut topology) && !args.quiet && !args.json {
        crate::tell!("/dev/net/tun does not open: virtual machines attach by socket");
    }
    let options = args.options();
    let refusals = match args.time {
        Time::Realtime => refusals(&topology, &options),
        Time::Virtual => virtual_time_refusals(&topology, &options),
    };
    for refusal in &refusals {
        crate::tell!("error: {refusal}");
    }
    if !refusals.is_empty() {
        let wrong_usage = refusals.iter().any(Refusal::is_usage);
        return Ok(if wrong_usage { USAGE } else { FAILED });
    }
    let dir = match RunDir::create(args.out.as_deref(), &topology.name) {
        Ok(dir) => dir,
        Err(error) => {
            crate::tell!("error: {error}");
            let wrong_usage = matches!(
                error,
                RunDirError::NotEmpty { .. }
                    | RunDirError::InUse { .. }
                    | RunDirError::Create { .. }
            );
            return Ok(if wrong_usage { USAGE } else { FAILED });
        }
    };
    let spec = RunSpec {
        topology,
        file: args.file.file.display().to_string(),
        command: std::env::args().collect(),
        options,
    };
    let verbosity = if args.quiet || args.json { Verbosity::Quiet } else { Verbosity::Normal };
    let path = dir.path().to_owned();
    let progress = Arc::new(Progress::new(verbosity));
    let results = match args.time {
        Time::Realtime => in_real_time(spec, dir, &progress),
        Time::Virtual => {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            let run = virtual_time::run(spec, dir, Box::new(Arc::clone(&progress)));
            runtime.block_on(run).map_err(anyhow::Error::from)
        }
    };
    let results = match results {
        Ok(results) => results,
        Err(error) => {
            crate::tell!("error: {error}");
            return Ok(FAILED);
        }
    };
    // Most have been said when they happened.
    for error in results.errors.iter().filter(|error| !progress.has_said(error)) {
        crate::tell!("error: {error}");
    }
    if args.json {
        crate::say!("{}", serde_json::to_string_pretty(&results)?);
    } else if !args.quiet {
        crate::say!("{}", summary::text(&results, &path).trim_end());
    } else if results.outcome != Outcome::Passed {
        for reason in &results.verdict.reasons {
            crate::tell!("{}: {reason}", results.verdict.state.as_str());
        }
    }
    Ok(u8::try_from(results.outcome.exit_status()).unwrap_or(FAILED))
}

/// Runs in a sandbox, which this process becomes the parent of.
fn in_real_time(spec: RunSpec, dir: RunDir, progress: &Arc<Progress>) -> anyhow::Result<Results> {
    let _awake = if spec.options.cores_awake { Some(CoresAwake::new()?) } else { None };
    let (listener, address) = control::listen()?;
    dir.announce(&address)?;
    // From here on this is another process, inside the lab's namespaces; the one the user started
    // waits for it in `enter`.
    sandbox::enter()?;
    schedule::register_control_thread();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .on_thread_start(schedule::register_control_thread)
        .enable_all()
        .build()?;
    let results = runtime.block_on(run(spec, dir, listener, Box::new(Arc::clone(progress))));
    // Blocking helpers of the runtime are not waited for: the namespace ends them.
    runtime.shutdown_background();
    Ok(results?)
}

/// The helper of a namespace node, if this process was started as one.
pub(crate) fn node_helper() -> Option<ExitCode> {
    let is_helper = std::env::args().nth(1)? == tapestry_guests::netns::HELPER_ARGUMENT;
    is_helper.then(tapestry_guests::netns::helper_main)
}
