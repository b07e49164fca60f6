//! CPU time and memory of nodes, from `/proc`.
//!
//! Purpose: what `tapestry top` shows of a node. A virtual machine is one process; a namespace
//! node is every process of its PID namespace, those of namespaces inside it included.
//!
//! CPU time counts processes that have ended too, through the times their parents keep of children
//! they waited for. Assumes `/proc` is mounted. Not told apart: memory that processes share counts
//! once for each of them. Resolution of CPU time: a clock tick (10 ms). Reference: `proc_pid_stat(5)`,
//! `pid_namespaces(7)`.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt;

use nix::unistd::{SysconfVar, sysconf};
use serde::{Deserialize, Serialize};

/// What processes used.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Usage {
    /// CPU time since they started, ns.
    pub cpu_ns: u64,
    /// Resident memory, bytes.
    pub memory_bytes: u64,
}

/// Which processes make up a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Extent {
    /// The process and what it started.
    Process(u32),
    /// Every process in the PID namespace of this one.
    Namespace(u32),
}

/// Usage of each, in their order; `None` where `/proc` does not show the process.
pub fn of(extents: &[Extent]) -> Vec<Option<Usage>> {
    let processes = read_all();
    let units = Units::read();
    // Without a /proc of the sandbox's own, numbers of our own children mean others there.
    let numbers_are_ours = fs::read_link("/proc/self")
        .is_ok_and(|own| own.as_os_str() == &*std::process::id().to_string());
    sum(&processes, extents, numbers_are_ours)
        .into_iter()
        .map(|found| found.map(|ticks_and_pages| units.usage(ticks_and_pages)))
        .collect()
}

/// Usage of this very process, without its children.
pub fn of_self() -> Option<Usage> {
    let stat = parse_stat(&fs::read_to_string("/proc/self/stat").ok()?)?;
    Some(Units::read().usage(Amount { ticks: stat.own_ticks, pages: stat.pages }))
}

/// One process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Process {
    parent: u32,
    /// Inode of its PID namespace, if we may see it.
    namespace: Option<u64>,
    stat: Stat,
}

/// What its `stat` says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Stat {
    parent: u32,
    own_ticks: u64,
    children_ticks: u64,
    pages: u64,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Amount {
    ticks: u64,
    pages: u64,
}

fn read_all() -> BTreeMap<u32, Process> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    entries
        .filter_map(|entry| {
            let pid = entry.file_name().to_str()?.parse().ok()?;
            let stat = parse_stat(&fs::read_to_string(entry.path().join("stat")).ok()?)?;
            let namespace = fs::metadata(entry.path().join("ns/pid")).ok().map(|meta| meta.ino());
            Some((pid, Process { parent: stat.parent, namespace, stat }))
        })
        .collect()
}

/// Reads the text of `/proc/PID/stat`. The name in parentheses may hold anything, parentheses too.
fn parse_stat(text: &str) -> Option<Stat> {
    /// Positions behind the name; `proc_pid_stat(5)` counts from 1 at the PID, so 3 less.
    const PARENT: usize = 1;
    const TIMES: std::ops::Range<usize> = 11..15;
    const PAGES: usize = 21;
    let fields: Vec<&str> = text.get(text.rfind(')')? + 1..)?.split_whitespace().collect();
    let number = |at: usize| fields.get(at)?.parse::<u64>().ok();
    let times: Vec<u64> = TIMES.map(number).collect::<Option<_>>()?;
    Some(Stat {
        parent: u32::try_from(number(PARENT)?).ok()?,
        own_ticks: times[0] + times[1],
        children_ticks: times[2] + times[3],
        pages: number(PAGES)?,
    })
}

/// Adds processes up by the extent they belong to.
fn sum(
    processes: &BTreeMap<u32, Process>,
    extents: &[Extent],
    numbers_are_ours: bool,
) -> Vec<Option<Amount>> {
    let mut by_process = BTreeMap::new();
    let mut by_namespace = BTreeMap::new();
    let mut found = vec![None; extents.len()];
    for (index, extent) in extents.iter().enumerate() {
        match extent {
            Extent::Process(pid) if numbers_are_ours && processes.contains_key(pid) => {
                by_process.insert(*pid, index);
            }
            Extent::Namespace(pid) => {
                let Some(namespace) = processes.get(pid).and_then(|p| p.namespace) else {
                    continue;
                };
                by_namespace.insert(namespace, index);
            }
            Extent::Process(_) => continue,
        }
        found[index] = Some(Amount::default());
    }
    for (&pid, process) in processes {
        let Some(owner) = owner(processes, &by_process, &by_namespace, pid) else { continue };
        let amount = found[owner].get_or_insert_default();
        amount.ticks += process.stat.own_ticks + process.stat.children_ticks;
        amount.pages += process.stat.pages;
    }
    found
}

/// The extent that `pid` or its nearest such ancestor belongs to.
fn owner(
    processes: &BTreeMap<u32, Process>,
    by_process: &BTreeMap<u32, usize>,
    by_namespace: &BTreeMap<u64, usize>,
    mut pid: u32,
) -> Option<usize> {
    // `/proc` is not read in one instant, so parents that seem to go in a circle are thinkable.
    for _ in 0..processes.len() {
        let process = processes.get(&pid)?;
        let of_namespace = || by_namespace.get(&process.namespace?);
        if let Some(owner) = by_process.get(&pid).or_else(of_namespace) {
            return Some(*owner);
        }
        pid = process.parent;
    }
    None
}

/// The kernel's units.
struct Units {
    ticks_per_second: u64,
    page_bytes: u64,
}

impl Units {
    fn read() -> Self {
        let value = |name, usual| match sysconf(name) {
            Ok(Some(value)) if value > 0 => value.cast_unsigned(),
            _ => usual,
        };
        Self {
            ticks_per_second: value(SysconfVar::CLK_TCK, 100),
            page_bytes: value(SysconfVar::PAGE_SIZE, 4096),
        }
    }

    fn usage(&self, amount: Amount) -> Usage {
        let cpu_ns = u128::from(amount.ticks) * 1_000_000_000 / u128::from(self.ticks_per_second);
        Usage {
            cpu_ns: u64::try_from(cpu_ns).unwrap_or(u64::MAX),
            memory_bytes: amount.pages.saturating_mul(self.page_bytes),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A process that used `ticks` of each time and as many pages.
    fn process(parent: u32, namespace: u64, ticks: u64) -> Process {
        let stat = Stat { parent, own_ticks: ticks, children_ticks: ticks, pages: ticks };
        Process { parent, namespace: Some(namespace), stat }
    }

    #[test]
    fn the_stat_of_a_process_with_an_odd_name() {
        let text =
            "42 (a) b (c) S 7 42 42 0 -1 4194560 9 9 9 9 11 12 13 14 20 0 1 0 55 8192 77 1\n";
        let stat = Stat { parent: 7, own_ticks: 23, children_ticks: 27, pages: 77 };
        assert_eq!(parse_stat(text), Some(stat));
        for broken in ["", "42 (a", "42 (a) S 7", "42 (a) S x 1 2 3 4 5 6 7 8 9 1 1 1 1"] {
            assert_eq!(parse_stat(broken), None, "{broken:?}");
        }
    }

    #[test]
    fn nodes_get_their_own_processes_only() {
        let processes = BTreeMap::from([
            (1, process(0, 100, 1 << 0)),
            // A virtual machine with a helper.
            (10, process(1, 100, 1 << 1)),
            (11, process(10, 100, 1 << 2)),
            // A namespace node: process 1, a shell, and one inside a namespace of its own.
            (20, process(1, 200, 1 << 3)),
            (21, process(20, 200, 1 << 4)),
            (22, process(21, 201, 1 << 5)),
            // Somebody else who entered its namespace.
            (30, process(1, 200, 1 << 6)),
            // Parents in a circle.
            (40, process(41, 100, 1 << 7)),
            (41, process(40, 100, 1 << 8)),
        ]);
        let extents = [Extent::Process(10), Extent::Namespace(20), Extent::Namespace(99)];
        let amount = |value| Some(Amount { ticks: 2 * value, pages: value });
        let found = sum(&processes, &extents, true);
        assert_eq!(found, [amount(0b110), amount(0b111_1000 & !0b111), None]);
        let found = sum(&processes, &extents, false);
        assert_eq!(found[0], None, "the numbers mean other processes");
    }

    #[test]
    fn this_process_is_found() {
        let pid = std::process::id();
        let found = of(&[Extent::Process(pid), Extent::Process(u32::MAX), Extent::Namespace(pid)]);
        assert!(found[0].is_some_and(|usage| usage.memory_bytes > 0), "{found:?}");
        assert_eq!(found[1], None);
        assert!(found[2].is_some(), "{found:?}");
        assert!(of_self().is_some_and(|usage| usage.memory_bytes > 0));
    }
}
