//! Changes while a lab runs: links that get other parameters, go down and come back, nodes that
//! stand still, end and start anew.
//!
//! Purpose: [`agenda`] says what is due when, [`effects`] what that means for single links and
//! nodes, [`Changes`] does it to a lab in real time; a simulation does it itself.

pub(crate) mod agenda;
pub(crate) mod effects;

use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::{Mutex, RwLock};
use tapestry_core::SimTime;
use tapestry_core::link::ParameterChange;
use tapestry_guests::qemu::{QmpCommand, QmpError};
use tapestry_models::{DeviceChange, Direction};
use tapestry_realtime::{Control, ControlError, DataPlane, HostCommandError};
use tapestry_topologies::parse_settings;
use tapestry_topologies::resolved::{Action, Channel, Endpoint, LinkIndex, NodeIndex, Topology};

use crate::control::LinkRequest;
use crate::event::{Event, Events};
use crate::node::{Machine, RunningNode};
use agenda::Agenda;
use effects::{Effect, Holds};

/// Why a change was not made.
#[derive(Debug, thiserror::Error)]
pub enum ChangeError {
    /// There is no such link.
    #[error("there is no link {link:?}; the links are {known}")]
    NoSuchLink {
        /// The name.
        link: String,
        /// The names there are.
        known: String,
    },
    /// Settings that cannot be read.
    #[error("{wrong}")]
    Settings {
        /// What is wrong.
        wrong: String,
    },
    /// A direction that the link does not have.
    #[error("link {link} has no direction from node {node}; it is shared, or not at that node")]
    NoDirection {
        /// The link.
        link: String,
        /// The node.
        node: String,
    },
    /// The data plane refused.
    #[error(transparent)]
    Link(#[from] ControlError),
    /// The data plane refused.
    #[error(transparent)]
    Device(#[from] HostCommandError),
    /// The node is not up.
    #[error("node {node} is not running")]
    NotRunning {
        /// The node.
        node: String,
    },
    /// QEMU refused.
    #[error("node {node}: {source}")]
    Qemu {
        /// The node.
        node: String,
        /// What it said.
        source: QmpError,
    },
    /// A signal could not be sent.
    #[error("node {node}: {source}")]
    Signal {
        /// The node.
        node: String,
        /// The system's answer.
        source: std::io::Error,
    },
    /// Such a node does not start anew while the lab runs.
    #[error("node {node}: a node of kind {kind} cannot be restarted while the lab runs")]
    NoRestart {
        /// The node.
        node: String,
        /// Its kind.
        kind: &'static str,
    },
    /// The lab is over or another program moves its frames.
    #[error("the lab has no data plane to change")]
    NoPlane,
}

/// Changes the links and nodes of a lab in real time.
pub struct Changes {
    pub(crate) topology: Arc<Topology>,
    /// `None` once the lab is stopped.
    pub(crate) plane: Arc<Mutex<Option<DataPlane>>>,
    /// Index among the data plane's devices, by node.
    pub(crate) device_of: Vec<Option<usize>>,
    pub(crate) nodes: Arc<RwLock<Vec<Arc<RunningNode>>>>,
    pub(crate) events: Events,
    holds: Mutex<Holds>,
}

impl Changes {
    pub(crate) fn new(
        topology: Arc<Topology>,
        plane: Arc<Mutex<Option<DataPlane>>>,
        device_of: Vec<Option<usize>>,
        nodes: Arc<RwLock<Vec<Arc<RunningNode>>>>,
        events: Events,
    ) -> Self {
        Self { topology, plane, device_of, nodes, events, holds: Mutex::default() }
    }

    /// The link of this name.
    pub fn link(&self, name: &str) -> Result<LinkIndex, ChangeError> {
        let links = &self.topology.links;
        links.iter().position(|link| link.name == name).ok_or_else(|| ChangeError::NoSuchLink {
            link: name.to_owned(),
            known: links.iter().map(|link| link.name.as_str()).collect::<Vec<_>>().join(", "),
        })
    }

    /// Does what another terminal asks for.
    pub async fn request(&self, link: &str, request: &LinkRequest) -> Result<(), ChangeError> {
        let at = self.link(link)?;
        let action = match request {
            LinkRequest::Down => Action::Down { link: at },
            LinkRequest::Up => Action::Up { link: at },
            LinkRequest::Set { settings, from } => self.settings(at, settings, from.as_deref())?,
        };
        self.make(&action, None).await
    }

    fn settings(
        &self,
        link: LinkIndex,
        settings: &str,
        from: Option<&str>,
    ) -> Result<Action, ChangeError> {
        let this = &self.topology.links[link];
        let change = parse_settings(this, settings).map_err(|wrong| ChangeError::Settings {
            wrong: wrong.problems().iter().map(ToString::to_string).collect::<Vec<_>>().join("; "),
        })?;
        let name = |end: &Endpoint| self.topology.nodes[end.node].name.as_str();
        let directions = match from {
            None => [change.clone(), change],
            Some(node) => match this.endpoints.iter().position(|end| name(end) == node) {
                Some(0) if this.channel == Channel::PointToPoint => {
                    [change, ParameterChange::default()]
                }
                Some(1) if this.channel == Channel::PointToPoint => {
                    [ParameterChange::default(), change]
                }
                _ => {
                    let (link, node) = (this.name.clone(), node.to_owned());
                    return Err(ChangeError::NoDirection { link, node });
                }
            },
        };
        Ok(Action::Set { link, directions: Box::new(directions) })
    }

    /// Does it now; `scheduled` is the time of the run at which it was to happen, if it was planned.
    pub async fn make(
        &self,
        action: &Action,
        scheduled: Option<SimTime>,
    ) -> Result<(), ChangeError> {
        let effects = self.holds.lock().effects(&self.topology, action);
        for effect in effects {
            let at = self.carry_out(&effect).await?;
            let executed = at.saturating_duration_since(self.events.start()).into();
            self.events.emit(&changed(&self.topology, &effect, scheduled, executed));
        }
        Ok(())
    }

    /// Makes the changes of an agenda when they are due, until dropped. `failed` hears of those
    /// that cannot be made.
    pub(crate) async fn drive(&self, agenda: &Agenda, failed: impl Fn(String)) {
        loop {
            let changed = agenda.changed();
            tokio::pin!(changed);
            let Some(due) = agenda.peek() else {
                changed.await;
                continue;
            };
            let due = self.events.start() + Duration::from(due);
            tokio::select! {
                () = until(due) => {}
                () = &mut changed => continue,
            }
            let now = self.events.time().elapsed().into();
            while let Some((at, action)) = agenda.pop(now) {
                if let Err(error) = self.make(&action, Some(at)).await {
                    failed(format!("event at {at}: {error}"));
                }
                agenda.done();
            }
        }
    }

    async fn carry_out(&self, effect: &Effect) -> Result<Instant, ChangeError> {
        match effect {
            Effect::Carrier { link, up } => self.set_carrier(*link, *up).await,
            Effect::Set { link, directions } => self.set(*link, directions),
            Effect::Node { node, change } => self.change_node(*node, *change).await,
        }
    }

    async fn set_carrier(&self, link: LinkIndex, up: bool) -> Result<Instant, ChangeError> {
        let control = if up { Control::LinkUp } else { Control::LinkDown };
        let at = self.control(link, control)?;
        for end in &self.topology.links[link].endpoints {
            let node = &self.topology.nodes[end.node].name;
            // Other nodes' interfaces belong to the data plane. A guest that is not up gets its
            // cables when it comes.
            let Some(running) = self.running(end.node) else { continue };
            if let Machine::Qemu(guest) = &running.machine {
                let set = guest.qmp().set_link(end.interface, up).await;
                set.map_err(|source| ChangeError::Qemu { node: node.clone(), source })?;
            }
        }
        Ok(at)
    }

    fn set(
        &self,
        link: LinkIndex,
        directions: &[ParameterChange; 2],
    ) -> Result<Instant, ChangeError> {
        let [forward, backward] = directions;
        let change = |direction, change: &ParameterChange| {
            self.control(link, Control::Change(direction, Box::new(change.clone())))
        };
        if forward == backward {
            return change(Direction::Both, forward);
        }
        let at = change(Direction::From(0), forward)?;
        change(Direction::From(1), backward)?;
        Ok(at)
    }

    async fn change_node(
        &self,
        node: NodeIndex,
        change: DeviceChange,
    ) -> Result<Instant, ChangeError> {
        if let Some(device) = self.device_of[node] {
            let plane = self.plane.lock();
            let plane = plane.as_ref().ok_or(ChangeError::NoPlane)?;
            let at = plane.change_device(device, change)?;
            if change == DeviceChange::Restart {
                for text in &self.topology.nodes[node].init {
                    // Nobody hears of them.
                    plane.start_command(device, text)?;
                }
            }
            return Ok(at);
        }
        let name = || self.topology.nodes[node].name.clone();
        let running = self.running(node).ok_or_else(|| ChangeError::NotRunning { node: name() })?;
        let at = Instant::now();
        let qemu = |source| ChangeError::Qemu { node: name(), source };
        let signal = |source| ChangeError::Signal { node: name(), source };
        match (&running.machine, change) {
            (_, DeviceChange::Restart) => {
                let kind = self.topology.nodes[node].kind.as_str();
                return Err(ChangeError::NoRestart { node: name(), kind });
            }
            (Machine::Qemu(guest), DeviceChange::Pause) => {
                guest.qmp().execute(QmpCommand::Stop).await.map(drop).map_err(qemu)?;
            }
            (Machine::Qemu(guest), DeviceChange::Resume) => {
                guest.qmp().execute(QmpCommand::Cont).await.map(drop).map_err(qemu)?;
            }
            (Machine::Netns { init, .. }, DeviceChange::Pause) => {
                signal_all(*init, nix::sys::signal::Signal::SIGSTOP).map_err(signal)?;
            }
            (Machine::Netns { init, .. }, DeviceChange::Resume) => {
                signal_all(*init, nix::sys::signal::Signal::SIGCONT).map_err(signal)?;
            }
            (machine, DeviceChange::Kill) => machine.kill().await,
        }
        Ok(at)
    }

    fn control(&self, link: LinkIndex, control: Control) -> Result<Instant, ChangeError> {
        let plane = self.plane.lock();
        let plane = plane.as_ref().ok_or(ChangeError::NoPlane)?;
        Ok(plane.control(&self.topology.links[link].name, control)?)
    }

    fn running(&self, node: NodeIndex) -> Option<Arc<RunningNode>> {
        let name = &self.topology.nodes[node].name;
        self.nodes.read().iter().find(|node| node.name == *name).cloned()
    }
}

/// Sleeps to a fraction of a millisecond: the runtime's own timer is no finer than one.
async fn until(due: Instant) {
    const COARSE: Duration = Duration::from_millis(2);
    if let Some(early) = due.checked_sub(COARSE) {
        tokio::time::sleep_until(early.into()).await;
    }
    let fine = move || std::thread::sleep(due.saturating_duration_since(Instant::now()));
    let _ = tokio::task::spawn_blocking(fine).await;
}

/// Sends a signal to all processes of a namespace node, whose process 1 this is.
fn signal_all(init: u32, signal: nix::sys::signal::Signal) -> std::io::Result<()> {
    let own = std::fs::read_link(format!("/proc/{init}/ns/pid"))?;
    // Twice, for a process that is just being made by one that goes on.
    for _ in 0..2 {
        for entry in std::fs::read_dir("/proc")?.flatten() {
            let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else {
                continue;
            };
            let its = std::fs::read_link(entry.path().join("ns/pid"));
            if its.is_ok_and(|its| its == own) {
                // One that has ended needs no signal.
                let _ = nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), signal);
            }
        }
    }
    Ok(())
}

/// What `events.jsonl` says of a change.
pub(crate) fn changed(
    topology: &Topology,
    effect: &Effect,
    scheduled: Option<SimTime>,
    executed: SimTime,
) -> Event {
    let link = |link: &LinkIndex| Some(topology.links[*link].name.clone());
    let (action, link, node) = match effect {
        Effect::Set { link: at, .. } => ("set", link(at), None),
        Effect::Carrier { link: at, up: true } => ("up", link(at), None),
        Effect::Carrier { link: at, up: false } => ("down", link(at), None),
        Effect::Node { node, change } => {
            let word = match change {
                DeviceChange::Pause => "pause",
                DeviceChange::Resume => "resume",
                DeviceChange::Kill => "kill",
                DeviceChange::Restart => "restart",
            };
            (word, None, Some(topology.nodes[*node].name.clone()))
        }
    };
    let parameters = match effect {
        Effect::Set { directions, .. } => Some(directions.clone()),
        _ => None,
    };
    Event::Changed {
        action: action.to_owned(),
        link,
        node,
        parameters,
        scheduled_ns: scheduled.map(SimTime::as_nanos),
        executed_ns: executed.as_nanos(),
    }
}
