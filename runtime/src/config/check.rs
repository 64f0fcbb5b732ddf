//! What is done once all files are merged: older names folded, credentials fetched, texts normalised, and the
//! rules that concern more than one key.
//!
//! It runs once, after the last file, so that a later file may repair an earlier one. Every rule is tried and
//! every breach collected; a rule over a key whose text was refused already is left out. Numbers in comments
//! (V1..V13) are those of the documented validations.

use std::path::Path;

use super::address::{self, Address};
use super::credentials::{self, Expanded, Given};
use super::error::{Cause, Findings, Place, excerpt};
use super::file::FILE_BYTES_MAX;
use super::keys::{Effect, KEYS};
use super::settings::TIMEOUT_SECONDS_MAX;
use super::values::{Value, Values, known, regex};
use super::{ReadFile, Variables};
use crate::http::routes::{STATUS, is_taken};

/// Keys whose default differs when `SafetyProfile` is `original`: what the original did. The last one is not obeyed on MariaDB.
const ORIGINAL_PROFILE: [(&str, Profile); 4] = [
    ("PlannedStopPatienceSeconds", Profile::Uint(0)),
    ("ReopenRestartedPrimary", Profile::Bool(false)),
    ("DeposedPrimaryAction", Profile::Text("report")),
    (
        "DelayMasterPromotionIfSQLThreadNotUpToDate",
        Profile::Bool(false),
    ),
];

enum Profile {
    Bool(bool),
    Uint(u64),
    Text(&'static str),
}

/// Settles the merged values. Problems and warnings go to `findings`.
pub(super) fn settle(
    values: &mut Values,
    read: ReadFile<'_>,
    env: Variables<'_>,
    findings: &mut Findings,
) {
    report_without_effect(values, findings);
    let mut check = Check { values, findings };
    check.fold_older_names();
    for side in [BACKEND, TOPOLOGY] {
        check.credentials(side, read, env);
    }
    check.profile();
    check.raft_certificates();
    check.normalise();
    check.listeners();
    check.backend();
    check.raft();
    check.topology();
    check.discovery();
    check.recovery();
    check.integrations();
}

/// One line for the keys that are set and obeyed by nothing, and one for those of them that close something.
fn report_without_effect(values: &Values, findings: &mut Findings) {
    fn unobeyed(effect: Effect) -> bool {
        match effect {
            Effect::NotYet | Effect::Dead => true,
            Effect::Effective => false,
            Effect::SynonymOf(name) => unobeyed(known(name).effect),
        }
    }
    let changed = |name: &str| *values.get(name) != Value::of(known(name).preset);
    let idle: Vec<&str> = KEYS
        .iter()
        .filter(|k| values.is_set(k.name) && unobeyed(k.effect))
        .map(|k| k.name)
        .collect();
    if !idle.is_empty() {
        let (differing, same): (Vec<&str>, Vec<&str>) =
            idle.iter().copied().partition(|name| changed(name));
        let mut text = "these keys are set and have no effect in this program so far: ".to_owned();
        text.push_str(&differing.join(", "));
        if !same.is_empty() {
            let joint = if differing.is_empty() {
                ""
            } else {
                "; and, set to their defaults: "
            };
            text.push_str(joint);
            text.push_str(&same.join(", "));
        }
        findings.warn(None, text);
    }
    let open = unguarded(values);
    if !open.is_empty() {
        findings.warn(
            None,
            format_args!(
                "NOT PROTECTED: {} would close something, and nothing obeys it so far",
                open.join(", ")
            ),
        );
    }
}

/// Keys that are set so as to close something, and are obeyed by nothing so far.
pub(super) fn unguarded(values: &Values) -> Vec<&'static str> {
    let open = KEYS
        .iter()
        .filter(|key| key.guards && key.effect == Effect::NotYet);
    open.filter(|key| *values.get(key.name) != Value::of(key.preset))
        .map(|key| key.name)
        .collect()
}

/// The keys of one set of MySQL credentials and certificates.
#[derive(Clone, Copy)]
struct Side {
    user: &'static str,
    password: &'static str,
    file: &'static str,
    tls: &'static str,
    tls_skip_verify: &'static str,
    tls_key: &'static str,
    tls_cert: &'static str,
}

const BACKEND: Side = Side {
    user: "MySQLOrchestratorUser",
    password: "MySQLOrchestratorPassword",
    file: "MySQLOrchestratorCredentialsConfigFile",
    tls: "MySQLOrchestratorUseMutualTLS",
    tls_skip_verify: "MySQLOrchestratorSSLSkipVerify",
    tls_key: "MySQLOrchestratorSSLPrivateKeyFile",
    tls_cert: "MySQLOrchestratorSSLCertFile",
};

const TOPOLOGY: Side = Side {
    user: "MySQLTopologyUser",
    password: "MySQLTopologyPassword",
    file: "MySQLTopologyCredentialsConfigFile",
    tls: "MySQLTopologyUseMutualTLS",
    tls_skip_verify: "MySQLTopologySSLSkipVerify",
    tls_key: "MySQLTopologySSLPrivateKeyFile",
    tls_cert: "MySQLTopologySSLCertFile",
};

struct Check<'c> {
    values: &'c mut Values,
    findings: &'c mut Findings,
}

impl Check<'_> {
    /// The place of the first of these keys that a file set.
    fn place(&self, names: &[&'static str]) -> Option<Place> {
        names
            .iter()
            .find_map(|name| self.values.place(name))
            .cloned()
    }

    /// Reports a breach of a rule over `names`, under the first of them, unless one of them is in doubt.
    fn breach(&mut self, names: &[&'static str], reason: impl Into<String>) {
        if self.values.are_sound(names) {
            let place = self.place(names);
            self.findings.problem(
                place,
                names.first().copied(),
                Cause::Conflict(reason.into()),
            );
        }
    }

    fn warn(&mut self, name: &'static str, text: impl std::fmt::Display) {
        let place = self.values.place(name).cloned();
        self.findings
            .warn(place.as_ref(), format_args!("{name}: {text}"));
    }

    fn set_text(&mut self, name: &'static str, text: String) {
        self.values.adjust(name, Value::Text(text));
    }

    fn fold_older_names(&mut self) {
        for key in KEYS {
            if let (Effect::SynonymOf(name), true) = (key.effect, self.values.is_set(key.name)) {
                self.warn(key.name, format_args!("is an older name: use {name}"));
            }
        }
        self.fold_lag_query();
        self.fold_postponement();
        self.fold_block_period();
        self.fold_flag(
            "DetachLostReplicasAfterMasterFailover",
            "DetachLostSlavesAfterMasterFailover",
        );
        self.fold_flag(
            "MasterFailoverDetachReplicaMasterHost",
            "MasterFailoverDetachSlaveMasterHost",
        );
    }

    /// V2.
    fn fold_lag_query(&mut self) {
        const NAMES: [&str; 2] = ["ReplicationLagQuery", "SlaveLagQuery"];
        let [query, older] = NAMES.map(|name| self.values.text(name).to_owned());
        if older.is_empty() {
            return;
        }
        if !query.is_empty() && query != older {
            self.breach(
                &NAMES,
                "differs from SlaveLagQuery, its older name: set only one of them",
            );
        }
        self.set_text(NAMES[0], older);
        self.set_text(NAMES[1], String::new());
    }

    /// V5.
    fn fold_postponement(&mut self) {
        const NAMES: [&str; 2] = [
            "PostponeReplicaRecoveryOnLagMinutes",
            "PostponeSlaveRecoveryOnLagMinutes",
        ];
        let [minutes, older] = NAMES.map(|name| self.values.count(name));
        if minutes != 0 && older != 0 && minutes != older {
            self.breach(&NAMES, "differs from PostponeSlaveRecoveryOnLagMinutes, its older name: set only one of them");
        }
        if minutes == 0 {
            self.values.adjust(NAMES[0], Value::Uint(older));
        }
    }

    /// Seconds that are set and not 0 count. Else minutes do, if they are set or seconds are set to 0. The
    /// original obeys minutes only when seconds are explicitly 0.
    fn fold_block_period(&mut self) {
        const SECONDS: &str = "RecoveryPeriodBlockSeconds";
        const MINUTES: &str = "RecoveryPeriodBlockMinutes";
        let seconds = self.values.int(SECONDS);
        let from_minutes = self.values.int(MINUTES).saturating_mul(60);
        let seconds_rule = self.values.is_set(SECONDS) && seconds != 0;
        if seconds_rule {
            if self.values.is_set(MINUTES) && from_minutes != seconds {
                self.warn(
                    MINUTES,
                    format_args!("differs from {SECONDS}, which counts"),
                );
            }
        } else if self.values.is_set(MINUTES) || self.values.is_set(SECONDS) {
            self.values.adjust(SECONDS, Value::Int(from_minutes));
        }
    }

    /// The newer name counts when it is set; else the older one, set or by its default.
    fn fold_flag(&mut self, name: &'static str, older_name: &'static str) {
        let older = self.values.flag(older_name);
        if !self.values.is_set(name) {
            self.values.adjust(name, Value::Bool(older));
        } else if self.values.is_set(older_name) && older != self.values.flag(name) {
            self.warn(
                older_name,
                format_args!("differs from {name}, which counts"),
            );
        }
    }

    /// V1, and the environment. A password of the configuration or of the file, and a user of the file, may be
    /// that of a variable.
    fn credentials(&mut self, side: Side, read: ReadFile<'_>, env: Variables<'_>) {
        let path = self.values.text(side.file).to_owned();
        if !path.is_empty() {
            match read_credentials(&path, read) {
                Ok(given) => {
                    if let Some(user) = given.user {
                        let user = self.expand(side.user, user, env);
                        self.set_text(side.user, user);
                    }
                    if let Some(password) = given.password {
                        self.set_text(side.password, password);
                    }
                }
                Err(reason) => {
                    let cause = Cause::Credentials(format!("{} {reason}", excerpt(&path)));
                    self.findings.problem(
                        self.values.place(side.file).cloned(),
                        Some(side.file),
                        cause,
                    );
                }
            }
        }
        let password = self.expand(
            side.password,
            self.values.text(side.password).to_owned(),
            env,
        );
        self.set_text(side.password, password);
    }

    fn expand(&mut self, name: &'static str, text: String, env: Variables<'_>) -> String {
        match credentials::expand(&text, env) {
            Expanded::Plain => text,
            Expanded::Replaced(value) => value,
            Expanded::Unset(variable) => {
                let variable = excerpt(&variable);
                let follows = self.follows_from_nothing(name);
                self.warn(
                    name,
                    format_args!(
                        "environment variable {variable} is not set: the value is empty, as in the original{follows}; set the \
                         variable for this daemon (with our systemd unit: in /etc/orchestrator.env), and start it again"
                    ),
                );
                String::new()
            }
        }
    }

    /// What comes of an empty user or password.
    fn follows_from_nothing(&self, name: &str) -> &'static str {
        if [TOPOLOGY.user, TOPOLOGY.password].contains(&name) {
            ", so that no server can be read whose account of MySQLTopologyUser has a password"
        } else if self.is_sqlite() {
            ""
        } else {
            ", so that the backend's server lets MySQLOrchestratorUser in only if its account has no password, and else this \
             daemon does not start"
        }
    }

    fn is_sqlite(&self) -> bool {
        let backend = self.values.text("BackendDB").to_ascii_lowercase();
        backend.contains("sqlite")
    }

    /// Who has certificates is closed to all that come without, unless a file says otherwise.
    fn raft_certificates(&mut self) {
        const REFUSE: &str = "RaftTLSRefusePlainText";
        if !self.values.is_set(REFUSE) && !self.values.text("RaftTLSCertFile").is_empty() {
            self.values.adjust(REFUSE, Value::Bool(true));
        }
    }

    /// Defaults that depend on the profile. A key that a file sets keeps its value.
    fn profile(&mut self) {
        const DELAY: &str = "DelayMasterPromotionIfSQLThreadNotUpToDate";
        const FAIL: &str = "FailMasterPromotionIfSQLThreadNotUpToDate";
        if self
            .values
            .text("SafetyProfile")
            .eq_ignore_ascii_case("original")
        {
            for (name, value) in ORIGINAL_PROFILE {
                if !self.values.is_set(name) {
                    self.values.adjust(
                        name,
                        match value {
                            Profile::Bool(value) => Value::Bool(value),
                            Profile::Uint(value) => Value::Uint(value),
                            Profile::Text(value) => Value::Text(value.to_owned()),
                        },
                    );
                }
            }
        } else if !self.values.is_set(DELAY) {
            let wait = !self.values.flag(FAIL);
            self.values.adjust(DELAY, Value::Bool(wait));
        }
        if !self.values.flag(DELAY) && !self.values.flag(FAIL) {
            self.warn(
                DELAY,
                "false: a MySQL replica is promoted before it has applied what it received; clients see that arrive later, and \
                 what contradicts their writes stops its applier; MariaDB replicas are waited for all the same",
            );
        }
        // V3.
        if self.values.flag(FAIL) && self.values.flag(DELAY) {
            self.breach(
                &[FAIL, DELAY],
                format!("excludes {DELAY}: set only one of them"),
            );
        }
    }

    fn normalise(&mut self) {
        let prefix = self.values.text("URLPrefix").trim_matches('/').to_owned();
        self.set_text(
            "URLPrefix",
            if prefix.is_empty() {
                prefix
            } else {
                format!("/{prefix}")
            },
        );

        let prefix = format!(
            "{}/",
            self.values
                .text("KVClusterMasterPrefix")
                .trim_end_matches('/')
        );
        self.set_text("KVClusterMasterPrefix", prefix);

        let operations = self.values.int("ConsulMaxKVsPerTransaction").clamp(5, 64);
        self.values
            .adjust("ConsulMaxKVsPerTransaction", Value::Int(operations));

        if self.values.count("ReasonableLockedSemiSyncMasterSeconds") == 0 {
            let seconds = self.values.count("ReasonableReplicationLagSeconds");
            self.values.adjust(
                "ReasonableLockedSemiSyncMasterSeconds",
                Value::Uint(seconds),
            );
        }
        if self.values.flag("AutoPseudoGTID") {
            self.set_text(
                "PseudoGTIDPattern",
                "drop view if exists `_pseudo_gtid_`.`_asc:".to_owned(),
            );
            self.values
                .adjust("PseudoGTIDPatternIsFixedSubstring", Value::Bool(true));
            self.set_text("PseudoGTIDMonotonicHint", "asc:".to_owned());
            self.set_text("DetectPseudoGTIDQuery", "select 1".to_owned());
        }
        if !self.values.flag("PseudoGTIDPatternIsFixedSubstring")
            && let Err(reason) = regex(self.values.text("PseudoGTIDPattern"))
        {
            self.breach(
                &["PseudoGTIDPattern", "PseudoGTIDPatternIsFixedSubstring"],
                reason,
            );
        }
        for name in [
            "MySQLConnectTimeoutSeconds",
            "MySQLOrchestratorReadTimeoutSeconds",
            "MySQLDiscoveryReadTimeoutSeconds",
            "MySQLTopologyReadTimeoutSeconds",
        ] {
            if self.values.int(name) == 0 {
                self.warn(name, format_args!("0 (no limit) is taken as {TIMEOUT_SECONDS_MAX}: every statement here has a deadline"));
            }
        }
    }

    fn listeners(&mut self) {
        let socket = !self.values.text("ListenSocket").is_empty();
        if self.values.text("ListenAddress").is_empty() && !socket {
            self.breach(
                &["ListenAddress", "ListenSocket"],
                "must not be empty without ListenSocket",
            );
        }
        self.status_endpoint();
        // V12.
        let method = self
            .values
            .text("AuthenticationMethod")
            .to_ascii_lowercase();
        let nobody = self.values.text("HTTPAuthUser").is_empty();
        match method.as_str() {
            "multi" if nobody => {
                self.breach(
                    &["HTTPAuthUser", "AuthenticationMethod"],
                    "must be set when AuthenticationMethod is multi",
                );
            }
            "basic" if nobody => self.warn(
                "AuthenticationMethod",
                "basic without HTTPAuthUser: callers must send an empty user",
            ),
            "oauth" => self.warn(
                "AuthenticationMethod",
                "oauth denies every action, as in the original",
            ),
            _ => {}
        }
        if self.values.flag("UseSSL") && !socket {
            for name in ["SSLCertFile", "SSLPrivateKeyFile"] {
                self.required(name, "UseSSL");
            }
        }
        if self.values.flag("ServeAgentsHttp") {
            if let Err(reason) = address::listen(self.values.text("AgentsServerPort")) {
                let reason = format!("{} {reason}", excerpt(self.values.text("AgentsServerPort")));
                self.breach(&["AgentsServerPort", "ServeAgentsHttp"], reason);
            }
            if self.values.flag("AgentsUseSSL") {
                for name in ["AgentSSLCertFile", "AgentSSLPrivateKeyFile"] {
                    self.required(name, "AgentsUseSSL");
                }
            }
        }
        let identity = self.values.text("PrependMessagesWithOrcIdentity");
        if identity.eq_ignore_ascii_case("custom") {
            self.required("CustomOrcIdentity", "PrependMessagesWithOrcIdentity");
        }
    }

    /// The status check stands at its own route, or at a path that no other route has and a request can name.
    fn status_endpoint(&mut self) {
        const NAME: &str = "StatusEndpoint";
        let prefix = self.values.text("URLPrefix").to_owned();
        let given = self.values.text(NAME).to_owned();
        let path = given.trim_end_matches('/');
        if path == STATUS.path || path == format!("{prefix}{}", STATUS.path) {
            self.set_text(NAME, STATUS.path.to_owned());
            return;
        }
        let cannot_be_asked = |c: char| !c.is_ascii_graphic() || c == '?' || c == '#';
        if path.is_empty() || is_taken(&prefix, path) {
            let reason = format!(
                "{} is the path of another route: choose one that is free, such as /healthz, or leave it out",
                excerpt(&given)
            );
            self.breach(&[NAME, "URLPrefix"], reason);
        } else if path.contains(cannot_be_asked) {
            let reason = format!(
                "{} has a character that a path cannot have (a space, ?, # or one that is not ASCII)",
                excerpt(&given)
            );
            self.breach(&[NAME], reason);
        }
    }

    /// `name` must not be empty, because of what `cause` says.
    fn required(&mut self, name: &'static str, cause: &'static str) {
        if self.values.text(name).is_empty() {
            self.breach(&[name, cause], format!("must be set, as {cause} is"));
        }
    }

    fn certificate_pair(&mut self, side: Side) {
        if !self.values.flag(side.tls) || self.values.flag(side.tls_skip_verify) {
            return;
        }
        let [key, cert] =
            [side.tls_key, side.tls_cert].map(|name| !self.values.text(name).is_empty());
        if key != cert {
            let (missing, given) = if key {
                (side.tls_cert, side.tls_key)
            } else {
                (side.tls_key, side.tls_cert)
            };
            self.breach(&[missing, given], format!("must be set, as {given} is"));
        }
    }

    fn backend(&mut self) {
        // V6.
        let sqlite = self.is_sqlite();
        if sqlite && self.values.text("SQLite3DataFile").is_empty() {
            self.breach(
                &["SQLite3DataFile", "BackendDB"],
                "must be set when BackendDB is sqlite",
            );
        }
        if !sqlite {
            self.certificate_pair(BACKEND);
        }
    }

    fn raft(&mut self) {
        if !self.values.flag("RaftEnabled") {
            return;
        }
        // V7.
        self.required("RaftDataDir", "RaftEnabled");
        let port_default = raft_port_default(self.values);
        let bind_text = self.values.text("RaftBind").to_owned();
        if bind_text.is_empty() {
            // V8.
            self.breach(
                &["RaftBind", "RaftEnabled"],
                "must not be empty when RaftEnabled is true",
            );
            return;
        }
        if self.values.text("RaftAdvertise").is_empty() {
            self.set_text("RaftAdvertise", bind_text.clone());
        }
        if let Err(reason) = address::bind(&bind_text, port_default) {
            self.breach(
                &["RaftBind", "DefaultRaftPort"],
                format!("{} {reason}", excerpt(&bind_text)),
            );
        }
        self.raft_members(port_default);
        self.raft_times();

        if self.values.text("HTTPAdvertise").is_empty()
            && self.values.text("ListenAddress").is_empty()
        {
            self.breach(
                &["HTTPAdvertise", "ListenAddress"],
                "must be set when ListenAddress is empty: others learn from it where the leader answers",
            );
        }
    }

    /// V13 and the recommended rules: concrete, distinct addresses, this node's among them, an odd number.
    fn raft_members(&mut self, port_default: Option<u16>) {
        let text = self.values.text("RaftAdvertise").to_owned();
        let advertise = match address::bind(&text, port_default) {
            Ok(advertise) if !advertise.is_unspecified() => Some(advertise),
            Ok(_) => {
                let reason = "must be set to an address that others can dial when RaftBind is every interface";
                self.breach(&["RaftAdvertise", "RaftBind"], reason);
                None
            }
            // Taken from RaftBind, whose own breach is reported.
            Err(_) if !self.values.is_set("RaftAdvertise") => None,
            Err(reason) => {
                self.breach(
                    &["RaftAdvertise", "DefaultRaftPort"],
                    format!("{} {reason}", excerpt(&text)),
                );
                None
            }
        };
        let mut nodes: Vec<Address> = Vec::new();
        let entries = self.values.list("RaftNodes").to_vec();
        for (index, text) in entries.iter().enumerate() {
            let reason = match address::dial(text, port_default) {
                Ok(node) if node.is_unspecified() => {
                    "is every interface, which nobody can dial".to_owned()
                }
                Ok(node) if nodes.contains(&node) => {
                    "names a node that an earlier entry names".to_owned()
                }
                Ok(node) => {
                    nodes.push(node);
                    continue;
                }
                Err(reason) => reason,
            };
            let reason = format!("entry {} {} {reason}", index + 1, excerpt(text));
            self.breach(&["RaftNodes", "DefaultRaftPort"], reason);
        }
        if nodes.len() != entries.len() {
            return;
        }
        if nodes.len().is_multiple_of(2) && !nodes.is_empty() {
            let count = nodes.len();
            self.warn(
                "RaftNodes",
                format_args!(
                    "{count} members bear no more failures than {}: use an odd number",
                    count - 1
                ),
            );
        }
        // Names are compared by what answers behind them, when raft starts; addresses can be compared here.
        if let Some(advertise) = advertise
            && !nodes.is_empty()
            && !nodes.contains(&advertise)
            && advertise.ip().is_some()
            && nodes.iter().all(|node| node.ip().is_some())
        {
            let unset = ["RaftAdvertise", "RaftBind"]
                .iter()
                .all(|name| !self.values.is_set(name));
            let set = if unset {
                "which RaftBind is when it is not set: add \"RaftBind\": \"ADDRESS\" with this node's own entry of the list"
            } else {
                "as RaftAdvertise, or else RaftBind, has it: set that to this node's own entry of the list, or add an entry"
            };
            let reason = format!("does not contain this node's own address, {advertise}, {set}");
            self.breach(
                &["RaftNodes", "RaftAdvertise", "RaftBind", "DefaultRaftPort"],
                reason,
            );
        }
    }

    fn raft_times(&mut self) {
        let heartbeat = self.values.count("RaftHeartbeatMillis");
        let timeout_min = self
            .values
            .count("RaftElectionTimeoutMillis")
            .saturating_mul(3)
            / 5;
        if heartbeat >= timeout_min {
            self.breach(
                &["RaftHeartbeatMillis", "RaftElectionTimeoutMillis"],
                "must be less than 60 % of RaftElectionTimeoutMillis, or followers give up on a healthy leader",
            );
        } else if heartbeat.saturating_mul(3) > timeout_min {
            self.warn(
                "RaftHeartbeatMillis",
                "fewer than three heartbeats fit into the shortest election timeout",
            );
        }
    }

    fn topology(&mut self) {
        self.certificate_pair(TOPOLOGY);
    }

    fn discovery(&mut self) {
        // V11, where the bound is set: its default gives way to a long poll. V10 is the key's own rule.
        let [most, poll] = ["DeadInstancePollSecondsMax", "InstancePollSeconds"]
            .map(|name| self.values.count(name));
        if most < poll && !self.values.is_set("DeadInstancePollSecondsMax") {
            self.values
                .adjust("DeadInstancePollSecondsMax", Value::Uint(poll));
        } else if most < poll {
            self.breach(
                &["DeadInstancePollSecondsMax", "InstancePollSeconds"],
                format!("must be at least InstancePollSeconds ({poll}), and is {most}"),
            );
        }
    }

    fn recovery(&mut self) {
        self.witnesses();
        if self
            .values
            .text("PrimaryReturnPolicy")
            .eq_ignore_ascii_case("continue")
        {
            self.breach(
                &["PrimaryReturnPolicy"],
                "continue is not supported by this version: use resume, by which a primary that answers before the \
                 promotion is decided stays the primary",
            );
        }
        // V4.
        let lag = self.values.count("FailMasterPromotionOnLagMinutes");
        if lag > 0 && self.values.text("ReplicationLagQuery").is_empty() {
            self.breach(
                &["FailMasterPromotionOnLagMinutes", "ReplicationLagQuery"],
                "needs ReplicationLagQuery to be set",
            );
        }
    }

    /// A quorum that the configured voters cannot reach would forbid every failover.
    fn witnesses(&mut self) {
        let raft = self.values.flag("RaftEnabled");
        let voters = if raft {
            self.values.list("RaftNodes").len().max(1) as u64
        } else {
            1
        };
        let quorum = self.values.count("WitnessQuorum");
        if quorum > voters {
            let reason = format!(
                "is {quorum}, and there are {voters} daemons: no death could ever be confirmed"
            );
            self.breach(&["WitnessQuorum", "RaftNodes", "RaftEnabled"], reason);
        } else if quorum > 0 && quorum <= voters / 2 {
            self.warn("WitnessQuorum", format_args!("{quorum} of {voters} daemons are no majority: a part of a split network can judge alone"));
        }
    }

    fn integrations(&mut self) {
        for name in ["GraphiteAddr", "ConsulAddress"] {
            let text = self.values.text(name).to_owned();
            // The original hands a Consul address with a scheme to its client library, which takes it.
            let (_, address) = text.split_once("://").unwrap_or(("", &text));
            if !text.is_empty()
                && let Err(reason) = address::dial(address, Some(1))
            {
                self.breach(&[name], format!("{} {reason}", excerpt(&text)));
            }
        }
        let servers = self.values.text("ZkAddress").to_owned();
        for server in servers
            .split(',')
            .map(str::trim)
            .filter(|_| !servers.is_empty())
        {
            if let Err(reason) = address::dial(server, Some(2181)) {
                self.breach(&["ZkAddress"], format!("{} {reason}", excerpt(server)));
            }
        }
        if !self.values.text("GraphiteAddr").is_empty()
            && self.values.text("GraphitePath").is_empty()
        {
            self.warn("GraphiteAddr", "nothing is exported without GraphitePath");
        }
    }
}

/// The port of raft addresses without one.
pub(super) fn raft_port_default(values: &Values) -> Option<u16> {
    u16::try_from(values.int("DefaultRaftPort"))
        .ok()
        .filter(|port| *port != 0)
}

fn read_credentials(path: &str, read: ReadFile<'_>) -> Result<Given, String> {
    let bytes = read(Path::new(path)).map_err(|error| format!("cannot be read: {error}"))?;
    if bytes.len() > FILE_BYTES_MAX {
        return Err(format!("is larger than {FILE_BYTES_MAX} bytes"));
    }
    let text = String::from_utf8(bytes).map_err(|_| "is not UTF-8".to_owned())?;
    credentials::parse(&text).map_err(|error| format!("is no credentials file: {error}"))
}
