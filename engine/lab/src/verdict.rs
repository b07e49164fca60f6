//! The verdict: how far a run's own timing can be trusted.
//!
//! Purpose: emulation is only as good as its timing. From the lateness of events, frames lost
//! where no model meant to lose them, and CPU time the hypervisor took away, a run is *valid*,
//! *degraded* (read it with care) or *invalid* (do not use its figures), with the reasons.
//! Thresholds come from the topology file (`verdict:`).

use serde::{Deserialize, Serialize};
use tapestry_core::SimTime;
use tapestry_realtime::Snapshot;
use tapestry_topologies::resolved::VerdictThresholds;

/// How far a run can be trusted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Trust {
    /// Nothing speaks against it.
    Valid,
    /// Usable with care.
    Degraded,
    /// Not to be used.
    Invalid,
}

impl Trust {
    /// The word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Valid => "valid",
            Self::Degraded => "degraded",
            Self::Invalid => "invalid",
        }
    }
}

/// The verdict and its reasons, the gravest first.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Verdict {
    /// How far the run can be trusted.
    pub state: Trust,
    /// One sentence each; empty when valid.
    pub reasons: Vec<String>,
}

/// What the verdict is made from.
#[derive(Debug, Clone, Default)]
pub struct Evidence {
    /// 99th percentile of lateness over all workers.
    pub lateness_p99: SimTime,
    /// Greatest lateness, and the event it befell.
    pub lateness_max: SimTime,
    /// Frames that nodes handed to the emulator, those lost before it saw them included.
    pub frames_offered: u64,
    /// Frames lost where no model meant to: `(place and reason, frames)`.
    pub unintended: Vec<(String, u64)>,
    /// Share (0–1) of CPU time stolen.
    pub steal: f64,
    /// Anything that makes the run invalid by itself (a hard limit passed, a worker that died).
    pub fatal: Vec<String>,
}

impl Evidence {
    /// What counters and timing at one time say, less what was counted before measuring began: nobody
    /// measured during the boot, so its losses do not count.
    pub fn new(baseline: Option<&Snapshot>, now: Option<&Snapshot>, steal: f64) -> Self {
        let Some(now) = now else {
            return Self { steal, ..Self::default() };
        };
        let mut unintended = now.unintended_by_place();
        if let Some(baseline) = baseline {
            for (place, frames) in baseline.unintended_by_place() {
                if let Some(entry) = unintended.iter_mut().find(|entry| entry.0 == place) {
                    entry.1 -= frames.min(entry.1);
                }
            }
        }
        // An interface that was deleted takes its counters along, so there may be fewer now.
        let offered =
            now.frames_offered().saturating_sub(baseline.map_or(0, Snapshot::frames_offered));
        Self {
            lateness_p99: SimTime::from_nanos(now.lateness.p99_ns),
            lateness_max: SimTime::from_nanos(now.lateness.max_ns),
            frames_offered: offered,
            unintended,
            steal,
            fatal: Vec::new(),
        }
    }
}

/// Weighs the evidence.
pub fn judge(evidence: &Evidence, limits: &VerdictThresholds) -> Verdict {
    let mut found: Vec<(Trust, String)> =
        evidence.fatal.iter().map(|reason| (Trust::Invalid, reason.clone())).collect();

    let late = if evidence.lateness_p99 > limits.invalid_lateness_p99 {
        Some((Trust::Invalid, limits.invalid_lateness_p99))
    } else if evidence.lateness_p99 > limits.degraded_lateness_p99 {
        Some((Trust::Degraded, limits.degraded_lateness_p99))
    } else {
        None
    };
    if let Some((trust, limit)) = late {
        found.push((
            trust,
            format!(
                "events ran late: 99th percentile {:.3} ms (limit {limit}), worst {:.3} ms",
                evidence.lateness_p99.as_secs_f64() * 1e3,
                evidence.lateness_max.as_secs_f64() * 1e3
            ),
        ));
    }

    let lost: u64 = evidence.unintended.iter().map(|(_, frames)| frames).sum();
    let share = lost as f64 / (evidence.frames_offered.max(lost).max(1)) as f64;
    if lost > 0 {
        let trust = if share > limits.invalid_unintended_loss {
            Some(Trust::Invalid)
        } else if share > limits.degraded_unintended_loss {
            Some(Trust::Degraded)
        } else {
            None
        };
        if let Some(trust) = trust {
            let (place, frames) =
                evidence.unintended.iter().max_by_key(|(_, frames)| *frames).expect("lost > 0");
            found.push((
                trust,
                format!(
                    "the emulator lost {lost} of {} frames ({:.3} %) that no model meant to lose, \
                     most ({frames}) at {place}",
                    evidence.frames_offered,
                    share * 100.0
                ),
            ));
        }
    }

    if evidence.steal > limits.degraded_steal {
        found.push((
            Trust::Degraded,
            format!("the hypervisor gave {:.0} % of CPU time to others", evidence.steal * 100.0),
        ));
    }
    found.sort_by_key(|(trust, _)| std::cmp::Reverse(*trust));
    Verdict {
        state: found.first().map_or(Trust::Valid, |(trust, _)| *trust),
        reasons: found.into_iter().map(|(_, reason)| reason).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judged(evidence: &Evidence) -> Verdict {
        judge(evidence, &VerdictThresholds::default())
    }

    #[test]
    fn a_quiet_run_is_valid() {
        let verdict = judged(&Evidence { frames_offered: 100, ..Evidence::default() });
        assert_eq!(verdict, Verdict { state: Trust::Valid, reasons: vec![] });
    }

    #[test]
    fn each_kind_of_evidence_counts_and_the_gravest_leads() {
        let late = Evidence { lateness_p99: SimTime::from_millis(20), ..Evidence::default() };
        assert_eq!(judged(&late).state, Trust::Degraded);

        let mut lost = Evidence {
            frames_offered: 1_000_000,
            unintended: vec![("n0:eth0, overload".into(), 1), ("n1:eth0, overload".into(), 9)],
            steal: 0.5,
            ..Evidence::default()
        };
        let verdict = judged(&lost);
        assert_eq!(verdict.state, Trust::Degraded);
        assert_eq!(verdict.reasons.len(), 2);
        assert!(verdict.reasons[0].contains("n1:eth0"), "{verdict:?}");
        lost.unintended[1].1 = 100_000;
        let verdict = judged(&lost);
        assert_eq!(verdict.state, Trust::Invalid);
        assert!(verdict.reasons[0].contains("100001 of 1000000"), "{verdict:?}");

        let fatal = Evidence { fatal: vec!["hard limit".into()], ..late };
        let verdict = judged(&fatal);
        assert_eq!((verdict.state, verdict.reasons[0].as_str()), (Trust::Invalid, "hard limit"));
    }

    #[test]
    fn a_loss_is_never_divided_by_nothing() {
        let odd = Evidence { unintended: vec![("x".into(), 5)], ..Evidence::default() };
        assert_eq!(judged(&odd).state, Trust::Invalid);
    }
}
