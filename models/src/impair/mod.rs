//! Impairments: what one direction of a link does to frames beyond a constant rate and delay.
//!
//! Purpose: [`Impairer`] is one direction. A frame passes these stations in this order, whatever
//! the order in the topology file:
//!
//! 1. the transmitter: rate with framing, token bucket or trace ([`Impairer::finish`]);
//! 2. slots, in which frames collect;
//! 3. loss (or ECN mark), wrong bits, duplication;
//! 4. delay with jitter, or none for a frame that is reordered.
//!
//! So a lost frame has used the link's capacity, as on a real wire and unlike netem, which loses
//! frames before they are sent; a duplicate has not. Loss and delay commute: every model draws for
//! every frame from a stream of its own, so that switching one on changes no draw of another, and
//! a lost frame keeps its place in the order.
//!
//! Assumptions: without reordering by name, frames arrive in the order of sending: one that would
//! overtake arrives together with the one before it. A change of parameters counts for frames that
//! are not on the wire yet.
//!
//! Not modelled: a delay that depends on a frame's length other than by its rate.
//!
//! Reference: tc-netem(8), the kernel's `sch_netem.c`; each model names its own.

mod chance;
mod delay;
mod errors;
mod loss;
mod pace;
mod slots;
mod streams;

use tapestry_core::link::{Jitter, LinkParameters, Reorder, Schedule, ScheduledRate, Slots, Step};
use tapestry_core::{DataRate, RandomStream, SimTime};

use chance::Coin;
use delay::JitterModel;
use errors::replace;
pub(crate) use errors::{Errors, Outcome};
use pace::Pacer;
use slots::SlotGate;
pub(crate) use streams::Named;

/// One direction of a point-to-point link.
#[derive(Debug)]
pub(crate) struct Impairer {
    pacer: Pacer,
    /// The rate while no schedule sets one.
    nominal_rate: Option<DataRate>,
    /// The schedule's, when the transmitter turned to the latest frame.
    scheduled_rate: Option<DataRate>,
    schedule: Option<(Schedule, Cursor)>,
    slots: Option<(Slots, SlotGate)>,
    errors: Errors,
    delay: SimTime,
    jitter: Option<(Jitter, JitterModel)>,
    reordering: bool,
    reorder: Option<(Reorder, Reorderer)>,
    slot_random: RandomStream,
    jitter_random: RandomStream,
    reorder_random: RandomStream,
}

/// A frame on its way.
#[derive(Debug)]
pub(crate) struct Passage {
    pub(crate) outcome: Outcome,
    /// When it reaches the other end, or would have.
    pub(crate) arrival: SimTime,
    pub(crate) reordered: bool,
}

impl Impairer {
    /// A direction that obeys these parameters from `now` on; `frame_bytes` is the longest frame's
    /// length.
    pub(crate) fn new(
        now: SimTime,
        named: &Named<'_>,
        frame_bytes: usize,
        parameters: &LinkParameters,
    ) -> Self {
        let mut this = Self {
            pacer: Pacer::new(now, parameters),
            nominal_rate: None,
            scheduled_rate: None,
            schedule: None,
            slots: None,
            errors: Errors::new(named, frame_bytes),
            delay: parameters.delay,
            jitter: None,
            reordering: false,
            reorder: None,
            slot_random: named.stream("slot"),
            jitter_random: named.stream("jitter"),
            reorder_random: named.stream("reorder"),
        };
        this.set(now, parameters);
        this
    }

    /// Obeys these parameters from `now` on, for frames that are not on the wire yet. Models whose
    /// parameters stay the same keep their state, and all go on in their streams.
    pub(crate) fn set(&mut self, now: SimTime, parameters: &LinkParameters) {
        self.pacer.set(now, parameters);
        self.nominal_rate = parameters.nominal_rate();
        self.scheduled_rate = None;
        self.delay = parameters.delay;
        self.reordering = parameters.reordering;
        self.errors.set(parameters);
        replace(&mut self.schedule, parameters.schedule.as_ref(), |_| Cursor::new(now));
        replace(&mut self.slots, parameters.slots.as_ref(), |slots| {
            SlotGate::new(now, slots, &mut self.slot_random)
        });
        replace(&mut self.jitter, parameters.jitter.as_ref(), JitterModel::new);
        replace(&mut self.reorder, parameters.reorder.as_ref(), Reorderer::new);
    }

    /// When the transmission of a frame of `len` bytes ends to which the transmitter turns at
    /// `now`.
    pub(crate) fn finish(&mut self, now: SimTime, len: usize) -> SimTime {
        let step = self.step(now);
        self.scheduled_rate = step.rate.and_then(ScheduledRate::limit);
        self.pacer.finish(now, len, step.rate)
    }

    /// The rate by which the queue counts its time: that of the frame in transmission where a
    /// schedule sets it, else the nominal one.
    pub(crate) fn queue_rate(&self) -> Option<DataRate> {
        self.scheduled_rate.or(self.nominal_rate)
    }

    /// A frame has been sent at `now`; `last` is the latest arrival in this direction.
    pub(crate) fn pass(
        &mut self,
        now: SimTime,
        last: &mut SimTime,
        frame: crate::Frame,
    ) -> Passage {
        let step = self.step(now);
        let len = frame.len();
        let departure = match &mut self.slots {
            None => now,
            Some((slots, gate)) => gate.departure(now, slots, &mut self.slot_random, len),
        };
        let outcome = self.errors.strike(frame, step.loss);
        let constant = step.delay.unwrap_or(self.delay);
        let delay = match &mut self.jitter {
            None => constant,
            Some((_, jitter)) => {
                let nanos = jitter.next_nanos(&mut self.jitter_random);
                SimTime::from_nanos(constant.as_nanos().saturating_add_signed(nanos))
            }
        };
        let reordered = match &mut self.reorder {
            None => false,
            Some((_, reorderer)) => reorderer.skips(&mut self.reorder_random),
        };
        if reordered {
            return Passage { outcome, arrival: departure, reordered };
        }
        let mut arrival = departure + delay;
        if !self.reordering {
            arrival = arrival.max(*last);
        }
        *last = arrival.max(*last);
        Passage { outcome, arrival, reordered }
    }

    /// What the schedule says at `now`.
    fn step(&mut self, now: SimTime) -> Step {
        match &mut self.schedule {
            None => Step::default(),
            Some((schedule, cursor)) => cursor.step(now, schedule),
        }
    }
}

/// A place in a schedule.
#[derive(Debug)]
struct Cursor {
    origin: SimTime,
    step: Step,
    /// The step holds from the first of these times until before the second.
    holds: [SimTime; 2],
}

impl Cursor {
    fn new(origin: SimTime) -> Self {
        Self { origin, step: Step::default(), holds: [SimTime::ZERO; 2] }
    }

    fn step(&mut self, now: SimTime, schedule: &Schedule) -> Step {
        let [from, until] = self.holds;
        if now < from || now >= until {
            self.seek(now, schedule);
        }
        self.step
    }

    fn seek(&mut self, now: SimTime, schedule: &Schedule) {
        let since = now.saturating_sub(self.origin);
        let repeat = schedule.repeat.filter(|&repeat| repeat > SimTime::ZERO);
        let time = match repeat {
            Some(repeat) => SimTime::from_nanos(since.as_nanos() % repeat.as_nanos()),
            None => since,
        };
        let steps = &schedule.steps;
        let next = steps.partition_point(|step| step.time <= time);
        let begin = now.saturating_sub(time);
        let end = steps.get(next).map(|step| step.time).into_iter().chain(repeat).min();
        let until = end.map_or(SimTime::MAX, |end| begin.saturating_add(end));
        // Before the first step the link's own parameters hold.
        let present = next.checked_sub(1).and_then(|at| steps.get(at));
        let from = present.map_or(begin, |step| begin.saturating_add(step.time));
        self.step = present.copied().unwrap_or_default();
        self.holds = [from, until];
    }
}

/// Chooses the frames that skip the delay.
#[derive(Debug)]
struct Reorderer {
    coin: Coin,
    gap: u32,
    /// Frames since the last one that skipped.
    waited: u32,
}

impl Reorderer {
    fn new(reorder: &Reorder) -> Self {
        Self { coin: Coin::new(&reorder.chance), gap: reorder.gap.max(1), waited: 0 }
    }

    /// As netem: within the gap no number is drawn.
    fn skips(&mut self, random: &mut RandomStream) -> bool {
        let skips = self.waited >= self.gap - 1 && self.coin.toss(random);
        self.waited = if skips { 0 } else { self.waited.saturating_add(1) };
        skips
    }
}

/// The errors of one receiver on a shared medium.
#[derive(Debug)]
pub(crate) struct ReceiveErrors(Errors);

impl ReceiveErrors {
    pub(crate) fn new(named: &Named<'_>, frame_bytes: usize, parameters: &LinkParameters) -> Self {
        let mut errors = Errors::new(named, frame_bytes);
        errors.set(parameters);
        Self(errors)
    }

    pub(crate) fn set(&mut self, parameters: &LinkParameters) {
        self.0.set(parameters);
    }

    pub(crate) fn strike(&mut self, frame: crate::Frame) -> Outcome {
        self.0.strike(frame, None)
    }
}

#[cfg(test)]
mod tests;
