//! Commands of the daemon's own command line: they read what one backend shows, beside the daemons, and some write there.
//!
//! Decides which commands those are and how their answers are printed; what is answered is the API's own answer to the same
//! question, asked of a daemon that knows nothing but the backend's rows. A change is decided by the same state as the
//! daemons', made of those rows, and its rows are written where they were read: no daemon knows of it, this backend's own
//! discards it at its next start, and whoever types it is told so.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use orchestrator_core::analysis::{Diagnosis, Filters, Judging, View};
use orchestrator_core::id::LogPosition;
use orchestrator_core::node::{MembersView, Reply, Request};
use orchestrator_core::replicated::{Answer, Change, Command, Replicated, Stamped};
use orchestrator_core::topology::Edges;
use regex::Regex;
use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::backend::{self, BackendHealth, Shown};
use crate::config::Settings;
use crate::env::{Env, spawn};
use crate::http;
use crate::kv::Told;

/// What was said beside the command's name.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Said {
    /// `-i`
    pub instance: String,
    /// `-alias`
    pub alias: String,
    /// `-pattern`
    pub pattern: String,
    /// `-tag`
    pub tag: String,
    /// `-owner`; empty: the user who types.
    pub owner: String,
    /// `-reason`
    pub reason: String,
    /// `-duration`
    pub duration: String,
    /// `-promotion-rule`
    pub promotion_rule: String,
}

/// Commands that look, by their canonical names.
pub const LOOKS: &[&str] = &[
    "all-clusters-masters",
    "all-instances",
    "bulk-instances",
    "check-global-recoveries",
    "clusters",
    "clusters-alias",
    "find",
    "get-cluster-heuristic-lag",
    "is-replicating",
    "is-replication-stopped",
    "replication-analysis",
    "search",
    "tag-value",
    "tagged",
    "tags",
    "topology",
    "topology-tabulated",
    "topology-tags",
    "which-cluster",
    "which-cluster-alias",
    "which-cluster-domain",
    "which-cluster-instances",
    "which-cluster-master",
    "which-downtimed-instances",
    "which-gtid-errant",
    "which-instance",
    "which-lost-in-recovery",
    "which-master",
    "which-replicas",
];

/// Commands that write to the backend, when forced. What they say is seen in one table, and holds nothing back: such as the
/// stop of all recoveries and acknowledgements are not among them, since who types them relies on what daemons do next.
pub const CHANGES: &[&str] = &[
    "begin-downtime",
    "end-downtime",
    "register-candidate",
    "tag",
    "untag",
];

/// What came of a command.
#[derive(Debug, PartialEq, Eq)]
pub struct Seen {
    /// For standard output.
    pub text: String,
    /// For standard error: whose view it is, and how old.
    pub remark: String,
}

/// Answers a command of [`LOOKS`], or carries one of [`CHANGES`] out.
///
/// # Errors
/// It cannot be answered, or nothing was written, in words.
pub async fn run<E: Env>(command: &str, said: &Said, settings: &Settings) -> Result<Seen, String> {
    let place = backend::Settings::new(&settings.backend).place;
    let shown = backend::shown::<E>(&place, settings.policy())
        .await
        .map_err(|error| error.to_string())?;
    let age = shown.now.wall.since(shown.written).as_secs();
    let changes_it = CHANGES.contains(&command);
    let remark = match &settings.raft {
        _ if changes_it => format!(
            "warning: this is written to the tables of one backend only ({place}). NO DAEMON KNOWS OF IT, neither this \
             backend's own nor the others: no recovery, no answer of the API and no other backend takes it into account. It \
             is discarded when this backend's daemon is started again, or writes its tables anew; only `raft recover \
             --from-backend` would take it in. To have it decided, ask the leader: orchestrator-client -c {command}"
        ),
        Some(_) => format!(
            "warning: RaftEnabled is ignored: this is what the backend of this one daemon shows ({place}, written {age} s ago). \
             Other daemons may know more: the leader's is the one that counts, and running daemons are asked with \
             orchestrator-client"
        ),
        None => format!("{place} was written {age} s ago"),
    };
    let process = http::Process::default();
    let mut http = http::Settings::of(settings, process).map_err(|error| error.to_string())?;
    // Nobody else asks.
    http.authentication = http::Authentication::None;
    http.tls = http::TlsSettings::default();
    http.identity_in_messages = None;
    http.url_prefix = String::new();
    http.status_endpoint = String::from("/api/status");
    let (filters, _) = Filters::compile_or_skip(shown.state.policy());
    let decided = Mutex::new(Decided {
        state: shown.state.clone(),
        changes: Vec::new(),
    });
    let rows = Rows(Arc::new(Known {
        shown,
        filters,
        decided,
    }));
    let api = Api::<E> {
        rows: rows.clone(),
        settings: http,
        default_port: settings.discovery.default_port,
        env: std::marker::PhantomData,
    };
    let text = api.answer(command, said).await?;
    if changes_it {
        let changes = rows.decided().changes.clone();
        backend::write_by_hand::<E>(&place, &changes)
            .await
            .map_err(|error| format!("nothing was written: {error}"))?;
    }
    Ok(Seen { text, remark })
}

/// What a backend shows, as the daemon that the API asks.
#[derive(Clone)]
struct Rows(Arc<Known>);

struct Known {
    shown: Shown,
    filters: Filters,
    decided: Mutex<Decided>,
}

/// The state of the rows, and what was decided on it.
struct Decided {
    state: Replicated,
    changes: Vec<Change>,
}

impl Rows {
    fn decided(&self) -> MutexGuard<'_, Decided> {
        self.0
            .decided
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

impl http::Daemon for Rows {
    async fn read<T: Send + 'static>(
        &self,
        look: impl FnOnce(&http::Sight<'_>) -> T + Send + 'static,
    ) -> Result<T, http::Gone> {
        let Known { shown, filters, .. } = &*self.0;
        let state = &self.decided().state;
        let edges = Edges::of(shown.instances.values());
        let view = View {
            instances: &shown.instances,
            edges: &edges,
        };
        let judging = Judging {
            policy: state.policy(),
            filters,
            context: &(),
            now: shown.now,
        };
        Ok(look(&http::Sight {
            now: shown.now,
            instances: &shown.instances,
            replicated: state,
            diagnosis: &Diagnosis::of(view, judging),
            filters,
            local_policy: state.policy(),
            disagreements: &std::collections::BTreeMap::new(),
            members: &MembersView::default(),
        }))
    }

    async fn ask(&self, request: Request, _deadline: Duration) -> Reply {
        let now = self.0.shown.now.wall;
        let command = match request {
            Request::Decide(command) => command,
            Request::BeginDowntime {
                key,
                owner,
                reason,
                lasts_s,
            } => Command::BeginDowntime {
                key,
                owner,
                reason,
                until: now + Duration::from_secs(lasts_s),
            },
            Request::Discover(_)
            | Request::Refresh(_)
            | Request::SetReadOnly { .. }
            | Request::SetWriteable { .. }
            | Request::AddPeer { .. }
            | Request::RemovePeer { .. }
            | Request::ReplacePeer { .. }
            | Request::Opinions { .. } => return Reply::NotLeading { leader: None },
        };
        let mut decided = self.decided();
        let at = decided.state.applied();
        let at = LogPosition {
            index: at.index + 1,
            ..at
        };
        let stamped = Stamped { wall: now, command };
        let applied = decided.state.apply(at, &stamped);
        if !matches!(applied.answer, Answer::Refused(_)) {
            decided.changes.extend(applied.changes);
        }
        Reply::Decided(applied.answer)
    }

    /// It answers itself whatever a leader would be asked.
    fn raft(&self) -> http::RaftFacts {
        http::RaftFacts {
            is_leading: true,
            ..http::RaftFacts::held("this is no daemon")
        }
    }

    fn backend(&self) -> BackendHealth {
        BackendHealth::default()
    }

    async fn publish(&self) -> Result<Vec<Told>, String> {
        Ok(Vec::new())
    }

    async fn perform(&self, _order: http::Order) -> Result<String, String> {
        Err(String::from("this is no daemon"))
    }
}

struct Api<E> {
    rows: Rows,
    settings: http::Settings,
    default_port: u16,
    env: std::marker::PhantomData<fn() -> E>,
}

impl<E: Env> Api<E> {
    /// GET of a path; an error in the words of the API.
    async fn get(&self, path: &str) -> Result<Value, String> {
        let (mut near, far) = tokio::io::duplex(64 * 1024);
        let (settings, rows) = (self.settings.clone(), self.rows.clone());
        spawn::<E>(async move {
            let peer = String::from("127.0.0.1:0");
            if let Err(error) = http::converse::<E, _, _>(far, peer, settings, rows).await {
                tracing::error!("{error}");
            }
        });
        let failed = |error: std::io::Error| error.to_string();
        let request = format!("GET /api/{path} HTTP/1.0\r\nHost: localhost\r\n\r\n");
        near.write_all(request.as_bytes()).await.map_err(failed)?;
        let mut answer = Vec::new();
        near.read_to_end(&mut answer).await.map_err(failed)?;
        let answer = String::from_utf8_lossy(&answer);
        let (head, body) = answer.split_once("\r\n\r\n").ok_or("no answer")?;
        let document: Value = serde_json::from_str(body).map_err(|error| error.to_string())?;
        let is_good = head
            .split(' ')
            .nth(1)
            .is_some_and(|status| status.starts_with('2'));
        if is_good {
            Ok(document)
        } else {
            Err(document["Message"]
                .as_str()
                .map_or_else(|| body.to_owned(), str::to_owned))
        }
    }

    async fn answer(&self, command: &str, said: &Said) -> Result<String, String> {
        match command {
            "clusters" => {
                let clusters = self.get("clusters").await?;
                let names: Vec<&str> = texts(&clusters).collect();
                Ok(format!("{}\n", names.join("\n")))
            }
            "clusters-alias" => {
                let clusters = self.get("clusters-info").await?;
                Ok(lines(list(&clusters).map(|cluster| {
                    format!(
                        "{}\t{}",
                        text(cluster, "ClusterName"),
                        text(cluster, "ClusterAlias")
                    )
                })))
            }
            "all-clusters-masters" => Ok(names(&self.get("masters").await?)),
            "all-instances" => Ok(names(&self.get("all-instances").await?)),
            "bulk-instances" => {
                let servers = self.get("all-instances").await?;
                let mut names: Vec<String> = list(&servers).map(name).collect();
                names.sort();
                Ok(format!("{}\n", names.join("\n")))
            }
            "search" => {
                let pattern = needed("pattern", &said.pattern)?;
                Ok(names(
                    &self.get(&format!("search?s={}", escaped(pattern))).await?,
                ))
            }
            "find" => {
                let pattern = needed("pattern", &said.pattern)?;
                let pattern = Regex::new(pattern).map_err(|error| error.to_string())?;
                let servers = self.get("all-instances").await?;
                let found = list(&servers)
                    .map(name)
                    .filter(|name| pattern.is_match(name));
                Ok(lines(found))
            }
            "topology" | "topology-tabulated" | "topology-tags" => {
                let cluster = self.cluster(said)?;
                let answer = self.get(&format!("{command}/{cluster}")).await?;
                let drawn = answer["Details"].as_str().unwrap_or_default();
                Ok(format!("{drawn}\n"))
            }
            "which-cluster" => {
                let cluster = self
                    .get(&format!("cluster-info/{}", self.cluster(said)?))
                    .await;
                // The original answers an unknown one with an empty line.
                Ok(cluster.map_or_else(
                    |_| String::from("\n"),
                    |cluster| format!("{}\n", text(&cluster, "ClusterName")),
                ))
            }
            "which-cluster-alias" => self.of_cluster(said, "ClusterAlias").await,
            "which-cluster-domain" => self.of_cluster(said, "ClusterDomain").await,
            "get-cluster-heuristic-lag" => self.of_cluster(said, "HeuristicLag").await,
            "which-cluster-master" => {
                let server = self.get(&format!("master/{}", self.cluster(said)?)).await?;
                Ok(format!("{}\n", name(&server)))
            }
            "which-cluster-instances" => Ok(names(
                &self
                    .get(&format!("cluster/{}", self.cluster(said)?))
                    .await?,
            )),
            "which-downtimed-instances" => {
                let path = match (&said.alias, &said.instance) {
                    (alias, instance) if alias.is_empty() && instance.is_empty() => {
                        String::from("downtimed")
                    }
                    _ => format!("downtimed/{}", self.cluster(said)?),
                };
                Ok(names(&self.get(&path).await?))
            }
            "which-lost-in-recovery" => {
                let servers = self.get("downtimed").await?;
                let lost = list(&servers)
                    .filter(|server| text(server, "DowntimeReason") == "lost-in-recovery");
                Ok(lines(lost.map(name)))
            }
            "which-instance" => Ok(format!("{}\n", name(&self.server(said).await?))),
            "which-master" => {
                let server = self.server(said).await?;
                let source = name_of(&server["MasterKey"]);
                Ok(if source == ":0" {
                    String::new()
                } else {
                    format!("{source}\n")
                })
            }
            "which-replicas" => {
                let path = format!("instance-replicas/{}", self.path(said)?);
                Ok(names(&self.get(&path).await?))
            }
            "which-gtid-errant" => Ok(format!(
                "{}\n",
                text(&self.server(said).await?, "GtidErrant")
            )),
            "is-replicating" => {
                let server = self.server(said).await?;
                Ok(name_if(&server, |state| state == 1))
            }
            "is-replication-stopped" => {
                let server = self.server(said).await?;
                Ok(name_if(&server, |state| state == 0))
            }
            "tags" => {
                let tags = self.get(&format!("tags/{}", self.path(said)?)).await?;
                Ok(lines(texts(&tags).map(str::to_owned)))
            }
            "tag-value" => {
                let tag = escaped(needed("tag", &said.tag)?);
                let path = format!("tag-value/{}?tag={tag}", self.path(said)?);
                // Not tagged: nothing is printed, as ever.
                Ok(self
                    .get(&path)
                    .await
                    .ok()
                    .and_then(|value| value.as_str().map(|value| format!("{value}\n")))
                    .unwrap_or_default())
            }
            "tagged" => {
                let tag = escaped(needed("tag", &said.tag)?);
                let servers = self.get(&format!("tagged?tag={tag}")).await?;
                let mut names: Vec<String> = list(&servers).map(name_of).collect();
                names.sort();
                Ok(lines(names.into_iter()))
            }
            "check-global-recoveries" => {
                let answer = self.get("check-global-recoveries").await?;
                let is_disabled = answer["Details"].as_str() == Some("disabled");
                Ok(format!("OK: Global recoveries disabled: {is_disabled}\n"))
            }
            "replication-analysis" => {
                let answer = self.get("replication-analysis").await?;
                let rows = list(&answer["Details"]).filter(|row| row["IsDowntimed"] != true);
                Ok(lines(rows.filter_map(analysis)))
            }
            "begin-downtime" => {
                let reason = escaped(needed("reason", &said.reason)?);
                let mut path = format!(
                    "begin-downtime/{}/{}/{reason}",
                    self.path(said)?,
                    escaped(&who(said))
                );
                if !said.duration.is_empty() {
                    path = format!("{path}/{}", escaped(&said.duration));
                }
                Ok(format!("{}\n", name_of(&self.get(&path).await?["Details"])))
            }
            "end-downtime" => {
                let path = format!("end-downtime/{}", self.path(said)?);
                Ok(format!("{}\n", name_of(&self.get(&path).await?["Details"])))
            }
            "register-candidate" => {
                let rule = match said.promotion_rule.as_str() {
                    "" => "prefer",
                    rule => rule,
                };
                let path = format!("register-candidate/{}/{rule}", self.path(said)?);
                Ok(format!("{}\n", name_of(&self.get(&path).await?["Details"])))
            }
            "tag" => {
                let tag = escaped(needed("tag", &said.tag)?);
                let path = format!("tag/{}?tag={tag}", self.path(said)?);
                Ok(format!("{}\n", name_of(&self.get(&path).await?["Details"])))
            }
            "untag" => {
                let tag = escaped(needed("tag", &said.tag)?);
                let path = format!("untag/{}?tag={tag}", self.path(said)?);
                Ok(lines(list(&self.get(&path).await?["Details"]).map(name_of)))
            }
            other => Err(format!("{other} is no command of this program")),
        }
    }

    async fn of_cluster(&self, said: &Said, member: &str) -> Result<String, String> {
        let cluster = self
            .get(&format!("cluster-info/{}", self.cluster(said)?))
            .await?;
        Ok(match &cluster[member] {
            Value::String(text) => format!("{text}\n"),
            other => format!("{other}\n"),
        })
    }

    async fn server(&self, said: &Said) -> Result<Value, String> {
        self.get(&format!("instance/{}", self.path(said)?)).await
    }

    /// `host/port` of `-i`.
    fn path(&self, said: &Said) -> Result<String, String> {
        let instance = needed("i", &said.instance)?;
        let (host, port) = match instance.rsplit_once(':') {
            Some((host, port)) if port.parse::<u16>().is_ok() && !host.ends_with(':') => {
                (host, port)
            }
            _ => (instance, ""),
        };
        let host = host.trim_matches(['[', ']']);
        let port = match port {
            "" => self.default_port.to_string(),
            port => port.to_owned(),
        };
        Ok(format!("{}/{port}", escaped(host)))
    }

    /// The cluster of `-alias`, or of `-i`.
    fn cluster(&self, said: &Said) -> Result<String, String> {
        match (said.alias.as_str(), said.instance.as_str()) {
            ("", "") => Err(String::from(
                "name a cluster, with -alias or by one of its servers with -i",
            )),
            ("", instance) => {
                let has_port = instance.rsplit_once(':').is_some();
                let name = if has_port {
                    instance.to_owned()
                } else {
                    format!("{instance}:{}", self.default_port)
                };
                Ok(escaped(&name))
            }
            (alias, _) => Ok(escaped(alias)),
        }
    }
}

/// Who types.
fn who(said: &Said) -> String {
    let user = || {
        ["USER", "LOGNAME"]
            .iter()
            .find_map(|name| std::env::var(name).ok())
    };
    match said.owner.as_str() {
        "" => user()
            .filter(|user| !user.is_empty())
            .unwrap_or_else(|| String::from("unknown")),
        owner => owner.to_owned(),
    }
}

fn needed<'a>(flag: &str, value: &'a str) -> Result<&'a str, String> {
    match value {
        "" => Err(format!("-{flag} is needed")),
        value => Ok(value),
    }
}

fn list(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

fn texts(value: &Value) -> impl Iterator<Item = &str> {
    list(value).filter_map(Value::as_str)
}

fn text<'a>(value: &'a Value, member: &str) -> &'a str {
    value[member].as_str().unwrap_or_default()
}

/// `host:port` of a key.
fn name_of(key: &Value) -> String {
    format!(
        "{}:{}",
        text(key, "Hostname"),
        key["Port"].as_u64().unwrap_or(0)
    )
}

/// `host:port` of a server, bare or in an envelope.
fn name(server: &Value) -> String {
    match &server["Details"] {
        Value::Object(server) => server.get("Key").map(name_of).unwrap_or_default(),
        _ => name_of(&server["Key"]),
    }
}

fn names(servers: &Value) -> String {
    lines(list(servers).map(name))
}

fn lines(lines: impl Iterator<Item = String>) -> String {
    lines.map(|line| line + "\n").collect()
}

/// The server's name if both of its threads are in such a state.
fn name_if(server: &Value, fits: impl Fn(i64) -> bool) -> String {
    let threads = ["ReplicationIOThreadState", "ReplicationSQLThreadState"];
    let all = threads
        .iter()
        .all(|thread| server[*thread].as_i64().is_some_and(&fits));
    if all {
        format!("{}\n", name(server))
    } else {
        String::new()
    }
}

/// `host:port (cluster NAME): code, ...`; none where nothing is wrong.
fn analysis(row: &Value) -> Option<String> {
    let code = text(row, "Analysis");
    let structure = texts(&row["StructureAnalysis"]);
    let codes: Vec<&str> = std::iter::once(code)
        .filter(|code| !code.is_empty() && *code != "NoProblem")
        .chain(structure)
        .collect();
    (!codes.is_empty()).then(|| {
        format!(
            "{} (cluster {}): {}",
            name_of(&row["AnalyzedInstanceKey"]),
            text(&row["ClusterDetails"], "ClusterName"),
            codes.join(", ")
        )
    })
}

/// A segment of a path, or a value of a query.
fn escaped(text: &str) -> String {
    use std::fmt::Write as _;
    let mut path = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => {
                path.push(char::from(byte));
            }
            other => {
                // Writing to a String cannot fail.
                let _ = write!(path, "%{other:02X}");
            }
        }
    }
    path
}
