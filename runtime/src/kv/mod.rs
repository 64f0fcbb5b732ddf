//! Who is primary, in key-value stores that proxies and applications read.
//!
//! What a store is to say is a function of the replicated state, so nothing is queued and nothing is replayed: each round
//! compares what is there with what should be, and mends the difference. A value carries the log time of the decision that
//! it comes from and the term in which it was written, and is never replaced by one of an earlier decision, nor by another
//! primary of an earlier term: a daemon that lags, or was cut off, cannot turn a store back. Every daemon publishes to the
//! store of its own configuration while it is part of a quorum.

mod consul;
mod version;

use std::collections::BTreeMap;
use std::future::Future;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use orchestrator_core::id::{ClusterKey, InstanceKey};
use orchestrator_core::recovery::{Hook, HookCounts, HookFacts, HookList, Outcome};
use orchestrator_core::replicated::Replicated;
use orchestrator_core::time::Wall;
use tokio::sync::{mpsc, oneshot};

use crate::backend::Backend;
use crate::config::{ConsulSettings, KvSettings};
use crate::driver::DriverHandle;
use crate::env::{Env, sleep, spawn, timeout};
use crate::hooks::Hooks;
use consul::Consul;
pub use version::Version;

/// How often the state is looked at.
const LOOK: Duration = Duration::from_millis(100);
/// How often the stores are compared although nothing was decided: somebody may have emptied them.
const COMPARE: Duration = Duration::from_secs(60);
/// After a round that failed.
const RETRY: Duration = Duration::from_secs(2);
/// How long the hooks after a failover wait for the stores to be told.
const FLUSH: Duration = Duration::from_secs(2);

/// What a store is to say of one cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Entry {
    pub alias: String,
    pub primary: InstanceKey,
    /// Log time of the decision in milliseconds since the epoch, and the number of the recovery added to it: log time stands
    /// still for as long as somebody's clock was ahead.
    pub decided: u64,
}

impl Entry {
    const fn version(&self, term: u64) -> Version {
        let decided = self.decided;
        Version { decided, term }
    }
}

/// What stores are to say by this state: the primary of every cluster that has an alias.
pub(crate) fn entries(state: &Replicated) -> Vec<Entry> {
    let mut decided: BTreeMap<ClusterKey, (Wall, u64)> = BTreeMap::new();
    for recovery in state.recoveries_newest_first() {
        if recovery.purpose.is_recovery()
            && recovery.successor.is_some()
            && let Some((at, _)) = recovery.end
        {
            decided
                .entry(recovery.cluster)
                .or_insert((at, recovery.number));
        }
    }
    state
        .clusters()
        .filter(|record| !record.shown_alias().is_empty())
        .map(|record| {
            let (at, number) = decided.get(&record.key).copied().unwrap_or_default();
            let at = at.max(record.recorded);
            let running = state.running_on(record.key);
            let opened = running.and_then(|recovery| Some((recovery.opened()?, recovery)));
            let (primary, at, number) = match opened {
                None => (&record.primary, at, number),
                Some((key, recovery)) => (key, at.max(recovery.began), recovery.number),
            };
            Entry {
                alias: record.shown_alias().to_owned(),
                primary: primary.clone(),
                decided: millis(at) + number,
            }
        })
        .collect()
}

fn millis(at: Wall) -> u64 {
    at.nanos() / 1_000_000
}

/// The pairs of one entry, in the order in which they are written.
pub(crate) fn pairs(prefix: &str, entry: &Entry, addresses: Option<&[IpAddr]>) -> Pairs {
    let key = format!("{prefix}{}", entry.alias);
    let InstanceKey { host, port } = &entry.primary;
    let first = |wanted: fn(&IpAddr) -> bool| {
        let found = addresses?.iter().find(|address| wanted(address));
        Some(found.map(ToString::to_string).unwrap_or_default())
    };
    Pairs(vec![
        (key.clone(), Some(entry.primary.to_string())),
        (format!("{key}/hostname"), Some(host.clone())),
        (format!("{key}/port"), Some(port.to_string())),
        (format!("{key}/ipv4"), first(IpAddr::is_ipv4)),
        (format!("{key}/ipv6"), first(IpAddr::is_ipv6)),
    ])
}

/// The pairs of one cluster, that which names its primary first. A value that is not known (the primary's name was not
/// resolved) stays what it is in a store that names the same primary, and is empty in one that names another.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Pairs(Vec<(String, Option<String>)>);

impl Pairs {
    fn known(&self) -> impl Iterator<Item = (String, String)> {
        let known = |(key, value): &(String, Option<String>)| Some((key.clone(), value.clone()?));
        self.0.iter().filter_map(known)
    }

    fn or_empty(&self) -> impl Iterator<Item = (String, String)> {
        let pairs = self.0.iter();
        pairs.map(|(key, value)| (key.clone(), value.clone().unwrap_or_default()))
    }
}

/// Asks the publisher for a round.
#[derive(Debug, Clone)]
pub struct Handle(mpsc::Sender<Asked>);

/// A round that is asked for.
#[derive(Debug)]
struct Asked {
    /// Also compare what was told already.
    compares: bool,
    done: oneshot::Sender<Result<Vec<Told>, String>>,
}

/// What the stores say of one cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Told {
    pub alias: String,
    pub pairs: Vec<(String, String)>,
}

/// For a name to be resolved: what needs no addresses does not wait for a name server that answers nobody.
const RESOLVE: Duration = Duration::from_millis(500);
/// For all stores to be compared.
const COMPARE_TIME_MAX: Duration = Duration::from_secs(30);

impl Handle {
    /// Compares this daemon's stores with what is decided, mends what differs, and tells what they say then.
    ///
    /// # Errors
    /// What could not be written, in words.
    pub async fn compare<E: Env>(&self) -> Result<Vec<Told>, String> {
        let (done, told) = oneshot::channel();
        let asked = async {
            let asked = Asked {
                compares: true,
                done,
            };
            self.0.send(asked).await.ok()?;
            told.await.ok()
        };
        timeout::<E, _>(COMPARE_TIME_MAX, asked)
            .await
            .ok_or_else(|| format!("not done within {} s", COMPARE_TIME_MAX.as_secs()))?
            .unwrap_or_else(|| Err(String::from("this daemon is shutting down")))
    }

    /// Returns when the stores were told of all that is decided by now, or when that takes too long.
    pub async fn flush<E: Env>(&self, patience: Duration) {
        let (done, told) = oneshot::channel();
        let asked = async {
            let asked = Asked {
                compares: false,
                done,
            };
            if self.0.send(asked).await.is_ok() {
                // An end without an answer: the daemon ends. What failed is in the log.
                let _ = told.await;
            }
        };
        if timeout::<E, _>(patience, asked).await.is_none() {
            tracing::warn!(
                "the key-value stores were not told within {} s",
                patience.as_secs_f32()
            );
        }
    }
}

/// Hooks that come after the stores were told.
#[derive(Debug)]
pub struct AfterPublication<E> {
    hooks: Arc<dyn Hooks>,
    handle: Handle,
    env: std::marker::PhantomData<fn() -> E>,
}

impl<E: Env> AfterPublication<E> {
    #[must_use]
    pub fn new(hooks: Arc<dyn Hooks>, handle: Handle) -> Self {
        AfterPublication {
            hooks,
            handle,
            env: std::marker::PhantomData,
        }
    }
}

impl<E: Env> Hooks for AfterPublication<E> {
    fn counts(&self) -> HookCounts {
        self.hooks.counts()
    }

    fn prepare(&self, hook: Hook) -> Pin<Box<dyn Future<Output = ()> + Send>> {
        let waits = matches!(
            hook.list,
            HookList::PostPrimaryFailover | HookList::PostFailover
        );
        let (hooks, handle) = (self.hooks.clone(), self.handle.clone());
        Box::pin(async move {
            if waits {
                handle.flush::<E>(FLUSH).await;
            }
            hooks.prepare(hook).await;
        })
    }

    fn run(&self, hook: Hook, facts: HookFacts) -> Pin<Box<dyn Future<Output = Outcome> + Send>> {
        self.hooks.run(hook, facts)
    }
}

/// A publisher that does not run so far.
#[derive(Debug)]
pub struct Publisher {
    prefix: String,
    consul: Option<Consul>,
    /// Where pairs are distributed to other data centres.
    distributes: Option<ConsulSettings>,
    requests: mpsc::Receiver<Asked>,
}

impl Publisher {
    #[must_use]
    pub fn new(settings: &KvSettings) -> (Self, Handle) {
        let consul = settings.consul.as_ref();
        if consul.is_some_and(|consul| consul.https && consul.authorities.is_none()) {
            tracing::warn!(
                "NOT PROTECTED: ConsulScheme is https and ConsulSSLCAFile is not set: whoever answers at ConsulAddress is believed, \
                 and is shown the token"
            );
        }
        let (sender, requests) = mpsc::channel(64);
        let publisher = Publisher {
            prefix: settings.prefix.clone(),
            consul: consul.map(Consul::new),
            distributes: consul.filter(|consul| consul.cross_data_center).cloned(),
            requests,
        };
        (publisher, Handle(sender))
    }

    /// Publishes until the driver ends: to the table `kv_store` of a backend, and to Consul.
    pub async fn run<E: Env>(mut self, driver: DriverHandle, table: Option<Backend>) {
        if let Some(settings) = self.distributes.take() {
            spawn::<E>(distribute::<E>(
                settings,
                self.prefix.clone(),
                driver.clone(),
            ));
        }
        let mut told: Vec<Entry> = Vec::new();
        let mut next_compare = Duration::ZERO;
        let mut failed: Option<String> = None;
        loop {
            let asked = tokio::select! {
                biased;
                request = self.requests.recv() => request,
                () = sleep::<E>(LOOK) => None,
            };
            let looked = driver
                .look(|node, _| {
                    let state = node.replicated();
                    (node.raft().healthy, state.applied().term, entries(state))
                })
                .await;
            let Ok((is_healthy, term, wanted)) = looked else {
                return;
            };
            let now = E::mono();
            let is_due = now >= next_compare || asked.as_ref().is_some_and(|asked| asked.compares);
            let is_new = wanted != told && (failed.is_none() || is_due);
            let mut said = Ok(Vec::new());
            if is_healthy && (is_due || is_new || (asked.is_some() && wanted != told)) {
                let due = wanted.iter().map(|entry| (entry, told.contains(entry)));
                let mut due: Vec<(&Entry, bool)> =
                    due.filter(|(_, was_told)| is_due || !was_told).collect();
                // What nobody was told so far does not wait for a comparison of all the others.
                due.sort_by_key(|(_, was_told)| *was_told);
                let outcome = self.publish::<E>(due, term, table.as_ref()).await;
                next_compare = now + if outcome.is_ok() { COMPARE } else { RETRY };
                match &outcome {
                    Ok(_) => {
                        told = wanted;
                        if failed.take().is_some() {
                            tracing::info!("the key-value store is written again");
                        }
                    }
                    Err(why) => {
                        if failed.as_ref() != Some(why) {
                            tracing::error!("the key-value store is not written: {why}");
                        }
                        failed = Some(why.clone());
                    }
                }
                said = outcome;
            } else if !is_healthy {
                said = Err(String::from("this daemon is not part of a quorum"));
            }
            if let Some(asked) = asked {
                // Whoever asked may have gone.
                let _ = asked.done.send(said);
            }
        }
    }

    async fn publish<E: Env>(
        &self,
        entries: Vec<(&Entry, bool)>,
        term: u64,
        table: Option<&Backend>,
    ) -> Result<Vec<Told>, String> {
        let mut first_error = Ok(());
        let mut told = Vec::new();
        for (entry, was_told) in entries {
            let pairs = resolved_pairs::<E>(&self.prefix, entry).await;
            match table {
                Some(table) if was_told => table.publish(pairs.known().collect()),
                Some(table) => table.publish(pairs.or_empty().collect()),
                None => {}
            }
            // One cluster's failure keeps no other from being told.
            if let Some(consul) = &self.consul {
                let outcome = consul.put::<E>(&pairs, entry.version(term)).await;
                first_error = first_error.and(outcome);
            }
            told.push(Told {
                alias: entry.alias.clone(),
                pairs: pairs.or_empty().collect(),
            });
        }
        first_error.map(|()| told)
    }
}

async fn resolved_pairs<E: Env>(prefix: &str, entry: &Entry) -> Pairs {
    let host = &entry.primary.host;
    let resolved = timeout::<E, _>(RESOLVE, E::resolve(host)).await;
    let resolved = resolved.unwrap_or_else(|| Err(std::io::ErrorKind::TimedOut.into()));
    if let Err(error) = &resolved {
        tracing::warn!("the addresses of {host} are not told to key-value stores: {error}");
    }
    pairs(prefix, entry, resolved.ok().as_deref())
}

/// While this daemon leads, makes Consul say the same in every data centre that it knows. Apart from the near store, which
/// must not wait for far ones.
async fn distribute<E: Env>(settings: ConsulSettings, prefix: String, driver: DriverHandle) {
    let near = Consul::new(&settings);
    let mut told: Vec<Entry> = Vec::new();
    let mut next_compare = Duration::ZERO;
    let mut failed: Option<String> = None;
    loop {
        sleep::<E>(LOOK).await;
        let looked = driver
            .look(|node, _| {
                let state = node.replicated();
                let is_leading = node.raft().leading.is_some();
                (is_leading, state.applied().term, entries(state))
            })
            .await;
        let Ok((is_leading, term, wanted)) = looked else {
            return;
        };
        let now = E::mono();
        let is_due = now >= next_compare;
        if !is_leading || !(is_due || (wanted != told && failed.is_none())) {
            continue;
        }
        let mut outcome = Ok(());
        match near.data_centers::<E>().await {
            Ok(names) => {
                for name in names {
                    let far = Consul::of_data_center(&settings, &name);
                    for entry in &wanted {
                        let pairs = resolved_pairs::<E>(&prefix, entry).await;
                        let put = far.put::<E>(&pairs, entry.version(term)).await;
                        let put = put.map_err(|why| format!("data centre {name}: {why}"));
                        // One that is away keeps no other from being told.
                        let is_away = put.is_err();
                        outcome = outcome.and(put);
                        if is_away {
                            break;
                        }
                    }
                }
            }
            Err(why) => outcome = Err(why),
        }
        next_compare = E::mono() + if outcome.is_ok() { COMPARE } else { RETRY };
        match outcome {
            Ok(()) => {
                told = wanted;
                if failed.take().is_some() {
                    tracing::info!("Consul says the same in every data centre again");
                }
            }
            Err(why) => {
                if failed.as_ref() != Some(&why) {
                    tracing::error!("Consul does not say the same everywhere: {why}");
                }
                failed = Some(why);
            }
        }
    }
}

#[cfg(test)]
mod tests;
