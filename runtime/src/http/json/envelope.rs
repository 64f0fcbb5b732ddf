//! The envelope around answers that carry a message.

use serde::Serialize;

/// How it went.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Code {
    Ok,
    Error,
}

/// `APIResponse`: all three members are always there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct Envelope<T> {
    pub code: Code,
    pub message: String,
    pub details: Option<T>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::json::encode;

    #[test]
    fn all_members_are_always_there() {
        let error: Envelope<()> = Envelope {
            code: Code::Error,
            message: String::from("no <leader>"),
            details: None,
        };
        assert_eq!(
            encode(&error).unwrap(),
            br#"{"Code":"ERROR","Message":"no \u003cleader\u003e","Details":null}"#
        );
        let ok = Envelope {
            code: Code::Ok,
            message: String::new(),
            details: Some(1),
        };
        assert_eq!(
            encode(&ok).unwrap(),
            br#"{"Code":"OK","Message":"","Details":1}"#
        );
    }
}
