//! The values of all keys, untyped, each with the place that set it.
//!
//! It decodes one JSON value by the table of keys, judges it by its own rule, and lays it over what earlier
//! files said. It knows no rule that concerns two keys. What holds: there is always exactly one value for each
//! key of the table, of the key's kind.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use regex::Regex;
use serde_json::Value as Json;

use super::address;
use super::error::{Cause, Place, excerpt};
use super::keys::{self, KEYS, Key, Kind, Preset, Rule};

/// A value, by the kind of its key.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Value {
    Bool(bool),
    Int(i64),
    Uint(u64),
    Float(f64),
    Text(String),
    List(Vec<String>),
    Map(BTreeMap<String, String>),
}

impl Value {
    pub(super) fn of(preset: Preset) -> Value {
        match preset {
            Preset::Bool(value) => Value::Bool(value),
            Preset::Int(value) => Value::Int(value),
            Preset::Uint(value) => Value::Uint(value),
            Preset::Float(value) => Value::Float(value),
            Preset::Text(value) => Value::Text(value.to_owned()),
            Preset::List(values) => {
                Value::List(values.iter().map(|&value| value.to_owned()).collect())
            }
            Preset::EmptyMap => Value::Map(BTreeMap::new()),
        }
    }

    pub(super) fn to_json(&self) -> Json {
        match self {
            Value::Bool(value) => Json::from(*value),
            Value::Int(value) => Json::from(*value),
            Value::Uint(value) => Json::from(*value),
            Value::Float(value) => Json::from(*value),
            Value::Text(value) => Json::from(value.as_str()),
            Value::List(values) => Json::from(values.as_slice()),
            Value::Map(values) => values
                .iter()
                .map(|(key, value)| (key.clone(), Json::from(value.as_str())))
                .collect(),
        }
    }
}

/// One value and where it was said.
#[derive(Clone)]
struct Entry {
    value: Value,
    place: Option<Place>,
}

/// The values of all keys. Shown without secrets.
#[derive(Clone)]
pub(super) struct Values {
    entries: BTreeMap<&'static str, Entry>,
    /// Keys whose text in a file was refused: rules over several keys leave them alone.
    refused: BTreeSet<&'static str>,
}

impl fmt::Debug for Values {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Values({})", self.to_json(Secrets::Mask))
    }
}

impl Values {
    pub(super) fn presets() -> Values {
        let entry = |key: &Key| Entry {
            value: Value::of(key.preset),
            place: None,
        };
        let entries = KEYS.iter().map(|key| (key.name, entry(key))).collect();
        Values {
            entries,
            refused: BTreeSet::new(),
        }
    }

    fn entry(&self, name: &str) -> &Entry {
        self.entries
            .get(name)
            .unwrap_or_else(|| panic!("{name} is not in the table of keys"))
    }

    fn entry_mut(&mut self, name: &str) -> &mut Entry {
        self.entries
            .get_mut(name)
            .unwrap_or_else(|| panic!("{name} is not in the table of keys"))
    }

    pub(super) fn get(&self, name: &str) -> &Value {
        &self.entry(name).value
    }

    /// The place that set the key, if a file did.
    pub(super) fn place(&self, name: &str) -> Option<&Place> {
        self.entry(name).place.as_ref()
    }

    pub(super) fn is_set(&self, name: &str) -> bool {
        self.place(name).is_some()
    }

    /// Whether none of these was refused, so that a rule over them means something.
    pub(super) fn are_sound(&self, names: &[&str]) -> bool {
        !names.iter().any(|name| self.refused.contains(name))
    }

    pub(super) fn refuse(&mut self, key: &'static Key) {
        self.refused.insert(key.name);
    }

    /// Replaces a value and keeps the place that last set it.
    pub(super) fn adjust(&mut self, name: &'static str, value: Value) {
        let entry = self.entry_mut(name);
        assert_eq!(
            std::mem::discriminant(&entry.value),
            std::mem::discriminant(&value),
            "kind of {name}"
        );
        entry.value = value;
    }

    /// Lays a value from a file over what is there: maps merge, all else replaces.
    pub(super) fn set(&mut self, key: &'static Key, value: Value, place: Place) {
        let entry = self.entry_mut(key.name);
        match (&mut entry.value, value) {
            (Value::Map(merged), Value::Map(members)) => merged.extend(members),
            (old, value) => {
                assert_eq!(
                    std::mem::discriminant(old),
                    std::mem::discriminant(&value),
                    "kind of {}",
                    key.name
                );
                *old = value;
            }
        }
        entry.place = Some(place);
    }

    pub(super) fn flag(&self, name: &str) -> bool {
        match self.get(name) {
            Value::Bool(value) => *value,
            other => panic!("{name} is no flag but {other:?}"),
        }
    }

    /// A whole number of either sign.
    pub(super) fn int(&self, name: &str) -> i64 {
        match self.get(name) {
            Value::Int(value) => *value,
            other => panic!("{name} is no signed number but {other:?}"),
        }
    }

    /// A whole number whose type or rule keeps it from being negative.
    pub(super) fn count(&self, name: &str) -> u64 {
        match self.get(name) {
            Value::Uint(value) => *value,
            Value::Int(value) => u64::try_from(*value).unwrap_or(0),
            other => panic!("{name} is no whole number but {other:?}"),
        }
    }

    pub(super) fn float(&self, name: &str) -> f64 {
        match self.get(name) {
            Value::Float(value) => *value,
            other => panic!("{name} is no float but {other:?}"),
        }
    }

    pub(super) fn text(&self, name: &str) -> &str {
        match self.get(name) {
            Value::Text(value) => value,
            other => panic!("{name} is no text but {other:?}"),
        }
    }

    pub(super) fn list(&self, name: &str) -> &[String] {
        match self.get(name) {
            Value::List(values) => values,
            other => panic!("{name} is no list but {other:?}"),
        }
    }

    pub(super) fn map(&self, name: &str) -> &BTreeMap<String, String> {
        match self.get(name) {
            Value::Map(values) => values,
            other => panic!("{name} is no map but {other:?}"),
        }
    }

    pub(super) fn to_json(&self, secrets: Secrets) -> Json {
        let shown = |key: &Key| match (self.get(key.name), secrets) {
            (Value::Text(text), Secrets::Mask) if key.secret && !text.is_empty() => {
                Json::from(MASK)
            }
            (value, Secrets::Mask | Secrets::Show) => value.to_json(),
        };
        KEYS.iter()
            .map(|key| (key.name.to_owned(), shown(key)))
            .collect()
    }
}

/// What stands for a secret that is set.
pub const MASK: &str = "********";

/// What to do with passwords and tokens in a dump.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Secrets {
    Mask,
    Show,
}

/// Reads the JSON of one key. `None` means that it says nothing: `null`, but for a list, which it empties.
pub(super) fn decode(key: &Key, json: &Json) -> Result<Option<Value>, Cause> {
    let wrong = |found: &'static str| Cause::WrongType {
        wanted: key.kind.wanted(),
        found,
    };
    let value = match (key.kind, json) {
        (Kind::List, Json::Null) => Value::List(Vec::new()),
        (_, Json::Null) => return Ok(None),
        (Kind::Bool, Json::Bool(value)) => Value::Bool(*value),
        (Kind::Int | Kind::Int32 | Kind::Int64, Json::Number(number)) => match number.as_i64() {
            Some(value) => Value::Int(value),
            None if number.is_f64() => {
                return Err(wrong(
                    "a number with a fraction, an exponent or too many digits",
                ));
            }
            None => return Err(Cause::Impossible(format!("{number} is too large"))),
        },
        (Kind::Uint, Json::Number(number)) => match number.as_u64() {
            Some(value) => Value::Uint(value),
            None if number.is_i64() => return Err(wrong("a negative number")),
            None => {
                return Err(wrong(
                    "a number with a fraction, an exponent or too many digits",
                ));
            }
        },
        (Kind::Float32, Json::Number(number)) => match number.as_f64() {
            Some(value) if value.abs() <= f64::from(f32::MAX) => Value::Float(value),
            _ => {
                return Err(Cause::Impossible(
                    "is out of the range of a number".to_owned(),
                ));
            }
        },
        (Kind::Text, Json::String(value)) => Value::Text(value.clone()),
        (Kind::List, Json::Array(items)) => Value::List(
            items
                .iter()
                .map(|item| text_of(key, item))
                .collect::<Result<_, _>>()?,
        ),
        (Kind::Map, Json::Object(members)) => {
            let pair = |(name, item): (&String, &Json)| Ok((name.clone(), text_of(key, item)?));
            Value::Map(members.iter().map(pair).collect::<Result<_, _>>()?)
        }
        (
            Kind::Bool
            | Kind::Int
            | Kind::Int32
            | Kind::Int64
            | Kind::Uint
            | Kind::Float32
            | Kind::Text
            | Kind::List
            | Kind::Map,
            other,
        ) => return Err(wrong(type_of(other))),
    };
    judge(key, &value).map_err(Cause::Impossible)?;
    Ok(Some(value))
}

fn text_of(key: &Key, json: &Json) -> Result<String, Cause> {
    match json {
        Json::String(text) => Ok(text.clone()),
        other => Err(Cause::WrongType {
            wanted: key.kind.wanted(),
            found: match other {
                Json::Null => "one with null in it",
                Json::Bool(_) => "one with true or false in it",
                Json::Number(_) => "one with a number in it",
                Json::String(_) | Json::Array(_) => "one with a list in it",
                Json::Object(_) => "one with an object in it",
            },
        }),
    }
}

fn type_of(json: &Json) -> &'static str {
    match json {
        Json::Null => "null",
        Json::Bool(_) => "true or false",
        Json::Number(_) => "a number",
        Json::String(_) => "a text in quotes",
        Json::Array(_) => "a list",
        Json::Object(_) => "an object",
    }
}

/// Judges a value by its key's own rule. The error reads on from the key's name.
pub(super) fn judge(key: &Key, value: &Value) -> Result<(), String> {
    match value {
        Value::Bool(_) => Ok(()),
        Value::Int(number) => judge_number(key, i128::from(*number)),
        Value::Uint(number) => judge_number(key, i128::from(*number)),
        Value::Float(number) => judge_number(key, *number),
        Value::Text(text) => judge_text(key, text),
        Value::List(entries) => judge_entries(key, entries.iter()),
        Value::Map(entries) => judge_entries(key, entries.keys()),
    }
}

fn judge_number<N: PartialOrd + From<i32> + fmt::Display>(
    key: &Key,
    number: N,
) -> Result<(), String> {
    let (least, most) = match key.rule {
        Rule::Range(least, most) => (least, Some(most)),
        Rule::AtLeast(least) => (least, None),
        _ => return Ok(()),
    };
    if number < N::from(least) {
        return Err(format!("must be at least {least}, and is {number}"));
    }
    match most {
        Some(most) if number > N::from(most) => {
            Err(format!("must be at most {most}, and is {number}"))
        }
        _ => Ok(()),
    }
}

fn judge_entries<'v>(key: &Key, entries: impl Iterator<Item = &'v String>) -> Result<(), String> {
    for (index, entry) in entries.enumerate() {
        judge_text(key, entry).map_err(|reason| format!("entry {} {reason}", index + 1))?;
    }
    Ok(())
}

fn judge_text(key: &Key, text: &str) -> Result<(), String> {
    let shown = |reason: String| format!("{} {reason}", excerpt(text));
    match key.rule {
        Rule::Any | Rule::Range(..) | Rule::AtLeast(_) => Ok(()),
        Rule::Regex => regex(text).map(|_| ()),
        Rule::RegexWithGroup => match regex(text)? {
            regex if text.is_empty() || regex.captures_len() > 1 => Ok(()),
            _ => Err(shown(
                "has no group in parentheses: the group is what is taken from the host name"
                    .to_owned(),
            )),
        },
        Rule::ClusterFilter => match text.strip_prefix("alias~=") {
            Some(pattern) => regex(pattern).map(|_| ()),
            None if text == "*" || text.starts_with("alias=") => Ok(()),
            None => regex(text).map(|_| ()),
        },
        Rule::OneOf(choices)
            if choices
                .iter()
                .any(|choice| choice.eq_ignore_ascii_case(text)) =>
        {
            Ok(())
        }
        Rule::OneOf(choices) => {
            let named: Vec<&str> = choices
                .iter()
                .copied()
                .filter(|choice| !choice.is_empty())
                .collect();
            Err(shown(format!("is none of {}", named.join(", "))))
        }
        Rule::Backend if text.is_empty() || text.eq_ignore_ascii_case("mysql") => Ok(()),
        Rule::Backend if text.to_ascii_lowercase().contains("sqlite") => Ok(()),
        Rule::Backend => Err(shown("is neither mysql nor sqlite".to_owned())),
        Rule::Listen if text.is_empty() => Ok(()),
        Rule::Listen => address::listen(text).map(|_| ()).map_err(shown),
        Rule::Instance => address::dial(text, Some(1)).map(|_| ()).map_err(shown),
        Rule::HttpUrl if text.is_empty() => Ok(()),
        Rule::HttpUrl => address::http_url(text).map_err(shown),
        Rule::RoutePath if text.starts_with('/') => Ok(()),
        Rule::RoutePath => Err(shown("must begin with a slash".to_owned())),
    }
}

/// Compiles a pattern, or says in one line why it is none.
pub(super) fn regex(text: &str) -> Result<Regex, String> {
    Regex::new(text).map_err(|error| {
        let reason = match &error {
            // The last line of a syntax error says what is wrong; the lines above it draw an arrow.
            regex::Error::Syntax(report) => {
                report.lines().last().unwrap_or_default().trim().to_owned()
            }
            other => other.to_string(),
        };
        let reason = reason.strip_prefix("error: ").unwrap_or(&reason);
        format!("{} is no regular expression: {reason}", excerpt(text))
    })
}

/// The key of this name, which the caller knows to exist.
pub(super) fn known(name: &str) -> &'static Key {
    keys::find(name).unwrap_or_else(|| panic!("{name} is not in the table of keys"))
}
