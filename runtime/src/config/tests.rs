//! What a person who writes configuration files sees: values, warnings, refusals.

use std::collections::BTreeMap;
use std::time::Duration;

use proptest::prelude::*;
use serde_json::{Value as Json, json};

use super::keys::{Effect, HISTORIC, KEYS, Kind};
use super::*;

fn no_env(_: &str) -> Option<String> {
    None
}

/// Loads texts named `1.json`, `2.json` and so on.
fn load(texts: &[&str]) -> Result<Loaded, ConfigErrors> {
    let names: Vec<String> = (1..=texts.len())
        .map(|number| format!("{number}.json"))
        .collect();
    let files: Vec<(&str, &[u8])> = names
        .iter()
        .zip(texts)
        .map(|(name, text)| (name.as_str(), text.as_bytes()))
        .collect();
    parse_files(&files, &no_env)
}

fn accepted(texts: &[&str]) -> Loaded {
    load(texts).unwrap_or_else(|errors| panic!("refused: {errors}"))
}

fn refused(texts: &[&str]) -> ConfigErrors {
    match load(texts) {
        Ok(_) => panic!("accepted: {texts:?}"),
        Err(errors) => errors,
    }
}

/// The texts are accepted, and the keys have these values.
fn check(texts: &[&str], expected: Json) {
    let dump = accepted(texts).settings.dump_json(Secrets::Show);
    for (name, value) in expected.as_object().expect("an object of expected values") {
        assert_eq!(dump.get(name), Some(value), "{name} after {texts:?}");
    }
}

/// The texts are refused with exactly these messages.
fn check_refused(texts: &[&str], expected: &[&str]) {
    let messages: Vec<String> = refused(texts)
        .problems
        .iter()
        .map(ToString::to_string)
        .collect();
    assert_eq!(messages, expected, "after {texts:?}");
}

/// The texts are accepted with exactly these warnings.
fn check_warned(texts: &[&str], expected: &[&str]) {
    assert_eq!(accepted(texts).warnings, expected, "after {texts:?}");
}

#[test]
fn without_a_file_the_defaults_hold() {
    let loaded = accepted(&[]);
    assert_eq!(loaded.warnings, Vec::<String>::new());
    assert_eq!(loaded.files, Vec::<PathBuf>::new());
    let settings = loaded.settings;
    assert_eq!(settings.raft, None);
    assert_eq!(
        settings.listen.address.expect("an address").to_string(),
        ":3000"
    );
    assert_eq!(settings.discovery.poll, Duration::from_secs(5));
    assert_eq!(settings.topology.tls, TopologyTls::Mixed);
    assert_eq!(settings.topology.tls_memory, Duration::from_secs(500));
    assert_eq!(
        settings.topology.max_allowed_packet,
        MaxAllowedPacket::DriverDefault
    );
    assert_eq!(settings.recovery.block, Duration::from_secs(3600));
    assert!(settings.recovery.detach_lost_replicas);
    assert_eq!(
        settings.recovery.lost_downtime,
        Duration::from_secs(365 * 86_400)
    );
    assert_eq!(
        settings.recovery.unapplied_relay_log,
        UnappliedRelayLog::Wait
    );
    assert_eq!(
        settings.failover.planned_stop_patience,
        Duration::from_secs(15)
    );
    assert_eq!(
        settings.failover.primary_return,
        PrimaryReturnPolicy::Resume
    );
    assert_eq!(settings.failover.witness_quorum, None);
    assert_eq!(
        settings.failover.deposed_primary_action,
        DeposedPrimaryAction::ReadOnlyAndKill
    );
    assert_eq!(settings.http_auth.power_users, ["*"]);
}

#[test]
fn a_dump_has_every_key_and_reads_back_as_itself() {
    let mut dump = Settings::default().dump_json(Secrets::Show);
    let names: Vec<&str> = KEYS.iter().map(|key| key.name).collect();
    let members = dump.as_object_mut().expect("a dump is an object");
    assert_eq!(members.len(), names.len());
    assert!(names.iter().all(|name| members.contains_key(*name)));
    let again = accepted(&[&dump.to_string()]);
    assert_eq!(
        Settings::changed(&Settings::default(), &again.settings),
        Vec::<&str>::new()
    );
}

#[test]
fn later_files_are_laid_over_earlier_ones_key_by_key() {
    check(
        &[
            r#"{"InstancePollSeconds": 7, "DiscoverySeeds": ["a", "b"], "ClusterNameToAlias": {"x": "1", "y": "2"}}"#,
            r#"{"DiscoverySeeds": ["c:1"], "ClusterNameToAlias": {"y": "3", "z": "4"}}"#,
        ],
        json!({
            "InstancePollSeconds": 7,
            "DiscoverySeeds": ["c:1"],
            "ClusterNameToAlias": {"x": "1", "y": "3", "z": "4"},
        }),
    );
}

#[test]
fn names_are_read_without_regard_to_case_and_the_last_of_two_counts() {
    check(
        &[r#"{"instancepollseconds": 9}"#],
        json!({"InstancePollSeconds": 9}),
    );
    check_warned(
        &["{\"InstancePollSeconds\": 8,\n \"INSTANCEPOLLSECONDS\": 9}"],
        &["1.json:2:2: InstancePollSeconds stands in this file before: the last one counts"],
    );
    check(
        &[r#"{"InstancePollSeconds": 8, "INSTANCEPOLLSECONDS": 9}"#],
        json!({"InstancePollSeconds": 9}),
    );
}

#[test]
fn null_says_nothing_for_a_scalar_and_empties_a_list() {
    check(
        &[
            r#"{"InstancePollSeconds": 7, "PowerAuthUsers": ["a"]}"#,
            r#"{"InstancePollSeconds": null, "PowerAuthUsers": null}"#,
        ],
        json!({"InstancePollSeconds": 7, "PowerAuthUsers": []}),
    );
}

#[test]
fn comments_are_skipped_and_unknown_names_are_warned_of() {
    check_warned(
        &["{\"#\": \"a comment\", \"#RaftNode\": 1,\n  \"RaftNode\": [],\n  \"Colour\": \"red\"}"],
        &[
            "1.json:2:3: unknown key \"RaftNode\": did you mean RaftNodes?",
            "1.json:3:3: unknown key \"Colour\": it is ignored",
        ],
    );
}

#[test]
fn each_historic_name_is_accepted_with_one_warning() {
    for name in HISTORIC {
        let text = format!("{{\"{name}\": [1, true]}}");
        check_warned(
            &[&text],
            &[&format!(
                "1.json:1:2: {name} is a name of old versions: it is ignored"
            )],
        );
    }
}

#[test]
fn each_older_name_is_accepted_with_one_warning() {
    check_warned(
        &[r#"{"SlaveLagQuery": "select 1"}"#],
        &["1.json:1:2: SlaveLagQuery: is an older name: use ReplicationLagQuery"],
    );
    for key in KEYS {
        if let Effect::SynonymOf(name) = key.effect {
            let text = json!({key.name: values::Value::of(key.preset).to_json()}).to_string();
            let warnings = accepted(&[&text]).warnings;
            let about: Vec<&String> = warnings
                .iter()
                .filter(|line| line.contains("is an older name"))
                .collect();
            let expected = format!("1.json:1:2: {}: is an older name: use {name}", key.name);
            assert_eq!(about, [&expected]);
            let idle = keys::find(name).expect("a key").effect == Effect::NotYet;
            assert_eq!(warnings.len(), 1 + usize::from(idle), "{warnings:?}");
        }
    }
}

#[test]
fn only_the_first_json_value_of_a_file_counts() {
    check_warned(
        &["{\"Debug\": true}\n\n {\"Debug\": false"],
        &["1.json:3:2: only the first JSON value of a file counts: what follows is ignored"],
    );
    check(
        &["{\"Debug\": true} {\"Debug\": false}"],
        json!({"Debug": true}),
    );
}

#[test]
fn keys_without_effect_are_reported_in_one_line() {
    const LINE: &str = "these keys are set and have no effect in this program so far: ";
    let text =
        r#"{"OAuthScopes": [], "Debug": true, "OAuthClientId": "x", "SeedAcceptableBytesDiff": 1}"#;
    let expected = format!(
        "{LINE}OAuthClientId, SeedAcceptableBytesDiff; and, set to their defaults: OAuthScopes"
    );
    check_warned(&[text], &[&expected]);
    check_warned(
        &[r#"{"OAuthScopes": []}"#],
        &[&format!("{LINE}OAuthScopes")],
    );
}

#[test]
fn protection_that_is_asked_for_and_not_given_is_named_apart() {
    // The key is taken from the table, so that the test outlives the day on which this one is obeyed.
    let guard = KEYS
        .iter()
        .find(|key| key.guards && key.effect == Effect::NotYet && key.kind == Kind::List);
    if let Some(key) = guard {
        let loaded = accepted(&[&json!({key.name: ["x"]}).to_string()]);
        assert_eq!(loaded.settings.unguarded(), [key.name]);
        assert!(
            loaded
                .warnings
                .iter()
                .any(|line| line.starts_with(&format!("NOT PROTECTED: {}", key.name)))
        );
    }
    assert_eq!(accepted(&[]).settings.unguarded(), Vec::<&str>::new());
}

#[test]
fn text_that_is_no_json_is_refused_with_its_place() {
    check_refused(&[""], &["1.json: not valid JSON: the file is empty"]);
    check_refused(
        &["{\n  \"Debug\": tru\n}"],
        &["1.json:2:15: not valid JSON: expected ident"],
    );
    check_refused(
        &["{\"Debug\": true,}"],
        &["1.json:1:16: not valid JSON: trailing comma"],
    );
    check_refused(
        &[" []"],
        &["1.json:1:2: not valid JSON: the file must hold an object, that is begin with {"],
    );
    check_refused(
        &["null"],
        &["1.json:1:1: not valid JSON: the file must hold an object, that is begin with {"],
    );
    let deep = format!("{{\"x\": {}", "[".repeat(100_000));
    check_refused(
        &[&deep],
        &["1.json:1:133: not valid JSON: recursion limit exceeded"],
    );
    let large = " ".repeat(file::FILE_BYTES_MAX + 1);
    check_refused(
        &[&large],
        &["1.json: cannot be read: larger than 4194304 bytes"],
    );
}

#[test]
fn bytes_that_are_no_text_are_replaced() {
    let loaded = parse_files(
        &[("f", b"\xef\xbb\xbf{\"WebMessage\": \"a\xffb\"}")],
        &no_env,
    )
    .expect("accepted");
    assert_eq!(loaded.settings.listen.web_message, "a\u{fffd}b");
    assert_eq!(
        loaded.warnings.first().map(String::as_str),
        Some("f:1:18: bytes that are not UTF-8 are replaced by the replacement character")
    );
}

#[test]
fn every_kind_refuses_every_other_type() {
    let samples = [
        json!(true),
        json!(1),
        json!(-1),
        json!(1.5),
        json!(1e300),
        json!(18_446_744_073_709_551_615_u64),
        json!("text"),
        json!(["text"]),
        json!([1]),
        json!({"a": "b"}),
        json!({"a": 1}),
    ];
    let fitting = |kind: Kind| -> &'static [usize] {
        match kind {
            Kind::Bool => &[0],
            Kind::Int | Kind::Int64 | Kind::Int32 => &[1, 2],
            Kind::Uint => &[1, 5],
            Kind::Float32 => &[1, 2, 3, 5],
            Kind::Text => &[6],
            Kind::List => &[7],
            Kind::Map => &[9],
        }
    };
    for key in KEYS {
        for (index, sample) in samples.iter().enumerate() {
            if fitting(key.kind).contains(&index) {
                continue;
            }
            let problem = values::decode(key, sample).expect_err("another type");
            assert!(
                matches!(problem, Cause::WrongType { .. } | Cause::Impossible(_)),
                "{}: {sample}",
                key.name
            );
            let errors = refused(&[&json!({key.name: sample}).to_string()]);
            assert!(
                errors
                    .problems
                    .iter()
                    .any(|problem| problem.key == Some(key.name)),
                "{}: {errors}",
                key.name
            );
        }
    }
}

#[test]
fn a_wrong_type_is_named_with_file_key_and_reason() {
    check_refused(
        &[
            "{}",
            "{\n \"InstancePollSeconds\": \"5\",\n \"Debug\": \"yes\", \"UnseenInstanceForgetHours\": -1,\n \"RaftNodes\": [1]}",
        ],
        &[
            "2.json:2:2: InstancePollSeconds: must be a whole number that is not negative, and is a text in quotes",
            "2.json:3:2: Debug: must be true or false, and is a text in quotes",
            "2.json:3:18: UnseenInstanceForgetHours: must be a whole number that is not negative, and is a negative number",
            "2.json:4:2: RaftNodes: must be a list of texts, and is one with a number in it",
        ],
    );
}

#[test]
fn an_impossible_value_is_named_with_its_reason() {
    let cases = [
        (
            json!({"DefaultInstancePort": 70000}),
            "must be at most 65535, and is 70000",
        ),
        (
            json!({"InstancePollSeconds": 0}),
            "must be at least 1, and is 0",
        ),
        (
            json!({"RecoveryPeriodBlockSeconds": -1}),
            "must be at least 0, and is -1",
        ),
        (
            json!({"MySQLTopologyMaxAllowedPacket": -2}),
            "must be at least -1, and is -2",
        ),
        (
            json!({"DeadInstancePollSecondsMultiplyFactor": 0.5}),
            "must be at least 1, and is 0.5",
        ),
        (
            json!({"RecoveryIgnoreHostnameFilters": ["a", "*"]}),
            "entry 2 \"*\" is no regular expression: repetition operator missing expression",
        ),
        (
            json!({"RecoverMasterClusterFilters": ["*", "alias=a(", "alias~=("]}),
            "entry 3 \"(\" is no regular expression: unclosed group",
        ),
        (
            json!({"ClusterNameToAlias": {"[": "x"}}),
            "entry 1 \"[\" is no regular expression: unclosed character class",
        ),
        (
            json!({"DataCenterPattern": "^[a-z]+"}),
            "\"^[a-z]+\" has no group in parentheses: the group is what is taken from the host name",
        ),
        (
            json!({"PseudoGTIDPattern": "("}),
            "\"(\" is no regular expression: unclosed group",
        ),
        (
            json!({"HostnameResolveMethod": "dns"}),
            "\"dns\" is none of none, default, cname, ip",
        ),
        (
            json!({"BackendDB": "postgres"}),
            "\"postgres\" is neither mysql nor sqlite",
        ),
        (
            json!({"ListenAddress": "3000"}),
            "\"3000\" has no port: write host:port, or :port for every interface",
        ),
        (
            json!({"DiscoverySeeds": ["db1:x"]}),
            "entry 1 \"db1:x\" has a port that is no number",
        ),
        (
            json!({"HTTPAdvertise": "http://db1:80/"}),
            "\"http://db1:80/\" has a path: write scheme://host:port and nothing behind it",
        ),
        (
            json!({"StatusEndpoint": "api"}),
            "\"api\" must begin with a slash",
        ),
        (
            json!({"PrimaryReturnPolicy": "maybe"}),
            "\"maybe\" is none of resume, continue",
        ),
        (
            json!({"GraphiteAddr": "a b", "GraphitePath": "x"}),
            "\"a b\" has a character that no host name has",
        ),
        (
            json!({"ZkAddress": "a,b:c"}),
            "\"b:c\" has a port that is no number",
        ),
    ];
    for (file, reason) in cases {
        let errors = refused(&[&file.to_string()]);
        let reasons: Vec<String> = errors
            .problems
            .iter()
            .map(|problem| problem.cause.to_string())
            .collect();
        assert_eq!(reasons, [reason], "{file}");
        let named = errors
            .problems
            .iter()
            .all(|problem| problem.key.is_some() && problem.place.is_some());
        assert!(named, "{file}");
    }
}

#[test]
fn keys_that_do_not_go_together_are_refused() {
    let cases = [
        (
            json!({"ReplicationLagQuery": "a", "SlaveLagQuery": "b"}),
            "ReplicationLagQuery",
        ),
        (
            json!({
                "FailMasterPromotionIfSQLThreadNotUpToDate": true,
                "DelayMasterPromotionIfSQLThreadNotUpToDate": true,
            }),
            "FailMasterPromotionIfSQLThreadNotUpToDate",
        ),
        (
            json!({"FailMasterPromotionOnLagMinutes": 1}),
            "FailMasterPromotionOnLagMinutes",
        ),
        (
            json!({"PostponeReplicaRecoveryOnLagMinutes": 1, "PostponeSlaveRecoveryOnLagMinutes": 2}),
            "PostponeReplicaRecoveryOnLagMinutes",
        ),
        (json!({"BackendDB": "sqlite3"}), "SQLite3DataFile"),
        (json!({"RaftEnabled": true}), "RaftDataDir"),
        (
            json!({"RaftEnabled": true, "RaftDataDir": "d", "RaftBind": ""}),
            "RaftBind",
        ),
        (
            json!({"DeadInstancePollSecondsMax": 4}),
            "DeadInstancePollSecondsMax",
        ),
        (json!({"AuthenticationMethod": "Multi"}), "HTTPAuthUser"),
        (json!({"WitnessQuorum": 2}), "WitnessQuorum"),
        (json!({"MasterFailoverDetachSlaveMasterHost": true}), ""),
        (json!({"ListenAddress": ""}), "ListenAddress"),
        (json!({"StatusEndpoint": "/"}), "StatusEndpoint"),
        (
            json!({"StatusEndpoint": "/api/clusters/"}),
            "StatusEndpoint",
        ),
        (
            json!({"StatusEndpoint": "/orc/api/health", "URLPrefix": "orc"}),
            "StatusEndpoint",
        ),
        (json!({"StatusEndpoint": "/health?full"}), "StatusEndpoint"),
        (
            json!({"UseSSL": true, "SSLCertFile": "c"}),
            "SSLPrivateKeyFile",
        ),
        (
            json!({"MySQLTopologyUseMutualTLS": true, "MySQLTopologySSLCertFile": "c"}),
            "MySQLTopologySSLPrivateKeyFile",
        ),
        (json!({"RaftHeartbeatMillis": 150}), ""),
        (
            json!({"RaftEnabled": true, "RaftDataDir": "d", "RaftHeartbeatMillis": 150}),
            "RaftHeartbeatMillis",
        ),
        (
            json!({"RaftEnabled": true, "RaftDataDir": "d", "RaftBind": "0.0.0.0"}),
            "RaftAdvertise",
        ),
        (
            json!({"RaftEnabled": true, "RaftDataDir": "d", "RaftBind": "<node>"}),
            "RaftBind",
        ),
        (
            json!({"RaftEnabled": true, "RaftDataDir": "d", "RaftBind": "n1", "DefaultRaftPort": 0}),
            "RaftBind",
        ),
        (
            json!({"RaftEnabled": true, "RaftDataDir": "d", "RaftNodes": ["127.0.0.1", "127.0.0.1:10008", "x"]}),
            "RaftNodes",
        ),
        (
            json!({"RaftEnabled": true, "RaftDataDir": "d", "RaftNodes": ["10.0.0.1", "10.0.0.2", "10.0.0.3"]}),
            "RaftNodes",
        ),
    ];
    for (file, key) in cases {
        let problems = load(&[&file.to_string()])
            .err()
            .map(|errors| errors.problems)
            .unwrap_or_default();
        let keys: Vec<&str> = problems.iter().filter_map(|problem| problem.key).collect();
        assert_eq!(
            keys,
            if key.is_empty() { vec![] } else { vec![key] },
            "{file}"
        );
        assert!(
            problems
                .iter()
                .all(|problem| matches!(problem.cause, Cause::Conflict(_))
                    && problem.place.is_some())
        );
    }
}

#[test]
fn the_status_endpoint_is_a_route_of_its_own_or_the_default() {
    for (file, endpoint) in [
        (json!({"StatusEndpoint": "/api/status/"}), "/api/status"),
        (
            json!({"StatusEndpoint": "/orc/api/status", "URLPrefix": "/orc/"}),
            "/api/status",
        ),
        (json!({"StatusEndpoint": "/healthz"}), "/healthz"),
        // The route stands below the prefix, and leaves this path free.
        (
            json!({"StatusEndpoint": "/api/health", "URLPrefix": "orc"}),
            "/api/health",
        ),
    ] {
        let settings = accepted(&[&file.to_string()]).settings;
        assert_eq!(settings.listen.status_endpoint, endpoint, "{file}");
    }
    check_refused(
        &[r#"{"StatusEndpoint": "/api/health"}"#],
        &[
            "1.json:1:2: StatusEndpoint: \"/api/health\" is the path of another route: choose one that is free, such as /healthz, \
             or leave it out",
        ],
    );
}

#[test]
fn whoever_has_certificates_is_closed_to_all_without() {
    let raft = |more: &str| {
        let text = format!(
            r#"{{"RaftEnabled": true, "RaftDataDir": "/d", "RaftAdvertise": "a", "RaftNodes": ["a"], "BackendDB": "sqlite",
                "SQLite3DataFile": "/d/o.db"{more}}}"#
        );
        accepted(&[&text])
            .settings
            .raft
            .expect("raft")
            .tls
            .refuses_plain
    };
    let files = r#", "RaftTLSCertFile": "/c", "RaftTLSKeyFile": "/k", "RaftTLSCAFile": "/a""#;
    assert!(!raft(""));
    assert!(raft(files));
    let moving = format!(r#"{files}, "RaftTLSRefusePlainText": false"#);
    assert!(!raft(&moving));
}

#[test]
fn all_problems_of_all_files_come_together_and_none_follows_from_another() {
    check_refused(
        &[
            r#"{"Debug": 1, "RaftEnabled": true, "RaftDataDir": 7}"#,
            r#"{"BackendDB": "sqlite", "FailMasterPromotionOnLagMinutes": 3, "DataCenterPattern": "x"}"#,
        ],
        &[
            "1.json:1:2: Debug: must be true or false, and is a number",
            "1.json:1:35: RaftDataDir: must be a text in quotes, and is a number",
            "2.json:1:63: DataCenterPattern: \"x\" has no group in parentheses: the group is what is taken from the host name",
            "2.json:1:2: SQLite3DataFile: must be set when BackendDB is sqlite",
            "2.json:1:25: FailMasterPromotionOnLagMinutes: needs ReplicationLagQuery to be set",
        ],
    );
}

#[test]
fn problems_without_end_are_counted() {
    let filters: Vec<String> = (0..300).map(|_| "\"debug\": 1".to_owned()).collect();
    let errors = refused(&[&format!("{{{}}}", filters.join(","))]);
    assert_eq!(errors.problems.len(), error::MESSAGES_MAX + 1);
    assert_eq!(
        errors.problems.last().map(|problem| problem.cause.clone()),
        Some(Cause::More(100))
    );
}

#[test]
fn a_later_file_repairs_an_earlier_one() {
    check(
        &[
            r#"{"BackendDB": "sqlite", "RaftEnabled": true}"#,
            r#"{"SQLite3DataFile": "f", "RaftDataDir": "d", "RaftBind": "10.0.0.1"}"#,
        ],
        json!({"RaftAdvertise": "10.0.0.1"}),
    );
}

#[test]
fn raft_addresses_get_the_default_port() {
    let text = r#"{"RaftEnabled": true, "RaftDataDir": "d", "RaftBind": "0.0.0.0", "RaftAdvertise": "10.0.0.2",
        "DefaultRaftPort": 77, "RaftNodes": ["10.0.0.1:1", "10.0.0.2", "::1"]}"#;
    let raft = accepted(&[text]).settings.raft.expect("raft is enabled");
    assert_eq!(raft.bind.to_string(), "0.0.0.0:77");
    assert_eq!(raft.advertise.to_string(), "10.0.0.2:77");
    let nodes: Vec<String> = raft.nodes.iter().map(ToString::to_string).collect();
    assert_eq!(nodes, ["10.0.0.1:1", "10.0.0.2:77", "[::1]:77"]);
    assert_eq!(raft.heartbeat, Duration::from_millis(50));
    assert_eq!(raft.election_timeout, Duration::from_millis(250));
}

#[test]
fn an_even_number_of_members_is_warned_of_and_a_disabled_raft_is_not_judged() {
    check_warned(
        &[r#"{"RaftEnabled": true, "RaftDataDir": "d", "RaftNodes": ["127.0.0.1", "n2"]}"#],
        &["1.json:1:43: RaftNodes: 2 members bear no more failures than 1: use an odd number"],
    );
    check_warned(
        &[
            r#"{"RaftEnabled": false, "RaftBind": "<ip of this node>", "RaftNodes": ["<a>", "<a>"]}"#,
        ],
        &[],
    );
}

#[test]
fn the_newer_name_of_a_flag_counts_when_it_is_set() {
    const NEW: &str = "DetachLostReplicasAfterMasterFailover";
    const OLD: &str = "DetachLostSlavesAfterMasterFailover";
    check(&[&json!({NEW: false}).to_string()], json!({NEW: false}));
    check(&[&json!({OLD: false}).to_string()], json!({NEW: false}));
    check(&[&json!({OLD: true}).to_string()], json!({NEW: true}));
    check(
        &[&json!({NEW: false, OLD: true}).to_string()],
        json!({NEW: false}),
    );
    check(
        &[&json!({NEW: true, OLD: false}).to_string()],
        json!({NEW: true}),
    );
    check(&["{}"], json!({NEW: true}));
    check(
        &[r#"{"MasterFailoverDetachSlaveMasterHost": true}"#],
        json!({"MasterFailoverDetachReplicaMasterHost": true}),
    );
    check(
        &["{}"],
        json!({"MasterFailoverDetachReplicaMasterHost": false}),
    );
}

#[test]
fn the_block_period_is_taken_from_what_is_set() {
    let cases = [
        (json!({}), 3600),
        (json!({"RecoveryPeriodBlockMinutes": 2}), 120),
        (json!({"RecoveryPeriodBlockSeconds": 30}), 30),
        (json!({"RecoveryPeriodBlockSeconds": 0}), 3600),
        (
            json!({"RecoveryPeriodBlockSeconds": 0, "RecoveryPeriodBlockMinutes": 5}),
            300,
        ),
        (
            json!({"RecoveryPeriodBlockSeconds": 30, "RecoveryPeriodBlockMinutes": 5}),
            30,
        ),
        (
            json!({"RecoveryPeriodBlockSeconds": 3600, "RecoveryPeriodBlockMinutes": 5}),
            3600,
        ),
        (json!({"RecoveryPeriodBlockMinutes": 0}), 0),
    ];
    for (file, seconds) in cases {
        let settings = accepted(&[&file.to_string()]).settings;
        assert_eq!(
            settings.recovery.block,
            Duration::from_secs(seconds),
            "{file}"
        );
    }
}

#[test]
fn older_names_are_folded() {
    check(
        &[r#"{"SlaveLagQuery": "q"}"#],
        json!({"ReplicationLagQuery": "q", "SlaveLagQuery": ""}),
    );
    check(
        &[r#"{"SlaveLagQuery": "q", "ReplicationLagQuery": "q"}"#],
        json!({"ReplicationLagQuery": "q"}),
    );
    check(
        &[r#"{"PostponeSlaveRecoveryOnLagMinutes": 4}"#],
        json!({"PostponeReplicaRecoveryOnLagMinutes": 4}),
    );
}

#[test]
fn lost_servers_are_in_downtime_as_documented() {
    let settings = accepted(&[r#"{"MasterFailoverLostInstancesDowntimeMinutes": 10}"#]).settings;
    assert_eq!(settings.recovery.lost_downtime, Duration::from_secs(600));
}

#[test]
fn texts_are_normalised() {
    check(&[r#"{"URLPrefix": "x/y/"}"#], json!({"URLPrefix": "/x/y"}));
    check(&[r#"{"URLPrefix": "//x"}"#], json!({"URLPrefix": "/x"}));
    check(&[r#"{"URLPrefix": "/"}"#], json!({"URLPrefix": ""}));
    check(
        &[r#"{"KVClusterMasterPrefix": "a//"}"#],
        json!({"KVClusterMasterPrefix": "a/"}),
    );
    check(
        &[r#"{"KVClusterMasterPrefix": "/"}"#],
        json!({"KVClusterMasterPrefix": "/"}),
    );
    check(
        &[r#"{"ConsulMaxKVsPerTransaction": 1}"#],
        json!({"ConsulMaxKVsPerTransaction": 5}),
    );
    check(
        &[r#"{"ConsulMaxKVsPerTransaction": 100}"#],
        json!({"ConsulMaxKVsPerTransaction": 64}),
    );
    check(
        &[r#"{"ReasonableReplicationLagSeconds": 7}"#],
        json!({"ReasonableLockedSemiSyncMasterSeconds": 7}),
    );
    check(
        &[r#"{"AutoPseudoGTID": true, "PseudoGTIDPattern": "("}"#],
        json!({"PseudoGTIDPatternIsFixedSubstring": true, "PseudoGTIDMonotonicHint": "asc:"}),
    );
    check(
        &[r#"{"PseudoGTIDPattern": "(", "PseudoGTIDPatternIsFixedSubstring": true}"#],
        json!({"PseudoGTIDPattern": "("}),
    );
    check(
        &[r#"{"InstancePollSeconds": 600}"#],
        json!({"DeadInstancePollSecondsMax": 600}),
    );
}

#[test]
fn spans_and_deadlines_are_bounded() {
    let text = format!(
        r#"{{"UnseenInstanceForgetHours": {0}, "InstancePollSeconds": {0}, "MySQLTopologyReadTimeoutSeconds": 0,
        "HaltDeadlineMilliseconds": {0}, "RecoveryPeriodBlockMinutes": {1}}}"#,
        u64::MAX,
        i64::MAX,
    );
    let settings = accepted(&[&text]).settings;
    let longest = Duration::from_secs(SPAN_SECONDS_MAX);
    assert_eq!(settings.discovery.forget_unseen, longest);
    assert_eq!(settings.discovery.poll, longest);
    assert_eq!(settings.topology.tls_memory, longest);
    assert_eq!(settings.failover.halt_deadline, longest);
    assert_eq!(settings.recovery.block, longest);
    assert_eq!(
        settings.topology.read_timeout,
        Duration::from_secs(TIMEOUT_SECONDS_MAX)
    );
}

#[test]
fn the_profile_sets_defaults_and_yields_to_the_file() {
    let original =
        accepted(&[r#"{"SafetyProfile": "original", "PlannedStopPatienceSeconds": 3}"#]).settings;
    assert_eq!(original.failover.profile, SafetyProfile::Original);
    assert_eq!(
        original.failover.planned_stop_patience,
        Duration::from_secs(3)
    );
    assert_eq!(
        original.failover.primary_return,
        PrimaryReturnPolicy::Resume
    );
    assert_eq!(
        original.failover.deposed_primary_action,
        DeposedPrimaryAction::Report
    );
    assert!(!original.failover.reopen_restarted_primary);
    assert_eq!(
        original.recovery.unapplied_relay_log,
        UnappliedRelayLog::Promote
    );
}

#[test]
fn what_is_said_of_unapplied_relay_logs_is_obeyed() {
    const DELAY: &str = "DelayMasterPromotionIfSQLThreadNotUpToDate";
    const FAIL: &str = "FailMasterPromotionIfSQLThreadNotUpToDate";
    const PROFILE: &str = "SafetyProfile";
    let cases = [
        (json!({PROFILE: "original"}), UnappliedRelayLog::Promote, 1),
        (
            json!({PROFILE: "original", DELAY: false}),
            UnappliedRelayLog::Promote,
            1,
        ),
        (
            json!({PROFILE: "original", DELAY: true}),
            UnappliedRelayLog::Wait,
            0,
        ),
        (json!({}), UnappliedRelayLog::Wait, 0),
        (json!({DELAY: true}), UnappliedRelayLog::Wait, 0),
        (json!({DELAY: false}), UnappliedRelayLog::Promote, 1),
        (json!({FAIL: true}), UnappliedRelayLog::Fail, 0),
        (
            json!({FAIL: true, DELAY: false}),
            UnappliedRelayLog::Fail,
            0,
        ),
        (json!({FAIL: false}), UnappliedRelayLog::Wait, 0),
    ];
    for (file, expected, warnings) in cases {
        let loaded = accepted(&[&file.to_string()]);
        assert_eq!(
            loaded.settings.recovery.unapplied_relay_log, expected,
            "{file}"
        );
        assert_eq!(loaded.warnings.len(), warnings, "{file}");
    }
}

/// No plan recovers an intermediate primary, and a filter for that must not look obeyed.
#[test]
fn a_filter_that_no_recovery_looks_at_is_reported() {
    let loaded = accepted(&[r#"{"RecoverIntermediateMasterClusterFilters": ["*"]}"#]);
    let said = loaded.warnings.iter().map(ToString::to_string);
    let said: Vec<String> = said
        .filter(|line| line.contains("RecoverIntermediateMasterClusterFilters"))
        .collect();
    assert_eq!(said.len(), 1, "{:?}", loaded.warnings);
}

#[test]
fn unknown_names_without_end_are_counted() {
    let members: Vec<String> = (0..20_000)
        .map(|number| format!("\"RaftNode{number}\": 1"))
        .collect();
    let warnings = accepted(&[&format!("{{{}}}", members.join(","))]).warnings;
    assert_eq!(warnings.len(), error::MESSAGES_MAX + 1);
    assert_eq!(
        warnings.last().map(String::as_str),
        Some("and 19800 more warnings")
    );
}

#[test]
fn the_place_of_a_value_is_known() {
    let settings = accepted(&["{\"Debug\": true}", "{\n\"debug\": false}"]).settings;
    assert_eq!(
        settings.place("DEBUG").map(ToString::to_string),
        Some("2.json:2:1".to_owned())
    );
    assert_eq!(settings.place("ReadOnly"), None);
    assert_eq!(settings.place("nothing"), None);
}

#[test]
fn a_quorum_below_a_majority_is_warned_of() {
    let file = |quorum: u64| {
        json!({
            "WitnessQuorum": quorum, "RaftEnabled": true, "RaftDataDir": "d",
            "RaftNodes": ["127.0.0.1", "n2", "n3"],
        })
        .to_string()
    };
    assert_eq!(accepted(&[&file(1)]).warnings.len(), 1);
    assert_eq!(accepted(&[&file(2)]).warnings.len(), 0);
    assert_eq!(accepted(&[&file(3)]).warnings.len(), 0);
}

/// A file in the manner of those that people run, with what they usually carry.
#[test]
fn an_ordinary_file_is_accepted() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/config/testdata/ordinary.conf.json");
    let loaded = Settings::load(Some(&path), &no_env).expect("accepted");
    assert_eq!(loaded.files, [path]);
    let raft = loaded.settings.raft.as_ref().expect("raft is enabled");
    assert_eq!(raft.advertise, raft.nodes[0]);
    assert_eq!(loaded.settings.unguarded(), Vec::<&str>::new());
    let strange: Vec<&String> = loaded
        .warnings
        .iter()
        .filter(|line| !line.contains("no effect") && !line.contains("old versions"))
        .collect();
    assert_eq!(strange, Vec::<&String>::new());
}

#[test]
#[cfg(target_os = "linux")]
fn a_file_without_end_is_refused() {
    let errors = Settings::load(Some(Path::new("/dev/zero")), &no_env).expect_err("refused");
    assert_eq!(
        errors.to_string(),
        "/dev/zero: cannot be read: larger than 4194304 bytes"
    );
}

/// Files and variables that exist only here.
struct World {
    files: BTreeMap<&'static str, &'static str>,
}

impl World {
    fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        let text = path
            .to_str()
            .and_then(|path| self.files.get(path))
            .ok_or(io::ErrorKind::NotFound)?;
        if *text == "forbidden" {
            return Err(io::ErrorKind::PermissionDenied.into());
        }
        Ok(text.as_bytes().to_vec())
    }

    fn load(&self, explicit: Option<&str>) -> Result<Loaded, ConfigErrors> {
        let env = |name: &str| name.strip_prefix("SET_").map(str::to_lowercase);
        Settings::load_with(explicit.map(Path::new), &|path| self.read(path), &env)
    }
}

#[test]
fn implicit_files_are_found_in_their_order() {
    let world = World {
        files: BTreeMap::from([
            (
                "/etc/orchestrator.conf.json",
                r#"{"WebMessage": "etc", "InstancePollSeconds": 7}"#,
            ),
            ("orchestrator.conf.json", r#"{"WebMessage": "here"}"#),
            ("other.json", r#"{"WebMessage": "other"}"#),
        ]),
    };
    let loaded = world.load(None).expect("accepted");
    assert_eq!(
        loaded.files,
        [
            PathBuf::from("/etc/orchestrator.conf.json"),
            PathBuf::from("orchestrator.conf.json")
        ]
    );
    assert_eq!(loaded.settings.listen.web_message, "here");
    assert_eq!(loaded.settings.discovery.poll, Duration::from_secs(7));

    let loaded = world.load(Some("other.json")).expect("accepted");
    assert_eq!(loaded.settings.listen.web_message, "other");
    assert_eq!(loaded.settings.discovery.poll, Duration::from_secs(5));

    let errors = world.load(Some("none.json")).expect_err("no such file");
    assert_eq!(
        errors.to_string(),
        "none.json: cannot be read: entity not found"
    );
}

#[test]
fn an_implicit_file_that_cannot_be_read_is_refused() {
    let world = World {
        files: BTreeMap::from([("conf/orchestrator.conf.json", "forbidden")]),
    };
    let errors = world.load(None).expect_err("forbidden");
    assert_eq!(
        errors.to_string(),
        "conf/orchestrator.conf.json: cannot be read: permission denied"
    );
}

#[test]
fn credentials_come_from_files_and_variables() {
    let world = World {
        files: BTreeMap::from([
            (
                "/etc/orchestrator.conf.json",
                r#"{"MySQLTopologyUser": "no", "MySQLTopologyPassword": "no",
                "MySQLTopologyCredentialsConfigFile": "topology.cnf", "MySQLOrchestratorUser": "${SET_KEPT}",
                "MySQLOrchestratorPassword": "${SET_BACKEND}", "HTTPAuthPassword": "${SET_HTTP}"}"#,
            ),
            (
                "topology.cnf",
                "[client]\nuser=${SET_USER}\npassword=\"${SET_PASSWORD}\"\n",
            ),
        ]),
    };
    let dump = world
        .load(None)
        .expect("accepted")
        .settings
        .dump_json(Secrets::Show);
    let expected = [
        ("MySQLTopologyUser", "user"),
        ("MySQLTopologyPassword", "password"),
        ("MySQLOrchestratorUser", "${SET_KEPT}"),
        ("MySQLOrchestratorPassword", "backend"),
        ("HTTPAuthPassword", "${SET_HTTP}"),
    ];
    for (name, value) in expected {
        assert_eq!(dump[name], value, "{name}");
    }
}

#[test]
fn a_variable_that_is_not_set_leaves_the_password_empty() {
    let loaded = accepted(&[r#"{"MySQLTopologyPassword": "${NOPE}"}"#]);
    assert_eq!(loaded.settings.topology.credentials.password.expose(), "");
    assert_eq!(
        loaded.warnings,
        [
            "1.json:1:2: MySQLTopologyPassword: environment variable \"NOPE\" is not set: the value is empty, as in the original, \
             so that no server can be read whose account of MySQLTopologyUser has a password; set the variable for this daemon \
             (with our systemd unit: in /etc/orchestrator.env), and start it again"
        ]
    );
    // Of a backend that is asked, and of one that is not.
    for (backend, wanted) in [
        (
            "mysql",
            "the value is empty, as in the original, so that the backend's server lets MySQLOrchestratorUser in only if its \
             account has no password, and else this daemon does not start; set",
        ),
        ("sqlite", "the value is empty, as in the original; set"),
    ] {
        let file = json!({
            "BackendDB": backend,
            "SQLite3DataFile": "f",
            "MySQLOrchestratorPassword": "${NOPE}",
        });
        let warnings = accepted(&[&file.to_string()]).warnings;
        assert!(warnings[0].contains(wanted), "{warnings:?}");
    }
}

#[test]
fn a_list_that_does_not_have_this_node_says_what_to_set() {
    let nodes = r#""RaftEnabled": true, "RaftDataDir": "d", "RaftNodes": ["10.0.0.1", "10.0.0.2", "10.0.0.3"]"#;
    check_refused(
        &[&format!("{{{nodes}}}")],
        &[
            "1.json:1:43: RaftNodes: does not contain this node's own address, 127.0.0.1:10008, which RaftBind is when it is not \
             set: add \"RaftBind\": \"ADDRESS\" with this node's own entry of the list",
        ],
    );
    check_refused(
        &[&format!(r#"{{"RaftBind": "10.0.0.9", {nodes}}}"#)],
        &[
            "1.json:1:67: RaftNodes: does not contain this node's own address, 10.0.0.9:10008, as RaftAdvertise, or else RaftBind, \
             has it: set that to this node's own entry of the list, or add an entry",
        ],
    );
}

/// What of a file that is accepted deserves a line at the start.
fn remarks(file: &Json) -> Vec<(bool, String)> {
    let remarks = accepted(&[&file.to_string()]).settings.remarks();
    let of = |remark: Remark| (remark.is_warning, remark.text);
    remarks.into_iter().map(of).collect()
}

#[test]
fn what_a_daemon_will_not_do_is_remarked() {
    let whole = json!({
        "MySQLTopologyUser": "orchestrator",
        "RecoverMasterClusterFilters": ["*"],
        "RaftEnabled": true,
        "RaftDataDir": "d",
        "RaftBind": "n1",
        "RaftNodes": ["n1", "n2", "n3"],
    });
    assert_eq!(remarks(&whole), []);
    let with = |name: &str, value: Json| {
        let mut file = whole.clone();
        file[name] = value;
        remarks(&file)
    };
    let without = |name: &str| with(name, Json::Null);
    for (remarks, is_warning, wanted) in [
        (
            without("MySQLTopologyUser"),
            true,
            [
                "no server lets this daemon in",
                "\"MySQLTopologyUser\": \"orchestrator\"",
            ],
        ),
        (
            without("RecoverMasterClusterFilters"),
            false,
            [
                "no dead primary is replaced",
                "\"RecoverMasterClusterFilters\": [\"*\"]",
            ],
        ),
        (
            with("ObserveOnly", json!(true)),
            false,
            ["no recovery is begun", "ObserveOnly"],
        ),
        (
            without("RaftBind"),
            true,
            ["127.0.0.1:10008", "add \"RaftBind\""],
        ),
    ] {
        let [(level, text)] = &remarks[..] else {
            panic!("one remark, wanted {wanted:?}: {remarks:?}");
        };
        assert_eq!(*level, is_warning, "{text}");
        assert!(wanted.iter().all(|wanted| text.contains(wanted)), "{text}");
    }
    // Three daemons on one machine, and one alone.
    for nodes in [json!(["127.0.0.1", "localhost:2", "127.0.0.3"]), json!([])] {
        let mut file = whole.clone();
        (file["RaftBind"], file["RaftNodes"]) = (Json::Null, nodes);
        assert_eq!(remarks(&file), []);
    }
}

#[test]
fn without_a_file_it_is_said_where_one_was_looked_for() {
    assert_eq!(accepted(&["{}"]).nothing_found(Path::new("/srv")), None);
    let text = accepted(&[])
        .nothing_found(Path::new("/srv"))
        .expect("no file");
    for wanted in [
        "--config FILE",
        "/etc/orchestrator.conf.json, /srv/conf/orchestrator.conf.json, /srv/orchestrator.conf.json",
    ] {
        assert!(text.contains(wanted), "{text}");
    }
}

#[test]
fn bad_credentials_files_are_refused() {
    let world = World {
        files: BTreeMap::from([
            (
                "a.json",
                r#"{"MySQLTopologyCredentialsConfigFile": "bad.cnf", "MySQLOrchestratorCredentialsConfigFile": "none.cnf"}"#,
            ),
            ("bad.cnf", "[client]\npassword=\"hunter2\n"),
        ]),
    };
    let errors = world.load(Some("a.json")).expect_err("two bad files");
    let messages: Vec<String> = errors.problems.iter().map(ToString::to_string).collect();
    assert_eq!(
        messages,
        [
            "a.json:1:51: MySQLOrchestratorCredentialsConfigFile: \"none.cnf\" cannot be read: entity not found",
            "a.json:1:2: MySQLTopologyCredentialsConfigFile: \"bad.cnf\" is no credentials file: line 2 has a quote that is not closed",
        ]
    );
}

#[test]
fn secrets_are_masked_when_they_are_set() {
    let text = r#"{"MySQLTopologyPassword": "hunter2", "ConsulAclToken": "hunter2", "MySQLTopologyUser": "orc"}"#;
    let settings = accepted(&[text]).settings;
    let masked = settings.dump_json(Secrets::Mask);
    assert_eq!(masked["MySQLTopologyPassword"], MASK);
    assert_eq!(masked["HTTPAuthPassword"], "");
    assert_eq!(masked["MySQLTopologyUser"], "orc");
    assert!(!masked.to_string().contains("hunter2"));
    assert_eq!(
        settings.dump_json(Secrets::Show)["MySQLTopologyPassword"],
        "hunter2"
    );
}

#[test]
fn a_reload_keeps_what_needs_a_restart() {
    let old =
        accepted(&[r#"{"ListenAddress": ":1", "WebMessage": "old", "RaftBind": "127.0.0.1:1"}"#])
            .settings;
    let new = accepted(&[r#"{"ListenAddress": ":2", "WebMessage": "new"}"#]).settings;
    assert_eq!(
        Settings::changed(&old, &new),
        ["ListenAddress", "WebMessage", "RaftBind"]
    );
    // Nothing obeys the message.
    assert_eq!(
        Settings::reloadable_diff(&old, &new),
        ["ListenAddress", "RaftBind"]
    );
    assert_eq!(Settings::reloaded_diff(&old, &new), Vec::<&str>::new());
    let running = old.reloaded(&new);
    assert_eq!(running.listen.address, old.listen.address);
    assert_eq!(running.listen.web_message, "new");
    assert_eq!(Settings::changed(&new, &new), Vec::<&str>::new());
}

#[test]
fn a_reload_obeys_what_the_policy_is_made_of() {
    let old = accepted(&[r#"{"RecoveryPeriodBlockMinutes": 1, "Debug": true}"#]).settings;
    let new = accepted(&[
        r#"{"SafetyProfile": "original", "RecoveryPeriodBlockMinutes": 2, "PlannedStopPatienceSeconds": 3,
            "AuditToSyslog": true, "MySQLTopologyPassword": "x"}"#,
    ])
    .settings;
    assert_eq!(
        Settings::reloadable_diff(&old, &new),
        ["Debug", "MySQLTopologyPassword"],
        "of keys that have an effect"
    );
    assert!(Settings::reloaded_diff(&old, &new).contains(&"RecoveryPeriodBlockSeconds"));
    let running = old.reloaded(&new);
    assert_eq!(running.policy(), new.policy());
    let values =
        |settings: &Settings| settings.dump_json(Secrets::Show)["MySQLTopologyPassword"].clone();
    assert_eq!(values(&running), values(&old));
}

#[test]
fn a_return_policy_that_is_not_there_is_refused() {
    let errors = refused(&[r#"{"PrimaryReturnPolicy": "Continue"}"#]).to_string();
    assert!(
        errors.contains("PrimaryReturnPolicy: continue is not supported"),
        "{errors}"
    );
}

/// Texts that look like configuration more often than arbitrary bytes do.
fn configuration_like() -> impl Strategy<Value = String> {
    let name = prop_oneof![
        8 => proptest::sample::select(KEYS.iter().map(|key| key.name).collect::<Vec<_>>()).prop_map(str::to_owned),
        1 => ".{0,12}",
    ];
    let text = prop_oneof![
        ".{0,12}",
        Just("127.0.0.1:99".to_owned()),
        Just("::1".to_owned()),
        Just("${A}".to_owned()),
        Just("sqlite".to_owned()),
        Just("a.cnf".to_owned()),
    ];
    let value = prop_oneof![
        any::<bool>().prop_map(Json::from),
        any::<i64>().prop_map(Json::from),
        any::<u64>().prop_map(Json::from),
        any::<f64>().prop_map(Json::from),
        (-2i64..3).prop_map(Json::from),
        text.clone().prop_map(Json::from),
        proptest::collection::vec(text.clone(), 0..4).prop_map(Json::from),
        proptest::collection::btree_map(text.clone(), text, 0..3).prop_map(|map| map
            .into_iter()
            .map(|(name, value)| (name, Json::from(value)))
            .collect()),
        Just(Json::Null),
    ];
    proptest::collection::vec((name, value), 0..8)
        .prop_map(|members| {
            members
                .into_iter()
                .collect::<serde_json::Map<String, Json>>()
        })
        .prop_map(|members| Json::from(members).to_string())
}

/// A value of the key's own kind, so that most files are accepted and reach the typed settings.
fn fitting() -> impl Strategy<Value = String> {
    let member = proptest::sample::select(KEYS.iter().collect::<Vec<_>>()).prop_flat_map(|key| {
        let value = match key.kind {
            Kind::Bool => any::<bool>().prop_map(Json::from).boxed(),
            Kind::Int | Kind::Int32 | Kind::Int64 => prop_oneof![0..70_000i64, Just(i64::MAX)]
                .prop_map(Json::from)
                .boxed(),
            Kind::Uint => prop_oneof![0..70_000u64, Just(u64::MAX)]
                .prop_map(Json::from)
                .boxed(),
            Kind::Float32 => (1.0..9.0f64).prop_map(Json::from).boxed(),
            Kind::Text => prop_oneof![
                Just(""),
                Just(":1"),
                Just("127.0.0.1:7"),
                Just("sqlite"),
                Just("(a)")
            ]
            .prop_map(Json::from)
            .boxed(),
            Kind::List => proptest::collection::vec("[a-z]{1,3}", 0..3)
                .prop_map(Json::from)
                .boxed(),
            Kind::Map => Just(json!({"a": "b"})).boxed(),
        };
        (Just(key.name.to_owned()), value)
    });
    proptest::collection::vec(member, 0..12)
        .prop_map(|members| {
            members
                .into_iter()
                .collect::<serde_json::Map<String, Json>>()
        })
        .prop_map(|members| Json::from(members).to_string())
}

/// Loads, and looks at everything that a load gives.
fn survive(files: &[(&str, &[u8])]) -> bool {
    let env = |name: &str| (name != "B").then(|| "value".to_owned());
    let read = |path: &Path| Ok(path.to_string_lossy().into_owned().into_bytes());
    match parse_files_with(files, &read, &env) {
        Ok(loaded) => {
            let dump = loaded.settings.dump_json(Secrets::Mask);
            assert_eq!(dump.as_object().map(serde_json::Map::len), Some(KEYS.len()));
            let _ = loaded.settings.reloaded(&Settings::default());
            let _ = Settings::default().reloaded(&loaded.settings);
            true
        }
        Err(errors) => {
            assert!(!errors.problems.is_empty());
            let _ = errors.to_string();
            false
        }
    }
}

proptest! {
    #[test]
    fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        survive(&[("f", &bytes)]);
    }

    #[test]
    fn configuration_like_texts_never_panic(texts in proptest::collection::vec(configuration_like(), 1..3), cut in any::<prop::sample::Index>()) {
        let files: Vec<(&str, &[u8])> = texts.iter().map(|text| ("f", text.as_bytes())).collect();
        survive(&files);
        let whole = texts[0].as_bytes();
        survive(&[("f", &whole[..cut.index(whole.len())])]);
    }

    #[test]
    fn fitting_values_never_panic(texts in proptest::collection::vec(fitting(), 1..3)) {
        let files: Vec<(&str, &[u8])> = texts.iter().map(|text| ("f", text.as_bytes())).collect();
        survive(&files);
    }

    #[test]
    fn credentials_files_never_panic(text in ".{0,60}", quoted in "\\[client\\]\n(user|password)=[\"'\\\\#; a=]{0,8}") {
        for file in [&text, &quoted] {
            survive(&[("f", json!({"MySQLTopologyCredentialsConfigFile": file}).to_string().as_bytes())]);
        }
    }
}

/// Whoever copies a sample must not be warned of it: every key in it is obeyed.
#[test]
fn the_sample_configurations_load_without_a_warning() {
    let in_kubernetes = include_str!("../../packaging/kubernetes/orchestrator.yaml")
        .split("orchestrator.conf.json: |\n")
        .nth(1)
        .and_then(|rest| rest.split("\n---\n").next())
        .expect("a configuration in the ConfigMap")
        .replace("@POD@", "orchestrator-1");
    for (name, text) in [
        (
            "raft",
            include_str!("../../packaging/conf/orchestrator-raft.conf.json"),
        ),
        (
            "raft with MySQL",
            include_str!("../../packaging/conf/orchestrator-raft-mysql.conf.json"),
        ),
        (
            "alone",
            include_str!("../../packaging/conf/orchestrator-alone.conf.json"),
        ),
        ("kubernetes", &in_kubernetes),
    ] {
        let env = |_: &str| Some(String::from("secret"));
        let loaded = parse_files(&[(name, text.as_bytes())], &env).expect("it loads");
        assert_eq!(loaded.warnings, Vec::<String>::new(), "{name}");
        // That the one for a daemon alone only watches is told.
        let remarks = loaded.settings.remarks();
        assert!(!remarks.iter().any(|remark| remark.is_warning), "{name}");
        assert_eq!(loaded.settings.raft.is_some(), name != "alone");
    }
}
