//! From checked trees to a [`Topology`].
//!
//! Purpose: the order of resolution. Parameters come first, for everything may use them; then
//! nodes, links (which make interfaces), addresses, and last tasks, which may ask for addresses.
//!
//! Assumptions: the structural check has run; what it refused is skipped here in silence. What
//! could not be read hides nothing else: resolution goes on, and only what follows from it is left
//! unsaid (values computed from it, names that it may have declared, addresses that it would give).

use std::collections::HashSet;
use std::str::FromStr;
use std::sync::Arc;

use indexmap::IndexMap;
use tapestry_core::{SimTime, SyncPolicy};

use crate::addresses;
use crate::check::{condition, run_time_expression};
use crate::diagnostics::{Problems, report};
use crate::events;
use crate::expression::{Addresses, Directory, InterfaceAddresses, Scope, Value};
use crate::files::Files;
use crate::links;
use crate::nodes::{self, Drafts};
use crate::read::{Reader, one_or_many};
use crate::resolved::{DerivedMetric, Expectation, Node, Topology, VerdictThresholds};
use crate::shape::Scalar;
use crate::source::Span;
use crate::tasks;
use crate::tree::{Entry, Yaml};

/// The same section of all files, in order.
pub(crate) fn section<'t>(roots: &'t [Yaml], key: &'static str) -> impl Iterator<Item = &'t Yaml> {
    roots.iter().filter_map(move |root| root.get(key))
}

/// The entries of a map section of all files.
pub(crate) fn entries<'t>(roots: &'t [Yaml], key: &'static str) -> impl Iterator<Item = &'t Entry> {
    section(roots, key).flat_map(|yaml| yaml.map().unwrap_or_default())
}

/// Resolves the files; `stem` names the topology if it does not name itself.
pub(crate) fn resolve(
    problems: &mut Problems,
    files: &Files,
    sets: &[(String, String)],
    stem: &str,
) -> Option<Topology> {
    let roots = files.roots.as_slice();
    let main = roots.last()?;
    let scope = params(problems, files, sets);
    let params = scope
        .names()
        .filter_map(|name| Some((name.to_owned(), scope.variable(name)?.into())))
        .collect();
    let mut reader = Reader::new(problems, scope);

    let mut drafts = nodes::resolve(&mut reader, files);
    let mut links = links::resolve(&mut reader, files, &mut drafts);
    links::attach(&mut reader, &mut drafts, &mut links);
    addresses::assign(&mut reader, &mut drafts, &links);
    nodes::check_references(&mut reader, &drafts);
    nodes::source::resolve(&mut reader, &mut drafts);
    let init: Vec<(usize, Option<&Yaml>)> =
        drafts.nodes.iter().map(|draft| (draft.index, draft.applicable("init"))).collect();
    let mut nodes: Vec<Node> = drafts.nodes.iter().map(|draft| draft.node.clone()).collect();
    reader.scope.set_directory(Arc::new(directory(&drafts)));
    nodes::resolve_init(&mut reader, &mut nodes, &init);

    let mut known = tasks::Known::new(&reader.scope, roots);
    let (tasks, measured) = tasks::resolve(&mut reader, files, &drafts, &mut known);
    let subjects = events::Subjects {
        drafts: &drafts,
        links: &links,
        tasks: &tasks,
        measured: &measured,
        known: &known,
    };
    let events = events::resolve(&mut reader, files, &subjects);
    let metrics = derived(&mut reader, roots, &mut known);
    let expect =
        section(roots, "expect").flat_map(|yaml| expectations(&mut reader, yaml, &known)).collect();

    Some(Topology {
        name: main
            .get("name")
            .and_then(|yaml| reader.checked(yaml, Scalar::Name, "name"))
            .unwrap_or_else(|| name_of(stem)),
        description: main.get("description").and_then(|yaml| reader.text(yaml)).unwrap_or_default(),
        params,
        sync: main
            .get("sync")
            .and_then(|yaml| reader.parsed(yaml, Scalar::Sync, "sync"))
            .unwrap_or(SyncPolicy::BestEffort),
        seed: main
            .get("seed")
            .and_then(|yaml| reader.parsed(yaml, Scalar::Integer { min: 0, max: i64::MAX }, "seed"))
            .unwrap_or(1),
        time_limit: main.get("time_limit").and_then(|yaml| limit(&mut reader, yaml, "time_limit")),
        verdict: main
            .get("verdict")
            .map_or_else(VerdictThresholds::default, |yaml| verdict(&mut reader, yaml)),
        nodes,
        links: links.into_links(),
        tasks,
        events,
        metrics,
        expect,
    })
}

/// A file's stem as a topology name.
pub(crate) fn name_of(stem: &str) -> String {
    let name: String = stem
        .chars()
        .map(|c| if c.is_ascii_alphanumeric() || "._-".contains(c) { c } else { '-' })
        .take(63)
        .collect();
    if Scalar::Name.complaint(&name).is_none() { name } else { "topology".to_owned() }
}

/// A time that bounds something, and so cannot be zero.
pub(crate) fn limit(reader: &mut Reader<'_>, yaml: &Yaml, key: &str) -> Option<SimTime> {
    let time: SimTime = reader.parsed(yaml, Scalar::Time, key)?;
    if time == SimTime::ZERO {
        let wrong = report(format!("`{key}` is zero: nothing could ever run"));
        reader.problems.add(yaml.span, wrong.expected("expected a time above zero"));
        return None;
    }
    Some(time)
}

/// The words of a name that expressions cannot use: `a-b` reads there as `a` minus `b`.
pub(crate) fn words(name: &str) -> impl Iterator<Item = &str> {
    name.split(|c: char| !c.is_ascii_alphanumeric() && c != '_').filter(|word| !word.is_empty())
}

/// The parameters with their values, `--set` included. Where `--set` is wrong, the default stands
/// in, so that the rest of the file can be checked.
pub(crate) fn params(problems: &mut Problems, files: &Files, sets: &[(String, String)]) -> Scope {
    let roots = files.roots.as_slice();
    let mut reader = Reader::new(problems, Scope::new());
    let readable = section(roots, "params").all(|yaml| yaml.is_null() || yaml.map().is_some());
    if files.incomplete || !readable {
        reader.scope.open();
    }
    let mut declared = HashSet::new();
    for entry in entries(roots, "params") {
        let name = &entry.key;
        if !declared.insert(name) {
            let wrong = report(format!("the parameter `{name}` is declared twice"));
            reader.problems.add(entry.key_span, wrong.expected("a name not yet taken"));
            continue;
        }
        let default = reader.value(&entry.value);
        if Scalar::Identifier.complaint(name).is_some() {
            words(name).for_each(|word| reader.scope.set_undetermined(word));
            continue;
        }
        let Some(default) = default else {
            reader.scope.set_undetermined(name);
            continue;
        };
        let set = sets.iter().rev().find(|(set, _)| set == name);
        let value = set.and_then(|(_, text)| set_value(reader.problems, name, text, &default));
        reader.scope.set(name, value.unwrap_or(default));
    }
    for (name, text) in sets {
        if !declared.contains(name) && !reader.scope.is_open() {
            let wrong = report(format!("unknown parameter in `--set {name}={text}`"));
            let known = entries(roots, "params").map(|entry| entry.key.as_str());
            reader.problems.add_unplaced(wrong.suggest(name, known, "parameters"));
        }
    }
    reader.scope
}

/// A `--set` value: a YAML scalar of the type that the default has.
fn set_value(problems: &mut Problems, name: &str, text: &str, default: &Value) -> Option<Value> {
    let value = typed(text, default);
    if value.is_none() {
        let wrong = format!(
            "`--set {name}={text}`: the parameter is {} (default `{default}`), not {}",
            default.type_name(),
            unquoted(text).type_name()
        );
        problems.add_unplaced(report(wrong));
    }
    value
}

/// A YAML scalar; in quotes always a text.
fn unquoted(text: &str) -> Value {
    let quoted = |quote: char| {
        text.strip_prefix(quote).and_then(|rest| rest.strip_suffix(quote)).map(str::to_owned)
    };
    match quoted('"').or_else(|| quoted('\'')) {
        Some(inner) => Value::Text(inner),
        None => Value::from_scalar(text.trim()),
    }
}

/// A `--set` value in the type that the default has; `None` if it is not of that type.
pub(crate) fn typed(text: &str, default: &Value) -> Option<Value> {
    let value = unquoted(text);
    match (default, &value) {
        (Value::Text(_), Value::Text(_))
        | (Value::Bool(_), Value::Bool(_))
        | (Value::Int(_) | Value::Float(_), Value::Int(_) | Value::Float(_)) => Some(value),
        (Value::Text(_), _) => Some(Value::Text(text.to_owned())),
        _ => None,
    }
}

fn verdict(reader: &mut Reader<'_>, yaml: &Yaml) -> VerdictThresholds {
    let mut verdict = VerdictThresholds::default();
    let times = [
        ("lateness_p99", &mut verdict.degraded_lateness_p99, &mut verdict.invalid_lateness_p99),
        ("lateness_max", &mut verdict.degraded_lateness_max, &mut verdict.invalid_lateness_max),
    ];
    let mut wrong = Vec::new();
    for (what, degraded, invalid) in times {
        let limits = [
            given(reader, yaml, &format!("degraded_{what}"), Scalar::Time),
            given(reader, yaml, &format!("invalid_{what}"), Scalar::Time),
        ];
        wrong.extend(set_pair(what, limits, degraded, invalid));
    }
    let (degraded, invalid) =
        (&mut verdict.degraded_unintended_loss, &mut verdict.invalid_unintended_loss);
    let limits = [
        given(reader, yaml, "degraded_unintended_loss", Scalar::Share),
        given(reader, yaml, "invalid_unintended_loss", Scalar::Share),
    ];
    wrong.extend(set_pair("unintended_loss", limits, degraded, invalid));
    if let Some((_, share)) = given(reader, yaml, "degraded_steal", Scalar::Share) {
        verdict.degraded_steal = share;
    }
    for (span, message) in wrong {
        reader.problems.add(span, report(message).expected("in these thresholds"));
    }
    verdict
}

/// The value of a key, with its place.
fn given<T: FromStr>(
    reader: &mut Reader<'_>,
    yaml: &Yaml,
    key: &str,
    scalar: Scalar,
) -> Option<(Span, T)> {
    let yaml = yaml.get(key)?;
    Some((yaml.span, reader.parsed(yaml, scalar, key)?))
}

/// Sets two thresholds as far as the user gave them. If he gave one, and the default of the other would
/// contradict it, the other is the same.
fn set_pair<T: PartialOrd + Copy>(
    what: &str,
    [low, high]: [Option<(Span, T)>; 2],
    degraded: &mut T,
    invalid: &mut T,
) -> Option<(Span, String)> {
    match (low, high) {
        (Some((_, low)), Some((span, high))) => {
            (*degraded, *invalid) = (low, high);
            return (low > high).then(|| {
                (
                    span,
                    format!(
                        "`degraded_{what}` is above `invalid_{what}`: no run could be degraded"
                    ),
                )
            });
        }
        (Some((_, low)), None) => {
            *degraded = low;
            if low > *invalid {
                *invalid = low;
            }
        }
        (None, Some((_, high))) => {
            *invalid = high;
            if high < *degraded {
                *degraded = high;
            }
        }
        (None, None) => {}
    }
    None
}

/// The addresses of all nodes, for the address functions.
fn directory(drafts: &Drafts<'_>) -> Directory {
    let addresses = |draft: &nodes::Draft<'_>| {
        let node = &draft.node;
        let interfaces = node.interfaces.iter().map(|interface| InterfaceAddresses {
            interface: interface.name.clone(),
            ipv4: interface.ipv4.first().map(|net| net.address.to_string()),
            ipv6: interface.ipv6.first().map(|net| net.address.to_string()),
            mac: Some(interface.mac.to_string()),
        });
        let bridges = node.bridges.iter().map(|bridge| InterfaceAddresses {
            interface: bridge.name.clone(),
            ipv4: bridge.ipv4.first().map(|net| net.address.to_string()),
            ipv6: bridge.ipv6.first().map(|net| net.address.to_string()),
            mac: None,
        });
        Addresses { interfaces: interfaces.chain(bridges).collect(), doubtful: draft.doubtful }
    };
    Directory {
        nodes: drafts
            .nodes
            .iter()
            .map(|draft| (draft.node.name.clone(), addresses(draft)))
            .collect(),
        doubts: drafts.doubts.clone(),
    }
}

/// Metrics computed from others; each may use those before it.
fn derived(
    reader: &mut Reader<'_>,
    roots: &[Yaml],
    known: &mut tasks::Known,
) -> IndexMap<String, DerivedMetric> {
    let mut metrics = IndexMap::new();
    for entry in entries(roots, "metrics") {
        let value = entry.value.get("value").unwrap_or(&entry.value);
        let expression = run_time_expression(reader.problems, value, known);
        let unit = entry.value.get("unit").and_then(|yaml| reader.text(yaml)).unwrap_or_default();
        known.declare(reader, entry);
        if let Some(expression) = expression {
            metrics.insert(entry.key.clone(), DerivedMetric { expression, unit });
        }
    }
    metrics
}

/// Conditions over the names known so far.
pub(crate) fn expectations(
    reader: &mut Reader<'_>,
    yaml: &Yaml,
    known: &tasks::Known,
) -> Vec<Expectation> {
    one_or_many(yaml)
        .iter()
        .filter_map(|item| condition(reader, item, known))
        .map(|expression| Expectation { expression })
        .collect()
}
