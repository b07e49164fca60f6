//! From a resolved topology to what the models run: links, and the devices of in-process nodes.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use tapestry_core::SimTime;
use tapestry_models::{
    BridgeConfig, Frame, HostBridge, HostConfig, HostInterface, HostRoute, InvalidPrefix,
    IpNetwork, LinkConfig, Schedule, SpanningTreeConfig,
};
use tapestry_realtime::DeviceKind;
use tapestry_topologies::resolved::{
    Channel, Ipv4Net, Ipv6Net, Link, Node, NodeKind, Source, Topology,
};

use crate::configure::addresses_of;
use crate::queue;

/// Names that commands may use in place of addresses.
pub(crate) type Names = Arc<BTreeMap<String, Vec<IpAddr>>>;

/// Every node that has addresses, by node name and host name, with all of them in order.
pub(crate) fn names(topology: &Topology) -> Names {
    let addresses = |node| addresses_of(node).collect::<Vec<_>>();
    let all = topology.nodes.iter().map(|node| (node, addresses(node)));
    let nodes: Vec<_> = all.filter(|(_, addresses)| !addresses.is_empty()).collect();
    let mut names = BTreeMap::new();
    for (node, addresses) in &nodes {
        names.insert(node.name.clone(), addresses.clone());
    }
    // A node's name goes before another's host name.
    for (node, addresses) in nodes {
        names.entry(node.hostname.clone()).or_insert(addresses);
    }
    Arc::new(names)
}

/// The device that a node is; `None` for one that is not in-process.
pub(crate) fn device(node: &Node, names: &Names) -> Option<DeviceKind> {
    match &node.kind {
        NodeKind::Qemu(_) | NodeKind::Netns => None,
        NodeKind::Bridge(settings) => {
            // As Linux does: a bridge has the lowest of its ports' addresses.
            let mac = node.interfaces.iter().map(|interface| interface.mac.0).min();
            let stp = settings.stp.then(|| SpanningTreeConfig {
                mac: mac.unwrap_or_default(),
                priority: settings.priority,
            });
            Some(DeviceKind::Bridge(BridgeConfig { ageing: settings.ageing, stp }))
        }
        NodeKind::Source(source) => Some(DeviceKind::Source(schedule(source))),
        NodeKind::Hub => Some(DeviceKind::Hub),
        NodeKind::Host | NodeKind::Router => {
            Some(DeviceKind::Host(Box::new(host(node, Arc::clone(names)))))
        }
    }
}

/// All frames of a source, one by one; those of one description share their bytes.
fn schedule(source: &Source) -> Schedule {
    let repeated = source.frames.iter().flat_map(|described| {
        let frame = Frame::from(described.bytes.0.clone());
        (0..described.count).map(move |number| (described.instant(number), frame.clone()))
    });
    Schedule::Listed(repeated.collect())
}

/// A link's model.
pub(crate) fn link(link: &Link) -> LinkConfig {
    let plain = match link.channel {
        Channel::Csma => LinkConfig::csma(&link.name, link.endpoints.len() as u32),
        Channel::PointToPoint => LinkConfig::point_to_point(&link.name),
    };
    LinkConfig {
        rate: link.rate,
        delay: link.delay,
        queue: queue::config(&link.queue),
        mtu: link.mtu,
        parameters: link.directions.clone(),
        queues: link.queues.as_deref().map(|queues| Box::new(queues.each_ref().map(queue::config))),
        ..plain
    }
}

fn host(node: &Node, names: Names) -> HostConfig {
    let interfaces = node.interfaces.iter().map(|interface| HostInterface {
        name: interface.name.clone(),
        mac: interface.mac.0,
        addresses: addresses(&interface.ipv4, &interface.ipv6),
        mtu: interface.mtu,
    });
    let bridges = node.bridges.iter().map(|bridge| HostBridge {
        name: bridge.name.clone(),
        ports: bridge.ports.clone(),
        addresses: addresses(&bridge.ipv4, &bridge.ipv6),
        stp: bridge.stp,
    });
    let routes = node.routes.iter().filter_map(|route| {
        let to = valid(IpNetwork::new(route.to.address, route.to.prefix))?;
        Some(HostRoute { to, via: route.via, interface: route.dev.clone() })
    });
    HostConfig {
        name: node.name.clone(),
        interfaces: interfaces.collect(),
        bridges: bridges.collect(),
        routes: routes.collect(),
        forwarding: node.forwarding,
        names,
        // The data plane sets it in real time.
        epoch: SimTime::ZERO,
    }
}

fn addresses(ipv4: &[Ipv4Net], ipv6: &[Ipv6Net]) -> Vec<IpNetwork> {
    let ipv4 = ipv4.iter().map(|net| IpNetwork::new(net.address.into(), net.prefix));
    let ipv6 = ipv6.iter().map(|net| IpNetwork::new(net.address.into(), net.prefix));
    ipv4.chain(ipv6).filter_map(valid).collect()
}

/// A resolved topology has no prefix that is too long for its address.
fn valid(network: Result<IpNetwork, InvalidPrefix>) -> Option<IpNetwork> {
    debug_assert!(network.is_ok(), "{network:?}");
    network.ok()
}
