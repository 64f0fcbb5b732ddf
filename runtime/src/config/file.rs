//! Finding, reading and merging configuration files.
//!
//! A file is one JSON object; whatever follows it is left alone. It is read leniently where the original was:
//! names without regard to case, the last of two equal names wins, unknown names are no error. It is read
//! strictly where a mistake would change what is done: every value has its key's type. Files are merged key by
//! key in their order; nothing is derived here, see [`super::check`].

use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde_json::Value as Json;

use super::ReadFile;
use super::error::{Cause, Findings, Place, excerpt};
use super::keys;
use super::near;
use super::values::{self, Values};

/// Where files are looked for when none is named, in the order in which they are laid over each other.
pub const IMPLICIT_FILES: [&str; 3] = [
    "/etc/orchestrator.conf.json",
    "conf/orchestrator.conf.json",
    "orchestrator.conf.json",
];

/// The largest file that is read, in bytes.
pub const FILE_BYTES_MAX: usize = 4 << 20;

/// Reads the files there are: only `explicit` if it is given (it must exist), else those of the implicit list
/// that exist.
pub(super) fn read(
    explicit: Option<&Path>,
    read: ReadFile<'_>,
    findings: &mut Findings,
) -> Vec<(PathBuf, Vec<u8>)> {
    let (paths, must_exist): (Vec<PathBuf>, bool) = match explicit {
        Some(path) => (vec![path.to_owned()], true),
        None => (IMPLICIT_FILES.iter().map(PathBuf::from).collect(), false),
    };
    let mut files = Vec::new();
    for path in paths {
        match read(&path) {
            Ok(bytes) => files.push((path, bytes)),
            Err(error) if !must_exist && is_missing(&error) => {}
            Err(error) => {
                let file: Arc<str> = path.display().to_string().into();
                findings.problem(
                    Some(Place::whole(&file)),
                    None,
                    Cause::Unreadable(error.to_string()),
                );
            }
        }
    }
    files
}

fn is_missing(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
    )
}

/// Lays one file over the values. False when the file as a whole could not be understood.
pub(super) fn merge(
    name: &str,
    bytes: &[u8],
    values: &mut Values,
    findings: &mut Findings,
) -> bool {
    let file: Arc<str> = name.into();
    let whole = Place::whole(&file);
    if bytes.len() > FILE_BYTES_MAX {
        let reason = format!("larger than {FILE_BYTES_MAX} bytes");
        findings.problem(Some(whole), None, Cause::Unreadable(reason));
        return false;
    }
    let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
    let text = String::from_utf8_lossy(bytes);
    if let Err(error) = std::str::from_utf8(bytes) {
        let place = place_at(&file, &text, error.valid_up_to());
        findings.warn(
            Some(&place),
            "bytes that are not UTF-8 are replaced by the replacement character",
        );
    }
    let members = match members(&file, &text, findings) {
        Ok(members) => members,
        Err((place, reason)) => {
            findings.problem(Some(place), None, Cause::Syntax(reason));
            return false;
        }
    };
    let mut seen = BTreeSet::new();
    for Member { name, json, place } in members {
        if name.starts_with('#') {
            continue;
        }
        let first = seen.insert(name.to_ascii_lowercase());
        let Some(key) = keys::find(&name) else {
            if first {
                warn_of_unknown(&name, &place, findings);
            }
            continue;
        };
        if !first {
            findings.warn(
                Some(&place),
                format_args!(
                    "{} stands in this file before: the last one counts",
                    key.name
                ),
            );
        }
        match values::decode(key, &json) {
            Ok(Some(value)) => values.set(key, value, place),
            Ok(None) => {}
            Err(cause) => {
                values.refuse(key);
                findings.problem(Some(place), Some(key.name), cause);
            }
        }
    }
    true
}

fn warn_of_unknown(name: &str, place: &Place, findings: &mut Findings) {
    if let Some(historic) = keys::find_historic(name) {
        findings.warn(
            Some(place),
            format_args!("{historic} is a name of old versions: it is ignored"),
        );
        return;
    }
    // Looking for the nearest name takes time, which a warning that nobody will see is not worth.
    match Some(name)
        .filter(|_| findings.has_room_for_warnings())
        .and_then(near::nearest)
    {
        Some(near) => findings.warn(
            Some(place),
            format_args!("unknown key {}: did you mean {near}?", excerpt(name)),
        ),
        None => findings.warn(
            Some(place),
            format_args!("unknown key {}: it is ignored", excerpt(name)),
        ),
    }
}

/// One member of the file's object.
struct Member {
    name: String,
    json: Json,
    /// Where its name stands.
    place: Place,
}

/// The members of the first JSON value of a text, in order, with their places.
fn members(
    file: &Arc<str>,
    text: &str,
    findings: &mut Findings,
) -> Result<Vec<Member>, (Place, String)> {
    let mut stream = serde_json::Deserializer::from_str(text).into_iter::<Json>();
    match stream.next() {
        None => return Err((Place::whole(file), "the file is empty".to_owned())),
        Some(Err(error)) => {
            let place = place_at(file, text, last_read(text, &error));
            let reason = error.to_string();
            let reason = reason
                .split(" at line ")
                .next()
                .unwrap_or_default()
                .to_owned();
            return Err((place, reason));
        }
        Some(Ok(Json::Object(_))) => {}
        Some(Ok(_)) => {
            let start = text.len() - text.trim_start().len();
            return Err((
                place_at(file, text, start),
                "the file must hold an object, that is begin with {".to_owned(),
            ));
        }
    }
    let end = stream.byte_offset();
    let rest = &text[end..];
    if !rest.trim().is_empty() {
        let start = end + rest.len() - rest.trim_start().len();
        findings.warn(
            Some(&place_at(file, text, start)),
            "only the first JSON value of a file counts: what follows is ignored",
        );
    }
    let mut places = Places::new(file, text);
    let mut members = Vec::new();
    for span in spans(&text[..end]) {
        // Both parse: the whole object did.
        let (Ok(name), Ok(json)) = (
            serde_json::from_str(span.name),
            serde_json::from_str(span.value),
        ) else {
            continue;
        };
        members.push(Member {
            name,
            json,
            place: places.at(span.start),
        });
    }
    Ok(members)
}

/// The last character that was read before an error: its columns count bytes, and begin anew behind a line's end.
fn last_read(text: &str, error: &serde_json::Error) -> usize {
    let lines_before = error.line().saturating_sub(1);
    let line_start: usize = text
        .split_inclusive('\n')
        .take(lines_before)
        .map(str::len)
        .sum();
    text.floor_char_boundary((line_start + error.column()).saturating_sub(1))
}

fn place_at(file: &Arc<str>, text: &str, offset: usize) -> Place {
    Places::new(file, text).at(offset)
}

/// Turns rising offsets into places, reading the text once.
struct Places<'t> {
    file: &'t Arc<str>,
    text: &'t str,
    offset: usize,
    line: usize,
    column: usize,
}

impl<'t> Places<'t> {
    fn new(file: &'t Arc<str>, text: &'t str) -> Places<'t> {
        Places {
            file,
            text,
            offset: 0,
            line: 1,
            column: 1,
        }
    }

    fn at(&mut self, offset: usize) -> Place {
        for c in self
            .text
            .get(self.offset..offset)
            .unwrap_or_default()
            .chars()
        {
            if c == '\n' {
                self.line += 1;
                self.column = 1;
            } else {
                self.column += 1;
            }
        }
        self.offset = offset;
        Place {
            file: Arc::clone(self.file),
            position: Some((self.line, self.column)),
        }
    }
}

/// The name and the value of a member, as they are written.
struct Span<'t> {
    start: usize,
    name: &'t str,
    value: &'t str,
}

/// Splits a valid JSON object into its members. `serde_json` keeps neither their places nor, in its map, their
/// order and repetitions; given that the text is valid, quotes and brackets are all there is to count.
fn spans(object: &str) -> Vec<Span<'_>> {
    let bytes = object.as_bytes();
    let skip = |mut at: usize, skipped: &[u8]| {
        while bytes.get(at).is_some_and(|byte| skipped.contains(byte)) {
            at += 1;
        }
        at
    };
    let mut spans = Vec::new();
    let mut at = skip(0, b" \t\r\n{");
    while bytes.get(at) == Some(&b'"') {
        let name_end = value_end(bytes, at);
        let value_start = skip(name_end, b" \t\r\n:");
        let value_end = value_end(bytes, value_start);
        let (Some(name), Some(value)) =
            (object.get(at..name_end), object.get(value_start..value_end))
        else {
            break;
        };
        spans.push(Span {
            start: at,
            name,
            value,
        });
        at = skip(value_end, b" \t\r\n,");
    }
    spans
}

/// Where the value that begins at `start` ends.
fn value_end(bytes: &[u8], start: usize) -> usize {
    let mut depth = 0usize;
    let mut at = start;
    while let Some(byte) = bytes.get(at) {
        match byte {
            b'"' => {
                at += 1;
                while let Some(byte) = bytes.get(at).filter(|byte| **byte != b'"') {
                    at += if *byte == b'\\' { 2 } else { 1 };
                }
            }
            b'{' | b'[' => depth += 1,
            b'}' | b']' if depth == 0 => return at,
            b'}' | b']' => depth -= 1,
            b',' | b':' | b' ' | b'\t' | b'\r' | b'\n' if depth == 0 => return at,
            _ => {}
        }
        at += 1;
        if depth == 0 && matches!(byte, b'"' | b'}' | b']') {
            return at;
        }
    }
    bytes.len()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn json() -> impl Strategy<Value = Json> {
        let leaf = prop_oneof![
            Just(Json::Null),
            any::<bool>().prop_map(Json::from),
            any::<i64>().prop_map(Json::from),
            ".{0,8}".prop_map(Json::from),
        ];
        leaf.prop_recursive(3, 16, 4, |inner| {
            prop_oneof![
                proptest::collection::vec(inner.clone(), 0..4).prop_map(Json::from),
                proptest::collection::btree_map(".{0,8}", inner, 0..4)
                    .prop_map(|map| map.into_iter().collect()),
            ]
        })
    }

    proptest! {
        #[test]
        fn members_are_found_where_they_stand(
            object in proptest::collection::btree_map(".{0,8}", json(), 0..6),
            pretty in any::<bool>(),
        ) {
            let whole: Json = object.clone().into_iter().collect();
            let text = if pretty { serde_json::to_string_pretty(&whole) } else { serde_json::to_string(&whole) };
            let text = text.expect("a value can be printed");
            let file: Arc<str> = "f".into();
            let members = members(&file, &text, &mut Findings::default()).expect("what was printed is valid");
            let read: Vec<(String, Json)> = members.into_iter().map(|member| (member.name, member.json)).collect();
            prop_assert_eq!(read, object.into_iter().collect::<Vec<_>>());
        }
    }
}
