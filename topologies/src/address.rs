//! Text forms of hardware and network addresses.
//!
//! Purpose: reading and printing [`MacAddr`], [`Ipv4Net`], [`Ipv6Net`] and [`IpNet`], and the
//! little arithmetic that address assignment needs.
//!
//! Assumptions: a hardware address is written as six hexadecimal octets joined by `:`; a network
//! address always carries its prefix length (`10.0.0.1/24`), so that no class is guessed.
//!
//! Reference: RFC 4632 (CIDR), RFC 5952 (text of IPv6 addresses), IEEE 802 (the two low bits of
//! the first octet).

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use thiserror::Error;

use crate::resolved::{IpNet, Ipv4Net, Ipv6Net, MacAddr};

/// Why a text is not an address.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum ParseAddressError {
    /// Not six hexadecimal octets.
    #[error("`{text}` is not a hardware address; write six octets such as `02:00:00:00:00:01`")]
    Mac {
        /// The text as given.
        text: String,
    },
    /// The group bit is set: such an address names many stations.
    #[error("`{text}` is a multicast address; an interface needs a unicast one (even first octet)")]
    Multicast {
        /// The text as given.
        text: String,
    },
    /// All octets are zero.
    #[error("`{text}` is the null address; an interface needs one of its own")]
    Null {
        /// The text as given.
        text: String,
    },
    /// The part before the prefix length is not an address of the expected family.
    #[error("`{text}` is not an {family} address with a prefix length, such as `{example}`")]
    Address {
        /// The text as given.
        text: String,
        /// `IPv4`, `IPv6` or `IP`.
        family: &'static str,
        /// A text that would be accepted.
        example: &'static str,
    },
    /// There is no prefix length.
    #[error("`{text}` has no prefix length; write for example `{text}/{example}`")]
    NoPrefix {
        /// The text as given.
        text: String,
        /// A usual prefix length of the family.
        example: u8,
    },
    /// The prefix length is not a number in range.
    #[error("the prefix length of `{text}` is not a number from 0 to {largest}")]
    Prefix {
        /// The text as given.
        text: String,
        /// Number of bits of the family's addresses.
        largest: u8,
    },
}

impl FromStr for MacAddr {
    type Err = ParseAddressError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let wrong = || ParseAddressError::Mac { text: text.to_owned() };
        let mut octets = [0; 6];
        let mut parts = text.split(':');
        for octet in &mut octets {
            let part = parts.next().ok_or_else(wrong)?;
            if part.len() != 2 || !part.bytes().all(|b| b.is_ascii_hexdigit()) {
                return Err(wrong());
            }
            *octet = u8::from_str_radix(part, 16).map_err(|_| wrong())?;
        }
        if parts.next().is_some() {
            return Err(wrong());
        }
        if octets[0] & 1 != 0 {
            return Err(ParseAddressError::Multicast { text: text.to_owned() });
        }
        if octets == [0; 6] {
            return Err(ParseAddressError::Null { text: text.to_owned() });
        }
        Ok(Self(octets))
    }
}

impl fmt::Display for MacAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, octet) in self.0.iter().enumerate() {
            let separator = if at == 0 { "" } else { ":" };
            write!(f, "{separator}{octet:02x}")?;
        }
        Ok(())
    }
}

impl fmt::Debug for MacAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Splits `ADDRESS/PREFIX`, checking the prefix length against the address's family.
fn parse_net<A: FromStr>(
    text: &str,
    family: &'static str,
    example: &'static str,
    bits: impl Fn(&A) -> u8,
) -> Result<(A, u8), ParseAddressError> {
    let (address, prefix) = match text.split_once('/') {
        Some((address, prefix)) => (address, Some(prefix)),
        None => (text, None),
    };
    let address: A = address.parse().map_err(|_| ParseAddressError::Address {
        text: text.to_owned(),
        family,
        example,
    })?;
    let largest = bits(&address);
    let Some(prefix) = prefix else {
        let example = if largest == 32 { 24 } else { 64 };
        return Err(ParseAddressError::NoPrefix { text: text.to_owned(), example });
    };
    match prefix.parse::<u8>() {
        Ok(length) if length <= largest && prefix.bytes().all(|b| b.is_ascii_digit()) => {
            Ok((address, length))
        }
        _ => Err(ParseAddressError::Prefix { text: text.to_owned(), largest }),
    }
}

impl FromStr for Ipv4Net {
    type Err = ParseAddressError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (address, prefix) = parse_net(text, "IPv4", "10.0.0.1/24", |_: &Ipv4Addr| 32)?;
        Ok(Self { address, prefix })
    }
}

impl FromStr for Ipv6Net {
    type Err = ParseAddressError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (address, prefix) = parse_net(text, "IPv6", "fd00::1/64", |_: &Ipv6Addr| 128)?;
        Ok(Self { address, prefix })
    }
}

impl FromStr for IpNet {
    type Err = ParseAddressError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (address, prefix) =
            parse_net(
                text,
                "IP",
                "10.1.0.0/16",
                |address: &IpAddr| {
                    if address.is_ipv4() { 32 } else { 128 }
                },
            )?;
        Ok(Self { address, prefix })
    }
}

macro_rules! net_text {
    ($($net:ident),+) => {$(
        impl fmt::Display for $net {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}/{}", self.address, self.prefix)
            }
        }

        impl fmt::Debug for $net {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, f)
            }
        }
    )+};
}

net_text!(Ipv4Net, Ipv6Net, IpNet);

macro_rules! string_serde {
    ($($address:ident),+) => {$(
        impl TryFrom<String> for $address {
            type Error = ParseAddressError;

            fn try_from(text: String) -> Result<Self, Self::Error> {
                text.parse()
            }
        }

        impl From<$address> for String {
            fn from(address: $address) -> Self {
                address.to_string()
            }
        }
    )+};
}

string_serde!(MacAddr, Ipv4Net, Ipv6Net, IpNet);

impl Ipv4Net {
    /// The network's own address: host bits cleared.
    pub fn network(self) -> Ipv4Addr {
        Ipv4Addr::from_bits(self.address.to_bits() & self.mask())
    }

    /// Whether `address` lies in this network.
    pub fn contains(self, address: Ipv4Addr) -> bool {
        (address.to_bits() ^ self.address.to_bits()) & self.mask() == 0
    }

    fn mask(self) -> u32 {
        u32::MAX.checked_shl(32 - u32::from(self.prefix)).unwrap_or(0)
    }

    /// First and last address a host may have, as numbers; a network of one or two addresses has
    /// neither network nor broadcast address (RFC 3021).
    pub(crate) fn host_bounds(self) -> (u128, u128) {
        let first = self.network().to_bits();
        let last = first | !self.mask();
        if self.prefix >= 31 {
            (first.into(), last.into())
        } else {
            (u128::from(first) + 1, u128::from(last) - 1)
        }
    }
}

impl Ipv6Net {
    /// The network's own address: host bits cleared.
    pub fn network(self) -> Ipv6Addr {
        Ipv6Addr::from_bits(self.address.to_bits() & self.mask())
    }

    /// Whether `address` lies in this network.
    pub fn contains(self, address: Ipv6Addr) -> bool {
        (address.to_bits() ^ self.address.to_bits()) & self.mask() == 0
    }

    fn mask(self) -> u128 {
        u128::MAX.checked_shl(128 - u32::from(self.prefix)).unwrap_or(0)
    }

    /// First and last address a host may have, as numbers; the first of a wider network is the
    /// subnet-router anycast address and is left out (RFC 4291).
    pub(crate) fn host_bounds(self) -> (u128, u128) {
        let first = self.network().to_bits();
        let last = first | !self.mask();
        if self.prefix >= 127 { (first, last) } else { (first + 1, last) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_print_what_they_read() {
        for text in ["02:00:00:01:00:ff", "fe:dc:ba:98:76:54"] {
            assert_eq!(text.parse::<MacAddr>().unwrap().to_string(), text);
        }
        for text in ["10.0.0.1/24", "0.0.0.0/0", "10.1.2.3/32"] {
            assert_eq!(text.parse::<Ipv4Net>().unwrap().to_string(), text);
            assert_eq!(text.parse::<IpNet>().unwrap().to_string(), text);
        }
        for text in ["fd00::1/64", "::/0"] {
            assert_eq!(text.parse::<Ipv6Net>().unwrap().to_string(), text);
            assert_eq!(text.parse::<IpNet>().unwrap().to_string(), text);
        }
    }

    #[test]
    fn wrong_addresses_are_refused() {
        for text in [
            "",
            "02:00:00:00:00",
            "02:00:00:00:00:00:00",
            "2:0:0:0:0:0",
            "01:00:00:00:00:01",
            "00:00:00:00:00:00",
            "+2:00:00:00:00:01",
        ] {
            assert!(text.parse::<MacAddr>().is_err(), "{text}");
        }
        for text in
            ["", "10.0.0.1", "10.0.0.1/33", "10.0.0.1/", "10.0.0.1/+8", "10.0.0/8", "fd00::1/64"]
        {
            assert!(text.parse::<Ipv4Net>().is_err(), "{text}");
        }
        for text in ["fd00::1", "fd00::1/129", "10.0.0.1/8"] {
            assert!(text.parse::<Ipv6Net>().is_err(), "{text}");
        }
    }

    #[test]
    fn host_bounds_leave_out_network_and_broadcast() {
        let bounds = |text: &str| text.parse::<Ipv4Net>().unwrap().host_bounds();
        let number = |text: &str| u128::from(text.parse::<Ipv4Addr>().unwrap().to_bits());
        assert_eq!(bounds("10.0.0.7/24"), (number("10.0.0.1"), number("10.0.0.254")));
        assert_eq!(bounds("10.0.0.2/31"), (number("10.0.0.2"), number("10.0.0.3")));
        assert_eq!(bounds("10.0.0.2/32"), (number("10.0.0.2"), number("10.0.0.2")));
        assert_eq!(bounds("0.0.0.0/0"), (1, u128::from(u32::MAX) - 1));
        assert_eq!("::/0".parse::<Ipv6Net>().unwrap().host_bounds(), (1, u128::MAX));
    }

    #[test]
    fn networks_know_their_members() {
        let net: Ipv4Net = "10.0.3.1/22".parse().unwrap();
        assert_eq!(net.network(), Ipv4Addr::new(10, 0, 0, 0));
        assert!(net.contains(Ipv4Addr::new(10, 0, 3, 255)));
        assert!(!net.contains(Ipv4Addr::new(10, 0, 4, 0)));
        let net: Ipv6Net = "fd00:1::5/32".parse().unwrap();
        assert_eq!(net.network(), "fd00:1::".parse::<Ipv6Addr>().unwrap());
        assert!(!net.contains("fd00:2::".parse().unwrap()));
    }
}
