//! Texts with `${…}` in them.
//!
//! Purpose: splitting a scalar into literal text and expressions, and putting the values in. A
//! scalar that is exactly one `${…}` keeps its value's type; `$${` gives the text `${`. Every
//! other `$` is left alone, so a shell's `$VAR` and `$(…)` need no escape.

use std::ops::Range;

use thiserror::Error;

use crate::expression::{ExprError, Scope, Value, evaluate};

/// Why a text cannot be completed; positions are bytes of the text.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub(crate) enum TemplateError {
    #[error("`${{` without its `}}`")]
    Unclosed { range: Range<usize> },
    #[error("{error}")]
    Expression { error: ExprError, range: Range<usize> },
}

#[derive(Debug, PartialEq)]
enum Piece<'a> {
    Text(&'a str),
    /// The bytes between the braces.
    Expression(Range<usize>),
}

/// Whether the text contains an expression (or its escape).
pub(crate) fn has_expression(text: &str) -> bool {
    text.contains("${")
}

fn pieces(text: &str) -> Result<Vec<Piece<'_>>, TemplateError> {
    let mut pieces = Vec::new();
    let mut at = 0;
    while let Some(open) = text[at..].find("${").map(|found| at + found) {
        if text[at..open].ends_with('$') {
            pieces.push(Piece::Text(&text[at..open - 1]));
            pieces.push(Piece::Text("${"));
            at = open + 2;
            continue;
        }
        if open > at {
            pieces.push(Piece::Text(&text[at..open]));
        }
        let close = closing_brace(text, open + 2)
            .ok_or(TemplateError::Unclosed { range: open..open + 2 })?;
        pieces.push(Piece::Expression(open + 2..close));
        at = close + 1;
    }
    if at < text.len() {
        pieces.push(Piece::Text(&text[at..]));
    }
    Ok(pieces)
}

/// The `}` that ends an expression: not one in quotes, nor one that closes a brace within.
fn closing_brace(text: &str, from: usize) -> Option<usize> {
    let mut depth = 0_usize;
    let mut quote = None;
    let mut escaped = false;
    for (at, byte) in text.bytes().enumerate().skip(from) {
        match (quote, byte) {
            _ if escaped => escaped = false,
            (Some(_), b'\\') => escaped = true,
            (Some(q), _) if q == byte => quote = None,
            (None, b'\'' | b'"') => quote = Some(byte),
            (None, b'{') => depth += 1,
            (None, b'}') if depth == 0 => return Some(at),
            (None, b'}') => depth -= 1,
            _ => {}
        }
    }
    None
}

/// Puts values in. `None` means that there is no expression at all. All that is wrong comes back,
/// at least one error.
pub(crate) fn render(text: &str, scope: &Scope) -> Result<Option<Value>, Vec<TemplateError>> {
    if !has_expression(text) {
        return Ok(None);
    }
    let pieces = pieces(text).map_err(|error| vec![error])?;
    let value = |range: &Range<usize>| {
        evaluate(&text[range.clone()], scope).map_err(|error| {
            let range = within(range, &error);
            TemplateError::Expression { error, range }
        })
    };
    if let [Piece::Expression(range)] = pieces.as_slice() {
        return value(range).map(Some).map_err(|error| vec![error]);
    }
    let mut whole = String::with_capacity(text.len());
    let mut errors = Vec::new();
    for piece in &pieces {
        match piece {
            Piece::Text(text) => whole.push_str(text),
            Piece::Expression(range) => match value(range) {
                Ok(value) => whole.push_str(&value.to_string()),
                Err(error) => errors.push(error),
            },
        }
    }
    if errors.is_empty() { Ok(Some(Value::Text(whole))) } else { Err(errors) }
}

/// The bytes of the whole text that an expression's error is about.
pub(crate) fn within(expression: &Range<usize>, error: &ExprError) -> Range<usize> {
    match error.range() {
        Some(part) if expression.start + part.end <= expression.end => {
            expression.start + part.start..expression.start + part.end
        }
        _ => expression.clone(),
    }
}

/// The expression of a text that must be exactly one `${…}`: its place in the text.
pub(crate) fn sole_expression(text: &str) -> Option<Range<usize>> {
    let trimmed = text.trim();
    let start = text.len() - text.trim_start().len();
    match pieces(trimmed).ok()?.as_slice() {
        [Piece::Expression(range)] => Some(range.start + start..range.end + start),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scope() -> Scope {
        let mut scope = Scope::new();
        scope.set("n", Value::Int(3));
        scope
    }

    fn rendered(text: &str) -> String {
        render(text, &scope()).unwrap().unwrap().to_string()
    }

    #[test]
    fn only_our_own_dollar_brace_is_touched() {
        assert_eq!(render("echo $HOME $(id) $$ $1 {a}", &scope()), Ok(None));
        assert_eq!(rendered("a${n}b${n-1}"), "a3b2");
        assert_eq!(rendered("$${HOME} ${n} $$"), "${HOME} 3 $$");
        assert_eq!(rendered("$$${n}"), "$${n}");
        assert_eq!(rendered("x${'}'}y"), "x}y");
        assert_eq!(rendered("x${'it\\'s }'}"), "xit's }");
    }

    #[test]
    fn a_sole_expression_keeps_its_type() {
        assert_eq!(render("${n}", &scope()), Ok(Some(Value::Int(3))));
        assert_eq!(render("${n} ", &scope()), Ok(Some(Value::Text("3 ".to_owned()))));
        assert_eq!(sole_expression(" ${a < 1} "), Some(3..8));
        assert_eq!(sole_expression("${a} < 1"), None);
    }

    #[test]
    fn errors_point_into_the_text() {
        let text = "iperf -b ${pps}pps ${n} ${x}";
        let Err(errors) = render(text, &scope()) else {
            panic!("an unknown name must be an error")
        };
        let parts: Vec<&str> = errors
            .iter()
            .map(|error| match error {
                TemplateError::Expression { range, .. } | TemplateError::Unclosed { range } => {
                    &text[range.clone()]
                }
            })
            .collect();
        assert_eq!(parts, ["pps", "x"]);
        assert_eq!(render("a ${n", &scope()), Err(vec![TemplateError::Unclosed { range: 2..4 }]));
    }
}
