//! `tapestry top`: a living run at a glance.

use std::io::{self, IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{self, TryRecvError};
use std::time::{Duration, Instant};

use anyhow::bail;
use ratatui::DefaultTerminal;
use ratatui::crossterm::event::{self, Event, KeyEventKind};
use tapestry_core::SimTime;
use tapestry_lab::control::{self, ControlError};
use tapestry_lab::rates::rates;
use tapestry_lab::rundir;
use tapestry_lab::status::Status;

mod grid;
mod page;
mod view;

use view::{Next, View};

/// Show a running lab: links with rates, queues and losses, nodes with CPU and memory, the task.
///
/// CPU is in cores: 100 % is one. Losses that no model meant are red; they make the verdict worse.
/// Keys: q leaves, l and n choose links or nodes, s sorts, arrows and PgUp/PgDn scroll.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// The run: its directory, its name under runs/, or `last`
    #[arg(default_value = "last")]
    run: String,
    /// Print once and end, as happens when standard output is not a terminal
    #[arg(long)]
    once: bool,
    /// Time between two looks at the run, which the rates are over
    #[arg(long, value_name = "TIME", default_value = "1s", value_parser = interval)]
    interval: Duration,
}

fn interval(text: &str) -> Result<Duration, String> {
    /// Asking takes the run some milliseconds, and CPU time is told in steps of 10 ms.
    const SHORTEST: SimTime = SimTime::from_millis(100);
    let time: SimTime = text.parse().map_err(|error| format!("{error}"))?;
    if time < SHORTEST {
        return Err(format!("the shortest is {SHORTEST}"));
    }
    Ok(Duration::from_nanos(time.as_nanos()))
}

pub(crate) fn main(args: &Args) -> anyhow::Result<u8> {
    let run = rundir::find(&args.run)?;
    let first = control::status(&run)?;
    if args.once || !io::stdout().is_terminal() {
        std::thread::sleep(args.interval);
        let status = control::status(&run)?;
        let text = page::plain(&status, &rates(&first, &status));
        match io::stdout().lock().write_all(text.as_bytes()) {
            // Who reads our output has seen enough.
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {}
            written => written?,
        }
        return Ok(0);
    }
    let mut terminal = ratatui::try_init()?;
    let followed = follow(&mut terminal, &run, first, args.interval);
    ratatui::try_restore()?;
    if followed? == Ended::Run {
        let alive = rundir::state(&run) == Some(rundir::RunState::Alive);
        crate::say!("run {} {}", run.display(), if alive { "is ending" } else { "has ended" });
    }
    Ok(0)
}

/// Why the view ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ended {
    /// The user left.
    User,
    /// The run is over.
    Run,
}

/// Shows the run until it ends or the user leaves.
fn follow(
    terminal: &mut DefaultTerminal,
    run: &Path,
    first: Status,
    interval: Duration,
) -> anyhow::Result<Ended> {
    /// How long a key may wait to be seen.
    const KEY_WAIT: Duration = Duration::from_millis(50);
    let (answers, run) = (ask_again_and_again(run.to_owned(), interval), run.display());
    let mut view = View::new();
    let mut figures = rates(&first, &first);
    let mut status = first;
    let mut answered = Instant::now();
    loop {
        let age = answered.elapsed();
        let silence = (age > interval * 2 + Duration::from_secs(2))
            .then(|| format!("run {run} has not answered for {} s", age.as_secs()));
        terminal.draw(|frame| view.draw(frame, &status, &figures, silence.as_deref()))?;
        if event::poll(KEY_WAIT)?
            && let Event::Key(key) = event::read()?
            && key.kind != KeyEventKind::Release
            && view.press(key) == Next::Leave
        {
            return Ok(Ended::User);
        }
        match answers.try_recv() {
            Ok(Ok(answer)) => {
                figures = rates(&status, &answer);
                status = answer;
                answered = Instant::now();
            }
            Ok(Err(error)) if is_over(&error) => return Ok(Ended::Run),
            Ok(Err(error)) => return Err(error.into()),
            Err(TryRecvError::Empty) => {}
            Err(TryRecvError::Disconnected) => bail!("the thread that asks the run has ended"),
        }
    }
}

/// Whether the run is over, or so far that it answers no more.
fn is_over(error: &ControlError) -> bool {
    use ControlError::{Ending, Gone, NotRunning};
    matches!(error, NotRunning(_) | Ending(_) | Gone)
}

/// Asks from a thread of its own, since a run on a busy machine may take its time to answer. Ends
/// with the first error, or when nobody listens any more.
fn ask_again_and_again(
    run: PathBuf,
    interval: Duration,
) -> mpsc::Receiver<Result<Status, ControlError>> {
    /// The first rates come soon.
    const SOON: Duration = Duration::from_millis(300);
    let (send, answers) = mpsc::channel();
    std::thread::spawn(move || {
        let mut pause = SOON.min(interval);
        loop {
            std::thread::sleep(pause);
            pause = interval;
            let answer = control::status(&run);
            if matches!(answer, Err(ControlError::Silent { .. })) {
                // The view says so; the lab may go on.
                continue;
            }
            let failed = answer.is_err();
            if send.send(answer).is_err() || failed {
                break;
            }
        }
    });
    answers
}
