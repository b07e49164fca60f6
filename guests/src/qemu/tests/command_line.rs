use std::ffi::OsString;
use std::path::PathBuf;

use insta::assert_snapshot;
use tapestry_topologies::resolved::{MacAddr, NicModel};

use crate::accel::Resolved;
use crate::image::{Boot, Disk, DiskFormat};
use crate::qemu::{BackendConfig, MAX_PCI_NICS, NicConfig, QemuConfig, command_line};

fn kernel() -> Boot {
    Boot { kernel: Some("/i/kernel".into()), initrd: Some("/i/initrd".into()), disk: None }
}

fn disk(format: DiskFormat, path: &str) -> Boot {
    let disk = Some(Disk { path: path.into(), format });
    Boot { kernel: None, initrd: None, disk }
}

fn config(boot: &Boot) -> QemuConfig<'_> {
    QemuConfig {
        node: "n0",
        machine: "pc",
        accel: Resolved::Tcg,
        vcpus: 1,
        memory_bytes: 128 << 20,
        boot,
        kernel_args: "console=ttyS0 quiet",
        nic: NicModel::Virtio,
        nics: &[],
        console_fd: 3,
        qmp_fd: 4,
        terminal_fd: None,
        extra_args: &[],
    }
}

fn two_nics() -> [NicConfig<'static>; 2] {
    [
        NicConfig { mac: MacAddr([2, 0, 0, 0, 0, 1]), backend: BackendConfig::Tap("q0-eth0") },
        NicConfig { mac: MacAddr([2, 0, 0, 0, 0, 0xfe]), backend: BackendConfig::Dgram(5) },
    ]
}

/// One option a line, as a person reads it.
fn shown(args: &[OsString]) -> String {
    let mut text = String::new();
    for word in args {
        let word = word.to_string_lossy();
        text.push(if word.starts_with('-') { '\n' } else { ' ' });
        text.push_str(&word);
    }
    text.trim().to_owned()
}

#[test]
fn a_guest_with_a_tap_and_a_socket() {
    let (boot, nics) = (kernel(), two_nics());
    assert_snapshot!(shown(&command_line(&QemuConfig { nics: &nics, ..config(&boot) })));
}

#[test]
fn each_machine() {
    let (boot, nics) = (kernel(), two_nics());
    for machine in ["pc", "q35", "microvm", "microvm,pcie=on"] {
        let args = command_line(&QemuConfig { machine, nics: &nics, ..config(&boot) });
        assert_snapshot!(format!("machine {machine}"), shown(&args));
    }
}

#[test]
fn each_nic_model() {
    let (boot, nics) = (kernel(), two_nics());
    let models =
        [NicModel::Virtio, NicModel::E1000, NicModel::E1000e, NicModel::Rtl8139, NicModel::Vmxnet3];
    let lines: Vec<_> = models
        .map(|nic| shown(&command_line(&QemuConfig { nic, nics: &nics, ..config(&boot) })))
        .iter()
        .flat_map(|text| text.lines().filter(|line| line.contains("mac=")).map(str::to_owned))
        .collect();
    assert_snapshot!(lines.join("\n"));
}

#[test]
fn acceleration_processors_and_memory() {
    let boot = kernel();
    let mut lines = Vec::new();
    for (accel, vcpus, memory_bytes) in [
        (Resolved::Tcg, 1, 128 << 20),
        (Resolved::Tcg, 4, 1 << 30),
        (Resolved::Kvm, 1, 100_000_000),
        (Resolved::Kvm, 2, 64 << 20),
    ] {
        let args = command_line(&QemuConfig { accel, vcpus, memory_bytes, ..config(&boot) });
        let text = shown(&args);
        let wanted = |line: &&str| {
            ["-accel", "-cpu", "-smp", "-m "].iter().any(|option| line.starts_with(option))
        };
        lines.push(text.lines().filter(wanted).collect::<Vec<_>>().join(" "));
    }
    assert_snapshot!(lines.join("\n"));
}

#[test]
fn disks_raw_and_qcow2_on_both_buses() {
    let mut lines = Vec::new();
    for (machine, format) in
        [("pc", DiskFormat::Raw), ("q35", DiskFormat::Qcow2), ("microvm", DiskFormat::Raw)]
    {
        let boot = disk(format, "/i/disk");
        let text = shown(&command_line(&QemuConfig { machine, ..config(&boot) }));
        assert!(!text.contains("-kernel") && !text.contains("-append"), "{text}");
        lines.extend(text.lines().filter(|line| line.contains("disk0")).map(str::to_owned));
    }
    assert_snapshot!(lines.join("\n"));
}

#[test]
fn a_kernel_with_a_disk_has_both() {
    let boot = Boot { disk: disk(DiskFormat::Raw, "/i/disk").disk, ..kernel() };
    let text = shown(&command_line(&config(&boot)));
    assert!(text.contains("-kernel /i/kernel") && text.contains("file=/i/disk"), "{text}");
}

#[test]
fn commas_are_doubled_where_qemu_splits_at_them() {
    let boot = disk(DiskFormat::Raw, "/a,b/disk,format=qcow2");
    let nics = [NicConfig { mac: MacAddr([0; 6]), backend: BackendConfig::Tap("t,x") }];
    let text = shown(&command_line(&QemuConfig { node: "a,b", nics: &nics, ..config(&boot) }));
    assert!(text.contains("guest=a,,b"), "{text}");
    assert!(text.contains("file=/a,,b/disk,,format=qcow2,format=raw"), "{text}");
    assert!(text.contains("ifname=t,,x,"), "{text}");
}

#[test]
fn paths_need_not_be_utf8() {
    use std::os::unix::ffi::{OsStrExt, OsStringExt};
    let path = PathBuf::from(OsString::from_vec(b"/\xff,".to_vec()));
    let boot = Boot {
        kernel: Some(path.clone()),
        initrd: None,
        disk: Some(Disk { path, format: DiskFormat::Raw }),
    };
    let args = command_line(&config(&boot));
    assert!(args.iter().any(|word| word.as_bytes() == b"/\xff,"));
    assert!(args.iter().any(|word| word.as_bytes().starts_with(b"file=/\xff,,,format=raw")));
}

#[test]
fn extra_arguments_come_last_and_untouched() {
    let boot = kernel();
    let extra = ["-d".to_owned(), "int,cpu_reset".to_owned()];
    let nics = two_nics();
    let args = command_line(&QemuConfig { extra_args: &extra, nics: &nics, ..config(&boot) });
    assert_eq!(args[args.len() - 2..], ["-d", "int,cpu_reset"].map(OsString::from));
}

#[test]
fn many_nics_share_slots_without_a_clash() {
    let boot = kernel();
    let backend = BackendConfig::Dgram(9);
    let nics = vec![NicConfig { mac: MacAddr([0; 6]), backend }; MAX_PCI_NICS];
    let text = shown(&command_line(&QemuConfig { nics: &nics, ..config(&boot) }));
    let places: std::collections::BTreeSet<_> =
        text.lines().filter_map(|line| line.split("addr=").nth(1)).collect();
    assert_eq!(places.len(), MAX_PCI_NICS);
    assert!(places.contains("0x3.0") && places.contains("0x1d.7"), "{places:?}");
}
