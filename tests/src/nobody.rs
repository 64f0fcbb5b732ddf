//! A daemon that runs as a user who may write nothing of others.

use std::fs::{self, Permissions};
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::Result;
use serde_json::json;

use crate::daemons::binary;
use crate::process::{Process, Scratch};
use crate::reserve::free_ports;

/// How it ended.
#[derive(Clone, Debug)]
pub struct Ended {
    /// `None` if it ran for as long as it was let.
    pub code: Option<i32>,
    pub took: Duration,
    /// The last line it said.
    pub last: String,
}

/// A folder in which everybody may write, with one for raft's directory.
///
/// # Errors
/// It cannot be made.
pub fn folder(name: &str) -> Result<Scratch> {
    let folder = Scratch::create(name)?;
    let open = Permissions::from_mode(0o777);
    fs::set_permissions(folder.path(), open.clone())?;
    fs::create_dir(folder.path().join("raft"))?;
    fs::set_permissions(folder.path().join("raft"), open)?;
    Ok(folder)
}

/// Runs a daemon, alone, with this file for its backend.
///
/// # Errors
/// It cannot be started, or said nothing.
pub async fn run(folder: &Path, file: &Path, patience: Duration) -> Result<Ended> {
    let ports = free_ports(2)?;
    let address = |port: u16| SocketAddr::from(([127, 0, 0, 1], port)).to_string();
    let configuration = folder.join("orchestrator.conf.json");
    let text = json!({
        "ListenAddress": address(ports[0]),
        "BackendDB": "sqlite",
        "SQLite3DataFile": file,
        "RaftEnabled": true,
        "RaftDataDir": folder.join("raft"),
        "RaftBind": address(ports[1]),
    });
    fs::write(&configuration, text.to_string())?;
    let binary = binary()?;
    // SAFETY: a plain system call.
    let mut command = if unsafe { libc::geteuid() } == 0 {
        // Where others may look, whatever folder the program was built in.
        let copy = folder.join("orchestrator");
        tokio::fs::copy(&binary, &copy).await?;
        let mut command = Command::new("setpriv");
        command
            .args(["--reuid=65534", "--regid=65534", "--clear-groups"])
            .args(["--pdeathsig", "KILL"])
            .arg(copy);
        command
    } else {
        Command::new(binary)
    };
    command.arg("--config").arg(&configuration).arg("http");
    command.current_dir("/");
    let log = folder.join("daemon.log");
    let began = Instant::now();
    let mut daemon = Process::start(command, &log)?;
    let ended = daemon.wait(patience).await;
    let took = began.elapsed();
    let log = fs::read_to_string(log)?;
    Ok(Ended {
        code: ended.and_then(|ended| ended.code()),
        took,
        last: log.lines().next_back().unwrap_or_default().to_owned(),
    })
}
