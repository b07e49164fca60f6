//! Frames that interfaces dropped because their link was down.
//!
//! The kernel counts them together with those that found the interface's queue full; only the time
//! tells them apart.

use std::collections::BTreeMap;

use crate::meter::InterfaceCounters;

/// What each interface dropped without carrier, by number of its meter.
#[derive(Debug, Default)]
pub(crate) struct DarkDrops(BTreeMap<usize, Dark>);

#[derive(Debug, Default)]
struct Dark {
    /// Drops counted when the carrier was taken away; `None` while it is there.
    since: Option<u64>,
    /// Drops in the times without carrier that have ended.
    total: u64,
}

impl DarkDrops {
    /// The interface has lost its carrier, having dropped so many.
    pub(crate) fn begin(&mut self, meter: usize, dropped: u64) {
        self.0.entry(meter).or_default().since.get_or_insert(dropped);
    }

    /// The interface has its carrier again.
    pub(crate) fn end(&mut self, meter: usize, dropped: u64) {
        if let Some(dark) = self.0.get_mut(&meter)
            && let Some(since) = dark.since.take()
        {
            dark.total += dropped.saturating_sub(since);
        }
    }

    /// Takes what was dropped without carrier out of the other drops.
    pub(crate) fn separate(&self, meter: usize, counters: &mut InterfaceCounters) {
        let Some(dark) = self.0.get(&meter) else { return };
        let now = dark.since.map_or(0, |since| counters.send_drops.saturating_sub(since));
        counters.without_carrier = dark.total + now;
        counters.send_drops = counters.send_drops.saturating_sub(counters.without_carrier);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn drops_are_told_apart_by_the_time_of_the_carrier() {
        let counters = |send_drops| InterfaceCounters { send_drops, ..Default::default() };
        let mut dark = DarkDrops::default();
        let of = |dark: &DarkDrops, dropped| {
            let mut counters = counters(dropped);
            dark.separate(0, &mut counters);
            (counters.send_drops, counters.without_carrier)
        };
        assert_eq!(of(&dark, 5), (5, 0));
        dark.begin(0, 5);
        dark.begin(0, 6);
        assert_eq!(of(&dark, 9), (5, 4));
        dark.end(0, 10);
        dark.end(0, 11);
        assert_eq!(of(&dark, 13), (8, 5));
        dark.begin(0, 13);
        assert_eq!(of(&dark, 14), (8, 6));
    }
}
