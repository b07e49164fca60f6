//! Puts a data plane together: networks, workers, threads.

use std::any::Any;
use std::collections::BTreeSet;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use crossbeam_channel::{Receiver, Sender, bounded, unbounded};
use nix::sched::{CpuSet, sched_setaffinity};
use nix::sys::eventfd::{EfdFlags, EventFd};
use nix::sys::prctl;
use nix::unistd::Pid;
use parking_lot::Mutex;
use tapestry_core::{Streams, SyncPolicy};
use tapestry_models::{BuildError, FramePool, LinkConfig, NetworkBuilder, PortId};
use tokio::sync::watch;

use crate::capture::{Captures, Recorder};
use crate::clock::WallClock;
use crate::failure::{Failure, name_links};
use crate::groups::{Shape, spread};
use crate::interfaces::Interfaces;
use crate::plane::{
    DataPlane, Handle, Placed, PlacedDevice, PlacedEndpoint, PlacedPort, StartError,
};
use crate::poller::Poller;
use crate::ring::Ring;
use crate::spec::{Attachment, DataPlaneConfig, DeviceKind, IoChoice, LinkSpec};
use crate::spin::{SpinPolicy, Spinner};
use crate::sys;
use crate::watch::{InterfaceWatch, Watched};
use crate::worker::{Attached, Message, Worker, WorkerParts, WorkerState};

/// Ethernet header and one VLAN tag: what the MTU does not count, in bytes.
const HEADER_BYTES: usize = 18;
/// Buffers are a multiple of a cache line, in bytes.
const BUFFER_STEP: usize = 64;

type FailureSender = watch::Sender<Option<Failure>>;

/// See [`DataPlane::start`].
pub(crate) fn assemble(config: DataPlaneConfig) -> Result<DataPlane, StartError> {
    let DataPlaneConfig { links, devices, clock, .. } = config;
    let settings = Settings {
        clock,
        sync: config.sync,
        streams: Streams::new(config.seed, config.run),
        spin: config.spin,
        realtime_priority: config.realtime_priority,
        pin_to: config.pin_to,
        io: config.io,
        memory_limit: config.memory_limit,
    };
    // Each worker's network sees only its own links, so this is not left to them.
    let mut names = BTreeSet::new();
    if let Some(link) = links.iter().find(|link| !names.insert(link.config.name.as_str())) {
        return Err(BuildError::DuplicateLink { link: link.config.name.clone() }.into());
    }
    let shapes =
        links.iter().map(|link| shape(link, devices.len())).collect::<Result<Vec<_>, _>>()?;
    let cores = || std::thread::available_parallelism().map_or(1, usize::from);
    let workers = if config.workers == 0 { cores() } else { config.workers };
    let placement = spread(&shapes, devices.len(), workers);

    // Devices without links are the first worker's.
    let count = placement.iter().max().map_or(usize::from(!devices.is_empty()), |most| most + 1);
    let mut drafts: Vec<Draft> = (0..count).map(|_| Draft::new(settings.streams)).collect();
    let mut taps = DevicePorts(vec![None; devices.len()]);
    let mut interfaces = Interfaces::default();
    let mut placed = Vec::with_capacity(links.len());
    for (link, &worker) in links.into_iter().zip(&placement) {
        placed.push(drafts[worker].add_link(link, worker, &mut interfaces, &mut taps)?);
    }
    let mut placed_devices = Vec::with_capacity(devices.len());
    let epoch = clock.epoch();
    for (mut device, place) in devices.into_iter().zip(taps.0) {
        if let DeviceKind::Host(host) = &mut device.kind {
            host.epoch = epoch;
        }
        let name = device.name.clone();
        let (worker, ports) = place.unwrap_or_default();
        let id = device.build(&mut drafts[worker].builder, &ports)?;
        placed_devices.push(PlacedDevice { name, place: (worker, id) });
    }
    let (report, failure) = watch::channel(None);
    let watch = watch_interfaces(&placed, &interfaces, &mut drafts, clock);
    let (captures, recorders) = Captures::start(config.captures, &placed, drafts.len(), clock)?;
    let mut plane = DataPlane {
        clock,
        workers: Vec::new(),
        links: placed,
        devices: placed_devices,
        interfaces,
        failure,
        captures,
        watch,
    };
    for ((index, draft), recorder) in drafts.into_iter().enumerate().zip(recorders) {
        // On an error, dropping `plane` stops the workers started so far.
        plane.workers.push(draft.start(index, &settings, report.clone(), recorder)?);
    }
    Ok(plane)
}

/// Has the kernel tell of the ports' interfaces, and the workers not.
fn watch_interfaces(
    links: &[Placed],
    known: &Interfaces,
    drafts: &mut [Draft],
    clock: WallClock,
) -> InterfaceWatch {
    let mut interfaces = Vec::new();
    let mut places = Vec::new();
    for link in links {
        for endpoint in &link.endpoints {
            let Some(port) = &endpoint.port else { continue };
            let number = port.interface;
            let Some(meter) = known.meter(number) else { continue };
            interfaces.push(Watched { number, meter, link: &link.name, endpoint: &endpoint.name });
            places.push((link.worker, port.index));
        }
    }
    let (watch, watched) = InterfaceWatch::start(&interfaces, clock);
    for ((worker, port), watched) in places.into_iter().zip(watched) {
        drafts[worker].ports[port].watch(watched);
    }
    watch
}

/// What all workers of a run have in common.
struct Settings {
    clock: WallClock,
    sync: SyncPolicy,
    streams: Streams,
    spin: SpinPolicy,
    realtime_priority: Option<u8>,
    pin_to: Vec<usize>,
    io: IoChoice,
    memory_limit: usize,
}

/// The worker and the network's ports of each device; `None` for one without links.
struct DevicePorts(Vec<Option<(usize, Vec<PortId>)>>);

fn shape(link: &LinkSpec, devices: usize) -> Result<Shape, StartError> {
    let mut shape = Shape::default();
    for endpoint in &link.endpoints {
        match endpoint.attachment {
            Attachment::Port(_) => shape.ports += 1,
            Attachment::Device(device) if device < devices => shape.devices.push(device),
            Attachment::Device(device) => {
                return Err(StartError::NoSuchDevice {
                    link: link.config.name.clone(),
                    endpoint: endpoint.name.clone(),
                    device,
                });
            }
        }
    }
    Ok(shape)
}

/// A worker in the making.
struct Draft {
    builder: NetworkBuilder,
    ports: Vec<Attached>,
    by_port: Vec<Option<usize>>,
    links: Vec<String>,
    largest_mtu: u32,
}

impl Draft {
    fn new(streams: Streams) -> Self {
        Self {
            builder: NetworkBuilder::new(streams),
            ports: Vec::new(),
            by_port: Vec::new(),
            links: Vec::new(),
            largest_mtu: 0,
        }
    }

    /// Adds a link; notes its interfaces' meters and the devices it attaches to.
    fn add_link(
        &mut self,
        link: LinkSpec,
        worker: usize,
        interfaces: &mut Interfaces,
        devices: &mut DevicePorts,
    ) -> Result<Placed, StartError> {
        let stations = link.endpoints.len() as u32;
        let name = link.config.name.clone();
        self.largest_mtu = self.largest_mtu.max(link.config.mtu);
        let id = self.builder.link(LinkConfig { stations, ..link.config })?;
        self.links.push(name.clone());
        let mut endpoints = Vec::with_capacity(link.endpoints.len());
        for (station, endpoint) in (0..).zip(link.endpoints) {
            let port_id = self.builder.port(id, station).expect("a link has a port per station");
            let port = match endpoint.attachment {
                Attachment::Device(device) => {
                    let (_, ports) = devices.0[device].get_or_insert((worker, Vec::new()));
                    ports.push(port_id);
                    self.by_port.push(None);
                    None
                }
                Attachment::Port(port) => {
                    let index = self.ports.len();
                    let interface = interfaces.add(port.meter(), endpoint.reader);
                    let place = PlacedPort { name: port.name().to_owned(), index, interface };
                    self.by_port.push(Some(index));
                    self.ports.push(Attached::new(port, port_id, id, endpoint.name.clone()));
                    Some(place)
                }
            };
            endpoints.push(PlacedEndpoint { name: endpoint.name, port });
        }
        Ok(Placed { name, worker, id, endpoints })
    }

    /// Bytes of a frame buffer for these links.
    fn buffer_bytes(&self) -> usize {
        // One byte more than the longest frame, so that a longer one is still too long when cut.
        (self.largest_mtu as usize + HEADER_BYTES + 1).next_multiple_of(BUFFER_STEP)
    }

    /// The io_uring of the worker's TAPs, if it is wanted and to be had.
    fn ring(&mut self, choice: IoChoice) -> Result<Option<Ring>, StartError> {
        if choice == IoChoice::Epoll {
            return Ok(None);
        }
        let count = self.ports.len();
        let ports = self.ports.iter_mut().enumerate();
        let taps: Vec<_> = ports.filter_map(|(i, port)| Some((i, port.tap()?))).collect();
        if taps.is_empty() {
            return Ok(None);
        }
        match Ring::new(&taps, count) {
            Ok(ring) => Ok(Some(ring)),
            Err(source) if choice == IoChoice::Uring => {
                Err(StartError::Uring { links: name_links(&self.links), source })
            }
            Err(error) => {
                tracing::debug!(%error, "no io_uring, TAPs are moved by read and write");
                Ok(None)
            }
        }
    }

    /// Starts the thread; returns when it is set up.
    fn start(
        self,
        index: usize,
        settings: &Settings,
        report: FailureSender,
        recorder: Option<Recorder>,
    ) -> Result<Handle, StartError> {
        let subject = name_links(&self.links);
        let refused = |source: nix::Error| StartError::Worker {
            subject: subject.clone(),
            source: source.into(),
        };
        let flags = EfdFlags::EFD_NONBLOCK | EfdFlags::EFD_CLOEXEC;
        let wake = Arc::new(EventFd::from_flags(flags).map_err(refused)?);
        let (inbox, messages) = unbounded();
        let links = self.links.clone();
        let worker = self.into_worker(settings, messages, Arc::clone(&wake), recorder, refused)?;

        let last = Arc::new(Mutex::new(None));
        let cpu = match settings.pin_to.as_slice() {
            [] => None,
            cpus => Some(cpus[index % cpus.len()]),
        };
        let priority = settings.realtime_priority;
        let (ready, is_ready) = bounded(1);
        let its_last = Arc::clone(&last);
        let thread = std::thread::Builder::new()
            .name(format!("data-plane-{index}"))
            .spawn(move || run(worker, cpu, priority, &ready, &report, &its_last))
            .map_err(|source| StartError::Worker { subject: name_links(&links), source })?;
        let handle = Handle { links, inbox, wake, thread: Some(thread), last };
        match is_ready.recv() {
            Ok(Err(error)) => Err(error),
            // A thread that died before it answered has reported its panic as a failure.
            Ok(Ok(())) | Err(_) => Ok(handle),
        }
    }

    fn into_worker(
        mut self,
        settings: &Settings,
        inbox: Receiver<Message>,
        wake: Arc<EventFd>,
        recorder: Option<Recorder>,
        refused: impl Fn(nix::Error) -> StartError,
    ) -> Result<Worker, StartError> {
        let poller = Poller::new().map_err(&refused)?;
        let ring = self.ring(settings.io)?;
        let buffer_bytes = self.buffer_bytes();
        let mut frames = (settings.memory_limit / buffer_bytes).max(1);
        let mut network = self.builder.build();
        if let Some(recorder) = recorder {
            network.set_trace(Some(Box::new(recorder)));
        }
        // What the kernel holds is not taken from the links.
        frames += ring.as_ref().map_or(0, Ring::buffers);
        let parts = WorkerParts {
            clock: settings.clock,
            sync: settings.sync,
            network,
            pool: FramePool::new(buffer_bytes, frames),
            ports: self.ports,
            by_port: self.by_port,
            links: self.links,
            poller,
            ring,
            spinner: Spinner::new(settings.spin),
            inbox,
            wake,
        };
        Worker::new(parts).map_err(|(errno, endpoint)| match endpoint {
            Some(endpoint) => StartError::Worker { subject: endpoint, source: errno.into() },
            None => refused(errno),
        })
    }
}

/// The life of a worker's thread.
fn run(
    mut worker: Worker,
    cpu: Option<usize>,
    priority: Option<u8>,
    ready: &Sender<Result<(), StartError>>,
    report: &FailureSender,
    last: &Mutex<Option<WorkerState>>,
) {
    let set_up = prepare_thread(cpu, priority);
    let fit = set_up.is_ok();
    let _ = ready.send(set_up);
    if !fit {
        return;
    }
    // After a panic only counters are read, and those are plain numbers.
    let outcome = catch_unwind(AssertUnwindSafe(|| worker.run()));
    let failure = match outcome {
        Ok(Ok(())) => None,
        Ok(Err(failure)) => Some(failure),
        Err(panic) => Some(Failure::Panicked {
            links: worker.link_names(),
            message: panic_message(panic.as_ref()).to_owned(),
        }),
    };
    *last.lock() = Some(worker.state());
    if let Some(failure) = failure {
        report.send_if_modified(|first| {
            // Whoever watches tells of the first; others would be told by nobody.
            let is_first = first.is_none();
            if !is_first {
                tracing::error!(%failure, "data plane failed once more");
            }
            first.get_or_insert(failure);
            is_first
        });
    }
}

/// Gives the calling thread precise timers, and the CPU and priority asked for.
fn prepare_thread(cpu: Option<usize>, priority: Option<u8>) -> Result<(), StartError> {
    // The default slack of 50 µs would make every timer that late. It is only a wish.
    let _ = prctl::set_timerslack(1);
    if let Some(cpu) = cpu {
        let mut set = CpuSet::new();
        set.set(cpu)
            .and_then(|()| sched_setaffinity(Pid::from_raw(0), &set))
            .map_err(|source| StartError::Pin { cpu, source })?;
    }
    if let Some(priority) = priority {
        sys::set_fifo_priority(priority)
            .map_err(|source| StartError::Priority { priority, source })?;
    }
    Ok(())
}

fn panic_message(panic: &(dyn Any + Send)) -> &str {
    panic
        .downcast_ref::<String>()
        .map(String::as_str)
        .or_else(|| panic.downcast_ref::<&str>().copied())
        .unwrap_or("no message")
}
