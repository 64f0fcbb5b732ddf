//! A fleet, the daemons that watch it, and the strikes against them.
//!
//! One strike is: clients write, something is killed or frozen, and the clocks run until a client's
//! write is acknowledged again and every live replica replicates from the promoted server. Then the
//! servers are read and judged.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, ensure};
use serde_json::Value;

use crate::checks::{Evidence, Judgement, Origin, ReceivedWatch, Seen, Tie, judge, origin};
use crate::daemons::{Daemon, DaemonOptions, Daemons, Recovery, get};
use crate::fleet::{Fleet, FleetOptions};
use crate::ledger::{Journal, Ledger, Write};
use crate::process::Signal;
use crate::wait::{Look, until};

/// How long anything that a recovery has to bring about may take before a test gives up.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// What is struck.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Strike {
    /// `kill -9` of the primary.
    KillPrimary,
    /// SIGSTOP of the primary.
    FreezePrimary,
    /// `kill -9` of the raft leader and of the primary, in one moment.
    KillPrimaryAndLeader,
    /// `kill -9` of the raft leader; the primary lives.
    KillLeader,
}

impl Strike {
    fn strikes_primary(self) -> bool {
        match self {
            Strike::KillPrimary | Strike::FreezePrimary | Strike::KillPrimaryAndLeader => true,
            Strike::KillLeader => false,
        }
    }
}

/// What a strike is judged with beside the defaults.
#[derive(Clone, Debug, Default)]
pub struct Expectation {
    /// Servers whose errant transactions were there before the strike.
    pub errant_before: Vec<u16>,
    /// Replicas that the tie-break may not choose.
    pub no_candidates: Vec<u16>,
    /// Replicas that need not replicate from the promoted server at the end.
    pub not_regrouped: Vec<u16>,
}

/// What came of a strike. Times count from the signal.
#[derive(Clone, Debug)]
pub struct Aftermath {
    pub old: u16,
    pub promoted: u16,
    /// The first dead-primary code in the API.
    pub verdict: Option<Duration>,
    pub writable: Duration,
    pub replicating: Duration,
    pub judgement: Judgement,
    pub journal: Journal,
    /// Recoveries in the audit that were not there before.
    pub recoveries: Vec<Recovery>,
    /// Their steps, as the audit has them.
    pub steps: Vec<String>,
}

impl Aftermath {
    /// Everything that was wrong, the audit included: one recovery, successful, naming the promoted
    /// server, and stating a loss if there was any.
    pub fn wrongs(&self) -> Vec<String> {
        let mut wrongs = self.judgement.wrongs();
        match &self.recoveries[..] {
            [one]
                if one.successful
                    && one.failed_port == self.old
                    && one.successor_port == self.promoted => {}
            other => wrongs.push(format!(
                "the audit should have one recovery, a successful one from {} to {}: {other:?}",
                self.old, self.promoted
            )),
        }
        wrongs.extend(unstated_loss(self.judgement.only_on_dead, &self.steps));
        wrongs
    }
}

/// What only the dead primary had is in the record as possible loss.
fn unstated_loss(only_on_dead: usize, steps: &[String]) -> Option<String> {
    let is_stated = steps.iter().any(|step| step.starts_with("possible loss: "));
    (only_on_dead > 0 && !is_stated).then(|| {
        format!("{only_on_dead} acknowledged writes are on the dead primary alone, and the audit states no loss: {steps:?}")
    })
}

/// What a primary that was replaced took from clients when it came back, before it was closed.
#[derive(Clone, Debug)]
pub struct Return {
    pub writes: usize,
    /// From the first of them to the last.
    pub span: Duration,
}

/// A fleet and its daemons.
#[derive(Debug)]
pub struct World {
    pub daemons: Daemons,
    pub fleet: Fleet,
    primary: u16,
    next_lane: AtomicU32,
}

impl World {
    /// Starts both, makes the daemons discover the fleet from one server, and waits until all of it
    /// is seen and watched by each daemon.
    pub async fn start(fleet: FleetOptions, daemons: &DaemonOptions) -> Result<World> {
        let fleet = Fleet::start(fleet).await?;
        World::around(fleet, daemons).await
    }

    /// The same, around a fleet that exists.
    pub async fn around(fleet: Fleet, daemons: &DaemonOptions) -> Result<World> {
        World::of(fleet, Daemons::start(daemons)?).await
    }

    /// The same, of both.
    pub async fn of(fleet: Fleet, daemons: Daemons) -> Result<World> {
        let primary = fleet.ports()[0];
        let world = World {
            daemons,
            fleet,
            primary,
            next_lane: AtomicU32::new(1),
        };
        world.daemons.wait_leader(Duration::from_secs(30)).await?;
        // Any server of the fleet is a seed: the last is a replica, so that the primary is found from it.
        let seed = *world
            .fleet
            .ports()
            .last()
            .ok_or_else(|| anyhow!("an empty fleet"))?;
        world.daemons.wait_discovered(seed).await?;
        world.wait_settled(&[]).await?;
        Ok(world)
    }

    pub fn primary(&self) -> u16 {
        self.primary
    }

    /// Tells the world who the primary is, when somebody else than [`World::strike`] changed it.
    pub fn set_primary(&mut self, port: u16) {
        self.primary = port;
    }

    /// Keeps every folder, for a person to read.
    pub fn keep(&mut self) {
        self.daemons.keep();
        self.fleet.keep();
    }

    /// Waits until the leader shows each server but `unhealthy` ones alive, in its place, and each
    /// daemon holds connections of its own to every server.
    pub async fn wait_settled(&self, unhealthy: &[u16]) -> Result<()> {
        until(
            "the daemons know the fleet",
            PATIENCE,
            Duration::from_millis(50),
            async || match self.unsettled(unhealthy).await {
                Ok(None) => Look::Holds(()),
                Ok(Some(missing)) => Look::not(missing),
                Err(error) => Look::not(format!("{error:#}")),
            },
        )
        .await
        .with_context(|| {
            let logs: Vec<PathBuf> = self.daemons.all().iter().map(Daemon::log).collect();
            crate::fleet::tail(&logs)
        })
    }

    /// What is missing until the world is at rest.
    async fn unsettled(&self, unhealthy: &[u16]) -> Result<Option<String>> {
        unsettled(&self.daemons, &self.fleet, self.primary, unhealthy).await
    }

    /// Strikes while clients write, and judges what came of it. `delay` passes between the clients'
    /// first writes and the strike, to strike at any phase of the poll.
    pub async fn strike(
        &mut self,
        strike: Strike,
        delay: Duration,
        expectation: &Expectation,
    ) -> Result<Aftermath> {
        self.strike_and(strike, delay, expectation, async |_| Ok(()))
            .await
    }

    /// The same, and then something else that is done at once.
    pub async fn strike_and(
        &mut self,
        strike: Strike,
        delay: Duration,
        expectation: &Expectation,
        then: impl AsyncFnOnce(&World) -> Result<()>,
    ) -> Result<Aftermath> {
        ensure!(
            strike.strikes_primary(),
            "a strike that leaves the primary alone has no aftermath"
        );
        let old = self.primary;
        let origin = origin(self.fleet.server(old)?).await?;
        let audit_before = self.daemons.audit_recovery().await?;
        let ledger = self.clients();
        let began = Instant::now();
        ledger.wait_acknowledged(began, Some(old), PATIENCE).await?;
        tokio::time::sleep(delay).await;
        let received = ReceivedWatch::start(&self.fleet, old, &origin).await?;
        let struck = self.signal(strike).await?;
        let verdict = self.watch_verdict(old, struck);
        then(self).await?;

        let first = ledger
            .wait_acknowledged_elsewhere(struck, old, PATIENCE)
            .await;
        let first = match first {
            Ok(first) => first,
            Err(error) => {
                let logs: Vec<PathBuf> = self.daemons.all().iter().map(Daemon::log).collect();
                return Err(error.context(format!(
                    "{}\n{}",
                    self.fleet.describe().await,
                    crate::fleet::tail(&logs)
                )));
            }
        };
        let promoted = first.port;
        let replicating = self
            .wait_regrouped(struck, old, promoted, &expectation.not_regrouped)
            .await?;
        self.wait_recovered(&audit_before).await?;
        let verdict = verdict.end();
        let journal = ledger.end().await;
        let received = received.end();
        self.wait_caught_up(promoted, &expectation.not_regrouped)
            .await?;
        // All that came of it, of whichever server.
        let recoveries = self.wait_recovered(&audit_before).await?;
        let mut steps = Vec::new();
        for recovery in &recoveries {
            steps.extend(self.daemons.recovery_steps(&recovery.uid).await?);
        }
        let mut judgement = self
            .judge(
                old,
                &origin,
                promoted,
                struck,
                &received,
                &journal,
                expectation,
            )
            .await?;
        if let Some(tie) = &judgement.tie
            && self.record_explains(tie, &recoveries).await?
        {
            judgement.tie = None;
        }
        self.primary = promoted;
        Ok(Aftermath {
            old,
            promoted,
            verdict,
            writable: first.answered.duration_since(struck),
            replicating,
            judgement,
            journal,
            recoveries,
            steps,
        })
    }

    /// The primary that was replaced comes back while clients write: it is started, or goes on. Ends when it is closed.
    pub async fn come_back(&self, old: u16, strike: Strike) -> Result<Return> {
        let server = self.fleet.server(old)?;
        let ledger = self.clients();
        let began = Instant::now();
        ledger
            .wait_acknowledged(began, Some(self.primary), PATIENCE)
            .await?;
        let back = match strike {
            Strike::FreezePrimary => server.signal(Signal::Continue),
            Strike::KillPrimary | Strike::KillPrimaryAndLeader | Strike::KillLeader => {
                server.start()?;
                Instant::now()
            }
        };
        self.wait_fenced(old).await?;
        let journal = ledger.end().await;
        let taken = || {
            let writes = journal.acknowledged();
            writes.filter(|write| write.port == old && write.sent > back)
        };
        let first = taken().map(|write| write.sent).min();
        let last = taken().map(|write| write.answered).max();
        Ok(Return {
            writes: taken().count(),
            span: first
                .zip(last)
                .map_or(Duration::ZERO, |(first, last)| last.duration_since(first)),
        })
    }

    /// Waits until the server answers and is read-only.
    pub async fn wait_fenced(&self, port: u16) -> Result<()> {
        let what = format!("{port} is fenced");
        until(&what, PATIENCE, Duration::from_millis(20), async || {
            let looked: Result<String> = async {
                let mut sql = self.fleet.server(port)?.harness().await?;
                let read_only = sql.value("SELECT @@GLOBAL.read_only").await?;
                sql.close().await;
                Ok(read_only)
            }
            .await;
            match looked {
                Ok(read_only) if read_only != "0" => Look::Holds(()),
                Ok(_) => Look::not("it is writable"),
                Err(error) => Look::not(format!("{error:#}")),
            }
        })
        .await
    }

    /// Two clients on all servers.
    pub fn clients(&self) -> Ledger {
        const CLIENTS: u32 = 2;
        let ports = self.fleet.ports();
        let lanes = CLIENTS * u32::try_from(ports.len()).unwrap_or(0);
        Ledger::start(
            &ports,
            CLIENTS,
            self.next_lane.fetch_add(lanes, Ordering::Relaxed),
        )
    }

    /// Sends the signals; the moment of the first.
    pub async fn signal(&self, strike: Strike) -> Result<Instant> {
        let primary = self.fleet.server(self.primary)?;
        match strike {
            Strike::KillPrimary => Ok(primary.signal(Signal::Kill)),
            Strike::FreezePrimary => Ok(primary.signal(Signal::Stop)),
            Strike::KillLeader => Ok(self
                .daemons
                .wait_leader(PATIENCE)
                .await?
                .signal(Signal::Kill)),
            Strike::KillPrimaryAndLeader => {
                let leader = self.daemons.wait_leader(PATIENCE).await?;
                let struck = primary.signal(Signal::Kill);
                leader.signal(Signal::Kill);
                Ok(struck)
            }
        }
    }

    /// Whether the recovery's record says that less was left to apply on the promoted server.
    async fn record_explains(&self, tie: &Tie, recoveries: &[Recovery]) -> Result<bool> {
        let claim = format!("127.0.0.1:{} over 127.0.0.1:{}:", tie.promoted, tie.lowest);
        for recovery in recoveries {
            let steps = self.daemons.recovery_steps(&recovery.uid).await?;
            if steps
                .iter()
                .any(|step| step.contains(&claim) && step.contains("least left to apply"))
            {
                return Ok(true);
            }
        }
        Ok(false)
    }

    async fn judge(
        &self,
        old: u16,
        origin: &Origin,
        promoted: u16,
        struck: Instant,
        received: &BTreeMap<u16, Seen>,
        journal: &Journal,
        expectation: &Expectation,
    ) -> Result<Judgement> {
        let evidence = Evidence {
            old,
            origin,
            promoted,
            struck,
            received,
            journal,
            errant_before: &expectation.errant_before,
            no_candidates: &expectation.no_candidates,
        };
        judge(&self.fleet, evidence).await
    }

    /// Waits until each live server but the old primary replicates from the promoted one.
    async fn wait_regrouped(
        &self,
        struck: Instant,
        old: u16,
        promoted: u16,
        but: &[u16],
    ) -> Result<Duration> {
        for server in self.fleet.live_except(promoted) {
            if server.port() != old && !but.contains(&server.port()) {
                self.fleet
                    .wait_replicates(server.port(), promoted, PATIENCE)
                    .await?;
            }
        }
        Ok(struck.elapsed())
    }

    /// Waits until the replicas have applied what the promoted server has committed, so that the
    /// judgement does not take lag for a loss.
    async fn wait_caught_up(&self, promoted: u16, but: &[u16]) -> Result<()> {
        let mut primary = self.fleet.server(promoted)?.harness().await?;
        let count = "SELECT COUNT(*) FROM app.ledger";
        let all: u64 = primary.value(count).await?.parse()?;
        for server in self.fleet.live_except(promoted) {
            let replicates = !but.contains(&server.port())
                && server
                    .replica_status()
                    .await?
                    .is_some_and(|status| status.source_port == promoted);
            if !replicates {
                continue;
            }
            let mut replica = server.harness().await?;
            let what = format!("{} catches up with {promoted}", server.port());
            until(
                &what,
                PATIENCE,
                Duration::from_millis(20),
                async || match replica.value(count).await {
                    // More than the promoted server has is for the judgement to name.
                    Ok(rows) if rows.parse().is_ok_and(|rows: u64| rows >= all) => Look::Holds(()),
                    Ok(rows) => Look::not(format!("{rows} rows of {all}")),
                    Err(error) => Look::not(error),
                },
            )
            .await?;
        }
        Ok(())
    }

    /// Waits until the audit shows the recovery of `old` as ended; those that were not there before.
    async fn wait_recovered(&self, before: &[Recovery]) -> Result<Vec<Recovery>> {
        let fresh = |recoveries: Vec<Recovery>| -> Vec<Recovery> {
            recoveries
                .into_iter()
                .filter(|recovery| before.iter().all(|known| known.uid != recovery.uid))
                .collect()
        };
        until(
            "the audit shows the recovery",
            PATIENCE,
            Duration::from_millis(50),
            async || match self.daemons.audit_recovery().await.map(fresh) {
                Ok(recoveries) if recoveries.iter().any(|recovery| recovery.successful) => {
                    Look::Holds(recoveries)
                }
                Ok(recoveries) => Look::not(format!("{recoveries:?}")),
                Err(error) => Look::not(format!("{error:#}")),
            },
        )
        .await
    }

    /// Brings everything back for the next strike: the old primary as an empty replica of the
    /// promoted server, ended daemons started, recoveries acknowledged.
    pub async fn restore(&mut self, old: u16) -> Result<()> {
        for daemon in self.daemons.all() {
            daemon.start()?;
        }
        self.fleet.replace(old, self.primary).await?;
        self.wait_caught_up(self.primary, &[]).await?;
        self.daemons
            .ask_leader("/api/ack-all-recoveries?comment=tested")
            .await?;
        self.wait_settled(&[]).await
    }

    /// Polls the analysis at whichever daemon answers.
    fn watch_verdict(&self, old: u16, struck: Instant) -> VerdictWatch {
        let seen = Arc::new(Mutex::new(None));
        let addresses: Vec<_> = self.daemons.all().iter().map(Daemon::http).collect();
        let found = seen.clone();
        let task = tokio::spawn(async move {
            let mut next = 0;
            loop {
                let address = addresses[next % addresses.len()];
                let reply = get(
                    address,
                    "/api/replication-analysis",
                    Duration::from_millis(500),
                )
                .await;
                let value = reply.and_then(|reply| reply.json()).ok();
                match value.map(|value| analyses(&value)) {
                    Some(codes) => {
                        if codes
                            .iter()
                            .any(|(port, code)| *port == old && code.starts_with("DeadMaster"))
                        {
                            *found.lock().unwrap_or_else(PoisonError::into_inner) =
                                Some(struck.elapsed());
                            return;
                        }
                    }
                    None => next += 1,
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        });
        VerdictWatch { seen, task }
    }
}

struct VerdictWatch {
    seen: Arc<Mutex<Option<Duration>>>,
    task: tokio::task::JoinHandle<()>,
}

impl VerdictWatch {
    fn end(self) -> Option<Duration> {
        self.task.abort();
        *self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What is missing until the leader shows each server of a fleet but `unhealthy` ones alive and in its place, and each
/// daemon holds connections of its own to every server.
pub async fn unsettled(
    daemons: &Daemons,
    fleet: &Fleet,
    primary: u16,
    unhealthy: &[u16],
) -> Result<Option<String>> {
    let instances = daemons.ask_leader("/api/all-instances").await?;
    let instances = instances.as_array().cloned().unwrap_or_default();
    for server in fleet.servers() {
        let port = server.port();
        let Some(instance) = instances
            .iter()
            .find(|instance| instance["Key"]["Port"] == port)
        else {
            return Ok(Some(format!("{port} was not discovered")));
        };
        if unhealthy.contains(&port) {
            continue;
        }
        if instance["IsLastCheckValid"] != true {
            return Ok(Some(format!("{port} is not seen alive")));
        }
        if port == primary {
            if instance["ReadOnly"] != false {
                return Ok(Some(format!("{port}, the primary, is not seen writable")));
            }
        } else if instance["MasterKey"]["Port"] != primary
            || instance["Slave_IO_Running"] != true
            || instance["Slave_SQL_Running"] != true
        {
            return Ok(Some(format!(
                "{port} is not seen replicating from {primary}"
            )));
        }
        if server.is_running() {
            let mut sql = server.harness().await?;
            let sessions = sql
                    .value("SELECT COUNT(*) FROM information_schema.processlist WHERE user = 'orchestrator'")
                    .await?;
            sql.close().await;
            let running = daemons.all().iter().filter(|daemon| daemon.is_running());
            let running = running.count();
            // A probe connection each, and to the primary a pulse and a fence connection beside it.
            let each = if port == primary { 3 } else { 1 };
            if sessions.parse::<usize>().unwrap_or(0) < running * each {
                return Ok(Some(format!(
                    "{port} has {sessions} sessions of {running} daemons, not {each} of each"
                )));
            }
        }
    }
    let problems = daemons.ask_leader("/api/replication-analysis").await?;
    Ok(analyses(&problems)
        .into_iter()
        .find(|(port, _)| !unhealthy.contains(port))
        .map(|(port, code)| format!("{port} is shown as {code}")))
}

/// Port and code of each problem in a reply of `replication-analysis`; structure warnings alone are none.
pub fn analyses(reply: &Value) -> Vec<(u16, String)> {
    let entries = reply["Details"].as_array().into_iter().flatten();
    entries
        .filter_map(|entry| {
            let port = u16::try_from(entry["AnalyzedInstanceKey"]["Port"].as_u64()?).ok()?;
            let code = entry["Analysis"].as_str()?;
            (!code.is_empty() && code != "NoProblem").then(|| (port, code.to_owned()))
        })
        .collect()
}

impl Ledger {
    /// Waits for a write that another server than `old` acknowledged.
    pub async fn wait_acknowledged_elsewhere(
        &self,
        since: Instant,
        old: u16,
        deadline: Duration,
    ) -> Result<Write> {
        until(
            "a client's write is acknowledged again",
            deadline,
            Duration::from_millis(2),
            async || match self.first_acknowledged_elsewhere(since, old) {
                Some(write) => Look::Holds(write),
                None => Look::not("every other server refuses or is silent"),
            },
        )
        .await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_loss_that_the_audit_does_not_state_is_wrong() {
        let stated = ["chosen: db2", "possible loss: replication was asynchronous"];
        let steps = stated.map(str::to_owned);
        assert_eq!(unstated_loss(3, &steps), None);
        assert_eq!(unstated_loss(0, &steps[..1]), None);
        assert!(unstated_loss(3, &steps[..1]).is_some());
        assert!(unstated_loss(1, &[]).is_some());
    }
}
