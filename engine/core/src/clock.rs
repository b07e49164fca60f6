//! The clock that paces a simulation.
//!
//! Purpose: the simulator announces the time of the next event; the clock blocks until then and
//! says whether it kept up. The wall clock lives in `tapestry-realtime`.

use crate::SimTime;

/// Paces simulated time. Implementations may block.
pub trait Clock {
    /// The time now.
    fn now(&self) -> SimTime;

    /// Returns at `deadline`, or at once if it has passed, and says by how much it was missed.
    fn synchronize(&mut self, deadline: SimTime) -> SyncStatus;
}

/// Whether a clock kept up with a deadline.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[must_use]
pub enum SyncStatus {
    /// The deadline was met.
    Synchronized,
    /// The deadline had passed by this much when `synchronize` was called.
    OutOfSync(SimTime),
}

impl SyncStatus {
    /// By how much the deadline was missed; zero when it was met.
    pub fn lateness(self) -> SimTime {
        match self {
            Self::Synchronized => SimTime::ZERO,
            Self::OutOfSync(lateness) => lateness,
        }
    }
}

/// The clock of virtual time: it jumps to every deadline and is never late.
#[derive(Debug, Clone, Copy, Default)]
pub struct VirtualClock {
    now: SimTime,
}

impl Clock for VirtualClock {
    fn now(&self) -> SimTime {
        self.now
    }

    fn synchronize(&mut self, deadline: SimTime) -> SyncStatus {
        self.now = self.now.max(deadline);
        SyncStatus::Synchronized
    }
}
