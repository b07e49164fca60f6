//! Ports: where frames enter and leave the emulator.
//!
//! Purpose: one small trait between a worker and the ways to attach a node. A port moves bursts and
//! never blocks; it counts what it moves and what it loses. A new way to attach a node is a new
//! port and nothing else. Assumes that frames are Ethernet without preamble and check sequence.
//! Not modelled: offloads; a frame is at most an MTU long, checksums are complete.

mod counters;
mod memory;
mod socket;
mod tally;
mod tap;

use std::os::fd::BorrowedFd;

use nix::errno::Errno;
use serde::Serialize;
use tapestry_models::{Frame, FramePool};

pub use counters::{PortCounters, PortDrop, PortDrops};
pub use memory::{MemoryEnd, MemoryPort};
pub use socket::{SocketError, SocketPort};
pub use tally::Tally;
pub use tap::{TapError, TapPort};

use crate::meter::InterfaceMeter;

/// Moves bursts of frames between one interface of a node and a worker. Never blocks.
pub trait Port: Send {
    /// Reads up to `max` frames and appends them to `out`, each into a buffer of `pool`.
    ///
    /// Buffers are longer than the longest frame of the link; a frame that does not fit is cut and
    /// thus still too long, so the link refuses it.
    fn rx_burst(&mut self, pool: &mut FramePool, max: usize, out: &mut Vec<Frame>) -> Rx;

    /// Takes all of `frames`: each is delivered, kept for [`Self::flush`], or counted as dropped.
    fn tx_burst(&mut self, frames: &mut Vec<Frame>);

    /// Delivers kept frames, as far as the node takes them. Called when the descriptor becomes
    /// writable and at the end of the run.
    fn flush(&mut self) {}

    /// Counts kept frames as lost: the node is off or stands still.
    fn discard(&mut self) {}

    /// What was counted so far.
    fn counters(&self) -> &PortCounters;

    /// Whether the node's interface works.
    fn state(&self) -> PortState;

    /// Becomes readable when frames wait, writable when kept frames can be delivered. Stays the
    /// same for the life of the port.
    fn fd(&self) -> BorrowedFd<'_>;

    /// What the host calls it, for example the TAP's name at its creation.
    fn name(&self) -> &str;

    /// Where a worker notes what it moved itself, by io_uring, instead of calling
    /// [`Self::rx_burst`] and [`Self::tx_burst`].
    ///
    /// For a port whose descriptor gives and takes one whole frame a `read` and `write`, and never
    /// keeps frames for later.
    fn tally(&mut self) -> Option<&mut Tally> {
        None
    }

    /// Gives the node's interface its carrier or takes it away, where the port can.
    fn set_carrier(&mut self, _: bool) -> nix::Result<()> {
        Ok(())
    }

    /// A reader for the interface's own counters, if it has some.
    fn meter(&self) -> Option<InterfaceMeter> {
        None
    }
}

/// Whether a port may hold more frames after a burst.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rx {
    /// The burst was full: more may wait.
    More,
    /// Nothing waits: the descriptor wakes the worker for the next frame.
    Drained,
    /// The pool is exhausted: more may wait, but must until frames have left.
    NoBuffer,
}

/// Whether the node's interface behind a port works.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum PortState {
    /// Frames pass.
    Up,
    /// The interface is down; it may come back. Each frame is a new attempt.
    Down,
    /// The interface was deleted or the guest's end closed; it will not come back.
    Gone,
}

impl PortState {
    /// The drop reason of a frame that meets this state.
    fn drop_reason(self) -> PortDrop {
        match self {
            Self::Up => PortDrop::Refused,
            Self::Down => PortDrop::InterfaceDown,
            Self::Gone => PortDrop::InterfaceGone,
        }
    }
}

/// What a failed read or write says about the interface; `None` if it says nothing.
fn state_after(errno: Errno) -> Option<PortState> {
    match errno {
        // TAP: administratively down.
        Errno::EIO | Errno::ENETDOWN => Some(PortState::Down),
        // TAP: the interface was deleted under the descriptor (`EFAULT`: in the middle of a read).
        // Socket: the guest's end is closed.
        Errno::EBADFD
        | Errno::EFAULT
        | Errno::ENODEV
        | Errno::ENXIO
        | Errno::ECONNREFUSED
        | Errno::ECONNRESET
        | Errno::ENOTCONN
        | Errno::EPIPE
        | Errno::EBADF => Some(PortState::Gone),
        _ => None,
    }
}
