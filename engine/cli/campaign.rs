//! `tapestry campaign`: many runs from one plan.

mod progress;

use std::path::{Path, PathBuf};

use clap::ValueEnum;
use tapestry_campaign::campaign::{self, Campaign, CampaignError, Prepared};
use tapestry_campaign::capacity::{self, Host};
use tapestry_campaign::design::{Purpose, describe};
use tapestry_campaign::export::{self, ExportError};
use tapestry_campaign::report::{self, ReportError};
use tapestry_campaign::runner::{self, Options};
use tapestry_campaign::standing;
use tapestry_campaign::store::{FILE, State, Store, StoreError};
use tapestry_lab::execution::shell_word;
use tapestry_topologies::plan::{Plan, Time};

use self::progress::Progress;
use crate::summary::count;
use crate::{FAILED, USAGE, files};

#[derive(clap::Subcommand)]
pub(crate) enum Verb {
    /// Make the runs of a plan
    Run(RunArgs),
    /// Say how far a campaign is
    Status(StatusArgs),
    /// Write what a campaign shows as HTML and Markdown, with figures
    Report(ReportArgs),
    /// Write a campaign's runs, tasks and link counters as CSV or Parquet
    Export(ExportArgs),
}

/// Make the runs of a plan.
#[derive(clap::Args)]
pub(crate) struct RunArgs {
    /// The plan file (YAML; see docs/campaigns.md)
    plan: PathBuf,
    /// Most runs side by side [default: one a core in virtual time, else 1]
    #[arg(long, short, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    jobs: Option<u16>,
    /// Go on with a campaign that was interrupted or killed
    #[arg(long)]
    resume: bool,
    /// Campaign directory [default: campaigns/NAME]
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Check the plan and the host, say what would be run, and run nothing
    #[arg(long)]
    dry_run: bool,
    /// Say only what went wrong
    #[arg(long, short)]
    quiet: bool,
}

/// Say how far a campaign is.
#[derive(clap::Args)]
pub(crate) struct StatusArgs {
    #[command(flatten)]
    which: Which,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Write what a campaign shows as HTML and Markdown, with figures.
#[derive(clap::Args)]
pub(crate) struct ReportArgs {
    #[command(flatten)]
    which: Which,
    /// Where to write: a directory [default: the campaign's], or with --figure a .svg or .png file
    #[arg(long, short, value_name = "PATH")]
    output: Option<PathBuf>,
    /// Write only this figure
    #[arg(long, value_name = "NAME", requires = "output")]
    figure: Option<String>,
}

/// Write a campaign's runs, tasks and link counters as CSV or Parquet.
#[derive(clap::Args)]
pub(crate) struct ExportArgs {
    #[command(flatten)]
    which: Which,
    /// Format of the files
    #[arg(long, value_enum, default_value_t = Format::Csv)]
    format: Format,
    /// Directory for the files [default: export in the campaign directory]
    #[arg(long, short, value_name = "DIR")]
    output: Option<PathBuf>,
}

/// A format of tables.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    /// Comma-separated values
    Csv,
    /// Apache Parquet
    Parquet,
}

/// A campaign that was begun.
#[derive(clap::Args)]
pub(crate) struct Which {
    /// The plan file, or the campaign directory
    #[arg(value_name = "PLAN|DIR")]
    campaign: PathBuf,
}

/// Why a verb ends: what was wrong has been said.
struct Said(u8);

impl Which {
    /// The directory, and the plan if one was named.
    fn find(&self) -> Result<(PathBuf, Option<Plan>), Said> {
        if self.campaign.is_dir() {
            return Ok((self.campaign.clone(), None));
        }
        let plan = tapestry_campaign::load_plan(&self.campaign).map_err(|wrong| {
            files::tell_diagnostics(wrong);
            Said(USAGE)
        })?;
        // Where the campaign was begun, else beside the plan.
        let here = campaign::directory(&plan);
        let beside = self.campaign.parent().unwrap_or(Path::new("")).join(&here);
        let is_store = |directory: &Path| directory.join(FILE).exists();
        let directory = if !is_store(&here) && is_store(&beside) { beside } else { here };
        Ok((directory, Some(plan)))
    }

    /// The store, its directory, and the plan that the campaign was begun with; what the plan that
    /// was named says of the report is taken from there.
    fn open(&self) -> Result<(Store, PathBuf, Plan), Said> {
        let (directory, plan) = self.find()?;
        let store = Store::read(&directory).map_err(store_error)?;
        let begun = store.plan().map_err(store_error)?;
        let Some(named) = plan else { return Ok((store, directory, begun)) };
        let keys = campaign::differing(&begun, &named);
        if !keys.is_empty() {
            crate::tell!(
                "warning: {} of {} is not what the campaign was begun with; shown is what was run",
                keys.iter().map(|key| format!("`{key}`")).collect::<Vec<_>>().join(", "),
                self.campaign.display()
            );
        }
        let Plan { name, description, keep, load, report, .. } = named;
        let plan = Plan { name, description, keep, load, report, ..begun };
        Ok((store, directory, plan))
    }
}

fn store_error(error: StoreError) -> Said {
    campaign_error(error.into())
}

fn campaign_error(error: CampaignError) -> Said {
    let code = if error.is_usage() { USAGE } else { FAILED };
    match error {
        CampaignError::Plan(wrong) => files::tell_diagnostics(*wrong),
        CampaignError::Point { point, diagnostics } => {
            crate::tell!("error: the topology is wrong at point {point}:");
            files::tell_diagnostics(*diagnostics);
        }
        other => crate::tell!("error: {other}"),
    }
    Said(code)
}

pub(crate) fn main(verb: &Verb) -> u8 {
    let done = match verb {
        Verb::Run(args) => run(args),
        Verb::Status(args) => status(args),
        Verb::Report(args) => report(args),
        Verb::Export(args) => export(args),
    };
    done.unwrap_or_else(|Said(code)| code)
}

fn run(args: &RunArgs) -> Result<u8, Said> {
    let prepared = campaign::prepare(&args.plan).map_err(campaign_error)?;
    let plan = prepared.plan.clone();
    let host = Host::now();
    let jobs = args
        .jobs
        .map_or_else(|| if plan.time == Time::Virtual { host.cpus } else { 1 }, usize::from);
    let points: Vec<_> =
        prepared.points.iter().map(describe).zip(prepared.needs.iter().copied()).collect();
    if plan.time == Time::Realtime {
        for warning in capacity::warnings(host, &plan, &points, jobs) {
            crate::tell!("warning: {warning}");
        }
    }
    for note in &prepared.notes {
        crate::tell!("note: {note}");
    }
    if !args.quiet || args.dry_run {
        crate::tell!("{}", overview(&prepared, jobs));
    }
    if args.dry_run {
        for (point, _) in &points {
            crate::say!("{point}");
        }
        return Ok(0);
    }
    let directory = args.out.clone().unwrap_or_else(|| campaign::directory(&plan));
    let mut campaign = Campaign::open(prepared, &directory, args.resume).map_err(campaign_error)?;
    let options = Options {
        jobs,
        program: std::env::current_exe().map_err(|error| {
            crate::tell!("error: cannot find this program: {error}");
            Said(FAILED)
        })?,
        command: std::env::args_os().map(|word| word.to_string_lossy().into_owned()).collect(),
    };
    let mut progress = Progress::new(args.quiet);
    let summary = runner::run(&mut campaign, &options, &mut |news| progress.on(news));
    progress.end();
    let summary = summary.map_err(campaign_error)?;
    if summary.interrupted {
        let out = args.out.as_ref().map_or(String::new(), |out| format!(" --out {}", word(out)));
        let plan = word(&args.plan);
        crate::tell!(
            "{} kept; go on with: tapestry campaign run {plan} --resume{out}",
            count(summary.counted + summary.failed, "run")
        );
    } else if !args.quiet {
        crate::say!(
            "{} counted, {} failed, {} without a valid run",
            count(summary.counted, "run"),
            summary.failed,
            count(summary.lacking, "replicate")
        );
        if summary.unmet > 0 {
            crate::say!("{} of those that count did not meet an expectation:", summary.unmet);
        }
        for (expectation, runs) in &summary.expectations {
            crate::say!("          {expectation}: does not hold in {}", count(*runs, "run"));
        }
        if let Some(words) = &summary.unreached {
            crate::tell!("warning: {words}");
        }
        crate::say!("details   {}", directory.display());
        crate::say!("report    tapestry campaign report {}", word(&directory));
    }
    Ok(summary.exit_status())
}

/// One line about what will be run.
fn overview(prepared: &Prepared, jobs: usize) -> String {
    let plan = &prepared.plan;
    let most = if plan.stop.is_some() { "at most " } else { "" };
    let runs = prepared.points.len() * plan.replicates as usize;
    // How fast a simulation is, nobody knows.
    let longest = match plan.time {
        Time::Virtual => String::new(),
        Time::Realtime => {
            let longest = capacity::longest_seconds(plan, &prepared.needs, jobs);
            let repeats = if plan.retries > 0 { "; invalid runs are repeated" } else { "" };
            format!(
                "; {} at the most, by the time limits of runs and tasks{repeats}",
                capacity::about(longest)
            )
        }
    };
    format!(
        "{}: {}, {most}{}, {jobs} side by side{longest}",
        plan.name,
        count(prepared.points.len(), "point"),
        count(runs, "run"),
    )
}

fn status(args: &StatusArgs) -> Result<u8, Said> {
    let (store, directory, _) = args.which.open()?;
    let plan = store.plan().map_err(store_error)?;
    let runs = store.runs().map_err(store_error)?;
    let settings = store.points().map_err(store_error)?;
    let points = settings.len();
    let running = campaign::is_running(&directory);
    let of = |state: State| {
        runs.iter().filter(|run| run.job.purpose == Purpose::Measure && run.state == state).count()
    };
    let warm_up = runs.iter().filter(|run| run.job.purpose == Purpose::WarmUp).count();
    let planned = points * plan.replicates as usize;
    let standing = standing::of(&store, &plan).map_err(store_error)?;
    let jobs = store.sessions().map_err(store_error)?.last().map_or(1, |session| session.jobs);
    let lasted: Vec<f64> = runs.iter().map(|run| run.seconds).collect();
    let left = (lasted.len() >= points)
        .then(|| capacity::left_seconds(&lasted, standing.remaining, jobs))
        .flatten();
    let unreached = standing.unreached_words(&plan, &settings);
    let unmet = runner::unmet(runs.iter());
    if args.json {
        let states: serde_json::Map<_, _> =
            State::ALL.iter().map(|s| (s.as_str().to_owned(), of(*s).into())).collect();
        let found = serde_json::json!({
            "name": plan.name, "directory": directory, "running": running, "points": points,
            "planned": planned, "warm_up": warm_up, "states": states,
            "remaining": standing.remaining, "remaining_seconds": left,
            "stop_rule_not_reached": standing.unreached.len(), "expectations_unmet": unmet,
        });
        crate::say!("{found:#}");
        return Ok(0);
    }
    crate::say!("{}: {}", plan.name, if running { "running" } else { "not running" });
    crate::say!("planned   {}, at most {}", count(points, "point"), count(planned, "run"));
    for state in State::ALL.into_iter().filter(|state| of(*state) > 0) {
        crate::say!("{:9} {}", state.as_str(), of(state));
    }
    for (expectation, runs) in &unmet {
        crate::say!("expected  {expectation}: does not hold in {}", count(*runs, "run"));
    }
    if standing.remaining > 0 {
        let time = left.map_or(String::new(), |left| format!(", about {}", capacity::about(left)));
        crate::say!("left      at most {}{time}", count(standing.remaining, "run"));
    } else {
        crate::say!("left      nothing");
    }
    if let Some(words) = unreached {
        crate::say!("stop      {words}");
    }
    if let Some(last) = runs.last() {
        crate::say!("last run  {} ({:.1} s)", last.started, last.seconds);
    }
    crate::say!("directory {}", shown(&directory));
    Ok(0)
}

fn report(args: &ReportArgs) -> Result<u8, Said> {
    let (store, directory, plan) = args.which.open()?;
    let wrong = |error: ReportError| {
        crate::tell!("error: {error}");
        Said(if matches!(error, ReportError::Write { .. } | ReportError::Plot { .. }) {
            FAILED
        } else {
            USAGE
        })
    };
    if let (Some(figure), Some(output)) = (&args.figure, &args.output) {
        report::write_figure(&store, &plan, &directory, figure, output).map_err(wrong)?;
        return Ok(0);
    }
    let output = args.output.as_deref().unwrap_or(&directory);
    let name = shown(&args.which.campaign);
    let written = report::write(&store, &plan, &directory, output, &name).map_err(wrong)?;
    crate::say!("{}", shown(&written.html));
    crate::say!("{}", shown(&written.markdown));
    crate::say!("{}", count(written.figures, "figure"));
    Ok(0)
}

fn export(args: &ExportArgs) -> Result<u8, Said> {
    let (store, directory, _) = args.which.open()?;
    let output = args.output.clone().unwrap_or_else(|| directory.join("export"));
    let format = match args.format {
        Format::Csv => export::Format::Csv,
        Format::Parquet => export::Format::Parquet,
    };
    let files = export::write(&store, &output, format).map_err(|error| match error {
        ExportError::Store(error) => store_error(error),
        other @ ExportError::Write { .. } => {
            crate::tell!("error: {other}");
            Said(FAILED)
        }
    })?;
    for file in files {
        crate::say!("{}", shown(&file));
    }
    Ok(0)
}

/// A path in a command that is to be pasted.
fn word(path: &Path) -> String {
    shell_word(&shown(path))
}

fn shown(path: &Path) -> String {
    path.display().to_string()
}
