//! What the kernel counts at the ports' interfaces, kept beyond their end.
//!
//! Purpose: frames that an interface dropped are known to the kernel alone, and it forgets them with the
//! interface, which a node may delete. So the last counters of each are kept: those that the kernel
//! told with the interface's end, or else those that were read last (an interface that moved to a
//! namespace which then ended). A virtual machine behind a bridge has a second interface, QEMU's: frames
//! that it drops, because QEMU does not read them in time, were lost on the emulator's host too.

use std::collections::BTreeMap;

use parking_lot::Mutex;

use crate::dark::DarkDrops;
use crate::meter::{InterfaceCounters, InterfaceMeter, parse, read_all};

/// The interfaces of all ports, in the order of links and endpoints.
#[derive(Default)]
pub(crate) struct Interfaces {
    /// `None` where the port has no interface.
    meters: Vec<Option<InterfaceMeter>>,
    /// Names of QEMU's interfaces in the network namespace of whoever reads, where there are any.
    readers: Vec<Option<String>>,
    seen: Mutex<Seen>,
}

#[derive(Default)]
struct Seen {
    dark: DarkDrops,
    last: BTreeMap<usize, InterfaceCounters>,
    readers: BTreeMap<usize, Total>,
}

/// A counter that begins anew with each interface of the name.
#[derive(Debug, Default)]
struct Total {
    before: u64,
    last: u64,
}

impl Total {
    fn is_now(&mut self, count: u64) {
        if count < self.last {
            self.before += self.last;
        }
        self.last = count;
    }

    fn sum(&self) -> u64 {
        self.before + self.last
    }
}

/// What interfaces count for one port.
#[derive(Debug, Clone, Default)]
pub(crate) struct Counted {
    pub(crate) interface: Option<InterfaceCounters>,
    pub(crate) reader_drops: Option<u64>,
}

impl Interfaces {
    /// Adds those of a port; returns their number.
    pub(crate) fn add(&mut self, meter: Option<InterfaceMeter>, reader: Option<String>) -> usize {
        self.meters.push(meter);
        self.readers.push(reader);
        self.meters.len() - 1
    }

    pub(crate) fn meter(&self, number: usize) -> Option<&InterfaceMeter> {
        self.meters.get(number)?.as_ref()
    }

    /// Notes what these have dropped when their carrier changes.
    pub(crate) fn note_carrier(&self, numbers: &[usize], up: bool) {
        let meters: Vec<_> = numbers.iter().map(|&number| self.meter(number)).collect();
        let mut seen = self.seen.lock();
        for (&number, counters) in numbers.iter().zip(read_all(&meters)) {
            let Some(InterfaceCounters { send_drops, .. }) = counters else { continue };
            let dark = &mut seen.dark;
            if up { dark.end(number, send_drops) } else { dark.begin(number, send_drops) }
        }
    }

    /// All counters now. `told` are the last ones of interfaces that have left, as the kernel told.
    pub(crate) fn read(&self, told: &BTreeMap<usize, InterfaceCounters>) -> Vec<Counted> {
        let meters: Vec<_> = self.meters.iter().map(Option::as_ref).collect();
        let table = if self.readers.iter().any(Option::is_some) {
            std::fs::read_to_string("/proc/thread-self/net/dev").unwrap_or_default()
        } else {
            String::new()
        };
        let now = read_all(&meters);
        let mut seen = self.seen.lock();
        now.into_iter()
            .enumerate()
            .map(|(number, now)| {
                let reader = self.readers[number].as_deref();
                let drops = |name| parse(&table, name).map(|counters| counters.send_drops);
                Counted {
                    interface: seen.interface(number, now.as_ref().or(told.get(&number))),
                    reader_drops: reader.map(|name| seen.reader_drops(number, drops(name))),
                }
            })
            .collect()
    }
}

impl Seen {
    /// The counters of an interface, the last ones if there are none `now`.
    fn interface(
        &mut self,
        number: usize,
        now: Option<&InterfaceCounters>,
    ) -> Option<InterfaceCounters> {
        let sum = |counters: &InterfaceCounters| counters.sent + counters.send_drops;
        if let Some(now) = now
            && self.last.get(&number).is_none_or(|last| sum(last) <= sum(now))
        {
            self.last.insert(number, now.clone());
        }
        let mut counters = self.last.get(&number).cloned()?;
        self.dark.separate(number, &mut counters);
        Some(counters)
    }

    /// What QEMU's interfaces of one name have dropped; `now` is the present one's count.
    fn reader_drops(&mut self, number: usize, now: Option<u64>) -> u64 {
        let total = self.readers.entry(number).or_default();
        if let Some(now) = now {
            total.is_now(now);
        }
        total.sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counters(sent: u64, send_drops: u64) -> InterfaceCounters {
        InterfaceCounters { sent, send_drops, ..Default::default() }
    }

    #[test]
    fn counters_outlive_their_interface() {
        let mut seen = Seen::default();
        let mut drops = |now: Option<InterfaceCounters>| {
            seen.interface(0, now.as_ref()).map(|counters| counters.send_drops)
        };
        assert_eq!(drops(None), None);
        assert_eq!(drops(Some(counters(10, 3))), Some(3));
        assert_eq!(drops(Some(counters(20, 5))), Some(5));
        assert_eq!(drops(None), Some(5));
        // What the kernel told before it was read last says nothing new.
        assert_eq!(drops(Some(counters(15, 4))), Some(5));
    }

    #[test]
    fn another_interface_of_qemu_counts_from_zero() {
        let mut seen = Seen::default();
        let mut drops = |now: Option<u64>| seen.reader_drops(0, now);
        let told: Vec<_> =
            [None, Some(4), Some(6), None, Some(1), Some(2)].into_iter().map(&mut drops).collect();
        assert_eq!(told, [0, 4, 6, 6, 7, 8]);
    }
}
