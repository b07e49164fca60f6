//! The lab's side of `control`: answers requests from other terminals while the lab runs.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixListener as StdListener;
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use nix::sys::socket::{Shutdown, shutdown};
use tapestry_guests::netns::confine;
use tapestry_guests::shell::RunOptions;
use tapestry_guests::task::{HostShell, run_on_host};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{UnixListener, UnixStream};
use tokio::process::Command;
use tokio::sync::Mutex;

use crate::changes::Changes;
use crate::control::{
    END, FAILURE, LONGEST_PACKET, MISUSE, OUTPUT, Request, SIGN_OF_LIFE, packet_head,
};
use crate::machine::Machine;
use crate::node::RunningNode;
use crate::nodes::Nodes;
use crate::status::Status;

/// The part of a lab that others may look at while it runs.
pub struct Shared {
    /// Nodes with a life of their own.
    pub nodes: Arc<Nodes>,
    /// In-process hosts by name.
    pub hosts: BTreeMap<String, Arc<dyn HostShell>>,
    /// Names of all nodes of the topology.
    pub names: Vec<String>,
    /// Makes the answer to [`Request::Status`].
    pub status: Box<dyn Fn() -> Status + Send + Sync>,
    /// Changes links.
    pub changes: Arc<Changes>,
}

impl Shared {
    fn node(&self, name: &str) -> Result<Arc<RunningNode>, String> {
        if let Some(node) = self.nodes.get(name) {
            return Ok(node);
        }
        Err(if self.hosts.contains_key(name) {
            format!("node {name} is in-process and has no console; use `tapestry exec`")
        } else if let Some(index) = self.names.iter().position(|known| known == name) {
            format!("node {name} {}", self.nodes.absence(index))
        } else {
            self.no_node(name)
        })
    }

    /// What is told if a request is for a node that there is not.
    fn unknown_node(&self, request: &Request) -> Option<String> {
        let (Request::Exec { node, .. } | Request::Watch { node } | Request::Attach { node }) =
            request
        else {
            return None;
        };
        (!self.names.contains(node)).then(|| self.no_node(node))
    }

    fn no_node(&self, name: &str) -> String {
        format!("there is no node {name:?}; the nodes are {}", self.names.join(", "))
    }
}

/// Takes requests as long as it lives.
#[derive(Debug)]
pub struct Server {
    task: tokio::task::JoinHandle<()>,
    listener: StdListener,
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
        // The process in front of the sandbox has the socket too, so closing ours would leave those
        // who connect from now on waiting until it ends.
        let _ = shutdown(self.listener.as_raw_fd(), Shutdown::Both);
    }
}

/// Serves until dropped. Must be called inside a tokio runtime.
pub fn serve(listener: StdListener, shared: Arc<Shared>) -> io::Result<Server> {
    listener.set_nonblocking(true)?;
    let accepting = UnixListener::from_std(listener.try_clone()?)?;
    let task = tokio::spawn(async move {
        loop {
            match accepting.accept().await {
                Ok((stream, _)) => {
                    tokio::spawn(connection(stream, Arc::clone(&shared)));
                }
                // Out of descriptors, for example; the lab matters more than a late `exec`.
                Err(_) => tokio::time::sleep(Duration::from_millis(100)).await,
            }
        }
    });
    Ok(Server { task, listener })
}

/// Longest request line: a command of the longest length a shell takes, escaped for JSON.
const LONGEST_REQUEST: u64 = 1 << 20;

async fn connection(stream: UnixStream, shared: Arc<Shared>) {
    let own = nix::unistd::geteuid().as_raw();
    let allowed = stream.peer_cred().is_ok_and(|peer| peer.uid() == own || peer.uid() == 0);
    let (reader, writer) = stream.into_split();
    let writer = Replies(Arc::new(Mutex::new(writer)));
    if !allowed {
        let _ = packet(&writer, FAILURE, b"the run belongs to another user").await;
        return;
    }
    tokio::select! {
        () = respond(reader, &writer, &shared) => {}
        () = signs_of_life(&writer) => {}
    }
}

/// What goes to the other side: packets, one at a time.
struct Replies(Arc<Mutex<OwnedWriteHalf>>);

/// Says again and again that the lab is there; does not end.
async fn signs_of_life(writer: &Replies) {
    let mut ticks = tokio::time::interval(SIGN_OF_LIFE);
    loop {
        ticks.tick().await;
        // While a packet is being written, that is a sign itself. So few bytes are taken as a whole
        // or not at all.
        if let Ok(writer) = writer.0.try_lock() {
            let _ = writer.try_write(&packet_head(OUTPUT, 0));
        }
    }
}

async fn respond(reader: OwnedReadHalf, writer: &Replies, shared: &Arc<Shared>) {
    let mut reader = BufReader::new(reader);
    let mut line = String::new();
    let request = match (&mut reader).take(LONGEST_REQUEST).read_line(&mut line).await {
        Ok(_) => {
            serde_json::from_str::<Request>(&line).map_err(|error| format!("request: {error}"))
        }
        Err(error) => Err(format!("request: {error}")),
    };
    let unknown = request.as_ref().ok().and_then(|request| shared.unknown_node(request));
    if let Some(wrong) = unknown {
        let _ = packet(writer, MISUSE, wrong.as_bytes()).await;
        return;
    }
    let answered = match request {
        Ok(Request::Link { link, change }) => match shared.changes.request(&link, &change).await {
            Err(wrong) if wrong.is_usage() => {
                let _ = packet(writer, MISUSE, wrong.to_string().as_bytes()).await;
                return;
            }
            done => done.map(|()| 0).map_err(|error| error.to_string()),
        },
        Ok(request) => answer(request, reader, writer, shared).await,
        Err(text) => Err(text),
    };
    let _ = match answered {
        Ok(status) => packet(writer, END, status.to_string().as_bytes()).await,
        Err(text) => packet(writer, FAILURE, text.as_bytes()).await,
    };
}

async fn packet(writer: &Replies, kind: u8, bytes: &[u8]) -> io::Result<()> {
    let mut writer = writer.0.lock().await;
    let mut chunks = bytes.chunks(LONGEST_PACKET);
    let first = chunks.next().unwrap_or_default();
    for chunk in std::iter::once(first).chain(chunks) {
        writer.write_all(&packet_head(kind, chunk.len())).await?;
        writer.write_all(chunk).await?;
    }
    Ok(())
}

async fn answer(
    request: Request,
    reader: BufReader<OwnedReadHalf>,
    writer: &Replies,
    shared: &Arc<Shared>,
) -> Result<i32, String> {
    match request {
        Request::Status => {
            let shared = Arc::clone(shared);
            // It waits for the workers and reads much of /proc.
            let status = tokio::task::spawn_blocking(move || (shared.status)()).await;
            let status = status.map_err(|error| format!("the status cannot be had: {error}"))?;
            let json = serde_json::to_vec(&status).map_err(|error| error.to_string())?;
            packet(writer, OUTPUT, &json).await.map_err(|error| error.to_string())?;
            Ok(0)
        }
        // Answered by the caller, who tells misuse apart.
        Request::Link { .. } => Ok(0),
        Request::Exec { node, command, timeout } => {
            /// A day: longer than any lab of this kind lives.
            const NO_LIMIT: Duration = Duration::from_hours(24);
            let options = RunOptions {
                timeout: timeout.unwrap_or(NO_LIMIT),
                // A task may keep the node busy for long: without a timeout, say so at once.
                queue: timeout.unwrap_or(Duration::from_secs(1)),
                ..RunOptions::default()
            };
            let run = async {
                if let Some(host) = shared.hosts.get(&node) {
                    let finished = run_on_host(host, &command, &options).await;
                    return finished.map_err(|error| error.to_string());
                }
                let node = shared.node(&node)?;
                node.shell.0.run(&command, &options).await.map_err(|error| error.to_string())
            };
            let finished = tokio::select! {
                finished = run => finished?,
                // Who leaves ends the command: dropping it does.
                () = hang_up(reader) => return Err("the other side left".into()),
            };
            let sent = packet(writer, OUTPUT, &finished.output.bytes).await;
            sent.map_err(|error| error.to_string())?;
            if finished.timed_out {
                return Err(format!("node {node}: `{command}` took too long and was ended"));
            }
            Ok(i32::from(finished.status))
        }
        Request::Watch { node } => {
            let node = shared.node(&node)?;
            let mut bytes = node.shell.0.console().subscribe();
            let watch = async {
                loop {
                    match bytes.recv().await {
                        Ok(bytes) => packet(writer, OUTPUT, &bytes).await?,
                        Err(tokio::sync::broadcast::error::RecvError::Lagged(_)) => {
                            packet(writer, OUTPUT, b"\r\n[... too slow: some is missing ...]\r\n")
                                .await?;
                        }
                        Err(tokio::sync::broadcast::error::RecvError::Closed) => {
                            return io::Result::Ok(());
                        }
                    }
                }
            };
            tokio::select! {
                watched = watch => watched.map_err(|error| error.to_string())?,
                () = hang_up(reader) => {}
            }
            Ok(0)
        }
        Request::Attach { node } => {
            let node = shared.node(&node)?;
            match &node.machine {
                Machine::Netns { init, .. } => {
                    attach_netns(*init, reader, writer).await.map_err(|error| error.to_string())
                }
                Machine::Qemu(guest) => match guest.take_terminal() {
                    Some(terminal) => attach_terminal(terminal, reader, writer)
                        .await
                        .map_err(|error| error.to_string()),
                    None => Err(format!(
                        "node {} has no terminal to give: another is attached, or its machine type \
                         has no second serial port; `tapestry exec` works all the same",
                        node.name
                    )),
                },
            }
        }
    }
}

/// Waits until the other side has closed its end.
async fn hang_up(mut reader: BufReader<OwnedReadHalf>) {
    let mut waste = [0u8; 1024];
    while reader.read(&mut waste).await.is_ok_and(|length| length > 0) {}
}

/// A shell of its own on a pseudo-terminal inside the node, with the node's rights: `nsenter` and
/// `script` are in every Debian system.
async fn attach_netns(
    init: u32,
    mut reader: BufReader<OwnedReadHalf>,
    writer: &Replies,
) -> io::Result<i32> {
    let mut shell = Command::new("nsenter");
    let mut shell = confine(&mut shell)
        .args(["-t", &init.to_string(), "-m", "-u", "-i", "-n", "-p", "-r", "-w", "--"])
        .args(["script", "-q", "-e", "-c", "exec ${SHELL:-/bin/sh} -i", "/dev/null"])
        .env("TERM", "xterm")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .process_group(0)
        .kill_on_drop(true)
        .spawn()?;
    let (mut input, mut output) =
        (shell.stdin.take().expect("piped"), shell.stdout.take().expect("piped"));
    let type_in = async move {
        let _ = tokio::io::copy_buf(&mut reader, &mut input).await;
        drop(input);
        std::future::pending::<()>().await;
    };
    tokio::select! {
        shown = show(&mut output, writer) => shown?,
        () = type_in => {}
    }
    let status = shell.wait().await?;
    Ok(status.code().unwrap_or(1))
}

/// A guest's second serial port, on which our images run a shell.
async fn attach_terminal(
    mut terminal: tapestry_guests::qemu::Terminal,
    mut reader: BufReader<OwnedReadHalf>,
    writer: &Replies,
) -> io::Result<i32> {
    let (mut output, mut input) = terminal.stream().split();
    // The first line wakes the shell, or makes it show its prompt again.
    input.write_all(b"\n").await?;
    let type_in = async {
        let _ = tokio::io::copy_buf(&mut reader, &mut input).await;
    };
    tokio::select! {
        shown = show(&mut output, writer) => shown?,
        () = type_in => {}
    }
    Ok(0)
}

async fn show(from: &mut (impl tokio::io::AsyncRead + Unpin), writer: &Replies) -> io::Result<()> {
    let mut bytes = [0u8; 8192];
    loop {
        match from.read(&mut bytes).await {
            Ok(0) | Err(_) => return Ok(()),
            Ok(length) => packet(writer, OUTPUT, &bytes[..length]).await?,
        }
    }
}
