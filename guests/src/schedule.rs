//! What the scheduler of the host is asked for.
//!
//! Eight guests that are released together on two cores each need a millisecond or two to answer. By
//! default the scheduler lets one run for some 3 ms before the next, so they answer one after another;
//! with short slices a guest that wakes up gets a core sooner. And for the moment of a release the
//! threads that drive the consoles go before everything else: a start that is noticed late is
//! neither measured nor held in time.
//!
//! All of it is a wish: where it is refused everything works as well, and starts less evenly.
//!
//! Assumes Linux 6.12 or later for slices; older kernels ignore them. Reference: `sched_setattr(2)`,
//! `sched(7)`; kernel `Documentation/scheduler/sched-eevdf.rst`.

#![allow(unsafe_code)]

use std::io;
use std::mem::size_of;
use std::sync::{Mutex, PoisonError};

/// The shortest slice the kernel grants; a change of thread costs a few microseconds.
const SLICE_NS: u64 = 100_000;

/// `SCHED_FLAG_RESET_ON_FORK` of `linux/sched.h`.
const RESET_ON_FORK: u64 = 1;

/// Threads that drive consoles.
static CONTROL: Mutex<Vec<libc::pid_t>> = Mutex::new(Vec::new());

/// Asks for short slices for a process and the threads and processes it will make; 0 for the
/// calling thread.
pub(crate) fn shorten_slices(pid: u32) {
    let pid = pid.cast_signed();
    // Class and nice value stay what the user made them.
    let shortened = attributes(pid)
        .and_then(|was| set_attributes(pid, &libc::sched_attr { sched_runtime: SLICE_NS, ..was }));
    if let Err(error) = shortened {
        tracing::debug!(pid, %error, "no short slices");
    }
}

fn attributes(thread: libc::pid_t) -> io::Result<libc::sched_attr> {
    let size = size_of::<libc::sched_attr>();
    // SAFETY: all zeroes is a valid value of this structure of integers.
    let mut attributes: libc::sched_attr = unsafe { std::mem::zeroed() };
    // SAFETY: the kernel writes at most `size` bytes to a structure of that size.
    let outcome =
        unsafe { libc::syscall(libc::SYS_sched_getattr, thread, &raw mut attributes, size, 0) };
    if outcome == 0 { Ok(attributes) } else { Err(io::Error::last_os_error()) }
}

fn set_attributes(thread: libc::pid_t, attributes: &libc::sched_attr) -> io::Result<()> {
    // SAFETY: the kernel reads the structure, whose size it has filled in.
    let outcome = unsafe {
        libc::syscall(libc::SYS_sched_setattr, thread, std::ptr::from_ref(attributes), 0)
    };
    if outcome == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Says that the calling thread drives consoles, for as long as the process lives: each thread of the
/// tokio runtime that [`crate::shell`] and [`crate::task`] run in.
pub fn register_control_thread() {
    shorten_slices(0);
    // SAFETY: takes no arguments and cannot fail.
    let thread = unsafe { libc::gettid() };
    CONTROL.lock().unwrap_or_else(PoisonError::into_inner).push(thread);
}

/// While it lives, the registered threads go before all of the normal class (`SCHED_FIFO` 1); then
/// they are what they were.
#[derive(Debug)]
pub(crate) struct ControlFirst {
    raised: Vec<(libc::pid_t, libc::sched_attr)>,
}

impl ControlFirst {
    pub(crate) fn new() -> Self {
        let threads = CONTROL.lock().unwrap_or_else(PoisonError::into_inner);
        let raise = |&thread: &libc::pid_t| {
            let mut was = attributes(thread).ok()?;
            // What such a thread starts does not inherit the class. The flag stays: who may raise a
            // thread need not be allowed to take it back.
            was.sched_flags |= RESET_ON_FORK;
            let first = libc::sched_attr {
                sched_policy: libc::SCHED_FIFO.cast_unsigned(),
                sched_priority: 1,
                sched_nice: 0,
                ..was
            };
            set_attributes(thread, &first).ok().map(|()| (thread, was))
        };
        Self { raised: threads.iter().filter_map(raise).collect() }
    }
}

impl Drop for ControlFirst {
    fn drop(&mut self) {
        for (thread, was) in &self.raised {
            if let Err(error) = set_attributes(*thread, was) {
                tracing::warn!("thread {thread} stays in the real-time class: {error}");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_threads_are_afterwards_what_they_were() {
        register_control_thread();
        // SAFETY: takes no arguments and cannot fail.
        let thread = unsafe { libc::gettid() };
        let of = |thread| {
            let found = attributes(thread).expect("a thread's own attributes");
            (found.sched_policy, found.sched_priority, found.sched_runtime)
        };
        let before = of(thread);
        let first = ControlFirst::new();
        let was_raised = first.raised.iter().any(|(raised, _)| *raised == thread);
        let expected =
            if was_raised { (libc::SCHED_FIFO.cast_unsigned(), 1) } else { (before.0, before.1) };
        assert_eq!((of(thread).0, of(thread).1), expected);
        drop(first);
        assert_eq!(of(thread), before);
    }
}
