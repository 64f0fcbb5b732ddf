//! The bytes of commands and answers do not change: golden files hold what each version wrote. Those of version 1 lie in
//! `data/wire`, those of a later one in a folder of its number there.
//!
//! `UPDATE_GOLDENFILES=1` rewrites them. Do that for kinds and fields that no release has written; a file that a release
//! could have written is kept, and its version goes on being read.

use std::{collections::BTreeMap, fmt::Write as _, fs, path::PathBuf};

use orchestrator_core::{
    id::{LogPosition, NodeId},
    node::{Opinion, OpinionKind, PeerMessage, Word},
    replicated::{
        Command, OriginalSummary, Protocols, Stamped, WireError,
        wire::{
            COMMAND_VERSION, decode_answer, decode_command, decode_command_up_to, encode_answer,
            encode_command,
        },
    },
    time::Wall,
};
use proptest::prelude::*;

use crate::samples;

const WALL: Wall = Wall::from_nanos(1_800_000_000_000_000_001);

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

pub fn unhex(text: &str) -> Vec<u8> {
    let digits: Vec<u8> = text
        .bytes()
        .filter(|byte| !byte.is_ascii_whitespace())
        .collect();
    digits
        .chunks(2)
        .map(|pair| {
            let pair = std::str::from_utf8(pair).expect("ascii");
            u8::from_str_radix(pair, 16).expect("two hex digits")
        })
        .collect()
}

/// The newest version of a command: all kinds have one.
fn newest(command: &Stamped) -> Vec<u8> {
    encode_command(COMMAND_VERSION.into(), command).expect("every kind is of some version")
}

/// The golden file of something that this version writes.
pub fn of_version(version: u8, name: &str) -> String {
    match version {
        1 => name.to_owned(),
        later => format!("{later}/{name}"),
    }
}

pub fn golden(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(format!("tests/data/wire/{name}.hex"))
}

/// Compares with the golden file, or writes it.
pub fn check_golden(name: &str, encodings: &[Vec<u8>]) {
    let text = encodings.iter().fold(String::new(), |mut text, bytes| {
        text.push_str(&hex(bytes));
        text.push('\n');
        text
    });
    let path = golden(name);
    if std::env::var_os("UPDATE_GOLDENFILES").is_some_and(|set| set == "1") {
        fs::write(&path, text).expect("writes the golden file");
        return;
    }
    let held = fs::read_to_string(&path)
        .unwrap_or_else(|error| panic!("{}: {error}; UPDATE_GOLDENFILES=1", path.display()));
    assert_eq!(text, held, "bytes of {name} changed: a contract is broken");
}

#[test]
fn commands_keep_their_bytes() {
    let mut by_kind: BTreeMap<&str, Vec<Stamped>> = BTreeMap::new();
    for command in samples::commands() {
        by_kind
            .entry(samples::kind(&command))
            .or_default()
            .push(Stamped {
                wall: WALL,
                command,
            });
    }
    assert_eq!(by_kind.len(), samples::KINDS, "a kind has no sample");
    for (version, (kind, commands)) in
        (1..=COMMAND_VERSION).flat_map(|version| by_kind.iter().map(move |kind| (version, kind)))
    {
        let name = of_version(version, kind);
        let (commands, early): (Vec<&Stamped>, Vec<&Stamped>) = commands
            .iter()
            .partition(|stamped| since(&stamped.command) <= version);
        for stamped in early {
            let refused = encode_command(version.into(), stamped).expect_err("too early");
            let wanted = u32::from(since(&stamped.command));
            assert_eq!(refused.since, wanted, "{kind}");
        }
        if commands.is_empty() {
            assert!(!golden(&name).exists(), "{name}");
            continue;
        }
        let encodings: Vec<Vec<u8>> = commands
            .iter()
            .map(|command| encode_command(version.into(), command).expect("of this version"))
            .collect();
        check_golden(&name, &encodings);
        // What is in the file is what is read, whatever this release writes; and nobody of the release before reads it.
        let held = fs::read_to_string(golden(&name)).expect("read before");
        let lines: Vec<Vec<u8>> = held.lines().map(unhex).collect();
        let decoded: Vec<Stamped> = lines
            .iter()
            .map(|line| decode_command(line).expect("a golden command"))
            .collect();
        assert!(decoded.iter().eq(commands), "{name}");
        for line in &lines {
            let found = decode_command_up_to(version - 1, line).expect_err("a later version");
            let newest = version - 1;
            assert_eq!(
                found,
                WireError::Version {
                    found: version,
                    newest
                }
            );
        }
    }
}

/// The version that a kind came with, or what this one of it says.
fn since(command: &Command) -> u8 {
    match command {
        Command::DescribeProtocols { .. } | Command::TellOfDetection { .. } => 2,
        Command::RegisterDetection(detection) if detection.telling.is_some() => 2,
        _ => 1,
    }
}

/// No release that writes one version or the other takes what it cannot say for something else.
#[test]
fn a_kind_is_said_only_in_its_version() {
    let command = Stamped {
        wall: WALL,
        command: Command::DescribeProtocols {
            node: orchestrator_core::id::NodeId(1),
            protocols: Protocols {
                oldest: 2,
                newest: 3,
            },
        },
    };
    let refused = encode_command(1, &command).expect_err("of version 2");
    assert_eq!(
        refused.to_string(),
        "Command DescribeProtocols needs version 2 of commands and snapshots, and 1 is in force: the later one is switched \
         on once every member runs a release that reads it (raft-status shows what each reads)"
    );
    let mut bytes = encode_command(2, &command).expect("of version 2");
    assert_eq!(decode_command(&bytes), Ok(command.clone()));
    bytes[0] = 1;
    assert!(matches!(
        decode_command(&bytes),
        Err(WireError::Kind { .. })
    ));
    // What is in force may be later than what this release has: then it writes what it has, and its node ends.
    let newest = encode_command(9, &command).expect("of version 2");
    assert_eq!(newest[0], COMMAND_VERSION);
}

#[test]
fn answers_keep_their_bytes() {
    let answers = samples::answers();
    for version in 1..=COMMAND_VERSION {
        let encodings: Vec<Vec<u8>> = answers
            .iter()
            .map(|answer| encode_answer(version.into(), answer))
            .collect();
        check_golden(&of_version(version, "answers"), &encodings);
        for (bytes, answer) in encodings.iter().zip(&answers) {
            assert_eq!(decode_answer(bytes).as_ref(), Ok(answer));
        }
    }
}

/// What daemons say to each other beside raft, as the transport carries it.
#[test]
fn messages_between_daemons_keep_their_bytes() {
    let opinion = |kind, identity, life_ms_ago| Opinion {
        key: samples::key("db1"),
        identity,
        kind,
        life_ms_ago,
    };
    let kinds = [
        OpinionKind::Alive,
        OpinionKind::Suspect,
        OpinionKind::Gone,
        OpinionKind::Leaving,
        OpinionKind::Silent,
        OpinionKind::Abstain,
    ];
    let describe = |original| Word::Describe {
        raft_address: "10.0.0.1:10008".to_owned(),
        http_uri: "http://10.0.0.1:3000".to_owned(),
        host_name: "one".to_owned(),
        build: "0.1.0".to_owned(),
        reads_command: 2,
        reads_snapshot: 2,
        original,
    };
    let summary = OriginalSummary {
        newest: WALL,
        servers: 3,
    };
    let propose = |word| PeerMessage::Propose(word);
    let messages = [
        PeerMessage::Opinions(
            kinds
                .map(|kind| opinion(kind, Some(samples::identity("db1")), Some(300)))
                .to_vec(),
        ),
        PeerMessage::Opinions(vec![opinion(OpinionKind::Gone, None, None)]),
        PeerMessage::AskOpinion(samples::key("db2")),
        PeerMessage::Digest {
            at: LogPosition {
                index: 7,
                term: 3,
                node: NodeId(1),
            },
            digest: [0xd1; 32],
        },
        propose(describe(None)),
        propose(describe(Some(summary))),
        propose(Word::Declare {
            entries: vec!["10.0.0.1".to_owned(), "10.0.0.2:10009".to_owned()],
            identities: vec![NodeId(1), NodeId(2)],
        }),
        propose(Word::Adopt {
            part: 1,
            is_last: true,
            rows: Box::new(samples::original_rows(WALL)),
        }),
        propose(Word::Speaks(Protocols {
            oldest: 2,
            newest: 3,
        })),
    ];
    let encodings: Vec<Vec<u8>> = messages
        .iter()
        .map(|message| postcard::to_allocvec(message).expect("messages are data"))
        .collect();
    check_golden("peer_messages", &encodings);
    // A new variant needs a sample.
    for message in &messages {
        match message {
            PeerMessage::Opinions(_)
            | PeerMessage::AskOpinion(_)
            | PeerMessage::Digest { .. }
            | PeerMessage::Propose(
                Word::Describe { .. } | Word::Declare { .. } | Word::Adopt { .. } | Word::Speaks(_),
            ) => {}
        }
    }
    for (bytes, message) in encodings.iter().zip(&messages) {
        assert_eq!(
            postcard::from_bytes::<PeerMessage>(bytes).as_ref(),
            Ok(message)
        );
    }
}

#[test]
fn later_versions_and_unknown_kinds_are_named() {
    let command = Stamped {
        wall: WALL,
        command: samples::commands().remove(0),
    };
    let mut bytes = newest(&command);
    bytes[0] = COMMAND_VERSION + 1;
    assert_eq!(
        decode_command(&bytes),
        Err(WireError::Version {
            found: COMMAND_VERSION + 1,
            newest: COMMAND_VERSION
        })
    );
    assert!(
        decode_command(&bytes)
            .expect_err("a later version")
            .to_string()
            .contains("upgrade this daemon")
    );
    // Version, wall 0, kind 127.
    assert_eq!(
        decode_command(&[COMMAND_VERSION, 0, 127]),
        Err(WireError::Kind {
            of: "Command",
            found: 127
        })
    );
    assert_eq!(decode_command(&[]), Err(WireError::Short));
    let mut bytes = newest(&command);
    bytes.push(0);
    assert_eq!(decode_command(&bytes), Err(WireError::Trailing(1)));
}

#[test]
fn every_cut_is_noticed() {
    for command in samples::commands() {
        let bytes = newest(&Stamped {
            wall: WALL,
            command,
        });
        for cut in 0..bytes.len() {
            assert!(decode_command(&bytes[..cut]).is_err());
        }
    }
}

proptest! {
    /// Damage is either noticed or gives a command whose bytes are these very bytes: encodings are canonical.
    #[test]
    fn damage_is_never_a_second_spelling(
        which in 0..samples::commands().len(),
        places in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
    ) {
        let command = samples::commands().swap_remove(which);
        let mut bytes = newest(&Stamped { wall: WALL, command });
        for (place, byte) in places {
            let place = place.index(bytes.len());
            bytes[place] = byte;
        }
        if let Ok(decoded) = decode_command(&bytes) {
            let again = encode_command(bytes[0].into(), &decoded).expect("it was read in that version");
            prop_assert_eq!(again, bytes);
        }
    }

    #[test]
    fn any_bytes_are_survived(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        let _ = decode_command(&bytes);
        let _ = decode_answer(&bytes);
    }
}
