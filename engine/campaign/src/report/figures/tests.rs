use super::super::analysis;
use super::super::tests::made_up;
use super::*;
use crate::design::tests::plan;
use tapestry_topologies::expression::Value;
use tapestry_topologies::plan::Levels;

/// Levels in no order: `0.1` times 0, 5, 3, 1, 6, ….
fn shuffled(count: i64) -> Levels {
    Levels::List((0..count).map(|at| Value::Float((at * 5 % count) as f64 * 0.1)).collect())
}

/// Values are found by the places of levels; a scan over all points finds the same.
#[test]
fn levels_and_baselines_are_those_of_a_scan() {
    let place = tempfile::tempdir().unwrap();
    let mut plan =
        plan(&[("a", shuffled(7)), ("b", shuffled(4)), ("c", shuffled(3))], Design::FullFactorial);
    plan.replicates = 2;
    plan.report.compare = Some("b".to_owned());
    let rtt = |point: usize, replicate: u32| ((point * 37) % 101) as f64 + f64::from(replicate);
    let store = made_up(place.path(), &plan, &rtt);
    let data = Data::read(&store, &plan, place.path(), "x").unwrap();
    let samples = &data.metrics["rtt"];
    let scan = |wanted: &[(&str, &Value)]| -> Vec<f64> {
        let fits = |at: &usize| wanted.iter().all(|(f, level)| data.points[*at][*f] == **level);
        (0..data.points.len()).filter(fits).flat_map(|at| samples.points[at].clone()).collect()
    };
    let (by_a, by_a_c) = (by_level(&data, samples, "a"), by_levels(&data, samples, "a", "c"));
    assert_eq!((by_a.len(), by_a_c.len()), (7, 21));
    for (i, a) in data.factors["a"].iter().enumerate() {
        assert!(number(a) >= i as f64 * 0.1 - 1e-9, "levels are in order");
        assert_eq!(by_a[i], scan(&[("a", a)]));
        for (j, c) in data.factors["c"].iter().enumerate() {
            assert_eq!(by_a_c[&(i, j)], scan(&[("a", a), ("c", c)]));
        }
    }
    let found = analysis::comparisons(&data);
    assert_eq!(found.len(), 7 * 3 * 3);
    for comparison in found {
        let point = |b: &Value| {
            let same = |at: &usize| {
                let settings = &data.points[*at];
                let (a, c) = (&settings["a"], &settings["c"]);
                let (a, c) = (data.word("a", a), data.word("c", c));
                settings["b"] == *b && comparison.at == format!("a={a} c={c}")
            };
            let at = (0..data.points.len()).find(same).unwrap();
            describe::mean(&samples.points[at]).unwrap()
        };
        let level =
            data.factors["b"].iter().find(|b| data.word("b", b) == comparison.level).unwrap();
        let baseline = point(&data.factors["b"][0]);
        assert!((comparison.baseline_mean - baseline).abs() < 1e-9);
        assert!((comparison.difference - (point(level) - baseline)).abs() < 1e-9);
    }
}

/// More runs than dots: medians and a band over even time, and the caption says so.
#[test]
fn the_course_of_many_runs_is_a_band_over_even_time() {
    let place = tempfile::tempdir().unwrap();
    let mut plan = plan(&[("a", shuffled(2))], Design::FullFactorial);
    plan.replicates = 3;
    let store = made_up(place.path(), &plan, &|_, replicate| f64::from(replicate));
    let mut data = Data::read(&store, &plan, place.path(), "x").unwrap();
    let few = course(&data, "rtt", &data.metrics["rtt"]).unwrap();
    assert!(few.2.starts_with("rtt of each run against its start"), "{}", few.2);
    // One run a second, more than half an hour long.
    let first = data.runs.remove(0);
    data.runs = (0..2_000_u64)
        .map(|at| {
            let started = SystemTime::UNIX_EPOCH + Duration::from_secs(at);
            crate::store::Run { started: tapestry_lab::rundir::rfc3339(started), ..first.clone() }
        })
        .collect();
    let values = (0..2_000).map(|at| (at, (at % 7) as f64)).collect();
    let samples = Samples { course: values, ..Samples::default() };
    let (_, _, caption, drawn) = course(&data, "rtt", &samples).unwrap();
    for part in ["Median of rtt", "5th to its 95th percentile", "each 10 runs"] {
        assert!(caption.contains(part), "no {part:?} in {caption}");
    }
    let svg = drawn.unwrap();
    assert!(svg.contains("<polygon"), "a band");
    // Even time has numbers at even distances, which marks of decades are not.
    for number in ["600", "1400", "1800"] {
        assert!(svg.lines().any(|line| line.trim() == number), "no {number} on {svg}");
    }
}

/// Fractions that were computed are written shortly, and as long as needed where levels are near.
#[test]
fn levels_are_written_shortly_but_differ() {
    let place = tempfile::tempdir().unwrap();
    let near = [1.0, 1.000_000_01].map(Value::Float).to_vec();
    let plan = plan(&[("f", shuffled(7)), ("g", Levels::List(near))], Design::FullFactorial);
    let store = made_up(place.path(), &plan, &|point, _| point as f64);
    let data = Data::read(&store, &plan, place.path(), "x").unwrap();
    let third = Value::Float(3.0 * 0.1);
    assert_eq!(third.to_string(), "0.30000000000000004");
    assert_eq!(data.word("f", &third), "0.3");
    assert_ne!(data.words("g")[0], data.words("g")[1]);
    let labels: Vec<String> = (0..data.points.len()).map(|at| data.label(at)).collect();
    assert!(labels.iter().any(|label| label.starts_with("f=0.3 g=1")), "{labels:?}");
}

/// Upright names end within the picture; what has no room has an ellipsis.
#[test]
fn names_below_boxes_are_within_the_picture() {
    let five = describe::five_numbers(&[1.0, 2.0, 3.0]).unwrap();
    let drawn = |name: &str| {
        let groups: Vec<_> = (0..24).map(|at| (format!("{at:02}{name}"), five.clone())).collect();
        plot::boxes(Words { title: "t", x: "", y: "y" }, &groups).unwrap()
    };
    for (name, is_whole) in [(" a=1 f=0.300000001 g=7", true), (&"long".repeat(40)[..], false)] {
        let svg = drawn(name);
        let texts: Vec<&str> =
            svg.split("<text").filter(|text| text.contains("rotate(90")).collect();
        assert_eq!(texts.len(), 24);
        for text in texts {
            let top: f64 =
                text.split("y=\"").nth(1).unwrap().split('"').next().unwrap().parse().unwrap();
            let words = text.split('>').nth(1).unwrap().split('<').next().unwrap().trim();
            // Six units a letter: more than this font has on average.
            let bottom = top + 6.0 * words.chars().count() as f64;
            assert!(bottom < 460.0, "{words:?} ends at {bottom}");
            assert_eq!((words.ends_with(name), words.contains('…')), (is_whole, !is_whole));
        }
    }
}
