//! Connections, the router, and the way of a request to whoever answers it.

use std::collections::BTreeSet;
use std::convert::Infallible;
use std::fmt;
use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::rejection::RawPathParamsRejection;
use axum::extract::{Query, RawPathParams, Request};
use axum::http::header::{ALLOW, HeaderName, HeaderValue, WWW_AUTHENTICATE};
use axum::http::{HeaderMap, Method, Response, Uri};
use axum::routing::any;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::Service as _;
use hyper_util::rt::TokioIo;
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::{Semaphore, watch};

use super::access::{self, Caller};
use super::answer::{Answer, Failure, settle};
use super::params::Params;
use super::relay::{PassedOn, Unanswered, body_of, relay};
use super::routes::{Action, Answered, Kind, ROUTES, Route, STATUS, is_taken};
use super::tls::{self, Security, Shown};
use super::{Daemon, Peer, RELAYED_HEADER, RaftFacts, STALE_HEADER, Settings};
use super::{audit, change, fleet, forecast, local, orders};
use crate::env::{Env, sleep, spawn, timeout};

/// Most connections at once.
const CONNECTIONS_MAX: u32 = 4096;
/// Largest head of a request, in bytes.
const HEAD_BYTES_MAX: usize = 64 * 1024;
/// Most header lines of a request.
const HEADERS_MAX: usize = 100;
/// How long a connection may stay without a complete request.
const IDLE_MAX: Duration = Duration::from_secs(60);
/// How long requests under way may go on when the daemon stops.
const DRAIN_MAX: Duration = Duration::from_secs(5);
/// The wait after a connection could not be accepted (no file descriptors).
const ACCEPT_RETRY: Duration = Duration::from_millis(100);
/// How many leaders, one after another, may be asked for one look.
const RELAYS_MAX: u32 = 3;

/// Why nothing can be served.
#[derive(Debug)]
pub enum ServeError {
    /// `StatusEndpoint` does not begin with a slash, or is the path of another route.
    StatusEndpoint(String),
    /// What is wrong with a certificate.
    Tls(String),
}

impl fmt::Display for ServeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ServeError::StatusEndpoint(path) => write!(
                f,
                "StatusEndpoint {path:?} cannot be served: it must begin with a slash and be the path of no other route"
            ),
            ServeError::Tls(why) => write!(f, "HTTPS cannot be served: {why}"),
        }
    }
}

impl std::error::Error for ServeError {}

/// What all requests share.
pub(super) struct Shared<D> {
    pub(super) daemon: D,
    pub(super) settings: Settings,
    pub(super) security: Security,
}

impl<D> Shared<D> {
    fn new<E: Env>(daemon: D, settings: Settings) -> Arc<Self> {
        let security = Security::new::<E>(&settings.tls);
        Arc::new(Shared {
            daemon,
            settings,
            security,
        })
    }
}

/// Whether the paths go together, and certificates can be read.
///
/// # Errors
/// When the settings cannot be served.
pub async fn check<E: Env>(settings: &Settings) -> Result<(), ServeError> {
    status_beside(settings)?;
    let security = Security::new::<E>(&settings.tls);
    security.check::<E>().await.map_err(ServeError::Tls)
}

/// Serves until `stop` becomes true, or its sender is gone; then lets requests under way end.
///
/// # Errors
/// When the settings cannot be served. What a single connection meets with is no error.
pub async fn serve<E: Env, D: Daemon>(
    mut listener: E::Listener,
    settings: Settings,
    daemon: D,
    mut stop: watch::Receiver<bool>,
) -> Result<(), ServeError> {
    let shared = Shared::new::<E>(daemon, settings);
    let router = router::<E, D>(&shared)?;
    let slots = Arc::new(Semaphore::new(CONNECTIONS_MAX as usize));
    // Connections are told to end after the listener is gone, so that none begins behind them.
    let (drain, draining) = watch::channel(false);
    loop {
        let accepted = tokio::select! {
            biased;
            _ = stop.wait_for(|stop| *stop) => break,
            accepted = E::accept(&mut listener) => accepted,
        };
        match accepted {
            Ok((stream, peer)) => {
                let Ok(slot) = Arc::clone(&slots).try_acquire_owned() else {
                    tracing::warn!(%peer, limit = CONNECTIONS_MAX, "HTTP connection refused: too many are open");
                    continue;
                };
                let (shared, router) = (Arc::clone(&shared), router.clone());
                let draining = draining.clone();
                spawn::<E>(async move {
                    greet::<E, D>(stream, peer, shared, router, draining).await;
                    drop(slot);
                });
            }
            Err(error) => {
                tracing::warn!(%error, "HTTP connection not accepted");
                sleep::<E>(ACCEPT_RETRY).await;
            }
        }
    }
    drop(listener);
    drain.send_replace(true);
    // Whoever has a slot is not done.
    let _ = timeout::<E, _>(DRAIN_MAX, slots.acquire_many_owned(CONNECTIONS_MAX)).await;
    Ok(())
}

/// When the connection last had something to do, by [`Env::mono`].
#[derive(Default)]
struct Activity {
    nanos: AtomicU64,
    is_busy: AtomicBool,
}

impl Activity {
    fn mark<E: Env>(&self, is_busy: bool) {
        let nanos = u64::try_from(E::mono().as_nanos()).unwrap_or(u64::MAX);
        self.nanos.store(nanos, Ordering::Relaxed);
        self.is_busy.store(is_busy, Ordering::Relaxed);
    }

    fn is_idle<E: Env>(&self) -> bool {
        let last = Duration::from_nanos(self.nanos.load(Ordering::Relaxed));
        !self.is_busy.load(Ordering::Relaxed) && E::mono().saturating_sub(last) >= IDLE_MAX
    }
}

/// Serves one connection to its end, over any stream; `peer` is the other side's `ip:port`.
///
/// # Errors
/// When the settings cannot be served.
pub async fn converse<E: Env, D: Daemon, S: AsyncRead + AsyncWrite + Unpin>(
    stream: S,
    peer: String,
    settings: Settings,
    daemon: D,
) -> Result<(), ServeError> {
    let shared = Shared::new::<E>(daemon, settings);
    let router = router::<E, D>(&shared)?;
    let (_running, stop) = watch::channel(false);
    connection::<E, D, S>(stream, From(peer, Shown::Plain), shared, router, stop).await;
    Ok(())
}

/// Serves one connection, with TLS where that is wanted.
async fn greet<E: Env, D: Daemon>(
    stream: E::Stream,
    peer: String,
    shared: Arc<Shared<D>>,
    router: Router,
    stop: watch::Receiver<bool>,
) {
    if !shared.security.serves() {
        connection::<E, D, _>(stream, From(peer, Shown::Plain), shared, router, stop).await;
        return;
    }
    match shared.security.accept::<E, _>(stream).await {
        Ok((stream, shown)) => {
            connection::<E, D, _>(stream, From(peer, shown), shared, router, stop).await;
        }
        Err(error) => tracing::debug!(%peer, %error, "HTTPS connection not taken"),
    }
}

async fn connection<E: Env, D: Daemon, S: AsyncRead + AsyncWrite + Unpin>(
    stream: S,
    from: From,
    shared: Arc<Shared<D>>,
    router: Router,
    mut stop: watch::Receiver<bool>,
) {
    let activity = Arc::new(Activity::default());
    activity.mark::<E>(false);
    let router = TowerToHyperService::new(router);
    let service = {
        let (activity, from) = (Arc::clone(&activity), from.clone());
        hyper::service::service_fn(move |request: hyper::Request<Incoming>| {
            let (shared, router) = (Arc::clone(&shared), router.clone());
            let (activity, from) = (Arc::clone(&activity), from.clone());
            async move {
                activity.mark::<E>(true);
                let response = enter(&shared, &router, from, request).await;
                activity.mark::<E>(false);
                Ok::<_, Infallible>(response)
            }
        })
    };
    let mut connection = pin!(
        http1::Builder::new()
            .auto_date_header(false)
            .half_close(true)
            .max_buf_size(HEAD_BYTES_MAX)
            .max_headers(HEADERS_MAX)
            .serve_connection(TokioIo::new(stream), service)
    );
    let mut is_stopping = false;
    loop {
        tokio::select! {
            biased;
            ended = connection.as_mut() => {
                if let Err(error) = ended {
                    tracing::debug!(peer = from.0, %error, "HTTP connection ended");
                }
                return;
            }
            _ = stop.wait_for(|stop| *stop), if !is_stopping => {
                is_stopping = true;
                connection.as_mut().graceful_shutdown();
            }
            () = sleep::<E>(IDLE_MAX) => {
                if activity.is_idle::<E>() {
                    return;
                }
            }
        }
    }
}

/// The address that a request came from, and the certificate that came with it.
#[derive(Debug, Clone)]
struct From(String, Shown);

/// Lets the caller in, or not.
async fn enter<D: Daemon>(
    shared: &Shared<D>,
    router: &TowerToHyperService<Router>,
    from: From,
    mut request: hyper::Request<Incoming>,
) -> Response<Body> {
    let (method, path) = (request.method().clone(), request.uri().path().to_owned());
    let identity = shared.settings.identity_in_messages.as_deref();
    let peer = from.0.clone();
    let refused = tls::refusal(&shared.settings, &from.1, &path);
    let response = match access::caller(&shared.settings, request.headers()) {
        Some(_) if let Some(refused) = refused => Answer::from(refused).into_response(identity),
        Some(caller) => {
            request.extensions_mut().insert(caller);
            request.extensions_mut().insert(from);
            match router.call(request).await {
                Ok(response) => response,
                Err(never) => match never {},
            }
        }
        None => {
            let mut response = Answer::from(Failure::unauthenticated()).into_response(identity);
            response.headers_mut().insert(
                WWW_AUTHENTICATE,
                HeaderValue::from_static("Basic realm=\"Authorization Required\""),
            );
            response
        }
    };
    tracing::debug!(%peer, %method, path, status = response.status().as_u16(), "HTTP");
    response
}

/// Every row of the table at its path, with and without a slash at the end.
fn router<E: Env, D: Daemon>(shared: &Arc<Shared<D>>) -> Result<Router, ServeError> {
    let settings = &shared.settings;
    let mut paths = BTreeSet::new();
    let mut router = Router::new().without_v07_checks();
    let mut add = |router: Router, path: String, route: Route| -> Router {
        let shared = Arc::clone(shared);
        let endpoint = any(
            move |params: Result<RawPathParams, RawPathParamsRejection>, request: Request| {
                let shared = Arc::clone(&shared);
                async move { respond::<E, D>(&shared, route, params, request).await }
            },
        );
        let mut router = router;
        let slashed = format!("{path}/");
        if paths.insert(path.clone()) {
            router = router.route(if path.is_empty() { "/" } else { &path }, endpoint.clone());
            if !path.is_empty() {
                router = router.route(&slashed, endpoint);
            }
        }
        router
    };
    for route in ROUTES {
        let path = format!(
            "{}{}",
            literal(&settings.url_prefix),
            pattern(route.path.trim_end_matches('/'))
        );
        router = add(router, path, *route);
    }
    if let Some(path) = status_beside(settings)? {
        router = add(router, literal(path), STATUS);
    }
    let identity = settings.identity_in_messages.clone();
    Ok(router.fallback(move |uri: Uri| {
        let identity = identity.clone();
        async move { no_route(uri.path()).into_response(identity.as_deref()) }
    }))
}

/// The path at which the status check stands beside its row; none where it is that of the row.
fn status_beside(settings: &Settings) -> Result<Option<&str>, ServeError> {
    let path = settings.status_endpoint.trim_end_matches('/');
    if path == STATUS.path {
        return Ok(None);
    }
    if !path.starts_with('/') || is_taken(&settings.url_prefix, path) {
        return Err(ServeError::StatusEndpoint(settings.status_endpoint.clone()));
    }
    Ok(Some(path))
}

fn no_route(path: &str) -> Answer {
    Answer::from(Failure::not_found(format!("404 page not found: {path}")))
}

/// The table's `:name` as the router's `{name}`.
fn pattern(path: &str) -> String {
    path.split('/')
        .map(|segment| match segment.strip_prefix(':') {
            Some(name) => format!("{{{name}}}"),
            None => String::from(segment),
        })
        .collect::<Vec<_>>()
        .join("/")
}

/// A path from the configuration, in which braces mean themselves.
fn literal(path: &str) -> String {
    path.replace('{', "{{").replace('}', "}}")
}

/// Where a request is answered.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Venue {
    Here,
    /// Here, from what this daemon knows itself; why.
    HereStale(&'static str),
    /// By the leader, at its URI.
    Leader(Peer),
    Nowhere(Failure),
}

fn venue(route: Route, facts: &RaftFacts, is_relayed: bool) -> Venue {
    if route.answered == Answered::Here || facts.is_leading {
        return Venue::Here;
    }
    let leader = facts
        .leader
        .as_ref()
        .filter(|leader| leader.node != facts.node && !leader.http_uri.is_empty());
    match (leader, route.kind) {
        (Some(leader), Kind::Read | Kind::Change) if is_relayed => {
            Venue::Nowhere(Failure::no_leader(format!(
                "this daemon does not lead any more ({} does), and a relayed request is not relayed again",
                leader.address
            )))
        }
        (Some(leader), Kind::Read | Kind::Change) => Venue::Leader(leader.clone()),
        (None, Kind::Read) => Venue::HereStale("no leader"),
        (None, Kind::Change) => Venue::Nowhere(Failure::no_leader(match &facts.health {
            Ok(()) => String::from("there is no raft leader: nothing was done"),
            Err(why) => format!("there is no raft leader: nothing was done ({why})"),
        })),
    }
}

/// Whether the method fits the route; [`None`]: it does.
fn misfit(route: Route, method: &Method, path: &str) -> Option<Answer> {
    match (route.kind, method) {
        (_, &Method::GET) | (Kind::Read, &Method::HEAD) | (Kind::Change, &Method::POST) => None,
        (Kind::Change, &Method::HEAD) => Some(Answer::from(Failure::not_allowed(
            "HEAD does not execute a change: use GET or POST",
        ))),
        (Kind::Read | Kind::Change, _) => Some(no_route(path)),
    }
}

async fn respond<E: Env, D: Daemon>(
    shared: &Shared<D>,
    route: Route,
    path_params: Result<RawPathParams, RawPathParamsRejection>,
    request: Request,
) -> Response<Body> {
    let identity = shared.settings.identity_in_messages.as_deref();
    if let Some(answer) = misfit(route, request.method(), request.uri().path()) {
        let mut response = answer.into_response(identity);
        if route.kind == Kind::Change && request.method() == Method::HEAD {
            response
                .headers_mut()
                .insert(ALLOW, HeaderValue::from_static("GET, POST"));
        }
        return response;
    }
    if route.action == Action::NotServed {
        let failure = Failure::not_served(format!("{} is not served", route.path));
        return Answer::from(failure).into_response(identity);
    }
    let caller = request
        .extensions()
        .get::<Caller>()
        .cloned()
        .unwrap_or(Caller {
            user: String::new(),
            may_write: false,
        });
    if route.kind == Kind::Change && !caller.may_write {
        return Answer::from(Failure::unauthorized()).into_response(identity);
    }
    let (head, body) = request.into_parts();
    // Whoever asks how this daemon is need not be waited for.
    let body = match route.answered {
        Answered::Here => Bytes::new(),
        Answered::ByLeader => match body_of::<E>(body).await {
            Ok(body) => body,
            Err(failure) => return Answer::from(failure).into_response(identity),
        },
    };
    let is_relayed = head.headers.contains_key(RELAYED_HEADER);
    let mut facts = shared.daemon.raft();
    let mut tries = 0;
    let stale = loop {
        let leader = match venue(route, &facts, is_relayed) {
            Venue::Here => break None,
            Venue::HereStale(why) => break Some(why),
            Venue::Leader(leader) => leader,
            Venue::Nowhere(failure) => return Answer::from(failure).into_response(identity),
        };
        let request = PassedOn::of(&head, &body);
        let from = head.extensions.get::<From>();
        let from = from.map_or("", |From(peer, _)| peer.as_str());
        tries += 1;
        match relay::<E, D>(shared, &leader, &facts, route.kind, from, request).await {
            Ok(response) => return response,
            Err(Unanswered::LedByAnother) if tries < RELAYS_MAX => facts = shared.daemon.raft(),
            Err(Unanswered::LedByAnother) => {
                let failure = Failure::unreachable("the raft leader was replaced too often");
                return Answer::from(failure).into_response(identity);
            }
            Err(Unanswered::Failed(failure)) => {
                return Answer::from(failure).into_response(identity);
            }
        }
    };
    let answer = match params(path_params, &head.uri) {
        Ok(params) => {
            let asked = Asked {
                shared,
                facts: &facts,
                caller,
                params,
            };
            settle(act(&asked, route.action, &head.headers).await)
        }
        Err(failure) => Answer::from(failure),
    };
    let mut response = answer.into_response(identity);
    if let Some(why) = stale {
        response.headers_mut().insert(
            HeaderName::from_static(STALE_HEADER),
            HeaderValue::from_static(why),
        );
    }
    response
}

fn params(
    path: Result<RawPathParams, RawPathParamsRejection>,
    uri: &Uri,
) -> Result<Params, Failure> {
    let path = path.map_err(|_| Failure::plain("the path is not UTF-8"))?;
    if path.iter().any(|(_, value)| value.is_empty()) {
        return Err(Failure::not_found(format!(
            "404 page not found: {}",
            uri.path()
        )));
    }
    let query = Query::<Vec<(String, String)>>::try_from_uri(uri)
        .map_err(|_| Failure::plain("the query cannot be read"))?;
    Ok(Params {
        path: path
            .iter()
            .map(|(name, value)| (String::from(name), String::from(value)))
            .collect(),
        query: query.0,
    })
}

/// A request that is answered here.
pub(super) struct Asked<'a, D> {
    pub(super) shared: &'a Shared<D>,
    pub(super) facts: &'a RaftFacts,
    pub(super) caller: Caller,
    pub(super) params: Params,
}

async fn act<D: Daemon>(
    asked: &Asked<'_, D>,
    action: Action,
    headers: &HeaderMap,
) -> Result<Answer, Failure> {
    match action {
        Action::Discover => change::discover(asked).await,
        Action::AsyncDiscover => change::async_discover(asked).await,
        Action::Refresh => change::refresh(asked).await,
        Action::Forget => change::forget(asked).await,
        Action::ForgetCluster => change::forget_cluster(asked).await,
        Action::Instance => fleet::instance(asked).await,
        Action::InstanceReplicas => fleet::instance_replicas(asked).await,
        Action::AllInstances => fleet::all_instances(asked).await,
        Action::Search => fleet::search(asked).await,
        Action::Problems => fleet::problems(asked).await,
        Action::Cluster => fleet::cluster(asked).await,
        Action::ClusterInfo => fleet::cluster_info(asked).await,
        Action::Clusters => fleet::clusters(asked).await,
        Action::ClustersInfo => fleet::clusters_info(asked).await,
        Action::Masters => fleet::masters(asked).await,
        Action::Master => fleet::master(asked).await,
        Action::Downtimed => fleet::downtimed(asked).await,
        Action::Topology(drawing) => fleet::topology(asked, drawing).await,
        Action::SetClusterAlias => change::set_cluster_alias(asked).await,
        Action::Tag => change::tag(asked).await,
        Action::Untag => change::untag(asked).await,
        Action::UntagAll => change::untag_all(asked).await,
        Action::Tags => fleet::tags(asked).await,
        Action::TagValue => fleet::tag_value(asked).await,
        Action::Tagged => fleet::tagged(asked).await,
        Action::BeginDowntime => change::begin_downtime(asked).await,
        Action::EndDowntime => change::end_downtime(asked).await,
        Action::Analysis => audit::analysis(asked).await,
        Action::WouldFailOver => forecast::would_fail_over(asked).await,
        Action::RegisterCandidate => change::register_candidate(asked).await,
        Action::RecoveryFilters => audit::recovery_filters(asked).await,
        Action::AuditDetections => audit::detections(asked).await,
        Action::AuditRecoveries => audit::recoveries(asked).await,
        Action::AuditSteps => audit::steps(asked).await,
        Action::ActiveRecoveries => audit::active(asked).await,
        Action::RecentRecoveries => audit::recent(asked).await,
        Action::RecentSuccessor => audit::recent_successor(asked).await,
        Action::AcknowledgeCluster => change::acknowledge_cluster(asked).await,
        Action::AcknowledgeInstance => change::acknowledge_instance(asked).await,
        Action::AcknowledgeRecovery => change::acknowledge_recovery(asked).await,
        Action::AcknowledgeAll => change::acknowledge_all(asked).await,
        Action::BlockedRecoveries => audit::blocked(asked).await,
        Action::DisableRecoveries => change::set_recoveries_enabled(asked, Wish::Disabled).await,
        Action::EnableRecoveries => change::set_recoveries_enabled(asked, Wish::Enabled).await,
        Action::CheckRecoveries => audit::check_recoveries(asked).await,
        Action::SubmitMasters => change::submit_masters(asked).await,
        Action::AddPeer => change::add_peer(asked).await,
        Action::RemovePeer => change::remove_peer(asked).await,
        Action::ReplacePeer => change::replace_peer(asked).await,
        Action::AdoptOriginal => change::adopt_original(asked).await,
        Action::ReleaseDeposed => change::release_deposed(asked).await,
        Action::Reelect => orders::reelect(asked).await,
        Action::Yield => orders::raft_yield(asked).await,
        Action::YieldHint => orders::raft_yield_hint(asked).await,
        Action::GrabElection => orders::grab_election(asked),
        Action::Snapshot => orders::raft_snapshot(asked).await,
        Action::Reload => orders::reload_configuration(asked).await,
        Action::SetReadOnly => change::set_read_only(asked).await,
        Action::SetWriteable => change::set_writeable(asked).await,
        Action::Alive => Ok(Answer::bare(&"OK")),
        Action::LeaderCheck => local::leader_check(asked),
        Action::Health => local::health(asked).await,
        Action::Condition => Ok(local::condition(asked).await),
        Action::Headers => Ok(local::headers(headers)),
        Action::RaftState => Ok(local::raft_state(asked)),
        Action::RaftLeader => Ok(local::raft_leader(asked)),
        Action::RaftHealth => local::raft_health(asked),
        Action::RaftStatus => local::raft_status(asked).await,
        Action::RaftPeers => Ok(local::raft_peers(asked)),
        Action::NotServed => Err(Failure::not_served("not served")),
    }
}

/// What is wanted of recoveries everywhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Wish {
    Enabled,
    Disabled,
}

/// A listening socket for [`serve`].
///
/// # Errors
/// With the address and what the system says of it.
pub async fn listen<E: Env>(address: &str) -> io::Result<E::Listener> {
    E::bind(address)
        .await
        .map_err(|error| io::Error::new(error.kind(), format!("ListenAddress {address}: {error}")))
}
