//! The bytes of commands and answers: a contract between daemons of different releases, and with old logs.
//!
//! A command is a version byte and the command's encoding (`codec`). Tags and orders of fields below are never changed
//! or reused; what is added in a later version gets a new tag, or is read as absent from older bytes, and says since when
//! it is there. Old versions are read for ever. What is written is of the version that the cluster has switched on, which
//! every member reads. An unknown version or kind is an error that the node must stop with: going on without an entry
//! that others applied would diverge.
//!
//! Kinds and fields of a later version: put them below with `since`, raise [`COMMAND_VERSION`] and
//! [`SNAPSHOT_VERSION`](super::snapshot::SNAPSHOT_VERSION) once a release, let the node say them only where
//! [`Replicated::versions`](super::Replicated::versions) has that version, and write their golden files.

use alloc::{string::ToString, vec::Vec};

use super::{
    adoption::{Adopted, Adoption, OriginalCluster, OriginalRows, OriginalSummary},
    codec::{NotYet, Reader, Wire, WireError, Writer, choice, newtype, record, since},
    command::{AckScope, Answer, Command, Detection, Refusal, Stamped},
    members::{ChangeCause, GivenUp, MemberChange, Members, Membership, Swap},
    state::{
        Blocked, Candidate, ClusterRecord, Declaration, Deposed, Downtime, Known, Maintenance,
        Member, Protocols, Sighting, Tag, Versions,
    },
};
use crate::{
    gtid::{Flavour, GtidSet},
    id::{ClusterKey, Epoch, Identity, InstanceKey, LogPosition, NodeId, StepId, Uid},
    policy::{DeposedAction, Policy, ReturnPolicy},
    recovery::{
        AuditLine, DeadKind, End, Hook, HookList, Lane, Outcome, Phase, Purpose, Recovery,
        SourcePosition, Stage, Statement, Step, StepKind, Telling, document::Acknowledgement,
    },
    time::Wall,
    topology::PromotionRule,
};

/// The newest command version that this release reads and, once `SetVersion` has switched it on, writes.
/// Version 2 has [`Command::DescribeProtocols`], [`Command::TellOfDetection`] and [`Detection::telling`].
pub const COMMAND_VERSION: u8 = 2;

// A newcomer says one number in its handshake, which stands for both.
const _: () = assert!(COMMAND_VERSION == super::snapshot::SNAPSHOT_VERSION);

/// Encodes a command in the version that is switched on.
///
/// # Errors
/// That version has no such command: nobody may write it so far.
pub fn encode_command(version: u32, command: &Stamped) -> Result<Vec<u8>, NotYet> {
    encode(version, command)
}

/// # Errors
/// What is wrong with the bytes. The entry is committed, so a node that cannot read it must stop and say so.
pub fn decode_command(bytes: &[u8]) -> Result<Stamped, WireError> {
    decode(COMMAND_VERSION, bytes)
}

/// The same for a daemon that reads commands up to this version.
///
/// # Errors
/// As above.
pub fn decode_command_up_to(newest: u8, bytes: &[u8]) -> Result<Stamped, WireError> {
    decode(newest.min(COMMAND_VERSION), bytes)
}

/// Encodes an answer in the version that is switched on. One that this version has no words for becomes a refusal that
/// says so: the command is committed, and its proposer waits.
#[must_use]
pub fn encode_answer(version: u32, answer: &Answer) -> Vec<u8> {
    encode(version, answer).unwrap_or_else(|not_yet| {
        let refused = Answer::Refused(Refusal::Invalid(not_yet.to_string()));
        encode(1, &refused).expect("every version has refusals in words")
    })
}

/// # Errors
/// What is wrong with the bytes.
pub fn decode_answer(bytes: &[u8]) -> Result<Answer, WireError> {
    decode(COMMAND_VERSION, bytes)
}

fn encode<T: Wire>(version: u32, value: &T) -> Result<Vec<u8>, NotYet> {
    let version = version.clamp(1, u32::from(COMMAND_VERSION));
    let mut out = Writer::new(version, Vec::with_capacity(128));
    // Never above the newest version, which is a byte.
    out.push(version as u8);
    value.put(&mut out);
    out.finish()
}

fn decode<T: Wire>(newest: u8, bytes: &[u8]) -> Result<T, WireError> {
    let (found, rest) = bytes.split_first().ok_or(WireError::Short)?;
    let found = *found;
    if found == 0 || found > newest {
        return Err(WireError::Version { found, newest });
    }
    let mut from = Reader::new(u32::from(found), rest);
    let value = T::take(&mut from)?;
    from.end()?;
    Ok(value)
}

newtype!(Identity, NodeId, ClusterKey, Uid, StepId);

impl Wire for Wall {
    fn put(&self, out: &mut Writer) {
        self.nanos().put(out);
    }

    fn take(from: &mut Reader<'_>) -> Result<Self, WireError> {
        Ok(Self::from_nanos(u64::take(from)?))
    }
}

/// Flavour, then the canonical text.
impl Wire for GtidSet {
    fn put(&self, out: &mut Writer) {
        self.flavour().put(out);
        self.to_string().put(out);
    }

    fn take(from: &mut Reader<'_>) -> Result<Self, WireError> {
        let flavour = Flavour::take(from)?;
        let text = alloc::string::String::take(from)?;
        let set = Self::parse(flavour, &text).map_err(|_| WireError::Value("GTID set"))?;
        if set.to_string() != text {
            return Err(WireError::Value("GTID set in canonical form"));
        }
        Ok(set)
    }
}

choice!(Flavour {
    0 => Oracle,
    1 => Mariadb,
});

record!(InstanceKey { host, port });
record!(Epoch { term, node, boot });
record!(LogPosition { index, term, node });
record!(Stamped { wall, command });

choice!(PromotionRule {
    0 => Must,
    1 => Prefer,
    2 => Neutral,
    3 => PreferNot,
    4 => MustNot,
});
choice!(ReturnPolicy {
    0 => Resume,
    1 => Continue,
});
choice!(DeposedAction {
    0 => ReadOnlyAndKill,
    1 => ReadOnly,
    2 => Report,
});
choice!(DeadKind {
    0 => Gone,
    1 => Silent,
});
choice!(Purpose {
    0 => DeadPrimary { kind },
    1 => Quarantine { deposed_by },
    2 => Reopen,
    3 => SetReadOnly,
    4 => SetWriteable,
    5 => Rejoin { primary },
});
choice!(Stage {
    0 => Begun,
    1 => FenceAndHalt,
    2 => Drain,
    3 => Promote,
    4 => Regroup,
    5 => Tidy,
    6 => Undo,
    7 => Operate,
    8 => Ended,
    9 => PreHooks,
    10 => PostHooks,
    11 => Closed,
});
choice!(HookList {
    0 => OnFailureDetection,
    1 => PreGracefulTakeover,
    2 => PreFailover,
    3 => PostFailover,
    4 => PostUnsuccessfulFailover,
    5 => PostPrimaryFailover,
    6 => PostIntermediateFailover,
    7 => PostGracefulTakeover,
    8 => PostTakePrimary,
});
record!(Hook { list, place });
choice!(StepKind {
    0 => Fence,
    1 => KillClients,
    2 => Halt,
    3 => Drain,
    4 => Promote,
    5 => Repoint,
    6 => Resume,
    7 => Reopen,
    8 => Operate,
    9 => Reset,
    10 => Hook,
});
choice!(Outcome {
    0 => Done,
    1 => Refused { code, reason },
    2 => Unknown { reason },
});
choice!(Phase {
    0 => Intended(epoch),
    1 => Settled(outcome),
});
choice!(End {
    0 => Succeeded,
    1 => Undone { reason },
    2 => Failed { reason },
});
choice!(Lane {
    0 => Act,
    1 => Fence,
    2 => Kill,
});
choice!(SourcePosition {
    0 => OracleAuto,
    1 => MariadbSlavePos,
    2 => OracleKept,
});
choice!(Statement {
    0 => Fence,
    1 => MakeWriteable,
    2 => MakeReadOnly { super_read_only },
    3 => KillClients { spare_users },
    4 => StopIoThread,
    5 => StartIoThread,
    6 => StopSqlThread,
    7 => StartSqlThread,
    8 => StopReplication,
    9 => StartReplication,
    10 => ChangeSource { source, position, options },
    11 => ResetReplicaAll,
    12 => SetGtidSlavePos { position },
    13 => SemiSyncSource { enabled },
    14 => SemiSyncReplica { enabled },
    15 => RunHook { hook },
});
record!(Step {
    id,
    kind,
    server,
    identity,
    lane,
    statements,
    deadline,
    read_after,
});
record!(AuditLine { at, message });
record!(Acknowledgement { at, by, comment });
record!(Recovery {
    uid,
    number,
    purpose,
    cluster,
    cluster_name,
    cluster_alias,
    server,
    identity,
    analysis,
    replicas,
    owner,
    processing_node,
    processing_token,
    began,
    stage,
    steps,
    candidate,
    successor,
    successor_alias,
    lost,
    participants,
    possible_loss,
    errors,
    lines,
    end,
    acknowledged,
    detection,
    was_read_only,
    ending,
});
record!(Telling {
    place,
    run,
    tries,
    phase,
});
record!(Detection {
    number,
    server,
    analysis,
    cluster_name,
    cluster_alias,
    replicas,
    is_actionable,
    processing_node,
    processing_token,
    at,
    is_active,
    telling since 2,
});
record!(Policy {
    poll,
    reasonable_check,
    reasonable_lag,
    reasonable_locked_semi_sync,
    reduce_analysis,
    enforce_exact_semi_sync,
    recover_non_writeable,
    recover_primary_filters,
    recover_intermediate_filters,
    recovery_ignore_hosts,
    promotion_ignore_hosts,
    problem_ignore_hosts,
    cool_down,
    detection_block,
    apply_promotion,
    prevent_cross_data_center,
    prevent_cross_region,
    fail_promotion_on_lag,
    fail_promotion_if_not_applied,
    skip_drain,
    lost_downtime,
    candidate_expiry,
    unseen_forget,
    audit_purge,
    cluster_name_to_alias,
    ignore_hosts,
    ignore_replica_hosts,
    ignore_source_hosts,
    gone_patience,
    planned_stop_patience,
    return_policy,
    reopen_restarted_primary,
    halt_deadline,
    donor_catchup,
    drain_max,
    refuse_lossy,
    witness_quorum,
    deposed_action,
    spare_users,
    observe_only,
});
choice!(AckScope {
    0 => All,
    1 => Number(number),
    2 => Uid(uid),
    3 => Cluster { name, alias },
    4 => Instance(key),
});
choice!(ChangeCause {
    0 => Declared,
    1 => Swapped { former, newcomer, address },
    2 => Operator { request },
});
choice!(Command {
    0 => Declare { node, entries, identities },
    1 => SetVersion { command, snapshot },
    2 => DescribeMember { node, raft_address, http_uri, host_name, build, reads_command, reads_snapshot, original },
    3 => SetPolicy(policy),
    4 => Know { keys, by_operator },
    5 => Forget { keys },
    6 => RecordCluster { primary, identity, members },
    7 => SetClusterAlias { cluster_name, alias, by_operator },
    8 => SetClusterDomain { cluster_name, domain },
    9 => BeginDowntime { key, owner, reason, until },
    10 => EndDowntime { key },
    11 => BeginMaintenance { key, owner, reason, until },
    12 => EndMaintenance { key },
    13 => RegisterCandidate { key, rule },
    14 => PutTag { key, name, value },
    15 => DeleteTag { key, name, value },
    16 => SetRecoveriesEnabled { enabled },
    17 => RegisterDetection(detection),
    18 => BeginRecovery {
        uid, purpose, epoch, server, identity, cluster_name, analysis, replicas, processing_node, processing_token,
        forced, was_read_only,
    },
    19 => TakeOver { uid, epoch },
    20 => Intend { uid, epoch, stage, candidate, steps, ending, lines },
    21 => Settle { uid, epoch, outcomes, lines },
    22 => Remark { uid, epoch, lines, errors, possible_loss },
    23 => EndRecovery {
        uid, epoch, end, successor, successor_identity, successor_alias, lost, participants, lines,
    },
    24 => Acknowledge { scope, owner, comment },
    25 => LiftQuarantine { identity, reason },
    26 => MarkFenced { identity, at_uptime_s },
    27 => BeginMemberChange { epoch, base, wanted, cause },
    28 => EndMemberChange { epoch, base, reason },
    29 => MarkPrimary { primary, identity, writeable_at_uptime_s },
    30 => MarkWitnesses { primary, identity, nodes },
    31 => Adopt { node, part, is_last, rows },
    32 => ChooseOriginal { node },
    33 => DescribeProtocols { node, protocols } since 2,
    34 => TellOfDetection { number, epoch, run, ended, next } since 2,
});
choice!(Answer {
    0 => Done,
    1 => Changed(count),
    2 => Numbered(number),
    3 => Refused(refusal),
});
choice!(Refusal {
    0 => NotFound(what),
    1 => ClusterBusy { by },
    2 => CoolDown { by, until },
    3 => RecoveriesDisabled,
    4 => NotOwner { owner },
    5 => Ended,
    6 => Full { what, limit },
    7 => Invalid(why),
    8 => InDowntime { until },
    9 => InMaintenance { until },
});

// Rows of the snapshot.
record!(Versions { command, snapshot });
record!(Protocols { oldest, newest });
record!(Member {
    raft_address,
    http_uri,
    host_name,
    build,
    reads_command,
    reads_snapshot,
    described,
    original,
    protocols since 2,
});
record!(OriginalSummary { newest, servers });
record!(OriginalCluster {
    primary,
    members,
    alias,
});
record!(OriginalRows {
    known,
    clusters,
    downtimes,
    maintenance,
    candidates,
    tags,
    detections,
    recoveries,
    stopped,
});
record!(Adopted { node, summary, at });
record!(Adoption {
    founders,
    chosen,
    under_way,
    adopted,
});
record!(Declaration {
    entries,
    identities,
    position,
    at,
});
record!(Members { voters, learners });
record!(Membership {
    members,
    at,
    voters_since,
});
record!(MemberChange {
    wanted,
    cause,
    position,
    began,
});
record!(GivenUp { wanted, reason, at });
record!(Swap { address, at });
record!(Known { since });
record!(ClusterRecord {
    key,
    primary,
    identity,
    name,
    former,
    split_from,
    alias,
    alias_override,
    domain,
    members,
    recorded,
    opened,
    witnesses,
});
record!(Downtime {
    owner,
    reason,
    began,
    until,
});
record!(Maintenance {
    number,
    owner,
    reason,
    began,
    until,
});
record!(Candidate { rule, at });
record!(Tag { value, at });
record!(Deposed {
    by,
    key,
    cluster,
    successor,
    at,
    fenced,
});
record!(Sighting { at, uptime_s });
record!(Blocked {
    cluster_name,
    analysis,
    at,
    by,
    number,
});
