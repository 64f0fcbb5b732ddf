//! The whole daemon as a program of a simulated machine: driver, raft, HTTP, and a fleet of model servers.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use orchestrator::backend::{self, BackendError};
use orchestrator::config::{Credentials, MaxAllowedPacket, MysqlBackend, TlsMaterial};
use orchestrator::daemon::{DaemonSettings, Prepared, Reload};
use orchestrator::driver::DriverHandle;
use orchestrator::env::{Mutant, sleep, spawn};
use orchestrator::hooks::{Hooks, NoHooks};
use orchestrator::http;
use orchestrator::kv::{AfterPublication, Publisher};
use orchestrator::raft::{
    self, Entry, LogBounds, RaftHandle, RaftSettings, Release, ReplicaRequest,
};
use orchestrator::trace::event;
use orchestrator_core::id::{InstanceKey, LogPosition, NodeId};
use orchestrator_core::node::Identification;
use orchestrator_core::policy::Policy;
use orchestrator_core::recovery::Recovery;
use orchestrator_core::replicated::wire;
use orchestrator_core::time::Wall;
use tokio::sync::{mpsc, watch};

use crate::engine::{Engine, Machine};
use crate::hooks::{HooksSetup, SimHooks};
use crate::model::SimFleet;
use crate::{store, witness};

/// The port of the HTTP service.
pub const HTTP_PORT: u16 = 3000;
const RAFT_PORT: u16 = 10_008;

/// How the daemons of a world are set up.
#[derive(Debug, Clone, Default)]
pub struct DaemonsSetup {
    pub policy: Policy,
    /// How much log is kept.
    pub log: LogBounds,
    /// `RaftReplaceSilentSeconds`; none: as in production.
    pub replace_silent: Option<Duration>,
    pub hooks: HooksSetup,
    /// They publish to the store; with several pairs in one transaction, or one by one.
    pub store: Option<Publishing>,
}

/// How daemons write to the key-value store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Publishing {
    Together,
    Singly,
}

/// The daemons of a world, as a scenario and the oracles get at them. Clones are the same daemons.
#[derive(Debug, Clone, Default)]
pub struct Daemons {
    shared: Arc<Mutex<Shared>>,
}

#[derive(Debug, Default)]
struct Shared {
    setup: DaemonsSetup,
    /// `RaftNodes` of each, by machine.
    nodes: BTreeMap<String, Vec<String>>,
    /// Daemons of the release before.
    older: BTreeSet<String>,
    /// Daemons whose account has no rights in their backend: nobody granted them so far.
    without_rights: BTreeSet<String>,
    /// The cluster has one daemon.
    is_single: bool,
    /// Not started so far.
    asleep: BTreeSet<String>,
    /// Their programs do nothing: asking them would wait for ever.
    frozen: BTreeSet<String>,
    running: BTreeMap<String, Running>,
    stops: BTreeMap<String, watch::Sender<bool>>,
    /// Daemons that ended by themselves, and why.
    ended: Vec<(String, String)>,
    /// Nothing is to go wrong from here on.
    is_healed: bool,
}

/// A daemon that can be asked.
#[derive(Clone)]
struct Running {
    driver: DriverHandle,
    /// Looks at its log; to be called on its machine.
    log: Arc<dyn Fn() -> LogView + Send + Sync>,
}

impl fmt::Debug for Running {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Running").finish_non_exhaustive()
    }
}

/// Raft's log of a daemon. The ends are indexes of the entries behind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LogView {
    /// The number of this run of the daemon's identity.
    pub boot: u64,
    pub bytes: u64,
    /// Its first entry: those before were cut off.
    pub first: u64,
    pub end: u64,
    pub applied_end: u64,
    /// What is before is in the newest snapshot.
    pub snapshot_end: u64,
}

impl LogView {
    fn of<E: Engine>(raft: &RaftHandle<E>) -> Self {
        let status = raft.status();
        let behind = |index: Option<u64>| index.map_or(0, |index| index + 1);
        Self {
            boot: status.boot,
            bytes: status.log_bytes,
            first: behind(status.purged),
            end: behind(status.last_log_index),
            applied_end: behind(status.applied),
            snapshot_end: behind(status.snapshot),
        }
    }
}

/// What one daemon decided so far.
#[derive(Debug, Clone)]
pub struct DaemonView {
    pub name: String,
    pub at: LogPosition,
    pub digest: [u8; 32],
    pub leads: bool,
    /// Its identity in raft, and those of the voters as it knows them.
    pub node: NodeId,
    pub voters: Vec<NodeId>,
    pub log: LogView,
    /// It leads, or hears its leader, and is a voter.
    pub hears_leader: bool,
    pub recoveries: Vec<Recovery>,
    /// Servers it has seen in their newest probe.
    pub servers_seen: usize,
    /// The clusters that have an alias, with their primary as it is on record.
    pub named: Vec<(String, InstanceKey)>,
}

impl Daemons {
    fn lock(&self) -> MutexGuard<'_, Shared> {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }

    #[must_use]
    pub fn new(setup: DaemonsSetup) -> Self {
        let daemons = Self::default();
        daemons.lock().setup = setup;
        daemons
    }

    /// The daemons that ended by themselves, and why.
    #[must_use]
    pub fn ended(&self) -> Vec<(String, String)> {
        self.lock().ended.clone()
    }

    /// From here on no hook fails, and every daemon may write to its backend.
    pub fn heal(&self) {
        let mut shared = self.lock();
        shared.is_healed = true;
        shared.without_rights.clear();
    }

    #[must_use]
    pub fn is_healed(&self) -> bool {
        self.lock().is_healed
    }

    /// Not started before [`Self::wake`].
    pub fn let_sleep(&self, name: &str) {
        self.lock().asleep.insert(name.to_owned());
    }

    pub fn is_asleep(&self, name: &str) -> bool {
        self.lock().asleep.contains(name)
    }

    /// Whether it was asleep.
    pub fn wake(&self, name: &str) -> bool {
        self.lock().asleep.remove(name)
    }

    pub fn set_frozen(&self, name: &str, frozen: bool) {
        let mut shared = self.lock();
        if frozen {
            shared.frozen.insert(name.to_owned());
        } else {
            shared.frozen.remove(name);
        }
    }

    /// `RaftNodes` of a daemon, from its next start on.
    pub fn set_nodes(&self, name: &str, nodes: Vec<String>) {
        self.lock().nodes.insert(name.to_owned(), nodes);
    }

    /// Whether a daemon's account may write to its backend, from its next start on.
    pub fn set_rights(&self, name: &str, all: bool) {
        let mut shared = self.lock();
        if all {
            shared.without_rights.remove(name);
        } else {
            shared.without_rights.insert(name.to_owned());
        }
    }

    /// Which release a daemon behaves as, from its next start on.
    pub fn install(&self, name: &str, is_this: bool) {
        let mut shared = self.lock();
        if is_this {
            shared.older.remove(name);
        } else {
            shared.older.insert(name.to_owned());
        }
    }

    /// How raft of a daemon is set up at its next start.
    #[must_use]
    pub fn raft_settings(&self, name: &str) -> RaftSettings {
        let shared = self.lock();
        let nodes = shared.nodes.get(name).cloned().unwrap_or_default();
        let mut settings = raft_settings(name, &nodes);
        if shared.older.contains(name) {
            settings.release = Release::BEFORE;
        }
        settings.log = shared.setup.log;
        if let Some(silent) = shared.setup.replace_silent {
            settings.replace_silent = silent;
        }
        settings
    }

    /// SIGTERM. The daemon ends when it has handed over what it has to.
    pub fn stop(&self, name: &str) {
        if let Some(stop) = self.lock().stops.get(name) {
            stop.send_replace(true);
        }
    }

    /// What a killed process leaves: nothing that can be asked.
    pub fn forget(&self, name: &str) {
        let mut shared = self.lock();
        shared.running.remove(name);
        shared.stops.remove(name);
        shared.frozen.remove(name);
    }

    /// Whether it can be asked.
    #[must_use]
    pub fn is_up(&self, name: &str) -> bool {
        let shared = self.lock();
        shared.running.contains_key(name) && !shared.frozen.contains(name)
    }

    /// Looks at every daemon that is up.
    pub async fn views<E: Engine>(&self) -> Vec<DaemonView> {
        let running: Vec<(String, Running)> = {
            let shared = self.lock();
            let up = shared.running.iter();
            up.filter(|(name, _)| !shared.frozen.contains(*name))
                .map(|(name, running)| (name.clone(), running.clone()))
                .collect()
        };
        let mut views = Vec::new();
        for (name, Running { driver, log }) in running {
            let view = driver.look(move |node, _| DaemonView {
                name,
                at: node.replicated().applied(),
                digest: node.replicated().digest(),
                leads: node.raft().leading.is_some(),
                node: node.raft().node,
                voters: node.raft().voters.clone(),
                log: log(),
                hears_leader: node.raft().healthy,
                recoveries: node
                    .replicated()
                    .recoveries_newest_first()
                    .cloned()
                    .collect(),
                servers_seen: node
                    .observed()
                    .instances
                    .values()
                    .filter(|instance| instance.is_last_check_valid())
                    .count(),
                named: node
                    .replicated()
                    .clusters()
                    .filter(|record| !record.shown_alias().is_empty())
                    .map(|record| (record.shown_alias().to_owned(), record.primary.clone()))
                    .collect(),
            });
            // One that ended is in `ended`; nothing runs on its machine any more, so one that ends meanwhile does not answer.
            tokio::select! {
                biased;
                view = view => views.extend(view),
                () = sleep::<E>(LOOK_PATIENCE) => {}
            }
        }
        views
    }

    /// The machines `n1` to `n<count>`, each with a daemon, and `spare` more that no list of nodes names so far.
    pub fn machines<E: Engine>(&self, count: u8, spare: u8) -> Vec<Machine> {
        self.lock().is_single = count == 1;
        let names: Vec<String> = (1..=count).map(|number| format!("n{number}")).collect();
        (1..=count + spare)
            .map(|number| {
                let name = format!("n{number}");
                self.set_nodes(&name, names.clone());
                if number > count {
                    self.let_sleep(&name);
                }
                let (daemons, own) = (self.clone(), name.clone());
                Machine::new(name, IpAddr::from([10, 0, 0, number]), move |_| {
                    daemons.clone().run::<E>(own.clone())
                })
            })
            .collect()
    }

    async fn run<E: Engine>(self, name: String) {
        while self.lock().asleep.contains(&name) {
            sleep::<E>(WAKING).await;
        }
        self.forget(&name);
        let stop = watch::Sender::new(false);
        let mut stopped = stop.subscribe();
        self.lock().stops.insert(name.clone(), stop);
        let reason = match self.serve::<E>(&name, &mut stopped).await {
            Ok(None) => {
                self.forget(&name);
                event("daemon", format_args!("stopped"));
                return;
            }
            Ok(Some(_)) | Err(_) if E::has(Mutant::NoLastWords) => "an error".to_owned(),
            Ok(Some(reason)) | Err(reason) => reason,
        };
        event("daemon", format_args!("ended: {reason}"));
        self.forget(&name);
        self.lock().ended.push((name, reason));
    }

    /// Runs until the daemon can go on no more, and says why; none when it was told to stop.
    async fn serve<E: Engine>(
        &self,
        name: &str,
        stopped: &mut watch::Receiver<bool>,
    ) -> Result<Option<String>, String> {
        let fleet = SimFleet::<E>::default();
        let seed = E::random_seed().map_err(|error| error.to_string())?;
        let mut settings_of_raft = self.raft_settings(name);
        let setup = self.lock().setup.clone();
        let mut settings = settings(name, setup.policy.clone());
        settings.release = settings_of_raft.release;
        let (reloads, asked_to_reload) = mpsc::channel(RELOADS_AHEAD);
        settings.reloads = Some(reloads);
        let hooks: Arc<dyn Hooks> = if setup.hooks.each == 0 {
            Arc::new(NoHooks)
        } else {
            Arc::new(SimHooks::<E>::new(
                name.to_owned(),
                setup.hooks,
                self.clone(),
            ))
        };
        settings.hooks = hooks.clone();
        let publisher = setup.store.map(|how| {
            let (publisher, handle) = Publisher::new(&store::settings(how == Publishing::Together));
            settings.hooks = Arc::new(AfterPublication::<E>::new(hooks, handle));
            publisher
        });
        let nodes_count = settings_of_raft.nodes.len();
        event("daemon", format_args!("starts"));
        if self.lock().without_rights.contains(name) {
            return Err(no_right(name).to_string());
        }
        let opened = backend::open::<E>(backend_settings(name))
            .await
            .map_err(|error| error.to_string())?;
        settings_of_raft.backend = opened.for_start();
        let held = settings_of_raft.backend.and_then(|backend| backend.cluster);
        let prepared = Prepared::<E, _>::new(settings, fleet, seed, Some(opened));
        let (driver, attachable) = prepared.split();
        spawn::<E>(driver);
        let (replica, heard) = mpsc::channel(64);
        // One that is a cluster of its own is not what the oracles judge.
        let is_alone = nodes_count == 1 && !self.lock().is_single;
        let told = (!is_alone).then(|| name.to_owned());
        spawn::<E>(listen::<E>(told, heard, attachable.ends.replica.clone()));
        let (raft, report) = raft::start::<E>(settings_of_raft, replica)
            .await
            .map_err(|error| error.to_string())?;
        witness::began(name, held, report.cluster);
        let shown = raft.clone();
        let running = attachable.attach(raft, report).await?;
        if let Some(publisher) = publisher {
            spawn::<E>(publisher.run::<E>(running.handle.clone(), None));
        }
        let asked = Running {
            driver: running.handle.clone(),
            log: Arc::new(move || LogView::of(&shown)),
        };
        self.lock().running.insert(name.to_owned(), asked);
        spawn::<E>(reload(
            asked_to_reload,
            running.handle.clone(),
            setup.policy,
        ));
        tokio::select! {
            biased;
            reason = running.failed() => return Ok(Some(reason)),
            _ = stopped.wait_for(|stop| *stop) => {}
        }
        running.stop().await;
        Ok(None)
    }
}

/// A daemon that runs answers at once.
const LOOK_PATIENCE: Duration = Duration::from_secs(1);
/// How often one that is asleep looks whether it is to start.
const WAKING: Duration = Duration::from_millis(5);

/// Wishes to read the configuration again that wait for the one before.
const RELOADS_AHEAD: usize = 4;
/// With every wish the file has the next of these many.
const POLICIES: u64 = 3;

/// The file of a daemon was edited whenever somebody wants it read again: how patient it is differs, back and forth.
async fn reload(mut asked: mpsc::Receiver<Reload>, driver: DriverHandle, in_force: Policy) {
    let mut edits = 0;
    while let Some(reply) = asked.recv().await {
        edits += 1;
        let more = Duration::from_millis(100 * (edits % POLICIES));
        driver.reload(Policy {
            halt_deadline: in_force.halt_deadline + more,
            ..in_force.clone()
        });
        // Whoever asked may have given up.
        let _ = reply.send(Ok(String::new()));
    }
}

/// Stands between raft and the driver, and tells the oracles what was committed.
async fn listen<E: Engine>(
    told: Option<String>,
    mut requests: mpsc::Receiver<ReplicaRequest>,
    driver: mpsc::Sender<ReplicaRequest>,
) {
    while let Some(mut request) = requests.recv().await {
        if let (Some(daemon), ReplicaRequest::Apply { entries, .. }) = (&told, &request) {
            for (at, entry) in entries {
                match entry {
                    Entry::Command(bytes) => witness::committed(daemon, *at, bytes),
                    Entry::Members(members) => witness::seated(daemon, *at, members),
                    Entry::Blank => witness::begins(daemon, *at),
                }
            }
        }
        if let (Some(daemon), ReplicaRequest::Install { at, .. }) = (&told, &request) {
            witness::ask(|oracles, _| oracles.bounds.installed(daemon, *at));
        }
        if let (true, ReplicaRequest::Apply { entries, .. }) =
            (E::has(Mutant::OwnClock), &mut request)
        {
            entries.iter_mut().for_each(stamp_here::<E>);
        }
        if driver.send(request).await.is_err() {
            return;
        }
    }
}

/// For [`Mutant::OwnClock`]: raft gave everybody the same, and each makes something else of it.
fn stamp_here<E: Engine>((_, entry): &mut (LogPosition, Entry)) {
    let Entry::Command(bytes) = entry else {
        return;
    };
    let version = bytes.first().copied().unwrap_or_default();
    if let Ok(mut stamped) = wire::decode_command(bytes) {
        stamped.wall = Wall::from_nanos(E::wall().as_nanos() as u64);
        if let Ok(changed) = wire::encode_command(version.into(), &stamped) {
            *bytes = changed;
        }
    }
}

/// A policy with the defaults of `FAILOVER.md` section 8.
#[must_use]
pub fn default_policy() -> Policy {
    let every = || vec!["*".to_owned()];
    Policy {
        recover_primary_filters: every(),
        recover_intermediate_filters: every(),
        ..Policy::default()
    }
}

/// What the daemon of this name is set up with.
#[must_use]
pub fn settings(name: &str, policy: Policy) -> DaemonSettings {
    DaemonSettings {
        publication: None,
        reloads: None,
        identification: Identification {
            host_name: name.to_owned(),
            token: format!("token-of-{name}"),
        },
        policy,
        release: Release::THIS,
        listen: format!("0.0.0.0:{HTTP_PORT}"),
        http: http::Settings {
            process: http::Process {
                host_name: name.to_owned(),
                full_host_name: String::new(),
                token: format!("token-of-{name}"),
            },
            ..http::Settings::default()
        },
        probes_max: 300,
        seeds: Vec::new(),
        hooks: Arc::new(NoHooks),
    }
}

/// Raft of the daemon of this name, with these in its list.
#[must_use]
pub fn raft_settings(name: &str, names: &[String]) -> RaftSettings {
    let data_dir = PathBuf::from(format!("/{name}/raft"));
    let address = |name: &str| format!("{name}:{RAFT_PORT}");
    let mut settings = RaftSettings::new(data_dir, format!("0.0.0.0:{RAFT_PORT}"));
    settings.advertise = address(name);
    settings.http_uri = format!("http://{name}:{HTTP_PORT}");
    settings.nodes = names.iter().map(|name| address(name)).collect();
    settings
}

/// The backend of the daemon of this name.
#[must_use]
pub fn backend_settings(name: &str) -> backend::Settings {
    backend::Settings {
        place: backend::Place::Sqlite(PathBuf::from(format!("/{name}/orchestrator.sqlite3"))),
        deploy: backend::Deploy::Apply,
        daemon: format!("/{name}/raft"),
        identity: None,
        cluster: None,
        host_name: name.to_owned(),
        token: format!("token-of-{name}"),
        app_version: String::from("simulated"),
        extra_info: String::from("HttpMode"),
        command: String::from("http"),
    }
}

/// What a daemon on a MySQL server of its own is told there before somebody has granted its account anything. The rest of
/// the simulated daemons' backends is SQLite.
fn no_right(name: &str) -> BackendError {
    let user = "orchestrator";
    BackendError::NoRight {
        backend: Box::new(MysqlBackend {
            host: name.to_owned(),
            port: 3306,
            database: user.to_owned(),
            credentials: Credentials {
                user: user.to_owned(),
                ..Credentials::default()
            },
            connections_max: None,
            connect_timeout: Duration::from_secs(1),
            read_timeout: Duration::from_secs(30),
            connection_lifetime: None,
            reject_read_only: false,
            max_allowed_packet: MaxAllowedPacket::AskServer,
            tls: false,
            tls_material: TlsMaterial {
                skip_verify: false,
                key: None,
                certificate: None,
                authorities: None,
            },
        }),
        reason: String::from("error 1044: access denied"),
    }
}
