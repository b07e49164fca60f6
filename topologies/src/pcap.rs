//! Frames from capture files.
//!
//! Purpose: the Ethernet frames of a pcap or pcapng file and the time between them.
//!
//! Assumptions: a frame that was captured in part had zeros where nothing is known; a frame that is
//! stamped earlier than the one first in the file leaves with that one.
//!
//! Not modelled: other link types, which are refused; statistics and names, which are passed over.
//!
//! Reference: draft-ietf-opsawg-pcap, draft-ietf-opsawg-pcapng.

use std::time::Duration;

use pcap_file::DataLink;
use pcap_file::pcap::{PcapReadError, PcapReader};
use pcap_file::pcapng::{Block, PcapNgReadError, PcapNgReader};
use tapestry_core::SimTime;

/// Why there are no frames in a file.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CaptureError {
    /// It is broken or something else.
    #[error("not a pcap file: {0}")]
    Pcap(#[from] PcapReadError),
    /// The same for pcapng.
    #[error("not a pcapng file: {0}")]
    PcapNg(#[from] PcapNgReadError),
    /// Frames of another link layer.
    #[error("its link type is {0:?}, not ETHERNET")]
    LinkType(DataLink),
    /// A packet without time.
    #[error("it holds packets without time (simple packet blocks)")]
    Timeless,
    /// More than fit.
    #[error("it holds more than {0} frames")]
    TooMany(u64),
}

/// First four bytes of a pcapng file: the type of a section header block.
const PCAPNG: [u8; 4] = [0x0a, 0x0d, 0x0d, 0x0a];
/// Whatever a file claims, a frame is not padded beyond this.
const LONGEST_BYTES: usize = 14 + 65_535;

/// The frames of a capture in the order of the file, each with the time from the first; at most
/// `limit` of them.
pub(crate) fn frames(file: &[u8], limit: u64) -> Result<Vec<(SimTime, Vec<u8>)>, CaptureError> {
    let mut frames = Frames { first: None, all: Vec::new(), limit };
    if !file.starts_with(&PCAPNG) {
        let mut reader = PcapReader::new(file)?;
        if reader.header().datalink != DataLink::ETHERNET {
            return Err(CaptureError::LinkType(reader.header().datalink));
        }
        while let Some(packet) = reader.next_packet() {
            let packet = packet?;
            frames.add(packet.timestamp(), packet.orig_len(), packet.data())?;
        }
        return Ok(frames.all);
    }
    let mut reader = PcapNgReader::new(file)?;
    while let Some(block) = reader.next_block() {
        match block?.0 {
            Block::InterfaceDescription(interface) if interface.linktype != DataLink::ETHERNET => {
                return Err(CaptureError::LinkType(interface.linktype));
            }
            Block::EnhancedPacket(packet) => {
                frames.add(packet.timestamp, packet.original_len, &packet.data)?;
            }
            Block::SimplePacket(_) => return Err(CaptureError::Timeless),
            _ => {}
        }
    }
    Ok(frames.all)
}

struct Frames {
    first: Option<Duration>,
    all: Vec<(SimTime, Vec<u8>)>,
    limit: u64,
}

impl Frames {
    fn add(&mut self, at: Duration, length: u32, data: &[u8]) -> Result<(), CaptureError> {
        if self.all.len() as u64 == self.limit {
            return Err(CaptureError::TooMany(self.limit));
        }
        let behind = at.saturating_sub(*self.first.get_or_insert(at)).as_nanos();
        let mut bytes = data.to_vec();
        bytes.resize((length as usize).min(LONGEST_BYTES).max(data.len()), 0);
        let behind = SimTime::from_nanos(u64::try_from(behind).unwrap_or(u64::MAX));
        self.all.push((behind, bytes));
        Ok(())
    }
}

#[cfg(test)]
mod tests;
