use pcap_file::pcap::{PcapHeader, PcapPacket, PcapWriter};

use super::*;

fn pcap(datalink: DataLink, packets: &[(u64, u32, &[u8])]) -> Vec<u8> {
    let header = PcapHeader { datalink, ..PcapHeader::default() };
    let mut writer = PcapWriter::with_header(Vec::new(), header).unwrap();
    for &(micros, length, data) in packets {
        let at = Duration::from_micros(1_700_000_000_000_000 + micros);
        writer.write_packet(&PcapPacket::new(at, length, data).unwrap()).unwrap();
    }
    writer.into_inner()
}

#[test]
fn frames_keep_their_distance_and_their_length() {
    let file = pcap(DataLink::ETHERNET, &[(10, 3, &[1, 2, 3]), (35, 4, &[5]), (9, 1, &[6])]);
    let expected = [
        (SimTime::ZERO, vec![1, 2, 3]),
        (SimTime::from_micros(25), vec![5, 0, 0, 0]),
        (SimTime::ZERO, vec![6]),
    ];
    assert_eq!(frames(&file, 3).unwrap(), expected);
    assert!(matches!(frames(&file, 2), Err(CaptureError::TooMany(2))));
}

#[test]
fn what_is_no_ethernet_capture_is_refused() {
    let raw = pcap(DataLink::RAW, &[]);
    assert!(matches!(frames(&raw, 9), Err(CaptureError::LinkType(DataLink::RAW))));
    assert!(matches!(frames(b"hello, this is no capture", 9), Err(CaptureError::Pcap(_))));
    assert!(matches!(frames(b"", 9), Err(CaptureError::Pcap(_))));
    assert!(matches!(frames(&PCAPNG, 9), Err(CaptureError::PcapNg(_))));
    let cut = pcap(DataLink::ETHERNET, &[(0, 60, &[0; 60])]);
    assert!(matches!(frames(&cut[..cut.len() - 1], 9), Err(CaptureError::Pcap(_))));
}
