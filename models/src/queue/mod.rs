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

mod classes;
mod codel;
mod config;
mod drop_tail;
mod fq_codel;
mod packet;
mod pie;
mod red;
mod store;

use tapestry_core::{DataRate, RandomStream, SimTime};

use crate::Frame;
use crate::counters::DropReason;
use classes::{Drr, Priority};
use codel::CoDel;
pub use config::{
    ClassConfig, ClassesConfig, CoDelConfig, FqCoDelConfig, LEAST_QUANTUM, Limit, PieConfig,
    QueueConfig, RedConfig, RedUnit,
};
use drop_tail::DropTail;
use fq_codel::FqCoDel;
use pie::Pie;
use red::Red;
use store::Queued;

/// A station's queue.
#[derive(Debug)]
pub(crate) enum Queue {
    DropTail(DropTail),
    Red(Box<Red>),
    CoDel(Box<CoDel>),
    FqCoDel(Box<FqCoDel>),
    Pie(Box<Pie>),
    Priority(Box<Priority>),
    Drr(Box<Drr>),
}

/// What becomes of a frame in a queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum QueueEvent {
    /// It has come in; the queue now holds so much.
    Enqueued { frames: usize, bytes: u64 },
    /// It leaves for the transmitter after that time in the queue.
    Dequeued { sojourn: SimTime },
    /// It has been marked "congestion experienced".
    Marked,
    /// It is lost.
    Dropped(DropReason),
}

/// Learns what becomes of frames.
trait Report: FnMut(&Frame, QueueEvent) {}

impl<F: FnMut(&Frame, QueueEvent)> Report for F {}

/// What every discipline does. Each frame that comes in is dequeued, dropped or purged, once.
trait QueueDisc {
    fn enqueue(
        &mut self,
        now: SimTime,
        rate: Option<DataRate>,
        frame: Frame,
        report: &mut impl Report,
    );

    fn dequeue(&mut self, now: SimTime, report: &mut impl Report) -> Option<Frame>;

    fn purge(&mut self, now: SimTime) -> Option<Queued>;

    fn len(&self) -> usize;
}

/// The same for whichever discipline it is.
macro_rules! each {
    ($queue:expr, $disc:ident => $act:expr) => {
        match $queue {
            Queue::DropTail($disc) => $act,
            Queue::Red($disc) => $act,
            Queue::CoDel($disc) => $act,
            Queue::FqCoDel($disc) => $act,
            Queue::Pie($disc) => $act,
            Queue::Priority($disc) => $act,
            Queue::Drr($disc) => $act,
        }
    };
}

impl Queue {
    /// A queue of a link with this MTU. Disciplines that draw random numbers take them from
    /// `random`, which is made for them only.
    pub(crate) fn new(
        config: &QueueConfig,
        mtu: u32,
        random: impl FnOnce() -> RandomStream,
    ) -> Self {
        match config {
            QueueConfig::DropTail(limit) => Self::DropTail(DropTail::new(*limit)),
            QueueConfig::Red(config) => Self::Red(Box::new(Red::new(config, mtu, random()))),
            QueueConfig::CoDel(config) => Self::CoDel(Box::new(CoDel::new(config, mtu))),
            QueueConfig::FqCoDel(config) => {
                Self::FqCoDel(Box::new(FqCoDel::new(config, mtu, random())))
            }
            QueueConfig::Pie(config) => Self::Pie(Box::new(Pie::new(config, mtu, random()))),
            QueueConfig::Priority(config) => Self::Priority(Box::new(Priority::new(config))),
            QueueConfig::Drr(config) => Self::Drr(Box::new(Drr::new(config))),
        }
    }

    /// A frame arrives while the transmitter is busy. `rate` is the link's, for limits in time.
    pub(crate) fn enqueue(
        &mut self,
        now: SimTime,
        rate: Option<DataRate>,
        frame: Frame,
        mut report: impl FnMut(&Frame, QueueEvent),
    ) {
        each!(self, queue => queue.enqueue(now, rate, frame, &mut report));
    }

    /// The next frame for the transmitter, which is free.
    pub(crate) fn dequeue(
        &mut self,
        now: SimTime,
        mut report: impl FnMut(&Frame, QueueEvent),
    ) -> Option<Frame> {
        each!(self, queue => queue.dequeue(now, &mut report))
    }

    /// A frame arrives while the transmitter is free, so nothing waits; returns it unless the
    /// discipline drops it.
    pub(crate) fn pass(
        &mut self,
        now: SimTime,
        rate: Option<DataRate>,
        frame: Frame,
        mut report: impl FnMut(&Frame, QueueEvent),
    ) -> Option<Frame> {
        if let Self::DropTail(_) = self {
            report(&frame, QueueEvent::Dequeued { sojourn: SimTime::ZERO });
            return Some(frame);
        }
        // The others want to see every frame, and hold at least one.
        each!(self, queue => {
            queue.enqueue(now, rate, frame, &mut report);
            queue.dequeue(now, &mut report)
        })
    }

    /// Takes out a frame without any decision, to empty the queue of a link that goes down.
    pub(crate) fn purge(&mut self, now: SimTime) -> Option<Frame> {
        each!(self, queue => queue.purge(now)).map(|queued| queued.frame)
    }

    /// Gives its place to another queue. Frames that wait go there in the order in which they came,
    /// as if the other had been there then; those that do not fit are dropped. A discipline of the
    /// same kind starts anew, too.
    pub(crate) fn replace_with(
        &mut self,
        mut other: Self,
        now: SimTime,
        rate: Option<DataRate>,
        mut report: impl FnMut(&Frame, QueueEvent),
    ) {
        let purged = std::iter::from_fn(|| each!(self, queue => queue.purge(now)));
        let mut waiting: Vec<Queued> = purged.collect();
        // Stable: of one instant, flows and classes keep their own order.
        waiting.sort_by_key(|queued| queued.enqueued);
        for Queued { frame, enqueued } in waiting {
            other.enqueue(enqueued, rate, frame, &mut report);
        }
        *self = other;
    }

    /// Frames waiting.
    pub(crate) fn len(&self) -> usize {
        each!(self, queue => queue.len())
    }
}

#[cfg(test)]
mod tests;
