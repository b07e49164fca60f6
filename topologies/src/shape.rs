//! What a value may look like: the vocabulary of the tables in `keys`.
//!
//! Purpose: one description of the format from which the structural check, the JSON Schema and the
//! lists of known keys in messages all follow, so that they cannot disagree.

use regex::Regex;
use tapestry_core::{ByteCount, DataRate, Probability, SimTime, SyncPolicy};

use crate::queue::{DISCIPLINES, code_point, parse_limit};
use crate::resolved::{IpNet, Ipv4Net, Ipv6Net, MacAddr};

/// A single value.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Scalar {
    /// Any text.
    Text,
    /// A parameter's value: any scalar.
    Any,
    /// A name for people and files: letters, digits, `.`, `_`, `-`.
    Name,
    /// A name that expressions use.
    Identifier,
    /// Host name: what `Name` allows but lower case, no `.` or `_`.
    HostName,
    /// Interface name: 1–15 bytes without blanks, `/` and `:`.
    Interface,
    Integer {
        min: i64,
        max: i64,
    },
    Number,
    /// A number from 0 to 1.
    Share,
    Bool,
    Time,
    /// A rate, or `unlimited`.
    Rate,
    /// The same, or `none`, which takes away what stands in a link or a preset.
    OrNone(&'static Scalar),
    Bytes,
    Word(&'static [&'static str]),
    Mac,
    Ipv4,
    Ipv6,
    Ip,
    /// A prefix of either family, or `default`.
    Destination,
    /// A host list.
    Hosts,
    /// Exactly one `${…}`, kept for run time.
    Expression,
    Regex,
    Pointer,
    Sync,
    /// An exit status, or `any`.
    Status,
    /// A probability in percent.
    Probability,
    /// A queue's limit, or the name of its discipline.
    Queue,
    /// Frames, a size or a time.
    QueueLimit,
    /// A differentiated services code point.
    Dscp,
}

/// A value with its parts.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Shape {
    Scalar(Scalar),
    List(&'static Shape),
    /// A scalar or a list of them.
    OneOrMany(Scalar),
    /// Three coordinates, of which the last may be left out.
    Position,
    /// Keys that the user chooses.
    Map {
        keys: Scalar,
        value: &'static Shape,
    },
    Object(&'static Object),
    /// Alternatives that YAML itself tells apart: a scalar, a list, a map.
    Either(&'static [Shape]),
}

/// A map with fixed keys.
#[derive(Debug)]
pub(crate) struct Object {
    /// `a node`, for messages.
    pub(crate) what: &'static str,
    pub(crate) keys: &'static [Key],
}

/// One key of an [`Object`].
#[derive(Debug, Clone, Copy)]
pub(crate) struct Key {
    pub(crate) name: &'static str,
    pub(crate) shape: Shape,
    /// Node kinds it applies to; empty: all.
    pub(crate) kinds: &'static [&'static str],
    pub(crate) required: bool,
    /// One sentence for the schema.
    pub(crate) doc: &'static str,
}

impl Object {
    pub(crate) fn key(&self, name: &str) -> Option<&'static Key> {
        self.keys.iter().find(|key| key.name == name)
    }
}

impl Scalar {
    /// What is accepted, to follow "expected".
    pub(crate) fn expected(self) -> String {
        match self {
            Self::Text => "a text".to_owned(),
            Self::Any => "a number, a truth value or a text".to_owned(),
            Self::Name => "a name of letters, digits, `.`, `_` and `-`".to_owned(),
            Self::Identifier => {
                "a name of letters, digits and `_`, not beginning with a digit".to_owned()
            }
            Self::HostName => {
                "a name of lower-case letters, digits and `-`, at most 63 long".to_owned()
            }
            Self::Interface => "an interface name such as `eth0`, at most 15 bytes".to_owned(),
            Self::Integer { min, max: i64::MAX } => format!("a whole number from {min}"),
            Self::Integer { min, max } => format!("a whole number from {min} to {max}"),
            Self::Number => "a number".to_owned(),
            Self::Share => "a number from 0 to 1".to_owned(),
            Self::Bool => "`true` or `false`".to_owned(),
            Self::Time => "a time with a unit, such as `5ms`".to_owned(),
            Self::Rate => "`unlimited` or a rate with a unit, such as `10Mbit/s`".to_owned(),
            Self::OrNone(scalar) => format!("{}, or `none`", scalar.expected()),
            Self::Bytes => "a size with a unit, such as `256MiB`".to_owned(),
            Self::Word(words) => {
                let words: Vec<String> = words.iter().map(|word| format!("`{word}`")).collect();
                match words.as_slice() {
                    [only] => only.clone(),
                    [first @ .., last] => format!("{} or {last}", first.join(", ")),
                    [] => String::new(),
                }
            }
            Self::Mac => "a hardware address such as `02:00:00:00:00:01`".to_owned(),
            Self::Ipv4 => "an IPv4 address with prefix length, such as `10.0.0.1/24`".to_owned(),
            Self::Ipv6 => "an IPv6 address with prefix length, such as `fd00::1/64`".to_owned(),
            Self::Ip => "an IP address such as `10.0.0.1`".to_owned(),
            Self::Destination => "a network such as `10.1.0.0/16`, or `default`".to_owned(),
            Self::Hosts => "node names, such as `n0` or `n[0-9]`".to_owned(),
            Self::Expression => "one expression, such as `${loss < 0.01}`".to_owned(),
            Self::Regex => "a regular expression".to_owned(),
            Self::Pointer => "a JSON pointer such as `/end/sum/bytes`".to_owned(),
            Self::Sync => "`best-effort`, `hard-limit` or `hard-limit=50ms`".to_owned(),
            Self::Status => "an exit status from 0 to 255, or `any`".to_owned(),
            Self::Probability => "a probability from 0% to 100%, such as `0.5%`".to_owned(),
            Self::Queue => "frames, a size such as `64KiB`, a time such as `20ms`, or a discipline such as `codel`".to_owned(),
            Self::QueueLimit => {
                "frames (1 to 1000000), a size such as `64KiB`, or a time such as `20ms`".to_owned()
            }
            Self::Dscp => "a code point such as `EF` or `AF41`, or its number from 0 to 63".to_owned(),
        }
    }

    /// What is wrong with a text, to begin a message; `None` if nothing is.
    pub(crate) fn complaint(self, text: &str) -> Option<String> {
        fn parsed<T, E: ToString>(result: Result<T, E>) -> Option<String> {
            result.err().map(|error| error.to_string())
        }
        let shown = crate::diagnostics::excerpt(text);
        let unless = |fine: bool, what: &str| (!fine).then(|| format!("`{shown}` is not {what}"));
        match self {
            Self::Text | Self::Any | Self::Hosts | Self::Expression => None,
            Self::Name => unless(
                is_label(text, |b| b.is_ascii_alphanumeric() || b"._-".contains(&b)),
                "a name",
            ),
            Self::Identifier => {
                unless(crate::expression::is_name(text), "a name that expressions can use")
            }
            Self::HostName => unless(is_host_name(text), "a node name"),
            Self::Interface => unless(is_interface_name(text), "an interface name"),
            Self::Integer { min, max } => match text.parse::<i64>() {
                Ok(number) if (min..=max).contains(&number) => None,
                Ok(_) => Some(format!("`{shown}` is out of range")),
                Err(_) => Some(format!("`{shown}` is not a whole number")),
            },
            Self::Number => unless(number(text).is_some(), "a number"),
            Self::Share => {
                unless(number(text).is_some_and(|n| (0.0..=1.0).contains(&n)), "a share")
            }
            Self::Bool => unless(matches!(text, "true" | "false"), "a truth value"),
            Self::Time => parsed(text.parse::<SimTime>()),
            Self::Rate if text == "unlimited" => None,
            Self::Rate => parsed(text.parse::<DataRate>()),
            Self::OrNone(_) if text == NONE => None,
            Self::OrNone(scalar) => scalar.complaint(text),
            Self::Bytes => parsed(text.parse::<ByteCount>()),
            Self::Word(words) => {
                (!words.contains(&text)).then(|| format!("unknown value `{shown}`"))
            }
            Self::Mac => parsed(text.parse::<MacAddr>()),
            Self::Ipv4 => parsed(text.parse::<Ipv4Net>()),
            Self::Ipv6 => parsed(text.parse::<Ipv6Net>()),
            Self::Ip => unless(text.parse::<std::net::IpAddr>().is_ok(), "an IP address"),
            Self::Destination if text == "default" => None,
            Self::Destination => parsed(text.parse::<IpNet>()),
            Self::Regex => match Regex::new(text) {
                Ok(_) => None,
                Err(regex::Error::CompiledTooBig(_)) => {
                    Some("the regular expression is too big".to_owned())
                }
                // The reason stands on the last line, below a picture of the pattern.
                Err(error) => {
                    let error = error.to_string();
                    let reason = error.lines().last().unwrap_or_default();
                    let reason = reason.strip_prefix("error: ").unwrap_or(reason);
                    Some(format!("`{shown}` is not a regular expression: {reason}"))
                }
            },
            Self::Pointer => unless(text.is_empty() || text.starts_with('/'), "a JSON pointer"),
            Self::Sync => parsed(text.parse::<SyncPolicy>()),
            Self::Probability => parsed(text.parse::<Probability>()),
            Self::Queue if DISCIPLINES.contains(&text) => None,
            // A word was meant for a discipline.
            Self::Queue if text.starts_with(|c: char| c.is_ascii_alphabetic()) => {
                Some(format!("unknown discipline `{shown}`"))
            }
            Self::Queue | Self::QueueLimit => parse_limit(text).err(),
            Self::Dscp => unless(code_point(text).is_some(), "a code point"),
            Self::Status => unless(text == "any" || text.parse::<u8>().is_ok(), "an exit status"),
        }
    }
}

/// The word that takes a key's value away.
pub(crate) const NONE: &str = "none";

/// A finite number.
pub(crate) fn number(text: &str) -> Option<f64> {
    text.parse::<f64>().ok().filter(|number| number.is_finite())
}

fn is_label(text: &str, allowed: fn(u8) -> bool) -> bool {
    text.len() <= 63
        && text.bytes().next().is_some_and(|b| b.is_ascii_alphanumeric())
        && text.bytes().all(allowed)
}

fn is_host_name(text: &str) -> bool {
    is_label(text, |b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
        && !text.starts_with(|c: char| c.is_ascii_uppercase())
}

/// What Linux accepts, minus what would need quotes in commands.
fn is_interface_name(text: &str) -> bool {
    (1..=15).contains(&text.len())
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b))
        && !matches!(text, "." | ".." | "lo" | "all" | "default")
}

impl Shape {
    /// What is accepted, to follow "expected".
    pub(crate) fn expected(&self) -> String {
        match self {
            Self::Scalar(scalar) => scalar.expected(),
            Self::List(_) => "a list".to_owned(),
            Self::OneOrMany(scalar) => format!("{}, or a list of them", scalar.expected()),
            Self::Position => "a list of two or three numbers, in metres".to_owned(),
            Self::Map { .. } => "a map".to_owned(),
            Self::Object(object) => format!("{} as a map of keys", object.what),
            Self::Either(shapes) => {
                shapes.iter().map(Self::expected).collect::<Vec<_>>().join(", or ")
            }
        }
    }
}
