//! The initial RAM disk: a tree as a `newc` cpio archive, the same bytes for the same tree.

use std::collections::BTreeSet;
use std::io::{self, Write};

use cpio::newc::{self, ModeFileType};

use super::tree::{Entry, Kind, Tree, directory};

/// Writes `tree`, parents before children, with times of 0 and numbered inodes.
pub(super) fn write(tree: &Tree, mut to: impl Write) -> io::Result<()> {
    let parents = missing_parents(tree);
    let implied = directory(0o755);
    // Sorted by path, so a parent, which is a prefix, comes before its children.
    let mut paths: Vec<(&str, &Entry)> =
        tree.iter().map(|(path, entry)| (path.as_str(), entry)).collect();
    paths.extend(parents.iter().map(|path| (*path, &implied)));
    paths.sort_unstable_by_key(|(path, _)| *path);
    for (inode, (path, entry)) in paths.into_iter().enumerate() {
        let (kind, content): (_, &[u8]) = match &entry.kind {
            Kind::Directory => (ModeFileType::Directory, &[]),
            Kind::File(content) => (ModeFileType::Regular, content),
            Kind::Symlink(target) => (ModeFileType::Symlink, target.as_bytes()),
            Kind::Device(..) => (ModeFileType::Char, &[]),
        };
        let inode = u32::try_from(inode + 1).map_err(io::Error::other)?;
        let length = u32::try_from(content.len()).map_err(io::Error::other)?;
        let mut builder = newc::Builder::new(path).ino(inode).nlink(1).mtime(0).mode(entry.mode);
        if let Kind::Device(major, minor) = entry.kind {
            builder = builder.rdev_major(major).rdev_minor(minor);
        }
        let mut writer = builder.set_mode_file_type(kind).write(&mut to, length);
        writer.write_all(content)?;
        writer.finish()?;
    }
    newc::trailer(&mut to)?;
    to.flush()
}

/// LZ4 in the legacy format, the one Linux reads; the same bytes for the same input.
///
/// The guest unpacks it nearly as fast as it copies a plain archive, and needs 20 MB less memory.
pub(super) fn compress(plain: &[u8], mut to: impl Write) -> io::Result<()> {
    const MAGIC: u32 = 0x184c_2102;
    const BLOCK_BYTES: usize = 8 << 20;
    to.write_all(&MAGIC.to_le_bytes())?;
    for block in plain.chunks(BLOCK_BYTES) {
        let packed = lz4_flex::block::compress(block);
        let length = u32::try_from(packed.len()).map_err(io::Error::other)?;
        to.write_all(&length.to_le_bytes())?;
        to.write_all(&packed)?;
    }
    Ok(())
}

fn missing_parents(tree: &Tree) -> BTreeSet<&str> {
    let mut parents = BTreeSet::new();
    for path in tree.keys() {
        for (end, _) in path.match_indices('/') {
            if !tree.contains_key(&path[..end]) {
                parents.insert(&path[..end]);
            }
        }
    }
    parents
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;
    use crate::image::tree::{file, symlink};

    fn sample() -> Tree {
        Tree::from([
            ("usr/bin/x".to_owned(), file(0o755, "content")),
            ("bin".to_owned(), symlink("usr/bin")),
            ("dev/console".to_owned(), Entry { mode: 0o600, kind: Kind::Device(5, 1) }),
        ])
    }

    #[test]
    fn an_archive_reads_back_as_the_tree_with_parents_first() {
        let mut bytes = Vec::new();
        write(&sample(), &mut bytes).expect("memory takes all");
        let mut rest = bytes.as_slice();
        let mut seen = Vec::new();
        loop {
            let mut reader = newc::Reader::new(rest).expect("an entry");
            if reader.entry().is_trailer() {
                break;
            }
            let mut content = String::new();
            reader.read_to_string(&mut content).expect("text");
            let entry = reader.entry();
            seen.push((entry.name().to_owned(), entry.mode(), entry.rdev_major(), content));
            rest = reader.finish().expect("the next entry");
        }
        let expected = [
            ("bin", 0o120_777, 0, "usr/bin"),
            ("dev", 0o040_755, 0, ""),
            ("dev/console", 0o020_600, 5, ""),
            ("usr", 0o040_755, 0, ""),
            ("usr/bin", 0o040_755, 0, ""),
            ("usr/bin/x", 0o100_755, 0, "content"),
        ];
        let expected = expected.map(|(n, m, r, c)| (n.to_owned(), m, r, c.to_owned()));
        assert_eq!(seen, expected);
    }

    #[test]
    fn a_packed_archive_unpacks_to_itself() {
        let plain: Vec<u8> = (0..20_000_000_u32).map(|i| (i / 1000) as u8).collect();
        let mut packed = Vec::new();
        compress(&plain, &mut packed).expect("memory takes all");
        assert!(packed.len() < plain.len() / 10);
        let mut again = Vec::new();
        lz4_flex::frame::FrameDecoder::new(packed.as_slice()).read_to_end(&mut again).expect("LZ4");
        assert!(again == plain);
    }

    #[test]
    fn the_same_tree_gives_the_same_bytes() {
        let (mut one, mut two) = (Vec::new(), Vec::new());
        write(&sample(), &mut one).expect("memory takes all");
        write(&sample(), &mut two).expect("memory takes all");
        assert_eq!(one, two);
    }
}
