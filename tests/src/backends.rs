//! A server that holds the backends of three daemons.

use anyhow::Result;
use serde_json::{Map, Value, json};

use crate::fleet::{Flavour, Fleet, FleetOptions, ReplicationTiming};

/// A server with a schema and an account for each of three daemons: full rights on that schema, and no other.
///
/// # Errors
/// The server does not start, or refuses that.
pub async fn serve(flavour: Flavour) -> Result<Fleet> {
    let server = Fleet::start(FleetOptions {
        flavour,
        servers: 1,
        timing: ReplicationTiming::Quick,
    })
    .await?;
    let mut sql = server.servers()[0].harness().await?;
    for daemon in 1..=3 {
        sql.run_all([
            format!("CREATE DATABASE orc{daemon}"),
            format!("CREATE USER 'orc{daemon}'@'%' IDENTIFIED BY 'secret{daemon}'"),
            format!("GRANT ALL PRIVILEGES ON orc{daemon}.* TO 'orc{daemon}'@'%'"),
        ])
        .await?;
    }
    sql.close().await;
    Ok(server)
}

/// What a daemon's configuration says of its schema there.
#[must_use]
pub fn settings(backends: &Fleet) -> Map<String, Value> {
    let settings = [
        ("BackendDB", json!("mysql")),
        ("MySQLOrchestratorHost", json!("127.0.0.1")),
        ("MySQLOrchestratorPort", json!(backends.servers()[0].port())),
        ("MySQLOrchestratorDatabase", json!("orc{daemon}")),
        ("MySQLOrchestratorUser", json!("orc{daemon}")),
        ("MySQLOrchestratorPassword", json!("secret{daemon}")),
    ];
    let settings = settings.map(|(key, value)| (key.to_owned(), value));
    settings.into_iter().collect()
}
