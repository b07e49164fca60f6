//! How a worker waits.

use nix::errno::Errno;
use tapestry_core::{Clock, SimTime};
use tapestry_models::FramePool;

use super::{Attached, MESSAGES, Worker, WorkerParts};
use crate::failure::Failure;
use crate::poller::Wait;
use crate::ring::{Ring, RingEvent};
use crate::spin::preemptions;

/// Longest wait while a port could not be read for want of buffers.
const BUFFER_RETRY: SimTime = SimTime::from_millis(1);

impl Worker {
    /// Waits for the first of: a frame, room to write, a message, the next timer.
    pub(super) fn wait(&mut self) -> Result<(), Failure> {
        if !self.ready.is_empty() {
            return self.poll(Wait::Poll);
        }
        let now = self.parts.clock.now();
        let timer = self.parts.network.poll_timeout();
        let retry = (!self.starved.is_empty()).then(|| now + BUFFER_RETRY);
        let due = match timer.into_iter().chain(retry).min() {
            Some(due) if due < self.pulse.due() => due,
            // Nothing waits for a beat, so it is not worth spinning.
            _ if self.pulse.due() <= now => return self.poll(Wait::Poll),
            _ => return self.poll(Wait::For(self.pulse.due() - now)),
        };
        let margin = self.parts.spinner.margin(now);
        let planned = due - margin;
        if planned > now {
            self.poll(Wait::For(planned - now))?;
            if self.has_work() {
                return Ok(());
            }
            let woken = self.parts.clock.now();
            self.parts.spinner.woke(planned, woken);
        } else if due <= now {
            return self.poll(Wait::Poll);
        }
        if margin > SimTime::ZERO { self.spin(due) } else { Ok(()) }
    }

    /// Polls until `due` or until there is something to do.
    fn spin(&mut self, due: SimTime) -> Result<(), Failure> {
        let from = self.parts.clock.now();
        if from >= due {
            return Ok(());
        }
        let preemptions_before = preemptions();
        let mut now = from;
        while now < due && !self.has_work() {
            self.poll(Wait::Poll)?;
            now = self.parts.clock.now();
        }
        self.parts.spinner.spun(from, now, preemptions() > preemptions_before);
        Ok(())
    }

    fn has_work(&self) -> bool {
        self.messages || !self.ready.is_empty()
    }

    /// One wait; notes what it brought.
    pub(super) fn poll(&mut self, wait: Wait) -> Result<(), Failure> {
        if self.parts.ring.is_none() {
            return self.poll_descriptors(wait);
        }
        self.poll_ring()?;
        let wait = if self.has_work() { Wait::Poll } else { wait };
        self.poll_descriptors(wait)?;
        self.poll_ring()
    }

    /// Hands over what is queued and collects what came.
    fn poll_ring(&mut self) -> Result<(), Failure> {
        let mut unreadable = Vec::new();
        let outcome = self.with_ring(&mut unreadable, |ring, pool, tell| ring.turn(pool, tell));
        self.after_ring(outcome, &unreadable)
    }

    /// Has the ring do something and notes what it tells.
    fn with_ring(
        &mut self,
        unreadable: &mut Vec<usize>,
        act: impl FnOnce(&mut Ring, &mut FramePool, &mut dyn FnMut(RingEvent)) -> nix::Result<()>,
    ) -> nix::Result<()> {
        let Self { parts, ready, changed, .. } = self;
        let WorkerParts { ring: Some(ring), pool, ports, .. } = parts else { return Ok(()) };
        let mut list = |port: usize, attached: &mut Attached| {
            if !attached.listed {
                attached.listed = true;
                ready.push_back(port);
            }
        };
        act(ring, pool, &mut |event| match event {
            RingEvent::Arrived(port) => list(port, &mut ports[port]),
            RingEvent::Written(port, frame, outcome) => {
                let attached = &mut ports[port];
                let Some(tally) = attached.port.tally() else { return };
                tally.set_pending(tally.counters().tx_pending.saturating_sub(1) as usize);
                match outcome {
                    Ok(()) => tally.sent(&frame),
                    Err(errno) => tally.refused(errno),
                }
                if tally.state() != attached.state {
                    changed.push(port);
                }
            }
            RingEvent::Unreadable(port) => unreadable.push(port),
        })
    }

    /// Takes care of what the ring told.
    fn after_ring(
        &mut self,
        outcome: nix::Result<()>,
        unreadable: &[usize],
    ) -> Result<(), Failure> {
        while let Some(port) = self.changed.pop() {
            self.watch_state(port);
        }
        for &port in unreadable {
            // From now on read by `read`, whose error says what became of the interface.
            self.parts.ports[port].listed = true;
            self.ready.push_back(port);
        }
        outcome.map_err(|errno| self.cannot_wait(errno))
    }

    fn cannot_wait(&self, errno: Errno) -> Failure {
        Failure::Wait { links: self.link_names(), message: errno.to_string() }
    }

    /// Has the ring begin to read.
    pub(super) fn start_ring(&mut self) -> Result<(), Failure> {
        let WorkerParts { ring: Some(ring), pool, .. } = &mut self.parts else { return Ok(()) };
        let outcome = ring.start(pool);
        outcome
            .map_err(|error| Failure::Wait { links: self.link_names(), message: error.to_string() })
    }

    /// Gives the network what the ring has read already, and has it send what is queued.
    pub(super) fn end_ring(&mut self) -> Result<(), Failure> {
        if self.parts.ring.is_none() {
            return Ok(());
        }
        let outcome =
            self.with_ring(&mut Vec::new(), |ring, pool, tell| ring.end_reads(pool, tell));
        self.after_ring(outcome, &[])?;
        for index in self.starved.drain(..) {
            self.ready.push_back(index);
        }
        for _ in 0..self.ready.len() {
            if let Some(index) = self.ready.pop_front() {
                self.serve(index)?;
            }
        }
        self.poll(Wait::Poll)
    }

    /// One wait for the epoll set; lists the ports that became readable and flushes those with
    /// room.
    fn poll_descriptors(&mut self, wait: Wait) -> Result<(), Failure> {
        let Self { parts, ready, messages, .. } = self;
        let mut flushed = Vec::new();
        let outcome = parts.poller.wait(wait, |token, readable, room| {
            if token == MESSAGES {
                *messages = true;
                return;
            }
            let index = token as usize;
            let attached = &mut parts.ports[index];
            // What the ring reads is there with its next turn.
            let in_ring = parts.ring.as_ref().is_some_and(|ring| ring.reads(index));
            if readable && !attached.listed && !in_ring {
                attached.listed = true;
                ready.push_back(index);
            }
            if room && attached.watches_room {
                attached.port.flush();
                flushed.push(index);
            }
        });
        for index in flushed {
            self.watch_room(index);
            self.watch_state(index);
        }
        outcome.map_err(|errno| self.cannot_wait(errno))
    }

    /// Has the poller watch for room to write exactly while frames wait for it: the end of a
    /// socketpair signals room for every frame its reader takes.
    pub(super) fn watch_room(&mut self, index: usize) {
        let attached = &mut self.parts.ports[index];
        let pending = attached.port.counters().tx_pending > 0;
        if pending != attached.watches_room {
            let fd = attached.port.fd();
            // Fails only if the descriptor is not registered, but it is.
            if self.parts.poller.watch_room(fd, index as u64, pending).is_ok() {
                attached.watches_room = pending;
            }
        }
    }
}
