//! A TAP interface as a port.
//!
//! Purpose: the node's side is a network interface of the kernel, in the caller's network
//! namespace at first; it may be bridged, moved to another namespace or renamed afterwards. Bringing
//! it up is the caller's business. The interface lives as long as the port (and its meters).
//! Assumes one queue. Not modelled: offloads (`IFF_VNET_HDR`). Reference: kernel
//! `Documentation/networking/tuntap.rst`.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::unistd::{read, write};
use tapestry_models::{Frame, FramePool};
use thiserror::Error;
use tun_tap::{Iface, Mode};

use super::{Port, PortCounters, PortDrop, PortState, Rx, Tally};
use crate::meter::InterfaceMeter;
use crate::sys;

/// Longest name of a network interface, in bytes.
const LONGEST_NAME: usize = 15;

/// Why a TAP could not be made.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum TapError {
    /// The name cannot be an interface's.
    #[error(
        "`{name}` cannot name a network interface: use 1 to {LONGEST_NAME} bytes without `/`, \
         `%`, `:` or white space"
    )]
    Name {
        /// The name as given.
        name: String,
    },
    /// The kernel refused to make the interface.
    #[error("cannot make the TAP `{name}`: {source}; {}", advice(source))]
    Create {
        /// Name of the interface.
        name: String,
        /// The kernel's answer.
        source: io::Error,
    },
}

fn advice(error: &io::Error) -> &'static str {
    match error.raw_os_error().map(Errno::from_raw) {
        Some(Errno::ENOENT | Errno::ENODEV | Errno::ENXIO) => {
            "load the module `tun` and check that /dev/net/tun exists"
        }
        Some(Errno::EPERM | Errno::EACCES) => {
            "the thread needs CAP_NET_ADMIN over its network namespace, and the right to open /dev/net/tun"
        }
        Some(Errno::EBUSY | Errno::EINVAL | Errno::EEXIST) => {
            "another interface of this namespace has the name; choose another name"
        }
        _ => "check that the kernel supports TAP interfaces (`tapestry doctor`)",
    }
}

/// A TAP interface.
#[derive(Debug)]
pub struct TapPort {
    tap: OwnedFd,
    name: String,
    tally: Tally,
    shows_carrier: bool,
}

impl TapPort {
    /// Makes the TAP `name` in the calling thread's network namespace. The interface is down and has
    /// no address yet.
    pub fn create(name: &str) -> Result<Self, TapError> {
        let forbidden = |c: char| c.is_whitespace() || matches!(c, '/' | '%' | ':' | '\0');
        if name.is_empty()
            || name.len() > LONGEST_NAME
            || name.contains(forbidden)
            || matches!(name, "." | "..")
        {
            return Err(TapError::Name { name: name.to_owned() });
        }
        let failed = |source| TapError::Create { name: name.to_owned(), source };
        let iface = Iface::without_packet_info(name, Mode::Tap).map_err(failed)?;
        let tap = sys::own(iface);
        let set_non_blocking = || -> nix::Result<()> {
            let flags = OFlag::from_bits_retain(fcntl(&tap, FcntlArg::F_GETFL)?);
            fcntl(&tap, FcntlArg::F_SETFL(flags | OFlag::O_NONBLOCK)).map(drop)
        };
        set_non_blocking().map_err(|errno| failed(errno.into()))?;
        Ok(Self { tap, name: name.to_owned(), tally: Tally::default(), shows_carrier: false })
    }

    /// The interface loses its carrier while its link is down. For a TAP that is a node's own
    /// interface; one behind a bridge would only stop the bridge.
    #[must_use]
    pub fn showing_carrier(self) -> Self {
        Self { shows_carrier: true, ..self }
    }
}

impl Port for TapPort {
    fn rx_burst(&mut self, pool: &mut FramePool, max: usize, out: &mut Vec<Frame>) -> Rx {
        let tap = &self.tap;
        self.tally.rx_burst(pool, max, out, |space| read(tap, space))
    }

    fn tx_burst(&mut self, frames: &mut Vec<Frame>) {
        for frame in frames.drain(..) {
            if self.tally.state() == PortState::Gone {
                self.tally.lost(PortDrop::InterfaceGone, 1);
                continue;
            }
            match write(&self.tap, frame.bytes()) {
                Ok(_) => self.tally.sent(&frame),
                Err(errno) => self.tally.refused(errno),
            }
        }
    }

    fn counters(&self) -> &PortCounters {
        self.tally.counters()
    }

    fn state(&self) -> PortState {
        self.tally.state()
    }

    fn tally(&mut self) -> Option<&mut Tally> {
        Some(&mut self.tally)
    }

    fn fd(&self) -> BorrowedFd<'_> {
        self.tap.as_fd()
    }

    fn name(&self) -> &str {
        &self.name
    }

    fn set_carrier(&mut self, up: bool) -> nix::Result<()> {
        if self.shows_carrier { sys::set_tap_carrier(self.tap.as_fd(), up) } else { Ok(()) }
    }

    fn meter(&self) -> Option<InterfaceMeter> {
        self.tap.try_clone().ok().map(InterfaceMeter::new)
    }
}
