//! Classes by DSCP: strict priority, and deficit round robin.
//!
//! Purpose: a frame's DSCP chooses its class, a drop-tail queue of its own. Strict priority serves
//! the first class that has a frame; deficit round robin lets each class that has frames send a
//! quantum of bytes in its turn, and keeps what it could not use for the next.
//!
//! Assumptions: a class that runs empty loses what it has saved.
//!
//! Reference: RFC 2474, RFC 8622 (code points); Shreedhar, Varghese: Efficient Fair Queuing using
//! Deficit Round Robin (1995); tc-prio(8), tc-drr(8).

use tapestry_core::{DataRate, SimTime};

use super::drop_tail::Room;
use super::packet::dscp;
use super::store::{Fifo, Queued, Store};
use super::{ClassesConfig, LEAST_QUANTUM, QueueDisc, QueueEvent, Report};
use crate::Frame;
use crate::counters::DropReason;

/// Frames by class.
#[derive(Debug)]
struct Classes {
    all: Vec<Class>,
    class_of: [u8; 64],
    other: u8,
    store: Store,
    frames: usize,
    bytes: u64,
}

#[derive(Debug)]
struct Class {
    room: Room,
    fifo: Fifo,
    quantum: u64,
    deficit: u64,
}

impl Classes {
    fn new(config: &ClassesConfig) -> Self {
        let classes = config.classes.iter().map(|class| Class {
            room: Room::new(class.limit),
            fifo: Fifo::new(),
            quantum: class.quantum_bytes.max(LEAST_QUANTUM).into(),
            deficit: 0,
        });
        Self {
            all: classes.collect(),
            class_of: config.class_of,
            other: config.other,
            store: Store::new(),
            frames: 0,
            bytes: 0,
        }
    }

    fn enqueue(
        &mut self,
        now: SimTime,
        rate: Option<DataRate>,
        frame: Frame,
        report: &mut impl Report,
    ) {
        let class = match dscp(frame.bytes()) {
            Some(dscp) => self.class_of[usize::from(dscp & 63)],
            None => self.other,
        };
        let last = self.all.len().saturating_sub(1);
        let length = frame.len();
        if let Some(class) = self.all.get_mut(usize::from(class).min(last))
            && class.room.fits(rate, class.fifo.frames(), class.fifo.bytes(), length)
        {
            self.frames += 1;
            self.bytes += length as u64;
            report(&frame, QueueEvent::Enqueued { frames: self.frames, bytes: self.bytes });
            self.store.push(&mut class.fifo, now, frame);
        } else {
            report(&frame, QueueEvent::Dropped(DropReason::QueueFull));
        }
    }

    /// Takes the oldest frame of a class.
    fn pop(&mut self, class: usize) -> Option<Queued> {
        let queued = self.store.pop(&mut self.all.get_mut(class)?.fifo)?;
        self.frames -= 1;
        self.bytes -= queued.frame.len() as u64;
        Some(queued)
    }

    /// The first class that has a frame.
    fn first(&self) -> Option<usize> {
        self.all.iter().position(|class| !class.fifo.is_empty())
    }

    fn purge(&mut self) -> Option<Queued> {
        let class = self.first()?;
        self.all[class].deficit = 0;
        self.pop(class)
    }
}

/// Strict priority.
#[derive(Debug)]
pub(crate) struct Priority(Classes);

impl Priority {
    pub(super) fn new(config: &ClassesConfig) -> Self {
        Self(Classes::new(config))
    }
}

impl QueueDisc for Priority {
    fn enqueue(
        &mut self,
        now: SimTime,
        rate: Option<DataRate>,
        frame: Frame,
        report: &mut impl Report,
    ) {
        self.0.enqueue(now, rate, frame, report);
    }

    fn dequeue(&mut self, now: SimTime, report: &mut impl Report) -> Option<Frame> {
        let Queued { frame, enqueued } = self.0.pop(self.0.first()?)?;
        report(&frame, QueueEvent::Dequeued { sojourn: now - enqueued });
        Some(frame)
    }

    fn purge(&mut self, _now: SimTime) -> Option<Queued> {
        self.0.purge()
    }

    fn len(&self) -> usize {
        self.0.frames
    }
}

/// Deficit round robin.
#[derive(Debug)]
pub(crate) struct Drr {
    classes: Classes,
    /// Whose turn it is.
    turn: usize,
    /// Whether it has got its quantum for this turn.
    paid: bool,
}

impl Drr {
    pub(super) fn new(config: &ClassesConfig) -> Self {
        Self { classes: Classes::new(config), turn: 0, paid: false }
    }
}

impl QueueDisc for Drr {
    fn enqueue(
        &mut self,
        now: SimTime,
        rate: Option<DataRate>,
        frame: Frame,
        report: &mut impl Report,
    ) {
        self.classes.enqueue(now, rate, frame, report);
    }

    fn dequeue(&mut self, now: SimTime, report: &mut impl Report) -> Option<Frame> {
        while self.classes.frames > 0 {
            let class = &mut self.classes.all[self.turn];
            if let Some(head) = self.classes.store.head(&class.fifo) {
                if !self.paid {
                    class.deficit += class.quantum;
                    self.paid = true;
                }
                let length = head.len() as u64;
                if length <= class.deficit {
                    class.deficit -= length;
                    let Queued { frame, enqueued } = self.classes.pop(self.turn)?;
                    report(&frame, QueueEvent::Dequeued { sojourn: now - enqueued });
                    return Some(frame);
                }
            } else {
                class.deficit = 0;
            }
            self.turn = (self.turn + 1) % self.classes.all.len();
            self.paid = false;
        }
        // All are empty: nobody keeps what it has saved.
        self.classes.all.iter_mut().for_each(|class| class.deficit = 0);
        self.paid = false;
        None
    }

    fn purge(&mut self, _now: SimTime) -> Option<Queued> {
        self.classes.purge()
    }

    fn len(&self) -> usize {
        self.classes.frames
    }
}

#[cfg(test)]
mod tests;
