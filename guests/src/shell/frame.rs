//! Frames in a byte stream: `RS key SP body US`, found anywhere, in any chunking.
//!
//! Purpose: [`Scanner`] splits the console's bytes into text and the frames whose key is expected;
//! everything else, fake frames included, is text. Pure; no copy of text beyond its own buffer.
//!
//! Assumes bodies shorter than [`BODY_BYTES`]. A frame that is torn by foreign bytes is text: the
//! host asks again (see `machine.rs`).

use std::borrow::Cow;
use std::fmt;

const START: u8 = 0x1e;
const END: u8 = 0x1f;
const KEY_BYTES: usize = 16;
/// Longest body, with room to spare: `ready` carries two paths.
const BODY_BYTES: usize = 200;

/// A 64-bit secret as 16 hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Key([u8; KEY_BYTES]);

impl Key {
    /// The key that is `value` in hexadecimal.
    pub fn from_u64(value: u64) -> Self {
        let mut digits = [0; KEY_BYTES];
        for (i, digit) in digits.iter_mut().enumerate() {
            let nibble = (value >> (60 - 4 * i)) & 0xf;
            *digit = b"0123456789abcdef"[nibble as usize];
        }
        Self(digits)
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|&b| write!(f, "{}", char::from(b)))
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Enough to tell two apart, too little to forge a frame with a log.
        write!(f, "Key({}{}…)", char::from(self.0[0]), char::from(self.0[1]))
    }
}

/// A part of the stream.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Part {
    /// Bytes that are not a frame.
    Text(Vec<u8>),
    /// A frame with an expected key and its body.
    Frame(Key, String),
}

/// Splits a stream into [`Part`]s.
#[derive(Debug, Default)]
pub(super) struct Scanner {
    held: Vec<u8>,
}

impl Scanner {
    /// Adds bytes. Call [`Scanner::next_part`] until it has nothing more.
    pub(super) fn feed(&mut self, bytes: &[u8]) {
        self.held.extend_from_slice(bytes);
    }

    /// Whether what may be the beginning of a frame is held back.
    pub(super) fn is_torn(&self) -> bool {
        !self.held.is_empty()
    }

    /// The next part, given the keys expected now; `None` when more bytes are needed to tell.
    pub(super) fn next_part(&mut self, keys: &[Key]) -> Option<Part> {
        let mut from = 0;
        loop {
            let Some(offset) = self.held[from..].iter().position(|&b| b == START) else {
                return self.take_text(self.held.len());
            };
            from += offset;
            match look(&self.held[from..], keys) {
                Look::Text => from += 1,
                Look::Frame(key, length) if from == 0 => {
                    let body = &self.held[KEY_BYTES + 2..length - 1];
                    let body = String::from_utf8_lossy(body).into_owned();
                    self.held.drain(..length);
                    return Some(Part::Frame(key, body));
                }
                Look::More | Look::Frame(..) => return self.take_text(from),
            }
        }
    }

    fn take_text(&mut self, length: usize) -> Option<Part> {
        if length == 0 {
            return None;
        }
        let rest = self.held.split_off(length);
        Some(Part::Text(std::mem::replace(&mut self.held, rest)))
    }
}

enum Look {
    Text,
    More,
    Frame(Key, usize),
}

/// What stands at the start of `bytes`, whose first byte is [`START`].
fn look(bytes: &[u8], keys: &[Key]) -> Look {
    let head = &bytes[1..bytes.len().min(1 + KEY_BYTES)];
    let Some(&key) = keys.iter().find(|key| key.0.starts_with(head)) else {
        return Look::Text;
    };
    let Some(tail) = bytes.get(1 + KEY_BYTES..) else {
        return Look::More;
    };
    if tail.first().is_some_and(|&b| b != b' ') {
        return Look::Text;
    }
    let window = &tail[..tail.len().min(BODY_BYTES)];
    match window.iter().position(|&b| b == END || b == START) {
        Some(at) if window[at] == END && at > 0 => Look::Frame(key, 1 + KEY_BYTES + at + 1),
        None if window.len() < BODY_BYTES => Look::More,
        _ => Look::Text,
    }
}

/// Takes frames out of a stream, whatever their keys: what is left is for people to read. What may
/// be the beginning of a frame is held back.
#[derive(Debug, Default)]
pub(crate) struct Unframed {
    held: Vec<u8>,
}

impl Unframed {
    /// The text in what has come.
    pub(crate) fn feed<'a>(&mut self, bytes: &'a [u8]) -> Cow<'a, [u8]> {
        if self.held.is_empty() && !bytes.contains(&START) {
            return Cow::Borrowed(bytes);
        }
        let mut text = Vec::with_capacity(bytes.len());
        for &byte in bytes {
            match (self.held.len(), byte) {
                // What was torn by another frame is no text.
                (0 | HEAD_BYTES.., START) => self.held = vec![START],
                (0, _) => text.push(byte),
                (HEAD_BYTES.., END) => self.held.clear(),
                (length, _) => {
                    self.held.push(byte);
                    if !may_be_frame(byte, length) {
                        // Of a torn frame the rest may be something else.
                        let head = if length < HEAD_BYTES { 0 } else { HEAD_BYTES };
                        text.extend(self.held.drain(..).skip(head));
                        if byte == START {
                            text.pop();
                            self.held.push(START);
                        }
                    }
                }
            }
        }
        Cow::Owned(text)
    }
}

/// `RS key SP`.
const HEAD_BYTES: usize = KEY_BYTES + 2;

/// Whether `byte` can stand at `index` of a frame, behind its first byte and before its last.
fn may_be_frame(byte: u8, index: usize) -> bool {
    match index {
        1..=KEY_BYTES => matches!(byte, b'0'..=b'9' | b'a'..=b'f'),
        _ if index + 1 == HEAD_BYTES => byte == b' ',
        _ => index < HEAD_BYTES + BODY_BYTES && (b' '..=b'~').contains(&byte),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn key() -> Key {
        Key::from_u64(0x0123_4567_89ab_cdef)
    }

    fn scan(chunks: &[&[u8]]) -> (Vec<u8>, Vec<String>) {
        let mut scanner = Scanner::default();
        let (mut text, mut frames) = (Vec::new(), Vec::new());
        for chunk in chunks {
            scanner.feed(chunk);
            while let Some(part) = scanner.next_part(&[key()]) {
                match part {
                    Part::Text(bytes) => text.extend(bytes),
                    Part::Frame(_, body) => frames.push(body),
                }
            }
        }
        (text, frames)
    }

    #[test]
    fn frames_are_found_in_the_middle_of_text() {
        let (text, frames) = scan(&[b"ab\x1e0123456789abcdef end 3\x1fcd"]);
        assert_eq!(text, b"abcd");
        assert_eq!(frames, ["end 3"]);
    }

    #[test]
    fn fakes_and_torn_frames_are_text() {
        let fake = b"\x1e0123456789abcdee end 0\x1f \x1e\x1e\x1f";
        let torn = b"\x1e0123456789abcdef en\x1e0123456789abcdef end 0\x1f";
        let (text, frames) = scan(&[fake, torn]);
        assert_eq!(frames, ["end 0"]);
        assert_eq!(text, [&fake[..], b"\x1e0123456789abcdef en"].concat());
    }

    #[test]
    fn people_do_not_see_frames() {
        let stream = b"a\x1e0123456789abcdef start 11\x1fb\n\x1e0123456789abcdef en\
            \x1effffffffffffffff end 0\x1fc \x1e\x1fd \x1e0123\x1e0123456789abcdef busy 1\x1f.\
            \x1e0123456789abcdef ";
        for chunk in [1, 2, 7, 500] {
            let mut unframed = Unframed::default();
            let text: Vec<u8> =
                stream.chunks(chunk).flat_map(|bytes| unframed.feed(bytes).into_owned()).collect();
            assert_eq!(text.escape_ascii().to_string(), "ab\\nc \\x1e\\x1fd \\x1e0123.", "{chunk}");
        }
        let long = [&b"\x1e0123456789abcdef "[..], &[b'x'; 4096]].concat();
        assert_eq!(*Unframed::default().feed(&long), [b'x'; 4096]);
    }

    #[test]
    fn an_endless_body_is_not_held_back() {
        let long = [&b"\x1e0123456789abcdef "[..], &[b'x'; 4096]].concat();
        assert_eq!(scan(&[&long]).0, long);
    }

    proptest! {
        #[test]
        fn chunking_does_not_matter(
            pieces in proptest::collection::vec(prop_oneof![
                proptest::collection::vec(any::<u8>(), 0..40),
                Just(b"\x1e0123456789abcdef end 7\x1f".to_vec()),
                Just(b"\x1e0123456789abc".to_vec()),
            ], 0..12),
            cut in 1_usize..9,
        ) {
            let stream = pieces.concat();
            let whole = scan(&[&stream]);
            let chunks: Vec<&[u8]> = stream.chunks(cut).collect();
            prop_assert_eq!(scan(&chunks), whole);
        }
    }
}
