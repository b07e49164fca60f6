//! One end of a datagram socketpair as a port.
//!
//! Purpose: attaches a QEMU guest (`-netdev dgram,local.type=fd`) without TAP and privilege: one
//! datagram is one frame. A socketpair holds few datagrams (`net.unix.max_dgram_qlen`, often 10),
//! so frames the guest has not taken yet wait in a bounded queue here. Assumes that the other end
//! keeps datagram borders. Not noticed: that the guest's end was closed, until a frame is sent to
//! it. Reference: `unix(7)`, QEMU's `net/dgram.c`.

use std::collections::VecDeque;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, SockType, recv, send, setsockopt, socketpair, sockopt,
};
use tapestry_models::{Frame, FramePool};
use thiserror::Error;

use super::{Port, PortCounters, PortDrop, PortState, Rx, Tally, state_after};

/// Most frames that wait for the guest. The guest's own receive ring holds 256; as many here ride
/// out a pause of its main loop without standing in for the link's queue.
const LONGEST_QUEUE: usize = 256;
/// Send buffer asked for, in bytes; the kernel caps it at `net.core.wmem_max`.
const SEND_BUFFER: usize = 1 << 20;

/// Why a socket port could not be made.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum SocketError {
    /// The kernel refused the socketpair.
    #[error(
        "cannot make a socketpair for `{name}`: {source}; if too many files are open, raise the \
         limit with `ulimit -n`"
    )]
    Create {
        /// Name of the port.
        name: String,
        /// The kernel's answer.
        source: Errno,
    },
}

/// The emulator's end of a datagram socketpair.
#[derive(Debug)]
pub struct SocketPort {
    socket: OwnedFd,
    name: String,
    tally: Tally,
    queue: VecDeque<Frame>,
}

impl SocketPort {
    /// A socketpair: the port, and the end that goes to the guest (close-on-exec, blocking). `name`
    /// is for reports.
    pub fn pair(name: &str) -> Result<(Self, OwnedFd), SocketError> {
        let (ours, guests) =
            socketpair(AddressFamily::Unix, SockType::Datagram, None, SockFlag::SOCK_CLOEXEC)
                .map_err(|source| SocketError::Create { name: name.to_owned(), source })?;
        for end in [&ours, &guests] {
            // Only a wish: a smaller buffer works too.
            let _ = setsockopt(end, sockopt::SndBuf, &SEND_BUFFER);
        }
        let port = Self {
            socket: ours,
            name: name.to_owned(),
            tally: Tally::default(),
            queue: VecDeque::with_capacity(LONGEST_QUEUE),
        };
        Ok((port, guests))
    }

    /// Sends from the head of the queue until it is empty, the guest is behind, or gone.
    fn send_queue(&mut self) {
        while let Some(frame) = self.queue.front() {
            let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL;
            match send(self.socket.as_raw_fd(), frame.bytes(), flags) {
                Ok(_) => {
                    self.tally.sent(frame);
                    self.queue.pop_front();
                }
                Err(Errno::EAGAIN | Errno::ENOBUFS) => break,
                Err(Errno::EINTR) => {}
                Err(errno) => {
                    // This one frame may be the problem; an interface that does not work is
                    // everybody's.
                    self.tally.refused(errno);
                    self.queue.pop_front();
                    if state_after(errno).is_some() {
                        let reason = self.tally.state().drop_reason();
                        self.tally.lost(reason, self.queue.len() as u64);
                        self.queue.clear();
                    }
                }
            }
        }
        self.tally.set_pending(self.queue.len());
    }
}

impl Port for SocketPort {
    fn rx_burst(&mut self, pool: &mut FramePool, max: usize, out: &mut Vec<Frame>) -> Rx {
        let socket = self.socket.as_raw_fd();
        self.tally.rx_burst(pool, max, out, |space| recv(socket, space, MsgFlags::MSG_DONTWAIT))
    }

    fn tx_burst(&mut self, frames: &mut Vec<Frame>) {
        for frame in frames.drain(..) {
            if self.queue.len() == LONGEST_QUEUE {
                self.send_queue();
            }
            if self.tally.state() == PortState::Gone {
                self.tally.lost(PortDrop::InterfaceGone, 1);
            } else if self.queue.len() == LONGEST_QUEUE {
                self.tally.lost(PortDrop::Backpressure, 1);
            } else {
                self.queue.push_back(frame);
            }
        }
        self.send_queue();
    }

    fn flush(&mut self) {
        self.send_queue();
    }

    fn discard(&mut self) {
        self.tally.lost(PortDrop::NodeDown, self.queue.len() as u64);
        self.queue.clear();
        self.tally.set_pending(0);
    }

    fn counters(&self) -> &PortCounters {
        self.tally.counters()
    }

    fn state(&self) -> PortState {
        self.tally.state()
    }

    fn fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }

    fn name(&self) -> &str {
        &self.name
    }
}
