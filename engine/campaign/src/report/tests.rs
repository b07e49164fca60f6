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
    let store = made_up(directory, &plan, &|point, replicate| {
        // The fractional parts of multiples of the golden ratio: spread, and the same each time.
        let noise = (f64::from(replicate) * 0.618_034 + point as f64 * 0.414).fract();
        points[point]["a"].as_f64().unwrap() + noise
    });
    (store, plan)
}

/// All runs of a plan, with an `rtt` that is made up for each point and replicate.
pub(super) fn made_up(directory: &Path, plan: &Plan, rtt: &dyn Fn(usize, u32) -> f64) -> Store {
    let points = design::points(plan).unwrap();
    let mut store = Store::create(directory, plan, "digest", &points, "now").unwrap();
    let session = store.begin_session("2026-01-01T00:00:00Z", &["t".to_owned()], 1).unwrap();
    for replicate in 0..plan.replicates {
        for point in 0..points.len() {
            let results = serde_json::json!({
                "schema": 1, "name": "net", "verdict": {"state": "valid", "reasons": []},
                "outcome": "passed", "errors": [], "nodes": [], "tasks": [], "expectations": [],
                "metrics": {"rtt": {"value": rtt(point, replicate), "unit": "ms"}, "flat": {"value": 2.0, "unit": ""}},
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
    store
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
    assert_eq!(axis::short(40_000.0, 3), "40k");
    assert_eq!(text::seconds_of("1970-01-01T00:00:10Z"), Some(10.0));
}

/// Ends differ by two digits, and the mean has their last place and lies between them.
#[test]
fn intervals_contain_their_mean_as_written() {
    let between = |low, high| Some(crate::stats::interval::Interval { low, high });
    for (mean, low, high, expected) in [
        (180_010.2, 180_003.4, 180_017.0, "180010 [180003, 180017]"),
        (0.123_456_7, 0.123_446, 0.123_467, "0.123457 [0.123446, 0.123467]"),
        (1_234_567.0, 1_200_000.0, 1_270_000.0, "1235000 [1200000, 1270000]"),
        (-0.02, -0.31, 0.27, "−0.02 [−0.31, 0.27]"),
        (1.5, 0.999_6, 2.0, "1.5 [1.0, 2.0]"),
        (3.2e-7, 3e-7, 3.4e-7, "3.2e-7 [3e-7, 3.4e-7]"),
        (0.0, -1e9, 1e9, "0 [−1000000000, 1000000000]"),
        (2.0, 2.0, 2.0, "2 [2, 2]"),
    ] {
        let place = text::Place::of(&[between(low, high), None]);
        let written = format!("{} {}", place.number(mean, 5), place.range(between(low, high)));
        assert_eq!(written, expected);
    }
    let directory = tempfile::tempdir().unwrap();
    let mut plan = plan(&[("a", list(&[1, 2]))], Design::FullFactorial);
    plan.replicates = 10;
    let rtt = |point: usize, replicate: u32| 180_000.0 + point as f64 * 10.0 + f64::from(replicate);
    let store = made_up(directory.path(), &plan, &rtt);
    let written = write(&store, &plan, directory.path(), directory.path(), "x").unwrap();
    let report = fs::read_to_string(written.markdown).unwrap();
    // t(9) · 3.0277 / √10 = 2.17.
    assert!(report.contains("| 180004.5 | \\[180002.3, 180006.7\\] |"), "{report}");
    // Welch by hand: 10 ± t(18) · √(2 · 3.0277² / 10) = 10 ± 2.84.
    assert!(report.contains("| +10.0 (+0.005555 %) | \\[7.2, 12.8\\] |"), "{report}");
}

/// What is on the pictures: units, measured levels on logarithmic axes, names beside the data.
#[test]
fn figures_say_what_they_show() {
    let place = tempfile::tempdir().unwrap();
    let levels = |texts: &[&str]| {
        let text = |text: &&str| tapestry_topologies::expression::Value::Text((*text).to_owned());
        tapestry_topologies::plan::Levels::List(texts.iter().map(text).collect())
    };
    let mut plan = plan(
        &[("rate", levels(&["10Mbit/s", "500kbit/s", "1Gbit/s"])), ("kind", levels(&["2x", "1"]))],
        Design::FullFactorial,
    );
    plan.replicates = 3;
    let rtt = |point: usize, replicate: u32| point as f64 * 10.0 + f64::from(replicate);
    let store = made_up(place.path(), &plan, &rtt);
    let data = Data::read(&store, &plan, place.path(), "x").unwrap();
    let order = |factor: &str| -> Vec<String> {
        data.factors[factor].iter().map(ToString::to_string).collect()
    };
    assert_eq!(order("rate"), ["500kbit/s", "10Mbit/s", "1Gbit/s"]);
    assert_eq!(order("kind"), ["2x", "1"], "categories stay in their order");
    assert_eq!((data.x_factor(), data.series_factor()), (Some("rate"), Some("kind")));
    let figures = figures::all(&data).unwrap();
    let texts = |id: &str| -> Vec<String> {
        let figure = figures.iter().find(|figure| figure.id == id).unwrap();
        let texts = figure.svg.split("<text").skip(1);
        let content = |text: &str| {
            let inner = text.split('>').nth(1).unwrap_or_default();
            inner.split('<').next().unwrap_or_default().trim().to_owned()
        };
        texts.map(content).collect()
    };
    let has = |id: &str, wanted: &[&str]| {
        let found = texts(id);
        for text in wanted {
            assert!(found.iter().any(|known| known == text), "no {text:?} on {id}: {found:?}");
        }
    };
    has("xy-rtt", &["rate, bit/s", "rtt, ms", "500k", "10M", "1G", "kind 2x"]);
    has("heat-rtt", &["rtt in ms by rate and kind", "ms", "500kbit/s", "1Gbit/s"]);
    has("time-rtt", &["time since the start, s"]);
    let svg = |data: &Data| figures::all(data).unwrap().remove(0).svg;
    let joined = svg(&data);
    let mut drawn = data;
    drawn.plan.design = Design::LatinHypercube(6);
    assert!(joined.contains("<polygon") && !svg(&drawn).contains("<polygon"));
}

/// What is sure leads; of two runs nothing is said.
#[test]
fn effects_that_are_sure_lead() {
    let place = tempfile::tempdir().unwrap();
    let found = |replicates: u32| {
        let directory = place.path().join(replicates.to_string());
        fs::create_dir(&directory).unwrap();
        let mut plan = plan(&[("a", list(&[1, 2])), ("b", list(&[1, 2]))], Design::FullFactorial);
        plan.replicates = replicates;
        plan.report.compare = Some("a".to_owned());
        // At b=1 all of a=2 are above, at b=2 most.
        let rtt = |point: usize, replicate: u32| match point {
            2 => 100.0 + f64::from(replicate),
            3 => f64::from(replicate) + 0.5,
            _ => f64::from(replicate),
        };
        let store = made_up(&directory, &plan, &rtt);
        let data = Data::read(&store, &plan, &directory, "x").unwrap();
        let found = analysis::comparisons(&data);
        let written = write(&store, &plan, &directory, &directory, "x").unwrap();
        (found, fs::read_to_string(written.markdown).unwrap())
    };
    let (many, _) = found(10);
    assert_eq!(many[0].at, "b=1");
    let interval = many[0].delta.unwrap().interval;
    assert!(many[0].is_sure() && interval.low > 0.4 && interval.low < 0.5, "{interval:?}");
    assert!(!many[1].is_sure());
    let (three, _) = found(3);
    assert!(three.iter().all(|c| c.has_enough() && !c.is_sure()), "the sign is open: {three:?}");
    let (two, words) = found(2);
    assert!(two.iter().all(|c| !c.has_enough()) && words.contains("n too small"), "{words}");
}

#[test]
fn a_campaign_that_is_not_complete_says_so() {
    let place = tempfile::tempdir().unwrap();
    let (store, plan) = campaign(place.path(), 3);
    let of = |store: &Store| {
        let plan = store.plan().unwrap();
        let written = write(store, &plan, place.path(), place.path(), "x").unwrap();
        fs::read_to_string(written.markdown).unwrap()
    };
    assert!(!of(&store).contains("not complete"));
    let other = tempfile::tempdir().unwrap();
    let larger = Plan { replicates: 5, ..plan.clone() };
    let points = design::points(&larger).unwrap();
    let mut store = Store::create(other.path(), &larger, "digest", &points, "now").unwrap();
    let session = store.begin_session("2026-01-01T00:00:00Z", &["t".to_owned()], 1).unwrap();
    let late = Ended {
        ending: Ending::TimedOut(Some("load".to_owned())),
        results: None,
        lasted: Duration::from_secs(4),
    };
    let job = Job { purpose: Purpose::Measure, point: 2, replicate: 0, attempt: 0 };
    store
        .record(&Record {
            session,
            job,
            seed: 1,
            state: State::TimedOut,
            started: SystemTime::UNIX_EPOCH,
            beside: 0,
            directory: None,
            ended: &late,
        })
        .unwrap();
    let report = of(&store);
    for part in [
        "29 of the 30 planned are still to be made",
        "No run counts",
        "in task load when the time limit ended it",
    ] {
        assert!(report.contains(part), "no {part} in {report}");
    }
}
