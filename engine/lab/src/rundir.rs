//! The run directory: everything that stays of a run.
//!
//! ```text
//! manifest.json   what was run, on what, by what; its `exit` is null until the run has ended
//! results.json    verdict, tasks, metrics, links, lateness, host; appears whole or not at all
//! events.jsonl    what happened, one JSON object a line
//! console/        NODE.log, every byte of each node's console
//! outputs/        outputs of commands too long for results.json
//! captures/       packet captures
//! lock            held by the living run (`flock`), removed at its end
//! ```
//!
//! A run is *alive* while somebody holds the lock; the kernel lets go of it when the last of its
//! processes dies. It is *dead* when nobody holds it and `manifest.json` has no exit. The lock is the
//! first file of the directory and begins with a mark of ours, so a run that is killed at any later
//! moment is known for what it was. What one leaves that is killed before is a directory named as
//! runs are, empty but for an unfinished lock; whoever makes or removes such holds the lock of the directory of runs.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};
use serde::Serialize;

/// Why a run directory could not be made, written or read.
#[derive(Debug, thiserror::Error)]
pub enum RunDirError {
    /// The directory could not be made.
    #[error("cannot make run directory {path}: {source}. Choose another with --out DIR")]
    Create {
        /// The directory.
        path: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
    /// `--out` names something that already holds files.
    #[error("{path} is not empty. Choose a new directory with --out DIR, or remove it")]
    NotEmpty {
        /// The directory.
        path: PathBuf,
    },
    /// Another run has just begun there.
    #[error("{path} is being used by another run. Choose a new directory with --out DIR")]
    InUse {
        /// The directory.
        path: PathBuf,
    },
    /// A file of the run could not be written.
    #[error("cannot write {path}: {source}{}", hint(.source))]
    Write {
        /// The file.
        path: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
    /// There is no such run.
    #[error(
        "there is no run {name:?}: neither a run directory of that path nor one in {root}. \
         `ls {root}` lists runs; one begun with --out is named by its path"
    )]
    NoRun {
        /// What the user said.
        name: String,
        /// Where runs are looked for.
        root: PathBuf,
    },
}

fn hint(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
            ". Free some space or choose another file system with --out DIR"
        }
        io::ErrorKind::PermissionDenied => ". Choose a writable directory with --out DIR",
        _ => "",
    }
}

/// Where runs go unless `--out` says otherwise, relative to the working directory.
pub const RUNS_ROOT: &str = "runs";

const LOCK: &str = "lock";
/// Every lock file begins with it.
const MARK: &str = "tapestry run";
/// Directories that every run directory has from the beginning.
const SUBDIRECTORIES: [&str; 3] = ["console", "outputs", "captures"];
/// Files end in this while they are being written.
const PARTIAL: &str = ".partial";

/// The directory of the run in progress, and the lock that says it is alive.
#[derive(Debug)]
pub struct RunDir {
    path: PathBuf,
    /// Whether files are to outlive a power cut.
    is_lasting: bool,
    _lock: Flock<File>,
}

impl RunDir {
    /// Makes the run directory: `out` itself, which must be new or empty, or a fresh
    /// `runs/NAME-YYYYMMDD-HHMMSS[-K]`.
    pub fn create(out: Option<&Path>, name: &str) -> Result<Self, RunDirError> {
        let mut birth = None;
        let path = match out {
            Some(out) => {
                new_or_empty(out)?;
                out.to_owned()
            }
            None => {
                let (path, lock) = fresh(Path::new(RUNS_ROOT), name)?;
                birth = Some(lock);
                path
            }
        };
        let path = fs::canonicalize(&path)
            .map_err(|source| RunDirError::Create { path: path.clone(), source })?;
        let lock = lock_of(&path)?;
        drop(birth);
        for sub in SUBDIRECTORIES {
            let sub = path.join(sub);
            fs::create_dir(&sub).map_err(|source| RunDirError::Create { path: sub, source })?;
        }
        Ok(Self { path, is_lasting: true, _lock: lock })
    }

    /// The same for a directory that goes with its run: nothing waits for the disk.
    #[must_use]
    pub fn passing(self) -> Self {
        Self { is_lasting: false, ..self }
    }

    /// The directory, absolute.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Writes `value` as pretty JSON so that the file is there whole or not at all.
    pub fn write_json(&self, file: &str, value: &impl Serialize) -> Result<(), RunDirError> {
        let path = self.path.join(file);
        let partial = self.path.join(format!("{file}{PARTIAL}"));
        let write = || -> io::Result<()> {
            let mut out = io::BufWriter::new(File::create(&partial)?);
            serde_json::to_writer_pretty(&mut out, value)?;
            out.write_all(b"\n")?;
            let file = out.into_inner().map_err(io::IntoInnerError::into_error)?;
            if self.is_lasting {
                file.sync_all()?;
            }
            fs::rename(&partial, &path)
        };
        write().map_err(|source| {
            let _ = fs::remove_file(&partial);
            RunDirError::Write { path: path.clone(), source }
        })
    }

    /// Says in the lock file where the living run answers (see `control`).
    pub fn announce(&self, address: &str) -> Result<(), RunDirError> {
        let path = self.path.join(LOCK);
        fs::write(&path, format!("{MARK}\n{address}"))
            .map_err(|source| RunDirError::Write { path, source })
    }

    /// Opens the event log for appending.
    pub fn event_log(&self) -> Result<EventLog, RunDirError> {
        let path = self.path.join("events.jsonl");
        let file = OpenOptions::new()
            .create(true)
            .append(true)
            .open(&path)
            .map_err(|source| RunDirError::Write { path: path.clone(), source })?;
        Ok(EventLog { path, file, failed: None })
    }

    /// Ends the run: the lock file goes, so the directory holds results only.
    pub fn release(self) {
        let _ = fs::remove_file(self.path.join(LOCK));
    }
}

/// A directory for several run directories: `out` itself, which must be new or empty, or a fresh
/// `runs/NAME-YYYYMMDD-HHMMSS[-K]`.
pub fn fresh_directory(out: Option<&Path>, name: &str) -> Result<PathBuf, RunDirError> {
    match out {
        Some(out) => new_or_empty(out).map(|()| out.to_owned()),
        None => fresh(Path::new(RUNS_ROOT), name).map(|(path, _)| path),
    }
}

fn new_or_empty(out: &Path) -> Result<(), RunDirError> {
    let create = |source| RunDirError::Create { path: out.into(), source };
    fs::create_dir_all(out).map_err(create)?;
    match fs::read_dir(out).map_err(create)?.next() {
        Some(_) => Err(RunDirError::NotEmpty { path: out.into() }),
        None => Ok(()),
    }
}

/// The lock of a run that begins in this directory; it appears held and marked.
fn lock_of(path: &Path) -> Result<Flock<File>, RunDirError> {
    let (lock_path, partial) = (path.join(LOCK), path.join(format!("{LOCK}{PARTIAL}")));
    let write = |source| RunDirError::Write { path: lock_path.clone(), source };
    let lock = File::create(&partial).map_err(write)?;
    let mut lock =
        Flock::lock(lock, FlockArg::LockExclusiveNonblock).map_err(|(_, errno)| match errno {
            Errno::EWOULDBLOCK => RunDirError::InUse { path: path.to_owned() },
            errno => write(errno.into()),
        })?;
    writeln!(lock, "{MARK}").and_then(|()| fs::rename(&partial, &lock_path)).map_err(write)?;
    Ok(lock)
}

/// `events.jsonl`. A write that fails is remembered and reported once at the end: the lab goes on.
#[derive(Debug)]
pub struct EventLog {
    path: PathBuf,
    file: File,
    failed: Option<io::Error>,
}

impl EventLog {
    /// Appends one event as one line.
    pub fn append(&mut self, event: &impl Serialize) {
        if self.failed.is_some() {
            return;
        }
        let written = serde_json::to_vec(event).map_err(io::Error::from).and_then(|mut line| {
            line.push(b'\n');
            self.file.write_all(&line)
        });
        self.failed = written.err();
    }

    /// The first failure, if any.
    pub fn take_failure(&mut self) -> Option<RunDirError> {
        let source = self.failed.take()?;
        Some(RunDirError::Write { path: self.path.clone(), source })
    }
}

/// What a directory says about its run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RunState {
    /// Somebody holds its lock.
    Alive,
    /// It ended by itself and says how.
    Finished,
    /// It was killed: no lock holder and no exit.
    Dead,
}

/// Looks at a run directory; `None` if it is not one: many programs call a file `manifest.json` or
/// `lock`.
pub fn state(path: &Path) -> Option<RunState> {
    let lock_path = path.join(LOCK);
    let manifest = fs::read(path.join("manifest.json"))
        .ok()
        .and_then(|text| serde_json::from_slice::<serde_json::Value>(&text).ok())
        .filter(|manifest| manifest["tapestry"].is_string());
    let is_ours = || {
        let mut head = [0; MARK.len()];
        let read = File::open(&lock_path).and_then(|mut file| file.read_exact(&mut head));
        read.is_ok() && head == *MARK.as_bytes()
    };
    match OpenOptions::new().read(true).write(true).open(&lock_path) {
        Ok(file) if is_ours() => {
            if Flock::lock(file, FlockArg::LockExclusiveNonblock).is_err() {
                return Some(RunState::Alive);
            }
        }
        _ => {
            manifest.as_ref()?;
        }
    }
    let exit = manifest.is_some_and(|manifest| !manifest["exit"].is_null());
    Some(if exit { RunState::Finished } else { RunState::Dead })
}

/// Whether a run is or was one in virtual time.
pub fn is_simulation(path: &Path) -> bool {
    fs::read(path.join("manifest.json"))
        .ok()
        .and_then(|text| serde_json::from_slice::<serde_json::Value>(&text).ok())
        .is_some_and(|manifest| manifest["time"] == "virtual")
}

/// Where a living run answers; `None` when the run is not alive.
pub fn address(path: &Path) -> Option<String> {
    let lock = (state(path)? == RunState::Alive).then(|| fs::read_to_string(path.join(LOCK)));
    let address = lock?.ok()?.split_once('\n')?.1.to_owned();
    (!address.is_empty()).then_some(address)
}

/// Finds the run a user means: a path, a name under `runs/`, or `last`.
pub fn find(name: &str) -> Result<PathBuf, RunDirError> {
    let root = Path::new(RUNS_ROOT);
    let given = Path::new(name);
    let found = if state(given).is_some() {
        Some(given.to_owned())
    } else if state(&root.join(name)).is_some() {
        Some(root.join(name))
    } else if name == "last" {
        list(root).pop()
    } else {
        None
    };
    found
        .and_then(|path| fs::canonicalize(path).ok())
        .ok_or_else(|| RunDirError::NoRun { name: name.to_owned(), root: root.to_owned() })
}

/// Run directories under `root`, oldest first.
pub fn list(root: &Path) -> Vec<PathBuf> {
    let mut runs: Vec<(SystemTime, PathBuf)> = fs::read_dir(root)
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| entry.path())
        .filter(|path| state(path).is_some())
        .filter_map(|path| {
            let started = fs::metadata(path.join("console")).and_then(|m| m.created());
            Some((started.or_else(|_| fs::metadata(&path)?.modified()).ok()?, path))
        })
        .collect();
    runs.sort();
    runs.into_iter().map(|(_, path)| path).collect()
}

/// Removes the directory of a dead run. Returns false, and touches nothing, for any other.
///
/// Only files that runs write are removed; what a user put beside them stays, and so then does
/// the directory.
pub fn remove_dead(path: &Path) -> io::Result<bool> {
    if state(path) != Some(RunState::Dead) {
        return Ok(false);
    }
    for sub in SUBDIRECTORIES.iter().chain(&["kept"]) {
        let sub = path.join(sub);
        if sub.is_dir() {
            fs::remove_dir_all(&sub)?;
        }
    }
    for file in ["manifest.json", "results.json", "events.jsonl", LOCK] {
        for file in [file.to_owned(), format!("{file}{PARTIAL}")] {
            match fs::remove_file(path.join(file)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
    }
    match fs::remove_dir(path) {
        Err(error) if error.kind() != io::ErrorKind::DirectoryNotEmpty => Err(error),
        _ => Ok(true),
    }
}

/// Directories under `root` whose runs were killed before they could mark them: named as runs are,
/// and empty but for an unfinished lock file. Removes them unless `dry_run`.
pub fn unborn(root: &Path, dry_run: bool) -> io::Result<Vec<PathBuf>> {
    // Holding the lock: no run is between making its directory and marking it.
    let _lock = match lock_root(root) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        lock => lock?,
    };
    let mut found = Vec::new();
    for entry in fs::read_dir(root)?.flatten() {
        let path = entry.path();
        if !has_run_name(&entry.file_name().to_string_lossy()) || !path.is_dir() {
            continue;
        }
        let lock = path.join(format!("{LOCK}{PARTIAL}"));
        let is_empty = fs::read_dir(&path)?.flatten().all(|inside| inside.path() == lock);
        if !is_empty {
            continue;
        }
        if !dry_run {
            if lock.exists() {
                fs::remove_file(&lock)?;
            }
            fs::remove_dir(&path)?;
        }
        found.push(path);
    }
    found.sort();
    Ok(found)
}

/// Whether a name is one that [`fresh`] gives: `NAME-YYYYMMDD-HHMMSS[-K]`.
fn has_run_name(name: &str) -> bool {
    let digits =
        |text: &str, count| text.len() == count && text.bytes().all(|b| b.is_ascii_digit());
    let parts: Vec<&str> = name.split('-').collect();
    let stamped = |parts: &[&str]| match parts {
        [_, .., day, time] => digits(day, 8) && digits(time, 6),
        _ => false,
    };
    let numbered =
        || parts.split_last().is_some_and(|(last, rest)| digits(last, last.len()) && stamped(rest));
    stamped(&parts) || numbered()
}

/// The lock under which run directories get their marks.
fn lock_root(root: &Path) -> io::Result<Flock<File>> {
    Flock::lock(File::open(root)?, FlockArg::LockExclusive)
        .map_err(|(_, errno)| io::Error::from(errno))
}

fn fresh(root: &Path, name: &str) -> Result<(PathBuf, Flock<File>), RunDirError> {
    let create = |source| RunDirError::Create { path: root.into(), source };
    fs::create_dir_all(root).map_err(create)?;
    let lock = lock_root(root).map_err(create)?;
    let stamp = utc_stamp(SystemTime::now());
    let mut attempt = 1;
    loop {
        let suffix = if attempt == 1 { String::new() } else { format!("-{attempt}") };
        let path = root.join(format!("{name}-{stamp}{suffix}"));
        match fs::create_dir(&path) {
            Ok(()) => return Ok((path, lock)),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists && attempt < 10_000 => {
                attempt += 1;
            }
            Err(source) => return Err(RunDirError::Create { path, source }),
        }
    }
}

/// `YYYYMMDD-HHMMSS` in UTC.
fn utc_stamp(at: SystemTime) -> String {
    rfc3339(at).chars().filter(|c| c.is_ascii_digit() || *c == 'T').collect::<String>()[..15]
        .replace('T', "-")
}

/// `YYYY-MM-DDTHH:MM:SSZ`, for manifests.
pub fn rfc3339(at: SystemTime) -> String {
    humantime::format_rfc3339_seconds(at.max(UNIX_EPOCH)).to_string()
}

#[cfg(test)]
mod tests;
