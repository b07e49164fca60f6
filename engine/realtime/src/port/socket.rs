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

use super::{Port, PortCounters, PortDrop, PortState, Rx, Stop, state_after};

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
    state: PortState,
    counters: PortCounters,
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
            state: PortState::Up,
            counters: PortCounters::default(),
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
                    self.state = PortState::Up;
                    self.counters.sent(frame);
                    self.queue.pop_front();
                }
                Err(Errno::EAGAIN | Errno::ENOBUFS) => break,
                Err(Errno::EINTR) => {}
                Err(errno) => {
                    if let Some(state) = state_after(errno) {
                        self.state = state;
                        self.counters.tx_drops.add(state.drop_reason(), self.queue.len() as u64);
                        self.queue.clear();
                    } else {
                        // This one frame is the problem; the next may pass.
                        self.counters.tx_drops.count(PortDrop::Refused);
                        self.queue.pop_front();
                    }
                }
            }
        }
        self.counters.tx_pending = self.queue.len() as u64;
    }
}

impl Port for SocketPort {
    fn rx_burst(&mut self, pool: &mut FramePool, max: usize, out: &mut Vec<Frame>) -> Rx {
        for _ in 0..max {
            let socket = self.socket.as_raw_fd();
            let receive = |space: &mut [u8]| Ok(recv(socket, space, MsgFlags::MSG_DONTWAIT)?);
            match pool.fill(receive).map_err(Stop::from) {
                Ok(frame) => {
                    self.counters.received(&frame);
                    out.push(frame);
                }
                Err(Stop::Retry) => {}
                Err(Stop::End(rx)) => return rx,
                Err(Stop::Error(errno)) => {
                    self.state = state_after(errno).unwrap_or(self.state);
                    return Rx::Drained;
                }
            }
        }
        Rx::More
    }

    fn tx_burst(&mut self, frames: &mut Vec<Frame>) {
        for frame in frames.drain(..) {
            if self.queue.len() == LONGEST_QUEUE {
                self.send_queue();
            }
            if self.state == PortState::Gone {
                self.counters.tx_drops.count(PortDrop::InterfaceGone);
            } else if self.queue.len() == LONGEST_QUEUE {
                self.counters.tx_drops.count(PortDrop::Backpressure);
            } else {
                self.queue.push_back(frame);
            }
        }
        self.send_queue();
    }

    fn flush(&mut self) {
        self.send_queue();
    }

    fn counters(&self) -> &PortCounters {
        &self.counters
    }

    fn state(&self) -> PortState {
        self.state
    }

    fn fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }

    fn name(&self) -> &str {
        &self.name
    }
}
