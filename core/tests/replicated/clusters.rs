//! Which cluster a server belongs to, and which cluster a topology is, whoever its primary is.

use orchestrator_core::{
    id::ClusterKey,
    recovery::End,
    replicated::{Answer, Command, Refusal},
};

use crate::{
    gate::Log,
    samples::{identity, key},
};

fn record(primary: &str, members: &[&str]) -> Command {
    Command::RecordCluster {
        primary: key(primary),
        identity: Some(identity(primary)),
        members: members.iter().map(|name| key(name)).collect(),
    }
}

fn alias(cluster: &str, alias: &str, by_operator: bool) -> Command {
    Command::SetClusterAlias {
        cluster_name: format!("{cluster}:3306"),
        alias: alias.into(),
        by_operator,
    }
}

/// `Log::new` has recorded p with a and b.
fn key_of(log: &Log, server: &str) -> ClusterKey {
    log.state.cluster_of(&key(server)).expect("a member").key
}

#[test]
fn seeing_the_same_again_changes_nothing() {
    let mut log = Log::new();
    assert_eq!(log.answer(record("p", &["a", "b"])), Answer::Changed(0));
    assert_eq!(
        log.answer(record("p", &["a", "b", "c"])),
        Answer::Changed(1)
    );
    assert_eq!(key_of(&log, "c"), key_of(&log, "p"));
    // A server that is not seen stays a member: it may be down.
    assert_eq!(log.answer(record("p", &["a"])), Answer::Changed(0));
}

#[test]
fn the_key_follows_a_switch_by_hand() {
    let mut log = Log::new();
    let main = key_of(&log, "p");
    log.done(alias("p", "main", false));
    log.done(record("a", &["a", "p", "b"]));
    assert_eq!(key_of(&log, "a"), main);
    let cluster = log.state.cluster(main).expect("kept");
    assert_eq!(
        (cluster.name.as_str(), cluster.alias.as_str()),
        ("a:3306", "main")
    );
    assert_eq!(log.state.clusters().count(), 1);
}

#[test]
fn the_key_follows_most_servers_when_the_primary_is_gone() {
    let mut log = Log::new();
    let main = key_of(&log, "p");
    log.done(record("a", &["a", "b"]));
    assert_eq!(key_of(&log, "a"), main);
    assert_eq!(log.state.clusters().count(), 1);
}

#[test]
fn a_replica_set_apart_is_a_cluster_of_its_own() {
    let mut log = Log::new();
    let main = key_of(&log, "p");
    log.done(record("a", &["a"]));
    assert_ne!(key_of(&log, "a"), main);
    assert_eq!(key_of(&log, "b"), main);
    assert_eq!(
        log.state.cluster(main).map(|c| c.primary.clone()),
        Some(key("p"))
    );
}

#[test]
fn a_replica_set_apart_that_the_rest_joins_takes_the_cluster_with_it() {
    let mut log = Log::new();
    let main = key_of(&log, "p");
    log.done(alias("p", "main", true));
    log.done(record("a", &["a"]));
    log.done(record("a", &["a", "b"]));
    assert_eq!(key_of(&log, "a"), main, "most of the others are there");
    log.done(record("a", &["a", "b", "p"]));
    let cluster = log.state.cluster_named("main").expect("named");
    assert_eq!((cluster.key, &cluster.primary), (main, &key("a")));
    assert_eq!(log.state.clusters().count(), 1);
}

#[test]
fn a_cluster_that_is_attached_to_another_ends_there() {
    let mut log = Log::new();
    log.done(record("q", &["q", "q1"]));
    log.done(record("p", &["p", "a", "b", "q", "q1"]));
    assert_eq!(key_of(&log, "q1"), key_of(&log, "p"));
    assert_eq!(log.state.clusters().count(), 1);
}

#[test]
fn a_running_recovery_keeps_its_cluster_in_place() {
    let mut log = Log::new();
    log.done(log.begin("r1", "p"));
    for command in [record("a", &["a", "b"]), record("q", &["q", "b"])] {
        assert!(matches!(log.refused(command), Refusal::ClusterBusy { .. }));
    }
    log.done(Command::Know {
        keys: vec![key("p"), key("a"), key("b")],
        by_operator: false,
    });
    // Nor is one of its servers forgotten, by whoever it may be: the recovery would wait for it for good.
    let forget = Command::Forget {
        keys: vec![key("p"), key("a"), key("b")],
    };
    assert!(matches!(
        log.refused(forget.clone()),
        Refusal::ClusterBusy { .. }
    ));
    assert_eq!(key_of(&log, "b"), key_of(&log, "p"));
    assert!(log.state.is_known(&key("b")));
    // Of others the same command is obeyed.
    log.done(Command::Know {
        keys: vec![key("elsewhere")],
        by_operator: false,
    });
    let some = log.answer(Command::Forget {
        keys: vec![key("a"), key("elsewhere")],
    });
    assert_eq!(some, Answer::Changed(1));
    assert!(log.state.is_known(&key("a")) && !log.state.is_known(&key("elsewhere")));
    log.done(log.end("r1", End::Succeeded, Some("a"), &[]));
    log.done(forget);
    assert!(!log.state.is_known(&key("b")));
}

#[test]
fn forgetting_servers_empties_and_ends_a_cluster() {
    let mut log = Log::new();
    log.done(Command::Know {
        keys: vec![key("p"), key("a"), key("b")],
        by_operator: false,
    });
    log.done(Command::Forget {
        keys: vec![key("a"), key("b"), key("p")],
    });
    assert_eq!(log.state.clusters().count(), 0);
    assert!(log.state.cluster_of(&key("a")).is_none());
}

#[test]
fn an_alias_names_one_cluster_and_the_operators_wins() {
    let mut log = Log::new();
    log.done(record("q", &["q"]));
    log.done(alias("p", "main", false));
    log.done(alias("q", "main", false));
    let named = |log: &Log, text: &str| {
        log.state
            .cluster_named(text)
            .map(|cluster| cluster.primary.host.clone())
    };
    assert_eq!(
        named(&log, "main").as_deref(),
        Some("q"),
        "the newest word counts"
    );
    log.done(alias("p", "main", true));
    assert_eq!(named(&log, "main").as_deref(), Some("p"));
    log.done(alias("p", "", true));
    assert_eq!(named(&log, "main").as_deref(), Some("q"));
    assert!(matches!(
        log.refused(alias("nobody", "x", true)),
        Refusal::NotFound(_)
    ));
    assert!(named(&log, "").is_none());
}
