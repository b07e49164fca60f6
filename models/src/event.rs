//! The events of a network, and what a channel may do while it handles one.

use tapestry_core::{EventQueue, Position, SimTime};

use crate::counters::{Counters, DropReason};
use crate::delay_line::DelayLine;
use crate::impair::{Outcome, Passage};
use crate::queue::QueueEvent;
use crate::trace::{Trace, TraceEvent, TraceRecord};
use crate::{Frame, LinkId};

/// Something due at a station or a device. Stations are counted through all links.
#[derive(Debug, Clone)]
pub(crate) enum Event {
    /// A frame offered while the network was behind its time.
    Offer { station: u32, frame: Frame },
    /// A timer of the station's channel; void if the link went down since (`epoch`).
    Timer { station: u32, epoch: u32, timer: Timer },
    /// A frame arrives at this station.
    Arrival { station: u32, epoch: u32, frame: Frame },
    /// A frame that got lost would arrive at this station now.
    Loss { station: u32, epoch: u32, frame: Frame },
    /// A frame from this station arrives at all others of its link.
    Broadcast { source: u32, epoch: u32, frame: Frame },
    /// A device asked to be called; void if it has asked for another time since.
    Device { device: u32 },
}

/// What a channel waits for at a station.
#[expect(clippy::enum_variant_names, reason = "ns-3's names")]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Timer {
    /// The last bit has been sent.
    TransmitComplete,
    /// The back-off is over.
    TransmitStart,
    /// The interframe gap is over.
    TransmitReady,
}

/// An event of the present instant that comes before everything in the queue, which it need not
/// pass therefore.
#[derive(Debug)]
pub(crate) struct Next {
    pub(crate) position: Position,
    pub(crate) event: Event,
}

/// A link's surroundings while one of its events is handled.
pub(crate) struct Context<'a> {
    pub(crate) now: SimTime,
    /// Where this is in the order of events: what lies before it has happened.
    pub(crate) position: Position,
    pub(crate) link: LinkId,
    /// Number of the link's station 0.
    pub(crate) first_station: u32,
    pub(crate) epoch: u32,
    pub(crate) queue: &'a mut EventQueue<Event>,
    pub(crate) next: &'a mut Option<Next>,
    pub(crate) counters: &'a mut [Counters],
    /// Copies of frames on their way to receivers.
    pub(crate) in_flight: &'a mut u64,
    pub(crate) trace: &'a mut Option<Box<dyn Trace>>,
}

impl Context<'_> {
    pub(crate) fn start_timer(&mut self, delay: SimTime, station: usize, timer: Timer) {
        let station = self.first_station + station as u32;
        self.queue.schedule(self.now + delay, Event::Timer { station, epoch: self.epoch, timer });
    }

    /// The place of a timer that ends a state; see [`EventQueue::reserve`].
    pub(crate) fn reserve_timer(&mut self, delay: SimTime) -> Position {
        self.queue.reserve(self.now + delay)
    }

    /// Starts a timer whose place has been reserved.
    pub(crate) fn start_reserved(&mut self, place: Position, station: usize, timer: Timer) {
        if let Some(next) = self.next.take_if(|next| place < next.position) {
            self.queue.schedule_reserved(next.position, next.event);
        }
        let station = self.first_station + station as u32;
        self.queue.schedule_reserved(place, Event::Timer { station, epoch: self.epoch, timer });
    }

    /// The arrival of a frame at a station.
    pub(crate) fn arrival(&self, station: usize, frame: Frame) -> Event {
        let station = self.first_station + station as u32;
        Event::Arrival { station, epoch: self.epoch, frame }
    }

    /// A frame from `source` that passed an impaired wire, to the other one of two stations.
    pub(crate) fn passed(&mut self, line: &mut DelayLine, source: usize, passage: Passage) {
        let Passage { outcome, arrival, reordered } = passage;
        let station = 1 - source;
        if outcome.lost {
            let station = self.first_station + station as u32;
            let (epoch, frame) = (self.epoch, outcome.frame);
            line.schedule(self.queue, arrival, Event::Loss { station, epoch, frame });
            return;
        }
        self.counters[source].impaired.reordered += u64::from(reordered);
        if self.count(source, &outcome) {
            let copy = self.arrival(station, outcome.frame.clone());
            line.schedule(self.queue, arrival, copy);
        }
        let event = self.arrival(station, outcome.frame);
        line.schedule(self.queue, arrival, event);
    }

    /// Counts what happened to a frame that is not lost; true if there is a second copy of it,
    /// which is on its way now.
    pub(crate) fn count(&mut self, station: usize, outcome: &Outcome) -> bool {
        let impaired = &mut self.counters[station].impaired;
        impaired.corrupted += u64::from(outcome.corrupted);
        impaired.marked += u64::from(outcome.marked);
        impaired.duplicated += u64::from(outcome.duplicated);
        *self.in_flight += u64::from(outcome.duplicated);
        outcome.duplicated
    }

    /// A frame from `source` arrives at all other stations after `delay`.
    pub(crate) fn broadcast(&mut self, delay: SimTime, source: usize, frame: Frame) {
        let at = self.now + delay;
        let epoch = self.epoch;
        let event = if self.counters.len() == 2 {
            let station = self.first_station + 1 - source as u32;
            Event::Arrival { station, epoch, frame }
        } else {
            Event::Broadcast { source: self.first_station + source as u32, epoch, frame }
        };
        let comes_next = at == self.now
            && self.next.is_none()
            && self.queue.peek_time().is_none_or(|earliest| earliest > at);
        if comes_next {
            *self.next = Some(Next { position: self.queue.reserve(at), event });
        } else {
            self.queue.schedule(at, event);
        }
    }

    /// Counts a completed transmission towards `receivers` stations.
    pub(crate) fn transmitted(&mut self, station: usize, frame: &Frame, receivers: usize) {
        self.counters[station].transmitted.add(frame.len());
        *self.in_flight += receivers as u64;
        self.trace(TraceEvent::PhyTxEnd, station, frame, None);
    }

    /// Counts a loss in the transmitter.
    pub(crate) fn drop_tx(
        &mut self,
        event: TraceEvent,
        station: usize,
        frame: &Frame,
        reason: DropReason,
    ) {
        self.counters[station].tx_dropped[reason] += 1;
        self.trace(event, station, frame, Some(reason));
    }

    /// Counts what became of a frame in the queue of a station.
    #[inline]
    pub(crate) fn queue_event(&mut self, station: usize, frame: &Frame, event: QueueEvent) {
        let queue = &mut self.counters[station].queue;
        match event {
            QueueEvent::Enqueued { frames, bytes } => queue.enqueued(frames, bytes),
            QueueEvent::Dequeued { sojourn } => queue.dequeued(sojourn),
            QueueEvent::Marked => {
                queue.marked += 1;
                self.trace(TraceEvent::MacTxMark, station, frame, None);
            }
            QueueEvent::Dropped(reason) => {
                self.drop_tx(TraceEvent::MacTxDrop, station, frame, reason);
            }
        }
    }

    /// Counts a copy that ends at a receiver: delivered, or lost for a reason.
    pub(crate) fn received(&mut self, station: usize, frame: &Frame, lost: Option<DropReason>) {
        *self.in_flight -= 1;
        if let Some(reason) = lost {
            self.counters[station].rx_dropped[reason] += 1;
            self.trace(TraceEvent::PhyRxDrop, station, frame, lost);
        } else {
            self.counters[station].delivered.add(frame.len());
            self.trace(TraceEvent::PhyRxEnd, station, frame, None);
            self.trace(TraceEvent::MacRx, station, frame, None);
        }
    }

    #[inline]
    pub(crate) fn trace(
        &mut self,
        event: TraceEvent,
        station: usize,
        frame: &Frame,
        reason: Option<DropReason>,
    ) {
        if let Some(trace) = self.trace {
            let station = station as u32;
            let (at, link) = (self.now, self.link);
            trace.record(TraceRecord { at, link, station, event, frame, reason });
        }
    }
}
