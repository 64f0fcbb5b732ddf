//! Simulated hooks: they tell the oracles who ran what with which environment, take a drawn time, and fail at times.

use std::fmt;
use std::future::Future;
use std::marker::PhantomData;
use std::pin::Pin;
use std::time::Duration;

use orchestrator::env::sleep;
use orchestrator::hooks::{Hooks, environment};
use orchestrator::trace::event;
use orchestrator_core::recovery::{Hook, HookCounts, HookFacts, HookList, Outcome};

use crate::daemon::Daemons;
use crate::engine::Engine;
use crate::random::SplitMix;
use crate::witness::{self, Event};

const PURPOSE: u64 = 0x400c;
/// One failing hook in so many is ended at its deadline; the others say no.
const OVERDUE_ONE_IN: u64 = 4;

/// The lists that a failover has use for.
pub const LISTS: [HookList; 5] = [
    HookList::OnFailureDetection,
    HookList::PreFailover,
    HookList::PostPrimaryFailover,
    HookList::PostFailover,
    HookList::PostUnsuccessfulFailover,
];

/// The hooks of a world: the same in each daemon's file.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct HooksSetup {
    /// In each of [`LISTS`].
    pub each: u32,
    /// The longest one takes so long.
    pub takes_max: Duration,
    pub fail_percent: u32,
}

impl HooksSetup {
    #[must_use]
    pub fn count(&self, list: HookList) -> u32 {
        if LISTS.contains(&list) { self.each } else { 0 }
    }
}

/// The hooks of one daemon.
pub struct SimHooks<E> {
    daemon: String,
    setup: HooksSetup,
    daemons: Daemons,
    engine: PhantomData<fn() -> E>,
}

impl<E> SimHooks<E> {
    #[must_use]
    pub const fn new(daemon: String, setup: HooksSetup, daemons: Daemons) -> Self {
        Self {
            daemon,
            setup,
            daemons,
            engine: PhantomData,
        }
    }
}

impl<E> fmt::Debug for SimHooks<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "hooks of {}", self.daemon)
    }
}

impl<E: Engine> Hooks for SimHooks<E> {
    fn counts(&self) -> HookCounts {
        HookCounts::of(|list| self.setup.count(list) as usize)
    }

    fn run(&self, hook: Hook, facts: HookFacts) -> Pin<Box<dyn Future<Output = Outcome> + Send>> {
        let environment = environment(hook, &facts);
        let key = facts.idempotency_key;
        event("hook", format_args!("{key} begins"));
        witness::tell(&Event::HookBegan {
            daemon: self.daemon.clone(),
            hook,
            environment: environment.into_iter().collect(),
        });
        let (daemon, setup, daemons) = (self.daemon.clone(), self.setup, self.daemons.clone());
        Box::pin(async move {
            // A hook's own affairs, not the daemon's: the daemon cannot know how it will end.
            let seed = E::random_seed().unwrap_or_default();
            let mut random = SplitMix::new(seed, PURPOSE);
            sleep::<E>(drawn(setup.takes_max, &mut random)).await;
            let fails = random.between(0, 100) < u64::from(setup.fail_percent);
            let outcome = if !fails || daemons.is_healed() {
                Outcome::Done
            } else if random.one_in(OVERDUE_ONE_IN) {
                Outcome::Unknown {
                    reason: "it was ended at its deadline".to_owned(),
                }
            } else {
                Outcome::Refused {
                    code: 1,
                    reason: "it says no".to_owned(),
                }
            };
            event("hook", format_args!("{key} ends: {outcome:?}"));
            witness::tell(&Event::HookEnded {
                daemon,
                hook,
                key,
                is_done: outcome == Outcome::Done,
            });
            outcome
        })
    }
}

/// Short ones as often as long ones.
fn drawn(longest: Duration, random: &mut SplitMix) -> Duration {
    let longest = longest.as_micros() as u64 >> random.between(0, 6);
    Duration::from_micros(random.between(longest / 2, longest))
}
