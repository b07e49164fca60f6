//! The topology file: parse, resolve, diagnostics, schema.
//!
//! Purpose: from a path to a [`Topology`] in which nothing can be wrong any more, or to
//! [`Diagnostics`] that name everything that is. Files can be checked with no simulator and no
//! QEMU at hand.
//!
//! A file passes these stations: `files` reads it and what it includes; `tree` parses YAML and
//! keeps places; `check` holds it against the tables of `keys`; `resolve` computes expressions and
//! makes nodes, links, addresses and tasks of it. [`graph`] draws the result, [`schema`] prints the
//! tables for editors.
//!
//! Assumptions: files are UTF-8 and at most 8 MiB. Not modelled: anything that happens while a
//! topology runs.
//!
//! Reference: `docs/topology.md`.

#![forbid(unsafe_code)]

mod address;
mod addresses;
mod check;
mod diagnostics;
mod events;
pub mod expression;
mod files;
pub mod graph;
mod hosts;
mod impairments;
mod keys;
mod links;
mod nodes;
mod pcap;
pub mod plan;
mod preset;
mod queue;
mod read;
mod resolve;
pub mod resolved;
mod schema;
mod shape;
mod snippet;
mod source;
mod tasks;
mod template;
mod tree;

use std::path::Path;

pub use address::ParseAddressError;
pub use diagnostics::{Diagnostics, Place, Problem};
pub use events::{Settings, link_names, parse_settings};
pub use resolved::*;
pub use schema::{plan_schema, schema};

use diagnostics::Problems;
use files::Files;

/// Reads a topology file and all that it includes, with `sets` (`--set KEY=VALUE`) in place of its
/// parameters' defaults. All that is wrong comes back at once.
pub fn load(path: &Path, sets: &[(String, String)]) -> Result<Topology, Diagnostics> {
    let mut problems = Problems::default();
    let files = Files::load(&mut problems, path);
    let stem = path.file_stem().unwrap_or_default().to_string_lossy();
    let topology = resolve::resolve(&mut problems, &files, sets, &stem);
    problems.finish(&path.display().to_string(), topology)
}

/// Reads a topology from text. `name` stands for it in messages and, without its ending, names the
/// topology; includes are relative to `base_dir`.
pub fn load_str(
    name: &str,
    text: &str,
    sets: &[(String, String)],
    base_dir: &Path,
) -> Result<Topology, Diagnostics> {
    let mut problems = Problems::default();
    let files = Files::load_text(&mut problems, name, text, base_dir);
    let stem = Path::new(name).file_stem().unwrap_or_default().to_string_lossy();
    let topology = resolve::resolve(&mut problems, &files, sets, &stem);
    problems.finish(name, topology)
}
