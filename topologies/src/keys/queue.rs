//! The keys of a link's queue.

use super::{BOOL, TIME, key, one};
use crate::queue::DISCIPLINES;
use crate::shape::{Object, Scalar, Shape};

/// The queue of a link.
pub(crate) static QUEUE: Object = Object {
    what: "a queue",
    keys: &[
        key(
            "discipline",
            one(Scalar::Word(DISCIPLINES)),
            "Which frames go first and which are dropped; default drop-tail.",
        ),
        key("limit", one(Scalar::QueueLimit), "What the queue holds: frames, a size or a time."),
        key(
            "target",
            TIME,
            "Acceptable time in the queue (codel, fq-codel 5ms; pie 15ms), or aimed at (red, adaptive: 5ms).",
        ),
        key(
            "interval",
            TIME,
            "How long `target` may be exceeded (codel, fq-codel); default 100ms.",
        ),
        key("ecn", BOOL, "Marks instead of early drops; default false, true for fq-codel."),
        key(
            "flows",
            one(Scalar::Integer { min: 1, max: 65_536 }),
            "Queues (fq-codel); default 1024.",
        ),
        key(
            "quantum",
            one(Scalar::Bytes),
            "Bytes of a turn (fq-codel, drr); default the MTU and the Ethernet header.",
        ),
        key(
            "min",
            one(Scalar::QueueLimit),
            "Average length from which red drops; default 5 frames.",
        ),
        key("max", one(Scalar::QueueLimit), "Upper threshold of red; default three times `min`."),
        key(
            "max_probability",
            one(Scalar::Probability),
            "Probability of a drop at `max` (red); default 2%.",
        ),
        key(
            "weight",
            one(Scalar::Probability),
            "Weight of the moving average (red); default 0.2%.",
        ),
        key("mean_frame", one(Scalar::Bytes), "Mean frame (red); default 1000B."),
        key("gentle", BOOL, "Whether red's probability rises up to twice `max`; default true."),
        key("adaptive", BOOL, "Whether red adapts its probability; default false."),
        key("update", TIME, "Time between pie's updates; default 15ms."),
        key("burst", TIME, "Burst that pie lets pass; default 150ms."),
        key("alpha", one(Scalar::Number), "Pie's weight of the distance, 1/s; default 0.125."),
        key("beta", one(Scalar::Number), "Pie's weight of the trend, 1/s; default 1.25."),
        key(
            "ecn_limit",
            one(Scalar::Probability),
            "Probability above which pie drops instead of marking; default 10%.",
        ),
        key("derandomise", BOOL, "Whether pie spaces its drops out; default false."),
        key("classes", Shape::List(&Shape::Object(&CLASS)), "Classes (priority, drr)."),
    ],
};

/// A class of a queue.
pub(crate) static CLASS: Object = Object {
    what: "a class",
    keys: &[
        key("dscp", Shape::OneOrMany(Scalar::Dscp), "Its code points; default all others."),
        key("limit", one(Scalar::QueueLimit), "What it holds; default the queue's `limit`."),
        key("quantum", one(Scalar::Bytes), "Bytes of its turn (drr); default the queue's."),
    ],
};
