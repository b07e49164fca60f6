//! Explicit congestion notification in Ethernet frames.
//!
//! Purpose: marks a frame "congestion experienced" where its sender declared that it understands
//! this.
//!
//! Assumptions: at most four VLAN tags.
//!
//! Reference: RFC 3168, section 5; RFC 1624 for the header checksum.

use crate::{Frame, FramePool};

/// A copy of `frame` marked CE, the frame itself if it is marked already, or `None` if it cannot
/// carry a mark: not IP, not ECN-capable, or no buffer left in `pool`.
pub(crate) fn mark(frame: &Frame, pool: &mut FramePool) -> Option<Frame> {
    let bytes = frame.bytes();
    let mut at = 14;
    while let (14..30, [0x81 | 0x91, 0x00] | [0x88, 0xa8]) = (at, bytes.get(at - 2..at)?) {
        at += 4;
    }
    let ether_type = bytes.get(at - 2..at)?;
    match (ether_type, bytes.get(at..)?) {
        ([0x08, 0x00], header) if header.len() >= 20 => {
            let word = u16::from_be_bytes([header[0], header[1]]);
            match word & CE {
                0 => return None,
                CE => return Some(frame.clone()),
                _ => {}
            }
            let checksum = u16::from_be_bytes([header[10], header[11]]);
            let marked = changed(checksum, word, word | CE).to_be_bytes();
            rewritten(frame, pool, |bytes| {
                bytes[at + 1] |= CE as u8;
                bytes[at + 10..at + 12].copy_from_slice(&marked);
            })
        }
        ([0x86, 0xdd], header) if header.len() >= 40 => match header[1] & CE_IPV6 {
            0 => None,
            CE_IPV6 => Some(frame.clone()),
            _ => rewritten(frame, pool, |bytes| bytes[at + 1] |= CE_IPV6),
        },
        _ => None,
    }
}

/// Both ECN bits, in the first 16 bits of an IPv4 header.
const CE: u16 = 0b11;
/// Both ECN bits, in the second byte of an IPv6 header.
const CE_IPV6: u8 = 0b11_0000;

/// RFC 1624: the checksum when a word that it covers changes.
fn changed(checksum: u16, old: u16, new: u16) -> u16 {
    let sum = u32::from(!checksum) + u32::from(!old) + u32::from(new);
    let sum = (sum & 0xffff) + (sum >> 16);
    !(((sum & 0xffff) + (sum >> 16)) as u16)
}

/// A changed copy of a frame; `None` if the pool has no buffer for it.
pub(crate) fn rewritten(
    frame: &Frame,
    pool: &mut FramePool,
    change: impl FnOnce(&mut [u8]),
) -> Option<Frame> {
    let copy = pool.fill(|buffer| {
        if let Some(target) = buffer.get_mut(..frame.len()) {
            target.copy_from_slice(frame.bytes());
            change(target);
        }
        Ok(frame.len())
    });
    copy.ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An IPv4 header without options, with a right checksum.
    fn ipv4(ecn: u8) -> Vec<u8> {
        let mut frame = vec![0; 12];
        frame.extend([0x08, 0x00, 0x45, ecn, 0, 20, 0x12, 0x34, 0, 0, 64, 17, 0, 0]);
        frame.extend([10, 0, 0, 1, 10, 0, 0, 2]);
        let sum = checksum(&frame[14..]);
        frame[24..26].copy_from_slice(&sum.to_be_bytes());
        frame
    }

    fn checksum(header: &[u8]) -> u16 {
        let sum: u32 =
            header.chunks(2).map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]]))).sum();
        !((sum & 0xffff) as u16 + (sum >> 16) as u16)
    }

    #[test]
    fn ipv4_is_marked_and_its_checksum_stays_right() {
        let mut pool = FramePool::new(128, 4);
        for ecn in [1, 2] {
            let marked = mark(&Frame::from(ipv4(ecn)), &mut pool).unwrap();
            assert_eq!(marked.bytes()[15], 3);
            assert_eq!(checksum(&marked.bytes()[14..]), 0);
        }
        assert!(mark(&Frame::from(ipv4(0)), &mut pool).is_none());
        assert_eq!(mark(&Frame::from(ipv4(3)), &mut pool), Some(Frame::from(ipv4(3))));
    }

    #[test]
    fn ipv6_with_a_tag_is_marked_and_the_rest_is_not() {
        let mut pool = FramePool::new(128, 4);
        let mut bytes = vec![0; 12];
        bytes.extend([0x81, 0x00, 0, 5, 0x86, 0xdd, 0x60, 0x20]);
        bytes.extend([0; 38]);
        let marked = mark(&Frame::from(bytes.clone()), &mut pool).unwrap();
        assert_eq!(marked.bytes()[18..20], [0x60, 0x30]);
        for wrong in [&bytes[..20], &bytes[..13], &[][..]] {
            assert!(mark(&Frame::from(wrong.to_vec()), &mut pool).is_none());
        }
        bytes[16..18].copy_from_slice(&[0x08, 0x06]);
        assert!(mark(&Frame::from(bytes), &mut pool).is_none());
    }
}
