//! A connection to one server, every call with a deadline.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use mysql_async::prelude::Queryable;
use mysql_async::{Conn, OptsBuilder, Value};

/// A user of the servers.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Account {
    pub user: &'static str,
    pub password: &'static str,
}

/// Builds and inspects the fleet: all privileges.
pub const HARNESS: Account = Account {
    user: "harness",
    password: "harness-secret",
};
/// The daemons: what `runtime/packaging/grants` gives, nothing else.
pub const ORCHESTRATOR: Account = Account {
    user: "orchestrator",
    password: "orchestrator-secret",
};
/// Replication.
pub const REPLICATION: Account = Account {
    user: "repl",
    password: "repl-secret",
};
/// The clients: data manipulation in the schema `app`, nothing else.
pub const APP: Account = Account {
    user: "app",
    password: "app-secret",
};

/// How long a statement of the harness may take.
pub const STATEMENT_DEADLINE: Duration = Duration::from_secs(20);

/// One row of a result, by column name.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Row(BTreeMap<String, Option<String>>);

impl Row {
    /// A row of one column.
    pub fn of(column: &str, value: Option<String>) -> Row {
        Row(BTreeMap::from([(column.to_owned(), value)]))
    }

    /// The first of these columns that is there and not NULL (names differ between flavours).
    pub fn get(&self, names: &[&str]) -> Option<&str> {
        names
            .iter()
            .find_map(|name| self.0.get(*name).and_then(Option::as_deref))
    }

    /// The same, an empty string when there is none.
    pub fn text(&self, names: &[&str]) -> &str {
        self.get(names).unwrap_or("")
    }

    /// The only column of a one-column row.
    pub fn only(&self) -> &str {
        self.0
            .values()
            .next()
            .and_then(Option::as_deref)
            .unwrap_or("")
    }
}

/// A connection.
pub struct Sql {
    connection: Conn,
    deadline: Duration,
}

impl Sql {
    /// Connects over TCP to 127.0.0.1; `deadline` bounds the login and each statement.
    pub async fn connect(port: u16, account: Account, deadline: Duration) -> Result<Sql> {
        Sql::connect_as(port, account.user, account.password, deadline).await
    }

    /// The same, as any user.
    pub async fn connect_as(
        port: u16,
        user: &str,
        password: &str,
        deadline: Duration,
    ) -> Result<Sql> {
        let options = OptsBuilder::default()
            .ip_or_hostname("127.0.0.1")
            .tcp_port(port)
            .user(Some(user))
            .pass(Some(password))
            .prefer_socket(false)
            .max_allowed_packet(Some(16 << 20))
            .wait_timeout(Some(28_800))
            .tcp_nodelay(true);
        let connection = tokio::time::timeout(deadline, Conn::new(options))
            .await
            .map_err(|_| anyhow!("no login within {deadline:?}"))
            .and_then(|connected| connected.map_err(anyhow::Error::from))
            .with_context(|| format!("127.0.0.1:{port} as {user}"))?;
        Ok(Sql {
            connection,
            deadline,
        })
    }

    /// Connects to a socket file as root without a password: a server that was just initialised.
    pub async fn connect_socket(path: &Path) -> Result<Sql> {
        let options = OptsBuilder::default()
            .socket(path.to_str())
            .user(Some("root"))
            .max_allowed_packet(Some(16 << 20))
            .wait_timeout(Some(28_800));
        let connection = tokio::time::timeout(STATEMENT_DEADLINE, Conn::new(options)).await??;
        Ok(Sql {
            connection,
            deadline: STATEMENT_DEADLINE,
        })
    }

    /// Runs a statement and drops its result. After an error by deadline the connection is of no
    /// further use.
    pub async fn run(&mut self, statement: &str) -> Result<(), SqlError> {
        match tokio::time::timeout(self.deadline, self.connection.query_drop(statement)).await {
            Err(_) => Err(SqlError::Deadline),
            Ok(Err(error)) => Err(error.into()),
            Ok(Ok(())) => Ok(()),
        }
    }

    /// Runs several statements, one after the other; the error names the one that failed.
    pub async fn run_all<S: AsRef<str>>(
        &mut self,
        statements: impl IntoIterator<Item = S>,
    ) -> Result<()> {
        for statement in statements {
            let statement = statement.as_ref();
            self.run(statement)
                .await
                .with_context(|| statement.to_owned())?;
        }
        Ok(())
    }

    /// Runs a query and collects its rows.
    pub async fn rows(&mut self, query: &str) -> Result<Vec<Row>, SqlError> {
        let answer = tokio::time::timeout(
            self.deadline,
            self.connection.query::<mysql_async::Row, _>(query),
        )
        .await;
        let rows = match answer {
            Err(_) => return Err(SqlError::Deadline),
            Ok(Err(error)) => return Err(error.into()),
            Ok(Ok(rows)) => rows,
        };
        Ok(rows.into_iter().map(row).collect())
    }

    /// The first column of the first row; empty when there is none.
    pub async fn value(&mut self, query: &str) -> Result<String, SqlError> {
        Ok(self
            .rows(query)
            .await?
            .first()
            .map(|row| row.only().to_owned())
            .unwrap_or_default())
    }

    pub async fn close(self) {
        tokio::time::timeout(Duration::from_secs(1), self.connection.disconnect())
            .await
            .ok();
    }
}

fn row(row: mysql_async::Row) -> Row {
    let names: Vec<String> = row
        .columns_ref()
        .iter()
        .map(|column| column.name_str().into_owned())
        .collect();
    Row(names
        .into_iter()
        .zip(row.unwrap().into_iter().map(text))
        .collect())
}

fn text(value: Value) -> Option<String> {
    match value {
        Value::NULL => None,
        Value::Bytes(bytes) => Some(String::from_utf8_lossy(&bytes).into_owned()),
        Value::Int(number) => Some(number.to_string()),
        Value::UInt(number) => Some(number.to_string()),
        Value::Float(number) => Some(number.to_string()),
        Value::Double(number) => Some(number.to_string()),
        other @ (Value::Date(..) | Value::Time(..)) => Some(other.as_sql(true)),
    }
}

/// Why a statement failed.
#[derive(Debug)]
pub enum SqlError {
    /// The server answered with an error.
    Server { code: u16, message: String },
    /// No answer in time: the outcome is unknown.
    Deadline,
    /// The connection broke: the outcome is unknown.
    Broken(String),
}

impl SqlError {
    /// The server's error code, when it answered.
    pub fn code(&self) -> Option<u16> {
        match self {
            SqlError::Server { code, .. } => Some(*code),
            SqlError::Deadline | SqlError::Broken(_) => None,
        }
    }
}

impl From<mysql_async::Error> for SqlError {
    fn from(error: mysql_async::Error) -> Self {
        match error {
            mysql_async::Error::Server(error) => SqlError::Server {
                code: error.code,
                message: error.message,
            },
            other => SqlError::Broken(other.to_string()),
        }
    }
}

impl std::fmt::Display for SqlError {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            SqlError::Server { code, message } => write!(formatter, "error {code}: {message}"),
            SqlError::Deadline => write!(formatter, "no answer within the deadline"),
            SqlError::Broken(reason) => write!(formatter, "connection broken: {reason}"),
        }
    }
}

impl std::error::Error for SqlError {}
