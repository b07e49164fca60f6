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

/// Threads that drive consoles.
static CONTROL: Mutex<Vec<libc::pid_t>> = Mutex::new(Vec::new());

/// Asks for short slices for a process and the threads and processes it will make; 0 for the
/// calling thread.
pub(crate) fn shorten_slices(pid: u32) {
    let size = size_of::<libc::sched_attr>();
    // SAFETY: all zeroes is a valid value of this structure of integers.
    let mut attributes: libc::sched_attr = unsafe { std::mem::zeroed() };
    // SAFETY: the kernel writes at most `size` bytes to a structure of that size.
    let known =
        unsafe { libc::syscall(libc::SYS_sched_getattr, pid, &raw mut attributes, size, 0) };
    // Class and nice value stay what the user made them.
    attributes.sched_runtime = SLICE_NS;
    // SAFETY: the kernel reads the structure, whose size it has filled in.
    if known != 0
        || unsafe { libc::syscall(libc::SYS_sched_setattr, pid, &raw const attributes, 0) } != 0
    {
        tracing::debug!(pid, error = %io::Error::last_os_error(), "no short slices");
    }
}

/// Says that the calling thread drives consoles, for as long as the process lives: each thread of the
/// tokio runtime that [`crate::shell`] and [`crate::task`] run in.
pub fn register_control_thread() {
    shorten_slices(0);
    // SAFETY: takes no arguments and cannot fail.
    let thread = unsafe { libc::gettid() };
    CONTROL.lock().unwrap_or_else(PoisonError::into_inner).push(thread);
}

/// While it lives, the registered threads go before all of the normal class (`SCHED_FIFO` 1).
#[derive(Debug)]
pub(crate) struct ControlFirst {
    raised: Vec<libc::pid_t>,
}

impl ControlFirst {
    pub(crate) fn new() -> Self {
        let threads = CONTROL.lock().unwrap_or_else(PoisonError::into_inner);
        // What such a thread starts meanwhile does not inherit the class.
        let class = libc::SCHED_FIFO | libc::SCHED_RESET_ON_FORK;
        let raised = threads.iter().copied().filter(|&thread| set_class(thread, class, 1));
        Self { raised: raised.collect() }
    }
}

impl Drop for ControlFirst {
    fn drop(&mut self) {
        for &thread in &self.raised {
            set_class(thread, libc::SCHED_OTHER, 0);
        }
    }
}

fn set_class(thread: libc::pid_t, class: i32, priority: i32) -> bool {
    let parameters = libc::sched_param { sched_priority: priority };
    // SAFETY: the kernel reads one integer from the structure.
    unsafe { libc::sched_setscheduler(thread, class, &raw const parameters) == 0 }
}
