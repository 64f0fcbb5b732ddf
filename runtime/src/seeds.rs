//! `DiscoverySeeds`: servers that the configuration names, which are discovered until they are known.
//!
//! Every daemon keeps its seeds, since any may lead next; only the one that leads reads them. A seed is given up when the
//! replicated state knows it, or the server that answered to the leader by its name; nothing is proposed before it answers.

use std::time::Duration;

use orchestrator_core::id::InstanceKey;
use orchestrator_core::limits::INSTANCES_MAX;
use orchestrator_core::node::{Reply, Request};

use crate::driver::DriverHandle;
use crate::env::{Env, sleep};

/// How often a daemon that does not lead looks what is known, and whether it leads.
const LOOK: Duration = Duration::from_secs(1);
/// The wait after seeds were read and some are left.
const AGAIN: Duration = Duration::from_secs(5);
/// How long a discovery may take.
const DISCOVER_DEADLINE: Duration = Duration::from_secs(30);

/// A server that is to become known.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Seed {
    key: InstanceKey,
    /// It was told that it cannot be read.
    is_warned: bool,
}

/// What a reply says of a seed.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Heard {
    /// It is known, by this name of its own.
    Known(InstanceKey),
    /// It is not so far, for this reason.
    Failed(String),
    /// Nothing: nobody tried, or what came of it will be seen.
    Nothing,
}

/// Discovers these servers, until all are known or the driver has ended.
pub(crate) async fn plant<E: Env>(seeds: Vec<InstanceKey>, driver: DriverHandle) {
    let seeds = seeds.into_iter();
    let mut left: Vec<Seed> = seeds
        .map(|key| Seed {
            key,
            is_warned: false,
        })
        .collect();
    while let Some(wait) = round::<E>(&mut left, &driver).await {
        sleep::<E>(wait).await;
    }
}

/// Gives up what is known, and discovers the rest if this daemon leads. How long to wait for the next round; none: all are
/// known, or the driver has ended.
async fn round<E: Env>(left: &mut Vec<Seed>, driver: &DriverHandle) -> Option<Duration> {
    let keys: Vec<InstanceKey> = left.iter().map(|seed| seed.key.clone()).collect();
    let looked = driver.look(move |node, _| {
        let replicated = node.replicated();
        let mut known = keys;
        known.retain(|key| replicated.is_known(key));
        let is_full = replicated.known_count() >= INSTANCES_MAX;
        (known, node.raft().leading.is_some(), is_full)
    });
    let (known, leads, is_full) = looked.await.ok()?;
    left.retain_mut(|seed| {
        let is_known = known.contains(&seed.key);
        !(is_known && seed.learn(Heard::Known(seed.key.clone())))
    });
    if leads {
        for mut seed in std::mem::take(left) {
            let heard = if is_full {
                // It would be proposed, and refused, each time.
                Heard::Failed(format!(
                    "{INSTANCES_MAX} servers are known, which is the most"
                ))
            } else {
                let request = Request::Discover(seed.key.clone());
                heard(&driver.ask::<E>(request, DISCOVER_DEADLINE).await)
            };
            if !seed.learn(heard) {
                left.push(seed);
            }
        }
    }
    if left.is_empty() {
        return None;
    }
    Some(if leads { AGAIN } else { LOOK })
}

impl Seed {
    /// Tells what is worth telling; whether the seed has done its work.
    fn learn(&mut self, heard: Heard) -> bool {
        let key = &self.key;
        match heard {
            Heard::Known(own) if own == *key => {
                tracing::info!("DiscoverySeeds: {key} is known");
                true
            }
            Heard::Known(own) => {
                tracing::info!("DiscoverySeeds: {key} is known, by its own name {own}");
                true
            }
            Heard::Failed(reason) => {
                if !std::mem::replace(&mut self.is_warned, true) {
                    tracing::warn!(
                        "DiscoverySeeds: {key} cannot be discovered: {reason}. It is tried again every {} s: see that name and port are \
                         right, that it runs, and that MySQLTopologyUser may log in from here; or take it out of DiscoverySeeds",
                        AGAIN.as_secs()
                    );
                }
                false
            }
            Heard::Nothing => false,
        }
    }
}

fn heard(reply: &Reply) -> Heard {
    match reply {
        Reply::Probed(own) => Heard::Known(own.clone()),
        Reply::ProbeFailed(failure) => Heard::Failed(failure.to_string()),
        Reply::Refused(refusal) => Heard::Failed(refusal.to_string()),
        Reply::NotLeading { .. } | Reply::Unknown(_) | Reply::Failed(_) => Heard::Nothing,
        // Answers to other requests.
        Reply::Decided(_) | Reply::Operated(_) => Heard::Nothing,
    }
}

#[cfg(test)]
mod tests {
    use std::future::Future;
    use std::sync::Arc;

    use orchestrator_core::id::{Epoch, LogPosition, NodeId, Uid};
    use orchestrator_core::node::{Identification, Input, Node, ProbeEnd, RaftView, StepEnd};
    use orchestrator_core::policy::Policy;
    use orchestrator_core::recovery::Step;
    use orchestrator_core::replicated::{Command, Entry, Replicated, Stamped, wire};
    use orchestrator_core::time::{Mono, Wall};
    use orchestrator_core::topology::ProbeFailure;

    use super::*;
    use crate::daemon::Raft;
    use crate::driver::{Driver, channels};
    use crate::env::{DedicatedRuntime, TokioEnv, spawn};
    use crate::fleet::{Fleet, Gate, SignSender};
    use crate::hooks::NoHooks;

    /// Servers of which none answers.
    #[derive(Debug, Clone, Copy)]
    struct Silent;

    impl Fleet for Silent {
        fn probe(&self, key: InstanceKey) -> impl Future<Output = ProbeEnd> + Send {
            std::future::ready(ProbeEnd {
                key,
                began: Mono::ZERO,
                result: Err(ProbeFailure::Refused),
                partial_success: false,
            })
        }

        fn watch(&self, _key: InstanceKey, _redial: Duration, _signs: SignSender) {}

        fn unwatch(&self, _key: &InstanceKey) {}

        fn drop_server(&self, _key: &InstanceKey) {}

        async fn run(
            &self,
            _uid: Uid,
            _epoch: Epoch,
            step: Step,
            _gate: impl Gate + 'static,
        ) -> StepEnd {
            panic!("{step}: nothing is done to servers here")
        }

        fn fence_frozen(&self, _uid: &Uid, _key: &InstanceKey) {}
    }

    fn seed(host: &str) -> Seed {
        Seed {
            key: InstanceKey::new(host, 3306),
            is_warned: false,
        }
    }

    #[test]
    fn a_seed_is_kept_until_it_is_known_and_warned_about_once() {
        let runtime = DedicatedRuntime::start("seeds-test", 2).unwrap();
        runtime.run(async {
            let (channels, ends) = channels();
            let node = Node::new(
                Identification::default(),
                Policy::default(),
                Replicated::default(),
            );
            let hooks = Arc::new(NoHooks);
            let driver = Driver::<TokioEnv, Silent, Raft<TokioEnv>>::new(
                node, 1, channels, Silent, hooks, 1, None,
            );
            spawn::<TokioEnv>(driver.run());
            let driver = ends.handle;
            let mut left = vec![seed("db1"), seed("db2")];

            // A follower keeps them and waits, whoever leads.
            let follows = RaftView {
                leader: Some(NodeId(2)),
                healthy: true,
                ..RaftView::default()
            };
            driver.input(Input::Raft(follows.clone()));
            assert_eq!(round::<TokioEnv>(&mut left, &driver).await, Some(LOOK));
            assert_eq!(left, [seed("db1"), seed("db2")]);

            let leads = RaftView {
                leading: Some(Epoch {
                    term: 1,
                    ..Epoch::default()
                }),
                ..follows.clone()
            };
            driver.input(Input::Raft(leads));
            assert_eq!(round::<TokioEnv>(&mut left, &driver).await, Some(AGAIN));
            let is_warned: Vec<bool> = left.iter().map(|seed| seed.is_warned).collect();
            assert_eq!(is_warned, [true, true]);

            // Whoever made them known.
            driver.input(Input::Raft(follows));
            for (index, host) in (1..).zip(["db2", "db1"]) {
                let stamped = Stamped {
                    wall: Wall::from_nanos(1),
                    command: Command::Know {
                        keys: vec![InstanceKey::new(host, 3306)],
                        by_operator: true,
                    },
                };
                let command = wire::encode_command(1, &stamped).expect("of version 1");
                let at = LogPosition {
                    index,
                    ..LogPosition::default()
                };
                driver.input(Input::Committed(vec![(at, Entry::Command(command))]));
                let next = round::<TokioEnv>(&mut left, &driver).await;
                assert_eq!(next, (host == "db2").then_some(LOOK));
            }
            assert_eq!(left, []);
        });
        runtime.stop();
    }

    #[test]
    fn a_reply_says_whether_a_seed_is_known() {
        let known = |host: &str| Reply::Probed(InstanceKey::new(host, 3306));
        for (reply, is_done, is_warned) in [
            (Reply::NotLeading { leader: None }, false, false),
            (
                Reply::NotLeading {
                    leader: Some(NodeId(2)),
                },
                false,
                false,
            ),
            (Reply::Unknown("late".to_owned()), false, false),
            (Reply::ProbeFailed(ProbeFailure::Refused), false, true),
            (known("db1"), true, false),
            (known("db1.example"), true, false),
        ] {
            let mut seed = seed("db1");
            let done = seed.learn(heard(&reply));
            assert_eq!((done, seed.is_warned), (is_done, is_warned), "{reply:?}");
        }
    }
}
