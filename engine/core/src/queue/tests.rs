use proptest::prelude::*;

use super::*;

fn at(nanos: u64) -> SimTime {
    SimTime::from_nanos(nanos)
}

#[test]
fn ties_come_out_in_the_order_of_scheduling() {
    let mut queue = EventQueue::new();
    for (time, event) in [(5, 'a'), (1_000_000, 'b'), (5, 'c'), (0, 'd'), (1_000_000, 'e')] {
        queue.schedule(at(time), event);
    }
    assert_eq!(queue.pop(), Some((at(0), 'd')));
    queue.schedule(at(1_000_000), 'f');
    queue.schedule(at(0), 'g');
    let rest: String = std::iter::from_fn(|| queue.pop().map(|(_, event)| event)).collect();
    assert_eq!(rest, "gacbef");
    assert_eq!(queue.last().time(), at(1_000_000));
}

#[test]
fn looking_ahead_does_not_move_time() {
    let mut queue = EventQueue::new();
    queue.schedule(at(1_000), 'z');
    assert_eq!(queue.peek_time(), Some(at(1_000)));
    queue.schedule(at(3), 'a');
    assert_eq!(queue.peek_time(), Some(at(3)));
    assert_eq!(queue.pop_due(at(2)), None);
    assert_eq!(queue.pop_due(at(3)), Some((at(3), 'a')));
}

#[test]
fn an_event_for_the_past_is_due_now() {
    let mut queue = EventQueue::new();
    queue.schedule(at(10), 'a');
    queue.schedule(at(10), 'b');
    queue.pop();
    queue.schedule(at(4), 'c');
    assert_eq!(queue.pop(), Some((at(10), 'b')));
    assert_eq!(queue.pop(), Some((at(10), 'c')));
}

#[test]
fn stale_keys_are_harmless() {
    let mut queue = EventQueue::new();
    let key = queue.schedule(at(1), 'a');
    queue.pop();
    assert_eq!(queue.cancel(key), None);
    let reused = queue.schedule(at(2), 'b');
    assert_eq!(queue.cancel(key), None);
    assert_eq!(queue.cancel(reused), Some('b'));
    assert_eq!(queue.cancel(reused), None);
    assert!(queue.is_empty() && queue.pop().is_none() && queue.peek_time().is_none());
}

#[test]
fn the_end_of_time_can_be_scheduled() {
    let mut queue = EventQueue::new();
    queue.schedule(SimTime::MAX, 1);
    queue.schedule(at(u64::MAX - 1), 0);
    queue.schedule(SimTime::MAX, 2);
    let events: Vec<_> = std::iter::from_fn(|| queue.pop()).collect();
    assert_eq!(events, [(at(u64::MAX - 1), 0), (SimTime::MAX, 1), (SimTime::MAX, 2)]);
}

#[derive(Debug, Clone)]
enum Step {
    /// Schedule this long after the last popped time.
    Schedule(u64),
    Pop,
    /// Cancel the event scheduled as this one, modulo how many there were.
    Cancel(usize),
    /// Reserve a place this long after the last popped time.
    Reserve(u64),
    /// Schedule at a reserved place, modulo how many there are, unless it has passed.
    ScheduleReserved(usize),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        4 => (0..4_u64, 0..63_u32).prop_map(|(n, shift)| Step::Schedule(n << shift)),
        4 => (0..5_000_u64).prop_map(Step::Schedule),
        4 => Just(Step::Pop),
        4 => (0..3_u64).prop_map(Step::Schedule),
        2 => any::<usize>().prop_map(Step::Cancel),
        2 => (0..5_u64).prop_map(Step::Reserve),
        1 => (0..5_000_u64).prop_map(Step::Reserve),
        2 => any::<usize>().prop_map(Step::ScheduleReserved),
    ];
    prop::collection::vec(step, 0..600)
}

proptest! {
    #[test]
    fn behaves_like_a_sorted_list(steps in steps()) {
        let mut queue = EventQueue::new();
        // Pending events as (time, sequence); an event is known by its sequence.
        let mut model: Vec<(SimTime, usize)> = Vec::new();
        let mut last = (SimTime::ZERO, 0);
        let mut sequence = 0;
        let mut keys = Vec::new();
        let mut reserved = Vec::new();
        for step in steps {
            match step {
                Step::Schedule(after) => {
                    sequence += 1;
                    let time = last.0 + at(after);
                    model.push((time, sequence));
                    keys.push((sequence, queue.schedule(time, sequence)));
                }
                Step::Reserve(after) => {
                    sequence += 1;
                    let time = last.0 + at(after);
                    reserved.push(((time, sequence), queue.reserve(time)));
                }
                Step::ScheduleReserved(which) if !reserved.is_empty() => {
                    let which = which % reserved.len();
                    let (place, position) = reserved.swap_remove(which);
                    prop_assert_eq!(place < last, position < queue.last());
                    if place > last {
                        model.push(place);
                        keys.push((place.1, queue.schedule_reserved(position, place.1)));
                    }
                }
                Step::Pop => {
                    let earliest = model.iter().min().copied();
                    model.retain(|&event| Some(event) != earliest);
                    prop_assert_eq!(queue.pop(), earliest);
                    last = earliest.unwrap_or(last);
                }
                Step::Cancel(which) if !keys.is_empty() => {
                    let (which, key) = keys[which % keys.len()];
                    let pending = model.iter().any(|&(_, event)| event == which);
                    model.retain(|&(_, event)| event != which);
                    prop_assert_eq!(queue.cancel(key), pending.then_some(which));
                }
                Step::Cancel(_) | Step::ScheduleReserved(_) => {}
            }
            prop_assert_eq!(queue.len(), model.len());
            prop_assert_eq!(queue.peek_time(), model.iter().min().map(|&(time, _)| time));
        }
        model.sort_unstable();
        prop_assert_eq!(std::iter::from_fn(|| queue.pop()).collect::<Vec<_>>(), model);
    }
}
