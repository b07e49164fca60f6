//! The settings of a QEMU virtual machine and their defaults.

use tapestry_core::{ByteCount, SimTime};

use crate::keys;
use crate::read::{Fields, Reader, one_or_many};
use crate::resolved::{Accel, Attach, NicModel, Qemu};
use crate::shape::{Scalar, Shape};

/// Reads a virtual machine's keys from a node and its types.
pub(super) fn qemu(reader: &mut Reader<'_>, fields: &Fields<'_>) -> Qemu {
    let mut text = |key: &str, default: &str| {
        fields.find(key).and_then(|yaml| reader.text(yaml)).unwrap_or_else(|| default.to_owned())
    };
    let (image, machine, os) = (text("image", "debian"), text("machine", "pc"), text("os", ""));
    let kernel_args = text("kernel_args", "");
    let mut word = |key: &str| {
        let Shape::Scalar(scalar) = keys::NODE.key(key)?.shape else { return None };
        reader.checked(fields.find(key)?, scalar, key)
    };
    let accel = match word("accel").as_deref() {
        Some("kvm") => Accel::Kvm,
        Some("tcg") => Accel::Tcg,
        _ => Accel::Auto,
    };
    let nic = match word("nic").as_deref() {
        Some("e1000") => NicModel::E1000,
        Some("e1000e") => NicModel::E1000e,
        Some("rtl8139") => NicModel::Rtl8139,
        Some("vmxnet3") => NicModel::Vmxnet3,
        _ => NicModel::Virtio,
    };
    let attach = match word("attach").as_deref() {
        Some("socket") => Attach::Socket,
        Some("tap-bridge") => Attach::TapBridge,
        _ => Attach::Auto,
    };
    Qemu {
        image,
        memory: fields
            .find("memory")
            .and_then(|yaml| reader.parsed(yaml, Scalar::Bytes, "memory"))
            .unwrap_or(ByteCount::from_mebibytes(256)),
        vcpus: fields
            .find("vcpus")
            .and_then(|yaml| reader.parsed(yaml, Scalar::Integer { min: 1, max: 255 }, "vcpus"))
            .unwrap_or(1),
        accel,
        machine,
        nic,
        attach,
        kernel_args,
        extra_args: fields.find("extra_args").map_or_else(Vec::new, |yaml| {
            one_or_many(yaml).iter().filter_map(|item| reader.text(item)).collect()
        }),
        os,
        boot_timeout: fields
            .find("boot_timeout")
            .and_then(|yaml| crate::resolve::limit(reader, yaml, "boot_timeout"))
            .unwrap_or(SimTime::from_secs(120)),
    }
}
