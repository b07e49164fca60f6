//! Which frames get lost.
//!
//! Purpose: one decision per frame, in the order of sending.
//!
//! Reference: tc-netem(8) and the kernel's `sch_netem.c` (`loss_gilb_ell`, `loss_4state`);
//! Salsano, Ludovici, Ordine, "Definition of a general and intuitive loss model for packet
//! networks" (2009); ns-3 `RateErrorModel`, `BurstErrorModel`, `ReceiveListErrorModel`.

use rand::RngExt;
use tapestry_core::link::{Loss, Unit};
use tapestry_core::{Probability, RandomStream};

use super::chance::Coin;

#[derive(Debug)]
pub(super) enum LossModel {
    Coin(Coin),
    Units(UnitErrors),
    GilbertElliott {
        p: f64,
        r: f64,
        /// Loss in the bad and in the good state.
        loss: [f64; 2],
        bad: bool,
    },
    FourState {
        p13: f64,
        p31: f64,
        p32: f64,
        p23: f64,
        p14: f64,
        state: State,
    },
    Burst {
        rate: f64,
        min: u32,
        max: u32,
        /// Frames of the present burst still to be lost.
        left: u32,
    },
    Frames {
        /// Those not yet sent.
        frames: std::vec::IntoIter<u64>,
        next: Option<u64>,
        sent: u64,
    },
}

/// netem's four states, under its names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum State {
    TxInGap,
    TxInBurst,
    LostInBurst,
    LostInGap,
}

impl LossModel {
    pub(super) fn new(loss: &Loss) -> Self {
        let share = |probability: &Probability| probability.as_f64();
        match loss {
            Loss::Random { chance, per: Unit::Frame } => Self::Coin(Coin::new(chance)),
            Loss::Random { chance, per } => Self::Units(UnitErrors::new(chance.probability, *per)),
            Loss::GilbertElliott { p, r, bad, good } => Self::GilbertElliott {
                p: share(p),
                r: share(r),
                loss: [share(bad), share(good)],
                bad: false,
            },
            Loss::FourState { p13, p31, p32, p23, p14 } => Self::FourState {
                p13: share(p13),
                p31: share(p31),
                p32: share(p32),
                p23: share(p23),
                p14: share(p14),
                state: State::TxInGap,
            },
            Loss::Burst { rate, min, max } => {
                Self::Burst { rate: share(rate), min: *min, max: *max, left: 0 }
            }
            Loss::Frames(frames) => {
                let mut frames = frames.clone().into_iter();
                let next = frames.next();
                Self::Frames { frames, next, sent: 0 }
            }
        }
    }

    /// Whether the next frame gets lost.
    pub(super) fn lose(&mut self, random: &mut RandomStream, frame_bytes: usize) -> bool {
        match self {
            Self::Coin(coin) => coin.toss(random),
            Self::Units(errors) => errors.hit(random, frame_bytes),
            Self::GilbertElliott { p, r, loss: [in_bad, in_good], bad } => {
                // As netem: the state moves first, but this frame's loss is that of the old one.
                let turn: f64 = random.random();
                let fate: f64 = random.random();
                let (leaves, loss) =
                    if *bad { (turn < *r, *in_bad) } else { (turn < *p, *in_good) };
                *bad ^= leaves;
                fate < loss
            }
            Self::FourState { p13, p31, p32, p23, p14, state } => {
                let draw: f64 = random.random();
                *state = match *state {
                    State::TxInGap if draw < *p14 => State::LostInGap,
                    State::TxInGap if draw < *p14 + *p13 => State::LostInBurst,
                    State::TxInGap | State::LostInGap => State::TxInGap,
                    State::TxInBurst if draw < *p23 => State::LostInBurst,
                    State::TxInBurst => State::TxInBurst,
                    State::LostInBurst if draw < *p32 => State::TxInBurst,
                    State::LostInBurst if draw < *p32 + *p31 => State::TxInGap,
                    State::LostInBurst => State::LostInBurst,
                };
                matches!(state, State::LostInGap | State::LostInBurst)
            }
            Self::Burst { rate, min, max, left } => {
                if random.random::<f64>() < *rate {
                    *left = random.random_range(*min..=*max);
                }
                let lost = *left > 0;
                *left = left.saturating_sub(1);
                lost
            }
            Self::Frames { frames, next, sent } => {
                *sent += 1;
                let lost = *next == Some(*sent);
                if lost {
                    *next = frames.next();
                }
                lost
            }
        }
    }
}

/// Errors that hit each byte or bit of a frame with the same probability.
#[derive(Debug)]
pub(super) struct UnitErrors {
    per: Unit,
    /// ln(1 − p), the rate of errors per unit.
    log_miss: f64,
    /// The latest length, mostly the next one too, and how likely such a frame is hit.
    cached: (usize, f64),
}

impl UnitErrors {
    pub(super) fn new(probability: Probability, per: Unit) -> Self {
        Self { per, log_miss: (-probability.as_f64()).ln_1p(), cached: (0, 0.0) }
    }

    /// Whether a frame has at least one error.
    pub(super) fn hit(&mut self, random: &mut RandomStream, frame_bytes: usize) -> bool {
        if self.cached.0 != frame_bytes {
            let units = self.per.count(frame_bytes) as f64;
            self.cached = (frame_bytes, -(units * self.log_miss).exp_m1());
        }
        random.random::<f64>() < self.cached.1
    }

    /// How many units are right before the next wrong one: geometric.
    pub(super) fn gap(&self, random: &mut RandomStream) -> u64 {
        let draw: f64 = random.random();
        if self.log_miss == 0.0 {
            return u64::MAX;
        }
        // 1 − draw is above zero; p = 1 makes the quotient zero. The cast saturates.
        ((1.0 - draw).ln() / self.log_miss) as u64
    }
}
