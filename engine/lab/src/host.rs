//! What the host did during a run: CPU, steal, memory — the part of the verdict that no model sees.
//!
//! Reads `/proc/stat`, `/proc/meminfo`, `/proc/loadavg` and `/proc/cpuinfo`; reference: `proc(5)`.
//! CPU figures are of the whole machine, because whatever else it runs competes with the lab.

use std::fs;

use serde::{Deserialize, Serialize};

/// The machine a run was made on.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct HostFacts {
    /// Host name.
    pub hostname: String,
    /// Kernel release.
    pub kernel: String,
    /// CPU model name.
    pub cpu_model: String,
    /// Logical CPUs.
    pub cpus: usize,
    /// Memory in bytes.
    pub memory_bytes: u64,
}

impl HostFacts {
    /// Reads them; what cannot be read is empty or 0.
    pub fn read() -> Self {
        let read = |path| fs::read_to_string(path).unwrap_or_default();
        let cpuinfo = read("/proc/cpuinfo");
        let cpu_model = cpuinfo
            .lines()
            .find_map(|line| line.strip_prefix("model name")?.split_once(':'))
            .map_or(String::new(), |(_, name)| name.trim().to_owned());
        Self {
            hostname: read("/proc/sys/kernel/hostname").trim().to_owned(),
            kernel: read("/proc/sys/kernel/osrelease").trim().to_owned(),
            cpu_model,
            cpus: std::thread::available_parallelism().map_or(1, usize::from),
            memory_bytes: meminfo_bytes(&read("/proc/meminfo"), "MemTotal:"),
        }
    }
}

/// Cumulated CPU times of the machine, in clock ticks.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CpuTicks {
    /// Doing something.
    pub busy: u64,
    /// Doing nothing, or waiting for a disk.
    pub idle: u64,
    /// Given to others by the hypervisor.
    pub steal: u64,
}

impl CpuTicks {
    /// The times now; zeros if they cannot be read.
    pub fn now() -> Self {
        parse_ticks(&fs::read_to_string("/proc/stat").unwrap_or_default())
    }

    /// Shares (0–1) of all CPUs' time since `earlier` that were busy and that were stolen.
    pub fn shares_since(self, earlier: Self) -> (f64, f64) {
        let busy = self.busy.saturating_sub(earlier.busy) as f64;
        let idle = self.idle.saturating_sub(earlier.idle) as f64;
        let steal = self.steal.saturating_sub(earlier.steal) as f64;
        let total = (busy + idle + steal).max(1.0);
        (busy / total, steal / total)
    }
}

/// A reading to measure from.
#[derive(Debug, Clone)]
pub struct HostMeter {
    start: CpuTicks,
}

/// The host's share in a run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct HostUsage {
    /// Share (0–1) of all CPUs' time that was not idle.
    pub cpu: f64,
    /// Share (0–1) of all CPUs' time that the hypervisor gave to others.
    pub steal: f64,
    /// Runnable threads at the end of the run (one instant).
    pub runnable: u64,
    /// Memory available at the end of the run, bytes.
    pub memory_available_bytes: u64,
}

impl HostMeter {
    /// Starts measuring.
    pub fn start() -> Self {
        Self { start: CpuTicks::now() }
    }

    /// Share (0–1) of all CPUs' time since the start that the hypervisor gave to others.
    pub fn steal(&self) -> f64 {
        CpuTicks::now().shares_since(self.start).1
    }

    /// What happened since the start.
    pub fn usage(&self) -> HostUsage {
        let (cpu, steal) = CpuTicks::now().shares_since(self.start);
        let loadavg = fs::read_to_string("/proc/loadavg").unwrap_or_default();
        let runnable = loadavg
            .split_whitespace()
            .nth(3)
            .and_then(|field| field.split_once('/')?.0.parse().ok())
            .unwrap_or(0);
        let meminfo = fs::read_to_string("/proc/meminfo").unwrap_or_default();
        HostUsage {
            cpu,
            steal,
            runnable,
            memory_available_bytes: meminfo_bytes(&meminfo, "MemAvailable:"),
        }
    }
}

/// The line `cpu user nice system idle iowait irq softirq steal …` of `/proc/stat`.
fn parse_ticks(stat: &str) -> CpuTicks {
    let Some(line) = stat.lines().find_map(|line| line.strip_prefix("cpu ")) else {
        return CpuTicks::default();
    };
    let field: Vec<u64> = line.split_whitespace().map(|f| f.parse().unwrap_or(0)).collect();
    let at = |i: usize| field.get(i).copied().unwrap_or(0);
    CpuTicks { busy: at(0) + at(1) + at(2) + at(5) + at(6), idle: at(3) + at(4), steal: at(7) }
}

fn meminfo_bytes(meminfo: &str, key: &str) -> u64 {
    let kib = meminfo
        .lines()
        .find_map(|line| line.strip_prefix(key)?.split_whitespace().next()?.parse::<u64>().ok());
    kib.unwrap_or(0) * 1024
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn proc_stat_is_read_as_documented() {
        let ticks = parse_ticks("cpu  10 1 5 100 20 2 3 7 0 0\ncpu0 1 2 3\n");
        assert_eq!(ticks, CpuTicks { busy: 21, idle: 120, steal: 7 });
        assert_eq!(parse_ticks("nonsense"), CpuTicks::default());
        assert_eq!(meminfo_bytes("MemTotal:  2 kB\n", "MemTotal:"), 2048);
    }

    #[test]
    fn this_host_has_facts() {
        let facts = HostFacts::read();
        assert!(facts.cpus >= 1 && facts.memory_bytes > 0 && !facts.kernel.is_empty());
        let usage = HostMeter::start().usage();
        assert!((0.0..=1.0).contains(&usage.cpu) && (0.0..=1.0).contains(&usage.steal));
    }
}
