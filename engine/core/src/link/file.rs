//! Line by line through the small text formats of traces, schedules and tables.

use std::fmt::Display;
use std::str::FromStr;

use thiserror::Error;

/// Why a file with data of a link cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum FileError {
    /// One line is wrong.
    #[error(transparent)]
    Line(#[from] LineError),
    /// There are no data.
    #[error("the file has no data; expected {expected}")]
    Empty {
        /// What should be there.
        expected: &'static str,
    },
    /// Probabilities that are no distribution.
    #[error("the probabilities add up to {percent}%; expected 100%")]
    NotNormalised {
        /// Their sum.
        percent: String,
    },
    /// A table that does not have the moments that its format asks for.
    #[error("the {moment} of the numbers is {found} times 8192; expected {expected}")]
    NotStandard {
        /// Which moment.
        moment: &'static str,
        /// What it is.
        found: String,
        /// What it should be.
        expected: &'static str,
    },
}

/// What is wrong in one line, and where.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("line {line}: `{found}` is wrong here; expected {expected}")]
pub struct LineError {
    /// The line, from 1.
    pub line: usize,
    /// First byte of the offending text in the file.
    pub offset: usize,
    /// The offending text.
    pub found: String,
    /// What should be there.
    pub expected: String,
}

/// A line that is neither empty nor a comment.
#[derive(Debug, Clone, Copy)]
pub(super) struct Row<'t> {
    /// Its text without blanks around it.
    pub(super) text: &'t str,
    number: usize,
    offset: usize,
}

/// The rows of a text; lines that begin with `#` are comments. A byte order mark in front is none
/// of its business.
pub(super) fn rows(text: &str) -> impl Iterator<Item = Row<'_>> {
    let whole = text.as_ptr() as usize;
    text.trim_start_matches('\u{feff}').lines().enumerate().filter_map(move |(at, line)| {
        let text = line.trim();
        let offset = text.as_ptr() as usize - whole;
        (!text.is_empty() && !text.starts_with('#')).then_some(Row { text, number: at + 1, offset })
    })
}

impl<'t> Row<'t> {
    /// Whether there is no number in this row.
    pub(super) fn is_heading(&self) -> bool {
        self.number == 1 && !self.text.bytes().any(|byte| byte.is_ascii_digit())
    }

    /// An error about `found`, a part of this row.
    pub(super) fn error(&self, found: &str, expected: impl Into<String>) -> FileError {
        let start = (found.as_ptr() as usize).saturating_sub(self.text.as_ptr() as usize);
        let offset = self.offset + start.min(self.text.len());
        let (found, expected) = (found.to_owned(), expected.into());
        LineError { line: self.number, offset, found, expected }.into()
    }

    /// The fields between commas, or between blanks where there is no comma; quotes around one are
    /// taken away (RFC 4180).
    pub(super) fn fields(&self) -> Result<Vec<&'t str>, FileError> {
        let fields: Vec<&str> = if self.text.contains(',') {
            self.text.split(',').map(str::trim).collect()
        } else {
            self.text.split_whitespace().collect()
        };
        fields.into_iter().map(|field| self.unquoted(field)).collect()
    }

    /// No value has a comma or a quote in it, so neither has a field in quotes.
    fn unquoted(&self, field: &'t str) -> Result<&'t str, FileError> {
        let inner = match field.strip_prefix('"') {
            None => Some(field),
            Some(rest) => rest.strip_suffix('"').map(str::trim),
        };
        inner
            .filter(|inner| !inner.contains('"'))
            .ok_or_else(|| self.error(field, "a value without quotes, or between two of them"))
    }

    pub(super) fn columns<const N: usize>(
        &self,
        expected: &str,
    ) -> Result<[&'t str; N], FileError> {
        <[&str; N]>::try_from(self.fields()?)
            .map_err(|_| self.error(self.text, format!("{expected} between commas")))
    }

    pub(super) fn parse<T: FromStr<Err: Display>>(&self, field: &str) -> Result<T, FileError> {
        field.parse().map_err(|error: T::Err| {
            let error = error.to_string();
            // The message says what is wrong and then, behind a semicolon, what to write.
            let expected = error.rsplit_once("; write ").map_or(error.as_str(), |(_, form)| form);
            let sign = if field.starts_with('-') { ", not negative" } else { "" };
            self.error(field, format!("{expected}{sign}"))
        })
    }
}
