//! Assembles a resolved topology into a running lab and gives the verdict.

pub mod net;
pub mod rundir;
pub mod sandbox;
