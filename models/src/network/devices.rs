//! The devices of a network: bridges, hubs, hosts and sources, and the commands on hosts.

use std::collections::VecDeque;

use tapestry_core::{EventKey, SimTime};
use thiserror::Error;

use super::{Device, DeviceKind, Network, Power};
use crate::bridge::{Bridge, Forward, is_bpdu};
use crate::event::Event;
use crate::host::{CommandEvent, CommandId, Host, Io};
use crate::{DeviceId, Frame, FramePool, Source};

/// The surroundings of the hosts.
#[derive(Debug)]
pub(super) struct Hosting {
    pool: FramePool,
    /// Frames that leave the host being called, by its port.
    out: VecDeque<(u32, Frame)>,
    events: VecDeque<CommandEvent>,
    no_buffer: u64,
    commands: u64,
    /// When each device is called next.
    timers: Vec<Option<(SimTime, EventKey)>>,
}

/// Why a command was not started.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum CommandError {
    /// There is no such host.
    #[error("device {device} is no host; only hosts and routers run commands")]
    NoHost {
        /// The device's number.
        device: u32,
    },
    /// The host was killed and not restarted.
    #[error("the host is off; restart it first")]
    Off,
}

impl Hosting {
    /// Frames of hosts' own under way at once, at most: 2 GiB of buffers.
    const FRAMES: usize = 1 << 20;

    /// For so many devices, with frames of at most this many bytes.
    pub(super) fn new(longest_frame_bytes: usize, devices: usize) -> Self {
        Self {
            pool: FramePool::new(longest_frame_bytes.next_multiple_of(64), Self::FRAMES),
            out: VecDeque::new(),
            events: VecDeque::new(),
            no_buffer: 0,
            commands: 0,
            timers: vec![None; devices],
        }
    }
}

impl Network {
    /// A bridge among the devices; `None` if that device is none.
    pub fn bridge(&self, device: DeviceId) -> Option<&Bridge> {
        match &self.devices.get(device.0 as usize)?.kind {
            DeviceKind::Bridge(bridge) => Some(bridge),
            _ => None,
        }
    }

    /// Starts a command on a host at `now`; see the module `host` for what there is. It may have
    /// ended when this returns: poll [`poll_command`](Self::poll_command).
    pub fn start_command(
        &mut self,
        now: SimTime,
        device: DeviceId,
        text: &str,
    ) -> Result<CommandId, CommandError> {
        self.catch_up(now);
        if self.host(device).is_none() {
            return Err(CommandError::NoHost { device: device.0 });
        }
        let power = self.devices[device.0 as usize].power;
        if power == Power::Off {
            return Err(CommandError::Off);
        }
        let id = CommandId(self.hosting.commands);
        self.hosting.commands += 1;
        self.with_host(self.now, device, |host, io| match power {
            Power::Paused => host.start_later(id, text),
            _ => host.start_command(io, id, text),
        });
        Ok(id)
    }

    /// Asks a command to end at `now`, as SIGINT does: what it prints and its exit status come by
    /// [`poll_command`](Self::poll_command). False if it has ended already.
    pub fn stop_command(&mut self, now: SimTime, device: DeviceId, command: CommandId) -> bool {
        self.catch_up(now);
        let mut stopped = false;
        self.with_host(self.now, device, |host, io| stopped = host.stop_command(io, command));
        stopped
    }

    /// What commands did, in order of time.
    pub fn poll_command(&mut self) -> Option<CommandEvent> {
        self.hosting.events.pop_front()
    }

    /// A host among the devices; `None` if that device is none.
    pub fn host(&self, device: DeviceId) -> Option<&Host> {
        match &self.devices.get(device.0 as usize)?.kind {
            DeviceKind::Host(host) => Some(host),
            _ => None,
        }
    }

    /// A source among the devices; `None` if that device is none.
    pub fn source(&self, device: DeviceId) -> Option<&Source> {
        match &self.devices.get(device.0 as usize)?.kind {
            DeviceKind::Source(source) => Some(source),
            _ => None,
        }
    }

    /// Starts the sources that wait for it: their instants count from `now`.
    pub fn start_sources(&mut self, now: SimTime) {
        self.catch_up(now);
        for index in 0..self.devices.len() {
            let now = self.now;
            if let DeviceKind::Source(source) = &mut self.devices[index].kind
                && source.start(now)
            {
                self.set_device_timer(DeviceId(index as u32));
            }
        }
    }

    /// Frames that hosts could not send because all buffers were in use.
    pub fn host_frames_without_buffer(&self) -> u64 {
        self.hosting.no_buffer
    }

    /// A device asked to be called now.
    pub(super) fn run_device(&mut self, at: SimTime, device: DeviceId) {
        self.hosting.timers[device.0 as usize] = None;
        match &mut self.devices[device.0 as usize].kind {
            DeviceKind::Source(_) => self.run_source(at, device.0),
            DeviceKind::Bridge(bridge) => {
                bridge.handle_timeout(at);
                self.send_bpdus(at, device);
            }
            _ => self.with_host(at, device, Host::handle_timeout),
        }
    }

    /// Calls a host, carries its frames on, and notes when to call it next.
    pub(super) fn with_host(
        &mut self,
        now: SimTime,
        device: DeviceId,
        act: impl FnOnce(&mut Host, &mut Io<'_>),
    ) {
        let index = device.0 as usize;
        let Some(Device { kind: DeviceKind::Host(host), .. }) = self.devices.get_mut(index) else {
            return;
        };
        let Hosting { pool, out, events, no_buffer, .. } = &mut self.hosting;
        act(host, &mut Io { now, device, pool, out, events, no_buffer });
        self.set_device_timer(device);
        while let Some((port, frame)) = self.hosting.out.pop_front() {
            if let Some(&station) = self.devices[index].stations.get(port as usize) {
                self.offer(now, station, frame);
            }
        }
    }

    /// Sends what a bridge has to say to its neighbours.
    pub(super) fn send_bpdus(&mut self, now: SimTime, device: DeviceId) {
        let index = device.0 as usize;
        let DeviceKind::Bridge(bridge) = &mut self.devices[index].kind else { return };
        for (port, frame) in bridge.take_bpdus() {
            let station = self.devices[index].stations[port as usize];
            self.offer(now, station, Frame::from(frame));
        }
        self.set_device_timer(device);
    }

    /// Sends what a source has due.
    fn run_source(&mut self, now: SimTime, device: u32) {
        let index = device as usize;
        while let Device { kind: DeviceKind::Source(source), stations, .. } =
            &mut self.devices[index]
            && let Some(frame) = source.next_frame(now)
        {
            let station = stations[0];
            self.offer(now, station, frame);
        }
        self.set_device_timer(DeviceId(device));
    }

    /// Notes when a device wants to be called next.
    pub(super) fn set_device_timer(&mut self, device: DeviceId) {
        self.set_device_timer_from(SimTime::ZERO, device);
    }

    /// The same for one that may have stood still until `now`: what was due before is due now.
    pub(super) fn set_device_timer_from(&mut self, now: SimTime, device: DeviceId) {
        let index = device.0 as usize;
        let Device { kind, power, .. } = &self.devices[index];
        let due = match kind {
            _ if *power != Power::On => None,
            DeviceKind::Host(host) => host.poll_timeout(),
            DeviceKind::Source(source) => source.poll_timeout(),
            DeviceKind::Bridge(bridge) => bridge.poll_timeout(),
            DeviceKind::Hub => None,
        };
        let due = due.map(|due| due.max(now).max(self.queue.last().time()));
        let timer = &mut self.hosting.timers[index];
        if timer.map(|(at, _)| at) != due {
            if let Some((_, key)) = timer.take() {
                self.queue.cancel(key);
            }
            let event = Event::Device { device: device.0 };
            *timer = due.map(|due| (due, self.queue.schedule(due, event)));
        }
    }

    pub(super) fn forward(&mut self, now: SimTime, device: DeviceId, port: u32, frame: Frame) {
        let Device { kind, stations, .. } = &mut self.devices[device.0 as usize];
        match kind {
            DeviceKind::Bridge(bridge) => {
                let forward = bridge.receive(now, port, &frame);
                let for_bridge = frame.destination().is_some_and(is_bpdu);
                match forward {
                    Forward::Flood => self.flood(now, device, port, frame),
                    Forward::To(target) => {
                        let station = stations[target as usize];
                        self.offer(now, station, frame);
                    }
                    Forward::Filter => {}
                }
                if for_bridge {
                    self.send_bpdus(now, device);
                }
            }
            DeviceKind::Hub => self.flood(now, device, port, frame),
            DeviceKind::Source(source) => source.handle_frame(&frame),
            DeviceKind::Host(_) => {
                self.with_host(now, device, |host, io| host.handle_frame(io, port, &frame));
            }
        }
    }

    /// Sends a frame out of all ports that forward but the one it came in at.
    fn flood(&mut self, now: SimTime, device: DeviceId, port: u32, frame: Frame) {
        let ports = self.devices[device.0 as usize].stations.len() as u32;
        let mut held = None;
        for target in (0..ports).filter(|&target| target != port) {
            let Device { kind, stations, .. } = &self.devices[device.0 as usize];
            let station = stations[target as usize];
            if matches!(kind, DeviceKind::Bridge(bridge) if !bridge.forwards(target)) {
                continue;
            }
            // The last copy is the frame itself.
            if let Some(station) = held.replace(station) {
                self.offer(now, station, frame.clone());
            }
        }
        if let Some(station) = held {
            self.offer(now, station, frame);
        }
    }
}
