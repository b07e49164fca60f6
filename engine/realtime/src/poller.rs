//! Waiting for ports, messages and the next timer at once.
//!
//! Purpose: one edge-triggered epoll set per worker. Edge-triggered, because the worker keeps its
//! own list of ports with frames left (work per turn is bounded, so a port is often not drained)
//! and because a broken descriptor then wakes it once instead of for ever. Timeouts have
//! nanosecond resolution: by `epoll_pwait2` (Linux 5.11), else by a `timerfd` in the set.
//! Reference: `epoll(7)`, `timerfd_create(2)`.

use std::os::fd::{AsFd, BorrowedFd};
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use nix::sys::time::TimeSpec;
use nix::sys::timerfd::{ClockId, Expiration, TimerFd, TimerFlags, TimerSetTimeFlags};
use tapestry_core::SimTime;

use crate::sys;

/// Most events one wait returns; more wait for the next turn.
const EVENTS: usize = 64;
/// Token of the fallback timer; never given out to callers.
const TIMER: u64 = u64::MAX;

/// How long a wait may last.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Wait {
    /// Do not wait: only collect what is ready.
    Poll,
    /// At most this long.
    For(SimTime),
    /// Until something is ready.
    Forever,
}

/// Which kernel interface a worker waits and moves frames with; goes into the run's manifest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum WaitBackend {
    /// `epoll_pwait2`: nanosecond timeouts in the call itself.
    EpollPwait2,
    /// `epoll_wait` with a `timerfd` in the set (kernels before 5.11).
    EpollTimerfd,
    /// `epoll_pwait2` or its fallback to wait, `io_uring` to move the frames of TAPs.
    IoUring,
}

/// An edge-triggered epoll set with nanosecond timeouts.
pub(crate) struct Poller {
    epoll: Epoll,
    events: [EpollEvent; EVENTS],
    timer: Option<TimerFd>,
}

impl Poller {
    /// An empty set with the best backend this kernel has.
    pub(crate) fn new() -> nix::Result<Self> {
        let mut poller = Self {
            epoll: Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?,
            events: [EpollEvent::empty(); EVENTS],
            timer: None,
        };
        match poller.pwait2(Some(Duration::ZERO)) {
            Err(Errno::ENOSYS | Errno::EPERM) => poller.use_timerfd()?,
            outcome => drop(outcome?),
        }
        Ok(poller)
    }

    /// Switches to the backend for older kernels.
    fn use_timerfd(&mut self) -> nix::Result<()> {
        let timer = TimerFd::new(
            ClockId::CLOCK_MONOTONIC,
            TimerFlags::TFD_NONBLOCK | TimerFlags::TFD_CLOEXEC,
        )?;
        self.epoll.add(&timer, EpollEvent::new(EpollFlags::EPOLLIN, TIMER))?;
        self.timer = Some(timer);
        Ok(())
    }

    /// The backend in use.
    pub(crate) fn backend(&self) -> WaitBackend {
        if self.timer.is_some() { WaitBackend::EpollTimerfd } else { WaitBackend::EpollPwait2 }
    }

    /// Adds a descriptor; `token` (below `u64::MAX`) comes back with its events.
    ///
    /// Edges: one event now if it is readable, one each time it becomes readable or broken.
    pub(crate) fn add(&self, fd: BorrowedFd<'_>, token: u64) -> nix::Result<()> {
        self.epoll.add(fd, EpollEvent::new(EpollFlags::EPOLLIN | EpollFlags::EPOLLET, token))
    }

    /// Starts or ends edges for room to write; one comes at once if there is room.
    pub(crate) fn watch_room(
        &self,
        fd: BorrowedFd<'_>,
        token: u64,
        watch: bool,
    ) -> nix::Result<()> {
        let mut flags = EpollFlags::EPOLLIN | EpollFlags::EPOLLET;
        flags.set(EpollFlags::EPOLLOUT, watch);
        self.epoll.modify(fd, &mut EpollEvent::new(flags, token))
    }

    /// Waits; calls `ready(token, readable or broken, writable)` per event.
    ///
    /// A signal ends the wait early without an event.
    pub(crate) fn wait(
        &mut self,
        wait: Wait,
        mut ready: impl FnMut(u64, bool, bool),
    ) -> nix::Result<()> {
        let outcome = match wait {
            Wait::Poll => self.epoll.wait(&mut self.events, EpollTimeout::ZERO),
            Wait::For(time) if self.timer.is_none() => {
                self.pwait2(Some(Duration::from_nanos(time.as_nanos())))
            }
            Wait::For(time) => self.wait_with_timer(time),
            Wait::Forever => self.epoll.wait(&mut self.events, EpollTimeout::NONE),
        };
        let count = match outcome {
            Ok(count) => count,
            Err(Errno::EINTR) => 0,
            Err(errno) => return Err(errno),
        };
        let broken = EpollFlags::EPOLLERR | EpollFlags::EPOLLHUP;
        for event in &self.events[..count] {
            if event.data() != TIMER {
                let flags = event.events();
                ready(
                    event.data(),
                    flags.intersects(EpollFlags::EPOLLIN | broken),
                    flags.contains(EpollFlags::EPOLLOUT),
                );
            }
        }
        Ok(())
    }

    fn pwait2(&mut self, timeout: Option<Duration>) -> nix::Result<usize> {
        sys::epoll_pwait2(self.epoll.0.as_fd(), &mut self.events, timeout)
    }

    fn wait_with_timer(&mut self, time: SimTime) -> nix::Result<usize> {
        let Some(timer) = &self.timer else { return Ok(0) };
        // Zero would disarm the timer, so the shortest wait is one nanosecond.
        let spec = TimeSpec::from_duration(Duration::from_nanos(time.as_nanos().max(1)));
        timer.set(Expiration::OneShot(spec), TimerSetTimeFlags::empty())?;
        let outcome = self.epoll.wait(&mut self.events, EpollTimeout::NONE);
        timer.unset()?;
        outcome
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use nix::sys::eventfd::{EfdFlags, EventFd};

    fn waits_at_least(poller: &mut Poller) {
        let wait = SimTime::from_millis(3);
        let before = std::time::Instant::now();
        poller.wait(Wait::For(wait), |_, _, _| panic!("nothing is in the set")).unwrap();
        assert!(before.elapsed() >= Duration::from_nanos(wait.as_nanos()));
    }

    #[test]
    fn both_backends_wait_for_the_whole_time_and_wake_for_a_descriptor() {
        let mut fallback = Poller::new().unwrap();
        if fallback.timer.is_none() {
            fallback.use_timerfd().unwrap();
        }
        assert_eq!(fallback.backend(), WaitBackend::EpollTimerfd);
        for mut poller in [Poller::new().unwrap(), fallback] {
            waits_at_least(&mut poller);
            let event = EventFd::from_flags(EfdFlags::EFD_NONBLOCK).unwrap();
            poller.add(event.as_fd(), 7).unwrap();
            poller.wait(Wait::Poll, |_, readable, _| assert!(!readable)).unwrap();
            event.write(1).unwrap();
            let mut seen = Vec::new();
            poller.wait(Wait::Forever, |token, readable, _| seen.push((token, readable))).unwrap();
            assert_eq!(seen, [(7, true)]);
            // An edge is reported once.
            poller.wait(Wait::Poll, |_, _, _| panic!("no new edge")).unwrap();
        }
    }
}
