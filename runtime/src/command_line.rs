//! The command line: what is asked of the program, in the flags that the original's scripts and unit files give.
//!
//! Decides what was meant, and what to answer where this program does not do it. Does nothing itself: reads no file, opens
//! no database. A flag has one dash or two, and its value behind `=` or a blank; the last of two equal ones counts.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::error::ErrorKind;
use clap::{Arg, ArgAction, ArgMatches, Command};

use crate::config::{Address, LogFormat, RaftSettings, Settings};
use crate::forced::{CHANGES, LOOKS, Said};
use crate::http::VERSION;
use crate::http::routes::{Action, ROUTES};

/// The commit that the program was built from, where the build names it.
const COMMIT: Option<&str> = option_env!("ORCHESTRATOR_COMMIT");

/// What stands behind a flag.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Takes {
    Text,
    /// Nothing, or `=true` or `=false`; this when the flag is not given.
    Truth(bool),
}

/// For whom a flag is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum For {
    /// Obeyed.
    Us,
    /// Means nothing to the daemon; accepted, because unit files and scripts give it.
    Nobody,
    /// The daemon cannot do what it asks, and says so; with what to do instead.
    Refused(&'static str),
    /// Belongs to a command.
    Commands,
}

/// All flags, with what the help says of them.
const FLAGS: &[(&str, Takes, For, &str)] = &[
    (
        "config",
        Takes::Text,
        For::Us,
        "configuration file; otherwise those of the standard places, one laid over the other",
    ),
    ("debug", Takes::Truth(false), For::Us, "log everything"),
    (
        "quiet",
        Takes::Truth(false),
        For::Us,
        "log errors only; wins over the others",
    ),
    ("verbose", Takes::Truth(false), For::Nobody, "the default"),
    (
        "stack",
        Takes::Truth(false),
        For::Nobody,
        "accepted without an effect",
    ),
    (
        "log-format",
        Takes::Text,
        For::Us,
        "text or json; otherwise LogFormat of the configuration",
    ),
    (
        "version",
        Takes::Truth(false),
        For::Us,
        "print version and commit",
    ),
    (
        "c",
        Takes::Text,
        For::Us,
        "a command that looks at this daemon's backend alone, or (forced) writes there; for all others see orchestrator-client",
    ),
    (
        "ignore-raft-setup",
        Takes::Truth(false),
        For::Us,
        "let a command look at this daemon's backend, or write to it alone, whatever the others know",
    ),
    (
        "discovery",
        Takes::Truth(true),
        For::Refused("a daemon that only serves is not there: leave it out"),
        "must be true",
    ),
    (
        "noop",
        Takes::Truth(false),
        For::Refused("set \"ObserveOnly\": true in the configuration"),
        "must be false",
    ),
    (
        "grab-election",
        Takes::Truth(false),
        For::Nobody,
        "accepted without an effect",
    ),
    (
        "skip-continuous-registration",
        Takes::Truth(false),
        For::Nobody,
        "accepted without an effect",
    ),
    (
        "enable-database-update",
        Takes::Truth(false),
        For::Nobody,
        "accepted without an effect",
    ),
    ("with", Takes::Text, For::Commands, "raft form: the nodes"),
    ("from-raft-dir", Takes::Truth(false), For::Commands, ""),
    ("from-backend", Takes::Truth(false), For::Commands, ""),
    ("from-file", Takes::Text, For::Commands, ""),
    ("yes", Takes::Truth(false), For::Commands, "raft recover"),
    ("i", Takes::Text, For::Commands, "instance"),
    ("d", Takes::Text, For::Commands, "destination"),
    ("s", Takes::Text, For::Commands, "the same as d"),
    ("owner", Takes::Text, For::Commands, ""),
    ("reason", Takes::Text, For::Commands, ""),
    ("duration", Takes::Text, For::Commands, ""),
    ("pattern", Takes::Text, For::Commands, ""),
    ("alias", Takes::Text, For::Commands, ""),
    ("pool", Takes::Text, For::Commands, ""),
    ("hostname", Takes::Text, For::Commands, ""),
    ("tag", Takes::Text, For::Commands, ""),
    ("binlog", Takes::Text, For::Commands, ""),
    ("statement", Takes::Text, For::Commands, ""),
    ("promotion-rule", Takes::Text, For::Commands, ""),
    ("strict", Takes::Truth(false), For::Commands, ""),
    ("skip-binlog-search", Takes::Truth(false), For::Commands, ""),
    ("skip-unresolve", Takes::Truth(false), For::Commands, ""),
    (
        "skip-unresolve-check",
        Takes::Truth(false),
        For::Commands,
        "",
    ),
];

/// What the command line says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Arguments {
    pub config: Option<PathBuf>,
    /// `error` or `debug`, where one was asked for.
    pub level: Option<&'static str>,
    pub log_format: Option<LogFormat>,
    pub wish: Wish,
    /// Flags that were given and mean nothing to the daemon.
    pub ignored: Vec<&'static str>,
}

/// What a cluster is recovered from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Memory {
    RaftDirectory,
    /// What `raft export` wrote.
    File(PathBuf),
    /// What people said, of the backend's rows.
    Backend,
}

/// What is to be done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Wish {
    /// `http`
    Serve,
    /// Text for standard output, and nothing else.
    Print(String),
    /// `raft form --with A,B`
    Form { with: String },
    /// `raft export FILE`
    Export { file: PathBuf },
    /// `raft recover --from-raft-dir | --from-file FILE | --from-backend`
    Recover {
        from: Memory,
        /// `--yes`; else it is only said what would be done.
        is_meant: bool,
    },
    /// `raft init-certs DIRECTORY HOST...`
    InitCertificates { folder: PathBuf, hosts: Vec<String> },
    /// `-c COMMAND`, `cli`, or `help`: needs the configuration to be answered.
    Command {
        name: String,
        /// In a raft set-up too.
        forced: bool,
        said: Said,
    },
}

/// What a command comes to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Judged {
    /// Text for standard output, and nothing else.
    Print(String),
    /// The backend is to be looked at, or written to, by the command of this canonical name.
    Run(String),
}

/// Why a command line is not obeyed, as text for standard error, and the exit code.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refused {
    pub text: String,
    pub code: u8,
}

impl Refused {
    fn new(text: impl Into<String>) -> Refused {
        Refused {
            text: text.into(),
            code: 1,
        }
    }
}

/// Reads the words behind the program's name.
///
/// # Errors
/// What is wrong with them; exit code 2 for a flag that is not there, and 0 for the help.
pub fn parse(words: impl IntoIterator<Item = OsString>) -> Result<Arguments, Refused> {
    let words: Vec<String> = words
        .into_iter()
        .map(|word| word.to_string_lossy().into_owned())
        .collect();
    let matches = grammar()
        .try_get_matches_from(double_dashed(words))
        .map_err(|error| Refused {
            text: error.to_string(),
            code: match error.kind() {
                ErrorKind::DisplayHelp => 0,
                _ => 2,
            },
        })?;
    read(&matches)
}

fn grammar() -> Command {
    let mut grammar = Command::new("orchestrator")
        .about("Keeps fleets of MySQL and MariaDB servers writable.")
        .override_usage("orchestrator [flags] http")
        .after_help(format!("What may be typed:\n{}", cheat_sheet()))
        .no_binary_name(true)
        .disable_help_flag(true)
        .disable_version_flag(true)
        .args_override_self(true)
        .arg(
            Arg::new("help")
                .long("help")
                .alias("h")
                .action(ArgAction::Help)
                .help("print this text"),
        )
        .arg(Arg::new("words").num_args(0..).hide(true));
    for (name, takes, whose, help) in FLAGS {
        let flag = Arg::new(*name).long(*name).help(*help);
        let flag = flag.hide(matches!(whose, For::Commands | For::Nobody));
        grammar = grammar.arg(match takes {
            Takes::Text => flag.action(ArgAction::Set).allow_hyphen_values(true),
            Takes::Truth(_) => flag
                .action(ArgAction::Set)
                .num_args(0..=1)
                .require_equals(true)
                .default_missing_value("true")
                .hide_possible_values(true)
                .value_parser(truth),
        });
    }
    grammar
}

/// The spellings of truth that the original takes.
fn truth(text: &str) -> Result<bool, String> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Ok(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Ok(false),
        _ => Err(String::from("neither true nor false")),
    }
}

/// Every flag with two dashes, and a text joined to its flag, so that a text may begin with a dash.
fn double_dashed(words: Vec<String>) -> Vec<String> {
    let mut spelled = Vec::with_capacity(words.len());
    let mut words = words.into_iter();
    while let Some(word) = words.next() {
        let Some(flag) = word.strip_prefix('-').filter(|flag| !flag.is_empty()) else {
            spelled.push(word);
            continue;
        };
        let flag = flag.strip_prefix('-').unwrap_or(flag);
        if flag.is_empty() {
            spelled.push(word);
            spelled.extend(words);
            return spelled;
        }
        let takes_text = FLAGS
            .iter()
            .any(|(name, takes, _, _)| *name == flag && *takes == Takes::Text);
        match takes_text.then(|| words.next()).flatten() {
            Some(text) => spelled.push(format!("--{flag}={text}")),
            None => spelled.push(format!("--{flag}")),
        }
    }
    spelled
}

fn read(matches: &ArgMatches) -> Result<Arguments, Refused> {
    let text = |name: &str| matches.get_one::<String>(name).cloned();
    let is_true = |name: &str| matches.get_one::<bool>(name).copied().unwrap_or(false);
    if let Some(rule) = text("promotion-rule")
        && !["prefer", "neutral", "prefer_not", "must_not"].contains(&rule.as_str())
    {
        return Err(Refused::new(format!(
            "promotion-rule {rule}: it is prefer, neutral, prefer_not or must_not"
        )));
    }
    let log_format = match text("log-format").as_deref() {
        None => None,
        Some("text") => Some(LogFormat::Text),
        Some("json") => Some(LogFormat::Json),
        Some(other) => {
            return Err(Refused::new(format!(
                "log-format {other}: it is text or json"
            )));
        }
    };
    let wish = if is_true("version") {
        Wish::Print(format!("{VERSION}\n{}\n", COMMIT.unwrap_or("unknown")))
    } else {
        let words: Vec<String> = matches
            .get_many::<String>("words")
            .map(|words| words.cloned().collect())
            .unwrap_or_default();
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        match words.as_slice() {
            ["raft", "form"] => Wish::Form {
                with: text("with").unwrap_or_default(),
            },
            ["raft", "recover"] => Wish::Recover {
                from: memory(
                    is_true("from-raft-dir"),
                    text("from-file"),
                    is_true("from-backend"),
                )?,
                is_meant: is_true("yes"),
            },
            ["raft", "export", file] => Wish::Export {
                file: PathBuf::from(file),
            },
            ["raft", "export", ..] => {
                return Err(Refused::new(
                    "raft export needs the name of the file that it is to make: orchestrator raft export FILE",
                ));
            }
            ["raft", "init-certs", folder, hosts @ ..] if !hosts.is_empty() => {
                Wish::InitCertificates {
                    folder: PathBuf::from(folder),
                    hosts: hosts.iter().map(|host| String::from(*host)).collect(),
                }
            }
            ["raft", "init-certs", ..] => {
                return Err(Refused::new(
                    "raft init-certs needs a directory and the hosts of RaftAdvertise: orchestrator raft init-certs certs node1 \
                     node2 node3",
                ));
            }
            words => {
                let given = |name: &str| text(name).unwrap_or_default();
                let said = Said {
                    instance: given("i"),
                    alias: given("alias"),
                    pattern: given("pattern"),
                    tag: given("tag"),
                    owner: given("owner"),
                    reason: given("reason"),
                    duration: given("duration"),
                    promotion_rule: given("promotion-rule"),
                };
                wish(words, text("c"), is_true("ignore-raft-setup"), said)?
            }
        }
    };
    let mut ignored = Vec::new();
    if wish == Wish::Serve {
        for (name, takes, whose, _) in FLAGS {
            let differs = match takes {
                Takes::Text => matches.contains_id(name),
                Takes::Truth(normal) => {
                    matches.get_one::<bool>(name).is_some_and(|is| is != normal)
                }
            };
            match (whose, differs) {
                (_, false) | (For::Us, true) => {}
                (For::Refused(instead), true) => {
                    return Err(Refused::new(format!("--{name} is not obeyed: {instead}")));
                }
                (For::Nobody | For::Commands, true) => ignored.push(*name),
            }
        }
    }
    Ok(Arguments {
        config: text("config").map(PathBuf::from),
        level: match (is_true("quiet"), is_true("debug")) {
            (true, _) => Some("error"),
            (false, true) => Some("debug"),
            (false, false) => None,
        },
        log_format,
        wish,
        ignored,
    })
}

/// The one memory that was named.
fn memory(raft_directory: bool, file: Option<String>, backend: bool) -> Result<Memory, Refused> {
    match (raft_directory, file, backend) {
        (true, None, false) => Ok(Memory::RaftDirectory),
        (false, Some(file), false) if !file.is_empty() => Ok(Memory::File(PathBuf::from(file))),
        (false, None, true) => Ok(Memory::Backend),
        _ => Err(Refused::new(
            "raft recover needs one of these: --from-raft-dir, which keeps everything, or, where no raft directory is left, \
             --from-file FILE, made by raft export, or else --from-backend",
        )),
    }
}

fn wish(
    words: &[&str],
    command: Option<String>,
    forced: bool,
    said: Said,
) -> Result<Wish, Refused> {
    match (words, command) {
        (["http"], _) => Ok(Wish::Serve),
        (["help", topic], _) => Err(Refused::new(format!(
            "{topic}: there is no help on single topics; `orchestrator-client -c help` describes the commands of the client"
        ))),
        (["help"], _) => Ok(Wish::Command {
            name: String::from("help"),
            forced,
            said,
        }),
        ([] | ["cli"], Some(name)) => Ok(Wish::Command { name, forced, said }),
        (["cli"], None) => Ok(Wish::Command {
            name: String::new(),
            forced,
            said,
        }),
        ([], None) => Ok(Wish::Print(cheat_sheet())),
        (other, _) => Err(Refused::new(format!(
            "'{}' is not a mode of this program.\n{}",
            other.join(" "),
            cheat_sheet()
        ))),
    }
}

fn cheat_sheet() -> String {
    String::from(
        "orchestrator --config FILE http     run the daemon\n\
         orchestrator --help                 all flags\n\
         orchestrator --version\n\
         orchestrator raft form --with A,B   form the cluster without the missing nodes\n\
         orchestrator raft export FILE       write the replicated state of this machine's daemon to a file\n\
         orchestrator raft recover --from-raft-dir | --from-file FILE | --from-backend [--yes]\n\
         \x20                                   when a majority is lost for good: make another cluster of what is left\n\
         orchestrator raft init-certs DIRECTORY HOST...\n\
         \x20                                   make certificates for the raft port\n\
         orchestrator-client -c help         commands, by way of a running daemon's HTTP API\n",
    )
}

/// What is said to a command. Those that look are carried out, and few that write, if they are forced.
///
/// # Errors
/// In a raft set-up a command would go behind the other daemons' backs; and commands that change something are not there.
pub fn answer_command(name: &str, forced: bool, settings: &Settings) -> Result<Judged, Refused> {
    if settings.raft.is_some() && !forced {
        return Err(Refused::new(raft_refusal(settings)));
    }
    if name == "help" {
        return Ok(Judged::Print(cheat_sheet()));
    }
    let canonical = canonical(name);
    if LOOKS.contains(&canonical.as_str()) || forced && CHANGES.contains(&canonical.as_str()) {
        return Ok(Judged::Run(canonical));
    }
    let known = COMMANDS
        .iter()
        .find(|(known, _)| known.split(' ').any(|known| known == canonical));
    let Some((_, instead)) = known else {
        return Err(Refused::new(format!(
            "Unknown command: \"{name}\". Nothing was done.\n{}",
            cheat_sheet()
        )));
    };
    let instead = match instead {
        Instead::Client => format!("ask a running daemon: orchestrator-client -c {canonical}"),
        Instead::ClientAs(command) => {
            format!("ask a running daemon: orchestrator-client -c {command}")
        }
        Instead::Api => api_instead(&canonical),
        Instead::Nothing => String::from("there is nothing in its place so far"),
    };
    Err(Refused::new(format!(
        "the command {name} is not there, and nothing was done: this command line looks, since running daemons would not see \
         what it changes in a backend, and drop it when they write it anew (--ignore-raft-setup has it write all the same, for: \
         {}); {instead}",
        CHANGES.join(", ")
    )))
}

fn raft_refusal(settings: &Settings) -> String {
    let port = settings
        .listen
        .address
        .as_ref()
        .map_or(3000, |address| address.port);
    let scheme = if settings.http_tls.enabled {
        "https"
    } else {
        "http"
    };
    let prefix = &settings.listen.url_prefix;
    let api_of = |raft: &RaftSettings, node: &Address| match &raft.http_advertise {
        // Where the others' API is only their own files say.
        Some(own) if *node == raft.advertise => format!("{own}{prefix}"),
        _ if node.host.contains(':') => format!("{scheme}://[{}]:{port}{prefix}", node.host),
        _ => format!("{scheme}://{}:{port}{prefix}", node.host),
    };
    let apis: Vec<String> = settings
        .raft
        .iter()
        .flat_map(|raft| raft.nodes.iter().map(move |node| api_of(raft, node)))
        .collect();
    format!(
        "the configuration has RaftEnabled: a command would go to this one daemon's database, and the others would not \
         know of it. Nothing was done. Go through the API of the leader, with the same commands:\n    \
         ORCHESTRATOR_API=\"{}\" orchestrator-client -c COMMAND ...\n\
         --ignore-raft-setup lifts this for commands that look, best on the leader's machine, and for some that then write to \
         this one database and reach no daemon.",
        apis.join(" ")
    )
}

/// The paths of the API that have the command's name.
fn api_instead(name: &str) -> String {
    let of_command = |path: &str| path.split('/').nth(2) == Some(name);
    let route = ROUTES.iter().find(|route| of_command(route.path));
    match route {
        Some(route) if route.action == Action::NotServed => {
            format!("{} of the API is not there so far either", route.path)
        }
        Some(route) => format!("ask a running daemon for {}", route.path),
        None => String::from("there is nothing in its place so far"),
    }
}

/// The name that a command goes by, of its old name.
fn canonical(name: &str) -> String {
    match name {
        "enslave-siblings" => String::from("take-siblings"),
        "enslave-master" => String::from("take-master"),
        "relocate-below" => String::from("relocate"),
        _ => name.replacen("slave", "replica", 1),
    }
}

/// The original's commands by their canonical names.
pub fn command_names() -> impl Iterator<Item = &'static str> {
    let others = COMMANDS
        .iter()
        .flat_map(|(names, _)| names.split_whitespace());
    LOOKS.iter().copied().chain(others)
}

/// Where the same is had.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Instead {
    /// The client has a command of the same name.
    Client,
    ClientAs(&'static str),
    /// The API may have a route of the same name.
    Api,
    Nothing,
}

/// Those that are not there, by their canonical names.
const COMMANDS: &[(&str, Instead)] = &[
    (
        "relocate relocate-replicas take-siblings move-up move-up-replicas move-below move-equivalent repoint \
         repoint-replicas take-master make-co-master move-gtid move-replicas-gtid match match-up match-up-replicas",
        Instead::Client,
    ),
    (
        "gtid-errant-reset-master skip-query stop-replica start-replica restart-replica reset-replica \
         detach-replica reattach-replica detach-replica-master-host reattach-replica-master-host enable-semi-sync-master \
         disable-semi-sync-master enable-semi-sync-replica disable-semi-sync-replica restart-replica-statements \
         change-master-credentials can-replicate-from set-read-only set-writeable \
         flush-binary-logs purge-binary-logs last-pseudo-gtid locate-gtid-errant",
        Instead::Client,
    ),
    (
        "submit-pool-instances which-heuristic-cluster-pool-instances which-cluster-osc-replicas \
         submit-masters-to-kv-stores tag untag untag-all discover forget begin-maintenance end-maintenance begin-downtime \
         end-downtime",
        Instead::Client,
    ),
    (
        "recover force-master-failover force-master-takeover graceful-master-takeover graceful-master-takeover-auto \
         ack-all-recoveries ack-cluster-recoveries register-candidate register-hostname-unresolve \
         deregister-hostname-unresolve snapshot-topologies disable-global-recoveries enable-global-recoveries",
        Instead::Client,
    ),
    (
        "ack-instance-recoveries",
        Instead::ClientAs("api -P 'ack-recovery/instance/HOST/PORT?comment=WHY'"),
    ),
    ("instance-status", Instead::ClientAs("topology")),
    (
        "regroup-replicas regroup-replicas-bls regroup-replicas-gtid regroup-replicas-pgtid match-replicas enable-gtid \
         disable-gtid cluster-pool-instances in-maintenance recover-lite bulk-promotion-rules resolve \
         reset-hostname-resolve-cache",
        Instead::Api,
    ),
    (
        "get-candidate-replica rematch master-pos-wait last-executed-relay-entry correlate-relaylog-pos find-binlog-entry \
         correlate-binlog-pos which-heuristic-domain-instance which-cluster-gh-ost-replicas \
         set-heuristic-domain-instance continuous active-nodes access-token dump-config show-resolve-hosts \
         show-unresolve-hosts redeploy-internal-db internal-suggest-promoted-replacement custom-command",
        Instead::Nothing,
    ),
];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::parse_files;

    fn parsed(line: &str) -> Result<Arguments, Refused> {
        parse(line.split_whitespace().map(OsString::from))
    }

    #[test]
    fn the_daemon_is_started_by_every_spelling() {
        for line in [
            "--config /etc/o.json --debug http",
            "-config /etc/o.json -debug http",
            "-config=/etc/o.json -debug=true http",
            "--debug=1 --config=/x --config=/etc/o.json http",
            "http -debug -config /etc/o.json",
        ] {
            let arguments = parsed(line).unwrap();
            let wanted = Arguments {
                config: Some(PathBuf::from("/etc/o.json")),
                level: Some("debug"),
                log_format: None,
                wish: Wish::Serve,
                ignored: Vec::new(),
            };
            assert_eq!(arguments, wanted, "{line}");
        }
        let arguments =
            parsed("-quiet --debug -log-format json -verbose=false -discovery=true http").unwrap();
        assert_eq!(arguments.level, Some("error"));
        assert_eq!(arguments.log_format, Some(LogFormat::Json));
        let arguments = parsed("-verbose -stack --grab-election -i x -debug=F http").unwrap();
        assert_eq!(arguments.level, None);
        assert_eq!(
            arguments.ignored,
            ["verbose", "stack", "grab-election", "i"]
        );
    }

    #[test]
    fn every_flag_of_the_original_is_parsed() {
        for (name, takes, _, _) in FLAGS {
            let line = match (*name, takes) {
                ("version", _) => continue,
                ("log-format", _) => format!("-{name} json -c x"),
                ("promotion-rule", _) => format!("-{name} must_not -c x"),
                (_, Takes::Text) => format!("-c x -{name} -odd-text -c x"),
                (_, Takes::Truth(_)) => format!("-{name} --{name}=false -c x"),
            };
            let arguments = parsed(&line).unwrap();
            let is_command = matches!(&arguments.wish, Wish::Command { name, .. } if name == "x");
            assert!(is_command, "{line}: {arguments:?}");
        }
    }

    #[test]
    fn what_is_wrong_is_said() {
        for (line, code, text) in [
            ("-colour http", 2, "unexpected argument '--colour'"),
            ("-debug=perhaps http", 2, "neither true nor false"),
            ("-c", 2, "a value is required"),
            ("-h", 0, "Usage: orchestrator [flags] http"),
            ("--help", 0, "--log-format"),
            ("--help", 0, "orchestrator raft export FILE"),
            ("--help", 0, "--from-file FILE"),
            (
                "-discovery=false http",
                1,
                "--discovery is not obeyed: a daemon that only serves is not there",
            ),
            ("--noop http", 1, "set \"ObserveOnly\": true"),
            (
                "-promotion-rule must -c x",
                1,
                "prefer, neutral, prefer_not or must_not",
            ),
            ("-log-format xml http", 1, "it is text or json"),
            ("dance", 1, "'dance' is not a mode"),
            ("http x", 1, "'http x' is not a mode"),
            ("help relocate", 1, "orchestrator-client -c help"),
        ] {
            let refused = parsed(line).unwrap_err();
            assert_eq!(refused.code, code, "{line}: {}", refused.text);
            assert!(refused.text.contains(text), "{line}: {}", refused.text);
        }
    }

    #[test]
    fn the_verbs_of_a_raft_cluster_in_need() {
        let form = Wish::Form {
            with: String::from("a,b"),
        };
        assert_eq!(parsed("raft form --with a,b").unwrap().wish, form);
        assert_eq!(parsed("-with=a,b raft form").unwrap().wish, form);
        for (line, is_meant) in [("", false), (" --yes", true)] {
            for (word, from) in [
                ("--from-raft-dir", Memory::RaftDirectory),
                ("--from-file kept", Memory::File(PathBuf::from("kept"))),
                ("--from-backend", Memory::Backend),
            ] {
                let line = format!("raft recover {word}{line}");
                let wish = Wish::Recover { from, is_meant };
                assert_eq!(parsed(&line).unwrap().wish, wish);
            }
            let made = Wish::InitCertificates {
                folder: PathBuf::from("certs"),
                hosts: vec![String::from("node1"), String::from("::1")],
            };
            assert_eq!(
                parsed("raft init-certs certs node1 ::1").unwrap().wish,
                made
            );
            assert!(parsed("raft init-certs certs").is_err());
        }
        let refused = parsed("raft recover").unwrap_err();
        assert!(refused.text.contains("needs one of these: --from-raft-dir"));
        for two in [
            "--from-raft-dir --from-backend",
            "--from-raft-dir --from-file kept",
            "--from-file kept --from-backend",
        ] {
            assert!(parsed(&format!("raft recover {two}")).is_err(), "{two}");
        }
        assert!(parsed("raft recover --from-file").is_err());
        let export = Wish::Export {
            file: PathBuf::from("kept"),
        };
        assert_eq!(parsed("raft export kept").unwrap().wish, export);
        assert!(parsed("raft export").is_err());
    }

    #[test]
    fn the_version_is_two_lines() {
        for line in ["-version", "--version http", "-version -c relocate"] {
            let Wish::Print(text) = parsed(line).unwrap().wish else {
                panic!("{line}");
            };
            assert_eq!(text.lines().count(), 2);
            assert!(text.starts_with(env!("CARGO_PKG_VERSION")), "{text}");
        }
    }

    fn settings(text: &str) -> Settings {
        let loaded = parse_files(&[("o.json", text.as_bytes())], &|_| None);
        loaded.expect("a configuration").settings
    }

    fn answered(line: &str, settings: &Settings) -> Result<Judged, Refused> {
        match parsed(line).unwrap().wish {
            Wish::Command { name, forced, .. } => answer_command(&name, forced, settings),
            other @ (Wish::Serve
            | Wish::Print(_)
            | Wish::Form { .. }
            | Wish::Export { .. }
            | Wish::Recover { .. }
            | Wish::InitCertificates { .. }) => {
                panic!("{line}: {other:?}")
            }
        }
    }

    /// Whoever looks for a command that the client has not finds it there.
    #[test]
    fn the_readme_lists_what_the_client_has_not() {
        let readme = include_str!("../../README.md");
        for (names, instead) in COMMANDS {
            for name in names.split_whitespace() {
                let is_listed = readme.contains(&format!("`{name}`"));
                assert!(matches!(instead, Instead::Client) || is_listed, "{name}");
            }
        }
    }

    #[test]
    fn a_raft_set_up_refuses_every_command() {
        let raft = settings(
            r#"{"BackendDB": "sqlite", "SQLite3DataFile": "/x/o.db", "RaftEnabled": true, "RaftDataDir": "/x", "RaftBind": "10.0.0.1",
                "RaftNodes": ["10.0.0.1", "10.0.0.2", "10.0.0.3"], "ListenAddress": ":3333"}"#,
        );
        for line in [
            "-c clusters",
            "-c relocate -i a -d b",
            "-c nonsense",
            "-c help",
            "help",
            "cli",
        ] {
            let refused = answered(line, &raft).unwrap_err();
            assert_eq!(refused.code, 1);
            for part in [
                "RaftEnabled",
                "Nothing was done",
                "ORCHESTRATOR_API=\"http://10.0.0.1:3333 http://10.0.0.2:3333 http://10.0.0.3:3333\" orchestrator-client -c",
                "--ignore-raft-setup",
            ] {
                assert!(refused.text.contains(part), "{line}: {}", refused.text);
            }
        }
        let elsewhere = settings(
            r#"{"BackendDB": "sqlite", "SQLite3DataFile": "/x/o.db", "RaftEnabled": true, "RaftDataDir": "/x", "RaftBind": "10.0.0.1",
                "RaftNodes": ["10.0.0.1", "::2"], "HTTPAdvertise": "https://o1.example.com:444", "URLPrefix": "/o",
                "UseSSL": true, "SSLCertFile": "/x/c", "SSLPrivateKeyFile": "/x/k"}"#,
        );
        let refused = answered("-c clusters", &elsewhere).unwrap_err();
        let named = "ORCHESTRATOR_API=\"https://o1.example.com:444/o https://[::2]:3000/o\" ";
        assert!(refused.text.contains(named), "{}", refused.text);
        let refused = answered("-ignore-raft-setup -c forget -i a", &raft).unwrap_err();
        assert!(
            refused.text.contains("running daemons would not see"),
            "{}",
            refused.text
        );
        assert_eq!(
            answered("-ignore-raft-setup -c which-slaves -i a", &raft),
            Ok(Judged::Run(String::from("which-replicas")))
        );
        for change in CHANGES {
            let judged = answered(&format!("-ignore-raft-setup -c {change} -i a"), &raft);
            assert_eq!(judged, Ok(Judged::Run(String::from(*change))));
        }
        assert!(answered("-ignore-raft-setup help", &raft).is_ok());
    }

    #[test]
    fn a_command_says_where_the_same_is_had() {
        let alone = settings(r#"{"BackendDB": "sqlite", "SQLite3DataFile": "/x/o.db"}"#);
        for (line, text) in [
            (
                "-c relocate",
                "register-candidate, tag, untag); ask a running daemon: orchestrator-client -c relocate",
            ),
            (
                "-c begin-downtime -i a",
                "drop it when they write it anew (--ignore-raft-setup",
            ),
            (
                "-c stop-slave",
                "the command stop-slave is not there, and nothing was done",
            ),
            (
                "-c enslave-siblings",
                "orchestrator-client -c take-siblings",
            ),
            ("-c regroup-slaves", "/api/regroup-replicas/:host/:port"),
            ("-c dump-config", "there is nothing in its place so far"),
            ("-c dance", "Unknown command: \"dance\""),
            ("cli", "Unknown command: \"\""),
        ] {
            let refused = answered(line, &alone).unwrap_err();
            assert_eq!(refused.code, 1);
            assert!(refused.text.contains(text), "{line}: {}", refused.text);
        }
    }

    /// The client that stands beside this program has what is said of it.
    #[test]
    fn the_client_has_the_commands_that_are_recommended() {
        let script = include_str!("../packaging/bin/orchestrator-client");
        let listed: Vec<&str> = script
            .lines()
            .filter_map(|line| line.split_once('|'))
            .map(|(name, _)| name)
            .collect();
        for (names, instead) in COMMANDS {
            let wanted: Vec<&str> = match instead {
                Instead::Client => names.split_whitespace().collect(),
                Instead::ClientAs(command) => command.split(' ').take(1).collect(),
                Instead::Api | Instead::Nothing => Vec::new(),
            };
            for name in wanted {
                assert!(listed.contains(&name), "{name}");
            }
        }
    }
}
