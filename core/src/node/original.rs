//! The database of the original program that this daemon was first started on: what it says is sent into the log, part by
//! part, where it is the one that is taken over.

use alloc::{boxed::Box, format, string::String, vec::Vec};

use super::{Level, Node, Output, Word, note};
use crate::replicated::{Command, OriginalRows, OriginalSummary};

/// What a daemon's own database holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LocalOriginal {
    pub summary: OriginalSummary,
    /// Never empty.
    pub parts: Vec<OriginalRows>,
}

impl Node {
    /// The next part of this daemon's database, where it is to be taken over.
    pub(super) fn part_to_adopt(&self) -> Option<Word> {
        let original = self.original.as_ref()?;
        let own = self.raft.node;
        if self.replicated.original_to_adopt() != Some(own) {
            return None;
        }
        let part = self
            .replicated
            .adoption()
            .under_way
            .filter(|(node, _)| *node == own)
            .map_or(0, |(_, parts)| parts);
        let rows = original.parts.get(usize::try_from(part).ok()?)?;
        Some(Word::Adopt {
            part,
            is_last: usize::try_from(part).is_ok_and(|part| part + 1 == original.parts.len()),
            rows: Box::new(rows.clone()),
        })
    }

    /// A part was taken over: the next one is said at once, and people are told.
    pub(super) fn adopted(&mut self, command: &Command, out: &mut Output) {
        let Command::Adopt {
            node,
            part,
            is_last,
            rows,
        } = command
        else {
            return;
        };
        if *node == self.raft.node {
            self.members.said = None;
        }
        let name = self
            .replicated
            .member(*node)
            .map_or_else(|| format!("{node}"), |member| member.host_name.clone());
        let counts = [
            (rows.known.len(), "servers"),
            (rows.clusters.len(), "clusters"),
            (rows.downtimes.len(), "downtimes"),
            (rows.maintenance.len(), "maintenances"),
            (rows.candidates.len(), "promotion rules"),
            (rows.tags.len(), "tags"),
            (rows.detections.len(), "detections"),
            (rows.recoveries.len(), "recoveries"),
        ]
        .iter()
        .filter(|(count, _)| *count > 0)
        .map(|(count, what)| format!("{count} {what}"))
        .collect::<Vec<String>>()
        .join(", ");
        let end = if *is_last { "; that was all of it" } else { "" };
        note(
            out,
            Level::Warning,
            None,
            format!(
                "taken over from the original program's database of {name}, part {}: {counts}{end}",
                part + 1
            ),
        );
        if rows.stopped.is_some() {
            note(
                out,
                Level::Warning,
                None,
                String::from(
                    "recoveries are disabled, as they were in the original program's database: enable them with \
                     enable-global-recoveries",
                ),
            );
        }
    }
}
