//! Point-to-point channel: two stations, full duplex.
//!
//! Purpose: each direction has a queue, a transmitter that serialises one frame after
//! another without gap, and a wire that delays. A frame arrives one serialisation time and one
//! propagation delay after its transmission begins. Either direction may have impairments, which
//! stand in `impair`.
//!
//! Assumptions: no collisions; a direction never reorders, so where the delay is shortened while
//! frames are under way, later frames wait for the earlier ones.
//!
//! Not modelled: interframe gap other than by the framing, the PPP header of ns-3's model (frames stay Ethernet).
//!
//! Reference: ns-3 `PointToPointNetDevice`, `PointToPointChannel`, whose order of scheduling is
//! kept: the end of a transmission first, then its arrival.

use tapestry_core::link::LinkParameters;
use tapestry_core::{DataRate, Position, SimTime};

use crate::counters::DropReason;
use crate::delay_line::DelayLine;
use crate::event::{Context, Timer};
use crate::impair::{Impairer, Named};
use crate::queue::Queue;
use crate::trace::TraceEvent;
use crate::{Frame, Framing};

#[derive(Debug)]
pub(crate) struct PointToPoint {
    sides: Box<[Side; 2]>,
}

/// The transmitter of one direction.
#[derive(Debug)]
struct Side {
    rate: Option<DataRate>,
    delay: SimTime,
    framing: Framing,
    /// Whatever goes beyond rate, delay and framing.
    impairer: Option<Box<Impairer>>,
    queue: Queue,
    /// The frame in transmission and the place of its arrival, if that is known already.
    current: Option<(Frame, Option<Position>)>,
    line: DelayLine,
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
        let sides = queues.map(|queue| Side {
            rate,
            delay,
            framing,
            impairer: None,
            queue,
            current: None,
            line: DelayLine::default(),
            last_arrival: SimTime::ZERO,
        });
        Self { sides: Box::new(sides) }
    }

    /// Changes one direction at `now`, for frames that are not on the wire yet; `frame_bytes` is
    /// the longest frame's length.
    pub(crate) fn set(
        &mut self,
        now: SimTime,
        named: &Named<'_>,
        frame_bytes: usize,
        parameters: &LinkParameters,
    ) {
        let side = &mut self.sides[named.station as usize];
        side.rate = parameters.rate;
        side.delay = parameters.delay;
        side.framing = parameters.framing;
        // Once made, it stays: its streams go on where they are if it is needed again.
        match &mut side.impairer {
            Some(impairer) => impairer.set(now, parameters),
            None if parameters.is_plain() => {}
            none => {
                *none = Some(Box::new(Impairer::new(now, named, frame_bytes, parameters)));
            }
        }
    }

    /// Rate, delay and framing of one direction.
    pub(crate) fn parameters(&self, station: usize) -> LinkParameters {
        let side = &self.sides[station];
        LinkParameters { framing: side.framing, ..LinkParameters::new(side.rate, side.delay) }
    }

    /// Gives a station another queue.
    pub(crate) fn set_queue(&mut self, cx: &mut Context<'_>, station: usize, queue: Queue) {
        let side = &mut self.sides[station];
        let (now, rate) = (cx.now, side.queue_rate());
        let report = |frame: &Frame, event| cx.queue_event(station, frame, event);
        side.queue.replace_with(queue, now, rate, report);
    }

    pub(crate) fn offer(&mut self, cx: &mut Context<'_>, station: usize, frame: Frame) {
        let side = &mut self.sides[station];
        let (now, rate) = (cx.now, side.queue_rate());
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
        if let Some(impairer) = &mut side.impairer {
            let finish = impairer.finish(cx.now, frame.len());
            if finish > cx.now {
                cx.start_timer(finish - cx.now, station, Timer::TransmitComplete);
                side.current = Some((frame, None));
            } else {
                cx.transmitted(station, &frame, 1);
                side.launch(cx, station, frame);
            }
            return;
        }
        let serialisation = match side.rate {
            None => SimTime::ZERO,
            Some(rate) => {
                let time = rate.transmit_time(side.framing.wire_bytes(frame.len()));
                cx.start_timer(time, station, Timer::TransmitComplete);
                time
            }
        };
        side.last_arrival = side.last_arrival.max(cx.now + serialisation + side.delay);
        if side.rate.is_none() {
            cx.transmitted(station, &frame, 1);
            let arrival = cx.arrival(1 - station, frame);
            side.line.schedule(cx.queue, side.last_arrival, arrival);
        } else {
            let place = cx.queue.reserve(side.last_arrival);
            side.current = Some((frame, Some(place)));
        }
    }

    pub(crate) fn transmit_complete(&mut self, cx: &mut Context<'_>, station: usize) {
        let side = &mut self.sides[station];
        let Some((frame, arrival)) = side.current.take() else { return };
        cx.transmitted(station, &frame, 1);
        match arrival {
            None => side.launch(cx, station, frame),
            Some(place) => {
                let arrival = cx.arrival(1 - station, frame);
                side.line.schedule_reserved(cx.queue, place, arrival);
            }
        }
        let now = cx.now;
        // More than one only if the rate limit was lifted meanwhile.
        while self.sides[station].current.is_none() {
            let report = |frame: &Frame, event| cx.queue_event(station, frame, event);
            let Some(next) = self.sides[station].queue.dequeue(now, report) else { return };
            self.transmit_start(cx, station, next);
        }
    }

    /// The present event is an arrival at this station.
    pub(crate) fn arrived(&mut self, cx: &mut Context<'_>, station: usize) {
        self.sides[1 - station].line.arrived(cx.queue, cx.position);
    }

    /// Drops what is queued or in transmission: the link goes down.
    pub(crate) fn cut(&mut self, cx: &mut Context<'_>) {
        for (station, side) in self.sides.iter_mut().enumerate() {
            if let Some((frame, _)) = side.current.take() {
                cx.drop_tx(TraceEvent::PhyTxDrop, station, &frame, DropReason::LinkDown);
            }
            while let Some(frame) = side.queue.purge(cx.now) {
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

impl Side {
    /// At what rate the queue empties, as far as it can be said.
    fn queue_rate(&self) -> Option<DataRate> {
        match &self.impairer {
            None => self.rate,
            Some(impairer) => impairer.queue_rate(),
        }
    }

    /// A frame has been sent and goes onto the wire.
    fn launch(&mut self, cx: &mut Context<'_>, station: usize, frame: Frame) {
        if let Some(impairer) = &mut self.impairer {
            let passage = impairer.pass(cx.now, &mut self.last_arrival, frame);
            cx.passed(&mut self.line, station, passage);
        } else {
            self.last_arrival = self.last_arrival.max(cx.now + self.delay);
            let arrival = cx.arrival(1 - station, frame);
            self.line.schedule(cx.queue, self.last_arrival, arrival);
        }
    }
}
