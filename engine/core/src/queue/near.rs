//! The near tier of the event queue: a short sorted ring.

use super::Position;

/// Events in order, as the indices of their nodes.
#[derive(Debug, Clone)]
pub(super) struct Near {
    ring: Box<[(Position, u32); EVENTS]>,
    /// Slot of the earliest event.
    head: usize,
    len: usize,
}

/// A power of two. Enough for what is under way on a busy network of some dozen links; the more
/// there are, the more of them an event must pass that comes out of order.
const EVENTS: usize = 64;

impl Near {
    /// Number of events for which the ring is better than the other tier: half a ring, so that
    /// events do not go to and fro.
    pub(super) const REFILL: usize = EVENTS / 2;

    pub(super) fn new() -> Self {
        Self { ring: Box::new([(Position::default(), 0); EVENTS]), head: 0, len: 0 }
    }

    pub(super) fn len(&self) -> usize {
        self.len
    }

    #[inline]
    pub(super) fn is_full(&self) -> bool {
        self.len == EVENTS
    }

    #[inline]
    pub(super) fn first(&self) -> Option<Position> {
        (self.len > 0).then(|| self.ring[self.head].0)
    }

    pub(super) fn last(&self) -> Option<Position> {
        (self.len > 0).then(|| self.ring[self.slot(self.len - 1)].0)
    }

    /// Removes the earliest event of a ring that has one.
    #[inline]
    pub(super) fn pop(&mut self) -> u32 {
        let (_, index) = self.ring[self.head];
        self.head = self.slot(1);
        self.len -= 1;
        index
    }

    /// Removes the last event.
    pub(super) fn pop_last(&mut self) -> Option<u32> {
        self.len = self.len.checked_sub(1)?;
        Some(self.ring[self.slot(self.len)].1)
    }

    /// Adds an event to a ring that is not full.
    #[inline]
    pub(super) fn insert(&mut self, position: Position, index: u32) {
        let event = (position, index);
        if self.first().is_some_and(|first| position < first) {
            self.head = self.slot(EVENTS - 1);
            self.ring[self.head] = event;
        } else {
            let mut place = self.slot(self.len);
            while place != self.head {
                let before = (place + EVENTS - 1) % EVENTS;
                if self.ring[before].0 < position {
                    break;
                }
                self.ring[place] = self.ring[before];
                place = before;
            }
            self.ring[place] = event;
        }
        self.len += 1;
    }

    /// Removes the event at this place.
    pub(super) fn remove(&mut self, position: Position) {
        let Some(i) = (0..self.len).find(|&i| self.ring[self.slot(i)].0 == position) else {
            return;
        };
        for i in i + 1..self.len {
            self.ring[self.slot(i - 1)] = self.ring[self.slot(i)];
        }
        self.len -= 1;
    }

    #[inline]
    fn slot(&self, i: usize) -> usize {
        (self.head + i) % EVENTS
    }
}
