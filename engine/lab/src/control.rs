//! Talking to a running lab from another terminal: `exec`, `attach`, `link`, `top`.
//!
//! A run listens on a Unix socket in Linux' abstract namespace, which leaves no file behind, ends
//! with the process, and is reached only from the network namespace it was made in: the socket is
//! made before the sandbox is entered, so that is the user's. Who may talk to it is decided by the
//! peer's user id. `lock` in the run directory holds its name.
//!
//! A connection carries one request: a JSON line, then packets `kind (1 byte), length (4 bytes,
//! little endian), bytes`. The last packet is [`END`],
//! [`FAILURE`] or [`MISUSE`]. Until then the lab sends at least an empty [`OUTPUT`] every
//! [`SIGN_OF_LIFE`], so that one that stands still is told from a command that takes its time.

use std::io::{self, Read, Write};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::rundir;
use crate::status::Status;

/// What one asks of a running lab.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "verb", rename_all = "kebab-case")]
pub enum Request {
    /// Run a command on a node; output packets follow, then the end with the exit status.
    Exec {
        /// The node.
        node: String,
        /// The command line for its shell.
        command: String,
        /// Longest time it may take; none means as long as the lab lives.
        #[serde(default)]
        timeout: Option<Duration>,
    },
    /// Show what the node's console receives from now on.
    Watch {
        /// The node.
        node: String,
    },
    /// Become a terminal of the node: what follows the request line is typed on it.
    Attach {
        /// The node.
        node: String,
    },
    /// Change a link, or several.
    Link {
        /// Its name; with ranges and commas theirs.
        link: String,
        /// What is done to it.
        change: LinkRequest,
    },
    /// Say how the lab is: a [`crate::status::Status`] as JSON.
    Status,
}

/// What can be done to a link from another terminal.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "do", rename_all = "kebab-case")]
pub enum LinkRequest {
    /// Take its carrier away.
    Down,
    /// Give it its carrier back.
    Up,
    /// Set parameters.
    Set {
        /// Keys and values as in topology files: a YAML map.
        settings: String,
        /// The direction that is meant: `a->b`, or the node that sends; both if absent.
        #[serde(default)]
        from: Option<String>,
        /// What the names of files in the settings are relative to.
        #[serde(default)]
        directory: PathBuf,
    },
}

/// Packet with output bytes.
pub const OUTPUT: u8 = b'o';
/// Last packet: the exit status in decimal.
pub const END: u8 = b'e';
/// Last packet: why the request failed.
pub const FAILURE: u8 = b'f';
/// Last packet: what is wrong with the request itself.
pub const MISUSE: u8 = b'u';

/// No packet is longer, so a broken peer cannot make us allocate without bound.
pub const LONGEST_PACKET: usize = 1 << 20;

/// How often the lab says something while a request is under way.
pub const SIGN_OF_LIFE: Duration = Duration::from_secs(1);
/// Silence after which a lab does not answer.
const PATIENCE: Duration = Duration::from_secs(5);

/// Why a running lab could not be asked.
#[derive(Debug, thiserror::Error)]
pub enum ControlError {
    /// The run is over.
    #[error("run {0} is not running: exec, attach, link and top need a living run")]
    NotRunning(String),
    /// The run is a simulation.
    #[error(
        "run {run} is in virtual time: a simulation has no live nodes that exec, attach or top could \
         reach. Put the command into a task of its file, or run the file with --time realtime; \
         what the simulation found is in {run}/results.json when it has ended"
    )]
    Simulation {
        /// The run.
        run: String,
    },
    /// The run takes no more requests.
    #[error("run {0} is ending and answers no more")]
    Ending(String),
    /// The socket could not be made or reached.
    #[error("cannot reach run {run}: {source}")]
    Connect {
        /// The run.
        run: String,
        /// The system's answer.
        source: io::Error,
    },
    /// Nothing comes from the lab.
    #[error(
        "run {run} does not answer: its lab has said nothing for {} s. Is it stopped (SIGSTOP; \
         `kill -CONT` has it go on), or its machine overloaded?",
        PATIENCE.as_secs()
    )]
    Silent {
        /// The run.
        run: String,
    },
    /// The lab ended while it was being asked.
    #[error("the run ended before it answered")]
    Gone,
    /// The lab refused.
    #[error("{0}")]
    Refused(String),
    /// What was asked for makes no sense.
    #[error("{0}")]
    Misuse(String),
    /// The run is of a version of this program that answers otherwise.
    #[error("the run's answer is not understood ({0}): ask it with the program that runs it")]
    Foreign(serde_json::Error),
    /// The request or answer could not be sent or read.
    #[error("talking to the run failed: {0}")]
    Io(#[from] io::Error),
}

/// Makes the socket of a run. Call before entering the sandbox; the name goes to
/// [`rundir::RunDir::announce`].
pub fn listen() -> io::Result<(UnixListener, String)> {
    let mut random = [0u8; 12];
    std::fs::File::open("/dev/urandom")?.read_exact(&mut random)?;
    let hex = random.iter().fold(String::new(), |hex, byte| hex + &format!("{byte:02x}"));
    let name = format!("tapestry-{hex}");
    let listener = UnixListener::bind_addr(&SocketAddr::from_abstract_name(&name)?)?;
    Ok((listener, name))
}

/// Asks a running lab; `output` gets each piece of output as it comes. Returns the exit status.
pub fn ask(
    run: &Path,
    request: &Request,
    output: impl FnMut(&[u8]) -> io::Result<()>,
) -> Result<i32, ControlError> {
    Connection::open(run, request)?.receive_all(output)
}

/// Asks a running lab how it is.
pub fn status(run: &Path) -> Result<Status, ControlError> {
    let mut json = Vec::new();
    ask(run, &Request::Status, |bytes| {
        json.extend_from_slice(bytes);
        Ok(())
    })?;
    serde_json::from_slice(&json).map_err(ControlError::Foreign)
}

/// A request under way.
#[derive(Debug)]
pub struct Connection {
    stream: UnixStream,
    /// The run, for messages.
    run: String,
}

impl Connection {
    /// Connects to a living run and sends the request.
    pub fn open(run: &Path, request: &Request) -> Result<Self, ControlError> {
        let shown = || run.display().to_string();
        if rundir::is_simulation(run) {
            return Err(ControlError::Simulation { run: shown() });
        }
        let address = rundir::address(run).ok_or_else(|| ControlError::NotRunning(shown()))?;
        let connect = SocketAddr::from_abstract_name(&address)
            .and_then(|address| UnixStream::connect_addr(&address));
        let mut stream = connect.map_err(|source| match source.kind() {
            io::ErrorKind::ConnectionRefused => ControlError::Ending(shown()),
            _ => ControlError::Connect { run: shown(), source },
        })?;
        stream.set_read_timeout(Some(PATIENCE))?;
        let mut line = serde_json::to_vec(request).map_err(io::Error::from)?;
        line.push(b'\n');
        match stream.write_all(&line) {
            Err(error) if is_hang_up(&error) => Err(ControlError::Gone),
            written => Ok(written.map(|()| Self { stream, run: shown() })?),
        }
    }

    /// Another handle to the same connection, to send and receive at once.
    pub fn try_clone(&self) -> io::Result<Self> {
        Ok(Self { stream: self.stream.try_clone()?, run: self.run.clone() })
    }

    /// Sends bytes that follow the request.
    pub fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.write_all(bytes)
    }

    /// Says that nothing more will be sent.
    pub fn end_input(&self) -> io::Result<()> {
        self.stream.shutdown(std::net::Shutdown::Write)
    }

    /// Ends the connection, for all handles.
    pub fn close(&self) -> io::Result<()> {
        self.stream.shutdown(std::net::Shutdown::Both)
    }

    /// Hands each piece of output to `output` until the last packet; returns the exit status.
    pub fn receive_all(
        &mut self,
        mut output: impl FnMut(&[u8]) -> io::Result<()>,
    ) -> Result<i32, ControlError> {
        loop {
            let (kind, bytes) = match read_packet(&mut self.stream) {
                Err(error) if is_hang_up(&error) => return Err(ControlError::Gone),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    return Err(ControlError::Silent { run: self.run.clone() });
                }
                other => other?,
            };
            let text = || String::from_utf8_lossy(&bytes).into_owned();
            match kind {
                OUTPUT => output(&bytes)?,
                END => return Ok(text().parse().unwrap_or(1)),
                MISUSE => return Err(ControlError::Misuse(text())),
                _ => return Err(ControlError::Refused(text())),
            }
        }
    }
}

/// Whether the other side has gone: in the middle of a packet, or before it took the connection.
fn is_hang_up(error: &io::Error) -> bool {
    use io::ErrorKind::{BrokenPipe, ConnectionReset, UnexpectedEof};
    matches!(error.kind(), UnexpectedEof | ConnectionReset | BrokenPipe)
}

fn read_packet(stream: &mut impl Read) -> io::Result<(u8, Vec<u8>)> {
    let mut head = [0u8; 5];
    stream.read_exact(&mut head)?;
    let length = u32::from_le_bytes([head[1], head[2], head[3], head[4]]) as usize;
    if length > LONGEST_PACKET {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "packet longer than 1 MiB"));
    }
    let mut bytes = vec![0; length];
    stream.read_exact(&mut bytes)?;
    Ok((head[0], bytes))
}

/// Head of a packet with `length` bytes to follow.
pub fn packet_head(kind: u8, length: usize) -> [u8; 5] {
    let length = u32::try_from(length.min(LONGEST_PACKET)).unwrap_or(0).to_le_bytes();
    [kind, length[0], length[1], length[2], length[3]]
}
