//! The event queue.
//!
//! Purpose: hands out events by time, and events of the same time in the order in which they were
//! scheduled (first in, first out). That order is semantics, not accident: results depend on it
//! and ns-3 orders ties the same way.
//!
//! How: a radix queue. Let `now` be the time of the event popped last. An event at time `t` waits
//! in the list of slot (level, digit), where level is the position of the highest base-64 digit in
//! which `t` differs from `now`, and digit is `t`'s digit there. The lowest occupied slot of the
//! lowest occupied level therefore holds the earliest event. To pop from level 0 is to unlink the
//! head of a list. To pop from a higher level moves `now` to the slot's earliest time and deals
//! the slot's events, in order, to lower levels; an event moves down at most ten times and in
//! practice two or three. Events of one time always share a list, so ties need no sequence number,
//! and scheduling at the current time is appending to the list that is being popped.
//!
//! Assumptions: fewer than 2³² − 1 events pending. Memory grows to the largest number ever pending
//! and is then reused: no allocation once warm.
//!
//! Not modelled: going back in time (see [`EventQueue::schedule`]); use from several threads.
//!
//! Reference: Ahuja, Mehlhorn, Orlin, Tarjan, "Faster algorithms for the shortest path problem"
//! (radix heap); Varghese, Lauck, "Hashed and hierarchical timing wheels".

use crate::SimTime;

/// Names a scheduled event, for cancellation. A key outlives its event harmlessly.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct EventKey {
    index: u32,
    generation: u32,
}

/// Pending events, earliest first, ties in the order of scheduling.
#[derive(Debug, Clone)]
pub struct EventQueue<E> {
    nodes: Vec<Node<E>>,
    /// Head of the list of free nodes, linked by `next`.
    free: u32,
    len: usize,
    /// Time of the event popped last, in nanoseconds.
    now: u64,
    /// Bit L is set while level L has an occupied slot.
    occupied_levels: u32,
    levels: Box<[Level; LEVELS]>,
}

#[derive(Debug, Clone)]
struct Node<E> {
    time: u64,
    prev: u32,
    next: u32,
    generation: u32,
    /// `None` while the node is free.
    event: Option<E>,
}

#[derive(Debug, Clone)]
struct Level {
    /// Bit S is set while slot S is occupied.
    occupied: u64,
    slots: [Slot; SLOTS],
}

/// A list of nodes; meaningful only while its bit is set.
#[derive(Debug, Clone, Copy)]
struct Slot {
    head: u32,
    tail: u32,
    /// Earliest time in the list, in nanoseconds.
    earliest: u64,
}

const DIGIT_BITS: u32 = 6;
const SLOTS: usize = 1 << DIGIT_BITS;
const LEVELS: usize = u64::BITS.div_ceil(DIGIT_BITS) as usize;
const NONE: u32 = u32::MAX;

impl<E> EventQueue<E> {
    /// An empty queue at time zero.
    pub fn new() -> Self {
        Self::with_capacity(0)
    }

    /// An empty queue with room for `events` pending events.
    pub fn with_capacity(events: usize) -> Self {
        let slot = Slot { head: NONE, tail: NONE, earliest: 0 };
        let level = Level { occupied: 0, slots: [slot; SLOTS] };
        Self {
            nodes: Vec::with_capacity(events),
            free: NONE,
            len: 0,
            now: 0,
            occupied_levels: 0,
            levels: Box::new(std::array::from_fn(|_| level.clone())),
        }
    }

    /// Adds `event`, due at `at`, behind all events already scheduled for that time.
    ///
    /// Time never runs back: an event for a time before that of the event popped last is due at
    /// the latter. Whoever must not schedule in the past checks it (see [`crate::Scheduler`]).
    pub fn schedule(&mut self, at: SimTime, event: E) -> EventKey {
        let time = at.as_nanos().max(self.now);
        let index = if self.free == NONE {
            let index = u32::try_from(self.nodes.len())
                .ok()
                .filter(|&index| index != NONE)
                .expect("fewer than 2^32 - 1 events are pending");
            self.nodes.push(Node {
                time,
                prev: NONE,
                next: NONE,
                generation: 0,
                event: Some(event),
            });
            index
        } else {
            let index = self.free;
            let node = &mut self.nodes[index as usize];
            self.free = node.next;
            node.time = time;
            node.event = Some(event);
            index
        };
        self.append(index, time);
        self.len += 1;
        EventKey { index, generation: self.nodes[index as usize].generation }
    }

    /// Removes and returns the earliest event with the time it is due.
    pub fn pop(&mut self) -> Option<(SimTime, E)> {
        let (level, digit) = self.first_slot()?;
        let slot = self.levels[level].slots[digit];
        self.now = slot.earliest;
        let event = if level == 0 || slot.head == slot.tail {
            self.release(slot.head, level, digit)
        } else {
            self.deal(level, digit);
            let digit = (self.now % SLOTS as u64) as usize;
            self.release(self.levels[0].slots[digit].head, 0, digit)
        };
        event.map(|event| (SimTime::from_nanos(self.now), event))
    }

    /// Removes and returns the earliest event if it is due by `limit`.
    pub fn pop_due(&mut self, limit: SimTime) -> Option<(SimTime, E)> {
        if self.peek_time()? <= limit { self.pop() } else { None }
    }

    /// The time of the earliest event.
    pub fn peek_time(&self) -> Option<SimTime> {
        let (level, digit) = self.first_slot()?;
        Some(SimTime::from_nanos(self.levels[level].slots[digit].earliest))
    }

    /// Removes the event that `key` names and returns it; `None` if it has been popped or
    /// cancelled before. Constant time, unless it was the earliest of its slot.
    pub fn cancel(&mut self, key: EventKey) -> Option<E> {
        let node = self.nodes.get(key.index as usize)?;
        if node.generation != key.generation || node.event.is_none() {
            return None;
        }
        let (level, digit) = self.place(node.time);
        self.release(key.index, level, digit)
    }

    /// Number of pending events.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether no event is pending.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The time of the event popped last; zero before the first.
    pub fn last_time(&self) -> SimTime {
        SimTime::from_nanos(self.now)
    }

    /// The slot that holds the earliest event.
    fn first_slot(&self) -> Option<(usize, usize)> {
        if self.occupied_levels == 0 {
            return None;
        }
        let level = self.occupied_levels.trailing_zeros() as usize;
        Some((level, self.levels[level].occupied.trailing_zeros() as usize))
    }

    /// The slot in which an event at `time` (not before `now`) belongs.
    fn place(&self, time: u64) -> (usize, usize) {
        // `| 1` places an event at `now` itself on level 0.
        let highest_bit = ((time ^ self.now) | 1).ilog2();
        let level = highest_bit / DIGIT_BITS;
        (level as usize, (time >> (level * DIGIT_BITS)) as usize % SLOTS)
    }

    /// Links a node at the end of the list where `time` belongs.
    fn append(&mut self, index: u32, time: u64) {
        let (level, digit) = self.place(time);
        let bit = 1 << digit;
        let level_slots = &mut self.levels[level];
        let slot = &mut level_slots.slots[digit];
        let node = &mut self.nodes[index as usize];
        node.next = NONE;
        if level_slots.occupied & bit == 0 {
            node.prev = NONE;
            *slot = Slot { head: index, tail: index, earliest: time };
            level_slots.occupied |= bit;
            self.occupied_levels |= 1 << level;
        } else {
            node.prev = slot.tail;
            self.nodes[slot.tail as usize].next = index;
            slot.tail = index;
            slot.earliest = slot.earliest.min(time);
        }
    }

    /// Empties a slot above level 0 into the lower levels, after `now` has moved to its earliest
    /// time.
    fn deal(&mut self, level: usize, digit: usize) {
        let mut index = self.levels[level].slots[digit].head;
        self.vacate(level, digit);
        while index != NONE {
            let node = &self.nodes[index as usize];
            let (time, next) = (node.time, node.next);
            self.append(index, time);
            index = next;
        }
    }

    fn vacate(&mut self, level: usize, digit: usize) {
        self.levels[level].occupied &= !(1 << digit);
        if self.levels[level].occupied == 0 {
            self.occupied_levels &= !(1 << level);
        }
    }

    /// Unlinks a node from the slot in which it is linked, and frees it.
    fn release(&mut self, index: u32, level: usize, digit: usize) -> Option<E> {
        let node = &mut self.nodes[index as usize];
        let event = node.event.take();
        let (time, prev, next) = (node.time, node.prev, node.next);
        node.generation = node.generation.wrapping_add(1);
        node.next = self.free;
        self.free = index;
        self.len -= 1;

        let slot = &mut self.levels[level].slots[digit];
        match (prev, next) {
            (NONE, NONE) => self.vacate(level, digit),
            (NONE, next) => {
                slot.head = next;
                self.nodes[next as usize].prev = NONE;
            }
            (prev, NONE) => {
                slot.tail = prev;
                self.nodes[prev as usize].next = NONE;
            }
            (prev, next) => {
                self.nodes[prev as usize].next = next;
                self.nodes[next as usize].prev = prev;
            }
        }
        if level > 0 && time == self.levels[level].slots[digit].earliest {
            self.find_earliest(level, digit);
        }
        event
    }

    /// Restores a slot's earliest time after an event with that time has left. Events that share
    /// the old time end the search.
    fn find_earliest(&mut self, level: usize, digit: usize) {
        if self.levels[level].occupied & (1 << digit) == 0 {
            return;
        }
        let slot = &mut self.levels[level].slots[digit];
        let old = slot.earliest;
        let mut earliest = u64::MAX;
        let mut index = slot.head;
        while index != NONE && earliest != old {
            let node = &self.nodes[index as usize];
            earliest = earliest.min(node.time);
            index = node.next;
        }
        slot.earliest = earliest;
    }
}

impl<E> Default for EventQueue<E> {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn at(nanos: u64) -> SimTime {
        SimTime::from_nanos(nanos)
    }

    #[test]
    fn ties_come_out_in_the_order_of_scheduling() {
        let mut queue = EventQueue::new();
        for (time, event) in [(5, 'a'), (1_000_000, 'b'), (5, 'c'), (0, 'd'), (1_000_000, 'e')] {
            queue.schedule(at(time), event);
        }
        assert_eq!(queue.pop(), Some((at(0), 'd')));
        queue.schedule(at(1_000_000), 'f');
        queue.schedule(at(0), 'g');
        let rest: String = std::iter::from_fn(|| queue.pop().map(|(_, event)| event)).collect();
        assert_eq!(rest, "gacbef");
        assert_eq!(queue.last_time(), at(1_000_000));
    }

    #[test]
    fn looking_ahead_does_not_move_time() {
        let mut queue = EventQueue::new();
        queue.schedule(at(1_000), 'z');
        assert_eq!(queue.peek_time(), Some(at(1_000)));
        queue.schedule(at(3), 'a');
        assert_eq!(queue.peek_time(), Some(at(3)));
        assert_eq!(queue.pop_due(at(2)), None);
        assert_eq!(queue.pop_due(at(3)), Some((at(3), 'a')));
    }

    #[test]
    fn an_event_for_the_past_is_due_now() {
        let mut queue = EventQueue::new();
        queue.schedule(at(10), 'a');
        queue.schedule(at(10), 'b');
        queue.pop();
        queue.schedule(at(4), 'c');
        assert_eq!(queue.pop(), Some((at(10), 'b')));
        assert_eq!(queue.pop(), Some((at(10), 'c')));
    }

    #[test]
    fn stale_keys_are_harmless() {
        let mut queue = EventQueue::new();
        let key = queue.schedule(at(1), 'a');
        queue.pop();
        assert_eq!(queue.cancel(key), None);
        let reused = queue.schedule(at(2), 'b');
        assert_eq!(queue.cancel(key), None);
        assert_eq!(queue.cancel(reused), Some('b'));
        assert_eq!(queue.cancel(reused), None);
        assert!(queue.is_empty() && queue.pop().is_none() && queue.peek_time().is_none());
    }

    #[test]
    fn the_end_of_time_can_be_scheduled() {
        let mut queue = EventQueue::new();
        queue.schedule(SimTime::MAX, 1);
        queue.schedule(at(u64::MAX - 1), 0);
        queue.schedule(SimTime::MAX, 2);
        let events: Vec<_> = std::iter::from_fn(|| queue.pop()).collect();
        assert_eq!(events, [(at(u64::MAX - 1), 0), (SimTime::MAX, 1), (SimTime::MAX, 2)]);
    }

    #[derive(Debug, Clone)]
    enum Step {
        /// Schedule this long after the last popped time.
        Schedule(u64),
        Pop,
        /// Cancel the event scheduled as this one, modulo how many there were.
        Cancel(usize),
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let step = prop_oneof![
            4 => (0..4_u64, 0..63_u32).prop_map(|(n, shift)| Step::Schedule(n << shift)),
            4 => (0..5_000_u64).prop_map(Step::Schedule),
            4 => Just(Step::Pop),
            2 => any::<usize>().prop_map(Step::Cancel),
        ];
        prop::collection::vec(step, 0..400)
    }

    proptest! {
        #[test]
        fn behaves_like_a_sorted_list(steps in steps()) {
            let mut queue = EventQueue::new();
            // (time, sequence), removed when popped or cancelled.
            let mut model: Vec<(SimTime, usize)> = Vec::new();
            let mut keys = Vec::new();
            let mut now = SimTime::ZERO;
            for step in steps {
                match step {
                    Step::Schedule(after) => {
                        let time = now + at(after);
                        model.push((time, keys.len()));
                        keys.push(queue.schedule(time, keys.len()));
                    }
                    Step::Pop => {
                        let earliest = model.iter().min().copied();
                        model.retain(|&event| Some(event) != earliest);
                        prop_assert_eq!(queue.pop(), earliest);
                        now = earliest.map_or(now, |(time, _)| time);
                    }
                    Step::Cancel(which) if !keys.is_empty() => {
                        let which = which % keys.len();
                        let pending = model.iter().any(|&(_, event)| event == which);
                        model.retain(|&(_, event)| event != which);
                        prop_assert_eq!(queue.cancel(keys[which]), pending.then_some(which));
                    }
                    Step::Cancel(_) => {}
                }
                prop_assert_eq!(queue.len(), model.len());
                prop_assert_eq!(queue.peek_time(), model.iter().min().map(|&(time, _)| time));
            }
            model.sort_unstable();
            prop_assert_eq!(std::iter::from_fn(|| queue.pop()).collect::<Vec<_>>(), model);
        }
    }
}
