//! The verdict: how far a run's own timing can be trusted.
//!
//! Purpose: emulation is only as good as its timing. From the lateness of events, times in which the
//! emulator stood still, frames lost where no model meant to lose them, and CPU time the hypervisor took away, a run is *valid*,
//! *degraded* (read it with care) or *invalid* (do not use its figures), with the reasons.
//! Thresholds come from the topology file (`verdict:`).

use serde::{Deserialize, Serialize};
use tapestry_core::SimTime;
use tapestry_realtime::{Lateness, LinkReport, Snapshot};
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
    /// Lateness of events, over all workers.
    pub events: Late,
    /// Lateness of the workers' beats, whose percentiles are shares of the time (see
    /// [`Snapshot::pulse`]).
    pub pulse: Late,
    /// Links on which frames were lost where no model meant to.
    pub losses: Vec<Losses>,
    /// Frames that nodes handed to the emulator, those lost before it saw them included.
    pub frames_offered: u64,
    /// Share (0–1) of CPU time stolen.
    pub steal: f64,
    /// Anything that makes the run invalid by itself (a hard limit passed, a worker that died).
    pub fatal: Vec<String>,
}

/// How late something was.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Late {
    /// 99th percentile.
    pub p99: SimTime,
    /// Largest.
    pub max: SimTime,
    /// What was that late.
    pub latest: Option<String>,
}

impl From<&Lateness> for Late {
    fn from(lateness: &Lateness) -> Self {
        Self {
            p99: SimTime::from_nanos(lateness.p99_ns),
            max: SimTime::from_nanos(lateness.max_ns),
            latest: lateness.max_event.clone(),
        }
    }
}

/// Frames that one link lost unintendedly.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Losses {
    /// The link.
    pub link: String,
    /// Frames sent into it.
    pub offered: u64,
    /// Frames lost by place and reason; at least one.
    pub places: Vec<(String, u64)>,
}

impl Losses {
    /// A share of fewer frames than this says little: one frame of ten is no tenth of a measurement.
    const FEWEST_FRAMES: u64 = 1000;

    /// Frames lost.
    pub fn frames(&self) -> u64 {
        self.places.iter().map(|(_, frames)| frames).sum()
    }

    /// Share (0–1) of frames lost, of no fewer than a thousand.
    fn share(&self) -> f64 {
        let lost = self.frames();
        lost as f64 / self.offered.max(lost).max(Self::FEWEST_FRAMES) as f64
    }
}

impl Evidence {
    /// What counters and timing at one time say, less what was counted before measuring began: nobody
    /// measured during the boot, so its losses do not count.
    pub fn new(baseline: Option<&Snapshot>, now: Option<&Snapshot>, steal: f64) -> Self {
        let Some(now) = now else {
            return Self { steal, ..Self::default() };
        };
        let losses = now.links.iter().enumerate().filter_map(|(index, link)| {
            let before = baseline.and_then(|baseline| baseline.links.get(index));
            let mut places = link.unintended();
            for (place, frames) in before.map(LinkReport::unintended).unwrap_or_default() {
                if let Some(entry) = places.iter_mut().find(|entry| entry.0 == place) {
                    entry.1 = entry.1.saturating_sub(frames);
                }
            }
            places.retain(|(_, frames)| *frames > 0);
            let before = before.map_or(0, LinkReport::frames_offered);
            let offered = link.frames_offered().saturating_sub(before);
            (!places.is_empty()).then(|| Losses { link: link.name.clone(), offered, places })
        });
        let before = baseline.map_or(0, Snapshot::frames_offered);
        Self {
            events: Late::from(&now.lateness),
            pulse: Late::from(&now.pulse),
            losses: losses.collect(),
            frames_offered: now.frames_offered().saturating_sub(before),
            steal,
            fatal: Vec::new(),
        }
    }

    /// Frames lost although no model meant it.
    pub fn unintended(&self) -> u64 {
        self.losses.iter().map(Losses::frames).sum()
    }
}

/// Weighs the evidence.
pub fn judge(evidence: &Evidence, limits: &VerdictThresholds) -> Verdict {
    let mut found: Vec<(Trust, String)> =
        evidence.fatal.iter().map(|reason| (Trust::Invalid, reason.clone())).collect();
    let late =
        [("events ran late", &evidence.events), ("the emulator stood still", &evidence.pulse)];
    found.extend(late.into_iter().filter_map(|(what, late)| judge_late(what, late, limits)));
    found.extend(judge_losses(&evidence.losses, limits));
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

fn judge_late(what: &str, late: &Late, limits: &VerdictThresholds) -> Option<(Trust, String)> {
    let millis = |time: SimTime| time.as_secs_f64() * 1e3;
    let shown = format!(
        "{what}: 99th percentile {:.3} ms, worst {:.3} ms{}",
        millis(late.p99),
        millis(late.max),
        late.latest.as_ref().map_or(String::new(), |event| format!(" ({event})"))
    );
    let judged = [
        (Trust::Invalid, "99th percentile", late.p99, limits.invalid_lateness_p99),
        (Trust::Invalid, "worst", late.max, limits.invalid_lateness_max),
        (Trust::Degraded, "99th percentile", late.p99, limits.degraded_lateness_p99),
        (Trust::Degraded, "worst", late.max, limits.degraded_lateness_max),
    ];
    let (trust, which, _, limit) =
        judged.into_iter().find(|(_, _, lateness, limit)| lateness > limit)?;
    Some((trust, format!("{shown}; limit of the {which}: {limit}")))
}

/// The link that lost the greatest share decides: a link that is nearly dead is not made good by
/// others that are not.
fn judge_losses(losses: &[Losses], limits: &VerdictThresholds) -> Option<(Trust, String)> {
    let worst = losses.iter().max_by(|a, b| a.share().total_cmp(&b.share()))?;
    let trust = match worst.share() {
        share if share > limits.invalid_unintended_loss => Trust::Invalid,
        share if share > limits.degraded_unintended_loss => Trust::Degraded,
        _ => return None,
    };
    let (place, frames) = worst.places.iter().max_by_key(|(_, frames)| *frames)?;
    let lost = worst.frames();
    let others = match losses.len() - 1 {
        0 => String::new(),
        1 => "; another link lost frames, too".to_owned(),
        others => format!("; {others} other links lost frames, too"),
    };
    Some((
        trust,
        format!(
            "link {} lost {lost} of {} frames ({:.3} %) that no model meant to lose, most \
             ({frames}) at {place}{others}",
            worst.link,
            worst.offered.max(lost),
            lost as f64 / worst.offered.max(lost) as f64 * 100.0
        ),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judged(evidence: &Evidence) -> Verdict {
        judge(evidence, &VerdictThresholds::default())
    }

    fn late(p99_ms: u64, max_ms: u64) -> Late {
        let ms = SimTime::from_millis;
        Late { p99: ms(p99_ms), max: ms(max_ms), latest: Some("a timer".into()) }
    }

    fn lost(link: &str, offered: u64, places: &[(&str, u64)]) -> Losses {
        let places = places.iter().map(|&(place, frames)| (place.to_owned(), frames)).collect();
        Losses { link: link.to_owned(), offered, places }
    }

    #[test]
    fn a_quiet_run_is_valid() {
        let verdict = judged(&Evidence { frames_offered: 100, ..Evidence::default() });
        assert_eq!(verdict, Verdict { state: Trust::Valid, reasons: vec![] });
    }

    #[test]
    fn each_kind_of_evidence_counts_and_the_gravest_leads() {
        let events = Evidence { events: late(20, 30), ..Evidence::default() };
        assert_eq!(judged(&events).state, Trust::Degraded);

        let mut losses = Evidence {
            losses: vec![lost("l", 1_000_000, &[("n0, overload", 1), ("n1, overload", 9)])],
            steal: 0.5,
            ..Evidence::default()
        };
        let verdict = judged(&losses);
        assert_eq!(verdict.state, Trust::Degraded);
        assert_eq!(verdict.reasons.len(), 2);
        assert!(verdict.reasons[0].contains("n1"), "{verdict:?}");
        losses.losses[0].places[1].1 = 100_000;
        let verdict = judged(&losses);
        assert_eq!(verdict.state, Trust::Invalid);
        assert!(verdict.reasons[0].contains("100001 of 1000000"), "{verdict:?}");

        let fatal = Evidence { fatal: vec!["hard limit".into()], ..events };
        let verdict = judged(&fatal);
        assert_eq!((verdict.state, verdict.reasons[0].as_str()), (Trust::Invalid, "hard limit"));
    }

    #[test]
    fn a_standstill_counts_though_no_event_was_late() {
        let stood = |pulse| judged(&Evidence { pulse, ..Evidence::default() });
        assert_eq!(stood(late(9, 90)).state, Trust::Valid);
        // Rare, but long.
        assert_eq!(stood(late(1, 200)).state, Trust::Degraded);
        assert_eq!(stood(late(1, 2_000)).state, Trust::Invalid);
        let verdict = stood(late(500, 900));
        assert_eq!(verdict.state, Trust::Invalid);
        assert!(verdict.reasons[0].contains("stood still"), "{verdict:?}");
    }

    #[test]
    fn a_link_that_is_nearly_dead_is_not_made_good_by_others() {
        let losses = vec![
            lost("big", 240_000, &[("b (backpressure)", 10)]),
            lost("small", 206, &[("h3 (backpressure)", 197)]),
        ];
        let verdict = judged(&Evidence { losses, frames_offered: 240_206, ..Evidence::default() });
        assert_eq!(verdict.state, Trust::Invalid);
        let reason = &verdict.reasons[0];
        assert!(reason.contains("link small lost 197 of 206 frames (95.631 %)"), "{reason}");
        assert!(reason.contains("another link"), "{reason}");
    }

    #[test]
    fn one_frame_of_a_few_is_no_reason_to_give_up() {
        let losses = vec![lost("l", 40, &[("a", 1)])];
        let verdict = judged(&Evidence { losses, ..Evidence::default() });
        assert_eq!(verdict.state, Trust::Degraded);
    }

    #[test]
    fn a_loss_is_never_divided_by_nothing() {
        let odd = Evidence { losses: vec![lost("l", 0, &[("x", 5)])], ..Evidence::default() };
        let verdict = judged(&odd);
        assert_eq!(verdict.state, Trust::Invalid);
        assert!(verdict.reasons[0].contains("5 of 5 frames (100.000 %)"), "{verdict:?}");
    }
}
