//! The Debian package on a machine that systemd runs, as its distribution has it: what the unit, which is hardened, lets the daemon
//! and its hooks do, and when systemd calls it ready and starts it again.
//!
//! The machine is a network of its own, and namespaces in which systemd is the first process. It has this machine's programs, with
//! a layer of its own above them for what is installed there, and nothing else of it: no file of `/etc` or `/var`, no process, no
//! service. Needs root, and a kernel with overlayfs.

use std::collections::BTreeMap;
use std::fs;
use std::net::{SocketAddr, SocketAddrV4};
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow, ensure};
use orchestrator_tests::daemons::{Reply, get};
use orchestrator_tests::disk::Disk;
use orchestrator_tests::fleet::{Flavour, Fleet, FleetOptions, ReplicationTiming, tail};
use orchestrator_tests::network::{Machine, Network};
use orchestrator_tests::process::{Process, Scratch, Signal};
use orchestrator_tests::sql::ORCHESTRATOR;
use orchestrator_tests::wait::{Look, until};
use serde_json::{Value, json};

use super::package::packages;
use super::{DEADLINE, TURN};

const PATIENCE: Duration = Duration::from_secs(60);
const PACE: Duration = Duration::from_millis(20);
/// Nobody calls a machine by it, and one that has any is not at its first boot, at which systemd enables whatever is installed.
const MACHINE_ID: &str = "6f7263686573747261746f722d746573";
/// Between the end of a daemon and its next start: `RestartSec` of the unit.
const RESTART: Duration = Duration::from_secs(2);

/// What is typed on a machine is typed with these.
const ENVIRONMENT: [&str; 3] = [
    "HOME=/root",
    "LC_ALL=C",
    "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
];

/// Enters a control group and becomes another program.
const ENTER: &str = r#"echo $$ >"$0/cgroup.procs" && exec "$@""#;

/// Becomes the first process of a machine, whose disk is the first word. What this machine's packages would have systemd start is
/// taken away, in the layer above them. The kernel is this machine's: nothing there may load modules, set the clock, or write to
/// what is not of a namespace.
const BOOT: &str = r#"
set -e
disk=$0 root=$0/root
mount --bind "$root" "$root"
mount -t overlay -o "lowerdir=/usr,upperdir=$disk/upper,workdir=$disk/work" overlay "$root/usr"
rm -rf "$root"/usr/lib/systemd/system/*.wants "$root"/usr/lib/systemd/system/*.requires "$root"/usr/lib/systemd/system-generators/*
mount -t proc proc "$root/proc"
mount --bind "$root/proc/sys" "$root/proc/sys"
mount -o remount,bind,ro "$root/proc/sys"
mount -t sysfs -o ro sysfs "$root/sys"
mount -t cgroup2 cgroup2 "$root/sys/fs/cgroup"
mount -t tmpfs -o mode=755 tmpfs "$root/run"
mount -t tmpfs -o mode=755 tmpfs "$root/dev"
mkdir "$root/dev/pts" "$root/dev/shm"
chmod 1777 "$root/dev/shm"
mount -t devpts -o newinstance,ptmxmode=0666 devpts "$root/dev/pts"
ln -s pts/ptmx "$root/dev/ptmx"
ln -s /proc/self/fd "$root/dev/fd"
for device in null zero full random urandom tty; do
  : >"$root/dev/$device"
  mount --bind "/dev/$device" "$root/dev/$device"
done
: >"$root/dev/of-the-machine"
cd "$root"
pivot_root . old
umount -l /old
exec setpriv --bounding-set=-sys_module,-sys_time,-sys_rawio \
  env -i container=orchestrator-tests /lib/systemd/systemd --system --unit=multi-user.target
"#;

/// Says what whoever runs it may do. All of it is everybody's right, or at least root's, where no unit takes it away.
const HOOK: &str = r#"#!/bin/bash
may() {
  local what=$1 answer=may
  shift
  "$@" >/dev/null 2>&1 || answer='may not'
  echo "$answer $what"
}
may 'keep files in the folder of the daemon' touch /var/lib/orchestrator/kept
may 'make temporary files' touch /tmp/of-a-hook /var/tmp/of-a-hook
may 'read what is installed' cat /etc/orchestrator.conf.json
may 'look at addresses' ip address show
may 'ask over HTTP' curl -fsS http://ADDRESS/api/lb-check
may 'write elsewhere' touch /srv/of-everybody/of-a-hook
may 'see homes' test -e /home/somebody/file
may 'see the temporary files of others' test -e /tmp/of-others
may 'see processes of others' test -e /proc/1/status
may 'see devices' test -e /dev/of-the-machine
may 'change addresses' ip address add 192.0.2.1/32 dev lo
may 'make namespaces' unshare --user true
may 'mark programs as set-user-ID' chmod u+s /var/lib/orchestrator/kept
may 'change how addresses are laid out' setarch --addr-no-randomize true
may 'have memory that is written and run' perl -e 'exit(syscall(MMAP, 0, 4096, 7, 34, -1, 0) == -1)'
may 'be traced' perl -e 'exit(syscall(PTRACE, 0, 0, 0, 0) == -1)'
may 'ask for packets of the wire' perl -e 'socket(my $wire, 17, 3, 0) or exit($! == 97)'
sed -n -e 's/^\(CapEff\|CapBnd\|NoNewPrivs\|Seccomp\):\t/\1 /p' /proc/self/status
"#;

/// What a hook of the unit may do, and may not.
const MAY: [&str; 5] = [
    "keep files in the folder of the daemon",
    "make temporary files",
    "read what is installed",
    "look at addresses",
    "ask over HTTP",
];
const MAY_NOT: [&str; 12] = [
    "write elsewhere",
    "see homes",
    "see the temporary files of others",
    "see processes of others",
    "see devices",
    "change addresses",
    "make namespaces",
    "mark programs as set-user-ID",
    "change how addresses are laid out",
    "have memory that is written and run",
    "be traced",
    "ask for packets of the wire",
];

/// Where this machine has control groups of the second version, which are mounted where it has them nowhere.
fn control_groups() -> Result<PathBuf> {
    let mounts = fs::read_to_string("/proc/self/mounts")?;
    let mut places = mounts.lines().filter_map(|line| {
        let mut words = line.split(' ').skip(1);
        let place = words.next()?;
        (words.next() == Some("cgroup2")).then_some(PathBuf::from(place))
    });
    if let Some(place) = places.next() {
        return Ok(place);
    }
    let place = PathBuf::from("/run/orchestrator-tests-cgroup");
    fs::create_dir_all(&place)?;
    let mounted = Command::new("mount")
        .args(["-t", "cgroup2", "cgroup2"])
        .arg(&place)
        .status()?;
    ensure!(
        mounted.success(),
        "there are no control groups of version 2 here, and mount(8) cannot give them: {mounted}"
    );
    Ok(place)
}

/// Removes a control group with those that were made in it. It is refused while there is a process in one.
fn remove_group(path: &Path) -> std::io::Result<()> {
    for entry in fs::read_dir(path)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            remove_group(&entry.path())?;
        }
    }
    fs::remove_dir(path)
}

/// A machine. Its disk is in memory, and goes with it.
struct Host {
    process: Option<Process>,
    group: PathBuf,
    machine: Machine,
    disk: Disk,
    _network: Network,
    scratch: Scratch,
}

impl Host {
    /// As its distribution leaves it, with our package in root's folder. It is off.
    fn lay(name: &str) -> Result<Host> {
        let scratch = Scratch::create(name)?;
        let network = Network::lay(1)?;
        let machine = network.machines()[0].clone();
        let host = Host {
            process: None,
            group: control_groups()?.join(format!("orchestrator-tests-{}", std::process::id())),
            disk: Disk::in_memory(&scratch.path().join("disk"), 1_024)?,
            machine,
            _network: network,
            scratch,
        };
        for folder in ["upper", "work"] {
            fs::create_dir(host.disk.path().join(folder))?;
        }
        for folder in [
            "dev",
            "etc/dpkg/dpkg.cfg.d",
            "etc/systemd/system/sysinit.target.wants",
            "home/somebody",
            "old",
            "opt",
            "proc",
            "root",
            "run",
            "srv/of-everybody",
            "sys",
            "tmp",
            "usr",
            "var/lib/dpkg/info",
            "var/lib/dpkg/updates",
            "var/log",
            "var/tmp",
        ] {
            fs::create_dir_all(host.path(folder))?;
        }
        for folder in ["tmp", "var/tmp", "srv/of-everybody"] {
            fs::set_permissions(host.path(folder), fs::Permissions::from_mode(0o1777))?;
        }
        // /bin, /lib and the like.
        for entry in fs::read_dir("/")? {
            let entry = entry?;
            if entry.file_type()?.is_symlink() {
                let to = fs::read_link(entry.path())?;
                if to.starts_with("usr") {
                    symlink(to, host.path("").join(entry.file_name()))?;
                }
            }
        }
        ensure!(
            host.path("lib").is_symlink(),
            "/lib is no link to /usr/lib here, and the machines of this test have this one's /usr alone"
        );
        let alternatives = Command::new("cp")
            .args(["-a", "/etc/alternatives"])
            .arg(host.path("etc"))
            .status()?;
        ensure!(alternatives.success(), "cp: {alternatives}");
        for file in ["ld.so.cache", "login.defs"] {
            let from = Path::new("/etc").join(file);
            if from.exists() {
                fs::copy(from, host.path("etc").join(file))?;
            }
        }
        for (file, text) in [
            ("etc/hostname", format!("{}\n", host.machine.host_name())),
            ("etc/machine-id", format!("{MACHINE_ID}\n")),
            (
                "etc/nsswitch.conf",
                String::from("passwd: files\ngroup: files\nshadow: files\nhosts: files\n"),
            ),
            (
                "etc/passwd",
                String::from(
                    "root:x:0:0:root:/root:/bin/bash\nnobody:x:65534:65534::/:/usr/sbin/nologin\n",
                ),
            ),
            (
                "etc/group",
                String::from("root:x:0:\ntty:x:5:\nsystemd-journal:x:101:\nnogroup:x:65534:\n"),
            ),
            ("etc/shadow", String::from("root:*:1::::::\n")),
            ("etc/gshadow", String::from("root:*::\n")),
            // The C library is there as a file, not as a package.
            (
                "etc/dpkg/dpkg.cfg.d/machine",
                String::from("force-depends\n"),
            ),
            ("var/lib/dpkg/status", String::new()),
            ("var/lib/dpkg/available", String::new()),
            ("home/somebody/file", String::new()),
        ] {
            fs::write(host.path(file), text)?;
        }
        // The services that every machine has: without a journal nobody sees what a daemon says.
        symlink(
            "/usr/lib/systemd/system/systemd-journald.service",
            host.path("etc/systemd/system/sysinit.target.wants/systemd-journald.service"),
        )?;
        let built = host.scratch.path().join("built");
        fs::create_dir(&built)?;
        let (package, _) = packages(&built);
        fs::copy(package, host.path("root/orchestrator.deb"))?;
        Ok(host)
    }

    /// A file of the machine, but below `/usr`, `/dev` and `/run`.
    fn path(&self, file: &str) -> PathBuf {
        self.disk.path().join("root").join(file)
    }

    fn log(&self) -> PathBuf {
        self.scratch.path().join("machine.log")
    }

    fn address(&self) -> SocketAddrV4 {
        SocketAddrV4::new(self.machine.address(), 3_000)
    }

    /// Turns the machine on, and waits until all is started that is to be.
    async fn boot(&mut self) -> Result<()> {
        fs::create_dir(&self.group)
            .with_context(|| format!("{} (it needs root)", self.group.display()))?;
        let mut machine = self.machine.command("unshare");
        machine
            .args(["--mount", "--ipc", "--cgroup", "--pid", "--kill-child"])
            .args(["sh", "-c", BOOT])
            .arg(self.disk.path());
        let mut command = Command::new("sh");
        command
            .args(["-c", ENTER])
            .arg(&self.group)
            .arg(machine.get_program())
            .args(machine.get_args());
        self.process = Some(Process::start(command, &self.log())?);
        let looked = until("the machine is up", PATIENCE, PACE, async || {
            if !self.process.as_mut().is_some_and(Process::is_running) {
                return Look::Holds(Err(anyhow!("it went off")));
            }
            let is_there = format!(
                "[ \"$(cat /etc/machine-id)\" = {MACHINE_ID} ] && systemctl is-system-running"
            );
            match self.run(&is_there) {
                Ok((_, said)) if said == "running\n" => Look::Holds(Ok(())),
                Ok((_, said)) if said == "degraded\n" => {
                    let (_, failed) = self.run("systemctl --failed").unwrap_or_default();
                    Look::Holds(Err(anyhow!("something failed: {failed}")))
                }
                other => Look::not(format!("{other:?}")),
            }
        });
        looked.await.flatten().with_context(|| tail(&[self.log()]))
    }

    /// As when its power is cut. What was written to its disk stays.
    fn cut_power(&mut self) {
        drop(self.process.take());
        // Everything of it ends with its first process, a moment later.
        let began = Instant::now();
        while self.group.exists()
            && let Err(error) = remove_group(&self.group)
        {
            if began.elapsed() > PATIENCE {
                eprintln!("{} stays: {error}", self.group.display());
                return;
            }
            std::thread::sleep(PACE);
        }
    }

    /// Types as root on the machine; whether it was done, and what was said.
    fn run(&self, text: &str) -> Result<(bool, String)> {
        let process = self.process.as_ref().context("the machine is off")?;
        let namespaces = Path::new("/proc")
            .join(process.pid().to_string())
            .join("ns");
        let mut command = Command::new("nsenter");
        for (option, file) in [
            ("ipc", "ipc"),
            ("uts", "uts"),
            ("net", "net"),
            // Whoever made it stays outside.
            ("pid", "pid_for_children"),
            ("mount", "mnt"),
        ] {
            command.arg(format!("--{option}={}", namespaces.join(file).display()));
        }
        let output = command
            .args(["env", "-i"])
            .args(ENVIRONMENT)
            .args(["bash", "-euo", "pipefail", "-c", text])
            .output()
            .context("nsenter; as root, type:  apt-get install util-linux")?;
        let said = [output.stdout, output.stderr].concat();
        Ok((
            output.status.success(),
            String::from_utf8_lossy(&said).into_owned(),
        ))
    }

    /// The same; what was said when it was done.
    fn type_on(&self, text: &str) -> Result<String> {
        let (done, said) = self.run(text)?;
        ensure!(done, "{text}\nsaid:\n{said}\n{}", self.journal());
        Ok(said)
    }

    /// What the daemon said of late.
    fn journal(&self) -> String {
        let journal = self.run("journalctl --unit orchestrator --no-pager --lines 40");
        journal.map_or_else(|error| format!("{error:#}"), |(_, said)| said)
    }

    /// What systemd knows of the daemon.
    fn shown(&self) -> Result<BTreeMap<String, String>> {
        let text = self.type_on("systemctl show --all orchestrator")?;
        let lines = text.lines().filter_map(|line| line.split_once('='));
        Ok(lines
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .collect())
    }

    /// Waits until what systemd knows of the daemon is as it should be.
    async fn wait_shown(
        &self,
        what: &str,
        holds: impl Fn(&BTreeMap<String, String>) -> bool,
    ) -> Result<BTreeMap<String, String>> {
        let looked = until(what, PATIENCE, PACE, async || match self.shown() {
            Ok(shown) if holds(&shown) => Look::Holds(shown),
            Ok(shown) => {
                let of = [
                    "ActiveState",
                    "SubState",
                    "StatusText",
                    "Result",
                    "NRestarts",
                    "MainPID",
                ];
                let short =
                    of.map(|name| format!("{name}={}", shown.get(name).map_or("", String::as_str)));
                Look::not(short.join(" "))
            }
            Err(error) => Look::not(format!("{error:#}")),
        });
        looked.await.with_context(|| self.journal())
    }

    /// Writes the configuration, and the file for passwords, as the README has people write them.
    fn configure(&self, own: Value) -> Result<()> {
        let address = self.machine.address();
        let mut configuration = json!({
            "ListenAddress": self.address().to_string(),
            "BackendDB": "sqlite",
            "SQLite3DataFile": "/var/lib/orchestrator/orchestrator.db",
            "MySQLTopologyUser": ORCHESTRATOR.user,
            "MySQLTopologyPassword": "${ORCHESTRATOR_TOPOLOGY_PASSWORD}",
            "HostnameResolveMethod": "none",
            "MySQLHostnameResolveMethod": "@@report_host",
            "DiscoverByShowSlaveHosts": true,
            "RecoverMasterClusterFilters": ["*"],
            "RaftEnabled": true,
            "RaftDataDir": "/var/lib/orchestrator/raft",
            "RaftBind": address.to_string(),
            "DefaultRaftPort": 10_008,
            "RaftNodes": [address.to_string()],
        });
        for (key, value) in own.as_object().context("an object")? {
            configuration[key] = value.clone();
        }
        let file = self.path("etc/orchestrator.conf.json");
        fs::write(&file, format!("{configuration:#}\n"))?;
        fs::set_permissions(&file, fs::Permissions::from_mode(0o640))?;
        let file = self.path("etc/orchestrator.env");
        fs::write(
            &file,
            format!("ORCHESTRATOR_TOPOLOGY_PASSWORD={}\n", ORCHESTRATOR.password),
        )?;
        fs::set_permissions(&file, fs::Permissions::from_mode(0o600))?;
        self.type_on("chgrp orchestrator /etc/orchestrator.conf.json")
            .map(drop)
    }

    /// Of the daemon, at once: whoever does not listen is an error.
    async fn get(&self, path: &str) -> Result<Reply> {
        get(SocketAddr::V4(self.address()), path, DEADLINE).await
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        self.cut_power();
    }
}

fn is_active(shown: &BTreeMap<String, String>) -> bool {
    shown["ActiveState"] == "active" && shown["MainPID"] != "0"
}

/// It ended, and is started again in a moment.
fn is_tried_again(shown: &BTreeMap<String, String>) -> bool {
    shown["ActiveState"] == "activating" && shown["SubState"] == "auto-restart"
}

fn microseconds(shown: &BTreeMap<String, String>, name: &str) -> Duration {
    Duration::from_micros(shown[name].parse().expect(name))
}

/// A daemon that waits for the others is ready once it listens, and not before. It is started again however it ends, at a pace,
/// whether it was killed or refuses its configuration, until it is told to stop; by an upgrade and a boot of the machine too.
#[tokio::test]
async fn systemd_calls_the_daemon_ready_when_it_listens_and_starts_it_again_at_a_pace() {
    let _turn = TURN.lock().await;
    let mut host = Host::lay("service").expect("a machine");
    host.boot().await.expect("it boots");
    let said = host
        .type_on("dpkg -i /root/orchestrator.deb")
        .expect("installed");
    assert!(
        said.contains("systemctl enable --now orchestrator"),
        "{said}"
    );
    assert_eq!(host.shown().expect("shown")["ActiveState"], "inactive");
    // Of a word that it does not know, systemd says so there and goes on without it. Some versions have much to say of links.
    let (_, verified) = host
        .run("systemd-analyze verify orchestrator.service")
        .expect("typed");
    let of_ours = |line: &&str| line.contains("orchestrator");
    assert_eq!(verified.lines().find(of_ours), None, "{verified}");

    // Two of three are nowhere. Somebody else listens where the daemon is to.
    let [a, b, c, _] = host.machine.address().octets();
    let three = [1, 2, 3].map(|last| format!("{a}.{b}.{c}.{last}"));
    let alone = json!({ "RaftNodes": three });
    host.configure(alone.clone()).expect("written");
    let taken = host.machine.listen(host.address()).expect("taken");
    // Where both are asked for at once, some versions answer for the first alone.
    host.type_on("systemctl enable orchestrator")
        .expect("enabled");
    let (started, said) = host.run("systemctl start orchestrator").expect("typed");
    assert!(!started, "it was ready and did not listen: {said}");
    let address = host.address().to_string();
    let why = |shown: &BTreeMap<String, String>| {
        is_tried_again(shown) && shown["StatusText"].contains(&address)
    };
    host.wait_shown("systemd says why it ends", why)
        .await
        .expect("told");
    drop(taken);
    host.wait_shown("it is ready", is_active)
        .await
        .expect("ready");
    for (path, status) in [("/api/lb-check", 200), ("/api/raft-health", 500)] {
        let reply = host.get(path).await.expect("it listens");
        assert_eq!(reply.status, status, "{path}: {}", reply.body);
    }
    let node = async |host: &Host| {
        host.get("/api/raft-status")
            .await?
            .json()
            .map(|status| status["Node"].clone())
    };
    let identity = node(&host).await.expect("its identity");

    // Killed, it is another process of the same member.
    let before = host.shown().expect("shown");
    host.type_on(&format!("kill -KILL {}", before["MainPID"]))
        .expect("killed");
    let another = |shown: &BTreeMap<String, String>| {
        is_active(shown) && shown["MainPID"] != before["MainPID"]
    };
    let after = host
        .wait_shown("it runs again", another)
        .await
        .expect("started again");
    let restarts =
        |shown: &BTreeMap<String, String>| shown["NRestarts"].parse::<u32>().expect("a number");
    assert_eq!(restarts(&after), restarts(&before) + 1);
    assert_eq!(node(&host).await.expect("it listens"), identity);

    // The file is read again by the same process.
    host.type_on("systemctl reload orchestrator")
        .expect("reloaded");
    let read = "journalctl --unit orchestrator | grep -q 'configuration read again'";
    let looked = until(
        "it reads the file again",
        PATIENCE,
        PACE,
        async || match host.type_on(read) {
            Ok(_) => Look::Holds(()),
            Err(error) => Look::not(format!("{error:#}")),
        },
    );
    looked.await.expect("read");
    assert_eq!(host.shown().expect("shown")["MainPID"], after["MainPID"]);

    // A file where the unit lets nobody write, though the user might. However often it is started, systemd does not give up.
    host.type_on("install -d -o orchestrator /srv/orchestrator")
        .expect("made");
    let mut elsewhere = alone.clone();
    elsewhere["SQLite3DataFile"] = "/srv/orchestrator/orchestrator.db".into();
    host.configure(elsewhere).expect("written");
    let often = "for start in 1 2 3 4 5 6 7; do ! systemctl restart orchestrator || exit 1; done";
    host.type_on(often).expect("refused each time");
    let why = |shown: &BTreeMap<String, String>| {
        is_tried_again(shown) && shown["StatusText"].contains("SQLite3DataFile: /srv/orchestrator")
    };
    let ended = host
        .wait_shown("systemd says why it ends", why)
        .await
        .expect("told");
    println!("{}", ended["StatusText"]);
    // Of two starts one after the other, the second comes when the first has been over for as long as the unit says.
    let start = "ExecMainStartTimestampMonotonic";
    let next =
        |shown: &BTreeMap<String, String>| microseconds(shown, start) > microseconds(&ended, start);
    let next = host
        .wait_shown("it is tried again", next)
        .await
        .expect("tried");
    let paused = microseconds(&next, start)
        .checked_sub(microseconds(&ended, "ExecMainExitTimestampMonotonic"));
    assert!(paused >= Some(RESTART), "tried again after {paused:?}");
    // What the unit has people do whose daemon needs more.
    host.type_on(
        "mkdir /etc/systemd/system/orchestrator.service.d
         printf '[Service]\\nReadWritePaths=/srv/orchestrator\\n' >/etc/systemd/system/orchestrator.service.d/more.conf
         systemctl daemon-reload",
    )
    .expect("a drop-in");
    host.wait_shown("it is ready", is_active)
        .await
        .expect("ready");
    assert_eq!(
        host.get("/api/lb-check").await.expect("it listens").status,
        200
    );
    host.configure(alone).expect("written");

    // The next release is installed over it, and runs when that is done.
    let before = host.shown().expect("shown");
    let said = host
        .type_on("dpkg -i /root/orchestrator.deb")
        .expect("installed");
    assert!(!said.contains("did not start"), "{said}");
    let after = host.shown().expect("shown");
    assert!(
        is_active(&after) && after["MainPID"] != before["MainPID"],
        "{after:?}"
    );
    assert_eq!(
        host.get("/api/lb-check").await.expect("it listens").status,
        200
    );

    // Its machine loses power, and boots.
    host.cut_power();
    host.boot().await.expect("it boots");
    assert!(is_active(&host.shown().expect("shown")));
    assert_eq!(node(&host).await.expect("it listens"), identity);

    // What is stopped stays so.
    host.type_on("systemctl stop orchestrator")
        .expect("stopped");
    let stopped = host.shown().expect("shown");
    let wanted = [
        ("ActiveState", "inactive"),
        ("SubState", "dead"),
        ("Result", "success"),
        ("ExecMainStatus", "0"),
        ("MainPID", "0"),
    ];
    for (name, value) in wanted {
        assert_eq!(stopped[name], value, "{name}: {}", host.journal());
    }
    host.get("/api/lb-check").await.expect_err("nobody listens");

    // Removed while it runs: it is stopped first, and what it was stays.
    host.type_on("systemctl start orchestrator")
        .expect("started");
    assert_eq!(
        host.get("/api/lb-check").await.expect("it listens").status,
        200
    );
    host.type_on("dpkg --remove orchestrator").expect("removed");
    assert_eq!(host.shown().expect("shown")["ActiveState"], "inactive");
    host.get("/api/lb-check").await.expect_err("nobody listens");
    let said = host.type_on("dpkg --purge orchestrator").expect("purged");
    assert!(said.contains("/var/lib/orchestrator is kept"), "{said}");
    assert!(host.path("var/lib/orchestrator/raft").exists());
}

/// The lines that [`HOOK`] says of these.
fn said(answer: &str, whats: &[&str]) -> Vec<String> {
    whats
        .iter()
        .map(|what| format!("{answer} {what}"))
        .collect()
}

/// Hooks of a failover by the unit: they are run as the README has it, may do what an operator expects and nothing that the unit
/// takes away, and none outlives the daemon.
#[tokio::test]
async fn hooks_of_the_unit_may_do_what_they_are_for_and_end_with_the_daemon() {
    let _turn = TURN.lock().await;
    let fleet = FleetOptions {
        flavour: Flavour::MariaDb,
        servers: 2,
        timing: ReplicationTiming::Quick,
    };
    let fleet = Fleet::start(fleet).await.expect("a fleet");
    let mut host = Host::lay("unit-hooks").expect("a machine");
    let ports = fleet.ports();
    let gates = ports.iter().map(|port| host.machine.gate(*port));
    let _gates = gates
        .collect::<Result<Vec<_>>>()
        .expect("ways to the fleet");
    host.boot().await.expect("it boots");
    host.type_on("dpkg -i /root/orchestrator.deb")
        .expect("installed");
    let hook = HOOK
        .replace("ADDRESS", &host.address().to_string())
        .replace("MMAP", &libc::SYS_mmap.to_string())
        .replace("PTRACE", &libc::SYS_ptrace.to_string());
    let file = host.path("opt/hook");
    fs::write(&file, hook).expect("written");
    fs::set_permissions(&file, fs::Permissions::from_mode(0o755)).expect("set");
    let words = [
        "/bin/sh",
        "-c",
        "echo $0 $1 >/var/lib/orchestrator/told",
        "{failedPort}",
        "{successorPort}",
    ];
    let settings = json!({
        "OnFailureDetectionProcesses": ["/opt/hook >/var/lib/orchestrator/may"],
        "PostMasterFailoverProcesses": [json!(words).to_string()],
        "PostFailoverProcesses": ["echo $$ >/var/lib/orchestrator/left; exec sleep 1000 &"],
    });
    host.configure(settings).expect("written");
    host.type_on("systemctl start orchestrator")
        .expect("started");
    let (old, new) = (ports[0], ports[1]);
    let discover = format!("/api/discover/127.0.0.1/{new}");
    for (path, holds) in [
        (discover.as_str(), "\"OK\""),
        ("/api/v2/would-fail-over", "\"WouldFailOver\":true"),
    ] {
        let looked = until(path, PATIENCE, PACE, async || match host.get(path).await {
            Ok(reply) if reply.status == 200 && reply.body.replace(' ', "").contains(holds) => {
                Look::Holds(())
            }
            other => Look::not(format!("{other:?}")),
        });
        looked.await.with_context(|| host.journal()).expect(path);
    }

    // Root may do all of it: what a hook may not, the unit takes away.
    let by_root = host
        .type_on("touch /tmp/of-others; /opt/hook; ip address delete 192.0.2.1/32 dev lo")
        .expect("run");
    let all = said("may", &[MAY.as_slice(), &MAY_NOT].concat());
    let by_root: Vec<&str> = by_root.lines().take(all.len()).collect();
    assert_eq!(by_root, all);
    // Nobody else may touch a file of root's.
    host.type_on("rm /var/lib/orchestrator/kept /srv/of-everybody/of-a-hook /tmp/of-a-hook /var/tmp/of-a-hook")
        .expect("removed");

    fleet.server(old).expect("the primary").signal(Signal::Kill);
    let written = async |name: &str| {
        let file = host.path("var/lib/orchestrator").join(name);
        let looked = until(name, PATIENCE, PACE, async || {
            match fs::read_to_string(&file) {
                Ok(text) if text.ends_with('\n') => Look::Holds(text),
                other => Look::not(format!("{other:?}")),
            }
        });
        looked
            .await
            .with_context(|| host.journal())
            .expect("written")
    };
    // The last of them is run when the others are over.
    let left = written("left").await;
    assert_eq!(written("told").await, format!("{old} {new}\n"));
    let none = "0000000000000000";
    let mut wanted = [said("may", &MAY), said("may not", &MAY_NOT)].concat();
    wanted.extend(
        [
            ("CapEff", none),
            ("CapBnd", none),
            ("NoNewPrivs", "1"),
            ("Seccomp", "2"),
        ]
        .map(|(name, value)| format!("{name} {value}")),
    );
    let may = written("may").await;
    assert_eq!(
        may.lines().collect::<Vec<_>>(),
        wanted,
        "{}",
        host.journal()
    );
    host.type_on("[ -e /var/lib/orchestrator/kept ] && [ ! -e /tmp/of-a-hook ] && [ ! -e /var/tmp/of-a-hook ]")
        .expect("what is temporary is in folders that only the daemon and its hooks see");

    // Whoever kills the daemon gives it no time to end them.
    let runs = format!("[ \"$(cat /proc/{}/comm)\" = sleep ]", left.trim());
    host.type_on(&runs).expect("it runs");
    let before = host.shown().expect("shown");
    host.type_on(&format!("kill -KILL {}", before["MainPID"]))
        .expect("killed");
    let another = |shown: &BTreeMap<String, String>| {
        is_active(shown) && shown["MainPID"] != before["MainPID"]
    };
    host.wait_shown("it runs again", another)
        .await
        .expect("started again");
    let (still, _) = host.run(&runs).expect("typed");
    assert!(!still, "a hook outlived its daemon");
}
