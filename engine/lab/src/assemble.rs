//! From a resolved topology to ports and links: the border between nodes and the data plane.

use tapestry_models::LinkConfig;
use tapestry_realtime::{
    DeviceKind, DeviceSpec, EndpointSpec, LinkSpec, SocketError, SocketPort, TapError, TapPort,
};
use tapestry_topologies::resolved::{Attach, Channel, NodeKind, Topology};

use crate::namespace::{NamespaceError, NodeNet, make_all};
use crate::node::Plug;

/// Why a topology could not be assembled.
#[derive(Debug, thiserror::Error)]
pub enum AssembleError {
    /// A node's network namespace could not be made.
    #[error(transparent)]
    Namespace(#[from] NamespaceError),
    /// A TAP could not be made.
    #[error("{endpoint}: {source}")]
    Tap {
        /// `node:interface`.
        endpoint: String,
        /// Why.
        source: TapError,
    },
    /// A socketpair could not be made.
    #[error("{endpoint}: {source}")]
    Socket {
        /// `node:interface`.
        endpoint: String,
        /// Why.
        source: SocketError,
    },
    /// Nodes of a kind that cannot take part.
    #[error(
        "{} cannot take part in this run: in-process hosts and routers are not there yet. \
         Use `kind: qemu` or `kind: netns`",
        nodes.join(", ")
    )]
    Kind {
        /// The nodes.
        nodes: Vec<String>,
    },
}

/// Ports in links, and for each node what its interfaces plug into, in order.
pub struct Assembly {
    /// Links with their ports.
    pub links: Vec<LinkSpec>,
    /// In-process devices, to which links refer.
    pub devices: Vec<DeviceSpec>,
    /// Plugs by node, by interface.
    pub plugs: Vec<Vec<Plug>>,
    /// Network namespaces by node; `None` for other kinds.
    pub networks: Vec<Option<NodeNet>>,
}

/// Makes all ports. TAPs are made in the namespaces of their nodes, those of virtual machines in the
/// calling thread's. Must be called inside a tokio runtime.
pub fn assemble(topology: &Topology) -> Result<Assembly, AssembleError> {
    let strangers: Vec<String> = topology
        .nodes
        .iter()
        .filter(|node| matches!(node.kind, NodeKind::Host | NodeKind::Router))
        .map(|node| format!("node {} ({})", node.name, node.kind.as_str()))
        .collect();
    if !strangers.is_empty() {
        return Err(AssembleError::Kind { nodes: strangers });
    }
    let mut devices = Vec::new();
    let device_of: Vec<Option<usize>> = topology
        .nodes
        .iter()
        .map(|node| {
            let kind = match node.kind {
                NodeKind::Bridge => DeviceKind::Bridge,
                NodeKind::Hub => DeviceKind::Hub,
                _ => return None,
            };
            devices.push(DeviceSpec { name: node.name.clone(), kind });
            Some(devices.len() - 1)
        })
        .collect();
    let (networks, mut taps): (Vec<_>, Vec<_>) = make_all(topology)?
        .into_iter()
        .map(|made| match made {
            Some((network, taps)) => (Some(network), taps.into_iter().map(Some).collect()),
            None => (None, Vec::new()),
        })
        .unzip();
    let mut plugs: Vec<Vec<Option<Plug>>> =
        topology.nodes.iter().map(|node| node.interfaces.iter().map(|_| None).collect()).collect();
    let mut links = Vec::new();
    // Names of devices in the lab's namespace are short numbers: node names may be too long.
    let mut number = 0;
    for link in &topology.links {
        let mut endpoints = Vec::new();
        for end in &link.endpoints {
            let node = &topology.nodes[end.node];
            let interface = &node.interfaces[end.interface];
            let endpoint = format!("{}:{}", node.name, interface.name);
            if let Some(device) = device_of[end.node] {
                endpoints.push(EndpointSpec::device(endpoint, device));
                plugs[end.node][end.interface] = Some(Plug::InProcess);
                continue;
            }
            let tap: Option<TapPort> = taps[end.node].get_mut(end.interface).and_then(Option::take);
            let (spec, plug) = match tap {
                Some(tap) => (EndpointSpec::port(endpoint, tap), Plug::InNode),
                None => attach(&node.kind, number, endpoint)?,
            };
            plugs[end.node][end.interface] = Some(plug);
            endpoints.push(spec);
            number += 1;
        }
        let plain = match link.channel {
            Channel::Csma => LinkConfig::csma(&link.name, link.endpoints.len() as u32),
            Channel::PointToPoint => LinkConfig::point_to_point(&link.name),
        };
        let config = LinkConfig {
            rate: link.rate,
            delay: link.delay,
            queue_frames: link.queue_frames,
            mtu: link.mtu,
            ..plain
        };
        links.push(LinkSpec { config, endpoints });
    }
    let plugs = plugs
        .into_iter()
        .map(|node| {
            node.into_iter().map(|plug| plug.expect("every interface has a link")).collect()
        })
        .collect();
    Ok(Assembly { links, devices, plugs, networks })
}

/// The port of a virtual machine.
fn attach(
    kind: &NodeKind,
    number: usize,
    endpoint: String,
) -> Result<(EndpointSpec, Plug), AssembleError> {
    let ours = format!("t{number}");
    if let NodeKind::Qemu(qemu) = kind
        && qemu.attach == Attach::Socket
    {
        return match SocketPort::pair(&ours) {
            Ok((port, theirs)) => Ok((EndpointSpec::port(endpoint, port), Plug::Socket(theirs))),
            Err(source) => Err(AssembleError::Socket { endpoint, source }),
        };
    }
    let port = match TapPort::create(&ours) {
        Ok(port) => port,
        Err(source) => return Err(AssembleError::Tap { endpoint, source }),
    };
    let plug = Plug::TapBridge { theirs: format!("q{number}"), bridge: format!("b{number}"), ours };
    Ok((EndpointSpec::port(endpoint, port), plug))
}
