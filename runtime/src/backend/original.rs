//! What the rows of the original program say that were set aside when its database was adopted: servers, clusters and
//! their aliases, what people said of them, and the newest of its history.

use std::collections::{BTreeMap, BTreeSet};

use orchestrator_core::id::{ClusterKey, Epoch, InstanceKey, Uid};
use orchestrator_core::limits::bounded;
use orchestrator_core::node::LocalOriginal;
use orchestrator_core::recovery::{
    AuditLine, DeadKind, End, Purpose, Recovery, Stage, document::Acknowledgement,
};
use orchestrator_core::replicated::{
    Candidate, Detection, Downtime, Maintenance, OriginalCluster, OriginalRows, OriginalSummary,
    Tag,
};
use orchestrator_core::time::Wall;
use orchestrator_core::topology::PromotionRule;

use super::question::{Question, Texts, is_set, key, key_at, number, text, time};
use super::tables::{
    CANDIDATE_DATABASE_INSTANCE, CLUSTER_ALIAS_OVERRIDE, DATABASE_INSTANCE,
    DATABASE_INSTANCE_DOWNTIME, DATABASE_INSTANCE_MAINTENANCE, DATABASE_INSTANCE_TAGS,
    GLOBAL_RECOVERY_DISABLE, TOPOLOGY_FAILURE_DETECTION, TOPOLOGY_RECOVERY,
    TOPOLOGY_RECOVERY_STEPS,
};

/// Recoveries, and detections, that are taken over; older ones stay where they are.
const HISTORY_MAX: usize = 1_000;
/// Their lines.
const LINES_MAX: usize = 20_000;
const LINES_PER_RECOVERY_MAX: usize = 500;
const LINE_BYTES_MAX: usize = 1_000;
/// Bytes of one part, by estimate. A command may have four times as many.
const PART_BYTES: usize = 1 << 20;

pub(super) const QUESTIONS: [Question; 10] = [
    Question::of_original(
        &DATABASE_INSTANCE,
        &["hostname", "port", "cluster_name", "last_seen"],
    ),
    Question::of_original(&CLUSTER_ALIAS_OVERRIDE, &["cluster_name", "alias"]),
    Question::of_original(
        &DATABASE_INSTANCE_DOWNTIME,
        &[
            "hostname",
            "port",
            "downtime_active",
            "begin_timestamp",
            "end_timestamp",
            "owner",
            "reason",
        ],
    ),
    Question::of_original(
        &DATABASE_INSTANCE_MAINTENANCE,
        &[
            "hostname",
            "port",
            "maintenance_active",
            "begin_timestamp",
            "end_timestamp",
            "owner",
            "reason",
            "database_instance_maintenance_id",
        ],
    ),
    Question::of_original(
        &CANDIDATE_DATABASE_INSTANCE,
        &["hostname", "port", "promotion_rule", "last_suggested"],
    ),
    Question::of_original(
        &DATABASE_INSTANCE_TAGS,
        &["hostname", "port", "tag_name", "tag_value", "last_updated"],
    ),
    Question::of_original(&GLOBAL_RECOVERY_DISABLE, &["disable_recovery"]),
    Question::of_original(
        &TOPOLOGY_FAILURE_DETECTION,
        &[
            "hostname",
            "port",
            "detection_id",
            "start_active_period",
            "processing_node_hostname",
            "processcing_node_token",
            "analysis",
            "cluster_name",
            "cluster_alias",
            "slave_hosts",
            "is_actionable",
        ],
    )
    .newest("detection_id", HISTORY_MAX),
    Question::of_original(
        &TOPOLOGY_RECOVERY,
        &[
            "hostname",
            "port",
            "recovery_id",
            "start_active_period",
            "end_recovery",
            "processing_node_hostname",
            "processcing_node_token",
            "successor_hostname",
            "successor_port",
            "successor_alias",
            "analysis",
            "cluster_name",
            "cluster_alias",
            "slave_hosts",
            "participating_instances",
            "lost_slaves",
            "all_errors",
            "is_successful",
            "acknowledged",
            "acknowledged_at",
            "acknowledged_by",
            "acknowledge_comment",
            "last_detection_id",
            "uid",
        ],
    )
    .newest("recovery_id", HISTORY_MAX),
    Question::of_original(
        &TOPOLOGY_RECOVERY_STEPS,
        &["recovery_uid", "audit_at", "message"],
    )
    .newest("recovery_step_id", LINES_MAX),
];

/// What the answers to [`QUESTIONS`] come to. None: no rows of the original are kept here.
pub(super) fn read(answers: &[Vec<Texts>]) -> Option<LocalOriginal> {
    let none = Vec::new();
    let answer = |place: usize| answers.get(place).unwrap_or(&none);
    if answers.iter().all(Vec::is_empty) {
        return None;
    }
    let mut parts = Parts::default();
    let newest = answer(0).iter().filter_map(|row| time(row, 3)).max();
    let newest = newest.unwrap_or(Wall::EPOCH);
    let mut clusters: BTreeMap<String, Vec<InstanceKey>> = BTreeMap::new();
    let mut servers = BTreeSet::new();
    for row in answer(0) {
        if let Some(key) = key(row) {
            clusters.entry(text(row, 2)).or_default().push(key.clone());
            servers.insert(key);
        }
    }
    let aliases: BTreeMap<String, String> = answer(1)
        .iter()
        .map(|row| (text(row, 0), text(row, 1)))
        .collect();
    let count = servers.len() as u64;
    for key in servers {
        let weight = weigh(&key);
        parts.with(weight).known.push(key);
    }
    for (name, members) in clusters {
        if let Some(primary) = members.iter().find(|member| member.to_string() == name) {
            let weight = members.iter().map(weigh).sum();
            parts.with(weight).clusters.push(OriginalCluster {
                primary: primary.clone(),
                alias: aliases.get(&name).cloned().unwrap_or_default(),
                members,
            });
        }
    }
    words(answer, newest, &mut parts);
    for row in answer(7).iter().rev() {
        if let Some(detection) = detection(row) {
            let weight = 500 + detection.replicas.iter().map(weigh).sum::<usize>();
            parts.with(weight).detections.push(detection);
        }
    }
    let mut lines: BTreeMap<String, Vec<AuditLine>> = BTreeMap::new();
    for row in answer(9).iter().rev() {
        let held = lines.entry(text(row, 0)).or_default();
        if let Some(at) = time(row, 1)
            && held.len() < LINES_PER_RECOVERY_MAX
        {
            let message = bounded(text(row, 2), LINE_BYTES_MAX);
            held.push(AuditLine { at, message });
        }
    }
    for row in answer(8).iter().rev() {
        if let Some(recovery) = recovery(row, &mut lines) {
            let servers = [&recovery.replicas, &recovery.lost, &recovery.participants];
            let weight = 1_000
                + servers.into_iter().flatten().map(weigh).sum::<usize>()
                + recovery.errors.iter().map(String::len).sum::<usize>()
                + recovery
                    .lines
                    .iter()
                    .map(|line| line.message.len() + 12)
                    .sum::<usize>();
            parts.with(weight).recoveries.push(recovery);
        }
    }
    let parts = parts.end();
    (!parts.is_empty()).then_some(LocalOriginal {
        summary: OriginalSummary {
            newest,
            servers: count,
        },
        parts,
    })
}

/// What people said.
fn words<'a>(answer: impl Fn(usize) -> &'a Vec<Texts>, newest: Wall, parts: &mut Parts) {
    for row in answer(2) {
        if let (Some(key), true, Some(began), Some(until)) =
            (key(row), is_set(row, 2), time(row, 3), time(row, 4))
        {
            let downtime = Downtime {
                owner: text(row, 5),
                reason: text(row, 6),
                began,
                until,
            };
            let weight = weigh(&key) + downtime.owner.len() + downtime.reason.len() + 20;
            parts.with(weight).downtimes.push((key, downtime));
        }
    }
    for row in answer(3) {
        if let (Some(key), true, Some(began), Some(until)) =
            (key(row), is_set(row, 2), time(row, 3), time(row, 4))
        {
            let maintenance = Maintenance {
                number: number(row, 7).unwrap_or(0),
                owner: text(row, 5),
                reason: text(row, 6),
                began,
                until,
            };
            let weight = weigh(&key) + maintenance.owner.len() + maintenance.reason.len() + 30;
            parts.with(weight).maintenance.push((key, maintenance));
        }
    }
    for row in answer(4) {
        if let (Some(key), Some(rule)) = (key(row), PromotionRule::parse(&text(row, 2))) {
            let at = time(row, 3).unwrap_or(newest);
            let weight = weigh(&key) + 15;
            parts
                .with(weight)
                .candidates
                .push((key, Candidate { rule, at }));
        }
    }
    for row in answer(5) {
        if let Some(key) = key(row) {
            let (name, value) = (text(row, 2), text(row, 3));
            let at = time(row, 4).unwrap_or(newest);
            let weight = weigh(&key) + name.len() + value.len() + 15;
            parts
                .with(weight)
                .tags
                .push(((key, name), Tag { value, at }));
        }
    }
    if answer(6).iter().any(|row| is_set(row, 0)) {
        parts.with(10).stopped = Some(newest);
    }
}

fn detection(row: &Texts) -> Option<Detection> {
    Some(Detection {
        number: number(row, 2)?,
        server: key(row)?,
        analysis: text(row, 6),
        cluster_name: text(row, 7),
        cluster_alias: text(row, 8),
        replicas: keys(&text(row, 9)),
        is_actionable: is_set(row, 10),
        processing_node: text(row, 4),
        processing_token: text(row, 5),
        at: time(row, 3)?,
        is_active: false,
        telling: None,
    })
}

fn recovery(row: &Texts, lines: &mut BTreeMap<String, Vec<AuditLine>>) -> Option<Recovery> {
    let number = number(row, 2)?;
    let began = time(row, 3)?;
    let uid = Some(text(row, 23)).filter(|uid| !uid.is_empty());
    let errors: Vec<String> = text(row, 16)
        .lines()
        .filter(|line| !line.is_empty())
        .map(|line| bounded(line.to_owned(), LINE_BYTES_MAX))
        .take(LINES_PER_RECOVERY_MAX)
        .collect();
    let end = if is_set(row, 17) {
        End::Succeeded
    } else {
        let reason = errors.first().cloned();
        let reason = reason.unwrap_or_else(|| "it did not succeed".to_owned());
        End::Failed { reason }
    };
    let successor = key_at(row, 7).filter(InstanceKey::is_valid);
    Some(Recovery {
        lines: uid
            .as_ref()
            .and_then(|uid| lines.remove(uid))
            .unwrap_or_default(),
        // Those of old releases have none.
        uid: Uid(uid.unwrap_or_else(|| format!("original:{number}"))),
        number,
        purpose: Purpose::DeadPrimary {
            kind: DeadKind::Gone,
        },
        cluster: ClusterKey(0),
        cluster_name: text(row, 11),
        cluster_alias: text(row, 12),
        server: key(row)?,
        identity: None,
        analysis: text(row, 10),
        replicas: keys(&text(row, 13)),
        owner: Epoch::default(),
        processing_node: text(row, 5),
        processing_token: text(row, 6),
        began,
        stage: Stage::Closed,
        steps: BTreeMap::new(),
        candidate: None,
        successor,
        successor_alias: text(row, 9),
        lost: keys(&text(row, 15)),
        participants: keys(&text(row, 14)),
        possible_loss: Vec::new(),
        errors,
        end: Some((time(row, 4).unwrap_or(began), end)),
        acknowledged: is_set(row, 18).then(|| Acknowledgement {
            at: time(row, 19).unwrap_or(began),
            by: text(row, 20),
            comment: text(row, 21),
        }),
        detection: self::number(row, 22).unwrap_or(0),
        was_read_only: false,
        ending: None,
    })
}

/// Of a list as the original writes it: `host:port,host:port`.
fn keys(list: &str) -> Vec<InstanceKey> {
    list.split(',')
        .filter_map(|entry| {
            let (host, port) = entry.trim().rsplit_once(':')?;
            let key = InstanceKey::new(host, port.parse().ok()?);
            key.is_valid().then_some(key)
        })
        .collect()
}

fn weigh(key: &InstanceKey) -> usize {
    key.host.len() + 4
}

/// Rows in parts that a command can carry.
#[derive(Default)]
struct Parts {
    full: Vec<OriginalRows>,
    open: OriginalRows,
    bytes: usize,
}

impl Parts {
    /// The part that a row of this weight is to go into.
    fn with(&mut self, bytes: usize) -> &mut OriginalRows {
        if self.bytes + bytes > PART_BYTES && self.bytes > 0 {
            self.full.push(std::mem::take(&mut self.open));
            self.bytes = 0;
        }
        self.bytes += bytes;
        &mut self.open
    }

    fn end(mut self) -> Vec<OriginalRows> {
        if !self.open.is_empty() {
            self.full.push(self.open);
        }
        self.full
    }
}
