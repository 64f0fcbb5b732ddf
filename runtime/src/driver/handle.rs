//! A handle on the driver, for whoever asks it something.

use std::time::Duration;

use orchestrator_core::node::{Input, Node, Reply, Request};
use orchestrator_core::policy::Policy;
use orchestrator_core::time::Now;
use tokio::sync::{mpsc, oneshot};

use super::Message;
use crate::env::{Env, timeout};

/// The driver has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DriverGone;

/// Clones are handles on the same driver.
#[derive(Clone)]
pub struct DriverHandle {
    sender: mpsc::UnboundedSender<Message>,
}

impl std::fmt::Debug for DriverHandle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("DriverHandle")
    }
}

impl DriverHandle {
    pub(super) const fn new(sender: mpsc::UnboundedSender<Message>) -> Self {
        DriverHandle { sender }
    }

    /// Takes an input in. Nothing happens once the driver has ended.
    pub fn input(&self, input: Input) {
        let _ = self.sender.send(Message::Input(input));
    }

    /// The policy of a configuration that was read again.
    pub fn reload(&self, policy: Policy) {
        let _ = self.sender.send(Message::Reload(Box::new(policy)));
    }

    /// Ends the daemon with this as its last words.
    pub fn end(&self, reason: String) {
        let _ = self.sender.send(Message::End(reason));
    }

    /// Looks at the node from within its own task. Keep it cheap.
    ///
    /// # Errors
    /// The driver has ended.
    pub async fn look<T: Send + 'static>(
        &self,
        look: impl FnOnce(&Node, Now) -> T + Send + 'static,
    ) -> Result<T, DriverGone> {
        let (reply, answer) = oneshot::channel();
        let look = Box::new(move |node: &Node, now| {
            // Whoever asked may have gone.
            let _ = reply.send(look(node, now));
        });
        self.sender
            .send(Message::Look(look))
            .map_err(|_| DriverGone)?;
        answer.await.map_err(|_| DriverGone)
    }

    /// Asks for something. [`Reply::Unknown`] when no answer came within the deadline.
    pub async fn ask<E: Env>(&self, request: Request, deadline: Duration) -> Reply {
        let (reply, answer) = oneshot::channel();
        if self.sender.send(Message::Ask(request, reply)).is_err() {
            return Reply::Failed(String::from(
                "this daemon is shutting down; nothing was changed",
            ));
        }
        match timeout::<E, _>(deadline, answer).await {
            Some(Ok(reply)) => reply,
            Some(Err(_)) => {
                Reply::Unknown(String::from("this daemon ended before it could answer"))
            }
            None => Reply::Unknown(format!("no answer within {} s", deadline.as_secs())),
        }
    }
}
