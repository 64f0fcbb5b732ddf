//! For fuzzing: bytes from other daemons and from the raft directory go through everything that reads them.

use sha2::{Digest as _, Sha256};

use super::serve::{check_numbers, contradiction};
use super::wire::{self, Hello, HelloAnswer, LONELY, PROTOCOLS, Request, Response};
use super::{identity, snapshot};
use crate::env::TokioEnv;

/// Panics only if a promise is broken: what is read is written and read to the same.
pub fn check_bytes(bytes: &[u8]) {
    let framed: Vec<u8> = [LONELY].iter().chain(bytes).copied().collect();
    for frame in [bytes, &framed] {
        check_handshake::<Hello>(frame);
        check_handshake::<HelloAnswer>(frame);
        check_message::<Response>(frame);
        if let Some(request) = check_message::<Request>(frame) {
            if let Request::Append { entries, .. } = &request {
                for found in entries {
                    // A membership that contradicts itself is refused.
                    if let Ok(entry) = wire::entry::<TokioEnv>(found.clone()) {
                        assert_eq!(wire::mirror_entry::<TokioEnv>(&entry), *found);
                    }
                }
            }
            let _ = check_numbers(&request);
            let _ = contradiction(&request);
        }
    }
    if let Ok(entry) = wire::decode_entry(bytes) {
        let written = wire::encode_entry(&entry).expect("it was read");
        assert_eq!(wire::decode_entry(&written).expect("of our own"), entry);
    }
    // A snapshot file, and one whose checksum is right.
    let _ = snapshot::decode(bytes);
    let mut sound = snapshot::MAGIC.to_vec();
    sound.extend_from_slice(bytes);
    let sum = Sha256::digest(&sound);
    sound.extend_from_slice(&sum);
    if let Ok((head, data)) = snapshot::decode(&sound) {
        let written = snapshot::encode(&head, &data).expect("it was read");
        assert_eq!(
            snapshot::decode(&written).expect("of our own"),
            (head, data)
        );
    }
    let body = String::from_utf8_lossy(bytes);
    let summed = format!("{body}sum {}\n", identity::checksum(&body));
    for record in [bytes, summed.as_bytes()] {
        if let Ok(found) = identity::decode(record) {
            assert_eq!(
                identity::decode(&identity::encode(&found)).as_ref(),
                Ok(&found)
            );
        }
    }
}

fn check_message<T>(frame: &[u8]) -> Option<T>
where
    T: serde::Serialize + serde::de::DeserializeOwned + PartialEq + std::fmt::Debug,
{
    let protocol = *frame.first()?;
    let message = wire::decode_frame::<T>(frame, protocol).ok()?;
    let written = wire::encode_frame(&message, protocol).expect("it was read");
    assert_eq!(
        wire::decode_frame::<T>(&written[4..], protocol).expect("of our own"),
        message
    );
    Some(message)
}

fn check_handshake<T>(frame: &[u8])
where
    T: serde::Serialize + serde::de::DeserializeOwned + PartialEq + std::fmt::Debug,
{
    let Ok((said, form)) = wire::decode_handshake::<T>(frame, PROTOCOLS) else {
        return;
    };
    let written = wire::encode_handshake(&said.message, form, said.speaks).expect("it was read");
    assert_eq!(
        wire::decode_handshake::<T>(&written[4..], PROTOCOLS).expect("of our own"),
        (said, form)
    );
}
