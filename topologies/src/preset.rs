//! Presets: links that people know by name.
//!
//! Purpose: `preset: lte` gives a link the keys of `topologies/presets/lte.yaml` where it has none
//! of its own. The files are part of the program, so a preset works everywhere.
//!
//! Assumptions: the first endpoint of a link is the customer, `forward` its uplink.

use crate::diagnostics::Problems;
use crate::tree::{self, Yaml};

/// A shipped preset.
pub(crate) struct Preset {
    pub(crate) name: &'static str,
    text: &'static str,
}

macro_rules! presets {
    ($($name:literal),* $(,)?) => {
        /// The names, in the order of the documentation.
        pub(crate) const NAMES: &[&str] = &[$($name),*];
        pub(crate) const PRESETS: &[Preset] = &[$(Preset {
            name: $name,
            text: include_str!(concat!("../presets/", $name, ".yaml")),
        }),*];
    };
}

presets![
    "ethernet-10",
    "ethernet-100",
    "ethernet-1g",
    "ethernet-10g",
    "ethernet-25g",
    "ethernet-100g",
    "adsl",
    "vdsl",
    "cable",
    "lte",
    "starlink",
    "geo",
    "wan-city",
    "wan-country",
    "wan-continent",
    "wan-ocean",
    "data-centre",
];

/// The keys of a preset; `None` if there is none of that name.
pub(crate) fn find(problems: &mut Problems, name: &str) -> Option<Yaml> {
    let preset = PRESETS.iter().find(|preset| preset.name == name)?;
    let file = problems.sources.add_once(&format!("preset {name}"), preset.text);
    tree::parse(problems, file)
}
