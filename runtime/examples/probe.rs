//! A developer's look at the fleet adapter on a real server.
//!
//!     probe HOST:PORT [--user U] [--password P] probe [COUNT]
//!     probe HOST:PORT watch SECONDS [REDIAL_MILLISECONDS]
//!     probe HOST:PORT run LANE[@TERM] STATEMENT[,STATEMENT...] [DEADLINE_MILLISECONDS]
//!     probe HOST:PORT frozen SECONDS    watches, and writes the fence after the first pulse
//!
//! Lanes: act, fence, kill. Statements: fence, open, close, kill, stop-io, start-io, stop-sql, start-sql, stop, start,
//! reset, change=HOST:PORT, slave-pos=GTIDS, semi-source=on, semi-replica=off.

use std::process::ExitCode;
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

/// What the command line asks for.
struct Asked {
    settings: ProbeSettings,
    key: InstanceKey,
    verb: Verb,
}

enum Verb {
    Probe {
        count: u32,
    },
    Watch {
        lasts: Duration,
        redial: Duration,
    },
    Frozen {
        lasts: Duration,
    },
    Run {
        lane: Lane,
        term: u64,
        statements: String,
        deadline: Duration,
    },
}

const USAGE: &str = "usage: probe HOST:PORT [OPTIONS] VERB
verbs:
  probe [COUNT]
  watch SECONDS [REDIAL_MILLISECONDS]
  frozen SECONDS
  run LANE[@TERM] STATEMENT[,STATEMENT...] [DEADLINE_MILLISECONDS]
options, each with a value:
  --user (ci) --password (ci) --tls mixed|required --lag-query --credentials-query --alias-query";

/// An argument as a number or the like.
fn parsed<T: std::str::FromStr>(what: &str, text: &str) -> Result<T, String> {
    text.parse().map_err(|_| format!("'{text}' is no {what}"))
}

fn arguments(mut args: Vec<String>) -> Result<Asked, String> {
    let mut option = |name: &str, default: &str| -> Result<String, String> {
        let Some(at) = args.iter().position(|arg| arg == name) else {
            return Ok(default.to_owned());
        };
        if at + 1 >= args.len() {
            return Err(format!("{name} needs a value"));
        }
        let value = args.remove(at + 1);
        args.remove(at);
        Ok(value)
    };
    let text = |text: String| (!text.is_empty()).then_some(text);
    let mut settings = ProbeSettings {
        user: option("--user", "ci")?,
        password: option("--password", "ci")?,
        own_name: OwnName::ReportHost,
        discover_by_show_replicas: true,
        lag_query: text(option("--lag-query", "")?),
        credentials_query: text(option("--credentials-query", "")?),
        tls_skip_verify: true,
        ..ProbeSettings::default()
    };
    settings.detect.cluster_alias = text(option("--alias-query", "")?);
    match option("--tls", "mixed")?.as_str() {
        "mixed" => {}
        "required" => settings.tls = TlsMode::Required,
        other => return Err(format!("--tls is mixed or required, not '{other}'")),
    }
    if let Some(unknown) = args.iter().find(|arg| arg.starts_with("--")) {
        return Err(format!("{unknown} is no option"));
    }
    let mut args = args.into_iter();
    let mut next = |what: &str| args.next().ok_or_else(|| format!("{what} is missing"));
    let key: InstanceKey = parsed("HOST:PORT", &next("HOST:PORT")?)?;
    let milliseconds =
        |text: &str| parsed("number of milliseconds", text).map(Duration::from_millis);
    let seconds = |text: &str| parsed("number of seconds", text).map(Duration::from_secs);
    let verb = match next("the verb")?.as_str() {
        "probe" => Verb::Probe {
            count: next("").map_or(Ok(1), |text| parsed("count", &text))?,
        },
        "watch" => Verb::Watch {
            lasts: seconds(&next("SECONDS")?)?,
            redial: next("").map_or(Ok(Duration::from_millis(500)), |text| milliseconds(&text))?,
        },
        "frozen" => Verb::Frozen {
            lasts: seconds(&next("SECONDS")?)?,
        },
        "run" => {
            let lane = next("LANE")?;
            let (lane, term) = lane.split_once('@').unwrap_or((&lane, "1"));
            Verb::Run {
                lane: match lane {
                    "act" => Lane::Act,
                    "fence" => Lane::Fence,
                    "kill" => Lane::Kill,
                    other => return Err(format!("'{other}' is no lane: act, fence or kill")),
                },
                term: parsed("term", term)?,
                statements: next("STATEMENT")?,
                deadline: next("")
                    .map_or(Ok(Duration::from_secs(2)), |text| milliseconds(&text))?,
            }
        }
        other => return Err(format!("'{other}' is no verb")),
    };
    match args.next() {
        Some(extra) => Err(format!("'{extra}' is too much")),
        None => Ok(Asked {
            settings,
            key,
            verb,
        }),
    }
}

fn statement(text: &str, mariadb: bool) -> Result<Statement, String> {
    let (name, value) = text.split_once('=').unwrap_or((text, ""));
    Ok(match name {
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
            source: parsed("HOST:PORT", value)?,
            position: if mariadb {
                SourcePosition::MariadbSlavePos
            } else {
                SourcePosition::OracleAuto
            },
            options: Vec::new(),
        },
        "slave-pos" => Statement::SetGtidSlavePos {
            position: gtid::GtidSet::parse(gtid::Flavour::Mariadb, value)
                .map_err(|error| format!("'{value}' is no position: {error}"))?,
        },
        "semi-source" => Statement::SemiSyncSource {
            enabled: value == "on",
        },
        "semi-replica" => Statement::SemiSyncReplica {
            enabled: value == "on",
        },
        other => return Err(format!("'{other}' is no statement")),
    })
}

fn main() -> ExitCode {
    let asked = match arguments(std::env::args().skip(1).collect()) {
        Ok(asked) => asked,
        Err(why) => {
            eprintln!("probe: {why}\n{USAGE}");
            return ExitCode::from(2);
        }
    };
    tracing_subscriber::fmt().with_env_filter("debug").init();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .expect("a thread can be started");
    match runtime.block_on(carry_out(asked)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            eprintln!("probe: {why}");
            ExitCode::FAILURE
        }
    }
}

async fn carry_out(asked: Asked) -> Result<(), String> {
    let Asked {
        settings,
        key,
        verb,
    } = asked;
    let fleet = Mysql::<TokioEnv>::new(settings);
    let signs = || {
        SignSender::new(|key, sign| {
            println!("{:?} {key} {sign:?}", TokioEnv::mono());
        })
    };
    match verb {
        Verb::Probe { count } => {
            for turn in 0..count {
                let end = fleet.probe(key.clone()).await;
                if turn == 0 {
                    println!("{end:#?}");
                } else if end.result.is_err() || turn + 1 == count {
                    println!("{:?}", end.result.map(|report| report.latency));
                }
            }
        }
        Verb::Watch { lasts, redial } => {
            fleet.watch(key.clone(), redial, signs());
            sleep::<TokioEnv>(lasts).await;
            fleet.unwatch(&key);
        }
        Verb::Frozen { lasts } => {
            fleet.watch(key.clone(), Duration::from_millis(500), signs());
            sleep::<TokioEnv>(Duration::from_secs(6)).await;
            println!("{:?} fence", TokioEnv::mono());
            fleet.fence_frozen(&Uid::default(), &key);
            sleep::<TokioEnv>(lasts).await;
        }
        Verb::Run {
            lane,
            term,
            statements,
            deadline,
        } => {
            let probe = fleet.probe(key.clone()).await;
            let mariadb = probe
                .result
                .as_ref()
                .is_ok_and(|report| report.flavour.name() == "MariaDB");
            let epoch = Epoch {
                term,
                node: NodeId(7),
                boot: 1,
            };
            let step = Step {
                id: StepId(1),
                kind: StepKind::Operate,
                server: key,
                identity: probe.result.ok().map(|report| report.identity.clone()),
                lane,
                statements: statements
                    .split(',')
                    .map(|text| statement(text, mariadb))
                    .collect::<Result<_, _>>()?,
                deadline,
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
            let linger = std::env::var("LINGER")
                .map_or(Ok(0), |text| parsed("number of seconds for LINGER", &text))?;
            sleep::<TokioEnv>(Duration::from_secs(linger)).await;
        }
    }
    Ok(())
}
