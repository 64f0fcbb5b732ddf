//! The whole daemon as a program of a simulated machine: driver, raft, HTTP, and a fleet of model servers.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use orchestrator::backend;
use orchestrator::daemon::{DaemonSettings, Prepared};
use orchestrator::driver::DriverHandle;
use orchestrator::env::spawn;
use orchestrator::hooks::NoHooks;
use orchestrator::http;
use orchestrator::raft::{self, RaftSettings};
use orchestrator_core::id::LogPosition;
use orchestrator_core::node::Identification;
use orchestrator_core::policy::Policy;
use orchestrator_core::recovery::Recovery;

use crate::engine::{Engine, Machine};
use crate::model::SimFleet;

/// The port of the HTTP service.
pub const HTTP_PORT: u16 = 3000;
const RAFT_PORT: u16 = 10_008;

/// The daemons of a world, as a scenario and the oracles get at them. Clones are the same daemons.
#[derive(Debug, Clone, Default)]
pub struct Daemons {
    shared: Arc<Mutex<Shared>>,
}

#[derive(Debug, Default)]
struct Shared {
    running: BTreeMap<String, DriverHandle>,
    ended: Vec<String>,
}

/// What one daemon decided so far.
#[derive(Debug, Clone)]
pub struct DaemonView {
    pub name: String,
    pub at: LogPosition,
    pub digest: [u8; 32],
    pub leads: bool,
    pub recoveries: Vec<Recovery>,
    /// Servers it has seen in their newest probe.
    pub servers_seen: usize,
}

impl Daemons {
    fn lock(&self) -> MutexGuard<'_, Shared> {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Why daemons ended that nobody had killed.
    #[must_use]
    pub fn ended(&self) -> Vec<String> {
        self.lock().ended.clone()
    }

    /// Looks at every daemon that is up.
    pub async fn views(&self) -> Vec<DaemonView> {
        let running: Vec<(String, DriverHandle)> = self
            .lock()
            .running
            .iter()
            .map(|(name, handle)| (name.clone(), handle.clone()))
            .collect();
        let mut views = Vec::new();
        for (name, handle) in running {
            let view = handle
                .look(move |node, _| DaemonView {
                    name,
                    at: node.replicated().applied(),
                    digest: node.replicated().digest(),
                    leads: node.raft().leading.is_some(),
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
                })
                .await;
            // One that ended is in `ended`.
            views.extend(view);
        }
        views
    }

    /// The machines `n1` to `n<count>`, each with a daemon.
    pub fn machines<E: Engine>(&self, count: u8) -> Vec<Machine> {
        let names: Vec<String> = (1..=count).map(|number| format!("n{number}")).collect();
        (1..=count)
            .map(|number| {
                let name = format!("n{number}");
                let (daemons, names, own) = (self.clone(), names.clone(), name.clone());
                Machine::new(name, IpAddr::from([10, 0, 0, number]), move |_| {
                    daemons.clone().run::<E>(own.clone(), names.clone())
                })
            })
            .collect()
    }

    async fn run<E: Engine>(self, name: String, names: Vec<String>) {
        self.lock().running.remove(&name);
        let reason = match self.serve::<E>(&name, &names).await {
            Ok(reason) | Err(reason) => reason,
        };
        let mut shared = self.lock();
        shared.running.remove(&name);
        shared.ended.push(format!("{name}: {reason}"));
    }

    /// Runs until the daemon can go on no more, and says why.
    async fn serve<E: Engine>(&self, name: &str, names: &[String]) -> Result<String, String> {
        let fleet = SimFleet::<E>::default();
        let seed = E::random_seed().map_err(|error| error.to_string())?;
        let mut raft_settings = raft_settings(name, names);
        let opened = backend::open::<E>(backend_settings(name))
            .await
            .map_err(|error| error.to_string())?;
        raft_settings.backend = opened.for_start();
        let prepared = Prepared::<E, _>::new(settings(name), fleet, seed, Some(opened));
        let (driver, attachable) = prepared.split();
        spawn::<E>(driver);
        let replica = attachable.ends.replica.clone();
        let (raft, report) = raft::start::<E>(raft_settings, replica)
            .await
            .map_err(|error| error.to_string())?;
        let running = attachable.attach(raft, report).await?;
        self.lock()
            .running
            .insert(name.to_owned(), running.handle.clone());
        Ok(running.failed().await)
    }
}

/// The defaults of `FAILOVER.md` section 8.
fn settings(name: &str) -> DaemonSettings {
    let every = || vec!["*".to_owned()];
    let policy = Policy {
        recover_primary_filters: every(),
        recover_intermediate_filters: every(),
        ..Policy::default()
    };
    DaemonSettings {
        identification: Identification {
            host_name: name.to_owned(),
            token: format!("token-of-{name}"),
        },
        policy,
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

fn raft_settings(name: &str, names: &[String]) -> RaftSettings {
    let data_dir = PathBuf::from(format!("/{name}/raft"));
    let address = |name: &str| format!("{name}:{RAFT_PORT}");
    let mut settings = RaftSettings::new(data_dir, format!("0.0.0.0:{RAFT_PORT}"));
    settings.advertise = address(name);
    settings.http_uri = format!("http://{name}:{HTTP_PORT}");
    settings.nodes = names.iter().map(|name| address(name)).collect();
    settings
}

fn backend_settings(name: &str) -> backend::Settings {
    backend::Settings {
        place: backend::Place::Sqlite(PathBuf::from(format!("/{name}/orchestrator.sqlite3"))),
        deploy: backend::Deploy::Apply,
        daemon: format!("/{name}/raft"),
        host_name: name.to_owned(),
        token: format!("token-of-{name}"),
        app_version: String::from("simulated"),
        extra_info: String::from("HttpMode"),
        command: String::from("http"),
    }
}
