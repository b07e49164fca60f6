//! Files that appear whole or not at all: a full disk leaves what was there before.

use std::fs::{self, File};
use std::io;
use std::path::Path;

/// Writes a file under another name beside it, and gives it its own when all is written.
pub(crate) fn write<T>(path: &Path, content: impl FnOnce(&File) -> io::Result<T>) -> io::Result<T> {
    let partial = path.with_added_extension("part");
    let done = File::create(&partial).and_then(|file| content(&file)).and_then(|value| {
        fs::rename(&partial, path)?;
        Ok(value)
    });
    if done.is_err() {
        let _ = fs::remove_file(&partial);
    }
    done
}

/// The same for bytes.
pub(crate) fn write_bytes(path: &Path, bytes: impl AsRef<[u8]>) -> io::Result<()> {
    write(path, |mut file| io::Write::write_all(&mut file, bytes.as_ref()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_written_leaves_what_was_there() {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("report.html");
        write_bytes(&path, "first").unwrap();
        let failed = write(&path, |mut file| {
            io::Write::write_all(&mut file, b"half of the sec")?;
            Err::<(), _>(io::Error::from(io::ErrorKind::StorageFull))
        });
        assert_eq!(failed.unwrap_err().kind(), io::ErrorKind::StorageFull);
        assert_eq!(fs::read(&path).unwrap(), b"first");
        assert_eq!(fs::read_dir(place.path()).unwrap().count(), 1);
    }
}
