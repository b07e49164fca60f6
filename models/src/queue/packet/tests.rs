use super::super::tests::{checksum, datagram};
use super::*;

/// With VLAN tags put behind the addresses.
fn tagged(frame: &[u8], tags: &[[u8; 2]]) -> Vec<u8> {
    let mut bytes = frame[..12].to_vec();
    for tag in tags {
        bytes.extend_from_slice(tag);
        bytes.extend_from_slice(&[0x20, 0x05]);
    }
    bytes.extend_from_slice(&frame[12..]);
    bytes
}

/// A TCP segment over IPv6, behind so many extension headers.
fn ipv6(traffic_class: u8, port: u8, extensions: usize) -> Vec<u8> {
    let mut bytes = vec![0; 14];
    bytes[12..14].copy_from_slice(&[0x86, 0xdd]);
    bytes.extend_from_slice(&[0x60 | traffic_class >> 4, traffic_class << 4, 0, 0, 0, 60]);
    bytes.extend_from_slice(&[if extensions > 0 { 60 } else { 6 }, 64]);
    bytes.extend_from_slice(&[0xfd; 16]);
    bytes.extend_from_slice(&[0xfe; 16]);
    for extension in (0..extensions).rev() {
        // Length 1: 16 bytes.
        bytes.extend_from_slice(&[if extension > 0 { 60 } else { 6 }, 1]);
        bytes.extend_from_slice(&[0; 14]);
    }
    bytes.extend_from_slice(&[0x10, port, 0, 80]);
    bytes.resize(bytes.len() + 20, 0);
    bytes
}

#[test]
fn the_code_point_is_found_behind_tags_and_in_both_families() {
    let plain = datagram(100, 0, 46, 1);
    assert_eq!(dscp(plain.bytes()), Some(46));
    assert_eq!(dscp(&tagged(plain.bytes(), &[[0x81, 0x00]])), Some(46));
    assert_eq!(dscp(&tagged(plain.bytes(), &[[0x88, 0xa8], [0x81, 0x00]])), Some(46));
    assert_eq!(dscp(&ipv6(46 << 2 | 2, 0, 0)), Some(46));
    assert_eq!(dscp(&tagged(&ipv6(10 << 2, 0, 1), &[[0x81, 0x00]])), Some(10));
    let mut arp = plain.bytes().to_vec();
    arp[13] = 6;
    assert_eq!(dscp(&arp), None);
}

#[test]
fn cut_off_frames_carry_no_ip() {
    for whole in [datagram(60, 0, 46, 1).bytes().to_vec(), ipv6(7, 0, 2)] {
        for len in 0..whole.len() {
            // Neither panics, and a header that is not all there does not count.
            let header = if whole[14] >> 4 == 4 { 34 } else { 54 };
            assert_eq!(dscp(&whole[..len]).is_some(), len >= header, "{len} bytes");
            flow_hash(&whole[..len], 1);
            assert_eq!(
                Marker::new(1_500).mark(Frame::from(whole[..len].to_vec())).is_ok(),
                len >= header
            );
        }
    }
}

#[test]
fn a_flow_is_addresses_protocol_and_ports() {
    let hash = |bytes: &[u8]| flow_hash(bytes, 7);
    let base = datagram(100, 1, 0, 0).bytes().to_vec();
    // Neither length nor DSCP, ECN, identification or tags matter.
    let mut same = datagram(900, 1, 46, 3).bytes().to_vec();
    same[19] = 99;
    assert_eq!(hash(&base), hash(&same));
    assert_eq!(hash(&base), hash(&tagged(&base, &[[0x81, 0x00]])));
    assert_eq!(hash(&ipv6(0, 1, 0)), hash(&ipv6(46 << 2, 1, 2)));
    // Each part of the 5-tuple does: addresses, protocol, ports.
    for at in [26, 29, 30, 33, 23, 34, 35, 36, 37] {
        let mut other = base.clone();
        other[at] ^= 0x17;
        assert_ne!(hash(&base), hash(&other), "byte {at}");
    }
    for at in [22, 37, 38, 53, 54, 55, 57] {
        let mut other = ipv6(0, 1, 0);
        other[at] ^= 0x17;
        assert_ne!(hash(&ipv6(0, 1, 0)), hash(&other), "byte {at}");
    }
    assert_ne!(flow_hash(&base, 7), flow_hash(&base, 8), "the salt matters");
}

#[test]
fn fragments_of_a_datagram_are_of_one_flow() {
    let fragment = |flags: u8, offset: u8, ports: u8| {
        let mut bytes = datagram(100, ports, 0, 0).bytes().to_vec();
        (bytes[20], bytes[21]) = (flags, offset);
        flow_hash(&bytes, 7)
    };
    // More fragments; the last one, whose payload is no header.
    assert_eq!(fragment(0x20, 0, 1), fragment(0, 185, 2));
    // "Don't fragment" is no fragment.
    assert_ne!(fragment(0x40, 0, 1), fragment(0x40, 0, 2));
}

#[test]
fn flows_spread_evenly_over_queues() {
    // 64,000 flows over 64 queues: a chi-square of 63 degrees of freedom lies between 30 and 113
    // but for one case in 10⁴.
    let mut queues = [0_u32; 64];
    for source in 0..64_000_u32 {
        let mut bytes = datagram(60, 0, 0, 0).bytes().to_vec();
        bytes[28..30].copy_from_slice(&((source >> 8) as u16).to_be_bytes());
        bytes[35] = source as u8;
        queues[(flow_hash(&bytes, 99) >> 58) as usize] += 1;
    }
    let chi: f64 = queues.iter().map(|&n| (f64::from(n) - 1_000.0).powi(2) / 1_000.0).sum();
    assert!((30.0..113.0).contains(&chi), "{chi}");
}

#[test]
fn a_mark_changes_the_ecn_field_and_the_checksum_only() {
    let mut marker = Marker::new(1_500);
    for dscp in 0..64 {
        for ecn in 1..4 {
            let frame = datagram(100, 3, dscp, ecn);
            let changed = marker.mark(frame.clone()).unwrap();
            assert_eq!(changed.bytes()[15], dscp << 2 | 3);
            assert_eq!(checksum(&changed.bytes()[14..34]), 0, "DSCP {dscp}, ECN {ecn}");
            for at in (0..100).filter(|at| ![15, 24, 25].contains(at)) {
                assert_eq!(changed.bytes()[at], frame.bytes()[at], "byte {at}");
            }
        }
        let frame = datagram(100, 3, dscp, 0);
        assert_eq!(marker.mark(frame.clone()), Err(frame));
    }
    let changed = marker.mark(Frame::from(ipv6(46 << 2 | 1, 0, 0))).unwrap();
    assert_eq!(changed.bytes(), ipv6(46 << 2 | 3, 0, 0));
    let unaware = Frame::from(ipv6(46 << 2, 0, 0));
    assert_eq!(marker.mark(unaware.clone()), Err(unaware));
}
