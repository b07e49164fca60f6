//! Another program in the data plane's place, so that peers are measured under the same nodes.
//!
//! The program is started with one argument `A:B` a link: two inherited file descriptors, the TAPs
//! of the link's ends, in the lab's namespaces. It ends when its standard input does. Nothing is
//! known of what it loses or how late it is, so such a run is never better than *degraded*.

use std::os::fd::RawFd;
use std::process::Stdio;

use command_fds::{CommandFdExt, FdMapping};
use tapestry_realtime::{Attachment, LinkSpec};
use tokio::process::{Child, Command};

/// Why the program could not take over.
#[derive(Debug, thiserror::Error)]
pub enum ForwarderError {
    /// A link the program cannot carry.
    #[error(
        "link {link}: --forwarder takes links between exactly two nodes that are not in-process"
    )]
    Link {
        /// The link.
        link: String,
    },
    /// The program could not be started.
    #[error("cannot start the forwarder {program}: {source}")]
    Spawn {
        /// The program.
        program: String,
        /// The system's answer.
        source: std::io::Error,
    },
}

/// The first descriptor handed over; those below are standard streams.
const FIRST_FD: RawFd = 3;

/// Starts `program` over the ports of `links`.
pub fn start(program: &str, links: &[LinkSpec]) -> Result<Child, ForwarderError> {
    let spawn = |source| ForwarderError::Spawn { program: program.to_owned(), source };
    let mut mappings = Vec::new();
    let mut next_fd = FIRST_FD;
    let mut arguments = Vec::new();
    for link in links {
        let mut pair = Vec::new();
        for endpoint in &link.endpoints {
            let Attachment::Port(port) = &endpoint.attachment else { break };
            let child_fd = next_fd;
            next_fd += 1;
            let parent_fd = port.fd().try_clone_to_owned().map_err(spawn)?;
            mappings.push(FdMapping { parent_fd, child_fd });
            pair.push(child_fd);
        }
        let &[a, b] = pair.as_slice() else {
            return Err(ForwarderError::Link { link: link.config.name.clone() });
        };
        arguments.push(format!("{a}:{b}"));
    }
    let mut command = Command::new(program);
    command.args(arguments).stdin(Stdio::piped()).process_group(0).kill_on_drop(true);
    let distinct = command.fd_mappings(mappings);
    distinct.map_err(|error| spawn(std::io::Error::other(error.to_string())))?;
    command.spawn().map_err(spawn)
}
