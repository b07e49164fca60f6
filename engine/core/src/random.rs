//! Named random streams.
//!
//! Purpose: (seed, run, component path, purpose) names a generator. Two different names give
//! independent streams, and a stream depends on nothing but its name: adding a link does not
//! change what another link draws, and neither does the order in which streams are made.
//!
//! Assumptions: the mapping is part of the results' reproducibility and never changes. The
//! generator is `ChaCha` with 8 rounds, whose 256-bit seed is the SHA-256 digest of the text
//! `tapestry-stream-1`, then seed and run as 64-bit little-endian numbers, then component and
//! purpose, each preceded by its length in bytes as a 64-bit little-endian number.
//!
//! Reference: RFC 8439 (`ChaCha`), FIPS 180-4 (SHA-256); ns-3 manual, "Random variables", for the
//! split of seed and run number.

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng;
use sha2::{Digest, Sha256};

/// The generator of a stream; the same numbers on every platform.
pub type RandomStream = ChaCha8Rng;

/// The root of all streams of one run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Streams {
    seed: u64,
    run: u64,
}

impl Streams {
    /// The streams of repetition `run` of an experiment with this `seed`.
    pub const fn new(seed: u64, run: u64) -> Self {
        Self { seed, run }
    }

    /// The generator for one `purpose` of the component at `component`, from its beginning.
    pub fn stream(&self, component: &str, purpose: &str) -> RandomStream {
        let mut hash = Sha256::new();
        hash.update(b"tapestry-stream-1");
        hash.update(self.seed.to_le_bytes());
        hash.update(self.run.to_le_bytes());
        for text in [component, purpose] {
            hash.update((text.len() as u64).to_le_bytes());
            hash.update(text.as_bytes());
        }
        RandomStream::from_seed(hash.finalize().into())
    }
}

#[cfg(test)]
mod tests {
    use rand::Rng;

    use super::*;

    fn draws(streams: Streams, component: &str, purpose: &str) -> [u64; 4] {
        let mut stream = streams.stream(component, purpose);
        std::array::from_fn(|_| stream.next_u64())
    }

    #[test]
    fn every_part_of_the_name_matters() {
        let base = draws(Streams::new(1, 1), "link/a", "backoff");
        assert_eq!(base, draws(Streams::new(1, 1), "link/a", "backoff"));
        assert_ne!(base, draws(Streams::new(2, 1), "link/a", "backoff"));
        assert_ne!(base, draws(Streams::new(1, 2), "link/a", "backoff"));
        assert_ne!(base, draws(Streams::new(1, 1), "link/b", "backoff"));
        assert_ne!(base, draws(Streams::new(1, 1), "link/a", "loss"));
        // Lengths are hashed, so the border between the texts matters too.
        assert_ne!(draws(Streams::new(1, 1), "ab", "c"), draws(Streams::new(1, 1), "a", "bc"));
    }

    #[test]
    fn another_component_changes_nothing() {
        let streams = Streams::new(7, 3);
        let alone = draws(streams, "link/a", "backoff");
        let mut other = streams.stream("link/new", "backoff");
        other.next_u64();
        assert_eq!(alone, draws(streams, "link/a", "backoff"));
    }

    #[test]
    fn the_mapping_never_changes() {
        assert_eq!(draws(Streams::new(42, 0), "lan/0", "backoff"), GOLDEN);
    }

    /// Drawn once; a difference means that old results can no longer be reproduced.
    const GOLDEN: [u64; 4] = [
        7_679_047_340_599_182_207,
        8_357_469_566_531_007_361,
        17_899_658_217_087_157_781,
        7_318_183_713_008_538_720,
    ];
}
