//! The files of one capture.
//!
//! Purpose: encodes records as pcapng and writes them in large pieces, closes a file that is full with
//! the statistics of its interfaces, and deletes the oldest file beyond the number kept. A file can be
//! read at any time, also when its writer was killed; after an error it is cut back to what was
//! written before.
//!
//! Assumptions: nobody else writes the files; each is created anew.
//!
//! Reference: draft-ietf-opsawg-pcapng.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use pcap_file::pcapng::blocks::interface_description::{
    InterfaceDescriptionBlock, InterfaceDescriptionOption, InterfaceTsResolution,
};
use pcap_file::pcapng::blocks::interface_statistics::{
    InterfaceStatisticsBlock, InterfaceStatisticsOption,
};
use pcap_file::pcapng::blocks::opt_common::CommonOption;
use pcap_file::pcapng::blocks::section_header::{SectionHeaderBlock, SectionHeaderOption};
use pcap_file::pcapng::{PcapNgWriteError, PcapNgWriter};
use pcap_file::{DataLink, Endianness};
use tapestry_core::SimTime;
use thiserror::Error;

use super::encode::Kept;
use super::piece::{LARGE_BYTES, Piece};
use super::recorder::{Form, Record};
use super::store::{BLOCK_BYTES, Create, Store, Way};
use super::tail::{Incomplete, Tail};

/// Why a capture ended.
#[derive(Debug, Error)]
pub(super) enum FileError {
    #[error("cannot create {}: {source}; choose a directory that can be written and has none of \
         an earlier capture's files", file.display())]
    Create { file: PathBuf, source: io::Error },
    #[error("cannot write {}: {source}; free space there, or keep fewer or smaller files or a \
         shorter snap length", file.display())]
    Write { file: PathBuf, source: io::Error },
    #[error("cannot delete {} to keep the number of files: {source}", file.display())]
    Delete { file: PathBuf, source: io::Error },
    #[error("cannot encode for {}: {source}", file.display())]
    Encode { file: PathBuf, source: PcapNgWriteError },
}

/// What all files of a capture have in common.
pub(super) struct Layout {
    pub(super) directory: PathBuf,
    /// File name without number and extension.
    pub(super) stem: String,
    pub(super) link: String,
    /// Names of the interfaces.
    pub(super) interfaces: Vec<String>,
    pub(super) snap_length: usize,
    pub(super) file_bytes: u64,
    pub(super) files: usize,
    /// The start of the run since the Unix epoch.
    pub(super) run_start: Duration,
}

impl Layout {
    /// How frames are shown.
    pub(super) fn form(&self) -> Form {
        Form { snap_length: self.snap_length, run_start_unix_ns: self.run_start.as_nanos() as u64 }
    }

    /// `lan.pcapng`, `lan.2.pcapng`, `lan.3.pcapng`, …
    fn path(&self, number: u64) -> PathBuf {
        self.directory.join(match number {
            1 => format!("{}.pcapng", self.stem),
            _ => format!("{}.{number}.pcapng", self.stem),
        })
    }
}

/// A capture's current file and the account of all its files.
pub(super) struct Files {
    layout: Layout,
    create: Create,
    current: Option<Current>,
    tail: Tail,
    /// Files opened so far.
    opened: u64,
    /// Closed files with their frames, oldest first, and the current one while it is open.
    kept: Vec<(PathBuf, u64)>,
    rotated_out: u64,
    bytes: u64,
    /// Frames in files, by interface.
    written: Vec<u64>,
}

struct Current {
    path: PathBuf,
    file: Box<dyn Store>,
    /// For all blocks but those of frames.
    encoder: PcapNgWriter<Vec<u8>>,
    /// Frames and their bytes that are encoded but not in the file, by interface.
    pending: Vec<u64>,
    pending_bytes: u64,
    /// The time of the last frame, in nanoseconds since the Unix epoch.
    latest_unix_ns: u64,
}

/// What an interface's statistics say besides the frames written.
pub(super) struct Closing<'a> {
    /// The run's time.
    pub(super) now: SimTime,
    /// Frames skipped so far, by interface.
    pub(super) skipped: &'a [u64],
}

impl Files {
    /// Creates the first file of one of so many captures.
    pub(super) fn open(layout: Layout, create: Create, captures: usize) -> Result<Self, FileError> {
        let written = vec![0; layout.interfaces.len()];
        let mut files = Self {
            layout,
            create,
            current: None,
            tail: Tail::new(captures),
            opened: 0,
            kept: Vec::new(),
            rotated_out: 0,
            bytes: 0,
            written,
        };
        files.open_next()?;
        Ok(files)
    }

    /// Whether the next record needs [`Self::rotate`] first.
    pub(super) fn is_full(&self) -> bool {
        self.tail.file_bytes() >= self.layout.file_bytes
            && self.current.as_ref().is_some_and(|current| {
                self.kept.last().is_some_and(|(_, frames)| *frames > 0)
                    || current.pending.iter().any(|&frames| frames > 0)
            })
    }

    /// Adds a frame at the interface with this number.
    pub(super) fn write(&mut self, number: u32, record: &Record<'_>) -> Result<(), FileError> {
        let packet = self.layout.form().packet(number, record);
        let space = self.space(packet.block_bytes(), || false)?;
        packet.write(space);
        self.count((number, packet.data.len() as u32), packet.unix_ns);
        Ok(())
    }

    /// Adds the block of a frame that was seen no later than `unix_ns`. `behind` says whether frames
    /// wait for want of a faster disk.
    pub(super) fn write_block(
        &mut self,
        block: &[u8],
        kept: Kept,
        unix_ns: u64,
        behind: impl FnOnce() -> bool,
    ) -> Result<(), FileError> {
        self.space(block.len(), behind)?.copy_from_slice(block);
        self.count(kept, unix_ns);
        Ok(())
    }

    /// Space for a block behind those that are not in the file.
    fn space(
        &mut self,
        bytes: usize,
        behind: impl FnOnce() -> bool,
    ) -> Result<&mut [u8], FileError> {
        if self.tail.is_full(bytes) {
            self.flush_to_disk(behind())?;
        }
        Ok(self.tail.append(bytes))
    }

    fn count(&mut self, (number, bytes): Kept, unix_ns: u64) {
        let Some(current) = &mut self.current else { return };
        current.pending[number as usize] += 1;
        current.pending_bytes += u64::from(bytes);
        current.latest_unix_ns = unix_ns;
    }

    /// Writes a large piece as it is. False, with nothing of it counted, if it is small, the file
    /// might grow longer than it shall be, or the disk refuses: then it goes in block by block.
    pub(super) fn write_piece(
        &mut self,
        piece: &mut Piece,
        behind: bool,
    ) -> Result<bool, FileError> {
        let bytes = piece.blocks().len();
        let most = self.tail.file_bytes() + (bytes + 3 * BLOCK_BYTES) as u64;
        if bytes < LARGE_BYTES || most > self.layout.file_bytes {
            return Ok(false);
        }
        self.flush_to_disk(behind)?;
        let Some(current) = &mut self.current else { return Ok(false) };
        let offset = self.tail.settle();
        let way = if behind { Way::Cached } else { Way::Direct };
        let sealed = piece.sealed();
        let sealed_bytes = sealed.len();
        if current.file.write_at(sealed, offset, way).is_err() {
            return Ok(false);
        }
        self.tail.pass(sealed_bytes);
        current.latest_unix_ns = piece.unix_ns();
        self.bytes += piece.frame_bytes();
        for (number, &frames) in piece.frames().iter().enumerate() {
            self.has_come(number, frames);
        }
        Ok(true)
    }

    /// So many frames of the interface with this number have come into the current file.
    fn has_come(&mut self, number: usize, frames: u64) {
        self.written[number] += frames;
        if let Some((_, in_file)) = self.kept.last_mut() {
            *in_file += frames;
        }
    }

    /// Brings all frames so far into the file.
    pub(super) fn flush(&mut self) -> Result<(), FileError> {
        self.flush_to_disk(false)
    }

    fn flush_to_disk(&mut self, behind: bool) -> Result<(), FileError> {
        let Some(mut current) = self.current.take() else { return Ok(()) };
        let outcome = self.tail.write(current.file.as_mut(), current.latest_unix_ns, behind);
        let outcome = match outcome {
            Ok(()) => {
                self.bytes += std::mem::take(&mut current.pending_bytes);
                for (number, frames) in current.pending.iter_mut().enumerate() {
                    self.has_come(number, std::mem::take(frames));
                }
                Ok(())
            }
            Err(Incomplete { error: source, saved }) => {
                for (number, bytes) in saved {
                    current.pending[number as usize] -= 1;
                    current.pending_bytes -= u64::from(bytes);
                    self.bytes += u64::from(bytes);
                    self.has_come(number as usize, 1);
                }
                Err(FileError::Write { file: current.path.clone(), source })
            }
        };
        self.current = Some(current);
        outcome
    }

    /// Closes the current file, makes room and opens the next.
    pub(super) fn rotate(&mut self, closing: &Closing<'_>) -> Result<(), FileError> {
        self.close(closing)?;
        while self.kept.len() >= self.layout.files.max(1) {
            let (file, frames) = &self.kept[0];
            match std::fs::remove_file(file) {
                Err(source) if source.kind() != io::ErrorKind::NotFound => {
                    return Err(FileError::Delete { file: file.clone(), source });
                }
                _ => self.rotated_out += frames,
            }
            self.kept.remove(0);
        }
        self.open_next()
    }

    /// Ends the current file with the statistics of its interfaces.
    pub(super) fn close(&mut self, closing: &Closing<'_>) -> Result<(), FileError> {
        self.flush()?;
        let Some(current) = &mut self.current else { return Ok(()) };
        let timestamp = self.layout.run_start + Duration::from(closing.now);
        for (number, (written, skipped)) in (0..).zip(self.written.iter().zip(closing.skipped)) {
            let options = vec![
                InterfaceStatisticsOption::IsbStartTime(self.layout.run_start),
                InterfaceStatisticsOption::IsbEndTime(timestamp),
                InterfaceStatisticsOption::IsbIfRecv(written + skipped),
                InterfaceStatisticsOption::IsbIfDrop(*skipped),
            ];
            let block = InterfaceStatisticsBlock { interface_id: number, timestamp, options };
            let encoded = current.encoder.write_pcapng_block(block);
            encoded.map_err(|source| FileError::Encode { file: current.path.clone(), source })?;
        }
        append(&mut self.tail, &mut current.encoder);
        self.flush()?;
        let Some(mut current) = self.current.take() else { return Ok(()) };
        // What fills the last block of the disk is not part of a file that is complete.
        let cut = current.file.set_len(self.tail.file_bytes());
        cut.map_err(|source| FileError::Write { file: current.path, source })
    }

    /// Gives up: cuts the file back to whole blocks and returns the frames that are not in it, by
    /// interface.
    pub(super) fn abandon(&mut self) -> Vec<u64> {
        let Some(mut current) = self.current.take() else { return vec![0; self.written.len()] };
        // What follows the last whole block would only disturb readers; it is no loss if it stays.
        let _ = current.file.set_len(self.tail.written_bytes());
        current.pending
    }

    /// Files that are left, oldest first.
    pub(super) fn paths(&self) -> Vec<PathBuf> {
        self.kept.iter().map(|(path, _)| path.clone()).collect()
    }

    /// Frames in files that were deleted.
    pub(super) fn rotated_out(&self) -> u64 {
        self.rotated_out
    }

    /// Bytes of frames that came into files.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Frames that came into files, by interface.
    pub(super) fn written(&self) -> &[u64] {
        &self.written
    }

    /// Names of the interfaces, in the order of the link's endpoints.
    pub(super) fn layout(&self) -> &Layout {
        &self.layout
    }

    fn open_next(&mut self) -> Result<(), FileError> {
        self.opened += 1;
        let path = self.layout.path(self.opened);
        let file = (self.create)(&path)
            .map_err(|source| FileError::Create { file: path.clone(), source })?;
        let mut encoder = header(&self.layout)
            .map_err(|source| FileError::Encode { file: path.clone(), source })?;
        self.kept.push((path.clone(), 0));
        self.tail.restart();
        append(&mut self.tail, &mut encoder);
        let pending = vec![0; self.layout.interfaces.len()];
        self.current = Some(Current {
            path,
            file,
            encoder,
            pending,
            pending_bytes: 0,
            latest_unix_ns: self.layout.form().run_start_unix_ns,
        });
        Ok(())
    }
}

/// Moves what was encoded to the file's tail.
fn append(tail: &mut Tail, encoder: &mut PcapNgWriter<Vec<u8>>) {
    let blocks = encoder.get_mut();
    tail.append(blocks.len()).copy_from_slice(blocks);
    blocks.clear();
}

/// An encoder that has begun a file.
fn header(layout: &Layout) -> Result<PcapNgWriter<Vec<u8>>, PcapNgWriteError> {
    let start = layout.run_start;
    let comment = format!(
        "Link {}. Times are the emulator's, counted from the start of the run at {}.{:09} s since \
         1970.",
        layout.link,
        start.as_secs(),
        start.subsec_nanos()
    );
    let section = SectionHeaderBlock {
        endianness: Endianness::native(),
        options: vec![
            SectionHeaderOption::UserApplication(
                concat!("tapestry ", env!("CARGO_PKG_VERSION")).into(),
            ),
            SectionHeaderOption::Common(CommonOption::Comment(comment.into())),
        ],
        ..SectionHeaderBlock::default()
    };
    let mut encoder = PcapNgWriter::with_section_header(Vec::new(), section)?;
    for name in &layout.interfaces {
        encoder.write_pcapng_block(InterfaceDescriptionBlock {
            linktype: DataLink::ETHERNET,
            snaplen: u32::try_from(layout.snap_length).unwrap_or(0),
            options: vec![
                InterfaceDescriptionOption::IfName(name.into()),
                InterfaceDescriptionOption::IfDescription(
                    format!("{name} on link {}", layout.link).into(),
                ),
                InterfaceDescriptionOption::IfTsResol(InterfaceTsResolution::NANO),
                InterfaceDescriptionOption::IfFcsLen(0),
            ],
        })?;
    }
    Ok(encoder)
}
