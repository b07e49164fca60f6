//! From a resolved topology to ports and links: the border between nodes and the data plane.

use tapestry_realtime::{
    DeviceSpec, EndpointSpec, LinkSpec, SocketError, SocketPort, TapError, TapPort,
};
use tapestry_topologies::resolved::{Attach, NodeKind, Topology};

use crate::in_process;
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
}

/// Ports in links, and for each node what its interfaces plug into, in order.
pub struct Assembly {
    /// Links with their ports.
    pub links: Vec<LinkSpec>,
    /// In-process devices, to which links refer.
    pub devices: Vec<DeviceSpec>,
    /// Index into `devices` by node; `None` for other kinds.
    pub device_of: Vec<Option<usize>>,
    /// Plugs by node, by interface.
    pub plugs: Vec<Vec<Plug>>,
    /// Network namespaces by node; `None` for other kinds.
    pub networks: Vec<Option<NodeNet>>,
}

/// Makes all ports. TAPs are made in the namespaces of their nodes, those of virtual machines in the
/// calling thread's. Must be called inside a tokio runtime.
pub fn assemble(topology: &Topology) -> Result<Assembly, AssembleError> {
    let names = in_process::names(topology);
    let mut devices = Vec::new();
    let device_of: Vec<Option<usize>> = topology
        .nodes
        .iter()
        .map(|node| {
            let kind = in_process::device(node, &names)?;
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
        links.push(LinkSpec { config: in_process::link(link), endpoints });
    }
    let plugs = plugs
        .into_iter()
        .map(|node| {
            node.into_iter().map(|plug| plug.expect("every interface has a link")).collect()
        })
        .collect();
    Ok(Assembly { links, devices, device_of, plugs, networks })
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
    let theirs = format!("q{number}");
    let spec = EndpointSpec::port(endpoint, port).read_from(theirs.clone());
    Ok((spec, Plug::TapBridge { theirs, bridge: format!("b{number}"), ours }))
}
