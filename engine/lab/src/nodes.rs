//! The nodes of a running lab that have a life of their own: virtual machines and namespaces come
//! up, stand still, end, and start anew.
//!
//! Purpose: one place that knows which nodes are up. A node that starts anew is another
//! [`RunningNode`] on the same footing; whoever runs commands on it finds its present shell in a
//! [`ShellSlot`].

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use parking_lot::{Mutex, RwLock};
use tapestry_guests::shell::ShellSlot;
use tapestry_topologies::resolved::NodeIndex;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use crate::event::Event;
use crate::keep::open_in;
use crate::machine::{Machine, PauseError};
use crate::node::{Footing, Ground, NodeError, RunningNode, bring_up};

/// Nodes outside the data plane, by their index in the topology.
pub struct Nodes {
    ground: Ground,
    slots: Vec<Slot>,
}

struct Slot {
    /// Kept from the first boot on; `None` before it. Locked while the node comes up.
    footing: tokio::sync::Mutex<Option<Footing>>,
    running: RwLock<Option<Arc<RunningNode>>>,
    shell: ShellSlot,
    /// How often it has been started.
    lives: AtomicU32,
    /// Ended on purpose, or not come up again.
    off: AtomicBool,
    /// While a task starts it anew; dropped, that is given up.
    starting: Mutex<Option<oneshot::Sender<()>>>,
}

/// A node that starts anew; ends when its configuration is done, or with the reason why it is not.
pub(crate) type Restart = JoinHandle<Result<(), NodeError>>;

impl Nodes {
    pub(crate) fn new(ground: Ground) -> Self {
        let slot = |name: &str| Slot {
            footing: tokio::sync::Mutex::default(),
            running: RwLock::default(),
            shell: ShellSlot::new(name),
            lives: AtomicU32::new(0),
            off: AtomicBool::new(false),
            starting: Mutex::default(),
        };
        let slots = ground.topology.nodes.iter().map(|node| slot(&node.name)).collect();
        Self { ground, slots }
    }

    pub(crate) fn ground(&self) -> &Ground {
        &self.ground
    }

    /// A node that is up.
    pub fn get(&self, name: &str) -> Option<Arc<RunningNode>> {
        let index = self.ground.topology.nodes.iter().position(|node| node.name == name)?;
        self.at(index)
    }

    /// The same by its index in the topology.
    pub fn at(&self, node: NodeIndex) -> Option<Arc<RunningNode>> {
        self.slots.get(node)?.running.read().clone()
    }

    /// All that are up, in the order of the topology.
    pub fn running(&self) -> Vec<Arc<RunningNode>> {
        self.slots.iter().filter_map(|slot| slot.running.read().clone()).collect()
    }

    /// Why a node is not up, as the end of a sentence that it begins.
    pub fn absence(&self, node: NodeIndex) -> &'static str {
        if self.is_off(node) {
            "has been switched off"
        } else if self.slots[node].starting.lock().is_some() {
            "is starting anew"
        } else {
            "is not ready"
        }
    }

    /// Whether a node was up, and neither is nor will be.
    pub(crate) fn is_off(&self, node: NodeIndex) -> bool {
        self.slots[node].off.load(Ordering::Relaxed)
    }

    /// Where the shells of the nodes that have one outside the data plane are found.
    pub fn shells(&self) -> impl Iterator<Item = (NodeIndex, ShellSlot)> {
        let nodes = self.ground.topology.nodes.iter().zip(&self.slots).enumerate();
        nodes
            .filter(|(_, (node, _))| node.kind.is_external())
            .map(|(index, (_, slot))| (index, slot.shell.clone()))
    }

    /// Waits while these nodes start anew.
    pub async fn settled(&self, nodes: impl IntoIterator<Item = NodeIndex>) {
        for node in nodes {
            let is_starting = self.slots[node].starting.lock().is_some();
            if is_starting {
                self.slots[node].shell.settled().await;
            }
        }
    }

    /// Brings a node up for the first time.
    pub(crate) async fn boot(
        self: &Arc<Self>,
        node: NodeIndex,
        footing: Footing,
    ) -> Result<Arc<RunningNode>, NodeError> {
        let mut place = self.slots[node].footing.lock().await;
        self.begin_life(node, place.insert(footing)).await
    }

    /// Has a node stand still. A virtual machine hears nothing meanwhile; for a namespace the
    /// kernel still answers. `None` if it is not up.
    pub(crate) async fn pause(&self, node: NodeIndex) -> Option<Result<(), PauseError>> {
        let running = self.at(node)?;
        let paused = running.machine.pause().await;
        if paused.is_ok() && matches!(running.machine, Machine::Qemu(_)) {
            self.ground.set_listening(node, false);
        }
        Some(paused)
    }

    /// Has it go on.
    pub(crate) async fn resume(&self, node: NodeIndex) -> Option<Result<(), PauseError>> {
        let running = self.at(node)?;
        let resumed = running.machine.resume().await;
        if resumed.is_ok() {
            self.ground.set_listening(node, true);
        }
        Some(resumed)
    }

    /// Ends a node as if its power failed; false if there is none that is or was up. Its commands say
    /// `why` ("was killed").
    pub(crate) async fn kill(&self, node: NodeIndex, why: &str) -> bool {
        if self.slots[node].lives.load(Ordering::Relaxed) == 0 {
            return false;
        }
        self.slots[node].off.store(true, Ordering::Relaxed);
        self.end_life(node, why, |shell| shell.gone(why)).await;
        true
    }

    /// Ends a node and begins to start it anew; `None` if it never was up. Commands on it fail, and
    /// those that come wait until it is up again.
    pub(crate) async fn restart(self: &Arc<Self>, node: NodeIndex, why: &str) -> Option<Restart> {
        let slot = &self.slots[node];
        if slot.lives.load(Ordering::Relaxed) == 0 {
            return None;
        }
        slot.off.store(false, Ordering::Relaxed);
        self.end_life(node, why, ShellSlot::starting).await;
        let this = Arc::clone(self);
        let (starting, given_up) = oneshot::channel();
        *slot.starting.lock() = Some(starting);
        Some(tokio::spawn(async move { this.start_anew(node, given_up).await }))
    }

    async fn start_anew(
        self: &Arc<Self>,
        node: NodeIndex,
        given_up: oneshot::Receiver<()>,
    ) -> Result<(), NodeError> {
        let slot = &self.slots[node];
        let mut footing = slot.footing.lock().await;
        let Some(footing) = footing.as_mut() else { return Ok(()) };
        let start = async {
            footing.renew(&self.ground, node).await?;
            // From here on it can be given up at any time.
            tokio::select! {
                biased;
                _ = given_up => Ok(false),
                begun = self.begin_life(node, footing) => begun.map(|_| true),
            }
        };
        let started = start.await;
        // Whoever gave it up has taken it out, and may have put another in.
        if !matches!(started, Ok(false)) {
            *slot.starting.lock() = None;
        }
        started.map(drop).inspect_err(|error| {
            let (node, error) = (slot.shell.node().to_owned(), error.to_string());
            slot.shell.gone("did not start anew");
            slot.off.store(true, Ordering::Relaxed);
            self.ground.events.emit(&Event::NodeFailed { node, error });
        })
    }

    /// Ends all nodes side by side.
    pub(crate) async fn stop(&self) {
        let ends = self.slots.iter().map(async |slot| {
            drop(slot.starting.lock().take());
            let running = slot.running.write().take();
            if let Some(node) = running {
                node.machine.stop().await;
            }
        });
        futures::future::join_all(ends).await;
    }

    async fn begin_life(
        self: &Arc<Self>,
        node: NodeIndex,
        footing: &mut Footing,
    ) -> Result<Arc<RunningNode>, NodeError> {
        let slot = &self.slots[node];
        let life = slot.lives.fetch_add(1, Ordering::Relaxed);
        let running = Arc::new(bring_up(&self.ground, node, footing, life).await?);
        if let Machine::Qemu(guest) = &running.machine {
            // One that ends unasked hears nothing from then on.
            let (end, this) = (guest.end(), Arc::downgrade(self));
            tokio::spawn(async move {
                end.await;
                if let Some(this) = this.upgrade()
                    && this.slots[node].lives.load(Ordering::Relaxed) == life + 1
                {
                    this.ground.set_listening(node, false);
                }
            });
        }
        *slot.running.write() = Some(Arc::clone(&running));
        slot.shell.put(running.shell.0.clone());
        Ok(running)
    }

    /// Ends what there is of a node; `mark` tells those who look for its shell.
    async fn end_life(&self, node: NodeIndex, why: &str, mark: impl Fn(&ShellSlot)) {
        let slot = &self.slots[node];
        mark(&slot.shell);
        self.ground.set_listening(node, false);
        drop(slot.starting.lock().take());
        self.end_running(node, why).await;
        // Free once a start that was given up has let go of everything; it may have come up at the
        // very last moment.
        let footing = slot.footing.lock().await;
        mark(&slot.shell);
        self.ground.set_listening(node, false);
        self.end_running(node, why).await;
        self.ground.cables.disconnect(node).await;
        if let Some(Footing::Namespace(network)) = footing.as_ref()
            && let Err(error) = network.take_down().await
        {
            // One that the node has deleted, for example, is silent already.
            tracing::debug!(node = slot.shell.node(), %error, "interfaces not taken down");
        }
    }

    /// Has what commands in the background have written outlive their node. A namespace's files can be
    /// read as long as they are held open. A virtual machine must send them itself: for the network it
    /// ends before, with its cables unplugged.
    async fn rescue(&self, node: NodeIndex, running: &RunningNode, why: &str) {
        /// How much later a virtual machine may end for it, beyond the milliseconds that it takes.
        const LONGEST: Duration = Duration::from_secs(3);
        let shell = &running.shell.0;
        let outputs = shell.background_outputs();
        match &running.machine {
            Machine::Netns { init, .. } => {
                for (number, path) in outputs {
                    match open_in(*init, &path) {
                        Ok(file) => shell.leave_output(number, file),
                        Err(error) => tracing::debug!(node = running.name, %error, "output lost"),
                    }
                }
            }
            Machine::Qemu(_) if !outputs.is_empty() => {
                self.ground.cables.unplug(node).await;
                // One that stands still could not answer.
                let _ = running.machine.resume().await;
                shell.rescue(why, LONGEST).await;
            }
            Machine::Qemu(_) => {}
        }
    }

    async fn end_running(&self, node: NodeIndex, why: &str) {
        let running = self.slots[node].running.write().take();
        if let Some(running) = running {
            self.rescue(node, &running, why).await;
            // First the shell, so that its commands learn the reason.
            running.shell.0.end(why).await;
            running.machine.kill().await;
        }
    }
}
