//! Taking over what a database of the original program says. What is known here already is newer, and stays.

use super::*;
use crate::replicated::adoption::{Adopted, OriginalCluster, OriginalRows};

/// An uid that was given by the original, or by its number where it gave none.
const UID_BYTES_MAX: usize = 256;

impl Application<'_> {
    pub(super) fn choose_original(&mut self, node: NodeId) -> Decision {
        let Some(member) = self.state.member(node) else {
            return Err(Refusal::NotFound(format!("member {node}")));
        };
        if member.original.is_none() {
            return Err(invalid(format!(
                "{} holds no database of the original program",
                member.host_name
            )));
        }
        if let Some(adopted) = &self.state.adoption.adopted
            && adopted.node == node
        {
            return Err(invalid(format!(
                "the database of {} was taken over already",
                member.host_name
            )));
        }
        self.state.adoption.chosen = Some(node);
        Ok(Answer::Done)
    }

    pub(super) fn adopt(
        &mut self,
        node: NodeId,
        part: u32,
        is_last: bool,
        rows: &OriginalRows,
    ) -> Decision {
        if self.state.original_to_adopt() != Some(node) {
            return Err(invalid(format!(
                "the database of {node} is not the one to take over"
            )));
        }
        let Some(summary) = self.state.member(node).and_then(|member| member.original) else {
            return Err(invalid(format!("{node} holds no database to take over")));
        };
        let expected = self
            .state
            .adoption
            .under_way
            .filter(|(under_way, _)| *under_way == node)
            .map_or(0, |(_, parts)| parts);
        if part != expected {
            return Err(invalid(format!(
                "part {part} of the database of {node} came in the place of part {expected}"
            )));
        }
        for keys in rows.known.chunks(KNOWN_PER_COMMAND_MAX) {
            // Beyond the limit nothing more is known; the rest is taken all the same.
            let _ = self.know(keys, true);
        }
        for cluster in &rows.clusters {
            self.adopt_cluster(cluster);
        }
        self.adopt_words(rows);
        for detection in &rows.detections {
            self.adopt_detection(detection);
        }
        for recovery in &rows.recoveries {
            self.adopt_recovery(recovery);
        }
        if rows.stopped.is_some() && self.state.stopped.is_none() {
            self.state.stopped = rows.stopped;
            self.changes.push(Change::GlobalStop(rows.stopped));
        }
        let adoption = &mut self.state.adoption;
        if is_last {
            adoption.under_way = None;
            adoption.adopted = Some(Adopted {
                node,
                summary,
                at: self.now,
            });
        } else {
            adoption.under_way = Some((node, part.saturating_add(1)));
        }
        Ok(Answer::Done)
    }

    fn adopt_cluster(&mut self, cluster: &OriginalCluster) {
        let held = core::iter::once(&cluster.primary)
            .chain(&cluster.members)
            .find_map(|key| self.state.cluster_of(key))
            .map(|record| (record.name.clone(), record.alias_override.is_empty()));
        let (name, is_free) = match held {
            Some(held) => held,
            None => {
                let recorded = self.record_cluster(&cluster.primary, None, &cluster.members);
                if recorded.is_err() {
                    return;
                }
                (cluster.primary.to_string(), true)
            }
        };
        if is_free && !cluster.alias.is_empty() {
            let _ = self.set_cluster_alias(&name, &cluster.alias, true);
        }
    }

    /// What people said of servers.
    fn adopt_words(&mut self, rows: &OriginalRows) {
        let is_taken = |key: &InstanceKey| check_key(key).is_ok();
        for (key, row) in rows.downtimes.iter().filter(|(key, _)| is_taken(key)) {
            if row.holds_at(self.now)
                && !self.state.downtimes.contains(key)
                && self.state.downtimes.len() < INSTANCES_MAX
            {
                let row = Downtime {
                    owner: text(&row.owner),
                    reason: text(&row.reason),
                    ..row.clone()
                };
                self.put_downtime(key, Some(row));
            }
        }
        for (key, row) in rows.maintenance.iter().filter(|(key, _)| is_taken(key)) {
            if row.until > self.now
                && !self.state.maintenance.contains(key)
                && self.state.maintenance.len() < INSTANCES_MAX
            {
                self.state.last_maintenance = self.state.last_maintenance.max(row.number);
                let row = Maintenance {
                    owner: text(&row.owner),
                    reason: text(&row.reason),
                    ..row.clone()
                };
                self.put_maintenance(key, Some(row));
            }
        }
        for (key, row) in rows.candidates.iter().filter(|(key, _)| is_taken(key)) {
            if !self.state.candidates.contains(key) && self.state.candidates.len() < INSTANCES_MAX {
                self.put_candidate(key, Some(row.clone()));
            }
        }
        for ((key, name), tag) in &rows.tags {
            if self.state.tag_of(key, &text(name)).is_none() {
                let _ = self.put_tag(key, name, &tag.value);
            }
        }
    }

    /// The original's number is kept where it is free, so that references to it go on to mean the same.
    fn adopt_detection(&mut self, detection: &Detection) {
        if check_key(&detection.server).is_err()
            || self.state.detections.len() >= AUDIT_ENTRIES_MAX
            || self.state.detections.contains(&detection.number)
        {
            return;
        }
        let number = detection.number.max(self.state.last_detection + 1);
        let row = Detection {
            number,
            analysis: text(&detection.analysis),
            cluster_name: text(&detection.cluster_name),
            cluster_alias: text(&detection.cluster_alias),
            processing_node: text(&detection.processing_node),
            processing_token: text(&detection.processing_token),
            is_active: false,
            // Its hooks were the original's.
            telling: None,
            ..detection.clone()
        };
        self.state.last_detection = number;
        let row = self.state.detections.put(number, row);
        self.changes.push(Change::Detection(number, Some(row)));
    }

    fn adopt_recovery(&mut self, recovery: &Recovery) {
        let is_sound = check_key(&recovery.server).is_ok()
            && !recovery.is_running()
            && !recovery.uid.0.is_empty()
            && recovery.uid.0.len() <= UID_BYTES_MAX;
        if !is_sound
            || self.state.recoveries.len() >= AUDIT_ENTRIES_MAX
            || self.state.index.recovery_by_uid.contains_key(&recovery.uid)
        {
            return;
        }
        let number = recovery.number.max(self.state.last_recovery + 1);
        let cluster = recovery
            .successor
            .iter()
            .chain(core::iter::once(&recovery.server))
            .find_map(|key| self.state.cluster_of(key))
            .map_or(ClusterKey(0), |record| record.key);
        let row = Recovery {
            number,
            cluster,
            // Its hooks were the original's.
            stage: Stage::Closed,
            steps: BTreeMap::new(),
            ..recovery.clone()
        };
        self.state.last_recovery = number;
        self.index()
            .recovery_by_uid
            .insert(recovery.uid.clone(), number);
        let row = self.state.recoveries.put(number, row);
        let lines = line_changes(&row, 0);
        self.changes.push(Change::Recovery(number, Some(row)));
        self.changes.extend(lines);
    }
}
