//! The settings of an in-process bridge and their defaults.

use crate::keys;
use crate::read::{Fields, Reader};
use crate::resolved::BridgeSettings;
use crate::shape::{Scalar, Shape};

/// Reads a bridge's keys from a node and its types.
pub(super) fn settings(reader: &mut Reader<'_>, fields: &Fields<'_>) -> BridgeSettings {
    let mut settings = BridgeSettings::default();
    let find = |key| fields.find(key);
    if let Some(stp) = find("stp").and_then(|yaml| reader.parsed(yaml, Scalar::Bool, "stp")) {
        settings.stp = stp;
    }
    if let Shape::Scalar(scalar) = keys::PRIORITY
        && let Some(priority) =
            find("priority").and_then(|yaml| reader.parsed(yaml, scalar, "priority"))
    {
        settings.priority = priority;
    }
    let ageing = find("ageing").and_then(|yaml| crate::resolve::limit(reader, yaml, "ageing"));
    settings.ageing = ageing.unwrap_or(settings.ageing);
    settings
}
