//! How a data plane fails, and how others learn of it.

use serde::Serialize;
use tapestry_core::SimTime;
use thiserror::Error;
use tokio::sync::watch;

/// Why a worker ended before it was told to. The run cannot go on.
#[derive(Debug, Clone, PartialEq, Eq, Error, Serialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Failure {
    /// An event was later than the hard limit allows.
    #[error(
        "{event}, due at {:.6} s, ran {:.3} ms late and the hard limit is {limit}; use fewer \
         nodes, less traffic or more cores, or `--sync best-effort`",
        due.as_secs_f64(),
        late.as_secs_f64() * 1e3
    )]
    HardLimit {
        /// Which event.
        event: String,
        /// When it was due, in the run's time.
        due: SimTime,
        /// How late it was.
        late: SimTime,
        /// How late it was allowed to be.
        limit: SimTime,
    },
    /// A worker's thread panicked.
    #[error("the worker of {links} panicked: {message}; this is a bug, please report it")]
    Panicked {
        /// The links that stand still.
        links: String,
        /// What the panic said.
        message: String,
    },
    /// The kernel refused to let a worker wait.
    #[error("the worker of {links} cannot wait for its ports: {message}")]
    Wait {
        /// The links that stand still.
        links: String,
        /// The kernel's answer.
        message: String,
    },
}

/// Tells of the first failure of a data plane. Clones tell the same.
#[derive(Debug, Clone)]
pub struct FailureWatch(pub(crate) watch::Receiver<Option<Failure>>);

impl FailureWatch {
    /// The failure, if there was one by now.
    pub fn so_far(&self) -> Option<Failure> {
        self.0.borrow().clone()
    }

    /// Waits for a failure; `None` once the data plane was stopped without one.
    ///
    /// Cancel-safe; needs no particular runtime.
    pub async fn wait(&mut self) -> Option<Failure> {
        self.0.wait_for(Option::is_some).await.ok()?.clone()
    }
}

/// The links in a few words: ``links `a`, `b` and 7 more``.
pub(crate) fn name_links(links: &[String]) -> String {
    const SHOWN: usize = 4;
    let shown: Vec<String> = links.iter().take(SHOWN).map(|link| format!("`{link}`")).collect();
    let shown = shown.join(", ");
    match links.len() {
        1 => format!("link {shown}"),
        n if n > SHOWN => format!("links {shown} and {} more", n - SHOWN),
        _ => format!("links {shown}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_are_named_up_to_a_readable_number() {
        let links = |n: usize| (0..n).map(|i| format!("l{i}")).collect::<Vec<_>>();
        assert_eq!(name_links(&links(1)), "link `l0`");
        assert_eq!(name_links(&links(2)), "links `l0`, `l1`");
        assert_eq!(name_links(&links(6)), "links `l0`, `l1`, `l2`, `l3` and 2 more");
    }
}
