//! When a frame's transmission ends.
//!
//! Purpose: one frame after the other, each from the time at which the transmitter turns to it.
//! Within any window of time, the ends of transmissions carry at most what the rate, the bucket or
//! the trace allow.
//!
//! Assumptions: a change of rate counts for frames to which the transmitter has not turned yet.
//!
//! Reference: tc-tbf(8); mahimahi's `link_queue.cc`; RFC 2697 for the arithmetic of tokens.

use tapestry_core::link::{DeliveryTrace, Framing, LinkParameters, ScheduledRate, TokenBucket};
use tapestry_core::{DataRate, SimTime};

#[derive(Debug)]
pub(super) struct Pacer {
    framing: Framing,
    pace: Pace,
}

#[derive(Debug)]
enum Pace {
    /// At a rate, or in no time.
    Rate(Timer),
    Bucket(Bucket),
    Trace(Opportunities),
}

/// Transmission times at a rate; the latest one is mostly the next one too.
#[derive(Debug, Default)]
struct Timer {
    rate: Option<DataRate>,
    cached: Option<(DataRate, u64, SimTime)>,
}

impl Pacer {
    pub(super) fn new(now: SimTime, parameters: &LinkParameters) -> Self {
        let mut this = Self { framing: parameters.framing, pace: Pace::Rate(Timer::default()) };
        this.set(now, parameters);
        this
    }

    /// Obeys these parameters from `now` on. A bucket keeps its tokens; a trace that was not there
    /// before begins.
    pub(super) fn set(&mut self, now: SimTime, parameters: &LinkParameters) {
        self.framing = parameters.framing;
        match (&mut self.pace, &parameters.trace, &parameters.bucket, parameters.rate) {
            (Pace::Trace(present), Some(trace), ..) if present.trace == *trace => {}
            (pace, Some(trace), ..) => *pace = Pace::Trace(Opportunities::new(now, trace)),
            (Pace::Bucket(bucket), None, Some(size), Some(rate)) => bucket.set(now, rate, *size),
            (pace, None, Some(size), Some(rate)) => {
                *pace = Pace::Bucket(Bucket::new(now, rate, *size));
            }
            (Pace::Rate(timer), None, _, rate) => timer.rate = rate,
            (pace, None, _, rate) => *pace = Pace::Rate(Timer { rate, cached: None }),
        }
    }

    /// When the transmission of a frame of `len` bytes ends to which the transmitter turns at
    /// `now`; `rate` is that of a schedule.
    pub(super) fn finish(
        &mut self,
        now: SimTime,
        len: usize,
        rate: Option<ScheduledRate>,
    ) -> SimTime {
        match &mut self.pace {
            Pace::Rate(timer) => {
                let rate = rate.map_or(timer.rate, ScheduledRate::limit);
                now + timer.time(rate, || self.framing.wire_bytes(len))
            }
            Pace::Bucket(bucket) => bucket.finish(now, self.framing.wire_bytes(len)),
            Pace::Trace(trace) => {
                trace.finish(now, (len as u64).saturating_sub(ETHERNET_HEADER_BYTES))
            }
        }
    }
}

/// A trace counts the bytes of network-layer packets.
const ETHERNET_HEADER_BYTES: u64 = 14;

impl Timer {
    fn time(&mut self, rate: Option<DataRate>, bytes: impl Fn() -> u64) -> SimTime {
        let Some(rate) = rate else { return SimTime::ZERO };
        let bytes = bytes();
        match self.cached {
            Some((r, b, time)) if r == rate && b == bytes => time,
            _ => {
                let time = rate.transmit_time(bytes);
                self.cached = Some((rate, bytes, time));
                time
            }
        }
    }
}

/// A token bucket. Tokens are counted in 10⁻⁹ bits, of which a rate of 1 bit/s fills in exactly
/// one in each nanosecond: no rounding, no drift.
#[derive(Debug)]
struct Bucket {
    rate: DataRate,
    peak: Timer,
    capacity: u128,
    tokens: u128,
    /// When there were so many.
    at: SimTime,
}

const TOKENS_PER_BYTE: u128 = 8_000_000_000;

impl Bucket {
    fn new(now: SimTime, rate: DataRate, size: TokenBucket) -> Self {
        let capacity = u128::from(size.burst.as_bytes()) * TOKENS_PER_BYTE;
        let peak = Timer { rate: size.peak, cached: None };
        Self { rate, peak, capacity, tokens: capacity, at: now }
    }

    fn set(&mut self, now: SimTime, rate: DataRate, size: TokenBucket) {
        self.fill(now);
        self.rate = rate;
        self.peak.rate = size.peak;
        self.capacity = u128::from(size.burst.as_bytes()) * TOKENS_PER_BYTE;
        self.tokens = self.tokens.min(self.capacity);
    }

    fn fill(&mut self, now: SimTime) {
        let since = now.saturating_sub(self.at).as_nanos();
        let new = u128::from(since) * u128::from(self.rate.bits_per_sec());
        self.tokens = self.tokens.saturating_add(new).min(self.capacity.max(self.tokens));
        self.at = self.at.max(now);
    }

    /// The first time at which the frame can have been sent at the peak rate and there are tokens
    /// for all of it.
    fn finish(&mut self, now: SimTime, bytes: u64) -> SimTime {
        let sent = now + self.peak.time(self.peak.rate, || bytes);
        self.fill(sent);
        let need = u128::from(bytes) * TOKENS_PER_BYTE;
        let missing = need.saturating_sub(self.tokens);
        let bits_per_sec = self.rate.bits_per_sec();
        let rate = u128::from(bits_per_sec);
        // Nearly always small, and a division of 64 bits is several times as fast.
        let wait = match u64::try_from(missing) {
            Ok(missing) => u128::from(missing.div_ceil(bits_per_sec)),
            Err(_) => missing.div_ceil(rate),
        };
        // What the rounding up of the wait fills in belongs to the bucket.
        self.tokens = (self.tokens + wait * rate).saturating_sub(need);
        let finish = sent + SimTime::from_nanos(u64::try_from(wait).unwrap_or(u64::MAX));
        self.at = finish;
        finish
    }
}

/// The opportunities of a trace.
#[derive(Debug)]
struct Opportunities {
    trace: DeliveryTrace,
    origin: SimTime,
    period_nanos: u64,
    /// How often the trace has been through.
    cycle: u64,
    /// The present opportunity.
    index: usize,
    /// When it is.
    at: SimTime,
    /// Bytes it can still take.
    left: u64,
}

impl Opportunities {
    fn new(origin: SimTime, trace: &DeliveryTrace) -> Self {
        let period_nanos = trace.period().as_nanos().max(1);
        let (trace, left) = (trace.clone(), DeliveryTrace::OPPORTUNITY_BYTES);
        let mut this = Self { trace, origin, period_nanos, cycle: 0, index: 0, at: origin, left };
        this.arrive();
        this
    }

    /// The present opportunity is that of `cycle` and `index`, with nothing in it yet.
    fn arrive(&mut self) {
        let within = SimTime::from_millis(self.trace.millis()[self.index]);
        let before = SimTime::from_nanos(self.period_nanos.saturating_mul(self.cycle));
        self.at = self.origin + before + within;
        self.left = DeliveryTrace::OPPORTUNITY_BYTES;
    }

    fn advance(&mut self) {
        self.index += 1;
        if self.index == self.trace.millis().len() {
            self.index = 0;
            self.cycle += 1;
        }
        self.arrive();
    }

    /// Goes to the first opportunity that is not before `now`. What is left of earlier ones is
    /// lost.
    fn seek(&mut self, now: SimTime) {
        if self.at >= now {
            return;
        }
        // `now` is after an opportunity, so after the origin. The last opportunity of a cycle is
        // at the period itself.
        let since = now.saturating_sub(self.origin).as_nanos();
        self.cycle = (since - 1) / self.period_nanos;
        let within = since - self.cycle * self.period_nanos;
        self.index = self.trace.millis().partition_point(|ms| ms * 1_000_000 < within);
        self.arrive();
    }

    fn finish(&mut self, now: SimTime, mut bytes: u64) -> SimTime {
        self.seek(now);
        while bytes > self.left {
            bytes -= self.left;
            self.advance();
        }
        self.left -= bytes;
        self.at
    }
}

#[cfg(test)]
mod tests;
