//! CSMA channel: a shared half-duplex medium with carrier sense, any number of stations.
//!
//! Purpose: a station that finds the medium idle transmits; one that finds it busy backs off for a
//! random time that doubles its range with every retry. The medium is busy while a frame is being
//! transmitted and while its last bit propagates; all other stations then receive it at once.
//! After each transmission a station waits an interframe gap of 96 bit times.
//!
//! Assumptions: all stations are equally far from each other (one delay). Stations sense the state
//! of the medium itself, without delay, so there are no collisions. On a link without rate limit a
//! transmission and the gap take no time; without delay, too, the medium is never busy and frames
//! pass straight through.
//!
//! Not modelled: collisions and jam signals, capture effect, full duplex.
//!
//! Reference: ns-3 `CsmaNetDevice`, `CsmaChannel`, `Backoff`, whose order of scheduling is kept:
//! arrivals, then the end of propagation, then the end of the gap. The latter two need no event of
//! their own unless a frame waits: whoever asks compares their places in that order with the
//! present one.

use rand::RngExt;
use tapestry_core::link::LinkParameters;
use tapestry_core::{DataRate, Mrg32k3a, Position, RandomStream, SimTime};

use crate::counters::DropReason;
use crate::event::{Context, Timer};
use crate::queue::Queue;
use crate::trace::TraceEvent;
use crate::{Backoff, Frame, Framing};

#[derive(Debug)]
pub(crate) struct Csma {
    rate: Option<DataRate>,
    delay: SimTime,
    framing: Framing,
    backoff: Backoff,
    medium: Medium,
    stations: Vec<Station>,
    /// Times of the latest length on the wire and of the gap at a rate: mostly the next ones, too,
    /// which saves divisions of 128 bits.
    times: Option<Times>,
}

#[derive(Debug, Clone, Copy)]
struct Times {
    rate: DataRate,
    bytes: u64,
    transmission: SimTime,
    gap: SimTime,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Medium {
    Transmitting,
    /// The last bit has reached all stations at this place in the order of events.
    IdleFrom(Position),
}

#[derive(Debug)]
struct Station {
    queue: Queue,
    state: Transmitter,
    /// The frame in back-off or transmission.
    current: Option<Frame>,
    retries: u32,
    random: BackoffRandom,
}

impl Station {
    fn dequeue(&mut self, cx: &mut Context<'_>, station: usize) -> Option<Frame> {
        self.queue.dequeue(cx.now, |frame, event| cx.queue_event(station, frame, event))
    }
}

/// Where a station's back-off draws come from.
#[derive(Debug)]
pub(crate) enum BackoffRandom {
    /// The station's named stream.
    Named(Box<RandomStream>),
    /// The stream that the station has in ns-3.
    Ns3(Mrg32k3a),
}

impl BackoffRandom {
    /// Uniform between 0 and 1.
    fn uniform(&mut self) -> f64 {
        match self {
            Self::Named(stream) => stream.random(),
            Self::Ns3(generator) => generator.uniform(),
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Transmitter {
    Ready,
    Backoff,
    Busy,
    /// The interframe gap ends here; there is an event for it if frames are queued.
    Gap(Position),
}

impl Medium {
    const IDLE: Self = Self::IdleFrom(Position::before(SimTime::ZERO));

    fn is_idle(self, cx: &Context<'_>) -> bool {
        matches!(self, Self::IdleFrom(place) if place < cx.position)
    }
}

/// The interframe gap of Ethernet: 96 bit times.
const GAP_BYTES: u64 = 12;

impl Csma {
    pub(crate) fn new(
        rate: Option<DataRate>,
        delay: SimTime,
        framing: Framing,
        backoff: Backoff,
        stations: impl Iterator<Item = (BackoffRandom, Queue)>,
    ) -> Self {
        let stations = stations
            .map(|(random, queue)| Station {
                queue,
                state: Transmitter::Ready,
                current: None,
                retries: 0,
                random,
            })
            .collect();
        Self { rate, delay, framing, backoff, medium: Medium::IDLE, stations, times: None }
    }

    /// Changes the medium, for frames whose transmission has not begun.
    pub(crate) fn set(&mut self, parameters: &LinkParameters) {
        self.rate = parameters.rate;
        self.delay = parameters.delay;
        self.framing = parameters.framing;
    }

    /// Rate, delay and framing.
    pub(crate) fn parameters(&self) -> LinkParameters {
        LinkParameters { framing: self.framing, ..LinkParameters::new(self.rate, self.delay) }
    }

    /// Gives a station another queue.
    pub(crate) fn set_queue(&mut self, cx: &mut Context<'_>, station: usize, queue: Queue) {
        let (now, rate) = (cx.now, self.rate);
        let report = |frame: &Frame, event| cx.queue_event(station, frame, event);
        self.stations[station].queue.replace_with(queue, now, rate, report);
    }

    pub(crate) fn offer(&mut self, cx: &mut Context<'_>, station: usize, frame: Frame) {
        let instant = self.rate.is_none() && self.delay == SimTime::ZERO;
        let receivers = self.stations.len() - 1;
        let (now, rate) = (cx.now, self.rate);
        let this = &mut self.stations[station];
        if let Transmitter::Gap(end) = this.state
            && this.queue.len() == 0
            && end < cx.position
        {
            // As its event would have, had a frame waited: the transmitter finds the queue empty,
            // which disciplines take note of.
            let nothing = this.queue.dequeue(end.time(), |_, _| {});
            debug_assert!(nothing.is_none());
            this.state = Transmitter::Ready;
        }
        let report = |frame: &Frame, event| cx.queue_event(station, frame, event);
        if this.state != Transmitter::Ready {
            let was_empty = this.queue.len() == 0;
            this.queue.enqueue(now, rate, frame, report);
            if let Transmitter::Gap(end) = this.state
                && was_empty
                && this.queue.len() > 0
            {
                cx.start_reserved(end, station, Timer::TransmitReady);
            }
            return;
        }
        let Some(frame) = this.queue.pass(now, rate, frame, report) else { return };
        if instant && self.medium.is_idle(cx) {
            cx.trace(TraceEvent::PhyTxBegin, station, &frame, None);
            cx.transmitted(station, &frame, receivers);
            cx.broadcast(SimTime::ZERO, station, frame);
        } else {
            this.current = Some(frame);
            self.transmit_start(cx, station);
        }
    }

    /// Transmits the current frame if the medium is idle, else backs off or gives up.
    pub(crate) fn transmit_start(&mut self, cx: &mut Context<'_>, station: usize) {
        let this = &mut self.stations[station];
        while let Some(frame) = &this.current {
            if self.medium.is_idle(cx) {
                cx.trace(TraceEvent::PhyTxBegin, station, frame, None);
                self.medium = Medium::Transmitting;
                this.state = Transmitter::Busy;
                this.retries = 0;
                let bytes = self.framing.wire_bytes(frame.len());
                let time = match (self.rate, self.times) {
                    (None, _) => SimTime::ZERO,
                    (Some(rate), Some(times)) if times.rate == rate && times.bytes == bytes => {
                        times.transmission
                    }
                    (Some(rate), _) => {
                        let transmission = rate.transmit_time(bytes);
                        let gap = rate.transmit_time(GAP_BYTES);
                        self.times = Some(Times { rate, bytes, transmission, gap });
                        transmission
                    }
                };
                cx.start_timer(time, station, Timer::TransmitComplete);
                return;
            }
            if this.retries < self.backoff.max_retries {
                cx.trace(TraceEvent::MacTxBackoff, station, frame, None);
                cx.counters[station].backoffs += 1;
                this.state = Transmitter::Backoff;
                this.retries += 1;
                let wait = backoff_time(&self.backoff, this.retries, &mut this.random);
                cx.start_timer(wait, station, Timer::TransmitStart);
                return;
            }
            let reason = DropReason::BackoffRetriesExceeded;
            cx.drop_tx(TraceEvent::PhyTxDrop, station, frame, reason);
            this.retries = 0;
            this.state = Transmitter::Ready;
            this.current = this.dequeue(cx, station);
        }
    }

    pub(crate) fn transmit_complete(&mut self, cx: &mut Context<'_>, station: usize) {
        let receivers = self.stations.len() - 1;
        let this = &mut self.stations[station];
        let Some(frame) = this.current.take() else { return };
        cx.transmitted(station, &frame, receivers);
        cx.broadcast(self.delay, station, frame);
        self.medium = Medium::IdleFrom(cx.reserve_timer(self.delay));
        let gap = match (self.rate, self.times) {
            (None, _) => SimTime::ZERO,
            (Some(rate), Some(times)) if times.rate == rate => times.gap,
            (Some(rate), _) => rate.transmit_time(GAP_BYTES),
        };
        let end = cx.reserve_timer(gap);
        let this = &mut self.stations[station];
        this.state = Transmitter::Gap(end);
        if this.queue.len() > 0 {
            cx.start_reserved(end, station, Timer::TransmitReady);
        }
    }

    pub(crate) fn transmit_ready(&mut self, cx: &mut Context<'_>, station: usize) {
        let this = &mut self.stations[station];
        this.state = Transmitter::Ready;
        this.current = this.dequeue(cx, station);
        self.transmit_start(cx, station);
    }

    /// Drops what is queued, backing off or in transmission: the link goes down.
    pub(crate) fn cut(&mut self, cx: &mut Context<'_>) {
        self.medium = Medium::IDLE;
        for (station, this) in self.stations.iter_mut().enumerate() {
            if let Some(frame) = this.current.take() {
                cx.drop_tx(TraceEvent::PhyTxDrop, station, &frame, DropReason::LinkDown);
            }
            while let Some(frame) = this.queue.purge(cx.now) {
                cx.drop_tx(TraceEvent::MacTxDrop, station, &frame, DropReason::LinkDown);
            }
            this.state = Transmitter::Ready;
            this.retries = 0;
        }
    }

    /// Frames queued, backing off or in transmission at a station.
    pub(crate) fn backlog(&self, station: usize) -> usize {
        let this = &self.stations[station];
        this.queue.len() + usize::from(this.current.is_some())
    }
}

/// The wait before retry number `retry` (from 1): a whole number of slots, drawn uniformly from
/// `min_slots` up to, but not including, 2^retry − 1 (bounded by ceiling and `max_slots`), as ns-3
/// truncates a uniform variable of that range. The first retry always waits `min_slots`.
fn backoff_time(backoff: &Backoff, retry: u32, random: &mut BackoffRandom) -> SimTime {
    let exponent = if backoff.ceiling > 0 { retry.min(backoff.ceiling) } else { retry };
    let doubled = 1_u32.checked_shl(exponent).map_or(u32::MAX, |slots| slots - 1);
    let (min, max) = (f64::from(backoff.min_slots), f64::from(doubled.min(backoff.max_slots)));
    let slots = min + random.uniform() * (max - min);
    backoff.slot * slots as u64
}

#[cfg(test)]
mod tests {
    use tapestry_core::Streams;

    use super::*;

    #[test]
    fn backoff_doubles_its_range_up_to_the_ceiling() {
        let stream = Streams::new(1, 0).stream("test", "backoff");
        let mut random = BackoffRandom::Named(Box::new(stream));
        let backoff = Backoff::default();
        for retry in 1..20 {
            let most = ((1_u64 << retry.min(10)) - 1).min(1_000);
            let mut longest = 0;
            for _ in 0..2_000 {
                let slots = backoff_time(&backoff, retry, &mut random).as_nanos() / 1_000;
                assert!(slots >= 1 && (slots < most || retry == 1), "{slots} of {most}");
                longest = longest.max(slots);
            }
            assert!(longest * 10 >= (most - 1) * 9, "retry {retry} waits up to {longest} slots");
        }
        let unbounded = Backoff { ceiling: 0, max_slots: u32::MAX, ..backoff };
        assert!(backoff_time(&unbounded, 40, &mut random) > SimTime::from_micros(1_000));
    }
}
