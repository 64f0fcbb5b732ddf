//! What a hook is told: placeholders in its text, variables in its environment.
//!
//! Placeholders are put into shell text, inside quotes or not, as operators have written it for years, so a value cannot
//! be quoted. What is not plain (letters, digits, blanks and a few signs that mean nothing to a shell) is replaced by an
//! underscore; the environment has the whole value.

use orchestrator_core::id::InstanceKey;
use orchestrator_core::recovery::{Hook, HookFacts, HookList};

/// One thing that a hook is told: its placeholders (without braces), its variable, its value; no value: it is not known,
/// the placeholder stays as it is and the variable is absent.
struct Told {
    placeholders: &'static [&'static str],
    variable: Option<&'static str>,
    value: Option<String>,
}

fn told(facts: &HookFacts) -> Vec<Told> {
    let one = |placeholders, variable, value: String| Told {
        placeholders,
        variable: Some(variable),
        value: Some(value),
    };
    let successor = facts.successor.as_ref();
    let maybe = |placeholders, variable, value: Option<String>| Told {
        placeholders,
        variable: Some(variable),
        value,
    };
    vec![
        one(
            &["failureType"],
            "ORC_FAILURE_TYPE",
            facts.failure_type.clone(),
        ),
        one(
            &["instanceType"],
            "ORC_INSTANCE_TYPE",
            facts.instance_type.to_owned(),
        ),
        one(
            &["isMaster"],
            "ORC_IS_MASTER",
            (facts.instance_type == "master").to_string(),
        ),
        one(
            &["isCoMaster"],
            "ORC_IS_CO_MASTER",
            (facts.instance_type == "co-master").to_string(),
        ),
        one(
            &["failureDescription"],
            "ORC_FAILURE_DESCRIPTION",
            facts.description.clone(),
        ),
        one(&["command"], "ORC_COMMAND", facts.command.clone()),
        one(
            &["failedHost"],
            "ORC_FAILED_HOST",
            facts.failed.host.clone(),
        ),
        one(
            &["failedPort"],
            "ORC_FAILED_PORT",
            facts.failed.port.to_string(),
        ),
        one(
            &["failureCluster"],
            "ORC_FAILURE_CLUSTER",
            facts.cluster_name.clone(),
        ),
        one(
            &["failureClusterAlias"],
            "ORC_FAILURE_CLUSTER_ALIAS",
            facts.cluster_alias.clone(),
        ),
        one(
            &["failureClusterDomain"],
            "ORC_FAILURE_CLUSTER_DOMAIN",
            facts.cluster_domain.clone(),
        ),
        one(
            &["countReplicas", "countSlaves"],
            "ORC_COUNT_REPLICAS",
            facts.replicas.len().to_string(),
        ),
        one(
            &["isDowntimed"],
            "ORC_IS_DOWNTIMED",
            facts.is_downtimed.to_string(),
        ),
        one(
            &["autoMasterRecovery"],
            "ORC_AUTO_MASTER_RECOVERY",
            facts.recovers_primary.to_string(),
        ),
        one(
            &["autoIntermediateMasterRecovery"],
            "ORC_AUTO_INTERMEDIATE_MASTER_RECOVERY",
            facts.recovers_intermediate.to_string(),
        ),
        one(
            &["orchestratorHost"],
            "ORC_ORCHESTRATOR_HOST",
            facts.orchestrator_host.clone(),
        ),
        one(&["recoveryUID"], "ORC_RECOVERY_UID", facts.uid.clone()),
        one(
            &["isSuccessful"],
            "ORC_IS_SUCCESSFUL",
            facts.is_successful.to_string(),
        ),
        one(
            &["lostReplicas", "lostSlaves"],
            "ORC_LOST_REPLICAS",
            list(&facts.lost),
        ),
        Told {
            placeholders: &["countLostReplicas"],
            variable: None,
            value: Some(facts.lost.len().to_string()),
        },
        one(
            &["replicaHosts", "slaveHosts"],
            "ORC_REPLICA_HOSTS",
            list(&facts.replicas),
        ),
        maybe(
            &["successorHost"],
            "ORC_SUCCESSOR_HOST",
            successor.map(|successor| successor.key.host.clone()),
        ),
        maybe(
            &["successorPort"],
            "ORC_SUCCESSOR_PORT",
            successor.map(|successor| successor.key.port.to_string()),
        ),
        maybe(
            &["successorAlias"],
            "ORC_SUCCESSOR_ALIAS",
            successor.map(|successor| successor.alias.clone()),
        ),
        maybe(
            &["successorBinlogCoordinates"],
            "ORC_SUCCESSOR_BINLOG_COORDINATES",
            successor.and_then(|successor| successor.coordinates.clone()),
        ),
        one(&[], "ORC_IDEMPOTENCY_KEY", facts.idempotency_key.clone()),
        one(&[], "ORC_EPOCH", facts.epoch.to_string()),
    ]
}

fn list(keys: &[InstanceKey]) -> String {
    let keys: Vec<String> = keys.iter().map(ToString::to_string).collect();
    keys.join(",")
}

/// The variables of a hook.
#[must_use]
pub fn environment(hook: Hook, facts: &HookFacts) -> Vec<(&'static str, String)> {
    if hook.list == HookList::PostTakePrimary {
        // Whole addresses, as this list has always had them.
        let mut variables = vec![
            ("ORC_FAILED_HOST", facts.failed.to_string()),
            ("ORC_IDEMPOTENCY_KEY", facts.idempotency_key.clone()),
            ("ORC_EPOCH", facts.epoch.to_string()),
        ];
        variables.extend(
            facts
                .successor
                .as_ref()
                .map(|successor| ("ORC_SUCCESSOR_HOST", successor.key.to_string())),
        );
        return variables;
    }
    told(facts)
        .into_iter()
        .filter_map(|told| Some((told.variable?, told.value?)))
        .collect()
}

/// Arguments that a hook is given beside its text.
pub(super) fn arguments(hook: Hook, facts: &HookFacts) -> Vec<String> {
    if hook.list != HookList::PostTakePrimary {
        return Vec::new();
    }
    let successor = facts.successor.as_ref();
    vec![
        successor.map_or_else(String::new, |successor| successor.key.to_string()),
        facts.failed.to_string(),
    ]
}

/// How a hook was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Form {
    /// Text for the shell.
    Shell {
        text: String,
        /// It ended in `&`: nobody waits for it.
        in_background: bool,
        /// Placeholders whose values were changed to be safe.
        changed: Vec<&'static str>,
    },
    /// A program and its arguments, which no shell sees.
    Argv(Vec<String>),
}

/// A hook with its placeholders replaced. A JSON list of strings is a program with its arguments; everything else is
/// shell text.
pub(super) fn form(written: &str, hook: Hook, facts: &HookFacts) -> Form {
    let replaces = hook.list != HookList::PostTakePrimary;
    let written = written.trim();
    if written.starts_with('[')
        && let Ok(words) = serde_json::from_str::<Vec<String>>(written)
        && !words.is_empty()
    {
        let words = words
            .iter()
            .map(|word| {
                if replaces {
                    replace(word, facts, |value| value.to_owned()).0
                } else {
                    word.clone()
                }
            })
            .collect();
        return Form::Argv(words);
    }
    let (text, in_background) = match written.strip_suffix('&') {
        // `cmd &&` is no background command.
        Some(before) if !before.ends_with('&') => (before.trim_end(), true),
        Some(_) | None => (written, false),
    };
    let (text, changed) = if replaces {
        replace(text, facts, plain)
    } else {
        (text.to_owned(), Vec::new())
    };
    Form::Shell {
        text,
        in_background,
        changed,
    }
}

/// A value that means nothing to a shell, in quotes or out of them.
fn plain(value: &str) -> String {
    value
        .chars()
        .map(|character| match character {
            'a'..='z' | 'A'..='Z' | '0'..='9' => character,
            ' ' | '_' | '-' | '.' | ':' | ',' | '/' | '@' | '%' | '+' | '=' => character,
            // Letters of other scripts are letters to a shell.
            _ if !character.is_ascii() && character.is_alphanumeric() => character,
            _ => '_',
        })
        .collect()
}

/// One pass: what a value contains is not replaced again.
fn replace(
    text: &str,
    facts: &HookFacts,
    spelled: impl Fn(&str) -> String,
) -> (String, Vec<&'static str>) {
    let told = told(facts);
    let mut changed = Vec::new();
    let mut result = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(start) = rest.find('{') {
        result.push_str(&rest[..start]);
        rest = &rest[start..];
        let found = rest.find('}').and_then(|end| {
            let name = &rest[1..end];
            told.iter().find_map(|told| {
                let placeholder = told.placeholders.iter().find(|held| **held == name)?;
                Some((*placeholder, told.value.as_deref()?, end))
            })
        });
        match found {
            Some((placeholder, value, end)) => {
                let safe = spelled(value);
                if safe != value && !changed.contains(&placeholder) {
                    changed.push(placeholder);
                }
                result.push_str(&safe);
                rest = &rest[end + 1..];
            }
            None => {
                result.push('{');
                rest = &rest[1..];
            }
        }
    }
    result.push_str(rest);
    (result, changed)
}

#[cfg(test)]
pub(super) mod tests {
    use orchestrator_core::id::Epoch;
    use orchestrator_core::recovery::hook::Successor;

    use super::*;

    pub fn facts() -> HookFacts {
        HookFacts {
            idempotency_key: String::from("1:ab/PostFailoverProcesses[0]"),
            epoch: Epoch::default(),
            failure_type: String::from("DeadMaster"),
            description: String::from("Master cannot be reached"),
            instance_type: "master",
            command: String::new(),
            failed: InstanceKey::new("db1", 3306),
            cluster_name: String::from("db1:3306"),
            cluster_alias: String::from("shop"),
            cluster_domain: String::new(),
            replicas: vec![InstanceKey::new("db2", 3306), InstanceKey::new("db3", 3307)],
            is_downtimed: false,
            recovers_primary: true,
            recovers_intermediate: false,
            orchestrator_host: String::from("orc1"),
            uid: String::from("1:ab"),
            is_successful: true,
            lost: vec![InstanceKey::new("db3", 3307)],
            successor: Some(Successor {
                key: InstanceKey::new("db2", 3306),
                alias: String::from("two"),
                coordinates: Some(String::from("binlog.000002:157")),
            }),
        }
    }

    const HOOK: Hook = Hook {
        list: HookList::PostFailover,
        place: 0,
    };

    #[track_caller]
    fn check(written: &str, facts: &HookFacts, wanted: &str) {
        match form(written, HOOK, facts) {
            Form::Shell { text, .. } => assert_eq!(text, wanted),
            Form::Argv(words) => panic!("{words:?}"),
        }
    }

    #[test]
    fn placeholders_are_replaced() {
        check(
            "echo 'Recovered from {failureType} on {failureCluster}. Failed: {failedHost}:{failedPort}; Successor: \
             {successorHost}:{successorPort}' >> /tmp/recovery.log",
            &facts(),
            "echo 'Recovered from DeadMaster on db1:3306. Failed: db1:3306; Successor: db2:3306' >> /tmp/recovery.log",
        );
        check(
            "{countSlaves} {countReplicas} {slaveHosts} {lostReplicas} {countLostReplicas} {isMaster}{isCoMaster}",
            &facts(),
            "2 2 db2:3306,db3:3307 db3:3307 1 truefalse",
        );
    }

    #[test]
    fn what_is_not_known_stays_as_it_is() {
        let facts = HookFacts {
            successor: None,
            ..facts()
        };
        check(
            "x {successorHost} {noSuchThing} ${HOME} {} {",
            &facts,
            "x {successorHost} {noSuchThing} ${HOME} {} {",
        );
        let names: Vec<&str> = environment(HOOK, &facts)
            .into_iter()
            .map(|(name, _)| name)
            .collect();
        assert!(!names.contains(&"ORC_SUCCESSOR_HOST"));
        assert!(names.contains(&"ORC_FAILED_HOST"));
    }

    #[test]
    fn values_are_no_shell_text() {
        let facts = HookFacts {
            cluster_alias: String::from("a'; rm -rf / #\n`id` $(id) \"\\{failedHost} é"),
            ..facts()
        };
        let Form::Shell { text, changed, .. } = form("echo '{failureClusterAlias}'", HOOK, &facts)
        else {
            panic!("shell text")
        };
        assert_eq!(text, "echo 'a__ rm -rf / ___id_ __id_ ___failedHost_ é'");
        assert_eq!(changed, ["failureClusterAlias"]);
        let whole = environment(HOOK, &facts)
            .into_iter()
            .find(|(name, _)| *name == "ORC_FAILURE_CLUSTER_ALIAS");
        assert_eq!(whole.map(|(_, value)| value), Some(facts.cluster_alias));
    }

    #[test]
    fn a_list_of_words_is_run_without_a_shell() {
        assert_eq!(
            form(r#"["/bin/notify", "{failedHost}", "a b"]"#, HOOK, &facts()),
            Form::Argv(vec!["/bin/notify".into(), "db1".into(), "a b".into()])
        );
        check(
            "[ -f /tmp/x ] && echo y",
            &facts(),
            "[ -f /tmp/x ] && echo y",
        );
    }

    #[test]
    fn an_ampersand_at_the_end_is_for_us() {
        let background = |written: &str| match form(written, HOOK, &facts()) {
            Form::Shell {
                text,
                in_background,
                ..
            } => (text, in_background),
            Form::Argv(words) => panic!("{words:?}"),
        };
        assert_eq!(background("sleep 5 & "), (String::from("sleep 5"), true));
        assert_eq!(background("a && b"), (String::from("a && b"), false));
        assert_eq!(background("a &&"), (String::from("a &&"), false));
    }

    #[test]
    fn take_primary_hooks_have_addresses_as_arguments() {
        let hook = Hook {
            list: HookList::PostTakePrimary,
            place: 0,
        };
        assert_eq!(arguments(hook, &facts()), ["db2:3306", "db1:3306"]);
        let variables = environment(hook, &facts());
        assert!(variables.contains(&("ORC_SUCCESSOR_HOST", String::from("db2:3306"))));
        assert!(matches!(
            form("echo {failedHost}", hook, &facts()),
            Form::Shell { text, .. } if text == "echo {failedHost}"
        ));
        assert_eq!(arguments(HOOK, &facts()), Vec::<String>::new());
    }
}
