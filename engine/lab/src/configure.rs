//! Configuration of a virtual machine as one shell script: host name, addresses, bridges, routes.
//!
//! Purpose: what the topology file says about a node becomes commands of iproute2, so that users
//! write none. Interfaces are found by their hardware address, never by the name the guest's
//! kernel chose, and then carry the name of the file. (Namespace nodes are configured from outside,
//! see [`crate::namespace`].)
//!
//! Assumes a POSIX shell with `ip` (iproute2 or busybox with its `ip`) and `/sys/class/net`.

use std::fmt::Write;
use std::net::IpAddr;

use tapestry_topologies::resolved::{Node, Topology};

/// The script that configures `topology.nodes[node]`. It stops at the first failing command, whose
/// message is the last line of its output.
pub fn script(topology: &Topology, node: usize) -> String {
    let node = &topology.nodes[node];
    let mut out = String::from("set -e\n");
    let _ = writeln!(out, "hostname {}", quote(&node.hostname));
    let hosts = hosts(&known_hosts(topology), node);
    let _ = writeln!(out, "mkdir -p /etc; hostname > /etc/hostname");
    let _ = writeln!(out, "cat > /etc/hosts <<'END_OF_HOSTS'\n{hosts}END_OF_HOSTS");
    out.push_str("ip link set dev lo up\n");
    if !node.interfaces.is_empty() {
        out.push_str(FIND);
    }
    for (i, interface) in node.interfaces.iter().enumerate() {
        let _ = writeln!(out, "_name {} {} _if{i}", interface.mac, quote(&interface.name));
    }
    for (i, interface) in node.interfaces.iter().enumerate() {
        let _ = writeln!(out, "_final {} _if{i}", quote(&interface.name));
    }
    if node.forwarding {
        out.push_str(
            "echo 1 > /proc/sys/net/ipv4/ip_forward\n\
             [ ! -e /proc/sys/net/ipv6 ] || echo 1 > /proc/sys/net/ipv6/conf/all/forwarding\n",
        );
    }
    for bridge in &node.bridges {
        let name = quote(&bridge.name);
        let stp = u8::from(bridge.stp);
        // Without spanning tree there is no loop to wait for: forward at once.
        let delay = if bridge.stp { "" } else { " forward_delay 0" };
        let _ = writeln!(out, "ip link add name {name} type bridge stp_state {stp}{delay}");
        for port in &bridge.ports {
            let port = quote(port);
            let _ = writeln!(out, "_quiet6 {port}; ip link set dev {port} master {name}");
        }
    }
    for interface in &node.interfaces {
        let name = quote(&interface.name);
        let _ = writeln!(out, "ip link set dev {name} mtu {} up", interface.mtu);
        addresses(&mut out, &name, &interface.ipv4, &interface.ipv6);
    }
    for bridge in &node.bridges {
        let name = quote(&bridge.name);
        let _ = writeln!(out, "ip link set dev {name} up");
        addresses(&mut out, &name, &bridge.ipv4, &bridge.ipv6);
    }
    // A driver tells of its carrier behind the kernel's back (linkwatch, at most once a second);
    // until then frames are dropped silently, and the first ARP request with them.
    for interface in &node.interfaces {
        let _ = writeln!(out, "_passes {}", quote(&interface.name));
    }
    for port in node.bridges.iter().filter(|bridge| !bridge.stp).flat_map(|bridge| &bridge.ports) {
        let _ = writeln!(out, "_forwards {}", quote(port));
    }
    for route in &node.routes {
        let family = if route.to.address.is_ipv6() { "-6 " } else { "" };
        let _ = write!(out, "ip {family}route add {}", route.to);
        if let Some(via) = route.via {
            let _ = write!(out, " via {via}");
        }
        if let Some(dev) = &route.dev {
            let _ = write!(out, " dev {}", quote(dev));
        }
        out.push('\n');
    }
    out
}

/// Shell functions: `_name MAC NAME INTERIM` gives the interface with that address an interim name
/// unless it has its own already, so that two interfaces can swap names; `_final NAME INTERIM` ends
/// that.
const FIND: &str = r#"_name() {
  for _d in /sys/class/net/*; do
    [ -e "$_d/device" ] || [ -e "$_d/tun_flags" ] || continue
    read -r _m < "$_d/address" || continue
    [ "$_m" = "$1" ] || continue
    _n=${_d##*/}
    [ "$_n" = "$2" ] || { ip link set dev "$_n" down; ip link set dev "$_n" name "$3"; }
    return 0
  done
  echo "no interface has the address $1 ($2): is there a driver for this NIC model in the image?"
  return 1
}
_final() { [ ! -e "/sys/class/net/$2" ] || ip link set dev "$2" name "$1"; }
_wait() {
  _i=0
  until read -r _s < "/sys/class/net/$1" && [ "$_s" = "$2" -o "$_s" = "$3" ]; do
    _i=$((_i + 1))
    # An interface without a carrier is no mistake of the configuration.
    [ $_i -lt 200 ] || return 0
    sleep 0.05
  done
}
_passes() { _wait "$1/operstate" up unknown; }
_forwards() { _wait "$1/brport/state" 3 3; }
_quiet6() {
  [ ! -e "/proc/sys/net/ipv6/conf/$1" ] || echo 1 > "/proc/sys/net/ipv6/conf/$1/disable_ipv6"
}
"#;

fn addresses(
    out: &mut String,
    name: &str,
    ipv4: &[tapestry_topologies::resolved::Ipv4Net],
    ipv6: &[tapestry_topologies::resolved::Ipv6Net],
) {
    for address in ipv4 {
        let _ = writeln!(out, "ip addr add {address} brd + dev {name}");
    }
    for address in ipv6 {
        // The file's addresses are unique by construction; waiting for duplicates to answer is not.
        let _ = writeln!(out, "ip -6 addr add {address} dev {name} nodad");
    }
}

/// The lines of `/etc/hosts` that all nodes share: every node that has an address, by node name and
/// host name.
pub fn known_hosts(topology: &Topology) -> String {
    let mut out = String::from("127.0.0.1 localhost\n::1 localhost ip6-localhost\n");
    for node in &topology.nodes {
        for address in addresses_of(node) {
            let _ = writeln!(out, "{address} {}", names(node));
        }
    }
    out
}

/// `/etc/hosts` of one node. `known` is what [`known_hosts`] gives.
pub fn hosts(known: &str, node: &Node) -> String {
    let mut out = known.to_owned();
    if addresses_of(node).next().is_none() {
        let _ = writeln!(out, "127.0.1.1 {}", names(node));
    }
    out
}

/// All addresses of a node, in the order of its interfaces and bridges, IPv4 before IPv6.
pub(crate) fn addresses_of(node: &Node) -> impl Iterator<Item = IpAddr> {
    let on_interfaces = node.interfaces.iter().map(|i| (&i.ipv4, &i.ipv6));
    let on_bridges = node.bridges.iter().map(|b| (&b.ipv4, &b.ipv6));
    on_interfaces.chain(on_bridges).flat_map(|(ipv4, ipv6)| {
        let ipv4 = ipv4.iter().map(|net| IpAddr::V4(net.address));
        ipv4.chain(ipv6.iter().map(|net| IpAddr::V6(net.address)))
    })
}

fn names(node: &Node) -> String {
    if node.hostname == node.name {
        node.name.clone()
    } else {
        format!("{} {}", node.name, node.hostname)
    }
}

/// A word for the shell.
fn quote(word: &str) -> String {
    if !word.is_empty() && word.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.:/".contains(&b))
    {
        word.to_owned()
    } else {
        format!("'{}'", word.replace('\'', r"'\''"))
    }
}
