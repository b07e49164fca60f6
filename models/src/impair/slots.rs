//! Slots: frames collect and go onto the wire together.
//!
//! Purpose: a frame that has been sent waits for the next slot. A slot lets pass what had been sent
//! when it came, up to its number of frames or bytes; the rest waits for the slot after it. After
//! a rest, the next slot comes a whole interval after the first frame.
//!
//! Reference: tc-netem(8), `slot`; `get_slot_next` of the kernel's `sch_netem.c`.

use rand::RngExt;
use tapestry_core::link::Slots;
use tapestry_core::{RandomStream, SimTime};

#[derive(Debug)]
pub(super) struct SlotGate {
    /// The present slot.
    at: SimTime,
    frames_left: u32,
    bytes_left: u64,
}

impl SlotGate {
    pub(super) fn new(now: SimTime, slots: &Slots, random: &mut RandomStream) -> Self {
        let mut this = Self { at: now, frames_left: 0, bytes_left: 0 };
        this.next(now, slots, random);
        this
    }

    /// When a frame leaves that has been sent at `now`.
    pub(super) fn departure(
        &mut self,
        now: SimTime,
        slots: &Slots,
        random: &mut RandomStream,
        len: usize,
    ) -> SimTime {
        if self.at < now {
            self.next(now, slots, random);
        } else if self.frames_left == 0 || self.bytes_left == 0 {
            self.next(self.at, slots, random);
        }
        self.frames_left -= 1;
        self.bytes_left = self.bytes_left.saturating_sub(len as u64);
        self.at
    }

    fn next(&mut self, from: SimTime, slots: &Slots, random: &mut RandomStream) {
        let nanos = random
            .random_range(slots.min.as_nanos()..=slots.max.as_nanos().max(slots.min.as_nanos()));
        self.at = from + SimTime::from_nanos(nanos);
        self.frames_left = slots.frames.unwrap_or(u32::MAX).max(1);
        self.bytes_left = slots.bytes.map_or(u64::MAX, |bytes| bytes.as_bytes().max(1));
    }
}
