//! Garbage on the wire and in texts. What a real client library makes of the model is in `tests/tests/facts.rs`.

#![allow(clippy::disallowed_methods)]

use std::time::Duration;

use orchestrator_core::id::InstanceKey;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::fleet::{Login, Running, Template, server};
use super::login::log_in;
use super::packet::{PACKET_BYTES_MAX, Packets, read_packet};
use super::syntax;
use crate::model::{Host, Kind, Server};
use crate::random::SplitMix;

const APP: Login<'static> = Login {
    user: "app",
    password: "app-secret",
};

fn model(kind: Kind) -> Server {
    let template = Template {
        kind,
        administrator: Login {
            user: "root",
            password: "root-secret",
        },
        replication: Login {
            user: "repl",
            password: "repl-secret",
        },
        application: APP,
        statements: &[],
        net_timeout: Duration::from_secs(4),
    };
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = free.local_addr().unwrap().port();
    server(&template, port, 1, false).unwrap()
}

async fn dial(host: &Host) -> TcpStream {
    let InstanceKey { host, port } = host.key();
    loop {
        match TcpStream::connect((host.as_str(), *port)).await {
            Ok(stream) => return stream,
            Err(_) => tokio::task::yield_now().await,
        }
    }
}

fn run(test: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        tokio::time::timeout(Duration::from_secs(60), test)
            .await
            .expect("it hangs");
    });
}

/// The first packet that a command is answered with.
async fn command(stream: &mut TcpStream, bytes: &[u8]) -> Option<Vec<u8>> {
    let mut packets = Packets::after(u8::MAX);
    packets.push(bytes);
    packets.send(stream).await.ok()?;
    read_packet(stream).await.ok().map(|(_, bytes)| bytes)
}

#[test]
fn one_logs_in_with_the_password_and_not_without() {
    for kind in [Kind::Mysql, Kind::Mariadb] {
        run(async move {
            let running = Running::start().unwrap();
            let host = running.serve(model(kind));
            for (user, password, refusal) in [
                (APP.user, APP.password, None),
                (APP.user, "wrong", Some(1045)),
                (APP.user, "", Some(1045)),
                ("nobody", "", Some(1045)),
            ] {
                let mut stream = dial(&host).await;
                let told = log_in(&mut stream, user, password).await.unwrap();
                assert_eq!(told.err().map(|error| error.code), refusal, "{user}");
            }
        });
    }
}

/// The table of the documented `DetectClusterAliasQuery`, which the demonstration asks.
#[test]
fn what_people_call_the_cluster_can_be_asked() {
    run(async {
        let running = Running::start().unwrap();
        let mut named = model(Kind::Mariadb);
        named.set_cluster_name("shop");
        let host = running.serve(named);
        let mut stream = dial(&host).await;
        log_in(&mut stream, "root", "root-secret")
            .await
            .unwrap()
            .unwrap();
        let query = b"\x03SELECT name FROM meta.cluster";
        let first = command(&mut stream, query).await.unwrap();
        assert_eq!(first, [1], "one column");
        let mut told = Vec::new();
        while !told.ends_with(b"\x04shop") {
            told = read_packet(&mut stream).await.unwrap().1;
        }
    });
}

#[test]
fn garbage_ends_its_connection_and_nothing_else() {
    run(async {
        let running = Running::start().unwrap();
        let host = running.serve(model(Kind::Mysql));
        let mut random = SplitMix::new(7, 7);
        for round in 0..200_u32 {
            let mut stream = dial(&host).await;
            if round % 2 == 1 {
                log_in(&mut stream, APP.user, APP.password)
                    .await
                    .unwrap()
                    .unwrap();
            }
            let length = random.between(0, 300) as usize;
            let mut bytes: Vec<u8> = (0..length).map(|_| random.draw() as u8).collect();
            if round % 4 > 1 && length > 4 {
                // A packet of its length, with any command.
                let payload = (length - 4) as u32;
                bytes[..3].copy_from_slice(&payload.to_le_bytes()[..3]);
                bytes[3] = 0;
                bytes[4] = random.between(0, 0x22) as u8;
            }
            let _ = stream.write_all(&bytes).await;
            let _ = stream.shutdown().await;
            let mut rest = Vec::new();
            let _ = stream.read_to_end(&mut rest).await;
        }
        let mut stream = dial(&host).await;
        let too_long = (PACKET_BYTES_MAX as u32 + 1).to_le_bytes();
        log_in(&mut stream, APP.user, APP.password)
            .await
            .unwrap()
            .unwrap();
        stream.write_all(&too_long[..3]).await.unwrap();
        stream.write_all(&[0]).await.unwrap();
        assert_eq!(stream.read(&mut [0; 16]).await.unwrap_or(0), 0, "closed");

        let mut stream = dial(&host).await;
        log_in(&mut stream, APP.user, APP.password)
            .await
            .unwrap()
            .unwrap();
        assert_eq!(command(&mut stream, &[0x0e]).await.unwrap()[0], 0, "a ping");
        let unknown = command(&mut stream, &[0x21]).await.unwrap();
        assert_eq!(unknown[..3], [0xff, 0x17, 0x04], "1047");
        let sessions = host.look(|server| server.client_sessions(&[]).len());
        assert_eq!(sessions, 1, "the others ended");
    });
}

#[test]
fn any_text_is_read_or_refused() {
    let mut random = SplitMix::new(3, 3);
    let words = [
        "SELECT",
        "SHOW",
        "(",
        ")",
        ",",
        "'a",
        "''",
        "`",
        "@@global.",
        "@@x",
        "1",
        "1.5.2",
        "IN",
        "AND",
        "=",
        "FROM",
        "/*",
        "*/",
        "--",
        ";",
        "\\",
        "é",
        "\0",
        "count(*)",
        "LIKE",
    ];
    for _ in 0..3_000 {
        let text: String = (0..random.between(0, 30))
            .map(|_| {
                let word = words[random.between(0, words.len() as u64) as usize];
                format!("{word}{}", if random.one_in(2) { " " } else { "" })
            })
            .collect();
        for tokens in syntax::statements(&text).into_iter().flatten() {
            let mut parser = syntax::Parser::new(&text, &tokens);
            while !parser.is_at_end() {
                if parser.expression().is_err() && parser.name().is_err() && parser.value().is_err()
                {
                    break;
                }
            }
        }
    }
    let deep = format!("{}1{}", "(".repeat(5_000), ")".repeat(5_000));
    let tokens = syntax::statements(&deep).remove(0).unwrap();
    assert!(syntax::Parser::new(&deep, &tokens).expression().is_err());
}

#[test]
fn patterns() {
    for (pattern, text, fits) in [
        (
            "rpl_semi_sync_%_enabled",
            "rpl_semi_sync_source_enabled",
            true,
        ),
        ("rpl_semi_sync_%", "read_only", false),
        ("%", "", true),
        ("a_c", "ABC", true),
        ("a\\_c", "abc", false),
        ("a%b%c", "a-b-b", false),
    ] {
        assert_eq!(syntax::like(pattern, text), fits, "{pattern} {text}");
    }
}
