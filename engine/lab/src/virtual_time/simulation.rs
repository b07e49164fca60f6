//! The network of a run in virtual time, its clock, and the commands on its hosts.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tapestry_core::{SimTime, Streams};
use tapestry_guests::shell::Collector;
use tapestry_models::{
    BuildError, CommandError, CommandId, CommandOutput, DeviceId, Livelock, Network, NetworkBuilder,
};
use tapestry_realtime::{
    CaptureError, CaptureReport, CaptureSpec, CapturedLink, DeviceSpec, EndpointReport, LinkReport,
    SimulationCaptures,
};
use tapestry_topologies::resolved::{NodeIndex, Topology};
use tokio::sync::oneshot;

use super::changes::Plan;
use crate::in_process;

/// Why a topology cannot be simulated.
#[derive(Debug, thiserror::Error)]
pub(super) enum BuildSimulationError {
    /// The links and nodes do not make a network.
    #[error(transparent)]
    Build(#[from] BuildError),
    /// A capture cannot be made.
    #[error(transparent)]
    Capture(#[from] CaptureError),
    /// A node is no part of a simulation.
    #[error(
        "node {node} is not in-process; use `kind: host`, `router`, `bridge`, `hub` or `source`"
    )]
    External {
        /// The node.
        node: String,
    },
}

/// Why a simulation ended before the run did.
#[derive(Debug)]
pub(super) enum Halt {
    /// Time stands still.
    Livelock(Livelock),
    /// It has come to the time it was to go to.
    Limit(SimTime),
}

/// A command on a host.
#[derive(Debug)]
pub(super) struct Process {
    device: DeviceId,
    pub(super) started: SimTime,
    /// When it ended and with which status.
    pub(super) ended: Option<(SimTime, u8)>,
    pub(super) output: Collector,
    /// What it printed so far, if somebody waits for something in it.
    pub(super) watched: Option<Vec<u8>>,
}

/// A network in virtual time. Every method that lets time pass is asynchronous: it never returns
/// from the end of the simulation, which is told by the sender it was built with, and gives way
/// now and then, so that a run can be interrupted.
pub(super) struct Simulation {
    network: Network,
    /// By node.
    devices: Vec<DeviceId>,
    links: Vec<CapturedLink>,
    captures: SimulationCaptures,
    now: SimTime,
    /// The same for whoever watches, in nanoseconds.
    shown: Arc<AtomicU64>,
    limit: Option<SimTime>,
    halted: Option<oneshot::Sender<Halt>>,
    processes: BTreeMap<CommandId, Process>,
    steps: u64,
    plan: Plan,
}

/// Bytes of output in which `ready:` is looked for.
const WATCHED_BYTES: usize = 1 << 20;
/// Instants simulated between two looks at signals: a fraction of a millisecond.
const STEPS_PER_TURN: u64 = 256;

impl Simulation {
    /// The topology at time zero. It goes as far as `limit`.
    pub(super) fn build(
        topology: &Topology,
        streams: Streams,
        captures: Vec<CaptureSpec>,
        limit: Option<SimTime>,
        shown: Arc<AtomicU64>,
        halted: oneshot::Sender<Halt>,
        plan: Plan,
    ) -> Result<Self, BuildSimulationError> {
        let mut builder = NetworkBuilder::new(streams);
        let mut ports: Vec<Vec<_>> = vec![Vec::new(); topology.nodes.len()];
        let mut links = Vec::new();
        for (index, link) in topology.links.iter().enumerate() {
            let id = builder.link(in_process::link(link))?;
            for (station, end) in (0..).zip(&link.endpoints) {
                // A link has a port for each station.
                ports[end.node].extend(builder.port(id, station).map(|port| (end.interface, port)));
            }
            let endpoints = topology.endpoint_names(index);
            links.push(CapturedLink { name: link.name.clone(), id, endpoints });
        }
        let names = in_process::names(topology);
        let mut devices = Vec::new();
        for (node, mut ports) in topology.nodes.iter().zip(ports) {
            ports.sort_by_key(|(interface, _)| *interface);
            let ports: Vec<_> = ports.into_iter().map(|(_, port)| port).collect();
            let name = node.name.clone();
            let Some(kind) = in_process::device(node, &names) else {
                return Err(BuildSimulationError::External { node: name });
            };
            devices.push(DeviceSpec { name, kind }.build(&mut builder, &ports)?);
        }
        let mut network = builder.build();
        let captures = SimulationCaptures::open(captures, &links)?;
        network.set_trace(captures.trace());
        Ok(Self {
            network,
            devices,
            links,
            captures,
            now: SimTime::ZERO,
            shown,
            limit,
            halted: Some(halted),
            processes: BTreeMap::new(),
            steps: 0,
            plan,
        })
    }

    /// The present.
    pub(super) fn now(&self) -> SimTime {
        self.now
    }

    /// Starts the sources of frames now.
    pub(super) fn start_sources(&mut self) {
        self.network.start_sources(self.now);
    }

    /// Whether a frame is on a link or waits for one.
    pub(super) fn is_carrying(&self) -> bool {
        self.links.iter().any(|link| {
            let stations = 0..link.endpoints.len() as u32;
            let ports = stations.filter_map(|station| self.network.port(link.id, station));
            self.network.in_flight(link.id) > 0
                || ports.map(|port| self.network.backlog(port)).any(|backlog| backlog > 0)
        })
    }

    /// Starts a command now.
    pub(super) fn start(
        &mut self,
        node: NodeIndex,
        text: &str,
        output: Collector,
        watched: bool,
    ) -> Result<CommandId, CommandError> {
        let device = self.devices[node];
        let id = self.network.start_command(self.now, device, text)?;
        let watched = watched.then(Vec::new);
        let process = Process { device, started: self.now, ended: None, output, watched };
        self.processes.insert(id, process);
        self.listen();
        Ok(id)
    }

    /// Asks a command to end.
    pub(super) fn stop(&mut self, id: CommandId) {
        if let Some(process) = self.processes.get(&id) {
            self.network.stop_command(self.now, process.device, id);
            self.listen();
        }
    }

    /// A command that was started and not yet taken.
    pub(super) fn process(&self, id: CommandId) -> Option<&Process> {
        self.processes.get(&id)
    }

    /// The same to change it.
    pub(super) fn process_mut(&mut self, id: CommandId) -> Option<&mut Process> {
        self.processes.get_mut(&id)
    }

    /// Takes a command out; what it does from now on goes unheard.
    pub(super) fn take(&mut self, id: CommandId) -> Option<Process> {
        self.processes.remove(&id)
    }

    /// Goes to the next instant at which something is due, at most to `until`, and runs everything
    /// due then.
    pub(super) async fn step(&mut self, until: SimTime) {
        if let Some(limit) = self.limit.filter(|&limit| self.now >= limit) {
            self.halt(Halt::Limit(limit)).await;
        }
        let change = self.plan.next();
        let most = [self.limit, change].into_iter().flatten().fold(until, SimTime::min);
        let next = self.network.poll_timeout().map_or(most, |at| at.min(most)).max(self.now);
        let ran = self.network.run_until(next);
        self.now = next;
        self.shown.store(next.as_nanos(), Ordering::Relaxed);
        self.make_changes();
        if let Err(livelock) = ran {
            self.halt(Halt::Livelock(livelock)).await;
        }
        self.steps += 1;
        if self.steps.is_multiple_of(STEPS_PER_TURN) {
            tokio::task::yield_now().await;
        }
    }

    /// Counters of all links, in the order of the topology.
    pub(super) fn link_reports(&self) -> Vec<LinkReport> {
        let report = |link: &CapturedLink| {
            let stations = self.network.counters(link.id);
            let endpoint = |(number, (name, counters)): (u32, (&String, _))| EndpointReport {
                endpoint: name.clone(),
                station: Clone::clone(counters),
                backlog: self
                    .network
                    .port(link.id, number)
                    .map_or(0, |port| self.network.backlog(port) as u64),
                port: None,
            };
            LinkReport {
                name: link.name.clone(),
                up: self.network.is_link_up(link.id),
                in_flight: self.network.in_flight(link.id),
                endpoints: (0..).zip(link.endpoints.iter().zip(stations)).map(endpoint).collect(),
            }
        };
        self.links.iter().map(report).collect()
    }

    /// Makes the changes that are due now, behind all else of this instant.
    pub(super) fn make_changes(&mut self) {
        let Self { network, links, devices, plan, now, .. } = self;
        plan.make(*now, network, links, devices);
        self.listen();
    }

    /// What is wrong with changes that could not be made.
    pub(super) fn refused_changes(&mut self) -> Vec<String> {
        self.plan.take_refused()
    }

    /// What was done to a node that ended the commands which ran on it at `since`.
    pub(super) fn end_of_node(&self, node: NodeIndex, since: SimTime) -> Option<String> {
        self.plan.end_after(node, since)
    }

    /// Ends the simulation: closes the captures.
    pub(super) fn finish(self) -> Vec<CaptureReport> {
        let Self { mut network, captures, now, .. } = self;
        network.set_trace(None);
        captures.finish(now)
    }

    /// Takes note of what commands did.
    fn listen(&mut self) {
        while let Some(event) = self.network.poll_command() {
            let Some(process) = self.processes.get_mut(&event.command) else { continue };
            match event.output {
                CommandOutput::Printed(bytes) => {
                    process.output.push(&bytes);
                    if let Some(watched) = &mut process.watched {
                        let room = WATCHED_BYTES.saturating_sub(watched.len());
                        watched.extend_from_slice(&bytes[..bytes.len().min(room)]);
                    }
                }
                CommandOutput::Exited(status) => process.ended = Some((event.at, status)),
            }
        }
    }

    /// Tells of the end and waits to be dropped.
    async fn halt(&mut self, halt: Halt) {
        if let Some(halted) = self.halted.take() {
            // Nobody to hear it is nobody to go on for.
            let _ = halted.send(halt);
        }
        std::future::pending::<()>().await;
    }
}
