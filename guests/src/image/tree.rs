//! The file tree of a guest, in memory: files from packages, without what a guest never reads.
//!
//! Paths are relative, without `./`, with `/usr` merged as Debian does: `bin/x` is `usr/bin/x`.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use object::read::elf::{Dyn, FileHeader};

/// One entry of a tree.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Entry {
    /// Permission bits.
    pub(super) mode: u32,
    pub(super) kind: Kind,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Kind {
    Directory,
    File(Vec<u8>),
    Symlink(String),
    /// Character device: major, minor.
    Device(u32, u32),
}

/// Entries by path. Parents of entries need not be in it; the archive adds them.
pub(super) type Tree = BTreeMap<String, Entry>;

pub(super) fn file(mode: u32, content: impl Into<Vec<u8>>) -> Entry {
    Entry { mode, kind: Kind::File(content.into()) }
}

pub(super) fn symlink(target: &str) -> Entry {
    Entry { mode: 0o777, kind: Kind::Symlink(target.into()) }
}

pub(super) fn directory(mode: u32) -> Entry {
    Entry { mode, kind: Kind::Directory }
}

/// Why a package's files could not be read.
#[derive(Debug, thiserror::Error)]
#[error("cannot unpack `{}`: {reason}; remove it and build again", path.display())]
pub struct UnpackError {
    path: PathBuf,
    reason: String,
}

/// Documentation, translations, set-up of a whole system, and `arpd`, which nobody runs and which
/// alone would bring a database library of 2 MB.
const LEFT_OUT: &[&str] = &[
    "etc/apparmor.d/",
    "etc/cron",
    "etc/init/",
    "etc/logrotate.d/",
    "etc/systemd/",
    "usr/include/",
    "usr/lib/debug/",
    "usr/lib/systemd/",
    "usr/lib/udev/",
    "usr/sbin/arpd/",
    "usr/lib/x86_64-linux-gnu/audit/",
    "usr/lib/x86_64-linux-gnu/gconv/",
    "usr/share/apport/",
    "usr/share/applications/",
    "usr/share/bash-completion/",
    "usr/share/bug/",
    "usr/share/common-licenses/",
    "usr/share/doc-base/",
    "usr/share/doc/",
    "usr/share/fish/",
    "usr/share/gdb/",
    "usr/share/icons/",
    "usr/share/info/",
    "usr/share/initramfs-tools/",
    "usr/share/lintian/",
    "usr/share/locale/",
    "usr/share/man/",
    "usr/share/metainfo/",
    "usr/share/pixmaps/",
    "usr/share/zsh/",
];

/// The files of a `.deb` that a guest may need.
pub(super) fn unpack(deb: &Path) -> Result<Tree, UnpackError> {
    let failed = |reason: String| UnpackError { path: deb.into(), reason };
    let mut child = Command::new("dpkg-deb")
        .arg("--fsys-tarfile")
        .arg(deb)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|error| failed(format!("dpkg-deb does not run: {error}")))?;
    let pipe = child.stdout.take().expect("standard output is piped");
    let tree = read_tar(pipe);
    // dpkg-deb writes a few lines at most, so it never blocks on them while we read the archive.
    let output = child.wait_with_output().map_err(|error| failed(error.to_string()))?;
    if !output.status.success() {
        return Err(failed(first_lines(&output.stderr)));
    }
    tree.map_err(|error| failed(error.to_string()))
}

/// Writes all files of a `.deb` below `directory`, which is made.
pub(super) fn extract(deb: &Path, directory: &Path) -> Result<(), UnpackError> {
    let failed = |reason: String| UnpackError { path: deb.into(), reason };
    let output = Command::new("dpkg-deb")
        .arg("--extract")
        .args([deb, directory])
        .stdin(Stdio::null())
        .output()
        .map_err(|error| failed(format!("dpkg-deb does not run: {error}")))?;
    if output.status.success() {
        return Ok(());
    }
    Err(failed(first_lines(&output.stderr)))
}

/// What a program said, in a length that a person reads: on a full disk tar names each file.
fn first_lines(said: &[u8]) -> String {
    const LINES: usize = 3;
    let said = String::from_utf8_lossy(said);
    let mut lines = said.trim().lines();
    let mut text = lines.by_ref().take(LINES).collect::<Vec<_>>().join("\n");
    let more = lines.count();
    if more > 0 {
        let _ = write!(text, "\n… and {more} more lines");
    }
    text
}

fn read_tar(from: impl Read) -> io::Result<Tree> {
    let mut tree = Tree::new();
    let mut archive = tar::Archive::new(from);
    for entry in archive.entries()? {
        let mut entry = entry?;
        let Some(path) = merged(&entry.path()?.to_string_lossy()) else { continue };
        if left_out(&path) {
            continue;
        }
        let mode = entry.header().mode()? & 0o7777;
        let target = entry.link_name()?.map(|name| name.to_string_lossy().into_owned());
        let entry = match entry.header().entry_type() {
            tar::EntryType::Directory => directory(mode),
            tar::EntryType::Symlink => symlink(&target.unwrap_or_default()),
            tar::EntryType::Link => {
                let target = target.and_then(|target| merged(&target)).unwrap_or_default();
                let Some(original) = tree.get(&target) else { continue };
                original.clone()
            }
            tar::EntryType::Regular => {
                let mut content = Vec::new();
                entry.read_to_end(&mut content)?;
                file(mode, content)
            }
            _ => continue,
        };
        tree.insert(path, entry);
    }
    // Left to the end because hard links may name them.
    tree.retain(|path, _| {
        let extension = Path::new(path).extension();
        !extension.is_some_and(|extension| extension == "a" || extension == "la")
    });
    Ok(tree)
}

/// A path of an archive in the merged layout; `None` for the root and the merged directories.
fn merged(path: &str) -> Option<String> {
    let path = path.trim_start_matches("./").trim_matches('/');
    if path.is_empty() || path.split('/').any(|part| part == "..") {
        return None;
    }
    let first = path.split('/').next().unwrap_or_default();
    match first {
        "bin" | "sbin" | "lib" | "lib64" if first == path => None,
        "bin" | "sbin" | "lib" | "lib64" => Some(format!("usr/{path}")),
        _ => Some(path.to_owned()),
    }
}

fn left_out(path: &str) -> bool {
    let as_directory = format!("{path}/");
    LEFT_OUT.iter().any(|prefix| path.starts_with(prefix) || as_directory == *prefix)
}

/// Where Debian's dynamic loader looks.
const LIBRARY_DIRECTORIES: &[&str] = &["usr/lib/x86_64-linux-gnu/", "usr/lib/", "usr/lib64/"];

/// Whether a path is a shared library where the loader finds it by name.
fn is_shared_library(path: &str) -> bool {
    LIBRARY_DIRECTORIES.iter().any(|directory| {
        path.strip_prefix(directory).is_some_and(|name| !name.contains('/') && name.contains(".so"))
    })
}

/// Divides a library package's files into what always goes in and what goes in when needed.
pub(super) fn split_libraries(tree: Tree) -> (Tree, Tree) {
    tree.into_iter().partition(|(path, _)| !is_shared_library(path))
}

/// Adds to `tree` the libraries of `pool` that its programs need, and theirs in turn.
///
/// Returns needed names that nobody has; a program may still run without them.
pub(super) fn add_needed(tree: &mut Tree, pool: &Tree) -> BTreeSet<String> {
    let mut missing = BTreeSet::new();
    let mut open: Vec<String> = tree.keys().cloned().collect();
    while let Some(path) = open.pop() {
        let names = match tree.get(&path).map(|entry| &entry.kind) {
            Some(Kind::File(content)) => needed(content),
            Some(Kind::Symlink(target)) if is_shared_library(&path) => {
                vec![target.rsplit('/').next().unwrap_or_default().to_owned()]
            }
            _ => continue,
        };
        for name in names {
            let places = || LIBRARY_DIRECTORIES.iter().map(|dir| format!("{dir}{name}"));
            if places().any(|place| tree.contains_key(&place)) {
                continue;
            }
            match places().find_map(|place| pool.get_key_value(&place)) {
                Some((place, entry)) => {
                    tree.insert(place.clone(), entry.clone());
                    open.push(place.clone());
                }
                None => {
                    missing.insert(name);
                }
            }
        }
    }
    missing
}

/// Libraries an ELF file needs, and its loader; nothing for other files.
fn needed(content: &[u8]) -> Vec<String> {
    parse_needed(content).unwrap_or_default()
}

fn parse_needed(content: &[u8]) -> Option<Vec<String>> {
    if !content.starts_with(object::elf::ELFMAG.as_slice()) {
        return None;
    }
    let header = object::elf::FileHeader64::<object::Endianness>::parse(content).ok()?;
    let endian = header.endian().ok()?;
    let sections = header.sections(endian, content).ok()?;
    let mut names = Vec::new();
    for segment in header.program_headers(endian, content).ok()? {
        use object::read::elf::ProgramHeader;
        if let Ok(Some(path)) = segment.interpreter(endian, content) {
            let path = String::from_utf8_lossy(path);
            names.push(path.rsplit('/').next().unwrap_or_default().to_owned());
        }
    }
    if let Ok(Some((dynamic, strings))) = sections.dynamic(endian, content) {
        let strings = sections.strings(endian, content, strings).ok()?;
        for entry in dynamic {
            if entry.tag(endian) == object::elf::DT_NEEDED
                && let Ok(name) = entry.string(endian, strings)
            {
                names.push(String::from_utf8_lossy(name).into_owned());
            }
        }
    }
    Some(names)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_move_below_usr_and_never_climb() {
        assert_eq!(merged("./bin/ip").as_deref(), Some("usr/bin/ip"));
        assert_eq!(merged("./usr/bin/ip").as_deref(), Some("usr/bin/ip"));
        assert_eq!(merged("./lib/"), None);
        assert_eq!(merged("./"), None);
        assert_eq!(merged("../etc/passwd"), None);
        assert_eq!(merged("./binary").as_deref(), Some("binary"));
    }

    #[test]
    fn needed_libraries_follow_links_and_unneeded_ones_stay_out() {
        // The test program itself is an ELF file that needs at least the C library.
        let program = std::fs::read("/proc/self/exe").expect("a program can read itself");
        assert!(needed(&program).iter().any(|name| name == "libc.so.6"));
        let mut tree = Tree::from([("usr/bin/x".to_owned(), file(0o755, program))]);
        let library = |name: &str| format!("usr/lib/x86_64-linux-gnu/{name}");
        let pool = Tree::from([
            (library("libc.so.6"), symlink("libc-2.so")),
            (library("libc-2.so"), file(0o644, "not ELF")),
            (library("libother.so.1"), file(0o644, "not ELF")),
        ]);
        let missing = add_needed(&mut tree, &pool);
        assert!(
            tree.contains_key(&library("libc.so.6")) && tree.contains_key(&library("libc-2.so"))
        );
        assert!(!tree.contains_key(&library("libother.so.1")));
        assert!(!missing.contains("libc.so.6"));
    }

    #[test]
    fn damaged_elf_needs_nothing_and_does_not_panic() {
        let program = std::fs::read("/proc/self/exe").expect("a program can read itself");
        for length in [0, 3, 4, 16, 63, 64, 65, 200, 1000] {
            needed(&program[..length]);
        }
    }
}
