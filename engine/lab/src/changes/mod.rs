//! Changes while a lab runs: links that get other parameters, go down and come back, nodes that
//! stand still, end and start anew.
//!
//! Purpose: [`agenda`] says what is due when, [`effects`] what that means for single links and
//! nodes, [`Changes`] does it to a lab in real time; a simulation does it itself.

pub(crate) mod agenda;
pub(crate) mod cables;
pub(crate) mod effects;
pub(crate) mod ends;
mod told;

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::StreamExt;
use futures::stream::FuturesUnordered;
use parking_lot::Mutex;
use tapestry_core::SimTime;
use tapestry_guests::qemu::QmpError;
use tapestry_models::DeviceChange;
use tapestry_realtime::{Control, ControlError, DataPlane, HostCommandError};
use tapestry_topologies::resolved::{
    Action, Channel, Endpoint, LinkChange, LinkIndex, LinkState, NodeIndex, Topology,
};
use tapestry_topologies::{Problem, Settings, link_names, parse_settings};

use crate::control::LinkRequest;
use crate::event::{Event, Events, Groups};
use crate::machine::PauseError;
use crate::node::NodeError;
use crate::nodes::{Nodes, Restart};
use agenda::{Agenda, Due};
use effects::{Effect, Holds};
use ends::Ends;

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
    /// What should name links does not.
    #[error("{text:?} names no links: {wrong}")]
    Names {
        /// As it was asked for.
        text: String,
        /// What is wrong.
        wrong: String,
    },
    /// A direction that the link does not have.
    #[error("link {link} has no direction {direction}; {known}")]
    NoDirection {
        /// The link.
        link: String,
        /// As it was asked for: `a->b`, or the node that sends.
        direction: String,
        /// Those there are.
        known: String,
    },
    /// The data plane refused.
    #[error(transparent)]
    Link(#[from] ControlError),
    /// The data plane refused.
    #[error(transparent)]
    Device(#[from] HostCommandError),
    /// The node is not up.
    #[error("node {node} {why}")]
    NotRunning {
        /// The node.
        node: String,
        /// What it is instead.
        why: &'static str,
    },
    /// QEMU refused.
    #[error("node {node}: {source}")]
    Qemu {
        /// The node.
        node: String,
        /// What it said.
        source: QmpError,
    },
    /// The node did not stand still, or go on.
    #[error("node {node}: {source}")]
    Pause {
        /// The node.
        node: String,
        /// Why.
        source: PauseError,
    },
    /// The node has ended and did not start anew.
    #[error("restart: {0}")]
    Restart(#[from] NodeError),
    /// The lab is over or another program moves its frames.
    #[error("the lab has no data plane to change")]
    NoPlane,
}

impl ChangeError {
    /// Whether what was asked for makes no sense, rather than that it could not be done.
    pub fn is_usage(&self) -> bool {
        matches!(
            self,
            Self::NoSuchLink { .. }
                | Self::Names { .. }
                | Self::Settings { .. }
                | Self::NoDirection { .. }
                | Self::Link(ControlError::Refused(_))
        )
    }
}

/// A problem with settings as one sentence.
fn told(problem: &Problem) -> String {
    let parts =
        [problem.message.as_str(), &problem.expected, problem.help.as_deref().unwrap_or("")];
    parts.into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join("; ")
}

/// Changes the links and nodes of a lab in real time.
pub struct Changes {
    pub(crate) topology: Arc<Topology>,
    /// `None` once the lab is stopped.
    pub(crate) plane: Arc<Mutex<Option<DataPlane>>>,
    /// Index among the data plane's devices, by node.
    pub(crate) device_of: Vec<Option<usize>>,
    pub(crate) nodes: Arc<Nodes>,
    pub(crate) events: Events,
    holds: Arc<Mutex<Holds>>,
    /// What was done to nodes.
    pub(crate) ends: Arc<Ends>,
    /// What each link does now.
    states: Mutex<Vec<LinkState>>,
}

/// A change that has been begun: what still goes on are nodes that start anew.
#[derive(Debug, Default)]
#[must_use = "whether the nodes came up again is known when this has finished"]
pub struct Begun(Vec<Restart>);

impl Begun {
    /// Waits until the nodes are up and configured; fails with the first that is not.
    pub async fn finish(self) -> Result<(), ChangeError> {
        for restart in self.0 {
            // One that was interrupted by another change is not a failure.
            if let Ok(outcome) = restart.await {
                outcome?;
            }
        }
        Ok(())
    }
}

impl Changes {
    pub(crate) fn new(
        topology: Arc<Topology>,
        plane: Arc<Mutex<Option<DataPlane>>>,
        device_of: Vec<Option<usize>>,
        nodes: Arc<Nodes>,
        events: Events,
        holds: Arc<Mutex<Holds>>,
    ) -> Self {
        let states = Mutex::new(topology.links.iter().map(LinkState::of).collect());
        Self { topology, plane, device_of, nodes, events, holds, ends: Arc::default(), states }
    }

    /// The link of this name.
    pub fn link(&self, name: &str) -> Result<LinkIndex, ChangeError> {
        let links = &self.topology.links;
        links.iter().position(|link| link.name == name).ok_or_else(|| ChangeError::NoSuchLink {
            link: name.to_owned(),
            known: links.iter().map(|link| link.name.as_str()).collect::<Vec<_>>().join(", "),
        })
    }

    /// Does what another terminal asks for, with each link that `names` stands for, once all of it is known
    /// to make sense.
    pub async fn request(&self, names: &str, request: &LinkRequest) -> Result<(), ChangeError> {
        let wrong = |wrong| ChangeError::Names { text: names.to_owned(), wrong };
        let mut actions = Vec::new();
        for name in link_names(names).map_err(wrong)? {
            let link = self.link(&name)?;
            actions.push(match request {
                LinkRequest::Down => Action::Down { link },
                LinkRequest::Up => Action::Up { link },
                LinkRequest::Set { settings, from, directory } => {
                    self.settings(link, settings, from.as_deref(), directory)?
                }
            });
        }
        for action in &actions {
            self.make(action).await?;
        }
        Ok(())
    }

    fn settings(
        &self,
        link: LinkIndex,
        settings: &str,
        from: Option<&str>,
        directory: &Path,
    ) -> Result<Action, ChangeError> {
        let this = &self.topology.links[link];
        let name = |end: &Endpoint| self.topology.nodes[end.node].name.as_str();
        let ends: Vec<&str> = this.endpoints.iter().map(name).collect();
        let direction_of = |wanted: &str| {
            let (node, to) = match wanted.split_once("->") {
                None => (wanted, None),
                Some((node, to)) => (node.trim(), Some(to.trim())),
            };
            let end = ends.iter().position(|end| *end == node)?;
            let goes_there = to.is_none_or(|to| ends.get(1 - end.min(1)) == Some(&to));
            (this.channel == Channel::PointToPoint && goes_there).then_some(end)
        };
        let from = match from.map(|wanted| (wanted, direction_of(wanted))) {
            None => None,
            Some((_, Some(end))) => Some(end),
            Some((wanted, None)) => {
                let (link, direction) = (this.name.clone(), wanted.to_owned());
                let known = match (this.channel, ends.as_slice()) {
                    (Channel::PointToPoint, [a, b]) => format!("it has {a}->{b} and {b}->{a}"),
                    _ => "it is shared by all its nodes".to_owned(),
                };
                return Err(ChangeError::NoDirection { link, direction, known });
            }
        };
        let state = self.states.lock()[link].clone();
        let settings = Settings { text: settings, from, directory };
        let change = parse_settings(this, &state, &ends, &settings);
        let change = change.map_err(|wrong| ChangeError::Settings {
            wrong: wrong.problems().iter().map(told).collect::<Vec<_>>().join("; "),
        })?;
        Ok(Action::Set { link, change: Box::new(change) })
    }

    /// Does it now and returns when it is done; a node that starts anew is up again then.
    pub async fn make(&self, action: &Action) -> Result<(), ChangeError> {
        self.begin(action, None).await?.finish().await
    }

    /// The same without waiting for nodes that start anew: they have ended and begun to start. `due`
    /// says what planned it, if something did.
    async fn begin(&self, action: &Action, due: Option<&Due>) -> Result<Begun, ChangeError> {
        let effects = self.holds.lock().effects(&self.topology, action);
        let mut begun = Begun::default();
        for effect in effects {
            let at = self.carry_out(&effect, due, &mut begun).await?;
            let executed = at.saturating_duration_since(self.events.start()).into();
            let scheduled = due.map(|due| due.at);
            self.events.emit(&changed(&self.topology, &effect, scheduled, executed));
        }
        Ok(begun)
    }

    /// Makes the changes of an agenda when they are due, until dropped. `failed` hears of those
    /// that cannot be made.
    pub(crate) async fn drive(&self, agenda: &Agenda, failed: impl Fn(String)) {
        let mut restarts = FuturesUnordered::new();
        loop {
            let changed = agenda.changed();
            tokio::pin!(changed);
            let due = agenda.peek().map(|due| self.events.start() + Duration::from(due));
            tokio::select! {
                () = until(due) => {}
                () = &mut changed => continue,
                Some((at, outcome)) = restarts.next() => {
                    if let Err(error) = outcome {
                        failed(format!("event at {at}: {error}"));
                    }
                    continue;
                }
            }
            let now = self.events.time().elapsed().into();
            while let Some(due) = agenda.pop(now) {
                let at = due.at;
                match self.begin(&due.action, Some(&due)).await {
                    Ok(begun) => restarts.push(async move { (at, begun.finish().await) }),
                    Err(error) => failed(format!("event at {at}: {error}")),
                }
                agenda.done();
            }
        }
    }

    async fn carry_out(
        &self,
        effect: &Effect,
        due: Option<&Due>,
        begun: &mut Begun,
    ) -> Result<Instant, ChangeError> {
        match effect {
            // What follows from it are effects of their own.
            Effect::Partition { .. } | Effect::Heal { .. } => Ok(Instant::now()),
            Effect::Carrier { link, up } => self.set_carrier(*link, *up).await,
            Effect::Set { link, change } => self.set(*link, change),
            Effect::Node { node, change } => self.change_node(*node, *change, due, begun).await,
        }
    }

    async fn set_carrier(&self, link: LinkIndex, up: bool) -> Result<Instant, ChangeError> {
        let control = if up { Control::LinkUp } else { Control::LinkDown };
        let at = self.control(link, control)?;
        // Other nodes' interfaces belong to the data plane.
        let set = self.nodes.ground().cables.set(link, up).await;
        set.map_err(|(node, source)| ChangeError::Qemu { node: self.name(node), source })?;
        Ok(at)
    }

    fn set(&self, link: LinkIndex, change: &LinkChange) -> Result<Instant, ChangeError> {
        // Held over both, so that the states follow in the order of the changes.
        let mut states = self.states.lock();
        let at = self.control(link, Control::Change(Box::new(crate::queue::change(change))))?;
        states[link].apply(change);
        Ok(at)
    }

    async fn change_node(
        &self,
        node: NodeIndex,
        change: DeviceChange,
        due: Option<&Due>,
        begun: &mut Begun,
    ) -> Result<Instant, ChangeError> {
        let at = Instant::now();
        let run_time = at.saturating_duration_since(self.events.start()).into();
        let why = ends::told(change, due, run_time).unwrap_or_default();
        if let Some(device) = self.device_of[node] {
            let plane = self.plane.lock();
            let plane = plane.as_ref().ok_or(ChangeError::NoPlane)?;
            if !why.is_empty() {
                // Before its commands end.
                self.ends.note(node, run_time, why);
            }
            let at = plane.change_device(device, change)?;
            if change == DeviceChange::Restart {
                for text in &self.topology.nodes[node].init {
                    // Nobody hears of them.
                    plane.start_command(device, text)?;
                }
            }
            return Ok(at);
        }
        let paused = match change {
            DeviceChange::Pause => self.nodes.pause(node).await,
            DeviceChange::Resume => self.nodes.resume(node).await,
            DeviceChange::Kill => self.nodes.kill(node, &why).await.then_some(Ok(())),
            DeviceChange::Restart => {
                let restart = self.nodes.restart(node, &why).await;
                restart.map(|restart| {
                    begun.0.push(restart);
                    Ok(())
                })
            }
        };
        match paused {
            Some(Ok(())) => Ok(at),
            Some(Err(source)) => Err(ChangeError::Pause { node: self.name(node), source }),
            None => {
                let why = self.nodes.absence(node);
                Err(ChangeError::NotRunning { node: self.name(node), why })
            }
        }
    }

    fn name(&self, node: NodeIndex) -> String {
        self.topology.nodes[node].name.clone()
    }

    fn control(&self, link: LinkIndex, control: Control) -> Result<Instant, ChangeError> {
        let plane = self.plane.lock();
        let plane = plane.as_ref().ok_or(ChangeError::NoPlane)?;
        Ok(plane.control(&self.topology.links[link].name, control)?)
    }
}

/// Sleeps to a fraction of a millisecond: the runtime's own timer is no finer than one. Without a
/// time, for ever.
async fn until(due: Option<Instant>) {
    let Some(due) = due else { return std::future::pending().await };
    const COARSE: Duration = Duration::from_millis(2);
    if let Some(early) = due.checked_sub(COARSE) {
        tokio::time::sleep_until(early.into()).await;
    }
    let fine = move || std::thread::sleep(due.saturating_duration_since(Instant::now()));
    let _ = tokio::task::spawn_blocking(fine).await;
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
        Effect::Partition { .. } => ("partition", None, None),
        Effect::Heal { .. } => ("heal", None, None),
    };
    let name = |node: &NodeIndex| topology.nodes[*node].name.clone();
    let groups = match effect {
        Effect::Partition { groups } => {
            let named = groups.iter();
            let named =
                named.map(|(group, nodes)| (group.clone(), nodes.iter().map(name).collect()));
            Some(Groups::Nodes(named.collect()))
        }
        Effect::Heal { groups } if groups.is_empty() => Some(Groups::Names(vec!["all".to_owned()])),
        Effect::Heal { groups } => Some(Groups::Names(groups.clone())),
        _ => None,
    };
    let change = match effect {
        Effect::Set { change, .. } => Some(change),
        _ => None,
    };
    Event::Changed {
        action: action.to_owned(),
        link,
        node,
        groups,
        parameters: change
            .map(|change| Box::new(change.directions.each_ref().map(told::direction))),
        mtu: change.and_then(|change| change.mtu),
        scheduled_ns: scheduled.map(SimTime::as_nanos),
        executed_ns: executed.as_nanos(),
    }
}
