//! A worker's pulse: how long frames may have waited unread.
//!
//! Purpose: a frame is stamped when it is read, so a worker that stands still (no processor for it, a
//! stopped process) makes frames wait in the kernel without any event being late, and few events are
//! due in a stall, so they weigh little among many. A beat is due every [`PERIOD`], whatever the
//! traffic; its lateness is how late the worker would have served a frame that came then. Beats that
//! a stall has swallowed are made up for, each with the lateness it would have had, so percentiles
//! are shares of time. Reference: G. Tene, "How NOT to Measure Latency" (coordinated omission).

use hdrhistogram::Histogram;
use tapestry_core::SimTime;

use crate::ledger::empty_histogram;

/// Time between two beats: a hundred a second cost an idle worker nothing to speak of.
pub(crate) const PERIOD: SimTime = SimTime::from_millis(10);

/// Lateness of a worker's beats.
#[derive(Debug)]
pub(crate) struct Pulse {
    due: SimTime,
    histogram: Histogram<u64>,
    worst: Option<(SimTime, SimTime)>,
}

impl Pulse {
    /// Beats from `now` on.
    pub(crate) fn new(now: SimTime) -> Self {
        Self { due: now + PERIOD, histogram: empty_histogram(), worst: None }
    }

    /// When the next beat is due.
    pub(crate) fn due(&self) -> SimTime {
        self.due
    }

    /// The worker has come by at `now`. If a beat was due: when, and how late it is.
    pub(crate) fn beat(&mut self, now: SimTime) -> Option<(SimTime, SimTime)> {
        if now < self.due {
            return None;
        }
        let (due, late) = (self.due, now - self.due);
        let most = self.histogram.high();
        let late_ns = late.as_nanos().min(most);
        self.histogram
            .record_correct(late_ns, PERIOD.as_nanos())
            .expect("the value lies within the bounds");
        if self.worst.is_none_or(|(worst, _)| late > worst) {
            self.worst = Some((late, due));
        }
        self.due = now + PERIOD;
        Some((due, late))
    }

    /// The distribution so far.
    pub(crate) fn histogram(&self) -> &Histogram<u64> {
        &self.histogram
    }

    /// The latest beat: by how much, and when it was due.
    pub(crate) fn worst(&self) -> Option<(SimTime, SimTime)> {
        self.worst
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(time: u64) -> SimTime {
        SimTime::from_millis(time)
    }

    #[test]
    fn beats_in_time_are_not_late() {
        let mut pulse = Pulse::new(ms(0));
        assert_eq!(pulse.beat(ms(9)), None);
        assert_eq!(pulse.beat(ms(10)), Some((ms(10), ms(0))));
        assert_eq!(pulse.beat(ms(12)), None);
        assert_eq!(pulse.due(), ms(20));
        assert_eq!(pulse.histogram().len(), 1);
    }

    #[test]
    fn a_stall_counts_by_its_share_of_the_time() {
        let mut pulse = Pulse::new(ms(0));
        for beat in 1..=400 {
            pulse.beat(ms(beat * 10));
        }
        // 1 s of 5 s.
        assert_eq!(pulse.beat(ms(5_010)), Some((ms(4_010), ms(1_000))));
        assert_eq!(pulse.worst(), Some((ms(1_000), ms(4_010))));
        let late = |quantile| ms(pulse.histogram().value_at_quantile(quantile) / 1_000_000);
        assert_eq!(late(0.5), ms(0));
        // A fifth of the time something would have waited, half of that more than half a second.
        assert!(late(0.9) >= ms(480) && late(0.9) <= ms(520), "{}", late(0.9));
        assert!(late(0.99) >= ms(900), "{}", late(0.99));
    }

    #[test]
    fn a_stall_beyond_the_range_is_kept_as_the_largest() {
        let mut pulse = Pulse::new(ms(0));
        pulse.beat(SimTime::from_secs(1_000));
        assert_eq!(pulse.worst().unwrap().0, SimTime::from_secs(1_000) - PERIOD);
        assert!(pulse.histogram().max() >= 100_000_000_000);
    }
}
