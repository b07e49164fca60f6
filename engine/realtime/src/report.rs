//! What a data plane says about itself.
//!
//! Purpose: counters and timing for `results.json`, `tapestry top` and the verdict. A snapshot is
//! exact per worker (taken between two turns of its loop), so in every snapshot, not only at the
//! end, each frame is somewhere: at an endpoint `rx_frames = station.offered = station.transmitted +
//! station.tx_dropped + backlog`, on a link of n stations `(n − 1) × Σ transmitted = Σ delivered + Σ
//! rx_dropped + in_flight − Σ impaired.duplicated`, and again at an endpoint `station.delivered = tx_frames + tx_drops +
//! tx_pending`. (Under overload frames may wait between `rx_frames` and `offered` for the network
//! to catch up with its timers.)

use serde::Serialize;
use tapestry_core::SimTime;

use crate::capture::CaptureReport;
use crate::ledger::Lateness;
use crate::meter::InterfaceCounters;
use crate::poller::WaitBackend;
use crate::port::{PortCounters, PortState};
use tapestry_models::Counters;

/// The state of a data plane at one time.
#[derive(Debug, Clone, Serialize)]
pub struct Snapshot {
    /// The run's time at which it was asked for.
    pub time: SimTime,
    /// Lateness of events over all workers.
    pub lateness: Lateness,
    /// Lateness of all workers' beats: one every 10 ms, due whatever the traffic, so that its
    /// percentiles are shares of the time in which a frame would have waited unread for so long.
    pub pulse: Lateness,
    /// The links in the order of the configuration.
    pub links: Vec<LinkReport>,
    /// The workers.
    pub workers: Vec<WorkerReport>,
    /// What happened to ports, oldest first.
    pub notices: Vec<Notice>,
    /// Notices beyond the number that is kept.
    pub notices_skipped: u64,
    /// Frames that captures had to leave out (see [`FinalReport::captures`] for where).
    pub captures_skipped: u64,
}

impl Snapshot {
    /// Frames nodes sent, as far as the kernel or the emulator saw them.
    pub fn frames_offered(&self) -> u64 {
        let ports = self.links.iter().flat_map(|link| &link.endpoints);
        ports.filter(|end| end.port.is_some()).map(EndpointReport::offered).sum()
    }

    /// Frames lost although no model wanted it: by ports, by interfaces that were not read in time,
    /// by overload.
    pub fn unintended_losses(&self) -> u64 {
        self.links.iter().flat_map(LinkReport::unintended).map(|(_, frames)| frames).sum()
    }
}

impl LinkReport {
    /// Frames that were sent into the link, as far as the kernel or the emulator saw them.
    pub fn frames_offered(&self) -> u64 {
        self.endpoints.iter().map(EndpointReport::offered).sum()
    }

    /// Frames lost although no model wanted it, by place and reason; places without losses are left
    /// out.
    pub fn unintended(&self) -> Vec<(String, u64)> {
        let mut found = Vec::new();
        for EndpointReport { endpoint, port, .. } in &self.endpoints {
            let Some(port) = port else { continue };
            let drops = port.counters.tx_drops.iter().filter(|(reason, _)| reason.is_unintended());
            found
                .push((format!("{endpoint} (sent faster than the emulator reads)"), port.unread()));
            found.extend(drops.map(|(reason, n)| (format!("{endpoint} ({})", reason.as_str()), n)));
            let unread = port.reader_drops.unwrap_or(0);
            found.push((format!("{endpoint} (faster than QEMU reads)"), unread));
        }
        found.retain(|(_, frames)| *frames > 0);
        found
    }
}

impl EndpointReport {
    /// Frames that were sent into the link here.
    fn offered(&self) -> u64 {
        match &self.port {
            Some(port) => port.counters.rx_frames + port.unread(),
            None => self.station.offered.frames,
        }
    }
}

impl PortReport {
    /// Frames that the node sent and the emulator never saw.
    fn unread(&self) -> u64 {
        self.interface.as_ref().map_or(0, |interface| interface.send_drops)
    }
}

/// One link.
#[derive(Debug, Clone, Serialize)]
pub struct LinkReport {
    /// Name.
    pub name: String,
    /// Whether it is up (see [`crate::Control`]).
    pub up: bool,
    /// Copies of frames on the wire. A frame to several stations counts once per station.
    pub in_flight: u64,
    /// Its endpoints in the order of the configuration.
    pub endpoints: Vec<EndpointReport>,
}

/// One end of a link.
#[derive(Debug, Clone, Serialize)]
pub struct EndpointReport {
    /// `node:interface`.
    pub endpoint: String,
    /// What the channel model did with the frames of this station.
    pub station: Counters,
    /// Frames queued at the station or in transmission.
    pub backlog: u64,
    /// The port; absent at an in-process device.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub port: Option<PortReport>,
}

/// The port at an end of a link.
#[derive(Debug, Clone, Serialize)]
pub struct PortReport {
    /// What the host calls it.
    pub name: String,
    /// Whether the node's interface works.
    pub state: PortState,
    /// What crossed the border between node and link.
    #[serde(flatten)]
    pub counters: PortCounters,
    /// The kernel's own counters, the last ones if the interface was deleted; absent where the port
    /// has none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub interface: Option<InterfaceCounters>,
    /// Frames of `tx_frames` that QEMU's own interface dropped, because QEMU did not read in time;
    /// absent where there is no such interface.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reader_drops: Option<u64>,
}

/// One worker.
#[derive(Debug, Clone, Serialize)]
pub struct WorkerReport {
    /// Names of its links.
    pub links: Vec<String>,
    /// How it waits.
    pub backend: WaitBackend,
    /// Lateness of its events.
    pub lateness: Lateness,
    /// The same as pairs: at most so late (ns), and how many were.
    pub lateness_histogram_ns: Vec<(u64, u64)>,
    /// Lateness of its beats.
    pub pulse: Lateness,
    /// The same as pairs: at most so late (ns), and how many were.
    pub pulse_histogram_ns: Vec<(u64, u64)>,
    /// Turns of its loop.
    pub turns: u64,
    /// Time spent polling for a timer instead of sleeping.
    pub spun: SimTime,
}

/// Something that happened to a port.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Notice {
    /// The run's time.
    pub time: SimTime,
    /// The link.
    pub link: String,
    /// `node:interface`.
    pub endpoint: String,
    /// The state the port changed to.
    pub state: PortState,
}

/// Notices in the order of their times, as many as are kept: a node that toggles its interface for
/// ever must not fill the memory.
#[derive(Debug, Clone, Default)]
pub(crate) struct Notices {
    pub(crate) kept: Vec<Notice>,
    /// Notices beyond those.
    pub(crate) skipped: u64,
}

impl Notices {
    const MOST: usize = 256;

    pub(crate) fn add(&mut self, notice: Notice) {
        if self.kept.len() == Self::MOST {
            self.skipped += 1;
            return;
        }
        let Notice { link, endpoint, state, .. } = &notice;
        tracing::debug!(link, endpoint, ?state, "port changed");
        self.kept.push(notice);
    }

    /// Takes back the last notice about an endpoint if it says that it went down, not before
    /// `since`.
    pub(crate) fn retract_down(&mut self, endpoint: &str, since: SimTime) {
        let last = self.kept.iter().rposition(|notice| notice.endpoint == endpoint);
        let is_it =
            |&at: &usize| self.kept[at].state == PortState::Down && self.kept[at].time >= since;
        if let Some(at) = last.filter(is_it) {
            self.kept.remove(at);
        }
    }

    /// A notice was missed.
    pub(crate) fn skip(&mut self) {
        self.skipped += 1;
    }
}

/// How a data plane ended.
#[derive(Debug, Clone, Serialize)]
pub struct FinalReport {
    /// The last state.
    #[serde(flatten)]
    pub snapshot: Snapshot,
    /// What came of the captures, in the order of the configuration.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub captures: Vec<CaptureReport>,
    /// Why it ended early, if it did.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub failure: Option<crate::Failure>,
}
