//! The kernel of a guest: from a Debian package to the form that boots fastest.
//!
//! A `bzImage` unpacks itself inside the guest. Under software translation that takes longer than
//! all the rest of the kernel's start (about 3 s for an xz kernel, 0.3 s for an LZ4 one), so the
//! ELF `vmlinux` inside is unpacked here, once, and QEMU enters it by the PVH protocol.
//!
//! Assumptions: x86 boot protocol 2.08 or later. A kernel without a PVH entry, or packed by a
//! method unknown here, stays a `bzImage`, which boots as well.
//!
//! Reference: Linux `Documentation/x86/boot.rst`; Xen's `docs/misc/pvh.pandoc`.

use std::io::{self, Read};
use std::path::PathBuf;

use object::read::elf::{FileHeader, ProgramHeader};

/// Why a kernel package could not be used.
#[derive(Debug, thiserror::Error)]
pub enum KernelError {
    /// The package holds no kernel.
    #[error("package `{package}` holds no `{what}`; choose another kernel")]
    Lacks {
        /// The package.
        package: String,
        /// What was looked for.
        what: &'static str,
    },
    /// A module could not be read.
    #[error("cannot read kernel module `{}`: {source}", path.display())]
    Module {
        /// The file.
        path: PathBuf,
        /// What went wrong.
        source: io::Error,
    },
}

/// The `vmlinux` inside a `bzImage`, or the `bzImage` itself where it cannot be entered directly.
pub(super) fn unpack(bz_image: Vec<u8>) -> Vec<u8> {
    match payload(&bz_image).and_then(decompress).filter(|elf| has_pvh_entry(elf)) {
        Some(vmlinux) => vmlinux,
        None => {
            tracing::info!("the kernel stays compressed: it offers no direct entry");
            bz_image
        }
    }
}

/// The compressed kernel, without the length the build appends.
fn payload(bz_image: &[u8]) -> Option<&[u8]> {
    const SECTOR: usize = 512;
    let number = |at: usize| {
        let bytes = bz_image.get(at..at + 4)?;
        usize::try_from(u32::from_le_bytes(bytes.try_into().ok()?)).ok()
    };
    if bz_image.get(0x202..0x206)? != b"HdrS" {
        return None;
    }
    let start = (usize::from(*bz_image.get(0x1f1)?) + 1) * SECTOR + number(0x248)?;
    let length = number(0x24c)?;
    bz_image.get(start..start.checked_add(length)?)
}

fn decompress(payload: &[u8]) -> Option<Vec<u8>> {
    /// The build appends the length of the kernel to what xz, zstd and LZ4 made.
    const LENGTH_BYTES: usize = 4;
    let body = payload.get(..payload.len().checked_sub(LENGTH_BYTES)?)?;
    let mut plain = Vec::new();
    match payload {
        [0x1f, 0x8b, ..] => {
            // gzip ends with the length itself, so nothing was appended.
            flate2::read::GzDecoder::new(payload).read_to_end(&mut plain).ok()?;
        }
        [0xfd, b'7', b'z', b'X', b'Z', ..] => {
            lzma_rust2::XzReader::new(body, false).read_to_end(&mut plain).ok()?;
        }
        [0x28, 0xb5, 0x2f, 0xfd, ..] => {
            ruzstd::decoding::StreamingDecoder::new(body).ok()?.read_to_end(&mut plain).ok()?;
        }
        [0x02, 0x21, 0x4c, 0x18, ..] => {
            lz4_flex::frame::FrameDecoder::new(body).read_to_end(&mut plain).ok()?;
        }
        _ => return None,
    }
    Some(plain)
}

/// Whether an ELF kernel says where PVH enters it.
fn has_pvh_entry(elf: &[u8]) -> bool {
    /// `XEN_ELFNOTE_PHYS32_ENTRY`.
    const PHYS32_ENTRY: object::elf::NoteType = object::elf::NoteType(18);
    let find = || -> object::Result<bool> {
        let header = object::elf::FileHeader64::<object::Endianness>::parse(elf)?;
        let endian = header.endian()?;
        for segment in header.program_headers(endian, elf)? {
            let Some(mut notes) = segment.notes(endian, elf)? else { continue };
            while let Some(note) = notes.next()? {
                if note.name() == b"Xen" && note.n_type(endian) == PHYS32_ENTRY {
                    return Ok(true);
                }
            }
        }
        Ok(false)
    };
    find().unwrap_or(false)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_bz_image_stays_as_it_is() {
        for bytes in [vec![], vec![0; 10], vec![0xff; 4096]] {
            assert_eq!(unpack(bytes.clone()), bytes);
        }
    }

    #[test]
    fn lengths_that_point_outside_are_no_payload() {
        let mut image = vec![0; 4096];
        image[0x202..0x206].copy_from_slice(b"HdrS");
        image[0x248..0x250].copy_from_slice(&[0xff; 8]);
        assert_eq!(payload(&image), None);
        assert_eq!(unpack(image.clone()), image);
    }

    #[test]
    fn the_payload_is_found_behind_the_setup_sectors() {
        let mut image = vec![0; 4096];
        image[0x1f1] = 1;
        image[0x202..0x206].copy_from_slice(b"HdrS");
        image[0x248] = 16;
        image[0x24c] = 3;
        image[1024 + 16..1024 + 19].copy_from_slice(b"abc");
        assert_eq!(payload(&image), Some(&b"abc"[..]));
    }
}
