//! The image cache on disk: where it is, its lock, how an image appears and goes.
//!
//! Layout: `images/NAME.json`, `store/HASH/…`, `debs/*.deb`, `lock`. Files of the store appear by
//! renaming a finished directory, an image by renaming its JSON file over the old one.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use nix::fcntl::{Flock, FlockArg};
use sha2::{Digest, Sha256};

use super::Image;

/// Why the image cache did not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// No place for the cache.
    #[error("no place for the image cache: set $TAPESTRY_CACHE, $XDG_CACHE_HOME or $HOME")]
    NoPlace,
    /// No image of that name.
    #[error("there is no image `{name}`{}; `tapestry image build` makes one", others(known))]
    Unknown {
        /// The name.
        name: String,
        /// Names there are.
        known: Vec<String>,
    },
    /// A name that cannot be a file's.
    #[error("`{name}` cannot name an image; use letters, digits, `.`, `_` and `-`, not first")]
    Name {
        /// The name.
        name: String,
    },
    /// An image's description cannot be read.
    #[error("`{}` does not describe an image ({reason}); remove it and build the image again", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// An image names a file that is gone.
    #[error("image `{name}` lacks `{}`; build or import it again", path.display())]
    Lacks {
        /// The image.
        name: String,
        /// The file.
        path: PathBuf,
    },
    /// A file of an image is not as long as it was.
    #[error("`{}` of image `{name}` has {found} bytes and had {expected}; build or import it again", path.display())]
    Cut {
        /// The image.
        name: String,
        /// The file.
        path: PathBuf,
        /// Its bytes.
        found: u64,
        /// Its bytes when the image was made.
        expected: u64,
    },
    /// A file could not be handled.
    #[error("cannot {action} `{}`: {source}; check space and permissions", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
}

fn others(known: &[String]) -> String {
    if known.is_empty() { String::new() } else { format!(" (there are: {})", known.join(", ")) }
}

/// Turns an I/O error into a [`StoreError`] that names its file.
pub(super) fn failed(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> StoreError {
    let path = path.to_owned();
    move |source| StoreError::Io { action, path, source }
}

/// The cache directory: `$TAPESTRY_CACHE`, `$XDG_CACHE_HOME/tapestry`, or `~/.cache/tapestry`.
pub fn cache_dir() -> Result<PathBuf, StoreError> {
    let var = |name| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    var("TAPESTRY_CACHE")
        .or_else(|| var("XDG_CACHE_HOME").map(|dir| dir.join("tapestry")))
        .or_else(|| var("HOME").map(|dir| dir.join(".cache/tapestry")))
        .map(|dir| std::path::absolute(&dir).unwrap_or(dir))
        .ok_or(StoreError::NoPlace)
}

/// All images, by name. Damaged ones are reported to the log and left out.
pub fn list(cache: &Path) -> Result<Vec<Image>, StoreError> {
    let mut images = Vec::new();
    for name in names(cache)? {
        match read(cache, &name) {
            Ok(Some(image)) => images.push(image),
            Ok(None) => {}
            Err(error) => tracing::warn!(%error, "image left out"),
        }
    }
    Ok(images)
}

/// The image of that name, with all its files there and as long as they were.
pub fn find(cache: &Path, name: &str) -> Result<Image, StoreError> {
    check_name(name)?;
    let Some(image) = read(cache, name)? else {
        return Err(StoreError::Unknown { name: name.into(), known: names(cache)? });
    };
    for (index, path) in files(&image).into_iter().enumerate() {
        let (name, path) = (name.to_owned(), path.to_owned());
        let found = match fs::metadata(&path) {
            Ok(metadata) if metadata.is_file() => metadata.len(),
            _ => return Err(StoreError::Lacks { name, path }),
        };
        match image.file_bytes.get(index) {
            Some(&expected) if expected != found => {
                return Err(StoreError::Cut { name, path, found, expected });
            }
            _ => {}
        }
    }
    Ok(image)
}

/// Removes an image, and its files unless another image shares them.
pub fn remove(cache: &Path, name: &str) -> Result<(), StoreError> {
    check_name(name)?;
    let _lock = lock(cache)?;
    let path = description(cache, name);
    match fs::remove_file(&path) {
        Ok(()) => sweep(cache, Duration::ZERO),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            Err(StoreError::Unknown { name: name.into(), known: names(cache)? })
        }
        Err(error) => Err(failed("remove", &path)(error)),
    }
}

/// Refuses names that would not stay inside the cache.
pub(super) fn check_name(name: &str) -> Result<(), StoreError> {
    const LONGEST: usize = 100;
    let good = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    let first = name.chars().next().is_some_and(|c| c.is_ascii_alphanumeric());
    if first && name.len() <= LONGEST && name.chars().all(good) {
        Ok(())
    } else {
        Err(StoreError::Name { name: name.chars().take(LONGEST).collect() })
    }
}

/// Keeps other builders out until dropped; waits for them first.
pub(super) fn lock(cache: &Path) -> Result<Flock<File>, StoreError> {
    fs::create_dir_all(cache).map_err(failed("make", cache))?;
    let path = cache.join("lock");
    let file = File::options().create(true).truncate(false).write(true).open(&path);
    let file = file.map_err(failed("open", &path))?;
    Flock::lock(file, FlockArg::LockExclusive)
        .map_err(|(_, errno)| failed("lock", &path)(errno.into()))
}

/// A directory for unfinished work, gone when dropped.
pub(super) fn scratch(cache: &Path) -> Result<tempfile::TempDir, StoreError> {
    tempfile::Builder::new()
        .prefix("unfinished-")
        .tempdir_in(cache)
        .map_err(failed("make a directory in", cache))
}

/// Moves a finished directory into the store and returns its place. The caller holds the lock.
///
/// A directory that is there already has the same content and stays, unless its files were cut.
pub(super) fn keep(cache: &Path, scratch: &Path, hash: &str) -> Result<PathBuf, StoreError> {
    let store = cache.join("store");
    fs::create_dir_all(&store).map_err(failed("make", &store))?;
    let place = store.join(hash);
    if place.is_dir() && sizes(&place)? != sizes(scratch)? {
        fs::remove_dir_all(&place).map_err(failed("remove", &place))?;
    }
    if !place.is_dir() {
        sync_files(scratch)?;
        fs::rename(scratch, &place).map_err(failed("make", &place))?;
    }
    Ok(place)
}

/// Bytes of each file in a directory, by name.
fn sizes(directory: &Path) -> Result<BTreeMap<OsString, u64>, StoreError> {
    let read = || -> io::Result<_> {
        let mut sizes = BTreeMap::new();
        for entry in fs::read_dir(directory)? {
            let entry = entry?;
            sizes.insert(entry.file_name(), entry.metadata()?.len());
        }
        Ok(sizes)
    };
    read().map_err(failed("read", directory))
}

/// Makes an image visible, replacing one of the same name. The caller holds the lock.
pub(super) fn publish(cache: &Path, image: &mut Image) -> Result<(), StoreError> {
    let bytes = |path: &Path| fs::metadata(path).map(|metadata| metadata.len());
    let bytes = |path: &Path| bytes(path).map_err(failed("read", path));
    image.file_bytes = files(image).into_iter().map(bytes).collect::<Result<_, _>>()?;

    let directory = cache.join("images");
    fs::create_dir_all(&directory).map_err(failed("make", &directory))?;
    let path = description(cache, &image.name);
    let write = || -> io::Result<()> {
        let mut file = tempfile::NamedTempFile::new_in(&directory)?;
        serde_json::to_writer_pretty(&mut file, image)?;
        file.write_all(b"\n")?;
        file.as_file().sync_all()?;
        file.persist(&path).map(drop).map_err(|error| error.error)
    };
    let replaced = read(cache, &image.name).ok().flatten();
    write().map_err(failed("write", &path))?;
    for place in replaced.iter().flat_map(files).filter_map(Path::parent) {
        // Its age counts from now. A place that is gone needs none.
        let now = SystemTime::now();
        let _ = File::open(place).and_then(|place| place.set_modified(now));
    }
    sweep(cache, REPLACED_STAYS)
}

/// A lab that has found an image opens its files within this time, replaced or not.
const REPLACED_STAYS: Duration = Duration::from_hours(1);

/// Removes what no image has named for `grace`, and the leavings of killed builds.
fn sweep(cache: &Path, grace: Duration) -> Result<(), StoreError> {
    let mut used = BTreeSet::new();
    for name in names(cache)? {
        match read(cache, &name) {
            Ok(Some(image)) => used.extend(files(&image).into_iter().map(Path::to_owned)),
            Ok(None) => {}
            // What a damaged description names is unknown, so nothing is removed.
            Err(_) => return Ok(()),
        }
    }
    let entries = |directory: &Path| {
        fs::read_dir(directory).into_iter().flatten().flatten().map(|entry| entry.path())
    };
    let unnamed = |place: &PathBuf| !used.iter().any(|file| file.starts_with(place));
    let old = |place: &PathBuf| {
        let modified = fs::metadata(place).and_then(|metadata| metadata.modified());
        modified.is_ok_and(|modified| modified.elapsed().is_ok_and(|age| age >= grace))
    };
    let unfinished = |place: &PathBuf| {
        place.file_name().is_some_and(|name| name.to_string_lossy().starts_with("unfinished-"))
    };
    let replaced = entries(&cache.join("store")).filter(|place| unnamed(place) && old(place));
    // The caller holds the lock, so nobody works on these.
    let leavings = entries(cache).filter(unfinished);
    for place in replaced.chain(leavings) {
        fs::remove_dir_all(&place).map_err(failed("remove", &place))?;
    }
    Ok(())
}

fn sync_files(directory: &Path) -> Result<(), StoreError> {
    for entry in fs::read_dir(directory).map_err(failed("read", directory))? {
        let path = entry.map_err(failed("read", directory))?.path();
        File::open(&path).and_then(|file| file.sync_all()).map_err(failed("write", &path))?;
    }
    Ok(())
}

fn description(cache: &Path, name: &str) -> PathBuf {
    cache.join("images").join(format!("{name}.json"))
}

/// Names of all images, sorted.
fn names(cache: &Path) -> Result<Vec<String>, StoreError> {
    let directory = cache.join("images");
    let entries = match fs::read_dir(&directory) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(failed("read", &directory)(error)),
    };
    let mut names: Vec<_> = entries
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.strip_suffix(".json").map(str::to_owned))
        .filter(|name| check_name(name).is_ok())
        .collect();
    names.sort_unstable();
    Ok(names)
}

fn read(cache: &Path, name: &str) -> Result<Option<Image>, StoreError> {
    let path = description(cache, name);
    let text = match fs::read(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(failed("read", &path)(error)),
    };
    serde_json::from_slice(&text)
        .map(Some)
        .map_err(|error| StoreError::Damaged { path, reason: error.to_string() })
}

fn files(image: &Image) -> Vec<&Path> {
    let boot = &image.boot;
    let disk = boot.disk.as_ref().map(|disk| disk.path.as_path());
    [boot.kernel.as_deref(), boot.initrd.as_deref(), disk].into_iter().flatten().collect()
}

/// SHA-256 of a stream, in hexadecimal.
pub(super) fn digest(mut from: impl Read) -> io::Result<String> {
    let mut hash = Sha256::new();
    let mut buffer = vec![0; 1 << 16];
    loop {
        match from.read(&mut buffer)? {
            0 => return Ok(hex(&hash.finalize())),
            count => hash.update(&buffer[..count]),
        }
    }
}

fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// The time, RFC 3339 in UTC, whole seconds.
pub(super) fn now() -> String {
    let seconds = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    rfc3339(seconds)
}

/// Seconds since 1970 as `YYYY-MM-DDThh:mm:ssZ`, by the proleptic Gregorian calendar.
pub(super) fn rfc3339(seconds: u64) -> String {
    let (mut days, time) = (seconds / 86_400, seconds % 86_400);
    let mut year = 1970;
    let leap = |year: u64| {
        year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400))
    };
    while days >= 365 + u64::from(leap(year)) {
        days -= 365 + u64::from(leap(year));
        year += 1;
    }
    let february = 28 + u64::from(leap(year));
    let mut month = 1;
    for length in [31, february, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31] {
        if days < length {
            break;
        }
        days -= length;
        month += 1;
    }
    let (hour, minute, second) = (time / 3600, time / 60 % 60, time % 60);
    format!("{year:04}-{month:02}-{:02}T{hour:02}:{minute:02}:{second:02}Z", days + 1)
}
