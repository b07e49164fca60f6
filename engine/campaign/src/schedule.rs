//! Which run comes next.
//!
//! Purpose: a state machine that hands out jobs and is told what came of them; it starts nothing and
//! asks no clock. Fed with what a store holds, it goes on where a killed campaign stopped.
//!
//! The stop rule is looked at only between blocks, when all runs of the last one have ended: what is
//! run never depends on which of several runs side by side ended first.

use std::collections::{BTreeMap, VecDeque};

use tapestry_topologies::plan::{Plan, StopRule};

use crate::design::{self, Job, Purpose};
use crate::stats::interval;
use crate::store::State;

/// What came of a job.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Outcome {
    pub(crate) state: State,
    /// Whether another run was under way at the same time.
    pub(crate) had_company: bool,
    /// The metric of the stop rule.
    pub(crate) value: Option<f64>,
}

/// Attempts at one replicate.
#[derive(Debug, Clone, Copy, Default)]
struct Attempts {
    made: u32,
    /// Of these, those that nothing disturbed and that were to be repeated all the same.
    undisturbed: u32,
    settled: bool,
}

type Key = (Purpose, usize, u32);

#[derive(Debug)]
pub(crate) struct Schedule<'p> {
    plan: &'p Plan,
    points: usize,
    /// Runs side by side may spoil each other so often before they stand alone.
    jobs: u32,
    queue: VecDeque<Job>,
    /// The block that is opened next.
    block: u32,
    warm_up: bool,
    outstanding: usize,
    attempts: BTreeMap<Key, Attempts>,
    /// How many of these are settled, and how many runs the stop rule has spared: counted here, for they
    /// are asked for after every run.
    settled: usize,
    spared: usize,
    /// Values of the stop rule's metric, by point: replicate and value.
    values: Vec<BTreeMap<u32, f64>>,
    /// Points that have runs enough, and the block from which on they had.
    satisfied: Vec<Option<u32>>,
}

impl<'p> Schedule<'p> {
    /// A schedule that nothing has been done of.
    pub(crate) fn new(plan: &'p Plan, points: usize, jobs: usize) -> Self {
        let first = design::order(plan, points, 0).first().copied();
        let warm_up = first.map(|point| {
            let job =
                move |replicate| Job { purpose: Purpose::WarmUp, point, replicate, attempt: 0 };
            (0..plan.warm_up).map(job).collect()
        });
        Self {
            plan,
            points,
            jobs: u32::try_from(jobs).unwrap_or(u32::MAX),
            queue: warm_up.unwrap_or_default(),
            block: 0,
            warm_up: true,
            outstanding: 0,
            attempts: BTreeMap::new(),
            settled: 0,
            spared: 0,
            values: vec![BTreeMap::new(); points],
            satisfied: vec![None; points],
        }
    }

    /// Notes a run that an earlier session made.
    pub(crate) fn remember(&mut self, job: Job, outcome: Outcome) {
        self.note(job, outcome);
    }

    /// The next run to be made; `None` if none can be started now.
    pub(crate) fn next(&mut self) -> Option<Job> {
        loop {
            while let Some(mut job) = self.queue.pop_front() {
                let attempts = self.attempts_at(job);
                if !attempts.settled {
                    job.attempt = attempts.made;
                    self.outstanding += 1;
                    return Some(job);
                }
            }
            let waits = self.warm_up || self.plan.stop.is_some();
            if waits && self.outstanding > 0 {
                return None;
            }
            self.warm_up = false;
            if !self.open_block() {
                return None;
            }
        }
    }

    /// Fills the queue with the next block; false if there is none.
    fn open_block(&mut self) -> bool {
        if self.block >= self.plan.replicates || self.satisfied.iter().all(Option::is_some) {
            return false;
        }
        self.look();
        let (block, satisfied) = (self.block, &self.satisfied);
        let order = design::order(self.plan, self.points, block);
        let job = |point| Job { purpose: Purpose::Measure, point, replicate: block, attempt: 0 };
        self.queue.extend(order.into_iter().filter(|point| satisfied[*point].is_none()).map(job));
        self.block += 1;
        true
    }

    /// Applies the stop rule to what earlier blocks gave.
    fn look(&mut self) {
        let Some(rule) = &self.plan.stop else { return };
        for (values, satisfied) in self.values.iter().zip(&mut self.satisfied) {
            let values: Vec<f64> = values.range(..self.block).map(|(_, value)| *value).collect();
            if values.len() >= rule.at_least as usize
                && satisfied.is_none()
                && is_reached(rule, width(rule, &values))
            {
                *satisfied = Some(self.block);
                self.spared += self.plan.replicates.saturating_sub(self.block) as usize;
            }
        }
    }

    /// Points that had all replicates without reaching the stop rule, with the widths they have.
    pub(crate) fn unreached(&self) -> Vec<(usize, Option<f64>)> {
        let Some(rule) = &self.plan.stop else { return Vec::new() };
        let is_full = |point: usize| {
            (0..self.plan.replicates).all(|replicate| {
                let key = (Purpose::Measure, point, replicate);
                self.attempts.get(&key).is_some_and(|attempts| attempts.settled)
            })
        };
        (0..self.points)
            .filter(|point| self.satisfied[*point].is_none() && is_full(*point))
            .map(|point| {
                let values: Vec<f64> = self.values[point].values().copied().collect();
                (point, width(rule, &values))
            })
            .filter(|(_, width)| !is_reached(rule, *width))
            .collect()
    }

    /// Takes note of how a job ended; says whether it will be repeated.
    pub(crate) fn finished(&mut self, job: Job, outcome: Outcome) -> bool {
        self.outstanding -= 1;
        self.note(job, outcome);
        let again = !self.attempts_at(job).settled;
        if again {
            self.queue.push_front(job);
        }
        again
    }

    /// Takes note that a job was interrupted: it never was, and is still to be made.
    pub(crate) fn dropped(&mut self, job: Job) {
        self.outstanding -= 1;
        self.queue.push_front(job);
    }

    fn note(&mut self, job: Job, outcome: Outcome) {
        let most = self.plan.retries.saturating_add(self.jobs);
        let attempts = self.attempts.entry((job.purpose, job.point, job.replicate)).or_default();
        attempts.made = attempts.made.max(job.attempt + 1);
        let again = outcome.state.is_repeated() && job.purpose == Purpose::Measure;
        if again && !outcome.had_company {
            attempts.undisturbed += 1;
        }
        let was_settled = attempts.settled;
        attempts.settled |=
            !again || attempts.undisturbed > self.plan.retries || attempts.made > most;
        self.settled += usize::from(attempts.settled && !was_settled);
        if job.purpose == Purpose::Measure
            && outcome.state == State::Counted
            && let Some(value) = outcome.value
            && let Some(values) = self.values.get_mut(job.point)
        {
            values.insert(job.replicate, value);
        }
    }

    fn attempts_at(&self, job: Job) -> Attempts {
        self.attempts.get(&(job.purpose, job.point, job.replicate)).copied().unwrap_or_default()
    }

    /// How many runs are still to be made: at most, where a stop rule may end points early.
    pub(crate) fn remaining(&self) -> usize {
        let all = self.points * self.plan.replicates as usize + self.plan.warm_up as usize;
        all.saturating_sub(self.settled + self.spared)
    }

    /// Whether nothing is left to do.
    pub(crate) fn is_done(&mut self) -> bool {
        if self.outstanding > 0 {
            return false;
        }
        match self.next() {
            Some(job) => {
                self.outstanding -= 1;
                self.queue.push_front(job);
                false
            }
            None => true,
        }
    }
}

/// Width of the interval that a stop rule is about, as a share of the mean.
fn width(rule: &StopRule, values: &[f64]) -> Option<f64> {
    let interval = interval::student(values, rule.confidence)?;
    let mean = f64::midpoint(interval.low, interval.high).abs();
    let width = interval.high - interval.low;
    // What never varies is known, also where it is zero.
    if width == 0.0 { Some(0.0) } else { Some(width / mean).filter(|width| width.is_finite()) }
}

fn is_reached(rule: &StopRule, width: Option<f64>) -> bool {
    width.is_some_and(|width| width <= rule.width)
}

#[cfg(test)]
mod tests;
