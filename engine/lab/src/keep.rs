//! `keep:` — files of a node that are copied into the run directory at its end.

use std::ffi::OsStr;
use std::fs::{File, Permissions};
use std::io::{self, Read, Seek, SeekFrom};
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, OpenHow, ResolveFlag, openat, openat2, readlinkat};
use nix::sys::stat::{Mode, SFlag, fstatat};
use nix::unistd::{Whence, lseek64};
use tapestry_guests::shell::RunOptions;

use crate::machine::Machine;
use crate::node::RunningNode;

/// What came of a node's `keep:`.
#[derive(Debug, Default)]
pub struct Kept {
    /// A sentence for each path that could not be copied.
    pub problems: Vec<String>,
    /// A sentence for each file in a kept directory that is none one can copy.
    pub left_out: Vec<String>,
}

/// Copies `paths` of a node to `target`.
///
/// A namespace node's files are read through `/proc`; a virtual machine sends a tar archive over
/// its console, so keep what is kept there small. Symbolic links stay what they are, wherever they
/// lead, and sparse files stay sparse. Devices, FIFOs and sockets cannot be kept.
pub async fn keep(node: &RunningNode, paths: &[PathBuf], target: &Path) -> Kept {
    let mut kept = Kept::default();
    for path in paths {
        let mut special = Vec::new();
        let copied = match &node.machine {
            Machine::Netns { init, .. } => from_namespace(*init, path, target, &mut special),
            Machine::Qemu(_) => from_guest(node, path, target, &mut special).await,
        };
        let name = &node.name;
        if let Err(why) = copied {
            kept.problems.push(format!("node {name}: cannot keep {}: {why}", path.display()));
        }
        kept.left_out.extend(special.iter().map(|(path, what)| {
            format!("node {name}: {} is {what} and was not kept", path.display())
        }));
    }
    kept
}

fn relative(path: &Path) -> Result<&Path, String> {
    let relative = path.strip_prefix("/").map_err(|_| "the path is not absolute".to_owned())?;
    let ordinary = |part| matches!(part, std::path::Component::Normal(_));
    if relative.components().all(ordinary) {
        Ok(relative)
    } else {
        Err("the path has `.` or `..` in it".to_owned())
    }
}

fn from_namespace(
    init: u32,
    path: &Path,
    target: &Path,
    special: &mut Vec<Special>,
) -> Result<(), String> {
    let relative = relative(path)?;
    let root = File::open(format!("/proc/{init}/root")).map_err(|error| error.to_string())?;
    copy_below(&root, relative, target, special).map_err(|error| error.to_string())
}

/// A file that cannot be kept: its path in the node, and what it is.
type Special = (PathBuf, &'static str);

/// Copies `relative` of a tree to the same place below `target`. Links on the way there are the
/// tree's own and lead nowhere else; devices and the like in a directory are noted in `special`.
fn copy_below(
    root: &File,
    relative: &Path,
    target: &Path,
    special: &mut Vec<Special>,
) -> io::Result<()> {
    let (parent, name) = match (relative.parent(), relative.file_name()) {
        (Some(parent), Some(name)) => (parent, name),
        _ => (Path::new(""), OsStr::new(".")),
    };
    let parent = if parent == Path::new("") { Path::new(".") } else { parent };
    let how = OpenHow::new()
        .flags(OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC)
        .resolve(ResolveFlag::RESOLVE_IN_ROOT);
    let directory = File::from(openat2(root, parent, how)?);
    let to = target.join(relative);
    if let Some(parent) = to.parent() {
        std::fs::create_dir_all(parent)?;
    }
    let before = special.len();
    copy(&directory, name, &Path::new("/").join(relative), &to, special)?;
    // What was asked for by name is not left out in silence.
    match special.get(before) {
        Some((path, what)) if *path == Path::new("/").join(relative) => {
            let what = *what;
            special.truncate(before);
            Err(io::Error::other(format!("it is {what}")))
        }
        _ => Ok(()),
    }
}

/// Opens a file of a namespace node, whose process 1 is `init`, for reading. Links in its path are the
/// node's and lead nowhere else.
pub(crate) fn open_in(init: u32, path: &Path) -> std::io::Result<File> {
    let root = File::open(format!("/proc/{init}/root"))?;
    let flags = OFlag::O_RDONLY | OFlag::O_CLOEXEC | OFlag::O_NONBLOCK;
    let how = OpenHow::new().flags(flags).resolve(ResolveFlag::RESOLVE_IN_ROOT);
    let file = File::from(openat2(&root, path, how)?);
    if file.metadata()?.is_file() { Ok(file) } else { Err(std::io::ErrorKind::InvalidInput.into()) }
}

/// Copies `name` in `directory`, with what is in it if it is a directory. The node may be at work on
/// it meanwhile; a link that takes a directory's place is not followed.
fn copy(
    directory: &impl AsFd,
    name: &OsStr,
    path: &Path,
    target: &Path,
    special: &mut Vec<Special>,
) -> io::Result<()> {
    let of_path =
        |error: io::Error| io::Error::new(error.kind(), format!("{}: {error}", path.display()));
    let status = fstatat(directory, name, AtFlags::AT_SYMLINK_NOFOLLOW)?;
    let kind = SFlag::from_bits_truncate(status.st_mode) & SFlag::S_IFMT;
    let open = |flags: OFlag| {
        let flags = flags | OFlag::O_RDONLY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        openat(directory, name, flags, Mode::empty()).map_err(|errno| of_path(errno.into()))
    };
    match kind {
        SFlag::S_IFDIR => {
            let opened = open(OFlag::O_DIRECTORY)?;
            std::fs::create_dir_all(target)?;
            let entries = std::fs::read_dir(format!("/proc/self/fd/{}", opened.as_raw_fd()))?;
            let mut names = Vec::new();
            for entry in entries {
                names.push(entry?.file_name());
            }
            names.sort();
            for name in names {
                copy(&opened, &name, &path.join(&name), &target.join(&name), special)?;
            }
        }
        SFlag::S_IFREG => {
            // Non-blocking, should a FIFO have taken its place.
            let source = File::from(open(OFlag::O_NONBLOCK)?);
            copy_sparse(&source, target).map_err(of_path)?;
        }
        SFlag::S_IFLNK => {
            let link = readlinkat(directory, name).map_err(|errno| of_path(errno.into()))?;
            symlink(link, target).map_err(of_path)?;
        }
        SFlag::S_IFIFO => special.push((path.to_owned(), "a FIFO")),
        SFlag::S_IFSOCK => special.push((path.to_owned(), "a socket")),
        _ => special.push((path.to_owned(), "a device")),
    }
    Ok(())
}

/// Copies a regular file; its holes stay holes.
fn copy_sparse(mut source: &File, target: &Path) -> io::Result<()> {
    let metadata = source.metadata()?;
    if !metadata.is_file() {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    let mut copy = File::create(target)?;
    let length = metadata.len();
    if length == 0 {
        // As files of /proc say of themselves that have something to say all the same.
        io::copy(&mut source, &mut copy)?;
    } else {
        copy.set_len(length)?;
        let mut at = 0;
        while at < length {
            let begin = match lseek64(source, at.cast_signed(), Whence::SeekData) {
                Ok(begin) => begin.cast_unsigned(),
                // Nothing but a hole is left.
                Err(Errno::ENXIO) => break,
                // A file system without holes.
                Err(Errno::EINVAL) => at,
                Err(errno) => return Err(errno.into()),
            };
            let end = lseek64(source, begin.cast_signed(), Whence::SeekHole);
            let end = end.map_or(length, i64::cast_unsigned).min(length);
            source.seek(SeekFrom::Start(begin))?;
            copy.seek(SeekFrom::Start(begin))?;
            let copied = io::copy(&mut source.take(end.saturating_sub(begin)), &mut copy)?;
            if copied == 0 {
                // It has become shorter.
                break;
            }
            at = begin + copied;
        }
    }
    copy.set_permissions(Permissions::from_mode(metadata.permissions().mode() & 0o777))
}

async fn from_guest(
    node: &RunningNode,
    path: &Path,
    target: &Path,
    special: &mut Vec<Special>,
) -> Result<(), String> {
    /// A serial console carries about this much in half a minute.
    const LARGEST: usize = 8 << 20;
    let relative = relative(path)?;
    std::fs::create_dir_all(target).map_err(|error| error.to_string())?;
    let archive = target.join(".archive.tar");
    let quoted = relative.to_string_lossy().replace('\'', r"'\''");
    let options = RunOptions { output_file: Some(archive.clone()), ..RunOptions::default() };
    // GNU's tar leaves holes out if it is asked to; that of busybox does not know how.
    let command = format!(
        "cd / && {{ test -e './{quoted}' || test -L './{quoted}'; }} && \
         case $(tar --version 2>/dev/null) in *GNU*) s=S ;; *) s= ;; esac && \
         tar -c${{s}}f - './{quoted}' 2>/dev/null | head -c {LARGEST}"
    );
    let finished = node.shell.0.run(&command, &options).await.map_err(|error| error.to_string())?;
    if finished.status != 0 {
        let _ = std::fs::remove_file(&archive);
        return Err("there is no such file, or the guest has no tar".to_owned());
    }
    // Where nobody looks: what the guest calls a device shall not stand in the run directory.
    let unpacked_at = target.join(".unpacked");
    let copied = unpack(&archive, &unpacked_at).await.and_then(|()| {
        let root = File::open(&unpacked_at).map_err(|error| error.to_string())?;
        copy_below(&root, relative, target, special).map_err(|error| error.to_string())
    });
    let _ = std::fs::remove_file(&archive);
    let _ = std::fs::remove_dir_all(&unpacked_at);
    copied
}

async fn unpack(archive: &Path, at: &Path) -> Result<(), String> {
    std::fs::create_dir_all(at).map_err(|error| error.to_string())?;
    let unpacked = tokio::process::Command::new("tar")
        .args(["--no-same-owner", "-xf"])
        .arg(archive)
        .arg("-C")
        .arg(at)
        .output()
        .await;
    match unpacked {
        Ok(output) if output.status.success() => Ok(()),
        Ok(output) => Err(format!("tar: {}", String::from_utf8_lossy(&output.stderr).trim())),
        Err(error) => Err(format!("tar: {error}")),
    }
}

#[cfg(test)]
mod tests;
