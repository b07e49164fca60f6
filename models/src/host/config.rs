//! What a host is made of, independent of topology files.

use std::collections::BTreeMap;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use tapestry_core::SimTime;
use thiserror::Error;

/// A host or, with [`forwarding`](Self::forwarding), a router.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct HostConfig {
    /// The node's name; its random streams derive from `node/NAME`.
    pub name: String,
    /// Interfaces; number *i* sits on port *i* of the device.
    pub interfaces: Vec<HostInterface>,
    /// Bridges inside the host.
    pub bridges: Vec<HostBridge>,
    /// Static routes.
    pub routes: Vec<HostRoute>,
    /// Whether packets for others are forwarded.
    pub forwarding: bool,
    /// Names that commands may use in place of addresses (`/etc/hosts`), shared between hosts.
    pub names: Arc<BTreeMap<String, Vec<IpAddr>>>,
    /// What the host's clock shows at the network's time zero, since 1970; zero, as in virtual
    /// time, makes it show the time since the start. Programs put it into what they send.
    pub epoch: SimTime,
}

/// An interface of a host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostInterface {
    /// Name inside the host, for example `eth0`.
    pub name: String,
    /// Hardware address.
    pub mac: [u8; 6],
    /// Addresses; an IPv6 link-local address is added by itself.
    pub addresses: Vec<IpNetwork>,
    /// Largest packet in bytes.
    pub mtu: u32,
}

/// A learning bridge inside a host.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct HostBridge {
    /// Name inside the host, for example `br0`.
    pub name: String,
    /// Names of the interfaces that are its ports.
    pub ports: Vec<String>,
    /// Addresses of the bridge as an interface of the host.
    pub addresses: Vec<IpNetwork>,
    /// Whether it runs the spanning tree protocol.
    pub stp: bool,
}

/// A static route.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostRoute {
    /// Destination; prefix length 0 for a default route.
    pub to: IpNetwork,
    /// Next hop; `None` for a route on the link.
    pub via: Option<IpAddr>,
    /// Name of the interface; `None`: the one on whose subnet `via` is.
    pub interface: Option<String>,
}

/// An address with the length of its network's prefix.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct IpNetwork {
    address: IpAddr,
    prefix: u8,
}

/// A prefix that no address of the family can have.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("prefix length {prefix} of {address} is too long; IPv4 has 32 bits, IPv6 128")]
pub struct InvalidPrefix {
    /// The address.
    pub address: IpAddr,
    /// Its prefix length in bits.
    pub prefix: u8,
}

impl IpNetwork {
    /// `address/prefix`.
    pub fn new(address: IpAddr, prefix: u8) -> Result<Self, InvalidPrefix> {
        if prefix > bits(address) {
            return Err(InvalidPrefix { address, prefix });
        }
        Ok(Self { address, prefix })
    }

    /// The one address of a host.
    pub fn host(address: IpAddr) -> Self {
        Self { address, prefix: bits(address) }
    }

    /// The address as given, host bits included.
    pub fn address(self) -> IpAddr {
        self.address
    }

    /// Length of the prefix in bits.
    pub fn prefix(self) -> u8 {
        self.prefix
    }

    /// Whether an address is in the network.
    pub fn contains(self, address: IpAddr) -> bool {
        match (self.address, address) {
            (IpAddr::V4(a), IpAddr::V4(b)) => (a.to_bits() ^ b.to_bits()) & mask4(self.prefix) == 0,
            (IpAddr::V6(a), IpAddr::V6(b)) => (a.to_bits() ^ b.to_bits()) & mask6(self.prefix) == 0,
            _ => false,
        }
    }

    /// The network with the host bits zero.
    #[must_use]
    pub fn network(self) -> Self {
        let address = match self.address {
            IpAddr::V4(a) => Ipv4Addr::from_bits(a.to_bits() & mask4(self.prefix)).into(),
            IpAddr::V6(a) => Ipv6Addr::from_bits(a.to_bits() & mask6(self.prefix)).into(),
        };
        Self { address, ..self }
    }

    /// The broadcast address of an IPv4 network that has one.
    pub fn broadcast(self) -> Option<Ipv4Addr> {
        match self.address {
            IpAddr::V4(a) if self.prefix < 31 => {
                Some(Ipv4Addr::from_bits(a.to_bits() | !mask4(self.prefix)))
            }
            _ => None,
        }
    }
}

impl std::str::FromStr for IpNetwork {
    type Err = ParseIpNetworkError;

    /// `10.0.0.1/24`; without a prefix, the one address.
    fn from_str(text: &str) -> Result<Self, ParseIpNetworkError> {
        let wrong = || ParseIpNetworkError { text: text.to_owned() };
        let Some((address, prefix)) = text.split_once('/') else {
            return Ok(Self::host(text.parse().map_err(|_| wrong())?));
        };
        let address = address.parse().map_err(|_| wrong())?;
        Self::new(address, prefix.parse().map_err(|_| wrong())?).map_err(|_| wrong())
    }
}

/// A text that is no network.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("`{text}` is no address with prefix; write for example 10.0.0.1/24 or fd00::1/64")]
pub struct ParseIpNetworkError {
    /// The text.
    pub text: String,
}

impl fmt::Display for IpNetwork {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.prefix)
    }
}

fn bits(address: IpAddr) -> u8 {
    if address.is_ipv4() { 32 } else { 128 }
}

fn mask4(prefix: u8) -> u32 {
    u32::MAX.checked_shl(32 - u32::from(prefix)).unwrap_or(0)
}

fn mask6(prefix: u8) -> u128 {
    u128::MAX.checked_shl(128 - u32::from(prefix)).unwrap_or(0)
}

/// Why a host cannot be made.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum HostError {
    /// A host needs one port per interface.
    #[error("node `{node}` has {interfaces} interfaces but {ports} ports; give it one for each")]
    Ports {
        /// The node.
        node: String,
        /// Its interfaces.
        interfaces: usize,
        /// The ports given.
        ports: usize,
    },
    /// Two interfaces or bridges share a name.
    #[error("node `{node}` has two interfaces `{interface}`; rename one")]
    DuplicateInterface {
        /// The node.
        node: String,
        /// The name.
        interface: String,
    },
    /// A bridge or route names an interface that is not there, or that has a bridge already.
    #[error("node `{node}` has no free interface `{interface}`, which `{user}` names")]
    NoSuchInterface {
        /// The node.
        node: String,
        /// The name.
        interface: String,
        /// The bridge or route.
        user: String,
    },
    /// The next hop of a route is on no subnet of the host.
    #[error(
        "node `{node}`: the next hop {via} is on no subnet of the node; name the route's interface \
         or give an interface an address there"
    )]
    NoWay {
        /// The node.
        node: String,
        /// The next hop.
        via: String,
    },
}
