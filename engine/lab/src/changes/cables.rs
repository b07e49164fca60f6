//! The cables of virtual machines: a guest sees no carrier where its link is down.
//!
//! Purpose: whoever changes a link and whoever starts a guest meet here, one at a time, so that a
//! guest that starts finds its cables as the links are then.

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::Mutex as Lock;
use tapestry_guests::qemu::{Qmp, QmpError};
use tapestry_topologies::resolved::{LinkIndex, NodeIndex, Topology};
use tokio::sync::Mutex;

use super::effects::Holds;

/// See the module's documentation.
pub struct Cables {
    topology: Arc<Topology>,
    holds: Arc<Lock<Holds>>,
    monitors: Mutex<BTreeMap<NodeIndex, Qmp>>,
}

impl Cables {
    pub(crate) fn new(topology: Arc<Topology>, holds: Arc<Lock<Holds>>) -> Self {
        Self { topology, holds, monitors: Mutex::default() }
    }

    /// A guest has started: unplugs it where links are down, and remembers its monitor.
    pub(crate) async fn connect(&self, node: NodeIndex, monitor: Qmp) -> Result<(), QmpError> {
        let mut monitors = self.monitors.lock().await;
        for (link, links) in self.topology.links.iter().enumerate() {
            for end in links.endpoints.iter().filter(|end| end.node == node) {
                let is_down = self.holds.lock().is_down(link);
                if is_down {
                    monitor.set_link(end.interface, false).await?;
                }
            }
        }
        monitors.insert(node, monitor);
        Ok(())
    }

    /// Unplugs a guest that is about to end: nothing passes in either direction any more.
    pub(crate) async fn unplug(&self, node: NodeIndex) {
        let monitors = self.monitors.lock().await;
        let Some(monitor) = monitors.get(&node) else { return };
        for interface in 0..self.topology.nodes[node].interfaces.len() {
            // One that has ended by itself is silent already.
            let _ = monitor.set_link(interface, false).await;
        }
    }

    /// A guest has ended.
    pub(crate) async fn disconnect(&self, node: NodeIndex) {
        self.monitors.lock().await.remove(&node);
    }

    /// A link has lost or got its carrier; the error names the node.
    pub(crate) async fn set(&self, link: LinkIndex, up: bool) -> Result<(), (NodeIndex, QmpError)> {
        let monitors = self.monitors.lock().await;
        for end in &self.topology.links[link].endpoints {
            let Some(monitor) = monitors.get(&end.node) else { continue };
            match monitor.set_link(end.interface, up).await {
                // A guest that has ended needs no cable.
                Ok(()) | Err(QmpError::Closed) => {}
                Err(error) => return Err((end.node, error)),
            }
        }
        Ok(())
    }
}
