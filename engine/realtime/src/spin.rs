//! Adaptive spinning before a timer.
//!
//! Purpose: a thread that sleeps until a deadline wakes tens of microseconds late. So a worker may
//! sleep until a little before the deadline and poll the rest. Polling burns a core that guests may
//! need, so it is bounded three ways: one spin lasts at most a learned *margin* (how late nine of ten
//! wake-ups are at most, and never more than [`SpinPolicy::longest`]); all spins together take at most a *share* of the
//! time; and when the scheduler takes the core away during a spin (an involuntary context switch),
//! somebody needs it and spinning pauses, each time for longer. Assumes nothing about core count.
//! Reference: Linux `cpuidle` haltpoll and KVM's `halt_poll_ns` grow/shrink rule.

use nix::sys::resource::{UsageWho, getrusage};
use tapestry_core::SimTime;

/// How much a worker may poll instead of sleep.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SpinPolicy {
    /// Longest single spin; zero never spins.
    pub longest: SimTime,
    /// Largest share of the time spent spinning, in percent.
    pub share_percent: u32,
}

impl SpinPolicy {
    /// Sleeps only.
    pub const OFF: Self = Self { longest: SimTime::ZERO, share_percent: 0 };
}

impl Default for SpinPolicy {
    /// At most 200 µs at a time, since an idle core of a virtual machine takes 100 µs and more to wake,
    /// and 10 % of one core: guests come first.
    fn default() -> Self {
        Self { longest: SimTime::from_micros(200), share_percent: 10 }
    }
}

/// Decides how much of each wait is polled.
#[derive(Debug)]
pub(crate) struct Spinner {
    policy: SpinPolicy,
    /// Learned lateness of wake-ups, in nanoseconds.
    margin_ns: u64,
    /// Spinning time saved up, in nanoseconds.
    credit_ns: u64,
    /// When credit was last added.
    refilled: SimTime,
    /// No spinning before this time.
    paused_until: SimTime,
    /// Length of the next pause.
    pause: SimTime,
    /// Time spent spinning.
    total_ns: u64,
}

/// Most credit that can be saved, so that a quiet hour does not pay for a minute of spinning.
const LARGEST_CREDIT_NS: u64 = 2_000_000;
/// First pause after the scheduler interfered; doubles up to `LONGEST_PAUSE`.
const FIRST_PAUSE: SimTime = SimTime::from_millis(5);
const LONGEST_PAUSE: SimTime = SimTime::from_millis(500);

/// By how much the margin grows after a wake-up that came too late, and shrinks after another.
const RISE_NS: u64 = 4_500;
const FALL_NS: u64 = 500;

impl Spinner {
    pub(crate) fn new(policy: SpinPolicy) -> Self {
        Self {
            policy,
            margin_ns: policy.longest.as_nanos() / 2,
            credit_ns: 0,
            refilled: SimTime::ZERO,
            paused_until: SimTime::ZERO,
            pause: FIRST_PAUSE,
            total_ns: 0,
        }
    }

    /// How long before its deadline a sleep that starts at `now` should end.
    pub(crate) fn margin(&mut self, now: SimTime) -> SimTime {
        let passed = (now - self.refilled).as_nanos();
        self.refilled = now;
        let earned = passed.saturating_mul(u64::from(self.policy.share_percent)) / 100;
        self.credit_ns = self.credit_ns.saturating_add(earned).min(LARGEST_CREDIT_NS);
        if now < self.paused_until || self.credit_ns < self.margin_ns {
            return SimTime::ZERO;
        }
        SimTime::from_nanos(self.margin_ns)
    }

    /// Learns from a sleep that should have ended at `planned` and ended at `woken`.
    pub(crate) fn woke(&mut self, planned: SimTime, woken: SimTime) {
        let late = (woken - planned).as_nanos();
        // A stochastic approximation (Robbins and Monro) of the quantile RISE / (RISE + FALL).
        self.margin_ns = if late > self.margin_ns {
            (self.margin_ns + RISE_NS).min(self.policy.longest.as_nanos())
        } else {
            self.margin_ns.saturating_sub(FALL_NS)
        };
    }

    /// Charges a spin from `from` to `to`; `preempted` says that the scheduler interfered.
    pub(crate) fn spun(&mut self, from: SimTime, to: SimTime, preempted: bool) {
        let spent = (to - from).as_nanos();
        self.total_ns += spent;
        self.credit_ns = self.credit_ns.saturating_sub(spent);
        if preempted {
            self.paused_until = to + self.pause;
            self.pause = (self.pause * 2).min(LONGEST_PAUSE);
        } else {
            self.pause = (self.pause - SimTime::from_micros(100)).max(FIRST_PAUSE);
        }
    }

    /// Time spent spinning so far.
    pub(crate) fn total(&self) -> SimTime {
        SimTime::from_nanos(self.total_ns)
    }
}

/// How often the scheduler took the core from this thread while it could have gone on.
pub(crate) fn preemptions() -> i64 {
    getrusage(UsageWho::RUSAGE_THREAD).map_or(0, |usage| usage.involuntary_context_switches())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn us(micros: u64) -> SimTime {
        SimTime::from_micros(micros)
    }

    #[test]
    fn off_never_spins() {
        let mut spinner = Spinner::new(SpinPolicy::OFF);
        for second in 1..5 {
            assert_eq!(spinner.margin(SimTime::from_secs(second)), SimTime::ZERO);
            spinner.woke(SimTime::ZERO, us(80));
        }
    }

    #[test]
    fn the_margin_follows_how_late_wakeups_are_and_stays_within_the_policy() {
        let policy = SpinPolicy { longest: us(60), share_percent: 50 };
        let mut spinner = Spinner::new(policy);
        for _ in 0..100 {
            spinner.woke(us(100), us(120));
        }
        let margin = spinner.margin(SimTime::from_secs(1));
        assert!(margin > us(19) && margin < us(25), "{margin}");
        // One wake-up of twenty is later than the spin can be worth.
        for wakeup in 0..1_000 {
            spinner.woke(us(100), if wakeup % 20 == 0 { us(155) } else { us(130) });
        }
        let margin = spinner.margin(SimTime::from_millis(1_500));
        assert!(margin > us(29) && margin < us(35), "{margin}");
        for _ in 0..100 {
            spinner.woke(us(100), us(9_000));
        }
        assert_eq!(spinner.margin(SimTime::from_secs(2)), us(60));
    }

    #[test]
    fn spinning_takes_no_more_than_its_share() {
        let mut spinner = Spinner::new(SpinPolicy { longest: us(50), share_percent: 10 });
        let mut now = SimTime::ZERO;
        while now < SimTime::from_secs(1) {
            // Wants to spin all the time.
            let margin = spinner.margin(now);
            let end = now + margin.max(us(1));
            if margin > SimTime::ZERO {
                spinner.spun(now, end, false);
            }
            now = end;
        }
        assert!(spinner.total() <= SimTime::from_millis(101), "{}", spinner.total());
        assert!(spinner.total() >= SimTime::from_millis(50), "{}", spinner.total());
    }

    #[test]
    fn an_interfering_scheduler_pauses_spinning_for_longer_each_time() {
        let mut spinner = Spinner::new(SpinPolicy { longest: us(50), share_percent: 100 });
        let start = SimTime::from_secs(1);
        assert!(spinner.margin(start) > SimTime::ZERO);
        spinner.spun(start, start + us(10), true);
        assert_eq!(spinner.margin(start + us(4_000)), SimTime::ZERO);
        let resumed = start + us(5_010);
        assert!(spinner.margin(resumed) > SimTime::ZERO);
        spinner.spun(resumed, resumed, true);
        assert_eq!(spinner.margin(resumed + us(9_000)), SimTime::ZERO);
        assert!(spinner.margin(resumed + us(10_000)) > SimTime::ZERO);
    }
}
