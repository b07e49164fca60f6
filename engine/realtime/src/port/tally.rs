//! What happened to the frames of a port, and what that says about its interface.
//!
//! Purpose: the part that ports with a descriptor have in common, whoever calls the kernel.

use nix::errno::Errno;
use tapestry_models::{FillError, Frame, FramePool};

use super::{PortCounters, PortDrop, PortState, Rx, state_after};

/// Counters and state of a port.
#[derive(Debug)]
pub struct Tally {
    counters: PortCounters,
    state: PortState,
}

impl Default for Tally {
    /// Nothing counted, and up until the kernel says otherwise.
    fn default() -> Self {
        Self { counters: PortCounters::default(), state: PortState::Up }
    }
}

impl Tally {
    /// What was counted so far.
    pub fn counters(&self) -> &PortCounters {
        &self.counters
    }

    /// Whether the node's interface works.
    pub fn state(&self) -> PortState {
        self.state
    }

    /// Reads up to `max` frames with `read`, which fills a buffer and says with how many bytes.
    pub(super) fn rx_burst(
        &mut self,
        pool: &mut FramePool,
        max: usize,
        out: &mut Vec<Frame>,
        mut read: impl FnMut(&mut [u8]) -> nix::Result<usize>,
    ) -> Rx {
        for _ in 0..max {
            match pool.fill(|space| Ok(read(space)?)) {
                Ok(frame) => {
                    self.received(&frame);
                    out.push(frame);
                }
                Err(FillError::Io(error)) => {
                    match error.raw_os_error().map_or(Errno::EIO, Errno::from_raw) {
                        Errno::EINTR => {}
                        Errno::EAGAIN => return Rx::Drained,
                        errno => {
                            self.state = state_after(errno).unwrap_or(self.state);
                            return Rx::Drained;
                        }
                    }
                }
                Err(_) => return Rx::NoBuffer,
            }
        }
        Rx::More
    }

    /// A frame came from the node.
    pub(crate) fn received(&mut self, frame: &Frame) {
        self.works();
        self.counters.received(frame);
    }

    /// The node got a frame.
    pub(crate) fn sent(&mut self, frame: &Frame) {
        self.works();
        self.counters.sent(frame);
    }

    /// The kernel did not take a frame for this reason.
    pub(crate) fn refused(&mut self, errno: Errno) {
        let reason = match state_after(errno) {
            Some(state) => {
                self.state = state;
                state.drop_reason()
            }
            None => PortDrop::Refused,
        };
        self.lost(reason, 1);
    }

    /// Frames were lost.
    pub(crate) fn lost(&mut self, reason: PortDrop, frames: u64) {
        self.counters.tx_drops.add(reason, frames);
    }

    /// This many frames wait for the node.
    pub(crate) fn set_pending(&mut self, frames: usize) {
        self.counters.tx_pending = frames as u64;
    }

    /// An interface that was deleted does not come back, whatever was still on its way.
    fn works(&mut self) {
        if self.state == PortState::Down {
            self.state = PortState::Up;
        }
    }
}
