//! The StatefulSet of `runtime/packaging/kubernetes`: its pods find each other before one of them is ready, what it names agrees
//! with the configuration that its command makes, what must stay is on a volume that stays, and its probes ask for what real
//! daemons answer with and without a quorum.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use orchestrator::config::{BackendKind, Settings, parse_files};
use orchestrator_tests::bare::Bare;
use orchestrator_tests::daemons::{DaemonOptions, Daemons};
use orchestrator_tests::process::Scratch;
use serde::Deserialize;
use serde_json::{Value, json};

use super::{DEADLINE, PATIENCE, TURN};

/// The example.
struct Example(Vec<Value>);

impl Example {
    fn read() -> Example {
        let path = Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("../runtime/packaging/kubernetes/orchestrator.yaml");
        let text = fs::read_to_string(path).expect("read");
        let documents = serde_norway::Deserializer::from_str(&text)
            .map(|document| Value::deserialize(document).expect("YAML"));
        Example(documents.collect())
    }

    /// The object of this kind and name; there is one.
    fn object(&self, kind: &str, name: &str) -> &Value {
        let is_it = |object: &&Value| object["kind"] == kind && object["metadata"]["name"] == name;
        let found: Vec<&Value> = self.0.iter().filter(is_it).collect();
        assert_eq!(found.len(), 1, "{kind} {name}: {found:?}");
        found[0]
    }

    fn set(&self) -> &Value {
        &self.object("StatefulSet", "orchestrator")["spec"]
    }

    fn pod(&self) -> &Value {
        &self.set()["template"]["spec"]
    }

    fn container(&self) -> &Value {
        named(&self.pod()["containers"], "orchestrator")
    }

    fn replicas(&self) -> u64 {
        self.set()["replicas"].as_u64().expect("a number")
    }

    /// The service that gives each pod a name.
    fn headless(&self) -> &Value {
        let name = text(&self.set()["serviceName"]);
        &self.object("Service", name)["spec"]
    }

    /// What is mounted where this path is, in the container.
    fn mount(&self, path: &Path) -> &Value {
        let mounts = list(&self.container()["volumeMounts"]);
        mounts
            .iter()
            .filter(|mount| path.starts_with(text(&mount["mountPath"])))
            .max_by_key(|mount| text(&mount["mountPath"]).len())
            .unwrap_or_else(|| panic!("{} is on no volume", path.display()))
    }

    /// Where the command of the pod of this number has the program read its configuration, and what that says. It is run on a
    /// machine with the ConfigMaps in their places, a shell and sed, and a program that says how it was called.
    fn run(&self, number: u64) -> (PathBuf, Settings) {
        let scratch = Scratch::create("pod").expect("a folder");
        let bare = Bare::make(scratch.path(), &["sh", "sed"]).expect("made");
        let there = |path: &str| bare.root().join(path.trim_start_matches('/'));
        for mount in list(&self.container()["volumeMounts"]) {
            let volumes = list(&self.pod()["volumes"]).iter();
            let mut of_this = volumes.filter(|volume| volume["name"] == mount["name"]);
            let Some(map) = of_this.find_map(|volume| volume["configMap"]["name"].as_str()) else {
                continue;
            };
            let folder = there(text(&mount["mountPath"]));
            fs::create_dir_all(&folder).expect("made");
            let files = self.object("ConfigMap", map)["data"].as_object();
            for (file, content) in files.expect("files") {
                fs::write(folder.join(file), text(content)).expect("written");
            }
        }
        let program = there("/usr/bin/orchestrator");
        fs::write(&program, "#!/usr/bin/sh\nprintf '%s\\n' \"$@\"\n").expect("written");
        fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).expect("set");

        let mut variables: BTreeMap<&str, String> = BTreeMap::new();
        for variable in list(&self.container()["env"]) {
            let from = &variable["valueFrom"];
            let value = if from["fieldRef"]["fieldPath"] == "metadata.name" {
                format!("orchestrator-{number}")
            } else {
                text(&from["secretKeyRef"]["key"]).to_owned()
            };
            variables.insert(text(&variable["name"]), value);
        }
        let words: Vec<&str> = list(&self.container()["command"])
            .iter()
            .map(text)
            .collect();
        let output = bare
            .command(words[0])
            .args(&words[1..])
            .envs(&variables)
            .output()
            .expect("unshare and chroot");
        assert!(output.status.success(), "{output:?}");
        let called = String::from_utf8_lossy(&output.stdout).into_owned();
        let path = called
            .strip_prefix("--config=")
            .and_then(|rest| rest.strip_suffix("\nhttp\n"))
            .unwrap_or_else(|| panic!("{called}"));
        let content = fs::read(there(path)).expect("the configuration that is named");
        let env = |name: &str| variables.get(name).cloned();
        let loaded = parse_files(&[(path, content.as_slice())], &env).expect("it loads");
        assert_eq!(loaded.warnings, Vec::<String>::new());
        (PathBuf::from(path), loaded.settings)
    }
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_else(|| panic!("a text: {value}"))
}

fn list(value: &Value) -> &[Value] {
    let list = value.as_array();
    list.unwrap_or_else(|| panic!("a list: {value}"))
}

/// The one of this name in a list.
fn named<'a>(value: &'a Value, name: &str) -> &'a Value {
    let mut items = list(value).iter();
    let item = items.find(|item| item["name"] == name);
    item.unwrap_or_else(|| panic!("no {name} in {value}"))
}

/// A pod is ready with a quorum only: it must start, and have a name, before it is, and one after the other would wait for ever.
#[test]
fn pods_start_at_once_and_have_names_before_they_are_ready() {
    let example = Example::read();
    let set = example.set();
    assert_eq!(set["podManagementPolicy"], "Parallel");
    let headless = example.headless();
    assert_eq!(headless["clusterIP"], "None");
    assert_eq!(headless["publishNotReadyAddresses"], true);

    // All mean the same pods.
    let labels = &set["template"]["metadata"]["labels"];
    assert_eq!(*labels, json!({"app": "orchestrator"}));
    assert_eq!(set["selector"]["matchLabels"], *labels);
    assert_eq!(headless["selector"], *labels);
    let of_clients = &example.object("Service", "orchestrator")["spec"];
    assert_eq!(of_clients["selector"], *labels);
    // Whom nobody may reach who has no quorum.
    assert_ne!(of_clients["publishNotReadyAddresses"], true);
    let disruption = &example.object("PodDisruptionBudget", "orchestrator")["spec"];
    assert_eq!(disruption["selector"]["matchLabels"], *labels);
    let away = disruption["maxUnavailable"].as_u64().expect("a number");
    assert!(2 * (example.replicas() - away) > example.replicas());
}

#[test]
fn the_container_agrees_with_the_configuration_that_its_command_makes() {
    let example = Example::read();
    let port = |name: &str| named(&example.container()["ports"], name)["containerPort"].clone();
    let (http, raft) = (port("http"), port("raft"));
    let service = text(&example.set()["serviceName"]);
    let host = |number: u64| format!("orchestrator-{number}.{service}");
    let members: Vec<(String, Value)> = (0..example.replicas())
        .map(|number| (host(number), raft.clone()))
        .collect();
    assert_eq!(members.len(), 3);
    for number in 0..example.replicas() {
        let (path, settings) = example.run(number);
        let secret = settings.topology.credentials.password;
        assert_eq!(secret.expose(), "topology-password");

        // Others reach it under its name, at ports that it has and that the services know.
        let listens = settings.listen.address.expect("an address");
        assert!(listens.is_unspecified(), "{listens:?}");
        assert_eq!(json!(listens.port), http);
        let of_raft = settings.raft.expect("raft");
        assert!(of_raft.bind.is_unspecified(), "{:?}", of_raft.bind);
        assert_eq!(json!(of_raft.bind.port), raft);
        let advertised = (of_raft.advertise.host, json!(of_raft.advertise.port));
        assert_eq!(advertised, (host(number), raft.clone()));
        let url = format!("http://{}:{http}", host(number));
        assert_eq!(of_raft.http_advertise, Some(url));
        let nodes: Vec<(String, Value)> = of_raft
            .nodes
            .into_iter()
            .map(|node| (node.host, json!(node.port)))
            .collect();
        assert_eq!(nodes, members);

        // What must stay is on the pod's own volume; the configuration is where it can be written.
        let BackendKind::Sqlite { data_file } = settings.backend.kind else {
            panic!("{:?}", settings.backend.kind);
        };
        for path in [Path::new(&data_file), of_raft.data_dir.as_path()] {
            let mount = example.mount(path);
            assert_ne!(mount["readOnly"], true, "{mount}");
            let claims = &example.set()["volumeClaimTemplates"];
            let mut claims = list(claims).iter().map(|claim| &claim["metadata"]["name"]);
            assert!(claims.any(|claim| *claim == mount["name"]), "{mount}");
        }
        assert_eq!(
            example.container()["securityContext"]["readOnlyRootFilesystem"],
            true
        );
        let mount = example.mount(&path);
        assert_ne!(mount["readOnly"], true, "{mount}");
        let volume = named(&example.pod()["volumes"], text(&mount["name"]));
        assert_eq!(volume["emptyDir"], json!({}));
    }
    let ports = &example.headless()["ports"];
    assert_eq!(named(ports, "http")["port"], http);
    assert_eq!(named(ports, "raft")["port"], raft);
    let of_clients = &example.object("Service", "orchestrator")["spec"]["ports"];
    assert_eq!(
        *of_clients,
        json!([{"name": "http", "port": http, "targetPort": "http"}])
    );
}

/// A pod that Kubernetes kills because others are missing would keep them from coming together; one that gets requests without a
/// quorum would refuse them.
#[tokio::test]
async fn the_liveness_probe_holds_without_a_quorum_and_the_readiness_probe_does_not() {
    let _turn = TURN.lock().await;
    let example = Example::read();
    let probe = |name: &str| {
        let get = &example.container()[name]["httpGet"];
        assert_eq!(get["port"], "http");
        text(&get["path"]).to_owned()
    };
    let (alive, ready) = (probe("livenessProbe"), probe("readinessProbe"));
    let mut options = DaemonOptions::default_configuration();
    options.late = options.count - 1;
    let daemons = Daemons::start(&options).expect("a daemon");
    let [alone, others @ ..] = daemons.all() else {
        panic!("daemons");
    };
    alone
        .wait_status(&alive, 200, PATIENCE)
        .await
        .expect("alive");
    let reply = alone.get(&ready, DEADLINE).await.expect("an answer");
    assert_eq!(reply.status, 500, "{}", reply.body);

    for other in others {
        other.start().expect("started");
    }
    for daemon in daemons.all() {
        daemon
            .wait_status(&ready, 200, PATIENCE)
            .await
            .expect("ready");
        let reply = daemon.get(&alive, DEADLINE).await.expect("an answer");
        assert_eq!(reply.status, 200, "{}", reply.body);
    }

    for other in others {
        other.kill().await.expect("killed");
    }
    alone
        .wait_status(&ready, 500, PATIENCE)
        .await
        .expect("it knows");
    let reply = alone.get(&alive, DEADLINE).await.expect("an answer");
    assert_eq!(reply.status, 200, "{}", reply.body);
}
