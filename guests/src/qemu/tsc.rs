//! The frequency of the host's time stamp counter, told to guests under software translation.
//!
//! Under TCG a guest reads the host's counter, and without help measures its frequency at boot
//! against an emulated timer. On a busy host that measurement can be wrong by a factor, and then
//! the guest's clock runs fast or slow for its whole life: an `iperf -t 5` that lasts one second.
//! We know the frequency far better than the guest can find out.
//!
//! Assumes an invariant counter, as every x86-64 processor of the last decade has.
//!
//! Reference: Linux `admin-guide/kernel-parameters.txt`, `tsc_early_khz`.
#![allow(unsafe_code)]

use std::sync::OnceLock;
use std::time::{Duration, Instant};

/// The counter's frequency in kHz, measured once; `None` where it is unknown.
pub(super) fn host_khz() -> Option<u64> {
    static KHZ: OnceLock<Option<u64>> = OnceLock::new();
    *KHZ.get_or_init(khz)
}

/// The counter's frequency in kHz, measured over some milliseconds against the monotonic clock.
#[cfg(target_arch = "x86_64")]
fn khz() -> Option<u64> {
    /// Reading both clocks takes well under 1 µs, so this gives better than 0.01 %.
    const SPAN: Duration = Duration::from_millis(20);
    let (first, first_counter) = read_both();
    std::thread::sleep(SPAN);
    let (last, last_counter) = read_both();
    let elapsed = u64::try_from((last - first).as_nanos()).ok()?;
    let khz =
        u128::from(last_counter.checked_sub(first_counter)?) * 1_000_000 / u128::from(elapsed);
    u64::try_from(khz).ok().filter(|khz| (100_000..20_000_000).contains(khz))
}

#[cfg(not(target_arch = "x86_64"))]
fn khz() -> Option<u64> {
    None
}

/// Both clocks as close together as a few attempts allow: another program may run in between.
#[cfg(target_arch = "x86_64")]
fn read_both() -> (Instant, u64) {
    // SAFETY: the instruction reads a counter and has no other effect; every x86-64 has it.
    let counter = || unsafe { core::arch::x86_64::_rdtsc() };
    let attempt = || {
        let before = counter();
        let now = Instant::now();
        (counter() - before, now, before)
    };
    let best = (0..16).map(|_| attempt()).min_by_key(|(width, ..)| *width);
    let (width, now, before) = best.expect("there are attempts");
    (now, before + width / 2)
}

#[cfg(all(test, target_arch = "x86_64"))]
mod tests {
    use super::*;

    #[test]
    fn the_frequency_is_plausible_and_repeatable() {
        let (Some(one), Some(two)) = (khz(), khz()) else { panic!("no frequency on x86-64") };
        assert!(one.abs_diff(two) < one / 1000, "{one} kHz, then {two} kHz");
    }
}
