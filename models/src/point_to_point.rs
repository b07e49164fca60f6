//! Point-to-point channel: two stations, full duplex.
//!
//! Purpose: each direction has a queue, a transmitter that serialises one frame after
//! another without gap, and a wire that delays. A frame arrives one serialisation time and one
//! propagation delay after its transmission begins.
//!
//! Assumptions: no collisions; a direction never reorders, so where the delay is shortened while
//! frames are under way, later frames wait for the earlier ones.
//!
//! Not modelled: bit errors, interframe gap, the PPP header of ns-3's model (frames stay Ethernet).
//!
//! Reference: ns-3 `PointToPointNetDevice`, `PointToPointChannel`, whose order of scheduling is
//! kept: the end of a transmission first, then its arrival.

use tapestry_core::{DataRate, EventKey, SimTime};

use crate::counters::DropReason;
use crate::event::{Context, Timer};
use crate::queue::Queue;
use crate::trace::TraceEvent;
use crate::{Frame, Framing};

#[derive(Debug)]
pub(crate) struct PointToPoint {
    pub(crate) rate: Option<DataRate>,
    pub(crate) delay: SimTime,
    framing: Framing,
    sides: [Side; 2],
}

/// The transmitter of one direction.
#[derive(Debug)]
struct Side {
    queue: Queue,
    /// The frame in transmission and its arrival.
    current: Option<(Frame, EventKey)>,
    /// When the latest frame under way arrives.
    last_arrival: SimTime,
}

impl PointToPoint {
    pub(crate) fn new(
        rate: Option<DataRate>,
        delay: SimTime,
        framing: Framing,
        queues: [Queue; 2],
    ) -> Self {
        let sides = queues.map(|queue| Side { queue, current: None, last_arrival: SimTime::ZERO });
        Self { rate, delay, framing, sides }
    }

    pub(crate) fn offer(&mut self, cx: &mut Context<'_>, station: usize, frame: Frame) {
        let side = &mut self.sides[station];
        let (now, rate) = (cx.now, self.rate);
        let report = |frame: &Frame, event| cx.queue_event(station, frame, event);
        if side.current.is_some() {
            side.queue.enqueue(now, rate, frame, report);
        } else if let Some(frame) = side.queue.pass(now, rate, frame, report) {
            self.transmit_start(cx, station, frame);
        }
    }

    fn transmit_start(&mut self, cx: &mut Context<'_>, station: usize, frame: Frame) {
        cx.trace(TraceEvent::PhyTxBegin, station, &frame, None);
        let side = &mut self.sides[station];
        let serialisation = match self.rate {
            None => SimTime::ZERO,
            Some(rate) => {
                let time = rate.transmit_time(self.framing.wire_bytes(frame.len()));
                cx.start_timer(time, station, Timer::TransmitComplete);
                time
            }
        };
        side.last_arrival = side.last_arrival.max(cx.now + serialisation + self.delay);
        if self.rate.is_none() {
            cx.transmitted(station, &frame, 1);
            cx.arrive(side.last_arrival, 1 - station, frame);
        } else {
            let arrival = cx.arrive(side.last_arrival, 1 - station, frame.clone());
            side.current = Some((frame, arrival));
        }
    }

    pub(crate) fn transmit_complete(&mut self, cx: &mut Context<'_>, station: usize) {
        let Some((frame, _)) = self.sides[station].current.take() else { return };
        cx.transmitted(station, &frame, 1);
        let now = cx.now;
        // More than one only if the rate limit was lifted meanwhile.
        while self.sides[station].current.is_none() {
            let report = |frame: &Frame, event| cx.queue_event(station, frame, event);
            let Some(next) = self.sides[station].queue.dequeue(now, report) else { return };
            self.transmit_start(cx, station, next);
        }
    }

    /// Drops what is queued or in transmission: the link goes down.
    pub(crate) fn cut(&mut self, cx: &mut Context<'_>) {
        for (station, side) in self.sides.iter_mut().enumerate() {
            if let Some((frame, arrival)) = side.current.take() {
                cx.queue.cancel(arrival);
                cx.drop_tx(TraceEvent::PhyTxDrop, station, &frame, DropReason::LinkDown);
            }
            while let Some(frame) = side.queue.purge() {
                cx.drop_tx(TraceEvent::MacTxDrop, station, &frame, DropReason::LinkDown);
            }
            side.last_arrival = SimTime::ZERO;
        }
    }

    /// Frames queued or in transmission at a station.
    pub(crate) fn backlog(&self, station: usize) -> usize {
        let side = &self.sides[station];
        side.queue.len() + usize::from(side.current.is_some())
    }
}
