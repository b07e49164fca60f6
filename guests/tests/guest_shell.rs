//! The shell proxy on a real guest: the kernel's messages, the serial port, and a guest that dies.
//!
//! Needs QEMU and the default image (`tapestry image build`); says so and ends where they are missing.

use std::time::Duration;

use tapestry_guests::accel::Resolved;
use tapestry_guests::qemu::{self, Guest, GuestSpec};
use tapestry_guests::shell::{CommandError, LoginOptions, Lost, RunOptions, Shell};
use tapestry_guests::{image, os};
use tapestry_topologies::resolved::NicModel;

/// Generous: other tests may be running on the same few processors.
const PATIENCE: Duration = Duration::from_mins(2);

fn options() -> RunOptions {
    RunOptions { timeout: PATIENCE, queue: PATIENCE, ..RunOptions::default() }
}

/// A guest with a shell, or the reason why there is none.
async fn boot() -> Option<(Guest, Shell)> {
    if let Err(error) = qemu::version(&qemu::program()) {
        println!("not run: {error}");
        return None;
    }
    let found = image::cache_dir().and_then(|cache| image::find(&cache, image::DEFAULT_NAME));
    let image = match found {
        Ok(image) => image,
        Err(error) => {
            println!("not run: {error}");
            return None;
        }
    };
    let os = os::find(&image.os).expect("a built image names a known system");
    let spec = GuestSpec {
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
    };
    let mut guest = Guest::start(spec).await.expect("QEMU starts");
    let console = guest.take_console().expect("first taker");
    let options = LoginOptions { console_log: None, timeout: PATIENCE, emulator: None };
    let shell = Shell::login("n0", console, os, &options).await.expect("a shell");
    Some((guest, shell))
}

async fn run(shell: &Shell, text: &str) -> (u8, String) {
    let finished = shell.run(text, &options()).await.expect(text);
    assert!(!finished.timed_out, "{text}");
    (finished.status, finished.output.to_text())
}

#[tokio::test]
async fn commands_on_a_guest() {
    let Some((guest, shell)) = boot().await else { return };
    assert_eq!(run(&shell, "uname -s; exit 3").await, (3, "Linux\n".into()));
    // 64 KiB in and out again through the serial port.
    let mut text = String::from("printf %s '");
    while text.len() < 64 << 10 {
        text.push_str("0123456789 \\ \"quoted\" é\n\t");
    }
    let expected = text["printf %s '".len()..].to_owned();
    text.push('\'');
    let (status, output) = run(&shell, &text).await;
    assert_eq!(status, 0);
    assert!(output == expected, "{} of {} bytes", output.len(), expected.len());
    // All byte values, many times.
    let all: Vec<u8> = (0..=255).collect();
    let text = "i=0; while [ $i -lt 256 ]; do printf \"\\\\$(printf %03o $i)\"; i=$((i+1)); done >/tmp/all; for i in 1 2 3 4 5 6 7 8; do cat /tmp/all; done";
    let finished = shell.run(text, &options()).await.expect("binary");
    assert_eq!(finished.output.bytes, all.repeat(8));
    guest.stop(PATIENCE).await;
}

#[tokio::test]
async fn kernel_messages_in_the_middle_of_output_are_not_output() {
    let Some((guest, shell)) = boot().await else { return };
    // All levels on the console, while both write as fast as they can.
    let text = "dmesg -n 8
        (i=0; while [ $i -lt 100 ]; do echo \"noise $i\" >/dev/kmsg; i=$((i+1)); done) &
        i=0; while [ $i -lt 500 ]; do echo \"line $i\"; i=$((i+1)); done
        wait; exit 7";
    let (status, output) = run(&shell, text).await;
    let lines: Vec<String> = (0..500).map(|i| format!("line {i}\n")).collect();
    let expected = lines.concat();
    assert_eq!(status, 7);
    assert_eq!(output, expected);
    // And in the middle of frames.
    run(&shell, "(while :; do echo noise >/dev/kmsg; sleep 0.002; done) >/dev/null 2>&1 & echo $!")
        .await;
    for i in 0..20 {
        assert_eq!(run(&shell, &format!("echo {i}")).await, (0, format!("{i}\n")));
    }
    assert!(shell.console().last_lines().iter().any(|line| line.contains("noise")));
    guest.stop(PATIENCE).await;
}

#[tokio::test]
async fn a_guest_that_dies_ends_its_command_with_a_reason() {
    for text in [
        "echo c >/proc/sysrq-trigger; sleep 1000",
        "reboot -f; sleep 1000",
        "poweroff -f; sleep 1000",
    ] {
        let Some((guest, shell)) = boot().await else { return };
        let error = shell.run(text, &options()).await.expect_err("no status");
        let CommandError::Lost { node, command, cause: Lost::Trouble { .. }, .. } = &error else {
            panic!("{error}")
        };
        assert_eq!((node.as_str(), command.as_str()), ("n0", text));
        println!("{error}");
        guest.stop(PATIENCE).await;
    }
}

#[tokio::test]
async fn a_timeout_on_a_guest_leaves_the_shell_usable() {
    let Some((guest, shell)) = boot().await else { return };
    let short = RunOptions { timeout: Duration::from_millis(500), ..options() };
    let finished =
        shell.run("echo begun; sh -c 'sleep 1000 & sleep 1000'", &short).await.expect("ends");
    assert!(finished.timed_out);
    assert_eq!(finished.output.to_text(), "begun\n");
    assert_eq!(run(&shell, "pidof sleep; echo $?").await, (0, "1\n".into()));
    let server = shell.start_background("iperf -s -u", &options()).await.expect("starts");
    let mut seen = String::new();
    while !seen.contains("Server listening") {
        seen = server.output(0, &options()).await.expect("output").to_text();
        assert_eq!(server.status(), None, "{seen}");
    }
    let server = server.stop(&options()).await.expect("stops");
    assert!(server.output.to_text().starts_with(&seen));
    guest.stop(PATIENCE).await;
}
