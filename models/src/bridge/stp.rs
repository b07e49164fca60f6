//! Spanning tree: which ports of a bridge forward, so that loops carry nothing.
//!
//! Purpose: bridges elect the one with the lowest identifier as root, keep the cheapest way to it
//! and block what would close a loop. A port that is to forward listens and learns for 15 seconds
//! each first.
//!
//! Assumptions: every port costs 100, as a TAP interface does on Linux; timers and port priorities
//! are the standard's defaults. Works with the bridges of a Linux kernel (`stp_state 1`).
//!
//! Not modelled: rapid spanning tree, ports that come and go, management.
//!
//! Reference: IEEE 802.1D-1998, clauses 8 and 9, whose procedures keep their names.

use tapestry_core::SimTime;

/// Destination of all BPDUs.
pub(super) const BPDU_ADDRESS: [u8; 6] = [0x01, 0x80, 0xc2, 0, 0, 0];

const MAX_AGE: SimTime = SimTime::from_secs(20);
const HELLO: SimTime = SimTime::from_secs(2);
const FORWARD_DELAY: SimTime = SimTime::from_secs(15);
const HOLD: SimTime = SimTime::from_secs(1);
/// What a bridge adds to a message's age: the unit in which ages are sent.
const AGE_INCREMENT: SimTime = SimTime::from_nanos(1_000_000_000 / 256);
const PATH_COST: u32 = 100;
const PORT_PRIORITY: u16 = 0x80;

/// Priority and hardware address of a bridge, as BPDUs compare them.
type BridgeId = u64;

#[derive(Debug)]
pub(super) struct SpanningTree {
    mac: [u8; 6],
    id: BridgeId,
    root: BridgeId,
    root_cost: u32,
    root_port: Option<usize>,
    times: Times,
    topology_change: bool,
    topology_change_detected: bool,
    hello: Option<SimTime>,
    tcn: Option<SimTime>,
    topology_change_timer: Option<SimTime>,
    ports: Vec<Port>,
    out: Vec<(u32, Vec<u8>)>,
}

/// The root's times, which all bridges use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Times {
    max_age: SimTime,
    hello: SimTime,
    forward_delay: SimTime,
}

#[derive(Debug)]
struct Port {
    id: u16,
    state: State,
    designated: Vector,
    topology_change_ack: bool,
    config_pending: bool,
    message_age: Option<SimTime>,
    forward_delay: Option<SimTime>,
    hold: Option<SimTime>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Without carrier.
    Disabled,
    Blocking,
    Listening,
    Learning,
    Forwarding,
}

/// What a port's segment has heard, in the order of comparison; the lowest is the best.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Vector {
    root: BridgeId,
    cost: u32,
    bridge: BridgeId,
    port: u16,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Config {
    vector: Vector,
    topology_change: bool,
    acknowledged: bool,
    age: SimTime,
    times: Times,
}

impl SpanningTree {
    pub(super) fn new(now: SimTime, mac: [u8; 6], priority: u16, ports: usize) -> Self {
        let address = mac.iter().fold(0, |address, &byte| address << 8 | u64::from(byte));
        let id = u64::from(priority) << 48 | address;
        let port = |number| {
            let id = PORT_PRIORITY << 8 | (number as u16 + 1) & 0xff;
            Port {
                id,
                state: State::Listening,
                designated: Vector { root: address, cost: 0, bridge: address, port: id },
                topology_change_ack: false,
                config_pending: false,
                message_age: None,
                forward_delay: Some(now + FORWARD_DELAY),
                hold: None,
            }
        };
        let times = Times { max_age: MAX_AGE, hello: HELLO, forward_delay: FORWARD_DELAY };
        let mut this = Self {
            mac,
            id,
            root: id,
            root_cost: 0,
            root_port: None,
            times,
            topology_change: false,
            topology_change_detected: false,
            // The first configuration message leaves at once.
            hello: Some(now),
            tcn: None,
            topology_change_timer: None,
            ports: (0..ports).map(port).collect(),
            out: Vec::new(),
        };
        for port in 0..ports {
            this.become_designated_port(port);
        }
        this
    }

    /// The same bridge as it starts at `now`.
    pub(super) fn anew(&self, now: SimTime) -> Self {
        // The priority stands before the address.
        Self::new(now, self.mac, (self.id >> 48) as u16, self.ports.len())
    }

    /// A port gets or loses its carrier (802.1D, 8.8.2 and 8.8.3).
    pub(super) fn set_enabled(&mut self, now: SimTime, port: usize, enabled: bool) {
        let Some(this) = self.ports.get_mut(port) else { return };
        if enabled == (this.state != State::Disabled) {
            return;
        }
        this.state = if enabled { State::Blocking } else { State::Disabled };
        this.topology_change_ack = false;
        this.config_pending = false;
        (this.message_age, this.forward_delay, this.hold) = (None, None, None);
        if enabled {
            self.become_designated_port(port);
            self.port_state_selection(now);
        } else {
            // As if nothing had been heard for too long.
            self.message_age_expired(now, port);
        }
    }

    pub(super) fn learns(&self, port: u32) -> bool {
        let state = self.ports.get(port as usize).map(|port| port.state);
        matches!(state, Some(State::Learning | State::Forwarding))
    }

    pub(super) fn forwards(&self, port: u32) -> bool {
        self.ports.get(port as usize).is_some_and(|port| port.state == State::Forwarding)
    }

    /// How long learned addresses are kept, if shorter than usual.
    pub(super) fn ageing(&self) -> Option<SimTime> {
        self.topology_change.then_some(self.times.forward_delay)
    }

    /// The frames to send, by port.
    pub(super) fn take_out(&mut self) -> Vec<(u32, Vec<u8>)> {
        std::mem::take(&mut self.out)
    }

    pub(super) fn poll_timeout(&self) -> Option<SimTime> {
        let of_ports = self.ports.iter().flat_map(|p| [p.message_age, p.forward_delay, p.hold]);
        let own = [self.hello, self.tcn, self.topology_change_timer];
        of_ports.chain(own).flatten().min()
    }

    pub(super) fn handle_timeout(&mut self, now: SimTime) {
        let due = |timer: &mut Option<SimTime>| timer.take_if(|at| *at <= now).is_some();
        for port in 0..self.ports.len() {
            if due(&mut self.ports[port].message_age) {
                self.message_age_expired(now, port);
            }
            if due(&mut self.ports[port].forward_delay) {
                self.forward_delay_expired(now, port);
            }
            if due(&mut self.ports[port].hold) && self.ports[port].config_pending {
                self.transmit_config(now, port);
            }
        }
        if due(&mut self.hello) {
            self.config_bpdu_generation(now);
            self.hello = Some(now + self.times.hello);
        }
        if due(&mut self.tcn) {
            self.transmit_tcn();
            self.tcn = Some(now + HELLO);
        }
        if due(&mut self.topology_change_timer) {
            self.topology_change = false;
            self.topology_change_detected = false;
        }
    }

    /// A frame to the BPDU address; anything else than a BPDU is left aside.
    pub(super) fn handle_bpdu(&mut self, now: SimTime, port: u32, frame: &[u8]) {
        let port = port as usize;
        let Some(bpdu) = frame.get(14..) else { return };
        // LLC for the spanning tree protocol, protocol identifier and version; then the type.
        if port >= self.ports.len() || bpdu.get(..5) != Some(&[0x42, 0x42, 0x03, 0, 0]) {
            return;
        }
        match bpdu.get(6) {
            Some(0x00) => {
                if let Some(config) = Config::parse(&bpdu[3..]) {
                    self.received_config(now, port, &config);
                }
            }
            Some(0x80) if self.is_designated(port) => {
                self.topology_change_detection(now);
                self.ports[port].topology_change_ack = true;
                self.transmit_config(now, port);
            }
            _ => {}
        }
    }

    fn received_config(&mut self, now: SimTime, port: usize, config: &Config) {
        let was_root = self.is_root();
        let held = self.ports[port].designated;
        let heard = config.vector;
        // Better than what is known of the segment, or news from its designated port.
        let supersedes = heard < held || (heard.bridge, heard.port) == (held.bridge, held.port);
        if heard.bridge == self.id || config.age >= config.times.max_age {
            return;
        }
        if !supersedes {
            if self.is_designated(port) && self.ports[port].state != State::Disabled {
                self.transmit_config(now, port);
            }
            return;
        }
        self.ports[port].designated = heard;
        self.ports[port].message_age = Some(now + (config.times.max_age - config.age));
        self.configuration_update();
        self.port_state_selection(now);
        if was_root && !self.is_root() {
            self.hello = None;
            if self.topology_change_detected {
                self.topology_change_timer = None;
                self.transmit_tcn();
                self.tcn = Some(now + HELLO);
            }
        }
        if self.root_port == Some(port) {
            self.times = config.times;
            self.topology_change = config.topology_change;
            self.config_bpdu_generation(now);
            if config.acknowledged {
                self.topology_change_detected = false;
                self.tcn = None;
            }
        }
    }

    fn is_root(&self) -> bool {
        self.root == self.id
    }

    fn is_designated(&self, port: usize) -> bool {
        let port = &self.ports[port];
        port.designated.bridge == self.id && port.designated.port == port.id
    }

    fn become_designated_port(&mut self, port: usize) {
        let (root, cost, bridge) = (self.root, self.root_cost, self.id);
        let port = &mut self.ports[port];
        port.designated = Vector { root, cost, bridge, port: port.id };
    }

    /// Root selection, then designated port selection.
    fn configuration_update(&mut self) {
        let way = |(number, port): (usize, &Port)| {
            let Vector { root, cost, bridge, port: its } = port.designated;
            let is_way = bridge != self.id && root < self.id;
            is_way.then_some(((root, cost + PATH_COST, bridge, its, port.id), number))
        };
        let best = self.ports.iter().enumerate().filter_map(way).min();
        (self.root, self.root_cost, self.root_port) = match best {
            Some(((root, cost, ..), port)) => (root, cost, Some(port)),
            None => (self.id, 0, None),
        };
        for port in 0..self.ports.len() {
            let held = self.ports[port].designated;
            let own = Vector {
                root: self.root,
                cost: self.root_cost,
                bridge: self.id,
                port: self.ports[port].id,
            };
            if self.is_designated(port) || held.root != self.root || own < held {
                self.become_designated_port(port);
            }
        }
    }

    fn port_state_selection(&mut self, now: SimTime) {
        for number in 0..self.ports.len() {
            if self.ports[number].state == State::Disabled {
                continue;
            }
            let is_root_port = self.root_port == Some(number);
            let is_designated = self.is_designated(number);
            let forward_delay = self.times.forward_delay;
            let port = &mut self.ports[number];
            if !is_designated {
                port.config_pending = false;
                port.topology_change_ack = false;
            }
            if is_root_port || is_designated {
                if is_designated {
                    port.message_age = None;
                }
                if port.state == State::Blocking {
                    port.state = State::Listening;
                    port.forward_delay = Some(now + forward_delay);
                }
            } else if port.state != State::Blocking {
                let was_learning = matches!(port.state, State::Learning | State::Forwarding);
                port.state = State::Blocking;
                port.forward_delay = None;
                if was_learning {
                    self.topology_change_detection(now);
                }
            }
        }
    }

    fn message_age_expired(&mut self, now: SimTime, port: usize) {
        let was_root = self.is_root();
        self.become_designated_port(port);
        self.configuration_update();
        self.port_state_selection(now);
        if self.is_root() && !was_root {
            self.times = Times { max_age: MAX_AGE, hello: HELLO, forward_delay: FORWARD_DELAY };
            self.topology_change_detection(now);
            self.tcn = None;
            self.config_bpdu_generation(now);
            self.hello = Some(now + HELLO);
        }
    }

    fn forward_delay_expired(&mut self, now: SimTime, port: usize) {
        let forward_delay = self.times.forward_delay;
        let this = &mut self.ports[port];
        match this.state {
            State::Listening => {
                this.state = State::Learning;
                this.forward_delay = Some(now + forward_delay);
            }
            State::Learning => {
                this.state = State::Forwarding;
                if (0..self.ports.len()).any(|port| self.is_designated(port)) {
                    self.topology_change_detection(now);
                }
            }
            State::Disabled | State::Blocking | State::Forwarding => {}
        }
    }

    fn topology_change_detection(&mut self, now: SimTime) {
        if self.is_root() {
            self.topology_change = true;
            self.topology_change_timer = Some(now + self.times.max_age + self.times.forward_delay);
        } else if !self.topology_change_detected {
            self.transmit_tcn();
            self.tcn = Some(now + HELLO);
        }
        self.topology_change_detected = true;
    }

    fn config_bpdu_generation(&mut self, now: SimTime) {
        for port in 0..self.ports.len() {
            if self.is_designated(port) {
                self.transmit_config(now, port);
            }
        }
    }

    fn transmit_config(&mut self, now: SimTime, port: usize) {
        if self.ports[port].hold.is_some() {
            self.ports[port].config_pending = true;
            return;
        }
        let age = match self.root_port.and_then(|root| self.ports[root].message_age) {
            Some(expires) => {
                self.times.max_age.saturating_sub(expires.saturating_sub(now)) + AGE_INCREMENT
            }
            None => SimTime::ZERO,
        };
        if age >= self.times.max_age {
            return;
        }
        let this = &mut self.ports[port];
        let config = Config {
            vector: Vector {
                root: self.root,
                cost: self.root_cost,
                bridge: self.id,
                port: this.id,
            },
            topology_change: self.topology_change,
            acknowledged: std::mem::take(&mut this.topology_change_ack),
            age,
            times: self.times,
        };
        this.config_pending = false;
        this.hold = Some(now + HOLD);
        self.transmit(port, &config.encode());
    }

    fn transmit_tcn(&mut self) {
        if let Some(port) = self.root_port {
            self.transmit(port, &[0, 0, 0, 0x80]);
        }
    }

    fn transmit(&mut self, port: usize, bpdu: &[u8]) {
        let length = (bpdu.len() as u16 + 3).to_be_bytes();
        let mut frame = [&BPDU_ADDRESS[..], &self.mac, &length, &[0x42, 0x42, 0x03], bpdu].concat();
        // The shortest frame, without its check sequence.
        frame.resize(60, 0);
        self.out.push((port as u32, frame));
    }
}

impl Config {
    fn encode(&self) -> [u8; 35] {
        let Self { vector, topology_change, acknowledged, age, times } = *self;
        let mut bpdu = [0; 35];
        bpdu[4] = u8::from(topology_change) | u8::from(acknowledged) << 7;
        bpdu[5..13].copy_from_slice(&vector.root.to_be_bytes());
        bpdu[13..17].copy_from_slice(&vector.cost.to_be_bytes());
        bpdu[17..25].copy_from_slice(&vector.bridge.to_be_bytes());
        bpdu[25..27].copy_from_slice(&vector.port.to_be_bytes());
        let fields = [age, times.max_age, times.hello, times.forward_delay];
        for (place, time) in bpdu[27..].as_chunks_mut::<2>().0.iter_mut().zip(fields) {
            // In units of 1/256 s.
            let units = u128::from(time.as_nanos()) * 256 / 1_000_000_000;
            *place = u16::try_from(units).unwrap_or(u16::MAX).to_be_bytes();
        }
        bpdu
    }

    fn parse(bpdu: &[u8]) -> Option<Self> {
        let long = |at: usize| bpdu.get(at..)?.first_chunk().map(|c| u64::from_be_bytes(*c));
        let short = |at: usize| bpdu.get(at..)?.first_chunk().map(|c| u16::from_be_bytes(*c));
        let time = |at| {
            let units = u64::from(short(at)?);
            Some(SimTime::from_nanos(units * 1_000_000_000 / 256))
        };
        let cost = bpdu.get(13..)?.first_chunk().map(|c| u32::from_be_bytes(*c))?;
        let config = Self {
            // Far from any overflow when ports add their own.
            vector: Vector {
                root: long(5)?,
                cost: cost.min(u32::MAX / 2),
                bridge: long(17)?,
                port: short(25)?,
            },
            topology_change: bpdu[4] & 1 != 0,
            acknowledged: bpdu[4] & 0x80 != 0,
            age: time(27)?,
            times: Times { max_age: time(29)?, hello: time(31)?, forward_delay: time(33)? },
        };
        // Zeros would make timers that never let time pass.
        let times = config.times;
        let sound = [times.max_age, times.hello, times.forward_delay];
        sound.iter().all(|&time| time >= HOLD).then_some(config)
    }
}
