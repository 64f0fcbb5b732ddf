//! Messages of the layer above to other members, sent from raft's own threads whoever hands them over.
//!
//! Messages to one peer keep their order. None is repeated; one that finds its queue full is dropped, so a peer that does
//! not answer costs a bounded amount of memory and nobody's time.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use openraft_rt::{AsyncRuntime, Select2};
use tokio::sync::{mpsc, oneshot};

use super::id::NodeId;
use super::link::call;
use super::node::Node;
use super::wire::{Request, Response};
use crate::env::{Env, spawn};

/// Messages that wait for the post, and for one peer.
pub(super) const MESSAGES_MAX: usize = 1024;

/// One message.
pub(super) enum Letter {
    Tell {
        to: u64,
        bytes: Vec<u8>,
    },
    Ask {
        to: u64,
        bytes: Vec<u8>,
        deadline: Duration,
        reply: oneshot::Sender<io::Result<Response>>,
    },
}

/// Sends what is handed over, until raft ends.
pub(super) async fn deliver<E: Env>(node: Arc<Node<E>>, mut letters: mpsc::Receiver<Letter>) {
    let mut stop = node.stop.subscribe();
    let mut outboxes: BTreeMap<u64, mpsc::Sender<Vec<u8>>> = BTreeMap::new();
    loop {
        let letter = match E::Rt::select2(stop.wait_for(|stop| *stop), letters.recv()).await {
            Select2::First(_) | Select2::Second(None) => return,
            Select2::Second(Some(letter)) => letter,
        };
        match letter {
            Letter::Tell { to, bytes } => {
                let outbox = outboxes.entry(to).or_insert_with(|| {
                    let (outbox, queue) = mpsc::channel(MESSAGES_MAX);
                    spawn::<E>(tell_in_order(node.clone(), to, queue));
                    outbox
                });
                if outbox.try_send(bytes).is_err() {
                    tracing::debug!(peer = %NodeId(to), "a message is dropped: {MESSAGES_MAX} wait");
                }
            }
            Letter::Ask {
                to,
                bytes,
                deadline,
                reply,
            } => {
                let node = node.clone();
                spawn::<E>(async move {
                    let _ = reply.send(call(&node, to, &Request::Ask(bytes), deadline).await);
                });
            }
        }
    }
}

async fn tell_in_order<E: Env>(node: Arc<Node<E>>, to: u64, mut queue: mpsc::Receiver<Vec<u8>>) {
    let deadline = node.settings.election_timeout() * 4;
    while let Some(bytes) = queue.recv().await {
        if let Err(error) = call(&node, to, &Request::Tell(bytes), deadline).await {
            tracing::debug!(peer = %NodeId(to), "a message is lost: {error}");
        }
    }
}
