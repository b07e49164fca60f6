//! Rates, sizes and probabilities that know their unit.
//!
//! Assumptions: rates are whole bits per second; `k`, `M`, `G`, `T` are powers of 1000 and `Ki`,
//! `Mi`, `Gi`, `Ti` powers of 1024. `bps` is refused: bits in ns-3 and iperf, bytes in `tc`.
//!
//! Reference: IEC 80000-13; ns-3 `DataRate::CalculateBytesTxTime`.

use std::num::NonZeroU64;
use std::str::FromStr;

use thiserror::Error;

use crate::SimTime;
use crate::decimal::{ParseQuantityError, Print, Quantity, Unit, quantity_text};

const KILO: u64 = 1_000;
const MEGA: u64 = 1_000_000;
const GIGA: u64 = 1_000_000_000;
const TERA: u64 = 1_000_000_000_000;
const KIBI: u64 = 1 << 10;
const MEBI: u64 = 1 << 20;
const GIBI: u64 = 1 << 30;
const TEBI: u64 = 1 << 40;

const fn unit(name: &'static str, worth: u64, print: Print) -> Unit {
    Unit { name, worth, print }
}

/// A transmission rate in bits per second; never zero.
///
/// As text: `10Mbit/s`, `1.5Gbit/s`, `9600bit/s`, `2MiB/s`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DataRate(NonZeroU64);

const RATE: Quantity = Quantity {
    units: &[
        unit("bit/s", 1, Print::Decimal),
        unit("B/s", 8, Print::Never),
        unit("kbit/s", KILO, Print::Decimal),
        unit("Kbit/s", KILO, Print::Never),
        unit("Kibit/s", KIBI, Print::Never),
        unit("kB/s", 8 * KILO, Print::Never),
        unit("KB/s", 8 * KILO, Print::Never),
        unit("KiB/s", 8 * KIBI, Print::Never),
        unit("Mbit/s", MEGA, Print::Decimal),
        unit("Mibit/s", MEBI, Print::Never),
        unit("MB/s", 8 * MEGA, Print::Never),
        unit("MiB/s", 8 * MEBI, Print::Never),
        unit("Gbit/s", GIGA, Print::Decimal),
        unit("Gibit/s", GIBI, Print::Never),
        unit("GB/s", 8 * GIGA, Print::Never),
        unit("GiB/s", 8 * GIBI, Print::Never),
        unit("Tbit/s", TERA, Print::Decimal),
    ],
    expected: "a rate such as `10Mbit/s`, `1.5Gbit/s` or `2MiB/s`",
    resolution: "1bit/s",
    largest: "18446744073709551615bit/s",
    max: u64::MAX,
};

impl DataRate {
    /// So many bits per second; `None` for zero.
    pub const fn from_bits_per_sec(bits_per_sec: u64) -> Option<Self> {
        match NonZeroU64::new(bits_per_sec) {
            Some(rate) => Some(Self(rate)),
            None => None,
        }
    }

    /// In bits per second.
    pub const fn bits_per_sec(self) -> u64 {
        self.0.get()
    }

    /// The time that serialising `bytes` takes, as ns-3 3.37 computes it: the quotient
    /// bits / rate as a Q64.64 fixed-point number of seconds, truncated; times 10⁹; rounded half
    /// up to the nanosecond. Saturates at [`SimTime::MAX`].
    pub fn transmit_time(self, bytes: u64) -> SimTime {
        let bits = u128::from(bytes) * 8;
        let rate = u128::from(self.0.get());
        // bits < 2⁶⁷, so bits·2⁶⁴ may not fit: whole seconds and the fraction apart.
        let secs = bits / rate;
        let fraction = ((bits % rate) << 64) / rate;
        let sub_nanos = (fraction * 1_000_000_000 + (1 << 63)) >> 64;
        let nanos = secs.saturating_mul(1_000_000_000).saturating_add(sub_nanos);
        SimTime::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
    }

    const fn smallest_units(self) -> u64 {
        self.0.get()
    }
}

impl FromStr for DataRate {
    type Err = ParseQuantityError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let bits_per_sec = RATE.parse(text).map_err(|error| match error {
            ParseQuantityError::UnknownUnit { text, unit, .. }
                if ["", "k", "m", "g", "t"]
                    .iter()
                    .any(|prefix| unit.eq_ignore_ascii_case(&format!("{prefix}bps"))) =>
            {
                let prefix = &unit[..unit.len() - "bps".len()];
                // Only kilo is small.
                let prefix =
                    if prefix == "k" { prefix.to_owned() } else { prefix.to_ascii_uppercase() };
                let (bits, bytes) = (format!("{prefix}bit/s"), format!("{prefix}B/s"));
                ParseQuantityError::AmbiguousUnit { text, unit, bits, bytes }
            }
            other => other,
        })?;
        Self::from_bits_per_sec(bits_per_sec).ok_or_else(|| ParseQuantityError::Zero {
            text: text.to_owned(),
            expected: RATE.expected,
        })
    }
}

quantity_text!(DataRate, RATE, "a rate with its unit, for example `10Mbit/s`");

/// A number of bytes. As text: `1500B`, `64KiB`, `128MiB`, `1GB`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct ByteCount(u64);

const BYTES: Quantity = Quantity {
    units: &[
        unit("B", 1, Print::Decimal),
        unit("kB", KILO, Print::Whole),
        unit("KB", KILO, Print::Never),
        unit("KiB", KIBI, Print::Whole),
        unit("MB", MEGA, Print::Whole),
        unit("MiB", MEBI, Print::Whole),
        unit("GB", GIGA, Print::Whole),
        unit("GiB", GIBI, Print::Whole),
        unit("TB", TERA, Print::Whole),
        unit("TiB", TEBI, Print::Whole),
    ],
    expected: "a size such as `1500B`, `64KiB` or `1GB`",
    resolution: "1B",
    largest: "18446744073709551615B",
    max: u64::MAX,
};

impl ByteCount {
    /// So many bytes.
    pub const fn from_bytes(bytes: u64) -> Self {
        Self(bytes)
    }

    /// So many mebibytes (2²⁰ bytes), saturating.
    pub const fn from_mebibytes(mebibytes: u64) -> Self {
        Self(mebibytes.saturating_mul(MEBI))
    }

    /// In bytes.
    pub const fn as_bytes(self) -> u64 {
        self.0
    }

    const fn smallest_units(self) -> u64 {
        self.0
    }
}

impl FromStr for ByteCount {
    type Err = ParseQuantityError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        BYTES.parse(text).map(Self)
    }
}

quantity_text!(ByteCount, BYTES, "a size with its unit, for example `64KiB`");

/// A probability from 0 to 1 in steps of 10⁻¹², written in percent: `1%`, `0.5%`, `0.000001%`.
///
/// The decimal steps make `0.1%` exactly what it says, so that it can be compared and printed.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Probability(u64);

const PROBABILITY: Quantity = Quantity {
    units: &[unit("%", TERA / 100, Print::Decimal)],
    expected: "a probability such as `1%` or `0.5%`",
    resolution: "10^-12",
    largest: "100%",
    max: TERA,
};

impl Probability {
    /// Never.
    pub const ZERO: Self = Self(0);
    /// Always.
    pub const ONE: Self = Self(TERA);

    /// From a share between 0 and 1, rounded to the nearest step.
    pub fn from_f64(share: f64) -> Result<Self, InvalidProbability> {
        if (0.0..=1.0).contains(&share) {
            Ok(Self((share * TERA as f64).round() as u64))
        } else {
            Err(InvalidProbability { share })
        }
    }

    /// As a share between 0 and 1.
    pub fn as_f64(self) -> f64 {
        self.0 as f64 / TERA as f64
    }

    const fn smallest_units(self) -> u64 {
        self.0
    }
}

/// A share that is no probability.
#[derive(Debug, Clone, Copy, PartialEq, Error)]
#[error("{share} is not a probability; use a number from 0 to 1")]
pub struct InvalidProbability {
    /// The value as given.
    pub share: f64,
}

impl FromStr for Probability {
    type Err = ParseQuantityError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        PROBABILITY.parse(text).map(Self)
    }
}

quantity_text!(Probability, PROBABILITY, "a probability in percent, for example `0.5%`");

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn rate(bits_per_sec: u64) -> DataRate {
        DataRate::from_bits_per_sec(bits_per_sec).unwrap()
    }

    #[test]
    fn serialisation_time_is_ns3s() {
        // Arrival times of ns-3 3.37; rounding down would give one nanosecond less for the first.
        assert_eq!(rate(7_000_001).transmit_time(1_352).as_nanos(), 1_545_143);
        assert_eq!(rate(7_000_001).transmit_time(1_361).as_nanos(), 1_555_428);
        assert_eq!(rate(100_000_000).transmit_time(1_500).as_nanos(), 120_000);
        assert_eq!(rate(1).transmit_time(1).as_nanos(), 8_000_000_000);
        assert_eq!(rate(u64::MAX).transmit_time(0).as_nanos(), 0);
        assert_eq!(rate(1).transmit_time(u64::MAX), SimTime::MAX);
        assert_eq!(rate(u64::MAX).transmit_time(u64::MAX).as_nanos(), 8_000_000_000);
    }

    #[test]
    fn rates_read_and_print() {
        for (text, bits, printed) in [
            ("10Mbit/s", 10_000_000, "10Mbit/s"),
            ("1.5Gbit/s", 1_500_000_000, "1.5Gbit/s"),
            ("9600bit/s", 9_600, "9.6kbit/s"),
            ("100 Mbit/s", 100_000_000, "100Mbit/s"),
            ("64KiB/s", 524_288, "524288bit/s"),
            ("1MB/s", 8_000_000, "8Mbit/s"),
        ] {
            let parsed: DataRate = text.parse().unwrap();
            assert_eq!((parsed.bits_per_sec(), parsed.to_string()), (bits, printed.to_owned()));
        }
        assert!(matches!("0Mbit/s".parse::<DataRate>(), Err(ParseQuantityError::Zero { .. })));
        assert!(matches!("10".parse::<DataRate>(), Err(ParseQuantityError::NoUnit { .. })));
        assert!(matches!("1m/s".parse::<DataRate>(), Err(ParseQuantityError::UnknownUnit { .. })));
        for (text, instead) in [
            ("10Mbps", "write Mbit/s or MB/s"),
            ("10mbps", "write Mbit/s or MB/s"),
            ("64 kbps", "write kbit/s or kB/s"),
            ("9600bps", "write bit/s or B/s"),
        ] {
            let error = text.parse::<DataRate>().unwrap_err().to_string();
            assert!(error.contains(instead), "{error}");
        }
    }

    #[test]
    fn sizes_read_and_print() {
        for (text, bytes, printed) in [
            ("1500B", 1_500, "1500B"),
            ("64KiB", 65_536, "64KiB"),
            ("128MiB", 134_217_728, "128MiB"),
            ("1GB", 1_000_000_000, "1GB"),
            ("1.5KiB", 1_536, "1536B"),
        ] {
            let parsed: ByteCount = text.parse().unwrap();
            assert_eq!((parsed.as_bytes(), parsed.to_string()), (bytes, printed.to_owned()));
        }
        assert!(matches!("0.3KiB".parse::<ByteCount>(), Err(ParseQuantityError::TooFine { .. })));
    }

    #[test]
    fn probabilities_read_and_print() {
        let parsed: Probability = "0.5%".parse().unwrap();
        assert!((parsed.as_f64() - 0.005).abs() < f64::EPSILON);
        assert_eq!(parsed.to_string(), "0.5%");
        assert_eq!("100%".parse(), Ok(Probability::ONE));
        assert_eq!(Probability::ZERO.to_string(), "0%");
        assert!(matches!("0.01".parse::<Probability>(), Err(ParseQuantityError::NoUnit { .. })));
        assert!(matches!("101%".parse::<Probability>(), Err(ParseQuantityError::TooLarge { .. })));
        assert!(Probability::from_f64(1.1).is_err() && Probability::from_f64(f64::NAN).is_err());
    }

    proptest! {
        #[test]
        fn text_round_trips(value: u64, parts in 0..=TERA) {
            if let Some(rate) = DataRate::from_bits_per_sec(value) {
                prop_assert_eq!(rate.to_string().parse(), Ok(rate));
                let json = serde_json::to_string(&rate).unwrap();
                prop_assert_eq!(serde_json::from_str::<DataRate>(&json).unwrap(), rate);
            }
            let bytes = ByteCount::from_bytes(value);
            prop_assert_eq!(bytes.to_string().parse(), Ok(bytes));
            let probability = Probability(parts);
            prop_assert_eq!(probability.to_string().parse(), Ok(probability));
            prop_assert_eq!(Probability::from_f64(probability.as_f64()), Ok(probability));
        }

        #[test]
        fn transmit_time_is_within_half_a_nanosecond(bytes in 0..10_000_000_u64, bits in 1..u64::MAX) {
            let nanos = u128::from(rate(bits).transmit_time(bytes).as_nanos());
            let exact = u128::from(bytes) * 8_000_000_000;
            // |nanos − exact/bits| ≤ 1/2, with one part in 2⁶⁴ of a second for the truncation.
            let error = (nanos * u128::from(bits)).abs_diff(exact);
            prop_assert!(error * 2 <= u128::from(bits) + u128::from(bits >> 32) + 2);
        }
    }
}
