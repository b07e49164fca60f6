//! Blocks on their way from a worker to the writer.
//!
//! Purpose: a worker encodes what it sees of a frame while the frame is in its cache, into the *piece*
//! that the capture is filling; a piece that is full goes to the writer as it is, who hands its pages
//! to the disk and puts it back into stock. So the two meet once in a piece, not for every frame, and
//! no frame waits for the writer. Where stock is out, frames are skipped.
//!
//! Assumptions: one worker fills a capture's pieces, since a link has one worker.

use std::collections::VecDeque;
use std::fmt;
use std::ops::{Deref, DerefMut};

use parking_lot::Mutex;

use super::encode::{self, Packet};
use super::recorder::{Form, Record};
use super::store::BLOCK_BYTES;
use crate::sys;

/// Memory of all captures' pieces together, unless there are very many: at 70,000 whole frames a
/// second and interface, a writer may be without a core or a disk for 0.3 s.
pub(super) const ALL_BYTES: usize = 64 << 20;
/// The size of a piece: from 256 KiB on, what the kernel does for each becomes small beside what it
/// does for each page; a huge page is a page.
const PIECE_BYTES: std::ops::RangeInclusive<usize> = LEAST_BYTES..=HUGE_PAGE_BYTES;
const LEAST_BYTES: usize = 256 << 10;
const HUGE_PAGE_BYTES: usize = 2 << 20;
/// From here on a piece is worth a way past the page cache.
pub(super) const LARGE_BYTES: usize = LEAST_BYTES / 2;

/// Bytes of each of this many captures' pieces, a multiple of [`BLOCK_BYTES`], if all of them may
/// take `all_bytes`.
pub(super) fn piece_bytes(captures: usize, all_bytes: usize) -> usize {
    let share = (all_bytes / captures.max(1)).clamp(*PIECE_BYTES.start(), *PIECE_BYTES.end());
    share / BLOCK_BYTES * BLOCK_BYTES
}

/// Zeroed memory for blocks that begins where a huge page does. Untouched it costs nothing.
pub(super) struct Aligned {
    memory: Vec<u8>,
    start: usize,
    /// Bytes of blocks it takes.
    room: usize,
    /// Whether it was more than half full once: then it is worth huge pages.
    busy: bool,
}

/// What fills the last block of the disk comes behind the room.
const BEHIND_BYTES: usize = 2 * BLOCK_BYTES;

impl Aligned {
    pub(super) fn new(room: usize) -> Self {
        let memory = vec![0; room + BEHIND_BYTES + HUGE_PAGE_BYTES];
        // Never more than the alignment, which is why there is as much memory besides.
        let start = memory.as_ptr().align_offset(HUGE_PAGE_BYTES).min(HUGE_PAGE_BYTES);
        Self { memory, start, room, busy: false }
    }

    pub(super) fn room(&self) -> usize {
        self.room
    }

    /// The first so many bytes, which are whole blocks, and a block from `unix_ns` that fills the
    /// last block of the disk: a multiple of [`BLOCK_BYTES`].
    pub(super) fn sealed(&mut self, len: usize, unix_ns: u64) -> &[u8] {
        let room = self.room;
        if !self.busy && len * 2 > room {
            self.busy = true;
            sys::use_huge_pages(&mut self[..room]);
        }
        let gap = encode::gap(len, BLOCK_BYTES);
        if gap > 0 {
            encode::fill(&mut self[len..len + gap], unix_ns);
        }
        &self[..len + gap]
    }
}

impl Deref for Aligned {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.memory[self.start..self.start + self.room + BEHIND_BYTES]
    }
}

impl DerefMut for Aligned {
    fn deref_mut(&mut self) -> &mut [u8] {
        &mut self.memory[self.start..self.start + self.room + BEHIND_BYTES]
    }
}

impl fmt::Debug for Aligned {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Aligned({} bytes)", self.room)
    }
}

/// Whole blocks of one capture.
#[derive(Debug)]
pub(super) struct Piece {
    memory: Aligned,
    len: usize,
    /// Frames by their interface's number.
    frames: Vec<u64>,
    frame_bytes: u64,
    /// Of the last frame.
    unix_ns: u64,
}

impl Piece {
    pub(super) fn new(room: usize) -> Self {
        let memory = Aligned::new(room);
        Self { memory, len: 0, frames: Vec::new(), frame_bytes: 0, unix_ns: 0 }
    }

    /// Adds a frame's block; false if there is no room.
    fn append(&mut self, packet: &Packet<'_>) -> bool {
        let bytes = packet.block_bytes();
        let room = self.memory.room();
        if self.len + bytes > room {
            return false;
        }
        packet.write(&mut self.memory[self.len..self.len + bytes]);
        self.len += bytes;
        // The memory has left the cache since it was used last. A frame's two ends mostly come one
        // right behind the other, so this is for the one after the next.
        let next = (self.len + bytes).min(room)..(self.len + 2 * bytes).min(room);
        sys::fetch_to_write(&self.memory[next]);
        let number = packet.interface as usize;
        if self.frames.len() <= number {
            self.frames.resize(number + 1, 0);
        }
        self.frames[number] += 1;
        self.frame_bytes += packet.data.len() as u64;
        self.unix_ns = packet.unix_ns;
        true
    }

    /// The blocks.
    pub(super) fn blocks(&self) -> &[u8] {
        &self.memory[..self.len]
    }

    /// The blocks and one that fills the last block of the disk: a multiple of [`BLOCK_BYTES`].
    pub(super) fn sealed(&mut self) -> &[u8] {
        self.memory.sealed(self.len, self.unix_ns)
    }

    /// Frames by their interface's number; those behind the last have none.
    pub(super) fn frames(&self) -> &[u64] {
        &self.frames
    }

    /// Bytes of frames that were kept.
    pub(super) fn frame_bytes(&self) -> u64 {
        self.frame_bytes
    }

    /// The time of the last frame, in nanoseconds since the Unix epoch.
    pub(super) fn unix_ns(&self) -> u64 {
        self.unix_ns
    }

    fn clear(&mut self) {
        self.frames.clear();
        (self.len, self.frame_bytes) = (0, 0);
    }
}

/// The pieces of one capture that its worker fills and its writer has not taken.
#[derive(Debug)]
pub(super) struct Pieces {
    form: Form,
    queued: Mutex<Queued>,
}

#[derive(Debug)]
struct Queued {
    filling: Piece,
    /// Oldest first.
    full: VecDeque<Piece>,
}

/// What came of a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Added {
    /// It is in the piece.
    Here,
    /// It is in the next piece: one is full.
    Next,
    /// Every piece is full.
    Nowhere,
}

impl Pieces {
    pub(super) fn new(form: Form, stock: &Stock) -> Self {
        let filling = Piece::new(stock.piece_bytes);
        Self { form, queued: Mutex::new(Queued { filling, full: VecDeque::new() }) }
    }

    /// Adds a frame at the interface with this number.
    pub(super) fn add(&self, number: u32, record: &Record<'_>, stock: &Stock) -> Added {
        let packet = self.form.packet(number, record);
        let mut queued = self.queued.lock();
        if queued.filling.append(&packet) {
            return Added::Here;
        }
        let Some(empty) = stock.take() else { return Added::Nowhere };
        let full = std::mem::replace(&mut queued.filling, empty);
        queued.full.push_back(full);
        // No interface has frames longer than a piece, but nothing forbids them.
        if queued.filling.append(&packet) { Added::Next } else { Added::Nowhere }
    }

    /// Moves to `taken` what is full, and what is not as well if `also` agrees to so many bytes.
    /// Returns how many bytes are left.
    pub(super) fn take(
        &self,
        taken: &mut VecDeque<Piece>,
        stock: &Stock,
        also: impl FnOnce(usize) -> bool,
    ) -> usize {
        let mut queued = self.queued.lock();
        taken.append(&mut queued.full);
        if queued.filling.len > 0
            && also(queued.filling.len)
            && let Some(empty) = stock.take()
        {
            taken.push_back(std::mem::replace(&mut queued.filling, empty));
        }
        queued.filling.len
    }

    pub(super) fn is_empty(&self) -> bool {
        let queued = self.queued.lock();
        queued.filling.len == 0 && queued.full.is_empty()
    }
}

/// Empty pieces for all captures of a run.
#[derive(Debug)]
pub(super) struct Stock {
    pieces: Mutex<Empty>,
    piece_bytes: usize,
    /// Pieces there may be, those aside that captures fill.
    most: usize,
}

#[derive(Debug)]
struct Empty {
    /// The last is the one whose memory was used last.
    pieces: Vec<Piece>,
    /// How many were not made yet.
    unmade: usize,
}

impl Stock {
    pub(super) fn new(captures: usize, all_bytes: usize) -> Self {
        let piece_bytes = piece_bytes(captures, all_bytes);
        let most = (all_bytes / piece_bytes).saturating_sub(captures).max(captures / 4 + 2);
        let pieces = Mutex::new(Empty { pieces: Vec::new(), unmade: most });
        Self { pieces, piece_bytes, most }
    }

    fn take(&self) -> Option<Piece> {
        let mut empty = self.pieces.lock();
        if let Some(piece) = empty.pieces.pop() {
            return Some(piece);
        }
        empty.unmade = empty.unmade.checked_sub(1)?;
        Some(Piece::new(self.piece_bytes))
    }

    pub(super) fn put_back(&self, mut piece: Piece) {
        piece.clear();
        self.pieces.lock().pieces.push(piece);
    }

    /// Whether more than half of the pieces are in use.
    pub(super) fn is_low(&self) -> bool {
        let empty = self.pieces.lock();
        (empty.pieces.len() + empty.unmade) * 2 < self.most
    }
}
