//! The structural check: does the tree have the shape of the tables?
//!
//! Purpose: finds every unknown or missing key, every list where a map belongs, and every literal
//! value of the wrong form, before anything is computed. What passes can be resolved without
//! looking at its structure again; values with `${…}` are looked at when they have been computed.

use crate::diagnostics::{Problems, report};
use crate::expression::{self, ExprError, Value};
use crate::keys;
use crate::queue::{CODE_POINTS, DISCIPLINES};
use crate::read::Reader;
use crate::shape::{Object, Scalar, Shape};
use crate::source::Span;
use crate::tasks::Known;
use crate::template::{has_expression, sole_expression};
use crate::tree::{Data, Yaml};

/// Checks a value against its shape; `key` names it in messages.
pub(crate) fn check(problems: &mut Problems, yaml: &Yaml, shape: &Shape, key: &str) {
    match (shape, &yaml.data) {
        // A key with nothing behind it is an empty list or map, as a file in the making has them.
        (Shape::List(_) | Shape::Map { .. } | Shape::Object(_), _) if yaml.is_null() => {
            if let Shape::Object(object) = shape {
                missing_keys(problems, yaml.span, object, |_| false);
            }
        }
        (Shape::Scalar(scalar) | Shape::OneOrMany(scalar), Data::Scalar { .. }) => {
            check_scalar(problems, yaml, *scalar, key);
        }
        (Shape::OneOrMany(scalar), Data::List(items)) => {
            for item in items {
                check(problems, item, &Shape::Scalar(*scalar), key);
            }
        }
        (Shape::List(shape), Data::List(items)) => {
            for item in items {
                check(problems, item, shape, key);
            }
        }
        (Shape::Position, Data::List(items)) if (2..=3).contains(&items.len()) => {
            for item in items {
                check(problems, item, &Shape::Scalar(Scalar::Number), key);
            }
        }
        (Shape::Map { keys, value }, Data::Map(entries)) => {
            for entry in entries {
                // Only these keys are computed; a parameter's or type's name is what it is.
                let computed = matches!(keys, Scalar::Hosts | Scalar::Interface);
                if !(computed && has_expression(&entry.key))
                    && let Some(wrong) = keys.complaint(&entry.key)
                {
                    problems.add(entry.key_span, report(wrong).expected(expected(keys.expected())));
                }
                check(problems, &entry.value, value, &entry.key);
            }
        }
        (Shape::Object(object), Data::Map(entries)) => {
            for entry in entries {
                match object.key(&entry.key) {
                    Some(known) => check(problems, &entry.value, &known.shape, known.name),
                    None if keys::is_direction(&entry.key)
                        && [&raw const keys::LINK, &raw const keys::SET]
                            .contains(&std::ptr::from_ref(*object)) =>
                    {
                        check(problems, &entry.value, &Shape::Object(&keys::DIRECTION), &entry.key);
                    }
                    None => unknown_key(problems, entry.key_span, &entry.key, object),
                }
            }
            missing_keys(problems, yaml.span, object, |name| yaml.get(name).is_some());
        }
        (Shape::Either(shapes), data) => {
            let fits = |shape: &&Shape| match data {
                Data::Scalar { .. } => matches!(shape, Shape::Scalar(_)),
                Data::List(_) => matches!(shape, Shape::List(_)),
                Data::Map(_) => matches!(shape, Shape::Object(_) | Shape::Map { .. }),
            };
            match shapes.iter().find(fits) {
                Some(shape) => check(problems, yaml, shape, key),
                None => wrong_structure(problems, yaml, shape, key),
            }
        }
        _ => wrong_structure(problems, yaml, shape, key),
    }
}

fn expected(what: impl std::fmt::Display) -> String {
    format!("expected {what}")
}

fn wrong_structure(problems: &mut Problems, yaml: &Yaml, shape: &Shape, key: &str) {
    let key = crate::diagnostics::excerpt(key);
    let wrong = format!("`{key}` cannot be {}", yaml.describe());
    problems.add(yaml.span, report(wrong).expected(expected(shape.expected())));
}

fn unknown_key(problems: &mut Problems, span: Span, key: &str, object: &Object) {
    let shown = crate::diagnostics::excerpt(key);
    let wrong = report(format!("unknown key `{shown}`"))
        .expected(expected(format!("a key of {}", object.what)));
    problems.add(span, wrong.suggest(key, object.keys.iter().map(|key| key.name), "keys"));
}

fn missing_keys(problems: &mut Problems, span: Span, object: &Object, has: impl Fn(&str) -> bool) {
    for key in object.keys.iter().filter(|key| key.required && !has(key.name)) {
        let wrong = format!("{} needs the key `{}`", object.what, key.name);
        let form = format!("expected `{}:` with {}", key.name, key.shape.expected());
        problems.add(span, report(wrong).expected(form));
    }
}

fn check_scalar(problems: &mut Problems, yaml: &Yaml, scalar: Scalar, key: &str) {
    let Some(text) = yaml.scalar() else {
        return wrong_structure(problems, yaml, &Shape::Scalar(scalar), key);
    };
    if matches!(scalar, Scalar::Expression) {
        check_expression(problems, yaml, text);
    } else if !has_expression(text)
        && let Some(wrong) = scalar.complaint(text)
    {
        problems.add(yaml.span, wrong_value(&wrong, scalar, key, text));
    }
}

/// A report about a value that its key does not take.
pub(crate) fn wrong_value(
    wrong: &str,
    scalar: Scalar,
    key: &str,
    text: &str,
) -> crate::diagnostics::Report {
    let key = crate::diagnostics::excerpt(key);
    let report = report(format!("{wrong} (key `{key}`)")).expected(expected(scalar.expected()));
    match scalar {
        Scalar::Word(words) => report.suggest(text, words.iter().copied(), "values"),
        Scalar::Queue if text.starts_with(|c: char| c.is_ascii_alphabetic()) => {
            report.suggest(text, DISCIPLINES.iter().copied(), "disciplines")
        }
        Scalar::Dscp => {
            let names = CODE_POINTS.iter().map(|(name, _)| *name);
            report.suggest(&text.to_ascii_uppercase(), names, "code points")
        }
        _ => report,
    }
}

/// Checks the form of a run-time expression. Its names are checked where they are known.
fn check_expression(problems: &mut Problems, yaml: &Yaml, text: &str) {
    if sole_expression(text).is_none() {
        let wrong = format!("`{}` is not one expression", crate::diagnostics::excerpt(text));
        let help = "write the whole condition between `${` and `}`";
        problems.add(
            yaml.span,
            report(wrong).expected(expected(Scalar::Expression.expected())).help(help),
        );
    }
}

/// Checks a run-time expression's form and that it uses only `known` names. Returns the expression
/// without its `${}`.
pub(crate) fn run_time_expression(
    problems: &mut Problems,
    yaml: &Yaml,
    known: &Known,
) -> Option<String> {
    let text = yaml.scalar()?;
    let range = sole_expression(text)?;
    let inner = &text[range.clone()];
    if let Err(error) = expression::check(inner, &known.names()) {
        if known.is_open() && matches!(error, ExprError::UnknownName { .. }) {
            return None;
        }
        let part = crate::template::within(&range, &error);
        crate::read::expression_problem(problems, yaml, text, part, &error);
        return None;
    }
    Some(inner.trim().to_owned())
}

/// The same for a condition, which has to be true or false. It is computed with numbers in the
/// place of the metrics, all of which are numbers.
pub(crate) fn condition(reader: &mut Reader<'_>, yaml: &Yaml, known: &Known) -> Option<String> {
    let expression = run_time_expression(reader.problems, yaml, known)?;
    let given = [1.0, 0.0, 2.5].into_iter().find_map(|number| {
        let mut scope = reader.scope.clone();
        known.metrics().for_each(|name| scope.set(name, Value::Float(number)));
        // What cannot be computed with one number may be with another one.
        let value = expression::evaluate(&expression, &scope).ok()?;
        value.as_bool().is_none().then(|| value.type_name())
    });
    let Some(given) = given else { return Some(expression) };
    let shown = crate::diagnostics::excerpt(&expression);
    let wrong = report(format!("`{shown}` gives {given}, not true or false"));
    reader
        .problems
        .add(yaml.span, wrong.expected("expected a comparison, such as `${loss < 0.01}`"));
    None
}
