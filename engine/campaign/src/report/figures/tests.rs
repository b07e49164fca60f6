use super::super::analysis;
use super::super::tests::made_up;
use super::*;
use crate::design::tests::plan;
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
                settings["b"] == *b && comparison.at == format!("a={a} c={c}")
            };
            let at = (0..data.points.len()).find(same).unwrap();
            describe::mean(&samples.points[at]).unwrap()
        };
        let level = data.factors["b"].iter().find(|b| b.to_string() == comparison.level).unwrap();
        let baseline = point(&data.factors["b"][0]);
        assert!((comparison.baseline_mean - baseline).abs() < 1e-9);
        assert!((comparison.difference - (point(level) - baseline)).abs() < 1e-9);
    }
}
