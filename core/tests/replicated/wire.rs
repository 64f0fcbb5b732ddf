//! The bytes of commands and answers do not change: golden files hold what version 1 wrote.
//!
//! `UPDATE_GOLDENFILES=1` rewrites them. Do that for kinds and fields that no release has written; a file that a release
//! could have written is kept, and its version goes on being read.

use std::{collections::BTreeMap, fmt::Write as _, fs, path::PathBuf};

use orchestrator_core::{
    replicated::{
        Stamped, WireError,
        wire::{COMMAND_VERSION, decode_answer, decode_command, encode_answer, encode_command},
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
    for (kind, commands) in by_kind {
        let encodings: Vec<Vec<u8>> = commands.iter().map(encode_command).collect();
        check_golden(kind, &encodings);
        // What is in the file is what is read, whatever this release writes.
        let held = fs::read_to_string(golden(kind)).expect("read before");
        let decoded: Vec<Stamped> = held
            .lines()
            .map(|line| decode_command(&unhex(line)).expect("a golden command"))
            .collect();
        assert_eq!(decoded, commands);
    }
}

#[test]
fn answers_keep_their_bytes() {
    let answers = samples::answers();
    let encodings: Vec<Vec<u8>> = answers.iter().map(encode_answer).collect();
    check_golden("answers", &encodings);
    for (bytes, answer) in encodings.iter().zip(answers) {
        assert_eq!(decode_answer(bytes), Ok(answer));
    }
}

#[test]
fn later_versions_and_unknown_kinds_are_named() {
    let command = Stamped {
        wall: WALL,
        command: samples::commands().remove(0),
    };
    let mut bytes = encode_command(&command);
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
    let mut bytes = encode_command(&command);
    bytes.push(0);
    assert_eq!(decode_command(&bytes), Err(WireError::Trailing(1)));
}

#[test]
fn every_cut_is_noticed() {
    for command in samples::commands() {
        let bytes = encode_command(&Stamped {
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
        let mut bytes = encode_command(&Stamped { wall: WALL, command });
        for (place, byte) in places {
            let place = place.index(bytes.len());
            bytes[place] = byte;
        }
        if let Ok(decoded) = decode_command(&bytes) {
            prop_assert_eq!(encode_command(&decoded), bytes);
        }
    }

    #[test]
    fn any_bytes_are_survived(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        let _ = decode_command(&bytes);
        let _ = decode_answer(&bytes);
    }
}
