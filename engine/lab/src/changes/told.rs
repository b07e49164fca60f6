//! What `events.jsonl` says of a link's new parameters: those that were set, and no others.

use serde_json::{Map, Value, json};
use tapestry_core::link::Parameter;
use tapestry_topologies::resolved::DirectionChange;

/// What was set in one direction, by the keys of topology files; `none` for what was taken away.
pub(super) fn direction(change: &DirectionChange) -> Map<String, Value> {
    let to = &change.parameters.to;
    let bucket = to.bucket.as_ref();
    let mut told = Map::new();
    for parameter in &change.parameters.set {
        let (key, value) = match parameter {
            Parameter::Rate => ("rate", to.rate.map_or(json!("unlimited"), |rate| json!(rate))),
            Parameter::Overhead => ("overhead", json!(to.framing)),
            Parameter::Burst => ("burst", or_none(bucket.map(|bucket| bucket.burst))),
            Parameter::Peak => ("peak", or_none(bucket.and_then(|bucket| bucket.peak))),
            Parameter::Trace => ("trace", or_none(to.trace.as_ref())),
            Parameter::Schedule => ("schedule", or_none(to.schedule.as_ref())),
            Parameter::Slot => ("slot", or_none(to.slots.as_ref())),
            Parameter::Delay => ("delay", json!(to.delay)),
            Parameter::Jitter => ("jitter", or_none(to.jitter.as_ref())),
            Parameter::Reordering => {
                ("reordering", json!(if to.reordering { "allow" } else { "preserve" }))
            }
            Parameter::Reorder => ("reorder", or_none(to.reorder.as_ref())),
            Parameter::Loss => {
                if to.loss.is_some() {
                    told.insert("ecn".to_owned(), json!(to.ecn));
                }
                ("loss", or_none(to.loss.as_ref()))
            }
            Parameter::Duplicate => ("duplicate", or_none(to.duplicate.as_ref())),
            Parameter::Corrupt => ("corrupt", or_none(to.corrupt.as_ref())),
        };
        told.insert(key.to_owned(), value);
    }
    if let Some(queue) = &change.queue {
        told.insert("queue".to_owned(), json!(queue));
    }
    told
}

fn or_none(value: Option<impl serde::Serialize>) -> Value {
    value.map_or_else(|| json!("none"), |value| json!(value))
}
