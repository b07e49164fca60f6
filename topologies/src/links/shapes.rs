//! Shapes: from the nodes that an entry of `links:` names to the endpoints of each link.

use std::collections::HashSet;

use super::{End, MAX_LINKS};
use crate::diagnostics::{excerpt, report};
use crate::keys::LINK_SHAPES;
use crate::nodes::Drafts;
use crate::read::Reader;
use crate::shape::Scalar;
use crate::source::Span;
use crate::tree::Yaml;

/// The endpoints that a host list's names stand for.
fn ends(
    reader: &mut Reader<'_>,
    names: Vec<(String, Span)>,
    drafts: &Drafts<'_>,
) -> Option<Vec<End>> {
    let mut ends = Vec::with_capacity(names.len());
    let mut complete = true;
    for (name, span) in names {
        let (node, interface) = match name.split_once(':') {
            Some((node, interface)) => (node, Some(interface.to_owned())),
            None => (name.as_str(), None),
        };
        if let Some(interface) = &interface
            && let Some(wrong) = Scalar::Interface.complaint(interface)
        {
            let expected = format!("expected {}", Scalar::Interface.expected());
            reader.problems.add(span, report(wrong).expected(expected));
            complete = false;
            continue;
        }
        if let Some(&node) = drafts.by_name.get(node) {
            ends.push(End { node, interface, span });
        } else {
            unknown_node(reader, drafts, node, span);
            complete = false;
        }
    }
    complete.then_some(ends)
}

/// Records an unknown node, unless it may stand in what could not be read.
pub(crate) fn unknown_node(reader: &mut Reader<'_>, drafts: &Drafts<'_>, node: &str, span: Span) {
    if !drafts.doubts.cover(node) && !reader.problems.is_full() {
        let known = drafts.nodes.iter().map(|draft| draft.node.name.as_str());
        let wrong = report(format!("unknown node `{}`", excerpt(node)));
        let wrong = wrong.expected("expected a node from `nodes:`");
        reader.problems.add(span, wrong.suggest(node, known, "nodes"));
    }
}

/// The shape's word, and for each link its endpoints.
pub(super) fn edges(
    reader: &mut Reader<'_>,
    yaml: &Yaml,
    drafts: &Drafts<'_>,
) -> Option<(&'static str, Vec<Vec<End>>)> {
    let present: Vec<&'static str> =
        LINK_SHAPES.iter().copied().filter(|shape| yaml.get(shape).is_some()).collect();
    let words =
        || LINK_SHAPES.iter().map(|shape| format!("`{shape}`")).collect::<Vec<_>>().join(", ");
    let shape = match present.as_slice() {
        [shape] => *shape,
        [] => {
            let wrong = report("the link does not say what it joins");
            reader.problems.add(yaml.span, wrong.expected(format!("expected one of {}", words())));
            return None;
        }
        [first, second, ..] => {
            let wrong = report(format!("the link has both `{first}` and `{second}`"));
            reader
                .problems
                .add(yaml.span, wrong.expected(format!("expected only one of {}", words())));
            for value in present.iter().filter_map(|shape| yaml.get(shape)) {
                let parts = ["center", "leaves", "nodes"].iter().filter_map(|part| value.get(part));
                for part in std::iter::once(value).chain(parts) {
                    if let Some(names) = reader.hosts(part) {
                        ends(reader, names, drafts);
                    }
                }
            }
            return None;
        }
    };
    let value = yaml.get(shape)?;
    let edges = match shape {
        "pair" => {
            let ends = counted(reader, value, drafts, shape, 2..=2)?;
            vec![ends]
        }
        "lan" => vec![counted(reader, value, drafts, shape, 2..=usize::MAX)?],
        "chain" => windows(&counted(reader, value, drafts, shape, 2..=usize::MAX)?),
        "ring" => {
            let mut ends = counted(reader, value, drafts, shape, 3..=usize::MAX)?;
            ends.extend(ends.first().cloned());
            windows(&ends)
        }
        "mesh" => {
            let ends = counted(reader, value, drafts, shape, 2..=usize::MAX)?;
            if ends.len() * (ends.len() - 1) / 2 > MAX_LINKS {
                let wrong = report(format!(
                    "a mesh of {} nodes has more than {MAX_LINKS} links",
                    ends.len()
                ));
                reader.problems.add(value.span, wrong.expected("too many"));
                return None;
            }
            let pairs = |(at, a): (usize, &End)| {
                ends[at + 1..].iter().map(|b| vec![a.clone(), b.clone()]).collect::<Vec<_>>()
            };
            ends.iter().enumerate().flat_map(pairs).collect()
        }
        "star" => {
            let center =
                value.get("center").and_then(|yaml| counted(reader, yaml, drafts, "center", 1..=1));
            let leaves = value
                .get("leaves")
                .and_then(|yaml| counted(reader, yaml, drafts, "leaves", 1..=usize::MAX));
            let (center, leaves) = (center?, leaves?);
            leaves.into_iter().map(|leaf| vec![center[0].clone(), leaf]).collect()
        }
        "tree" => {
            let fanout = match value.get("fanout") {
                Some(yaml) => {
                    reader.parsed(yaml, Scalar::Integer { min: 1, max: 20_000 }, "fanout")
                }
                None => Some(2_usize),
            };
            let ends = counted(reader, value.get("nodes")?, drafts, shape, 2..=usize::MAX)?;
            let fanout = fanout?;
            (1..ends.len())
                .map(|at| vec![ends[(at - 1) / fanout].clone(), ends[at].clone()])
                .collect()
        }
        _ => {
            let scalar = Scalar::Integer { min: 1, max: 20_000 };
            let columns =
                value.get("columns").and_then(|yaml| reader.parsed(yaml, scalar, "columns"));
            let ends = counted(reader, value.get("nodes")?, drafts, shape, 2..=usize::MAX)?;
            grid(&ends, columns?)
        }
    };
    Some((shape, edges))
}

fn windows(ends: &[End]) -> Vec<Vec<End>> {
    ends.windows(2).map(<[End]>::to_vec).collect()
}

/// Row by row: each node's link to the right, then its link down.
fn grid(ends: &[End], columns: usize) -> Vec<Vec<End>> {
    let mut edges = Vec::new();
    for (at, end) in ends.iter().enumerate() {
        let right = (at % columns + 1 < columns).then_some(at + 1);
        for other in [right, Some(at + columns)].into_iter().flatten() {
            if let Some(other) = ends.get(other) {
                edges.push(vec![end.clone(), other.clone()]);
            }
        }
    }
    edges
}

/// Endpoints of different nodes, as many as the shape takes.
fn counted(
    reader: &mut Reader<'_>,
    yaml: &Yaml,
    drafts: &Drafts<'_>,
    shape: &str,
    count: std::ops::RangeInclusive<usize>,
) -> Option<Vec<End>> {
    let names = reader.hosts(yaml)?;
    let found = names.len();
    let ends = ends(reader, names, drafts);
    if !count.contains(&found) {
        let (low, high) = count.into_inner();
        let needs = if low == high { format!("exactly {low}") } else { format!("at least {low}") };
        let noun = if low == 1 { "node" } else { "nodes" };
        let wrong = report(format!("`{shape}` joins {needs} {noun}, found {found}"));
        reader.problems.add(yaml.span, wrong.expected(format!("expected {needs}")));
        return None;
    }
    let ends = ends?;
    let mut seen = HashSet::new();
    for end in &ends {
        if !seen.insert(end.node) {
            let name = &drafts.nodes[end.node].node.name;
            let wrong = report(format!("the node `{name}` is twice in `{shape}`"));
            reader.problems.add(end.span, wrong.expected("a node is joined once"));
            return None;
        }
    }
    Some(ends)
}
