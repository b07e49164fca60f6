//! The helper process of a namespace node: makes the namespaces, then is the node's process 1.
#![allow(unsafe_code)]

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::process::CommandExt;
use std::process::{Command, ExitCode, Stdio};

use nix::sched::{CloneFlags, unshare};
use nix::sys::signal::Signal;
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::{ForkResult, Pid, fork, getpid, sethostname};

use super::capabilities::drop_those_of_the_host;
use super::filesystem::enter_private_view;
use super::{NodeSpec, Report};

/// Runs as the helper. Standard input and output are the socket for the node's shell, on which a
/// [`NodeSpec`] comes first; standard error carries the report.
///
/// Must be called before any thread is started.
pub fn main() -> ExitCode {
    match read_spec() {
        Ok(spec) => match helper(&spec) {
            Ok(code) => code,
            Err(reason) => {
                report(&Report::Failed { reason });
                ExitCode::FAILURE
            }
        },
        Err(error) => {
            report(&Report::Failed {
                reason: format!("its helper was not told what to do: {error}"),
            });
            ExitCode::FAILURE
        }
    }
}

/// Reads exactly the specification: what follows is the shell's. (Standard input itself would read
/// ahead.)
fn read_spec() -> io::Result<NodeSpec> {
    let mut socket = File::from(io::stdin().as_fd().try_clone_to_owned()?);
    let mut length = [0; 4];
    socket.read_exact(&mut length)?;
    let mut json = vec![0; u32::from_be_bytes(length) as usize];
    socket.read_exact(&mut json)?;
    Ok(serde_json::from_slice(&json)?)
}

fn report(report: &Report) {
    if let Ok(line) = serde_json::to_string(report) {
        let _ = writeln!(io::stderr(), "{line}");
    }
}

fn helper(spec: &NodeSpec) -> Result<ExitCode, String> {
    let flags = CloneFlags::CLONE_NEWNS
        | CloneFlags::CLONE_NEWPID
        | CloneFlags::CLONE_NEWUTS
        | CloneFlags::CLONE_NEWIPC;
    unshare(flags).map_err(|errno| format!("cannot make its namespaces: {errno}"))?;
    sethostname(&spec.hostname).map_err(|errno| format!("cannot set its host name: {errno}"))?;
    let own = getpid();
    // SAFETY: the helper has one thread; the child continues as an ordinary process.
    match unsafe { fork() }.map_err(|errno| format!("cannot fork: {errno}"))? {
        ForkResult::Child => {
            let _ = nix::sys::prctl::set_pdeathsig(Signal::SIGKILL);
            match process_one(own, &spec.hostname, &spec.hosts) {
                Ok(code) => Ok(code),
                Err(reason) => Err(reason),
            }
        }
        ForkResult::Parent { child } => {
            release_standard_streams();
            Ok(match waitpid(child, None) {
                Ok(WaitStatus::Exited(_, code)) => ExitCode::from(code.clamp(0, 255) as u8),
                _ => ExitCode::FAILURE,
            })
        }
    }
}

/// Process 1 of the node: starts the shell and reaps whoever is left without a parent.
fn process_one(helper: Pid, hostname: &str, hosts: &str) -> Result<ExitCode, String> {
    // The number by which the lab knows this process is that of the outer PID namespace.
    let outer = fs::read_link("/proc/self")
        .ok()
        .and_then(|link| link.to_str()?.parse().ok())
        .unwrap_or(helper.as_raw().cast_unsigned());
    let view = enter_private_view().map_err(|error| error.to_string())?;
    for (file, text) in [("/etc/hosts", hosts), ("/etc/hostname", &format!("{hostname}\n"))] {
        fs::write(file, text).map_err(|error| format!("cannot write {file}: {error}"))?;
    }
    drop_those_of_the_host()
        .map_err(|error| format!("cannot drop capabilities over the host: {error}"))?;
    let shell = Command::new("/bin/sh")
        .stdin(Stdio::inherit())
        .stdout(Stdio::inherit())
        .stderr(dup_of_stdout()?)
        .env_clear()
        .env("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
        .env("HOME", "/root")
        .env("TERM", "dumb")
        .env("LC_ALL", "C.UTF-8")
        .current_dir("/")
        .process_group(0)
        .spawn()
        .map_err(|error| format!("cannot start /bin/sh: {error}"))?;
    report(&Report::Ready { init: outer, view });
    release_standard_streams();
    let shell = Pid::from_raw(shell.id().cast_signed());
    loop {
        match waitpid(None, None) {
            Ok(WaitStatus::Exited(pid, code)) if pid == shell => {
                return Ok(ExitCode::from(code.clamp(0, 255) as u8));
            }
            Ok(WaitStatus::Signaled(pid, signal, _)) if pid == shell => {
                return Ok(ExitCode::from((128 + signal as i32).clamp(0, 255) as u8));
            }
            Err(nix::errno::Errno::ECHILD) => return Ok(ExitCode::FAILURE),
            _ => {}
        }
    }
}

fn dup_of_stdout() -> Result<Stdio, String> {
    let copy = io::stdout().as_fd().try_clone_to_owned();
    copy.map(Stdio::from).map_err(|error| format!("cannot copy the shell's socket: {error}"))
}

/// Only the shell may hold its socket, and nobody the report's pipe, so that their ends are seen.
fn release_standard_streams() {
    if let Ok(null) = File::options().read(true).write(true).open("/dev/null") {
        let _ = nix::unistd::dup2_stdin(&null);
        let _ = nix::unistd::dup2_stdout(&null);
        let _ = nix::unistd::dup2_stderr(&null);
    }
}
