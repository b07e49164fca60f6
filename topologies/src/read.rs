//! Values with their expressions computed.
//!
//! Purpose: from a scalar in the tree to a typed value. Every accessor records what is wrong and
//! returns `None`; a structure that the check has already refused gives `None` in silence.

use std::ops::Range;
use std::str::FromStr;

use crate::check::wrong_value;
use crate::diagnostics::{Problems, report, suggestion};
use crate::expression::{ExprError, Scope, Value};
use crate::hosts;
use crate::shape::{NONE, Scalar};
use crate::source::Span;
use crate::template::{TemplateError, render};
use crate::tree::{Entry, Yaml};

/// A key's values: those of a node, then those of its types.
#[derive(Debug, Clone, Default)]
pub(crate) struct Fields<'t> {
    maps: Vec<&'t Yaml>,
    /// How many of `maps` the user wrote; the others are a preset's.
    own: usize,
}

impl<'t> Fields<'t> {
    pub(crate) fn of(yaml: &'t Yaml) -> Self {
        Self { maps: vec![yaml], own: 1 }
    }

    /// Adds a map whose keys count only where no earlier map has them.
    pub(crate) fn push(&mut self, yaml: &'t Yaml) {
        self.maps.push(yaml);
        self.own = self.maps.len();
    }

    /// Adds a preset's map, behind all others.
    pub(crate) fn push_preset(&mut self, yaml: &'t Yaml) {
        self.maps.push(yaml);
    }

    pub(crate) fn find(&self, key: &str) -> Option<&'t Yaml> {
        self.maps.iter().find_map(|map| map.get(key))
    }

    /// What the user wrote, without presets.
    pub(crate) fn own(&self, key: &str) -> Option<&'t Yaml> {
        self.maps[..self.own].iter().find_map(|map| map.get(key))
    }

    /// All keys that are present, nearest first; a key may come more than once.
    pub(crate) fn entries(&self) -> impl Iterator<Item = &'t Entry> {
        self.maps.iter().flat_map(|map| map.map().unwrap_or_default())
    }
}

/// The place of a part of a scalar's text.
pub(crate) fn locate(problems: &Problems, whole: Span, text: &str, part: Range<usize>) -> Span {
    let raw = problems.sources.slice(whole);
    let fallback = problems.sources.file(whole.file).first_line(whole);
    let Some(wanted) = text.get(part.clone()).filter(|wanted| !wanted.is_empty()) else {
        return fallback;
    };
    // Quotes and indentation move the text; the n-th occurrence stays the n-th.
    let before = text.match_indices(wanted).take_while(|(at, _)| *at < part.start).count();
    match raw.match_indices(wanted).nth(before) {
        Some((at, _)) => {
            let start = whole.start + at;
            Span { file: whole.file, start, end: start + wanted.len() }
        }
        None => fallback,
    }
}

/// Records what is wrong with an expression in a scalar; `part` is its place in `text`.
pub(crate) fn expression_problem(
    problems: &mut Problems,
    yaml: &Yaml,
    text: &str,
    part: Range<usize>,
    error: &ExprError,
) {
    // What it uses is wrong, and has been said where that stands.
    if let ExprError::Undetermined { .. } = error {
        return;
    }
    let span = locate(problems, yaml.span, text, part);
    let mut wrong = report(error.to_string());
    match error {
        ExprError::UnknownName { name, known, .. } => {
            wrong = wrong.expected("not known here");
            // A lone upper-case word is the shell's, by all custom.
            let help = if name
                .bytes()
                .all(|b| b.is_ascii_uppercase() || b.is_ascii_digit() || b == b'_')
            {
                Some("write `$${…}` for a `${…}` that the shell shall see".to_owned())
            } else {
                suggestion(name, known.iter().map(String::as_str), "names")
            };
            if let Some(help) = help {
                wrong = wrong.help(help);
            }
        }
        ExprError::Syntax { .. } => {
            wrong = wrong
                .expected("expected an expression such as `${nodes - 1}`")
                .help("write `$${…}` for a `${…}` that the shell shall see");
        }
        ExprError::Evaluation { .. } | ExprError::Undetermined { .. } => {
            wrong = wrong.expected("computed here");
        }
    }
    problems.add(span, wrong);
}

/// The reader of computed values: problems and the names in scope.
#[derive(Debug)]
pub(crate) struct Reader<'p> {
    pub(crate) problems: &'p mut Problems,
    pub(crate) scope: Scope,
    /// How many values could not be read so far; to see whether a step lost one.
    pub(crate) lost: usize,
}

impl<'p> Reader<'p> {
    pub(crate) fn new(problems: &'p mut Problems, scope: Scope) -> Self {
        Self { problems, scope, lost: 0 }
    }

    /// A scalar with its expressions computed; without any, by the core schema.
    pub(crate) fn value(&mut self, yaml: &Yaml) -> Option<Value> {
        let text = yaml.scalar()?;
        match self.render(yaml, text).ok()? {
            Some(value) => Some(value),
            None if matches!(&yaml.data, crate::tree::Data::Scalar { plain: true, .. }) => {
                Some(Value::from_scalar(text))
            }
            None => Some(Value::Text(text.to_owned())),
        }
    }

    /// A scalar as text, with its expressions computed.
    pub(crate) fn text(&mut self, yaml: &Yaml) -> Option<String> {
        let Some(text) = yaml.scalar() else {
            self.lost += 1;
            return None;
        };
        Some(
            self.render(yaml, text)
                .ok()?
                .map_or_else(|| text.to_owned(), |value| value.to_string()),
        )
    }

    /// A key of a map as text.
    pub(crate) fn key(&mut self, entry: &Entry) -> Option<String> {
        let data = crate::tree::Data::Scalar { text: entry.key.clone(), plain: false };
        self.text(&Yaml { span: entry.key_span, data })
    }

    /// `Err` if something was wrong and has been recorded; `Ok(None)` without expressions.
    fn render(&mut self, yaml: &Yaml, text: &str) -> Result<Option<Value>, ()> {
        let errors = match render(text, &self.scope) {
            Ok(value) => return Ok(value),
            Err(errors) => errors,
        };
        self.lost += 1;
        for error in &errors {
            match error {
                TemplateError::Expression { error, range } => {
                    expression_problem(self.problems, yaml, text, range.clone(), error);
                }
                TemplateError::Unclosed { range } => {
                    let span = locate(self.problems, yaml.span, text, range.clone());
                    let help =
                        "close the expression, or write `$${` for a `${` that the shell shall see";
                    let wrong = report(error.to_string()).expected("opened here");
                    self.problems.add(span, wrong.help(help));
                }
            }
        }
        Err(())
    }

    /// A scalar of a kind, as text that the kind accepts.
    pub(crate) fn checked(&mut self, yaml: &Yaml, scalar: Scalar, key: &str) -> Option<String> {
        let text = self.text(yaml)?;
        match scalar.complaint(&text) {
            None => Some(text),
            Some(wrong) => {
                self.lost += 1;
                self.problems.add(yaml.span, wrong_value(&wrong, scalar, key, &text));
                None
            }
        }
    }

    /// Whether a scalar says `none`; what is wrong with it is left to who reads it.
    pub(crate) fn is_none(&self, yaml: &Yaml) -> bool {
        let Some(text) = yaml.scalar() else { return false };
        match render(text, &self.scope) {
            Ok(Some(value)) => value.to_string() == NONE,
            Ok(None) => text == NONE,
            Err(_) => false,
        }
    }

    /// A scalar of a kind, parsed.
    pub(crate) fn parsed<T: FromStr>(
        &mut self,
        yaml: &Yaml,
        scalar: Scalar,
        key: &str,
    ) -> Option<T> {
        // What passed the check of its kind parses; a type too narrow for its kind would not.
        self.checked(yaml, scalar, key)?.parse().ok()
    }

    /// A scalar or a list of scalars, parsed; what is wrong is left out.
    pub(crate) fn many<T: FromStr>(
        &mut self,
        yaml: &Yaml,
        scalar: Scalar,
        key: &str,
    ) -> Vec<(T, Span)> {
        if yaml.list().is_none() && yaml.scalar().is_none() {
            self.lost += 1;
        }
        one_or_many(yaml)
            .iter()
            .filter_map(|item| Some((self.parsed(item, scalar, key)?, item.span)))
            .collect()
    }

    /// The names a host list, or a list of them, stands for, each with its place.
    pub(crate) fn hosts(&mut self, yaml: &Yaml) -> Option<Vec<(String, Span)>> {
        let mut names = Vec::new();
        let mut complete = true;
        for item in one_or_many(yaml) {
            match self.text(item).and_then(|text| self.expand(item, &text)) {
                Some(found) => names.extend(found.into_iter().map(|name| (name, item.span))),
                None => complete = false,
            }
        }
        if names.len() > hosts::MAX_NODES {
            let wrong = format!("this names more than {} nodes", hosts::MAX_NODES);
            self.problems.add(yaml.span, report(wrong).expected("too many"));
            return None;
        }
        complete.then_some(names)
    }

    /// The names of links that a text stands for: itself, or the names of a range.
    pub(crate) fn link_names(&mut self, yaml: &Yaml) -> Option<Vec<String>> {
        let text = self.text(yaml)?;
        if text.contains(['[', ',']) { self.expand(yaml, &text) } else { Some(vec![text]) }
    }

    /// The names a key that is a host list stands for.
    pub(crate) fn key_hosts(&mut self, entry: &Entry) -> Option<Vec<String>> {
        let text = self.key(entry)?;
        let data = crate::tree::Data::Scalar { text: entry.key.clone(), plain: false };
        self.expand(&Yaml { span: entry.key_span, data }, &text)
    }

    fn expand(&mut self, yaml: &Yaml, text: &str) -> Option<Vec<String>> {
        match hosts::expand(text) {
            Ok(names) => Some(names),
            Err(error) => {
                self.lost += 1;
                let span = locate(self.problems, yaml.span, text, error.range());
                let mut wrong =
                    report(error.to_string()).expected("expected names such as `n0` or `n[0-9]`");
                if yaml.scalar().is_some_and(|written| written != text) {
                    wrong = wrong
                        .help(format!("the text became `{}`", crate::diagnostics::excerpt(text)));
                }
                self.problems.add(span, wrong);
                None
            }
        }
    }
}

/// The items of a list, or the one scalar.
pub(crate) fn one_or_many(yaml: &Yaml) -> &[Yaml] {
    match yaml.list() {
        Some(items) => items,
        None if yaml.scalar().is_some() => std::slice::from_ref(yaml),
        None => &[],
    }
}
