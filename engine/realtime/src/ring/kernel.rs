//! io_uring with an interface that cannot be used wrongly.
//!
//! Purpose: the memory that the kernel reads and writes on its own belongs to [`Uring`] until the
//! kernel has said that it is done with it: buffers it may fill stay in a table by their number,
//! frames it sends in another. Files are registered, so no request outlives its descriptor. All
//! unsafe code of the io_uring back end is here. Assumes Linux 6.7 (multishot reads). Reference:
//! `io_uring_enter(2)`, `io_uring_setup(2)`, `io_uring_register_buf_ring(3)`.
#![allow(unsafe_code)]

use std::alloc::{Layout, alloc_zeroed, dealloc, handle_alloc_error};
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU16, Ordering};

use io_uring::types::{BufRingEntry, CancelBuilder, Fixed};
use io_uring::{IoUring, cqueue, opcode, squeue};
use nix::errno::Errno;
use tapestry_models::{Frame, LentBuffer};

/// Requests that one call hands to the kernel at most, and most writes under way.
pub(super) const REQUESTS: u32 = 256;
/// `IORING_ENTER_GETEVENTS` of `io_uring_enter(2)`: run what is due and collect completions.
const GET_EVENTS: u32 = 1;
/// Buffer rings begin at a page, by `io_uring_register_buf_ring(3)`.
const PAGE_BYTES: usize = 4096;

/// One ring with registered files, and a group of buffers for each.
pub(super) struct Uring {
    queues: IoUring,
    /// By file.
    groups: Vec<Group>,
    /// Frames under way to the kernel, by slot.
    writes: Vec<Option<Frame>>,
    free: Vec<u32>,
}

/// What the kernel did.
pub(super) enum Completion {
    /// A frame was read from a file.
    Read { file: usize, buffer: u16, filled: LentBuffer, bytes: usize },
    /// No more frames are read until [`Uring::read`]; without an error, the buffers were used up.
    ReadEnded { file: usize, error: Option<Errno> },
    /// A frame was written, or not.
    Written { file: usize, frame: Frame, outcome: Result<(), Errno> },
}

/// The kind of a request stands in the upper byte of what its completion carries, then the file.
const READ: u64 = 1;
const WRITE: u64 = 2;

fn tag(kind: u64, file: usize, slot: u32) -> u64 {
    kind << 56 | (file as u64 & 0xff_ffff) << 32 | u64::from(slot)
}

impl Uring {
    /// A ring for these files, each of which is read into a group of `depth` buffers (a power of
    /// two). It does nothing until [`Self::enable`].
    pub(super) fn new(files: &[BorrowedFd<'_>], depth: u16) -> io::Result<Self> {
        let completions = files.len() as u32 * u32::from(depth) + 2 * REQUESTS;
        let uring = IoUring::builder()
            .setup_r_disabled()
            .setup_single_issuer()
            .setup_defer_taskrun()
            .setup_taskrun_flag()
            .setup_submit_all()
            .setup_clamp()
            .setup_cqsize(completions.next_power_of_two())
            .build(REQUESTS)?;
        let mut probe = io_uring::Probe::new();
        uring.submitter().register_probe(&mut probe)?;
        let needed = [opcode::ReadMulti::CODE, opcode::Write::CODE];
        if !needed.iter().all(|&code| probe.is_supported(code)) {
            return Err(io::Error::from(Errno::EOPNOTSUPP));
        }
        let descriptors: Vec<_> = files.iter().map(AsRawFd::as_raw_fd).collect();
        uring.submitter().register_files(&descriptors)?;
        let mut ring = Self {
            queues: uring,
            groups: Vec::with_capacity(files.len()),
            writes: (0..REQUESTS).map(|_| None).collect(),
            free: (0..REQUESTS).collect(),
        };
        for file in 0..files.len() {
            let group = Group::new(depth);
            let address = group.entries.as_ptr() as u64;
            let submitter = ring.queues.submitter();
            // SAFETY: the memory holds `depth` entries, starts at a page and is freed only after
            // the ring has been told to forget it (see `Drop`).
            unsafe { submitter.register_buf_ring_with_flags(address, depth, file as u16, 0)? };
            ring.groups.push(group);
        }
        Ok(ring)
    }

    /// Starts; from now on only the calling thread may use the ring.
    pub(super) fn enable(&self) -> io::Result<()> {
        self.queues.submitter().register_enable_rings()
    }

    /// Gives the kernel a buffer, under a number of the file's group that is not in use.
    pub(super) fn provide(&mut self, file: usize, number: u16, buffer: LentBuffer) {
        if let Some(group) = self.groups.get_mut(file) {
            group.provide(number, buffer);
        }
    }

    /// Has frames of a file read into its buffers, as they come, until these are used up.
    pub(super) fn read(&mut self, file: usize) -> io::Result<()> {
        // io-uring 0.7.15 loses the flag when it builds this one, and would read another file.
        let read = opcode::ReadMulti::new(Fixed(file as u32), 0, file as u16)
            .build()
            .flags(squeue::Flags::FIXED_FILE);
        self.push(&read.user_data(tag(READ, file, 0)))
    }

    /// Has a frame written with the next [`Self::enter`]; gives it back if too many are under way.
    pub(super) fn write(&mut self, file: usize, frame: Frame) -> Result<(), Frame> {
        let Some(slot) = self.free.pop() else { return Err(frame) };
        let bytes = frame.bytes();
        // Never deferred: a frame that finds no room is a loss to be counted, and a frame that
        // waited would be overtaken.
        let write = opcode::Write::new(Fixed(file as u32), bytes.as_ptr(), bytes.len() as u32)
            .rw_flags(libc::RWF_NOWAIT)
            .build()
            .user_data(tag(WRITE, file, slot));
        if self.push(&write).is_err() {
            self.free.push(slot);
            return Err(frame);
        }
        self.writes[slot as usize] = Some(frame);
        Ok(())
    }

    /// Requests that wait for [`Self::enter`].
    pub(super) fn queued(&mut self) -> usize {
        self.queues.submission().len()
    }

    /// Hands over what is queued and has the kernel do what is due, without waiting.
    pub(super) fn enter(&mut self) -> nix::Result<()> {
        let submission = self.queues.submission();
        let queued = submission.len() as u32;
        let idle = queued == 0 && !submission.taskrun() && !submission.cq_overflow();
        drop(submission);
        if idle {
            return Ok(());
        }
        match self.submit(queued) {
            Ok(_) => Ok(()),
            Err(error) => match error.raw_os_error().map_or(Errno::EIO, Errno::from_raw) {
                // A signal; completions must be collected first; no memory just now.
                Errno::EINTR | Errno::EBUSY | Errno::EAGAIN => Ok(()),
                errno => Err(errno),
            },
        }
    }

    /// Appends what was completed since the last call.
    pub(super) fn completions(&mut self, out: &mut Vec<Completion>) {
        let Self { queues, groups, writes, free } = self;
        for entry in queues.completion() {
            let data = entry.user_data();
            let (kind, file) = (data >> 56, (data >> 32 & 0xff_ffff) as usize);
            let result = entry.result();
            match kind {
                READ => {
                    let number = cqueue::buffer_select(entry.flags());
                    let group = groups.get_mut(file);
                    let taken = number.zip(group).and_then(|(number, group)| {
                        Some((number, group.lent.get_mut(usize::from(number))?.take()?))
                    });
                    if let Some((buffer, filled)) = taken {
                        let bytes = usize::try_from(result).unwrap_or(0);
                        out.push(Completion::Read { file, buffer, filled, bytes });
                    }
                    if !cqueue::more(entry.flags()) {
                        let error = match -result {
                            libc::ENOBUFS | libc::EAGAIN | libc::EINTR => None,
                            error if error > 0 => Some(Errno::from_raw(error)),
                            // End of file, which a TAP does not have.
                            0 => Some(Errno::ENODEV),
                            _ => None,
                        };
                        out.push(Completion::ReadEnded { file, error });
                    }
                }
                WRITE => {
                    let slot = data as u32;
                    if let Some(frame) = writes.get_mut(slot as usize).and_then(Option::take) {
                        free.push(slot);
                        let outcome =
                            if result < 0 { Err(Errno::from_raw(-result)) } else { Ok(()) };
                        out.push(Completion::Written { file, frame, outcome });
                    }
                }
                _ => {}
            }
        }
    }

    /// Ends all requests; their completions can be collected afterwards.
    pub(super) fn cancel(&mut self) -> io::Result<()> {
        match self.queues.submitter().register_sync_cancel(None, CancelBuilder::any()) {
            Err(error) if error.raw_os_error() != Some(libc::ENOENT) => Err(error),
            _ => Ok(()),
        }
    }

    /// Puts a request into the queue, handing over the queue first if it is full.
    fn push(&mut self, request: &squeue::Entry) -> io::Result<()> {
        let full = self.queues.submission().is_full();
        if full {
            let queued = self.queues.submission().len() as u32;
            self.submit(queued)?;
        }
        // SAFETY: files are registered; a write's bytes stay in `writes`, and a read's buffers in
        // its group, until their completion has been seen.
        let pushed = unsafe { self.queues.submission().push(request) };
        pushed.map_err(|_| io::Error::from(Errno::EBUSY))
    }

    /// Hands `queued` requests over and runs what is due, without waiting.
    fn submit(&self, queued: u32) -> io::Result<usize> {
        // SAFETY: without an argument there is nothing the kernel could read.
        unsafe { self.queues.submitter().enter::<libc::sigset_t>(queued, 0, GET_EVENTS, None) }
    }
}

impl Drop for Uring {
    fn drop(&mut self) {
        let cancelled = self.cancel().is_ok();
        let forgotten = (0..self.groups.len())
            .all(|file| self.queues.submitter().unregister_buf_ring(file as u16).is_ok());
        // So that the files do not wait for the kernel to take the ring apart.
        let _ = self.queues.submitter().unregister_files();
        if !(cancelled && forgotten) {
            // The kernel might still write there; better lost than overwritten.
            std::mem::forget(std::mem::take(&mut self.groups));
            std::mem::forget(std::mem::take(&mut self.writes));
        }
    }
}

/// Buffers the kernel chooses from when it reads a file.
struct Group {
    entries: NonNull<BufRingEntry>,
    depth: u16,
    tail: u16,
    /// Buffers the kernel has, by number.
    lent: Vec<Option<LentBuffer>>,
}

// SAFETY: the memory behind `entries` belongs to the group alone, like that of a `Box`.
unsafe impl Send for Group {}

impl Group {
    fn new(depth: u16) -> Self {
        // SAFETY: the layout is not empty.
        let memory = unsafe { alloc_zeroed(Self::layout(depth)) };
        let Some(entries) = NonNull::new(memory.cast()) else {
            handle_alloc_error(Self::layout(depth))
        };
        Self { entries, depth, tail: 0, lent: (0..depth).map(|_| None).collect() }
    }

    fn layout(depth: u16) -> Layout {
        let bytes = usize::from(depth.max(1)) * size_of::<BufRingEntry>();
        Layout::from_size_align(bytes, PAGE_BYTES).expect("a few entries fit the address space")
    }

    fn provide(&mut self, number: u16, mut buffer: LentBuffer) {
        let Some(place @ None) = self.lent.get_mut(usize::from(number)) else { return };
        let space = buffer.space();
        let (address, bytes) = (space.as_mut_ptr() as u64, space.len() as u32);
        *place = Some(buffer);
        let index = usize::from(self.tail & (self.depth - 1));
        // SAFETY: `index` is below `depth`, and the kernel does not look at entries from the tail
        // on. There is a place for each number, so an entry is overwritten only after its buffer
        // has come back.
        unsafe {
            let entry = self.entries.add(index).as_mut();
            entry.set_addr(address);
            entry.set_len(bytes);
            entry.set_bid(number);
        }
        self.tail = self.tail.wrapping_add(1);
        // SAFETY: the first entry is valid memory; its reserved field is the ring's tail, aligned
        // for 16 bits, which the kernel only reads.
        let tail =
            unsafe { AtomicU16::from_ptr(BufRingEntry::tail(self.entries.as_ptr()).cast_mut()) };
        tail.store(self.tail, Ordering::Release);
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        // SAFETY: allocated in `new` with this layout.
        unsafe { dealloc(self.entries.as_ptr().cast(), Self::layout(self.depth)) }
    }
}
