//! What is told about values of a direction that do not fit together.

use tapestry_core::SimTime;
use tapestry_core::link::InvalidParameters;

use crate::diagnostics::{Report, report};
use crate::read::Fields;

/// What is wrong, what is expected, and where a value comes from that does not stand in the link
/// itself: from a preset, from a default, or from the link as it is when it is changed.
pub(super) fn report_of(fields: &Fields<'_>, error: &InvalidParameters) -> Report {
    let message = error.to_string();
    let (wrong, help) = message.split_once("; ").unwrap_or((&message, ""));
    let wrong = report(wrong.to_owned()).expected(format!("expected {}", error.expected()));
    let parts = [origin(fields, error), Some(help.to_owned())];
    let help: Vec<String> = parts.into_iter().flatten().filter(|part| !part.is_empty()).collect();
    if help.is_empty() { wrong } else { wrong.help(help.join("; ")) }
}

/// Where the value comes from, and what to write instead.
fn origin(fields: &Fields<'_>, error: &InvalidParameters) -> Option<String> {
    let key = match error.key() {
        "ecn" => "loss",
        key => key,
    };
    let from_preset = |key| fields.own(key).is_none() && fields.find(key).is_some();
    if let InvalidParameters::JitterBeyondDelay { delay, .. } = error {
        let instead = match *delay {
            SimTime::ZERO => "write `jitter: none`".to_owned(),
            delay => format!("write `jitter: none`, or one of your own such as `jitter: {delay}`"),
        };
        return match () {
            () if from_preset("jitter") => {
                Some(format!("the jitter comes from the preset: {instead}"))
            }
            () if fields.find("jitter").is_none() => {
                Some(format!("the link has this jitter already: {instead}"))
            }
            () if from_preset("delay") => Some("the delay comes from the preset".to_owned()),
            () => None,
        };
    }
    if from_preset(key) {
        return Some(format!(
            "`{key}` comes from the preset: write `{key}: none`, or one of your own"
        ));
    }
    if fields.find(key).is_none() {
        return Some(format!("the link has this `{key}` already; set it, too"));
    }
    default_transition(fields, error)
}

/// Transitions that nobody wrote.
fn default_transition(fields: &Fields<'_>, error: &InvalidParameters) -> Option<String> {
    let transitions = match *error {
        InvalidParameters::Transitions { first, second } => [first, second],
        InvalidParameters::Trapped { transition } => [transition; 2],
        _ => return None,
    };
    let loss = fields.find("loss")?;
    let model = loss.get("four_state").or_else(|| loss.get("gilbert_elliott"))?;
    let default = |transition: &&str| match *transition {
        "p31" => Some("`p31` is not given, and so 100% − `p13`"),
        "r" => Some("`r` is not given, and so 100% − `p`"),
        _ => None,
    };
    let missing = transitions.iter().find(|transition| model.get(transition).is_none())?;
    Some(format!("{}: write it", default(missing)?))
}
