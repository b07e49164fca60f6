//! Which nodes were ended on purpose, when and by what: what their commands say of it.

use std::collections::BTreeMap;

use parking_lot::Mutex;
use tapestry_core::SimTime;
use tapestry_models::DeviceChange;
use tapestry_topologies::resolved::NodeIndex;

use super::agenda::Due;

/// See the module's documentation.
#[derive(Debug, Default)]
pub(crate) struct Ends(Mutex<BTreeMap<NodeIndex, Vec<(SimTime, String)>>>);

impl Ends {
    /// Notes that a node was ended `at` this time of the run.
    pub(crate) fn note(&self, node: NodeIndex, at: SimTime, why: String) {
        self.0.lock().entry(node).or_default().push((at, why));
    }

    /// What was done to the node at `since` or later, the first time: that ended the commands which ran
    /// at `since`.
    pub(crate) fn first_after(&self, node: NodeIndex, since: SimTime) -> Option<String> {
        let ends = self.0.lock();
        ends.get(&node)?.iter().find(|(at, _)| *at >= since).map(|(_, why)| why.clone())
    }
}

/// What a change does to a node, as the end of a sentence that it begins: "was killed by event 2 at
/// 3.0 s". `None` for one that leaves its commands alone. `at` is the time of the run.
pub(crate) fn told(change: DeviceChange, due: Option<&Due>, at: SimTime) -> Option<String> {
    let done = match change {
        DeviceChange::Kill => "was killed",
        DeviceChange::Restart => "was restarted",
        DeviceChange::Pause | DeviceChange::Resume => return None,
    };
    let by = due.map(|due| format!(" by event {}", due.number)).unwrap_or_default();
    let at = (at.as_secs_f64() * 1e3).round() / 1e3;
    Some(format!("{done}{by} at {at:?} s"))
}
