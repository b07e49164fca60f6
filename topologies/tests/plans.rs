//! Plan files: what they mean, and what is wrong with them, all at once and with its place.

use std::path::{Path, PathBuf};

use serde_json::Value as Json;
use tapestry_topologies::plan::{Design, Keep, Order, Plan, Settings, Time, setting};
use tapestry_topologies::{Diagnostics, plan_schema};

const NET: &str = "\
params: { nodes: 3, kind: host, rate: 10Mbit/s, loss: 0.5, traced: false, delay: 1ms }
nodes: { \"n[0-${nodes-1}]\": { kind: \"${kind}\" } }
links: [{ lan: \"n[0-${nodes-1}]\", rate: \"${rate}\", delay: \"${delay}\", ipv4: 10.0.0.0/24 }]
tasks: [{ name: t, run: { n0: ping n1 }, metrics: { rtt: { regex: '(\\d+)' } } }]
metrics: { twice: \"${rtt * 2}\" }
";

struct Place(tempfile::TempDir);

impl Place {
    fn new(plan: &str) -> Self {
        let place = Self(tempfile::tempdir().unwrap());
        std::fs::write(place.0.path().join("net.yaml"), NET).unwrap();
        std::fs::write(place.plan(), plan).unwrap();
        place
    }

    fn plan(&self) -> PathBuf {
        self.0.path().join("my-plan.yaml")
    }
}

fn load_plan(path: &Path) -> Result<Plan, Diagnostics> {
    let first = |plan: &Plan| -> Option<Settings> {
        Some(plan.factors.iter().map(|(name, levels)| (name.clone(), levels.at(0.0))).collect())
    };
    tapestry_topologies::plan::load_plan(path, &first)
}

fn load(plan: &str) -> Result<tapestry_topologies::plan::Plan, Diagnostics> {
    load_plan(&Place::new(plan).plan())
}

/// `line text: message` of everything that is wrong.
fn wrong(plan: &str) -> Vec<String> {
    let diagnostics = load(plan).expect_err(plan);
    let said = |problem: &tapestry_topologies::Problem| match &problem.place {
        Some(place) => format!("{} {:?}: {}", place.line, place.text, problem.message),
        None => problem.message.clone(),
    };
    diagnostics.problems().iter().map(said).collect()
}

#[test]
fn a_whole_plan() {
    let plan = load(
        "name: example
description: words
topology: net.yaml
time: virtual
params: { loss: 1 }
factors:
  nodes: [2, 4]
  rate: { from: 1, to: 100, count: 3, scale: log, unit: Mbit/s }
design: full-factorial
replicates: 10
stop: { metric: rtt, width: 5%, confidence: 99%, at_least: 4 }
order: as-given
warm_up: 1
seed: 7
time_limit: 30s
retries: 1
keep: all
load: ${nodes * 100}
report: { metrics: [rtt, twice], x: nodes, series: rate, compare: rate, baseline: 1Mbit/s, confidence: 90% }
",
    )
    .unwrap_or_else(|wrong| panic!("{:?}", miette::Report::new(wrong)));
    assert_eq!(
        (plan.name.as_str(), plan.time, plan.order),
        ("example", Time::Virtual, Order::AsGiven)
    );
    assert_eq!((plan.seed, plan.retries, plan.keep), (7, 1, Keep::All));
    assert_eq!(plan.load.as_deref(), Some("nodes * 100"));
    let rates: Vec<String> = plan.factors["rate"].all().iter().map(setting).collect();
    assert_eq!(rates, ["\"1Mbit/s\"", "\"10Mbit/s\"", "\"100Mbit/s\""]);
    let stop = plan.stop.as_ref().unwrap();
    assert!((stop.width - 0.05).abs() < 1e-12 && (stop.confidence - 0.99).abs() < 1e-12);
    assert_eq!(stop.at_least, 4);
    // A plan survives the store.
    let text = serde_json::to_string(&plan).unwrap();
    assert_eq!(serde_json::from_str::<tapestry_topologies::plan::Plan>(&text).unwrap(), plan);
}

#[test]
fn a_small_plan_has_defaults() {
    let plan = load("topology: net.yaml\n").unwrap();
    assert_eq!(plan.name, "my-plan");
    assert_eq!(
        (plan.time, plan.design, plan.order),
        (Time::Realtime, Design::FullFactorial, Order::Randomised)
    );
    assert_eq!((plan.replicates, plan.warm_up, plan.seed, plan.retries), (1, 0, 1, 2));
    assert!((plan.report.confidence - 0.95).abs() < 1e-12 && plan.stop.is_none());
}

#[test]
fn a_topology_is_no_plan() {
    let found = wrong("name: lab\nnodes: { a: { kind: host } }\nlinks: []\ntasks: []\n");
    assert_eq!(found, ["2 \"nodes\": this is a topology, not a plan"]);
}

#[test]
fn wrong_values_do_not_hide_each_other() {
    let found = wrong(
        "topology: net.yaml
retries: -1
time_limit: 0s
warm_up: few
seed: -3
report: { confidence: 100% }
",
    );
    let lines: Vec<&str> = found.iter().map(|said| &said[..1]).collect();
    assert_eq!(lines, ["2", "3", "4", "5", "6"], "{found:#?}");
}

#[test]
fn ranges_end_where_numbers_do() {
    for range in [
        "{ from: -1e308, to: 1e308, count: 3 }",
        "{ from: 1e-300, to: 1e300, count: 3, scale: log }",
    ] {
        let found = wrong(&format!("topology: net.yaml\nfactors: {{ nodes: {range} }}\n"));
        assert!(found.len() == 1 && found[0].contains("farther than numbers reach"), "{found:?}");
    }
}

#[test]
fn everything_wrong_comes_at_once() {
    let found = wrong(
        "topology: net.yaml
tim: virtual
params: { kind: 1, nodes: many, nods: 2 }
factors: { loss: [], kindd: [a], rate: { from: 5, to: 1 }, traced: [true, 7] }
replicates: 0
",
    );
    assert_eq!(
        found,
        [
            "2 \"tim\": unknown key `tim`",
            "3 \"many\": `nodes` is a number in the topology (default `3`), not a text",
            "3 \"nods\": parameter `nods`: the topology has no parameter of this name",
            "4 \"[]\": factor `loss` has no levels: the grid would be empty",
            "4 \"kindd\": factor `kindd`: the topology has no parameter of this name",
            "4 \"{ from: 5, to: 1 }\": factor `rate` has no levels from 5 to 1: the grid would be empty",
            "4 \"7\": `traced` is a truth value in the topology (default `false`), not a number",
            "5 \"0\": `0` is out of range (key `replicates`)",
        ]
    );
}

/// One problem, in one place.
#[track_caller]
fn one(keys: &str, expected: &str) {
    assert_eq!(wrong(&format!("topology: net.yaml\n{keys}\n")), [expected], "{keys}");
}

#[test]
fn each_mistake_is_named() {
    one("factors: { nodes: 5 }", "2 \"5\": `nodes` cannot be `5`");
    one(
        "params: { nodes: 2 }\nfactors: { nodes: [3] }",
        "3 \"nodes\": `nodes` stands under `params` already",
    );
    one("factors: { nodes: [2, 3, 2] }", "2 \"2\": factor `nodes` has the level `2` twice");
    one(
        "factors: { nodes: { from: 2, to: 9, step: 2, count: 3 } }",
        "2 \"{ from: 2, to: 9, step: 2, count: 3 }\": factor `nodes` has a `step` and a `count`",
    );
    one(
        "factors: { nodes: { from: 0, to: 9, count: 3, scale: log } }",
        "2 \"{ from: 0, to: 9, count: 3, scale: log }\": factor `nodes`: a log scale cannot begin at 0",
    );
    one(
        "factors: { nodes: { from: 2, to: 9, scale: log } }",
        "2 \"{ from: 2, to: 9, scale: log }\": factor `nodes` needs `count`: how many levels there are",
    );
    one(
        "factors: { nodes: { from: 2, to: 9, step: 0 } }",
        "2 \"{ from: 2, to: 9, step: 0 }\": factor `nodes`: steps of 0 do not lead from 2 to 9",
    );
    one(
        "design: paired\nfactors: { nodes: [2, 3], loss: [1] }",
        "3 \"{ nodes: [2, 3], loss: [1] }\": factors cannot be paired: `nodes` has 2 levels and `loss` has 1",
    );
    one(
        "design: { latin-hypercube: 5 }\nfactors: { nodes: { from: 2, to: 9, count: 3 } }",
        "3 \"{ from: 2, to: 9, count: 3 }\": factor `nodes`: a Latin hypercube chooses the levels itself",
    );
    one("design: square", "2 \"square\": unknown value `square` (key `design`)");
    one(
        "stop: { metric: rt, width: 5% }\nreplicates: 9",
        "2 \"rt\": unknown metric `rt`: no run could produce it",
    );
    one(
        "stop: { metric: rtt, width: 5%, at_least: 10 }\nreplicates: 2",
        "2 \"{ metric: rtt, width: 5%, at_least: 10 }\": `stop` can never be looked at: it wants 10 runs of a point \
         (`at_least`), and `replicates`, the most, is 2",
    );
    one("stop: { metric: rtt, width: 0% }", "2 \"0%\": `width` cannot be 0%");
    one("report: { metrics: [rtt, x] }", "2 \"x\": unknown metric `x`: no run could produce it");
    one("report: { x: y }", "2 \"y\": unknown factor or metric `y`: no run could produce it");
    one("report: { series: nodes }", "2 \"nodes\": unknown factor `nodes` (key `series`)");
    one(
        "factors: { nodes: [2, 3] }\nreport: { baseline: 4 }",
        "3 \"4\": `4` is no level of the factor that is compared",
    );
    one("report: { confidence: 100% }", "2 \"100%\": `confidence` cannot be 100%");
    one("load: ${node * 3}", "2 \"node\": unknown name `node` in the expression `node * 3`");
    one("time_limit: 0s", "2 \"0s\": `time_limit` is zero: nothing could ever run");
}

#[test]
fn files_that_are_not_there() {
    let place = Place::new("topology: nets.yaml\n");
    let found = load_plan(&place.plan()).unwrap_err();
    let problem = &found.problems()[0];
    assert!(problem.message.starts_with("cannot read `") && problem.message.contains("nets.yaml"));
    assert_eq!(problem.place.as_ref().map(|place| (place.line, place.column)), Some((1, 11)));
    let missing = load_plan(&place.0.path().join("no.yaml")).unwrap_err();
    assert!(missing.problems()[0].message.contains("no.yaml"), "{missing:?}");
    assert_eq!(wrong("").len(), 1);
    assert!(wrong("[1, 2]")[0].contains("cannot be a list"));
}

#[test]
fn what_is_wrong_with_the_topology_is_said_too() {
    let place = Place::new("topology: net.yaml\nfactors: { nods: [1] }\n");
    std::fs::write(place.0.path().join("net.yaml"), "nodes: { a: { memroy: 1GiB } }\n").unwrap();
    let found = load_plan(&place.plan()).unwrap_err();
    let messages: Vec<&str> = found.problems().iter().map(|p| p.message.as_str()).collect();
    assert_eq!(
        messages,
        ["factor `nods`: the topology has no parameter of this name", "unknown key `memroy`"]
    );
}

/// Mutilated plans are refused or read, never anything else.
#[test]
fn nothing_in_a_plan_makes_it_panic() {
    let whole = "topology: net.yaml
params: { loss: 1 }
factors: { nodes: { from: 2, to: 9, step: 2 }, rate: [1Mbit/s] }
design: { latin-hypercube: 5 }
stop: { metric: rtt, width: 5% }
replicates: 3
report: { x: nodes, baseline: 2, metrics: rtt }
";
    let place = Place::new(whole);
    let refused = |text: &str| {
        std::fs::write(place.plan(), text).unwrap();
        load_plan(&place.plan()).is_err()
    };
    for at in 0..whole.len() {
        refused(&whole[..at]);
        refused(&format!("{}{}", &whole[..at], &whole[at + 1..]));
        for odd in ["{", "]", ": ", "-1e999", "${", "\n"] {
            refused(&format!("{}{odd}{}", &whole[..at], &whole[at..]));
        }
    }
    for number in ["1e308", "-1e308", "1e-320", "0"] {
        refused(&whole.replace("to: 9", &format!("to: {number}")));
        refused(&whole.replace("from: 2", &format!("from: {number}")));
        refused(&whole.replace("step: 2", &format!("step: {number}")));
    }
}

fn keys(schema: &Json, found: &mut Vec<String>) {
    match schema {
        Json::Object(map) => {
            if let Some(properties) = map.get("properties").and_then(Json::as_object) {
                found.extend(properties.keys().cloned());
            }
            map.values().for_each(|value| keys(value, found));
        }
        Json::Array(items) => items.iter().for_each(|value| keys(value, found)),
        _ => {}
    }
}

#[test]
fn the_reference_names_every_key_and_its_examples_are_plans() {
    let reference = include_str!("../../docs/campaigns.md");
    let mut found = Vec::new();
    keys(&plan_schema(), &mut found);
    assert!(found.len() > 30, "{found:?}");
    for key in found {
        assert!(reference.contains(&format!("`{key}`")), "`{key}` is not in docs/campaigns.md");
    }
    let validator = jsonschema::validator_for(&plan_schema()).unwrap();
    let mut examples = 0;
    for block in reference.split("```yaml\n").skip(1) {
        let text = block.split("```").next().unwrap();
        if text.contains("topology:") {
            examples += 1;
            let instance: Json = serde_saphyr::from_str(text).unwrap();
            let errors: Vec<String> =
                validator.iter_errors(&instance).map(|error| error.to_string()).collect();
            assert!(errors.is_empty(), "{errors:?} in {text}");
        }
    }
    assert!(examples >= 1);
    let instance: Json = serde_saphyr::from_str("topology: a\nfactors: { n: 3 }").unwrap();
    assert!(!validator.is_valid(&instance));
}

/// Levels are such that the topology takes them: `9.486832981ms` would be finer than a nanosecond.
#[test]
fn computed_levels_are_round() {
    let levels = |range: &str| -> Vec<String> {
        let factor = if range.contains("bit/s") { "rate" } else { "delay" };
        let plan = load(&format!("topology: net.yaml\nfactors: {{ {factor}: {range} }}\n"));
        plan.unwrap().factors[factor].all().iter().map(ToString::to_string).collect()
    };
    assert_eq!(
        levels("{ from: 1, to: 90, count: 3, scale: log, unit: ms }"),
        ["1ms", "9.487ms", "90ms"]
    );
    assert_eq!(
        levels("{ from: 0, to: 1, count: 4, unit: ms }"),
        ["0ms", "0.333ms", "0.667ms", "1ms"]
    );
    assert_eq!(
        levels("{ from: 0, to: 1, count: 4, digits: 2, unit: ms }")[1..3],
        ["0.3ms", "0.7ms"]
    );
    assert_eq!(levels("{ from: 1, to: 4, count: 3, scale: log, unit: us }"), ["1us", "2us", "4us"]);
    assert_eq!(
        levels("{ from: 0.1, to: 0.2, count: 3, scale: log, unit: us }"),
        ["0.1us", "0.141us", "0.2us"],
        "no finer than 1 ns, whatever the digits"
    );
    assert_eq!(
        levels("{ from: 1000000, to: 1000100, count: 5, unit: bit/s }")[1],
        "1000025bit/s",
        "digits are those of the width"
    );
    assert_eq!(
        levels("{ from: 10000, to: 10003, unit: kbit/s }")[1..3],
        ["10001kbit/s", "10002kbit/s"]
    );
    assert_eq!(
        levels("{ from: 30, to: 90000, count: 3, scale: log, digits: 1, unit: bit/s }")[1],
        "2000bit/s"
    );
}

/// All lowest levels together are no point of a Latin hypercube, and need not be a topology.
#[test]
fn a_latin_hypercube_is_looked_at_where_it_has_points() {
    let plan = "topology: net.yaml
design: { latin-hypercube: 5 }
factors: { nodes: { from: 0, to: 9, whole: true } }
report: { metrics: rtts }
";
    let place = Place::new(plan);
    let at = |nodes: i64| {
        let first = move |_: &Plan| -> Option<Settings> {
            let value = tapestry_topologies::expression::Value::Int(nodes);
            Some([("nodes".to_owned(), value)].into_iter().collect())
        };
        tapestry_topologies::plan::load_plan(&place.plan(), &first)
    };
    let wrong = at(5).unwrap_err();
    assert!(wrong.problems()[0].message.starts_with("unknown metric `rtts`"), "{wrong:?}");
    // What is wrong at a point is for whoever makes the points to say, with its name.
    assert!(at(0).is_ok());
}
