//! What the key-value store says was decided: no pair names a server that no committed entry had made the primary of the
//! cluster so called, nor has the time of anything but a committed entry, nor a term before that entry's or after every
//! vote's. And it never goes backwards: no pair is replaced by one of an earlier decision, and no cluster's primary by one
//! of an earlier term, or by a server whose promotion came before that of the one that is there.

use std::collections::{BTreeMap, BTreeSet};

use orchestrator::kv::Version;
use orchestrator_core::id::InstanceKey;
use orchestrator_core::recovery::{Outcome, Phase, Statement, StepKind};
use orchestrator_core::replicated::Replicated;
use orchestrator_core::time::Wall;

use super::Truth;
use crate::store::PREFIX;
use crate::witness::{Cause, Event};

/// What the store says.
#[derive(Debug, Default)]
pub struct Publications {
    held: BTreeMap<String, (String, Version)>,
    /// The servers that were promoted, in their order.
    promoted: Vec<String>,
    /// Whoever was the primary of a cluster of this name, by what was committed.
    primaries: BTreeMap<String, BTreeSet<InstanceKey>>,
    /// The log's time after each committed entry, in milliseconds, with the term of the first one of that time.
    times: BTreeMap<u64, u64>,
    /// The latest that anybody voted in.
    term: u64,
}

impl Publications {
    /// # Errors
    /// The store says what nobody decided, or went backwards.
    pub fn observe(&mut self, event: &Event, truth: &Truth<'_>) -> Result<(), String> {
        match event {
            Event::Executed {
                server,
                statement: Statement::MakeWriteable,
                cause: Some(Cause::Step { kind, .. }),
                ..
            } if *kind == StepKind::Promote => self.promoted.push(server.to_string()),
            Event::Committed { .. } | Event::Refused { .. } | Event::Seated { .. } => {
                self.learn(truth.decided);
            }
            Event::Published {
                key,
                value,
                version,
            } => {
                self.was_decided(key, value, *version, truth.decided)?;
                self.goes_forward(key, value, *version)?;
            }
            Event::Votes { term, .. } => self.term = self.term.max(*term),
            Event::Executed { .. }
            | Event::Leads { .. }
            | Event::NoLongerLeads { .. }
            | Event::HookBegan { .. }
            | Event::HookEnded { .. } => {}
        }
        Ok(())
    }

    fn learn(&mut self, decided: &Replicated) {
        let millis = |at: Wall| at.nanos() / 1_000_000;
        let term = decided.applied().term;
        self.times.entry(millis(decided.log_time())).or_insert(term);
        for record in decided.clusters() {
            // A cluster that was made of a database holds what was decided before its first entry.
            self.times.entry(millis(record.recorded)).or_insert(0);
            let alias = record.shown_alias();
            if alias.is_empty() {
                continue;
            }
            // A running recovery that has opened a server announces it.
            let opened = decided
                .running_on(record.key)
                .filter(|recovery| recovery.purpose.is_recovery())
                .into_iter()
                .flat_map(|recovery| recovery.steps_of(StepKind::Promote))
                .filter(|(_, phase)| matches!(phase, Phase::Settled(Outcome::Done)))
                .map(|(step, _)| &step.server);
            let primaries = self.primaries.entry(alias.to_owned()).or_default();
            for key in opened.chain([&record.primary]) {
                if !primaries.contains(key) {
                    primaries.insert(key.clone());
                }
            }
        }
    }

    fn was_decided(
        &self,
        key: &str,
        value: &str,
        version: Version,
        decided: &Replicated,
    ) -> Result<(), String> {
        let bad = |why: &str| {
            Err(format!(
                "publications: {key} is said to be {value} of {version}: {why}"
            ))
        };
        let Some(named) = key.strip_prefix(PREFIX) else {
            return bad("the key is nobody's");
        };
        let (alias, part) = named.split_once('/').unwrap_or((named, ""));
        let Some(primaries) = self.primaries.get(alias) else {
            return bad("no cluster was ever called so");
        };
        let is_named = match part {
            "" => primaries.iter().any(|key| key.to_string() == value),
            "hostname" => primaries.iter().any(|key| key.host == value),
            "port" => primaries.iter().any(|key| key.port.to_string() == value),
            // Whoever resolves the name says it.
            "ipv4" | "ipv6" => true,
            _ => return bad("the key is nobody's"),
        };
        if !is_named {
            return bad("nothing that is committed made this the cluster's primary");
        }
        // The time of an entry with the number of a recovery added to it.
        let numbers = decided.recoveries_newest_first().map(|one| one.number);
        let terms = numbers.chain([0]).filter_map(|number| {
            let time = version.decided.checked_sub(number)?;
            self.times.get(&time)
        });
        match terms.min() {
            None => bad("nothing was committed at that time"),
            Some(first) if version.term < *first => bad("it was decided in a later term"),
            Some(_) if version.term > self.term => bad("nobody voted in that term"),
            Some(_) => Ok(()),
        }
    }

    fn goes_forward(&mut self, key: &str, value: &str, version: Version) -> Result<(), String> {
        let held = self
            .held
            .insert(key.to_owned(), (value.to_owned(), version));
        let Some((held, held_version)) = held else {
            return Ok(());
        };
        let is_address = key
            .strip_prefix(PREFIX)
            .is_some_and(|alias| !alias.contains('/'));
        // The addresses of one primary are renewed in any term.
        let is_back = if is_address {
            version < held_version
        } else {
            version.decided < held_version.decided
        };
        if is_back {
            return Err(format!(
                "publications: {key} went back from {held} of {held_version} to {value} of {version}"
            ));
        }
        if is_address && self.place(value) < self.place(&held) {
            return Err(format!(
                "publications: {key} went back from {held}, which was promoted later, to {value}"
            ));
        }
        Ok(())
    }

    /// When a server was last promoted; none: never.
    fn place(&self, server: &str) -> Option<usize> {
        self.promoted
            .iter()
            .rposition(|promoted| promoted == server)
    }
}
