//! A follower's way to the leader.
//!
//! Decides what of a request and of its answer is passed on, and what is said when the leader cannot be reached or does
//! not answer. Never relays a request that was relayed before, and never repeats a change.

use std::io;
use std::time::Duration;

use axum::body::Body;
use axum::http::header::{
    ACCEPT_ENCODING, CONNECTION, CONTENT_LENGTH, HOST, HeaderMap, HeaderName, HeaderValue, TE,
    TRAILER, TRANSFER_ENCODING, UPGRADE,
};
use axum::http::request::Parts;
use axum::http::{Method, Response, Uri};
use bytes::Bytes;
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use orchestrator_core::id::NodeId;
use tokio::io::{AsyncRead, AsyncWrite};

use super::answer::Failure;
use super::routes::Kind;
use super::server::Shared;
use super::tls::Security;
use super::{Daemon, Peer, RELAYED_HEADER, RaftFacts};
use crate::env::{Env, sleep, spawn, timeout};

/// Largest body of a request that is passed on, in bytes.
const REQUEST_BYTES_MAX: usize = 1 << 20;
/// Largest body of an answer that is passed on, in bytes.
const RESPONSE_BYTES_MAX: usize = 64 << 20;
/// For the body of a request.
const REQUEST_TIME_MAX: Duration = Duration::from_secs(10);
const CONNECT_TIME_MAX: Duration = Duration::from_secs(5);
/// For an answer to a look, complete.
const READ_TIME_MAX: Duration = Duration::from_secs(30);
/// For an answer to a change, complete: longer than any change may take on the leader.
const CHANGE_TIME_MAX: Duration = Duration::from_secs(600);

/// How often it is asked whether the leader that is to answer still leads.
const LOOK_INTERVAL: Duration = Duration::from_millis(100);
/// Without a known leader for so long, the one that was asked is given up: longer than an election takes.
const LEADERLESS_MAX: Duration = Duration::from_secs(3);

const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");

/// A request that is passed on, as it came.
#[derive(Debug)]
pub(super) struct PassedOn {
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
}

impl PassedOn {
    pub(super) fn of(head: &Parts, body: &Bytes) -> PassedOn {
        let path = head.uri.path_and_query();
        PassedOn {
            method: head.method.clone(),
            uri: path.map_or_else(|| Uri::from_static("/"), |path| Uri::from(path.clone())),
            headers: head.headers.clone(),
            body: body.clone(),
        }
    }
}

/// The body of a request, within the same bounds whoever answers it.
pub(super) async fn body_of<E: Env>(body: Body) -> Result<Bytes, Failure> {
    collect::<E>(body, REQUEST_BYTES_MAX, REQUEST_TIME_MAX)
        .await
        .map_err(|what| Failure::plain(format!("the request's body {what}")))
}

/// Why there is no answer of the leader.
#[derive(Debug)]
pub(super) enum Unanswered {
    Failed(Failure),
    /// The leader leads no more, and nothing was asked of it but a look: it may be asked for where it is answered by this
    /// time.
    LedByAnother,
}

impl From<Failure> for Unanswered {
    fn from(failure: Failure) -> Unanswered {
        Unanswered::Failed(failure)
    }
}

/// Has the leader answer, for as long as it is the leader: a process that was stopped takes connections and answers
/// nothing. `from` is the address that the request came from.
pub(super) async fn relay<E: Env, D: Daemon>(
    shared: &Shared<D>,
    leader: &Peer,
    facts: &RaftFacts,
    kind: Kind,
    from: &str,
    request: PassedOn,
) -> Result<Response<Body>, Unanswered> {
    let (daemon, security) = (&shared.daemon, &shared.security);
    let target = target_of(&leader.http_uri)?;
    // Nothing was asked for so far: whatever it is, it may be asked for elsewhere.
    let sender = tokio::select! {
        biased;
        sender = reach::<E>(&leader.http_uri, &target, security) => sender?,
        () = is_replaced::<E, D>(daemon, leader.node) => return Err(Unanswered::LedByAnother),
    };
    let request = passed_on(request, facts, from, &target.address);
    tokio::select! {
        biased;
        answer = exchange::<E>(sender, &leader.http_uri, kind, request) => Ok(answer?),
        () = is_replaced::<E, D>(daemon, leader.node) => Err(match kind {
            Kind::Read => Unanswered::LedByAnother,
            Kind::Change => Unanswered::Failed(Failure::unknown(format!(
                "outcome unknown: the raft leader at {} did not answer before another daemon leads or its followers \
                 lost it; look again before repeating the request",
                leader.http_uri
            ))),
        }),
    }
}

/// Ends when another daemon leads, or none has been known to lead for a while.
async fn is_replaced<E: Env, D: Daemon>(daemon: &D, leader: NodeId) {
    let mut missing_since = None;
    loop {
        sleep::<E>(LOOK_INTERVAL).await;
        match daemon.raft().leader {
            Some(known) if known.node != leader => return,
            Some(_) => missing_since = None,
            None => {
                let since = *missing_since.get_or_insert_with(E::mono);
                if E::mono().saturating_sub(since) >= LEADERLESS_MAX {
                    return;
                }
            }
        }
    }
}

/// A connection to the leader.
async fn reach<E: Env>(
    leader_uri: &str,
    target: &Target,
    security: &Security,
) -> Result<SendRequest<Full<Bytes>>, Failure> {
    let unreachable = |why: &dyn std::fmt::Display| {
        Failure::unreachable(format!(
            "the raft leader cannot be reached at {leader_uri}: {why}"
        ))
    };
    timeout::<E, _>(CONNECT_TIME_MAX, dial::<E>(target, security))
        .await
        .ok_or_else(|| unreachable(&"no connection in time"))?
        .map_err(|error| unreachable(&error))
}

/// A request as the leader is sent it.
fn passed_on(
    request: PassedOn,
    facts: &RaftFacts,
    from: &str,
    address: &str,
) -> hyper::Request<Full<Bytes>> {
    let mut passed_on = hyper::Request::new(Full::new(request.body));
    *passed_on.method_mut() = request.method;
    *passed_on.uri_mut() = request.uri;
    *passed_on.headers_mut() = request_headers(request.headers, facts, from, address);
    passed_on
}

async fn exchange<E: Env>(
    mut sender: SendRequest<Full<Bytes>>,
    leader_uri: &str,
    kind: Kind,
    request: hyper::Request<Full<Bytes>>,
) -> Result<Response<Body>, Failure> {
    let is_head = request.method() == Method::HEAD;
    let lost = |why: &str| match kind {
        // A look may be repeated by whoever asked; nothing can have happened.
        Kind::Read => Failure::unreachable(format!("the raft leader at {leader_uri} {why}")),
        Kind::Change => Failure::unknown(format!(
            "outcome unknown: the raft leader at {leader_uri} {why}; look again before repeating the request"
        )),
    };
    let time = match kind {
        Kind::Read => READ_TIME_MAX,
        Kind::Change => CHANGE_TIME_MAX,
    };
    let began = E::mono();
    let response = match timeout::<E, _>(time, sender.send_request(request)).await {
        Some(Ok(response)) => response,
        Some(Err(error)) => return Err(lost(&format!("did not answer: {error}"))),
        None if kind == Kind::Read => {
            return Err(Failure::unknown(format!(
                "the raft leader at {leader_uri} did not answer in time"
            )));
        }
        None => return Err(lost("did not answer in time")),
    };
    let (mut parts, body) = response.into_parts();
    let left = time.saturating_sub(E::mono().saturating_sub(began));
    let body = collect::<E>(body, RESPONSE_BYTES_MAX, left)
        .await
        .map_err(|what| lost(&format!("answered with a body that {what}")))?;
    remove_hop_by_hop(&mut parts.headers);
    if !is_head {
        parts
            .headers
            .insert(CONTENT_LENGTH, HeaderValue::from(body.len()));
    }
    Ok(Response::from_parts(parts, Body::from(body)))
}

/// Where a URI leads to.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Target {
    has_tls: bool,
    /// `host:port`
    address: String,
    /// Without brackets.
    host: String,
}

/// A connection that takes requests.
async fn dial<E: Env>(
    target: &Target,
    security: &Security,
) -> io::Result<SendRequest<Full<Bytes>>> {
    let stream = E::connect(&target.address).await?;
    if target.has_tls {
        let stream = security.connect::<E>(&target.host, stream).await?;
        converse::<E, _>(stream).await
    } else {
        converse::<E, _>(stream).await
    }
}

async fn converse<E: Env, S: AsyncRead + AsyncWrite + Unpin + Send + 'static>(
    stream: S,
) -> io::Result<SendRequest<Full<Bytes>>> {
    let (sender, connection) = http1::handshake::<_, Full<Bytes>>(TokioIo::new(stream))
        .await
        .map_err(io::Error::other)?;
    spawn::<E>(async move {
        if let Err(error) = connection.await {
            tracing::debug!(%error, "connection to the leader's HTTP API ended");
        }
    });
    Ok(sender)
}

fn target_of(uri: &str) -> Result<Target, Failure> {
    let bad = |why: &str| {
        Failure::unreachable(format!("the raft leader cannot be reached at {uri}: {why}"))
    };
    let Some((scheme, rest)) = uri.split_once("://") else {
        return Err(bad("it has no scheme"));
    };
    let has_tls = scheme.eq_ignore_ascii_case("https");
    if !has_tls && !scheme.eq_ignore_ascii_case("http") {
        return Err(bad("only http and https are spoken between daemons"));
    }
    let authority = rest.split('/').next().unwrap_or_default();
    if authority.is_empty() || authority.contains('@') {
        return Err(bad("it names no host"));
    }
    let has_port = authority
        .rsplit_once(':')
        .is_some_and(|(host, port)| !host.is_empty() && port.parse::<u16>().is_ok())
        && !authority.ends_with(']');
    let address = if has_port {
        String::from(authority)
    } else {
        format!("{authority}:{}", if has_tls { 443 } else { 80 })
    };
    let host = host_of(&address).to_owned();
    Ok(Target {
        has_tls,
        address,
        host,
    })
}

fn request_headers(
    mut headers: HeaderMap,
    facts: &RaftFacts,
    from: &str,
    address: &str,
) -> HeaderMap {
    remove_hop_by_hop(&mut headers);
    headers.remove(ACCEPT_ENCODING);
    // The body is passed on in one piece, with a length of its own.
    headers.remove(CONTENT_LENGTH);
    if let Ok(value) = HeaderValue::from_str(&facts.node.to_string()) {
        headers.insert(HeaderName::from_static(RELAYED_HEADER), value);
    }
    let from = host_of(from);
    let chain: Vec<&str> = headers
        .get_all(FORWARDED_FOR)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .chain((!from.is_empty()).then_some(from))
        .collect();
    if let Ok(value) = HeaderValue::from_str(&chain.join(", ")) {
        headers.insert(FORWARDED_FOR, value);
    }
    if !headers.contains_key(HOST)
        && let Ok(value) = HeaderValue::from_str(address)
    {
        headers.insert(HOST, value);
    }
    headers
}

/// The address in `ip:port`.
fn host_of(peer: &str) -> &str {
    peer.rsplit_once(':')
        .map_or(peer, |(host, _)| host.trim_matches(['[', ']']))
}

/// Headers that concern one connection only (RFC 9110 section 7.6.1).
fn remove_hop_by_hop(headers: &mut HeaderMap) {
    let named: Vec<HeaderName> = headers
        .get_all(CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .filter_map(|name| name.trim().parse().ok())
        .collect();
    for name in named {
        headers.remove(name);
    }
    for name in [CONNECTION, TE, TRAILER, TRANSFER_ENCODING, UPGRADE] {
        headers.remove(name);
    }
    for name in [
        "keep-alive",
        "proxy-connection",
        "proxy-authorization",
        "proxy-authenticate",
    ] {
        headers.remove(name);
    }
}

/// A whole body, within a size and a time; else what was wrong with it, as the end of a sentence.
async fn collect<E: Env>(
    body: impl hyper::body::Body<Data = Bytes, Error: Into<axum::BoxError>> + Send,
    bytes_max: usize,
    time_max: Duration,
) -> Result<Bytes, String> {
    let limited = Limited::new(body, bytes_max);
    match timeout::<E, _>(time_max, limited.collect()).await {
        Some(Ok(collected)) => Ok(collected.to_bytes()),
        Some(Err(error)) if error.is::<LengthLimitError>() => {
            Err(format!("is longer than {bytes_max} bytes"))
        }
        Some(Err(error)) => Err(format!("broke off: {error}")),
        None => Err(String::from("did not come in time")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses() {
        for (uri, address) in [
            ("http://a:3000", Some("a:3000")),
            ("HTTP://a:3000/", Some("a:3000")),
            ("http://a", Some("a:80")),
            ("http://[::1]:3000", Some("[::1]:3000")),
            ("http://[::1]", Some("[::1]:80")),
            ("https://a:3000", Some("a:3000")),
            ("https://[::1]", Some("[::1]:443")),
            ("gopher://a:3000", None),
            ("a:3000", None),
            ("http://", None),
            ("http://u:p@a", None),
        ] {
            let target = target_of(uri).ok();
            let found = target.as_ref().map(|target| target.address.as_str());
            assert_eq!(found, address, "{uri}");
            let has_tls = target.is_some_and(|target| target.has_tls);
            assert_eq!(has_tls, address.is_some() && uri.starts_with("https"));
        }
    }

    #[test]
    fn what_is_passed_on() {
        let mut headers = HeaderMap::new();
        for (name, value) in [
            ("host", "front"),
            ("authorization", "Basic eA=="),
            ("cookie", "a=b"),
            ("accept-encoding", "gzip"),
            ("connection", "keep-alive, x-private"),
            ("x-private", "1"),
            ("keep-alive", "5"),
            ("x-forwarded-for", "10.0.0.9"),
            ("content-length", "7"),
        ] {
            headers.insert(HeaderName::from_static(name), value.parse().unwrap());
        }
        let facts = super::super::tests::facts_of_a_follower("http://b:3000");
        let passed_on = request_headers(headers, &facts, "10.0.0.1:4711", "b:3000");
        let mut shown: Vec<String> = passed_on
            .iter()
            .map(|(name, value)| format!("{name}={}", value.to_str().unwrap()))
            .collect();
        shown.sort();
        assert_eq!(
            shown,
            [
                "authorization=Basic eA==",
                "cookie=a=b",
                "host=front",
                "x-forwarded-for=10.0.0.9, 10.0.0.1",
                "x-orchestrator-relayed=0000000000000001",
            ]
        );
    }
}
