use proptest::prelude::*;
use tapestry_core::ByteCount;

use super::*;

const MS: u64 = 1_000_000;

fn rate(bits_per_sec: u64) -> DataRate {
    DataRate::from_bits_per_sec(bits_per_sec).unwrap()
}

fn bucket(rate_bits: u64, burst: u64, peak: Option<u64>) -> LinkParameters {
    LinkParameters {
        framing: Framing::NONE,
        bucket: Some(TokenBucket { burst: ByteCount::from_bytes(burst), peak: peak.map(rate) }),
        ..LinkParameters::new(Some(rate(rate_bits)), SimTime::ZERO)
    }
}

fn traced(text: &str) -> LinkParameters {
    LinkParameters { trace: Some(DeliveryTrace::parse(text).unwrap()), ..LinkParameters::default() }
}

/// The ends of transmissions in ns of frames that all wait from the beginning.
fn ends(parameters: &LinkParameters, lengths: &[usize]) -> Vec<u64> {
    let mut pacer = Pacer::new(SimTime::ZERO, parameters);
    let mut now = SimTime::ZERO;
    lengths
        .iter()
        .map(|&len| {
            now = pacer.finish(now, len, None);
            now.as_nanos()
        })
        .collect()
}

#[test]
fn a_full_bucket_goes_at_once_and_then_at_the_rate() {
    // 8 Mbit/s is a byte in a microsecond.
    assert_eq!(ends(&bucket(8_000_000, 3_000, None), &[1_000; 5]), [0, 0, 0, MS, 2 * MS],);
    // At ten times the rate; what would fill in during the first frame finds the bucket full.
    assert_eq!(
        ends(&bucket(8_000_000, 3_000, Some(80_000_000)), &[1_000; 5]),
        [100_000, 200_000, 300_000, 1_100_000, 2_100_000],
    );
}

#[test]
fn a_bucket_fills_up_to_its_size_and_keeps_its_tokens_through_a_change() {
    let mut pacer = Pacer::new(SimTime::ZERO, &bucket(8_000_000, 2_000, None));
    let at = |ns| SimTime::from_nanos(ns);
    assert_eq!(pacer.finish(at(0), 2_000, None), at(0));
    assert_eq!(pacer.finish(at(MS), 500, None), at(MS));
    // 500 bytes are left at 1 ms, and none of the next frame's 1000 more than the new rate brings.
    pacer.set(at(MS), &bucket(4_000_000, 2_000, None));
    assert_eq!(pacer.finish(at(MS), 1_000, None), at(2 * MS));
    // However long the rest, no more than the bucket.
    assert_eq!(pacer.finish(at(1_000 * MS), 2_000, None), at(1_000 * MS));
    assert_eq!(pacer.finish(at(1_000 * MS), 1, None), at(1_000 * MS + 2_000));
}

#[test]
fn a_trace_delivers_1500_bytes_an_opportunity() {
    // Two opportunities at 1 ms, one at 5; the trace repeats after 5 ms.
    let trace = traced("1\n1\n5\n");
    assert_eq!(
        ends(&trace, &[1_514; 7]).iter().map(|ns| ns / MS).collect::<Vec<_>>(),
        [1, 1, 5, 6, 6, 10, 11]
    );
    // Small packets share an opportunity; one that does not fit takes the rest of it and waits.
    assert_eq!(
        ends(&trace, &[514, 514, 514, 514]).iter().map(|ns| ns / MS).collect::<Vec<_>>(),
        [1, 1, 1, 1]
    );
    assert_eq!(
        ends(&traced("1\n3\n"), &[1_014, 1_014, 1_014])
            .iter()
            .map(|ns| ns / MS)
            .collect::<Vec<_>>(),
        [1, 3, 3]
    );
}

#[test]
fn opportunities_without_a_frame_are_lost() {
    let mut pacer = Pacer::new(SimTime::ZERO, &traced("1\n2\n10\n"));
    let ms = SimTime::from_millis;
    assert_eq!(pacer.finish(ms(3), 1_514, None), ms(10));
    assert_eq!(pacer.finish(ms(12), 1_514, None), ms(12));
    assert_eq!(pacer.finish(SimTime::from_nanos(12 * MS + 1), 60, None), ms(20));
    assert_eq!(pacer.finish(ms(10_005), 60, None), ms(10_010));
    assert_eq!(pacer.finish(ms(10_010), 60, None), ms(10_010));
}

proptest! {
    /// Between any two ends of transmissions, no more passes than the bucket and the rate bring,
    /// and never faster than the peak.
    #[test]
    fn no_window_carries_more_than_the_bucket(
        rate_bits in 1_000_u64..10_000_000_000,
        burst in 1_600_u64..100_000,
        peak_factor in prop::option::of(2_u64..10),
        frames in prop::collection::vec((0_u64..3_000_000, 1_usize..1_500), 1..120),
    ) {
        let peak = peak_factor.map(|factor| rate_bits * factor);
        let mut pacer = Pacer::new(SimTime::ZERO, &bucket(rate_bits, burst, peak));
        let (mut now, mut end) = (SimTime::ZERO, SimTime::ZERO);
        let mut sent = Vec::new();
        for (gap, len) in frames {
            now += SimTime::from_nanos(gap);
            let start = now.max(end);
            end = pacer.finish(start, len, None);
            prop_assert!(end >= start);
            if let Some(peak) = peak {
                prop_assert!(end - start >= rate(peak).transmit_time(len as u64));
            }
            sent.push((u128::from(end.as_nanos()), len as u128));
        }
        for first in 0..sent.len() {
            let mut bytes = 0;
            for &(end, len) in &sent[first..] {
                bytes += len;
                let time = end - sent[first].0;
                let allowed = u128::from(burst) * 8_000_000_000 + u128::from(rate_bits) * time;
                prop_assert!(bytes * 8_000_000_000 <= allowed);
            }
        }
    }

    /// Up to any time, no more bytes have left than the opportunities until then carry.
    #[test]
    fn no_window_carries_more_than_the_trace(
        gaps in prop::collection::vec(0_u64..4, 1..20),
        frames in prop::collection::vec((0_u64..8_000_000, 15_usize..1_600), 1..200),
    ) {
        let mut at = 0;
        let mut times: Vec<u64> = gaps.iter().map(|gap| { at += gap; at }).collect();
        times.push(at + 1);
        let text = times.iter().map(u64::to_string).collect::<Vec<_>>().join("\n");
        let period = at + 1;
        let mut pacer = Pacer::new(SimTime::ZERO, &traced(&text));
        let (mut now, mut end) = (SimTime::ZERO, SimTime::ZERO);
        let mut sent: Vec<(u64, u64)> = Vec::new();
        for (gap, len) in frames {
            now += SimTime::from_nanos(gap);
            let start = now.max(end);
            end = pacer.finish(start, len, None);
            prop_assert!(end >= start && end.as_nanos() % MS == 0);
            sent.push((end.as_nanos() / MS, len as u64 - 14));
        }
        let opportunities = |until: u64| -> u64 {
            let cycles = until / period;
            let full = cycles * times.len() as u64;
            full + times.iter().filter(|&&time| time + cycles * period <= until).count() as u64
        };
        for first in 0..sent.len() {
            let mut bytes = 0;
            for &(end, len) in &sent[first..] {
                bytes += len;
                // The first frame may have begun in earlier opportunities.
                let window = opportunities(end) - sent[first].0.checked_sub(1).map_or(0, opportunities);
                prop_assert!(bytes <= window * 1_500 + sent[first].1);
            }
        }
    }
}
