//! Where a node's present shell is found: one that starts anew gets another.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

use super::Shell;
use super::command::{CommandError, brief};

/// The place of a node's shell; clones share it.
#[derive(Debug, Clone)]
pub struct ShellSlot {
    node: Arc<str>,
    standing: Arc<watch::Sender<Standing>>,
}

#[derive(Debug, Clone)]
enum Standing {
    Up(Shell),
    Starting,
    Gone(String),
}

impl From<Shell> for ShellSlot {
    fn from(shell: Shell) -> Self {
        let slot = Self::new(shell.node());
        slot.put(shell);
        slot
    }
}

impl ShellSlot {
    /// Of a node that starts.
    pub fn new(node: &str) -> Self {
        Self { node: node.into(), standing: Arc::new(watch::Sender::new(Standing::Starting)) }
    }

    /// The node's name.
    pub fn node(&self) -> &str {
        &self.node
    }

    /// The node has come up.
    pub fn put(&self, shell: Shell) {
        self.standing.send_replace(Standing::Up(shell));
    }

    /// The node starts anew: whoever wants its shell waits.
    pub fn starting(&self) {
        self.standing.send_replace(Standing::Starting);
    }

    /// The node is gone, until it is started: commands fail at once and say why ("was killed").
    pub fn gone(&self, why: &str) {
        self.standing.send_replace(Standing::Gone(why.to_owned()));
    }

    /// Waits while the node starts.
    pub async fn settled(&self) {
        let mut standing = self.standing.subscribe();
        // The sender is in `self`.
        let _ = standing.wait_for(|standing| !matches!(standing, Standing::Starting)).await;
    }

    /// The shell for the command `text`; waits at most `longest` for a node that starts.
    pub(crate) async fn shell(&self, text: &str, longest: Duration) -> Result<Shell, CommandError> {
        let (node, command) = (self.node().to_owned(), brief(text));
        if tokio::time::timeout(longest, self.settled()).await.is_err() {
            return Err(CommandError::Starting { node, command, waited: longest });
        }
        match &*self.standing.borrow() {
            Standing::Up(shell) => Ok(shell.clone()),
            // It has begun to start again this very moment.
            Standing::Starting => Err(CommandError::Starting { node, command, waited: longest }),
            Standing::Gone(why) => {
                let why = why.clone();
                Err(CommandError::NodeEnded { node, command, why, ran: false, cut: None })
            }
        }
    }
}
