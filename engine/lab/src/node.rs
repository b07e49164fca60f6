//! A node of a running lab: what it is made of, its shell, and how it comes up and goes.

use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::socket::{MsgFlags, recv};
use parking_lot::Mutex;
use tapestry_guests::accel;
use tapestry_guests::image::Image;
use tapestry_guests::netns::{NetnsError, NetnsNode, NodeSpec};
use tapestry_guests::os::{self, Os};
use tapestry_guests::qemu::{self, Backend, Guest, GuestSpec, Nic, QmpError, StartError};
use tapestry_guests::shell::{CommandError, LoginError, LoginOptions, RunOptions, Shell};
use tapestry_realtime::{Control, DataPlane};
use tapestry_topologies::resolved::{NodeIndex, NodeKind, Topology};
use tokio::sync::Semaphore;

use crate::changes::cables::Cables;
use crate::configure;
use crate::event::{Event, Events};
use crate::machine::Machine;
use crate::namespace::{NamespaceError, NodeNet};
use crate::net::{LabNet, NetError};

/// How one interface of a node reaches its port.
#[derive(Debug)]
pub enum Plug {
    /// QEMU's TAP and ours, joined by a bridge.
    TapBridge {
        /// The TAP that QEMU makes.
        theirs: String,
        /// The TAP of the port.
        ours: String,
        /// The bridge to make.
        bridge: String,
    },
    /// QEMU's end of a datagram socketpair.
    Socket(OwnedFd),
    /// The port's TAP, which is the node's interface already.
    InNode,
    /// Nothing: the node is in-process, a part of the data plane.
    InProcess,
}

/// Why a node did not come up.
#[derive(Debug, thiserror::Error)]
pub enum NodeError {
    /// QEMU did not start.
    #[error(transparent)]
    Start(#[from] StartError),
    /// The namespaces could not be made.
    #[error(transparent)]
    Netns(#[from] NetnsError),
    /// No shell.
    #[error("{error}{}", post_mortem.as_deref().map(|text| format!("\n{text}")).unwrap_or_default())]
    Login {
        /// What the shell proxy says.
        error: LoginError,
        /// How the node's process ended, if it did.
        post_mortem: Option<String>,
    },
    /// Its interfaces could not be plugged in.
    #[error("node {node}: {source}")]
    Net {
        /// The node.
        node: String,
        /// What the kernel says.
        source: Box<NetError>,
    },
    /// It could not get a new namespace.
    #[error(transparent)]
    Namespace(#[from] NamespaceError),
    /// Its sockets could not be handed on.
    #[error("node {node}: cannot plug it in again: {source}")]
    Plug {
        /// The node.
        node: String,
        /// The system's answer.
        source: std::io::Error,
    },
    /// The cables of links that are down could not be unplugged.
    #[error("node {node}: {source}")]
    Cables {
        /// The node.
        node: String,
        /// What QEMU says.
        source: QmpError,
    },
    /// The shell answered, then went.
    #[error(transparent)]
    Command(#[from] CommandError),
    /// A command of its configuration failed.
    #[error("node {node}: {what} failed with status {status}; it said:\n{output}")]
    Configure {
        /// The node.
        node: String,
        /// What was being done.
        what: String,
        /// Exit status.
        status: u8,
        /// The end of its output.
        output: String,
    },
}

/// A node that is up.
#[derive(Debug)]
pub struct RunningNode {
    /// Its name.
    pub name: String,
    /// What it is made of.
    pub machine: Machine,
    /// Its shell.
    pub shell: ShellHandle,
    /// From the start of its process to its first answer, seconds.
    pub boot_seconds: f64,
    /// Then until configured, seconds.
    pub configure_seconds: f64,
}

/// The shell, with a `Debug` that names the node only.
#[derive(Clone)]
pub struct ShellHandle(pub Shell);

impl std::fmt::Debug for ShellHandle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Shell({})", self.0.node())
    }
}

/// What all nodes of a lab share while they come up.
pub struct Ground {
    /// The topology.
    pub topology: Arc<Topology>,
    /// The lab's network namespace.
    pub net: LabNet,
    /// Directory of the run.
    pub directory: PathBuf,
    /// Where events go.
    pub events: Events,
    /// The lines of `/etc/hosts` that all nodes share.
    pub hosts: String,
    /// Namespace nodes start in turns, as many at a time as there are cores: each is a burst of work
    /// for the processor, and hundreds at once would only be in each other's way.
    pub turns: Semaphore,
    /// Virtual machines boot in turns, too, two for each core: thirty at once on two cores starve each other
    /// until their shells do not answer in time.
    pub boots: Semaphore,
    /// `None` once the lab is stopped.
    pub plane: Arc<Mutex<Option<DataPlane>>>,
    /// The virtual machines' cables.
    pub cables: Cables,
}

impl Ground {
    /// Tells the data plane whether a node hears what is sent to it.
    pub(crate) fn set_listening(&self, node: NodeIndex, listens: bool) {
        let plane = self.plane.lock();
        let Some(plane) = plane.as_ref() else { return };
        for link in &self.topology.links {
            for (station, _) in (0..).zip(&link.endpoints).filter(|(_, end)| end.node == node) {
                // A worker that has ended lets nothing pass anyway.
                let _ = plane.control(&link.name, Control::Node { station, listens });
            }
        }
    }
}

impl std::fmt::Debug for Events {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Events")
    }
}

/// A QEMU node's image and acceleration, found before anything starts.
#[derive(Debug, Clone)]
pub struct Prepared {
    /// What it boots.
    pub image: Image,
    /// How to log in to it.
    pub os: &'static Os,
    /// How it runs.
    pub accel: accel::Resolved,
}

/// What is there before a node is started, and stays for when it starts anew.
#[derive(Debug)]
pub enum Footing {
    /// A virtual machine's image, and what its interfaces plug into.
    Machine(Box<Prepared>, Vec<Plug>),
    /// A namespace node's network.
    Namespace(NodeNet),
}

impl Footing {
    /// Makes it as it was before the first start, where that takes more than starting. Must not be
    /// interrupted: interfaces would be lost on their way.
    pub(crate) async fn renew(
        &mut self,
        ground: &Ground,
        node: NodeIndex,
    ) -> Result<(), NodeError> {
        if let Self::Namespace(network) = self {
            network.renew(&ground.topology.nodes[node]).await?;
        }
        Ok(())
    }
}

/// Brings node `index` up: starts it, waits for its shell, configures it, runs its `init`. `life`
/// counts how often it has been started before.
pub async fn bring_up(
    ground: &Ground,
    index: usize,
    footing: &mut Footing,
    life: u32,
) -> Result<RunningNode, NodeError> {
    let node = &ground.topology.nodes[index];
    let (started, machine, shell) = match footing {
        Footing::Machine(prepared, plugs) => {
            // Nobody closes the semaphore.
            let _boot = ground.boots.acquire().await;
            let started = Instant::now();
            let (machine, shell) = start_qemu(ground, index, prepared, plugs, life).await?;
            (started, machine, shell)
        }
        Footing::Namespace(network) => {
            // Nobody closes the semaphore.
            let _turn = ground.turns.acquire().await;
            let started = Instant::now();
            let (machine, shell) = start_netns(ground, index, network).await?;
            (started, machine, shell)
        }
    };
    if life > 0 {
        ground.set_listening(index, true);
    }
    let boot_seconds = started.elapsed().as_secs_f64();
    let configured = Instant::now();
    let result = configure_node(ground, index, &machine, &shell).await;
    if let Err(error) = result {
        let post_mortem = if shell.lost().is_some() { machine.post_mortem().await } else { None };
        machine.stop().await;
        return Err(match (error, post_mortem) {
            (NodeError::Command(error), Some(text)) => NodeError::Configure {
                node: node.name.clone(),
                what: "its configuration".into(),
                status: 255,
                output: format!("{error}\n{text}"),
            },
            (error, _) => error,
        });
    }
    let configure_seconds = configured.elapsed().as_secs_f64();
    let name = node.name.clone();
    ground.events.emit(&Event::NodeReady { node: name.clone(), boot_seconds, configure_seconds });
    Ok(RunningNode { name, machine, shell: ShellHandle(shell), boot_seconds, configure_seconds })
}

async fn start_qemu(
    ground: &Ground,
    index: usize,
    prepared: &Prepared,
    plugs: &[Plug],
    life: u32,
) -> Result<(Machine, Shell), NodeError> {
    let node = &ground.topology.nodes[index];
    let NodeKind::Qemu(qemu) = &node.kind else {
        unreachable!("only virtual machines are prepared")
    };
    let mut nics = Vec::new();
    let mut bridges = Vec::new();
    for (interface, plug) in node.interfaces.iter().zip(plugs) {
        let backend = match plug {
            Plug::TapBridge { theirs, ours, bridge } => {
                // The one before may not be quite gone.
                let theirs = if life == 0 { theirs.clone() } else { format!("{theirs}.{life}") };
                bridges.push((bridge, theirs.clone(), ours, interface.mtu));
                Backend::Tap(theirs)
            }
            Plug::Socket(fd) => {
                let plug = |source| NodeError::Plug { node: node.name.clone(), source };
                if life > 0 {
                    forget_datagrams(fd).map_err(plug)?;
                }
                Backend::Dgram(fd.try_clone().map_err(plug)?)
            }
            Plug::InNode | Plug::InProcess => {
                unreachable!("a virtual machine's interfaces are TAPs or sockets")
            }
        };
        nics.push(Nic { mac: interface.mac, backend });
    }
    let boot_timeout = Duration::from_nanos(qemu.boot_timeout.as_nanos());
    let accel = prepared.accel;
    let mut guest = Guest::start(GuestSpec {
        node: node.name.clone(),
        program: qemu::program(),
        image: prepared.image.clone(),
        machine: qemu.machine.clone(),
        accel,
        vcpus: qemu.vcpus,
        memory_bytes: qemu.memory.as_bytes(),
        nic: qemu.nic,
        nics,
        kernel_args: qemu.kernel_args.clone(),
        extra_args: qemu.extra_args.clone(),
        stderr_log: Some(ground.directory.join("console").join(format!("{}.qemu.log", node.name))),
        qmp_timeout: boot_timeout,
    })
    .await?;
    ground
        .events
        .emit(&Event::NodeStarted { node: node.name.clone(), kind: format!("qemu ({accel})") });
    for (bridge, theirs, ours, mtu) in bridges {
        let joined = match life {
            0 => ground.net.bridge(bridge, &[&theirs, ours], mtu).await,
            _ => ground.net.join(bridge, &theirs, mtu).await,
        };
        joined.map_err(|source| NodeError::Net {
            node: node.name.clone(),
            source: Box::new(source),
        })?;
    }
    let plugged = ground.cables.connect(index, guest.qmp().clone()).await;
    plugged.map_err(|source| NodeError::Cables { node: node.name.clone(), source })?;
    let console = guest.take_console().expect("a new guest still has its console");
    let emulator = Some(guest.pid());
    match login(ground, &node.name, console, prepared.os, boot_timeout, emulator).await {
        Ok(shell) => Ok((Machine::Qemu(guest), shell)),
        Err(error) => {
            let machine = Machine::Qemu(guest);
            let post_mortem = match &error {
                LoginError::Lost { .. } => machine.post_mortem().await,
                _ => None,
            };
            machine.stop().await;
            Err(NodeError::Login { error, post_mortem })
        }
    }
}

/// Throws away what was sent to the guest that was there before.
fn forget_datagrams(socket: &OwnedFd) -> std::io::Result<()> {
    let mut waste = [0; 1];
    loop {
        match recv(socket.as_raw_fd(), &mut waste, MsgFlags::MSG_DONTWAIT) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(Errno::EAGAIN) => return Ok(()),
            Err(errno) => return Err(errno.into()),
        }
    }
}

async fn start_netns(
    ground: &Ground,
    index: usize,
    network: &NodeNet,
) -> Result<(Machine, Shell), NodeError> {
    /// A shell in a namespace answers at once; on a very busy machine, after seconds.
    const LOGIN: Duration = Duration::from_secs(30);
    let node = &ground.topology.nodes[index];
    let configured = network.configure(node).await;
    configured
        .map_err(|source| NodeError::Net { node: node.name.clone(), source: Box::new(source) })?;
    let spec = NodeSpec {
        node: node.name.clone(),
        hostname: node.hostname.clone(),
        hosts: configure::hosts(&ground.hosts, node),
    };
    let program = Path::new("/proc/self/exe");
    let (netns, stream) = NetnsNode::start(program, &spec, network.as_fd()).await?;
    let init = netns.init_pid();
    ground.events.emit(&Event::NodeStarted { node: node.name.clone(), kind: "netns".into() });
    let shell = login(ground, &node.name, stream, &os::PLAIN, LOGIN, None)
        .await
        .map_err(|error| NodeError::Login { error, post_mortem: None })?;
    Ok((Machine::Netns { init, node: tokio::sync::Mutex::new(Some(netns)) }, shell))
}

async fn login(
    ground: &Ground,
    node: &str,
    stream: tokio::net::UnixStream,
    os: &'static Os,
    timeout: Duration,
    emulator: Option<u32>,
) -> Result<Shell, LoginError> {
    let log = ground.directory.join("console").join(format!("{node}.log"));
    let options = LoginOptions { console_log: Some(log), timeout, emulator };
    Shell::login(node, stream, os, &options).await
}

async fn configure_node(
    ground: &Ground,
    index: usize,
    machine: &Machine,
    shell: &Shell,
) -> Result<(), NodeError> {
    let node = &ground.topology.nodes[index];
    let options = RunOptions { output_limit: 64 << 10, ..RunOptions::default() };
    // A namespace node's network is configured from outside.
    let script = matches!(machine, Machine::Qemu(_))
        .then(|| ("its configuration".to_owned(), configure::script(&ground.topology, index)));
    let commands = script
        .into_iter()
        .chain(node.init.iter().map(|text| (format!("init command `{text}`"), text.clone())));
    for (what, text) in commands {
        let finished = shell.run(&text, &options).await?;
        if finished.status != 0 {
            let output = finished.output.to_text();
            let skip = output.lines().count().saturating_sub(20);
            return Err(NodeError::Configure {
                node: node.name.clone(),
                what,
                status: finished.status,
                output: output.lines().skip(skip).collect::<Vec<_>>().join("\n"),
            });
        }
    }
    Ok(())
}
