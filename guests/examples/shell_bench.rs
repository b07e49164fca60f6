//! Figures of the shell proxy on real guests: `shell_bench [GUESTS] [round-trips]` (default 8 guests;
//! with the second word only the round trips).
//!
//! Boots guests of the default image side by side under TCG and prints the time to a usable shell,
//! the round trip of `true`, the time to arm a command, the start skew over all guests, and the
//! console's throughput. Build with `--release`.

use std::collections::BTreeMap;
use std::error::Error;
use std::time::{Duration, Instant};

use futures::future::try_join_all;
use tapestry_core::SimTime;
use tapestry_guests::accel::Resolved;
use tapestry_guests::qemu::{self, Guest, GuestSpec};
use tapestry_guests::shell::{LoginOptions, RunOptions, Shell, ShellSlot};
use tapestry_guests::task::TaskRunner;
use tapestry_guests::{image, os};
use tapestry_topologies::resolved::{Command, NicModel, Task};

type Failure = Box<dyn Error>;

const ROUND_TRIPS: usize = 200;
const PAUSE: Duration = Duration::from_millis(100);
const ARMINGS: usize = 30;
/// A command of 64 KiB takes five seconds to arrive.
const LONG_ARMINGS: usize = 5;
const TASKS: usize = 30;
const OUTPUT_BYTES: u32 = 2 << 20;

#[tokio::main]
async fn main() -> Result<(), Failure> {
    let count: usize = std::env::args().nth(1).map_or(Ok(8), |word| word.parse())?;
    let begun = Instant::now();
    let booted = try_join_all((0..count).map(boot)).await?;
    println!("{count} guests with a shell after {:.2?}", begun.elapsed());
    let (guests, shells): (Vec<Guest>, Vec<Shell>) = booted.into_iter().unzip();
    let only_round_trips = std::env::args().nth(2).is_some_and(|word| word == "round-trips");
    if let Some(shell) = shells.first() {
        round_trips(shell).await?;
        if !only_round_trips {
            armings(shell).await?;
            throughput(shell).await?;
        }
    }
    if !only_round_trips {
        skew(shells).await;
    }
    for guest in guests {
        guest.stop(Duration::from_millis(100)).await;
    }
    Ok(())
}

async fn boot(index: usize) -> Result<(Guest, Shell), Failure> {
    let image = image::find(&image::cache_dir()?, image::DEFAULT_NAME)?;
    let os = os::find(&image.os).ok_or("the image's system is unknown")?;
    let node = format!("n{index}");
    let spec = GuestSpec {
        node: node.clone(),
        program: qemu::program(),
        image,
        machine: "pc".into(),
        accel: Resolved::Tcg,
        vcpus: 1,
        memory_bytes: 128 << 20,
        nic: NicModel::Virtio,
        nics: Vec::new(),
        kernel_args: String::new(),
        extra_args: Vec::new(),
        stderr_log: None,
        qmp_timeout: Duration::from_secs(30),
    };
    let mut guest = Guest::start(spec).await?;
    let console = guest.take_console().ok_or("the console is taken")?;
    let options =
        LoginOptions { console_log: None, timeout: Duration::from_mins(2), emulator: None };
    let shell = Shell::login(&node, console, os, &options).await?;
    Ok((guest, shell))
}

async fn round_trips(shell: &Shell) -> Result<(), Failure> {
    let mut times = Vec::new();
    for _ in 0..ROUND_TRIPS {
        // An idle guest: it has made the process of the next command.
        tokio::time::sleep(PAUSE).await;
        let begun = Instant::now();
        shell.run("true", &RunOptions::default()).await?;
        times.push(begun.elapsed());
    }
    print("round trip of `true`", times);
    Ok(())
}

async fn armings(shell: &Shell) -> Result<(), Failure> {
    let short = ("arming", "true".to_owned(), ARMINGS);
    let long = ("arming 64 KiB", "#".repeat(64 << 10), LONG_ARMINGS);
    for (what, text, count) in [short, long] {
        let (mut arming, mut running) = (Vec::new(), Vec::new());
        for _ in 0..count {
            tokio::time::sleep(PAUSE).await;
            let begun = Instant::now();
            let armed = shell.arm(&text, &RunOptions::default()).await?;
            arming.push(begun.elapsed());
            let begun = Instant::now();
            let mut release = armed.release();
            release.started().await?;
            running.push(begun.elapsed());
            release.finish().await?;
        }
        print(what, arming);
        print("release to opening frame", running);
    }
    Ok(())
}

async fn throughput(shell: &Shell) -> Result<(), Failure> {
    let text = format!("head -c {OUTPUT_BYTES} /dev/zero | tr '\\0' x");
    let finished = shell
        .run(&text, &RunOptions { timeout: Duration::from_mins(5), ..RunOptions::default() })
        .await?;
    let seconds = (finished.ended - finished.started).as_secs_f64();
    assert_eq!(finished.output.total, u64::from(OUTPUT_BYTES));
    println!("console: {:.2} MB/s", f64::from(OUTPUT_BYTES) / seconds / 1e6);
    Ok(())
}

async fn skew(shells: Vec<Shell>) {
    let shells: BTreeMap<usize, ShellSlot> =
        shells.into_iter().map(ShellSlot::from).enumerate().collect();
    let task = Task {
        name: "skew".into(),
        commands: shells
            .keys()
            .map(|&node| Command {
                name: format!("n{node}"),
                node,
                text: "true".into(),
                background: false,
                ready: None,
                timeout: None,
                expect_status: Some(0),
            })
            .collect(),
        timeout: SimTime::from_secs(60),
        stop: Vec::new(),
        metrics: indexmap::IndexMap::new(),
        expect: Vec::new(),
        when: None,
    };
    let mut runner = TaskRunner::new(shells, Instant::now(), None);
    let (mut skews, mut spans, mut tasks) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..TASKS {
        tokio::time::sleep(5 * PAUSE).await;
        let outcome = runner.run(&task, &|_| {}).await;
        for command in outcome.commands.iter().filter(|c| !c.is_ok()) {
            println!("{}: {:?}", command.name, command.error);
        }
        skews.extend(outcome.start_skew_ns.map(Duration::from_nanos));
        spans.extend(outcome.release_span_ns.map(Duration::from_nanos));
        tasks.push(Duration::from_nanos(outcome.end_ns - outcome.start_ns));
    }
    print("start skew", skews);
    print("release span", spans);
    print("task of `true` on all", tasks);
}

fn print(what: &str, mut times: Vec<Duration>) {
    times.sort();
    if let (Some(median), Some(most)) = (times.get(times.len() / 2), times.last()) {
        println!("{what}: median {median:.2?}, most {most:.2?}");
    }
}
