//! The blocks that a capture has a million of.
//!
//! Purpose: enhanced packet blocks, written straight to where they leave for the file; the general
//! encoder of `pcap-file`, which writes everything else, would copy each frame once more and allocate
//! its options. And a block that fills a gap. Times are nanoseconds since the Unix epoch in
//! interfaces that say so.
//!
//! Reference: draft-ietf-opsawg-pcapng, sections 4.3, 4.6 and 3.5.

use std::ops::Range;

use tapestry_models::DropReason;

use super::recorder::Direction;

const ENHANCED_PACKET: u32 = 6;
const INTERFACE_STATISTICS: u32 = 5;
const COMMENT: u16 = 1;
const FLAGS: u16 = 2;
/// Type and total length before, total length behind.
const FRAME_BYTES: usize = 12;
/// Interface, time, captured and original length.
const PACKET_BYTES: usize = 20;
/// Interface and time.
const STATISTICS_BYTES: usize = 12;
/// Code and length of an option.
const OPTION_BYTES: usize = 4;
/// The option that ends the others.
const END_BYTES: usize = OPTION_BYTES;
/// Before the reason in a dropped frame's comment.
const DROPPED: &str = "dropped: ";
/// A shorter gap than this cannot be filled.
const LEAST_FILLING: usize = FRAME_BYTES + STATISTICS_BYTES;
/// What stands where the file goes on later.
const MORE: &[u8] = b"The capture goes on from here.";

/// A frame at an interface.
pub(super) struct Packet<'a> {
    pub(super) interface: u32,
    pub(super) unix_ns: u64,
    /// As many bytes as are kept.
    pub(super) data: &'a [u8],
    pub(super) original_bytes: usize,
    pub(super) direction: Direction,
    pub(super) dropped: Option<DropReason>,
}

impl Packet<'_> {
    /// Bytes of the block; a multiple of four, like those of every block.
    pub(super) fn block_bytes(&self) -> usize {
        let comment = self.dropped.map_or(0, |reason| {
            OPTION_BYTES + (DROPPED.len() + reason.as_str().len()).next_multiple_of(4)
        });
        let flags = OPTION_BYTES + 4;
        FRAME_BYTES
            + PACKET_BYTES
            + self.data.len().next_multiple_of(4)
            + flags
            + comment
            + END_BYTES
    }

    /// Writes the block, which has exactly the space of [`Self::block_bytes`].
    pub(super) fn write(&self, space: &mut [u8]) {
        let total = space.len() as u32;
        let mut to = Cursor(space);
        to.word(ENHANCED_PACKET);
        to.word(total);
        to.word(self.interface);
        to.time(self.unix_ns);
        to.word(self.data.len() as u32);
        to.word(self.original_bytes as u32);
        to.padded(&[self.data]);
        to.option(
            FLAGS,
            &[&u32::to_ne_bytes(match self.direction {
                Direction::Inbound => 0b01,
                Direction::Outbound => 0b10,
            })],
        );
        if let Some(reason) = self.dropped {
            to.option(COMMENT, &[DROPPED.as_bytes(), reason.as_str().as_bytes()]);
        }
        to.option(0, &[]);
        to.word(total);
    }
}

/// Bytes to [`fill`] behind so many, until the last of the disk's blocks is full.
pub(super) fn gap(len: usize, disk_block: usize) -> usize {
    match len.next_multiple_of(disk_block) - len {
        0 => 0,
        // A gap that is too short takes a block of the disk more.
        short if short < LEAST_FILLING => short + disk_block,
        enough => enough,
    }
}

/// Fills `space` (as long as [`gap`] has it) with a block that readers
/// understand and that says nothing: statistics of the first interface without any.
pub(super) fn fill(space: &mut [u8], unix_ns: u64) {
    let total = space.len() as u32;
    let mut to = Cursor(space);
    to.word(INTERFACE_STATISTICS);
    to.word(total);
    to.word(0);
    to.time(unix_ns);
    let left = to.0.len() - 4;
    if let Some(comment) = left.checked_sub(OPTION_BYTES + END_BYTES) {
        let text = &MORE[..MORE.len().min(comment)];
        to.half(COMMENT);
        to.half(comment as u16);
        let (space, rest) = std::mem::take(&mut to.0).split_at_mut(comment);
        space.fill(b' ');
        space[..text.len()].copy_from_slice(text);
        to.0 = rest;
    }
    if left > 0 {
        to.option(0, &[]);
    }
    to.word(total);
}

/// A frame in a block: its interface and how many of its bytes were kept.
pub(super) type Kept = (u32, u32);

/// The blocks that are whole in what was encoded: where each is, and the frame in it.
pub(super) fn whole_blocks(
    bytes: &[u8],
) -> impl Iterator<Item = (Range<usize>, Option<Kept>)> + '_ {
    let word = move |at: usize| {
        let word: [u8; 4] = bytes.get(at..at + 4)?.try_into().ok()?;
        Some(u32::from_ne_bytes(word))
    };
    let mut at = 0;
    std::iter::from_fn(move || {
        let (kind, total) = (word(at)?, word(at + 4)? as usize);
        let kept = word(at + 8).zip(word(at + 20)).filter(|_| kind == ENHANCED_PACKET);
        let from = at;
        at += total.max(FRAME_BYTES);
        (at <= bytes.len()).then_some((from..at, kept))
    })
}

/// The space that is left.
struct Cursor<'a>(&'a mut [u8]);

impl Cursor<'_> {
    fn bytes(&mut self, bytes: &[u8]) {
        let (space, rest) = std::mem::take(&mut self.0).split_at_mut(bytes.len());
        space.copy_from_slice(bytes);
        self.0 = rest;
    }

    fn half(&mut self, value: u16) {
        self.bytes(&value.to_ne_bytes());
    }

    fn word(&mut self, value: u32) {
        self.bytes(&value.to_ne_bytes());
    }

    /// A time, upper half first, whatever the byte order.
    fn time(&mut self, unix_ns: u64) {
        self.word((unix_ns >> 32) as u32);
        self.word(unix_ns as u32);
    }

    /// Bytes, and zeroes up to a multiple of four.
    fn padded(&mut self, parts: &[&[u8]]) {
        let len: usize = parts.iter().map(|part| part.len()).sum();
        for part in parts {
            self.bytes(part);
        }
        self.bytes(&[0; 3][..len.next_multiple_of(4) - len]);
    }

    fn option(&mut self, code: u16, parts: &[&[u8]]) {
        self.half(code);
        self.half(parts.iter().map(|part| part.len()).sum::<usize>() as u16);
        self.padded(parts);
    }
}

#[cfg(test)]
mod tests {
    use std::borrow::Cow;
    use std::time::Duration;

    use pcap_file::pcapng::blocks::enhanced_packet::{EnhancedPacketBlock, EnhancedPacketOption};
    use pcap_file::pcapng::blocks::interface_description::{
        InterfaceDescriptionBlock, InterfaceDescriptionOption, InterfaceTsResolution,
    };
    use pcap_file::pcapng::blocks::opt_common::CommonOption;
    use pcap_file::pcapng::blocks::section_header::SectionHeaderBlock;
    use pcap_file::pcapng::{Block, PcapNgReader, PcapNgWriter};
    use pcap_file::{DataLink, Endianness};

    use super::*;

    /// A writer behind the header of a file with one interface.
    fn begun() -> PcapNgWriter<Vec<u8>> {
        let section = SectionHeaderBlock { endianness: Endianness::native(), ..Default::default() };
        let mut writer = PcapNgWriter::with_section_header(Vec::new(), section).unwrap();
        let interface = InterfaceDescriptionBlock {
            linktype: DataLink::ETHERNET,
            snaplen: 0,
            options: vec![InterfaceDescriptionOption::IfTsResol(InterfaceTsResolution::NANO)],
        };
        writer.write_pcapng_block(interface).unwrap();
        writer
    }

    #[test]
    fn a_packet_is_byte_for_byte_what_the_general_encoder_writes() {
        let data: Vec<u8> = (0..=255).collect();
        for kept in [0, 1, 2, 3, 4, 60, 255] {
            for (direction, bits) in [(Direction::Inbound, 1), (Direction::Outbound, 2)] {
                for dropped in std::iter::once(None).chain(DropReason::ALL.map(Some)) {
                    let packet = Packet {
                        interface: 0,
                        unix_ns: 1_766_000_000_123_456_789,
                        data: &data[..kept],
                        original_bytes: 1_514,
                        direction,
                        dropped,
                    };
                    let mut ours = vec![0xff; packet.block_bytes()];
                    packet.write(&mut ours);

                    let mut options = vec![EnhancedPacketOption::Flags(bits)];
                    options.extend(dropped.map(|reason| {
                        let comment = format!("dropped: {}", reason.as_str());
                        EnhancedPacketOption::Common(CommonOption::Comment(Cow::Owned(comment)))
                    }));
                    let mut writer = begun();
                    let header = writer.get_ref().len();
                    let block = EnhancedPacketBlock {
                        interface_id: 0,
                        timestamp: Duration::from_nanos(packet.unix_ns),
                        original_len: 1_514,
                        data: Cow::Borrowed(&data[..kept]),
                        options,
                    };
                    writer.write_pcapng_block(block).unwrap();
                    assert_eq!(ours, writer.get_ref()[header..], "{kept} bytes, {dropped:?}");
                }
            }
        }
    }

    #[test]
    fn whole_blocks_end_before_what_was_cut() {
        let mut file = begun().into_inner();
        let header = whole_blocks(&file).map(|(block, _)| block.end).last();
        assert_eq!(header, Some(file.len()));
        for interface in [3, 7] {
            let packet = Packet {
                interface,
                unix_ns: 1,
                data: &[0; 61],
                original_bytes: 61,
                direction: Direction::Inbound,
                dropped: None,
            };
            let at = file.len();
            file.resize(at + packet.block_bytes(), 0);
            packet.write(&mut file[at..]);
        }
        let of = |bytes: &[u8]| {
            let blocks: Vec<_> = whole_blocks(bytes).collect();
            let frames = blocks.iter().filter_map(|(_, kept)| *kept).collect();
            (blocks.last().map_or(0, |(block, _)| block.end), frames)
        };
        assert_eq!(of(&file), (file.len(), vec![(3, 61), (7, 61)]));
        let (end, frames): (usize, Vec<Kept>) = of(&file[..file.len() - 1]);
        assert!(end < file.len() - 60);
        assert_eq!(frames, [(3, 61)]);
        assert_eq!(of(&[1, 2, 3]), (0, vec![]));
        assert_eq!(of(&[0; 12]), (12, vec![]), "no block is so short, but it ends");
    }

    #[test]
    fn a_filling_of_any_length_is_one_block_without_statistics() {
        for bytes in (LEAST_FILLING..=4_200).step_by(4) {
            let mut file = begun().into_inner();
            let header = file.len();
            file.resize(header + bytes, 0xff);
            fill(&mut file[header..], 42);
            let mut reader = PcapNgReader::new(file.as_slice()).unwrap();
            let mut statistics = 0;
            while let Some(block) = reader.next_block() {
                if let Block::InterfaceStatistics(block) = block.unwrap().0 {
                    assert_eq!(block.timestamp, Duration::from_nanos(42));
                    statistics += 1;
                }
            }
            assert_eq!(statistics, 1, "{bytes}");
        }
    }
}
