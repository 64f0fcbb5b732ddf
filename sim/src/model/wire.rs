//! What is said between a model server and whoever dials it: frames of a length and a postcard value. It stands in for
//! the MySQL protocol at the level of statements; what matters is that it travels over the simulated sockets.

use std::io;
use std::time::Duration;

use orchestrator_core::gtid::GtidSet;
use orchestrator_core::id::Identity;
use orchestrator_core::recovery::Statement;
use orchestrator_core::topology::ProbeReport;
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use super::server::{Account, ServerError, Transaction};

/// No frame is longer.
const FRAME_BYTES_MAX: u32 = 8 << 20;

/// The server's first word.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Greeting {
    pub identity: Identity,
    pub server_id: u32,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Request {
    LogIn(Account),
    Probe,
    /// Answers after so long.
    Sleep(Duration),
    Execute(Statement),
    KillSession(u64),
    ClientSessions {
        spared: Vec<String>,
    },
    GetLock(String),
    LockHolders(Vec<String>),
    Write(u64),
    /// From here on the server sends what `held` lacks, and heartbeats, and hears acknowledgements.
    Dump {
        held: GtidSet,
        acknowledges: bool,
    },
    /// A semi-synchronous replica has received so much of the source's log.
    Acknowledge(usize),
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Reply {
    Done,
    Error(ServerError),
    /// The id of the session that logged in.
    LoggedIn(u64),
    Report(Box<ProbeReport>),
    Sessions(Vec<u64>),
    Locked(bool),
    Holders(Vec<Option<u64>>),
    /// And how much of the log has been sent with them.
    Transactions {
        transactions: Vec<Transaction>,
        next: usize,
    },
    Heartbeat,
}

/// Writes one frame.
pub async fn send<T: Serialize>(
    stream: &mut (impl AsyncWrite + Unpin),
    value: &T,
) -> io::Result<()> {
    let mut frame = vec![0; 4];
    frame = postcard::to_extend(value, frame).map_err(io::Error::other)?;
    let length = u32::try_from(frame.len() - 4).map_err(io::Error::other)?;
    frame[..4].copy_from_slice(&length.to_be_bytes());
    stream.write_all(&frame).await?;
    stream.flush().await
}

/// Reads one frame. [`io::ErrorKind::UnexpectedEof`] when the peer closed.
pub async fn receive<T: DeserializeOwned>(stream: &mut (impl AsyncRead + Unpin)) -> io::Result<T> {
    let length = stream.read_u32().await?;
    if length > FRAME_BYTES_MAX {
        return Err(io::Error::new(
            io::ErrorKind::InvalidData,
            format!("a frame of {length} bytes"),
        ));
    }
    let mut bytes = vec![0; length as usize];
    stream.read_exact(&mut bytes).await?;
    postcard::from_bytes(&bytes)
        .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error.to_string()))
}
