//! The plan file: what a campaign varies, how often it runs each point, and in which order.
//!
//! Purpose: from a path to a [`Plan`] whose every name means something: factors are parameters of
//! the topology, their levels have the parameters' types, metrics are metrics of the topology. It
//! stands beside the topology file because both are read by the same tables and give the same
//! diagnostics; which points a design has and when they run is the campaign's affair.
//!
//! Assumptions: whether the topology is valid at points other than the first is for whoever makes the
//! points to see.
//!
//! Reference: `docs/campaigns.md`.

mod read;

use std::path::{Path, PathBuf};

use indexmap::IndexMap;
use serde::{Deserialize, Serialize};
use tapestry_core::{ByteCount, DataRate, SimTime};

use crate::diagnostics::{Diagnostics, Problems};
use crate::expression::Value;

/// A plan in which every name means something.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Plan {
    /// Name of the campaign.
    pub name: String,
    /// Free text for people.
    pub description: String,
    /// The topology file, as a path from the working directory.
    pub topology: PathBuf,
    /// How time passes.
    pub time: Time,
    /// Parameters that are the same in all runs.
    pub params: IndexMap<String, Value>,
    /// Parameters that vary.
    pub factors: IndexMap<String, Levels>,
    /// How levels are combined.
    pub design: Design,
    /// Runs of each point; with a stop rule the most.
    pub replicates: u32,
    /// When a point has runs enough.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stop: Option<StopRule>,
    /// Order of points within a block.
    pub order: Order,
    /// Runs before the first, which count nowhere.
    pub warm_up: u32,
    /// The number from which all seeds follow.
    pub seed: u64,
    /// Longest time of a run, by the wall clock.
    pub time_limit: SimTime,
    /// How often an invalid run is repeated.
    pub retries: u32,
    /// What stays of run directories.
    pub keep: Keep,
    /// Hop-packets per second that a run asks for: an expression over parameters, without `${}`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub load: Option<String>,
    /// What the report shows.
    pub report: ReportOptions,
}

/// How time passes in the runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Time {
    /// The wall clock.
    Realtime,
    /// As simulations.
    Virtual,
}

/// The levels of a factor.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Levels {
    /// Written out; never empty, no level twice.
    List(Vec<Value>),
    /// Computed.
    Range(Range),
}

/// Levels between two numbers.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Range {
    /// The lowest.
    pub from: f64,
    /// The highest.
    pub to: f64,
    /// How many there are, at least 1; a Latin hypercube has as many as points and leaves this 0.
    pub count: u32,
    /// Whether the distance between levels is a factor instead of a difference.
    pub log: bool,
    /// Whether levels are rounded to whole numbers.
    pub whole: bool,
    /// Significant digits of levels between the ends: of each on a log scale, of the range's width
    /// on a linear one.
    #[serde(default = "exact")]
    pub digits: u32,
    /// Unit appended to the numbers; with it levels are texts.
    pub unit: String,
}

impl Range {
    /// The level at a share (0–1) of the way from the lowest to the highest.
    pub fn at(&self, share: f64) -> Value {
        let Self { from, to, .. } = *self;
        let number = if share <= 0.0 {
            from
        } else if share >= 1.0 {
            to
        } else if self.log {
            from * (to / from).powf(share)
        } else {
            from + (to - from) * share
        };
        // The ends are as they were given; ten digits hide what binary fractions add to `0.1 + 0.2`.
        let number =
            if share <= 0.0 || share >= 1.0 { significant(number, 10) } else { self.round(number) };
        let number = if self.whole { number.round() } else { number };
        let is_whole = number.fract() == 0.0 && number.abs() < 9e15;
        let value = if is_whole { Value::Int(number as i64) } else { Value::Float(number) };
        if self.unit.is_empty() { value } else { Value::Text(format!("{value}{}", self.unit)) }
    }
}

/// Digits of levels that are steps of a range: as many as they need.
pub(crate) const EXACT: u32 = 10;
/// Digits of levels that are computed, unless the plan says otherwise.
pub(crate) const COMPUTED: u32 = 4;

fn exact() -> u32 {
    EXACT
}

impl Range {
    /// A level between the ends, as fine as `digits` say and the unit can hold.
    fn round(&self, number: f64) -> f64 {
        let exponent = |number: f64| number.abs().log10().floor() as i32;
        let width = exponent(self.to - self.from);
        let widest = if self.log { width.min(exponent(number)) } else { width };
        let finest = self.finest().unwrap_or(i32::MIN);
        let last = widest.saturating_add(1).saturating_sub_unsigned(self.digits).max(finest);
        let places = usize::try_from(-last).unwrap_or(0);
        if last > 0 {
            let scale = 10_f64.powi(last);
            return (number / scale).round() * scale;
        }
        format!("{number:.places$}").parse().unwrap_or(number)
    }

    /// The power of ten below which the topology's quantities in this unit end: a time in `ms` has
    /// six decimals. None for other units.
    fn finest(&self) -> Option<i32> {
        let one = format!("1{}", self.unit);
        let worth = one
            .parse::<SimTime>()
            .map(SimTime::as_nanos)
            .or_else(|_| one.parse::<DataRate>().map(DataRate::bits_per_sec))
            .or_else(|_| one.parse::<ByteCount>().map(ByteCount::as_bytes))
            .ok()?;
        (!self.unit.is_empty()).then(|| -(worth.ilog10().cast_signed()))
    }
}

/// A number rounded to so many significant digits.
fn significant(number: f64, digits: usize) -> f64 {
    format!("{number:.*e}", digits - 1).parse().unwrap_or(number)
}

impl Levels {
    /// The levels in order, each once.
    pub fn all(&self) -> Vec<Value> {
        match self {
            Self::List(levels) => levels.clone(),
            Self::Range(range) => {
                let last = f64::from(range.count.max(2) - 1);
                let mut levels: Vec<Value> =
                    (0..range.count.max(1)).map(|at| range.at(f64::from(at) / last)).collect();
                // Rounding may make neighbours equal.
                levels.dedup();
                levels
            }
        }
    }

    /// The level at a share (0 ≤ share < 1) of the way through them.
    pub fn at(&self, share: f64) -> Value {
        match self {
            Self::List(levels) => {
                let at = (share * levels.len() as f64) as usize;
                levels[at.min(levels.len() - 1)].clone()
            }
            Self::Range(range) => range.at(share),
        }
    }
}

/// How levels are combined into points.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Design {
    /// Every level of each factor with every level of all others.
    FullFactorial,
    /// The first levels of all factors together, then the second ones, and so on.
    Paired,
    /// So many points, each factor's range cut into as many parts of which each is hit once
    /// (`McKay`, Beckman and Conover 1979).
    LatinHypercube(u32),
}

/// Order of points within a block of replicates.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Order {
    /// A new random order in each block.
    Randomised,
    /// As the design gives them.
    AsGiven,
}

/// What stays of run directories.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Keep {
    /// Everything.
    All,
    /// `manifest.json`, `results.json` and `events.jsonl`.
    Thin,
    /// Nothing but the store's rows.
    None,
}

/// A point has runs enough when the confidence interval of a metric's mean is narrow enough.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StopRule {
    /// The metric.
    pub metric: String,
    /// Width of the interval over the mean, as a share.
    pub width: f64,
    /// Confidence of the interval, as a share.
    pub confidence: f64,
    /// Runs before the first look.
    pub at_least: u32,
}

/// What the report shows.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ReportOptions {
    /// Metrics; empty: all.
    pub metrics: Vec<String>,
    /// Factor or metric on the x axis.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub x: Option<String>,
    /// Factor whose levels have lines of their own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub series: Option<String>,
    /// Factor whose levels are compared.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub compare: Option<String>,
    /// Level with which the others are compared.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub baseline: Option<Value>,
    /// Confidence of all intervals, as a share.
    pub confidence: f64,
}

/// A parameter's value in the form that `--set` takes, exactly as it is.
pub fn setting(value: &Value) -> String {
    match value {
        Value::Text(text) => format!("\"{text}\""),
        other => other.to_string(),
    }
}

/// Settings of all factors, by name.
pub type Settings = IndexMap<String, Value>;

/// Reads a plan file, and the topology it names. All that is wrong comes back at once. `first` gives
/// a point of the plan's design, at which the topology has the metrics that the plan names.
pub fn load_plan(
    path: &Path,
    first: &dyn Fn(&Plan) -> Option<Settings>,
) -> Result<Plan, Diagnostics> {
    let mut problems = Problems::default();
    let plan = read::plan(&mut problems, path, first);
    problems.finish(&path.display().to_string(), plan)
}
