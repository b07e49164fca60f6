//! Discrete-event kernel: time, units, event queue, simulator loop, clock, named random streams.
//!
//! Purpose: everything that has to do with *when* and *how much*, and nothing that has to do with
//! packets or the operating system. A model is handed `now` and never asks for it; the same model
//! therefore runs against the wall clock and in exact virtual time.
//!
//! Assumptions: one thread per simulator or network; times are whole nanoseconds in a `u64`, which
//! reaches 584 years.
//!
//! Not modelled: wall clocks (see `tapestry-realtime`), parallel event execution.
//!
//! Reference: ns-3 manual, "Events and Simulator" and "Random variables".

mod clock;
mod decimal;
pub mod link;
mod mrg32k3a;
mod queue;
mod random;
mod simulator;
mod sync;
mod time;
mod units;

pub use clock::{Clock, SyncStatus, VirtualClock};
pub use decimal::ParseQuantityError;
pub use mrg32k3a::Mrg32k3a;
pub use queue::{EventKey, EventQueue, Position};
pub use random::{RandomStream, Streams};
pub use simulator::{PastEvent, Scheduler, SimulationError, Simulator, World};
pub use sync::{ParseSyncPolicyError, SyncPolicy};
pub use time::{InvalidSeconds, SimTime};
pub use units::{ByteCount, DataRate, InvalidProbability, Probability};
