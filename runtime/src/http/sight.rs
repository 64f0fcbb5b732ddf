//! The node as it is at one moment, for whoever looks at it from within its task.

use std::collections::BTreeMap;

use orchestrator_core::analysis::{Diagnosis, Filters};
use orchestrator_core::id::{InstanceKey, LogPosition, NodeId};
use orchestrator_core::node::MembersView;
use orchestrator_core::policy::Policy;
use orchestrator_core::replicated::Replicated;
use orchestrator_core::time::Now;
use orchestrator_core::topology::Instance;

/// Both halves of what a node knows, and what it makes of them.
#[derive(Clone, Copy)]
pub struct Sight<'a> {
    pub now: Now,
    /// Observed.
    pub instances: &'a BTreeMap<InstanceKey, Instance>,
    pub replicated: &'a Replicated,
    /// Of the instances.
    pub diagnosis: &'a Diagnosis,
    /// Of the policy in force.
    pub filters: &'a Filters,
    /// Members whose state differs from this daemon's, and since which entry.
    pub disagreements: &'a BTreeMap<NodeId, LogPosition>,
    /// What this daemon's own file says.
    pub local_policy: &'a Policy,
    /// What there is to show of the raft cluster's members.
    pub members: &'a MembersView,
}

impl<'a> Sight<'a> {
    #[must_use]
    pub fn policy(&self) -> &'a Policy {
        self.replicated.policy()
    }
}
