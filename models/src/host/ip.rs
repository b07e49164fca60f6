//! `ip`: shows and changes interfaces, addresses and routes.
//!
//! Purpose: the words of iproute2 that tasks use, with its output. As in Linux, an interface that
//! goes down takes its static routes with it.
//!
//! Not modelled: making and removing interfaces, rules, tunnels, address lifetimes.
//!
//! Reference: `ip-address(8)`, `ip-link(8)`, `ip-route(8)`.

use std::fmt::Write as _;
use std::net::IpAddr;

use super::Cx;
use super::config::IpNetwork;
use super::stack::{Interface, InterfaceKind, Route, Stack, is_link_local};

/// Runs `ip`; its exit status.
pub(super) fn run(arguments: &[String], cx: &mut Cx<'_, '_>) -> u8 {
    let mut words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let mut family = None;
    while let Some(option) = words.first().filter(|word| word.starts_with('-')) {
        match *option {
            "-4" => family = Some(false),
            "-6" => family = Some(true),
            "-o" | "-oneline" | "-d" | "-s" | "-n" => {}
            unknown => {
                cx.print(format!("Option \"{unknown}\" is unknown, try -4 or -6.\n"));
                return 255;
            }
        }
        words.remove(0);
    }
    let Some((object, rest)) = words.split_first() else {
        cx.print("Usage: ip [ -4 | -6 ] { addr | route | link } [ COMMAND ]\n");
        return 255;
    };
    let outcome = match object {
        word if "address".starts_with(word) => address(cx.stack, rest, family),
        word if "link".starts_with(word) => link(cx.stack, rest),
        word if "route".starts_with(word) => route(cx.stack, rest, family),
        word => {
            Err(Wrong::Usage(format!("Object \"{word}\" is unknown, try addr, route or link.")))
        }
    };
    match outcome {
        Ok(text) => {
            if !text.is_empty() {
                cx.print(text);
            }
            0
        }
        Err(Wrong::Usage(what)) => {
            cx.print(what + "\n");
            255
        }
        Err(Wrong::Refused(what)) => {
            cx.print(format!("RTNETLINK answers: {what}\n"));
            2
        }
    }
}

/// What iproute2 or the kernel refuses.
enum Wrong {
    Usage(String),
    Refused(&'static str),
}

fn usage(what: impl Into<String>) -> Wrong {
    Wrong::Usage(what.into())
}

fn interface(stack: &Stack, name: &str) -> Result<usize, Wrong> {
    let missing = || usage(format!("Cannot find device \"{name}\""));
    stack.interface_named(name).ok_or_else(missing)
}

fn address(stack: &mut Stack, words: &[&str], family: Option<bool>) -> Result<String, Wrong> {
    match words {
        [] => Ok(show(stack, None, true, family)),
        [verb] if is_show(verb) => Ok(show(stack, None, true, family)),
        [verb, "dev", name] | [verb, name] if is_show(verb) => {
            Ok(show(stack, Some(interface(stack, name)?), true, family))
        }
        ["flush", "dev", name] | ["flush", name] => {
            let number = interface(stack, name)?;
            let of_family = |own: &IpNetwork| family.is_none_or(|v6| own.address().is_ipv6() == v6);
            stack.interfaces[number].addresses.retain(|own| !of_family(own));
            Ok(String::new())
        }
        [verb @ ("add" | "del" | "replace"), network, rest @ ..] => {
            let text = *network;
            let network: IpNetwork = text.parse().map_err(|_| {
                usage(format!("Error: any valid prefix is expected rather than \"{text}\"."))
            })?;
            let (["dev", name, ..] | ["brd" | "broadcast", _, "dev", name, ..]) = rest else {
                return Err(usage("Not enough information: \"dev\" argument is required."));
            };
            let number = interface(stack, name)?;
            let addresses = &mut stack.interfaces[number].addresses;
            let known = addresses.iter().position(|own| *own == network);
            match (*verb, known) {
                ("add", Some(_)) => Err(Wrong::Refused("File exists")),
                ("add" | "replace", None) => {
                    // Before the link-local address, so that it is found first.
                    let at = addresses.iter().position(|own| is_link_local(own.address()));
                    addresses.insert(at.unwrap_or(addresses.len()), network);
                    Ok(String::new())
                }
                ("del", Some(at)) => {
                    addresses.remove(at);
                    Ok(String::new())
                }
                ("del", None) => Err(Wrong::Refused("Cannot assign requested address")),
                _ => Ok(String::new()),
            }
        }
        [word, ..] => Err(usage(format!("Command \"{word}\" is unknown, try show, add or del."))),
    }
}

fn link(stack: &mut Stack, words: &[&str]) -> Result<String, Wrong> {
    match words {
        [] => Ok(show(stack, None, false, None)),
        [verb] if is_show(verb) => Ok(show(stack, None, false, None)),
        [verb, "dev", name] | [verb, name] if is_show(verb) => {
            Ok(show(stack, Some(interface(stack, name)?), false, None))
        }
        ["set", "dev", name, changes @ ..] | ["set", name, changes @ ..] => {
            let number = interface(stack, name)?;
            change_link(stack, number, changes)?;
            Ok(String::new())
        }
        [word, ..] => Err(usage(format!("Command \"{word}\" is unknown, try show or set."))),
    }
}

fn change_link(stack: &mut Stack, number: usize, changes: &[&str]) -> Result<(), Wrong> {
    let mut changes = changes.iter();
    while let Some(change) = changes.next() {
        let interface = &mut stack.interfaces[number];
        match *change {
            "up" => interface.up = true,
            "down" => {
                interface.up = false;
                stack.routes.retain(|route| route.interface != number);
            }
            "mtu" => {
                let mtu = changes.next().and_then(|mtu| mtu.parse().ok());
                interface.mtu = mtu
                    .filter(|mtu| (68..=65_535).contains(mtu))
                    .ok_or(Wrong::Refused("Invalid argument"))?;
            }
            "address" => {
                let mac = changes.next().and_then(|text| mac(text));
                interface.mac =
                    mac.ok_or_else(|| usage("\"address\" needs a hardware address."))?;
                stack.forget_neighbours(number);
            }
            word => return Err(usage(format!("Error: \"{word}\" is unknown, try up or down."))),
        }
    }
    Ok(())
}

fn mac(text: &str) -> Option<[u8; 6]> {
    let mut mac = [0; 6];
    let mut parts = text.split(':');
    for byte in &mut mac {
        *byte = u8::from_str_radix(parts.next()?, 16).ok()?;
    }
    (parts.next().is_none() && mac[0] & 1 == 0).then_some(mac)
}

fn route(stack: &mut Stack, words: &[&str], family: Option<bool>) -> Result<String, Wrong> {
    let (verb, rest) = match words {
        [] => return Ok(show_routes(stack, family)),
        [verb, which @ ..] if is_show(verb) => {
            let routes = show_routes(stack, family);
            return Ok(match which {
                [] => routes,
                ["dev", name] => {
                    interface(stack, name)?;
                    some_lines(&routes, |words| words.windows(2).any(|pair| pair == ["dev", name]))
                }
                [to] | ["to", to] => some_lines(&routes, |words| words.first() == Some(to)),
                [word, ..] => {
                    return Err(usage(format!("Error: \"{word}\" is unknown, try to or dev.")));
                }
            });
        }
        ["get", address] => return get_route(stack, address),
        [verb @ ("add" | "del" | "replace" | "append"), to, rest @ ..] => (*verb, (*to, rest)),
        [word, ..] => {
            return Err(usage(format!(
                "Command \"{word}\" is unknown, try show, get, add or del."
            )));
        }
    };
    let (to, rest) = rest;
    let (mut via, mut dev): (Option<IpAddr>, Option<usize>) = (None, None);
    for pair in rest.chunks(2) {
        match pair {
            ["via", address] => {
                let wrong =
                    || usage(format!("Error: inet address is expected rather than \"{address}\"."));
                via = Some(address.parse().map_err(|_| wrong())?);
            }
            ["dev", name] => dev = Some(interface(stack, name)?),
            // Preferences among several routes, of which there are none here.
            ["metric" | "proto" | "scope", _] | [] => {}
            [word, ..] => {
                return Err(usage(format!("Error: \"{word}\" is unknown, try via or dev.")));
            }
        }
    }
    let v6 = family.unwrap_or(matches!(via, Some(IpAddr::V6(_))) || to.contains(':'));
    let to = match to {
        "default" if v6 => "::/0",
        "default" => "0.0.0.0/0",
        to => to,
    };
    let to: IpNetwork = to
        .parse()
        .map_err(|_| usage(format!("Error: any valid prefix is expected rather than \"{to}\".")))?;
    let to = to.network();
    let known = stack.routes.iter().position(|route| {
        route.to == to
            && (verb != "del"
                || via.is_none_or(|via| route.via == Some(via))
                    && dev.is_none_or(|dev| route.interface == dev))
    });
    if verb == "del" {
        stack.routes.remove(known.ok_or(Wrong::Refused("No such process"))?);
        return Ok(String::new());
    }
    let interface = dev.or_else(|| via.and_then(|via| stack.connected(via)));
    let interface = interface.ok_or(Wrong::Refused("Network is unreachable"))?;
    let route = Route { to, via, interface };
    match known {
        Some(_) if verb == "add" => return Err(Wrong::Refused("File exists")),
        Some(at) if verb == "replace" => stack.routes[at] = route,
        _ => stack.routes.push(route),
    }
    Ok(String::new())
}

/// Whether a word is `show` or `list`, or short for them.
fn is_show(word: &str) -> bool {
    !word.is_empty() && ["show", "list", "lst", "ls"].iter().any(|verb| verb.starts_with(word))
}

/// The lines of a text whose words are wanted.
fn some_lines(text: &str, wanted: impl Fn(&[&str]) -> bool) -> String {
    let lines = text.lines().filter(|line| wanted(&line.split(' ').collect::<Vec<_>>()));
    lines.flat_map(|line| [line, "\n"]).collect()
}

fn get_route(stack: &Stack, text: &str) -> Result<String, Wrong> {
    let wrong = || usage(format!("Error: inet address is expected rather than \"{text}\"."));
    let address: IpAddr = text.parse().map_err(|_| wrong())?;
    if stack.is_local(address) {
        return Ok(format!("local {address} dev lo src {address}\n"));
    }
    let hop = stack.route(address).ok_or(Wrong::Refused("Network is unreachable"))?;
    let name = &stack.interfaces[hop.interface].name;
    let via = if hop.next == address { String::new() } else { format!(" via {}", hop.next) };
    let source = stack.source_for(address).map_or(String::new(), |src| format!(" src {src}"));
    Ok(format!("{address}{via} dev {name}{source}\n"))
}

fn show_routes(stack: &Stack, family: Option<bool>) -> String {
    let v6 = family == Some(true);
    let mut text = String::new();
    for route in stack.routes.iter().filter(|route| route.to.address().is_ipv6() == v6) {
        let to = match route.to.prefix() {
            0 => "default".to_owned(),
            _ => plain(route.to),
        };
        let via = route.via.map_or(String::new(), |via| format!(" via {via}"));
        let _ = writeln!(text, "{to}{via} dev {}", stack.interfaces[route.interface].name);
    }
    for interface in stack.interfaces.iter().skip(1).filter(|i| i.up && i.master.is_none()) {
        for own in interface.addresses.iter().filter(|own| own.address().is_ipv6() == v6) {
            let name = &interface.name;
            let to = own.network();
            let _ = if v6 {
                writeln!(text, "{to} dev {name} proto kernel metric 256")
            } else {
                writeln!(text, "{to} dev {name} proto kernel scope link src {}", own.address())
            };
        }
    }
    text
}

/// A network without the prefix length if it is one address.
fn plain(network: IpNetwork) -> String {
    if network == IpNetwork::host(network.address()) {
        network.address().to_string()
    } else {
        network.to_string()
    }
}

/// The interfaces, with their addresses or without.
fn show(stack: &Stack, only: Option<usize>, addresses: bool, family: Option<bool>) -> String {
    let mut text = String::new();
    for (number, interface) in stack.interfaces.iter().enumerate() {
        if only.is_some_and(|only| only != number) {
            continue;
        }
        head(&mut text, stack, number, interface);
        for own in interface.addresses.iter().filter(|_| addresses) {
            let address = own.address();
            if family.is_some_and(|v6| v6 != address.is_ipv6()) {
                continue;
            }
            let word = if address.is_ipv6() { "inet6" } else { "inet" };
            let scope = match address {
                _ if matches!(interface.kind, InterfaceKind::Loopback) => "host",
                _ if is_link_local(address) => "link",
                _ => "global",
            };
            let label = if address.is_ipv6() { "" } else { interface.name.as_str() };
            let _ = writeln!(
                text,
                "    {word} {own} scope {scope} {label}\n       valid_lft forever preferred_lft forever"
            );
        }
    }
    text
}

fn head(text: &mut String, stack: &Stack, number: usize, interface: &Interface) {
    let Interface { name, mtu, up, carrier, .. } = interface;
    let loopback = matches!(interface.kind, InterfaceKind::Loopback);
    let kind = if loopback { "LOOPBACK" } else { "BROADCAST,MULTICAST" };
    let (first, flags) = match (up, carrier) {
        (true, true) => ("", ",UP,LOWER_UP"),
        (true, false) => ("NO-CARRIER,", ",UP"),
        (false, _) => ("", ""),
    };
    let state = match interface.works() {
        _ if loopback => "UNKNOWN",
        true => "UP",
        false => "DOWN",
    };
    let master = interface
        .master
        .map_or(String::new(), |master| format!("master {} ", stack.interfaces[master].name));
    let mac = interface.mac.map(|byte| format!("{byte:02x}")).join(":");
    let (link, all) =
        if loopback { ("loopback", "00:00:00:00:00:00") } else { ("ether", "ff:ff:ff:ff:ff:ff") };
    let _ = writeln!(
        text,
        "{}: {name}: <{first}{kind}{flags}> mtu {mtu} qdisc noqueue {master}state {state} group default \
         qlen 1000\n    link/{link} {mac} brd {all}",
        number + 1
    );
}
