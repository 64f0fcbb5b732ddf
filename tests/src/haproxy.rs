//! HAProxy by the example, in both set-ups.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixStream;

use crate::daemons::Daemons;
use crate::process::{Process, Scratch};
use crate::reserve::free_ports;
use crate::wait::{Look, until};

const PATIENCE: Duration = Duration::from_secs(30);
const LOOK: Duration = Duration::from_millis(25);

const EXAMPLE: &str = include_str!("../../runtime/packaging/haproxy/orchestrator.cfg");

/// Who answered, in the answer's head.
pub const SERVER: &str = "X-Server: orchestrator-";

/// HAProxy in front of daemons. Goes before its folder.
#[derive(Debug)]
pub struct Proxy {
    /// Where the leader is taken.
    pub leader_only: SocketAddr,
    /// Where any healthy daemon is taken.
    pub any: SocketAddr,
    socket: PathBuf,
    _process: Process,
    _folder: Scratch,
}

/// What HAProxy knows of a daemon.
#[derive(Debug)]
struct Known {
    backend: String,
    /// From 1.
    number: usize,
    is_up: bool,
    is_checked: bool,
    /// How often it was chosen for a request.
    chosen: u64,
}

/// Within this time HAProxy by the example has noticed, in either set-up, that a daemon is not to be used.
///
/// # Errors
/// The example is another one than is known here.
pub fn noticed_within() -> Result<Duration> {
    noticed_by(EXAMPLE)
}

/// A daemon that was well a moment ago is asked again after `inter`, and has as long to answer where there is no `timeout check`
/// (HAProxy 2.6, configuration manual, section 4.2). The `fall`th wrong one counts. The slowest of all set-ups.
fn noticed_by(configuration: &str) -> Result<Duration> {
    ensure!(
        !configuration.contains("timeout check"),
        "the example bounds its checks otherwise"
    );
    let mut slowest = Duration::ZERO;
    let lines = configuration.lines().map(str::trim);
    for line in lines.filter(|line| line.starts_with("default-server ")) {
        let after = |name: &str| {
            let mut words = line.split_whitespace().skip_while(|word| *word != name);
            words.nth(1).with_context(|| format!("{line}: no {name}"))
        };
        let inter = after("inter")?.strip_suffix("ms");
        let inter = inter.with_context(|| format!("{line}: inter is not in ms"))?;
        let fall: u32 = after("fall")?.parse()?;
        slowest = slowest.max(Duration::from_millis(inter.parse()?) * 2 * fall);
    }
    ensure!(!slowest.is_zero(), "the example has no checks");
    Ok(slowest)
}

impl Proxy {
    /// The example with the addresses of these daemons. It adds [`SERVER`] and a number, from 1. It takes every daemon for good
    /// until its first check: those are done.
    ///
    /// # Errors
    /// It cannot be started, or the example is another one than is known here.
    pub async fn start(daemons: &Daemons) -> Result<Proxy> {
        let mut configuration = EXAMPLE.to_owned();
        let folder = Scratch::create("haproxy")?;
        let socket = folder.path().join("haproxy.socket");
        let ports = free_ports(2)?;
        let [leader_only, any] =
            [ports[0], ports[1]].map(|port| SocketAddr::from(([127, 0, 0, 1], port)));
        let mut replace = |from: &str, to: String| {
            ensure!(configuration.contains(from), "{from} is not in the example");
            configuration = configuration.replace(from, &to);
            Ok(())
        };
        replace("bind :80\n", format!("bind {leader_only}\n"))?;
        replace("bind :81\n", format!("bind {any}\n"))?;
        for (number, daemon) in (1..).zip(daemons.all()) {
            replace(&format!("10.0.0.{number}:3000"), daemon.http().to_string())?;
        }
        let checks = "    option httpchk\n";
        let told = "    http-response set-header X-Server %s\n";
        replace(checks, format!("{checks}{told}"))?;
        let stats = format!("global\n    stats socket {}\n", socket.display());
        replace("global\n", stats)?;
        let path = folder.path().join("haproxy.cfg");
        std::fs::write(&path, configuration)?;
        let program = ["/usr/sbin/haproxy", "/usr/local/sbin/haproxy"]
            .into_iter()
            .find(|path| Path::new(path).exists())
            .unwrap_or("haproxy");
        let mut command = Command::new(program);
        command.arg("-db").arg("-f").arg(&path);
        let process = Process::start(command, &folder.path().join("haproxy.log"))
            .context("haproxy; type:  tests/setup.sh haproxy")?;
        let proxy = Proxy {
            leader_only,
            any,
            socket,
            _process: process,
            _folder: folder,
        };
        until(
            "HAProxy has checked all",
            PATIENCE,
            LOOK,
            async || match proxy.known().await {
                Ok(known) if known.iter().all(|known| known.is_checked) => Look::Holds(()),
                other => Look::not(format!("{other:?}")),
            },
        )
        .await?;
        Ok(proxy)
    }

    /// The numbers of the daemons that a backend of the example takes.
    ///
    /// # Errors
    /// HAProxy does not answer.
    pub async fn up(&self, backend: &str) -> Result<Vec<usize>> {
        let known = self.known().await?;
        let up = known
            .iter()
            .filter(|known| known.backend == backend && known.is_up);
        Ok(up.map(|known| known.number).collect())
    }

    /// How often a backend of the example has chosen the daemon of this number for a request so far.
    ///
    /// # Errors
    /// HAProxy does not answer, or does not know it.
    pub async fn chosen(&self, backend: &str, number: usize) -> Result<u64> {
        let known = self.known().await?;
        let one = known
            .iter()
            .find(|known| known.backend == backend && known.number == number);
        let one = one.with_context(|| format!("{backend}: no daemon {number} in {known:?}"))?;
        Ok(one.chosen)
    }

    async fn known(&self) -> Result<Vec<Known>> {
        let mut stream = UnixStream::connect(&self.socket).await?;
        stream.write_all(b"show stat\n").await?;
        let mut table = String::new();
        stream.read_to_string(&mut table).await?;
        let mut rows = table
            .trim_start_matches("# ")
            .lines()
            .map(|line| line.split(',').collect::<Vec<_>>());
        let heads = rows.next().context("no table")?;
        let column = |name| heads.iter().position(|head| *head == name).context(name);
        let (backend, server) = (column("pxname")?, column("svname")?);
        let (status, check) = (column("status")?, column("check_status")?);
        // HAProxy 2.6, management guide, section 9.1: how often a server was selected, also when a request goes to another one.
        let chosen = column("lbtot")?;
        let known: Vec<Known> = rows
            .filter_map(|row| {
                let number = row.get(server)?.strip_prefix("orchestrator-")?;
                Some(Known {
                    backend: (*row.get(backend)?).to_owned(),
                    number: number.parse().ok()?,
                    is_up: row.get(status)?.starts_with("UP"),
                    is_checked: row.get(check)?.contains("L7"),
                    chosen: row.get(chosen)?.parse().ok()?,
                })
            })
            .collect();
        ensure!(!known.is_empty(), "no servers in {table}");
        Ok(known)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{noticed_by, noticed_within};

    #[test]
    fn what_haproxy_needs_to_notice_follows_from_its_checks() {
        let check = |words: &str, wanted: Option<u64>| {
            let by = noticed_by(&format!("backend x\n    default-server check {words}\n"));
            assert_eq!(by.ok(), wanted.map(Duration::from_millis), "{words}");
        };
        check("inter 500ms fastinter 200ms fall 1 rise 1", Some(1_000));
        check("fastinter 200ms inter 2000ms fall 3", Some(12_000));
        check(
            "inter 500ms fall 1\n    default-server inter 700ms fall 1",
            Some(1_400),
        );
        check("inter 500ms fall 1\n    timeout check 1s", None);
        check("inter 2s fall 1", None);
        check("inter 500ms", None);
        assert!(noticed_within().is_ok());
    }
}
