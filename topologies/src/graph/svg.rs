//! A topology as a self-contained SVG.
//!
//! Purpose: a picture that opens anywhere: no script, no font or style from elsewhere. Details
//! that would crowd a large drawing are in the tool tips.

use std::fmt::Write as _;

use super::layout::{Point, layout};
use super::{end_label, link_label};
use crate::resolved::{NodeKind, Topology};

/// Pixels per edge length: room for two addresses and a link's label between two boxes.
const SCALE: f64 = 320.0;
const MARGIN: f64 = 70.0;
const BOX: [f64; 2] = [92.0, 44.0];
/// Space for title and legend above the drawing.
const HEAD: f64 = 66.0;
/// Above this many link ends, interface labels are left to the tool tips.
const LABELLED_ENDS: usize = 120;

const STYLE: &str = "\
text{font-family:system-ui,sans-serif;fill:#1f2933}\
.title{font-size:18px;font-weight:600}\
.name{font-size:14px;font-weight:600;text-anchor:middle}\
.kind,.link,.end{font-size:11px;text-anchor:middle;fill:#52606d}\
.legend{font-size:11px;fill:#52606d}\
.link,.end{paint-order:stroke;stroke:#fff;stroke-width:3px}\
.end{font-size:10px}\
line{stroke:#7b8794;stroke-width:2}\
rect.node,circle{stroke-width:1.5}";

/// Fill and stroke of each kind.
fn colours(kind: &NodeKind) -> (&'static str, &'static str) {
    match kind {
        NodeKind::Qemu(_) => ("#e3f2fd", "#1976d2"),
        NodeKind::Netns => ("#e8f5e9", "#388e3c"),
        NodeKind::Host => ("#fff8e1", "#f9a825"),
        NodeKind::Bridge(_) => ("#f3e5f5", "#8e24aa"),
        NodeKind::Source(_) => ("#e0f7fa", "#00838f"),
        NodeKind::Hub => ("#efebe9", "#6d4c41"),
        NodeKind::Router => ("#fce4ec", "#d81b60"),
    }
}

fn escaped(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            // Not allowed in XML in any form.
            c if c.is_control() && !matches!(c, '\n' | '\t') => escaped.push(' '),
            c => escaped.push(c),
        }
    }
    escaped
}

/// The topology as a self-contained SVG.
pub fn svg(topology: &Topology) -> String {
    let points = points(topology);
    let extent = |axis: usize| points.iter().map(|point| point[axis]).fold(0.0, f64::max);
    let width = (extent(0) + MARGIN).max(420.0);
    let height = extent(1) + MARGIN;
    let mut out = String::new();
    // Writing to a string cannot fail.
    let _ = write!(
        out,
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{width:.0}\" height=\"{height:.0}\" \
         viewBox=\"0 0 {width:.0} {height:.0}\">\n<style>{STYLE}</style>\n\
         <rect width=\"100%\" height=\"100%\" fill=\"#fff\"/>\n\
         <text class=\"title\" x=\"20\" y=\"30\">{}</text>\n",
        escaped(&topology.name)
    );
    legend(&mut out, topology);
    links(&mut out, topology, &points);
    for (node, point) in topology.nodes.iter().zip(&points) {
        let (fill, stroke) = colours(&node.kind);
        let [x, y] = *point;
        let interfaces: Vec<String> = node
            .interfaces
            .iter()
            .map(|interface| format!("{} {}", end_label(interface, " "), interface.mac))
            .collect();
        let size = if node.name.len() > 11 { " style=\"font-size:10px\"" } else { "" };
        let _ = writeln!(
            out,
            "<g><title>{}</title><rect class=\"node\" x=\"{:.1}\" y=\"{:.1}\" width=\"{}\" height=\"{}\" rx=\"8\" \
             fill=\"{fill}\" stroke=\"{stroke}\"/><text class=\"name\" x=\"{x:.1}\" y=\"{:.1}\"{size}>{}</text>\
             <text class=\"kind\" x=\"{x:.1}\" y=\"{:.1}\">{}</text></g>",
            escaped(&format!("{} ({})\n{}", node.name, node.kind.as_str(), interfaces.join("\n"))),
            x - BOX[0] / 2.0,
            y - BOX[1] / 2.0,
            BOX[0],
            BOX[1],
            y - 2.0,
            escaped(&shortened(&node.name)),
            y + 14.0,
            node.kind.as_str(),
        );
    }
    out.push_str("</svg>\n");
    out
}

/// A name that fits into a box.
fn shortened(name: &str) -> String {
    const FITS: usize = 16;
    if name.chars().count() <= FITS {
        return name.to_owned();
    }
    name.chars().take(FITS - 1).chain(['…']).collect()
}

/// Pixels of all nodes, then of all links that are drawn as circles.
fn points(topology: &Topology) -> Vec<Point> {
    let count = topology.nodes.len();
    let hubs: Vec<usize> = hubs(topology).collect();
    let mut edges = Vec::new();
    for link in &topology.links {
        if let [a, b] = link.endpoints.as_slice() {
            edges.push((a.node, b.node));
        }
    }
    for (at, &link) in hubs.iter().enumerate() {
        edges.extend(topology.links[link].endpoints.iter().map(|end| (count + at, end.node)));
    }
    let given: Option<Vec<Point>> =
        topology.nodes.iter().map(|node| node.position.map(|[x, y, _]| [x, y])).collect();
    let mut points = match given {
        Some(mut points) => {
            scale_to_edges(&mut points, &edges);
            for &link in &hubs {
                points.push(middle(
                    &points,
                    topology.links[link].endpoints.iter().map(|end| end.node),
                ));
            }
            points
        }
        None => layout(count + hubs.len(), &edges),
    };
    let least = |axis: usize| points.iter().map(|point| point[axis]).fold(f64::MAX, f64::min);
    let (left, top) = (least(0), least(1));
    for point in &mut points {
        *point = [(point[0] - left) * SCALE + MARGIN, (point[1] - top) * SCALE + MARGIN + HEAD];
    }
    points
}

fn hubs(topology: &Topology) -> impl Iterator<Item = usize> {
    topology
        .links
        .iter()
        .enumerate()
        .filter(|(_, link)| link.endpoints.len() != 2)
        .map(|(at, _)| at)
}

fn middle(points: &[Point], of: impl Iterator<Item = usize>) -> Point {
    let mut sum = [0.0; 2];
    let mut count = 0.0;
    for at in of {
        sum = [sum[0] + points[at][0], sum[1] + points[at][1]];
        count += 1.0;
    }
    [sum[0] / f64::max(count, 1.0), sum[1] / f64::max(count, 1.0)]
}

/// Scales metres so that the median link is one edge long, but the drawing at most 40.
fn scale_to_edges(points: &mut [Point], edges: &[(usize, usize)]) {
    let count = points.len();
    let mut lengths: Vec<f64> = edges
        .iter()
        .filter(|(a, b)| *a < count && *b < count)
        .map(|&(a, b)| (points[a][0] - points[b][0]).hypot(points[a][1] - points[b][1]))
        .filter(|length| *length > 0.0)
        .collect();
    lengths.sort_by(f64::total_cmp);
    let bound = |pick: fn(f64, f64) -> f64, axis: usize, start: f64| {
        points.iter().map(|point| point[axis]).fold(start, pick)
    };
    let span = (0..2)
        .map(|axis| bound(f64::max, axis, f64::MIN) - bound(f64::min, axis, f64::MAX))
        .fold(0.0, f64::max);
    let usual = lengths.get(lengths.len() / 2).copied().unwrap_or(span / (count as f64).sqrt());
    let unit = usual.max(span / 40.0);
    if unit > 0.0 && unit.is_finite() {
        for point in points {
            *point = [point[0] / unit, point[1] / unit];
        }
    }
}

fn legend(out: &mut String, topology: &Topology) {
    let mut shown: Vec<&'static str> = Vec::new();
    let mut x = 20.0;
    for node in &topology.nodes {
        let kind = node.kind.as_str();
        if shown.contains(&kind) {
            continue;
        }
        shown.push(kind);
        let count = topology.nodes.iter().filter(|node| node.kind.as_str() == kind).count();
        let (fill, stroke) = colours(&node.kind);
        let _ = writeln!(
            out,
            "<rect class=\"node\" x=\"{x:.0}\" y=\"43\" width=\"12\" height=\"12\" rx=\"3\" fill=\"{fill}\" stroke=\"{stroke}\"/>\
             <text class=\"legend\" x=\"{:.0}\" y=\"53\">{count} {kind}</text>",
            x + 18.0
        );
        x += 90.0;
    }
}

fn links(out: &mut String, topology: &Topology, points: &[Point]) {
    let ends: usize = topology.links.iter().map(|link| link.endpoints.len()).sum();
    let labelled = ends <= LABELLED_ENDS;
    let mut hub = topology.nodes.len();
    let mut labels = String::new();
    for link in &topology.links {
        let label = link_label(link);
        let end = |at: usize| {
            let end = link.endpoints[at];
            let node = &topology.nodes[end.node];
            (points[end.node], end_label(&node.interfaces[end.interface], "\n"))
        };
        let title = escaped(&format!("{}: {label}", link.name));
        let mut edge = |from: Point, to: Point| {
            let _ = writeln!(
                out,
                "<line x1=\"{:.1}\" y1=\"{:.1}\" x2=\"{:.1}\" y2=\"{:.1}\"><title>{title}</title></line>",
                from[0], from[1], to[0], to[1]
            );
        };
        if let [_, _] = link.endpoints.as_slice() {
            let ((from, tail), (to, head)) = (end(0), end(1));
            edge(from, to);
            if labelled {
                text(&mut labels, "link", along(from, to, 0.5), &two_lines(&label));
                text(&mut labels, "end", near(from, to), &tail);
                text(&mut labels, "end", near(to, from), &head);
            }
        } else {
            let centre = points[hub];
            hub += 1;
            for at in 0..link.endpoints.len() {
                let (from, tail) = end(at);
                edge(from, centre);
                if labelled {
                    text(&mut labels, "end", near(from, centre), &tail);
                }
            }
            let _ = writeln!(
                labels,
                "<circle cx=\"{:.1}\" cy=\"{:.1}\" r=\"9\" fill=\"#f5f7fa\" stroke=\"#7b8794\"><title>{title}</title></circle>",
                centre[0], centre[1]
            );
            text(
                &mut labels,
                "link",
                [centre[0], centre[1] + 26.0],
                &format!("{}\n{label}", link.name),
            );
        }
    }
    out.push_str(&labels);
}

fn along(from: Point, to: Point, share: f64) -> Point {
    [from[0] + (to[0] - from[0]) * share, from[1] + (to[1] - from[1]) * share]
}

/// A point on the edge just outside a node's box.
fn near(from: Point, to: Point) -> Point {
    let (dx, dy) = ((to[0] - from[0]).abs().max(1e-6), (to[1] - from[1]).abs().max(1e-6));
    let outside = ((BOX[0] / 2.0 + 38.0) / dx).min((BOX[1] / 2.0 + 20.0) / dy);
    along(from, to, outside.min(0.45))
}

/// The channel above the line, its figures below.
fn two_lines(label: &str) -> String {
    label.replacen(' ', "\n", 1)
}

/// Lines of text around a point: the first above it, the others below.
fn text(out: &mut String, class: &str, at: Point, text: &str) {
    for (number, line) in text.lines().enumerate() {
        let _ = writeln!(
            out,
            "<text class=\"{class}\" x=\"{:.1}\" y=\"{:.1}\">{}</text>",
            at[0],
            at[1] - 4.0 + 14.0 * number as f64,
            escaped(line)
        );
    }
}
