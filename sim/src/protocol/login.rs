//! The login, both sides: handshake version 10 with `mysql_native_password` (MariaDB) or `caching_sha2_password` (MySQL),
//! without TLS.
//!
//! Sources: MySQL client/server protocol, "Connection Phase", "Native Authentication", "Caching SHA-2 Authentication"
//! (only its fast path is needed: the model knows the passwords).

use std::io;

use sha1::{Digest as _, Sha1};
use sha2::Sha256;
use tokio::io::{AsyncRead, AsyncWrite};

use super::packet::{DEPRECATE_EOF, Fields, Packets, put_text, read_packet};
use crate::model::Kind;
use crate::model::server::{ServerError, code, error};

const CONNECT_WITH_DB: u32 = 1 << 3;
const SECURE_CONNECTION: u32 = 1 << 15;
const PLUGIN_AUTH: u32 = 1 << 19;
const PLUGIN_AUTH_LENGTH: u32 = 1 << 21;
/// What is offered: long passwords and flags, a schema, protocol 4.1, transactions, several statements and results,
/// plugins, attributes, and result sets that end with an OK packet.
const CAPABILITIES: u32 = 1
    | 1 << 2
    | CONNECT_WITH_DB
    | 1 << 9
    | 1 << 13
    | SECURE_CONNECTION
    | 1 << 16
    | 1 << 17
    | 1 << 18
    | PLUGIN_AUTH
    | 1 << 20
    | PLUGIN_AUTH_LENGTH
    | DEPRECATE_EOF;
const NONCE_BYTES: usize = 20;
const NATIVE: &str = "mysql_native_password";
const SHA2: &str = "caching_sha2_password";

/// Bytes that a password is mixed with, never the same twice, none of them 0.
pub type Nonce = [u8; NONCE_BYTES];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Plugin {
    Native,
    Sha2,
}

impl Plugin {
    const fn of(kind: Kind) -> Self {
        match kind {
            Kind::Mysql => Plugin::Sha2,
            Kind::Mariadb => Plugin::Native,
        }
    }

    const fn name(self) -> &'static str {
        match self {
            Plugin::Native => NATIVE,
            Plugin::Sha2 => SHA2,
        }
    }

    /// What proves that one knows the password.
    fn proof(self, password: &str, nonce: &Nonce) -> Vec<u8> {
        if password.is_empty() {
            return Vec::new();
        }
        match self {
            Plugin::Native => {
                let once = Sha1::digest(password);
                let twice = Sha1::digest(once);
                let mixed = Sha1::new()
                    .chain_update(nonce)
                    .chain_update(twice)
                    .finalize();
                once.iter()
                    .zip(mixed)
                    .map(|(one, other)| one ^ other)
                    .collect()
            }
            Plugin::Sha2 => {
                use sha2::Digest as _;
                let once = Sha256::digest(password);
                let thrice = Sha256::new()
                    .chain_update(Sha256::digest(once))
                    .chain_update(nonce)
                    .finalize();
                once.iter()
                    .zip(thrice)
                    .map(|(one, other)| one ^ other)
                    .collect()
            }
        }
    }
}

/// Who wants in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Login {
    pub user: String,
    pub deprecate_eof: bool,
    /// The number of the client's last packet.
    pub number: u8,
    proof: Vec<u8>,
    plugin: String,
}

/// The server's first packet.
pub fn greeting(kind: Kind, session: u32, nonce: &Nonce) -> Vec<u8> {
    // MariaDB 10 hides its version from clients that know nothing beyond 5.
    let version = match kind {
        Kind::Mysql => kind.version().to_owned(),
        Kind::Mariadb => format!("5.5.5-{}", kind.version()),
    };
    let mut bytes = vec![10];
    bytes.extend_from_slice(version.as_bytes());
    bytes.push(0);
    bytes.extend_from_slice(&session.to_le_bytes());
    bytes.extend_from_slice(&nonce[..8]);
    bytes.push(0);
    let capabilities = CAPABILITIES.to_le_bytes();
    bytes.extend_from_slice(&capabilities[..2]);
    bytes.extend_from_slice(&[45, 2, 0]);
    bytes.extend_from_slice(&capabilities[2..]);
    bytes.push(NONCE_BYTES as u8 + 1);
    bytes.extend_from_slice(&[0; 10]);
    bytes.extend_from_slice(&nonce[8..]);
    bytes.push(0);
    bytes.extend_from_slice(Plugin::of(kind).name().as_bytes());
    bytes.push(0);
    bytes
}

/// Reads the client's answer to the greeting. None: it is no such answer.
fn read_login(number: u8, bytes: &[u8]) -> Option<Login> {
    let mut fields = Fields(bytes);
    let capabilities = u32::try_from(fields.number(4)?).ok()?;
    fields.take(28)?;
    let user = String::from_utf8_lossy(fields.until_zero()?).into_owned();
    let length = if capabilities & PLUGIN_AUTH_LENGTH != 0 {
        fields.length()?
    } else {
        usize::from(fields.byte()?)
    };
    let proof = fields.take(length)?.to_vec();
    if capabilities & CONNECT_WITH_DB != 0 {
        fields.until_zero()?;
    }
    let plugin = if capabilities & PLUGIN_AUTH != 0 {
        fields.until_zero().unwrap_or_default()
    } else {
        NATIVE.as_bytes()
    };
    Some(Login {
        user,
        deprecate_eof: capabilities & DEPRECATE_EOF != 0,
        number,
        proof,
        plugin: String::from_utf8_lossy(plugin).into_owned(),
    })
}

/// The server's side: reads who wants in, and has the proof made again where it was made for another plugin.
///
/// # Errors
/// The stream's, and [`io::ErrorKind::InvalidData`] for what is no login.
pub async fn hear_login(
    stream: &mut (impl AsyncRead + AsyncWrite + Unpin),
    kind: Kind,
    nonce: &Nonce,
) -> io::Result<Login> {
    let (number, bytes) = read_packet(stream).await?;
    let mut login = read_login(number, &bytes)
        .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "no login"))?;
    let plugin = Plugin::of(kind);
    if login.plugin != plugin.name() {
        let mut change = vec![0xfe];
        change.extend_from_slice(plugin.name().as_bytes());
        change.push(0);
        change.extend_from_slice(nonce);
        change.push(0);
        let mut packets = Packets::after(login.number);
        packets.push(&change);
        packets.send(stream).await?;
        (login.number, login.proof) = read_packet(stream).await?;
    }
    Ok(login)
}

/// Whether the proof is that of the password; the packets that say so are pushed.
pub fn is_proven(login: &Login, kind: Kind, password: &str, nonce: &Nonce) -> bool {
    login.proof == Plugin::of(kind).proof(password, nonce)
}

/// Welcomes a client.
pub fn welcome(login: &Login, kind: Kind) -> Packets {
    let mut packets = Packets::after(login.number);
    if Plugin::of(kind) == Plugin::Sha2 && !login.proof.is_empty() {
        // Fast authentication succeeded.
        packets.push(&[1, 3]);
    }
    packets.ok(0, 0, false);
    packets
}

/// The client's side, for the receivers of model servers.
///
/// # Errors
/// The stream's; the server's refusal as the inner result.
pub async fn log_in(
    stream: &mut (impl AsyncRead + AsyncWrite + Unpin),
    user: &str,
    password: &str,
) -> io::Result<Result<(), ServerError>> {
    let bad = || io::Error::new(io::ErrorKind::InvalidData, "no greeting");
    let (number, bytes) = read_packet(stream).await?;
    if let Some(refusal) = read_error(&bytes) {
        return Ok(Err(refusal));
    }
    let mut fields = Fields(&bytes);
    let mut read = || -> Option<(Nonce, Plugin)> {
        fields.byte()?;
        fields.until_zero()?;
        fields.number(4)?;
        let mut nonce = fields.take(8)?.to_vec();
        fields.take(1 + 2 + 3 + 2 + 1 + 10)?;
        nonce.extend_from_slice(fields.take(NONCE_BYTES - 8)?);
        fields.take(1)?;
        let plugin = match fields.until_zero()? {
            name if name == NATIVE.as_bytes() => Plugin::Native,
            name if name == SHA2.as_bytes() => Plugin::Sha2,
            _ => return None,
        };
        Some((nonce.try_into().ok()?, plugin))
    };
    let (nonce, plugin) = read().ok_or_else(bad)?;
    let mut answer = CAPABILITIES.to_le_bytes().to_vec();
    answer[0] &= !(CONNECT_WITH_DB as u8);
    // No attributes either.
    answer[2] &= !0x10;
    answer.extend_from_slice(&(1_u32 << 24).to_le_bytes());
    answer.push(45);
    answer.extend_from_slice(&[0; 23]);
    answer.extend_from_slice(user.as_bytes());
    answer.push(0);
    put_text(&mut answer, &plugin.proof(password, &nonce));
    answer.extend_from_slice(plugin.name().as_bytes());
    answer.push(0);
    let mut packets = Packets::after(number);
    packets.push(&answer);
    packets.send(stream).await?;
    loop {
        let (_, bytes) = read_packet(stream).await?;
        match bytes.first() {
            Some(0) => return Ok(Ok(())),
            Some(1) => {}
            Some(0xff) => return Ok(Err(read_error(&bytes).ok_or_else(bad)?)),
            _ => return Err(bad()),
        }
    }
}

/// An error packet.
pub fn read_error(bytes: &[u8]) -> Option<ServerError> {
    let mut fields = Fields(bytes);
    if fields.byte()? != 0xff {
        return None;
    }
    let number = u16::try_from(fields.number(2)?).ok()?;
    let text = match fields.0 {
        [b'#', _, _, _, _, _, text @ ..] => text,
        text => text,
    };
    Some(error(number, String::from_utf8_lossy(text)))
}

/// 1045 for this user.
pub fn denied(user: &str, from: &str) -> ServerError {
    error(
        code::ACCESS_DENIED,
        format!("Access denied for user '{user}'@'{from}' (using password: YES)"),
    )
}
