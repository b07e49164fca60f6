//! Acceleration: KVM where it really works, else TCG, with a sentence that says why.
//!
//! Assumptions: Linux on x86-64.
//!
//! A host may offer `/dev/kvm` on which a stock kernel crashes or crawls: KVM in a virtual machine
//! without hardware support is such a case. So the device alone proves nothing: the processor must
//! have `vmx` or `svm`, and one guest must boot, compute and stay sane under KVM. The result of
//! that trial is remembered until the host reboots or QEMU changes.
//!
//! Not modelled: other accelerators (Xen, HVF); per-guest fallback after the decision.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tapestry_topologies::resolved::{Accel, NicModel};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::image::Image;
use crate::qemu::{self, Guest, GuestSpec};

/// Acceleration after the decision.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Resolved {
    /// Hardware virtualisation.
    Kvm,
    /// QEMU's software translation.
    Tcg,
}

impl std::fmt::Display for Resolved {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Kvm => "kvm",
            Self::Tcg => "tcg",
        })
    }
}

/// Why acceleration could not be had as asked.
#[derive(Debug, thiserror::Error)]
pub enum AccelError {
    /// KVM was asked for by name.
    #[error("`accel: kvm` cannot be had: {why}; use `accel: auto` or `accel: tcg`")]
    KvmUnusable {
        /// What is wrong with KVM here.
        why: String,
    },
}

/// What this machine says about KVM.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kvm {
    /// Whether guests may use it, as far as is known.
    pub state: KvmState,
    /// One sentence for people: why.
    pub why: String,
}

/// Whether KVM may be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KvmState {
    /// A trial guest ran well.
    Usable,
    /// The device and the processor look right; no guest has been tried.
    Untried,
    /// It cannot be used.
    Unusable,
}

/// Decides how guests run and says why.
///
/// `Tcg` is granted at once. The other two look at the host and, where it looks right, boot
/// `image` once under KVM (a few seconds, remembered in `cache`).
pub async fn resolve(
    wanted: Accel,
    image: &Image,
    cache: &Path,
) -> Result<(Resolved, String), AccelError> {
    if wanted == Accel::Tcg {
        return Ok((Resolved::Tcg, "the topology asks for TCG".into()));
    }
    let mut kvm = probe(cache);
    if kvm.state == KvmState::Untried {
        kvm = trial(image, &qemu::program()).await;
        remember(cache, &kvm);
    }
    match (kvm.state, wanted) {
        (KvmState::Usable, _) => Ok((Resolved::Kvm, kvm.why)),
        (_, Accel::Kvm) => Err(AccelError::KvmUnusable { why: kvm.why }),
        _ => Ok((Resolved::Tcg, kvm.why)),
    }
}

/// What is known about KVM here without booting anything.
pub fn probe(cache: &Path) -> Kvm {
    let device = fs::OpenOptions::new().read(true).write(true).open("/dev/kvm");
    let cpuinfo = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    judge(device.map(drop), &cpuinfo).unwrap_or_else(|| {
        recall(cache).unwrap_or_else(|| Kvm {
            state: KvmState::Untried,
            why: "/dev/kvm opens and the processor has hardware virtualisation; \
                  the first run tries a guest"
                .into(),
        })
    })
}

/// Judges by device and processor; `None` means that only a trial can tell.
fn judge(device: io::Result<()>, cpuinfo: &str) -> Option<Kvm> {
    let unusable = |why: String| Some(Kvm { state: KvmState::Unusable, why });
    if let Err(error) = device {
        let why = match error.kind() {
            io::ErrorKind::NotFound => "there is no /dev/kvm; load the module `kvm_intel` or \
                                        `kvm_amd`, or enable nested virtualisation"
                .into(),
            io::ErrorKind::PermissionDenied => "/dev/kvm may not be opened for reading and \
                                                writing; add yourself to the group `kvm`"
                .into(),
            _ => format!("/dev/kvm does not open: {error}"),
        };
        return unusable(why);
    }
    let has_virtualisation = cpuinfo
        .lines()
        .filter(|line| line.starts_with("flags"))
        .flat_map(str::split_whitespace)
        .any(|flag| flag == "vmx" || flag == "svm");
    if has_virtualisation {
        return None;
    }
    unusable(
        "/dev/kvm opens, but the processor offers neither vmx nor svm, \
         and on such hosts guests crash or crawl under KVM"
            .into(),
    )
}

/// Text of the trial's workload and its answer; the answer is not in the text.
const WORKLOAD: &str =
    "i=0; while [ $i -lt 20000 ]; do i=$((i+1)); done; echo tapestry-$((i/2))-sane\n";
const ANSWER: &str = "tapestry-10000-sane";
/// A guest under working KVM is ready in about one second.
const TRIAL_READY: Duration = Duration::from_secs(10);
const TRIAL_SANE: Duration = Duration::from_secs(10);
const TRIAL_MEMORY_BYTES: u64 = 256 * 1024 * 1024;

/// Boots a guest under KVM and lets it compute.
async fn trial(image: &Image, program: &Path) -> Kvm {
    match attempt(image, program, Resolved::Kvm).await {
        Ok(()) => Kvm { state: KvmState::Usable, why: "a trial guest ran well under KVM".into() },
        Err(reason) => Kvm {
            state: KvmState::Unusable,
            why: format!("the host looks fit for KVM, but a trial guest failed: {reason}"),
        },
    }
}

/// One guest: boots, shows it is ready, and where it has our shell, computes.
async fn attempt(image: &Image, program: &Path, accel: Resolved) -> Result<(), String> {
    let mut guest = Guest::start(GuestSpec {
        node: "kvm-trial".into(),
        program: program.into(),
        image: image.clone(),
        machine: "pc".into(),
        accel,
        vcpus: 1,
        memory_bytes: TRIAL_MEMORY_BYTES,
        nic: NicModel::Virtio,
        nics: Vec::new(),
        kernel_args: String::new(),
        extra_args: Vec::new(),
        stderr_log: None,
        qmp_timeout: TRIAL_READY,
    })
    .await
    .map_err(|error| error.to_string())?;
    let mut console = guest.take_console().ok_or("the console is taken")?;
    let outcome = tokio::select! {
        exit = guest.wait() => Err(exit.to_string()),
        outcome = exercise(&mut console, image.ready_line.as_deref()) => outcome,
    };
    let outcome = match (outcome, guest.qmp().status().await) {
        (Ok(()), Ok(status)) if !status.running => {
            Err(format!("QEMU reports the guest as `{}`", status.status))
        }
        (outcome, _) => outcome,
    };
    guest.stop(Duration::from_secs(1)).await;
    outcome
}

async fn exercise(
    console: &mut tokio::net::UnixStream,
    ready_line: Option<&str>,
) -> Result<(), String> {
    let Some(ready_line) = ready_line else {
        // A user's own image: it must print something; what, is not known.
        return read_until(console, "", TRIAL_READY).await;
    };
    read_until(console, ready_line, TRIAL_READY).await?;
    console.write_all(WORKLOAD.as_bytes()).await.map_err(|error| error.to_string())?;
    read_until(console, ANSWER, TRIAL_SANE).await
}

/// Reads until `wanted` shows; an empty `wanted` shows with the first byte.
async fn read_until(
    console: &mut tokio::net::UnixStream,
    wanted: &str,
    limit: Duration,
) -> Result<(), String> {
    let mut seen = Vec::new();
    let mut buffer = [0; 4096];
    let reading = async {
        loop {
            match console.read(&mut buffer).await {
                Ok(0) => return Err("the console ended".to_owned()),
                Ok(count) => seen.extend_from_slice(&buffer[..count]),
                Err(error) => return Err(error.to_string()),
            }
            if String::from_utf8_lossy(&seen).contains(wanted) {
                return Ok(());
            }
            // What is wanted may straddle two reads, so its length stays.
            let surplus = seen.len().saturating_sub(buffer.len().max(wanted.len()));
            seen.drain(..surplus);
        }
    };
    tokio::time::timeout(limit, reading).await.unwrap_or_else(|_| {
        let what = if wanted.is_empty() { "anything" } else { wanted };
        Err(format!("the console did not show `{what}` within {} s", limit.as_secs()))
    })
}

/// A remembered trial and what it depends on.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Memory {
    boot_id: String,
    kernel: String,
    qemu: String,
    usable: bool,
    why: String,
}

fn memory_path(cache: &Path) -> PathBuf {
    cache.join("kvm-trial.json")
}

fn circumstances() -> Option<(String, String, String)> {
    let boot_id = fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?.trim().to_owned();
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").ok()?.trim().to_owned();
    let program = qemu::program();
    let qemu = format!("{} {}", program.display(), qemu::version(&program).ok()?);
    Some((boot_id, kernel, qemu))
}

fn recall(cache: &Path) -> Option<Kvm> {
    let memory: Memory = serde_json::from_slice(&fs::read(memory_path(cache)).ok()?).ok()?;
    let (boot_id, kernel, qemu) = circumstances()?;
    (memory.boot_id == boot_id && memory.kernel == kernel && memory.qemu == qemu).then(|| Kvm {
        state: if memory.usable { KvmState::Usable } else { KvmState::Unusable },
        why: format!("{} (tried since the host booted)", memory.why),
    })
}

/// Keeps the result; a cache that cannot be written only means that the next run tries again.
fn remember(cache: &Path, kvm: &Kvm) {
    let Some((boot_id, kernel, qemu)) = circumstances() else { return };
    let usable = kvm.state == KvmState::Usable;
    let memory = Memory { boot_id, kernel, qemu, usable, why: kvm.why.clone() };
    let written = fs::create_dir_all(cache).and_then(|()| {
        let mut file = tempfile::NamedTempFile::new_in(cache)?;
        serde_json::to_writer(&mut file, &memory)?;
        file.persist(memory_path(cache)).map(drop).map_err(|error| error.error)
    });
    if let Err(error) = written {
        tracing::warn!(%error, cache = %cache.display(), "cannot remember the KVM trial");
    }
}

#[cfg(test)]
mod tests;
