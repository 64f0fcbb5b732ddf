//! The raft port: who is let in there.

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use orchestrator_tests::daemons::{Daemon, DaemonOptions, Daemons};
use orchestrator_tests::process::Scratch;
use orchestrator_tests::wait::{Look, until};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio_rustls::rustls::{self, ClientConfig, RootCertStore};

use super::{DEADLINE, PATIENCE, TURN, free_address};

async fn says(daemon: &Daemon, path: &str, words: &[&str]) {
    let what = format!("{}{path} says {words:?}", daemon.url());
    let looked = until(
        &what,
        PATIENCE,
        Duration::from_millis(100),
        async || match daemon.get(path, DEADLINE).await {
            Ok(reply) if words.iter().all(|word| reply.body.contains(word)) => Look::Holds(()),
            other => Look::not(format!("{other:?}")),
        },
    );
    looked.await.expect(&what);
}

async fn term(daemon: &Daemon) -> Value {
    let health = daemon.get("/api/v2/health", DEADLINE).await;
    health.expect("an answer").json().expect("a document")["Term"].clone()
}

fn log(daemon: &Daemon) -> String {
    std::fs::read_to_string(daemon.log()).expect("a log")
}

/// Three daemons with certificates of one authority, and strangers: one of another authority, one without any, and bytes that
/// mean nothing. None of them is let in, and none costs the cluster a term.
#[tokio::test]
async fn strangers_are_refused_where_there_are_certificates() {
    let _turn = TURN.lock().await;
    let folder = Scratch::create("raft-port").expect("a folder");
    let mut options = DaemonOptions::steady();
    options.spare = 1;
    options.late = options.count;
    options
        .settings
        .insert(String::from("RaftTLSRefusePlainText"), json!(true));
    let daemons = Daemons::start(&options).expect("prepared");
    let [n1, n2, n3, stranger] = daemons.all() else {
        panic!("four daemons");
    };
    for (name, of) in [("ours", [n1, n2, n3].as_slice()), ("theirs", &[stranger])] {
        let certificates = folder.path().join(name);
        let addresses: Vec<String> = of
            .iter()
            .map(|daemon| daemon.address().to_string())
            .collect();
        let mut words = vec!["raft", "init-certs"];
        let path = certificates.display().to_string();
        words.push(&path);
        words.extend(addresses.iter().map(String::as_str));
        let (is_done, said) = n1.run(&words).expect("it runs");
        assert!(is_done, "{said}");
        for (daemon, address) in of.iter().zip(&addresses) {
            for (key, file) in [
                ("RaftTLSCertFile", format!("{address}.pem")),
                ("RaftTLSKeyFile", format!("{address}.key")),
                ("RaftTLSCAFile", String::from("ca.pem")),
            ] {
                daemon
                    .set(key, json!(certificates.join(file)))
                    .expect("written");
            }
        }
    }
    for daemon in [n1, n2, n3] {
        daemon.start().expect("started");
    }
    let leader = daemons.wait_leader(PATIENCE).await.expect("a leader");
    daemons
        .ask_leader("/api/tag/db1/3306?tag=x")
        .await
        .expect("tagged");
    let before = term(leader).await;

    stranger
        .set_nodes(&[n1, n2, n3, stranger])
        .expect("written");
    stranger.start().expect("started");
    says(stranger, "/api/raft-health", &["certificate"]).await;
    // Without certificates it is told as little.
    stranger.kill().await.expect("killed");
    for key in ["RaftTLSCertFile", "RaftTLSKeyFile", "RaftTLSCAFile"] {
        stranger.set(key, "").expect("written");
    }
    stranger
        .set("RaftTLSRefusePlainText", false)
        .expect("written");
    stranger.start().expect("started");
    says(stranger, "/api/raft-health", &["unhealthy", "waiting for"]).await;
    assert!(
        log(stranger).contains("NOT PROTECTED"),
        "it does not say that it is open"
    );
    assert!(!log(n1).contains("NOT PROTECTED"));

    // Bytes that mean nothing, and slow ones: the connection ends, or nothing comes of it.
    let mut slow = Vec::new();
    for round in 0..60_u8 {
        let raft: (std::net::Ipv4Addr, u16) =
            ([n1, n2, n3][usize::from(round % 3)].address(), 10_008);
        let mut stream = TcpStream::connect(raft).await.expect("connected");
        let bytes: Vec<u8> = match round % 4 {
            0 => vec![round; 300],
            1 => vec![0xff; 70_000],
            2 => b"GET / HTTP/1.1\r\n\r\n".to_vec(),
            // A TLS record whose rest never comes.
            _ => vec![22, 3, 1],
        };
        stream.write_all(&bytes).await.ok();
        if round % 4 == 3 {
            slow.push(stream);
            continue;
        }
        let mut answer = Vec::new();
        let ended = tokio::time::timeout(DEADLINE, stream.read_to_end(&mut answer)).await;
        assert!(ended.is_ok(), "a connection with nonsense stays open");
    }
    daemons
        .ask_leader("/api/tag/db2/3306?tag=x")
        .await
        .expect("tagged");
    drop(slow);
    assert_eq!(term(leader).await, before, "a stranger cost a term");
    for daemon in [n1, n2, n3] {
        let reply = daemon
            .get("/api/raft-peers", DEADLINE)
            .await
            .expect("an answer");
        let peers: Vec<String> = serde_json::from_str(&reply.body).expect("names");
        assert_eq!(peers.len(), 3, "{peers:?}");
        daemon
            .wait_status("/api/raft-health", 200, PATIENCE)
            .await
            .expect("healthy");
    }
    let reply = stranger
        .get("/api/leader-check", DEADLINE)
        .await
        .expect("an answer");
    assert_eq!(reply.status, 404);
}

/// Whether a daemon's raft port takes a connection of somebody who bears the certificate of that host in `bears`, and shows
/// one that the authority of `trusts` vouches for.
async fn takes(daemon: &Daemon, bears: &Path, trusts: &Path) -> Result<(), String> {
    let text = |error: &dyn std::fmt::Display| error.to_string();
    let host = daemon.address().to_string();
    let mut roots = RootCertStore::empty();
    let authority = CertificateDer::from_pem_file(trusts.join("ca.pem")).expect("an authority");
    roots.add(authority).expect("an authority");
    let chain = CertificateDer::from_pem_file(bears.join(format!("{host}.pem")));
    let key = PrivateKeyDer::from_pem_file(bears.join(format!("{host}.key")));
    let config =
        ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_safe_default_protocol_versions()
            .expect("versions")
            .with_root_certificates(roots)
            .with_client_auth_cert(vec![chain.expect("a certificate")], key.expect("a key"))
            .expect("they belong together");
    let stream = TcpStream::connect((daemon.address(), 10_008)).await;
    let stream = stream.map_err(|error| text(&error))?;
    let connector = TlsConnector::from(Arc::new(config));
    let name = ServerName::try_from(host).expect("an address");
    let mut stream = connector
        .connect(name, stream)
        .await
        .map_err(|error| text(&error))?;
    // Who is refused is told so at once; who is not is waited for, to introduce itself. A daemon that stands still tells nobody
    // anything: what counts is its silence here after it has answered elsewhere.
    let mut byte = [0];
    for _ in 0..2 {
        let alive = daemon.get("/api/lb-check", DEADLINE).await;
        alive.map_err(|error| text(&error))?;
        match tokio::time::timeout(Duration::from_millis(250), stream.read(&mut byte)).await {
            Err(_) => {}
            Ok(Ok(_)) => return Err(String::from("the connection ended")),
            Ok(Err(error)) => return Err(text(&error)),
        }
    }
    Ok(())
}

/// The certificates of running daemons are exchanged for those of another authority, in the three steps that nobody notices:
/// no daemon is restarted, and none loses its place.
#[tokio::test]
async fn certificates_are_renewed_while_all_run() {
    let _turn = TURN.lock().await;
    let folder = Scratch::create("renewal").expect("a folder");
    // Whatever runs beside it, no member is late for so long.
    let mut options = DaemonOptions::steady();
    options.late = options.count;
    let path = |name: &str| folder.path().join(name);
    let settings = json!({
        "RaftTLSRefusePlainText": true,
        "RaftTLSCAFile": path("ca.pem"),
        "RaftTLSCertFile": path("{daemon}.pem"),
        "RaftTLSKeyFile": path("{daemon}.key"),
    });
    let settings = settings.as_object().expect("an object").clone();
    options.settings.extend(settings);
    let daemons = Daemons::start(&options).expect("prepared");
    let hosts: Vec<String> = daemons
        .all()
        .iter()
        .map(|daemon| daemon.address().to_string())
        .collect();
    let (old, new) = (path("old"), path("new"));
    for made in [&old, &new] {
        let made = made.display().to_string();
        let mut words = vec!["raft", "init-certs", &made];
        words.extend(hosts.iter().map(String::as_str));
        let (is_done, said) = daemons.all()[0].run(&words).expect("it runs");
        assert!(is_done, "{said}");
    }
    // A file is there whole, or as it was.
    let put = |name: String, text: String| {
        let beside = path("beside");
        fs::write(&beside, text).expect("written");
        fs::rename(beside, path(&name)).expect("renamed");
    };
    let read = |file: &Path| fs::read_to_string(file).expect("a file");
    let put_certificates = |of: &Path| {
        for (number, host) in (1..).zip(&hosts) {
            for end in ["key", "pem"] {
                let text = read(&of.join(format!("{host}.{end}")));
                put(format!("{number}.{end}"), text);
            }
        }
    };
    let authority = |of: &Path| read(&of.join("ca.pem"));
    put(String::from("ca.pem"), authority(&old));
    put_certificates(&old);
    for daemon in daemons.all() {
        daemon.start().expect("started");
    }
    let led = daemons.wait_whole(PATIENCE).await.expect("whole");
    let leader = &daemons.all()[led];
    let before = term(leader).await;
    let pids: Vec<Option<u32>> = daemons.all().iter().map(Daemon::pid).collect();
    let wait_takes = async |what: &str, bears: &Path, trusts: &Path, wanted: bool| {
        for daemon in daemons.all() {
            let pace = Duration::from_millis(100);
            let looked = until(what, PATIENCE, pace, async || {
                match takes(daemon, bears, trusts).await {
                    taken if taken.is_ok() == wanted => Look::Holds(()),
                    taken => Look::not(format!("{taken:?}")),
                }
            });
            looked.await.expect(what);
        }
    };
    wait_takes("the old are taken", &old, &old, true).await;
    wait_takes("the new are not", &new, &old, false).await;
    put(String::from("ca.pem"), authority(&old) + &authority(&new));
    wait_takes("both are taken", &new, &old, true).await;
    put_certificates(&new);
    wait_takes("the new are shown", &new, &new, true).await;
    put(String::from("ca.pem"), authority(&new));
    wait_takes("the old are not taken any more", &old, &new, false).await;

    assert_eq!(daemons.wait_whole(PATIENCE).await.expect("whole"), led);
    assert_eq!(term(leader).await, before, "the renewal cost a term");
    let after: Vec<Option<u32>> = daemons.all().iter().map(Daemon::pid).collect();
    assert_eq!(pids, after);
    // One that begins anew with the new ones alone is let in by those that began with the old ones.
    let follower = &daemons.all()[(led + 1) % 3];
    follower.kill().await.expect("killed");
    daemons
        .ask_leader("/api/tag/db1/3306?tag=x")
        .await
        .expect("tagged");
    follower.start().expect("started");
    assert_eq!(daemons.wait_whole(PATIENCE).await.expect("whole"), led);
    assert_eq!(term(leader).await, before);
}

/// Reads one frame: its length, then as much.
async fn frame(stream: &mut TcpStream) -> std::io::Result<Vec<u8>> {
    let length = stream.read_u32().await?;
    let mut frame = vec![0; length.min(1 << 20) as usize];
    stream.read_exact(&mut frame).await?;
    Ok(frame)
}

/// What a daemon says that dials somebody, as it is on the wire.
async fn introduction(listener: &TcpListener) -> Vec<u8> {
    let heard = async {
        loop {
            let (mut stream, _) = listener.accept().await.expect("a connection");
            if let Ok(frame) = frame(&mut stream).await {
                return frame;
            }
        }
    };
    let heard = tokio::time::timeout(PATIENCE, heard).await;
    heard.expect("it dials the address of its list")
}

/// Frames that begin as a daemon's do: a real one of another cluster's, changed in each of its bits and cut at each place, and
/// such as are promised and never come. None of it disturbs the members, which cannot be told apart from strangers here:
/// there are no certificates.
#[tokio::test]
async fn frames_of_the_right_version_that_mean_harm_disturb_nobody() {
    let _turn = TURN.lock().await;
    let mut options = DaemonOptions::steady();
    options.spare = 1;
    let daemons = Daemons::start(&options).expect("daemons");
    let [n1, n2, n3, stranger] = daemons.all() else {
        panic!("four daemons");
    };
    // It is a cluster of its own, and then looks for us.
    let here = free_address();
    let listener = TcpListener::bind(here).await.expect("free");
    stranger.set_nodes(&[stranger]).expect("written");
    stranger.start().expect("started");
    stranger
        .wait_status("/api/leader-check", 200, PATIENCE)
        .await
        .expect("a cluster of one");
    stranger.kill().await.expect("killed");
    let nodes = [stranger.raft(), here.to_string()];
    stranger.set("RaftNodes", nodes.to_vec()).expect("written");
    stranger.start().expect("started");
    let hello = introduction(&listener).await;
    drop(listener);
    stranger.kill().await.expect("killed");

    let leader = daemons.wait_leader(PATIENCE).await.expect("a leader");
    let before = term(leader).await;
    let memory = |daemon: &Daemon| {
        let status = fs::read_to_string(format!("/proc/{}/status", daemon.pid().expect("it runs")));
        let status = status.expect("a process");
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let kilobytes = line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok());
        kilobytes.expect("a number")
    };
    let memory_before = memory(leader);
    let whole = |frame: &[u8]| {
        let length = u32::try_from(frame.len()).expect("short");
        [&length.to_be_bytes()[..], frame].concat()
    };
    // As it is, it is answered with who we are; it is of another cluster.
    for daemon in [n1, n2, n3] {
        let mut stream = TcpStream::connect(daemon.raft()).await.expect("connected");
        stream.write_all(&whole(&hello)).await.expect("sent");
        let answer = frame(&mut stream).await.expect("an answer");
        assert_eq!(answer[0], hello[0], "another version");
    }
    let version = hello[0];
    let mut harms = Vec::new();
    for place in 1..hello.len() {
        let mut changed = hello.clone();
        changed[place] ^= 1 << (place % 8);
        harms.push(whole(&changed));
        harms.push(whole(&hello[..place]));
    }
    harms.push(whole(&[hello.as_slice(), &[0; 100]].concat()));
    for length in [16 << 10, (16 << 10) + 1, 8 << 20, u32::MAX] {
        harms.push([&length.to_be_bytes()[..], &[version, 1, 1]].concat());
    }
    println!("{} frames", harms.len());
    let mut slow = Vec::new();
    for (round, harm) in harms.iter().enumerate() {
        let daemon = [n1, n2, n3][round % 3];
        let mut stream = TcpStream::connect(daemon.raft()).await.expect("connected");
        if round % 10 == 0 {
            // The rest never comes, and nothing ends.
            let half = harm.len() / 2;
            stream.write_all(&harm[..half]).await.expect("sent");
            slow.push(stream);
            continue;
        }
        // It may have been ended before all of it was sent.
        stream.write_all(harm).await.ok();
        stream.shutdown().await.ok();
        let mut answer = Vec::new();
        let ended = tokio::time::timeout(DEADLINE, stream.read_to_end(&mut answer)).await;
        assert!(ended.is_ok(), "{harm:?} keeps a connection open");
    }
    for mut stream in slow {
        let mut answer = Vec::new();
        let ended = tokio::time::timeout(DEADLINE, stream.read_to_end(&mut answer)).await;
        assert!(ended.is_ok(), "who is slow keeps a connection");
    }
    daemons
        .ask_leader("/api/tag/db1/3306?tag=x")
        .await
        .expect("tagged");
    assert_eq!(term(leader).await, before, "it cost a term");
    let grown = memory(leader).saturating_sub(memory_before);
    assert!(grown < 64 << 10, "it took {grown} kB");
    for daemon in [n1, n2, n3] {
        daemon
            .wait_status("/api/raft-health", 200, PATIENCE)
            .await
            .expect("healthy");
        let reply = daemon.get("/api/raft-peers", DEADLINE).await;
        let peers: Vec<String> =
            serde_json::from_str(&reply.expect("an answer").body).expect("names");
        assert_eq!(peers.len(), 3, "{peers:?}");
        assert!(!log(daemon).contains("panicked"));
    }
}
