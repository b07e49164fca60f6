//! What the report is made from, read once and put in order.

use std::collections::BTreeMap;
use std::path::Path;

use indexmap::{IndexMap, IndexSet};
use tapestry_topologies::expression::Value;
use tapestry_topologies::plan::{Levels, Plan};

use super::ReportError;
use super::axis::distinct;
use crate::design::{Purpose, Settings};
use crate::levels::{Dimension, dimension, quantity};
use crate::standing::{self, Standing};
use crate::stats::describe::has_spread;
use crate::store::{Run, Session, State, Store};

/// A campaign's results.
#[derive(Debug)]
pub struct Data {
    /// The plan, whose `report` says what is shown.
    pub plan: Plan,
    /// How the user named the campaign.
    pub name: String,
    /// The points.
    pub points: Vec<Settings>,
    /// Each time the campaign was started.
    pub sessions: Vec<Session>,
    /// All runs.
    pub runs: Vec<Run>,
    /// Metrics of runs that count.
    pub metrics: IndexMap<String, Samples>,
    /// Metrics that any run produced, whether it counts or not.
    pub produced: Vec<String>,
    /// What is still to be made.
    pub standing: Standing,
    /// Factors that vary, with their levels in the order of the plan.
    pub factors: IndexMap<String, Vec<Value>>,
    /// For each of them, by point: the place of the point's level among the levels.
    places: IndexMap<String, Vec<Option<usize>>>,
    /// For each of them: its levels in words, fractions with few digits.
    words: IndexMap<String, Vec<String>>,
}

/// The values of a metric in runs that count.
#[derive(Debug, Default)]
pub struct Samples {
    /// Its unit; empty for a bare number.
    pub unit: String,
    /// Values by point.
    pub points: Vec<Vec<f64>>,
    /// Index of the run, and value, in the order in which runs ended.
    pub course: Vec<(usize, f64)>,
}

impl Samples {
    /// All values.
    pub fn all(&self) -> impl Iterator<Item = f64> + '_ {
        self.course.iter().map(|(_, value)| *value)
    }

    /// Whether all values are the same, but for rounding.
    pub fn is_constant(&self) -> bool {
        !has_spread(self.all())
    }
}

impl Data {
    /// Reads a store.
    pub fn read(
        store: &Store,
        plan: &Plan,
        directory: &Path,
        name: &str,
    ) -> Result<Self, ReportError> {
        let (points, runs) = (store.points()?, store.runs()?);
        let any_counts = runs.iter().any(Run::counts);
        if !runs.iter().any(|run| run.job.purpose == Purpose::Measure) {
            return Err(ReportError::NoRuns { path: directory.to_owned() });
        }
        let counted: BTreeMap<i64, usize> = runs
            .iter()
            .enumerate()
            .filter(|(_, run)| run.counts())
            .map(|(at, run)| (run.id, at))
            .collect();
        let mut metrics = IndexMap::new();
        let mut produced = Vec::new();
        for (name, metric) in store.metrics()? {
            produced.push(name.clone());
            let mut samples = Samples {
                unit: metric.unit,
                points: vec![Vec::new(); points.len()],
                course: Vec::new(),
            };
            for (run, value) in metric.values {
                let Some(at) = counted.get(&run) else { continue };
                samples.course.push((*at, value));
                if let Some(values) = samples.points.get_mut(runs[*at].job.point) {
                    values.push(value);
                }
            }
            if !samples.course.is_empty() {
                metrics.insert(name, samples);
            }
        }
        let wanted = &plan.report.metrics;
        let named =
            wanted.iter().chain(plan.report.x.iter().filter(|x| !plan.factors.contains_key(*x)));
        for metric in named.filter(|_| any_counts) {
            if !metrics.contains_key(metric) {
                let known = metrics.keys().cloned().collect();
                return Err(ReportError::NoMetric { metric: metric.clone(), known });
            }
        }
        let (factors, places) = levels(plan, &points);
        let words = factors.iter().map(|(name, levels)| (name.clone(), in_words(levels))).collect();
        Ok(Self {
            plan: plan.clone(),
            name: name.to_owned(),
            points,
            sessions: store.sessions()?,
            runs,
            metrics,
            produced,
            standing: standing::of(store, &store.plan()?)?,
            factors,
            places,
            words,
        })
    }

    /// The place of each point's level among the levels of a factor; no point if it does not vary.
    pub(super) fn places(&self, factor: &str) -> &[Option<usize>] {
        self.places.get(factor).map_or(&[], Vec::as_slice)
    }

    /// The metrics to be shown, in order.
    pub fn shown(&self) -> impl Iterator<Item = (&String, &Samples)> {
        let wanted = &self.plan.report.metrics;
        self.metrics.iter().filter(move |(name, _)| wanted.is_empty() || wanted.contains(name))
    }

    /// How many measuring runs are of a state.
    pub fn count(&self, state: State) -> usize {
        self.runs
            .iter()
            .filter(|run| run.job.purpose == Purpose::Measure && run.state == state)
            .count()
    }

    /// What the levels of a factor measure; `None` if they are categories.
    pub fn dimension(&self, factor: &str) -> Option<Dimension> {
        dimension(self.factors.get(factor)?)
    }

    /// The factor on the x axis: the one the plan names, else the first with numbers.
    pub fn x_factor(&self) -> Option<&str> {
        let is_numeric = |name: &&String| self.dimension(name).is_some();
        // Categories have no place on an axis.
        let named = self.plan.report.x.as_ref().filter(|x| self.dimension(x).is_some());
        named.or_else(|| self.factors.keys().find(is_numeric)).map(String::as_str)
    }

    /// The factor whose levels have lines of their own: the one the plan names, else the first other
    /// one with few levels.
    pub fn series_factor(&self) -> Option<&str> {
        /// More lines than this are a knot.
        const LINES: usize = 8;
        let x = self.x_factor();
        let fits = |name: &&String| Some(name.as_str()) != x && self.factors[*name].len() <= LINES;
        let named = self.plan.report.series.as_ref().filter(|s| self.factors.contains_key(*s));
        named.or_else(|| self.factors.keys().find(fits)).map(String::as_str)
    }

    /// The factor whose levels are compared, and the level they are compared with.
    pub fn compared(&self) -> Option<(&str, &Value)> {
        let named = self.plan.report.compare.as_ref().filter(|c| self.factors.contains_key(*c));
        let fewest = || self.factors.iter().min_by_key(|(_, levels)| levels.len()).map(|(n, _)| n);
        let factor = named.or_else(fewest)?;
        let levels = &self.factors[factor];
        let baseline = self.plan.report.baseline.as_ref();
        let same = |level: &&Value| baseline.is_some_and(|b| b.to_string() == level.to_string());
        let level = levels.iter().find(same).or_else(|| levels.first())?;
        Some((factor, level))
    }

    /// The levels of a factor in words; none if it does not vary.
    pub(super) fn words(&self, factor: &str) -> &[String] {
        self.words.get(factor).map_or(&[], Vec::as_slice)
    }

    /// A level of a factor in words.
    pub(super) fn word(&self, factor: &str, level: &Value) -> String {
        let place = self.factors.get(factor).and_then(|l| l.iter().position(|l| l == level));
        place.map_or_else(|| level.to_string(), |place| self.words(factor)[place].clone())
    }

    /// The point in words, factors that do not vary left out.
    pub fn label(&self, point: usize) -> String {
        self.label_without(point, None)
    }

    /// The point in words, one factor and those that do not vary left out.
    pub(super) fn label_without(&self, point: usize, factor: Option<&str>) -> String {
        let part = |name: &String| {
            let place = self.places.get(name)?[point]?;
            Some(format!("{name}={}", self.words(name)[place]))
        };
        let names = self.points[point].keys().filter(|name| Some(name.as_str()) != factor);
        let parts: Vec<String> = names.filter_map(part).collect();
        if parts.is_empty() { "-".to_owned() } else { parts.join(" ") }
    }
}

/// Levels in words. Computed fractions such as 0.30000000000000004 have six digits, or as many more
/// as tell them apart.
fn in_words(levels: &[Value]) -> Vec<String> {
    distinct(levels, 6, |level, digits| match level {
        Value::Float(exact) => {
            let rounded = format!("{exact:.*e}", digits - 1).parse().unwrap_or(*exact);
            Value::Float(rounded).to_string()
        }
        level => level.to_string(),
    })
}

type Places = IndexMap<String, Vec<Option<usize>>>;

/// The factors that vary with their levels, and at which of them each point is.
fn levels(plan: &Plan, points: &[Settings]) -> (IndexMap<String, Vec<Value>>, Places) {
    /// What only equal levels have in common.
    fn key(level: &Value) -> String {
        format!("{level:?}")
    }
    let mut known: IndexMap<&String, IndexMap<String, &Value>> = IndexMap::new();
    for (name, level) in points.iter().flatten() {
        known.entry(name).or_default().entry(key(level)).or_insert(level);
    }
    let (mut factors, mut places) = (IndexMap::new(), Places::new());
    for (name, mut levels) in known.into_iter().filter(|(_, levels)| levels.len() > 1) {
        if dimension(levels.values().copied()).is_some() {
            levels.sort_by(|_, a, _, b| number(a).total_cmp(&number(b)));
        } else {
            // As the plan gives them, in whatever order points were drawn.
            let given = plan.factors.get(name).map(Levels::all).unwrap_or_default();
            let given: IndexSet<String> = given.iter().map(key).collect();
            levels.sort_by_cached_key(|level, _| given.get_index_of(level));
        }
        let place = |settings: &Settings| levels.get_index_of(&key(settings.get(name)?));
        places.insert(name.clone(), points.iter().map(place).collect());
        factors.insert(name.clone(), levels.into_values().cloned().collect());
    }
    (factors, places)
}

/// A level of a factor whose levels are numbers.
pub(super) fn number(level: &Value) -> f64 {
    quantity(level).map_or(f64::NAN, |(_, number)| number)
}
