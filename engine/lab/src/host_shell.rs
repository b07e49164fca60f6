//! In-process hosts of a running lab as what the task runner runs commands on.

use std::sync::Arc;
use std::time::Instant;

use futures::FutureExt;
use futures::future::BoxFuture;
use parking_lot::Mutex;
use tapestry_guests::task::{HostEvent, HostProcess, HostShell};
use tapestry_models::CommandOutput;
use tapestry_realtime::{DataPlane, HostCommand};
use tapestry_topologies::resolved::NodeIndex;

use crate::changes::ends::Ends;

/// A host in the data plane.
pub(crate) struct PlaneHost {
    /// The node.
    pub(crate) node: NodeIndex,
    /// Its name.
    pub(crate) name: String,
    /// Index among the data plane's devices.
    pub(crate) device: usize,
    /// `None` once the lab is stopped.
    pub(crate) plane: Arc<Mutex<Option<DataPlane>>>,
    /// What was done to it.
    pub(crate) ends: Arc<Ends>,
    /// When the run began.
    pub(crate) epoch: Instant,
}

impl std::fmt::Debug for PlaneHost {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("PlaneHost").field(&self.name).finish()
    }
}

impl HostShell for PlaneHost {
    fn node(&self) -> &str {
        &self.name
    }

    fn start(&self, text: &str) -> Result<Box<dyn HostProcess>, String> {
        let plane = self.plane.lock();
        let plane = plane.as_ref().ok_or("the lab has been stopped")?;
        let command = plane.start_command(self.device, text).map_err(|error| error.to_string())?;
        Ok(Box::new(Process(command)))
    }

    fn ended(&self, since: Instant) -> Option<String> {
        let since = since.saturating_duration_since(self.epoch).into();
        self.ends.first_after(self.node, since)
    }
}

#[derive(Debug)]
struct Process(HostCommand);

impl HostProcess for Process {
    fn event(&mut self) -> BoxFuture<'_, Option<HostEvent>> {
        let next = async {
            self.0.event().await.map(|event| match event.output {
                CommandOutput::Printed(bytes) => HostEvent::Printed(bytes),
                CommandOutput::Exited(status) => HostEvent::Exited(status),
            })
        };
        next.boxed()
    }

    fn stop(&self) {
        self.0.stop();
    }
}
