//! What was decided, as bytes: commands, histories of them, snapshots.

use orchestrator_core::{
    id::{LogPosition, NodeId},
    replicated::{Replicated, wire},
    time::Wall,
};
use sha2::{Digest as _, Sha256};

use crate::bytes::Bytes;

/// One command, or one answer: what is read is written as it was, and applying it breaks nothing.
pub fn run_command(data: &[u8]) {
    if let Ok(answer) = wire::decode_answer(data) {
        assert_eq!(
            wire::decode_answer(&wire::encode_answer(u32::from(data[0]), &answer)),
            Ok(answer)
        );
    }
    let Ok(command) = wire::decode_command(data) else {
        return;
    };
    let written =
        wire::encode_command(u32::from(data[0]), &command).expect("it was read in that version");
    assert_eq!(wire::decode_command(&written), Ok(command.clone()));
    let mut state = Replicated::default();
    for index in 1..=2 {
        let _ = state.apply(at(index), &command);
    }
    check(&state);
}

/// Commands one after another, each with its length in front: two members that apply them agree, and one that took a
/// snapshot in the middle agrees with them.
pub fn run_history(data: &[u8]) {
    let mut bytes = Bytes::new(data);
    let mut state = Replicated::default();
    let mut resumed = Replicated::default();
    let mut index = 0;
    while !bytes.is_empty() && index < 500 {
        let Ok(command) = wire::decode_command(bytes.piece()) else {
            continue;
        };
        index += 1;
        let one = state.apply(at(index), &command);
        let other = resumed.apply(at(index), &command);
        assert_eq!(one.answer, other.answer);
        assert_eq!(one.changes, other.changes);
        assert_eq!(state.digest(), resumed.digest());
        if index % 7 == 0 {
            resumed = Replicated::decode_snapshot(&resumed.encode_snapshot()).expect("of our own");
        }
    }
    check(&state);
}

/// The contents of a snapshot, with the right checksum put in front, and the bytes as a snapshot themselves.
pub fn run_snapshot(data: &[u8]) {
    let _ = Replicated::decode_snapshot(data);
    let mut whole = b"orchsnap\x01".to_vec();
    whole.extend_from_slice(&Sha256::digest(data));
    whole.extend_from_slice(data);
    if let Ok(state) = Replicated::decode_snapshot(&whole) {
        assert_eq!(
            state.encode_snapshot(),
            whole,
            "what is read is written as it was"
        );
        let _ = state.digest();
        let again = Replicated::decode_snapshot(&state.encode_snapshot()).expect("of our own");
        assert_eq!(again.digest(), state.digest());
        for wall in [Wall::EPOCH, Wall::from_nanos(u64::MAX)] {
            let _ = state.downtimes(wall).count();
        }
        let _ = state.recoveries_newest_first().count();
    }
}

fn at(index: u64) -> LogPosition {
    LogPosition {
        index,
        term: 1,
        node: NodeId(1),
    }
}

fn check(state: &Replicated) {
    state.check_invariants().expect("whatever is applied");
    let bytes = state.encode_snapshot();
    let read = Replicated::decode_snapshot(&bytes).expect("a snapshot of our own");
    assert_eq!(read.digest(), state.digest());
    assert_eq!(read.encode_snapshot(), bytes);
}
