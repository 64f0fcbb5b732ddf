//! The procedures of the README, typed as they stand there on machines that have our package, and what must hold after each.
//! A command that does not work fails the test, and so does a block of commands that is not typed here.

use std::collections::BTreeSet;
use std::fs;
use std::io::{BufRead as _, BufReader, ErrorKind, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use orchestrator_tests::daemons::{self, Reply, get};
use orchestrator_tests::fleet::{Flavour, Fleet, FleetOptions, ReplicationTiming, tail};
use orchestrator_tests::network::{Gate, Machine, Network};
use orchestrator_tests::process::{Process, Scratch, Signal};
use orchestrator_tests::sql::HARNESS;
use orchestrator_tests::wait::{Look, until};
use rusqlite::{Connection, OpenFlags};
use serde_json::Value;

use super::{DEADLINE, TURN};

const PATIENCE: Duration = Duration::from_secs(180);
const PACE: Duration = Duration::from_millis(20);
const NAMES: [&str; 4] = ["node1", "node2", "node3", "nodeX"];
const THREE: [&str; 3] = ["node1", "node2", "node3"];
/// Members come and go often here, on a machine that is busy.
const SETTINGS: &str = r#"
  "RaftReplaceSilentSeconds": 2, "RaftReplacePerHour": 100,
  "RaftHeartbeatMillis": 100, "RaftElectionTimeoutMillis": 1000,"#;
const CONFIGURATION: &str = "etc/orchestrator.conf.json";
const DATABASE: &str = "var/lib/orchestrator/orchestrator.db";

/// What is typed on some machines, on one after the other.
#[derive(Clone, Debug, Eq, PartialEq)]
struct Part {
    machines: Vec<String>,
    leader_last: bool,
    text: String,
}

/// A block of commands.
#[derive(Clone, Debug)]
struct Block {
    heading: String,
    /// How many there are before it under the heading.
    number: usize,
    parts: Vec<Part>,
}

/// The blocks of a text, or what is wrong with one.
fn blocks(text: &str) -> Result<Vec<Block>> {
    let (mut blocks, mut heading) = (Vec::<Block>::new(), "");
    let mut lines = text.lines();
    while let Some(line) = lines.next() {
        if let Some(language) = line.strip_prefix("```") {
            let inside: Vec<&str> = lines.by_ref().take_while(|line| *line != "```").collect();
            if language == "sh" {
                let under = blocks.iter().filter(|block| block.heading == heading);
                blocks.push(Block {
                    heading: heading.to_owned(),
                    number: under.count(),
                    parts: parts(&inside).with_context(|| heading.to_owned())?,
                });
            }
        } else if line.starts_with('#') {
            heading = line.trim_start_matches('#').trim();
        }
    }
    Ok(blocks)
}

fn parts(lines: &[&str]) -> Result<Vec<Part>> {
    let mut parts = Vec::<Part>::new();
    for line in lines {
        if let Some(on) = line.strip_prefix("# on ") {
            let (names, how) = on.split_once(':').unwrap_or((on, ""));
            let words = names.split([',', ' ']);
            let machines: Vec<String> = words
                .filter(|word| !word.is_empty() && *word != "and")
                .map(str::to_owned)
                .collect();
            let unknown = machines.iter().find(|name| !NAMES.contains(&name.as_str()));
            ensure!(unknown.is_none(), "no machine {unknown:?}: {line}");
            parts.push(Part {
                machines,
                leader_last: how.contains("leader last"),
                text: String::new(),
            });
        } else {
            let part = parts.last_mut();
            let part = part.with_context(|| format!("on which machine is this typed: {line}"))?;
            part.text += line;
            part.text += "\n";
        }
    }
    ensure!(!parts.is_empty(), "an empty block");
    let nothing = parts.iter().find(|part| part.text.is_empty());
    ensure!(nothing.is_none(), "nothing is typed in {nothing:?}");
    Ok(parts)
}

/// A machine: a folder in which it has files of its own and this one's programs, and a network of its own.
struct Node {
    name: &'static str,
    root: PathBuf,
    machine: Machine,
    /// What the service manager started, and whether it is to run.
    unit: Option<Process>,
    is_wanted: bool,
    /// Its server for a backend, if it has one, and the way to it.
    server: Option<(Fleet, Gate)>,
}

impl Node {
    fn http(&self) -> SocketAddr {
        SocketAddr::from((self.machine.address(), 3000))
    }

    async fn get(&self, path: &str) -> Result<Reply> {
        let url = format!("http://{}{path}", self.http());
        let mut command = tokio::process::Command::new("curl");
        command.args(["-sS", "-u", "readonly:", "--max-time", "10"]);
        let output = command
            .args(["-w", "\n%{http_code}", &url])
            .output()
            .await?;
        ensure!(output.status.success(), "{output:?}");
        let said = String::from_utf8_lossy(&output.stdout);
        let (body, status) = said.rsplit_once('\n').context("an answer")?;
        Ok(Reply {
            status: status.parse()?,
            body: body.to_owned(),
        })
    }

    async fn status(&self) -> Result<Value> {
        self.get("/api/raft-status").await?.json()
    }

    fn path(&self, file: &str) -> PathBuf {
        self.root.join(file)
    }

    fn log(&self) -> PathBuf {
        self.root.with_extension("log")
    }

    fn is_running(&mut self) -> bool {
        self.unit.as_mut().is_some_and(Process::is_running)
    }

    async fn stop(&mut self, signal: Signal) -> Result<()> {
        self.is_wanted = false;
        if let Some(mut unit) = self.unit.take() {
            unit.signal(signal);
            let ended = unit.wait(Duration::from_secs(30)).await;
            ensure!(ended.is_some(), "{} does not stop", self.name);
        }
        Ok(())
    }

    /// The tags that its backend shows.
    async fn tags(&self) -> Result<BTreeSet<String>> {
        let query = "SELECT tag_name FROM database_instance_tags";
        if let Some((fleet, _)) = &self.server {
            let mut sql = fleet.servers()[0].harness().await?;
            sql.run("USE orchestrator").await?;
            let rows = sql.rows(query).await?;
            sql.close().await;
            return Ok(rows.iter().map(|row| row.only().to_owned()).collect());
        }
        tags_of_file(&self.path(DATABASE))
    }
}

fn tags_of_file(path: &Path) -> Result<BTreeSet<String>> {
    let file = Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_WRITE)?;
    let mut statement = file.prepare("SELECT tag_name FROM database_instance_tags")?;
    let tags = statement.query_map([], |row| row.get(0))?;
    Ok(tags.collect::<rusqlite::Result<_>>()?)
}

/// What systemd reads of the unit.
struct Unit {
    user: String,
    environment: String,
    command: String,
}

/// The machines, and who types on them.
struct Site {
    nodes: Vec<Node>,
    /// Where `systemctl` asks.
    manager: TcpListener,
    guide: Vec<Block>,
    typed: BTreeSet<(String, usize)>,
    /// Tags that were acknowledged.
    tags: BTreeSet<String>,
    count: usize,
    packages: PathBuf,
    _network: Network,
    scratch: Scratch,
}

fn ran(command: &mut Command) -> Result<()> {
    let output = command.output().with_context(|| format!("{command:?}"))?;
    ensure!(output.status.success(), "{command:?}: {output:?}");
    Ok(())
}

fn write_program(path: &Path, text: &str) -> Result<()> {
    fs::write(path, text)?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o755))?;
    Ok(())
}

/// The packages of this release and of the one before. What is in them in the place of the program starts it where it was
/// built, since it is large.
fn build_packages(folder: &Path) -> Result<()> {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../runtime/packaging/debian/build");
    for (release, version, start) in [
        ("NEW", "0.0.2", "exec /program/orchestrator \"$@\""),
        (
            "BEFORE",
            "0.0.1",
            "export ORCHESTRATOR_TEST_AS_THE_RELEASE_BEFORE=1\nexec /program/orchestrator \"$@\"",
        ),
    ] {
        let program = folder.join("program");
        let text = format!(
            "#!/bin/sh\n# Linked with GLIBC_2.17.\n[ \"$1\" != --version ] || {{ echo {version}; exit; }}\n{start}\n"
        );
        write_program(&program, &text)?;
        let built = folder.join(release);
        ran(Command::new(&script).arg(&program).arg(&built))?;
        for entry in fs::read_dir(&built)? {
            let path = entry?.path();
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            let package = name.split('_').next().unwrap_or_default();
            fs::rename(&path, folder.join(format!("{package}_{release}.deb")))?;
        }
    }
    Ok(())
}

/// The script by which a program is started on a machine.
const ENTER: &str = r#"
set -e
root=$0 sites=$1 program=$2 name=$3
shift 3
hostname "$name"
mount --rbind /dev "$root/dev"
mount --rbind /proc "$root/proc"
mount --rbind /usr "$root/host"
mount -o remount,bind,ro "$root/host"
mount --bind "$sites" "$root/nodes"
mount --bind "$program" "$root/program"
exec chroot "$root" env -i -C /root HOME=/root PATH=/usr/sbin:/usr/bin ORCHESTRATOR_CLIENT_PATIENCE=60 "$@"
"#;

impl Site {
    async fn build() -> Result<Site> {
        let scratch = Scratch::create("guide")?;
        let network = Network::lay(4)?;
        let packages = scratch.path().join("packages");
        fs::create_dir(&packages)?;
        build_packages(&packages)?;
        fs::create_dir(scratch.path().join("nodes"))?;
        let mut nodes = Vec::new();
        for (name, machine) in NAMES.into_iter().zip(network.machines()) {
            nodes.push(Node {
                name,
                root: scratch.path().join("nodes").join(name),
                machine: machine.clone(),
                unit: None,
                is_wanted: false,
                server: None,
            });
        }
        let [a, b, c, _] = nodes[0].machine.address().octets();
        let manager = TcpListener::bind((Ipv4Addr::new(a, b, c, 254), 0))?;
        manager.set_nonblocking(true)?;
        let readme = Path::new(env!("CARGO_MANIFEST_DIR")).join("../README.md");
        let site = Site {
            nodes,
            manager,
            guide: blocks(&fs::read_to_string(readme)?)?,
            typed: BTreeSet::new(),
            tags: BTreeSet::new(),
            count: 0,
            packages,
            _network: network,
            scratch,
        };
        for name in NAMES {
            site.install(name)?;
        }
        Ok(site)
    }

    fn place(&self, name: &str) -> usize {
        let place = NAMES.iter().position(|known| *known == name);
        place.expect("one of the machines")
    }

    fn node(&self, name: &str) -> &Node {
        &self.nodes[self.place(name)]
    }

    fn node_mut(&mut self, name: &str) -> &mut Node {
        let place = self.place(name);
        &mut self.nodes[place]
    }

    /// A machine as its distribution leaves it, with our packages in root's folder.
    fn install(&self, name: &str) -> Result<()> {
        let root = &self.node(name).root;
        if root.exists() {
            fs::remove_dir_all(root)?;
        }
        for folder in [
            "dev",
            "proc",
            "host",
            "nodes",
            "program",
            "tmp",
            "root",
            "run/systemd/system",
            "etc/profile.d",
            "etc/systemd/system",
            "etc/dpkg/dpkg.cfg.d",
            "var/lib/dpkg/info",
            "var/lib/dpkg/updates",
            "var/log",
            "usr",
            "usr/lib/systemd/system",
            "usr/lib/sysusers.d",
            "usr/share/doc",
        ] {
            fs::create_dir_all(root.join(folder))?;
        }
        fs::set_permissions(root.join("tmp"), fs::Permissions::from_mode(0o1777))?;
        let own = [
            "systemctl",
            "scp",
            "orchestrator",
            "orchestrator-client",
            "systemd",
            "sysusers.d",
            "doc",
        ];
        for entry in fs::read_dir("/usr")? {
            let entry = entry?;
            let folder = entry.file_name();
            if entry.file_type()?.is_symlink() {
                symlink(fs::read_link(entry.path())?, root.join("usr").join(&folder))?;
                continue;
            }
            fs::create_dir_all(root.join("usr").join(&folder))?;
            for entry in fs::read_dir(entry.path())? {
                let name = entry?.file_name();
                if !own.iter().any(|own| name == *own) {
                    let there = Path::new("/host").join(&folder).join(&name);
                    symlink(there, root.join("usr").join(&folder).join(&name))?;
                }
            }
        }
        for entry in fs::read_dir("/")? {
            let entry = entry?;
            if entry.file_type()?.is_symlink() {
                let to = fs::read_link(entry.path())?;
                if to.starts_with("usr") {
                    symlink(to, root.join(entry.file_name()))?;
                }
            }
        }
        ran(Command::new("cp")
            .args(["-a", "/etc/alternatives"])
            .arg(root.join("etc")))?;
        for file in ["ld.so.cache", "login.defs"] {
            let from = Path::new("/etc").join(file);
            if from.exists() {
                fs::copy(from, root.join("etc").join(file))?;
            }
        }
        let mut hosts = String::from("127.0.0.1 localhost\n");
        for node in &self.nodes {
            hosts += &format!("{} {}\n", node.machine.address(), node.name);
        }
        for (file, text) in [
            ("etc/hosts", hosts.as_str()),
            (
                "etc/nsswitch.conf",
                "passwd: files\ngroup: files\nshadow: files\nhosts: files\n",
            ),
            ("etc/passwd", "root:x:0:0:root:/root:/bin/bash\n"),
            ("etc/group", "root:x:0:\n"),
            ("etc/shadow", "root:*:1::::::\n"),
            ("etc/gshadow", "root:*::\n"),
            // The C library is there as a file, not as a package.
            ("etc/dpkg/dpkg.cfg.d/machine", "force-depends\n"),
            ("var/lib/dpkg/status", ""),
            ("var/lib/dpkg/available", ""),
        ] {
            fs::write(root.join(file), text)?;
        }
        if !root.join("usr/bin/mysqldump").exists() {
            for (name, program) in [("mysqldump", "mariadb-dump"), ("mysql", "mariadb")] {
                let path = root.join("usr/bin").join(name);
                if fs::symlink_metadata(&path).is_err() {
                    symlink(program, path)?;
                }
            }
        }
        let manager = self.manager.local_addr()?;
        write_program(
            &root.join("usr/bin/systemctl"),
            &format!(
                "#!/bin/bash\nexec 3<>/dev/tcp/{}/{} || exit 1\nprintf '%s %s\\n' \"$(hostname)\" \"$*\" >&3\n\
                 read -r code said <&3\n[ -z \"$said\" ] || echo \"$said\" >&2\nexit \"$code\"\n",
                manager.ip(),
                manager.port()
            ),
        )?;
        write_program(
            &root.join("usr/bin/scp"),
            "#!/bin/bash\nwords=()\nfor word; do\n  case $word in\n    *:*) words+=(\"/nodes/${word%%:*}${word#*:}\") ;;\n    \
             *) words+=(\"$word\") ;;\n  esac\ndone\nexec cp \"${words[@]}\"\n",
        )?;
        for entry in fs::read_dir(&self.packages)? {
            let entry = entry?;
            if entry.path().extension().is_some_and(|end| end == "deb") {
                fs::copy(entry.path(), root.join("root").join(entry.file_name()))?;
            }
        }
        Ok(())
    }

    /// Installs a machine anew, whatever it was.
    async fn reinstall(&mut self, name: &str) -> Result<()> {
        self.node_mut(name).stop(Signal::Kill).await?;
        self.install(name)
    }

    fn command(&self, name: &str, words: &[&str]) -> Result<Command> {
        let node = self.node(name);
        let program = daemons::binary()?;
        let mut command = node.machine.command("sh");
        command
            .args(["-c", ENTER])
            .arg(&node.root)
            .arg(self.scratch.path().join("nodes"))
            .arg(program.parent().context("a folder")?)
            .arg(name)
            .args(words);
        Ok(command)
    }

    /// Types on a machine, and waits for the end; what was said.
    async fn type_on(&mut self, name: &str, text: &str) -> Result<String> {
        self.count += 1;
        let log = self.scratch.path().join(format!("typed-{}", self.count));
        let words = ["bash", "-euo", "pipefail", "-c", text];
        let mut typed = Process::start(self.command(name, &words)?, &log)?;
        let waited = until("it ends", PATIENCE, PACE, async || {
            if let Err(error) = self.serve().await {
                return Look::Holds(Err(error));
            }
            match typed.status() {
                Some(status) => Look::Holds(Ok(status)),
                None => Look::not("it runs"),
            }
        });
        let ended = waited.await.flatten();
        let said = fs::read_to_string(&log)?;
        let logs: Vec<PathBuf> = self.nodes.iter().map(Node::log).collect();
        let why = || format!("on {name}:\n{text}\nsaid:\n{said}\n{}", tail(&logs));
        ensure!(ended.with_context(why)?.success(), "it failed {}", why());
        Ok(said)
    }

    /// Does what systemd would do meanwhile.
    async fn serve(&mut self) -> Result<()> {
        loop {
            match self.manager.accept() {
                Ok((stream, _)) => self.answer(stream).await?,
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) => return Err(error.into()),
            }
        }
        for name in NAMES {
            let node = self.node_mut(name);
            if node.is_wanted && !node.is_running() {
                self.start(name)?;
            }
        }
        Ok(())
    }

    async fn answer(&mut self, mut stream: TcpStream) -> Result<()> {
        stream.set_nonblocking(false)?;
        stream.set_read_timeout(Some(DEADLINE))?;
        let mut line = String::new();
        BufReader::new(stream.try_clone()?).read_line(&mut line)?;
        let (name, asked) = line.trim().split_once(' ').context("who asks")?;
        let done = self.systemctl(name, asked).await;
        match done {
            Ok(()) => writeln!(stream, "0")?,
            Err(error) => writeln!(stream, "1 systemctl {asked}: {error:#}")?,
        }
        Ok(())
    }

    async fn systemctl(&mut self, name: &str, asked: &str) -> Result<()> {
        let words: Vec<&str> = asked.split(' ').collect();
        let (verb, words) = words.split_first().context("nothing asked")?;
        let now = words.contains(&"--now");
        let units: Vec<&str> = words
            .iter()
            .filter(|word| !word.starts_with('-'))
            .map(|word| word.trim_end_matches(".service"))
            .collect();
        if *verb == "daemon-reload" {
            return Ok(());
        }
        ensure!(units == ["orchestrator"], "no unit {units:?}");
        self.unit(name)?;
        let is_running = self.node_mut(name).is_running();
        let (stops, starts) = match *verb {
            "start" => (false, true),
            "stop" => (true, false),
            "restart" => (true, true),
            "try-restart" => (is_running, is_running),
            "enable" => (false, now),
            "disable" => (now, false),
            _ => bail!("not known here"),
        };
        if stops {
            self.node_mut(name).stop(Signal::Terminate).await?;
        }
        if starts && !self.node_mut(name).is_running() {
            self.start(name)?;
            let node = self.node_mut(name);
            // Ready is told when the listeners are up.
            until("it listens", PATIENCE, PACE, async || {
                match get(node.http(), "/api/lb-check", DEADLINE).await {
                    Ok(_) => Look::Holds(Ok(())),
                    Err(error) if node.is_running() => Look::not(error),
                    Err(_) => Look::Holds(Err(anyhow::anyhow!("it ended at once"))),
                }
            })
            .await??;
        }
        Ok(())
    }

    /// The unit that counts on a machine.
    fn unit(&self, name: &str) -> Result<Unit> {
        let folders = ["etc/systemd/system", "usr/lib/systemd/system"].iter();
        let mut paths =
            folders.map(|folder| self.node(name).path(folder).join("orchestrator.service"));
        let path = paths.find(|path| path.exists()).context("no such unit")?;
        let text = fs::read_to_string(path)?;
        let value = |key: &str| {
            let line = text
                .lines()
                .find_map(|line| line.strip_prefix(key)?.strip_prefix('='));
            line.unwrap_or_default().to_owned()
        };
        Ok(Unit {
            user: value("User"),
            environment: value("EnvironmentFile")
                .trim_start_matches(['-', '/'])
                .to_owned(),
            command: value("ExecStart"),
        })
    }

    fn start(&mut self, name: &str) -> Result<()> {
        let unit = self.unit(name)?;
        let node = self.node(name);
        let configuration = node.path(CONFIGURATION);
        let text = fs::read_to_string(&configuration).context("/etc/orchestrator.conf.json")?;
        if !text.contains("RaftReplaceSilentSeconds") {
            fs::write(
                configuration,
                text.replacen('{', &format!("{{{SETTINGS}"), 1),
            )?;
        }
        let environment = fs::read_to_string(node.path(&unit.environment)).unwrap_or_default();
        let user = if unit.user.is_empty() {
            "root"
        } else {
            &unit.user
        };
        let text = format!(
            "umask 0027; state=/var/lib/orchestrator
             [ -d $state ] || install -d -o {user} -g {user} -m 0750 $state
             cd $state; exec setpriv --reuid={user} --regid={user} --clear-groups --pdeathsig=KILL env {} {}",
            environment.replace('\n', " "),
            unit.command
        );
        let command = self.command(name, &["sh", "-euc", &text])?;
        let node = self.node_mut(name);
        node.unit = Some(Process::start(command, &node.log())?);
        node.is_wanted = true;
        Ok(())
    }

    fn block(&self, heading: &str, number: usize) -> Result<Block> {
        let mut blocks = self.guide.iter();
        let found = blocks.find(|block| block.heading == heading && block.number == number);
        found
            .cloned()
            .with_context(|| format!("the README has no block {number} under '{heading}'"))
    }

    /// Types a block of the guide.
    async fn walk(&mut self, heading: &str, number: usize) -> Result<String> {
        let block = self.block(heading, number)?;
        self.typed.insert((heading.to_owned(), number));
        self.walk_parts(heading, number, &block.parts).await
    }

    async fn walk_parts(&mut self, heading: &str, number: usize, parts: &[Part]) -> Result<String> {
        let began = Instant::now();
        let mut said = String::new();
        for part in parts {
            let mut machines = part.machines.clone();
            if part.leader_last {
                let leader = self.leader().await?;
                machines.sort_by_key(|name| *name == leader);
            }
            for name in machines {
                let typed = self.type_on(&name, &part.text).await;
                said = typed.with_context(|| format!("'{heading}', block {number}"))?;
            }
        }
        println!(
            "{:5.1} s  {heading}, {number}",
            began.elapsed().as_secs_f64()
        );
        Ok(said)
    }

    async fn leader(&self) -> Result<String> {
        until("one of them leads", PATIENCE, PACE, async || {
            for name in THREE {
                let reply = self.node(name).get("/api/leader-check").await;
                if reply.is_ok_and(|reply| reply.status == 200) {
                    return Look::Holds(name.to_owned());
                }
            }
            Look::not("none")
        })
        .await
    }

    async fn identity(&self, name: &str) -> Result<String> {
        let status = self.node(name).status().await?;
        let identity = status["Node"].as_str();
        Ok(identity.context("no node")?.to_owned())
    }

    /// Has one more thing decided.
    async fn decide(&mut self, tag: &str) -> Result<()> {
        let text = format!("orchestrator-client -c tag -i db1.example.com:3306 -t {tag}");
        self.type_on("node1", &text).await?;
        self.tags.insert(tag.to_owned());
        Ok(())
    }

    /// These are the members, each of them is healthy, and its backend shows all that was decided.
    async fn whole(&mut self, names: &[&str]) -> Result<()> {
        let mut wanted: Vec<String> = names.iter().map(|name| format!("{name}:10008")).collect();
        wanted.sort();
        for name in names {
            let what = format!("{name} is a member of {wanted:?} and shows {:?}", self.tags);
            let waited = until(&what, PATIENCE, PACE, async || {
                if let Err(error) = self.serve().await {
                    return Look::not(format!("{error:#}"));
                }
                let node = self.node(name);
                let status = match node.status().await {
                    Ok(status) => status,
                    Err(error) => return Look::not(format!("{error:#}")),
                };
                let rows = status["Members"].as_array().cloned().unwrap_or_default();
                let voters = rows.iter().filter(|row| row["Voter"] == true);
                let mut found: Vec<&str> =
                    voters.filter_map(|row| row["Address"].as_str()).collect();
                found.sort_unstable();
                if found != wanted || rows.len() != wanted.len() || status["Healthy"] != true {
                    return Look::not(format!("{status:#}"));
                }
                match node.tags().await {
                    Ok(tags) if tags == self.tags => Look::Holds(()),
                    other => Look::not(format!("{other:?}")),
                }
            });
            let waited = waited.await;
            waited.with_context(|| tail(&[self.node(name).log()]))?;
        }
        Ok(())
    }

    /// A machine has the package and the others' configuration, and does not run.
    async fn prepare(&mut self, name: &str) -> Result<()> {
        self.reinstall(name).await?;
        let block = self.block("A machine provisioned anew", 0)?;
        let text = block.parts[0].text.replace("node3", name);
        let until_start: String = text
            .lines()
            .take_while(|line| !line.starts_with("systemctl"))
            .map(|line| format!("{line}\n"))
            .collect();
        self.type_on(name, &until_start).await.map(drop)
    }

    /// The list in a machine's file.
    fn nodes_in_file(&self, name: &str) -> Result<Vec<String>> {
        let text = fs::read_to_string(self.node(name).path(CONFIGURATION))?;
        let configuration: Value = serde_json::from_str(&text)?;
        let nodes = configuration["RaftNodes"]
            .as_array()
            .cloned()
            .unwrap_or_default();
        Ok(nodes
            .iter()
            .filter_map(|node| node.as_str().map(str::to_owned))
            .collect())
    }

    /// Gives a machine another backend, by its file.
    async fn set_backend(&mut self, name: &str, fleet: Option<Fleet>) -> Result<()> {
        let path = self.node(name).path(CONFIGURATION);
        let text = fs::read_to_string(&path)?;
        self.type_on(name, "systemctl stop orchestrator").await?;
        let (text, server) = match fleet {
            None => {
                let lines = text
                    .lines()
                    .filter(|line| !line.contains("MySQLOrchestrator"));
                let text: String = lines.map(|line| format!("{line}\n")).collect();
                (text.replace("\"mysql\"", "\"sqlite\""), None)
            }
            Some(fleet) => {
                let port = fleet.ports()[0];
                let keys = format!(
                    "\"mysql\",\n\"MySQLOrchestratorHost\": \"127.0.0.1\", \"MySQLOrchestratorPort\": {port}, \
                     \"MySQLOrchestratorDatabase\": \"orchestrator\", \"MySQLOrchestratorUser\": \"{}\", \
                     \"MySQLOrchestratorPassword\": \"{}\",",
                    HARNESS.user, HARNESS.password
                );
                let client = format!(
                    "[client]\nhost=127.0.0.1\nprotocol=tcp\nport={port}\nuser={}\npassword={}\n",
                    HARNESS.user, HARNESS.password
                );
                fs::write(self.node(name).path("root/.my.cnf"), client)?;
                let gate = self.node(name).machine.gate(port)?;
                (text.replace("\"sqlite\",", &keys), Some((fleet, gate)))
            }
        };
        fs::write(path, text)?;
        self.node_mut(name).server = server;
        self.type_on(name, "systemctl start orchestrator")
            .await
            .map(drop)
    }
}

/// The Go program's machines as it leaves them: its file, its unit, its configuration, all of them root's.
fn put_originals(site: &Site) -> Result<()> {
    for (number, name) in THREE.into_iter().enumerate() {
        let node = site.node(name);
        fs::create_dir_all(node.path("var/lib/orchestrator"))?;
        let file = Connection::open(node.path(DATABASE))?;
        let rows = include_str!("../../../runtime/src/backend/testdata/original.sql");
        file.execute_batch(rows)?;
        // The second one's is the newest.
        let seen = ["03:00:00", "04:00:00", "03:59:59"][number];
        let newest = format!("UPDATE database_instance SET last_seen = '2020-11-01 {seen}'");
        file.execute_batch(&newest)?;
        fs::write(
            node.path("etc/systemd/system/orchestrator.service"),
            "[Service]\nExecStart=/usr/local/orchestrator/orchestrator http\n",
        )?;
        let configuration = format!(
            r#"{{
  "ListenAddress": ":3000",
  "BackendDB": "sqlite",
  "SQLite3DataFile": "/{DATABASE}",
  "MySQLTopologyUser": "orchestrator",
  "MySQLTopologyPassword": "topology-secret",
  "RaftEnabled": true,
  "RaftDataDir": "/var/lib/orchestrator",
  "RaftBind": "{name}",
  "DefaultRaftPort": 10008,
  "RaftNodes": ["node1", "node2", "node3"],
  "RecoverMasterClusterFilters": ["*"]
}}
"#
        );
        let path = node.path(CONFIGURATION);
        fs::write(&path, configuration)?;
        fs::set_permissions(path, fs::Permissions::from_mode(0o640))?;
    }
    Ok(())
}

async fn from_go_and_back(site: &mut Site) -> Result<()> {
    let heading = "Coming from the Go program";
    put_originals(site)?;
    let read = |site: &Site, file: &str| -> Result<Vec<Vec<u8>>> {
        let files = THREE
            .iter()
            .map(|name| fs::read(site.node(name).path(file)));
        Ok(files.collect::<std::io::Result<_>>()?)
    };
    let before = [read(site, DATABASE)?, read(site, CONFIGURATION)?];
    let said = site.walk(heading, 0).await?;
    ensure!(said.contains('['), "{said}");
    let what = "the second one's database is taken over";
    wait_status(site, "node1", what, |status| {
        status["Originals"].to_string().contains("node2")
    })
    .await?;
    site.tags = BTreeSet::from([String::from("rack")]);
    site.whole(&THREE).await?;
    let downtimed = site.node("node3").get("/api/downtimed").await?.body;
    ensure!(downtimed.contains("anna"), "{downtimed}");
    site.walk(heading, 1).await?;
    let after = [read(site, DATABASE)?, read(site, CONFIGURATION)?];
    ensure!(
        after == before,
        "something is not as the Go program left it"
    );
    for name in THREE {
        let folder = site.node(name).path("var/lib/orchestrator");
        let beside = ["orchestrator.db-wal", "orchestrator.db-shm"];
        let ours = beside.iter().find(|file| folder.join(file).exists());
        ensure!(ours.is_none(), "{ours:?} is left");
        site.reinstall(name).await?;
    }
    site.tags.clear();
    Ok(())
}

async fn a_crash(site: &mut Site) -> Result<()> {
    let identity = site.identity("node3").await?;
    // The service manager is all it needs.
    let node = site.node_mut("node3");
    let unit = node.unit.as_mut().context("it runs")?;
    unit.signal(Signal::Kill);
    ensure!(unit.wait(DEADLINE).await.is_some(), "it is not killed");
    site.whole(&THREE).await?;
    // The machine was away.
    site.node_mut("node3").stop(Signal::Kill).await?;
    site.decide("while-one-is-down").await?;
    site.walk("A daemon crashes", 0).await?;
    site.whole(&THREE).await?;
    ensure!(site.identity("node3").await? == identity, "it is another");
    Ok(())
}

/// Types a block that gives node3 another identity.
async fn anew(site: &mut Site, heading: &str, number: usize) -> Result<()> {
    let tag = format!("anew-{}-{number}", site.count);
    let identity = site.identity("node3").await.ok();
    site.decide(&tag).await?;
    site.walk(heading, number).await?;
    site.whole(&THREE).await?;
    let is = site.identity("node3").await?;
    ensure!(identity != Some(is), "it is the same as before");
    Ok(())
}

async fn clones(site: &mut Site) -> Result<()> {
    let heading = "A clone of another member's backend";
    for (number, file) in [(0, "root/clone.db"), (1, "root/orchestrator.db")] {
        let tags = site.tags.clone();
        anew(site, heading, number).await?;
        let copied = tags_of_file(&site.node("node3").path(file))?;
        ensure!(copied.is_superset(&tags), "{file} holds {copied:?} only");
    }
    let server = || {
        Fleet::start(FleetOptions {
            flavour: Flavour::MariaDb,
            servers: 1,
            timing: ReplicationTiming::Quick,
        })
    };
    let (first, third) = tokio::join!(server(), server());
    site.set_backend("node1", Some(first?)).await?;
    site.set_backend("node3", Some(third?)).await?;
    site.whole(&THREE).await?;
    let tags = site.tags.clone();
    anew(site, heading, 2).await?;
    let copied = fs::read_to_string(site.node("node3").path("root/clone.sql"))?;
    let lost = tags.iter().find(|tag| !copied.contains(*tag));
    ensure!(lost.is_none(), "{lost:?} is not in the dump");
    site.set_backend("node1", None).await?;
    site.set_backend("node3", None).await?;
    site.whole(&THREE).await
}

async fn wait_status(
    site: &mut Site,
    name: &str,
    what: &str,
    holds: impl Fn(&Value) -> bool,
) -> Result<()> {
    let node = site.node(name);
    until(what, PATIENCE, PACE, async || match node.status().await {
        Ok(status) if holds(&status) => Look::Holds(()),
        other => Look::not(format!("{other:?}")),
    })
    .await
}

async fn a_new_cluster_upgraded(site: &mut Site) -> Result<()> {
    let former = site.node("node1").status().await?["Cluster"].clone();
    for name in THREE {
        let before = "systemctl stop orchestrator\ndpkg -i orchestrator_BEFORE.deb";
        site.type_on(name, before).await?;
    }
    site.tags.clear();
    site.walk("A new cluster", 0).await?;
    site.whole(&THREE).await?;
    ensure!(site.node("node1").status().await?["Cluster"] != former);
    site.decide("before").await?;

    let heading = "Upgrading orchestrator itself";
    let version = "dpkg-query -W -f '${Version}' orchestrator";
    let mut first = site.block(heading, 0)?.parts;
    first[0].machines = vec![String::from("node1")];
    site.walk_parts(heading, 0, &first).await?;
    ensure!(site.type_on("node1", version).await? == "0.0.2");
    site.decide("one").await?;
    wait_status(site, "node1", "the upgrade waits", |status| {
        status["Upgrade"] != ""
    })
    .await?;
    site.walk(heading, 1).await?;
    ensure!(site.type_on("node1", version).await? == "0.0.1");
    site.decide("back").await?;

    site.walk(heading, 0).await?;
    let what = "the later version is switched on";
    wait_status(site, "node1", what, |status| {
        status["CommandVersion"].as_u64() >= Some(2) && status["Upgrade"] == ""
    })
    .await?;
    site.decide("all").await?;
    site.whole(&THREE).await?;
    // The line that looks whether it is possible keeps people from it.
    let back = site.walk(heading, 1).await;
    ensure!(back.is_err(), "it went back when it was too late");
    ensure!(site.type_on("node1", version).await? == "0.0.2");
    site.whole(&THREE).await
}

async fn a_replacement(site: &mut Site) -> Result<()> {
    let heading = "Replacing node3 by nodeX";
    let after = ["node1", "node2", "nodeX"];
    site.prepare("nodeX").await?;
    let said = site.walk(heading, 0).await?;
    ensure!(said.contains("nodeX"), "{said}");
    site.decide("replaced").await?;
    site.whole(&after).await?;

    // Online, and back by the same words; the one that is to go is dead then.
    for (former, newcomer) in [("nodeX", "node3"), ("node3", "nodeX")] {
        site.prepare(newcomer).await?;
        if former == "nodeX" {
            site.node_mut(former).stop(Signal::Kill).await?;
        }
        let exchange = |text: &str| match newcomer {
            "nodeX" => text.to_owned(),
            _ => text
                .replace("node3", "nodeY")
                .replace("nodeX", "node3")
                .replace("nodeY", "nodeX"),
        };
        let mut parts = site.block(heading, 1)?.parts;
        for part in &mut parts {
            part.text = exchange(&part.text);
            part.machines = part.machines.iter().map(|name| exchange(name)).collect();
        }
        site.typed.insert((heading.to_owned(), 1));
        site.walk_parts(heading, 1, &parts).await?;
        site.decide(newcomer).await?;
        let now = ["node1", "node2", newcomer];
        site.whole(&now).await?;
        ensure!(!site.node_mut(former).is_running(), "{former} runs");
        // A restart of each changes nothing.
        for name in now {
            ensure!(site.nodes_in_file(name)? == now, "the file of {name}");
            site.type_on(name, "systemctl restart orchestrator").await?;
            site.whole(&now).await?;
        }
    }
    Ok(())
}

#[tokio::test]
async fn each_procedure_of_the_readme_is_typed_as_it_stands_there() {
    let _turn = TURN.lock().await;
    let mut site = Site::build().await.expect("machines");
    let site = &mut site;
    from_go_and_back(site).await.expect("from Go, and back");
    let said = site
        .walk("The first start", 0)
        .await
        .expect("a first start");
    assert!(said.contains("node"), "{said}");
    site.decide("first").await.expect("decided");
    site.whole(&THREE).await.expect("three members");
    a_crash(site).await.expect("a crash");
    let heading = "A machine provisioned anew";
    site.reinstall("node3").await.expect("a machine");
    anew(site, heading, 0).await.expect("a machine");
    anew(site, heading, 1).await.expect("a volume");
    clones(site).await.expect("clones");
    a_new_cluster_upgraded(site).await.expect("an upgrade");
    a_replacement(site).await.expect("a replacement");
    let blocks = site.guide.iter();
    let all: BTreeSet<_> = blocks
        .map(|block| (block.heading.clone(), block.number))
        .collect();
    let untyped: Vec<_> = all.difference(&site.typed).collect();
    assert!(untyped.is_empty(), "nobody has typed {untyped:?}");
}

#[test]
fn a_block_says_on_which_machine_it_is_typed() {
    let guide = blocks(
        "# Top\n```sql\nSELECT 1;\n```\n## One\n```sh\n# on node1 and nodeX: the leader last\na \\\n  b\n# on node3\nc\n```\n",
    );
    let guide = guide.expect("a guide");
    let [block] = guide.as_slice() else {
        panic!("{guide:?}");
    };
    assert_eq!((block.heading.as_str(), block.number), ("One", 0));
    let part = |machines: &[&str], leader_last, text: &str| Part {
        machines: machines.iter().map(|name| (*name).to_owned()).collect(),
        leader_last,
        text: text.to_owned(),
    };
    let wanted = [
        part(&["node1", "nodeX"], true, "a \\\n  b\n"),
        part(&["node3"], false, "c\n"),
    ];
    assert_eq!(block.parts, wanted);
    for (wrong, why) in [
        ("```sh\nls\n```", "on which machine"),
        ("```sh\n# on node9\nls\n```", "no machine"),
        ("```sh\n# on node1\n# on node2\nls\n```", "nothing is typed"),
        ("```sh\n```", "an empty block"),
    ] {
        let error = format!("{:#}", blocks(wrong).expect_err(wrong));
        assert!(error.contains(why), "{wrong}: {error}");
    }
}
