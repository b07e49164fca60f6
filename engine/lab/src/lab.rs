//! A running lab: nodes that are up, the data plane between them, and what one can do with both.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use futures::stream::FuturesUnordered;
use parking_lot::Mutex;
use tapestry_core::{SimTime, SyncPolicy};
use tapestry_guests::accel::{self, AccelError};
use tapestry_guests::image::{self, Image, StoreError};
use tapestry_guests::os::{self, Os};
use tapestry_guests::qemu;
use tapestry_guests::shell::RunOptions;
use tapestry_guests::task::{HostShell, run_on_host};
use tapestry_realtime::{
    CaptureSpec, DataPlane, DataPlaneConfig, FailureWatch, FinalReport, IoChoice, Snapshot,
    SpinPolicy, StartError, WallClock,
};
use tapestry_topologies::resolved::{Node, NodeIndex, NodeKind, Qemu, Topology};
use tokio::sync::Semaphore;

use crate::assemble::{AssembleError, Assembly, assemble};
use crate::changes::Changes;
use crate::changes::cables::Cables;
use crate::configure;
use crate::event::{Event, Events};
use crate::forwarder::{self, ForwarderError};
use crate::host_shell::PlaneHost;
use crate::namespace::NodeNet;
use crate::net::{LabNet, NetError};
use crate::node::{Footing, Ground, NodeError, Prepared, RunningNode};
use crate::nodes::Nodes;
use crate::results::NodeReport;

pub use tapestry_realtime::CaptureTarget;

/// Why a lab did not start.
#[derive(Debug, thiserror::Error)]
pub enum LabError {
    /// An image is not there.
    #[error("node {node}: {source}")]
    Image {
        /// The first node that needs it.
        node: String,
        /// What the cache says.
        source: StoreError,
    },
    /// Acceleration cannot be had as asked.
    #[error("node {node}: {source}")]
    Accel {
        /// The node.
        node: String,
        /// Why.
        source: AccelError,
    },
    /// A node's machine cannot have such NICs, or its image does not drive them.
    #[error(transparent)]
    Nics(Box<qemu::StartError>),
    /// A node asks for an operating system table nobody knows.
    #[error("node {node}: there is no operating system table {os:?}; known: {known}")]
    Os {
        /// The node.
        node: String,
        /// The name.
        os: String,
        /// The names there are.
        known: String,
    },
    /// The lab's own network could not be arranged.
    #[error(transparent)]
    Net(#[from] NetError),
    /// Ports could not be made.
    #[error(transparent)]
    Assemble(#[from] AssembleError),
    /// The data plane did not start.
    #[error(transparent)]
    Plane(#[from] StartError),
    /// The program in the data plane's place did not start.
    #[error(transparent)]
    Forwarder(#[from] ForwarderError),
}

/// How a lab is to run, beyond what its topology says.
#[derive(Debug, Clone, Default)]
pub struct LabOptions {
    /// Instead of the topology's.
    pub sync: Option<SyncPolicy>,
    /// Instead of the topology's.
    pub seed: Option<u64>,
    /// Repetition: another number gives independent draws from the same seed.
    pub run: u64,
    /// Most worker threads of the data plane; 0: one a core.
    pub workers: usize,
    /// `SCHED_FIFO` priority of the workers.
    pub realtime_priority: Option<u8>,
    /// Idle cores poll instead of sleeping (see [`crate::awake`]).
    pub cores_awake: bool,
    /// CPUs that workers are pinned to.
    pub pin_to: Vec<usize>,
    /// How workers move frames to and from network interfaces.
    pub io: IoChoice,
    /// The virtual time at which a run ends at the latest; of no meaning in real time.
    pub until: Option<SimTime>,
    /// What is captured.
    pub captures: Captures,
    /// A program that moves the frames instead of the data plane (see [`crate::forwarder`]).
    pub forwarder: Option<String>,
}

/// Which links are captured, and how much of them.
#[derive(Debug, Clone)]
pub struct Captures {
    /// The links.
    pub targets: Vec<CaptureTarget>,
    /// Bytes kept of each frame; 0 keeps whole frames.
    pub snap_length: usize,
    /// Bytes after which a file is closed and the next begun.
    pub file_bytes: u64,
    /// Files kept of each capture.
    pub files: usize,
}

impl Default for Captures {
    fn default() -> Self {
        Self {
            targets: Vec::new(),
            snap_length: CaptureSpec::SNAP_LENGTH,
            file_bytes: CaptureSpec::FILE_BYTES,
            files: CaptureSpec::FILES,
        }
    }
}

impl Captures {
    /// What the data plane is told, over the links of a topology.
    pub(crate) fn specs(&self, topology: &Topology, directory: &Path) -> Vec<CaptureSpec> {
        let spec = |link: &str, endpoint: Option<String>| CaptureSpec {
            endpoint,
            snap_length: self.snap_length,
            file_bytes: self.file_bytes,
            files: self.files,
            ..CaptureSpec::new(link, directory)
        };
        let mut specs = Vec::new();
        for target in &self.targets {
            match target {
                CaptureTarget::All => {
                    specs.extend(topology.links.iter().map(|link| spec(&link.name, None)));
                }
                CaptureTarget::Link { link, endpoint } => specs.push(spec(link, endpoint.clone())),
            }
        }
        specs
    }
}

/// A running lab.
pub struct Lab {
    topology: Arc<Topology>,
    directory: PathBuf,
    events: Events,
    plane: Arc<Mutex<Option<DataPlane>>>,
    /// What becomes of late events once all nodes are ready.
    sync: SyncPolicy,
    failure: Option<FailureWatch>,
    /// Ends when dropped.
    foreign: Option<tokio::process::Child>,
    /// Nodes with a life of their own.
    pub nodes: Arc<Nodes>,
    /// In-process hosts, by index of their node.
    pub hosts: BTreeMap<NodeIndex, Arc<dyn HostShell>>,
    /// Changes links and nodes while they run.
    pub changes: Arc<Changes>,
    /// Reports on all nodes, in the topology's order.
    pub reports: Vec<NodeReport>,
}

/// What the manifest says about acceleration: the decision and why.
pub type Acceleration = Option<String>;

/// The image of a virtual machine, and how to log in to it: as the file says, else as the image
/// does, which knows what is in it.
pub(crate) fn ingredients(
    node: &Node,
    qemu: &Qemu,
    cache: &Path,
) -> Result<(Image, &'static Os), LabError> {
    let (node, nics) = (&node.name, node.interfaces.len());
    let image = image::find(cache, &qemu.image)
        .map_err(|source| LabError::Image { node: node.to_owned(), source })?;
    qemu::check_nics(node, &qemu.machine, qemu.nic, nics, &image)
        .map_err(|wrong| LabError::Nics(Box::new(wrong)))?;
    let name = if qemu.os.is_empty() { &image.os } else { &qemu.os };
    let os = os::find(name).ok_or_else(|| LabError::Os {
        node: node.to_owned(),
        os: name.clone(),
        known: os::names().collect::<Vec<_>>().join(", "),
    })?;
    Ok((image, os))
}

/// Images and acceleration of all QEMU nodes, found before anything is started.
pub async fn prepare(
    topology: &Topology,
) -> Result<(Vec<Option<Prepared>>, Acceleration), LabError> {
    let mut prepared: Vec<Option<Prepared>> = Vec::new();
    let mut said = None;
    for node in &topology.nodes {
        let NodeKind::Qemu(qemu) = &node.kind else {
            prepared.push(None);
            continue;
        };
        let name = || node.name.clone();
        let cache =
            image::cache_dir().map_err(|source| LabError::Image { node: name(), source })?;
        let (image, os) = ingredients(node, qemu, &cache)?;
        let (accel, why) = accel::resolve(qemu.accel, &image, &cache)
            .await
            .map_err(|source| LabError::Accel { node: name(), source })?;
        said.get_or_insert_with(|| format!("{accel}: {why}"));
        prepared.push(Some(Prepared { image, os, accel }));
    }
    Ok((prepared, said))
}

impl Lab {
    /// Makes links and ports, and starts the data plane. Nodes come up with [`Lab::boot`].
    ///
    /// Must be called in the lab's sandbox, inside a tokio runtime.
    pub async fn start(
        topology: Arc<Topology>,
        options: &LabOptions,
        directory: &Path,
        events: Events,
    ) -> Result<(Self, Assembled), LabError> {
        let sync = options.sync.unwrap_or(topology.sync);
        let net = LabNet::open().await?;
        let Assembly { links, devices, device_of, plugs, networks } = assemble(&topology)?;
        let (plane, foreign) = match &options.forwarder {
            Some(program) => (None, Some(forwarder::start(program, &links)?)),
            None => {
                let config = DataPlaneConfig {
                    sync: SyncPolicy::BestEffort,
                    workers: options.workers,
                    seed: options.seed.unwrap_or(topology.seed),
                    run: options.run,
                    spin: SpinPolicy::default(),
                    realtime_priority: options.realtime_priority,
                    pin_to: options.pin_to.clone(),
                    io: options.io,
                    captures: options.captures.specs(&topology, &directory.join("captures")),
                    devices,
                    ..DataPlaneConfig::new(WallClock::start(), links)
                };
                (Some(DataPlane::start(config)?), None)
            }
        };
        let failure = plane.as_ref().map(DataPlane::failure);
        let reports = topology
            .nodes
            .iter()
            .map(|node| NodeReport {
                name: node.name.clone(),
                kind: node.kind.as_str().to_owned(),
                // In-process nodes are there with the data plane.
                ready: !node.kind.is_external(),
                error: None,
                boot_seconds: None,
                configure_seconds: None,
            })
            .collect();
        let plane = Arc::new(Mutex::new(plane));
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let holds = Arc::default();
        let nodes = Arc::new(Nodes::new(Ground {
            topology: Arc::clone(&topology),
            net,
            directory: directory.to_owned(),
            events: events.clone(),
            hosts: configure::known_hosts(&topology),
            turns: Semaphore::new(cores),
            boots: Semaphore::new(2 * cores),
            plane: Arc::clone(&plane),
            cables: Cables::new(Arc::clone(&topology), Arc::clone(&holds)),
        }));
        let changes = Arc::new(Changes::new(
            Arc::clone(&topology),
            Arc::clone(&plane),
            device_of.clone(),
            Arc::clone(&nodes),
            events.clone(),
            holds,
        ));
        let hosts = device_of.into_iter().enumerate().filter_map(|(index, device)| {
            let node = &topology.nodes[index];
            matches!(node.kind, NodeKind::Host | NodeKind::Router).then_some(())?;
            let (name, plane, ends) =
                (node.name.clone(), Arc::clone(&plane), Arc::clone(&changes.ends));
            let (device, epoch) = (device?, changes.events.start());
            let host = PlaneHost { node: index, name, device, plane, ends, epoch };
            Some((index, Arc::new(host) as Arc<dyn HostShell>))
        });
        let hosts = hosts.collect();
        let lab = Self {
            topology,
            directory: directory.to_owned(),
            events,
            plane,
            failure,
            foreign,
            nodes,
            hosts,
            changes,
            sync,
            reports,
        };
        Ok((lab, Assembled { plugs, networks }))
    }

    /// Brings all nodes up side by side. Returns the errors of those that did not come up.
    pub async fn boot(
        &mut self,
        assembled: Assembled,
        prepared: Vec<Option<Prepared>>,
    ) -> Vec<NodeError> {
        let topology = Arc::clone(&self.topology);
        let events = self.events.clone();
        let mut coming: FuturesUnordered<_> = assembled
            .plugs
            .into_iter()
            .zip(assembled.networks)
            .zip(prepared)
            .enumerate()
            .filter_map(|(index, ((plugs, network), prepared))| {
                // In-process nodes are there with the data plane.
                let footing = match (prepared, network) {
                    (Some(prepared), _) => Footing::Machine(Box::new(prepared), plugs),
                    (None, Some(network)) => Footing::Namespace(network),
                    (None, None) => return None,
                };
                let nodes = &self.nodes;
                Some(async move { (index, nodes.boot(index, footing).await) })
            })
            .collect();
        let mut errors = Vec::new();
        while let Some((index, came)) = coming.next().await {
            let report = &mut self.reports[index];
            match came {
                Ok(node) => {
                    report.ready = true;
                    report.boot_seconds = Some(node.boot_seconds);
                    report.configure_seconds = Some(node.configure_seconds);
                }
                Err(error) => {
                    report.error = Some(error.to_string());
                    let node = topology.nodes[index].name.clone();
                    events.emit(&Event::NodeFailed { node, error: error.to_string() });
                    errors.push(error);
                }
            }
        }
        drop(coming);
        for (index, error) in self.init_hosts().await {
            self.reports[index].ready = false;
            self.reports[index].error = Some(error.to_string());
            let node = topology.nodes[index].name.clone();
            events.emit(&Event::NodeFailed { node, error: error.to_string() });
            errors.push(error);
        }
        errors
    }

    /// Runs the `init:` commands of in-process hosts; gives the first failure of each.
    async fn init_hosts(&self) -> Vec<(NodeIndex, NodeError)> {
        let mut errors = Vec::new();
        for (&index, host) in &self.hosts {
            for text in &self.topology.nodes[index].init {
                let failed = match run_on_host(host, text, &RunOptions::default()).await {
                    Ok(finished) if finished.status == 0 => continue,
                    Ok(finished) => NodeError::Configure {
                        node: host.node().to_owned(),
                        what: format!("init command `{text}`"),
                        status: finished.status,
                        output: finished.output.to_text(),
                    },
                    Err(error) => error.into(),
                };
                errors.push((index, failed));
                break;
            }
        }
        errors
    }

    /// The topology.
    pub fn topology(&self) -> &Arc<Topology> {
        &self.topology
    }

    /// The start of the run, from which its times count.
    pub fn epoch(&self) -> std::time::Instant {
        self.events.start()
    }

    /// A node that is up.
    pub fn node(&self, name: &str) -> Option<Arc<RunningNode>> {
        self.nodes.get(name)
    }

    /// Returns when the data plane has failed; the final report says why.
    pub fn failed(&self) -> impl Future<Output = ()> + use<> {
        let watch = self.failure.clone();
        async move {
            if let Some(mut watch) = watch
                && watch.wait().await.is_some()
            {
                return;
            }
            std::future::pending::<()>().await;
        }
    }

    /// Whether another program moves the frames.
    pub fn is_foreign(&self) -> bool {
        self.foreign.is_some()
    }

    /// Counters and timing now; none once the lab is stopped.
    pub fn snapshot(&self) -> Option<Snapshot> {
        self.plane.lock().as_ref().map(DataPlane::snapshot)
    }

    /// A function that takes snapshots, for others that outlive a borrow of the lab.
    pub fn snapshots(&self) -> impl Fn() -> Option<Snapshot> + Send + Sync + 'static {
        let plane = Arc::clone(&self.plane);
        move || plane.lock().as_ref().map(DataPlane::snapshot)
    }

    /// Forgets the lateness of the boot, which is not the measurement's, and starts the sources.
    /// Only from now on can an event be too late for the run.
    pub fn begin_measuring(&self) {
        if let Some(plane) = self.plane.lock().as_ref() {
            plane.measure(self.sync);
            plane.start_sources();
        }
    }

    /// Copies the paths each node wants to keep into `kept/NODE/`; returns what went wrong.
    pub async fn keep(&self) -> Vec<String> {
        let mut problems = Vec::new();
        for node in &self.topology.nodes {
            if node.keep.is_empty() {
                continue;
            }
            let Some(running) = self.node(&node.name) else {
                let text = format!("node {}: nothing to keep, the node is not up", node.name);
                self.events.emit(&Event::Warning { text });
                continue;
            };
            let target = self.directory.join("kept").join(&node.name);
            let kept = crate::keep::keep(&running, &node.keep, &target).await;
            problems.extend(kept.problems);
            for text in kept.left_out {
                self.events.emit(&Event::Warning { text });
            }
        }
        problems
    }

    /// Ends all nodes side by side, then the data plane; returns its last report.
    pub async fn stop(&mut self) -> Option<FinalReport> {
        // The plane goes first: nodes that end one after another would look like losses.
        let plane = self.plane.lock().take();
        // Removing many interfaces takes the kernel seconds, in which nobody else needs to wait.
        let report = plane.map(DataPlane::stop);
        let _ = tokio::time::timeout(Duration::from_secs(10), self.nodes.stop()).await;
        report
    }
}

/// What connects nodes to the data plane, until they boot.
pub struct Assembled {
    plugs: Vec<Vec<crate::node::Plug>>,
    networks: Vec<Option<NodeNet>>,
}
