//! YAML as a tree in which every value knows its place.
//!
//! Purpose: the one place that knows the YAML parser. Everything above it works on [`Yaml`].
//!
//! Assumptions: one document per file; keys are scalars. Not part of the format, and refused:
//! anchors and aliases (the file has `types:` and `params:`, and expansion bombs need neither to
//! be counted nor limited), tags, and nesting deeper than any key of the format needs.
//!
//! Reference: YAML 1.2.2, core schema for plain scalars.

use std::collections::HashSet;

use granit_parser::{Event, Options, Parser, ScalarStyle, StrInput};

use crate::diagnostics::{Problems, excerpt, report};
use crate::source::Span;

/// The deepest key of the format is at level 7; nothing needs more than twice that.
const MAX_DEPTH: usize = 16;

/// A value and its place.
#[derive(Debug, Clone)]
pub(crate) struct Yaml {
    pub(crate) span: Span,
    pub(crate) data: Data,
}

/// The three kinds of YAML nodes.
#[derive(Debug, Clone)]
pub(crate) enum Data {
    Scalar {
        text: String,
        /// Written without quotes, so that `null` or an empty value means nothing.
        plain: bool,
    },
    List(Vec<Yaml>),
    Map(Vec<Entry>),
}

/// One key and its value.
#[derive(Debug, Clone)]
pub(crate) struct Entry {
    pub(crate) key: String,
    pub(crate) key_span: Span,
    pub(crate) value: Yaml,
}

impl Yaml {
    /// The text of a scalar.
    pub(crate) fn scalar(&self) -> Option<&str> {
        match &self.data {
            Data::Scalar { text, .. } if !self.is_null() => Some(text),
            _ => None,
        }
    }

    /// Whether this is nothing: an empty plain value, `~` or `null`.
    pub(crate) fn is_null(&self) -> bool {
        matches!(&self.data, Data::Scalar { text, plain: true }
            if matches!(text.as_str(), "" | "~" | "null" | "Null" | "NULL"))
    }

    pub(crate) fn list(&self) -> Option<&[Yaml]> {
        match &self.data {
            Data::List(items) => Some(items),
            _ => None,
        }
    }

    pub(crate) fn map(&self) -> Option<&[Entry]> {
        match &self.data {
            Data::Map(entries) => Some(entries),
            _ => None,
        }
    }

    /// The value of a key of a map.
    pub(crate) fn get(&self, key: &str) -> Option<&Yaml> {
        self.map()?.iter().find(|entry| entry.key == key).map(|entry| &entry.value)
    }

    /// What this is, for messages.
    pub(crate) fn describe(&self) -> String {
        match &self.data {
            Data::Scalar { .. } if self.is_null() => "nothing".to_owned(),
            Data::Scalar { text, .. } => format!("`{}`", excerpt(text)),
            Data::List(_) => "a list".to_owned(),
            Data::Map(_) => "a map".to_owned(),
        }
    }
}

/// A list or map whose end has not been seen.
enum Open {
    List {
        span: Span,
        items: Vec<Yaml>,
    },
    Map {
        span: Span,
        entries: Vec<Entry>,
        keys: HashSet<String>,
        key: Option<(String, Span)>,
    },
    /// Skipped: a key that is no scalar, or something too deep.
    Ignored,
}

/// Reads one file of `problems.sources`. Problems are recorded; what could be read is returned.
pub(crate) fn parse(problems: &mut Problems, file: usize) -> Option<Yaml> {
    let text = std::sync::Arc::clone(&problems.sources.file(file).text);
    let mut options = Options::default();
    options.set_emit_comments(false);
    let mut parser = Parser::new_from_str_with_options(&text, options);
    Builder { problems, file, open: Vec::new(), root: None, documents: 0 }.run(&mut parser)
}

struct Builder<'a> {
    problems: &'a mut Problems,
    file: usize,
    open: Vec<Open>,
    root: Option<Yaml>,
    documents: usize,
}

impl Builder<'_> {
    fn run<'t>(mut self, parser: &mut Parser<'t, StrInput<'t>>) -> Option<Yaml> {
        while let Some(next) = parser.next_event() {
            let (event, span) = match next {
                Ok(next) => next,
                Err(error) => {
                    let at = error.marker().byte_offset().unwrap_or(usize::MAX);
                    let span = self.span(at..at.saturating_add(1));
                    let wrong = format!("this is not YAML: {}", error.info());
                    self.problems.add(span, report(wrong).expected("the parser stopped here"));
                    return None;
                }
            };
            let span = self.span(span.byte_range().unwrap_or(0..0));
            match event {
                Event::DocumentStart(..) => {
                    self.documents += 1;
                    if self.documents == 2 {
                        let wrong = "the file holds more than one YAML document";
                        let end = self.problems.sources.file(self.file).first_line(span);
                        self.problems.add(
                            end,
                            report(wrong).help("remove the `---` line, or use `include:`"),
                        );
                        return None;
                    }
                }
                Event::Alias(_) | Event::UnresolvedAlias(_) => {
                    self.refuse_anchor(span);
                    self.value(Yaml {
                        span,
                        data: Data::Scalar { text: String::new(), plain: true },
                    });
                }
                Event::Scalar(text, style, anchor, tag) => {
                    self.refuse(span, anchor, tag.is_some());
                    let plain = style == ScalarStyle::Plain;
                    self.value(Yaml {
                        span,
                        data: Data::Scalar { text: text.into_owned(), plain },
                    });
                }
                Event::SequenceStart(_, anchor, tag) => {
                    self.refuse(span, anchor, tag.is_some());
                    self.begin(span, false);
                }
                Event::MappingStart(_, anchor, tag) => {
                    self.refuse(span, anchor, tag.is_some());
                    self.begin(span, true);
                }
                Event::SequenceEnd | Event::MappingEnd => self.end(span),
                _ => {}
            }
        }
        self.root
    }

    fn span(&self, range: std::ops::Range<usize>) -> Span {
        let span = Span { file: self.file, start: range.start, end: range.end };
        self.problems.sources.file(self.file).clamp(span)
    }

    fn refuse(&mut self, span: Span, anchor: usize, tagged: bool) {
        let span = self.problems.sources.file(self.file).first_line(span);
        if anchor != 0 {
            self.refuse_anchor(span);
        }
        if tagged {
            let wrong = report("YAML tags (`!name`) are not part of the format");
            self.problems.add(span, wrong.help("remove the tag"));
        }
    }

    fn refuse_anchor(&mut self, span: Span) {
        let wrong =
            report("YAML anchors and aliases (`&name`, `*name`) are not part of the format");
        self.problems
            .add(span, wrong.help("use `types:` for what nodes share and `params:` for values"));
    }

    fn begin(&mut self, span: Span, map: bool) {
        let as_key = matches!(self.open.last(), Some(Open::Map { key: None, .. }));
        if as_key {
            let wrong = report("a key must be a word, not a list or a map");
            let span = self.problems.sources.file(self.file).first_line(span);
            let wrong = wrong.help("a scalar that begins with `{` or `[` needs quotes");
            self.problems.add(span, wrong);
        }
        let too_deep = self.open.len() == MAX_DEPTH;
        if too_deep {
            let wrong = report(format!("this is nested deeper than {MAX_DEPTH} levels"));
            self.problems.add(span, wrong.help("no key of the format is that deep"));
        }
        let ignored = matches!(self.open.last(), Some(Open::Ignored));
        self.open.push(if as_key || too_deep || ignored {
            Open::Ignored
        } else if map {
            Open::Map { span, entries: Vec::new(), keys: HashSet::new(), key: None }
        } else {
            Open::List { span, items: Vec::new() }
        });
    }

    fn end(&mut self, end: Span) {
        let Some(open) = self.open.pop() else { return };
        let (span, data) = match open {
            Open::List { span, items } => (span, Data::List(items)),
            Open::Map { span, entries, .. } => (span, Data::Map(entries)),
            // As a key it must still take the key's turn, else values would be read as keys.
            Open::Ignored => (end, Data::Scalar { text: String::new(), plain: true }),
        };
        let whole = Span { end: end.end.max(span.end), ..span };
        let span = self.problems.sources.file(self.file).first_line(whole);
        self.value(Yaml { span, data });
    }

    fn value(&mut self, yaml: Yaml) {
        match self.open.last_mut() {
            None => self.root = Some(yaml),
            Some(Open::Ignored) => {}
            Some(Open::List { items, .. }) => items.push(yaml),
            Some(Open::Map { entries, keys, key, .. }) => match key.take() {
                None => {
                    let text = match yaml.data {
                        Data::Scalar { text, .. } => text,
                        Data::List(_) | Data::Map(_) => String::new(),
                    };
                    *key = Some((text, yaml.span));
                }
                Some((key, key_span)) => {
                    if keys.insert(key.clone()) {
                        entries.push(Entry { key, key_span, value: yaml });
                    } else {
                        let wrong = report(format!("the key `{}` is written twice", excerpt(&key)));
                        self.problems
                            .add(key_span, wrong.expected("a key that is not yet in this map"));
                    }
                }
            },
        }
    }
}
