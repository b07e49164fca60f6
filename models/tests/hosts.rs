//! Hosts: what commands print, computed by hand where it is a time.

mod common;

use common::{Lab, host, interface};
use tapestry_core::link::{Chance, LinkParameters, Loss};
use tapestry_core::{DataRate, Probability, SimTime};
use tapestry_models::{
    Direction, HostBridge, HostConfig, HostInterface, HostRoute, LinkConfig, LinkId,
};

fn limited(name: &str, delay_ms: u64) -> LinkConfig {
    LinkConfig {
        rate: DataRate::from_bits_per_sec(1_000_000),
        delay: SimTime::from_millis(delay_ms),
        ..LinkConfig::point_to_point(name)
    }
}

/// 98 bytes and a frame check sequence at 1 Mbit/s: 816 µs each way; ARP (64 bytes with padding):
/// 512 µs each way; twice the delay of 5 ms each.
#[test]
fn ping_takes_what_the_links_take() {
    for (family, from, to) in
        [("4", "10.0.0.1/24", "10.0.0.2/24"), ("6", "fd00::1/64", "fd00::2/64")]
    {
        let mut lab = Lab::pair(limited("l", 5), from, to);
        let target = to.split('/').next().unwrap();
        let (status, text) = lab.run("n0", &format!("ping -{family} -c 2 -i 0.2 {target}"));
        assert_eq!(status, 0, "{text}");
        if family == "4" {
            assert_eq!(
                text,
                "PING 10.0.0.2 (10.0.0.2) 56(84) bytes of data.\n\
                 64 bytes from 10.0.0.2: icmp_seq=1 ttl=64 time=22.6 ms\n\
                 64 bytes from 10.0.0.2: icmp_seq=2 ttl=64 time=11.6 ms\n\
                 \n--- 10.0.0.2 ping statistics ---\n\
                 2 packets transmitted, 2 received, 0% packet loss, time 211ms\n\
                 rtt min/avg/max/mdev = 11.632/17.144/22.656/5.512 ms\n"
            );
        } else {
            // 118 bytes and 4: 976 µs each way; solicitation and advertisement of 86 and 4: 720 µs.
            assert!(text.contains("icmp_seq=1 ttl=64 time=23.3 ms"), "{text}");
            assert!(text.contains("icmp_seq=2 ttl=64 time=11.9 ms"), "{text}");
        }
        assert_eq!(lab.network.poll_timeout(), None, "nothing is left to do");
    }
}

#[test]
fn duplicated_replies_are_told() {
    let mut lab = Lab::pair(limited("l", 5), "10.0.0.1/24", "10.0.0.2/24");
    lab.run("n0", "ping -c 1 10.0.0.2");
    let twice = LinkParameters {
        duplicate: Some(Chance::independent(Probability::ONE)),
        ..LinkParameters::new(None, SimTime::from_millis(5))
    };
    lab.network.set_link(lab.now, LinkId(0), Direction::From(1), &twice).unwrap();
    let (status, text) = lab.run("n0", "ping -c 2 -i 0.2 10.0.0.2");
    assert_eq!(status, 0);
    let lines: Vec<&str> = text.lines().collect();
    assert!(lines[1].ends_with("icmp_seq=1 ttl=64 time=10.8 ms"), "{text}");
    assert!(lines[2].ends_with("icmp_seq=1 ttl=64 time=10.8 ms (DUP!)"), "{text}");
    // With the last reply it ends, before that one's copy.
    assert!(lines[3].ends_with("icmp_seq=2 ttl=64 time=10.8 ms"), "{text}");
    assert!(text.contains("2 packets transmitted, 2 received, +1 duplicates, 0% packet loss"));
    assert!(!lab.run("n0", "ping -q -c 2 -i 0.2 10.0.0.2").1.contains("DUP"));
}

#[test]
fn pings_carry_a_traffic_class_and_their_replies_the_same() {
    for (from, to) in [("10.0.0.1/24", "10.0.0.2/24"), ("fd00::1/64", "fd00::2/64")] {
        let mut lab = Lab::pair(limited("l", 5), from, to);
        let target = to.split('/').next().unwrap();
        assert_eq!(lab.run("n0", &format!("ping -c 1 {target}")).0, 0);
        // From now on only what can carry a mark passes: ECT(0) is 2, ECT(1) is 1.
        let marking = LinkParameters {
            loss: Some(Loss::independent(Probability::ONE)),
            ecn: true,
            ..LinkParameters::new(None, SimTime::from_millis(5))
        };
        lab.network.set_link(lab.now, LinkId(0), Direction::Both, &marking).unwrap();
        for (class, status) in [("0", 1), ("2", 0), ("0xb9", 0), ("184", 1)] {
            let (found, text) = lab.run("n0", &format!("ping -c 1 -W 1 -Q {class} {target}"));
            assert_eq!(found, status, "-Q {class}: {text}");
        }
    }
    let mut lab = Lab::pair(limited("l", 5), "10.0.0.1/24", "10.0.0.2/24");
    let (status, text) = lab.run("n0", "ping -c 1 -Q 256 10.0.0.2");
    assert_eq!((status, text.as_str()), (2, "ping: invalid argument: '256' of -Q\n"));
}

#[test]
fn lists_of_programs_and_unknown_ones() {
    let mut lab = Lab::pair(limited("l", 1), "10.0.0.1/24", "10.0.0.2/24");
    let (status, text) = lab.run("n0", "echo one; false || echo 'two  2' && sleep 1.5 && true");
    assert_eq!((status, text.as_str()), (0, "one\ntwo  2\n"));
    assert_eq!(lab.now, SimTime::from_millis(1_500));
    let (status, text) = lab.run("n0", "cat /etc/passwd");
    assert_eq!(status, 127);
    assert!(text.contains("cat: not found") && text.contains("iperf, ip, ping"), "{text}");
    assert_eq!(lab.run("n0", "echo a | b").0, 2);
    assert_eq!(lab.run("n0", "true; false").0, 1);
    assert_eq!(lab.run("n0", "ping -c 1 -W 1 10.9.9.9").0, 2);
}

#[test]
fn unreachable_hosts_are_told_after_three_requests() {
    let mut lab = Lab::pair(limited("l", 1), "10.0.0.1/24", "10.0.0.2/24");
    let (status, text) = lab.run("n0", "ping -c 1 10.0.0.9");
    assert_eq!(status, 1);
    assert!(text.contains("From 10.0.0.1 icmp_seq=1 Destination Host Unreachable"), "{text}");
    assert!(text.contains("1 packets transmitted, 0 received, +1 errors, 100% packet loss"));
    assert_eq!(lab.now, SimTime::from_secs(3) + SimTime::from_micros(10));
    let (status, text) = lab.run("n0", "ping -c 1 10.0.0.1");
    assert_eq!(status, 0);
    assert!(text.contains("time=0.020 ms"), "{text}");
}

/// n0 – r – n1, then n0 – b – n1 with a bridge inside b.
#[test]
fn routers_forward_and_answer_for_what_they_cannot() {
    let router = HostConfig {
        forwarding: true,
        ..host(
            "r",
            vec![
                interface(0x10, &["10.0.1.254/24", "fd01::fe/64"]),
                interface(0x11, &["10.0.2.254/24", "fd02::fe/64"]),
            ],
        )
    };
    let default = |via: &str| HostRoute {
        to: if via.contains(':') { "::/0" } else { "0.0.0.0/0" }.parse().unwrap(),
        via: Some(via.parse().unwrap()),
        interface: None,
    };
    let mut ends = [1, 2].map(|n| {
        let (v4, v6) = (format!("10.0.{n}.1/24"), format!("fd0{n}::1/64"));
        let mut end = host(&format!("n{n}"), vec![interface(n, &[&v4, &v6])]);
        end.routes = vec![default(&format!("10.0.{n}.254")), default(&format!("fd0{n}::fe"))];
        end
    });
    ends[0].interfaces[0].mtu = 1_400;
    let [n1, n2] = ends;
    let mut lab = Lab::new(
        vec![
            (limited("a", 1), vec![("n1", 0), ("r", 0)]),
            (limited("b", 1), vec![("r", 1), ("n2", 0)]),
        ],
        vec![n1, n2, router],
    );
    for target in ["10.0.2.1", "fd02::1"] {
        let (status, text) = lab.run("n1", &format!("ping -c 1 {target}"));
        assert_eq!(status, 0, "{text}");
        assert!(text.contains("ttl=63"), "{text}");
        let (status, text) = lab.run("n1", &format!("ping -c 1 -t 1 {target}"));
        assert_eq!(status, 1);
        assert!(text.contains("Time to live exceeded") || text.contains("Hop limit"), "{text}");
        // In fragments: 4,000 bytes over 1,400 and back over 1,500.
        let (status, text) = lab.run("n1", &format!("ping -c 1 -s 4000 {target}"));
        assert_eq!(status, 0, "{text}");
        assert!(text.contains("4008 bytes from"), "{text}");
    }
    let (_, text) = lab.run("n1", "ping -c 1 10.7.7.7");
    assert!(text.contains("From 10.0.1.254 icmp_seq=1 Destination Net Unreachable"), "{text}");
    let (_, text) = lab.run("n1", "ping -c 1 10.0.2.77");
    assert!(text.contains("From 10.0.1.254 icmp_seq=1 Destination Host Unreachable"), "{text}");
}

#[test]
fn bridges_inside_hosts_learn_and_have_addresses() {
    let middle = HostConfig {
        bridges: vec![HostBridge {
            name: "br0".into(),
            ports: vec!["eth0".into(), "eth1".into()],
            addresses: vec!["10.0.0.3/24".parse().unwrap()],
            stp: false,
        }],
        ..host("b", vec![interface(0x10, &[]), interface(0x11, &[])])
    };
    let mut lab = Lab::new(
        vec![
            (limited("a", 1), vec![("n1", 0), ("b", 0)]),
            (limited("b", 1), vec![("b", 1), ("n2", 0)]),
        ],
        vec![
            host("n1", vec![interface(1, &["10.0.0.1/24"])]),
            host("n2", vec![interface(2, &["10.0.0.2/24"])]),
            middle,
        ],
    );
    for (from, to) in
        [("n1", "10.0.0.2"), ("n1", "10.0.0.3"), ("b", "10.0.0.2"), ("n2", "10.0.0.3")]
    {
        let (status, text) = lab.run(from, &format!("ping -c 1 {to}"));
        assert_eq!(status, 0, "{text}");
        assert!(text.contains("ttl=64"), "{text}");
    }
}

#[test]
fn ip_shows_and_changes() {
    let mut lab = Lab::pair(limited("l", 1), "10.0.0.1/24", "10.0.0.2/24");
    let (status, text) = lab.run("n0", "ip addr");
    assert_eq!(status, 0);
    for line in [
        "1: lo: <LOOPBACK,UP,LOWER_UP> mtu 65535",
        "2: eth0: <BROADCAST,MULTICAST,UP,LOWER_UP> mtu 1500",
        "    link/ether 02:00:00:00:00:01 brd ff:ff:ff:ff:ff:ff\n",
        "    inet 10.0.0.1/24 scope global eth0\n",
        "    inet6 fe80::ff:fe00:1/64 scope link",
    ] {
        assert!(text.contains(line), "{line} in\n{text}");
    }
    assert_eq!(
        lab.run("n0", "ip route").1,
        "10.0.0.0/24 dev eth0 proto kernel scope link src 10.0.0.1\n"
    );
    let more =
        "ip a add 10.5.0.1/24 dev eth0 && ip route add default via 10.5.0.9 && ip r get 1.2.3.4";
    let (status, text) = lab.run("n0", more);
    assert_eq!((status, text.as_str()), (0, "1.2.3.4 via 10.5.0.9 dev eth0 src 10.5.0.1\n"));
    assert_eq!(lab.run("n0", "ip route add default via 10.5.0.8").0, 2);
    assert_eq!(lab.run("n0", "ip route del default; ip route del default").0, 2);
    assert_eq!(lab.run("n1", "ip link set eth0 down").0, 0);
    assert_eq!(lab.run("n0", "ping -c 1 -W 1 10.0.0.2").0, 1);
    assert_eq!(lab.run("n1", "ip link set dev eth0 up mtu 1400").0, 0);
    assert_eq!(lab.run("n0", "ping -c 1 10.0.0.2").0, 0);
    for wrong in ["ip addr add x dev eth0", "ip link set eth9 up", "ip nonsense", "ip"] {
        assert_eq!(lab.run("n0", wrong).0, 255, "{wrong}");
    }
}

/// a – r – s – b, the middle link with this MTU in bytes.
fn through_routers(middle: u32) -> Lab {
    let routes = |routes: &[(&str, &str)]| {
        let route = |&(to, via): &(&str, &str)| HostRoute {
            to: to.parse().unwrap(),
            via: Some(via.parse().unwrap()),
            interface: None,
        };
        routes.iter().map(route).collect()
    };
    let narrow =
        |number, addresses: &[&str]| HostInterface { mtu: middle, ..interface(number, addresses) };
    let hosts = vec![
        HostConfig {
            routes: routes(&[("0.0.0.0/0", "10.0.0.2"), ("::/0", "fd00::2")]),
            ..host("a", vec![interface(1, &["10.0.0.1/24", "fd00::1/64"])])
        },
        HostConfig {
            forwarding: true,
            routes: routes(&[("10.0.9.0/24", "10.0.5.2"), ("fd09::/64", "fd05::2")]),
            ..host(
                "r",
                vec![
                    interface(2, &["10.0.0.2/24", "fd00::2/64"]),
                    narrow(3, &["10.0.5.1/24", "fd05::1/64"]),
                ],
            )
        },
        HostConfig {
            forwarding: true,
            routes: routes(&[("10.0.0.0/24", "10.0.5.1"), ("fd00::/64", "fd05::1")]),
            ..host(
                "s",
                vec![
                    narrow(4, &["10.0.5.2/24", "fd05::2/64"]),
                    interface(5, &["10.0.9.1/24", "fd09::1/64"]),
                ],
            )
        },
        HostConfig {
            routes: routes(&[("0.0.0.0/0", "10.0.9.1"), ("::/0", "fd09::1")]),
            ..host("b", vec![interface(6, &["10.0.9.2/24", "fd09::2/64"])])
        },
    ];
    let link = |name: &str, mtu| LinkConfig {
        mtu,
        rate: DataRate::from_bits_per_sec(10_000_000),
        ..limited(name, 1)
    };
    let links = vec![
        (link("ar", 1_500), vec![("a", 0), ("r", 0)]),
        (link("rs", middle), vec![("r", 1), ("s", 0)]),
        (link("sb", 1_500), vec![("s", 1), ("b", 0)]),
    ];
    Lab::new(links, hosts)
}

/// The first segments that are too long are lost; a router says so, and the rest fits.
#[test]
fn tcp_finds_the_mtu_of_its_path() {
    for (family, target, middle) in
        [("", "10.0.9.2", 1_400), ("", "10.0.9.2", 600), ("-V", "fd09::2", 1_400)]
    {
        let mut lab = through_routers(middle);
        lab.start("b", "iperf -s");
        for round in 0..2 {
            let begin = lab.now;
            let (status, text) = lab.run("a", &format!("iperf {family} -c {target} -n 1M"));
            assert_eq!(status, 0, "{text}");
            assert!(text.contains("1.00 MBytes"), "{text}");
            // At 10 Mbit/s, and about a second more for the segments that were lost at first.
            let limit = SimTime::from_millis(if round == 0 { 4_000 } else { 1_200 });
            assert!(lab.now - begin < limit, "{target}, {middle}, {round}: {text}");
        }
        // The other side sends as well.
        lab.start("a", "iperf -s");
        let back = if family.is_empty() { "10.0.0.1" } else { "fd00::1" };
        let (status, text) = lab.run("b", &format!("iperf {family} -c {back} -n 100k"));
        assert!(status == 0 && text.contains("97.7 KBytes"), "{text}");
    }
}

/// An IPv6 packet that a router refused is sent in fragments that fit from then on: first by the
/// asking side, then by the answering one.
#[test]
fn long_pings_are_fragmented_to_the_mtu_of_the_path() {
    let mut lab = through_routers(1_400);
    let (_, text) = lab.run("a", "ping -6 -c 4 -i 0.2 -s 1430 fd09::2");
    assert!(text.contains("Packet too big") && text.contains("2 received"), "{text}");
    let (status, text) = lab.run("a", "ping -c 2 -i 0.2 -s 1430 10.0.9.2");
    assert!(status == 0 && text.contains("2 received"), "{text}");
}

/// A host on a link with a small MTU announces what fits; one with other, larger links, too.
#[test]
fn small_and_mixed_mtus_need_no_discovery() {
    let small = |number, address| HostInterface { mtu: 600, ..interface(number, &[address]) };
    let hosts = vec![
        host("a", vec![small(1, "10.0.0.1/24"), interface(2, &["10.0.1.1/24"])]),
        host("b", vec![small(3, "10.0.0.2/24")]),
        host("c", vec![interface(4, &["10.0.1.2/24"])]),
    ];
    let links = vec![
        (LinkConfig { mtu: 600, ..limited("ab", 1) }, vec![("a", 0), ("b", 0)]),
        (limited("ac", 1), vec![("a", 1), ("c", 0)]),
    ];
    let mut lab = Lab::new(links, hosts);
    lab.start("b", "iperf -s");
    lab.start("c", "iperf -s");
    let rate = |lab: &mut Lab, to: &str| -> f64 {
        let (status, text) = lab.run("a", &format!("iperf -c {to} -n 200k -f k"));
        assert_eq!(status, 0, "{text}");
        text.lines().last().unwrap().rsplit(' ').nth(1).unwrap().parse().unwrap()
    };
    // 560 of 618 and 1,460 of 1,518 bytes at 1 Mbit/s are data.
    let (narrow, wide) = (rate(&mut lab, "10.0.0.2"), rate(&mut lab, "10.0.1.2"));
    assert!(narrow < 907.0 && narrow > 800.0, "{narrow}");
    assert!(wide < 962.0 && wide > 907.0, "{wide}");
}

#[test]
fn a_name_has_addresses_of_both_versions() {
    let names = [("b".to_owned(), vec!["10.0.0.2".parse().unwrap(), "fd00::2".parse().unwrap()])];
    let mut a = host("n0", vec![interface(1, &["10.0.0.1/24", "fd00::1/64"])]);
    a.names = std::sync::Arc::new(names.into());
    let b = host("n1", vec![interface(2, &["10.0.0.2/24", "fd00::2/64"])]);
    let mut lab =
        Lab::new(vec![(LinkConfig::csma("l", 0), vec![("n0", 0), ("n1", 0)])], vec![a, b]);
    for (command, address) in [
        ("ping -c 1 b", "10.0.0.2"),
        ("ping -4 -c 1 b", "10.0.0.2"),
        ("ping -6 -c 1 b", "fd00::2"),
        ("ping -6 -c 1 localhost", "::1"),
    ] {
        let (_, text) = lab.run("n0", command);
        assert!(text.contains(&format!("({address})")) && text.contains("1 received"), "{text}");
    }
    let (_, routes) = lab.run(
        "n0",
        "ip route s dev eth0; ip r show 10.0.0.0/24; ip a s eth0; ip route show default",
    );
    assert_eq!(routes.matches("10.0.0.0/24 dev eth0").count(), 2, "{routes}");
    // With a hardware address of its own it asks, and is heard of, anew.
    let (_, text) = lab.run("n0", "ip link set eth0 address 02:aa:00:00:00:01; ping -c 1 b");
    assert!(text.contains("1 received"), "{text}");
}
