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

use crate::check::run_time_expression;
use crate::diagnostics::report;
use crate::expression::{Scope, Value};
use crate::keys::{self, SHELLS};
use crate::links::unknown_node;
use crate::nodes::Drafts;
use crate::read::{Reader, one_or_many};
use crate::resolve::{expectations, limit, section};
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
}

impl Known {
    pub(crate) fn new(scope: &Scope) -> Self {
        Self { params: scope.names().map(str::to_owned).collect(), metrics: IndexSet::new() }
    }

    pub(crate) fn names(&self) -> BTreeSet<&str> {
        self.params.iter().chain(&self.metrics).map(String::as_str).collect()
    }

    /// Adds a metric's name.
    pub(crate) fn declare(&mut self, reader: &mut Reader<'_>, entry: &Entry) {
        let name = &entry.key;
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

/// Reads `tasks:` of all files. `known` gains the tasks' metrics.
pub(crate) fn resolve(
    reader: &mut Reader<'_>,
    roots: &[Yaml],
    drafts: &Drafts<'_>,
    known: &mut Known,
) -> Vec<Task> {
    let mut names = HashSet::new();
    let mut running = IndexSet::new();
    let mut tasks = Vec::new();
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
    }
    tasks
}

fn resolve_task(
    reader: &mut Reader<'_>,
    yaml: &Yaml,
    name: String,
    drafts: &Drafts<'_>,
    known: &mut Known,
    running: &mut IndexSet<String>,
) -> Task {
    let when = yaml
        .get("when")
        .and_then(|yaml| run_time_expression(reader.problems, yaml, &known.names()));
    let timeout =
        yaml.get("timeout").and_then(|yaml| limit(reader, yaml, "timeout")).unwrap_or(TIMEOUT);
    let (commands, complete) = commands(reader, yaml, drafts, running);
    running.extend(
        commands.iter().filter(|command| command.background).map(|command| command.name.clone()),
    );
    let mut stop = Vec::new();
    for item in yaml.get("stop").map(one_or_many).unwrap_or_default() {
        let Some(name) = reader.text(item) else { continue };
        if running.shift_remove(&name) {
            stop.push(name);
        } else if complete {
            let wrong = report(format!(
                "no background command `{}` is running here",
                crate::diagnostics::excerpt(&name)
            ));
            let wrong = wrong.expected("expected a background command of this or an earlier task");
            reader.problems.add(
                item.span,
                wrong.suggest(&name, running.iter().map(String::as_str), "background commands"),
            );
        }
    }
    let mut metrics = IndexMap::new();
    for entry in yaml.get("metrics").and_then(Yaml::map).unwrap_or_default() {
        if let Some(metric) = metric(reader, entry, &commands, &stop, complete) {
            metrics.insert(entry.key.clone(), metric);
        }
        known.declare(reader, entry);
    }
    let expect = yaml.get("expect").map_or_else(Vec::new, |yaml| expectations(reader, yaml, known));
    Task { name, commands, timeout, stop, metrics, expect, when }
}

/// The commands of a task, and whether all could be read.
fn commands(
    reader: &mut Reader<'_>,
    yaml: &Yaml,
    drafts: &Drafts<'_>,
    running: &IndexSet<String>,
) -> (Vec<Command>, bool) {
    let mut commands: Vec<Command> = Vec::new();
    let mut names = HashSet::new();
    let mut complete = true;
    let mut foreground = HashSet::new();
    for entry in yaml.get("run").and_then(Yaml::map).unwrap_or_default() {
        let Some(nodes) = reader.key_hosts(entry) else {
            complete = false;
            continue;
        };
        for (index, node) in nodes.iter().enumerate() {
            let Some(&at) = drafts.by_name.get(node) else {
                unknown_node(reader, drafts, node, entry.key_span);
                complete = false;
                continue;
            };
            let kind = drafts.nodes[at].node.kind.as_str();
            if !SHELLS.contains(&kind) {
                let wrong = report(format!("the node `{node}` is a {kind} and runs no commands"));
                reader.problems.add(
                    entry.key_span,
                    wrong.expected(format!("expected a node of kind {}", SHELLS.join(", "))),
                );
                complete = false;
                continue;
            }
            reader.scope.set("index", Value::Int(i64::try_from(index).unwrap_or(i64::MAX)));
            reader.scope.set("node", Value::Text(node.clone()));
            let list = entry.value.list().unwrap_or(std::slice::from_ref(&entry.value));
            for (number, item) in list.iter().enumerate() {
                let Some(command) = command(reader, item, node, at, number) else {
                    complete = false;
                    continue;
                };
                if !command.background && !foreground.insert(at) {
                    let wrong = report(format!(
                        "the node `{node}` has two foreground commands in one task"
                    ));
                    let help = "a node has one shell: join them with `;` or `&&`, make one `background: true`, or use two tasks";
                    reader.problems.add(item.span, wrong.expected("the second one").help(help));
                }
                if running.contains(&command.name) || !names.insert(command.name.clone()) {
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
        }
    }
    reader.scope.remove("index");
    reader.scope.remove("node");
    (commands, complete)
}

fn command(
    reader: &mut Reader<'_>,
    yaml: &Yaml,
    node: &str,
    at: usize,
    number: usize,
) -> Option<Command> {
    let default_name = if number == 0 { node.to_owned() } else { format!("{node}-{number}") };
    let written = yaml.get("command").unwrap_or(yaml);
    let text = reader.text(written)?;
    if text.trim().is_empty() || text.contains('\0') {
        let wrong = report("the command is empty or holds a NUL byte");
        reader
            .problems
            .add(written.span, wrong.expected("expected a command for the node's shell"));
        return None;
    }
    let background = yaml
        .get("background")
        .and_then(|yaml| reader.parsed(yaml, Scalar::Bool, "background"))
        .unwrap_or(false);
    for (key, applies, needed) in [
        ("ready", background, "background"),
        ("timeout", !background, "foreground"),
        ("status", !background, "foreground"),
    ] {
        if let Some(yaml) = yaml.get(key).filter(|_| !applies) {
            let wrong = report(format!("`{key}` is for {needed} commands"));
            reader.problems.add(yaml.span, wrong.expected("not for this command"));
        }
    }
    let status = yaml.get("status").and_then(|yaml| reader.checked(yaml, Scalar::Status, "status"));
    Some(Command {
        name: yaml
            .get("name")
            .and_then(|yaml| reader.checked(yaml, Scalar::Name, "name"))
            .unwrap_or(default_name),
        node: at,
        text,
        background,
        ready: yaml.get("ready").and_then(|yaml| reader.checked(yaml, Scalar::Regex, "ready")),
        timeout: yaml.get("timeout").and_then(|yaml| limit(reader, yaml, "timeout")),
        expect_status: match status.as_deref() {
            // A background command is ended by a signal and has no status of its own.
            None if background => None,
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
    complete: bool,
) -> Option<Metric> {
    let yaml = &entry.value;
    let short = yaml.scalar().map(|_| (yaml, entry.key.as_str()));
    let sources = || {
        commands.iter().map(|command| command.name.as_str()).chain(stop.iter().map(String::as_str))
    };
    let from = match yaml.get("from") {
        Some(written) => {
            let from = reader.text(written)?;
            if complete && !sources().any(|name| name == from) {
                let wrong = report(format!(
                    "no command `{}` ends in this task",
                    crate::diagnostics::excerpt(&from)
                ));
                let wrong = wrong.expected("expected a command of this task, or one that it stops");
                reader.problems.add(written.span, wrong.suggest(&from, sources(), "commands"));
                return None;
            }
            if complete
                && commands.iter().any(|c| c.name == from && c.background)
                && !stop.contains(&from)
            {
                let wrong =
                    report(format!("the background command `{from}` goes on after this task"));
                let help =
                    format!("add `stop: [{from}]`, or take the metric in the task that stops it");
                reader
                    .problems
                    .add(written.span, wrong.expected("its output is not complete yet").help(help));
                return None;
            }
            from
        }
        None => match commands
            .iter()
            .filter(|command| !command.background)
            .collect::<Vec<_>>()
            .as_slice()
        {
            [only] => only.name.clone(),
            _ if !complete => return None,
            found => {
                let wrong = report(format!(
                    "the task has {} foreground commands; which one is meant?",
                    found.len()
                ));
                reader
                    .problems
                    .add(yaml.span, wrong.expected("expected `from:` with a command's name"));
                return None;
            }
        },
    };
    let written = short.or_else(|| Some((yaml.get("regex")?, "regex")));
    let take = match (written, yaml.get("json")) {
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
    };
    Some(Metric {
        from,
        take,
        unit: yaml.get("unit").and_then(|yaml| reader.text(yaml)).unwrap_or_default(),
        default: yaml
            .get("default")
            .and_then(|yaml| reader.parsed(yaml, Scalar::Number, "default")),
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
