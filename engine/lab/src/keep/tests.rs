use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixListener;

use nix::unistd::mkfifo;

use super::*;

/// A node's files, and where they are kept.
struct Trees {
    node: tempfile::TempDir,
    target: tempfile::TempDir,
}

impl Trees {
    fn new() -> Self {
        let directory = || tempfile::tempdir().expect("a directory");
        Self { node: directory(), target: directory() }
    }

    fn copy(&self, path: &str) -> (io::Result<()>, Vec<Special>) {
        let root = File::open(self.node.path()).expect("it opens");
        let mut special = Vec::new();
        let copied = copy_below(&root, Path::new(path), self.target.path(), &mut special);
        (copied, special)
    }

    fn at(&self, path: &str) -> PathBuf {
        self.node.path().join(path)
    }

    fn kept(&self, path: &str) -> PathBuf {
        self.target.path().join(path)
    }
}

#[test]
fn links_stay_links_and_special_files_are_named() {
    let trees = Trees::new();
    std::fs::create_dir_all(trees.at("var/log/sub")).expect("made");
    std::fs::write(trees.at("var/log/sub/text"), "here").expect("written");
    symlink("sub/text", trees.at("var/log/link")).expect("made");
    symlink("/etc/nowhere", trees.at("var/log/dangling")).expect("made");
    mkfifo(&trees.at("var/log/fifo"), Mode::S_IRWXU).expect("made");
    let _socket = UnixListener::bind(trees.at("var/log/socket")).expect("made");
    let (copied, special) = trees.copy("var/log");
    copied.expect("copied");
    let what: Vec<_> = special.iter().map(|(p, what)| (p.to_str().unwrap(), *what)).collect();
    assert_eq!(what, [("/var/log/fifo", "a FIFO"), ("/var/log/socket", "a socket")]);
    assert_eq!(std::fs::read_to_string(trees.kept("var/log/link")).expect("follows"), "here");
    let link = std::fs::read_link(trees.kept("var/log/dangling")).expect("a link");
    assert_eq!(link, Path::new("/etc/nowhere"));
    assert!(!trees.kept("var/log/fifo").exists());
}

#[test]
fn what_is_asked_for_by_name_is_kept_or_refused() {
    let trees = Trees::new();
    mkfifo(&trees.at("fifo"), Mode::S_IRWXU).expect("made");
    symlink("/fifo", trees.at("link")).expect("made");
    let (copied, special) = trees.copy("fifo");
    assert_eq!(copied.expect_err("not kept").to_string(), "it is a FIFO");
    assert_eq!(special, []);
    trees.copy("link").0.expect("kept");
    assert_eq!(std::fs::read_link(trees.kept("link")).expect("a link"), Path::new("/fifo"));
    assert_eq!(trees.copy("none").0.expect_err("not there").kind(), io::ErrorKind::NotFound);
}

#[test]
fn links_on_the_way_are_the_nodes_own() {
    let trees = Trees::new();
    std::fs::create_dir(trees.at("run")).expect("made");
    std::fs::write(trees.at("run/hostname"), "the node's").expect("written");
    symlink("/run", trees.at("etc")).expect("made");
    // The host has an /etc/hostname, or none; the node's is meant.
    trees.copy("etc/hostname").0.expect("kept");
    assert_eq!(std::fs::read_to_string(trees.kept("etc/hostname")).expect("text"), "the node's");
    symlink("../../../../etc", trees.at("up")).expect("made");
    trees.copy("up/hostname").0.expect("`..` ends at the node's root");
}

#[test]
fn holes_stay_holes_and_bytes_and_modes_the_same() {
    let trees = Trees::new();
    let path = trees.at("sparse");
    let mut file = File::create(&path).expect("made");
    for (at, text) in [(0, "begin"), (64 << 20, "middle")] {
        file.seek(SeekFrom::Start(at)).expect("sought");
        std::io::Write::write_all(&mut file, text.as_bytes()).expect("written");
    }
    file.set_len(128 << 20).expect("made longer");
    std::fs::set_permissions(&path, Permissions::from_mode(0o751)).expect("set");
    trees.copy("sparse").0.expect("kept");
    let kept = trees.kept("sparse");
    let metadata = kept.metadata().expect("there");
    assert_eq!((metadata.len(), metadata.mode() & 0o777), (128 << 20, 0o751));
    assert!(metadata.blocks() * 512 < 1 << 20, "{} bytes on disk", metadata.blocks() * 512);
    let mut copy = File::open(kept).expect("opens");
    let mut text = [0; 7];
    copy.seek(SeekFrom::Start((64 << 20) - 1)).expect("sought");
    copy.read_exact(&mut text).expect("read");
    assert_eq!(&text, b"\0middle");
    std::fs::write(trees.at("empty"), "").expect("written");
    trees.copy("empty").0.expect("kept");
    assert_eq!(trees.kept("empty").metadata().expect("there").len(), 0);
}
