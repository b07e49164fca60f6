//! Two runs side by side: the same file in virtual and real time, or with two kinds of node.
//!
//! Purpose: metrics, counters of links and, where both have captures, arrival times of one run
//! against those of one or several others. Differences beyond a threshold are flagged. Where there
//! are replicates, a difference also says whether it lies beyond the confidence interval of their
//! mean: 95 %, Student's t, over the replicates of B; A is one run and has none.
//!
//! Assumes run directories of this version's layout; what one of the runs lacks is listed.

mod arrivals;

use std::path::{Path, PathBuf};

use indexmap::IndexMap;
use serde::Serialize;
use statrs::distribution::{ContinuousCDF, StudentsT};

use crate::results::{Manifest, Results};
pub use arrivals::{Arrivals, ArrivalsError};

/// Why runs cannot be compared.
#[derive(Debug, thiserror::Error)]
pub enum CompareError {
    /// A file of a run cannot be read.
    #[error("cannot read {path}: {source}; is this the directory of a run that has ended?")]
    Read {
        /// The file.
        path: PathBuf,
        /// The system's answer.
        source: std::io::Error,
    },
    /// A file of a run is not what it should be.
    #[error("{path} is not a run's: {source}")]
    Format {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        source: serde_json::Error,
    },
    /// A capture cannot be read.
    #[error(transparent)]
    Arrivals(#[from] ArrivalsError),
}

/// A run that has ended, as its directory has it.
#[derive(Debug)]
pub struct EndedRun {
    /// Its directory.
    pub directory: PathBuf,
    /// What was run.
    pub manifest: Manifest,
    /// What came out.
    pub results: Results,
}

impl EndedRun {
    /// Reads a run directory.
    pub fn read(directory: &Path) -> Result<Self, CompareError> {
        let manifest = read_json(&directory.join("manifest.json"))?;
        let results = read_json(&directory.join("results.json"))?;
        Ok(Self { directory: directory.to_owned(), manifest, results })
    }
}

fn read_json<T: serde::de::DeserializeOwned>(path: &Path) -> Result<T, CompareError> {
    let read = |source| CompareError::Read { path: path.to_owned(), source };
    let bytes = std::fs::read(path).map_err(read)?;
    serde_json::from_slice(&bytes)
        .map_err(|source| CompareError::Format { path: path.to_owned(), source })
}

/// One run in a comparison.
#[derive(Debug, Clone, Serialize)]
pub struct Side {
    /// Its directory.
    pub directory: PathBuf,
    /// Name of its topology.
    pub name: String,
    /// `realtime` or `virtual`.
    pub time: String,
    /// The nodes by kind, for example `3 host`.
    pub nodes: String,
    /// The word of its verdict.
    pub verdict: String,
}

/// One run against others.
#[derive(Debug, Clone, Serialize)]
pub struct Comparison {
    /// The run compared with.
    pub a: Side,
    /// The others, replicates of each other.
    pub b: Vec<Side>,
    /// Relative difference (0–1 and more) beyond which a row is flagged.
    pub threshold: f64,
    /// The metrics of A and B.
    pub metrics: Vec<Row>,
    /// Counters of links, named `LINK NODE:INTERFACE COUNTER`.
    pub links: Vec<Row>,
    /// Arrival times, for each of B and each link captured in both.
    pub arrivals: Vec<Arrivals>,
    /// Metrics and links that not all runs have.
    pub missing: Vec<String>,
}

/// A value of both.
#[derive(Debug, Clone, Serialize)]
pub struct Row {
    /// What it is.
    pub name: String,
    /// Its unit; empty for a bare number.
    pub unit: String,
    /// In A.
    pub a: f64,
    /// In B; the mean of several.
    pub b: f64,
    /// (B − A) / |A|; absent where A is 0 and B is not.
    pub relative: Option<f64>,
    /// Half the width of the confidence interval of B's mean; absent for one B.
    pub half_width: Option<f64>,
    /// Whether A lies outside of that interval; absent for one B.
    pub beyond_interval: Option<bool>,
    /// Whether the difference exceeds the threshold.
    pub flagged: bool,
}

impl Row {
    fn new(name: String, unit: &str, a: f64, b: &[f64], threshold: f64) -> Self {
        let mean = b.iter().sum::<f64>() / b.len() as f64;
        let difference = mean - a;
        let relative =
            if difference == 0.0 { Some(0.0) } else { (a != 0.0).then(|| difference / a.abs()) };
        let half_width = half_width(b, mean);
        Self {
            name,
            unit: unit.to_owned(),
            a,
            b: mean,
            relative,
            half_width,
            beyond_interval: half_width.map(|half| difference.abs() > half),
            flagged: relative.is_none_or(|relative| relative.abs() > threshold),
        }
    }

    /// Whether the values differ at all.
    pub fn differs(&self) -> bool {
        self.relative.is_none_or(|relative| relative.abs() > 0.0)
    }
}

/// Half the width of the 95 % confidence interval of the mean of `values`; `None` for fewer than two.
fn half_width(values: &[f64], mean: f64) -> Option<f64> {
    const CONFIDENCE: f64 = 0.95;
    let n = values.len() as f64;
    let student = StudentsT::new(0.0, 1.0, n - 1.0).ok()?;
    let squares: f64 = values.iter().map(|value| (value - mean).powi(2)).sum();
    let deviation = (squares / (n - 1.0)).sqrt();
    Some(student.inverse_cdf(0.5 + CONFIDENCE / 2.0) * deviation / n.sqrt())
}

/// Compares `a` with the runs `b`, of which there must be at least one to find anything.
pub fn compare(a: &EndedRun, b: &[EndedRun], threshold: f64) -> Result<Comparison, CompareError> {
    let mut missing = Vec::new();
    let of_metrics = |run: &EndedRun| -> IndexMap<String, (f64, String)> {
        let metrics = run.results.metrics.iter();
        metrics.map(|(name, metric)| (name.clone(), (metric.value, metric.unit.clone()))).collect()
    };
    let metrics = rows(a, b, threshold, "metric", of_metrics, &mut missing);
    let links = rows(a, b, threshold, "counter", counters, &mut missing);
    let mut found = Vec::new();
    for other in b {
        found.extend(arrivals::compare(a, other)?);
    }
    Ok(Comparison {
        a: side(a),
        b: b.iter().map(side).collect(),
        threshold,
        metrics,
        links,
        arrivals: found,
        missing,
    })
}

/// The values that all runs have; the names of others go to `missing`.
fn rows(
    a: &EndedRun,
    b: &[EndedRun],
    threshold: f64,
    what: &str,
    values: impl Fn(&EndedRun) -> IndexMap<String, (f64, String)>,
    missing: &mut Vec<String>,
) -> Vec<Row> {
    let (first, others) = (values(a), b.iter().map(values).collect::<Vec<_>>());
    let mut rows = Vec::new();
    for (name, (value, unit)) in &first {
        let of_b: Vec<f64> =
            others.iter().filter_map(|run| run.get(name)).map(|(value, _)| *value).collect();
        if of_b.len() == others.len() && !of_b.is_empty() {
            rows.push(Row::new(name.clone(), unit, *value, &of_b, threshold));
        } else {
            missing.push(format!("{what} {name}: in A and {} of {} B", of_b.len(), others.len()));
        }
    }
    let mut only: Vec<&String> =
        others.iter().flat_map(IndexMap::keys).filter(|name| !first.contains_key(*name)).collect();
    only.sort();
    only.dedup();
    missing.extend(only.into_iter().map(|name| format!("{what} {name}: not in A")));
    rows
}

/// The counters of all links: frames by endpoint.
fn counters(run: &EndedRun) -> IndexMap<String, (f64, String)> {
    let mut found = IndexMap::new();
    let list = |value: &serde_json::Value| value.as_array().cloned().unwrap_or_default();
    for link in list(&run.results.links) {
        let name = link["name"].as_str().unwrap_or_default();
        for end in list(&link["endpoints"]) {
            let endpoint = end["endpoint"].as_str().unwrap_or_default();
            let station = &end["station"];
            let frames = |counter: &str| station[counter]["frames"].as_f64();
            let drops = |side: &str| {
                let reasons = station[side].as_object()?;
                let frames: u64 = reasons.values().filter_map(serde_json::Value::as_u64).sum();
                Some(frames as f64)
            };
            for (counter, value) in [
                ("offered", frames("offered")),
                ("transmitted", frames("transmitted")),
                ("delivered", frames("delivered")),
                ("backoffs", station["backoffs"].as_f64()),
                ("tx_dropped", drops("tx_dropped")),
                ("rx_dropped", drops("rx_dropped")),
            ] {
                if let Some(value) = value {
                    let unit = if counter == "backoffs" { "" } else { "frames" };
                    found.insert(format!("{name} {endpoint} {counter}"), (value, unit.to_owned()));
                }
            }
        }
    }
    found
}

fn side(run: &EndedRun) -> Side {
    let kinds = run.manifest.topology.count_by_kind();
    let nodes: Vec<String> = kinds.iter().map(|(kind, count)| format!("{count} {kind}")).collect();
    Side {
        directory: run.directory.clone(),
        name: run.results.name.clone(),
        time: run.manifest.time.clone(),
        nodes: nodes.join(", "),
        verdict: run.results.verdict.state.as_str().to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(a: f64, b: &[f64]) -> Row {
        Row::new("m".into(), "", a, b, 0.1)
    }

    #[test]
    fn differences_are_relative_to_a() {
        let same = row(0.0, &[0.0]);
        assert_eq!((same.relative, same.flagged, same.beyond_interval), (Some(0.0), false, None));
        let from_nothing = row(0.0, &[3.0]);
        assert_eq!((from_nothing.relative, from_nothing.flagged), (None, true));
        assert!(!row(100.0, &[110.0]).flagged && row(100.0, &[111.0]).flagged);
        assert!(row(-100.0, &[-111.0]).flagged);
    }

    #[test]
    fn the_interval_is_students() {
        // Mean 11, deviation 1, n = 3: t(0.975, 2) = 4.3027; 4.3027 / √3 = 2.4842.
        let near = row(9.0, &[10.0, 11.0, 12.0]);
        assert!((near.half_width.unwrap() - 2.4842).abs() < 1e-3, "{near:?}");
        assert_eq!((near.beyond_interval, near.flagged), (Some(false), true));
        assert_eq!(row(8.0, &[10.0, 11.0, 12.0]).beyond_interval, Some(true));
    }
}
