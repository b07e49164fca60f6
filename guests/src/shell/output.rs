//! What a command wrote: bounded in memory, whole in a file if asked.
//!
//! Keeps the first and the last half of the limit, for programs print what matters at either end.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, Write};
use std::path::Path;

/// A command's output (standard output and standard error as they came).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Output {
    /// The bytes; if [`Output::is_truncated`], the first and last ones with a line between that says
    /// how many are missing.
    pub bytes: Vec<u8>,
    /// How many bytes the command wrote. For a background command whose output was cut in the guest,
    /// how many were kept there.
    pub total: u64,
    /// Bytes are missing from `bytes`.
    pub is_truncated: bool,
    /// Why the file with the whole output is incomplete, if it is.
    pub file_error: Option<String>,
}

impl Output {
    /// The bytes as text; what is not UTF-8 becomes U+FFFD.
    pub fn to_text(&self) -> String {
        String::from_utf8_lossy(&self.bytes).into_owned()
    }
}

/// Collects an [`Output`].
#[derive(Debug)]
pub struct Collector {
    half: usize,
    head: Vec<u8>,
    tail: VecDeque<u8>,
    total: u64,
    file: Option<File>,
    file_error: Option<String>,
}

impl Collector {
    /// Keeps at most about `limit` bytes in memory and writes all of them to `file`, if given.
    pub fn new(limit: usize, file: Option<&Path>) -> io::Result<Self> {
        Ok(Self {
            half: limit / 2,
            head: Vec::new(),
            tail: VecDeque::new(),
            total: 0,
            file: file.map(File::create).transpose()?,
            file_error: None,
        })
    }

    /// Takes more output.
    pub fn push(&mut self, bytes: &[u8]) {
        self.total += bytes.len() as u64;
        if let Some(file) = &mut self.file
            && let Err(error) = file.write_all(bytes)
        {
            self.file_error = Some(error.to_string());
            self.file = None;
        }
        let room = (self.half - self.head.len()).min(bytes.len());
        let (head, rest) = bytes.split_at(room);
        self.head.extend_from_slice(head);
        let rest = &rest[rest.len().saturating_sub(self.half)..];
        let surplus = (self.tail.len() + rest.len()).saturating_sub(self.half);
        self.tail.drain(..surplus);
        self.tail.extend(rest);
    }

    /// The output.
    pub fn finish(self) -> Output {
        let mut bytes = self.head;
        let kept = (bytes.len() + self.tail.len()) as u64;
        let missing = self.total - kept;
        if missing > 0 {
            bytes.extend_from_slice(format!("\n[… {missing} bytes not kept …]\n").as_bytes());
        }
        let (a, b) = self.tail.as_slices();
        bytes.extend_from_slice(a);
        bytes.extend_from_slice(b);
        Output { bytes, total: self.total, is_truncated: missing > 0, file_error: self.file_error }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn collect(limit: usize, chunks: &[&[u8]]) -> Output {
        let mut collector = Collector::new(limit, None).expect("no file");
        for chunk in chunks {
            collector.push(chunk);
        }
        collector.finish()
    }

    #[test]
    fn short_output_is_whole() {
        let output = collect(8, &[b"abc", b"defgh"]);
        assert_eq!(output.bytes, b"abcdefgh");
        assert!(!output.is_truncated);
    }

    #[test]
    fn long_output_keeps_both_ends_and_the_true_length() {
        for chunks in [&[&b"abcdefghijkl"[..]][..], &[b"abcde", b"f", b"ghijkl"]] {
            let output = collect(8, chunks);
            assert_eq!(output.total, 12);
            assert!(output.is_truncated);
            assert_eq!(output.to_text(), "abcd\n[… 4 bytes not kept …]\nijkl");
        }
    }

    #[test]
    fn a_full_disk_is_told() {
        let mut collector = Collector::new(8, Some(Path::new("/dev/full"))).expect("opens");
        collector.push(b"abc");
        let output = collector.finish();
        assert_eq!(output.bytes, b"abc");
        assert!(output.file_error.is_some());
    }
}
