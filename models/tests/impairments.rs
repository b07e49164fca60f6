//! Impairments on the links of a network: nothing is lost uncounted, order and composition are as
//! documented, parameters change while frames are under way, and TCP gets what a trace gives.

use proptest::prelude::*;
use tapestry_core::link::{
    BeyondDelay, Chance, Corruption, DeliveryTrace, Jitter, LinkParameters, Loss, Parameter,
    ParameterChange, Reorder, Schedule, Slots, TokenBucket, Unit,
};
use tapestry_core::{ByteCount, DataRate, Probability, SimTime, Streams};
use tapestry_models::{
    Direction, DirectionChange, DropReason, Frame, Limit, LinkChange, LinkConfig, LinkId, Network,
    NetworkBuilder, PortId, QueueConfig, SetLinkError,
};

mod common;

const LINK: LinkId = LinkId(0);

const fn ms(millis: u64) -> SimTime {
    SimTime::from_millis(millis)
}

fn percent(percent: f64) -> Probability {
    Probability::from_f64(percent / 100.0).unwrap()
}

fn both(parameters: &LinkParameters) -> Box<[LinkParameters; 2]> {
    Box::new([parameters.clone(), parameters.clone()])
}

fn network(config: LinkConfig) -> Network {
    let mut builder = NetworkBuilder::new(Streams::new(3, 0));
    builder.link(config).unwrap();
    builder.build()
}

fn wire(parameters: &LinkParameters) -> Network {
    network(LinkConfig { parameters: Some(both(parameters)), ..LinkConfig::point_to_point("l") })
}

/// A frame that says its number.
fn frame(number: u32) -> Frame {
    let mut bytes = vec![0; 60];
    bytes[50..54].copy_from_slice(&number.to_be_bytes());
    bytes.into()
}

/// What left so far: number, port, time.
fn left(network: &mut Network) -> Vec<(u32, u32, SimTime)> {
    let number = |frame: &Frame| u32::from_be_bytes(frame.bytes()[50..54].try_into().unwrap());
    network.transmits().map(|out| (number(&out.frame), out.port.0, out.due)).collect()
}

/// Everything random at once, and a bucket and slots.
fn everything() -> LinkParameters {
    let chance = |percents: f64| Chance::independent(percent(percents));
    LinkParameters {
        bucket: Some(TokenBucket { burst: ByteCount::from_bytes(3_000), peak: None }),
        slots: Some(Slots { min: ms(1), max: ms(2), frames: Some(5), bytes: None }),
        jitter: Some(Jitter { beyond_delay: BeyondDelay::Clamp, ..Jitter::uniform(ms(3)) }),
        reorder: Some(Reorder { chance: chance(5.0), gap: 3 }),
        loss: Some(Loss::independent(percent(10.0))),
        duplicate: Some(chance(10.0)),
        corrupt: Some(Corruption { chance: chance(10.0), per: Unit::Frame, bits: 2 }),
        ..LinkParameters::new(DataRate::from_bits_per_sec(10_000_000), ms(2))
    }
}

fn assert_conserved(network: &Network, stations: u32) {
    let counters = network.counters(LINK);
    for (counters, station) in counters.iter().zip(0..) {
        let backlog = network.backlog(PortId(station)) as u64;
        let accounted = counters.transmitted.frames + counters.tx_dropped.total() + backlog;
        assert_eq!(counters.offered.frames, accounted);
    }
    let sum = |of: fn(&tapestry_models::Counters) -> u64| counters.iter().map(of).sum::<u64>();
    let sent = sum(|c| c.transmitted.frames) * u64::from(stations - 1);
    let copies = sum(|c| c.impaired.duplicated);
    let ended = sum(|c| c.delivered.frames + c.rx_dropped.total());
    assert_eq!(sent + copies, ended + network.in_flight(LINK));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    #[test]
    fn every_frame_is_accounted_for(
        acts in prop::collection::vec((0_u32..2, 0_u64..3_000_000, 0_u8..40), 1..300),
        shared: bool,
    ) {
        let mut parameters = everything();
        if shared {
            parameters = LinkParameters {
                bucket: None,
                slots: None,
                jitter: None,
                reorder: None,
                delay: SimTime::from_micros(5),
                ..parameters
            };
        }
        let stations = if shared { 3 } else { 2 };
        let config = if shared { LinkConfig::csma("l", 3) } else { LinkConfig::point_to_point("l") };
        let queue = QueueConfig::frames(20);
        let mut network = network(LinkConfig { queue, parameters: Some(both(&parameters)), ..config });
        let mut now = SimTime::ZERO;
        for (number, (port, gap, act)) in (0..).zip(acts) {
            now += SimTime::from_nanos(gap);
            match act {
                0 => network.set_link_up(now, LINK, false),
                1..4 => network.set_link_up(now, LINK, true),
                4 => {
                    parameters.loss = Some(Loss::independent(percent(50.0)));
                    parameters.duplicate = None;
                    network.set_link(now, LINK, Direction::Both, &parameters).unwrap();
                }
                5 => network.set_link(now, LINK, Direction::Both, &everything_for(shared)).unwrap(),
                _ => network.handle_frame(now, PortId(port), frame(number)),
            }
            network.handle_timeout(now);
            assert_conserved(&network, stations);
        }
        network.run_until(now + SimTime::from_secs(60)).unwrap();
        prop_assert_eq!(network.in_flight(LINK), 0);
        assert_conserved(&network, stations);
    }
}

fn everything_for(shared: bool) -> LinkParameters {
    if shared { LinkParameters { ecn: false, ..LinkParameters::default() } } else { everything() }
}

#[test]
fn a_lost_frame_has_used_the_link_and_is_counted_at_the_receiver() {
    // 60 bytes and framing are 64: 512 µs at 1 Mbit/s.
    let parameters = LinkParameters {
        loss: Some(Loss::Frames(vec![2])),
        ..LinkParameters::new(DataRate::from_bits_per_sec(1_000_000), ms(5))
    };
    let mut network = wire(&parameters);
    for number in 1..=3 {
        network.handle_frame(SimTime::ZERO, PortId(0), frame(number));
    }
    network.run_until(ms(6)).unwrap();
    assert_eq!(network.counters(LINK)[1].rx_dropped[DropReason::Loss], 0);
    network.run_until(ms(60)).unwrap();
    let at = |n: u64| ms(5) + SimTime::from_micros(512 * n);
    assert_eq!(left(&mut network), [(1, 1, at(1)), (3, 1, at(3))]);
    let counters = network.counters(LINK);
    assert_eq!(counters[0].transmitted.frames, 3);
    assert_eq!(counters[1].rx_dropped[DropReason::Loss], 1);
}

#[test]
fn directions_are_independent() {
    let forward = LinkParameters::new(None, ms(1));
    let backward = LinkParameters {
        loss: Some(Loss::independent(Probability::ONE)),
        ..LinkParameters::new(None, ms(9))
    };
    let parameters = Some(Box::new([forward.clone(), backward]));
    let mut network = network(LinkConfig { parameters, ..LinkConfig::point_to_point("l") });
    network.handle_frame(SimTime::ZERO, PortId(0), frame(1));
    network.handle_frame(SimTime::ZERO, PortId(1), frame(2));
    network.run_until(ms(20)).unwrap();
    assert_eq!(left(&mut network), [(1, 1, ms(1))]);
    network.set_link(ms(20), LINK, Direction::From(1), &LinkParameters::new(None, ms(2))).unwrap();
    assert_eq!(network.link_parameters(LINK, 0), forward);
    network.handle_frame(ms(20), PortId(0), frame(3));
    network.handle_frame(ms(20), PortId(1), frame(4));
    network.run_until(ms(40)).unwrap();
    assert_eq!(left(&mut network), [(3, 1, ms(21)), (4, 0, ms(22))]);
}

#[test]
fn each_direction_has_a_queue_of_its_own() {
    let queues = Some(Box::new([QueueConfig::frames(2), QueueConfig::frames(5)]));
    let rate = DataRate::from_bits_per_sec(1_000_000);
    let mut network = network(LinkConfig { rate, queues, ..LinkConfig::point_to_point("l") });
    for number in 0..20 {
        network.handle_frame(SimTime::ZERO, PortId(number % 2), frame(number));
    }
    // Ten each: one in transmission, so many waiting.
    let dropped =
        |station: usize| network.counters(LINK)[station].tx_dropped[DropReason::QueueFull];
    assert_eq!([dropped(0), dropped(1)], [7, 4]);
}

#[test]
fn a_limit_in_time_follows_a_traces_mean_rate_and_a_schedules_present_one() {
    // Frames of 1,000 bytes; a queue of 20 ms at 2 Mbit/s holds five of them, at 4 Mbit/s ten.
    let trace = DeliveryTrace::parse("6\n12\n").unwrap();
    assert_eq!(trace.mean_rate(), DataRate::from_bits_per_sec(2_000_000));
    let schedule = Schedule::parse("time,rate\n0s,2Mbit/s\n1s,4Mbit/s\n").unwrap();
    for (parameters, second, expected) in [
        (LinkParameters { trace: Some(trace), ..LinkParameters::default() }, 0, 5),
        (LinkParameters { schedule: Some(schedule.clone()), ..LinkParameters::default() }, 0, 5),
        (LinkParameters { schedule: Some(schedule), ..LinkParameters::default() }, 2, 10),
    ] {
        let queue = QueueConfig::DropTail(Limit::Time(ms(20)));
        let config = LinkConfig { queue, ..LinkConfig::point_to_point("l") };
        let mut network = network(LinkConfig { parameters: Some(both(&parameters)), ..config });
        let now = SimTime::from_secs(second);
        network.run_until(now).unwrap();
        for _ in 0..30 {
            network.handle_frame(now, PortId(0), Frame::from(vec![0; 1_000]));
        }
        let dropped = network.counters(LINK)[0].tx_dropped[DropReason::QueueFull];
        assert_eq!(30 - 1 - dropped, expected, "{parameters:?}");
    }
}

#[test]
fn a_change_leaves_frames_on_the_wire_alone_and_keeps_the_order() {
    for reordering in [false, true] {
        let slow = LinkParameters { reordering, ..LinkParameters::new(None, ms(10)) };
        let mut network = wire(&slow);
        network.handle_frame(SimTime::ZERO, PortId(0), frame(1));
        let fast = LinkParameters { delay: ms(2), ..slow };
        network.set_link(ms(1), LINK, Direction::Both, &fast).unwrap();
        network.handle_frame(ms(1), PortId(0), frame(2));
        network.run_until(ms(20)).unwrap();
        let expected = if reordering {
            [(2, 1, ms(3)), (1, 1, ms(10))]
        } else {
            [(1, 1, ms(10)), (2, 1, ms(10))]
        };
        assert_eq!(left(&mut network), expected);
    }
}

#[test]
fn impairments_come_and_go_while_a_frame_is_in_transmission() {
    let rate = DataRate::from_bits_per_sec(1_000_000);
    let plain = LinkParameters::new(rate, ms(5));
    let mut network = network(LinkConfig { rate, delay: ms(5), ..LinkConfig::point_to_point("l") });
    let sent = SimTime::from_micros(512);
    network.handle_frame(SimTime::ZERO, PortId(0), frame(1));
    let lossy = LinkParameters { loss: Some(Loss::independent(Probability::ONE)), ..plain.clone() };
    network.set_link(SimTime::from_micros(1), LINK, Direction::Both, &lossy).unwrap();
    // Its last bit goes out under the new parameters, but its arrival was settled before.
    network.handle_frame(ms(2), PortId(0), frame(2));
    network.set_link(ms(2) + SimTime::from_micros(1), LINK, Direction::Both, &plain).unwrap();
    network.run_until(ms(30)).unwrap();
    assert_eq!(left(&mut network), [(1, 1, sent + ms(5)), (2, 1, ms(2) + sent + ms(5))]);
    assert_conserved(&network, 2);
}

#[test]
fn wrong_parameters_change_nothing() {
    let mut network = wire(&LinkParameters::new(None, ms(1)));
    let jittery =
        LinkParameters { jitter: Some(Jitter::uniform(ms(2))), ..LinkParameters::new(None, ms(1)) };
    let error = network.set_link(SimTime::ZERO, LINK, Direction::Both, &jittery).unwrap_err();
    assert!(matches!(&error, SetLinkError::Invalid { link, .. } if link == "l"), "{error}");
    let error = network.set_link(SimTime::ZERO, LINK, Direction::From(2), &jittery).unwrap_err();
    assert_eq!(error, SetLinkError::NoSuchStation { link: 0, station: 2 });
    assert_eq!(network.link_parameters(LINK, 0), LinkParameters::new(None, ms(1)));

    let mut shared = {
        let mut builder = NetworkBuilder::new(Streams::new(3, 0));
        builder.link(LinkConfig::csma("l", 3)).unwrap();
        builder.build()
    };
    let slow = LinkParameters { delay: ms(4), ..jittery };
    let error = shared.set_link(SimTime::ZERO, LINK, Direction::Both, &slow).unwrap_err();
    assert!(matches!(error, SetLinkError::SharedMedium { key: "jitter", .. }));
    let plain = LinkParameters::default();
    let error = shared.set_link(SimTime::ZERO, LINK, Direction::From(0), &plain).unwrap_err();
    assert!(matches!(error, SetLinkError::NoDirections { .. }));
}

#[test]
fn a_change_of_several_things_is_made_whole_or_not_at_all() {
    let mut network = wire(&LinkParameters::new(None, ms(1)));
    let delay = |delay| DirectionChange {
        parameters: ParameterChange {
            set: [Parameter::Delay].into(),
            to: LinkParameters::new(None, delay),
        },
        queue: None,
    };
    let jitter = DirectionChange {
        parameters: ParameterChange {
            set: [Parameter::Jitter].into(),
            to: LinkParameters { jitter: Some(Jitter::uniform(ms(2))), ..Default::default() },
        },
        queue: Some(QueueConfig::frames(1)),
    };
    let change = LinkChange { directions: [delay(ms(9)), jitter], mtu: Some(100) };
    let error = network.change_link(SimTime::ZERO, LINK, &change).unwrap_err();
    assert!(matches!(&error, SetLinkError::Invalid { link, .. } if link == "l"), "{error}");
    assert_eq!(network.link_parameters(LINK, 0).delay, ms(1));
    network.handle_frame(SimTime::ZERO, PortId(0), Frame::from(vec![0; 500]));
    assert_eq!(network.counters(LINK)[0].tx_dropped[DropReason::TooLong], 0, "not the MTU either");

    let too_long = LinkChange { mtu: Some(1_501), ..LinkChange::default() };
    let error = network.change_link(SimTime::ZERO, LINK, &too_long).unwrap_err();
    assert!(matches!(error, SetLinkError::Mtu { mtu: 1_501, most: 1_500, .. }), "{error}");
    let both = LinkChange { directions: [delay(ms(9)), delay(ms(3))], mtu: Some(100) };
    network.change_link(ms(1), LINK, &both).unwrap();
    assert_eq!([0, 1].map(|side| network.link_parameters(LINK, side).delay), [ms(9), ms(3)]);
    for (length, lost) in [(114, 0), (118, 1), (500, 2)] {
        network.handle_frame(ms(2), PortId(0), Frame::from(vec![0; length]));
        assert_eq!(network.counters(LINK)[0].tx_dropped[DropReason::TooLong], lost);
    }
    let shared = LinkConfig::csma("l", 3);
    let mut shared = self::network(shared);
    let error = shared.change_link(SimTime::ZERO, LINK, &both).unwrap_err();
    assert!(matches!(error, SetLinkError::NoDirections { .. }));
}

#[test]
fn frames_that_wait_move_to_the_queue_that_takes_the_place_of_theirs() {
    let rate = DataRate::from_bits_per_sec(1_000_000);
    let links = [LinkConfig::point_to_point("l"), LinkConfig::csma("l", 2)];
    for link in links {
        let mut network = network(LinkConfig { rate, ..link });
        for number in 0..20 {
            network.handle_frame(SimTime::ZERO, PortId(0), frame(number));
        }
        let direction =
            DirectionChange { queue: Some(QueueConfig::frames(5)), ..DirectionChange::default() };
        let change = LinkChange { directions: [direction.clone(), direction], mtu: None };
        network.change_link(SimTime::from_micros(1), LINK, &change).unwrap();
        let dropped = network.counters(LINK)[0].tx_dropped;
        assert_eq!((dropped[DropReason::QueueFull], dropped.total()), (14, 14));
        network.run_until(ms(100)).unwrap();
        let numbers: Vec<u32> = left(&mut network).iter().map(|out| out.0).collect();
        assert_eq!(numbers, [0, 1, 2, 3, 4, 5], "in their order");
    }
}

#[test]
fn each_receiver_of_a_shared_medium_draws_for_itself() {
    let parameters = LinkParameters {
        loss: Some(Loss::independent(percent(50.0))),
        ..LinkParameters::default()
    };
    let config = LinkConfig { parameters: Some(both(&parameters)), ..LinkConfig::csma("l", 3) };
    let mut network = network(config);
    for number in 0..4_000 {
        network.handle_frame(SimTime::from_micros(number.into()), PortId(0), frame(number));
    }
    network.run_until(ms(10)).unwrap();
    let mut got = vec![0; 4_000];
    for (number, port, _) in left(&mut network) {
        got[number as usize] += port;
    }
    // Neither, only the first, only the second, both: a quarter each, ± 5 standard errors.
    for combination in 0..4 {
        let count = got.iter().filter(|&&ports| ports == combination).count();
        assert!((863..=1_137).contains(&count), "{combination}: {count}");
    }
}

/// Opportunities that change between a fast and a slow second, as a radio link does.
fn radio() -> DeliveryTrace {
    let fast = (1..=1_000).map(|ms| ms.to_string());
    let slow = (1_004..=2_000).step_by(4).map(|ms| ms.to_string());
    DeliveryTrace::parse(&fast.chain(slow).collect::<Vec<_>>().join("\n")).unwrap()
}

#[test]
fn tcp_reaches_what_a_trace_allows() {
    let trace = radio();
    let opportunities = trace.millis().len() as u64;
    let parameters = LinkParameters { trace: Some(trace), ..LinkParameters::new(None, ms(10)) };
    // A queue that holds the whole window, as those of radio networks do: without losses, what is
    // measured is the link and not a host's way of recovering from them.
    let link = LinkConfig {
        queue: QueueConfig::frames(1_000),
        parameters: Some(both(&parameters)),
        ..LinkConfig::point_to_point("l")
    };
    let mut lab = common::Lab::pair(link, "10.0.0.1/24", "10.0.0.2/24");
    lab.start("n1", "iperf -s");
    lab.pass(ms(1));
    lab.start("n0", "iperf -c 10.0.0.2 -t 30");
    // From a whole period to a whole period, after the slow start.
    lab.pass(ms(3_999));
    let before = lab.network.counters(LINK)[1].delivered;
    lab.pass(ms(20_000));
    let after = lab.network.counters(LINK)[1].delivered;
    let headers = 14 * (after.frames - before.frames);
    let packets = (after.bytes - before.bytes - headers) as f64;
    let bound = (opportunities * 10 * DeliveryTrace::OPPORTUNITY_BYTES) as f64;
    assert!(packets <= bound, "{packets} bytes exceed the trace's {bound}");
    assert!(packets >= 0.95 * bound, "{packets} of {bound} bytes: {}", packets / bound);
}
