//! The reading of a server: which statements a probe sends, in which order, and what becomes of those it refuses.
//!
//! One multi-statement a probe, fixed per server after its version, error numbers and rights are known: liveness first,
//! what takes locks last. The first error ends a multi-statement (F20): the statement that failed is dropped for that
//! server and the rest sent again; all are tried again after [`ProbeSettings::rare_interval`] and on each connection.
//! What changes seldom is read on connect, at intervals, and when something that is read each time changed.
//!
//! Holds between calls: `kept` has the newest result of every part that was ever read on this server since its dialect
//! was learnt, so a report is whole although a probe reads only a part of it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use mysql_async::Conn;
use orchestrator_core::id::InstanceKey;
use orchestrator_core::topology::{Flavour, ProbeFailure, ProbeReport};

use super::connect::{query, query_within};
use super::dialect::{Dialect, PERFORMANCE_SCHEMA};
use super::grants::{self, Grants};
use super::report::{self, Tables};
use super::settings::ProbeSettings;
use super::table::Table;
use crate::env::{Env, timeout};

/// One statement of a probe. Ordered as they are sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Part {
    // Each time.
    Live,
    Status,
    ReplicaStatus,
    Gtid,
    Log,
    SemiSync,
    Heartbeats,
    GroupMembers,
    // On connect and rarely.
    NetTimeout,
    Roles,
    Grants,
    SemiSyncVariables,
    GroupVariables,
    Galera,
    ThroughFence,
    // On connect, at intervals and on change.
    ConnectionConfiguration,
    ApplierConfiguration,
    Credentials,
    Replicas,
    Dumps,
    // Takes the log's lock: last.
    BinlogStatus,
    // The user's own, in a batch of their own.
    Lag,
    ClusterAlias,
    ClusterDomain,
    InstanceAlias,
    PromotionRule,
    DataCenter,
    Region,
    PhysicalEnvironment,
    SemiSyncEnforced,
}

/// When a part is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Cadence {
    Always,
    Slow,
    Rare,
}

impl Part {
    pub const OURS: &'static [Part] = &[
        Part::Live,
        Part::Status,
        Part::ReplicaStatus,
        Part::Gtid,
        Part::Log,
        Part::SemiSync,
        Part::Heartbeats,
        Part::GroupMembers,
        Part::NetTimeout,
        Part::Roles,
        Part::Grants,
        Part::SemiSyncVariables,
        Part::GroupVariables,
        Part::Galera,
        Part::ThroughFence,
        Part::ConnectionConfiguration,
        Part::ApplierConfiguration,
        Part::Credentials,
        Part::Replicas,
        Part::Dumps,
        Part::BinlogStatus,
    ];
    pub const USERS: &'static [Part] = &[
        Part::Lag,
        Part::ClusterAlias,
        Part::ClusterDomain,
        Part::InstanceAlias,
        Part::PromotionRule,
        Part::DataCenter,
        Part::Region,
        Part::PhysicalEnvironment,
        Part::SemiSyncEnforced,
    ];

    const fn cadence(self) -> Cadence {
        match self {
            Part::Live
            | Part::Status
            | Part::ReplicaStatus
            | Part::Gtid
            | Part::Log
            | Part::SemiSync
            | Part::Heartbeats
            | Part::GroupMembers
            | Part::BinlogStatus
            | Part::Lag => Cadence::Always,
            Part::ConnectionConfiguration
            | Part::ApplierConfiguration
            | Part::Credentials
            | Part::Replicas
            | Part::Dumps
            | Part::ClusterAlias
            | Part::ClusterDomain
            | Part::InstanceAlias
            | Part::PromotionRule
            | Part::DataCenter
            | Part::Region
            | Part::PhysicalEnvironment
            | Part::SemiSyncEnforced => Cadence::Slow,
            Part::NetTimeout
            | Part::Roles
            | Part::Grants
            | Part::SemiSyncVariables
            | Part::GroupVariables
            | Part::Galera
            | Part::ThroughFence => Cadence::Rare,
        }
    }

    /// Without it a report would say something untrue: a replica whose status is hidden looks like a primary.
    const fn is_essential(self) -> bool {
        matches!(self, Part::Live | Part::ReplicaStatus)
    }

    /// Nothing that is done needs it: that a server refuses it is no problem of that server.
    pub const fn is_optional(self) -> bool {
        matches!(self, Part::ThroughFence)
    }

    /// What a report lacks where the server refuses this part.
    pub const fn lacking(self) -> &'static str {
        match self {
            Part::Live => "the server's variables",
            Part::Status => "the status counters",
            Part::ReplicaStatus => "the replication status",
            Part::Gtid => "the GTID sets",
            Part::Log => "the binary log's format",
            Part::SemiSync => "the semi-synchronous settings",
            Part::Heartbeats => "the count of heartbeats",
            Part::GroupMembers => "the members of the replication group",
            Part::NetTimeout => "the replication network timeout",
            Part::Roles => "the own account's roles",
            Part::Grants => "the own account's grants",
            Part::SemiSyncVariables => "the semi-synchronous plugins",
            Part::GroupVariables => "the replication group's settings",
            Part::Galera => "whether Galera is on",
            Part::ThroughFence => "the accounts that a fence does not stop",
            Part::ConnectionConfiguration => "the channel's connection options",
            Part::ApplierConfiguration => "the channel's applier options",
            Part::Credentials => "the replication credentials",
            Part::Replicas => "the list of replicas",
            Part::Dumps => "the process list",
            Part::BinlogStatus => "the binary log's position",
            Part::Lag => "the result of ReplicationLagQuery",
            Part::ClusterAlias => "the result of DetectClusterAliasQuery",
            Part::ClusterDomain => "the result of DetectClusterDomainQuery",
            Part::InstanceAlias => "the result of DetectInstanceAliasQuery",
            Part::PromotionRule => "the result of DetectPromotionRuleQuery",
            Part::DataCenter => "the result of DetectDataCenterQuery",
            Part::Region => "the result of DetectRegionQuery",
            Part::PhysicalEnvironment => "the result of DetectPhysicalEnvironmentQuery",
            Part::SemiSyncEnforced => "the result of DetectSemiSyncEnforcedQuery",
        }
    }
}

/// Errors that will come again: the statement is dropped until the rare interval has passed. Any other (a lock wait, an
/// interrupted query, a limit on time) is of this one probe.
const fn is_lasting(code: u16) -> bool {
    matches!(
        code,
        1044 | 1046
            | 1049
            | 1054
            | 1064
            | 1109
            | 1142
            | 1143
            | 1146
            | 1193
            | 1227
            | 1235
            | 1238
            | 1295
            | 1305
            | 1370
            | 3831
    )
}

/// What is known of how to read one server. Cloned cheaply enough to read over a second connection.
#[derive(Debug, Clone)]
pub(super) struct Reader {
    key: InstanceKey,
    settings: Arc<ProbeSettings>,
    pub dialect: Dialect,
    kept: Tables,
    /// Refused for good, with the error number.
    dropped: BTreeMap<Part, u16>,
    /// Refused when it was tried last, with the error number.
    refused: BTreeMap<Part, u16>,
    /// Our account lacked rights in the last reading.
    lacks_rights: bool,
    rare_at: Option<Duration>,
    slow_at: Option<Duration>,
    /// What the parts read each time looked like when the slow ones were read.
    shape: Shape,
    /// The connection was left in an unknown place although there is a report.
    broken: bool,
}

/// How long the user's own queries may take together.
const OWN_QUERIES: Duration = Duration::from_secs(2);

/// Which queries a reading is made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Whose {
    /// Not those of the configuration, which may take any time.
    Ours,
    All,
}

/// What makes the slow parts worth reading again.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
struct Shape {
    read_only: Option<String>,
    source: Option<(String, String)>,
    /// Of MariaDB; MySQL has no such counter.
    replicas_connected: Option<String>,
}

/// A probe that brought no report.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ReadFailure {
    pub failure: ProbeFailure,
    /// The globals were read.
    pub partial: bool,
}

impl Reader {
    /// Learns the dialect over a fresh connection: one round trip, or two.
    ///
    /// # Errors
    /// The failure of that.
    pub async fn introduce<E: Env>(
        key: &InstanceKey,
        settings: &Arc<ProbeSettings>,
        conn: &mut Conn,
        deadline: Duration,
    ) -> Result<Self, ProbeFailure> {
        let until = E::mono() + deadline;
        let tables = query_within::<E>(
            conn,
            // A server may open a transaction with whatever is asked first, and it would last as long as the connection.
            "SELECT @@global.version, @@global.version_comment; SET SESSION autocommit=1",
            deadline,
        )
        .await?;
        let row = tables.first().and_then(Table::first);
        let Some((version, comment)) =
            row.and_then(|row| Some((row.at(0)?, row.at(1).unwrap_or_default())))
        else {
            return Err(ProbeFailure::Garbled("no version in the answer".to_owned()));
        };
        let mut dialect = Dialect::new(version, comment);
        if !report::is_server(dialect.flavour) {
            return Err(ProbeFailure::Garbled(format!(
                "{} is no server of its own: name the servers behind it",
                Flavour::MaxScale.name()
            )));
        }
        if dialect.has_two_process_lists() {
            let text = format!("SELECT {PERFORMANCE_SCHEMA}");
            let left = until.saturating_sub(E::mono());
            let tables = query_within::<E>(conn, &text, left).await?;
            let row = tables.first().and_then(Table::first);
            let is_on = row.is_some_and(|row| row.is_on(&[PERFORMANCE_SCHEMA]));
            dialect = dialect.with_performance_schema(is_on);
        }
        Ok(Reader {
            key: key.clone(),
            settings: settings.clone(),
            dialect,
            kept: Tables::new(),
            dropped: BTreeMap::new(),
            refused: BTreeMap::new(),
            lacks_rights: false,
            rare_at: None,
            slow_at: None,
            shape: Shape::default(),
            broken: false,
        })
    }

    /// Whether the last reading left the connection unusable.
    pub fn take_broken(&mut self) -> bool {
        std::mem::take(&mut self.broken)
    }

    /// Reads the server within `deadline`; of what is not asked, what was heard last stands. The connection must be dropped if this fails with anything but a server's
    /// error.
    pub async fn read<E: Env>(
        &mut self,
        conn: &mut Conn,
        whose: Whose,
        deadline: Duration,
    ) -> Result<ProbeReport, ReadFailure> {
        let until = E::mono() + deadline;
        let (mut slow, rare) = self.due(E::mono());
        if rare {
            self.dropped.clear();
            self.refused.clear();
            // The grants are asked for by the roles that are active by this time.
            self.kept.remove(&Part::Roles);
        }
        let mut seen = BTreeSet::new();
        let wanted = |cadence| match cadence {
            Cadence::Always => true,
            Cadence::Slow => slow,
            Cadence::Rare => rare,
        };
        let first = self.choose(Part::OURS, &wanted);
        self.batch::<E>(conn, first, until, &mut seen).await?;
        if rare {
            // What the rare ones brought opens further parts.
            let more = self.choose(Part::OURS, &|_| true);
            let more = more
                .into_iter()
                .filter(|(part, _)| !seen.contains(part))
                .collect();
            self.batch::<E>(conn, more, until, &mut seen).await?;
            self.rare_at = Some(E::mono());
        }
        let shape = self.shape();
        if !slow && shape != self.shape {
            slow = true;
            let more = self.choose(Part::OURS, &|cadence| cadence == Cadence::Slow);
            self.batch::<E>(conn, more, until, &mut seen).await?;
        }
        let own = match whose {
            Whose::Ours => Vec::new(),
            Whose::All => self.choose(Part::USERS, &|cadence| match cadence {
                Cadence::Always => true,
                Cadence::Slow | Cadence::Rare => slow,
            }),
        };
        if !own.is_empty() {
            // Whatever they do, the server has been read.
            let until = until.min(E::mono() + OWN_QUERIES);
            let parts: Vec<Part> = own.iter().map(|(part, _)| *part).collect();
            if let Err(ReadFailure { failure, .. }) =
                self.batch::<E>(conn, own, until, &mut seen).await
            {
                let code = match failure {
                    ProbeFailure::ServerError { code, .. } => code,
                    _ => 0,
                };
                self.broken = true;
                for part in parts.into_iter().filter(|part| !seen.contains(part)) {
                    self.refused.insert(part, code);
                }
            }
        }
        if slow {
            self.slow_at = Some(E::mono());
            self.shape = shape;
        }
        let report = report::assemble(
            &self.key,
            &self.dialect,
            &self.settings,
            &self.kept,
            &self.refused,
        )
        .map_err(|unusable| ReadFailure {
            failure: ProbeFailure::Garbled(unusable.to_string()),
            partial: true,
        })?;
        self.lacks_rights = !report.missing_privileges.is_empty();
        Ok(report)
    }

    /// Whether the slow parts are due, and the rare ones, which bring those along.
    fn due(&self, now: Duration) -> (bool, bool) {
        let is_due =
            |at: Option<Duration>, interval| at.is_none_or(|at| now.saturating_sub(at) >= interval);
        let slow = is_due(self.slow_at, self.settings.slow_interval);
        // Whoever grants what is missing wants to see it gone, and the server counts as a candidate only then.
        let rare = is_due(self.rare_at, self.settings.rare_interval) || self.lacks_rights && slow;
        (slow || rare, rare)
    }

    fn shape(&self) -> Shape {
        let first = |part| self.kept.get(&part).and_then(Table::first);
        let text = |text: Option<&str>| text.map(str::to_owned);
        Shape {
            read_only: first(Part::Live).and_then(|row| text(row.get(&["@@global.read_only"]))),
            source: first(Part::ReplicaStatus).map(|row| {
                (
                    row.text(&["Source_Host", "Master_Host"]),
                    row.text(&["Source_Port", "Master_Port"]),
                )
            }),
            replicas_connected: self
                .kept
                .get(&Part::Status)
                .and_then(|table| text(table.variable("Slaves_connected"))),
        }
    }

    fn choose(&self, parts: &[Part], wanted: &dyn Fn(Cadence) -> bool) -> Vec<(Part, String)> {
        parts
            .iter()
            .filter(|part| wanted(part.cadence()) && !self.dropped.contains_key(part))
            .filter_map(|part| Some((*part, self.sql(*part)?)))
            .collect()
    }

    /// Sends the parts in as few texts as the server allows.
    async fn batch<E: Env>(
        &mut self,
        conn: &mut Conn,
        mut parts: Vec<(Part, String)>,
        until: Duration,
        seen: &mut BTreeSet<Part>,
    ) -> Result<(), ReadFailure> {
        while !parts.is_empty() {
            let mut text = String::with_capacity(parts.len() * 96);
            for (_, sql) in &parts {
                // A query of the configuration may end in a comment.
                if !text.is_empty() {
                    text.push_str("\n;");
                }
                text.push_str(sql);
            }
            let mut tables = Vec::with_capacity(parts.len());
            let left = until.saturating_sub(E::mono());
            let ended = timeout::<E, _>(left, query(conn, &text, &mut tables)).await;
            let failed = match &ended {
                Some(Ok(())) => None,
                Some(Err((at, _))) => Some(*at),
                // The table under way is incomplete.
                None => Some(tables.len().saturating_sub(1)),
            };
            let complete = failed.unwrap_or(tables.len()).min(parts.len());
            for ((part, _), table) in parts.iter().zip(tables).take(complete) {
                seen.insert(*part);
                self.refused.remove(part);
                self.kept.insert(*part, table);
            }
            let failure = match ended {
                Some(Ok(())) => return Ok(()),
                Some(Err((_, failure))) => failure,
                None => ProbeFailure::Stalled,
            };
            match (failure, parts.get(complete)) {
                (ProbeFailure::ServerError { code, .. }, Some((part, _)))
                    if !part.is_essential() && !is_fatal(code) =>
                {
                    seen.insert(*part);
                    self.refused.insert(*part, code);
                    if is_lasting(code) {
                        self.dropped.insert(*part, code);
                    }
                    self.kept.remove(part);
                    parts.drain(..=complete);
                }
                (failure, _) => {
                    return Err(ReadFailure {
                        failure,
                        partial: seen.contains(&Part::Live),
                    });
                }
            }
        }
        Ok(())
    }

    fn may_read_accounts(&self) -> bool {
        self.kept
            .get(&Part::Grants)
            .is_some_and(|table| Grants::read(table).may_read_accounts())
    }

    fn is_replica(&self) -> bool {
        self.kept
            .get(&Part::ReplicaStatus)
            .is_some_and(|table| !table.rows.is_empty())
    }

    /// Group replication is configured; some of its variables exist without its plugin.
    fn is_in_group(&self) -> bool {
        self.kept
            .get(&Part::GroupVariables)
            .and_then(|table| table.variable("group_replication_group_name"))
            .is_some_and(|name| !name.is_empty())
    }

    /// MySQL lists what roles hold only for those that are named (MySQL 8.0 manual section 13.7.7.21). None before it is
    /// known which are active.
    fn grants_text(&self) -> Option<String> {
        match self.kept.get(&Part::Roles) {
            Some(table) => Some(match grants::active_roles(table) {
                Some(roles) => format!("SHOW GRANTS FOR CURRENT_USER() USING {roles}"),
                None => "SHOW GRANTS".to_owned(),
            }),
            None => self
                .dropped
                .contains_key(&Part::Roles)
                .then(|| "SHOW GRANTS".to_owned()),
        }
    }

    /// A part's text in this server's dialect; none where it has nothing to tell.
    fn sql(&self, part: Part) -> Option<String> {
        let mariadb = self.dialect.is_mariadb();
        let version = &self.dialect.version;
        let mysql_from = |major, minor, patch| !mariadb && version.at_least(major, minor, patch);
        let log_bin = || {
            self.kept
                .get(&Part::Live)
                .and_then(Table::first)
                .is_none_or(|row| row.is_on(&["@@global.log_bin"]))
        };
        let detect = &self.settings.detect;
        let text = match part {
            Part::Live if mariadb => select(&[
                "server_id", "hostname", "port", "report_host", "read_only", "log_bin",
                "log_slave_updates", "version_comment", "gtid_domain_id",
            ]),
            Part::Live => select(&[
                "server_uuid", "server_id", "hostname", "port", "report_host", "read_only",
                "super_read_only", "log_bin",
                if mysql_from(8, 0, 26) { "log_replica_updates" } else { "log_slave_updates" },
                "version_comment", "gtid_mode",
            ]),
            Part::Status => self.status_text(),
            Part::ReplicaStatus => self.dialect.show_replica_status().to_owned(),
            Part::Gtid if mariadb => {
                select(&["gtid_binlog_pos", "gtid_slave_pos", "gtid_binlog_state"])
            }
            Part::Gtid => select(&["gtid_executed", "gtid_purged"]),
            Part::Log => select(&["binlog_format", "binlog_row_image"]),
            Part::SemiSync => self.semi_sync_text()?,
            Part::Heartbeats if !mariadb && self.is_replica() => {
                "SELECT CHANNEL_NAME, COUNT_RECEIVED_HEARTBEATS FROM performance_schema.replication_connection_status"
                    .to_owned()
            }
            Part::GroupMembers if !mariadb && self.is_in_group() => {
                "SELECT MEMBER_ID, MEMBER_HOST, MEMBER_PORT, MEMBER_STATE, MEMBER_ROLE FROM performance_schema.replication_group_members"
                    .to_owned()
            }
            Part::NetTimeout if mysql_from(8, 0, 26) => select(&["replica_net_timeout"]),
            Part::NetTimeout => select(&["slave_net_timeout"]),
            Part::Roles if mysql_from(8, 0, 0) => "SELECT CURRENT_ROLE()".to_owned(),
            Part::Grants if mysql_from(8, 0, 0) => self.grants_text()?,
            // MariaDB lists with the account's own what its active role holds.
            Part::Grants => "SHOW GRANTS".to_owned(),
            Part::SemiSyncVariables => "SHOW GLOBAL VARIABLES LIKE 'rpl_semi_sync_%'".to_owned(),
            Part::GroupVariables if mysql_from(8, 0, 0) => {
                "SHOW GLOBAL VARIABLES LIKE 'group_replication_%'".to_owned()
            }
            Part::Galera => "SHOW GLOBAL VARIABLES LIKE 'wsrep_on'".to_owned(),
            Part::ThroughFence if mariadb && self.may_read_accounts() => {
                THROUGH_FENCE.to_owned()
            }
            Part::ConnectionConfiguration if !mariadb && self.is_replica() => {
                "SELECT * FROM performance_schema.replication_connection_configuration".to_owned()
            }
            Part::ApplierConfiguration if !mariadb && self.is_replica() => {
                "SELECT * FROM performance_schema.replication_applier_configuration".to_owned()
            }
            Part::Credentials
                if !mariadb && self.is_replica() && self.settings.credentials_query.is_none() =>
            {
                "SELECT COUNT(*) > 0 AND MAX(User_name) != '' FROM mysql.slave_master_info".to_owned()
            }
            Part::Replicas if self.settings.discover_by_show_replicas => {
                self.dialect.show_replicas().to_owned()
            }
            Part::Dumps => format!(
                "SELECT HOST FROM {} WHERE COMMAND IN ('Binlog Dump', 'Binlog Dump GTID')",
                self.dialect.process_list()
            ),
            Part::BinlogStatus if log_bin() => self.dialect.show_binlog_status().to_owned(),
            Part::Lag if self.is_replica() => own(self.settings.lag_query.as_ref())?,
            Part::ClusterAlias => own(detect.cluster_alias.as_ref())?,
            Part::ClusterDomain => own(detect.cluster_domain.as_ref())?,
            Part::InstanceAlias => own(detect.instance_alias.as_ref())?,
            Part::PromotionRule => own(detect.promotion_rule.as_ref())?,
            Part::DataCenter => own(detect.data_center.as_ref())?,
            Part::Region => own(detect.region.as_ref())?,
            Part::PhysicalEnvironment => own(detect.physical_environment.as_ref())?,
            Part::SemiSyncEnforced => own(detect.semi_sync_enforced.as_ref())?,
            Part::Heartbeats
            | Part::Roles
            | Part::GroupMembers
            | Part::GroupVariables
            | Part::ThroughFence
            | Part::ConnectionConfiguration
            | Part::ApplierConfiguration
            | Part::Credentials
            | Part::Replicas
            | Part::BinlogStatus
            | Part::Lag => return None,
        };
        Some(text)
    }

    fn status_text(&self) -> String {
        let mut names = vec!["Uptime"];
        if self.dialect.is_mariadb() {
            names.push("Slaves_connected");
        }
        if let Some(known) = self.kept.get(&Part::SemiSyncVariables) {
            if known.variable("rpl_semi_sync_source_enabled").is_some() {
                names.extend([
                    "Rpl_semi_sync_source_status",
                    "Rpl_semi_sync_source_clients",
                ]);
            }
            if known.variable("rpl_semi_sync_master_enabled").is_some() {
                names.extend([
                    "Rpl_semi_sync_master_status",
                    "Rpl_semi_sync_master_clients",
                ]);
            }
            if known.variable("rpl_semi_sync_replica_enabled").is_some() {
                names.push("Rpl_semi_sync_replica_status");
            }
            if known.variable("rpl_semi_sync_slave_enabled").is_some() {
                names.push("Rpl_semi_sync_slave_status");
            }
        }
        let list: Vec<String> = names.iter().map(|name| format!("'{name}'")).collect();
        format!(
            "SHOW GLOBAL STATUS WHERE Variable_name IN ({})",
            list.join(",")
        )
    }

    /// The variables that this server was found to have: cheaper than SHOW.
    fn semi_sync_text(&self) -> Option<String> {
        let known = self.kept.get(&Part::SemiSyncVariables)?;
        let names: Vec<&str> = [
            "rpl_semi_sync_source_enabled",
            "rpl_semi_sync_source_timeout",
            "rpl_semi_sync_source_wait_for_replica_count",
            "rpl_semi_sync_source_wait_point",
            "rpl_semi_sync_replica_enabled",
            "rpl_semi_sync_master_enabled",
            "rpl_semi_sync_master_timeout",
            "rpl_semi_sync_master_wait_for_slave_count",
            "rpl_semi_sync_master_wait_point",
            "rpl_semi_sync_slave_enabled",
        ]
        .into_iter()
        .filter(|name| known.variable(name).is_some())
        .collect();
        (!names.is_empty()).then(|| select(&names))
    }
}

/// MariaDB: accounts that write in spite of `read_only`, by themselves or by their default role. Bit 33 of `access` is READ
/// ONLY ADMIN, bit 15 SUPER, which held it until 10.11 took it out; an account keeps it that was last granted something
/// before (seen on 10.11.19). Password hashes stay on the server.
const THROUGH_FENCE: &str = "SELECT a.User, a.Host FROM mysql.global_priv a LEFT JOIN mysql.global_priv r \
    ON r.Host='' AND r.User=JSON_VALUE(a.Priv,'$.default_role') \
    WHERE JSON_VALUE(a.Priv,'$.is_role') IS NULL AND JSON_VALUE(a.Priv,'$.account_locked') IS NOT TRUE AND (\
    JSON_VALUE(a.Priv,'$.access')&8589934592 \
    OR (JSON_VALUE(a.Priv,'$.access')&32768 AND IFNULL(JSON_VALUE(a.Priv,'$.version_id'),0)<101100) \
    OR JSON_VALUE(r.Priv,'$.access')&8589934592 \
    OR (JSON_VALUE(r.Priv,'$.access')&32768 AND IFNULL(JSON_VALUE(r.Priv,'$.version_id'),0)<101100)) \
    ORDER BY a.User, a.Host LIMIT 64";

/// Errors that end the connection, or mean that the server is on its way down.
const fn is_fatal(code: u16) -> bool {
    // ER_SERVER_SHUTDOWN, ER_CLIENT_INTERACTION_TIMEOUT, ER_SESSION_WAS_KILLED (3169), ER_CONNECTION_KILLED (MariaDB 1927).
    matches!(code, 1053 | 1927 | 3169 | 4031)
}

fn select(names: &[&str]) -> String {
    let list: Vec<String> = names
        .iter()
        .map(|name| format!("@@global.{name}"))
        .collect();
    format!("SELECT {}", list.join(", "))
}

/// A query of the configuration, fit to stand in a batch.
fn own(query: Option<&String>) -> Option<String> {
    let text = query?.trim().trim_end_matches(';').trim_end();
    (!text.is_empty()).then(|| text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rights_that_were_missing_are_asked_for_again_soon() {
        let now = Duration::from_secs(10_000);
        let settings = Arc::new(ProbeSettings::default());
        let (slow, rare) = (settings.slow_interval, settings.rare_interval);
        for (lacks_rights, since, due) in [
            (false, slow - Duration::from_secs(1), (false, false)),
            (false, slow, (true, false)),
            (false, rare, (true, true)),
            (true, slow - Duration::from_secs(1), (false, false)),
            (true, slow, (true, true)),
        ] {
            let reader = Reader {
                key: InstanceKey::new("m1", 3306),
                settings: settings.clone(),
                dialect: Dialect::new("9.7.4", ""),
                kept: Tables::new(),
                dropped: BTreeMap::new(),
                refused: BTreeMap::new(),
                lacks_rights,
                rare_at: Some(now - since),
                slow_at: Some(now - since),
                shape: Shape::default(),
                broken: false,
            };
            assert_eq!(reader.due(now), due, "{lacks_rights} {since:?}");
        }
    }
}
