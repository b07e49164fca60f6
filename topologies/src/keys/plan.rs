//! The keys of plan files.

use super::{TEXT, TIME, key, needed, one};
use crate::shape::{Object, Scalar, Shape};

/// More replicates than this of one point are a mistake.
const MAX_REPLICATES: i64 = 1_000_000;
const REPLICATES: Shape = one(Scalar::Integer { min: 1, max: MAX_REPLICATES });
const FEW: Shape = one(Scalar::Integer { min: 0, max: 100 });
const NUMBER: Shape = one(Scalar::Number);
const SHARE: Shape = one(Scalar::Probability);
const NAME: Shape = one(Scalar::Identifier);
const ANY: Shape = one(Scalar::Any);

/// A whole plan.
pub(crate) static PLAN: Object = Object {
    what: "a plan",
    keys: &[
        key(
            "name",
            one(Scalar::Name),
            "Name of the campaign; default: the file's name without its ending.",
        ),
        key("description", TEXT, "Free text for people."),
        needed("topology", TEXT, "Topology file, relative to this one."),
        key(
            "time",
            one(Scalar::Word(&["realtime", "virtual"])),
            "How time passes in the runs; default realtime.",
        ),
        key(
            "params",
            Shape::Map { keys: Scalar::Identifier, value: &ANY },
            "Parameters of the topology that are the same in all runs.",
        ),
        key(
            "factors",
            Shape::Map {
                keys: Scalar::Identifier,
                value: &Shape::Either(&[Shape::List(&ANY), Shape::Object(&RANGE)]),
            },
            "Parameters of the topology that vary, with their levels.",
        ),
        key(
            "design",
            Shape::Either(&[
                one(Scalar::Word(&["full-factorial", "paired"])),
                Shape::Object(&DESIGN),
            ]),
            "How levels are combined into points; default full-factorial.",
        ),
        key("replicates", REPLICATES, "Runs of each point; with `stop` the most; default 1."),
        key("stop", Shape::Object(&STOP), "When a point has runs enough."),
        key(
            "order",
            one(Scalar::Word(&["randomised", "as-given"])),
            "Order of the points within each block of replicates; default randomised.",
        ),
        key("warm_up", FEW, "Runs before the first, which count nowhere; default 0."),
        key(
            "seed",
            one(Scalar::Integer { min: 0, max: i64::MAX }),
            "The number from which all seeds follow; default 1.",
        ),
        key("time_limit", TIME, "Longest time of a run, by the wall clock; default 1h."),
        key("retries", FEW, "How often an invalid run is repeated; default 2."),
        key(
            "keep",
            one(Scalar::Word(&["all", "thin", "none"])),
            "What stays of run directories: all, thin (the JSON files) or none; default thin.",
        ),
        key(
            "load",
            one(Scalar::Expression),
            "Frames times links that a run asks for in a second, over the topology's parameters; for the look at the host before the first run.",
        ),
        key("report", Shape::Object(&REPORT), "What the report shows."),
    ],
};

/// Levels of a factor that are computed.
pub(crate) static RANGE: Object = Object {
    what: "a range",
    keys: &[
        needed("from", NUMBER, "The lowest level."),
        needed("to", NUMBER, "The highest level, included."),
        key("step", NUMBER, "Distance of levels on a linear scale; default 1."),
        key("count", REPLICATES, "How many levels there are, in place of `step`."),
        key("scale", one(Scalar::Word(&["linear", "log"])), "Scale of the levels; default linear."),
        key(
            "digits",
            one(Scalar::Integer { min: 1, max: 10 }),
            "Significant digits of computed levels; default 4, with `step` as many as needed.",
        ),
        key("whole", one(Scalar::Bool), "Whether levels are rounded to whole numbers."),
        key("unit", TEXT, "Unit appended to the numbers, such as `ms`."),
    ],
};

/// A design with a size.
pub(crate) static DESIGN: Object = Object {
    what: "a design",
    keys: &[needed("latin-hypercube", REPLICATES, "How many points are drawn.")],
};

/// When a point has runs enough.
pub(crate) static STOP: Object = Object {
    what: "a stop rule",
    keys: &[
        needed("metric", NAME, "Metric whose mean is to be known."),
        needed("width", SHARE, "Width of its confidence interval, in percent of the mean."),
        key("confidence", SHARE, "Confidence of that interval; default 95%."),
        key(
            "at_least",
            one(Scalar::Integer { min: 2, max: MAX_REPLICATES }),
            "Runs before the first look; default 3.",
        ),
    ],
};

/// What the report shows.
pub(crate) static REPORT: Object = Object {
    what: "a report",
    keys: &[
        key("metrics", Shape::OneOrMany(Scalar::Identifier), "Metrics shown; default all."),
        key("x", NAME, "Factor or metric on the x axis; default the first factor with numbers."),
        key("series", NAME, "Factor with a line of its own for each level; default another one."),
        key("compare", NAME, "Factor whose levels are compared; default the one with the fewest."),
        key("baseline", ANY, "Level with which the others are compared; default the first."),
        key("confidence", SHARE, "Confidence of all intervals; default 95%."),
    ],
};
