//! The real-time data plane: wall clock, ports, workers, lateness ledger.
//!
//! Purpose: runs the models of `tapestry-models` against the wall clock, between interfaces of the
//! kernel (TAP), guests (socketpairs) or tests (memory). [`DataPlane::start`] takes links and ports
//! and returns a handle that changes links, takes [`Snapshot`]s and stops; [`FailureWatch`] tells
//! when the run cannot go on.
//!
//! Assumptions: Linux; a monotonic clock; frames are Ethernet without preamble and check sequence.
//! What the emulator could not do in time is recorded ([`Lateness`]) and what it lost is counted
//! with a reason ([`PortCounters`], [`InterfaceCounters`]); judging it is the lab's business.
//!
//! Not modelled: offloads of the interfaces; order of frames that arrive at different ports within
//! one burst.
//!
//! Reference: `docs/architecture.md`, "How a frame travels".

mod assembly;
mod capture;
mod clock;
mod dark;
mod failpoint;
mod failure;
mod groups;
mod interfaces;
mod ledger;
mod meter;
mod plane;
mod poller;
mod port;
mod pulse;
mod report;
mod ring;
mod spec;
mod spin;
mod sys;
mod watch;
mod worker;

pub use capture::{
    CaptureError, CaptureReport, CaptureSpec, CaptureTarget, CapturedInterface, CapturedLink,
    SimulationCaptures,
};
pub use clock::WallClock;
pub use failure::{Failure, FailureWatch};
pub use ledger::Lateness;
#[doc(hidden)]
pub use ledger::time_per_record;
pub use meter::{InterfaceCounters, InterfaceMeter};
pub use plane::{ControlError, DataPlane, HostCommand, HostCommandError, StartError};
pub use poller::WaitBackend;
pub use port::{
    MemoryEnd, MemoryPort, Port, PortCounters, PortDrop, PortDrops, PortState, Rx, SocketError,
    SocketPort, Tally, TapError, TapPort,
};
pub use report::{
    EndpointReport, FinalReport, LinkReport, Notice, PortReport, Snapshot, WorkerReport,
};
pub use spec::{
    Attachment, Control, DataPlaneConfig, DeviceKind, DeviceSpec, EndpointSpec, IoChoice, LinkSpec,
};
pub use spin::SpinPolicy;
