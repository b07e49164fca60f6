//! Simulated time.
//!
//! Assumptions: whole nanoseconds since the start of the run, or a span of them; one type serves
//! as instant and as duration, as in ns-3.
//!
//! Not modelled: negative spans, calendars, leap seconds.

use std::iter::Sum;
use std::ops::{Add, AddAssign, Div, Mul, Sub, SubAssign};
use std::str::FromStr;
use std::time::Duration;

use thiserror::Error;

use crate::decimal::{ParseQuantityError, Print, Quantity, Unit, quantity_text};

/// An instant or a span of simulated time, in nanoseconds.
///
/// The operators `+`, `-` and `*` saturate at [`SimTime::ZERO`] and [`SimTime::MAX`]; where the
/// difference matters use [`checked_add`](Self::checked_add) and
/// [`checked_sub`](Self::checked_sub). As text it is `2ms`, `1.5s`, `100us`, `3min`, `1h`; a number
/// without a unit is refused.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct SimTime(u64);

const NANOS_PER_SEC: u64 = 1_000_000_000;

const TIME: Quantity = Quantity {
    units: &[
        Unit { name: "ns", worth: 1, print: Print::Decimal },
        Unit { name: "us", worth: 1_000, print: Print::Decimal },
        Unit { name: "µs", worth: 1_000, print: Print::Never }, // micro sign
        Unit { name: "μs", worth: 1_000, print: Print::Never }, // Greek mu
        Unit { name: "ms", worth: 1_000_000, print: Print::Decimal },
        Unit { name: "s", worth: NANOS_PER_SEC, print: Print::Decimal },
        Unit { name: "min", worth: 60 * NANOS_PER_SEC, print: Print::Whole },
        Unit { name: "h", worth: 3_600 * NANOS_PER_SEC, print: Print::Whole },
    ],
    expected: "a time such as `2ms`, `1.5s` or `100us` (units ns, us, ms, s, min, h)",
    resolution: "1ns",
    largest: "18446744073709551615ns (about 584 years)",
    max: u64::MAX,
};

impl SimTime {
    /// The start of a run; the empty span.
    pub const ZERO: Self = Self(0);
    /// The end of time; longer than any run.
    pub const MAX: Self = Self(u64::MAX);

    /// So many nanoseconds.
    pub const fn from_nanos(nanos: u64) -> Self {
        Self(nanos)
    }

    /// So many microseconds, saturating.
    pub const fn from_micros(micros: u64) -> Self {
        Self(micros.saturating_mul(1_000))
    }

    /// So many milliseconds, saturating.
    pub const fn from_millis(millis: u64) -> Self {
        Self(millis.saturating_mul(1_000_000))
    }

    /// So many seconds, saturating.
    pub const fn from_secs(secs: u64) -> Self {
        Self(secs.saturating_mul(NANOS_PER_SEC))
    }

    /// So many seconds, rounded to the nearest nanosecond; refuses negative, infinite and
    /// too large values.
    pub fn from_secs_f64(secs: f64) -> Result<Self, InvalidSeconds> {
        // Exclusive bound: 2⁶⁴ ns is the first value that does not fit.
        const LIMIT_NANOS: f64 = 18_446_744_073_709_551_616.0;
        let nanos = (secs * 1e9).round();
        if (0.0..LIMIT_NANOS).contains(&nanos) {
            Ok(Self(nanos as u64))
        } else {
            Err(InvalidSeconds { secs })
        }
    }

    /// In nanoseconds.
    pub const fn as_nanos(self) -> u64 {
        self.0
    }

    /// In seconds, to the precision of a double.
    pub fn as_secs_f64(self) -> f64 {
        self.0 as f64 / 1e9
    }

    /// The sum, or `None` if it does not fit.
    pub const fn checked_add(self, span: Self) -> Option<Self> {
        match self.0.checked_add(span.0) {
            Some(nanos) => Some(Self(nanos)),
            None => None,
        }
    }

    /// The difference, or `None` if it is negative.
    pub const fn checked_sub(self, span: Self) -> Option<Self> {
        match self.0.checked_sub(span.0) {
            Some(nanos) => Some(Self(nanos)),
            None => None,
        }
    }

    /// The sum, at most [`SimTime::MAX`].
    #[must_use]
    pub const fn saturating_add(self, span: Self) -> Self {
        Self(self.0.saturating_add(span.0))
    }

    /// The difference, at least [`SimTime::ZERO`].
    #[must_use]
    pub const fn saturating_sub(self, span: Self) -> Self {
        Self(self.0.saturating_sub(span.0))
    }

    const fn smallest_units(self) -> u64 {
        self.0
    }
}

/// Seconds that are no time: negative, not a number, or beyond [`SimTime::MAX`].
#[derive(Debug, Clone, Copy, PartialEq, Error)]
#[error("{secs} s is not a time; use a number from 0 to 18446744073")]
pub struct InvalidSeconds {
    /// The value as given, in seconds.
    pub secs: f64,
}

impl FromStr for SimTime {
    type Err = ParseQuantityError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        TIME.parse(text).map(Self)
    }
}

quantity_text!(SimTime, TIME, "a time with its unit, for example `2ms`");

impl Add for SimTime {
    type Output = Self;

    /// Saturates at [`SimTime::MAX`].
    fn add(self, span: Self) -> Self {
        self.saturating_add(span)
    }
}

impl AddAssign for SimTime {
    fn add_assign(&mut self, span: Self) {
        *self = *self + span;
    }
}

impl Sub for SimTime {
    type Output = Self;

    /// Saturates at [`SimTime::ZERO`].
    fn sub(self, span: Self) -> Self {
        self.saturating_sub(span)
    }
}

impl SubAssign for SimTime {
    fn sub_assign(&mut self, span: Self) {
        *self = *self - span;
    }
}

impl Mul<u64> for SimTime {
    type Output = Self;

    /// Saturates at [`SimTime::MAX`].
    fn mul(self, times: u64) -> Self {
        Self(self.0.saturating_mul(times))
    }
}

impl Div<std::num::NonZeroU64> for SimTime {
    type Output = Self;

    /// Rounds down.
    fn div(self, parts: std::num::NonZeroU64) -> Self {
        Self(self.0 / parts)
    }
}

impl Sum for SimTime {
    fn sum<I: Iterator<Item = Self>>(times: I) -> Self {
        times.fold(Self::ZERO, Add::add)
    }
}

impl From<SimTime> for Duration {
    fn from(time: SimTime) -> Self {
        Duration::from_nanos(time.0)
    }
}

impl From<Duration> for SimTime {
    /// Saturates at [`SimTime::MAX`].
    fn from(span: Duration) -> Self {
        Self(u64::try_from(span.as_nanos()).unwrap_or(u64::MAX))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_people_write_is_read_exactly() {
        for (text, nanos) in [
            ("2ms", 2_000_000),
            ("1.5s", 1_500_000_000),
            ("0ms", 0),
            ("100us", 100_000),
            ("100µs", 100_000),
            ("100μs", 100_000),
            ("3min", 180_000_000_000),
            ("1h", 3_600_000_000_000),
            ("5ns", 5),
            ("0.1s", 100_000_000),
            ("0.000000001s", 1),
            (" 7 ms ", 7_000_000),
            ("1.50ms", 1_500_000),
            ("18446744073.709551615s", u64::MAX),
        ] {
            assert_eq!(text.parse(), Ok(SimTime::from_nanos(nanos)), "{text}");
        }
    }

    #[test]
    fn wrong_times_are_refused_and_named() {
        use ParseQuantityError as E;
        let error = |text: &str| text.parse::<SimTime>().unwrap_err();
        assert!(matches!(error("5"), E::NoUnit { .. }));
        assert!(matches!(error("-5ms"), E::Negative { .. }));
        assert!(matches!(error("5 parsecs"), E::UnknownUnit { unit, .. } if unit == "parsecs"));
        assert!(matches!(error("0.5ns"), E::TooFine { .. }));
        assert!(matches!(error("0.00000000000000000000000001h"), E::TooFine { .. }));
        assert!(matches!(error("18446744073.709551616s"), E::TooLarge { .. }));
        assert!(matches!(error(&format!("{}s", "9".repeat(400))), E::TooLarge { .. }));
        for text in ["", "ms", ".5s", "5.s", "1.2.3s", ".", "+5ms"] {
            assert!(matches!(error(text), E::NoNumber { .. }), "{text}");
        }
        assert_eq!(
            error("5").to_string(),
            "`5` has no unit; write a time such as `2ms`, `1.5s` or `100us` \
             (units ns, us, ms, s, min, h)"
        );
    }

    #[test]
    fn the_shortest_form_is_printed() {
        for (nanos, text) in [
            (0, "0s"),
            (5, "5ns"),
            (1_500, "1.5us"),
            (100_000_000, "100ms"),
            (1_234_567, "1234567ns"),
            (1_500_000_000, "1.5s"),
            (60_000_000_000, "60s"),
            (120_000_000_000, "2min"),
            (3_600_000_000_000, "1h"),
        ] {
            assert_eq!(SimTime::from_nanos(nanos).to_string(), text);
        }
    }

    #[test]
    fn operators_saturate() {
        let one = SimTime::from_nanos(1);
        assert_eq!(SimTime::MAX + one, SimTime::MAX);
        assert_eq!(SimTime::ZERO - one, SimTime::ZERO);
        assert_eq!(SimTime::MAX * 2, SimTime::MAX);
        assert_eq!(SimTime::MAX.checked_add(one), None);
        assert_eq!(SimTime::ZERO.checked_sub(one), None);
        assert_eq!(SimTime::from_secs(u64::MAX), SimTime::MAX);
        assert_eq!(SimTime::from_secs_f64(1.5), Ok(SimTime::from_millis(1_500)));
        for secs in [-1.0, f64::NAN, f64::INFINITY, 2e10] {
            assert!(SimTime::from_secs_f64(secs).is_err());
        }
    }

    proptest! {
        #[test]
        fn text_round_trips(nanos: u64) {
            let time = SimTime::from_nanos(nanos);
            prop_assert_eq!(time.to_string().parse(), Ok(time));
            let json = serde_json::to_string(&time).unwrap();
            prop_assert_eq!(serde_json::from_str::<SimTime>(&json).unwrap(), time);
        }

        #[test]
        fn round_numbers_round_trip(digits in 0..1_000_u64, zeros in 0..16_u32) {
            let time = SimTime::from_nanos(digits * 10_u64.pow(zeros));
            prop_assert_eq!(time.to_string().parse(), Ok(time));
        }

        #[test]
        fn no_text_panics(text in "\\PC*") {
            let _ = text.parse::<SimTime>();
        }
    }
}
