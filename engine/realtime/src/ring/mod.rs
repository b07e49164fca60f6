//! TAPs read and written through io_uring.
//!
//! Purpose: another way to do what [`crate::port::TapPort`] does with `read` and `write`, with one
//! system call a turn: it hands over the frames to be sent and collects those that came, which the
//! kernel read on its own (multishot reads) straight into the frames' memory. A node that floods
//! gets no more than the buffers of its port until the worker has handled them, so no port can
//! starve another or a timer.
//!
//! The worker does not wait here but in epoll: a wake-up through epoll says that the sender is about
//! to sleep, and the scheduler keeps both on one core. Figures, also of what was tried, are in
//! `docs/performance.md`.
//!
//! Assumptions: a write to a TAP never waits. A TAP that the ring cannot read is read by `read`.
//! Reference: `io_uring(7)`.

mod kernel;

use std::collections::VecDeque;
use std::io;
use std::os::fd::BorrowedFd;

use nix::errno::Errno;
use tapestry_models::{Frame, FramePool};

use self::kernel::{Completion, Uring};
use crate::port::Rx;

/// Frames that are read from one port in a turn at most: the data plane's burst.
const LARGEST_DEPTH: usize = 32;
/// Fewer would make every burst end with a new request.
const SMALLEST_DEPTH: usize = 4;
/// Frames that one call reads at most, from all ports together, so that timers wait for a few
/// tenths of a millisecond at most.
const TURN: usize = 512;

/// The TAPs of a worker that io_uring moves frames for.
pub(crate) struct Ring {
    uring: Uring,
    /// By index of the worker's port.
    lanes: Vec<Option<Lane>>,
    /// The worker's ports by the ring's file.
    ports: Vec<usize>,
    depth: usize,
    completions: Vec<Completion>,
}

/// One TAP.
struct Lane {
    file: usize,
    arrived: VecDeque<Frame>,
    /// Numbers of buffers that the kernel does not have.
    missing: Vec<u16>,
    reads: Reads,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Reads {
    /// The kernel reads as frames come.
    On,
    /// It must be asked again.
    Ended,
    /// The ring does not read this port.
    Off,
}

/// What a wait brought.
pub(crate) enum RingEvent {
    /// Frames came; [`Ring::take`] has them.
    Arrived(usize),
    /// A frame was sent, or why not.
    Written(usize, Frame, Result<(), Errno>),
    /// The ring reads this port no more; `read` says why.
    Unreadable(usize),
}

impl Ring {
    /// A ring for these ports of a worker: index and descriptor.
    pub(crate) fn new(taps: &[(usize, BorrowedFd<'_>)], ports: usize) -> io::Result<Self> {
        let share = TURN / taps.len().max(1);
        // A power of two, as buffer rings must be.
        let depth = 1 << share.clamp(SMALLEST_DEPTH, LARGEST_DEPTH).ilog2();
        let files: Vec<_> = taps.iter().map(|(_, fd)| *fd).collect();
        let uring = Uring::new(&files, depth as u16)?;
        let mut lanes: Vec<Option<Lane>> = (0..ports).map(|_| None).collect();
        for (file, &(port, _)) in taps.iter().enumerate() {
            lanes[port] = Some(Lane {
                file,
                arrived: VecDeque::with_capacity(depth),
                missing: (0..depth as u16).collect(),
                reads: Reads::Ended,
            });
        }
        let ports = taps.iter().map(|(port, _)| *port).collect();
        Ok(Self { uring, lanes, ports, depth, completions: Vec::new() })
    }

    /// Buffers that the kernel holds while nothing happens.
    pub(crate) fn buffers(&self) -> usize {
        self.ports.len() * self.depth
    }

    /// Begins to read. From now on only the calling thread may use the ring.
    pub(crate) fn start(&mut self, pool: &mut FramePool) -> io::Result<()> {
        self.uring.enable()?;
        for port in self.ports.clone() {
            self.refill(port, pool);
        }
        Ok(())
    }

    /// Whether frames to this port are written here.
    pub(crate) fn writes(&self, port: usize) -> bool {
        self.lanes.get(port).is_some_and(Option::is_some)
    }

    /// Whether frames from this port are read here, or the last ones are still to be taken.
    pub(crate) fn reads(&self, port: usize) -> bool {
        matches!(self.lanes.get(port), Some(Some(lane))
            if lane.reads != Reads::Off || !lane.arrived.is_empty())
    }

    /// Takes up to `max` frames that came from a port, and lets the kernel read as many more.
    pub(crate) fn take(
        &mut self,
        port: usize,
        pool: &mut FramePool,
        max: usize,
        out: &mut Vec<Frame>,
    ) -> Rx {
        let Some(Some(lane)) = self.lanes.get_mut(port) else { return Rx::Drained };
        let count = lane.arrived.len().min(max);
        out.extend(lane.arrived.drain(..count));
        if lane.arrived.is_empty() { self.refill(port, pool) } else { Rx::More }
    }

    /// Has a frame written with the next wait; gives it back if it must be sent first.
    pub(crate) fn write(&mut self, port: usize, frame: Frame) -> Result<(), Frame> {
        match &self.lanes[port] {
            Some(lane) => self.uring.write(lane.file, frame),
            None => Err(frame),
        }
    }

    /// Requests that the next wait hands over.
    pub(crate) fn queued(&mut self) -> usize {
        self.uring.queued()
    }

    /// Hands over what is queued and tells what happened. Does not wait.
    pub(crate) fn turn(
        &mut self,
        pool: &mut FramePool,
        tell: impl FnMut(RingEvent),
    ) -> nix::Result<()> {
        let outcome = self.uring.enter();
        self.uring.completions(&mut self.completions);
        self.dispatch(pool, tell);
        outcome
    }

    /// Ends all reads and tells what came until then; writes go on.
    pub(crate) fn end_reads(
        &mut self,
        pool: &mut FramePool,
        mut tell: impl FnMut(RingEvent),
    ) -> nix::Result<()> {
        self.turn(pool, &mut tell)?;
        for lane in self.lanes.iter_mut().flatten() {
            lane.reads = Reads::Off;
        }
        let cancelled = self.uring.cancel();
        self.turn(pool, tell)?;
        cancelled.map_err(|error| error.raw_os_error().map_or(Errno::EIO, Errno::from_raw))
    }

    fn dispatch(&mut self, pool: &mut FramePool, mut tell: impl FnMut(RingEvent)) {
        let Self { lanes, ports, completions, .. } = self;
        for completion in completions.drain(..) {
            match completion {
                Completion::Read { file, buffer, filled, bytes } => {
                    let port = ports[file];
                    let Some(lane) = &mut lanes[port] else { continue };
                    lane.missing.push(buffer);
                    // Never longer than its buffer: the kernel knows its length.
                    if let Ok(frame) = pool.filled(filled, bytes) {
                        lane.arrived.push_back(frame);
                        tell(RingEvent::Arrived(port));
                    }
                }
                Completion::ReadEnded { file, error } => {
                    let port = ports[file];
                    let Some(lane) = &mut lanes[port] else { continue };
                    if lane.reads == Reads::Off {
                        continue;
                    }
                    if error.is_some() {
                        lane.reads = Reads::Off;
                        tell(RingEvent::Unreadable(port));
                    } else {
                        lane.reads = Reads::Ended;
                        tell(RingEvent::Arrived(port));
                    }
                }
                Completion::Written { file, frame, outcome } => {
                    tell(RingEvent::Written(ports[file], frame, outcome));
                }
            }
        }
    }

    /// Gives the kernel buffers for a port, and has it read if it does not.
    fn refill(&mut self, port: usize, pool: &mut FramePool) -> Rx {
        let Self { lanes, uring, depth, .. } = self;
        let Some(Some(lane)) = lanes.get_mut(port) else { return Rx::Drained };
        if lane.reads == Reads::Off {
            // The caller's own reading follows.
            return Rx::More;
        }
        while let Some(number) = lane.missing.pop() {
            let Ok(buffer) = pool.lend() else {
                lane.missing.push(number);
                break;
            };
            uring.provide(lane.file, number, buffer);
        }
        if lane.missing.len() == *depth {
            return Rx::NoBuffer;
        }
        if lane.reads == Reads::Ended {
            if uring.read(lane.file).is_err() {
                return Rx::NoBuffer;
            }
            lane.reads = Reads::On;
        }
        Rx::Drained
    }
}
