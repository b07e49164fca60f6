//! Where the bytes of a capture go.
//!
//! Purpose: files written past the page cache (`O_DIRECT`) where that pays, since copying into the
//! cache and its book-keeping cost several times what handing pages to the disk does; and through
//! it where the file system refuses the former, for small pieces, and while the disk is behind: then
//! the cache lends the memory that the pieces do not have. Reference: `open(2)`, section
//! `O_DIRECT`.

use std::fs::File;
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;

/// Alignment of pieces in the file, and of their memory: that of disks' largest sectors and of the
/// blocks of file systems.
pub(super) const BLOCK_BYTES: usize = 4_096;

/// The way of a piece to the disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Way {
    /// Past the page cache, if that can be.
    Direct,
    /// Through the page cache.
    Cached,
}

/// A file that is being written.
pub(super) trait Store: Send {
    /// Writes `bytes` at `offset`; both are multiples of [`BLOCK_BYTES`], and so is the address.
    fn write_at(&mut self, bytes: &[u8], offset: u64, way: Way) -> io::Result<()>;

    /// Cuts the file.
    fn set_len(&mut self, bytes: u64) -> io::Result<()>;
}

/// How files come into being; tests give others than a file system does.
pub(super) type Create = Box<dyn FnMut(&Path) -> io::Result<Box<dyn Store>> + Send>;

/// Creates a file that must not exist.
pub(super) fn create_new() -> Create {
    Box::new(|path| Ok(Box::new(DiskFile::create(path)?)))
}

struct DiskFile {
    cached: File,
    /// The same file, until the file system refuses to be written so.
    direct: Option<File>,
}

impl DiskFile {
    fn create(path: &Path) -> io::Result<Self> {
        let cached = File::options().write(true).create_new(true).open(path)?;
        let direct = File::options().write(true).custom_flags(libc::O_DIRECT).open(path);
        Ok(Self { cached, direct: direct.ok() })
    }
}

impl Store for DiskFile {
    fn write_at(&mut self, bytes: &[u8], offset: u64, way: Way) -> io::Result<()> {
        if let (Way::Direct, Some(direct)) = (way, &self.direct) {
            match direct.write_all_at(bytes, offset) {
                Err(error) if is_refusal(&error) => self.direct = None,
                outcome => return outcome,
            }
        }
        self.cached.write_all_at(bytes, offset)
    }

    fn set_len(&mut self, bytes: u64) -> io::Result<()> {
        self.cached.set_len(bytes)
    }
}

/// Whether the file system wants larger blocks, or no direct writes at all.
fn is_refusal(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EINVAL | libc::EOPNOTSUPP))
}
