//! What a model server shows of itself in result sets: variables, status, replication, sessions, rows. Names and spellings
//! are each flavour's own: MariaDB has no `super_read_only`, `offline_mode`, `server_uuid`, `SHOW REPLICAS`,
//! `SHOW BINARY LOG STATUS` and no count of semi-synchronous replicas to wait for.

use std::time::Duration;

use orchestrator_core::topology::ThreadState;

use crate::model::server::{Access, Account, Server, ServerError, Table, code, error};
use crate::model::{Kind, replication::PLAIN_OPTIONS};

pub type Value = Option<String>;

/// Columns and rows.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Rows {
    pub columns: Vec<String>,
    pub rows: Vec<Vec<Value>>,
}

fn some(value: impl ToString) -> Value {
    Some(value.to_string())
}

fn bit(on: bool) -> Value {
    some(u8::from(on))
}

fn word(on: bool) -> Value {
    some(if on { "ON" } else { "OFF" })
}

fn yes(on: bool) -> Value {
    some(if on { "Yes" } else { "No" })
}

/// One row of named columns; none where there is nothing to show.
fn one_row(cells: Vec<(String, Value)>, shown: bool) -> Rows {
    let (columns, row) = cells.into_iter().unzip();
    Rows {
        columns,
        rows: if shown { vec![row] } else { Vec::new() },
    }
}

pub fn table(columns: &[&str], rows: Vec<Vec<Value>>) -> Rows {
    Rows {
        columns: columns.iter().map(|column| (*column).to_owned()).collect(),
        rows,
    }
}

/// Columns and values by their names.
pub fn cell<'a>(columns: &[String], row: &'a [Value], name: &str) -> Option<&'a Value> {
    let at = columns
        .iter()
        .position(|column| column.eq_ignore_ascii_case(name))?;
    row.get(at)
}

/// Truths that SELECT shows as numbers and SHOW as words.
const SWITCHES: [&str; 14] = [
    "read_only",
    "super_read_only",
    "offline_mode",
    "log_bin",
    "log_slave_updates",
    "log_replica_updates",
    "relay_log_recovery",
    "gtid_strict_mode",
    "performance_schema",
    "rpl_semi_sync_source_enabled",
    "rpl_semi_sync_replica_enabled",
    "rpl_semi_sync_master_enabled",
    "rpl_semi_sync_slave_enabled",
    "wsrep_on",
];

const NAMES: [&str; 50] = [
    "binlog_format",
    "binlog_row_image",
    "enforce_gtid_consistency",
    "event_scheduler",
    "extra_port",
    "gtid_binlog_pos",
    "gtid_binlog_state",
    "gtid_current_pos",
    "gtid_domain_id",
    "gtid_executed",
    "gtid_mode",
    "gtid_purged",
    "gtid_slave_pos",
    "gtid_strict_mode",
    "hostname",
    "log_bin",
    "log_replica_updates",
    "log_slave_updates",
    "max_allowed_packet",
    "max_connections",
    "offline_mode",
    "performance_schema",
    "port",
    "read_only",
    "relay_log_recovery",
    "replica_net_timeout",
    "report_host",
    "report_port",
    "rpl_semi_sync_master_enabled",
    "rpl_semi_sync_master_timeout",
    "rpl_semi_sync_master_wait_point",
    "rpl_semi_sync_replica_enabled",
    "rpl_semi_sync_slave_enabled",
    "rpl_semi_sync_source_enabled",
    "rpl_semi_sync_source_timeout",
    "rpl_semi_sync_source_wait_for_replica_count",
    "rpl_semi_sync_source_wait_point",
    "server_id",
    "server_uuid",
    "slave_net_timeout",
    "sql_mode",
    "super_read_only",
    "tx_isolation",
    "transaction_isolation",
    "version",
    "version_comment",
    "version_compile_os",
    "wait_timeout",
    "wsrep_on",
    "autocommit",
];

/// A variable as SELECT shows it.
///
/// # Errors
/// 1193 where this flavour has none of the name.
pub fn variable(server: &Server, name: &str) -> Result<Value, ServerError> {
    let mysql = server.kind == Kind::Mysql;
    let mariadb = !mysql;
    let semi_sync = server.semi_sync();
    let milliseconds = |duration: Duration| some(duration.as_millis());
    let point = || {
        some(if semi_sync.after_sync {
            "AFTER_SYNC"
        } else {
            "AFTER_COMMIT"
        })
    };
    let (known, value) = match name {
        "hostname" | "report_host" => (true, some(&server.key.host)),
        "port" | "report_port" => (true, some(server.key.port)),
        "server_id" => (true, some(server.server_id)),
        "version" => (true, some(server.kind.version())),
        "version_comment" => (
            true,
            some(if mysql {
                "model of MySQL Server"
            } else {
                "model of MariaDB Server"
            }),
        ),
        "version_compile_os" => (true, some("Linux")),
        "server_uuid" => (mysql, some(server.identity())),
        "read_only" => (true, bit(server.access() != Access::Writable)),
        "super_read_only" => (mysql, bit(server.says_super_read_only())),
        "offline_mode" => (mysql, bit(server.is_offline())),
        "event_scheduler" => (true, word(server.event_scheduler())),
        "log_bin" => (true, bit(true)),
        // The defaults of both.
        "performance_schema" => (true, bit(mysql)),
        "log_slave_updates" => (mariadb, bit(true)),
        "log_replica_updates" => (mysql, bit(true)),
        "relay_log_recovery" => (true, bit(server.relay_log_recovery())),
        "binlog_format" => (true, some("ROW")),
        "binlog_row_image" => (true, some("FULL")),
        "gtid_mode" | "enforce_gtid_consistency" => (mysql, some("ON")),
        "gtid_executed" => (mysql, some(server.gtid_own())),
        "gtid_purged" => (mysql, some(server.gtid_purged())),
        "gtid_binlog_pos" => (mariadb, some(server.gtid_own())),
        "gtid_slave_pos" => (mariadb, some(server.gtid_slave_pos())),
        "gtid_current_pos" => (mariadb, some(server.executed())),
        "gtid_binlog_state" => (
            mariadb,
            some(
                server
                    .binlog_state()
                    .iter()
                    .map(|written| {
                        format!(
                            "{}-{}-{}",
                            written.domain, written.server_id, written.sequence
                        )
                    })
                    .collect::<Vec<_>>()
                    .join(","),
            ),
        ),
        "gtid_domain_id" | "extra_port" => (mariadb, some(0)),
        "gtid_strict_mode" | "wsrep_on" => (mariadb, bit(false)),
        "replica_net_timeout" => (mysql, some(server.net_timeout().as_secs())),
        "slave_net_timeout" => (mariadb, some(server.net_timeout().as_secs())),
        "max_connections" => (true, some(server.connections_max)),
        "max_allowed_packet" => (true, some(super::packet::PACKET_BYTES_MAX)),
        "wait_timeout" => (true, some(28_800)),
        "autocommit" => (true, bit(true)),
        "sql_mode" => (true, some("STRICT_TRANS_TABLES")),
        "transaction_isolation" => (mysql, some("REPEATABLE-READ")),
        "tx_isolation" => (mariadb, some("REPEATABLE-READ")),
        "rpl_semi_sync_source_enabled" => (mysql, bit(semi_sync.source_enabled)),
        "rpl_semi_sync_master_enabled" => (mariadb, bit(semi_sync.source_enabled)),
        "rpl_semi_sync_replica_enabled" => (mysql, bit(semi_sync.replica_enabled)),
        "rpl_semi_sync_slave_enabled" => (mariadb, bit(semi_sync.replica_enabled)),
        "rpl_semi_sync_source_timeout" => (mysql, milliseconds(semi_sync.timeout)),
        "rpl_semi_sync_master_timeout" => (mariadb, milliseconds(semi_sync.timeout)),
        "rpl_semi_sync_source_wait_for_replica_count" => (mysql, some(semi_sync.count)),
        "rpl_semi_sync_source_wait_point" => (mysql, point()),
        "rpl_semi_sync_master_wait_point" => (mariadb, point()),
        _ => (false, None),
    };
    if known {
        Ok(value)
    } else {
        Err(error(
            code::UNKNOWN_VARIABLE,
            format!("Unknown system variable '{name}'"),
        ))
    }
}

/// Name and value of every variable, as SHOW shows them.
pub fn variables(server: &Server) -> Vec<(String, Value)> {
    let mut names = NAMES.to_vec();
    names.sort_unstable();
    names
        .into_iter()
        .filter_map(|name| {
            let value = variable(server, name).ok()?;
            let value = if SWITCHES.contains(&name) {
                word(value.as_deref() == Some("1"))
            } else {
                value
            };
            Some((name.to_owned(), value))
        })
        .collect()
}

/// Name and value of every status counter.
pub fn statuses(server: &Server, now: Duration) -> Vec<(String, Value)> {
    let (source, replica) = match server.kind {
        Kind::Mysql => ("source", "replica"),
        Kind::Mariadb => ("master", "slave"),
    };
    let waiting = server.waits_for_acknowledgement().count();
    let mut statuses = vec![
        (
            format!("Rpl_semi_sync_{source}_clients"),
            some(server.semi_sync_clients()),
        ),
        (
            format!("Rpl_semi_sync_{source}_status"),
            word(server.semi_sync_status()),
        ),
        (
            format!("Rpl_semi_sync_{source}_wait_sessions"),
            some(waiting),
        ),
        (
            format!("Rpl_semi_sync_{replica}_status"),
            word(server.semi_sync_replica_status()),
        ),
    ];
    if server.kind == Kind::Mariadb {
        statuses.push((
            "Slaves_connected".to_owned(),
            some(server.replicas().count()),
        ));
    }
    let up = now.saturating_sub(server.started()).as_secs();
    statuses.push(("Threads_connected".to_owned(), some(server.sessions.len())));
    statuses.push(("Uptime".to_owned(), some(up)));
    statuses
}

/// The status of replication. `all`: MariaDB's `SHOW ALL SLAVES STATUS`, which shows more.
pub fn replica_status(server: &Server, all: bool, now: Duration) -> Rows {
    let report = server.report(now);
    let status = report.replication.clone().unwrap_or_default();
    let shown = server.channel().is_some();
    let mysql = server.kind == Kind::Mysql;
    let (source, replica) = if mysql {
        ("Source", "Replica")
    } else {
        ("Master", "Slave")
    };
    let option = |name: &str, unset: &str| {
        let literal = server
            .channel()
            .and_then(|channel| channel.option(name))
            .unwrap_or(unset);
        some(literal.trim_matches('\''))
    };
    let on = |name: &str| {
        yes(server
            .channel()
            .and_then(|channel| channel.option(name))
            .is_some_and(|literal| literal == "1"))
    };
    let mut cells: Vec<(String, Value)> = Vec::new();
    let mut add = |name: &str, value: Value| {
        cells.push((name.replace("{S}", source).replace("{R}", replica), value));
    };
    if all {
        add("Connection_name", some(""));
    }
    let idle = server.unapplied().next().is_none();
    let sql_state = match (status.sql, idle) {
        (ThreadState::Running, true) => {
            format!("{replica} has read all relay log; waiting for more updates")
        }
        (ThreadState::Running, false) => "Executing event".to_owned(),
        (ThreadState::Stopped | ThreadState::Other | ThreadState::NoThread, _) => String::new(),
    };
    if all {
        add("Slave_SQL_State", some(&sql_state));
    }
    add(
        "{R}_IO_State",
        some(match status.io {
            ThreadState::Running => "Waiting for events",
            ThreadState::Other => "Connecting",
            ThreadState::Stopped | ThreadState::NoThread => "",
        }),
    );
    add("{S}_Host", some(&status.source.host));
    add("{S}_User", some(&status.user));
    add("{S}_Port", some(status.source.port));
    add("Connect_Retry", option("CONNECT_RETRY", "60"));
    add("{S}_Log_File", some(&status.read.file));
    add("Read_{S}_Log_Pos", some(status.read.position));
    add("Relay_Log_File", some(&status.relay.file));
    add("Relay_Log_Pos", some(status.relay.position));
    add("Relay_{S}_Log_File", some(&status.exec.file));
    let thread = |state| match state {
        ThreadState::Running => some("Yes"),
        ThreadState::Other => some("Connecting"),
        ThreadState::Stopped | ThreadState::NoThread => some("No"),
    };
    add("{R}_IO_Running", thread(status.io));
    add("{R}_SQL_Running", thread(status.sql));
    for name in [
        "Replicate_Do_DB",
        "Replicate_Ignore_DB",
        "Replicate_Do_Table",
        "Replicate_Ignore_Table",
        "Replicate_Wild_Do_Table",
        "Replicate_Wild_Ignore_Table",
    ] {
        add(name, some(""));
    }
    add("Last_Errno", some(status.sql_errno));
    add("Last_Error", some(&status.sql_error));
    add("Exec_{S}_Log_Pos", some(status.exec.position));
    add("Relay_Log_Space", some(status.relay_log_space));
    add("{S}_SSL_Allowed", on("SSL"));
    add("{S}_SSL_CA_File", option("SSL_CA", ""));
    add("{S}_SSL_Cert", option("SSL_CERT", ""));
    add("{S}_SSL_Key", option("SSL_KEY", ""));
    add(
        "Seconds_Behind_{S}",
        status.seconds_behind.map(|seconds| seconds.to_string()),
    );
    add("{S}_SSL_Verify_Server_Cert", on("SSL_VERIFY_SERVER_CERT"));
    add("Last_IO_Errno", some(status.io_errno));
    add("Last_IO_Error", some(&status.io_error));
    add("Last_SQL_Errno", some(status.sql_errno));
    add("Last_SQL_Error", some(&status.sql_error));
    add("{S}_Server_Id", some(status.source_server_id));
    add("SQL_Delay", some(status.sql_delay_s));
    add("{R}_SQL_Running_State", some(&sql_state));
    let received = server.received();
    if mysql {
        add("Source_UUID", some(&status.source_uuid));
        add("Source_Retry_Count", option("RETRY_COUNT", "10"));
        add("Source_Bind", option("BIND", ""));
        add("Retrieved_Gtid_Set", some(received));
        add("Executed_Gtid_Set", some(server.gtid_own()));
        add("Auto_Position", bit(status.auto_position));
        add("Channel_Name", some(""));
        add("Source_public_key_path", option("PUBLIC_KEY_PATH", ""));
        add("Get_Source_public_key", option("GET_PUBLIC_KEY", "0"));
        add("Network_Namespace", some(""));
    } else {
        let gtid = server.channel().is_some_and(|channel| channel.using_gtid);
        add("Using_Gtid", some(if gtid { "Slave_Pos" } else { "No" }));
        add("Gtid_IO_Pos", some(received));
        if all {
            add(
                "Slave_received_heartbeats",
                some(status.heartbeats_received.unwrap_or(0)),
            );
            add("Slave_heartbeat_period", some(heartbeat(server)));
            add("Gtid_Slave_Pos", some(server.gtid_slave_pos()));
        }
    }
    one_row(cells, shown)
}

/// Half of the receiver's patience, unless the channel states it; as both show it, however it was written.
fn heartbeat(server: &Server) -> String {
    let stated = server
        .channel()
        .and_then(|channel| channel.option("HEARTBEAT_PERIOD")?.parse().ok());
    let period: f64 = stated.unwrap_or(server.net_timeout().as_secs_f64() / 2.0);
    format!("{period:.3}")
}

pub fn binlog_status(server: &Server) -> Rows {
    let at = server.binlog_coordinates();
    let mut cells = vec![
        ("File".to_owned(), some(at.file)),
        ("Position".to_owned(), some(at.position)),
        ("Binlog_Do_DB".to_owned(), some("")),
        ("Binlog_Ignore_DB".to_owned(), some("")),
    ];
    if server.kind == Kind::Mysql {
        cells.push(("Executed_Gtid_Set".to_owned(), some(server.gtid_own())));
    }
    one_row(cells, true)
}

pub fn binary_logs(server: &Server) -> Rows {
    let at = server.binlog_coordinates();
    let mut cells = vec![
        ("Log_name".to_owned(), some(at.file)),
        ("File_size".to_owned(), some(at.position)),
    ];
    if server.kind == Kind::Mysql {
        cells.push(("Encrypted".to_owned(), some("No")));
    }
    one_row(cells, true)
}

pub fn replicas(server: &Server) -> Rows {
    let columns = match server.kind {
        Kind::Mysql => ["Server_Id", "Host", "Port", "Source_Id"],
        Kind::Mariadb => ["Server_id", "Host", "Port", "Master_id"],
    };
    let rows = server
        .replicas()
        .map(|(_, replica)| {
            vec![
                some(replica.port),
                some(&replica.host),
                some(replica.port),
                some(server.server_id),
            ]
        })
        .collect();
    table(&columns, rows)
}

pub fn user_of(account: &Account) -> &str {
    match account {
        Account::Orchestrator => "orchestrator",
        Account::Replication(_) => "repl",
        Account::Application(user) => user,
    }
}

/// The sessions that `viewer` may see: all, or the account's own.
pub fn process_list(server: &Server, only: Option<&str>, now: Duration) -> Rows {
    let rows = server
        .sessions
        .iter()
        .filter(|(_, session)| only.is_none_or(|user| user_of(&session.account) == user))
        .map(|(id, session)| {
            let command = match (session.dump.is_some(), session.in_flight.is_some()) {
                (true, _) if server.kind == Kind::Mysql => "Binlog Dump GTID",
                (true, _) => "Binlog Dump",
                (false, true) => "Query",
                (false, false) => "Sleep",
            };
            vec![
                some(id),
                some(user_of(&session.account)),
                some("127.0.0.1"),
                None,
                some(command),
                some(now.saturating_sub(session.since).as_secs()),
                some(""),
                None,
            ]
        })
        .collect();
    table(
        &[
            "ID", "USER", "HOST", "DB", "COMMAND", "TIME", "STATE", "INFO",
        ],
        rows,
    )
}

/// `SHOW GRANTS`.
pub fn grants(server: &Server, user: &str) -> Rows {
    let held = server.privileges.get(user);
    let mut global: Vec<&str> = Vec::new();
    let mut lines = Vec::new();
    for right in held.into_iter().flatten() {
        match right.split_once(" ON ") {
            None => global.push(right),
            Some((right, place)) => {
                let (schema, name) = place.split_once('.').unwrap_or((place, "*"));
                let name = if name == "*" {
                    name.to_owned()
                } else {
                    format!("`{name}`")
                };
                lines.push(format!(
                    "GRANT {right} ON `{schema}`.{name} TO `{user}`@`%`"
                ));
            }
        }
    }
    let global = if global.is_empty() {
        "USAGE".to_owned()
    } else {
        global.join(", ")
    };
    lines.insert(0, format!("GRANT {global} ON *.* TO `{user}`@`%`"));
    let title = format!("Grants for {user}@%");
    table(
        &[&title],
        lines.into_iter().map(|line| vec![Some(line)]).collect(),
    )
}

/// How the two numbers of a row of the ledger are one.
const LEDGER_NUMBER_BITS: u32 = 40;

/// The row of a client's number. None: the numbers are too large.
pub fn ledger_row(client: u64, number: u64) -> Option<u64> {
    (client < 1 << (64 - LEDGER_NUMBER_BITS) && number < 1 << LEDGER_NUMBER_BITS)
        .then_some(client << LEDGER_NUMBER_BITS | number)
}

/// A table by its name with the schema.
///
/// # Errors
/// 1146 where this flavour has none of the name.
pub fn named(server: &Server, name: &str, user: &str, now: Duration) -> Result<Rows, ServerError> {
    let mysql = server.kind == Kind::Mysql;
    let channel = server.channel();
    let one = |shown: bool, columns: &[&str], row: Vec<Value>| {
        table(columns, if shown { vec![row] } else { Vec::new() })
    };
    let option = |name: &str, unset: String| {
        channel
            .and_then(|channel| channel.option(name))
            .map_or(Some(unset), |literal| {
                Some(literal.trim_matches('\'').to_owned())
            })
    };
    Ok(match name {
        "app.ledger" => table(
            &["client", "number"],
            server
                .rows(Table::Ledger)
                .map(|row| {
                    let number = row & ((1 << LEDGER_NUMBER_BITS) - 1);
                    vec![some(row >> LEDGER_NUMBER_BITS), some(number)]
                })
                .collect(),
        ),
        "app.note" => table(
            &["id"],
            server
                .rows(Table::Note)
                .map(|row| vec![some(row)])
                .collect(),
        ),
        "meta.cluster" => one(
            !server.cluster_name.is_empty(),
            &["name"],
            vec![some(&server.cluster_name)],
        ),
        "meta.replication_account" => table(
            &["user", "password"],
            server
                .passwords
                .get("repl")
                .map(|password| vec![some("repl"), some(password)])
                .into_iter()
                .collect(),
        ),
        "information_schema.processlist" => process_list(server, viewer(server, user), now),
        "performance_schema.global_status" if mysql => status_table(server, now),
        "information_schema.global_status" if !mysql => status_table(server, now),
        "performance_schema.processlist" if mysql => {
            process_list(server, viewer(server, user), now)
        }
        "performance_schema.replication_connection_status" if mysql => one(
            channel.is_some(),
            &["CHANNEL_NAME", "COUNT_RECEIVED_HEARTBEATS"],
            vec![
                some(""),
                some(channel.map_or(0, |channel| channel.heartbeats)),
            ],
        ),
        "performance_schema.replication_connection_configuration" if mysql => one(
            channel.is_some(),
            &[
                "CHANNEL_NAME",
                "HOST",
                "PORT",
                "USER",
                "AUTO_POSITION",
                "HEARTBEAT_INTERVAL",
                "SOURCE_CONNECTION_AUTO_FAILOVER",
            ],
            vec![
                some(""),
                channel.map(|channel| channel.source.host.clone()),
                channel.map(|channel| channel.source.port.to_string()),
                channel.map(|channel| channel.user.clone()),
                bit(channel.is_some_and(|channel| channel.using_gtid)),
                some(heartbeat(server)),
                option("CONNECTION_AUTO_FAILOVER", "0".to_owned()),
            ],
        ),
        "performance_schema.replication_applier_configuration" if mysql => one(
            channel.is_some(),
            &[
                "CHANNEL_NAME",
                "DESIRED_DELAY",
                PLAIN_OPTIONS[1],
                PLAIN_OPTIONS[2],
            ],
            vec![
                some(""),
                option("DELAY", "0".to_owned()),
                some("NO"),
                some("STREAM"),
            ],
        ),
        "performance_schema.replication_group_members" if mysql => table(
            &[
                "MEMBER_ID",
                "MEMBER_HOST",
                "MEMBER_PORT",
                "MEMBER_STATE",
                "MEMBER_ROLE",
            ],
            Vec::new(),
        ),
        "mysql.slave_master_info" if mysql => one(
            channel.is_some(),
            &["Channel_name", "Host", "Port", "User_name", "User_password"],
            vec![
                some(""),
                channel.map(|channel| channel.source.host.clone()),
                channel.map(|channel| channel.source.port.to_string()),
                channel.map(|channel| channel.user.clone()),
                channel.map(|channel| channel.password.clone()),
            ],
        ),
        _ => {
            return Err(error(1146, format!("Table '{name}' doesn't exist")));
        }
    })
}

fn status_table(server: &Server, now: Duration) -> Rows {
    let rows = statuses(server, now)
        .into_iter()
        .map(|(name, value)| vec![Some(name), value])
        .collect();
    table(&["VARIABLE_NAME", "VARIABLE_VALUE"], rows)
}

/// Whose sessions an account sees alone: its own, without PROCESS.
fn viewer<'a>(server: &Server, user: &'a str) -> Option<&'a str> {
    (!server.holds_any(user, &["PROCESS"])).then_some(user)
}
