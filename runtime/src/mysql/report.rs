//! From result sets to a [`ProbeReport`]: pure, and indifferent to which statements the server let through.
//!
//! What is missing stays empty. Columns are looked up under all their names, in any case (`spec/probing.md` section 3).

use std::collections::BTreeMap;

use orchestrator_core::gtid;
use orchestrator_core::id::{Identity, InstanceKey};
use orchestrator_core::limits::{ERROR_TEXT_BYTES_MAX, HOST_NAME_BYTES_MAX, bounded};
use orchestrator_core::topology::{
    BinlogCoordinates, Classification, Flavour, GroupMembership, ProbeReport, PromotionRule,
    ReplicaStatus, SemiSync, THROUGH_FENCE_MAX, ThreadState, ThroughFence, UsingGtid, WrittenBy,
};
use regex::Regex;

use super::dialect::{Dialect, quoted};
use super::grants::Grants;
use super::read::Part;
use super::settings::{OwnName, ProbeSettings};
use super::table::{RowView, Table, is_on};

/// Results by the part of the probe that brought them.
pub(super) type Tables = BTreeMap<Part, Table>;

/// Why there is no report although the server answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Unusable {
    /// Nothing says which server it is.
    NoIdentity,
    /// `@@report_host` is the name to go by, and it is empty.
    NoReportHost,
}

impl std::fmt::Display for Unusable {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::NoIdentity => "the server does not say who it is",
            Self::NoReportHost => {
                "MySQLHostnameResolveMethod is @@report_host, and the server has none"
            }
        })
    }
}

/// Which server answered, by the row that names it: `server_uuid`, or on MariaDB, which has none,
/// `server_id@hostname:port`, which is the same after a restart.
pub(super) fn identity(dialect: &Dialect, row: RowView<'_>) -> Option<Identity> {
    if dialect.is_mariadb() {
        let id = row.get(&["@@global.server_id"])?;
        let host = row.get(&["@@global.hostname"])?;
        let port = row.get(&["@@global.port"])?;
        Some(Identity(format!("{id}@{host}:{port}")))
    } else {
        let uuid = row.get(&["@@global.server_uuid"])?;
        (!uuid.is_empty()).then(|| Identity(uuid.to_owned()))
    }
}

/// Puts a report together.
///
/// # Errors
/// [`Unusable`] names what no report can do without.
pub(super) fn assemble(
    key: &InstanceKey,
    dialect: &Dialect,
    settings: &ProbeSettings,
    tables: &Tables,
    refused: &BTreeMap<Part, u16>,
) -> Result<ProbeReport, Unusable> {
    let live = tables
        .get(&Part::Live)
        .and_then(Table::first)
        .ok_or(Unusable::NoIdentity)?;
    let identity = identity(dialect, live).ok_or(Unusable::NoIdentity)?;
    let mut report = ProbeReport {
        identity,
        self_key: self_key(key, settings, live)?,
        server_id: live.number(&["@@global.server_id"]),
        server_uuid: live.text(&["@@global.server_uuid"]),
        flavour: dialect.flavour,
        version: dialect.version.clone(),
        version_comment: live.text(&["@@global.version_comment"]),
        read_only: live.get(&["@@global.read_only"]).is_some_and(is_closed),
        super_read_only: if dialect.is_mariadb() {
            live.get(&["@@global.read_only"])
                .is_some_and(|value| value.eq_ignore_ascii_case("NO_LOCK_NO_ADMIN"))
        } else {
            live.is_on(&["@@global.super_read_only"])
        },
        log_bin: live.is_on(&["@@global.log_bin"]),
        log_replica_updates: live
            .is_on(&["@@global.log_replica_updates", "@@global.log_slave_updates"]),
        gtid_mode: live.text(&["@@global.gtid_mode"]),
        gtid_domain: live.number(&["@@global.gtid_domain_id"]),
        binlog_format: "ROW".to_owned(),
        refused: refused
            .iter()
            .filter(|(part, _)| !part.is_optional())
            .map(|(part, code)| (*code, part.lacking().to_owned()))
            .collect(),
        ..ProbeReport::default()
    };
    if let Some(row) = tables.get(&Part::Log).and_then(Table::first) {
        report.binlog_format = row.text(&["@@global.binlog_format"]);
        report.binlog_row_image = row.text(&["@@global.binlog_row_image"]);
    }
    if let Some(row) = tables.get(&Part::BinlogStatus).and_then(Table::first) {
        report.binlog = Some(coordinates(row, &["File"], &["Position"]));
    }
    if let Some(status) = tables.get(&Part::Status) {
        report.uptime_s = number(status.variable("Uptime"));
    }
    fill_gtid(&mut report, dialect, tables);
    fill_replication(&mut report, dialect, tables);
    report.semi_sync = semi_sync(tables);
    report.replicas = replicas(key, tables);
    report.group = group(&report.server_uuid, tables);
    report.galera = tables
        .get(&Part::Galera)
        .and_then(|table| table.variable("wsrep_on"))
        .is_some_and(is_on);
    report.credentials_available = settings.credentials_query.is_some()
        || tables
            .get(&Part::Credentials)
            .and_then(Table::first)
            .and_then(|row| row.at(0))
            .is_some_and(is_on);
    if let Some(table) = tables.get(&Part::Grants) {
        let are_roles_resolved = dialect.is_mariadb() || tables.contains_key(&Part::Roles);
        let judged = Grants::read(table).judge(
            dialect,
            are_roles_resolved,
            settings.discover_by_show_replicas,
            settings.credentials_query.is_none(),
        );
        match judged {
            Ok(missing) => report.missing_privileges = missing,
            Err(why) => report.privileges_unknown = Some(why),
        }
    } else if let Some(code) = refused.get(&Part::Grants) {
        report.privileges_unknown = Some(format!("SHOW GRANTS was refused with error {code}"));
    }
    let own_host = live.text(&["@@global.hostname"]);
    report.through_fence = through_fence(dialect, settings, tables, &own_host);
    report.classification = classification(&report.self_key.host, settings, tables);
    Ok(report)
}

/// Accounts that come with the server, and administrators on its own machine: applications do not use them.
fn is_of_the_system(user: &str, host: &str, own_host: &str) -> bool {
    let is_here = ["localhost", "127.0.0.1", "::1", own_host].contains(&host);
    user == "mariadb.sys" || is_here && (user == "root" || user == "mysql")
}

fn through_fence(
    dialect: &Dialect,
    settings: &ProbeSettings,
    tables: &Tables,
    own_host: &str,
) -> ThroughFence {
    if !dialect.is_mariadb() {
        return ThroughFence::Nobody;
    }
    if let Some(table) = tables.get(&Part::ThroughFence) {
        let mut named: Vec<String> = table
            .iter()
            .filter_map(|row| Some((row.at(0)?, row.at(1)?)))
            .filter(|(user, host)| {
                *user != settings.user && !is_of_the_system(user, host, own_host)
            })
            .map(|(user, host)| format!("{}@{}", quoted(user), quoted(host)))
            .map(|account| bounded(account, HOST_NAME_BYTES_MAX))
            .collect();
        let has_more = named.len() > THROUGH_FENCE_MAX;
        named.truncate(THROUGH_FENCE_MAX);
        return if named.is_empty() {
            ThroughFence::Nobody
        } else {
            ThroughFence::Accounts { named, has_more }
        };
    }
    let grants = tables.get(&Part::Grants).map(Grants::read);
    match grants {
        Some(grants) if !grants.may_read_accounts() => match grants.account {
            Some(account) => ThroughFence::Unknown {
                grant: format!("GRANT SELECT ON mysql.global_priv TO {account}"),
            },
            None => ThroughFence::Nobody,
        },
        Some(_) | None => ThroughFence::Nobody,
    }
}

/// MariaDB 12 has more values than on and off.
fn is_closed(value: &str) -> bool {
    is_on(value) || value.to_ascii_uppercase().starts_with("NO_LOCK")
}

fn number<T: std::str::FromStr + Default>(text: Option<&str>) -> T {
    text.and_then(|text| text.parse().ok()).unwrap_or_default()
}

fn self_key(
    key: &InstanceKey,
    settings: &ProbeSettings,
    live: RowView<'_>,
) -> Result<InstanceKey, Unusable> {
    let host = match settings.own_name {
        OwnName::None => key.host.clone(),
        OwnName::HostName => live.text(&["@@global.hostname"]),
        OwnName::ReportHost => {
            let name = live.text(&["@@global.report_host"]);
            if name.is_empty() {
                return Err(Unusable::NoReportHost);
            }
            name
        }
    };
    Ok(if host.is_empty() {
        key.clone()
    } else {
        InstanceKey::new(bounded(host, HOST_NAME_BYTES_MAX), key.port)
    })
}

fn coordinates(row: RowView<'_>, file: &[&str], position: &[&str]) -> BinlogCoordinates {
    BinlogCoordinates {
        file: row.text(file),
        position: row.number(position),
    }
}

fn parse_set(
    report: &mut ProbeReport,
    flavour: gtid::Flavour,
    what: &str,
    text: Option<&str>,
) -> Option<gtid::GtidSet> {
    let text = text?;
    match gtid::GtidSet::parse(flavour, text) {
        Ok(set) => Some(set),
        Err(error) => {
            let reason = format!("{what} is unreadable: {error}");
            report
                .refused
                .push((0, bounded(reason, ERROR_TEXT_BYTES_MAX)));
            None
        }
    }
}

fn fill_gtid(report: &mut ProbeReport, dialect: &Dialect, tables: &Tables) {
    let Some(row) = tables.get(&Part::Gtid).and_then(Table::first) else {
        return;
    };
    if dialect.is_mariadb() {
        let flavour = gtid::Flavour::Mariadb;
        let own = parse_set(
            report,
            flavour,
            "gtid_binlog_pos",
            row.get(&["@@global.gtid_binlog_pos"]),
        );
        let applied = parse_set(
            report,
            flavour,
            "gtid_slave_pos",
            row.get(&["@@global.gtid_slave_pos"]),
        );
        report.replicated_gtid = applied.clone();
        report.executed = match (&own, applied) {
            (Some(own), Some(applied)) => own.union(&applied).ok(),
            (Some(own), None) => Some(own.clone()),
            (None, applied) => applied,
        };
        report.binlog_gtid = own;
        let state = row.get(&["@@global.gtid_binlog_state"]).unwrap_or_default();
        match parse_binlog_state(state) {
            Some(state) => report.binlog_state = state,
            None => report.refused.push((
                0,
                bounded(format!("gtid_binlog_state {state:?}"), ERROR_TEXT_BYTES_MAX),
            )),
        }
    } else {
        let flavour = gtid::Flavour::Oracle;
        report.executed = parse_set(
            report,
            flavour,
            "gtid_executed",
            row.get(&["@@global.gtid_executed"]),
        );
        report.purged = parse_set(
            report,
            flavour,
            "gtid_purged",
            row.get(&["@@global.gtid_purged"]),
        );
    }
}

/// `domain-server-sequence`, comma separated. None for anything else.
fn parse_binlog_state(text: &str) -> Option<Vec<WrittenBy>> {
    text.split(',')
        .map(str::trim)
        .filter(|entry| !entry.is_empty())
        .take(gtid::mariadb::ENTRIES_MAX)
        .map(|entry| {
            let mut numbers = entry.splitn(3, '-');
            Some(WrittenBy {
                domain: numbers.next()?.parse().ok()?,
                server_id: numbers.next()?.parse().ok()?,
                sequence: numbers.next()?.parse().ok()?,
            })
        })
        .collect()
}

const CHANNEL: &[&str] = &["Channel_Name", "Connection_name"];

fn fill_replication(report: &mut ProbeReport, dialect: &Dialect, tables: &Tables) {
    let Some(table) = tables.get(&Part::ReplicaStatus) else {
        return;
    };
    let flavour = if dialect.is_mariadb() {
        gtid::Flavour::Mariadb
    } else {
        gtid::Flavour::Oracle
    };
    for row in table.iter() {
        // Group replication's own channels have no source.
        let channel = row.text(CHANNEL);
        let received = parse_set(
            report,
            flavour,
            "the received set",
            row.get(&["Retrieved_Gtid_Set", "Gtid_IO_Pos"]),
        );
        if channel.is_empty() {
            let mut status = replica_status(row, dialect, tables);
            status.received = received;
            report.replication = Some(status);
        } else {
            report.other_channels.push(channel);
            report.other_received = match (report.other_received.take(), received) {
                (Some(so_far), Some(more)) => so_far.union(&more).ok(),
                (so_far, more) => so_far.or(more),
            };
        }
    }
}

fn thread_state(text: Option<&str>) -> ThreadState {
    match text {
        None => ThreadState::NoThread,
        Some("Yes") => ThreadState::Running,
        Some("No") => ThreadState::Stopped,
        Some(_) => ThreadState::Other,
    }
}

fn replica_status(row: RowView<'_>, dialect: &Dialect, tables: &Tables) -> ReplicaStatus {
    let error = |names: &[&str]| bounded(row.text(names), ERROR_TEXT_BYTES_MAX);
    ReplicaStatus {
        source: InstanceKey::new(
            bounded(
                row.text(&["Source_Host", "Master_Host"]),
                HOST_NAME_BYTES_MAX,
            ),
            row.number(&["Source_Port", "Master_Port"]),
        ),
        source_uuid: row.text(&["Source_UUID", "Master_UUID"]),
        source_server_id: row.number(&["Source_Server_Id", "Master_Server_Id"]),
        user: row.text(&["Source_User", "Master_User"]),
        io: thread_state(row.get(&["Replica_IO_Running", "Slave_IO_Running"])),
        sql: thread_state(row.get(&["Replica_SQL_Running", "Slave_SQL_Running"])),
        io_errno: row.number(&["Last_IO_Errno"]),
        io_error: error(&["Last_IO_Error"]),
        sql_errno: row.number(&["Last_SQL_Errno"]),
        sql_error: error(&["Last_SQL_Error"]),
        read: coordinates(
            row,
            &["Source_Log_File", "Master_Log_File"],
            &["Read_Source_Log_Pos", "Read_Master_Log_Pos"],
        ),
        exec: coordinates(
            row,
            &["Relay_Source_Log_File", "Relay_Master_Log_File"],
            &["Exec_Source_Log_Pos", "Exec_Master_Log_Pos"],
        ),
        relay: coordinates(row, &["Relay_Log_File"], &["Relay_Log_Pos"]),
        relay_log_space: row.number(&["Relay_Log_Space"]),
        // A negative lag, of clocks that differ, is none.
        seconds_behind: row
            .get(&["Seconds_Behind_Source", "Seconds_Behind_Master"])
            .and_then(|text| text.parse::<i64>().ok())
            .map(|seconds| u64::try_from(seconds).unwrap_or(0)),
        sql_delay_s: row.number(&["SQL_Delay"]),
        auto_position: row.is_on(&["Auto_Position"]),
        using_gtid: match row.get(&["Using_Gtid"]) {
            Some(text) if text.eq_ignore_ascii_case("Slave_Pos") => UsingGtid::SlavePos,
            Some(text) if text.eq_ignore_ascii_case("Current_Pos") => UsingGtid::CurrentPos,
            _ => UsingGtid::No,
        },
        received: None,
        has_filters: [
            "Replicate_Do_DB",
            "Replicate_Ignore_DB",
            "Replicate_Do_Table",
            "Replicate_Ignore_Table",
            "Replicate_Wild_Do_Table",
            "Replicate_Wild_Ignore_Table",
        ]
        .iter()
        .any(|name| row.get(&[name]).is_some_and(|text| !text.is_empty())),
        tls_allowed: row.is_on(&["Source_SSL_Allowed", "Master_SSL_Allowed"]),
        net_timeout_s: tables
            .get(&Part::NetTimeout)
            .and_then(Table::first)
            .map_or(0, |row| number(row.at(0))),
        heartbeats_received: row
            .get(&["Slave_received_heartbeats"])
            .or_else(|| {
                default_channel(tables, Part::Heartbeats)?.get(&["COUNT_RECEIVED_HEARTBEATS"])
            })
            .and_then(|text| text.parse().ok()),
        options: options(row, dialect, tables),
    }
}

fn default_channel(tables: &Tables, part: Part) -> Option<RowView<'_>> {
    tables
        .get(&part)?
        .iter()
        .find(|row| row.get(&["CHANNEL_NAME"]).is_some_and(str::is_empty))
}

/// How a column's value becomes a literal.
#[derive(Clone, Copy)]
enum Literal {
    Number,
    /// Left out when empty: the option's default.
    Text,
    /// `Yes`, `ON` or `1`.
    Switch,
}

/// Option (after the word for the source, or whole when it begins with a mark), column and kind.
const STATUS_OPTIONS: &[(&str, &[&str], Literal)] = &[
    ("{}_BIND", &["Source_Bind", "Master_Bind"], Literal::Text),
    ("{}_CONNECT_RETRY", &["Connect_Retry"], Literal::Number),
    (
        "{}_RETRY_COUNT",
        &["Source_Retry_Count", "Master_Retry_Count"],
        Literal::Number,
    ),
    ("{}_DELAY", &["SQL_Delay"], Literal::Number),
    (
        "{}_HEARTBEAT_PERIOD",
        &["Slave_heartbeat_period"],
        Literal::Number,
    ),
    (
        "{}_SSL",
        &["Source_SSL_Allowed", "Master_SSL_Allowed"],
        Literal::Switch,
    ),
    (
        "{}_SSL_CA",
        &["Source_SSL_CA_File", "Master_SSL_CA_File"],
        Literal::Text,
    ),
    (
        "{}_SSL_CAPATH",
        &["Source_SSL_CA_Path", "Master_SSL_CA_Path"],
        Literal::Text,
    ),
    (
        "{}_SSL_CERT",
        &["Source_SSL_Cert", "Master_SSL_Cert"],
        Literal::Text,
    ),
    (
        "{}_SSL_KEY",
        &["Source_SSL_Key", "Master_SSL_Key"],
        Literal::Text,
    ),
    (
        "{}_SSL_CIPHER",
        &["Source_SSL_Cipher", "Master_SSL_Cipher"],
        Literal::Text,
    ),
    (
        "{}_SSL_CRL",
        &["Source_SSL_Crl", "Master_SSL_Crl"],
        Literal::Text,
    ),
    (
        "{}_SSL_CRLPATH",
        &["Source_SSL_Crlpath", "Master_SSL_Crlpath"],
        Literal::Text,
    ),
    (
        "{}_SSL_VERIFY_SERVER_CERT",
        &[
            "Source_SSL_Verify_Server_Cert",
            "Master_SSL_Verify_Server_Cert",
        ],
        Literal::Switch,
    ),
    (
        "{}_TLS_VERSION",
        &["Source_TLS_Version", "Master_TLS_Version"],
        Literal::Text,
    ),
    (
        "{}_PUBLIC_KEY_PATH",
        &["Source_public_key_path", "Master_public_key_path"],
        Literal::Text,
    ),
    (
        "GET_{}_PUBLIC_KEY",
        &["Get_Source_public_key", "Get_master_public_key"],
        Literal::Switch,
    ),
    ("NETWORK_NAMESPACE", &["Network_Namespace"], Literal::Text),
];
/// `performance_schema.replication_connection_configuration`
const CONNECTION_OPTIONS: &[(&str, &[&str], Literal)] = &[
    (
        "{}_HEARTBEAT_PERIOD",
        &["HEARTBEAT_INTERVAL"],
        Literal::Number,
    ),
    (
        "{}_COMPRESSION_ALGORITHMS",
        &["COMPRESSION_ALGORITHM"],
        Literal::Text,
    ),
    (
        "{}_ZSTD_COMPRESSION_LEVEL",
        &["ZSTD_COMPRESSION_LEVEL"],
        Literal::Number,
    ),
    ("{}_TLS_CIPHERSUITES", &["TLS_CIPHERSUITES"], Literal::Text),
    (
        "SOURCE_CONNECTION_AUTO_FAILOVER",
        &["SOURCE_CONNECTION_AUTO_FAILOVER"],
        Literal::Switch,
    ),
];
/// `performance_schema.replication_applier_configuration`
const APPLIER_OPTIONS: &[(&str, &[&str], Literal)] = &[(
    "REQUIRE_ROW_FORMAT",
    &["REQUIRE_ROW_FORMAT"],
    Literal::Switch,
)];

fn options(row: RowView<'_>, dialect: &Dialect, tables: &Tables) -> Vec<(String, String)> {
    let word = if dialect.new_words() {
        "SOURCE"
    } else {
        "MASTER"
    };
    let mut options: Vec<(String, String)> = Vec::new();
    let mut take = |row: RowView<'_>, from: &[(&str, &[&str], Literal)]| {
        for (option, columns, kind) in from {
            let Some(value) = row.get(columns) else {
                continue;
            };
            let literal = match kind {
                Literal::Number if value.parse::<f64>().is_ok() => value.to_owned(),
                Literal::Text if !value.is_empty() => quoted(value),
                Literal::Switch => u8::from(is_on(value)).to_string(),
                Literal::Number | Literal::Text => continue,
            };
            options.push((option.replace("{}", word), literal));
        }
    };
    take(row, STATUS_OPTIONS);
    if let Some(row) = default_channel(tables, Part::ConnectionConfiguration) {
        take(row, CONNECTION_OPTIONS);
    }
    if let Some(row) = default_channel(tables, Part::ApplierConfiguration) {
        take(row, APPLIER_OPTIONS);
        if let Some(check @ ("STREAM" | "ON" | "OFF" | "GENERATE")) =
            row.get(&["REQUIRE_TABLE_PRIMARY_KEY_CHECK"])
        {
            options.push((
                "REQUIRE_TABLE_PRIMARY_KEY_CHECK".to_owned(),
                check.to_owned(),
            ));
        }
        let assign = match row.get(&["ASSIGN_GTIDS_TO_ANONYMOUS_TRANSACTIONS_TYPE"]) {
            Some(kind @ ("OFF" | "LOCAL")) => Some(kind.to_owned()),
            Some("UUID") => row
                .get(&["ASSIGN_GTIDS_TO_ANONYMOUS_TRANSACTIONS_VALUE"])
                .map(quoted),
            Some(_) | None => None,
        };
        if let Some(literal) = assign {
            options.push(("ASSIGN_GTIDS_TO_ANONYMOUS_TRANSACTIONS".to_owned(), literal));
        }
    }
    options
}

/// Which words this server has for the two sides of semi-synchronous replication, and what they say.
fn semi_sync(tables: &Tables) -> SemiSync {
    let mut semi_sync = SemiSync::default();
    // The rare SHOW tells the spelling; the frequent SELECT the values.
    let Some(known) = tables.get(&Part::SemiSyncVariables) else {
        return semi_sync;
    };
    let fresh = tables.get(&Part::SemiSync).and_then(Table::first);
    let value = |name: &str| -> Option<&str> {
        fresh
            .and_then(|row| row.get(&[&format!("@@global.{name}")]))
            .or_else(|| known.variable(name))
    };
    let spelled = |new: &str, old: &str| value(new).or_else(|| value(old));
    let source = spelled(
        "rpl_semi_sync_source_enabled",
        "rpl_semi_sync_master_enabled",
    );
    let replica = spelled(
        "rpl_semi_sync_replica_enabled",
        "rpl_semi_sync_slave_enabled",
    );
    semi_sync.available = source.is_some() && replica.is_some();
    semi_sync.source_enabled = source.is_some_and(is_on);
    semi_sync.replica_enabled = replica.is_some_and(is_on);
    semi_sync.source_timeout_ms = number(spelled(
        "rpl_semi_sync_source_timeout",
        "rpl_semi_sync_master_timeout",
    ));
    semi_sync.source_wait_count = match spelled(
        "rpl_semi_sync_source_wait_for_replica_count",
        "rpl_semi_sync_master_wait_for_slave_count",
    ) {
        count @ Some(_) => number(count),
        // MariaDB waits for one and has no variable for it.
        None => u32::from(source.is_some()),
    };
    semi_sync.after_sync = spelled(
        "rpl_semi_sync_source_wait_point",
        "rpl_semi_sync_master_wait_point",
    )
    .is_some_and(|point| point.eq_ignore_ascii_case("AFTER_SYNC"));
    semi_sync.source_spelling = known.variable("rpl_semi_sync_source_enabled").is_some();
    semi_sync.replica_spelling = known.variable("rpl_semi_sync_replica_enabled").is_some();
    if let Some(status) = tables.get(&Part::Status) {
        let status = |new: &str, old: &str| status.variable(new).or_else(|| status.variable(old));
        semi_sync.source_status =
            status("Rpl_semi_sync_source_status", "Rpl_semi_sync_master_status").is_some_and(is_on);
        semi_sync.source_clients = number(status(
            "Rpl_semi_sync_source_clients",
            "Rpl_semi_sync_master_clients",
        ));
        semi_sync.replica_status =
            status("Rpl_semi_sync_replica_status", "Rpl_semi_sync_slave_status").is_some_and(is_on);
    }
    semi_sync
}

/// The replicas as the server lists them; where it lists none, the clients that read its log, whose port nobody knows and
/// which is taken to be the server's own.
fn replicas(key: &InstanceKey, tables: &Tables) -> Vec<InstanceKey> {
    let mut found: Vec<InstanceKey> = tables
        .get(&Part::Replicas)
        .into_iter()
        .flat_map(Table::iter)
        .map(|row| InstanceKey::new(row.text(&["Host"]), row.number(&["Port"])))
        .filter(InstanceKey::is_valid)
        .collect();
    if found.is_empty() {
        found = tables
            .get(&Part::Dumps)
            .into_iter()
            .flat_map(Table::iter)
            .filter_map(|row| client_host(row.at(0)?))
            .map(|host| InstanceKey::new(host, key.port))
            .filter(InstanceKey::is_valid)
            .collect();
    }
    for replica in &mut found {
        replica.host = bounded(std::mem::take(&mut replica.host), HOST_NAME_BYTES_MAX);
    }
    found.sort();
    found.dedup();
    found
}

/// The host of a process list's `host:port`; an IPv6 address has more colons than the last.
fn client_host(text: &str) -> Option<String> {
    let host = match text.rsplit_once(':') {
        Some((host, port)) if port.chars().all(|c| c.is_ascii_digit()) => host,
        Some(_) | None => text,
    };
    let host = host.trim_start_matches('[').trim_end_matches(']');
    (!host.is_empty()).then(|| host.to_owned())
}

fn group(server_uuid: &str, tables: &Tables) -> Option<GroupMembership> {
    let variables = tables.get(&Part::GroupVariables)?;
    let members = tables.get(&Part::GroupMembers)?;
    let mut group = GroupMembership {
        name: variables
            .variable("group_replication_group_name")
            .filter(|name| !name.is_empty())?
            .to_owned(),
        single_primary: variables
            .variable("group_replication_single_primary_mode")
            .is_some_and(is_on),
        ..GroupMembership::default()
    };
    for row in members.iter() {
        let state = row.text(&["MEMBER_STATE"]);
        let role = row.text(&["MEMBER_ROLE"]);
        let member = InstanceKey::new(row.text(&["MEMBER_HOST"]), row.number(&["MEMBER_PORT"]));
        if state == "OFFLINE" {
            continue;
        }
        if role == "PRIMARY" {
            group.primary = member.clone();
        }
        if row.get(&["MEMBER_ID"]) == Some(server_uuid) {
            group.state = state;
            group.role = role;
        } else {
            group.members.push(member);
        }
    }
    (!group.state.is_empty()).then_some(group)
}

fn classification(host: &str, settings: &ProbeSettings, tables: &Tables) -> Classification {
    let matched = |pattern: &Option<Regex>| -> String {
        pattern
            .as_ref()
            .and_then(|pattern| pattern.captures(host)?.get(1))
            .map_or_else(String::new, |group| group.as_str().to_owned())
    };
    let asked = |part: Part| -> Option<String> {
        let value = tables.get(&part)?.first()?.at(0)?;
        Some(bounded(value.to_owned(), ERROR_TEXT_BYTES_MAX))
    };
    Classification {
        data_center: asked(Part::DataCenter)
            .unwrap_or_else(|| matched(&settings.data_center_pattern)),
        region: asked(Part::Region).unwrap_or_else(|| matched(&settings.region_pattern)),
        physical_environment: asked(Part::PhysicalEnvironment)
            .unwrap_or_else(|| matched(&settings.physical_environment_pattern)),
        instance_alias: asked(Part::InstanceAlias).unwrap_or_default(),
        cluster_alias: asked(Part::ClusterAlias).unwrap_or_default(),
        cluster_domain: asked(Part::ClusterDomain).unwrap_or_default(),
        promotion_rule: asked(Part::PromotionRule)
            .as_deref()
            .and_then(PromotionRule::parse),
        semi_sync_priority: number(asked(Part::SemiSyncEnforced).as_deref()),
        lag_s: asked(Part::Lag)
            .and_then(|text| text.parse::<f64>().ok())
            .map(|seconds| seconds.max(0.0) as u64),
    }
}

/// MaxScale answers for servers behind it and is none itself.
pub(super) fn is_server(flavour: Flavour) -> bool {
    match flavour {
        Flavour::Mysql | Flavour::Percona | Flavour::Mariadb => true,
        Flavour::MaxScale => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A table of one row: `column=value`, `column` alone for NULL.
    fn row(cells: &[&str]) -> Table {
        let pairs: Vec<(&str, Option<&str>)> = cells
            .iter()
            .map(|cell| match cell.split_once('=') {
                Some((column, value)) => (column, Some(value)),
                None => (*cell, None),
            })
            .collect();
        Table {
            columns: pairs
                .iter()
                .map(|(column, _)| (*column).to_owned())
                .collect(),
            rows: vec![
                pairs
                    .iter()
                    .map(|(_, value)| value.map(str::to_owned))
                    .collect(),
            ],
        }
    }

    fn variables(pairs: &[(&str, &str)]) -> Table {
        Table {
            columns: vec!["Variable_name".to_owned(), "Value".to_owned()],
            rows: pairs
                .iter()
                .map(|(name, value)| vec![Some((*name).to_owned()), Some((*value).to_owned())])
                .collect(),
        }
    }

    fn read(version: &str, tables: Vec<(Part, Table)>) -> ProbeReport {
        assemble(
            &InstanceKey::new("10.0.0.1", 3306),
            &Dialect::new(version, ""),
            &ProbeSettings::default(),
            &tables.into_iter().collect(),
            &BTreeMap::from([(Part::Replicas, 1227)]),
        )
        .unwrap()
    }

    fn fenced(version: &str, grant: &str, accounts: Option<&[(&str, &str)]>) -> ThroughFence {
        let live = row(&[
            "@@global.server_uuid=u",
            "@@global.server_id=7",
            "@@global.hostname=db1",
            "@@global.port=3306",
        ]);
        let grants = Table {
            columns: vec!["Grants".to_owned()],
            rows: vec![vec![Some(grant.to_owned())]],
        };
        let mut tables = vec![(Part::Live, live), (Part::Grants, grants)];
        tables.extend(accounts.map(|accounts| {
            let cells = |(user, host): &(&str, &str)| {
                vec![Some((*user).to_owned()), Some((*host).to_owned())]
            };
            let columns = vec!["User".to_owned(), "Host".to_owned()];
            let rows = accounts.iter().map(cells).collect();
            (Part::ThroughFence, Table { columns, rows })
        }));
        let settings = ProbeSettings {
            user: "o".to_owned(),
            ..ProbeSettings::default()
        };
        // Its refusal is no complaint about the server.
        let refused = BTreeMap::from([(Part::ThroughFence, 1142)]);
        let key = InstanceKey::new("10.0.0.1", 3306);
        let dialect = Dialect::new(version, "");
        let report = assemble(
            &key,
            &dialect,
            &settings,
            &tables.into_iter().collect(),
            &refused,
        );
        let report = report.unwrap();
        assert_eq!(report.refused, []);
        report.through_fence
    }

    #[test]
    fn whom_a_fence_does_not_stop() {
        let mariadb = "10.11.19-MariaDB";
        let may = "GRANT SELECT ON `mysql`.`global_priv` TO `o`@`%`";
        let own = [
            ("o", "%"),
            ("root", "localhost"),
            ("root", "::1"),
            ("root", "db1"),
            ("mysql", "localhost"),
            ("mariadb.sys", "localhost"),
        ];
        assert_eq!(fenced(mariadb, may, Some(&own)), ThroughFence::Nobody);
        let accounts = |named: &[&str], has_more| ThroughFence::Accounts {
            named: named.iter().map(|name| (*name).to_owned()).collect(),
            has_more,
        };
        // Whoever calls himself an administrator from elsewhere is a client.
        let some = [("o'b", "10.%"), ("root", "%"), ("root", "localhost")];
        assert_eq!(
            fenced(mariadb, may, Some(&some)),
            accounts(&["'o''b'@'10.%'", "'root'@'%'"], false)
        );
        let many = ["a", "b", "c", "d", "e", "f"].map(|user| (user, "%"));
        assert_eq!(
            fenced(mariadb, may, Some(&many)),
            accounts(
                &["'a'@'%'", "'b'@'%'", "'c'@'%'", "'d'@'%'", "'e'@'%'"],
                true
            )
        );
        let may_not = "GRANT SUPER ON *.* TO `o`@`%`";
        assert_eq!(
            fenced(mariadb, may_not, None),
            ThroughFence::Unknown {
                grant: "GRANT SELECT ON mysql.global_priv TO `o`@`%`".to_owned()
            }
        );
        // MySQL's super_read_only stops everybody.
        assert_eq!(fenced("8.4.0", may_not, None), ThroughFence::Nobody);
        assert_eq!(fenced("9.7.4", may, Some(&many)), ThroughFence::Nobody);
    }

    const MARIADB_LIVE: &[&str] = &[
        "@@global.server_id=7",
        "@@global.hostname=db1",
        "@@global.port=3306",
        "@@global.report_host",
        "@@global.read_only=1",
        "@@global.log_bin=1",
        "@@global.log_slave_updates=1",
        "@@global.gtid_domain_id=3",
    ];

    #[test]
    fn a_mariadb_replica() {
        let report = read(
            "10.11.19-MariaDB-log",
            vec![
                (Part::Live, row(MARIADB_LIVE)),
                (
                    Part::Gtid,
                    row(&[
                        "@@global.gtid_binlog_pos=0-1-50,1-9-4",
                        "@@global.gtid_slave_pos=0-1-40,2-9-1",
                        "@@global.gtid_binlog_state=0-7-49,0-1-50,1-9-4",
                    ]),
                ),
                (
                    Part::ReplicaStatus,
                    row(&[
                        "Connection_name=",
                        "Master_Host=db0",
                        "Master_Port=3307",
                        "Slave_IO_Running=Preparing",
                        "Slave_SQL_Running=Yes",
                        "Using_Gtid=Slave_Pos",
                        "Gtid_IO_Pos=0-1-60",
                        "Seconds_Behind_Master=-3",
                        "Slave_heartbeat_period=1.500",
                        "Slave_received_heartbeats=12",
                        "Master_SSL_Allowed=Yes",
                        "Master_SSL_CA_File=/etc/ca.pem",
                        "Replicate_Wild_Do_Table=a.%",
                    ]),
                ),
                (Part::NetTimeout, row(&["@@global.slave_net_timeout=60"])),
            ],
        );
        assert_eq!(report.identity.0, "7@db1:3306");
        assert_eq!(report.self_key, InstanceKey::new("db1", 3306));
        assert!(report.read_only && !report.super_read_only && report.log_replica_updates);
        assert_eq!(report.gtid_domain, 3);
        assert_eq!(
            report.executed.as_ref().unwrap().to_string(),
            "0-1-50,1-9-4,2-9-1"
        );
        assert_eq!(
            report.binlog_gtid.as_ref().unwrap().to_string(),
            "0-1-50,1-9-4"
        );
        // Hidden from the positions by the next transaction that came from the source.
        assert_eq!(
            report.written_here_beyond(&ProbeReport::default()),
            [WrittenBy {
                domain: 0,
                server_id: 7,
                sequence: 49
            }]
        );
        assert_eq!(parse_binlog_state("0-1"), None);
        assert_eq!(report.replicated_gtid.unwrap().to_string(), "0-1-40,2-9-1");
        assert_eq!(report.refused, [(1227, "the list of replicas".to_owned())]);
        let status = report.replication.unwrap();
        assert_eq!(status.source, InstanceKey::new("db0", 3307));
        assert_eq!(
            (status.io, status.sql),
            (ThreadState::Other, ThreadState::Running)
        );
        assert_eq!(status.received.unwrap().to_string(), "0-1-60");
        assert_eq!(status.seconds_behind, Some(0));
        assert_eq!(status.heartbeats_received, Some(12));
        assert_eq!(status.net_timeout_s, 60);
        assert!(status.has_filters && status.tls_allowed);
        let options: Vec<String> = status
            .options
            .iter()
            .map(|(name, literal)| format!("{name}={literal}"))
            .collect();
        assert_eq!(
            options,
            [
                "MASTER_HEARTBEAT_PERIOD=1.500",
                "MASTER_SSL=1",
                "MASTER_SSL_CA='/etc/ca.pem'"
            ]
        );
    }

    #[test]
    fn a_mysql_replica_of_two_channels() {
        let uuid = "3e11fa47-71ca-11e1-9e33-c80aa9429562";
        let live = format!("@@global.server_uuid={uuid}");
        let mut status = row(&[
            "Source_Host=db0",
            "Source_Port=3306",
            "Replica_IO_Running=Yes",
            "Replica_SQL_Running=No",
            "Auto_Position=1",
            "Channel_Name=extra",
            "Seconds_Behind_Source",
        ]);
        status.columns.push("Retrieved_Gtid_Set".to_owned());
        status.rows[0].push(Some(format!("{uuid}:1-3")));
        let mut default = status.rows[0].clone();
        default[5] = Some(String::new());
        default[7] = Some(format!("{uuid}:1-9"));
        status.rows.push(default);
        let report = read(
            "8.4.3",
            vec![
                (
                    Part::Live,
                    row(&[
                        &live,
                        "@@global.hostname=db1",
                        "@@global.super_read_only=1",
                        "@@global.read_only=1",
                    ]),
                ),
                (Part::ReplicaStatus, status),
                (
                    Part::Gtid,
                    row(&["@@global.gtid_executed=not a set", "@@global.gtid_purged="]),
                ),
                (
                    Part::SemiSyncVariables,
                    variables(&[
                        ("rpl_semi_sync_source_enabled", "OFF"),
                        ("rpl_semi_sync_source_timeout", "10000"),
                        ("rpl_semi_sync_source_wait_for_replica_count", "2"),
                        ("rpl_semi_sync_source_wait_point", "AFTER_SYNC"),
                        ("rpl_semi_sync_replica_enabled", "OFF"),
                    ]),
                ),
                (
                    Part::SemiSync,
                    row(&["@@global.rpl_semi_sync_source_enabled=1"]),
                ),
                (
                    Part::Status,
                    variables(&[("Uptime", "77"), ("Rpl_semi_sync_source_clients", "3")]),
                ),
            ],
        );
        assert_eq!(report.identity.0, uuid);
        assert!(report.super_read_only);
        assert_eq!(report.uptime_s, 77);
        // An unreadable set is no empty set.
        assert_eq!(report.executed, None);
        assert!(
            report
                .refused
                .iter()
                .any(|(code, text)| *code == 0 && text.contains("gtid_executed"))
        );
        assert!(report.purged.unwrap().is_empty());
        assert_eq!(report.other_channels, ["extra"]);
        assert_eq!(
            report.other_received.unwrap().to_string(),
            format!("{uuid}:1-3")
        );
        let status = report.replication.unwrap();
        assert_eq!(status.received.unwrap().to_string(), format!("{uuid}:1-9"));
        assert_eq!(status.seconds_behind, None);
        assert!(status.auto_position);
        let semi_sync = report.semi_sync;
        assert!(semi_sync.available && semi_sync.source_enabled && semi_sync.after_sync);
        assert!(semi_sync.source_spelling && semi_sync.replica_spelling);
        assert_eq!(
            (semi_sync.source_wait_count, semi_sync.source_clients),
            (2, 3)
        );
    }

    #[test]
    fn nobody_without_a_name() {
        let refusal = |own_name, live: &[&str]| {
            let settings = ProbeSettings {
                own_name,
                ..ProbeSettings::default()
            };
            assemble(
                &InstanceKey::new("h", 1),
                &Dialect::new("11.4.0-MariaDB", ""),
                &settings,
                &Tables::from([(Part::Live, row(live))]),
                &BTreeMap::new(),
            )
            .unwrap_err()
        };
        assert_eq!(
            refusal(OwnName::None, &["@@global.port=1"]),
            Unusable::NoIdentity
        );
        assert_eq!(
            refusal(OwnName::ReportHost, MARIADB_LIVE),
            Unusable::NoReportHost
        );
    }

    #[test]
    fn clients_that_read_the_log() {
        for (text, host) in [
            ("db2:40112", Some("db2")),
            ("db2", Some("db2")),
            ("2001:db8::5:40112", Some("2001:db8::5")),
            ("[2001:db8::5]:40112", Some("2001:db8::5")),
            (":40112", None),
        ] {
            assert_eq!(client_host(text).as_deref(), host, "{text}");
        }
    }
}
