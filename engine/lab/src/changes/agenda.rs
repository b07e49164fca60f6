//! What is planned to happen, and when: the topology file's `events` on the run's clock.
//!
//! Purpose: the same in real and in virtual time. [`Agenda::occasion`] is told of each beginning
//! and end of a task and puts what follows from it on the clock; whoever carries changes out takes
//! what is due.

use std::collections::BTreeMap;

use parking_lot::Mutex;
use tapestry_core::SimTime;
use tapestry_topologies::expression::{self, ExprError, Scope};
use tapestry_topologies::resolved::{Action, Event, Origin};
use tokio::sync::Notify;

/// The events of a run.
#[derive(Debug, Default)]
pub(crate) struct Agenda {
    inner: Mutex<Inner>,
    changed: Notify,
}

#[derive(Debug, Default)]
struct Inner {
    /// Those whose time does not count yet, with their numbers.
    waiting: Vec<(usize, Event)>,
    /// Those on the clock; ties in the order of the file.
    due: BTreeMap<(SimTime, u64), (usize, Action)>,
    scheduled: u64,
    /// How many have been taken and not done.
    under_way: usize,
}

/// Something that is due.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Due {
    /// When.
    pub(crate) at: SimTime,
    /// Which of the file's events it belongs to, counted from 1.
    pub(crate) number: usize,
    /// What is to happen.
    pub(crate) action: Action,
}

impl Agenda {
    pub(crate) fn new(events: &[Event]) -> Self {
        let waiting = (1..).zip(events.iter().cloned()).collect();
        let inner = Inner { waiting, ..Inner::default() };
        Self { inner: Mutex::new(inner), changed: Notify::new() }
    }

    /// Tells that the time of some events counts from `now`; returns what is wrong with their
    /// conditions.
    pub(crate) fn occasion(&self, origin: &Origin, now: SimTime, scope: &Scope) -> Vec<String> {
        let mut errors = Vec::new();
        let mut inner = self.inner.lock();
        let waiting = std::mem::take(&mut inner.waiting);
        for (number, event) in waiting {
            // Without a task, a condition is looked at whenever a task has ended.
            let watched = event.from == Origin::Lab && event.when.is_some();
            let concerned = match origin {
                Origin::After(_) => watched || event.from == *origin,
                _ => !watched && event.from == *origin,
            };
            if !concerned {
                inner.waiting.push((number, event));
                continue;
            }
            match event.when.as_ref().map(|when| (when, expression::evaluate(when, scope))) {
                None => inner.schedule(now, number, &event),
                // The metric may come with a later task.
                Some((_, Err(ExprError::UnknownName { .. }))) if watched => {
                    inner.waiting.push((number, event));
                }
                Some((when, Err(error))) => errors.push(format!("event when {when}: {error}")),
                Some((when, Ok(value))) => match value.as_bool() {
                    Some(true) => inner.schedule(now, number, &event),
                    Some(false) if watched => inner.waiting.push((number, event)),
                    Some(false) => {}
                    None => errors.push(format!(
                        "event when {when}: gives {}, not true or false",
                        value.type_name()
                    )),
                },
            }
        }
        drop(inner);
        self.changed.notify_waiters();
        errors
    }

    /// When the next one is due.
    pub(crate) fn peek(&self) -> Option<SimTime> {
        self.inner.lock().due.keys().next().map(|&(at, _)| at)
    }

    /// Takes the next one that is due by `now`. Say [`done`](Self::done) when it is.
    pub(crate) fn pop(&self, now: SimTime) -> Option<Due> {
        let mut inner = self.inner.lock();
        let first = inner.due.first_entry().filter(|first| first.key().0 <= now)?;
        let ((at, _), (number, action)) = first.remove_entry();
        inner.under_way += 1;
        Some(Due { at, number, action })
    }

    /// Notes that one has been carried out.
    pub(crate) fn done(&self) {
        self.inner.lock().under_way -= 1;
        self.changed.notify_waiters();
    }

    /// Returns when something on the clock has changed since the returned future was made.
    pub(crate) fn changed(&self) -> impl Future<Output = ()> {
        self.changed.notified()
    }

    /// Waits until all that is due by `now` has been carried out.
    pub(crate) async fn settled(&self, now: SimTime) {
        loop {
            let changed = self.changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            let due = self.peek().is_some_and(|at| at <= now);
            if !due && self.inner.lock().under_way == 0 {
                return;
            }
            changed.await;
        }
    }

    /// How many events have not come to their time.
    pub(crate) fn left(&self) -> usize {
        let inner = self.inner.lock();
        inner.due.len() + inner.waiting.len()
    }
}

impl Inner {
    fn schedule(&mut self, now: SimTime, number: usize, event: &Event) {
        let at = now.saturating_add(event.at);
        for action in &event.actions {
            let Action::Flap { link, down, up, times } = action else {
                self.add(at, number, action.clone());
                continue;
            };
            let mut at = at;
            for _ in 0..*times {
                self.add(at, number, Action::Down { link: *link });
                at = at.saturating_add(*down);
                self.add(at, number, Action::Up { link: *link });
                at = at.saturating_add(*up);
            }
        }
    }

    fn add(&mut self, at: SimTime, number: usize, action: Action) {
        self.due.insert((at, self.scheduled), (number, action));
        self.scheduled += 1;
    }
}
