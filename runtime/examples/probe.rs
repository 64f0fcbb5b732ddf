//! A developer's look at the fleet adapter on a real server.
//!
//!     probe HOST:PORT [--user U] [--password P] probe [COUNT]
//!     probe HOST:PORT watch SECONDS [REDIAL_MILLISECONDS]
//!     probe HOST:PORT run LANE[@TERM] STATEMENT[,STATEMENT...] [DEADLINE_MILLISECONDS]
//!     probe HOST:PORT frozen SECONDS    watches, and writes the fence after the first pulse
//!
//! Lanes: act, fence, kill. Statements: fence, open, close, kill, stop-io, start-io, stop-sql, start-sql, stop, start,
//! reset, change=HOST:PORT, slave-pos=GTIDS, semi-source=on, semi-replica=off.
#![allow(clippy::unwrap_used)]

use std::time::Duration;

use orchestrator::env::{Env, TokioEnv, sleep};
use orchestrator::fleet::{Fleet, Gate, SignSender};
use orchestrator::mysql::{Mysql, OwnName, ProbeSettings, TlsMode};
use orchestrator_core::gtid;
use orchestrator_core::id::{Epoch, InstanceKey, NodeId, StepId, Uid};
use orchestrator_core::recovery::{Lane, SourcePosition, Statement, Step, StepKind};
use orchestrator_core::time::Mono;

struct Open;

impl Gate for Open {
    async fn confirm(&self, _: Epoch) -> Result<Mono, String> {
        Ok(Mono::from_elapsed(
            TokioEnv::mono() + Duration::from_secs(1),
        ))
    }
}

fn statement(text: &str, mariadb: bool) -> Statement {
    let (name, value) = text.split_once('=').unwrap_or((text, ""));
    match name {
        "fence" => Statement::Fence,
        "open" => Statement::MakeWriteable,
        "close" => Statement::MakeReadOnly {
            super_read_only: false,
        },
        "kill" => Statement::KillClients {
            spare_users: Vec::new(),
        },
        "stop-io" => Statement::StopIoThread,
        "start-io" => Statement::StartIoThread,
        "stop-sql" => Statement::StopSqlThread,
        "start-sql" => Statement::StartSqlThread,
        "stop" => Statement::StopReplication,
        "start" => Statement::StartReplication,
        "reset" => Statement::ResetReplicaAll,
        "change" => Statement::ChangeSource {
            source: value.parse().unwrap(),
            position: if mariadb {
                SourcePosition::MariadbSlavePos
            } else {
                SourcePosition::OracleAuto
            },
            options: Vec::new(),
        },
        "slave-pos" => Statement::SetGtidSlavePos {
            position: gtid::GtidSet::parse(gtid::Flavour::Mariadb, value).unwrap(),
        },
        "semi-source" => Statement::SemiSyncSource {
            enabled: value == "on",
        },
        "semi-replica" => Statement::SemiSyncReplica {
            enabled: value == "on",
        },
        other => panic!("unknown statement {other}"),
    }
}

fn main() {
    tracing_subscriber::fmt().with_env_filter("debug").init();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async_main());
}

async fn async_main() {
    let mut args: Vec<String> = std::env::args().skip(1).collect();
    let mut option = |name: &str, default: &str| -> String {
        match args.iter().position(|arg| arg == name) {
            Some(at) => {
                let value = args.remove(at + 1);
                args.remove(at);
                value
            }
            None => default.to_owned(),
        }
    };
    let text = |text: String| (!text.is_empty()).then_some(text);
    let mut settings = ProbeSettings {
        user: option("--user", "ci"),
        password: option("--password", "ci"),
        own_name: OwnName::ReportHost,
        discover_by_show_replicas: true,
        lag_query: text(option("--lag-query", "")),
        credentials_query: text(option("--credentials-query", "")),
        tls_skip_verify: true,
        ..ProbeSettings::default()
    };
    settings.detect.cluster_alias = text(option("--alias-query", ""));
    if option("--tls", "mixed") == "required" {
        settings.tls = TlsMode::Required;
    }
    let key: InstanceKey = args[0].parse().unwrap();
    let fleet = Mysql::<TokioEnv>::new(settings);
    match args[1].as_str() {
        "probe" => {
            let count: u32 = args.get(2).map_or(1, |text| text.parse().unwrap());
            for turn in 0..count {
                let end = fleet.probe(key.clone()).await;
                if turn == 0 {
                    println!("{end:#?}");
                } else if end.result.is_err() || turn + 1 == count {
                    println!("{:?}", end.result.map(|report| report.latency));
                }
            }
        }
        "watch" => {
            let signs = SignSender::new(|key, sign| {
                println!("{:?} {key} {sign:?}", TokioEnv::mono());
            });
            let redial: u64 = args.get(3).map_or(500, |text| text.parse().unwrap());
            fleet.watch(key.clone(), Duration::from_millis(redial), signs);
            sleep::<TokioEnv>(Duration::from_secs(args[2].parse().unwrap())).await;
            fleet.unwatch(&key);
        }
        "frozen" => {
            let signs = SignSender::new(|key, sign| {
                println!("{:?} {key} {sign:?}", TokioEnv::mono());
            });
            fleet.watch(key.clone(), Duration::from_millis(500), signs);
            sleep::<TokioEnv>(Duration::from_secs(6)).await;
            println!("{:?} fence", TokioEnv::mono());
            fleet.fence_frozen(&key);
            sleep::<TokioEnv>(Duration::from_secs(args[2].parse().unwrap())).await;
        }
        "run" => {
            let (lane, term) = args[2].split_once('@').unwrap_or((&args[2], "1"));
            let lane = match lane {
                "act" => Lane::Act,
                "fence" => Lane::Fence,
                "kill" => Lane::Kill,
                other => panic!("unknown lane {other}"),
            };
            let probe = fleet.probe(key.clone()).await;
            let mariadb = probe
                .result
                .as_ref()
                .is_ok_and(|report| report.flavour.name() == "MariaDB");
            let deadline = args.get(4).map_or(2000, |text| text.parse().unwrap());
            let epoch = Epoch {
                term: term.parse().unwrap(),
                node: NodeId(7),
                boot: 1,
            };
            let step = Step {
                id: StepId(1),
                kind: StepKind::Operate,
                server: key,
                identity: probe.result.ok().map(|report| report.identity.clone()),
                lane,
                statements: args[3]
                    .split(',')
                    .map(|text| statement(text, mariadb))
                    .collect(),
                deadline: Duration::from_millis(deadline),
                read_after: true,
            };
            let began = TokioEnv::mono();
            let end = fleet.run(Uid::default(), epoch, step, Open).await;
            println!("{:#?}", end.report);
            println!(
                "{:?} in {:?} by {:?}",
                end.outcome,
                TokioEnv::mono() - began,
                end.identity
            );
            let linger: u64 = std::env::var("LINGER").map_or(0, |text| text.parse().unwrap());
            sleep::<TokioEnv>(Duration::from_secs(linger)).await;
        }
        other => panic!("unknown verb {other}"),
    }
}
