//! What servers do, as far as recoveries are planned on it: one script a fact, run on real MySQL, on real MariaDB, and on
//! the model servers of both over the same protocol. Where a real server and its model differ, the model is wrong.
//!
//! The scripts are in `tests/facts`, by subject. A script begins with `== FLAVOURS: what it shows`. Servers are `p` (the
//! primary), `r` and `q` (its replicas; `servers 3` asks for the second). Lines are
//!
//! | line | |
//! |---|---|
//! | `p app: SQL => ok` | runs it as that account; `ok` may be left out |
//! | `=> error 1290`, `=> "value"`, `=> more than 1` | in the place of `ok`: a refusal, a value, a number beyond another |
//! | `=> gone`, `=> eof` | the session was ended, with or without an error that says so; without one |
//! | `r root: status Column` | that column of the replica's status in place of SQL; further names after a `/` |
//! | `p app& SQL` | begins it and goes on |
//! | `p app pending 500` | it has no answer within so many milliseconds |
//! | `p app answers => ok` | its answer |
//! | `wait LINE` | repeats a line until it comes out as it says |
//! | `let name = LINE` | keeps a value for `{name}`; `{port q}` and `{id p app}` (the session's number) are known |
//! | `kill p`, `terminate p`, `freeze p`, `thaw p`, `start p` | SIGKILL, SIGTERM, SIGSTOP, SIGCONT, a start |
//! | `start r with name=value` | a start with one line more in its configuration file |
//! | `passed 7000` | since the last signal was sent, so many milliseconds went by at least |
//! | `ended p` | its process is no more |
//! | `refused p`, `silent p` | a dial is refused; a dial is accepted and no login comes |
//! | `{port hole}` | of a black hole: a dial there is neither accepted nor refused |
//! | `purge q` | its binary logs are purged up to here |
//! | `backlog 20` | `r` has received that many transactions and applied none of them |
//!
//! Sessions are named by account: `root` has all rights, `daemon` those of the daemons, `app` writes rows; digits tell
//! several apart; any other is a user of that name who was created with the password `NAME-secret`.
//!
//! Of the measured facts one is not here, because the network makes it and not the server: how soon a black hole is noticed
//! (`black_hole.rs`). Of a duration only the least is compared: a busy machine makes everything longer, and nothing shorter.
#![allow(clippy::disallowed_methods)]

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail, ensure};
use orchestrator_tests::fleet::{Flavour, Fleet, FleetOptions, ReplicationTiming, Server};
use orchestrator_tests::process::Signal;
use orchestrator_tests::sql::{APP, HARNESS, ORCHESTRATOR, Row, Sql, SqlError};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::task::JoinHandle;

const DEADLINE: Duration = Duration::from_secs(30);
const LOOK: Duration = Duration::from_millis(20);

const SCRIPTS: [(&str, &str); 7] = [
    ("channel", include_str!("../facts/channel.facts")),
    ("locks", include_str!("../facts/locks.facts")),
    ("process", include_str!("../facts/process.facts")),
    ("read-only", include_str!("../facts/read-only.facts")),
    ("relay-log", include_str!("../facts/relay-log.facts")),
    ("semi-sync", include_str!("../facts/semi-sync.facts")),
    ("words", include_str!("../facts/words.facts")),
];

#[derive(Clone, Copy, PartialEq, Eq)]
enum Body {
    Real,
    Model,
}

/// One script: its title, and its lines with their numbers in the file.
struct Script {
    title: String,
    servers: usize,
    lines: Vec<(usize, &'static str)>,
}

fn scripts(flavour: Flavour) -> Vec<Script> {
    let mut scripts: Vec<Script> = Vec::new();
    for (file, text) in SCRIPTS {
        let mut wanted = false;
        for (number, line) in text.lines().enumerate() {
            let line = line.trim();
            if let Some(head) = line.strip_prefix("== ") {
                let (flavours, title) = head.split_once(": ").expect("flavours: title");
                wanted = flavours
                    .split(", ")
                    .map(|name| name.parse::<Flavour>().expect("a flavour"))
                    .any(|one| one == flavour);
                if wanted {
                    scripts.push(Script {
                        title: format!("{file}: {title}"),
                        servers: 2,
                        lines: Vec::new(),
                    });
                }
            } else if wanted && !line.is_empty() && !line.starts_with('#') {
                let script = scripts.last_mut().expect("a title comes first");
                match line.strip_prefix("servers ") {
                    Some(count) => script.servers = count.parse().expect("a count"),
                    None => script.lines.push((number + 1, line)),
                }
            }
        }
    }
    scripts
}

async fn run_all(flavour: Flavour, body: Body) {
    let wanted = std::env::var("FACT").unwrap_or_default();
    let mut failures = Vec::new();
    let mut ran = 0;
    for script in scripts(flavour) {
        if !script.title.contains(&wanted) {
            continue;
        }
        ran += 1;
        let began = Instant::now();
        let outcome = run(&script, flavour, body).await;
        let took = began.elapsed().as_secs_f64();
        match outcome {
            Ok(()) => println!("{took:5.1} s  {}", script.title),
            Err(error) => {
                println!("{took:5.1} s  FAILED  {}: {error:#}", script.title);
                failures.push(format!("{}: {error:#}", script.title));
            }
        }
    }
    assert!(ran > 0, "no script is called {wanted}");
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn model_of_mysql() {
    run_all(Flavour::MySql, Body::Model).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn model_of_mariadb() {
    run_all(Flavour::MariaDb, Body::Model).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn real_mysql() {
    run_all(Flavour::MySql, Body::Real).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn real_mariadb() {
    run_all(Flavour::MariaDb, Body::Real).await;
}

async fn run(script: &Script, flavour: Flavour, body: Body) -> Result<()> {
    let options = FleetOptions {
        flavour,
        servers: script.servers,
        timing: ReplicationTiming::Quick,
    };
    let fleet = match body {
        Body::Real => Fleet::start(options).await?,
        Body::Model => Fleet::start_models(options, "facts").await?,
    };
    let mut stage = Stage {
        fleet,
        sessions: BTreeMap::new(),
        values: BTreeMap::new(),
        signalled: Instant::now(),
        hole: None,
    };
    for (number, line) in &script.lines {
        stage
            .line(line)
            .await
            .with_context(|| format!("line {number}: {line}"))?;
    }
    Ok(())
}

enum Session {
    Idle(Sql),
    Busy(JoinHandle<(Sql, Outcome)>),
    Gone,
}

type Outcome = Result<Vec<Row>, SqlError>;

struct Stage {
    fleet: Fleet,
    sessions: BTreeMap<(String, String), Session>,
    values: BTreeMap<String, String>,
    /// When the last signal was about to be sent.
    signalled: Instant,
    hole: Option<Hole>,
}

/// A port at which nothing is ever accepted, and whose queue is full: the kernel drops what would dial it.
struct Hole {
    port: u16,
    _listener: TcpListener,
    _queue: Vec<TcpStream>,
}

impl Hole {
    async fn dig() -> Result<Self> {
        let socket = TcpSocket::new_v4()?;
        socket.bind("127.0.0.1:0".parse()?)?;
        let listener = socket.listen(1)?;
        let address = listener.local_addr()?;
        let mut queue = Vec::new();
        while let Ok(dialled) =
            tokio::time::timeout(Duration::from_millis(300), TcpStream::connect(address)).await
        {
            queue.push(dialled?);
            ensure!(queue.len() < 16, "the queue has no end");
        }
        Ok(Self {
            port: address.port(),
            _listener: listener,
            _queue: queue,
        })
    }
}

impl Stage {
    async fn line(&mut self, line: &str) -> Result<()> {
        if let Some(rest) = line.strip_prefix("wait ") {
            let began = Instant::now();
            loop {
                match Box::pin(self.line(rest)).await {
                    Ok(()) => return Ok(()),
                    Err(error) if began.elapsed() > DEADLINE => return Err(error),
                    Err(_) => tokio::time::sleep(LOOK).await,
                }
            }
        }
        if line.contains("{port hole}") && self.hole.is_none() {
            self.hole = Some(Hole::dig().await?);
        }
        if let Some(rest) = line.strip_prefix("let ") {
            let (name, rest) = rest.split_once(" = ").context("let NAME = LINE")?;
            let (target, session, sql, _) = statement(rest)?;
            let rows = self.ask(&target, &session, sql).await??;
            let value = rows.first().map(Row::only).unwrap_or_default().to_owned();
            self.values.insert(name.to_owned(), value);
            return Ok(());
        }
        if let Some(count) = line.strip_prefix("backlog ") {
            return Box::pin(self.backlog(count.parse()?)).await;
        }
        if let Some(target) = line.strip_prefix("purge ") {
            return self.purge(target).await;
        }
        if let Some((verb @ ("kill" | "terminate" | "freeze" | "thaw" | "start"), target)) =
            line.split_once(' ')
        {
            if verb == "start" {
                return self.start(target).await;
            }
            self.signalled = Instant::now();
            let server = self.server(target)?;
            match verb {
                "kill" => server.kill_and_wait().await?,
                "terminate" => drop(server.signal(Signal::Terminate)),
                "freeze" => drop(server.signal(Signal::Stop)),
                _ => drop(server.signal(Signal::Continue)),
            }
            return Ok(());
        }
        if let Some((verb @ ("refused" | "silent"), target)) = line.split_once(' ') {
            return self.dial(target, verb == "silent").await;
        }
        if let Some(target) = line.strip_prefix("ended ") {
            ensure!(!self.server(target)?.is_running(), "it runs");
            return Ok(());
        }
        if let Some(least) = line.strip_prefix("passed ") {
            let passed = self.signalled.elapsed();
            ensure!(
                passed >= Duration::from_millis(least.parse()?),
                "{passed:?}"
            );
            return Ok(());
        }
        if let Some((head, rest)) = line.split_once(" pending ") {
            let (target, session) = head.split_once(' ').context("SERVER SESSION")?;
            let window = Duration::from_millis(rest.parse()?);
            let key = (target.to_owned(), session.to_owned());
            let Some(Session::Busy(task)) = self.sessions.get_mut(&key) else {
                bail!("nothing is under way there");
            };
            return match tokio::time::timeout(window, task).await {
                Err(_) => Ok(()),
                Ok(ended) => bail!("it was answered: {:?}", ended?.1),
            };
        }
        if let Some((head, rest)) = line.split_once(" answers") {
            let (target, session) = head.split_once(' ').context("SERVER SESSION")?;
            let expected = self.filled(rest.strip_prefix(" => ").unwrap_or("ok"))?;
            let key = (target.to_owned(), session.to_owned());
            let Some(Session::Busy(task)) = self.sessions.remove(&key) else {
                bail!("nothing is under way there");
            };
            let (sql, outcome) = tokio::time::timeout(DEADLINE, task)
                .await
                .map_err(|_| anyhow!("no answer"))??;
            self.keep(key, sql, &outcome);
            return judge(outcome, &expected);
        }
        if let Some((head, sql)) = line.split_once("& ") {
            let (target, session) = head.split_once(' ').context("SERVER SESSION")?;
            let text = self.filled(sql)?;
            let mut connection = self.idle(target, session).await?;
            let task = tokio::spawn(async move {
                let outcome = connection.rows(&text).await;
                (connection, outcome)
            });
            let key = (target.to_owned(), session.to_owned());
            self.sessions.insert(key, Session::Busy(task));
            return Ok(());
        }
        let (target, session, sql, expected) = statement(line)?;
        let outcome = self.ask(&target, &session, sql).await;
        let expected = self.filled(expected)?;
        match outcome {
            Ok(outcome) => judge(outcome, &expected),
            // Not even let in.
            Err(error) => match error.downcast_ref::<mysql_async::Error>() {
                Some(mysql_async::Error::Server(refusal))
                    if expected == format!("error {}", refusal.code) =>
                {
                    Ok(())
                }
                _ => Err(error),
            },
        }
    }

    async fn start(&self, what: &str) -> Result<()> {
        let (target, option) = match what.split_once(" with ") {
            Some((target, option)) => (target, Some(option)),
            None => (what, None),
        };
        let server = self.server(target)?;
        if let Some(option) = option {
            let (name, value) = option.split_once('=').context("NAME=VALUE")?;
            server.set_option(name, value)?;
        }
        server.start()?;
        server.wait_up().await
    }

    fn server(&self, name: &str) -> Result<&Server> {
        let at = match name {
            "p" => 0,
            "r" => 1,
            "q" => 2,
            other => bail!("no server {other}"),
        };
        self.fleet
            .servers()
            .get(at)
            .ok_or_else(|| anyhow!("the script has no server {name}"))
    }

    /// A session that has nothing under way, logged in if need be. It is taken out.
    async fn idle(&mut self, target: &str, session: &str) -> Result<Sql> {
        let key = (target.to_owned(), session.to_owned());
        match self.sessions.remove(&key) {
            Some(Session::Idle(sql)) => Ok(sql),
            Some(Session::Busy(_)) => bail!("{session} has a statement under way"),
            None | Some(Session::Gone) => {
                let port = self.server(target)?.port();
                let name = session.trim_end_matches(|c: char| c.is_ascii_digit());
                let mut sql = match name {
                    "root" => Sql::connect(port, HARNESS, DEADLINE).await?,
                    "daemon" => Sql::connect(port, ORCHESTRATOR, DEADLINE).await?,
                    "app" => Sql::connect(port, APP, DEADLINE).await?,
                    user => {
                        let password = format!("{user}-secret");
                        Sql::connect_as(port, user, &password, DEADLINE).await?
                    }
                };
                let id = sql.value("SELECT CONNECTION_ID()").await?;
                self.values.insert(format!("id {target} {session}"), id);
                Ok(sql)
            }
        }
    }

    fn keep(&mut self, key: (String, String), sql: Sql, outcome: &Outcome) {
        let session = match outcome {
            Ok(_) | Err(SqlError::Server { .. }) => Session::Idle(sql),
            Err(SqlError::Deadline | SqlError::Broken(_)) => Session::Gone,
        };
        self.sessions.insert(key, session);
    }

    /// The outcome of a statement; an error when it could not be asked.
    async fn ask(&mut self, target: &str, session: &str, sql: &str) -> Result<Outcome> {
        let text = self.filled(sql)?;
        let mut connection = self.idle(target, session).await?;
        let outcome = match text.strip_prefix("status ") {
            None => connection.rows(&text).await,
            Some(columns) => {
                let flavour = self.fleet.flavour();
                let names: Vec<&str> = columns.split('/').collect();
                let status = match flavour {
                    Flavour::MariaDb => "SHOW ALL SLAVES STATUS",
                    Flavour::MySql => "SHOW REPLICA STATUS",
                };
                connection.rows(status).await.map(|rows| {
                    let value = rows.first().map(|row| row.text(&names).to_owned());
                    value
                        .into_iter()
                        .map(|value| Row::of("value", Some(value)))
                        .collect()
                })
            }
        };
        self.keep(
            (target.to_owned(), session.to_owned()),
            connection,
            &outcome,
        );
        Ok(outcome)
    }

    /// The text with its `{names}` replaced.
    fn filled(&self, text: &str) -> Result<String> {
        let mut filled = String::new();
        let mut rest = text;
        while let Some((before, after)) = rest.split_once('{') {
            let (name, after) = after.split_once('}').context("an open {")?;
            filled.push_str(before);
            match name.strip_prefix("port ") {
                Some("hole") => {
                    let hole = self.hole.as_ref().context("no hole was dug")?;
                    filled.push_str(&hole.port.to_string());
                }
                Some(target) => filled.push_str(&self.server(target)?.port().to_string()),
                None => filled.push_str(
                    self.values
                        .get(name)
                        .ok_or_else(|| anyhow!("nothing is called {name}"))?,
                ),
            }
            rest = after;
        }
        filled.push_str(rest);
        Ok(filled)
    }

    async fn dial(&self, target: &str, silent: bool) -> Result<()> {
        let port = self.server(target)?.port();
        if silent {
            let dialled = TcpStream::connect(("127.0.0.1", port)).await;
            dialled.context("not even accepted")?;
            return match Sql::connect(port, APP, Duration::from_millis(700)).await {
                Ok(_) => bail!("the login was complete"),
                Err(_) => Ok(()),
            };
        }
        match TcpStream::connect(("127.0.0.1", port)).await {
            Err(error) if error.kind() == std::io::ErrorKind::ConnectionRefused => Ok(()),
            Err(error) => Err(error.into()),
            Ok(_) => bail!("accepted"),
        }
    }

    /// All logs but the open one, which MariaDB gives up only some time after the next was begun.
    async fn purge(&mut self, target: &str) -> Result<()> {
        let line = format!("{target} root: FLUSH BINARY LOGS");
        Box::pin(self.line(&line)).await?;
        let began = Instant::now();
        loop {
            let sql = "PURGE BINARY LOGS BEFORE '2037-01-01 00:00:00'";
            self.ask(target, "root", sql).await??;
            let logs = self.ask(target, "root", "SHOW BINARY LOGS").await??;
            if logs.len() == 1 {
                return Ok(());
            }
            ensure!(began.elapsed() < DEADLINE, "{} logs are left", logs.len());
            tokio::time::sleep(LOOK).await;
        }
    }

    /// One transaction applied on `r`, then so many that it received with its applier stopped.
    async fn backlog(&mut self, count: u32) -> Result<()> {
        let (word, query, column) = match self.fleet.flavour() {
            Flavour::MariaDb => ("SLAVE", "SELECT @@GLOBAL.gtid_binlog_pos", "Gtid_IO_Pos"),
            Flavour::MySql => (
                "REPLICA",
                "SELECT @@GLOBAL.gtid_executed",
                "Retrieved_Gtid_Set",
            ),
        };
        let write = "p root: INSERT INTO app.note (text) VALUES ('x')";
        self.line(write).await?;
        self.line("wait r root: SELECT COUNT(*) FROM app.note => \"1\"")
            .await?;
        self.line(&format!("r root: STOP {word} SQL_THREAD"))
            .await?;
        for _ in 0..count {
            self.line(write).await?;
        }
        self.line(&format!("let sent = p root: {query}")).await?;
        self.line(&format!("wait r root: status {column} => \"{{sent}}\""))
            .await
    }
}

/// `SERVER SESSION: SQL => EXPECTATION`
fn statement(line: &str) -> Result<(String, String, &str, &str)> {
    let (head, rest) = line.split_once(": ").context("SERVER SESSION: SQL")?;
    let (target, session) = head.split_once(' ').context("SERVER SESSION: SQL")?;
    let (sql, expected) = rest.rsplit_once(" => ").unwrap_or((rest, "ok"));
    Ok((target.to_owned(), session.to_owned(), sql, expected))
}

fn judge(outcome: Outcome, expected: &str) -> Result<()> {
    if let Some(code) = expected.strip_prefix("error ") {
        return match outcome {
            Err(SqlError::Server { code: found, .. }) if found.to_string() == code => Ok(()),
            other => bail!("{other:?}"),
        };
    }
    if let "gone" | "eof" = expected {
        return match outcome {
            Err(SqlError::Broken(_)) => Ok(()),
            // Told so, and then closed: ER_SERVER_SHUTDOWN, ER_CONNECTION_KILLED, ER_QUERY_INTERRUPTED.
            Err(SqlError::Server {
                code: 1053 | 1927 | 1317,
                ..
            }) if expected == "gone" => Ok(()),
            other => bail!("{other:?}"),
        };
    }
    let rows = outcome?;
    let found = rows.first().map(Row::only).unwrap_or_default();
    if let Some(least) = expected.strip_prefix("more than ") {
        let (number, least): (u64, u64) = (found.parse().context("no number")?, least.parse()?);
        ensure!(number > least, "{found:?}");
        return Ok(());
    }
    let Some(value) = expected
        .strip_prefix('"')
        .and_then(|rest| rest.strip_suffix('"'))
    else {
        ensure!(expected == "ok", "what is {expected}?");
        return Ok(());
    };
    ensure!(found == value, "{found:?}");
    Ok(())
}
