//! The wall clock of a run.
//!
//! Purpose: maps the host's monotonic clock onto the run's time, zero at the start of the run.
//! All workers of a run share one origin, so times from different workers compare. Assumes that
//! `CLOCK_MONOTONIC` is the same on all cores (Linux guarantees it). Not modelled: adjustment to
//! the date; rates are those of `CLOCK_MONOTONIC`, which NTP may slew by up to 500 ppm.
//! Reference: `clock_gettime(2)`.

use std::time::{Duration, SystemTime};

use nix::time::{ClockId, clock_gettime};
use tapestry_core::{Clock, SimTime, SyncStatus};

/// Nanoseconds of `CLOCK_MONOTONIC` since the start of the run. Copies share the origin.
#[derive(Debug, Clone, Copy)]
pub struct WallClock {
    origin_ns: u64,
}

impl WallClock {
    /// A clock that reads zero now.
    pub fn start() -> Self {
        Self { origin_ns: monotonic_ns() }
    }

    /// What the date was when this clock read zero, since 1970.
    pub(crate) fn epoch(self) -> SimTime {
        let date = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let nanos = u64::try_from(date.as_nanos()).unwrap_or(u64::MAX);
        SimTime::from_nanos(nanos.saturating_sub(self.now().as_nanos()))
    }
}

impl Clock for WallClock {
    #[inline]
    fn now(&self) -> SimTime {
        SimTime::from_nanos(monotonic_ns().saturating_sub(self.origin_ns))
    }

    /// Sleeps until `deadline`. Workers do not use it: their waits can be interrupted.
    fn synchronize(&mut self, deadline: SimTime) -> SyncStatus {
        let late = self.now() - deadline;
        loop {
            let ahead = deadline - self.now();
            if ahead == SimTime::ZERO {
                break;
            }
            std::thread::sleep(Duration::from(ahead));
        }
        if late == SimTime::ZERO { SyncStatus::Synchronized } else { SyncStatus::OutOfSync(late) }
    }
}

fn monotonic_ns() -> u64 {
    let time = clock_gettime(ClockId::CLOCK_MONOTONIC)
        .expect("CLOCK_MONOTONIC exists on every Linux kernel");
    time.tv_sec() as u64 * 1_000_000_000 + time.tv_nsec() as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn synchronize_never_returns_early_and_reports_a_missed_deadline() {
        let mut clock = WallClock::start();
        let deadline = clock.now() + SimTime::from_millis(2);
        let _ = clock.synchronize(deadline);
        assert!(clock.now() >= deadline);
        let status = clock.synchronize(SimTime::ZERO);
        assert!(status.lateness() >= deadline);
    }

    #[test]
    fn the_epoch_is_the_date_of_the_start() {
        let clock = WallClock::start();
        let date = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
        std::thread::sleep(Duration::from_millis(2));
        // A minute's grace for a machine that sets its date meanwhile.
        assert!(clock.epoch().as_secs_f64() - date.as_secs_f64() < 60.0);
        assert!(date.as_secs_f64() - clock.epoch().as_secs_f64() < 60.0);
    }

    #[test]
    fn copies_share_the_origin() {
        let clock = WallClock::start();
        let copy = clock;
        let before = clock.now();
        assert!(copy.now() >= before);
    }
}
