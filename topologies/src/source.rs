//! Source files and positions in them.
//!
//! Purpose: every value keeps the place it was written, so that every error can point there.
//! Assumptions: texts are UTF-8 and at most [`MAX_FILE_BYTES`] long.

use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Largest file that is read: a topology of 20,000 nodes written out one by one is about 2 MB.
pub(crate) const MAX_FILE_BYTES: u64 = 8 << 20;

/// A range of bytes in one of the files.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Span {
    /// Index into [`Sources`].
    pub(crate) file: usize,
    /// First byte.
    pub(crate) start: usize,
    /// One past the last byte.
    pub(crate) end: usize,
}

/// One file: its name for people and its text.
#[derive(Debug, Clone)]
pub(crate) struct Source {
    pub(crate) name: String,
    /// What its relative paths are relative to.
    pub(crate) dir: PathBuf,
    pub(crate) text: Arc<str>,
    /// Byte offset at which each line begins.
    lines: Vec<usize>,
}

/// All files of one topology.
#[derive(Debug, Default)]
pub(crate) struct Sources {
    files: Vec<Source>,
}

impl Sources {
    /// Adds a file and returns its index.
    pub(crate) fn add(&mut self, name: &str, text: &str) -> usize {
        self.add_in(name, text, Path::new(""))
    }

    /// Adds a file unless there is one of this name, and returns its index.
    pub(crate) fn add_once(&mut self, name: &str, text: &str) -> usize {
        let present = self.files.iter().position(|file| file.name == name);
        present.unwrap_or_else(|| self.add(name, text))
    }

    /// Adds a file that stands in this directory, and returns its index.
    pub(crate) fn add_in(&mut self, name: &str, text: &str, dir: &Path) -> usize {
        let lines =
            std::iter::once(0).chain(text.match_indices('\n').map(|(at, _)| at + 1)).collect();
        let (name, dir) = (name.to_owned(), dir.to_owned());
        self.files.push(Source { name, dir, text: text.into(), lines });
        self.files.len() - 1
    }

    pub(crate) fn file(&self, index: usize) -> &Source {
        &self.files[index]
    }

    /// The text under a span.
    pub(crate) fn slice(&self, span: Span) -> &str {
        self.files[span.file].text.get(span.start..span.end).unwrap_or("")
    }
}

impl Source {
    /// Line and column of a byte offset, both from 1; the column counts characters.
    pub(crate) fn position(&self, offset: usize) -> (usize, usize) {
        let line = self.lines.partition_point(|&start| start <= offset).max(1);
        let start = self.lines[line - 1];
        let column = self.text.get(start..offset).map_or(0, |before| before.chars().count());
        (line, column + 1)
    }

    /// Where a line begins, and its text without its end; counted from 0.
    pub(crate) fn line(&self, at: usize) -> Option<(usize, &str)> {
        let start = *self.lines.get(at)?;
        let end = self.lines.get(at + 1).map_or(self.text.len(), |next| next - 1);
        let line = self.text.get(start..end)?;
        Some((start, line.strip_suffix('\r').unwrap_or(line)))
    }

    /// The nearest span that lies in the text, on character boundaries.
    pub(crate) fn clamp(&self, span: Span) -> Span {
        let floor = |mut at: usize| {
            at = at.min(self.text.len());
            while !self.text.is_char_boundary(at) {
                at -= 1;
            }
            at
        };
        let start = floor(span.start);
        Span { file: span.file, start, end: floor(span.end.max(start)) }
    }

    /// Shortens a span to its first line: a label over a whole block hides what it labels.
    pub(crate) fn first_line(&self, span: Span) -> Span {
        let span = self.clamp(span);
        let text = &self.text[span.start..span.end];
        let length = text.lines().next().map_or(0, |line| line.trim_end().len());
        Span { end: span.start + length, ..span }
    }
}
