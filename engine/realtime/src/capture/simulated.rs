//! Captures of a network in virtual time.
//!
//! Purpose: the same files as in real time, written by the caller's thread while frames pass: a
//! simulation can wait for the disk, so nothing is skipped, and the same frames give the same bytes.
//! Time stamps count from the Unix epoch, as if the run had begun in 1970: a simulation has no date.

use std::sync::Arc;
use std::sync::OnceLock;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use parking_lot::Mutex;
use tapestry_core::SimTime;
use tapestry_models::{LinkId, Trace, TraceRecord};

use super::piece::Stock;
use super::recorder::{Shared, Stations, records};
use super::store::create_new;
use super::writer::Capture;
use super::{CaptureError, CaptureReport, CaptureSpec, Plan};
use crate::plane::{Placed, PlacedEndpoint};

/// A link that can be captured.
#[derive(Debug, Clone)]
pub struct CapturedLink {
    /// Its name.
    pub name: String,
    /// What the network calls it.
    pub id: LinkId,
    /// `node:interface` of each station.
    pub endpoints: Vec<String>,
}

/// The captures of one network in virtual time.
pub struct SimulationCaptures {
    shared: Arc<Shared>,
    captures: Arc<Mutex<Vec<Capture>>>,
    stations: Stations,
}

impl SimulationCaptures {
    /// Makes the files.
    pub fn open(specs: Vec<CaptureSpec>, links: &[CapturedLink]) -> Result<Self, CaptureError> {
        let place = |link: &CapturedLink| Placed {
            name: link.name.clone(),
            worker: 0,
            id: link.id,
            endpoints: link
                .endpoints
                .iter()
                .map(|name| PlacedEndpoint { name: name.clone(), port: None })
                .collect(),
        };
        let placed: Vec<Placed> = links.iter().map(place).collect();
        let mut plan = Plan::new(&placed, 1, specs.len());
        for spec in specs {
            plan.add(spec, Duration::ZERO, create_new())?;
        }
        let shared = Shared {
            interfaces: plan.interfaces,
            // The files' own memory is enough for a thread that waits for the disk.
            pieces: Vec::new(),
            stock: Stock::new(0, 0),
            idle: AtomicBool::new(false),
            stopping: AtomicBool::new(false),
            writer: OnceLock::new(),
        };
        Ok(Self {
            shared: Arc::new(shared),
            captures: Arc::new(Mutex::new(plan.captures)),
            stations: plan.stations.into_iter().next().unwrap_or_default(),
        })
    }

    /// What the network shows its frames to; `None` if nothing is captured.
    pub fn trace(&self) -> Option<Box<dyn Trace>> {
        let (shared, captures) = (Arc::clone(&self.shared), Arc::clone(&self.captures));
        let stations = self.stations.clone();
        let trace = move |step: TraceRecord<'_>| {
            for record in records(&stations, &step) {
                let capture = shared.interfaces[record.interface as usize].capture;
                captures.lock()[capture].write(&shared, step.at, &record);
            }
        };
        (!self.captures.lock().is_empty()).then(|| Box::new(trace) as Box<dyn Trace>)
    }

    /// Closes the files at `now` and reports.
    pub fn finish(self, now: SimTime) -> Vec<CaptureReport> {
        let mut captures = self.captures.lock();
        captures.iter_mut().map(|capture| capture.finish(&self.shared, now)).collect()
    }
}
