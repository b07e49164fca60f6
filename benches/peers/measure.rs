//! Single measurements: a system, a load, a number.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

/// Something that moves frames.
#[derive(Clone)]
pub(crate) struct System {
    pub(crate) name: &'static str,
    pub(crate) arguments: Vec<String>,
    pub(crate) environment: Vec<(&'static str, String)>,
    /// Whether it can delay frames.
    pub(crate) delays: bool,
    /// Only its round-trip times are of interest.
    pub(crate) times_only: bool,
    /// The chain over which its critical load is looked for.
    pub(crate) chain: PathBuf,
}

/// What can be measured here; says what cannot and why.
pub(crate) fn systems(out: &Path) -> Result<Vec<System>> {
    let system = |name, arguments: &[&str]| System {
        name,
        arguments: arguments.iter().map(|a| (*a).to_owned()).collect(),
        environment: Vec::new(),
        delays: false,
        times_only: false,
        chain: "topologies/chain.yaml".into(),
    };
    let bare = Path::new("target/release/examples/bare");
    if !bare.exists() {
        bail!("{} is missing; `make bench-peers` builds it", bare.display());
    }
    let bare = std::fs::canonicalize(bare)?;
    let mut systems = vec![
        System { delays: true, ..system("tapestry, 1 worker", &["--workers", "1"]) },
        System { delays: true, ..system("tapestry, 2 workers", &["--workers", "2"]) },
        System { delays: true, ..system("tapestry, epoll", &["--workers", "1", "--io", "epoll"]) },
        System {
            delays: true,
            times_only: true,
            ..system("tapestry, cores awake", &["--workers", "1", "--cores-awake"])
        },
        system("bare forwarder", &["--forwarder", &bare.to_string_lossy()]),
    ];
    let ns3 = std::path::absolute(out)?.join("ns3_chain");
    let built = Command::new("g++")
        .args(["-std=c++17", "-O2", "-o"])
        .arg(&ns3)
        .arg("benches/peers/ns3_chain.cc")
        .args(["-lns3-core", "-lns3-network", "-lns3-csma", "-lns3-bridge", "-lns3-fd-net-device"])
        .output();
    match built {
        Ok(output) if output.status.success() => systems.push(System {
            delays: true,
            ..system("ns-3 realtime", &["--forwarder", &ns3.to_string_lossy()])
        }),
        _ => println!(
            "ns-3 is left out: it needs g++ and libns3-dev (apt-get install libns3-dev g++)"
        ),
    }
    Ok(systems)
}

/// Runs a topology; returns its results and run directory.
pub(crate) fn run(
    system: &System,
    file: impl AsRef<Path>,
    sets: &[String],
    out: &Path,
) -> Result<(serde_json::Value, PathBuf)> {
    let directory = out.join("run");
    if directory.exists() {
        std::fs::remove_dir_all(&directory)?;
    }
    let mut command = Command::new("target/release/tapestry");
    let file = file.as_ref();
    command.arg("run").arg(file).args(["--json", "--out"]).arg(&directory);
    command.args(&system.arguments);
    command.envs(system.environment.iter().map(|(k, v)| (*k, v.as_str())));
    for set in sets {
        command.args(["--set", set]);
    }
    let output = command.output().context("target/release/tapestry does not start")?;
    // An overloaded run is invalid and says so by its exit status; here that is a result.
    let results = serde_json::from_slice(&output.stdout).with_context(|| {
        format!(
            "{} over {}: {}",
            system.name,
            file.display(),
            String::from_utf8_lossy(&output.stderr)
        )
    })?;
    Ok((results, directory))
}

pub(crate) fn metric(results: &serde_json::Value, name: &str) -> f64 {
    results["metrics"][name]["value"].as_f64().unwrap_or(0.0)
}

/// What a load gave: datagrams per second sent and received end to end.
pub(crate) struct Load {
    pub(crate) sent: f64,
    pub(crate) received: f64,
}

impl Load {
    fn passes(&self) -> bool {
        self.received >= 0.99 * self.sent
    }
}

pub(crate) fn load(
    system: &System,
    nodes: usize,
    pps: f64,
    seconds: usize,
    out: &Path,
) -> Result<Load> {
    let sets = [
        "kind=netns".to_owned(),
        format!("nodes={nodes}"),
        format!("pps={}", pps as u64),
        format!("seconds={seconds}"),
    ];
    let (results, _) = run(system, &system.chain, &sets, out)?;
    let per_second = |name| metric(&results, name) / seconds as f64;
    Ok(Load { sent: per_second("sent"), received: per_second("received") })
}

/// The largest end-to-end rate, packets per second, of which at least 99 % arrive.
pub(crate) fn critical(
    system: &System,
    nodes: usize,
    seconds: usize,
    near: Option<f64>,
    out: &Path,
) -> Result<f64> {
    const BISECTIONS: usize = 5;
    let mut passed = 0.0_f64;
    let mut offered = near.map_or(2_000.0, |near| near * 0.7);
    let mut last_passed_load = 0.0;
    let mut failed = loop {
        let got = load(system, nodes, offered, seconds, out)?;
        if got.passes() {
            passed = passed.max(got.received);
            last_passed_load = offered;
            // The sender itself cannot do more.
            if got.sent < 0.9 * offered {
                return Ok(passed);
            }
            offered *= if near.is_some() { 1.3 } else { 1.8 };
        } else if last_passed_load > 0.0 || offered < 200.0 {
            break offered;
        } else {
            offered *= 0.5;
        }
    };
    for _ in 0..BISECTIONS {
        let middle = f64::midpoint(last_passed_load, failed);
        let got = load(system, nodes, middle, seconds, out)?;
        if got.passes() {
            passed = passed.max(got.received);
            last_passed_load = middle;
        } else {
            failed = middle;
        }
    }
    Ok(passed)
}

/// Median and 99th percentile of the round-trip time over one link, ms.
pub(crate) fn ping(system: &System, delay: &str, count: usize, out: &Path) -> Result<(f64, f64)> {
    let mut system = system.clone();
    if delay != "0ms" {
        // ns-3 takes its delay from the environment; Tapestry from the topology.
        system.environment.push(("NS3_DELAY_NS", "10000000".to_owned()));
    }
    let echo = visible_in_nodes(Path::new("target/release/examples/echo"))?;
    let sets =
        [format!("delay={delay}"), format!("count={count}"), format!("echo={}", echo.display())];
    let (_, directory) = run(&system, "benches/peers/ping.yaml", &sets, out)?;
    let text = std::fs::read_to_string(directory.join("outputs/ping.n0.out"))?;
    let mut times: Vec<f64> = text
        .lines()
        .filter_map(|line| line.split_once("time=")?.1.split(' ').next()?.parse().ok())
        .collect();
    if times.is_empty() {
        bail!("{}: no ping came back; see {}", system.name, directory.display());
    }
    times.sort_by(f64::total_cmp);
    let at = |share: f64| times[((times.len() - 1) as f64 * share).round() as usize];
    Ok((at(0.5), at(0.99)))
}

/// A process and those of its descendants that run the same program.
pub(crate) fn own_processes(pid: u32) -> Vec<u32> {
    let program = |pid: u32| std::fs::read_link(format!("/proc/{pid}/exe")).unwrap_or_default();
    let own = program(pid);
    let mut found = Vec::new();
    let mut processes = vec![pid];
    while let Some(pid) = processes.pop() {
        if program(pid) == own {
            found.push(pid);
        }
        let tasks = std::fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
        for task in tasks {
            let children = std::fs::read_to_string(task.path().join("children"));
            let children = children.unwrap_or_default();
            processes.extend(children.split_whitespace().filter_map(|c| c.parse::<u32>().ok()));
        }
    }
    found
}

/// The path by which a node finds a program of the host: a node's `/tmp` and `/run` are its own.
fn visible_in_nodes(program: &Path) -> Result<PathBuf> {
    let path = std::fs::canonicalize(program).with_context(|| {
        format!("{} is missing; `make bench-peers` builds it", program.display())
    })?;
    if !path.starts_with("/tmp") && !path.starts_with("/run") {
        return Ok(path);
    }
    let cache = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from);
    let home = std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".cache"));
    let directory = cache.or(home).context("neither XDG_CACHE_HOME nor HOME is set")?;
    std::fs::create_dir_all(&directory)?;
    let copy = directory.join("tapestry-bench-echo");
    std::fs::copy(&path, &copy)?;
    Ok(copy)
}

pub(crate) fn tcp(system: &System, seconds: usize, out: &Path) -> Result<f64> {
    let sets = [format!("seconds={}", seconds.max(2))];
    let (results, _) = run(system, "benches/peers/tcp.yaml", &sets, out)?;
    Ok(metric(&results, "mbit_per_s"))
}

pub(crate) fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted.get(sorted.len() / 2).copied().unwrap_or(0.0)
}
