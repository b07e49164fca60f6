//! The factors of a plan: lists and ranges of levels.

use indexmap::IndexMap;

use super::super::{COMPUTED, EXACT, Levels, Range};
use super::{entries, is_declared, typed};
use crate::diagnostics::report;
use crate::expression::Scope;
use crate::read::Reader;
use crate::shape::Scalar;
use crate::tree::{Entry, Yaml};

/// More levels than this are a mistake.
const MAX_LEVELS: f64 = 1e6;

/// The levels of each factor.
pub(super) fn factors(
    reader: &mut Reader<'_>,
    root: &Yaml,
    declared: &Scope,
    latin: bool,
) -> IndexMap<String, Levels> {
    let mut factors = IndexMap::new();
    let paired = root.get("design").and_then(Yaml::scalar) == Some("paired");
    for entry in entries(root, "factors") {
        let name = entry.key.as_str();
        if !is_declared(reader, entry, "factor", declared) {
            continue;
        }
        if root.get("params").is_some_and(|params| params.get(name).is_some()) {
            let wrong = report(format!("`{name}` stands under `params` already"));
            reader.problems.add(entry.key_span, wrong.expected("a parameter is fixed or varies"));
            continue;
        }
        let levels = match entry.value.list() {
            Some(items) => list(reader, entry, items, declared, paired),
            None => range(reader, entry, declared, latin),
        };
        if let Some(levels) = levels {
            factors.insert(name.to_owned(), levels);
        }
    }
    factors
}

fn list(
    reader: &mut Reader<'_>,
    entry: &Entry,
    items: &[Yaml],
    declared: &Scope,
    paired: bool,
) -> Option<Levels> {
    let name = entry.key.as_str();
    if items.is_empty() {
        let wrong = report(format!("factor `{name}` has no levels: the grid would be empty"));
        reader.problems.add(entry.value.span, wrong.expected("expected at least one level"));
        return None;
    }
    let mut levels = Vec::with_capacity(items.len());
    for item in items {
        let value = reader.value(item)?;
        let value = typed(reader, item, name, value, declared)?;
        // Paired levels may come again with other partners.
        if !paired && levels.contains(&value) {
            let wrong = report(format!("factor `{name}` has the level `{value}` twice"));
            reader.problems.add(item.span, wrong.expected("expected each level once"));
            return None;
        }
        levels.push(value);
    }
    Some(Levels::List(levels))
}

fn range(reader: &mut Reader<'_>, entry: &Entry, declared: &Scope, latin: bool) -> Option<Levels> {
    let yaml = &entry.value;
    let name = entry.key.as_str();
    let mut number = |key: &str| -> Option<f64> {
        yaml.get(key).and_then(|value| reader.parsed(value, Scalar::Number, key))
    };
    let (from, to, step) = (number("from")?, number("to")?, number("step"));
    let count: Option<u32> = yaml.get("count").and_then(|value| {
        reader.parsed(value, Scalar::Integer { min: 1, max: 1_000_000 }, "count")
    });
    let digits: Option<u32> = yaml
        .get("digits")
        .and_then(|value| reader.parsed(value, Scalar::Integer { min: 1, max: 10 }, "digits"));
    let log = yaml.get("scale").and_then(Yaml::scalar) == Some("log");
    let mut refuse = |wrong: String, expected: &str| {
        reader.problems.add(yaml.span, report(wrong).expected(expected.to_owned()));
        None
    };
    if from > to {
        let wrong =
            format!("factor `{name}` has no levels from {from} to {to}: the grid would be empty");
        return refuse(wrong, "expected `from` at most `to`");
    }
    let is_wide = if log { !(to / from).is_finite() } else { !(to - from).is_finite() };
    if is_wide && from != 0.0 {
        let wrong = format!("factor `{name}`: from {from} to {to} is farther than numbers reach");
        return refuse(wrong, "expected ends that are closer");
    }
    if log && from <= 0.0 {
        let wrong = format!("factor `{name}`: a log scale cannot begin at {from}");
        return refuse(wrong, "expected `from` above zero");
    }
    let count = match (step, count) {
        _ if latin && (step.is_some() || count.is_some()) => {
            let wrong = format!("factor `{name}`: a Latin hypercube chooses the levels itself");
            return refuse(wrong, "expected neither `step` nor `count`");
        }
        _ if latin => 0,
        (Some(_), Some(_)) => {
            let wrong = format!("factor `{name}` has a `step` and a `count`");
            return refuse(wrong, "expected one of them");
        }
        (Some(_), None) if log => {
            let wrong = format!("factor `{name}`: levels on a log scale have no `step`");
            return refuse(wrong, "expected `count`");
        }
        (None, None) if log => {
            let wrong = format!("factor `{name}` needs `count`: how many levels there are");
            return refuse(wrong, "expected `count`");
        }
        (_, Some(count)) => count,
        (step, None) => {
            let step = step.unwrap_or(1.0);
            let steps = ((to - from) / step + 1e-9).floor();
            if !(step > 0.0 && steps < MAX_LEVELS) {
                let wrong =
                    format!("factor `{name}`: steps of {step} do not lead from {from} to {to}");
                return refuse(wrong, "expected a larger `step`");
            }
            // A step that does not end at `to` ends before it.
            let range = Range { to: from + step * steps, ..range_of(reader, yaml, from, to, log) };
            let digits = digits.unwrap_or(EXACT);
            let range = Range { count: steps as u32 + 1, digits, ..range };
            return accept(reader, yaml, name, range, declared);
        }
    };
    let digits = digits.unwrap_or(COMPUTED);
    let range = Range { count, digits, ..range_of(reader, yaml, from, to, log) };
    accept(reader, yaml, name, range, declared)
}

fn range_of(reader: &mut Reader<'_>, yaml: &Yaml, from: f64, to: f64, log: bool) -> Range {
    let unit = yaml.get("unit").and_then(|unit| reader.text(unit)).unwrap_or_default();
    let whole = yaml.get("whole").and_then(Yaml::scalar) == Some("true");
    Range { from, to, count: 0, log, whole, digits: EXACT, unit }
}

/// A range whose ends the parameter takes.
fn accept(
    reader: &mut Reader<'_>,
    yaml: &Yaml,
    name: &str,
    range: Range,
    declared: &Scope,
) -> Option<Levels> {
    typed(reader, yaml, name, range.at(0.0), declared)?;
    Some(Levels::Range(range))
}
