//! A coin that may remember.
//!
//! Purpose: decides for each frame whether something happens to it. Correlation comes in two
//! forms: a Markov chain, which keeps the probability, and netem's, which does not.
//!
//! Reference: tc-netem(8); `get_crandom` of the kernel's `sch_netem.c`.

use rand::RngExt;
use tapestry_core::RandomStream;
use tapestry_core::link::{Chance, CorrelationForm};

#[derive(Debug)]
pub(super) struct Coin {
    probability: f64,
    memory: Memory,
}

#[derive(Debug)]
enum Memory {
    None,
    /// Probabilities after a hit and after a miss, and the last toss.
    Markov {
        after_hit: f64,
        after_miss: f64,
        last: Option<bool>,
    },
    Netem(Correlated),
}

/// netem's correlated random number: xₙ = ρ·xₙ₋₁ + (1 − ρ)·u, beginning with x₀ = u.
#[derive(Debug)]
pub(super) struct Correlated {
    rho: f64,
    last: Option<f64>,
}

impl Coin {
    pub(super) fn new(chance: &Chance) -> Self {
        let probability = chance.probability.as_f64();
        let rho = chance.correlation.as_f64();
        let memory = match chance.form {
            _ if rho == 0.0 => Memory::None,
            CorrelationForm::Markov => Memory::Markov {
                after_hit: probability + rho * (1.0 - probability),
                after_miss: probability * (1.0 - rho),
                last: None,
            },
            CorrelationForm::Netem => Memory::Netem(Correlated::new(rho)),
        };
        Self { probability, memory }
    }

    /// Whether it happens to the next frame; one draw.
    pub(super) fn toss(&mut self, random: &mut RandomStream) -> bool {
        match &mut self.memory {
            Memory::None => random.random::<f64>() < self.probability,
            Memory::Markov { after_hit, after_miss, last } => {
                let probability = match last {
                    None => self.probability,
                    Some(true) => *after_hit,
                    Some(false) => *after_miss,
                };
                let hit = random.random::<f64>() < probability;
                *last = Some(hit);
                hit
            }
            Memory::Netem(correlated) => correlated.next(random) < self.probability,
        }
    }
}

impl Correlated {
    pub(super) fn new(rho: f64) -> Self {
        Self { rho, last: None }
    }

    /// The next number from 0 to below 1; one draw.
    pub(super) fn next(&mut self, random: &mut RandomStream) -> f64 {
        let fresh: f64 = random.random();
        if self.rho == 0.0 {
            return fresh;
        }
        let next = self.last.map_or(fresh, |last| self.rho * last + (1.0 - self.rho) * fresh);
        self.last = Some(next);
        next
    }
}
