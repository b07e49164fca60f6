//! Drawings of a topology.
use crate::Topology;
/// Graphviz.
pub fn dot(topology: &Topology) -> String {
    topology.name.clone()
}
/// Mermaid.
pub fn mermaid(topology: &Topology) -> String {
    topology.name.clone()
}
/// SVG.
pub fn svg(topology: &Topology) -> String {
    topology.name.clone()
}
