//! How a server wants to be spoken to: flavour first, then the version's numbers.
//!
//! The only place, with [`super::read`], that holds SQL text. Names that come from outside are checked, literals are
//! quoted here and nowhere else; sessions that run statements have an empty `sql_mode`, so a backslash escapes.
//!
//! Sources: MySQL reference manual 8.0 and 8.4, section 15.4 (replication statements); MariaDB knowledge base, CHANGE
//! MASTER TO, SHOW ALL SLAVES STATUS; `SOURCE` and `REPLICA` words since MySQL 8.0.23, `SHOW BINARY LOG STATUS` since
//! 8.2. MariaDB takes none of them for servers in the role of a source.

use std::time::Duration;

use orchestrator_core::id::InstanceKey;
use orchestrator_core::recovery::{SourcePosition, Statement};
use orchestrator_core::topology::{Flavour, SemiSync, Version};

/// The statement that closes a server to its clients.
#[must_use]
pub const fn fence_text(flavour: Flavour) -> &'static str {
    match flavour {
        Flavour::Mariadb => "SET GLOBAL read_only=1",
        Flavour::Mysql | Flavour::Percona | Flavour::MaxScale => "SET GLOBAL super_read_only=1",
    }
}

/// Flavour and version of one server, and what it was started with.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Dialect {
    pub flavour: Flavour,
    pub version: Version,
    /// [`PERFORMANCE_SCHEMA`] is on. Asked only of servers on which it matters.
    performance_schema: bool,
}

/// The variable that says whether the performance schema is on; it changes only with a restart.
pub(super) const PERFORMANCE_SCHEMA: &str = "@@global.performance_schema";

/// One text to send, and the error numbers that mean it had been done already.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Sql {
    pub text: String,
    pub benign: &'static [u16],
    /// Its failure is not the step's: something stronger that not every server has.
    pub optional: bool,
    /// A password is written in it.
    pub holds_password: bool,
    /// What people have to know once it was done.
    pub remark: Option<&'static str>,
}

impl Sql {
    fn new(text: impl Into<String>) -> Self {
        Sql {
            text: text.into(),
            benign: &[],
            optional: false,
            holds_password: false,
            remark: None,
        }
    }

    fn benign(mut self, codes: &'static [u16]) -> Self {
        self.benign = codes;
        self
    }

    fn optional(mut self) -> Self {
        self.optional = true;
        self
    }

    fn remark(mut self, text: &'static str) -> Self {
        self.remark = Some(text);
        self
    }
}

/// ER_SLAVE_WAS_RUNNING, ER_SLAVE_CHANNEL_WAS_RUNNING.
const ALREADY_RUNNING: &[u16] = &[1254, 3083];
/// ER_SLAVE_NOT_RUNNING, ER_BAD_SLAVE (nothing configured), ER_SLAVE_WAS_NOT_RUNNING, ER_SLAVE_CHANNEL_DOES_NOT_EXIST,
/// ER_SLAVE_CHANNEL_NOT_RUNNING, ER_SLAVE_CHANNEL_WAS_NOT_RUNNING; MariaDB WARN_NO_MASTER_INFO.
const ALREADY_STOPPED: &[u16] = &[1199, 1200, 1255, 1617, 3074, 3082, 3084];
/// The same for a channel that does not exist.
const NO_CHANNEL: &[u16] = &[1200, 1617, 3074];

/// Events whose definer may write through `read_only` go on behind a fence otherwise. Nothing here switches them on again.
const SCHEDULER_IS_OFF: &str = "event_scheduler was set to OFF with the fence, and stays so until the server is restarted or somebody sets it to ON";

/// The most that a server takes for a time in seconds.
pub(super) const YEAR_SECONDS: u64 = 31_536_000;

/// What a pulse keeps in flight.
pub(super) const PULSE: &str = "SELECT SLEEP(1)";

/// How many idle fence connections one server can have: one a daemon, and another while it is replaced.
pub(super) const IDLE_LOCKS: u32 = 32;

/// The lock that an idle fence connection holds, one of [`IDLE_LOCKS`].
pub(super) fn idle_lock(number: u32) -> String {
    format!("orchestrator/idle/{number}")
}

impl Dialect {
    pub fn new(version: &str, version_comment: &str) -> Self {
        let lower = version.to_ascii_lowercase();
        let flavour = if lower.contains("mariadb") {
            Flavour::Mariadb
        } else if lower.contains("maxscale") {
            Flavour::MaxScale
        } else if version_comment.contains("Percona") {
            Flavour::Percona
        } else {
            Flavour::Mysql
        };
        Dialect {
            flavour,
            version: Version::parse(version),
            performance_schema: true,
        }
    }

    /// Whether [`PERFORMANCE_SCHEMA`] is worth asking for: whoever has not the table needs not, and may lack the variable.
    pub fn has_two_process_lists(&self) -> bool {
        !self.is_mariadb() && self.version.at_least(8, 0, 22)
    }

    pub fn with_performance_schema(mut self, is_on: bool) -> Self {
        self.performance_schema = is_on;
        self
    }

    pub fn is_mariadb(&self) -> bool {
        match self.flavour {
            Flavour::Mariadb => true,
            Flavour::Mysql | Flavour::Percona | Flavour::MaxScale => false,
        }
    }

    /// `REPLICA` and `SOURCE` instead of `SLAVE` and `MASTER`.
    pub fn new_words(&self) -> bool {
        !self.is_mariadb() && self.version.at_least(8, 0, 23)
    }

    fn replica(&self) -> &'static str {
        if self.new_words() { "REPLICA" } else { "SLAVE" }
    }

    fn source(&self) -> &'static str {
        if self.new_words() { "SOURCE" } else { "MASTER" }
    }

    /// MySQL's other channels are not ours to touch. MariaDB means the default connection by saying nothing.
    fn channel(&self) -> &'static str {
        if self.is_mariadb() {
            ""
        } else {
            " FOR CHANNEL ''"
        }
    }

    pub fn show_replica_status(&self) -> &'static str {
        match (self.is_mariadb(), self.new_words()) {
            (true, _) => "SHOW ALL SLAVES STATUS",
            (false, true) => "SHOW REPLICA STATUS",
            (false, false) => "SHOW SLAVE STATUS",
        }
    }

    pub fn show_binlog_status(&self) -> &'static str {
        if !self.is_mariadb() && self.version.at_least(8, 2, 0) {
            "SHOW BINARY LOG STATUS"
        } else {
            "SHOW MASTER STATUS"
        }
    }

    pub fn show_replicas(&self) -> &'static str {
        if self.new_words() {
            "SHOW REPLICAS"
        } else {
            "SHOW SLAVE HOSTS"
        }
    }

    /// `information_schema.processlist` takes a mutex of every session and is deprecated from 8.0.35 on; the
    /// performance schema's table came with 8.0.22, and is empty while that schema is off (MySQL 8.0, chapter 29).
    pub fn process_list(&self) -> &'static str {
        if self.has_two_process_lists() && self.performance_schema {
            "performance_schema.processlist"
        } else {
            "information_schema.processlist"
        }
    }

    /// What a session is set to that closes and opens servers. A statement that waits for the server's other sessions, as
    /// `read_only` does, waits as long as whoever sent it wants it to, whatever the server's own limits are.
    pub fn session(&self, idle: Duration) -> String {
        let mut text = format!(
            "SET SESSION sql_mode='', autocommit=1, wait_timeout={}, lock_wait_timeout={YEAR_SECONDS}",
            idle.as_secs()
        );
        if self.is_mariadb() {
            text.push_str(", max_statement_time=0");
        }
        text
    }

    /// The one statement that is written into an idle fence connection.
    pub fn fence_text(&self) -> &'static str {
        fence_text(self.flavour)
    }

    /// Texts for every statement but the loops ([`Statement::KillClients`] has none). `semi_sync` says which spelling
    /// of the variables this server has.
    ///
    /// # Errors
    /// Why this server cannot be told that; nothing is sent then.
    pub fn texts(&self, statement: &Statement, semi_sync: &SemiSync) -> Result<Vec<Sql>, String> {
        let replica = self.replica();
        let channel = self.channel();
        Ok(match statement {
            Statement::Fence => {
                let mut texts = vec![Sql::new(self.fence_text())];
                if self.is_mariadb() {
                    // Refused where the scheduler was disabled at start (1290) or the account lacks SUPER (1227).
                    texts.push(
                        Sql::new("SET GLOBAL event_scheduler=OFF")
                            .optional()
                            .remark(SCHEDULER_IS_OFF),
                    );
                }
                texts
            }
            // Clearing read_only clears super_read_only too (MySQL 8.0, section 7.1.8).
            Statement::MakeWriteable => vec![Sql::new("SET GLOBAL read_only=0")],
            Statement::MakeReadOnly { super_read_only } => {
                if *super_read_only && !self.is_mariadb() {
                    vec![Sql::new("SET GLOBAL super_read_only=1")]
                } else {
                    vec![Sql::new("SET GLOBAL read_only=1")]
                }
            }
            Statement::KillClients { .. } => Vec::new(),
            Statement::StopIoThread => {
                vec![Sql::new(format!("STOP {replica} IO_THREAD{channel}")).benign(ALREADY_STOPPED)]
            }
            Statement::StartIoThread => vec![
                Sql::new(format!("START {replica} IO_THREAD{channel}")).benign(ALREADY_RUNNING),
            ],
            Statement::StopSqlThread => vec![
                Sql::new(format!("STOP {replica} SQL_THREAD{channel}")).benign(ALREADY_STOPPED),
            ],
            Statement::StartSqlThread => vec![
                Sql::new(format!("START {replica} SQL_THREAD{channel}")).benign(ALREADY_RUNNING),
            ],
            Statement::StopReplication => {
                vec![Sql::new(format!("STOP {replica}{channel}")).benign(ALREADY_STOPPED)]
            }
            Statement::StartReplication => {
                vec![Sql::new(format!("START {replica}{channel}")).benign(ALREADY_RUNNING)]
            }
            Statement::ChangeSource {
                source,
                position,
                options,
            } => {
                let is_secret =
                    |(name, _): &(String, String)| name.to_ascii_uppercase().ends_with("PASSWORD");
                vec![Sql {
                    holds_password: options.iter().any(is_secret),
                    ..Sql::new(self.change_source(source, *position, options)?)
                }]
            }
            Statement::ResetReplicaAll => {
                vec![Sql::new(format!("RESET {replica} ALL{channel}")).benign(NO_CHANNEL)]
            }
            Statement::SetGtidSlavePos { position } => {
                if !self.is_mariadb() {
                    return Err("gtid_slave_pos exists on MariaDB only".to_owned());
                }
                vec![Sql::new(format!(
                    "SET GLOBAL gtid_slave_pos={}",
                    quoted(&position.to_string())
                ))]
            }
            Statement::SemiSyncSource { enabled } => {
                let side = if semi_sync.source_spelling {
                    "source"
                } else {
                    "master"
                };
                vec![Sql::new(format!(
                    "SET GLOBAL rpl_semi_sync_{side}_enabled={}",
                    u8::from(*enabled)
                ))]
            }
            Statement::SemiSyncReplica { enabled } => {
                let side = if semi_sync.replica_spelling {
                    "replica"
                } else {
                    "slave"
                };
                vec![Sql::new(format!(
                    "SET GLOBAL rpl_semi_sync_{side}_enabled={}",
                    u8::from(*enabled)
                ))]
            }
            Statement::RunHook { hook } => {
                return Err(format!("{hook} is nothing for a server"));
            }
        })
    }

    fn change_source(
        &self,
        source: &InstanceKey,
        position: SourcePosition,
        options: &[(String, String)],
    ) -> Result<String, String> {
        let word = self.source();
        let mut text = if self.new_words() {
            "CHANGE REPLICATION SOURCE TO ".to_owned()
        } else {
            "CHANGE MASTER TO ".to_owned()
        };
        text.push_str(&format!(
            "{word}_HOST={}, {word}_PORT={}",
            quoted(&source.host),
            source.port
        ));
        match (position, self.is_mariadb()) {
            (SourcePosition::OracleAuto, false) => {
                text.push_str(&format!(", {word}_AUTO_POSITION=1"));
            }
            (SourcePosition::MariadbSlavePos, true) => {
                text.push_str(", MASTER_USE_GTID=slave_pos");
            }
            (SourcePosition::OracleKept, false) => {}
            (SourcePosition::OracleAuto | SourcePosition::OracleKept, true) => {
                return Err("MariaDB has no auto position".to_owned());
            }
            (SourcePosition::MariadbSlavePos, false) => {
                return Err("MASTER_USE_GTID exists on MariaDB only".to_owned());
            }
        }
        for (name, literal) in options {
            let name = self.option_name(name)?;
            if position == SourcePosition::OracleKept
                && APPLIER_OPTIONS.iter().any(|option| name.ends_with(option))
            {
                continue;
            }
            text.push_str(&format!(", {name}={}", checked_literal(literal)?));
        }
        text.push_str(self.channel());
        Ok(text)
    }

    /// The option in this server's words, if it is one that may be stated.
    fn option_name(&self, name: &str) -> Result<String, String> {
        let upper = name.to_ascii_uppercase();
        let word = self.source();
        let plain = upper
            .strip_prefix("SOURCE_")
            .or_else(|| upper.strip_prefix("MASTER_"));
        match (plain, upper.as_str()) {
            // SOURCE_CONNECTION_AUTO_FAILOVER has no other word.
            (_, "SOURCE_CONNECTION_AUTO_FAILOVER") => Ok(upper),
            (Some(rest), _) if CHANNEL_OPTIONS.contains(&rest) => Ok(format!("{word}_{rest}")),
            (None, "GET_SOURCE_PUBLIC_KEY" | "GET_MASTER_PUBLIC_KEY") => {
                Ok(format!("GET_{word}_PUBLIC_KEY"))
            }
            (None, other) if OTHER_OPTIONS.contains(&other) => Ok(upper),
            _ => Err(format!("{name:?} is no option of a replication channel")),
        }
    }
}

/// Options that carry the word for the source in front.
const CHANNEL_OPTIONS: &[&str] = &[
    "USER",
    "PASSWORD",
    "BIND",
    "CONNECT_RETRY",
    "RETRY_COUNT",
    "DELAY",
    "HEARTBEAT_PERIOD",
    "SSL",
    "SSL_CA",
    "SSL_CAPATH",
    "SSL_CERT",
    "SSL_KEY",
    "SSL_CIPHER",
    "SSL_CRL",
    "SSL_CRLPATH",
    "SSL_VERIFY_SERVER_CERT",
    "TLS_VERSION",
    "TLS_CIPHERSUITES",
    "PUBLIC_KEY_PATH",
    "COMPRESSION_ALGORITHMS",
    "ZSTD_COMPRESSION_LEVEL",
];
const OTHER_OPTIONS: &[&str] = &[
    "NETWORK_NAMESPACE",
    "REQUIRE_ROW_FORMAT",
    "REQUIRE_TABLE_PRIMARY_KEY_CHECK",
    "ASSIGN_GTIDS_TO_ANONYMOUS_TRANSACTIONS",
    "GTID_ONLY",
];

/// A text as a literal of a session whose `sql_mode` is empty.
pub(super) fn quoted(text: &str) -> String {
    let mut literal = String::with_capacity(text.len() + 2);
    literal.push('\'');
    for c in text.chars() {
        match c {
            '\'' => literal.push_str("''"),
            '\\' => literal.push_str("\\\\"),
            '\0' => literal.push_str("\\0"),
            c => literal.push(c),
        }
    }
    literal.push('\'');
    literal
}

/// The inverse of [`quoted`]; none for what it would not have written.
fn unquoted(literal: &str) -> Option<String> {
    let inner = literal.strip_prefix('\'')?.strip_suffix('\'')?;
    let mut text = String::with_capacity(inner.len());
    let mut chars = inner.chars();
    while let Some(c) = chars.next() {
        match c {
            '\'' => text.push(chars.next().filter(|next| *next == '\'')?),
            '\\' => match chars.next()? {
                '\\' => text.push('\\'),
                '0' => text.push('\0'),
                _ => return None,
            },
            c => text.push(c),
        }
    }
    Some(text)
}

/// A literal that was in a document: a number, a keyword of letters, or a quoted text. Anything else is refused.
fn checked_literal(literal: &str) -> Result<String, String> {
    let number = !literal.is_empty()
        && literal.chars().all(|c| c.is_ascii_digit() || c == '.')
        && literal.parse::<f64>().is_ok();
    let word = !literal.is_empty() && literal.chars().all(|c| c.is_ascii_alphabetic() || c == '_');
    if number || word {
        return Ok(literal.to_owned());
    }
    match unquoted(literal) {
        Some(text) => Ok(quoted(&text)),
        None => Err(format!("{literal:?} is neither a number nor a quoted text")),
    }
}

/// Options of a channel that can be stated only while the applier is stopped too (seen on MySQL 9.7: error 3081; CHANGE REPLICATION
/// SOURCE TO). A change of host and port leaves them as they are (F18).
const APPLIER_OPTIONS: [&str; 7] = [
    "SOURCE_CONNECTION_AUTO_FAILOVER",
    "_DELAY",
    "PRIVILEGE_CHECKS_USER",
    "REQUIRE_ROW_FORMAT",
    "REQUIRE_TABLE_PRIMARY_KEY_CHECK",
    "ASSIGN_GTIDS_TO_ANONYMOUS_TRANSACTIONS",
    "GTID_ONLY",
];

#[cfg(test)]
mod tests {
    use super::*;
    use orchestrator_core::gtid;

    fn texts(version: &str, statement: &Statement, semi_sync: &SemiSync) -> Vec<String> {
        Dialect::new(version, "")
            .texts(statement, semi_sync)
            .unwrap()
            .into_iter()
            .map(|sql| sql.text)
            .collect()
    }

    #[test]
    fn flavours_come_before_versions() {
        for (version, comment, flavour, new_words) in [
            ("10.11.19-MariaDB-log", "", Flavour::Mariadb, false),
            ("26.1.0-MariaDB", "", Flavour::Mariadb, false),
            ("5.7.44-log", "", Flavour::Mysql, false),
            ("8.0.22", "", Flavour::Mysql, false),
            ("8.0.36-28", "Percona Server (GPL)", Flavour::Percona, true),
            ("10.0.1", "MySQL Community", Flavour::Mysql, true),
        ] {
            let dialect = Dialect::new(version, comment);
            assert_eq!(
                (dialect.flavour, dialect.new_words()),
                (flavour, new_words),
                "{version}"
            );
        }
    }

    #[test]
    fn sessions_are_looked_for_where_they_are_listed() {
        for (version, performance_schema, asked, table) in [
            ("9.7.4", true, true, "performance_schema.processlist"),
            ("9.7.4", false, true, "information_schema.processlist"),
            ("8.0.22", true, true, "performance_schema.processlist"),
            ("8.0.22", false, true, "information_schema.processlist"),
            ("8.0.21", true, false, "information_schema.processlist"),
            (
                "11.4.2-MariaDB",
                true,
                false,
                "information_schema.processlist",
            ),
        ] {
            let dialect = Dialect::new(version, "").with_performance_schema(performance_schema);
            assert_eq!(
                (dialect.has_two_process_lists(), dialect.process_list()),
                (asked, table),
                "{version} {performance_schema}"
            );
        }
    }

    #[test]
    fn statements_in_four_dialects() {
        let change = |position| Statement::ChangeSource {
            source: InstanceKey::new("db'1", 3306),
            position,
            options: vec![
                ("SOURCE_CONNECT_RETRY".into(), "10".into()),
                ("MASTER_SSL_CA".into(), "'/ca''s'".into()),
            ],
        };
        let none = SemiSync::default();
        let new = SemiSync {
            source_spelling: true,
            replica_spelling: true,
            ..SemiSync::default()
        };
        let oracle = change(SourcePosition::OracleAuto);
        let mariadb = change(SourcePosition::MariadbSlavePos);
        let position = gtid::GtidSet::parse(gtid::Flavour::Mariadb, "0-1-5").unwrap();
        let set = Statement::SetGtidSlavePos { position };
        for (version, statement, semi_sync, expected) in [
            (
                "5.7.44",
                &oracle,
                &none,
                "CHANGE MASTER TO MASTER_HOST='db''1', MASTER_PORT=3306, MASTER_AUTO_POSITION=1, \
                 MASTER_CONNECT_RETRY=10, MASTER_SSL_CA='/ca''s' FOR CHANNEL ''",
            ),
            (
                "8.4.0",
                &oracle,
                &none,
                "CHANGE REPLICATION SOURCE TO SOURCE_HOST='db''1', SOURCE_PORT=3306, \
                 SOURCE_AUTO_POSITION=1, SOURCE_CONNECT_RETRY=10, SOURCE_SSL_CA='/ca''s' FOR CHANNEL ''",
            ),
            (
                "11.4.2-MariaDB",
                &mariadb,
                &none,
                "CHANGE MASTER TO MASTER_HOST='db''1', MASTER_PORT=3306, MASTER_USE_GTID=slave_pos, \
                 MASTER_CONNECT_RETRY=10, MASTER_SSL_CA='/ca''s'",
            ),
            (
                "9.7.4",
                &Statement::Fence,
                &none,
                "SET GLOBAL super_read_only=1",
            ),
            (
                "10.5.1-MariaDB",
                &Statement::Fence,
                &none,
                "SET GLOBAL read_only=1;SET GLOBAL event_scheduler=OFF",
            ),
            (
                "8.0.22",
                &Statement::StopIoThread,
                &none,
                "STOP SLAVE IO_THREAD FOR CHANNEL ''",
            ),
            (
                "8.0.23",
                &Statement::ResetReplicaAll,
                &none,
                "RESET REPLICA ALL FOR CHANNEL ''",
            ),
            (
                "10.11.2-MariaDB",
                &Statement::ResetReplicaAll,
                &none,
                "RESET SLAVE ALL",
            ),
            (
                "10.11.2-MariaDB",
                &set,
                &none,
                "SET GLOBAL gtid_slave_pos='0-1-5'",
            ),
            (
                "9.7.4",
                &Statement::SemiSyncSource { enabled: true },
                &new,
                "SET GLOBAL rpl_semi_sync_source_enabled=1",
            ),
            (
                "9.7.4",
                &Statement::SemiSyncReplica { enabled: false },
                &none,
                "SET GLOBAL rpl_semi_sync_slave_enabled=0",
            ),
        ] {
            assert_eq!(texts(version, statement, semi_sync).join(";"), expected);
        }
    }

    #[test]
    fn it_is_told_that_a_fence_switches_the_scheduler_off() {
        let none = SemiSync::default();
        for (version, remarks) in [
            ("10.11.2-MariaDB", vec![None, Some(SCHEDULER_IS_OFF)]),
            ("9.7.4", vec![None]),
        ] {
            let texts = Dialect::new(version, "").texts(&Statement::Fence, &none);
            let told: Vec<_> = texts.unwrap().iter().map(|sql| sql.remark).collect();
            assert_eq!(told, remarks, "{version}");
        }
    }

    #[test]
    fn what_a_server_cannot_do_is_refused_before_the_wire() {
        let none = SemiSync::default();
        let change = |position, name: &str, literal: &str| Statement::ChangeSource {
            source: InstanceKey::new("db1", 3306),
            position,
            options: vec![(name.to_owned(), literal.to_owned())],
        };
        let mysql = Dialect::new("9.7.4", "");
        let mariadb = Dialect::new("10.11.2-MariaDB", "");
        for (dialect, statement) in [
            (
                &mariadb,
                change(SourcePosition::OracleAuto, "MASTER_SSL", "1"),
            ),
            (
                &mysql,
                change(SourcePosition::MariadbSlavePos, "MASTER_SSL", "1"),
            ),
            (
                &mariadb,
                change(SourcePosition::OracleKept, "MASTER_SSL", "1"),
            ),
            (
                &mysql,
                change(SourcePosition::OracleAuto, "SOURCE_HOST", "'x'"),
            ),
            (&mysql, change(SourcePosition::OracleAuto, "X=1; DROP", "1")),
            (
                &mysql,
                change(SourcePosition::OracleAuto, "SOURCE_BIND", "'a' OR 'b'"),
            ),
            (
                &mysql,
                change(SourcePosition::OracleAuto, "SOURCE_DELAY", "1, SOURCE_HOST"),
            ),
        ] {
            assert!(dialect.texts(&statement, &none).is_err(), "{statement:?}");
        }
    }

    #[test]
    fn literals_survive_quoting() {
        for text in ["", "plain", "o'brien", "back\\slash", "nul\0", "'"] {
            assert_eq!(unquoted(&quoted(text)).as_deref(), Some(text));
        }
    }
}
