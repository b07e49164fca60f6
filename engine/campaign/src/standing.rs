//! How far a campaign is.
//!
//! Purpose: what of the plan is still to be made, and whether the stop rule was reached, from a store
//! alone. The schedule that hands out runs decides, so that `status`, the report and the next
//! resumption agree.

use std::collections::BTreeMap;

use tapestry_topologies::plan::{Plan, Time};

use crate::design::{Settings, describe};
use crate::schedule::{Outcome, Schedule};
use crate::store::{Store, StoreError};

/// How far a campaign is.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Standing {
    /// Runs that are still to be made: at most, where a stop rule may end points early.
    pub remaining: usize,
    /// Points that had all replicates without reaching the stop rule, and the width of the interval
    /// as a share of the mean, where there is one.
    pub unreached: Vec<(usize, Option<f64>)>,
}

/// Of the campaign in a store.
pub fn of(store: &Store, plan: &Plan) -> Result<Standing, StoreError> {
    let jobs = store.sessions()?.last().map_or(1, |session| session.jobs);
    let mut schedule = Schedule::new(plan, store.points()?.len(), jobs);
    remember(store, plan, &mut schedule)?;
    let is_done = schedule.is_done();
    let remaining = if is_done { 0 } else { schedule.remaining() };
    Ok(Standing { remaining, unreached: schedule.unreached() })
}

impl Standing {
    /// What is to be said of the stop rule, if points did not reach it.
    pub fn unreached_words(&self, plan: &Plan, points: &[Settings]) -> Option<String> {
        let rule = plan.stop.as_ref()?;
        // A width that cannot be known is the widest.
        let width = |width: Option<f64>| width.unwrap_or(f64::INFINITY);
        let (at, widest) =
            self.unreached.iter().max_by(|(_, a), (_, b)| width(*a).total_cmp(&width(*b)))?;
        let reached = match widest {
            Some(width) => format!("is {:.3} % of the mean wide", width * 100.0),
            None => "cannot be known".to_owned(),
        };
        Some(format!(
            "the stop rule was not reached at {} of {} points after all {} replicates: at {} the {} % \
             interval of {} {reached}, and {} % were asked for",
            self.unreached.len(),
            points.len(),
            plan.replicates,
            points.get(*at).map(describe).unwrap_or_default(),
            rule.confidence * 100.0,
            rule.metric,
            rule.width * 100.0,
        ))
    }
}

/// Feeds the schedule with what earlier sessions did; how many runs that was.
pub(crate) fn remember(
    store: &Store,
    plan: &Plan,
    schedule: &mut Schedule<'_>,
) -> Result<usize, StoreError> {
    let values = match &plan.stop {
        Some(rule) => store.values(&rule.metric)?,
        None => Vec::new(),
    };
    let values: BTreeMap<(usize, u32), f64> =
        values.into_iter().map(|(point, replicate, value)| ((point, replicate), value)).collect();
    let runs = store.runs()?;
    for run in &runs {
        let job = run.job;
        let value = values.get(&(job.point, job.replicate)).copied().filter(|_| run.counts());
        let had_company = run.beside > 0 && plan.time == Time::Realtime;
        schedule.remember(job, Outcome { state: run.state, had_company, value });
    }
    Ok(runs.len())
}
