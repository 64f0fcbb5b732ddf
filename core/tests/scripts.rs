//! Scripts of single decisions, with golden output: who is promoted, and whether a server is dead. One script a
//! situation, named by it. `UPDATE_GOLDENFILES=1` writes what is found into them, to be read before it is committed.

use std::{
    collections::{BTreeMap, BTreeSet},
    error::Error,
    path::Path,
    time::Duration,
};

use goldenscript::{ArgumentConsumer, Command, Context, Runner};
use orchestrator_core::{
    analysis::verdict::{ReplicaSigns, Watched, verdict},
    gtid::{self, GtidSet},
    id::{Identity, InstanceKey, NodeId},
    node::{OpinionKind, Sign},
    policy::Policy,
    recovery::candidate::{Choice, Contender, Failed, choose},
    time::Mono,
    topology::{
        Flavour, MissingPrivilege, ProbeReport, PromotionRule, Purpose, ReplicaStatus, ThreadState,
        UsingGtid, Version, WrittenBy,
    },
};

type Failable<T> = Result<T, Box<dyn Error>>;

/// Runs every script of a folder, and says which folder was empty.
fn run_all<R: Runner>(folder: &str, runner: impl Fn() -> R) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/scripts")
        .join(folder);
    let mut scripts: Vec<_> = std::fs::read_dir(&path)
        .expect("the folder of the scripts")
        .map(|entry| entry.expect("an entry of it").path())
        .collect();
    scripts.sort();
    assert!(!scripts.is_empty(), "{} is empty", path.display());
    for script in scripts {
        println!("{}", script.display());
        goldenscript::run(&mut runner(), &script).expect("the script runs");
    }
}

fn number<T: std::str::FromStr>(args: &mut ArgumentConsumer<'_>, key: &str, or: T) -> Failable<T>
where
    T::Err: Error + 'static,
{
    Ok(match args.take_key(key) {
        Some(text) => text.parse()?,
        None => or,
    })
}

#[test]
fn candidate() {
    run_all("candidate", Choosing::default);
}

/// `primary` (without it, it was never read), `replica NAME`, `policy`, then `choose`.
#[derive(Default)]
struct Choosing {
    flavour: Flavour,
    primary: Option<ProbeReport>,
    replicas: BTreeMap<InstanceKey, (ProbeReport, PromotionRule, bool)>,
    downtimed: BTreeSet<InstanceKey>,
    passed_over: BTreeMap<InstanceKey, String>,
    policy: Policy,
}

const PURPOSES: [Purpose; 6] = [
    Purpose::Probe,
    Purpose::Halt,
    Purpose::Fence,
    Purpose::Promote,
    Purpose::Kill,
    Purpose::Credentials,
];

const PRIMARY_ID: u32 = 1;

fn uuid(server_id: u32) -> String {
    format!("{server_id:08x}-0000-0000-0000-000000000000")
}

impl Choosing {
    /// `1-10` is what the primary wrote (on MariaDB, up to the last of it, which `7@1-10` says that server 7 wrote); `own` what the server wrote itself.
    fn set(&self, server_id: u32, text: &str, own: Option<&str>) -> Failable<GtidSet> {
        Ok(if self.flavour == Flavour::Mariadb {
            let last = text.rsplit('-').next().unwrap_or_default();
            let writer = match text.split_once('@') {
                Some((writer, _)) => writer.parse()?,
                None => PRIMARY_ID,
            };
            GtidSet::parse(gtid::Flavour::Mariadb, &format!("0-{writer}-{last}"))?
        } else {
            let own = own.map_or(String::new(), |own| format!(",{}:{own}", uuid(server_id)));
            let text = format!("{}:{text}{own}", uuid(PRIMARY_ID));
            GtidSet::parse(gtid::Flavour::Oracle, &text)?
        })
    }

    fn nothing(&self) -> Failable<GtidSet> {
        let flavour = match self.flavour {
            Flavour::Mariadb => gtid::Flavour::Mariadb,
            _ => gtid::Flavour::Oracle,
        };
        Ok(GtidSet::parse(flavour, "")?)
    }

    fn report(
        &self,
        server_id: u32,
        without_gtid: bool,
        args: &mut ArgumentConsumer<'_>,
    ) -> Failable<ProbeReport> {
        let is_mariadb = self.flavour == Flavour::Mariadb;
        let executed = args.take_key("executed");
        // MySQL shows nothing then; MariaDB counts on.
        let executed = executed.or((is_mariadb || !without_gtid).then_some("1-10"));
        let own = args.take_key("own");
        let mut report = ProbeReport {
            server_id,
            server_uuid: if is_mariadb {
                String::new()
            } else {
                uuid(server_id)
            },
            flavour: self.flavour,
            version: Version::parse(args.take_key("version").unwrap_or(if is_mariadb {
                "10.11.19-MariaDB"
            } else {
                "8.0.36"
            })),
            log_bin: args.take_key("log_bin") != Some("off"),
            log_replica_updates: args.take_key("log_updates") != Some("off"),
            binlog_format: args.take_key("format").unwrap_or("ROW").to_owned(),
            gtid_mode: String::from(match (is_mariadb, without_gtid) {
                (true, _) => "",
                (false, true) => "OFF",
                (false, false) => "ON",
            }),
            executed: Some(match executed {
                Some(executed) => self.set(server_id, executed, own)?,
                None => self.nothing()?,
            }),
            ..ProbeReport::default()
        };
        if is_mariadb {
            report.replicated_gtid.clone_from(&report.executed);
            if let Some(own) = own {
                report.binlog_state = vec![WrittenBy {
                    domain: 0,
                    server_id,
                    sequence: own.rsplit('-').next().unwrap_or_default().parse()?,
                }];
            }
        }
        // What it logged of another server, up to which number: `7@60`.
        if let Some(logged) = args.take_key("logged") {
            let (writer, last) = logged.split_once('@').ok_or("logged is SERVER@NUMBER")?;
            report.binlog_state.push(WrittenBy {
                domain: 0,
                server_id: writer.parse()?,
                sequence: last.parse()?,
            });
        }
        let place = &mut report.classification;
        place.data_center = args.take_key("dc").unwrap_or_default().to_owned();
        place.region = args.take_key("region").unwrap_or_default().to_owned();
        place.physical_environment = args.take_key("environment").unwrap_or_default().to_owned();
        if let Some(grant) = args.take_key("lacks") {
            let purpose = match args.take_key("lacks_to") {
                None => Purpose::Promote,
                Some(name) => *PURPOSES
                    .iter()
                    .find(|purpose| purpose.to_string() == name)
                    .ok_or("no such purpose")?,
            };
            report.missing_privileges = vec![MissingPrivilege {
                purpose,
                grant: grant.to_owned(),
            }];
        }
        Ok(report)
    }

    fn replica(&mut self, args: &mut ArgumentConsumer<'_>) -> Failable<()> {
        let name = args.next_pos().ok_or("a replica has a name")?;
        let server_id = name.trim_start_matches("db").parse()?;
        let received = args.take_key("received");
        let rule = args.take_key("rule").unwrap_or("neutral");
        let rule = PromotionRule::parse(rule).ok_or("no such rule")?;
        let is_ignored = args.take_key("ignored") == Some("yes");
        let delay = number(args, "delay", 0)?;
        let key = InstanceKey::new(name, 3306);
        self.downtimed.remove(&key);
        self.passed_over.remove(&key);
        if args.take_key("downtime") == Some("yes") {
            self.downtimed.insert(key.clone());
        }
        if let Some(why) = args.take_key("passed_over") {
            self.passed_over.insert(key.clone(), why.to_owned());
        }
        let errno = number(args, "sql_errno", 0)?;
        // By file and position, though the server has GTID.
        let by_file = args.take_key("position") == Some("file");
        let without_gtid = args.take_key("gtid") == Some("no");
        let mut report = self.report(server_id, without_gtid, args)?;
        let received = match received {
            Some(text) => Some(self.set(server_id, text, None)?),
            None if without_gtid => Some(self.nothing()?),
            None => report.executed.clone(),
        };
        let is_mariadb = self.flavour == Flavour::Mariadb;
        report.replication = Some(ReplicaStatus {
            source: InstanceKey::new("db1", 3306),
            source_uuid: if is_mariadb {
                String::new()
            } else {
                uuid(PRIMARY_ID)
            },
            io: ThreadState::Stopped,
            sql: if errno == 0 {
                ThreadState::Running
            } else {
                ThreadState::Stopped
            },
            sql_errno: errno,
            sql_error: if errno == 0 {
                String::new()
            } else {
                String::from("an error")
            },
            sql_delay_s: delay,
            relay_log_space: 100_000,
            received,
            auto_position: !is_mariadb && !without_gtid && !by_file,
            using_gtid: if is_mariadb && !without_gtid {
                UsingGtid::SlavePos
            } else {
                UsingGtid::No
            },
            ..ReplicaStatus::default()
        });
        self.replicas.insert(key, (report, rule, is_ignored));
        Ok(())
    }

    fn choice(&self) -> String {
        let contenders: Vec<Contender<'_>> = self
            .replicas
            .iter()
            .map(|(key, (report, rule, ignored))| Contender {
                key,
                report,
                rule: *rule,
                ignored: *ignored,
                is_downtimed: self.downtimed.contains(key),
                passed_over: self.passed_over.get(key).map(String::as_str),
            })
            .collect();
        let failed = Failed {
            report: self.primary.as_ref(),
        };
        match choose(&contenders, failed, &self.policy) {
            Choice::Refuse { reason } => format!("refused: {reason}\n"),
            Choice::Promote {
                candidate,
                equals,
                cannot_follow,
                because,
            } => {
                let mut text = format!("promote {candidate}\n");
                for line in because {
                    text.push_str(&format!("  {line}\n"));
                }
                if !equals.is_empty() {
                    let equals: Vec<String> = equals.iter().map(ToString::to_string).collect();
                    text.push_str(&format!("  next: {}\n", equals.join(", ")));
                }
                for (key, why) in cannot_follow {
                    text.push_str(&format!("  {key} cannot follow: {why}\n"));
                }
                text
            }
        }
    }
}

impl Runner for Choosing {
    type Command = Command;

    fn run(&mut self, command: &Command, _context: &Context) -> Failable<String> {
        let mut args = command.consume_args();
        let mut output = String::new();
        match command.name.as_str() {
            "primary" => {
                if args.take_key("flavour") == Some("mariadb") {
                    self.flavour = Flavour::Mariadb;
                }
                let without_gtid = args.take_key("gtid") == Some("no");
                self.primary = Some(self.report(PRIMARY_ID, without_gtid, &mut args)?);
            }
            "replica" => self.replica(&mut args)?,
            "policy" => {
                self.policy.prevent_cross_data_center = args.take_key("stay_in_dc") == Some("yes");
                self.policy.prevent_cross_region = args.take_key("stay_in_region") == Some("yes");
                self.policy.fail_promotion_if_not_applied =
                    args.take_key("fail_unapplied") == Some("yes");
            }
            "choose" => output = self.choice(),
            other => return Err(format!("no command {other}").into()),
        }
        args.reject_next()?;
        Ok(output)
    }
}

#[test]
fn the_verdict() {
    run_all("verdict", Judging::default);
}

/// `sign MS NAME` and `opinion MS` for one daemon's evidence; `verdict` joins opinions.
#[derive(Default)]
struct Judging {
    watched: Watched,
    policy: Policy,
}

fn at(args: &mut ArgumentConsumer<'_>) -> Failable<Mono> {
    let milliseconds: u64 = args.next_pos().ok_or("a time is missing")?.parse()?;
    Ok(Mono::from_nanos(milliseconds * 1_000_000))
}

fn sign(name: &str) -> Failable<Sign> {
    let this = || Identity(String::from("this"));
    Ok(match name {
        "up" => Sign::PulseUp(this()),
        "other-up" => Sign::PulseUp(Identity(String::from("other"))),
        "beat" => Sign::PulseBeat,
        "closed" => Sign::PulseClosed,
        "shutdown" => Sign::PulseShutdown,
        "late" => Sign::PulseLate,
        "silent" => Sign::PulseSilent,
        "refused" => Sign::DialRefused,
        "unreachable" => Sign::DialUnreachable,
        "no-login" => Sign::DialNoLogin,
        "answered" => Sign::DialAnswered(this()),
        error => Sign::DialError(error.parse().map_err(|_| format!("no sign {error}"))?),
    })
}

fn kind(name: &str) -> Failable<OpinionKind> {
    Ok(match name {
        "alive" => OpinionKind::Alive,
        "suspect" => OpinionKind::Suspect,
        "gone" => OpinionKind::Gone,
        "leaving" => OpinionKind::Leaving,
        "silent" => OpinionKind::Silent,
        "abstain" => OpinionKind::Abstain,
        other => return Err(format!("no opinion {other}").into()),
    })
}

impl Runner for Judging {
    type Command = Command;

    fn run(&mut self, command: &Command, _context: &Context) -> Failable<String> {
        let mut args = command.consume_args();
        let mut output = String::new();
        match command.name.as_str() {
            "policy" => {
                self.policy.gone_patience = Duration::from_millis(number(&mut args, "gone_ms", 0)?);
                self.policy.planned_stop_patience =
                    Duration::from_secs(number(&mut args, "planned_stop_s", 15)?);
                self.policy.witness_quorum = number(&mut args, "quorum", 0)?;
            }
            "sign" => {
                let at = at(&mut args)?;
                let sign = sign(args.next_pos().ok_or("a sign is missing")?)?;
                if self.watched.sign(at, &sign) {
                    output = String::from("another server\n");
                }
            }
            "opinion" => {
                let at = at(&mut args)?;
                let is_credible = args.take_key("late") != Some("yes");
                let opinion = self.watched.opinion(at, &self.policy, is_credible, false);
                output = format!("{opinion:?}\n");
            }
            "verdict" => {
                let voters: u64 = number(&mut args, "voters", 3)?;
                let replicas = ReplicaSigns {
                    read: number(&mut args, "read", 3)?,
                    unread: number(&mut args, "unread", 0)?,
                    io_running: number(&mut args, "io_running", 0)?,
                    io_growing: number(&mut args, "io_growing", 0)?,
                    ran_on: args.take_key("ran_on") == Some("yes"),
                };
                let mut opinions = BTreeMap::new();
                for voter in 1..=voters {
                    if let Some(name) = args.next_pos() {
                        opinions.insert(NodeId(voter), kind(name)?);
                    }
                }
                let voters: Vec<NodeId> = (1..=voters).map(NodeId).collect();
                let found = verdict(&opinions, &voters, replicas, Duration::ZERO, &self.policy);
                output = format!("{found:?}\n");
            }
            other => return Err(format!("no command {other}").into()),
        }
        args.reject_next()?;
        Ok(output)
    }
}
