//! The plain rows: what people say of servers, and how it ends.

use core::time::Duration;
use orchestrator_core::{
    limits::{
        AUDIT_ENTRIES_MAX, ERROR_TEXT_BYTES_MAX, KNOWN_PER_COMMAND_MAX, TAGS_PER_INSTANCE_MAX,
        TEXT_BYTES_MAX,
    },
    policy::Policy,
    recovery::{Outcome, Phase, Telling},
    replicated::{Answer, Change, Command, Detection, LOST_IN_RECOVERY, Refusal},
    time::Wall,
    topology::PromotionRule,
};

use crate::{
    gate::Log,
    samples::{self, key},
};

fn know(name: &str, by_operator: bool) -> Command {
    Command::Know {
        keys: vec![key(name)],
        by_operator,
    }
}

fn forget(name: &str) -> Command {
    Command::Forget {
        keys: vec![key(name)],
    }
}

/// Something that only moves log time.
fn tick(log: &mut Log) -> Vec<Change> {
    log.done(Command::EndDowntime { key: key("nobody") })
        .changes
}

#[test]
fn a_forgotten_server_stays_away_for_three_polls() {
    let mut log = Log::new();
    assert_eq!(log.answer(know("x", false)), Answer::Changed(1));
    assert_eq!(log.answer(know("x", false)), Answer::Changed(0));
    assert_eq!(log.answer(forget("x")), Answer::Changed(1));
    assert!(matches!(log.refused(forget("x")), Refusal::NotFound(_)));
    log.secs += 14;
    assert_eq!(log.answer(know("x", false)), Answer::Changed(0));
    assert_eq!(
        log.answer(know("x", true)),
        Answer::Changed(1),
        "an operator may"
    );
    log.done(forget("x"));
    log.secs += 15;
    assert_eq!(log.answer(know("x", false)), Answer::Changed(1));
}

#[test]
fn what_is_no_address_is_not_known() {
    let mut log = Log::new();
    let mut keys = vec![key(""), key("_"), key("//detached"), key("x")];
    keys.push(orchestrator_core::id::InstanceKey::new("x", 0));
    assert_eq!(
        log.answer(Command::Know {
            keys,
            by_operator: true
        }),
        Answer::Changed(1)
    );
    let keys = vec![key("x"); KNOWN_PER_COMMAND_MAX + 1];
    assert!(matches!(
        log.refused(Command::Know {
            keys,
            by_operator: true
        }),
        Refusal::Full { .. }
    ));
}

#[test]
fn a_downtime_ends_by_itself_unless_a_recovery_began_it() {
    let mut log = Log::new();
    let begin = |name: &str, reason: &str, secs: u64| Command::BeginDowntime {
        key: key(name),
        owner: "dba".into(),
        reason: reason.into(),
        until: Wall::from_secs(secs),
    };
    let secs = log.secs;
    log.done(begin("x", "disk", secs + 60));
    log.done(begin("y", LOST_IN_RECOVERY, secs + 60));
    assert!(matches!(
        log.refused(begin("z", "disk", secs)),
        Refusal::Invalid(_)
    ));
    assert!(
        log.state
            .downtime_of(&key("x"), Wall::from_secs(secs + 59))
            .is_some()
    );
    // Absent from the moment on, and removed with the next command.
    assert!(
        log.state
            .downtime_of(&key("x"), Wall::from_secs(secs + 60))
            .is_none()
    );
    log.secs += 60;
    assert_eq!(tick(&mut log), [Change::Downtime(key("x"), None)]);
    assert!(
        log.state
            .downtime_of(&key("y"), Wall::from_secs(secs + 6_000))
            .is_some()
    );
    assert_eq!(
        log.answer(Command::EndDowntime { key: key("y") }),
        Answer::Changed(1)
    );
    assert_eq!(
        log.answer(Command::EndDowntime { key: key("y") }),
        Answer::Changed(0)
    );
}

#[test]
fn maintenance_is_exclusive_while_it_lasts() {
    let mut log = Log::new();
    let begin = |secs: u64| Command::BeginMaintenance {
        key: key("x"),
        owner: "dba".into(),
        reason: "disk".into(),
        until: Wall::from_secs(secs),
    };
    let secs = log.secs;
    assert_eq!(log.answer(begin(secs + 60)), Answer::Numbered(1));
    assert!(matches!(log.refused(begin(secs + 90)), Refusal::Invalid(_)));
    log.secs += 60;
    assert_eq!(
        log.answer(begin(secs + 90)),
        Answer::Numbered(2),
        "it had ended"
    );
    assert_eq!(
        log.answer(Command::EndMaintenance { key: key("x") }),
        Answer::Changed(1)
    );
    assert_eq!(
        log.answer(Command::EndMaintenance { key: key("x") }),
        Answer::Changed(0)
    );
}

#[test]
fn a_promotion_rule_expires_by_policy() {
    let mut log = Log::new();
    log.done(Command::RegisterCandidate {
        key: key("x"),
        rule: PromotionRule::Must,
    });
    let at = |log: &Log, secs: u64| {
        log.state
            .rule_of(&key("x"), Wall::from_secs(log.secs + secs))
    };
    assert_eq!(at(&log, 3_599), Some(PromotionRule::Must));
    assert_eq!(at(&log, 3_600), None);
    log.done(Command::SetPolicy(Box::new(Policy {
        candidate_expiry: Duration::from_secs(60),
        ..Policy::default()
    })));
    assert_eq!(at(&log, 60), None);
    log.secs += 60;
    assert_eq!(tick(&mut log), [Change::Candidate(key("x"), None)]);
}

#[test]
fn tags_are_counted_and_deleted_by_value_everywhere() {
    let mut log = Log::new();
    let put = |server: &str, name: &str, value: &str| Command::PutTag {
        key: key(server),
        name: name.into(),
        value: value.into(),
    };
    log.done(put("x", "role", "backup"));
    log.done(put("y", "role", "reports"));
    log.done(put("z", "role", "backup"));
    let delete = |server: Option<&str>, value: Option<&str>| Command::DeleteTag {
        key: server.map(key),
        name: "role".into(),
        value: value.map(String::from),
    };
    assert_eq!(
        log.answer(delete(Some("y"), Some("backup"))),
        Answer::Changed(0)
    );
    assert_eq!(log.answer(delete(None, Some("backup"))), Answer::Changed(2));
    assert_eq!(log.answer(delete(Some("y"), None)), Answer::Changed(1));
    assert_eq!(log.state.tags().count(), 0);
    for n in 0..TAGS_PER_INSTANCE_MAX {
        log.done(put("x", &format!("tag{n}"), "v"));
    }
    assert!(matches!(
        log.refused(put("x", "more", "v")),
        Refusal::Full { .. }
    ));
    log.done(put("x", "tag0", &"v".repeat(TEXT_BYTES_MAX + 9)));
    assert_eq!(
        log.state
            .tag_of(&key("x"), "tag0")
            .map(|tag| tag.value.len()),
        Some(TEXT_BYTES_MAX)
    );
    assert_eq!(log.state.tags_of(&key("x")).count(), TAGS_PER_INSTANCE_MAX);
}

/// Registers a failure whose hooks are begun by the leader of this log's term.
fn told(log: &mut Log, server: &str) -> Answer {
    log.answer(Command::RegisterDetection(Detection {
        server: key(server),
        telling: Some(Telling::begun(log.epoch())),
        ..samples::detection()
    }))
}

fn tell(log: &Log, run: u32, ended: Option<Outcome>, next: Option<u32>) -> Command {
    Command::TellOfDetection {
        number: 1,
        epoch: log.epoch(),
        run,
        ended,
        next,
    }
}

fn log_of_version_2() -> Log {
    let mut log = Log::new();
    log.done(Command::SetVersion {
        command: 2,
        snapshot: 2,
    });
    log
}

fn telling(log: &Log) -> Option<Telling> {
    log.state.detection(1).expect("it is kept").telling.clone()
}

fn refused_with(code: u16) -> Outcome {
    Outcome::Refused {
        code,
        reason: "no".into(),
    }
}

#[test]
fn hooks_of_a_detection_are_on_record_one_after_another() {
    let mut log = log_of_version_2();
    assert_eq!(told(&mut log, "p"), Answer::Numbered(1));
    let first = telling(&log).expect("begun with it");
    assert_eq!(first, Telling::begun(log.epoch()));
    let on = tell(&log, 1, Some(Outcome::Done), Some(1));
    let applied = log.done(on.clone());
    assert!(matches!(
        applied.changes[..],
        [Change::Detection(1, Some(_))]
    ));
    let second = telling(&log).expect("the second runs");
    assert_eq!((second.place, second.run, second.tries), (1, 2, 1));
    assert_eq!(second.phase, Phase::Intended(log.epoch()));
    // The same again, as a leader proposes that does not know what became of it.
    assert!(matches!(log.refused(on), Refusal::Invalid(_)));
    assert_eq!(telling(&log), Some(second));
    // Not before the one that runs has ended, and none is left out.
    for wrong in [
        tell(&log, 2, None, Some(1)),
        tell(&log, 2, None, None),
        tell(&log, 1, None, Some(0)),
        tell(&log, 1, Some(Outcome::Done), None),
        tell(&log, 2, Some(Outcome::Done), Some(1)),
        tell(&log, 2, Some(Outcome::Done), Some(3)),
        tell(&log, 2, Some(refused_with(1)), Some(2)),
    ] {
        assert!(matches!(log.refused(wrong), Refusal::Invalid(_)));
    }
    let failed = tell(&log, 2, Some(refused_with(1)), None);
    log.done(failed.clone());
    let third = telling(&log).expect("it is to be run again");
    assert_eq!(third.phase, Phase::Settled(refused_with(1)));
    assert_eq!(log.done(failed).changes, [], "said twice");
    log.done(tell(&log, 2, None, Some(1)));
    let again = telling(&log).expect("it runs");
    assert_eq!((again.place, again.run, again.tries), (1, 3, 1));
    let last = tell(&log, 3, Some(Outcome::Done), None);
    log.done(last.clone());
    assert_eq!(telling(&log), None);
    assert_eq!(log.state.telling_newest_first().count(), 0);
    assert_eq!(log.refused(last), Refusal::Ended);
    let unknown = Command::TellOfDetection {
        number: 2,
        epoch: log.epoch(),
        run: 1,
        ended: None,
        next: None,
    };
    assert!(matches!(log.refused(unknown), Refusal::NotFound(_)));
}

#[test]
fn a_former_leader_says_nothing_of_the_hooks_of_a_detection() {
    let mut log = log_of_version_2();
    assert_eq!(told(&mut log, "p"), Answer::Numbered(1));
    let former = tell(&log, 1, Some(Outcome::Done), None);
    let stale = Command::RegisterDetection(Detection {
        server: key("q"),
        telling: Some(Telling::begun(log.epoch())),
        ..samples::detection()
    });
    log.term += 1;
    assert!(matches!(log.refused(former), Refusal::NotOwner { .. }));
    assert!(matches!(log.refused(stale), Refusal::NotOwner { .. }));
    // Nor does the next one say how a run ended that it did not begin.
    let foreign = tell(&log, 1, Some(Outcome::Done), None);
    assert!(matches!(log.refused(foreign), Refusal::NotOwner { .. }));
    assert!(matches!(
        log.refused(tell(&log, 1, None, Some(1))),
        Refusal::Invalid(_)
    ));
    log.done(tell(&log, 1, None, Some(0)));
    // One that does not know of it decides nothing.
    assert!(matches!(
        log.refused(tell(&log, 1, None, Some(0))),
        Refusal::Invalid(_)
    ));
    let again = telling(&log).expect("it runs once more");
    assert_eq!((again.place, again.run, again.tries), (0, 2, 2));
    // What its own daemon did not run counts as a try too, what said no does not.
    log.done(tell(&log, 2, Some(refused_with(0)), Some(0)));
    assert_eq!(telling(&log).map(|telling| telling.tries), Some(3));
    log.done(tell(&log, 3, Some(refused_with(9)), None));
    log.done(tell(&log, 3, None, Some(0)));
    assert_eq!(telling(&log).map(|telling| telling.tries), Some(1));
    // A leader that has no such hooks has nothing to run.
    log.term += 1;
    log.done(tell(&log, 4, None, None));
    assert_eq!(telling(&log), None);
}

#[test]
fn what_a_hook_of_a_detection_said_has_a_bound() {
    let mut log = log_of_version_2();
    assert_eq!(told(&mut log, "p"), Answer::Numbered(1));
    let outcome = Outcome::Unknown {
        reason: "x".repeat(ERROR_TEXT_BYTES_MAX + 9),
    };
    let command = tell(&log, 1, Some(outcome), None);
    log.done(command.clone());
    let Some(Phase::Settled(Outcome::Unknown { reason })) =
        telling(&log).map(|telling| telling.phase)
    else {
        panic!("it is on record");
    };
    assert!(reason.len() <= ERROR_TEXT_BYTES_MAX);
    assert_eq!(log.done(command).changes, [], "said twice");
}

/// The detection is registered all the same, and its leader remembers its hooks by itself.
#[test]
fn version_1_has_no_place_for_hooks_of_a_detection() {
    let mut log = Log::new();
    assert_eq!(told(&mut log, "p"), Answer::Numbered(1));
    assert_eq!(telling(&log), None);
    let on = tell(&log, 1, Some(Outcome::Done), None);
    assert_eq!(log.refused(on), Refusal::Ended);
}

#[test]
fn an_equal_detection_is_registered_once_while_it_is_active() {
    let mut log = Log::new();
    let detect = |analysis: &str| {
        let mut detection = samples::detection();
        detection.analysis = analysis.into();
        Command::RegisterDetection(detection)
    };
    assert_eq!(log.answer(detect("DeadMaster")), Answer::Numbered(1));
    assert_eq!(log.answer(detect("DeadMaster")), Answer::Changed(0));
    // Another code is another failure: its hooks run.
    assert_eq!(
        log.answer(detect("LockedSemiSyncMaster")),
        Answer::Numbered(2)
    );
    log.secs += 3_600;
    assert_eq!(
        log.answer(detect("DeadMaster")),
        Answer::Numbered(3),
        "too old to count"
    );
    assert!(!log.state.detection(1).expect("kept").is_active);
    log.done(log.begin("r1", "p"));
    assert_eq!(log.state.recovery_numbered(1).map(|r| r.detection), Some(3));
    log.done(log.end(
        "r1",
        orchestrator_core::recovery::End::Succeeded,
        Some("a"),
        &[],
    ));
    assert!(
        !log.state.detection(3).expect("kept").is_active,
        "cleared by the recovery"
    );
}

#[test]
fn the_audit_is_purged_by_age_a_bounded_number_at_a_time() {
    let mut log = Log::new();
    for n in 0..40 {
        log.done(log.begin(&format!("r{n}"), "p"));
        let failed = orchestrator_core::recovery::End::Failed { reason: "x".into() };
        log.done(log.end(&format!("r{n}"), failed, None, &[]));
    }
    log.done(log.begin("running", "p"));
    log.secs += 7 * 86_400;
    assert_eq!(tick(&mut log).len(), 32);
    assert_eq!(tick(&mut log).len(), 8);
    assert_eq!(tick(&mut log).len(), 0);
    let left: Vec<u64> = log
        .state
        .recoveries_newest_first()
        .map(|r| r.number)
        .collect();
    assert_eq!(left, [41], "what runs is kept at any age");
}

#[test]
fn the_audit_of_one_recovery_is_bounded() {
    let mut log = Log::new();
    log.done(log.begin("r1", "p"));
    log.done(Command::Remark {
        uid: samples::uid("r1"),
        epoch: log.epoch(),
        lines: vec!["line".into(); AUDIT_ENTRIES_MAX + 5],
        errors: Vec::new(),
        possible_loss: Vec::new(),
    });
    let recovery = log.state.recovery(&samples::uid("r1")).expect("begun");
    assert_eq!(recovery.lines.len(), AUDIT_ENTRIES_MAX);
    assert!(
        recovery
            .lines
            .last()
            .expect("full")
            .message
            .contains("full")
    );
}

#[test]
fn versions_never_go_back() {
    let mut log = Log::new();
    log.done(Command::SetVersion {
        command: 3,
        snapshot: 2,
    });
    assert!(matches!(
        log.refused(Command::SetVersion {
            command: 2,
            snapshot: 2
        }),
        Refusal::Invalid(_)
    ));
    assert_eq!(log.state.versions().command, 3);
}

#[test]
fn log_time_never_goes_back() {
    let mut log = Log::new();
    let before = log.state.log_time();
    log.secs -= 1_000;
    tick(&mut log);
    assert_eq!(log.state.log_time(), before);
}
