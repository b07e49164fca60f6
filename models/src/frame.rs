//! Frames and the pool their buffers come from.
//!
//! Purpose: a frame is written once, where it enters, and then shared: a broadcast, a queue and a
//! capture hold the same buffer. When the last of them lets go, the pool writes the next frame
//! into it.
//!
//! Assumptions: a frame is never changed after it has been filled.

use std::collections::VecDeque;
use std::fmt;
use std::io;
use std::sync::Arc;

use thiserror::Error;

/// An Ethernet frame from destination address to payload, without frame check sequence.
///
/// Cloning shares the buffer.
#[derive(Clone, PartialEq, Eq)]
pub struct Frame(Arc<Buffer>);

#[derive(PartialEq, Eq)]
struct Buffer {
    data: Box<[u8]>,
    /// Bytes of `data` that are the frame.
    len: usize,
}

impl Frame {
    /// The bytes of the frame.
    pub fn bytes(&self) -> &[u8] {
        &self.0.data[..self.0.len]
    }

    /// Length in bytes.
    pub fn len(&self) -> usize {
        self.0.len
    }

    /// Whether the frame has no bytes at all.
    pub fn is_empty(&self) -> bool {
        self.0.len == 0
    }

    /// The destination address, unless the frame is too short to have a header.
    pub fn destination(&self) -> Option<[u8; 6]> {
        self.bytes().first_chunk().copied()
    }

    /// The source address, unless the frame is too short to have a header.
    pub fn source(&self) -> Option<[u8; 6]> {
        self.bytes().get(6..)?.first_chunk().copied()
    }
}

impl From<Vec<u8>> for Frame {
    /// A frame outside any pool.
    fn from(bytes: Vec<u8>) -> Self {
        let len = bytes.len();
        Self(Arc::new(Buffer { data: bytes.into_boxed_slice(), len }))
    }
}

impl fmt::Debug for Frame {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Frame({} bytes)", self.len())
    }
}

/// Buffers for frames, reused as soon as no frame refers to them.
///
/// The pool grows when its next few buffers are all in use, up to a bound; it never shrinks, and
/// allocates nothing once it is as large as the traffic needs.
#[derive(Debug)]
pub struct FramePool {
    /// Oldest first: the longer ago a buffer was filled, the likelier it is free.
    ring: VecDeque<Arc<Buffer>>,
    buffer_bytes: usize,
    max_frames: usize,
    /// Buffers that are not in the ring because somebody fills them.
    lent: usize,
}

/// A buffer that somebody fills who cannot be waited for, the kernel for example.
///
/// [`FramePool::lend`] gives it out; it belongs back to the same pool, by [`FramePool::filled`] or
/// [`FramePool::take_back`], and counts as one of the pool's buffers until then.
#[derive(Debug)]
pub struct LentBuffer(Arc<Buffer>);

impl LentBuffer {
    /// The space to fill. Its address stays the same until the buffer goes back.
    pub fn space(&mut self) -> &mut [u8] {
        // Nothing else refers to a lent buffer.
        Arc::get_mut(&mut self.0).map_or(&mut [], |buffer| &mut buffer.data)
    }
}

impl fmt::Debug for Buffer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Buffer({}/{} bytes)", self.len, self.data.len())
    }
}

/// Why no frame could be filled.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum FillError {
    /// All buffers are in use.
    #[error("the next of {max_frames} frame buffers are all in use; send queued frames first")]
    Exhausted {
        /// The most buffers the pool may have.
        max_frames: usize,
    },
    /// The frame does not fit a buffer.
    #[error("a frame of {len} bytes does not fit a buffer of {buffer_bytes} bytes")]
    TooLong {
        /// Bytes of the frame.
        len: usize,
        /// Bytes of a buffer.
        buffer_bytes: usize,
    },
    /// The source of the frame failed.
    #[error(transparent)]
    Io(#[from] io::Error),
}

impl FramePool {
    /// Buffers that are tried for reuse before the pool grows. A few, since one frame may be held
    /// for long (by a link with much delay) while the frames around it are free again.
    const PROBES: usize = 16;

    /// A pool of at most `max_frames` buffers of `buffer_bytes` each, made as they are needed.
    pub fn new(buffer_bytes: usize, max_frames: usize) -> Self {
        Self { ring: VecDeque::new(), buffer_bytes, max_frames, lent: 0 }
    }

    /// A buffer to be filled later.
    pub fn lend(&mut self) -> Result<LentBuffer, FillError> {
        let buffer = self.free_buffer()?;
        self.lent += 1;
        Ok(LentBuffer(buffer))
    }

    /// A frame of the first `len` bytes of a lent buffer; fails, keeping the buffer, if that is
    /// more than it has.
    pub fn filled(&mut self, lent: LentBuffer, len: usize) -> Result<Frame, FillError> {
        let mut buffer = lent.0;
        self.lent -= 1;
        match Arc::get_mut(&mut buffer) {
            Some(free) if len <= free.data.len() => {
                free.len = len;
                self.ring.push_back(Arc::clone(&buffer));
                Ok(Frame(buffer))
            }
            _ => {
                self.ring.push_front(buffer);
                Err(FillError::TooLong { len, buffer_bytes: self.buffer_bytes })
            }
        }
    }

    /// Takes back a lent buffer that nobody filled.
    pub fn take_back(&mut self, lent: LentBuffer) {
        self.lent -= 1;
        self.ring.push_front(lent.0);
    }

    /// Fills a frame in place: `read` writes into the buffer and returns how many bytes it wrote.
    ///
    /// If `read` fails, its error is returned and the buffer stays in the pool.
    pub fn fill(
        &mut self,
        read: impl FnOnce(&mut [u8]) -> io::Result<usize>,
    ) -> Result<Frame, FillError> {
        let mut buffer = self.free_buffer()?;
        let Some(free) = Arc::get_mut(&mut buffer) else {
            return Err(FillError::Exhausted { max_frames: self.max_frames });
        };
        let result = read(&mut free.data);
        let outcome = match result {
            Ok(len) if len <= free.data.len() => {
                free.len = len;
                Ok(Frame(Arc::clone(&buffer)))
            }
            Ok(len) => Err(FillError::TooLong { len, buffer_bytes: self.buffer_bytes }),
            Err(error) => Err(FillError::Io(error)),
        };
        if outcome.is_ok() {
            self.ring.push_back(buffer);
        } else {
            self.ring.push_front(buffer);
        }
        outcome
    }

    /// A frame with a copy of `bytes`.
    pub fn copy_from(&mut self, bytes: &[u8]) -> Result<Frame, FillError> {
        self.fill(|buffer| {
            if let Some(target) = buffer.get_mut(..bytes.len()) {
                target.copy_from_slice(bytes);
            }
            Ok(bytes.len())
        })
    }

    /// Number of buffers made so far.
    pub fn buffers(&self) -> usize {
        self.ring.len() + self.lent
    }

    /// Takes out of the ring a buffer that nothing refers to.
    fn free_buffer(&mut self) -> Result<Arc<Buffer>, FillError> {
        for _ in 0..Self::PROBES.min(self.ring.len()) {
            if let Some(mut buffer) = self.ring.pop_front() {
                if Arc::get_mut(&mut buffer).is_some() {
                    return Ok(buffer);
                }
                self.ring.push_back(buffer);
            }
        }
        if self.buffers() >= self.max_frames {
            return Err(FillError::Exhausted { max_frames: self.max_frames });
        }
        Ok(Arc::new(Buffer { data: vec![0; self.buffer_bytes].into_boxed_slice(), len: 0 }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buffers_are_reused_once_free() {
        let mut pool = FramePool::new(2048, 100);
        for byte in 0..50 {
            let frame = pool.copy_from(&[byte; 60]).unwrap();
            assert_eq!(frame.bytes(), [byte; 60]);
        }
        assert_eq!(pool.buffers(), 1);
        let held: Vec<Frame> = (0..10).map(|byte| pool.copy_from(&[byte; 60]).unwrap()).collect();
        assert_eq!(pool.buffers(), 10);
        for (byte, frame) in held.iter().enumerate() {
            assert_eq!(frame.bytes(), [byte as u8; 60]);
        }
    }

    #[test]
    fn a_frame_outlives_its_pool() {
        let mut pool = FramePool::new(64, 1);
        let frame = pool.copy_from(b"abc").unwrap();
        drop(pool);
        assert_eq!(frame.clone().bytes(), b"abc");
    }

    #[test]
    fn the_bound_holds_and_failures_keep_the_buffer() {
        let mut pool = FramePool::new(64, 2);
        let error = pool.fill(|_| Err(io::ErrorKind::WouldBlock.into())).unwrap_err();
        assert!(matches!(error, FillError::Io(e) if e.kind() == io::ErrorKind::WouldBlock));
        assert!(matches!(
            pool.copy_from(&[0; 65]),
            Err(FillError::TooLong { len: 65, buffer_bytes: 64 })
        ));
        assert_eq!(pool.buffers(), 1);
        let first = pool.copy_from(&[1]).unwrap();
        let _second = pool.copy_from(&[2]).unwrap();
        assert!(matches!(pool.copy_from(&[3]), Err(FillError::Exhausted { max_frames: 2 })));
        drop(first);
        assert_eq!(pool.copy_from(&[4]).unwrap().bytes(), [4]);
        assert_eq!(pool.buffers(), 2);
    }

    #[test]
    fn a_lent_buffer_counts_until_it_is_back_and_keeps_its_place() {
        let mut pool = FramePool::new(64, 2);
        let mut lent = pool.lend().unwrap();
        let place = lent.space().as_ptr();
        lent.space()[..3].copy_from_slice(b"abc");
        let unused = pool.lend().unwrap();
        assert_eq!(pool.buffers(), 2);
        assert!(matches!(pool.copy_from(&[1]), Err(FillError::Exhausted { max_frames: 2 })));
        pool.take_back(unused);
        let frame = pool.filled(lent, 3).unwrap();
        assert_eq!((frame.bytes(), frame.bytes().as_ptr()), (&b"abc"[..], place));
        assert_eq!(pool.copy_from(&[1]).unwrap().bytes(), [1]);
        let lent = pool.lend().unwrap();
        assert!(matches!(pool.filled(lent, 65), Err(FillError::TooLong { len: 65, .. })));
        assert_eq!(pool.buffers(), 2);
    }

    #[test]
    fn addresses_need_a_header() {
        let frame = Frame::from(vec![1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12]);
        assert_eq!(frame.destination(), Some([1, 2, 3, 4, 5, 6]));
        assert_eq!(frame.source(), Some([7, 8, 9, 10, 11, 12]));
        assert_eq!(Frame::from(vec![0; 11]).source(), None);
        assert_eq!(Frame::from(vec![0; 5]).destination(), None);
    }
}
