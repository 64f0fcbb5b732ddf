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
    /// What finds it; anything else was found by accident.
    pub finds: &'static [Sign],
    /// One of the first so many seeds finds it. One that comes later is a scenario, or an oracle, that has become worse:
    /// by bad luck alone it does so once in a thousand times.
    pub within: u64,
}

/// Every third seed finds it, or more of them.
const OFTEN: u64 = 20;
/// Every fifteenth, or more.
const AT_TIMES: u64 = 100;
/// Every fortieth, or more.
const SELDOM: u64 = 300;

/// A failure that a mistake is known by.
#[derive(Debug, Clone, Copy)]
pub struct Sign {
    /// How its text begins: which kind it is, and which oracle speaks.
    begins: &'static str,
    /// What is in it.
    says: &'static str,
}

/// The failure of an oracle, or of something that is demanded.
const fn by(begins: &'static str) -> Sign {
    Sign { begins, says: "" }
}

/// The crash that says this. A crash that says anything else is none of the simulator's findings: it may be its own.
const fn crash(says: &'static str) -> Sign {
    Sign {
        begins: "crash: ",
        says,
    }
}

impl FoundBy {
    #[must_use]
    pub fn is_found_in(&self, failure: &str) -> bool {
        let is_in = |sign: &Sign| failure.starts_with(sign.begins) && failure.contains(sign.says);
        self.finds.iter().any(is_in)
    }

    /// Whether this is no seed that should be the first to find it; seeds are counted from zero.
    #[must_use]
    pub const fn is_late(&self, seed: u64) -> bool {
        seed >= self.within
    }
}

/// Every mistake.
pub const ALL: [FoundBy; 34] = [
    FoundBy {
        mistake: Mutant::AnyTarget,
        name: "any-target",
        scenario: "names_mixed_up.toml",
        finds: &[
            by("safety: one leader"),
            by("safety: same log"),
            by("safety: same digest"),
            // Of openraft, where its assertions are on: it ends the daemon before an oracle can see what it did.
            crash("assertion failed: self.leader.is_none()"),
        ],
        within: OFTEN,
    },
    FoundBy {
        mistake: Mutant::PurgeBeyondSnapshot,
        name: "purge-beyond-snapshot",
        scenario: "snapshots.toml",
        // The daemon itself finds at its start that nothing leads to where its log begins.
        finds: &[crash("and the snapshot file is missing")],
        within: OFTEN,
    },
    FoundBy {
        mistake: Mutant::ForeignBackend,
        name: "foreign-backend",
        scenario: "foreign_backend.toml",
        finds: &[by("safety: own cluster")],
        within: OFTEN,
    },
    FoundBy {
        mistake: Mutant::LeaderRestored,
        name: "leader-restored",
        scenario: "elections.toml",
        finds: &[by("safety: one leader")],
        within: AT_TIMES,
    },
    FoundBy {
        mistake: Mutant::EarlyVotes,
        name: "early-votes",
        scenario: "voter_restarts.toml",
        finds: &[by("safety: one leader")],
        within: AT_TIMES,
    },
    FoundBy {
        mistake: Mutant::UnsyncedLog,
        name: "unsynced-log",
        scenario: "all_power_cut.toml",
        // Daemons look at what the power cut left, and do not start: no oracle has anything to see.
        finds: &[
            crash("damaged: the log names no node"),
            crash("of its write-ahead file has rotted"),
            crash("this identity is retired: the backend "),
        ],
        within: OFTEN,
    },
    FoundBy {
        mistake: Mutant::EarlyAcknowledgement,
        name: "early-acknowledgement",
        scenario: "slow_disks_of_followers.toml",
        finds: &[by("safety: nothing uncommitted")],
        within: AT_TIMES,
    },
    FoundBy {
        mistake: Mutant::NoConfirmation,
        name: "no-confirmation",
        scenario: "leader_struck_in_recovery.toml",
        finds: &[by("safety: epochs")],
        within: AT_TIMES,
    },
    FoundBy {
        mistake: Mutant::FilteredVotes,
        name: "filtered-votes",
        scenario: "member_misses_a_change.toml",
        finds: &[by("liveness: led")],
        within: AT_TIMES,
    },
    FoundBy {
        mistake: Mutant::ChangeInMemory,
        name: "change-in-memory",
        scenario: "leader_killed_in_change.toml",
        finds: &[by("liveness: members")],
        within: AT_TIMES,
    },
    FoundBy {
        mistake: Mutant::AppliedUnsynced,
        name: "applied-unsynced",
        scenario: "slow_disk_of_one.toml",
        // What it costs is an identity: the daemon itself finds that it holds less than it has applied.
        finds: &[crash("this identity is retired: the backend ")],
        within: AT_TIMES,
    },
    FoundBy {
        mistake: Mutant::FreshDeclares,
        name: "fresh-declares",
        scenario: "list_of_a_fresh_member.toml",
        finds: &[by("liveness: members")],
        within: AT_TIMES,
    },
    FoundBy {
        mistake: Mutant::HookRepeated,
        name: "hook-repeated",
        scenario: "hooks.toml",
        finds: &[by("safety: hooks")],
        within: AT_TIMES,
    },
    FoundBy {
        mistake: Mutant::AnyPublication,
        name: "any-publication",
        scenario: "hooks.toml",
        finds: &[by("safety: publications")],
        within: AT_TIMES,
    },
    FoundBy {
        mistake: Mutant::ActionReopened,
        name: "action-reopened",
        scenario: "leader_struck_in_recovery.toml",
        finds: &[by("safety: epochs")],
        within: SELDOM,
    },
    FoundBy {
        mistake: Mutant::UndrainedPromotion,
        name: "undrained-promotion",
        scenario: "relay_log_full.toml",
        finds: &[by("safety: drained first")],
        within: AT_TIMES,
    },
    FoundBy {
        mistake: Mutant::EqualReplicas,
        name: "equal-replicas",
        scenario: "replicas_behind.toml",
        finds: &[by("safety: nothing lost")],
        within: AT_TIMES,
    },
    FoundBy {
        mistake: Mutant::BothStopped,
        name: "both-stopped",
        scenario: "relay_log_full.toml",
        finds: &[by("liveness: replica")],
        within: OFTEN,
    },
    FoundBy {
        mistake: Mutant::HastyRepoint,
        name: "hasty-repoint",
        scenario: "relay_log_full.toml",
        finds: &[by("safety: nothing forgotten")],
        within: OFTEN,
    },
    FoundBy {
        mistake: Mutant::UnaskedFence,
        name: "unasked-fence",
        scenario: "primary_frozen.toml",
        finds: &[by("safety: intent first")],
        within: AT_TIMES,
    },
    FoundBy {
        mistake: Mutant::UnsentFence,
        name: "unsent-fence",
        scenario: "primary_restarts.toml",
        finds: &[by("safety: one primary")],
        within: OFTEN,
    },
    FoundBy {
        mistake: Mutant::OwnClock,
        name: "own-clock",
        scenario: "primary_killed.toml",
        finds: &[by("safety: same digest")],
        within: OFTEN,
    },
    FoundBy {
        mistake: Mutant::SessionsKept,
        name: "sessions-kept",
        scenario: "node_replaced.toml",
        finds: &[by("safety: bounds")],
        within: OFTEN,
    },
    FoundBy {
        mistake: Mutant::ErrantFollower,
        name: "errant-follower",
        scenario: "fullest_replica_away.toml",
        finds: &[by("safety: no errant")],
        within: AT_TIMES,
    },
    FoundBy {
        mistake: Mutant::UnseenFollower,
        name: "unseen-follower",
        scenario: "logs_purged.toml",
        finds: &[by("safety: replicas follow")],
        within: AT_TIMES,
    },
    FoundBy {
        mistake: Mutant::MisnamedEnd,
        name: "misnamed-end",
        scenario: "primary_killed.toml",
        finds: &[by("safety: one recovery")],
        within: OFTEN,
    },
    FoundBy {
        mistake: Mutant::NoLastWords,
        name: "no-last-words",
        scenario: "disk_full.toml",
        finds: &[by("safety: last words")],
        within: OFTEN,
    },
    FoundBy {
        mistake: Mutant::LogUnbounded,
        name: "log-unbounded",
        scenario: "log_bounded.toml",
        finds: &[by("safety: bounds: the log of")],
        within: OFTEN,
    },
    FoundBy {
        mistake: Mutant::LogEmptied,
        name: "log-emptied",
        scenario: "log_bounded.toml",
        finds: &[by("safety: bounds: ")],
        within: OFTEN,
    },
    FoundBy {
        mistake: Mutant::SnapshotAged,
        name: "snapshot-aged",
        scenario: "operators.toml",
        finds: &[by("safety: bounds: the snapshot of")],
        within: OFTEN,
    },
    FoundBy {
        mistake: Mutant::HastyAnswer,
        name: "hasty-answer",
        scenario: "operators.toml",
        finds: &[by("safety: acknowledged")],
        within: OFTEN,
    },
    FoundBy {
        mistake: Mutant::EntriesSwapped,
        name: "entries-swapped",
        scenario: "voter_restarts.toml",
        finds: &[by("safety: same log")],
        within: OFTEN,
    },
    FoundBy {
        mistake: Mutant::MemberUnrecorded,
        name: "member-unrecorded",
        scenario: "primary_killed.toml",
        finds: &[by("safety: left to people")],
        within: OFTEN,
    },
    FoundBy {
        mistake: Mutant::LoneVerdict,
        name: "lone-verdict",
        scenario: "primary_reached_by_others.toml",
        finds: &[by("safety: needed")],
        within: OFTEN,
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_that_ends_a_run_by_accident_finds_a_mistake() {
        for accident in [
            "crash: the process of the run ended: unexpected end of file",
            "crash: panicked at sim/src/engine/madsim.rs:1:1:\nthe script has a machine of this name",
            "crash: a panic without a message",
            "crash: 'n1' is no machine",
            "safety: expected: m1 takes writes; these do: []",
            "liveness: end: the scenario did not come to it within 170 s",
            "liveness: promotions: 1 expected; there were 0; ",
        ] {
            let found = ALL.iter().find(|known| known.is_found_in(accident));
            assert!(found.is_none(), "{accident}: {found:?}");
        }
        assert!(!ALL[0].is_late(19) && ALL[0].is_late(20));
        assert_eq!(named("any-target"), Ok(Mutant::AnyTarget));
        assert!(
            ALL[0].is_found_in(
                "crash: panicked at a.rs:1:1:\nassertion failed: self.leader.is_none()"
            )
        );
    }
}
