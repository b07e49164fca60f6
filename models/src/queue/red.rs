//! RED: drops at random before the queue is full, the likelier the longer it is on average.
//!
//! Purpose: on each arrival the moving average follows the queue's length with weight w:
//! `avg ← (1 − w) avg + w q`, once more for each mean frame that the link could have sent while it
//! was idle. Between `min` and `max` the probability is `p_b = p_max (avg − min) / (max − min)`,
//! and `p_b / (1 − count p_b)` with `count` frames since the last drop, which makes drops evenly
//! spaced. Gentle RED goes on from `p_max` to 1 between `max` and `2 max`. Adaptive RED changes
//! `p_max` every half second so that the average stays in the middle.
//!
//! Assumptions: the queue is idle from the time the transmitter finds it empty. Above the range of
//! probabilities frames are dropped even where ECN could mark them (RFC 3168, section 7).
//!
//! Not modelled: ns-2's `wait`, which makes small probabilities wait for a whole period.
//!
//! Reference: Floyd, Jacobson: Random Early Detection Gateways for Congestion Avoidance (1993);
//! Floyd, Gummadi, Shenker: Adaptive RED (2001); ns-3 `RedQueueDisc`.

use rand::RngExt;
use tapestry_core::{DataRate, RandomStream, SimTime};

use super::drop_tail::Room;
use super::packet::Marker;
use super::store::{Fifo, Queued, Store};
use super::{QueueDisc, QueueEvent, RedConfig, RedUnit, Report};
use crate::Frame;
use crate::counters::DropReason;

#[derive(Debug)]
pub(crate) struct Red {
    config: RedConfig,
    room: Room,
    weight: f64,
    min: f64,
    max: f64,
    /// Present probability at `max`.
    max_probability: f64,
    /// When `max_probability` was last adapted.
    adapted: SimTime,
    average: f64,
    /// Frames (their bytes in mean frames, if bytes count) since the last drop; −1 below `min`.
    count: f64,
    /// Since when the transmitter has been without work.
    idle_since: Option<SimTime>,
    marker: Option<Marker>,
    random: RandomStream,
    store: Store,
    fifo: Fifo,
}

/// Adaptive RED, as its authors recommend: how often, by how much, and how far.
const ADAPT_INTERVAL: SimTime = SimTime::from_millis(500);
const ADAPT_INCREMENT: f64 = 0.01;
const ADAPT_DECREASE: f64 = 0.9;
const ADAPT_RANGE: (f64, f64) = (0.01, 0.5);

/// What RED has decided about an arrival.
#[derive(Debug, PartialEq)]
enum Decision {
    Enqueue,
    Early,
    Forced,
}

impl Red {
    pub(super) fn new(config: &RedConfig, mtu: u32, random: RandomStream) -> Self {
        Self {
            room: Room::new(config.limit),
            weight: config.weight.as_f64(),
            min: config.min as f64,
            max: config.max as f64,
            max_probability: config.max_probability.as_f64(),
            adapted: SimTime::ZERO,
            average: 0.0,
            count: -1.0,
            idle_since: Some(SimTime::ZERO),
            marker: config.ecn.then(|| Marker::new(mtu)),
            random,
            store: Store::new(),
            fifo: Fifo::new(),
            config: config.clone(),
        }
    }

    fn update_average(&mut self, now: SimTime, rate: Option<DataRate>) {
        let length = match self.config.unit {
            RedUnit::Frames => f64::from(self.fifo.frames()),
            RedUnit::Bytes => self.fifo.bytes() as f64,
        };
        if let Some(since) = self.idle_since.take() {
            let mean = u64::from(self.config.mean_frame_bytes);
            let service = rate.map_or(SimTime::ZERO, |rate| rate.transmit_time(mean));
            // A link without rate could have sent any number.
            let missed = (now - since).as_nanos().checked_div(service.as_nanos());
            let missed = missed.map_or(f64::INFINITY, |missed| missed as f64);
            self.average *= (1.0 - self.weight).powf(missed);
        }
        self.average += self.weight * (length - self.average);
        if self.config.adaptive && now > self.adapted + ADAPT_INTERVAL {
            self.adapt(now);
        }
    }

    fn adapt(&mut self, now: SimTime) {
        let margin = 0.4 * (self.max - self.min);
        let (least, most) = ADAPT_RANGE;
        if self.average > self.max - margin && self.max_probability < most {
            self.max_probability += ADAPT_INCREMENT.min(self.max_probability / 4.0);
            self.adapted = now;
        } else if self.average < self.min + margin && self.max_probability > least {
            self.max_probability *= ADAPT_DECREASE;
            self.adapted = now;
        }
    }

    fn decide(&mut self, bytes: usize) -> Decision {
        let Self { average, min, max, max_probability, .. } = *self;
        // As in its authors' own code, a queue of one frame is no congestion, whatever it was before.
        if average < min || self.fifo.frames() < 2 {
            self.count = -1.0;
            return Decision::Enqueue;
        }
        let base = if average < max {
            max_probability * (average - min) / (max - min)
        } else if self.config.gentle && average < 2.0 * max {
            max_probability + (1.0 - max_probability) * (average - max) / max
        } else {
            self.count = 0.0;
            return Decision::Forced;
        };
        // Long frames count for more where bytes do.
        let share = match self.config.unit {
            RedUnit::Frames => 1.0,
            RedUnit::Bytes => bytes as f64 / f64::from(self.config.mean_frame_bytes),
        };
        self.count += if self.count < 0.0 { 1.0 } else { share };
        let spread = self.count * base;
        let probability = if spread < 1.0 { share * base / (1.0 - spread) } else { 1.0 };
        if self.random.random::<f64>() < probability {
            self.count = 0.0;
            Decision::Early
        } else {
            Decision::Enqueue
        }
    }
}

impl QueueDisc for Red {
    fn enqueue(
        &mut self,
        now: SimTime,
        rate: Option<DataRate>,
        mut frame: Frame,
        report: &mut impl Report,
    ) {
        self.update_average(now, rate);
        let decision = self.decide(frame.len());
        if decision != Decision::Enqueue {
            let marked = match &mut self.marker {
                Some(marker) if decision == Decision::Early => marker.mark(frame),
                _ => Err(frame),
            };
            match marked {
                // A mark on a frame that does not fit would be a mark and a drop.
                Ok(marked) => {
                    let (frames, bytes) = (self.fifo.frames(), self.fifo.bytes());
                    if self.room.fits(rate, frames, bytes, marked.len()) {
                        report(&marked, QueueEvent::Marked);
                    }
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
        let Some(Queued { frame, enqueued }) = self.store.pop(&mut self.fifo) else {
            self.idle_since.get_or_insert(now);
            return None;
        };
        report(&frame, QueueEvent::Dequeued { sojourn: now - enqueued });
        Some(frame)
    }

    fn purge(&mut self, now: SimTime) -> Option<Queued> {
        let purged = self.store.pop(&mut self.fifo);
        if purged.is_none() {
            self.idle_since.get_or_insert(now);
        }
        purged
    }

    fn len(&self) -> usize {
        self.fifo.frames() as usize
    }
}

#[cfg(test)]
mod tests;
