//! Several tests at once: p values that keep the chance of even one false positive.

/// Each p times the number of tests, at most 1.
///
/// Source: Bonferroni (1936).
pub fn bonferroni(p: &[f64]) -> Vec<f64> {
    let n = p.len() as f64;
    p.iter().map(|p| (n * p).min(1.0)).collect()
}

/// The adjusted p of each test by Holm's step-down procedure, which keeps what [`bonferroni`] keeps and is never
/// above it.
///
/// Source: Holm (1979).
pub fn holm(p: &[f64]) -> Vec<f64> {
    let mut order: Vec<usize> = (0..p.len()).collect();
    order.sort_by(|&i, &j| p[i].total_cmp(&p[j]));
    let mut adjusted = vec![0.0; p.len()];
    let mut largest: f64 = 0.0;
    for (rank, &i) in order.iter().enumerate() {
        largest = largest.max(((p.len() - rank) as f64 * p[i]).min(1.0));
        adjusted[i] = largest;
    }
    adjusted
}
