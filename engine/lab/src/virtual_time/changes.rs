//! Changes in virtual time: made at their exact instants, behind the other events of the instant.

use std::sync::Arc;

use tapestry_core::SimTime;
use tapestry_models::{DeviceChange, DeviceId, Network, SetLinkError};
use tapestry_realtime::CapturedLink;
use tapestry_topologies::resolved::{NodeIndex, Topology};

use crate::changes::agenda::Agenda;
use crate::changes::changed;
use crate::changes::effects::{Effect, Holds};
use crate::changes::ends::{Ends, told};
use crate::event::Events;

/// What is to change when.
pub(super) struct Plan {
    topology: Topology,
    agenda: Arc<Agenda>,
    holds: Holds,
    ends: Ends,
    events: Events,
    refused: Vec<String>,
}

impl Plan {
    pub(super) fn new(topology: &Topology, agenda: Arc<Agenda>, events: Events) -> Self {
        let topology = topology.clone();
        let (holds, ends) = (Holds::default(), Ends::default());
        Self { topology, agenda, holds, ends, events, refused: Vec::new() }
    }

    /// When the next change is due.
    pub(super) fn next(&self) -> Option<SimTime> {
        self.agenda.peek()
    }

    /// Makes the changes that are due.
    pub(super) fn make(
        &mut self,
        now: SimTime,
        network: &mut Network,
        links: &[CapturedLink],
        devices: &[DeviceId],
    ) {
        while let Some(due) = self.agenda.pop(now) {
            let at = due.at;
            for effect in self.holds.effects(&self.topology, &due.action) {
                if let Effect::Node { node, change } = &effect
                    && let Some(why) = told(*change, Some(&due), now)
                {
                    self.ends.note(*node, now, why);
                }
                match carry_out(&self.topology, now, network, links, devices, &effect) {
                    Ok(()) => self.events.emit(&changed(&self.topology, &effect, Some(at), now)),
                    Err(error) => self.refused.push(format!("event at {at}: {error}")),
                }
            }
            self.agenda.done();
        }
    }

    /// What was done to a node that ended the commands which ran on it at `since`.
    pub(super) fn end_after(&self, node: NodeIndex, since: SimTime) -> Option<String> {
        self.ends.first_after(node, since)
    }

    pub(super) fn take_refused(&mut self) -> Vec<String> {
        std::mem::take(&mut self.refused)
    }
}

fn carry_out(
    topology: &Topology,
    now: SimTime,
    network: &mut Network,
    links: &[CapturedLink],
    devices: &[DeviceId],
    effect: &Effect,
) -> Result<(), SetLinkError> {
    match effect {
        // What follows from it are effects of their own.
        Effect::Partition { .. } | Effect::Heal { .. } => {}
        Effect::Carrier { link, up } => network.set_link_up(now, links[*link].id, *up),
        Effect::Set { link, change } => {
            network.change_link(now, links[*link].id, &crate::queue::change(change))?;
        }
        Effect::Node { node, change } => {
            network.change_device(now, devices[*node], *change);
            if *change == DeviceChange::Restart {
                for text in &topology.nodes[*node].init {
                    // A host that has just been started takes commands; nobody hears of them.
                    let _ = network.start_command(now, devices[*node], text);
                }
            }
        }
    }
    Ok(())
}
