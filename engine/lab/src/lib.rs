//! Assembles a resolved topology into a running lab, runs its tasks, writes the run directory and
//! gives the verdict.
//!
//! Purpose: the only room that knows all the others. `run` is a whole run; `lab` is the lab itself,
//! for programs that want to hold one in their hands; `sandbox` makes it leave no trace.
//!
//! Assumes Linux with namespaces; as root, or as a user who may make user namespaces.

pub mod assemble;
pub mod awake;
pub mod changes;
pub mod compare;
pub mod configure;
pub mod control;
mod course;
pub mod doctor;
pub mod event;
pub mod execution;
pub mod failure;
pub mod forwarder;
pub mod host;
mod host_shell;
mod in_process;
pub mod keep;
pub mod lab;
pub mod machine;
pub mod namespace;
pub mod net;
pub mod node;
pub mod nodes;
mod queue;
pub mod rates;
pub mod refuse;
pub mod results;
pub mod run;
pub mod rundir;
pub mod sandbox;
pub mod server;
pub mod status;
pub mod tasks;
pub mod usage;
pub mod verdict;
pub mod virtual_time;

pub use course::Interruption;
