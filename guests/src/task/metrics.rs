//! Values out of outputs: regular expressions and JSON pointers.

use indexmap::IndexMap;
use regex::RegexBuilder;
use tapestry_topologies::resolved::{Metric, Pick, Take, Task};

use super::outcome::{CommandOutcome, MetricValue};

/// Why a metric has no value.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MetricError {
    /// The command it is taken from has no output.
    #[error(
        "metric `{metric}`: command `{from}` did not run or has not ended; take it in the task that runs or stops it"
    )]
    NoOutput {
        /// The metric.
        metric: String,
        /// The command.
        from: String,
    },
    /// The pattern is not a regular expression.
    #[error("metric `{metric}`: `{pattern}` is not a regular expression: {reason}")]
    Pattern {
        /// The metric.
        metric: String,
        /// The pattern.
        pattern: String,
        /// What is wrong.
        reason: String,
    },
    /// Nothing in the output matches.
    #[error(
        "metric `{metric}`: nothing in the output of `{from}` matches `{pattern}`; give it a `default:` or mend the pattern"
    )]
    NoMatch {
        /// The metric.
        metric: String,
        /// The command.
        from: String,
        /// The pattern.
        pattern: String,
    },
    /// The node ended before the command had printed it.
    #[error(
        "metric `{metric}`: its value is missing because the node of `{from}` ended before it was printed; give it a `default:`"
    )]
    NodeEnded {
        /// The metric.
        metric: String,
        /// The command.
        from: String,
    },
    /// What was found is not a number.
    #[error("metric `{metric}`: `{found}` in the output of `{from}` is not a number")]
    NotANumber {
        /// The metric.
        metric: String,
        /// The command.
        from: String,
        /// What was found.
        found: String,
    },
    /// The output is not one JSON document.
    #[error(
        "metric `{metric}`: the output of `{from}` is not one JSON document: {reason}; send messages elsewhere with `2>/dev/null`"
    )]
    NotJson {
        /// The metric.
        metric: String,
        /// The command.
        from: String,
        /// What is wrong.
        reason: String,
    },
    /// The document has nothing at the pointer.
    #[error("metric `{metric}`: the JSON output of `{from}` has nothing at `{pointer}`")]
    NoSuchField {
        /// The metric.
        metric: String,
        /// The command.
        from: String,
        /// The pointer.
        pointer: String,
    },
}

/// The value of `metric`, named `name`, in the output of its command.
///
/// A `default:` stands in when nothing matches; what is found and is not a number is an error.
pub fn take(name: &str, metric: &Metric, output: &str) -> Result<f64, MetricError> {
    let found = match &metric.take {
        Take::Regex { pattern, pick } => by_regex(name, metric, pattern, *pick, output),
        Take::JsonPointer(pointer) => by_pointer(name, metric, pointer, output),
    };
    match (found, metric.default) {
        (
            Err(
                MetricError::NoMatch { .. }
                | MetricError::NotJson { .. }
                | MetricError::NoSuchField { .. },
            ),
            Some(default),
        ) => Ok(default),
        (found, _) => found,
    }
}

/// All metrics of `task` from what became of its commands, in the order of the file.
pub fn take_all(task: &Task, commands: &[CommandOutcome]) -> IndexMap<String, MetricValue> {
    let mut values = IndexMap::new();
    for (name, metric) in &task.metrics {
        let from =
            commands.iter().find(|command| command.name == metric.from && command.status.is_some());
        let value = match (from, metric.default) {
            (Some(command), _) => {
                let taken = take(name, metric, &command.output.to_text());
                taken.map_err(|error| match error {
                    MetricError::NoMatch { metric, from, .. }
                    | MetricError::NotJson { metric, from, .. }
                    | MetricError::NoSuchField { metric, from, .. }
                        if command.lost_node() =>
                    {
                        MetricError::NodeEnded { metric, from }
                    }
                    error => error,
                })
            }
            (None, Some(default)) => Ok(default),
            (None, None) => {
                Err(MetricError::NoOutput { metric: name.clone(), from: metric.from.clone() })
            }
        };
        let (value, error) = match value {
            Ok(value) => (Some(value), None),
            Err(error) => (None, Some(error)),
        };
        values.insert(name.clone(), MetricValue { value, unit: metric.unit.clone(), error });
    }
    values
}

fn by_regex(
    name: &str,
    metric: &Metric,
    pattern: &str,
    pick: Pick,
    output: &str,
) -> Result<f64, MetricError> {
    let regex = RegexBuilder::new(pattern).multi_line(true).build().map_err(|error| {
        MetricError::Pattern {
            metric: name.to_owned(),
            pattern: pattern.to_owned(),
            reason: error.to_string(),
        }
    })?;
    if pick == Pick::Count {
        return Ok(regex.find_iter(output).count() as f64);
    }
    let texts = regex.captures_iter(output).filter_map(|captures| {
        let group = captures
            .name("value")
            .or_else(|| captures.get(1))
            .or_else(|| (captures.len() == 1).then(|| captures.get(0)).flatten());
        group.map(|group| group.as_str())
    });
    let no_match = || MetricError::NoMatch {
        metric: name.to_owned(),
        from: metric.from.clone(),
        pattern: pattern.to_owned(),
    };
    let parse = |text: &str| number(text).ok_or_else(|| not_a_number(name, metric, text));
    // Only what counts has to be a number.
    match pick {
        Pick::First => return texts.take(1).last().ok_or_else(no_match).and_then(parse),
        Pick::Last => return texts.last().ok_or_else(no_match).and_then(parse),
        Pick::Sum | Pick::Mean | Pick::Min | Pick::Max | Pick::Count => {}
    }
    let values = texts.map(parse).collect::<Result<Vec<f64>, _>>()?;
    if values.is_empty() {
        return Err(no_match());
    }
    let sum: f64 = values.iter().sum();
    Ok(match pick {
        Pick::Mean => sum / values.len() as f64,
        Pick::Min => values.iter().copied().fold(f64::INFINITY, f64::min),
        Pick::Max => values.iter().copied().fold(f64::NEG_INFINITY, f64::max),
        Pick::Sum | Pick::First | Pick::Last | Pick::Count => sum,
    })
}

fn by_pointer(
    name: &str,
    metric: &Metric,
    pointer: &str,
    output: &str,
) -> Result<f64, MetricError> {
    let document: serde_json::Value =
        serde_json::from_str(output.trim()).map_err(|error| MetricError::NotJson {
            metric: name.to_owned(),
            from: metric.from.clone(),
            reason: error.to_string(),
        })?;
    let field = document.pointer(pointer).ok_or_else(|| MetricError::NoSuchField {
        metric: name.to_owned(),
        from: metric.from.clone(),
        pointer: pointer.to_owned(),
    })?;
    let value = match field {
        serde_json::Value::Number(value) => value.as_f64(),
        serde_json::Value::String(text) => number(text),
        serde_json::Value::Bool(value) => Some(f64::from(u8::from(*value))),
        _ => None,
    };
    value.ok_or_else(|| not_a_number(name, metric, &field.to_string()))
}

/// A finite number as programs print them.
fn number(text: &str) -> Option<f64> {
    text.trim().parse().ok().filter(|value: &f64| value.is_finite())
}

fn not_a_number(name: &str, metric: &Metric, found: &str) -> MetricError {
    MetricError::NotANumber {
        metric: name.to_owned(),
        from: metric.from.clone(),
        found: found.chars().take(80).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn regex(pattern: &str, pick: Pick) -> Metric {
        Metric {
            from: "n0".into(),
            take: Take::Regex { pattern: pattern.into(), pick },
            unit: String::new(),
            default: None,
        }
    }

    fn pointer(pointer: &str) -> Metric {
        Metric { take: Take::JsonPointer(pointer.into()), ..regex("", Pick::Last) }
    }

    const PING: &str = "time=1.5 ms\ntime=2.5 ms\ntime=0.5 ms\n";

    #[test]
    fn every_pick() {
        for (pick, value) in [
            (Pick::First, 1.5),
            (Pick::Last, 0.5),
            (Pick::Sum, 4.5),
            (Pick::Mean, 1.5),
            (Pick::Min, 0.5),
            (Pick::Max, 2.5),
            (Pick::Count, 3.0),
        ] {
            assert_eq!(take("rtt", &regex(r"^time=(\S+)", pick), PING), Ok(value), "{pick:?}");
        }
    }

    #[test]
    fn the_named_group_wins_and_no_group_is_the_whole_match() {
        assert_eq!(take("m", &regex(r"(\d+)\.(?<value>\d+)", Pick::First), "7.25"), Ok(25.0));
        assert_eq!(take("m", &regex(r"\d+", Pick::First), "a 7"), Ok(7.0));
    }

    #[test]
    fn nothing_found_is_an_error_or_the_default() {
        let mut metric = regex(r"lost (\d+)", Pick::Last);
        assert!(matches!(take("m", &metric, "x"), Err(MetricError::NoMatch { .. })));
        metric.default = Some(0.0);
        assert_eq!(take("m", &metric, "x"), Ok(0.0));
        assert_eq!(take("m", &regex("y", Pick::Count), "x"), Ok(0.0));
        // A default does not hide a wrong pattern or a wrong value.
        metric.take = regex("(", Pick::Last).take;
        assert!(matches!(take("m", &metric, "x"), Err(MetricError::Pattern { .. })));
        metric.take = regex("lost (.*)", Pick::Last).take;
        assert!(matches!(take("m", &metric, "lost many"), Err(MetricError::NotANumber { .. })));
        assert!(matches!(take("m", &metric, "lost inf"), Err(MetricError::NotANumber { .. })));
    }

    #[test]
    fn json_pointers() {
        let output = "\n{\"end\": {\"sum\": {\"lost\": 3, \"rate\": \"1.5\", \"list\": [1]}}}\n";
        assert_eq!(take("m", &pointer("/end/sum/lost"), output), Ok(3.0));
        assert_eq!(take("m", &pointer("/end/sum/rate"), output), Ok(1.5));
        assert_eq!(take("m", &pointer("/end/sum/list/0"), output), Ok(1.0));
        let errors = [("/end/x", output), ("/end", output), ("/end", "oops {}")];
        for (path, output) in errors {
            assert!(take("m", &pointer(path), output).is_err(), "{path} in {output}");
        }
    }
}
