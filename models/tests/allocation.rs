//! Once warm, frames pass through the network without any allocation.

// The only way to count allocations is to be the allocator.
#![allow(unsafe_code)]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

use tapestry_core::{DataRate, SimTime, Streams};
use tapestry_models::{
    ClassConfig, ClassesConfig, CoDelConfig, FqCoDelConfig, FramePool, HostConfig, HostInterface,
    Limit, LinkConfig, Network, NetworkBuilder, PieConfig, PortId, QueueConfig, RedConfig,
};

struct Counting;

thread_local! {
    /// Of this thread: tests run beside each other.
    static ALLOCATIONS: Cell<u64> = const { Cell::new(0) };
}

fn allocations() -> u64 {
    ALLOCATIONS.get()
}

// SAFETY: everything is delegated to the system's allocator; counting has no other effect.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.set(ALLOCATIONS.get() + 1);
        // SAFETY: the caller's promise is passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the caller's promise is passed on.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static COUNTING: Counting = Counting;

/// A chain of two links joined by a bridge.
fn chain(link: &LinkConfig) -> Network {
    let mut builder = NetworkBuilder::new(Streams::new(1, 0));
    let ends = ["first", "second"]
        .map(|name| LinkConfig { name: name.into(), ..link.clone() })
        .map(|config| builder.link(config).unwrap());
    let inner = [builder.port(ends[0], 1).unwrap(), builder.port(ends[1], 0).unwrap()];
    builder.bridge(&inner).unwrap();
    builder.build()
}

/// Bursts from both ends; returns how many frames left.
fn traffic(network: &mut Network, pool: &mut FramePool, start: SimTime) -> usize {
    let mut left = 0;
    let mut now = start;
    for round in 0..500_u64 {
        for burst in 0..4 {
            let (port, address) = if burst % 2 == 0 { (0, 1) } else { (3, 2) };
            let frame = pool.fill(|buffer| {
                buffer[..12].copy_from_slice(&[2, 0, 0, 0, 0, 3 - address, 2, 0, 0, 0, 0, address]);
                Ok(60 + (round as usize * 37) % 1_000)
            });
            network.handle_frame(now, PortId(port), frame.unwrap());
        }
        now += SimTime::from_millis(1);
        network.handle_timeout(now);
        left += network.transmits().count();
    }
    left
}

#[test]
fn no_frame_costs_an_allocation() {
    let limited = DataRate::from_bits_per_sec(1_000_000_000);
    for link in [LinkConfig::csma("l", 2), LinkConfig::point_to_point("l")] {
        for (rate, delay) in [(None, 0), (limited, 0), (limited, 7)] {
            let delay = SimTime::from_micros(delay);
            let mut network = chain(&LinkConfig { rate, delay, ..link.clone() });
            let mut pool = FramePool::new(2_048, 1_000);
            traffic(&mut network, &mut pool, SimTime::ZERO);
            let before = allocations();
            let left = traffic(&mut network, &mut pool, SimTime::from_secs(1));
            let count = allocations() - before;
            assert!(left > 1_000, "only {left} frames came through");
            assert_eq!(count, 0, "for {left} frames over {link:?}, {rate:?}, {delay}");
        }
    }
}

/// The same with everything that can go wrong on a link.
#[test]
fn impairments_cost_no_allocation() {
    use tapestry_core::link::{Chance, Corruption, Jitter, LinkParameters, Loss, Slots, Unit};
    let half = Chance::independent("50%".parse().unwrap());
    let delay = SimTime::from_millis(2);
    let parameters = LinkParameters {
        jitter: Some(Jitter::uniform(delay)),
        loss: Some(Loss::independent("10%".parse().unwrap())),
        duplicate: Some(half),
        corrupt: Some(Corruption { chance: half, per: Unit::Frame, bits: 4 }),
        slots: Some(Slots { min: delay, max: delay, frames: None, bytes: None }),
        ..LinkParameters::new(DataRate::from_bits_per_sec(100_000_000), delay)
    };
    let both = Box::new([parameters.clone(), parameters]);
    let mut network =
        chain(&LinkConfig { parameters: Some(both), ..LinkConfig::point_to_point("l") });
    let mut pool = FramePool::new(2_048, 1_000);
    // How many frames are under way at most is a matter of chance: the first rounds find it.
    for round in 0..8 {
        traffic(&mut network, &mut pool, SimTime::from_secs(round));
    }
    let before = allocations();
    let left = traffic(&mut network, &mut pool, SimTime::from_secs(8));
    assert!(left > 500, "only {left} frames came through");
    assert_eq!(allocations() - before, 0, "for {left} frames");
}

/// Two hosts on a link, the first sending UDP to the second.
#[test]
fn no_datagram_of_a_host_costs_an_allocation() {
    let interface = |n: u8| HostInterface {
        name: "eth0".into(),
        mac: [2, 0, 0, 0, 0, n],
        addresses: vec![format!("10.0.0.{n}/24").parse().unwrap()],
        mtu: 1_500,
    };
    let mut builder = NetworkBuilder::new(Streams::new(1, 0));
    let rate = DataRate::from_bits_per_sec(100_000_000);
    let link = builder.link(LinkConfig { rate, ..LinkConfig::point_to_point("l") }).unwrap();
    let hosts = [(0, 1), (1, 2)].map(|(station, n)| {
        let (name, interfaces) = (format!("n{n}"), vec![interface(n)]);
        let config = HostConfig { name, interfaces, ..HostConfig::default() };
        let port = builder.port(link, station).unwrap();
        builder.host(config, &[port]).unwrap()
    });
    let mut network = builder.build();
    network.start_command(SimTime::ZERO, hosts[1], "iperf -s -u").unwrap();
    network.start_command(SimTime::ZERO, hosts[0], "iperf -c 10.0.0.2 -u -b 1000pps").unwrap();
    network.run_until(SimTime::from_secs(2)).unwrap();
    let before = (allocations(), network.counters(link)[1].delivered.frames);
    network.run_until(SimTime::from_secs(4)).unwrap();
    let count = allocations() - before.0;
    let delivered = network.counters(link)[1].delivered.frames - before.1;
    assert_eq!(delivered, 2_000);
    assert_eq!(count, 0, "for {delivered} datagrams");
}

/// Each queue discipline in a bottleneck, with drops, marks and many flows.
#[test]
fn no_queue_discipline_costs_an_allocation() {
    let class = ClassConfig { limit: Limit::Frames(20), quantum_bytes: 500 };
    let classes = ClassesConfig {
        classes: vec![class.clone(), class],
        class_of: std::array::from_fn(|dscp| u8::from(dscp < 32)),
        other: 1,
    };
    let codel = CoDelConfig {
        target: SimTime::from_micros(100),
        interval: SimTime::from_millis(1),
        ecn: true,
        limit: Limit::Frames(60),
    };
    let short = Limit::Frames(60);
    let queues = [
        QueueConfig::frames(60),
        QueueConfig::DropTail(Limit::Time(SimTime::from_millis(1))),
        QueueConfig::Red(RedConfig { ecn: true, limit: short, ..RedConfig::default() }),
        QueueConfig::CoDel(codel.clone()),
        QueueConfig::FqCoDel(FqCoDelConfig { codel, ..FqCoDelConfig::default() }),
        QueueConfig::Pie(PieConfig { ecn: true, limit: short, ..PieConfig::default() }),
        QueueConfig::Priority(classes.clone()),
        QueueConfig::Drr(classes),
    ];
    for queue in queues {
        let mut builder = NetworkBuilder::new(Streams::new(1, 0));
        let rate = DataRate::from_bits_per_sec(10_000_000);
        let link = LinkConfig { rate, queue: queue.clone(), ..LinkConfig::point_to_point("l") };
        let link = builder.link(link).unwrap();
        let mut network = builder.build();
        let mut pool = FramePool::new(2_048, 1_000);
        // As many buffers as the traffic can need.
        let all: Vec<_> = (0..300).map(|_| pool.fill(|_| Ok(60)).unwrap()).collect();
        drop(all);
        // More than the link carries, from ever new flows.
        let mut traffic = |from_ms: u64| {
            for round in from_ms * 10..(from_ms + 2_000) * 10 {
                let frame = pool.fill(|buffer| {
                    buffer[12..15].copy_from_slice(&[0x08, 0x00, 0x45]);
                    buffer[15] = (round as u8) << 2 | 1;
                    buffer[23] = 17;
                    buffer[26..38].fill(0);
                    buffer[34..38].copy_from_slice(&(round as u32 % 3_000).to_be_bytes());
                    Ok(60 + (round as usize * 37) % 400)
                });
                network.handle_frame(SimTime::from_micros(round * 100), PortId(0), frame.unwrap());
                network.transmits().for_each(drop);
            }
        };
        traffic(0);
        let before = allocations();
        traffic(2_000);
        let count = allocations() - before;
        let counters = &network.counters(link)[0];
        assert!(
            counters.tx_dropped.total() + counters.queue.marked > 100,
            "{queue:?}: {counters:?}"
        );
        assert_eq!(count, 0, "for {} frames over {queue:?}", counters.offered.frames);
    }
}
