//! Many runs from one plan: design, order, execution, store, statistics, figures, reports.
//!
//! Purpose: one run is an anecdote. A [`campaign::Campaign`] makes all runs of a plan, each in a lab
//! of its own, keeps what came of them in a [`store::Store`] that survives being killed at any moment,
//! and [`report`] says what they show, with intervals.
//!
//! Assumes the topology files stay as they are while a campaign lasts; a resumed campaign checks that.
//! Not modelled: runs on several machines.
//!
//! Reference: `docs/campaigns.md`; Crussell et al., "Lessons learned from 10k experiments to compare
//! virtual and physical testbeds", CSET 2019.

#![forbid(unsafe_code)]

pub mod campaign;
pub mod capacity;
pub mod design;
pub mod export;
pub mod levels;
pub mod report;
pub mod runner;
mod schedule;
pub mod standing;
pub mod stats;
pub mod store;
pub mod suite;
mod whole;

pub use tapestry_topologies::plan::Plan;

/// Reads a plan file, and the topology it names. All that is wrong comes back at once.
pub fn load_plan(path: &std::path::Path) -> Result<Plan, tapestry_topologies::Diagnostics> {
    // A design without points is refused by whoever makes them.
    let first = |plan: &Plan| design::points(plan).ok()?.into_iter().next();
    tapestry_topologies::plan::load_plan(path, &first)
}
