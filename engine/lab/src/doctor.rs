//! What this machine can do for a lab, each lack with the command that mends it.

use std::path::Path;

use serde::Serialize;
use tapestry_guests::{accel, image, qemu};

use crate::host::HostFacts;
use crate::sandbox;

/// How good a finding is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Health {
    /// As it should be.
    Good,
    /// Labs run, but slower or with fewer possibilities.
    Lacking,
    /// Labs of virtual machines cannot run.
    Bad,
}

/// One finding.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// What was looked at.
    pub subject: &'static str,
    /// How good it is.
    pub health: Health,
    /// What was found, one sentence.
    pub text: String,
    /// The command that mends a lack.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mend: Option<String>,
}

impl Finding {
    fn new(subject: &'static str, health: Health, text: impl Into<String>) -> Self {
        Self { subject, health, text: text.into(), mend: None }
    }

    fn mend(self, command: impl Into<String>) -> Self {
        Self { mend: Some(command.into()), ..self }
    }
}

/// Looks at everything. Must be called while the process has one thread.
pub fn examine() -> Vec<Finding> {
    vec![host(), namespaces(), tap(), qemu_program(), kvm(), guest_image()]
}

fn host() -> Finding {
    let facts = HostFacts::read();
    let gib = facts.memory_bytes as f64 / f64::from(1 << 30);
    let text = format!(
        "Linux {}, {} CPU{} ({}), {gib:.1} GiB memory",
        facts.kernel,
        facts.cpus,
        if facts.cpus == 1 { "" } else { "s" },
        facts.cpu_model
    );
    if facts.cpus < 2 {
        let text = format!("{text}; with one CPU, guests and emulator wait for each other");
        return Finding::new("machine", Health::Lacking, text);
    }
    Finding::new("machine", Health::Good, text)
}

fn namespaces() -> Finding {
    let root = nix::unistd::geteuid().is_root();
    match sandbox::probe() {
        Ok(()) if root => Finding::new("namespaces", Health::Good, "can be made (as root)"),
        Ok(()) => Finding::new(
            "namespaces",
            Health::Good,
            "can be made (in a user namespace, not as root)",
        ),
        Err(why) => Finding::new("namespaces", Health::Bad, why).mend(if root {
            "run outside of the container, or give it CAP_SYS_ADMIN"
        } else {
            "sudo sysctl -w kernel.unprivileged_userns_clone=1 user.max_user_namespaces=10000"
        }),
    }
}

fn tap() -> Finding {
    let device = Path::new("/dev/net/tun");
    match std::fs::File::options().read(true).write(true).open(device) {
        Ok(_) => Finding::new("TAP", Health::Good, "/dev/net/tun opens"),
        Err(error) => {
            let text = format!(
                "/dev/net/tun does not open ({error}): `attach: socket` works, `attach: tap-bridge` \
                 and namespace nodes do not"
            );
            let mend = match error.kind() {
                std::io::ErrorKind::PermissionDenied => "sudo chmod 0666 /dev/net/tun",
                _ => "sudo modprobe tun",
            };
            Finding::new("TAP", Health::Lacking, text).mend(mend)
        }
    }
}

fn qemu_program() -> Finding {
    let program = qemu::program();
    match qemu::version(&program) {
        Ok(version) if version < qemu::OLDEST => Finding::new(
            "QEMU",
            Health::Bad,
            format!("{} is version {version}, older than {}", program.display(), qemu::OLDEST),
        )
        .mend("sudo apt-get install qemu-system-x86"),
        Ok(version) => {
            Finding::new("QEMU", Health::Good, format!("{} {version}", program.display()))
        }
        Err(error) => Finding::new("QEMU", Health::Bad, error.to_string())
            .mend("sudo apt-get install qemu-system-x86"),
    }
}

fn kvm() -> Finding {
    let Ok(cache) = image::cache_dir() else {
        return Finding::new("KVM", Health::Lacking, "unknown: there is no cache directory");
    };
    let kvm = accel::probe(&cache);
    match kvm.state {
        accel::KvmState::Usable | accel::KvmState::Untried => {
            Finding::new("KVM", Health::Good, kvm.why)
        }
        accel::KvmState::Unusable => Finding::new(
            "KVM",
            Health::Lacking,
            format!("{}. Guests run under TCG, several times slower", kvm.why),
        ),
    }
}

fn guest_image() -> Finding {
    let found = image::cache_dir().and_then(|cache| image::find(&cache, image::DEFAULT_NAME));
    match found {
        Ok(image) => {
            let text = format!(
                "{} (built {}, {} package{})",
                image.name,
                image.built,
                image.packages.len(),
                if image.packages.len() == 1 { "" } else { "s" }
            );
            Finding::new("image", Health::Good, text)
        }
        Err(error) => {
            Finding::new("image", Health::Bad, error.to_string()).mend("tapestry image build")
        }
    }
}
