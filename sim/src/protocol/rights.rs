//! Who may do what, as the two flavours have it: MariaDB took READ_ONLY ADMIN out of SUPER (10.11) and asks for
//! REPLICATION MASTER ADMIN to list replicas; MySQL 9 shows nothing of `performance_schema.replication_*` without a right
//! to read it, and the process list and status counters to everybody.

use crate::model::Kind;
use crate::model::server::{Server, ServerError, code, error};

/// What a statement needs a right for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Act {
    ShowReplicaStatus,
    ShowReplicas,
    ShowBinlogStatus,
    SetReadOnly,
    SetSemiSyncSource,
    SetSemiSyncReplica,
    SetSlavePosition,
    SetOther,
    Replication,
    Reload,
    Administer,
}

const fn rights(kind: Kind, act: Act) -> &'static [&'static str] {
    match (kind, act) {
        (Kind::Mysql, Act::ShowReplicaStatus | Act::ShowBinlogStatus) => {
            &["REPLICATION CLIENT", "SUPER"]
        }
        (Kind::Mysql, Act::ShowReplicas) => &["REPLICATION SLAVE"],
        (
            Kind::Mysql,
            Act::SetReadOnly
            | Act::SetSemiSyncSource
            | Act::SetSemiSyncReplica
            | Act::SetSlavePosition
            | Act::SetOther,
        ) => &["SYSTEM_VARIABLES_ADMIN", "SUPER"],
        (Kind::Mysql, Act::Replication) => &["REPLICATION_SLAVE_ADMIN", "SUPER"],
        (Kind::Mariadb, Act::ShowReplicaStatus) => &[
            "SLAVE MONITOR",
            "REPLICA MONITOR",
            "REPLICATION SLAVE ADMIN",
            "SUPER",
        ],
        (Kind::Mariadb, Act::ShowReplicas | Act::SetSemiSyncSource) => {
            &["REPLICATION MASTER ADMIN"]
        }
        (Kind::Mariadb, Act::ShowBinlogStatus) => {
            &["BINLOG MONITOR", "REPLICATION CLIENT", "SUPER"]
        }
        (Kind::Mariadb, Act::SetReadOnly) => &["READ_ONLY ADMIN"],
        (Kind::Mariadb, Act::SetSemiSyncReplica | Act::SetSlavePosition | Act::Replication) => {
            &["REPLICATION SLAVE ADMIN", "SUPER"]
        }
        (Kind::Mariadb, Act::SetOther) => &["SUPER"],
        (_, Act::Reload) => &["RELOAD"],
        (_, Act::Administer) => &[],
    }
}

/// # Errors
/// 1227 when the account has none of the rights that would do.
pub fn check(server: &Server, user: &str, act: Act) -> Result<(), ServerError> {
    let rights = rights(server.kind, act);
    if server.holds_any(user, rights) {
        return Ok(());
    }
    Err(error(
        code::ACCESS_DENIED_SPECIFIC,
        format!(
            "Access denied; you need (at least one of) the {} privilege(s) for this operation",
            rights.join(", ")
        ),
    ))
}

/// Whether an account may read or write a table.
///
/// # Errors
/// 1142 when it may not.
pub fn check_table(
    server: &Server,
    user: &str,
    right: &str,
    table: &str,
) -> Result<(), ServerError> {
    let (schema, _) = table.split_once('.').unwrap_or((table, ""));
    let free = matches!(
        table,
        "information_schema.processlist"
            | "information_schema.global_status"
            | "performance_schema.processlist"
            | "performance_schema.global_status"
    );
    let everywhere = format!("{right} ON {schema}.*");
    let there = format!("{right} ON {table}");
    if free || server.holds_any(user, &[right, &everywhere, &there]) {
        return Ok(());
    }
    Err(error(
        1142,
        format!("{right} command denied to user '{user}'@'%' for table `{table}`"),
    ))
}
