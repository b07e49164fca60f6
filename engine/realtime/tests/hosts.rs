//! In-process hosts in real time, and with the real `ping` and `iperf` on the other side of a TAP
//! interface in a network namespace of the test's own. What is missing is said.

mod common;

use std::io::{BufRead, BufReader, Read};
use std::process::{Command, Stdio};

use common::pair;
use nix::sched::{CloneFlags, unshare};
use tapestry_core::SimTime;
use tapestry_models::{BridgeConfig, CommandOutput, HostBridge, HostConfig, HostInterface};
use tapestry_realtime::{
    DataPlane, DataPlaneConfig, DeviceKind, DeviceSpec, EndpointSpec, HostCommand,
    HostCommandError, LinkSpec, TapPort, WallClock,
};

fn host(name: &str, number: u8) -> DeviceSpec {
    host_with(name, number, Vec::new())
}

fn host_with(name: &str, number: u8, bridges: Vec<HostBridge>) -> DeviceSpec {
    let interface = HostInterface {
        name: "eth0".into(),
        mac: [2, 0, 0, 0, 0, number],
        addresses: vec![
            format!("10.9.0.{number}/24").parse().unwrap(),
            format!("fd09::{number}/64").parse().unwrap(),
        ],
        mtu: 1_500,
    };
    let (name, interfaces) = (name.to_owned(), vec![interface]);
    let config = HostConfig { name: name.clone(), interfaces, bridges, ..HostConfig::default() };
    DeviceSpec { name, kind: DeviceKind::Host(Box::new(config)) }
}

fn start(delay: SimTime, endpoints: Vec<EndpointSpec>, devices: Vec<DeviceSpec>) -> DataPlane {
    let link = LinkSpec { config: pair("l", delay), endpoints };
    let config =
        DataPlaneConfig { devices, ..DataPlaneConfig::new(WallClock::start(), vec![link]) };
    DataPlane::start(config).unwrap()
}

/// What a command printed, and its exit status.
fn finish(mut command: HostCommand) -> (u8, String) {
    let mut text = String::new();
    while let Some(event) = command.blocking_event() {
        match event.output {
            CommandOutput::Printed(bytes) => text.push_str(&String::from_utf8(bytes).unwrap()),
            CommandOutput::Exited(status) => return (status, text),
        }
    }
    panic!("no exit status behind: {text}");
}

#[test]
fn commands_run_in_real_time() {
    let endpoints = vec![EndpointSpec::device("n1:eth0", 0), EndpointSpec::device("n2:eth0", 1)];
    let switch =
        DeviceSpec { name: "sw".into(), kind: DeviceKind::Bridge(BridgeConfig::default()) };
    let alone = HostConfig { name: "alone".into(), ..HostConfig::default() };
    let alone = DeviceSpec { name: "alone".into(), kind: DeviceKind::Host(Box::new(alone)) };
    let nodes = vec![host("n1", 1), host("n2", 2), switch, alone];
    let plane = start(SimTime::from_millis(2), endpoints, nodes);
    let (status, text) = finish(plane.start_command(0, "ping -c 3 -i 0.01 10.9.0.2").unwrap());
    assert_eq!(status, 0, "{text}");
    // Twice the delay; events know when they were due, so lateness does not add up.
    assert!(text.contains("3 received") && text.contains("time=4."), "{text}");
    let server = plane.start_command(1, "iperf -s -u").unwrap();
    server.stop();
    assert_eq!(finish(server).0, 0);
    let error = plane.start_command(2, "true").unwrap_err();
    assert!(matches!(&error, HostCommandError::NoHost { node, .. } if node == "sw"), "{error}");
    // A node without links has a worker all the same.
    let (status, text) = finish(plane.start_command(3, "ping -c 1 127.0.0.1").unwrap());
    assert!(status == 0 && text.contains("1 received"), "{text}");
    let error = plane.start_command(4, "true").unwrap_err();
    assert_eq!(error, HostCommandError::NoDevice { device: 4 });
}

fn tool(name: &str, arguments: &str) -> Command {
    let mut command = Command::new(name);
    command.args(arguments.split(' ')).stdout(Stdio::piped()).stderr(Stdio::null());
    command
}

fn run(name: &str, arguments: &str) -> String {
    let output = tool(name, arguments).output().unwrap();
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Runs the test on a thread with a namespace of its own, if the machine has what it needs.
fn beside_the_kernel(name: &str, test: impl FnOnce(DataPlane) + Send + 'static) {
    beside_the_kernel_with(name, Vec::new(), test);
}

fn beside_the_kernel_with(
    name: &str,
    bridges: Vec<HostBridge>,
    test: impl FnOnce(DataPlane) + Send + 'static,
) {
    for needed in ["iperf", "ping", "ip"] {
        if tool(needed, "-V").output().is_err() {
            eprintln!("SKIPPED {name}: there is no `{needed}`; install it");
            return;
        }
    }
    let thread = std::thread::spawn(move || {
        let able = unshare(CloneFlags::CLONE_NEWNET)
            .map_err(|errno| format!("cannot make a network namespace: {errno}"))
            .and_then(|()| TapPort::create("tap0").map_err(|error| error.to_string()));
        let tap = match able {
            Ok(tap) => tap,
            Err(reason) => return Some(reason),
        };
        for command in [
            "addr add 10.9.0.1/24 dev tap0",
            "addr add fd09::1/64 dev tap0 nodad",
            "link set tap0 up",
        ] {
            run("ip", command);
        }
        let endpoints =
            vec![EndpointSpec::port("n1:eth0", tap), EndpointSpec::device("n2:eth0", 0)];
        test(start(SimTime::from_millis(1), endpoints, vec![host_with("n2", 2, bridges)]));
        None
    });
    match thread.join() {
        Ok(None) => {}
        Ok(Some(reason)) => eprintln!("SKIPPED {name}: {reason}"),
        Err(panic) => std::panic::resume_unwind(panic),
    }
}

#[test]
fn the_real_ping_and_iperf_reach_a_host() {
    beside_the_kernel("the_real_ping_and_iperf_reach_a_host", |plane| {
        for target in ["10.9.0.2", "fd09::2"] {
            let text = run("ping", &format!("-c 3 -i 0.05 -s 3000 {target}"));
            assert!(text.contains(" 3 received"), "{text}");
        }
        let server = plane.start_command(0, "iperf -s -u").unwrap();
        let text = run("iperf", "-c 10.9.0.2 -u -l 1470 -b 200pps -t 1");
        assert!(text.contains("Server Report:") && text.contains("Sent 20"), "{text}");
        server.stop();
        let (_, report) = finish(server);
        let loss = report.split(" ms ").last().unwrap();
        assert!(loss.ends_with("(0%)\n") && text.contains(loss), "{text}\n{report}");

        let server = plane.start_command(0, "iperf -s").unwrap();
        let text = run("iperf", "-c 10.9.0.2 -n 2M");
        assert!(text.contains("2.00 MBytes"), "{text}");
        server.stop();
        let (_, report) = finish(server);
        assert!(report.contains("2.00 MBytes"), "{report}");
    });
}

#[test]
fn a_host_reaches_the_real_iperf() {
    beside_the_kernel("a_host_reaches_the_real_iperf", |plane| {
        let (status, text) = finish(plane.start_command(0, "ping -c 2 -i 0.05 10.9.0.1").unwrap());
        assert_eq!(status, 0, "{text}");
        for (options, client) in [
            ("-s -u", "iperf -c 10.9.0.1 -u -l 1470 -b 200pps -t 1"),
            ("-s", "iperf -c 10.9.0.1 -n 2M"),
        ] {
            let mut server = tool("iperf", options).spawn().unwrap();
            let mut output = BufReader::new(server.stdout.take().unwrap());
            let mut line = String::new();
            while !line.contains("buffer size") && !line.contains("window size") {
                line.clear();
                assert_ne!(output.read_line(&mut line).unwrap(), 0);
            }
            let (status, text) = finish(plane.start_command(0, client).unwrap());
            assert_eq!(status, 0, "{text}");
            std::thread::sleep(std::time::Duration::from_millis(300));
            server.kill().unwrap();
            server.wait().unwrap();
            let mut report = String::new();
            output.read_to_string(&mut report).unwrap();
            if options == "-s" {
                assert!(text.contains("2.00 MBytes"), "{text}");
            } else {
                // 200 datagrams and the closing one; the server says so on both sides.
                assert!(text.contains("Sent 202 datagrams"), "{text}");
                assert!(text.contains("0/201 (0%)"), "{text}\nserver: {report}");
            }
        }
    });
}

#[test]
fn a_kernel_bridge_takes_a_host_for_the_root_of_the_spanning_tree() {
    let name = "a_kernel_bridge_takes_a_host_for_the_root_of_the_spanning_tree";
    let (ports, addresses) = (vec!["eth0".into()], Vec::new());
    let bridge = HostBridge { name: "br0".into(), ports, addresses, stp: true };
    beside_the_kernel_with(name, vec![bridge], move |_plane| {
        run("ip", "link add br0 type bridge stp_state 1 priority 61440");
        if !run("ip", "link show br0").contains("br0") {
            eprintln!("SKIPPED {name}: this kernel has no bridges");
            return;
        }
        run("ip", "link set tap0 master br0");
        run("ip", "link set br0 up");
        let start = std::time::Instant::now();
        // A bridge has a root port only if another bridge is root. (The address of the root that
        // iproute2 6.1 prints is the bridge's own.)
        let root = "root_port 1 ";
        while !run("ip", "-d link show br0").contains(root) {
            let shown = run("ip", "-d link show br0");
            assert!(start.elapsed() < common::PATIENCE, "no {root} in {shown}");
            std::thread::sleep(std::time::Duration::from_millis(50));
        }
    });
}
