//! The event queue.
//!
//! Purpose: hands out events by time, and events of the same time in the order in which they were
//! scheduled (first in, first out). That order is semantics, not accident: results depend on it
//! and ns-3 orders ties the same way.
//!
//! How: two tiers. [`Near`] is a short sorted ring of the earliest events: models mostly schedule
//! for the instant itself or behind what was scheduled latest, which in a ring is a step or two from
//! either end. [`Far`] is a radix queue for any number of events behind those; no event there
//! is as early as one in the ring. A ring that is full passes its last events on; when it has run
//! empty and few events are left, they move into the ring.
//!
//! A model may [`reserve`](EventQueue::reserve) the place of an event that it mostly can do
//! without, and schedule it there later if need be; the order is as if it had done so at once.
//!
//! Assumptions: fewer than 2³² − 2 events pending. Memory grows to the largest number ever pending
//! and is then reused: no allocation once warm.
//!
//! Not modelled: going back in time (see [`EventQueue::schedule`]); use from several threads.

mod far;
mod near;
#[cfg(test)]
mod tests;

use crate::SimTime;
use far::Far;
use near::Near;

/// Pending events, earliest first, ties in the order of scheduling.
#[derive(Debug, Clone)]
pub struct EventQueue<E> {
    nodes: Vec<Node<E>>,
    /// Head of the list of free nodes, linked by `next`.
    free: u32,
    /// What the next event gets; those of events start at 1.
    sequence: u64,
    /// Place of the event popped last.
    last: Position,
    near: Near,
    far: Far,
}

/// A place in the order of all events: by time, then in the order of scheduling.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Position {
    time: SimTime,
    sequence: u64,
}

/// Names a scheduled event, for cancellation. A key outlives its event harmlessly.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct EventKey {
    index: u32,
    sequence: u64,
}

#[derive(Debug, Clone)]
struct Node<E> {
    position: Position,
    /// Neighbours in a list of the far tier; `prev` is [`IN_NEAR`] in the near one.
    prev: u32,
    next: u32,
    /// `None` while the node is free.
    event: Option<E>,
}

const NONE: u32 = u32::MAX;
const IN_NEAR: u32 = u32::MAX - 1;

impl Position {
    /// Before all events of this time.
    pub const fn before(time: SimTime) -> Self {
        Self { time, sequence: 0 }
    }

    /// The time of the events here.
    pub const fn time(self) -> SimTime {
        self.time
    }
}

impl<E> EventQueue<E> {
    /// An empty queue at time zero.
    pub fn new() -> Self {
        Self::with_capacity(0)
    }

    /// An empty queue with room for `events` pending events.
    pub fn with_capacity(events: usize) -> Self {
        Self {
            nodes: Vec::with_capacity(events),
            free: NONE,
            sequence: 1,
            last: Position::before(SimTime::ZERO),
            near: Near::new(),
            far: Far::new(),
        }
    }

    /// Adds `event`, due at `at`, behind all events already scheduled for that time.
    ///
    /// Time never runs back: an event for a time before that of the event popped last is due at
    /// the latter. Whoever must not schedule in the past checks it (see [`crate::Scheduler`]).
    #[inline]
    pub fn schedule(&mut self, at: SimTime, event: E) -> EventKey {
        let position = self.reserve(at);
        self.insert(position, event)
    }

    /// The place that an event scheduled now for `at` would have.
    ///
    /// Many events only end a state at which nobody may look before the next one begins. A model
    /// that keeps the place of such an end compares it with the present place to see whether it
    /// has passed, and need not schedule it.
    #[inline]
    pub fn reserve(&mut self, at: SimTime) -> Position {
        let sequence = self.sequence;
        self.sequence += 1;
        Position { time: at.max(self.last.time), sequence }
    }

    /// Adds `event` at a reserved place; at the earliest possible one if that has passed.
    pub fn schedule_reserved(&mut self, position: Position, event: E) -> EventKey {
        self.insert(position.max(self.last), event)
    }

    /// Removes and returns the earliest event with the time it is due.
    #[inline]
    pub fn pop(&mut self) -> Option<(SimTime, E)> {
        self.pop_due(SimTime::MAX)
    }

    /// Removes and returns the earliest event if it is due by `limit`.
    #[inline]
    pub fn pop_due(&mut self, limit: SimTime) -> Option<(SimTime, E)> {
        let index = match self.near.first() {
            Some(first) if first.time > limit => return None,
            Some(_) => self.near.pop(),
            None => self.pop_far(limit)?,
        };
        self.last = self.nodes[index as usize].position;
        self.free(index).map(|event| (self.last.time, event))
    }

    /// The time of the earliest event.
    #[inline]
    pub fn peek_time(&self) -> Option<SimTime> {
        self.near.first().map(|first| first.time).or_else(|| self.far.earliest())
    }

    /// Removes the event that `key` names and returns it; `None` if it has been popped or
    /// cancelled before.
    pub fn cancel(&mut self, key: EventKey) -> Option<E> {
        let node = self.nodes.get(key.index as usize)?;
        if node.position.sequence != key.sequence || node.event.is_none() {
            return None;
        }
        if node.prev == IN_NEAR {
            self.near.remove(node.position);
        } else {
            self.far.remove(&mut self.nodes, key.index);
        }
        self.free(key.index)
    }

    /// Number of pending events.
    pub fn len(&self) -> usize {
        self.near.len() + self.far.len()
    }

    /// Whether no event is pending.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The place of the event popped last; before the first one, the beginning of time.
    #[inline]
    pub fn last(&self) -> Position {
        self.last
    }

    /// The place behind all events of this time that have been scheduled so far.
    pub fn end_of(&self, time: SimTime) -> Position {
        Position { time, sequence: self.sequence }
    }

    #[inline]
    fn insert(&mut self, position: Position, event: E) -> EventKey {
        let index = self.allocate(position, event);
        if self.near.is_full() {
            self.pass_on();
        }
        if self.far.earliest().is_some_and(|earliest| earliest <= position.time) {
            self.far.insert(&mut self.nodes, index, self.last.time);
        } else {
            self.near.insert(position, index);
        }
        EventKey { index, sequence: position.sequence }
    }

    /// Moves the last events of the ring to the other tier: all of one time, so that order among
    /// them is a matter of one tier.
    #[cold]
    fn pass_on(&mut self) {
        let time = self.near.last().map(|last| last.time);
        while self.near.last().map(|last| last.time) == time
            && let Some(index) = self.near.pop_last()
        {
            self.far.insert(&mut self.nodes, index, self.last.time);
        }
    }

    /// Removes the earliest event, which is due by `limit`, where the ring is empty.
    fn pop_far(&mut self, limit: SimTime) -> Option<u32> {
        if self.far.earliest()? > limit {
            return None;
        }
        if self.far.len() <= Near::REFILL {
            while let Some(index) = self.far.pop(&mut self.nodes) {
                let node = &mut self.nodes[index as usize];
                node.prev = IN_NEAR;
                self.near.insert(node.position, index);
            }
            return Some(self.near.pop());
        }
        self.far.pop(&mut self.nodes)
    }

    #[inline]
    fn allocate(&mut self, position: Position, event: E) -> u32 {
        let index = self.free;
        if index == NONE {
            let index = u32::try_from(self.nodes.len())
                .ok()
                .filter(|&index| index < IN_NEAR)
                .expect("fewer than 2^32 - 2 events are pending");
            let event = Some(event);
            self.nodes.push(Node { position, prev: IN_NEAR, next: NONE, event });
            return index;
        }
        let node = &mut self.nodes[index as usize];
        self.free = node.next;
        node.position = position;
        node.prev = IN_NEAR;
        node.event = Some(event);
        index
    }

    #[inline]
    fn free(&mut self, index: u32) -> Option<E> {
        let node = &mut self.nodes[index as usize];
        node.next = self.free;
        self.free = index;
        node.event.take()
    }
}

impl<E> Default for EventQueue<E> {
    fn default() -> Self {
        Self::new()
    }
}
