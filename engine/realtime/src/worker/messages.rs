//! What others ask of a worker, and what it says of itself.

use std::ops::ControlFlow;
use std::time::Instant;

use tapestry_core::{Clock, SimTime};
use tapestry_models::{Counters, LinkId, SetLinkError};

use super::{Attached, Event, LinkState, Message, PortStatus, Worker, WorkerState};
use crate::failure::Failure;
use crate::ledger::Ledger;
use crate::poller::WaitBackend;
use crate::port::PortDrop;
use crate::pulse::Pulse;
use crate::spec::Control;

impl Worker {
    pub(super) fn handle_messages(&mut self) -> ControlFlow<Result<(), Failure>> {
        self.messages = false;
        // Cleared first: a message sent from now on makes a new edge.
        let _ = self.parts.wake.read();
        while let Ok(message) = self.parts.inbox.try_recv() {
            match message {
                Message::Control { link, control, done } => {
                    let applied = self.apply(link, control);
                    // A change runs what was due before it; what that released must not wait for
                    // the next event.
                    if let Err(failure) = self.transmit() {
                        return ControlFlow::Break(Err(failure));
                    }
                    let _ = done.send(applied);
                }
                Message::Device { device, change, done } => {
                    let at = Instant::now();
                    self.parts.network.change_device(self.parts.clock.now(), device, change);
                    if let Err(failure) = self.transmit() {
                        return ControlFlow::Break(Err(failure));
                    }
                    let _ = done.send(at);
                }
                Message::StartCommand { device, text, events, reply } => {
                    let now = self.parts.clock.now();
                    let started = self.parts.network.start_command(now, device, &text);
                    if let Ok(id) = started {
                        self.listeners.insert(id, events);
                    }
                    let _ = reply.send(started);
                    if let Err(failure) = self.transmit() {
                        return ControlFlow::Break(Err(failure));
                    }
                }
                Message::StopCommand { device, id } => {
                    let now = self.parts.clock.now();
                    self.parts.network.stop_command(now, device, id);
                    if let Err(failure) = self.transmit() {
                        return ControlFlow::Break(Err(failure));
                    }
                }
                Message::StartSources => {
                    let now = self.parts.clock.now();
                    self.parts.network.start_sources(now);
                    if let Err(failure) = self.transmit() {
                        return ControlFlow::Break(Err(failure));
                    }
                }
                // Whoever asked may have given up meanwhile.
                Message::Snapshot(reply) => drop(reply.send(self.state())),
                Message::Measure(sync) => {
                    self.parts.sync = sync;
                    self.ledger = Ledger::new();
                    self.pulse = Pulse::new(self.parts.clock.now());
                }
                Message::Stop => return ControlFlow::Break(Ok(())),
            }
        }
        ControlFlow::Continue(())
    }

    fn apply(&mut self, link: LinkId, control: Control) -> Result<Instant, SetLinkError> {
        let at = Instant::now();
        let now = self.parts.clock.now();
        let network = &mut self.parts.network;
        match control {
            Control::LinkUp => self.set_link_up(now, link, true),
            Control::LinkDown => self.set_link_up(now, link, false),
            Control::Delay(delay) => network.set_delay(now, link, delay),
            Control::Rate(rate) => network.set_rate(now, link, rate),
            Control::Node { station, listens } => {
                let port = network.port(link, station);
                let attached = self.parts.ports.iter_mut().find(|at| Some(at.id) == port);
                if let Some(attached) = attached {
                    attached.listens = listens;
                    if !listens {
                        attached.port.discard();
                    }
                }
            }
            Control::Change(change) => network.change_link(now, link, &change)?,
        }
        Ok(at)
    }

    fn set_link_up(&mut self, now: SimTime, link: LinkId, up: bool) {
        self.parts.network.set_link_up(now, link, up);
        for attached in self.parts.ports.iter_mut().filter(|attached| attached.link == link) {
            // An interface that is gone has no carrier to lose; its port says that it is gone.
            if let Err(error) = attached.port.set_carrier(up) {
                tracing::debug!(endpoint = attached.endpoint, %error, "carrier not set");
            }
        }
    }

    /// Everything this worker knows. Exact between two turns.
    pub(crate) fn state(&self) -> WorkerState {
        let network = &self.parts.network;
        let link_state = |link: LinkId| {
            let station = |(index, counters): (usize, &Counters)| {
                let port = network.port(link, index as u32);
                (counters.clone(), port.map_or(0, |port| network.backlog(port) as u64))
            };
            LinkState {
                up: network.is_link_up(link),
                in_flight: network.in_flight(link),
                stations: network.counters(link).iter().enumerate().map(station).collect(),
            }
        };
        let port_status = |attached: &Attached| {
            let mut counters = *attached.port.counters();
            counters.tx_drops.add(PortDrop::NodeDown, attached.unheard);
            PortStatus { counters, state: attached.port.state() }
        };
        WorkerState {
            links: network.links().map(link_state).collect(),
            ports: self.parts.ports.iter().map(port_status).collect(),
            histogram: self.ledger.histogram().clone(),
            worst: self.ledger.worst().map(|(late, event)| (late, self.name(event))),
            pulse: self.pulse.histogram().clone(),
            worst_beat: self.pulse.worst().map(|(late, due)| {
                let seconds = due.as_secs_f64();
                (late, format!("{} at {seconds:.3} s", self.name(Event::Beat)))
            }),
            notices: self.notices.clone(),
            turns: self.turns,
            spun: self.parts.spinner.total(),
            backend: match self.parts.ring {
                Some(_) => WaitBackend::IoUring,
                None => self.parts.poller.backend(),
            },
        }
    }
}
