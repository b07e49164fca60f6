//! From a plan to its points and the order of its runs.
//!
//! Purpose: which settings of the factors are measured, and in which order, as functions of the plan
//! alone: the same plan gives the same points, orders and seeds on any machine.
//!
//! Runs come in blocks: block *k* holds replicate *k* of every point, in an order of its own
//! (randomised complete block design), so that what changes slowly on the host falls on all points
//! alike.
//!
//! Reference: Montgomery, *Design and Analysis of Experiments*, chapter 4; `McKay`, Beckman and Conover
//! 1979 (Latin hypercube sampling).

use rand::seq::SliceRandom;
use rand::{Rng, RngExt};
use tapestry_core::Streams;
use tapestry_topologies::expression::Value;
use tapestry_topologies::plan::{Design, Levels, Order, Plan, setting};

use crate::levels::{dimension, quantity};

/// More runs than this are a mistake.
pub const MAX_RUNS: u64 = 1_000_000;

/// The settings of the factors at one point, in the plan's order.
pub use tapestry_topologies::plan::Settings;

/// Why a plan has no points.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum DesignError {
    /// The numbers of the plan multiply to more than anyone waits for.
    #[error(
        "the plan has more than {MAX_RUNS} runs ({points} points, {replicates} replicates each); take \
         fewer levels, or draw points with `design: {{ latin-hypercube: N }}`"
    )]
    TooMany {
        /// How many points there are, at least.
        points: u64,
        /// Replicates of each.
        replicates: u32,
    },
    /// Two points have the same settings, so replicates would count as different points.
    #[error("point {0} of the plan occurs twice; take each level once")]
    Twice(String),
    /// Two levels mean the same.
    #[error("the levels {first} and {second} of factor `{factor}` are the same; take each once")]
    Same {
        /// The factor.
        factor: String,
        /// As the plan writes the first.
        first: String,
        /// As it writes the second.
        second: String,
    },
}

/// `nodes=3 pps=100`; a plan without factors has one point, `-`.
pub fn describe(settings: &Settings) -> String {
    let parts: Vec<String> =
        settings.iter().map(|(name, value)| format!("{name}={value}")).collect();
    if parts.is_empty() { "-".to_owned() } else { parts.join(" ") }
}

/// All points of a plan.
pub fn points(plan: &Plan) -> Result<Vec<Settings>, DesignError> {
    let levels: Vec<(&String, Vec<Value>)> = match plan.design {
        Design::LatinHypercube(_) => Vec::new(),
        _ => plan.factors.iter().map(|(name, levels)| (name, levels.all())).collect(),
    };
    for (factor, all) in &levels {
        if let Some((first, second)) = same(all) {
            return Err(DesignError::Same { factor: (*factor).clone(), first, second });
        }
    }
    let count = match plan.design {
        Design::FullFactorial => {
            levels.iter().fold(1_u64, |count, (_, all)| count.saturating_mul(all.len() as u64))
        }
        Design::Paired => levels.first().map_or(1, |(_, all)| all.len() as u64),
        Design::LatinHypercube(points) => u64::from(points),
    };
    if count.saturating_mul(u64::from(plan.replicates)) > MAX_RUNS {
        return Err(DesignError::TooMany { points: count, replicates: plan.replicates });
    }
    let points: Vec<Settings> = match plan.design {
        // The last factor changes fastest.
        Design::FullFactorial => (0..count)
            .map(|point| {
                let mut rest = point;
                let mut settings: Vec<(String, Value)> = levels
                    .iter()
                    .rev()
                    .map(|(name, all)| {
                        let at = rest % all.len() as u64;
                        rest /= all.len() as u64;
                        ((*name).clone(), all[at as usize].clone())
                    })
                    .collect();
                settings.reverse();
                settings.into_iter().collect()
            })
            .collect(),
        Design::Paired => (0..count as usize)
            .map(|at| {
                let pick = |(name, all): &(&String, Vec<Value>)| {
                    Some(((*name).clone(), all.get(at)?.clone()))
                };
                levels.iter().filter_map(pick).collect()
            })
            .collect(),
        Design::LatinHypercube(points) => latin_hypercube(plan, points),
    };
    let mut seen = std::collections::HashSet::new();
    match points.iter().map(describe).find(|point| !seen.insert(point.clone())) {
        // Rounding may draw a point twice; that is no mistake of the plan.
        Some(_) if matches!(plan.design, Design::LatinHypercube(_)) => Ok(deduplicated(points)),
        Some(point) => Err(DesignError::Twice(point)),
        None => Ok(points),
    }
}

/// Two levels that are one quantity and written differently, such as `1ms` and `1000us`.
fn same(levels: &[Value]) -> Option<(String, String)> {
    dimension(levels)?;
    let mut sorted: Vec<(f64, &Value)> =
        levels.iter().filter_map(|level| Some((quantity(level)?.1, level))).collect();
    sorted.sort_by(|a, b| a.0.total_cmp(&b.0));
    let is_same = |pair: &&[(f64, &Value)]| pair[0].0.total_cmp(&pair[1].0).is_eq();
    let pair = sorted.windows(2).filter(is_same).find(|pair| pair[0].1 != pair[1].1)?;
    Some((pair[0].1.to_string(), pair[1].1.to_string()))
}

/// What rounding made equal, in words: fewer levels or points than the plan asks for.
pub fn merged(plan: &Plan, points: usize) -> Vec<String> {
    let hint = "take fewer, or more `digits`, or no `whole`";
    if let Design::LatinHypercube(wanted) = plan.design {
        let lost = (wanted as usize).saturating_sub(points);
        let said =
            format!("rounding makes {lost} of {wanted} drawn points equal to others; {hint}");
        return if lost > 0 { vec![said] } else { Vec::new() };
    }
    let said = plan.factors.iter().filter_map(|(name, levels)| {
        let Levels::Range(range) = levels else { return None };
        let (found, wanted) = (levels.all().len(), range.count as usize);
        (found < wanted).then(|| {
            format!(
                "factor `{name}`: rounding makes {wanted} levels {found} different ones; {hint}"
            )
        })
    });
    said.collect()
}

fn deduplicated(points: Vec<Settings>) -> Vec<Settings> {
    let mut seen = std::collections::HashSet::new();
    points.into_iter().filter(|point| seen.insert(describe(point))).collect()
}

fn latin_hypercube(plan: &Plan, count: u32) -> Vec<Settings> {
    let mut points = vec![Settings::new(); count as usize];
    for (name, levels) in &plan.factors {
        let mut random = Streams::new(plan.seed, 0).stream(name, "campaign/latin-hypercube");
        let mut strata: Vec<u32> = (0..count).collect();
        strata.shuffle(&mut random);
        for (point, stratum) in points.iter_mut().zip(strata) {
            let within: f64 = random.random();
            let share = (f64::from(stratum) + within) / f64::from(count);
            point.insert(name.clone(), levels.at(share));
        }
    }
    points
}

/// The order in which the points of a block run.
pub fn order(plan: &Plan, points: usize, block: u32) -> Vec<usize> {
    let mut order: Vec<usize> = (0..points).collect();
    if plan.order == Order::Randomised {
        let mut random = Streams::new(plan.seed, u64::from(block)).stream("", "campaign/order");
        order.shuffle(&mut random);
    }
    order
}

/// What a run is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Purpose {
    /// Brings the host into the state it will be in; counts nowhere.
    WarmUp,
    /// Measures.
    Measure,
}

impl Purpose {
    /// The word in the store.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::WarmUp => "warm-up",
            Self::Measure => "measure",
        }
    }
}

/// A run to be made, or one that was.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Job {
    /// What it is for.
    pub purpose: Purpose,
    /// Its point.
    pub point: usize,
    /// Which repetition of its point, from 0.
    pub replicate: u32,
    /// How often it has been repeated before.
    pub attempt: u32,
}

/// The seed of one run.
pub fn seed(plan: &Plan, job: Job) -> u64 {
    let Job { purpose, point, replicate, attempt } = job;
    let component = format!("{point}/{replicate}/{attempt}");
    let purpose = format!("campaign/seed/{}", purpose.as_str());
    // Topology files and SQLite have signed numbers of 64 bits.
    Streams::new(plan.seed, 0).stream(&component, &purpose).next_u64() >> 1
}

/// All parameters of a point, fixed ones first, as `--set` takes them.
pub fn sets(plan: &Plan, settings: &Settings) -> Vec<(String, String)> {
    let all = plan.params.iter().chain(settings);
    all.map(|(name, value)| (name.clone(), setting(value))).collect()
}

#[cfg(test)]
pub(crate) mod tests;
