//! Drop-tail: first in, first out, with a limit in frames, bytes or time.
//!
//! Assumptions: a limit in time is the number of bytes that the link's present rate sends in that
//! time, as `tbf` in Linux counts its latency; without a rate nothing needs to wait, and
//! [`MOST_FRAMES`] bounds what waits all the same.
//!
//! Reference: ns-3 `DropTailQueue`; tc-pfifo(8), tc-tbf(8).

use tapestry_core::{DataRate, SimTime};

use super::store::{Fifo, Queued, Store};
use super::{Limit, QueueDisc, QueueEvent, Report};
use crate::Frame;
use crate::counters::DropReason;

/// Every queue is bounded, whatever its limit is counted in.
pub(super) const MOST_FRAMES: u32 = 1_000_000;

#[derive(Debug)]
pub(crate) struct DropTail {
    room: Room,
    store: Store,
    fifo: Fifo,
}

/// A limit, with what a limit in time amounts to.
#[derive(Debug)]
pub(super) struct Room {
    limit: Limit,
    /// Bytes that the latest rate sends in the limit's time.
    cached: Option<(DataRate, u64)>,
}

impl Room {
    pub(super) fn new(limit: Limit) -> Self {
        Self { limit, cached: None }
    }

    /// Whether a frame of `len` bytes fits behind so many frames and bytes.
    pub(super) fn fits(
        &mut self,
        rate: Option<DataRate>,
        frames: u32,
        bytes: u64,
        len: usize,
    ) -> bool {
        self.holds(rate, frames + 1, bytes + len as u64)
    }

    /// Whether so many frames and bytes are within the limit.
    pub(super) fn holds(&mut self, rate: Option<DataRate>, frames: u32, bytes: u64) -> bool {
        frames <= MOST_FRAMES
            && match (self.limit, rate) {
                (Limit::Frames(limit), _) => frames <= limit,
                (Limit::Bytes(limit), _) => bytes <= limit,
                (Limit::Time(_), None) => true,
                (Limit::Time(limit), Some(rate)) => bytes <= self.bytes_in(limit, rate),
            }
    }

    /// Appends a frame to a queue of one list, or drops it if it does not fit.
    pub(super) fn append(
        &mut self,
        now: SimTime,
        rate: Option<DataRate>,
        frame: Frame,
        store: &mut Store,
        fifo: &mut Fifo,
        report: &mut impl Report,
    ) {
        if self.fits(rate, fifo.frames(), fifo.bytes(), frame.len()) {
            let (frames, bytes) = (fifo.frames() as usize + 1, fifo.bytes() + frame.len() as u64);
            report(&frame, QueueEvent::Enqueued { frames, bytes });
            store.push(fifo, now, frame);
        } else {
            report(&frame, QueueEvent::Dropped(DropReason::QueueFull));
        }
    }

    fn bytes_in(&mut self, time: SimTime, rate: DataRate) -> u64 {
        match self.cached {
            Some((cached, bytes)) if cached == rate => bytes,
            _ => {
                let bits = u128::from(time.as_nanos()) * u128::from(rate.bits_per_sec());
                let bytes = u64::try_from(bits / 8_000_000_000).unwrap_or(u64::MAX);
                self.cached = Some((rate, bytes));
                bytes
            }
        }
    }
}

impl DropTail {
    pub(super) fn new(limit: Limit) -> Self {
        Self { room: Room::new(limit), store: Store::new(), fifo: Fifo::new() }
    }
}

impl QueueDisc for DropTail {
    fn enqueue(
        &mut self,
        now: SimTime,
        rate: Option<DataRate>,
        frame: Frame,
        report: &mut impl Report,
    ) {
        self.room.append(now, rate, frame, &mut self.store, &mut self.fifo, report);
    }

    fn dequeue(&mut self, now: SimTime, report: &mut impl Report) -> Option<Frame> {
        let Queued { frame, enqueued } = self.store.pop(&mut self.fifo)?;
        report(&frame, QueueEvent::Dequeued { sojourn: now - enqueued });
        Some(frame)
    }

    fn purge(&mut self, _now: SimTime) -> Option<Queued> {
        self.store.pop(&mut self.fifo)
    }

    fn len(&self) -> usize {
        self.fifo.frames() as usize
    }
}
