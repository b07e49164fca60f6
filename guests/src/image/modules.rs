//! Kernel modules of a guest: which, in dependency order, and the tables `modprobe` reads.
//!
//! Assumptions: modules describe themselves in their `.modinfo` section; they may be compressed
//! with xz, zstd or gzip. The guest's `modprobe` reads gzip.
//!
//! Reference: `modprobe(8)`, `modules.dep(5)`; Linux `include/linux/moduleparam.h`.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::fs;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use object::{Object, ObjectSection};
use tapestry_topologies::resolved::NicModel;

use super::kernel::KernelError;
use super::tree::{Tree, file};

/// Modules a guest gets where the kernel has them, with all they depend on. A name that ends in
/// `/` is a directory below `kernel/`, taken whole.
const WANTED: &[&str] = &[
    // Buses and disks. No IDE or SATA: their drivers cost every start more than all others together.
    "virtio_pci",
    "virtio_mmio",
    "virtio_blk",
    "virtio_rng",
    "pvpanic_mmio",
    "pvpanic_pci",
    "ext4",
    "overlay",
    // NICs.
    "virtio_net",
    "e1000",
    "e1000e",
    "8139cp",
    "8139too",
    "vmxnet3",
    // Devices made of software.
    "bonding",
    "bridge",
    "br_netfilter",
    "dummy",
    "geneve",
    "ifb",
    "ip6_gre",
    "ip6_tunnel",
    "ip_gre",
    "ipip",
    "ipvlan",
    "macvlan",
    "macvtap",
    "nlmon",
    "sit",
    "team",
    "team_mode_activebackup",
    "team_mode_broadcast",
    "team_mode_loadbalance",
    "team_mode_roundrobin",
    "tun",
    "veth",
    "vrf",
    "vxlan",
    "wireguard",
    "8021q",
    // Traffic control.
    "net/sched/",
    // Congestion control and transports.
    "tcp_bbr",
    "tcp_bic",
    "tcp_cdg",
    "tcp_dctcp",
    "tcp_highspeed",
    "tcp_htcp",
    "tcp_hybla",
    "tcp_illinois",
    "tcp_lp",
    "tcp_nv",
    "tcp_scalable",
    "tcp_vegas",
    "tcp_veno",
    "tcp_westwood",
    "tcp_yeah",
    "sctp",
    "mpls_iptunnel",
    "mpls_router",
    "mpls_gso",
    // Sockets that show sockets (`ss`).
    "inet_diag",
    "tcp_diag",
    "udp_diag",
    "unix_diag",
    "netlink_diag",
    "af_packet_diag",
    "raw_diag",
    // Packet filters.
    "nf_tables",
    "nft_chain_nat",
    "nft_ct",
    "nft_limit",
    "nft_log",
    "nft_masq",
    "nft_nat",
    "nft_redir",
    "nft_reject_inet",
    "nft_compat",
    "nft_numgen",
    "nft_hash",
    "nft_quota",
    "nf_conntrack_netlink",
    "ip_tables",
    "ip6_tables",
    "iptable_filter",
    "iptable_nat",
    "iptable_mangle",
    "ip6table_filter",
    "ip6table_nat",
    "ip6table_mangle",
    "ipt_REJECT",
    "ip6t_REJECT",
    "xt_LOG",
    "xt_MASQUERADE",
    "xt_NETMAP",
    "xt_REDIRECT",
    "xt_TCPMSS",
    "xt_addrtype",
    "xt_comment",
    "xt_conntrack",
    "xt_dscp",
    "xt_DSCP",
    "xt_length",
    "xt_limit",
    "xt_mac",
    "xt_mark",
    "xt_multiport",
    "xt_nat",
    "xt_physdev",
    "xt_pkttype",
    "xt_state",
    "xt_statistic",
    "xt_tcpmss",
    "xt_tcpudp",
    "ebtables",
    "ebtable_filter",
];

/// Models and the module that drives each.
const NIC_DRIVERS: &[(NicModel, &str)] = &[
    (NicModel::Virtio, "virtio_net"),
    (NicModel::E1000, "e1000"),
    (NicModel::E1000e, "e1000e"),
    (NicModel::Rtl8139, "8139cp"),
    (NicModel::Vmxnet3, "vmxnet3"),
];

/// Modules that most guests load while they start.
const AT_START: &[&str] = &[
    "failover",
    "net_failover",
    "pvpanic",
    "pvpanic_mmio",
    "virtio",
    "virtio_mmio",
    "virtio_net",
    "virtio_pci",
    "virtio_pci_legacy_dev",
    "virtio_pci_modern_dev",
    "virtio_ring",
];

/// Whether a module is stored compressed, as those are that few guests load: a guest's files live
/// in its memory, and all modules together would take 8 MB more of it.
fn is_packed(name: &str) -> bool {
    !AT_START.contains(&name)
}

/// Where the guest has the module that the package has at `path`.
fn place(name: &str, path: &str) -> String {
    format!("{}{}", uncompressed_name(path), if is_packed(name) { ".gz" } else { "" })
}

fn pack(content: &[u8]) -> Vec<u8> {
    let mut packed = flate2::read::GzEncoder::new(content, flate2::Compression::best());
    let mut bytes = Vec::new();
    packed.read_to_end(&mut bytes).expect("memory reads without errors");
    bytes
}

/// What a module says about itself.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
struct Info {
    depends: Vec<String>,
    aliases: Vec<String>,
}

/// The modules a guest gets.
#[derive(Debug)]
pub(super) struct Modules {
    /// Modules and tables, at `usr/lib/modules/RELEASE/…`.
    pub(super) tree: Tree,
    /// NIC models there are drivers for.
    pub(super) nics: Vec<NicModel>,
}

/// Picks the modules from `root/RELEASE`, a package's `lib/modules/RELEASE`.
pub(super) fn pick(root: &Path, release: &str) -> Result<Modules, KernelError> {
    let found = index(root)?;
    let builtin = builtin(root)?;
    let mut picked: BTreeMap<String, (Vec<u8>, Info)> = BTreeMap::new();
    let mut open: Vec<String> = wanted(&found);
    while let Some(name) = open.pop() {
        if picked.contains_key(&name) || builtin.contains(&name) {
            continue;
        }
        let Some(relative) = found.get(&name) else { continue };
        let path = root.join(relative);
        let content = read(&path).map_err(|source| KernelError::Module { path, source })?;
        let info = info(&content);
        open.extend(info.depends.iter().cloned());
        picked.insert(name, (content, info));
    }
    let nics = NIC_DRIVERS
        .iter()
        .filter(|(_, driver)| picked.contains_key(*driver) || builtin.contains(*driver))
        .map(|(model, _)| *model)
        .collect();

    let directory = format!("usr/lib/modules/{release}");
    let (mut dependencies, mut aliases) = (String::new(), String::new());
    let mut tree = Tree::new();
    for (name, (content, info)) in &picked {
        let place = place(name, &found[name]);
        let _ = write!(dependencies, "{place}:");
        for needed in all_dependencies(name, &picked) {
            let _ = write!(dependencies, " {}", self::place(&needed, &found[&needed]));
        }
        dependencies.push('\n');
        for alias in &info.aliases {
            let _ = writeln!(aliases, "alias {alias} {name}");
        }
        let stored = if is_packed(name) { pack(content) } else { content.clone() };
        tree.insert(format!("{directory}/{place}"), file(0o644, stored));
    }
    tree.insert(format!("{directory}/modules.dep"), file(0o644, dependencies));
    tree.insert(format!("{directory}/modules.alias"), file(0o644, aliases));
    let list = fs::read(root.join("modules.builtin")).unwrap_or_default();
    tree.insert(format!("{directory}/modules.builtin"), file(0o644, list));
    Ok(Modules { tree, nics })
}

/// Names of the modules wanted of those there are.
fn wanted(found: &BTreeMap<String, String>) -> Vec<String> {
    let wants = |name: &str, path: &str| {
        WANTED.iter().any(|wanted| match wanted.strip_suffix('/') {
            Some(directory) => {
                path.strip_prefix("kernel/").is_some_and(|path| path.starts_with(directory))
            }
            None => *wanted == name,
        })
    };
    found.iter().filter(|(name, path)| wants(name, path)).map(|(name, _)| name.clone()).collect()
}

/// Dependencies of dependencies too, nearest first, as `depmod` writes them.
fn all_dependencies(name: &str, picked: &BTreeMap<String, (Vec<u8>, Info)>) -> Vec<String> {
    let mut ordered: Vec<String> = Vec::new();
    let mut open = vec![name];
    let mut next = 0;
    while next < open.len() {
        let Some((_, info)) = picked.get(open[next]) else {
            next += 1;
            continue;
        };
        for needed in info.depends.iter().filter(|needed| picked.contains_key(*needed)) {
            // A module needed again must be loaded before: it moves to the end.
            ordered.retain(|name| name != needed);
            ordered.push(needed.clone());
            if !open.contains(&needed.as_str()) {
                open.push(needed);
            }
        }
        next += 1;
    }
    ordered
}

/// All modules: name → path relative to `root`.
fn index(root: &Path) -> Result<BTreeMap<String, String>, KernelError> {
    let mut found = BTreeMap::new();
    let mut open = vec![PathBuf::from("kernel")];
    while let Some(relative) = open.pop() {
        let directory = root.join(&relative);
        let module = |source| KernelError::Module { path: directory.clone(), source };
        for entry in fs::read_dir(&directory).map_err(module)? {
            let entry = entry.map_err(module)?;
            let relative = relative.join(entry.file_name());
            if entry.file_type().map_err(module)?.is_dir() {
                open.push(relative);
            } else if let Some(relative) = relative.to_str()
                && let Some(stem) = module_stem(relative)
            {
                found.insert(canonical(stem), relative.to_owned());
            }
        }
    }
    Ok(found)
}

fn builtin(root: &Path) -> Result<BTreeSet<String>, KernelError> {
    let path = root.join("modules.builtin");
    let text = fs::read_to_string(&path).map_err(|source| KernelError::Module { path, source })?;
    Ok(text.lines().filter_map(module_stem).map(canonical).collect())
}

/// `kernel/net/8021q/8021q.ko.xz` → `8021q`.
fn module_stem(path: &str) -> Option<&str> {
    uncompressed_name(path).strip_suffix(".ko")?.rsplit('/').next()
}

fn uncompressed_name(path: &str) -> &str {
    [".xz", ".zst", ".gz"].iter().find_map(|suffix| path.strip_suffix(suffix)).unwrap_or(path)
}

/// The kernel takes `-` and `_` in module names for the same.
fn canonical(name: &str) -> String {
    name.replace('-', "_")
}

fn read(path: &Path) -> io::Result<Vec<u8>> {
    let content = fs::read(path)?;
    let mut plain = Vec::new();
    match path.extension().and_then(|extension| extension.to_str()) {
        Some("xz") => {
            lzma_rust2::XzReader::new(content.as_slice(), true).read_to_end(&mut plain)?;
        }
        Some("zst") => {
            ruzstd::decoding::StreamingDecoder::new(content.as_slice())
                .map_err(io::Error::other)?
                .read_to_end(&mut plain)?;
        }
        Some("gz") => {
            flate2::read::GzDecoder::new(content.as_slice()).read_to_end(&mut plain)?;
        }
        _ => return Ok(content),
    }
    Ok(plain)
}

/// Reads `depends=` and `alias=` of a module; empty for a file without `.modinfo`.
fn info(module: &[u8]) -> Info {
    let Ok(elf) = object::File::parse(module) else { return Info::default() };
    let Some(section) = elf.section_by_name(".modinfo") else { return Info::default() };
    let mut info = Info::default();
    for field in section.data().unwrap_or_default().split(|byte| *byte == 0) {
        let field = String::from_utf8_lossy(field);
        match field.split_once('=') {
            Some(("depends", names)) => {
                info.depends = names.split(',').filter(|n| !n.is_empty()).map(canonical).collect();
            }
            Some(("alias", alias)) => info.aliases.push(alias.to_owned()),
            _ => {}
        }
    }
    info
}

#[cfg(test)]
mod tests {
    use super::*;

    fn module(depends: &[&str]) -> (Vec<u8>, Info) {
        let depends = depends.iter().map(|name| (*name).to_owned()).collect();
        (Vec::new(), Info { depends, aliases: Vec::new() })
    }

    #[test]
    fn dependencies_are_listed_so_that_loading_backwards_works() {
        let picked = BTreeMap::from([
            ("net".to_owned(), module(&["failover", "virtio"])),
            ("failover".to_owned(), module(&["core"])),
            ("virtio".to_owned(), module(&["ring"])),
            ("ring".to_owned(), module(&[])),
            ("core".to_owned(), module(&["ring"])),
        ]);
        let order = all_dependencies("net", &picked);
        let place = |name: &str| order.iter().position(|n| n == name).expect("is listed");
        assert_eq!(order.len(), 4);
        assert!(place("core") > place("failover"));
        assert!(place("ring") > place("core") && place("ring") > place("virtio"));
    }

    #[test]
    fn a_cycle_of_dependencies_ends() {
        let picked =
            BTreeMap::from([("a".to_owned(), module(&["b"])), ("b".to_owned(), module(&["a"]))]);
        assert_eq!(all_dependencies("a", &picked), ["b", "a"]);
    }

    #[test]
    fn names_lose_directory_compression_and_hyphens() {
        assert_eq!(module_stem("kernel/a/b-c.ko.xz").map(canonical).as_deref(), Some("b_c"));
        assert_eq!(module_stem("kernel/a/notes.txt"), None);
        assert_eq!(uncompressed_name("x.ko.zst"), "x.ko");
    }

    #[test]
    fn a_file_that_is_no_module_has_no_info() {
        assert_eq!(info(b"not ELF"), Info::default());
    }
}
