//! Below IP: frames to and from ports, and the bridges between them.

use std::borrow::Cow;
use std::io;

use super::{InterfaceKind, Io, Stack};
use crate::Frame;
use crate::bridge::{Forward, is_bpdu};

pub(super) const ETHERNET_HEADER: usize = 14;
pub(super) const TYPE_IPV4: u16 = 0x0800;
pub(super) const TYPE_ARP: u16 = 0x0806;
pub(super) const TYPE_IPV6: u16 = 0x86dd;
pub(super) const BROADCAST: [u8; 6] = [0xff; 6];

impl Stack {
    /// Takes a frame from a port of the device; the packet in it, if it is for this host.
    pub(crate) fn receive<'f>(
        &mut self,
        io: &mut Io<'_>,
        port: u32,
        frame: &'f Frame,
    ) -> Option<Cow<'f, [u8]>> {
        let mut number = port as usize + 1;
        let interface = self.interfaces.get(number)?;
        if !interface.works() {
            return None;
        }
        if let Some(bridge) = interface.master {
            if !self.bridge(io, bridge, number, frame) {
                return None;
            }
            number = bridge;
        }
        let bytes = frame.bytes();
        let destination = frame.destination()?;
        let group = destination[0] & 1 != 0;
        if !group && destination != self.interfaces[number].mac {
            return None;
        }
        let payload = bytes.get(ETHERNET_HEADER..)?;
        match u16::from_be_bytes([bytes[12], bytes[13]]) {
            TYPE_ARP => {
                self.handle_arp(io, number, payload);
                None
            }
            TYPE_IPV4 | TYPE_IPV6 => self.handle_packet(io, number, payload, group),
            _ => None,
        }
    }

    /// Forwards a frame between the ports of a bridge; whether it is for the host, too.
    fn bridge(&mut self, io: &mut Io<'_>, bridge: usize, from: usize, frame: &Frame) -> bool {
        let Some(interface) = self.interfaces.get_mut(bridge) else { return false };
        if !interface.works() {
            return false;
        }
        let InterfaceKind::Bridge(inner) = &mut interface.kind else { return false };
        let Some(port) = inner.ports.iter().position(|&port| port == from) else { return false };
        let forward = inner.table.receive(io.now, port as u32, frame);
        let admitted = inner.table.forwards(port as u32);
        if frame.destination().is_some_and(is_bpdu) {
            self.send_bpdus(io, bridge);
            return false;
        }
        if frame.destination() == Some(interface.mac) || !admitted {
            return admitted;
        }
        self.to_ports(io, bridge, Some(from), forward, frame);
        frame.destination().is_some_and(|destination| destination[0] & 1 != 0)
    }

    /// Sends a frame out of the ports of a bridge that `forward` says, but not where it came from.
    fn to_ports(
        &self,
        io: &mut Io<'_>,
        bridge: usize,
        from: Option<usize>,
        forward: Forward,
        frame: &Frame,
    ) {
        let InterfaceKind::Bridge(inner) = &self.interfaces[bridge].kind else { return };
        let targets = match forward {
            Forward::Flood => &inner.ports[..],
            Forward::To(port) => inner.ports.get(port as usize..=port as usize).unwrap_or(&[]),
            Forward::Filter => &[],
        };
        for &target in targets.iter().filter(|&&target| Some(target) != from) {
            let port = inner.ports.iter().position(|&port| port == target);
            if !port.is_some_and(|port| inner.table.forwards(port as u32)) {
                continue;
            }
            let interface = &self.interfaces[target];
            if let (true, InterfaceKind::Port(port)) = (interface.works(), &interface.kind) {
                io.out.push_back((*port, frame.clone()));
            }
        }
    }

    /// Sends what a bridge has to say to its neighbours.
    pub(super) fn send_bpdus(&mut self, io: &mut Io<'_>, bridge: usize) {
        let InterfaceKind::Bridge(inner) = &mut self.interfaces[bridge].kind else { return };
        let bpdus = inner.table.take_bpdus();
        let ports = inner.ports.clone();
        for (port, frame) in bpdus {
            let interface = &self.interfaces[ports[port as usize]];
            if let (true, InterfaceKind::Port(port)) = (interface.works(), &interface.kind) {
                io.out.push_back((*port, Frame::from(frame)));
            }
        }
    }

    /// Sends a frame of the host's own out of an interface.
    pub(super) fn transmit(&mut self, io: &mut Io<'_>, number: usize, frame: Frame) {
        let interface = &mut self.interfaces[number];
        if !interface.works() {
            return;
        }
        match &mut interface.kind {
            InterfaceKind::Loopback => {}
            InterfaceKind::Port(port) => io.out.push_back((*port, frame)),
            InterfaceKind::Bridge(inner) => {
                let forward = match frame.destination() {
                    Some(destination) => inner.table.lookup(io.now, destination),
                    None => Forward::Filter,
                };
                self.to_ports(io, number, None, forward, &frame);
            }
        }
    }

    /// A frame from an interface of the host; `None` if there is no buffer for it.
    pub(super) fn frame(
        &self,
        io: &mut Io<'_>,
        number: usize,
        destination: [u8; 6],
        ethertype: u16,
        payload: &[&[u8]],
    ) -> Option<Frame> {
        let source = self.interfaces[number].mac;
        let filled = io.pool.fill(|buffer| {
            let ethertype = ethertype.to_be_bytes();
            let head = [&destination[..], &source[..], &ethertype[..]];
            let mut at = 0;
            for part in head.iter().chain(payload) {
                let place =
                    buffer.get_mut(at..at + part.len()).ok_or(io::ErrorKind::InvalidInput)?;
                place.copy_from_slice(part);
                at += part.len();
            }
            Ok(at)
        });
        *io.no_buffer += u64::from(filled.is_err());
        filled.ok()
    }
}
