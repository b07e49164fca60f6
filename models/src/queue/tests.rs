use std::collections::{BTreeMap, VecDeque};

use proptest::prelude::*;
use tapestry_core::{Probability, Streams};

use super::*;

/// An Ethernet frame with a UDP datagram of `bytes` in all, from one of many ports, with a DSCP
/// and an ECN field.
pub(super) fn datagram(bytes: usize, flow: u8, dscp: u8, ecn: u8) -> Frame {
    let mut frame = vec![0; bytes.max(42)];
    frame[12..14].copy_from_slice(&[0x08, 0x00]);
    frame[14] = 0x45;
    frame[15] = dscp << 2 | ecn;
    frame[23] = 17;
    frame[26..34].copy_from_slice(&[10, 0, 0, 1, 10, 0, 0, 2]);
    frame[34..38].copy_from_slice(&[0x10, flow, 0x13, 0x89]);
    let sum = checksum(&frame[14..34]);
    frame[24..26].copy_from_slice(&sum.to_be_bytes());
    Frame::from(frame)
}

/// The checksum of an IPv4 header, computed from scratch; 0 over one that has the right checksum.
pub(super) fn checksum(header: &[u8]) -> u16 {
    let words = header.chunks(2).map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]])));
    let sum = words.fold(0, |sum, word| {
        let sum: u32 = sum + word;
        (sum & 0xffff) + (sum >> 16)
    });
    !(sum as u16)
}

pub(super) fn random() -> RandomStream {
    Streams::new(1, 0).stream("test", "queue")
}

/// A queue that remembers what it reported.
pub(super) struct Bench {
    queue: Queue,
    pub(super) now: SimTime,
    rate: Option<DataRate>,
    pub(super) dropped: Vec<(SimTime, DropReason)>,
    pub(super) marked: usize,
    /// Most frames and bytes it said to hold.
    peak: (usize, u64),
}

impl Bench {
    pub(super) fn new(config: &QueueConfig) -> Self {
        Self {
            queue: Queue::new(config, 1_500, random),
            now: SimTime::ZERO,
            rate: DataRate::from_bits_per_sec(8_000_000),
            dropped: Vec::new(),
            marked: 0,
            peak: (0, 0),
        }
    }

    pub(super) fn offer(&mut self, frame: Frame) {
        let Self { queue, now, rate, dropped, marked, peak } = self;
        queue.enqueue(*now, *rate, frame, |_, event| note(event, *now, dropped, marked, peak));
    }

    pub(super) fn take(&mut self) -> Option<Frame> {
        let Self { queue, now, dropped, marked, peak, .. } = self;
        queue.dequeue(*now, |_, event| note(event, *now, dropped, marked, peak))
    }

    /// The flow of the next frame, by its source port.
    pub(super) fn take_flow(&mut self) -> Option<u8> {
        self.take().map(|frame| frame.bytes()[35])
    }

    pub(super) fn pass_millis(&mut self, millis: u64) {
        self.now += SimTime::from_millis(millis);
    }

    pub(super) fn len(&self) -> usize {
        self.queue.len()
    }
}

fn note(
    event: QueueEvent,
    now: SimTime,
    dropped: &mut Vec<(SimTime, DropReason)>,
    marked: &mut usize,
    peak: &mut (usize, u64),
) {
    match event {
        QueueEvent::Enqueued { frames, bytes } => *peak = (peak.0.max(frames), peak.1.max(bytes)),
        QueueEvent::Dropped(reason) => dropped.push((now, reason)),
        QueueEvent::Marked => *marked += 1,
        QueueEvent::Dequeued { .. } => {}
    }
}

#[test]
fn drop_tail_counts_frames_bytes_or_time() {
    // 8 Mbit/s: a byte is a microsecond.
    for (limit, fits) in [
        (Limit::Frames(3), 3),
        (Limit::Bytes(2_999), 2),
        (Limit::Bytes(3_000), 3),
        (Limit::Time(SimTime::from_micros(2_999)), 2),
        (Limit::Time(SimTime::from_millis(3)), 3),
    ] {
        let mut bench = Bench::new(&QueueConfig::DropTail(limit));
        (0..5).for_each(|_| bench.offer(datagram(1_000, 0, 0, 0)));
        assert_eq!((bench.len(), bench.dropped.len()), (fits, 5 - fits), "{limit:?}");
        assert!(bench.dropped.iter().all(|(_, reason)| *reason == DropReason::QueueFull));
    }
}

#[test]
fn a_limit_in_time_follows_the_rate() {
    let mut bench = Bench::new(&QueueConfig::DropTail(Limit::Time(SimTime::from_millis(3))));
    bench.rate = DataRate::from_bits_per_sec(16_000_000);
    (0..8).for_each(|_| bench.offer(datagram(1_000, 0, 0, 0)));
    assert_eq!(bench.len(), 6);
    bench.rate = None;
    bench.offer(datagram(1_000, 0, 0, 0));
    assert_eq!(bench.len(), 7);
}

#[test]
fn codel_drops_at_the_instants_of_its_control_law() {
    // 2,000 frames at once, one leaves every millisecond: late from 5 ms on, so dropping from
    // 105 ms on, then 100 ms/√1, 100 ms/√2, … apart: 205, 275.71, 333.45, 383.45, 428.17, 468.99 ms.
    let mut bench = Bench::new(&QueueConfig::CoDel(CoDelConfig {
        limit: Limit::Frames(2_000),
        ..CoDelConfig::default()
    }));
    (0..2_000).for_each(|_| bench.offer(datagram(1_000, 0, 0, 0)));
    for _ in 0..480 {
        bench.pass_millis(1);
        bench.take().unwrap();
    }
    let expected = [105, 205, 276, 334, 384, 429, 469];
    let expected = expected.map(|at| (SimTime::from_millis(at), DropReason::TargetExceeded));
    assert_eq!(bench.dropped, expected);
}

#[test]
fn codel_resumes_its_rate_of_drops_and_forgets_it_after_16_intervals() {
    for (pause_ms, second_gap_ms) in [(10, 45), (3_000, 100)] {
        let config = CoDelConfig { limit: Limit::Frames(9_000), ..CoDelConfig::default() };
        let mut bench = Bench::new(&QueueConfig::CoDel(config));
        let fill = |bench: &mut Bench, until: usize| {
            (0..2_000).for_each(|_| bench.offer(datagram(1_000, 0, 0, 0)));
            bench.dropped.clear();
            while bench.dropped.len() < until {
                bench.pass_millis(1);
                bench.take().unwrap();
            }
        };
        // Six drops: count is 6, and was 1 when dropping began. The queue empties.
        fill(&mut bench, 6);
        while bench.take().is_some() {}
        bench.pass_millis(pause_ms);
        fill(&mut bench, 2);
        // 100 ms/√(6 − 1) rounded up to the next departure, or from the beginning.
        let gap = bench.dropped[1].0 - bench.dropped[0].0;
        assert_eq!(gap, SimTime::from_millis(second_gap_ms), "after {pause_ms} ms");
    }
}

#[test]
fn codel_leaves_the_last_frame_and_short_delays_alone() {
    let mut bench = Bench::new(&QueueConfig::CoDel(CoDelConfig::default()));
    // One frame waits for long: nothing would be gained by dropping it.
    for _ in 0..10 {
        bench.offer(datagram(1_000, 0, 0, 0));
        bench.pass_millis(200);
        bench.take().unwrap();
    }
    // Twenty wait for less than the target.
    for _ in 0..1_000 {
        (0..20).for_each(|_| bench.offer(datagram(1_000, 0, 0, 0)));
        bench.pass_millis(4);
        (0..20).for_each(|_| drop(bench.take().unwrap()));
    }
    assert_eq!(bench.dropped, []);
}

#[test]
fn ecn_marks_where_it_can_instead_of_dropping() {
    let codel = CoDelConfig { ecn: true, limit: Limit::Frames(2_000), ..CoDelConfig::default() };
    for (ecn, marks, drops) in [(0, 0, 7), (1, 7, 0), (2, 7, 0), (3, 7, 0)] {
        let mut bench = Bench::new(&QueueConfig::CoDel(codel.clone()));
        (0..2_000).for_each(|_| bench.offer(datagram(1_000, 0, 0, ecn)));
        let mut experienced = 0;
        for _ in 0..480 {
            bench.pass_millis(1);
            let frame = bench.take().unwrap();
            assert_eq!(checksum(&frame.bytes()[14..34]), 0);
            experienced += usize::from(frame.bytes()[15] & 3 == 3);
        }
        assert_eq!((bench.marked, bench.dropped.len()), (marks, drops), "ECN {ecn}");
        assert_eq!(experienced, if ecn == 3 { 480 } else { marks });
    }
}

fn configs() -> impl Strategy<Value = QueueConfig> {
    let limit = prop_oneof![
        (1..20_u32).prop_map(Limit::Frames),
        (100..10_000_u64).prop_map(Limit::Bytes),
        (100..10_000_u64).prop_map(|us| Limit::Time(SimTime::from_micros(us))),
    ];
    (0..7, limit, any::<bool>(), any::<bool>(), 1..9_u32).prop_map(|(kind, limit, ecn, flag, n)| {
        let codel = CoDelConfig {
            limit,
            target: SimTime::from_micros(500),
            interval: SimTime::from_millis(2),
            ecn,
        };
        let class = |quantum_bytes| ClassConfig { limit, quantum_bytes };
        let classes = ClassesConfig {
            classes: vec![class(100), class(300), class(1_000)],
            class_of: std::array::from_fn(|dscp| (dscp % 4) as u8),
            other: 1,
        };
        match kind {
            0 => QueueConfig::DropTail(limit),
            1 => QueueConfig::Red(RedConfig {
                limit,
                unit: if flag { RedUnit::Bytes } else { RedUnit::Frames },
                min: if flag { 500 } else { 2 },
                max: if flag { 3_000 } else { 6 },
                weight: Probability::from_f64(0.3).unwrap(),
                adaptive: n % 2 == 0,
                gentle: n % 3 == 0,
                ecn,
                ..RedConfig::default()
            }),
            2 => QueueConfig::CoDel(codel),
            3 => QueueConfig::FqCoDel(FqCoDelConfig { codel, flows: n, quantum_bytes: 300 }),
            4 => QueueConfig::Pie(PieConfig {
                limit,
                target: SimTime::from_micros(300),
                update: SimTime::from_micros(700),
                max_burst: SimTime::from_micros(u64::from(n) * 500),
                beta_micro_hz: 2_000_000_000,
                ecn,
                derandomise: flag,
                ..PieConfig::default()
            }),
            5 => QueueConfig::Priority(classes),
            _ => QueueConfig::Drr(classes),
        }
    })
}

/// Bytes and frames that a queue may hold, over all its classes.
fn holds_at_most(config: &QueueConfig, frames: usize, bytes: u64) -> bool {
    let (limit, classes) = match config {
        QueueConfig::DropTail(limit) => (*limit, 1),
        QueueConfig::Red(config) => (config.limit, 1),
        QueueConfig::CoDel(config) => (config.limit, 1),
        QueueConfig::FqCoDel(config) => (config.codel.limit, 1),
        QueueConfig::Pie(config) => (config.limit, 1),
        QueueConfig::Priority(config) | QueueConfig::Drr(config) => {
            (config.classes[0].limit, config.classes.len() as u64)
        }
    };
    match limit {
        Limit::Frames(limit) => frames as u64 <= u64::from(limit) * classes,
        Limit::Bytes(limit) => bytes <= limit * classes,
        // 8 Mbit/s: a byte is a microsecond.
        Limit::Time(limit) => bytes <= limit.as_nanos() / 1_000 * classes,
    }
}

#[test]
fn a_queue_that_is_replaced_hands_on_its_frames_in_the_order_in_which_they_came() {
    let classes = ClassesConfig {
        classes: vec![ClassConfig { limit: Limit::Frames(100), quantum_bytes: 1_514 }; 2],
        class_of: std::array::from_fn(|dscp| u8::from(dscp >= 32)),
        other: 1,
    };
    let queues = [
        QueueConfig::frames(100),
        QueueConfig::Red(RedConfig { min: 50, max: 90, ..RedConfig::default() }),
        QueueConfig::CoDel(CoDelConfig::default()),
        QueueConfig::FqCoDel(FqCoDelConfig::default()),
        QueueConfig::Pie(PieConfig::default()),
        QueueConfig::Priority(classes.clone()),
        QueueConfig::Drr(classes),
    ];
    for config in &queues {
        let mut bench = Bench::new(config);
        for flow in 0..12 {
            // Three flows and two classes in turns.
            bench.offer(datagram(1_000, flow, (flow % 2) * 40, 0));
            bench.pass_millis(1);
        }
        let Bench { queue, now, rate, dropped, marked, peak } = &mut bench;
        let new = Queue::new(&QueueConfig::frames(7), 1_500, random);
        queue.replace_with(new, *now, *rate, |_, event| note(event, *now, dropped, marked, peak));
        assert_eq!(bench.dropped.len(), 5, "{config:?}");
        assert!(bench.dropped.iter().all(|(_, reason)| *reason == DropReason::QueueFull));
        let mut sojourns = Vec::new();
        let taken = (0..).map_while(|_: u8| {
            let now = bench.now;
            bench.queue.dequeue(now, |_, event| {
                if let QueueEvent::Dequeued { sojourn } = event {
                    sojourns.push(sojourn.as_nanos() / 1_000_000);
                }
            })
        });
        let flows: Vec<u8> = taken.map(|frame| frame.bytes()[35]).collect();
        assert_eq!(flows, [0, 1, 2, 3, 4, 5, 6], "{config:?}");
        // Their time in the queue began when they came.
        assert_eq!(sojourns, [12, 11, 10, 9, 8, 7, 6], "{config:?}");

        // The other way round: what comes from a plain queue is classified anew, and all counted.
        let mut bench = Bench::new(&QueueConfig::frames(100));
        for flow in 0..12 {
            bench.offer(datagram(1_000, flow, (flow % 2) * 40, 0));
        }
        bench.queue.replace_with(
            Queue::new(config, 1_500, random),
            bench.now,
            bench.rate,
            |_, event| assert!(matches!(event, QueueEvent::Enqueued { .. }), "{config:?}"),
        );
        assert_eq!(bench.len(), 12, "{config:?}");
        assert_eq!((0..).map_while(|_: u8| bench.take()).count(), 12, "{config:?}");
    }
}

proptest! {
    #[test]
    fn every_queue_keeps_count_order_and_limit(
        config in configs(),
        // (microseconds later, whether a frame comes or goes, bytes, flow, DSCP, ECN)
        steps in prop::collection::vec(
            (0..2_000_u64, any::<bool>(), 50..700_usize, 0..5_u8, 0..64_u8, 0..4_u8), 0..300),
    ) {
        let mut bench = Bench::new(&config);
        // What each flow sent and has not got through, by number in the IPv4 identification.
        let mut sent: BTreeMap<(u8, u8), VecDeque<u16>> = BTreeMap::new();
        let (mut offered, mut taken) = (0, 0);
        for (later, comes, bytes, flow, dscp, ecn) in steps {
            bench.now += SimTime::from_micros(later);
            if comes {
                let mut frame = datagram(bytes, flow, dscp, ecn).bytes().to_vec();
                frame[18..20].copy_from_slice(&(offered as u16).to_be_bytes());
                let sum = checksum(&[&frame[14..24], &[0, 0], &frame[26..34]].concat());
                frame[24..26].copy_from_slice(&sum.to_be_bytes());
                sent.entry((flow, dscp)).or_default().push_back(offered as u16);
                bench.offer(Frame::from(frame));
                offered += 1;
            } else if let Some(frame) = bench.take() {
                taken += 1;
                let bytes = frame.bytes();
                prop_assert_eq!(checksum(&bytes[14..34]), 0);
                let number = u16::from_be_bytes([bytes[18], bytes[19]]);
                let flow = sent.get_mut(&(bytes[35], bytes[15] >> 2)).unwrap();
                // Those before it were dropped, or it overtakes them, which fails later.
                while flow.pop_front().unwrap() != number {}
            } else {
                prop_assert_eq!(bench.len(), 0, "a queue with frames gives one");
            }
            prop_assert_eq!(offered, taken + bench.dropped.len() + bench.len());
            prop_assert!(holds_at_most(&config, bench.peak.0, bench.peak.1), "{:?}", bench.peak);
        }
        // A link that goes down gets the rest.
        let rest = bench.len();
        prop_assert_eq!((0..).map_while(|_: u8| bench.queue.purge(bench.now)).count(), rest);
        prop_assert_eq!(bench.len(), 0);
        bench.offer(datagram(60, 0, 0, 0));
        prop_assert_eq!(bench.len() + bench.dropped.len() + taken + rest, offered + 1);
    }
}
