//! From a resolved queue to the model's.

use tapestry_models::{
    ClassConfig, ClassesConfig, CoDelConfig, DirectionChange, FqCoDelConfig, Limit, PieConfig,
    QueueConfig, RedConfig, RedUnit,
};
use tapestry_topologies::resolved::{self, Codel, LinkChange, Queue, QueueClass, QueueLimit};

/// What the model of a link does about a change.
pub(crate) fn change(change: &LinkChange) -> tapestry_models::LinkChange {
    let directions = change.directions.each_ref().map(|direction| DirectionChange {
        parameters: direction.parameters.clone(),
        queue: direction.queue.as_ref().map(config),
    });
    tapestry_models::LinkChange { directions, mtu: change.mtu }
}

/// The model of a link's queue.
pub(crate) fn config(queue: &Queue) -> QueueConfig {
    match queue {
        Queue::DropTail { limit } => QueueConfig::DropTail(self::limit(*limit)),
        Queue::Red(red) => QueueConfig::Red(RedConfig {
            limit: limit(red.limit),
            unit: match red.unit {
                resolved::RedUnit::Frames => RedUnit::Frames,
                resolved::RedUnit::Bytes => RedUnit::Bytes,
            },
            min: red.min,
            max: red.max,
            max_probability: red.max_probability,
            weight: red.weight,
            mean_frame_bytes: red.mean_frame.as_bytes() as u32,
            gentle: red.gentle,
            adaptive: red.adaptive,
            ecn: red.ecn,
        }),
        Queue::Codel(codel) => QueueConfig::CoDel(self::codel(codel)),
        Queue::FqCodel(fq) => QueueConfig::FqCoDel(FqCoDelConfig {
            codel: codel(&fq.codel),
            flows: fq.flows,
            quantum_bytes: fq.quantum.as_bytes() as u32,
        }),
        Queue::Pie(pie) => QueueConfig::Pie(PieConfig {
            limit: limit(pie.limit),
            target: pie.target,
            update: pie.update,
            max_burst: pie.burst,
            alpha_micro_hz: (pie.alpha * 1e6).round() as u64,
            beta_micro_hz: (pie.beta * 1e6).round() as u64,
            ecn: pie.ecn,
            ecn_limit: pie.ecn_limit,
            derandomise: pie.derandomise,
        }),
        Queue::Priority { classes } => QueueConfig::Priority(self::classes(classes)),
        Queue::Drr { classes } => QueueConfig::Drr(self::classes(classes)),
    }
}

fn limit(limit: QueueLimit) -> Limit {
    match limit {
        QueueLimit::Frames(frames) => Limit::Frames(frames),
        QueueLimit::Bytes(bytes) => Limit::Bytes(bytes.as_bytes()),
        QueueLimit::Time(time) => Limit::Time(time),
    }
}

fn codel(codel: &Codel) -> CoDelConfig {
    let Codel { target, interval, ecn, .. } = *codel;
    CoDelConfig { limit: limit(codel.limit), target, interval, ecn }
}

/// What no class names is of the class without code points, or else of the last.
fn classes(classes: &[QueueClass]) -> ClassesConfig {
    let rest = classes.iter().position(|class| class.dscp.is_empty());
    let rest = rest.unwrap_or(classes.len().saturating_sub(1)) as u8;
    let mut class_of = [rest; 64];
    for (number, class) in (0..).zip(classes) {
        for &dscp in &class.dscp {
            class_of[usize::from(dscp & 63)] = number;
        }
    }
    let class = |class: &QueueClass| ClassConfig {
        limit: limit(class.limit),
        quantum_bytes: class.quantum.as_bytes() as u32,
    };
    ClassesConfig { classes: classes.iter().map(class).collect(), class_of, other: rest }
}

#[cfg(test)]
mod tests {
    use tapestry_core::ByteCount;

    use super::*;

    #[test]
    fn code_points_that_no_class_names_are_of_the_class_without_any() {
        let class = |dscp: &[u8]| QueueClass {
            dscp: dscp.to_vec(),
            limit: QueueLimit::Frames(7),
            quantum: ByteCount::from_bytes(1_514),
        };
        let config = classes(&[class(&[46, 48]), class(&[]), class(&[8])]);
        assert_eq!([46, 48, 8, 0, 63].map(|dscp: usize| config.class_of[dscp]), [0, 0, 2, 1, 1]);
        assert_eq!((config.other, config.classes.len()), (1, 3));
        assert_eq!(classes(&[class(&[46]), class(&[8])]).class_of[0], 1);
    }
}
