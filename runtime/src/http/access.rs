//! Who asks, and what they may.

use axum::http::HeaderMap;
use axum::http::header::AUTHORIZATION;
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;

use super::{Authentication, Settings};

/// The user of `multi` who may only look.
const READER: &str = "readonly";

/// Who asks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Caller {
    /// Empty when it is not known.
    pub user: String,
    pub may_write: bool,
}

/// Who sent a request with these headers; none: they are not let in.
#[must_use]
pub fn caller(settings: &Settings, headers: &HeaderMap) -> Option<Caller> {
    let caller = match &settings.authentication {
        Authentication::None => Caller {
            user: String::new(),
            may_write: true,
        },
        Authentication::Basic { user, password } => {
            let given = credentials(headers)?;
            equal(&given, &format!("{user}:{password}")).then(|| Caller {
                user: user.clone(),
                may_write: true,
            })?
        }
        Authentication::Multi { user, password } => {
            let given = credentials(headers)?;
            if given.split(':').next() == Some(READER) {
                Caller {
                    user: String::from(READER),
                    may_write: false,
                }
            } else {
                equal(&given, &format!("{user}:{password}")).then(|| Caller {
                    user: user.clone(),
                    may_write: true,
                })?
            }
        }
        Authentication::Proxy {
            header,
            power_users,
        } => {
            let user = headers
                .get(header.as_str())
                .and_then(|value| value.to_str().ok())
                .unwrap_or_default();
            let may_write = power_users
                .iter()
                .any(|power_user| power_user == "*" || (power_user == user && !user.is_empty()));
            Caller {
                user: String::from(user),
                may_write,
            }
        }
        Authentication::ReadersOnly => Caller {
            user: String::new(),
            may_write: false,
        },
    };
    if settings.is_read_only {
        return Some(Caller {
            user: String::new(),
            may_write: false,
        });
    }
    Some(caller)
}

/// `user:password` of an `Authorization: Basic` header.
fn credentials(headers: &HeaderMap) -> Option<String> {
    let text = headers.get(AUTHORIZATION)?.to_str().ok()?;
    let encoded = text.strip_prefix("Basic ")?;
    String::from_utf8(BASE64_STANDARD.decode(encoded.trim()).ok()?).ok()
}

/// Whether two secrets are equal, in a time that does not tell where they differ.
fn equal(one: &str, other: &str) -> bool {
    let (one, other) = (one.as_bytes(), other.as_bytes());
    one.len() == other.len()
        && one
            .iter()
            .zip(other)
            .fold(0, |difference, (a, b)| difference | (a ^ b))
            == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(authentication: Authentication) -> Settings {
        Settings {
            authentication,
            ..Settings::default()
        }
    }

    fn check(
        settings: &Settings,
        header: Option<(&'static str, &str)>,
        expected: Option<(&str, bool)>,
    ) {
        let mut headers = HeaderMap::new();
        if let Some((name, value)) = header {
            headers.insert(name, value.parse().unwrap());
        }
        let expected = expected.map(|(user, may_write)| Caller {
            user: user.into(),
            may_write,
        });
        assert_eq!(caller(settings, &headers), expected, "{header:?}");
    }

    const ANN: Option<(&str, &str)> = Some(("authorization", "Basic YW5uOnM6Y3JldA=="));
    const READER_HEADER: Option<(&str, &str)> =
        Some(("authorization", "Basic cmVhZG9ubHk6d2hhdGV2ZXI="));

    #[test]
    fn basic() {
        let settings = settings(Authentication::Basic {
            user: "ann".into(),
            password: "s:cret".into(),
        });
        check(&settings, ANN, Some(("ann", true)));
        check(&settings, None, None);
        check(&settings, READER_HEADER, None);
        check(
            &settings,
            Some(("authorization", "Basic YW5uOnM6Y3JlZA==")),
            None,
        );
        check(&settings, Some(("authorization", "Basic ###")), None);
        check(
            &settings,
            Some(("authorization", "Bearer YW5uOnM6Y3JldA==")),
            None,
        );
    }

    #[test]
    fn multi_knows_a_reader() {
        let settings = settings(Authentication::Multi {
            user: "ann".into(),
            password: "s:cret".into(),
        });
        check(&settings, ANN, Some(("ann", true)));
        check(&settings, READER_HEADER, Some(("readonly", false)));
        check(&settings, None, None);
    }

    #[test]
    fn a_proxy_names_the_user_whatever_the_case_of_the_header() {
        let mut settings = settings(Authentication::Proxy {
            header: "x-Forwarded-USER".into(),
            power_users: vec!["ann".into()],
        });
        check(
            &settings,
            Some(("x-forwarded-user", "ann")),
            Some(("ann", true)),
        );
        check(
            &settings,
            Some(("x-forwarded-user", "bob")),
            Some(("bob", false)),
        );
        check(&settings, None, Some(("", false)));
        settings.authentication = Authentication::Proxy {
            header: "X-Forwarded-User".into(),
            power_users: vec!["*".into()],
        };
        check(&settings, None, Some(("", true)));
    }

    #[test]
    fn read_only_is_for_all() {
        let mut read_only = settings(Authentication::None);
        check(&read_only, None, Some(("", true)));
        read_only.is_read_only = true;
        check(&read_only, None, Some(("", false)));
        check(
            &settings(Authentication::ReadersOnly),
            None,
            Some(("", false)),
        );
    }
}
