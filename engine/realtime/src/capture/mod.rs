//! Packet captures.
//!
//! Purpose: what passes the interfaces of a link, as pcapng files for Wireshark and `tshark`. A
//! capture has one file (or a rotated series), in it one pcapng interface per endpoint
//! (`node:interface`), and per frame: the time the model gave it, its direction as seen from the
//! interface, and for a dropped frame a comment `dropped: REASON`.
//!
//! A frame is *outbound* at its sender when its transmission begins (not when it was queued), and
//! *inbound* at each receiver when its last bit arrives, as in ns-3's captures; between the two lie
//! serialisation and propagation exactly as the model computed them. A dropped frame appears where
//! and when it was dropped; one that was cut off during transmission thus appears twice at its
//! sender.
//!
//! Time stamps are the run's time in nanoseconds, counted from the wall clock at the start of the
//! run ([`CaptureReport::run_start_unix_ns`], equal in all captures of a run), and thus free of
//! the emulator's lateness.
//!
//! Assumptions: links are Ethernet without check sequence. Workers encode frames into memory; a
//! thread of its own hands that to the disk. Where it does not keep up, frames are skipped and counted,
//! in the report and in the file's interface statistics (`isb_ifdrop`, with `isb_ifrecv` the
//! frames that passed the interface since the capture's start).
//!
//! Not captured: what a port loses between link and node; see [`crate::PortDrops`].
//!
//! Reference: draft-ietf-opsawg-pcapng; ns-3 `CsmaNetDevice` and `PointToPointNetDevice`, trace
//! source `Sniffer`.

mod encode;
mod file;
mod piece;
mod recorder;
mod simulated;
mod spec;
mod store;
mod tail;
#[cfg(test)]
mod tests;
mod writer;

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::thread::JoinHandle;
use std::time::{Duration, SystemTime};

use tapestry_core::Clock;
use thiserror::Error;

use crate::clock::WallClock;
use crate::plane::Placed;
use file::{FileError, Files, Layout};
use piece::{ALL_BYTES, Pieces, Stock};
pub(crate) use recorder::Recorder;
use recorder::{Interface, Shared, Stations};
pub use simulated::{CapturedLink, SimulationCaptures};
pub use spec::{CaptureReport, CaptureSpec, CaptureTarget, CapturedInterface};
use store::{Create, create_new};
use writer::{Capture, Writer};

/// Why a capture could not be started.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum CaptureError {
    /// There is no such link.
    #[error("cannot capture link `{link}`, there is none; the links are {known}")]
    NoSuchLink {
        /// The name as given.
        link: String,
        /// The names there are.
        known: String,
    },
    /// The link has no such endpoint.
    #[error("cannot capture link `{link}` at `{endpoint}`, which is not on it; there are {known}")]
    NoSuchEndpoint {
        /// The link.
        link: String,
        /// The endpoint as given.
        endpoint: String,
        /// The endpoints there are.
        known: String,
    },
    /// Two captures would write the same files.
    #[error("{file} would be written by two captures; name each link and endpoint only once")]
    Twice {
        /// The first file of both.
        file: PathBuf,
    },
    /// The directory cannot be made.
    #[error("cannot make the directory {directory} for captures: {source}")]
    Directory {
        /// The directory.
        directory: PathBuf,
        /// The kernel's answer.
        source: std::io::Error,
    },
    /// The first file cannot be made.
    #[error("cannot capture link `{link}`: {message}")]
    File {
        /// The link.
        link: String,
        /// Which file, and why.
        message: String,
    },
    /// The kernel refused a thread.
    #[error("cannot start the thread that writes captures: {source}")]
    Thread {
        /// The kernel's answer.
        source: std::io::Error,
    },
}

/// The captures of a data plane. Dropping it ends them.
#[derive(Debug, Default)]
pub(crate) struct Captures {
    /// Link and endpoint of each.
    names: Vec<(String, Option<String>)>,
    shared: Option<Arc<Shared>>,
    thread: Option<JoinHandle<Vec<CaptureReport>>>,
}

impl Captures {
    /// Opens the files and starts the writer. Returns a recorder for each worker that has something
    /// to record.
    pub(crate) fn start(
        specs: Vec<CaptureSpec>,
        links: &[Placed],
        workers: usize,
        clock: WallClock,
    ) -> Result<(Self, Vec<Option<Recorder>>), CaptureError> {
        Self::start_with(specs, links, workers, clock, ALL_BYTES, create_new)
    }

    /// `memory` is for pieces, in bytes.
    fn start_with(
        specs: Vec<CaptureSpec>,
        links: &[Placed],
        workers: usize,
        clock: WallClock,
        memory: usize,
        create: impl Fn() -> Create,
    ) -> Result<(Self, Vec<Option<Recorder>>), CaptureError> {
        if specs.is_empty() {
            return Ok((Self::default(), (0..workers).map(|_| None).collect()));
        }
        let since_epoch = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
        let run_start = since_epoch.unwrap_or_default().saturating_sub(Duration::from(clock.now()));
        let names = specs.iter().map(|spec| (spec.link.clone(), spec.endpoint.clone())).collect();
        let mut plan = Plan::new(links, workers, specs.len());
        for spec in specs {
            plan.add(spec, run_start, create())?;
        }
        let stock = Stock::new(plan.captures.len(), memory);
        let pieces = plan.captures.iter();
        let pieces = pieces.map(|capture| Pieces::new(capture.files.layout().form(), &stock));
        let shared = Arc::new(Shared {
            interfaces: plan.interfaces,
            pieces: pieces.collect(),
            stock,
            idle: AtomicBool::new(false),
            stopping: AtomicBool::new(false),
            writer: OnceLock::new(),
        });
        let recorder = |interfaces: Stations| {
            let any = interfaces.iter().flatten().any(|station| !station.is_empty());
            any.then(|| Recorder { shared: Arc::clone(&shared), interfaces })
        };
        let recorders = plan.stations.into_iter().map(recorder).collect();
        let writer = Writer::new(Arc::clone(&shared), plan.captures, clock);
        let thread = std::thread::Builder::new()
            .name("captures".into())
            .spawn(move || writer.run())
            .map_err(|source| CaptureError::Thread { source })?;
        // Set before any worker runs, thus before anyone wakes it.
        let _ = shared.writer.set(thread.thread().clone());
        Ok((Self { names, shared: Some(shared), thread: Some(thread) }, recorders))
    }

    /// Frames not written so far.
    pub(crate) fn skipped(&self) -> u64 {
        let interfaces = self.shared.iter().flat_map(|shared| &shared.interfaces);
        interfaces.map(|interface| interface.skipped.load(Ordering::Relaxed)).sum()
    }

    /// Writes what is recorded, closes the files and reports. The workers must have ended.
    pub(crate) fn finish(&mut self) -> Vec<CaptureReport> {
        let (Some(shared), Some(thread)) = (&self.shared, self.thread.take()) else {
            return Vec::new();
        };
        shared.stopping.store(true, Ordering::SeqCst);
        shared.wake();
        let bug = |(link, endpoint): &(String, Option<String>)| {
            CaptureReport::panicked(link.clone(), endpoint.clone())
        };
        thread.join().unwrap_or_else(|_| self.names.iter().map(bug).collect())
    }
}

impl Drop for Captures {
    fn drop(&mut self) {
        self.finish();
    }
}

/// Captures in the making.
struct Plan<'a> {
    links: &'a [Placed],
    interfaces: Vec<Interface>,
    captures: Vec<Capture>,
    /// What is captured, by worker.
    stations: Vec<Stations>,
    stems: BTreeSet<PathBuf>,
    /// How many captures there will be.
    wanted: usize,
}

impl<'a> Plan<'a> {
    fn new(links: &'a [Placed], workers: usize, wanted: usize) -> Self {
        let mut stations: Vec<Stations> = vec![Vec::new(); workers];
        for link in links {
            let of_worker = &mut stations[link.worker];
            let id = link.id.0 as usize;
            of_worker.resize(of_worker.len().max(id + 1), Vec::new());
            of_worker[id] = vec![Vec::new(); link.endpoints.len()];
        }
        Self {
            links,
            interfaces: Vec::new(),
            captures: Vec::new(),
            stations,
            stems: BTreeSet::new(),
            wanted,
        }
    }

    fn add(
        &mut self,
        spec: CaptureSpec,
        run_start: Duration,
        create: Create,
    ) -> Result<(), CaptureError> {
        let Some(link) = self.links.iter().find(|link| link.name == spec.link) else {
            let known = list(self.links.iter().map(|link| link.name.as_str()));
            return Err(CaptureError::NoSuchLink { link: spec.link, known });
        };
        let wanted = |name: &str| match &spec.endpoint {
            None => true,
            Some(endpoint) => {
                name == endpoint || name.split_once(':').is_some_and(|(node, _)| node == endpoint)
            }
        };
        let (capture, first_interface) = (self.captures.len(), self.interfaces.len());
        let mut names = Vec::new();
        for (station, endpoint) in link.endpoints.iter().enumerate() {
            if !wanted(&endpoint.name) {
                continue;
            }
            let index = self.interfaces.len() as u32;
            self.stations[link.worker][link.id.0 as usize][station].push(index);
            self.interfaces.push(Interface {
                capture,
                number: names.len() as u32,
                skipped: AtomicU64::new(0),
                ended: AtomicBool::new(false),
            });
            names.push(endpoint.name.clone());
        }
        if names.is_empty() {
            let known = list(link.endpoints.iter().map(|endpoint| endpoint.name.as_str()));
            let endpoint = spec.endpoint.unwrap_or_default();
            return Err(CaptureError::NoSuchEndpoint { link: spec.link, endpoint, known });
        }
        let stem = stem(&spec.link, spec.endpoint.as_deref());
        let file = spec.directory.join(format!("{stem}.pcapng"));
        if !self.stems.insert(file.clone()) {
            return Err(CaptureError::Twice { file });
        }
        std::fs::create_dir_all(&spec.directory).map_err(|source| CaptureError::Directory {
            directory: spec.directory.clone(),
            source,
        })?;
        let layout = Layout {
            directory: spec.directory,
            stem,
            link: spec.link.clone(),
            interfaces: names,
            snap_length: spec.snap_length,
            file_bytes: spec.file_bytes,
            files: spec.files,
            run_start,
        };
        let files = Files::open(layout, create, self.wanted).map_err(|error: FileError| {
            CaptureError::File { link: spec.link, message: error.to_string() }
        })?;
        let endpoint = spec.endpoint;
        self.captures.push(Capture { files, endpoint, first_interface, error: None });
        Ok(())
    }
}

/// Names as a message shows them.
fn list<'a>(names: impl Iterator<Item = &'a str>) -> String {
    names.map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ")
}

/// The file name of a capture without extension: `LINK` or `LINK@NODE-INTERFACE`. Characters that
/// mean something to a shell or a file system are written as `%` and two hexadecimal digits.
fn stem(link: &str, endpoint: Option<&str>) -> String {
    let escape = |name: &str| -> String {
        let escaped = name.bytes().map(|byte| match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'.' | b'_' | b'-' => {
                char::from(byte).to_string()
            }
            _ => format!("%{byte:02X}"),
        });
        escaped.collect()
    };
    match endpoint {
        None => escape(link),
        Some(endpoint) => {
            let parts: Vec<_> = endpoint.split(':').map(escape).collect();
            format!("{}@{}", escape(link), parts.join("-"))
        }
    }
}
