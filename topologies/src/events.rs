//! Changes while the lab runs: `events:`.
//!
//! Purpose: from each entry to an [`Event`] in which every name stands for something and every new
//! set of parameters is one that a model can obey.
//!
//! Assumptions: parameters are checked as if events happened in the order of the file.

use std::path::Path;

use indexmap::{IndexMap, IndexSet};
use tapestry_core::SimTime;
use tapestry_core::link::{Parameter, ParameterChange};

use crate::check::{check, condition};
use crate::diagnostics::{Diagnostics, Problems, excerpt, report};
use crate::expression::{self, Scope};
use crate::files::Files;
use crate::hosts;
use crate::impairments;
use crate::keys::{self, ACTIONS};
use crate::links::{Links, unknown_node};
use crate::nodes::Drafts;
use crate::queue::{self, Medium};
use crate::read::{Fields, Reader, one_or_many};
use crate::resolve::{limit, section};
use crate::resolved::{
    Action, Channel, Event, Link, LinkChange, LinkIndex, LinkState, NodeIndex, Origin, Task,
};
use crate::shape::{Scalar, Shape};
use crate::tasks::Known;
use crate::template::sole_expression;
use crate::tree::{self, Yaml};

/// The word that heals all partitions, and so names no group.
const ALL: &str = "all";

/// What events refer to.
pub(crate) struct Subjects<'a, 't> {
    pub(crate) drafts: &'a Drafts<'t>,
    pub(crate) links: &'a Links,
    pub(crate) tasks: &'a [Task],
    /// How many metrics are known when each of the tasks has ended.
    pub(crate) measured: &'a [usize],
    pub(crate) known: &'a Known,
}

/// Reads `events:` of all files.
pub(crate) fn resolve(
    reader: &mut Reader<'_>,
    files: &Files,
    subjects: &Subjects<'_, '_>,
) -> Vec<Event> {
    let mut events = Events {
        // A name that is unknown may stand in what could not be read.
        doubtful: files.incomplete || reader.problems.count() > 0 || reader.lost > 0,
        states: subjects.links.links().iter().map(LinkState::of).collect(),
        groups: Vec::new(),
        subjects,
    };
    let entries = section(&files.roots, "events").flat_map(|yaml| yaml.list().unwrap_or_default());
    entries.filter_map(|yaml| events.event(reader, yaml)).collect()
}

/// New values for a link as someone wrote them while the lab runs.
#[derive(Debug, Clone, Copy)]
pub struct Settings<'a> {
    /// As in `set`: a YAML map.
    pub text: &'a str,
    /// The endpoint for whose sending they count; `None`: for both directions, or for what the map
    /// itself says of each.
    pub from: Option<usize>,
    /// What the names of files in them are relative to.
    pub directory: &'a Path,
}

/// The names that a text with ranges and commas stands for, such as `wire[0-3],lan`, as events take them.
///
/// # Errors
///
/// What is wrong with the text.
pub fn link_names(text: &str) -> Result<Vec<String>, String> {
    hosts::expand(text).map_err(|wrong| wrong.to_string())
}

/// Reads new values for some properties of a link that is in this state; `ends` are the names of
/// the link's nodes.
///
/// # Errors
///
/// What is wrong with the text, all of it.
pub fn parse_settings(
    link: &Link,
    state: &LinkState,
    ends: &[&str],
    settings: &Settings<'_>,
) -> Result<LinkChange, Diagnostics> {
    let from = settings.from;
    let mut problems = Problems::default();
    let file = problems.sources.add_in("settings", settings.text, settings.directory);
    let change = tree::parse(&mut problems, file).and_then(|yaml| {
        let shape = if from.is_some() { &keys::DIRECTION } else { &keys::SET };
        check(&mut problems, &yaml, &Shape::Object(shape), "settings");
        let mut reader = Reader::new(&mut problems, Scope::new());
        let fields =
            match from {
                None => directions(&mut reader, &yaml, link, ends)?,
                Some(from) => [0, 1].map(|direction| {
                    if from == direction { Fields::of(&yaml) } else { Fields::default() }
                }),
            };
        change(&mut reader, &fields, &yaml, link, state)
    });
    problems.finish(&link.name, change)
}

/// Reads what is set in each direction and for the link as a whole; none if something is wrong with
/// it, alone or with what stays.
fn change(
    reader: &mut Reader<'_>,
    fields: &[Fields<'_>; 2],
    whole: &Yaml,
    link: &Link,
    state: &LinkState,
) -> Option<LinkChange> {
    let before = (reader.lost, reader.problems.count());
    let mut new = LinkChange::default();
    if let Some(yaml) = whole.get("mtu") {
        new.mtu = reader.parsed(yaml, keys::MTU_SCALAR, "mtu");
        if new.mtu.is_some_and(|mtu| mtu > link.mtu) {
            let wrong = report(format!("the link `{}` has an MTU of {}", link.name, link.mtu));
            let wrong = wrong.expected("expected at most the MTU with which it starts");
            let help = "give the link the largest `mtu` in the file, and set smaller ones";
            reader.problems.add(yaml.span, wrong.help(help));
        }
    }
    for (change, fields) in new.directions.iter_mut().zip(fields) {
        let to = impairments::read(reader, fields, link.channel);
        let set = fields.entries().filter_map(|entry| Parameter::of_key(&entry.key)).collect();
        change.parameters = ParameterChange { set, to };
    }
    if (reader.lost, reader.problems.count()) != before {
        return None;
    }
    let mut after = state.clone();
    after.apply(&new);
    let LinkState { directions, mtu } = &after;
    for (fields, direction) in fields.iter().zip(directions) {
        if !impairments::validate(reader, fields, link.channel, *mtu, direction) {
            return None;
        }
    }
    let round_trip = directions[0].delay.saturating_add(directions[1].delay);
    for ((change, fields), direction) in new.directions.iter_mut().zip(fields).zip(directions) {
        let Some(yaml) = fields.find("queue") else { continue };
        let medium = Medium { rate: direction.nominal_rate(), round_trip, mtu: *mtu };
        change.queue = Some(queue::read(reader, Some(yaml), medium));
    }
    ((reader.lost, reader.problems.count()) == before).then_some(new)
}

/// What a `set` says of each direction of a link between nodes of these names.
fn directions<'y>(
    reader: &mut Reader<'_>,
    set: &'y Yaml,
    link: &Link,
    ends: &[&str],
) -> Option<[Fields<'y>; 2]> {
    let blocks = || {
        let entries = set.map().unwrap_or_default().iter();
        entries.filter(|entry| keys::is_direction(&entry.key))
    };
    let block = |from: usize| {
        let pair = Some((*ends.get(from)?, *ends.get(1 - from)?));
        blocks().find(|entry| keys::direction(&entry.key) == pair).map(|entry| &entry.value)
    };
    let own = [block(0), block(1)];
    let is_own = |yaml: &Yaml| own.iter().flatten().any(|found| std::ptr::eq(*found, yaml));
    if let Some(stray) = blocks().find(|entry| !is_own(&entry.value)) {
        let wrong =
            format!("`{}` is no direction of the link `{}`", excerpt(&stray.key), link.name);
        let example = format!("expected `{}->{}`", ends.first()?, ends.get(1)?);
        reader.problems.add(stray.key_span, report(wrong).expected(example));
        return None;
    }
    let named = [set.get("forward"), set.get("backward")];
    let directed = own.iter().chain(&named).flatten().next();
    if let (Channel::Csma, Some(yaml)) = (link.channel, directed) {
        let wrong =
            report(format!("the link `{}` is a shared medium without directions", link.name));
        let help = "use `channel: point-to-point` for a link between two nodes";
        reader.problems.add(yaml.span, wrong.expected("not on a `csma` channel").help(help));
        return None;
    }
    if set.map().unwrap_or_default().is_empty() {
        let wrong = report("`set` sets nothing");
        reader.problems.add(set.span, wrong.expected("expected a parameter of a link"));
        return None;
    }
    Some([0, 1].map(|direction| {
        let mut fields = Fields::default();
        let maps = [own[direction], named[direction], Some(set)];
        maps.into_iter().flatten().for_each(|yaml| fields.push(yaml));
        fields
    }))
}

struct Events<'a, 't> {
    subjects: &'a Subjects<'a, 't>,
    doubtful: bool,
    /// Of each link, after the events so far.
    states: Vec<LinkState>,
    /// Names of the groups of partitions so far.
    groups: Vec<String>,
}

impl Events<'_, '_> {
    fn event(&mut self, reader: &mut Reader<'_>, yaml: &Yaml) -> Option<Event> {
        let at = yaml.get("at").map(|yaml| reader.parsed(yaml, Scalar::Time, "at"));
        let task = |key: &str| yaml.get(key).map(|yaml| (yaml, key == "during"));
        if let (Some(_), Some(after)) = (yaml.get("during"), yaml.get("after")) {
            let wrong = report("an event has `during` or `after`, not both");
            reader.problems.add(after.span, wrong.expected("expected only one of them"));
        }
        let from = match task("during").or(task("after")) {
            None => Some(Origin::Lab),
            Some((yaml, during)) => self
                .task(reader, yaml)
                .map(|task| if during { Origin::During(task) } else { Origin::After(task) }),
        };
        let when = yaml.get("when").map(|yaml| self.when(reader, yaml, from.as_ref()));
        if at.is_none() && when.is_none() && matches!(from, Some(Origin::Lab)) {
            let wrong = report("the event does not say when it happens");
            let wrong = wrong.expected("expected `at`, `during`, `after` or `when`");
            reader.problems.add(yaml.span, wrong);
        }
        let actions = self.actions(reader, yaml)?;
        let at = at.unwrap_or(Some(SimTime::ZERO))?;
        Some(Event {
            from: from?,
            at,
            when: when.map_or(Some(None), |when| when.map(Some))?,
            actions,
        })
    }

    /// A condition over what is known when it is looked at. Without a task, that is whenever a task
    /// has ended, until all metrics it needs are known.
    fn when(&self, reader: &mut Reader<'_>, yaml: &Yaml, from: Option<&Origin>) -> Option<String> {
        let Subjects { tasks, measured, known, .. } = *self.subjects;
        let place = |name: &str| tasks.iter().position(|task| task.name == name);
        let count = match from {
            Some(Origin::During(task)) => match place(task)? {
                0 => Some(0),
                at => measured.get(at - 1).copied(),
            },
            Some(Origin::After(task)) => measured.get(place(task)?).copied(),
            Some(Origin::Lab) | None => None,
        };
        let then = count.map(|count| known.with_metrics(count));
        let late = then.as_ref().and_then(|then| {
            let text = yaml.scalar()?;
            let inner = &text[sole_expression(text)?];
            let late = |names: &Known| expression::unknown(inner, &names.names());
            late(then).filter(|_| late(known).is_none())
        });
        let Some(metric) = late else {
            return condition(reader, yaml, then.as_ref().unwrap_or(known));
        };
        let task = tasks.iter().find(|task| task.metrics.contains_key(&metric));
        let of = task.map_or_else(String::new, |task| format!(" of task `{}`", task.name));
        let wrong = report(format!("the metric `{metric}`{of} is not measured yet at this event"));
        let wrong = wrong.expected("expected metrics that are known at the task's start or end");
        let help = "name a later task in `during` or `after`, or none: the condition is then looked \
                    at whenever a task ends";
        reader.problems.add(yaml.span, wrong.help(help));
        None
    }

    fn task(&self, reader: &mut Reader<'_>, yaml: &Yaml) -> Option<String> {
        let name = reader.checked(yaml, Scalar::Name, "task")?;
        let tasks = || self.subjects.tasks.iter().map(|task| task.name.as_str());
        if tasks().any(|task| task == name) {
            return Some(name);
        }
        if !self.doubtful {
            let wrong = report(format!("unknown task `{}`", excerpt(&name)));
            let wrong = wrong.expected("expected a task from `tasks:`");
            reader.problems.add(yaml.span, wrong.suggest(&name, tasks(), "tasks"));
        }
        None
    }

    fn actions(&mut self, reader: &mut Reader<'_>, yaml: &Yaml) -> Option<Vec<Action>> {
        let present: Vec<(&str, &Yaml)> =
            ACTIONS.iter().filter_map(|key| Some((*key, yaml.get(key)?))).collect();
        let [(key, value)] = present.as_slice() else {
            let words: Vec<String> = ACTIONS.iter().map(|word| format!("`{word}`")).collect();
            let wrong = match present.len() {
                0 => "the event does not say what happens".to_owned(),
                found => format!("an event does one thing, found {found}"),
            };
            let wrong = report(wrong).expected(format!("expected one of {}", words.join(", ")));
            reader.problems.add(yaml.span, wrong);
            return None;
        };
        if let (Some(link), true) = (yaml.get("link"), *key != "set") {
            let wrong = report(format!("`link` is for `set`; `{key}` names its links itself"));
            reader.problems.add(link.span, wrong.expected("not for this event"));
        }
        if let Some(empty) = emptied(value)
            .or_else(|| value.get("link").and_then(emptied))
            .or_else(|| yaml.get("link").and_then(emptied))
        {
            let wrong = report(format!("`{key}` is for nothing: the list is empty"));
            reader.problems.add(empty.span, wrong.expected("expected at least one name"));
            return None;
        }
        let of_links = |links: Vec<LinkIndex>, action: fn(LinkIndex) -> Action| {
            Some(links.into_iter().map(action).collect())
        };
        let of_nodes = |nodes: Vec<NodeIndex>, action: fn(NodeIndex) -> Action| {
            Some(nodes.into_iter().map(action).collect())
        };
        match *key {
            "set" => self.set(reader, yaml, value),
            "down" => of_links(self.links(reader, value)?, |link| Action::Down { link }),
            "up" => of_links(self.links(reader, value)?, |link| Action::Up { link }),
            "flap" => {
                let (down, up) = (time(reader, value, "down"), time(reader, value, "up"));
                let times = value.get("times").map_or(Some(1), |yaml| {
                    reader.parsed(yaml, Scalar::Integer { min: 1, max: 100_000 }, "times")
                });
                let links = self.links(reader, value.get("link")?)?;
                let (down, up, times) = (down?, up?, times?);
                let flap = |link| Action::Flap { link, down, up, times };
                Some(links.into_iter().map(flap).collect())
            }
            "partition" => Some(vec![self.partition(reader, value)?]),
            "heal" => Some(vec![self.heal(reader, value)?]),
            "pause" => of_nodes(self.nodes(reader, value)?, |node| Action::Pause { node }),
            "resume" => of_nodes(self.nodes(reader, value)?, |node| Action::Resume { node }),
            "kill" => of_nodes(self.nodes(reader, value)?, |node| Action::Kill { node }),
            _ => of_nodes(self.nodes(reader, value)?, |node| Action::Restart { node }),
        }
    }

    /// Links by name: of one, of a shape of several, or a range of names. Each counts once.
    fn links(&self, reader: &mut Reader<'_>, yaml: &Yaml) -> Option<Vec<LinkIndex>> {
        let all = self.subjects.links;
        let mut links = IndexSet::new();
        let mut complete = true;
        for item in one_or_many(yaml) {
            let Some(names) = reader.link_names(item) else {
                complete = false;
                continue;
            };
            for name in names {
                if let Some(found) = all.named(&name) {
                    links.extend(found);
                    continue;
                }
                complete = false;
                if !self.doubtful {
                    let wrong = report(format!("unknown link `{}`", excerpt(&name)));
                    let wrong = wrong.expected("expected the name of a link from `links:`");
                    let known = all.links().iter().map(|link| link.name.as_str());
                    let known = all.shapes().chain(known);
                    reader.problems.add(item.span, wrong.suggest(&name, known, "links"));
                }
            }
        }
        complete.then(|| links.into_iter().collect())
    }

    fn nodes(&self, reader: &mut Reader<'_>, yaml: &Yaml) -> Option<Vec<NodeIndex>> {
        let drafts = self.subjects.drafts;
        let mut nodes = Vec::new();
        let mut complete = true;
        for (name, span) in reader.hosts(yaml)? {
            match drafts.by_name.get(name.as_str()) {
                Some(&node) => nodes.push(node),
                None => {
                    unknown_node(reader, drafts, &name, span);
                    complete = false;
                }
            }
        }
        complete.then_some(nodes)
    }

    fn set(&mut self, reader: &mut Reader<'_>, yaml: &Yaml, set: &Yaml) -> Option<Vec<Action>> {
        let Some(link) = yaml.get("link") else {
            let wrong = report("`set` needs the key `link`");
            reader.problems.add(set.span, wrong.expected("expected `link:` with links' names"));
            return None;
        };
        let links = self.links(reader, link)?;
        let mut actions = Vec::new();
        for link in links {
            actions.push(self.set_link(reader, set, link)?);
        }
        Some(actions)
    }

    fn set_link(&mut self, reader: &mut Reader<'_>, set: &Yaml, at: LinkIndex) -> Option<Action> {
        let link = &self.subjects.links.links()[at];
        let drafts = self.subjects.drafts;
        let ends: Vec<&str> =
            link.endpoints.iter().map(|end| drafts.nodes[end.node].node.name.as_str()).collect();
        let fields = directions(reader, set, link, &ends)?;
        let change = change(reader, &fields, set, link, &self.states[at])?;
        self.states[at].apply(&change);
        Some(Action::Set { link: at, change: Box::new(change) })
    }

    fn partition(&mut self, reader: &mut Reader<'_>, yaml: &Yaml) -> Option<Action> {
        let mut groups = IndexMap::new();
        let mut group_of: Vec<Option<usize>> = vec![None; self.subjects.drafts.nodes.len()];
        for (number, entry) in yaml.map().unwrap_or_default().iter().enumerate() {
            if entry.key == ALL {
                let wrong = report(format!("`{ALL}` stands for all groups and names none"));
                reader.problems.add(entry.key_span, wrong.expected("expected another name"));
                return None;
            }
            if let Some(empty) = emptied(&entry.value) {
                let wrong = report(format!("the group `{}` has no nodes", excerpt(&entry.key)));
                reader.problems.add(empty.span, wrong.expected("expected at least one node"));
                return None;
            }
            let nodes = self.nodes(reader, &entry.value)?;
            for &node in &nodes {
                if group_of[node].replace(number).is_some() {
                    let name = &self.subjects.drafts.nodes[node].node.name;
                    let wrong = report(format!("the node `{name}` is in two groups"));
                    let wrong = wrong.expected("expected each node once");
                    reader.problems.add(entry.value.span, wrong);
                    return None;
                }
            }
            groups.insert(entry.key.clone(), nodes);
        }
        if groups.is_empty() {
            let wrong = report("the partition has no groups");
            reader.problems.add(yaml.span, wrong.expected("expected nodes by name of their group"));
            return None;
        }
        self.groups.extend(groups.keys().cloned());
        for link in self.subjects.links.links().iter().filter(|link| link.endpoints.len() > 2) {
            let mut sides = link.endpoints.iter().map(|end| group_of[end.node]);
            let first = sides.next();
            if sides.any(|side| Some(side) != first) {
                let wrong = report(format!(
                    "the shared medium `{}` joins nodes of several groups",
                    link.name
                ));
                let help = "a medium cannot be cut between its stations: put a node of kind \
                            `bridge` between them, or all of them into one group";
                let wrong = wrong.expected("expected groups that share no medium");
                reader.problems.add(yaml.span, wrong.help(help));
                return None;
            }
        }
        Some(Action::Partition { groups })
    }

    fn heal(&self, reader: &mut Reader<'_>, yaml: &Yaml) -> Option<Action> {
        let mut groups = Vec::new();
        for item in one_or_many(yaml) {
            let name = reader.checked(item, Scalar::Name, "heal")?;
            if name == ALL {
                return Some(Action::Heal { groups: Vec::new() });
            }
            if !self.groups.contains(&name) {
                let wrong = report(format!("no partition has a group `{}`", excerpt(&name)));
                let wrong = wrong.expected("expected a group of a partition above, or `all`");
                let known = self.groups.iter().map(String::as_str);
                reader.problems.add(item.span, wrong.suggest(&name, known, "groups"));
                return None;
            }
            groups.push(name);
        }
        Some(Action::Heal { groups })
    }
}

/// A list that is written and empty.
fn emptied(yaml: &Yaml) -> Option<&Yaml> {
    yaml.list().is_some_and(<[Yaml]>::is_empty).then_some(yaml)
}

fn time(reader: &mut Reader<'_>, yaml: &Yaml, key: &str) -> Option<SimTime> {
    limit(reader, yaml.get(key)?, key)
}
