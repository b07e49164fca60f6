//! A network of hosts in virtual time, with their names.

#![allow(dead_code)]

use std::collections::BTreeMap;

use tapestry_core::{SimTime, Streams};
use tapestry_models::{
    CommandId, CommandOutput, DeviceId, HostConfig, HostInterface, LinkConfig, Network,
    NetworkBuilder,
};

pub(crate) struct Lab {
    pub(crate) network: Network,
    pub(crate) now: SimTime,
    names: Vec<String>,
    /// What each command printed, and its exit status.
    pub(crate) commands: Vec<(String, Option<u8>)>,
}

pub(crate) fn interface(number: u8, addresses: &[&str]) -> HostInterface {
    HostInterface {
        name: String::new(),
        mac: [2, 0, 0, 0, 0, number],
        addresses: addresses.iter().map(|text| text.parse().unwrap()).collect(),
        mtu: 1_500,
    }
}

/// Interfaces are named `eth0`, `eth1`, …
pub(crate) fn host(name: &str, mut interfaces: Vec<HostInterface>) -> HostConfig {
    for (i, interface) in interfaces.iter_mut().enumerate() {
        interface.name = format!("eth{i}");
    }
    HostConfig { name: name.into(), interfaces, ..HostConfig::default() }
}

impl Lab {
    /// Links with the ends at them (host and interface), and the hosts.
    pub(crate) fn new(
        links: Vec<(LinkConfig, Vec<(&str, usize)>)>,
        hosts: Vec<HostConfig>,
    ) -> Self {
        Self::seeded(Streams::new(1, 0), links, hosts)
    }

    pub(crate) fn seeded(
        streams: Streams,
        links: Vec<(LinkConfig, Vec<(&str, usize)>)>,
        hosts: Vec<HostConfig>,
    ) -> Self {
        let mut builder = NetworkBuilder::new(streams);
        let mut places = BTreeMap::new();
        for (config, ends) in links {
            let id = builder.link(LinkConfig { stations: ends.len() as u32, ..config }).unwrap();
            for (station, (name, interface)) in (0..).zip(ends) {
                places.insert((name.to_owned(), interface), builder.port(id, station).unwrap());
            }
        }
        let names = hosts.iter().map(|host| host.name.clone()).collect();
        for host in hosts {
            let port = |i| places[&(host.name.clone(), i)];
            let ports: Vec<_> = (0..host.interfaces.len()).map(port).collect();
            builder.host(host, &ports).unwrap();
        }
        Self { network: builder.build(), now: SimTime::ZERO, names, commands: Vec::new() }
    }

    /// Two hosts, `n0` and `n1`, on one link.
    pub(crate) fn pair(link: LinkConfig, first: &str, second: &str) -> Self {
        let hosts = vec![
            host("n0", vec![interface(1, &[first])]),
            host("n1", vec![interface(2, &[second])]),
        ];
        Self::new(vec![(link, vec![("n0", 0), ("n1", 0)])], hosts)
    }

    /// One host, `n0`, on a link whose other end, port 1, is open.
    pub(crate) fn open(link: LinkConfig, config: HostConfig) -> Self {
        let mut builder = NetworkBuilder::new(Streams::new(1, 0));
        let id = builder.link(link).unwrap();
        let names = vec![config.name.clone()];
        let port = builder.port(id, 0).unwrap();
        builder.host(config, &[port]).unwrap();
        Self { network: builder.build(), now: SimTime::ZERO, names, commands: Vec::new() }
    }

    pub(crate) fn device(&self, name: &str) -> DeviceId {
        DeviceId(self.names.iter().position(|n| n == name).unwrap() as u32)
    }

    pub(crate) fn start(&mut self, name: &str, command: &str) -> CommandId {
        let device = self.device(name);
        self.start_at(device.0 as usize, command)
    }

    /// Starts a command on a host by its number.
    pub(crate) fn start_at(&mut self, host: usize, command: &str) -> CommandId {
        let id = self.network.start_command(self.now, DeviceId(host as u32), command).unwrap();
        self.commands.push((String::new(), None));
        self.collect();
        id
    }

    /// Asks a command to end; its output so far and its status.
    pub(crate) fn stop(&mut self, name: &str, id: CommandId) -> (u8, String) {
        let device = self.device(name);
        self.network.stop_command(self.now, device, id);
        self.collect();
        self.wait(id)
    }

    /// Lets time pass until a command ends.
    pub(crate) fn wait(&mut self, id: CommandId) -> (u8, String) {
        loop {
            let (text, status) = &self.commands[id.0 as usize];
            if let Some(status) = status {
                return (*status, text.clone());
            }
            let next = self.network.poll_timeout().expect("the command never ends");
            self.network.run_until(next).unwrap();
            self.now = next;
            self.collect();
        }
    }

    /// Runs a command to its end.
    pub(crate) fn run(&mut self, name: &str, command: &str) -> (u8, String) {
        let id = self.start(name, command);
        self.wait(id)
    }

    pub(crate) fn pass(&mut self, time: SimTime) {
        self.now += time;
        self.network.run_until(self.now).unwrap();
        self.collect();
    }

    fn collect(&mut self) {
        while let Some(event) = self.network.poll_command() {
            let (text, status) = &mut self.commands[event.command.0 as usize];
            assert_eq!(*status, None, "nothing follows the exit status");
            match event.output {
                CommandOutput::Printed(bytes) => text.push_str(&String::from_utf8(bytes).unwrap()),
                CommandOutput::Exited(code) => *status = Some(code),
            }
        }
    }
}
