//! Debian packages: which are needed, where their files are, fetching them.
//!
//! Assumptions: `apt-get` and `apt-cache` read the machine's own sources. Nothing of the machine's
//! package state is used or changed: dependencies are solved against an empty system, and all that
//! apt writes goes to the cache directory.
//!
//! Reference: `apt-get(8)`, `apt-cache(8)`, `deb-control(5)`.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Why packages could not be had.
#[derive(Debug, thiserror::Error)]
pub enum AptError {
    /// A program is missing.
    #[error("cannot run `{program}`: {source}; building an image needs a Debian system with apt")]
    Run {
        /// The program.
        program: &'static str,
        /// The system's answer.
        source: io::Error,
    },
    /// apt refused.
    #[error("`{command}` failed: {stderr}")]
    Failed {
        /// What was run, shortened.
        command: String,
        /// What it said.
        stderr: String,
    },
    /// No such package.
    #[error("apt knows no package `{name}`; check its name and the apt sources of this machine")]
    Unknown {
        /// The package.
        name: String,
    },
    /// A name that is no package name.
    #[error("`{name}` is no package name; use lower case letters, digits, `+`, `-` and `.`")]
    Name {
        /// What was given.
        name: String,
    },
    /// A downloaded file did not appear.
    #[error("apt did not download `{file}`; check the network and the apt sources")]
    NotFetched {
        /// The file.
        file: String,
    },
    /// The cache could not be written.
    #[error("cannot write `{}`: {source}; check space and permissions", path.display())]
    Write {
        /// The file or directory.
        path: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
}

/// A package of one version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Package {
    pub(super) name: String,
    pub(super) version: String,
    pub(super) architecture: String,
    pub(super) section: String,
    /// Needed packages: each group is satisfied by one of its members.
    depends: Vec<Vec<String>>,
    provides: Vec<String>,
    pub(super) size_bytes: u64,
}

impl Package {
    fn file_name(&self) -> String {
        let version = self.version.replace(':', "%3a");
        format!("{}_{version}_{}.deb", self.name, self.architecture)
    }

    /// Whether it holds shared libraries only for others to use.
    pub(super) fn is_library(&self) -> bool {
        matches!(self.section.rsplit('/').next(), Some("libs" | "oldlibs"))
    }
}

/// apt with a state of its own below the cache directory.
#[derive(Debug)]
pub(super) struct Apt {
    cache: PathBuf,
    /// Whether package lists of our own are used, for a machine whose lists are absent or old.
    own_lists: bool,
}

/// Needed by maintainer scripts, or by the start of a whole system, but not by programs.
const NOT_IN_GUESTS: &[&str] = &[
    "adduser",
    "base-files",
    "base-passwd",
    "cdebconf",
    "debconf",
    "dpkg",
    "init-system-helpers",
    "install-info",
    "libcap2-bin",
    "libpam-modules",
    "libpam-modules-bin",
    "libpam-runtime",
    "login",
    "logrotate",
    "lsb-base",
    "passwd",
    "systemd",
    "systemd-sysv",
    "sysvinit-utils",
    "tar",
    "ucf",
    "udev",
    "usr-is-merged",
    "usrmerge",
];

impl Apt {
    pub(super) fn new(cache: &Path) -> Result<Self, AptError> {
        let apt = Self { cache: cache.into(), own_lists: false };
        for directory in ["apt/lists/partial", "apt/archives/partial", "debs"] {
            let path = cache.join(directory);
            fs::create_dir_all(&path).map_err(|source| AptError::Write { path, source })?;
        }
        let path = apt.status();
        fs::write(&path, "").map_err(|source| AptError::Write { path, source })?;
        Ok(apt)
    }

    /// The packages `names` and all they need in a guest, sorted by name.
    ///
    /// When the machine's package lists do not do, fetches lists of its own.
    pub(super) fn closure(&mut self, names: &[String]) -> Result<Vec<Package>, AptError> {
        names.iter().try_for_each(|name| check(name))?;
        match self.try_closure(names) {
            Err(AptError::Failed { .. } | AptError::Unknown { .. }) if !self.own_lists => {
                self.update()?;
                self.try_closure(names)
            }
            other => other,
        }
    }

    /// The kernel package behind a meta package such as `linux-image-cloud-amd64`.
    pub(super) fn kernel(&mut self, meta: &str) -> Result<Package, AptError> {
        match self.try_kernel(meta) {
            Err(AptError::Failed { .. } | AptError::Unknown { .. }) if !self.own_lists => {
                self.update()?;
                self.try_kernel(meta)
            }
            other => other,
        }
    }

    /// Files of the packages, downloaded unless they are there.
    pub(super) fn fetch(&self, packages: &[&Package]) -> Result<Vec<PathBuf>, AptError> {
        let debs = self.cache.join("debs");
        let place = |package: &&Package| debs.join(package.file_name());
        let missing: Vec<_> = packages.iter().filter(|p| !place(p).is_file()).copied().collect();
        if !missing.is_empty() {
            self.download(&missing, &debs)?;
        }
        Ok(packages.iter().map(place).collect())
    }

    /// Fetches package lists of our own, once; `false` when that has been done already.
    ///
    /// Lists older than the archive name files that are gone; then packages must be asked for anew.
    pub(super) fn renew(&mut self) -> Result<bool, AptError> {
        if self.own_lists {
            return Ok(false);
        }
        self.update().map(|()| true)
    }

    fn try_closure(&self, names: &[String]) -> Result<Vec<Package>, AptError> {
        let mut solve = self.command("apt-get");
        solve.args(["install", "--print-uris", "-qq", "-y", "--no-install-recommends"]);
        let solution = run("apt-get", solve.args(names))?;
        // Lines are `'URI' FILE SIZE HASH`, with FILE = NAME_VERSION_ARCHITECTURE.deb.
        let chosen: Vec<_> = solution
            .lines()
            .filter_map(|line| line.split_whitespace().nth(1))
            .filter_map(|file| {
                let mut parts = file.split('_');
                Some(format!("{}={}", parts.next()?, parts.next()?.replace("%3a", ":")))
            })
            .collect();
        let packages = self.show(&chosen)?;
        let names: Vec<_> = names.iter().map(String::as_str).collect();
        Ok(reachable(packages, &names))
    }

    fn try_kernel(&self, meta: &str) -> Result<Package, AptError> {
        let unknown = || AptError::Unknown { name: meta.into() };
        let package = self.show(&[meta.into()])?.pop().ok_or_else(unknown)?;
        let image = package.depends.iter().flatten().find(|name| name.starts_with("linux-image-"));
        let name = image.ok_or_else(unknown)?.clone();
        self.show(std::slice::from_ref(&name))?.pop().ok_or(AptError::Unknown { name })
    }

    fn show(&self, specs: &[String]) -> Result<Vec<Package>, AptError> {
        let mut show = self.command("apt-cache");
        let text = run("apt-cache", show.args(["show", "--no-all-versions"]).args(specs))?;
        Ok(text.split("\n\n").filter_map(parse).collect())
    }

    /// Downloads into a directory of its own, so that only whole files reach `debs`.
    fn download(&self, packages: &[&Package], debs: &Path) -> Result<(), AptError> {
        let write_error = |path: &Path| {
            let path = path.to_owned();
            move |source| AptError::Write { path, source }
        };
        let scratch = tempfile::Builder::new()
            .prefix("unfinished-")
            .tempdir_in(&self.cache)
            .map_err(write_error(&self.cache))?;
        let mut download = self.command("apt-get");
        download.args(["download", "-qq"]).current_dir(scratch.path());
        download.args(packages.iter().map(|p| format!("{}={}", p.name, p.version)));
        run("apt-get", &mut download)?;
        for package in packages {
            let file = package.file_name();
            let from = scratch.path().join(&file);
            if !from.is_file() {
                return Err(AptError::NotFetched { file });
            }
            let to = debs.join(&file);
            fs::rename(&from, &to).map_err(write_error(&to))?;
        }
        Ok(())
    }

    fn update(&mut self) -> Result<(), AptError> {
        tracing::info!("fetching package lists");
        self.own_lists = true;
        run("apt-get", self.command("apt-get").args(["update", "-qq"])).map(drop)
    }

    fn status(&self) -> PathBuf {
        self.cache.join("apt/status")
    }

    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        let apt = self.cache.join("apt");
        let mut option = |name: &str, value: &Path| {
            let mut word = std::ffi::OsString::from(format!("{name}="));
            word.push(value);
            command.arg("-o").arg(word);
        };
        option("Dir::State::status", &self.status());
        option("Dir::Cache", &apt);
        // Not the unprivileged user apt changes to as root: it may not enter our directory.
        option("APT::Sandbox::User", Path::new("root"));
        if self.own_lists {
            option("Dir::State::Lists", &apt.join("lists"));
        }
        command.env("LC_ALL", "C.UTF-8").env("DEBIAN_FRONTEND", "noninteractive");
        command
    }
}

/// Refuses what apt would take for an option or a file.
fn check(name: &str) -> Result<(), AptError> {
    let good = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "+-.".contains(c);
    let first = name.chars().next().is_some_and(|c| c.is_ascii_alphanumeric());
    if first && name.len() >= 2 && name.chars().all(good) && !name.ends_with(['+', '-']) {
        return Ok(());
    }
    // `g++` ends like apt's "install" mark; apt still takes it for a name when one exists.
    if name.ends_with("++") && first && name.chars().all(good) {
        return Ok(());
    }
    Err(AptError::Name { name: name.chars().take(100).collect() })
}

fn run(program: &'static str, command: &mut Command) -> Result<String, AptError> {
    let output = command
        .stdin(Stdio::null())
        .output()
        .map_err(|source| AptError::Run { program, source })?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let words = command.get_args().map(|word| word.to_string_lossy().into_owned());
    let shown: Vec<_> = words.filter(|word| word != "-o" && !word.contains("::")).take(8).collect();
    let stderr = String::from_utf8_lossy(&output.stderr);
    let errors: Vec<_> = stderr.lines().filter(|line| !line.starts_with("W:")).collect();
    if let Some(line) = errors.iter().find(|line| line.contains("Unable to locate package ")) {
        let name = line.rsplit(' ').next().unwrap_or_default().to_owned();
        return Err(AptError::Unknown { name });
    }
    let command = format!("{program} {}", shown.join(" "));
    Err(AptError::Failed { command, stderr: errors.join("; ") })
}

/// One paragraph of `apt-cache show`.
fn parse(paragraph: &str) -> Option<Package> {
    let mut fields = BTreeMap::new();
    for line in paragraph.lines().filter(|line| !line.starts_with(' ')) {
        if let Some((name, value)) = line.split_once(':') {
            fields.insert(name, value.trim());
        }
    }
    let field = |name: &str| fields.get(name).copied().unwrap_or_default();
    let groups = |name: &str| {
        let groups = field(name).split(',').map(|group| group.split('|').filter_map(bare));
        groups.map(Iterator::collect).collect::<Vec<Vec<String>>>()
    };
    let mut depends = groups("Pre-Depends");
    depends.extend(groups("Depends"));
    Some(Package {
        name: fields.get("Package")?.to_string(),
        version: fields.get("Version")?.to_string(),
        architecture: fields.get("Architecture")?.to_string(),
        section: field("Section").into(),
        depends,
        provides: groups("Provides").into_iter().flatten().collect(),
        size_bytes: field("Size").parse().unwrap_or(0),
    })
}

/// The name in `libc6:any (>= 2.34) [amd64]`.
fn bare(dependency: &str) -> Option<String> {
    let name = dependency.split(['(', '[', '<']).next()?.trim().split(':').next()?;
    (!name.is_empty()).then(|| name.to_owned())
}

/// Those of `packages` that `names` need in a guest, sorted by name.
///
/// Of alternatives the first that apt has chosen is taken, as apt does.
fn reachable(packages: Vec<Package>, names: &[&str]) -> Vec<Package> {
    let by_name: BTreeMap<_, _> = packages.iter().map(|p| (p.name.as_str(), p)).collect();
    let provider = |wanted: &str| {
        let provided = |p: &&Package| p.provides.iter().any(|name| name == wanted);
        by_name.get(wanted).copied().or_else(|| packages.iter().find(provided))
    };
    let mut reached = BTreeSet::new();
    let mut open: VecDeque<_> = names.iter().filter_map(|name| provider(name)).collect();
    while let Some(package) = open.pop_front() {
        if !reached.insert(package.name.clone()) {
            continue;
        }
        let needed =
            package.depends.iter().filter_map(|group| group.iter().find_map(|name| provider(name)));
        open.extend(needed.filter(|p| !NOT_IN_GUESTS.contains(&p.name.as_str())));
    }
    let mut packages = packages;
    packages.retain(|package| reached.contains(&package.name));
    packages.sort_by(|a, b| a.name.cmp(&b.name));
    packages
}

#[cfg(test)]
mod tests {
    use super::*;

    fn package(text: &str) -> Package {
        parse(text).expect("a paragraph")
    }

    #[test]
    fn a_paragraph_gives_names_without_versions_and_qualifiers() {
        let package = package(
            "Package: demo\nVersion: 1:2-3\nArchitecture: amd64\nSection: contrib/libs\n\
             Pre-Depends: a:any (>= 1)\nDepends: b | c (<< 2), d\nSize: 12\n\
             Description: text\n Depends: not this\n",
        );
        assert_eq!(package.depends, [vec!["a"], vec!["b", "c"], vec!["d"]]);
        assert_eq!(package.file_name(), "demo_1%3a2-3_amd64.deb");
        assert!(package.is_library());
        assert_eq!(package.size_bytes, 12);
    }

    #[test]
    fn packages_that_only_maintainer_scripts_need_stay_out_unless_asked_for() {
        let all = || {
            vec![
                package(
                    "Package: ping\nVersion: 1\nArchitecture: amd64\nDepends: debconf, virtual",
                ),
                package("Package: debconf\nVersion: 1\nArchitecture: all\nDepends: perl"),
                package("Package: perl\nVersion: 1\nArchitecture: all"),
                package("Package: real\nVersion: 1\nArchitecture: all\nProvides: virtual (= 2)"),
            ]
        };
        let names =
            |packages: Vec<Package>| packages.into_iter().map(|p| p.name).collect::<Vec<_>>();
        assert_eq!(names(reachable(all(), &["ping"])), ["ping", "real"]);
        assert_eq!(names(reachable(all(), &["debconf"])), ["debconf", "perl"]);
    }

    #[test]
    fn names_that_apt_would_read_otherwise_are_refused() {
        for name in ["", "-o", "a", "Foo", "x y", "foo-", "./foo.deb", "foo=1", "foo/stable"] {
            assert!(matches!(check(name), Err(AptError::Name { .. })), "{name}");
        }
        for name in ["iperf3", "g++", "libstdc++6", "python3.11"] {
            assert!(check(name).is_ok(), "{name}");
        }
    }
}
