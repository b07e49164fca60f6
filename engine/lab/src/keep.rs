//! `keep:` — files of a node that are copied into the run directory at its end.

use std::fs::File;
use std::path::{Path, PathBuf};

use nix::fcntl::{OFlag, OpenHow, ResolveFlag, openat2};
use tapestry_guests::shell::RunOptions;

use crate::machine::Machine;
use crate::node::RunningNode;

/// Copies `paths` of a node to `target`; returns a sentence for each that could not be copied.
///
/// A namespace node's files are read through `/proc`; a virtual machine sends a tar archive over
/// its console, so keep what is kept there small.
pub async fn keep(node: &RunningNode, paths: &[PathBuf], target: &Path) -> Vec<String> {
    let mut problems = Vec::new();
    for path in paths {
        let copied = match &node.machine {
            Machine::Netns { init, .. } => from_namespace(*init, path, target),
            Machine::Qemu(_) => from_guest(node, path, target).await,
        };
        if let Err(why) = copied {
            problems.push(format!("node {}: cannot keep {}: {why}", node.name, path.display()));
        }
    }
    problems
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

fn from_namespace(init: u32, path: &Path, target: &Path) -> Result<(), String> {
    let relative = relative(path)?;
    let source = PathBuf::from(format!("/proc/{init}/root")).join(relative);
    copy(&source, &target.join(relative)).map_err(|error| error.to_string())
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

/// Copies a file or a directory with what is in it. Links and devices are left out: they would
/// point into the host.
fn copy(source: &Path, target: &Path) -> std::io::Result<()> {
    let kind = source.symlink_metadata()?.file_type();
    if kind.is_dir() {
        std::fs::create_dir_all(target)?;
        for entry in std::fs::read_dir(source)? {
            let entry = entry?;
            copy(&entry.path(), &target.join(entry.file_name()))?;
        }
    } else if kind.is_file() {
        if let Some(parent) = target.parent() {
            std::fs::create_dir_all(parent)?;
        }
        std::fs::copy(source, target)?;
    }
    Ok(())
}

async fn from_guest(node: &RunningNode, path: &Path, target: &Path) -> Result<(), String> {
    /// A serial console carries about this much in half a minute.
    const LARGEST: usize = 8 << 20;
    let relative = relative(path)?;
    std::fs::create_dir_all(target).map_err(|error| error.to_string())?;
    let archive = target.join(".archive.tar");
    let quoted = relative.to_string_lossy().replace('\'', r"'\''");
    let options = RunOptions { output_file: Some(archive.clone()), ..RunOptions::default() };
    let command = format!(
        "cd / && test -e './{quoted}' && tar -cf - './{quoted}' 2>/dev/null | head -c {LARGEST}"
    );
    let finished = node.shell.0.run(&command, &options).await.map_err(|error| error.to_string())?;
    if finished.status != 0 {
        let _ = std::fs::remove_file(&archive);
        return Err("there is no such file, or the guest has no tar".to_owned());
    }
    let unpacked = tokio::process::Command::new("tar")
        .args(["--no-same-owner", "-xf"])
        .arg(&archive)
        .arg("-C")
        .arg(target)
        .output()
        .await;
    let _ = std::fs::remove_file(&archive);
    match unpacked {
        Ok(output) if output.status.success() => Ok(()),
        Ok(output) => Err(format!("tar: {}", String::from_utf8_lossy(&output.stderr).trim())),
        Err(error) => Err(format!("tar: {error}")),
    }
}
