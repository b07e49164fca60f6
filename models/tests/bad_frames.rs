//! Frames that no station should send: a host drops them, whatever they are.

mod common;

use common::{Lab, host, interface};
use proptest::prelude::*;
use tapestry_core::SimTime;
use tapestry_models::{Frame, HostBridge, HostConfig, LinkConfig, PortId};

/// A host with servers, on a link whose other end is open; it forwards to nowhere.
fn victim() -> Lab {
    let config = HostConfig {
        forwarding: true,
        ..host("n0", vec![interface(1, &["10.0.0.1/24", "fd00::1/64"])])
    };
    let mut lab = Lab::open(LinkConfig::point_to_point("l"), config);
    lab.start("n0", "iperf -s -u");
    lab.start("n0", "iperf -s");
    lab.start("n0", "ping 10.0.0.2");
    lab.start("n0", "iperf -c fd00::2 -n 100K");
    lab
}

const MACS: [u8; 12] = [2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2];

fn checksum(header: &mut [u8]) {
    header[10..12].fill(0);
    let sum: u32 =
        header.chunks(2).map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]]))).sum();
    let sum = !((sum & 0xffff) + (sum >> 16)) as u16;
    header[10..12].copy_from_slice(&sum.to_be_bytes());
}

/// Anything behind a header of Ethernet; or of IPv4 or IPv6, too.
fn frames() -> impl Strategy<Value = Vec<u8>> {
    let bytes = || prop::collection::vec(any::<u8>(), 0..200);
    let ethertype = prop::sample::select(vec![[8, 0], [8, 6], [0x86, 0xdd], [0x88, 0xcc]]);
    let protocol = prop::sample::select(vec![1_u8, 6, 17, 58, 44, 0, 43, 99]);
    prop_oneof![
        (ethertype, bytes()).prop_map(|(kind, rest)| [&MACS[..], &kind, &rest].concat()),
        (protocol.clone(), any::<u16>(), any::<u8>(), bytes()).prop_map(
            |(protocol, flags, ttl, rest)| {
                let length = (20 + rest.len()) as u16;
                let mut header = [0; 20];
                header[0] = 0x45;
                header[2..4].copy_from_slice(&length.to_be_bytes());
                header[6..8].copy_from_slice(&(flags & 0x2003).to_be_bytes());
                header[8..10].copy_from_slice(&[ttl, protocol]);
                header[12..].copy_from_slice(&[10, 0, 0, 2, 10, 0, 0, 1 + ttl % 2]);
                checksum(&mut header);
                [&MACS[..], &[8, 0], &header, &rest].concat()
            }
        ),
        (protocol, any::<u8>(), bytes()).prop_map(|(protocol, ttl, rest)| {
            let mut header = [0; 40];
            header[0] = 0x60;
            header[4..6].copy_from_slice(&(rest.len() as u16).to_be_bytes());
            header[6..8].copy_from_slice(&[protocol, ttl]);
            header[8] = 0xfd;
            header[23] = 2;
            header[24] = 0xfd;
            header[39] = 1;
            [&MACS[..], &[0x86, 0xdd], &header, &rest].concat()
        }),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    #[test]
    fn a_host_survives_any_frame(frames in prop::collection::vec(frames(), 1..40)) {
        let mut lab = victim();
        for frame in frames {
            lab.network.handle_frame(lab.now, PortId(1), Frame::from(frame));
            lab.pass(SimTime::from_millis(20));
            lab.network.transmits().for_each(drop);
        }
        lab.pass(SimTime::from_secs(40));
    }

    #[test]
    fn a_bridge_survives_any_bpdu(bpdus in prop::collection::vec((any::<bool>(), prop::collection::vec(any::<u8>(), 0..40)), 1..40)) {
        let bridge = HostBridge {
            name: "br0".into(),
            ports: vec!["eth0".into()],
            stp: true,
            ..HostBridge::default()
        };
        let config =
            HostConfig { bridges: vec![bridge], ..host("n0", vec![interface(1, &[])]) };
        let mut lab = Lab::open(LinkConfig::point_to_point("l"), config);
        for (change, bytes) in bpdus {
            let head = [0x01, 0x80, 0xc2, 0, 0, 0, 2, 0, 0, 0, 0, 2, 0, 38, 0x42, 0x42, 3, 0, 0, 0];
            let kind = if change { 0x80 } else { 0 };
            let frame = [&head[..], &[kind], &bytes].concat();
            lab.network.handle_frame(lab.now, PortId(1), Frame::from(frame));
            lab.pass(SimTime::from_millis(700));
            lab.network.transmits().for_each(drop);
        }
        lab.pass(SimTime::from_secs(100));
    }

    #[test]
    fn a_command_may_be_any_text(text in "[a-z0-9 .:/'\";&|$-]{0,60}", options in "[a-zA-Z]{1,3}", value in "[0-9a-z.]{1,12}") {
        let mut lab = victim();
        for command in [
            text,
            format!("iperf -c 10.0.0.2 -{options} {value}"),
            format!("iperf -s -{options} {value}"),
            format!("ping -{options} {value} 10.0.0.2"),
            format!("ip {options} {value}"),
        ] {
            lab.start("n0", &command);
        }
        lab.pass(SimTime::from_millis(100));
    }
}
