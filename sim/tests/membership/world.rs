//! Whole daemons without a fleet, whose lists of nodes change between their starts, and a client that writes all the while.

use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use orchestrator::backend;
use orchestrator::daemon::Prepared;
use orchestrator::driver::DriverHandle;
use orchestrator::env::{sleep, spawn};
use orchestrator::raft;
use orchestrator_core::id::{InstanceKey, LogPosition, NodeId};
use orchestrator_core::node::{Reply, Request};
use orchestrator_core::policy::Policy;
use orchestrator_core::replicated::{Answer, Command, Members};
use orchestrator_sim::browser;
use orchestrator_sim::daemon::{backend_settings, raft_settings, settings};
use orchestrator_sim::disk;
use orchestrator_sim::engine::{Engine, Machine, MadsimEnv, run_traced};
use orchestrator_sim::model::{SimFleet, World as _};

type E = MadsimEnv;

/// Machines of a world: three with daemons at first, and two for later.
const MACHINES: u8 = 5;
const LOOK: Duration = Duration::from_millis(100);
const DECIDE: Duration = Duration::from_secs(5);
/// No world lives longer.
const LIMIT: Duration = Duration::from_secs(400);

pub const fn secs(count: u64) -> Duration {
    Duration::from_secs(count)
}

/// The daemons of a world. Clones are the same ones.
#[derive(Clone, Default)]
pub struct World {
    shared: Arc<Mutex<Shared>>,
}

#[derive(Default)]
struct Shared {
    lists: BTreeMap<String, Vec<String>>,
    asleep: BTreeSet<String>,
    running: BTreeMap<String, DriverHandle>,
    ended: BTreeMap<String, String>,
    /// Who was seen to lead a term.
    leaders: BTreeMap<u64, NodeId>,
    /// What was seen at positions of the log.
    digests: BTreeMap<LogPosition, [u8; 32]>,
    acknowledged: BTreeSet<String>,
    writing: bool,
}

/// One daemon as it is.
#[derive(Debug, Clone)]
pub struct Seen {
    pub name: String,
    pub node: NodeId,
    pub members: Members,
    pub at: LogPosition,
    digest: [u8; 32],
    pub leads: Option<u64>,
    pub healthy: bool,
    pub written: BTreeSet<String>,
}

/// Runs a story on a world of its own, with a seed.
pub fn tell<F>(seed: u64, story: fn(World, u64) -> F)
where
    F: Future<Output = ()> + 'static,
{
    let world = World::default();
    let of_machines = world.clone();
    let made = move || -> (Vec<Machine>, Pin<Box<dyn Future<Output = ()>>>) {
        (
            of_machines.machines(),
            Box::pin(async move {
                world.form().await;
                story(world, seed).await;
            }),
        )
    };
    let (ended, _) = run_traced::<E, ()>(seed, LIMIT, false, made);
    match ended {
        Ok(Some(())) => {}
        Ok(None) => panic!("seed {seed}: not ended within {} s", LIMIT.as_secs()),
        Err(panic) => panic!("seed {seed}: {panic}"),
    }
}

pub fn list(names: &[&str]) -> Vec<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

impl World {
    fn lock(&self) -> MutexGuard<'_, Shared> {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn machines(&self) -> Vec<Machine> {
        (1..=MACHINES)
            .map(|number| {
                let name = format!("n{number}");
                let mut shared = self.lock();
                shared.lists.insert(name.clone(), list(&["n1", "n2", "n3"]));
                if number > 3 {
                    shared.asleep.insert(name.clone());
                }
                let (world, own) = (self.clone(), name.clone());
                Machine::new(name, IpAddr::from([10, 0, 0, number]), move |_| {
                    world.clone().run(own.clone())
                })
            })
            .collect()
    }

    async fn run(self, name: String) {
        while self.lock().asleep.contains(&name) {
            sleep::<E>(Duration::from_millis(5)).await;
        }
        let reason = match self.serve(&name).await {
            Ok(reason) | Err(reason) => reason,
        };
        let mut shared = self.lock();
        shared.running.remove(&name);
        shared.ended.insert(name, reason);
    }

    async fn serve(&self, name: &str) -> Result<String, String> {
        let words = |error: &dyn std::fmt::Display| error.to_string();
        let seed = <E as orchestrator::env::Env>::random_seed().map_err(|error| words(&error))?;
        let nodes = self.lock().lists[name].clone();
        let mut raft_settings = raft_settings(name, &nodes);
        // Newcomers are sent a snapshot as often as the log.
        raft_settings.log.snapshot_entries = 60;
        raft_settings.log.keep_entries = 30;
        let opened = backend::open::<E>(backend_settings(name))
            .await
            .map_err(|error| words(&error))?;
        raft_settings.backend = opened.for_start();
        let prepared = Prepared::<E, _>::new(
            settings(name, Policy::default()),
            SimFleet::<E>::default(),
            seed,
            Some(opened),
        );
        let (driver, attachable) = prepared.split();
        spawn::<E>(driver);
        let replica = attachable.ends.replica.clone();
        let (raft, report) = raft::start::<E>(raft_settings, replica)
            .await
            .map_err(|error| words(&error))?;
        let running = attachable.attach(raft, report).await?;
        self.lock()
            .running
            .insert(name.to_owned(), running.handle.clone());
        Ok(running.failed().await)
    }

    async fn form(&self) {
        self.lock().writing = true;
        spawn::<E>(self.clone().write());
        self.until(secs(15), "three members are healthy", |seen| {
            seen.iter().filter(|seen| seen.healthy).count() == 3
        })
        .await;
        // Everybody's list is known before anybody's is changed.
        self.live(secs(4)).await;
    }

    /// Writes without pause; what was acknowledged must be there in the end.
    async fn write(self) {
        let mut count = 0_u64;
        loop {
            sleep::<E>(Duration::from_millis(150)).await;
            let handles: Vec<DriverHandle> = {
                let shared = self.lock();
                if !shared.writing {
                    return;
                }
                shared.running.values().cloned().collect()
            };
            count += 1;
            let host = format!("w{count}");
            for handle in handles {
                let command = Command::PutTag {
                    key: InstanceKey::new(host.clone(), 3306),
                    name: String::from("written"),
                    value: String::new(),
                };
                let reply = handle.ask::<E>(Request::Decide(command), DECIDE).await;
                if reply == Reply::Decided(Answer::Done) {
                    self.lock().acknowledged.insert(host.clone());
                    break;
                }
                if !matches!(reply, Reply::NotLeading { .. }) {
                    break;
                }
            }
        }
    }

    // --- what is done to it ---

    pub fn set_list(&self, name: &str, names: &[&str]) {
        self.lock().lists.insert(name.to_owned(), list(names));
    }

    /// Starts a machine that slept, or lost its power.
    pub fn start(&self, name: &str) {
        self.lock().ended.remove(name);
        if !self.lock().asleep.remove(name) {
            E::boot(name);
        }
    }

    pub async fn kill(&self, name: &str) {
        self.lock().running.remove(name);
        E::power_cut(name);
        sleep::<E>(Duration::from_millis(5)).await;
    }

    /// The machine is gone with all that was on it, and an empty one has its name and its configuration.
    pub async fn wipe(&self, name: &str) {
        self.kill(name).await;
        disk::wipe(name);
    }

    pub async fn restart(&self, name: &str) {
        self.kill(name).await;
        self.live(Duration::from_millis(700)).await;
        self.start(name);
    }

    pub fn cut(&self, one: &str, other: &str) {
        E::cut(one, other);
        E::cut(other, one);
    }

    pub fn heal(&self, one: &str, other: &str) {
        E::heal(one, other);
        E::heal(other, one);
    }

    // --- what is looked at ---

    /// Why a daemon ended that nobody had killed.
    pub fn ended(&self, name: &str) -> Option<String> {
        self.lock().ended.get(name).cloned()
    }

    pub async fn look(&self) -> Vec<Seen> {
        let running: Vec<(String, DriverHandle)> = {
            let shared = self.lock();
            let running = shared.running.iter();
            running
                .map(|(name, handle)| (name.clone(), handle.clone()))
                .collect()
        };
        let mut all = Vec::new();
        for (name, handle) in running {
            let seen = handle
                .look(move |node, _| {
                    let state = node.replicated();
                    Seen {
                        name,
                        node: node.raft().node,
                        members: state.membership().members.clone(),
                        at: state.applied(),
                        digest: state.digest(),
                        leads: node.raft().leading.map(|epoch| epoch.term),
                        healthy: node.raft().healthy,
                        written: state.tags().map(|(key, _, _)| key.host.clone()).collect(),
                    }
                })
                .await;
            all.extend(seen);
        }
        let mut shared = self.lock();
        for seen in &all {
            if let Some(term) = seen.leads {
                let leader = *shared.leaders.entry(term).or_insert(seen.node);
                assert_eq!(leader, seen.node, "two lead term {term}");
            }
            let digest = *shared.digests.entry(seen.at).or_insert(seen.digest);
            assert_eq!(digest, seen.digest, "{} differs at {}", seen.name, seen.at);
        }
        drop(shared);
        all
    }

    /// Lets time pass, looking all the while.
    pub async fn live(&self, duration: Duration) {
        let until = E::elapsed() + duration;
        while E::elapsed() < until {
            self.look().await;
            sleep::<E>(LOOK.min(until.saturating_sub(E::elapsed()))).await;
        }
    }

    pub async fn until(&self, limit: Duration, what: &str, holds: impl Fn(&[Seen]) -> bool) {
        let deadline = E::elapsed() + limit;
        loop {
            let seen = self.look().await;
            if holds(&seen) {
                return;
            }
            if E::elapsed() > deadline {
                let mut story = String::new();
                for seen in &seen {
                    let status = self.get(&seen.name, "/api/raft-status").await.1;
                    story += &format!("\n{} {} {status}", seen.name, seen.members);
                }
                let ended = self.lock().ended.clone();
                panic!(
                    "not within {} s: {what}; ended: {ended:?}{story}",
                    limit.as_secs()
                );
            }
            sleep::<E>(LOOK).await;
        }
    }

    /// The voters are exactly the daemons on these machines, and all of them are healthy.
    pub async fn until_members(&self, limit: Duration, names: &[&str]) {
        let what = format!("the members are {names:?}");
        self.until(limit, &what, |seen| are_members(seen, names))
            .await;
    }

    pub async fn get(&self, name: &str, path: &str) -> (u16, String) {
        match browser::get::<E>(name, path).await {
            Ok(answer) => answer,
            Err(error) => (0, error.to_string()),
        }
    }

    pub async fn leader(&self) -> String {
        let seen = self.look().await;
        let leader = seen.into_iter().find(|seen| seen.leads.is_some());
        leader.expect("a leader").name
    }

    pub fn highest_term(&self) -> u64 {
        self.lock().leaders.keys().next_back().copied().unwrap_or(0)
    }

    /// The end of a story: everything that was acknowledged is on all of these, and they bear one more loss.
    pub async fn all_is_well(&self, names: &[&str]) {
        self.until_members(secs(60), names).await;
        self.lock().writing = false;
        let acknowledged = self.lock().acknowledged.clone();
        assert!(
            acknowledged.len() > 20,
            "only {} writes",
            acknowledged.len()
        );
        self.until(
            secs(20),
            "everything acknowledged is on every member",
            |seen| {
                seen.iter()
                    .filter(|seen| names.contains(&seen.name.as_str()))
                    .all(|seen| acknowledged.is_subset(&seen.written))
            },
        )
        .await;
        let leader = self.leader().await;
        self.kill(&leader).await;
        self.until(secs(10), "another one leads", |seen| {
            seen.iter().any(|seen| seen.leads.is_some())
        })
        .await;
        let command = Command::PutTag {
            key: InstanceKey::new("last", 3306),
            name: String::from("written"),
            value: String::new(),
        };
        let next = self.leader().await;
        let handle = self.lock().running[&next].clone();
        let reply = handle.ask::<E>(Request::Decide(command), DECIDE).await;
        assert_eq!(reply, Reply::Decided(Answer::Done));
    }
}

pub fn are_members(seen: &[Seen], names: &[&str]) -> bool {
    let nodes: BTreeSet<NodeId> = seen
        .iter()
        .filter(|seen| names.contains(&seen.name.as_str()) && seen.healthy)
        .map(|seen| seen.node)
        .collect();
    nodes.len() == names.len()
        && seen
            .iter()
            .filter(|seen| names.contains(&seen.name.as_str()))
            .all(|seen| seen.members.settled() == Some(&nodes) && seen.members.learners.is_empty())
}
