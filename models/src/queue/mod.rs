//! Queue disciplines of links.
//!
//! Purpose: the frames that wait at a station behind the one in transmission, and the decision
//! which of them are dropped or marked. [`Queue`] hides which discipline it is: a channel hands
//! frames in with [`enqueue`](Queue::enqueue), takes them out with [`dequeue`](Queue::dequeue) when
//! its transmitter is free, and learns by a callback what became of each.
//!
//! Assumptions: `now` never runs back. Lengths are those of frames, without frame check sequence
//! and padding.
//!
//! Not modelled: the driver's own ring behind the discipline.
//!
//! Reference: ns-3 `QueueDisc`; each discipline names its own.

mod config;
mod drop_tail;
mod store;

use tapestry_core::{DataRate, SimTime};

use crate::Frame;
use crate::counters::DropReason;
pub use config::{Limit, QueueConfig};
use drop_tail::DropTail;

/// A station's queue.
#[derive(Debug)]
pub(crate) struct Queue {
    discipline: Discipline,
}

#[derive(Debug)]
enum Discipline {
    DropTail(DropTail),
}

/// What becomes of a frame in a queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum QueueEvent {
    /// It waits; the queue now holds so much.
    Enqueued { frames: usize, bytes: u64 },
    /// It leaves for the transmitter after that time in the queue.
    Dequeued { sojourn: SimTime },
    /// It is lost.
    Dropped(DropReason),
}

impl Queue {
    pub(crate) fn new(config: &QueueConfig) -> Self {
        let discipline = match *config {
            QueueConfig::DropTail(limit) => Discipline::DropTail(DropTail::new(limit)),
        };
        Self { discipline }
    }

    /// A frame arrives while the transmitter is busy. `rate` is the link's, for limits in time.
    pub(crate) fn enqueue(
        &mut self,
        now: SimTime,
        rate: Option<DataRate>,
        frame: Frame,
        mut report: impl FnMut(&Frame, QueueEvent),
    ) {
        match &mut self.discipline {
            Discipline::DropTail(queue) => queue.enqueue(now, rate, frame, &mut report),
        }
    }

    /// The next frame for the transmitter, which is free.
    pub(crate) fn dequeue(
        &mut self,
        now: SimTime,
        mut report: impl FnMut(&Frame, QueueEvent),
    ) -> Option<Frame> {
        match &mut self.discipline {
            Discipline::DropTail(queue) => queue.dequeue(now, &mut report),
        }
    }

    /// A frame arrives while the transmitter is free, so nothing waits; returns it unless the
    /// discipline drops it.
    #[expect(clippy::unnecessary_wraps, reason = "disciplines to come drop here")]
    pub(crate) fn pass(
        &mut self,
        _now: SimTime,
        _rate: Option<DataRate>,
        frame: Frame,
        mut report: impl FnMut(&Frame, QueueEvent),
    ) -> Option<Frame> {
        match &mut self.discipline {
            Discipline::DropTail(_) => {
                report(&frame, QueueEvent::Dequeued { sojourn: SimTime::ZERO });
                Some(frame)
            }
        }
    }

    /// Takes out a frame without any decision, to empty the queue of a link that goes down.
    pub(crate) fn purge(&mut self) -> Option<Frame> {
        match &mut self.discipline {
            Discipline::DropTail(queue) => queue.purge(),
        }
    }

    /// Frames waiting.
    pub(crate) fn len(&self) -> usize {
        match &self.discipline {
            Discipline::DropTail(queue) => queue.len(),
        }
    }
}
