//! The path of a frame under any bytes and any control messages: nothing panics, every frame is
//! delivered, waiting or counted, and the network comes to rest.
//!
//! ```text
//! cd models && cargo +nightly fuzz run network -- -max_total_time=60
//! ```
#![no_main]

use arbitrary::Arbitrary;
use libfuzzer_sys::fuzz_target;
use tapestry_core::{DataRate, SimTime, Streams};
use tapestry_models::{
    CoDelConfig, FqCoDelConfig, Frame, LinkConfig, LinkId, Network, NetworkBuilder, PieConfig,
    PortId, QueueConfig, RedConfig,
};

/// Those that read what frames carry, too.
fn queue(discipline: u8, frames: u8) -> QueueConfig {
    match discipline % 5 {
        0 => QueueConfig::Red(RedConfig { ecn: true, ..RedConfig::default() }),
        1 => QueueConfig::CoDel(CoDelConfig { ecn: true, ..CoDelConfig::default() }),
        2 => QueueConfig::FqCoDel(FqCoDelConfig::default()),
        3 => QueueConfig::Pie(PieConfig { ecn: true, ..PieConfig::default() }),
        _ => QueueConfig::frames(frames.into()),
    }
}

#[derive(Debug, Arbitrary)]
struct Input {
    links: [Link; 3],
    /// A hub instead of a bridge joins the links.
    is_hub: bool,
    seed: u64,
    acts: Vec<Act>,
}

#[derive(Debug, Arbitrary)]
struct Link {
    is_csma: bool,
    stations: u8,
    rate: Option<u32>,
    delay_ns: u32,
    queue_frames: u8,
    discipline: u8,
    mtu: u16,
}

#[derive(Debug, Arbitrary)]
enum Act {
    Frame { port: u8, bytes: Vec<u8> },
    /// A frame of this length, which the fuzzer need not find byte by byte.
    Long { port: u8, len: u16 },
    Up(u8, bool),
    Delay(u8, u32),
    Rate(u8, Option<u32>),
    Wait(u32),
}

/// At least 1 kbit/s, so that the longest frame takes minutes and not ages.
fn rate(bits: Option<u32>) -> Option<DataRate> {
    bits.and_then(|bits| DataRate::from_bits_per_sec(u64::from(bits).max(1_000)))
}

/// The network, and its ports that no device took.
fn build(input: &Input) -> (Network, Vec<PortId>) {
    let mut builder = NetworkBuilder::new(Streams::new(input.seed, 0));
    let (mut ports, mut device) = (Vec::new(), Vec::new());
    for (i, link) in input.links.iter().enumerate() {
        let name = i.to_string();
        let plain = if link.is_csma {
            LinkConfig::csma(name, 1 + u32::from(link.stations % 4))
        } else {
            LinkConfig::point_to_point(name)
        };
        let stations = plain.stations;
        let id = builder
            .link(LinkConfig {
                rate: rate(link.rate),
                delay: SimTime::from_nanos(u64::from(link.delay_ns)),
                queue: queue(link.discipline, link.queue_frames),
                mtu: u32::from(link.mtu),
                ..plain
            })
            .expect("names and stations are right");
        let mut of_link: Vec<PortId> =
            (0..stations).filter_map(|station| builder.port(id, station)).collect();
        // Each link touches the device once: no loop, so that frames do not circle for ever.
        device.extend(of_link.pop());
        ports.extend(of_link);
    }
    let joined = if input.is_hub { builder.hub(&device) } else { builder.bridge(&device) };
    joined.expect("each port is given once");
    (builder.build(), ports)
}

/// In = out + dropped + waiting, on both sides of each wire.
fn check(network: &Network, input: &Input) {
    let mut first = 0;
    for link in (0..input.links.len() as u32).map(LinkId) {
        let counters = network.counters(link);
        let mut transmitted = 0;
        for (station, counters) in counters.iter().enumerate() {
            let backlog = network.backlog(PortId(first + station as u32)) as u64;
            let known = counters.transmitted.frames + counters.tx_dropped.total() + backlog;
            assert_eq!(counters.offered.frames, known, "{link:?}, station {station}");
            transmitted += counters.transmitted.frames;
        }
        let ended: u64 = counters.iter().map(|c| c.delivered.frames + c.rx_dropped.total()).sum();
        let copies = transmitted * (counters.len() as u64 - 1);
        assert_eq!(copies, ended + network.in_flight(link), "{link:?}");
        first += counters.len() as u32;
    }
}

fuzz_target!(|input: Input| {
    let (mut network, ports) = build(&input);
    let link = |number: u8| LinkId(u32::from(number) % input.links.len() as u32);
    let mut now = SimTime::ZERO;
    for act in &input.acts {
        let mut send = |port: u8, bytes: Vec<u8>| {
            if let Some(port) = ports.get(usize::from(port) % ports.len().max(1)) {
                network.handle_frame(now, *port, Frame::from(bytes));
            }
        };
        match act {
            Act::Frame { port, bytes } => send(*port, bytes.clone()),
            Act::Long { port, len } => send(*port, vec![0xff; usize::from(*len)]),
            Act::Up(number, up) => network.set_link_up(now, link(*number), *up),
            Act::Delay(number, delay) => {
                network.set_delay(now, link(*number), SimTime::from_nanos(u64::from(*delay)));
            }
            Act::Rate(number, bits) => network.set_rate(now, link(*number), rate(*bits)),
            Act::Wait(time) => {
                now += SimTime::from_nanos(u64::from(*time));
                network.handle_timeout(now);
            }
        }
        check(&network, &input);
    }
    network.run_until(SimTime::MAX).expect("without a loop the network comes to rest");
    check(&network, &input);
    for number in 0..input.links.len() as u32 {
        assert_eq!(network.in_flight(LinkId(number)), 0);
    }
    // What stations received and no device took has left the network.
    let of_link = |number| network.counters(LinkId(number));
    let delivered: u64 = (0..input.links.len() as u32)
        .flat_map(|number| of_link(number).split_last().map_or(&[][..], |(_device, ports)| ports))
        .map(|counters| counters.delivered.frames)
        .sum();
    assert_eq!(network.transmits().count() as u64, delivered);
});
