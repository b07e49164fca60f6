//! Results of a suite for programs: JUnit XML, TAP and JSON.
//!
//! Reference: the JUnit schema of Jenkins as quick-junit writes it; TAP version 13, testanything.org.

use std::fmt::Write;
use std::time::Duration;

use quick_junit::{NonSuccessKind, Report, TestCase, TestCaseStatus, TestSuite};

use super::{Shown, Tested};

/// JUnit XML. What is inconclusive is an error there, not a failure.
pub fn junit(name: &str, tested: &[Tested]) -> Result<String, quick_junit::SerializeError> {
    let mut suite = TestSuite::new(name);
    for test in tested {
        let mut status = match test.outcome {
            Shown::Passed => TestCaseStatus::success(),
            Shown::Failed => TestCaseStatus::non_success(NonSuccessKind::Failure),
            Shown::Inconclusive => TestCaseStatus::non_success(NonSuccessKind::Error),
            Shown::NotRun => TestCaseStatus::skipped(),
        };
        if matches!(test.outcome, Shown::Failed | Shown::Inconclusive) {
            let first = test.report.lines().next().unwrap_or_default().to_owned();
            status.set_message(first).set_description(test.report.clone());
        }
        let mut case = TestCase::new(test.name.clone(), status);
        case.set_classname(name).set_time(Duration::from_secs_f64(test.seconds.max(0.0)));
        for (metric, value, unit) in &test.metrics {
            let unit = if unit.is_empty() { String::new() } else { format!(" ({unit})") };
            case.add_property((format!("{metric}{unit}"), value.to_string()));
        }
        suite.add_test_case(case);
    }
    let mut report = Report::new(name);
    report.add_test_suite(suite);
    report.to_string()
}

/// TAP, version 13; the report of a test that did not pass is its YAML block.
pub fn tap(tested: &[Tested]) -> String {
    let mut out = format!("TAP version 13\n1..{}\n", tested.len());
    for (number, test) in (1..).zip(tested) {
        // `#` would begin a directive.
        let name = test.name.replace('#', "_");
        // `# TODO` and `# SKIP` would count as passed.
        let word = match test.outcome {
            Shown::Passed => "ok",
            Shown::Failed | Shown::Inconclusive => "not ok",
            Shown::NotRun => continue,
        };
        let _ = writeln!(out, "{word} {number} - {name}");
        if test.outcome == Shown::Inconclusive {
            out.push_str("# inconclusive: the run cannot be trusted\n");
        }
        if !test.report.is_empty() {
            let severity =
                if test.outcome == Shown::Inconclusive { "inconclusive" } else { "fail" };
            let _ = write!(out, "  ---\n  severity: {severity}\n  message: |\n");
            for line in test.report.lines() {
                let _ = writeln!(out, "    {line}");
            }
            out.push_str("  ...\n");
        }
    }
    if tested.iter().any(|test| test.outcome == Shown::NotRun) {
        out.push_str("Bail out! The suite was ended before all scenarios had run\n");
    }
    out
}

/// JSON: a list of [`Tested`].
pub fn json(tested: &[Tested]) -> Result<String, serde_json::Error> {
    serde_json::to_string_pretty(tested)
}
