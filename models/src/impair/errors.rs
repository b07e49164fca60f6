//! What goes wrong with a frame itself: loss or mark, wrong bits, duplication, in this order.
//!
//! Purpose: a frame that is lost is neither damaged nor duplicated; both copies of a frame carry
//! the same wrong bits.
//!
//! Assumptions: wrong bits fall anywhere in the frame, addresses included, and checksums are not
//! repaired: receivers see what real ones see behind an interface that does not check the frame
//! check sequence, as with netem.
//!
//! Not modelled: the frame check sequence, by which a real Ethernet interface would drop frames
//! with wrong bits.

use rand::RngExt;
use tapestry_core::link::{Corruption, LinkParameters, Loss, Unit};
use tapestry_core::{Probability, RandomStream};

use super::chance::Coin;
use super::loss::{LossModel, UnitErrors};
use super::streams::Named;
use crate::ecn;
use crate::{Frame, FramePool};

#[derive(Debug)]
pub(crate) struct Errors {
    loss: Option<(Loss, LossModel)>,
    ecn: bool,
    duplicate: Option<(tapestry_core::link::Chance, Coin)>,
    corrupt: Option<(Corruption, Corrupter)>,
    lose: RandomStream,
    damage: RandomStream,
    copy: RandomStream,
    /// Buffers for frames that are changed.
    pool: FramePool,
}

/// What became of a frame.
#[expect(clippy::struct_excessive_bools, reason = "each may go with any other")]
#[derive(Debug)]
pub(crate) struct Outcome {
    pub(crate) frame: Frame,
    pub(crate) lost: bool,
    pub(crate) marked: bool,
    pub(crate) corrupted: bool,
    pub(crate) duplicated: bool,
}

impl Errors {
    /// Changed frames under way at once, at most: beyond, frames arrive as they were sent.
    const FRAMES: usize = 1 << 20;

    /// Errors with the streams of this name; `frame_bytes` is the longest frame's length.
    pub(super) fn new(named: &Named<'_>, frame_bytes: usize) -> Self {
        Self {
            loss: None,
            ecn: false,
            duplicate: None,
            corrupt: None,
            lose: named.stream("loss"),
            damage: named.stream("corrupt"),
            copy: named.stream("duplicate"),
            pool: FramePool::new(frame_bytes.next_multiple_of(64), Self::FRAMES),
        }
    }

    /// Obeys these parameters from now on. Models whose parameters stay the same keep their state,
    /// and all go on in their streams.
    pub(super) fn set(&mut self, parameters: &LinkParameters) {
        self.ecn = parameters.ecn;
        replace(&mut self.loss, parameters.loss.as_ref(), LossModel::new);
        replace(&mut self.duplicate, parameters.duplicate.as_ref(), Coin::new);
        replace(&mut self.corrupt, parameters.corrupt.as_ref(), Corrupter::new);
    }

    /// What becomes of the next frame; `loss` is the probability of a schedule.
    pub(super) fn strike(&mut self, frame: Frame, loss: Option<Probability>) -> Outcome {
        let mut outcome =
            Outcome { frame, lost: false, marked: false, corrupted: false, duplicated: false };
        let length = outcome.frame.len();
        if let Some((_, model)) = &mut self.loss {
            outcome.lost = model.lose(&mut self.lose, length);
        } else if let Some(loss) = loss {
            outcome.lost = self.lose.random::<f64>() < loss.as_f64();
        }
        if outcome.lost
            && self.ecn
            && let Some(marked) = ecn::mark(&outcome.frame, &mut self.pool)
        {
            outcome = Outcome { frame: marked, lost: false, marked: true, ..outcome };
        }
        // All draw for every frame, so that what one of them does changes no draw of another.
        if let Some((_, model)) = &mut self.corrupt
            && let Some(damaged) = model.damage(&mut self.damage, &outcome.frame, &mut self.pool)
        {
            outcome = Outcome { frame: damaged, corrupted: !outcome.lost, ..outcome };
        }
        if let Some((_, coin)) = &mut self.duplicate {
            outcome.duplicated = coin.toss(&mut self.copy) && !outcome.lost;
        }
        outcome
    }
}

/// Makes the model anew if its parameters changed.
pub(super) fn replace<P: Clone + PartialEq, M>(
    present: &mut Option<(P, M)>,
    wanted: Option<&P>,
    make: impl FnOnce(&P) -> M,
) {
    if present.as_ref().map(|(parameters, _)| parameters) != wanted {
        *present = wanted.map(|parameters| (parameters.clone(), make(parameters)));
    }
}

/// Flips bits.
#[derive(Debug)]
enum Corrupter {
    /// So many bits of a frame that is hit.
    Frames { coin: Coin, bits: u32 },
    /// Each byte or bit that is hit.
    Units { errors: UnitErrors, per: Unit },
}

impl Corrupter {
    fn new(corruption: &Corruption) -> Self {
        let Corruption { chance, per, bits } = corruption;
        match per {
            Unit::Frame => Self::Frames { coin: Coin::new(chance), bits: *bits },
            per => Self::Units { errors: UnitErrors::new(chance.probability, *per), per: *per },
        }
    }

    /// The damaged frame, if it is hit.
    fn damage(
        &mut self,
        random: &mut RandomStream,
        frame: &Frame,
        pool: &mut FramePool,
    ) -> Option<Frame> {
        match self {
            Self::Frames { coin, bits } => {
                if !coin.toss(random) || frame.is_empty() {
                    return None;
                }
                let bits = u64::from(*bits).min(Unit::Bit.count(frame.len()));
                ecn::rewritten(frame, pool, |bytes| flip_bits(random, bytes, bits))
            }
            Self::Units { errors, per } => {
                let units = per.count(frame.len());
                let first = errors.gap(random);
                if first >= units {
                    return None;
                }
                ecn::rewritten(frame, pool, |bytes| {
                    let mut at = first;
                    while at < units {
                        let bit = match per {
                            Unit::Bit => at,
                            _ => at * 8 + random.random_range(0..8),
                        };
                        bytes[(bit / 8) as usize] ^= 1 << (bit % 8);
                        at = at.saturating_add(1).saturating_add(errors.gap(random));
                    }
                })
            }
        }
    }
}

/// Flips so many different bits, each set of them equally likely (Floyd's algorithm; the bits that
/// are flipped already are found by comparing with none: a second flip would undo the first).
fn flip_bits(random: &mut RandomStream, bytes: &mut [u8], bits: u64) {
    let all = bytes.len() as u64 * 8;
    let mut flipped = [0_u64; 64];
    let bits = (bits as usize).min(flipped.len());
    for at in 0..bits {
        let limit = all - (bits - at) as u64;
        let mut bit = random.random_range(0..=limit);
        if flipped[..at].contains(&bit) {
            bit = limit;
        }
        flipped[at] = bit;
        bytes[(bit / 8) as usize] ^= 1 << (bit % 8);
    }
}
