//! Looks for lines of a dying or restarting guest in console text.
//!
//! Pure. Lines are looked at once complete, and the unfinished last one each time it grows (a login
//! prompt ends with no newline). Only the first kilobyte of a line counts.

use regex::bytes::RegexSet;

use crate::os::Os;

const LINE_BYTES: usize = 1024;

/// See the module's documentation.
pub(super) struct Watch {
    patterns: RegexSet,
    partial: Vec<u8>,
}

impl Watch {
    /// Looks for the patterns `panic` and `restart` of `os`.
    pub(super) fn new(os: &Os) -> Self {
        let patterns = [os.panic, os.restart];
        Self {
            patterns: RegexSet::new(patterns.into_iter().flatten())
                .expect("the patterns of the table compile (tested)"),
            partial: Vec::new(),
        }
    }

    /// A whole line: the line itself if it means trouble.
    pub(super) fn line(&mut self, line: &[u8]) -> Option<String> {
        self.patterns.is_match(line).then(|| String::from_utf8_lossy(line).trim().to_owned())
    }

    /// More text: the first line in it that means trouble.
    pub(super) fn text(&mut self, text: &[u8]) -> Option<String> {
        if self.patterns.is_empty() {
            return None;
        }
        let mut found = None;
        for piece in text.split_inclusive(|&b| b == b'\n') {
            let room = LINE_BYTES - self.partial.len();
            self.partial.extend_from_slice(&piece[..piece.len().min(room)]);
            if piece.ends_with(b"\n") {
                let line = std::mem::take(&mut self.partial);
                found = found.or_else(|| self.line(line.trim_ascii_end()));
            }
        }
        let partial = std::mem::take(&mut self.partial);
        found = found.or_else(|| self.line(&partial));
        self.partial = partial;
        found
    }
}
