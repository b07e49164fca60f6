//! The summary of a run that a person reads.

use std::fmt::Write;
use std::path::Path;

use tapestry_lab::results::{Outcome, Results, TaskState};
use tapestry_lab::verdict::Trust;

/// The summary, ending in a newline.
pub(crate) fn text(results: &Results, directory: &Path) -> String {
    let mut out = String::new();
    let _ = writeln!(out);
    if let Some(seconds) = results.wall.ready_seconds {
        let slowest = results
            .nodes
            .iter()
            .filter_map(|node| Some((node.boot_seconds? + node.configure_seconds?, &node.name)))
            .max_by(|a, b| a.0.total_cmp(&b.0));
        let slowest = slowest
            .map_or(String::new(), |(seconds, name)| format!(" (slowest: {name}, {seconds:.1} s)"));
        let _ = writeln!(out, "nodes     {} ready in {seconds:.1} s{slowest}", results.nodes.len());
    }
    for task in &results.tasks {
        if !task.ran {
            let _ = writeln!(out, "task      {}: not run", task.name);
            continue;
        }
        if task.state == TaskState::Interrupted {
            let _ =
                writeln!(out, "task      {}: interrupted after {:.1} s", task.name, task.seconds);
            continue;
        }
        let failed = task.commands.iter().filter(|command| command.error.is_some()).count();
        let failed = if failed == 0 {
            String::new()
        } else {
            format!(", {} failed", count(failed, "command"))
        };
        let skew = task
            .start_skew_ns
            .map_or(String::new(), |skew| format!(", start skew {}", millis(skew)));
        let _ = writeln!(out, "task      {}: {:.1} s{skew}{failed}", task.name, task.seconds);
    }
    if let Some(seconds) = results.virtual_seconds {
        let wall = results.wall.total_seconds;
        let _ = writeln!(out, "time      {seconds:.3} s of virtual time in {wall:.3} s");
    }
    for (name, metric) in &results.metrics {
        let unit = if metric.unit.is_empty() { "" } else { " " };
        let _ = writeln!(out, "metric    {name} = {}{unit}{}", number(metric.value), metric.unit);
    }
    for expectation in &results.expectations {
        let word = match expectation.holds {
            Some(true) => "holds",
            Some(false) => "FAILS",
            None => "cannot be evaluated",
        };
        let _ = writeln!(out, "expect    {}: {word}", expectation.expression);
    }
    let _ = write!(out, "{}", notices(results));
    if let Some(skipped) = skipped_in_captures(&results.captures) {
        let _ = writeln!(out, "capture   {skipped}");
    }
    if let Some(queue) = longest_queue(&results.links) {
        let _ = writeln!(out, "queue     {queue}");
    }
    if let Some(lateness) = lateness(results) {
        let _ = writeln!(out, "lateness  {lateness}");
    }
    if let Some(host) = &results.host {
        let _ = writeln!(
            out,
            "host      CPU {:.0} % busy since all nodes were ready, {:.0} % stolen",
            host.cpu * 100.0,
            host.steal * 100.0
        );
    }
    let reasons = match results.verdict.state {
        Trust::Valid => String::new(),
        _ => format!(": {}", results.verdict.reasons.join("; ")),
    };
    let _ = writeln!(out, "verdict   {}{reasons}", results.verdict.state.as_str());
    let outcome = match results.outcome {
        Outcome::Passed => "passed",
        Outcome::Failed => "FAILED",
        Outcome::Inconclusive => "INCONCLUSIVE",
        Outcome::Interrupted => "INTERRUPTED: the results are partial",
    };
    let _ = writeln!(out, "outcome   {outcome}");
    let _ = writeln!(out, "details   {}", directory.display());
    out
}

/// How late events were, and how long the emulator stood still; `None` in virtual time.
fn lateness(results: &Results) -> Option<String> {
    let shown = |lateness: &serde_json::Value| {
        let (p99, max) = (lateness["p99_ns"].as_u64()?, lateness["max_ns"].as_u64()?);
        Some(format!("p99 {}, worst {}", millis(p99), millis(max)))
    };
    let events = shown(&results.lateness)?;
    let pulse = shown(&results.pulse)?;
    Some(format!("of events {events}; of the emulator's pulse {pulse}"))
}

/// A line for each interface that went down, came back or was deleted, as many as one reads.
fn notices(results: &Results) -> String {
    const MOST: usize = 5;
    let mut out = String::new();
    let Some(notices) = results.notices.as_array() else { return out };
    for notice in notices.iter().take(MOST) {
        let seconds = notice["time"].as_u64().unwrap_or_default() as f64 / 1e9;
        let text = |key: &str| notice[key].as_str().unwrap_or_default().to_owned();
        let (endpoint, link, state) = (text("endpoint"), text("link"), text("state"));
        let _ = writeln!(out, "notice    {endpoint} of link {link}: {state} at {seconds:.3} s");
    }
    let more = notices.len().saturating_sub(MOST) as u64 + results.notices_skipped;
    if more > 0 {
        let _ = writeln!(out, "notice    {more} more: see results.json");
    }
    out
}

/// What captures had to leave out, if anything.
fn skipped_in_captures(captures: &serde_json::Value) -> Option<String> {
    let skipped = captures.as_array()?.iter().filter_map(|capture| {
        let frames = capture["skipped"].as_u64().filter(|frames| *frames > 0)?;
        Some((capture["link"].as_str().unwrap_or_default(), frames))
    });
    let skipped: Vec<_> = skipped.collect();
    let total: u64 = skipped.iter().map(|(_, frames)| frames).sum();
    let (link, most) = skipped.iter().max_by_key(|(_, frames)| *frames)?;
    Some(format!(
        "{total} frames skipped, {most} of them of link {link}: the disk was too slow or full"
    ))
}

/// The queue in which a frame stayed longest; `None` if no frame waited.
fn longest_queue(links: &serde_json::Value) -> Option<String> {
    let endpoints = links.as_array()?.iter().filter_map(|link| link["endpoints"].as_array());
    let stayed = |end: &&serde_json::Value| end["station"]["queue"]["sojourn_max_ns"].as_u64();
    let longest = endpoints.flatten().max_by_key(stayed)?;
    let queue = &longest["station"]["queue"];
    let figure = |key: &str| queue[key].as_u64().filter(|figure| *figure > 0);
    Some(format!(
        "the longest at {}: {}, in it {} on average, {} at most",
        longest["endpoint"].as_str()?,
        count(figure("longest_frames")? as usize, "frame"),
        millis(queue["sojourn_mean_ns"].as_u64()?),
        millis(figure("sojourn_max_ns")?),
    ))
}

/// `1 node`, `2 nodes`.
pub(crate) fn count(number: usize, noun: &str) -> String {
    format!("{number} {noun}{}", if number == 1 { "" } else { "s" })
}

fn millis(nanoseconds: u64) -> String {
    format!("{:.2} ms", nanoseconds as f64 / 1e6)
}

/// Six significant digits, no trailing zeros: `4986.66`, `0.0125`, `5000`.
pub(crate) fn number(value: f64) -> String {
    if value == 0.0 || !value.is_finite() {
        return format!("{value}");
    }
    let digits = (5 - value.abs().log10().floor() as i32).clamp(0, 12);
    let text = format!("{value:.*}", digits as usize);
    if text.contains('.') {
        text.trim_end_matches('0').trim_end_matches('.').to_owned()
    } else {
        text
    }
}

#[cfg(test)]
mod tests {
    use super::{longest_queue, number};

    #[test]
    fn the_queue_with_the_longest_wait_is_shown() {
        let end = |name: &str, most: u64| {
            let queue = serde_json::json!({
                "longest_frames": 37, "sojourn_mean_ns": 1_500_000, "sojourn_max_ns": most,
            });
            serde_json::json!({ "endpoint": name, "station": { "queue": queue } })
        };
        let links = |ends: [serde_json::Value; 2]| serde_json::json!([{ "endpoints": ends }]);
        assert_eq!(
            longest_queue(&links([end("a:eth0", 7_000_000), end("b:eth0", 0)])).as_deref(),
            Some("the longest at a:eth0: 37 frames, in it 1.50 ms on average, 7.00 ms at most")
        );
        assert_eq!(longest_queue(&links([end("a:eth0", 0), end("b:eth0", 0)])), None);
        assert_eq!(longest_queue(&serde_json::Value::Null), None);
    }

    #[test]
    fn numbers_are_short_and_right() {
        for (value, text) in [
            (0.0, "0"),
            (4986.664, "4986.66"),
            (0.0125, "0.0125"),
            (5000.0, "5000"),
            (1_234_567.0, "1234567"),
            (-2.5, "-2.5"),
            (1e-9, "0.000000001"),
        ] {
            assert_eq!(number(value), text);
        }
    }
}
