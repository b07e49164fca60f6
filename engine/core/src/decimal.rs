//! Quantities as people write them: a decimal number and a unit, read and printed exactly.
//!
//! Assumptions: a quantity is a whole number of its smallest unit (nanosecond, bit per second,
//! byte, 10⁻¹²); every unit is a whole multiple of it.
//!
//! Not modelled: signs, exponents, digit grouping, locale.

use std::fmt::{self, Write as _};

use thiserror::Error;

/// Why a text is not a quantity. Every variant names the text and what is expected.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum ParseQuantityError {
    /// There is no number where the text should begin with one.
    #[error("`{text}` does not begin with a number; write {expected}")]
    NoNumber {
        /// The text as given.
        text: String,
        /// What would be accepted.
        expected: &'static str,
    },
    /// The number is negative.
    #[error("`{text}` is negative; write {expected}")]
    Negative {
        /// The text as given.
        text: String,
        /// What would be accepted.
        expected: &'static str,
    },
    /// The number stands alone.
    #[error("`{text}` has no unit; write {expected}")]
    NoUnit {
        /// The text as given.
        text: String,
        /// What would be accepted.
        expected: &'static str,
    },
    /// The unit is not one of this quantity's.
    #[error("`{unit}` in `{text}` is not a known unit; write {expected}")]
    UnknownUnit {
        /// The text as given.
        text: String,
        /// The part that should have been a unit.
        unit: String,
        /// What would be accepted.
        expected: &'static str,
    },
    /// The unit means one thing to some programs and another to others.
    #[error(
        "`{unit}` in `{text}` is bits per second to ns-3 and iperf and bytes per second to tc; \
         write {bits} or {bytes}"
    )]
    AmbiguousUnit {
        /// The text as given.
        text: String,
        /// The unit.
        unit: String,
        /// The unit that means bits.
        bits: String,
        /// The unit that means bytes.
        bytes: String,
    },
    /// The value lies between two representable ones.
    #[error("`{text}` is finer than {resolution}; round it")]
    TooFine {
        /// The text as given.
        text: String,
        /// The smallest step.
        resolution: &'static str,
    },
    /// The value exceeds the largest one allowed.
    #[error("`{text}` is too large; the largest value is {largest}")]
    TooLarge {
        /// The text as given.
        text: String,
        /// The largest value, as text.
        largest: &'static str,
    },
    /// The value is zero where zero means nothing.
    #[error("`{text}` is zero; write {expected}")]
    Zero {
        /// The text as given.
        text: String,
        /// What would be accepted.
        expected: &'static str,
    },
}

/// A unit: how it is written and how many smallest units it is worth.
pub(crate) struct Unit {
    /// The form that is printed.
    pub(crate) name: &'static str,
    /// Worth in smallest units.
    pub(crate) worth: u64,
    /// How values may be printed in this unit.
    pub(crate) print: Print,
}

/// Whether a unit is used for printing.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Print {
    /// Decimal fractions allowed; only for units worth a power of ten.
    Decimal,
    /// Whole multiples only.
    Whole,
    /// Accepted when parsing, never printed.
    Never,
}

/// A kind of quantity: its units in ascending order of worth, and its words for messages.
pub(crate) struct Quantity {
    pub(crate) units: &'static [Unit],
    pub(crate) expected: &'static str,
    pub(crate) resolution: &'static str,
    pub(crate) largest: &'static str,
    pub(crate) max: u64,
}

impl Quantity {
    /// Reads `text` as a whole number of smallest units, without any rounding.
    pub(crate) fn parse(&self, text: &str) -> Result<u64, ParseQuantityError> {
        let expected = self.expected;
        let own = || text.to_owned();
        let trimmed = text.trim();
        if trimmed.starts_with(['-', '\u{2212}']) {
            return Err(ParseQuantityError::Negative { text: own(), expected });
        }
        let split =
            trimmed.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(trimmed.len());
        let (number, unit) = trimmed.split_at(split);
        let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
        let well_formed = !whole.is_empty()
            && !fraction.contains('.')
            && (number.len() == whole.len() || !fraction.is_empty());
        if !well_formed {
            return Err(ParseQuantityError::NoNumber { text: own(), expected });
        }
        let unit = unit.trim_start();
        if unit.is_empty() {
            return Err(ParseQuantityError::NoUnit { text: own(), expected });
        }
        let Some(unit) = self.units.iter().find(|u| u.name == unit) else {
            return Err(ParseQuantityError::UnknownUnit {
                text: own(),
                unit: unit.into(),
                expected,
            });
        };

        let fraction = fraction.trim_end_matches('0');
        let too_large = || ParseQuantityError::TooLarge { text: own(), largest: self.largest };
        let too_fine = || ParseQuantityError::TooFine { text: own(), resolution: self.resolution };
        // 19 digits are the most a fraction of any unit (worth < 2⁶⁴) can need.
        if fraction.len() > 19 {
            return Err(too_fine());
        }
        let mut digits: u128 = 0;
        for digit in whole.bytes().chain(fraction.bytes()) {
            digits = digits
                .checked_mul(10)
                .and_then(|d| d.checked_add(u128::from(digit - b'0')))
                .ok_or_else(too_large)?;
        }
        let scaled = digits.checked_mul(u128::from(unit.worth)).ok_or_else(too_large)?;
        let scale = 10_u128.pow(fraction.len() as u32);
        if scaled % scale != 0 {
            return Err(too_fine());
        }
        u64::try_from(scaled / scale).ok().filter(|&v| v <= self.max).ok_or_else(too_large)
    }

    /// Writes `value` in the shortest form that [`Quantity::parse`] reads back to the same value;
    /// of equally short forms the one with the larger unit, and never one below 1 of its unit.
    pub(crate) fn format(&self, value: u64, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut best = String::new();
        let printed = self.units.iter().filter(|unit| unit.print != Print::Never);
        for (i, unit) in printed.enumerate() {
            let whole = value / unit.worth;
            let rest = value % unit.worth;
            let fits = i == 0
                || (whole > 0 && (rest == 0 || unit.print == Print::Decimal))
                || (value == 0 && unit.print == Print::Decimal);
            if !fits {
                continue;
            }
            let mut form = whole.to_string();
            if rest != 0 {
                let width = unit.worth.ilog10() as usize;
                let fraction = format!("{rest:0width$}");
                let _ = write!(form, ".{}", fraction.trim_end_matches('0'));
            }
            form.push_str(unit.name);
            if i == 0 || form.len() <= best.len() {
                best = form;
            }
        }
        f.pad(&best)
    }
}

/// Implements `FromStr`, `Display`, `Debug` and serde for a newtype over `u64`.
macro_rules! quantity_text {
    ($type:ty, $quantity:expr, $visitor:literal) => {
        impl std::fmt::Display for $type {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                $quantity.format(self.smallest_units(), f)
            }
        }

        impl std::fmt::Debug for $type {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                std::fmt::Display::fmt(self, f)
            }
        }

        $crate::decimal::text_serde!($type, $visitor);
    };
}
pub(crate) use quantity_text;

/// Implements serde for a type as the string of its `Display` and `FromStr`.
macro_rules! text_serde {
    ($type:ty, $visitor:literal) => {
        impl serde::Serialize for $type {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> serde::Deserialize<'de> for $type {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                struct Text;
                impl serde::de::Visitor<'_> for Text {
                    type Value = $type;

                    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                        f.write_str($visitor)
                    }

                    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<$type, E> {
                        text.parse().map_err(E::custom)
                    }
                }
                deserializer.deserialize_str(Text)
            }
        }
    };
}
pub(crate) use text_serde;
