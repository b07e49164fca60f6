//! One entry of `links:` with its preset and its direction blocks.

use std::collections::HashSet;

use tapestry_core::link::LinkParameters;
use tapestry_core::{DataRate, SimTime};

use super::End;
use crate::diagnostics::report;
use crate::impairments;
use crate::keys;
use crate::nodes::Drafts;
use crate::queue::{self, Medium};
use crate::read::{Fields, Reader};
use crate::resolved::{Channel, Link, Queue, QueueLimit};
use crate::shape::{Scalar, Shape};
use crate::tree::Yaml;

/// One entry of `links:` as written, and the preset that it names.
pub(super) struct Entry<'t> {
    pub(super) yaml: &'t Yaml,
    pub(super) preset: Option<&'t Yaml>,
}

impl<'t> Entry<'t> {
    /// The keys of the link itself.
    fn fields(&self) -> Fields<'t> {
        let mut fields = Fields::of(self.yaml);
        if let Some(preset) = self.preset {
            fields.push_preset(preset);
        }
        fields
    }

    /// The keys of a direction, nearest first; `block` is the one that names its nodes.
    fn direction(&self, block: Option<&'t Yaml>, which: &str) -> Fields<'t> {
        let mut fields = Fields::default();
        let own = [block, self.yaml.get(which), Some(self.yaml)];
        own.into_iter().flatten().for_each(|yaml| fields.push(yaml));
        let preset = self.preset.map(|preset| [preset.get(which), Some(preset)]);
        preset.into_iter().flatten().flatten().for_each(|yaml| fields.push_preset(yaml));
        fields
    }

    /// The keys of both directions between these nodes.
    fn directions(&self, nodes: Option<&[String; 2]>) -> [Fields<'t>; 2] {
        let block = |from: usize| {
            let nodes = nodes?;
            let pair = (nodes[from].as_str(), nodes[1 - from].as_str());
            let mut blocks = self.blocks();
            blocks.find(|entry| keys::direction(&entry.key) == Some(pair)).map(|entry| &entry.value)
        };
        [self.direction(block(0), "forward"), self.direction(block(1), "backward")]
    }

    /// The blocks `a->b`.
    fn blocks(&self) -> impl Iterator<Item = &'t crate::tree::Entry> {
        let entries = self.yaml.map().unwrap_or_default();
        entries.iter().filter(|entry| keys::is_direction(&entry.key))
    }

    pub(super) fn has_directions(&self) -> bool {
        self.blocks().next().is_some()
    }

    /// Direction blocks that name no direction of these links, with one that there is.
    pub(super) fn strays(
        &self,
        drafts: &Drafts<'_>,
        edges: &[Vec<End>],
    ) -> Vec<(String, &'t crate::tree::Entry)> {
        let name = |end: &End| drafts.nodes[end.node].node.name.as_str();
        let pairs: HashSet<(&str, &str)> = edges
            .iter()
            .filter_map(|edge| match edge.as_slice() {
                [a, b] => Some([(name(a), name(b)), (name(b), name(a))]),
                _ => None,
            })
            .flatten()
            .collect();
        let example = edges.first().and_then(|edge| Some((edge.first()?, edge.get(1)?)));
        let example = example.map(|(a, b)| format!("{}->{}", name(a), name(b))).unwrap_or_default();
        self.blocks()
            .filter(|entry| !keys::direction(&entry.key).is_some_and(|pair| pairs.contains(&pair)))
            .map(|entry| (example.clone(), entry))
            .collect()
    }

    /// What all links of an entry have in common.
    pub(super) fn template(&self, reader: &mut Reader<'_>) -> Link {
        let fields = self.fields();
        let mut integer = |key: &str, default: u32| {
            let scalar = match keys::LINK.key(key).map(|key| key.shape) {
                Some(Shape::Scalar(scalar)) => scalar,
                _ => Scalar::Integer { min: 0, max: u32::MAX.into() },
            };
            let written = fields.find(key);
            // What could not be read bounds nothing.
            let lost = if written.is_some() { u32::MAX } else { default };
            written.and_then(|yaml| reader.parsed(yaml, scalar, key)).unwrap_or(lost)
        };
        let mtu = integer("mtu", 1500);
        let channel = fields.find("channel").and_then(|yaml| {
            reader.checked(yaml, Scalar::Word(&["csma", "point-to-point"]), "channel")
        });
        let several = self.yaml.get("lan").is_some();
        let impaired = || {
            self.has_directions()
                || ["forward", "backward"].iter().any(|key| fields.find(key).is_some())
                || impairments::impaired(&fields)
        };
        Link {
            name: String::new(),
            channel: match channel.as_deref() {
                Some("point-to-point") => Channel::PointToPoint,
                None if !several && impaired() => Channel::PointToPoint,
                _ => Channel::Csma,
            },
            rate: None,
            delay: SimTime::ZERO,
            // Set when the directions are known, whose rate it depends on.
            queue: Queue::DropTail { limit: QueueLimit::Frames(0) },
            queues: None,
            mtu,
            directions: None,
            endpoints: Vec::new(),
        }
    }

    /// What each direction of a link does, between these nodes.
    pub(super) fn parameters(
        &self,
        reader: &mut Reader<'_>,
        template: &Link,
        nodes: Option<&[String; 2]>,
    ) -> Option<[LinkParameters; 2]> {
        let before = (reader.lost, reader.problems.count());
        if template.channel == Channel::Csma {
            let keys = ["forward", "backward"].into_iter().filter_map(|key| self.yaml.get(key));
            if let Some(yaml) = keys.chain(self.blocks().map(|entry| &entry.value)).next() {
                let wrong = report("a shared medium has no directions");
                let help = "use `channel: point-to-point` for a link between two nodes";
                reader
                    .problems
                    .add(yaml.span, wrong.expected("not on a `csma` channel").help(help));
            }
        }
        let (channel, mtu) = (template.channel, template.mtu);
        let fields = self.directions(nodes);
        let parameters =
            [0, 1].map(|direction| impairments::read(reader, &fields[direction], channel));
        // What values lack would only confuse the comparison of values.
        // What a block of two nodes adds may be what the others lack.
        let partial = nodes.is_none() && self.has_directions();
        let fits = (reader.lost, reader.problems.count()) == before
            && (partial
                || fields.iter().zip(&parameters).all(|(fields, parameters)| {
                    impairments::validate(reader, fields, channel, mtu, parameters)
                }));
        fits.then_some(parameters)
    }
}

impl Entry<'_> {
    /// The queue of each direction's sender, between these nodes. Where the directions are not
    /// known, something about them is wrong, and so not about the queue that lacks them.
    pub(super) fn queues(
        &self,
        reader: &mut Reader<'_>,
        template: &Link,
        nodes: Option<&[String; 2]>,
        directions: Option<&[LinkParameters; 2]>,
    ) -> [Queue; 2] {
        let mtu = template.mtu;
        let delays = directions.into_iter().flatten().map(|direction| direction.delay);
        let round_trip = delays.fold(SimTime::ZERO, SimTime::saturating_add);
        let fields = self.directions(nodes);
        [0, 1].map(|at| {
            let rate = match directions {
                Some(directions) => directions[at].nominal_rate(),
                None => DataRate::from_bits_per_sec(1),
            };
            queue::read(reader, fields[at].find("queue"), Medium { rate, round_trip, mtu })
        })
    }
}

/// A link that does this to frames.
pub(super) fn with_directions(
    link: Link,
    parameters: Option<[LinkParameters; 2]>,
    queues: [Queue; 2],
) -> Link {
    let queue = queues[0].clone();
    let queues = (queues[0] != queues[1]).then(|| Box::new(queues));
    let link = Link { queue, queues, ..link };
    let Some([forward, backward]) = parameters else { return link };
    let (rate, delay) = (forward.rate, forward.delay);
    let plain = LinkParameters::new(rate, delay);
    let directions = (forward != plain || backward != plain).then(|| Box::new([forward, backward]));
    Link { rate, delay, directions, ..link }
}
