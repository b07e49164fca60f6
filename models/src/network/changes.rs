//! What happens to links and devices from outside while frames are under way: links lose their
//! carrier and get it back, devices stand still, go off and start anew.

use tapestry_core::SimTime;

use super::{Channel, Device, DeviceKind, Network, Receiver};
use crate::{DeviceId, Host, LinkId};

/// Whether a device takes part.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Power {
    On,
    /// Its time stands still.
    Paused,
    Off,
}

/// What can be done to a device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DeviceChange {
    /// It stands still: frames that reach it are lost, and its timers and commands wait.
    Pause,
    /// It goes on; timers that have become due meanwhile run at once.
    Resume,
    /// It goes off: its commands end with status 137 (SIGKILL), and what it has learned is gone.
    Kill,
    /// It starts anew as it was configured, whatever it was doing. Its `init` commands are up to
    /// the caller.
    Restart,
}

impl Network {
    /// Takes a link down or up at `now`. Going down loses the frames that are queued, in
    /// transmission or under way; frames offered while it is down are dropped. In-process devices
    /// see their interfaces lose or get the carrier.
    pub fn set_link_up(&mut self, now: SimTime, link: LinkId, up: bool) {
        self.catch_up(now);
        let now = self.now;
        let (this, mut cx) = self.context(now, link);
        if *this.up == up {
            return;
        }
        *this.up = up;
        if !up {
            match this.channel {
                Channel::PointToPoint(channel) => channel.cut(&mut cx),
                Channel::Csma(channel) => channel.cut(&mut cx),
            }
            self.links[link.0 as usize].epoch += 1;
        }
        let link = &self.links[link.0 as usize];
        let stations = link.first_station..link.first_station + link.counters.len() as u32;
        for station in stations {
            if let Receiver::Device { device, port } = self.stations[station as usize].receiver {
                self.set_carrier(now, device, port, up);
            }
        }
    }

    /// Changes what a device does at `now`; false if there is no such device.
    pub fn change_device(&mut self, now: SimTime, device: DeviceId, change: DeviceChange) -> bool {
        self.catch_up(now);
        let now = self.now;
        let Some(this) = self.devices.get_mut(device.0 as usize) else { return false };
        match (change, this.power) {
            (DeviceChange::Pause, Power::On) => this.power = Power::Paused,
            (DeviceChange::Resume, Power::Paused) => {
                this.power = Power::On;
                if let DeviceKind::Source(source) = &mut this.kind {
                    source.resume(now);
                }
                self.with_host(now, device, Host::start_waiting);
            }
            (DeviceChange::Kill, _) => {
                this.power = Power::Off;
                self.with_host(now, device, Host::kill);
            }
            (DeviceChange::Restart, _) => self.restart(now, device),
            (DeviceChange::Pause | DeviceChange::Resume, _) => {}
        }
        self.set_device_timer_from(now, device);
        true
    }

    fn restart(&mut self, now: SimTime, device: DeviceId) {
        self.with_host(now, device, |host, io| {
            host.kill(io);
            host.reset(io.now);
        });
        let this = &mut self.devices[device.0 as usize];
        this.power = Power::On;
        match &mut this.kind {
            DeviceKind::Bridge(bridge) => bridge.reset(now),
            DeviceKind::Source(source) => source.restart(now),
            DeviceKind::Host(_) | DeviceKind::Hub => {}
        }
        let stations = this.stations.clone();
        for (port, station) in (0..).zip(stations) {
            let link = self.stations[station as usize].link;
            if !self.links[link.0 as usize].up {
                self.set_carrier(now, device, port, false);
            }
        }
    }

    /// Tells a device that an interface has lost or got its carrier.
    fn set_carrier(&mut self, now: SimTime, device: DeviceId, port: u32, carrier: bool) {
        let Device { kind, .. } = &mut self.devices[device.0 as usize];
        match kind {
            DeviceKind::Bridge(bridge) => {
                bridge.set_carrier(now, port, carrier);
                self.send_bpdus(now, device);
            }
            DeviceKind::Host(_) => {
                self.with_host(now, device, |host, io| host.set_carrier(io, port, carrier));
            }
            DeviceKind::Hub | DeviceKind::Source(_) => {}
        }
    }
}
