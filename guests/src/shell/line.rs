//! The start line: guests that have started a task's commands wait there for the others.
//!
//! Where more guests start than the machine has cores, the first to start would go on to run their
//! commands while the others have yet to read the releasing byte. So a guest whose opening frame
//! begins to arrive is stopped (`SIGSTOP` to its emulator), until all have come that far: the cores
//! then do nothing but bring the rest to the line. For the guest it is as if the host had been
//! busy elsewhere for those milliseconds.
//!
//! A guest that does not come holds the others for [`LONGEST`] at most.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::schedule::ControlFirst;

/// The longest time a guest is held.
const LONGEST: Duration = Duration::from_millis(25);

/// See the module's documentation.
#[derive(Debug, Default)]
pub(crate) struct StartLine {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// Guests yet to come; zero once the line is open.
    awaited: usize,
    held: Vec<Pid>,
    priority: Option<ControlFirst>,
}

impl StartLine {
    /// A line for so many guests, open at once where each has a core.
    pub(crate) fn new(guests: usize) -> Arc<Self> {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        if guests > cores { Self::of(guests) } else { Arc::default() }
    }

    fn of(guests: usize) -> Arc<Self> {
        let priority = Some(ControlFirst::new());
        let state = State { awaited: guests, held: Vec::new(), priority };
        Arc::new(Self { state: Mutex::new(state) })
    }

    /// Opens the line when its time is over. Must be called inside a tokio runtime.
    pub(crate) fn limit(self: &Arc<Self>) {
        if self.lock().awaited == 0 {
            return;
        }
        let line = Arc::clone(self);
        tokio::spawn(async move {
            tokio::time::sleep(LONGEST).await;
            line.open();
        });
    }

    /// The opening frame of a guest begins to arrive; `emulator` is the process that runs it.
    pub(super) fn arrived(&self, emulator: u32) {
        let mut state = self.lock();
        match state.awaited {
            0 => {}
            1 => open(&mut state),
            _ => {
                state.awaited -= 1;
                if let Ok(pid) = i32::try_from(emulator).map(Pid::from_raw)
                    && kill(pid, Signal::SIGSTOP).is_ok()
                {
                    state.held.push(pid);
                }
            }
        }
    }

    /// Lets all go on.
    pub(crate) fn open(&self) {
        open(&mut self.lock());
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn open(state: &mut State) {
    state.awaited = 0;
    for pid in state.held.drain(..) {
        // One that has ended needs no signal.
        let _ = kill(pid, Signal::SIGCONT);
    }
    drop(state.priority.take());
}

/// Whatever happens to the task, no guest stays behind.
impl Drop for StartLine {
    fn drop(&mut self) {
        self.open();
    }
}

#[cfg(test)]
mod tests {
    use std::process::{Child, Command};

    use super::*;

    /// Processes that are there to be held.
    struct Sleepers(Vec<Child>);

    impl Sleepers {
        fn new(count: usize) -> Self {
            let start = |_| Command::new("sleep").arg("60").spawn().expect("sleep starts");
            Self((0..count).map(start).collect())
        }

        /// The state of each, as in `proc(5)`: `S` sleeps, `T` is stopped.
        fn states(&self) -> String {
            let state = |child: &Child| {
                let stat = std::fs::read_to_string(format!("/proc/{}/stat", child.id()));
                let stat = stat.expect("the process is there");
                stat.rsplit_once(") ").and_then(|(_, rest)| rest.chars().next()).unwrap_or('?')
            };
            // Between two states a process may be seen running.
            for _ in 0..1000 {
                let states: String = self.0.iter().map(state).collect();
                if states.chars().all(|c| "ST".contains(c)) {
                    return states;
                }
                std::thread::sleep(Duration::from_millis(1));
            }
            self.0.iter().map(state).collect()
        }

        fn arrive(&self, line: &StartLine, which: usize) {
            line.arrived(self.0[which].id());
        }
    }

    impl Drop for Sleepers {
        fn drop(&mut self) {
            for child in &mut self.0 {
                child.kill().expect("it can be killed");
                child.wait().expect("it ends");
            }
        }
    }

    #[test]
    fn the_last_to_come_lets_all_go() {
        let sleepers = Sleepers::new(3);
        let line = StartLine::of(3);
        sleepers.arrive(&line, 1);
        sleepers.arrive(&line, 0);
        assert_eq!(sleepers.states(), "TTS");
        sleepers.arrive(&line, 2);
        assert_eq!(sleepers.states(), "SSS");
    }

    #[test]
    fn nobody_is_held_at_an_open_line() {
        let sleepers = Sleepers::new(2);
        let line = StartLine::of(2);
        sleepers.arrive(&line, 0);
        line.open();
        sleepers.arrive(&line, 1);
        sleepers.arrive(&line, 1);
        assert_eq!(sleepers.states(), "SS");
    }

    #[test]
    fn a_line_that_is_forgotten_opens() {
        let sleepers = Sleepers::new(2);
        let line = StartLine::of(2);
        sleepers.arrive(&line, 0);
        assert_eq!(sleepers.states(), "TS");
        drop(line);
        assert_eq!(sleepers.states(), "SS");
    }

    #[tokio::test]
    async fn a_guest_that_does_not_come_holds_nobody_for_long() {
        let sleepers = Sleepers::new(2);
        let line = StartLine::of(2);
        line.limit();
        sleepers.arrive(&line, 0);
        tokio::time::sleep(LONGEST + Duration::from_millis(50)).await;
        assert_eq!(sleepers.states(), "SS");
    }
}
