//! Tasks, their commands, metrics and expectations.
//!
//! Purpose: from `tasks:` to [`Task`]s in which every name stands for something.
//!
//! Assumptions: a background command keeps its name until a task stops it, so that `stop` and
//! `from` are never ambiguous; a metric's name is unique in the topology and differs from every
//! parameter's, so that an expression can use both.

use std::collections::{BTreeSet, HashSet};

use indexmap::{IndexMap, IndexSet};
use tapestry_core::SimTime;

use crate::check::condition;
use crate::diagnostics::report;
use crate::expression::{Scope, Value};
use crate::files::Files;
use crate::hosts::Doubts;
use crate::keys::{self, SHELLS};
use crate::links::unknown_node;
use crate::nodes::Drafts;
use crate::read::{Reader, one_or_many};
use crate::resolve::{expectations, limit, section, words};
use crate::resolved::{Command, Metric, Pick, Take, Task};
use crate::shape::Scalar;
use crate::source::Span;
use crate::tree::{Entry, Yaml};

/// Longest time a task may take unless the file says otherwise.
const TIMEOUT: SimTime = SimTime::from_secs(60);

/// The names that run-time expressions can use at one point of the file.
#[derive(Debug)]
pub(crate) struct Known {
    params: IndexSet<String>,
    metrics: IndexSet<String>,
    open: bool,
}

impl Known {
    pub(crate) fn new(scope: &Scope, roots: &[Yaml]) -> Self {
        let of_tasks = section(roots, "tasks")
            .flat_map(|yaml| yaml.list().unwrap_or_default())
            .filter_map(|task| task.get("metrics"));
        let metrics = section(roots, "metrics").chain(of_tasks);
        let unreadable = |yaml: &Yaml| !yaml.is_null() && yaml.map().is_none();
        Self {
            params: scope.names().chain(scope.undetermined()).map(str::to_owned).collect(),
            metrics: IndexSet::new(),
            open: scope.is_open()
                || section(roots, "tasks").any(|yaml| !yaml.is_null() && yaml.list().is_none())
                || metrics.into_iter().any(unreadable),
        }
    }

    /// Whether no name is unknown: where it may be declared could not be read.
    pub(crate) fn is_open(&self) -> bool {
        self.open
    }

    /// Names of metrics, in the order in which they become known.
    pub(crate) fn metrics(&self) -> impl Iterator<Item = &str> {
        self.metrics.iter().map(String::as_str)
    }

    /// What is known when only so many metrics are.
    pub(crate) fn with_metrics(&self, count: usize) -> Self {
        let metrics = self.metrics.iter().take(count).cloned().collect();
        Self { params: self.params.clone(), metrics, open: self.open }
    }

    pub(crate) fn names(&self) -> BTreeSet<&str> {
        self.params.iter().chain(&self.metrics).map(String::as_str).collect()
    }

    /// Adds a metric's name.
    pub(crate) fn declare(&mut self, reader: &mut Reader<'_>, entry: &Entry) {
        let name = &entry.key;
        if Scalar::Identifier.complaint(name).is_some() {
            self.metrics.extend(words(name).map(str::to_owned));
            return;
        }
        let other = if self.params.contains(name) {
            Some("parameter")
        } else if !self.metrics.insert(name.clone()) {
            Some("metric")
        } else {
            None
        };
        if let Some(other) = other {
            let wrong = report(format!("`{name}` is the name of a {other} already"));
            reader.problems.add(entry.key_span, wrong.expected("a name not yet taken"));
        }
    }
}

/// Background commands that have not been stopped.
#[derive(Debug, Default)]
struct Running {
    names: IndexSet<String>,
    /// Names of commands that stand in what could not be read.
    doubts: Doubts,
}

/// Reads `tasks:` of all files. `known` gains the tasks' metrics; the numbers say how many metrics
/// are known when each task has ended.
pub(crate) fn resolve(
    reader: &mut Reader<'_>,
    files: &Files,
    drafts: &Drafts<'_>,
    known: &mut Known,
) -> (Vec<Task>, Vec<usize>) {
    let roots = files.roots.as_slice();
    let mut names = HashSet::new();
    let mut running = Running::default();
    if files.incomplete {
        running.doubts.add_all();
    }
    let (mut tasks, mut metrics) = (Vec::new(), Vec::new());
    for yaml in section(roots, "tasks").flat_map(|yaml| yaml.list().unwrap_or_default()) {
        let name = yaml.get("name").and_then(|yaml| reader.checked(yaml, Scalar::Name, "name"));
        if let (Some(name), Some(at)) = (&name, yaml.get("name"))
            && !names.insert(name.clone())
        {
            let wrong = report(format!("there are two tasks named `{name}`"));
            reader.problems.add(at.span, wrong.expected("a name not yet taken"));
        }
        let name = name.unwrap_or_default();
        tasks.push(resolve_task(reader, yaml, name, drafts, known, &mut running));
        metrics.push(known.metrics.len());
    }
    (tasks, metrics)
}

fn resolve_task(
    reader: &mut Reader<'_>,
    yaml: &Yaml,
    name: String,
    drafts: &Drafts<'_>,
    known: &mut Known,
    running: &mut Running,
) -> Task {
    let when = yaml.get("when").and_then(|yaml| condition(reader, yaml, known));
    let timeout =
        yaml.get("timeout").and_then(|yaml| limit(reader, yaml, "timeout")).unwrap_or(TIMEOUT);
    let commands = commands(reader, yaml, drafts, running);
    running.names.extend(
        commands.iter().filter(|command| command.background).map(|command| command.name.clone()),
    );
    let mut stop = Vec::new();
    for item in yaml.get("stop").map(one_or_many).unwrap_or_default() {
        let Some(name) = reader.text(item) else { continue };
        if running.names.shift_remove(&name) {
            stop.push(name);
        } else if !running.doubts.cover(&name) {
            let wrong = report(format!(
                "no background command `{}` is running here",
                crate::diagnostics::excerpt(&name)
            ));
            let wrong = wrong.expected("expected a background command of this or an earlier task");
            reader.problems.add(
                item.span,
                wrong.suggest(
                    &name,
                    running.names.iter().map(String::as_str),
                    "background commands",
                ),
            );
        }
    }
    let mut metrics = IndexMap::new();
    for entry in yaml.get("metrics").and_then(Yaml::map).unwrap_or_default() {
        if let Some(metric) = metric(reader, entry, &commands, &stop, &running.doubts) {
            metrics.insert(entry.key.clone(), metric);
        }
        known.declare(reader, entry);
    }
    let expect = yaml.get("expect").map_or_else(Vec::new, |yaml| expectations(reader, yaml, known));
    Task { name, commands, timeout, stop, metrics, expect, when }
}

/// The commands of a task. Those of nodes that cannot run them are among them, so that their names
/// are known.
fn commands(
    reader: &mut Reader<'_>,
    yaml: &Yaml,
    drafts: &Drafts<'_>,
    running: &mut Running,
) -> Vec<Command> {
    let mut commands: Vec<Command> = Vec::new();
    let mut names = HashSet::new();
    let mut foreground = HashSet::new();
    let run = yaml.get("run");
    if run.is_some_and(|run| !run.is_null() && run.map().is_none()) {
        running.doubts.add_all();
    }
    for entry in run.and_then(Yaml::map).unwrap_or_default() {
        let list = entry.value.list().unwrap_or(std::slice::from_ref(&entry.value));
        let Some(nodes) = reader.key_hosts(entry) else {
            // For whom they are is unknown; what is wrong with them is wrong all the same.
            reader.scope.remove("index");
            reader.scope.remove("node");
            reader.scope.set_undetermined("index");
            reader.scope.set_undetermined("node");
            for item in list {
                let written = item.get("name").and_then(Yaml::scalar).unwrap_or(&entry.key);
                running.doubts.add_list(written);
                command(reader, item, "node", 0, 0, &mut running.doubts);
            }
            continue;
        };
        for (index, node) in nodes.iter().enumerate() {
            let at = drafts.by_name.get(node).copied();
            let kind = at.map_or("", |at| drafts.nodes[at].node.kind.as_str());
            if at.is_none() {
                unknown_node(reader, drafts, node, entry.key_span);
            } else if !SHELLS.contains(&kind) {
                let wrong = report(format!("the node `{node}` is a {kind} and runs no commands"));
                reader.problems.add(
                    entry.key_span,
                    wrong.expected(format!("expected a node of kind {}", SHELLS.join(", "))),
                );
            }
            reader.problems.once_per_place(index > 0);
            reader.scope.set("index", Value::Int(i64::try_from(index).unwrap_or(i64::MAX)));
            reader.scope.set("node", Value::Text(node.clone()));
            for (number, item) in list.iter().enumerate() {
                let place = at.unwrap_or(0);
                let Some(command) = command(reader, item, node, place, number, &mut running.doubts)
                else {
                    continue;
                };
                if !command.background && at.is_some_and(|at| !foreground.insert(at)) {
                    let wrong = report(format!(
                        "the node `{node}` has two foreground commands in one task"
                    ));
                    let help = "a node has one shell: join them with `;` or `&&`, make one `background: true`, or use two tasks";
                    reader.problems.add(item.span, wrong.expected("the second one").help(help));
                }
                if running.names.contains(&command.name) || !names.insert(command.name.clone()) {
                    let wrong = report(format!(
                        "`{}` is the name of another command that is running",
                        command.name
                    ));
                    let help = "give it another `name:`, for example with `${node}` in it";
                    reader
                        .problems
                        .add(item.span, wrong.expected("expected a name of its own").help(help));
                }
                commands.push(command);
            }
            reader.problems.once_per_place(false);
        }
    }
    reader.scope.remove("index");
    reader.scope.remove("node");
    commands
}

/// One command; `None`, with its name among the doubts, if its name or whether it goes on in the
/// background could not be read.
fn command(
    reader: &mut Reader<'_>,
    yaml: &Yaml,
    node: &str,
    at: usize,
    number: usize,
    doubts: &mut Doubts,
) -> Option<Command> {
    let default_name = if number == 0 { node.to_owned() } else { format!("{node}-{number}") };
    let written = yaml.get("command").unwrap_or(yaml);
    let before = reader.lost;
    let text = reader.text(written).unwrap_or_default();
    if reader.lost == before && (text.trim().is_empty() || text.contains('\0')) {
        let wrong = report("the command is empty or holds a NUL byte");
        reader
            .problems
            .add(written.span, wrong.expected("expected a command for the node's shell"));
    }
    let before = reader.lost;
    let background = yaml
        .get("background")
        .and_then(|yaml| reader.parsed(yaml, Scalar::Bool, "background"))
        .unwrap_or(false);
    let background_is_lost = reader.lost > before;
    let name = yaml.get("name").and_then(|yaml| reader.checked(yaml, Scalar::Name, "name"));
    let is_lost = reader.lost > before;
    for (key, applies, needed) in
        [("ready", background, "background"), ("timeout", !background, "foreground")]
    {
        if let Some(yaml) = yaml.get(key).filter(|_| !applies && !background_is_lost) {
            let wrong = report(format!("`{key}` is for {needed} commands"));
            reader.problems.add(yaml.span, wrong.expected("not for this command"));
        }
    }
    let status = yaml.get("status").and_then(|yaml| reader.checked(yaml, Scalar::Status, "status"));
    let ready = yaml.get("ready").and_then(|yaml| reader.checked(yaml, Scalar::Regex, "ready"));
    let timeout = yaml.get("timeout").and_then(|yaml| limit(reader, yaml, "timeout"));
    if is_lost {
        let written = yaml.get("name").and_then(Yaml::scalar);
        doubts.add_list(written.unwrap_or(&default_name));
        return None;
    }
    Some(Command {
        name: name.unwrap_or(default_name),
        node: at,
        text,
        background,
        ready,
        timeout,
        expect_status: match status.as_deref() {
            // One in the background that is stopped has no status of its own; the others count.
            None => Some(0),
            Some(status) => status.parse().ok(),
        },
    })
}

fn metric(
    reader: &mut Reader<'_>,
    entry: &Entry,
    commands: &[Command],
    stop: &[String],
    doubts: &Doubts,
) -> Option<Metric> {
    let yaml = &entry.value;
    let from = source(reader, yaml, commands, stop, doubts);
    let take = take(reader, entry);
    let unit = yaml.get("unit").and_then(|yaml| reader.text(yaml)).unwrap_or_default();
    let default =
        yaml.get("default").and_then(|yaml| reader.parsed(yaml, Scalar::Number, "default"));
    Some(Metric { from: from?, take: take?, unit, default })
}

/// The command whose output a metric reads.
fn source(
    reader: &mut Reader<'_>,
    yaml: &Yaml,
    commands: &[Command],
    stop: &[String],
    doubts: &Doubts,
) -> Option<String> {
    let sources = || {
        commands.iter().map(|command| command.name.as_str()).chain(stop.iter().map(String::as_str))
    };
    if let Some(written) = yaml.get("from") {
        let from = reader.text(written)?;
        if !sources().any(|name| name == from) {
            if !doubts.cover(&from) {
                let wrong = report(format!(
                    "no command `{}` ends in this task",
                    crate::diagnostics::excerpt(&from)
                ));
                let wrong = wrong.expected("expected a command of this task, or one that it stops");
                reader.problems.add(written.span, wrong.suggest(&from, sources(), "commands"));
            }
            return None;
        }
        if commands.iter().any(|c| c.name == from && c.background) && !stop.contains(&from) {
            let wrong = report(format!("the background command `{from}` goes on after this task"));
            let help =
                format!("add `stop: [{from}]`, or take the metric in the task that stops it");
            reader
                .problems
                .add(written.span, wrong.expected("its output is not complete yet").help(help));
            return None;
        }
        return Some(from);
    }
    let foreground: Vec<&Command> = commands.iter().filter(|command| !command.background).collect();
    match foreground.as_slice() {
        [only] => Some(only.name.clone()),
        _ if !doubts.is_empty() => None,
        found => {
            let wrong = report(format!(
                "the task has {} foreground commands; which one is meant?",
                found.len()
            ));
            reader
                .problems
                .add(yaml.span, wrong.expected("expected `from:` with a command's name"));
            None
        }
    }
}

/// What a metric takes from an output.
fn take(reader: &mut Reader<'_>, entry: &Entry) -> Option<Take> {
    let yaml = &entry.value;
    let short = yaml.scalar().map(|_| (yaml, entry.key.as_str()));
    let written = short.or_else(|| Some((yaml.get("regex")?, "regex")));
    Some(match (written, yaml.get("json")) {
        (Some((regex, key)), None) => {
            let pick = match yaml.get("pick") {
                Some(pick) => self::pick(reader, pick)?,
                None => Pick::Last,
            };
            let pattern = reader.checked(regex, Scalar::Regex, key)?;
            check_groups(reader, &pattern, pick, regex.span)?;
            Take::Regex { pattern, pick }
        }
        (None, Some(json)) => {
            if let Some(pick) = yaml.get("pick") {
                let wrong = report("`pick` goes with `regex`, not with `json`");
                reader.problems.add(pick.span, wrong.expected("a JSON pointer names one value"));
            }
            Take::JsonPointer(reader.checked(json, Scalar::Pointer, "json")?)
        }
        _ => {
            let wrong = report("a metric has either `regex` or `json`");
            reader.problems.add(yaml.span, wrong.expected("expected exactly one of them"));
            return None;
        }
    })
}

fn pick(reader: &mut Reader<'_>, yaml: &Yaml) -> Option<Pick> {
    let Some(crate::shape::Shape::Scalar(scalar)) = keys::METRIC.key("pick").map(|key| key.shape)
    else {
        return None;
    };
    Some(match reader.checked(yaml, scalar, "pick")?.as_str() {
        "first" => Pick::First,
        "sum" => Pick::Sum,
        "mean" => Pick::Mean,
        "min" => Pick::Min,
        "max" => Pick::Max,
        "count" => Pick::Count,
        _ => Pick::Last,
    })
}

/// A pattern needs a group to take the value from, unless its matches are only counted.
fn check_groups(reader: &mut Reader<'_>, pattern: &str, pick: Pick, span: Span) -> Option<()> {
    let regex = regex::Regex::new(pattern).ok()?;
    if pick == Pick::Count || regex.captures_len() > 1 {
        return Some(());
    }
    let wrong =
        report(format!("the pattern `{}` has no group", crate::diagnostics::excerpt(pattern)));
    let wrong = wrong.expected("expected `(…)` around the value");
    reader.problems.add(span, wrong.help("or `pick: count` to count the matches"));
    None
}
