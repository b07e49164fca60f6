//! The files of one capture.
//!
//! Purpose: encodes records as pcapng and writes them in chunks, closes a file that is full with
//! the statistics of its interfaces, and deletes the oldest file beyond the number kept. After an
//! error the file is cut back to its last whole chunk, so what is there can be read.
//!
//! Assumptions: nobody else writes the files; each is created anew.
//!
//! Reference: draft-ietf-opsawg-pcapng.

use std::borrow::Cow;
use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use pcap_file::pcapng::blocks::enhanced_packet::{EnhancedPacketBlock, EnhancedPacketOption};
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

use super::recorder::{Direction, Record};

/// Bytes collected before they are written: still in the cache, and a third cheaper per byte than
/// a quarter of them. A capture that is idle never has as many.
const CHUNK_BYTES: usize = 256 << 10;

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

/// How files come into being; tests give others than a file system does.
pub(super) type Create = Box<dyn FnMut(&Path) -> io::Result<File> + Send>;

/// Creates a file that must not exist.
pub(super) fn create_new() -> Create {
    Box::new(|path| File::options().write(true).create_new(true).open(path))
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
    file: File,
    /// Bytes in the file; whole blocks.
    length: u64,
    encoder: PcapNgWriter<Vec<u8>>,
    /// Frames and their bytes that are encoded but not in the file, by interface.
    pending: Vec<u64>,
    pending_bytes: u64,
}

/// What an interface's statistics say besides the frames written.
pub(super) struct Closing<'a> {
    /// The run's time.
    pub(super) now: SimTime,
    /// Frames skipped so far, by interface.
    pub(super) skipped: &'a [u64],
}

impl Files {
    /// Creates the first file.
    pub(super) fn open(layout: Layout, create: Create) -> Result<Self, FileError> {
        let written = vec![0; layout.interfaces.len()];
        let mut files = Self {
            layout,
            create,
            current: None,
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
        self.current.as_ref().is_some_and(|current| {
            current.length + current.encoder.get_ref().len() as u64 >= self.layout.file_bytes
                && (self.kept.last().is_some_and(|(_, frames)| *frames > 0)
                    || current.pending.iter().any(|&frames| frames > 0))
        })
    }

    /// Adds a frame at the interface with this number.
    pub(super) fn write(&mut self, number: u32, record: &Record) -> Result<(), FileError> {
        let Some(current) = &mut self.current else { return Ok(()) };
        let frame = record.frame.bytes();
        let data = match self.layout.snap_length {
            0 => frame,
            snap_length => &frame[..frame.len().min(snap_length)],
        };
        let direction = match record.direction {
            Direction::Inbound => 0b01,
            Direction::Outbound => 0b10,
        };
        let flags = EnhancedPacketOption::Flags(direction);
        let options = match record.dropped {
            None => vec![flags],
            Some(reason) => {
                let comment = format!("dropped: {}", reason.as_str());
                let comment = CommonOption::Comment(Cow::Owned(comment));
                vec![flags, EnhancedPacketOption::Common(comment)]
            }
        };
        let block = EnhancedPacketBlock {
            interface_id: number,
            timestamp: self.layout.run_start + Duration::from(record.at),
            original_len: frame.len() as u32,
            data: Cow::Borrowed(data),
            options,
        };
        current.encode(block)?;
        current.pending[number as usize] += 1;
        current.pending_bytes += data.len() as u64;
        if current.encoder.get_ref().len() >= CHUNK_BYTES { self.flush() } else { Ok(()) }
    }

    /// Brings all frames so far into the file.
    pub(super) fn flush(&mut self) -> Result<(), FileError> {
        let Some(current) = &mut self.current else { return Ok(()) };
        current.flush()?;
        self.bytes += std::mem::take(&mut current.pending_bytes);
        for (written, pending) in self.written.iter_mut().zip(&mut current.pending) {
            let frames = std::mem::take(pending);
            *written += frames;
            if let Some((_, in_file)) = self.kept.last_mut() {
                *in_file += frames;
            }
        }
        Ok(())
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
            current.encode(InterfaceStatisticsBlock {
                interface_id: number,
                timestamp,
                options,
            })?;
        }
        current.flush()?;
        self.current = None;
        Ok(())
    }

    /// Gives up: cuts the file back to whole blocks and returns the frames that are not in it, by
    /// interface.
    pub(super) fn abandon(&mut self) -> Vec<u64> {
        let Some(current) = self.current.take() else { return vec![0; self.written.len()] };
        // What follows the last whole chunk would only disturb readers; it is no loss if it stays.
        let _ = current.file.set_len(current.length);
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
        let encoder = header(&self.layout)
            .map_err(|source| FileError::Encode { file: path.clone(), source })?;
        self.kept.push((path.clone(), 0));
        let pending = vec![0; self.layout.interfaces.len()];
        self.current = Some(Current { path, file, length: 0, encoder, pending, pending_bytes: 0 });
        Ok(())
    }
}

impl Current {
    fn encode<'a>(
        &mut self,
        block: impl pcap_file::pcapng::PcapNgBlock<'a>,
    ) -> Result<(), FileError> {
        match self.encoder.write_pcapng_block(block) {
            Ok(_) => Ok(()),
            Err(source) => Err(FileError::Encode { file: self.path.clone(), source }),
        }
    }

    fn flush(&mut self) -> Result<(), FileError> {
        let chunk = self.encoder.get_mut();
        self.file
            .write_all(chunk)
            .map_err(|source| FileError::Write { file: self.path.clone(), source })?;
        self.length += chunk.len() as u64;
        chunk.clear();
        Ok(())
    }
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
