//! What is to be captured, and what came of it.

use std::convert::Infallible;
use std::path::PathBuf;
use std::str::FromStr;

use serde::Serialize;

/// One capture: a link, or some of its interfaces, into files of its own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CaptureSpec {
    /// Name of the link.
    pub link: String,
    /// Only at this endpoint: `node:interface`, or a node's name for all its interfaces on the
    /// link. `None`: at all endpoints, those of in-process devices included.
    pub endpoint: Option<String>,
    /// Where the files go; made if it is not there.
    pub directory: PathBuf,
    /// Bytes kept of each frame; 0 keeps whole frames.
    pub snap_length: usize,
    /// A file is closed with the frame that brings it to this many bytes, so it is longer by at
    /// most this frame and the closing statistics.
    pub file_bytes: u64,
    /// Files kept, at least 1: beyond them the oldest is deleted.
    pub files: usize,
}

impl CaptureSpec {
    /// 256 KiB, as Wireshark has it: whole frames, whatever the MTU.
    pub const SNAP_LENGTH: usize = 262_144;
    /// 64 MiB: opens in Wireshark within a second or two.
    pub const FILE_BYTES: u64 = 64 << 20;
    /// With [`Self::FILE_BYTES`], at most 512 MiB per capture.
    pub const FILES: usize = 8;

    /// A capture of all endpoints of a link with the default limits.
    pub fn new(link: impl Into<String>, directory: impl Into<PathBuf>) -> Self {
        Self {
            link: link.into(),
            endpoint: None,
            directory: directory.into(),
            snap_length: Self::SNAP_LENGTH,
            file_bytes: Self::FILE_BYTES,
            files: Self::FILES,
        }
    }
}

/// What a user names: `all`, `LINK`, `LINK:NODE` or `LINK:NODE:INTERFACE`.
///
/// Any text is one of these; whether the names exist shows at the start of the data plane.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CaptureTarget {
    /// Every link.
    All,
    /// One link.
    Link {
        /// Name of the link.
        link: String,
        /// As in [`CaptureSpec::endpoint`].
        endpoint: Option<String>,
    },
}

impl FromStr for CaptureTarget {
    type Err = Infallible;

    fn from_str(text: &str) -> Result<Self, Infallible> {
        Ok(match text.split_once(':') {
            None if text == "all" => Self::All,
            None => Self::Link { link: text.to_owned(), endpoint: None },
            Some((link, endpoint)) => {
                Self::Link { link: link.to_owned(), endpoint: Some(endpoint.to_owned()) }
            }
        })
    }
}

/// What came of a capture. `frames = Σ interfaces.frames`, and every frame that the link showed to
/// the capture is in `frames` or in `skipped`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct CaptureReport {
    /// The link.
    pub link: String,
    /// The endpoint, if not all were captured.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub endpoint: Option<String>,
    /// The files that are left, oldest first.
    pub files: Vec<PathBuf>,
    /// Frames written.
    pub frames: u64,
    /// Bytes of those frames as written, that is up to the snap length.
    pub bytes: u64,
    /// Frames among `frames` whose file was deleted to make room for later ones.
    pub rotated_out: u64,
    /// Frames not written because the writer was behind or had failed.
    pub skipped: u64,
    /// The same by interface, in the order of the link's endpoints.
    pub interfaces: Vec<CapturedInterface>,
    /// The start of the run in ns since the Unix epoch: a time stamp minus this is the run's time.
    pub run_start_unix_ns: u64,
    /// Why it ended before the run did.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

impl CaptureReport {
    /// The report of a capture whose writer has panicked.
    pub(super) fn panicked(link: String, endpoint: Option<String>) -> Self {
        let error = "the thread that writes captures panicked; this is a bug, please report it";
        Self {
            link,
            endpoint,
            files: Vec::new(),
            frames: 0,
            bytes: 0,
            rotated_out: 0,
            skipped: 0,
            interfaces: Vec::new(),
            run_start_unix_ns: 0,
            error: Some(error.to_owned()),
        }
    }
}

/// One interface of a capture.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct CapturedInterface {
    /// `node:interface`.
    pub endpoint: String,
    /// Frames written.
    pub frames: u64,
    /// Frames not written.
    pub skipped: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets_as_users_write_them() {
        let link = |link: &str, endpoint: Option<&str>| CaptureTarget::Link {
            link: link.into(),
            endpoint: endpoint.map(str::to_owned),
        };
        for (text, target) in [
            ("all", CaptureTarget::All),
            ("lan", link("lan", None)),
            ("lan:n0", link("lan", Some("n0"))),
            ("lan:n0:eth1", link("lan", Some("n0:eth1"))),
            ("all:n0", link("all", Some("n0"))),
        ] {
            assert_eq!(text.parse(), Ok(target), "{text}");
        }
    }
}
