//! Interfaces that nodes take down and bring back.
//!
//! Purpose: a port learns that its interface is down only from a frame that meets it, so a node that
//! takes its interface down and up again between two frames would go unnoticed, with whatever its
//! kernel threw away on the way. The kernel tells of each change by netlink, in the namespace where
//! the interface is; a thread of its own listens and keeps the notices.
//!
//! Assumptions: changes before an interface is up for the first time are its configuration. An
//! interface that leaves its namespace, for another or for good, is its worker's affair again. Not
//! told: changes inside a virtual machine, whose interface is the guest's own. Reference: `netlink(7)`, `rtnetlink(7)`.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

use nix::errno::Errno;
use nix::ifaddrs::getifaddrs;
use nix::net::if_::{InterfaceFlags, if_nametoindex};
use nix::sys::eventfd::{EfdFlags, EventFd};
use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, recv, socket,
};
use parking_lot::Mutex;
use tapestry_core::{Clock, SimTime};

use crate::clock::WallClock;
use crate::meter::{InterfaceCounters, InterfaceMeter, Place};
use crate::poller::{Poller, Wait};
use crate::port::PortState;
use crate::report::{Notice, Notices};

/// `RTMGRP_LINK` of `linux/rtnetlink.h`.
const LINK_GROUP: u32 = 1;
/// Enough for a message about a bridge with all its attributes.
const MESSAGE_BYTES: usize = 16 << 10;
/// What the kernel tells of an interface's end may come this much later than what it tells of its
/// being taken down for that.
const AT_ONCE: SimTime = SimTime::from_secs(1);
/// Token of the order to stop; sockets have their index.
const STOP: u64 = u64::MAX - 1;

/// An interface to be watched.
pub(crate) struct Watched<'a> {
    /// Its number among all interfaces.
    pub(crate) number: usize,
    pub(crate) meter: &'a InterfaceMeter,
    pub(crate) link: &'a str,
    pub(crate) endpoint: &'a str,
}

/// Whether changes of an interface are told of by the watch.
pub(crate) type IsWatched = Arc<AtomicBool>;

/// The thread that listens. Dropping it ends it.
#[derive(Debug, Default)]
pub(crate) struct InterfaceWatch {
    thread: Option<(JoinHandle<()>, Arc<EventFd>)>,
    heard: Arc<Mutex<Heard>>,
}

/// What the kernel has told.
#[derive(Debug, Default)]
struct Heard {
    notices: Notices,
    /// The last counters of interfaces that have left their namespace, by their numbers.
    left: BTreeMap<usize, InterfaceCounters>,
}

impl InterfaceWatch {
    /// Starts to watch; says of each interface whether it is watched, now and later.
    pub(crate) fn start(interfaces: &[Watched<'_>], clock: WallClock) -> (Self, Vec<IsWatched>) {
        // Entering a namespace cannot be undone without its descriptor: a thread is spent on it.
        let opened = std::thread::scope(|scope| {
            let opener = std::thread::Builder::new()
                .name("interface-watch".into())
                .spawn_scoped(scope, || open(interfaces));
            opener.ok().and_then(|opener| opener.join().ok())
        });
        let unwatched = || (Self::default(), interfaces.iter().map(|_| Arc::default()).collect());
        let Some((sockets, watched)) = opened else { return unwatched() };
        if sockets.is_empty() {
            return unwatched();
        }
        let heard = Arc::new(Mutex::new(Heard::default()));
        let started = Listener::new(sockets, clock, Arc::clone(&heard)).and_then(|listener| {
            let stop = Arc::clone(&listener.stop);
            let thread = std::thread::Builder::new()
                .name("interfaces".into())
                .spawn(move || listener.run())
                .map_err(|error| Errno::from_raw(error.raw_os_error().unwrap_or(0)))?;
            Ok((thread, stop))
        });
        match started {
            Ok(thread) => (Self { thread: Some(thread), heard }, watched),
            Err(error) => {
                tracing::debug!(%error, "interfaces are not watched");
                unwatched()
            }
        }
    }

    /// What happened so far.
    pub(crate) fn notices(&self) -> Notices {
        self.heard.lock().notices.clone()
    }

    /// The last counters of interfaces that have left their namespace, by their numbers.
    pub(crate) fn left(&self) -> BTreeMap<usize, InterfaceCounters> {
        self.heard.lock().left.clone()
    }

    /// Hears what the kernel has told until now, and ends.
    pub(crate) fn stop(&mut self) {
        if let Some((thread, stop)) = self.thread.take() {
            let _ = stop.write(1);
            let _ = thread.join();
        }
    }
}

impl Drop for InterfaceWatch {
    fn drop(&mut self) {
        self.stop();
    }
}

/// A socket in one namespace, and the interfaces of ours there by their index.
struct Namespace {
    socket: OwnedFd,
    interfaces: BTreeMap<u32, Interface>,
}

struct Interface {
    number: usize,
    name: String,
    link: String,
    endpoint: String,
    /// `None` until it is up for the first time.
    up: Option<bool>,
    watched: IsWatched,
}

/// Opens a socket for each namespace; leaves the calling thread in one of them.
fn open(interfaces: &[Watched<'_>]) -> (Vec<Namespace>, Vec<IsWatched>) {
    let mut namespaces: BTreeMap<Place, Namespace> = BTreeMap::new();
    let mut add = |watched: &Watched<'_>| -> Option<IsWatched> {
        let (place, name) = watched.meter.enter()?;
        let index = if_nametoindex(name.as_str()).ok()?;
        let namespace = match namespaces.entry(place) {
            Entry::Occupied(known) => known.into_mut(),
            Entry::Vacant(new) => {
                let interfaces = BTreeMap::new();
                new.insert(Namespace { socket: listening_socket().ok()?, interfaces })
            }
        };
        // Looked at behind the socket's opening, so no change is missed.
        let mut all = getifaddrs().ok()?;
        let is_up = all.any(|interface| {
            interface.interface_name == name && interface.flags.contains(InterfaceFlags::IFF_UP)
        });
        let interface = Interface {
            number: watched.number,
            name,
            link: watched.link.to_owned(),
            endpoint: watched.endpoint.to_owned(),
            up: is_up.then_some(true),
            watched: Arc::new(AtomicBool::new(true)),
        };
        let is_watched = Arc::clone(&interface.watched);
        namespace.interfaces.insert(index, interface);
        Some(is_watched)
    };
    let watched = interfaces.iter().map(|interface| add(interface).unwrap_or_default()).collect();
    (namespaces.into_values().collect(), watched)
}

/// A socket that hears of all interfaces of the calling thread's namespace.
fn listening_socket() -> nix::Result<OwnedFd> {
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let route = SockProtocol::NetlinkRoute;
    let socket = socket(AddressFamily::Netlink, SockType::Raw, flags, route)?;
    bind(socket.as_raw_fd(), &NetlinkAddr::new(0, LINK_GROUP))?;
    Ok(socket)
}

struct Listener {
    namespaces: Vec<Namespace>,
    poller: Poller,
    stop: Arc<EventFd>,
    clock: WallClock,
    heard: Arc<Mutex<Heard>>,
}

impl Listener {
    fn new(
        namespaces: Vec<Namespace>,
        clock: WallClock,
        heard: Arc<Mutex<Heard>>,
    ) -> nix::Result<Self> {
        let poller = Poller::new()?;
        let stop = Arc::new(EventFd::from_flags(EfdFlags::EFD_NONBLOCK | EfdFlags::EFD_CLOEXEC)?);
        poller.add(stop.as_fd(), STOP)?;
        for (index, namespace) in namespaces.iter().enumerate() {
            poller.add(namespace.socket.as_fd(), index as u64)?;
        }
        Ok(Self { namespaces, poller, stop, clock, heard })
    }

    fn run(mut self) {
        let mut stopping = false;
        let mut message = vec![0; MESSAGE_BYTES];
        while !stopping {
            let mut ready = Vec::new();
            let waited = self.poller.wait(Wait::Forever, |token, _, _| match token {
                STOP => stopping = true,
                index => ready.push(index as usize),
            });
            if stopping || waited.is_err() {
                stopping = true;
                ready = (0..self.namespaces.len()).collect();
            }
            for index in ready {
                self.hear(index, &mut message);
            }
        }
    }

    /// Everything that a socket has to tell.
    fn hear(&mut self, index: usize, message: &mut [u8]) {
        let Self { namespaces, clock, heard, .. } = self;
        let Some(namespace) = namespaces.get_mut(index) else { return };
        loop {
            match recv(namespace.socket.as_raw_fd(), message, MsgFlags::empty()) {
                Ok(bytes) if bytes > 0 => {
                    for (index, change) in changes(&message[..bytes]) {
                        namespace.hear(index, change, clock.now(), &mut heard.lock());
                    }
                }
                Err(Errno::EINTR) => {}
                // The kernel told more than the socket holds.
                Err(Errno::ENOBUFS) => heard.lock().notices.skip(),
                _ => return,
            }
        }
    }
}

impl Namespace {
    /// The kernel has told of one interface.
    fn hear(&mut self, index: u32, change: Change, now: SimTime, heard: &mut Heard) {
        let Some(interface) = self.interfaces.get_mut(&index) else { return };
        let up = match change {
            Change::Up(up) => up,
            Change::Left(counters) => {
                // The kernel takes down what leaves; that was nobody's command.
                heard.notices.retract_down(&interface.endpoint, now - AT_ONCE);
                if let Some(counters) = counters {
                    let last = InterfaceCounters { name: interface.name.clone(), ..counters };
                    heard.left.insert(interface.number, last);
                }
                interface.watched.store(false, Ordering::Relaxed);
                self.interfaces.remove(&index);
                return;
            }
        };
        let Some(state) = interface.change(up) else { return };
        let (link, endpoint) = (interface.link.clone(), interface.endpoint.clone());
        heard.notices.add(Notice { time: now, link, endpoint, state });
    }
}

impl Interface {
    /// The new state, if it is one.
    fn change(&mut self, up: bool) -> Option<PortState> {
        let was = self.up;
        if was.is_none() && !up {
            return None;
        }
        self.up = Some(up);
        match was {
            Some(was) if was != up => Some(if up { PortState::Up } else { PortState::Down }),
            _ => None,
        }
    }
}

/// What the kernel tells of an interface.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Change {
    /// It is there, and up or not.
    Up(bool),
    /// It was deleted or moved to another namespace, having counted so many frames.
    Left(Option<InterfaceCounters>),
}

/// Finds `IFLA_STATS64`, a `struct rtnl_link_stats64`, among a message's attributes. The counters
/// are without the interface's name.
fn counters_among(mut attributes: &[u8]) -> Option<InterfaceCounters> {
    const HEADER_BYTES: usize = 4;
    const STATS: u16 = 23;
    const SENT: usize = 1;
    const RECEIVE_DROPS: usize = 6;
    const SEND_DROPS: usize = 7;
    loop {
        let two =
            |at: usize| Some(u16::from_ne_bytes(attributes.get(at..at + 2)?.try_into().ok()?));
        let (length, kind) = (usize::from(two(0)?), two(2)?);
        let value = attributes.get(HEADER_BYTES..length)?;
        if kind == STATS {
            let figure = |at: usize| {
                let bytes = value.get(at * 8..at * 8 + 8)?;
                Some(u64::from_ne_bytes(bytes.try_into().ok()?))
            };
            return Some(InterfaceCounters {
                sent: figure(SENT)?,
                receive_drops: figure(RECEIVE_DROPS)?,
                send_drops: figure(SEND_DROPS)?,
                ..InterfaceCounters::default()
            });
        }
        attributes = attributes.get(length.next_multiple_of(4)..)?;
    }
}

/// Index of each interface that a datagram tells of, and what.
fn changes(datagram: &[u8]) -> Vec<(u32, Change)> {
    /// `struct nlmsghdr`: length, type, …; then `struct ifinfomsg`: …, index, flags, ….
    const HEADER_BYTES: usize = 16;
    const TYPE: usize = 4;
    const INDEX: usize = HEADER_BYTES + 4;
    const FLAGS: usize = HEADER_BYTES + 8;
    const ATTRIBUTES: usize = HEADER_BYTES + 16;
    let mut found = Vec::new();
    let mut rest = datagram;
    let word = |bytes: &[u8], at: usize| -> Option<u32> {
        Some(u32::from_ne_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
    };
    while let Some(length) = word(rest, 0) {
        let kind = rest.get(TYPE..TYPE + 2).map(|two| u16::from_ne_bytes([two[0], two[1]]));
        if let Some((index, flags)) = word(rest, INDEX).zip(word(rest, FLAGS)) {
            match kind {
                Some(libc::RTM_NEWLINK) => {
                    found.push((index, Change::Up(flags & libc::IFF_UP.cast_unsigned() != 0)));
                }
                Some(libc::RTM_DELLINK) => {
                    let end = rest.len().min(length as usize);
                    let attributes = rest.get(ATTRIBUTES..end).unwrap_or_default();
                    found.push((index, Change::Left(counters_among(attributes))));
                }
                _ => {}
            }
        }
        let step = (length as usize).max(HEADER_BYTES).next_multiple_of(4);
        rest = rest.get(step..).unwrap_or_default();
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(kind: u16, index: u32, flags: u32) -> Vec<u8> {
        let mut bytes = 33u32.to_ne_bytes().to_vec();
        bytes.extend(kind.to_ne_bytes());
        bytes.resize(20, 0);
        bytes.extend(index.to_ne_bytes());
        bytes.extend(flags.to_ne_bytes());
        // An attribute that does not end at a multiple of four.
        bytes.resize(36, 0);
        bytes
    }

    #[test]
    fn several_messages_of_one_datagram() {
        let datagram = [
            message(libc::RTM_NEWLINK, 7, 0x1002),
            message(libc::RTM_DELLINK, 8, 1),
            message(libc::RTM_NEWLINK, 9, 0x1003),
        ];
        assert_eq!(
            changes(&datagram.concat()),
            [(7, Change::Up(false)), (8, Change::Left(None)), (9, Change::Up(true))]
        );
        assert_eq!(changes(&datagram[0][..25]), []);
        assert_eq!(changes(&[0; 40]), []);
    }

    #[test]
    fn the_end_of_an_interface_tells_its_counters() {
        let mut bytes = message(libc::RTM_DELLINK, 3, 0)[..32].to_vec();
        let attribute = |kind: u16, value: &[u8]| {
            let length = (4 + value.len()) as u16;
            let mut all = [length.to_ne_bytes(), kind.to_ne_bytes()].concat();
            all.extend(value);
            all.resize(all.len().next_multiple_of(4), 0);
            all
        };
        bytes.extend(attribute(3, b"eth0\0"));
        let stats: Vec<u8> = (100..124u64).flat_map(u64::to_ne_bytes).collect();
        bytes.extend(attribute(23, &stats));
        let length = bytes.len() as u32;
        bytes[..4].copy_from_slice(&length.to_ne_bytes());
        let counters = InterfaceCounters {
            sent: 101,
            receive_drops: 106,
            send_drops: 107,
            ..InterfaceCounters::default()
        };
        assert_eq!(changes(&bytes), [(3, Change::Left(Some(counters)))]);
        assert_eq!(changes(&bytes[..60]), [(3, Change::Left(None))]);
    }

    #[test]
    fn only_changes_of_an_interface_that_was_up_are_told() {
        let mut interface = Interface {
            number: 0,
            name: String::new(),
            link: String::new(),
            endpoint: String::new(),
            up: None,
            watched: IsWatched::default(),
        };
        let told: Vec<_> = [false, false, true, true, false, false, true]
            .into_iter()
            .map(|up| interface.change(up))
            .collect();
        use PortState::{Down, Up};
        assert_eq!(told, [None, None, None, None, Some(Down), None, Some(Up)]);
    }
}
