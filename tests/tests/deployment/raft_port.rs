//! The raft port: who is let in there.

use std::fs::{self, File};
use std::net::SocketAddr;
use std::os::fd::AsRawFd as _;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use orchestrator_tests::daemons::{Daemon, DaemonOptions, Daemons, wait_applied, wait_members};
use orchestrator_tests::network::{Machine, Network};
use orchestrator_tests::process::{Scratch, Signal};
use orchestrator_tests::wait::{Look, until};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::broadcast;
use tokio::task::JoinHandle;
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

/// The lines of a daemon's log that say all of this.
fn lines(daemon: &Daemon, words: &[&str]) -> Vec<String> {
    let log = log(daemon);
    let lines = log
        .lines()
        .filter(|line| words.iter().all(|word| line.contains(word)));
    lines.map(str::to_owned).collect()
}

/// Waits until so many lines of a daemon's log say this.
async fn wait_lines(daemon: &Daemon, words: &[&str], count: usize) {
    let what = format!("{count} lines of {} say {words:?}", daemon.log().display());
    let looked = until(
        &what,
        PATIENCE,
        Duration::from_millis(50),
        async || match lines(daemon, words) {
            found if found.len() >= count => Look::Holds(()),
            found => Look::not(format!("{found:?}")),
        },
    );
    looked.await.expect(&what);
}

/// Waits until a daemon that logs everything says why it ended the connection that came from `from`.
async fn wait_ended_because(daemon: &Daemon, from: SocketAddr, why: &str) {
    let peer = format!("peer=\"{from}\"");
    wait_lines(daemon, &["raft connection ended", &peer, why], 1).await;
}

/// Each of them says that they are the members, and the term is what it was.
async fn undisturbed(daemons: &[&Daemon], before: &Value) {
    for daemon in daemons {
        let reply = daemon.get("/api/raft-peers", DEADLINE).await;
        let reply = reply.expect("an answer");
        let peers: Vec<String> = serde_json::from_str(&reply.body).expect("names");
        assert_eq!(peers.len(), daemons.len(), "{peers:?}");
        daemon
            .wait_status("/api/raft-health", 200, PATIENCE)
            .await
            .expect("healthy");
        assert_eq!(term(daemon).await, *before, "it cost a term");
        assert!(!log(daemon).contains("panicked"));
    }
}

/// Why a connection is refused where TLS is asked for.
const WITHOUT_TLS: &str = "it came without TLS, and RaftTLSRefusePlainText is true";
const CERTIFICATES: [&str; 3] = ["RaftTLSCertFile", "RaftTLSKeyFile", "RaftTLSCAFile"];

/// Makes an authority and certificates of these daemons' hosts in that folder, and gives each its own.
fn certify(daemons: &[&Daemon], folder: &Path) {
    let hosts = daemons.iter().map(|daemon| daemon.address().to_string());
    let hosts: Vec<String> = hosts.collect();
    let made = folder.display().to_string();
    let mut words = vec!["raft", "init-certs", &made];
    words.extend(hosts.iter().map(String::as_str));
    let (is_done, said) = daemons[0].run(&words).expect("it runs");
    assert!(is_done, "{said}");
    for (daemon, host) in daemons.iter().zip(&hosts) {
        let files = [
            format!("{host}.pem"),
            format!("{host}.key"),
            String::from("ca.pem"),
        ];
        for (key, file) in CERTIFICATES.into_iter().zip(files) {
            daemon.set(key, json!(folder.join(file))).expect("written");
        }
    }
}

/// Somebody sends the beginning of something, and then nothing, or a byte every while: how long it is until the daemon ends that.
fn outlast(
    raft: String,
    begin: Vec<u8>,
    pause: Option<Duration>,
) -> JoinHandle<(SocketAddr, Duration)> {
    tokio::spawn(async move {
        let began = Instant::now();
        let stream = TcpStream::connect(raft).await.expect("connected");
        let own = stream.local_addr().expect("it has one");
        let (mut from, mut to) = stream.into_split();
        to.write_all(&begin).await.expect("sent");
        let dripping = async {
            let Some(pause) = pause else {
                return std::future::pending().await;
            };
            while to.write_all(&[1]).await.is_ok() {
                tokio::time::sleep(pause).await;
            }
        };
        let mut answer = Vec::new();
        tokio::select! {
            _ = from.read_to_end(&mut answer) => {}
            () = dripping => {}
        }
        (own, began.elapsed())
    })
}

/// Three daemons with certificates of one authority, and strangers: one of another authority, one without any, bytes that
/// mean nothing, and such as come slowly or never. None of them is let in, and none costs the cluster a term.
#[tokio::test]
async fn strangers_are_refused_where_there_are_certificates() {
    let _turn = TURN.lock().await;
    let folder = Scratch::create("raft-port").expect("a folder");
    let mut options = DaemonOptions::steady();
    options.spare = 1;
    options.late = options.count;
    // Why a connection ended is in the log.
    options.settings.insert(String::from("Debug"), json!(true));
    let daemons = Daemons::start(&options).expect("prepared");
    let [n1, n2, n3, stranger] = daemons.all() else {
        panic!("four daemons");
    };
    let members = [n1, n2, n3];
    certify(&members, &folder.path().join("ours"));
    certify(&[stranger], &folder.path().join("theirs"));
    for daemon in members {
        daemon.start().expect("started");
    }
    wait_members(&members, PATIENCE).await.expect("whole");
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
    // Without certificates it is told as little, and members say that this is why.
    stranger.kill().await.expect("killed");
    for key in CERTIFICATES {
        stranger.set(key, "").expect("written");
    }
    for daemon in members {
        assert_eq!(lines(daemon, &[WITHOUT_TLS]), Vec::<String>::new());
    }
    stranger.start().expect("started");
    says(stranger, "/api/raft-health", &["unhealthy", "waiting for"]).await;
    for daemon in members {
        wait_lines(daemon, &["WARN", WITHOUT_TLS], 1).await;
        assert!(!log(daemon).contains("NOT PROTECTED"));
    }
    assert!(
        log(stranger).contains("NOT PROTECTED"),
        "it does not say that it is open"
    );

    // Bytes that mean nothing: the connection ends.
    for round in 0..45_u8 {
        let daemon = members[usize::from(round % 3)];
        let mut stream = TcpStream::connect(daemon.raft()).await.expect("connected");
        let bytes: Vec<u8> = match round / 3 % 3 {
            0 => vec![200 + round; 300],
            1 => vec![0xff; 70_000],
            _ => b"GET / HTTP/1.1\r\n\r\n".to_vec(),
        };
        stream.write_all(&bytes).await.ok();
        let mut answer = Vec::new();
        let ended = tokio::time::timeout(DEADLINE, stream.read_to_end(&mut answer)).await;
        assert!(ended.is_ok(), "a connection with nonsense stays open");
    }
    // Nothing at all, a record whose length is half there, half of a record (a ClientHello of 508 bytes), and one of which a byte
    // comes every while: whoever is slow is not waited for.
    let half = [&[22, 3, 1, 2, 0, 1, 0, 1, 252, 3, 3][..], &[0; 250]].concat();
    let pause = Duration::from_millis(100);
    let mut slow = Vec::new();
    for daemon in members {
        for (begin, pause) in [
            (Vec::new(), None),
            (vec![22, 3, 1, 2], None),
            (half.clone(), None),
            (half.clone(), Some(pause)),
        ] {
            slow.push((daemon, outlast(daemon.raft(), begin, pause)));
        }
    }
    for (daemon, one) in slow {
        let ended = tokio::time::timeout(DEADLINE, one).await;
        let ended = ended.expect("who is slow keeps a connection");
        let (from, after) = ended.expect("it ends");
        println!("a slow one is ended after {after:?}");
        wait_ended_because(daemon, from, "no answer within").await;
    }
    daemons
        .ask_leader("/api/tag/db2/3306?tag=x")
        .await
        .expect("tagged");
    undisturbed(&members, &before).await;
    let reply = stranger
        .get("/api/leader-check", DEADLINE)
        .await
        .expect("an answer");
    assert_eq!(reply.status, 404);
}

/// Whether somebody who has no certificate is answered: where it may speak, it is told that it was not understood. Where it
/// called from.
async fn answers(daemon: &Daemon) -> (bool, SocketAddr) {
    let stream = TcpStream::connect(daemon.raft()).await;
    let mut stream = stream.expect("connected");
    let own = stream.local_addr().expect("it has one");
    // A frame of one byte, which is no version. It may have been ended before it was sent.
    stream.write_all(&[0, 0, 0, 1, 0]).await.ok();
    let answer = tokio::time::timeout(DEADLINE, frame(&mut stream)).await;
    (answer.expect("it stays open").is_ok(), own)
}

/// A cluster without certificates is moved to TLS one member after the other: whoever has them is told to speak to those that
/// have none, and says so; when all have them, nothing is to be told any more, and nobody without is spoken to.
#[tokio::test]
async fn a_cluster_is_moved_to_tls_member_by_member() {
    let _turn = TURN.lock().await;
    let folder = Scratch::create("to-tls").expect("a folder");
    let mut options = DaemonOptions::steady();
    options.spare = 1;
    options.settings.insert(String::from("Debug"), json!(true));
    let daemons = Daemons::start(&options).expect("daemons");
    let [n1, n2, n3, stranger] = daemons.all() else {
        panic!("four daemons");
    };
    let members = [n1, n2, n3];
    wait_members(&members, PATIENCE).await.expect("whole");
    let warnings = |daemon: &Daemon| lines(daemon, &["NOT PROTECTED"]);
    for daemon in members {
        assert_eq!(warnings(daemon).len(), 1);
        assert!(answers(daemon).await.0);
    }
    // Until a daemon reads its file again, nothing comes of that.
    certify(&members, &folder.path().join("ours"));
    let moved = async |daemon: &Daemon| {
        daemon.restart(PATIENCE).await.expect("restarted");
        wait_members(&members, PATIENCE).await.expect("whole");
        for (number, asked) in members.iter().enumerate() {
            let path = format!("/api/tag/db{number}/3306?tag=moved");
            let taken = asked.wait_status(&path, 200, PATIENCE).await;
            taken.expect("tagged");
        }
    };
    for daemon in members {
        daemon
            .set("RaftTLSRefusePlainText", false)
            .expect("written");
        moved(daemon).await;
        let warnings = warnings(daemon);
        let [_, last] = warnings.as_slice() else {
            panic!("it does not say that it is open: {warnings:?}");
        };
        assert!(last.contains("RaftTLSRefusePlainText"), "{last}");
        assert!(answers(daemon).await.0, "it speaks to nobody without TLS");
    }
    for daemon in members {
        daemon
            .set("RaftTLSRefusePlainText", Value::Null)
            .expect("written");
        moved(daemon).await;
        assert_eq!(warnings(daemon).len(), 2, "it says that it is open");
        let (is_answered, from) = answers(daemon).await;
        assert!(!is_answered, "it speaks to somebody without TLS");
        wait_ended_because(daemon, from, WITHOUT_TLS).await;
        // It is told of without being asked, too.
        wait_lines(daemon, &["WARN", WITHOUT_TLS], 1).await;
    }

    let leader = daemons.wait_leader(PATIENCE).await.expect("a leader");
    let before = term(leader).await;
    let refused = members.map(|daemon| lines(daemon, &[WITHOUT_TLS]).len());
    stranger
        .set_nodes(&[n1, n2, n3, stranger])
        .expect("written");
    stranger.start().expect("started");
    says(stranger, "/api/raft-health", &["unhealthy", "waiting for"]).await;
    for (daemon, before) in members.into_iter().zip(refused) {
        wait_lines(daemon, &[WITHOUT_TLS], before + 1).await;
    }
    let reply = stranger.get("/api/leader-check", DEADLINE).await;
    assert_eq!(reply.expect("an answer").status, 404);
    let leads = daemons.wait_leader(PATIENCE).await.expect("a leader");
    assert_eq!(leads.address(), leader.address());
    undisturbed(&members, &before).await;
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
    let grown = memory(leader).saturating_sub(memory_before);
    assert!(grown < 64 << 10, "it took {grown} kB");
    undisturbed(&[n1, n2, n3], &before).await;
}

/// What one daemon sent to another on a connection, from its beginning to its end.
#[derive(Clone, Debug, Default)]
struct Recording {
    /// The place of the daemon that was sent to.
    place: usize,
    sent: Vec<u8>,
    /// How often something was sent after something was answered: a handshake with certificates is once.
    replies: usize,
}

/// Passes on whatever is said to daemons at addresses of their hosts, and keeps what callers say.
#[derive(Debug)]
struct Recorder {
    recordings: Arc<Mutex<Vec<Recording>>>,
    /// Told when the connections are to end that there are.
    ending: Arc<Mutex<broadcast::Sender<()>>>,
}

fn locked<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Recorder {
    fn new() -> Recorder {
        Recorder {
            recordings: Arc::default(),
            ending: Arc::new(Mutex::new(broadcast::channel(1).0)),
        }
    }

    /// The address at which it listens for the daemon of this place.
    async fn listen(&self, place: usize, daemon: &Daemon) -> SocketAddr {
        let listener = TcpListener::bind((daemon.address(), 0)).await;
        let listener = listener.expect("a port");
        let here = listener.local_addr().expect("bound");
        let (recordings, ending) = (self.recordings.clone(), self.ending.clone());
        let raft = daemon.raft();
        tokio::spawn(async move {
            while let Ok((from, _)) = listener.accept().await {
                if let Ok(to) = TcpStream::connect(&raft).await {
                    let ending = locked(&ending).subscribe();
                    tokio::spawn(record(recordings.clone(), place, from, to, ending));
                }
            }
        });
        here
    }

    /// Ends the connections that there are; of all so far, those on which something was asked.
    async fn end(&self) -> Vec<Recording> {
        let next = broadcast::channel(1).0;
        let ending = std::mem::replace(&mut *locked(&self.ending), next);
        ending.send(()).expect("connections");
        let what = "connections that there were";
        let pace = Duration::from_millis(10);
        let looked = until(what, PATIENCE, pace, async || {
            match ending.receiver_count() {
                0 => Look::Holds(()),
                left => Look::not(left),
            }
        });
        looked.await.expect("they end");
        let recordings = locked(&self.recordings);
        let asked = recordings.iter().filter(|one| one.replies > 1);
        asked.cloned().collect()
    }
}

async fn record(
    recordings: Arc<Mutex<Vec<Recording>>>,
    place: usize,
    mut from: TcpStream,
    mut to: TcpStream,
    mut ending: broadcast::Receiver<()>,
) {
    let mut recording = Recording {
        place,
        ..Recording::default()
    };
    let mut is_answered = false;
    let (mut said, mut answer) = ([0; 16 << 10], [0; 16 << 10]);
    loop {
        let passed = tokio::select! {
            count = from.read(&mut said) => match count {
                Ok(count) if count > 0 => {
                    recording.sent.extend_from_slice(&said[..count]);
                    recording.replies += usize::from(is_answered);
                    is_answered = false;
                    to.write_all(&said[..count]).await.is_ok()
                }
                _ => false,
            },
            count = to.read(&mut answer) => match count {
                Ok(count) if count > 0 => {
                    is_answered = true;
                    from.write_all(&answer[..count]).await.is_ok()
                }
                _ => false,
            },
            _ = ending.recv() => false,
        };
        if !passed {
            break;
        }
    }
    locked(&recordings).push(recording);
}

/// What a daemon says of raft, but for what is of the moment.
async fn standing(daemon: &Daemon) -> Value {
    let mut status = daemon.status().await.expect("an answer");
    for member in status["Members"].as_array_mut().expect("members") {
        let member = member.as_object_mut().expect("a member");
        member.remove("LastContactMilliseconds");
        member.remove("EntriesBehind");
    }
    status
}

/// Waits until everything is said that a cluster says of itself when it begins: it writes nothing more of its own accord.
async fn wait_settled(daemons: &[&Daemon]) {
    for daemon in daemons {
        let what = format!("{} has heard all", daemon.url());
        let pace = Duration::from_millis(50);
        let looked = until(&what, PATIENCE, pace, async || {
            let status = match daemon.status().await {
                Ok(status) => status,
                Err(error) => return Look::not(format!("{error:#}")),
            };
            let members = status["Members"].as_array().cloned().unwrap_or_default();
            let is_known = |member: &Value| member["RaftProtocols"] != "";
            let is_same = status["DifferingSettings"] == json!([]) && status["Upgrade"] == "";
            match is_same && members.iter().all(is_known) {
                true => Look::Holds(()),
                false => Look::not(format!("{status:#}")),
            }
        });
        looked.await.expect(&what);
    }
}

/// Whatever members said to each other with certificates is sent again, to whom it was said and to the others: nobody is
/// taken in by it, though each of them obeyed it when it was said.
#[tokio::test]
async fn what_was_said_with_certificates_cannot_be_said_again() {
    let _turn = TURN.lock().await;
    let folder = Scratch::create("replay").expect("a folder");
    let mut options = DaemonOptions::steady();
    options.late = options.count;
    options.settings.insert(String::from("Debug"), json!(true));
    let daemons = Daemons::start(&options).expect("prepared");
    let all: Vec<&Daemon> = daemons.all().iter().collect();
    certify(&all, folder.path());
    let recorder = Recorder::new();
    let mut nodes = Vec::new();
    for (place, daemon) in all.iter().enumerate() {
        let here = recorder.listen(place, daemon).await.to_string();
        daemon.set("RaftAdvertise", here.clone()).expect("written");
        nodes.push(here);
    }
    for daemon in &all {
        daemon.set("RaftNodes", nodes.clone()).expect("written");
        daemon.start().expect("started");
    }
    let led = daemons.wait_whole(PATIENCE).await.expect("whole");
    wait_settled(&all).await;
    let tags = ["db1", "db2", "db3"];
    for server in tags {
        let path = format!("/api/tag/{server}/3306?tag=recorded");
        daemons.ask_leader(&path).await.expect("tagged");
    }
    for daemon in &all {
        let applied = wait_applied(&daemons, daemon, PATIENCE).await;
        applied.expect("each has obeyed");
    }
    let recordings = recorder.end().await;
    for (place, daemon) in all.iter().enumerate() {
        let to_it = recordings.iter().filter(|one| one.place == place);
        let sent: Vec<usize> = to_it.map(|one| one.sent.len()).collect();
        println!("{} was sent so many bytes: {sent:?}", daemon.url());
        // Others were told of the changes by who leads, which they tell how they are.
        assert!(!sent.is_empty(), "nobody asked {}", daemon.url());
    }
    // What was said is true no more.
    for server in tags {
        let path = format!("/api/untag/{server}/3306?tag=recorded");
        daemons
            .ask_leader(&path)
            .await
            .expect("not tagged any more");
    }
    assert_eq!(daemons.wait_whole(PATIENCE).await.expect("whole"), led);
    let mut before = Vec::new();
    for daemon in &all {
        let applied = wait_applied(&daemons, daemon, PATIENCE).await;
        applied.expect("each has obeyed");
        before.push(standing(daemon).await);
    }

    for round in 0..2 {
        for recording in &recordings {
            for daemon in &all {
                let mut stream = TcpStream::connect(daemon.raft()).await.expect("connected");
                let from = stream.local_addr().expect("it has one");
                // It may be ended before all of it was sent.
                stream.write_all(&recording.sent).await.ok();
                let mut answer = Vec::new();
                let ended = tokio::time::timeout(DEADLINE, stream.read_to_end(&mut answer)).await;
                assert!(ended.is_ok(), "round {round}: it keeps a connection");
                wait_ended_because(daemon, from, "decrypt").await;
            }
        }
    }
    for (daemon, before) in all.iter().zip(before) {
        assert_eq!(standing(daemon).await, before, "something came of it");
        let tagged = daemon.get("/api/tagged?tag=recorded", DEADLINE).await;
        assert_eq!(tagged.expect("an answer").body, "[]");
        assert!(!log(daemon).contains("panicked"));
    }
}

/// So many connections that are not of members' hosts may wait to say who they are, and so many of one host.
const WAITING_MAX: usize = 128;
const WAITING_PER_HOST_MAX: usize = 32;
/// A daemon that is started again is healthy within this time: what is promised of one that crashed (SR-44).
const RESTARTED: Duration = Duration::from_secs(15);
/// Whoever is not let in tries again after this.
const TRIED_AGAIN: Duration = Duration::from_millis(100);

/// Opens more connections from a machine to each of these than one host may, and says nothing on them; what is closed is opened
/// again at once, until `ended`.
fn crowd(
    machine: &Machine,
    at: Vec<String>,
    ended: Arc<AtomicBool>,
) -> std::thread::JoinHandle<()> {
    let namespace = File::open(Path::new("/var/run/netns").join(machine.host_name()));
    let namespace = namespace.expect("a network of its own");
    // The thread is of that network for good, and so are the connections that it makes.
    std::thread::spawn(move || {
        // SAFETY: a plain system call on a descriptor that is open.
        let entered = unsafe { libc::setns(namespace.as_raw_fd(), libc::CLONE_NEWNET) };
        assert_eq!(entered, 0, "{}", std::io::Error::last_os_error());
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .expect("a runtime");
        runtime.block_on(async {
            for raft in at {
                for _ in 0..WAITING_PER_HOST_MAX + 2 {
                    tokio::spawn(keep_open(raft.clone()));
                }
            }
            while !ended.load(Ordering::Relaxed) {
                tokio::time::sleep(TRIED_AGAIN).await;
            }
        });
    })
}

async fn keep_open(raft: String) {
    loop {
        let began = Instant::now();
        if let Ok(mut stream) = TcpStream::connect(&raft).await {
            stream.read_to_end(&mut Vec::new()).await.ok();
        }
        if began.elapsed() < TRIED_AGAIN {
            tokio::time::sleep(TRIED_AGAIN).await;
        }
    }
}

/// Does something, and finds no place free with these daemons meanwhile, but for moments.
async fn while_full<T>(daemons: &[&Daemon], doing: impl Future<Output = T>) -> T {
    let (mut looks, mut free) = (0, 0);
    let looking = async {
        loop {
            for daemon in daemons {
                looks += 1;
                free += usize::from(answers(daemon).await.0);
            }
            tokio::time::sleep(TRIED_AGAIN).await;
        }
    };
    let done = tokio::select! {
        done = doing => done,
        () = looking => unreachable!("it looks without end"),
    };
    println!("{free} of {looks} looks found a place");
    assert!(looks > 0 && free * 4 <= looks, "{free} of {looks}");
    done
}

/// Strangers on four machines take every place of those who have not said yet who they are, on each daemon, and take it again
/// when it is free. Members do not feel it, be they started meanwhile; and the logs say what goes on.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn strangers_in_numbers_keep_no_member_away() {
    let _turn = TURN.lock().await;
    // Members are told from others by where they call from, which is one address for all on loopback.
    let crowds = WAITING_MAX / WAITING_PER_HOST_MAX;
    let network = Network::lay(u8::try_from(3 + crowds).expect("few")).expect("a network");
    let daemons = Daemons::start_on(&network, &DaemonOptions::steady()).expect("daemons");
    let all: Vec<&Daemon> = daemons.all().iter().collect();
    let led = daemons.wait_whole(PATIENCE).await.expect("whole");
    let before = term(all[led]).await;
    let turned_away = ["WARN", "connections to the raft port"];
    for daemon in &all {
        assert!(answers(daemon).await.0, "there is room for one");
        assert_eq!(lines(daemon, &turned_away), Vec::<String>::new());
    }
    let ended = Arc::new(AtomicBool::new(false));
    let at: Vec<String> = all.iter().map(|daemon| daemon.raft()).collect();
    let threads: Vec<_> = network.machines()[3..]
        .iter()
        .map(|machine| crowd(machine, at.clone(), ended.clone()))
        .collect();
    // This process is on one more host, whose own share nobody takes.
    let wait_room = async |wanted: bool| {
        for daemon in &all {
            let what = format!("{} has room: {wanted}", daemon.url());
            let looked = until(&what, PATIENCE, TRIED_AGAIN, async || {
                match answers(daemon).await.0 {
                    found if found == wanted => Look::Holds(()),
                    found => Look::not(found),
                }
            });
            looked.await.expect(&what);
        }
    };
    wait_room(false).await;
    for daemon in &all {
        wait_lines(daemon, &turned_away, 1).await;
    }

    // A follower is started again: nobody else feels it.
    let follower = all[(led + 1) % 3];
    let others = [all[led], all[(led + 2) % 3]];
    let began = Instant::now();
    let restarted = while_full(&others, follower.restart(PATIENCE)).await;
    restarted.expect("it is healthy");
    let after = began.elapsed();
    println!("a follower is healthy again after {after:?}");
    assert!(after < RESTARTED, "{after:?}");
    wait_room(false).await;
    assert_eq!(daemons.wait_whole(PATIENCE).await.expect("whole"), led);
    undisturbed(&all, &before).await;

    // The leader is: another one leads then, and goes on.
    let leader = all[led];
    leader.signal(Signal::Terminate);
    leader.wait_ended(PATIENCE).await.expect("it ends");
    let next = daemons.wait_leader(PATIENCE).await.expect("a leader");
    let before = term(next).await;
    let others = [all[(led + 1) % 3], all[(led + 2) % 3]];
    let began = Instant::now();
    let started = while_full(&others, leader.start_until_healthy(PATIENCE)).await;
    started.expect("it is healthy");
    let after = began.elapsed();
    println!("who led is healthy again after {after:?}");
    assert!(after < RESTARTED, "{after:?}");
    wait_room(false).await;
    let leads = daemons.wait_whole(PATIENCE).await.expect("whole");
    assert_eq!(all[leads].address(), next.address(), "another one leads");
    daemons
        .ask_leader("/api/tag/db1/3306?tag=x")
        .await
        .expect("tagged");
    undisturbed(&all, &before).await;

    ended.store(true, Ordering::Relaxed);
    for thread in threads {
        thread.join().expect("it ends");
    }
    // What they had is given back.
    wait_room(true).await;
}
