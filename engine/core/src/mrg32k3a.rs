//! ns-3's random number generator.
//!
//! Purpose: repeats an ns-3 run draw by draw, where the results of both are to be compared. For
//! everything else use named [`Streams`](crate::Streams): the streams of this generator are
//! numbered, so what a component draws depends on how many were made before it.
//!
//! Assumptions: ns-3's automatic streams, numbered from 0 in the order in which the random
//! variables were created.
//!
//! Reference: L'Ecuyer, "Good parameters and implementations for combined multiple recursive random
//! number generators"; L'Ecuyer, Simard, Chen, Kelton, "An object-oriented random-number package
//! with many long streams and substreams"; ns-3 `RngStream`.

/// The combined multiple recursive generator `MRG32k3a` at some point of one of its streams.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mrg32k3a {
    first: [u64; 3],
    second: [u64; 3],
}

type Matrix = [[u64; 3]; 3];

const M1: u64 = 4_294_967_087;
const M2: u64 = 4_294_944_443;
/// Negative coefficients are given modulo M1 and M2.
const STEP_1: Matrix = [[0, 1, 0], [0, 0, 1], [M1 - 810_728, 1_403_580, 0]];
const STEP_2: Matrix = [[0, 1, 0], [0, 0, 1], [M2 - 1_370_589, 0, 527_612]];
/// Streams start 2¹²⁷ draws apart, substreams 2⁷⁶.
const STREAM_EXPONENT: u32 = 127;
const SUBSTREAM_EXPONENT: u32 = 76;

impl Mrg32k3a {
    /// The generator of ns-3's stream `stream` in run `run`, with `RngSeed` at `seed`.
    pub fn new(seed: u32, stream: u64, run: u64) -> Self {
        let start = |step: &Matrix, modulus: u64| {
            let to_stream = power(&square_times(step, STREAM_EXPONENT, modulus), stream, modulus);
            let to_run = power(&square_times(step, SUBSTREAM_EXPONENT, modulus), run, modulus);
            let seeds = [u64::from(seed); 3];
            apply(&to_run, apply(&to_stream, seeds, modulus), modulus)
        };
        Self { first: start(&STEP_1, M1), second: start(&STEP_2, M2) }
    }

    /// The next number, uniform between 0 and 1, both exclusive.
    pub fn uniform(&mut self) -> f64 {
        self.first = apply(&STEP_1, self.first, M1);
        self.second = apply(&STEP_2, self.second, M2);
        let (p1, p2) = (self.first[2], self.second[2]);
        let difference = if p1 > p2 { p1 - p2 } else { p1 + M1 - p2 };
        difference as f64 * (1.0 / (M1 as f64 + 1.0))
    }
}

fn apply(matrix: &Matrix, vector: [u64; 3], modulus: u64) -> [u64; 3] {
    // All entries are below 2³², so products fit; their sum would not.
    matrix.map(|row| (0..3).map(|k| row[k] * vector[k] % modulus).sum::<u64>() % modulus)
}

fn multiply(a: &Matrix, b: &Matrix, modulus: u64) -> Matrix {
    a.map(|row| {
        std::array::from_fn(|j| (0..3).map(|k| row[k] * b[k][j] % modulus).sum::<u64>() % modulus)
    })
}

/// `matrix` to the power 2^`times`.
fn square_times(matrix: &Matrix, times: u32, modulus: u64) -> Matrix {
    (0..times).fold(*matrix, |m, _| multiply(&m, &m, modulus))
}

fn power(matrix: &Matrix, mut exponent: u64, modulus: u64) -> Matrix {
    let mut result = [[1, 0, 0], [0, 1, 0], [0, 0, 1]];
    let mut square = *matrix;
    while exponent > 0 {
        if exponent & 1 == 1 {
            result = multiply(&result, &square, modulus);
        }
        square = multiply(&square, &square, modulus);
        exponent >>= 1;
    }
    result
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn draws_the_published_sequence() {
        // The package's own seed, 12345 throughout, at its first stream and substream.
        let mut generator = Mrg32k3a::new(12_345, 0, 0);
        for expected in [0.127_011_122, 0.318_527_565, 0.309_186_015] {
            let drawn = generator.uniform();
            assert!((drawn - expected).abs() < 1e-8, "{drawn} instead of {expected}");
        }
    }

    #[test]
    fn a_jump_is_as_many_steps() {
        let jump = square_times(&STEP_1, 4, M1);
        let state = [1, 2, 3];
        let stepped = (0..48).fold(state, |state, _| apply(&STEP_1, state, M1));
        assert_eq!(apply(&power(&jump, 3, M1), state, M1), stepped);
    }
}
