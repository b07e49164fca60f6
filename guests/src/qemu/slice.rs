//! How long a guest's threads run before others get their turn.
//!
//! Eight guests that are released together on two cores each need a millisecond or two to answer. By
//! default the scheduler lets one run for some 3 ms before the next, so they answer one after another;
//! with a short slice they advance side by side, and a guest that wakes up gets a core sooner.
//!
//! Assumes Linux 6.12 or later, which takes a wish; older kernels ignore it. Reference:
//! `sched_setattr(2)`; kernel `Documentation/scheduler/sched-eevdf.rst`.

#![allow(unsafe_code)]

use std::mem::size_of;

/// The shortest the kernel grants; a change of thread costs a few microseconds.
const SLICE_NS: u64 = 100_000;

/// Asks for short slices for the process and the threads it will make.
///
/// Only a wish: where it is refused the guest runs as well, and starts less evenly.
pub(super) fn shorten(pid: u32) {
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
        tracing::debug!(pid, error = %std::io::Error::last_os_error(), "no short slices");
    }
}
