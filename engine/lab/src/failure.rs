//! What a person needs to know of a scenario that did not pass: which task, which expectation, the values in
//! it, the last lines of consoles and commands, where the captures are, and how to run it again.

use std::collections::BTreeSet;
use std::fmt::Write;
use std::fs;
use std::path::Path;

use tapestry_guests::console::last_lines_of;
use tapestry_topologies::plan::Time;
use tapestry_topologies::resolved::Topology;

use crate::execution::{Ended, Ending, Request, command_line, shell_words};
use crate::results::{CommandReport, ExpectationReport, Results, TaskReport};

/// Lines shown of each console and each command's output.
const LINES: usize = 6;

/// The report on a run of `topology` that was asked for by `request`, ending in a newline.
pub fn report(topology: &Topology, time: Time, request: &Request, ended: &Ended) -> String {
    let directory = &request.directory;
    let mut out = String::new();
    match &ended.ending {
        Ending::TimedOut(task) => {
            let limit = request.time_limit.as_secs_f64();
            let _ = write!(out, "took longer than {limit} s by the wall clock and was ended");
            let _ = match task {
                Some(task) => writeln!(out, " in task {task}"),
                None => writeln!(out, "; no task was under way"),
            };
        }
        Ending::Crashed(why) => {
            let _ = writeln!(out, "left no results: {why}");
        }
        Ending::Completed | Ending::Interrupted => {}
    }
    if let Some(results) = &ended.results {
        of_results(&mut out, topology, results, directory);
    }
    if let Ending::TimedOut(Some(task)) = &ended.ending {
        of_unfinished(&mut out, topology, task, ended.results.as_ref(), directory);
    }
    let captures = directory.join("captures");
    if fs::read_dir(&captures).is_ok_and(|mut files| files.next().is_some()) {
        let _ = writeln!(out, "captures  {}", captures.display());
    }
    if directory.is_dir() {
        let _ = writeln!(out, "details   {}", directory.display());
    }
    // The directory is taken: a run by hand has its own.
    let mut words = command_line(request, time);
    if let Some(out_at) = words.iter().position(|word| word == "--out") {
        words.drain(out_at..out_at + 2);
    }
    let _ = writeln!(out, "again     {}", shell_words(&words));
    // What nodes said must not move the cursor of whoever reads it.
    out.retain(|c| c == '\n' || !c.is_control());
    out
}

fn of_results(out: &mut String, topology: &Topology, results: &Results, directory: &Path) {
    if !results.verdict.reasons.is_empty() {
        let (state, reasons) = (results.verdict.state.as_str(), &results.verdict.reasons);
        let _ = writeln!(out, "verdict   {state}: {}", reasons.join("; "));
    }
    for error in &results.errors {
        let _ = writeln!(out, "error     {}", error.trim_end().replace('\n', "\n          "));
    }
    let mut tasks = BTreeSet::new();
    for expectation in results.expectations.iter().filter(|e| e.holds != Some(true)) {
        of_expectation(out, topology, results, expectation);
        tasks.extend(expectation.task.clone());
    }
    // A metric that has no value is an error of its task.
    let is_blamed = |task: &TaskReport| {
        let prefix = format!("task {}: ", task.name);
        results.errors.iter().any(|error| error.starts_with(&prefix))
    };
    let failed = |task: &&TaskReport| {
        let has_failed = || task.commands.iter().any(|command| command.error.is_some());
        tasks.contains(&task.name) || has_failed() || is_blamed(task)
    };
    let mut nodes = BTreeSet::new();
    for task in results.tasks.iter().filter(failed) {
        for command in &task.commands {
            nodes.insert(command.node.as_str());
            of_command(out, &task.name, command);
        }
    }
    of_consoles(out, nodes, directory);
}

/// The expectation, and the value of each name in it.
fn of_expectation(
    out: &mut String,
    topology: &Topology,
    results: &Results,
    expectation: &ExpectationReport,
) {
    let task = expectation.task.as_ref().map_or_else(String::new, |task| format!("task {task}: "));
    let wrong = match &expectation.error {
        Some(why) => why.as_str(),
        None => "does not hold",
    };
    let _ = writeln!(out, "expected  {task}{}: {wrong}", expectation.expression);
    values(out, topology, Some(results), &expectation.expression);
}

/// The task that a run was ended in: its commands, what it was to show, and what it said last.
fn of_unfinished(
    out: &mut String,
    topology: &Topology,
    name: &str,
    results: Option<&Results>,
    directory: &Path,
) {
    let Some(task) = topology.tasks.iter().find(|task| task.name == name) else { return };
    for expectation in &task.expect {
        let expression = &expectation.expression;
        let _ = writeln!(out, "expected  task {name}: {expression}: not come to");
        values(out, topology, results, expression);
    }
    let report = results.and_then(|results| results.tasks.iter().find(|task| task.name == name));
    // What commands with errors said stands above.
    if report.is_some_and(|report| report.commands.iter().any(|command| command.error.is_some())) {
        return;
    }
    let mut nodes = BTreeSet::new();
    for command in &task.commands {
        let node = topology.nodes.get(command.node).map_or("", |node| node.name.as_str());
        let text = command.text.lines().next().unwrap_or_default();
        let _ = writeln!(out, "          node {node} ran `{text}`");
        let commands = report.map_or(&[][..], |report| &report.commands);
        if let Some(said) = commands.iter().find(|said| said.name == command.name) {
            of_command(out, name, said);
        }
        nodes.insert(node);
    }
    of_consoles(out, nodes, directory);
}

/// What a command of a task said last.
fn of_command(out: &mut String, task: &str, command: &CommandReport) {
    let what = format!("task {task}, node {}, `{}`", command.node, command.name);
    last_lines(out, &what, command.output.as_bytes());
}

/// What nodes' consoles showed last.
fn of_consoles(out: &mut String, nodes: BTreeSet<&str>, directory: &Path) {
    for node in nodes {
        let file = directory.join("console").join(format!("{node}.log"));
        let text = fs::read(&file).unwrap_or_default();
        last_lines(out, &format!("console of {node}"), &text);
    }
}

/// The value of each name in an expression, as far as it is known.
fn values(out: &mut String, topology: &Topology, results: Option<&Results>, expression: &str) {
    for name in names(expression) {
        if let Some(metric) = results.and_then(|results| results.metrics.get(name)) {
            let value = format!("{} {}", metric.value, metric.unit);
            let _ = writeln!(out, "          {name} = {}", value.trim_end());
        } else if let Some(value) = topology.params.get(name) {
            let _ = writeln!(out, "          {name} = {value}");
        }
    }
}

/// Words of an expression that may be names, each once, in order.
fn names(expression: &str) -> Vec<&str> {
    let mut names = Vec::new();
    for word in expression.split(|c: char| !c.is_alphanumeric() && c != '_') {
        if word.starts_with(|c: char| c.is_alphabetic()) && !names.contains(&word) {
            names.push(word);
        }
    }
    names
}

/// The end of a text, without what a terminal would obey and what is not for people.
fn last_lines(out: &mut String, what: &str, text: &[u8]) {
    let lines = last_lines_of(text, LINES);
    if lines.is_empty() {
        return;
    }
    let _ = writeln!(out, "last lines of {what}:");
    for line in &lines {
        let line: String = line.chars().filter(|c| !c.is_control()).collect();
        let _ = writeln!(out, "          {line}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn consoles_are_shown_without_frames() {
        let console =
            b"one\r\n\x1eb981ece7acf0cbde end 0\x1ftwo\n\x1eb981ece7acf0cbde armed\x1f\n\x1etorn\n";
        let mut said = String::new();
        last_lines(&mut said, "console of n0", console);
        let lines: Vec<&str> = said.lines().map(str::trim).collect();
        assert_eq!(lines, ["last lines of console of n0:", "one", "two", "torn"]);
    }
}
