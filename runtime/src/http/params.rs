//! What a request says: parameters of its path and of its query, and the texts they are written in.

use std::time::Duration;

use orchestrator_core::limits::TEXT_BYTES_MAX;

use super::answer::Failure;

/// How many tags one search may name.
const SEARCH_TERMS_MAX: usize = 64;

/// Parameters by name. A parameter of the path wins over one of the query, except where a route says otherwise.
#[derive(Debug, Clone, Default)]
pub(super) struct Params {
    pub(super) path: Vec<(String, String)>,
    pub(super) query: Vec<(String, String)>,
}

impl Params {
    pub(super) fn path(&self, name: &str) -> Option<&str> {
        find(&self.path, name)
    }

    pub(super) fn query(&self, name: &str) -> Option<&str> {
        find(&self.query, name)
    }

    /// From the path, or else from the query.
    pub(super) fn get(&self, name: &str) -> Option<&str> {
        self.path(name).or_else(|| self.query(name))
    }

    /// The parameter as free text.
    ///
    /// # Errors
    /// When it is longer than what is kept of such a text.
    pub(super) fn text(&self, name: &str) -> Result<Option<&str>, Failure> {
        let text = self.get(name);
        match text {
            Some(text) if text.len() > TEXT_BYTES_MAX => Err(Failure::plain(format!(
                "{name} is longer than {TEXT_BYTES_MAX} bytes"
            ))),
            Some(_) | None => Ok(text),
        }
    }

    /// The page of a list: from 0, which also stands for anything that is no page.
    pub(super) fn page(&self) -> usize {
        self.get("page")
            .and_then(|page| page.parse().ok())
            .unwrap_or(0)
    }

    /// Only the literal `true` counts.
    pub(super) fn is_true(&self, name: &str) -> bool {
        self.query(name) == Some("true")
    }
}

fn find<'a>(pairs: &'a [(String, String)], name: &str) -> Option<&'a str> {
    pairs
        .iter()
        .find(|(key, _)| key == name)
        .map(|(_, value)| value.as_str())
}

/// `^[0-9]+[smhdw]$`
pub(super) fn simple_time(text: &str) -> Result<Duration, Failure> {
    let bad = || Failure::plain(format!("Cannot parse simple time: {text}"));
    let unit = text.chars().last().ok_or_else(bad)?;
    let seconds = match unit {
        's' => 1,
        'm' => 60,
        'h' => 3600,
        'd' => 86_400,
        'w' => 7 * 86_400,
        _ => return Err(bad()),
    };
    let digits = &text[..text.len() - unit.len_utf8()];
    if !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(bad());
    }
    let count: u64 = digits.parse().map_err(|_| bad())?;
    count
        .checked_mul(seconds)
        .map(Duration::from_secs)
        .ok_or_else(bad)
}

/// A tag as operators write it: `name`, `name=value`, and in searches `~` or `!` before it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct TagText {
    pub(super) name: String,
    pub(super) value: Option<String>,
    pub(super) is_negated: bool,
}

impl TagText {
    pub(super) fn parse(text: &str) -> Result<TagText, Failure> {
        let trimmed = text.trim();
        let rest = trimmed.strip_prefix(['~', '!']);
        let is_negated = rest.is_some();
        let rest = rest.unwrap_or(trimmed);
        let (name, value) = match rest.split_once('=') {
            Some((name, value)) => (name, Some(String::from(value))),
            None => (rest, None),
        };
        if name.is_empty() {
            return Err(Failure::plain(format!("Unable to parse tag: {text}")));
        }
        Ok(TagText {
            name: String::from(name),
            value,
            is_negated,
        })
    }

    /// The terms of a search, separated by commas. Each is looked up for each server, while nothing else is done.
    pub(super) fn parse_search(text: &str) -> Result<Vec<TagText>, Failure> {
        let count = text.split(',').count();
        if count > SEARCH_TERMS_MAX {
            return Err(Failure::plain(format!(
                "{count} tags are searched for; at most {SEARCH_TERMS_MAX} at once"
            )));
        }
        text.split(',').map(TagText::parse).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_search_has_so_many_terms() {
        let terms = |count: usize| vec!["~a"; count].join(",");
        assert_eq!(TagText::parse_search(&terms(64)).unwrap().len(), 64);
        let refused = TagText::parse_search(&terms(65)).unwrap_err();
        assert!(
            refused.message.contains("at most 64"),
            "{}",
            refused.message
        );
    }

    #[test]
    fn simple_times() {
        for (text, seconds) in [
            ("0s", 0),
            ("10m", 600),
            ("2h", 7200),
            ("1d", 86_400),
            ("1w", 604_800),
        ] {
            assert_eq!(simple_time(text).unwrap().as_secs(), seconds, "{text}");
        }
        for text in [
            "",
            "s",
            "10",
            "-1s",
            "+1s",
            "1.5h",
            "1y",
            "1sä",
            "ä",
            "99999999999999999w",
        ] {
            let failure = simple_time(text).unwrap_err();
            assert_eq!(failure.message, format!("Cannot parse simple time: {text}"));
        }
    }

    #[test]
    fn tags_are_parsed() {
        let tag = |name: &str, value: Option<&str>, is_negated| TagText {
            name: name.into(),
            value: value.map(String::from),
            is_negated,
        };
        assert_eq!(
            TagText::parse_search("a, b=c ,~d,!e=f,g=").unwrap(),
            [
                tag("a", None, false),
                tag("b", Some("c"), false),
                tag("d", None, true),
                tag("e", Some("f"), true),
                tag("g", Some(""), false),
            ]
        );
        for text in ["", "~", "=x", "a,"] {
            let failure = TagText::parse_search(text).unwrap_err();
            assert!(
                failure.message.starts_with("Unable to parse tag: "),
                "{text}"
            );
        }
    }

    #[test]
    fn the_path_wins_and_pages_count_from_zero() {
        let pair = |key: &str, value: &str| (String::from(key), String::from(value));
        let params = Params {
            path: vec![pair("owner", "ann")],
            query: vec![pair("owner", "bob"), pair("page", "-1"), pair("x", "True")],
        };
        assert_eq!(params.get("owner"), Some("ann"));
        assert_eq!(params.query("owner"), Some("bob"));
        assert_eq!(params.page(), 0);
        assert!(!params.is_true("x"));
    }
}
