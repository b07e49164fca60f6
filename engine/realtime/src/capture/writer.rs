//! The thread that writes captures.
//!
//! Purpose: empties the workers' rings into files. It works in short intervals rather than being
//! woken for every frame, and sleeps while nothing is captured. A capture that fails ends alone.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use crossbeam_queue::ArrayQueue;
use tapestry_core::{Clock, SimTime};

use super::file::{Closing, FileError, Files};
use super::recorder::{Record, Shared};
use super::spec::{CaptureReport, CapturedInterface};
use crate::clock::WallClock;

/// Between two looks at rings that are being filled: long enough that a look finds many records,
/// short enough that a ring does not fill meanwhile.
const INTERVAL: Duration = Duration::from_millis(2);
/// Intervals after which busy captures are flushed too, so that readers see them grow.
const INTERVALS_PER_FLUSH: u32 = 100;

pub(super) struct Writer {
    pub(super) shared: Arc<Shared>,
    pub(super) rings: Vec<Arc<ArrayQueue<Record>>>,
    pub(super) captures: Vec<Capture>,
    pub(super) clock: WallClock,
}

pub(super) struct Capture {
    pub(super) files: Files,
    /// The endpoint, if not all are captured.
    pub(super) endpoint: Option<String>,
    /// Index of its first interface in [`Shared::interfaces`]; the others follow.
    pub(super) first_interface: usize,
    pub(super) error: Option<FileError>,
}

impl Writer {
    /// Writes until told to stop and the rings are empty.
    pub(super) fn run(mut self) -> Vec<CaptureReport> {
        let mut intervals = 0;
        loop {
            // Read first: what was recorded before the order to stop is then found below.
            let stopping = self.shared.stopping.load(Ordering::SeqCst);
            if self.drain() {
                intervals += 1;
                if intervals % INTERVALS_PER_FLUSH == 0 {
                    self.flush();
                }
                if !stopping {
                    std::thread::park_timeout(INTERVAL);
                }
                continue;
            }
            if stopping {
                return self.finish();
            }
            self.flush();
            self.shared.idle.store(true, Ordering::SeqCst);
            let nothing = self.rings.iter().all(|ring| ring.is_empty());
            if nothing && !self.shared.stopping.load(Ordering::SeqCst) {
                std::thread::park();
            }
            self.shared.idle.store(false, Ordering::SeqCst);
        }
    }

    /// Writes what is in the rings; false if there was nothing. A ring is left after as many
    /// records as it holds, for the sake of the others.
    fn drain(&mut self) -> bool {
        let Self { shared, rings, captures, clock } = self;
        let mut any = false;
        for ring in rings {
            for _ in 0..ring.capacity() {
                let Some(record) = ring.pop() else { break };
                any = true;
                let capture = &mut captures[shared.interfaces[record.interface as usize].capture];
                // Half a ring is what the disk may be late before the page cache helps.
                let behind = || ring.len() * 2 > ring.capacity();
                capture.write(shared, || clock.now(), &record, behind);
            }
        }
        any
    }

    fn flush(&mut self) {
        for capture in &mut self.captures {
            let outcome = capture.files.flush();
            capture.end_if_failed(&self.shared, outcome);
        }
    }

    fn finish(mut self) -> Vec<CaptureReport> {
        let now = self.clock.now();
        self.captures.iter_mut().map(|capture| capture.finish(&self.shared, now)).collect()
    }
}

impl Capture {
    /// Writes a record; `now` is the run's time, for a file that is closed, and `behind` says
    /// whether records wait for want of a faster disk.
    pub(super) fn write(
        &mut self,
        shared: &Shared,
        now: impl FnOnce() -> SimTime,
        record: &Record,
        behind: impl FnOnce() -> bool,
    ) {
        let interface = &shared.interfaces[record.interface as usize];
        if self.error.is_some() {
            interface.skip(1);
            return;
        }
        if self.files.is_full() {
            let skipped = self.skipped(shared);
            let outcome = self.files.rotate(&Closing { now: now(), skipped: &skipped });
            self.end_if_failed(shared, outcome);
            if self.error.is_some() {
                interface.skip(1);
                return;
            }
        }
        let outcome = self.files.write(interface.number, record, behind);
        self.end_if_failed(shared, outcome);
    }

    /// Closes the file and reports.
    pub(super) fn finish(&mut self, shared: &Shared, now: SimTime) -> CaptureReport {
        let skipped = self.skipped(shared);
        let outcome = self.files.close(&Closing { now, skipped: &skipped });
        self.end_if_failed(shared, outcome);
        self.report(shared)
    }

    /// After an error, has the workers skip this capture and counts what did not reach its file.
    fn end_if_failed(&mut self, shared: &Shared, outcome: Result<(), FileError>) {
        let Err(error) = outcome else { return };
        let link = &self.files.layout().link;
        tracing::error!(link, %error, "capture ended");
        let lost = self.files.abandon();
        for (interface, lost) in shared.interfaces[self.first_interface..].iter().zip(lost) {
            interface.ended.store(true, Ordering::Relaxed);
            interface.skip(lost);
        }
        self.error = Some(error);
    }

    /// Frames skipped so far, by interface.
    fn skipped(&self, shared: &Shared) -> Vec<u64> {
        let its = shared.interfaces[self.first_interface..].iter();
        its.take(self.files.written().len())
            .map(|interface| interface.skipped.load(Ordering::Relaxed))
            .collect()
    }

    fn report(&self, shared: &Shared) -> CaptureReport {
        let layout = self.files.layout();
        let counts = self.files.written().iter().zip(self.skipped(shared));
        let interfaces: Vec<_> = layout
            .interfaces
            .iter()
            .zip(counts)
            .map(|(endpoint, (&frames, skipped))| CapturedInterface {
                endpoint: endpoint.clone(),
                frames,
                skipped,
            })
            .collect();
        CaptureReport {
            link: layout.link.clone(),
            endpoint: self.endpoint.clone(),
            files: self.files.paths(),
            frames: interfaces.iter().map(|i| i.frames).sum(),
            bytes: self.files.bytes(),
            rotated_out: self.files.rotated_out(),
            skipped: interfaces.iter().map(|i| i.skipped).sum(),
            interfaces,
            run_start_unix_ns: layout.run_start.as_nanos() as u64,
            error: self.error.as_ref().map(ToString::to_string),
        }
    }
}
