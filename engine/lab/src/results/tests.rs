use super::*;

/// The excerpts of a text and of a file that holds it, with the file's length.
fn excerpts(text: &[u8]) -> (String, (String, u64)) {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("output");
    std::fs::write(&path, text).expect("a file");
    let of_file = excerpt_of(&path).expect("an excerpt");
    (excerpt(String::from_utf8_lossy(text).into_owned()), of_file)
}

#[test]
fn the_excerpt_of_a_file_is_that_of_its_text() {
    for pattern in ["0123456789abcde\n", "ä€", "x€", "xy€", "𝄞x"] {
        for length in [0, 1, 100, LONGEST_BYTES, LONGEST_BYTES + 4, 3 * LONGEST_BYTES + 1] {
            let mut text = pattern.repeat(length / pattern.len() + 1);
            text.truncate(text.floor_char_boundary(length));
            let (expected, (found, bytes)) = excerpts(text.as_bytes());
            assert_eq!(found, expected, "{pattern} {length}");
            assert_eq!(bytes, text.len() as u64);
        }
    }
}

#[test]
fn of_a_huge_file_only_the_ends_are_read() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("output");
    let file = File::create(&path).expect("a file");
    // Far more than the machine's memory, and all of it a hole.
    file.set_len(1 << 40).expect("a sparse file");
    let (text, bytes) = excerpt_of(&path).expect("an excerpt");
    assert_eq!(bytes, 1 << 40);
    assert!(text.len() < 2 * LONGEST_BYTES, "{}", text.len());
    assert!(text.contains(&format!("[… {} bytes:", (1_u64 << 40) - LONGEST_BYTES as u64)));
}

#[test]
fn bytes_that_are_no_text_are_shown_as_such() {
    let (_, (text, bytes)) = excerpts(&vec![0xff; LONGEST_BYTES + 10]);
    assert_eq!(bytes, LONGEST_BYTES as u64 + 10);
    assert!(text.starts_with('\u{fffd}') && text.ends_with('\u{fffd}'));
}
