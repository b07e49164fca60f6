//! `tapestry attach`: this terminal becomes a terminal of a node.

use std::io::{IsTerminal, Read, Write};
use std::os::fd::AsFd;

use nix::sys::termios::{self, SetArg, Termios};
use tapestry_lab::control::{self, Request};
use tapestry_lab::rundir;

/// Connect this terminal to a node of a running lab.
///
/// A namespace node and a guest of an image made by `tapestry image build` give a shell of your
/// own, beside whatever the run does on the node. Leave with Ctrl-].
#[derive(clap::Args)]
pub(crate) struct Args {
    /// The run: its directory, its name under runs/, or `last`
    run: String,
    /// The node
    node: String,
    /// Only show what the node's console receives from now on
    #[arg(long)]
    watch: bool,
}

/// Ctrl-], as in telnet and virsh.
const LEAVE: u8 = 0x1d;

pub(crate) fn main(args: &Args) -> anyhow::Result<u8> {
    let run = rundir::find(&args.run)?;
    let mut out = std::io::stdout();
    let node = args.node.clone();
    if args.watch {
        control::ask(&run, &Request::Watch { node }, |bytes| {
            out.write_all(bytes)?;
            out.flush()
        })?;
        return Ok(0);
    }
    let mut send = control::Connection::open(&run, &Request::Attach { node })?;
    let mut receive = send.try_clone()?;
    let interactive = std::io::stdin().is_terminal();
    if interactive {
        crate::tell!("connected to {}; leave with Ctrl-]", args.node);
    } else {
        crate::tell!(
            "note: a node's terminal drops what comes before its shell reads; for scripts there is \
             `tapestry exec {} {} COMMAND`",
            args.run,
            args.node
        );
    }
    let raw = interactive.then(RawTerminal::enter).transpose()?;
    std::thread::spawn(move || {
        let mut buffer = [0u8; 4096];
        let mut stdin = std::io::stdin().lock();
        while let Ok(length) = stdin.read(&mut buffer) {
            let typed = &buffer[..length];
            let leave = typed.iter().position(|byte| interactive && *byte == LEAVE);
            let written = send.send(&typed[..leave.unwrap_or(length)]);
            if length == 0 || leave.is_some() || written.is_err() {
                break;
            }
        }
        // Input that is not a terminal has ended; the node may still have something to say.
        let _ = if interactive { send.close() } else { send.end_input() };
    });
    let ended = receive.receive_all(|bytes| {
        out.write_all(bytes)?;
        out.flush()
    });
    drop(raw);
    match ended {
        // Closing our side is how one leaves.
        Err(control::ControlError::Gone) if interactive => Ok(0),
        Err(error) => Err(error.into()),
        Ok(_) => Ok(0),
    }
}

/// The terminal without echo, line editing and signals; as it was when dropped.
struct RawTerminal(Termios);

impl RawTerminal {
    fn enter() -> anyhow::Result<Self> {
        let stdin = std::io::stdin();
        let before = termios::tcgetattr(stdin.as_fd())?;
        let mut raw = before.clone();
        termios::cfmakeraw(&mut raw);
        termios::tcsetattr(stdin.as_fd(), SetArg::TCSANOW, &raw)?;
        Ok(Self(before))
    }
}

impl Drop for RawTerminal {
    fn drop(&mut self) {
        let _ = termios::tcsetattr(std::io::stdin().as_fd(), SetArg::TCSANOW, &self.0);
    }
}
