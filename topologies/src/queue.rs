//! The key `queue` of links.
//!
//! Purpose: from a limit, the name of a discipline or a map to a [`Queue`] with every parameter.
//!
//! Assumptions: where the file says nothing, a queue holds one bandwidth-delay product of the link
//! in frames of full size, and never less than [`LEAST_FRAMES`]: what a TCP connection needs that
//! has no other delay on its way.
//!
//! Reference: `docs/links.md`, section Queues.

use tapestry_core::{ByteCount, DataRate, Probability, SimTime};

use crate::diagnostics::report;
use crate::keys;
use crate::read::{Reader, one_or_many};
use crate::resolved::{Codel, FqCodel, Pie, Queue, QueueClass, QueueLimit, Red, RedUnit};
use crate::shape::Scalar;
use crate::source::Span;
use crate::template::has_expression;
use crate::tree::Yaml;

mod dscp;

pub(crate) use dscp::{CODE_POINTS, code_point};

/// Names of the disciplines.
pub(crate) const DISCIPLINES: &[&str] =
    &["drop-tail", "red", "codel", "fq-codel", "pie", "priority", "drr"];
/// ns-3's default, and the least a queue holds unless the file says so.
const LEAST_FRAMES: u64 = 100;
/// The most it may hold.
pub(crate) const MOST_FRAMES: u64 = 1_000_000;
/// Ethernet header and frame check sequence, which the MTU does not count.
const FRAMING_BYTES: u64 = 18;
const HEADER_BYTES: u64 = 14;

/// What the other keys of a direction say, as far as its queue depends on them.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Medium {
    pub(crate) rate: Option<DataRate>,
    /// The delays of both directions.
    pub(crate) round_trip: SimTime,
    pub(crate) mtu: u32,
}

/// Which keys go with which discipline; `discipline` and `limit` are left out.
fn keys_of(discipline: &str) -> &'static [&'static str] {
    match discipline {
        "red" => &[
            "limit",
            "min",
            "max",
            "max_probability",
            "weight",
            "mean_frame",
            "gentle",
            "adaptive",
            "target",
            "ecn",
        ],
        "codel" => &["limit", "target", "interval", "ecn"],
        "fq-codel" => &["limit", "target", "interval", "ecn", "flows", "quantum"],
        "pie" => &[
            "limit",
            "target",
            "update",
            "burst",
            "alpha",
            "beta",
            "ecn",
            "ecn_limit",
            "derandomise",
        ],
        "priority" => &["limit", "classes"],
        "drr" => &["limit", "classes", "quantum"],
        _ => &["limit"],
    }
}

/// The queue that a file without `queue` means.
pub(crate) fn default_limit(medium: Medium) -> QueueLimit {
    let Some(rate) = medium.rate else { return QueueLimit::Frames(LEAST_FRAMES as u32) };
    let round_trip = u128::from(medium.round_trip.as_nanos());
    let bits = u128::from(rate.bits_per_sec()) * round_trip / 1_000_000_000;
    let frame_bits = u128::from(u64::from(medium.mtu) + FRAMING_BYTES) * 8;
    let frames = bits.div_ceil(frame_bits).clamp(LEAST_FRAMES.into(), MOST_FRAMES.into());
    QueueLimit::Frames(frames as u32)
}

/// Reads the value of `queue`; what is wrong is recorded, and a default stands for it.
pub(crate) fn read(reader: &mut Reader<'_>, yaml: Option<&Yaml>, medium: Medium) -> Queue {
    let drop_tail = Queue::DropTail { limit: default_limit(medium) };
    let Some(yaml) = yaml else { return drop_tail };
    if yaml.map().is_some() {
        return QueueReader { reader, yaml, medium }.read();
    }
    let Some(text) = reader.checked(yaml, Scalar::Queue, "queue") else { return drop_tail };
    if DISCIPLINES.contains(&text.as_str()) {
        QueueReader { reader, yaml, medium }.discipline(&text)
    } else {
        let limit = parse_limit(&text).unwrap_or_else(|_| default_limit(medium));
        check_limit(reader, yaml.span, limit, medium);
        Queue::DropTail { limit }
    }
}

/// A limit as a file writes it: frames, a size or a time. `Err` says what is wrong.
pub(crate) fn parse_limit(text: &str) -> Result<QueueLimit, String> {
    let shown = crate::diagnostics::excerpt(text);
    let limit = if let Ok(frames) = text.parse::<i64>() {
        match u32::try_from(frames) {
            Ok(frames) if u64::from(frames) <= MOST_FRAMES => QueueLimit::Frames(frames),
            _ => return Err(format!("`{shown}` is out of range")),
        }
    } else if let Ok(bytes) = text.parse::<ByteCount>() {
        QueueLimit::Bytes(bytes)
    } else if let Ok(time) = text.parse::<SimTime>() {
        QueueLimit::Time(time)
    } else {
        return Err(format!("`{shown}` is no length of a queue"));
    };
    match limit {
        QueueLimit::Frames(0) | QueueLimit::Time(SimTime::ZERO) => {}
        QueueLimit::Bytes(bytes) if bytes.as_bytes() == 0 => {}
        _ => return Ok(limit),
    }
    Err(format!("a queue of `{shown}` holds nothing"))
}

/// A limit in time needs a rate to be a number of bytes.
fn check_limit(reader: &mut Reader<'_>, span: Span, limit: QueueLimit, medium: Medium) {
    if let (QueueLimit::Time(_), None) = (limit, medium.rate) {
        let wrong = report("a queue with a limit in time is on a link without `rate`");
        let wrong = wrong.expected("expected frames, a size, or a `rate` on the link");
        reader.problems.add(span, wrong);
    }
}

/// Reads a map.
struct QueueReader<'r, 'p, 'y> {
    reader: &'r mut Reader<'p>,
    yaml: &'y Yaml,
    medium: Medium,
}

impl QueueReader<'_, '_, '_> {
    fn read(&mut self) -> Queue {
        let written = self.yaml.get("discipline");
        let word = Scalar::Word(DISCIPLINES);
        let name = match written {
            Some(yaml) => self.reader.checked(yaml, word, "discipline"),
            None => Some("drop-tail".to_owned()),
        };
        // Its keys cannot be judged.
        let Some(name) = name else {
            return Queue::DropTail { limit: default_limit(self.medium) };
        };
        // A discipline that is computed is written for several.
        let computed = written.and_then(Yaml::scalar).is_some_and(has_expression);
        if !computed {
            self.refuse_foreign_keys(&name);
        }
        self.discipline(&name)
    }

    fn refuse_foreign_keys(&mut self, name: &str) {
        let own = keys_of(name);
        for entry in self.yaml.map().unwrap_or_default() {
            let key = entry.key.as_str();
            if key != "discipline" && !own.contains(&key) && keys::QUEUE.key(key).is_some() {
                let wrong = report(format!("`{key}` is no parameter of `{name}`"));
                let wrong = wrong.expected(format!("expected a parameter of `{name}`"));
                let help = match own {
                    [] => "it has none".to_owned(),
                    own => format!("it has {}", list(own)),
                };
                self.reader.problems.add(entry.key_span, wrong.help(help));
            }
        }
    }

    fn discipline(&mut self, name: &str) -> Queue {
        match name {
            "red" => Queue::Red(self.red()),
            "codel" => Queue::Codel(self.codel(QueueLimit::Frames(1_000), false)),
            "fq-codel" => Queue::FqCodel(FqCodel {
                codel: self.codel(QueueLimit::Frames(10_240), true),
                flows: self.get("flows", Scalar::Integer { min: 1, max: 65_536 }).unwrap_or(1_024),
                quantum: self.quantum(self.yaml),
            }),
            "pie" => Queue::Pie(self.pie()),
            "priority" => Queue::Priority { classes: self.classes() },
            "drr" => Queue::Drr { classes: self.classes() },
            _ => Queue::DropTail { limit: self.limit(self.yaml, default_limit(self.medium)) },
        }
    }

    fn get<T: std::str::FromStr>(&mut self, key: &str, scalar: Scalar) -> Option<T> {
        let yaml = self.yaml.get(key)?;
        self.reader.parsed(yaml, scalar, key)
    }

    fn flag(&mut self, key: &str, default: bool) -> bool {
        self.get(key, Scalar::Bool).unwrap_or(default)
    }

    fn limit(&mut self, yaml: &Yaml, default: QueueLimit) -> QueueLimit {
        let Some(yaml) = yaml.get("limit") else { return default };
        let Some(text) = self.reader.checked(yaml, Scalar::QueueLimit, "limit") else {
            return default;
        };
        let limit = parse_limit(&text).unwrap_or(default);
        check_limit(self.reader, yaml.span, limit, self.medium);
        limit
    }

    fn quantum(&mut self, yaml: &Yaml) -> ByteCount {
        let default = ByteCount::from_bytes(u64::from(self.medium.mtu) + HEADER_BYTES);
        let Some(yaml) = yaml.get("quantum") else { return default };
        let quantum: Option<ByteCount> = self.reader.parsed(yaml, Scalar::Bytes, "quantum");
        let (least, most) = (64, 1 << 30);
        if quantum.is_some_and(|quantum| !(least..=most).contains(&quantum.as_bytes())) {
            let wrong = report("a quantum of that size makes no turns");
            self.reader.problems.add(yaml.span, wrong.expected("expected a size from 64B to 1GiB"));
        }
        quantum.unwrap_or(default)
    }

    /// A time that is not zero.
    fn time(&mut self, key: &str, default_ms: u64) -> SimTime {
        let time = self.get(key, Scalar::Time);
        if time == Some(SimTime::ZERO) {
            self.refuse(key, format!("`{key}` is zero"), "expected a time above zero");
        }
        time.unwrap_or(SimTime::from_millis(default_ms))
    }

    /// A probability that is not zero.
    fn probability(&mut self, key: &str, default: f64) -> Probability {
        let probability = self.get(key, Scalar::Probability);
        if probability == Some(Probability::ZERO) {
            self.refuse(key, format!("`{key}` is zero"), "expected a probability above 0%");
        }
        probability.unwrap_or_else(|| Probability::from_f64(default).unwrap_or_default())
    }

    fn refuse(&mut self, key: &str, message: String, expected: &str) {
        let span = self.yaml.get(key).map_or(self.yaml.span, |yaml| yaml.span);
        self.reader.problems.add(span, report(message).expected(expected));
    }

    fn codel(&mut self, limit: QueueLimit, ecn: bool) -> Codel {
        let codel = Codel {
            limit: self.limit(self.yaml, limit),
            target: self.time("target", 5),
            interval: self.time("interval", 100),
            ecn: self.flag("ecn", ecn),
        };
        if codel.target >= codel.interval {
            let (target, interval) = (codel.target, codel.interval);
            let message = format!("the target {target} is not below the interval {interval}");
            let key = if self.yaml.get("target").is_some() { "target" } else { "interval" };
            self.refuse(key, message, "expected `target` below `interval`");
        }
        codel
    }

    fn pie(&mut self) -> Pie {
        let gain = |this: &mut Self, key, default| {
            let gain: Option<f64> = this.get(key, Scalar::Number);
            if gain.is_some_and(|gain| !(0.0..=1e6).contains(&gain)) {
                this.refuse(key, format!("`{key}` is out of range"), "expected 1/s from 0 to 1e6");
            }
            gain.unwrap_or(default)
        };
        Pie {
            limit: self.limit(self.yaml, QueueLimit::Frames(1_000)),
            target: self.time("target", 15),
            update: self.time("update", 15),
            burst: self.get("burst", Scalar::Time).unwrap_or(SimTime::from_millis(150)),
            alpha: gain(self, "alpha", 0.125),
            beta: gain(self, "beta", 1.25),
            ecn: self.flag("ecn", false),
            ecn_limit: self.probability("ecn_limit", 0.1),
            derandomise: self.flag("derandomise", false),
        }
    }

    fn red(&mut self) -> Red {
        let adaptive = self.flag("adaptive", false);
        let mean_frame = self.get("mean_frame", Scalar::Bytes);
        let mean_frame = mean_frame.unwrap_or(ByteCount::from_bytes(1_000));
        if !(1..=65_536).contains(&mean_frame.as_bytes()) {
            let message = "no frame has that mean length".to_owned();
            self.refuse("mean_frame", message, "expected a size from 1B to 64KiB");
        }
        let target = self.time("target", 5);
        // Frames a second that the link sends.
        let capacity = self
            .medium
            .rate
            .map(|rate| rate.bits_per_sec() as f64 / (8.0 * mean_frame.as_bytes().max(1) as f64));
        let (mut min, mut weight) = (5, 0.002);
        if let (true, Some(capacity)) = (adaptive, capacity) {
            // Floyd, Gummadi, Shenker 2001, sections 4.3 and 4.4.
            min = min.max((target.as_secs_f64() * capacity / 2.0) as u64);
            weight = -(-1.0 / capacity).exp_m1();
        }
        let written = ["min", "max"].map(|key| self.threshold(key));
        let in_bytes = written.iter().flatten().any(|(_, in_bytes)| *in_bytes);
        if written.iter().flatten().any(|(_, bytes)| *bytes != in_bytes) {
            let message = "`min` is in another unit than `max`".to_owned();
            self.refuse("max", message, "expected both in frames, or both as sizes");
        }
        if in_bytes {
            min *= mean_frame.as_bytes();
        }
        let min = written[0].map_or(min, |(min, _)| min);
        let max = written[1].map_or(min.saturating_mul(3), |(max, _)| max);
        if min >= max {
            let message = format!("the threshold `min` ({min}) is not below `max` ({max})");
            let key = if written[0].is_some() { "min" } else { "max" };
            self.refuse(key, message, "expected `min` below `max`");
        }
        // Room for the gentle part above `max`.
        let limit = match (default_limit(self.medium), in_bytes) {
            (QueueLimit::Frames(frames), false) => QueueLimit::Frames(
                u64::from(frames).max(max.saturating_mul(3)).min(MOST_FRAMES) as u32,
            ),
            (limit, _) => limit,
        };
        Red {
            limit: self.limit(self.yaml, limit),
            unit: if in_bytes { RedUnit::Bytes } else { RedUnit::Frames },
            min,
            max,
            max_probability: self.probability("max_probability", 0.02),
            weight: self.probability("weight", weight),
            mean_frame,
            gentle: self.flag("gentle", true),
            adaptive,
            ecn: self.flag("ecn", false),
        }
    }

    /// A threshold, and whether it is in bytes.
    fn threshold(&mut self, key: &str) -> Option<(u64, bool)> {
        let yaml = self.yaml.get(key)?;
        let text = self.reader.checked(yaml, Scalar::QueueLimit, key)?;
        match parse_limit(&text).ok()? {
            QueueLimit::Frames(frames) => Some((frames.into(), false)),
            QueueLimit::Bytes(bytes) => Some((bytes.as_bytes(), true)),
            QueueLimit::Time(_) => {
                let message = format!("the threshold `{key}` is a time");
                self.refuse(key, message, "expected frames or a size");
                None
            }
        }
    }

    fn classes(&mut self) -> Vec<QueueClass> {
        let entries = self.yaml.get("classes").and_then(Yaml::list).unwrap_or_default();
        if !(1..=64).contains(&entries.len()) {
            let message = "the discipline has no classes".to_owned();
            let message = if entries.is_empty() { message } else { "too many classes".to_owned() };
            self.refuse("classes", message, "expected `classes:` with a list of 1 to 64");
        }
        let limit = self.limit(self.yaml, default_limit(self.medium));
        let quantum = self.quantum(self.yaml);
        let mut taken = [false; 64];
        let mut rest = None;
        let mut classes = Vec::with_capacity(entries.len());
        for entry in entries {
            let dscp = self.code_points(entry, &mut taken);
            if dscp.is_empty() && entry.get("dscp").is_none() && rest.replace(entry.span).is_some()
            {
                let wrong = report("a second class without `dscp` gets no frames");
                let wrong = wrong.expected("expected `dscp`; one class takes all others");
                self.reader.problems.add(entry.span, wrong);
            }
            classes.push(QueueClass {
                dscp,
                limit: self.limit(entry, limit),
                quantum: if entry.get("quantum").is_some() { self.quantum(entry) } else { quantum },
            });
        }
        classes
    }

    /// The code points of a class, each in one class only.
    fn code_points(&mut self, entry: &Yaml, taken: &mut [bool; 64]) -> Vec<u8> {
        let mut found = Vec::new();
        for yaml in entry.get("dscp").map(one_or_many).unwrap_or_default() {
            let Some(text) = self.reader.checked(yaml, Scalar::Dscp, "dscp") else { continue };
            let Some(dscp) = code_point(&text) else { continue };
            if std::mem::replace(&mut taken[usize::from(dscp)], true) {
                let wrong = report(format!("the code point `{text}` is twice in `classes`"));
                self.reader.problems.add(yaml.span, wrong.expected("expected it in one class"));
            } else {
                found.push(dscp);
            }
        }
        found
    }
}

fn list(words: &[&str]) -> String {
    words.iter().map(|word| format!("`{word}`")).collect::<Vec<_>>().join(", ")
}
