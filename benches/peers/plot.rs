//! The plot of the side-by-side bench: critical throughput by chain length.

use std::path::Path;

use anyhow::{Result, anyhow};
use plotters::prelude::*;

use crate::Figure;

const COLORS: [RGBColor; 4] = [
    RGBColor(0x1b, 0x6c, 0xa8),
    RGBColor(0x5f, 0xb0, 0xe6),
    RGBColor(0x88, 0x88, 0x88),
    RGBColor(0xc0, 0x50, 0x2c),
];

/// Bars of every system for each chain length, on a logarithmic axis.
pub(crate) fn critical(figures: &[Figure], path: &Path) -> Result<()> {
    let critical: Vec<&Figure> =
        figures.iter().filter(|f| f.what.starts_with("critical")).collect();
    let mut groups: Vec<&str> = critical.iter().map(|f| f.what.as_str()).collect();
    groups.dedup();
    groups.sort_by_key(|group| group.rsplit(' ').next().and_then(|n| n.parse::<u32>().ok()));
    groups.dedup();
    let mut systems: Vec<&str> = Vec::new();
    for figure in &critical {
        if !systems.contains(&figure.system) {
            systems.push(figure.system);
        }
    }
    let highest = critical.iter().map(|f| f.median).fold(1.0, f64::max);
    let draw = || -> Result<(), Box<dyn std::error::Error>> {
        let root = SVGBackend::new(path, (800, 480)).into_drawing_area();
        root.fill(&WHITE)?;
        let mut chart = ChartBuilder::on(&root)
            .margin(16)
            .caption("Critical throughput (at least 99 % delivered)", ("sans-serif", 20))
            .x_label_area_size(36)
            .y_label_area_size(90)
            .build_cartesian_2d(0.0..groups.len() as f64, (1e3..highest * 1.5).log_scale())?;
        chart
            .configure_mesh()
            .disable_x_mesh()
            .x_labels(0)
            .y_desc("hop-packets per second")
            .y_label_formatter(&|y| format!("{y:.0}"))
            .draw()?;
        let width = 0.8 / systems.len().max(1) as f64;
        for (s, system) in systems.iter().enumerate() {
            let color = COLORS[s % COLORS.len()];
            let bars = groups.iter().enumerate().filter_map(|(g, group)| {
                let figure = critical.iter().find(|f| f.what == *group && f.system == *system)?;
                let left = g as f64 + 0.1 + s as f64 * width;
                let corners = [(left, 1e3), (left + width * 0.9, figure.median.max(1e3))];
                Some(Rectangle::new(corners, color.filled()))
            });
            chart.draw_series(bars)?.label(*system).legend(move |(x, y)| {
                Rectangle::new([(x, y - 5), (x + 12, y + 5)], color.filled())
            });
        }
        for (g, group) in groups.iter().enumerate() {
            let label = group.trim_start_matches("critical, ").to_owned();
            let at = chart.backend_coord(&(g as f64 + 0.5, 1e3));
            root.draw(&Text::new(label, (at.0 - 18, at.1 + 10), ("sans-serif", 16)))?;
        }
        chart
            .configure_series_labels()
            .background_style(WHITE.mix(0.8))
            .border_style(BLACK)
            .draw()?;
        root.present()?;
        Ok(())
    };
    draw().map_err(|error| anyhow!("cannot draw {}: {error}", path.display()))
}
