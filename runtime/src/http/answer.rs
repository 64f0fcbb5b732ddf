//! An answer before it is put on the wire.

use axum::body::Body;
use axum::http::header::{CONTENT_LENGTH, CONTENT_TYPE, HeaderName, HeaderValue};
use axum::http::{Response, StatusCode};
use serde::Serialize;

use super::json::{self, Code, Envelope};

const JSON: HeaderValue = HeaderValue::from_static("application/json; charset=UTF-8");

/// What a request came to.
#[derive(Debug)]
pub(super) enum Answer {
    /// A bare document.
    Bare(StatusCode, Document),
    /// A document in an envelope.
    Enveloped {
        status: StatusCode,
        code: Code,
        message: String,
        details: Document,
    },
}

/// A JSON document, written when the answer was made.
#[derive(Debug)]
pub(super) struct Document(Vec<u8>);

impl Document {
    pub(super) fn of(value: &impl Serialize) -> Document {
        // The structs of the wire all have a JSON form; `null` is what is left if one had not.
        Document(json::encode(value).unwrap_or_else(|_| b"null".to_vec()))
    }

    pub(super) fn null() -> Document {
        Document(b"null".to_vec())
    }
}

/// A refusal, with the status that says how it is meant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Failure {
    pub(super) status: StatusCode,
    pub(super) message: String,
}

impl Failure {
    fn new(status: StatusCode, message: impl Into<String>) -> Failure {
        Failure {
            status,
            message: message.into(),
        }
    }

    /// Bad input, not found, refused: the wire makes no difference.
    pub(super) fn plain(message: impl Into<String>) -> Failure {
        Failure::new(StatusCode::INTERNAL_SERVER_ERROR, message)
    }

    pub(super) fn unauthorized() -> Failure {
        Failure::plain("Unauthorized")
    }

    /// Nothing was done, because nobody leads.
    pub(super) fn no_leader(message: impl Into<String>) -> Failure {
        Failure::new(StatusCode::SERVICE_UNAVAILABLE, message)
    }

    /// It may or may not have happened.
    pub(super) fn unknown(message: impl Into<String>) -> Failure {
        Failure::new(StatusCode::GATEWAY_TIMEOUT, message)
    }

    /// The leader could not be reached.
    pub(super) fn unreachable(message: impl Into<String>) -> Failure {
        Failure::new(StatusCode::BAD_GATEWAY, message)
    }

    pub(super) fn not_found(message: impl Into<String>) -> Failure {
        Failure::new(StatusCode::NOT_FOUND, message)
    }

    pub(super) fn not_served(message: impl Into<String>) -> Failure {
        Failure::new(StatusCode::NOT_IMPLEMENTED, message)
    }

    pub(super) fn not_allowed(message: impl Into<String>) -> Failure {
        Failure::new(StatusCode::METHOD_NOT_ALLOWED, message)
    }

    /// By its certificate.
    pub(super) fn not_admitted(message: impl Into<String>) -> Failure {
        Failure::new(StatusCode::UNAUTHORIZED, message)
    }

    pub(super) fn unauthenticated() -> Failure {
        Failure::new(StatusCode::UNAUTHORIZED, "Not Authorized")
    }
}

impl From<super::Gone> for Failure {
    fn from(_: super::Gone) -> Failure {
        Failure::no_leader("this daemon is shutting down")
    }
}

impl From<Failure> for Answer {
    fn from(failure: Failure) -> Answer {
        Answer::failed(failure, Document::null())
    }
}

impl Answer {
    pub(super) fn bare(value: &impl Serialize) -> Answer {
        Answer::Bare(StatusCode::OK, Document::of(value))
    }

    pub(super) fn ok(message: impl Into<String>, details: &impl Serialize) -> Answer {
        Answer::Enveloped {
            status: StatusCode::OK,
            code: Code::Ok,
            message: message.into(),
            details: Document::of(details),
        }
    }

    pub(super) fn failed(failure: Failure, details: Document) -> Answer {
        Answer::Enveloped {
            status: failure.status,
            code: Code::Error,
            message: failure.message,
            details,
        }
    }

    /// The answer on the wire. `identity` is put before the message of an envelope.
    pub(super) fn into_response(self, identity: Option<&str>) -> Response<Body> {
        let (status, bytes) = match self {
            Answer::Bare(status, Document(bytes)) => (status, bytes),
            Answer::Enveloped {
                status,
                code,
                message,
                details: Document(details),
            } => {
                let message = match identity {
                    Some(identity) => format!("Orchestrator {identity} says: {message}"),
                    None => message,
                };
                let mut bytes = Document::of(&Envelope::<()> {
                    code,
                    message,
                    details: None,
                })
                .0;
                // The details are written already: they take the place of the envelope's `null`.
                bytes.truncate(bytes.len().saturating_sub("null}".len()));
                bytes.extend_from_slice(&details);
                bytes.push(b'}');
                (status, bytes)
            }
        };
        let length = HeaderValue::from(bytes.len());
        let mut response = Response::new(Body::from(bytes));
        *response.status_mut() = status;
        response.headers_mut().insert(CONTENT_TYPE, JSON);
        response.headers_mut().insert(CONTENT_LENGTH, length);
        if status == StatusCode::SERVICE_UNAVAILABLE {
            response.headers_mut().insert(
                HeaderName::from_static("retry-after"),
                HeaderValue::from_static("1"),
            );
        }
        response
    }
}

/// Either way an answer.
pub(super) fn settle(outcome: Result<Answer, Failure>) -> Answer {
    outcome.unwrap_or_else(Answer::from)
}
