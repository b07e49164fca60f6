//! Where queued frames lie: first-in, first-out lists that share one arena.
//!
//! Purpose: a discipline may have a thousand lists (FQ-CoDel) and yet allocates nothing once the
//! arena is as large as the traffic needs; moving a frame into or out of a list is a few writes.

use tapestry_core::SimTime;

use crate::Frame;

/// No slot.
const NONE: u32 = u32::MAX;

/// Slots for frames; the free ones form a list.
#[derive(Debug)]
pub(super) struct Store {
    slots: Vec<Slot>,
    free: u32,
}

#[derive(Debug)]
struct Slot {
    /// Absent in a free slot.
    frame: Option<Frame>,
    enqueued: SimTime,
    next: u32,
}

/// A list of frames in a [`Store`]; always used with the same one.
#[derive(Debug, Clone, Copy)]
pub(super) struct Fifo {
    head: u32,
    tail: u32,
    frames: u32,
    bytes: u64,
}

/// A frame taken out of a list.
#[derive(Debug)]
pub(super) struct Queued {
    pub(super) frame: Frame,
    /// When it was put in.
    pub(super) enqueued: SimTime,
}

impl Store {
    pub(super) fn new() -> Self {
        Self { slots: Vec::new(), free: NONE }
    }

    /// Appends a frame to a list.
    pub(super) fn push(&mut self, fifo: &mut Fifo, now: SimTime, frame: Frame) {
        let bytes = frame.len() as u64;
        let filled = Slot { frame: Some(frame), enqueued: now, next: NONE };
        let at = if self.free == NONE {
            self.slots.push(filled);
            self.slots.len() as u32 - 1
        } else {
            let at = self.free;
            let slot = &mut self.slots[at as usize];
            self.free = slot.next;
            *slot = filled;
            at
        };
        if fifo.tail == NONE {
            fifo.head = at;
        } else {
            self.slots[fifo.tail as usize].next = at;
        }
        fifo.tail = at;
        fifo.frames += 1;
        fifo.bytes += bytes;
    }

    /// Takes the oldest frame out of a list.
    pub(super) fn pop(&mut self, fifo: &mut Fifo) -> Option<Queued> {
        let slot = self.slots.get_mut(fifo.head as usize)?;
        let frame = slot.frame.take()?;
        let queued = Queued { enqueued: slot.enqueued, frame };
        let next = slot.next;
        slot.next = self.free;
        self.free = fifo.head;
        fifo.head = next;
        if next == NONE {
            fifo.tail = NONE;
        }
        fifo.frames -= 1;
        fifo.bytes -= queued.frame.len() as u64;
        Some(queued)
    }

    /// The oldest frame of a list.
    pub(super) fn head(&self, fifo: &Fifo) -> Option<&Frame> {
        self.slots.get(fifo.head as usize)?.frame.as_ref()
    }
}

impl Fifo {
    pub(super) const fn new() -> Self {
        Self { head: NONE, tail: NONE, frames: 0, bytes: 0 }
    }

    pub(super) const fn frames(&self) -> u32 {
        self.frames
    }

    pub(super) const fn bytes(&self) -> u64 {
        self.bytes
    }

    pub(super) const fn is_empty(&self) -> bool {
        self.frames == 0
    }
}
