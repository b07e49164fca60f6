//! Measures what captures cost at a given load.
//!
//! Purpose: two network namespaces joined by one link, a paced UDP sender (1470-byte datagrams) in
//! one and a receiver in the other; without capture, with whole frames, and with 128 bytes of each,
//! alternating. Reported: processor time per datagram, of everything (sender and receiver included)
//! and of the emulator's threads; frames captured (each at both ends) and skipped; datagrams that
//! arrived.
//!
//! Needs root, `/dev/net/tun` and `ip`. Files go into a temporary directory (`TMPDIR`):
//! `cargo run --release -p tapestry-realtime --example capture_cost -- [PPS [SECONDS [ROUNDS]]]`

use std::error::Error;
use std::net::UdpSocket;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{JoinHandle, sleep};
use std::time::{Duration, Instant};

use nix::sched::{CloneFlags, unshare};
use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeValLike;
use tapestry_models::LinkConfig;
use tapestry_realtime::{
    CaptureSpec, DataPlane, DataPlaneConfig, EndpointSpec, LinkSpec, TapPort, WallClock,
};

type Outcome<T> = Result<T, Box<dyn Error + Send + Sync>>;

fn main() -> Outcome<()> {
    let mut arguments = std::env::args().skip(1);
    let mut number = |default: u64| arguments.next().map_or(Ok(default), |text| text.parse());
    let (pps, seconds, rounds) = (number(100_000)?, number(5)?, number(5)?);
    let cases = [("no capture", None), ("whole frames", Some(0)), ("128 bytes", Some(128))];
    let mut figures = cases.map(|_| Vec::new());
    for round in 1..=rounds {
        for ((name, snap_length), figures) in cases.iter().zip(&mut figures) {
            let directory = tempfile::tempdir()?;
            let figure = measure(pps, seconds, *snap_length, directory.path())?;
            println!("round {round}, {name}: {figure:.3?}");
            figures.push(figure);
        }
    }
    let median = |figures: &[Figures], value: fn(&Figures) -> f64| {
        let mut values: Vec<f64> = figures.iter().map(value).collect();
        values.sort_by(f64::total_cmp);
        values[values.len() / 2]
    };
    println!("\nmedians of {rounds} rounds at {pps} datagrams/s (and relative to no capture)");
    for ((name, _), of) in cases.iter().zip(&figures) {
        let all = median(of, |f| f.all_us);
        let emulator = median(of, |f| f.emulator_us);
        println!(
            "{name:<14} all {all:.3} µs ({:.3}), emulator {emulator:.3} µs ({:.3}), \
             captured {}, skipped {}, arrived {:.4}",
            all / median(&figures[0], |f| f.all_us),
            emulator / median(&figures[0], |f| f.emulator_us),
            of.iter().map(|f| f.captured).sum::<u64>(),
            of.iter().map(|f| f.skipped).sum::<u64>(),
            median(of, |f| f.arrived),
        );
    }
    Ok(())
}

#[derive(Debug)]
struct Figures {
    /// Processor time of the whole process per datagram, in µs.
    all_us: f64,
    /// Processor time of workers and the captures' writer per datagram, in µs.
    emulator_us: f64,
    captured: u64,
    skipped: u64,
    /// Share of the datagrams.
    arrived: f64,
}

fn measure(pps: u64, seconds: u64, snap: Option<usize>, directory: &Path) -> Outcome<Figures> {
    let ends = Arc::new(AtomicBool::new(false));
    let (tap_a, sender) = node("10.9.0.1", &ends, move |socket, ends| send(socket, pps, ends))?;
    let (tap_b, receiver) = node("10.9.0.2", &ends, receive)?;
    let endpoints = vec![EndpointSpec::port("a:eth0", tap_a), EndpointSpec::port("b:eth0", tap_b)];
    let link = LinkSpec { config: LinkConfig::point_to_point("a-b"), endpoints };
    let mut config = DataPlaneConfig::new(WallClock::start(), vec![link]);
    config.captures = snap
        .map(|snap_length| CaptureSpec { snap_length, ..CaptureSpec::new("a-b", directory) })
        .into_iter()
        .collect();
    let plane = DataPlane::start(config)?;
    let (all, emulator) = (process_cpu()?, emulator_cpu()?);
    sleep(Duration::from_secs(seconds));
    let (all, emulator) = (process_cpu()? - all, emulator_cpu()? - emulator);
    ends.store(true, Ordering::Relaxed);
    let sent = sender.join().map_err(|_| "the sender panicked")?;
    let arrived = receiver.join().map_err(|_| "the receiver panicked")?;
    let reports = plane.stop().captures;
    if let Some(error) = reports.iter().find_map(|report| report.error.as_deref()) {
        return Err(error.into());
    }
    Ok(Figures {
        all_us: all * 1e6 / sent as f64,
        emulator_us: emulator * 1e6 / sent as f64,
        captured: reports.iter().map(|report| report.frames).sum(),
        skipped: reports.iter().map(|report| report.skipped).sum(),
        arrived: arrived as f64 / sent as f64,
    })
}

/// A thread in a namespace of its own with a TAP, doing `work` on a socket; returns its datagrams.
fn node(
    address: &'static str,
    ends: &Arc<AtomicBool>,
    work: impl FnOnce(&UdpSocket, &AtomicBool) -> u64 + Send + 'static,
) -> Outcome<(TapPort, JoinHandle<u64>)> {
    let ends = Arc::clone(ends);
    let (ready, is_ready) = std::sync::mpsc::channel();
    let thread = std::thread::spawn(move || {
        let made = (|| -> Outcome<_> {
            unshare(CloneFlags::CLONE_NEWNET)?;
            let tap = TapPort::create("eth0")?;
            for command in [format!("addr add {address}/24 dev eth0"), "link set eth0 up".into()] {
                if !Command::new("ip").args(command.split(' ')).status()?.success() {
                    return Err(format!("ip {command} failed").into());
                }
            }
            let socket = UdpSocket::bind((address, 5_000))?;
            socket.set_read_timeout(Some(Duration::from_millis(200)))?;
            Ok((tap, socket))
        })();
        match made {
            Ok((tap, socket)) => {
                let _ = ready.send(Ok(tap));
                work(&socket, &ends)
            }
            Err(error) => {
                let _ = ready.send(Err(error));
                0
            }
        }
    });
    Ok((is_ready.recv()??, thread))
}

/// Sends at an even rate, in bursts of at most a millisecond.
fn send(socket: &UdpSocket, pps: u64, ends: &AtomicBool) -> u64 {
    let payload = [0; 1_470];
    let (start, mut due, mut sent) = (Instant::now(), 0, 0);
    while !ends.load(Ordering::Relaxed) {
        let target = (start.elapsed().as_secs_f64() * pps as f64) as u64;
        // What could not be sent in time is not made up for.
        due = u64::max(due, target.saturating_sub(pps / 100));
        while due < target {
            sent += u64::from(socket.send_to(&payload, "10.9.0.2:5000").is_ok());
            due += 1;
        }
        sleep(Duration::from_micros(200));
    }
    sent
}

fn receive(socket: &UdpSocket, ends: &AtomicBool) -> u64 {
    let mut buffer = [0; 2_048];
    let mut received = 0;
    while !ends.load(Ordering::Relaxed) {
        received += u64::from(socket.recv(&mut buffer).is_ok());
    }
    // What is still on the way.
    while socket.recv(&mut buffer).is_ok() {
        received += 1;
    }
    received
}

/// Seconds of processor time of this process: sender, receiver, emulator, and what the kernel does
/// for them.
fn process_cpu() -> Outcome<f64> {
    let usage = getrusage(UsageWho::RUSAGE_SELF)?;
    let times = [usage.user_time(), usage.system_time()];
    Ok(times.iter().map(|time| time.num_microseconds() as f64 / 1e6).sum())
}

/// Seconds of processor time of workers and writer.
fn emulator_cpu() -> Outcome<f64> {
    let mut nanoseconds = 0.0;
    for task in std::fs::read_dir("/proc/self/task")? {
        let path = task?.path();
        // A thread that ends meanwhile has no figures any more.
        let text = |file: &str| std::fs::read_to_string(path.join(file)).unwrap_or_default();
        if text("comm").starts_with("data-plane") || text("comm").starts_with("captures") {
            let used = text("schedstat");
            nanoseconds += used.split(' ').next().map_or(Ok(0.0), str::parse)?;
        }
    }
    Ok(nanoseconds / 1e9)
}
