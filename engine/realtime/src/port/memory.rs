//! A port whose node is the test itself.
//!
//! Purpose: frames in and out of a data plane without kernel interfaces or privilege, with faults
//! on demand. The node's side is a [`MemoryEnd`], usable from another thread. Assumes few frames:
//! each costs a lock and a wake-up.

use std::collections::VecDeque;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::eventfd::{EfdFlags, EventFd};
use parking_lot::{Condvar, Mutex};
use tapestry_models::{Frame, FramePool};

use super::{Port, PortCounters, PortDrop, PortState, Rx, state_after};

/// Most frames that wait for the node once it took as many as it wanted.
const LONGEST_QUEUE: usize = 16;

/// The emulator's side.
#[derive(Debug)]
pub struct MemoryPort {
    shared: Arc<Shared>,
    name: String,
    state: PortState,
    counters: PortCounters,
    queue: VecDeque<Frame>,
}

/// The node's side. Clones are the same node.
#[derive(Debug, Clone)]
pub struct MemoryEnd {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    wires: Mutex<Wires>,
    delivered: Condvar,
    wake: EventFd,
}

#[derive(Debug)]
struct Wires {
    to_link: VecDeque<Vec<u8>>,
    to_node: VecDeque<Vec<u8>>,
    capacity: usize,
    fault: Option<Errno>,
    panics: bool,
}

impl MemoryPort {
    /// A port, and its node's side. `name` is for reports.
    pub fn pair(name: &str) -> (Self, MemoryEnd) {
        let wake = EventFd::from_flags(EfdFlags::EFD_NONBLOCK | EfdFlags::EFD_CLOEXEC)
            .expect("an eventfd needs only a free descriptor");
        let wires = Wires {
            to_link: VecDeque::new(),
            to_node: VecDeque::new(),
            capacity: usize::MAX,
            fault: None,
            panics: false,
        };
        let shared = Arc::new(Shared { wires: Mutex::new(wires), delivered: Condvar::new(), wake });
        let port = Self {
            shared: Arc::clone(&shared),
            name: name.to_owned(),
            state: PortState::Up,
            counters: PortCounters::default(),
            queue: VecDeque::new(),
        };
        (port, MemoryEnd { shared })
    }

    fn send_queue(&mut self) {
        let mut wires = self.shared.wires.lock();
        assert!(!wires.panics, "the test asked this port to panic");
        if let Some(errno) = wires.fault {
            self.state = state_after(errno).unwrap_or(self.state);
            let reason = self.state.drop_reason();
            self.counters.tx_drops.add(reason, self.queue.len() as u64);
            self.queue.clear();
        } else {
            self.state = PortState::Up;
        }
        while wires.to_node.len() < wires.capacity
            && let Some(frame) = self.queue.pop_front()
        {
            self.counters.sent(&frame);
            wires.to_node.push_back(frame.bytes().to_vec());
        }
        self.counters.tx_pending = self.queue.len() as u64;
        self.shared.delivered.notify_all();
    }
}

impl Port for MemoryPort {
    fn rx_burst(&mut self, pool: &mut FramePool, max: usize, out: &mut Vec<Frame>) -> Rx {
        // Cleared first: a frame that arrives during the burst makes a new edge.
        let _ = self.shared.wake.read();
        let mut wires = self.shared.wires.lock();
        assert!(!wires.panics, "the test asked this port to panic");
        if let Some(errno) = wires.fault {
            self.state = state_after(errno).unwrap_or(self.state);
            return Rx::Drained;
        }
        self.state = PortState::Up;
        for _ in 0..max {
            let Some(bytes) = wires.to_link.front() else { return Rx::Drained };
            let copy = |space: &mut [u8]| {
                // As a datagram socket does: what does not fit is cut.
                let length = bytes.len().min(space.len());
                space[..length].copy_from_slice(&bytes[..length]);
                Ok(length)
            };
            let Ok(frame) = pool.fill(copy) else { return Rx::NoBuffer };
            self.counters.received(&frame);
            out.push(frame);
            wires.to_link.pop_front();
        }
        Rx::More
    }

    fn tx_burst(&mut self, frames: &mut Vec<Frame>) {
        for frame in frames.drain(..) {
            self.queue.push_back(frame);
            if self.queue.len() > LONGEST_QUEUE {
                self.send_queue();
            }
            if self.queue.len() > LONGEST_QUEUE {
                self.queue.pop_back();
                self.counters.tx_drops.count(PortDrop::Backpressure);
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
        self.shared.wake.as_fd()
    }

    fn name(&self) -> &str {
        &self.name
    }
}

impl MemoryEnd {
    /// The node sends a frame.
    pub fn send(&self, frame: &[u8]) {
        self.shared.wires.lock().to_link.push_back(frame.to_vec());
        self.wake();
    }

    /// The node takes the next frame, waiting for it at most `timeout`.
    pub fn receive(&self, timeout: Duration) -> Option<Vec<u8>> {
        let deadline = Instant::now() + timeout;
        let mut wires = self.shared.wires.lock();
        while wires.to_node.is_empty() {
            if self.shared.delivered.wait_until(&mut wires, deadline).timed_out() {
                break;
            }
        }
        let frame = wires.to_node.pop_front();
        drop(wires);
        self.wake();
        frame
    }

    /// How many frames the node's interface holds at most; more wait in the port.
    pub fn set_capacity(&self, frames: usize) {
        self.shared.wires.lock().capacity = frames;
        self.wake();
    }

    /// From now on the interface answers with this error (`None`: works again).
    pub fn set_fault(&self, fault: Option<Errno>) {
        self.shared.wires.lock().fault = fault;
        self.wake();
    }

    /// The next use of the port panics, as a bug in a port would.
    pub fn panic_next(&self) {
        self.shared.wires.lock().panics = true;
        self.wake();
    }

    /// Makes the port's descriptor ready. An eventfd gives both edges, readable and writable.
    fn wake(&self) {
        let _ = self.shared.wake.write(1);
    }
}
