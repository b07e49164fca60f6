//! What a link's keys say about each of its directions.
//!
//! Purpose: from a link, its preset and its direction blocks to [`LinkParameters`], which no model
//! refuses.
//!
//! Assumptions: a key is looked for in the direction's own block, then in the link, then in the
//! preset's block for the direction, then in the preset; the first one counts whole.

mod explain;

use std::path::Path;
use std::str::FromStr;

use tapestry_core::link::{
    BeyondDelay, Chance, CorrelationForm, Corruption, DelayTable, DelayValues, DeliveryTrace,
    Distribution, FileError, Framing, Jitter, LinkParameters, Loss, Reorder, Schedule, Slots,
    TokenBucket, Unit,
};
use tapestry_core::{ByteCount, DataRate, Probability, SimTime};

use crate::diagnostics::report;
use crate::keys::{BITS, CELL_BYTES, FRAMES, LOSSES, MINIMUM_BYTES, OVERHEAD_BYTES, PLAIN};
use crate::read::{Fields, Reader};
use crate::resolved::Channel;
use crate::shape::{NONE, Scalar};
use crate::source::Span;
use crate::tree::Yaml;

/// Whether one of these keys makes a link more than rate and delay.
pub(crate) fn impaired(fields: &Fields<'_>) -> bool {
    let parameters = crate::keys::DIRECTION.keys.iter().map(|key| key.name);
    let is_none = |yaml: &Yaml| yaml.scalar() == Some(NONE);
    parameters
        .filter(|name| !PLAIN.contains(name))
        .any(|name| fields.find(name).is_some_and(|yaml| !is_none(yaml)))
}

/// Reads one direction. What is wrong with a value is recorded, and the value left out.
pub(crate) fn read(
    reader: &mut Reader<'_>,
    fields: &Fields<'_>,
    channel: Channel,
) -> LinkParameters {
    let mut parameters = LinkParameters::default();
    // What says `none` takes away what stands behind it, and is nothing itself.
    let given = |reader: &Reader<'_>, key| fields.find(key).filter(|yaml| !reader.is_none(yaml));
    if let Some(yaml) = fields.find("rate") {
        // `unlimited` is no rate, and so parses to none.
        let rate = reader.checked(yaml, Scalar::Rate, "rate");
        parameters.rate = rate.and_then(|rate| rate.parse::<DataRate>().ok());
    }
    parameters.delay = time(reader, fields, "delay").unwrap_or(SimTime::ZERO);
    if let Some(yaml) = fields.find("overhead") {
        parameters.framing = overhead(reader, yaml, channel).unwrap_or_default();
    }
    let (burst, peak) = (given(reader, "burst"), given(reader, "peak"));
    // Without its burst a preset's peak says nothing.
    let peak = peak.filter(|_| burst.is_some() || fields.own("peak").is_some());
    parameters.bucket = bucket(reader, burst, peak);
    parameters.trace =
        given(reader, "trace").and_then(|yaml| file(reader, yaml, DeliveryTrace::parse));
    parameters.schedule = given(reader, "schedule").and_then(|yaml| schedule(reader, yaml));
    parameters.slots = given(reader, "slot").and_then(|yaml| slots(reader, yaml));
    parameters.jitter = given(reader, "jitter").and_then(|yaml| jitter(reader, yaml));
    parameters.reordering = fields.find("reordering").is_some_and(|yaml| {
        word(reader, yaml, &["preserve", "allow"], "reordering").as_deref() == Some("allow")
    });
    parameters.reorder = given(reader, "reorder").and_then(|yaml| {
        let gap = integer(reader, yaml, "gap", FRAMES, 1);
        Some(Reorder { chance: chance(reader, yaml, "reorder")?, gap })
    });
    if let Some(yaml) = given(reader, "loss") {
        parameters.loss = loss(reader, yaml);
        parameters.ecn = yaml
            .get("ecn")
            .is_some_and(|yaml| reader.parsed(yaml, Scalar::Bool, "ecn") == Some(true));
    }
    parameters.duplicate =
        given(reader, "duplicate").and_then(|yaml| chance(reader, yaml, "duplicate"));
    parameters.corrupt = given(reader, "corrupt").and_then(|yaml| {
        let (per, bits) = (unit(reader, yaml), integer(reader, yaml, "bits", BITS, 1));
        Some(Corruption { chance: chance(reader, yaml, "corrupt")?, per, bits })
    });
    give_way(fields, &mut parameters);
    parameters
}

/// Takes out what a preset says where it cannot stand beside what the user wrote.
fn give_way(fields: &Fields<'_>, parameters: &mut LinkParameters) {
    let own = |key| fields.own(key).is_some();
    if own("rate") && parameters.rate.is_some() && !own("trace") {
        parameters.trace = None;
    }
    if parameters.trace.is_some() && own("trace") {
        if !own("rate") {
            parameters.rate = None;
        }
        if !own("overhead") {
            parameters.framing = Framing::default();
        }
    }
    let no_rate_to_fill = parameters.rate.is_none() || parameters.schedules_rate();
    if no_rate_to_fill && !own("burst") && !own("peak") {
        parameters.bucket = None;
    }
    if let (Some(bucket), Some(rate)) = (&mut parameters.bucket, parameters.rate)
        && !own("peak")
        && bucket.peak.is_some_and(|peak| peak < rate)
    {
        bucket.peak = None;
    }
    if parameters.schedules_loss() && !own("loss") {
        (parameters.loss, parameters.ecn) = (None, false);
    }
}

/// Whether the values of a direction fit together, and to the channel; if not, that is recorded.
pub(crate) fn validate(
    reader: &mut Reader<'_>,
    fields: &Fields<'_>,
    channel: Channel,
    mtu: u32,
    parameters: &LinkParameters,
) -> bool {
    let span = |key: &str| fields.find(key).map(|yaml| yaml.span);
    if channel == Channel::Csma
        && let Some(key) = parameters.refused_on_shared_medium()
        && let Some(span) = span(key)
    {
        let wrong = report(format!("a shared medium has no `{key}`"));
        let help = "use `channel: point-to-point`; a shared medium takes `rate`, `delay`, \
                    `overhead`, `loss`, `duplicate` and `corrupt`";
        reader.problems.add(span, wrong.expected("not on a `csma` channel").help(help));
        return false;
    }
    if let (Some(_), Some(yaml)) = (&parameters.trace, fields.own("overhead"))
        && parameters.framing != Framing::NONE
    {
        let wrong = report("`overhead` has no effect beside `trace`, which counts packets");
        let wrong = wrong.expected("expected no `overhead`, or `overhead: none` in this direction");
        reader.problems.add(yaml.span, wrong);
        return false;
    }
    let Err(error) = parameters.validate(mtu) else { return true };
    let key = error.key();
    let keys = || std::iter::once(key).chain(partners(key).iter().copied());
    // What the user wrote here is nearer than what a preset says.
    let own = keys().find_map(|key| fields.own(key));
    let found = own.or_else(|| keys().find_map(|key| fields.find(key)));
    let Some(yaml) = found else { return true };
    let wrong = explain::report_of(fields, &error);
    reader.problems.add(yaml.span, wrong);
    false
}

/// Keys that may be at fault for what is wrong with another one.
fn partners(key: &str) -> &'static [&'static str] {
    match key {
        "jitter" => &["schedule", "delay"],
        "reorder" => &["delay", "jitter", "schedule"],
        "loss" => &["schedule"],
        "ecn" => &["loss", "schedule"],
        "burst" | "peak" | "trace" => &["burst", "peak", "rate", "schedule", "trace", "overhead"],
        _ => &[],
    }
}

fn time(reader: &mut Reader<'_>, fields: &Fields<'_>, key: &str) -> Option<SimTime> {
    fields.find(key).and_then(|yaml| reader.parsed(yaml, Scalar::Time, key))
}

fn word(
    reader: &mut Reader<'_>,
    yaml: &Yaml,
    words: &'static [&'static str],
    key: &str,
) -> Option<String> {
    reader.checked(yaml, Scalar::Word(words), key)
}

/// A whole number within a map.
fn integer<T: FromStr>(
    reader: &mut Reader<'_>,
    yaml: &Yaml,
    key: &str,
    scalar: Scalar,
    default: T,
) -> T {
    yaml.get(key).and_then(|yaml| reader.parsed(yaml, scalar, key)).unwrap_or(default)
}

fn probability(reader: &mut Reader<'_>, yaml: &Yaml, key: &str) -> Option<Probability> {
    yaml.get(key).and_then(|yaml| reader.parsed(yaml, Scalar::Probability, key))
}

fn overhead(reader: &mut Reader<'_>, yaml: &Yaml, channel: Channel) -> Option<Framing> {
    if yaml.map().is_some() {
        return Some(Framing {
            overhead_bytes: integer(reader, yaml, "frame_bytes", OVERHEAD_BYTES, 0),
            min_wire_bytes: integer(reader, yaml, "minimum_bytes", MINIMUM_BYTES, 0),
            cell_bytes: integer(reader, yaml, "cell_bytes", CELL_BYTES, 0),
            cell_overhead_bytes: integer(reader, yaml, "cell_overhead_bytes", OVERHEAD_BYTES, 0),
        });
    }
    let names = &["ns-3", "ethernet", "atm", "none"];
    Some(match word(reader, yaml, names, "overhead")?.as_str() {
        // The gap after a frame is the channel's own there.
        "ethernet" if channel == Channel::Csma => {
            Framing { overhead_bytes: 12, min_wire_bytes: 72, ..Framing::NONE }
        }
        "ethernet" => Framing::ETHERNET_WIRE,
        "atm" => Framing::ATM,
        "none" => Framing::NONE,
        _ => Framing::ETHERNET,
    })
}

/// Of no burst that was read: a peak alone.
const NO_BURST: ByteCount = ByteCount::from_bytes(0);

fn bucket(
    reader: &mut Reader<'_>,
    burst: Option<&Yaml>,
    peak: Option<&Yaml>,
) -> Option<TokenBucket> {
    let burst = burst.map(|yaml| {
        let burst: ByteCount = reader.parsed(yaml, Scalar::Bytes, "burst")?;
        Some(burst)
    });
    let peak =
        peak.and_then(|yaml| reader.checked(yaml, Scalar::Rate, "peak")?.parse::<DataRate>().ok());
    match (burst, peak) {
        (None, None) => None,
        (None, peak) => Some(TokenBucket { burst: NO_BURST, peak }),
        (Some(burst), peak) => Some(TokenBucket { burst: burst?, peak }),
    }
}

fn schedule(reader: &mut Reader<'_>, yaml: &Yaml) -> Option<Schedule> {
    let mut schedule = file(reader, yaml.get("file").unwrap_or(yaml), Schedule::parse)?;
    if let Some(yaml) = yaml.get("repeat") {
        let repeat: SimTime = reader.parsed(yaml, Scalar::Time, "repeat")?;
        let last = schedule.steps.last().map_or(SimTime::ZERO, |step| step.time);
        if repeat <= last {
            let wrong = format!("the schedule begins anew at {repeat}, before its step at {last}");
            reader
                .problems
                .add(yaml.span, report(wrong).expected(format!("expected a time after {last}")));
            return None;
        }
        schedule.repeat = Some(repeat);
    }
    Some(schedule)
}

fn slots(reader: &mut Reader<'_>, yaml: &Yaml) -> Option<Slots> {
    if yaml.map().is_none() {
        let time = reader.parsed(yaml, Scalar::Time, "slot")?;
        return Some(Slots { min: time, max: time, frames: None, bytes: None });
    }
    let min: SimTime = reader.parsed(yaml.get("min")?, Scalar::Time, "min")?;
    let max = yaml.get("max").and_then(|yaml| reader.parsed(yaml, Scalar::Time, "max"));
    let frames = yaml.get("frames").map(|_| integer(reader, yaml, "frames", FRAMES, 1));
    let bytes = yaml.get("bytes").and_then(|yaml| reader.parsed(yaml, Scalar::Bytes, "bytes"));
    Some(Slots { min, max: max.unwrap_or(min), frames, bytes })
}

fn jitter(reader: &mut Reader<'_>, yaml: &Yaml) -> Option<Jitter> {
    if yaml.map().is_none() {
        return Some(Jitter::uniform(reader.parsed(yaml, Scalar::Time, "jitter")?));
    }
    let time = yaml.get("time").and_then(|yaml| reader.parsed(yaml, Scalar::Time, "time"));
    let words = &["uniform", "normal", "pareto", "pareto-normal"];
    let named = yaml.get("distribution").and_then(|yaml| word(reader, yaml, words, "distribution"));
    let table = yaml.get("table");
    if let (Some(_), Some(table)) = (&named, table) {
        let wrong = report("a jitter has a `distribution` or a `table`, not both");
        reader.problems.add(table.span, wrong.expected("expected only one of them"));
        return None;
    }
    let distribution = match (named.as_deref(), table) {
        (Some("normal"), _) => Distribution::Normal,
        (Some("pareto"), _) => Distribution::Pareto,
        (Some("pareto-normal"), _) => Distribution::ParetoNormal,
        (None, Some(table)) => file(reader, table, |text| {
            // netem's tables have no commas.
            let lines = || text.trim_start_matches('\u{feff}').lines().map(str::trim_start);
            if lines().any(|line| !line.starts_with('#') && line.contains(',')) {
                DelayValues::parse(text).map(Distribution::Values)
            } else {
                DelayTable::parse(text).map(Distribution::Table)
            }
        })?,
        _ => Distribution::Uniform,
    };
    let times_itself = matches!(distribution, Distribution::Values(_));
    if yaml.get("time").is_some() == times_itself {
        let wrong = if times_itself {
            "a table of times needs no `time`"
        } else {
            "a jitter needs the key `time`"
        };
        let at = yaml.get("time").unwrap_or(yaml);
        reader
            .problems
            .add(at.span, report(wrong).expected("expected `time` unless `table` has times"));
        return None;
    }
    let correlation = probability(reader, yaml, "correlation").unwrap_or_default();
    let beyond = yaml
        .get("beyond_delay")
        .and_then(|yaml| word(reader, yaml, &["error", "clamp"], "beyond_delay"));
    if let (true, Some(yaml)) = (times_itself, yaml.get("beyond_delay")) {
        let wrong = report("`beyond_delay` has no effect: a table of times only adds to the delay");
        reader.problems.add(yaml.span, wrong.expected("not with this table"));
        return None;
    }
    let beyond_delay = match beyond.as_deref() {
        Some("clamp") => BeyondDelay::Clamp,
        _ => BeyondDelay::Error,
    };
    Some(Jitter { time: time.unwrap_or(SimTime::ZERO), distribution, correlation, beyond_delay })
}

/// A probability alone, or a map with one.
fn chance(reader: &mut Reader<'_>, yaml: &Yaml, key: &str) -> Option<Chance> {
    if yaml.map().is_none() {
        let probability = reader.parsed(yaml, Scalar::Probability, key)?;
        return Some(Chance::independent(probability));
    }
    let form = yaml.get("form").and_then(|yaml| word(reader, yaml, &["markov", "netem"], "form"));
    let correlation = probability(reader, yaml, "correlation").unwrap_or_default();
    let form = match form.as_deref() {
        Some("netem") => CorrelationForm::Netem,
        _ => CorrelationForm::Markov,
    };
    Some(Chance { probability: probability(reader, yaml, "probability")?, correlation, form })
}

fn unit(reader: &mut Reader<'_>, yaml: &Yaml) -> Unit {
    let word =
        yaml.get("per").and_then(|yaml| word(reader, yaml, &["frame", "byte", "bit"], "per"));
    match word.as_deref() {
        Some("byte") => Unit::Byte,
        Some("bit") => Unit::Bit,
        _ => Unit::Frame,
    }
}

fn loss(reader: &mut Reader<'_>, yaml: &Yaml) -> Option<Loss> {
    let models: Vec<&Yaml> = LOSSES.iter().filter_map(|key| yaml.get(key)).collect();
    if yaml.map().is_some() && models.len() != 1 {
        let words: Vec<String> = LOSSES.iter().map(|word| format!("`{word}`")).collect();
        let wrong = report(format!("a loss has one model, found {}", models.len()));
        let at = models.last().map_or(yaml.span, |yaml| yaml.span);
        reader.problems.add(at, wrong.expected(format!("expected one of {}", words.join(", "))));
        return None;
    }
    if yaml.get("probability").is_none()
        && let Some(key) = ["correlation", "form", "per"].iter().find(|key| yaml.get(key).is_some())
    {
        let wrong = report(format!("`{key}` belongs to a `probability`"));
        let at = yaml.get(key).map_or(yaml.span, |yaml| yaml.span);
        reader.problems.add(at, wrong.expected("not with this model"));
        return None;
    }
    let rest = |of: Probability| Probability::from_f64(1.0 - of.as_f64()).unwrap_or_default();
    if let Some(yaml) = yaml.get("gilbert_elliott") {
        let p = probability(reader, yaml, "p")?;
        return Some(Loss::GilbertElliott {
            p,
            r: probability(reader, yaml, "r").unwrap_or(rest(p)),
            bad: probability(reader, yaml, "bad").unwrap_or(Probability::ONE),
            good: probability(reader, yaml, "good").unwrap_or_default(),
        });
    }
    if let Some(yaml) = yaml.get("four_state") {
        let p13 = probability(reader, yaml, "p13")?;
        return Some(Loss::FourState {
            p13,
            p31: probability(reader, yaml, "p31").unwrap_or(rest(p13)),
            p32: probability(reader, yaml, "p32").unwrap_or_default(),
            p23: probability(reader, yaml, "p23").unwrap_or(Probability::ONE),
            p14: probability(reader, yaml, "p14").unwrap_or_default(),
        });
    }
    if let Some(yaml) = yaml.get("burst") {
        let rate = probability(reader, yaml, "rate")?;
        let min = integer(reader, yaml, "min", FRAMES, 1);
        // A long shortest burst needs no word about the longest one.
        let max = integer(reader, yaml, "max", FRAMES, min.max(4));
        return Some(Loss::Burst { rate, min, max });
    }
    if let Some(yaml) = yaml.get("frames") {
        let scalar = Scalar::Integer { min: 1, max: i64::MAX };
        let mut frames: Vec<u64> =
            reader.many(yaml, scalar, "frames").into_iter().map(|(frame, _)| frame).collect();
        frames.sort_unstable();
        frames.dedup();
        return Some(Loss::Frames(frames));
    }
    let per = unit(reader, yaml);
    Some(Loss::Random { chance: chance(reader, yaml, "loss")?, per })
}

/// Reads a file that a key names, relative to the file in which the key stands.
fn file<T>(
    reader: &mut Reader<'_>,
    yaml: &Yaml,
    parse: impl FnOnce(&str) -> Result<T, FileError>,
) -> Option<T> {
    let written = reader.text(yaml)?;
    let problems = &mut *reader.problems;
    let base = problems.sources.file(yaml.span.file).dir.clone();
    let path = base.join(Path::new(&written));
    let name = path.display().to_string();
    let fail =
        |wrong: String, expected: &str| (report(wrong).expected(expected.to_owned()), yaml.span);
    let (wrong, span) = match crate::files::read(&path).map(String::from_utf8) {
        Err(reason) => fail(format!("cannot read `{name}`: {reason}"), "named here"),
        Ok(Err(_)) => fail(format!("`{name}` is not UTF-8 text"), "named here"),
        Ok(Ok(text)) => match parse(&text) {
            Ok(value) => return Some(value),
            Err(FileError::Line(line)) => {
                let file = problems.sources.add_once(&name, &text);
                let (start, end) = (line.offset, line.offset + line.found.len());
                let found = crate::diagnostics::excerpt(&line.found);
                let wrong = report(format!("`{found}` is wrong in line {} of `{name}`", line.line));
                let expected = format!("expected {}", line.expected);
                (wrong.expected(expected), Span { file, start, end })
            }
            Err(error) => {
                let error = error.to_string();
                let (wrong, expected) = error.split_once("; ").unwrap_or((&error, ""));
                fail(format!("`{name}`: {wrong}"), expected)
            }
        },
    };
    problems.add(span, wrong);
    None
}
