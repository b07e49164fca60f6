//! The data plane: all workers of a run, and the handle to them.
//!
//! Purpose: spreads links over workers, starts and stops them, carries messages to them and joins
//! their reports. Links that meet in an in-process device share a worker, since frames pass between
//! them without leaving the network; links that meet only outside do not, so they need no locks.

use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Instant;

use crossbeam_channel::{Sender, bounded};
use nix::sys::eventfd::EventFd;
use parking_lot::Mutex;
use tapestry_core::{Clock, SimTime, SyncPolicy};
use tapestry_models::{
    BuildError, CommandError, CommandEvent, CommandId, DeviceChange, DeviceId, LinkId, SetLinkError,
};
use thiserror::Error;
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};
use tokio::sync::watch;

use crate::assembly;
use crate::capture::{CaptureError, Captures};
use crate::clock::WallClock;
use crate::failure::{Failure, FailureWatch};
use crate::interfaces::Interfaces;
use crate::ledger::{Lateness, buckets};
use crate::report::{
    EndpointReport, FinalReport, LinkReport, Notices, PortReport, Snapshot, WorkerReport,
};
use crate::spec::{Control, DataPlaneConfig};
use crate::watch::InterfaceWatch;
use crate::worker::{Message, WorkerState};

/// Why a data plane could not be started.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum StartError {
    /// The links do not make a network.
    #[error(transparent)]
    Build(#[from] BuildError),
    /// An endpoint names a device that is not there.
    #[error("endpoint {endpoint} of link `{link}` is at device {device}, but there is none")]
    NoSuchDevice {
        /// The link.
        link: String,
        /// `node:interface`.
        endpoint: String,
        /// The index given.
        device: usize,
    },
    /// A capture cannot be made.
    #[error(transparent)]
    Capture(#[from] CaptureError),
    /// The kernel refused a descriptor or a thread.
    #[error(
        "cannot set up the worker of {subject}: {source}; if too many files are open, raise the \
         limit with `ulimit -n`"
    )]
    Worker {
        /// The links or the endpoint concerned.
        subject: String,
        /// The kernel's answer.
        source: std::io::Error,
    },
    /// The kernel does not offer what the io_uring back end needs.
    #[error(
        "cannot move the frames of {links} by io_uring: {source}; it needs Linux 6.7 and \
         kernel.io_uring_disabled=0; choose `--io auto` or `--io epoll`"
    )]
    Uring {
        /// The links concerned.
        links: String,
        /// The kernel's answer.
        source: std::io::Error,
    },
    /// The workers may not have real-time priority.
    #[error(
        "cannot run workers at real-time priority {priority}: {source}; run as root, raise \
         RLIMIT_RTPRIO, or leave the priority out"
    )]
    Priority {
        /// The priority asked for.
        priority: u8,
        /// The kernel's answer.
        source: nix::Error,
    },
    /// A worker cannot be pinned to a CPU.
    #[error("cannot pin a worker to CPU {cpu}: {source}; choose one that this process may use")]
    Pin {
        /// The CPU asked for.
        cpu: usize,
        /// The kernel's answer.
        source: nix::Error,
    },
}

/// Why a control message had no effect.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum ControlError {
    /// No link has the name.
    #[error("there is no link `{link}`; `tapestry graph` shows the names")]
    NoSuchLink {
        /// The name as given.
        link: String,
    },
    /// The link's worker has ended.
    #[error("link `{link}` stands still because its worker has failed; see the run's failure")]
    Ended {
        /// The link.
        link: String,
    },
    /// The link cannot be so.
    #[error(transparent)]
    Refused(#[from] SetLinkError),
}

/// A running data plane. Dropping it stops it.
pub struct DataPlane {
    pub(crate) clock: WallClock,
    pub(crate) workers: Vec<Handle>,
    pub(crate) links: Vec<Placed>,
    pub(crate) devices: Vec<PlacedDevice>,
    pub(crate) interfaces: Interfaces,
    pub(crate) failure: watch::Receiver<Option<Failure>>,
    pub(crate) captures: Captures,
    pub(crate) watch: InterfaceWatch,
}

/// A worker's thread, from outside.
pub(crate) struct Handle {
    pub(crate) links: Vec<String>,
    pub(crate) inbox: Sender<Message>,
    pub(crate) wake: Arc<EventFd>,
    pub(crate) thread: Option<JoinHandle<()>>,
    /// What the worker knew when it ended.
    pub(crate) last: Arc<Mutex<Option<WorkerState>>>,
}

/// Where a link is.
pub(crate) struct Placed {
    pub(crate) name: String,
    pub(crate) worker: usize,
    pub(crate) id: LinkId,
    pub(crate) endpoints: Vec<PlacedEndpoint>,
}

/// Where an in-process device is; nowhere if it has no links.
pub(crate) struct PlacedDevice {
    pub(crate) name: String,
    /// Its worker, and its number there.
    pub(crate) place: (usize, DeviceId),
}

/// A command on an in-process host. Dropping it lets the command go on unheard.
#[derive(Debug)]
pub struct HostCommand {
    id: CommandId,
    device: DeviceId,
    worker: Sender<Message>,
    wake: Arc<EventFd>,
    events: UnboundedReceiver<CommandEvent>,
}

impl HostCommand {
    /// What the command does next; `None` behind its exit, or when its worker has ended.
    pub async fn event(&mut self) -> Option<CommandEvent> {
        self.events.recv().await
    }

    /// The same for a caller outside of an asynchronous context.
    pub fn blocking_event(&mut self) -> Option<CommandEvent> {
        self.events.blocking_recv()
    }

    /// Asks the command to end, as SIGINT does.
    pub fn stop(&self) {
        let message = Message::StopCommand { device: self.device, id: self.id };
        if self.worker.send(message).is_ok() {
            let _ = self.wake.write(1);
        }
    }
}

/// Why a command was not started.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum HostCommandError {
    /// There are not as many devices.
    #[error("there is no in-process node {device}, counted from 0 in the order they were given")]
    NoDevice {
        /// The index.
        device: usize,
    },
    /// The device is a bridge or hub.
    #[error("node `{node}`: {source}")]
    NoHost {
        /// The node.
        node: String,
        /// What the network says.
        source: CommandError,
    },
    /// The worker of the device has ended.
    #[error("node `{node}` stands still because its worker has failed; see the run's failure")]
    Ended {
        /// The node.
        node: String,
    },
}

/// Where one end of a link is.
pub(crate) struct PlacedEndpoint {
    pub(crate) name: String,
    /// `None` at an in-process device.
    pub(crate) port: Option<PlacedPort>,
}

/// Where a port is.
pub(crate) struct PlacedPort {
    pub(crate) name: String,
    /// Index among its worker's ports.
    pub(crate) index: usize,
    /// Number of its interfaces.
    pub(crate) interface: usize,
}

impl Handle {
    /// Sends a message and wakes the worker. A worker that has ended drops it, and with it the
    /// way to answer.
    fn tell(&self, message: Message) {
        if self.inbox.send(message).is_ok() {
            let _ = self.wake.write(1);
        }
    }
}

impl DataPlane {
    /// Starts the workers. Frames pass when it returns.
    pub fn start(config: DataPlaneConfig) -> Result<Self, StartError> {
        assembly::assemble(config)
    }

    /// Counters and timing now. Takes as long as the longest turn of a worker.
    pub fn snapshot(&self) -> Snapshot {
        let time = self.clock.now();
        let replies: Vec<_> = self
            .workers
            .iter()
            .map(|worker| {
                let (reply, answer) = bounded(1);
                worker.tell(Message::Snapshot(reply));
                answer
            })
            .collect();
        let states: Vec<_> = self
            .workers
            .iter()
            .zip(replies)
            // A worker that has ended has left its last state.
            .map(|(worker, answer)| answer.recv().ok().or_else(|| worker.last.lock().clone()))
            .collect();
        self.join(time, &states)
    }

    /// Forgets the lateness so far (that of a boot, for example, which is not the measurement's) and
    /// goes on by `sync`.
    pub fn measure(&self, sync: SyncPolicy) {
        for worker in &self.workers {
            worker.tell(Message::Measure(sync));
        }
    }

    /// Starts the sources of frames; their instants count from now.
    pub fn start_sources(&self) {
        for worker in &self.workers {
            worker.tell(Message::StartSources);
        }
    }

    /// Changes a link. Has taken effect when it returns, which says at which time.
    pub fn control(&self, link: &str, control: Control) -> Result<Instant, ControlError> {
        let Some(placed) = self.links.iter().find(|placed| placed.name == link) else {
            return Err(ControlError::NoSuchLink { link: link.to_owned() });
        };
        let up = match control {
            Control::LinkUp => Some(true),
            Control::LinkDown => Some(false),
            _ => None,
        };
        if up == Some(false) {
            self.note_carrier(placed, false);
        }
        let (done, answer) = bounded(1);
        self.workers[placed.worker].tell(Message::Control { link: placed.id, control, done });
        let applied = answer.recv().map_err(|_| ControlError::Ended { link: link.to_owned() })?;
        if up == Some(true) {
            self.note_carrier(placed, true);
        }
        Ok(applied?)
    }

    /// Notes what the interfaces of a link have dropped when their carrier changes.
    fn note_carrier(&self, placed: &Placed, up: bool) {
        let ports = placed.endpoints.iter().filter_map(|endpoint| endpoint.port.as_ref());
        let interfaces: Vec<usize> = ports.map(|port| port.interface).collect();
        self.interfaces.note_carrier(&interfaces, up);
    }

    /// Stops, restarts, … the device with this index among [`DataPlaneConfig::devices`]. Has taken
    /// effect when it returns, which says at which time.
    pub fn change_device(
        &self,
        device: usize,
        change: DeviceChange,
    ) -> Result<Instant, HostCommandError> {
        let (worker, id) = self.place(device)?;
        let (done, answer) = bounded(1);
        self.workers[worker].tell(Message::Device { device: id, change, done });
        answer.recv().map_err(|_| HostCommandError::Ended { node: self.device_name(device) })
    }

    fn device_name(&self, device: usize) -> String {
        self.devices.get(device).map_or_else(String::new, |device| device.name.clone())
    }

    /// The worker of a device, and its number there.
    fn place(&self, device: usize) -> Result<(usize, DeviceId), HostCommandError> {
        let known = self.devices.get(device).map(|known| known.place);
        known.ok_or(HostCommandError::NoDevice { device })
    }

    /// Starts a command on the host with this index among [`DataPlaneConfig::devices`].
    pub fn start_command(
        &self,
        device: usize,
        text: &str,
    ) -> Result<HostCommand, HostCommandError> {
        let node = || self.device_name(device);
        let (worker, id) = self.place(device)?;
        let handle = &self.workers[worker];
        let (sender, events) = unbounded_channel();
        let (reply, answer) = bounded(1);
        let text = text.to_owned();
        handle.tell(Message::StartCommand { device: id, text, events: sender, reply });
        match answer.recv() {
            Ok(Ok(command)) => Ok(HostCommand {
                id: command,
                device: id,
                worker: handle.inbox.clone(),
                wake: Arc::clone(&handle.wake),
                events,
            }),
            Ok(Err(source)) => Err(HostCommandError::NoHost { node: node(), source }),
            Err(_) => Err(HostCommandError::Ended { node: node() }),
        }
    }

    /// Tells of the first failure of a worker; the others go on until they are stopped.
    pub fn failure(&self) -> FailureWatch {
        FailureWatch(self.failure.clone())
    }

    /// Stops all workers and reports. Frames on links are left where they are, and counted so.
    pub fn stop(mut self) -> FinalReport {
        self.end_workers();
        self.watch.stop();
        let states: Vec<_> = self.workers.iter().map(|worker| worker.last.lock().take()).collect();
        let snapshot = self.join(self.clock.now(), &states);
        let captures = self.captures.finish();
        let snapshot = Snapshot { captures_skipped: self.captures.skipped(), ..snapshot };
        FinalReport { snapshot, captures, failure: self.failure.borrow().clone() }
    }

    fn end_workers(&mut self) {
        for worker in &self.workers {
            worker.tell(Message::Stop);
        }
        for worker in &mut self.workers {
            if let Some(thread) = worker.thread.take() {
                // Its panics are caught and reported as failures.
                let _ = thread.join();
            }
        }
    }

    /// Joins the states of all workers, with the interfaces' own counters.
    fn join(&self, time: SimTime, states: &[Option<WorkerState>]) -> Snapshot {
        let mut counted = self.interfaces.read(&self.watch.left());
        let mut link_report = |placed: &Placed| {
            let worker = states.get(placed.worker).and_then(Option::as_ref)?;
            let link = worker.links.get(placed.id.0 as usize)?;
            let endpoint = |(placed, (counters, backlog)): (&PlacedEndpoint, &(_, _))| {
                let port = placed.port.as_ref().and_then(|port| {
                    let its = worker.ports.get(port.index)?;
                    let counted = counted.get_mut(port.interface).map(std::mem::take)?;
                    Some(PortReport {
                        name: port.name.clone(),
                        state: its.state,
                        counters: its.counters,
                        interface: counted.interface,
                        reader_drops: counted.reader_drops,
                    })
                });
                let (station, backlog) = (Clone::clone(counters), *backlog);
                EndpointReport { endpoint: placed.name.clone(), station, backlog, port }
            };
            Some(LinkReport {
                name: placed.name.clone(),
                up: link.up,
                in_flight: link.in_flight,
                endpoints: placed.endpoints.iter().zip(&link.stations).map(endpoint).collect(),
            })
        };
        let links = self.links.iter().filter_map(&mut link_report).collect();
        let known = || states.iter().flatten();
        let worker_report = |(handle, state): (&Handle, &WorkerState)| WorkerReport {
            links: handle.links.clone(),
            backend: state.backend,
            lateness: Lateness::new(&state.histogram, state.worst.clone()),
            lateness_histogram_ns: buckets(&state.histogram),
            pulse: Lateness::new(&state.pulse, state.worst_beat.clone()),
            pulse_histogram_ns: buckets(&state.pulse),
            turns: state.turns,
            spun: state.spun,
        };
        let watched = self.watch.notices();
        let told: Vec<&Notices> =
            known().map(|state| &state.notices).chain(std::iter::once(&watched)).collect();
        let mut notices: Vec<_> = told.iter().flat_map(|told| &told.kept).cloned().collect();
        notices.sort_by_key(|notice| notice.time);
        Snapshot {
            time,
            lateness: Lateness::merged(known().map(|s| (&s.histogram, s.worst.clone()))),
            pulse: Lateness::merged(known().map(|s| (&s.pulse, s.worst_beat.clone()))),
            links,
            workers: self
                .workers
                .iter()
                .zip(states)
                .filter_map(|(handle, state)| Some((handle, state.as_ref()?)))
                .map(worker_report)
                .collect(),
            notices,
            notices_skipped: told.iter().map(|told| told.skipped).sum(),
            captures_skipped: self.captures.skipped(),
        }
    }
}

impl Drop for DataPlane {
    fn drop(&mut self) {
        self.end_workers();
    }
}
