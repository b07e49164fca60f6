//! Arrival times of two runs against each other.
//!
//! Purpose: where both runs captured a link, how far apart in time the same frames arrived. Frames
//! carry identifiers and time stamps of their own, so their bytes differ between runs; *the same*
//! frame is the k-th one at an interface with the same hardware addresses, type, IP protocol and
//! length. Times count from the first such frame of the run, since one run boots and the other does not.
//!
//! Not told apart from timing: what starts tasks later in one run, such as the time to arm commands.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::BufReader;
use std::path::{Path, PathBuf};

use pcap_file::DataLink;
use pcap_file::pcapng::blocks::block_common::Block;
use pcap_file::pcapng::blocks::enhanced_packet::EnhancedPacketOption;
use pcap_file::pcapng::blocks::interface_description::InterfaceDescriptionOption;
use pcap_file::pcapng::{PcapNgReadError, PcapNgReader};
use serde::Serialize;

use super::EndedRun;

/// A capture that cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum ArrivalsError {
    /// The file is not there.
    #[error("cannot open the capture {path}: {source}")]
    Open {
        /// The file.
        path: PathBuf,
        /// The system's answer.
        source: std::io::Error,
    },
    /// The file is damaged.
    #[error("cannot read the capture {path}: {source}")]
    Read {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        source: PcapNgReadError,
    },
}

/// How far apart frames of a link arrived in two runs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Arrivals {
    /// The link.
    pub link: String,
    /// The run compared with A.
    pub directory: PathBuf,
    /// Frames that arrived in both.
    pub frames: u64,
    /// Frames that arrived in A only.
    pub only_a: u64,
    /// Frames that arrived in B only.
    pub only_b: u64,
    /// Median of the differences B − A, ns.
    pub median_ns: i64,
    /// 99th percentile of their magnitudes, ns.
    pub p99_ns: u64,
    /// Greatest magnitude, ns.
    pub max_ns: u64,
}

/// What makes a frame the same in both runs: interface, addresses and type, IP protocol, length.
type Key = (String, [u8; 14], u8, usize);
/// Arrival times in ns by frame.
type Times = BTreeMap<Key, Vec<i64>>;

/// Arrivals on the links that both runs captured.
pub(super) fn compare(a_run: &EndedRun, b_run: &EndedRun) -> Result<Vec<Arrivals>, ArrivalsError> {
    let (of_a, of_b) = (read_run(a_run)?, read_run(b_run)?);
    let common = || {
        let links = of_a.iter().filter_map(|(link, times)| Some((link, times, of_b.get(link)?)));
        links.collect::<Vec<_>>()
    };
    // Where time begins: the first frame that both have.
    let firsts = common().into_iter().flat_map(|(_, a, b)| {
        a.iter().filter_map(|(key, times)| Some((*times.first()?, *b.get(key)?.first()?)))
    });
    let Some((start_a, start_b)) = firsts.min() else { return Ok(Vec::new()) };
    let arrivals = |(link, a, b): (&String, &Times, &Times)| {
        let (mut only_a, mut only_b) = (0, 0);
        let mut differences = Vec::new();
        for key in a.keys().chain(b.keys().filter(|key| !a.contains_key(*key))) {
            let (of_a, of_b) = (times(a, key), times(b, key));
            let pairs = of_a.iter().zip(of_b);
            differences.extend(pairs.map(|(a, b)| (b - start_b) - (a - start_a)));
            only_a += of_a.len().saturating_sub(of_b.len()) as u64;
            only_b += of_b.len().saturating_sub(of_a.len()) as u64;
        }
        differences.sort_unstable();
        let mut sizes: Vec<u64> = differences.iter().map(|d| d.unsigned_abs()).collect();
        sizes.sort_unstable();
        let at = |share: f64| ((sizes.len() as f64 * share).ceil() as usize).saturating_sub(1);
        Arrivals {
            link: link.clone(),
            directory: b_run.directory.clone(),
            frames: differences.len() as u64,
            only_a,
            only_b,
            median_ns: differences.get(at(0.5)).copied().unwrap_or_default(),
            p99_ns: sizes.get(at(0.99)).copied().unwrap_or_default(),
            max_ns: sizes.last().copied().unwrap_or_default(),
        }
    };
    Ok(common().into_iter().map(arrivals).collect())
}

fn times<'t>(times: &'t Times, key: &Key) -> &'t [i64] {
    times.get(key).map_or(&[], Vec::as_slice)
}

/// Arrival times by captured link.
fn read_run(run: &EndedRun) -> Result<BTreeMap<String, Times>, ArrivalsError> {
    let mut links = BTreeMap::new();
    for capture in run.results.captures.as_array().into_iter().flatten() {
        let Some(link) = capture["link"].as_str() else { continue };
        let times: &mut Times = links.entry(link.to_owned()).or_default();
        for file in capture["files"].as_array().into_iter().flatten() {
            // Absolute names stay what they are.
            let path = run.directory.join(file.as_str().unwrap_or_default());
            read_file(&path, times)?;
        }
    }
    Ok(links)
}

fn read_file(path: &Path, times: &mut Times) -> Result<(), ArrivalsError> {
    let read = |source| ArrivalsError::Read { path: path.to_owned(), source };
    let file =
        File::open(path).map_err(|source| ArrivalsError::Open { path: path.to_owned(), source })?;
    let mut reader = PcapNgReader::new(BufReader::new(file)).map_err(read)?;
    let mut interfaces = Vec::new();
    while let Some(block) = reader.next_block() {
        match block.map_err(read)?.0 {
            Block::InterfaceDescription(interface) if interface.linktype == DataLink::ETHERNET => {
                let name = interface.options.iter().find_map(|option| match option {
                    InterfaceDescriptionOption::IfName(name) => Some(name.to_string()),
                    _ => None,
                });
                interfaces.push(name.unwrap_or_default());
            }
            Block::EnhancedPacket(packet) => {
                // Inbound, and not one that was dropped on arrival.
                let arrived = packet.options.iter().all(|option| match option {
                    EnhancedPacketOption::Flags(flags) => flags & 0b11 == 0b01,
                    EnhancedPacketOption::Common(_) => false,
                    _ => true,
                });
                let interface = interfaces.get(packet.interface_id as usize);
                let (Some(interface), Some(head)) = (interface, packet.data.first_chunk::<14>())
                else {
                    continue;
                };
                if arrived {
                    let protocol = match [head[12], head[13]] {
                        [0x08, 0x00] => packet.data.get(23),
                        [0x86, 0xdd] => packet.data.get(20),
                        _ => None,
                    };
                    let protocol = protocol.copied().unwrap_or_default();
                    let key = (interface.clone(), *head, protocol, packet.original_len as usize);
                    let at = i64::try_from(packet.timestamp.as_nanos()).unwrap_or(i64::MAX);
                    times.entry(key).or_default().push(at);
                }
            }
            _ => {}
        }
    }
    Ok(())
}
