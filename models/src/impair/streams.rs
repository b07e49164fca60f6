//! The random streams of one direction.

use tapestry_core::{RandomStream, Streams};

/// The name under which one station's models draw.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Named<'a> {
    pub(crate) streams: Streams,
    pub(crate) link: &'a str,
    pub(crate) station: u32,
}

impl Named<'_> {
    /// The stream for one purpose, from its beginning.
    pub(super) fn stream(&self, purpose: &str) -> RandomStream {
        let component = format!("link/{}/station/{}", self.link, self.station);
        self.streams.stream(&component, purpose)
    }
}
