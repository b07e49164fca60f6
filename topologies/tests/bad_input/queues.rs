//! Queues that hold nothing or contradict themselves.

use crate::{assert_one, wrong};

/// A link of 10 Mbit/s with a queue, on the third line.
fn queue(value: &str) -> String {
    format!(
        "nodes: {{a: {{}}, b: {{}}}}\nlinks:\n- {{pair: [a, b], rate: 10Mbit/s, queue: {value}}}\n"
    )
}

#[test]
fn impossible_queues() {
    for (value, expected) in [
        // Limits.
        ("0", "3 \"0\": a queue of `0` holds nothing (key `queue`)"),
        ("0B", "3 \"0B\": a queue of `0B` holds nothing (key `queue`)"),
        ("0ms", "3 \"0ms\": a queue of `0ms` holds nothing (key `queue`)"),
        ("-1", "3 \"-1\": `-1` is out of range (key `queue`)"),
        ("5000000", "3 \"5000000\": `5000000` is out of range (key `queue`)"),
        ("1.5", "3 \"1.5\": `1.5` is no length of a queue (key `queue`)"),
        ("{limit: 0B}", "3 \"0B\": a queue of `0B` holds nothing (key `limit`)"),
        ("{limit: codel}", "3 \"codel\": `codel` is no length of a queue (key `limit`)"),
        // Disciplines.
        ("coddel", "3 \"coddel\": unknown discipline `coddel` (key `queue`)"),
        ("{discipline: read}", "3 \"read\": unknown value `read` (key `discipline`)"),
        ("[codel]", "3 \"[codel]\": `queue` cannot be a list"),
        ("{discipline: codel, max: 5}", "3 \"max\": `max` is no parameter of `codel`"),
        ("{target: 5ms}", "3 \"target\": `target` is no parameter of `drop-tail`"),
        ("{discipline: pie, tarket: 5ms}", "3 \"tarket\": unknown key `tarket`"),
        // CoDel, FQ-CoDel, PIE.
        (
            "{discipline: codel, target: 100ms}",
            "3 \"100ms\": the target 100ms is not below the interval 100ms",
        ),
        ("{discipline: codel, target: 0ms}", "3 \"0ms\": `target` is zero"),
        (
            "{discipline: fq-codel, interval: 1ms}",
            "3 \"1ms\": the target 5ms is not below the interval 1ms",
        ),
        ("{discipline: fq-codel, flows: 0}", "3 \"0\": `0` is out of range (key `flows`)"),
        ("{discipline: fq-codel, quantum: 1B}", "3 \"1B\": a quantum of that size makes no turns"),
        ("{discipline: pie, update: 0ms}", "3 \"0ms\": `update` is zero"),
        ("{discipline: pie, alpha: -1}", "3 \"-1\": `alpha` is out of range"),
        ("{discipline: pie, ecn_limit: 0%}", "3 \"0%\": `ecn_limit` is zero"),
        // RED.
        (
            "{discipline: red, min: 15, max: 15}",
            "3 \"15\": the threshold `min` (15) is not below `max` (15)",
        ),
        ("{discipline: red, max: 4}", "3 \"4\": the threshold `min` (5) is not below `max` (4)"),
        ("{discipline: red, min: 5, max: 9kB}", "3 \"9kB\": `min` is in another unit than `max`"),
        ("{discipline: red, min: 5ms}", "3 \"5ms\": the threshold `min` is a time"),
        (
            "{discipline: red, max_probability: 0.1}",
            "3 \"0.1\": `0.1` has no unit; write a probability such as `1%` or `0.5%` (key `max_probability`)",
        ),
        (
            "{discipline: red, max_probability: 101%}",
            "3 \"101%\": `101%` is too large; the largest value is 100% (key `max_probability`)",
        ),
        ("{discipline: red, weight: 0%}", "3 \"0%\": `weight` is zero"),
        ("{discipline: red, mean_frame: 0B}", "3 \"0B\": no frame has that mean length"),
        // Classes.
        ("{discipline: priority, classes: []}", "3 \"[]\": the discipline has no classes"),
        (
            "{discipline: drr, classes: [{dscp: EG}]}",
            "3 \"EG\": `EG` is not a code point (key `dscp`)",
        ),
        (
            "{discipline: drr, classes: [{dscp: 64}]}",
            "3 \"64\": `64` is not a code point (key `dscp`)",
        ),
        (
            "{discipline: drr, classes: [{dscp: EF}, {dscp: [AF11, 46]}]}",
            "3 \"46\": the code point `46` is twice in `classes`",
        ),
        (
            "{discipline: drr, classes: [{dscp: EF}, {}, {limit: 5}]}",
            "3 \"{limit: 5}\": a second class without `dscp` gets no frames",
        ),
        (
            "{discipline: drr, classes: [{limit: 0}]}",
            "3 \"0\": a queue of `0` holds nothing (key `limit`)",
        ),
    ] {
        assert_one(&queue(value), expected);
    }
    // A name that is left out of the map, and one that cannot stand alone.
    for (value, expected) in [
        ("priority", "3 \"priority\": the discipline has no classes"),
        ("{discipline: priority}", "3 \"{discipline: priority}\": the discipline has no classes"),
    ] {
        assert_one(&queue(value), expected);
    }
    assert_one(
        "nodes: {a: {}, b: {}}\nlinks:\n- {pair: [a, b], queue: 20ms}\n",
        "3 \"20ms\": a queue with a limit in time is on a link without `rate`",
    );
}

#[test]
fn a_queue_is_told_what_was_meant() {
    for (value, help) in [
        ("coddel", "did you mean `codel`?"),
        ("{discipline: fq_codel}", "did you mean `fq-codel`?"),
        ("{discipline: drr, classes: [{dscp: AF44}]}", "did you mean `AF41`?"),
        ("{discipline: codel, quantum: 300B}", "it has `limit`, `target`, `interval`, `ecn`"),
    ] {
        let error = wrong(&queue(value));
        assert_eq!(error.problems()[0].help.as_deref(), Some(help), "{value}");
        assert!(!error.problems()[0].expected.is_empty());
    }
}
