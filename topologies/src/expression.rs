//! Expressions: what stands between `${` and `}`.
//!
//! Purpose: small computations over parameters and metrics, at load time (`n[0-${nodes-1}]`) and at
//! run time (`${loss < 0.01}`). The language is that of Jinja expressions without filters and
//! tests: `+ - * / // % **`, comparisons, `and or not`, `a if c else b`, `in`, `~` to join texts,
//! and the functions of [`FUNCTIONS`].
//!
//! Assumptions: values are integers, floats, booleans and texts. `/` gives a float, `//` an
//! integer. Evaluation is bounded: an expression is at most `MAX_LENGTH` bytes, runs on a fixed
//! amount of fuel, and its result is at most `MAX_TEXT` bytes.
//!
//! Not modelled: lists and maps as results, user-defined functions, side effects.

mod functions;

use std::collections::BTreeSet;
use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use indexmap::{IndexMap, IndexSet};
use minijinja as mj;
use serde::{Deserialize, Serialize};
use thiserror::Error;

pub use functions::FUNCTIONS;
pub(crate) use functions::{Addresses, Directory, InterfaceAddresses};

use crate::diagnostics::excerpt;

/// Longest expression in bytes. The evaluator recurses once per operator without a limit of its
/// own; a thousand levels fit every thread's stack.
const MAX_LENGTH: usize = 1024;
/// Longest text an expression may give, in bytes.
const MAX_TEXT: usize = 64 << 10;
/// Instructions one evaluation may take; the longest allowed expression needs a few thousand.
const FUEL: u64 = 50_000;

/// Words of the language that cannot be names.
const RESERVED: &[&str] = &[
    "true", "false", "none", "True", "False", "None", "and", "or", "not", "in", "is", "if", "else",
];

/// Result of an expression; also the type of a parameter.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Value {
    /// `true` or `false`.
    Bool(bool),
    /// A whole number.
    Int(i64),
    /// Any other number; always finite.
    Float(f64),
    /// Text.
    Text(String),
}

impl Value {
    /// The value of a plain YAML scalar by the core schema: `5`, `0x10`, `1.5`, `true`, else text.
    pub fn from_scalar(text: &str) -> Self {
        match text {
            "true" | "True" | "TRUE" => return Self::Bool(true),
            "false" | "False" | "FALSE" => return Self::Bool(false),
            _ => {}
        }
        let based = |prefix, radix| {
            text.strip_prefix(prefix)
                .filter(|digits| digits.bytes().all(|b| b.is_ascii_alphanumeric()))
                .and_then(|digits| i64::from_str_radix(digits, radix).ok())
        };
        if let Some(number) =
            text.parse().ok().or_else(|| based("0x", 16)).or_else(|| based("0o", 8))
        {
            return Self::Int(number);
        }
        // Rust also reads `inf`, `nan` and `infinity`, which the core schema spells otherwise.
        let numeric = text.bytes().all(|b| b.is_ascii_digit() || b"+-.eE".contains(&b));
        match text.parse::<f64>() {
            Ok(number) if numeric && number.is_finite() => Self::Float(number),
            _ => Self::Text(text.to_owned()),
        }
    }

    /// The value as a number, if it is one.
    pub fn as_f64(&self) -> Option<f64> {
        match self {
            Self::Int(number) => Some(*number as f64),
            Self::Float(number) => Some(*number),
            Self::Bool(_) | Self::Text(_) => None,
        }
    }

    /// The value as a truth value, if it is one.
    pub fn as_bool(&self) -> Option<bool> {
        match self {
            Self::Bool(value) => Some(*value),
            _ => None,
        }
    }

    /// `a number`, `a text`, …, for messages.
    pub fn type_name(&self) -> &'static str {
        match self {
            Self::Bool(_) => "a truth value",
            Self::Int(_) | Self::Float(_) => "a number",
            Self::Text(_) => "a text",
        }
    }

    fn to_jinja(&self) -> mj::Value {
        match self {
            Self::Bool(value) => mj::Value::from(*value),
            Self::Int(value) => mj::Value::from(*value),
            Self::Float(value) => mj::Value::from(*value),
            Self::Text(value) => mj::Value::from(value.as_str()),
        }
    }
}

impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bool(value) => write!(f, "{value}"),
            Self::Int(value) => write!(f, "{value}"),
            Self::Float(value) => write!(f, "{value}"),
            Self::Text(value) => f.write_str(value),
        }
    }
}

impl From<f64> for Value {
    fn from(number: f64) -> Self {
        Self::Float(number)
    }
}

impl From<&Value> for serde_json::Value {
    fn from(value: &Value) -> Self {
        match value {
            Value::Bool(value) => Self::from(*value),
            Value::Int(value) => Self::from(*value),
            Value::Float(value) => Self::from(*value),
            Value::Text(value) => Self::from(value.as_str()),
        }
    }
}

/// Why an expression has no value.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum ExprError {
    /// It is not an expression.
    #[error("`{}` is not an expression: {reason}", excerpt(expression))]
    Syntax {
        /// The expression.
        expression: String,
        /// What the reader stumbled over.
        reason: String,
        /// Bytes of the expression the reason is about, where known.
        range: Option<Range<usize>>,
    },
    /// It uses a name that stands for nothing here.
    #[error("unknown name `{}` in the expression `{}`", excerpt(name), excerpt(expression))]
    UnknownName {
        /// The expression.
        expression: String,
        /// The name.
        name: String,
        /// Bytes of the expression that hold the name.
        range: Option<Range<usize>>,
        /// Names that would be known.
        known: Vec<String>,
    },
    /// It cannot be computed, or its result is of no use.
    #[error("the expression `{}` has no value: {reason}", excerpt(expression))]
    Evaluation {
        /// The expression.
        expression: String,
        /// Why not.
        reason: String,
        /// Bytes of the expression the reason is about, where known.
        range: Option<Range<usize>>,
    },
    /// It uses something that could not be read itself, which has been said where it stands.
    #[error("the expression `{}` uses what could not be read", excerpt(expression))]
    Undetermined {
        /// The expression.
        expression: String,
    },
}

impl ExprError {
    fn into_expression(self) -> String {
        match self {
            Self::Syntax { expression, .. }
            | Self::UnknownName { expression, .. }
            | Self::Evaluation { expression, .. }
            | Self::Undetermined { expression } => expression,
        }
    }

    /// The bytes of the expression that are at fault, where known.
    pub fn range(&self) -> Option<Range<usize>> {
        match self {
            Self::Syntax { range, .. }
            | Self::UnknownName { range, .. }
            | Self::Evaluation { range, .. } => range.clone(),
            Self::Undetermined { .. } => None,
        }
    }
}

/// The names an expression can use.
#[derive(Debug, Clone, Default)]
pub struct Scope {
    variables: IndexMap<String, Value>,
    /// Names that are declared, but whose value could not be read.
    undetermined: IndexSet<String>,
    /// Whether names may be declared where nobody could read them.
    open: bool,
    directory: Option<Arc<Directory>>,
}

impl Scope {
    /// A scope without names.
    pub fn new() -> Self {
        Self::default()
    }

    /// Gives a name a value; a later one replaces an earlier one.
    pub fn set(&mut self, name: impl Into<String>, value: Value) {
        self.variables.insert(name.into(), value);
    }

    /// Takes a name away.
    pub fn remove(&mut self, name: &str) {
        self.variables.shift_remove(name);
        self.undetermined.shift_remove(name);
    }

    /// Declares a name whose value could not be read: expressions that use it have no value, and
    /// are not wrong for that.
    pub(crate) fn set_undetermined(&mut self, name: impl Into<String>) {
        self.undetermined.insert(name.into());
    }

    /// The names without values.
    pub(crate) fn undetermined(&self) -> impl Iterator<Item = &str> {
        self.undetermined.iter().map(String::as_str)
    }

    /// From now on no name is unknown: where it may be declared could not be read.
    pub(crate) fn open(&mut self) {
        self.open = true;
    }

    /// Whether no name is unknown.
    pub(crate) fn is_open(&self) -> bool {
        self.open
    }

    /// The value of a name.
    pub fn variable(&self, name: &str) -> Option<&Value> {
        self.variables.get(name)
    }

    /// The names, in the order they were first set.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.variables.keys().map(String::as_str)
    }

    /// Makes the address functions answer.
    pub(crate) fn set_directory(&mut self, directory: Arc<Directory>) {
        self.directory = Some(directory);
    }
}

/// Whether a word can be the name of a parameter or metric: a letter or `_`, then letters, digits
/// and `_`, and no word of the expression language.
pub fn is_name(word: &str) -> bool {
    let mut bytes = word.bytes();
    bytes.next().is_some_and(|b| b.is_ascii_alphabetic() || b == b'_')
        && bytes.all(|b| b.is_ascii_alphanumeric() || b == b'_')
        && !RESERVED.contains(&word)
        && !FUNCTIONS.iter().any(|(name, _)| *name == word)
}

/// Computes an expression (the text between `${` and `}`).
pub fn evaluate(expression: &str, scope: &Scope) -> Result<Value, ExprError> {
    let env = environment(scope.directory.as_ref());
    let compiled = compile(&env, expression)?;
    if let Some(error) =
        unknown_name(&compiled, expression, |name| scope.variables.contains_key(name))
    {
        let excused = |name: &str| scope.open || scope.undetermined.contains(name);
        let wrong = unknown_name(&compiled, expression, |name| {
            scope.variables.contains_key(name) || excused(name)
        });
        return Err(match wrong {
            Some(error) => with_known(error, scope.names()),
            None => ExprError::Undetermined { expression: error.into_expression() },
        });
    }
    let variables: std::collections::BTreeMap<&str, mj::Value> =
        scope.variables.iter().map(|(name, value)| (name.as_str(), value.to_jinja())).collect();
    let result = compiled
        .eval(mj::Value::from_pairs(variables))
        .map_err(|error| failure(expression, &error, false))?;
    from_jinja(&result).map_err(|reason| ExprError::Evaluation {
        expression: expression.to_owned(),
        reason,
        range: None,
    })
}

/// Checks an expression without computing it: its form, and that it uses only names for which
/// `known` is true.
pub fn check(expression: &str, known: &BTreeSet<&str>) -> Result<(), ExprError> {
    let env = environment(None);
    let compiled = compile(&env, expression)?;
    match unknown_name(&compiled, expression, |name| known.contains(name)) {
        Some(error) => Err(with_known(error, known.iter().copied())),
        None => Ok(()),
    }
}

/// The first name in an expression that is not known; `None` also if it is no expression.
pub(crate) fn unknown(expression: &str, known: &BTreeSet<&str>) -> Option<String> {
    match check(expression, known) {
        Err(ExprError::UnknownName { name, .. }) => Some(name),
        _ => None,
    }
}

fn with_known<'a>(error: ExprError, names: impl Iterator<Item = &'a str>) -> ExprError {
    match error {
        ExprError::UnknownName { expression, name, range, .. } => ExprError::UnknownName {
            expression,
            name,
            range,
            known: names.map(str::to_owned).collect(),
        },
        other => other,
    }
}

fn compile<'env, 'source>(
    env: &'env mj::Environment<'source>,
    expression: &'source str,
) -> Result<mj::Expression<'env, 'source>, ExprError> {
    if expression.len() > MAX_LENGTH {
        return Err(ExprError::Syntax {
            expression: excerpt(expression),
            reason: format!("it is longer than {MAX_LENGTH} bytes"),
            range: None,
        });
    }
    if expression.trim().is_empty() {
        return Err(ExprError::Syntax {
            expression: expression.to_owned(),
            reason: "it is empty".to_owned(),
            range: None,
        });
    }
    env.compile_expression(expression).map_err(|error| failure(expression, &error, true))
}

/// The first name, in the order written, that is neither a function nor known.
fn unknown_name(
    compiled: &mj::Expression<'_, '_>,
    expression: &str,
    known: impl Fn(&str) -> bool,
) -> Option<ExprError> {
    // The set is unordered: the place in the text decides which one is reported.
    compiled
        .undeclared_variables(false)
        .into_iter()
        .filter(|name| !known(name) && !FUNCTIONS.iter().any(|(function, _)| function == name))
        .map(|name| (find_word(expression, &name), name))
        .min_by_key(|(range, name)| (range.as_ref().map(|range| range.start), name.clone()))
        .map(|(range, name)| ExprError::UnknownName {
            expression: expression.to_owned(),
            name,
            range,
            known: Vec::new(),
        })
}

fn find_word(text: &str, word: &str) -> Option<Range<usize>> {
    let part = |c: char| c.is_alphanumeric() || c == '_';
    text.match_indices(word)
        .map(|(at, _)| at..at + word.len())
        .find(|range| !text[..range.start].ends_with(part) && !text[range.end..].starts_with(part))
}

fn failure(expression: &str, error: &mj::Error, syntax: bool) -> ExprError {
    let mut reason = error.detail().map_or_else(|| error.kind().to_string(), str::to_owned);
    if error.kind() == mj::ErrorKind::OutOfFuel {
        "it takes too long".clone_into(&mut reason);
    }
    if error.detail() == Some(functions::UNDETERMINED) {
        return ExprError::Undetermined { expression: expression.to_owned() };
    }
    let range = error.range().filter(|range| expression.get(range.clone()).is_some());
    let expression = expression.to_owned();
    if syntax {
        ExprError::Syntax { expression, reason, range }
    } else {
        ExprError::Evaluation { expression, reason, range }
    }
}

fn from_jinja(value: &mj::Value) -> Result<Value, String> {
    use mj::value::ValueKind;
    match value.kind() {
        ValueKind::Bool => Ok(Value::Bool(value.is_true())),
        ValueKind::Number if value.is_integer() => value
            .as_i64()
            .map(Value::Int)
            .ok_or_else(|| "it is beyond the integers of 64 bits".to_owned()),
        ValueKind::Number => match f64::try_from(value.clone()) {
            Ok(number) if number.is_finite() => Ok(Value::Float(number)),
            _ => Err("it is not a finite number (a division by zero?)".to_owned()),
        },
        ValueKind::String => match value.as_str() {
            Some(text) if text.len() <= MAX_TEXT => Ok(Value::Text(text.to_owned())),
            _ => Err(format!("it is a text of more than {MAX_TEXT} bytes")),
        },
        other => Err(format!("it is {other}, not a number, truth value or text")),
    }
}

fn environment(directory: Option<&Arc<Directory>>) -> mj::Environment<'static> {
    let mut env = mj::Environment::empty();
    env.set_debug(true);
    env.set_undefined_behavior(mj::UndefinedBehavior::Strict);
    env.set_fuel(Some(FUEL));
    functions::add(&mut env, directory);
    env
}

#[cfg(test)]
mod tests;
