//! The shell proxy's I/O: one tokio task per node between a byte stream and the state machine.
//!
//! The task owns the machine and the reading half. The writing half is shared under a lock, so that
//! [`Armed::release`](super::Armed::release) writes its one byte from the caller's thread: eight
//! releases are eight system calls back to back, without eight tasks being woken in between.

use std::collections::BTreeMap;
use std::future::poll_fn;
use std::io::Read;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Instant;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadHalf};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot, watch};

use super::command::{Cut, Finished, Started};
use super::frame::Key;
use super::line::StartLine;
use super::machine::{Event, Lost, Machine, Start};
use super::output::Collector;
use crate::console::Console;
use crate::os::Os;

/// Bytes read from a guest at once.
const BURST: usize = 64 << 10;

/// What the driver and the handles share.
pub(super) struct Shared {
    pub(super) node: String,
    /// One command at a time; the driver holds the permit of the command in progress.
    pub(super) slot: Arc<Semaphore>,
    pub(super) next_token: AtomicU64,
    /// The process that runs the guest, if it can be held at a start line.
    pub(super) emulator: Option<u32>,
    /// Where the command that was just released meets those of other guests.
    line: Mutex<Option<Arc<StartLine>>>,
    writer: Mutex<Box<dyn AsyncWrite + Send + Unpin>>,
    /// A line was written in part: nothing may be written behind its back.
    is_mid_line: AtomicBool,
    /// Background commands that were started and not stopped, by number.
    behind: Mutex<BTreeMap<u32, Behind>>,
}

/// A background command.
pub(super) struct Behind {
    /// Its process in the guest.
    pub(super) process: u32,
    /// The file in the guest that takes its output.
    pub(super) file: String,
    /// That output, rescued before the guest ended.
    pub(super) left: Option<Box<dyn Read + Send>>,
}

/// What the driver publishes.
#[derive(Debug, Clone, Default)]
pub(super) struct Status {
    pub(super) ready: bool,
    pub(super) directory: Option<String>,
    pub(super) lost: Option<Lost>,
    /// What is being done to the node, while its commands have been told and its shell still answers.
    pub(super) ending: Option<String>,
    pub(super) background_ends: BTreeMap<u32, (u8, Instant)>,
}

pub(super) enum Request {
    Start {
        token: u64,
        start: Start,
        sink: Box<Sink>,
    },
    Release {
        token: u64,
        written: bool,
    },
    Cancel {
        token: u64,
    },
    Signal {
        process: u32,
        signal: &'static str,
    },
    /// Ends the command in progress, which hears at once that the node is being ended.
    Cut {
        why: String,
    },
    End {
        why: String,
    },
}

/// Where the news of a command go; dropped, they tell the waiting side that the shell is gone.
pub(super) struct Sink {
    armed: Option<oneshot::Sender<()>>,
    started: Option<oneshot::Sender<Started>>,
    finished: Option<oneshot::Sender<Result<Finished, Cut>>>,
    started_at: Option<Instant>,
    /// Until the command has ended or was cut.
    collector: Option<Collector>,
    _permit: OwnedSemaphorePermit,
}

impl Sink {
    pub(super) fn new(
        armed: oneshot::Sender<()>,
        started: oneshot::Sender<Started>,
        finished: oneshot::Sender<Result<Finished, Cut>>,
        collector: Collector,
        permit: OwnedSemaphorePermit,
    ) -> Self {
        Self {
            armed: Some(armed),
            started: Some(started),
            finished: Some(finished),
            started_at: None,
            collector: Some(collector),
            _permit: permit,
        }
    }

    /// Tells that the command gets no further.
    fn cut(&mut self) {
        self.armed = None;
        self.started = None;
        if let (Some(finished), Some(collector)) = (self.finished.take(), self.collector.take())
            && let Some(started) = self.started_at
        {
            let _ = finished.send(Err(Cut { started, output: collector.finish() }));
        }
    }
}

impl Shared {
    /// Writes the releasing byte now, if the stream takes it.
    pub(super) fn write_release(&self, line: Option<&Arc<StartLine>>) -> bool {
        let mut writer = self.writer();
        if self.is_mid_line.load(Ordering::Acquire) {
            return false;
        }
        *self.line() = line.cloned();
        let mut context = Context::from_waker(Waker::noop());
        matches!(Pin::new(&mut *writer).poll_write(&mut context, b"\n"), Poll::Ready(Ok(1)))
    }

    /// The command that was released has begun to say that it starts.
    fn reach_line(&self) {
        if let Some(line) = self.line().take()
            && let Some(emulator) = self.emulator
        {
            line.arrived(emulator);
        }
    }

    pub(super) fn behind(&self) -> MutexGuard<'_, BTreeMap<u32, Behind>> {
        self.behind.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn line(&self) -> MutexGuard<'_, Option<Arc<StartLine>>> {
        self.line.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn writer(&self) -> MutexGuard<'_, Box<dyn AsyncWrite + Send + Unpin>> {
        self.writer.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Takes over `stream`: a task that drives the machine, and what handles need to talk to it.
///
/// Must be called inside a tokio runtime.
pub(super) fn spawn<S>(
    node: &str,
    stream: S,
    os: &'static Os,
    console: Console,
    emulator: Option<u32>,
) -> (Arc<Shared>, mpsc::UnboundedSender<Request>, watch::Receiver<Status>)
where
    S: AsyncRead + AsyncWrite + Send + 'static,
{
    let (reader, writer) = tokio::io::split(stream);
    let shared = Arc::new(Shared {
        node: node.to_owned(),
        slot: Arc::new(Semaphore::new(1)),
        next_token: AtomicU64::new(0),
        emulator,
        line: Mutex::new(None),
        writer: Mutex::new(Box::new(writer)),
        is_mid_line: AtomicBool::new(false),
        behind: Mutex::default(),
    });
    let (requests, inbox) = mpsc::unbounded_channel();
    let (publish, status) = watch::channel(Status::default());
    let keys = Box::new(|| Key::from_u64(rand::random()));
    let driver = Driver {
        reader,
        machine: Machine::new(os, keys, Instant::now()),
        shared: Arc::clone(&shared),
        console,
        inbox,
        publish,
        current: None,
        unsent: Vec::new(),
    };
    tokio::spawn(driver.run());
    (shared, requests, status)
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
                            self.machine.handle_input(&burst[..length], now);
                            if self.machine.is_starting() {
                                self.shared.reach_line();
                            }
                            self.console.append(&burst[..length]);
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
            Request::Cut { why } => {
                self.publish.send_modify(|status| status.ending = Some(why));
                if let Some((_, sink)) = &mut self.current {
                    sink.cut();
                }
                self.machine.cancel(now);
                if self.machine.is_idle() {
                    self.current = None;
                }
            }
            Request::End { why } => self.machine.handle_end(why),
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
                    if let Some((_, mut sink)) = self.current.take() {
                        sink.cut();
                    }
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
            Event::Started { at, process, number, close } => {
                self.shared.reach_line();
                sink.armed.take().map(|armed| armed.send(()));
                sink.started_at = Some(at);
                let start = Started { at, process, number, close };
                sink.started.take().map(|started| started.send(start));
            }
            Event::Output(bytes) => {
                if let Some(collector) = &mut sink.collector {
                    collector.push(&bytes);
                }
            }
            Event::Ended { status, timed_out } => {
                if let Some((_, mut sink)) = self.current.take()
                    && let Some(finished) = sink.finished.take()
                    && let Some(collector) = sink.collector.take()
                {
                    let _ = finished.send(Ok(Finished {
                        started: sink.started_at.unwrap_or(now),
                        ended: now,
                        status,
                        timed_out,
                        output: collector.finish(),
                    }));
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
