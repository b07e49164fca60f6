//! From a path to checked trees: reading, `include`, and what can be wrong with files themselves.
//!
//! Purpose: the only part of the crate that touches the file system.
//! Assumptions: an include is relative to the file that names it; a file included twice by
//! different ways counts once.

use std::fs::File;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use crate::check::check;
use crate::diagnostics::{Problems, report};
use crate::keys;
use crate::shape::Shape;
use crate::source::{MAX_FILE_BYTES, Span};
use crate::tree::{self, Yaml};

/// More files than this in one topology are a mistake.
const MAX_FILES: usize = 256;

/// The files of one topology, each after the ones it includes; the main file is the last.
#[derive(Debug, Default)]
pub(crate) struct Files {
    pub(crate) roots: Vec<Yaml>,
    /// Files being read, outermost first: canonical path and name for people.
    open: Vec<(PathBuf, String)>,
    seen: Vec<PathBuf>,
    /// A file could not be read: names it would have declared are unknown now.
    pub(crate) incomplete: bool,
}

/// The bytes of a file of text, or why it could not be read.
pub(crate) fn read(path: &Path) -> Result<Vec<u8>, String> {
    read_at_most(path, MAX_FILE_BYTES)
}

/// The bytes of a file that has no more than `limit`, or why it could not be read.
pub(crate) fn read_at_most(path: &Path, limit: u64) -> Result<Vec<u8>, String> {
    let mut file = File::open(path).map_err(|error| error.to_string())?;
    if file.metadata().map_err(|error| error.to_string())?.is_dir() {
        return Err("it is a directory, not a file".to_owned());
    }
    let mut bytes = Vec::new();
    file.by_ref().take(limit + 1).read_to_end(&mut bytes).map_err(|error| error.to_string())?;
    if bytes.len() as u64 > limit {
        return Err(format!("it is larger than {} MiB", limit >> 20));
    }
    Ok(bytes)
}

impl Files {
    /// Reads the main file and all that it includes.
    pub(crate) fn load(problems: &mut Problems, path: &Path) -> Self {
        let mut files = Self::default();
        files.load_file(problems, path, &path.display().to_string(), None);
        files
    }

    /// Reads a main file from text; includes are relative to `base`.
    pub(crate) fn load_text(problems: &mut Problems, name: &str, text: &str, base: &Path) -> Self {
        let mut files = Self::default();
        files.load_source(problems, name, text, base);
        files
    }

    /// Records that a file could not be read.
    fn fail(&mut self, problems: &mut Problems, at: Option<Span>, wrong: String) {
        self.incomplete = true;
        match at {
            Some(span) => problems.add(span, report(wrong).expected("named here")),
            None => problems.add_unplaced(report(wrong)),
        }
    }

    /// Reads a file that another one names at `at`, and all that it includes.
    pub(crate) fn load_file(
        &mut self,
        problems: &mut Problems,
        path: &Path,
        name: &str,
        at: Option<Span>,
    ) {
        let canonical = match path.canonicalize() {
            Ok(canonical) => canonical,
            // A pipe, as /dev/stdin may be, has no other name.
            Err(_) if path.exists() => path.to_owned(),
            Err(error) => return self.fail(problems, at, format!("cannot read `{name}`: {error}")),
        };
        if let Some(first) = self.open.iter().position(|(open, _)| *open == canonical) {
            let mut chain: Vec<&str> =
                self.open[first..].iter().map(|(_, name)| name.as_str()).collect();
            chain.push(name);
            let wrong = format!("files include each other in a loop: {}", chain.join(" → "));
            return self.fail(problems, at, wrong);
        }
        if self.seen.contains(&canonical) {
            return;
        }
        if self.seen.len() == MAX_FILES {
            return self.fail(
                problems,
                at,
                format!("the topology includes more than {MAX_FILES} files"),
            );
        }
        self.seen.push(canonical.clone());
        let bytes = match read(path) {
            Ok(bytes) => bytes,
            Err(reason) => {
                return self.fail(problems, at, format!("cannot read `{name}`: {reason}"));
            }
        };
        let base = path.parent().unwrap_or(Path::new("")).to_owned();
        self.open.push((canonical, name.to_owned()));
        match std::str::from_utf8(&bytes) {
            Ok(text) => self.load_source(problems, name, text, &base),
            Err(error) => {
                let valid = error.valid_up_to();
                let text = String::from_utf8_lossy(&bytes[..valid]);
                let file = problems.sources.add(name, &text);
                let wrong = format!(
                    "`{name}` is not UTF-8 text: its byte {valid} is 0x{:02x}",
                    bytes[valid]
                );
                let span = Span { file, start: valid, end: valid };
                self.incomplete = true;
                problems.add(span, report(wrong).expected("the text ends here"));
            }
        }
        self.open.pop();
    }

    fn load_source(&mut self, problems: &mut Problems, name: &str, text: &str, base: &Path) {
        let file = problems.sources.add_in(name, text, base);
        let before = problems.count();
        let root = tree::parse(problems, file);
        let Some(root) = root.filter(|root| !root.is_null()) else {
            self.incomplete = true;
            if problems.count() == before {
                let empty = report(format!("`{name}` is empty"));
                let help = "a topology has at least `nodes:`; docs/topology.md shows a small one";
                problems.add(
                    Span { file, start: 0, end: 0 },
                    empty.expected("expected a topology").help(help),
                );
            }
            return;
        };
        check(problems, &root, &Shape::Object(&keys::TOP), "the file");
        for include in root.get("include").map(crate::read::one_or_many).unwrap_or_default() {
            let Some(relative) = include.scalar() else { continue };
            if crate::template::has_expression(relative) {
                let wrong =
                    report("`include` cannot hold expressions: files are read before parameters");
                problems.add(include.span, wrong.expected("expected a path"));
                continue;
            }
            let path = base.join(relative);
            self.load_file(problems, &path, &path.display().to_string(), Some(include.span));
        }
        self.roots.push(root);
    }
}
