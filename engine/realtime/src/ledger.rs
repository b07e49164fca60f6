//! The lateness ledger.
//!
//! Purpose: how far the run's timing can be trusted. Two kinds of event are recorded, each as
//! executed − scheduled in nanoseconds: a *timer* of a link (executed when the worker runs it) and
//! a *departure* (executed when the frame is handed to the node's interface; scheduled for the
//! time at which the model released it). Assumes that what happens to a frame before the worker
//! reads it is not the ledger's business: frames lost there are in the interface's counters.
//! Not recorded: time a frame waited unread in the kernel; [`crate::pulse`] bounds it. Reference: nexosim's `SyncStatus`,
//! ns-3's `RealtimeSimulatorImpl` hard limit.

use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use serde::Serialize;
use tapestry_core::{Clock, SimTime};

use crate::clock::WallClock;

/// Largest lateness told apart (longer ones count as this): far beyond any sensible hard limit.
const HIGHEST_NS: u64 = 100_000_000_000;
/// Two significant digits keep the histogram within the second-level cache.
const SIGNIFICANT_DIGITS: u8 = 2;

/// A histogram of lateness, in nanoseconds.
pub(crate) fn empty_histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1, HIGHEST_NS, SIGNIFICANT_DIGITS).expect("the bounds are valid")
}

/// Lateness of one worker's events. `E` names an event.
#[derive(Debug, Clone)]
pub(crate) struct Ledger<E> {
    histogram: Histogram<u64>,
    worst: Option<(SimTime, E)>,
}

impl<E: Copy> Ledger<E> {
    /// An empty ledger.
    pub(crate) fn new() -> Self {
        Self { histogram: empty_histogram(), worst: None }
    }

    /// Records `count` events that were due at `due` and executed at `executed`.
    ///
    /// Returns how late they were; an event is never early (that counts as 0).
    pub(crate) fn record(
        &mut self,
        due: SimTime,
        executed: SimTime,
        count: u64,
        event: E,
    ) -> SimTime {
        let late_ns = executed.as_nanos().saturating_sub(due.as_nanos());
        self.histogram.saturating_record_n(late_ns, count);
        let late = SimTime::from_nanos(late_ns);
        if self.worst.is_none_or(|(worst, _)| late > worst) {
            self.worst = Some((late, event));
        }
        late
    }

    /// The worst event so far.
    pub(crate) fn worst(&self) -> Option<(SimTime, E)> {
        self.worst
    }

    /// The distribution so far.
    pub(crate) fn histogram(&self) -> &Histogram<u64> {
        &self.histogram
    }
}

/// Time per entry of a ledger, for the bench that sets it in relation to a worker's whole time: a
/// record of its own for each event and a look at the clock for each record, the most the worker
/// ever does. Lateness varies from 0 to 66 µs.
#[doc(hidden)]
pub fn time_per_record(records: u32) -> Duration {
    let clock = WallClock::start();
    let mut ledger = Ledger::new();
    let start = Instant::now();
    for number in 0..records {
        let now = clock.now();
        // Knuth's multiplicative hash: no two neighbours in one bucket.
        let late = SimTime::from_nanos(u64::from(number.wrapping_mul(2_654_435_761) >> 16));
        ledger.record(now.saturating_sub(late), now, 1, number);
    }
    std::hint::black_box(&ledger);
    start.elapsed() / records.max(1)
}

/// The histogram as pairs of lateness (ns, each twice the one before) and how many were that late or
/// less, but later than the one before.
pub(crate) fn buckets(histogram: &Histogram<u64>) -> Vec<(u64, u64)> {
    histogram
        .iter_log(1024, 2.0)
        .map(|step| (step.value_iterated_to(), step.count_since_last_iteration()))
        .collect()
}

/// A distribution of lateness, in nanoseconds.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Lateness {
    /// Events recorded.
    pub events: u64,
    /// Mean.
    pub mean_ns: u64,
    /// Median.
    pub p50_ns: u64,
    /// 90th percentile.
    pub p90_ns: u64,
    /// 99th percentile.
    pub p99_ns: u64,
    /// 99.9th percentile.
    pub p999_ns: u64,
    /// Largest.
    pub max_ns: u64,
    /// The event that was latest, if any was recorded.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_event: Option<String>,
}

impl Lateness {
    /// Summarises `histogram`; `worst` names the latest event and says by how much.
    pub(crate) fn new(histogram: &Histogram<u64>, worst: Option<(SimTime, String)>) -> Self {
        // Percentiles are upper edges of their bucket; the exact maximum bounds them.
        let (max_ns, max_event) = worst.map_or((0, None), |(t, e)| (t.as_nanos(), Some(e)));
        let at = |quantile: f64| histogram.value_at_quantile(quantile).min(max_ns);
        Self {
            events: histogram.len(),
            mean_ns: histogram.mean() as u64,
            p50_ns: at(0.5),
            p90_ns: at(0.9),
            p99_ns: at(0.99),
            p999_ns: at(0.999),
            max_ns,
            max_event,
        }
    }

    /// Joins the ledgers of several workers.
    pub(crate) fn merged<'a>(
        parts: impl Iterator<Item = (&'a Histogram<u64>, Option<(SimTime, String)>)>,
    ) -> Self {
        let mut histogram = empty_histogram();
        let mut worst: Option<(SimTime, String)> = None;
        for (part, its_worst) in parts {
            histogram.add(part).expect("all ledgers have the same bounds");
            if let Some(candidate) = its_worst
                && worst.as_ref().is_none_or(|(late, _)| candidate.0 > *late)
            {
                worst = Some(candidate);
            }
        }
        Self::new(&histogram, worst)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ns(time: u64) -> SimTime {
        SimTime::from_nanos(time)
    }

    #[test]
    fn percentiles_of_a_known_distribution() {
        let mut ledger = Ledger::new();
        for late in 1..=100 {
            ledger.record(ns(1000), ns(1000 + late), 1, "x");
        }
        ledger.record(ns(1000), ns(900), 1, "early");
        let summary = Lateness::new(ledger.histogram(), Some((ns(100), "x".into())));
        assert_eq!(summary.events, 101);
        assert_eq!((summary.p50_ns, summary.p99_ns, summary.max_ns), (50, 99, 100));
        assert_eq!(ledger.worst(), Some((ns(100), "x")));
    }

    #[test]
    fn merging_adds_events_and_keeps_the_worst() {
        let mut a = Ledger::new();
        let mut b = Ledger::new();
        a.record(ns(0), ns(10), 3, 'a');
        b.record(ns(0), ns(5_000_000), 1, 'b');
        let named = |l: &Ledger<char>| l.worst().map(|(t, e)| (t, e.to_string()));
        let merged =
            Lateness::merged([(a.histogram(), named(&a)), (b.histogram(), named(&b))].into_iter());
        assert_eq!(merged.events, 4);
        assert_eq!(merged.max_ns, 5_000_000);
        assert_eq!(merged.max_event.as_deref(), Some("b"));
        assert_eq!(merged.p50_ns, 10);
    }

    #[test]
    fn a_lateness_beyond_the_range_is_kept_as_the_largest() {
        let mut ledger = Ledger::new();
        let late = ledger.record(ns(0), ns(u64::MAX), 1, ());
        assert_eq!(late, ns(u64::MAX));
        assert_eq!(ledger.histogram().len(), 1);
    }
}
