//! Which figures a campaign gets, and what is in them.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

use tapestry_lab::execution::shell_word;
use tapestry_topologies::plan::Design;

use super::data::{Data, Samples, number};
use super::plot::{self, Line, Words};
use super::{ReportError, text};
use crate::levels::Dimension;
use crate::stats::{describe, interval};

/// A figure.
#[derive(Debug, Clone)]
pub struct Figure {
    /// Its name in commands and of its files.
    pub id: String,
    /// What it shows, short.
    pub title: String,
    /// What it shows, in a sentence.
    pub caption: String,
    /// The command that makes it again.
    pub command: String,
    /// The picture.
    pub svg: String,
}

/// All figures, metric by metric. Metrics that never change have none.
pub(super) fn all(data: &Data) -> Result<Vec<Figure>, ReportError> {
    let mut figures = Vec::new();
    for (name, samples) in data.shown().filter(|(_, samples)| !samples.is_constant()) {
        let x_metric = data.plan.report.x.as_ref().filter(|x| data.metrics.contains_key(*x));
        if x_metric == Some(name) {
            continue;
        }
        let made = [
            x_y(data, name, samples),
            boxes(data, name, samples),
            heat(data, name, samples),
            course(data, name, samples),
        ];
        for (kind, title, caption, drawn) in made.into_iter().flatten() {
            let id = format!("{kind}-{name}");
            let svg = drawn.map_err(|reason| ReportError::Plot { figure: id.clone(), reason })?;
            let command = format!(
                "tapestry campaign report {} --figure {id} --output {id}.svg",
                shell_word(&data.name)
            );
            figures.push(Figure { id, title, caption, command, svg });
        }
    }
    Ok(figures)
}

type Made = (&'static str, String, String, Result<String, String>);

fn with_unit(name: &str, unit: &str) -> String {
    if unit.is_empty() { name.to_owned() } else { format!("{name}, {unit}") }
}

/// The values of a metric at each level of a factor.
fn by_level(data: &Data, samples: &Samples, factor: &str) -> Vec<Vec<f64>> {
    let mut values = vec![Vec::new(); data.factors[factor].len()];
    for (place, found) in data.places(factor).iter().zip(&samples.points) {
        if let Some(place) = place {
            values[*place].extend(found);
        }
    }
    values
}

/// The values of a metric at each pair of levels, by their places, that has any.
fn by_levels(
    data: &Data,
    samples: &Samples,
    first: &str,
    second: &str,
) -> BTreeMap<(usize, usize), Vec<f64>> {
    let mut values: BTreeMap<_, Vec<f64>> = BTreeMap::new();
    let places = data.places(first).iter().zip(data.places(second));
    for ((first, second), found) in places.zip(&samples.points) {
        if let (Some(first), Some(second)) = (first, second) {
            values.entry((*first, *second)).or_default().extend(found);
        }
    }
    values
}

/// Factors other than these, over which a figure takes everything together.
fn pooled(data: &Data, used: &[&str]) -> String {
    let others: Vec<&str> =
        data.factors.keys().map(String::as_str).filter(|name| !used.contains(name)).collect();
    if others.is_empty() {
        String::new()
    } else {
        format!(" Runs of all levels of {} are taken together.", others.join(", "))
    }
}

fn x_y(data: &Data, name: &str, samples: &Samples) -> Option<Made> {
    let confidence = data.plan.report.confidence;
    let x_metric = data.plan.report.x.as_ref().and_then(|x| Some((x, data.metrics.get(x)?)));
    let x_factor = data.x_factor();
    let x_name = x_metric.map(|(x, _)| x.as_str()).or(x_factor)?;
    let series = data.series_factor().filter(|series| *series != x_name);
    let point = |x: f64, values: &[f64]| {
        let mean = describe::mean(values)?;
        let ends = interval::student(values, confidence);
        let (low, high) = ends.map_or((mean, mean), |ends| (ends.low, ends.high));
        Some((x, mean, low, high))
    };
    // By place of the series, which is 0 if there is none, and of x.
    let grouped: BTreeMap<(usize, usize), Vec<f64>> = match (x_metric, x_factor, series) {
        (None, Some(x), Some(series)) => by_levels(data, samples, series, x),
        (None, Some(x), None) => {
            (0..).zip(by_level(data, samples, x)).map(|(at, values)| ((0, at), values)).collect()
        }
        _ => BTreeMap::new(),
    };
    let line = |place: usize| -> Line {
        let is_of_series =
            |at: &usize| series.is_none_or(|series| data.places(series)[*at] == Some(place));
        let mut points: Vec<(f64, f64, f64, f64)> = match (x_metric, x_factor) {
            (Some((_, xs)), _) => (0..data.points.len())
                .filter(is_of_series)
                .filter_map(|at| point(describe::mean(&xs.points[at])?, &samples.points[at]))
                .collect(),
            (None, Some(factor)) => grouped
                .range((place, 0)..=(place, usize::MAX))
                .filter_map(|((_, x), values)| point(number(&data.factors[factor][*x]), values))
                .collect(),
            (None, None) => Vec::new(),
        };
        points.sort_by(|a, b| a.0.total_cmp(&b.0));
        let name = series
            .map_or(String::new(), |series| format!("{series} {}", data.words(series)[place]));
        // Points of a sample of the whole space are no steps of one line.
        let is_joined = !matches!(data.plan.design, Design::LatinHypercube(_));
        Line { name, is_joined, points }
    };
    let lines: Vec<Line> = (0..series.map_or(1, |series| data.words(series).len()))
        .map(line)
        .filter(|line| !line.points.is_empty())
        .collect();
    let x_words = match x_metric {
        Some((x, xs)) => with_unit(x, &xs.unit),
        None => with_unit(x_name, data.dimension(x_name).map_or("", Dimension::unit)),
    };
    let by = series.map_or(String::new(), |series| format!(", by {series}"));
    let title = format!("{name} against {x_name}{by}");
    let percent = text::number(confidence * 100.0, 3);
    let used: Vec<&str> = if x_metric.is_some() {
        data.factors.keys().map(String::as_str).collect()
    } else {
        [Some(x_name), series].into_iter().flatten().collect()
    };
    let caption = format!(
        "Mean of {name} with its {percent} % confidence interval (Student), against {x_name}{by}.{}",
        pooled(data, &used)
    );
    let words = Words { title: &title, x: &x_words, y: &with_unit(name, &samples.unit) };
    let drawn = plot::xy(words, &lines);
    Some(("xy", title, caption, drawn))
}

fn boxes(data: &Data, name: &str, samples: &Samples) -> Option<Made> {
    /// More boxes than this cannot be read.
    const BOXES: usize = 24;
    let few = data.points.len() <= BOXES;
    let mut used = Vec::new();
    let groups: Vec<(String, Vec<f64>)> = if few {
        (0..data.points.len()).map(|at| (data.label(at), samples.points[at].clone())).collect()
    } else {
        let factor = data
            .compared()
            .map(|(factor, _)| factor)
            .filter(|factor| data.factors[*factor].len() <= BOXES)?;
        used.push(factor);
        data.words(factor)
            .iter()
            .map(|level| format!("{factor}={level}"))
            .zip(by_level(data, samples, factor))
            .collect()
    };
    let boxes: Vec<_> = groups
        .into_iter()
        .filter_map(|(label, values)| Some((label, describe::five_numbers(&values)?)))
        .collect();
    let title = format!("{name}: spread");
    let note = if few { String::new() } else { pooled(data, &used) };
    let caption = format!(
        "Quartiles of {name}; whiskers reach to the last value within 1.5 times the distance of the \
         quartiles, circles are values beyond.{note}"
    );
    let words = Words { title: &title, x: "", y: &with_unit(name, &samples.unit) };
    let drawn = plot::boxes(words, &boxes);
    Some(("box", title, caption, drawn))
}

fn heat(data: &Data, name: &str, samples: &Samples) -> Option<Made> {
    if matches!(data.plan.design, Design::LatinHypercube(_) | Design::Paired) {
        return None;
    }
    let across = data.x_factor().or_else(|| data.factors.keys().next().map(String::as_str))?;
    let up = data
        .series_factor()
        .filter(|name| *name != across)
        .or_else(|| data.factors.keys().map(String::as_str).find(|name| *name != across))?;
    let values = by_levels(data, samples, up, across);
    let mean = |row, column| describe::mean(values.get(&(row, column))?);
    let cells: Vec<Vec<Option<f64>>> = (0..data.factors[up].len())
        .map(|row| (0..data.factors[across].len()).map(|column| mean(row, column)).collect())
        .collect();
    let unit =
        if samples.unit.is_empty() { String::new() } else { format!(" in {}", samples.unit) };
    let title = format!("{name}{unit} by {across} and {up}");
    let caption =
        format!("Mean of {name} at each {across} and {up}.{}", pooled(data, &[across, up]));
    let words = Words { title: &title, x: across, y: up };
    let drawn = plot::heat(words, &samples.unit, data.words(across), data.words(up), &cells);
    Some(("heat", title, caption, drawn))
}

fn course(data: &Data, name: &str, samples: &Samples) -> Option<Made> {
    let started = |at: usize| text::seconds_of(&data.runs[at].started);
    let first = samples.course.iter().filter_map(|(at, _)| started(*at)).min_by(f64::total_cmp)?;
    let mut values: Vec<(f64, f64)> = samples
        .course
        .iter()
        .filter_map(|(at, value)| Some((started(*at)? - first, *value)))
        .collect();
    // Runs that begin within one second stand side by side in the order in which they ended.
    values.sort_by(|a, b| a.0.total_cmp(&b.0));
    let begun = SystemTime::UNIX_EPOCH + Duration::from_secs_f64(first.max(0.0));
    let title = format!("{name} over time");
    let together = plot::neighbours(values.len());
    let what = if together > 1 {
        format!(
            "Median of {name} and a band from its 5th to its 95th percentile, of each {together} runs \
             that began after each other,"
        )
    } else {
        format!("{name} of each run")
    };
    let caption = format!(
        "{what} against {} start, in seconds since {}. A trend or steps here are the host's, not the \
         network's.",
        if together > 1 { "their" } else { "its" },
        tapestry_lab::rundir::rfc3339(begun)
    );
    let words =
        Words { title: &title, x: "time since the start, s", y: &with_unit(name, &samples.unit) };
    let drawn = plot::course(words, &values);
    Some(("time", title, caption, drawn))
}

#[cfg(test)]
mod tests;
