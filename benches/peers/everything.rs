//! The critical load of a link with every impairment switched on, beside a plain link of the same
//! rate and delay: the chain of two namespaces of `topologies/chain.yaml` with other links.
//!
//! To reach: at least 0.7 of the plain link's.

use std::path::Path;

use anyhow::{Result, ensure};
use clap::Args;

use crate::measure::{System, critical, median};

/// Measure the critical load of a link with everything switched on, and of a plain one
#[derive(Args)]
pub(crate) struct Everything {
    /// How often both are measured, in turns
    #[arg(long, default_value_t = 1)]
    rounds: usize,
    /// Length of each run of the search
    #[arg(long, default_value_t = 2)]
    seconds: usize,
}

/// What the file says about its links.
const LINK: &str = "    channel: csma\n    rate: ${rate}\n    delay: ${delay}\n";
const PLAIN: &str =
    "    channel: point-to-point\n    rate: 10Gbit/s\n    delay: 1ms\n    queue: 10000\n";
/// Rare losses: the critical load is one of which 99 % arrive.
const IMPAIRMENTS: &str = "    burst: 64KiB
    peak: 20Gbit/s
    slot: { min: 50us, max: 100us }
    jitter: { time: 200us, distribution: pareto-normal, correlation: 25%, beyond_delay: clamp }
    loss: { gilbert_elliott: { p: 0.01%, r: 20% } }
    corrupt: { probability: 0.01%, correlation: 25% }
    duplicate: { probability: 0.1%, correlation: 25% }
    reorder: { probability: 1%, correlation: 25%, gap: 5 }
";

impl Everything {
    pub(crate) fn measure(&self, systems: &[System], out: &Path) -> Result<()> {
        let Some(system) = systems.iter().find(|system| system.name.starts_with("tapestry")) else {
            return Ok(());
        };
        let chain = std::fs::read_to_string("topologies/chain.yaml")?;
        ensure!(chain.contains(LINK), "topologies/chain.yaml says something else about its links");
        let with = |name: &str, link: &str| -> Result<System> {
            let file = out.join(name);
            std::fs::write(&file, chain.replace(LINK, link))?;
            Ok(System { chain: file, ..system.clone() })
        };
        let plain = with("plain.yaml", PLAIN)?;
        let impaired = with("everything.yaml", &format!("{PLAIN}{IMPAIRMENTS}"))?;
        let mut ratios = Vec::new();
        let mut near = None;
        for _ in 0..self.rounds {
            let without = critical(&plain, 2, self.seconds, near, out)?;
            let everything = critical(&impaired, 2, self.seconds, Some(without), out)?;
            near = Some(without);
            let ratio = everything / without;
            println!(
                "plain {without:.0} datagrams/s, everything switched on {everything:.0}: {ratio:.2}"
            );
            ratios.push(ratio);
        }
        println!("median {:.2}, to reach 0.70", median(&ratios));
        Ok(())
    }
}
