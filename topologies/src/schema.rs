//! The JSON Schemas of the file formats, made from the tables in `keys`.
//!
//! Assumptions: editors check files as written, before expressions are computed; so every scalar
//! may also be a text with `${…}` in it. What needs more than one place to decide (unknown nodes,
//! duplicate addresses, keys of another kind) is left to `tapestry validate`.
//!
//! Reference: JSON Schema draft 2020-12.

use serde_json::{Map, Value, json};

use crate::keys;
use crate::shape::{Object, Scalar, Shape};

/// The JSON Schema (draft 2020-12) of a topology file.
pub fn schema() -> Value {
    let mut schema = object(&keys::TOP);
    if let Value::Object(map) = &mut schema {
        let mut whole = Map::new();
        whole.insert("$schema".into(), json!("https://json-schema.org/draft/2020-12/schema"));
        whole.insert("title".into(), json!("Tapestry topology"));
        whole.append(map);
        let named = [
            ("node", object(&keys::NODE)),
            ("link", object(&keys::LINK)),
            ("direction", object(&keys::DIRECTION)),
            ("task", object(&keys::TASK)),
            ("command", object(&keys::COMMAND)),
            ("event", object(&keys::EVENT)),
        ];
        whole.insert(
            "$defs".into(),
            named.into_iter().map(|(name, schema)| (name.to_owned(), schema)).collect(),
        );
        *map = whole;
    }
    schema
}

/// The JSON Schema (draft 2020-12) of a plan file.
pub fn plan_schema() -> Value {
    let mut schema = json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Tapestry plan",
    });
    if let (Value::Object(whole), Value::Object(plan)) = (&mut schema, object(&keys::plan::PLAN)) {
        whole.extend(plan);
    }
    schema
}

fn object(object: &Object) -> Value {
    let properties: Map<String, Value> = object
        .keys
        .iter()
        .map(|key| {
            let mut schema = shape(&key.shape);
            if let Value::Object(map) = &mut schema {
                let kinds = match key.kinds {
                    [] => String::new(),
                    kinds => format!(" For kinds {}.", kinds.join(", ")),
                };
                map.insert("description".into(), json!(format!("{}{kinds}", key.doc)));
            }
            (key.name.to_owned(), schema)
        })
        .collect();
    let required: Vec<&str> =
        object.keys.iter().filter(|key| key.required).map(|key| key.name).collect();
    let nullable = required.is_empty();
    let mut schema = json!({
        "type": if nullable { json!(["object", "null"]) } else { json!("object") },
        "properties": properties,
        "additionalProperties": false,
    });
    if !nullable {
        schema["required"] = json!(required);
    }
    if std::ptr::eq(object, &raw const keys::LINK) {
        let shapes: Vec<Value> =
            keys::LINK_SHAPES.iter().map(|shape| json!({ "required": [shape] })).collect();
        schema["oneOf"] = json!(shapes);
    }
    if std::ptr::eq(object, &raw const keys::EVENT) {
        let actions: Vec<Value> =
            keys::ACTIONS.iter().map(|action| json!({ "required": [action] })).collect();
        schema["oneOf"] = json!(actions);
    }
    if [&raw const keys::LINK, &raw const keys::SET].contains(&std::ptr::from_ref(object)) {
        schema["patternProperties"] = json!({ "->": named(&keys::DIRECTION) });
    }
    schema
}

fn shape(shape: &Shape) -> Value {
    match shape {
        Shape::Scalar(kind) => scalar(*kind),
        Shape::List(items) => json!({ "type": ["array", "null"], "items": self::shape(items) }),
        Shape::OneOrMany(kind) => {
            let one = scalar(*kind);
            json!({ "anyOf": [one.clone(), { "type": "array", "items": one }] })
        }
        Shape::Position => {
            json!({ "type": "array", "items": scalar(Scalar::Number), "minItems": 2, "maxItems": 3 })
        }
        Shape::Map { value, .. } => {
            json!({ "type": ["object", "null"], "additionalProperties": self::shape(value) })
        }
        Shape::Object(known) => named(known),
        Shape::Either(shapes) => {
            json!({ "anyOf": shapes.iter().map(self::shape).collect::<Vec<_>>() })
        }
    }
}

/// Objects that stand in several places are written once.
fn named(known: &'static Object) -> Value {
    let names: [(&Object, &str); 6] = [
        (&keys::DIRECTION, "direction"),
        (&keys::NODE, "node"),
        (&keys::LINK, "link"),
        (&keys::TASK, "task"),
        (&keys::COMMAND, "command"),
        (&keys::EVENT, "event"),
    ];
    match names.iter().find(|(object, _)| std::ptr::eq(*object, known)) {
        Some((_, name)) => json!({ "$ref": format!("#/$defs/{name}") }),
        None => object(known),
    }
}

/// A text in which something is computed.
fn computed() -> Value {
    json!({ "type": "string", "pattern": r"\$\{" })
}

fn scalar(kind: Scalar) -> Value {
    let number_with_unit = |units: &str| json!({ "type": "string", "pattern": format!(r"^[0-9]+(\.[0-9]+)?\s*({units})$") });
    let literal = match kind {
        Scalar::Text | Scalar::Any | Scalar::Name | Scalar::Hosts => {
            return json!({ "type": ["string", "number", "boolean"] });
        }
        Scalar::Expression => return computed(),
        Scalar::HostName => json!({ "type": "string", "pattern": "^[a-z0-9][a-z0-9-]{0,62}$" }),
        Scalar::Identifier => json!({ "type": "string", "pattern": "^[A-Za-z_][A-Za-z0-9_]*$" }),
        Scalar::Interface => json!({ "type": "string", "pattern": "^[A-Za-z0-9._-]{1,15}$" }),
        Scalar::Integer { min, max: i64::MAX } => json!({ "type": "integer", "minimum": min }),
        Scalar::Integer { min, max } => {
            json!({ "type": "integer", "minimum": min, "maximum": max })
        }
        Scalar::Number => json!({ "type": "number" }),
        Scalar::Share => json!({ "type": "number", "minimum": 0, "maximum": 1 }),
        Scalar::Bool => json!({ "type": "boolean" }),
        Scalar::Time => number_with_unit("[a-zµμ]+"),
        Scalar::Rate => {
            json!({ "anyOf": [{ "const": "unlimited" }, number_with_unit("[A-Za-z/]+")] })
        }
        Scalar::OrNone(Scalar::Text) => return scalar(Scalar::Text),
        Scalar::OrNone(value) => {
            return json!({ "anyOf": [{ "const": "none" }, scalar(*value)] });
        }
        Scalar::Probability => number_with_unit("%"),
        Scalar::Queue | Scalar::QueueLimit | Scalar::Dscp => {
            return json!({ "type": ["string", "integer"] });
        }
        Scalar::Bytes => number_with_unit("[A-Za-z]+"),
        Scalar::Word(words) => json!({ "enum": words }),
        Scalar::Mac => {
            json!({ "type": "string", "pattern": "^([0-9A-Fa-f]{2}:){5}[0-9A-Fa-f]{2}$" })
        }
        Scalar::Ipv4 => json!({ "type": "string", "pattern": r"^[0-9.]+/[0-9]+$" }),
        Scalar::Ipv6 => json!({ "type": "string", "pattern": r"^[0-9A-Fa-f:.]+/[0-9]+$" }),
        Scalar::Ip => json!({ "type": "string", "pattern": "^[0-9A-Fa-f:.]+$" }),
        Scalar::Destination => {
            json!({ "type": "string", "pattern": r"^(default|[0-9A-Fa-f:.]+/[0-9]+)$" })
        }
        Scalar::Regex => json!({ "type": "string", "format": "regex" }),
        Scalar::Pointer => json!({ "type": "string", "format": "json-pointer" }),
        Scalar::Sync => json!({ "type": "string", "pattern": "^(best-effort|hard-limit(=.+)?)$" }),
        Scalar::Status => {
            json!({ "anyOf": [{ "const": "any" }, { "type": "integer", "minimum": 0, "maximum": 255 }] })
        }
    };
    json!({ "anyOf": [literal, computed()] })
}
