//! A worker: one thread that paces one network by the wall clock.
//!
//! Purpose: the loop of the data plane. A turn runs the timers that are due, gives each ready port
//! one bounded burst, sends what the models released, and then waits for whatever comes first: a
//! frame, a message or the next timer. Timers are also run between the bursts of two ports, so a
//! flood delays a timer by one burst and not by one turn. All state is the worker's own; others
//! reach it by messages.
//!
//! Assumptions: frames of one burst arrived together: they share one time stamp, taken after the
//! read, so no frame is ever early. Not modelled: spacing of frames within a burst; time a frame
//! waited in the kernel before it was read.

mod messages;
mod waiting;

use std::collections::{BTreeMap, VecDeque};
use std::ops::ControlFlow;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use crossbeam_channel::{Receiver, Sender};
use hdrhistogram::Histogram;
use nix::sys::eventfd::EventFd;
use tapestry_core::{Clock, SimTime, SyncPolicy};
use tapestry_models::{
    CommandError, CommandEvent, CommandId, CommandOutput, Counters, DeviceChange, DeviceId, Frame,
    FramePool, LinkId, Network, PortId, SetLinkError, Transmit,
};
use tokio::sync::mpsc::UnboundedSender;

use crate::clock::WallClock;
use crate::failpoint::Failpoint;
use crate::failure::{Failure, name_links};
use crate::ledger::Ledger;
use crate::poller::{Poller, Wait, WaitBackend};
use crate::port::{Port, PortCounters, PortDrop, PortState, Rx};
use crate::pulse::Pulse;
use crate::report::{Notice, Notices};
use crate::ring::Ring;
use crate::spec::Control;
use crate::spin::Spinner;
use crate::watch::IsWatched;

/// Frames read from a port before the next port's turn: enough to spread the cost of a turn, few
/// enough that their buffers stay in the cache and timers wait at most a tenth of a millisecond.
const BURST: usize = 32;
/// Token of the message descriptor; ports have their index.
const MESSAGES: u64 = u64::MAX - 1;

/// One network, its ports and its thread's state.
pub(crate) struct Worker {
    parts: WorkerParts,
    ready: VecDeque<usize>,
    /// Ports that were not read for want of buffers.
    starved: Vec<usize>,
    /// Ports with outgoing frames.
    dirty: Vec<usize>,
    burst: Vec<Frame>,
    /// Ports whose state changed while the ring was at work.
    changed: Vec<usize>,
    messages: bool,
    /// Who hears of the commands that run on hosts.
    listeners: BTreeMap<CommandId, UnboundedSender<CommandEvent>>,
    ledger: Ledger<Event>,
    pulse: Pulse,
    notices: Notices,
    turns: u64,
    failpoint: Option<Failpoint>,
}

/// What a worker is made from.
pub(crate) struct WorkerParts {
    pub(crate) clock: WallClock,
    pub(crate) sync: SyncPolicy,
    pub(crate) network: Network,
    pub(crate) pool: FramePool,
    pub(crate) ports: Vec<Attached>,
    /// Index into `ports` by number of the network's port; devices' stations have none.
    pub(crate) by_port: Vec<Option<usize>>,
    /// Names of the links, by number of the network's link.
    pub(crate) links: Vec<String>,
    pub(crate) poller: Poller,
    /// Moves the frames of TAPs, where it is in use.
    pub(crate) ring: Option<Ring>,
    pub(crate) spinner: Spinner,
    pub(crate) inbox: Receiver<Message>,
    pub(crate) wake: Arc<EventFd>,
}

/// A port and the worker's notes on it.
pub(crate) struct Attached {
    port: Box<dyn Port>,
    id: PortId,
    link: LinkId,
    endpoint: String,
    outgoing: Vec<Frame>,
    /// Whether the node is there; frames for one that is not are counted instead.
    listens: bool,
    unheard: u64,
    /// Whether it is in `ready` or `starved`.
    listed: bool,
    /// Whether the poller watches for room to write.
    watches_room: bool,
    /// The state that was told last.
    state: PortState,
    /// Whether somebody else tells when the interface goes down and comes back.
    watched: IsWatched,
}

impl Attached {
    /// The descriptor, if io_uring may move the port's frames.
    pub(crate) fn tap(&mut self) -> Option<BorrowedFd<'_>> {
        self.port.tally()?;
        Some(self.port.fd())
    }

    /// Leaves it to the watch of interfaces to tell that this one is down or up again.
    pub(crate) fn watch(&mut self, watched: IsWatched) {
        self.watched = watched;
    }

    pub(crate) fn new(port: Box<dyn Port>, id: PortId, link: LinkId, endpoint: String) -> Self {
        let state = port.state();
        Self {
            port,
            id,
            link,
            endpoint,
            outgoing: Vec::with_capacity(BURST),
            listens: true,
            unheard: 0,
            listed: false,
            watches_room: false,
            state,
            watched: IsWatched::default(),
        }
    }
}

/// What others ask of a worker.
pub(crate) enum Message {
    Control {
        link: LinkId,
        control: Control,
        done: Sender<Result<Instant, SetLinkError>>,
    },
    Device {
        device: DeviceId,
        change: DeviceChange,
        done: Sender<Instant>,
    },
    StartCommand {
        device: DeviceId,
        text: String,
        events: UnboundedSender<CommandEvent>,
        reply: Sender<Result<CommandId, CommandError>>,
    },
    StartSources,
    StopCommand {
        device: DeviceId,
        id: CommandId,
    },
    Snapshot(Sender<WorkerState>),
    /// Forgets the lateness so far and goes on by this policy.
    Measure(SyncPolicy),
    Stop,
}

/// Something that can be late.
#[derive(Debug, Clone, Copy)]
enum Event {
    Timer,
    Beat,
    Departure { port: usize },
}

/// Everything a worker knows, at one time.
#[derive(Debug, Clone)]
pub(crate) struct WorkerState {
    pub(crate) links: Vec<LinkState>,
    pub(crate) ports: Vec<PortStatus>,
    pub(crate) histogram: Histogram<u64>,
    pub(crate) worst: Option<(SimTime, String)>,
    pub(crate) pulse: Histogram<u64>,
    pub(crate) worst_beat: Option<(SimTime, String)>,
    pub(crate) notices: Notices,
    pub(crate) turns: u64,
    pub(crate) spun: SimTime,
    pub(crate) backend: WaitBackend,
}

/// One link of a worker, in the order of its network.
#[derive(Debug, Clone)]
pub(crate) struct LinkState {
    pub(crate) up: bool,
    pub(crate) in_flight: u64,
    pub(crate) stations: Vec<(Counters, u64)>,
}

/// One port of a worker.
#[derive(Debug, Clone)]
pub(crate) struct PortStatus {
    pub(crate) counters: PortCounters,
    pub(crate) state: PortState,
}

impl Worker {
    /// Registers all descriptors; the error names the port that the kernel refused, or none if it
    /// was the message descriptor.
    pub(crate) fn new(parts: WorkerParts) -> Result<Self, (nix::Error, Option<String>)> {
        let poller = &parts.poller;
        poller.add(parts.wake.as_fd(), MESSAGES).map_err(|errno| (errno, None))?;
        for (index, attached) in parts.ports.iter().enumerate() {
            poller
                .add(attached.port.fd(), index as u64)
                .map_err(|errno| (errno, Some(attached.endpoint.clone())))?;
        }
        Ok(Self {
            ready: VecDeque::with_capacity(parts.ports.len()),
            starved: Vec::new(),
            dirty: Vec::with_capacity(parts.ports.len()),
            burst: Vec::with_capacity(BURST),
            changed: Vec::new(),
            messages: true,
            listeners: BTreeMap::new(),
            ledger: Ledger::new(),
            pulse: Pulse::new(parts.clock.now()),
            notices: Notices::default(),
            turns: 0,
            failpoint: Failpoint::of(&parts.links),
            parts,
        })
    }

    /// Names of the links, for messages.
    pub(crate) fn link_names(&self) -> String {
        name_links(&self.parts.links)
    }

    /// Runs until told to stop.
    pub(crate) fn run(&mut self) -> Result<(), Failure> {
        self.start_ring()?;
        let outcome = self.turns();
        // Whatever the outcome was, what was taken from nodes must be somewhere.
        outcome.and(self.end_ring())
    }

    fn turns(&mut self) -> Result<(), Failure> {
        loop {
            self.turns += 1;
            if self.messages
                && let ControlFlow::Break(ended) = self.handle_messages()
            {
                return ended;
            }
            let now = self.parts.clock.now();
            self.beat(now)?;
            self.run_timers(now)?;
            for index in self.starved.drain(..) {
                self.ready.push_back(index);
            }
            for _ in 0..self.ready.len() {
                if let Some(index) = self.ready.pop_front() {
                    self.serve(index)?;
                    self.send_if_many()?;
                }
            }
            self.wait()?;
        }
    }

    /// Notes whether the worker has come by in time.
    fn beat(&mut self, now: SimTime) -> Result<(), Failure> {
        match self.pulse.beat(now) {
            Some((due, late)) => self.check(due, late, Event::Beat),
            None => Ok(()),
        }
    }

    /// Runs what is due by `now`.
    fn run_timers(&mut self, now: SimTime) -> Result<(), Failure> {
        match self.parts.network.poll_timeout() {
            Some(due) if due <= now => {
                self.parts.network.handle_timeout(now);
                let late = self.ledger.record(due, now, 1, Event::Timer);
                let in_time = self.check(due, late, Event::Timer);
                in_time.and(self.transmit())
            }
            _ => Ok(()),
        }
    }

    /// One burst from one port into the network, and what comes out of it.
    fn serve(&mut self, index: usize) -> Result<(), Failure> {
        let WorkerParts { ports, pool, ring, .. } = &mut self.parts;
        let attached = &mut ports[index];
        let rx = match ring {
            Some(ring) if ring.reads(index) => {
                let rx = ring.take(index, pool, BURST, &mut self.burst);
                if let Some(tally) = attached.port.tally() {
                    self.burst.iter().for_each(|frame| tally.received(frame));
                }
                rx
            }
            _ => attached.port.rx_burst(pool, BURST, &mut self.burst),
        };
        match rx {
            Rx::More => self.ready.push_back(index),
            Rx::NoBuffer => self.starved.push(index),
            Rx::Drained => attached.listed = false,
        }
        let id = attached.id;
        if let Some(failpoint) = self.failpoint {
            failpoint.pass(attached.link, &self.burst);
        }
        self.watch_state(index);
        if self.burst.is_empty() {
            return Ok(());
        }
        let now = self.parts.clock.now();
        self.run_timers(now)?;
        for frame in self.burst.drain(..) {
            self.parts.network.handle_frame(now, id, frame);
        }
        self.parts.network.handle_timeout(now);
        self.transmit()
    }

    /// Hands what commands on hosts did to those who started them.
    fn tell_listeners(&mut self) {
        while let Some(event) = self.parts.network.poll_command() {
            let id = event.command;
            let over = matches!(event.output, CommandOutput::Exited(_));
            let heard = self.listeners.get(&id).is_some_and(|to| to.send(event).is_ok());
            if over || !heard {
                self.listeners.remove(&id);
            }
        }
    }

    /// Hands what the network released to the ports, and to those who listen to commands.
    fn transmit(&mut self) -> Result<(), Failure> {
        self.tell_listeners();
        let parts = &mut self.parts;
        let mut executed = None;
        let mut run: Option<Run> = None;
        let mut latest: Option<(SimTime, Run)> = None;
        for Transmit { port, frame, due } in parts.network.transmits() {
            let Some(Some(index)) = parts.by_port.get(port.0 as usize).copied() else { continue };
            let attached = &mut parts.ports[index];
            if attached.outgoing.is_empty() {
                self.dirty.push(index);
            }
            attached.outgoing.push(frame);
            // Neighbours mostly share port and due time: one entry for all of them is cheaper.
            let now = *executed.get_or_insert_with(|| parts.clock.now());
            match &mut run {
                Some(run) if run.due == due && run.port == index => run.frames += 1,
                _ => {
                    let finished = run.replace(Run { due, port: index, frames: 1 });
                    note_departures(&mut self.ledger, finished, now, &mut latest);
                }
            }
        }
        let Some(now) = executed else { return Ok(()) };
        note_departures(&mut self.ledger, run, now, &mut latest);
        while let Some(index) = self.dirty.pop() {
            self.send(index)?;
            self.watch_state(index);
        }
        match latest {
            Some((late, run)) => self.check(run.due, late, Event::Departure { port: run.port }),
            None => Ok(()),
        }
    }

    /// Gives a port what it has to send.
    fn send(&mut self, index: usize) -> Result<(), Failure> {
        let attached = &mut self.parts.ports[index];
        if !attached.listens {
            attached.unheard += attached.outgoing.len() as u64;
            attached.outgoing.clear();
            return Ok(());
        }
        if !self.parts.ring.as_ref().is_some_and(|ring| ring.writes(index)) {
            attached.port.tx_burst(&mut attached.outgoing);
            self.watch_room(index);
            return Ok(());
        }
        let mut outgoing = std::mem::take(&mut attached.outgoing);
        for frame in outgoing.drain(..) {
            self.send_by_ring(index, frame)?;
        }
        self.parts.ports[index].outgoing = outgoing;
        Ok(())
    }

    /// Has the ring send what is queued if that is a burst or more; less can wait for the end of
    /// the turn.
    fn send_if_many(&mut self) -> Result<(), Failure> {
        let many = self.parts.ring.as_mut().is_some_and(|ring| ring.queued() >= BURST);
        if many { self.poll(Wait::Poll) } else { Ok(()) }
    }

    /// Queues a frame for a TAP; the next wait sends it.
    fn send_by_ring(&mut self, index: usize, frame: Frame) -> Result<(), Failure> {
        let mut waiting = Some(frame);
        // A full ring has room once it was handed over; twice is once more than needed.
        for _ in 0..2 {
            let WorkerParts { ports, ring, .. } = &mut self.parts;
            let Some((ring, tally)) = ring.as_mut().zip(ports[index].port.tally()) else { break };
            if tally.state() == PortState::Gone {
                tally.lost(PortDrop::InterfaceGone, 1);
                return Ok(());
            }
            let Some(frame) = waiting.take() else { return Ok(()) };
            match ring.write(index, frame) {
                Ok(()) => {
                    tally.set_pending(tally.counters().tx_pending as usize + 1);
                    return Ok(());
                }
                Err(frame) => waiting = Some(frame),
            }
            self.poll(Wait::Poll)?;
        }
        if let Some(tally) = self.parts.ports[index].port.tally() {
            tally.lost(PortDrop::Backpressure, 1);
        }
        Ok(())
    }

    /// Fails if the synchronisation policy does not tolerate an event so late.
    fn check(&self, due: SimTime, late: SimTime, event: Event) -> Result<(), Failure> {
        match self.parts.sync {
            SyncPolicy::HardLimit(limit) if late > limit => {
                Err(Failure::HardLimit { event: self.name(event), due, late, limit })
            }
            _ => Ok(()),
        }
    }

    fn name(&self, event: Event) -> String {
        match event {
            Event::Timer => format!("a timer of {}", self.link_names()),
            Event::Beat => format!("the worker of {}", self.link_names()),
            Event::Departure { port } => {
                let attached = &self.parts.ports[port];
                let link = &self.parts.links[attached.link.0 as usize];
                format!("a frame from link `{link}` to {}", attached.endpoint)
            }
        }
    }

    /// Notes a change of a port's state.
    fn watch_state(&mut self, index: usize) {
        let attached = &mut self.parts.ports[index];
        let state = attached.port.state();
        if state == attached.state {
            return;
        }
        if attached.watched.load(Ordering::Relaxed) && state != PortState::Gone {
            return;
        }
        attached.state = state;
        self.notices.add(Notice {
            time: self.parts.clock.now(),
            link: self.parts.links[attached.link.0 as usize].clone(),
            endpoint: attached.endpoint.clone(),
            state,
        });
    }
}

/// Neighbouring departures with one port and due time.
#[derive(Debug, Clone, Copy)]
struct Run {
    due: SimTime,
    port: usize,
    frames: u64,
}

/// Records a run of departures, keeping the latest of all in `latest`.
fn note_departures(
    ledger: &mut Ledger<Event>,
    run: Option<Run>,
    now: SimTime,
    latest: &mut Option<(SimTime, Run)>,
) {
    let Some(run) = run else { return };
    let late = ledger.record(run.due, now, run.frames, Event::Departure { port: run.port });
    if latest.is_none_or(|(most, _)| late > most) {
        *latest = Some((late, run));
    }
}
