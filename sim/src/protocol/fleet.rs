//! Fleets of model servers on this machine's loopback, in this process: what the demonstration and the scripts of facts
//! start, kill, freeze and start again.

use std::io;
use std::time::Duration;

use orchestrator::env::{Env, TokioEnv};
use orchestrator_core::id::InstanceKey;

use crate::model::host::World;
use crate::model::server::{Server, ServerError};
use crate::model::{Host, Kind};

impl World for TokioEnv {
    fn elapsed() -> Duration {
        TokioEnv::mono()
    }
}

/// An account that every server has.
#[derive(Debug, Clone, Copy)]
pub struct Login<'a> {
    pub user: &'a str,
    pub password: &'a str,
}

/// What the servers of a fleet begin with.
#[derive(Debug, Clone)]
pub struct Template<'a> {
    pub kind: Kind,
    /// All privileges.
    pub administrator: Login<'a>,
    pub replication: Login<'a>,
    /// Rows of the schema `app`.
    pub application: Login<'a>,
    /// CREATE USER and GRANT statements of further accounts.
    pub statements: &'a [String],
    pub net_timeout: Duration,
}

/// Makes a server without data on a port of 127.0.0.1.
///
/// # Errors
/// A statement of the template that the model does not understand.
pub fn server(
    template: &Template<'_>,
    port: u16,
    server_id: u32,
    read_only: bool,
) -> Result<Server, ServerError> {
    let key = InstanceKey::new("127.0.0.1", port);
    let mut server = Server::new(key, template.kind, server_id, read_only);
    for login in [
        template.administrator,
        template.replication,
        template.application,
    ] {
        server.create_user(login.user, login.password);
    }
    server.grant(template.administrator.user, ["ALL PRIVILEGES"]);
    server.grant(template.replication.user, ["REPLICATION SLAVE"]);
    let rows = ["SELECT", "INSERT", "UPDATE", "DELETE"].map(|right| format!("{right} ON app.*"));
    server.grant(template.application.user, rows.iter().map(String::as_str));
    for statement in template.statements {
        super::prepare(&mut server, statement)?;
    }
    server.set_net_timeout(template.net_timeout);
    Ok(server)
}

/// Model servers that are being served, on a thread of their own; dropping this ends them all and closes their sockets.
#[derive(Debug)]
pub struct Running {
    runtime: Option<tokio::runtime::Runtime>,
}

impl Running {
    /// Serves nobody so far.
    ///
    /// # Errors
    /// The operating system gives no thread.
    pub fn start() -> io::Result<Self> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .thread_name("model")
            .enable_all()
            .build()?;
        Ok(Running {
            runtime: Some(runtime),
        })
    }

    /// Serves a server on the port of its key.
    #[must_use]
    pub fn serve(&self, server: Server) -> Host {
        let address = server.key.to_string();
        let host = Host::new(server, TokioEnv::random_seed().unwrap_or(1));
        if let Some(runtime) = &self.runtime {
            drop(runtime.spawn(super::run::<TokioEnv>(host.clone(), address)));
        }
        host
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

/// The time that every model server of this process goes by.
#[must_use]
pub fn now() -> Duration {
    TokioEnv::elapsed()
}
