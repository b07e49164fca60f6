//! A node's console: every byte that a guest writes, kept for people.
//!
//! Purpose: a [`Console`] appends all bytes to a log file (`console/NODE.log`), holds the last lines
//! for error messages, and hands live bytes to whoever subscribed (`tapestry attach`).
//!
//! Assumes one writer. The log is unchanged bytes; the lines of [`Console::last_lines`] are made
//! readable (terminal codes, control bytes and what the shell proxy and its agent say to each other
//! removed). Not modelled: scroll-back of a terminal.
//!
//! A log that cannot be written (disk full) does not stop the node: the first error is kept and
//! reported by [`Console::log_error`].

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, Write};
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::broadcast;

use crate::shell::{Unframed, is_loader};

/// Lines held for error messages.
const LINES: usize = 20;
/// Longest line held; longer ones are cut, the log has them whole.
const LINE_BYTES: usize = 400;
/// Bursts a slow subscriber may be behind before it loses the oldest.
const BACKLOG: usize = 1024;

/// Handle to a node's console; clones share it.
#[derive(Debug, Clone)]
pub struct Console {
    inner: Arc<Mutex<Inner>>,
    live: broadcast::Sender<Arc<[u8]>>,
}

#[derive(Debug)]
struct Inner {
    log: Option<File>,
    log_error: Option<String>,
    lines: VecDeque<Vec<u8>>,
    partial: Vec<u8>,
    unframed: Unframed,
}

impl Console {
    /// A console that appends to the file `log`, or only keeps the last lines.
    pub fn open(log: Option<&Path>) -> io::Result<Self> {
        let log =
            log.map(|path| File::options().create(true).append(true).open(path)).transpose()?;
        Ok(Self {
            inner: Arc::new(Mutex::new(Inner {
                log,
                log_error: None,
                lines: VecDeque::new(),
                partial: Vec::new(),
                unframed: Unframed::default(),
            })),
            live: broadcast::Sender::new(BACKLOG),
        })
    }

    /// Takes what the guest wrote.
    pub fn append(&self, bytes: &[u8]) {
        let mut inner = self.lock();
        if let Some(log) = &mut inner.log
            && let Err(error) = log.write_all(bytes)
        {
            inner.log_error = Some(error.to_string());
            inner.log = None;
        }
        let text = inner.unframed.feed(bytes);
        inner.keep_lines(&text);
        drop(inner);
        if self.live.receiver_count() > 0 {
            // Fails only when the last subscriber has just left.
            let _ = self.live.send(bytes.into());
        }
    }

    /// The last lines, oldest first, readable; the unfinished line counts as one.
    pub fn last_lines(&self) -> Vec<String> {
        let inner = self.lock();
        let partial = (!inner.partial.is_empty()).then_some(&inner.partial);
        readable(inner.lines.iter().chain(partial).map(Vec::as_slice))
    }

    /// Live bytes from now on, in bursts. A subscriber that falls far behind is told how many it lost.
    pub fn subscribe(&self) -> broadcast::Receiver<Arc<[u8]>> {
        self.live.subscribe()
    }

    /// Why the log ends early, if it does.
    pub fn log_error(&self) -> Option<String> {
        self.lock().log_error.clone()
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // The state is valid after every statement, so a panic elsewhere does not spoil it.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    fn keep_lines(&mut self, bytes: &[u8]) {
        // Of a large burst only the end can stay in the ring.
        let start = bytes.len().saturating_sub(LINES * LINE_BYTES);
        if start > 0 {
            self.partial.clear();
        }
        for piece in bytes[start..].split_inclusive(|&b| b == b'\n') {
            let (text, ended) = match piece.split_last() {
                Some((b'\n', text)) => (text, true),
                _ => (piece, false),
            };
            let room = LINE_BYTES.saturating_sub(self.partial.len());
            self.partial.extend_from_slice(&text[..text.len().min(room)]);
            if ended {
                if self.lines.len() == LINES {
                    self.lines.pop_front();
                }
                self.lines.push_back(std::mem::take(&mut self.partial));
            }
        }
    }
}

/// The last lines of a console's log as [`Console::last_lines`] gives them, at most `most`.
pub fn last_lines_of(log: &[u8], most: usize) -> Vec<String> {
    let text = Unframed::default().feed(log);
    let mut lines = readable(text.split(|&byte| byte == b'\n'));
    lines.split_off(lines.len().saturating_sub(most))
}

fn readable<'a>(lines: impl Iterator<Item = &'a [u8]>) -> Vec<String> {
    lines
        .map(|line| String::from_utf8_lossy(&without_terminal_codes(line)).into_owned())
        .filter(|line| !line.trim().is_empty() && !is_loader(line))
        .collect()
}

/// `bytes` without escape sequences (ECMA-48: CSI, OSC, two-byte ones) and control bytes other than
/// tab and newline. A sequence cut by the end is dropped.
pub fn without_terminal_codes(bytes: &[u8]) -> Vec<u8> {
    let mut clean = Vec::with_capacity(bytes.len());
    let mut rest = bytes.iter().copied().peekable();
    while let Some(byte) = rest.next() {
        match byte {
            0x1b => match rest.next() {
                Some(b'[') => {
                    // Parameter and intermediate bytes, then one final byte.
                    while rest.next().is_some_and(|b| (0x20..0x40).contains(&b)) {}
                }
                Some(b']') => {
                    // Up to BEL or ESC \.
                    while let Some(b) = rest.next() {
                        if b == 0x07 || (b == 0x1b && rest.next_if_eq(&b'\\').is_some()) {
                            break;
                        }
                    }
                }
                Some(b'(' | b')') => {
                    rest.next();
                }
                _ => {}
            },
            b'\t' | b'\n' => clean.push(byte),
            0x00..0x20 | 0x7f => {}
            _ => clean.push(byte),
        }
    }
    clean
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keeps_the_last_lines_and_the_unfinished_one() {
        let console = Console::open(None).expect("no file, no error");
        for i in 0..30 {
            console.append(format!("line {i}\r\n").as_bytes());
        }
        console.append(b"\x1b[1;31mlogin\x1b[0m: ");
        let lines = console.last_lines();
        assert_eq!(lines.len(), LINES + 1);
        assert_eq!(lines[0], "line 10");
        assert_eq!(lines[LINES], "login: ");
    }

    #[test]
    fn what_the_shell_proxy_says_is_not_shown() {
        let bytes = b"login\r\n# [ -t 0 ]&&{ stty raw -echo;stty 115200;}\r\n\
            \x1eb981ece7acf0cbde load\x1f\x1ebc339aaba2c95c69 ready /dev/shm/.tapestry-0 -\x1f\
            \x1e0123456789abcdef start 11\x1fhello\n\x1e0123456789abcdef end 0\x1fworld\
            \x1e0123456789abcdef";
        let console = Console::open(None).expect("no file, no error");
        for burst in bytes.chunks(5) {
            console.append(burst);
        }
        assert_eq!(console.last_lines(), ["login", "hello", "world"]);
        assert_eq!(last_lines_of(bytes, 2), ["hello", "world"]);
    }

    #[test]
    fn logs_bytes_unchanged_and_appends() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let path = dir.path().join("n0.log");
        for _ in 0..2 {
            let console = Console::open(Some(&path)).expect("writable");
            console.append(b"\x00\xff\x1b[m\r\n");
        }
        assert_eq!(std::fs::read(&path).expect("log"), b"\x00\xff\x1b[m\r\n\x00\xff\x1b[m\r\n");
    }

    #[test]
    fn a_full_disk_is_reported_and_does_not_panic() {
        let console = Console::open(Some(Path::new("/dev/full"))).expect("opens");
        console.append(b"x");
        console.append(b"y\n");
        assert!(console.log_error().is_some());
        assert_eq!(console.last_lines(), ["xy"]);
    }

    #[test]
    fn a_huge_burst_costs_no_more_than_the_ring() {
        let console = Console::open(None).expect("no file, no error");
        console.append(&vec![b'a'; 10 << 20]);
        assert_eq!(console.last_lines()[0].len(), LINE_BYTES);
    }

    #[test]
    fn terminal_codes_go() {
        assert_eq!(without_terminal_codes(b"\x1b]0;title\x07a\x1b[6nb\x1b(Bc\x1b[31"), b"abc");
    }
}
