//! The network: links and devices as one event-driven state machine.
//!
//! Purpose: the one composition that both time regimes run. In virtual time a driver jumps from
//! [`Network::poll_timeout`] to the next; in real time a worker paces it by the wall clock.
//!
//! Assumptions: one thread; `now` never runs back (an earlier `now` counts as the latest one). An
//! event learns the time it was due, not the time it ran, so a late caller does not change what
//! happens on the links, only when it learns of it. Events of one instant run in the order in
//! which they were scheduled; frames offered at an instant come before the events of that instant.
//!
//! Not modelled: time spent in ports and hosts.
//!
//! Reference: poll-style protocol machines such as `quinn-proto`; ns-3 for the order of ties.

mod changes;
mod devices;
mod link;
mod livelock;
mod parameters;

use std::collections::{VecDeque, vec_deque};
use std::fmt;

use tapestry_core::{EventQueue, Position, SimTime, Streams};

use crate::bridge::Bridge;
use crate::counters::Counters;
use crate::event::{Event, Next};
use crate::host::Host;
use crate::trace::Trace;
use crate::{DeviceId, Frame, LinkId, PortId, Source};
pub use changes::DeviceChange;
use changes::Power;
pub use devices::CommandError;
use devices::Hosting;
use link::HEADER_BYTES;
pub(crate) use link::{Channel, Link};
pub use livelock::Livelock;
use livelock::Watch;
pub use parameters::{DirectionChange, LinkChange, SetLinkError};

/// Links joined by in-process devices, with ports to the outside.
pub struct Network {
    links: Vec<Link>,
    stations: Vec<Station>,
    devices: Vec<Device>,
    queue: EventQueue<Event>,
    next: Option<Next>,
    transmits: VecDeque<Transmit>,
    /// What hosts need and make.
    hosting: Hosting,
    trace: Option<Box<dyn Trace>>,
    /// The latest `now` seen.
    now: SimTime,
    /// Behind all events that have run or would have, had they been scheduled.
    position: Position,
    events: u64,
    /// How fast time passes.
    watch: Watch,
    /// Where impairments draw from.
    streams: Streams,
}

/// A frame that leaves the network.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Transmit {
    /// Where it leaves.
    pub port: PortId,
    /// The frame.
    pub frame: Frame,
    /// When it should leave.
    pub due: SimTime,
}

#[derive(Debug)]
pub(crate) struct Station {
    pub(crate) link: LinkId,
    pub(crate) receiver: Receiver,
}

/// Who gets the frames that a station receives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Receiver {
    /// The outside.
    Port,
    /// A device, at one of its ports.
    Device { device: DeviceId, port: u32 },
}

#[derive(Debug)]
pub(crate) struct Device {
    pub(crate) kind: DeviceKind,
    /// Station of each of the device's ports.
    pub(crate) stations: Vec<u32>,
    pub(crate) power: Power,
}

impl Device {
    /// A device that is switched on.
    pub(crate) fn new(kind: DeviceKind, stations: Vec<u32>) -> Self {
        Self { kind, stations, power: Power::On }
    }
}

#[derive(Debug)]
pub(crate) enum DeviceKind {
    Bridge(Bridge),
    Hub,
    Host(Box<Host>),
    Source(Box<Source>),
}

impl Network {
    /// The most events that one call of [`handle_timeout`](Self::handle_timeout) runs, so that a
    /// worker under overload still gets to its ports; a few tenths of a millisecond.
    pub const EVENTS_PER_CALL: usize = 4_096;
    pub(crate) fn new(
        links: Vec<Link>,
        stations: Vec<Station>,
        devices: Vec<Device>,
        largest_mtu: u32,
        streams: Streams,
    ) -> Self {
        let hosting = Hosting::new(largest_mtu as usize + HEADER_BYTES, devices.len());
        let queue = EventQueue::new();
        let mut this = Self {
            position: queue.end_of(SimTime::ZERO),
            hosting,
            links,
            stations,
            devices,
            queue,
            next: None,
            transmits: VecDeque::new(),
            trace: None,
            now: SimTime::ZERO,
            events: 0,
            watch: Watch::default(),
            streams,
        };
        for device in 0..this.devices.len() as u32 {
            this.set_device_timer(DeviceId(device));
        }
        this
    }

    /// A frame enters at `port` (of this network) at `now`. Events due earlier run before it.
    ///
    /// Call [`transmits`](Self::transmits) and [`poll_timeout`](Self::poll_timeout) afterwards.
    pub fn handle_frame(&mut self, now: SimTime, port: PortId, frame: Frame) {
        if self.catch_up(now) {
            self.offer(self.now, port.0, frame);
        } else {
            // Overloaded: the frame waits for its turn in the order of time.
            self.queue.schedule(self.now, Event::Offer { station: port.0, frame });
        }
    }

    /// When [`handle_timeout`](Self::handle_timeout) should be called next; `None`: not before
    /// another frame enters. Changes with every call that takes `now`.
    pub fn poll_timeout(&self) -> Option<SimTime> {
        self.next.as_ref().map(|next| next.position.time()).or_else(|| self.queue.peek_time())
    }

    /// Runs the events due by `now`, in order, each at the time it was due; at most
    /// [`EVENTS_PER_CALL`](Self::EVENTS_PER_CALL) of them, so `poll_timeout` may still be in the
    /// past afterwards.
    pub fn handle_timeout(&mut self, now: SimTime) {
        self.now = self.now.max(now);
        for _ in 0..Self::EVENTS_PER_CALL {
            let Some((at, event)) = self.pop_due(now) else {
                self.position = self.position.max(self.queue.end_of(now));
                return;
            };
            self.dispatch(at, event);
        }
    }

    /// Runs all events due by `until`, for virtual time; gives up where time stands still, or all
    /// but stands still: see [`Livelock`].
    pub fn run_until(&mut self, until: SimTime) -> Result<(), Livelock> {
        while let Some((at, event)) = self.pop_due(until) {
            if self.watch.count(at) {
                self.check_progress(at, &event)?;
            }
            self.now = self.now.max(at);
            self.dispatch(at, event);
        }
        self.now = self.now.max(until);
        self.position = self.position.max(self.queue.end_of(until));
        Ok(())
    }

    /// The next frame that leaves, in the order of `due`.
    pub fn poll_transmit(&mut self) -> Option<Transmit> {
        self.transmits.pop_front()
    }

    /// All frames that leave, in the order of `due`.
    pub fn transmits(&mut self) -> vec_deque::Drain<'_, Transmit> {
        self.transmits.drain(..)
    }

    /// Shows every step of every frame to `trace` from now on; `None` switches tracing off.
    pub fn set_trace(&mut self, trace: Option<Box<dyn Trace>>) {
        self.trace = trace;
    }

    /// The links in the order of building.
    pub fn links(&self) -> impl Iterator<Item = LinkId> + use<> {
        (0..self.links.len() as u32).map(LinkId)
    }

    /// A link's name.
    pub fn link_name(&self, link: LinkId) -> &str {
        &self.links[link.0 as usize].name
    }

    /// Whether a link is up.
    pub fn is_link_up(&self, link: LinkId) -> bool {
        self.links[link.0 as usize].up
    }

    /// The port at a station of a link; `None` if there is no such link or station.
    pub fn port(&self, link: LinkId, station: u32) -> Option<PortId> {
        self.links.get(link.0 as usize)?.port(station)
    }

    /// Whether frames enter and leave at this port: no device sits on it.
    pub fn is_open(&self, port: PortId) -> bool {
        self.stations.get(port.0 as usize).is_some_and(|s| s.receiver == Receiver::Port)
    }

    /// The counters of a link, one per station.
    pub fn counters(&self, link: LinkId) -> &[Counters] {
        &self.links[link.0 as usize].counters
    }

    /// Copies of frames on their way to the stations of a link.
    pub fn in_flight(&self, link: LinkId) -> u64 {
        self.links[link.0 as usize].in_flight
    }

    /// Frames that wait at a port's station for transmission, the one in transmission included.
    pub fn backlog(&self, port: PortId) -> usize {
        let link = &self.links[self.stations[port.0 as usize].link.0 as usize];
        let station = (port.0 - link.first_station) as usize;
        match &link.channel {
            Channel::PointToPoint(channel) => channel.backlog(station),
            Channel::Csma(channel) => channel.backlog(station),
        }
    }

    /// Number of events run so far.
    pub fn events(&self) -> u64 {
        self.events
    }

    /// Moves time to `now` and runs what was due before; false if that is too much for one call.
    fn catch_up(&mut self, now: SimTime) -> bool {
        self.now = self.now.max(now);
        for _ in 0..Self::EVENTS_PER_CALL {
            match self.poll_timeout() {
                Some(at) if at < self.now => {
                    if let Some((at, event)) = self.pop_due(at) {
                        self.dispatch(at, event);
                    }
                }
                _ => break,
            }
        }
        let caught_up = self.poll_timeout().is_none_or(|at| at >= self.now);
        if caught_up {
            self.position = self.position.max(Position::before(self.now));
        }
        caught_up
    }

    /// Removes the earliest event if it is due by `limit`, and goes to its place.
    #[inline]
    fn pop_due(&mut self, limit: SimTime) -> Option<(SimTime, Event)> {
        if let Some(next) = self.next.take_if(|next| next.position.time() <= limit) {
            self.position = next.position;
            return Some((next.position.time(), next.event));
        }
        let due = self.queue.pop_due(limit)?;
        self.position = self.queue.last();
        Some(due)
    }

    fn dispatch(&mut self, at: SimTime, event: Event) {
        self.events += 1;
        match event {
            Event::Offer { station, frame } => self.offer(at, station, frame),
            Event::Device { device } => self.run_device(at, DeviceId(device)),
            Event::Timer { station, epoch, timer } => self.timer(at, station, epoch, timer),
            Event::Arrival { station, epoch, frame } => self.receive(at, station, epoch, frame),
            Event::Loss { station, epoch, frame } => self.lose(at, station, epoch, &frame),
            Event::Broadcast { source, epoch, frame } => {
                let link = &self.links[self.stations[source as usize].link.0 as usize];
                let first = link.first_station;
                let last = first + link.counters.len() as u32 - 1;
                for station in (first..last).filter(|&station| station != source) {
                    self.receive(at, station, epoch, frame.clone());
                }
                if last != source {
                    self.receive(at, last, epoch, frame);
                }
            }
        }
    }

    /// Where an event is, for messages.
    fn place_of(&self, event: &Event) -> String {
        let station = match event {
            Event::Device { device } => {
                return match &self.devices[*device as usize].kind {
                    DeviceKind::Host(host) => format!("in node `{}`", host.name()),
                    DeviceKind::Source(source) => format!("in node `{}`", source.name()),
                    DeviceKind::Bridge(_) | DeviceKind::Hub => format!("in device {device}"),
                };
            }
            Event::Offer { station, .. }
            | Event::Timer { station, .. }
            | Event::Arrival { station, .. }
            | Event::Loss { station, .. }
            | Event::Broadcast { source: station, .. } => *station,
        };
        let link = self.stations[station as usize].link;
        format!("on link `{}`", self.links[link.0 as usize].name)
    }
}

impl fmt::Debug for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Network")
            .field("links", &self.links.iter().map(|link| &link.name).collect::<Vec<_>>())
            .field("now", &self.now)
            .field("pending", &self.queue.len())
            .finish_non_exhaustive()
    }
}
