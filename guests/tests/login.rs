//! Logging in, by each row of the table of operating systems, on a console that plays the system's
//! part up to the prompt and then is a real shell. The systems' own images cannot be had here; what
//! they say on a serial console is taken from their `getty`, `login` and `init`.

use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread::JoinHandle;
use std::time::Duration;

use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use tapestry_guests::os;
use tapestry_guests::shell::{LoginError, LoginOptions, Lost, RunOptions, Shell};

/// What a system says, and the line it then waits for.
type Step = (&'static str, &'static str);

/// Firmware and kernel, as every x86 Linux begins.
const LINUX: &str = "SeaBIOS (version 1.16.2)\r\nBooting from ROM...\r\n\
    [    0.000000] Linux version 6.6.52 (gcc 13.2) #1 SMP\r\n\
    [    1.204518] EXT4-fs (vda): mounted filesystem with ordered data mode.\r\n";

/// Row, dialogue, and what stands before the first prompt.
const SYSTEMS: &[(&str, &[Step], &str)] = &[
    (
        "alpine",
        &[(
            "\r\nWelcome to Alpine Linux 3.20\r\nKernel 6.6.52-0-virt on an x86_64 (/dev/ttyS0)\r\n\r\nlocalhost login: ",
            "root",
        )],
        "Welcome to Alpine!\r\n\r\nThe Alpine Wiki contains a large amount of how-to guides.\r\n\r\nlocalhost:~# ",
    ),
    (
        "openwrt",
        // Whatever the line is: its end activates the console.
        &[("[    9.715] procd: - init -\r\nPlease press Enter to activate this console.\r\n", "*")],
        "\r\n\r\nBusyBox v1.36.1 (2024-09-23) built-in shell (ash)\r\n\r\n OpenWrt 23.05.5\r\n -----\r\n\
         \u{1b}[1mroot@OpenWrt:/# \u{1b}[0m",
    ),
    (
        "buildroot",
        &[("Starting network: OK\r\n\r\nWelcome to Buildroot\r\nbuildroot login: ", "root")],
        "# ",
    ),
    (
        "freebsd",
        &[("\r\nFreeBSD/amd64 (freebsd) (ttyu0)\r\n\r\nlogin: ", "root"), ("Password:", "")],
        "Last login: Mon Jan  1 00:00:00 on ttyu0\r\nFreeBSD 14.1-RELEASE GENERIC\r\n\r\nroot@freebsd:~ # ",
    ),
    (
        "debian",
        &[
            ("\r\nDebian GNU/Linux 12 debian ttyS0\r\n\r\ndebian login: ", "root"),
            ("Password: ", "root"),
        ],
        "Linux debian 6.1.0-26-amd64 #1 SMP x86_64\r\n\u{1b}[?2004hroot@debian:~# ",
    ),
    ("linux", &[("\r\nhost login: ", "root")], "sh-5.2# "),
    // A prompt without any login.
    ("linux", &[], "/ # "),
];

/// The shell behind a console; ended with the test.
struct Behind(Child);

impl Drop for Behind {
    fn drop(&mut self) {
        let group = Pid::from_raw(i32::try_from(self.0.id()).expect("a process id"));
        // Fails only when all of it has ended already.
        let _ = killpg(group, Signal::SIGKILL);
        let _ = self.0.wait();
    }
}

/// One line from the host, without its end.
fn line(console: &mut UnixStream) -> String {
    let mut line = Vec::new();
    let mut byte = [0];
    while console.read_exact(&mut byte).is_ok() && byte[0] != b'\n' {
        line.push(byte[0]);
    }
    String::from_utf8(line).expect("text")
}

/// Plays `steps`; gives the lines that came. Terminals echo what is typed, and so does this.
fn play(console: &mut UnixStream, steps: &[Step]) -> Vec<String> {
    let mut lines = Vec::new();
    for (says, _) in steps {
        // In pieces, as a serial line has it.
        for piece in says.as_bytes().chunks(7) {
            console.write_all(piece).expect("the host listens");
        }
        lines.push(line(console));
        let echo = if says.contains("assword") {
            "\r\n".to_owned()
        } else {
            format!("{}\r\n", lines[lines.len() - 1])
        };
        console.write_all(echo.as_bytes()).expect("the host listens");
    }
    lines
}

/// A system on a console, and what the host typed to it. `bin` comes first in its `PATH`.
fn system(
    steps: &'static [Step],
    prompt: &'static str,
    bin: &Path,
) -> (UnixStream, JoinHandle<(Vec<String>, Behind)>) {
    let (near, mut console) = UnixStream::pair().expect("a pair");
    near.set_nonblocking(true).expect("a socket");
    let path = format!("{}:{}", bin.display(), std::env::var("PATH").unwrap_or_default());
    let behind = std::thread::spawn(move || {
        console.write_all(LINUX.as_bytes()).expect("the host listens");
        let lines = play(&mut console, steps);
        console.write_all(prompt.as_bytes()).expect("the host listens");
        let end = || Stdio::from(OwnedFd::from(console.try_clone().expect("descriptor")));
        let shell = Command::new("sh")
            .arg("-i")
            .env("PATH", path)
            .env("PS1", "host:~# ")
            .env_remove("ENV")
            .stdin(end())
            .stdout(end())
            .stderr(end())
            .process_group(0)
            .spawn()
            .expect("sh runs");
        (lines, Behind(shell))
    });
    (near, behind)
}

fn options() -> LoginOptions {
    LoginOptions { timeout: Duration::from_mins(1), console_log: None, emulator: None }
}

#[tokio::test]
async fn every_row_logs_in_sets_up_and_runs_commands() {
    for (name, steps, prompt) in SYSTEMS {
        let os = os::find(name).expect("a row");
        let bin = tempfile::tempdir().expect("a directory");
        // The set-up line quiets the kernel; here it must not be ours.
        let (dmesg, asked) = (bin.path().join("dmesg"), bin.path().join("asked"));
        std::fs::write(&dmesg, format!("#!/bin/sh\necho \"$@\" >{}\n", asked.display()))
            .expect("written");
        std::fs::set_permissions(&dmesg, std::fs::Permissions::from_mode(0o755)).expect("ours");

        let (console, behind) = system(steps, prompt, bin.path());
        let console = tokio::net::UnixStream::from_std(console).expect("a socket");
        let shell = Shell::login("g", console, os, &options())
            .await
            .unwrap_or_else(|error| panic!("{name}: {error}"));
        let (lines, _behind) = behind.join().expect("the dialogue was held");
        for (line, (_, expected)) in lines.iter().zip(*steps) {
            assert!(*expected == "*" || line == expected, "{name}: {lines:?}");
        }
        for _ in 0..2 {
            let finished = shell.run("echo $((6 * 7)); exit 3", &RunOptions::default()).await;
            let finished = finished.unwrap_or_else(|error| panic!("{name}: {error}"));
            assert_eq!((finished.status, finished.output.to_text()), (3, "42\n".into()), "{name}");
        }
        let quiet = std::fs::read_to_string(&asked).unwrap_or_default();
        assert_eq!(!quiet.is_empty(), os.setup.contains("dmesg"), "{name}: dmesg {quiet}");
    }
}

#[tokio::test]
async fn a_password_that_is_refused_again_and_again_is_said() {
    const REFUSED: &[Step] = &[("freebsd login: ", "root"), ("Password:", "")];
    for name in ["alpine", "buildroot", "freebsd", "debian"] {
        let (near, mut console) = UnixStream::pair().expect("a pair");
        near.set_nonblocking(true).expect("a socket");
        let behind = std::thread::spawn(move || {
            let mut logins = 0;
            while console.write_all(b"\r\nLogin incorrect\r\n").is_ok() && logins < 20 {
                for (says, _) in REFUSED {
                    if console.write_all(says.as_bytes()).is_err() {
                        return logins;
                    }
                    line(&mut console);
                }
                logins += 1;
            }
            logins
        });
        let console = tokio::net::UnixStream::from_std(near).expect("a socket");
        let os = os::find(name).expect("a row");
        let error = Shell::login("g", console, os, &options()).await.expect_err("refused");
        let said = error.to_string();
        assert!(
            matches!(&error, LoginError::Lost { cause: Lost::LoginRefused, .. }),
            "{name}: {said}"
        );
        assert!(behind.join().expect("played") < 20, "{name}: it went on asking");
    }
}

#[test]
fn every_row_that_asks_is_played() {
    for name in os::names() {
        let os = os::find(name).expect("a row");
        let played = SYSTEMS.iter().any(|(row, _, _)| *row == name);
        // The others have no dialogue: `tapestry` is our own image, `plain` a namespace.
        assert!(played || (os.login.is_none() && os.password.is_none()), "{name} is not tested");
    }
}
