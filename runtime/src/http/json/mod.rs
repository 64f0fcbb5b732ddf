//! The wire structs of the HTTP API, fields in the documented order, and how they are written.
//!
//! Decides spelling only. Names, order, number forms and timestamps are a contract with programs that read them; the
//! historical spellings (`…Runing`, `Binlog_format`) are part of it. A list is never `null`.

use std::fmt::Write as _;
use std::io;

use orchestrator_core::id::InstanceKey;
use orchestrator_core::time::Wall;
use serde::Serialize;

pub mod analysis;
pub mod cluster;
pub mod envelope;
pub mod health;
pub mod instance;
pub mod recovery;

pub use analysis::ReplicationAnalysis;
pub use cluster::ClusterInfo;
pub use envelope::{Code, Envelope};
pub use health::{
    Condition, ConditionBackend, ConditionLeader, HealthStatus, NodeHealth, RaftMember,
    RaftOriginal, RaftStatus, RaftStranger,
};
pub use instance::Instance;
pub use recovery::{BlockedTopologyRecovery, TopologyRecovery, TopologyRecoveryStep};

/// `InstanceKey` of the wire.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Default, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct Key {
    pub hostname: String,
    pub port: u16,
}

impl From<&InstanceKey> for Key {
    fn from(key: &InstanceKey) -> Self {
        Key {
            hostname: key.host.clone(),
            port: key.port,
        }
    }
}

/// Keys as the wire has them: sorted, without repetition.
#[must_use]
pub fn key_set<'a>(keys: impl IntoIterator<Item = &'a InstanceKey>) -> Vec<Key> {
    let mut keys: Vec<Key> = keys.into_iter().map(Key::from).collect();
    keys.sort();
    keys.dedup();
    keys
}

/// A number that may be NULL.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct NullInt64 {
    pub int64: i64,
    pub valid: bool,
}

impl From<Option<u64>> for NullInt64 {
    fn from(number: Option<u64>) -> Self {
        NullInt64 {
            int64: i64::try_from(number.unwrap_or(0)).unwrap_or(i64::MAX),
            valid: number.is_some(),
        }
    }
}

/// A truth value that may be NULL.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct NullBool {
    pub bool: bool,
    pub valid: bool,
}

/// `BinlogCoordinates` of the wire; `Type` 0 is a binary log, 1 a relay log.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct BinlogCoordinates {
    pub log_file: String,
    pub log_pos: u64,
    pub r#type: u8,
}

impl BinlogCoordinates {
    #[must_use]
    pub fn binary(at: &orchestrator_core::topology::BinlogCoordinates) -> Self {
        BinlogCoordinates {
            log_file: at.file.clone(),
            log_pos: at.position,
            r#type: 0,
        }
    }

    #[must_use]
    pub fn relay(at: &orchestrator_core::topology::BinlogCoordinates) -> Self {
        BinlogCoordinates {
            r#type: 1,
            ..Self::binary(at)
        }
    }
}

/// A timestamp column: `YYYY-MM-DDThh:mm:ssZ`; empty when unset.
#[must_use]
pub fn column_time(at: Option<Wall>) -> String {
    at.map_or_else(String::new, |at| at.to_string())
}

/// A computed timestamp: `YYYY-MM-DD hh:mm:ss`; empty when unset.
#[must_use]
pub fn computed_time(at: Option<Wall>) -> String {
    column_time(at).replace('T', " ").replace('Z', "")
}

/// A server's error text as the wire has it: nothing, or the text in double quotes with everything but printable ASCII
/// escaped.
#[must_use]
pub fn quoted(text: &str) -> String {
    if text.is_empty() {
        return String::new();
    }
    let mut quoted = String::with_capacity(text.len() + 2);
    quoted.push('"');
    for character in text.chars() {
        match character {
            '"' => quoted.push_str("\\\""),
            '\\' => quoted.push_str("\\\\"),
            '\n' => quoted.push_str("\\n"),
            '\r' => quoted.push_str("\\r"),
            '\t' => quoted.push_str("\\t"),
            '\u{7}' => quoted.push_str("\\a"),
            '\u{8}' => quoted.push_str("\\b"),
            '\u{b}' => quoted.push_str("\\v"),
            '\u{c}' => quoted.push_str("\\f"),
            ' '..='~' => quoted.push(character),
            '\0'..='\u{7f}' => drop(write!(quoted, "\\x{:02x}", u32::from(character))),
            '\u{80}'..='\u{ffff}' => drop(write!(quoted, "\\u{:04x}", u32::from(character))),
            _ => drop(write!(quoted, "\\U{:08x}", u32::from(character))),
        }
    }
    quoted.push('"');
    quoted
}

/// Writes a document: compact, `<`, `>` and `&` in strings as `\u003c`, `\u003e`, `\u0026`.
///
/// # Errors
/// When the value has no JSON form (a map whose keys are no text); the structs here all have one.
pub fn encode(value: &impl Serialize) -> serde_json::Result<Vec<u8>> {
    let mut bytes = Vec::with_capacity(256);
    let mut serializer = serde_json::Serializer::with_formatter(&mut bytes, Html);
    value.serialize(&mut serializer)?;
    Ok(bytes)
}

/// Makes strings safe to stand inside a page.
struct Html;

impl serde_json::ser::Formatter for Html {
    fn write_string_fragment<W: ?Sized + io::Write>(
        &mut self,
        writer: &mut W,
        fragment: &str,
    ) -> io::Result<()> {
        let mut rest = fragment;
        while let Some(at) = rest.find(['<', '>', '&', '\u{2028}', '\u{2029}']) {
            let (before, found) = rest.split_at(at);
            writer.write_all(before.as_bytes())?;
            let mut characters = found.chars();
            if let Some(character) = characters.next() {
                write!(writer, "\\u{:04x}", u32::from(character))?;
            }
            rest = characters.as_str();
        }
        writer.write_all(rest.as_bytes())
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// The example object of the documentation with this name.
    pub(super) fn example(name: &str) -> &'static str {
        let all = include_str!("examples.txt");
        let (_, rest) = all
            .split_once(&format!("# {name}\n"))
            .unwrap_or_else(|| panic!("no example {name}"));
        rest.lines().next().unwrap()
    }

    #[test]
    fn strings_are_safe_inside_a_page() {
        let encoded = encode(&"a<b>&\"c\"\u{2028}ä").unwrap();
        assert_eq!(
            String::from_utf8(encoded).unwrap(),
            r#""a\u003cb\u003e\u0026\"c\"\u2028ä""#
        );
    }

    #[test]
    fn error_texts_are_quoted() {
        assert_eq!(quoted(""), "");
        assert_eq!(
            quoted("error \"x\"\\\n\u{1}ä\u{1f600}"),
            r#""error \"x\"\\\n\x01\u00e4\U0001f600""#
        );
    }

    #[test]
    fn timestamps_have_two_forms() {
        let at = Some(Wall::from_secs(951_782_400));
        assert_eq!(column_time(at), "2000-02-29T00:00:00Z");
        assert_eq!(computed_time(at), "2000-02-29 00:00:00");
        assert_eq!(column_time(None), "");
        assert_eq!(computed_time(None), "");
    }

    #[test]
    fn key_sets_are_sorted() {
        let keys = [
            InstanceKey::new("b", 1),
            InstanceKey::new("a", 2),
            InstanceKey::new("a", 1),
            InstanceKey::new("b", 1),
        ];
        let text = encode(&key_set(&keys)).unwrap();
        assert_eq!(
            String::from_utf8(text).unwrap(),
            r#"[{"Hostname":"a","Port":1},{"Hostname":"a","Port":2},{"Hostname":"b","Port":1}]"#
        );
    }
}
