//! The far tier of the event queue: a radix queue.
//!
//! How: let `base` be the time of the event popped here last. An event at time `t` waits in the
//! list of slot (level, digit), where level is the position of the highest base-64 digit in which
//! `t` differs from `base`, and digit is `t`'s digit there. The lowest occupied slot of the lowest
//! occupied level therefore holds the earliest event. To pop from level 0 is to unlink the head of
//! a list. To pop from a higher level moves `base` to the slot's earliest time and deals the slot's
//! events to lower levels; an event moves down at most ten times and in practice two or three.
//! Events of one time always share a list, and on level 0 a list holds nothing else and is sorted.
//!
//! Reference: Ahuja, Mehlhorn, Orlin, Tarjan, "Faster algorithms for the shortest path problem"
//! (radix heap); Varghese, Lauck, "Hashed and hierarchical timing wheels".

use super::{NONE, Node};
use crate::SimTime;

/// Any number of events, linked through their nodes.
#[derive(Debug, Clone)]
pub(super) struct Far {
    len: usize,
    /// Time of the event popped here last, in nanoseconds; no event here is earlier.
    base: u64,
    /// Time of the earliest event, in nanoseconds; meaningful only while there is one.
    earliest: u64,
    /// Bit L is set while level L has an occupied slot.
    occupied_levels: u32,
    levels: Box<[Level; LEVELS]>,
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

impl Far {
    pub(super) fn new() -> Self {
        let slot = Slot { head: NONE, tail: NONE, earliest: 0 };
        let level = Level { occupied: 0, slots: [slot; SLOTS] };
        Self {
            len: 0,
            base: 0,
            earliest: 0,
            occupied_levels: 0,
            levels: Box::new(std::array::from_fn(|_| level.clone())),
        }
    }

    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// The time of the earliest event.
    #[inline]
    pub(super) fn earliest(&self) -> Option<SimTime> {
        (self.len > 0).then(|| SimTime::from_nanos(self.earliest))
    }

    /// Removes the earliest event and returns its node.
    pub(super) fn pop<E>(&mut self, nodes: &mut [Node<E>]) -> Option<u32> {
        let (mut level, mut digit) = self.first_slot()?;
        self.base = self.earliest;
        let slot = self.levels[level].slots[digit];
        if level > 0 && slot.head != slot.tail {
            self.deal(nodes, level, digit);
            (level, digit) = (0, self.base as usize % SLOTS);
        }
        let index = self.levels[level].slots[digit].head;
        self.unlink(nodes, index, level, digit);
        Some(index)
    }

    /// Adds the event of a node, which like all that follow is not before `now`.
    pub(super) fn insert<E>(&mut self, nodes: &mut [Node<E>], index: u32, now: SimTime) {
        let time = nodes[index as usize].position.time.as_nanos();
        if self.len == 0 {
            (self.base, self.earliest) = (now.as_nanos(), time);
        }
        self.len += 1;
        self.earliest = self.earliest.min(time);
        self.link(nodes, index);
    }

    /// Removes the event of a node. Constant time, unless it was the earliest of its slot.
    pub(super) fn remove<E>(&mut self, nodes: &mut [Node<E>], index: u32) {
        let (level, digit) = self.place(nodes[index as usize].position.time.as_nanos());
        self.unlink(nodes, index, level, digit);
    }

    /// The slot that holds the earliest event.
    #[inline]
    fn first_slot(&self) -> Option<(usize, usize)> {
        if self.occupied_levels == 0 {
            return None;
        }
        let level = self.occupied_levels.trailing_zeros() as usize;
        Some((level, self.levels[level].occupied.trailing_zeros() as usize))
    }

    /// The slot in which an event at `time` (not before `base`) belongs.
    fn place(&self, time: u64) -> (usize, usize) {
        // `| 1` places an event at `base` itself on level 0.
        let highest_bit = ((time ^ self.base) | 1).ilog2();
        let level = highest_bit / DIGIT_BITS;
        (level as usize, (time >> (level * DIGIT_BITS)) as usize % SLOTS)
    }

    /// Links a node into the list where it belongs.
    fn link<E>(&mut self, nodes: &mut [Node<E>], index: u32) {
        let position = nodes[index as usize].position;
        let time = position.time.as_nanos();
        let (level, digit) = self.place(time);
        let bit = 1 << digit;
        let level_slots = &mut self.levels[level];
        let slot = &mut level_slots.slots[digit];
        if level_slots.occupied & bit == 0 {
            let node = &mut nodes[index as usize];
            (node.prev, node.next) = (NONE, NONE);
            *slot = Slot { head: index, tail: index, earliest: time };
            level_slots.occupied |= bit;
            self.occupied_levels |= 1 << level;
            return;
        }
        slot.earliest = slot.earliest.min(time);
        // Only level 0 is sorted; what comes late there is mostly what was scheduled late.
        let (mut prev, mut next) = (slot.tail, NONE);
        while level == 0 && prev != NONE && nodes[prev as usize].position > position {
            (prev, next) = (nodes[prev as usize].prev, prev);
        }
        let node = &mut nodes[index as usize];
        (node.prev, node.next) = (prev, next);
        match prev {
            NONE => slot.head = index,
            prev => nodes[prev as usize].next = index,
        }
        match next {
            NONE => slot.tail = index,
            next => nodes[next as usize].prev = index,
        }
    }

    /// Empties a slot above level 0 into the lower levels, after `base` has moved to its earliest
    /// time.
    fn deal<E>(&mut self, nodes: &mut [Node<E>], level: usize, digit: usize) {
        let mut index = self.levels[level].slots[digit].head;
        self.vacate(level, digit);
        while index != NONE {
            let next = nodes[index as usize].next;
            self.link(nodes, index);
            index = next;
        }
    }

    fn vacate(&mut self, level: usize, digit: usize) {
        self.levels[level].occupied &= !(1 << digit);
        if self.levels[level].occupied == 0 {
            self.occupied_levels &= !(1 << level);
        }
    }

    /// Takes a node out of the slot in which it is linked.
    fn unlink<E>(&mut self, nodes: &mut [Node<E>], index: u32, level: usize, digit: usize) {
        let Node { position, prev, next, .. } = nodes[index as usize];
        let slot = &mut self.levels[level].slots[digit];
        match prev {
            NONE => slot.head = next,
            prev => nodes[prev as usize].next = next,
        }
        match next {
            NONE => slot.tail = prev,
            next => nodes[next as usize].prev = prev,
        }
        let time = position.time.as_nanos();
        if (prev, next) == (NONE, NONE) {
            self.vacate(level, digit);
        } else if level > 0 && time == slot.earliest {
            self.find_earliest(nodes, level, digit);
        }
        self.len -= 1;
        if time == self.earliest
            && let Some((level, digit)) = self.first_slot()
        {
            self.earliest = self.levels[level].slots[digit].earliest;
        }
    }

    /// Restores a slot's earliest time after an event with that time has left. Events that share
    /// the old time end the search.
    fn find_earliest<E>(&mut self, nodes: &[Node<E>], level: usize, digit: usize) {
        let slot = &mut self.levels[level].slots[digit];
        let old = slot.earliest;
        let mut earliest = u64::MAX;
        let mut index = slot.head;
        while index != NONE && earliest != old {
            let node = &nodes[index as usize];
            earliest = earliest.min(node.position.time.as_nanos());
            index = node.next;
        }
        slot.earliest = earliest;
    }
}
