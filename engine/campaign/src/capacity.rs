//! Can this host carry the plan? An estimate before hours are spent.
//!
//! Purpose: compares what the points ask for (memory, processors, frames a second) with what was
//! measured on a known machine, scaled to the cores of this one, and says where it will be tight. The
//! verdict of each run says afterwards what was true.
//!
//! Assumes that throughput grows with the number of cores; cores differ by a factor of two or so, and
//! so do these estimates. Not estimated: what commands on the nodes need for themselves.
//!
//! Reference: `docs/performance.md`, sections "Data plane", "Namespace nodes" and "Campaigns".

use std::fs;

use tapestry_lab::host::HostFacts;
use tapestry_topologies::expression::{self, Scope};
use tapestry_topologies::plan::{Plan, Time};
use tapestry_topologies::resolved::{NodeKind, Topology};

/// What QEMU itself takes beside the guest's memory (resident set of an idle guest, less its memory).
const QEMU_OVERHEAD: u64 = 60 << 20;
/// What a namespace node takes, its share of the lab included (1.4 MB of 200).
const NETNS_MEMORY: u64 = 3 << 19;
/// Hop-packets a second that one core carries between namespaces, load generators included (chain of
/// 10 on two cores: 250,000).
const HOP_PACKETS_PER_CORE: f64 = 125_000.0;
/// The same between translated guests (chain of 8 on two cores: 28,000).
const GUEST_HOP_PACKETS_PER_CORE: f64 = 14_000.0;
/// Guests beside each other on one core that were still measured as good (start skew of 8 on two).
pub(crate) const GUESTS_PER_CORE: usize = 4;
/// Seconds of one core that it takes to boot a translated guest (three at once on two cores: 5.7 s).
const BOOT_CORE_SECONDS: f64 = 3.8;

/// What nodes may take to come up, beyond which a run is not usual any more.
const START_SECONDS: f64 = 60.0;

/// What one run asks of the host.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Needs {
    /// Memory of all nodes, bytes.
    pub memory_bytes: u64,
    /// Virtual machines.
    pub guests: usize,
    /// Frames times links a second, where the plan says so.
    pub hop_packets: Option<f64>,
    /// Whether nodes are outside this program, so that what they send cannot be known.
    pub is_outside: bool,
    /// Longest time by the wall clock, seconds: the run's limit, or what its tasks may take.
    pub longest_seconds: f64,
}

impl Needs {
    /// Of one run of a topology.
    pub fn of(plan: &Plan, topology: &Topology) -> Self {
        let tasks: f64 = topology.tasks.iter().map(|task| task.timeout.as_secs_f64()).sum();
        let limit = plan.time_limit.as_secs_f64();
        let longest_seconds = match plan.time {
            Time::Realtime if !topology.tasks.is_empty() => limit.min(tasks + START_SECONDS),
            // Nobody knows how fast a simulation is.
            _ => limit,
        };
        let mut needs = Self { longest_seconds, ..Self::default() };
        for node in &topology.nodes {
            match &node.kind {
                NodeKind::Qemu(qemu) => {
                    needs.guests += 1;
                    needs.memory_bytes += qemu.memory.as_bytes() + QEMU_OVERHEAD;
                }
                NodeKind::Netns => needs.memory_bytes += NETNS_MEMORY,
                _ => continue,
            }
            needs.is_outside = true;
        }
        // In-process nodes carried whatever was asked of them so far.
        if let Some(load) = plan.load.as_ref().filter(|_| needs.is_outside) {
            let mut scope = Scope::new();
            for (name, value) in &topology.params {
                if let Ok(value) = serde_json::from_value(value.clone()) {
                    scope.set(name, value);
                }
            }
            needs.hop_packets =
                expression::evaluate(load, &scope).ok().and_then(|value| value.as_f64());
        }
        needs
    }
}

/// What the host has.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Host {
    /// Logical CPUs.
    pub cpus: usize,
    /// Memory that is free for us, bytes.
    pub memory_bytes: u64,
}

impl Host {
    /// This one, now.
    pub fn now() -> Self {
        let facts = HostFacts::read();
        let meminfo = fs::read_to_string("/proc/meminfo").unwrap_or_default();
        let available = meminfo.lines().find_map(|line| {
            let kib = line.strip_prefix("MemAvailable:")?.split_whitespace().next()?;
            Some(kib.parse::<u64>().ok()? * 1024)
        });
        Self { cpus: facts.cpus, memory_bytes: available.unwrap_or(facts.memory_bytes) }
    }
}

/// Longest time that all runs may take, seconds, repeats of invalid ones aside: runs end when their tasks
/// do, which is mostly sooner.
pub fn longest_seconds(plan: &Plan, points: &[Needs], jobs: usize) -> f64 {
    let block: f64 = points.iter().map(|needs| needs.longest_seconds).sum();
    let first = points.first().map_or(0.0, |needs| needs.longest_seconds);
    let all = block * f64::from(plan.replicates) + first * f64::from(plan.warm_up);
    all / jobs.max(1) as f64
}

/// What is left, seconds: so many runs, as long as those that were made took on average.
pub fn left_seconds(lasted: &[f64], remaining: usize, jobs: usize) -> Option<f64> {
    let mean = crate::stats::describe::mean(lasted)?;
    // The last runs cannot be shared out any more.
    Some((remaining as f64 / jobs.max(1) as f64).ceil() * mean)
}

/// A time for people: `40 s`, `12 min`, `3.5 h`.
pub fn about(seconds: f64) -> String {
    match seconds {
        s if s < 90.0 => format!("{s:.0} s"),
        s if s < 5400.0 => format!("{:.0} min", s / 60.0),
        s => format!("{:.1} h", s / 3600.0),
    }
}

/// What is likely to go wrong with `jobs` runs of these points side by side, most of them `runs`
/// times; empty if nothing is.
pub fn warnings(host: Host, plan: &Plan, points: &[(String, Needs)], jobs: usize) -> Vec<String> {
    let mut found = Vec::new();
    let beside = if jobs > 1 { format!(", {jobs} runs side by side") } else { String::new() };
    let most = |key: fn(&Needs) -> f64| {
        points
            .iter()
            .max_by(|(_, a), (_, b)| key(a).total_cmp(&key(b)))
            .map(|(name, needs)| (name, key(needs)))
    };
    let gib = |bytes: f64| format!("{:.1} GiB", bytes / f64::from(1 << 30));
    if let Some((point, bytes)) = most(|needs| needs.memory_bytes as f64)
        && bytes * jobs as f64 > host.memory_bytes as f64
    {
        found.push(format!(
            "memory: point {point} needs about {}{beside}; {} are available",
            gib(bytes * jobs as f64),
            gib(host.memory_bytes as f64)
        ));
    }
    if let Some((point, guests)) = most(|needs| needs.guests as f64)
        && guests * jobs as f64 > (GUESTS_PER_CORE * host.cpus) as f64
    {
        found.push(format!(
            "processors: point {point} has {guests} virtual machines on {} cores{beside}; more than \
             {GUESTS_PER_CORE} a core wait for each other unless most are idle",
            host.cpus
        ));
    }
    let carried = |needs: &Needs| {
        let core = if needs.guests > 0 { GUEST_HOP_PACKETS_PER_CORE } else { HOP_PACKETS_PER_CORE };
        core * host.cpus as f64
    };
    let share = |needs: &Needs| needs.hop_packets.unwrap_or(0.0) * jobs as f64 / carried(needs);
    if let Some((point, needs)) =
        points.iter().max_by(|(_, a), (_, b)| share(a).total_cmp(&share(b)))
        && share(needs) > 1.0
    {
        let between = if needs.guests > 0 { "virtual machines without KVM" } else { "namespaces" };
        found.push(format!(
            "load: point {point} asks for {:.0} hop-packets/s{beside}; {} cores carry about {:.0} \
             between {between}. Expect losses or invalid runs",
            share(needs) * carried(needs),
            host.cpus,
            carried(needs)
        ));
    }
    if plan.load.is_none() && points.iter().any(|(_, needs)| needs.is_outside) {
        found.push(
            "load: the plan does not say (`load:`) how many hop-packets/s a run asks for, so nobody can tell \
             beforehand whether this host carries them; verdicts tell afterwards"
                .to_owned(),
        );
    }
    let guests: usize = points.iter().map(|(_, needs)| needs.guests).sum();
    let boots = guests as f64 * f64::from(plan.replicates) * BOOT_CORE_SECONDS / host.cpus as f64;
    const LONG: f64 = 600.0;
    if boots > LONG {
        found.push(format!(
            "time: booting virtual machines alone takes about {:.0} min without KVM",
            boots / 60.0
        ));
    }
    found
}

#[cfg(test)]
mod tests;
