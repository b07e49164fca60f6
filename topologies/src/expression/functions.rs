//! The functions of expressions.
//!
//! Assumptions: numbers are finite where they come in; what goes out is checked by the caller.

use std::collections::HashMap;
use std::sync::Arc;

use minijinja as mj;
use minijinja::value::Rest;

use crate::diagnostics::excerpt;
use crate::hosts::Doubts;

/// The functions an expression may call, with what they do.
pub const FUNCTIONS: &[(&str, &str)] = &[
    ("min", "smallest of its numbers"),
    ("max", "largest of its numbers"),
    ("abs", "absolute value"),
    ("round", "nearest integer; with a second argument, that many decimal places"),
    ("floor", "largest integer not above"),
    ("ceil", "smallest integer not below"),
    ("sqrt", "square root"),
    ("log10", "decimal logarithm"),
    ("ln", "natural logarithm"),
    ("exp", "power of e"),
    ("len", "length of a text in characters"),
    ("int", "a number or text as an integer, cut towards zero"),
    ("float", "a number or text as a float"),
    ("str", "a value as text"),
    (
        "ipv4",
        "`ipv4(node)` or `ipv4(node, interface)`: the IPv4 address, without prefix length (commands only)",
    ),
    ("ipv6", "the same for IPv6 (commands only)"),
    ("mac", "the same for the hardware address (commands only)"),
];

/// Addresses of one named interface, for `ipv4()`, `ipv6()` and `mac()`.
#[derive(Debug, Clone, Default)]
pub(crate) struct InterfaceAddresses {
    pub(crate) interface: String,
    pub(crate) ipv4: Option<String>,
    pub(crate) ipv6: Option<String>,
    pub(crate) mac: Option<String>,
}

/// Addresses of one node.
#[derive(Debug, Clone, Default)]
pub(crate) struct Addresses {
    pub(crate) interfaces: Vec<InterfaceAddresses>,
    /// Whether something about its addresses could not be read, so that one it lacks is no mistake
    /// of whoever asks.
    pub(crate) doubtful: bool,
}

/// What the address functions know.
#[derive(Debug, Clone, Default)]
pub(crate) struct Directory {
    pub(crate) nodes: HashMap<String, Addresses>,
    /// Names that may be nodes.
    pub(crate) doubts: Doubts,
}

/// The reason of an address function that cannot answer for want of what could not be read.
pub(super) const UNDETERMINED: &str = "undetermined";

type Field = fn(&InterfaceAddresses) -> Option<&String>;

/// Adds all of [`FUNCTIONS`]; the address functions fail without a directory.
pub(super) fn add(env: &mut mj::Environment<'_>, directory: Option<&Arc<Directory>>) {
    env.add_function("min", |numbers: Rest<mj::Value>| extreme(&numbers, |a, b| a < b));
    env.add_function("max", |numbers: Rest<mj::Value>| extreme(&numbers, |a, b| a > b));
    env.add_function("abs", |value: mj::Value| {
        match value.as_i64().filter(|_| value.is_integer()) {
            Some(integer) => Ok(mj::Value::from(integer.saturating_abs())),
            None => number(&value).map(|number| mj::Value::from(number.abs())),
        }
    });
    env.add_function("round", |value: mj::Value, places: Option<i32>| {
        let number = number(&value)?;
        Ok::<_, mj::Error>(match places {
            None => whole(number.round()),
            Some(places) => {
                let scale = 10_f64.powi(places.clamp(-300, 300));
                mj::Value::from((number * scale).round() / scale)
            }
        })
    });
    env.add_function("floor", |value: mj::Value| number(&value).map(|n| whole(n.floor())));
    env.add_function("ceil", |value: mj::Value| number(&value).map(|n| whole(n.ceil())));
    env.add_function("sqrt", |value: mj::Value| number(&value).map(f64::sqrt));
    env.add_function("log10", |value: mj::Value| number(&value).map(f64::log10));
    env.add_function("ln", |value: mj::Value| number(&value).map(f64::ln));
    env.add_function("exp", |value: mj::Value| number(&value).map(f64::exp));
    env.add_function("len", |value: mj::Value| {
        value
            .as_str()
            .map(|text| text.chars().count() as u64)
            .ok_or_else(|| wrong("a text", &value))
    });
    env.add_function("int", |value: mj::Value| match value.as_str() {
        Some(text) => {
            text.trim().parse::<i64>().map(mj::Value::from).map_err(|_| wrong("a number", &value))
        }
        None => number(&value).map(|number| whole(number.trunc())),
    });
    env.add_function("float", |value: mj::Value| match value.as_str() {
        Some(text) => text.trim().parse::<f64>().map_err(|_| wrong("a number", &value)),
        None => number(&value),
    });
    env.add_function("str", |value: mj::Value| value.to_string());
    let fields: [(&str, Field); 3] = [
        ("ipv4", |interface| interface.ipv4.as_ref()),
        ("ipv6", |interface| interface.ipv6.as_ref()),
        ("mac", |interface| interface.mac.as_ref()),
    ];
    for (name, field) in fields {
        let directory = directory.cloned();
        env.add_function(name, move |node: String, interface: Option<String>| {
            address(directory.as_deref(), name, &node, interface.as_deref(), field)
        });
    }
}

fn address(
    directory: Option<&Directory>,
    what: &str,
    node: &str,
    interface: Option<&str>,
    field: Field,
) -> Result<String, mj::Error> {
    let fail = |reason: String| mj::Error::new(mj::ErrorKind::InvalidOperation, reason);
    let Some(directory) = directory else {
        return Err(fail(format!("`{what}()` is known only in commands")));
    };
    let Some(addresses) = directory.nodes.get(node) else {
        let doubtful = directory.doubts.cover(node);
        let unknown = || format!("there is no node `{}`", excerpt(node));
        return Err(fail(if doubtful { UNDETERMINED.to_owned() } else { unknown() }));
    };
    addresses
        .interfaces
        .iter()
        .filter(|entry| interface.is_none_or(|name| entry.interface == name))
        .find_map(field)
        .cloned()
        .ok_or_else(|| match interface {
            _ if addresses.doubtful => fail(UNDETERMINED.to_owned()),
            Some(interface) => {
                let interface = excerpt(interface);
                fail(format!("`{interface}` of node `{node}` has no {what} address"))
            }
            None => fail(format!("node `{node}` has no {what} address")),
        })
}

fn wrong(expected: &str, value: &mj::Value) -> mj::Error {
    let reason = format!("expected {expected}, found {}", value.kind());
    mj::Error::new(mj::ErrorKind::InvalidOperation, reason)
}

fn number(value: &mj::Value) -> Result<f64, mj::Error> {
    if !value.is_number() {
        return Err(wrong("a number", value));
    }
    f64::try_from(value.clone())
}

/// A float without fraction as an integer where it fits.
fn whole(number: f64) -> mj::Value {
    // 2⁵³: up to here every integer is a float and the cast is exact.
    const EXACT: f64 = 9_007_199_254_740_992.0;
    if number.abs() <= EXACT { mj::Value::from(number as i64) } else { mj::Value::from(number) }
}

fn extreme(numbers: &[mj::Value], better: fn(f64, f64) -> bool) -> Result<mj::Value, mj::Error> {
    let mut best: Option<(f64, &mj::Value)> = None;
    for value in numbers {
        let number = number(value)?;
        if best.is_none_or(|(best, _)| better(number, best)) {
            best = Some((number, value));
        }
    }
    best.map(|(_, value)| value.clone()).ok_or_else(|| {
        mj::Error::new(mj::ErrorKind::MissingArgument, "it needs at least one number")
    })
}
