//! What root in a namespace node may not do, because it would act on the whole host.
//!
//! A node's root is the lab's root, so that network daemons work in it as they do on the host; the
//! capabilities by which it would change the kernel, the clock or the hardware that all share are
//! dropped from every set, the bounding set included, so that no program gets them back.
//!
//! `CAP_SYS_ADMIN` stays, because routing daemons insist on it (FRR) and nodes mount things and make
//! namespaces. A node is hence safe from mistakes, no prison for software that wants out.
//!
//! Reference: `capabilities(7)`.
#![allow(unsafe_code)]

use std::io;

use caps::errors::CapsError;
use caps::{CapSet, Capability};
use tokio::process::Command;

/// Capabilities over what namespaces do not divide.
const OF_THE_HOST: [Capability; 13] = [
    Capability::CAP_SYS_MODULE,
    Capability::CAP_SYS_RAWIO,
    Capability::CAP_SYS_TIME,
    Capability::CAP_SYSLOG,
    Capability::CAP_WAKE_ALARM,
    Capability::CAP_BLOCK_SUSPEND,
    Capability::CAP_MAC_ADMIN,
    Capability::CAP_MAC_OVERRIDE,
    Capability::CAP_AUDIT_CONTROL,
    Capability::CAP_AUDIT_READ,
    Capability::CAP_LINUX_IMMUTABLE,
    Capability::CAP_PERFMON,
    // Devices are not divided either: a node could make the host's disk.
    Capability::CAP_MKNOD,
];

/// Takes them from the calling thread and all that it will start.
pub(super) fn drop_those_of_the_host() -> Result<(), CapsError> {
    bound()?;
    for set in [CapSet::Inheritable, CapSet::Effective, CapSet::Permitted] {
        let mut left = caps::read(None, set)?;
        for capability in OF_THE_HOST {
            left.remove(&capability);
        }
        caps::set(None, set, &left)?;
    }
    Ok(())
}

/// Takes them from what will be executed. Allocates nothing.
fn bound() -> Result<(), CapsError> {
    for capability in OF_THE_HOST {
        // The kernel refuses to tell of one that it does not know.
        if caps::has_cap(None, CapSet::Bounding, capability).unwrap_or(false) {
            caps::drop(None, CapSet::Bounding, capability)?;
        }
    }
    Ok(())
}

/// Has a program that will enter a node have no more rights there than the node's own.
pub fn confine(command: &mut Command) -> &mut Command {
    // SAFETY: `bound` makes system calls and nothing else.
    unsafe {
        command.pre_exec(|| bound().map_err(|_| io::Error::from(io::ErrorKind::PermissionDenied)))
    }
}
