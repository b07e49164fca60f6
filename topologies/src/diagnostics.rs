//! What is wrong with a topology file: all of it at once.
//!
//! Purpose: [`Diagnostics`] is the error of loading; each [`Problem`] in it names the place, the
//! offending text, what was expected, and often what was probably meant. Rendered by any handler
//! of `miette`.
//!
//! Assumptions: nobody reads more than [`MAX_PROBLEMS`] problems; the rest are counted.

use std::collections::HashSet;
use std::fmt;

use miette::{Diagnostic, LabeledSpan, SourceCode};

use crate::snippet::{Snippet, visible};
use crate::source::{Sources, Span};

/// More than this many problems in one file come from one cause.
const MAX_PROBLEMS: usize = 100;

/// Everything that is wrong with a topology file, in the order of files and lines.
#[derive(Debug, Clone, thiserror::Error)]
pub struct Diagnostics {
    name: String,
    problems: Vec<Problem>,
    omitted: usize,
}

/// One thing that is wrong, and where.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{message}")]
pub struct Problem {
    /// What is wrong, naming its subject.
    pub message: String,
    /// What was expected instead; empty where the message says it all.
    pub expected: String,
    /// What to do next, where something better than `expected` can be said.
    pub help: Option<String>,
    /// Where it stands; absent for what is in no file (`--set`, a file that cannot be read).
    pub place: Option<Place>,
    snippet: Option<Snippet>,
}

/// A place in a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// The file's name as given.
    pub file: String,
    /// Line, from 1.
    pub line: usize,
    /// Column in characters, from 1.
    pub column: usize,
    /// First byte of the offending text.
    pub offset: usize,
    /// The offending text.
    pub text: String,
}

impl Diagnostics {
    /// The problems; never empty.
    pub fn problems(&self) -> &[Problem] {
        &self.problems
    }

    /// How many further problems were found but not kept.
    pub fn omitted(&self) -> usize {
        self.omitted
    }
}

impl fmt::Display for Diagnostics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let count = self.problems.len() + self.omitted;
        let noun = if count == 1 { "error" } else { "errors" };
        write!(f, "{}: {count} {noun}", self.name)?;
        if self.omitted > 0 {
            write!(f, ", of which the first {} are shown", self.problems.len())?;
        }
        Ok(())
    }
}

impl Diagnostic for Diagnostics {
    fn related<'a>(&'a self) -> Option<Box<dyn Iterator<Item = &'a dyn Diagnostic> + 'a>> {
        Some(Box::new(self.problems.iter().map(|problem| problem as &dyn Diagnostic)))
    }
}

impl Diagnostic for Problem {
    fn help<'a>(&'a self) -> Option<Box<dyn fmt::Display + 'a>> {
        self.help.as_ref().map(|help| Box::new(help) as Box<dyn fmt::Display>)
    }

    fn source_code(&self) -> Option<&dyn SourceCode> {
        self.snippet.as_ref().map(|snippet| snippet as &dyn SourceCode)
    }

    fn labels(&self) -> Option<Box<dyn Iterator<Item = LabeledSpan> + '_>> {
        let place = self.snippet.as_ref()?.label();
        let label =
            if self.expected.is_empty() { "here".to_owned() } else { self.expected.clone() };
        let span = LabeledSpan::new(Some(label), place.start, place.len());
        Some(Box::new(std::iter::once(span)))
    }
}

/// Collects problems while a file is read, each once.
#[derive(Debug, Default)]
pub(crate) struct Problems {
    pub(crate) sources: Sources,
    found: Vec<(Option<Span>, Problem)>,
    seen: HashSet<(Option<Span>, String)>,
    once_per_place: bool,
    omitted: usize,
}

/// One problem being described.
#[derive(Debug)]
#[must_use = "a report counts only when handed to `Problems::add`"]
pub(crate) struct Report {
    message: String,
    expected: String,
    help: Option<String>,
}

/// Begins a report with what is wrong.
pub(crate) fn report(message: impl Into<String>) -> Report {
    Report { message: message.into(), expected: String::new(), help: None }
}

impl Report {
    /// Says what was expected; shown under the offending text.
    pub(crate) fn expected(mut self, expected: impl Into<String>) -> Self {
        self.expected = expected.into();
        self
    }

    /// Says what to do next.
    pub(crate) fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }

    /// Suggests the nearest of `known`, or else lists a few of them.
    pub(crate) fn suggest<'a>(
        self,
        word: &str,
        known: impl IntoIterator<Item = &'a str>,
        what: &str,
    ) -> Self {
        match suggestion(word, known, what) {
            Some(help) => self.help(help),
            None => self,
        }
    }
}

/// `did you mean …?` where a known word is near, else the list of known words if it is short
/// enough to read.
pub(crate) fn suggestion<'a>(
    word: &str,
    known: impl IntoIterator<Item = &'a str>,
    what: &str,
) -> Option<String> {
    const LISTED: usize = 24;
    // Comparing a megabyte with every known word would take quadratic time for no insight.
    const LONGEST: usize = 64;
    // Likewise thousands of nodes, each time one of them is misspelt.
    const COMPARED: usize = 500;
    let known: Vec<&str> = known.into_iter().collect();
    if !word.is_empty() && word.len() <= LONGEST {
        let near = known
            .iter()
            .take(COMPARED)
            .map(|candidate| (strsim::damerau_levenshtein(word, candidate), *candidate))
            .filter(|(distance, candidate)| *distance <= candidate.len().max(3) / 3)
            .min_by_key(|(distance, _)| *distance);
        if let Some((_, candidate)) = near {
            return Some(format!("did you mean `{candidate}`?"));
        }
    }
    if known.is_empty() {
        return None;
    }
    let list: Vec<String> = known.iter().take(LISTED).map(|word| format!("`{word}`")).collect();
    let more = if known.len() > LISTED { ", …" } else { "" };
    Some(format!("known {what}: {}{more}", list.join(", ")))
}

/// The beginning of a text, for messages: one line, nothing that a terminal would obey.
pub(crate) fn excerpt(text: &str) -> String {
    beginning(text, 60)
}

/// A message, likewise; those that quote something longer quote its beginning only.
fn sentence(text: &str) -> String {
    beginning(text, 1000)
}

fn beginning(text: &str, longest: usize) -> String {
    match text.char_indices().nth(longest) {
        Some((end, _)) => visible(&text[..end]) + "…",
        None => visible(text),
    }
}

impl Problems {
    /// Records a problem at a place; the same one at the same place counts once.
    pub(crate) fn add(&mut self, span: Span, report: Report) {
        let span = self.sources.file(span.file).clamp(span);
        self.record(Some(span), report);
    }

    /// Records a problem that stands in no file.
    pub(crate) fn add_unplaced(&mut self, report: Report) {
        self.record(None, report);
    }

    /// While this is on, a place that has a problem gets no further one: what is wrong with one
    /// node of a list is wrong with all.
    pub(crate) fn once_per_place(&mut self, on: bool) {
        self.once_per_place = on;
    }

    /// How many problems there are so far; to see whether a step added one.
    pub(crate) fn count(&self) -> usize {
        self.found.len() + self.omitted
    }

    /// Whether further problems are only counted.
    pub(crate) fn is_full(&self) -> bool {
        self.found.len() == MAX_PROBLEMS
    }

    fn record(&mut self, span: Option<Span>, report: Report) {
        if self.once_per_place && self.found.iter().any(|(found, _)| *found == span) {
            return;
        }
        if !self.seen.insert((span, report.message.clone())) {
            return;
        }
        if self.found.len() == MAX_PROBLEMS {
            self.omitted += 1;
            return;
        }
        let place = span.map(|span| {
            let file = self.sources.file(span.file);
            let (line, column) = file.position(span.start);
            Place {
                file: file.name.clone(),
                line,
                column,
                offset: span.start,
                text: self.sources.slice(span).to_owned(),
            }
        });
        let snippet = span.map(|span| Snippet::new(self.sources.file(span.file), span));
        // Reasons of parsers quote the file, too.
        let Report { message, expected, help } = report;
        let (message, expected) = (sentence(&message), sentence(&expected));
        let help = help.as_deref().map(sentence);
        self.found.push((span, Problem { message, expected, help, place, snippet }));
    }

    /// The value if nothing was wrong, else the problems in the order of files and lines.
    pub(crate) fn finish<T>(mut self, name: &str, value: Option<T>) -> Result<T, Diagnostics> {
        match value {
            Some(value) if self.found.is_empty() => Ok(value),
            _ => {
                self.found.sort_by_key(|(span, _)| *span);
                Err(Diagnostics {
                    name: name.to_owned(),
                    problems: self.found.into_iter().map(|(_, problem)| problem).collect(),
                    omitted: self.omitted,
                })
            }
        }
    }
}
