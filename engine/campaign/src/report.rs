//! What a campaign shows: tables, figures, and what they are worth.
//!
//! Purpose: from a store to one self-contained HTML file, the same as Markdown, and every figure as
//! SVG and PNG. Effect sizes and intervals lead; p-values stand behind them, corrected for how many
//! were computed. Only runs that count enter; how many do not, and why, stands at the top.
//!
//! Assumes a store of some tens of thousands of runs at most: everything is read into memory.

mod analysis;
mod axis;
mod data;
mod document;
mod figures;
mod html;
mod markdown;
mod plot;
mod png;
mod text;

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use tapestry_topologies::plan::Plan;

use crate::store::{Store, StoreError};
use crate::whole;
pub use data::Data;
pub use figures::Figure;

/// Why there is no report.
#[derive(Debug, thiserror::Error)]
pub enum ReportError {
    /// No run was made yet.
    #[error("no run of {} has ended yet: there is nothing to report", .path.display())]
    NoRuns {
        /// The campaign directory.
        path: PathBuf,
    },
    /// A metric that the report is to show.
    #[error("no run produced the metric {metric:?}; metrics that runs produced: {}", .known.join(", "))]
    NoMetric {
        /// The metric.
        metric: String,
        /// Metrics there are.
        known: Vec<String>,
    },
    /// A figure that was asked for.
    #[error("there is no figure {figure:?}; the figures are {}", .known.join(", "))]
    NoFigure {
        /// The figure.
        figure: String,
        /// Figures there are.
        known: Vec<String>,
    },
    /// The ending of a figure's file.
    #[error("cannot tell from {} whether it is to be SVG or PNG: end it in .svg or .png", .path.display())]
    NoFormat {
        /// The file.
        path: PathBuf,
    },
    /// A figure could not be drawn.
    #[error("cannot draw {figure}: {reason}")]
    Plot {
        /// The figure.
        figure: String,
        /// Why.
        reason: String,
    },
    /// A file could not be written.
    #[error("cannot write {}: {source}", .path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// What was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Written {
    /// The HTML file, self-contained.
    pub html: PathBuf,
    /// The Markdown file, which shows the figures beside it.
    pub markdown: PathBuf,
    /// How many figures there are.
    pub figures: usize,
}

/// Writes `report.html`, `report.md` and `figures/` into `output`.
///
/// `name` is how the user named the campaign; it stands in the commands below figures.
pub fn write(
    store: &Store,
    plan: &Plan,
    directory: &Path,
    output: &Path,
    name: &str,
) -> Result<Written, ReportError> {
    let data = Data::read(store, plan, directory, name)?;
    let figures = figures::all(&data)?;
    let document = text::document(&data, &figures);
    let folder = output.join("figures");
    let wrong = |path: &Path| {
        let path = path.to_owned();
        move |source| ReportError::Write { path, source }
    };
    fs::create_dir_all(&folder).map_err(wrong(&folder))?;
    for figure in &figures {
        let svg = folder.join(format!("{}.svg", figure.id));
        whole::write_bytes(&svg, &figure.svg).map_err(wrong(&svg))?;
        let png = folder.join(format!("{}.png", figure.id));
        whole::write_bytes(&png, png::encode(figure)?).map_err(wrong(&png))?;
    }
    let (html, markdown) = (output.join("report.html"), output.join("report.md"));
    whole::write_bytes(&html, html::render(&document)).map_err(wrong(&html))?;
    whole::write_bytes(&markdown, markdown::render(&document)).map_err(wrong(&markdown))?;
    Ok(Written { html, markdown, figures: figures.len() })
}

/// Writes one figure to a file, as SVG or PNG as its name ends.
pub fn write_figure(
    store: &Store,
    plan: &Plan,
    directory: &Path,
    figure: &str,
    output: &Path,
) -> Result<(), ReportError> {
    let data = Data::read(store, plan, directory, &directory.display().to_string())?;
    let figures = figures::all(&data)?;
    let Some(found) = figures.iter().find(|known| known.id == figure) else {
        let known = figures.into_iter().map(|figure| figure.id).collect();
        return Err(ReportError::NoFigure { figure: figure.to_owned(), known });
    };
    let bytes = match output.extension().and_then(|extension| extension.to_str()) {
        Some("svg") => found.svg.clone().into_bytes(),
        Some("png") => png::encode(found)?,
        _ => return Err(ReportError::NoFormat { path: output.to_owned() }),
    };
    whole::write_bytes(output, bytes)
        .map_err(|source| ReportError::Write { path: output.to_owned(), source })
}

#[cfg(test)]
mod tests;
