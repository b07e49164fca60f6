//! Simulations whose time stands still, or passes so slowly that they would not end.
//!
//! Purpose: frames go round for ever in a loop of bridges or hubs. Where nothing in it takes time,
//! the events of one instant never end; where a hop takes a nanosecond, an hour of work is a second
//! of virtual time. Both are found by counting events, so that the same simulation stops at the
//! same event everywhere.
//!
//! Assumptions: a link with a rate carries no more frames than that, so it may be as busy as it
//! can; one without is not expected to carry 10 frames a microsecond for long.
//!
//! Not modelled: loops over links with a rate. They fill the links, as real ones do.

use tapestry_core::SimTime;
use thiserror::Error;

use super::{Channel, Network};
use crate::event::Event;

/// More events than a network that makes sense has in that time.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error(
    "more than {limit} events {} {at}, the next one {place}; look for a loop of bridges \
     or hubs over links without rate and delay",
    When(*.within)
)]
pub struct Livelock {
    /// When the next event is due.
    pub at: SimTime,
    /// The time before it that is meant; zero for that very instant.
    pub within: SimTime,
    /// Where the next event is: on which link, or in which node.
    pub place: String,
    /// Events allowed in that time.
    pub limit: u64,
}

struct When(SimTime);

impl std::fmt::Display for When {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.0 {
            SimTime::ZERO => f.write_str("at"),
            within => write!(f, "in the {within} until"),
        }
    }
}

/// Events of an instant after which somebody should look: so many are no fault in any network.
const INSTANT: u64 = 1_000_000;
/// As many more with every station, since in a large network much may happen at once.
const INSTANT_PER_STATION: u64 = 10_000;
/// A stretch of time whose events are counted.
const STRETCH: SimTime = SimTime::from_millis(100);
/// Events of a stretch that are no fault in any network.
const STRETCH_EVENTS: u64 = 100_000_000;
/// As many more for a station without a rate: 50 a microsecond.
const STRETCH_PER_STATION: u64 = 5_000_000;
/// Events of a frame that is sent, carried and forwarded.
const EVENTS_PER_FRAME: u64 = 4;
/// Bits that the shortest frame occupies on the wire.
const SHORTEST_FRAME: u64 = 84 * 8;

/// Counts the events of the present instant and of the present stretch.
#[derive(Debug)]
pub(super) struct Watch {
    instant: SimTime,
    at_instant: u64,
    stretch: SimTime,
    in_stretch: u64,
    /// Counts of events at which somebody should look.
    look: [u64; 2],
    /// Events of a stretch that are no fault: in any network, and more for a station without rate.
    stretch_events: u64,
    per_station: u64,
}

impl Default for Watch {
    fn default() -> Self {
        Self {
            instant: SimTime::ZERO,
            at_instant: 0,
            stretch: SimTime::ZERO,
            in_stretch: 0,
            look: [INSTANT, STRETCH_EVENTS],
            stretch_events: STRETCH_EVENTS,
            per_station: STRETCH_PER_STATION,
        }
    }
}

impl Watch {
    /// Counts an event; whether somebody should look.
    #[inline]
    pub(super) fn count(&mut self, at: SimTime) -> bool {
        if at != self.instant {
            self.instant = at;
            self.at_instant = 0;
            if at - self.stretch >= STRETCH {
                self.stretch = at;
                self.in_stretch = 0;
            }
        }
        self.at_instant += 1;
        self.in_stretch += 1;
        self.at_instant > self.look[0] || self.in_stretch > self.look[1]
    }
}

impl Network {
    /// Whether time passes; `event`, due at `at`, is the next one.
    #[cold]
    pub(super) fn check_progress(&mut self, at: SimTime, event: &Event) -> Result<(), Livelock> {
        let instant = INSTANT + INSTANT_PER_STATION * self.stations.len() as u64;
        let stretch = self.watch.stretch_events.saturating_add(self.busy());
        // Links may get other rates, so the limits are not computed once for all.
        self.watch.look = [instant, stretch];
        let (within, limit) = if self.watch.at_instant > instant {
            (SimTime::ZERO, instant)
        } else if self.watch.in_stretch > stretch {
            (STRETCH, stretch)
        } else {
            return Ok(());
        };
        Err(Livelock { at, within, place: self.place_of(event), limit })
    }

    /// Events of a stretch in which all links are as busy as they can be.
    fn busy(&self) -> u64 {
        let per_link = self.links.iter().map(|link| {
            let per_station = |station: usize| {
                let parameters = match &link.channel {
                    Channel::PointToPoint(channel) => channel.parameters(station),
                    Channel::Csma(channel) => channel.parameters(),
                };
                let Some(rate) = parameters.rate else { return self.watch.per_station };
                let bits = rate.bits_per_sec() / 1_000 * (STRETCH.as_nanos() / 1_000_000);
                bits / SHORTEST_FRAME * EVENTS_PER_FRAME
            };
            (0..link.counters.len()).map(per_station).fold(0, u64::saturating_add)
        });
        per_link.fold(0, u64::saturating_add)
    }
}

#[cfg(test)]
mod tests {
    use tapestry_core::{DataRate, Streams};

    use super::*;
    use crate::{BridgeConfig, Frame, LinkConfig, NetworkBuilder, PortId};

    /// Three bridges in a ring, with a port at one of them, and a broadcast in it.
    fn ring(rate: Option<DataRate>, delay: SimTime) -> Network {
        let mut builder = NetworkBuilder::new(Streams::new(1, 0));
        let mut link = |name: &str| {
            let config = LinkConfig { rate, delay, ..LinkConfig::point_to_point(name) };
            builder.link(config).unwrap()
        };
        let (ring, outside) = ([link("r0"), link("r1"), link("r2")], link("outside"));
        let entry = builder.port(outside, 0).unwrap();
        for (i, next) in ring.into_iter().enumerate() {
            let previous = ring[(i + 2) % 3];
            let mut ports =
                vec![builder.port(previous, 1).unwrap(), builder.port(next, 0).unwrap()];
            if i == 0 {
                ports.push(builder.port(outside, 1).unwrap());
            }
            builder.configured_bridge(&BridgeConfig::default(), &ports).unwrap();
        }
        let mut network = builder.build();
        let mut bytes = vec![0xff; 60];
        bytes[6..12].copy_from_slice(&[2, 0, 0, 0, 0, 1]);
        network.handle_frame(SimTime::ZERO, PortId(entry.0), Frame::from(bytes));
        (network.watch.stretch_events, network.watch.per_station) = (100_000, 1_000);
        network.watch.look[1] = 100_000;
        network
    }

    #[test]
    fn a_loop_of_nanoseconds_is_found() {
        let livelock = ring(None, SimTime::from_nanos(1)).run_until(SimTime::MAX).unwrap_err();
        assert_eq!((livelock.within, livelock.limit), (STRETCH, 108_000));
        assert!(livelock.at < STRETCH, "{livelock}");
        assert!(livelock.place.starts_with("on link `") || livelock.place.starts_with("in device"));
        assert!(livelock.to_string().starts_with("more than 108000 events in the 100ms until "));
        let mut still = ring(None, SimTime::ZERO);
        still.watch = Watch::default();
        let livelock = still.run_until(SimTime::MAX).unwrap_err();
        assert_eq!((livelock.within, livelock.at), (SimTime::ZERO, SimTime::ZERO));
        assert!(livelock.to_string().contains("events at 0"), "{livelock}");
    }

    /// A loop whose links have a rate is as busy as they can be, no more; one of milliseconds is not
    /// busy.
    #[test]
    fn busy_links_are_no_fault() {
        let gigabit = DataRate::from_bits_per_sec(1_000_000_000);
        for mut network in
            [ring(gigabit, SimTime::from_nanos(1)), ring(None, SimTime::from_millis(1))]
        {
            network.run_until(SimTime::from_millis(200)).unwrap();
        }
    }
}
