//! Snapshots: at size, golden, and damaged.

use orchestrator_core::{
    id::{InstanceKey, LogPosition, NodeId},
    recovery::{DeadKind, End, Purpose},
    replicated::{
        ChangeCause, Command, Members, Protocols, Replicated, Stamped, WireError,
        snapshot::SNAPSHOT_VERSION,
    },
    time::Wall,
};

use crate::samples::{self, epoch, identity, key, uid};

struct Log {
    state: Replicated,
    index: u64,
}

impl Log {
    fn apply(&mut self, command: Command) {
        self.index += 1;
        let at = LogPosition {
            index: self.index,
            term: 3,
            node: NodeId(0),
        };
        let wall = Wall::from_secs(1_800_000_000 + self.index);
        self.state.apply(at, &Stamped { wall, command });
    }

    fn begin(&mut self, name: &str, server: &InstanceKey) {
        self.apply(Command::BeginRecovery {
            uid: uid(name),
            purpose: Purpose::DeadPrimary {
                kind: DeadKind::Gone,
            },
            epoch: epoch(3),
            identity: Some(identity(&server.host)),
            cluster_name: server.to_string(),
            server: server.clone(),
            analysis: "DeadMaster".into(),
            replicas: Vec::new(),
            processing_node: "n1".into(),
            processing_token: "token".into(),
            forced: false,
            was_read_only: false,
        });
    }

    fn recovery(&mut self, name: &str, server: &InstanceKey, lines: usize) {
        self.begin(name, server);
        self.apply(Command::Remark {
            uid: uid(name),
            epoch: epoch(3),
            lines: (0..lines)
                .map(|line| {
                    format!("{name}: line {line} of an audit that says what was done and why")
                })
                .collect(),
            errors: Vec::new(),
            possible_loss: Vec::new(),
        });
        self.apply(Command::EndRecovery {
            uid: uid(name),
            epoch: epoch(3),
            end: End::Failed {
                reason: "none left".into(),
            },
            successor: None,
            successor_identity: None,
            successor_alias: String::new(),
            lost: Vec::new(),
            participants: Vec::new(),
            lines: Vec::new(),
        });
    }
}

fn new_log() -> Log {
    Log {
        state: Replicated::default(),
        index: 0,
    }
}

#[test]
fn ten_thousand_servers_and_a_hundred_thousand_lines_come_back() {
    let mut log = new_log();
    for batch in 0..20 {
        log.apply(Command::Know {
            keys: (0..500)
                .map(|n| key(&format!("server-{:05}.example", batch * 500 + n)))
                .collect(),
            by_operator: false,
        });
    }
    for n in 0..100 {
        log.recovery(
            &format!("r{n}"),
            &key(&format!("server-{n:05}.example")),
            1_000,
        );
    }
    assert_eq!(log.state.known_count(), 10_000);
    let lines: usize = log
        .state
        .recoveries_newest_first()
        .map(|recovery| recovery.lines.len())
        .sum();
    assert_eq!(lines, 100_000);

    let bytes = log.state.encode_snapshot();
    let restored = Replicated::decode_snapshot(&bytes).expect("own snapshot");
    assert_eq!(restored.digest(), log.state.digest());
    assert_eq!(restored.check_invariants(), Ok(()));
    assert_eq!(restored.encode_snapshot(), bytes);
    assert_eq!(restored.applied(), log.state.applied());
    let rest: Vec<_> = restored.everything().collect();
    assert!(rest.len() > 110_000, "{} rows", rest.len());

    // It goes on like the one that was never restored.
    let mut copy = Log {
        state: restored,
        index: log.index,
    };
    for log in [&mut log, &mut copy] {
        log.recovery("later", &key("server-00001.example"), 3);
        log.apply(Command::Forget {
            keys: vec![key("server-00002.example")],
        });
    }
    assert_eq!(copy.state.digest(), log.state.digest());
}

/// Every kind of row, of the release that first wrote it.
#[test]
fn a_golden_snapshot_is_read() {
    let mut log = new_log();
    let members = Members {
        voters: vec![[NodeId(1), NodeId(2), NodeId(u64::MAX)].into()],
        learners: [NodeId(4)].into(),
    };
    log.index += 1;
    let at = LogPosition {
        index: log.index,
        term: 3,
        node: NodeId(0),
    };
    log.state.seat(at, &members);
    let base = at.index;
    for command in samples::commands() {
        // These would take away what is to be in the file.
        if matches!(
            command,
            Command::SetPolicy(_) | Command::LiftQuarantine { .. }
        ) {
            continue;
        }
        log.apply(command);
    }
    log.apply(Command::BeginMaintenance {
        key: key("b"),
        owner: "dba".into(),
        reason: "disk".into(),
        until: Wall::from_secs(1_900_000_000),
    });
    log.apply(Command::PutTag {
        key: key("b"),
        name: "role".into(),
        value: "backup".into(),
    });
    log.apply(Command::Know {
        keys: vec![key("z")],
        by_operator: false,
    });
    log.apply(Command::Forget {
        keys: vec![key("z")],
    });
    log.apply(Command::BeginMemberChange {
        epoch: epoch(3),
        base,
        wanted: vec![NodeId(1), NodeId(3), NodeId(u64::MAX)],
        cause: ChangeCause::Swapped {
            former: NodeId(2),
            newcomer: NodeId(3),
            address: "n2:10008".into(),
        },
    });
    log.apply(Command::EndMemberChange {
        epoch: epoch(3),
        base,
        reason: "it did not answer".into(),
    });
    log.apply(Command::BeginMemberChange {
        epoch: epoch(3),
        base,
        wanted: vec![NodeId(1), NodeId(2)],
        cause: ChangeCause::Operator {
            request: "an operator removes n9:10008".into(),
        },
    });
    log.begin("running", &key("y"));
    log.begin("blocked", &key("y"));
    assert_eq!(log.state.deposed().count(), 1);
    assert_eq!(log.state.blocked().count(), 1);
    assert_eq!(log.state.members().count(), 1);
    assert_eq!(log.state.declarations().count(), 1);
    assert!(log.state.member_change().is_some() && log.state.given_up().is_some());
    let described = log.state.member(NodeId(1)).expect("a description");
    assert!(described.protocols.is_some());
    let bytes = log.state.encode_snapshot();
    let digest = log.state.digest().to_vec();
    crate::wire::check_golden(
        &crate::wire::of_version(SNAPSHOT_VERSION, "snapshot"),
        &[bytes, digest],
    );
    for version in 1..=SNAPSHOT_VERSION {
        let name = crate::wire::golden(&crate::wire::of_version(version, "snapshot"));
        let held = std::fs::read_to_string(name).expect("a golden file");
        let mut lines = held.lines().map(crate::wire::unhex);
        let bytes = lines.next().expect("a snapshot");
        let restored = Replicated::decode_snapshot(&bytes).expect("a golden snapshot");
        assert_eq!(restored.check_invariants(), Ok(()));
        assert_eq!(restored.digest().to_vec(), lines.next().expect("a digest"));
        // Until another version is switched on it is written as it was.
        assert_eq!(restored.encode_snapshot(), bytes);
        let newest = version - 1;
        let too_old = Replicated::decode_snapshot_up_to(newest, &bytes).expect_err("a later one");
        let found = version;
        assert_eq!(too_old, WireError::Version { found, newest });
    }
}

/// A member of the release before reads what is written until the later version is switched on, and comes to the same
/// digest; from that entry on everybody writes the later one.
#[test]
fn a_version_is_written_once_it_is_switched_on() {
    let mut log = new_log();
    log.index += 1;
    let at = LogPosition {
        index: log.index,
        term: 3,
        node: NodeId(0),
    };
    let voters = [NodeId(1)].into();
    let members = Members {
        voters: vec![voters],
        learners: [].into(),
    };
    log.state.seat(at, &members);
    let describe = samples::commands()
        .into_iter()
        .find(|command| matches!(command, Command::DescribeMember { .. }));
    log.apply(describe.expect("a sample"));
    let speaks = Command::DescribeProtocols {
        node: NodeId(1),
        protocols: Protocols {
            oldest: 2,
            newest: 3,
        },
    };
    // It has no place so far, and changes nothing.
    log.apply(speaks.clone());
    let bytes = log.state.encode_snapshot();
    let old = Replicated::decode_snapshot_up_to(1, &bytes).expect("of version 1");
    assert_eq!(old.digest(), log.state.digest());
    assert_eq!(old.member(NodeId(1)).expect("described").protocols, None);

    log.apply(Command::SetVersion {
        command: 2,
        snapshot: 2,
    });
    log.apply(speaks);
    let bytes = log.state.encode_snapshot();
    assert!(Replicated::decode_snapshot_up_to(1, &bytes).is_err());
    let restored = Replicated::decode_snapshot(&bytes).expect("of version 2");
    assert_eq!(restored.digest(), log.state.digest());
    assert_eq!(restored.check_invariants(), Ok(()));
    let member = restored.member(NodeId(1)).expect("described");
    let newest = member.protocols.map(|protocols| protocols.newest);
    assert_eq!(newest, Some(3));
}

#[test]
fn damage_is_noticed() {
    let mut log = new_log();
    log.apply(Command::Know {
        keys: vec![key("p")],
        by_operator: false,
    });
    let bytes = log.state.encode_snapshot();
    for cut in 0..bytes.len() {
        assert!(
            Replicated::decode_snapshot(&bytes[..cut]).is_err(),
            "cut at {cut}"
        );
    }
    for place in 0..bytes.len() {
        let mut damaged = bytes.clone();
        damaged[place] ^= 1;
        let error = Replicated::decode_snapshot(&damaged).expect_err("damaged");
        match place {
            0..8 => assert_eq!(error, WireError::Magic),
            8 => assert!(matches!(error, WireError::Version { .. })),
            _ => assert_eq!(error, WireError::Checksum),
        }
    }
    let mut later = bytes;
    later[8] = SNAPSHOT_VERSION + 1;
    assert_eq!(
        Replicated::decode_snapshot(&later).expect_err("a later version"),
        WireError::Version {
            found: SNAPSHOT_VERSION + 1,
            newest: SNAPSHOT_VERSION
        }
    );
}
