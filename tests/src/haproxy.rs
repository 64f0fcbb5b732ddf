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
}

impl Proxy {
    /// The example with the addresses of these daemons. It adds [`SERVER`] and a number, from 1. It takes every daemon for good
    /// until its first check: those are done.
    ///
    /// # Errors
    /// It cannot be started, or the example is another one than is known here.
    pub async fn start(daemons: &Daemons) -> Result<Proxy> {
        let mut configuration =
            include_str!("../../runtime/packaging/haproxy/orchestrator.cfg").to_owned();
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
        let known: Vec<Known> = rows
            .filter_map(|row| {
                let number = row.get(server)?.strip_prefix("orchestrator-")?;
                Some(Known {
                    backend: (*row.get(backend)?).to_owned(),
                    number: number.parse().ok()?,
                    is_up: row.get(status)?.starts_with("UP"),
                    is_checked: row.get(check)?.contains("L7"),
                })
            })
            .collect();
        ensure!(!known.is_empty(), "no servers in {table}");
        Ok(known)
    }
}
