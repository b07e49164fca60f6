//! FQ-CoDel: a queue for each flow, served in turns, each with `CoDel`.
//!
//! Purpose: a flow's hash chooses one of many queues. Queues take turns by deficit round robin
//! with a quantum of bytes; those that just began to be used are served before the others, so a
//! flow that sends less than its share hardly waits. If all queues together hold too much, half of
//! the one with most bytes (at most 64 frames) is dropped from its head.
//!
//! Assumptions: the hash is salted from the station's random stream.
//!
//! Reference: RFC 8290.

use rand::Rng;
use tapestry_core::{DataRate, RandomStream, SimTime};

use super::codel::{Control, Law};
use super::drop_tail::Room;
use super::packet::flow_hash;
use super::store::{Fifo, Queued, Store};
use super::{FqCoDelConfig, LEAST_QUANTUM, QueueDisc, QueueEvent, Report};
use crate::Frame;
use crate::counters::DropReason;

#[derive(Debug)]
pub(crate) struct FqCoDel {
    room: Room,
    law: Law,
    quantum: i64,
    salt: u64,
    flows: Vec<Flow>,
    new: Turns,
    old: Turns,
    store: Store,
    frames: u32,
    bytes: u64,
}

#[derive(Debug, Clone)]
struct Flow {
    fifo: Fifo,
    control: Control,
    /// Bytes that it may still send in its turn.
    deficit: i64,
    /// Whether it is in one of the lists of turns.
    active: bool,
    /// The next in that list.
    next: u32,
}

/// A list of flows, in the order of their turns.
#[derive(Debug, Clone, Copy)]
struct Turns {
    head: u32,
    tail: u32,
}

const NONE: u32 = u32::MAX;
/// Most frames that an overflow drops at once.
const DROP_BATCH: u32 = 64;

impl Turns {
    const EMPTY: Self = Self { head: NONE, tail: NONE };

    fn push(&mut self, flows: &mut [Flow], flow: u32) {
        flows[flow as usize].next = NONE;
        match self.tail {
            NONE => self.head = flow,
            tail => flows[tail as usize].next = flow,
        }
        self.tail = flow;
    }

    fn pop(&mut self, flows: &[Flow]) {
        self.head = flows[self.head as usize].next;
        if self.head == NONE {
            self.tail = NONE;
        }
    }
}

impl FqCoDel {
    pub(super) fn new(config: &FqCoDelConfig, mtu: u32, mut random: RandomStream) -> Self {
        let flow = Flow {
            fifo: Fifo::new(),
            control: Control::default(),
            deficit: 0,
            active: false,
            next: NONE,
        };
        Self {
            room: Room::new(config.codel.limit),
            law: Law::new(&config.codel, mtu),
            quantum: config.quantum_bytes.max(LEAST_QUANTUM).into(),
            salt: random.next_u64(),
            flows: vec![flow; config.flows.max(1) as usize],
            new: Turns::EMPTY,
            old: Turns::EMPTY,
            store: Store::new(),
            frames: 0,
            bytes: 0,
        }
    }

    fn flow_of(&self, frame: &Frame) -> u32 {
        let hash = flow_hash(frame.bytes(), self.salt);
        // The upper bits are the better ones.
        ((u128::from(hash) * self.flows.len() as u128) >> 64) as u32
    }

    /// Drops from the head of the queue with most bytes.
    fn drop_from_fattest(&mut self, report: &mut impl Report) {
        let mut fattest = NONE;
        let mut most = 0;
        for turns in [self.new, self.old] {
            let mut at = turns.head;
            while at != NONE {
                let flow = &self.flows[at as usize];
                if flow.fifo.bytes() > most {
                    (fattest, most) = (at, flow.fifo.bytes());
                }
                at = flow.next;
            }
        }
        let Some(flow) = self.flows.get_mut(fattest as usize) else { return };
        for _ in 0..flow.fifo.frames().div_ceil(2).min(DROP_BATCH) {
            if let Some(queued) = self.store.pop(&mut flow.fifo) {
                self.frames -= 1;
                self.bytes -= queued.frame.len() as u64;
                report(&queued.frame, QueueEvent::Dropped(DropReason::QueueFull));
            }
        }
    }
}

impl QueueDisc for FqCoDel {
    fn enqueue(
        &mut self,
        now: SimTime,
        rate: Option<DataRate>,
        frame: Frame,
        report: &mut impl Report,
    ) {
        let at = self.flow_of(&frame);
        self.frames += 1;
        self.bytes += frame.len() as u64;
        let flow = &mut self.flows[at as usize];
        self.store.push(&mut flow.fifo, now, frame.clone());
        if !flow.active {
            flow.active = true;
            flow.deficit = self.quantum;
            self.new.push(&mut self.flows, at);
        }
        // What goes may be the newcomer itself.
        while self.frames > 0 && !self.room.holds(rate, self.frames, self.bytes) {
            self.drop_from_fattest(report);
        }
        let (frames, bytes) = (self.frames as usize, self.bytes);
        report(&frame, QueueEvent::Enqueued { frames, bytes });
    }

    fn dequeue(&mut self, now: SimTime, report: &mut impl Report) -> Option<Frame> {
        loop {
            let from_new = self.new.head != NONE;
            let turns = if from_new { &mut self.new } else { &mut self.old };
            let at = turns.head;
            let flow = self.flows.get_mut(at as usize)?;
            if flow.deficit <= 0 {
                flow.deficit += self.quantum;
                turns.pop(&self.flows);
                self.old.push(&mut self.flows, at);
                continue;
            }
            let (frames, bytes) = (flow.fifo.frames(), flow.fifo.bytes());
            let Flow { control, fifo, .. } = flow;
            let frame = self.law.dequeue(control, &mut self.store, fifo, now, report);
            self.frames -= frames - fifo.frames();
            self.bytes -= bytes - fifo.bytes();
            if let Some(frame) = frame {
                flow.deficit = flow.deficit.saturating_sub_unsigned(frame.len() as u64);
                return Some(frame);
            }
            turns.pop(&self.flows);
            if from_new {
                // Else a flow could stay new for ever by sending a frame now and then.
                self.old.push(&mut self.flows, at);
            } else {
                self.flows[at as usize].active = false;
            }
        }
    }

    fn purge(&mut self, _now: SimTime) -> Option<Queued> {
        while self.frames > 0 {
            let turns = if self.new.head == NONE { &mut self.old } else { &mut self.new };
            let flow = self.flows.get_mut(turns.head as usize)?;
            if let Some(queued) = self.store.pop(&mut flow.fifo) {
                self.frames -= 1;
                self.bytes -= queued.frame.len() as u64;
                return Some(queued);
            }
            flow.active = false;
            turns.pop(&self.flows);
        }
        None
    }

    fn len(&self) -> usize {
        self.frames as usize
    }
}

#[cfg(test)]
mod tests;
