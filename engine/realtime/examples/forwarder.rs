//! Measures the data plane against a bare forwarder, in one run and alternating.
//!
//! Purpose: how much of what the kernel's TAPs allow is left with models, timers and ledger in
//! between. N network namespaces form a chain (the inner ones join their two TAPs by a kernel
//! bridge); the links between them are moved either by the data plane or by a loop of `epoll_wait`,
//! `read` and `write` in one thread. Reported: the *critical* rate (largest offered UDP load of
//! 1470-byte datagrams of which at least 99 % arrive, in hop-packets per second: end to end times
//! N − 1), what arrives of a flood, TCP throughput, and the round-trip time of `ping`.
//!
//! Needs root, `/dev/net/tun`, `ip`, `iperf` (version 2) and `ping`:
//! `cargo run --release -p tapestry-realtime --example forwarder -- [NODES [ROUNDS [SECONDS]]]`

use std::error::Error;
use std::os::fd::AsRawFd;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use nix::sched::{CloneFlags, unshare};
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, SockaddrIn, recv, sendto,
    setsockopt, socket, sockopt,
};
use nix::sys::time::{TimeVal, TimeValLike};
use nix::unistd::{read, write};
use tapestry_core::SimTime;
use tapestry_models::LinkConfig;
use tapestry_realtime::{
    DataPlane, DataPlaneConfig, EndpointSpec, IoChoice, LinkSpec, Port, Snapshot, TapPort,
    WallClock,
};

type Outcome<T> = Result<T, Box<dyn Error + Send + Sync>>;

/// Steps of the search for the critical rate; its result is exact to about 1 %.
const SEARCH_STEPS: u32 = 7;
/// Largest end-to-end rate offered, in datagrams per second; more than a sender manages.
const LARGEST_PPS: u32 = 600_000;

fn main() -> Outcome<()> {
    let mut arguments = std::env::args().skip(1);
    let mut number = |default: u32| arguments.next().map_or(Ok(default), |text| text.parse());
    let (nodes, rounds, seconds) = (number(2)?.max(2), number(3)?, number(2)?);
    let mut systems = vec![
        ("bare", System::Bare),
        ("epoll, 1 worker", System::Plane(1, IoChoice::Epoll)),
        ("io_uring, 1 worker", System::Plane(1, IoChoice::Uring)),
    ];
    if nodes > 2 {
        systems.push(("epoll, 2 workers", System::Plane(2, IoChoice::Epoll)));
        systems.push(("io_uring, 2 workers", System::Plane(2, IoChoice::Uring)));
    }
    let mut figures: Vec<Vec<Figures>> = systems.iter().map(|_| Vec::new()).collect();
    for round in 1..=rounds {
        for ((name, system), figures) in systems.iter().zip(&mut figures) {
            let figure = measure(nodes, system, seconds)?;
            println!("round {round}, {name}: {figure:?}");
            figures.push(figure);
        }
    }
    println!("\nmedians of {rounds} rounds, {nodes} nodes (and relative to the bare forwarder)");
    let median = |of: usize, value: fn(&Figures) -> f64| {
        let mut values: Vec<f64> = figures[of].iter().map(value).collect();
        values.sort_by(f64::total_cmp);
        values[values.len() / 2]
    };
    for (index, (name, _)) in systems.iter().enumerate() {
        println!("{name}");
        for (what, unit, value) in ROWS {
            let (ours, bare) = (median(index, value), median(0, value));
            println!("  {what:<12} {ours:>12.3} {unit:<14} {:>6.3}", ours / bare);
        }
    }
    for (name, io) in [("epoll", IoChoice::Epoll), ("io_uring", IoChoice::Uring)] {
        let errors = delay_errors(io)?;
        println!(
            "{name}, 10 ms each way, round-trip time above 20 ms: p50 {:.3} ms, p99 {:.3} ms, \
             least {:.3} ms",
            errors.0, errors.1, errors.2
        );
    }
    Ok(())
}

/// What moves the frames.
enum System {
    Bare,
    Plane(usize, IoChoice),
}

#[derive(Debug, Clone, Copy)]
struct Figures {
    critical_hop_pps: f64,
    flood_hop_pps: f64,
    cpu_us_per_hop: f64,
    tcp_mbits: f64,
    rtt_p50_ms: f64,
    rtt_p99_ms: f64,
}

type Row = (&'static str, &'static str, fn(&Figures) -> f64);
const ROWS: [Row; 6] = [
    ("critical", "hop-packets/s", |f| f.critical_hop_pps),
    ("flood", "hop-packets/s", |f| f.flood_hop_pps),
    ("CPU, flood", "µs/hop-packet", |f| f.cpu_us_per_hop),
    ("TCP", "Mbit/s", |f| f.tcp_mbits),
    ("RTT p50", "ms", |f| f.rtt_p50_ms),
    ("RTT p99", "ms", |f| f.rtt_p99_ms),
];

fn measure(nodes: u32, system: &System, seconds: u32) -> Outcome<Figures> {
    let (chain, links) = Chain::new(nodes)?;
    let mover = Mover::start(system, links, SimTime::ZERO)?;
    let hops = f64::from(nodes - 1);
    let (rtt_p50_ms, rtt_p99_ms, _) = chain.ping(2_000, Duration::from_millis(1))?;
    let tcp_mbits = chain.tcp(seconds)?;
    let (mut lowest, mut highest) = (0_u32, LARGEST_PPS);
    let mut flood_hop_pps: f64 = 0.0;
    let mut cpu_us_per_hop = 0.0;
    for step in 0..=SEARCH_STEPS {
        // The first step offers the most.
        let offered = if step == 0 { highest } else { lowest.midpoint(highest) };
        let cpu_before = movers_cpu_ns()?;
        let (sent, received) = chain.udp(offered, seconds)?;
        if step == 0 {
            cpu_us_per_hop = (movers_cpu_ns()? - cpu_before) / 1e3 / (received * hops);
        }
        flood_hop_pps = flood_hop_pps.max(received * hops / f64::from(seconds));
        // A sender that cannot send that much limits the range too.
        let pps = offered.min((sent / f64::from(seconds)) as u32);
        if received >= 0.99 * sent {
            lowest = lowest.max(pps);
        } else {
            highest = pps;
        }
    }
    mover.stop();
    let critical_hop_pps = f64::from(lowest) * hops;
    Ok(Figures {
        critical_hop_pps,
        flood_hop_pps,
        cpu_us_per_hop,
        tcp_mbits,
        rtt_p50_ms,
        rtt_p99_ms,
    })
}

/// p50, p99 and least round-trip time beyond the 20 ms of two delays of 10 ms, in ms.
fn delay_errors(io: IoChoice) -> Outcome<(f64, f64, f64)> {
    let (chain, links) = Chain::new(2)?;
    let mover = Mover::start(&System::Plane(1, io), links, SimTime::from_millis(10))?;
    let (p50, p99, least) = chain.ping(1_000, Duration::from_millis(3))?;
    let report = mover.stop();
    println!("lateness: {:?}", report.map(|snapshot| snapshot.lateness));
    Ok((p50 - 20.0, p99 - 20.0, least - 20.0))
}

/// The running system under test.
enum Mover {
    Bare(JoinHandle<()>, Arc<AtomicBool>),
    Plane(Box<DataPlane>),
}

impl Mover {
    fn start(system: &System, links: Vec<[TapPort; 2]>, delay: SimTime) -> Outcome<Self> {
        match system {
            System::Bare => {
                let ends = Arc::new(AtomicBool::new(false));
                let its_ends = Arc::clone(&ends);
                let thread = std::thread::Builder::new()
                    .name("bare".into())
                    .spawn(move || forward(&links, &its_ends))?;
                Ok(Self::Bare(thread, ends))
            }
            System::Plane(workers, io) => {
                let link = |(index, taps): (usize, [TapPort; 2])| {
                    let name = format!("link{index}");
                    let config = LinkConfig { delay, ..LinkConfig::point_to_point(name) };
                    let end = |tap: TapPort| EndpointSpec::port(tap.name().to_owned(), tap);
                    LinkSpec { config, endpoints: taps.map(end).into() }
                };
                let links = links.into_iter().enumerate().map(link).collect();
                let mut config = DataPlaneConfig::new(WallClock::start(), links);
                config.workers = *workers;
                config.io = *io;
                Ok(Self::Plane(Box::new(DataPlane::start(config)?)))
            }
        }
    }

    fn stop(self) -> Option<Snapshot> {
        match self {
            Self::Bare(thread, ends) => {
                ends.store(true, Ordering::Relaxed);
                let _ = thread.join();
                None
            }
            Self::Plane(plane) => Some(plane.stop().snapshot),
        }
    }
}

/// The bare forwarder: as little as it takes.
fn forward(links: &[[TapPort; 2]], ends: &AtomicBool) {
    let taps: Vec<&TapPort> = links.iter().flatten().collect();
    let epoll = Epoll::new(EpollCreateFlags::empty()).expect("epoll exists");
    for (index, tap) in taps.iter().enumerate() {
        epoll
            .add(tap.fd(), EpollEvent::new(EpollFlags::EPOLLIN, index as u64))
            .expect("a TAP can be polled");
    }
    let mut events = [EpollEvent::empty(); 64];
    let mut buffer = [0; 2_048];
    while !ends.load(Ordering::Relaxed) {
        let count = epoll.wait(&mut events, EpollTimeout::from(100_u8)).unwrap_or(0);
        for event in &events[..count] {
            let index = event.data() as usize;
            let peer = taps[index ^ 1].fd();
            // As many at a time as the data plane takes.
            for _ in 0..32 {
                let Ok(length) = read(taps[index].fd(), &mut buffer) else { break };
                let _ = write(peer, &buffer[..length]);
            }
        }
    }
}

/// Namespaces in a row; the first and the last have an address.
struct Chain {
    nodes: Vec<Node>,
}

impl Chain {
    /// The chain, and the two TAPs of each link.
    fn new(count: u32) -> Outcome<(Self, Vec<[TapPort; 2]>)> {
        let nodes = (0..count).map(|_| Node::new()).collect::<Outcome<Vec<_>>>()?;
        let mut links = Vec::new();
        for index in 1..nodes.len() {
            let right = nodes[index - 1].call(|| Ok(TapPort::create("right")?))?;
            let left = nodes[index].call(|| Ok(TapPort::create("left")?))?;
            links.push([right, left]);
        }
        let last = nodes.len() - 1;
        for (index, node) in nodes.iter().enumerate() {
            let commands: &[&str] = if index == 0 {
                &["link set right up", "addr add 10.9.0.1/24 dev right"]
            } else if index == last {
                &["link set left up", "addr add 10.9.0.2/24 dev left"]
            } else {
                &[
                    "link add br0 type bridge",
                    "link set left master br0 up",
                    "link set right master br0 up",
                    "link set br0 up",
                ]
            };
            for &command in commands {
                node.run("ip", command)?;
            }
        }
        Ok((Self { nodes }, links))
    }

    /// p50, p99 and least round-trip time of ICMP echoes in ms. `ping` itself rounds too much.
    fn ping(&self, count: u16, interval: Duration) -> Outcome<(f64, f64, f64)> {
        // The first ones resolve addresses.
        let _ = self.first().run("ping", "-c 3 -i 0.2 -w 10 10.9.0.2")?;
        self.first().call(move || {
            let (raw, icmp) = (SockType::Raw, SockProtocol::Icmp);
            let socket = socket(AddressFamily::Inet, raw, SockFlag::SOCK_CLOEXEC, icmp)?;
            setsockopt(&socket, sockopt::ReceiveTimeout, &TimeVal::seconds(1))?;
            let target = SockaddrIn::new(10, 9, 0, 2, 0);
            let mut times = Vec::with_capacity(usize::from(count));
            let mut answer = [0; 128];
            for sequence in 0..count {
                let start = Instant::now();
                let flags = MsgFlags::empty();
                sendto(socket.as_raw_fd(), &echo_request(sequence), &target, flags)?;
                while let Ok(length) = recv(socket.as_raw_fd(), &mut answer, flags) {
                    // An IPv4 header of 20 bytes, then type (0 for a reply), …, sequence number.
                    if length >= 28 && answer[20] == 0 && answer[26..28] == sequence.to_be_bytes() {
                        times.push(start.elapsed().as_secs_f64() * 1e3);
                        break;
                    }
                }
                std::thread::sleep(interval);
            }
            times.sort_by(f64::total_cmp);
            let last = times.len().checked_sub(1).ok_or("no reply to any echo request")?;
            Ok((times[last / 2], times[last * 99 / 100], times[0]))
        })
    }

    /// Throughput in Mbit/s.
    fn tcp(&self, seconds: u32) -> Outcome<f64> {
        let _server = self.last().serve("-s")?;
        let output = self.first().run("iperf", &format!("-c 10.9.0.2 -t {seconds} -y C"))?;
        let bits = output.lines().last().and_then(|line| line.split(',').nth(8));
        Ok(bits.ok_or("no result from iperf")?.trim().parse::<f64>()? / 1e6)
    }

    /// Datagrams sent and received.
    fn udp(&self, pps: u32, seconds: u32) -> Outcome<(f64, f64)> {
        let _server = self.last().serve("-s -u")?;
        let output = self
            .first()
            .run("iperf", &format!("-c 10.9.0.2 -u -l 1470 -b {pps}pps -t {seconds}"))?;
        // The server's report: `… 0.010 ms 12/34567 (0.035%)`.
        let ratio = output
            .split_once("Server Report")
            .and_then(|(_, report)| report.split_whitespace().find(|w| is_ratio(w)))
            .ok_or_else(|| format!("no server report from iperf:\n{output}"))?;
        let (lost, sent) = ratio.split_once('/').ok_or("no ratio")?;
        let (lost, sent): (f64, f64) = (lost.parse()?, sent.parse()?);
        Ok((sent, sent - lost))
    }

    fn first(&self) -> &Node {
        &self.nodes[0]
    }

    fn last(&self) -> &Node {
        &self.nodes[self.nodes.len() - 1]
    }
}

fn is_ratio(word: &str) -> bool {
    word.split_once('/').is_some_and(|(a, b)| a.parse::<u64>().is_ok() && b.parse::<u64>().is_ok())
}

/// An ICMP echo request with 56 bytes of zeros, as `ping` sends.
fn echo_request(sequence: u16) -> [u8; 64] {
    let mut request = [0; 64];
    request[0] = 8;
    request[6..8].copy_from_slice(&sequence.to_be_bytes());
    // Only two 16-bit words are not zero, and their sum carries at most once.
    let (sum, carry) = 0x0800_u16.overflowing_add(sequence);
    let checksum = !(sum + u16::from(carry));
    request[2..4].copy_from_slice(&checksum.to_be_bytes());
    request
}

/// Nanoseconds of processor time that the movers' threads have used.
fn movers_cpu_ns() -> Outcome<f64> {
    let mut total = 0.0;
    for task in std::fs::read_dir("/proc/self/task")? {
        let path = task?.path();
        // A thread that ends meanwhile has no figures any more.
        let text = |file: &str| std::fs::read_to_string(path.join(file)).unwrap_or_default();
        if text("comm").starts_with("data-plane") || text("comm").starts_with("bare") {
            let used = text("schedstat");
            total += used.split(' ').next().map_or(Ok(0.0), str::parse)?;
        }
    }
    Ok(total)
}

/// A thread in a network namespace of its own; commands it starts are in it too.
struct Node {
    jobs: Sender<Box<dyn FnOnce() + Send>>,
}

/// Ends a server with its use.
struct Server(std::process::Child);

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Node {
    fn new() -> Outcome<Self> {
        let (jobs, work) = channel::<Box<dyn FnOnce() + Send>>();
        std::thread::spawn(move || {
            for job in work {
                job();
            }
        });
        let node = Self { jobs };
        node.call(|| {
            unshare(CloneFlags::CLONE_NEWNET)?;
            std::fs::write("/proc/sys/net/ipv6/conf/default/disable_ipv6", "1")?;
            Ok(())
        })?;
        node.run("ip", "link set lo up")?;
        Ok(node)
    }

    fn call<T: Send + 'static>(
        &self,
        job: impl FnOnce() -> Outcome<T> + Send + 'static,
    ) -> Outcome<T> {
        let (answer, answered) = channel();
        self.jobs
            .send(Box::new(move || drop(answer.send(job()))))
            .map_err(|_| "the node has ended")?;
        answered.recv()?
    }

    /// The output of a command that must succeed.
    fn run(&self, program: &'static str, arguments: &str) -> Outcome<String> {
        let arguments: Vec<String> = arguments.split(' ').map(str::to_owned).collect();
        self.call(move || {
            let output = Command::new(program).args(&arguments).output()?;
            let text = String::from_utf8_lossy(&output.stdout).into_owned();
            if output.status.success() {
                return Ok(text);
            }
            let error = String::from_utf8_lossy(&output.stderr);
            Err(format!("{program} {arguments:?}: {text}{error}").into())
        })
    }

    fn serve(&self, arguments: &'static str) -> Outcome<Server> {
        let server = self.call(move || {
            let mut command = Command::new("iperf");
            command.args(arguments.split(' ')).stdout(std::process::Stdio::null());
            Ok(Server(command.stderr(std::process::Stdio::null()).spawn()?))
        })?;
        // iperf does not say when it listens.
        std::thread::sleep(Duration::from_millis(100));
        Ok(server)
    }
}
