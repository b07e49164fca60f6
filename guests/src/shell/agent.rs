//! The agent: the small shell program that answers for the guest, and what the host says to it.
//!
//! The login shell is replaced by it: no prompt, no echo, no history, no line editing. Why it looks
//! as it does:
//!
//! - Host lines are printable ASCII of at most about 1 KiB, each command piece acknowledged with its
//!   length: a terminal cuts longer lines, and a serial port has no flow control.
//! - A command runs as a new `sh -c` in a session of its own with standard input from `/dev/null`:
//!   syntax errors, `exit`, `exec` and `set -e` stay inside, a signal reaches the whole tree, and no
//!   secret is in its memory, environment or arguments. `cd` and variables do not carry over to the
//!   next command.
//! - The process of the next command is made while the guest is idle, everything forked and
//!   executed, for that is what costs a guest under software translation milliseconds. It reads the
//!   command, and the byte that starts it, itself from the console; the agent meanwhile waits on a
//!   pipe of its own (descriptor 3, both ends), so exactly one process reads the console at any time.
//!   The opening frame is printed by that process immediately before the text runs.
//! - Output goes through `cat`, and the closing frame through the same pipe, so it can neither
//!   overtake output nor be torn by it. Before the next command that `cat` is killed and, if a
//!   background job still holds the pipe, replaced by one that discards.
//! - A line that is not understood (busybox drops what it has read of a line when a child ends) is
//!   answered `huh`, and sent again.
//! - Frames are `RS key SP body US`. Keys are 64-bit random: one for the session, an opening and a
//!   closing one per command. The opening key is in the argument list of the command's process and
//!   worthless once printed; the closing key is only in the agent's memory.
//!
//! Reference: POSIX.1-2024 Shell & Utilities (sh, printf, read); `proc(5)` on `/proc/PID/fd`.

use std::fmt::Write as _;

use super::frame::Key;

/// The longest command text: Linux takes at most 128 KiB in one argument (`MAX_ARG_STRLEN`).
pub const COMMAND_BYTES: usize = 120 << 10;
/// Output of a background command kept in the guest; what comes later is discarded.
pub const BACKGROUND_BYTES: u64 = 16 << 20;

/// Payload bytes of one line: with its head well under 1 KiB.
const PIECE_BYTES: usize = 960;
const PROGRAM: &str = include_str!("agent.sh");

/// The line typed at the login shell: makes the terminal raw and replaces the shell by a loader,
/// which prints the frame `load` and then takes the [`program`].
///
/// At the speed a serial port starts with, 9,600 baud, an emulated receiver holds a short line back
/// for 4 ms, until it is sure that no more bytes come; hence the speed.
///
/// It stays under 1,000 bytes, the longest line busybox edits, and starts with a space, which keeps
/// it out of most histories.
pub(super) fn loader(setup: &str, load: &Key) -> String {
    format!(
        " [ -t 0 ]&&{{ stty raw -echo;stty 115200;}} 2>/dev/null;{setup}exec sh -c 'printf \"\\036{load} load\\037\";\
         n=$(printf \"\\n.\");n=${{n%.}};\
         while IFS= read -r l&&[ \"$l\" != . ];do a=\"$a$l$n\";done;eval \"$a\"'\n"
    )
}

/// Whether a line of a console is the echo of [`loader`], or a part of it: terminals fold it.
pub(crate) fn is_loader(line: &str) -> bool {
    ["stty raw -echo", "exec sh -c 'printf \"\\036", "n=${n%.}", "a=\"$a$l$n\"", "eval \"$a\"'"]
        .iter()
        .any(|part| line.contains(part))
}

/// The agent's text for the loader, with the session's key, and with a name that no other session on
/// the same file system has.
pub(super) fn program(session: &Key, name: &Key) -> String {
    let blocks = (BACKGROUND_BYTES / 512).to_string();
    let mut text = String::with_capacity(PROGRAM.len());
    for line in PROGRAM.lines().map(str::trim) {
        if !line.is_empty() && !line.starts_with('#') {
            text.push_str(line);
            text.push('\n');
        }
    }
    text.push_str(".\n");
    text.replace("@KEY@", &session.to_string())
        .replace("@NAME@", &name.to_string())
        .replace("@BLOCKS@", &blocks)
}

/// The lines that carry a command, each with its newline; line `i` is acknowledged as `ack i LENGTH`
/// with the length without the newline. `text` has no NUL byte.
pub(super) fn pieces(text: &str) -> Vec<String> {
    let mut pieces = Vec::new();
    let mut payload = String::new();
    for byte in text.bytes() {
        match byte {
            b' '..=b'~' if byte != b'\\' => payload.push(char::from(byte)),
            _ => write!(payload, "\\0{byte:03o}").expect("writing to a String cannot fail"),
        }
        if payload.len() >= PIECE_BYTES {
            push_piece(&mut pieces, &mut payload);
        }
    }
    if !payload.is_empty() || pieces.is_empty() {
        push_piece(&mut pieces, &mut payload);
    }
    pieces
}

/// The line that brings the only piece of a command and starts it.
pub(super) fn whole(piece: &str) -> Option<String> {
    let payload = piece.strip_prefix("c 0 ")?.strip_suffix('\n')?;
    Some(format!("r {} {payload}\n", payload.len()))
}

fn push_piece(pieces: &mut Vec<String>, payload: &mut String) {
    pieces.push(format!("c {} {payload}\n", pieces.len()));
    payload.clear();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loader_fits_a_line_editor() {
        let line = loader("dmesg -n 1 2>/dev/null;", &Key::from_u64(1));
        assert!(line.len() < 1000, "{}", line.len());
        assert_eq!(line.matches('\n').count(), 1);
    }

    #[test]
    fn an_echo_of_the_loader_is_known_folded_too() {
        let line = loader("dmesg -n 1 2>/dev/null;", &Key::from_u64(1));
        // As long as a terminal's line: a prompt comes before the first.
        let (first, rest) = line.trim_end().split_at(75);
        assert!(is_loader(first), "{first}");
        for part in rest.as_bytes().chunks(80) {
            let part = String::from_utf8_lossy(part);
            assert!(is_loader(&part), "{part}");
        }
        assert!(!is_loader("# eval $a; stty raw"));
    }

    #[test]
    fn program_has_no_comments_and_ends_the_loader() {
        let program = program(&Key::from_u64(0xabc), &Key::from_u64(1));
        assert!(program.lines().all(|l| !l.starts_with('#') && l.len() < 1024));
        assert!(program.ends_with("\n.\n"));
        assert!(program.contains("K=0000000000000abc\n"));
        assert!(!program.contains('@'));
        // One terminal buffer holds it: it is sent without waiting.
        assert!(program.len() < 4000, "{}", program.len());
    }

    #[test]
    fn pieces_are_short_printable_lines() {
        let text = format!("printf '%s\\n' \u{e9}\n{}", "x".repeat(5000));
        let pieces = pieces(&text);
        assert!(pieces.len() > 5);
        for (i, piece) in pieces.iter().enumerate() {
            assert!(piece.starts_with(&format!("c {i} ")));
            assert!(piece.len() <= 1000);
            assert!(piece.trim_end().bytes().all(|b| (b' '..=b'~').contains(&b)));
        }
        assert!(pieces[0].contains("'%s\\0134n' \\0303\\0251\\0012x"));
        assert_eq!(super::pieces(""), ["c 0 \n"]);
    }
}
