//! QEMU's standard error: the end of it in memory, all of it in a file.

use std::collections::VecDeque;
use std::io::Write;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::io::{AsyncRead, AsyncReadExt};

/// Most that is kept in memory; QEMU's complaints are a few lines.
const KEPT_BYTES: usize = 16 * 1024;

/// The last bytes a process wrote to its standard error.
#[derive(Debug, Clone, Default)]
pub(super) struct Tail(Arc<Mutex<VecDeque<u8>>>);

impl Tail {
    /// What has been kept so far, without white space at its ends.
    pub(super) fn text(&self) -> String {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        String::from_utf8_lossy(kept.make_contiguous()).trim().to_owned()
    }

    fn push(&self, bytes: &[u8]) {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        kept.extend(bytes);
        let surplus = kept.len().saturating_sub(KEPT_BYTES);
        kept.drain(..surplus);
    }
}

/// Copies `from` to the tail and to the log file until the writer closes it.
///
/// The file appears with the first byte. A log that cannot be written is reported once and does
/// not disturb the guest.
pub(super) async fn pump(mut from: impl AsyncRead + Unpin, tail: Tail, log: Option<PathBuf>) {
    let mut log = log.map(|path| (path, None));
    let mut buffer = [0; 4096];
    while let Ok(count @ 1..) = from.read(&mut buffer).await {
        tail.push(&buffer[..count]);
        if let Some((path, file)) = &mut log
            && let Err(error) = append(path, file, &buffer[..count])
        {
            tracing::warn!(path = %path.display(), %error, "cannot keep QEMU's standard error");
            log = None;
        }
    }
}

fn append(
    path: &std::path::Path,
    file: &mut Option<std::fs::File>,
    bytes: &[u8],
) -> std::io::Result<()> {
    let file = match file {
        Some(file) => file,
        None => file.insert(std::fs::OpenOptions::new().create(true).append(true).open(path)?),
    };
    file.write_all(bytes)
}
