//! From the text of a plan to a [`Plan`].

mod factors;

use std::path::Path;

use indexmap::IndexMap;
use tapestry_core::SimTime;

use super::{Design, Keep, Levels, Order, Plan, ReportOptions, Settings, StopRule, Time, setting};
use crate::check::{check, run_time_expression};
use crate::diagnostics::{Problems, report};
use crate::expression::{Scope, Value};
use crate::files::{self, Files};
use crate::keys::plan::PLAN;
use crate::read::{Reader, one_or_many};
use crate::resolve::{self, limit, name_of};
use crate::resolved::Topology;
use crate::shape::{Scalar, Shape};
use crate::source::Span;
use crate::tasks::Known;
use crate::tree::{self, Entry, Yaml};

/// Reads the plan at `path` and the topology it names.
pub(super) fn plan(
    problems: &mut Problems,
    path: &Path,
    first: &dyn Fn(&Plan) -> Option<Settings>,
) -> Option<Plan> {
    let root = root(problems, path)?;
    if root.get("topology").is_none()
        && let Some(entry) = root.map().and_then(|map| map.iter().find(|e| e.key == "nodes"))
    {
        let wrong = report("this is a topology, not a plan".to_owned());
        let help = "a plan names it under `topology:`; docs/campaigns.md shows a small one";
        problems.add(entry.key_span, wrong.expected("expected a plan").help(help));
        return None;
    }
    check(problems, &root, &Shape::Object(&PLAN), "the file");
    let base = path.parent().unwrap_or(Path::new(""));
    let named = root.get("topology").and_then(|yaml| Some((yaml.scalar()?, yaml.span)));
    let file = named.map(|(relative, span)| (base.join(relative), span));
    let mut topology_files = Files::default();
    if let Some((file, span)) = &file {
        topology_files.load_file(problems, file, &file.display().to_string(), Some(*span));
    }
    let declared = resolve::params(problems, &topology_files, &[]);

    let mut reader = Reader::new(problems, Scope::new());
    let params = params(&mut reader, &root, &declared);
    let latin = root.get("design").is_some_and(|yaml| yaml.map().is_some());
    let factors = factors::factors(&mut reader, &root, &declared, latin);
    let design = design(&mut reader, &root, &factors);
    let load = root.get("load").and_then(|yaml| {
        run_time_expression(reader.problems, yaml, &Known::new(&declared, &topology_files.roots))
    });
    let stop = root.get("stop").map(|yaml| stop(&mut reader, yaml));
    let replicates = number(&mut reader, &root, "replicates", 1).map(small);
    if let (Some(Some(rule)), Some(yaml), Some(replicates)) = (&stop, root.get("stop"), replicates)
        && rule.at_least > replicates
    {
        let wrong = format!(
            "`stop` can never be looked at: it wants {} runs of a point (`at_least`), and `replicates`, the \
             most, is {replicates}",
            rule.at_least
        );
        let expected = "expected `replicates` of at least `at_least`";
        reader.problems.add(yaml.span, report(wrong).expected(expected));
    }
    let options = root.get("report").map_or_else(
        || Some(ReportOptions { confidence: CONFIDENCE, ..ReportOptions::nothing() }),
        |yaml| report_options(&mut reader, yaml, &factors),
    );
    let word = |key| root.get(key).and_then(Yaml::scalar);
    // All of these are read before one that is wrong ends it.
    let warm_up = number(&mut reader, &root, "warm_up", 0).map(small);
    let seed = number(&mut reader, &root, "seed", 1);
    let retries = number(&mut reader, &root, "retries", 2).map(small);
    let time_limit = match root.get("time_limit") {
        Some(yaml) => limit(&mut reader, yaml, "time_limit"),
        None => Some(SimTime::from_secs(3600)),
    };
    let plan = Plan {
        name: match root.get("name") {
            Some(yaml) => reader.checked(yaml, Scalar::Name, "name")?,
            None => name_of(&path.file_stem().unwrap_or_default().to_string_lossy()),
        },
        description: match root.get("description") {
            Some(yaml) => reader.text(yaml)?,
            None => String::new(),
        },
        topology: file?.0,
        time: if word("time") == Some("virtual") { Time::Virtual } else { Time::Realtime },
        params,
        factors,
        design: design?,
        replicates: replicates?,
        stop: match stop {
            Some(rule) => Some(rule?),
            None => None,
        },
        order: if word("order") == Some("as-given") { Order::AsGiven } else { Order::Randomised },
        warm_up: warm_up?,
        seed: seed?,
        time_limit: time_limit?,
        retries: retries?,
        keep: match word("keep") {
            Some("all") => Keep::All,
            Some("none") => Keep::None,
            _ => Keep::Thin,
        },
        load,
        report: options?,
    };
    // What is wrong so far would be said again of the topology.
    if reader.problems.count() == 0 {
        let settings = first(&plan);
        let topology = first_point(reader.problems, &plan, settings, &topology_files);
        if let Some(topology) = topology {
            metrics(&mut reader, &root, &plan, &topology);
        } else if reader.problems.count() > 0 {
            return None;
        }
    }
    Some(plan)
}

/// A whole number that is not negative.
fn number(reader: &mut Reader<'_>, root: &Yaml, key: &str, default: u64) -> Option<u64> {
    match root.get(key) {
        Some(yaml) => reader.parsed(yaml, Scalar::Integer { min: 0, max: i64::MAX }, key),
        None => Some(default),
    }
}

fn small(number: u64) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}

/// The tree of the plan file.
fn root(problems: &mut Problems, path: &Path) -> Option<Yaml> {
    let name = path.display().to_string();
    let text = match files::read(path).map(String::from_utf8) {
        Ok(Ok(text)) => text,
        Ok(Err(_)) => {
            problems.add_unplaced(report(format!("`{name}` is not UTF-8 text")));
            return None;
        }
        Err(reason) => {
            problems.add_unplaced(report(format!("cannot read `{name}`: {reason}")));
            return None;
        }
    };
    let file = problems.sources.add(&name, &text);
    let root = tree::parse(problems, file);
    if root.as_ref().is_none_or(Yaml::is_null) && problems.count() == 0 {
        let empty = report(format!("`{name}` is empty"));
        let help = "a plan has at least `topology:`; docs/campaigns.md shows a small one";
        let span = Span { file, start: 0, end: 0 };
        problems.add(span, empty.expected("expected a plan").help(help));
    }
    root.filter(|root| !root.is_null())
}

fn entries<'t>(root: &'t Yaml, key: &str) -> &'t [Entry] {
    root.get(key).and_then(Yaml::map).unwrap_or_default()
}

/// Whether the topology has a parameter of this name; says so if not.
fn is_declared(reader: &mut Reader<'_>, entry: &Entry, what: &str, declared: &Scope) -> bool {
    let name = entry.key.as_str();
    let known = declared.names().any(|known| known == name)
        || declared.undetermined().any(|known| known == name);
    if !known && !declared.is_open() {
        let wrong = report(format!("{what} `{name}`: the topology has no parameter of this name"));
        let wrong = wrong.expected("expected a parameter of the topology");
        reader.problems.add(entry.key_span, wrong.suggest(name, declared.names(), "parameters"));
    }
    known
}

/// A value that a parameter takes, in the type of its default.
fn typed(
    reader: &mut Reader<'_>,
    yaml: &Yaml,
    name: &str,
    value: Value,
    declared: &Scope,
) -> Option<Value> {
    let Some(default) = declared.variable(name) else { return Some(value) };
    match resolve::typed(&setting(&value), default) {
        Some(value) => Some(value),
        None => {
            let wrong = format!(
                "`{name}` is {} in the topology (default `{default}`), not {}",
                default.type_name(),
                value.type_name()
            );
            let form = format!("expected {}", default.type_name());
            reader.problems.add(yaml.span, report(wrong).expected(form));
            None
        }
    }
}

fn params(reader: &mut Reader<'_>, root: &Yaml, declared: &Scope) -> IndexMap<String, Value> {
    let mut params = IndexMap::new();
    for entry in entries(root, "params") {
        if !is_declared(reader, entry, "parameter", declared) {
            continue;
        }
        let value = reader.value(&entry.value);
        let value = value.and_then(|v| typed(reader, &entry.value, &entry.key, v, declared));
        if let Some(value) = value {
            params.insert(entry.key.clone(), value);
        }
    }
    params
}

fn design(
    reader: &mut Reader<'_>,
    root: &Yaml,
    factors: &IndexMap<String, Levels>,
) -> Option<Design> {
    let Some(yaml) = root.get("design") else { return Some(Design::FullFactorial) };
    if let Some(points) = yaml.get("latin-hypercube") {
        let kind = Scalar::Integer { min: 1, max: 1_000_000 };
        return Some(Design::LatinHypercube(reader.parsed(points, kind, "latin-hypercube")?));
    }
    if yaml.scalar()? != "paired" {
        return Some(Design::FullFactorial);
    }
    let counts: Vec<(&str, usize)> =
        factors.iter().map(|(name, levels)| (name.as_str(), levels.all().len())).collect();
    if let [(first, count), rest @ ..] = counts.as_slice()
        && let Some((other, differs)) = rest.iter().find(|(_, other)| other != count)
    {
        let wrong = format!(
            "factors cannot be paired: `{first}` has {count} levels and `{other}` has {differs}"
        );
        let place = root.get("factors").map_or(yaml.span, |factors| factors.span);
        reader.problems.add(place, report(wrong).expected("expected as many levels of each"));
        return None;
    }
    Some(Design::Paired)
}

/// The confidence of intervals unless the file says otherwise.
const CONFIDENCE: f64 = 0.95;

/// A probability as a share; neither 0 nor 1, which no interval has.
fn share(reader: &mut Reader<'_>, yaml: &Yaml, key: &str) -> Option<f64> {
    let text = reader.checked(yaml, Scalar::Probability, key)?;
    let percent: f64 = text.trim_end_matches('%').trim().parse().ok()?;
    if percent <= 0.0 || (key == "confidence" && percent >= 100.0) {
        let wrong = report(format!("`{key}` cannot be {text}"));
        reader.problems.add(yaml.span, wrong.expected("expected a share between 0% and 100%"));
        return None;
    }
    Some(percent / 100.0)
}

fn confidence(reader: &mut Reader<'_>, yaml: &Yaml) -> Option<f64> {
    match yaml.get("confidence") {
        Some(value) => share(reader, value, "confidence"),
        None => Some(CONFIDENCE),
    }
}

fn stop(reader: &mut Reader<'_>, yaml: &Yaml) -> Option<StopRule> {
    Some(StopRule {
        metric: reader.text(yaml.get("metric")?)?,
        width: share(reader, yaml.get("width")?, "width")?,
        confidence: confidence(reader, yaml)?,
        at_least: match yaml.get("at_least") {
            Some(value) => {
                reader.parsed(value, Scalar::Integer { min: 2, max: i64::MAX }, "at_least")?
            }
            None => 3,
        },
    })
}

impl ReportOptions {
    fn nothing() -> Self {
        Self {
            metrics: Vec::new(),
            x: None,
            series: None,
            compare: None,
            baseline: None,
            confidence: 0.0,
        }
    }
}

fn report_options(
    reader: &mut Reader<'_>,
    yaml: &Yaml,
    factors: &IndexMap<String, Levels>,
) -> Option<ReportOptions> {
    let mut factor = |key: &str| -> Option<String> {
        let value = yaml.get(key)?;
        let name = reader.text(value)?;
        if !factors.contains_key(&name) {
            let wrong = report(format!("unknown factor `{name}` (key `{key}`)"));
            let known = factors.keys().map(String::as_str);
            let wrong = wrong.expected("expected a factor of this plan");
            reader.problems.add(value.span, wrong.suggest(&name, known, "factors"));
            return None;
        }
        Some(name)
    };
    let (series, compare) = (factor("series"), factor("compare"));
    let baseline = yaml.get("baseline").and_then(|value| reader.value(value));
    if let (Some(level), Some(value)) = (&baseline, yaml.get("baseline")) {
        let has = |levels: &Levels| {
            levels.all().iter().any(|known| known.to_string() == level.to_string())
        };
        let fits = match compare.as_deref().and_then(|name| factors.get(name)) {
            Some(levels) => has(levels),
            None => factors.values().any(has),
        };
        if !fits {
            let wrong = report(format!("`{level}` is no level of the factor that is compared"));
            reader.problems.add(value.span, wrong.expected("expected one of its levels"));
        }
    }
    let metrics = yaml.get("metrics").map(one_or_many).unwrap_or_default();
    Some(ReportOptions {
        metrics: metrics.iter().filter_map(|metric| reader.text(metric)).collect(),
        x: yaml.get("x").and_then(|value| reader.text(value)),
        series,
        compare,
        baseline,
        confidence: confidence(reader, yaml)?,
    })
}

/// The topology at a point of the design; `None` where whoever makes all points will find what is
/// wrong with it.
fn first_point(
    problems: &mut Problems,
    plan: &Plan,
    settings: Option<Settings>,
    files: &Files,
) -> Option<Topology> {
    let settings = settings?;
    let all = plan.params.iter().chain(&settings);
    let sets: Vec<(String, String)> =
        all.map(|(name, value)| (name.clone(), setting(value))).collect();
    match plan.design {
        // Nobody knows where a drawn point is unless its name is said.
        Design::LatinHypercube(_) => crate::load(&plan.topology, &sets).ok(),
        _ => resolve::resolve(problems, files, &sets, &plan.name),
    }
}

/// Metrics that the plan names are metrics of the topology.
fn metrics(reader: &mut Reader<'_>, root: &Yaml, plan: &Plan, topology: &Topology) {
    let of_tasks = topology.tasks.iter().flat_map(|task| task.metrics.keys());
    let known: Vec<&str> = of_tasks.chain(topology.metrics.keys()).map(String::as_str).collect();
    let stop = root.get("stop").and_then(|stop| stop.get("metric"));
    let shown = root.get("report").and_then(|report| report.get("metrics"));
    let x = root.get("report").and_then(|report| report.get("x"));
    let named = stop.into_iter().chain(shown.map(one_or_many).unwrap_or_default()).chain(x);
    for yaml in named {
        let Some(name) = yaml.scalar() else { continue };
        let is_x = x.is_some_and(|x| x.span == yaml.span);
        if known.contains(&name) || (is_x && plan.factors.contains_key(name)) {
            continue;
        }
        let what = if is_x { "factor or metric" } else { "metric" };
        let wrong = report(format!("unknown {what} `{name}`: no run could produce it"));
        let factors = plan.factors.keys().map(String::as_str).filter(|_| is_x);
        let candidates = known.iter().copied().chain(factors);
        let wrong = wrong.expected(format!("expected a {what} of the topology"));
        reader.problems.add(yaml.span, wrong.suggest(name, candidates, "metrics"));
    }
}
