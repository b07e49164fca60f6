//! The lines around a problem, as a terminal may show them.
//!
//! Purpose: a report quotes the file, and the file may be anything: one line of a megabyte, escape
//! sequences, characters that turn the direction of writing. What is quoted is cut around the
//! offending text, and what a terminal would obey instead of show is written as an escape.
//!
//! Assumptions: one line before and one after are enough to find the place.
//!
//! Reference: Unicode Standard Annex #9 (bidirectional algorithm) on why directional characters
//! must not reach a report.

use std::ops::Range;

use miette::{MietteError, MietteSpanContents, SourceCode, SourceSpan, SpanContents};

use crate::source::{Source, Span};

/// Longest line that is quoted whole, in characters.
const WHOLE: usize = 160;
/// Of a longer one: characters before the offending text, of it, and behind it.
const BEFORE: usize = 40;
const WITHIN: usize = 60;
const BEHIND: usize = 40;

/// A text with everything escaped that is not shown as a character of its own: control characters,
/// directional and other invisible ones.
pub(crate) fn visible(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '\'' | '"' | '\\' => shown.push(c),
            _ => shown.extend(c.escape_debug()),
        }
    }
    shown
}

/// A few lines of a file, fit to be shown, and where in them the offending text stands.
#[derive(Debug, Clone)]
pub(crate) struct Snippet {
    name: String,
    text: String,
    /// Bytes of `text`.
    label: Range<usize>,
    /// The number of the first line in `text`, from 0.
    first_line: usize,
    /// The column of the offending text in the file, from 0.
    column: usize,
}

impl Snippet {
    /// The lines around a span; of a span of several lines, around its first.
    pub(crate) fn new(source: &Source, span: Span) -> Self {
        let (line, column) = source.position(span.start);
        let (line, column) = (line - 1, column - 1);
        let first_line = line.saturating_sub(1);
        let mut text = String::new();
        let mut label = 0..0;
        for at in first_line..=line + 1 {
            let Some((start, whole)) = source.line(at) else { break };
            if at > first_line {
                text.push('\n');
            }
            if at == line {
                let inside = |at: usize| at.saturating_sub(start).min(whole.len());
                label = quote(&mut text, whole, inside(span.start)..inside(span.end));
            } else {
                quote(&mut text, whole, 0..0);
            }
        }
        Self { name: visible(&source.name), text, label, first_line, column }
    }

    /// Where the offending text stands in the snippet, in bytes.
    pub(crate) fn label(&self) -> Range<usize> {
        self.label.clone()
    }
}

/// The same for a line of the file, whose tabs the report's renderer turns into spaces.
fn visible_line(text: &str) -> String {
    text.split('\t').map(visible).collect::<Vec<_>>().join("\t")
}

/// Appends a line to `text`, cut around `part` if it is long; returns where `part` went.
fn quote(text: &mut String, line: &str, part: Range<usize>) -> Range<usize> {
    let (before, rest) = line.split_at(part.start);
    let (within, behind) = rest.split_at(part.len());
    let is_long = line.chars().nth(WHOLE).is_some();
    let first = |text: &str, most: usize| match text.char_indices().nth(most) {
        Some((end, _)) if is_long => (visible_line(&text[..end]), "…"),
        _ => (visible_line(text), ""),
    };
    match before.char_indices().rev().nth(BEFORE - 1) {
        Some((start, _)) if is_long && start > 0 => {
            text.push('…');
            text.push_str(&visible_line(&before[start..]));
        }
        _ => text.push_str(&visible_line(before)),
    }
    let start = text.len();
    let (shown, cut) = first(within, WITHIN);
    text.push_str(&shown);
    let end = text.len();
    text.push_str(cut);
    if cut.is_empty() {
        // A line without offending text is quoted from its beginning.
        let most = if part.is_empty() && part.start == 0 { WHOLE } else { BEHIND };
        let (shown, cut) = first(behind, most);
        text.push_str(&shown);
        text.push_str(cut);
    }
    start..end
}

impl SourceCode for Snippet {
    fn read_span<'a>(
        &'a self,
        span: &SourceSpan,
        context_lines_before: usize,
        context_lines_after: usize,
    ) -> Result<Box<dyn SpanContents<'a> + 'a>, MietteError> {
        let found =
            self.text.as_str().read_span(span, context_lines_before, context_lines_after)?;
        // The column of a cut line would be that of the snippet, not of the file.
        let is_label = span.offset() == self.label.start && context_lines_before == 0;
        let contents = MietteSpanContents::new_named(
            self.name.clone(),
            found.data(),
            *found.span(),
            self.first_line + found.line(),
            if is_label { self.column } else { found.column() },
            found.line_count(),
        );
        Ok(Box::new(contents.with_language("yaml")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::Sources;

    fn snippet(text: &str, part: Range<usize>) -> Snippet {
        let mut sources = Sources::default();
        let file = sources.add("a.yaml", text);
        Snippet::new(sources.file(file), Span { file, start: part.start, end: part.end })
    }

    fn labelled(snippet: &Snippet) -> &str {
        &snippet.text[snippet.label()]
    }

    #[test]
    fn what_a_terminal_would_obey_is_escaped() {
        assert_eq!(
            visible("a\0\u{1b}[31m\u{202e}\u{200b}é\t\"b\"\r"),
            "a\\0\\u{1b}[31m\\u{202e}\\u{200b}é\\t\"b\"\\r"
        );
        let text = "x: 1\na\u{1b}[2J: \u{202e}b # c\r\n";
        let at = text.find('\u{202e}').unwrap();
        let shown = snippet(text, at..at + 4);
        assert_eq!(shown.text, "x: 1\na\\u{1b}[2J: \\u{202e}b # c\n");
        assert_eq!(labelled(&shown), "\\u{202e}b");
        assert_eq!((shown.first_line, shown.column), (0, 7));
    }

    #[test]
    fn long_lines_are_cut_around_the_offending_text() {
        let text =
            format!("{}\n{}BAD{}\n{}", "p".repeat(999), "a".repeat(500), "z".repeat(500), "n");
        let shown = snippet(&text, 1500..1503);
        assert_eq!(labelled(&shown), "BAD");
        let lines: Vec<&str> = shown.text.lines().collect();
        assert_eq!(lines[0], format!("{}…", "p".repeat(WHOLE)));
        assert_eq!(lines[1], format!("…{}BAD{}…", "a".repeat(BEFORE), "z".repeat(BEHIND)));
        assert_eq!(lines[2], "n");
        assert_eq!(shown.column, 500);

        let shown = snippet(&text, 1000..2003);
        assert_eq!(labelled(&shown), "a".repeat(WITHIN));
        let whole = format!("{}BAD", "é".repeat(WHOLE - 3));
        assert_eq!(snippet(&whole, 314..317).text, whole);
    }

    #[test]
    fn places_at_the_ends_of_a_file_are_shown() {
        for (text, part) in [("", 0..0), ("\n", 1..1), ("a", 1..1), ("a\nb", 0..3), ("é\r", 2..3)]
        {
            let shown = snippet(text, part);
            assert!(shown.text.get(shown.label()).is_some(), "{text:?}");
        }
    }
}
