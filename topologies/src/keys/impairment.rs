//! The keys of a link's directions: rate, delay and everything that goes wrong.

use super::{QUEUE, key, needed, one};
use crate::shape::{Key, Object, Scalar, Shape};

const TEXT: Shape = one(Scalar::Text);
const TIME: Shape = one(Scalar::Time);
const PROBABILITY: Shape = one(Scalar::Probability);
const BYTES: Shape = one(Scalar::Bytes);
/// The same, or `none`.
const NO_TEXT: Shape = one(Scalar::OrNone(&Scalar::Text));
const NO_TIME: Shape = one(Scalar::OrNone(&Scalar::Time));
const NO_CHANCE: Shape = one(Scalar::OrNone(&Scalar::Probability));
const NO_BYTES: Shape = one(Scalar::OrNone(&Scalar::Bytes));
const NO_RATE: Shape = one(Scalar::OrNone(&Scalar::Rate));
const FORM: Shape = one(Scalar::Word(&["markov", "netem"]));
const PER: Shape = one(Scalar::Word(&["frame", "byte", "bit"]));
/// Numbers of frames.
pub(crate) const COUNT: Scalar = Scalar::Integer { min: 1, max: 1_000_000 };
/// Bits flipped in a frame.
pub(crate) const BITS: Scalar = Scalar::Integer { min: 1, max: 64 };
/// Bytes that are added.
pub(crate) const OVERHEAD_BYTES: Scalar = Scalar::Integer { min: -1_000, max: 10_000 };
/// The least that a frame occupies.
pub(crate) const MINIMUM_BYTES: Scalar = Scalar::Integer { min: 0, max: 100_000 };
/// Payload of a cell.
pub(crate) const CELL_BYTES: Scalar = Scalar::Integer { min: 1, max: 100_000 };

/// Keys that a link and each of its directions have.
pub(super) static PARAMETERS: [Key; 15] = [
    key("rate", one(Scalar::Rate), "Transmission rate; default unlimited."),
    key("delay", TIME, "One-way propagation delay; default 0ms."),
    key(
        "queue",
        Shape::Either(&[one(Scalar::Queue), Shape::Object(&QUEUE)]),
        "What waits at the sending interface: a limit, a discipline, or a map; default one bandwidth-delay product, at least 100 frames.",
    ),
    key(
        "overhead",
        Shape::Either(&[
            one(Scalar::Word(&["ns-3", "ethernet", "atm", "none"])),
            Shape::Object(&OVERHEAD),
        ]),
        "What a frame occupies on the wire beyond its own bytes; default ns-3.",
    ),
    key("burst", NO_BYTES, "Size of a token bucket that `rate` fills; default none."),
    key("peak", NO_RATE, "Rate within a burst; default unlimited."),
    key("trace", NO_TEXT, "File in mahimahi's format that says when 1500 bytes may leave."),
    key(
        "schedule",
        Shape::Either(&[NO_TEXT, Shape::Object(&SCHEDULE)]),
        "CSV file that says when rate, delay and loss change.",
    ),
    key(
        "slot",
        Shape::Either(&[NO_TIME, Shape::Object(&SLOT)]),
        "Interval at which frames that were sent go onto the wire together.",
    ),
    key("jitter", Shape::Either(&[NO_TIME, Shape::Object(&JITTER)]), "Random part of the delay."),
    key(
        "reordering",
        one(Scalar::Word(&["preserve", "allow"])),
        "Whether a frame with little jitter may overtake; default preserve.",
    ),
    key(
        "reorder",
        Shape::Either(&[NO_CHANCE, Shape::Object(&REORDER)]),
        "Frames that skip the delay.",
    ),
    key("loss", Shape::Either(&[NO_CHANCE, Shape::Object(&LOSS)]), "Frames that get lost."),
    key(
        "duplicate",
        Shape::Either(&[NO_CHANCE, Shape::Object(&CHANCE)]),
        "Frames that arrive twice.",
    ),
    key("corrupt", Shape::Either(&[NO_CHANCE, Shape::Object(&CORRUPT)]), "Frames with wrong bits."),
];

/// Those of [`PARAMETERS`] that make no impairment.
pub(crate) const PLAIN: &[&str] = &["rate", "delay", "queue", "overhead"];

/// One direction of a link.
pub(crate) static DIRECTION: Object = Object { what: "a direction", keys: &PARAMETERS };

static OVERHEAD: Object = Object {
    what: "an overhead",
    keys: &[
        key("frame_bytes", one(OVERHEAD_BYTES), "Bytes added to each frame; default 0."),
        key("minimum_bytes", one(MINIMUM_BYTES), "Shorter frames occupy this much; default 0."),
        key(
            "cell_bytes",
            one(CELL_BYTES),
            "Payload of the cells into which frames are cut; default no cells.",
        ),
        key(
            "cell_overhead_bytes",
            one(OVERHEAD_BYTES),
            "Bytes added to each cell, with `cell_bytes`; default 0.",
        ),
    ],
};

static SCHEDULE: Object = Object {
    what: "a schedule",
    keys: &[
        needed("file", TEXT, "The CSV file."),
        key("repeat", TIME, "Time after which it begins anew; default never."),
    ],
};

static SLOT: Object = Object {
    what: "a slot",
    keys: &[
        needed("min", TIME, "Shortest time between slots."),
        key("max", TIME, "Longest time between slots; default `min`."),
        key("frames", one(COUNT), "Most frames in a slot; default no bound."),
        key("bytes", BYTES, "Bytes after which a slot ends; default no bound."),
    ],
};

static JITTER: Object = Object {
    what: "a jitter",
    keys: &[
        key("time", TIME, "Half the width, or about the standard deviation."),
        key(
            "distribution",
            one(Scalar::Word(&["uniform", "normal", "pareto", "pareto-normal"])),
            "Shape; default uniform.",
        ),
        key("table", TEXT, "File with the shape: netem's `.dist`, or CSV of times and shares."),
        key("correlation", PROBABILITY, "netem's correlation of successive frames; default 0%."),
        key(
            "beyond_delay",
            one(Scalar::Word(&["error", "clamp"])),
            "What to do about a jitter greater than the delay; default error.",
        ),
    ],
};

/// Keys of all that happens to a frame by chance.
const LIKELIHOOD: Key = needed("probability", PROBABILITY, "How likely it is.");
const CORRELATION: Key =
    key("correlation", PROBABILITY, "Correlation of successive frames; default 0%.");
const CORRELATION_FORM: Key = key("form", FORM, "What the correlation means; default markov.");
const APPLIES_TO: Key = key("per", PER, "What the probability applies to; default frame.");

static CHANCE: Object =
    Object { what: "a chance", keys: &[LIKELIHOOD, CORRELATION, CORRELATION_FORM] };

static REORDER: Object = Object {
    what: "a reordering",
    keys: &[
        LIKELIHOOD,
        CORRELATION,
        CORRELATION_FORM,
        key("gap", one(COUNT), "Every how manieth frame may skip the delay; default 1."),
    ],
};

static CORRUPT: Object = Object {
    what: "a corruption",
    keys: &[
        LIKELIHOOD,
        CORRELATION,
        CORRELATION_FORM,
        APPLIES_TO,
        key("bits", one(BITS), "Bits flipped in a frame; default 1."),
    ],
};

/// The keys of [`LOSS`] of which it has exactly one.
pub(crate) const LOSSES: &[&str] =
    &["probability", "gilbert_elliott", "four_state", "burst", "frames"];

static LOSS: Object = Object {
    what: "a loss",
    keys: &[
        key("probability", PROBABILITY, "How likely it is."),
        CORRELATION,
        CORRELATION_FORM,
        APPLIES_TO,
        key("gilbert_elliott", Shape::Object(&GILBERT_ELLIOTT), "Two states."),
        key("four_state", Shape::Object(&FOUR_STATE), "netem's four states."),
        key("burst", Shape::Object(&BURST), "ns-3's bursts."),
        key(
            "frames",
            Shape::OneOrMany(Scalar::Integer { min: 1, max: i64::MAX }),
            "Exactly these frames, counted from 1.",
        ),
        key("ecn", one(Scalar::Bool), "Marks frames instead, where they allow it; default false."),
    ],
};

static GILBERT_ELLIOTT: Object = Object {
    what: "a Gilbert–Elliott model",
    keys: &[
        needed("p", PROBABILITY, "From the good to the bad state."),
        key("r", PROBABILITY, "From the bad to the good state; default 100% − p."),
        key("bad", PROBABILITY, "Loss in the bad state (1 − h); default 100%."),
        key("good", PROBABILITY, "Loss in the good state (1 − k); default 0%."),
    ],
};

static FOUR_STATE: Object = Object {
    what: "a four-state model",
    keys: &[
        needed("p13", PROBABILITY, "From a gap into a burst."),
        key("p31", PROBABILITY, "From a burst into a gap; default 100% − p13."),
        key("p32", PROBABILITY, "From lost to received within a burst; default 0%."),
        key("p23", PROBABILITY, "From received to lost within a burst; default 100%."),
        key("p14", PROBABILITY, "From a gap to a single loss; default 0%."),
    ],
};

static BURST: Object = Object {
    what: "a burst model",
    keys: &[
        needed("rate", PROBABILITY, "How likely a burst begins at a frame."),
        key("min", one(COUNT), "Shortest burst in frames; default 1."),
        key("max", one(COUNT), "Longest burst in frames; default 4."),
    ],
};
