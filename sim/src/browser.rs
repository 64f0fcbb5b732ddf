//! A small HTTP/1.1 client over simulated sockets: what an operator's script sends.

use std::io;
use std::time::Duration;

use orchestrator::env::timeout;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::daemon::HTTP_PORT;
use crate::engine::Engine;

const PATIENCE: Duration = Duration::from_secs(3);
const ANSWER_BYTES_MAX: u64 = 16 << 20;

/// Status and body of a GET to a daemon.
///
/// # Errors
/// No answer within 3 s, or none that is HTTP.
pub async fn get<E: Engine>(daemon: &str, path: &str) -> io::Result<(u16, String)> {
    get_within::<E>(daemon, path, PATIENCE).await
}

/// The same by somebody who waits for so long.
///
/// # Errors
/// No answer within that, or none that is HTTP.
pub async fn get_within<E: Engine>(
    daemon: &str,
    path: &str,
    patience: Duration,
) -> io::Result<(u16, String)> {
    let conversation = async {
        let mut stream = E::connect(&format!("{daemon}:{HTTP_PORT}")).await?;
        let request = format!("GET {path} HTTP/1.1\r\nHost: {daemon}\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await?;
        stream.flush().await?;
        let mut answer = Vec::new();
        stream
            .take(ANSWER_BYTES_MAX)
            .read_to_end(&mut answer)
            .await?;
        io::Result::Ok(answer)
    };
    let answer = timeout::<E, _>(patience, conversation)
        .await
        .ok_or_else(|| io::Error::new(io::ErrorKind::TimedOut, "no answer"))??;
    let text = String::from_utf8_lossy(&answer);
    let bad = || io::Error::new(io::ErrorKind::InvalidData, "no HTTP");
    let (head, body) = text.split_once("\r\n\r\n").ok_or_else(bad)?;
    let status = head
        .split(' ')
        .nth(1)
        .and_then(|status| status.parse().ok())
        .ok_or_else(bad)?;
    Ok((status, body.to_owned()))
}
