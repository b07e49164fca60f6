//! Links: shapes, names, and the interfaces they make.
//!
//! Purpose: from one entry of `links:` to one or many [`Link`]s, and from all of them to the
//! interfaces of the nodes.
//!
//! Assumptions: interfaces are named `eth0`, `eth1`, … in the order of links, skipping names that
//! the file gives to others; hardware addresses are `02:00:NN:NN:II:II` with the node's place in
//! the file (from 1) and the interface's in the node (from 0), so a node keeps its addresses when
//! nodes are added behind it.

use std::collections::{HashMap, HashSet};
use std::ops::Range;

use crate::addresses::Plan;
use crate::diagnostics::{excerpt, report};
use crate::files::Files;
use crate::hosts::Doubts;
use crate::keys::LINK_SHAPES;
use crate::nodes::Drafts;
use crate::preset;
use crate::read::{Reader, one_or_many};
use crate::resolve::section;
use crate::resolved::{Channel, Endpoint, Interface, Link, MacAddr};
use crate::shape::Scalar;
use crate::source::Span;
use crate::tree::Yaml;

mod entry;
mod shapes;

use entry::{Entry, with_directions};
use shapes::edges;
pub(crate) use shapes::unknown_node;

/// A mesh of a few hundred nodes has this many; more would not run.
const MAX_LINKS: usize = 100_000;

/// An endpoint as the file writes it.
#[derive(Debug, Clone)]
pub(crate) struct End {
    pub(crate) node: usize,
    /// Interface name, if the file gives one.
    interface: Option<String>,
    span: Span,
}

/// One entry of `links:`.
#[derive(Debug)]
pub(crate) struct Group {
    /// The name that the file gives to a shape of several links.
    name: Option<String>,
    /// Indices into [`Links::links()`].
    pub(crate) links: Range<usize>,
    pub(crate) ipv4: Option<Plan>,
    pub(crate) ipv6: Option<Plan>,
}

/// All links; their endpoints are set by [`attach`].
#[derive(Debug, Default)]
pub(crate) struct Links {
    pub(crate) groups: Vec<Group>,
    all: Vec<Link>,
    ends: Vec<Vec<End>>,
}

impl Links {
    pub(crate) fn links(&self) -> &[Link] {
        &self.all
    }

    /// The links of a name: one, or all of a shape of several.
    pub(crate) fn named(&self, name: &str) -> Option<Range<usize>> {
        let group = self.groups.iter().find(|group| group.name.as_deref() == Some(name));
        let link = || self.all.iter().position(|link| link.name == name).map(|at| at..at + 1);
        group.map(|group| group.links.clone()).or_else(link)
    }

    /// The names of shapes of several links.
    pub(crate) fn shapes(&self) -> impl Iterator<Item = &str> {
        self.groups.iter().filter_map(|group| group.name.as_deref())
    }

    pub(crate) fn into_links(self) -> Vec<Link> {
        self.all
    }
}

/// Reads `links:` of all files. Nodes that a link may have joined but did not, because something
/// about it is wrong, are marked as doubtful.
pub(crate) fn resolve(reader: &mut Reader<'_>, files: &Files, drafts: &mut Drafts<'_>) -> Links {
    let roots = files.roots.as_slice();
    let mut links = Links::default();
    let mut names = HashSet::new();
    let mut doubts = Doubts::default();
    if files.incomplete || section(roots, "links").any(|yaml| yaml.list().is_none()) {
        doubts.add_all();
    }
    for yaml in section(roots, "links").flat_map(|yaml| yaml.list().unwrap_or_default()) {
        if resolve_entry(reader, yaml, drafts, &mut links, &mut names).is_none() {
            doubt_ends(yaml, &mut doubts);
        }
    }
    for draft in drafts.nodes.iter_mut().filter(|draft| doubts.cover(&draft.node.name)) {
        draft.doubtful = true;
    }
    links
}

/// The nodes that a link's shapes name, as far as they can be read.
fn doubt_ends(yaml: &Yaml, doubts: &mut Doubts) {
    for value in LINK_SHAPES.iter().filter_map(|shape| yaml.get(shape)) {
        let parts = ["center", "leaves", "nodes"].iter().filter_map(|part| value.get(part));
        for item in std::iter::once(value).chain(parts).flat_map(one_or_many) {
            doubts.add_list(item.scalar().unwrap_or_default());
        }
    }
}

/// `None` if nodes that the entry names may lack an interface or an address by its fault.
fn resolve_entry(
    reader: &mut Reader<'_>,
    yaml: &Yaml,
    drafts: &Drafts<'_>,
    links: &mut Links,
    names: &mut HashSet<String>,
) -> Option<()> {
    // All parts are read before any of them ends the reading: what is wrong with one hides nothing.
    let preset = yaml.get("preset").and_then(|yaml| {
        let name = reader.checked(yaml, Scalar::Word(preset::NAMES), "preset")?;
        preset::find(reader.problems, &name)
    });
    let entry = Entry { yaml, preset: preset.as_ref() };
    let template = entry.template(reader);
    let common = entry.parameters(reader, &template, None);
    // Where nodes are named, only their directions say whether a queue's rate is missing.
    let alike = common.as_ref().filter(|_| !entry.has_directions());
    let common_queues = entry.queues(reader, &template, None, alike);
    let name = yaml.get("name").and_then(|yaml| reader.checked(yaml, Scalar::Name, "name"));
    let before = reader.lost;
    let plan4 = yaml.get("ipv4").and_then(|yaml| Plan::read4(reader, yaml));
    let plan6 = yaml.get("ipv6").and_then(|yaml| Plan::read6(reader, yaml));
    let has_plans = reader.lost == before;
    let edges = edges(reader, yaml, drafts);
    // A link that joins nothing has its name all the same.
    if let (None, Some(name)) = (&edges, &name) {
        claim(reader, yaml, name, names);
    }
    let (shape, edges) = edges?;
    if links.all.len() + edges.len() > MAX_LINKS {
        let wrong = report(format!("the topology has more than {MAX_LINKS} links"));
        reader.problems.add(yaml.span, wrong.expected("one too many here"));
        return None;
    }
    if template.channel == Channel::PointToPoint && edges.iter().any(|edge| edge.len() != 2) {
        let at = yaml.get("channel").map_or(yaml.span, |yaml| yaml.span);
        let wrong = report("a point-to-point link joins exactly two interfaces");
        let help =
            "use `channel: csma` for a shared link, or `mesh:` for links between any two nodes";
        reader.problems.add(at, wrong.expected("more than two here").help(help));
    }
    for (edge, key) in entry.strays(drafts, &edges) {
        let wrong = report(format!("`{}` is no direction of this link", excerpt(&key.key)));
        let help = format!("it has `{edge}`, for example");
        reader.problems.add(key.key_span, wrong.expected("expected two neighbours").help(help));
    }
    // A shape's name stands for all its links, so no other link has it.
    let shape_name = name.clone().filter(|_| !matches!(shape, "pair" | "lan"));
    let taken = shape_name.as_ref().is_some_and(|name| !claim(reader, yaml, name, names));
    let first = links.all.len();
    for (at, edge) in edges.into_iter().enumerate() {
        let given = name.as_ref().map(|name| match shape {
            "pair" | "lan" => name.clone(),
            _ => format!("{name}-{at}"),
        });
        let name = match given {
            Some(name) => {
                // Where the shape's name is taken, those made from it mostly are, too.
                if !taken {
                    claim(reader, yaml, &name, names);
                }
                name
            }
            None => derived_name(shape, &edge, drafts, names),
        };
        let (parameters, queues) = match edge.as_slice() {
            [a, b] if entry.has_directions() && common.is_some() => {
                let node = |end: &End| drafts.nodes[end.node].node.name.clone();
                let nodes = [node(a), node(b)];
                let parameters = entry.parameters(reader, &template, Some(&nodes));
                let queues = entry.queues(reader, &template, Some(&nodes), parameters.as_ref());
                (parameters, queues)
            }
            _ => (common.clone(), common_queues.clone()),
        };
        links.all.push(with_directions(Link { name, ..template.clone() }, parameters, queues));
        links.ends.push(edge);
    }
    let group = Group { name: shape_name, links: first..links.all.len(), ipv4: plan4, ipv6: plan6 };
    links.groups.push(group);
    has_plans.then_some(())
}

/// Takes a link's given name; false if another link has it.
fn claim(reader: &mut Reader<'_>, yaml: &Yaml, name: &str, names: &mut HashSet<String>) -> bool {
    let free = names.insert(name.to_owned());
    if !free {
        let at = yaml.get("name").map_or(yaml.span, |yaml| yaml.span);
        let wrong = report(format!("there are two links named `{name}`"));
        reader.problems.add(at, wrong.expected("a name not yet taken"));
    }
    free
}

/// `n0--n1` for two endpoints, `lan0` for more; a number more where that is taken.
fn derived_name(
    shape: &str,
    edge: &[End],
    drafts: &Drafts<'_>,
    names: &mut HashSet<String>,
) -> String {
    let node = |end: &End| drafts.nodes[end.node].node.name.as_str();
    let mut number = 0;
    loop {
        let name = match edge {
            [a, b] if shape != "lan" && number == 0 => format!("{}--{}", node(a), node(b)),
            [a, b] if shape != "lan" => format!("{}--{}-{}", node(a), node(b), number + 1),
            _ => format!("lan{number}"),
        };
        if names.insert(name.clone()) {
            return name;
        }
        number += 1;
    }
}

/// Makes the interfaces and gives the links their endpoints.
pub(crate) fn attach(reader: &mut Reader<'_>, drafts: &mut Drafts<'_>, links: &mut Links) {
    let mut used: HashSet<(usize, String)> = HashSet::new();
    for end in links.ends.iter().flatten() {
        let Some(interface) = &end.interface else { continue };
        if !used.insert((end.node, interface.clone())) {
            let node = &drafts.nodes[end.node].node.name;
            let wrong = report(format!("the interface `{node}:{interface}` is used twice"));
            let help = "an interface is on one link; leave its name out to get a new one";
            reader.problems.add(end.span, wrong.expected("on another link already").help(help));
        }
    }
    let mut next = vec![0_usize; drafts.nodes.len()];
    for (link, ends) in links.ends.iter().enumerate() {
        for (endpoint, end) in ends.iter().enumerate() {
            let name = end.interface.clone().unwrap_or_else(|| {
                loop {
                    let name = format!("eth{}", next[end.node]);
                    next[end.node] += 1;
                    if !used.contains(&(end.node, name.clone())) {
                        return name;
                    }
                }
            });
            drafts.nodes[end.node].node.interfaces.push(Interface {
                name,
                link,
                endpoint,
                mac: MacAddr([0; 6]),
                ipv4: Vec::new(),
                ipv6: Vec::new(),
                mtu: links.all[link].mtu,
            });
        }
    }
    for (link, ends) in links.all.iter_mut().zip(&links.ends) {
        link.endpoints = ends.iter().map(|end| Endpoint { node: end.node, interface: 0 }).collect();
    }
    for (at, draft) in drafts.nodes.iter_mut().enumerate() {
        // `eth1` may have been attached before `eth0`; a guest's kernel counts, and so do we.
        let number =
            |name: &str| name.strip_prefix("eth").and_then(|n| n.parse().ok()).unwrap_or(u32::MAX);
        draft.node.interfaces.sort_by_key(|interface| number(&interface.name));
        for (index, interface) in draft.node.interfaces.iter().enumerate() {
            links.all[interface.link].endpoints[interface.endpoint] =
                Endpoint { node: at, interface: index };
        }
    }
    settings(reader, drafts, links);
    hardware_addresses(reader, drafts);
}

/// What the file says about interfaces.
fn settings(reader: &mut Reader<'_>, drafts: &mut Drafts<'_>, links: &Links) {
    for draft in &mut drafts.nodes {
        for (name, settings) in &draft.settings {
            let Some(interface) =
                draft.node.interfaces.iter_mut().find(|interface| interface.name == *name)
            else {
                if !draft.doubtful {
                    let wrong =
                        report(format!("no link attaches `{name}` of node `{}`", draft.node.name));
                    let known =
                        draft.node.interfaces.iter().map(|interface| interface.name.as_str());
                    let wrong = wrong.expected("expected an interface that a link attaches");
                    reader.problems.add(settings.span, wrong.suggest(name, known, "interfaces"));
                }
                continue;
            };
            if let Some((mtu, span)) = settings.mtu {
                let link = &links.all[interface.link];
                if mtu > link.mtu {
                    let wrong = report(format!(
                        "the MTU {mtu} is above the {} of the link `{}`",
                        link.mtu, link.name
                    ));
                    reader
                        .problems
                        .add(span, wrong.expected(format!("expected at most {}", link.mtu)));
                }
                interface.mtu = mtu;
            }
            let addresses = |list: &Vec<_>| list.iter().map(|(net, _)| *net).collect();
            interface.ipv4 = settings.ipv4.as_ref().map_or_else(Vec::new, addresses);
            let addresses = |list: &Vec<_>| list.iter().map(|(net, _)| *net).collect();
            interface.ipv6 = settings.ipv6.as_ref().map_or_else(Vec::new, addresses);
        }
    }
}

fn hardware_addresses(reader: &mut Reader<'_>, drafts: &mut Drafts<'_>) {
    let mut taken: HashMap<MacAddr, String> = HashMap::new();
    for draft in &mut drafts.nodes {
        for interface in &mut draft.node.interfaces {
            let Some((mac, span)) =
                draft.settings.get(&interface.name).and_then(|settings| settings.mac)
            else {
                continue;
            };
            interface.mac = mac;
            let owner = format!("{}:{}", draft.node.name, interface.name);
            if let Some(other) = taken.insert(mac, owner) {
                let wrong =
                    report(format!("the hardware address `{mac}` belongs to `{other}` already"));
                reader.problems.add(span, wrong.expected("expected an address of its own"));
            }
        }
    }
    for (node, draft) in drafts.nodes.iter_mut().enumerate() {
        for (index, interface) in draft.node.interfaces.iter_mut().enumerate() {
            if interface.mac != MacAddr([0; 6]) {
                continue;
            }
            let [n1, n0] = (node as u16 + 1).to_be_bytes();
            let [i1, i0] = (index as u16).to_be_bytes();
            let free = (0..=u8::MAX).map(|second| MacAddr([2, second, n1, n0, i1, i0]));
            // Only addresses the file itself gives can be in the way, and never all 256.
            let mac = free.into_iter().find(|mac| !taken.contains_key(mac));
            interface.mac = mac.unwrap_or(MacAddr([6, 0, n1, n0, i1, i0]));
        }
    }
}
