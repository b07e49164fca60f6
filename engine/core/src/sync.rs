//! What a run does about events that are late.
//!
//! Reference: ns-3 `RealtimeSimulatorImpl::SynchronizationMode`.

use std::fmt;
use std::str::FromStr;

use thiserror::Error;

use crate::decimal::text_serde;
use crate::{ParseQuantityError, SimTime};

/// What happens when the wall clock is ahead of an event.
///
/// As text: `best-effort`, `hard-limit` (100 ms), `hard-limit=50ms`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum SyncPolicy {
    /// Late events run late, and by how much is recorded.
    #[default]
    BestEffort,
    /// The run ends when an event is later than this.
    HardLimit(SimTime),
}

impl SyncPolicy {
    /// The limit of `hard-limit` without a value; ns-3's default.
    pub const DEFAULT_LIMIT: SimTime = SimTime::from_millis(100);

    /// Whether an event that is `lateness` late is still tolerated.
    pub fn tolerates(self, lateness: SimTime) -> bool {
        match self {
            Self::BestEffort => true,
            Self::HardLimit(limit) => lateness <= limit,
        }
    }
}

/// Why a text is not a synchronisation policy.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum ParseSyncPolicyError {
    /// The policy is not known.
    #[error("`{text}` is not a policy; write `best-effort`, `hard-limit` or `hard-limit=50ms`")]
    Unknown {
        /// The text as given.
        text: String,
    },
    /// The limit is not a time.
    #[error("the limit in `{text}` is not a time: {source}")]
    Limit {
        /// The text as given.
        text: String,
        /// What is wrong with the limit.
        source: ParseQuantityError,
    },
}

impl FromStr for SyncPolicy {
    type Err = ParseSyncPolicyError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.split_once('=') {
            None if text == "best-effort" => Ok(Self::BestEffort),
            None if text == "hard-limit" => Ok(Self::HardLimit(Self::DEFAULT_LIMIT)),
            Some(("hard-limit", limit)) => limit
                .parse()
                .map(Self::HardLimit)
                .map_err(|source| ParseSyncPolicyError::Limit { text: text.to_owned(), source }),
            _ => Err(ParseSyncPolicyError::Unknown { text: text.to_owned() }),
        }
    }
}

impl fmt::Display for SyncPolicy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::BestEffort => f.write_str("best-effort"),
            Self::HardLimit(limit) => write!(f, "hard-limit={limit}"),
        }
    }
}

text_serde!(SyncPolicy, "`best-effort`, `hard-limit` or `hard-limit=50ms`");

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn policies_read_and_print() {
        for (text, policy, printed) in [
            ("best-effort", SyncPolicy::BestEffort, "best-effort"),
            ("hard-limit", SyncPolicy::HardLimit(SimTime::from_millis(100)), "hard-limit=100ms"),
            ("hard-limit=50ms", SyncPolicy::HardLimit(SimTime::from_millis(50)), "hard-limit=50ms"),
        ] {
            assert_eq!(text.parse(), Ok(policy));
            assert_eq!(policy.to_string(), printed);
            let json = serde_json::to_string(&policy).unwrap();
            assert_eq!(serde_json::from_str::<SyncPolicy>(&json).unwrap(), policy);
        }
        assert!(matches!("hard".parse::<SyncPolicy>(), Err(ParseSyncPolicyError::Unknown { .. })));
        assert!(matches!(
            "hard-limit=50".parse::<SyncPolicy>(),
            Err(ParseSyncPolicyError::Limit { .. })
        ));
        assert!(matches!(
            "best-effort=1s".parse::<SyncPolicy>(),
            Err(ParseSyncPolicyError::Unknown { .. })
        ));
    }

    #[test]
    fn the_limit_itself_is_tolerated() {
        let policy = SyncPolicy::HardLimit(SimTime::from_millis(50));
        assert!(policy.tolerates(SimTime::from_millis(50)));
        assert!(!policy.tolerates(SimTime::from_nanos(50_000_001)));
        assert!(SyncPolicy::BestEffort.tolerates(SimTime::MAX));
    }
}
