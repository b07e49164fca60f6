//! The simulator loop.
//!
//! Purpose: pops the earliest event, hands it to the world with the time it is due, and repeats.
//! Single-threaded; bit-identical for the same world and the same initial events.
//!
//! Assumptions: handlers do not block.
//!
//! Reference: ns-3 `DefaultSimulatorImpl`; for the clock, nexosim's `Clock`.

use std::fmt::Debug;

use thiserror::Error;

use crate::{Clock, EventKey, EventQueue, SimTime, SyncPolicy};

/// What is simulated: it owns all state and handles the events.
pub trait World {
    /// What can happen.
    type Event: Debug;

    /// Handles `event`, which is due at `now`; what follows from it goes to `scheduler`.
    fn handle(&mut self, now: SimTime, event: Self::Event, scheduler: &mut Scheduler<Self::Event>);
}

/// The pending events and the present.
#[derive(Debug)]
pub struct Scheduler<E> {
    queue: EventQueue<E>,
    now: SimTime,
}

impl<E: Debug> Scheduler<E> {
    /// The present.
    pub fn now(&self) -> SimTime {
        self.now
    }

    /// Schedules `event` for `at`, behind all events of that time; refuses the past.
    pub fn schedule_at(&mut self, at: SimTime, event: E) -> Result<EventKey, PastEvent> {
        if at < self.now {
            let event = format!("{event:?}");
            return Err(PastEvent { event, at, now: self.now });
        }
        Ok(self.queue.schedule(at, event))
    }

    /// Schedules `event` for `delay` after the present.
    pub fn schedule_in(&mut self, delay: SimTime, event: E) -> EventKey {
        self.queue.schedule(self.now + delay, event)
    }

    /// Removes a pending event and returns it; `None` if it has run or was cancelled.
    pub fn cancel(&mut self, key: EventKey) -> Option<E> {
        self.queue.cancel(key)
    }

    /// The time of the next event.
    pub fn next_time(&self) -> Option<SimTime> {
        self.queue.peek_time()
    }

    /// Number of pending events.
    pub fn pending(&self) -> usize {
        self.queue.len()
    }
}

/// An event scheduled for a time that has passed.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error(
    "event {event} is scheduled for {at}, but it is {now} already; schedule it for now or later"
)]
pub struct PastEvent {
    /// The event, as its `Debug` shows it.
    pub event: String,
    /// When it should have run.
    pub at: SimTime,
    /// The present.
    pub now: SimTime,
}

/// Why a simulation stopped before its end.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum SimulationError {
    /// Time does not advance.
    #[error(
        "more than {limit} events at {at}, the next being {event}; look for a loop without delay, \
         or raise the limit"
    )]
    Livelock {
        /// The next event, as its `Debug` shows it.
        event: String,
        /// The instant.
        at: SimTime,
        /// Events allowed at one instant.
        limit: u64,
    },
    /// The clock is further ahead than the policy allows.
    #[error(
        "event {event}, due at {at}, is {lateness} late, more than the hard limit of {limit}; \
         lower the load or use best effort"
    )]
    TooLate {
        /// The event, as its `Debug` shows it.
        event: String,
        /// When it was due.
        at: SimTime,
        /// How late it is.
        lateness: SimTime,
        /// The most that is allowed.
        limit: SimTime,
    },
}

/// Runs a [`World`] through its events.
#[derive(Debug)]
pub struct Simulator<W: World> {
    world: W,
    scheduler: Scheduler<W::Event>,
    events: u64,
    /// Events run at the present instant.
    at_instant: u64,
    livelock_limit: u64,
}

impl<W: World> Simulator<W> {
    /// Events at one instant beyond which time is taken to stand still; no network that makes
    /// sense comes near.
    pub const LIVELOCK_LIMIT: u64 = 10_000_000;

    /// A simulator at time zero with no events.
    pub fn new(world: W) -> Self {
        let scheduler = Scheduler { queue: EventQueue::new(), now: SimTime::ZERO };
        Self { world, scheduler, events: 0, at_instant: 0, livelock_limit: Self::LIVELOCK_LIMIT }
    }

    /// The same with another limit on the events of one instant.
    #[must_use]
    pub fn with_livelock_limit(mut self, events: u64) -> Self {
        self.livelock_limit = events;
        self
    }

    /// The present.
    pub fn now(&self) -> SimTime {
        self.scheduler.now
    }

    /// Number of events run so far.
    pub fn events(&self) -> u64 {
        self.events
    }

    /// What is simulated.
    pub fn world(&self) -> &W {
        &self.world
    }

    /// What is simulated, to change it between events.
    pub fn world_mut(&mut self) -> &mut W {
        &mut self.world
    }

    /// The pending events.
    pub fn scheduler(&mut self) -> &mut Scheduler<W::Event> {
        &mut self.scheduler
    }

    /// Takes the world back, dropping the pending events.
    pub fn into_world(self) -> W {
        self.world
    }

    /// Runs the next event and returns when it was due; `None` if none is pending.
    pub fn step(&mut self) -> Result<Option<SimTime>, SimulationError> {
        self.step_due(SimTime::MAX)
    }

    /// Runs all events due by `until`, those of that very instant included; then it is `until`,
    /// unless it was later already.
    pub fn run_until(&mut self, until: SimTime) -> Result<(), SimulationError> {
        while self.step_due(until)?.is_some() {}
        self.scheduler.now = self.scheduler.now.max(until);
        Ok(())
    }

    /// Runs until no event is pending; the present is then the time of the last one.
    pub fn run(&mut self) -> Result<(), SimulationError> {
        while self.step()?.is_some() {}
        Ok(())
    }

    /// As [`run_until`](Self::run_until), but waits for `clock` before each event and stops where
    /// `policy` does not tolerate its lateness; `record` is told the lateness of every event.
    pub fn run_paced(
        &mut self,
        until: SimTime,
        clock: &mut impl Clock,
        policy: SyncPolicy,
        mut record: impl FnMut(SimTime),
    ) -> Result<(), SimulationError> {
        while let Some(at) = self.scheduler.queue.peek_time().filter(|&at| at <= until) {
            let lateness = clock.synchronize(at).lateness();
            record(lateness);
            if let SyncPolicy::HardLimit(limit) = policy
                && !policy.tolerates(lateness)
            {
                let event = self.pop_as_text();
                return Err(SimulationError::TooLate { event, at, lateness, limit });
            }
            self.step()?;
        }
        let _ = clock.synchronize(until);
        self.scheduler.now = self.scheduler.now.max(until);
        Ok(())
    }

    fn step_due(&mut self, until: SimTime) -> Result<Option<SimTime>, SimulationError> {
        let Some(at) = self.scheduler.queue.peek_time().filter(|&at| at <= until) else {
            return Ok(None);
        };
        // Scheduling in the past is refused, so `at` is never before the present.
        if at > self.scheduler.now {
            self.scheduler.now = at;
            self.at_instant = 0;
        }
        if self.at_instant >= self.livelock_limit {
            let event = self.pop_as_text();
            return Err(SimulationError::Livelock { event, at, limit: self.livelock_limit });
        }
        if let Some((at, event)) = self.scheduler.queue.pop() {
            self.at_instant += 1;
            self.events += 1;
            self.world.handle(at, event, &mut self.scheduler);
        }
        Ok(Some(at))
    }

    /// The next event for a message; the simulation ends with that message.
    fn pop_as_text(&mut self) -> String {
        self.scheduler.queue.pop().map_or_else(String::new, |(_, event)| format!("{event:?}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{SyncStatus, VirtualClock};

    /// A counter that ticks with a period until it has counted down, and logs its ticks.
    #[derive(Debug, Default)]
    struct Ticker {
        period: SimTime,
        log: Vec<(SimTime, u32)>,
    }

    impl World for Ticker {
        type Event = u32;

        fn handle(&mut self, now: SimTime, left: u32, scheduler: &mut Scheduler<u32>) {
            self.log.push((now, left));
            if left > 0 {
                scheduler.schedule_in(self.period, left - 1);
            }
        }
    }

    fn ms(millis: u64) -> SimTime {
        SimTime::from_millis(millis)
    }

    fn ticker(period: SimTime, ticks: u32) -> Simulator<Ticker> {
        let mut simulator = Simulator::new(Ticker { period, ..Ticker::default() });
        simulator.scheduler().schedule_at(SimTime::ZERO, ticks).unwrap();
        simulator
    }

    #[test]
    fn stops_exactly_where_told() {
        let mut simulator = ticker(ms(10), 5);
        simulator.run_until(ms(20)).unwrap();
        assert_eq!(simulator.world().log, [(ms(0), 5), (ms(10), 4), (ms(20), 3)]);
        simulator.run_until(ms(25)).unwrap();
        assert_eq!((simulator.now(), simulator.events()), (ms(25), 3));
        simulator.run().unwrap();
        assert_eq!(simulator.now(), ms(50));
        assert_eq!(simulator.step(), Ok(None));
    }

    #[test]
    fn the_past_is_refused_by_name() {
        let mut simulator = ticker(ms(10), 0);
        simulator.run_until(ms(30)).unwrap();
        let error = simulator.scheduler().schedule_at(ms(29), 77).unwrap_err();
        assert_eq!(error, PastEvent { event: "77".into(), at: ms(29), now: ms(30) });
        assert!(simulator.scheduler().schedule_at(ms(30), 78).is_ok());
    }

    #[test]
    fn a_loop_without_delay_is_found() {
        let mut simulator = ticker(SimTime::ZERO, u32::MAX).with_livelock_limit(1_000);
        let error = simulator.run().unwrap_err();
        assert_eq!(
            error,
            SimulationError::Livelock {
                event: (u32::MAX - 1_000).to_string(),
                at: SimTime::ZERO,
                limit: 1_000
            }
        );
        assert_eq!(simulator.events(), 1_000);
        // As many events at one instant as are allowed are no fault.
        assert!(ticker(SimTime::ZERO, 999).with_livelock_limit(1_000).run().is_ok());
    }

    /// A clock on which every event is later than the one before.
    struct Slow(SimTime);

    impl Clock for Slow {
        fn now(&self) -> SimTime {
            self.0
        }

        fn synchronize(&mut self, _: SimTime) -> SyncStatus {
            self.0 += ms(1);
            SyncStatus::OutOfSync(self.0)
        }
    }

    #[test]
    fn a_clock_paces_and_the_policy_decides() {
        let mut virtually = ticker(ms(10), 3);
        virtually
            .run_paced(ms(20), &mut VirtualClock::default(), SyncPolicy::HardLimit(ms(0)), |late| {
                assert_eq!(late, SimTime::ZERO);
            })
            .unwrap();
        assert_eq!((virtually.now(), virtually.events()), (ms(20), 3));

        let mut late = Vec::new();
        let error = ticker(ms(10), 9)
            .run_paced(ms(90), &mut Slow(ms(0)), SyncPolicy::HardLimit(ms(3)), |by| late.push(by))
            .unwrap_err();
        assert_eq!(late, [ms(1), ms(2), ms(3), ms(4)]);
        assert_eq!(
            error,
            SimulationError::TooLate {
                event: "6".into(),
                at: ms(30),
                lateness: ms(4),
                limit: ms(3)
            }
        );
        assert!(
            ticker(ms(10), 9)
                .run_paced(ms(90), &mut Slow(ms(0)), SyncPolicy::BestEffort, |_| ())
                .is_ok()
        );
    }
}
