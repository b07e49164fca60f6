//! The thread that writes captures.
//!
//! Purpose: brings the pieces that workers fill into files. It is woken for each piece that is full;
//! what is in the others it takes now and then, so that readers see files grow. It sleeps while nothing
//! is captured. A capture that fails ends alone.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use tapestry_core::{Clock, SimTime};

use super::encode;
use super::file::{Closing, FileError, Files};
use super::piece::{Piece, Pieces};
use super::recorder::{Record, Shared};
use super::spec::{CaptureReport, CapturedInterface};
use crate::clock::WallClock;

/// Between two looks at pieces that are not full: one that has not grown meanwhile is taken.
const INTERVAL: SimTime = SimTime::from_millis(5);
/// After this time a piece that grows is taken too.
const LONGEST: SimTime = SimTime::from_millis(200);

pub(super) struct Writer {
    shared: Arc<Shared>,
    captures: Vec<Capture>,
    clock: WallClock,
    /// Bytes in the pieces that are not full, as last seen, by capture.
    seen: Vec<usize>,
    /// When they were last seen.
    looked: SimTime,
    /// When all of them were last taken.
    flushed: SimTime,
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
    pub(super) fn new(shared: Arc<Shared>, captures: Vec<Capture>, clock: WallClock) -> Self {
        let seen = vec![0; captures.len()];
        let now = clock.now();
        Self { shared, captures, clock, seen, looked: now, flushed: now }
    }

    /// Writes until told to stop and the pieces are empty.
    pub(super) fn run(mut self) -> Vec<CaptureReport> {
        loop {
            // Read first: what was recorded before the order to stop is then found below.
            let stopping = self.shared.stopping.load(Ordering::SeqCst);
            if self.collect(stopping) {
                if !stopping {
                    std::thread::park_timeout(INTERVAL.into());
                }
                continue;
            }
            if stopping {
                return self.finish();
            }
            self.flush();
            self.shared.idle.store(true, Ordering::SeqCst);
            let nothing = self.shared.pieces.iter().all(Pieces::is_empty);
            if nothing && !self.shared.stopping.load(Ordering::SeqCst) {
                std::thread::park();
            }
            self.shared.idle.store(false, Ordering::SeqCst);
        }
    }

    /// Writes the pieces that are full, and others whose time has come; false if all are empty.
    fn collect(&mut self, stopping: bool) -> bool {
        let now = self.clock.now();
        let all = stopping || now - self.flushed >= LONGEST;
        let look = all || now - self.looked >= INTERVAL;
        if look {
            self.looked = now;
        }
        if all {
            self.flushed = now;
        }
        let Self { shared, captures, clock, seen, .. } = self;
        let mut taken = VecDeque::new();
        let mut any = false;
        let each = captures.iter_mut().zip(&shared.pieces).zip(seen);
        for ((capture, pieces), seen) in each {
            let left = pieces.take(&mut taken, &shared.stock, |len| all || look && len == *seen);
            if look {
                *seen = left;
            }
            any |= left > 0 || !taken.is_empty();
            for mut piece in taken.drain(..) {
                capture.write_piece(shared, *clock, &mut piece);
                shared.stock.put_back(piece);
            }
        }
        if look {
            self.flush();
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
    /// Writes a piece.
    fn write_piece(&mut self, shared: &Shared, clock: WallClock, piece: &mut Piece) {
        if self.error.is_none() {
            // Then the page cache lends the memory that is short.
            let outcome = self.files.write_piece(piece, shared.stock.is_low());
            if let Ok(true) = outcome {
                return;
            }
            self.end_if_failed(shared, outcome.map(drop));
        }
        let unix_ns = piece.unix_ns();
        let blocks = piece.blocks();
        for (block, kept) in encode::whole_blocks(blocks) {
            let Some(kept) = kept else { continue };
            let interface = &shared.interfaces[self.first_interface + kept.0 as usize];
            if !self.makes_room(shared, || clock.now()) {
                interface.skip(1);
                continue;
            }
            let behind = || shared.stock.is_low();
            let outcome = self.files.write_block(&blocks[block], kept, unix_ns, behind);
            if outcome.is_err() {
                interface.skip(1);
            }
            self.end_if_failed(shared, outcome);
        }
    }

    /// Writes a record of a network in exact time; `now` is the run's time, for a file that is closed.
    pub(super) fn write(&mut self, shared: &Shared, now: SimTime, record: &Record<'_>) {
        let interface = &shared.interfaces[record.interface as usize];
        if !self.makes_room(shared, || now) {
            interface.skip(1);
            return;
        }
        let outcome = self.files.write(interface.number, record);
        if outcome.is_err() {
            interface.skip(1);
        }
        self.end_if_failed(shared, outcome);
    }

    /// Opens the next file if one is full; false if the capture has failed.
    fn makes_room(&mut self, shared: &Shared, now: impl FnOnce() -> SimTime) -> bool {
        if self.error.is_none() && self.files.is_full() {
            let skipped = self.skipped(shared);
            let outcome = self.files.rotate(&Closing { now: now(), skipped: &skipped });
            self.end_if_failed(shared, outcome);
        }
        self.error.is_none()
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
