//! The kernel's own counters of a TAP interface.
//!
//! Purpose: frames that a node sent but the emulator never read (the TAP's queue was full) are
//! losses too, and only the interface counts them. A node may rename its interface or have it in a
//! namespace of its own, so the counters are found through the TAP's descriptor: its present name
//! (`TUNGETIFF`) in its present namespace (`TUNGETDEVNETNS`), read from `/proc/thread-self/net/dev`
//! by a thread that enters this namespace. Assumes `/proc` is mounted. Not counted: frames dropped
//! by a queueing discipline that the user put on the interface; `tc -s qdisc` shows those.
//! Reference: `proc_pid_net(5)`, `setns(2)`.

use std::os::fd::{AsFd, OwnedFd};

use nix::sched::{CloneFlags, setns};
use nix::sys::stat::{FileStat, fstat, stat};
use serde::Serialize;

use crate::sys;

/// Counters of a TAP interface as the kernel keeps them.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct InterfaceCounters {
    /// Present name of the interface.
    pub name: String,
    /// Frames the node sent that the emulator could read.
    pub sent: u64,
    /// Frames the node sent that the emulator never saw, because the interface's queue was full.
    pub send_drops: u64,
    /// Frames the node sent while its link was down.
    pub without_carrier: u64,
    /// Frames from the emulator that the interface refused (it was down).
    pub receive_drops: u64,
}

/// A way to read a TAP's counters that does not disturb the worker that moves its frames.
///
/// Holds the interface open.
#[derive(Debug)]
pub struct InterfaceMeter {
    tap: OwnedFd,
}

impl InterfaceMeter {
    /// A meter for the interface behind `tap`.
    pub(crate) fn new(tap: OwnedFd) -> Self {
        Self { tap }
    }

    /// The counters now; `None` once the interface was deleted.
    pub fn read(&self) -> Option<InterfaceCounters> {
        read_all(&[Some(self)]).pop().flatten()
    }

    /// Puts the calling thread into the interface's namespace; says which that is, and what the
    /// interface is called there. `None` once it was deleted.
    pub(crate) fn enter(&self) -> Option<(Place, String)> {
        let namespace = sys::tap_namespace(self.tap.as_fd()).ok()?;
        let identity = |s: FileStat| (s.st_dev, s.st_ino);
        let place = fstat(&namespace).map(identity).ok()?;
        if stat("/proc/thread-self/ns/net").map(identity) != Ok(place) {
            setns(&namespace, CloneFlags::CLONE_NEWNET).ok()?;
        }
        Some((place, sys::tap_name(self.tap.as_fd()).ok()?))
    }
}

/// What tells namespaces apart: device and inode.
pub(crate) type Place = (u64, u64);

/// Reads many meters with at most one helper thread; keeps positions.
pub(crate) fn read_all(meters: &[Option<&InterfaceMeter>]) -> Vec<Option<InterfaceCounters>> {
    // Entering a namespace cannot be undone without its descriptor, so it happens on a thread that
    // ends afterwards and never on the caller's.
    std::thread::scope(|scope| {
        let reader = std::thread::Builder::new()
            .name("interface-counters".into())
            .spawn_scoped(scope, || meters.iter().map(|m| m.and_then(read_one)).collect());
        match reader.map(std::thread::ScopedJoinHandle::join) {
            Ok(Ok(counters)) => counters,
            _ => vec![None; meters.len()],
        }
    })
}

/// Reads one meter; leaves the calling thread in the interface's namespace.
fn read_one(meter: &InterfaceMeter) -> Option<InterfaceCounters> {
    let (_, name) = meter.enter()?;
    let table = std::fs::read_to_string("/proc/thread-self/net/dev").ok()?;
    parse(&table, &name)
}

/// Finds `name` in the text of `/proc/net/dev`.
pub(crate) fn parse(table: &str, name: &str) -> Option<InterfaceCounters> {
    /// Columns after the colon: 8 for receive, 8 for transmit, `drop` the fourth of each.
    const RECEIVE_DROPS: usize = 3;
    const SENT: usize = 9;
    const SEND_DROPS: usize = 11;
    table.lines().find_map(|line| {
        let (interface, columns) = line.split_once(':')?;
        if interface.trim() != name {
            return None;
        }
        let columns: Vec<u64> =
            columns.split_whitespace().map(str::parse).collect::<Result<_, _>>().ok()?;
        Some(InterfaceCounters {
            name: name.to_owned(),
            sent: *columns.get(SENT)?,
            send_drops: *columns.get(SEND_DROPS)?,
            // Those who switch carriers know better.
            without_carrier: 0,
            receive_drops: *columns.get(RECEIVE_DROPS)?,
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_of_proc_net_dev() {
        let table = "\
Inter-|   Receive                                                |  Transmit
 face |bytes    packets errs drop fifo frame compressed multicast|bytes    packets errs drop fifo colls carrier compressed
    lo:       0       1    2    3    4     5          6         7        8        9   10   11   12    13      14         15
tap0:1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16
";
        let lo = parse(table, "lo").unwrap();
        assert_eq!((lo.sent, lo.send_drops, lo.receive_drops), (9, 11, 3));
        let tap = parse(table, "tap0").unwrap();
        assert_eq!((tap.sent, tap.send_drops, tap.receive_drops), (10, 12, 4));
        assert_eq!(parse(table, "tap"), None);
        assert_eq!(parse("tap0: x", "tap0"), None);
    }
}
