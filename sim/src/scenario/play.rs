//! The play of a plan: machines, servers and clients of a scenario come to life, actions are carried out at their time or
//! moment, oracles look on; when the script is over everything is healed, and progress is demanded.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use orchestrator::env::{sleep, spawn, timeout};
use orchestrator::trace::event;
use orchestrator::{backend, raft};
use orchestrator_core::id::InstanceKey;
use orchestrator_core::recovery::{End, Recovery, Statement};

use super::action::{Action, Directory, Logins, Planned, When};
use super::file::{Expect, Plan, Scenario, SemiSync};
use super::names::Role;
use super::{Script, Summary, heal};
use crate::daemon::{DaemonView, Daemons, DaemonsSetup, Publishing, default_policy};
use crate::engine::{self, Engine, Machine};
use crate::hooks::HooksSetup;
use crate::model::client::write_for_ever;
use crate::model::server::{CONNECTIONS_MAX, Process, SemiSyncSettings, ServerError, code};
use crate::model::{Host, Ledger, Server};
use crate::network::Quality;
use crate::oracle::{Ended, last_words};
use crate::outcome::Failure;
use crate::store::Store;
use crate::{browser, disk, network, operator, store, witness};

/// Between two looks at every daemon.
pub(super) const LOOK: Duration = Duration::from_millis(100);
/// So often is it looked whether every daemon holds what was committed, at the end.
const CATCH_UP_LOOKS: u32 = 50;
/// What is expected to be said may be said only after a look for somebody.
const SAID_WITHIN: Duration = Duration::from_secs(10);
/// What the cluster is called where there is a store to call it so.
const ALIAS: &str = "shop";
/// Without random faults all daemons must see the whole fleet so long after the start, and after each line of the script.
const DISCOVERED_WITHIN: Duration = Duration::from_secs(8);
/// After so long a supervisor starts a daemon again that ended by itself.
const SUPERVISOR_WAITS: Duration = Duration::from_secs(1);
/// A recovery that a downtime held up is through so long after its end.
const AFTER_DOWNTIME: Duration = Duration::from_secs(2);
/// Where a disk loses what it had a replacement of the daemon is let in after so long.
const REPLACE_SILENT: Duration = Duration::from_secs(4);
/// What healing, coming to rest (of a quorum, and of all), and one more failover may take after the script.
const AFTERMATH: Duration = Duration::from_secs(220);

/// No run takes longer.
pub(super) fn limit(scenario: &Scenario) -> Duration {
    scenario.length() + AFTERMATH
}

/// The machines and the script of a plan.
pub(super) fn world<E: Engine>(scenario: Arc<Scenario>, plan: Plan) -> (Vec<Machine>, Script) {
    let mut policy = default_policy();
    policy.refuse_lossy = scenario.policy.refuse_lossy;
    if let Some(patience) = &scenario.policy.gone_patience {
        policy.gone_patience = super::action::parse_duration(patience).unwrap_or_default();
    }
    let announcements = scenario.announcements(plan.seed);
    let hooks = HooksSetup {
        each: announcements.each,
        takes_max: super::action::parse_duration(&announcements.takes_max).unwrap_or_default(),
        fail_percent: announcements.fail_percent,
    };
    let loses = |line: &Planned| matches!(line.action, Action::FailSync(..) | Action::Rot(..));
    let loses = plan.lines.iter().any(loses);
    let replace_silent = scenario
        .replace_silent
        .as_ref()
        .and_then(|text| super::action::parse_duration(text).ok());
    let daemons = Daemons::new(DaemonsSetup {
        replace_silent: replace_silent.or(loses.then_some(REPLACE_SILENT)),
        policy,
        log: scenario.log_bounds(),
        hooks,
        store: announcements
            .store
            .then_some(if plan.seed.is_multiple_of(2) {
                Publishing::Together
            } else {
                Publishing::Singly
            }),
    });
    let hosts = fleet(&scenario, &plan);
    let mut machines = daemons.machines::<E>(scenario.daemons, scenario.spare_daemons);
    for name in &scenario.asleep {
        daemons.let_sleep(name);
    }
    for name in &scenario.older {
        daemons.install(name, false);
    }
    for (host, last) in hosts.iter().zip(1..) {
        let program = host.clone();
        machines.push(Machine::new(
            host.key().host.clone(),
            IpAddr::from([10, 0, 1, last]),
            move |_| program.clone().run::<E>(),
        ));
    }
    let store = announcements.store.then(Store::default);
    machines.extend(store.iter().map(Store::machine::<E>));
    witness::begin(E::elapsed, hosts.clone(), hooks);
    witness::ask(|oracles, _| oracles.bounds.log = scenario.log_bounds());
    let player = Player {
        scenario,
        plan,
        daemons,
        hosts,
        store,
        ledger: Ledger::default(),
        down: BTreeMap::new(),
        struck_at: None,
        expected_ends: BTreeSet::new(),
        sick: BTreeSet::new(),
        rotten: BTreeSet::new(),
        forgetful: BTreeSet::new(),
        absent: BTreeSet::new(),
        ends_seen: 0,
        ended_sick: BTreeMap::new(),
        is_healed: false,
    };
    (machines, Box::pin(player.play::<E>()))
}

fn key(name: &str) -> InstanceKey {
    InstanceKey::new(name, 3306)
}

fn fleet(scenario: &Scenario, plan: &Plan) -> Vec<Host> {
    let unsynced = scenario.unsynced(plan.seed);
    (1..=scenario.servers)
        .map(|number| {
            let own = key(&format!("m{number}"));
            let mut server = Server::new(own, plan.kind, number, number > 1);
            if let Some(how) = scenario.semi_sync {
                server.set_semi_sync(semi_sync(&server, how, number == 1));
            }
            if number > 1 {
                server.replicate_from(key("m1"));
            }
            server.set_unsynced(unsynced);
            Host::new(server, plan.seed)
        })
        .collect()
}

/// With room for nobody else, or for as many as a server is set up with.
pub(super) fn set_logins(server: &mut Server, how: Logins) {
    let denied = ServerError {
        code: code::ACCESS_DENIED,
        message: "Access denied".to_owned(),
    };
    server.refuse_logins((how == Logins::Denied).then_some(denied));
    let room = match how {
        Logins::Full => server.sessions_open(),
        Logins::Admitted | Logins::Denied => CONNECTIONS_MAX,
    };
    server.set_connections_max(room);
}

fn semi_sync(server: &Server, how: SemiSync, is_source: bool) -> SemiSyncSettings {
    SemiSyncSettings {
        source_enabled: is_source,
        replica_enabled: !is_source,
        timeout: match how {
            SemiSync::Lossless => Duration::from_secs(600),
            SemiSync::Lossy => Duration::from_secs(1),
        },
        after_sync: how == SemiSync::Lossless,
        ..server.semi_sync().clone()
    }
}

/// One that is down, frozen or at its end does not say so itself.
fn no_longer_leads(daemon: &str) {
    witness::tell(&witness::Event::NoLongerLeads {
        daemon: daemon.to_owned(),
    });
}

/// How a machine came to stand still.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Down {
    Killed,
    Powerless,
    Frozen,
}

/// Who plays.
pub(super) struct Player {
    pub(super) scenario: Arc<Scenario>,
    pub(super) plan: Plan,
    pub(super) daemons: Daemons,
    pub(super) hosts: Vec<Host>,
    pub(super) store: Option<Store>,
    pub(super) ledger: Ledger,
    pub(super) down: BTreeMap<String, Down>,
    /// When a primary was first struck.
    struck_at: Option<Duration>,
    /// Daemons that ended by themselves as the scenario expects.
    pub(super) expected_ends: BTreeSet<String>,
    /// Daemons whose disk was made to fail, until they are healed and at rest.
    sick: BTreeSet<String>,
    /// What rotted on the disk of a daemon and was not emptied since: nobody may have read it so far.
    rotten: BTreeSet<(String, Directory)>,
    /// Those among them that may have lost what they had put on stable storage.
    pub(super) forgetful: BTreeSet<String>,
    /// Daemons that are not healed while a quorum of the others is.
    pub(super) absent: BTreeSet<String>,
    /// Of the daemons' ends so many were looked at.
    ends_seen: usize,
    /// Sick daemons that ended, each with its reason and the time at which its supervisor starts it again.
    ended_sick: BTreeMap<String, (String, Option<Duration>)>,
    /// People do what the daemons' last words ask for.
    pub(super) is_healed: bool,
}

/// A replica that is not attached when its source is read would be found with the next poll of that one, which the script may not
/// let live so long: people, who set it up, have it discovered.
async fn discover_late<E: Engine>(daemons: &[String], hosts: &[Host]) {
    let is_attached =
        |host: &Host| host.look(|server| server.source().is_none() || server.is_replicating());
    let late: Vec<&Host> = hosts.iter().filter(|host| !is_attached(host)).collect();
    for host in late {
        while !is_attached(host) && E::elapsed() < DISCOVERED_WITHIN {
            sleep::<E>(LOOK).await;
        }
        operator::discover::<E>(daemons, host.key().clone()).await;
    }
}

/// An action with the time it is due at.
struct Due {
    at: Duration,
    action: Action,
    lasts: Option<Duration>,
}

impl Player {
    async fn play<E: Engine>(mut self) -> Result<Summary, Failure> {
        let played = self.play_all::<E>().await;
        witness::end();
        played
    }

    async fn play_all<E: Engine>(&mut self) -> Result<Summary, Failure> {
        let servers: Vec<InstanceKey> = self.hosts.iter().map(|host| host.key().clone()).collect();
        spawn::<E>(write_for_ever::<E>(servers, self.ledger.clone(), 1));
        let (daemons, first) = (
            self.scenario.daemon_names(),
            key(if self.hosts.len() > 1 { "m2" } else { "m1" }),
        );
        let alias = self.store.is_some().then_some(ALIAS);
        let hosts = self.hosts.clone();
        spawn::<E>(async move {
            operator::discover::<E>(&daemons, first).await;
            discover_late::<E>(&daemons, &hosts).await;
            if let Some(alias) = alias {
                operator::name_cluster::<E>(&daemons, &key("m1"), alias).await;
            }
        });
        if self.scenario.has_operators(&self.plan) {
            spawn::<E>(operator::work::<E>(
                self.scenario.daemon_names(),
                self.scenario.server_names(),
                self.plan.seed,
                self.scenario.length(),
            ));
        }
        let missed = self.script::<E>().await?;
        let calm = if self.plan.is_calm {
            self.expectations::<E>().await?
        } else {
            String::new()
        };
        if self.scenario.expect.stands_still {
            return self.stands_still::<E>().await;
        }
        let quorum = heal::quorum_comes_to_rest::<E>(self).await?;
        event("phase", format_args!("everything is healed"));
        heal::heal::<E>(self);
        let rest = heal::come_to_rest::<E>(self).await?;
        let again = heal::one_more_failover::<E>(self).await?;
        self.judge::<E>().await?;
        Ok(format!(
            "{} faults, {missed}{calm}{} promotions, {quorum}at rest {} ms after healing, {again}, {} writes acknowledged",
            self.plan.lines.len(),
            witness::promotions().len(),
            rest.as_millis(),
            self.ledger.acknowledged().len()
        ))
    }

    /// Carries out the plan until the script's time is over; says how many of its lines waited in vain.
    async fn script<E: Engine>(&mut self) -> Result<String, Failure> {
        let length = self.scenario.length();
        let mut waiting: Vec<Planned> = self.plan.lines.clone();
        let mut due: Vec<Due> = Vec::new();
        let mut changed = witness::subscribe();
        let mut look_at = LOOK;
        let mut is_discovered = false;
        let mut discovered_by = DISCOVERED_WITHIN;
        loop {
            changed.mark_unchanged();
            let now = E::elapsed();
            // What waits for a time is due then; what waits for a moment is due after that came.
            waiting.retain(|planned| match &planned.when {
                When::At(at) => {
                    due.push(Due {
                        at: at.0,
                        action: planned.action.clone(),
                        lasts: planned.lasts.map(|lasts| lasts.0),
                    });
                    false
                }
                When::Moment {
                    moment,
                    counts,
                    after,
                } => {
                    let came = witness::count(moment) >= counts.0;
                    if came {
                        due.push(Due {
                            at: now + after.0,
                            action: planned.action.clone(),
                            lasts: planned.lasts.map(|lasts| lasts.0),
                        });
                    }
                    !came
                }
            });
            due.sort_by_key(|one| one.at);
            while due.first().is_some_and(|one| one.at <= E::elapsed()) {
                let Due { action, lasts, .. } = due.remove(0);
                discovered_by = E::elapsed() + DISCOVERED_WITHIN;
                for done in self.act::<E>(&action).await {
                    if let (Some(lasts), Some(reverse)) = (lasts, done.reverse()) {
                        due.push(Due {
                            at: E::elapsed() + lasts,
                            action: reverse,
                            lasts: None,
                        });
                    }
                }
                due.sort_by_key(|one| one.at);
            }
            if E::elapsed() >= look_at {
                let views = self.look::<E>().await?;
                look_at = E::elapsed() + LOOK;
                if self.plan.is_calm && !is_discovered {
                    is_discovered = self.is_discovered(&views);
                    if !is_discovered && E::elapsed() > discovered_by && waiting.is_empty() {
                        return Err(self.undiscovered::<E>(&views));
                    }
                }
            }
            self.broken()?;
            self.supervise::<E>();
            let now = E::elapsed();
            if now >= length {
                if self.plan.is_calm && !is_discovered && !self.scenario.expect.stands_still {
                    let views = self.look::<E>().await?;
                    return Err(self.undiscovered::<E>(&views));
                }
                return Ok(match waiting.len() {
                    0 => String::new(),
                    missed => format!("{missed} of them waited in vain, "),
                });
            }
            let next = due
                .first()
                .map_or(look_at, |one| one.at.min(look_at))
                .min(length);
            // A thousandth more: turmoil counts in milliseconds.
            let wait = next.saturating_sub(now).max(Duration::from_micros(100));
            let _ = timeout::<E, _>(wait, changed.changed()).await;
        }
    }

    fn is_discovered(&self, views: &[DaemonView]) -> bool {
        let seen = views
            .iter()
            .filter(|view| view.servers_seen == self.hosts.len());
        // Whoever is to end may have ended.
        let absent = self.scenario.asleep.len() + self.scenario.expect.ends.len();
        seen.count() >= usize::from(self.scenario.daemons).saturating_sub(absent)
    }

    fn undiscovered<E: Engine>(&self, views: &[DaemonView]) -> Failure {
        let seen: Vec<_> = views
            .iter()
            .map(|view| (&view.name, view.servers_seen))
            .collect();
        Failure::Liveness(format!(
            "discovery: not every daemon saw {} servers by {} s: {seen:?}",
            self.hosts.len(),
            E::elapsed().as_secs()
        ))
    }

    /// Looks at every daemon and server.
    pub(super) async fn look<E: Engine>(&mut self) -> Result<Vec<DaemonView>, Failure> {
        let views = self.daemons.views::<E>().await;
        // What was broken before is what the run ends with.
        self.broken()?;
        let broken = witness::ask(|oracles, truth| oracles.look(&views, truth));
        broken.unwrap_or(Ok(())).map_err(Failure::Safety)?;
        Ok(views)
    }

    /// A promise was broken, or a daemon ended that was not to.
    fn broken(&mut self) -> Result<(), Failure> {
        if let Some(broken) = witness::violation() {
            return Err(Failure::Safety(broken));
        }
        let ended = self.daemons.ended();
        let unseen = ended.get(self.ends_seen..).unwrap_or_default();
        self.ends_seen = ended.len();
        for (name, reason) in unseen.iter().cloned() {
            if self.sick.contains(&name) {
                last_words::judge(&name, &reason).map_err(Failure::Safety)?;
                self.ended_sick.insert(name, (reason, None));
                continue;
            }
            let is_expected = self
                .scenario
                .expect
                .ends
                .iter()
                .any(|(who, why)| *who == name && reason.contains(why.as_str()));
            if !is_expected {
                return Err(Failure::Crash(format!("{name} ended: {reason}")));
            }
            no_longer_leads(&name);
            self.expected_ends.insert(name);
        }
        Ok(())
    }

    /// A daemon that ended by itself is ended as a process, and started again a second later. Once everything is healed,
    /// people first do what its last words asked for.
    fn supervise<E: Engine>(&mut self) {
        let names: Vec<String> = self.ended_sick.keys().cloned().collect();
        for name in names {
            if self.absent.contains(&name) {
                continue;
            }
            let Some((reason, at)) = self.ended_sick.get(&name).cloned() else {
                continue;
            };
            match at {
                None => {
                    self.end::<E>(&name, Down::Killed);
                    let at = E::elapsed() + SUPERVISOR_WAITS;
                    self.ended_sick.insert(name, (reason, Some(at)));
                }
                Some(at) if at <= E::elapsed() => {
                    self.ended_sick.remove(&name);
                    if self.is_healed && reason.contains(last_words::MOVE_AWAY) {
                        event(
                            "operator",
                            format_args!("{name}: empties the raft directory"),
                        );
                        self.wipe(&name, Directory::Raft);
                    }
                    if self.is_healed && reason.contains(last_words::MOVE_BACKEND_AWAY) {
                        event("operator", format_args!("{name}: removes the backend"));
                        self.wipe(&name, Directory::Backend);
                    }
                    self.start::<E>(&name);
                }
                Some(_) => {}
            }
        }
    }

    /// What the scenario expects of a run in which nothing else went wrong.
    async fn expectations<E: Engine>(&mut self) -> Result<String, Failure> {
        let scenario = self.scenario.clone();
        let expect = &scenario.expect;
        self.expected_of_members::<E>(expect).await?;
        for (who, why) in &expect.ends {
            if !self.expected_ends.contains(who) {
                return Err(Failure::Safety(format!(
                    "expected: {who} ends because of '{why}', and it runs"
                )));
            }
        }
        if self.scenario.has_operators(&self.plan) {
            let until = E::elapsed() + operator::LONGEST_DOWNTIME + AFTER_DOWNTIME;
            while expect
                .promotions
                .is_some_and(|expected| witness::promotions().len() < expected)
                && E::elapsed() < until
            {
                self.wait::<E>().await?;
            }
        }
        // One that is opened again, because it lost power a moment after, is not promoted twice.
        let mut promotions = witness::promotions();
        let mut promoted = BTreeSet::new();
        promotions.retain(|one| promoted.insert((one.uid.clone(), one.server.clone())));
        if let Some(expected) = expect.promotions
            && promotions.len() != expected
        {
            let views = self.look::<E>().await?;
            return Err(Failure::Liveness(format!(
                "promotions: {expected} expected; there were {}; {}",
                promotions.len(),
                heal::recoveries_in_words(&views)
            )));
        }
        if let Some(why) = &expect.refused {
            let views = self.look::<E>().await?;
            let recoveries = views.first().map_or(&[][..], |view| &view.recoveries);
            let is_refused = |recovery: &Recovery| matches!(&recovery.end, Some((_, End::Failed { reason })) if reason.contains(why.as_str()));
            let changes = witness::count("effect");
            if recoveries.is_empty() || !recoveries.iter().all(is_refused) || changes > 0 {
                return Err(Failure::Safety(format!(
                    "expected: every recovery is refused because of '{why}' and nothing is changed; {changes} statements took \
                     effect; {}",
                    heal::recoveries_in_words(&views)
                )));
            }
        }
        if let Some(wanted) = &expect.primary {
            let writable: Vec<&str> = self
                .hosts
                .iter()
                .filter(|host| host.look(|server| server.is_writable()))
                .map(|host| host.key().host.as_str())
                .collect();
            let is_met = match wanted.strip_prefix('!') {
                Some(other) => writable.len() == 1 && writable != [other],
                None => writable == [wanted.as_str()],
            };
            if !is_met {
                return Err(Failure::Safety(format!(
                    "expected: {wanted} takes writes; these do: {writable:?}"
                )));
            }
        }
        if !expect.lost.is_empty() {
            let views = self.look::<E>().await?;
            let recoveries = views.first().map_or(&[][..], |view| &view.recoveries);
            let names_all = |recovery: &Recovery| {
                let lost: Vec<&str> = recovery.lost.iter().map(|key| key.host.as_str()).collect();
                expect.lost.iter().all(|name| lost.contains(&name.as_str()))
            };
            if !recoveries.iter().any(names_all) {
                return Err(Failure::Safety(format!(
                    "expected: the record names {:?} as lost; {}",
                    expect.lost,
                    heal::recoveries_in_words(&views)
                )));
            }
        }
        if let (Some(most), Some(first)) = (expect.deposed_writes_max, promotions.first()) {
            let writes = self.ledger.acknowledged();
            let late = writes
                .iter()
                .filter(|(_, at, by)| *at > first.at && by.host == "m1");
            let late = late.count();
            if late > most {
                return Err(Failure::Safety(format!(
                    "expected: at most {most} writes on m1 after it was replaced; there were {late}"
                )));
            }
        }
        let Some(struck) = self.struck_at else {
            return Ok(String::new());
        };
        let writable = promotions.first().and_then(|promotion| {
            let writes = self.ledger.acknowledged();
            writes
                .into_iter()
                .filter(|(_, at, by)| *at > promotion.at && *by == promotion.server)
                .map(|(_, at, _)| at.saturating_sub(struck))
                .min()
        });
        if let Some(within) = &expect.writable_within {
            let within = super::action::parse_duration(within).unwrap_or_default();
            if writable.is_none_or(|after| after > within) {
                return Err(Failure::Liveness(format!(
                    "writable: expected within {} ms; it was {writable:?}",
                    within.as_millis()
                )));
            }
        }
        Ok(writable.map_or_else(String::new, |after| {
            format!("writable after {} ms, ", after.as_millis())
        }))
    }

    async fn expected_of_members<E: Engine>(&mut self, expect: &Expect) -> Result<(), Failure> {
        let terms = witness::ask(|oracles, _| oracles.one_leader.terms()).unwrap_or(0);
        if expect.terms.is_some_and(|expected| expected != terms) {
            return Err(Failure::Safety(format!(
                "expected: {:?} terms; somebody led in {terms}",
                expect.terms
            )));
        }
        if expect.led && !self.look::<E>().await?.iter().any(|view| view.leads) {
            return Err(Failure::Liveness("led: no daemon leads".to_owned()));
        }
        for (who, path, part) in &expect.says {
            let answer = browser::get_within::<E>(who, path, SAID_WITHIN).await;
            if !matches!(&answer, Ok((_, text)) if text.contains(part.as_str())) {
                return Err(Failure::Safety(format!(
                    "expected: {who} {path} says '{part}'; it is {answer:?}"
                )));
            }
        }
        Ok(())
    }

    async fn stands_still<E: Engine>(&mut self) -> Result<Summary, Failure> {
        match self.look::<E>().await?.iter().find(|view| view.leads) {
            Some(view) => Err(Failure::Safety(format!(
                "expected: nobody leads; {} does",
                view.name
            ))),
            None => Ok(format!("{} faults, nobody leads", self.plan.lines.len())),
        }
    }

    /// The machines whose daemons are members in the end, and are not away.
    pub(super) fn present(&self) -> Vec<String> {
        let mut members = self.scenario.member_names();
        members.retain(|name| !self.absent.contains(name));
        members
    }

    /// Those of the machines whose daemons may be members in the end.
    pub(super) fn candidates(&self) -> Vec<String> {
        let mut names = self.present();
        if let Some((_, copy)) = &self.scenario.expect.copied {
            names.push(copy.clone());
        }
        names
    }

    /// These members, where the copy of one that has its place stands for it.
    pub(super) fn seated(&self, mut members: Vec<String>, views: &[DaemonView]) -> Vec<String> {
        let node = |name: &str| {
            views
                .iter()
                .find(|view| view.name == *name)
                .map(|view| view.node)
        };
        if let Some((original, copy)) = &self.scenario.expect.copied
            && !self.plan.is_calm
            && let Some(leader) = views.iter().find(|view| view.leads)
        {
            let votes = |name| node(name).is_some_and(|node| leader.voters.contains(&node));
            let place = members.iter_mut().find(|name| *name == original);
            if let Some(place) = place
                && votes(copy)
                && !votes(original)
            {
                place.clone_from(copy);
            }
        }
        members
    }

    /// The daemons of those that are members in the end.
    pub(super) async fn members<E: Engine>(&mut self) -> Result<Vec<DaemonView>, Failure> {
        let mut views = self.look::<E>().await?;
        let members = self.seated(self.scenario.member_names(), &views);
        views.retain(|view| members.contains(&view.name));
        Ok(views)
    }

    /// All oracles judge the end.
    async fn judge<E: Engine>(&mut self) -> Result<(), Failure> {
        let wanted = witness::ask(|oracles, _| oracles.nothing_uncommitted.call()).flatten();
        let mut daemons = self.members::<E>().await?;
        // What was committed a moment ago is on its way to the others.
        for _ in 0..CATCH_UP_LOOKS {
            let is_behind = |daemon: &DaemonView| {
                daemon.hears_leader && wanted.is_some_and(|wanted| daemon.at.index < wanted.index)
            };
            if !daemons.iter().any(is_behind) {
                break;
            }
            sleep::<E>(LOOK).await;
            daemons = self.members::<E>().await?;
        }
        let ended = Ended {
            hosts: self.hosts.clone(),
            ledger: self.ledger.clone(),
            daemons,
            promotions: witness::promotions(),
        };
        witness::ask(|oracles, _| oracles.end(&ended))
            .unwrap_or(Ok(()))
            .map_err(Failure::Safety)
    }

    // Actions.

    /// Does it, to each machine that it names; what was done is given back with the machines' names.
    pub(super) async fn act<E: Engine>(&mut self, action: &Action) -> Vec<Action> {
        let mut done = Vec::new();
        for action in self.resolve(action) {
            let is_done = self.act_one::<E>(&action).await;
            if is_done {
                event("fault", format_args!("{action}"));
                done.push(action);
            } else {
                event("fault", format_args!("{action}: makes no difference"));
            }
        }
        done
    }

    /// Roles become the machines that have them now.
    fn resolve(&self, action: &Action) -> Vec<Action> {
        let each = |who: &String, make: &dyn Fn(String) -> Action| -> Vec<Action> {
            self.who(who).into_iter().map(make).collect()
        };
        let pairs = |from: &String, to: &String, make: &dyn Fn(String, String) -> Action| {
            let mut actions = Vec::new();
            for from in self.who(from) {
                for to in self.who(to) {
                    if from != to {
                        actions.push(make(from.clone(), to));
                    }
                }
            }
            actions
        };
        match action {
            Action::Kill(who) => each(who, &Action::Kill),
            Action::PowerCut(who) => each(who, &Action::PowerCut),
            Action::Start(who) => each(who, &Action::Start),
            Action::Stop(who) => each(who, &Action::Stop),
            Action::Freeze(who) => each(who, &Action::Freeze),
            Action::Thaw(who) => each(who, &Action::Thaw),
            Action::Cut(from, to) => pairs(from, to, &Action::Cut),
            Action::Heal(from, to) => pairs(from, to, &Action::Heal),
            Action::Isolate(who) => each(who, &Action::Isolate),
            Action::Rejoin(who) => each(who, &Action::Rejoin),
            Action::Slow(from, to, by) => pairs(from, to, &|from, to| Action::Slow(from, to, *by)),
            Action::Lose(from, to, percent) => {
                pairs(from, to, &|from, to| Action::Lose(from, to, *percent))
            }
            Action::SlowDisk(who, by) => each(who, &|who| Action::SlowDisk(who, *by)),
            Action::Disk(who, state) => each(who, &|who| Action::Disk(who, *state)),
            Action::FailSync(who, part) => each(who, &|who| Action::FailSync(who, *part)),
            Action::Rot(who, part) => each(who, &|who| Action::Rot(who, *part)),
            Action::Clock(who, by) => each(who, &|who| Action::Clock(who, *by)),
            Action::Drift(who, rate) => each(who, &|who| Action::Drift(who, *rate)),
            Action::Wipe(who, what) => each(who, &|who| Action::Wipe(who, *what)),
            Action::CloneBackend(from, to) => pairs(from, to, &Action::CloneBackend),
            Action::Press(_) | Action::Restore(..) => vec![action.clone()],
            Action::Keep(who) => each(who, &Action::Keep),
            Action::Applier(who, on) => each(who, &|who| Action::Applier(who, *on)),
            Action::PurgeLogs(who) => each(who, &Action::PurgeLogs),
            Action::SlowApplier(who, by) => each(who, &|who| Action::SlowApplier(who, *by)),
            Action::Name(..) => vec![action.clone()],
            Action::Nodes(who, nodes) => each(who, &|who| Action::Nodes(who, nodes.clone())),
            Action::Install(who, is_this) => each(who, &|who| Action::Install(who, *is_this)),
            Action::Ask(who, path) => each(who, &|who| Action::Ask(who, path.clone())),
            Action::Form(who, with) => each(who, &|who| Action::Form(who, with.clone())),
            Action::Logins(who, how) => each(who, &|who| Action::Logins(who, *how)),
            Action::ReadLock(who, on) => each(who, &|who| Action::ReadLock(who, *on)),
            Action::Rights(who, all) => each(who, &|who| Action::Rights(who, *all)),
            Action::Recover(who, from) => each(who, &|who| Action::Recover(who, *from)),
        }
    }

    /// The machines that a name means.
    fn who(&self, name: &str) -> Vec<String> {
        let daemons = self.scenario.daemon_names();
        let leader = || witness::leader().filter(|leader| !self.down.contains_key(leader));
        let followers = || {
            let leader = leader();
            daemons
                .iter()
                .filter(|daemon| leader.as_ref() != Some(*daemon))
                .cloned()
                .collect::<Vec<_>>()
        };
        let up = |names: Vec<String>| -> Vec<String> {
            let first = names.into_iter().find(|name| !self.down.contains_key(name));
            first.into_iter().collect()
        };
        let Some(role) = Role::named(name) else {
            return vec![name.to_owned()];
        };
        match role {
            Role::Leader => leader().into_iter().collect(),
            Role::Follower => up(followers()),
            Role::LastFollower => {
                let mut names = followers();
                names.reverse();
                up(names)
            }
            Role::Followers => followers(),
            Role::Daemons => daemons,
            Role::Servers => self.scenario.server_names(),
            Role::Primary => vec![self.primary()],
            Role::Replica => {
                let primary = self.primary();
                let mut names = self.scenario.server_names();
                names.retain(|name| *name != primary);
                up(names)
            }
            Role::Replicas => {
                let primary = self.primary();
                let mut names = self.scenario.server_names();
                names.retain(|name| *name != primary);
                names
            }
            Role::All => {
                let mut names = daemons;
                names.extend(self.scenario.server_names());
                names
            }
        }
    }

    /// The server that was promoted last; at first `m1`.
    pub(super) fn primary(&self) -> String {
        witness::promotions().last().map_or_else(
            || "m1".to_owned(),
            |promotion| promotion.server.host.clone(),
        )
    }

    pub(super) fn host(&self, name: &str) -> Option<&Host> {
        self.hosts.iter().find(|host| host.key().host == name)
    }

    fn everybody(&self) -> Vec<String> {
        let mut names = self.scenario.every_daemon_name();
        names.extend(self.scenario.server_names());
        names.extend(self.store.iter().map(|_| store::NAME.to_owned()));
        names.push("scenario".to_owned());
        names
    }

    /// Whether there was something to do.
    async fn act_one<E: Engine>(&mut self, action: &Action) -> bool {
        match action {
            Action::Kill(who) => self.end::<E>(who, Down::Killed),
            Action::PowerCut(who) => self.end::<E>(who, Down::Powerless),
            Action::Start(who) => self.start::<E>(who),
            Action::Stop(who) if self.host(who).is_some() => self.stop_server::<E>(who),
            Action::Stop(who) => {
                let is_up = self.daemons.is_up(who);
                if is_up {
                    self.daemons.stop(who);
                    self.down.insert(who.clone(), Down::Killed);
                }
                // One that does not end when it is told to is killed.
                let is_stuck = self.down.get(who) == Some(&Down::Frozen);
                is_up || is_stuck && self.end::<E>(who, Down::Killed)
            }
            Action::Freeze(who) => self.freeze::<E>(who),
            Action::Thaw(who) => self.thaw(who),
            Action::Cut(from, to) => {
                network::cut(from, to);
                true
            }
            Action::Heal(from, to) => {
                network::heal(from, to);
                true
            }
            Action::Isolate(who) => {
                for other in self.everybody() {
                    if other != *who {
                        network::cut(who, &other);
                        network::cut(&other, who);
                    }
                }
                true
            }
            Action::Rejoin(who) => {
                for other in self.everybody() {
                    if other != *who {
                        network::heal(who, &other);
                        network::heal(&other, who);
                    }
                }
                true
            }
            Action::Slow(from, to, by) => {
                network::change_quality(from, to, |quality| quality.delay = *by);
                true
            }
            Action::Lose(from, to, percent) => {
                network::change_quality(from, to, |quality: &mut Quality| {
                    quality.loss_percent = *percent;
                });
                true
            }
            Action::SlowDisk(who, by) => {
                disk::set_slower(who, *by);
                true
            }
            Action::Disk(who, state) => {
                disk::set_state(who, *state);
                self.sick.insert(who.clone());
                true
            }
            Action::FailSync(who, part) => {
                disk::fail_next_sync(&part.path(who));
                self.sick.insert(who.clone());
                self.forgetful.insert(who.clone());
                true
            }
            Action::Rot(who, part) => {
                let rotten = disk::rot(&part.path(who));
                if let Some(what) = &rotten {
                    event("fault", format_args!("{what} rots"));
                    self.sick.insert(who.clone());
                    self.rotten.insert((who.clone(), part.directory()));
                    self.forgetful.insert(who.clone());
                }
                rotten.is_some()
            }
            Action::Clock(who, by) => {
                network::step_clock(who, *by);
                true
            }
            Action::Drift(who, rate) => {
                network::set_drift(who, *rate, E::elapsed());
                true
            }
            Action::Wipe(who, what) => {
                // A fault may have started it again since the script switched it off.
                if !self.down.contains_key(who) {
                    self.end::<E>(who, Down::Powerless);
                }
                self.wipe(who, *what);
                true
            }
            Action::CloneBackend(from, to) => {
                if !self.down.contains_key(to) && !self.expected_ends.contains(to) {
                    return false;
                }
                disk::remove_all(&format!("/{to}/orchestrator.sqlite3"));
                disk::copy_all(
                    &format!("/{from}/orchestrator.sqlite3"),
                    &format!("/{to}/orchestrator.sqlite3"),
                );
                true
            }
            Action::Keep(who) => {
                for path in Directory::Both.paths() {
                    disk::remove_all(&format!("/kept-{who}/{path}"));
                    disk::copy_all(&format!("/{who}/{path}"), &format!("/kept-{who}/{path}"));
                }
                true
            }
            Action::Restore(from, to, what) => {
                if !self.down.contains_key(to) && !self.daemons.is_asleep(to) {
                    self.end::<E>(to, Down::Powerless);
                }
                self.wipe(to, *what);
                // Both machines are the same to the others, and either may be told to end and come back as another.
                for who in [from, to] {
                    self.sick.insert(who.clone());
                    self.forgetful.insert(who.clone());
                }
                for name in what.paths() {
                    disk::copy_all(&format!("/kept-{from}/{name}"), &format!("/{to}/{name}"));
                }
                true
            }
            Action::Applier(who, on) => {
                let statement = if *on {
                    Statement::StartSqlThread
                } else {
                    Statement::StopSqlThread
                };
                let now = E::elapsed();
                self.host(who).is_some_and(|host| {
                    host.look(|server| server.process()) != Process::Killed
                        && host
                            .change(|server| server.execute(&statement, now))
                            .is_ok()
                })
            }
            Action::PurgeLogs(who) => self.host(who).is_some_and(|host| {
                host.change(Server::purge_logs);
                true
            }),
            Action::SlowApplier(who, by) => self.host(who).is_some_and(|host| {
                host.change(|server| server.set_apply_takes((!by.is_zero()).then_some(*by)));
                true
            }),
            Action::Name(name, to) => {
                network::mislead(name, to);
                true
            }
            Action::Nodes(who, nodes) => {
                self.daemons.set_nodes(who, nodes.clone());
                true
            }
            Action::Install(who, is_this) => {
                self.daemons.install(who, *is_this);
                true
            }
            Action::Ask(who, path) => {
                let answer = browser::get::<E>(who, path).await;
                event("operator", format_args!("{who} {path}: {answer:?}"));
                true
            }
            Action::Press(path) => {
                spawn::<E>(operator::press::<E>(
                    self.scenario.daemon_names(),
                    path.clone(),
                    self.scenario.length(),
                ));
                true
            }
            Action::Form(who, with) => {
                raft::ask_to_form::<E>(Path::new(&format!("/{who}/raft")), with).is_ok()
            }
            Action::Logins(who, how) => self.host(who).is_some_and(|host| {
                host.change(|server| set_logins(server, *how));
                true
            }),
            Action::ReadLock(who, on) => self.host(who).is_some_and(|host| {
                host.look(|server| server.process()) == Process::Running
                    && host.change(|server| server.set_backup(*on, E::elapsed()))
            }),
            Action::Rights(who, all) => {
                if let Some(host) = self.host(who) {
                    host.change(|server| server.set_only_looks(!all));
                } else {
                    self.daemons.set_rights(who, *all);
                    self.sick.insert(who.clone());
                }
                true
            }
            Action::Recover(who, from) => {
                if self.down.get(who) != Some(&Down::Killed) {
                    return false;
                }
                match self.recover::<E>(who, *from).await {
                    Ok(done) => {
                        event("operator", format_args!("{who}: {done}"));
                        true
                    }
                    Err(why) => {
                        event("operator", format_args!("{who}: not recovered: {why}"));
                        false
                    }
                }
            }
        }
    }

    /// `orchestrator raft recover --yes` on a machine whose daemon does not run.
    async fn recover<E: Engine>(&mut self, who: &str, from: Directory) -> Result<String, String> {
        let settings = self.daemons.raft_settings(who);
        let recovery = if from == Directory::Backend {
            let place = crate::daemon::backend_settings(who).place;
            let read = backend::read_back::<E>(&place)
                .await
                .map_err(|error| error.to_string())?;
            raft::of_backend::<E>(settings, read).await
        } else {
            raft::examine::<E>(settings).await
        };
        let recovery = recovery.map_err(|error| error.to_string())?;
        let state = recovery.state.clone();
        let last = recovery.last;
        let (_, cluster) = recovery
            .carry_out()
            .await
            .map_err(|error| error.to_string())?;
        self.wipe(who, Directory::Backend);
        // Whoever chose what is kept may have chosen what was behind, and says again what is missing in it.
        if self.store.is_some()
            && !state
                .clusters()
                .any(|cluster| cluster.shown_alias() == ALIAS)
        {
            let daemons = self.scenario.daemon_names();
            spawn::<E>(async move {
                operator::name_cluster::<E>(&daemons, &key("m1"), ALIAS).await;
            });
        }
        witness::recovered(state, last);
        Ok(format!("cluster {cluster} holds what it held at {last}"))
    }

    fn wipe(&mut self, who: &str, what: Directory) {
        for name in what.paths() {
            disk::remove_all(&format!("/{who}/{name}"));
        }
        let is_emptied = |of: Directory| what == Directory::Both || of == what;
        self.rotten
            .retain(|(name, of)| name != who || !is_emptied(*of));
    }

    /// Everybody who is present was healed and came to rest: of what was done to their disks nothing is left but what rotted
    /// and nobody came upon. Whoever else ends from here on does so by a fault of its own.
    pub(super) fn recovered_from_faults(&mut self) {
        let (present, rotten) = (self.present(), &self.rotten);
        self.sick
            .retain(|name| !present.contains(name) || rotten.iter().any(|(of, _)| of == name));
    }

    fn end<E: Engine>(&mut self, who: &str, how: Down) -> bool {
        let before = self.down.get(who).copied();
        if matches!(before, Some(Down::Killed | Down::Powerless)) {
            return false;
        }
        if self.primary() == who {
            self.struck_at.get_or_insert(E::elapsed());
        }
        if let Some(host) = self.host(who) {
            if host.look(|server| server.process()) == Process::Frozen {
                host.change(Server::thaw);
            }
            if how == Down::Powerless {
                host.change(|server| server.lose_power(E::elapsed()));
                E::power_cut(who);
            } else {
                host.change(Server::kill);
            }
        } else {
            self.daemons.forget(who);
            no_longer_leads(who);
            match how {
                Down::Powerless => {
                    witness::ask(|oracles, _| oracles.bounds.power_cuts += 1);
                    E::power_cut(who);
                }
                Down::Killed | Down::Frozen => E::kill(who),
            }
        }
        self.down.insert(who.to_owned(), how);
        true
    }

    fn stop_server<E: Engine>(&mut self, who: &str) -> bool {
        if self.down.contains_key(who) {
            return false;
        }
        if self.primary() == who {
            self.struck_at.get_or_insert(E::elapsed());
        }
        if let Some(host) = self.host(who) {
            host.change(|server| server.stop(E::elapsed()));
        }
        self.down.insert(who.to_owned(), Down::Killed);
        true
    }

    fn start<E: Engine>(&mut self, who: &str) -> bool {
        if self.daemons.wake(who) {
            return true;
        }
        let Some(how) = self.down.get(who).copied() else {
            return false;
        };
        if how == Down::Frozen {
            return false;
        }
        self.down.remove(who);
        if let Some(host) = self.host(who) {
            if how == Down::Powerless {
                E::boot(who);
            }
            let now = E::elapsed();
            if host.look(|server| server.process()) != Process::Killed {
                host.change(Server::kill);
            }
            host.change(|server| server.start(now));
        } else {
            // Whoever was told to stop and is not through by now is ended, as service managers do; whoever is through has
            // left nothing open.
            if how == Down::Killed {
                E::kill(who);
            }
            E::boot(who);
        }
        true
    }

    fn freeze<E: Engine>(&mut self, who: &str) -> bool {
        if self.down.contains_key(who) {
            return false;
        }
        if self.primary() == who {
            self.struck_at.get_or_insert(E::elapsed());
        }
        match self.host(who) {
            Some(host) => {
                host.change(Server::freeze);
            }
            None => {
                self.daemons.set_frozen(who, true);
                no_longer_leads(who);
                engine::pause(who);
            }
        }
        self.down.insert(who.to_owned(), Down::Frozen);
        true
    }

    fn thaw(&mut self, who: &str) -> bool {
        if self.down.get(who) != Some(&Down::Frozen) {
            return false;
        }
        self.down.remove(who);
        match self.host(who) {
            Some(host) => {
                host.change(Server::thaw);
            }
            None => {
                self.daemons.set_frozen(who, false);
                engine::resume(who);
            }
        }
        true
    }

    /// Starts or thaws one machine.
    pub(super) fn undo<E: Engine>(&mut self, action: &Action) {
        let is_done = match action {
            Action::Start(who) => self.start::<E>(who),
            Action::Thaw(who) => self.thaw(who),
            _ => false,
        };
        if is_done {
            event("fault", format_args!("{action}"));
        }
    }

    /// Waits a little, looking on.
    pub(super) async fn wait<E: Engine>(&mut self) -> Result<Vec<DaemonView>, Failure> {
        sleep::<E>(LOOK).await;
        self.supervise::<E>();
        self.look::<E>().await
    }
}
