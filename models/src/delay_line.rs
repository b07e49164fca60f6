//! Frames under way in one direction of a link.
//!
//! Purpose: a long delay holds many frames, nearly always in the order in which they arrive. Only
//! the first of them has its event in the event queue, which so stays short; the others wait here,
//! in memory that is written and read in order.
//!
//! Assumptions: every event has its place in the order of all events from the beginning, as if it
//! had been scheduled at once; so it does not matter to anybody who waits where. One that overtakes
//! those before it goes into the event queue by itself.

use std::collections::VecDeque;

use tapestry_core::{EventQueue, Position, SimTime};

use crate::event::Event;

#[derive(Debug, Default)]
pub(crate) struct DelayLine {
    /// The event of this line that is in the event queue; the earliest of the line.
    first: Option<Position>,
    /// Those behind it, by their places.
    waiting: VecDeque<(Position, Event)>,
}

impl DelayLine {
    /// Adds an arrival at a time, behind all events scheduled for that time so far.
    pub(crate) fn schedule(&mut self, queue: &mut EventQueue<Event>, at: SimTime, event: Event) {
        let place = queue.reserve(at);
        self.schedule_reserved(queue, place, event);
    }

    /// Adds an arrival at a place that has been reserved and has not passed.
    pub(crate) fn schedule_reserved(
        &mut self,
        queue: &mut EventQueue<Event>,
        place: Position,
        event: Event,
    ) {
        let last = self.waiting.back().map(|(place, _)| *place).or(self.first);
        match last {
            Some(last) if last < place => self.waiting.push_back((place, event)),
            Some(_) => {
                queue.schedule_reserved(place, event);
            }
            None => {
                self.first = Some(place);
                queue.schedule_reserved(place, event);
            }
        }
    }

    /// The event at this place has come; if it is the line's, the next one takes its turn.
    pub(crate) fn arrived(&mut self, queue: &mut EventQueue<Event>, place: Position) {
        if self.first != Some(place) {
            return;
        }
        self.first = self.waiting.pop_front().map(|(place, event)| {
            queue.schedule_reserved(place, event);
            place
        });
    }
}
