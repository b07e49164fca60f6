//! A link of a network, and the way of a frame over it: from a station that sends to what is behind
//! the stations that receive.

use tapestry_core::SimTime;
use tapestry_core::link::LinkParameters;

use super::changes::Power;
use super::{Network, Receiver, Station, Transmit};
use crate::counters::{Counters, DropReason};
use crate::csma::Csma;
use crate::event::{Context, Timer};
use crate::impair::ReceiveErrors;
use crate::point_to_point::PointToPoint;
use crate::trace::TraceEvent;
use crate::{Frame, LinkId, PortId};

#[derive(Debug)]
pub(crate) struct Link {
    pub(super) name: String,
    pub(super) mtu: u32,
    /// The MTU with which the link was made.
    pub(super) largest_mtu: u32,
    /// How many queues have replaced others.
    pub(super) queues_made: u32,
    pub(super) first_station: u32,
    pub(super) up: bool,
    /// How often the link went down; events of an earlier epoch are void.
    pub(super) epoch: u32,
    pub(super) counters: Vec<Counters>,
    pub(super) in_flight: u64,
    pub(super) channel: Channel,
    /// What there is to say about the directions beyond rate, delay and framing.
    pub(super) parameters: Option<Box<[LinkParameters; 2]>>,
    /// On a shared medium: what goes wrong at each receiver.
    pub(super) errors: Option<Box<[ReceiveErrors]>>,
}

#[derive(Debug)]
pub(crate) enum Channel {
    PointToPoint(PointToPoint),
    Csma(Csma),
}

/// Bytes of an Ethernet header, which the MTU does not count.
pub(super) const HEADER_BYTES: usize = 14;
/// Bytes of a VLAN tag, which the MTU does not count either.
pub(super) const VLAN_TAG_BYTES: usize = 4;

impl Network {
    /// A frame is handed to a station for transmission.
    pub(super) fn offer(&mut self, now: SimTime, station: u32, frame: Frame) {
        let (link, mut cx) = self.context(now, self.stations[station as usize].link);
        let index = (station - cx.first_station) as usize;
        cx.counters[index].offered.add(frame.len());
        cx.trace(TraceEvent::MacTx, index, &frame, None);
        let refused = if !*link.up {
            Some(DropReason::LinkDown)
        } else if frame.len() < HEADER_BYTES {
            Some(DropReason::TooShort)
        } else if payload_bytes(&frame) > link.mtu as usize {
            Some(DropReason::TooLong)
        } else {
            None
        };
        if let Some(reason) = refused {
            cx.drop_tx(TraceEvent::MacTxDrop, index, &frame, reason);
            return;
        }
        match link.channel {
            Channel::PointToPoint(channel) => channel.offer(&mut cx, index, frame),
            Channel::Csma(channel) => channel.offer(&mut cx, index, frame),
        }
    }

    pub(super) fn timer(&mut self, now: SimTime, station: u32, epoch: u32, timer: Timer) {
        let (link, mut cx) = self.context(now, self.stations[station as usize].link);
        if epoch != cx.epoch {
            return;
        }
        let index = (station - cx.first_station) as usize;
        match (link.channel, timer) {
            (Channel::PointToPoint(channel), _) => channel.transmit_complete(&mut cx, index),
            (Channel::Csma(channel), Timer::TransmitStart) => {
                channel.transmit_start(&mut cx, index);
            }
            (Channel::Csma(channel), Timer::TransmitComplete) => {
                channel.transmit_complete(&mut cx, index);
            }
            (Channel::Csma(channel), Timer::TransmitReady) => {
                channel.transmit_ready(&mut cx, index);
            }
        }
    }

    /// A copy of a frame reaches a station and what is behind it.
    pub(super) fn receive(&mut self, now: SimTime, station: u32, epoch: u32, frame: Frame) {
        let Station { link, receiver } = self.stations[station as usize];
        let listens = match receiver {
            Receiver::Port => true,
            Receiver::Device { device, .. } => self.devices[device.0 as usize].power == Power::On,
        };
        let (parts, mut cx) = self.context(now, link);
        let index = (station - cx.first_station) as usize;
        if let Channel::PointToPoint(channel) = parts.channel {
            channel.arrived(&mut cx, index);
        }
        let mut frame = frame;
        let mut again = false;
        let mut lost = if epoch != cx.epoch {
            Some(DropReason::LinkDown)
        } else if !listens {
            Some(DropReason::NodeDown)
        } else {
            None
        };
        if lost.is_none()
            && let Some(errors) = parts.errors
        {
            let outcome = errors[index].strike(frame);
            lost = outcome.lost.then_some(DropReason::Loss);
            again = !outcome.lost && cx.count(index, &outcome);
            frame = outcome.frame;
        }
        cx.received(index, &frame, lost);
        if lost.is_some() {
            return;
        }
        if again {
            cx.received(index, &frame, None);
            self.deliver(now, station, receiver, frame.clone());
        }
        self.deliver(now, station, receiver, frame);
    }

    /// A frame that got lost would have reached this station now.
    pub(super) fn lose(&mut self, now: SimTime, station: u32, epoch: u32, frame: &Frame) {
        let (parts, mut cx) = self.context(now, self.stations[station as usize].link);
        let index = (station - cx.first_station) as usize;
        if let Channel::PointToPoint(channel) = parts.channel {
            channel.arrived(&mut cx, index);
        }
        let reason = if epoch == cx.epoch { DropReason::Loss } else { DropReason::LinkDown };
        cx.received(index, frame, Some(reason));
    }

    /// Hands a received frame to what is behind the station.
    fn deliver(&mut self, now: SimTime, station: u32, receiver: Receiver, frame: Frame) {
        match receiver {
            Receiver::Port => {
                self.transmits.push_back(Transmit { port: PortId(station), frame, due: now });
            }
            Receiver::Device { device, port } => self.forward(now, device, port, frame),
        }
    }

    /// A link's channel and its surroundings.
    pub(super) fn context(&mut self, now: SimTime, link: LinkId) -> (LinkParts<'_>, Context<'_>) {
        let this = &mut self.links[link.0 as usize];
        let parts = LinkParts {
            mtu: this.mtu,
            up: &mut this.up,
            channel: &mut this.channel,
            errors: this.errors.as_deref_mut(),
        };
        let context = Context {
            now,
            position: self.position,
            link,
            first_station: this.first_station,
            epoch: this.epoch,
            queue: &mut self.queue,
            next: &mut self.next,
            counters: &mut this.counters,
            in_flight: &mut this.in_flight,
            trace: &mut self.trace,
        };
        (parts, context)
    }
}

/// The parts of a link that are no surroundings.
pub(super) struct LinkParts<'a> {
    pub(super) mtu: u32,
    pub(super) up: &'a mut bool,
    pub(super) channel: &'a mut Channel,
    pub(super) errors: Option<&'a mut [ReceiveErrors]>,
}

impl Link {
    pub(crate) fn new(
        name: String,
        mtu: u32,
        first_station: u32,
        stations: u32,
        channel: Channel,
    ) -> Self {
        let counters = vec![Counters::default(); stations as usize];
        Self {
            name,
            mtu,
            largest_mtu: mtu,
            queues_made: 0,
            first_station,
            up: true,
            epoch: 0,
            counters,
            in_flight: 0,
            channel,
            parameters: None,
            errors: None,
        }
    }

    pub(crate) fn port(&self, station: u32) -> Option<PortId> {
        ((station as usize) < self.counters.len()).then(|| PortId(self.first_station + station))
    }
}

/// Bytes that count against the MTU.
fn payload_bytes(frame: &Frame) -> usize {
    let payload = frame.len().saturating_sub(HEADER_BYTES);
    match frame.bytes().get(12..14) {
        Some([0x81, 0x00] | [0x88, 0xa8]) => payload.saturating_sub(VLAN_TAG_BYTES),
        _ => payload,
    }
}
