//! Changes: what an operator or a script wants done, as requests to the node.
//!
//! Every function asks the node once (in bounded portions where a list is long) and says what came of it. Servers are
//! taken as they were named, never by a part of their name.

use std::time::Duration;

use axum::http::StatusCode;
use orchestrator_core::id::{Identity, InstanceKey, Uid};
use orchestrator_core::limits::KNOWN_PER_COMMAND_MAX;
use orchestrator_core::node::{Reply, Request};
use orchestrator_core::recovery::Recovery;
use orchestrator_core::replicated::{AckScope, Answer as Decision, Command, Refusal};
use orchestrator_core::topology::PromotionRule;
use serde::Serialize;

use super::Daemon;
use super::answer::{Answer, Document, Failure};
use super::audit::tagged_with;
use super::fleet;
use super::json::Key;
use super::names::{self, Matching};
use super::params::{TagText, simple_time};
use super::server::{Asked, Wish};
use super::sight::Sight;
use crate::raft::normalise_address;

/// For a command to be committed and applied.
const DECIDE: Duration = Duration::from_secs(10);
/// For a probe to end.
const PROBE: Duration = Duration::from_secs(30);
/// For a one-step operation to be settled.
const OPERATE: Duration = Duration::from_secs(60);
/// For a change of the raft members to be done.
const CHANGE_MEMBERS: Duration = Duration::from_secs(60);
/// A downtime for which no duration was given.
const DOWNTIME: Duration = Duration::from_secs(600);

/// What a reply comes to where something was to be decided.
fn decided(reply: Reply) -> Result<Decision, Failure> {
    match reply {
        Reply::Decided(Decision::Refused(refusal)) | Reply::Refused(refusal) => {
            Err(Failure::plain(refusal.to_string()))
        }
        Reply::Decided(
            answer @ (Decision::Done | Decision::Changed(_) | Decision::Numbered(_)),
        ) => Ok(answer),
        Reply::Probed(_) | Reply::Operated(_) => Ok(Decision::Done),
        Reply::ProbeFailed(failure) => Err(Failure::plain(failure.to_string())),
        Reply::NotLeading { leader } => Err(Failure::no_leader(match leader {
            Some(leader) => {
                format!("this daemon does not lead any more ({leader} does): nothing was done")
            }
            None => String::from("there is no raft leader: nothing was done"),
        })),
        Reply::Unknown(why) => Err(Failure::unknown(format!(
            "outcome unknown: {why}; look again before repeating the request"
        ))),
        Reply::Failed(why) => Err(Failure::plain(why)),
    }
}

/// How many rows a decision changed.
fn count(decision: &Decision) -> u64 {
    match decision {
        Decision::Changed(count) => *count,
        Decision::Done | Decision::Numbered(_) | Decision::Refused(_) => 0,
    }
}

async fn decide<D: Daemon>(asked: &Asked<'_, D>, command: Command) -> Result<Decision, Failure> {
    let request = Request::Decide(command);
    decided(asked.shared.daemon.ask(request, DECIDE).await)
}

async fn look<D: Daemon, T: Send + 'static>(
    asked: &Asked<'_, D>,
    look: impl FnOnce(&Sight<'_>) -> T + Send + 'static,
) -> Result<T, Failure> {
    Ok(asked.shared.daemon.read(look).await?)
}

/// Whether a server is one of the fleet.
async fn is_known<D: Daemon>(asked: &Asked<'_, D>, key: &InstanceKey) -> Result<bool, Failure> {
    let key = key.clone();
    look(asked, move |sight| {
        sight.instances.contains_key(&key) || sight.replicated.is_known(&key)
    })
    .await
}

/// A downtime protects, so that one of a server that nobody knows (a name is not completed for a change) must not look like
/// one that holds.
async fn expect_known<D: Daemon>(asked: &Asked<'_, D>, key: &InstanceKey) -> Result<(), Failure> {
    match is_known(asked, key).await? {
        true => Ok(()),
        false => Err(Failure::plain(format!(
            "{key} is not known: name a server as all-instances lists it, or discover it first"
        ))),
    }
}

/// Jobs on the servers' machines say what they have to say before the servers are found: taken, and told, at the end of the
/// message.
async fn remark_unknown<D: Daemon>(
    asked: &Asked<'_, D>,
    key: &InstanceKey,
) -> Result<String, Failure> {
    Ok(match is_known(asked, key).await? {
        true => String::new(),
        false => format!("; {key} is not known so far"),
    })
}

/// An answer about one server, with the server as it is after the change.
async fn with_instance<D: Daemon>(
    asked: &Asked<'_, D>,
    key: InstanceKey,
    message: String,
) -> Result<Answer, Failure> {
    let instance = fleet::one(asked, key).await?;
    Ok(Answer::ok(message, &instance))
}

/// The key under which a probed server is known: it may call itself by another name.
fn probed(reply: Reply, key: &InstanceKey) -> Result<InstanceKey, Failure> {
    match reply {
        Reply::Probed(found) => Ok(found),
        Reply::ProbeFailed(failure) => Err(Failure::plain(format!(
            "Cannot read instance: {key}: {failure}"
        ))),
        reply @ (Reply::Decided(_)
        | Reply::Operated(_)
        | Reply::Refused(_)
        | Reply::NotLeading { .. }
        | Reply::Unknown(_)
        | Reply::Failed(_)) => decided(reply).map(|_| key.clone()),
    }
}

pub(super) async fn discover<D: Daemon>(asked: &Asked<'_, D>) -> Result<Answer, Failure> {
    let key = names::usable_key(&asked.params)?;
    let request = Request::Discover(key.clone());
    let key = probed(asked.shared.daemon.ask(request, PROBE).await, &key)?;
    with_instance(asked, key.clone(), format!("Instance discovered: {key}")).await
}

pub(super) async fn async_discover<D: Daemon>(asked: &Asked<'_, D>) -> Result<Answer, Failure> {
    #[derive(Serialize)]
    #[serde(rename_all = "PascalCase")]
    struct Named {
        key: Key,
    }
    let key = names::usable_key(&asked.params)?;
    // Every daemon probes what is known.
    let command = Command::Know {
        keys: vec![key.clone()],
        by_operator: true,
    };
    decide(asked, command).await?;
    Ok(Answer::ok(
        format!("Asynchronous discovery initiated for Instance: {key}"),
        &Named {
            key: Key::from(&key),
        },
    ))
}

pub(super) async fn refresh<D: Daemon>(asked: &Asked<'_, D>) -> Result<Answer, Failure> {
    let key = names::usable_key(&asked.params)?;
    let request = Request::Refresh(key.clone());
    let key = probed(asked.shared.daemon.ask(request, PROBE).await, &key)?;
    Ok(Answer::ok(
        format!("Instance refreshed: {key}"),
        &Key::from(&key),
    ))
}

pub(super) async fn forget<D: Daemon>(asked: &Asked<'_, D>) -> Result<Answer, Failure> {
    let key = names::key(&asked.params)?;
    let command = Command::Forget {
        keys: vec![key.clone()],
    };
    decide(asked, command).await?;
    Ok(Answer::ok(
        format!("Instance forgotten: {key}"),
        &Key::from(&key),
    ))
}

/// The cluster that a change is meant for.
async fn cluster_of<D: Daemon>(asked: &Asked<'_, D>) -> Result<String, Failure> {
    let hint = names::cluster_hint(&asked.params).unwrap_or_default();
    let port = asked.shared.settings.default_port;
    look(asked, move |sight| {
        names::cluster(sight, &hint, port, Matching::Exact)
    })
    .await?
}

pub(super) async fn forget_cluster<D: Daemon>(asked: &Asked<'_, D>) -> Result<Answer, Failure> {
    let cluster = cluster_of(asked).await?;
    let name = cluster.clone();
    let keys: Vec<InstanceKey> = look(asked, move |sight| {
        sight
            .instances
            .values()
            .filter(|instance| instance.place.cluster_name == name)
            .map(|instance| instance.key.clone())
            .collect()
    })
    .await?;
    for portion in keys.chunks(KNOWN_PER_COMMAND_MAX) {
        let command = Command::Forget {
            keys: portion.to_vec(),
        };
        decide(asked, command).await?;
    }
    Ok(Answer::ok(format!("Cluster forgotten: {cluster}"), &()))
}

pub(super) async fn set_cluster_alias<D: Daemon>(asked: &Asked<'_, D>) -> Result<Answer, Failure> {
    let given = String::from(asked.params.get("clusterName").unwrap_or_default());
    let Some(alias) = asked.params.text("alias")?.map(String::from) else {
        return Err(Failure::plain(
            "No alias given: ?alias=NAME, or ?alias= to have none",
        ));
    };
    // A name that is not known is refused with the words of whoever knows the clusters.
    let cluster = match cluster_of(asked).await {
        Ok(cluster) => cluster,
        Err(failure) if failure.status == StatusCode::INTERNAL_SERVER_ERROR => given,
        Err(failure) => return Err(failure),
    };
    // Looks, filters and key-value stores would take one cluster for the other.
    let (own, wanted) = (cluster.clone(), alias.clone());
    let holder = look(asked, move |sight| {
        let clusters = names::Clusters::of(sight);
        clusters.other_called(&wanted, &own)
    })
    .await?;
    if let Some(holder) = holder {
        return Err(Failure::plain(format!(
            "'{alias}' is what the cluster {holder} is called, and nothing was done: give that one another alias first, or forget it \
             (forget-cluster) if it is no more"
        )));
    }
    let command = Command::SetClusterAlias {
        cluster_name: cluster.clone(),
        alias: alias.clone(),
        by_operator: true,
    };
    decide(asked, command).await?;
    Ok(Answer::ok(
        format!("Cluster {cluster} now has alias '{alias}'"),
        &(),
    ))
}

/// A pair of a key-value store.
#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct Pair {
    key: String,
    value: String,
}

/// Has the stores compared with what is decided: those of this daemon at once, those of the others within a minute. A
/// cluster without an alias is in no store.
pub(super) async fn submit_masters<D: Daemon>(asked: &Asked<'_, D>) -> Result<Answer, Failure> {
    let wanted = match names::cluster_hint(&asked.params) {
        None => None,
        Some(_) => {
            let cluster = cluster_of(asked).await?;
            let name = cluster.clone();
            let alias = look(asked, move |sight| names::Clusters::of(sight).alias(&name)).await?;
            if alias.is_empty() {
                return Err(Failure::plain(format!(
                    "cluster {cluster} has no alias, and is in no key-value store"
                )));
            }
            Some(alias)
        }
    };
    let told = asked
        .shared
        .daemon
        .publish()
        .await
        .map_err(Failure::plain)?;
    let told = told
        .into_iter()
        .filter(|told| wanted.as_ref().is_none_or(|alias| *alias == told.alias));
    let (mut masters, mut pairs) = (0, Vec::new());
    for cluster in told {
        masters += 1;
        let of_cluster = cluster.pairs.into_iter();
        pairs.extend(of_cluster.map(|(key, value)| Pair { key, value }));
    }
    Ok(Answer::ok(format!("Submitted {masters} masters"), &pairs))
}

/// The tag that a request means: `?tag=`, or else the segments of its path.
fn tag_text<D: Daemon>(asked: &Asked<'_, D>) -> Result<TagText, Failure> {
    let params = &asked.params;
    match (params.query("tag"), params.get("tagName")) {
        (Some(text), _) => TagText::parse(text),
        (None, Some(name)) if !name.is_empty() => Ok(TagText {
            name: String::from(name),
            value: params.get("tagValue").map(String::from),
            is_negated: false,
        }),
        (None, Some(_) | None) => TagText::parse(""),
    }
}

fn not_negated(tag: TagText) -> Result<TagText, Failure> {
    if tag.is_negated {
        Err(Failure::plain(format!(
            "tag {} is negated, which has a meaning in searches only",
            tag.name
        )))
    } else {
        Ok(tag)
    }
}

pub(super) async fn tag<D: Daemon>(asked: &Asked<'_, D>) -> Result<Answer, Failure> {
    let key = names::key(&asked.params)?;
    let tag = not_negated(tag_text(asked)?)?;
    let shown = match &tag.value {
        Some(value) => format!("{}={value}", tag.name),
        None => tag.name.clone(),
    };
    let command = Command::PutTag {
        key: key.clone(),
        name: tag.name,
        value: tag.value.unwrap_or_default(),
    };
    decide(asked, command).await?;
    let remark = remark_unknown(asked, &key).await?;
    Ok(Answer::ok(
        format!("{key} tagged with {shown}{remark}"),
        &Key::from(&key),
    ))
}

pub(super) async fn untag<D: Daemon>(asked: &Asked<'_, D>) -> Result<Answer, Failure> {
    let key = names::key(&asked.params)?;
    let tag = not_negated(tag_text(asked)?)?;
    delete_tag(asked, Some(key), tag).await
}

pub(super) async fn untag_all<D: Daemon>(asked: &Asked<'_, D>) -> Result<Answer, Failure> {
    let tag = not_negated(tag_text(asked)?)?;
    if tag.value.is_none() {
        return Err(Failure::plain(format!(
            "untag-all: either indicate an instance or a value of the tag {}",
            tag.name
        )));
    }
    delete_tag(asked, None, tag).await
}

async fn delete_tag<D: Daemon>(
    asked: &Asked<'_, D>,
    key: Option<InstanceKey>,
    tag: TagText,
) -> Result<Answer, Failure> {
    let (of, wanted) = (key.clone(), tag.clone());
    let keys = look(asked, move |sight| {
        tagged_with(sight, of.as_ref(), &wanted.name, wanted.value.as_deref())
    })
    .await?;
    let command = Command::DeleteTag {
        key,
        name: tag.name.clone(),
        value: tag.value,
    };
    let removed = match decide(asked, command).await {
        Ok(decision) => count(&decision),
        Err(failure) => return Err(failure),
    };
    Ok(Answer::ok(
        format!("{} removed from {removed} instances", tag.name),
        &keys,
    ))
}

pub(super) async fn begin_downtime<D: Daemon>(asked: &Asked<'_, D>) -> Result<Answer, Failure> {
    let key = names::usable_key(&asked.params)?;
    let lasts = match asked.params.get("duration") {
        Some(text) => simple_time(text)?,
        None => DOWNTIME,
    };
    let lasts = if lasts.is_zero() { DOWNTIME } else { lasts };
    expect_known(asked, &key).await?;
    let request = Request::BeginDowntime {
        key: key.clone(),
        owner: String::from(asked.params.text("owner")?.unwrap_or_default()),
        reason: String::from(asked.params.text("reason")?.unwrap_or_default()),
        lasts_s: lasts.as_secs(),
    };
    let reply = asked.shared.daemon.ask(request, DECIDE).await;
    Ok(match decided(reply) {
        Ok(_) => Answer::ok(format!("Downtime begun: {key}"), &Key::from(&key)),
        Err(failure) => Answer::failed(failure, Document::of(&Key::from(&key))),
    })
}

pub(super) async fn end_downtime<D: Daemon>(asked: &Asked<'_, D>) -> Result<Answer, Failure> {
    let key = names::key(&asked.params)?;
    let of = key.clone();
    let is_downtimed = look(asked, move |sight| {
        let downtime = sight.replicated.downtime_of(&of, sight.now.wall);
        downtime.is_some()
    });
    // What was forgotten since may be in a downtime.
    if !is_downtimed.await? {
        expect_known(asked, &key).await?;
    }
    let request = Request::Decide(Command::EndDowntime { key: key.clone() });
    match asked.shared.daemon.ask(request, DECIDE).await {
        // A server that is in no downtime is what was wanted.
        Reply::Decided(Decision::Refused(Refusal::NotFound(_)))
        | Reply::Refused(Refusal::NotFound(_)) => {}
        reply @ (Reply::Decided(_)
        | Reply::Probed(_)
        | Reply::ProbeFailed(_)
        | Reply::Operated(_)
        | Reply::Refused(_)
        | Reply::NotLeading { .. }
        | Reply::Unknown(_)
        | Reply::Failed(_)) => drop(decided(reply)?),
    }
    Ok(Answer::ok(
        format!("Downtime ended: {key}"),
        &Key::from(&key),
    ))
}

pub(super) async fn register_candidate<D: Daemon>(asked: &Asked<'_, D>) -> Result<Answer, Failure> {
    let key = names::usable_key(&asked.params)?;
    let text = asked.params.get("promotionRule").unwrap_or_default();
    let rule = match PromotionRule::parse(text) {
        Some(PromotionRule::Must) => {
            return Err(Failure::plain("promotion rule must is not supported yet"));
        }
        Some(
            rule @ (PromotionRule::Prefer
            | PromotionRule::Neutral
            | PromotionRule::PreferNot
            | PromotionRule::MustNot),
        ) => rule,
        None => {
            return Err(Failure::plain(format!(
                "Invalid CandidatePromotionRule: {text}"
            )));
        }
    };
    let command = Command::RegisterCandidate {
        key: key.clone(),
        rule,
    };
    decide(asked, command).await?;
    let remark = remark_unknown(asked, &key).await?;
    Ok(Answer::ok(
        format!("Registered candidate{remark}"),
        &Key::from(&key),
    ))
}

pub(super) async fn set_recoveries_enabled<D: Daemon>(
    asked: &Asked<'_, D>,
    wish: Wish,
) -> Result<Answer, Failure> {
    let command = Command::SetRecoveriesEnabled {
        enabled: wish == Wish::Enabled,
    };
    decide(asked, command).await?;
    Ok(match wish {
        Wish::Enabled => Answer::ok("Globally enabled recoveries", &"enabled"),
        Wish::Disabled => Answer::ok("Globally disabled recoveries", &"disabled"),
    })
}

/// Commits an acknowledgement: a comment is required; it is the caller's, else the owner's that was named, else this
/// daemon's. Gives the comment, and how many recoveries were acknowledged by it.
async fn acknowledge<D: Daemon>(
    asked: &Asked<'_, D>,
    scope: AckScope,
) -> Result<(String, u64), Failure> {
    let comment = asked.params.text("comment")?.unwrap_or_default().trim();
    if comment.is_empty() {
        return Err(Failure::plain("No acknowledge comment given"));
    }
    let owner = [
        asked.caller.user.as_str(),
        asked.params.text("owner")?.unwrap_or_default(),
        &asked.shared.settings.process.host_name,
    ]
    .into_iter()
    .find(|owner| !owner.is_empty())
    .unwrap_or_default();
    let command = Command::Acknowledge {
        scope,
        owner: String::from(owner),
        comment: String::from(comment),
    };
    let decision = decide(asked, command).await?;
    Ok((String::from(comment), count(&decision)))
}

pub(super) async fn acknowledge_cluster<D: Daemon>(
    asked: &Asked<'_, D>,
) -> Result<Answer, Failure> {
    let name = cluster_of(asked).await?;
    let of = name.clone();
    let alias = look(asked, move |sight| names::Clusters::of(sight).alias(&of)).await?;
    let scope = AckScope::Cluster {
        name: name.clone(),
        alias,
    };
    let (_, count) = acknowledge(asked, scope).await?;
    Ok(Answer::ok(
        format!("Acknowledged cluster recoveries: {count}"),
        &name,
    ))
}

/// An error unless there is such a recovery, acknowledged or not: who asks twice has what was wanted, who names another
/// than was meant has not.
async fn expect_recovery<D: Daemon>(
    asked: &Asked<'_, D>,
    what: String,
    is_meant: impl Fn(&Recovery) -> bool + Send + 'static,
) -> Result<(), Failure> {
    let is_there = look(asked, move |sight| {
        let mut recoveries = sight.replicated.recoveries_newest_first();
        recoveries.any(|recovery| recovery.purpose.is_recovery() && is_meant(recovery))
    });
    match is_there.await? {
        true => Ok(()),
        false => Err(Failure::plain(format!("there is no recovery {what}"))),
    }
}

pub(super) async fn acknowledge_instance<D: Daemon>(
    asked: &Asked<'_, D>,
) -> Result<Answer, Failure> {
    let key = names::key(&asked.params)?;
    let (_, count) = acknowledge(asked, AckScope::Instance(key.clone())).await?;
    if count == 0 {
        let of = key.clone();
        expect_recovery(asked, format!("of {key}"), move |row| row.server == of).await?;
    }
    Ok(Answer::ok(
        format!("Acknowledged instance recoveries: {count}"),
        &Key::from(&key),
    ))
}

pub(super) async fn acknowledge_recovery<D: Daemon>(
    asked: &Asked<'_, D>,
) -> Result<Answer, Failure> {
    let (count, given) = match (asked.params.get("recoveryId"), asked.params.get("uid")) {
        (Some(id), _) => {
            let number = id
                .parse()
                .map_err(|_| Failure::plain(format!("Invalid recovery id: {id}")))?;
            let (_, count) = acknowledge(asked, AckScope::Number(number)).await?;
            if count == 0 {
                expect_recovery(asked, String::from(id), move |row| row.number == number).await?;
            }
            (count, id)
        }
        (None, uid) => {
            let given = uid.unwrap_or_default();
            let uid = Uid(String::from(given));
            let (_, count) = acknowledge(asked, AckScope::Uid(uid.clone())).await?;
            if count == 0 {
                expect_recovery(asked, String::from(given), move |row| row.uid == uid).await?;
            }
            (count, given)
        }
    };
    Ok(Answer::ok(
        format!("Acknowledged recovery: {count}"),
        &given,
    ))
}

pub(super) async fn acknowledge_all<D: Daemon>(asked: &Asked<'_, D>) -> Result<Answer, Failure> {
    let (comment, count) = acknowledge(asked, AckScope::All).await?;
    Ok(Answer::ok(
        format!("Acknowledged all recoveries: {count}"),
        &comment,
    ))
}

async fn operate<D: Daemon>(
    asked: &Asked<'_, D>,
    key: InstanceKey,
    request: Request,
    message: &str,
) -> Result<Answer, Failure> {
    decided(asked.shared.daemon.ask(request, OPERATE).await)?;
    with_instance(asked, key, String::from(message)).await
}

pub(super) async fn set_read_only<D: Daemon>(asked: &Asked<'_, D>) -> Result<Answer, Failure> {
    let key = names::usable_key(&asked.params)?;
    let request = Request::SetReadOnly {
        key: key.clone(),
        super_read_only: asked.shared.settings.use_super_read_only,
    };
    operate(asked, key, request, "Server set as read-only").await
}

pub(super) async fn set_writeable<D: Daemon>(asked: &Asked<'_, D>) -> Result<Answer, Failure> {
    let key = names::usable_key(&asked.params)?;
    let request = Request::SetWriteable { key: key.clone() };
    operate(asked, key, request, "Server set as writeable").await
}

/// A primary that a recovery replaced is like any other server from here on, because people say so. Nothing is changed there.
pub(super) async fn release_deposed<D: Daemon>(asked: &Asked<'_, D>) -> Result<Answer, Failure> {
    let key = names::key(&asked.params)?;
    let of = key.clone();
    let deposed: Vec<Identity> = look(asked, move |sight| {
        let rows = sight.replicated.deposed_at(&of);
        rows.map(|(identity, _)| identity.clone()).collect()
    })
    .await?;
    if deposed.is_empty() {
        return Err(Failure::plain(format!(
            "{key} is no primary that a recovery replaced"
        )));
    }
    let reason = match asked.caller.user.as_str() {
        "" => String::from("released"),
        user => format!("released by {user}"),
    };
    for identity in deposed {
        let reason = reason.clone();
        decide(asked, Command::LiftQuarantine { identity, reason }).await?;
    }
    Ok(Answer::ok("Deposed primary released", &Key::from(&key)))
}

/// A daemon that waits becomes a raft member; answered when it is one.
pub(super) async fn add_peer<D: Daemon>(asked: &Asked<'_, D>) -> Result<Answer, Failure> {
    let address = peer_address(asked, "addr")?;
    let request = Request::AddPeer {
        address: address.clone(),
    };
    change_members(asked, request, "Cannot add raft peer").await?;
    Ok(Answer::bare(&address))
}

/// A raft member leaves; answered when it has.
pub(super) async fn remove_peer<D: Daemon>(asked: &Asked<'_, D>) -> Result<Answer, Failure> {
    let address = peer_address(asked, "addr")?;
    let request = Request::RemovePeer {
        address: address.clone(),
    };
    change_members(asked, request, "Cannot remove raft peer").await?;
    Ok(Answer::bare(&address))
}

/// A raft member leaves and a daemon that waits takes its place, in one change; answered when it is done.
pub(super) async fn replace_peer<D: Daemon>(asked: &Asked<'_, D>) -> Result<Answer, Failure> {
    let newcomer = peer_address(asked, "by")?;
    let request = Request::ReplacePeer {
        former: peer_address(asked, "addr")?,
        newcomer: newcomer.clone(),
    };
    change_members(asked, request, "Cannot replace raft peer").await?;
    Ok(Answer::bare(&newcomer))
}

/// The original's database of this member is to be taken over, in the place of the one that was written last.
pub(super) async fn adopt_original<D: Daemon>(asked: &Asked<'_, D>) -> Result<Answer, Failure> {
    let address = peer_address(asked, "addr")?;
    let peers = &asked.facts.peers;
    let Some(peer) = peers.iter().find(|peer| peer.address == address) else {
        return Err(Failure::plain(format!(
            "{address} is not the address of a raft member"
        )));
    };
    decide(asked, Command::ChooseOriginal { node: peer.node }).await?;
    Ok(Answer::ok("Database is being taken over", &address))
}

async fn change_members<D: Daemon>(
    asked: &Asked<'_, D>,
    request: Request,
    what: &str,
) -> Result<(), Failure> {
    decided(asked.shared.daemon.ask(request, CHANGE_MEMBERS).await)
        .map(drop)
        .map_err(|failure| Failure {
            message: format!("{what}: {}", failure.message),
            ..failure
        })
}

/// A raft address of a request, with its port.
pub(super) fn peer_address<D: Daemon>(asked: &Asked<'_, D>, name: &str) -> Result<String, Failure> {
    let text = asked.params.get(name).unwrap_or_default();
    normalise_address(text, asked.facts.default_port).map_err(Failure::plain)
}
