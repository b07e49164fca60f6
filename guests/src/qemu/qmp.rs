//! QMP, QEMU's machine protocol: commands, replies and events as lines of JSON.
//!
//! Assumptions: the peer is QEMU 7.2 or later and has just been started, so its first line is the
//! greeting; one client per stream.
//!
//! Not modelled: out-of-band execution, commands beyond those a lab needs.
//!
//! Reference: QEMU's `docs/interop/qmp-spec.rst` and `qapi/*.json`.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncWrite, AsyncWriteExt, BufReader, Lines};
use tokio::sync::{broadcast, mpsc, oneshot};

/// A connection to QEMU's monitor; cheap to clone.
///
/// When the last clone is dropped the connection closes; QEMU goes on running.
#[derive(Debug, Clone)]
pub struct Qmp {
    requests: mpsc::Sender<Request>,
    /// Weak, so that receivers learn when the connection has ended.
    events: broadcast::WeakSender<Event>,
    version: Version,
}

/// What a client may ask of QEMU.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "execute", content = "arguments")]
pub enum Command {
    /// Leaves negotiation mode; sent by [`Qmp::connect`].
    #[serde(rename = "qmp_capabilities")]
    Capabilities,
    /// Asks for the run state.
    #[serde(rename = "query-status")]
    QueryStatus,
    /// Presses the guest's power button.
    #[serde(rename = "system_powerdown")]
    SystemPowerdown,
    /// Ends QEMU.
    #[serde(rename = "quit")]
    Quit,
    /// Stops the virtual CPUs.
    #[serde(rename = "stop")]
    Stop,
    /// Lets the virtual CPUs go on.
    #[serde(rename = "cont")]
    Cont,
    /// Plugs or unplugs a NIC's cable.
    #[serde(rename = "set_link")]
    SetLink {
        /// Identifier of the NIC's back end, `net0`, `net1`, … in the order of NICs.
        name: String,
        /// Whether the cable is plugged in.
        up: bool,
    },
}

/// QEMU's run state.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Status {
    /// QEMU's word for it: `running`, `paused`, `internal-error`, …
    pub status: String,
    /// Whether the virtual CPUs run.
    pub running: bool,
}

/// Something QEMU reports unasked.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct Event {
    /// Its name, for example `SHUTDOWN`.
    pub event: String,
    /// Its members; null when it has none.
    #[serde(default)]
    pub data: serde_json::Value,
}

/// QEMU's version.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Version {
    /// First number.
    pub major: u32,
    /// Second number.
    pub minor: u32,
    /// Third number.
    pub micro: u32,
}

impl std::fmt::Display for Version {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}.{}.{}", self.major, self.minor, self.micro)
    }
}

/// Why a QMP exchange failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum QmpError {
    /// The stream ended; QEMU is gone or going.
    #[error("QEMU closed its monitor connection")]
    Closed,
    /// QEMU said something that is not QMP.
    #[error("QEMU's monitor sent `{line}`, which is not QMP")]
    Protocol {
        /// The line, shortened.
        line: String,
    },
    /// QEMU refused the command.
    #[error("QEMU refused `{command}`: {description}")]
    Refused {
        /// The command as it was sent.
        command: String,
        /// QEMU's words.
        description: String,
    },
}

impl Qmp {
    /// Reads the greeting and negotiates; replies and events are then handled by a task.
    ///
    /// Returns when QEMU's main loop answers, that is, when the machine has been built. The caller
    /// bounds the wait. Cancelling drops the stream. The receiver gets every event from the first.
    pub async fn connect<S>(stream: S) -> Result<(Self, broadcast::Receiver<Event>), QmpError>
    where
        S: AsyncRead + AsyncWrite + Send + 'static,
    {
        let (read, write) = tokio::io::split(stream);
        let mut lines = BufReader::new(read).lines();
        let greeting = lines.next_line().await.ok().flatten().ok_or(QmpError::Closed)?;
        let Ok(Message::Greeting { qmp }) = serde_json::from_str(&greeting) else {
            return Err(QmpError::Protocol { line: shorten(&greeting) });
        };
        let (events, first) = broadcast::channel(EVENTS_KEPT);
        let (requests, inbox) = mpsc::channel(REQUESTS_KEPT);
        let weak = events.downgrade();
        tokio::spawn(converse(lines, write, inbox, events));
        let monitor = Self { requests, events: weak, version: qmp.version.qemu };
        monitor.execute(Command::Capabilities).await?;
        Ok((monitor, first))
    }

    /// QEMU's version, from its greeting.
    pub fn version(&self) -> Version {
        self.version
    }

    /// Runs a command and waits for its reply.
    pub async fn execute(&self, command: Command) -> Result<serde_json::Value, QmpError> {
        let (reply, answer) = oneshot::channel();
        let request = Request { command, reply };
        self.requests.send(request).await.map_err(|_| QmpError::Closed)?;
        answer.await.map_err(|_| QmpError::Closed)?
    }

    /// The run state.
    pub async fn status(&self) -> Result<Status, QmpError> {
        let value = self.execute(Command::QueryStatus).await?;
        let line = shorten(&value.to_string());
        serde_json::from_value(value).map_err(|_| QmpError::Protocol { line })
    }

    /// Plugs (`true`) or unplugs the cable of the NIC with this index.
    pub async fn set_link(&self, nic: usize, up: bool) -> Result<(), QmpError> {
        self.execute(Command::SetLink { name: format!("net{nic}"), up }).await.map(drop)
    }

    /// Events from now on. A receiver that falls more than 256 events behind loses the oldest; it
    /// closes with the connection.
    pub fn events(&self) -> broadcast::Receiver<Event> {
        match self.events.upgrade() {
            Some(events) => events.subscribe(),
            None => broadcast::channel(1).1,
        }
    }
}

const EVENTS_KEPT: usize = 256;
const REQUESTS_KEPT: usize = 16;

#[derive(Debug)]
struct Request {
    command: Command,
    reply: oneshot::Sender<Result<serde_json::Value, QmpError>>,
}

#[derive(Serialize)]
struct Envelope<'a> {
    #[serde(flatten)]
    command: &'a Command,
    id: u64,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Message {
    Greeting {
        #[serde(rename = "QMP")]
        qmp: Greeting,
    },
    Return {
        #[serde(rename = "return")]
        value: serde_json::Value,
        id: Option<u64>,
    },
    Error {
        error: Refusal,
        id: Option<u64>,
    },
    Event(Event),
}

#[derive(Deserialize)]
struct Greeting {
    version: GreetingVersion,
}

#[derive(Deserialize)]
struct GreetingVersion {
    qemu: Version,
}

#[derive(Deserialize)]
struct Refusal {
    desc: String,
}

type Waiting = BTreeMap<u64, (Command, oneshot::Sender<Result<serde_json::Value, QmpError>>)>;

/// Owns the connection until QEMU closes it or nobody asks any more.
///
/// One task writes, so a caller who gives up waiting never leaves half a line behind.
async fn converse<R, W>(
    mut lines: Lines<BufReader<R>>,
    mut write: W,
    mut inbox: mpsc::Receiver<Request>,
    events: broadcast::Sender<Event>,
) where
    R: AsyncRead + Unpin,
    W: AsyncWrite + Unpin,
{
    // Dropping it answers everybody who still waits with `Closed`.
    let mut waiting = Waiting::new();
    let mut next_id = 0;
    loop {
        tokio::select! {
            line = lines.next_line() => {
                let Ok(Some(line)) = line else { return };
                match serde_json::from_str(&line) {
                    Ok(Message::Event(event)) => {
                        tracing::debug!(event = event.event, data = %event.data, "QMP event");
                        // An error only says that nobody listens now.
                        let _ = events.send(event);
                    }
                    Ok(Message::Return { value, id }) => {
                        if let Some((_, reply)) = id.and_then(|id| waiting.remove(&id)) {
                            let _ = reply.send(Ok(value));
                        }
                    }
                    Ok(Message::Error { error, id }) => {
                        if let Some((command, reply)) = id.and_then(|id| waiting.remove(&id)) {
                            let command = name(&command);
                            let description = error.desc;
                            let _ = reply.send(Err(QmpError::Refused { command, description }));
                        }
                    }
                    Ok(Message::Greeting { .. }) => {}
                    Err(_) => tracing::warn!(line = shorten(&line), "not QMP"),
                }
            }
            request = inbox.recv() => {
                let Some(Request { command, reply }) = request else { return };
                next_id += 1;
                let envelope = Envelope { command: &command, id: next_id };
                let mut line = serde_json::to_vec(&envelope).expect("commands serialise");
                line.push(b'\n');
                waiting.insert(next_id, (command, reply));
                if write.write_all(&line).await.is_err() {
                    return;
                }
            }
        }
    }
}

fn name(command: &Command) -> String {
    serde_json::to_value(command)
        .ok()
        .and_then(|value| value["execute"].as_str().map(str::to_owned))
        .unwrap_or_default()
}

fn shorten(line: &str) -> String {
    const LONGEST: usize = 200;
    line.chars().take(LONGEST).collect()
}
