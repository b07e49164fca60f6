//! Where nodes stand in a drawing.
//!
//! Purpose: coordinates for a graph, in units of one edge length. Each connected part is laid out
//! by its form — a path as a line, a cycle as a circle, a tree around its centre, anything else by
//! forces — and the parts are set side by side.
//!
//! Assumptions: up to [`FORCED`] vertices the quadratic force model is quick; larger parts that are
//! no path, cycle or tree stand on a square grid.
//!
//! Reference: Fruchterman and Reingold, "Graph Drawing by Force-directed Placement" (1991).

use std::collections::VecDeque;
use std::f64::consts::TAU;

/// A point in edge lengths.
pub(super) type Point = [f64; 2];

/// Largest part that the force model lays out.
const FORCED: usize = 250;
/// Steps of the force model; it has come to rest by then.
const STEPS: u32 = 300;
/// Longest line before it turns back.
const LINE: usize = 8;

/// A point for each of `count` vertices. Deterministic.
pub(super) fn layout(count: usize, edges: &[(usize, usize)]) -> Vec<Point> {
    let mut neighbours = vec![Vec::new(); count];
    for &(a, b) in edges {
        if a != b && !neighbours[a].contains(&b) {
            neighbours[a].push(b);
            neighbours[b].push(a);
        }
    }
    let mut points = vec![[0.0; 2]; count];
    let mut seen = vec![false; count];
    let mut parts = Vec::new();
    for start in 0..count {
        if !seen[start] {
            let part = component(start, &neighbours, &mut seen);
            let local = place(&part, &neighbours);
            parts.push((part, local));
        }
    }
    pack(&parts, &mut points);
    points
}

/// The vertices reachable from one, in ascending order.
fn component(start: usize, neighbours: &[Vec<usize>], seen: &mut [bool]) -> Vec<usize> {
    let mut part = Vec::new();
    let mut queue = VecDeque::from([start]);
    seen[start] = true;
    while let Some(at) = queue.pop_front() {
        part.push(at);
        for &next in &neighbours[at] {
            if !seen[next] {
                seen[next] = true;
                queue.push_back(next);
            }
        }
    }
    part.sort_unstable();
    part
}

fn place(part: &[usize], neighbours: &[Vec<usize>]) -> Vec<Point> {
    // Within the part, vertices are numbered from 0.
    let local = |vertex: usize| part.binary_search(&vertex).unwrap_or(0);
    let graph: Vec<Vec<usize>> =
        part.iter().map(|&vertex| neighbours[vertex].iter().map(|&n| local(n)).collect()).collect();
    let edges = graph.iter().map(Vec::len).sum::<usize>() / 2;
    let widest = graph.iter().map(Vec::len).max().unwrap_or(0);
    if edges + 1 == graph.len() && widest <= 2 {
        line(&graph)
    } else if edges == graph.len() && widest == 2 {
        circle(&graph)
    } else if edges + 1 == graph.len() {
        radial(&graph)
    } else if graph.len() <= FORCED {
        forces(&graph)
    } else {
        let columns = (graph.len() as f64).sqrt().ceil() as usize;
        (0..graph.len()).map(|at| [(at % columns) as f64, (at / columns) as f64]).collect()
    }
}

/// Vertices of a path or cycle in the order of walking.
fn walk(graph: &[Vec<usize>], start: usize) -> Vec<usize> {
    let mut order = vec![start];
    let mut visited = vec![false; graph.len()];
    visited[start] = true;
    let mut at = start;
    while let Some(&next) = graph[at].iter().find(|&&next| !visited[next]) {
        visited[next] = true;
        order.push(next);
        at = next;
    }
    order
}

/// A line; a long one turns back and forth.
fn line(graph: &[Vec<usize>]) -> Vec<Point> {
    let start = graph.iter().position(|neighbours| neighbours.len() < 2).unwrap_or(0);
    let mut points = vec![[0.0; 2]; graph.len()];
    for (at, vertex) in walk(graph, start).into_iter().enumerate() {
        let (row, column) = (at / LINE, at % LINE);
        let x = if row % 2 == 0 { column } else { LINE - 1 - column };
        points[vertex] = [x as f64, row as f64];
    }
    points
}

fn circle(graph: &[Vec<usize>]) -> Vec<Point> {
    let count = graph.len() as f64;
    // Neighbours are one edge length apart.
    let radius = 0.5 / (TAU / (2.0 * count)).sin();
    let mut points = vec![[0.0; 2]; graph.len()];
    for (at, vertex) in walk(graph, 0).into_iter().enumerate() {
        let angle = TAU * (at as f64 / count - 0.25);
        points[vertex] = [radius * angle.cos(), radius * angle.sin()];
    }
    points
}

/// Distance of every vertex from one, with its predecessor; in breadth-first order.
fn distances(graph: &[Vec<usize>], start: usize) -> Vec<(usize, usize, usize)> {
    let mut seen = vec![false; graph.len()];
    let mut order = vec![(start, start, 0)];
    seen[start] = true;
    let mut at = 0;
    while at < order.len() {
        let (vertex, _, distance) = order[at];
        for &next in &graph[vertex] {
            if !seen[next] {
                seen[next] = true;
                order.push((next, vertex, distance + 1));
            }
        }
        at += 1;
    }
    order
}

/// A tree around its centre: each subtree has a sector as wide as its share of the leaves.
fn radial(graph: &[Vec<usize>]) -> Vec<Point> {
    // The middle of the longest path is the centre.
    let end = distances(graph, 0).last().map_or(0, |&(vertex, ..)| vertex);
    let order = distances(graph, end);
    let (mut centre, _, length) = order.last().copied().unwrap_or((0, 0, 0));
    let mut parents = vec![0; graph.len()];
    for &(vertex, parent, _) in &order {
        parents[vertex] = parent;
    }
    for _ in 0..length / 2 {
        centre = parents[centre];
    }
    let order = distances(graph, centre);
    let mut leaves = vec![0_usize; graph.len()];
    for &(vertex, parent, _) in order.iter().rev() {
        leaves[vertex] = leaves[vertex].max(1);
        if vertex != parent {
            leaves[parent] += leaves[vertex];
        }
    }
    // The ring that is most crowded sets the distance between rings.
    let depth = order.last().map_or(0, |&(.., distance)| distance).max(1);
    let spacing = (leaves[centre] as f64 * 0.8 / (TAU * depth as f64)).max(1.0);
    let mut begin = vec![0.0; graph.len()];
    let mut points = vec![[0.0; 2]; graph.len()];
    for &(vertex, parent, distance) in &order {
        if vertex == parent {
            continue;
        }
        let share = TAU * leaves[vertex] as f64 / leaves[centre] as f64;
        let angle = begin[parent] + share / 2.0;
        begin[vertex] = begin[parent];
        begin[parent] += share;
        let radius = distance as f64 * spacing;
        points[vertex] = [radius * angle.cos(), radius * angle.sin()];
    }
    points
}

/// Springs along edges, repulsion between all; cooled down step by step.
fn forces(graph: &[Vec<usize>]) -> Vec<Point> {
    let count = graph.len();
    let start = (count as f64).sqrt();
    let mut points: Vec<Point> = (0..count)
        .map(|at| {
            let angle = TAU * at as f64 / count as f64;
            // Two radii, so that no two of a symmetric graph stay on one line.
            let radius = start * if at % 2 == 0 { 1.0 } else { 0.8 };
            [radius * angle.cos(), radius * angle.sin()]
        })
        .collect();
    for step in 0..STEPS {
        let mut moves = vec![[0.0; 2]; count];
        for a in 0..count {
            for b in a + 1..count {
                let (delta, distance) = between(points[a], points[b]);
                let linked = if graph[a].contains(&b) { distance * distance } else { 0.0 };
                // Attraction d², repulsion 1/d, both along the line between the two.
                let pull = (linked - 1.0 / distance) / distance;
                for axis in 0..2 {
                    moves[a][axis] += delta[axis] * pull;
                    moves[b][axis] -= delta[axis] * pull;
                }
            }
        }
        let heat = 0.3 * start * (1.0 - f64::from(step) / f64::from(STEPS)) + 0.01;
        for (point, change) in points.iter_mut().zip(&moves) {
            let length = change[0].hypot(change[1]).max(1e-9);
            let scale = length.min(heat) / length;
            point[0] += change[0] * scale;
            point[1] += change[1] * scale;
        }
    }
    points
}

fn between(a: Point, b: Point) -> (Point, f64) {
    let delta = [b[0] - a[0], b[1] - a[1]];
    (delta, delta[0].hypot(delta[1]).max(1e-3))
}

/// Sets parts side by side in rows.
fn pack(parts: &[(Vec<usize>, Vec<Point>)], points: &mut [Point]) {
    let total: usize = parts.iter().map(|(part, _)| part.len()).sum();
    let row_width = (total as f64).sqrt().mul_add(1.5, 3.0).max(LINE as f64);
    let (mut x, mut y, mut height) = (0.0_f64, 0.0_f64, 0.0_f64);
    for (part, local) in parts {
        let bound = |axis: usize, pick: fn(f64, f64) -> f64, start: f64| {
            local.iter().map(|point| point[axis]).fold(start, pick)
        };
        let (left, right) = (bound(0, f64::min, f64::MAX), bound(0, f64::max, f64::MIN));
        let (top, bottom) = (bound(1, f64::min, f64::MAX), bound(1, f64::max, f64::MIN));
        if x > 0.0 && x + (right - left) > row_width {
            (x, y, height) = (0.0, y + height + 1.0, 0.0);
        }
        for (&vertex, point) in part.iter().zip(local) {
            points[vertex] = [x + point[0] - left, y + point[1] - top];
        }
        x += right - left + 1.0;
        height = height.max(bottom - top);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn closest(points: &[Point]) -> f64 {
        let mut closest = f64::MAX;
        for (at, a) in points.iter().enumerate() {
            for b in &points[at + 1..] {
                closest = closest.min((a[0] - b[0]).hypot(a[1] - b[1]));
            }
        }
        closest
    }

    #[test]
    fn no_form_puts_two_vertices_on_one_spot() {
        let path: Vec<_> = (0..39).map(|at| (at, at + 1)).collect();
        let cycle: Vec<_> = (0..9).map(|at| (at, (at + 1) % 9)).collect();
        let star: Vec<_> = (1..30).map(|leaf| (0, leaf)).collect();
        let tree: Vec<_> = (1..40).map(|at| ((at - 1) / 3, at)).collect();
        let mesh: Vec<_> = (0..8).flat_map(|a| (a + 1..8).map(move |b| (a, b))).collect();
        let grid: Vec<_> = (0..30)
            .flat_map(|at| [(at, at + 6), (at, at + 1)])
            .filter(|(a, b)| *b < 30 && (a % 6 != 5 || b - a == 6))
            .collect();
        for (name, count, edges) in [
            ("path", 40, path),
            ("cycle", 9, cycle),
            ("star", 30, star),
            ("tree", 40, tree),
            ("mesh", 8, mesh),
            ("grid", 30, grid),
            ("apart", 5, vec![]),
            ("two parts", 5, vec![(0, 1), (2, 3), (3, 4), (4, 2)]),
        ] {
            let points = layout(count, &edges);
            assert!(points.iter().flatten().all(|value| value.is_finite()), "{name}");
            assert!(closest(&points) > 0.4, "{name}: {}", closest(&points));
            assert_eq!(points, layout(count, &edges), "{name}");
        }
    }

    #[test]
    fn a_short_path_is_a_straight_line() {
        let points = layout(3, &[(0, 1), (1, 2)]);
        assert_eq!(points, [[0.0, 0.0], [1.0, 0.0], [2.0, 0.0]]);
    }
}
