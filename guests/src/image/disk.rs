//! What a file that is to be a guest's disk holds.
//!
//! Purpose: a file that no guest could use is refused when it is imported, not found out after the
//! longest boot. Raw disks have no magic number of their own, so what they hold must be known: a
//! partition table, or a file system.
//!
//! Not modelled: file systems beyond the table; whether what is found is whole.
//!
//! Reference: UEFI specification 5.2 and 5.3 (MBR, GPT); qcow2 in QEMU's `docs/interop`; the
//! kernel's headers of each file system; ECMA-119 8.1 (ISO 9660).

use std::path::Path;

use super::DiskFormat;
use super::import::{ImportError, head};

/// Formats that QEMU reads and we do not take: where their magic number stands, and what they are.
const FOREIGN: &[(usize, &[u8], &str)] = &[
    (0, b"KDMV", "VMDK disk"),
    (0, b"COWD", "VMDK disk"),
    (0, b"# Disk DescriptorFile", "VMDK descriptor"),
    (0x40, b"\x7f\x10\xda\xbe", "VDI disk"),
    (0, b"vhdxfile", "VHDX disk"),
    (0, b"conectix", "VHD disk"),
    (0, b"QED\0", "QED disk"),
    (0, b"WithoutFreeSpace", "Parallels disk"),
    (0, b"WithouFreSpacExt", "Parallels disk"),
];

/// Things a disk may be packed in.
const PACKED: &[(usize, &[u8], &str)] = &[
    (0, b"\x1f\x8b", "gzip file"),
    (0, b"\xfd7zXZ", "xz file"),
    (0, b"BZh", "bzip2 file"),
    (0, b"\x28\xb5\x2f\xfd", "zstd file"),
    (0, b"PK\x03\x04", "zip file"),
    (257, b"ustar", "tar file"),
];

/// What a raw disk may hold from its first byte on, without a partition table.
const FILE_SYSTEMS: &[(usize, &[u8])] = &[
    (0x438, b"\x53\xef"),            // ext2, ext3, ext4
    (0, b"XFSB"),                    // XFS
    (0x1_0040, b"_BHRfS_M"),         // btrfs
    (0x400, b"\x10\x20\xf5\xf2"),    // F2FS
    (0, b"hsqs"),                    // SquashFS
    (0x400, b"\xe2\xe1\xf5\xe0"),    // EROFS
    (0x8001, b"CD001"),              // ISO 9660
    (0x1_055c, b"\x19\x01\x54\x19"), // UFS2, little endian
];

/// Bytes that hold every signature above.
const HEAD: u64 = 0x1_1000;

/// The format of the disk `path`. One that must boot by itself (`bootable`) needs boot code or a
/// partition table; a data disk may also be blank.
pub(super) fn format(path: &Path, bootable: bool) -> Result<DiskFormat, ImportError> {
    let unlike = |found: String| ImportError::Unlike {
        path: path.into(),
        expected: "raw or qcow2 disk",
        found,
    };
    let head = head(path, HEAD)?;
    let has = |at: usize, magic: &[u8]| head.get(at..).is_some_and(|rest| rest.starts_with(magic));
    if has(0, b"QFI\xfb") {
        return Ok(DiskFormat::Qcow2);
    }
    if let Some((_, _, what)) = FOREIGN.iter().find(|(at, magic, _)| has(*at, magic)) {
        return Err(unlike(format!(
            "it is a {what}; convert it with `qemu-img convert -O qcow2 {} disk.qcow2`",
            path.display()
        )));
    }
    if head.len() < 512 {
        return Err(unlike("it is shorter than one sector".into()));
    }
    // A boot sector, with a partition table (MBR, or the protective one of GPT) or without (FAT).
    let boots = has(510, b"\x55\xaa") || has(512, b"EFI PART") || has(4096, b"EFI PART");
    if boots {
        return Ok(DiskFormat::Raw);
    }
    if let Some((_, _, what)) = PACKED.iter().find(|(at, magic, _)| has(*at, magic)) {
        return Err(unlike(format!("it is a {what}; unpack it first")));
    }
    let holds = FILE_SYSTEMS.iter().any(|(at, magic)| has(*at, magic));
    let is_blank = head.iter().all(|byte| *byte == 0);
    match (bootable, holds || is_blank) {
        (false, true) => Ok(DiskFormat::Raw),
        (true, true) => Err(unlike(
            "it has neither boot code nor a partition table, so nothing would boot; give \
             `--kernel FILE` too, to use it as a data disk"
                .into(),
        )),
        (_, false) => Err(unlike(
            "it has neither the magic number of qcow2 nor a partition table or file system".into(),
        )),
    }
}
