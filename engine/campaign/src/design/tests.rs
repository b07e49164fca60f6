use std::collections::BTreeSet;
use std::path::PathBuf;

use indexmap::IndexMap;
use proptest::prelude::*;
use tapestry_core::SimTime;
use tapestry_topologies::plan::{Keep, Levels, Range, ReportOptions, Time};

use super::*;

/// A plan with these factors and nothing else of interest.
pub(crate) fn plan(factors: &[(&str, Levels)], design: Design) -> Plan {
    Plan {
        name: "test".to_owned(),
        description: String::new(),
        topology: PathBuf::from("net.yaml"),
        time: Time::Virtual,
        params: IndexMap::new(),
        factors: factors.iter().map(|(n, levels)| ((*n).to_owned(), levels.clone())).collect(),
        design,
        replicates: 1,
        stop: None,
        order: Order::Randomised,
        warm_up: 0,
        seed: 1,
        time_limit: SimTime::from_secs(60),
        retries: 2,
        keep: Keep::None,
        load: None,
        report: ReportOptions {
            metrics: Vec::new(),
            x: None,
            series: None,
            compare: None,
            baseline: None,
            confidence: 0.95,
        },
    }
}

pub(crate) fn list(levels: &[i64]) -> Levels {
    Levels::List(levels.iter().map(|level| Value::Int(*level)).collect())
}

fn range(from: f64, to: f64, count: u32) -> Range {
    Range { from, to, count, log: false, whole: false, digits: 10, unit: String::new() }
}

fn described(plan: &Plan) -> Vec<String> {
    points(plan).unwrap().iter().map(describe).collect()
}

#[test]
fn every_level_meets_every_other() {
    let plan = plan(&[("a", list(&[1, 2])), ("b", list(&[3, 4, 5]))], Design::FullFactorial);
    let expected = ["a=1 b=3", "a=1 b=4", "a=1 b=5", "a=2 b=3", "a=2 b=4", "a=2 b=5"];
    assert_eq!(described(&plan), expected);
}

#[test]
fn paired_levels_go_together() {
    let plan = plan(&[("a", list(&[1, 2])), ("b", list(&[3, 3]))], Design::Paired);
    assert_eq!(described(&plan), ["a=1 b=3", "a=2 b=3"]);
}

#[test]
fn a_plan_without_factors_has_one_point() {
    assert_eq!(described(&plan(&[], Design::FullFactorial)), ["-"]);
}

#[test]
fn ranges_have_the_levels_one_would_write() {
    let text = |range: Range| -> Vec<String> {
        Levels::Range(range).all().iter().map(ToString::to_string).collect()
    };
    assert_eq!(text(range(1.0, 3.0, 3)), ["1", "2", "3"]);
    assert_eq!(text(range(0.1, 0.3, 3)), ["0.1", "0.2", "0.3"], "no 0.30000000000000004");
    let log = Range { log: true, ..range(1.0, 1000.0, 4) };
    assert_eq!(text(log.clone()), ["1", "10", "100", "1000"]);
    let unit = Range { unit: "Mbit/s".to_owned(), ..log };
    assert_eq!(text(unit)[1], "10Mbit/s");
    let whole = Range { whole: true, log: true, ..range(1.0, 4.0, 8) };
    assert_eq!(text(whole), ["1", "2", "3", "4"], "equal neighbours are one level");
    assert_eq!(text(range(5.0, 5.0, 1)), ["5"]);
}

#[test]
fn what_rounding_makes_equal_is_said() {
    let whole = Range { whole: true, log: true, ..range(1.0, 4.0, 8) };
    let few = plan(&[("a", Levels::Range(whole.clone()))], Design::FullFactorial);
    let said = merged(&few, 4);
    assert!(said.len() == 1 && said[0].contains("`a`: rounding makes 8 levels 4"), "{said:?}");
    let fine = plan(&[("a", Levels::Range(range(1.0, 4.0, 4)))], Design::FullFactorial);
    assert!(merged(&fine, 4).is_empty());
    let drawn = plan(&[("a", Levels::Range(whole))], Design::LatinHypercube(20));
    let count = points(&drawn).unwrap().len();
    assert!(count <= 4);
    let said = merged(&drawn, count);
    assert!(said[0].contains(&format!("{} of 20 drawn points", 20 - count)), "{said:?}");
}

#[test]
fn too_many_and_doubled_points_are_refused() {
    let mut many = plan(
        &[("a", Levels::Range(range(0.0, 1.0, 1000))), ("b", Levels::Range(range(0.0, 1.0, 1000)))],
        Design::FullFactorial,
    );
    many.replicates = 2;
    assert_eq!(points(&many), Err(DesignError::TooMany { points: 1_000_000, replicates: 2 }));
    let twice = plan(&[("a", list(&[1, 2, 1]))], Design::FullFactorial);
    assert_eq!(points(&twice), Err(DesignError::Twice("a=1".to_owned())));
}

#[test]
fn levels_that_mean_the_same_are_refused() {
    let texts =
        |texts: &[&str]| Levels::List(texts.iter().map(|t| Value::Text((*t).into())).collect());
    for levels in [["1ms", "1000us"], ["10%", "10.0%"], ["1Mbit/s", "1000kbit/s"]] {
        let refused = points(&plan(&[("f", texts(&levels))], Design::FullFactorial)).unwrap_err();
        let said = refused.to_string();
        assert!(levels.iter().all(|level| said.contains(level)) && said.contains("`f`"), "{said}");
    }
    let words = plan(&[("f", texts(&["1ms", "drop-tail"]))], Design::FullFactorial);
    assert_eq!(points(&words).unwrap().len(), 2);
    let paired = plan(&[("f", texts(&["1ms", "1ms"])), ("g", list(&[1, 2]))], Design::Paired);
    assert_eq!(points(&paired).unwrap().len(), 2, "paired levels may come again");
}

#[test]
fn each_block_has_an_order_of_its_own() {
    let plan = plan(&[("a", list(&[1]))], Design::FullFactorial);
    let orders: Vec<Vec<usize>> = (0..3).map(|block| order(&plan, 20, block)).collect();
    assert!(orders[0] != orders[1] && orders[1] != orders[2]);
    for order in &orders {
        assert_eq!(order.iter().copied().collect::<BTreeSet<_>>(), (0..20).collect());
    }
    assert_eq!(orders[0], order(&plan, 20, 0), "the same plan gives the same order");
    let given = Plan { order: Order::AsGiven, ..plan };
    assert_eq!(order(&given, 4, 7), [0, 1, 2, 3]);
}

fn seed_of(plan: &Plan, purpose: Purpose, point: usize, replicate: u32, attempt: u32) -> u64 {
    seed(plan, Job { purpose, point, replicate, attempt })
}

/// Drawn once; a difference means that campaigns can no longer be repeated or gone on with.
#[test]
fn orders_and_seeds_never_change() {
    let plan = plan(&[("a", list(&[1]))], Design::FullFactorial);
    assert_eq!(order(&plan, 8, 0), GOLDEN_ORDER);
    assert_eq!(seed_of(&plan, Purpose::Measure, 3, 4, 0), GOLDEN_SEED);
}
const GOLDEN_ORDER: [usize; 8] = [4, 5, 7, 2, 0, 1, 3, 6];
const GOLDEN_SEED: u64 = 8_999_818_471_530_247_738;

#[test]
fn seeds_differ_in_every_part() {
    let plan = plan(&[], Design::FullFactorial);
    let other = Plan { seed: 2, ..plan.clone() };
    let seeds = [
        seed_of(&plan, Purpose::Measure, 0, 0, 0),
        seed_of(&plan, Purpose::Measure, 1, 0, 0),
        seed_of(&plan, Purpose::Measure, 0, 1, 0),
        seed_of(&plan, Purpose::Measure, 0, 0, 1),
        seed_of(&plan, Purpose::WarmUp, 0, 0, 0),
        seed_of(&other, Purpose::Measure, 0, 0, 0),
    ];
    assert_eq!(seeds.iter().collect::<BTreeSet<_>>().len(), seeds.len());
    assert!(seeds.iter().all(|seed| i64::try_from(*seed).is_ok()));
}

proptest! {
    /// Each of N strata of each factor is hit exactly once.
    #[test]
    fn a_latin_hypercube_hits_every_stratum_once(count in 1..60_u32, seed in 0..1000_u64) {
        let unit = Levels::Range(range(0.0, 1.0, 0));
        let mut plan =
            plan(&[("a", unit.clone()), ("b", unit)], Design::LatinHypercube(count));
        plan.seed = seed;
        let points = points(&plan).unwrap();
        prop_assert_eq!(points.len(), count as usize);
        for factor in ["a", "b"] {
            let strata: BTreeSet<u32> = points
                .iter()
                .map(|point| (point[factor].as_f64().unwrap() * f64::from(count)) as u32)
                .collect();
            prop_assert_eq!(strata.len(), count as usize);
        }
    }
}
