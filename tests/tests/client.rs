//! `orchestrator-client` as operators run it: what it asks for and prints, command by command, against answers that are
//! given; and every served command through each of three real daemons, with some of them dead, and with basic
//! authentication.
#![allow(clippy::disallowed_methods)]

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use orchestrator::forced::LOOKS;
use orchestrator_tests::bare::Bare;
use orchestrator_tests::daemons::{DaemonOptions, Daemons};
use orchestrator_tests::fleet::{Flavour, FleetOptions, ReplicationTiming};
use orchestrator_tests::process::{Scratch, Signal};
use orchestrator_tests::wait::{Look, until};
use orchestrator_tests::world::{PATIENCE, World};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::process::Command;

/// Held while a test owns daemons.
static TURN: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());

/// What a run of the script left.
#[derive(Debug, PartialEq, Eq)]
struct Ran {
    code: Option<i32>,
    out: String,
    err: String,
}

/// The script with its environment.
#[derive(Clone)]
struct Client(BTreeMap<&'static str, String>);

impl Client {
    fn new(api: impl Into<String>) -> Client {
        Client(BTreeMap::from([
            ("ORCHESTRATOR_API", api.into()),
            // Whatever this machine has there.
            ("ORCHESTRATOR_CLIENT_PROFILE", String::from("/nonexistent")),
            ("ORCHESTRATOR_CLIENT_PATIENCE", String::from("60")),
        ]))
    }

    fn with(mut self, name: &'static str, value: impl Into<String>) -> Client {
        self.0.insert(name, value.into());
        self
    }

    fn impatient(self) -> Client {
        self.with("ORCHESTRATOR_CLIENT_PATIENCE", "0")
    }

    async fn run(&self, arguments: &[&str]) -> Ran {
        let script = PathBuf::from(env!("CARGO_MANIFEST_DIR"))
            .join("../runtime/packaging/bin/orchestrator-client");
        let output = Command::new(script)
            .args(arguments)
            .envs(&self.0)
            .stdin(Stdio::null())
            .kill_on_drop(true)
            .output()
            .await
            .expect("bash, curl and jq; type:  tests/setup.sh client");
        Ran {
            code: output.status.code(),
            out: String::from_utf8_lossy(&output.stdout).into_owned(),
            err: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }

    /// What a command prints that succeeds without a word on standard error.
    async fn prints(&self, arguments: &[&str]) -> String {
        let ran = self.run(arguments).await;
        let good = ran.code == Some(0) && ran.err.is_empty();
        assert!(good, "{:?} {arguments:?}: {ran:?}", self.0);
        ran.out
    }
}

/// An API that gives one answer to everything and remembers what it was asked.
struct Given {
    api: String,
    asked: Arc<Mutex<Vec<String>>>,
    answer: Arc<Mutex<(u16, String)>>,
}

impl Given {
    async fn start() -> Given {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let given = Given {
            api: format!("http://{}", listener.local_addr().expect("bound")),
            asked: Arc::default(),
            answer: Arc::default(),
        };
        let (asked, answer) = (given.asked.clone(), given.answer.clone());
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let mut head = Vec::new();
                while !head.ends_with(b"\r\n\r\n") {
                    match stream.read_u8().await {
                        Ok(byte) => head.push(byte),
                        Err(_) => break,
                    }
                }
                let head = String::from_utf8_lossy(&head).into_owned();
                lock(&asked).push(head);
                let (status, body) = lock(&answer).clone();
                let reply = format!(
                    "HTTP/1.1 {status} Whatever\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
                    body.len()
                );
                stream.write_all(reply.as_bytes()).await.ok();
            }
        });
        given
    }

    fn answers(&self, status: u16, body: impl ToString) {
        *lock(&self.answer) = (status, body.to_string());
        lock(&self.asked).clear();
    }

    /// The requests since the last answer was set, without their heads.
    fn asked(&self) -> Vec<String> {
        let asked = lock(&self.asked);
        asked
            .iter()
            .filter_map(|head| head.split(" HTTP/").next())
            .map(str::to_owned)
            .collect()
    }

    fn heads(&self) -> String {
        lock(&self.asked).concat()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn key(host: &str) -> Value {
    json!({"Hostname": host, "Port": 3306})
}

fn server(host: &str, source: &str, threads: [i64; 2]) -> Value {
    json!({
        "Key": key(host), "MasterKey": key(source), "DataCenter": "east", "GtidErrant": "u:1-2", "LastIOError": "",
        "LastSQLError": if threads[1] == 1 { "" } else { "\"no such row\"" },
        "ReplicationIOThreadState": threads[0], "ReplicationSQLThreadState": threads[1],
        "ReplicationIOThreadRuning": threads[0] == 1, "ReplicationSQLThreadRuning": threads[1] == 1,
    })
}

fn envelope(message: &str, details: Value) -> Value {
    json!({"Code": "OK", "Message": message, "Details": details})
}

/// Every command: the one request that it makes, and what it prints of an answer.
#[tokio::test]
async fn each_command_asks_and_prints_as_it_always_has() {
    let given = Given::start().await;
    let client = Client::new(&given.api).impatient();
    let replicas = json!([
        server("db2", "db1", [1, 1]),
        server("db3", "db1", [1, 0]),
        server("db4", "db1", [0, 0])
    ]);
    let moved = envelope("moved", server("db2", "db1", [1, 1]));
    let list = envelope("moved", replicas.clone());
    let one = envelope("done", server("db2", "db1", [1, 1]));
    let of_key = envelope("done", key("db2"));
    let keys = json!([key("db2"), key("db3")]);
    let text = envelope("", json!("some text"));
    let promoted = envelope("promoted", json!({"SuccessorKey": key("db3")}));
    let clusters = json!([{"ClusterName": "db1:3306", "ClusterAlias": "shop"}]);
    let analysis = envelope(
        "",
        json!([
            {"AnalyzedInstanceKey": key("db1"), "ClusterDetails": {"ClusterName": "db1:3306"},
             "Analysis": "DeadMaster", "StructureAnalysis": null},
            {"AnalyzedInstanceKey": key("db9"), "ClusterDetails": {"ClusterName": "db9:3306"},
             "Analysis": "NoProblem", "StructureAnalysis": ["NotEnoughValidSemiSyncReplicasStructureWarning"]},
        ]),
    );
    let three = "db2:3306\ndb3:3306\ndb4:3306\n";
    let mut cases: Vec<(&str, &str, &Value, &str)> = vec![
        ("clusters", "clusters-info", &clusters, "db1:3306\n"),
        (
            "clusters-alias",
            "clusters-info",
            &clusters,
            "db1:3306,shop\n",
        ),
        ("search -i a&b", "search?s=a%26b", &replicas, three),
        ("instance -i db2", "instance/db2/3306", &one, "db2:3306\n"),
        (
            "which-instance -i db2:3307",
            "instance/db2/3307",
            &one,
            "db2:3306\n",
        ),
        (
            "which-instance -i db2 -D 3310",
            "instance/db2/3310",
            &one,
            "db2:3306\n",
        ),
        (
            "which-instance -i [fe80::1]:3307",
            "instance/fe80%3A%3A1/3307",
            &one,
            "db2:3306\n",
        ),
        (
            "which-master -i db2",
            "instance/db2/3306",
            &one,
            "db1:3306\n",
        ),
        (
            "which-replicas -i db1",
            "instance-replicas/db1/3306",
            &replicas,
            three,
        ),
        (
            "which-slaves -i db1",
            "instance-replicas/db1/3306",
            &replicas,
            three,
        ),
        (
            "which-broken-replicas -i db1",
            "instance-replicas/db1/3306",
            &replicas,
            "db3:3306\ndb4:3306\n",
        ),
        (
            "which-cluster-instances -a shop",
            "cluster/shop",
            &replicas,
            three,
        ),
        (
            "which-cluster-instances -i db1:3306",
            "cluster/db1%3A3306",
            &replicas,
            three,
        ),
        (
            "which-cluster-instances -i db1",
            "cluster/db1",
            &replicas,
            three,
        ),
        (
            "which-cluster -a shop",
            "cluster-info/shop",
            &clusters[0],
            "db1:3306\n",
        ),
        (
            "which-cluster-alias -i db1",
            "cluster-info/db1",
            &clusters[0],
            "shop\n",
        ),
        (
            "which-cluster-master -a shop",
            "master/shop",
            &one,
            "db2:3306\n",
        ),
        ("all-clusters-masters", "masters", &replicas, three),
        ("all-instances", "all-instances", &replicas, three),
        (
            "which-cluster-osc-replicas -a shop",
            "cluster-osc-replicas/shop",
            &replicas,
            three,
        ),
        (
            "which-cluster-osc-running-replicas -a shop",
            "cluster-osc-replicas/shop",
            &replicas,
            "db2:3306\n",
        ),
        ("downtimed", "downtimed", &replicas, three),
        ("downtimed -a shop", "downtimed/shop", &replicas, three),
        ("dominant-dc", "masters", &replicas, "east\n"),
        (
            "is-replicating -i db2",
            "instance/db2/3306",
            &replicas[0],
            "db2:3306\n",
        ),
        (
            "is-replicating -i db3",
            "instance/db3/3306",
            &replicas[1],
            "",
        ),
        (
            "is-replication-stopped -i db3",
            "instance/db3/3306",
            &replicas[1],
            "",
        ),
        (
            "is-replication-stopped -i db4",
            "instance/db4/3306",
            &replicas[2],
            "db4:3306\n",
        ),
        (
            "which-gtid-errant -i db2",
            "instance/db2/3306",
            &one,
            "u:1-2\n",
        ),
        ("forget -i db2", "forget/db2/3306", &of_key, ""),
        ("forget-cluster -a shop", "forget-cluster/shop", &text, ""),
        (
            "set-cluster-alias -i db1 -a shop",
            "set-cluster-alias/db1%3A3306?alias=shop",
            &text,
            "",
        ),
        (
            "snapshot-topologies",
            "snapshot-topologies",
            &text,
            "some text\n",
        ),
        (
            "register-candidate -i db2 -R prefer",
            "register-candidate/db2/3306/prefer",
            &of_key,
            "db2:3306\n",
        ),
        (
            "register-hostname-unresolve -i db2 -H vip",
            "register-hostname-unresolve/db2/3306/vip",
            &of_key,
            "db2:3306\n",
        ),
        (
            "deregister-hostname-unresolve -i db2",
            "deregister-hostname-unresolve/db2/3306",
            &of_key,
            "db2:3306\n",
        ),
        (
            "replication-analysis",
            "replication-analysis",
            &analysis,
            "db1:3306 (cluster db1:3306): DeadMaster\ndb9:3306 (cluster db9:3306): NotEnoughValidSemiSyncReplicasStructureWarning\n",
        ),
        ("recover -i db1", "recover/db1/3306", &of_key, "db2:3306\n"),
        (
            "recover -i db1 -d db3",
            "recover/db1/3306/db3/3306",
            &of_key,
            "db2:3306\n",
        ),
        (
            "graceful-master-takeover -a shop",
            "graceful-master-takeover/shop",
            &promoted,
            "db3:3306\n",
        ),
        (
            "graceful-master-takeover-auto -a shop -d db3",
            "graceful-master-takeover-auto/shop/db3/3306",
            &promoted,
            "db3:3306\n",
        ),
        (
            "force-master-failover -i db1:3306",
            "force-master-failover/db1%3A3306",
            &promoted,
            "db3:3306\n",
        ),
        (
            "force-master-takeover -a shop -d db3",
            "force-master-takeover/shop/db3/3306",
            &promoted,
            "db3:3306\n",
        ),
        ("raft-health", "raft-health", &text, "some text\n"),
        (
            "relocate-replicas -i db1 -d db5",
            "relocate-replicas/db1/3306/db5/3306",
            &list,
            three,
        ),
        (
            "move-replicas-gtid -i db1 -d db5",
            "move-replicas-gtid/db1/3306/db5/3306",
            &list,
            three,
        ),
        (
            "repoint-replicas -i db1",
            "repoint-replicas/db1/3306",
            &list,
            three,
        ),
        (
            "match-up-replicas -i db1",
            "match-up-replicas/db1/3306",
            &list,
            three,
        ),
        (
            "move-up-slaves -i db1 -d db5",
            "move-up-replicas/db1/3306/db5/3306",
            &list,
            three,
        ),
        (
            "purge-binary-logs -i db2 -n b.000007",
            "purge-binary-logs/db2/3306/b.000007",
            &one,
            "db2:3306\n",
        ),
        (
            "begin-maintenance -i db2 -o me -r why",
            "begin-maintenance/db2/3306/me/why",
            &of_key,
            "db2:3306\n",
        ),
        (
            "end-downtime -i db2",
            "end-downtime/db2/3306",
            &of_key,
            "db2:3306\n",
        ),
        (
            "end-maintenance -i db2",
            "end-maintenance/db2/3306",
            &of_key,
            "db2:3306\n",
        ),
        (
            "tag-value -i db2 -t a",
            "tag-value/db2/3306?tag=a",
            &text,
            "some text\n",
        ),
        (
            "tag -i db2 -t a=b",
            "tag/db2/3306?tag=a%3Db",
            &of_key,
            "db2:3306\n",
        ),
        (
            "tagged -t a,~b=c",
            "tagged?tag=a%2C~b%3Dc",
            &keys,
            "db2:3306\ndb3:3306\n",
        ),
        (
            "untag -i db2 -t a=b",
            "untag/db2/3306?tag=a%3Db",
            &keys,
            "db2:3306\ndb3:3306\n",
        ),
        (
            "untag-all -t a=b",
            "untag-all?tag=a%3Db",
            &keys,
            "db2:3306\ndb3:3306\n",
        ),
        (
            "submit-pool-instances -l web -i db2:3306,db3:3306",
            "submit-pool-instances/web?instances=db2%3A3306%2Cdb3%3A3306",
            &text,
            "some text\n",
        ),
        (
            "which-heuristic-cluster-pool-instances -a shop -l web",
            "heuristic-cluster-pool-instances/shop/web",
            &list,
            three,
        ),
        // Long options, with one dash or two, and with a sign of equality.
        (
            "-command which-master -instance db2",
            "instance/db2/3306",
            &one,
            "db1:3306\n",
        ),
        (
            "--command=which-cluster --alias shop",
            "cluster-info/shop",
            &clusters[0],
            "db1:3306\n",
        ),
    ];
    let plain = json!(["a=b", "c="]);
    let kv = envelope(
        "",
        json!([{"Key": "mysql/master/shop", "Value": "db1:3306"}]),
    );
    let statements = envelope("", json!(["stop slave;", "start slave;"]));
    let delay = envelope("", json!(30));
    let peer = json!("n4:10008");
    let may = envelope("true", key("db1"));
    let may_not = envelope("false", key("db1"));
    cases.extend([
        ("tags -i db2", "tags/db2/3306", &plain, "a=b\nc=\n"),
        (
            "submit-masters-to-kv-stores",
            "submit-masters-to-kv-stores",
            &kv,
            "mysql/master/shop:db1:3306\n",
        ),
        (
            "delay-replication -i db2 -S 30",
            "delay-replication/db2/3306/30",
            &delay,
            "30\n",
        ),
        (
            "raft-add-peer -i n4",
            "raft-add-peer/n4",
            &peer,
            "n4:10008\n",
        ),
        (
            "raft-remove-peer -i n4:10008",
            "raft-remove-peer/n4%3A10008",
            &peer,
            "n4:10008\n",
        ),
        (
            "can-replicate-from -i db2 -d db1",
            "can-replicate-from/db2/3306/db1/3306",
            &may,
            "db1:3306\n",
        ),
        (
            "can-replicate-from-gtid -i db2 -d db1",
            "can-replicate-from-gtid/db2/3306/db1/3306",
            &may_not,
            "",
        ),
        (
            "locate-gtid-errant -i db2",
            "locate-gtid-errant/db2/3306",
            &statements,
            "stop slave;\nstart slave;\n",
        ),
        (
            "last-pseudo-gtid -i db2",
            "last-pseudo-gtid/db2/3306",
            &text,
            "some text\n",
        ),
        (
            "api -P /clusters",
            "clusters",
            &plain,
            "[ \"a=b\", \"c=\" ]\n",
        ),
    ]);
    let same_path: Vec<(String, String)> = [
        "relocate",
        "match",
        "move-below",
        "move-equivalent",
        "move-gtid",
        "repoint",
    ]
    .iter()
    .map(|name| {
        (
            format!("{name} -i db2 -d db1"),
            format!("{name}/db2/3306/db1/3306"),
        )
    })
    .chain(
        [
            "match-up",
            "move-up",
            "make-co-master",
            "take-master",
            "take-siblings",
        ]
        .iter()
        .map(|name| (format!("{name} -i db2"), format!("{name}/db2/3306"))),
    )
    .collect();
    for (arguments, path) in &same_path {
        cases.push((arguments, path, &moved, "db2:3306<db1:3306\n"));
    }
    let of_one: Vec<(String, String)> = [
        "discover",
        "async-discover",
        "stop-replica",
        "stop-replica-nice",
        "start-replica",
        "restart-replica",
        "reset-replica",
        "detach-replica",
        "reattach-replica",
        "detach-replica-master-host",
        "reattach-replica-master-host",
        "skip-query",
        "gtid-errant-reset-master",
        "gtid-errant-inject-empty",
        "enable-semi-sync-master",
        "disable-semi-sync-master",
        "enable-semi-sync-replica",
        "disable-semi-sync-replica",
        "change-master-credentials",
        "set-read-only",
        "set-writeable",
        "flush-binary-logs",
    ]
    .iter()
    .map(|name| (format!("{name} -i db2"), format!("{name}/db2/3306")))
    .collect();
    for (arguments, path) in &of_one {
        cases.push((arguments, path, &one, "db2:3306\n"));
    }
    for name in [
        "disable-global-recoveries",
        "enable-global-recoveries",
        "check-global-recoveries",
    ] {
        cases.push((name, name, &text, "some text\n"));
    }
    let drawn = envelope("", json!("db1:3306   [ok]\n+ db2:3306 [ok]"));
    for (arguments, path) in [
        ("topology -i db1:3306", "topology/db1%3A3306"),
        ("topology-tabulated -a shop", "topology-tabulated/shop"),
        ("topology-tags -a shop", "topology-tags/shop"),
    ] {
        cases.push((
            arguments,
            path,
            &drawn,
            "db1:3306   [ok]\n+ db2:3306 [ok]\n",
        ));
    }

    let mut seen = Vec::new();
    for (arguments, path, answer, printed) in cases {
        given.answers(200, answer);
        let words = arguments.split(' ');
        let words: Vec<&str> = match arguments.starts_with('-') {
            true => words.collect(),
            false => ["-c"].into_iter().chain(words).collect(),
        };
        assert_eq!(client.prints(&words).await, printed, "{arguments}");
        assert_eq!(given.asked(), [format!("GET /api/{path}")], "{arguments}");
        seen.push(words[1].replace("slave", "replica"));
    }
    // Words with blanks in them go through whole.
    for (arguments, path) in [
        (
            [
                "-c",
                "begin-downtime",
                "-i",
                "db2",
                "-o",
                "an na",
                "-r",
                "50% / 2",
                "-u",
                "2h",
            ]
            .as_slice(),
            "begin-downtime/db2/3306/an%20na/50%25%20%2F%202/2h",
        ),
        (
            &[
                "-c",
                "ack-cluster-recoveries",
                "-a",
                "shop",
                "-r",
                "all is well",
            ],
            "ack-recovery/cluster/shop?comment=all%20is%20well",
        ),
        (
            &["-c", "ack-all-recoveries", "-r", "all is well"],
            "ack-all-recoveries?comment=all%20is%20well",
        ),
        (
            &[
                "-c",
                "restart-replica-statements",
                "-i",
                "db2",
                "-q",
                "set global x=1",
            ],
            "restart-replica-statements/db2/3306?q=set%20global%20x%3D1",
        ),
        (
            &["-c", "raft-replace-peer", "-i", "n3", "-d", "n4:7"],
            "v2/raft-replace-peer/n3/n4%3A7",
        ),
    ] {
        let answer = if arguments[1] == "begin-downtime" {
            &of_key
        } else {
            &statements
        };
        given.answers(200, answer);
        let printed = client.prints(arguments).await;
        assert_eq!(given.asked(), [format!("GET /api/{path}")]);
        if arguments[1] == "restart-replica-statements" {
            assert_eq!(printed, "[ \"stop slave;\", \"start slave;\" ]\n");
        }
        seen.push(arguments[1].to_owned());
    }

    // Nothing that the help lists went untried, and each of these is tried elsewhere.
    let help = client.prints(&["-c", "help"]).await;
    let listed: Vec<&str> = help
        .split("Commands.")
        .nth(1)
        .expect("a list")
        .lines()
        .filter_map(|line| line.strip_prefix("  "))
        .filter_map(|line| line.split_whitespace().next())
        .collect();
    assert_eq!(listed.len(), 110, "{listed:?}");
    let elsewhere = [
        "help",
        "which-api",
        "raft-leader",
        "raft-leader-hostname",
        "raft-elect-leader",
    ];
    for name in listed {
        let is_known = seen.iter().any(|seen| seen == name) || elsewhere.contains(&name);
        assert!(is_known, "{name} is listed and not tried");
    }
}

/// Whatever an answer is, it is either printed or an error.
#[tokio::test]
async fn an_answer_that_says_no_is_an_error() {
    let given = Given::start().await;
    let client = Client::new(&given.api).impatient();
    let no =
        |message: &str| json!({"Code": "ERROR", "Message": message, "Details": null}).to_string();
    let api = format!("{}/api", given.api);
    for (status, body, wanted) in [
        (500, no("it's \"odd\""), "it's \"odd\"\n".to_owned()),
        (200, no("no"), "no\n".to_owned()),
        (403, no("not you"), format!("{api}: HTTP 403: not you\n")),
        (
            401,
            no("Not Authorized"),
            format!("{api}: HTTP 401: a user and a password are asked for"),
        ),
        (
            501,
            no("x"),
            format!("{api} does not serve the command 'forget' so far (HTTP 501: x)\n"),
        ),
        (502, no("gone"), format!("{api}: HTTP 502: gone\n")),
        (
            503,
            no("nobody leads"),
            format!("{api}: HTTP 503: nobody leads\n"),
        ),
        (
            504,
            no("outcome unknown"),
            format!("{api}: HTTP 504: outcome unknown\n"),
        ),
        (
            502,
            String::new(),
            format!("{api}: HTTP 502, and no JSON: \n"),
        ),
        (
            200,
            String::new(),
            format!("{api}: HTTP 200, and no JSON: \n"),
        ),
        (
            404,
            "404 page not found\n".to_owned(),
            format!("{api}: HTTP 404, and no JSON: 404 page not found"),
        ),
        (500, "[]".to_owned(), format!("{api}: HTTP 500\n")),
    ] {
        given.answers(status, &body);
        let ran = client.run(&["-c", "forget", "-i", "db1"]).await;
        assert_eq!(
            (ran.code, ran.out.as_str()),
            (Some(1), ""),
            "{status} {body}: {ran:?}"
        );
        assert!(ran.err.contains(&wanted), "{status} {body}: {ran:?}");
        assert_eq!(given.asked().len(), 1, "{status} {body} was repeated");
    }
    // What was refused with details shows them.
    let refused = json!({"Code": "ERROR", "Message": "not attempted", "Details": key("db1")});
    given.answers(500, &refused);
    let ran = client.run(&["-c", "recover", "-i", "db1"]).await;
    assert_eq!(ran.out, "{ \"Hostname\": \"db1\", \"Port\": 3306 }\n");
    assert_eq!((ran.code, ran.err.as_str()), (Some(1), "not attempted\n"));
    given.answers(500, &refused);
    let ran = client.run(&["-c", "api", "-P", "recover/db1/3306"]).await;
    assert!(
        ran.out.starts_with("{ \"Code\": \"ERROR\", ") && ran.out.ends_with(" }\n"),
        "{ran:?}"
    );
    assert_eq!(ran.code, Some(1));
    // An answer of another shape.
    given.answers(200, json!({"Code": "OK", "Message": "", "Details": "text"}));
    assert_eq!(client.run(&["-c", "all-instances"]).await.code, Some(5));
}

#[tokio::test]
async fn mistakes_are_told_before_anything_is_asked() {
    let given = Given::start().await;
    given.answers(200, "[]");
    let client = Client::new(&given.api).impatient();
    for (arguments, wanted) in [
        (["-i", "db1"].as_slice(), "No command given"),
        (&["-c", "dance"], "Unsupported command dance"),
        (&["-c", "instance"], "instance must be provided"),
        (
            &["-c", "relocate", "-i", "db1"],
            "destination must be provided",
        ),
        (&["-c", "topology"], "alias or instance must be provided"),
        (
            &["-c", "begin-downtime", "-i", "db1"],
            "reason must be provided",
        ),
        (&["-c", "tagged"], "tag must be provided"),
        (&["-c", "api"], "path must be provided"),
        (
            &["-c", "instance", "-i", "fe80::1"],
            "write an IPv6 address in brackets",
        ),
        (
            &["-c", "set-cluster-alias", "-i", "db1"],
            "alias must be provided",
        ),
        (&["-c", "raft-add-peer"], "instance must be provided"),
        (&["-c"], "option -c needs a value"),
        (
            &["-c", "instance", "--instance"],
            "option --instance needs a value",
        ),
        (&["-c", "instance", "--frob"], "unknown option --frob;"),
        (&["-c", "instance", "-frob"], "unknown option -frob;"),
        (&["-c", "instance", "--frob=x"], "unknown option --frob;"),
        (&["-c", "instance", "-x"], "unknown option -x;"),
        (&["-c", "instance", "db1"], "unknown argument db1"),
        (
            &["-c", "instance", "--colour", "red"],
            "unknown option --colour",
        ),
    ] {
        let ran = client.run(arguments).await;
        assert_eq!((ran.code, ran.out.as_str()), (Some(1), ""), "{arguments:?}");
        assert!(ran.err.contains(wanted), "{arguments:?}: {}", ran.err);
    }
    assert_eq!(given.asked(), Vec::<String>::new());
}

/// The file of the machine is read, and a password appears neither in the list of processes nor in an error.
#[tokio::test]
async fn credentials_come_from_the_profile_and_are_not_shown() {
    let given = Given::start().await;
    let folder = Scratch::create("client").expect("a folder");
    let profile = folder.path().join("orchestrator-client.sh");
    let secret = r#"pass"w\ord"#;
    fs::write(
        &profile,
        format!(
            "export ORCHESTRATOR_API={}\nexport ORCHESTRATOR_AUTH_USER=ann\nexport ORCHESTRATOR_AUTH_PASSWORD='{secret}'\n\
             export ORCHESTRATOR_AUTH_USER_HEADER=X-Forwarded-User:ann\n",
            given.api
        ),
    )
    .expect("written");
    let client = Client::new("")
        .impatient()
        .with("ORCHESTRATOR_CLIENT_PROFILE", profile.display().to_string());
    given.answers(200, "[]");
    assert_eq!(client.prints(&["-c", "clusters"]).await, "");
    let heads = given.heads();
    assert!(
        heads.contains("Authorization: Basic YW5uOnBhc3Mid1xvcmQ=\r\n"),
        "{heads}"
    );
    assert!(
        heads.contains("X-Forwarded-User: ann\r\n") || heads.contains("X-Forwarded-User:ann\r\n"),
        "{heads}"
    );
    let ran = client
        .run(&[
            "-c",
            "clusters",
            "-U",
            "http://ann:secret@127.0.0.1:1 http://bob:secret@127.0.0.1:2",
        ])
        .await;
    assert_eq!(ran.code, Some(1));
    assert!(
        ran.err.contains("http://<REMOVED>@127.0.0.1:1/api"),
        "{}",
        ran.err
    );
    assert!(!ran.err.contains("secret"), "{}", ran.err);
}

fn urls(daemons: &Daemons) -> String {
    let urls: Vec<String> = daemons.all().iter().map(|daemon| daemon.url()).collect();
    urls.join(" ")
}

/// The clients that ask one daemon each, and one that may ask all.
fn clients(daemons: &Daemons) -> Vec<Client> {
    let mut clients: Vec<Client> = daemons
        .all()
        .iter()
        .map(|daemon| Client::new(daemon.url()))
        .collect();
    clients.push(Client::new(urls(daemons)));
    clients
}

/// Through the leader, through each follower, and with the leader found among them: the same lines.
async fn all_print(clients: &[Client], arguments: &[&str], wanted: &str) {
    let runs = clients.iter().map(|client| client.prints(arguments));
    for (client, printed) in clients.iter().zip(join(runs).await) {
        assert_eq!(printed, wanted, "{arguments:?} {:?}", client.0);
    }
}

async fn join<F: Future>(futures: impl Iterator<Item = F>) -> Vec<F::Output> {
    let mut futures: Vec<_> = futures.map(Box::pin).collect();
    let mut outputs: Vec<Option<F::Output>> = futures.iter().map(|_| None).collect();
    std::future::poll_fn(move |context| {
        for (future, output) in futures.iter_mut().zip(&mut outputs) {
            if output.is_none()
                && let std::task::Poll::Ready(ready) = future.as_mut().poll(context)
            {
                *output = Some(ready);
            }
        }
        match outputs.iter().all(Option::is_some) {
            true => std::task::Poll::Ready(outputs.drain(..).flatten().collect()),
            false => std::task::Poll::Pending,
        }
    })
    .await
}

async fn kill_leader(world: &World) {
    let leader = world.daemons.wait_leader(PATIENCE).await.expect("a leader");
    leader.signal(Signal::Kill);
    leader.wait_ended(PATIENCE).await.expect("ended");
}

/// A fleet watched by three daemons: every served command through every one of them; then without a follower, without
/// the leader, and without a quorum.
#[tokio::test]
async fn served_commands_through_each_daemon_whatever_is_down() {
    let _turn = TURN.lock().await;
    let fleet = FleetOptions {
        flavour: Flavour::MariaDb,
        servers: 3,
        timing: ReplicationTiming::Quick,
    };
    let world = World::start(fleet, &DaemonOptions::steady())
        .await
        .expect("a fleet that the daemons know");
    let servers = &world.fleet.ports();
    let name = |port: u16| format!("127.0.0.1:{port}");
    let lines = |ports: &[u16]| -> String {
        ports
            .iter()
            .map(|port| format!("{}\n", name(*port)))
            .collect()
    };
    let primary = world.primary();
    let mut replicas: Vec<u16> = servers
        .iter()
        .copied()
        .filter(|port| *port != primary)
        .collect();
    replicas.sort_unstable();
    let mut sorted = servers.clone();
    sorted.sort_unstable();
    let first = [primary, replicas[0], replicas[1]];
    let (p, r) = (name(primary), name(replicas[0]));
    let (p, r) = (p.as_str(), r.as_str());
    let clients = clients(&world.daemons);

    let looked = until(
        "the client finds the leader",
        PATIENCE,
        Duration::from_millis(100),
        async || {
            let leader = world.daemons.wait_leader(PATIENCE).await.expect("a leader");
            let found = clients[3].prints(&["-c", "which-api"]).await;
            match found == format!("{}/api\n", leader.url()) {
                true => Look::Holds(leader),
                false => Look::not(format!("{found}, and {} leads", leader.url())),
            }
        },
    );
    let leader = looked.await.expect("found");

    let cluster = format!("{p}\n");
    let alias = format!("{p},fleet\n");
    for (arguments, wanted) in [
        (["-c", "clusters"].as_slice(), cluster.as_str()),
        (&["-c", "clusters-alias"], &alias),
        (&["-c", "all-instances"], &lines(&first)),
        (&["-c", "search", "-i", "127.0.0.1"], &lines(&first)),
        (&["-c", "instance", "-i", r], &format!("{r}\n")),
        (&["-c", "which-instance", "-i", r], &format!("{r}\n")),
        (&["-c", "which-master", "-i", r], &cluster),
        (&["-c", "which-master", "-i", p], ":0\n"),
        (&["-c", "which-replicas", "-i", p], &lines(&replicas)),
        (&["-c", "which-broken-replicas", "-i", p], ""),
        (
            &["-c", "which-cluster-instances", "-a", "fleet"],
            &lines(&sorted),
        ),
        (&["-c", "which-cluster-instances", "-i", r], &lines(&sorted)),
        (&["-c", "which-cluster", "-a", "fleet"], &cluster),
        (&["-c", "which-cluster-alias", "-i", r], "fleet\n"),
        (&["-c", "which-cluster-master", "-a", "fleet"], &cluster),
        (&["-c", "all-clusters-masters"], &cluster),
        (&["-c", "is-replicating", "-i", r], &format!("{r}\n")),
        (&["-c", "is-replicating", "-i", p], ""),
        (&["-c", "is-replication-stopped", "-i", r], ""),
        (&["-c", "which-gtid-errant", "-i", r], "\n"),
        (&["-c", "dominant-dc"], "\n"),
        (&["-c", "downtimed"], ""),
        (&["-c", "replication-analysis"], ""),
        (&["-c", "check-global-recoveries"], "enabled\n"),
        (&["-c", "raft-health"], "healthy\n"),
        (&["-c", "api", "-P", "clusters"], &format!("[ \"{p}\" ]\n")),
    ] {
        all_print(&clients, arguments, wanted).await;
    }
    let topology = clients[0].prints(&["-c", "topology", "-i", r]).await;
    let rows: Vec<&str> = topology.lines().collect();
    assert_eq!(rows.len(), 3, "{topology}");
    assert!(
        rows[0].starts_with(p) && rows[1].starts_with(&format!("+ {r}")),
        "{topology}"
    );
    for drawing in ["topology-tabulated", "topology-tags"] {
        assert_eq!(
            clients[1]
                .prints(&["-c", drawing, "-a", "fleet"])
                .await
                .lines()
                .count(),
            3
        );
    }

    // Changes, each by way of another daemon, and looked at by way of the next.
    for (index, client) in clients.iter().enumerate() {
        let next = &clients[(index + 1) % clients.len()];
        let tag = format!("t{index}=a b");
        let tag = tag.as_str();
        let this = format!("{r}\n");
        assert_eq!(
            client.prints(&["-c", "tag", "-i", r, "-t", tag]).await,
            this
        );
        assert_eq!(
            next.prints(&["-c", "tags", "-i", r]).await,
            format!("{tag}\n")
        );
        assert_eq!(next.prints(&["-c", "tagged", "-t", tag]).await, this);
        assert_eq!(
            next.prints(&["-c", "tag-value", "-i", r, "-t", &tag[..2]])
                .await,
            "a b\n"
        );
        let untag = if index % 2 == 0 {
            client.prints(&["-c", "untag", "-i", r, "-t", tag]).await
        } else {
            client.prints(&["-c", "untag-all", "-t", tag]).await
        };
        assert_eq!(untag, this);
        assert_eq!(next.prints(&["-c", "tags", "-i", r]).await, "");
        let begin = ["-c", "begin-downtime", "-i", r, "-r", "50% / 2", "-u", "2h"];
        assert_eq!(client.prints(&begin).await, this);
        assert_eq!(next.prints(&["-c", "downtimed", "-a", "fleet"]).await, this);
        assert_eq!(client.prints(&["-c", "end-downtime", "-i", r]).await, this);
        assert_eq!(next.prints(&["-c", "downtimed"]).await, "");
        assert_eq!(
            client.prints(&["-c", "disable-global-recoveries"]).await,
            "disabled\n"
        );
        assert_eq!(
            next.prints(&["-c", "check-global-recoveries"]).await,
            "disabled\n"
        );
        assert_eq!(
            client.prints(&["-c", "enable-global-recoveries"]).await,
            "enabled\n"
        );
    }
    // An alias that the cluster has already, by any server of it.
    for server in [p, r] {
        let named = ["-c", "set-cluster-alias", "-i", server, "-a", "fleet"];
        all_print(&clients, &named, "").await;
    }
    all_print(&clients, &["-c", "clusters-alias"], &alias).await;
    for client in &clients {
        let ran = client
            .run(&["-c", "raft-remove-peer", "-i", "nowhere"])
            .await;
        assert_eq!((ran.code, ran.out.as_str()), (Some(1), ""), "{ran:?}");
        assert!(ran.err.contains("Cannot remove raft peer"), "{}", ran.err);
    }
    for arguments in [
        ["-c", "discover", "-i", r].as_slice(),
        &["-c", "async-discover", "-i", r],
        &["-c", "register-candidate", "-i", r, "-R", "prefer"],
    ] {
        all_print(&clients, arguments, &format!("{r}\n")).await;
    }
    // Statements on servers take turns: one cluster, one at a time. The primary is writable already.
    for client in &clients {
        let read_only = client.prints(&["-c", "set-read-only", "-i", r]).await;
        assert_eq!(read_only, format!("{r}\n"));
        let writeable = client.prints(&["-c", "set-writeable", "-i", p]).await;
        assert_eq!(writeable, cluster);
    }
    all_print(
        &clients,
        &["-c", "ack-all-recoveries", "-r", "all is well"],
        "all is well\n",
    )
    .await;
    all_print(
        &clients,
        &[
            "-c",
            "ack-cluster-recoveries",
            "-a",
            "fleet",
            "-r",
            "all is well",
        ],
        &cluster,
    )
    .await;
    // Errors say what is wrong, through a follower too.
    for client in &clients {
        let ran = client.run(&["-c", "instance", "-i", "nowhere:1"]).await;
        assert_eq!(
            (ran.code, ran.err.as_str()),
            (Some(1), "Cannot read instance: nowhere:1\n")
        );
    }
    let ran = clients[0].run(&["-c", "dance"]).await;
    assert_eq!(ran.code, Some(1));

    // The raft address of the leader, and its host's name, whoever is asked.
    let status = world
        .daemons
        .ask_leader("/api/status")
        .await
        .expect("status");
    let details = &status["Details"];
    for (name, member) in [
        ("raft-leader", "RaftLeader"),
        ("raft-leader-hostname", "Hostname"),
    ] {
        let wanted = format!("{}\n", details[member].as_str().expect("text"));
        all_print(&clients, &["-c", name], &wanted).await;
    }

    // A follower is down: whoever may ask others is served; who may not says whom it tried.
    let leader_url = leader.url();
    let follower = world
        .daemons
        .all()
        .iter()
        .position(|daemon| daemon.url() != leader_url)
        .expect("a follower");
    let down = &world.daemons.all()[follower];
    down.signal(Signal::Kill);
    down.wait_ended(PATIENCE).await.expect("ended");
    assert_eq!(clients[3].prints(&["-c", "clusters"]).await, cluster);
    let ran = clients[follower]
        .clone()
        .impatient()
        .run(&["-c", "clusters"])
        .await;
    assert_eq!(ran.code, Some(1));
    assert!(
        ran.err
            .contains(&format!("cannot reach {}/api: ", down.url())),
        "{}",
        ran.err
    );
    down.start().expect("started");

    // Forgotten through one, gone for all, and found again from the primary.
    let lost = name(replicas[1]);
    assert_eq!(clients[3].prints(&["-c", "forget", "-i", &lost]).await, "");
    let forgotten = until(
        "a server is forgotten",
        PATIENCE,
        Duration::from_millis(50),
        async || match clients[3].run(&["-c", "instance", "-i", &lost]).await {
            ran if ran.code == Some(1) => Look::Holds(()),
            ran => Look::not(ran.out),
        },
    );
    forgotten.await.expect("forgotten");

    // The leader is down: the client waits for the next one.
    kill_leader(&world).await;
    assert_eq!(
        clients[3]
            .prints(&["-c", "tag", "-i", r, "-t", "after"])
            .await,
        format!("{r}\n")
    );
    assert_eq!(
        clients[3].prints(&["-c", "tags", "-i", r]).await,
        "after=\n"
    );

    // One of three is left: nothing is changed, and nobody is told that it was.
    kill_leader(&world).await;
    let left = world
        .daemons
        .all()
        .iter()
        .position(|daemon| daemon.is_running())
        .expect("one runs");
    let survivor = &world.daemons.all()[left];
    let looked = until(
        "the survivor knows that nobody leads",
        PATIENCE,
        Duration::from_millis(50),
        async || match survivor
            .get("/api/raft-leader", Duration::from_secs(1))
            .await
        {
            Ok(reply) if reply.body == "\"\"" => Look::Holds(()),
            reply => Look::not(format!("{reply:?}")),
        },
    );
    looked.await.expect("no leader");
    let all = clients[3].clone().impatient();
    for arguments in [
        ["-c", "tag", "-i", r, "-t", "x"].as_slice(),
        &["-c", "clusters"],
        &["-c", "which-api"],
    ] {
        let ran = all.run(arguments).await;
        assert_eq!((ran.code, ran.out.as_str()), (Some(1), ""), "{ran:?}");
        assert!(
            ran.err.contains("Cannot determine leader from http://"),
            "{}",
            ran.err
        );
        for daemon in world.daemons.all() {
            assert!(
                ran.err.contains(&format!("{}/api: ", daemon.url())),
                "{}",
                ran.err
            );
        }
        assert!(
            ran.err.contains("it does not lead") && ran.err.contains("Failed to connect"),
            "{}",
            ran.err
        );
    }
    let alone = clients[left].clone().impatient();
    let ran = alone.run(&["-c", "tag", "-i", r, "-t", "x"]).await;
    assert_eq!((ran.code, ran.out.as_str()), (Some(1), ""), "{ran:?}");
    assert!(
        ran.err
            .contains("HTTP 503: there is no raft leader: nothing was done"),
        "{}",
        ran.err
    );
    let ran = alone.run(&["-c", "clusters"]).await;
    assert_eq!(
        (ran.code, ran.out.as_str()),
        (Some(0), cluster.as_str()),
        "{ran:?}"
    );
    assert!(
        ran.err.contains("warning: there is no raft leader"),
        "{}",
        ran.err
    );
    let ran = alone.run(&["-c", "raft-leader"]).await;
    assert_eq!((ran.code, ran.out.as_str()), (Some(1), ""), "{ran:?}");
}

/// Three daemons that ask for a password, through each of them: with it, without it, with a wrong one, and as the user
/// who may only look.
#[tokio::test]
async fn basic_authentication_through_each_daemon() {
    let _turn = TURN.lock().await;
    let mut options = DaemonOptions::default_configuration();
    let settings = json!({"AuthenticationMethod": "multi", "HTTPAuthUser": "ann", "HTTPAuthPassword": "s:cret"});
    options.settings = settings.as_object().expect("an object").clone();
    let daemons = Daemons::start(&options).expect("daemons");
    let clients = clients(&daemons);
    let with = |client: &Client, user: &str, password: &str| {
        client
            .clone()
            .with("ORCHESTRATOR_AUTH_USER", user)
            .with("ORCHESTRATOR_AUTH_PASSWORD", password)
    };
    // The first to be served waits for the first leader.
    let began = Instant::now();
    let ann = with(&clients[3], "ann", "s:cret");
    assert_eq!(
        ann.prints(&["-c", "check-global-recoveries"]).await,
        "enabled\n",
        "{:?}",
        began.elapsed()
    );
    for client in &clients {
        let ann = with(client, "ann", "s:cret");
        assert_eq!(
            ann.prints(&["-c", "tag", "-i", "db1", "-t", "x"]).await,
            "db1:3306\n"
        );
        let by_option = client
            .run(&["-c", "tagged", "-t", "x", "-b", "ann:s:cret"])
            .await;
        assert_eq!(
            (by_option.code, by_option.out.as_str()),
            (Some(0), "db1:3306\n"),
            "{by_option:?}"
        );
        let reader = with(client, "readonly", "any");
        assert_eq!(
            reader.prints(&["-c", "tagged", "-t", "x"]).await,
            "db1:3306\n"
        );
        let ran = reader.run(&["-c", "tag", "-i", "db1", "-t", "y"]).await;
        assert_eq!((ran.code, ran.err.as_str()), (Some(1), "Unauthorized\n"));
        for stranger in [client.clone(), with(client, "ann", "guess")] {
            let ran = stranger.run(&["-c", "tagged", "-t", "x"]).await;
            assert_eq!((ran.code, ran.out.as_str()), (Some(1), ""));
            assert!(
                ran.err
                    .contains("HTTP 401: a user and a password are asked for"),
                "{}",
                ran.err
            );
        }
    }
    // The probe of the original client looks for this very line.
    let probe = Command::new("curl")
        .args(["--silent", "--head", &daemons.all()[0].url()])
        .output()
        .await
        .expect("curl");
    let head = String::from_utf8_lossy(&probe.stdout).into_owned();
    assert!(head.starts_with("HTTP/1.1 401 Unauthorized\r\n"), "{head}");
}

/// The client on a machine that has bash, curl, jq and no other program, with its settings in their place: what it says by
/// itself and of answers of every kind, every order and spelling of the daemons' addresses, addresses that do not answer,
/// leaders that die, and a file that is rewritten while the client is used.
#[tokio::test]
async fn a_bare_machine_with_the_settings_in_their_place() {
    let _turn = TURN.lock().await;
    let daemons = Daemons::start(&DaemonOptions::steady()).expect("daemons");
    daemons.wait_leader(PATIENCE).await.expect("a leader");
    let folder = Scratch::create("bare").expect("a folder");
    let bare = Bare::make(folder.path(), &["bash", "curl", "jq"]).expect("made");
    let script = PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("../runtime/packaging/bin/orchestrator-client");
    bare.copy(&script, "usr/bin/orchestrator-client")
        .expect("copied");
    fs::create_dir_all(bare.root().join("etc/profile.d")).expect("made");
    let write_all = |apis: &str, rest: &str| {
        let profile = bare.root().join("etc/profile.d/orchestrator-client.sh");
        let fresh = profile.with_extension("new");
        let text = format!("export ORCHESTRATOR_API=\"{apis}\"\n{rest}");
        fs::write(&fresh, text).expect("written");
        fs::rename(fresh, profile).expect("renamed");
    };
    let write = |apis: &str| write_all(apis, "export ORCHESTRATOR_CLIENT_PATIENCE=60\n");
    let run = async |arguments: &[&str]| {
        // Its first line asks `env` where bash is.
        let mut command = Command::from(bare.command("/usr/bin/bash"));
        let output = command
            .arg("/usr/bin/orchestrator-client")
            .args(arguments)
            .stdin(Stdio::null())
            .kill_on_drop(true)
            .output()
            .await
            .expect("unshare and chroot");
        Ran {
            code: output.status.code(),
            out: String::from_utf8_lossy(&output.stdout).into_owned(),
            err: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    };
    // By the settings as they are at that moment.
    let finds_leader = async |apis: &str| {
        let looked = until(apis, PATIENCE, Duration::from_millis(100), async || {
            let ran = run(&["-c", "which-api"]).await;
            let leader = daemons.wait_leader(PATIENCE).await.expect("a leader");
            match ran.code == Some(0) && ran.out == format!("{}/api\n", leader.url()) {
                true => Look::Holds(()),
                false => Look::not(format!("{ran:?}, and {} leads", leader.url())),
            }
        });
        looked.await.expect("the client finds the leader");
    };
    let urls: Vec<String> = daemons.all().iter().map(|daemon| daemon.url()).collect();

    // What it says by itself is what it says on a machine that has everything.
    let help = Client::new("").prints(&["-c", "help"]).await;
    for form in [
        ["-c", "help"].as_slice(),
        &["-chelp"],
        &["--command=help"],
        &["-h"],
        &["--help"],
    ] {
        let ran = run(form).await;
        assert_eq!((ran.code, ran.err.as_str()), (Some(0), ""), "{form:?}");
        assert_eq!(ran.out, help, "{form:?}");
    }
    for (form, wanted) in [
        ([].as_slice(), "No command given"),
        (&["-c", "dance"], "Unsupported command dance"),
        (&["-c", "instance"], "instance must be provided"),
        (&["-c", "instance", "--frob"], "unknown option --frob;"),
    ] {
        let ran = run(form).await;
        assert_eq!((ran.code, ran.out.as_str()), (Some(1), ""), "{form:?}");
        assert!(ran.err.contains(wanted), "{form:?}: {}", ran.err);
    }

    // So is what it makes of answers. Nobody says who asks: that is his number.
    let given = Given::start().await;
    write_all(&given.api, "");
    let details = json!({"Code": "ERROR", "Message": "not attempted", "Details": [key("db1"), {}]});
    for (status, answer, arguments, path, wanted) in [
        (
            200,
            envelope("", key("db2")).to_string(),
            ["-c", "begin-downtime", "-i", "db2", "-r", "disk full"].as_slice(),
            "begin-downtime/db2/3306/0/disk%20full/10m",
            (Some(0), "db2:3306\n", ""),
        ),
        (
            200,
            json!([" a\tb ", {"c": []}]).to_string(),
            &["-c", "api", "-P", "/any"],
            "any",
            (Some(0), "[ \" a\\tb \", { \"c\": [] } ]\n", ""),
        ),
        (
            500,
            details.to_string(),
            &["-c", "recover", "-i", "db1"],
            "recover/db1/3306",
            (
                Some(1),
                "[ { \"Hostname\": \"db1\", \"Port\": 3306 }, {} ]\n",
                "not attempted\n",
            ),
        ),
        (
            404,
            format!("404\r\npage {}\n", "x".repeat(300)),
            &["-c", "clusters"],
            "clusters-info",
            (Some(1), "", "HTTP 404, and no JSON: 404 page xxx"),
        ),
    ] {
        given.answers(status, answer);
        let ran = run(arguments).await;
        let (code, out, err) = wanted;
        assert_eq!((ran.code, ran.out.as_str()), (code, out), "{ran:?}");
        assert!(ran.err.contains(err), "{ran:?}");
        assert_eq!(ran.err.is_empty(), err.is_empty(), "{ran:?}");
        assert_eq!(given.asked(), [format!("GET /api/{path}")]);
    }

    // Every order, every spelling.
    for (order, ends) in [
        ([0, 1, 2], ["", "/", "/api"]),
        ([0, 2, 1], ["/api", "/api/", ""]),
        ([1, 0, 2], ["/", "", "/api/"]),
        ([1, 2, 0], ["/api/", "/api", "/"]),
        ([2, 0, 1], ["", "", ""]),
        ([2, 1, 0], ["/api", "/api", "/api"]),
    ] {
        let apis: Vec<String> = order
            .iter()
            .zip(ends)
            .map(|(place, end)| format!("{}{end}", urls[*place]))
            .collect();
        let apis = apis.join(" ");
        write(&apis);
        finds_leader(&apis).await;
    }

    // One that takes connections and says nothing costs a second.
    let silent = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let silent = format!("http://{}", silent.local_addr().expect("bound"));
    let apis = format!("{silent} {}", urls.join(" "));
    write(&apis);
    let began = Instant::now();
    finds_leader(&apis).await;
    // A second, and the start of the programs; a connection that nobody answers takes minutes by itself.
    let cost = began.elapsed();
    println!("which-api took {cost:?}, with an address that does not answer");
    assert!(cost < Duration::from_secs(30), "{cost:?}");

    // None of them leads, and one of them can pass on.
    let leader = daemons.wait_leader(PATIENCE).await.expect("a leader");
    let followers: Vec<String> = urls
        .iter()
        .filter(|url| **url != leader.url())
        .cloned()
        .collect();
    write(&followers.join(" "));
    let ran = run(&["-c", "tag", "-i", "db1", "-t", "routed"]).await;
    assert_eq!(
        (ran.code, ran.out.as_str()),
        (Some(0), "db1:3306\n"),
        "{}",
        ran.err
    );

    // The leader dies between two calls, and the list stays as it is.
    write(&urls.join(" "));
    assert_eq!(
        run(&["-c", "tagged", "-t", "routed"]).await.out,
        "db1:3306\n"
    );
    leader.kill().await.expect("killed");
    let began = Instant::now();
    let ran = run(&["-c", "tag", "-i", "db2", "-t", "routed"]).await;
    assert_eq!(
        (ran.code, ran.out.as_str(), ran.err.as_str()),
        (Some(0), "db2:3306\n", "")
    );
    println!("the next call took {:?}", began.elapsed());
    leader.start().expect("started");

    // The list changes under a client that is used all the time: each call has one of the two.
    let (one, other) = (&followers[0], &followers[1]);
    let mut seen = Vec::new();
    for round in 0..20 {
        let wanted = if round % 2 == 0 { one } else { other };
        write(wanted);
        let ran = run(&["-c", "which-api"]).await;
        assert_eq!(ran.code, Some(0), "{}", ran.err);
        assert_eq!(ran.out, format!("{wanted}/api\n"));
        seen.push(ran.out);
    }
    assert_eq!(seen.len(), 20);

    // Nobody is there.
    write_all("http://127.0.0.1:1 http://127.0.0.1:2", "");
    let ran = run(&["-c", "clusters"]).await;
    assert_eq!((ran.code, ran.out.as_str()), (Some(1), ""));
    assert!(ran.err.contains("Cannot determine leader"), "{}", ran.err);
    // Of each of them in curl's words, without its name.
    for port in [1, 2] {
        let said =
            format!("http://127.0.0.1:{port}/api: Failed to connect to 127.0.0.1 port {port}");
        assert!(ran.err.contains(&said), "{}", ran.err);
    }
}

/// The daemon's own command line, forced in a raft set-up, looks at the backend of its machine: on the leader's it prints what
/// the client prints. What it does not have is refused, and nobody has it.
#[tokio::test]
async fn the_daemons_own_commands_print_the_same_on_the_leaders_machine() {
    let _turn = TURN.lock().await;
    let fleet = FleetOptions {
        flavour: Flavour::MariaDb,
        servers: 3,
        timing: ReplicationTiming::Quick,
    };
    let world = World::start(fleet, &DaemonOptions::steady())
        .await
        .expect("a fleet that the daemons know");
    let (primary, replica) = {
        let ports = world.fleet.ports();
        let primary = world.primary();
        let replica = ports.into_iter().find(|port| *port != primary);
        (primary, replica.expect("a replica"))
    };
    let (p, r) = (
        format!("127.0.0.1:{primary}"),
        format!("127.0.0.1:{replica}"),
    );
    let (p, r) = (p.as_str(), r.as_str());
    let leader = world.daemons.wait_leader(PATIENCE).await.expect("a leader");
    let client = Client::new(leader.url());
    // Both are in the backend when the tag, the later one, is.
    for change in [
        ["-c", "begin-downtime", "-i", r, "-r", "disk", "-u", "2h"].as_slice(),
        &["-c", "tag", "-i", r, "-t", "rack=7"],
    ] {
        client.prints(change).await;
    }
    let forced = |arguments: &[&str]| {
        let words: Vec<&str> = ["--ignore-raft-setup"]
            .iter()
            .chain(arguments)
            .copied()
            .collect();
        let output = leader.command().args(words).output().expect("it runs");
        Ran {
            code: output.status.code(),
            out: String::from_utf8_lossy(&output.stdout).into_owned(),
            err: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    };
    // The same flags, and the same lines.
    let mut compared: Vec<&str> = Vec::new();
    for arguments in [
        ["-c", "clusters"].as_slice(),
        &["-c", "all-clusters-masters"],
        &["-c", "all-instances"],
        &["-c", "topology", "-alias", "fleet"],
        &["-c", "topology", "-i", r],
        &["-c", "topology-tabulated", "-alias", "fleet"],
        &["-c", "topology-tags", "-alias", "fleet"],
        &["-c", "which-instance", "-i", r],
        &["-c", "which-cluster", "-i", r],
        &["-c", "which-cluster", "-alias", "fleet"],
        &["-c", "which-cluster-alias", "-i", r],
        &["-c", "which-cluster-master", "-alias", "fleet"],
        &["-c", "which-cluster-instances", "-alias", "fleet"],
        &["-c", "which-master", "-i", r],
        &["-c", "which-replicas", "-i", p],
        &["-c", "which-slaves", "-i", p],
        &["-c", "which-gtid-errant", "-i", r],
        &["-c", "is-replicating", "-i", r],
        &["-c", "is-replicating", "-i", p],
        &["-c", "is-replication-stopped", "-i", r],
        &["-c", "tags", "-i", r],
        &["-c", "tag-value", "-i", r, "-tag", "rack"],
        &["-c", "tagged", "-tag", "rack=7"],
        &["-c", "replication-analysis"],
    ] {
        let what = format!("{arguments:?}");
        let looked = until(&what, PATIENCE, Duration::from_millis(200), async || {
            let wanted = client.prints(arguments).await;
            let ran = forced(arguments);
            let good = ran.code == Some(0) && ran.err.contains("backend of this one daemon");
            if good && ran.out == wanted {
                Look::Holds(())
            } else {
                Look::not(format!("{ran:?}, wanted {wanted}"))
            }
        });
        looked.await.expect(&what);
        compared.push(arguments[1]);
    }
    // Those that have another form, or that the client spells otherwise.
    for (arguments, wanted) in [
        (["-c", "clusters-alias"].as_slice(), format!("{p}\tfleet\n")),
        (&["-c", "search", "-pattern", r], format!("{r}\n")),
        (
            &["-c", "find", "-pattern", "^127.*"],
            client.prints(&["-c", "all-instances"]).await,
        ),
        (&["-c", "bulk-instances"], {
            let mut names: Vec<String> = world
                .fleet
                .servers()
                .iter()
                .map(|server| server.key())
                .collect();
            names.sort();
            format!("{}\n", names.join("\n"))
        }),
        (&["-c", "which-downtimed-instances"], format!("{r}\n")),
        (
            &["-c", "which-downtimed-instances", "-alias", "fleet"],
            format!("{r}\n"),
        ),
        (&["-c", "which-lost-in-recovery"], String::new()),
        (
            &["-c", "which-cluster-domain", "-alias", "fleet"],
            String::from("\n"),
        ),
        (
            &["-c", "get-cluster-heuristic-lag", "-alias", "fleet"],
            String::from("0\n"),
        ),
        (
            &["-c", "which-cluster", "-alias", "nothing"],
            String::from("\n"),
        ),
        (
            &["-c", "tag-value", "-i", r, "-tag", "shelf"],
            String::new(),
        ),
        (
            &["-c", "check-global-recoveries"],
            String::from("OK: Global recoveries disabled: false\n"),
        ),
    ] {
        let ran = forced(arguments);
        assert_eq!(
            (ran.code, ran.out),
            (Some(0), wanted),
            "{arguments:?} {}",
            ran.err
        );
        compared.push(arguments[1]);
    }
    for look in LOOKS {
        assert!(compared.contains(look), "{look} is not compared");
    }
    for (arguments, why) in [
        (
            ["-c", "which-instance", "-i", "nowhere:1"].as_slice(),
            "Cannot read instance: nowhere:1",
        ),
        (
            &["-c", "which-cluster-alias", "-alias", "nothing"],
            "nothing",
        ),
        (&["-c", "which-cluster-instances"], "name a cluster"),
        (&["-c", "tagged"], "-tag is needed"),
        (&["-c", "forget", "-i", r], "running daemons would not see"),
    ] {
        let ran = forced(arguments);
        assert_eq!((ran.code, ran.out.as_str()), (Some(1), ""), "{arguments:?}");
        assert!(ran.err.contains(why), "{arguments:?}: {}", ran.err);
    }
    assert_eq!(client.prints(&["-c", "downtimed"]).await, format!("{r}\n"));
}
