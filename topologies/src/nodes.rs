//! Nodes: types, ranges and settings.
//!
//! Purpose: from `types:` and `nodes:` to one [`Node`] per name. Links make the interfaces later.
//!
//! Assumptions: a node's own key replaces its type's as a whole; a type's replaces that of the
//! type it names. A key that does not apply to the node's kind is an error, unless `kind` is an
//! expression: then the node is written for several kinds and the others' keys are left aside.

mod bridge;
mod qemu;
pub(crate) mod source;

use std::collections::{HashMap, HashSet};
use std::net::IpAddr;
use std::path::PathBuf;

use indexmap::IndexMap;

use crate::diagnostics::report;
use crate::expression::Value;
use crate::files::Files;
use crate::hosts::{Doubts, MAX_NODES};
use crate::keys::{self, ADDRESSED};
use crate::read::{Fields, Reader, one_or_many};
use crate::resolve::{entries, section};
use crate::resolved::{Bridge, IpNet, Ipv4Net, Ipv6Net, MacAddr, Node, NodeKind, Route, Source};
use crate::shape::Scalar;
use crate::source::Span;
use crate::template::has_expression;
use crate::tree::{Entry, Yaml};

/// All nodes.
#[derive(Debug)]
pub(crate) struct Drafts<'t> {
    pub(crate) nodes: Vec<Draft<'t>>,
    pub(crate) by_name: HashMap<String, usize>,
    /// Names that may be nodes, but stand in what could not be read.
    pub(crate) doubts: Doubts,
}

/// A node on its way.
#[derive(Debug, Clone)]
pub(crate) struct Draft<'t> {
    pub(crate) node: Node,
    /// Its place in its host list.
    pub(crate) index: usize,
    /// Where its name is written.
    pub(crate) span: Span,
    pub(crate) settings: IndexMap<String, Settings>,
    pub(crate) bridge_spans: Vec<Span>,
    /// Something about its kind, links or addresses could not be read: that it lacks an interface
    /// or an address may follow from that.
    pub(crate) doubtful: bool,
    fields: Fields<'t>,
    fixed_kind: bool,
}

/// What the file says about one interface.
#[derive(Debug, Clone)]
pub(crate) struct Settings {
    pub(crate) span: Span,
    pub(crate) mac: Option<(MacAddr, Span)>,
    pub(crate) ipv4: Option<Vec<(Ipv4Net, Span)>>,
    pub(crate) ipv6: Option<Vec<(Ipv6Net, Span)>>,
    pub(crate) mtu: Option<(u32, Span)>,
}

impl<'t> Draft<'t> {
    fn kind(&self) -> &'static str {
        self.node.kind.as_str()
    }

    /// Whether the node has network addresses.
    pub(crate) fn is_addressed(&self) -> bool {
        ADDRESSED.contains(&self.kind())
    }

    /// A key's value, if the key applies to the node's kind.
    pub(crate) fn applicable(&self, key: &str) -> Option<&'t Yaml> {
        let kinds = keys::NODE.key(key).map_or(&[][..], |key| key.kinds);
        if kinds.is_empty() || kinds.contains(&self.kind()) { self.fields.find(key) } else { None }
    }
}

/// Node types by name.
struct Types<'t> {
    by_name: IndexMap<&'t str, &'t Entry>,
    /// False if some could not be read, so that an unknown one may be among them.
    complete: bool,
}

/// Reads `types:` and `nodes:` of all files.
pub(crate) fn resolve<'t>(reader: &mut Reader<'_>, files: &'t Files) -> Drafts<'t> {
    let roots = files.roots.as_slice();
    let readable = |key| section(roots, key).all(|yaml| yaml.is_null() || yaml.map().is_some());
    let mut types =
        Types { by_name: IndexMap::new(), complete: !files.incomplete && readable("types") };
    for entry in entries(roots, "types") {
        if types.by_name.insert(&entry.key, entry).is_some() {
            let wrong = report(format!("the type `{}` is declared twice", entry.key));
            reader.problems.add(entry.key_span, wrong.expected("a name not yet taken"));
        }
    }
    check_type_loops(reader, &types.by_name);
    // `nodes:` of another form than a map has been refused; its names are unknown.
    let mut drafts =
        Drafts { nodes: Vec::new(), by_name: HashMap::new(), doubts: Doubts::default() };
    if files.incomplete || !readable("nodes") {
        drafts.doubts.add_all();
    }
    for entry in entries(roots, "nodes") {
        let Some(names) = reader.key_hosts(entry) else {
            drafts.doubts.add_list(&entry.key);
            continue;
        };
        resolve_entry(reader, &types, entry, &names, &mut drafts);
    }
    reader.scope.remove("index");
    reader.scope.remove("node");
    if drafts.nodes.is_empty() && drafts.doubts.is_empty() {
        let span = roots.last().map(|root| root.span);
        if let Some(span) = span {
            let wrong = report("the topology has no nodes")
                .expected("expected `nodes:` with at least one name");
            reader.problems.add(span, wrong);
        }
    }
    drafts
}

/// One key of `nodes:`, which may stand for many nodes.
fn resolve_entry<'t>(
    reader: &mut Reader<'_>,
    types: &Types<'t>,
    entry: &'t Entry,
    names: &[String],
    drafts: &mut Drafts<'t>,
) {
    for (index, name) in names.iter().enumerate() {
        if drafts.nodes.len() == MAX_NODES {
            let wrong = report(format!("the topology has more than {MAX_NODES} nodes"));
            reader.problems.add(entry.key_span, wrong.expected("one too many here"));
            drafts.doubts.add_list(&entry.key);
            break;
        }
        if let Some(wrong) = Scalar::HostName.complaint(name) {
            let expected = format!("expected {}", Scalar::HostName.expected());
            reader.problems.add(entry.key_span, report(wrong).expected(expected));
        }
        if drafts.by_name.contains_key(name) {
            let wrong = report(format!("the node `{name}` is declared twice"))
                .expected("a name not yet taken");
            reader.problems.add(entry.key_span, wrong.help("use `types:` for what nodes share"));
            continue;
        }
        // What is wrong with one node of a list is wrong with all: say it once.
        reader.problems.once_per_place(index > 0);
        reader.scope.set("index", Value::Int(i64::try_from(index).unwrap_or(i64::MAX)));
        reader.scope.set("node", Value::Text(name.clone()));
        let draft = resolve_node(reader, types, entry, name, index);
        drafts.by_name.insert(name.clone(), drafts.nodes.len());
        drafts.nodes.push(draft);
    }
    reader.problems.once_per_place(false);
}

/// Types whose `type:` is written without expressions must not lead back to themselves.
fn check_type_loops(reader: &mut Reader<'_>, types: &IndexMap<&str, &Entry>) {
    for (name, entry) in types {
        let mut chain = vec![*name];
        let mut at = *entry;
        while let Some(next) =
            at.value.get("type").and_then(Yaml::scalar).and_then(|next| types.get(next))
        {
            chain.push(&next.key);
            if next.key == *name {
                let wrong =
                    report(format!("types name each other in a loop: {}", chain.join(" → ")));
                reader
                    .problems
                    .add(entry.key_span, wrong.expected("this type leads back to itself"));
                break;
            }
            if chain.len() > types.len() {
                break;
            }
            at = next;
        }
    }
}

/// The node's own keys, then those of its types.
fn fields<'t>(reader: &mut Reader<'_>, types: &Types<'t>, entry: &'t Entry) -> Fields<'t> {
    let mut fields = Fields::of(&entry.value);
    let mut visited = HashSet::new();
    let mut at = &entry.value;
    while let Some(yaml) = at.get("type") {
        let Some(name) = reader.text(yaml) else { break };
        let Some(found) = types.by_name.get(name.as_str()) else {
            if !types.complete {
                break;
            }
            let wrong = report(format!("unknown type `{}`", crate::diagnostics::excerpt(&name)));
            let wrong = wrong.expected("expected a name from `types:`");
            reader
                .problems
                .add(yaml.span, wrong.suggest(&name, types.by_name.keys().copied(), "types"));
            break;
        };
        if !visited.insert(name) {
            break;
        }
        fields.push(&found.value);
        at = &found.value;
    }
    fields
}

fn resolve_node<'t>(
    reader: &mut Reader<'_>,
    types: &Types<'t>,
    entry: &'t Entry,
    name: &str,
    index: usize,
) -> Draft<'t> {
    let before = reader.lost;
    let fields = fields(reader, types, entry);
    let written = fields.find("kind");
    let fixed_kind = !written.and_then(Yaml::scalar).is_some_and(has_expression);
    let kind = written
        .and_then(|yaml| reader.checked(yaml, Scalar::Word(keys::KINDS), "kind"))
        .unwrap_or_else(|| "qemu".to_owned());
    let kind_is_lost = reader.lost > before;
    let kind = match kind.as_str() {
        "netns" => NodeKind::Netns,
        "host" => NodeKind::Host,
        "bridge" => NodeKind::Bridge(bridge::settings(reader, &fields)),
        "hub" => NodeKind::Hub,
        "router" => NodeKind::Router,
        // Its frames may carry the address of its interface, which comes later.
        "source" => NodeKind::Source(Source::default()),
        _ => NodeKind::Qemu(qemu::qemu(reader, &fields)),
    };
    let mut draft = Draft {
        node: Node {
            name: name.to_owned(),
            hostname: name.to_owned(),
            forwarding: matches!(kind, NodeKind::Router),
            kind,
            interfaces: Vec::new(),
            bridges: Vec::new(),
            routes: Vec::new(),
            init: Vec::new(),
            position: None,
            keep: Vec::new(),
        },
        index,
        span: entry.key_span,
        settings: IndexMap::new(),
        bridge_spans: Vec::new(),
        doubtful: false,
        fields,
        fixed_kind,
    };
    check_kind(reader, &draft);
    if let Some(hostname) = draft
        .applicable("hostname")
        .and_then(|yaml| reader.checked(yaml, Scalar::HostName, "hostname"))
    {
        draft.node.hostname = hostname;
    }
    if let Some(forwarding) = draft
        .applicable("forwarding")
        .and_then(|yaml| reader.parsed(yaml, Scalar::Bool, "forwarding"))
    {
        draft.node.forwarding = forwarding;
    }
    draft.node.position = draft.applicable("position").and_then(|yaml| position(reader, yaml));
    draft.node.keep = draft.applicable("keep").map_or_else(Vec::new, |yaml| {
        one_or_many(yaml).iter().filter_map(|item| reader.text(item)).map(PathBuf::from).collect()
    });
    let before = reader.lost;
    settings(reader, &mut draft);
    bridges(reader, &mut draft);
    draft.doubtful = kind_is_lost || reader.lost > before;
    draft.node.routes = draft.applicable("routes").map_or_else(Vec::new, |yaml| {
        yaml.list().unwrap_or_default().iter().filter_map(|item| route(reader, item)).collect()
    });
    draft
}

/// Keys of another kind, where the kind is written down.
fn check_kind(reader: &mut Reader<'_>, draft: &Draft<'_>) {
    if !draft.fixed_kind {
        return;
    }
    let kind = draft.kind();
    for entry in draft.fields.entries() {
        let Some(key) = keys::NODE.key(&entry.key) else { continue };
        if !key.kinds.is_empty() && !key.kinds.contains(&kind) {
            let wrong = report(format!("`{}` does not apply to kind `{kind}`", key.name));
            let expected = format!("a key of kind {}", key.kinds.join(", "));
            reader.problems.add(entry.key_span, wrong.expected(expected));
        }
    }
}

fn position(reader: &mut Reader<'_>, yaml: &Yaml) -> Option<[f64; 3]> {
    let mut position = [0.0; 3];
    for (value, item) in position.iter_mut().zip(yaml.list()?) {
        *value = reader.parsed(item, Scalar::Number, "position")?;
    }
    Some(position)
}

fn settings(reader: &mut Reader<'_>, draft: &mut Draft<'_>) {
    let Some(yaml) = draft.applicable("interfaces") else { return };
    for entry in yaml.map().unwrap_or_default() {
        let Some(name) = reader.key(entry) else { continue };
        let fields = &entry.value;
        if draft.fixed_kind && !draft.is_addressed() {
            for address in fields.map().unwrap_or_default() {
                if matches!(address.key.as_str(), "ipv4" | "ipv6") {
                    let wrong =
                        format!("a node of kind `{}` has no network addresses", draft.kind());
                    reader
                        .problems
                        .add(address.key_span, report(wrong).expected("not for this kind"));
                }
            }
        }
        let addressed = |key| fields.get(key).filter(|_| draft.is_addressed());
        let mtu = keys::INTERFACE.key("mtu").map(|key| key.shape);
        let settings = Settings {
            span: entry.key_span,
            mac: fields
                .get("mac")
                .and_then(|yaml| Some((reader.parsed(yaml, Scalar::Mac, "mac")?, yaml.span))),
            ipv4: addressed("ipv4").map(|yaml| reader.many(yaml, Scalar::Ipv4, "ipv4")),
            ipv6: addressed("ipv6").map(|yaml| reader.many(yaml, Scalar::Ipv6, "ipv6")),
            mtu: fields.get("mtu").and_then(|yaml| {
                let Some(crate::shape::Shape::Scalar(scalar)) = mtu else { return None };
                Some((reader.parsed(yaml, scalar, "mtu")?, yaml.span))
            }),
        };
        draft.settings.insert(name, settings);
    }
}

fn bridges(reader: &mut Reader<'_>, draft: &mut Draft<'_>) {
    let Some(yaml) = draft.applicable("bridges") else { return };
    for entry in yaml.map().unwrap_or_default() {
        let Some(name) = reader.key(entry) else { continue };
        let fields = &entry.value;
        draft.node.bridges.push(Bridge {
            name,
            ports: fields.get("ports").map_or_else(Vec::new, |yaml| {
                let ports = reader.many(yaml, Scalar::Interface, "ports");
                ports.into_iter().map(|(port, _)| port).collect()
            }),
            stp: fields
                .get("stp")
                .and_then(|yaml| reader.parsed(yaml, Scalar::Bool, "stp"))
                .unwrap_or(false),
            ipv4: fields.get("ipv4").map_or_else(Vec::new, |yaml| {
                reader.many(yaml, Scalar::Ipv4, "ipv4").into_iter().map(|(net, _)| net).collect()
            }),
            ipv6: fields.get("ipv6").map_or_else(Vec::new, |yaml| {
                reader.many(yaml, Scalar::Ipv6, "ipv6").into_iter().map(|(net, _)| net).collect()
            }),
        });
        draft.bridge_spans.push(entry.key_span);
    }
}

fn route(reader: &mut Reader<'_>, yaml: &Yaml) -> Option<Route> {
    let to = yaml.get("to")?;
    let destination = reader.checked(to, Scalar::Destination, "to")?;
    let via: Option<IpAddr> = match yaml.get("via") {
        Some(via) => Some(reader.parsed(via, Scalar::Ip, "via")?),
        None => None,
    };
    let dev = match yaml.get("dev") {
        Some(dev) => Some(reader.checked(dev, Scalar::Interface, "dev")?),
        None => None,
    };
    if via.is_none() && dev.is_none() {
        let wrong = report("the route has neither `via` nor `dev`");
        reader.problems.add(yaml.span, wrong.expected("expected a next hop or an interface"));
        return None;
    }
    let to_net: IpNet = if destination == "default" {
        if via.is_some_and(|via| via.is_ipv6()) { "::/0" } else { "0.0.0.0/0" }.parse().ok()?
    } else {
        destination.parse().ok()?
    };
    if via.is_some_and(|via| via.is_ipv4() != to_net.address.is_ipv4()) {
        let wrong =
            report(format!("the route to `{to_net}` has a next hop of the other IP version"));
        reader.problems.add(yaml.span, wrong.expected("expected two addresses of one version"));
        return None;
    }
    Some(Route { to: to_net, via, dev })
}

/// Bridges and routes name interfaces that exist, and no port belongs to two bridges.
pub(crate) fn check_references(reader: &mut Reader<'_>, drafts: &Drafts<'_>) {
    for draft in &drafts.nodes {
        let node = &draft.node;
        let names = || node.interfaces.iter().map(|interface| interface.name.as_str());
        let mut taken = HashMap::new();
        for (bridge, span) in node.bridges.iter().zip(&draft.bridge_spans) {
            if names().any(|name| name == bridge.name) {
                let wrong = report(format!(
                    "`{}` is both a bridge and an interface of `{}`",
                    bridge.name, node.name
                ));
                reader.problems.add(*span, wrong.expected("expected a name of its own"));
            }
            for port in &bridge.ports {
                if !draft.doubtful && !names().any(|name| name == port) {
                    let wrong = report(format!(
                        "the bridge `{}` has a port `{port}` that `{}` has not",
                        bridge.name, node.name
                    ));
                    let wrong = wrong.expected("expected interfaces that links attach");
                    reader.problems.add(*span, wrong.suggest(port, names(), "interfaces"));
                }
                if let Some(other) = taken.insert(port, &bridge.name) {
                    let wrong = report(format!(
                        "`{port}` of `{}` is a port of `{other}` already",
                        node.name
                    ));
                    reader.problems.add(*span, wrong.expected("an interface has one bridge"));
                }
            }
        }
        let routes = draft.applicable("routes").and_then(Yaml::list).unwrap_or_default();
        for route in &node.routes {
            let Some(dev) = &route.dev else { continue };
            let known = || names().chain(node.bridges.iter().map(|bridge| bridge.name.as_str()));
            if !draft.doubtful && !known().any(|name| name == dev) {
                let span = routes
                    .iter()
                    .find(|yaml| yaml.get("dev").is_some())
                    .map_or(draft.span, |yaml| yaml.span);
                let wrong =
                    report(format!("a route of `{}` uses `{dev}`, which it has not", node.name));
                let wrong = wrong.expected("expected an interface or a bridge");
                reader.problems.add(span, wrong.suggest(dev, known(), "interfaces"));
            }
        }
    }
}

/// Commands after boot; last, because they may ask for addresses.
pub(crate) fn resolve_init(
    reader: &mut Reader<'_>,
    nodes: &mut [Node],
    init: &[(usize, Option<&Yaml>)],
) {
    for (node, (index, yaml)) in nodes.iter_mut().zip(init) {
        let Some(yaml) = yaml else { continue };
        reader.scope.set("index", Value::Int(i64::try_from(*index).unwrap_or(i64::MAX)));
        reader.scope.set("node", Value::Text(node.name.clone()));
        node.init = one_or_many(yaml).iter().filter_map(|item| reader.text(item)).collect();
    }
    reader.scope.remove("index");
    reader.scope.remove("node");
}
