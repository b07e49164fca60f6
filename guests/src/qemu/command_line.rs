//! The arguments of QEMU, as a pure function of what the guest shall be.
//!
//! Assumptions: an x86-64 system emulator of version 7.2 or later; the guest's shell answers on
//! its first serial port; file descriptors named here are open in the QEMU process.
//!
//! Not modelled: displays, sound, USB, migration. `extra_args` come last, so a user can add them.
//!
//! Reference: QEMU's manual page `qemu-system-x86_64(1)`.

use std::ffi::OsString;
use std::fmt::Write;
use std::os::fd::RawFd;
use std::path::Path;

use tapestry_topologies::resolved::{MacAddr, NicModel};

use crate::accel::Resolved;
use crate::image::{Boot, DiskFormat};

/// Everything that decides QEMU's arguments.
#[derive(Debug, Clone)]
pub struct QemuConfig<'a> {
    /// The node's name; shows in process listings.
    pub node: &'a str,
    /// QEMU machine type: `pc`, `q35`, `microvm`, with options after a comma if need be.
    pub machine: &'a str,
    /// Acceleration.
    pub accel: Resolved,
    /// Virtual CPUs, at least 1.
    pub vcpus: u32,
    /// Guest memory in bytes; QEMU rounds it up to its page size.
    pub memory_bytes: u64,
    /// Kernel, initial RAM disk, disk.
    pub boot: &'a Boot,
    /// Kernel command line; ignored when the guest boots from its disk.
    pub kernel_args: &'a str,
    /// Model of all NICs. `microvm` without `pcie=on` has no PCI bus and takes `Virtio` only.
    pub nic: NicModel,
    /// NICs in the order the guest shall see them.
    pub nics: &'a [NicConfig<'a>],
    /// Stream socket that becomes the first serial port.
    pub console_fd: RawFd,
    /// Stream socket on which QEMU speaks QMP.
    pub qmp_fd: RawFd,
    /// Inherited socket for the second serial port, a terminal for people; a `microvm` has none.
    pub terminal_fd: Option<RawFd>,
    /// Arguments appended as they are.
    pub extra_args: &'a [String],
}

/// One NIC and what it is plugged into.
#[derive(Debug, Clone)]
pub struct NicConfig<'a> {
    /// Hardware address.
    pub mac: MacAddr,
    /// The host's side.
    pub backend: BackendConfig<'a>,
}

/// The host's side of a NIC.
#[derive(Debug, Clone)]
pub enum BackendConfig<'a> {
    /// A TAP device that exists in the network namespace QEMU runs in.
    Tap(&'a str),
    /// One end of a `SOCK_DGRAM` socketpair: a frame is a datagram.
    Dgram(RawFd),
}

/// Most NICs one guest can have on a PCI bus.
///
/// Slots 0–2 and 0x1e–0x1f belong to the chipsets of `pc` and `q35` and to our own devices; each of
/// the 27 between carries eight functions.
pub const MAX_PCI_NICS: usize = 27 * 8;

/// Up to this many NICs each get a slot of their own, as QEMU assigns them.
const NICS_WITH_OWN_SLOT: usize = 20;
const FIRST_PACKED_SLOT: usize = 0x03;

/// QEMU's arguments, without the program name.
///
/// The same configuration gives the same arguments; nothing is looked up on the host.
pub fn command_line(config: &QemuConfig<'_>) -> Vec<OsString> {
    let mut args = Args::default();
    args.flag("-nodefaults").flag("-no-user-config").flag("-no-reboot");
    args.option("-display", "none");
    args.option("-name", format!("guest={}", escape(config.node)));
    args.option("-machine", config.machine);
    args.option("-accel", accelerator(config.accel, config.vcpus));
    args.option("-cpu", cpu_model(config.accel));
    args.option("-smp", config.vcpus.to_string());
    args.option("-m", memory(config.memory_bytes));
    boot(&mut args, config);
    args.option("-chardev", format!("socket,id=console,fd={}", config.console_fd));
    args.option("-serial", "chardev:console");
    if let Some(fd) = config.terminal_fd {
        args.option("-chardev", format!("socket,id=terminal,fd={fd}"));
        args.option("-serial", "chardev:terminal");
    }
    args.option("-chardev", format!("socket,id=qmp,fd={}", config.qmp_fd));
    args.option("-mon", "chardev=qmp,mode=control");
    if has_pci(config.machine) {
        // Without it a panic is seen only as a reboot, and its reason only on the console.
        args.option("-device", "pvpanic");
    }
    nics(&mut args, config);
    for extra in config.extra_args {
        args.0.push(extra.into());
    }
    args.0
}

/// Whether a machine type has a PCI bus.
pub(crate) fn has_pci(machine: &str) -> bool {
    let mut words = machine.split(',');
    words.next() != Some("microvm") || words.any(|word| word == "pcie=on")
}

#[derive(Default)]
struct Args(Vec<OsString>);

impl Args {
    fn flag(&mut self, flag: &str) -> &mut Self {
        self.0.push(flag.into());
        self
    }

    fn option(&mut self, flag: &str, value: impl Into<OsString>) {
        self.0.push(flag.into());
        self.0.push(value.into());
    }
}

/// A value inside a comma-separated QEMU option: commas are doubled.
fn escape(value: &str) -> String {
    value.replace(',', ",,")
}

/// `prefix` + the path with its commas doubled + `suffix`; the path need not be UTF-8.
fn with_path(prefix: &str, path: &Path, suffix: &str) -> OsString {
    use std::os::unix::ffi::{OsStrExt, OsStringExt};
    let mut value = prefix.as_bytes().to_vec();
    for &byte in path.as_os_str().as_bytes() {
        value.push(byte);
        if byte == b',' {
            value.push(b',');
        }
    }
    value.extend_from_slice(suffix.as_bytes());
    OsString::from_vec(value)
}

/// Size of the cache of translated code, in MiB.
///
/// QEMU's default grows to an eighth of the host's memory, so a long run of many guests fills the
/// host with stale translations. A guest that routes and measures needs far less than this; when
/// the cache is full QEMU empties it and translates again.
const TCG_CACHE_MIB: u32 = 64;

fn accelerator(accel: Resolved, vcpus: u32) -> String {
    match accel {
        Resolved::Kvm => "kvm".into(),
        Resolved::Tcg => {
            let thread = if vcpus > 1 { "multi" } else { "single" };
            format!("tcg,thread={thread},tb-size={TCG_CACHE_MIB}")
        }
    }
}

fn cpu_model(accel: Resolved) -> &'static str {
    match accel {
        Resolved::Kvm => "host",
        // All that TCG can do: boots as fast as the older models and runs current binaries,
        // which may ask for x86-64-v2.
        Resolved::Tcg => "max",
    }
}

fn memory(bytes: u64) -> String {
    const MIB: u64 = 1024 * 1024;
    if bytes.is_multiple_of(MIB) { format!("{}M", bytes / MIB) } else { format!("{bytes}B") }
}

fn boot(args: &mut Args, config: &QemuConfig<'_>) {
    let boot = config.boot;
    if let Some(kernel) = &boot.kernel {
        args.option("-kernel", kernel.clone());
        if let Some(initrd) = &boot.initrd {
            // QEMU splits `-initrd` at commas for multiboot kernels only, so a Linux kernel's path
            // is taken as it is.
            args.option("-initrd", initrd.clone());
        }
        args.option("-append", config.kernel_args);
    }
    if let Some(disk) = &boot.disk {
        let format = match disk.format {
            DiskFormat::Raw => "raw",
            DiskFormat::Qcow2 => "qcow2",
        };
        // `snapshot=on`: guests share the image and write to an unlinked overlay of their own.
        let suffix = format!(",format={format},if=none,id=disk0,snapshot=on");
        args.option("-drive", with_path("file=", &disk.path, &suffix));
        let device = if has_pci(config.machine) { "virtio-blk-pci" } else { "virtio-blk-device" };
        args.option("-device", format!("{device},drive=disk0"));
    }
}

fn nics(args: &mut Args, config: &QemuConfig<'_>) {
    let pci = has_pci(config.machine);
    let device = match (config.nic, pci) {
        (NicModel::Virtio, true) => "virtio-net-pci",
        (NicModel::Virtio, false) => "virtio-net-device",
        (NicModel::E1000, _) => "e1000",
        (NicModel::E1000e, _) => "e1000e",
        (NicModel::Rtl8139, _) => "rtl8139",
        (NicModel::Vmxnet3, _) => "vmxnet3",
    };
    let packed = pci && config.nics.len() > NICS_WITH_OWN_SLOT;
    for (index, nic) in config.nics.iter().enumerate() {
        let netdev = match &nic.backend {
            BackendConfig::Tap(name) => format!(
                "tap,id=net{index},ifname={},script=no,downscript=no,vhost=off",
                escape(name)
            ),
            BackendConfig::Dgram(fd) => {
                format!("dgram,id=net{index},local.type=fd,local.str={fd}")
            }
        };
        args.option("-netdev", netdev);
        let mut value = format!("{device},netdev=net{index},mac={}", mac(nic.mac));
        if pci {
            // No guest boots from the network, so no NIC needs its boot ROM.
            value.push_str(",romfile=");
        }
        if packed {
            let (slot, function) = (FIRST_PACKED_SLOT + index / 8, index % 8);
            let _ = write!(value, ",multifunction=on,addr={slot:#x}.{function}");
        }
        args.option("-device", value);
    }
}

fn mac(mac: MacAddr) -> String {
    mac.0.map(|byte| format!("{byte:02x}")).join(":")
}
