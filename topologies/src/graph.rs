//! Drawings of a topology: Graphviz, Mermaid and a self-contained SVG.
//!
//! Purpose: seeing what a file means. Nodes carry their kind, links their channel, rate and delay,
//! link ends their interface and addresses; a link of more than two stations is drawn as a small
//! circle of its own.
//!
//! Assumptions: the same topology always gives the same text. In the SVG, nodes stand where their
//! `position` says if every node has one, else where `layout` puts them.
//!
//! Not modelled: what happens in a run.

mod layout;
mod svg;

use std::fmt::Write as _;

pub use svg::svg;

use crate::resolved::{Channel, Interface, Link, Topology};

/// The topology in Graphviz's language.
pub fn dot(topology: &Topology) -> String {
    let mut out = String::new();
    let quoted = |text: &str| {
        format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n"))
    };
    let mut line = |text: String| {
        out.push_str(&text);
        out.push('\n');
    };
    line(format!("graph {} {{", quoted(&topology.name)));
    line("  node [shape=box, style=rounded, fontname=\"sans-serif\"];".to_owned());
    line("  edge [fontname=\"sans-serif\", fontsize=10];".to_owned());
    for node in &topology.nodes {
        let label = quoted(&format!("{}\n{}", node.name, node.kind.as_str()));
        let position = match node.position {
            Some([x, y, _]) => format!(", pos=\"{x},{y}!\""),
            None => String::new(),
        };
        line(format!("  {} [label={label}{position}];", quoted(&node.name)));
    }
    for link in &topology.links {
        let end = |at: usize| {
            let endpoint = link.endpoints[at];
            let node = &topology.nodes[endpoint.node];
            (quoted(&node.name), quoted(&end_label(&node.interfaces[endpoint.interface], "\n")))
        };
        if let [_, _] = link.endpoints.as_slice() {
            let ((a, tail), (b, head)) = (end(0), end(1));
            let label = quoted(&link_label(link));
            line(format!("  {a} -- {b} [label={label}, taillabel={tail}, headlabel={head}];"));
        } else {
            let hub = quoted(&format!("link {}", link.name));
            let label = quoted(&format!("{}\n{}", link.name, link_label(link)));
            line(format!("  {hub} [shape=ellipse, label={label}];"));
            for at in 0..link.endpoints.len() {
                let (node, tail) = end(at);
                line(format!("  {node} -- {hub} [taillabel={tail}];"));
            }
        }
    }
    out.push_str("}\n");
    out
}

/// The topology as a Mermaid flow chart.
pub fn mermaid(topology: &Topology) -> String {
    let mut out = String::from("graph LR\n");
    let quoted = |text: &str| format!("\"{}\"", text.replace('"', "#quot;").replace('\n', "<br/>"));
    for (at, node) in topology.nodes.iter().enumerate() {
        let label = quoted(&format!("{}\n{}", node.name, node.kind.as_str()));
        // Writing to a string cannot fail.
        let _ = writeln!(out, "  v{at}[{label}]");
    }
    for (number, link) in topology.links.iter().enumerate() {
        let label = quoted(&link_label(link));
        if let [a, b] = link.endpoints.as_slice() {
            let _ = writeln!(out, "  v{} ---|{label}| v{}", a.node, b.node);
        } else {
            let label = quoted(&format!("{}\n{}", link.name, link_label(link)));
            let _ = writeln!(out, "  l{number}(({label}))");
            for end in &link.endpoints {
                let _ = writeln!(out, "  v{} --- l{number}", end.node);
            }
        }
    }
    out
}

/// `csma 10Mbit/s 2ms`, leaving out what is zero or unlimited.
fn link_label(link: &Link) -> String {
    let channel = match link.channel {
        Channel::Csma => "csma",
        Channel::PointToPoint => "point-to-point",
    };
    let mut label = channel.to_owned();
    if let Some(rate) = link.rate {
        let _ = write!(label, " {rate}");
    }
    if link.delay.as_nanos() > 0 {
        let _ = write!(label, " {}", link.delay);
    }
    label
}

/// An interface's name and addresses.
fn end_label(interface: &Interface, separator: &str) -> String {
    let mut label = interface.name.clone();
    for net in &interface.ipv4 {
        let _ = write!(label, "{separator}{net}");
    }
    for net in &interface.ipv6 {
        let _ = write!(label, "{separator}{net}");
    }
    label
}

#[cfg(test)]
mod tests;
