use std::time::{Duration, SystemTime};

use tapestry_topologies::plan::Design;

use super::*;
use crate::design::tests::{list, plan};
use crate::design::{self, Job, Purpose};
use crate::store::{Record, State};
use tapestry_lab::execution::{Ended, Ending};

/// A campaign of two factors, made up: `rtt` grows with `a`, `flat` never changes.
fn campaign(directory: &Path, replicates: u32) -> (Store, Plan) {
    let mut plan = plan(&[("a", list(&[1, 2, 300])), ("b", list(&[0, 1]))], Design::FullFactorial);
    plan.replicates = replicates;
    plan.description = "Words <with> & a \"sting\" | in them".to_owned();
    let points = design::points(&plan).unwrap();
    let mut store = Store::create(directory, &plan, "digest", &points, "now").unwrap();
    let session = store.begin_session("2026-01-01T00:00:00Z", &["t".to_owned()], 1).unwrap();
    for replicate in 0..replicates {
        for (point, settings) in points.iter().enumerate() {
            let a = settings["a"].as_f64().unwrap();
            // The fractional parts of multiples of the golden ratio: spread, and the same each time.
            let noise = (f64::from(replicate) * 0.618_034 + point as f64 * 0.414).fract();
            let results = serde_json::json!({
                "schema": 1, "name": "net", "verdict": {"state": "valid", "reasons": []},
                "outcome": "passed", "errors": [], "nodes": [], "tasks": [], "expectations": [],
                "metrics": {"rtt": {"value": a + noise, "unit": "ms"}, "flat": {"value": 2.0, "unit": ""}},
                "links": [], "notices": [], "lateness": null, "host": null,
                "wall": {"ready_seconds": 0.1, "total_seconds": 0.7}
            });
            let ended = Ended {
                ending: Ending::Completed,
                results: Some(serde_json::from_value(results).unwrap()),
                lasted: Duration::from_millis(700),
            };
            store
                .record(&Record {
                    session,
                    job: Job { purpose: Purpose::Measure, point, replicate, attempt: 0 },
                    seed: 1,
                    state: State::Counted,
                    started: SystemTime::UNIX_EPOCH + Duration::from_secs(u64::from(replicate)),
                    beside: 0,
                    directory: None,
                    ended: &ended,
                })
                .unwrap();
        }
    }
    (store, plan)
}

#[test]
fn a_report_is_whole_and_needs_no_other_file() {
    let place = tempfile::tempdir().unwrap();
    let (store, plan) = campaign(place.path(), 12);
    let written = write(&store, &plan, place.path(), place.path(), "my plan.yaml").unwrap();
    assert_eq!(written.figures, 4, "one of each kind for the one metric that varies");
    let html = fs::read_to_string(&written.html).unwrap();
    for part in [
        "Words &lt;with&gt; &amp; a &quot;sting&quot;",
        "72 runs count",
        "Effect of b (against b=0)",
        "tapestry campaign report 'my plan.yaml' --figure xy-rtt --output xy-rtt.svg",
        "flat = 2",
        "<svg",
    ] {
        assert!(html.contains(part), "{part} is missing");
    }
    for outside in ["src=", "href=", "@import", "url("] {
        assert!(!html.contains(outside), "{outside} leads outside");
    }
    let markdown = fs::read_to_string(&written.markdown).unwrap();
    assert!(markdown.contains("](figures/heat-rtt.svg)") && markdown.contains("\\| in them"));
    for kind in ["xy", "box", "heat", "time"] {
        let file = |ending| place.path().join(format!("figures/{kind}-rtt.{ending}"));
        assert!(fs::read_to_string(file("svg")).unwrap().contains("rtt"));
        let png = fs::read(file("png")).unwrap();
        assert_eq!(&png[..8], b"\x89PNG\r\n\x1a\n");
    }
}

/// Letters are drawn, not left out for want of a font: the same picture without its texts differs.
#[test]
fn pictures_have_their_words() {
    let place = tempfile::tempdir().unwrap();
    let (store, plan) = campaign(place.path(), 3);
    let data = Data::read(&store, &plan, place.path(), "x").unwrap();
    let figure = figures::all(&data).unwrap().remove(0);
    let mut mute = figure.clone();
    while let (Some(from), Some(to)) = (mute.svg.find("<text"), mute.svg.find("</text>")) {
        mute.svg.replace_range(from..to + "</text>".len(), "");
    }
    assert!(png::encode(&figure).unwrap().len() > png::encode(&mute).unwrap().len() + 1000);
}

#[test]
fn effects_are_those_of_the_made_up_numbers() {
    let place = tempfile::tempdir().unwrap();
    let (store, mut plan) = campaign(place.path(), 20);
    plan.report.compare = Some("a".to_owned());
    let data = Data::read(&store, &plan, place.path(), "x").unwrap();
    let found = analysis::comparisons(&data);
    assert_eq!(found.len(), 4, "two levels beside the first, at two levels of b");
    for comparison in &found {
        let level: f64 = comparison.level.parse().unwrap();
        assert!((comparison.difference - (level - 1.0)).abs() < 0.3, "{comparison:?}");
        assert!((comparison.delta.unwrap().size - 1.0).abs() < 1e-9);
        let interval = comparison.interval.unwrap();
        assert!(interval.low < comparison.difference && comparison.difference < interval.high);
        let p = comparison.p.unwrap();
        assert!(p.p < 1e-5 && p.holm >= p.benjamini_hochberg && p.benjamini_hochberg >= p.p);
    }
    let trends = analysis::trends(&data);
    let tau = |factor: &str| trends.iter().find(|trend| trend.factor == factor).unwrap().tau;
    assert!(tau("a") > 0.7 && tau("b").abs() < 0.3);
}

#[test]
fn what_cannot_be_reported_is_said() {
    let place = tempfile::tempdir().unwrap();
    let (store, mut plan) = campaign(place.path(), 3);
    let wrong = write_figure(&store, &plan, place.path(), "xy-rt", &place.path().join("a.svg"));
    assert!(wrong.unwrap_err().to_string().contains("xy-rtt"));
    let wrong = write_figure(&store, &plan, place.path(), "xy-rtt", &place.path().join("a.gif"));
    assert!(matches!(wrong, Err(ReportError::NoFormat { .. })));
    plan.report.metrics = vec!["jitter".to_owned()];
    let wrong = write(&store, &plan, place.path(), place.path(), "x").unwrap_err();
    assert!(matches!(&wrong, ReportError::NoMetric { metric, .. } if metric == "jitter"));
    assert!(wrong.to_string().contains("rtt"), "{wrong}");
    let empty = tempfile::tempdir().unwrap();
    let (store, plan) = campaign(empty.path(), 0);
    let wrong = write(&store, &plan, empty.path(), empty.path(), "x").unwrap_err();
    assert!(matches!(wrong, ReportError::NoRuns { .. }));
}

#[test]
fn numbers_are_written_for_people() {
    for (value, digits, expected) in [
        (0.0, 3, "0"),
        (1234.5678, 3, "1230"),
        (0.012_345, 3, "0.0123"),
        (-2.5, 3, "−2.5"),
        (1e-9, 2, "1e-9"),
        (f64::NAN, 3, "–"),
    ] {
        assert_eq!(text::number(value, digits), expected);
    }
    assert_eq!(plot::short(40_000.0), "40k");
    assert_eq!(text::word("it's"), "'it'\\''s'");
    assert_eq!(text::seconds_of("1970-01-01T00:00:10Z"), Some(10.0));
}
