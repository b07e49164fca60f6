//! `iperf`, version 2: throughput, loss and jitter over TCP and UDP.
//!
//! Purpose: client and server that print what iperf 2.1 prints and understand its datagrams, so
//! that a real iperf may be on the other side.
//!
//! Assumptions: a UDP client sends datagram *k* exactly *k* intervals after the first; a datagram
//! is sent at least every [`SHORTEST_INTERVAL`], however high the rate. The closing datagram counts
//! as one, as in iperf, which also says it sent one more than it did.
//!
//! Not modelled: bidirectional and reverse tests, isochronous traffic, multicast, `-e`'s figures
//! about TCP (retries, congestion window), date and process number.
//!
//! Reference: `iperf(1)` 2.1.8; its `payloads.h` for the datagrams; RFC 1889, appendix A.8, for
//! jitter.

mod options;
mod report;
mod slow_start;
mod tcp_client;
mod tcp_server;
mod udp_client;
mod udp_server;
mod wire;

use std::net::{IpAddr, SocketAddr};

use tapestry_core::SimTime;

use super::{Cx, Program, resolve};
use options::{Limit, Options, Pace, Role};
use report::{Meter, RULE};

/// Datagrams of a client do not follow each other faster.
const SHORTEST_INTERVAL: SimTime = SimTime::from_nanos(100);

/// Starts `iperf`, or says what is wrong and returns the exit status.
pub(super) fn start(arguments: &[String], cx: &mut Cx<'_, '_>) -> Result<Box<dyn Program>, u8> {
    let refuse = |cx: &mut Cx<'_, '_>, what: String| {
        cx.print(format!("iperf: {what}\n"));
        Err(1)
    };
    let options = match options::parse(arguments) {
        Ok(options) => options,
        Err(what) => return refuse(cx, what),
    };
    let Role::Client(server) = &options.role else {
        return if options.udp {
            Ok(Box::new(udp_server::UdpServer::start(options, cx)))
        } else {
            Ok(Box::new(tcp_server::TcpServer::start(options, cx)))
        };
    };
    let v6 = options.v6.then_some(true);
    let Some(address) = resolve(cx.stack, server, v6) else {
        return refuse(cx, format!("{server}: Name or service not known"));
    };
    let source = match &options.bind {
        None => cx.stack.source_for(address),
        Some(bind) => resolve(cx.stack, bind, None).filter(|&own| cx.stack.is_local(own)),
    };
    let Some(source) = source.filter(|source| source.is_ipv4() == address.is_ipv4()) else {
        return refuse(cx, "connect failed: Network is unreachable".into());
    };
    let to = SocketAddr::new(address, options.port);
    let protocol = if options.udp { "UDP" } else { "TCP" };
    cx.print(format!("{RULE}Client connecting to {address}, {protocol} port {}\n", to.port()));
    if options.udp {
        udp_client::UdpClient::start(options, source, to, cx)
    } else {
        tcp_client::TcpClient::start(options, source, to, cx)
    }
}

/// One stream of a client or server, as reports number it.
#[derive(Debug)]
struct Stream {
    number: usize,
    local: SocketAddr,
    remote: SocketAddr,
    meter: Meter,
}

impl Stream {
    fn new(
        number: usize,
        (local, remote): (SocketAddr, SocketAddr),
        start: SimTime,
        interval: Option<SimTime>,
    ) -> Self {
        Self { number, local, remote, meter: Meter::new(start, interval) }
    }

    /// The line that says who talks to whom.
    fn connected(&self) -> String {
        format!(
            "[{:3}] local {} port {} connected with {} port {}\n",
            self.number,
            self.local.ip(),
            self.local.port(),
            self.remote.ip(),
            self.remote.port()
        )
    }
}

/// A free port for each stream of a client.
fn local(cx: &mut Cx<'_, '_>, source: IpAddr) -> SocketAddr {
    SocketAddr::new(source, cx.stack.ephemeral_port("iperf"))
}

impl Options {
    /// When datagram or block number `k` (from 0) is due, after the start; `None`: at once.
    fn due(&self, k: u64) -> Option<SimTime> {
        let (k, length) = (u128::from(k), self.length as u128);
        let nanos = match self.pace {
            Pace::Unlimited => return None,
            Pace::PerSecond(rate) => (k as f64 * 1e9 / rate) as u128,
            Pace::Bits(rate) => (k * length * 8 * 1_000_000_000) / u128::from(rate.max(1)),
        };
        Some(SimTime::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX)))
    }

    /// Whether datagram or block number `k`, due at `due` after the start, is to be sent.
    fn includes(&self, k: u64, due: SimTime) -> bool {
        match self.limit {
            Limit::Time(time) => due < time,
            Limit::Bytes(bytes) => k < bytes.div_ceil(self.length as u64),
        }
    }
}
