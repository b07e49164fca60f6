//! Building an image: packages in, kernel and initial RAM disk out.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::apt::{Apt, AptError, Package};
use super::kernel::{self, KernelError};
use super::store::{self, StoreError, failed};
use super::tree::{self, Entry, Kind, Tree, UnpackError, directory, file, symlink};
use super::users::Accounts;
use super::{Boot, Image, READY_LINE, archive, modules};

/// What to build.
pub struct BuildOptions<'a> {
    /// Name of the image; one of the same name is replaced.
    pub name: String,
    /// Packages beyond the base set.
    pub packages: Vec<String>,
    /// The kernel.
    pub flavour: Flavour,
    /// Look for newer package versions even when an image like this is there.
    pub refresh: bool,
    /// The cache; see [`super::cache_dir`].
    pub cache_dir: PathBuf,
    /// Told what goes on.
    pub progress: &'a dyn Fn(Progress),
}

/// Debian's kernels for amd64.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Flavour {
    /// For virtual machines: small; of the NICs it drives virtio and vmxnet3 only.
    #[default]
    Cloud,
    /// For all machines: drives every NIC model, boots a little slower.
    Generic,
}

impl Flavour {
    fn package(self) -> &'static str {
        match self {
            Self::Cloud => "linux-image-cloud-amd64",
            Self::Generic => "linux-image-amd64",
        }
    }
}

/// A step of a build, for people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Progress {
    /// An image like this is there; nothing to do.
    Cached,
    /// Asking apt what is needed.
    Resolving,
    /// Downloading what is not there yet.
    Fetching {
        /// Packages in all.
        packages: usize,
        /// Their size together, those that are there already included.
        bytes: u64,
    },
    /// Putting the file tree together.
    Unpacking,
    /// Writing kernel and initial RAM disk.
    Writing,
}

impl std::fmt::Display for Progress {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Cached => f.write_str("the image is there and fits"),
            Self::Resolving => f.write_str("finding out which packages are needed"),
            Self::Fetching { packages, bytes } => {
                let plural = if *packages == 1 { "" } else { "s" };
                write!(f, "fetching {packages} package{plural} ({} MB)", bytes.div_ceil(1_000_000))
            }
            Self::Unpacking => f.write_str("unpacking"),
            Self::Writing => f.write_str("writing kernel and initial RAM disk"),
        }
    }
}

/// Why an image could not be built.
#[derive(Debug, thiserror::Error)]
pub enum ImageError {
    /// Packages could not be had.
    #[error(transparent)]
    Apt(#[from] AptError),
    /// A package could not be read.
    #[error(transparent)]
    Unpack(#[from] UnpackError),
    /// The kernel package is unusable.
    #[error(transparent)]
    Kernel(#[from] KernelError),
    /// The cache refused.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The base set lacks a program the guest cannot do without.
    #[error("package `{package}` does not work on this machine: {reason}")]
    Base {
        /// The package.
        package: &'static str,
        /// What happened.
        reason: String,
    },
}

impl ImageError {
    /// Whether what was asked for is at fault, not the machine.
    pub fn is_usage(&self) -> bool {
        matches!(
            self,
            Self::Store(StoreError::Name { .. })
                | Self::Apt(AptError::Unknown { .. } | AptError::Name { .. })
        )
    }
}

/// Changes whenever the same packages would make a different image.
const RECIPE: &str = "7";

/// What every guest has. `netbase` names protocols and services.
const BASE: &[&str] = &[
    "busybox-static",
    "dash",
    "iperf",
    "iperf3",
    "iproute2",
    "iputils-ping",
    "netbase",
    "tcpdump",
];

/// The package of the shell for people, `ash`, which has line editing; `sh` is `dash`, as everywhere
/// in Debian, for it starts fastest.
///
/// The static busybox does the start-up and the small commands. But its shell takes its own `ip`,
/// `tc` and `ping` before the real ones; the shell of this one does not. The two packages exclude
/// each other, so this one is asked for apart and only its program is taken.
const SHELL: &str = "busybox";

const INIT: &str = include_str!("init.sh");

/// Kernel command line of built images.
///
/// `cryptomgr.notests` spares self-tests of ciphers, half of what the kernel computes while it
/// starts. Without HPET there is less to calibrate, and `tsc=reliable` keeps the clock on the TSC:
/// the watchdog takes a busy host for a broken TSC and falls back to a timer behind slow port I/O.
/// Guests hold nothing worth a mitigation.
const KERNEL_ARGS: &str = "console=ttyS0 quiet panic=-1 net.ifnames=0 cryptomgr.notests \
                           nohpet no_timer_check tsc=reliable mitigations=off";

/// Makes an image, or returns the one there is when it was made from the same request.
///
/// Needs the network only for packages that are not in the cache yet. Waits while another process
/// builds in the same cache. On any error, and after a crash, the cache holds what it held before.
pub fn build(options: &BuildOptions<'_>) -> Result<Image, ImageError> {
    store::check_name(&options.name)?;
    let cache = options.cache_dir.as_path();
    let _lock = store::lock(cache)?;
    let progress = options.progress;
    let mut extra = options.packages.clone();
    extra.sort_unstable();
    extra.dedup();

    let request = hash(&[
        RECIPE,
        INIT,
        KERNEL_ARGS,
        options.flavour.package(),
        &BASE.join(" "),
        SHELL,
        &extra.join(" "),
    ]);
    // One of before the sizes of files were noted may be cut.
    let present = store::find(cache, &options.name)
        .ok()
        .filter(|image| image.request == request && !image.file_bytes.is_empty());
    if let Some(image) = &present
        && !options.refresh
    {
        progress(Progress::Cached);
        return Ok(image.clone());
    }

    progress(Progress::Resolving);
    let mut apt = Apt::new(cache)?;
    let names: Vec<_> = BASE.iter().map(|name| (*name).to_owned()).chain(extra.clone()).collect();
    let (selection, mut debs) = loop {
        let selection = Selection::make(&mut apt, &names, options.flavour)?;
        let content = selection.hash(&request);
        if let Some(image) = present.as_ref().filter(|image| image.hash == content) {
            progress(Progress::Cached);
            return Ok(image.clone());
        }
        let wanted: Vec<_> = selection.all().collect();
        let bytes = wanted.iter().map(|package| package.size_bytes).sum();
        progress(Progress::Fetching { packages: wanted.len(), bytes });
        match apt.fetch(&wanted) {
            Ok(debs) => break (selection, debs),
            Err(error) => {
                if !apt.renew()? {
                    return Err(error.into());
                }
            }
        }
    };
    let content = selection.hash(&request);
    let Selection { packages, shell: _, linux, versions } = selection;
    let linux_deb = debs.pop().expect("as many files as packages");
    let shell_deb = debs.pop().expect("as many files as packages");

    progress(Progress::Unpacking);
    let scratch = store::scratch(cache)?;
    let shell = program(&shell_deb)?;
    let mut tree = user_land(&packages, &debs, &names, shell, scratch.path())?;
    let kernel = Kernel::unpack(&linux, &linux_deb, scratch.path())?;
    tree.extend(kernel.modules.tree);

    progress(Progress::Writing);
    let output = scratch.path().join("image");
    fs::create_dir(&output).map_err(failed("make", &output))?;
    write(&output.join("kernel"), |file| file.write_all(&kernel.image))?;
    write(&output.join("initrd"), |file| {
        let mut plain = Vec::new();
        archive::write(&tree, &mut plain)?;
        archive::compress(&plain, file)
    })?;
    let place = store::keep(cache, &output, &content)?;
    let mut image = Image {
        name: options.name.clone(),
        boot: Boot {
            kernel: Some(place.join("kernel")),
            initrd: Some(place.join("initrd")),
            disk: None,
        },
        kernel_args: KERNEL_ARGS.into(),
        os: "tapestry".into(),
        ready_line: Some(READY_LINE.into()),
        nics: Some(kernel.modules.nics),
        packages: versions,
        extra_packages: extra,
        built: store::now(),
        hash: content,
        file_bytes: Vec::new(),
        request,
    };
    store::publish(cache, &mut image)?;
    Ok(image)
}

/// The packages of an image, all of one version.
struct Selection {
    packages: Vec<Package>,
    shell: Package,
    linux: Package,
    versions: BTreeMap<String, String>,
}

impl Selection {
    fn make(apt: &mut Apt, names: &[String], flavour: Flavour) -> Result<Self, AptError> {
        let packages = apt.closure(names)?;
        let linux = apt.kernel(flavour.package())?;
        let mut shell = apt.closure(&[SHELL.to_owned()])?;
        shell.retain(|package| package.name == SHELL);
        let shell = shell.pop().ok_or(AptError::Unknown { name: SHELL.into() })?;
        let mut selection = Self { packages, shell, linux, versions: BTreeMap::new() };
        selection.versions = selection
            .all()
            .map(|package| (package.name.clone(), package.version.clone()))
            .collect();
        Ok(selection)
    }

    /// All packages; the last two are the shell's and the kernel's.
    fn all(&self) -> impl Iterator<Item = &Package> {
        self.packages.iter().chain([&self.shell, &self.linux])
    }

    /// Tells images made from these packages for this request from all others.
    fn hash(&self, request: &str) -> String {
        let versions = self.versions.iter().flat_map(|(name, version)| [name, version]);
        hash(&[request].into_iter().chain(versions.map(String::as_str)).collect::<Vec<_>>())
    }
}

fn hash(parts: &[&str]) -> String {
    let mut joined = Vec::new();
    for part in parts {
        // The length keeps apart what a separator could not.
        joined.extend_from_slice(&part.len().to_le_bytes());
        joined.extend_from_slice(part.as_bytes());
    }
    store::digest(joined.as_slice()).expect("memory reads without errors")
}

fn write(
    path: &Path,
    content: impl FnOnce(&mut io::BufWriter<fs::File>) -> io::Result<()>,
) -> Result<(), StoreError> {
    let write = || {
        let mut to = io::BufWriter::new(fs::File::create(path)?);
        content(&mut to)?;
        to.flush()
    };
    write().map_err(failed("write", path))
}

/// Programs, their libraries and the files of the base system.
fn user_land(
    packages: &[Package],
    debs: &[PathBuf],
    asked_for: &[String],
    shell: Entry,
    scratch: &Path,
) -> Result<Tree, ImageError> {
    let (mut tree, mut libraries) = (Tree::new(), Tree::new());
    let mut accounts = Accounts::default();
    for (package, deb) in packages.iter().zip(debs) {
        let files = tree::unpack(deb)?;
        accounts.add_package(deb);
        if package.is_library() && !asked_for.contains(&package.name) {
            let (always, when_needed) = tree::split_libraries(files);
            tree.extend(always);
            libraries.extend(when_needed);
        } else {
            tree.extend(files);
        }
    }
    tree.insert("usr/bin/ash".into(), shell);
    tree.insert("usr/bin/sh".into(), symlink("dash"));
    let missing = tree::add_needed(&mut tree, &libraries);
    if !missing.is_empty() {
        // Plug-ins need them that nobody here uses; a program that cannot start says so itself.
        tracing::debug!(?missing, "libraries that no package has");
    }
    // The C library opens the first by name when a thread is cancelled; programs name the second
    // by its path (`PT_INTERP`), a link to the file that libraries need by name.
    for (path, entry) in &libraries {
        if path.ends_with("/libgcc_s.so.1") || path == "usr/lib64/ld-linux-x86-64.so.2" {
            tree.insert(path.clone(), entry.clone());
        }
    }
    add_applets(&mut tree, scratch)?;
    add_base_files(&mut tree, &mut accounts);
    Ok(tree)
}

const BUSYBOX: &str = "usr/bin/busybox";

/// The shell's program, from its package.
fn program(deb: &Path) -> Result<Entry, ImageError> {
    tree::unpack(deb)?
        .remove(BUSYBOX)
        .ok_or_else(|| ImageError::Base { package: SHELL, reason: format!("it has no /{BUSYBOX}") })
}

/// Links for busybox's commands, where no package brings a command of the same name.
fn add_applets(tree: &mut Tree, scratch: &Path) -> Result<(), ImageError> {
    let broken = |reason: String| ImageError::Base { package: "busybox-static", reason };
    let Some(Entry { kind: Kind::File(program), .. }) = tree.get(BUSYBOX) else {
        return Err(broken(format!("it has no /{BUSYBOX}")));
    };
    let copy = scratch.join("busybox");
    fs::write(&copy, program).map_err(failed("write", &copy))?;
    fs::set_permissions(&copy, fs::Permissions::from_mode(0o700))
        .map_err(failed("write", &copy))?;
    let output = Command::new(&copy).arg("--list-full").stdin(Stdio::null()).output();
    let output = output.map_err(|error| broken(error.to_string()))?;
    for path in String::from_utf8_lossy(&output.stdout).lines() {
        let path = if path.starts_with("usr/") { path.into() } else { format!("usr/{path}") };
        let name = path.rsplit('/').next().unwrap_or_default();
        let taken = ["usr/bin", "usr/sbin"]
            .iter()
            .any(|directory| tree.contains_key(&format!("{directory}/{name}")));
        if !taken && ["usr/bin/", "usr/sbin/"].iter().any(|start| path.starts_with(start)) {
            tree.insert(path, symlink("/usr/bin/busybox"));
        }
    }
    if tree.contains_key("usr/sbin/modprobe") {
        Ok(())
    } else {
        Err(broken("it lacks `modprobe`".into()))
    }
}

fn add_base_files(tree: &mut Tree, accounts: &mut Accounts) {
    let sysusers: Vec<_> =
        tree.iter().filter(|(path, _)| path.starts_with("usr/lib/sysusers.d/")).collect();
    for (_, entry) in sysusers {
        if let Kind::File(content) = &entry.kind {
            accounts.read_sysusers(&String::from_utf8_lossy(content));
        }
    }
    let (passwd, group) = accounts.files();
    for merged in ["bin", "sbin", "lib", "lib64"] {
        tree.insert(merged.into(), symlink(&format!("usr/{merged}")));
        tree.entry(format!("usr/{merged}")).or_insert_with(|| directory(0o755));
    }
    for (path, mode) in [
        ("dev", 0o755),
        ("proc", 0o555),
        ("root", 0o700),
        ("run", 0o755),
        ("sys", 0o555),
        ("tmp", 0o1777),
        ("var/lib", 0o755),
        ("var/log", 0o755),
        ("var/tmp", 0o1777),
    ] {
        tree.insert(path.into(), directory(mode));
    }
    tree.insert("var/run".into(), symlink("/run"));
    tree.insert("dev/console".into(), Entry { mode: 0o600, kind: Kind::Device(5, 1) });
    tree.insert("dev/null".into(), Entry { mode: 0o666, kind: Kind::Device(1, 3) });
    tree.insert("init".into(), file(0o755, INIT));
    tree.insert("etc/passwd".into(), file(0o644, passwd));
    tree.insert("etc/group".into(), file(0o644, group));
    tree.insert("etc/mtab".into(), symlink("/proc/self/mounts"));
    let hosts = "127.0.0.1 localhost\n::1 localhost ip6-localhost\n";
    tree.insert("etc/hosts".into(), file(0o644, hosts));
    let switch =
        "passwd: files\ngroup: files\nhosts: files dns\nprotocols: files\nservices: files\n";
    tree.insert("etc/nsswitch.conf".into(), file(0o644, switch));
    let profile = "export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin\n";
    tree.insert("etc/profile".into(), file(0o644, profile));
}

/// Kernel and modules.
struct Kernel {
    image: Vec<u8>,
    modules: modules::Modules,
}

impl Kernel {
    /// Unpacks the package on disk: the generic kernel has 400 MB of modules, few of them wanted.
    fn unpack(package: &Package, deb: &Path, scratch: &Path) -> Result<Self, ImageError> {
        let root = scratch.join("linux");
        tree::extract(deb, &root)?;
        let lacks = |what| KernelError::Lacks { package: package.name.clone(), what };
        let release =
            package.name.strip_prefix("linux-image-").ok_or_else(|| lacks("release name"))?;
        let path = root.join(format!("boot/vmlinuz-{release}"));
        let image = fs::read(&path).map_err(|_| lacks("boot/vmlinuz"))?;
        let modules = ["lib", "usr/lib"]
            .iter()
            .map(|lib| root.join(lib).join("modules").join(release))
            .find(|directory| directory.is_dir())
            .ok_or_else(|| lacks("lib/modules"))?;
        let modules = modules::pick(&modules, release)?;
        Ok(Self { image: kernel::unpack(image), modules })
    }
}
