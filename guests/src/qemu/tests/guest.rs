//! Real QEMU where it is installed, scripts in its place for bad luck.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tapestry_topologies::resolved::{MacAddr, NicModel};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;

use crate::accel::Resolved;
use crate::image::tests::{default_image, plain_image};
use crate::image::{Boot, Flavour, Image, READY_LINE};
use crate::qemu::{self, Backend, ExitReason, Guest, GuestSpec, Nic, QmpCommand, StartError};

/// Generous: other tests may be running on the same few processors.
const PATIENCE: Duration = Duration::from_mins(2);

fn bare_image() -> Image {
    Image {
        name: "none".into(),
        boot: Boot { kernel: None, initrd: None, disk: None },
        kernel_args: String::new(),
        os: "tapestry".into(),
        ready_line: None,
        nics: None,
        packages: std::collections::BTreeMap::new(),
        extra_packages: Vec::new(),
        built: String::new(),
        hash: String::new(),
        request: String::new(),
        file_bytes: Vec::new(),
    }
}

fn spec(image: Image) -> GuestSpec {
    GuestSpec {
        node: "n0".into(),
        program: qemu::program(),
        image,
        machine: "pc".into(),
        accel: Resolved::Tcg,
        vcpus: 1,
        memory_bytes: 192 << 20,
        nic: NicModel::Virtio,
        nics: Vec::new(),
        kernel_args: String::new(),
        extra_args: Vec::new(),
        stderr_log: None,
        qmp_timeout: PATIENCE,
    }
}

/// Whether QEMU is here; says why a test does not run where it is not.
fn qemu_is_here() -> bool {
    match qemu::version(&qemu::program()) {
        Ok(_) => true,
        Err(error) => {
            println!("not run: {error}");
            false
        }
    }
}

/// An image to boot, or the reason why there is none.
fn bootable() -> Option<Image> {
    if !qemu_is_here() {
        return None;
    }
    match default_image() {
        Ok(image) => Some(image),
        Err(error) => {
            println!("not run: {error}");
            None
        }
    }
}

/// Reads the console until `wanted` shows and returns all that was read.
async fn until(console: &mut UnixStream, wanted: &str) -> String {
    let mut seen = Vec::new();
    let reading = async {
        let mut buffer = [0; 4096];
        while !String::from_utf8_lossy(&seen).contains(wanted) {
            let count = console.read(&mut buffer).await.expect("the console reads");
            assert!(count > 0, "the console ended: {}", String::from_utf8_lossy(&seen));
            seen.extend_from_slice(&buffer[..count]);
        }
    };
    let done = tokio::time::timeout(PATIENCE, reading).await;
    let text = String::from_utf8_lossy(&seen).into_owned();
    done.unwrap_or_else(|_| panic!("`{wanted}` did not show: {text}"));
    text
}

async fn type_line(console: &mut UnixStream, line: &str) {
    console.write_all(format!("{line}\n").as_bytes()).await.expect("the console writes");
}

/// Starts a guest and waits for its shell.
async fn boot(spec: GuestSpec) -> (Guest, UnixStream) {
    let mut guest = Guest::start(spec).await.expect("QEMU starts");
    let mut console = guest.take_console().expect("first taker");
    assert!(guest.take_console().is_none());
    until(&mut console, READY_LINE).await;
    (guest, console)
}

async fn ended(guest: &Guest) -> ExitReason {
    let exit = tokio::time::timeout(PATIENCE, guest.wait()).await.expect("QEMU ends");
    assert_eq!(guest.exited().as_ref(), Some(&exit));
    exit.reason
}

#[tokio::test]
async fn a_guest_boots_runs_a_command_and_stops() {
    let Some(image) = bootable() else { return };
    let (guest, mut console) = boot(spec(image)).await;
    type_line(&mut console, "echo $((6 * 7))-$(id -u)-$(tty)-$(cat /sys/class/net/lo/flags)").await;
    until(&mut console, "42-0-/dev/ttyS0-0x9").await;
    // The real programs, not busybox's of the same names, also from the shell itself.
    for (command, shown) in [
        ("ip -V", "iproute2-"),
        ("tc -V", "iproute2-"),
        ("ping -V", "iputils"),
        ("iperf -v", "iperf version 2"),
        ("iperf3 -v", "iperf 3"),
        ("tcpdump --version", "libpcap version"),
    ] {
        type_line(&mut console, command).await;
        until(&mut console, shown).await;
    }
    // Drivers come when they are asked for.
    let command = "ip link add br0 type bridge && ip link add d0 type dummy && \
                   tc qdisc add dev d0 root netem delay 9ms && echo made-$((1))";
    type_line(&mut console, command).await;
    until(&mut console, "made-1").await;
    assert!(guest.qmp().status().await.expect("answers").running);
    assert!(guest.exited().is_none());
    // A process group of its own, so that the terminal's Ctrl-C passes it by.
    let stat = fs::read_to_string(format!("/proc/{}/stat", guest.pid())).expect("it runs");
    let group = stat.rsplit(") ").next().and_then(|rest| rest.split(' ').nth(2));
    assert_eq!(group, Some(guest.pid().to_string().as_str()));
    let exit = guest.stop(PATIENCE).await;
    assert_eq!(exit.reason, ExitReason::Stopped, "{exit}");
}

#[tokio::test]
async fn poweroff_reboot_and_panic_are_told_apart() {
    let Some(image) = bootable() else { return };
    for (command, reason) in [
        ("poweroff", ExitReason::PoweredOff),
        ("reboot", ExitReason::Rebooted),
        ("echo c > /proc/sysrq-trigger", ExitReason::Panicked),
    ] {
        let (guest, mut console) = boot(spec(image.clone())).await;
        type_line(&mut console, command).await;
        if reason == ExitReason::Panicked {
            until(&mut console, "Kernel panic - not syncing").await;
        }
        assert_eq!(ended(&guest).await, reason, "{command}");
    }
}

#[tokio::test]
async fn the_shell_comes_back_when_it_ends() {
    let Some(image) = bootable() else { return };
    let (guest, mut console) = boot(spec(image)).await;
    type_line(&mut console, "exit").await;
    until(&mut console, "starting another").await;
    // What is typed before the new shell has the terminal is lost.
    until(&mut console, "# ").await;
    type_line(&mut console, "echo second-$((1 + 1))-").await;
    until(&mut console, "second-2-").await;
    guest.stop(PATIENCE).await;
}

#[tokio::test]
async fn a_killed_qemu_says_by_which_signal() {
    let Some(image) = bootable() else { return };
    let guest = Guest::start(spec(image)).await.expect("QEMU starts");
    let pid = nix::unistd::Pid::from_raw(i32::try_from(guest.pid()).expect("a pid"));
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGSEGV).expect("it runs");
    assert_eq!(ended(&guest).await, ExitReason::Signal(11));
    assert!(guest.wait().await.to_string().contains("node `n0`: QEMU was ended by signal 11"));
}

#[tokio::test]
async fn a_dropped_guest_is_killed() {
    let Some(image) = bootable() else { return };
    let mut guest = Guest::start(spec(image)).await.expect("QEMU starts");
    let mut console = guest.take_console().expect("first taker");
    drop(guest);
    let mut rest = Vec::new();
    // The console ends when the process does.
    tokio::time::timeout(PATIENCE, console.read_to_end(&mut rest)).await.expect("QEMU ends").ok();
}

/// Two guests whose NICs are joined by a datagram socketpair reach each other.
async fn ping_over_sockets(image: Image, machine: &str, nic: NicModel) {
    use nix::sys::socket::{AddressFamily, SockFlag, SockType, socketpair};
    let flags = SockFlag::SOCK_CLOEXEC;
    let (left, right) =
        socketpair(AddressFamily::Unix, SockType::Datagram, None, flags).expect("a pair");
    let with_nic = |node: &str, last, fd| GuestSpec {
        node: node.into(),
        machine: machine.into(),
        nic,
        nics: vec![Nic { mac: MacAddr([2, 0, 0, 0, 0, last]), backend: Backend::Dgram(fd) }],
        ..spec(image.clone())
    };
    let ((left, mut one), (right, mut two)) =
        tokio::join!(boot(with_nic("left", 1, left)), boot(with_nic("right", 2, right)));
    type_line(
        &mut two,
        "ip addr add 10.9.0.2/24 dev eth0 && ip link set eth0 up && echo is-$((1))",
    )
    .await;
    until(&mut two, "is-1").await;
    type_line(&mut one, "ip addr add 10.9.0.1/24 dev eth0; ip link set eth0 up").await;
    // Intel's drivers take seconds to find their link, on either side.
    let ping = "until ping -c 1 10.9.0.2 > /tmp/p; do :; done; echo pinged-$((1))";
    type_line(&mut one, ping).await;
    until(&mut one, "pinged-1").await;
    type_line(&mut one, "cat /sys/class/net/eth0/address").await;
    until(&mut one, "02:00:00:00:00:01").await;
    if nic == NicModel::Virtio {
        // A pulled cable shows in the guest; drivers of other models look in their own time.
        left.qmp().set_link(0, false).await.expect("QEMU pulls the cable");
        type_line(
            &mut one,
            "until grep 0 /sys/class/net/eth0/carrier; do :; done; echo cut-$((1))",
        )
        .await;
        until(&mut one, "cut-1").await;
    }
    left.stop(PATIENCE).await;
    right.stop(PATIENCE).await;
}

#[tokio::test]
async fn guests_ping_over_sockets_on_pc() {
    let Some(image) = bootable() else { return };
    ping_over_sockets(image, "pc", NicModel::Virtio).await;
}

#[tokio::test]
async fn guests_ping_over_sockets_on_q35_with_vmxnet3() {
    let Some(image) = bootable() else { return };
    ping_over_sockets(image, "q35", NicModel::Vmxnet3).await;
}

#[tokio::test]
async fn guests_ping_over_sockets_on_microvm() {
    let Some(image) = bootable() else { return };
    ping_over_sockets(image, "microvm", NicModel::Virtio).await;
}

#[tokio::test]
async fn guests_ping_over_sockets_with_the_models_of_the_generic_kernel() {
    if bootable().is_none() {
        return;
    }
    let image = match plain_image("debian-generic", Flavour::Generic) {
        Ok(image) => image,
        Err(error) => return println!("not run: {error}"),
    };
    for nic in [NicModel::E1000, NicModel::E1000e, NicModel::Rtl8139] {
        ping_over_sockets(image.clone(), "pc", nic).await;
    }
}

#[tokio::test]
async fn nics_are_seen_in_order_on_every_machine() {
    let Some(image) = bootable() else { return };
    for (machine, count) in [("pc", 3), ("q35", 3), ("microvm", 3), ("pc", 30)] {
        let nics = (0..count).map(|index| {
            let (near, _far) = UnixStream::pair().expect("a pair");
            let fd = near.into_std().expect("a stream").into();
            Nic { mac: MacAddr([2, 0, 0, 0, 1, index]), backend: Backend::Dgram(fd) }
        });
        let nics = nics.collect();
        let mut spec = spec(image.clone());
        spec.machine = machine.into();
        spec.nics = nics;
        let (guest, mut console) = boot(spec).await;
        let read = "i=0; while [ -e /sys/class/net/eth$i ]; do cat /sys/class/net/eth$i/address; \
                    i=$((i + 1)); done; echo all-$((1))";
        type_line(&mut console, read).await;
        let text = until(&mut console, "all-1").await;
        let seen: Vec<_> = text.lines().filter(|line| line.starts_with("02:")).collect();
        let expected: Vec<_> =
            (0..count).map(|index| format!("02:00:00:00:01:{index:02x}")).collect();
        assert_eq!(seen.iter().map(|line| line.trim()).collect::<Vec<_>>(), expected, "{machine}");
        guest.stop(PATIENCE).await;
    }
}

#[tokio::test]
async fn refused_arguments_are_quoted_with_qemus_words() {
    if !qemu_is_here() {
        return;
    }
    let directory = tempfile::tempdir().expect("a directory");
    let log = directory.path().join("stderr.log");
    let mut spec = spec(bare_image());
    spec.extra_args = vec!["-frobnicate".into()];
    spec.stderr_log = Some(log.clone());
    let error = Guest::start(spec).await.expect_err("no such option");
    assert!(
        matches!(&error, StartError::Refused { exit, .. } if exit.reason == ExitReason::Failed(1))
    );
    let text = error.to_string();
    assert!(text.contains("node `n0`") && text.contains("-frobnicate: invalid option"), "{text}");
    assert!(fs::read_to_string(log).expect("a log").contains("invalid option"));
}

#[tokio::test]
async fn nics_that_do_not_fit_are_refused_before_qemu_runs() {
    let (near, _far) = UnixStream::pair().expect("a pair");
    let fd = near.into_std().expect("a stream").into();
    let nic = Nic { mac: MacAddr([2, 0, 0, 0, 0, 1]), backend: Backend::Dgram(fd) };
    let mut spec = spec(bare_image());
    spec.program = "/nonexistent/qemu".into();
    spec.machine = "microvm".into();
    spec.nic = NicModel::E1000;
    spec.nics = vec![nic];
    let error = Guest::start(spec).await.expect_err("no PCI").to_string();
    assert!(
        error.contains("machine `microvm` has no PCI bus") && error.contains("e1000"),
        "{error}"
    );
}

#[tokio::test]
async fn a_model_the_image_cannot_drive_is_refused_with_the_way_out() {
    let (near, _far) = UnixStream::pair().expect("a pair");
    let fd = near.into_std().expect("a stream").into();
    let mut spec = spec(Image { nics: Some(vec![NicModel::Virtio]), ..bare_image() });
    spec.nic = NicModel::Rtl8139;
    spec.nics = vec![Nic { mac: MacAddr([2, 0, 0, 0, 0, 1]), backend: Backend::Dgram(fd) }];
    let error = Guest::start(spec).await.expect_err("no driver").to_string();
    assert!(error.contains("`rtl8139` (it has: virtio)"), "{error}");
    assert!(error.contains("--kernel generic"), "{error}");
}

#[tokio::test]
async fn a_missing_qemu_is_named() {
    let mut spec = spec(bare_image());
    spec.program = "/nonexistent/qemu".into();
    let error = Guest::start(spec).await.expect_err("missing").to_string();
    assert!(error.starts_with("node `n0`: QEMU is missing"), "{error}");
}

/// A program in QEMU's place.
fn script(directory: &Path, text: &str) -> PathBuf {
    let path = directory.join("fake-qemu");
    fs::write(&path, format!("#!/bin/sh\n{text}\n")).expect("written");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("executable");
    path
}

async fn start_script(text: &str, timeout: Duration) -> Result<Guest, StartError> {
    let directory = tempfile::tempdir().expect("a directory");
    let program = script(directory.path(), text);
    Guest::start(GuestSpec { program, qmp_timeout: timeout, ..spec(bare_image()) }).await
}

#[tokio::test]
async fn an_old_qemu_that_refuses_our_arguments_is_called_old() {
    let text = "[ \"$1\" = --version ] && echo 'QEMU emulator version 5.2.0 (old)' && exit\n\
                echo 'Invalid parameter type dgram' >&2; exit 1";
    let error = start_script(text, PATIENCE).await.expect_err("old").to_string();
    assert!(error.contains("is QEMU 5.2.0; 7.2.0 or later is needed"), "{error}");
}

#[tokio::test]
async fn a_monitor_that_never_answers_ends_the_start() {
    let error = start_script("exec sleep 1000", Duration::from_millis(50)).await;
    let error = error.expect_err("silent");
    assert!(matches!(error, StartError::QmpTimeout { .. }), "{error}");
    assert!(error.to_string().contains("within 50 ms"), "{error}");
}

/// Greets and accepts; then does `after`.
fn greeting_then(after: &str) -> String {
    format!(
        "echo '{{\"QMP\":{{\"version\":{{\"qemu\":{{\"major\":7,\"minor\":2,\"micro\":0}}}}}}}}' >&4\n\
         read line <&4\necho '{{\"return\":{{}},\"id\":1}}' >&4\n{after}"
    )
}

#[tokio::test]
async fn a_qemu_that_dies_later_leaves_its_status_and_last_words() {
    let text = greeting_then("read line <&3; echo \"fatal: $line\" >&2; exit 7");
    let mut guest = start_script(&text, PATIENCE).await.expect("greeted");
    let mut console = guest.take_console().expect("first taker");
    type_line(&mut console, "no memory").await;
    let exit = guest.wait().await;
    assert_eq!(exit.reason, ExitReason::Failed(7));
    assert_eq!(
        exit.to_string(),
        "node `n0`: QEMU failed with exit status 7; QEMU said: fatal: no memory"
    );
    assert_eq!(guest.stderr(), "fatal: no memory");
}

#[tokio::test]
async fn a_qemu_that_ignores_quit_is_killed() {
    let text = greeting_then("while read line <&4; do :; done; exec sleep 1000");
    let guest = start_script(&text, PATIENCE).await.expect("greeted");
    let exit = guest.stop(Duration::from_millis(50)).await;
    assert_eq!(exit.reason, ExitReason::Stopped);
}

#[tokio::test]
async fn much_on_standard_error_is_kept_up_to_its_end_only() {
    let text = greeting_then(
        "i=0; while [ $i -lt 3000 ]; do echo \"line $i of nonsense\" >&2; i=$((i + 1)); done; exit 3",
    );
    let guest = start_script(&text, PATIENCE).await.expect("greeted");
    let exit = guest.wait().await;
    assert!(exit.stderr.ends_with("line 2999 of nonsense"), "{}", exit.stderr);
    assert!(exit.stderr.len() <= 16 * 1024);
}

#[tokio::test]
async fn stop_and_go_over_the_monitor() {
    let Some(image) = bootable() else { return };
    let guest = Guest::start(spec(image)).await.expect("QEMU starts");
    guest.qmp().execute(QmpCommand::Stop).await.expect("stops");
    assert!(!guest.qmp().status().await.expect("answers").running);
    guest.qmp().execute(QmpCommand::Cont).await.expect("goes on");
    assert!(guest.qmp().status().await.expect("answers").running);
    guest.stop(PATIENCE).await;
}
