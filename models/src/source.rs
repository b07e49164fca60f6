//! The source: frames at given instants, and a count of what comes back.
//!
//! Purpose: the lightest traffic there is. A source sends prepared frames on its one port, sharing
//! their buffers, and is a sink for what it receives. What fills a link in a benchmark, replays a
//! capture or attacks a node needs no network stack.
//!
//! Assumptions: frames are complete, addresses and checksums included; a source answers nothing.
//! Frames of one instant leave in the order in which they are listed.
//!
//! Not modelled: reading capture files, which is the caller's business (nothing here does I/O).
//!
//! Reference: ns-3 `OnOffApplication`, `PacketSink`, `TrafficTraceClient`.

use std::net::SocketAddrV4;

use tapestry_core::SimTime;

use crate::Frame;
use crate::counters::Count;
use crate::host::udp_packet;

/// What a source sends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Schedule {
    /// Each of these frames at its instant, in the order of time.
    Listed(Vec<(SimTime, Frame)>),
    /// One frame again and again.
    Periodic {
        /// When it is sent first.
        start: SimTime,
        /// Time between one and the next; zero counts as a nanosecond, so that time advances.
        interval: SimTime,
        /// How often it is sent.
        count: u64,
        /// The frame.
        frame: Frame,
    },
}

impl Schedule {
    /// Nothing: a mere sink.
    pub const fn sink() -> Self {
        Self::Listed(Vec::new())
    }
}

/// A source of frames, and a sink for those it receives.
#[derive(Debug)]
pub struct Source {
    name: String,
    /// Listed frames are sorted, an interval is not zero.
    schedule: Schedule,
    /// How many frames of the schedule are behind it.
    position: u64,
    /// What its instants count from; unknown until it is started.
    since: Option<SimTime>,
    sent: Count,
    received: Count,
}

impl Source {
    pub(crate) fn new(name: String, schedule: Schedule) -> Self {
        let schedule = match schedule {
            Schedule::Listed(mut frames) => {
                // Stable: frames of one instant keep their order.
                frames.sort_by_key(|&(at, _)| at);
                Schedule::Listed(frames)
            }
            Schedule::Periodic { start, interval, count, frame } => {
                let interval = interval.max(SimTime::from_nanos(1));
                Schedule::Periodic { start, interval, count, frame }
            }
        };
        let (sent, received) = (Count::default(), Count::default());
        Self { name, schedule, position: 0, since: None, sent, received }
    }

    /// The node's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Frames handed to the link so far.
    pub fn sent(&self) -> Count {
        self.sent
    }

    /// Frames received so far.
    pub fn received(&self) -> Count {
        self.received
    }

    /// Counts its instants from `now`; false if they count from an earlier time already.
    pub(crate) fn start(&mut self, now: SimTime) -> bool {
        let first = self.since.is_none();
        self.since.get_or_insert(now);
        first
    }

    /// Goes on after it stood still: what should have been sent before `now` is not.
    pub(crate) fn resume(&mut self, now: SimTime) {
        let Some(passed) = self.since.map(|since| now.saturating_sub(since)) else { return };
        let behind = match &self.schedule {
            Schedule::Listed(frames) => frames.partition_point(|&(at, _)| at < passed) as u64,
            Schedule::Periodic { start, interval, count, .. } => {
                let passed = passed.saturating_sub(*start).as_nanos();
                passed.div_ceil(interval.as_nanos()).min(*count)
            }
        };
        self.position = self.position.max(behind);
    }

    /// Begins again with the first frame of its schedule, whose instants count from `now`.
    pub(crate) fn restart(&mut self, now: SimTime) {
        self.position = 0;
        self.since = Some(now);
    }

    pub(crate) fn poll_timeout(&self) -> Option<SimTime> {
        self.since?.checked_add(self.next()?)
    }

    /// When the next frame leaves, from the start.
    fn next(&self) -> Option<SimTime> {
        match &self.schedule {
            Schedule::Listed(frames) => {
                frames.get(usize::try_from(self.position).ok()?).map(|&(at, _)| at)
            }
            Schedule::Periodic { start, interval, count, .. } => {
                let passed = interval.as_nanos().checked_mul(self.position)?;
                let next = start.checked_add(SimTime::from_nanos(passed));
                next.filter(|_| self.position < *count)
            }
        }
    }

    pub(crate) fn handle_frame(&mut self, frame: &Frame) {
        self.received.add(frame.len());
    }

    /// The next frame due by `now`.
    pub(crate) fn next_frame(&mut self, now: SimTime) -> Option<Frame> {
        if self.poll_timeout()? > now {
            return None;
        }
        let frame = match &self.schedule {
            Schedule::Listed(frames) => frames.get(usize::try_from(self.position).ok()?)?.1.clone(),
            Schedule::Periodic { frame, .. } => frame.clone(),
        };
        self.position += 1;
        self.sent.add(frame.len());
        Some(frame)
    }
}

/// A frame with a UDP datagram of zeros, `payload` bytes long (at most 65,507).
pub fn udp_frame(
    (source_mac, source): ([u8; 6], SocketAddrV4),
    (destination_mac, destination): ([u8; 6], SocketAddrV4),
    payload: u16,
) -> Frame {
    let mut frame = [&destination_mac[..], &source_mac[..], &[8, 0]].concat();
    frame.extend(udp_packet(source, destination, payload.min(MAX_PAYLOAD)));
    Frame::from(frame)
}

const MAX_PAYLOAD: u16 = 65_507;
