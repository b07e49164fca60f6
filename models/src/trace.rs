//! The trace hook.
//!
//! Purpose: shows every step of every frame to one observer (a capture, an animation, a test).
//! Switched off it costs one branch a step.
//!
//! Reference: the trace sources of ns-3's `CsmaNetDevice` and `PointToPointNetDevice`.

use tapestry_core::SimTime;

use crate::{DropReason, Frame, LinkId};

/// A step in the life of a frame, in ns-3's words.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum TraceEvent {
    /// Handed to the station for transmission.
    MacTx,
    /// Dropped before transmission.
    MacTxDrop,
    /// Marked "congestion experienced" by the queue; the frame is the marked one.
    MacTxMark,
    /// Put off because the medium is busy.
    MacTxBackoff,
    /// Transmission begins.
    PhyTxBegin,
    /// Transmission is complete.
    PhyTxEnd,
    /// Given up or cut off during transmission.
    PhyTxDrop,
    /// Received completely.
    PhyRxEnd,
    /// Lost on the way to this receiver.
    PhyRxDrop,
    /// Handed to what is behind the receiving station.
    MacRx,
}

/// One step of one frame.
#[derive(Debug, Clone, Copy)]
pub struct TraceRecord<'a> {
    /// When it happened (was due, in real time).
    pub at: SimTime,
    /// On which link.
    pub link: LinkId,
    /// At which of the link's stations, counted from 0.
    pub station: u32,
    /// What happened.
    pub event: TraceEvent,
    /// To which frame.
    pub frame: &'a Frame,
    /// For the drop events: why.
    pub reason: Option<DropReason>,
}

/// Observes frames. Called in the order in which things happen; must not block.
pub trait Trace: Send {
    /// One step happened.
    fn record(&mut self, record: TraceRecord<'_>);
}

impl<F: FnMut(TraceRecord<'_>) + Send> Trace for F {
    fn record(&mut self, record: TraceRecord<'_>) {
        self(record);
    }
}
