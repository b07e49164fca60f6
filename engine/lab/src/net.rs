//! Links of the lab's own network namespace: the kernel bridges that join a guest's TAP to ours.
//!
//! Assumes the calling thread is inside the lab's network namespace (see `sandbox`). A bridge here
//! is plumbing, not a model: it neither learns loops nor ages, floods multicast, and forwards the
//! link-local group addresses that a bridge would normally keep (LLDP, 802.1X), so that it is as
//! transparent as a wire. Pause frames and LACP are kept back by the kernel in any case.
//!
//! Reference: `ip-link(8)`, `rtnetlink(7)`.

use std::io;

use futures::TryStreamExt;
use rtnetlink::packet_route::link::BridgeStpState;
use rtnetlink::{Handle, LinkBridge, LinkUnspec};

/// Why the lab's network could not be arranged.
#[derive(Debug, thiserror::Error)]
pub enum NetError {
    /// The netlink socket could not be opened.
    #[error("cannot open a netlink socket: {0}")]
    Socket(io::Error),
    /// The kernel refused an operation.
    #[error("cannot {what} {interface}: {source}")]
    Netlink {
        /// The operation.
        what: &'static str,
        /// The interface.
        interface: String,
        /// The kernel's answer.
        source: rtnetlink::Error,
    },
    /// An interface is not there.
    #[error("there is no interface {0} in the network namespace")]
    Missing(String),
    /// A route does not make sense.
    #[error("cannot add the route {to}: {error}; check its `via`")]
    Route {
        /// The destination.
        to: String,
        /// What is wrong with it.
        error: String,
    },
    /// A setting under `/proc/sys` could not be written.
    #[error("cannot set {path}: {source}")]
    Sysctl {
        /// The setting.
        path: &'static str,
        /// The system's answer.
        source: io::Error,
    },
}

/// A handle to the network namespace that it was opened in.
#[derive(Debug, Clone)]
pub struct LabNet {
    handle: Handle,
}

impl LabNet {
    /// Opens the namespace of the calling thread and prepares it: loopback up, no IPv6 chatter of
    /// the host's own on the TAPs, room for a burst in datagram sockets.
    ///
    /// Must be called inside a tokio runtime, which then drives the netlink connection.
    pub async fn open() -> Result<Self, NetError> {
        let net = Self::connect().map_err(NetError::Socket)?;
        for (path, value) in [
            ("/proc/sys/net/ipv6/conf/default/disable_ipv6", "1"),
            // Ten datagrams, the default, is less than one burst of a guest.
            ("/proc/sys/net/unix/max_dgram_qlen", "1024"),
        ] {
            match std::fs::write(path, value) {
                // A kernel without IPv6 has nothing to switch off.
                Err(source) if source.kind() != io::ErrorKind::NotFound => {
                    return Err(NetError::Sysctl { path, source });
                }
                _ => {}
            }
        }
        bridge_without_filters();
        net.set_up("lo").await?;
        Ok(net)
    }

    /// Opens the namespace of the calling thread as it is.
    ///
    /// Must be called inside a tokio runtime, which then drives the netlink connection.
    pub(crate) fn connect() -> io::Result<Self> {
        let (connection, handle, _) = rtnetlink::new_connection()?;
        tokio::spawn(connection);
        Ok(Self { handle })
    }

    pub(crate) fn handle(&self) -> &Handle {
        &self.handle
    }

    /// Joins interfaces by a new bridge and sets all of them up.
    pub async fn bridge(&self, name: &str, ports: &[&str], mtu: u32) -> Result<(), NetError> {
        let bridge = LinkBridge::new(name)
            .stp_state(BridgeStpState::Disabled)
            .forward_delay(0)
            // Nothing is remembered, so an address may appear on either side at any time.
            .ageing_time(0)
            .mcast_snooping(false)
            // All of 01:80:C2:00:00:0X but the three the kernel never lets through by mask.
            .group_fwd_mask(0xfff8)
            .mtu(mtu)
            .up()
            .build();
        self.handle.link().add(bridge).execute().await.map_err(failed("make bridge", name))?;
        for port in ports {
            self.join(name, port, mtu).await?;
        }
        Ok(())
    }

    /// Puts an interface into a bridge and sets it up.
    pub async fn join(&self, bridge: &str, port: &str, mtu: u32) -> Result<(), NetError> {
        let index = self.index(bridge).await?;
        let port_index = self.index(port).await?;
        let change = LinkUnspec::new_with_index(port_index).controller(index).mtu(mtu).up().build();
        let set = self.handle.link().set(change).execute().await;
        set.map_err(failed("add to its bridge", port))
    }

    /// Sets an interface up.
    pub async fn set_up(&self, name: &str) -> Result<(), NetError> {
        let index = self.index(name).await?;
        let change = LinkUnspec::new_with_index(index).up().build();
        self.handle.link().set(change).execute().await.map_err(failed("set up", name))
    }

    pub(crate) async fn index(&self, name: &str) -> Result<u32, NetError> {
        let mut links = self.handle.link().get().match_name(name.to_owned()).execute();
        match links.try_next().await {
            Ok(Some(link)) => Ok(link.header.index),
            Ok(None) | Err(rtnetlink::Error::NetlinkError(_)) => {
                Err(NetError::Missing(name.to_owned()))
            }
            Err(source) => Err(failed("find", name)(source)),
        }
    }
}

/// Has bridges of the calling thread's namespace forward frames without showing them to iptables, as
/// they do on hosts where nobody (Docker, for one) has loaded `br_netfilter`: a file must behave the
/// same on both, and the detour is an eighth of what a bridged frame costs.
///
/// Where it is refused bridges work as well, and slower. Reference: kernel
/// `Documentation/networking/ip-sysctl.rst`, `/proc/sys/net/bridge/*`.
pub(crate) fn bridge_without_filters() {
    for table in ["iptables", "ip6tables", "arptables"] {
        let path = format!("/proc/sys/net/bridge/bridge-nf-call-{table}");
        match std::fs::write(&path, "0") {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                tracing::debug!(path, %error, "bridges keep their filters");
            }
            _ => {}
        }
    }
}

pub(crate) fn failed(
    what: &'static str,
    interface: &str,
) -> impl FnOnce(rtnetlink::Error) -> NetError {
    let interface = interface.to_owned();
    move |source| NetError::Netlink { what, interface, source }
}
