//! Names of differentiated services code points.
//!
//! Reference: IANA registry "Differentiated Services Field Codepoints"; RFC 2474, 2597, 3246, 5865,
//! 8622.

/// Names and their code points.
pub(crate) const CODE_POINTS: &[(&str, u8)] = &[
    ("CS0", 0),
    ("DF", 0),
    ("LE", 1),
    ("CS1", 8),
    ("AF11", 10),
    ("AF12", 12),
    ("AF13", 14),
    ("CS2", 16),
    ("AF21", 18),
    ("AF22", 20),
    ("AF23", 22),
    ("CS3", 24),
    ("AF31", 26),
    ("AF32", 28),
    ("AF33", 30),
    ("CS4", 32),
    ("AF41", 34),
    ("AF42", 36),
    ("AF43", 38),
    ("CS5", 40),
    ("VOICE-ADMIT", 44),
    ("EF", 46),
    ("CS6", 48),
    ("CS7", 56),
];

/// A code point by name, in either case, or by number.
pub(crate) fn code_point(text: &str) -> Option<u8> {
    if let Ok(number) = text.parse::<u8>() {
        return (number < 64).then_some(number);
    }
    let named = CODE_POINTS.iter().find(|(name, _)| name.eq_ignore_ascii_case(text));
    named.map(|(_, code_point)| *code_point)
}
