//! The end of a file that is not on the disk yet.
//!
//! Purpose: collects blocks in aligned memory and writes them in aligned pieces, so that the file
//! consists of whole blocks at any time, whenever its writer is killed. What does not fill the last
//! block of the disk is written with a filling, kept, and written again with what follows it.

use std::io;

use super::encode::{self, Kept};
use super::piece::{ALL_BYTES, Aligned, LARGE_BYTES, piece_bytes};
use super::store::{BLOCK_BYTES, Store, Way};

/// Blocks at the end of a file. The first byte's offset is a multiple of [`BLOCK_BYTES`].
pub(super) struct Tail {
    memory: Aligned,
    /// Place in the file.
    offset: u64,
    len: usize,
    /// How many of the bytes are in the file already.
    written: usize,
}

impl Tail {
    /// The tail of one of this many captures.
    pub(super) fn new(captures: usize) -> Self {
        Self::with_piece(piece_bytes(captures, ALL_BYTES))
    }

    fn with_piece(piece_bytes: usize) -> Self {
        Self { memory: Aligned::new(piece_bytes), offset: 0, len: 0, written: 0 }
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
        self.len + bytes > self.memory.room()
    }

    /// Space for so many bytes, which are a block or several.
    pub(super) fn append(&mut self, bytes: usize) -> &mut [u8] {
        if self.is_full(bytes) {
            self.grow(bytes);
        }
        let at = self.len;
        self.len += bytes;
        &mut self.memory[at..at + bytes]
    }

    /// A single block longer than a piece; no interface has such frames, but nothing forbids them.
    fn grow(&mut self, bytes: usize) {
        let piece = (self.len + bytes).next_multiple_of(BLOCK_BYTES);
        let mut larger = Self { offset: self.offset, ..Self::with_piece(piece) };
        larger.memory[..self.len].copy_from_slice(&self.memory[..self.len]);
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
        let small = self.len < LARGE_BYTES;
        let way = if behind || small { Way::Cached } else { Way::Direct };
        let piece = self.memory.sealed(self.len, unix_ns);
        if let Err(error) = to.write_at(piece, self.offset, way) {
            return Err(self.save(to, error));
        }
        let whole = self.len / BLOCK_BYTES * BLOCK_BYTES;
        self.memory.copy_within(whole..self.len, 0);
        self.offset += whole as u64;
        self.len -= whole;
        self.written = self.len;
        Ok(())
    }

    /// After [`Self::write`], leaves what fills the last block in the file for good. Returns where the
    /// file goes on, a multiple of [`BLOCK_BYTES`].
    pub(super) fn settle(&mut self) -> u64 {
        self.offset += (self.len + encode::gap(self.len, BLOCK_BYTES)) as u64;
        (self.len, self.written) = (0, 0);
        self.offset
    }

    /// Goes on behind so many bytes, which somebody else has written where [`Self::settle`] said.
    pub(super) fn pass(&mut self, bytes: usize) {
        self.offset += bytes as u64;
    }

    /// After a piece was refused, writes as much of it as the disk takes.
    fn save(&mut self, to: &mut dyn Store, error: io::Error) -> Incomplete {
        let piece = &self.memory[..self.len];
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
        for (block, frame) in encode::whole_blocks(new) {
            whole = block.end;
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::capture::store::create_new;

    /// A file in memory that takes so many bytes.
    struct Memory {
        bytes: Vec<u8>,
        space: usize,
    }

    impl Store for Memory {
        fn write_at(&mut self, bytes: &[u8], offset: u64, _: Way) -> io::Result<()> {
            let (from, to) = (offset as usize, offset as usize + bytes.len());
            assert_eq!((from % BLOCK_BYTES, bytes.len() % 4), (0, 0));
            if to > self.space {
                return Err(io::Error::from_raw_os_error(libc::ENOSPC));
            }
            let longer = self.bytes.len().max(to);
            self.bytes.resize(longer, 0xff);
            self.bytes[from..to].copy_from_slice(bytes);
            Ok(())
        }

        fn set_len(&mut self, bytes: u64) -> io::Result<()> {
            self.bytes.truncate(bytes as usize);
            Ok(())
        }
    }

    /// Blocks of frames of all lengths, each length twice as often as ten bytes more.
    fn block(number: usize) -> Vec<u8> {
        let data = vec![number as u8; number * 7_919 % 1_515];
        let packet = encode::Packet {
            interface: number as u32,
            unix_ns: 1,
            data: &data,
            original_bytes: data.len(),
            direction: crate::capture::recorder::Direction::Inbound,
            dropped: None,
        };
        let mut block = vec![0; packet.block_bytes()];
        packet.write(&mut block);
        block
    }

    /// The frames' interfaces, if the bytes are whole blocks from the first to the last.
    fn frames(bytes: &[u8]) -> Vec<u32> {
        let blocks: Vec<_> = encode::whole_blocks(bytes).collect();
        assert_eq!(
            blocks.last().map_or(0, |(block, _)| block.end),
            bytes.len(),
            "ends with a block"
        );
        blocks.into_iter().filter_map(|(_, kept)| Some(kept?.0)).collect()
    }

    #[test]
    fn a_file_is_whole_blocks_whenever_its_writer_is_killed() {
        let mut file = Memory { bytes: Vec::new(), space: usize::MAX };
        let mut tail = Tail::with_piece(8 * BLOCK_BYTES);
        let mut all = Vec::new();
        for number in 0..2_000 {
            let block = block(number);
            all.extend_from_slice(&block);
            if tail.is_full(block.len()) || number % 11 == 0 || number % 97 < 3 {
                tail.write(&mut file, 5, false).unwrap();
                assert_eq!(file.bytes.len() % BLOCK_BYTES, 0);
                assert_eq!(frames(&file.bytes), (0..number as u32).collect::<Vec<_>>());
            }
            tail.append(block.len()).copy_from_slice(&block);
            assert_eq!(tail.file_bytes(), all.len() as u64);
        }
        tail.write(&mut file, 5, false).unwrap();
        file.set_len(tail.file_bytes()).unwrap();
        assert!(file.bytes == all, "nothing of the filling is left");
    }

    #[test]
    fn what_the_disk_takes_of_a_piece_is_saved() {
        for space in [0, 1, 5, 12] {
            let mut file = Memory { bytes: Vec::new(), space: space * BLOCK_BYTES };
            let mut tail = Tail::with_piece(8 * BLOCK_BYTES);
            let mut written = 0;
            let incomplete = (0..1_000).find_map(|number| {
                let block = block(number);
                if tail.is_full(block.len()) {
                    match tail.write(&mut file, 5, false) {
                        Ok(()) => written = number,
                        Err(incomplete) => return Some(incomplete),
                    }
                }
                tail.append(block.len()).copy_from_slice(&block);
                None
            });
            let incomplete = incomplete.expect("the disk is full");
            assert_eq!(incomplete.error.raw_os_error(), Some(libc::ENOSPC));
            file.set_len(tail.written_bytes()).unwrap();
            let known = written + incomplete.saved.len();
            assert_eq!(frames(&file.bytes), (0..known as u32).collect::<Vec<_>>());
            assert!(file.bytes.len() + 2_000 > space * BLOCK_BYTES, "{space}");
        }
    }

    #[test]
    fn a_block_longer_than_a_piece_fits_all_the_same() {
        let mut file = Memory { bytes: Vec::new(), space: usize::MAX };
        let mut tail = Tail::with_piece(BLOCK_BYTES);
        tail.append(40).fill(1);
        tail.append(3 * BLOCK_BYTES).fill(2);
        tail.write(&mut file, 5, false).unwrap();
        assert_eq!(file.bytes[..40], [1; 40]);
        assert_eq!(file.bytes[40..3 * BLOCK_BYTES + 40], [2; 3 * BLOCK_BYTES]);
    }

    #[test]
    fn past_the_page_cache_and_through_it_gives_the_same_file() {
        let directory = tempfile::tempdir().unwrap();
        // Only a file system in memory may refuse direct writes; both are to be had nearly anywhere.
        let places = [directory.path().to_owned(), "/dev/shm".into()];
        for place in places.iter().filter(|place| place.is_dir()) {
            let path = place.join(format!("tapestry-tail-{}", std::process::id()));
            let mut file = create_new()(&path).unwrap();
            let mut tail = Tail::new(1);
            let mut all = Vec::new();
            for number in 0..8_000 {
                let block = block(number);
                if tail.is_full(block.len()) || number % 999 == 0 {
                    tail.write(file.as_mut(), 5, number % 5 == 0).unwrap();
                }
                tail.append(block.len()).copy_from_slice(&block);
                all.extend_from_slice(&block);
            }
            tail.write(file.as_mut(), 5, false).unwrap();
            file.set_len(tail.file_bytes()).unwrap();
            let read = std::fs::read(&path);
            std::fs::remove_file(&path).unwrap();
            assert!(read.unwrap() == all, "{}", place.display());
        }
    }
}
