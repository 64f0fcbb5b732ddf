//! Hooks as processes of this machine.
//!
//! Each runs in a process group of its own, with nothing to read, and is ended as a group at its deadline: asked first,
//! killed a moment later. Its output is kept up to a bound and goes to the log.

use std::future::Future;
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::pin::Pin;
use std::process::{ExitStatus, Stdio};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

use orchestrator_core::recovery::{Hook, HookCounts, HookFacts, HookList, Outcome};
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::process::{Child, Command};

use super::Hooks;
use super::text::{Form, arguments, environment, form};
use crate::config::HookSettings;
use crate::env::{Env, TokioEnv, sleep, spawn, timeout};

/// Kept of what a hook says, in bytes.
const OUTPUT_BYTES_MAX: usize = 16 * 1024;
/// Of that, in the outcome that goes into the record.
const REASON_BYTES_MAX: usize = 512;
/// Between asking a hook to end and killing it.
const GRACE: Duration = Duration::from_secs(2);
/// What a hook left running may hold its output open; nobody waits longer for the rest of it.
const OUTPUT_PATIENCE: Duration = Duration::from_millis(200);

/// The hooks of a configuration file, which may be read again.
#[derive(Debug)]
pub struct Processes {
    settings: RwLock<Arc<HookSettings>>,
}

impl Processes {
    #[must_use]
    pub fn new(settings: HookSettings) -> Self {
        Processes {
            settings: RwLock::new(Arc::new(settings)),
        }
    }

    /// Hooks that begin from here on are those of this configuration.
    pub fn reload(&self, settings: HookSettings) {
        *self
            .settings
            .write()
            .unwrap_or_else(PoisonError::into_inner) = Arc::new(settings);
    }

    fn settings(&self) -> Arc<HookSettings> {
        let settings = self.settings.read();
        Arc::clone(&settings.unwrap_or_else(PoisonError::into_inner))
    }
}

impl Hooks for Processes {
    fn counts(&self) -> HookCounts {
        let settings = self.settings();
        HookCounts::of(|list| of_list(&settings, list).len())
    }

    fn run(&self, hook: Hook, facts: HookFacts) -> Pin<Box<dyn Future<Output = Outcome> + Send>> {
        let settings = self.settings();
        Box::pin(run(settings, hook, facts))
    }
}

const fn of_list(settings: &HookSettings, list: HookList) -> &Vec<String> {
    match list {
        HookList::OnFailureDetection => &settings.on_failure_detection,
        HookList::PreGracefulTakeover => &settings.pre_graceful_takeover,
        HookList::PreFailover => &settings.pre_failover,
        HookList::PostFailover => &settings.post_failover,
        HookList::PostUnsuccessfulFailover => &settings.post_unsuccessful_failover,
        HookList::PostPrimaryFailover => &settings.post_primary_failover,
        HookList::PostIntermediateFailover => &settings.post_intermediate_failover,
        HookList::PostGracefulTakeover => &settings.post_graceful_takeover,
        HookList::PostTakePrimary => &settings.post_take_primary,
    }
}

async fn run(settings: Arc<HookSettings>, hook: Hook, facts: HookFacts) -> Outcome {
    let refused = |reason: String| Outcome::Refused { code: 0, reason };
    let written = of_list(&settings, hook.list)
        .get(hook.place as usize)
        .cloned();
    let Some(written) = written else {
        return refused(format!("{hook} is not in this daemon's file any more"));
    };
    let recovery = facts.uid.clone();
    tracing::info!(recovery, "{hook} begins: {written}");
    let form = form(&written, hook, &facts);
    let in_background = matches!(
        form,
        Form::Shell {
            in_background: true,
            ..
        }
    );
    let deadline = settings.deadline;
    let starting = timeout::<TokioEnv, _>(deadline, start(&settings, hook, &facts, form));
    let started = match starting.await {
        Some(Ok(started)) => started,
        Some(Err(error)) => {
            tracing::error!(recovery, "{hook} cannot be run: {error}");
            return refused(format!("it cannot be run: {error}"));
        }
        None => {
            let reason = format!(
                "it was not started within {} s, and is ended if it starts later",
                deadline.as_secs_f32()
            );
            tracing::error!(recovery, "{hook}: {reason}");
            return Outcome::Unknown { reason };
        }
    };
    if in_background {
        spawn::<TokioEnv>(async move {
            let outcome = watch(started, hook, &recovery, deadline).await;
            if outcome != Outcome::Done {
                tracing::warn!(recovery, "{hook}, which nobody waits for: {outcome:?}");
            }
        });
        return Outcome::Done;
    }
    watch(started, hook, &recovery, deadline).await
}

/// A running hook, and the file that its shell reads.
struct Started {
    child: Child,
    _script: Option<Script>,
}

/// A hook that began after its deadline, when nobody waited for it: ended with what it started, for it was reported already.
struct Unclaimed(Option<Started>);

impl Drop for Unclaimed {
    fn drop(&mut self) {
        if let Some(started) = &self.0 {
            end_group(started.child.id(), libc::SIGKILL);
        }
    }
}

/// A file that is removed when nobody needs it.
struct Script(PathBuf);

impl Drop for Script {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_file(&self.0) {
            tracing::warn!("{} is not removed: {error}", self.0.display());
        }
    }
}

async fn start(
    settings: &HookSettings,
    hook: Hook,
    facts: &HookFacts,
    form: Form,
) -> io::Result<Started> {
    let (mut command, script) = match form {
        Form::Argv(words) => {
            let mut words = words.into_iter();
            let mut command = Command::new(words.next().unwrap_or_default());
            command.args(words);
            (command, None)
        }
        Form::Shell { text, changed, .. } => {
            if !changed.is_empty() {
                tracing::warn!(
                    recovery = facts.uid,
                    "{hook}: signs that mean something to a shell were replaced by '_' in {changed:?}; the variables of the \
                     environment have the whole values"
                );
            }
            let script = TokioEnv::blocking(move || write_script(&text)).await?;
            let mut command = Command::new(&settings.shell);
            command.arg(&script.0);
            (command, Some(script))
        }
    };
    command
        .args(arguments(hook, facts))
        .envs(environment(hook, facts))
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0);
    // It returns once the program was loaded, and the program may lie on a disk that does not answer.
    let started = TokioEnv::blocking(move || {
        let child = command.spawn().map_err(|error| {
            let program = command
                .as_std()
                .get_program()
                .to_string_lossy()
                .into_owned();
            io::Error::new(error.kind(), format!("{program}: {error}"))
        })?;
        io::Result::Ok(Unclaimed(Some(Started {
            child,
            _script: script,
        })))
    });
    let mut unclaimed = started.await?;
    let started = unclaimed.0.take();
    Ok(started.expect("it was put there when it began"))
}

/// Only the owner reads it: what a hook is told may be nobody else's business.
fn write_script(text: &str) -> io::Result<Script> {
    use std::io::Write as _;
    let folder = std::env::temp_dir();
    loop {
        let name = format!("orchestrator-process-cmd-{:016x}", TokioEnv::random_seed()?);
        let path = folder.join(name);
        let opened = std::fs::OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&path);
        match opened {
            Ok(mut file) => {
                let script = Script(path);
                file.write_all(text.as_bytes())?;
                return Ok(script);
            }
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => {
                let text = format!("{}: {error}", path.display());
                return Err(io::Error::new(error.kind(), text));
            }
        }
    }
}

/// The first bytes of what a hook says on both of its outputs, in the order in which they came.
#[derive(Debug, Clone, Default)]
struct Said(Arc<Mutex<Vec<u8>>>);

impl Said {
    async fn listen(self, mut from: impl AsyncRead + Unpin) {
        let mut buffer = [0; 4096];
        // An error is the end too.
        while let Ok(count) = from.read(&mut buffer).await
            && count > 0
        {
            let mut said = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            let room = OUTPUT_BYTES_MAX.saturating_sub(said.len());
            said.extend_from_slice(&buffer[..count.min(room)]);
        }
    }

    fn text(&self) -> String {
        let said = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        String::from_utf8_lossy(&said).trim().to_owned()
    }
}

async fn watch(mut started: Started, hook: Hook, recovery: &str, deadline: Duration) -> Outcome {
    let said = Said::default();
    let outputs = {
        let out = started
            .child
            .stdout
            .take()
            .map(|out| said.clone().listen(out));
        let err = started
            .child
            .stderr
            .take()
            .map(|err| said.clone().listen(err));
        async move {
            tokio::join!(
                async {
                    if let Some(out) = out {
                        out.await;
                    }
                },
                async {
                    if let Some(err) = err {
                        err.await;
                    }
                }
            )
        }
    };
    let group = started.child.id();
    let child = &mut started.child;
    let mut outputs = Box::pin(outputs);
    let mut finished = false;
    let ended = {
        let ended = async {
            loop {
                tokio::select! {
                    biased;
                    status = child.wait() => return status,
                    _ = &mut outputs, if !finished => finished = true,
                }
            }
        };
        timeout::<TokioEnv, _>(deadline, ended).await
    };
    let outcome = match ended {
        Some(Ok(status)) => {
            // What it started in the background may go on; its words are not waited for.
            if !finished {
                let _ = timeout::<TokioEnv, _>(OUTPUT_PATIENCE, outputs).await;
            }
            outcome_of(status, &said.text())
        }
        Some(Err(error)) => Outcome::Unknown {
            reason: format!("whether it ended is not known: {error}"),
        },
        None => {
            end_group(group, libc::SIGTERM);
            // Not waited for meanwhile: its number, which is the group's, must not become another's.
            sleep::<TokioEnv>(GRACE).await;
            end_group(group, libc::SIGKILL);
            let _ = timeout::<TokioEnv, _>(GRACE, child.wait()).await;
            Outcome::Unknown {
                reason: format!("it was ended after {} s", deadline.as_secs_f32()),
            }
        }
    };
    let text = said.text();
    match &outcome {
        Outcome::Done => tracing::info!(recovery, "{hook} is done{}", after(&text)),
        Outcome::Refused { code, .. } => {
            tracing::error!(
                recovery,
                "{hook} failed with exit code {code}{}",
                after(&text)
            );
        }
        Outcome::Unknown { reason } => {
            tracing::error!(recovery, "{hook}: {reason}{}", after(&text))
        }
    }
    outcome
}

fn after(text: &str) -> String {
    if text.is_empty() {
        String::new()
    } else {
        format!("; it says: {text}")
    }
}

fn outcome_of(status: ExitStatus, said: &str) -> Outcome {
    if status.success() {
        return Outcome::Done;
    }
    let said = orchestrator_core::limits::bounded(said.to_owned(), REASON_BYTES_MAX);
    let how = match (status.code(), status.signal()) {
        (Some(code), _) => format!("exit code {code}"),
        (None, Some(signal)) => format!("ended by signal {signal}"),
        (None, None) => String::from("ended"),
    };
    Outcome::Refused {
        code: status
            .code()
            .and_then(|code| u16::try_from(code).ok())
            .unwrap_or_default(),
        reason: format!("{how}{}", after(&said)),
    }
}

fn end_group(group: Option<u32>, signal: libc::c_int) {
    let Some(group) = group.and_then(|group| libc::pid_t::try_from(group).ok()) else {
        return;
    };
    // SAFETY: a system call without memory arguments. The group is that of a child which was not waited for so far, so
    // that its number means no other process.
    unsafe {
        libc::kill(-group, signal);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::os::fd::AsRawFd;

    use orchestrator_core::id::{Epoch, NodeId};
    use serde_json::json;

    use super::super::text::tests::facts;
    use super::*;
    use crate::config::parse_files;
    use crate::env::DedicatedRuntime;

    fn settings(hooks: &[&str]) -> HookSettings {
        HookSettings {
            shell: String::from("bash"),
            deadline: Duration::from_secs(60),
            on_failure_detection: Vec::new(),
            pre_graceful_takeover: Vec::new(),
            pre_failover: Vec::new(),
            post_failover: hooks.iter().map(|hook| String::from(*hook)).collect(),
            post_unsuccessful_failover: Vec::new(),
            post_primary_failover: Vec::new(),
            post_intermediate_failover: Vec::new(),
            post_graceful_takeover: Vec::new(),
            post_take_primary: Vec::new(),
        }
    }

    fn run(settings: HookSettings, place: u32) -> Outcome {
        let list = HookList::PostFailover;
        run_with(settings, Hook { list, place }, facts())
    }

    /// Runs a hook under a limit that only one that is waited for beyond its deadline reaches.
    fn run_with(settings: HookSettings, hook: Hook, facts: HookFacts) -> Outcome {
        let runtime = DedicatedRuntime::start("hooks-test", 1).unwrap();
        let limit = settings.deadline + Duration::from_secs(60);
        let processes = Processes::new(settings);
        let outcome = runtime.run(timeout::<TokioEnv, _>(limit, processes.run(hook, facts)));
        runtime.stop();
        outcome.unwrap_or_else(|| panic!("the hook is waited for after {limit:?}"))
    }

    /// A file that does not exist so far.
    fn file(name: &str) -> PathBuf {
        let path =
            std::env::temp_dir().join(format!("orchestrator-hooks-{name}-{}", std::process::id()));
        let _ = std::fs::remove_file(&path);
        path
    }

    fn read(path: &PathBuf) -> String {
        let text = std::fs::read_to_string(path).unwrap();
        std::fs::remove_file(path).unwrap();
        text
    }

    #[test]
    fn a_hook_sees_its_text_and_its_environment() {
        let path = file("environment");
        let hook = format!(
            "echo \"{{failedHost}} $ORC_SUCCESSOR_HOST $ORC_IDEMPOTENCY_KEY\" > {}",
            path.display()
        );
        assert_eq!(run(settings(&[&hook]), 0), Outcome::Done);
        assert_eq!(read(&path), "db1 db2 1:ab/PostFailoverProcesses[0]\n");
    }

    /// In both forms, with key and epoch. Also those that no operation of this release calls.
    #[test]
    fn every_list_of_a_file_is_run() {
        let path = file("lists");
        let write = |form: &str| {
            let variables = "$ORC_IDEMPOTENCY_KEY $ORC_EPOCH";
            format!("echo {form} {variables} >> {}", path.display())
        };
        let words = json!(["sh", "-c", write("words")]).to_string();
        let hooks = json!([write("shell"), words, "exit 3"]);
        let keys = HookList::ALL.map(|list| (list.name(), hooks.clone()));
        let keys = BTreeMap::from(keys);
        let text = serde_json::to_vec(&keys).unwrap();
        let settings = parse_files(&[("o.json", &text)], &|_| None)
            .unwrap()
            .settings;
        for list in HookList::ALL {
            let run = |place| {
                let hook = Hook { list, place };
                let facts = HookFacts {
                    idempotency_key: format!("1:ab/{hook}"),
                    epoch: Epoch {
                        term: 7,
                        node: NodeId(1),
                        boot: 2,
                    },
                    ..facts()
                };
                run_with(settings.hooks.clone(), hook, facts)
            };
            assert_eq!((run(0), run(1)), (Outcome::Done, Outcome::Done), "{list:?}");
            assert!(
                matches!(run(2), Outcome::Refused { code: 3, .. }),
                "{list:?}"
            );
            let name = list.name();
            let epoch = format!("7/{}/2", NodeId(1));
            let wanted = format!("shell 1:ab/{name}[0] {epoch}\nwords 1:ab/{name}[1] {epoch}\n");
            assert_eq!(read(&path), wanted);
        }
    }

    #[test]
    fn a_failure_has_its_code_and_its_last_words() {
        let outcome = run(settings(&["echo no; echo such >&2; exit 7"]), 0);
        let Outcome::Refused { code: 7, reason } = outcome else {
            panic!("{outcome:?}")
        };
        assert!(reason.contains("no") && reason.contains("such"), "{reason}");
        let outcome = run(settings(&["kill -9 $$"]), 0);
        assert!(
            matches!(&outcome, Outcome::Refused { code: 0, reason } if reason == "ended by signal 9"),
            "{outcome:?}"
        );
    }

    #[test]
    fn what_is_not_there_is_refused() {
        let outcome = run(settings(&["true"]), 1);
        assert!(
            matches!(outcome, Outcome::Refused { code: 0, .. }),
            "{outcome:?}"
        );
        let outcome = run(settings(&[r#"["/no/such/program"]"#]), 0);
        assert!(
            matches!(&outcome, Outcome::Refused { code: 0, reason } if reason.contains("/no/such/program")),
            "{outcome:?}"
        );
    }

    /// A pipe that has a name.
    fn pipe(name: &str) -> PathBuf {
        let path = file(name);
        let made = std::process::Command::new("mkfifo")
            .arg(&path)
            .status()
            .unwrap();
        assert!(made.success());
        path
    }

    /// Whoever waits for a writer of this pipe ends: it finds no pipe, or one that is closed.
    fn release(path: &PathBuf) {
        let writer = std::fs::OpenOptions::new()
            .read(true)
            .write(true)
            .open(path)
            .unwrap();
        std::fs::remove_file(path).unwrap();
        drop(writer);
    }

    /// The whole group is ended: what the hook started in the background too.
    #[test]
    fn a_hook_is_ended_at_its_deadline_with_all_that_it_started() {
        use std::io::Read as _;
        let path = pipe("group");
        let mut reader = std::fs::OpenOptions::new()
            .read(true)
            .custom_flags(libc::O_NONBLOCK)
            .open(&path)
            .unwrap();
        let hook = format!(
            "(echo; exec sleep 1000) > {} & trap '' TERM; sleep 1000",
            path.display()
        );
        // On a busy machine a shell may be ended before it has started anything, which shows nothing.
        let mut deadline = Duration::from_secs(1);
        loop {
            let hooks = HookSettings {
                deadline,
                ..settings(&[&hook])
            };
            let outcome = run(hooks, 0);
            assert!(matches!(outcome, Outcome::Unknown { .. }), "{outcome:?}");
            if reader.read(&mut [0; 16]).is_ok_and(|count| count > 0) {
                break;
            }
            deadline *= 4;
            assert!(deadline < Duration::from_secs(300), "nothing was started");
        }
        // The pipe hangs up when the last process that could write to it is gone.
        let mut wait = libc::pollfd {
            fd: reader.as_raw_fd(),
            events: libc::POLLIN,
            revents: 0,
        };
        // SAFETY: one valid structure, of which the call is told.
        let ready = unsafe { libc::poll(&raw mut wait, 1, 60_000) };
        assert_eq!((ready, wait.revents & libc::POLLHUP), (1, libc::POLLHUP));
        std::fs::remove_file(&path).unwrap();
    }

    #[test]
    fn what_starts_after_its_deadline_is_ended_and_not_called_undone() {
        let late = HookSettings {
            deadline: Duration::ZERO,
            ..settings(&["sleep 1000"])
        };
        let outcome = run(late, 0);
        assert!(matches!(outcome, Outcome::Unknown { .. }), "{outcome:?}");

        let runtime = DedicatedRuntime::start("hooks-test", 1).unwrap();
        let hung_up = runtime.run(async {
            let mut command = Command::new("sleep");
            command.arg("1000").stdout(Stdio::piped()).process_group(0);
            let mut child = command.spawn().unwrap();
            let mut output = child.stdout.take().unwrap();
            drop(Unclaimed(Some(Started {
                child,
                _script: None,
            })));
            let mut bytes = Vec::new();
            timeout::<TokioEnv, _>(Duration::from_secs(60), output.read_to_end(&mut bytes)).await
        });
        runtime.stop();
        assert!(matches!(hung_up, Some(Ok(0))), "{hung_up:?}");
    }

    #[test]
    fn nobody_waits_for_the_background() {
        let path = pipe("background");
        let hook = format!("read _ < {}; exit 1 &", path.display());
        // The pipe has no writer: the hook waits for ever, and its end is not waited for.
        assert_eq!(run(settings(&[&hook]), 0), Outcome::Done);
        release(&path);
    }

    #[test]
    fn what_a_hook_left_running_does_not_hold_it() {
        let path = pipe("left");
        // What it started keeps both outputs open, and waits for ever: the pipe has no writer.
        let hook = format!("read _ < {} & true", path.display());
        assert_eq!(run(settings(&[&hook]), 0), Outcome::Done);
        release(&path);
    }

    #[test]
    fn output_is_bounded() {
        let outcome = run(
            settings(&["head -c 1000000 /dev/zero | tr '\\0' x; exit 1"]),
            0,
        );
        let Outcome::Refused { code: 1, reason } = outcome else {
            panic!("{outcome:?}")
        };
        assert!(reason.len() < REASON_BYTES_MAX + 64, "{}", reason.len());
    }
}
