//! QEMU guests: command line, monitor, life of the process.
//!
//! Assumptions: `qemu-system-x86_64` 7.2 or later; guests run in the network namespace of the
//! process that starts them.
//!
//! Not modelled: snapshots and migration; other processor architectures.
//!
//! Reference: QEMU's manual page and its QMP specification.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

mod command_line;
mod exit;
mod guest;
mod qmp;
mod stderr;
#[cfg(test)]
mod tests;
mod tsc;

pub use command_line::{BackendConfig, MAX_PCI_NICS, NicConfig, QemuConfig, command_line};
pub use exit::{Exit, ExitReason};
pub use guest::{Backend, Guest, GuestSpec, Nic, StartError, Terminal, check_nics};
pub use qmp::{Command as QmpCommand, Event, Qmp, QmpError, Status, Version};

/// The oldest QEMU that works: the first with the `dgram` network back end.
pub const OLDEST: Version = Version { major: 7, minor: 2, micro: 0 };

/// How to get QEMU on the distributions most people have.
const INSTALL_HINT: &str =
    "install it (Debian, Ubuntu: `apt-get install qemu-system-x86`) or set $TAPESTRY_QEMU";

/// The QEMU program: `$TAPESTRY_QEMU`, or `qemu-system-x86_64` from `$PATH`.
pub fn program() -> PathBuf {
    std::env::var_os("TAPESTRY_QEMU")
        .filter(|value| !value.is_empty())
        .unwrap_or_else(|| OsString::from("qemu-system-x86_64"))
        .into()
}

/// Why QEMU cannot be used on this machine.
#[derive(Debug, thiserror::Error)]
pub enum VersionError {
    /// There is no such program.
    #[error("QEMU is missing: there is no program `{}`; {INSTALL_HINT}", program.display())]
    Missing {
        /// What was looked for.
        program: PathBuf,
    },
    /// The program could not be run.
    #[error("`{}` cannot be run: {source}; check that it is an executable file", program.display())]
    Run {
        /// What was run.
        program: PathBuf,
        /// The system's answer.
        source: std::io::Error,
    },
    /// The program does not answer like QEMU.
    #[error("`{} --version` says `{output}`, which is no QEMU version; {INSTALL_HINT}", program.display())]
    Unknown {
        /// What was run.
        program: PathBuf,
        /// The first line it printed.
        output: String,
    },
    /// The program is too old.
    #[error("`{}` is QEMU {found}; {OLDEST} or later is needed", program.display())]
    TooOld {
        /// What was run.
        program: PathBuf,
        /// Its version.
        found: Version,
    },
}

/// Runs `program --version`; an error when it is missing, odd, or older than [`OLDEST`].
pub fn version(program: &Path) -> Result<Version, VersionError> {
    let output = Command::new(program).arg("--version").stdin(Stdio::null()).output();
    let output = output.map_err(|source| match source.kind() {
        std::io::ErrorKind::NotFound => VersionError::Missing { program: program.into() },
        _ => VersionError::Run { program: program.into(), source },
    })?;
    let text = String::from_utf8_lossy(&output.stdout);
    let Some(found) = parse_version(&text) else {
        let output = text.lines().next().unwrap_or_default().chars().take(200).collect();
        return Err(VersionError::Unknown { program: program.into(), output });
    };
    if found < OLDEST {
        return Err(VersionError::TooOld { program: program.into(), found });
    }
    Ok(found)
}

/// Finds the version in `QEMU emulator version 7.2.22 (Debian …)`.
fn parse_version(text: &str) -> Option<Version> {
    let rest = text.strip_prefix("QEMU emulator version ")?;
    let numbers = rest.split(|c: char| !c.is_ascii_digit() && c != '.').next()?;
    let mut numbers = numbers.split('.').map(|number| number.parse().ok());
    Some(Version {
        major: numbers.next()??,
        minor: numbers.next()??,
        micro: numbers.next().flatten().unwrap_or(0),
    })
}
