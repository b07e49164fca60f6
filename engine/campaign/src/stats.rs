//! Statistics over what runs measured.
//!
//! Purpose: figures with their uncertainty. Functions take samples as slices of finite numbers and
//! return `None` where a figure does not exist (too few values, no spread); they never return NaN.
//!
//! Assumes runs are independent of each other, which labs of their own and randomised order make
//! plausible. Student's interval, Welch's test and Cohen's *d* take means as normally distributed; the
//! bootstrap, Mann–Whitney, Cliff's delta and Kendall's tau do not.
//!
//! Tested against `SciPy` and against values computable by hand (`tests/data/statistics.json`).
//!
//! Reference: each function names its own.

// Ties are values that are exactly equal.
#![allow(clippy::float_cmp)]

pub mod compare;
pub mod correction;
pub mod describe;
pub mod interval;
pub mod rank;
