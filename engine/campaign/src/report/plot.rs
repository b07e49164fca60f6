//! The four kinds of plots, as SVG texts.
//!
//! Text is measured by an estimate of letter widths, so that drawing needs no font.

use std::ops::Range;

use plotters::coord::Shift;
use plotters::coord::types::RangedCoordf64;
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

use super::axis::{Axis, MARKS, Numbers, along_decades, cut, short};
use crate::stats::describe::FiveNumbers;

/// Size of a plot, in units of the SVG.
const SIZE: (u32, u32) = (820, 460);
const FONT: &str = "sans-serif";
/// Okabe and Ito's colours, which people who see fewer colours can tell apart as well.
const COLORS: [RGBColor; 8] = [
    RGBColor(0x00, 0x72, 0xb2),
    RGBColor(0xd5, 0x5e, 0x00),
    RGBColor(0x00, 0x9e, 0x73),
    RGBColor(0xcc, 0x79, 0xa7),
    RGBColor(0xe6, 0x9f, 0x00),
    RGBColor(0x56, 0xb4, 0xe9),
    RGBColor(0x66, 0x66, 0x66),
    RGBColor(0xb0, 0xa0, 0x00),
];

/// Which point of a text is at its place.
const CENTRE: Pos = Pos { h_pos: HPos::Center, v_pos: VPos::Center };
const LEFT: Pos = Pos { h_pos: HPos::Left, v_pos: VPos::Center };
const RIGHT: Pos = Pos { h_pos: HPos::Right, v_pos: VPos::Center };
const TOP: Pos = Pos { h_pos: HPos::Center, v_pos: VPos::Top };
const BOTTOM: Pos = Pos { h_pos: HPos::Center, v_pos: VPos::Bottom };

type Drawn = Result<String, String>;
type Failure = Box<dyn std::error::Error>;

/// Words on a plot.
#[derive(Debug, Clone, Copy)]
pub(super) struct Words<'a> {
    pub(super) title: &'a str,
    pub(super) x: &'a str,
    pub(super) y: &'a str,
}

/// A line: x, y, and the interval around y.
#[derive(Debug, Clone)]
pub(super) struct Line {
    pub(super) name: String,
    /// Whether points next to each other are connected; else nothing is said of what lies between.
    pub(super) is_joined: bool,
    pub(super) points: Vec<(f64, f64, f64, f64)>,
}

fn draw(plot: impl FnOnce(&Area<'_>) -> Result<(), Failure>) -> Drawn {
    let mut svg = String::new();
    {
        let area = SVGBackend::with_string(&mut svg, SIZE).into_drawing_area();
        let drawn = area
            .fill(&WHITE)
            .map_err(Failure::from)
            .and_then(|()| plot(&area))
            .and_then(|()| area.present().map_err(Failure::from));
        drawn.map_err(|error| error.to_string())?;
    }
    Ok(svg)
}

/// Lines with bands of confidence; x is logarithmic if it spans more than a factor of 30.
pub(super) fn xy(words: Words<'_>, lines: &[Line]) -> Drawn {
    let x: Vec<f64> = lines.iter().flat_map(|line| &line.points).map(|p| p.0).collect();
    bands(words, lines, Axis::over(&x, true))
}

/// Lines with bands over an x axis.
fn bands(words: Words<'_>, lines: &[Line], x: Axis) -> Drawn {
    let points = || lines.iter().flat_map(|line| line.points.iter().copied());
    let ends: Vec<f64> = points().flat_map(|p| [p.1, p.2, p.3]).collect();
    let y = Axis::over(&ends, false).with_zero();
    let right = if lines.len() > 1 { legend_width(lines) } else { 0 };
    draw(|area| {
        let labels = (LINE, numbers_width(y), right);
        let mut chart = chart(area, words.title, labels, x.low..x.high, y.low..y.high)?;
        if x.log {
            mesh(&mut chart, words, None, Some(y.numbers()))?;
            let measured: Vec<f64> = points().map(|p| p.0).collect();
            marks(area, &mut chart, x, &x.marks(&measured), (y.low, y.high))?;
        } else {
            mesh(&mut chart, words, Some(x.numbers()), Some(y.numbers()))?;
        }
        for (line, color) in lines.iter().zip(COLORS.iter().cycle()) {
            let color = *color;
            let band = line.points.iter().map(|p| (x.place(p.0), p.2));
            let back = line.points.iter().rev().map(|p| (x.place(p.0), p.3));
            if line.points.len() > 1 && line.is_joined {
                let outline: Vec<(f64, f64)> = band.chain(back).collect();
                chart.draw_series(std::iter::once(Polygon::new(
                    outline,
                    color.mix(0.18).filled(),
                )))?;
            }
            chart.draw_series(line.points.iter().map(|p| {
                let at = x.place(p.0);
                PathElement::new(vec![(at, p.2), (at, p.3)], color.stroke_width(1))
            }))?;
            let middle = line.points.iter().map(|p| (x.place(p.0), p.1));
            if line.is_joined {
                chart.draw_series(LineSeries::new(middle.clone(), color.stroke_width(2)))?;
            }
            chart.draw_series(middle.map(|at| Circle::new(at, 3, color.filled())))?;
        }
        if lines.len() > 1 {
            legend(area, lines, right)?;
        }
        Ok(())
    })
}

/// One box for each group.
pub(super) fn boxes(words: Words<'_>, groups: &[(String, FiveNumbers)]) -> Drawn {
    let ends: Vec<f64> = groups
        .iter()
        .flat_map(|(_, five)| [five.low, five.high].into_iter().chain(five.outside.iter().copied()))
        .collect();
    let y = Axis::over(&ends, false);
    let count = groups.len().max(1) as f64;
    // Long names stand upright, and the longest of those are cut.
    let longest = text_width(groups.iter().map(|(name, _)| name.as_str()));
    let upright = f64::from(longest) > f64::from(SIZE.0 - 100) / count;
    let below = if upright { (longest + UPRIGHT_GAP).min(UPRIGHT) } else { LINE };
    draw(|area| {
        let mut chart =
            chart(area, words.title, (below, numbers_width(y), 0), 0.0..count, y.low..y.high)?;
        mesh(&mut chart, Words { x: "", ..words }, None, Some(y.numbers()))?;
        for (at, (_, five)) in groups.iter().enumerate() {
            let (left, right) = (at as f64 + 0.25, at as f64 + 0.75);
            let middle = at as f64 + 0.5;
            let color = COLORS[0];
            let [q1, q2, q3] = five.quartiles;
            let whisker = |a: f64, b: f64| {
                PathElement::new(vec![(middle, a), (middle, b)], color.stroke_width(1))
            };
            chart.draw_series([whisker(five.low, q1), whisker(q3, five.high)])?;
            chart.draw_series([Rectangle::new(
                [(left, q1), (right, q3)],
                color.mix(0.25).filled(),
            )])?;
            chart
                .draw_series([Rectangle::new([(left, q1), (right, q3)], color.stroke_width(1))])?;
            chart.draw_series([PathElement::new(
                vec![(left, q2), (right, q2)],
                color.stroke_width(2),
            )])?;
            /// More single values than this are a smear.
            const OUTSIDE: usize = 200;
            let outside = five.outside.iter().take(OUTSIDE);
            chart.draw_series(
                outside.map(|value| Circle::new((middle, *value), 2, color.stroke_width(1))),
            )?;
        }
        for (at, (name, _)) in groups.iter().enumerate() {
            let (x, y) = chart.backend_coord(&(at as f64 + 0.5, y.low));
            let style = (FONT, 12).into_font().color(&BLACK);
            let style = if upright {
                style.transform(FontTransform::Rotate90).pos(LEFT)
            } else {
                style.pos(TOP)
            };
            let name = if upright { fit(name, UPRIGHT - UPRIGHT_GAP) } else { name.clone() };
            area.draw(&Text::new(name, (x, y + 6), style))?;
        }
        let style = (FONT, 13).into_font().color(&BLACK).pos(BOTTOM);
        area.draw(&Text::new(
            words.x.to_owned(),
            (SIZE.0.cast_signed() / 2, SIZE.1.cast_signed() - 4),
            style,
        ))?;
        Ok(())
    })
}

/// Cells of two factors; `cells[row][column]`, rows from below.
pub(super) fn heat(
    words: Words<'_>,
    unit: &str,
    columns: &[String],
    rows: &[String],
    cells: &[Vec<Option<f64>>],
) -> Drawn {
    let all: Vec<f64> = cells.iter().flatten().flatten().copied().collect();
    let low = all.iter().copied().fold(f64::INFINITY, f64::min);
    let high = all.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let share = |value: f64| if high > low { (value - low) / (high - low) } else { 0.5 };
    // Light to dark, readable in grey as well.
    let color = |value: f64| {
        let mix = |from: u8, to: u8| {
            (f64::from(from) + (f64::from(to) - f64::from(from)) * share(value)).round() as u8
        };
        RGBColor(mix(0xf2, 0x08), mix(0xf6, 0x45), mix(0xfb, 0x7d))
    };
    let left = (text_width(rows.iter().map(String::as_str)) + NAMES_GAP).clamp(NUMBERS, NAMES);
    draw(|area| {
        let mut chart = chart(
            area,
            words.title,
            (LINE, left, SCALE),
            0.0..columns.len().max(1) as f64,
            0.0..rows.len().max(1) as f64,
        )?;
        mesh(&mut chart, words, None, None)?;
        // Numbers stand in cells that have room for them; the scale is there for the others.
        let width = f64::from(SIZE.0 - left - SCALE - 28) / columns.len().max(1) as f64;
        let digits = cell_digits(low, high);
        let longest =
            all.iter().map(|value| short(*value, digits).chars().count()).max().unwrap_or(0);
        let many = longest as f64 * LETTER + 6.0 > width || rows.len() > 20;
        for (row, values) in cells.iter().enumerate() {
            for (column, value) in values.iter().enumerate() {
                let Some(value) = value else { continue };
                let corner = (column as f64, row as f64);
                let opposite = (corner.0 + 1.0, corner.1 + 1.0);
                chart.draw_series([Rectangle::new([corner, opposite], color(*value).filled())])?;
                if !many {
                    let ink = if share(*value) > 0.65 { WHITE } else { BLACK };
                    let style = (FONT, 12).into_font().color(&ink).pos(CENTRE);
                    let at = (corner.0 + 0.5, corner.1 + 0.5);
                    chart.draw_series([Text::new(short(*value, digits), at, style)])?;
                }
            }
        }
        if low <= high {
            scale(area, unit, (low, high), &color)?;
        }
        // As many names as have room.
        let widest = text_width(columns.iter().map(String::as_str)).min(NAMES) + 6;
        let every = (f64::from(widest) / width).ceil() as usize;
        for (at, name) in columns.iter().enumerate().step_by(every.max(1)) {
            let (x, y) = chart.backend_coord(&(at as f64 + 0.5, 0.0));
            area.draw(&Text::new(
                fit(name, NAMES),
                (x, y + 12),
                (FONT, 12).into_font().color(&BLACK).pos(CENTRE),
            ))?;
        }
        for (at, name) in rows.iter().enumerate().step_by(rows.len().div_ceil(20).max(1)) {
            let (x, y) = chart.backend_coord(&(0.0, at as f64 + 0.5));
            let style = (FONT, 12).into_font().color(&BLACK).pos(RIGHT);
            area.draw(&Text::new(fit(name, NAMES - NAMES_GAP), (x - 6, y), style))?;
        }
        Ok(())
    })
}

/// Significant digits with which values from `low` to `high` are told apart to a hundredth of their
/// range: three, or more for a small range far from zero.
fn cell_digits(low: f64, high: f64) -> usize {
    let parts = low.abs().max(high.abs()) / (high - low);
    if parts.is_finite() { (parts.log10().ceil() as usize + 2).clamp(3, 9) } else { 3 }
}

/// Neighbours in time that the course of so many values takes together: 1 where each has a dot of its
/// own.
pub(super) fn neighbours(values: usize) -> usize {
    /// So many single dots can still be told apart.
    const DOTS: usize = 1_000;
    const BINS: usize = 200;
    if values > DOTS { values.div_ceil(BINS) } else { 1 }
}

/// Values over the course of a campaign. Many values are shown as a band from the 5th to the 95th
/// percentile of neighbours, with their median.
pub(super) fn course(words: Words<'_>, values: &[(f64, f64)]) -> Drawn {
    let together = neighbours(values.len());
    if together > 1 {
        let bin = |part: &[(f64, f64)]| {
            let sorted =
                crate::stats::describe::sorted(&part.iter().map(|p| p.1).collect::<Vec<_>>());
            let at = |share| crate::stats::describe::quantile(&sorted, share).unwrap_or(0.0);
            (part[part.len() / 2].0, at(0.5), at(0.05), at(0.95))
        };
        let points: Vec<_> = values.chunks(together).map(bin).collect();
        // Time passes evenly.
        let x = Axis::over(&points.iter().map(|p| p.0).collect::<Vec<_>>(), false);
        return bands(words, &[Line { name: String::new(), is_joined: true, points }], x);
    }
    let (at, of): (Vec<f64>, Vec<f64>) = values.iter().copied().unzip();
    let (x, y) = (Axis::over(&at, false), Axis::over(&of, false));
    draw(|area| {
        let mut chart =
            chart(area, words.title, (LINE, numbers_width(y), 0), x.low..x.high, y.low..y.high)?;
        mesh(&mut chart, words, Some(x.numbers()), Some(y.numbers()))?;
        chart
            .draw_series(values.iter().map(|p| Circle::new(*p, 2, COLORS[0].mix(0.6).filled())))?;
        Ok(())
    })
}

type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;
type Chart<'a, 'b> = ChartContext<'a, SVGBackend<'b>, Cartesian2d<RangedCoordf64, RangedCoordf64>>;

/// Room for a label area of one line of text.
const LINE: u32 = 44;
/// Least room for numbers beside an axis, and for what the axis is.
const NUMBERS: u32 = 74;

/// Room for the numbers of an axis that go up, and for what the axis is.
fn numbers_width(axis: Axis) -> u32 {
    let words = text_width(axis.numbers_at_marks().iter().map(String::as_str));
    NUMBERS.max(words + 30)
}

/// A text cut to a width.
fn fit(text: &str, width: u32) -> String {
    cut(text, (f64::from(width) / LETTER) as usize)
}

/// Estimated width of the longest of these texts.
fn text_width<'a>(texts: impl Iterator<Item = &'a str>) -> u32 {
    (texts.map(|text| text.chars().count()).max().unwrap_or(0) as f64 * LETTER) as u32
}

/// Most room for names that stand upright below a plot.
const UPRIGHT: u32 = 220;
/// Of it, above the names.
const UPRIGHT_GAP: u32 = 10;
/// Most room for names on the left of a plot; of it, for what the axis is.
const NAMES: u32 = 200;
const NAMES_GAP: u32 = 36;

/// Room for the scale of colours.
const SCALE: u32 = 90;
/// Estimated width of a letter of a label.
const LETTER: f64 = 6.0;

/// A chart with its title; `labels` is the room below, on the left and on the right.
fn chart<'a, 'b>(
    area: &'a Area<'b>,
    title: &str,
    labels: (u32, u32, u32),
    x: Range<f64>,
    y: Range<f64>,
) -> Result<Chart<'a, 'b>, Failure> {
    let chart = ChartBuilder::on(area)
        .margin(14)
        .margin_right(14 + labels.2)
        .caption(title, (FONT, 18))
        .x_label_area_size(labels.0)
        .y_label_area_size(labels.1)
        .build_cartesian_2d(x, y)?;
    Ok(chart)
}

/// Marks and numbers of linear axes; `None` for an axis without.
fn mesh(
    chart: &mut Chart<'_, '_>,
    words: Words<'_>,
    x: Option<Numbers>,
    y: Option<Numbers>,
) -> Result<(), Failure> {
    let label = |numbers: Option<Numbers>| {
        move |at: &f64| numbers.map_or_else(String::new, |numbers| numbers.label(*at))
    };
    let (x_label, y_label) = (label(x), label(y));
    let mut mesh = chart.configure_mesh();
    mesh.x_desc(words.x)
        .y_desc(words.y)
        .axis_desc_style((FONT, 13))
        .label_style((FONT, 12))
        .light_line_style(TRANSPARENT)
        .bold_line_style(BLACK.mix(0.12))
        .x_labels(if x.is_some() { MARKS } else { 0 })
        .y_labels(if y.is_some() { MARKS } else { 0 })
        .x_label_formatter(&x_label)
        .y_label_formatter(&y_label);
    if x.is_none() {
        mesh.disable_x_mesh();
    }
    if y.is_none() {
        mesh.disable_y_mesh();
    }
    mesh.draw()?;
    Ok(())
}

/// Marks of a logarithmic x axis, each with its number where there is room.
fn marks(
    area: &Area<'_>,
    chart: &mut Chart<'_, '_>,
    x: Axis,
    values: &[f64],
    (low, high): (f64, f64),
) -> Result<(), Failure> {
    let mut free = f64::NEG_INFINITY;
    for (value, label) in values.iter().zip(along_decades(values)) {
        let at = x.place(*value);
        chart.draw_series([PathElement::new(vec![(at, low), (at, high)], BLACK.mix(0.12))])?;
        let half = label.chars().count() as f64 * LETTER / 2.0;
        let (place, bottom) = chart.backend_coord(&(at, low));
        if f64::from(place) - half > free {
            free = f64::from(place) + half;
            let style = (FONT, 12).into_font().color(&BLACK).pos(TOP);
            area.draw(&Text::new(label, (place, bottom + 6), style))?;
        }
    }
    Ok(())
}

/// Room for the colour of a line, beside its name.
const LEGEND_GAP: u32 = 36;

/// Room that the names of lines need.
fn legend_width(lines: &[Line]) -> u32 {
    (text_width(lines.iter().map(|line| line.name.as_str())) + LEGEND_GAP).min(SIZE.0 / 3)
}

/// The names of lines, beside the chart.
fn legend(area: &Area<'_>, lines: &[Line], width: u32) -> Result<(), Failure> {
    let left = (SIZE.0 - width).cast_signed();
    for (at, (line, color)) in (0..).zip(lines.iter().zip(COLORS.iter().cycle())) {
        let y = 60 + 20 * at;
        area.draw(&PathElement::new(vec![(left, y), (left + 16, y)], color.stroke_width(3)))?;
        let style = (FONT, 12).into_font().color(&BLACK).pos(LEFT);
        area.draw(&Text::new(fit(&line.name, width - LEGEND_GAP), (left + 22, y), style))?;
    }
    Ok(())
}

/// What the colours mean, beside the chart.
fn scale(
    area: &Area<'_>,
    unit: &str,
    (low, high): (f64, f64),
    color: &dyn Fn(f64) -> RGBColor,
) -> Result<(), Failure> {
    const STEPS: i32 = 50;
    const HEIGHT: i32 = 5;
    let (left, bottom) = ((SIZE.0 - SCALE).cast_signed(), 70 + STEPS * HEIGHT);
    for step in 0..STEPS {
        let value = low + (high - low) * f64::from(step) / f64::from(STEPS - 1);
        let corner = (left, bottom - (step + 1) * HEIGHT);
        let opposite = (left + 16, bottom - step * HEIGHT);
        area.draw(&Rectangle::new([corner, opposite], color(value).filled()))?;
    }
    let style = |at: Pos| (FONT, 12).into_font().color(&BLACK).pos(at);
    let shares: &[f64] = if high > low { &[0.0, 0.5, 1.0] } else { &[0.5] };
    let values: Vec<f64> = shares.iter().map(|share| low + (high - low) * share).collect();
    let numbers = Numbers::of(&values);
    for (share, value) in shares.iter().zip(&values) {
        let y = bottom - (f64::from(STEPS * HEIGHT) * share) as i32;
        area.draw(&Text::new(numbers.label(*value), (left + 22, y), style(LEFT)))?;
    }
    area.draw(&Text::new(unit.to_owned(), (left, 52), style(LEFT)))?;
    Ok(())
}
