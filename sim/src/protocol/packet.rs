//! Packets of the MySQL protocol: a length, a number in the exchange, and bytes (MySQL client/server protocol, "Packets";
//! "Protocol::HandshakeV10", "COM_QUERY Response").
//!
//! Never trusts the peer: a packet longer than [`PACKET_BYTES_MAX`] ends the connection, and reading past the end of one is
//! an answer, not a panic.

use std::io;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use crate::model::server::ServerError;

/// No packet of a peer is longer.
pub const PACKET_BYTES_MAX: usize = 1 << 20;
/// A packet of this length would be continued by the next one.
const PACKET_CONTINUES: usize = 0xff_ffff;

/// Client and server both end result sets with an OK packet.
pub const DEPRECATE_EOF: u32 = 1 << 24;
/// Another result follows.
const MORE_RESULTS: u16 = 8;
const AUTOCOMMIT: u16 = 2;
/// utf8mb4_general_ci
const CHARACTER_SET: u16 = 45;
const TYPE_VAR_STRING: u8 = 0xfd;

/// Reads one packet: its number and its bytes.
///
/// # Errors
/// The stream's; [`io::ErrorKind::InvalidData`] for one that is too long.
pub async fn read_packet(reader: &mut (impl AsyncRead + Unpin)) -> io::Result<(u8, Vec<u8>)> {
    let mut header = [0; 4];
    reader.read_exact(&mut header).await?;
    let length =
        usize::from(header[0]) | usize::from(header[1]) << 8 | usize::from(header[2]) << 16;
    if length > PACKET_BYTES_MAX {
        return Err(io::Error::new(
            io::ErrorKind::InvalidData,
            format!("a packet of {length} bytes"),
        ));
    }
    let mut bytes = vec![0; length];
    reader.read_exact(&mut bytes).await?;
    Ok((header[3], bytes))
}

/// Packets of one answer, numbered from where the question left off.
#[derive(Debug)]
pub struct Packets {
    bytes: Vec<u8>,
    next: u8,
}

impl Packets {
    #[must_use]
    pub fn after(number: u8) -> Self {
        Packets {
            bytes: Vec::new(),
            next: number.wrapping_add(1),
        }
    }

    pub fn push(&mut self, payload: &[u8]) {
        debug_assert!(
            payload.len() < PACKET_CONTINUES,
            "our own answers are short"
        );
        let length = u32::try_from(payload.len()).unwrap_or(0).to_le_bytes();
        self.bytes.extend_from_slice(&length[..3]);
        self.bytes.push(self.next);
        self.next = self.next.wrapping_add(1);
        self.bytes.extend_from_slice(payload);
    }

    pub fn ok(&mut self, affected: u64, last_id: u64, more: bool) {
        self.push(&ok_payload(0, affected, last_id, more));
    }

    pub fn error(&mut self, error: &ServerError) {
        let mut payload = vec![0xff];
        payload.extend_from_slice(&error.code.to_le_bytes());
        payload.push(b'#');
        payload.extend_from_slice(sql_state(error.code).as_bytes());
        payload.extend_from_slice(error.message.as_bytes());
        self.push(&payload);
    }

    /// A result set, everything as text.
    pub fn rows(
        &mut self,
        columns: &[String],
        rows: &[Vec<Option<String>>],
        deprecate_eof: bool,
        more: bool,
    ) {
        let mut count = Vec::new();
        put_length(&mut count, columns.len() as u64);
        self.push(&count);
        for column in columns {
            let mut payload = Vec::new();
            put_text(&mut payload, b"def");
            for _ in 0..3 {
                put_text(&mut payload, b"");
            }
            put_text(&mut payload, column.as_bytes());
            put_text(&mut payload, b"");
            payload.push(0x0c);
            payload.extend_from_slice(&CHARACTER_SET.to_le_bytes());
            payload.extend_from_slice(&65_535_u32.to_le_bytes());
            payload.push(TYPE_VAR_STRING);
            payload.extend_from_slice(&[0, 0, 0, 0, 0]);
            self.push(&payload);
        }
        if !deprecate_eof {
            self.push(&eof_payload(false));
        }
        for row in rows {
            let mut payload = Vec::new();
            for value in row {
                match value {
                    None => payload.push(0xfb),
                    Some(text) => put_text(&mut payload, text.as_bytes()),
                }
            }
            self.push(&payload);
        }
        if deprecate_eof {
            self.push(&ok_payload(0xfe, 0, 0, more));
        } else {
            self.push(&eof_payload(more));
        }
    }

    /// Sends what was pushed and forgets it.
    ///
    /// # Errors
    /// The stream's.
    pub async fn send(&mut self, writer: &mut (impl AsyncWrite + Unpin)) -> io::Result<()> {
        writer.write_all(&self.bytes).await?;
        self.bytes.clear();
        writer.flush().await
    }
}

fn status(more: bool) -> u16 {
    if more {
        AUTOCOMMIT | MORE_RESULTS
    } else {
        AUTOCOMMIT
    }
}

fn ok_payload(header: u8, affected: u64, last_id: u64, more: bool) -> Vec<u8> {
    let mut payload = vec![header];
    put_length(&mut payload, affected);
    put_length(&mut payload, last_id);
    payload.extend_from_slice(&status(more).to_le_bytes());
    payload.extend_from_slice(&[0, 0]);
    payload
}

fn eof_payload(more: bool) -> Vec<u8> {
    let mut payload = vec![0xfe, 0, 0];
    payload.extend_from_slice(&status(more).to_le_bytes());
    payload
}

/// The five characters beside an error number.
const fn sql_state(code: u16) -> &'static str {
    match code {
        1040 => "08004",
        1045 | 1227 | 1142 => "42000",
        1053 => "08S01",
        1062 => "23000",
        1064 | 1305 => "42000",
        1146 => "42S02",
        1054 => "42S22",
        _ => "HY000",
    }
}

pub fn put_length(bytes: &mut Vec<u8>, length: u64) {
    match length {
        0..=250 => bytes.push(length as u8),
        251..=0xffff => {
            bytes.push(0xfc);
            bytes.extend_from_slice(&length.to_le_bytes()[..2]);
        }
        0x1_0000..=0xff_ffff => {
            bytes.push(0xfd);
            bytes.extend_from_slice(&length.to_le_bytes()[..3]);
        }
        _ => {
            bytes.push(0xfe);
            bytes.extend_from_slice(&length.to_le_bytes());
        }
    }
}

pub fn put_text(bytes: &mut Vec<u8>, text: &[u8]) {
    put_length(bytes, text.len() as u64);
    bytes.extend_from_slice(text);
}

/// Reads the fields of a packet; none past its end.
#[derive(Debug, Clone, Copy)]
pub struct Fields<'a>(pub &'a [u8]);

impl<'a> Fields<'a> {
    pub fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        Some(taken)
    }

    pub fn byte(&mut self) -> Option<u8> {
        Some(self.take(1)?[0])
    }

    pub fn number(&mut self, bytes: usize) -> Option<u64> {
        let taken = self.take(bytes)?;
        Some(
            taken
                .iter()
                .rev()
                .fold(0, |number, byte| number << 8 | u64::from(*byte)),
        )
    }

    pub fn length(&mut self) -> Option<usize> {
        let bytes = match self.byte()? {
            short @ 0..=250 => return Some(usize::from(short)),
            0xfc => 2,
            0xfd => 3,
            0xfe => 8,
            _ => return None,
        };
        usize::try_from(self.number(bytes)?).ok()
    }

    pub fn until_zero(&mut self) -> Option<&'a [u8]> {
        let at = self.0.iter().position(|byte| *byte == 0)?;
        let taken = self.take(at)?;
        self.take(1)?;
        Some(taken)
    }
}
