//! `CoDel`: drops at the head while frames stay too long.
//!
//! Purpose: when the time in the queue has been above `target` for an `interval`, drop; as long as
//! it stays above, drop again after `interval / √count`, so that the rate of drops rises until the
//! senders react.
//!
//! Assumptions: what is left in the queue may be the longest frame of the link: then there is
//! nothing to gain by dropping.
//!
//! Reference: RFC 8289, sections 5.3 to 5.6. ECN as in Linux: a mark counts as the drop it replaces.

use tapestry_core::{DataRate, SimTime};

use super::drop_tail::Room;
use super::packet::Marker;
use super::store::{Fifo, Queued, Store};
use super::{CoDelConfig, QueueDisc, QueueEvent, Report};
use crate::Frame;
use crate::counters::DropReason;

/// The part of `CoDel` that all queues of FQ-CoDel share.
#[derive(Debug)]
pub(super) struct Law {
    target: SimTime,
    interval: SimTime,
    /// Bytes of the longest frame of the link.
    longest: u64,
    marker: Option<Marker>,
}

/// The state of one queue.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Control {
    /// When frames will have been late for an interval; `None` while they are not.
    first_above: Option<SimTime>,
    dropping: bool,
    drop_next: SimTime,
    count: u32,
    last_count: u32,
}

impl Law {
    pub(super) fn new(config: &CoDelConfig, mtu: u32) -> Self {
        Self {
            target: config.target,
            interval: config.interval,
            longest: u64::from(mtu) + 14,
            marker: config.ecn.then(|| Marker::new(mtu)),
        }
    }

    /// The next frame of a queue, after the drops that are due.
    pub(super) fn dequeue(
        &mut self,
        control: &mut Control,
        store: &mut Store,
        fifo: &mut Fifo,
        now: SimTime,
        report: &mut impl Report,
    ) -> Option<Frame> {
        let (mut next, mut late) = self.pop(control, store, fifo, now);
        if control.dropping {
            control.dropping = late;
            while control.dropping && now >= control.drop_next {
                control.count += 1;
                if let Some(marked) = self.mark(&mut next, now, report) {
                    control.drop_next = self.later(control.drop_next, control.count);
                    return Some(marked);
                }
                discard(next.take(), report);
                (next, late) = self.pop(control, store, fifo, now);
                control.dropping = late;
                if late {
                    control.drop_next = self.later(control.drop_next, control.count);
                }
            }
        } else if late {
            let marked = self.mark(&mut next, now, report);
            if marked.is_none() {
                discard(next.take(), report);
                (next, _) = self.pop(control, store, fifo, now);
            }
            control.dropping = true;
            // Soon after the last time, the rate that was right then is a good one to begin with.
            let delta = control.count.wrapping_sub(control.last_count);
            let recent = now - control.drop_next < self.interval * 16;
            control.count = if delta > 1 && recent { delta } else { 1 };
            control.drop_next = self.later(now, control.count);
            control.last_count = control.count;
            if marked.is_some() {
                return marked;
            }
        }
        let Queued { frame, enqueued } = next?;
        report(&frame, QueueEvent::Dequeued { sojourn: now - enqueued });
        Some(frame)
    }

    /// The oldest frame, and whether frames have been late for so long that it may be dropped.
    fn pop(
        &self,
        control: &mut Control,
        store: &mut Store,
        fifo: &mut Fifo,
        now: SimTime,
    ) -> (Option<Queued>, bool) {
        let next = store.pop(fifo);
        let late = match &next {
            Some(queued) => now - queued.enqueued >= self.target && fifo.bytes() > self.longest,
            None => false,
        };
        if !late {
            control.first_above = None;
            return (next, false);
        }
        let first_above = *control.first_above.get_or_insert(now + self.interval);
        // Where it has just been set, it lies in the future.
        (next, now >= first_above)
    }

    /// The control law.
    fn later(&self, time: SimTime, count: u32) -> SimTime {
        let wait = self.interval.as_nanos() as f64 / f64::from(count).sqrt();
        time + SimTime::from_nanos(wait as u64)
    }

    /// Marks the frame instead of dropping it, if that is possible; it is not in `next` then.
    fn mark(
        &mut self,
        next: &mut Option<Queued>,
        now: SimTime,
        report: &mut impl Report,
    ) -> Option<Frame> {
        let marker = self.marker.as_mut()?;
        let Queued { frame, enqueued } = next.take()?;
        match marker.mark(frame) {
            Ok(frame) => {
                report(&frame, QueueEvent::Marked);
                report(&frame, QueueEvent::Dequeued { sojourn: now - enqueued });
                Some(frame)
            }
            Err(frame) => {
                *next = Some(Queued { frame, enqueued });
                None
            }
        }
    }
}

fn discard(queued: Option<Queued>, report: &mut impl Report) {
    if let Some(Queued { frame, .. }) = queued {
        report(&frame, QueueEvent::Dropped(DropReason::TargetExceeded));
    }
}

/// One queue with `CoDel`.
#[derive(Debug)]
pub(crate) struct CoDel {
    room: Room,
    law: Law,
    control: Control,
    store: Store,
    fifo: Fifo,
}

impl CoDel {
    pub(super) fn new(config: &CoDelConfig, mtu: u32) -> Self {
        Self {
            room: Room::new(config.limit),
            law: Law::new(config, mtu),
            control: Control::default(),
            store: Store::new(),
            fifo: Fifo::new(),
        }
    }
}

impl QueueDisc for CoDel {
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
        let Self { law, control, store, fifo, .. } = self;
        law.dequeue(control, store, fifo, now, report)
    }

    fn purge(&mut self, _now: SimTime) -> Option<Queued> {
        self.store.pop(&mut self.fifo)
    }

    fn len(&self) -> usize {
        self.fifo.frames() as usize
    }
}
