//! What can be told to be wrong with a run before anything of it is made.
//!
//! Purpose: wrong options, images that are not there and devices that do not open are named at
//! once, all together, and leave no run directory behind.
//!
//! Assumes the caller's own namespaces, before the sandbox. Does not look at what only a start can
//! tell (KVM, memory).

use std::collections::HashSet;
use std::io;
use std::path::{Path, PathBuf};

use nix::sched::{CpuSet, sched_getaffinity};
use nix::unistd::{AccessFlags, Pid, access};
use tapestry_guests::image;
use tapestry_realtime::{CaptureTarget, IoChoice};
use tapestry_topologies::plan::Time;
use tapestry_topologies::resolved::{Attach, NodeKind, Topology};

use crate::forwarder::ForwarderError;
use crate::lab::{LabError, LabOptions, ingredients};

/// Why a run is refused.
#[derive(Debug, thiserror::Error)]
pub enum Refusal {
    /// Nodes that live by the wall clock, in virtual time.
    #[error(
        "--time virtual needs in-process nodes (kind host, router, bridge, hub or source), but these are \
         not: {}", .nodes.join(", ")
    )]
    External {
        /// The nodes.
        nodes: Vec<String>,
    },
    /// An option that counts in the other kind of time only.
    #[error("{option} has no meaning with --time {time}; leave it out")]
    OtherTime {
        /// The option.
        option: &'static str,
        /// The kind of time asked for.
        time: &'static str,
    },
    /// What a virtual machine is made of is not there.
    #[error(transparent)]
    Ingredients(Box<LabError>),
    /// A link to capture that is not there.
    #[error("--capture {link}: there is no such link; the links are {}", .known.join(", "))]
    Capture {
        /// The name.
        link: String,
        /// The links there are.
        known: Vec<String>,
    },
    /// An interface to capture that is not on the link.
    #[error("--capture {link}:{endpoint}: nothing of that name is on link {link}, where there are {}", .known.join(", "))]
    CaptureEndpoint {
        /// The link.
        link: String,
        /// `node` or `node:interface`, as given.
        endpoint: String,
        /// The interfaces there are.
        known: Vec<String>,
    },
    /// The same capture twice, which would be one file.
    #[error("--capture {what} is given twice{}; leave one out", if *.all { " (`all` means every link)" } else { "" })]
    CaptureTwice {
        /// `link`, `link:node` or `link:node:interface`.
        what: String,
        /// Whether one of them is `all`.
        all: bool,
    },
    /// A CPU that this process cannot run on.
    #[error("--pin {cpu}: this process cannot run on such a CPU; choose from {known}")]
    Pin {
        /// The CPU.
        cpu: usize,
        /// Those it can run on.
        known: String,
    },
    /// A program that cannot be started.
    #[error(
        "--forwarder {program}: there is no such program that this user may execute; give its \
         path, or a name that $PATH leads to"
    )]
    Forwarder {
        /// The program.
        program: String,
    },
    /// A link that a forwarder cannot carry.
    #[error(transparent)]
    ForwarderLink(ForwarderError),
    /// TAPs are needed and cannot be had.
    #[error("/dev/net/tun does not open ({source}), and these nodes need it: {nodes}. {}", tun_advice(source, *.netns))]
    Tun {
        /// The nodes.
        nodes: String,
        /// Whether there are namespaces among them, which have no other way.
        netns: bool,
        /// The system's answer.
        source: io::Error,
    },
}

fn tun_advice(error: &io::Error, netns: bool) -> String {
    let mend = match error.kind() {
        io::ErrorKind::PermissionDenied => {
            "Let this user open it (`sudo chmod 0666 /dev/net/tun`, or a group of this user that \
             may read and write it)"
        }
        _ => "Make it (`sudo modprobe tun`; for a container, `--device /dev/net/tun`)",
    };
    let socket = "virtual machines do without it with `attach: socket`";
    if netns {
        format!("{mend}; {socket}, namespaces cannot")
    } else {
        format!("{mend}, or give them `attach: socket`, which needs no TAP")
    }
}

impl Refusal {
    /// Whether the user asked for something wrong; else the machine lacks something.
    pub fn is_usage(&self) -> bool {
        !matches!(self, Self::Tun { .. })
    }
}

/// The first thing that is wrong with a run without options, which settles itself how virtual machines
/// attach; `topology` stays as it is.
pub fn first_refusal(topology: &Topology, time: Time) -> Option<Refusal> {
    let options = LabOptions::default();
    let found = match time {
        Time::Realtime => {
            let mut here = topology.clone();
            settle_attachments(&mut here);
            refusals(&here, &options)
        }
        Time::Virtual => virtual_time_refusals(topology, &options),
    };
    found.into_iter().next()
}

/// Everything that is wrong with a run in virtual time; empty if nothing is.
pub fn virtual_time_refusals(topology: &Topology, options: &LabOptions) -> Vec<Refusal> {
    let mut found = Vec::new();
    let external = topology.nodes.iter().filter(|node| node.kind.is_external());
    let nodes: Vec<String> = external.map(|node| node.name.clone()).collect();
    if !nodes.is_empty() {
        found.push(Refusal::External { nodes });
    }
    for (option, given) in [
        ("--sync", options.sync.is_some()),
        ("--workers", options.workers != 0),
        ("--realtime-priority", options.realtime_priority.is_some()),
        ("--cores-awake", options.cores_awake),
        ("--pin", !options.pin_to.is_empty()),
        ("--io", options.io != IoChoice::Auto),
        ("--forwarder", options.forwarder.is_some()),
    ] {
        if given {
            found.push(Refusal::OtherTime { option, time: "virtual" });
        }
    }
    captures(topology, options, &mut found);
    found
}

/// Everything that is wrong; empty if nothing is.
pub fn refusals(topology: &Topology, options: &LabOptions) -> Vec<Refusal> {
    let mut found = Vec::new();
    images(topology, &mut found);
    if options.until.is_some() {
        found.push(Refusal::OtherTime { option: "--until", time: "realtime" });
    }
    captures(topology, options, &mut found);
    pins(&options.pin_to, &mut found);
    if let Some(program) = &options.forwarder {
        forwarder(topology, program, &mut found);
    }
    taps(topology, &mut found);
    found
}

/// Whether `wanted` means the interface `name`: its whole name, or its node.
fn is_named(name: &str, wanted: &str) -> bool {
    name == wanted || name.split_once(':').is_some_and(|(node, _)| node == wanted)
}

fn captures(topology: &Topology, options: &LabOptions, found: &mut Vec<Refusal>) {
    twice(topology, &options.captures.targets, found);
    for target in &options.captures.targets {
        let CaptureTarget::Link { link, endpoint } = target else { continue };
        let Some(index) = topology.links.iter().position(|known| known.name == *link) else {
            let known = topology.links.iter().map(|link| link.name.clone()).collect();
            found.push(Refusal::Capture { link: link.clone(), known });
            continue;
        };
        let Some(endpoint) = endpoint else { continue };
        let known = topology.endpoint_names(index);
        if !known.iter().any(|name| is_named(name, endpoint)) {
            let (link, endpoint) = (link.clone(), endpoint.clone());
            found.push(Refusal::CaptureEndpoint { link, endpoint, known });
        }
    }
}

/// Captures that are asked for more than once, each once.
fn twice(topology: &Topology, targets: &[CaptureTarget], found: &mut Vec<Refusal>) {
    let mut seen = HashSet::new();
    let mut told = HashSet::new();
    let all = targets.contains(&CaptureTarget::All);
    for target in targets {
        let captures: Vec<(&str, Option<&str>)> = match target {
            CaptureTarget::All => {
                topology.links.iter().map(|link| (link.name.as_str(), None)).collect()
            }
            CaptureTarget::Link { link, endpoint } => vec![(link, endpoint.as_deref())],
        };
        for capture in captures {
            if !seen.insert(capture) && told.insert(capture) {
                let (link, endpoint) = capture;
                let what = endpoint.map_or(link.to_owned(), |end| format!("{link}:{end}"));
                found.push(Refusal::CaptureTwice { what, all: all && endpoint.is_none() });
            }
        }
    }
}

/// Each image that is not there or does not fit, once.
fn images(topology: &Topology, found: &mut Vec<Refusal>) {
    let cache = image::cache_dir();
    let mut seen = HashSet::new();
    for node in &topology.nodes {
        let NodeKind::Qemu(qemu) = &node.kind else { continue };
        let nics = (&qemu.machine, format!("{:?}", qemu.nic), node.interfaces.len());
        if !seen.insert((&qemu.image, &qemu.os, nics)) {
            continue;
        }
        let wrong = match &cache {
            Ok(cache) => ingredients(node, qemu, cache).err(),
            Err(_) => image::cache_dir()
                .err()
                .map(|source| LabError::Image { node: node.name.clone(), source }),
        };
        found.extend(wrong.map(|wrong| Refusal::Ingredients(Box::new(wrong))));
    }
}

fn pins(pin_to: &[usize], found: &mut Vec<Refusal>) {
    if pin_to.is_empty() {
        return;
    }
    // Where the kernel does not tell, the data plane will.
    let Ok(allowed) = sched_getaffinity(Pid::from_raw(0)) else { return };
    let may = |cpu: usize| allowed.is_set(cpu).unwrap_or(false);
    for &cpu in pin_to.iter().filter(|&&cpu| !may(cpu)) {
        let known: Vec<String> =
            (0..CpuSet::count()).filter(|&cpu| may(cpu)).map(|cpu| cpu.to_string()).collect();
        found.push(Refusal::Pin { cpu, known: known.join(", ") });
    }
}

fn forwarder(topology: &Topology, program: &str, found: &mut Vec<Refusal>) {
    let executable = |path: &Path| path.is_file() && access(path, AccessFlags::X_OK).is_ok();
    let there = if program.contains('/') {
        executable(Path::new(program))
    } else {
        let path = std::env::var_os("PATH").unwrap_or_default();
        let candidates: Vec<PathBuf> =
            std::env::split_paths(&path).map(|folder| folder.join(program)).collect();
        candidates.iter().any(|candidate| executable(candidate))
    };
    if !there {
        found.push(Refusal::Forwarder { program: program.to_owned() });
    }
    let external = |node: usize| topology.nodes[node].kind.is_external();
    let carried = |link: &tapestry_topologies::resolved::Link| {
        link.endpoints.len() == 2 && link.endpoints.iter().all(|end| external(end.node))
    };
    if let Some(link) = topology.links.iter().find(|link| !carried(link)) {
        let link = ForwarderError::Link { link: link.name.clone() };
        found.push(Refusal::ForwarderLink(link));
    }
}

fn open_tun() -> io::Result<std::fs::File> {
    std::fs::File::options().read(true).write(true).open("/dev/net/tun")
}

/// Settles how virtual machines attach that leave it open: by TAP and bridge where `/dev/net/tun`
/// opens, else by socket. Returns whether there are such and it does not.
pub fn settle_attachments(topology: &mut Topology) -> bool {
    let open = topology.nodes.iter_mut().filter_map(|node| match &mut node.kind {
        NodeKind::Qemu(qemu) if qemu.attach == Attach::Auto => Some(&mut qemu.attach),
        _ => None,
    });
    let open: Vec<&mut Attach> = open.collect();
    let sockets = !open.is_empty() && open_tun().is_err();
    for attach in open {
        *attach = if sockets { Attach::Socket } else { Attach::TapBridge };
    }
    sockets
}

/// Nodes whose interfaces are TAPs, where none can be made.
fn taps(topology: &Topology, found: &mut Vec<Refusal>) {
    let mut netns = false;
    let mut nodes = Vec::new();
    for node in topology.nodes.iter().filter(|node| !node.interfaces.is_empty()) {
        match &node.kind {
            NodeKind::Netns => netns = true,
            NodeKind::Qemu(qemu) if qemu.attach == Attach::TapBridge => {}
            _ => continue,
        }
        nodes.push(node.name.as_str());
    }
    if nodes.is_empty() {
        return;
    }
    if let Err(source) = open_tun() {
        /// More names would hide the advice behind them.
        const NAMED: usize = 5;
        let more = nodes.len().saturating_sub(NAMED);
        let names = nodes[..nodes.len() - more].join(", ");
        let names = if more > 0 { format!("{names} and {more} more") } else { names };
        found.push(Refusal::Tun { nodes: names, netns, source });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn advice_fits_what_is_wrong() {
        let denied = || io::Error::from_raw_os_error(nix::libc::EACCES);
        let missing = || io::Error::from_raw_os_error(nix::libc::ENOENT);
        let text =
            |source, netns| Refusal::Tun { nodes: "a, b".to_owned(), netns, source }.to_string();
        let machines = text(denied(), false);
        assert!(machines.contains("a, b") && machines.contains("chmod 0666 /dev/net/tun"));
        assert!(machines.contains("or give them `attach: socket`"), "{machines}");
        assert!(text(denied(), true).contains("namespaces cannot"));
        assert!(text(missing(), false).contains("modprobe tun"));
        assert!(!machines.contains("user namespace"), "{machines}");
    }
}
