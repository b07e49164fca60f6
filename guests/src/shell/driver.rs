//! The shell proxy's I/O: one tokio task per node between a byte stream and the state machine.
//!
//! The task owns the machine and the reading half. The writing half is shared under a lock, so that
//! [`Armed::release`](super::Armed::release) writes its one byte from the caller's thread: eight
//! releases are eight system calls back to back, without eight tasks being woken in between.

use std::collections::BTreeMap;
use std::fmt;
use std::future::poll_fn;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadHalf};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot, watch};

use super::agent::COMMAND_BYTES;
use super::command::{
    Armed, Background, CommandError, Finished, RunOptions, Running, Started, brief, collector, tail,
};
use super::frame::Key;
use super::machine::{Event, Lost, Machine, Start};
use super::output::Collector;
use crate::console::Console;
use crate::os::Os;

/// Bytes read from a guest at once.
const BURST: usize = 64 << 10;

/// How a node's shell is reached.
#[derive(Debug, Clone)]
pub struct LoginOptions {
    /// File that takes every byte of the console.
    pub console_log: Option<PathBuf>,
    /// Longest time until commands can be run (the guest's boot included).
    pub timeout: Duration,
}

/// Why a node has no shell.
#[derive(Debug, thiserror::Error)]
pub enum LoginError {
    /// The console log cannot be written.
    #[error("node `{node}`: cannot write its console log {}: {source}; make the directory writable", path.display())]
    Log {
        /// The node.
        node: String,
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
    /// No shell within the time given.
    #[error(
        "node `{node}` showed no usable shell within {after:?}; raise its `boot_timeout:` or check its image, `os:` and `kernel_args:`{}",
        tail(console)
    )]
    NoShell {
        /// The node.
        node: String,
        /// The time given.
        after: Duration,
        /// The last lines of its console.
        console: Vec<String>,
    },
    /// The guest died on the way.
    #[error("node `{node}` did not get to a shell: {cause}{}", tail(console))]
    Lost {
        /// The node.
        node: String,
        /// What happened.
        cause: Lost,
        /// The last lines of its console.
        console: Vec<String>,
    },
}

/// A node's shell; clones share it. When the last clone is gone, so is the stream.
#[derive(Clone)]
pub struct Shell {
    shared: Arc<Shared>,
    requests: mpsc::UnboundedSender<Request>,
    status: watch::Receiver<Status>,
    console: Console,
}

struct Shared {
    node: String,
    /// One command at a time; the driver holds the permit of the command in progress.
    slot: Arc<Semaphore>,
    next_token: AtomicU64,
    writer: Mutex<Box<dyn AsyncWrite + Send + Unpin>>,
    /// A line was written in part: nothing may be written behind its back.
    is_mid_line: AtomicBool,
}

/// What the driver publishes.
#[derive(Debug, Clone, Default)]
struct Status {
    ready: bool,
    directory: Option<String>,
    lost: Option<Lost>,
    background_ends: BTreeMap<u32, (u8, Instant)>,
}

pub(super) enum Request {
    Start { token: u64, start: Start, sink: Box<Sink> },
    Release { token: u64, written: bool },
    Cancel { token: u64 },
    Signal { process: u32, signal: &'static str },
}

/// Where the news of a command go; dropped, they tell the waiting side that the shell is gone.
pub(super) struct Sink {
    armed: Option<oneshot::Sender<()>>,
    started: Option<oneshot::Sender<Started>>,
    finished: Option<oneshot::Sender<Finished>>,
    started_at: Option<Instant>,
    collector: Collector,
    _permit: OwnedSemaphorePermit,
}

impl fmt::Debug for Shell {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Shell").field(&self.shared.node).finish()
    }
}

impl Shell {
    /// Waits for a shell on `stream` and takes it over. `node` names it in errors.
    ///
    /// Must be called inside a tokio runtime, which then also drives the shell.
    pub async fn login<S>(
        node: &str,
        stream: S,
        os: &'static Os,
        options: &LoginOptions,
    ) -> Result<Self, LoginError>
    where
        S: AsyncRead + AsyncWrite + Send + 'static,
    {
        let log = options.console_log.as_deref();
        let console = Console::open(log).map_err(|source| LoginError::Log {
            node: node.to_owned(),
            path: log.map(Path::to_path_buf).unwrap_or_default(),
            source,
        })?;
        let mut shell = Self::spawn(node, stream, os, console);
        let ready = async {
            let status = shell.status.wait_for(|s| s.ready || s.lost.is_some()).await;
            status.map_or(Some(Lost::Closed), |status| status.lost.clone())
        };
        let outcome = tokio::time::timeout(options.timeout, ready).await;
        let node = node.to_owned();
        match outcome {
            Ok(None) => Ok(shell),
            Ok(Some(cause)) => {
                Err(LoginError::Lost { node, cause, console: shell.console.last_lines() })
            }
            Err(_) => Err(LoginError::NoShell {
                node,
                after: options.timeout,
                console: shell.console.last_lines(),
            }),
        }
    }

    fn spawn<S>(node: &str, stream: S, os: &'static Os, console: Console) -> Self
    where
        S: AsyncRead + AsyncWrite + Send + 'static,
    {
        let (reader, writer) = tokio::io::split(stream);
        let shared = Arc::new(Shared {
            node: node.to_owned(),
            slot: Arc::new(Semaphore::new(1)),
            next_token: AtomicU64::new(0),
            writer: Mutex::new(Box::new(writer)),
            is_mid_line: AtomicBool::new(false),
        });
        let (requests, inbox) = mpsc::unbounded_channel();
        let (publish, status) = watch::channel(Status::default());
        let keys = Box::new(|| Key::from_u64(rand::random()));
        let driver = Driver {
            reader,
            machine: Machine::new(os, keys, Instant::now()),
            shared: Arc::clone(&shared),
            console: console.clone(),
            inbox,
            publish,
            current: None,
            unsent: Vec::new(),
        };
        tokio::spawn(driver.run());
        Self { shared, requests, status, console }
    }

    /// The node's name.
    pub fn node(&self) -> &str {
        &self.shared.node
    }

    /// The node's console.
    pub fn console(&self) -> &Console {
        &self.console
    }

    /// Why the shell is gone, if it is.
    pub fn lost(&self) -> Option<Lost> {
        self.status.borrow().lost.clone()
    }

    /// Waits until the shell is gone (the guest died or was stopped) and says why.
    pub async fn wait_lost(&self) -> Lost {
        let mut status = self.status.clone();
        let found = status.wait_for(|s| s.lost.is_some()).await;
        found.ok().and_then(|s| s.lost.clone()).unwrap_or(Lost::Closed)
    }

    /// Runs a command and waits for its end. Waits its turn if the node is busy.
    pub async fn run(&self, text: &str, options: &RunOptions) -> Result<Finished, CommandError> {
        let (running, _) = self.begin(text, options, false, true).await?;
        running.finish().await
    }

    /// Delivers a command, so that [`Armed::release`] starts it with one byte.
    pub async fn arm(&self, text: &str, options: &RunOptions) -> Result<Armed, CommandError> {
        let (inner, armed) = self.begin(text, options, false, false).await?;
        match armed.await {
            Ok(()) => Ok(Armed { inner }),
            Err(_) => Err(self.lost_error(text)),
        }
    }

    /// Starts a command that goes on behind later ones; waits for its start.
    pub async fn start_background(
        &self,
        text: &str,
        options: &RunOptions,
    ) -> Result<Background, CommandError> {
        let Some(directory) = self.status.borrow().directory.clone() else {
            return Err(CommandError::NoDirectory {
                node: self.node().to_owned(),
                command: brief(text),
            });
        };
        let (mut running, _) = self.begin(text, options, true, true).await?;
        let start = running.start().await?;
        // The foreground is free again; there is nothing to cancel.
        running.finished = None;
        Ok(Background {
            shell: self.clone(),
            text: text.to_owned(),
            file: format!("{directory}/{}", start.number),
            start,
        })
    }

    async fn begin(
        &self,
        text: &str,
        options: &RunOptions,
        background: bool,
        at_once: bool,
    ) -> Result<(Running, oneshot::Receiver<()>), CommandError> {
        let (node, command) = (self.node().to_owned(), brief(text));
        if text.contains('\0') {
            return Err(CommandError::Nul { node, command });
        }
        if text.len() > COMMAND_BYTES {
            return Err(CommandError::TooLong {
                node,
                command,
                bytes: text.len(),
                limit: COMMAND_BYTES,
            });
        }
        let permit = Arc::clone(&self.shared.slot).acquire_owned();
        let Ok(permit) = tokio::time::timeout(options.queue, permit).await else {
            return Err(CommandError::Busy { node, command, waited: options.queue });
        };
        let permit = permit.map_err(|_| self.lost_error(text))?;
        let (armed, when_armed) = oneshot::channel();
        let (started, when_started) = oneshot::channel();
        let (finished, when_finished) = oneshot::channel();
        let token = self.shared.next_token.fetch_add(1, Ordering::Relaxed);
        let sink = Sink {
            armed: Some(armed),
            started: Some(started),
            finished: Some(finished),
            started_at: None,
            collector: collector(self.node(), text, options)?,
            _permit: permit,
        };
        let start = Start {
            text: text.to_owned(),
            background,
            at_once,
            timeout: (!background).then_some(options.timeout),
        };
        // If the driver is gone, so are the sinks, and the receivers say so.
        self.request(Request::Start { token, start, sink: Box::new(sink) });
        let running = Running {
            shell: self.clone(),
            text: text.to_owned(),
            token,
            started: Some(when_started),
            finished: Some(when_finished),
            start: None,
        };
        Ok((running, when_armed))
    }

    pub(super) fn request(&self, request: Request) {
        // A driver that is gone has published why.
        let _ = self.requests.send(request);
    }

    /// Writes the releasing byte now, if the stream takes it.
    pub(super) fn write_release(&self) -> bool {
        let mut writer = self.shared.writer();
        if self.shared.is_mid_line.load(Ordering::Acquire) {
            return false;
        }
        let mut context = Context::from_waker(Waker::noop());
        matches!(Pin::new(&mut *writer).poll_write(&mut context, b"\n"), Poll::Ready(Ok(1)))
    }

    pub(super) fn background_end(&self, number: u32) -> Option<(u8, Instant)> {
        self.status.borrow().background_ends.get(&number).copied()
    }

    pub(super) async fn wait_background_end(&self, number: u32, longest: Duration) {
        let mut status = self.status.clone();
        let ended =
            status.wait_for(|s| s.lost.is_some() || s.background_ends.contains_key(&number));
        // Late or gone: the caller looks again.
        let _ = tokio::time::timeout(longest, ended).await;
    }

    pub(super) fn lost_error(&self, text: &str) -> CommandError {
        CommandError::Lost {
            node: self.node().to_owned(),
            command: brief(text),
            cause: self.lost().unwrap_or(Lost::Closed),
            console: self.console.last_lines(),
        }
    }

    pub(super) fn silent_error(&self, text: &str, while_: &'static str) -> CommandError {
        CommandError::Lost {
            node: self.node().to_owned(),
            command: brief(text),
            cause: Lost::Silent { while_ },
            console: self.console.last_lines(),
        }
    }
}

impl Shared {
    fn writer(&self) -> MutexGuard<'_, Box<dyn AsyncWrite + Send + Unpin>> {
        self.writer.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

struct Driver<S> {
    reader: ReadHalf<S>,
    machine: Machine,
    shared: Arc<Shared>,
    console: Console,
    inbox: mpsc::UnboundedReceiver<Request>,
    publish: watch::Sender<Status>,
    current: Option<(u64, Box<Sink>)>,
    unsent: Vec<u8>,
}

impl<S: AsyncRead + AsyncWrite + Send + 'static> Driver<S> {
    /// Runs until the shell is lost or nobody holds it any more.
    async fn run(mut self) {
        let mut burst = vec![0; BURST];
        loop {
            self.publish_events(Instant::now());
            if self.publish.borrow().lost.is_some() {
                break;
            }
            while let Some(bytes) = self.machine.poll_transmit() {
                self.unsent.extend(bytes);
            }
            let due = self.machine.poll_timeout();
            let unsent = &self.unsent;
            let shared = &self.shared;
            tokio::select! {
                read = self.reader.read(&mut burst) => {
                    let now = Instant::now();
                    match read {
                        Ok(0) | Err(_) => self.machine.handle_closed(),
                        Ok(length) => {
                            self.console.append(&burst[..length]);
                            self.machine.handle_input(&burst[..length], now);
                        }
                    }
                    self.publish_events(now);
                }
                written = poll_fn(|cx| write(shared, unsent, cx)), if !unsent.is_empty() => match written {
                    Ok(length) => drop(self.unsent.drain(..length)),
                    Err(_) => self.machine.handle_closed(),
                },
                request = self.inbox.recv() => match request {
                    Some(request) => self.obey(request),
                    None => break,
                },
                () = sleep_until(due) => self.machine.handle_timeout(Instant::now()),
            }
        }
        // Whoever waits for a permit learns that none will come.
        self.shared.slot.close();
    }

    fn obey(&mut self, request: Request) {
        let now = Instant::now();
        let current = self.current.as_ref().map(|(token, _)| *token);
        match request {
            Request::Start { token, start, sink } => {
                // The caller may have gone while it queued.
                if sink.finished.as_ref().is_some_and(oneshot::Sender::is_closed) {
                    return;
                }
                self.current = Some((token, sink));
                self.machine.start(start, now);
            }
            Request::Release { token, written } if current == Some(token) => {
                self.machine.release(written, now);
            }
            Request::Cancel { token } if current == Some(token) => {
                self.machine.cancel(now);
                if self.machine.is_idle() {
                    self.current = None;
                }
            }
            Request::Signal { process, signal } => self.machine.signal(process, signal, now),
            Request::Release { .. } | Request::Cancel { .. } => {}
        }
    }

    fn publish_events(&mut self, now: Instant) {
        while let Some(event) = self.machine.poll_event() {
            match event {
                Event::Ready => {
                    let directory = self.machine.directory().map(ToOwned::to_owned);
                    self.publish.send_modify(|status| {
                        status.ready = true;
                        status.directory = directory;
                    });
                }
                Event::BackgroundEnded { number, status } => {
                    self.publish.send_modify(|s| {
                        s.background_ends.entry(number).or_insert((status, now));
                    });
                }
                Event::Lost(lost) => {
                    self.publish.send_modify(|status| status.lost = Some(lost));
                    self.current = None;
                }
                event => self.tell_current(event, now),
            }
        }
        // A background command frees the shell as soon as it has started.
        if self.machine.is_idle() {
            self.current = None;
        }
    }

    fn tell_current(&mut self, event: Event, now: Instant) {
        let Some((_, sink)) = &mut self.current else {
            return;
        };
        // Receivers that are gone have cancelled the command; its end is still awaited here.
        match event {
            Event::Armed => {
                if let Some(armed) = sink.armed.take()
                    && armed.send(()).is_err()
                {
                    self.machine.cancel(now);
                }
            }
            Event::Started { process, number, close } => {
                sink.armed.take().map(|armed| armed.send(()));
                sink.started_at = Some(now);
                let start = Started { at: now, process, number, close };
                sink.started.take().map(|started| started.send(start));
            }
            Event::Output(bytes) => sink.collector.push(&bytes),
            Event::Ended { status, timed_out } => {
                if let Some((_, mut sink)) = self.current.take()
                    && let Some(finished) = sink.finished.take()
                {
                    let _ = finished.send(Finished {
                        started: sink.started_at.unwrap_or(now),
                        ended: now,
                        status,
                        timed_out,
                        output: sink.collector.finish(),
                    });
                }
            }
            Event::Ready | Event::BackgroundEnded { .. } | Event::Lost(_) => {}
        }
    }
}

/// Writes what the stream takes of `bytes`.
fn write(shared: &Shared, bytes: &[u8], cx: &mut Context<'_>) -> Poll<std::io::Result<usize>> {
    let mut writer = shared.writer();
    let poll = Pin::new(&mut *writer).poll_write(cx, bytes);
    let is_mid_line = match &poll {
        Poll::Ready(Ok(length)) => *length > 0 && bytes[length - 1] != b'\n',
        // A line begun before is still unfinished.
        Poll::Pending => shared.is_mid_line.load(Ordering::Acquire),
        Poll::Ready(Err(_)) => true,
    };
    shared.is_mid_line.store(is_mid_line, Ordering::Release);
    match poll {
        Poll::Ready(Ok(0)) => Poll::Ready(Err(std::io::ErrorKind::WriteZero.into())),
        poll => poll,
    }
}

async fn sleep_until(due: Option<Instant>) {
    match due {
        Some(due) => tokio::time::sleep_until(due.into()).await,
        None => std::future::pending().await,
    }
}
