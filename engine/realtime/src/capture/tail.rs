//! The end of a file that is not on the disk yet.
//!
//! Purpose: collects blocks in aligned memory and writes them in aligned pieces, so that the file
//! consists of whole blocks at any time, whenever its writer is killed. What does not fill the last
//! block of the disk is written with a filling, kept, and written again with what follows it.

use std::io;

use super::encode::{self, Kept, LEAST_FILLING};
use super::store::{BLOCK_BYTES, Store, Way};
use crate::sys;

/// Memory of all captures' pieces together, unless they are very many.
const ALL_BYTES: usize = 64 << 20;
/// The size of a piece: from 256 KiB on, what the kernel does for each becomes small beside what it
/// does for each page; a huge page is a page.
const PIECE_BYTES: std::ops::RangeInclusive<usize> = 256 << 10..=HUGE_PAGE_BYTES;
const HUGE_PAGE_BYTES: usize = 2 << 20;

/// Blocks at the end of a file. The first byte's offset is a multiple of [`BLOCK_BYTES`].
pub(super) struct Tail {
    /// Untouched memory costs nothing: a capture that is idle never fills a piece.
    memory: Vec<u8>,
    /// Where in `memory` the piece begins, so that it is aligned.
    start: usize,
    piece_bytes: usize,
    /// Place in the file.
    offset: u64,
    len: usize,
    /// How many of the bytes are in the file already.
    written: usize,
    /// Whether a piece was filled: then it is worth a huge page.
    busy: bool,
}

impl Tail {
    /// The tail of one of this many captures.
    pub(super) fn new(captures: usize) -> Self {
        let share = (ALL_BYTES / captures.max(1)).clamp(*PIECE_BYTES.start(), *PIECE_BYTES.end());
        Self::with_piece(share / BLOCK_BYTES * BLOCK_BYTES)
    }

    fn with_piece(piece_bytes: usize) -> Self {
        let memory = vec![0; piece_bytes + 2 * BLOCK_BYTES + HUGE_PAGE_BYTES];
        // Never more than the alignment, which is why there is as much memory besides.
        let start = memory.as_ptr().align_offset(HUGE_PAGE_BYTES).min(HUGE_PAGE_BYTES);
        Self { memory, start, piece_bytes, offset: 0, len: 0, written: 0, busy: false }
    }

    /// Begins a file.
    pub(super) fn restart(&mut self) {
        (self.offset, self.len, self.written) = (0, 0, 0);
    }

    /// Bytes of whole blocks in the file and here.
    pub(super) fn file_bytes(&self) -> u64 {
        self.offset + self.len as u64
    }

    /// Bytes of whole blocks in the file.
    pub(super) fn written_bytes(&self) -> u64 {
        self.offset + self.written as u64
    }

    /// Whether so many bytes more are too many for this piece, which must be written then.
    pub(super) fn is_full(&self, bytes: usize) -> bool {
        self.len + bytes > self.piece_bytes
    }

    /// Space for so many bytes, which are a block or several.
    pub(super) fn append(&mut self, bytes: usize) -> &mut [u8] {
        if self.is_full(bytes) {
            self.grow(bytes);
        }
        let at = self.start + self.len;
        self.len += bytes;
        &mut self.memory[at..at + bytes]
    }

    /// A single block longer than a piece; no interface has such frames, but nothing forbids them.
    fn grow(&mut self, bytes: usize) {
        let piece = (self.len + bytes).next_multiple_of(BLOCK_BYTES);
        let mut larger = Self { offset: self.offset, ..Self::with_piece(piece) };
        let kept = self.start..self.start + self.len;
        larger.memory[larger.start..larger.start + self.len].copy_from_slice(&self.memory[kept]);
        (larger.len, larger.written) = (self.len, self.written);
        *self = larger;
    }

    /// Brings everything into the file; `unix_ns` is a time for what fills its last block. After an
    /// error [`Self::written_bytes`] are in the file, with anything behind them.
    pub(super) fn write(
        &mut self,
        to: &mut dyn Store,
        unix_ns: u64,
        behind: bool,
    ) -> Result<(), Incomplete> {
        if self.len == self.written {
            return Ok(());
        }
        let full = self.len.next_multiple_of(BLOCK_BYTES);
        let gap = match full - self.len {
            0 => 0,
            // A gap that is too short takes a block of the disk more.
            short if short < LEAST_FILLING => short + BLOCK_BYTES,
            enough => enough,
        };
        if gap > 0 {
            let at = self.start + self.len;
            encode::fill(&mut self.memory[at..at + gap], unix_ns);
        }
        if !self.busy && self.len * 2 > self.piece_bytes {
            self.busy = true;
            let piece = self.start..self.start + self.piece_bytes;
            sys::use_huge_pages(&mut self.memory[piece]);
        }
        let small = self.len < *PIECE_BYTES.start() / 2;
        let way = if behind || small { Way::Cached } else { Way::Direct };
        let piece = &self.memory[self.start..self.start + self.len + gap];
        if let Err(error) = to.write_at(piece, self.offset, way) {
            return Err(self.save(to, error));
        }
        let whole = self.len / BLOCK_BYTES * BLOCK_BYTES;
        let kept = self.start + whole..self.start + self.len;
        self.memory.copy_within(kept, self.start);
        self.offset += whole as u64;
        self.len -= whole;
        self.written = self.len;
        Ok(())
    }

    /// After a piece was refused, writes as much of it as the disk takes.
    fn save(&mut self, to: &mut dyn Store, error: io::Error) -> Incomplete {
        let piece = &self.memory[self.start..self.start + self.len];
        let mut taken = 0;
        for step in piece.chunks(BLOCK_BYTES) {
            if to.write_at(step, self.offset + taken as u64, Way::Cached).is_err() {
                break;
            }
            taken += step.len();
        }
        let new = &piece[self.written..taken.max(self.written)];
        let mut saved = Vec::new();
        let mut whole = 0;
        for (end, frame) in encode::whole_blocks(new) {
            whole = end;
            saved.extend(frame);
        }
        self.written += whole;
        Incomplete { error, saved }
    }
}

/// A piece that did not come into the file as a whole.
#[derive(Debug)]
pub(super) struct Incomplete {
    pub(super) error: io::Error,
    /// The frames that did.
    pub(super) saved: Vec<Kept>,
}
