//! The life of one QEMU process: start, monitor, console, end.
//!
//! Assumptions: a tokio runtime; the caller's network namespace holds the TAPs it names.
//!
//! Not modelled: a reboot inside one process. A guest that reboots or panics ends, and its [`Exit`]
//! says so; the lab decides what that means, and may start another with the same specification.

use std::io;
use std::os::fd::{OwnedFd, RawFd};
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use command_fds::{CommandFdExt, FdMapping};
use tapestry_topologies::resolved::{MacAddr, NicModel};
use tokio::net::UnixStream;
use tokio::process::Command;
use tokio::sync::{Notify, watch};

use super::command_line::{self, BackendConfig, MAX_PCI_NICS, NicConfig, QemuConfig};
use super::exit::{Exit, ended, reap, watch_shutdown};
use super::stderr::{Tail, pump};
use super::{OLDEST, Qmp, QmpCommand, QmpError, VersionError};
use crate::accel::Resolved;
use crate::image::Image;

/// What a guest shall be.
#[derive(Debug)]
pub struct GuestSpec {
    /// The node's name, for messages and process listings.
    pub node: String,
    /// The QEMU program; [`super::program`] unless a test says otherwise.
    pub program: PathBuf,
    /// What it boots.
    pub image: Image,
    /// QEMU machine type.
    pub machine: String,
    /// Acceleration.
    pub accel: Resolved,
    /// Virtual CPUs, at least 1.
    pub vcpus: u32,
    /// Guest memory in bytes.
    pub memory_bytes: u64,
    /// Model of all NICs.
    pub nic: NicModel,
    /// NICs in the order the guest shall see them.
    pub nics: Vec<Nic>,
    /// Kernel command line words after the image's own.
    pub kernel_args: String,
    /// Arguments appended to QEMU's command line as they are.
    pub extra_args: Vec<String>,
    /// File that gets all QEMU writes to its standard error; made when there is something.
    pub stderr_log: Option<PathBuf>,
    /// Longest wait for QEMU's monitor to answer; building the machine comes before.
    pub qmp_timeout: Duration,
}

/// One NIC.
#[derive(Debug)]
pub struct Nic {
    /// Hardware address.
    pub mac: MacAddr,
    /// What it is plugged into.
    pub backend: Backend,
}

/// The host's side of a NIC.
#[derive(Debug)]
pub enum Backend {
    /// Name of a TAP device in the caller's network namespace.
    Tap(String),
    /// QEMU's end of a `SOCK_DGRAM` Unix socketpair; each datagram is a frame.
    Dgram(OwnedFd),
}

/// A running QEMU process. Dropping it kills the process.
#[derive(Debug)]
pub struct Guest {
    node: String,
    pid: u32,
    qmp: Qmp,
    console: Option<UnixStream>,
    terminal: Arc<Mutex<Option<UnixStream>>>,
    stderr: Tail,
    exit: watch::Receiver<Option<Exit>>,
    kill: Arc<Notify>,
}

/// A guest's second serial port; given back when dropped.
#[derive(Debug)]
pub struct Terminal {
    stream: Option<UnixStream>,
    home: Arc<Mutex<Option<UnixStream>>>,
}

impl Terminal {
    /// The stream.
    pub fn stream(&mut self) -> &mut UnixStream {
        self.stream.as_mut().expect("there until dropped")
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        *self.home.lock().unwrap_or_else(PoisonError::into_inner) = self.stream.take();
    }
}

/// Why a guest could not be started.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// QEMU is missing, too old, or no QEMU.
    #[error("node `{node}`: {source}")]
    Qemu {
        /// The node.
        node: String,
        /// What is wrong with the program.
        source: VersionError,
    },
    /// The machine cannot have such a NIC.
    #[error("node `{node}`: {reason}")]
    Nic {
        /// The node.
        node: String,
        /// Why, and what to do.
        reason: String,
    },
    /// A system call failed before QEMU ran.
    #[error("node `{node}`: cannot start QEMU: {source}")]
    Spawn {
        /// The node.
        node: String,
        /// The system's answer.
        source: io::Error,
    },
    /// QEMU ended before the machine was built, most often because it refuses an argument.
    #[error("node `{node}`: QEMU refused to start: {exit}; its arguments were: {arguments}")]
    Refused {
        /// The node.
        node: String,
        /// How it ended, with its standard error.
        exit: Exit,
        /// The command line, for a person to repeat.
        arguments: String,
    },
    /// The monitor did not answer in time.
    #[error(
        "node `{node}`: QEMU's monitor did not answer within {} ms; is the machine overloaded?",
        timeout.as_millis()
    )]
    QmpTimeout {
        /// The node.
        node: String,
        /// The limit.
        timeout: Duration,
    },
    /// The monitor answered oddly.
    #[error("node `{node}`: {source}")]
    Qmp {
        /// The node.
        node: String,
        /// What went wrong.
        source: QmpError,
    },
}

impl Guest {
    /// Starts QEMU and waits for its monitor, not for the guest to boot.
    ///
    /// QEMU gets a process group of its own, so Ctrl-C at the terminal does not reach it. If this
    /// future is dropped the process is killed.
    pub async fn start(spec: GuestSpec) -> Result<Self, StartError> {
        check_nics(&spec.node, &spec.machine, spec.nic, spec.nics.len(), &spec.image)?;
        let node = spec.node.clone();
        let spawn_error = |source| StartError::Spawn { node: node.clone(), source };
        let (console, console_far) = UnixStream::pair().map_err(spawn_error)?;
        let (monitor, monitor_far) = UnixStream::pair().map_err(spawn_error)?;

        let mut table = FdTable::default();
        let console_fd = table.add(blocking(console_far).map_err(spawn_error)?);
        let qmp_fd = table.add(blocking(monitor_far).map_err(spawn_error)?);
        let mut terminal = None;
        let mut terminal_fd = None;
        if command_line::has_pci(&spec.machine) {
            let (near, far) = UnixStream::pair().map_err(spawn_error)?;
            terminal = Some(near);
            terminal_fd = Some(table.add(blocking(far).map_err(spawn_error)?));
        }
        let kernel_args = kernel_args(&spec, super::tsc::host_khz());
        let mut nics = Vec::new();
        for nic in &spec.nics {
            let backend = match &nic.backend {
                Backend::Tap(name) => BackendConfig::Tap(name),
                Backend::Dgram(fd) => {
                    BackendConfig::Dgram(table.add(fd.try_clone().map_err(spawn_error)?))
                }
            };
            nics.push(NicConfig { mac: nic.mac, backend });
        }
        let arguments = command_line::command_line(&QemuConfig {
            node: &spec.node,
            machine: &spec.machine,
            accel: spec.accel,
            vcpus: spec.vcpus,
            memory_bytes: spec.memory_bytes,
            boot: &spec.image.boot,
            kernel_args: &kernel_args,
            nic: spec.nic,
            nics: &nics,
            console_fd,
            qmp_fd,
            terminal_fd,
            extra_args: &spec.extra_args,
        });

        let mut child = {
            // Dropped with the block, and with it our copies of QEMU's descriptors: otherwise the
            // console would not end when QEMU does.
            let mut command = Command::new(&spec.program);
            command.args(&arguments).process_group(0).kill_on_drop(true);
            command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
            command.fd_mappings(table.0).expect("child descriptors are distinct by construction");
            command.spawn().map_err(|source| match source.kind() {
                io::ErrorKind::NotFound => StartError::Qemu {
                    node: node.clone(),
                    source: VersionError::Missing { program: spec.program.clone() },
                },
                _ => spawn_error(source),
            })?
        };
        drop(spec.nics);

        let pid = child.id().unwrap_or_default();
        crate::schedule::shorten_slices(pid);
        let stderr = Tail::default();
        let pipe = child.stderr.take().expect("standard error is piped");
        let pump = tokio::spawn(pump(pipe, stderr.clone(), spec.stderr_log));
        let (shutdown, reason) = watch::channel(None);
        let kill = Arc::new(Notify::new());
        let (announce, exit) = watch::channel(None);
        tokio::spawn(reap(
            child,
            kill.clone(),
            reason,
            pump,
            node.clone(),
            stderr.clone(),
            announce,
        ));

        let stop = KillOnDrop(Some(kill.clone()));
        let connected = tokio::time::timeout(spec.qmp_timeout, Qmp::connect(monitor)).await;
        let (qmp, events) = match connected {
            Ok(Ok(connected)) => connected,
            Ok(Err(QmpError::Closed)) => {
                let exit = ended(exit, &node).await;
                return Err(refusal(node, &spec.program, &arguments, exit));
            }
            Ok(Err(source)) => return Err(StartError::Qmp { node, source }),
            Err(_) => return Err(StartError::QmpTimeout { node, timeout: spec.qmp_timeout }),
        };
        if qmp.version() < OLDEST {
            let source = VersionError::TooOld { program: spec.program, found: qmp.version() };
            return Err(StartError::Qemu { node, source });
        }
        tokio::spawn(watch_shutdown(events, shutdown));
        stop.defuse();
        let terminal = Arc::new(Mutex::new(terminal));
        Ok(Self { node, pid, qmp, console: Some(console), terminal, stderr, exit, kill })
    }

    /// The node's name.
    pub fn node(&self) -> &str {
        &self.node
    }

    /// The process id of QEMU.
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// The monitor.
    pub fn qmp(&self) -> &Qmp {
        &self.qmp
    }

    /// The first serial port; once. What the guest printed before is in the stream.
    pub fn take_console(&mut self) -> Option<UnixStream> {
        self.console.take()
    }

    /// The second serial port, for one person at a time: `None` while somebody has it, and for
    /// machine types without one. Images made by [`crate::image::build`] run a shell there.
    pub fn take_terminal(&self) -> Option<Terminal> {
        let stream = self.terminal.lock().unwrap_or_else(PoisonError::into_inner).take()?;
        Some(Terminal { stream: Some(stream), home: Arc::clone(&self.terminal) })
    }

    /// The last lines of QEMU's standard error so far.
    pub fn stderr(&self) -> String {
        self.stderr.text()
    }

    /// How the process ended, if it has.
    pub fn exited(&self) -> Option<Exit> {
        self.exit.borrow().clone()
    }

    /// Waits for the process to end. May be cancelled and called again.
    pub async fn wait(&self) -> Exit {
        ended(self.exit.clone(), &self.node).await
    }

    /// The same for others, who may outlive this handle.
    pub fn end(&self) -> impl Future<Output = Exit> + Send + use<> {
        let (exit, node) = (self.exit.clone(), self.node.clone());
        async move { ended(exit, &node).await }
    }

    /// Asks QEMU to quit and kills it when it has not ended after `grace`.
    ///
    /// The guest's operating system is not asked: its disks are overlays that end with it.
    pub async fn stop(&self, grace: Duration) -> Exit {
        let polite = async {
            // QEMU may close the connection before it answers; only its end counts.
            let _ = self.qmp.execute(QmpCommand::Quit).await;
            self.wait().await
        };
        match tokio::time::timeout(grace, polite).await {
            Ok(exit) => exit,
            Err(_) => {
                self.kill.notify_one();
                self.wait().await
            }
        }
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        self.kill.notify_one();
    }
}

/// Kills the process unless defused; for the way between spawn and handshake.
struct KillOnDrop(Option<Arc<Notify>>);

impl KillOnDrop {
    fn defuse(mut self) {
        self.0 = None;
    }
}

impl Drop for KillOnDrop {
    fn drop(&mut self) {
        if let Some(kill) = &self.0 {
            kill.notify_one();
        }
    }
}

/// The image's words, what the host knows better than the guest, then the user's words.
fn kernel_args(spec: &GuestSpec, tsc_khz: Option<u64>) -> String {
    let clock = tsc_khz
        .filter(|_| spec.accel == Resolved::Tcg)
        .map(|khz| format!("tsc_early_khz={khz}"))
        .unwrap_or_default();
    let words = [spec.image.kernel_args.as_str(), clock.as_str(), spec.kernel_args.as_str()];
    words.into_iter().filter(|word| !word.is_empty()).collect::<Vec<_>>().join(" ")
}

/// Descriptors QEMU inherits, numbered from 3 in order.
#[derive(Default)]
struct FdTable(Vec<FdMapping>);

impl FdTable {
    fn add(&mut self, parent_fd: OwnedFd) -> RawFd {
        const AFTER_STANDARD_STREAMS: RawFd = 3;
        let child_fd = AFTER_STANDARD_STREAMS
            + RawFd::try_from(self.0.len()).expect("fewer descriptors than the system allows");
        self.0.push(FdMapping { parent_fd, child_fd });
        child_fd
    }
}

/// QEMU sets the mode it wants; a program in its place, as in tests, expects a blocking stream.
fn blocking(stream: UnixStream) -> io::Result<OwnedFd> {
    let stream = stream.into_std()?;
    stream.set_nonblocking(false)?;
    Ok(stream.into())
}

/// Whether a machine with this image can have so many NICs of a model; the error names `node`.
pub fn check_nics(
    node: &str,
    machine: &str,
    nic: NicModel,
    count: usize,
    image: &Image,
) -> Result<(), StartError> {
    let error = |reason| Err(StartError::Nic { node: node.to_owned(), reason });
    if count == 0 {
        return Ok(());
    }
    if !command_line::has_pci(machine) && nic != NicModel::Virtio {
        return error(format!(
            "machine `{}` has no PCI bus, so NIC model `{}` does not fit; use `virtio`, or machine `pc`",
            machine,
            nic_word(nic)
        ));
    }
    if count > MAX_PCI_NICS {
        return error(format!("{count} NICs do not fit into one guest; at most {MAX_PCI_NICS} do"));
    }
    if let Some(nics) = &image.nics
        && !nics.contains(&nic)
    {
        let known: Vec<_> = nics.iter().map(|nic| nic_word(*nic)).collect();
        return error(format!(
            "image `{}` has no driver for NIC model `{}` (it has: {}); \
             build one that has with `tapestry image build --kernel generic --name NAME`",
            image.name,
            nic_word(nic),
            known.join(", ")
        ));
    }
    Ok(())
}

/// The word the topology file uses.
fn nic_word(nic: NicModel) -> String {
    serde_json::to_value(nic)
        .ok()
        .and_then(|value| value.as_str().map(str::to_owned))
        .unwrap_or_default()
}

/// Prefers the reason behind the refusal: an old QEMU does not know our arguments.
fn refusal(
    node: String,
    program: &std::path::Path,
    arguments: &[std::ffi::OsString],
    exit: Exit,
) -> StartError {
    match super::version(program) {
        Err(source @ (VersionError::TooOld { .. } | VersionError::Unknown { .. })) => {
            StartError::Qemu { node, source }
        }
        _ => {
            let arguments: Vec<_> = arguments.iter().map(|word| word.to_string_lossy()).collect();
            StartError::Refused { node, exit, arguments: arguments.join(" ") }
        }
    }
}
