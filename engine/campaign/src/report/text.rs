//! The words and tables of a report.

use tapestry_lab::execution::{shell_word, shell_words};
use tapestry_topologies::plan::{Design, Time};

use super::analysis::{Comparison, Corrected, ENOUGH, comparisons, trends};
use super::data::{Data, Samples};
use super::document::{Block, Document};
use super::figures::Figure;
use crate::design::Purpose;
use crate::stats::compare::Effect;
use crate::stats::interval::Interval;
use crate::stats::{describe, interval};
use crate::store::State;

/// More rows than this are for an export.
const ROWS: usize = 60;

/// The whole document.
pub(super) fn document<'a>(data: &Data, figures: &'a [Figure]) -> Document<'a> {
    let mut blocks = Vec::new();
    if !data.plan.description.is_empty() {
        blocks.push(Block::Paragraph(data.plan.description.clone()));
    }
    counts(data, &mut blocks);
    effects(data, &mut blocks);
    tendencies(data, &mut blocks);
    if !figures.is_empty() {
        blocks.push(Block::Heading("Figures".to_owned()));
        blocks.extend(figures.iter().map(Block::Figure));
    }
    if data.count(State::Counted) > 0 {
        metrics(data, &mut blocks);
    }
    trouble(data, &mut blocks);
    origin(data, &mut blocks);
    Document { title: data.plan.name.clone(), blocks }
}

/// How many runs there are, and what they are worth.
fn counts(data: &Data, blocks: &mut Vec<Block<'_>>) {
    let plan = &data.plan;
    let counted = data.count(State::Counted);
    let verdicts = |verdict: &str| {
        data.runs.iter().filter(|run| run.counts() && run.verdict == verdict).count()
    };
    let design = match plan.design {
        Design::FullFactorial => "full factorial",
        Design::Paired => "paired",
        Design::LatinHypercube(_) => "Latin hypercube",
    };
    let time = match plan.time {
        Time::Realtime => "real time",
        Time::Virtual => "virtual time",
    };
    blocks.push(Block::Paragraph(format!(
        "{} ({design}), at most {} each, in {time}. {} ({} valid, {} degraded); the others \
         enter no figure below.",
        count(data.points.len(), "point"),
        count(plan.replicates as usize, "replicate"),
        if counted == 1 { "1 run counts".to_owned() } else { format!("{counted} runs count") },
        verdicts("valid"),
        verdicts("degraded"),
    )));
    if data.standing.remaining > 0 {
        blocks.push(Block::Paragraph(format!(
            "The campaign is not complete: {} of the {} planned {} still to be made.",
            data.standing.remaining,
            data.points.len() * plan.replicates as usize,
            if data.standing.remaining == 1 { "is" } else { "are" },
        )));
    }
    if let Some(words) = data.standing.unreached_words(plan, &data.points) {
        let mut words = words;
        words.replace_range(..1, "T");
        blocks.push(Block::Paragraph(format!("{words}.")));
    }
    if counted == 0 {
        let wanted = if plan.report.metrics.is_empty() {
            data.produced.join(", ")
        } else {
            plan.report.metrics.join(", ")
        };
        let of = if wanted.is_empty() { String::new() } else { format!(" of {wanted}") };
        blocks.push(Block::Paragraph(format!("No run counts, so nothing{of} can be shown.")));
    }
    let warm_up = data.runs.iter().filter(|run| run.job.purpose == Purpose::WarmUp).count();
    let mut rows: Vec<Vec<String>> = State::ALL
        .into_iter()
        .map(|state| (state, data.count(state)))
        .filter(|(_, runs)| *runs > 0)
        .map(|(state, runs)| {
            vec![state.as_str().to_owned(), runs.to_string(), meaning(state).to_owned()]
        })
        .collect();
    if warm_up > 0 {
        rows.push(vec!["warm-up".to_owned(), warm_up.to_string(), "counts nowhere".to_owned()]);
    }
    let unmet = data.runs.iter().filter(|run| run.counts() && run.outcome == "failed").count();
    if unmet > 0 {
        let each = crate::runner::unmet(data.runs.iter());
        let each: Vec<String> =
            each.iter().map(|(what, runs)| format!("{what} ({runs})")).collect();
        let meaning = format!("of the counted ones: does not hold: {}", each.join("; "));
        rows.push(vec!["failed expectation".to_owned(), unmet.to_string(), meaning]);
    }
    let headers = ["runs", "count", ""].map(str::to_owned).to_vec();
    blocks.push(Block::Table { headers, rows });
}

/// `1 run`, `2 runs`.
fn count(number: usize, noun: &str) -> String {
    if number == 1 { format!("1 {noun}") } else { format!("{number} {noun}s") }
}

fn meaning(state: State) -> &'static str {
    match state {
        State::Counted => "verdict valid or degraded, every command done",
        State::Failed => "a node, a command or a metric failed",
        State::Invalid => "timing not to be trusted; repeated as the plan says",
        State::TimedOut => "took longer than the plan's time limit",
        State::Crashed => "left no results; repeated as the plan says",
    }
}

/// Effect sizes with their intervals first.
fn effects(data: &Data, blocks: &mut Vec<Block<'_>>) {
    let found = comparisons(data);
    let Some((factor, baseline)) = data.compared() else { return };
    if found.is_empty() {
        return;
    }
    let baseline = data.word(factor, baseline);
    blocks.push(Block::Heading(format!("Effect of {factor} (against {factor}={baseline})")));
    let percent = number(data.plan.report.confidence * 100.0, 3);
    blocks.push(Block::Paragraph(format!(
        "Difference of means with its {percent} % interval (Welch); Cliff's delta, from −1 to 1 (0.147 \
         small, 0.33 medium, 0.474 large); Cohen's d (0.2 small, 0.5 medium, 0.8 large); n, runs at \
         the baseline and at the level, of which fewer than {ENOUGH} are too few for either. First come \
         rows whose interval of delta excludes 0, the largest effects first. q is the p-value of Mann–Whitney's test corrected by Benjamini and \
         Hochberg, p by Holm, both over all {} comparisons; a small one says that there is a \
         difference, not that it matters.",
        found.len()
    )));
    let headers = [
        "metric",
        "at",
        factor,
        "n",
        "baseline",
        "difference",
        "interval",
        "delta",
        "d",
        "q",
        "p (Holm)",
        "p (Welch, Holm)",
    ];
    let rows = found.iter().take(ROWS).map(|c| comparison_row(data, c)).collect();
    blocks.push(Block::Table { headers: headers.map(str::to_owned).to_vec(), rows });
    cut(found.len(), blocks);
}

fn comparison_row(data: &Data, c: &Comparison) -> Vec<String> {
    let unit = data.metrics.get(&c.metric).map_or("", |samples| samples.unit.as_str());
    let effect = |effect: Option<Effect>| {
        if !c.has_enough() {
            return "n too small".to_owned();
        }
        effect.map_or_else(dash, |e| {
            let place = Place::of(&[Some(e.interval)]);
            format!("{} {}", place.number(e.size, 3), place.range(Some(e.interval)))
        })
    };
    let p = |p: Option<Corrected>, key: fn(Corrected) -> f64| {
        p.map_or_else(dash, |p| number(key(p), 2))
    };
    let share = if c.baseline_mean == 0.0 {
        String::new()
    } else {
        format!(" ({} %)", signed(c.difference / c.baseline_mean.abs() * 100.0))
    };
    let place = Place::of(&[c.interval]);
    vec![
        c.metric.clone(),
        c.at.clone(),
        c.level.clone(),
        format!("{}, {}", c.counts.0, c.counts.1),
        format!("{} {unit}", place.fine(c.baseline_mean, 4)).trim_end().to_owned(),
        format!("{}{share}", plus(c.difference, place.number(c.difference, 4))),
        place.range(c.interval),
        effect(c.delta),
        effect(c.d),
        p(c.p, |p| p.benjamini_hochberg),
        p(c.p, |p| p.holm),
        p(c.welch_p, |p| p.holm),
    ]
}

fn tendencies(data: &Data, blocks: &mut Vec<Block<'_>>) {
    let found = trends(data);
    if found.is_empty() {
        return;
    }
    blocks.push(Block::Heading("Trends".to_owned()));
    blocks.push(Block::Paragraph(
        "Kendall's tau-b over all runs that count: 1 if the metric always rises with the factor, −1 if \
         it always falls, 0 if neither; other factors are not held still. q and p as above."
            .to_owned(),
    ));
    let headers = ["metric", "factor", "tau", "q", "p (Holm)"].map(str::to_owned).to_vec();
    let rows = found
        .iter()
        .take(ROWS)
        .map(|trend| {
            vec![
                trend.metric.clone(),
                trend.factor.clone(),
                number(trend.tau, 3),
                number(trend.p.benjamini_hochberg, 2),
                number(trend.p.holm, 2),
            ]
        })
        .collect();
    blocks.push(Block::Table { headers, rows });
    cut(found.len(), blocks);
}

fn metrics(data: &Data, blocks: &mut Vec<Block<'_>>) {
    blocks.push(Block::Heading("Metrics".to_owned()));
    let percent = number(data.plan.report.confidence * 100.0, 3);
    blocks.push(Block::Paragraph(format!(
        "Mean with its {percent} % interval by Student and by bootstrap (bias-corrected, accelerated), \
         standard deviation s, and quantiles. Suspects are values whose robust z-score is beyond 3.5; \
         they are in all figures."
    )));
    let mut constant = Vec::new();
    for (name, samples) in data.shown() {
        if samples.is_constant() {
            let value = samples.all().next().unwrap_or_default();
            constant.push(
                format!("{name} = {} {}", number(value, 6), samples.unit).trim_end().to_owned(),
            );
            continue;
        }
        let unit =
            if samples.unit.is_empty() { String::new() } else { format!(" ({})", samples.unit) };
        blocks.push(Block::Paragraph(format!("{name}{unit}:")));
        let headers = [
            "point",
            "n",
            "mean",
            "Student",
            "bootstrap",
            "s",
            "5 %",
            "median",
            "95 %",
            "suspects",
        ];
        let rows = (0..data.points.len())
            .filter(|at| !samples.points[*at].is_empty())
            .take(ROWS)
            .map(|at| metric_row(data, samples, at))
            .collect();
        blocks.push(Block::Table { headers: headers.map(str::to_owned).to_vec(), rows });
        cut(data.points.len(), blocks);
    }
    if !constant.is_empty() {
        blocks.push(Block::Paragraph("The same in all runs:".to_owned()));
        blocks.push(Block::List(constant));
    }
}

fn metric_row(data: &Data, samples: &Samples, at: usize) -> Vec<String> {
    let values = &samples.points[at];
    let confidence = data.plan.report.confidence;
    let sorted = describe::sorted(values);
    let student = interval::student(values, confidence);
    let bootstrap = interval::bootstrap(values, confidence);
    let place = Place::of(&[student, bootstrap]);
    let figure = |value: Option<f64>| value.map_or_else(dash, |value| place.fine(value, 5));
    let suspects = describe::robust_z(values)
        .map_or_else(dash, |z| z.iter().filter(|z| z.abs() > 3.5).count().to_string());
    vec![
        data.label(at),
        values.len().to_string(),
        describe::mean(values).map_or_else(dash, |mean| place.number(mean, 5)),
        place.range(student),
        place.range(bootstrap),
        describe::standard_deviation(values).map_or_else(dash, |s| number(s, 5)),
        figure(describe::quantile(&sorted, 0.05)),
        figure(describe::quantile(&sorted, 0.5)),
        figure(describe::quantile(&sorted, 0.95)),
        suspects,
    ]
}

/// Runs that do not count, and why.
fn trouble(data: &Data, blocks: &mut Vec<Block<'_>>) {
    let found: Vec<Vec<String>> = data
        .runs
        .iter()
        .filter(|run| run.job.purpose == Purpose::Measure && run.state != State::Counted)
        .map(|run| {
            let why = run.errors.first().or_else(|| run.reasons.first());
            vec![
                run.id.to_string(),
                data.label(run.job.point),
                run.job.replicate.to_string(),
                run.job.attempt.to_string(),
                run.state.as_str().to_owned(),
                why.cloned().unwrap_or_default(),
            ]
        })
        .collect();
    if found.is_empty() {
        return;
    }
    blocks.push(Block::Heading("Runs that do not count".to_owned()));
    let headers = ["run", "point", "replicate", "attempt", "", "why"].map(str::to_owned).to_vec();
    let count = found.len();
    blocks.push(Block::Table { headers, rows: found.into_iter().take(ROWS).collect() });
    cut(count, blocks);
}

/// Where the figures are from.
fn origin(data: &Data, blocks: &mut Vec<Block<'_>>) {
    blocks.push(Block::Heading("Origin".to_owned()));
    let gib = |bytes: u64| format!("{:.1} GiB", bytes as f64 / f64::from(1 << 30));
    let sessions = data.sessions.iter().map(|session| {
        let host = &session.host;
        format!(
            "{}: {} — tapestry {}, {}, {} × {}, {}, Linux {}, {} side by side at most",
            session.started,
            shell_words(&session.command),
            session.tapestry,
            host.hostname,
            host.cpus,
            host.cpu_model,
            gib(host.memory_bytes),
            host.kernel,
            session.jobs,
        )
    });
    blocks.push(Block::List(sessions.collect()));
    blocks.push(Block::Paragraph(format!(
        "Topology {}, seed {}. This report: tapestry campaign report {} (version {}).",
        data.plan.topology.display(),
        data.plan.seed,
        shell_word(&data.name),
        env!("CARGO_PKG_VERSION"),
    )));
}

fn cut(count: usize, blocks: &mut Vec<Block<'_>>) {
    if count > ROWS {
        blocks.push(Block::Paragraph(format!(
            "The first {ROWS} of {count}; `tapestry campaign export` has all."
        )));
    }
}

fn dash() -> String {
    "–".to_owned()
}

fn signed(value: f64) -> String {
    plus(value, number(value, 4))
}

/// The text of a number with its sign, also if that is plus.
fn plus(value: f64, text: String) -> String {
    if value > 0.0 && text != "0" { format!("+{text}") } else { text }
}

/// The last decimal place of an estimate and of its intervals, the power of ten: the second digit of
/// the narrowest width, so that ends differ and lie on either side of the estimate. `None` if no
/// interval has a width.
#[derive(Debug, Clone, Copy)]
pub(super) struct Place(Option<i32>);

impl Place {
    pub(super) fn of(intervals: &[Option<Interval>]) -> Self {
        let widths = intervals.iter().flatten().map(|i| i.high - i.low);
        let narrowest = widths.filter(|width| *width > 0.0).min_by(f64::total_cmp);
        Self(narrowest.filter(|width| width.is_finite()).map(|width| magnitude(width) - 1))
    }

    /// A number to this place; with so many significant digits if there is none.
    pub(super) fn number(self, value: f64, digits: usize) -> String {
        let Some(place) = self.0.filter(|_| value.is_finite()) else {
            return number(value, digits);
        };
        // More digits than this are not in an f64.
        let place = place.max(magnitude(value) - 15);
        // Half a unit of the place and more round up to one unit.
        let unit = 10_f64.powi(place);
        if value == 0.0 || value.abs() < unit / 2.0 {
            return "0".to_owned();
        }
        if value.abs() < unit {
            return number(unit.copysign(value), 1);
        }
        let text = number(value, (magnitude(value) - place + 1).unsigned_abs() as usize);
        trailing(text, place)
    }

    /// A number to this place, but with so many significant digits at least.
    fn fine(self, value: f64, digits: usize) -> String {
        let needed = |place| usize::try_from(magnitude(value) - place + 1).unwrap_or(0);
        if self.0.is_some_and(|place| needed(place) > digits) {
            self.number(value, digits)
        } else {
            number(value, digits)
        }
    }

    /// An interval to this place.
    pub(super) fn range(self, interval: Option<Interval>) -> String {
        let end = |value| self.number(value, 4);
        interval.map_or_else(dash, |i| format!("[{}, {}]", end(i.low), end(i.high)))
    }
}

/// The power of ten of a number's first digit.
fn magnitude(value: f64) -> i32 {
    if value == 0.0 { 0 } else { value.abs().log10().floor() as i32 }
}

/// With zeros up to a decimal place: `1.5` to the hundredths is `1.50`.
fn trailing(text: String, place: i32) -> String {
    if place >= 0 || text.contains('e') {
        return text;
    }
    let (decimals, wanted) =
        (text.split_once('.').map_or(0, |(_, part)| part.len()), place.unsigned_abs() as usize);
    let point = if decimals == 0 { "." } else { "" };
    format!("{text}{point}{}", "0".repeat(wanted.saturating_sub(decimals)))
}

/// A number with so many significant digits, without trailing zeros; very small and very large ones
/// with an exponent.
pub(super) fn number(value: f64, digits: usize) -> String {
    if value == 0.0 {
        return "0".to_owned();
    }
    if !value.is_finite() {
        return dash();
    }
    let rounded: f64 = format!("{value:.*e}", digits.max(1) - 1).parse().unwrap_or(value);
    if rounded.abs() < 1e-4 || rounded.abs() >= 1e12 {
        return format!("{rounded:e}");
    }
    format!("{rounded}").replace('-', "−")
}

/// Seconds since 1970 of `YYYY-MM-DDTHH:MM:SSZ`.
pub(super) fn seconds_of(time: &str) -> Option<f64> {
    let at = humantime::parse_rfc3339_weak(time).ok()?;
    Some(at.duration_since(std::time::UNIX_EPOCH).ok()?.as_secs_f64())
}
