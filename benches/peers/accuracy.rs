//! Configured against measured: delay, loss and rate of links between namespaces, seen from
//! outside by ping and iperf while half the critical load passes.
//!
//! To reach: each within 1 % of what the file says, on both sides. The share of losses is random:
//! its standard error stands beside it.

use std::path::Path;

use anyhow::{Result, ensure};
use clap::Args;

use crate::measure::{System, critical, metric, run};

/// Measure delay, loss and rate of links against the configured values
#[derive(Args)]
pub(crate) struct Accuracy {
    /// Critical load of one link in datagrams per second; without it, it is searched for
    #[arg(long)]
    critical: Option<f64>,
    /// Length of each of the two load runs
    #[arg(long, default_value_t = 15)]
    seconds: u32,
    /// One-way delay, ms
    #[arg(long, default_value_t = 20.0)]
    delay_ms: f64,
    /// Probability of a loss, per cent
    #[arg(long, default_value_t = 10.0)]
    loss_percent: f64,
    /// Rate of the limited link, Mbit/s; 200 are 16,490 full frames a second
    #[arg(long, default_value_t = 200.0)]
    rate_mbit: f64,
}

/// What a figure may be away from its configured value, as a share.
const BOUND: f64 = 0.01;
/// iperf's payload, and the frame that carries it: UDP, IP and Ethernet headers.
const PAYLOAD_BYTES: f64 = 1_470.0;
const FRAME_BYTES: f64 = PAYLOAD_BYTES + 8.0 + 20.0 + 14.0;

impl Accuracy {
    pub(crate) fn measure(&self, systems: &[System], out: &Path) -> Result<()> {
        let Some(system) = systems.iter().find(|system| system.name.starts_with("tapestry")) else {
            return Ok(());
        };
        let critical = match self.critical {
            Some(critical) => critical,
            None => critical(system, 2, 3, None, out)?,
        };
        let sets = [
            format!("pps={}", (critical / 2.0).round()),
            format!("seconds={}", self.seconds),
            format!("delay_ms={}", self.delay_ms),
            format!("loss_percent={}", self.loss_percent),
            format!("rate_mbit={}", self.rate_mbit),
        ];
        let (results, _) = run(system, "benches/peers/accuracy.yaml", &sets, out)?;
        let [rtt_ms, lost, sent, goodput_kbit] =
            ["rtt", "lost", "sent", "goodput"].map(|name| metric(&results, name));
        ensure!(sent > 0.0 && rtt_ms > 0.0, "nothing came through; see {}", out.display());
        let probability = self.loss_percent / 100.0;
        println!(
            "half of {critical:.0} datagrams/s; verdict {}",
            results["verdict"]["state"].as_str().unwrap_or("unknown")
        );
        compare("round trip, ms", 2.0 * self.delay_ms, rtt_ms, 0.0);
        let error = (probability * (1.0 - probability) / sent).sqrt();
        compare("lost, %", self.loss_percent, 100.0 * lost / sent, 100.0 * error);
        let rate_mbit = goodput_kbit / 1e3 * FRAME_BYTES / PAYLOAD_BYTES;
        compare("rate, Mbit/s", self.rate_mbit, rate_mbit, 0.0);
        Ok(())
    }
}

fn compare(what: &str, configured: f64, measured: f64, standard_error: f64) {
    let [low, high] = [1.0 - BOUND, 1.0 + BOUND].map(|factor| configured * factor);
    let within = if (low..=high).contains(&measured) { "within" } else { "OUTSIDE" };
    let error =
        if standard_error > 0.0 { format!(" ± {standard_error:.4}") } else { String::new() };
    println!(
        "{what:<16} configured {configured:>8.3}, measured {measured:>9.4}{error} ({:+.2} %), \
         {within} {low:.3} to {high:.3}",
        100.0 * (measured / configured - 1.0)
    );
}
