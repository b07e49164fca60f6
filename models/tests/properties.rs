//! What must hold for any traffic: nothing is lost uncounted, no link reorders, no rate is
//! exceeded, no frame is early; and how the network is driven makes no difference.

use std::collections::BTreeMap;

use proptest::prelude::*;
use tapestry_core::{DataRate, Scheduler, SimTime, Simulator, Streams, World};
use tapestry_models::{
    ChannelKind, ClassConfig, ClassesConfig, CoDelConfig, FqCoDelConfig, Frame, Framing, Limit,
    LinkConfig, LinkId, Network, NetworkBuilder, PieConfig, PortId, QueueConfig, RedConfig,
    Transmit,
};

#[derive(Debug, Clone)]
struct Case {
    config: LinkConfig,
    seed: u64,
    /// (time, station, bytes), in the order of time.
    sends: Vec<(SimTime, u32, usize)>,
    /// Times at which the link goes down and up in turn.
    toggles: Vec<SimTime>,
}

/// Every discipline, short and quick to drop. (The frames are all of one flow and class.)
fn queues() -> impl Strategy<Value = QueueConfig> {
    let frames = |frames| Limit::Frames(frames + 1);
    let codel = move |limit| CoDelConfig {
        limit: frames(limit),
        target: SimTime::from_micros(50),
        interval: SimTime::from_micros(200),
        ecn: true,
    };
    let classes = move |limit| ClassesConfig {
        classes: vec![ClassConfig { limit: frames(limit), quantum_bytes: 100 }; 2],
        class_of: [0; 64],
        other: 1,
    };
    (0..8_u32, 0..8_u32).prop_map(move |(kind, limit)| match kind {
        0 => QueueConfig::Red(RedConfig {
            limit: frames(limit),
            min: 1,
            max: 3,
            ..RedConfig::default()
        }),
        1 => QueueConfig::CoDel(codel(limit)),
        2 => {
            QueueConfig::FqCoDel(FqCoDelConfig { codel: codel(limit), ..FqCoDelConfig::default() })
        }
        3 => QueueConfig::Pie(PieConfig { limit: frames(limit), ..PieConfig::default() }),
        4 => QueueConfig::Priority(classes(limit)),
        5 => QueueConfig::Drr(classes(limit)),
        _ => QueueConfig::frames(limit),
    })
}

fn cases(with_toggles: bool) -> impl Strategy<Value = Case> {
    let rate = prop_oneof![
        1 => Just(None),
        3 => (1_000_u64..10_000_000_000).prop_map(DataRate::from_bits_per_sec)
    ];
    let delay = prop_oneof![Just(0), 0..200_000_u64];
    let link = (any::<bool>(), 1..6_u32, rate, delay, queues());
    let sends = prop::collection::vec((0..100_000_u64, 0..6_u32, 22..200_usize), 0..60);
    let toggles = prop::collection::vec(0..4_000_000_u64, if with_toggles { 0..6 } else { 0..1 });
    (link, any::<u64>(), sends, toggles).prop_map(move |(link, seed, sends, mut toggles)| {
        let (csma, stations, rate, delay, queue) = link;
        let config =
            if csma { LinkConfig::csma("l", stations) } else { LinkConfig::point_to_point("l") };
        let delay = SimTime::from_nanos(delay);
        // Some frames exceed the MTU.
        let config = LinkConfig { rate, delay, queue, mtu: 170, framing: Framing::NONE, ..config };
        let mut at = SimTime::ZERO;
        let stations = config.stations;
        let sends = sends
            .into_iter()
            .map(|(after, station, bytes)| {
                at += SimTime::from_nanos(after);
                (at, station % stations, bytes)
            })
            .collect();
        toggles.sort_unstable();
        if !with_toggles {
            toggles.clear();
        }
        let toggles = toggles.into_iter().map(SimTime::from_nanos).collect();
        Case { config, seed, sends, toggles }
    })
}

const LINK: LinkId = LinkId(0);

fn build(case: &Case) -> Network {
    let mut builder = NetworkBuilder::new(Streams::new(case.seed, 0));
    builder.link(case.config.clone()).unwrap();
    builder.build()
}

fn numbered(number: usize, bytes: usize) -> Frame {
    let mut frame = vec![0; bytes];
    frame[14..22].copy_from_slice(&(number as u64).to_be_bytes());
    Frame::from(frame)
}

fn number(out: &Transmit) -> usize {
    out.frame.bytes()[14..22].iter().fold(0, |number, &byte| number << 8 | usize::from(byte))
}

/// In = out + dropped + waiting, on both sides of the wire.
fn check_balance(network: &Network) -> Result<(), TestCaseError> {
    let counters = network.counters(LINK);
    let mut transmitted = 0;
    for (station, counters) in counters.iter().enumerate() {
        let backlog = network.backlog(PortId(station as u32)) as u64;
        let accounted = counters.transmitted.frames + counters.tx_dropped.total() + backlog;
        prop_assert_eq!(counters.offered.frames, accounted, "station {}", station);
        transmitted += counters.transmitted.frames;
    }
    let copies = transmitted * (counters.len() as u64 - 1);
    let ended: u64 = counters.iter().map(|c| c.delivered.frames + c.rx_dropped.total()).sum();
    prop_assert_eq!(copies, ended + network.in_flight(LINK));
    Ok(())
}

/// Drives a network from a simulator's event queue.
struct Driver {
    network: Network,
    outputs: Vec<Transmit>,
}

#[derive(Debug)]
enum DriverEvent {
    Frame(PortId, Frame),
    Timeout,
}

impl World for Driver {
    type Event = DriverEvent;

    fn handle(&mut self, now: SimTime, event: DriverEvent, scheduler: &mut Scheduler<DriverEvent>) {
        match event {
            DriverEvent::Frame(port, frame) => self.network.handle_frame(now, port, frame),
            DriverEvent::Timeout => self.network.handle_timeout(now),
        }
        self.outputs.extend(self.network.transmits());
        if let Some(at) = self.network.poll_timeout() {
            scheduler.schedule_at(at, DriverEvent::Timeout).unwrap();
        }
    }
}

proptest! {
    #[test]
    fn every_frame_is_accounted_for(case in cases(true)) {
        let mut network = build(&case);
        let mut toggles = case.toggles.iter().copied().peekable();
        let mut up = true;
        for (i, &(at, station, bytes)) in case.sends.iter().enumerate() {
            while let Some(toggle) = toggles.next_if(|&toggle| toggle <= at) {
                up = !up;
                network.set_link_up(toggle, LINK, up);
                check_balance(&network)?;
            }
            network.handle_frame(at, PortId(station), numbered(i, bytes));
            check_balance(&network)?;
        }
        network.run_until(SimTime::MAX).unwrap();
        check_balance(&network)?;
        prop_assert_eq!(network.in_flight(LINK), 0);
        let delivered: u64 = network.counters(LINK).iter().map(|c| c.delivered.frames).sum();
        prop_assert_eq!(network.transmits().count() as u64, delivered);
        for station in 0..case.config.stations {
            prop_assert_eq!(network.backlog(PortId(station)), 0);
        }
    }

    #[test]
    fn links_keep_order_rate_and_delay(case in cases(false)) {
        let mut network = build(&case);
        for (i, &(at, station, bytes)) in case.sends.iter().enumerate() {
            network.handle_frame(at, PortId(station), numbered(i, bytes));
        }
        network.run_until(SimTime::MAX).unwrap();
        let csma = case.config.channel == ChannelKind::Csma;
        // Latest arrival per (receiver, sender); on a shared medium, per receiver.
        let mut latest: BTreeMap<(PortId, u32), (SimTime, usize)> = BTreeMap::new();
        for out in network.transmits() {
            let frame = number(&out);
            let (sent, sender, bytes) = case.sends[frame];
            let time = case.config.rate
                .map_or(SimTime::ZERO, |rate| rate.transmit_time(bytes as u64));
            prop_assert!(out.due >= sent + time + case.config.delay, "frame {} is early", frame);
            let key = (out.port, sender);
            if let Some(&(before, earlier)) = latest.get(&key) {
                prop_assert!(earlier < frame, "{} overtook {}", frame, earlier);
                prop_assert!(out.due >= before + time, "frame {} exceeds the rate", frame);
            }
            if csma {
                for (&(port, _), &(before, _)) in &latest {
                    let enough = port != out.port || out.due >= before + time;
                    prop_assert!(enough, "frame {} overlaps another", frame);
                }
            }
            latest.insert(key, (out.due, frame));
        }
    }

    #[test]
    fn the_driver_makes_no_difference(case in cases(false), late in 0..10_000_000_u64) {
        let mut exact = build(&case);
        let mut lazy = build(&case);
        let mut simulator = Simulator::new(Driver { network: build(&case), outputs: Vec::new() });
        for (i, &(at, station, bytes)) in case.sends.iter().enumerate() {
            let (port, frame) = (PortId(station), numbered(i, bytes));
            exact.handle_frame(at, port, frame.clone());
            lazy.handle_frame(at, port, frame.clone());
            simulator.scheduler().schedule_at(at, DriverEvent::Frame(port, frame)).unwrap();
        }
        exact.run_until(SimTime::MAX).unwrap();
        // A late caller in small steps.
        let mut now = SimTime::from_nanos(late);
        while let Some(at) = lazy.poll_timeout() {
            now = now.max(at);
            lazy.handle_timeout(now);
        }
        simulator.run().unwrap();
        let expected: Vec<Transmit> = exact.transmits().collect();
        prop_assert_eq!(&lazy.transmits().collect::<Vec<_>>(), &expected);
        prop_assert_eq!(&simulator.into_world().outputs, &expected);
    }

    #[test]
    fn the_same_seed_gives_the_same_run(case in cases(true)) {
        let run = || {
            let mut network = build(&case);
            for (i, &(at, station, bytes)) in case.sends.iter().enumerate() {
                network.handle_frame(at, PortId(station), numbered(i, bytes));
            }
            network.run_until(SimTime::MAX).unwrap();
            let outputs: Vec<Transmit> = network.transmits().collect();
            (outputs, network.counters(LINK).to_vec(), network.events())
        };
        prop_assert_eq!(run(), run());
    }
}
