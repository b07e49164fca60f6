//! What a worker does for a capture: next to nothing.
//!
//! Purpose: turns the steps of frames into records, which are encoded at once into the pieces of
//! their captures. A thread of its own writes the pieces. Where none is left, the frame is skipped and
//! counted.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::thread::Thread;

use tapestry_core::SimTime;
use tapestry_models::{DropReason, Frame, Trace, TraceEvent, TraceRecord};

use super::encode::Packet;
use super::piece::{Added, Pieces, Stock};

/// A frame at an interface.
#[derive(Debug)]
pub(super) struct Record<'a> {
    /// The run's time.
    pub(super) at: SimTime,
    pub(super) frame: &'a Frame,
    /// Index into [`Shared::interfaces`].
    pub(super) interface: u32,
    pub(super) direction: Direction,
    pub(super) dropped: Option<DropReason>,
}

/// How a capture shows frames.
#[derive(Debug, Clone, Copy)]
pub(super) struct Form {
    /// Bytes kept of each frame; 0 keeps whole frames.
    pub(super) snap_length: usize,
    /// The start of the run since the Unix epoch.
    pub(super) run_start_unix_ns: u64,
}

impl Form {
    /// A record at the interface with this number in the files.
    pub(super) fn packet<'a>(&self, number: u32, record: &Record<'a>) -> Packet<'a> {
        let frame = record.frame.bytes();
        let data = match self.snap_length {
            0 => frame,
            snap_length => &frame[..frame.len().min(snap_length)],
        };
        Packet {
            interface: number,
            unix_ns: self.run_start_unix_ns + record.at.as_nanos(),
            data,
            original_bytes: frame.len(),
            direction: record.direction,
            dropped: record.dropped,
        }
    }
}

/// As seen from the interface.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Direction {
    /// The node receives.
    Inbound,
    /// The node sends.
    Outbound,
}

/// What workers, the writer and the handle have in common.
#[derive(Debug)]
pub(super) struct Shared {
    /// Every interface of every capture.
    pub(super) interfaces: Vec<Interface>,
    /// Those of each capture that wait for the writer.
    pub(super) pieces: Vec<Pieces>,
    pub(super) stock: Stock,
    /// Whether the writer sleeps until it is woken.
    pub(super) idle: AtomicBool,
    /// Whether the writer shall end once the pieces are empty.
    pub(super) stopping: AtomicBool,
    pub(super) writer: OnceLock<Thread>,
}

/// One interface of one capture.
#[derive(Debug)]
pub(super) struct Interface {
    /// Index of the capture.
    pub(super) capture: usize,
    /// Number in the capture's files.
    pub(super) number: u32,
    pub(super) skipped: AtomicU64,
    /// Whether the capture has failed: frames are skipped without a detour.
    pub(super) ended: AtomicBool,
}

impl Interface {
    pub(super) fn skip(&self, frames: u64) {
        self.skipped.fetch_add(frames, Ordering::Relaxed);
    }
}

impl Shared {
    /// Wakes the writer if it sleeps for want of records.
    ///
    /// The writer says it is idle, then looks at the pieces once more, and sleeps. Both look at
    /// pieces under their lock, so either it sees the record or this sees it idle.
    fn wake_if_idle(&self) {
        if self.idle.load(Ordering::SeqCst) && self.idle.swap(false, Ordering::SeqCst) {
            self.wake();
        }
    }

    pub(super) fn wake(&self) {
        if let Some(writer) = self.writer.get() {
            writer.unpark();
        }
    }
}

/// Observes one worker's network.
pub(crate) struct Recorder {
    pub(super) shared: Arc<Shared>,
    pub(super) interfaces: Stations,
}

/// Indices into [`Shared::interfaces`] by the network's link and station.
pub(super) type Stations = Vec<Vec<Vec<u32>>>;

impl Recorder {
    fn add(&self, record: &Record<'_>) {
        let Shared { interfaces, pieces, stock, .. } = &*self.shared;
        let interface = &interfaces[record.interface as usize];
        if interface.ended.load(Ordering::Relaxed) {
            interface.skip(1);
            return;
        }
        match pieces[interface.capture].add(interface.number, record, stock) {
            Added::Here => self.shared.wake_if_idle(),
            Added::Next => self.shared.wake(),
            Added::Nowhere => interface.skip(1),
        }
    }
}

impl Trace for Recorder {
    fn record(&mut self, record: TraceRecord<'_>) {
        for record in records(&self.interfaces, &record) {
            self.add(&record);
        }
    }
}

/// What a step of a frame is to the captures: one record for each interface that shows it.
pub(super) fn records<'a>(
    interfaces: &'a Stations,
    step: &'a TraceRecord<'_>,
) -> impl Iterator<Item = Record<'a>> + 'a {
    use TraceEvent::{MacRx, MacTxDrop, PhyRxDrop, PhyTxBegin, PhyTxDrop};
    let direction = match step.event {
        PhyTxBegin | MacTxDrop | PhyTxDrop => Some(Direction::Outbound),
        MacRx | PhyRxDrop => Some(Direction::Inbound),
        _ => None,
    };
    let link = interfaces.get(step.link.0 as usize);
    let station = link.and_then(|stations| stations.get(step.station as usize));
    let shown = direction.zip(station).into_iter();
    shown.flat_map(move |(direction, interfaces)| {
        interfaces.iter().map(move |&interface| Record {
            at: step.at,
            frame: step.frame,
            interface,
            direction,
            dropped: step.reason,
        })
    })
}
