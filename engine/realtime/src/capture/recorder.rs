//! What a worker does for a capture: next to nothing.
//!
//! Purpose: turns the steps of frames into records and puts them on a ring that the writer's thread
//! empties. A record shares the frame's buffer. A full ring gives up its oldest record, which is
//! counted as skipped: so what a stalled writer keeps from reuse are the latest frames, and the
//! pool, which reuses its oldest buffers first, does not run into them.
//!
//! Assumptions: a ring has one worker and the one writer.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::thread::Thread;

use crossbeam_queue::ArrayQueue;
use tapestry_core::SimTime;
use tapestry_models::{DropReason, Frame, Trace, TraceEvent, TraceRecord};

/// Most bytes of frame buffers that wait in one ring.
const RING_BYTES: usize = 24 << 20;
/// Records in a ring: 16 thousand bridge 50 ms at the highest rate a core forwards, during which
/// the writer may be without a core.
const RING_RECORDS: std::ops::RangeInclusive<usize> = 64..=16_384;

/// Records that a worker's ring holds.
pub(crate) fn ring_records(buffer_bytes: usize) -> usize {
    (RING_BYTES / buffer_bytes.max(1)).clamp(*RING_RECORDS.start(), *RING_RECORDS.end())
}

/// Buffers that a capture adds to the worker's pool, so that it takes none from the links: those
/// in a full ring, and as many to be found between them, since the pool looks at a few at a time.
pub(crate) fn pool_reserve(buffer_bytes: usize) -> usize {
    2 * ring_records(buffer_bytes)
}

/// A frame on its way to the writer.
#[derive(Debug)]
pub(super) struct Record {
    /// The run's time.
    pub(super) at: SimTime,
    pub(super) frame: Frame,
    /// Index into [`Shared::interfaces`].
    pub(super) interface: u32,
    pub(super) direction: Direction,
    pub(super) dropped: Option<DropReason>,
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
    /// Whether the writer sleeps until it is woken.
    pub(super) idle: AtomicBool,
    /// Whether the writer shall end once the rings are empty.
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
    /// The writer says it is idle, then looks at the rings once more, and sleeps. All of it and
    /// this is sequentially consistent, so either it sees the record or this sees it idle.
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
    pub(super) ring: Arc<ArrayQueue<Record>>,
    pub(super) interfaces: Stations,
}

/// Indices into [`Shared::interfaces`] by the network's link and station.
pub(super) type Stations = Vec<Vec<Vec<u32>>>;

impl Recorder {
    fn push(&self, record: Record) {
        let interface = &self.shared.interfaces[record.interface as usize];
        if interface.ended.load(Ordering::Relaxed) {
            interface.skip(1);
            return;
        }
        if let Some(oldest) = self.ring.force_push(record) {
            self.shared.interfaces[oldest.interface as usize].skip(1);
        }
        self.shared.wake_if_idle();
    }
}

impl Trace for Recorder {
    fn record(&mut self, record: TraceRecord<'_>) {
        for record in records(&self.interfaces, &record) {
            self.push(record);
        }
    }
}

/// What a step of a frame is to the captures: one record for each interface that shows it.
pub(super) fn records<'a>(
    interfaces: &'a Stations,
    step: &'a TraceRecord<'_>,
) -> impl Iterator<Item = Record> + 'a {
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
            frame: step.frame.clone(),
            interface,
            direction,
            dropped: step.reason,
        })
    })
}
