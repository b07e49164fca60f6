//! The datagrams of iperf 2.
//!
//! A datagram begins with its number (negative in the last one), the seconds and microseconds of
//! its sending, and the number's upper half; all big-endian 32-bit numbers. What follows are the
//! client's settings; all zero, they ask for nothing beyond the oldest protocol. The server answers
//! the last datagram with its report behind such a header.

use tapestry_core::SimTime;

use super::options::MIN_LENGTH;
use super::report::{Line, Tally};
use crate::host::stack::packet::u32_at;

/// Marks a report.
const VERSION_1: u32 = 0x8000_0000;
/// Bytes of a report, as iperf 2.1 sends it.
pub(super) const REPORT: usize = 128;

/// The head of a datagram sent when the host's clock shows `clock`; a negative number closes the stream.
pub(super) fn head(number: i64, clock: SimTime) -> [u8; MIN_LENGTH] {
    let nanos = clock.as_nanos();
    let words = [number as u32, (nanos / 1_000_000_000) as u32, (nanos / 1_000 % 1_000_000) as u32];
    let mut head = [0; MIN_LENGTH];
    for (place, word) in head.as_chunks_mut::<4>().0.iter_mut().zip(words) {
        *place = word.to_be_bytes();
    }
    head
}

/// Number and time of sending; `None` if the datagram is too short.
pub(super) fn parse(datagram: &[u8]) -> Option<(i64, SimTime)> {
    let number = i64::from(u32_at(datagram, 0)?.cast_signed());
    let (seconds, micros) = (u32_at(datagram, 4)?, u32_at(datagram, 8)?);
    let nanos = u64::from(seconds) * 1_000_000_000 + u64::from(micros) * 1_000;
    Some((number, SimTime::from_nanos(nanos)))
}

/// A server's report.
pub(super) fn report(line: &Line, jitter: SimTime) -> [u8; REPORT] {
    let Tally { bytes, highest, lost, out_of_order, .. } = line.tally;
    let time = line.to.as_nanos();
    let jitter = jitter.as_nanos();
    let words = [
        VERSION_1,
        (bytes >> 32) as u32,
        bytes as u32,
        (time / 1_000_000_000) as u32,
        (time / 1_000 % 1_000_000) as u32,
        lost as u32,
        out_of_order as u32,
        highest as u32,
        (jitter / 1_000_000_000) as u32,
        (jitter / 1_000 % 1_000_000) as u32,
    ];
    let mut report = [0; REPORT];
    for (place, word) in report[MIN_LENGTH..].as_chunks_mut::<4>().0.iter_mut().zip(words) {
        *place = word.to_be_bytes();
    }
    report
}

/// Reads a server's report: its line and the jitter.
pub(super) fn parse_report(datagram: &[u8]) -> Option<(Line, SimTime)> {
    let word = |i: usize| u32_at(datagram, MIN_LENGTH + i * 4);
    if word(0)? & VERSION_1 == 0 {
        return None;
    }
    let time = |seconds: u32, micros: u32| {
        SimTime::from_nanos(u64::from(seconds) * 1_000_000_000 + u64::from(micros) * 1_000)
    };
    let tally = Tally {
        bytes: u64::from(word(1)?) << 32 | u64::from(word(2)?),
        lost: i64::from(word(5)?),
        out_of_order: word(6)?.into(),
        highest: word(7)?.into(),
        datagrams: word(7)?.into(),
    };
    let line = Line { from: SimTime::ZERO, to: time(word(3)?, word(4)?), tally };
    Some((line, time(word(8)?, word(9)?)))
}
