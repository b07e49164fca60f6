//! Network addresses: those the file gives, and those it leaves to a link's subnet.
//!
//! Purpose: `ipv4:` or `ipv6:` of a link names a subnet; every interface on it that has no address
//! of that family gets the next free one, in the order of nodes. With `{from, per_link}` each link
//! of a shape gets a subnet of its own.
//!
//! Assumptions: ports of bridges, and nodes that are bridges or hubs, have no addresses. A network
//! address belongs to one interface of the whole topology; only link-local ones may repeat.

use std::collections::HashMap;
use std::net::{Ipv4Addr, Ipv6Addr};

use crate::diagnostics::report;
use crate::links::Links;
use crate::nodes::Drafts;
use crate::read::Reader;
use crate::resolved::{Ipv4Net, Ipv6Net};
use crate::shape::Scalar;
use crate::source::Span;
use crate::tree::Yaml;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Family {
    V4,
    V6,
}

impl Family {
    fn bits(self) -> u8 {
        match self {
            Self::V4 => 32,
            Self::V6 => 128,
        }
    }

    fn show(self, address: u128) -> String {
        match self {
            Self::V4 => Ipv4Addr::from_bits(address as u32).to_string(),
            Self::V6 => Ipv6Addr::from_bits(address).to_string(),
        }
    }
}

/// A network, its addresses as numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Subnet {
    family: Family,
    network: u128,
    prefix: u8,
}

impl Subnet {
    fn bounds(self) -> (u128, u128) {
        match self.family {
            Family::V4 => {
                let address = Ipv4Addr::from_bits(self.network as u32);
                Ipv4Net { address, prefix: self.prefix }.host_bounds()
            }
            Family::V6 => {
                let address = Ipv6Addr::from_bits(self.network);
                Ipv6Net { address, prefix: self.prefix }.host_bounds()
            }
        }
    }

    /// The `at`-th network of length `prefix` within this one.
    fn part(self, at: usize, prefix: u8) -> Option<Self> {
        let count = 1_u128.checked_shl(u32::from(prefix - self.prefix)).unwrap_or(u128::MAX);
        if at as u128 >= count {
            return None;
        }
        let step = (at as u128).checked_shl(u32::from(self.family.bits() - prefix)).unwrap_or(0);
        Some(Self { network: self.network | step, prefix, ..self })
    }

    fn show(self) -> String {
        format!("{}/{}", self.family.show(self.network), self.prefix)
    }
}

/// How the interfaces of one entry of `links:` get addresses.
#[derive(Debug)]
pub(crate) struct Plan {
    subnet: Subnet,
    /// Prefix length of each link's own part.
    per_link: Option<u8>,
    span: Span,
}

impl Plan {
    /// Reads `ipv4:` of a link.
    pub(crate) fn read4(reader: &mut Reader<'_>, yaml: &Yaml) -> Option<Self> {
        let from = yaml.get("from").unwrap_or(yaml);
        let net: Ipv4Net = reader.parsed(from, Scalar::Ipv4, "ipv4")?;
        let (address, network) = (net.address.to_bits().into(), net.network().to_bits().into());
        Self::read(reader, yaml, Family::V4, address, network, net.prefix)
    }

    /// Reads `ipv6:` of a link.
    pub(crate) fn read6(reader: &mut Reader<'_>, yaml: &Yaml) -> Option<Self> {
        let from = yaml.get("from").unwrap_or(yaml);
        let net: Ipv6Net = reader.parsed(from, Scalar::Ipv6, "ipv6")?;
        let (address, network) = (net.address.to_bits(), net.network().to_bits());
        Self::read(reader, yaml, Family::V6, address, network, net.prefix)
    }

    fn read(
        reader: &mut Reader<'_>,
        yaml: &Yaml,
        family: Family,
        address: u128,
        network: u128,
        prefix: u8,
    ) -> Option<Self> {
        let subnet = Subnet { family, network, prefix };
        let span = yaml.get("from").unwrap_or(yaml).span;
        if address != network {
            let wrong =
                report(format!("`{}/{prefix}` is an address, not a subnet", family.show(address)));
            reader.problems.add(span, wrong.expected(format!("expected `{}`", subnet.show())));
            reader.lost += 1;
            return None;
        }
        let per_link = match yaml.get("per_link") {
            None => None,
            Some(yaml) => {
                let scalar = Scalar::Integer { min: 1, max: family.bits().into() };
                let length: u8 = reader.parsed(yaml, scalar, "per_link")?;
                if length < prefix {
                    let wrong =
                        report(format!("a /{length} does not fit into `{}`", subnet.show()));
                    reader
                        .problems
                        .add(yaml.span, wrong.expected(format!("expected at least {prefix}")));
                    reader.lost += 1;
                    return None;
                }
                Some(length)
            }
        };
        Some(Self { subnet, per_link, span })
    }
}

/// Addresses in use and where to look for the next free one.
#[derive(Default)]
struct Taken {
    owners: HashMap<(Family, u128), String>,
    next: HashMap<Subnet, u128>,
}

/// Gives every interface its addresses.
pub(crate) fn assign(reader: &mut Reader<'_>, drafts: &mut Drafts<'_>, links: &Links) {
    let mut taken = Taken::default();
    claim_given(reader, drafts, &mut taken);
    for group in &links.groups {
        for plan in [&group.ipv4, &group.ipv6].into_iter().flatten() {
            match plan.per_link {
                None => fill(
                    reader,
                    drafts,
                    links,
                    group.links.clone(),
                    plan.subnet,
                    plan.span,
                    &mut taken,
                ),
                Some(prefix) => {
                    for (at, link) in group.links.clone().enumerate() {
                        let Some(part) = plan.subnet.part(at, prefix) else {
                            let count = group.links.len();
                            let wrong = format!(
                                "`{}` has fewer than {count} subnets of /{prefix}",
                                plan.subnet.show()
                            );
                            reader
                                .problems
                                .add(plan.span, report(wrong).expected("too small for this shape"));
                            doubt(drafts, links, link..group.links.end);
                            break;
                        };
                        fill(reader, drafts, links, link..link + 1, part, plan.span, &mut taken);
                    }
                }
            }
        }
    }
}

/// Notes the addresses that the file gives, and finds those it gives twice.
fn claim_given(reader: &mut Reader<'_>, drafts: &Drafts<'_>, taken: &mut Taken) {
    let mut claim = |family: Family, address: u128, owner: String, span: Span| {
        let link_local = family == Family::V6 && address >> 118 == 0x3fa
            || family == Family::V4 && address >> 16 == 0xa9fe;
        if link_local {
            return;
        }
        if let Some(other) = taken.owners.insert((family, address), owner) {
            let wrong = report(format!(
                "the address `{}` belongs to `{other}` already",
                family.show(address)
            ));
            reader.problems.add(span, wrong.expected("expected an address of its own"));
        }
    };
    for draft in &drafts.nodes {
        let node = &draft.node;
        for (name, settings) in &draft.settings {
            let owner = || format!("{}:{name}", node.name);
            for (net, span) in settings.ipv4.iter().flatten() {
                claim(Family::V4, net.address.to_bits().into(), owner(), *span);
            }
            for (net, span) in settings.ipv6.iter().flatten() {
                claim(Family::V6, net.address.to_bits(), owner(), *span);
            }
        }
        for (bridge, span) in node.bridges.iter().zip(&draft.bridge_spans) {
            let owner = || format!("{}:{}", node.name, bridge.name);
            for net in &bridge.ipv4 {
                claim(Family::V4, net.address.to_bits().into(), owner(), *span);
            }
            for net in &bridge.ipv6 {
                claim(Family::V6, net.address.to_bits(), owner(), *span);
            }
        }
    }
}

/// Marks the nodes on some links: they may lack addresses through no fault of their own.
fn doubt(drafts: &mut Drafts<'_>, links: &Links, range: std::ops::Range<usize>) {
    for end in links.links()[range].iter().flat_map(|link| &link.endpoints) {
        drafts.nodes[end.node].doubtful = true;
    }
}

/// Gives the interfaces on some links that have none an address of `subnet`.
fn fill(
    reader: &mut Reader<'_>,
    drafts: &mut Drafts<'_>,
    links: &Links,
    range: std::ops::Range<usize>,
    subnet: Subnet,
    span: Span,
    taken: &mut Taken,
) {
    let mut ends: Vec<(usize, usize)> = links.links()[range.clone()]
        .iter()
        .flat_map(|link| &link.endpoints)
        .map(|end| (end.node, end.interface))
        .collect();
    ends.sort_unstable();
    let (first, last) = subnet.bounds();
    let mut previous = None;
    for (node, at) in ends {
        let draft = &mut drafts.nodes[node];
        let interface = &draft.node.interfaces[at];
        let has = match subnet.family {
            Family::V4 => draft.settings.get(&interface.name).is_some_and(|s| s.ipv4.is_some()),
            Family::V6 => draft.settings.get(&interface.name).is_some_and(|s| s.ipv6.is_some()),
        };
        let port = draft.node.bridges.iter().any(|bridge| bridge.ports.contains(&interface.name));
        if has || port || !draft.is_addressed() {
            continue;
        }
        if previous == Some(node) && draft.doubtful {
            continue;
        }
        if previous == Some(node) {
            let wrong = report(format!(
                "the node `{}` would have two interfaces in the subnet `{}`",
                draft.node.name,
                subnet.show()
            ));
            let help = "bridge them (`bridges:`), or give each link a subnet of its own: \
                        `{from: NETWORK, per_link: PREFIX}`";
            reader.problems.add(span, wrong.expected("one subnet for all these links").help(help));
            doubt(drafts, links, range);
            return;
        }
        previous = Some(node);
        let start = *taken.next.get(&subnet).unwrap_or(&first);
        let Some(address) =
            (start..=last).find(|at| !taken.owners.contains_key(&(subnet.family, *at)))
        else {
            let wrong = report(format!("the subnet `{}` has no free address left", subnet.show()));
            let wrong = wrong.expected("too small for these links");
            reader
                .problems
                .add(span, wrong.help(format!("`{}` is the first to go without", draft.node.name)));
            doubt(drafts, links, range);
            return;
        };
        let interface = &mut draft.node.interfaces[at];
        taken
            .owners
            .insert((subnet.family, address), format!("{}:{}", draft.node.name, interface.name));
        taken.next.insert(subnet, address.saturating_add(1));
        match subnet.family {
            Family::V4 => {
                let address = Ipv4Addr::from_bits(address as u32);
                interface.ipv4.push(Ipv4Net { address, prefix: subnet.prefix });
            }
            Family::V6 => {
                let address = Ipv6Addr::from_bits(address);
                interface.ipv6.push(Ipv6Net { address, prefix: subnet.prefix });
            }
        }
    }
}
