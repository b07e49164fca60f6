//! The network of a namespace node: made, wired and configured from outside, by netlink.
//!
//! Purpose: a node's network namespace exists before its processes do. Its TAPs are made inside it,
//! under their final names, and what the topology file says of interfaces, bridges, addresses and
//! routes is told to the kernel directly. Nothing is moved between namespaces and no program of the
//! node is started for it: with hundreds of nodes that is most of the time a lab takes to come up.
//!
//! The TAPs are persistent: they go with their namespace, all devices of all dying namespaces at
//! once and behind the run's back, where the kernel would take some 20 ms for each TAP that its
//! descriptor takes along. A namespace dies with its last process, socket and descriptor, so a
//! killed run leaves none.
//!
//! A TAP has its carrier from the start (we hold its descriptor), and a bridge finds that of its
//! ports when it is set up after them: frames pass as soon as [`NodeNet::configure`] returns.
//!
//! A node that starts anew gets a new namespace, into which its TAPs are moved: the kernel takes from
//! them what the old one knew (addresses, routes, queueing disciplines), and the rest stays behind.
//!
//! Reference: `network_namespaces(7)`, `rtnetlink(7)`, kernel `Documentation/networking/tuntap.rst`
//! and `ip-sysctl.rst`.
#![allow(unsafe_code)]

use std::fs::{self, File};
use std::io;
use std::net::IpAddr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

use nix::net::if_::if_nametoindex;
use nix::sched::{CloneFlags, setns, unshare};
use rtnetlink::packet_route::address::AddressHeaderFlags;
use rtnetlink::packet_route::link::BridgeStpState;
use rtnetlink::packet_route::route::RouteScope;
use rtnetlink::{LinkBridge, LinkUnspec, RouteMessageBuilder};
use tapestry_realtime::{Port, TapError, TapPort};
use tapestry_topologies::resolved::{Ipv4Net, Ipv6Net, Node, NodeKind, Route, Topology};

use crate::net::{LabNet, NetError, bridge_without_filters, failed};

/// Why a node's network namespace could not be made.
#[derive(Debug, thiserror::Error)]
pub enum NamespaceError {
    /// The kernel refused the namespace.
    #[error(
        "node {node}: cannot make its network namespace: {source}; if there are too many, raise \
         /proc/sys/user/max_net_namespaces, and the limit of open files with `ulimit -n`"
    )]
    Make {
        /// The node.
        node: String,
        /// The kernel's answer.
        source: io::Error,
    },
    /// A TAP could not be made.
    #[error("{endpoint}: {source}")]
    Tap {
        /// `node:interface`.
        endpoint: String,
        /// Why.
        source: TapError,
    },
    /// A setting under `/proc/sys` could not be written.
    #[error("node {node}: cannot set {path}: {source}")]
    Sysctl {
        /// The node.
        node: String,
        /// The setting.
        path: String,
        /// The system's answer.
        source: io::Error,
    },
    /// The netlink socket could not be opened.
    #[error("node {node}: cannot open a netlink socket: {source}")]
    Netlink {
        /// The node.
        node: String,
        /// The system's answer.
        source: io::Error,
    },
    /// An interface could not be moved from the old namespace.
    #[error("node {node}: {source}; did the node delete the interface?")]
    Move {
        /// The node.
        node: String,
        /// What the kernel says.
        source: Box<NetError>,
    },
}

/// The network namespace of a node.
#[derive(Debug)]
pub struct NodeNet {
    namespace: File,
    net: LabNet,
    /// The kernel's number of each interface, which outlives other names and namespaces.
    indexes: Vec<u32>,
}

impl AsFd for NodeNet {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.namespace.as_fd()
    }
}

/// A namespace and its TAPs, in the order of the node's interfaces.
pub type Made = (NodeNet, Vec<TapPort>);

/// Makes the namespaces of all `kind: netns` nodes, with a TAP for each interface; positions are
/// those of `topology.nodes`.
///
/// Must be called inside a tokio runtime, which then drives the netlink connections.
pub fn make_all(topology: &Topology) -> Result<Vec<Option<Made>>, NamespaceError> {
    let runtime = tokio::runtime::Handle::current();
    let all = || {
        let _inside = runtime.enter();
        let make_one = |node: &Node| (node.kind == NodeKind::Netns).then(|| make(node)).transpose();
        topology.nodes.iter().map(make_one).collect()
    };
    elsewhere(all)
}

/// Does something on a thread that ends afterwards: one that enters another namespace cannot be
/// trusted to find back.
fn elsewhere<T: Send>(act: impl FnOnce() -> T + Send) -> T {
    std::thread::scope(|scope| match scope.spawn(act).join() {
        Ok(done) => done,
        Err(panic) => std::panic::resume_unwind(panic),
    })
}

/// Makes one namespace, and leaves the calling thread in it.
fn make(node: &Node) -> Result<Made, NamespaceError> {
    let (namespace, net) = empty(node)?;
    let mut indexes = Vec::with_capacity(node.interfaces.len());
    let mut taps = Vec::with_capacity(node.interfaces.len());
    for interface in &node.interfaces {
        let endpoint = || format!("{}:{}", node.name, interface.name);
        let tap = TapPort::create(&interface.name)
            .map_err(|source| NamespaceError::Tap { endpoint: endpoint(), source })?;
        persist(tap.fd()).map_err(|errno| NamespaceError::Tap {
            endpoint: endpoint(),
            source: TapError::Create { name: interface.name.clone(), source: errno.into() },
        })?;
        let index = if_nametoindex(interface.name.as_str());
        indexes.push(index.map_err(|errno| NamespaceError::Tap {
            endpoint: endpoint(),
            source: TapError::Create { name: interface.name.clone(), source: errno.into() },
        })?);
        taps.push(tap.showing_carrier());
    }
    settings(node)?;
    Ok((NodeNet { namespace, net, indexes }, taps))
}

/// Makes an empty namespace, and leaves the calling thread in it.
fn empty(node: &Node) -> Result<(File, LabNet), NamespaceError> {
    let refused = |source| NamespaceError::Make { node: node.name.clone(), source };
    unshare(CloneFlags::CLONE_NEWNET).map_err(|errno| refused(errno.into()))?;
    let namespace = File::open("/proc/thread-self/ns/net").map_err(refused)?;
    let net = LabNet::connect()
        .map_err(|source| NamespaceError::Netlink { node: node.name.clone(), source })?;
    Ok((namespace, net))
}

/// Leaves the end of a TAP to the end of its namespace.
fn persist(tap: BorrowedFd<'_>) -> nix::Result<()> {
    mod request {
        nix::ioctl_write_int_bad!(tun_set_persist, nix::request_code_write!(b'T', 203, 4));
    }
    // SAFETY: `TUNSETPERSIST` takes its argument by value.
    unsafe { request::tun_set_persist(tap.as_raw_fd(), 1).map(drop) }
}

/// Writes the settings under `/proc/sys/net`, which shows the calling thread's namespace.
fn settings(node: &Node) -> Result<(), NamespaceError> {
    let set = |path: String| match fs::write(&path, "1") {
        // A kernel without IPv6 has nothing to set.
        Err(source) if !(path.contains("/ipv6/") && source.kind() == io::ErrorKind::NotFound) => {
            Err(NamespaceError::Sysctl { node: node.name.clone(), path, source })
        }
        _ => Ok(()),
    };
    if node.forwarding {
        set("/proc/sys/net/ipv4/ip_forward".to_owned())?;
        set("/proc/sys/net/ipv6/conf/all/forwarding".to_owned())?;
    }
    if !node.bridges.is_empty() {
        bridge_without_filters();
    }
    // The bridge speaks IPv6, its ports are wires.
    for port in node.bridges.iter().flat_map(|bridge| &bridge.ports) {
        set(format!("/proc/sys/net/ipv6/conf/{port}/disable_ipv6"))?;
    }
    Ok(())
}

impl NodeNet {
    /// Takes the node's interfaces down: its processes have ended, and the kernel shall not go on
    /// talking for it.
    pub async fn take_down(&self) -> Result<(), NetError> {
        for &index in &self.indexes {
            let down = LinkUnspec::new_with_index(index).down().build();
            let set = self.net.handle().link().set(down).execute().await;
            set.map_err(failed("take down", &format!("interface {index}")))?;
        }
        Ok(())
    }

    /// Moves the interfaces into a new namespace, which takes this one's place and is to be
    /// configured. The node's processes must have ended.
    ///
    /// Must be called inside a tokio runtime, which then drives the netlink connection.
    pub async fn renew(&mut self, node: &Node) -> Result<(), NamespaceError> {
        let runtime = tokio::runtime::Handle::current();
        let (namespace, net) = elsewhere(|| {
            let _inside = runtime.enter();
            empty(node)
        })?;
        for (interface, &index) in node.interfaces.iter().zip(&self.indexes) {
            let name = &interface.name;
            let change = LinkUnspec::new_with_index(index)
                .down()
                .name(name.clone())
                .setns_by_fd(namespace.as_raw_fd())
                .build();
            let moved = self.net.handle().link().set(change).execute().await;
            moved.map_err(|source| NamespaceError::Move {
                node: node.name.clone(),
                source: Box::new(failed("move", name)(source)),
            })?;
        }
        for (interface, index) in node.interfaces.iter().zip(&mut self.indexes) {
            // Another number, where the kernel has put an interface of its own into the namespace.
            *index = net.index(&interface.name).await.map_err(|source| NamespaceError::Move {
                node: node.name.clone(),
                source: Box::new(source),
            })?;
        }
        elsewhere(|| {
            setns(&namespace, CloneFlags::CLONE_NEWNET).map_err(|errno| NamespaceError::Make {
                node: node.name.clone(),
                source: errno.into(),
            })?;
            settings(node)
        })?;
        (self.namespace, self.net) = (namespace, net);
        Ok(())
    }

    /// Sets up what the topology file says of the node's network.
    pub async fn configure(&self, node: &Node) -> Result<(), NetError> {
        let links = self.net.handle().link();
        self.net.set_up("lo").await?;
        for bridge in &node.bridges {
            let name = &bridge.name;
            let made = LinkBridge::new(name);
            let made = if bridge.stp {
                made.stp_state(BridgeStpState::KernelStp)
            } else {
                // Without spanning tree there is no loop to wait for: forward at once.
                made.stp_state(BridgeStpState::Disabled).forward_delay(0)
            };
            links.add(made.build()).execute().await.map_err(failed("make bridge", name))?;
        }
        for interface in &node.interfaces {
            let name = &interface.name;
            let index = self.net.index(name).await?;
            let change = LinkUnspec::new_with_index(index)
                .address(interface.mac.0.to_vec())
                .mtu(interface.mtu);
            let bridge = node.bridges.iter().find(|bridge| bridge.ports.contains(name));
            let change = match bridge {
                Some(bridge) => change.controller(self.net.index(&bridge.name).await?),
                None => change,
            };
            let set = links.set(change.up().build()).execute().await;
            set.map_err(failed("set up", name))?;
            self.addresses(name, index, &interface.ipv4, &interface.ipv6).await?;
        }
        for bridge in &node.bridges {
            self.net.set_up(&bridge.name).await?;
            let index = self.net.index(&bridge.name).await?;
            self.addresses(&bridge.name, index, &bridge.ipv4, &bridge.ipv6).await?;
        }
        for route in &node.routes {
            self.route(route).await?;
        }
        Ok(())
    }

    async fn addresses(
        &self,
        name: &str,
        index: u32,
        ipv4: &[Ipv4Net],
        ipv6: &[Ipv6Net],
    ) -> Result<(), NetError> {
        let ipv4 = ipv4.iter().map(|net| (IpAddr::V4(net.address), net.prefix));
        let ipv6 = ipv6.iter().map(|net| (IpAddr::V6(net.address), net.prefix));
        for (address, prefix) in ipv4.chain(ipv6) {
            let mut add = self.net.handle().address().add(index, address, prefix);
            if address.is_ipv6() {
                // The file's addresses are unique by construction; waiting for duplicates to
                // answer is not.
                add.message_mut().header.flags |= AddressHeaderFlags::Nodad;
            }
            add.execute().await.map_err(failed("give an address to", name))?;
        }
        Ok(())
    }

    async fn route(&self, route: &Route) -> Result<(), NetError> {
        let to = route.to.to_string();
        let mut message = RouteMessageBuilder::<IpAddr>::new()
            .destination_prefix(route.to.address, route.to.prefix)
            .map_err(|error| NetError::Route { to: to.clone(), error: error.to_string() })?;
        match route.via {
            Some(via) => {
                message = message.gateway(via).map_err(|error| NetError::Route {
                    to: to.clone(),
                    error: error.to_string(),
                })?;
            }
            // Without a next hop its addresses are on the link itself.
            None if route.to.address.is_ipv4() => message = message.scope(RouteScope::Link),
            None => {}
        }
        if let Some(dev) = &route.dev {
            message = message.output_interface(self.net.index(dev).await?);
        }
        let added = self.net.handle().route().add(message.build()).execute().await;
        added.map_err(failed("add the route", &to))
    }
}
