//! Wall clock, data-plane workers, ports and the lateness ledger.
