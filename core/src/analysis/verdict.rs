//! Whether a primary is dead: the only thing that admits a recovery by itself (`FAILOVER.md` section 1).
//!
//! [`Watched`] gathers one daemon's evidence of one server from its connections; [`Watched::opinion`] says what this
//! daemon thinks; [`verdict`] joins the opinions of the daemons with what the replicas show. Any proof of life stops
//! it. Silence of a daemon is abstention, and a majority of all configured voters must say dead.

use alloc::collections::BTreeMap;
use core::time::Duration;

use crate::{
    id::{Identity, NodeId},
    node::input::{OpinionKind, Sign},
    policy::Policy,
    recovery::DeadKind,
    time::Mono,
};

/// No answer for this long, and at least [`FAILED_LOGINS_MIN`] failed logins, is silence.
pub const SILENT_PATIENCE: Duration = Duration::from_secs(3);
pub const FAILED_LOGINS_MIN: u32 = 2;
/// A daemon may vote dead only if it logged in there within so many polls.
pub const LOGIN_POLLS_MAX: u32 = 10;

/// ER_CON_COUNT_ERROR, ER_TOO_MANY_USER_CONNECTIONS, ER_USER_LIMIT_REACHED: too many clients to take this one.
#[must_use]
pub const fn is_overload(code: u16) -> bool {
    matches!(code, 1040 | 1203 | 1226)
}

/// What the pulse connection is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum Pulse {
    #[default]
    Never,
    Up,
    Late,
    Silent,
    Closed,
}

/// One daemon's evidence of one watched server. Times are this daemon's own.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Watched {
    /// Which server the evidence is about: another one behind the same address starts a file of its own.
    pub identity: Option<Identity>,
    pulse: Pulse,
    /// The last complete login, by any connection, or the last refusal of one for want of room.
    last_login: Option<Mono>,
    /// The last sign of life of any kind.
    last_life: Option<Mono>,
    /// The first thing that was missing after the last sign of life.
    missing_since: Option<Mono>,
    /// The first dial that was refused after the last sign of life.
    refused_since: Option<Mono>,
    /// Logins that failed (refused, no TCP, or TCP and no greeting) after the last sign of life.
    failed_logins: u32,
    /// The newest dial that brought nothing.
    last_failed_dial: Option<Mono>,
    /// It said that it is shutting down, or refused dials while the pulse lived.
    leaving_since: Option<Mono>,
}

impl Watched {
    /// Takes a sign in. True when another server answered at this address than before.
    pub fn sign(&mut self, now: Mono, sign: &Sign) -> bool {
        let mut other = false;
        match sign {
            Sign::PulseUp(identity) | Sign::DialAnswered(identity) => {
                if self
                    .identity
                    .as_ref()
                    .is_some_and(|known| known != identity)
                {
                    *self = Self::default();
                    other = true;
                }
                self.identity = Some(identity.clone());
                if matches!(sign, Sign::PulseUp(_)) {
                    self.pulse = Pulse::Up;
                }
                self.last_login = Some(now);
                self.life(now);
                self.leaving_since = None;
            }
            Sign::PulseBeat => {
                self.pulse = Pulse::Up;
                self.life(now);
            }
            Sign::PulseClosed => {
                self.pulse = Pulse::Closed;
                self.missing(now);
            }
            Sign::PulseShutdown => {
                self.pulse = Pulse::Closed;
                self.missing(now);
                self.leaving_since.get_or_insert(now);
            }
            Sign::PulseLate => {
                if self.pulse == Pulse::Up {
                    self.pulse = Pulse::Late;
                }
                self.missing(now);
            }
            Sign::PulseSilent => {
                self.pulse = Pulse::Silent;
                self.missing(now);
            }
            Sign::DialRefused => {
                if self.pulse == Pulse::Up {
                    self.leaving_since.get_or_insert(now);
                }
                self.missing(now);
                self.refused_since.get_or_insert(now);
                // Without a pulse that was seen to close, refusals are judged with the patience of silence.
                self.failed_logins = self.failed_logins.saturating_add(1);
                self.last_failed_dial = Some(now);
            }
            Sign::DialUnreachable | Sign::DialNoLogin => {
                self.missing(now);
                self.failed_logins = self.failed_logins.saturating_add(1);
                self.last_failed_dial = Some(now);
            }
            Sign::DialError(1053) => {
                self.missing(now);
                self.leaving_since.get_or_insert(now);
            }
            Sign::DialError(code) => {
                // Whoever is turned away for want of room is as good a witness as one that was let in: a server that
                // dies of its clients has let nobody in for a while.
                if is_overload(*code) && self.last_login.is_some() {
                    self.last_login = Some(now);
                }
                self.life(now);
            }
        }
        other
    }

    /// A probe logged in and brought a whole report.
    pub fn probed(&mut self, now: Mono, identity: &Identity) -> bool {
        self.sign(now, &Sign::DialAnswered(identity.clone()))
    }

    /// The probe connection was closed by the peer in the middle: as good as the pulse's end of file where there was no
    /// pulse.
    pub fn probe_closed(&mut self, now: Mono) {
        if self.pulse == Pulse::Never {
            self.pulse = Pulse::Closed;
        }
        self.missing(now);
    }

    fn life(&mut self, now: Mono) {
        self.last_life = Some(now);
        self.missing_since = None;
        self.refused_since = None;
        self.failed_logins = 0;
        self.last_failed_dial = None;
    }

    fn missing(&mut self, now: Mono) {
        self.missing_since.get_or_insert(now);
    }

    /// The newest sign of life.
    #[must_use]
    pub fn is_connected(&self) -> bool {
        self.pulse == Pulse::Up
    }

    #[must_use]
    pub const fn last_life(&self) -> Option<Mono> {
        self.last_life
    }

    /// The newest dial that failed after the last sign of life.
    #[must_use]
    pub const fn last_failed_dial(&self) -> Option<Mono> {
        self.last_failed_dial
    }

    /// The first dial that was refused after the last sign of life.
    #[must_use]
    pub const fn refused_since(&self) -> Option<Mono> {
        self.refused_since
    }

    #[must_use]
    pub const fn missing_since(&self) -> Option<Mono> {
        self.missing_since
    }

    /// There were signs of life, and nothing has been missing since.
    #[must_use]
    pub const fn is_alive(&self) -> bool {
        self.missing_since.is_none() && self.last_life.is_some()
    }

    /// What this daemon thinks. `credible` is false when its own timers were late, or half of the fleet went at once.
    /// `vouched` is true when it is on record that this daemon could log in there while the server was well: a process
    /// that was started since, and let in nowhere, has that right from the one before it.
    #[must_use]
    pub fn opinion(
        &self,
        now: Mono,
        policy: &Policy,
        credible: bool,
        vouched: bool,
    ) -> OpinionKind {
        let Some(missing_since) = self.missing_since else {
            return if self.is_alive() {
                OpinionKind::Alive
            } else {
                OpinionKind::Abstain
            };
        };
        let logged_in = self
            .last_login
            .is_some_and(|at| now.since(at) <= policy.poll * LOGIN_POLLS_MAX);
        // A login is renewed only while the server is well; the time that it has been missing does not count.
        let logged_in = logged_in
            || self
                .last_login
                .is_some_and(|at| missing_since.since(at) <= policy.poll * LOGIN_POLLS_MAX);
        let logged_in = logged_in || (vouched && self.last_login.is_none());
        if !credible || !logged_in {
            return OpinionKind::Abstain;
        }
        if let Some(since) = self.leaving_since
            && now.since(since) < policy.planned_stop_patience
        {
            return OpinionKind::Leaving;
        }
        if self.pulse == Pulse::Closed && self.refused_since.is_some() {
            return if now.since(missing_since) >= policy.gone_patience {
                OpinionKind::Gone
            } else {
                OpinionKind::Suspect
            };
        }
        let silent_for = now.since(self.last_life.unwrap_or(missing_since));
        if self.failed_logins >= FAILED_LOGINS_MIN && silent_for >= SILENT_PATIENCE {
            return OpinionKind::Silent;
        }
        OpinionKind::Suspect
    }

    /// When the opinion may change without a further sign.
    #[must_use]
    pub fn next_change(&self, policy: &Policy) -> Option<Mono> {
        let missing_since = self.missing_since?;
        let mut next = missing_since + policy.gone_patience;
        if let Some(since) = self.leaving_since {
            next = next.max(since + policy.planned_stop_patience);
        }
        if self.failed_logins >= FAILED_LOGINS_MIN {
            next = next.max(self.last_life.unwrap_or(missing_since) + SILENT_PATIENCE);
        }
        Some(next)
    }
}

/// What the replicas of a server under suspicion show, read after the suspicion began.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ReplicaSigns {
    /// Read since, well or not.
    pub read: usize,
    /// Not read so far.
    pub unread: usize,
    /// The IO thread runs.
    pub io_running: usize,
    /// Of those, how many received something, or a heartbeat, since the primary's last sign of life.
    pub io_growing: usize,
    /// An IO thread ran on for longer than one needs to notice a death, while the primary refused every dial: that is an
    /// orderly stop, and stays one when it lets go of its replicas.
    pub ran_on: bool,
}

/// What is to be thought of a server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    Alive,
    Suspect,
    /// An orderly stop is going on: reported, and acted on after its patience.
    Leaving,
    Dead(DeadKind),
}

/// Joins what the daemons think with what the replicas show. `opinions` holds only what was said after the suspicion
/// began; `voters` are all configured voters; `suspected` is how long ago it began.
///
/// A replica whose receiver runs on, and gets nothing, while the primary refuses every dial is what an orderly stop looks
/// like, and what a replica looks like that nobody told of a lost connection (power that failed; `replica_net_timeout` is 60 s):
/// it is believed for as long as an orderly stop is waited for.
#[must_use]
pub fn verdict(
    opinions: &BTreeMap<NodeId, OpinionKind>,
    voters: &[NodeId],
    replicas: ReplicaSigns,
    suspected: Duration,
    policy: &Policy,
) -> Verdict {
    let count = |wanted: OpinionKind| {
        voters
            .iter()
            .filter(|node| opinions.get(node) == Some(&wanted))
            .count()
    };
    if count(OpinionKind::Alive) > 0 || replicas.io_growing > 0 {
        return Verdict::Alive;
    }
    let majority = voters.len() / 2 + 1;
    let needed = match policy.witness_quorum {
        0 => majority,
        quorum => usize::try_from(quorum)
            .unwrap_or(majority)
            .clamp(1, voters.len().max(1)),
    };
    let gone = count(OpinionKind::Gone);
    let silent = count(OpinionKind::Silent);
    if count(OpinionKind::Leaving) > 0 {
        return Verdict::Leaving;
    }
    if gone >= needed {
        return match (replicas.io_running, replicas.unread) {
            (_, _) if replicas.ran_on && suspected < policy.planned_stop_patience => {
                Verdict::Leaving
            }
            (0, 0) => Verdict::Dead(DeadKind::Gone),
            (_, 0) if suspected >= policy.planned_stop_patience => Verdict::Dead(DeadKind::Silent),
            (_, _) => Verdict::Suspect,
        };
    }
    if gone + silent >= needed && replicas.unread == 0 {
        return Verdict::Dead(DeadKind::Silent);
    }
    Verdict::Suspect
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::string::ToString;

    fn at(ms: u64) -> Mono {
        Mono::from_nanos(ms * 1_000_000)
    }

    fn alive() -> Watched {
        let mut watched = Watched::default();
        watched.sign(at(0), &Sign::PulseUp(Identity("a".to_string())));
        watched.sign(at(1000), &Sign::PulseBeat);
        watched
    }

    fn opinion(watched: &Watched, ms: u64) -> OpinionKind {
        watched.opinion(at(ms), &Policy::default(), true, false)
    }

    #[test]
    fn end_of_file_and_a_refused_dial_is_gone() {
        let mut watched = alive();
        assert_eq!(opinion(&watched, 1000), OpinionKind::Alive);
        watched.sign(at(1500), &Sign::PulseClosed);
        assert_eq!(opinion(&watched, 1500), OpinionKind::Suspect);
        watched.sign(at(1501), &Sign::DialRefused);
        assert_eq!(opinion(&watched, 1501), OpinionKind::Gone);
        watched.sign(at(1600), &Sign::PulseUp(Identity("a".to_string())));
        assert_eq!(opinion(&watched, 1600), OpinionKind::Alive);
    }

    #[test]
    fn a_refused_dial_beside_a_living_pulse_is_leaving() {
        let mut watched = alive();
        watched.sign(at(1500), &Sign::DialRefused);
        assert_eq!(opinion(&watched, 1500), OpinionKind::Leaving);
        watched.sign(at(9500), &Sign::PulseClosed);
        watched.sign(at(9501), &Sign::DialRefused);
        assert_eq!(opinion(&watched, 9501), OpinionKind::Leaving);
        assert_eq!(opinion(&watched, 16_500), OpinionKind::Gone);
    }

    #[test]
    fn two_failed_logins_over_three_seconds_are_silence() {
        let mut watched = alive();
        watched.sign(at(2300), &Sign::PulseLate);
        watched.sign(at(3100), &Sign::DialNoLogin);
        watched.sign(at(3900), &Sign::DialNoLogin);
        assert_eq!(opinion(&watched, 3999), OpinionKind::Suspect);
        assert_eq!(opinion(&watched, 4000), OpinionKind::Silent);
        watched.sign(at(4100), &Sign::DialError(1040));
        assert_eq!(
            opinion(&watched, 4100),
            OpinionKind::Alive,
            "too many connections is a sign of life"
        );
    }

    #[test]
    fn refused_dials_without_a_closed_pulse_are_silence() {
        // Read by a probe, and dead before the pulse was up.
        let mut probed = Watched::default();
        probed.probed(at(0), &Identity("a".to_string()));
        // Frozen until the pulse was given up, killed then.
        let mut frozen = alive();
        frozen.sign(at(2300), &Sign::PulseLate);
        frozen.sign(at(2400), &Sign::PulseSilent);
        for watched in [&mut probed, &mut frozen] {
            watched.sign(at(2500), &Sign::DialRefused);
            assert_eq!(opinion(watched, 2500), OpinionKind::Suspect);
            watched.sign(at(3900), &Sign::DialRefused);
            assert_eq!(opinion(watched, 4000), OpinionKind::Silent);
        }
    }

    #[test]
    fn who_never_logged_in_abstains() {
        let mut watched = Watched::default();
        watched.sign(at(1), &Sign::DialRefused);
        assert_eq!(opinion(&watched, 2), OpinionKind::Abstain);
        assert_eq!(
            alive().opinion(at(1000), &Policy::default(), false, false),
            OpinionKind::Alive
        );
    }

    #[test]
    fn a_majority_of_all_voters_must_say_dead() {
        let voters = [NodeId(1), NodeId(2), NodeId(3)];
        let policy = Policy::default();
        let say = |kinds: &[OpinionKind]| -> BTreeMap<NodeId, OpinionKind> {
            voters.iter().copied().zip(kinds.iter().copied()).collect()
        };
        let none = ReplicaSigns {
            read: 3,
            ..ReplicaSigns::default()
        };
        use OpinionKind::{Abstain, Alive, Gone, Leaving, Silent};
        for (kinds, replicas, expected) in [
            (&[Gone, Gone][..], none, Verdict::Dead(DeadKind::Gone)),
            (&[Gone], none, Verdict::Suspect),
            (&[Gone, Abstain, Abstain], none, Verdict::Suspect),
            (&[Gone, Gone, Alive], none, Verdict::Alive),
            (&[Gone, Gone, Leaving], none, Verdict::Leaving),
            (&[Gone, Silent], none, Verdict::Dead(DeadKind::Silent)),
            (&[Silent, Silent], none, Verdict::Dead(DeadKind::Silent)),
            (
                &[Gone, Gone],
                ReplicaSigns {
                    read: 3,
                    io_running: 1,
                    ..none
                },
                Verdict::Suspect,
            ),
            (
                &[Gone, Gone],
                ReplicaSigns {
                    read: 2,
                    unread: 1,
                    ..none
                },
                Verdict::Suspect,
            ),
            (
                &[Silent, Silent],
                ReplicaSigns {
                    read: 3,
                    io_running: 3,
                    ..none
                },
                Verdict::Dead(DeadKind::Silent),
            ),
            (
                &[Silent, Silent],
                ReplicaSigns {
                    io_running: 3,
                    io_growing: 1,
                    ..none
                },
                Verdict::Alive,
            ),
        ] {
            assert_eq!(
                verdict(&say(kinds), &voters, replicas, Duration::ZERO, &policy),
                expected,
                "{kinds:?} {replicas:?}"
            );
        }
        let believed = ReplicaSigns {
            io_running: 1,
            ..none
        };
        let patience = policy.planned_stop_patience;
        for (suspected, expected) in [
            (patience - Duration::from_millis(1), Verdict::Suspect),
            (patience, Verdict::Dead(DeadKind::Silent)),
        ] {
            let found = verdict(&say(&[Gone, Gone]), &voters, believed, suspected, &policy);
            assert_eq!(found, expected, "{suspected:?}");
        }
        // An orderly stop goes on when it has let go of its replicas.
        let let_go = ReplicaSigns {
            ran_on: true,
            ..none
        };
        for (suspected, expected) in [
            (patience - Duration::from_millis(1), Verdict::Leaving),
            (patience, Verdict::Dead(DeadKind::Gone)),
        ] {
            let found = verdict(&say(&[Gone, Gone]), &voters, let_go, suspected, &policy);
            assert_eq!(found, expected, "{suspected:?}");
        }
    }
}
