//! The end of slow start, found before a queue overflows: `HyStart`'s rule at the sender's buffer.
//!
//! Purpose: smoltcp leaves slow start when frames get lost, up to half a window at once, and repairs
//! one loss a round trip or waits for its timer. A sender that gives it no more than the path has
//! room for is spared that: the bytes unacknowledged grow as in slow start until round trips take
//! longer than at first, from then on by a segment a round trip. smoltcp's window still limits it.
//!
//! Assumptions: what is written within the bound leaves at once.
//!
//! Not modelled: the conservative phase of `HyStart++`, since growth is slow from the first longer
//! round trip on.
//!
//! Reference: RFC 9406, 4.2, with its constants; RFC 5681, 3.1.

use std::collections::VecDeque;

use tapestry_core::SimTime;

/// Samples before a round's shortest time counts.
const SAMPLES: u32 = 8;
/// How much longer than the shortest a round trip may take: an eighth, within these bounds.
const LEAST_RISE: SimTime = SimTime::from_millis(4);
const MOST_RISE: SimTime = SimTime::from_millis(16);
/// Segments that may be unacknowledged at first: smoltcp's own window then.
const FIRST_SEGMENTS: u64 = 2;

#[derive(Debug)]
pub(super) struct SlowStart {
    segment: u64,
    /// Bytes that may be unacknowledged.
    bound: u64,
    is_over: bool,
    acknowledged: u64,
    /// Bytes written so far by each write, and when, of those not acknowledged.
    writes: VecDeque<(u64, SimTime)>,
    /// The present round ends when this byte is acknowledged.
    round_end: u64,
    round: Option<SimTime>,
    samples: u32,
    shortest: Option<SimTime>,
    /// Bytes acknowledged since the bound grew, once slow start is over.
    credit: u64,
}

impl SlowStart {
    /// At the start of a connection with segments of so many bytes.
    pub(super) fn new(segment: usize) -> Self {
        let segment = segment.max(1) as u64;
        Self {
            segment,
            bound: FIRST_SEGMENTS * segment,
            is_over: false,
            acknowledged: 0,
            writes: VecDeque::new(),
            round_end: 0,
            round: None,
            samples: 0,
            shortest: None,
            credit: 0,
        }
    }

    /// Bytes that may be written now: whole segments, so that none is sent in part.
    pub(super) fn room(&self, written: u64) -> u64 {
        let room = self.bound.saturating_sub(written - self.acknowledged);
        room - room % self.segment
    }

    /// Takes note of a write that brought the bytes written to `written`.
    pub(super) fn wrote(&mut self, now: SimTime, written: u64) {
        if !self.is_over {
            self.writes.push_back((written, now));
        }
    }

    /// Takes note of how many bytes are acknowledged, of those written so far.
    pub(super) fn acknowledge(&mut self, now: SimTime, acknowledged: u64, written: u64) {
        let new = acknowledged.saturating_sub(self.acknowledged);
        if new == 0 {
            return;
        }
        self.acknowledged = acknowledged;
        if self.is_over {
            self.credit += new;
            if self.credit >= self.bound {
                self.credit -= self.bound;
                self.bound += self.segment;
            }
            return;
        }
        self.bound += new.min(self.segment);
        let mut sample = None;
        while let Some((_, at)) = self.writes.pop_front_if(|(end, _)| *end <= acknowledged) {
            sample = Some(now - at);
        }
        if let Some(sample) = sample {
            self.round = Some(self.round.map_or(sample, |least| least.min(sample)));
            self.samples += 1;
        }
        if let (Some(round), Some(shortest)) = (self.round, self.shortest)
            && self.samples >= SAMPLES
        {
            let rise = SimTime::from_nanos(shortest.as_nanos() / 8);
            if round >= shortest + rise.clamp(LEAST_RISE, MOST_RISE) {
                self.is_over = true;
                self.writes = VecDeque::new();
                return;
            }
        }
        if acknowledged >= self.round_end {
            self.shortest = match (self.shortest, self.round) {
                (Some(shortest), Some(round)) => Some(shortest.min(round)),
                (shortest, round) => shortest.or(round),
            };
            (self.round, self.samples, self.round_end) = (None, 0, written);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SEGMENT: u64 = 1_000;

    /// Writes what there is room for and acknowledges it segment by segment, `time` later.
    fn round(start: &mut SlowStart, now: &mut SimTime, written: &mut u64, time: SimTime) {
        let from = *written;
        *written += start.room(*written);
        for end in (from..*written).step_by(SEGMENT as usize) {
            start.wrote(*now, end + SEGMENT);
        }
        *now += time;
        for end in (from..*written).step_by(SEGMENT as usize) {
            start.acknowledge(*now, end + SEGMENT, *written);
        }
    }

    #[test]
    fn it_doubles_until_round_trips_take_longer() {
        let mut start = SlowStart::new(SEGMENT as usize);
        let (mut now, mut written) = (SimTime::ZERO, 0);
        let ms = SimTime::from_millis;
        for segments in [2, 4, 8, 16, 32] {
            assert_eq!(start.room(written), segments * SEGMENT);
            round(&mut start, &mut now, &mut written, ms(20));
        }
        // Less than 4 ms more is no queue yet.
        round(&mut start, &mut now, &mut written, ms(23));
        assert!(!start.is_over);
        let before = start.room(written);
        round(&mut start, &mut now, &mut written, ms(24));
        assert!(start.is_over);
        let bound = start.room(written);
        assert!((before..before + 10 * SEGMENT).contains(&bound), "{before} {bound}");
        // From now on a segment a round trip.
        round(&mut start, &mut now, &mut written, ms(24));
        round(&mut start, &mut now, &mut written, ms(24));
        let grown = start.room(written) - bound;
        assert!((SEGMENT..=3 * SEGMENT).contains(&grown), "{grown}");
    }
}
