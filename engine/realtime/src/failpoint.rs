//! A way to break a worker of a whole lab, for tests.
//!
//! Purpose: what a panic of a worker does to a run shows only if one panics, and nothing that a node
//! or a user does may bring that about. So in builds with debug assertions (those of `cargo test`)
//! `TAPESTRY_PANIC_AT=LINK:BYTES` in the environment has the worker panic that reads a frame of so many
//! bytes on this link. Release builds do not look.

use tapestry_models::{Frame, LinkId};

const VARIABLE: &str = "TAPESTRY_PANIC_AT";

/// Where a worker panics.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Failpoint {
    link: LinkId,
    frame_bytes: usize,
}

impl Failpoint {
    /// What the environment asks of the worker of these links, if anything.
    pub(crate) fn of(links: &[String]) -> Option<Self> {
        if !cfg!(debug_assertions) {
            return None;
        }
        Self::parse(&std::env::var(VARIABLE).ok()?, links)
    }

    fn parse(text: &str, links: &[String]) -> Option<Self> {
        let (link, bytes) = text.rsplit_once(':')?;
        let number = links.iter().position(|name| name == link)?;
        Some(Self { link: LinkId(number as u32), frame_bytes: bytes.parse().ok()? })
    }

    /// Panics if one of the frames is the one.
    pub(crate) fn pass(self, link: LinkId, frames: &[Frame]) {
        let met = link == self.link && frames.iter().any(|frame| frame.len() == self.frame_bytes);
        assert!(!met, "{VARIABLE} asked for it");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failpoint_is_of_the_worker_that_has_the_link() {
        let links = ["a", "b:c"].map(str::to_owned);
        let at = |text| Failpoint::parse(text, &links);
        assert_eq!(at("b:c:60"), Some(Failpoint { link: LinkId(1), frame_bytes: 60 }));
        assert_eq!((at("x:60"), at("a:many"), at("a")), (None, None, None));
    }

    #[test]
    #[should_panic(expected = "asked for it")]
    fn a_failpoint_panics_at_its_frame() {
        let failpoint = Failpoint { link: LinkId(1), frame_bytes: 60 };
        failpoint.pass(LinkId(0), &[vec![0; 60].into()]);
        failpoint.pass(LinkId(1), &[vec![0; 61].into()]);
        failpoint.pass(LinkId(1), &[vec![0; 61].into(), vec![0; 60].into()]);
    }
}
