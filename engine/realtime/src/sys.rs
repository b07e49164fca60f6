//! The system calls that `nix` has no safe wrapper for.
//!
//! Purpose: waiting with nanosecond precision (`epoll_pwait2`), the two TAP queries that keep
//! working after an interface was renamed or moved (`TUNGETIFF`, `TUNGETDEVNETNS`), the real-time
//! scheduling class, and huge pages; and cache lines fetched ahead. Everything else in this crate but io_uring is safe code.
//! Reference: `epoll_wait(2)`, `sched_setscheduler(2)`, `madvise(2)`,
//! `include/uapi/linux/if_tun.h`.
#![allow(unsafe_code)]

use std::ffi::CStr;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, IntoRawFd, OwnedFd};
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::epoll::EpollEvent;

/// Waits for events on `epoll`, at most `timeout` (`None`: until one arrives).
///
/// Returns how many entries of `events` were filled; 0 means the time is over. Fails with
/// `ENOSYS` on kernels before 5.11.
pub(crate) fn epoll_pwait2(
    epoll: BorrowedFd<'_>,
    events: &mut [EpollEvent],
    timeout: Option<Duration>,
) -> nix::Result<usize> {
    let spec = timeout.map(|t| KernelTimespec {
        seconds: i64::try_from(t.as_secs()).unwrap_or(i64::MAX),
        nanoseconds: i64::from(t.subsec_nanos()),
    });
    let spec_ptr = spec.as_ref().map_or(std::ptr::null(), std::ptr::from_ref);
    let capacity = libc::c_int::try_from(events.len()).unwrap_or(libc::c_int::MAX);
    // SAFETY: `events` is writable for `capacity` entries of `epoll_event` (`EpollEvent` is
    // `repr(transparent)` over it); `spec_ptr` is null or points at `spec`, which outlives the
    // call; a null signal mask is allowed and its size is then ignored.
    let filled = unsafe {
        libc::syscall(
            libc::SYS_epoll_pwait2,
            epoll.as_raw_fd(),
            events.as_mut_ptr(),
            capacity,
            spec_ptr,
            std::ptr::null::<libc::sigset_t>(),
            0_usize,
        )
    };
    Errno::result(filled).map(|n| n as usize)
}

/// `struct __kernel_timespec`, 64 bits wide on every architecture.
#[repr(C)]
struct KernelTimespec {
    seconds: i64,
    nanoseconds: i64,
}

/// Switches the carrier of the interface behind a TAP descriptor (Linux 5.0).
pub(crate) fn set_tap_carrier(tap: BorrowedFd<'_>, up: bool) -> nix::Result<()> {
    mod request {
        nix::ioctl_write_ptr!(tun_set_carrier, b'T', 226, libc::c_int);
    }
    // SAFETY: `TUNSETCARRIER` reads one `int`, which outlives the call.
    unsafe { request::tun_set_carrier(tap.as_raw_fd(), &libc::c_int::from(up)).map(drop) }
}

/// The present name of the interface behind a TAP descriptor.
pub(crate) fn tap_name(tap: BorrowedFd<'_>) -> nix::Result<String> {
    mod request {
        nix::ioctl_read!(tun_get_iff, b'T', 210, libc::c_uint);
    }
    // SAFETY: `ifreq` is plain data; all zeroes is a valid value.
    let mut answer: libc::ifreq = unsafe { std::mem::zeroed() };
    // SAFETY: `TUNGETIFF` writes a whole `struct ifreq` (its request number names an `unsigned
    // int` by historical accident), and `answer` is one.
    unsafe { request::tun_get_iff(tap.as_raw_fd(), std::ptr::from_mut(&mut answer).cast())? };
    answer.ifr_name[libc::IFNAMSIZ - 1] = 0;
    // SAFETY: the line above made sure that the array ends with a zero byte.
    let name = unsafe { CStr::from_ptr(answer.ifr_name.as_ptr()) };
    Ok(name.to_string_lossy().into_owned())
}

/// The network namespace that the interface behind a TAP descriptor is in.
pub(crate) fn tap_namespace(tap: BorrowedFd<'_>) -> nix::Result<OwnedFd> {
    mod request {
        nix::ioctl_none!(tun_get_dev_netns, b'T', 227);
    }
    // SAFETY: the request takes no argument and returns a new descriptor or an error.
    let fd = unsafe { request::tun_get_dev_netns(tap.as_raw_fd())? };
    // SAFETY: the kernel just made `fd` for us; nobody else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Puts the calling thread into the `SCHED_FIFO` class at `priority` (1–99).
pub(crate) fn set_fifo_priority(priority: u8) -> nix::Result<()> {
    // SAFETY: `sched_param` is plain data; all zeroes is a valid value.
    let mut parameters: libc::sched_param = unsafe { std::mem::zeroed() };
    parameters.sched_priority = libc::c_int::from(priority);
    // SAFETY: thread id 0 is the calling thread; `parameters` outlives the call.
    let outcome = unsafe { libc::sched_setscheduler(0, libc::SCHED_FIFO, &raw const parameters) };
    Errno::result(outcome).map(drop)
}

/// Takes over the descriptor of a value from a crate that predates I/O safety.
pub(crate) fn own(value: impl IntoRawFd) -> OwnedFd {
    // SAFETY: `into_raw_fd` hands over the ownership of an open descriptor, by its contract.
    unsafe { OwnedFd::from_raw_fd(value.into_raw_fd()) }
}

/// Has the kernel put pages together that are in use (Linux 6.1); it is only a wish.
pub(crate) fn use_huge_pages(memory: &mut [u8]) {
    /// `MADV_COLLAPSE`, which `libc` does not have.
    const COLLAPSE: libc::c_int = 25;
    // SAFETY: the range is ours alone, and the advice does not change its bytes. Refused for
    // addresses that are not aligned, and where the kernel does not know it.
    let _ = unsafe { libc::madvise(memory.as_mut_ptr().cast(), memory.len(), COLLAPSE) };
}

/// Has the processor fetch the cache lines of what is soon written; it is only a wish.
pub(crate) fn fetch_to_write(memory: &[u8]) {
    #[cfg(target_arch = "x86_64")]
    for line in memory.chunks(64) {
        use std::arch::x86_64::{_MM_HINT_ET0, _mm_prefetch};
        // SAFETY: fetching ahead has no effect but time, whatever the address.
        unsafe { _mm_prefetch::<_MM_HINT_ET0>(line.as_ptr().cast()) };
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = memory;
}
