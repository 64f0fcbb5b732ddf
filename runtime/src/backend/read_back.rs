//! What people said, read back from the rows of a backend whose daemons lost everything else.
//!
//! The rows are a projection: servers, aliases given by hand, downtimes, maintenance, promotion rules, tags and the global
//! stop are whole in them and become commands again. Recoveries and detections are not: their rows are for reading, and
//! stay where they are. Which old primaries are fenced is not in the rows at all.

use std::collections::{BTreeMap, BTreeSet};

use orchestrator_core::id::InstanceKey;
use orchestrator_core::replicated::Command;
use orchestrator_core::time::Wall;
use orchestrator_core::topology::PromotionRule;

use super::question::{Question, Texts, key, text, time};
use super::tables::{
    CANDIDATE_DATABASE_INSTANCE, CLUSTER_ALIAS_OVERRIDE, DATABASE_INSTANCE,
    DATABASE_INSTANCE_DOWNTIME, DATABASE_INSTANCE_MAINTENANCE, DATABASE_INSTANCE_TAGS,
    GLOBAL_RECOVERY_DISABLE, ORCHESTRATOR_PROJECTION,
};
use super::{BackendError, Place, Position, database::Held, mysql, sqlite};
use crate::env::Env;

/// Servers in one command.
const KEYS_AT_ONCE: usize = 1_000;
const QUESTIONS: [Question; 8] = [
    Question::of(
        &ORCHESTRATOR_PROJECTION,
        &[
            "cluster_id",
            "applied_index",
            "applied_term",
            "applied_node",
            "written_at",
        ],
    ),
    Question::of(&DATABASE_INSTANCE, &["hostname", "port", "cluster_name"]),
    Question::of(&CLUSTER_ALIAS_OVERRIDE, &["cluster_name", "alias"]),
    Question::of(
        &DATABASE_INSTANCE_DOWNTIME,
        &["hostname", "port", "end_timestamp", "owner", "reason"],
    ),
    Question::of(
        &DATABASE_INSTANCE_MAINTENANCE,
        &["hostname", "port", "end_timestamp", "owner", "reason"],
    ),
    Question::of(
        &CANDIDATE_DATABASE_INSTANCE,
        &["hostname", "port", "promotion_rule"],
    ),
    Question::of(
        &DATABASE_INSTANCE_TAGS,
        &["hostname", "port", "tag_name", "tag_value"],
    ),
    Question::of(&GLOBAL_RECOVERY_DISABLE, &["disable_recovery"]),
];

/// What a backend gives back.
#[derive(Debug)]
pub struct ReadBack {
    pub position: Position,
    /// When a daemon wrote to it last.
    pub written: Wall,
    pub commands: Vec<Command>,
    /// Rows that became commands, by table.
    pub rows: BTreeMap<&'static str, usize>,
}

/// Reads a backend that no daemon uses. Changes nothing.
///
/// # Errors
/// It is not there, cannot be read, or never held a state of this program.
pub async fn read_back<E: Env>(place: &Place) -> Result<ReadBack, BackendError> {
    let answers = match place {
        Place::Sqlite(path) => {
            let path = path.clone();
            E::blocking(move || sqlite::answer::<E>(&path, &QUESTIONS)).await?
        }
        Place::Mysql(backend) => mysql::answer::<E>(backend, &QUESTIONS).await?,
    };
    let failed = |reason: &str| BackendError::Failed {
        place: place.clone(),
        reason: String::from(reason),
    };
    let [projection, answers @ ..] = answers.as_slice() else {
        return Err(failed("it was not answered"));
    };
    let (position, written) = projection
        .iter()
        .find_map(position)
        .ok_or_else(|| failed("it never held a state of a raft cluster"))?;
    let mut rows = BTreeMap::new();
    for (question, answer) in QUESTIONS.iter().skip(1).zip(answers) {
        rows.insert(question.table.name, answer.len());
    }
    Ok(ReadBack {
        position,
        written,
        commands: commands(answers),
        rows,
    })
}

fn position(row: &Texts) -> Option<(Position, Wall)> {
    let signed = |column: usize| row.get(column)?.as_ref()?.parse::<i64>().ok();
    let held = Held {
        daemon: String::new(),
        token: String::new(),
        written_at: String::new(),
        cluster: text(row, 0),
        index: signed(1),
        term: signed(2),
        leader: text(row, 3),
        digest: String::new(),
    };
    let position = held
        .position(false)
        .filter(|position| position.at.is_some())?;
    Some((position, time(row, 4).unwrap_or(Wall::EPOCH)))
}

/// Servers first: everything else is said of them.
fn commands(answers: &[Vec<Texts>]) -> Vec<Command> {
    let none = Vec::new();
    let answer = |place: usize| answers.get(place).unwrap_or(&none);
    let mut commands = Vec::new();
    let mut clusters: BTreeMap<String, Vec<InstanceKey>> = BTreeMap::new();
    let mut servers = BTreeSet::new();
    for row in answer(0) {
        if let Some(key) = key(row) {
            clusters.entry(text(row, 2)).or_default().push(key.clone());
            servers.insert(key);
        }
    }
    let servers: Vec<InstanceKey> = servers.into_iter().collect();
    commands.extend(servers.chunks(KEYS_AT_ONCE).map(|keys| Command::Know {
        keys: keys.to_vec(),
        by_operator: true,
    }));
    for (name, members) in clusters {
        let primary = members.iter().find(|member| member.to_string() == name);
        if let Some(primary) = primary.cloned() {
            commands.push(Command::RecordCluster {
                primary,
                identity: None,
                members,
            });
        }
    }
    for row in answer(1) {
        commands.push(Command::SetClusterAlias {
            cluster_name: text(row, 0),
            alias: text(row, 1),
            by_operator: true,
        });
    }
    for row in answer(2) {
        if let (Some(key), Some(until)) = (key(row), time(row, 2)) {
            commands.push(Command::BeginDowntime {
                key,
                owner: text(row, 3),
                reason: text(row, 4),
                until,
            });
        }
    }
    for row in answer(3) {
        if let (Some(key), Some(until)) = (key(row), time(row, 2)) {
            commands.push(Command::BeginMaintenance {
                key,
                owner: text(row, 3),
                reason: text(row, 4),
                until,
            });
        }
    }
    for row in answer(4) {
        if let (Some(key), Some(rule)) = (key(row), PromotionRule::parse(&text(row, 2))) {
            commands.push(Command::RegisterCandidate { key, rule });
        }
    }
    for row in answer(5) {
        if let Some(key) = key(row) {
            commands.push(Command::PutTag {
                key,
                name: text(row, 2),
                value: text(row, 3),
            });
        }
    }
    if !answer(6).is_empty() {
        commands.push(Command::SetRecoveriesEnabled { enabled: false });
    }
    commands
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(texts: &[&str]) -> Texts {
        texts.iter().map(|text| Some((*text).to_owned())).collect()
    }

    #[test]
    fn what_people_said_becomes_commands() {
        let db1 = InstanceKey::new("db1", 3306);
        let db2 = InstanceKey::new("db2", 3306);
        let until = Wall::from_secs(1_900_000_000);
        let said = commands(&[
            vec![
                row(&["db1", "3306", "db1:3306"]),
                row(&["db2", "3306", "db1:3306"]),
                row(&["db3", "70000", "db1:3306"]),
            ],
            vec![row(&["db1:3306", "shop"])],
            vec![row(&["db2", "3306", "1900000000", "anna", "disk"])],
            vec![vec![Some("db2".to_owned()), Some("3306".to_owned()), None]],
            vec![
                row(&["db2", "3306", "prefer_not"]),
                row(&["db2", "3306", "?"]),
            ],
            vec![row(&["db2", "3306", "rack", "7"])],
            vec![row(&["1"])],
        ]);
        let wanted = [
            Command::Know {
                keys: vec![db1.clone(), db2.clone()],
                by_operator: true,
            },
            Command::RecordCluster {
                primary: db1.clone(),
                identity: None,
                members: vec![db1, db2.clone()],
            },
            Command::SetClusterAlias {
                cluster_name: "db1:3306".to_owned(),
                alias: "shop".to_owned(),
                by_operator: true,
            },
            Command::BeginDowntime {
                key: db2.clone(),
                owner: "anna".to_owned(),
                reason: "disk".to_owned(),
                until,
            },
            Command::RegisterCandidate {
                key: db2.clone(),
                rule: PromotionRule::PreferNot,
            },
            Command::PutTag {
                key: db2,
                name: "rack".to_owned(),
                value: "7".to_owned(),
            },
            Command::SetRecoveriesEnabled { enabled: false },
        ];
        assert_eq!(said, wanted);
        // The state takes all of them.
        let wall = Wall::from_secs(1_800_000_000);
        let mut state = orchestrator_core::replicated::Replicated::default();
        for (index, command) in (1..).zip(said) {
            let at = orchestrator_core::id::LogPosition {
                index,
                term: 1,
                ..Default::default()
            };
            let stamped = orchestrator_core::replicated::Stamped { wall, command };
            let answer = state.apply(at, &stamped).answer;
            assert!(
                !matches!(answer, orchestrator_core::replicated::Answer::Refused(_)),
                "{answer:?}"
            );
        }
    }
}
