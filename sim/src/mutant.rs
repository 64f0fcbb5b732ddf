//! Mistakes put back on purpose, to see that the oracles find them: which one this thread's run has, in which scenario
//! each is looked for, and what must find it.

use std::cell::Cell;

use orchestrator::env::Mutant;

/// A mistake and what finds it.
#[derive(Debug, Clone, Copy)]
pub struct FoundBy {
    pub mistake: Mutant,
    /// As the command line names it.
    pub name: &'static str,
    /// The file among the scenarios.
    pub scenario: &'static str,
    /// How the failure's text begins; anything else was found by accident.
    pub finds: &'static [&'static str],
}

impl FoundBy {
    #[must_use]
    pub fn is_found_in(&self, failure: &str) -> bool {
        self.finds.iter().any(|begin| failure.starts_with(begin))
    }
}

/// Every mistake.
pub const ALL: [FoundBy; 21] = [
    FoundBy {
        mistake: Mutant::AnyTarget,
        name: "any-target",
        scenario: "names_mixed_up.toml",
        finds: &["safety: one leader", "safety: same", "crash"],
    },
    FoundBy {
        mistake: Mutant::PurgeBeyondSnapshot,
        name: "purge-beyond-snapshot",
        scenario: "snapshots.toml",
        finds: &["crash", "safety: same"],
    },
    FoundBy {
        mistake: Mutant::ForeignBackend,
        name: "foreign-backend",
        scenario: "foreign_backend.toml",
        finds: &["safety: expected"],
    },
    FoundBy {
        mistake: Mutant::LeaderRestored,
        name: "leader-restored",
        scenario: "elections.toml",
        finds: &["safety: one leader"],
    },
    FoundBy {
        mistake: Mutant::EarlyVotes,
        name: "early-votes",
        scenario: "voter_restarts.toml",
        finds: &["safety: one leader"],
    },
    FoundBy {
        mistake: Mutant::UnsyncedLog,
        name: "unsynced-log",
        scenario: "all_power_cut.toml",
        finds: &["safety: one leader", "safety: same", "crash"],
    },
    FoundBy {
        mistake: Mutant::NoConfirmation,
        name: "no-confirmation",
        scenario: "leader_struck_in_recovery.toml",
        finds: &["safety: epochs"],
    },
    FoundBy {
        mistake: Mutant::FilteredVotes,
        name: "filtered-votes",
        scenario: "member_misses_a_change.toml",
        finds: &["liveness: led"],
    },
    FoundBy {
        mistake: Mutant::ChangeInMemory,
        name: "change-in-memory",
        scenario: "leader_killed_in_change.toml",
        finds: &["liveness: members"],
    },
    FoundBy {
        mistake: Mutant::AppliedUnsynced,
        name: "applied-unsynced",
        scenario: "slow_disk_of_one.toml",
        finds: &["crash"],
    },
    FoundBy {
        mistake: Mutant::FreshDeclares,
        name: "fresh-declares",
        scenario: "list_of_a_fresh_member.toml",
        finds: &["liveness: members"],
    },
    FoundBy {
        mistake: Mutant::HookRepeated,
        name: "hook-repeated",
        scenario: "hooks.toml",
        finds: &["safety: hooks"],
    },
    FoundBy {
        mistake: Mutant::AnyPublication,
        name: "any-publication",
        scenario: "hooks.toml",
        finds: &["safety: publications"],
    },
    FoundBy {
        mistake: Mutant::ActionReopened,
        name: "action-reopened",
        scenario: "leader_struck_in_recovery.toml",
        finds: &["safety: epochs"],
    },
    FoundBy {
        mistake: Mutant::UndrainedPromotion,
        name: "undrained-promotion",
        scenario: "relay_log_full.toml",
        finds: &["safety: drained first"],
    },
    FoundBy {
        mistake: Mutant::EqualReplicas,
        name: "equal-replicas",
        scenario: "replicas_behind.toml",
        finds: &["safety: nothing lost"],
    },
    FoundBy {
        mistake: Mutant::BothStopped,
        name: "both-stopped",
        scenario: "relay_log_full.toml",
        finds: &["liveness: replica"],
    },
    FoundBy {
        mistake: Mutant::HastyRepoint,
        name: "hasty-repoint",
        scenario: "relay_log_full.toml",
        finds: &["safety: nothing forgotten"],
    },
    FoundBy {
        mistake: Mutant::UnaskedFence,
        name: "unasked-fence",
        scenario: "primary_frozen.toml",
        finds: &["safety: intent first"],
    },
    FoundBy {
        mistake: Mutant::UnsentFence,
        name: "unsent-fence",
        scenario: "primary_restarts.toml",
        finds: &["liveness: primary"],
    },
    FoundBy {
        mistake: Mutant::OwnClock,
        name: "own-clock",
        scenario: "primary_killed.toml",
        finds: &["safety: same digest"],
    },
];

thread_local! {
    static MISTAKE: Cell<Option<Mutant>> = const { Cell::new(None) };
}

pub(crate) fn set(mistake: Option<Mutant>) {
    MISTAKE.set(mistake);
}

pub(crate) fn is_on(mistake: Mutant) -> bool {
    MISTAKE.try_with(Cell::get) == Ok(Some(mistake))
}

/// # Errors
/// There is no such mistake.
pub fn named(name: &str) -> Result<Mutant, String> {
    ALL.iter()
        .find(|known| known.name == name)
        .map(|known| known.mistake)
        .ok_or_else(|| {
            let all: Vec<&str> = ALL.iter().map(|known| known.name).collect();
            format!("'{name}' is no mistake: {}", all.join(", "))
        })
}

#[must_use]
pub fn name(mistake: Mutant) -> &'static str {
    ALL.iter()
        .find(|known| known.mistake == mistake)
        .map_or("", |known| known.name)
}
