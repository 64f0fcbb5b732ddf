//! What operators and scripts ask for.

use alloc::{format, string::ToString};
use core::time::Duration;

use super::{Cause, Effect, Node, Output, PeerMessage, Reply, Request, RequestId};
use crate::{
    id::InstanceKey,
    limits::{self, bounded},
    recovery::{Purpose, operation::SUPER_READ_ONLY},
    replicated::{Command, Refusal},
    time::Now,
    topology::Instance,
};

impl Node {
    pub(super) fn asked(&mut self, now: Now, id: RequestId, request: Request, out: &mut Output) {
        let needs_leader = !matches!(request, Request::Refresh(_) | Request::Opinions { .. });
        if needs_leader && self.leading().is_none() {
            out.effects.push(Effect::Answer(
                id,
                Reply::NotLeading {
                    leader: self.raft.leader,
                },
            ));
            return;
        }
        let pending = self.discovering.len() + self.operations.len() + self.proposals.len();
        if pending >= limits::REQUESTS_PENDING_MAX {
            let refusal = Refusal::Full {
                what: "requests waiting".to_string(),
                limit: limits::REQUESTS_PENDING_MAX as u64,
            };
            out.effects
                .push(Effect::Answer(id, Reply::Refused(refusal)));
            return;
        }
        match request {
            Request::Decide(command) => self.decide(now, id, command, out),
            Request::Discover(key) => self.discover(now, id, key, true, out),
            Request::Refresh(key) => self.discover(now, id, key, false, out),
            Request::SetReadOnly {
                key,
                super_read_only,
            } => {
                let variant = if super_read_only { SUPER_READ_ONLY } else { "" };
                self.operate(now, id, key, Purpose::SetReadOnly, variant, out);
            }
            Request::SetWriteable { key } => {
                self.operate(now, id, key, Purpose::SetWriteable, "", out)
            }
            Request::BeginDowntime {
                key,
                owner,
                reason,
                lasts_s,
            } => {
                let until = now.wall + Duration::from_secs(lasts_s);
                let command = Command::BeginDowntime {
                    key,
                    owner: bounded(owner, limits::TEXT_BYTES_MAX),
                    reason: bounded(reason, limits::TEXT_BYTES_MAX),
                    until,
                };
                self.decide(now, id, command, out);
            }
            Request::AddPeer { address } => self.add_peer(now, id, &address, out),
            Request::RemovePeer { address } => self.remove_peer(now, id, &address, out),
            Request::ReplacePeer { former, newcomer } => {
                self.replace_peer(now, id, &former, &newcomer, out);
            }
            Request::Opinions { of } => {
                out.effects.push(Effect::Tell(PeerMessage::AskOpinion(of)));
                out.effects.push(Effect::Answer(
                    id,
                    Reply::Decided(crate::replicated::Answer::Done),
                ));
            }
        }
    }

    fn decide(&mut self, now: Now, id: RequestId, command: Command, out: &mut Output) {
        if let Err(refusal) = self.try_propose(now, Cause::Request(id), command, out) {
            out.effects
                .push(Effect::Answer(id, Reply::Refused(refusal)));
        }
    }

    fn discover(
        &mut self,
        now: Now,
        id: RequestId,
        key: InstanceKey,
        by_operator: bool,
        out: &mut Output,
    ) {
        if !key.is_valid() {
            let refusal = Refusal::Invalid(format!(
                "{key} cannot be probed: it needs a host name and a port"
            ));
            out.effects
                .push(Effect::Answer(id, Reply::Refused(refusal)));
            return;
        }
        self.discovering
            .entry(key.clone())
            .or_default()
            .push((id, by_operator));
        // A reading that is on its way began before the request, and is as good to an operator.
        self.probe(now, &key, false, out);
    }

    fn operate(
        &mut self,
        now: Now,
        id: RequestId,
        key: InstanceKey,
        purpose: Purpose,
        variant: &str,
        out: &mut Output,
    ) {
        let Some(epoch) = self.leading() else { return };
        let Some(instance) = self.observed.instances.get(&key) else {
            out.effects.push(Effect::Answer(
                id,
                Reply::Refused(Refusal::NotFound(format!("instance {key}"))),
            ));
            return;
        };
        let command = Command::BeginRecovery {
            uid: crate::id::Uid::default(),
            purpose,
            epoch,
            server: key.clone(),
            identity: Instance::identity(instance).cloned(),
            cluster_name: instance.place.cluster_name.clone(),
            analysis: variant.to_string(),
            replicas: alloc::vec::Vec::new(),
            processing_node: self.identification.host_name.clone(),
            processing_token: self.identification.token.clone(),
            forced: true,
            was_read_only: false,
        };
        match self.begin(now, &key, command, out) {
            Ok(uid) => {
                self.operations.insert(uid, id);
            }
            Err(refusal) => out
                .effects
                .push(Effect::Answer(id, Reply::Refused(refusal))),
        }
    }

    /// Proposes to open a recovery or an operation, under a uid of its own.
    ///
    /// # Errors
    /// Why nothing was proposed.
    pub(super) fn begin(
        &mut self,
        now: Now,
        key: &InstanceKey,
        mut command: Command,
        out: &mut Output,
    ) -> Result<crate::id::Uid, Refusal> {
        let fresh = self
            .leading()
            .map(|epoch| self.next_uid(epoch, now.wall))
            .unwrap_or_default();
        if let Command::BeginRecovery { uid, .. } = &mut command {
            *uid = fresh.clone();
        }
        let cause = Cause::Begin(key.clone(), fresh.clone());
        match self.try_propose(now, cause, command, out) {
            Ok(()) => Ok(fresh),
            Err(refusal) => {
                self.beginning.remove(key);
                Err(refusal)
            }
        }
    }
}
