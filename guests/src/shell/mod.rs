//! The shell proxy: commands on a node, over nothing but the byte stream of a shell.
//!
//! Purpose: [`Shell::login`] turns a stream (a serial console, a pseudo-terminal, a socket to `sh`)
//! into a [`Shell`] on which commands are run, one at a time, each with its exit status and exactly
//! its own output. A command may be armed first and released later, so that commands on many nodes
//! start together.
//!
//! The protocol is a pure state machine ([`machine`]); this module's [`Shell`] drives it with tokio.
//!
//! Assumes a POSIX shell with `cat` and `/proc` behind the stream. Each command runs in a new `sh`
//! in a session of its own, standard input `/dev/null`, standard error joined to standard output:
//! `cd` and variables do not carry over from one command to the next, jobs left in the background
//! go on but their later output is discarded. A process that leaves its session (`setsid`) is not
//! ended with its command.

mod agent;
mod background;
mod command;
mod driver;
mod frame;
mod handle;
mod job;
mod kernel;
pub(crate) mod line;
mod login;
pub mod machine;
mod output;
mod process;
mod slot;
mod watch;

pub(crate) use agent::is_loader;
pub use agent::{BACKGROUND_BYTES, COMMAND_BYTES};
pub use background::Background;
pub use command::{Armed, CommandError, Cut, Finished, RunOptions, Running};
pub(crate) use command::{brief, collector, signal};
pub use frame::Key;
pub(crate) use frame::Unframed;
pub use handle::{LoginError, LoginOptions, Shell};
pub use machine::Lost;
pub use output::{Collector, Output};
pub use slot::ShellSlot;
