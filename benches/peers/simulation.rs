//! Virtual time beside ns-3's default simulator: hop-packets per second of wall time.

use std::path::Path;
use std::process::Command;
use std::time::Instant;

use anyhow::{Context, Result, bail};
use tapestry_core::SimTime;
use tapestry_models::DeviceId;

#[path = "../../models/benches/chain/network.rs"]
mod chain;

/// A simulator of chains.
pub(crate) struct Simulator {
    pub(crate) name: &'static str,
    pub(crate) run: Box<dyn Fn(u32) -> Result<f64>>,
}

/// What can be measured here; says what cannot and why.
pub(crate) fn simulators(out: &Path, datagrams: u64) -> Result<Vec<Simulator>> {
    let ours = move |nodes| tapestry(nodes, datagrams);
    let mut simulators = vec![Simulator { name: "tapestry, virtual", run: Box::new(ours) }];
    let program = std::path::absolute(out)?.join("ns3_virtual");
    let libraries = ["core", "network", "csma", "bridge", "internet", "applications"];
    let built = Command::new("g++")
        .args(["-std=c++17", "-O2", "-o"])
        .arg(&program)
        .arg("benches/peers/ns3_virtual.cc")
        .args(libraries.map(|library| format!("-lns3-{library}")))
        .output();
    match built {
        Ok(output) if output.status.success() => {
            // A tenth of the work takes ns-3 longer than us.
            let theirs = move |nodes| ns3(&program, nodes, datagrams / 10);
            simulators.push(Simulator { name: "ns-3, virtual", run: Box::new(theirs) });
        }
        _ => println!(
            "ns-3 is left out: it needs g++ and libns3-dev (apt-get install libns3-dev g++)"
        ),
    }
    Ok(simulators)
}

fn tapestry(nodes: u32, datagrams: u64) -> Result<f64> {
    let mut network = chain::network(nodes - 1, datagrams);
    let start = Instant::now();
    network.run_until(SimTime::MAX)?;
    let seconds = start.elapsed().as_secs_f64();
    let received = network.source(DeviceId(1)).map_or(0, |sink| sink.received().frames);
    if received != datagrams {
        bail!("{received} of {datagrams} datagrams arrived");
    }
    Ok((received * u64::from(nodes - 1)) as f64 / seconds)
}

fn ns3(program: &Path, nodes: u32, datagrams: u64) -> Result<f64> {
    let output = Command::new(program).args([nodes.to_string(), datagrams.to_string()]).output()?;
    let text = String::from_utf8(output.stdout)?;
    let (received, seconds) = text.trim().split_once(' ').context("ns3_virtual printed nothing")?;
    let received: u64 = received.parse()?;
    // One more goes ahead, so that addresses are known.
    if received != datagrams + 1 {
        bail!("ns-3: {received} of {} datagrams arrived", datagrams + 1);
    }
    Ok((received * u64::from(nodes - 1)) as f64 / seconds.parse::<f64>()?)
}
