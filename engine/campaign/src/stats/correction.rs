//! Many comparisons at once: of twenty without any difference, one has p < 0.05.

/// P-values adjusted so that the chance of *any* false discovery stays below the level they are
/// compared with (Holm 1979).
pub fn holm(p: &[f64]) -> Vec<f64> {
    let order = ascending(p);
    let mut adjusted = vec![0.0; p.len()];
    let mut greatest: f64 = 0.0;
    for (rank, at) in order.into_iter().enumerate() {
        greatest = greatest.max(p[at] * (p.len() - rank) as f64).min(1.0);
        adjusted[at] = greatest;
    }
    adjusted
}

/// P-values adjusted so that the expected *share* of false discoveries stays below the level they are
/// compared with (Benjamini and Hochberg 1995).
pub fn benjamini_hochberg(p: &[f64]) -> Vec<f64> {
    let order = ascending(p);
    let mut adjusted = vec![0.0; p.len()];
    let mut least: f64 = 1.0;
    for (rank, at) in order.into_iter().enumerate().rev() {
        // The factor is never below 1, so rounding makes no p-value smaller.
        least = least.min(p[at] * (p.len() as f64 / (rank + 1) as f64));
        adjusted[at] = least;
    }
    adjusted
}

fn ascending(p: &[f64]) -> Vec<usize> {
    let mut order: Vec<usize> = (0..p.len()).collect();
    order.sort_by(|a, b| p[*a].total_cmp(&p[*b]));
    order
}
