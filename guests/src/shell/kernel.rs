//! Kernel messages out of the way: removes `[   12.345678] text CR LF` records from a stream.
//!
//! Purpose: a guest's kernel prints on the console that carries a command's output. It writes each
//! record in one piece and ends it with CR LF, while the terminal is raw and programs end lines with
//! LF alone. So a record can be cut out exactly, wherever it lands, a frame's middle included.
//!
//! Not told apart: a program that itself prints a time stamp, text and CR LF. Records without a time
//! stamp (`printk.time=0`) are not recognised; the set-up silences the kernel up to emergencies in
//! any case.

/// Longest record with its prefix; the kernel's own limit is 1,024 bytes of text.
const RECORD_BYTES: usize = 1200;

/// Cuts kernel records out of a stream.
#[derive(Debug, Default)]
pub(super) struct Filter {
    held: Vec<u8>,
}

impl Filter {
    /// Takes bytes, appends what is not a kernel record to `rest` and complete records (without CR
    /// LF) to `records`. Bytes that may become a record are held back until it is clear.
    pub(super) fn feed(&mut self, bytes: &[u8], rest: &mut Vec<u8>, records: &mut Vec<Vec<u8>>) {
        self.held.extend_from_slice(bytes);
        let mut from = 0;
        while let Some(offset) = self.held[from..].iter().position(|&b| b == b'[') {
            rest.extend_from_slice(&self.held[from..from + offset]);
            from += offset;
            match look(&self.held[from..]) {
                Look::Text => {
                    rest.push(b'[');
                    from += 1;
                }
                Look::More => {
                    self.held.drain(..from);
                    return;
                }
                Look::Record { start, length } => {
                    rest.extend_from_slice(&self.held[from..from + start]);
                    records.push(self.held[from + start..from + length - 2].to_vec());
                    from += length;
                }
            }
        }
        rest.extend_from_slice(&self.held[from..]);
        self.held.clear();
    }
}

enum Look {
    Text,
    More,
    /// A record from `start` to `length`; what is before `start` is text that looked like one.
    Record {
        start: usize,
        length: usize,
    },
}

/// What stands at the start of `bytes`, which begin with `[`.
fn look(bytes: &[u8]) -> Look {
    let mut at = match stamp(bytes) {
        Stamp::No => return Look::Text,
        Stamp::More => return Look::More,
        Stamp::Yes(length) => length,
    };
    let mut start = 0;
    while let Some(&byte) = bytes.get(at) {
        match byte {
            b'\r' => {
                return match bytes.get(at + 1) {
                    None => Look::More,
                    Some(b'\n') => Look::Record { start, length: at + 2 },
                    Some(_) => Look::Text,
                };
            }
            // The kernel escapes control bytes, so this is a program's line.
            0x00..=0x08 | 0x0a..=0x1f => return Look::Text,
            _ if at - start > RECORD_BYTES => return Look::Text,
            // A program's text may look like a record and be interrupted by a real one.
            b'[' => match stamp(&bytes[at..]) {
                Stamp::Yes(length) => {
                    start = at;
                    at += length;
                }
                Stamp::More => return Look::More,
                Stamp::No => at += 1,
            },
            _ => at += 1,
        }
    }
    Look::More
}

enum Stamp {
    No,
    More,
    Yes(usize),
}

/// `[`, spaces, digits, `.`, six digits, `]`: the length of the time stamp.
fn stamp(bytes: &[u8]) -> Stamp {
    let spaces = run(&bytes[1..], |b| b == b' ');
    let seconds = run(&bytes[1 + spaces..], |b| b.is_ascii_digit());
    let point = 1 + spaces + seconds;
    if spaces + seconds > 12 {
        return Stamp::No;
    }
    match bytes.get(point) {
        None => return Stamp::More,
        Some(b'.') if seconds > 0 => {}
        Some(_) => return Stamp::No,
    }
    let fraction = run(&bytes[point + 1..], |b| b.is_ascii_digit());
    match bytes.get(point + 1 + fraction) {
        None if fraction <= 6 => Stamp::More,
        Some(b']') if fraction == 6 => Stamp::Yes(point + 8),
        _ => Stamp::No,
    }
}

fn run(bytes: &[u8], accept: impl Fn(u8) -> bool) -> usize {
    bytes.iter().take_while(|&&b| accept(b)).count()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn filter(chunks: &[&[u8]]) -> (Vec<u8>, Vec<Vec<u8>>) {
        let mut filter = Filter::default();
        let (mut rest, mut records) = (Vec::new(), Vec::new());
        for chunk in chunks {
            filter.feed(chunk, &mut rest, &mut records);
        }
        (rest, records)
    }

    #[test]
    fn a_record_is_cut_out_of_a_line() {
        let (rest, records) = filter(&[b"out[   12.345678] usb 1-1: new\r\nput\n"]);
        assert_eq!(rest, b"output\n");
        assert_eq!(records, [b"[   12.345678] usb 1-1: new"]);
    }

    #[test]
    fn output_of_dmesg_stays() {
        let output = b"[    0.000000] Linux version 6.1\n[ 1.5] a[0] [x]\r\n";
        assert_eq!(filter(&[output]), (output.to_vec(), vec![]));
    }

    #[test]
    fn a_look_alike_interrupted_by_a_record_stays() {
        let (rest, records) = filter(&[b"[    1.000000] mi[    2.000000] real\r\nne\n"]);
        assert_eq!(rest, b"[    1.000000] mine\n");
        assert_eq!(records, [b"[    2.000000] real"]);
    }

    #[test]
    fn nothing_is_held_back_for_ever() {
        let mut text = b"[    1.000000] ".to_vec();
        text.extend(vec![b'x'; 2 * RECORD_BYTES]);
        assert_eq!(filter(&[&text]).0, text);
    }

    proptest! {
        /// A record inserted anywhere into output without CR LF leaves the output as it was.
        #[test]
        fn insertion_is_undone_in_any_chunking(
            text in proptest::collection::vec(prop_oneof![Just(b'['), Just(b' '), Just(b'1'), Just(b'.'), Just(b']'), Just(b'\n'), Just(b'z'), Just(0x1e)], 0..80),
            at in any::<proptest::sample::Index>(),
            cut in 1_usize..7,
        ) {
            let at = at.index(text.len() + 1);
            let stream = [&text[..at], b"[  123.456789] kernel: [odd] text\r\n", &text[at..], b"\n\x1e"].concat();
            let chunks: Vec<&[u8]> = stream.chunks(cut).collect();
            let (rest, records) = filter(&chunks);
            prop_assert_eq!(rest, [&text[..], b"\n\x1e"].concat());
            prop_assert_eq!(records, vec![b"[  123.456789] kernel: [odd] text".to_vec()]);
        }
    }
}
