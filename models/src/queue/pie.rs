//! PIE: drops at random at the tail so that frames stay for about a target time.
//!
//! Purpose: every `update` the drop probability changes by
//! `α (delay − target) + β (delay − delay before)`, scaled down where it is small, by at most 2 %
//! where it is 10 % or more; it decays where there is no delay. Bursts pass for `max_burst` after a
//! quiet time.
//!
//! Assumptions: the delay is that of the last frame that left, none if it left the queue empty
//! (RFC 8033, section 5.2, measured by time stamps). Updates are due at multiples of `update` and
//! are made up for at the next arrival or departure, which gives the same numbers as a timer:
//! nothing they depend on changes in between.
//!
//! Not modelled: the estimate of the departure rate, switching PIE off on short queues (5.3).
//!
//! Reference: RFC 8033; ns-3 `PieQueueDisc`.

use rand::RngExt;
use tapestry_core::{DataRate, RandomStream, SimTime};

use super::drop_tail::Room;
use super::packet::Marker;
use super::store::{Fifo, Queued, Store};
use super::{PieConfig, QueueDisc, QueueEvent, Report};
use crate::Frame;
use crate::counters::DropReason;

#[derive(Debug)]
pub(crate) struct Pie {
    room: Room,
    controller: Controller,
    marker: Option<Marker>,
    ecn_limit: f64,
    random: RandomStream,
    store: Store,
    fifo: Fifo,
}

/// The drop probability over time.
#[derive(Debug)]
pub(super) struct Controller {
    target: SimTime,
    update: SimTime,
    max_burst: SimTime,
    alpha: f64,
    beta: f64,
    derandomise: bool,
    next_update: SimTime,
    probability: f64,
    /// Probability accumulated since the last drop.
    accumulated: f64,
    burst_allowance: SimTime,
    delay: SimTime,
    delay_before: SimTime,
}

/// Bytes below which nothing is dropped: two frames of the RFC's mean size.
const LEAST_BYTES: u64 = 2 * 1_000;

/// Below these probabilities the step is divided by that much (RFC 8033, section 4.2).
const SCALE: [(f64, f64); 6] = [
    (0.000_001, 2_048.0),
    (0.000_01, 512.0),
    (0.000_1, 128.0),
    (0.001, 32.0),
    (0.01, 8.0),
    (0.1, 2.0),
];

impl Controller {
    pub(super) fn new(config: &PieConfig) -> Self {
        Self {
            target: config.target,
            update: config.update,
            max_burst: config.max_burst,
            alpha: config.alpha_micro_hz as f64 / 1e6,
            beta: config.beta_micro_hz as f64 / 1e6,
            derandomise: config.derandomise,
            next_update: config.update,
            probability: 0.0,
            accumulated: 0.0,
            burst_allowance: config.max_burst,
            delay: SimTime::ZERO,
            delay_before: SimTime::ZERO,
        }
    }

    /// Makes the updates that are due.
    fn catch_up(&mut self, now: SimTime) {
        while now >= self.next_update {
            let rests = self.probability == 0.0
                && self.delay == self.delay_before
                && self.delay * 2 < self.target
                && self.burst_allowance == self.max_burst;
            if rests {
                // Further updates change nothing until a frame leaves.
                let missed = (now - self.next_update).as_nanos() / self.update.as_nanos();
                self.next_update += self.update * (missed + 1);
            } else {
                self.step();
                self.next_update += self.update;
            }
        }
    }

    fn step(&mut self) {
        let seconds = SimTime::as_secs_f64;
        let (delay, before) = (seconds(self.delay), seconds(self.delay_before));
        if self.burst_allowance > SimTime::ZERO {
            self.probability = 0.0;
        } else {
            let mut step = self.alpha * (delay - seconds(self.target));
            step += self.beta * (delay - before);
            let scale = SCALE.iter().find(|(below, _)| self.probability < *below);
            step /= scale.map_or(1.0, |(_, divisor)| *divisor);
            if self.probability >= 0.1 {
                step = step.min(0.02);
            }
            self.probability += step;
            if self.delay == SimTime::ZERO && self.delay_before == SimTime::ZERO {
                self.probability *= 0.98;
            }
            self.probability = self.probability.clamp(0.0, 1.0);
        }
        self.burst_allowance -= self.update;
        let quiet = self.delay * 2 < self.target && self.delay_before * 2 < self.target;
        if self.probability == 0.0 && quiet {
            self.burst_allowance = self.max_burst;
        }
        self.delay_before = self.delay;
    }

    /// Whether an arrival is to be dropped (or marked) behind so many bytes.
    fn drops(&mut self, bytes: u64, random: &mut RandomStream) -> bool {
        if self.burst_allowance > SimTime::ZERO {
            return false;
        }
        let short = self.delay_before * 2 < self.target && self.probability < 0.2;
        if short || bytes <= LEAST_BYTES {
            return false;
        }
        if self.derandomise {
            if self.probability == 0.0 {
                self.accumulated = 0.0;
            }
            self.accumulated += self.probability;
            if self.accumulated < 0.85 {
                return false;
            }
            if self.accumulated >= 8.5 {
                self.accumulated = 0.0;
                return true;
            }
        }
        let drops = random.random::<f64>() < self.probability;
        if drops {
            self.accumulated = 0.0;
        }
        drops
    }
}

impl Pie {
    pub(super) fn new(config: &PieConfig, mtu: u32, random: RandomStream) -> Self {
        Self {
            room: Room::new(config.limit),
            controller: Controller::new(config),
            marker: config.ecn.then(|| Marker::new(mtu)),
            ecn_limit: config.ecn_limit.as_f64(),
            random,
            store: Store::new(),
            fifo: Fifo::new(),
        }
    }
}

impl QueueDisc for Pie {
    fn enqueue(
        &mut self,
        now: SimTime,
        rate: Option<DataRate>,
        mut frame: Frame,
        report: &mut impl Report,
    ) {
        self.controller.catch_up(now);
        let (frames, bytes) = (self.fifo.frames(), self.fifo.bytes());
        if !self.room.fits(rate, frames, bytes, frame.len()) {
            self.controller.accumulated = 0.0;
            report(&frame, QueueEvent::Dropped(DropReason::QueueFull));
            return;
        }
        if self.controller.drops(bytes, &mut self.random) {
            let marked = match &mut self.marker {
                Some(marker) if self.controller.probability < self.ecn_limit => marker.mark(frame),
                _ => Err(frame),
            };
            match marked {
                Ok(marked) => {
                    report(&marked, QueueEvent::Marked);
                    frame = marked;
                }
                Err(frame) => {
                    report(&frame, QueueEvent::Dropped(DropReason::EarlyDrop));
                    return;
                }
            }
        }
        self.room.append(now, rate, frame, &mut self.store, &mut self.fifo, report);
    }

    fn dequeue(&mut self, now: SimTime, report: &mut impl Report) -> Option<Frame> {
        self.controller.catch_up(now);
        let Queued { frame, enqueued } = self.store.pop(&mut self.fifo)?;
        let sojourn = now - enqueued;
        self.controller.delay = if self.fifo.is_empty() { SimTime::ZERO } else { sojourn };
        report(&frame, QueueEvent::Dequeued { sojourn });
        Some(frame)
    }

    fn purge(&mut self, now: SimTime) -> Option<Queued> {
        self.controller.catch_up(now);
        self.controller.delay = SimTime::ZERO;
        self.store.pop(&mut self.fifo)
    }

    fn len(&self) -> usize {
        self.fifo.frames() as usize
    }
}

#[cfg(test)]
mod tests;
