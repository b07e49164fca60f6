//! Once warm, frames pass through the network without any allocation.

// The only way to count allocations is to be the allocator.
#![allow(unsafe_code)]

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicU64, Ordering};

use tapestry_core::{DataRate, SimTime, Streams};
use tapestry_models::{FramePool, LinkConfig, Network, NetworkBuilder, PortId};

struct Counting;

static ALLOCATIONS: AtomicU64 = AtomicU64::new(0);

// SAFETY: everything is delegated to the system's allocator; counting has no other effect.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
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
            let before = ALLOCATIONS.load(Ordering::Relaxed);
            let left = traffic(&mut network, &mut pool, SimTime::from_secs(1));
            let allocations = ALLOCATIONS.load(Ordering::Relaxed) - before;
            assert!(left > 1_000, "only {left} frames came through");
            assert_eq!(allocations, 0, "for {left} frames over {link:?}, {rate:?}, {delay}");
        }
    }
}
