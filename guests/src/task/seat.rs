//! Where commands run: on a shell behind a console, or on an in-process host.

use std::sync::Arc;
use std::time::Instant;

use super::host::{HostCommand, HostShell};
use crate::shell::line::StartLine;
use crate::shell::{
    Armed, Background, CommandError, Finished, Output, RunOptions, Running, ShellSlot,
};

/// What a node's commands run on.
#[derive(Debug, Clone)]
pub(super) enum Seat {
    Shell(ShellSlot),
    Host(Arc<dyn HostShell>),
}

/// A command that waits for its release.
#[derive(Debug)]
pub(super) enum SeatArmed {
    Shell(Armed),
    Host { host: Arc<dyn HostShell>, text: String, options: RunOptions },
}

/// A released command.
#[derive(Debug)]
pub(super) enum SeatRunning {
    Shell(Running),
    Host(HostCommand, RunOptions),
}

/// A command behind others.
#[derive(Debug)]
pub(super) enum SeatBackground {
    Shell(Background),
    Host(HostCommand),
}

impl Seat {
    pub(super) fn node(&self) -> &str {
        match self {
            Self::Shell(slot) => slot.node(),
            Self::Host(host) => host.node(),
        }
    }

    pub(super) async fn arm(
        &self,
        text: &str,
        options: RunOptions,
    ) -> Result<SeatArmed, CommandError> {
        match self {
            Self::Shell(slot) => {
                let shell = slot.shell(text, options.queue).await?;
                shell.arm(text, &options).await.map(SeatArmed::Shell)
            }
            Self::Host(host) => {
                let (host, text) = (Arc::clone(host), text.to_owned());
                Ok(SeatArmed::Host { host, text, options })
            }
        }
    }

    pub(super) async fn start_background(
        &self,
        text: &str,
        options: &RunOptions,
    ) -> Result<SeatBackground, CommandError> {
        match self {
            Self::Shell(slot) => {
                let shell = slot.shell(text, options.queue).await?;
                // The file is written when the output is fetched at the end.
                let options = RunOptions { output_file: None, ..options.clone() };
                shell.start_background(text, &options).await.map(SeatBackground::Shell)
            }
            Self::Host(host) => HostCommand::start(host, text, options).map(SeatBackground::Host),
        }
    }
}

impl SeatArmed {
    /// Writes the releasing byte, where there is one; false if [`note`](Self::note) has to.
    pub(super) fn write(&self, line: &Arc<StartLine>) -> bool {
        match self {
            Self::Shell(armed) => armed.write(Some(line)),
            Self::Host { .. } => false,
        }
    }

    /// Whether its guest can be held at the start line.
    pub(super) fn can_be_held(&self) -> bool {
        matches!(self, Self::Shell(armed) if armed.can_be_held())
    }

    /// The rest of the release.
    pub(super) fn note(self, written: bool) -> Result<SeatRunning, CommandError> {
        match self {
            Self::Shell(armed) => Ok(SeatRunning::Shell(armed.note(written))),
            Self::Host { host, text, options } => {
                let command = HostCommand::start(&host, &text, &options)?;
                Ok(SeatRunning::Host(command, options))
            }
        }
    }
}

impl SeatRunning {
    pub(super) async fn finish(self) -> Result<Finished, CommandError> {
        match self {
            Self::Shell(running) => running.finish().await,
            Self::Host(command, options) => command.finish(options.timeout).await,
        }
    }
}

impl SeatBackground {
    pub(super) fn started(&self) -> Instant {
        match self {
            Self::Shell(background) => background.started(),
            Self::Host(command) => command.started(),
        }
    }

    pub(super) fn status(&self) -> Option<u8> {
        match self {
            Self::Shell(background) => background.status(),
            Self::Host(command) => command.status(),
        }
    }

    pub(super) async fn output(
        &self,
        from: u64,
        options: &RunOptions,
    ) -> Result<Output, CommandError> {
        match self {
            Self::Shell(background) => background.output(from, options).await,
            Self::Host(command) => Ok(command.output(from)),
        }
    }

    pub(super) async fn stop(self, options: &RunOptions) -> Result<Finished, CommandError> {
        match self {
            Self::Shell(background) => background.stop(options).await,
            Self::Host(command) => command.stop().await,
        }
    }
}
