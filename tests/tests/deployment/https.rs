//! HTTPS between clients and daemons, and between daemons: client certificates, a prefix, a password, and addresses that only
//! an advertisement leads to.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use orchestrator::http::routes::{Action, Answered, Kind, ROUTES};
use orchestrator_tests::authority::Authority;
use orchestrator_tests::daemons::{Daemon, DaemonOptions, Daemons};
use orchestrator_tests::process::Scratch;
use orchestrator_tests::relay::filled;
use orchestrator_tests::wait::{Look, until};
use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpStream};
use tokio::process::Command;

use super::{DEADLINE, PATIENCE, TURN};

/// Leads to `to`, as a router does that translates addresses; counts the connections.
pub(super) async fn forward(to: SocketAddr) -> (SocketAddr, Arc<AtomicUsize>) {
    let address = SocketAddr::new(to.ip(), 0);
    let listener = TcpListener::bind(address).await.expect("a port");
    let address = listener.local_addr().expect("bound");
    let count = Arc::new(AtomicUsize::new(0));
    let counted = count.clone();
    tokio::spawn(async move {
        while let Ok((mut from, _)) = listener.accept().await {
            counted.fetch_add(1, Ordering::Relaxed);
            tokio::spawn(async move {
                if let Ok(mut to) = TcpStream::connect(to).await {
                    tokio::io::copy_bidirectional(&mut from, &mut to).await.ok();
                }
            });
        }
    });
    (address, count)
}

/// Who asks.
struct Asker<'a> {
    folder: &'a Path,
    /// The name of a certificate.
    bears: Option<&'a str>,
    /// `user:password`
    user: Option<&'a str>,
}

impl Asker<'_> {
    /// The status, 0 without an answer, and the body.
    async fn ask(&self, daemon: &Daemon, path: &str) -> (u16, String) {
        let mut command = Command::new("curl");
        command
            .args(["--silent", "--globoff", "--max-time"])
            .arg(DEADLINE.as_secs().to_string())
            .args(["--write-out", "\n%{http_code}", "--cacert"])
            .arg(self.folder.join("ca.pem"));
        if let Some(name) = self.bears {
            command
                .arg("--cert")
                .arg(self.folder.join(format!("{name}.pem")))
                .arg("--key")
                .arg(self.folder.join(format!("{name}.key")));
        }
        if let Some(user) = self.user {
            command.args(["--user", user]);
        }
        let output = command
            .arg(format!("https://{}{path}", daemon.http()))
            .output()
            .await
            .expect("curl; type:  tests/setup.sh client");
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let (body, status) = text.rsplit_once('\n').expect("a status");
        (status.parse().expect("a status"), body.to_owned())
    }

    /// Asks until the answer has this status. Only what nobody answers for the moment is asked for again.
    async fn wait_status(&self, daemon: &Daemon, path: &str, wanted: u16) {
        let pace = Duration::from_millis(50);
        let looked = until(path, PATIENCE, pace, async || {
            match self.ask(daemon, path).await {
                (status, _) if status == wanted => Look::Holds(()),
                (0 | 502..=504, body) => Look::not(body),
                other => panic!("{:?} {:?} {path}: {other:?}", self.bears, self.user),
            }
        });
        looked.await.expect("an answer");
    }
}

/// The leader, and a follower.
async fn roles<'a>(daemons: &'a Daemons, dba: &Asker<'_>) -> (&'a Daemon, &'a Daemon) {
    let looked = until(
        "one leads, and the others know it",
        PATIENCE,
        Duration::from_millis(100),
        async || {
            let mut states = Vec::new();
            for daemon in daemons.all() {
                let (_, state) = dba.ask(daemon, "/orc/api/raft-state").await;
                let (routed, _) = dba.ask(daemon, "/orc/api/routed-leader-check").await;
                states.push((state, routed));
            }
            let is_up = states.iter().all(|(_, routed)| *routed == 200);
            let leader = states.iter().position(|(state, _)| state == "\"Leader\"");
            match leader {
                Some(leader) if is_up => Look::Holds(leader),
                _ => Look::not(format!("{states:?}")),
            }
        },
    );
    let leader = looked.await.expect("a leader");
    let all = daemons.all();
    (&all[leader], &all[(leader + 1) % all.len()])
}

#[tokio::test]
async fn daemons_relay_over_https_with_client_certificates() {
    let _turn = TURN.lock().await;
    let folder = Scratch::create("https").expect("a folder");
    let folder = folder.path();
    let mut options = DaemonOptions::steady();
    options.late = options.count;
    let settings = json!({
        "UseSSL": true,
        "UseMutualTLS": true,
        "SSLValidOUs": ["orchestrator", "dba"],
        "SSLCAFile": folder.join("ca.pem"),
        "SSLCertFile": folder.join("{daemon}.pem"),
        "SSLPrivateKeyFile": folder.join("{daemon}.key"),
        "URLPrefix": "/orc",
        "AuthenticationMethod": "multi",
        "HTTPAuthUser": "ann",
        "HTTPAuthPassword": "s:cret",
    });
    let settings = settings.as_object().expect("an object").clone();
    options.settings.extend(settings);
    let daemons = Daemons::start(&options).expect("prepared");
    let authority = Authority::new(folder);
    authority.certify("dba", "ann", "dba");
    authority.certify("web", "web", "web");
    let mut counts = Vec::new();
    for (number, daemon) in (1..).zip(daemons.all()) {
        let host = daemon.address().to_string();
        authority.certify(&number.to_string(), &host, "orchestrator");
        let (advertised, count) = forward(daemon.http()).await;
        daemon
            .set("HTTPAdvertise", format!("https://{advertised}"))
            .expect("written");
        counts.push(count);
        daemon.start().expect("started");
    }
    let user = Some("ann:s:cret");
    let asker = |bears, user| Asker {
        folder,
        bears,
        user,
    };
    let dba = asker(Some("dba"), user);
    let (leader, follower) = roles(&daemons, &dba).await;
    let led = daemons
        .all()
        .iter()
        .position(|daemon| daemon.http() == leader.http())
        .expect("one of them");

    // A change by way of a follower, over the advertised address of the leader.
    let before = counts[led].load(Ordering::Relaxed);
    dba.wait_status(follower, "/orc/api/tag/db1/3306?tag=by-https", 200)
        .await;
    assert!(counts[led].load(Ordering::Relaxed) > before);
    let (_, body) = dba.ask(leader, "/orc/api/tagged?tag=by-https").await;
    let tagged: Value = serde_json::from_str(&body).expect(&body);
    assert_eq!(tagged[0]["Hostname"], "db1", "{tagged}");

    // Everything that the leader answers is answered the same by way of each follower, over that address.
    let before = counts[led].load(Ordering::Relaxed);
    let mut asked = 0;
    for route in ROUTES {
        let is_look = route.answered == Answered::ByLeader && route.kind == Kind::Read;
        if !is_look || route.action == Action::NotServed {
            continue;
        }
        let path = filled(route.path, &[(":host", "db1"), (":port", "3306")]);
        let path = format!("/orc{path}");
        for follower in daemons.all() {
            if follower.http() == leader.http() {
                continue;
            }
            let looked = until(&path, PATIENCE, Duration::from_millis(50), async || {
                let by_leader = dba.ask(leader, &path).await;
                let by_follower = dba.ask(follower, &path).await;
                match by_leader.0 != 0 && by_follower == by_leader {
                    true => Look::Holds(()),
                    false => Look::not(format!("{by_follower:?}, not {by_leader:?}")),
                }
            });
            looked.await.expect("the same answer");
            asked += 1;
        }
    }
    assert!(asked > 80, "{asked}");
    assert!(counts[led].load(Ordering::Relaxed) >= before + asked);

    // Nobody else is let in, whatever they show; but anybody with the password to the status.
    for (who, user, path, wanted) in [
        (None, user, "/orc/api/clusters", 401),
        (Some("web"), user, "/orc/api/clusters", 401),
        (Some("web"), user, "/orc/api/forget/api/status", 401),
        (Some("web"), user, "/orc/api/status", 200),
        (None, user, "/orc/api/status", 200),
        (Some("dba"), None, "/orc/api/clusters", 401),
        (Some("dba"), Some("ann:guess"), "/orc/api/clusters", 401),
        (Some("dba"), Some("readonly:x"), "/orc/api/clusters", 200),
        (Some("dba"), user, "/api/clusters", 404),
    ] {
        for daemon in [leader, follower] {
            asker(who, user).wait_status(daemon, path, wanted).await;
        }
    }
    let reader = asker(Some("dba"), Some("readonly:x"));
    let (status, body) = reader.ask(follower, "/orc/api/tag/db1/3306?tag=no").await;
    assert!(status == 500 && body.contains("Unauthorized"), "{body}");

    // The client, with the certificate that curl's own file names.
    let curl = format!(
        "cert = \"{0}/dba.pem\"\nkey = \"{0}/dba.key\"\ncacert = \"{0}/ca.pem\"\n",
        folder.display()
    );
    fs::write(folder.join(".curlrc"), curl).expect("written");
    let urls = daemons.all().iter();
    let urls: Vec<String> = urls
        .map(|daemon| format!("https://{}/orc", daemon.http()))
        .collect();
    let output = Command::new(
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../runtime/packaging/bin/orchestrator-client"),
    )
    .args(["-c", "tagged", "-t", "by-https"])
    .env("ORCHESTRATOR_API", urls.join(" "))
    .env("ORCHESTRATOR_AUTH_USER", "ann")
    .env("ORCHESTRATOR_AUTH_PASSWORD", "s:cret")
    .env("ORCHESTRATOR_CLIENT_PROFILE", "/nonexistent")
    .env("ORCHESTRATOR_CLIENT_PATIENCE", "60")
    .env("CURL_HOME", folder)
    .output()
    .await
    .expect("bash, curl and jq; type:  tests/setup.sh client");
    assert_eq!(
        String::from_utf8_lossy(&output.stdout),
        "db1:3306\n",
        "{output:?}"
    );

    // A leader whose certificate is renewed is spoken to without a restart; one whose certificate is for another host is not.
    authority.certify(&(led + 1).to_string(), "elsewhere", "orchestrator");
    let looked = until(
        "the follower does not trust the certificate",
        PATIENCE,
        Duration::from_millis(500),
        async || {
            let (status, body) = dba.ask(follower, "/orc/api/tag/db1/3306?tag=no").await;
            match status {
                502 => Look::Holds(body),
                _ => Look::not(format!("{status} {body}")),
            }
        },
    );
    let body = looked.await.expect("refused");
    assert!(body.contains("certificate"), "{body}");
    authority.certify(
        &(led + 1).to_string(),
        &leader.address().to_string(),
        "orchestrator",
    );
    let looked = until(
        "it is trusted again",
        PATIENCE,
        Duration::from_millis(500),
        async || {
            let (status, body) = dba.ask(follower, "/orc/api/tag/db1/3306?tag=again").await;
            match status {
                200 => Look::Holds(()),
                _ => Look::not(format!("{status} {body}")),
            }
        },
    );
    looked.await.expect("served");
}
